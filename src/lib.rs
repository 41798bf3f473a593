//! cutover: a reverse proxy that is the traffic switch.

pub mod admin;
pub mod app;
pub mod cli;
pub mod config;
pub mod control;
pub mod metrics;
pub mod rollout;
pub mod routing;
pub mod upstream;
