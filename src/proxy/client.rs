//! One client connection: hyper parses it, this bounds it in time and ends it well. HTTP/1 here, [`http2`] beside it.

use std::cell::{Cell, OnceCell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;

use super::deadline::Deadline;
use super::forward::forward;
use super::front::{Front, Opened, look_at, shake_hands};
use super::headers::Peer;
use super::http2::{self, Many};
use super::preamble;
use super::preface::Protocol;
use super::reply;
use super::serving::Serving;
use super::tunnel::Tunnel;
use super::worker::Worker;
use crate::config::Limits;
use crate::tls::Transport;
use crate::wire::preamble::Ends;
use crate::wire::{Io, Socket, Stream, Watch};

/// hyper's least buffer; a smaller `header_bytes` is held by its own bound.
const BUFFER_MIN: usize = 8 * 1024;
/// How much of an answer hyper may gather while the client takes none, and the most it reads at once.
const BUFFER_MAX: usize = 256 * 1024;

/// How long, and for how many bytes, an early answer's connection is read on.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 512 * 1024;

/// What a connection is doing, for the deadline that applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// A head is awaited or half here, since then.
    Head(Instant),
    /// A request is being served.
    Busy,
    /// Between two requests, since then, with so many bytes read before.
    Idle(Instant, u64),
}

/// A client connection as the rest of the worker sees it.
pub(super) struct Client {
    pub(super) peer: Rc<Peer>,
    pub(super) front: Rc<Front>,
    /// The server name that the connection was opened for, over TLS.
    pub(super) name: Option<Box<str>>,
    phase: Cell<Phase>,
    watch: Arc<Watch>,
    socket: Socket,
    /// The task's waker, for [`Client::dismiss`]: an idle connection is polled by nobody else.
    waker: OnceCell<Waker>,
    /// The shutdown's linger is over: if idle, go.
    dismissed: Cell<bool>,
    /// The request's body is through: nobody reads the socket until the answer is done.
    upload_done: Cell<bool>,
    /// The gate of the request being served.
    gate: Cell<u64>,
    /// That request's time is over.
    doomed: Cell<bool>,
    /// An HTTP/1.0 client: the end of the connection is the end of an answer without a length.
    closes_to_end: Cell<bool>,
    /// The request that is served is the last of this connection, whatever follows it.
    last: Cell<bool>,
    /// The app has switched protocols: what follows HTTP on this connection.
    tunnel: RefCell<Option<Tunnel>>,
    /// Its streams, if it speaks HTTP/2: then what is said of *the* request above says nothing.
    many: Option<Rc<Many>>,
}

/// Since when a client takes nothing, and how many bytes it had taken then.
pub(super) type Blocked = Option<(Instant, u64)>;

/// Why a connection is over.
enum End {
    /// hyper is done with it.
    Served(hyper::Result<()>),
    /// A deadline passed; true if part of a head had come.
    TimedOut(bool),
    /// The client reset it.
    Reset,
}

impl Client {
    /// A request begins.
    pub(super) fn begins(&self, has_body: bool, closes_to_end: bool) {
        self.phase.set(Phase::Busy);
        self.upload_done.set(!has_body);
        self.closes_to_end.set(closes_to_end);
    }

    /// Its address and the one that it connected to: a balancer's word, or the connection's own. `None` over a Unix
    /// socket.
    pub(super) fn addresses(&self) -> Option<Ends> {
        let told = self.peer.ends.as_deref().copied();
        told.or_else(|| self.socket.ends())
    }

    /// The request claimed an endpoint through this gate.
    pub(super) fn goes_through(&self, gate: u64) {
        self.gate.set(gate);
    }

    /// The request's body is through: from now on nobody else watches for a reset.
    pub(super) fn uploaded(&self) {
        self.upload_done.set(true);
        self.wake();
    }

    /// What follows on this connection may be read as something else by others: serve none of it.
    pub(super) fn ends_here(&self) {
        self.last.set(true);
    }

