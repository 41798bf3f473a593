//! The journal: open, append, compact, repair.

mod open;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::disk::{Disk, remove};
use super::kept::Kept;
use super::line::{self, LINE_MAX, Sum};
use super::lock::Lock;
use super::replay::Strange;
use super::reserve::Reserve;
use super::wire::{entry_to_json, header_to_json};
use super::{Entry, Event, Restored, StoreError};
use crate::rollout::AppState;

/// The journal of one state directory, and the lock on it.
///
/// Every call blocks on the disk. When one fails, nothing of it is in the file, and what was there before still is.
#[derive(Debug)]
pub struct Journal {
    dir: PathBuf,
    limits: Limits,
    disk: Disk,
    reserve: Reserve,
    /// Open for appending; `None` while the disk does not allow it.
    file: Option<File>,
    /// The durable length of the file.
    len: u64,
    last_sum: Sum,
    next_seq: u64,
    kept: Kept,
    strange: BTreeMap<String, Strange>,
    /// Apps that accept no change until repaired, and why.
    degraded: BTreeMap<String, String>,
    /// How many apps there are or were: more than are known means that some were lost.
    apps: u64,
    /// Why an unknown app may be a lost one.
    doubt: Option<String>,
    /// Unknown apps that an operator has said may begin.
    begun: BTreeSet<String>,
    /// What has to be done to the file before the next line.
    due: Due,
    /// The file in place is damaged: it becomes `journal.damaged`, not `journal.prev`.
    damaged: bool,
    /// The size of the file at which it is next compacted.
    compact_at: u64,
    _lock: Lock,
}

/// The longest line that is appended: when it is written again in a compaction, a mark may come on top.
const ENTRY_MAX: usize = LINE_MAX - (16 << 10);

/// Sizes, in one place so that tests can have small ones.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// A file longer than this many bytes is compacted.
    pub(super) compact_at: u64,
    /// How many entries a compaction keeps.
    pub(super) entries: usize,
    /// The size of the reserve in bytes.
    pub(super) reserve: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            compact_at: 1 << 20,
            entries: 500,
            reserve: 256 << 10,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Due {
    Nothing,
    /// Cut what is behind the durable length.
    Cut,
    /// Write a new file from what is in memory: what the old one holds is not certain.
    Rewrite,
}

impl Journal {
    /// Open the journal of a state directory, or begin one; take the lock; say what was found.
    ///
    /// A directory that cannot be written is no error as long as a journal is in it: it is served, and changes are
    /// refused until it can be written again.
    ///
    /// # Errors
    /// [`StoreError::Locked`], [`StoreError::Unreadable`], [`StoreError::NewerFormat`], or what the operating
    /// system refused.
    pub fn open(state_dir: &Path) -> Result<(Self, Restored), StoreError> {
        Self::open_with(state_dir, Limits::default(), Disk::default())
    }

    /// Append an entry; returns its sequence number once it is on the disk.
    ///
    /// `urgent` is for what takes traffic back (rollback, revert, abort): on a full disk it may use the reserve.
    ///
    /// # Errors
    /// Any [`StoreError`]; then the entry is not in the journal and will not be after a restart either.
    pub fn append(&mut self, mut entry: Entry, urgent: bool) -> Result<u64, StoreError> {
        self.admit(&mut entry)?;
        entry.seq = self.next_seq;
        let apps = self.apps_with(&entry.app);
        let json = entry_to_json(&entry, apps, None);
        let mut bytes = Vec::with_capacity(json.len() + 64);
        line::write(&mut bytes, Sum::NONE, entry.seq, &json);
        if bytes.len() > ENTRY_MAX {
            return Err(StoreError::TooLong {
                bytes: bytes.len(),
                max: ENTRY_MAX,
            });
        }
        if !urgent {
            self.reserve.refill(&self.disk)?;
        }
        self.with_reserve(urgent, Self::make_good)?;
        let sum = self.with_reserve(urgent, |journal| journal.write(entry.seq, &json))?;

        self.last_sum = sum;
        self.len += bytes.len() as u64;
        self.next_seq += 1;
        self.apps = apps;
        self.strange.remove(&entry.app);
        self.begun.remove(&entry.app);
        let seq = entry.seq;
        self.kept.push(entry, Timestamp::now());
        self.compact_if_long();
        Ok(seq)
    }

