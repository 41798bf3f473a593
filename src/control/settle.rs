//! How bakes and rollouts stand, and the wait for their end.

use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::ask::Refusal;
use super::controller::Controller;
use crate::rollout::{AppState, Bake, BakePhase, Color, Pause, Rollout, RolloutPhase, RolloutStep};

/// A bake, as `status` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BakeView {
    /// How it stands.
    pub phase: BakePhase,
    /// The generation of the switch that began it.
    pub of: u64,
    /// The color that was left.
    pub from: Color,
    /// The color that is watched.
    pub to: Color,
    /// When it began.
    pub since: Timestamp,
    /// How long it watches.
    pub length: Duration,
    /// How long it has watched.
    pub watched: Duration,
    /// What was found last.
    pub note: String,
}

impl From<&Bake> for BakeView {
    fn from(bake: &Bake) -> Self {
        Self {
            phase: bake.phase,
            of: bake.of,
            from: bake.from,
            to: bake.to,
            since: bake.since,
            length: bake.length,
            watched: bake.watched,
            note: bake.note.clone(),
        }
    }
}

/// A rollout, as `status` shows it.
#[derive(Clone, Debug, PartialEq)]
pub struct RolloutView {
    /// How it stands.
    pub phase: RolloutPhase,
    /// The generation that began it.
    pub of: u64,
    /// The color that gains.
    pub to: Color,
    /// All steps.
    pub steps: Vec<RolloutStep>,
    /// The step in force, from 0.
    pub at: Option<usize>,
    /// How long its pause has been.
    pub waited: Duration,
    /// When it began.
    pub since: Timestamp,
    /// What it waits for, or how it ended.
    pub note: String,
    /// The candidate's share as wanted, in percent.
    pub desired: u8,
    /// Its share of the last minute's requests; `None` without requests.
    pub actual: Option<f64>,
}

impl RolloutView {
    pub(super) fn of(rollout: &Rollout, state: &AppState, actual: Option<f64>) -> Self {
        Self {
            phase: rollout.phase,
            of: rollout.of,
            to: rollout.to,
            steps: rollout.steps.clone(),
            at: rollout.at,
            waited: rollout.waited,
            since: rollout.since,
            note: rollout.note.clone(),
            desired: state.share(rollout.to),
            actual,
        }
    }

    /// It waits for an operator.
    #[must_use]
    pub fn waits_for_approval(&self) -> bool {
        let step = self.at.and_then(|at| self.steps.get(at));
        self.phase == RolloutPhase::Shifting && step.is_some_and(|step| step.pause == Pause::Approval)
    }
}

/// Where an app stands after a wait.
#[derive(Clone, Debug, PartialEq)]
pub struct Settled {
    /// The app.
    pub app: String,
    /// Neither a bake nor a rollout is under way.
    pub settled: bool,
    /// The active color.
    pub active: Color,
    /// The generation.
    pub generation: u64,
    /// The newest bake.
    pub bake: Option<BakeView>,
    /// The newest rollout.
    pub rollout: Option<RolloutView>,
}

impl Controller {
    /// Wait until neither a bake nor a rollout is under way, or the time is over.
    pub(super) async fn wait_settled(&self, app: &str, time: Duration) -> Result<Settled, Refusal> {
        let begun = Instant::now();
        loop {
            let changed = self.settled.notified();
            let state = self.with_slot(app, |slot| slot.state.clone())?;
            let bakes = state.bake.as_ref().is_some_and(|bake| bake.phase.runs());
            let rolls = state.rollout.as_ref().is_some_and(|rollout| rollout.phase.runs());
            let left = time.saturating_sub(begun.elapsed());
            if !(bakes || rolls) || left.is_zero() {
                return Ok(Settled {
                    app: app.to_owned(),
                    settled: !(bakes || rolls),
                    active: state.active,
                    generation: state.generation,
                    bake: state.bake.as_ref().map(BakeView::from),
                    rollout: self.rollout_view(app, &state),
                });
            }
            // A notice between the look and the wait would be lost: look again before long.
            let _ = tokio::time::timeout(left.min(Duration::from_millis(250)), changed).await;
        }
    }

    pub(super) fn rollout_view(&self, app: &str, state: &AppState) -> Option<RolloutView> {
        let rollout = state.rollout.as_ref()?;
        let sampler = self.sampler.borrow();
        let requests = |color| sampler.over(app, color, super::guard::WINDOW, None).requests() as f64;
        let (own, other) = (requests(rollout.to), requests(rollout.to.other()));
        let actual = (own + other > 0.0).then(|| own / (own + other));
        Some(RolloutView::of(rollout, state, actual))
    }
}
