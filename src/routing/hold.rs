//! The bounded place in which held requests wait.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// The waiting room of one hold of one app: bounded over the whole process. Waiting requests hold no claim and
/// their bodies are unread.
#[derive(Debug)]
pub struct HoldQueue {
    waiting: AtomicUsize,
    bound: usize,
    /// When waiting ends whatever happens: the controller has released long before, or it is dead.
    pub until: Instant,
}

impl HoldQueue {
    /// Requests that may wait when nothing else is configured.
    pub const BOUND: usize = 1_000;

    /// How much longer than the hold a request waits: the release at its limit has to reach it first.
    pub const MARGIN: Duration = Duration::from_secs(2);

    /// An empty room for at most `bound` requests.
    #[must_use]
    pub fn new(bound: usize, until: Instant) -> Arc<Self> {
        Arc::new(Self {
            waiting: AtomicUsize::new(0),
            bound,
            until,
        })
    }

    /// A place in the room; `None` when it is full (503, `Retry-After: 1`).
    #[must_use]
    pub fn enter(self: &Arc<Self>) -> Option<HoldTicket> {
        let entered = self
            .waiting
            .fetch_update(Relaxed, Relaxed, |n| (n < self.bound).then_some(n + 1));
        entered.ok().map(|_| HoldTicket(Arc::clone(self)))
    }

    /// Requests that wait now.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.load(Relaxed)
    }
}

/// A request's place among the waiting; dropped when it goes on or goes away.
#[derive(Debug)]
pub struct HoldTicket(Arc<HoldQueue>);

impl Drop for HoldTicket {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Relaxed);
    }
}
