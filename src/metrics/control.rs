//! What the control plane counts. It is not the request path: one mutex is enough.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;

use super::{Histogram, Snapshot};
use crate::rollout::{Color, Trigger};

/// How an attempt to move the active color ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SwitchResult {
    /// The traffic moved and stayed.
    Done,
    /// Health, a gate, a conflict or a bad request stopped it; traffic unchanged.
    Refused,
    /// The traffic moved, and was moved back because the proof failed.
    RolledBack,
    /// The change could not be made durable, so it was not made.
    Failed,
}

impl SwitchResult {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Done, Self::Refused, Self::RolledBack, Self::Failed];

    /// The label value.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Refused => "refused",
            Self::RolledBack => "rolled_back",
            Self::Failed => "failed",
        }
    }

    const fn moved(self) -> bool {
        matches!(self, Self::Done | Self::RolledBack)
    }
}

/// The control plane's counters. Label values come from closed sets and from the configuration.
#[derive(Debug, Default)]
pub struct ControlMetrics {
    counts: Mutex<Counts>,
}

/// The label values of one `switches_total` series.
pub(super) type SwitchKey = (String, Color, Color, Trigger, SwitchResult);

#[derive(Debug, Default)]
struct Counts {
    switches: BTreeMap<SwitchKey, u64>,
    gates: BTreeMap<(String, String), i64>,
    guard_rollbacks: BTreeMap<String, u64>,
    switch_duration: Histogram,
    drain: Histogram,
    rest: Totals,
}

/// The counters without labels.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Totals {
    pub(super) drain_cancelled: u64,
    pub(super) reloads_ok: u64,
    pub(super) reloads_failed: u64,
    pub(super) last_reload_ok: bool,
    pub(super) last_success: Option<Timestamp>,
    pub(super) state_write_errors: u64,
    pub(super) first_start_without_state: bool,
    pub(super) docker: Option<bool>,
}

/// All of it at one moment.
#[derive(Debug)]
pub(super) struct ControlSnapshot {
    pub(super) switches: Vec<(SwitchKey, u64)>,
    pub(super) gates: Vec<((String, String), i64)>,
    pub(super) guard_rollbacks: BTreeMap<String, u64>,
    pub(super) switch_duration: Snapshot,
    pub(super) drain: Snapshot,
    pub(super) totals: Totals,
}

impl ControlMetrics {
    /// An attempt to make `to` the active color of an app has ended, `took` after it was asked for. `app` is the
    /// name of a configured app, never a name that a client made up.
    pub fn switched(
        &self,
        app: &str,
        (from, to): (Color, Color),
        trigger: Trigger,
        result: SwitchResult,
        took: Duration,
    ) {
        let mut counts = self.counts();
        let key = (app.to_owned(), from, to, trigger, result);
        *counts.switches.entry(key).or_default() += 1;
        if result.moved() {
            counts.switch_duration.record(took);
        }
    }

    /// A gate of a configured app said pass (1), fail (0), or that it cannot say (-1).
    pub fn gate(&self, app: &str, gate: &str, verdict: i64) {
        self.counts()
            .gates
            .insert((app.to_owned(), gate.to_owned()), verdict);
    }

    /// The guard took a switch or a rollout back.
    pub fn guard_rolled_back(&self, app: &str) {
        *self.counts().guard_rollbacks.entry(app.to_owned()).or_default() += 1;
    }

    /// A color's last request has ended, `took` after the color took nothing new.
    pub fn drained(&self, took: Duration) {
        self.counts().drain.record(took);
    }

    /// Requests were cut because their drain's time is over. Streams may keep the drain itself from being over.
    pub fn drain_cancelled(&self, requests: u64) {
        self.counts().rest.drain_cancelled += requests;
    }

    /// A configuration was taken into use; the one of the start counts too.
    pub fn reloaded(&self, now: Timestamp) {
        let mut counts = self.counts();
        counts.rest.reloads_ok += 1;
        counts.rest.last_reload_ok = true;
        counts.rest.last_success = Some(now);
    }

    /// A config file was refused; the one in use stays.
    pub fn reload_failed(&self) {
        let mut counts = self.counts();
        counts.rest.reloads_failed += 1;
        counts.rest.last_reload_ok = false;
    }

    /// The store could not take a change.
    pub fn state_write_failed(&self) {
        self.counts().rest.state_write_errors += 1;
    }

    /// Docker answers (or does not); `None`: nobody asks it.
    pub fn docker(&self, answers: Option<bool>) {
        self.counts().rest.docker = answers;
    }

    /// The process found no stored state and chose the colors itself.
    pub fn first_start_without_state(&self) {
        self.counts().rest.first_start_without_state = true;
    }

    pub(super) fn snapshot(&self) -> ControlSnapshot {
        let counts = self.counts();
        let merged = |histogram: &Histogram| {
            let mut into = Snapshot::default();
            histogram.merge_into(&mut into);
            into
        };
        ControlSnapshot {
            switches: counts
                .switches
                .iter()
                .map(|(key, count)| (key.clone(), *count))
                .collect(),
            gates: counts
                .gates
                .iter()
                .map(|(key, verdict)| (key.clone(), *verdict))
                .collect(),
            guard_rollbacks: counts.guard_rollbacks.clone(),
            switch_duration: merged(&counts.switch_duration),
            drain: merged(&counts.drain),
            totals: counts.rest,
        }
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
