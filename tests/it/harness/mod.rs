//! A backend that says "green", a proxy in front, an assertion.
//!
//! Both ends of every test are raw sockets with the small strict parser of [`wire`]: what is tested must not be
//! hidden by a library that forgives.

pub mod admin;
pub mod backend;
pub mod desk;
pub mod http2;
pub mod misbehave;
pub mod proxy;
pub mod service;
pub mod tls;
pub mod websocket;
pub mod wire;

pub use backend::{Backend, ok};
pub use proxy::{Proxy, Setup};
pub use wire::{Broken, Message, Wire, requests_in};

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

/// Nothing in these tests takes longer unless it is broken.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Wait until something is so; looking often instead of sleeping once.
#[track_caller]
pub fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "still not: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Says that it is over when it goes, also when a test fails: the threads that hammer meanwhile must end.
pub struct Ends<'a>(pub &'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}

/// One line to quote: `tests/run` shows them all at its end.
pub fn say(line: &str) {
    use std::io::Write;
    eprintln!("figure: {line}");
    if let Some(path) = std::env::var_os("CUTOVER_FIGURES")
        && let Ok(mut file) = std::fs::OpenOptions::new().create(true).append(true).open(path)
    {
        let _ = writeln!(file, "{line}");
    }
}
