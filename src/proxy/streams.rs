//! The streams of a worker: which are open, and when each is to end.
//!
//! A stream is told nothing by a lock or a channel: the housekeeping judges all of them at each publish and at a
//! shutdown, sets [`Leash::ending`] and wakes those concerned.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;

use tokio::time::Instant;

use super::exchange::Exchange;
use super::worker::Worker;
use crate::config::{self, StreamPolicy};
use crate::metrics::StreamKind;
use crate::routing::{Lane, RoutingTable};
use crate::upstream::StreamMark;

/// How long the other sides may take to answer a good-bye, and `close` waits for the end of a frame or event.
pub(super) const FAREWELL: Duration = Duration::from_secs(5);
/// 2^64 / φ: successive multiples are spread evenly whatever their number.
const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

/// When a stream is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ending {
    /// From then on at the first end of a frame or event.
    pub(super) begins: Instant,
    /// Then wherever it is.
    pub(super) cut: Instant,
}

/// All streams of one worker.
#[derive(Debug)]
pub(super) struct Streams {
    open: RefCell<HashMap<u64, Weak<Leash>>>,
    next: Cell<u64>,
    /// Where in the window of `spread` the last one was put.
    point: Cell<u64>,
    shutdown: Cell<Option<Shutdown>>,
}

/// How far the shutdown of the process is, for streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shutdown {
    /// It has begun and leaves so much time.
    Begun(Duration),
    /// The time is nearly over.
    Ending,
}

/// One open stream. It is open until this is dropped.
pub(super) struct Leash {
    worker: Rc<Worker>,
    id: u64,
    pub(super) kind: StreamKind,
    lane: Arc<Lane>,
    endpoint: u64,
    gate: u64,
    ending: Cell<Option<Ending>>,
    waker: RefCell<Option<Waker>>,
    _mark: StreamMark,
}

impl Streams {
    pub(super) fn new(worker: usize) -> Self {
        Self {
            open: RefCell::default(),
            next: Cell::new(0),
            // Workers are out of step, so that together they are even too.
            point: Cell::new(GOLDEN.rotate_left(17).wrapping_mul(worker as u64 + 1)),
            shutdown: Cell::new(None),
        }
    }

    /// Judge all by a new table.
    pub(super) fn reconcile(&self, table: &RoutingTable) {
        for leash in self.all() {
            self.judge(&leash, table);
        }
    }

    /// The process shuts down and leaves so much time; or, with none, the time is nearly over.
    pub(super) fn shut_down(&self, table: &RoutingTable, grace: Option<Duration>) {
        let shutdown = grace.map_or(Shutdown::Ending, Shutdown::Begun);
        if self.shutdown.replace(Some(shutdown)) != Some(shutdown) {
            self.reconcile(table);
        }
    }

    fn all(&self) -> Vec<Rc<Leash>> {
        self.open.borrow().values().filter_map(Weak::upgrade).collect()
    }

    /// What was decided once stands, even when the color comes back: a client may have been told already. Only the
    /// end of the process is more urgent.
    fn judge(&self, leash: &Leash, table: &RoutingTable) {
        let now = Instant::now();
        if self.shutdown.get() == Some(Shutdown::Ending) {
            let until = leash.ending.get().map_or(now + FAREWELL, |ending| ending.cut);
            let begins = leash.ending.get().map_or(now, |ending| ending.begins.min(now));
            return leash.end(Ending { begins, cut: until });
        }
        if leash.ending.get().is_some() {
            return;
        }
        let app = table.app(&leash.lane.settings.app);
        let stays = app.is_some_and(|app| app.keeps_stream(leash.lane.color, leash.endpoint, leash.gate));
        let grace = match self.shutdown.get() {
            Some(Shutdown::Begun(grace)) => Some(grace),
            _ if stays => return,
            _ => None,
        };
        let policy = app.map_or(leash.lane.settings.streams, |app| app.drain.streams);
        if let Some(ending) = ending(policy, grace, now, self.next_point()) {
            leash.end(ending);
        }
    }

    /// A fraction of 2^64.
    fn next_point(&self) -> u64 {
        let point = self.point.get().wrapping_add(GOLDEN);
        self.point.set(point);
        point
    }
}

