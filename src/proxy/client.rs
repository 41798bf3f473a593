//! One client connection: this bounds it in time. What is spoken on it: [`http1`] and [`http2`].

use std::cell::{Cell, OnceCell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::time::Instant;

use super::deadline::Deadline;
use super::front::{Front, Opened, look_at, shake_hands};
use super::headers::Peer;
use super::http1;
use super::http2::{self, Many};
use super::preamble;
use super::preface::Protocol;
use super::reply;
use super::tunnel::Tunnel;
use super::worker::Worker;
use crate::config::Limits;
use crate::tls::Transport;
use crate::wire::preamble::Ends;
use crate::wire::{Io, Socket, Stream, Watch};

/// A connection that is quiet for so long gives its buffers back. Long enough that a busy client never pays for it,
/// short enough that a crowd that comes once is not there all at the same time.
const QUIET_AFTER: Duration = Duration::from_millis(50);
/// The same for one that has not been seen to come back so soon: of a crowd that comes once, few hold buffers at a time.
const QUIET_AT_FIRST: Duration = Duration::from_millis(5);

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
    /// As they were when it came. Here, so that none of the futures of its task keeps them.
    pub(super) limits: Limits,
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
    /// Nothing of a next head was here when it rested last.
    may_rest: Cell<bool>,
    /// It came back soon after it had been left to rest.
    comes_back: Cell<bool>,
    /// The task's one timer, for whatever it waits for. HTTP/2 has tasks, and timers, of its own.
    timer: RefCell<Option<Deadline>>,
}

/// Since when a client takes nothing, and how many bytes it had taken then.
pub(super) type Blocked = Option<(Instant, u64)>;

/// Why hyper is done with a connection, or we with hyper.
pub(super) enum End {
    /// hyper is done with it.
    Served(hyper::Result<()>),
    /// A deadline passed; true if part of a head had come.
    TimedOut(bool),
    /// The client reset it.
    Reset,
    /// It is between two requests, and has been for a while: it is not over, and needs no buffers.
    Quiet,
}

