//! Health: every endpoint of both colors is probed, always, by the control plane.
//!
//! A probe gives a [`ProbeReport`]; the endpoint's [`Judge`] makes health of it. Periodic probes and the fresh ones
//! before a switch go through the same judge, so they never disagree about an endpoint.

mod answer;
mod ask;
mod grpc;
mod judge;
mod probe;
mod talk;
pub(super) mod words;

#[cfg(test)]
mod probe_tests;
#[cfg(test)]
mod test_app;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use futures_util::{StreamExt, stream};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use super::task::OwnedTask;
use super::{Endpoint, Health, ProbeReport};
use crate::config;

pub use ask::{NoReply, Reply, ask};
pub use judge::Judge;
pub use probe::probe_once;

/// How many probes are under way at the same time, at most. Each may hold a socket until its timeout.
const PROBES_AT_ONCE: usize = 64;

/// The health of an endpoint changed.
#[derive(Clone, Debug)]
pub struct HealthChange {
    /// Which.
    pub endpoint: Arc<Endpoint>,
    /// What was last told of it.
    pub from: Health,
    /// What it is.
    pub to: Health,
    /// The last probe's report.
    pub report: ProbeReport,
}

/// Probes endpoints at their intervals, each in a task of its own; all stop when it is dropped.
#[derive(Debug)]
pub struct Prober {
    changes: mpsc::Sender<HealthChange>,
    slots: Arc<Semaphore>,
    late: Arc<AtomicU64>,
    watched: HashMap<u64, Watched>,
}

#[derive(Debug)]
struct Watched {
    settings: Arc<config::Health>,
    _task: OwnedTask,
}

impl Prober {
    /// A prober of nothing yet, that sends changes of health to `changes`.
    #[must_use]
    pub fn new(changes: mpsc::Sender<HealthChange>) -> Self {
        Self {
            changes,
            slots: Arc::new(Semaphore::new(PROBES_AT_ONCE)),
            late: Arc::default(),
            watched: HashMap::new(),
        }
    }

    /// Probe these and no others from now on. A new endpoint, or one whose settings changed, is probed at once
    /// (and keeps the health it has); an unchanged one keeps its rhythm. Call it inside a tokio runtime.
    pub fn reconcile(&mut self, wanted: Vec<(Arc<Endpoint>, Arc<config::Health>)>) {
        let mut before = std::mem::take(&mut self.watched);
        for (endpoint, settings) in wanted {
            let Entry::Vacant(place) = self.watched.entry(endpoint.id) else {
                continue;
            };
            let watched = match before.remove(&endpoint.id) {
                Some(watched) if watched.settings == settings => watched,
                _ => Watched {
                    settings: Arc::clone(&settings),
                    _task: OwnedTask::spawn(watch(Watch {
                        endpoint,
                        settings,
                        changes: self.changes.clone(),
                        slots: Arc::clone(&self.slots),
                        late: Arc::clone(&self.late),
                    })),
                },
            };
            place.insert(watched);
        }
    }

    /// How many endpoints are probed.
    #[must_use]
    pub fn watching(&self) -> usize {
        self.watched.len()
    }

    /// How often a change found the channel full. It was told after a later probe, if it was still true then.
    #[must_use]
    pub fn late(&self) -> u64 {
        self.late.load(Relaxed)
    }
}

/// Probe all of these now, for the gate of a switch. The reports come in the order of the list.
///
/// Each probe counts like a periodic one. A pass that `rise` does not believe yet is repeated at once, so that
/// an endpoint whose report says healthy also *is* healthy, and takes traffic, when this returns.
pub async fn probe_all(list: Vec<(Arc<Endpoint>, Arc<config::Health>)>) -> Vec<(Arc<Endpoint>, ProbeReport)> {
    let probe = |(endpoint, settings): (Arc<Endpoint>, Arc<config::Health>)| async move {
        let mut report = probe_and_judge(&endpoint, &settings).await;
        for _ in 1..settings.rise {
            if report.verdict != Health::Healthy || endpoint.health() == Health::Healthy {
                break;
            }
            report = probe_and_judge(&endpoint, &settings).await;
        }
        if report.verdict == Health::Healthy {
            // What failed before it came to be is no word against what is there now.
            endpoint.connected();
        }
        (endpoint, report)
    };
    stream::iter(list.into_iter().map(probe))
        .buffered(PROBES_AT_ONCE)
        .collect()
        .await
}

/// What an endpoint's prober remembers between probes.
#[derive(Debug)]
pub(super) struct Judged {
    judge: Judge,
    /// The health last sent to the controller.
    told: Health,
}

impl Default for Judged {
    fn default() -> Self {
        Self {
            judge: Judge::default(),
            told: Health::Unknown,
        }
    }
}

/// What the task of one endpoint needs.
struct Watch {
    endpoint: Arc<Endpoint>,
    settings: Arc<config::Health>,
    changes: mpsc::Sender<HealthChange>,
    slots: Arc<Semaphore>,
    late: Arc<AtomicU64>,
}

async fn watch(watch: Watch) {
    // A zero interval would make tokio panic; the configuration does not allow one, but a task must not depend on it.
    let interval = watch.settings.interval.max(Duration::from_millis(1));
    let mut rhythm = interval_at(
        Instant::now() + first_pause(watch.endpoint.id, interval),
        interval,
    );
    // After a stall the next probe is a whole interval away: no burst.
    rhythm.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        {
            // Never closed, so the error cannot come; without a slot there is no reason to go on.
            let Ok(_slot) = watch.slots.acquire().await else {
                return;
            };
            probe_and_judge(&watch.endpoint, &watch.settings).await;
        }
        tell(&watch);
        rhythm.tick().await;
    }
}

/// The pause after the first probe, half to one and a half intervals: spreads endpoints that start together over
/// the interval, the same way each time.
fn first_pause(id: u64, interval: Duration) -> Duration {
    // Multiples of the golden ratio, as a fraction of 2^32, are spread evenly whatever ids there are.
    let fraction = (id.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32) as u32;
    interval / 2 + interval.mul_f64(f64::from(fraction) / f64::from(u32::MAX))
}

async fn probe_and_judge(endpoint: &Endpoint, settings: &config::Health) -> ProbeReport {
    let report = probe_once(endpoint, settings).await;
    endpoint.record_probe(report.clone());
    // Held over reading and writing the health, so that two probes of one endpoint are judged one after the other.
    let mut judged = endpoint.judged.lock().unwrap_or_else(PoisonError::into_inner);
    let health = match report.named {
        Some(false) => judged.judge.stranger(),
        _ => judged
            .judge
            .hear(endpoint.health(), report.verdict, settings.rise, settings.fall),
    };
    endpoint.set_health(health);
    report
}

/// Send a change that was not told yet. Never waits: a full channel is tried again after the next probe.
fn tell(watch: &Watch) {
    let endpoint = &watch.endpoint;
    let mut judged = endpoint.judged.lock().unwrap_or_else(PoisonError::into_inner);
    let (from, to) = (judged.told, endpoint.health());
    if from == to {
        return;
    }
    let Some(report) = endpoint.last_probe() else {
        return;
    };
    let change = HealthChange {
        endpoint: Arc::clone(endpoint),
        from,
        to,
        report: report.as_ref().clone(),
    };
    match watch.changes.try_send(change) {
        // With nobody to tell, it counts as told.
        Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => judged.told = to,
        Err(mpsc::error::TrySendError::Full(_)) => {
            watch.late.fetch_add(1, Relaxed);
        }
    }
}
