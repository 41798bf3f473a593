//! The cells themselves: each worker writes its own, so no cache line is shared on the request path.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use http::Method;

use super::Histogram;
use crate::rollout::Color;

/// A counter with one writer: a plain load, add and store, not a locked instruction.
#[derive(Debug, Default)]
pub struct Cell(AtomicU64);

impl Cell {
    /// Add; only the owning worker may.
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    /// The value.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// A level with one writer.
#[derive(Debug, Default)]
pub struct Gauge(AtomicI64);

impl Gauge {
    /// Move by `n`; only the owning worker may.
    pub fn add(&self, n: i64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    /// The value.
    pub fn get(&self) -> i64 {
        self.0.load(Relaxed)
    }
}

/// The methods that have a label of their own; all others are `OTHER`, so that clients cannot make labels.
pub const METHODS: [&str; 10] = [
    "GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "TRACE", "CONNECT", "OTHER",
];

fn method_index(method: &Method) -> usize {
    match *method {
        Method::GET => 0,
        Method::POST => 1,
        Method::PUT => 2,
        Method::DELETE => 3,
        Method::HEAD => 4,
        Method::OPTIONS => 5,
        Method::PATCH => 6,
        Method::TRACE => 7,
        Method::CONNECT => 8,
        _ => 9,
    }
}

/// What lasts longer than an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamKind {
    /// A WebSocket (RFC 6455).
    WebSocket,
    /// Another protocol after a 101.
    Upgrade,
    /// Server-sent events: an answer of `text/event-stream`.
    Sse,
    /// A gRPC call whose answer has begun.
    Grpc,
}

impl StreamKind {
    /// All of them, in the order of the exposition.
    pub const ALL: [Self; 4] = [Self::WebSocket, Self::Upgrade, Self::Sse, Self::Grpc];

    /// The label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::WebSocket => "websocket",
            Self::Upgrade => "upgrade",
            Self::Sse => "sse",
            Self::Grpc => "grpc",
        }
    }
}

/// Statuses 100 to 599 have a cell each; the last cell is for all others.
const CODES: usize = 501;

/// What one worker counts for one (app, service, color).
#[derive(Debug, Default)]
pub struct PoolCells {
    /// By method, then by status; a row is allocated when its method first comes.
    requests: [OnceLock<Box<[Cell]>>; METHODS.len()],
    /// From the request's head to the end of the answer's body.
    pub duration: Histogram,
    /// From the request sent to the answer's head.
    pub upstream: Histogram,
    /// Requests that have begun and not ended.
    pub in_flight: Gauge,
    /// Of them, streams that are open, in the order of [`StreamKind::ALL`].
    streams: [Gauge; StreamKind::ALL.len()],
    /// Times that a request went out once more.
    pub retries: Cell,
    /// Answers that the proxy made itself because of the upstream (502, 504) and answers cut short.
    pub failed: Cell,
    /// Answers of 500 and above that the app made.
    pub upstream_errors: Cell,
    /// Answers of 400 to 499.
    pub client_errors: Cell,
    /// Requests that their client gave up.
    pub cancelled: Cell,
    /// Durations that say nothing of the app's speed, and that `duration` has too: requests that their client gave up,
    /// and streams. Apart, so that windows can leave them out and an ordinary request pays for nothing.
    pub aside: Histogram,
}

impl PoolCells {
    /// Open streams of one kind.
    pub fn streams(&self, kind: StreamKind) -> &Gauge {
        &self.streams[kind as usize]
    }

    /// Count one finished request.
    pub fn finished(&self, method: &Method, status: u16, duration: Duration) {
        let row =
            self.requests[method_index(method)].get_or_init(|| (0..CODES).map(|_| Cell::default()).collect());
        let code = usize::from(status)
            .checked_sub(100)
            .map_or(CODES - 1, |at| at.min(CODES - 1));
        row[code].add(1);
        self.duration.record(duration);
    }

    /// The request just counted as finished was given up by its client, or was a stream.
    pub fn set_aside(&self, duration: Duration, cancelled: bool) {
        self.aside.record(duration);
        if cancelled {
            self.cancelled.add(1);
        }
    }

