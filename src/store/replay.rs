//! Read a journal, however damaged: which states are certain, which are in doubt, and what is lost.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::path::Path;

use jiff::Timestamp;

use super::kept::Kept;
use super::line::{self, LINE_MAX, Line, Sum};
use super::wire::{FORMAT, Record, record_from_json};
use super::{Entry, Event, StoreError};

/// How many damaged places are named; the rest is only counted.
const NAMED_MAX: usize = 8;

/// What a file held.
#[derive(Debug)]
pub(super) struct Reading {
    pub(super) kept: Kept,
    /// Apps whose newest state may be hidden by damage, and why.
    pub(super) degraded: BTreeMap<String, String>,
    /// The newest line of each app that is whole but cannot be understood, where nothing newer can.
    pub(super) strange: BTreeMap<String, Strange>,
    /// How many apps there were when the last whole line was written.
    pub(super) apps: u64,
    /// The first line is there.
    pub(super) header: bool,
    /// The places that are damaged, one sentence each.
    pub(super) damage: Vec<String>,
    /// The last append was cut short, beginning here.
    pub(super) torn_at: Option<u64>,
    /// Damage behind the last whole line: it may have hidden anything, a new app too.
    pub(super) damaged_end: bool,
    /// Where the last whole line ends.
    pub(super) whole: u64,
    /// The length of the file.
    pub(super) len: u64,
    pub(super) last_sum: Sum,
    pub(super) last_seq: u64,
}

/// A line kept as it is, because nobody here can read it.
#[derive(Clone, Debug)]
pub(super) struct Strange {
    pub(super) seq: u64,
    pub(super) json: String,
    pub(super) why: String,
}

impl Reading {
    /// Some app is in there.
    pub(super) fn has_apps(&self) -> bool {
        !self.kept.apps().is_empty() || !self.strange.is_empty()
    }
}

