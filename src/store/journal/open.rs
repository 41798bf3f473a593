//! Opening: what is in the directory, which of it is to be served, and what is said about it.

use std::fs::{DirBuilder, OpenOptions};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use jiff::Timestamp;

use super::super::disk::Disk;
use super::super::kept::Kept;
use super::super::line::Sum;
use super::super::lock::Lock;
use super::super::replay::{self, Reading};
use super::super::reserve::Reserve;
use super::super::{Restored, RestoredApp, StoreError};
use super::{BTreeMap, BTreeSet, Due, Journal, Limits};

impl Journal {
    pub(in crate::store) fn open_with(
        dir: &Path,
        limits: Limits,
        disk: Disk,
    ) -> Result<(Self, Restored), StoreError> {
        make_dir(dir)?;
        let lock = Lock::take(dir)?;
        let mut notes = Vec::new();
        let reserve = Reserve::open(dir, limits.reserve, &disk, &mut notes);
        let found = find(dir, limits.entries)?;
        let mut journal = Self {
            dir: dir.to_owned(),
            limits,
            disk,
            reserve,
            file: None,
            len: 0,
            last_sum: Sum::NONE,
            next_seq: 1,
            kept: Kept::new(limits.entries),
            strange: BTreeMap::new(),
            degraded: BTreeMap::new(),
            apps: 0,
            doubt: None,
            begun: BTreeSet::new(),
            due: Due::Rewrite,
            damaged: false,
            compact_at: limits.compact_at,
            _lock: lock,
        };
        let fresh = matches!(found, Found::Nothing);
        match found {
            Found::Nothing => journal.rewrite()?,
            Found::Journal(reading) => journal.take_up(reading, &mut notes)?,
            Found::Previous(reading, why) => journal.fall_back(reading, &why, &mut notes)?,
        }
        let restored = journal.restored(notes, fresh);
        Ok((journal, restored))
    }

    /// Continue with what `journal` held.
    fn take_up(&mut self, reading: Reading, notes: &mut Vec<String>) -> Result<(), StoreError> {
        let path = self.path();
        (self.len, self.last_sum) = (reading.whole, reading.last_sum);
        self.damaged = !reading.damage.is_empty();
        self.due = if self.damaged || !reading.header {
            Due::Rewrite
        } else if reading.torn_at.is_some() {
            Due::Cut
        } else {
            Due::Nothing
        };
        for damage in &reading.damage {
            notes.push(format!(
                "{} is {damage}: the newest readable state of each app is served, and the apps that this may concern accept \
                 no change until forced", path.display()
            ));
        }
        let torn = reading.torn_at.map(|at| (at, reading.len - at));
        self.adopt(reading)?;
        match OpenOptions::new().read(true).append(true).open(&path) {
            Ok(file) => self.file = Some(file),
            Err(cause) => {
                self.due = Due::Rewrite;
                let error = StoreError::io("open for appending", &path, cause);
                notes.push(format!(
                    "{error}; the state is served as it is, changes are refused"
                ));
            }
        }
        if let Some((at, bytes)) = torn {
            notes.push(format!(
                "{} ended in a torn line at byte {at} ({bytes} bytes): a change that was never acknowledged; it was cut",
                path.display()
            ));
            if self.due == Due::Cut
                && let Err(error) = self.cut()
            {
                notes.push(error.to_string());
            }
        }
        Ok(())
    }

    /// Continue with what `journal.prev` held, because `journal` holds nothing.
    fn fall_back(&mut self, reading: Reading, why: &str, notes: &mut Vec<String>) -> Result<(), StoreError> {
        let note = format!(
            "{} {why}: restored from journal.prev, which may be older",
            self.path().display()
        );
        let apps: Vec<String> = reading.kept.apps().keys().cloned().collect();
        notes.push(note.clone());
        for damage in &reading.damage {
            notes.push(format!("journal.prev is {damage}"));
        }
        let counted = reading.damaged_end;
        self.adopt(reading)?;
        for app in apps {
            self.degraded.insert(app, note.clone());
        }
        // An app may have begun after that file was written.
        self.apps += u64::from(!counted);
        self.doubt = Some(note);
        self.damaged = true;
        Ok(())
    }

    fn adopt(&mut self, reading: Reading) -> Result<(), StoreError> {
        self.next_seq = reading
            .last_seq
            .checked_add(1)
            .ok_or_else(|| StoreError::Unreadable {
                path: self.path(),
                why: "its sequence numbers are used up".to_owned(),
            })?;
        self.kept = reading.kept;
        self.strange = reading.strange;
        self.degraded = reading.degraded;
        self.apps = reading.apps.max(self.known());
        if reading.damaged_end {
            // Nobody can say what was there: perhaps the first line of an app.
            self.apps += 1;
        }
        if self.known() < self.apps {
            let why = "damage to the journal may have hidden this app's state";
            self.doubt = Some(why.to_owned());
        }
        Ok(())
    }

    fn restored(&self, notes: Vec<String>, fresh: bool) -> Restored {
        let apps = self.kept.apps().iter().map(|(app, entry)| {
            let restored = RestoredApp {
                state: entry.state.clone(),
                degraded: self.degraded.get(app).cloned(),
            };
            (app.clone(), restored)
        });
        let lost = self
            .strange
            .iter()
            .filter(|(app, _)| self.kept.newest(app).is_none());
        let history = self.kept.entries();
        Restored {
            apps: apps.collect(),
            lost: lost
                .map(|(app, strange)| (app.clone(), strange.why.clone()))
                .collect(),
            doubt: self.doubt.clone(),
            history: history.into_iter().cloned().collect(),
            next_seq: self.next_seq,
            notes,
            fresh,
        }
    }
}

/// What a state directory has to start from.
enum Found {
    Nothing,
    Journal(Reading),
    /// `journal.prev`, and what is wrong with `journal`.
    Previous(Reading, String),
}

fn find(dir: &Path, bound: usize) -> Result<Found, StoreError> {
    let now = Timestamp::now();
    let path = dir.join("journal");
    let journal = replay::read(&path, bound, now)?;
    if let Some(reading) = journal {
        if reading.has_apps() {
            return Ok(Found::Journal(reading));
        }
        let empty = reading.header && reading.damage.is_empty() && reading.apps == 0;
        return match replay::read(&dir.join("journal.prev"), bound, now)? {
            Some(previous) if previous.has_apps() => {
                Ok(Found::Previous(previous, "has no readable entry".to_owned()))
            }
            _ if empty => Ok(Found::Journal(reading)),
            _ => Err(StoreError::Unreadable {
                path,
                why: format!("none of its {} bytes is a whole line with an app", reading.len),
            }),
        };
    }
    match replay::read(&dir.join("journal.prev"), bound, now)? {
        None => Ok(Found::Nothing),
        Some(previous) if previous.has_apps() => Ok(Found::Previous(previous, "is missing".to_owned())),
        Some(_) => Err(StoreError::Unreadable {
            path,
            why: "it is missing, and journal.prev has no readable entry".to_owned(),
        }),
    }
}

/// Make the state directory, for its owner alone.
fn make_dir(dir: &Path) -> Result<(), StoreError> {
    if dir.is_dir() {
        return Ok(());
    }
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(|cause| StoreError::io("create the state directory", dir, cause))?;
    // The new name is durable only with the directory that has it.
    dir.parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .map_or(Ok(()), |parent| Disk::default().sync_dir(parent))
        .map_err(|cause| StoreError::io("sync the directory of", dir, cause))
}
