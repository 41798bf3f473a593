//! A client connection in HTTP/2: h2 keeps its frames and windows, this bounds it in time and finds its streams.
//!
//! What bounds a client here, and where: `docs/http2.md`.

use std::cell::{Cell, RefCell};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use hyper::rt::Executor;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use slab::Slab;
use tokio::time::Instant;

use super::client::{Blocked, Client};
use super::deadline::Deadline;
use super::forward::forward;
use super::serving::Serving;
use super::worker::Worker;
use crate::config::Limits;
use crate::tls::Transport;
use crate::wire::Io;

/// How much of one request's body may be under way to us before the app takes it, and of all together.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// How much of one answer is kept for a client that does not read.
const SEND_BUFFER: usize = 64 * 1024;
/// Requests taken back before we have even seen them, at any one time (CVE-2023-44487).
const UNSEEN_RESETS: usize = 32;
/// Streams that we had to reset because the client broke the rules on them, over the life of a connection
/// (CVE-2025-8671).
const ERRORS_MAX: usize = 256;
/// After GOAWAY: for the client to see it and go.
const FAREWELL: Duration = Duration::from_secs(5);

/// The streams of a connection.
#[derive(Debug)]
pub(super) struct Many {
    open: RefCell<Slab<Rc<Stream>>>,
    /// Since when none is open.
    idle_since: Cell<Instant>,
    /// There was a first request.
    used: Cell<bool>,
    /// The stream whose task comes next to [`OnWorker::execute`].
    next: RefCell<Option<Rc<Stream>>>,
    /// Requests taken back before they had an answer, less those that were not.
    taken_back: Cell<u32>,
    /// The process shuts down: no new requests.
    stopping: Cell<bool>,
}

/// One request over HTTP/2 as its connection sees it.
#[derive(Debug)]
pub(super) struct Stream {
    place: Cell<usize>,
    /// The gate of its claim.
    gate: Cell<u64>,
    /// Since when the client has had no room for what is next of the answer.
    full_since: Cell<Option<Instant>>,
    given_up: Cell<Option<&'static str>>,
    /// Its task's, while the client has no room.
    waker: RefCell<Option<Waker>>,
    /// The client took it back before it had an answer.
    taken_back: Cell<bool>,
    /// It is a WebSocket's (RFC 8441), and goes on in another task.
    tunnels: Cell<bool>,
}

impl Many {
    pub(super) fn new(accepted: Instant) -> Self {
        Self {
            open: RefCell::default(),
            idle_since: Cell::new(accepted),
            used: Cell::new(false),
            next: RefCell::default(),
            taken_back: Cell::new(0),
            stopping: Cell::new(false),
        }
    }

    /// A request has come.
    fn begins(&self) -> Rc<Stream> {
        self.used.set(true);
        let stream = Rc::new(Stream {
            place: Cell::new(0),
            gate: Cell::new(0),
            full_since: Cell::new(None),
            given_up: Cell::new(None),
            waker: RefCell::default(),
            taken_back: Cell::new(false),
            tunnels: Cell::new(false),
        });
        stream
            .place
            .set(self.open.borrow_mut().insert(Rc::clone(&stream)));
        *self.next.borrow_mut() = Some(Rc::clone(&stream));
        stream
    }

    /// A WebSocket follows the answer: the next task that hyper gives us is its, and is to be found again too.
    pub(super) fn becomes_tunnel(&self, stream: &Rc<Stream>) {
        stream.tunnels.set(true);
        *self.next.borrow_mut() = Some(Rc::clone(stream));
    }

    /// Both the request and its answer are through, or given up.
    pub(super) fn ends(&self, stream: &Stream) {
        let before = self.taken_back.get();
        self.taken_back.set(if stream.taken_back.get() {
            before + 1
        } else {
            before.saturating_sub(1)
        });
        let mut open = self.open.borrow_mut();
        open.try_remove(stream.place.get());
        if open.is_empty() {
            self.idle_since.set(Instant::now());
        }
    }

    /// The time of these gates' requests is over. Most see it by the end of the app's connection; a client that takes
    /// nothing would not.
    pub(super) fn cut(&self, gates: &[u64]) {
        let open = self.open.borrow();
        let of_gates = open
            .iter()
            .filter(|(_, stream)| gates.contains(&stream.gate.get()));
        for (_, stream) in of_gates.filter(|(_, stream)| stream.full_since.get().is_some()) {
            stream.give_up("drain time over");
        }
    }

    /// No new requests. True the first time.
    pub(super) fn stop(&self) -> bool {
        !self.stopping.replace(true)
    }
}

impl Stream {
    pub(super) fn goes_through(&self, gate: u64) {
        self.gate.set(gate);
    }

    /// Something of the answer is next, and the client may have no room for it.
    pub(super) fn hands_out(&self) {
        self.full_since.set(Some(Instant::now()));
    }

    /// There is room for more.
    pub(super) fn has_room(&self) {
        self.full_since.set(None);
    }

    /// The client took it back before it had an answer.
    pub(super) fn is_taken_back(&self) {
        self.taken_back.set(true);
    }

    /// What followed is broken off, on a side that the client does not see.
    pub(super) fn breaks(&self) {
        self.give_up("stream broken off");
    }

