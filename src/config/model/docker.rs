//! `[docker]`: where the containers of `docker:` endpoints are asked for.

use std::path::PathBuf;

/// `[docker]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Docker {
    /// The engine's Unix socket.
    pub socket: PathBuf,
    /// Only containers of this compose project.
    pub project: Option<String>,
    /// The network whose addresses are used; `None`: the first by name.
    pub network: Option<String>,
}

impl Default for Docker {
    fn default() -> Self {
        Self {
            socket: PathBuf::from("/var/run/docker.sock"),
            project: None,
            network: None,
        }
    }
}