    /// Write a new file with the newest state of every app, the newest entries, and those whose idempotency key may
    /// still come again; the old file becomes `journal.prev`.
    ///
    /// # Errors
    /// What the operating system refused; the old file is still in place then.
    pub fn compact(&mut self) -> Result<(), StoreError> {
        self.check_place();
        self.rewrite()
    }

    /// Accept changes of a degraded, lost or doubtful app again: an operator has said that the state served is right.
    /// A damaged file is replaced by a clean one on the way.
    ///
    /// # Errors
    /// What the operating system refused; the app is still degraded then.
    pub fn repair(&mut self, app: &str) -> Result<(), StoreError> {
        let why = self.degraded.remove(app);
        let done = if self.damaged || self.due == Due::Rewrite {
            self.rewrite()
        } else {
            Ok(())
        };
        match (done, why) {
            (Err(error), why) => {
                if let Some(why) = why {
                    self.degraded.insert(app.to_owned(), why);
                }
                Err(error)
            }
            (Ok(()), _) => {
                if self.kept.newest(app).is_none() {
                    self.begun.insert(app.to_owned());
                }
                Ok(())
            }
        }
    }

    /// The newest committed state of an app: to be read when the outcome of a commit is unknown.
    #[must_use]
    pub fn newest(&self, app: &str) -> Option<&AppState> {
        self.kept.newest(app).map(|entry| &entry.state)
    }

    /// Whether this entry may follow what is there.
    fn admit(&self, entry: &mut Entry) -> Result<(), StoreError> {
        let refuse = |why: &String| StoreError::Degraded {
            app: entry.app.clone(),
            why: why.clone(),
        };
        if let Some(why) = self.degraded.get(&entry.app) {
            return Err(refuse(why));
        }
        let Some(newest) = self.kept.newest(&entry.app) else {
            return match &self.doubt {
                Some(why) if self.known() < self.apps && !self.begun.contains(&entry.app) => Err(refuse(why)),
                _ => Ok(()),
            };
        };
        let (is, offered) = (newest.state.generation, entry.state.generation);
        let follows = match entry.event {
            // It is about an earlier change; the app may have moved on since, and must not move back.
            Event::Outcome { .. } => {
                entry.state = newest.state.clone();
                true
            }
            Event::Changed(_) => offered > is,
            Event::First | Event::Restored { .. } => offered >= is,
            // It goes with the state that it was found in; a newer one must not be lost to it.
            Event::Noted(_) => offered == is,
        };
        if follows {
            Ok(())
        } else {
            Err(StoreError::Stale {
                app: entry.app.clone(),
                is,
                offered,
            })
        }
    }

    fn known(&self) -> u64 {
        let strange = self.strange.keys();
        let only_strange = strange.filter(|app| self.kept.newest(app).is_none()).count();
        (self.kept.apps().len() + only_strange) as u64
    }

    fn apps_with(&self, app: &str) -> u64 {
        let new = self.kept.newest(app).is_none() && !self.strange.contains_key(app);
        self.apps.max(self.known() + u64::from(new))
    }

    /// Try; if the disk is full and the change is urgent, give the reserve up and try again.
    fn with_reserve<T>(
        &mut self,
        urgent: bool,
        mut attempt: impl FnMut(&mut Self) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        match attempt(self) {
            Err(error) if urgent && error.disk_full() && self.reserve.give_up(&self.disk) => {
                tracing::warn!(%error, "the disk is full: using the reserve");
                self.make_good()?;
                attempt(self)
            }
            other => other,
        }
    }

    /// Do what is due before a line may be written.
    fn make_good(&mut self) -> Result<(), StoreError> {
        self.check_place();
        match self.due {
            Due::Nothing => Ok(()),
            Due::Cut => self.cut(),
            Due::Rewrite => self.rewrite(),
        }
    }

    /// Notice that somebody moved, replaced or edited the file under the running process: a line appended to a file
    /// without a name would be gone after the next start.
    fn check_place(&mut self) {
        let Some(file) = &self.file else {
            self.due = Due::Rewrite;
            return;
        };
        let same = match (fs::metadata(self.path()), file.metadata()) {
            (Ok(named), Ok(open)) => {
                (named.dev(), named.ino()) == (open.dev(), open.ino()) && named.len() == self.len
            }
            _ => false,
        };
        if !same && self.due == Due::Nothing {
            tracing::warn!(path = %self.path().display(), "the journal was changed by somebody else: writing it anew");
            self.due = Due::Rewrite;
            self.damaged = true;
        }
    }

    fn path(&self) -> PathBuf {
        self.dir.join("journal")
    }