    /// Whether the connection ends with this answer.
    pub(super) fn is_last(&self) -> bool {
        self.last.get()
    }

    /// The time of a gate's requests is over. A client that takes nothing would not notice that its answer was cut.
    pub(super) fn cut(&self, gates: &[u64]) {
        if let Some(many) = &self.many {
            return many.cut(gates);
        }
        if self.phase.get() == Phase::Busy && self.watch.is_blocked() && gates.contains(&self.gate.get()) {
            self.doomed.set(true);
            self.wake();
        }
    }

    /// The answer is cut short. Where its end is the connection's end, only a reset says that it is not whole.
    pub(super) fn answer_cut(&self) {
        if self.closes_to_end.get() {
            self.socket.reset_on_close();
        }
    }

    /// Its answer is the last on this connection: a tunnel follows.
    pub(super) fn will_tunnel(&self, tunnel: Tunnel) {
        *self.tunnel.borrow_mut() = Some(tunnel);
    }

    /// Both the request and its answer are through, or given up.
    pub(super) fn ends(&self) {
        if self.tunnel.borrow().is_some() {
            return;
        }
        self.phase
            .set(Phase::Idle(Instant::now(), self.watch.bytes_read()));
    }

    /// The process shuts down. HTTP/1 says so with its next answer.
    pub(super) fn stop(&self) {
        if self.many.as_ref().is_some_and(|many| many.stop()) {
            self.wake();
        }
    }

    /// Close it now if it is between two requests. For the end of a shutdown's linger.
    pub(super) fn dismiss(&self) {
        self.dismissed.set(true);
        self.wake();
    }

    /// Whether the shutdown's linger is over.
    pub(super) fn is_dismissed(&self) -> bool {
        self.dismissed.get()
    }

    /// The connection's task asks to be woken.
    pub(super) fn wakes(&self, cx: &Context<'_>) {
        self.waker.get_or_init(|| cx.waker().clone());
    }

    fn wake(&self) {
        if let Some(waker) = self.waker.get() {
            waker.wake_by_ref();
        }
    }

    /// Let the kernel ask whether a silent client is still there.
    pub(super) fn keep_alive(&self) {
        self.socket.keep_alive();
    }

    fn poll_end(
        &self,
        cx: &mut Context<'_>,
        timer: &mut Deadline,
        blocked: &mut Blocked,
        limits: &Limits,
    ) -> Poll<End> {
        if let Phase::Idle(_, before) = self.phase.get()
            && self.watch.bytes_read() > before
        {
            self.phase.set(Phase::Head(Instant::now()));
        }
        let end = match self.phase.get() {
            Phase::Head(since) => since + limits.client_header_timeout,
            // What is blocked still has the end of its answer to take.
            Phase::Idle(..) if self.dismissed.get() && !self.watch.is_blocked() => {
                return Poll::Ready(End::TimedOut(false));
            }
            Phase::Idle(since, _) => since + limits.client_idle_timeout,
            Phase::Busy => return self.poll_busy(cx, timer, blocked, limits.client_idle_timeout),
        };
        timer.poll(cx, end).map(|()| {
            let partial = matches!(self.phase.get(), Phase::Head(_)) && self.watch.bytes_read() > 0;
            End::TimedOut(partial)
        })
    }

    /// While a request is served: a client that takes nothing for too long is let go, and so is one that reset.
    fn poll_busy(
        &self,
        cx: &mut Context<'_>,
        timer: &mut Deadline,
        blocked: &mut Blocked,
        patience: Duration,
    ) -> Poll<End> {
        if self.doomed.get() {
            return Poll::Ready(End::Reset);
        }
        if let Some(over) = self.poll_blocked(cx, timer, blocked, patience) {
            return over.map(|()| End::TimedOut(false));
        }
        if self.upload_done.get() {
            self.socket.poll_reset(cx).map(|()| End::Reset)
        } else {
            Poll::Pending
        }
    }