/// Read a journal file, line by line. `None`: there is no such file.
pub(super) fn read(path: &Path, bound: usize, now: Timestamp) -> Result<Option<Reading>, StoreError> {
    let failed = |cause| StoreError::io("read", path, cause);
    let is = match fs::metadata(path) {
        Ok(is) => is,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    if !is.is_file() {
        // Opening a pipe would wait for ever.
        return Err(StoreError::Unreadable {
            path: path.to_owned(),
            why: "it is not a regular file".to_owned(),
        });
    }
    let mut input = BufReader::with_capacity(64 << 10, File::open(path).map_err(failed)?);
    let mut replay = Replay::new(bound, now);
    let mut piece = Piece::default();
    while piece.fill(&mut input).map_err(failed)? {
        if let Err(found) = replay.take(&piece) {
            return Err(StoreError::NewerFormat {
                path: path.to_owned(),
                found,
                reads: FORMAT,
            });
        }
    }
    Ok(Some(replay.finish(piece.end)))
}

/// The bytes up to a newline or the end of the file.
#[derive(Default)]
struct Piece {
    bytes: Vec<u8>,
    start: u64,
    end: u64,
    /// It has its newline, and is not longer than a line may be.
    whole: bool,
}

impl Piece {
    /// Read the next piece. Of one that is too long only the beginning is kept.
    fn fill(&mut self, input: &mut impl BufRead) -> io::Result<bool> {
        self.bytes.clear();
        self.start = self.end;
        let mut newline = false;
        while !newline {
            let buffer = input.fill_buf()?;
            if buffer.is_empty() {
                break;
            }
            let found = buffer.iter().position(|b| *b == b'\n');
            newline = found.is_some();
            let taken = found.map_or(buffer.len(), |at| at + 1);
            let room = LINE_MAX.saturating_sub(self.bytes.len());
            self.bytes.extend_from_slice(&buffer[..taken.min(room)]);
            input.consume(taken);
            self.end += taken as u64;
        }
        self.whole = newline && self.end - self.start <= LINE_MAX as u64;
        if self.whole {
            self.bytes.pop();
        }
        Ok(self.end > self.start)
    }
}

struct Replay {
    reading: Reading,
    now: Timestamp,
    /// Pieces since the last whole line that are none.
    suspects: u64,
    suspect_at: u64,
    /// Damaged places so far.
    wounds: u64,
    seen: BTreeMap<String, Seen>,
    /// Apps whose newest line says that they are degraded, and why.
    marks: BTreeMap<String, String>,
}

/// What is known of an app on the way through the file.
struct Seen {
    generation: u64,
    /// The number of damaged places before its last line.
    wounds: u64,
}

impl Replay {
    fn new(bound: usize, now: Timestamp) -> Self {
        Self {
            reading: Reading {
                kept: Kept::new(bound),
                degraded: BTreeMap::new(),
                strange: BTreeMap::new(),
                apps: 0,
                header: false,
                damage: Vec::new(),
                torn_at: None,
                damaged_end: false,
                whole: 0,
                len: 0,
                last_sum: Sum::NONE,
                last_seq: 0,
            },
            now,
            suspects: 0,
            suspect_at: 0,
            wounds: 0,
            seen: BTreeMap::new(),
            marks: BTreeMap::new(),
        }
    }

    /// Look at one piece. The error is the number of a newer format.
    fn take(&mut self, piece: &Piece) -> Result<(), u64> {
        if piece.whole {
            if let Some(line) = line::read(&piece.bytes) {
                return self.line(line, piece);
            }
            if let Some(line) = line::read_behind_damage(&piece.bytes) {
                self.suspect(piece);
                return self.line(line, piece);
            }
        }
        self.suspect(piece);
        Ok(())
    }

    fn suspect(&mut self, piece: &Piece) {
        if self.suspects == 0 {
            self.suspect_at = piece.start;
        }
        self.suspects += 1;
    }

    fn wound(&mut self, what: String) {
        self.wounds += 1;
        if self.reading.damage.len() < NAMED_MAX {
            self.reading.damage.push(what);
        }
    }

    fn line(&mut self, line: Line<'_>, piece: &Piece) -> Result<(), u64> {
        let record = record_from_json(line.seq, line.json);
        if let Record::Newer(found) = record {
            return Err(found);
        }
        if record == Record::Nothing {
            self.suspect(piece);
            return Ok(());
        }
        if self.suspects > 0 {
            self.wound(format!("damaged at byte {}", self.suspect_at));
            self.suspects = 0;
        } else if line.prev != self.reading.last_sum {
            self.wound(format!("missing or misplacing a line at byte {}", piece.start));
        }
        self.reading.whole = piece.end;
        self.reading.last_sum = line.sum;
        self.reading.last_seq = self.reading.last_seq.max(line.seq);
        match record {
            Record::Header { apps } => {
                self.reading.header = true;
                self.reading.apps = self.reading.apps.max(apps);
            }
            Record::Entry {
                entry,
                apps,
                degraded,
            } => {
                self.reading.apps = self.reading.apps.max(apps);
                self.entry(*entry, degraded);
            }
            Record::Strange { app, why } => {
                let strange = Strange {
                    seq: line.seq,
                    json: line.json.to_owned(),
                    why,
                };
                self.reading.strange.insert(app, strange);
            }
            Record::Newer(_) | Record::Nothing => {}
        }
        Ok(())
    }

    fn entry(&mut self, entry: Entry, degraded: Option<String>) {
        let newest = self.reading.kept.newest(&entry.app);
        if newest.is_none_or(|held| held.seq <= entry.seq) {
            // A newer line without the mark was written after an operator had repaired the app.
            match degraded {
                Some(why) => self.marks.insert(entry.app.clone(), why),
                None => self.marks.remove(&entry.app),
            };
        }
        if !self.follows(&entry) {
            let why = self.damaged();
            self.reading.degraded.insert(entry.app.clone(), why);
        }
        let seen = Seen {
            generation: entry.state.generation,
            wounds: self.wounds,
        };
        self.seen.insert(entry.app.clone(), seen);
        if self
            .reading
            .strange
            .get(&entry.app)
            .is_some_and(|strange| strange.seq < entry.seq)
        {
            self.reading.strange.remove(&entry.app);
        }
        self.reading.kept.push(entry, self.now);
    }

    /// No damage since the app's last line can have hidden a change of it.
    fn follows(&self, entry: &Entry) -> bool {
        match self.seen.get(&entry.app) {
            Some(seen) if seen.wounds == self.wounds => true,
            Some(seen) => {
                let is = entry.state.generation;
                is == seen.generation || Some(is) == seen.generation.checked_add(1)
            }
            None => self.wounds == 0 || entry.event == Event::First,
        }
    }

    fn damaged(&self) -> String {
        format!("the journal was {}", self.reading.damage.join(", "))
    }

    fn finish(mut self, len: u64) -> Reading {
        self.reading.len = len;
        if self.suspects == 1 {
            // One append at a time is under way, and one that failed is undone: a single piece is a torn line.
            self.reading.torn_at = Some(self.reading.whole);
        } else if self.suspects > 1 {
            self.wound(format!("damaged from byte {} to its end", self.suspect_at));
            self.reading.damaged_end = true;
        }
        let why = self.damaged();
        for (app, seen) in &self.seen {
            if seen.wounds != self.wounds {
                self.reading.degraded.entry(app.clone()).or_insert(why.clone());
            }
        }
        for (app, why) in self.marks {
            self.reading.degraded.entry(app).or_insert(why);
        }
        for (app, strange) in &self.reading.strange {
            let why = format!("its newest entry cannot be understood ({})", strange.why);
            self.reading.degraded.entry(app.clone()).or_insert(why);
        }
        self.reading
    }
}
