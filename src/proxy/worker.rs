//! A worker: one thread, one runtime, its own connections and cells. And the plane: all of them.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::{Rc, Weak};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use http::HeaderValue;
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::MissedTickBehavior;

use super::client::Client;
use super::listener::{Listener, accept_loop};
use super::request_id::RequestIds;
use super::retry::SpareLists;
use super::streams::Streams;
use super::upload::RequestBody;
use crate::metrics::{AccessLog, Gauge, Record, Registry, WorkerCells, WorkerLog};
use crate::routing::{HoldQueue, Lane, Published};
use crate::upstream::{ById, Connections, Line};
use crate::wire::descriptors;

/// How long silent connections may still speak after a shutdown began: then they are closed.
pub(super) const LINGER: Duration = Duration::from_secs(2);
/// How often old connections are swept and log lines leave at the latest.
const TICK: Duration = Duration::from_millis(500);

/// How far a shutdown has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Serving.
    Running,
    /// No longer accepting; what runs is finished.
    Closing,
    /// The time for that is nearly over: streams that were kept say good-bye.
    Ending,
    /// At once.
    Killed,
}

/// What all workers share. Nothing in it is written on the request path.
#[derive(Debug)]
pub struct Shared {
    /// The routing table.
    pub published: Published,
    /// The metric cells.
    pub registry: Arc<Registry>,
    /// Open client connections of the process that are still allowed.
    pub permits: Arc<Semaphore>,
    /// The secret by which a proof is known; new in every process.
    pub verify_secret: HeaderValue,
    /// How far a shutdown has come.
    pub phase: watch::Receiver<Phase>,
    /// The access log.
    pub log: Arc<AccessLog>,
    /// How long a shutdown may take.
    pub grace: Duration,
}

/// The running workers.
#[derive(Debug)]
pub struct Plane {
    threads: Vec<JoinHandle<()>>,
    listeners: Arc<Mutex<Vec<Listener>>>,
}

/// Start a worker for each set of cells in the registry.
///
/// # Errors
/// A thread or a handle on a listener could not be had.
pub fn start(shared: &Arc<Shared>, listeners: Vec<Listener>) -> io::Result<Plane> {
    let listeners = Arc::new(Mutex::new(listeners));
    let spawn = |index: usize| {
        let first = handles(&listeners)?;
        let (shared, listeners) = (Arc::clone(shared), Arc::clone(&listeners));
        std::thread::Builder::new()
            .name(format!("worker-{index}"))
            .spawn(move || keep_running(index, &shared, &listeners, first))
    };
    let count = shared.registry.worker_cells.len();
    let threads = (0..count).map(spawn).collect::<io::Result<_>>()?;
    Ok(Plane { threads, listeners })
}

/// A handle on each listener, for one worker.
fn handles(listeners: &Mutex<Vec<Listener>>) -> io::Result<Vec<Listener>> {
    listeners
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .iter()
        .map(Listener::handle)
        .collect()
}

impl Plane {
    /// Let go of the handles that were kept for workers to be started again. To be called before the phase becomes
    /// [`Phase::Closing`]: the workers' own handles are then the last, and a worker closes its own only when it
    /// has found the queue empty. A handle kept here would go on queueing clients that nobody accepts.
    pub fn close_listeners(&self) {
        self.listeners
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
    }

    /// Wait until every worker has finished; the phase tells them when.
    pub fn join(self) {
        for thread in self.threads {
            // A worker's panic was reported when it happened.
            let _ = thread.join();
        }
    }

    /// Whether every worker has finished.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.threads.iter().all(JoinHandle::is_finished)
    }
}

/// A worker that dies is started again with its index: its claims were released by the fall, its cells remain.
fn keep_running(index: usize, shared: &Arc<Shared>, listeners: &Mutex<Vec<Listener>>, first: Vec<Listener>) {
    let mut next = Ok(first);
    loop {
        let outcome = catch_unwind(AssertUnwindSafe(|| run(index, shared, next?)));
        match outcome {
            Ok(Ok(())) => return,
            Ok(Err(error)) => tracing::error!(worker = index, %error, "worker failed; starting it again"),
            Err(_) => tracing::error!(worker = index, "worker panicked; starting it again"),
        }
        if *shared.phase.borrow() != Phase::Running {
            return;
        }
        std::thread::sleep(TICK);
        next = handles(listeners);
    }
}

fn run(index: usize, shared: &Arc<Shared>, listeners: Vec<Listener>) -> io::Result<()> {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default())?;
    runtime.block_on(async {
        let worker = Rc::new(Worker::new(index, shared));
        for (at, listener) in listeners.into_iter().enumerate() {
            let accepting = accept_loop(Rc::clone(&worker), at, listener);
            tokio::task::spawn_local(async move {
                if let Err(error) = accepting.await {
                    tracing::error!(%error, "a listener failed");
                }
            });
        }
        keep_house(&worker).await;
    });
    Ok(())
}