    /// `None` while the client takes what is written to it; else whether its time for that is over.
    pub(super) fn poll_blocked(
        &self,
        cx: &mut Context<'_>,
        timer: &mut Deadline,
        blocked: &mut Blocked,
        patience: Duration,
    ) -> Option<Poll<()>> {
        if !self.watch.is_blocked() {
            *blocked = None;
            return None;
        }
        // A slow client is blocked at the end of every poll, and yet takes something: count from the last byte.
        let written = self.watch.bytes_written();
        let (since, before) = *blocked.get_or_insert_with(|| (Instant::now(), written));
        let since = if before == written { since } else { Instant::now() };
        *blocked = Some((since, written));
        Some(timer.poll(cx, since + patience))
    }
}

/// Serve a client in clear text.
pub(super) async fn serve_plain(worker: Rc<Worker>, front: Rc<Front>, stream: Stream, peer: Peer) {
    serve_plain_since(worker, front, stream, peer, Instant::now()).await;
}

async fn serve_plain_since(
    worker: Rc<Worker>,
    front: Rc<Front>,
    stream: Stream,
    peer: Peer,
    accepted: Instant,
) {
    let limits = worker.shared.published.load().edge.limits;
    let socket = stream.socket();
    let deadline = accepted + limits.client_header_timeout;
    if let Some(opened) = look_at(&worker, stream, peer, deadline).await {
        serve(worker, front, opened, socket, limits, accepted).await;
    }
}

/// Serve a client whose connection a balancer has passed on, with a PROXY header before its first byte. The header's
/// time is part of the time to the first complete head.
pub(super) async fn serve_behind_balancer(
    worker: Rc<Worker>,
    front: Rc<Front>,
    mut stream: Stream,
    balancer: Peer,
) {
    let accepted = Instant::now();
    let deadline = accepted + worker.shared.published.load().edge.limits.client_header_timeout;
    let Some(peer) = preamble::take(&worker, &mut stream, balancer, deadline).await else {
        return;
    };
    // Boxed: this task has no room for a whole connection while it waits for a header.
    if front.tls.is_some() {
        Box::pin(serve_tls_since(worker, front, stream, peer, accepted)).await;
    } else {
        Box::pin(serve_plain_since(worker, front, stream, peer, accepted)).await;
    }
}

/// Serve a client through TLS. The handshake is part of the time to the first complete head.
pub(super) async fn serve_tls(worker: Rc<Worker>, front: Rc<Front>, stream: Stream, peer: Peer) {
    serve_tls_since(worker, front, stream, peer, Instant::now()).await;
}

async fn serve_tls_since(
    worker: Rc<Worker>,
    front: Rc<Front>,
    stream: Stream,
    peer: Peer,
    accepted: Instant,
) {
    let Some(tls) = front.tls.clone() else { return };
    let limits = worker.shared.published.load().edge.limits;
    let deadline = accepted + limits.client_header_timeout;
    let socket = stream.socket();
    if let Some(opened) = shake_hands(&worker, &tls, stream, peer, deadline).await {
        drop(tls);
        serve(worker, front, opened, socket, limits, accepted).await;
    }
}

/// Serve a client until it ends, resets, or runs out of time.
async fn serve(
    worker: Rc<Worker>,
    front: Rc<Front>,
    opened: Opened,
    socket: Socket,
    limits: Limits,
    accepted: Instant,
) {
    let (io, watch) = Io::new(opened.transport);
    let many = (opened.protocol == Protocol::Http2).then(|| Rc::new(Many::new(accepted)));
    let client = Rc::new(Client {
        peer: Rc::new(opened.peer),
        front,
        name: opened.name,
        phase: Cell::new(Phase::Head(accepted)),
        watch,
        socket,
        waker: OnceCell::new(),
        dismissed: Cell::new(false),
        upload_done: Cell::new(true),
        gate: Cell::new(0),
        doomed: Cell::new(false),
        closes_to_end: Cell::new(false),
        last: Cell::new(false),
        tunnel: RefCell::new(None),
        many: many.clone(),
    });
    let _listed = worker.list_client(&client);
    match many {
        None => serve_http1(worker, client, io, limits, accepted).await,
        // Boxed: connections in HTTP/1 must not pay for its size.
        Some(many) => Box::pin(http2::serve(worker, client, many, io, limits)).await,
    }
}