    /// Calls `f` with method label, status (0 = outside 100–599) and count of each cell that is not zero.
    pub fn each_request_count(&self, mut f: impl FnMut(&'static str, u16, u64)) {
        for (method, row) in METHODS.iter().zip(&self.requests) {
            for (at, cell) in row.get().into_iter().flatten().enumerate() {
                let count = cell.get();
                if count > 0 {
                    let status = if at == CODES - 1 {
                        0
                    } else {
                        u16::try_from(at + 100).unwrap_or(0)
                    };
                    f(method, status, count);
                }
            }
        }
    }
}

/// All workers' cells of one (app, service, color).
#[derive(Debug)]
pub struct PoolMetrics {
    /// By worker.
    pub workers: Box<[Arc<PoolCells>]>,
}

impl PoolMetrics {
    /// Requests finished, and how many of them failed on the proxy's or the upstream's side, since start.
    #[must_use]
    pub fn totals(&self) -> (u64, u64) {
        let mut all = (0, 0);
        for cells in &self.workers {
            cells.each_request_count(|_, _, count| all.0 += count);
            all.1 += cells.failed.get();
        }
        all
    }

    /// Requests that have begun and not ended.
    #[must_use]
    pub fn in_flight(&self) -> i64 {
        self.workers.iter().map(|cells| cells.in_flight.get()).sum()
    }
}

/// What one worker counts outside of any app.
#[derive(Debug, Default)]
pub struct WorkerCells {
    /// Open client connections, by listener.
    pub connections: Box<[Gauge]>,
    /// Those of them that rest between two requests, with no buffers.
    pub resting: Gauge,
    /// Requests that reached no app: malformed, or nothing matched.
    pub unrouted: PoolCells,
    /// TLS handshakes.
    pub tls: TlsCells,
    /// PROXY headers that were waited for.
    pub preamble: PreambleCells,
}

/// What one worker counts of connections that ended at their PROXY header.
#[derive(Debug, Default)]
pub struct PreambleCells {
    /// From a peer that is not trusted.
    pub untrusted: Cell,
    /// No PROXY header, or a bad one.
    pub malformed: Cell,
    /// The peer left before its end.
    pub left: Cell,
    /// Not there in time.
    pub timed_out: Cell,
}

/// What one worker counts of TLS handshakes.
#[derive(Debug, Default)]
pub struct TlsCells {
    /// Done, by version (1.2, 1.3) and whether a session was resumed.
    done: [[Cell; 2]; 2],
    /// Failed: the client and we do not agree.
    pub refused: Cell,
    /// The client left before the end.
    pub left: Cell,
    /// Not done in time.
    pub timed_out: Cell,
}

impl TlsCells {
    /// Count one that is done.
    pub fn shaken(&self, is_tls13: bool, resumed: bool) {
        self.done[usize::from(is_tls13)][usize::from(resumed)].add(1);
    }

    /// Calls `f` with the labels version and resumed, and the count.
    pub fn each_done(&self, mut f: impl FnMut(&'static str, &'static str, u64)) {
        for (version, cells) in ["1.2", "1.3"].into_iter().zip(&self.done) {
            for (resumed, cell) in ["false", "true"].into_iter().zip(cells) {
                f(version, resumed, cell.get());
            }
        }
    }
}

/// The key of a [`PoolMetrics`]: its label values. The color is `None` for answers made before one was chosen.
pub type PoolKey = (String, String, Option<Color>);

/// Where the cells are found again: by the control plane when it builds a table or answers a scrape.
///
/// Never touched on the request path, so a mutex is fine.
#[derive(Debug)]
pub struct Registry {
    workers: usize,
    pools: Mutex<BTreeMap<PoolKey, Arc<PoolMetrics>>>,
    /// By worker.
    pub worker_cells: Box<[Arc<WorkerCells>]>,
}

impl Registry {
    /// Cells for this many workers and listeners.
    #[must_use]
    pub fn new(workers: usize, listeners: usize) -> Self {
        let cells = || {
            let connections = (0..listeners).map(|_| Gauge::default()).collect();
            Arc::new(WorkerCells {
                connections,
                resting: Gauge::default(),
                unrouted: PoolCells::default(),
                tls: TlsCells::default(),
                preamble: PreambleCells::default(),
            })
        };
        Self {
            workers,
            pools: Mutex::new(BTreeMap::new()),
            worker_cells: (0..workers).map(|_| cells()).collect(),
        }
    }

    /// The cells of a pool; the same ones for the same key as long as the process runs, so counters never fall.
    pub fn pool(&self, app: &str, service: &str, color: Option<Color>) -> Arc<PoolMetrics> {
        let mut pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        let make = || PoolMetrics {
            workers: (0..self.workers).map(|_| Arc::default()).collect(),
        };
        let key = (app.to_owned(), service.to_owned(), color);
        Arc::clone(pools.entry(key).or_insert_with(|| Arc::new(make())))
    }

    /// All pools that were ever asked for.
    #[must_use]
    pub fn pools(&self) -> Vec<(PoolKey, Arc<PoolMetrics>)> {
        let pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        pools
            .iter()
            .map(|(key, cells)| (key.clone(), Arc::clone(cells)))
            .collect()
    }
}
