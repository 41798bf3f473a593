//! `[app.NAME.retry]` and `[app.NAME.balance]` as they are written.

use schemars::JsonSchema;
use serde::Deserialize;

use super::At;

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
