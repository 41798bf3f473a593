//! The composition root. In this branch only its face towards the command line; the lead's replaces it.

use std::path::PathBuf;

use crate::config::Diagnostics;
use crate::rollout::Color;

/// Where the configuration comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A file.
    File(PathBuf),
    /// `--listen A --blue B --green C`
    Flags {
        /// The listener's address.
        listen: String,
        /// Blue's endpoints.
        blue: Vec<String>,
        /// Green's endpoints.
        green: Vec<String>,
    },
}

/// `cutover run`
#[derive(Clone, Debug)]
pub struct RunOptions {
    /// The configuration.
    pub source: Source,
    /// `--initial`: the active color of a first start.
    pub initial: Option<Color>,
}

/// `cutover demo`
#[derive(Clone, Copy, Debug, Default)]
pub struct DemoOptions {}

/// The server did not start, or ended badly.
#[derive(Debug)]
pub enum RunError {
    /// The configuration was refused: exit 3.
    Config(Diagnostics),
    /// Anything else: exit 1.
    Failed(anyhow::Error),
}

/// Run until a signal.
///
/// # Errors
/// In this branch always: the server is composed elsewhere.
pub fn run(_options: RunOptions) -> Result<(), RunError> {
    Err(RunError::Failed(anyhow::anyhow!("this build has no server")))
}

/// Run the demo until a signal.
///
/// # Errors
/// In this branch always: the server is composed elsewhere.
pub fn demo(_options: DemoOptions) -> Result<(), RunError> {
    Err(RunError::Failed(anyhow::anyhow!("this build has no server")))
}
