//! Drains: from the publish that takes a color's gates out to the last byte of its last request.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::ask::{Refusal, Verify};
use super::controller::{Controller, Slot, itself};
use super::handle::Drained;
use super::view::{EventKind, OutcomeView};
use crate::rollout::{Color, Trigger};
use crate::store;
use crate::upstream::Gate;

/// A color, or some endpoints of it, on the way out.
pub(super) struct DrainJob {
    color: Color,
    gates: Vec<Arc<Gate>>,
    /// The table without these gates: every worker must have applied it.
    version: u64,
    since: Instant,
    /// When running requests are cut; `None` while the color keeps its share (a hold).
    deadline: Option<Instant>,
    cut: bool,
    cancelled: u64,
    /// The change that began it, for its outcome.
    change: Option<Began>,
}

/// The change at the root of a drain.
struct Began {
    seq: u64,
    requests: u64,
    failed: u64,
}

impl Slot {
    /// Requests of a color that are finishing.
    pub(super) fn draining_in_flight(&self, color: Color) -> u64 {
        self.draining
            .iter()
            .filter(|job| job.color == color)
            .map(DrainJob::in_flight)
            .sum()
    }

    /// Streams of a color that are still open though it was left.
    pub(super) fn draining_streams(&self, color: Color) -> u64 {
        let jobs = self.draining.iter().filter(|job| job.color == color);
        jobs.map(DrainJob::streams).sum()
    }
}

impl DrainJob {
    fn in_flight(&self) -> u64 {
        self.gates.iter().map(|gate| gate.in_flight()).sum()
    }

    fn streams(&self) -> u64 {
        self.gates.iter().map(|gate| gate.streams()).sum()
    }

    /// Requests that are no streams: the ones that `drain.http` is for.
    fn ordinary(&self) -> u64 {
        self.in_flight().saturating_sub(self.streams())
    }
}

impl Controller {
    /// Follow gates that have been closed until nothing goes through them any more.
    pub(super) fn start_drains(
        &self,
        app: &str,
        closing: Vec<(Color, Arc<Gate>)>,
        version: u64,
        change: Option<(u64, (u64, u64))>,
    ) {
        let patience = self
            .config
            .borrow()
            .apps
            .get(app)
            .map_or(Duration::ZERO, |of| of.drain.http);
        let now = Instant::now();
        let mut change = change.map(|(seq, (requests, failed))| Began {
            seq,
            requests,
            failed,
        });
        let result = self.with_slot(app, |slot| {
            // A hold's drain has no end while its color keeps its share; from here on it may not have one.
            for job in &mut slot.draining {
                if job.deadline.is_none() && slot.state.share(job.color) == 0 {
                    job.deadline = Some(now + patience);
                }
            }
            // The color that the change left comes first: its drain is the change's.
            let left = slot.state.standby();
            for color in [left, left.other()] {
                let of_color = closing.iter().filter(|(of, _)| *of == color);
                let gates: Vec<_> = of_color.map(|(_, gate)| Arc::clone(gate)).collect();
                if gates.is_empty() {
                    continue;
                }
                let stays = slot.state.hold.is_some() && slot.state.share(color) > 0;
                slot.draining.push(DrainJob {
                    color,
                    gates,
                    version,
                    since: now,
                    deadline: (!stays).then(|| now + patience),
                    cut: false,
                    cancelled: 0,
                    change: change.take(),
                });
            }
        });
        // An app that has left the config has no drains to follow.
        let _ = result;
        self.drained.notify_one();
    }

    /// Whether anything drains.
    pub(super) fn drains(&self) -> bool {
        self.apps.borrow().values().any(|slot| !slot.draining.is_empty())
    }

    /// Look at all drains: end those that are over, cut those whose time is.
    pub(super) fn follow_drains(&self) {
        let applied = self.published.applied_by_all();
        let now = Instant::now();
        let mut ended = Vec::new();
        for (name, slot) in &mut *self.apps.borrow_mut() {
            for job in &mut slot.draining {
                if job.deadline.is_none_or(|deadline| now < deadline) || job.ordinary() == 0 {
                    continue;
                }
                if !job.cut {
                    // Counted before the workers hear of it: they may be done with it at once.
                    job.cut = true;
                    job.cancelled = job.ordinary();
                    self.metrics.drain_cancelled(job.cancelled);
                    let (color, cancelled) = (job.color, job.cancelled);
                    tracing::warn!(app = name, %color, cancelled, "drain time over: running requests are cut");
                }
                // Each time: a request that was connecting had nothing to cut before.
                let ids: Vec<_> = job.gates.iter().map(|gate| gate.id).collect();
                self.published.cut(&ids);
            }
            let is_over = |job: &mut DrainJob| applied >= job.version && job.in_flight() == 0;
            ended.extend(
                slot.draining
                    .extract_if(.., is_over)
                    .map(|job| (name.clone(), job)),
            );
        }
        let any = !ended.is_empty();
        for (app, job) in ended {
            self.drain_over(&app, job);
        }
        if any {
            self.drain_ended.notify_waiters();
        }
    }

