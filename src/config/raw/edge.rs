//! `[errors]`, `respond` of a listener, and what `[…headers]` says of requests' names.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use super::{At, DurationText};

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct Errors {
    /// Whether the proxy's own answers are application/problem+json (RFC 9457); auto: when the client asks for JSON.
    #[schemars(extend("default" = "auto"))]
    pub(in crate::config) problem: Option<At<Problem>>,
    /// Files in place of the usual words, by status ("503") or class ("5xx"): .html, .txt or .json.
    pub(in crate::config) pages: Option<BTreeMap<At<String>, At<String>>>,
    /// Retry-After of a 503.
    #[schemars(extend("default" = "1s"))]
    pub(in crate::config) retry_after: Option<At<DurationText>>,
    /// The answers of an app in maintenance.
    pub(in crate::config) maintenance: Maintenance,
}

#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(in crate::config) enum Problem {
    Auto,
    Always,
    Never,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct Maintenance {
    /// The file that is shown; {message} in it is the operator's.
    pub(in crate::config) page: Option<At<String>>,
    /// Its Retry-After.
    #[schemars(extend("default" = "30s"))]
    pub(in crate::config) retry_after: Option<At<DurationText>>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Respond {
    /// Exactly this path.
    #[schemars(required)]
    pub(in crate::config) path: Option<At<String>>,
    /// The status of the answer.
    #[schemars(range(min = 200, max = 599), extend("default" = 200))]
    pub(in crate::config) status: Option<At<i64>>,
    /// Its body.
    #[schemars(extend("default" = ""))]
    pub(in crate::config) body: Option<At<String>>,
    /// Its header fields; content-type is text/plain unless it is set.
    pub(in crate::config) headers: Option<BTreeMap<At<String>, At<String>>>,
}

#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(in crate::config) enum IdFrom {
    Anyone,
    Trusted,
    Nobody,
}

#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(in crate::config) enum Trace {
    Pass,
    Start,
    Restart,
}

#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(in crate::config) enum ProxyVersion {
    V1,
    V2,
}
