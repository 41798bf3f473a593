//! From what was asked to what is to be done: pure steps of [`super::operate`].

use super::ask::{Ask, Intent, Outcome, Refusal, RolloutAsk, Verify, Wanted};
use super::controller::Committed;
use super::gate::Judged;
use crate::rollout::{Actor, AppState, Change, Color, Command, HealthFacts};

pub(super) fn target_of(intent: &Intent, state: &AppState) -> (Color, bool) {
    match intent {
        Intent::Switch {
            to: Wanted::Color(color),
            force,
            ..
        } => (*color, *force),
        Intent::Switch {
            to: Wanted::Standby,
            force,
            ..
        }
        | Intent::Weight { force, .. } => (state.standby(), *force),
        _ => (state.standby(), false),
    }
}

/// Probing takes time; what moves nothing towards a color needs none.
pub(super) fn needs_gate(intent: &Intent, state: &AppState, target: Color) -> bool {
    match intent {
        Intent::Switch { .. } => target != state.active,
        Intent::Weight { color, percent, .. } if *percent <= 100 => {
            let share = if *color == state.active {
                100 - percent
            } else {
                *percent
            };
            share > state.weight.percent()
        }
        _ => false,
    }
}

pub(super) fn change_of(intent: &Intent, state: &AppState, facts: HealthFacts) -> Change {
    let (to, force) = target_of(intent, state);
    match intent {
        Intent::Weight {
            color,
            percent,
            force,
        } => Change::Weight {
            color: *color,
            percent: *percent,
            facts,
            force: *force,
        },
        _ => Change::Switch { to, facts, force },
    }
}

pub(super) fn command(app: &str, ask: &Ask, change: Change) -> Command {
    Command {
        app: app.to_owned(),
        change,
        expect_generation: ask.expect_generation,
        by: Actor {
            name: ask.by.name.clone(),
            trigger: ask.by.trigger,
        },
        reason: ask.reason.clone(),
        idempotency_key: ask.idempotency_key.clone(),
    }
}

pub(super) fn with_probes(refusal: Refusal, judged: &Judged) -> Refusal {
    match refusal {
        Refusal::Unhealthy { color, active, .. } => Refusal::Unhealthy {
            color,
            active,
            probes: judged.probes.clone(),
        },
        other => other,
    }
}

pub(super) fn outcome(
    app: &str,
    ask: &Ask,
    committed: &Committed,
    verify: Option<Verify>,
    warnings: Vec<String>,
) -> Outcome {
    Outcome {
        app: app.to_owned(),
        verb: verb(&ask.intent),
        changed: committed.applied.is_some(),
        dry_run: ask.dry_run,
        generation: committed.after.generation,
        active: committed.after.active,
        from: committed.before.active,
        weight: committed.after.weight.percent(),
        verify,
        gates: Vec::new(),
        bakes_until: bakes_until(committed),
        warnings,
        repeated: false,
    }
}

/// When the bake ends that this change began.
fn bakes_until(committed: &Committed) -> Option<jiff::Timestamp> {
    let bake = committed.after.bake.as_ref()?;
    let begun = bake.of == committed.after.generation && bake.phase.runs();
    begun
        .then(|| bake.since.saturating_add(bake.length).ok())
        .flatten()
}

pub(super) fn verb(intent: &Intent) -> &'static str {
    match intent {
        Intent::Switch { .. } => "switch",
        Intent::Rollback { .. } | Intent::RollbackTo { .. } => "rollback",
        Intent::Weight { .. } => "weight",
        Intent::Drain { .. } => "drain",
        Intent::Hold { .. } => "hold",
        Intent::Release => "release",
        Intent::Maintenance(_) => "maintenance",
        Intent::SetEndpoints { .. } => "endpoints",
        Intent::Rollout(RolloutAsk::Start { .. }) => "rollout start",
        Intent::Rollout(RolloutAsk::Promote { .. }) => "rollout promote",
        Intent::Rollout(RolloutAsk::Pause) => "rollout pause",
        Intent::Rollout(RolloutAsk::Resume) => "rollout resume",
        Intent::Rollout(RolloutAsk::Abort) => "rollout abort",
    }
}