    fn drain_over(&self, app: &str, job: DrainJob) {
        let took = job.since.elapsed();
        if job.deadline.is_some() {
            self.metrics.drained(took);
            let cut = if job.cancelled > 0 {
                format!(", {} requests cut", job.cancelled)
            } else {
                String::new()
            };
            let message = format!(
                "{app}: {} has drained in {:.3} s{cut}",
                job.color,
                took.as_secs_f64()
            );
            self.tell(EventKind::Drained, Some(app), None, message);
        }
        let Some(began) = job.change else { return };
        let (requests, failed) = self.totals(app);
        let (requests, failed) = (
            requests.saturating_sub(began.requests),
            failed.saturating_sub(began.failed),
        );
        let mut verify = String::new();
        for entry in &mut *self.history.borrow_mut() {
            if entry.seq == began.seq && entry.app == app {
                let known = entry.outcome.take();
                verify = known.map(|known| known.verify).unwrap_or_default();
                let cancelled = job.cancelled;
                entry.outcome = Some(OutcomeView {
                    requests,
                    failed,
                    cancelled,
                    verify: verify.clone(),
                });
            }
        }
        self.store_outcome(
            app,
            began.seq,
            OutcomeView {
                requests,
                failed,
                cancelled: job.cancelled,
                verify,
            },
        );
    }

    /// Store what happened meanwhile. It is a note: when it cannot be stored, nothing waits for it.
    fn store_outcome(&self, app: &str, of: u64, outcome: OutcomeView) {
        let OutcomeView {
            requests,
            failed,
            cancelled,
            verify,
        } = outcome;
        let Ok(state) = self.with_slot(app, |slot| slot.state.clone()) else {
            return;
        };
        let entry = store::Entry {
            seq: 0,
            at: Timestamp::now(),
            app: app.to_owned(),
            event: store::Event::Outcome {
                of,
                requests,
                failed,
                cancelled,
                verify,
            },
            by: itself("drain", Trigger::Timer),
            reason: String::new(),
            idempotency_key: None,
            state,
        };
        let store = self.store.clone();
        tokio::task::spawn_local(async move {
            if let Err(error) = store.commit(entry, false).await {
                tracing::debug!(%error, "the outcome of a change was not stored");
            }
        });
    }

    /// Note in the history how the proof of a change went.
    pub(super) fn note_verify(&self, seq: Option<u64>, verify: &Verify) {
        let text = match verify {
            Verify::Verified { requests } => format!("verified by {requests} requests"),
            Verify::Skipped(why) => format!("skipped: {why}"),
            Verify::Unverified(why) => format!("unverified: {why}"),
        };
        let Some(seq) = seq else { return };
        for entry in &mut *self.history.borrow_mut() {
            if entry.seq == seq {
                let outcome = entry.outcome.get_or_insert_with(OutcomeView::default);
                outcome.verify.clone_from(&text);
            }
        }
    }

    /// Wait until a color holds no request.
    pub(super) async fn wait_drained(
        &self,
        app: &str,
        color: Color,
        timeout: Duration,
    ) -> Result<Drained, Refusal> {
        let state = self.with_slot(app, |slot| slot.state.clone())?;
        let of_color = &state.colors[color];
        if state.share(color) > 0 && !of_color.drained {
            let share = state.share(color);
            let text = format!(
                "{color} has {share} % of the traffic: switch away from it, or `cutover drain {color}`"
            );
            return Err(Refusal::NotDrainable(text));
        }
        if !of_color.left && !of_color.drained {
            let text = format!("{color} had no traffic and was not drained: there is nothing to wait for");
            return Err(Refusal::NotDrainable(text));
        }
        let begun = Instant::now();
        let version = self.published.load().version;
        loop {
            let ended = self.drain_ended.notified();
            let back = self.with_slot(app, |slot| {
                slot.state.share(color) > 0 && !slot.state.colors[color].drained
            })?;
            if back {
                let text = format!("{color} has traffic again: somebody moved it back during the wait");
                return Err(Refusal::NotDrainable(text));
            }
            let jobs = self.with_slot(app, |slot| slot.draining.iter().any(|job| job.color == color))?;
            if !jobs && self.published.applied_by_all() >= version {
                return Ok(Drained {
                    app: app.to_owned(),
                    color,
                    waited: begun.elapsed(),
                });
            }
            let left = timeout.saturating_sub(begun.elapsed());
            if left.is_zero() {
                let left = |slot: &mut Slot| (slot.draining_in_flight(color), slot.draining_streams(color));
                let (in_flight, streams) = self.with_slot(app, left)?;
                let of_them = match streams {
                    0 => String::new(),
                    streams => format!(", {streams} of them streams"),
                };
                let text =
                    format!("{color} still has {in_flight} requests in flight{of_them} after {timeout:?}");
                return Err(Refusal::TimedOut(text));
            }
            // Also look again by itself: a worker's report is no drain's end.
            let _ = tokio::time::timeout(left.min(Duration::from_millis(20)), ended).await;
        }
    }
}