/// When a stream ends by its policy, within the grace of a shutdown if there is one. `point` is its place in the
/// window of `spread`, as a fraction of 2^64.
fn ending(policy: config::Streams, grace: Option<Duration>, now: Instant, point: u64) -> Option<Ending> {
    match policy.policy {
        StreamPolicy::Keep => None,
        StreamPolicy::Close => Some(Ending {
            begins: now,
            cut: now + FAREWELL.min(policy.deadline),
        }),
        StreamPolicy::Spread => {
            let window = policy
                .spread
                .min(policy.deadline)
                .min(grace.unwrap_or(Duration::MAX));
            let fraction = (point >> 11) as f64 / (1_u64 << 53) as f64;
            Some(Ending {
                begins: now + window.mul_f64(fraction),
                cut: now + policy.deadline,
            })
        }
    }
}

impl Leash {
    /// A request has become a stream. `None` when it holds no claim: then it is none.
    pub(super) fn new(
        worker: &Rc<Worker>,
        exchange: &Exchange,
        lane: &Arc<Lane>,
        kind: StreamKind,
    ) -> Option<Rc<Self>> {
        let held = |claim: &crate::upstream::Claim| (claim.endpoint().id, claim.gate(), claim.mark_stream());
        let (endpoint, gate, mark) = exchange.with_claim(held)?;
        exchange.streams();
        let streams = &worker.streams;
        let leash = Rc::new(Self {
            worker: Rc::clone(worker),
            id: streams.next.replace(streams.next.get() + 1),
            kind,
            lane: Arc::clone(lane),
            endpoint,
            gate,
            ending: Cell::new(None),
            waker: RefCell::new(None),
            _mark: mark,
        });
        streams.open.borrow_mut().insert(leash.id, Rc::downgrade(&leash));
        lane.cells.streams(kind).add(1);
        // The color may have been left while the app thought about its answer.
        streams.judge(&leash, &worker.shared.published.load());
        Some(leash)
    }

    /// When to end, if it is to end; this task is woken when that changes.
    pub(super) fn ending(&self, cx: &Context<'_>) -> Option<Ending> {
        let mut waker = self.waker.borrow_mut();
        if waker.as_ref().is_none_or(|known| !known.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
        self.ending.get()
    }

    fn end(&self, ending: Ending) {
        if self.ending.replace(Some(ending)) == Some(ending) {
            return;
        }
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }
}

impl Drop for Leash {
    fn drop(&mut self) {
        self.lane.cells.streams(self.kind).add(-1);
        self.worker.streams.open.borrow_mut().remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(policy: StreamPolicy) -> config::Streams {
        config::Streams {
            policy,
            deadline: Duration::from_secs(600),
            spread: Duration::from_secs(60),
        }
    }

    #[test]
    fn kept_streams_have_no_end_and_closed_ones_no_delay() {
        let now = Instant::now();
        assert_eq!(ending(policy(StreamPolicy::Keep), None, now, 1), None);
        let end = ending(policy(StreamPolicy::Close), None, now, u64::MAX).unwrap();
        assert_eq!((end.begins, end.cut), (now, now + FAREWELL));
    }

    #[test]
    fn spread_streams_end_evenly_within_the_window() {
        let now = Instant::now();
        let streams = Streams::new(0);
        let mut offsets: Vec<f64> = (0..100)
            .map(|_| {
                let end = ending(policy(StreamPolicy::Spread), None, now, streams.next_point()).unwrap();
                assert_eq!(end.cut, now + Duration::from_secs(600));
                (end.begins - now).as_secs_f64()
            })
            .collect();
        offsets.sort_by(f64::total_cmp);
        assert!(offsets[99] < 60.0);
        let gaps = offsets.windows(2).map(|pair| pair[1] - pair[0]);
        assert!(gaps.fold(0.0, f64::max) < 1.5, "{offsets:?}");
    }

    #[test]
    fn neither_the_deadline_nor_a_shutdown_is_outlasted() {
        let now = Instant::now();
        let mut short = policy(StreamPolicy::Spread);
        short.deadline = Duration::from_secs(3);
        let end = ending(short, None, now, u64::MAX).unwrap();
        assert!(end.begins <= now + Duration::from_secs(3) && end.cut == now + Duration::from_secs(3));
        let grace = Some(Duration::from_secs(2));
        let end = ending(policy(StreamPolicy::Spread), grace, now, u64::MAX).unwrap();
        assert!(end.begins <= now + Duration::from_secs(2));
    }
}