/// One worker, on its own thread.
pub(super) struct Worker {
    pub(super) index: usize,
    pub(super) shared: Arc<Shared>,
    pub(super) connections: Rc<Connections<RequestBody>>,
    pub(super) cells: Arc<WorkerCells>,
    pub(super) ids: RequestIds,
    /// Held requests wait here; woken by each publish.
    pub(super) released: Notify,
    pub(super) streams: Streams,
    stopping: Cell<bool>,
    tickets: Cell<usize>,
    born: Instant,
    open: Cell<usize>,
    clients: RefCell<HashMap<u64, Weak<Client>>>,
    next_client: Cell<u64>,
    log: Option<RefCell<WorkerLog>>,
    last_said: Cell<Option<Instant>>,
    /// Where the heads that may be sent again are kept.
    pub(super) spares: SpareLists,
}

impl Worker {
    fn new(index: usize, shared: &Arc<Shared>) -> Self {
        Self {
            index,
            shared: Arc::clone(shared),
            connections: Rc::default(),
            cells: Arc::clone(&shared.registry.worker_cells[index]),
            ids: RequestIds::new(),
            released: Notify::new(),
            streams: Streams::new(index),
            stopping: Cell::new(false),
            tickets: Cell::new(index),
            born: Instant::now(),
            open: Cell::new(0),
            clients: RefCell::default(),
            next_client: Cell::new(0),
            log: shared.log.is_on().then(|| RefCell::new(shared.log.worker())),
            last_said: Cell::new(None),
            spares: SpareLists::default(),
        }
    }

    /// Whether the process is shutting down.
    pub(super) fn stopping(&self) -> bool {
        self.stopping.get()
    }

    /// Rises by one a request: where the walk over a pool's endpoints begins.
    pub(super) fn ticket(&self) -> usize {
        self.tickets.replace(self.tickets.get().wrapping_add(1))
    }

    /// The seconds from the worker's start to a moment: a clock for budgets.
    pub(super) fn second(&self, at: Instant) -> u64 {
        at.saturating_duration_since(self.born).as_secs()
    }

    /// The proof that a request is part of, by the value of its header: `SECRET APP SERVICE`.
    pub(super) fn proof(&self, header: Option<&HeaderValue>) -> Option<Proof> {
        let rest = header?
            .as_bytes()
            .strip_prefix(self.shared.verify_secret.as_bytes())?;
        let (app, service) = std::str::from_utf8(rest)
            .ok()?
            .strip_prefix(' ')?
            .split_once(' ')?;
        Some(Proof {
            app: app.to_owned(),
            service: service.to_owned(),
        })
    }

    /// Whether some app still lets requests wait in this room.
    pub(super) fn is_still_held(&self, queue: &Arc<HoldQueue>) -> bool {
        let table = self.shared.published.load();
        table
            .apps
            .iter()
            .filter_map(|app| app.hold.as_ref())
            .any(|hold| Arc::ptr_eq(hold, queue))
    }

    /// Whether this is the newest table's view of its pool.
    pub(super) fn is_newest(&self, lane: &Arc<Lane>) -> bool {
        let table = self.shared.published.load();
        let found = table.named(&lane.settings.app, &lane.settings.service);
        found.is_some_and(|(_, service)| Arc::ptr_eq(&service.pools[lane.color].lanes[self.index], lane))
    }

    /// Keep a connection whose answer is through. Its task may need a moment to see that.
    pub(super) fn keep_line(self: &Rc<Self>, mut line: Line<RequestBody>, now: Instant, keep: Duration) {
        line.answered();
        if line.is_ready() {
            self.connections.give_back(line, now, keep);
            return;
        }
        let worker = Rc::clone(self);
        tokio::task::spawn_local(async move {
            let ready = tokio::time::timeout(keep, line.ready()).await;
            if let Ok(Ok(())) = ready {
                worker.connections.give_back(line, Instant::now(), keep);
            }
        });
    }

    /// Whether there is an access log.
    pub(super) fn logs(&self) -> bool {
        self.log.is_some()
    }

    /// Write a line to the access log.
    pub(super) fn log(&self, record: &Record<'_>) {
        if let Some(log) = &self.log {
            log.borrow_mut().write(record);
        }
    }

    /// hyper may have refused a head and answered by itself: count what it said. False: it was something else.
    pub(super) fn refused_by_parser(&self, error: &hyper::Error) -> bool {
        let status = if error.is_parse_too_large() {
            431
        } else if error.is_parse() {
            400
        } else {
            return false;
        };
        self.cells
            .unrouted
            .finished(&unknown_method(), status, Duration::ZERO);
        tracing::debug!(%error, status, "malformed request");
        true
    }

    /// A client did not finish its head; it was told 408.
    pub(super) fn head_timed_out(&self) {
        self.cells
            .unrouted
            .finished(&unknown_method(), 408, Duration::ZERO);
    }

