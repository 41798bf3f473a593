//! The bounded place in which held requests wait, and the pace at which they leave it.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crate::config::Hold;

/// A client with fewer requests than this in the room may also use its reserve.
const MODEST: u16 = 8;

/// Counts of clients; two that share one are taken for one another, which costs them a part of the reserve.
const CLIENTS: usize = 512;

/// The waiting room of one hold of one app: bounded over the whole process, in requests and in bytes of their heads.
/// Waiting requests hold no claim and their bodies are unread.
///
/// Fair to clients: when the room is full there is still a quarter more of it, for clients that have but a few
/// requests in it. So one client that sends thousands does not keep the others out.
#[derive(Debug)]
pub struct HoldQueue {
    waiting: AtomicUsize,
    bytes: AtomicUsize,
    clients: Box<[AtomicU16; CLIENTS]>,
    hasher: RandomState,
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
            waiting: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            clients: Box::new([const { AtomicU16::new(0) }; CLIENTS]),
            hasher: RandomState::new(),
            leaving: AtomicU64::new(0),
            limits,
            until,
        })
    }

    /// A place in the room for a request of so many bytes; `None` when it is full (503, `Retry-After: 1`).
    #[must_use]
    pub fn enter(self: &Arc<Self>, client: Option<IpAddr>, bytes: usize) -> Option<HoldTicket> {
        let slot = usize::try_from(self.hasher.hash_one(client) % CLIENTS as u64).unwrap_or(0);
        let own = self.clients[slot].fetch_add(1, Relaxed);
        // From here on the drop takes back what was counted.
        let mut ticket = HoldTicket {
            queue: Arc::clone(self),
            slot,
            bytes: 0,
            counted: false,
        };
        let reserve = if own < MODEST { self.limits.requests / 4 } else { 0 };
        let bound = self.limits.requests + reserve;
        let room = |n: usize| (n < bound).then_some(n + 1);
        ticket.counted = self.waiting.fetch_update(Relaxed, Relaxed, room).is_ok();
        if !ticket.counted {
            return None;
        }
        let bound = self.limits.bytes + if own < MODEST { self.limits.bytes / 4 } else { 0 };
        let room = |n: usize| n.checked_add(bytes).filter(|n| *n <= bound);
        self.bytes.fetch_update(Relaxed, Relaxed, room).ok()?;
        ticket.bytes = bytes;
        Some(ticket)
    }

    /// Requests that wait now.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.load(Relaxed)
    }

    /// How long one that has been released still waits for its turn: all at once would be a flood.
    #[must_use]
    pub fn turn(&self) -> Duration {
        let before = self.leaving.fetch_add(1, Relaxed);
        let nanos = u128::from(before) * 1_000_000_000 / u128::from(self.limits.release_rate.max(1));
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

/// A request's place among the waiting; dropped when it goes on or goes away.
#[derive(Debug)]
pub struct HoldTicket {
    queue: Arc<HoldQueue>,
    slot: usize,
    bytes: usize,
    counted: bool,
}

impl Drop for HoldTicket {
    fn drop(&mut self) {
        self.queue.clients[self.slot].fetch_sub(1, Relaxed);
        self.queue.bytes.fetch_sub(self.bytes, Relaxed);
        if self.counted {
            self.queue.waiting.fetch_sub(1, Relaxed);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test panics to fail")]
mod tests {
    use super::*;

    fn room(requests: usize, bytes: usize) -> Arc<HoldQueue> {
        let limits = Hold {
            requests,
            bytes,
            release_rate: 100,
        };
        HoldQueue::new(limits, Instant::now())
    }

    fn ip(last: u8) -> Option<IpAddr> {
        Some(IpAddr::from([192, 0, 2, last]))
    }

    #[test]
    fn the_room_is_full_at_the_bound_and_empty_again() {
        let queue = room(100, 1 << 20);
        let greedy: Vec<_> = (0..200).filter_map(|_| queue.enter(ip(1), 100)).collect();
        assert_eq!(greedy.len(), 100, "one client fills the room and not its reserve");
        let modest: Vec<_> = (2..100)
            .flat_map(|last| {
                (0..20)
                    .filter_map(|_| queue.enter(ip(last), 100))
                    .collect::<Vec<_>>()
            })
            .collect();
        assert_eq!(modest.len(), 25, "the reserve is for the others");
        assert_eq!(queue.waiting(), 125);
        drop((greedy, modest));
        assert_eq!((queue.waiting(), queue.bytes.load(Relaxed)), (0, 0));
        assert!(queue.clients.iter().all(|count| count.load(Relaxed) == 0));
    }

    #[test]
    fn bytes_are_bounded_too() {
        let queue = room(100, 1_000);
        let held: Vec<_> = (0..100).filter_map(|_| queue.enter(ip(1), 90)).collect();
        // Up to 8 of one client may use the reserve of 250.
        assert_eq!(held.len(), 11);
        assert!(queue.enter(ip(1), usize::MAX).is_none());
        assert!(queue.enter(ip(2), 200).is_some());
        drop(held);
        assert_eq!((queue.waiting(), queue.bytes.load(Relaxed)), (0, 0));
    }

    #[test]
    fn they_leave_one_after_the_other() {
        let queue = room(100, 1_000);
        let turns: Vec<_> = (0..4).map(|_| queue.turn().as_millis()).collect();
        assert_eq!(turns, [0, 10, 20, 30]);
    }
}
