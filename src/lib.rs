//! cutover: a reverse proxy that is the traffic switch.

pub mod config;
pub mod rollout;
pub mod store;
