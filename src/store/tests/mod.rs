//! Tests of the store, by what they attack.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test panics to fail")]

mod compaction;
mod damage;
mod disk_faults;
mod doors;
mod real_disk;

use std::fs;
use std::path::{Path, PathBuf};

use jiff::{SignedDuration, Timestamp};
use tempfile::TempDir;

use super::disk::Disk;
use super::journal::Limits;
use super::{Entry, Event, Journal, Restored, StoreError};
use crate::rollout::{
    Actor, AppState, Applied, Change, Color, Command, HealthFacts, Transition, Trigger, apply,
};

/// A state directory in memory where there is one: these tests look at bytes, not at a medium.
struct Place {
    dir: TempDir,
}

impl Place {
    fn new() -> Self {
        let memory = Path::new("/dev/shm");
        let dir = if memory.is_dir() {
            TempDir::new_in(memory)
        } else {
            TempDir::new()
        };
        Self { dir: dir.unwrap() }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    fn file(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    fn open(&self) -> (Journal, Restored) {
        self.try_open().unwrap()
    }

    fn try_open(&self) -> Result<(Journal, Restored), StoreError> {
        self.open_on(&Disk::default())
    }

    fn open_on(&self, disk: &Disk) -> Result<(Journal, Restored), StoreError> {
        Journal::open_with(&self.path(), small(), disk.clone())
    }

    fn journal(&self) -> Vec<u8> {
        fs::read(self.file("journal")).unwrap()
    }

    /// Replace the journal by these bytes, as a damaged disk would.
    fn put(&self, bytes: &[u8]) {
        fs::write(self.file("journal"), bytes).unwrap();
    }

    fn opened(&self) -> Restored {
        self.open().1
    }
}

fn small() -> Limits {
    Limits {
        reserve: 4096,
        ..Limits::default()
    }
}

fn now() -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap()
}

fn entry(app: &str, event: Event, state: &AppState) -> Entry {
    Entry {
        seq: 0,
        at: Timestamp::now(),
        app: app.to_owned(),
        event,
        by: Actor {
            name: "uid 1000 (deploy)".to_owned(),
            trigger: Trigger::Cli,
        },
        reason: "release 7 \"blue\"\nline two".to_owned(),
        idempotency_key: None,
        state: state.clone(),
    }
}

fn first(app: &str) -> Entry {
    entry(app, Event::First, &AppState::first(Color::Blue, now()))
}

/// The entry of a switch to the other color, as the controller would make it.
fn switched(app: &str, state: &AppState) -> Entry {
    let command = Command {
        app: app.to_owned(),
        change: Change::Switch {
            to: state.standby(),
            facts: HealthFacts::good(),
            force: false,
        },
        expect_generation: None,
        by: Actor {
            name: String::new(),
            trigger: Trigger::Cli,
        },
        reason: String::new(),
        idempotency_key: None,
    };
    let at = now() + SignedDuration::from_nanos(i64::try_from(state.generation).unwrap() * 1_000_000_001);
    match apply(state, &command, at).unwrap() {
        Transition::Changed(next, applied) => entry(app, Event::Changed(applied), &next),
        Transition::NoChange | Transition::Noted(..) => panic!("a switch to the standby changes something"),
    }
}

/// Append a switch to what the app has now.
fn switch(journal: &mut Journal, app: &str) -> Result<Entry, StoreError> {
    let state = journal.newest(app).unwrap().clone();
    let entry = switched(app, &state);
    journal.append(entry.clone(), false)?;
    Ok(entry)
}

/// Everything committed, in order: two apps that alternate, an outcome, and at the end an app with a single line.
fn fill(journal: &mut Journal) -> Vec<Entry> {
    let mut all = vec![first("api"), first("web")];
    for round in 0..3 {
        for app in ["web", "api"] {
            let newest = |e: &&Entry| e.app == app;
            let state = all.iter().rev().find(newest).unwrap().state.clone();
            all.push(switched(app, &state));
            if round == 1 && app == "web" {
                let state = all.last().unwrap().state.clone();
                all.push(entry("web", outcome(5), &state));
            }
        }
    }
    for (at, entry) in all.iter_mut().enumerate() {
        entry.seq = journal.append(entry.clone(), false).unwrap();
        assert_eq!(entry.seq, at as u64 + 1);
    }
    all
}

fn outcome(of: u64) -> Event {
    Event::Outcome {
        of,
        requests: 1000,
        failed: 0,
        cancelled: 2,
        verify: "verified".to_owned(),
    }
}

fn newest<'a>(all: &'a [Entry], app: &str) -> Option<&'a Entry> {
    all.iter().rev().find(|e| e.app == app)
}

/// The start of each line, and the length of the file.
fn starts(bytes: &[u8]) -> Vec<usize> {
    let newlines = bytes.iter().enumerate().filter(|(_, b)| **b == b'\n');
    std::iter::once(0).chain(newlines.map(|(at, _)| at + 1)).collect()
}

fn to_green() -> Applied {
    Applied::Switched {
        from: Color::Blue,
        to: Color::Green,
    }
}
