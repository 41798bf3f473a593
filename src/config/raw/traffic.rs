//! Who goes where: the tables of an app that choose between its colors.

use schemars::JsonSchema;
use serde::Deserialize;

use super::At;

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct Affinity {
    /// Who a client is while two colors share the traffic: "cookie" (set by cutover), "header:NAME", "cookie:NAME", "ip", "none".
    #[schemars(extend("default" = "cookie"))]
    pub(in crate::config) key: Option<At<String>>,
}
