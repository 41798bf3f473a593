//! The tables that guard a switch, as they are written.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use super::{At, DurationText};

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct Guard {
    /// How long the guard watches after a switch; "0" = no guard.
    #[schemars(extend("default" = "5m"))]
    pub(in crate::config) bake: Option<At<DurationText>>,
    /// CEL conditions over the windows; one that holds takes the switch back.
    pub(in crate::config) rollback_when: Option<Vec<At<String>>>,
    /// CEL conditions that only warn.
    #[schemars(extend("default" = []))]
    pub(in crate::config) warn_when: Option<Vec<At<String>>>,
    /// Requests without which a rate or a latency says nothing.
    #[schemars(range(min = 0, max = 1_000_000_000), extend("default" = 50))]
    pub(in crate::config) min_requests: Option<At<i64>>,
    /// Evaluations in a row in which a condition must hold.
    #[schemars(range(min = 1, max = 1000), extend("default" = 3))]
    pub(in crate::config) evaluations: Option<At<i64>>,
    /// Between two evaluations.
    #[schemars(extend("default" = "5s"))]
    pub(in crate::config) every: Option<At<DurationText>>,
    /// Latencies of so long after the switch are left out.
    #[schemars(extend("default" = "30s"))]
    pub(in crate::config) grace: Option<At<DurationText>>,
    /// What too few requests at the end of the bake mean ("hold" is an older word for "stay").
    #[schemars(extend("default" = "stay"))]
    pub(in crate::config) on_insufficient_data: Option<At<WithoutData>>,
    /// Failed connects in a row that take the switch back at once; 0 = off.
    #[schemars(range(min = 0, max = 1_000_000), extend("default" = 5))]
    pub(in crate::config) connect_failures: Option<At<i64>>,
}

#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(in crate::config) enum WithoutData {
    Stay,
    Promote,
    Rollback,
    Hold,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct Gate {
    /// A CEL condition over the windows, or several that must all hold.
    pub(in crate::config) expr: Option<At<OneOrMore>>,
    /// A command; exit code 0 passes. A list, or a line for `sh -c`.
    pub(in crate::config) run: Option<At<OneOrMore>>,
    /// A URL that is asked with POST.
    pub(in crate::config) webhook: Option<At<String>>,
    /// PEM file of the authority that signs the webhook's certificate; default: those of the system.
    pub(in crate::config) ca: Option<At<String>>,
    /// True: an operator says yes or no, with `cutover approve`.
    pub(in crate::config) approve: Option<At<bool>>,
    /// How long it may take; default 1m, for `approve` 1h.
    pub(in crate::config) timeout: Option<At<DurationText>>,
    /// What happens then.
    #[schemars(extend("default" = "stay"))]
    pub(in crate::config) on_timeout: Option<At<OnTimeout>>,
    /// Requests without which a rate or a latency says nothing; default: the guard's.
    #[schemars(range(min = 0, max = 1_000_000_000))]
    pub(in crate::config) min_requests: Option<At<i64>>,
}

#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(in crate::config) enum OnTimeout {
    Stay,
    Rollback,
    Hold,
}

/// `"text"`, or a list of texts.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(in crate::config) enum OneOrMore {
    One(String),
    More(Vec<String>),
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct Rollout {
    /// Shares in percent, rising; each with a pause: a time, or "approval".
    #[schemars(extend("minItems" = 1))]
    pub(in crate::config) steps: Option<Vec<RolloutStep>>,
    /// What must pass before each next step: CEL conditions, or names of gates.
    pub(in crate::config) gate: Option<Vec<At<String>>>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct RolloutStep {
    /// The candidate's share in percent; 100 is the switch.
    #[schemars(required, range(min = 1, max = 100))]
    pub(in crate::config) weight: Option<At<i64>>,
    /// A time, or "approval": until `cutover rollout promote`.
    #[serde(default)]
    pub(in crate::config) pause: Option<At<String>>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct Notify {
    /// Of what; default: of all of it.
    pub(in crate::config) on: Option<Vec<NotifyOn>>,
    /// Only of this app.
    pub(in crate::config) app: Option<At<String>>,
    /// A URL that gets the event with POST.
    pub(in crate::config) webhook: Option<At<String>>,
    /// PEM file of the authority that signs the webhook's certificate; default: those of the system.
    pub(in crate::config) ca: Option<At<String>>,
    /// A command that gets the event on its standard input.
    pub(in crate::config) run: Option<At<OneOrMore>>,
    /// How long one try may take.
    #[schemars(extend("default" = "5s"))]
    pub(in crate::config) timeout: Option<At<DurationText>>,
}

#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(in crate::config) enum NotifyOn {
    Switch,
    Rollback,
    Guard,
    Rollout,
    Standby,
}

/// All gates of an app, by name.
pub(in crate::config) type Gates = BTreeMap<At<String>, Gate>;
