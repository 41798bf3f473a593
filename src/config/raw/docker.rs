//! `[docker]`.

use schemars::JsonSchema;
use serde::Deserialize;

use super::At;

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct Docker {
    /// The engine's socket.
    #[schemars(extend("default" = "/var/run/docker.sock"))]
    pub(in crate::config) socket: Option<At<String>>,
    /// Only containers of this compose project; default: of any.
    pub(in crate::config) project: Option<At<String>>,
    /// The network whose addresses are used; default: the first by name that a container is in.
    pub(in crate::config) network: Option<At<String>>,
}
