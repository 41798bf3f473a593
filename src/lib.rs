//! cutover: a reverse proxy that *is* the traffic switch.
//!
//! The map is `ARCHITECTURE.md`; the short of it: [`rollout`] decides what may change (pure), [`control`] is the one
//! writer that makes it durable ([`store`]) and publishes it ([`routing`]), [`proxy`] serves requests from what is
//! published, [`admin`] and [`cli`] are the doors, [`app`] puts all of it together.

pub mod admin;
pub mod app;
pub mod cli;
pub mod config;
pub mod control;
pub mod demo;
pub mod deploy;
pub mod draft;
pub mod expr;
pub mod metrics;
pub mod proxy;
pub mod rollout;
pub mod routing;
pub mod shutdown;
mod smoke;
pub mod store;
pub mod tls;
pub mod upstream;
pub mod wire;