    /// Say something that would otherwise be said thousands of times a second.
    pub(super) fn say_rarely(&self, say: impl FnOnce()) {
        let now = Instant::now();
        if self
            .last_said
            .get()
            .is_none_or(|last| now - last > Duration::from_secs(1))
        {
            self.last_said.set(Some(now));
            say();
        }
    }

    /// Count a client's connection until this is dropped.
    pub(super) fn count_connection(self: &Rc<Self>, listener: usize) -> Open {
        self.open.set(self.open.get() + 1);
        if let Some(gauge) = self.cells.connections.get(listener) {
            gauge.add(1);
        }
        Open {
            worker: Rc::clone(self),
            listener,
        }
    }

    /// Count a connection that needs no buffers until this is dropped.
    pub(super) fn count_resting(&self) -> Resting<'_> {
        self.cells.resting.add(1);
        Resting(&self.cells.resting)
    }

    /// Find the client again at shutdown, until this is dropped.
    pub(super) fn list_client(self: &Rc<Self>, client: &Rc<Client>) -> Listed {
        let id = self.next_client.replace(self.next_client.get() + 1);
        self.clients.borrow_mut().insert(id, Rc::downgrade(client));
        Listed {
            worker: Rc::clone(self),
            id,
        }
    }

    fn each_client(&self, act: impl Fn(&Client)) {
        // Gathered first: a client that ends takes itself off the list.
        let clients: Vec<_> = self.clients.borrow().values().filter_map(Weak::upgrade).collect();
        clients.iter().for_each(|client| act(client));
    }

    /// Bring connections and waiters in line with the newest table, then say so.
    fn reconcile(&self) {
        let table = self.shared.published.load_full();
        let cuts = self.shared.published.cuts(self.index);
        if !cuts.is_empty() {
            self.connections.cut(&cuts);
            self.each_client(|client| client.cut(&cuts));
        }
        let mut open = HashSet::<u64, ById>::default();
        for app in &table.apps {
            let pools = app.services.iter().flat_map(|service| service.pools.iter());
            let members = pools.flat_map(|(_, pool)| &pool.members);
            let kept = members
                .filter(|member| member.open.is_some() || (app.hold.is_some() && member.explicit.is_some()));
            open.extend(kept.map(|member| member.endpoint.id));
        }
        self.connections
            .sweep(Instant::now(), |endpoint| open.contains(&endpoint));
        self.streams.reconcile(&table);
        self.released.notify_waiters();
        self.shared.published.applied(self.index, table.version);
    }

    fn flush_log(&self) {
        if let Some(log) = &self.log {
            log.borrow_mut().flush();
        }
    }
}

/// Any method that has no label of its own.
fn unknown_method() -> http::Method {
    http::Method::from_bytes(b"UNKNOWN").unwrap_or_default()
}

/// Reconcile at each publish, sweep at each tick, and end when the shutdown has come far enough.
async fn keep_house(worker: &Rc<Worker>) {
    descriptors::look();
    worker.reconcile();
    let mut phase = worker.shared.phase.clone();
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut closing_since = None;
    loop {
        tokio::select! {
            () = worker.shared.published.published(worker.index) => worker.reconcile(),
            _ = tick.tick() => {
                worker.connections.sweep(Instant::now(), |_| true);
                descriptors::look();
                worker.flush_log();
            }
            _ = phase.changed() => {}
        }
        let now = *phase.borrow_and_update();
        if now >= Phase::Closing {
            let since: Instant = *closing_since.get_or_insert_with(Instant::now);
            worker.stopping.set(true);
            let left = (now == Phase::Closing).then_some(worker.shared.grace);
            worker.streams.shut_down(&worker.shared.published.load(), left);
            worker.each_client(Client::stop);
            if since.elapsed() >= LINGER {
                worker.each_client(Client::dismiss);
            }
            if now == Phase::Killed || worker.open.get() == 0 && since.elapsed() >= Duration::from_millis(10)
            {
                worker.flush_log();
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
            phase.mark_changed();
        }
    }
}

/// A request that proves a switch names its service: its health path may be routed elsewhere.
pub(super) struct Proof {
    pub(super) app: String,
    pub(super) service: String,
}

/// A client's connection, counted.
pub(super) struct Open {
    worker: Rc<Worker>,
    listener: usize,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.worker.open.set(self.worker.open.get() - 1);
        if let Some(gauge) = self.worker.cells.connections.get(self.listener) {
            gauge.add(-1);
        }
    }
}

/// A connection that rests, counted.
pub(super) struct Resting<'a>(&'a Gauge);

impl Drop for Resting<'_> {
    fn drop(&mut self) {
        self.0.add(-1);
    }
}

/// A client's place in the worker's list.
pub(super) struct Listed {
    worker: Rc<Worker>,
    id: u64,
}

impl Drop for Listed {
    fn drop(&mut self) {
        self.worker.clients.borrow_mut().remove(&self.id);
    }
}
