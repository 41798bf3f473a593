//! The mirror of bakes and rollouts.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Hue;
use crate::rollout::{
    Bake, BakePhase, Baseline, Pause, Rollout, RolloutPhase, RolloutStep, STEPS_MAX, check_steps,
};

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Baking {
    of: u64,
    from: Hue,
    to: Hue,
    since: Timestamp,
    length: Duration,
    watched: Duration,
    phase: String,
    baseline: Before,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    note: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Before {
    covered: Duration,
    requests: u64,
    errors: u64,
    client_errors: u64,
    connect_errors: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    p50: Option<Duration>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    p95: Option<Duration>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    p99: Option<Duration>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Rolling {
    of: u64,
    to: Hue,
    steps: Vec<Stride>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    at: Option<usize>,
    phase: String,
    waited: Duration,
    since: Timestamp,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    note: String,
}

/// Without a pause it waits for an approval.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stride {
    weight: u8,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pause: Option<Duration>,
}

impl From<&Bake> for Baking {
    fn from(bake: &Bake) -> Self {
        let before = &bake.baseline;
        Self {
            of: bake.of,
            from: bake.from.into(),
            to: bake.to.into(),
            since: bake.since,
            length: bake.length,
            watched: bake.watched,
            phase: bake.phase.as_str().to_owned(),
            baseline: Before {
                covered: before.covered,
                requests: before.requests,
                errors: before.errors,
                client_errors: before.client_errors,
                connect_errors: before.connect_errors,
                p50: before.p50,
                p95: before.p95,
                p99: before.p99,
            },
            note: bake.note.clone(),
        }
    }
}

impl TryFrom<Baking> for Bake {
    type Error = String;

    fn try_from(bake: Baking) -> Result<Self, String> {
        let phase = BakePhase::ALL
            .into_iter()
            .find(|phase| phase.as_str() == bake.phase);
        let before = bake.baseline;
        Ok(Self {
            of: bake.of,
            from: bake.from.into(),
            to: bake.to.into(),
            since: bake.since,
            length: bake.length,
            watched: bake.watched,
            phase: phase.ok_or_else(|| format!("unknown phase `{}` of a bake", bake.phase))?,
            baseline: Baseline {
                covered: before.covered,
                requests: before.requests,
                errors: before.errors,
                client_errors: before.client_errors,
                connect_errors: before.connect_errors,
                p50: before.p50,
                p95: before.p95,
                p99: before.p99,
            },
            note: bake.note,
        })
    }
}

impl From<&Rollout> for Rolling {
    fn from(rollout: &Rollout) -> Self {
        let stride = |step: &RolloutStep| Stride {
            weight: step.weight,
            pause: match step.pause {
                Pause::For(time) => Some(time),
                Pause::Approval => None,
            },
        };
        Self {
            of: rollout.of,
            to: rollout.to.into(),
            steps: rollout.steps.iter().map(stride).collect(),
            at: rollout.at,
            phase: rollout.phase.as_str().to_owned(),
            waited: rollout.waited,
            since: rollout.since,
            note: rollout.note.clone(),
        }
    }
}

impl TryFrom<Rolling> for Rollout {
    type Error = String;

    fn try_from(rolling: Rolling) -> Result<Self, String> {
        let phase = RolloutPhase::ALL
            .into_iter()
            .find(|phase| phase.as_str() == rolling.phase);
        let step = |stride: Stride| RolloutStep {
            weight: stride.weight,
            pause: stride.pause.map_or(Pause::Approval, Pause::For),
        };
        if rolling.steps.len() > STEPS_MAX {
            return Err(format!(
                "a rollout of {} steps: there are at most {STEPS_MAX}",
                rolling.steps.len()
            ));
        }
        let steps: Vec<RolloutStep> = rolling.steps.into_iter().map(step).collect();
        check_steps(&steps).map_err(|why| why.to_string())?;
        if rolling.at.is_some_and(|at| at >= steps.len()) {
            return Err("a rollout behind its last step".to_owned());
        }
        Ok(Self {
            of: rolling.of,
            to: rolling.to.into(),
            steps,
            at: rolling.at,
            phase: phase.ok_or_else(|| format!("unknown phase `{}` of a rollout", rolling.phase))?,
            waited: rolling.waited,
            since: rolling.since,
            note: rolling.note,
        })
    }
}