    /// Append one line and wait for the disk; undo it if that fails.
    fn write(&mut self, seq: u64, json: &str) -> Result<Sum, StoreError> {
        let path = self.path();
        let Some(file) = &self.file else {
            return Err(StoreError::io("append to", &path, io::ErrorKind::NotFound.into()));
        };
        let mut bytes = Vec::with_capacity(json.len() + 64);
        let sum = line::write(&mut bytes, self.last_sum, seq, json);
        let written = self.disk.write(file, &bytes).and_then(|()| self.disk.sync(file));
        let Err(cause) = written else {
            return Ok(sum);
        };
        if let Err(error) = self.cut() {
            tracing::error!(%error, "a failed append could not be undone: no change is accepted until the journal is written anew");
            self.due = Due::Rewrite;
        }
        Err(StoreError::io("append to", &path, cause))
    }

    /// Shorten the file to its durable length, durably.
    fn cut(&mut self) -> Result<(), StoreError> {
        let path = self.path();
        let cut = self.file.as_ref().map_or_else(
            || Err(io::ErrorKind::NotFound.into()),
            |file| {
                self.disk.cut(file, self.len)?;
                self.disk.sync(file)
            },
        );
        cut.map_err(|cause| StoreError::io("cut a torn line from", &path, cause))?;
        self.due = Due::Nothing;
        Ok(())
    }

    fn compact_if_long(&mut self) {
        if self.len <= self.compact_at {
            return;
        }
        if let Err(error) = self.rewrite() {
            // The entry is durable in the old file; only the file is longer than it should be.
            tracing::warn!(%error, "the journal could not be compacted");
            self.compact_at = self.len + self.limits.compact_at;
        }
    }

    /// Everything that stays, as a file: its bytes and the checksum of its last line.
    fn image(&self) -> (Vec<u8>, Sum) {
        let mut lines: Vec<(u64, String)> = Vec::new();
        for entry in self.kept.entries() {
            let newest = self
                .kept
                .newest(&entry.app)
                .is_some_and(|newest| newest.seq == entry.seq);
            let mark = self.degraded.get(&entry.app).filter(|_| newest);
            lines.push((
                entry.seq,
                entry_to_json(entry, self.apps, mark.map(String::as_str)),
            ));
        }
        for strange in self.strange.values() {
            lines.push((strange.seq, strange.json.clone()));
        }
        lines.sort_by_key(|(seq, _)| *seq);
        let mut bytes = Vec::new();
        let mut sum = line::write(&mut bytes, Sum::NONE, 0, &header_to_json(self.apps));
        for (seq, json) in &lines {
            sum = line::write(&mut bytes, sum, *seq, json);
        }
        (bytes, sum)
    }

    /// Put a new file in the place of the old one. On an error before the rename nothing has changed.
    fn rewrite(&mut self) -> Result<(), StoreError> {
        let (path, temp) = (self.path(), self.dir.join("journal.new"));
        let (bytes, sum) = self.image();
        let file = match self.replace(&path, &temp, &bytes) {
            Ok(file) => file,
            Err(error) => {
                let _ = remove(&temp); // on a full disk its space is needed
                return Err(error);
            }
        };
        self.file = Some(file);
        self.len = bytes.len() as u64;
        self.last_sum = sum;
        self.compact_at = self.limits.compact_at.max(2 * self.len);
        self.damaged = false;
        // Until the new name is durable, a crash may bring the old file back, without what comes next.
        self.due = Due::Rewrite;
        self.disk
            .sync_dir(&self.dir)
            .map_err(|cause| StoreError::io("sync", &self.dir, cause))?;
        self.due = Due::Nothing;
        Ok(())
    }

    fn replace(&self, path: &Path, temp: &Path, bytes: &[u8]) -> Result<File, StoreError> {
        let failed = |doing| move |cause| StoreError::io(doing, temp, cause);
        let file = self.disk.create(temp).map_err(failed("create"))?;
        self.disk.write(&file, bytes).map_err(failed("write"))?;
        self.disk.sync(&file).map_err(failed("sync"))?;
        if path.exists() {
            let name = if self.damaged {
                "journal.damaged"
            } else {
                "journal.prev"
            };
            let name = self.dir.join(name);
            self.disk
                .link_over(path, &name, &self.dir.join("journal.link"))
                .map_err(|cause| StoreError::io("keep the old journal as", &name, cause))?;
        }
        self.disk
            .rename(temp, path)
            .map_err(|cause| StoreError::io("replace", path, cause))?;
        Ok(file)
    }
}
