//! A bounded place in which requests wait, fair to clients.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering::Relaxed};

/// A client with fewer requests than this in the room may also use its reserve.
const MODEST: u16 = 8;

/// Counts of clients; two that share one are taken for one another, which costs them a part of the reserve.
const CLIENTS: usize = 512;

/// How much may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Requests.
    pub requests: usize,
    /// Bytes of their heads.
    pub bytes: usize,
}

/// A waiting room: bounded over the whole process, in requests and in bytes of their heads. Waiting requests hold no
/// claim and their bodies are unread.
///
/// Fair to clients: when the room is full there is still a quarter more of it, for clients that have but a few
/// requests in it. So one client that sends thousands does not keep the others out.
#[derive(Debug)]
pub struct Room {
    waiting: AtomicUsize,
    bytes: AtomicUsize,
    clients: Box<[AtomicU16; CLIENTS]>,
    hasher: RandomState,
}

impl Room {
    /// An empty room.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            waiting: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            clients: Box::new([const { AtomicU16::new(0) }; CLIENTS]),
            hasher: RandomState::new(),
        })
    }

    /// A place in the room for a request of so many bytes; `None` when it is full.
    #[must_use]
    pub fn enter(self: &Arc<Self>, bounds: Bounds, client: Option<IpAddr>, bytes: usize) -> Option<Ticket> {
        let slot = usize::try_from(self.hasher.hash_one(client) % CLIENTS as u64).unwrap_or(0);
        let own = self.clients[slot].fetch_add(1, Relaxed);
        // From here on the drop takes back what was counted.
        let mut ticket = Ticket {
            room: Arc::clone(self),
            slot,
            bytes: 0,
            counted: false,
        };
        let with_reserve = |bound: usize| bound.saturating_add(if own < MODEST { bound / 4 } else { 0 });
        let bound = with_reserve(bounds.requests);
        let room = |n: usize| (n < bound).then_some(n + 1);
        ticket.counted = self.waiting.fetch_update(Relaxed, Relaxed, room).is_ok();
        if !ticket.counted {
            return None;
        }
        let bound = with_reserve(bounds.bytes);
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
}

/// A request's place among the waiting; dropped when it goes on or goes away.
#[derive(Debug)]
pub struct Ticket {
    room: Arc<Room>,
    slot: usize,
    bytes: usize,
    counted: bool,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.room.clients[self.slot].fetch_sub(1, Relaxed);
        self.room.bytes.fetch_sub(self.bytes, Relaxed);
        if self.counted {
            self.room.waiting.fetch_sub(1, Relaxed);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test panics to fail")]
mod tests {
    use super::*;

    fn ip(last: u8) -> Option<IpAddr> {
        Some(IpAddr::from([192, 0, 2, last]))
    }

    fn bounds(requests: usize, bytes: usize) -> Bounds {
        Bounds { requests, bytes }
    }

    #[test]
    fn the_room_is_full_at_the_bound_and_empty_again() {
        let (room, bounds) = (Room::new(), bounds(100, 1 << 20));
        let greedy: Vec<_> = (0..200).filter_map(|_| room.enter(bounds, ip(1), 100)).collect();
        assert_eq!(greedy.len(), 100, "one client fills the room and not its reserve");
        let modest: Vec<_> = (2..100)
            .flat_map(|last| {
                (0..20)
                    .filter_map(|_| room.enter(bounds, ip(last), 100))
                    .collect::<Vec<_>>()
            })
            .collect();
        assert_eq!(modest.len(), 25, "the reserve is for the others");
        assert_eq!(room.waiting(), 125);
        drop((greedy, modest));
        assert_eq!((room.waiting(), room.bytes.load(Relaxed)), (0, 0));
        assert!(room.clients.iter().all(|count| count.load(Relaxed) == 0));
    }

    #[test]
    fn bytes_are_bounded_too() {
        let (room, bounds) = (Room::new(), bounds(100, 1_000));
        let held: Vec<_> = (0..100).filter_map(|_| room.enter(bounds, ip(1), 90)).collect();
        // Up to 8 of one client may use the reserve of 250.
        assert_eq!(held.len(), 11);
        assert!(room.enter(bounds, ip(1), usize::MAX).is_none());
        assert!(room.enter(bounds, ip(2), 200).is_some());
        drop(held);
        assert_eq!((room.waiting(), room.bytes.load(Relaxed)), (0, 0));
    }

    #[test]
    fn no_room_at_all_lets_nobody_wait() {
        assert!(Room::new().enter(bounds(0, 1_000), ip(1), 1).is_none());
    }
}
