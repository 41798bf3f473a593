//! Who goes where: the tables of an app that choose between its colors.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{At, DurationText, SizeText};

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct Affinity {
    /// Who a client is while two colors share the traffic: "cookie" (set by cutover), "header:NAME", "cookie:NAME", "ip", "none".
    #[schemars(extend("default" = "cookie"))]
    pub(in crate::config) key: Option<At<String>>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct Preview {
    /// Request header that names blue, green or standby, or holds a token of `cutover preview-token`; never passed on.
    #[schemars(extend("default" = "x-cutover-color"))]
    pub(in crate::config) header: Option<At<String>>,
    /// A cookie that does the same.
    pub(in crate::config) cookie: Option<At<String>>,
    /// Networks from which a color may be named without a token.
    #[schemars(extend("default" = ["127.0.0.0/8"]))]
    pub(in crate::config) from: Option<Vec<At<String>>>,
}

#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(in crate::config) enum Aim {
    Blue,
    Green,
    Standby,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Rule {
    /// A condition in CEL on `request`, `client` and `tls`.
    #[schemars(required)]
    pub(in crate::config) when: Option<At<String>>,
    /// Where requests go for which it holds.
    #[schemars(required)]
    pub(in crate::config) color: Option<At<RuleColor>>,
}

#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(in crate::config) enum RuleColor {
    Blue,
    Green,
    Candidate,
    Active,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct Hold {
    /// Requests that wait at most; more get 503.
    #[schemars(range(min = 1, max = 1_000_000), extend("default" = 1_000))]
    pub(in crate::config) requests: Option<At<i64>>,
    /// Bytes of the heads that wait at most.
    #[schemars(extend("default" = "64MiB"))]
    pub(in crate::config) bytes: Option<At<SizeText>>,
    /// Requests a second that go on after the release.
    #[schemars(range(min = 1, max = 1_000_000), extend("default" = 1_000))]
    pub(in crate::config) release_rate: Option<At<i64>>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct Failover {
    /// When the active color has nothing healthy and the standby is healthy, the standby takes over; once.
    #[schemars(extend("default" = false))]
    pub(in crate::config) auto: Option<bool>,
    /// After so long.
    #[schemars(extend("default" = "5s"))]
    pub(in crate::config) after: Option<At<DurationText>>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct Skew {
    /// Paths, with `*` at the end for all below: a 404 there is asked once of the other healthy color.
    #[schemars(extend("default" = []))]
    pub(in crate::config) paths: Option<Vec<At<String>>>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct Warmup {
    /// GET requests that a color gets before its first share of the traffic, at most; 0 = off.
    #[schemars(range(min = 0, max = 100_000), extend("default" = 0))]
    pub(in crate::config) requests: Option<At<i64>>,
    /// For so long at most.
    #[schemars(extend("default" = "30s"))]
    pub(in crate::config) max: Option<At<DurationText>>,
    /// What is asked for, in turn; [] = paths that clients asked for lately.
    #[schemars(extend("default" = []))]
    pub(in crate::config) paths: Option<Vec<At<String>>>,
    /// Requests under way at a time.
    #[schemars(range(min = 1, max = 256), extend("default" = 4))]
    pub(in crate::config) parallel: Option<At<i64>>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct Mirror {
    /// Of the requests; 0 = off.
    #[schemars(range(min = 0, max = 100), extend("default" = 0))]
    pub(in crate::config) percent: Option<At<i64>>,
    /// Safe methods that are copied; requests with a body never are.
    #[schemars(extend("default" = ["GET", "HEAD"]))]
    pub(in crate::config) methods: Option<Vec<At<String>>>,
    /// Bytes of the standby's answer that are read before its connection is closed.
    #[schemars(extend("default" = "64KiB"))]
    pub(in crate::config) max_body: Option<At<SizeText>>,
    /// Copies under way at most; more are not made.
    #[schemars(range(min = 1, max = 10_000), extend("default" = 32))]
    pub(in crate::config) max_in_flight: Option<At<i64>>,
}