    /// Why it was ended from here, if it was.
    pub(super) fn given_up(&self) -> Option<&'static str> {
        self.given_up.get()
    }

    /// End it; the client gets RST_STREAM, never the end of an answer.
    fn give_up(&self, why: &'static str) {
        self.given_up.set(Some(why));
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }

    /// Ready when it is to be ended.
    fn poll_given_up(
        &self,
        cx: &mut Context<'_>,
        timer: &mut Option<Deadline>,
        patience: Duration,
    ) -> Poll<()> {
        let full_since = self.full_since.get();
        if full_since.is_some() || self.tunnels.get() {
            let mut waker = self.waker.borrow_mut();
            if waker.as_ref().is_none_or(|known| !known.will_wake(cx.waker())) {
                *waker = Some(cx.waker().clone());
            }
        }
        let Some(since) = full_since else {
            return Poll::Pending;
        };
        let end = since + patience;
        let timer = timer.get_or_insert_with(|| Deadline::new(end));
        timer.poll(cx, end).map(|()| {
            self.given_up
                .set(Some("client took nothing of the answer for too long"))
        })
    }
}

/// Runs the tasks of a connection's streams on its worker.
#[derive(Clone)]
struct OnWorker {
    many: Rc<Many>,
    patience: Duration,
}

impl<F: Future<Output = ()> + 'static> Executor<F> for OnWorker {
    fn execute(&self, task: F) {
        match self.many.next.take() {
            // Boxed, so that it is moved once, and not into every future around it.
            Some(stream) => drop(tokio::task::spawn_local(run(
                stream,
                self.patience,
                Box::pin(task),
            ))),
            None => drop(tokio::task::spawn_local(task)),
        }
    }
}

/// A stream's task, until it is through or given up: what is dropped unfinished is reset.
async fn run(stream: Rc<Stream>, patience: Duration, mut task: Pin<Box<impl Future<Output = ()>>>) {
    let mut timer = None;
    std::future::poll_fn(|cx| {
        if stream.given_up().is_some() || task.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        stream.poll_given_up(cx, &mut timer, patience)
    })
    .await;
}

/// What is to be done with a connection that hyper would keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wish {
    /// GOAWAY; the streams that are open are finished.
    SayGoodbye,
    /// Close it.
    Close(&'static str),
}

/// How a connection is watched.
struct Watched {
    timer: Deadline,
    blocked: Blocked,
    /// GOAWAY was said.
    told: Option<Instant>,
}

impl Watched {
    fn poll_wish(&mut self, cx: &mut Context<'_>, client: &Client, many: &Many) -> Poll<Wish> {
        let limits = &client.limits;
        if many.taken_back.get() > limits.h2_streams {
            return Poll::Ready(Wish::Close("too many requests taken back"));
        }
        if many.stopping.get() && self.told.is_none() {
            return Poll::Ready(Wish::SayGoodbye);
        }
        let patience = limits.client_idle_timeout;
        if let Some(end) = client.blocked_until(&mut self.blocked, patience) {
            let over = self.timer.poll(cx, end);
            return over.map(|()| Wish::Close("client takes nothing"));
        }
        if !many.open.borrow().is_empty() {
            return Poll::Pending;
        }
        let (end, wish) = match self.told {
            Some(_) if client.is_dismissed() => return Poll::Ready(Wish::Close("shutdown")),
            Some(told) => (
                told.max(many.idle_since.get()) + FAREWELL,
                Wish::Close("client stayed after GOAWAY"),
            ),
            None if many.used.get() => (many.idle_since.get() + patience, Wish::SayGoodbye),
            None => (
                many.idle_since.get() + limits.client_header_timeout,
                Wish::SayGoodbye,
            ),
        };
        self.timer.poll(cx, end).map(|()| wish)
    }
}

/// Serve a client until it ends or runs out of time.
pub(super) async fn serve(worker: Rc<Worker>, client: Rc<Client>, many: Rc<Many>, io: Io<Transport>) {
    client.keep_alive();
    let service = {
        let (worker, client, many) = (Rc::clone(&worker), Rc::clone(&client), Rc::clone(&many));
        service_fn(move |request| {
            let serving = Serving::among(&client, &many, many.begins());
            forward(Rc::clone(&worker), serving, request)
        })
    };
    let on_worker = OnWorker {
        many: Rc::clone(&many),
        patience: client.limits.client_idle_timeout,
    };
    let mut connection = pin!(builder(on_worker, &client.limits).serve_connection(io, service));
    let mut watched = Watched {
        timer: Deadline::new(Instant::now() + client.limits.client_header_timeout),
        blocked: None,
        told: None,
    };
    std::future::poll_fn(|cx| {
        client.wakes(cx);
        loop {
            if let Poll::Ready(result) = connection.as_mut().poll(cx) {
                if let Err(error) = result {
                    tracing::debug!(client = ?client.peer.ip, %error, "HTTP/2 connection failed");
                }
                return Poll::Ready(());
            }
            match watched.poll_wish(cx, &client, &many) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Wish::Close(why)) => {
                    tracing::debug!(client = ?client.peer.ip, why, "HTTP/2 connection closed");
                    return Poll::Ready(());
                }
                Poll::Ready(Wish::SayGoodbye) => {
                    watched.told = Some(Instant::now());
                    connection.as_mut().graceful_shutdown();
                }
            }
        }
    })
    .await;
}

fn builder(on_worker: OnWorker, limits: &Limits) -> http2::Builder<OnWorker> {
    let mut builder = http2::Builder::new(on_worker);
    builder
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .max_concurrent_streams(limits.h2_streams)
        .max_header_list_size(u32::try_from(limits.header_bytes).unwrap_or(u32::MAX))
        .max_pending_accept_reset_streams(UNSEEN_RESETS)
        .max_local_error_reset_streams(ERRORS_MAX)
        .enable_connect_protocol();
    builder
}