async fn serve_http1(
    worker: Rc<Worker>,
    client: Rc<Client>,
    io: Io<Transport>,
    limits: Limits,
    accepted: Instant,
) {
    let service = {
        let (worker, client) = (Rc::clone(&worker), Rc::clone(&client));
        service_fn(move |request| {
            let serving = Serving::alone(&client, &request);
            forward(Rc::clone(&worker), serving, request)
        })
    };
    let mut connection = builder(&limits).serve_connection(io, service);
    let mut timer = Deadline::new(accepted + limits.client_header_timeout);
    let mut blocked = None;
    let end = std::future::poll_fn(|cx| {
        client.wakes(cx);
        if let Poll::Ready(result) = Pin::new(&mut connection).poll(cx) {
            return Poll::Ready(End::Served(result));
        }
        client.poll_end(cx, &mut timer, &mut blocked, &limits)
    })
    .await;
    if let Some(tunnel) = client.tunnel.take() {
        return match end {
            End::Served(Ok(())) => {
                // hyper has written the 101 and let go; what it read behind the request's head is the tunnel's.
                let parts = connection.into_parts();
                drop(parts.service);
                client.keep_alive();
                // Boxed: connections that never switch must not pay for its size.
                Box::pin(tunnel.run(parts.io.into_inner(), parts.read_buf)).await;
            }
            _ => tunnel.missed(),
        };
    }
    match end {
        End::Served(result) => {
            if result.is_err_and(|error| worker.refused_by_parser(&error)) || !client.upload_done.get() {
                linger(connection.into_parts().io.into_inner()).await;
            }
        }
        End::TimedOut(false) if !client.watch.is_blocked() => {
            say_goodbye(connection.into_parts().io.into_inner()).await;
        }
        End::Reset | End::TimedOut(false) => {}
        End::TimedOut(true) => {
            worker.head_timed_out();
            say_timeout(connection.into_parts().io.into_inner()).await;
        }
    }
}

fn builder(limits: &Limits) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .half_close(true)
        .max_header_size(limits.header_bytes)
        .max_buf_size(limits.header_bytes.clamp(BUFFER_MIN, BUFFER_MAX).max(64 * 1024))
        // Both timers are ours: hyper's counts keep-alive time too and closes without a word.
        .header_read_timeout(None);
    if limits.header_count != 100 {
        // hyper's default needs no allocation; any other number costs one a request.
        builder.max_headers(limits.header_count);
    }
    builder
}

/// Read on for a moment after an answer that came before the end of its request: closing over unread bytes would be
/// a reset, which takes the answer from a client that has not read it yet (RFC 9112 §9.6).
async fn linger(mut stream: Transport) {
    let mut sink = [0; 4096];
    let read = async {
        let mut left = LINGER_BYTES;
        while left > 0 {
            match stream.read(&mut sink).await {
                Ok(0) | Err(_) => return,
                Ok(bytes) => left = left.saturating_sub(bytes),
            }
        }
    };
    // Out of time or of patience: the close is a reset then, as it must be at some point.
    let _ = tokio::time::timeout(LINGER, read).await;
}

/// hyper is out of the way; one short write, and no waiting for a client that takes nothing.
pub(super) async fn say_timeout(mut stream: Transport) {
    let say = async {
        stream.write_all(reply::HEAD_TIMEOUT).await?;
        stream.shutdown().await
    };
    // A failure means that the client is gone, which was to be expected.
    let _ = tokio::time::timeout(Duration::from_secs(1), say).await;
}

/// An orderly end of TLS, so that the client need not wonder whether something was cut off.
async fn say_goodbye(mut stream: Transport) {
    if !stream.is_tls() {
        return;
    }
    let _ = tokio::time::timeout(Duration::from_secs(1), stream.shutdown()).await;
}
