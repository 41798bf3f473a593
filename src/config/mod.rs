//! What the operator wrote, checked whole before any of it is used.
//!
//! [`load`] reads the file, [`parse`] a text: `shape` looks at keys and types and fills in `${VAR}`, `raw` holds
//! what is left with the place of every value, `build` turns it into the [`Config`] of [`model`]. Each step
//! goes on after a mistake, so that one run names them all.

mod build;
mod diagnostics;
mod diff;
mod load;
pub mod model;
pub mod policy;
mod raw;
mod schema;
mod shape;
mod values;
mod watch;

pub use diagnostics::{Diagnostic, Diagnostics, Severity};
pub use diff::{diff, needs_restart, same_listeners};
pub use load::{ContentHash, Loaded, MAX_BYTES, from_flags, load, parse};
pub use model::*;
pub use policy::*;
pub use schema::schema;
pub use values::{parse_duration, parse_endpoint};
pub use watch::{Changed, WatchGuard, watch, watch_files};

#[cfg(test)]
mod tests;
