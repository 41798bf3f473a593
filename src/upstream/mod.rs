//! The apps' side: endpoints, and the claims that requests hold on them.

pub mod claim;
pub mod connections;
pub mod endpoint;

pub use claim::{Claim, Gate};
pub use connections::{ConnectError, Connections, Line};
pub use endpoint::{Endpoint, EndpointKey, Health, ProbeReport, Target};
