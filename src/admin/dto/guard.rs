//! The JSON of gates, guard and rollouts.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Color;

/// The guard's time after a switch.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Bake {
    /// `watching`, `rollback_blocked`, `passed`, `insufficient_data`, `rolled_back` or `ended`.
    pub phase: String,
    /// The generation of the switch that began it.
    pub of: u64,
    /// The color that was left, and stays warm.
    pub from: Color,
    /// The color that is watched.
    pub to: Color,
    /// When it began.
    pub since: String,
    /// How many seconds it lasts.
    pub length_seconds: f64,
    /// How many seconds it has watched.
    pub watched_seconds: f64,
    /// What was found last: conditions, values, counts and windows.
    pub note: String,
}

/// A switch in steps.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Rollout {
    /// `gating`, `shifting`, `paused`, `done`, `aborted` or `rolled_back`.
    pub phase: String,
    /// The generation that began it.
    pub of: u64,
    /// The color that gains.
    pub to: Color,
    /// All steps.
    pub steps: Vec<RolloutStep>,
    /// The step in force, from 0; null before the first.
    pub step: Option<usize>,
    /// How many seconds its pause has been, in which the proxy ran.
    pub waited_seconds: f64,
    /// It waits for `rollout promote`.
    pub waits_for_approval: bool,
    /// When it began.
    pub since: String,
    /// The candidate's share as wanted, in percent.
    pub desired: u8,
    /// Its share of the last minute's requests, 0 to 1; null without requests.
    pub actual: Option<f64>,
    /// What it waits for, or how it ended.
    pub note: String,
}

/// One step of a rollout.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RolloutStep {
    /// The candidate's share in percent; 100 is the switch.
    pub weight: u8,
    /// What it waits for: a time as `"5m"`, or `"approval"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pause: Option<String>,
}

/// `GET /v1/apps/{app}/rollout`
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct RolloutDocument {
    /// `cutover.rollout/v1`
    pub schema: String,
    /// The app.
    pub app: String,
    /// The newest rollout; null when there was none.
    pub rollout: Option<Rollout>,
}

/// How an app stands after a wait for guard and rollout.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Settled {
    /// `cutover.settled/v1`
    pub schema: String,
    /// The app.
    pub app: String,
    /// Neither a bake nor a rollout is under way.
    pub settled: bool,
    /// The active color.
    pub active: Color,
    /// The generation.
    pub generation: u64,
    /// The newest bake.
    pub bake: Option<Bake>,
    /// The newest rollout.
    pub rollout: Option<Rollout>,
}

/// An operator's word was taken by a gate.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Approved {
    /// `cutover.approved/v1`
    pub schema: String,
    /// The gate.
    pub gate: String,
    /// Yes or no.
    pub approved: bool,
}

/// A gate, and what it said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Gated {
    /// Its name.
    pub gate: String,
    /// `expr`, `run`, `webhook`, `approve` or `identity`.
    pub kind: String,
    /// `pass`, `fail` or `insufficient data`.
    pub verdict: String,
    /// Why.
    pub detail: String,
}

/// `POST /v1/apps/{app}/rollout`
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct StartRollout {
    /// `blue`, `green` or `standby`, which is the default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// The steps; left out: those of the config.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub steps: Option<Vec<RolloutStep>>,
    /// Why.
    pub reason: String,
    /// Say what would happen, and do nothing.
    pub dry_run: bool,
}

/// `POST /v1/apps/{app}/rollout/{promote,pause,resume,abort}`
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SteerRollout {
    /// Of `promote`: all the way.
    pub full: bool,
    /// Why.
    pub reason: String,
    /// Say what would happen, and do nothing.
    pub dry_run: bool,
}

/// `POST /v1/apps/{app}/approve`
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Approve {
    /// The gate; left out: the only one that waits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gate: Option<String>,
    /// True: no instead of yes.
    pub deny: bool,
}
