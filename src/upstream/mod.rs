//! The apps' side: endpoints, and the claims that requests hold on them.

pub mod claim;
pub mod connections;
pub mod dns;
pub mod endpoint;
pub mod health;
mod task;

pub use claim::{Claim, Gate, StreamMark};
pub use connections::{ConnectError, Connections, Freed, Line};
pub use dns::{Names, Resolution};
pub use endpoint::{Endpoint, EndpointKey, Health, ProbeReport, Target};
pub use health::{HealthChange, Prober, probe_all};
