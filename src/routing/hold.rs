//! The bounded place in which held requests wait, and the pace at which they leave it.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crate::config::Hold;
use crate::upstream::room::{Bounds, Room, Ticket};

/// The waiting room of one hold of one app: bounded over the whole process and fair to clients, as [`Room`] is.
#[derive(Debug)]
pub struct HoldQueue {
    room: Arc<Room>,
    leaving: AtomicU64,
    limits: Hold,
    /// When waiting ends whatever happens: the controller has released long before, or it is dead.
    pub until: Instant,
}

impl HoldQueue {
    /// How much longer than the hold a request waits: the release at its limit has to reach it first.
    pub const MARGIN: Duration = Duration::from_secs(2);

    /// An empty room with these bounds.
    #[must_use]
    pub fn new(limits: Hold, until: Instant) -> Arc<Self> {
        Arc::new(Self {
            room: Room::new(),
            leaving: AtomicU64::new(0),
            limits,
            until,
        })
    }

    /// A place in the room for a request of so many bytes; `None` when it is full (503, `Retry-After: 1`).
    #[must_use]
    pub fn enter(&self, client: Option<IpAddr>, bytes: usize) -> Option<Ticket> {
        let bounds = Bounds {
            requests: self.limits.requests,
            bytes: self.limits.bytes,
        };
        self.room.enter(bounds, client, bytes)
    }

    /// Requests that wait now.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.room.waiting()
    }

    /// How long one that has been released still waits for its turn: all at once would be a flood.
    #[must_use]
    pub fn turn(&self) -> Duration {
        let before = self.leaving.fetch_add(1, Relaxed);
        let nanos = u128::from(before) * 1_000_000_000 / u128::from(self.limits.release_rate.max(1));
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_leave_one_after_the_other() {
        let limits = Hold {
            requests: 100,
            bytes: 1_000,
            release_rate: 100,
        };
        let queue = HoldQueue::new(limits, Instant::now());
        let turns: Vec<_> = (0..4).map(|_| queue.turn().as_millis()).collect();
        assert_eq!(turns, [0, 10, 20, 30]);
    }
}
