//! Holds: requests wait, for a moment in which nothing runs.

use std::rc::Rc;
use std::time::Duration;

use jiff::Timestamp;

use super::ask::{Ask, Outcome, Refusal};
use super::controller::{Controller, Insistence, itself};
use crate::rollout::{Change, Color, Command, Trigger};

/// The longest hold that may be asked for: held clients give up long before.
const HOLD_MAX: Duration = Duration::from_secs(600);

impl Controller {
    /// Let requests wait; `idle` answers when no request runs any more.
    pub(super) async fn hold(
        self: &Rc<Self>,
        app: &str,
        ask: &Ask,
        max: Duration,
        idle: bool,
    ) -> Result<Outcome, Refusal> {
        if max.is_zero() || max > HOLD_MAX {
            return Err(Refusal::Invalid(format!(
                "a hold lasts more than 0 and at most {} s",
                HOLD_MAX.as_secs()
            )));
        }
        let mut outcome = self.simple(app, ask, Change::Hold { max }).await?;
        if !outcome.changed || outcome.dry_run {
            return Ok(outcome);
        }
        let since = self.with_slot(app, |slot| slot.state.hold.map(|hold| hold.since))?;
        let (controller, name) = (Rc::clone(self), app.to_owned());
        tokio::task::spawn_local(async move {
            tokio::time::sleep(max).await;
            controller.release_in_time(&name, since).await;
        });
        if idle {
            let streams = self.fall_idle(app, since).await?;
            if streams > 0 {
                let text = format!(
                    "{streams} streams of {} are still open; they end by `drain.streams` after a switch",
                    outcome.active
                );
                outcome.warnings.push(text);
            }
        }
        Ok(outcome)
    }

    /// Wait until no request runs, streams apart, which are counted. The hold's own end is the limit.
    async fn fall_idle(&self, app: &str, since: Option<Timestamp>) -> Result<u64, Refusal> {
        let version = self.published.load().version;
        loop {
            let ended = self.drain_ended.notified();
            let (held, active, running, streams) = self.with_slot(app, |slot| {
                let all = |count: fn(&super::controller::Slot, Color) -> u64| -> u64 {
                    Color::ALL.into_iter().map(|color| count(slot, color)).sum()
                };
                let streams = all(|slot, color| slot.draining_streams(color));
                let in_flight = all(|slot, color| slot.draining_in_flight(color));
                let held = slot.state.hold.is_some_and(|hold| Some(hold.since) == since);
                (
                    held,
                    slot.state.active,
                    in_flight.saturating_sub(streams),
                    streams,
                )
            })?;
            if !held {
                let text = format!(
                    "the hold was over before {running} running requests were; they are released, {active} is active"
                );
                return Err(Refusal::TimedOut(text));
            }
            if running == 0 && self.published.applied_by_all() >= version {
                return Ok(streams);
            }
            // Also look again by itself: a worker's report is no drain's end.
            let _ = tokio::time::timeout(Duration::from_millis(10), ended).await;
        }
    }

    /// A hold never outlasts its limit: it ends in release to the active color.
    async fn release_in_time(self: &Rc<Self>, app: &str, since: Option<Timestamp>) {
        // The hold of then may be over and another one begun: that one has a timer of its own.
        let same = self.with_slot(app, |slot| {
            slot.state.hold.is_some_and(|hold| Some(hold.since) == since)
        });
        if !matches!(same, Ok(true)) {
            return;
        }
        let why = "the hold reached its limit";
        if let Err(error) = self.release_now(app, "hold limit", Trigger::Timer, why).await {
            tracing::error!(app, %error, "the hold could not be released");
        }
    }

    /// End the hold of a switch, whatever became of the switch: who waits goes where the traffic is now.
    pub(super) async fn released(
        self: &Rc<Self>,
        app: &str,
        ask: &Ask,
        result: Result<Outcome, Refusal>,
    ) -> Result<Outcome, Refusal> {
        let why = match &result {
            Ok(_) => "the switch is done",
            Err(_) => "the switch was not done",
        };
        let released = self.release_now(app, &ask.by.name, ask.by.trigger, why).await;
        let mut outcome = match (result, &released) {
            (Ok(outcome), _) => outcome,
            (Err(refusal), _) => return Err(refusal),
        };
        match released {
            Ok(generation) => outcome.generation = generation,
            Err(error) => outcome.warnings.push(format!(
                "the hold is not released ({error}); it ends by itself at its limit"
            )),
        }
        Ok(outcome)
    }

    async fn release_now(
        self: &Rc<Self>,
        app: &str,
        by: &str,
        trigger: Trigger,
        why: &str,
    ) -> Result<u64, Refusal> {
        let release = Command {
            app: app.to_owned(),
            change: Change::Release,
            expect_generation: None,
            by: itself(by, trigger),
            reason: why.to_owned(),
            idempotency_key: None,
        };
        let insist = Insistence {
            urgent: true,
            undurable: true,
            ..Insistence::default()
        };
        let committed = self.change(release, insist).await?;
        Ok(committed.after.generation)
    }
}
