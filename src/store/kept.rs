//! What of a journal stays: the newest state of every app, the newest entries, and the keys that may come again.

use std::collections::{BTreeMap, VecDeque};

use jiff::{SignedDuration, Timestamp};

use super::{Entry, Event};

/// How long the answer to an idempotency key is remembered.
const KEY_LIFE: SignedDuration = SignedDuration::from_hours(24);

/// How many entries are remembered for nothing but their key: the bound on what a chatty pipeline can cost.
const KEYED_MAX: usize = 4096;

/// How many evaluations are remembered.
const JUDGED_MAX: usize = 128;

/// The part of a journal that a compaction keeps, always ready in memory.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    newest: BTreeMap<String, Entry>,
    recent: VecDeque<Entry>,
    keyed: VecDeque<Entry>,
    /// Evaluations of guard and gates: many, so they must not push out what was changed.
    judged: VecDeque<Entry>,
    bound: usize,
}

impl Kept {
    /// Keep the newest `bound` entries.
    pub(super) fn new(bound: usize) -> Self {
        Self {
            newest: BTreeMap::new(),
            recent: VecDeque::new(),
            keyed: VecDeque::new(),
            judged: VecDeque::new(),
            bound,
        }
    }

    pub(super) fn push(&mut self, entry: Entry, now: Timestamp) {
        let is_newest = self
            .newest
            .get(&entry.app)
            .is_none_or(|held| held.seq <= entry.seq);
        if is_newest {
            self.newest.insert(entry.app.clone(), entry.clone());
        }
        if matches!(entry.event, Event::Noted(note) if note.is_passing()) {
            if self.judged.len() == JUDGED_MAX {
                self.judged.pop_front();
            }
            self.judged.push_back(entry);
            return;
        }
        self.recent.push_back(entry);
        if self.recent.len() > self.bound
            && let Some(old) = self.recent.pop_front()
            && old.idempotency_key.is_some()
        {
            self.keyed.push_back(old);
        }
        while self
            .keyed
            .front()
            .is_some_and(|old| self.keyed.len() > KEYED_MAX || now.duration_since(old.at) > KEY_LIFE)
        {
            self.keyed.pop_front();
        }
    }

    /// The newest entry of an app.
    pub(super) fn newest(&self, app: &str) -> Option<&Entry> {
        self.newest.get(app)
    }

    /// The newest entries of all apps.
    pub(super) fn apps(&self) -> &BTreeMap<String, Entry> {
        &self.newest
    }

    /// Everything that stays, oldest first, each once.
    pub(super) fn entries(&self) -> Vec<&Entry> {
        let mut all: Vec<&Entry> = self
            .newest
            .values()
            .chain(&self.keyed)
            .chain(&self.judged)
            .chain(&self.recent)
            .collect();
        all.sort_by_key(|entry| entry.seq);
        all.dedup_by_key(|entry| entry.seq);
        all
    }
}
