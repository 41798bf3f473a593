//! cutover: a reverse proxy that is the traffic switch.

pub mod admin;
pub mod app;
pub mod config;
pub mod control;
pub mod metrics;
pub mod proxy;
pub mod rollout;
pub mod routing;
pub mod shutdown;
pub mod store;
pub mod upstream;
pub mod wire;
