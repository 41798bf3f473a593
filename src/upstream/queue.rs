//! A bound on the requests that an endpoint has at once, and the line in which those above it wait.
//!
//! The bound is exact over all workers: one count an endpoint, which requests take from and give back to without a lock.
//! The line is first come, first served, of one service in one color. It has a lock, which is taken by requests that
//! have to wait and, while some do, by those that end; nobody holds it for longer than it takes to change a map. Where
//! no bound is set there is neither count nor line.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst, fence};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::room::{Bounds, Room, Ticket};

/// Bytes of heads that wait in one line; each is bounded by the limits of the app too.
const BYTES: usize = 64 * 1024 * 1024;

/// The requests that an endpoint has now, of those that are counted.
#[derive(Debug, Default)]
pub struct Slots(AtomicUsize);

impl Slots {
    /// Requests counted now.
    #[must_use]
    pub fn taken(&self) -> usize {
        self.0.load(Relaxed)
    }

    /// Whether one more would be within the bound. Another worker may be faster: [`Slots::take`] decides.
    #[must_use]
    pub fn has_room(&self, bound: usize) -> bool {
        self.taken() < bound
    }

    /// Count one more, if that is within the bound.
    #[must_use]
    pub fn take(&self, bound: usize) -> bool {
        let room = |n: usize| (n < bound).then_some(n + 1);
        self.0.fetch_update(SeqCst, Relaxed, room).is_ok()
    }

    fn give_back(&self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

/// The line of one service in one color. It outlives tables, as endpoints do.
#[derive(Debug)]
pub struct Queue {
    room: Arc<Room>,
    next: AtomicU64,
    line: Mutex<BTreeMap<u64, Arc<Notify>>>,
    /// Requests refused because too many waited.
    pub overflowed: AtomicU64,
    /// Requests refused because they had waited for too long.
    pub timed_out: AtomicU64,
}

impl Queue {
    /// Nobody waits.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            room: Room::new(),
            next: AtomicU64::new(0),
            line: Mutex::default(),
            overflowed: AtomicU64::new(0),
            timed_out: AtomicU64::new(0),
        })
    }

    /// Requests that wait now.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.room.waiting()
    }

    /// The end of the line for a request with a head of so many bytes; `None` (and counted) when `requests` wait already.
    #[must_use]
    pub fn enter(self: &Arc<Self>, requests: usize, client: Option<IpAddr>, bytes: usize) -> Option<Place> {
        let bounds = Bounds {
            requests,
            bytes: BYTES,
        };
        let Some(ticket) = self.room.enter(bounds, client, bytes) else {
            self.overflowed.fetch_add(1, Relaxed);
            return None;
        };
        let turn = Arc::new(Notify::new());
        // Under the lock, so that numbers are in the order of the line.
        let mut line = self.line();
        let number = self.next.fetch_add(1, Relaxed);
        line.insert(number, Arc::clone(&turn));
        drop(line);
        // Whoever gave a slot back before this was seen cannot have seen the wait: the caller looks once more now.
        fence(SeqCst);
        Some(Place {
            queue: Arc::clone(self),
            number,
            turn,
            _ticket: ticket,
        })
    }

    /// There may be room: the first in line looks.
    pub fn wake(&self) {
        fence(SeqCst);
        if self.waiting() > 0
            && let Some((_, first)) = self.line().first_key_value()
        {
            first.notify_one();
        }
    }

    fn line(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Notify>>> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request's place in the line; given up when it is dropped, and then it is the next one's turn.
#[derive(Debug)]
pub struct Place {
    queue: Arc<Queue>,
    number: u64,
    turn: Arc<Notify>,
    _ticket: Ticket,
}

impl Place {
    /// The line.
    #[must_use]
    pub fn queue(&self) -> &Arc<Queue> {
        &self.queue
    }

    /// Whether nobody came earlier.
    #[must_use]
    pub fn is_first(&self) -> bool {
        let line = self.queue.line();
        line.first_key_value()
            .is_none_or(|(first, _)| *first == self.number)
    }

    /// Resolves when it may be its turn.
    pub async fn turn(&self) {
        self.turn.notified().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.queue.line().remove(&self.number);
        self.queue.wake();
    }
}

/// One of the requests that an endpoint may have; given back when it is dropped, and then it is somebody's turn.
#[derive(Debug)]
pub struct Slot {
    of: Arc<super::Endpoint>,
    queue: Arc<Queue>,
}

impl Slot {
    /// A slot of this endpoint, if it has fewer than `bound` requests.
    #[must_use]
    pub fn take(of: &Arc<super::Endpoint>, queue: &Arc<Queue>, bound: usize) -> Option<Self> {
        of.slots.take(bound).then(|| Self {
            of: Arc::clone(of),
            queue: Arc::clone(queue),
        })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.of.slots.give_back();
        self.queue.wake();
    }
}
