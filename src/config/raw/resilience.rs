//! `[app.NAME.retry]` and `[app.NAME.balance]` as they are written.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{At, DurationText};

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct Retry {
    /// Tries in all; 1 = no retry.
    #[schemars(range(min = 1, max = 10), extend("default" = 2))]
    pub(in crate::config) attempts: Option<At<i64>>,
    /// Retries as a share of the requests of the last ten seconds, 0 to 1; three a second are always allowed.
    #[schemars(range(min = 0, max = 1), extend("default" = 0.2))]
    pub(in crate::config) budget: Option<At<f64>>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct Balance {
    /// Which endpoint of a color a request goes to.
    #[schemars(extend("default" = "least_request"))]
    pub(in crate::config) policy: Option<At<Policy>>,
    /// Requests that an endpoint has at once; 0 = as many as come. Those above wait.
    #[schemars(range(min = 0, max = 1_000_000), extend("default" = 0))]
    pub(in crate::config) max_in_flight: Option<At<i64>>,
    /// Requests that wait, for each service and color; more are answered 503.
    #[schemars(range(min = 0, max = 1_000_000), extend("default" = 1000))]
    pub(in crate::config) queue: Option<At<i64>>,
    /// For how long; then 503.
    #[schemars(extend("default" = "5s"))]
    pub(in crate::config) queue_timeout: Option<At<DurationText>>,
    /// When an endpoint that fails requests is left alone.
    pub(in crate::config) breaker: Breaker,
}

#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::config) enum Policy {
    LeastRequest,
    RoundRobin,
    Random,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct Breaker {
    /// Failures in a row, over all workers; 0 = never.
    #[schemars(range(min = 0, max = 1_000_000), extend("default" = 5))]
    pub(in crate::config) failures: Option<At<i64>>,
    /// For how long it is left alone.
    #[schemars(extend("default" = "10s"))]
    pub(in crate::config) ejected: Option<At<DurationText>>,
}
