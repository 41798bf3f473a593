//! The apps' side: endpoints, and the claims that requests hold on them.

pub mod breaker;
pub mod claim;
pub mod connections;
mod dial;
pub mod dns;
pub mod docker;
mod driver;
pub mod endpoint;
pub mod health;
mod line;
pub mod queue;
pub mod room;
mod task;
mod trunk;

pub use breaker::Breaker;
pub use claim::{Claim, Gate, StreamMark};
pub use connections::{ById, Connections};
pub use dial::ConnectError;
pub use dns::{Names, Resolution};
pub use docker::Containers;
pub use endpoint::{Endpoint, EndpointKey, Handshake, Health, ProbeReport, Target};
pub use health::{HealthChange, NoReply, Prober, Reply, ask, probe_all, probe_once};
pub use line::{Freed, Line, LineState, Sent, Whose};
pub use queue::{Place, Queue, Slot};
