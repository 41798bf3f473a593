//! The real binary between real app servers and real clients: switches under load, kills, faults, signals, reloads.
//!
//! `tests/run` installs what this needs. `CUTOVER_E2E=full` runs the sizes that a release is judged by; without it
//! the same tests run smaller. `CUTOVER_SEED=N` repeats a run's random choices.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr,
    missing_docs,
    unreachable_pub,
    reason = "a test panics to fail, prints its figures, and has no readers from outside"
)]

mod apps;
mod backend;
mod engine;
mod figures;
mod judge;
mod load;
mod ports;
mod random;
mod server;
mod wire;

mod browser;
mod containers;
mod crash;
mod crowd;
mod examples;
mod exits;
mod faults;
mod grpc;
mod guard;
mod http2;
mod input;
mod instructions;
mod life;
mod linters;
mod names;
mod nginx;
mod origins;
mod reload;
mod scanners;
mod slow;
mod streams;
mod switching;
mod weights;
