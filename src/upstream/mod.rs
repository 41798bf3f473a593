//! The apps' side: endpoints, and the claims that requests hold on them.

pub mod claim;
pub mod dns;
pub mod endpoint;
pub mod health;
mod task;

pub use claim::{Claim, Gate};
pub use endpoint::{Endpoint, EndpointKey, Health, ProbeReport, Target};
