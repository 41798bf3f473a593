//! The operator's doors: the admin API over a Unix socket and TCP, and the client of it.
//!
//! [`bind`] first, so that a conflict ends the start; then [`serve`]. What the paths do is [`crate::control`]'s;
//! here are HTTP, JSON ([`dto`]), permissions (`auth`) and errors (`problem`).

mod auth;
mod bind;
mod changes;
pub mod client;
pub mod dto;
mod events;
mod exit;
pub mod find;
mod leases;
mod openapi;
mod problem;
mod reads;
mod request;
mod rollouts;
mod routes;
mod server;
mod show;
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test panics to fail")]
pub(crate) mod testing;
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test panics to fail")]
mod tests;

pub use auth::{CLIENT_HEADER, TOKEN_MIN, TokenError, Tokens};
pub use bind::{BindError, Bound, bind};
pub use exit::Exit;
pub use openapi::document as openapi_document;
pub use problem::{Code, Facts, Problem, nearest};
pub use request::{BODY_MAX, LEASE_HEADER, ONLY_APP};
pub use server::{Extras, serve};