impl Client {
    /// A request begins.
    pub(super) fn begins(&self, has_body: bool, closes_to_end: bool) {
        self.may_rest.set(true);
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
    pub(super) fn ends(&self, now: Instant) {
        if self.tunnel.borrow().is_some() {
            return;
        }
        self.phase.set(Phase::Idle(now, self.watch.bytes_read()));
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

    /// Whether its streams have tasks of their own.
    pub(super) fn is_http2(&self) -> bool {
        self.many.is_some()
    }

    /// Ready once this has passed. Only for the task that serves HTTP/1.
    pub(super) fn poll_timer(&self, cx: &mut Context<'_>, deadline: Instant) -> Poll<()> {
        let mut timer = self.timer.borrow_mut();
        timer
            .get_or_insert_with(|| Deadline::new(deadline))
            .poll(cx, deadline)
    }

    /// Whether what hyper serves on it has come to an end.
    pub(super) fn poll_end(&self, cx: &mut Context<'_>, blocked: &mut Blocked) -> Poll<End> {
        if let Phase::Idle(_, before) = self.phase.get()
            && self.watch.bytes_read() > before
        {
            self.phase.set(Phase::Head(Instant::now()));
        }
        let end = match self.phase.get() {
            Phase::Head(since) => since + self.limits.client_header_timeout,
            // What is blocked still has the end of its answer to take.
            Phase::Idle(..) if self.dismissed.get() && !self.watch.is_blocked() => {
                return Poll::Ready(End::TimedOut(false));
            }
            Phase::Idle(since, _) => {
                let over = since + self.limits.client_idle_timeout;
                let quiet = since + self.quiet_after();
                if !self.may_rest.get() || self.watch.is_blocked() || quiet >= over {
                    return self.poll_timer(cx, over).map(|()| End::TimedOut(false));
                }
                return self.poll_timer(cx, quiet).map(|()| End::Quiet);
            }
            Phase::Busy => return self.poll_busy(cx, blocked, self.limits.client_idle_timeout),
        };
        self.poll_timer(cx, end).map(|()| {
            let partial = matches!(self.phase.get(), Phase::Head(_)) && self.watch.bytes_read() > 0;
            End::TimedOut(partial)
        })
    }

    /// How long it is silent before it rests.
    fn quiet_after(&self) -> Duration {
        if self.comes_back.get() {
            QUIET_AFTER
        } else {
            QUIET_AT_FIRST
        }
    }

    /// While it needs no buffers: `Served` once something has come that is for hyper to read.
    pub(super) fn poll_rest(&self, cx: &mut Context<'_>) -> Poll<End> {
        self.wakes(cx);
        let Phase::Idle(since, _) = self.phase.get() else {
            return Poll::Ready(End::Served(Ok(())));
        };
        if self.dismissed.get() {
            return Poll::Ready(End::TimedOut(false));
        }
        if self.socket.poll_readable(cx).is_ready() {
            self.comes_back.set(since.elapsed() < QUIET_AFTER);
            return Poll::Ready(End::Served(Ok(())));
        }
        self.poll_timer(cx, since + self.limits.client_idle_timeout)
            .map(|()| End::TimedOut(false))
    }

    /// What has come of a next head is with hyper: only hyper can go on with it.
    pub(super) fn must_not_rest(&self) {
        self.may_rest.set(false);
    }

    /// The request's body is not through.
    pub(super) fn uploads(&self) -> bool {
        !self.upload_done.get()
    }

    /// What follows HTTP on it, if the app has switched protocols.
    pub(super) fn take_tunnel(&self) -> Option<Tunnel> {
        self.tunnel.take()
    }

    /// The client takes no more.
    pub(super) fn is_blocked(&self) -> bool {
        self.watch.is_blocked()
    }

    /// While a request is served: a client that takes nothing for too long is let go, and so is one that reset.
    fn poll_busy(&self, cx: &mut Context<'_>, blocked: &mut Blocked, patience: Duration) -> Poll<End> {
        if self.doomed.get() {
            return Poll::Ready(End::Reset);
        }
        if let Some(end) = self.blocked_until(blocked, patience) {
            return self.poll_timer(cx, end).map(|()| End::TimedOut(false));
        }
        if self.upload_done.get() {
            self.socket.poll_reset(cx).map(|()| End::Reset)
        } else {
            Poll::Pending
        }
    }

    /// `None` while the client takes what is written to it; else when its time for that is over.
    pub(super) fn blocked_until(&self, blocked: &mut Blocked, patience: Duration) -> Option<Instant> {
        if !self.watch.is_blocked() {
            *blocked = None;
            return None;
        }
        // A slow client is blocked at the end of every poll, and yet takes something: count from the last byte.
        let written = self.watch.bytes_written();
        let (since, before) = *blocked.get_or_insert_with(|| (Instant::now(), written));
        let since = if before == written { since } else { Instant::now() };
        *blocked = Some((since, written));
        Some(since + patience)
    }
}

// A connection's task lives as long as the connection, and most of them are idle: no `async fn` below that gets a
// stream or a client, because it would keep room for each of its arguments twice, and what comes before the first
// request is boxed, to be gone by then.

/// What holds for a connection that comes now.
fn limits(worker: &Worker) -> Limits {
    worker.shared.published.load().edge.limits
}

/// Serve a client in clear text.
pub(super) fn serve_plain(
    worker: Rc<Worker>,
    front: Rc<Front>,
    stream: Stream,
    peer: Peer,
) -> impl Future<Output = ()> {
    serve_plain_since(worker, front, stream, peer, Instant::now())
}

fn serve_plain_since(
    worker: Rc<Worker>,
    front: Rc<Front>,
    stream: Stream,
    peer: Peer,
    accepted: Instant,
) -> impl Future<Output = ()> {
    let socket = stream.socket();
    let deadline = accepted + limits(&worker).client_header_timeout;
    let looking = Box::pin(look_at(Rc::clone(&worker), stream, peer, deadline));
    async move {
        if let Some(opened) = looking.await {
            serve(worker, front, *opened, socket, accepted).await;
        }
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
    let deadline = accepted + limits(&worker).client_header_timeout;
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
pub(super) fn serve_tls(
    worker: Rc<Worker>,
    front: Rc<Front>,
    stream: Stream,
    peer: Peer,
) -> impl Future<Output = ()> {
    serve_tls_since(worker, front, stream, peer, Instant::now())
}

fn serve_tls_since(
    worker: Rc<Worker>,
    front: Rc<Front>,
    stream: Stream,
    peer: Peer,
    accepted: Instant,
) -> impl Future<Output = ()> {
    let deadline = accepted + limits(&worker).client_header_timeout;
    let socket = stream.socket();
    let shaking = Box::pin(shake_hands(
        Rc::clone(&worker),
        front.tls.clone(),
        stream,
        peer,
        deadline,
    ));
    async move {
        if let Some(opened) = shaking.await {
            serve(worker, front, *opened, socket, accepted).await;
        }
    }
}

/// Serve a client until it ends, resets, or runs out of time.
fn serve(
    worker: Rc<Worker>,
    front: Rc<Front>,
    opened: Opened,
    socket: Socket,
    accepted: Instant,
) -> impl Future<Output = ()> {
    let (io, watch) = Io::new(opened.transport);
    let many = (opened.protocol == Protocol::Http2).then(|| Rc::new(Many::new(accepted)));
    let client = Rc::new(Client {
        peer: Rc::new(opened.peer),
        front,
        limits: limits(&worker),
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
        may_rest: Cell::new(true),
        comes_back: Cell::new(false),
        timer: RefCell::new(None),
    });
    async move {
        let _listed = worker.list_client(&client);
        match many {
            None => http1::serve(worker, client, io).await,
            // Boxed: connections in HTTP/1 must not pay for its size.
            Some(many) => Box::pin(http2::serve(worker, client, many, io)).await,
        }
    }
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

#[cfg(test)]
mod tests {
    use super::super::future_bytes;
    use super::*;

    /// Most connections rest, and each keeps its task and this. Not for a larger future than it takes.
    #[test]
    fn what_a_resting_connection_keeps_stays_small() {
        let bytes = (
            future_bytes(|(worker, front, stream, peer)| serve_plain(worker, front, stream, peer)),
            size_of::<Client>(),
        );
        assert!(bytes.0 <= 700 && bytes.1 <= 360, "{bytes:?}");
    }
}
