//! HTTP/2 connections to apps: a few per endpoint and worker, each shared by many streams.
//!
//! A stream takes a berth, and there are never more berths than the app allows streams: h2 would queue the rest
//! without bound. Only one connection to an endpoint is opened at a time; who comes meanwhile waits for it.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::pin::Pin;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Buf;
use http_body::Body;
use hyper::client::conn::http2;
use hyper::rt::Executor;
use tokio::sync::Notify;

use super::connections::{ById, Connections};
use super::dial::ConnectError;
use super::line::{Line, LineState, Sender, Whose};
use crate::config::Limits;
use crate::tls::Transport;
use crate::wire::Io;

/// Connections that one worker opens to one endpoint.
const TRUNKS_MAX: usize = 64;
/// Streams on one connection, whatever the app allows: one connection is one core of the app's.
const STREAMS_MAX: usize = 256;
/// What an app may send unread, on a stream and on a connection.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;

/// All HTTP/2 of one worker, by endpoint.
pub(super) struct Trunks<B>(RefCell<HashMap<u64, Of<B>, ById>>);

/// That of one endpoint.
struct Of<B> {
    open: Vec<Rc<Trunk<B>>>,
    /// One is being opened.
    dialling: bool,
    /// The app has chosen HTTP/1.1 by ALPN: there is nothing to share.
    is_http1: bool,
    /// Notified when there may be room.
    room: Rc<Notify>,
}

/// One connection.
pub(super) struct Trunk<B> {
    sender: http2::SendRequest<B>,
    is_tls: bool,
    streams: Cell<usize>,
    /// What the app allows now.
    most: Rc<Cell<usize>>,
    unused_since: Cell<Instant>,
    keep: Duration,
    room: Rc<Notify>,
}

/// A stream's place on its connection.
pub(super) struct Berth<B> {
    trunk: Rc<Trunk<B>>,
    of: Rc<Connections<B>>,
    id: u64,
}

impl<B> Drop for Berth<B> {
    fn drop(&mut self) {
        self.trunk.streams.set(self.trunk.streams.get() - 1);
        self.trunk.unused_since.set(Instant::now());
        self.trunk.room.notify_one();
        self.of.forget(self.id);
    }
}

/// The right to open a connection, and the word to those who wait for it when it is dropped.
pub(super) struct Dialling<B> {
    of: Rc<Connections<B>>,
    endpoint: u64,
}

impl<B> Drop for Dialling<B> {
    fn drop(&mut self) {
        if let Some(of) = self.of.trunks.0.borrow_mut().get_mut(&self.endpoint) {
            of.dialling = false;
            of.room.notify_waiters();
        }
    }
}

impl<B> Default for Of<B> {
    fn default() -> Self {
        Self {
            open: Vec::new(),
            dialling: false,
            is_http1: false,
            room: Rc::default(),
        }
    }
}

impl<B> Default for Trunks<B> {
    fn default() -> Self {
        Self(RefCell::default())
    }
}

impl<B> Trunks<B> {
    pub(super) fn is_empty(&self) -> bool {
        self.0.borrow().is_empty()
    }

    /// The app has chosen HTTP/1.1.
    pub(super) fn found_http1(&self, endpoint: u64) {
        self.0.borrow_mut().entry(endpoint).or_default().is_http1 = true;
    }

    /// Let go of connections whose endpoint is not to be kept, those unused for too long, and those that have ended.
    /// Streams on them go on to their end.
    pub(super) fn sweep(&self, now: Instant, keep: impl Fn(u64) -> bool) {
        self.0.borrow_mut().retain(|endpoint, of| {
            of.open.retain(|trunk| trunk.is_of_use(now));
            of.dialling || (keep(*endpoint) && (of.is_http1 || !of.open.is_empty()))
        });
    }
}

impl<B> Trunk<B> {
    fn is_of_use(&self, now: Instant) -> bool {
        let used = self.streams.get() > 0 || now < self.unused_since.get() + self.keep;
        used && !self.sender.is_closed()
    }

    fn has_room(&self) -> bool {
        // An app that allows none at all would never be asked again.
        self.streams.get() < self.most.get().clamp(1, STREAMS_MAX)
    }
}

/// What to do for a stream.
enum Next<B> {
    Take(Rc<Trunk<B>>),
    Open,
    /// Each request opens a connection of its own.
    Alone,
    Wait(Rc<Notify>),
}

impl<B> Connections<B>
where
    B: Body + Unpin + 'static,
    B::Data: Send + Buf,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    /// A stream on a connection that is open and has room.
    pub(super) fn stream(self: &Rc<Self>, endpoint: u64, now: Instant) -> Option<Line<B>> {
        let trunk = {
            let mut all = self.trunks.0.borrow_mut();
            let of = all.get_mut(&endpoint)?;
            of.open.retain(|trunk| trunk.is_of_use(now));
            of.open.iter().find(|trunk| trunk.has_room()).map(Rc::clone)
        }?;
        Some(self.berth(endpoint, &trunk))
    }

    fn berth(self: &Rc<Self>, endpoint: u64, trunk: &Rc<Trunk<B>>) -> Line<B> {
        let state = LineState::new(self.next_id(), endpoint, Whose::Anybody);
        self.register(&state);
        trunk.streams.set(trunk.streams.get() + 1);
        Line {
            sender: Sender::Shared {
                sender: trunk.sender.clone(),
                _berth: Berth {
                    trunk: Rc::clone(trunk),
                    of: Rc::clone(self),
                    id: state.id,
                },
            },
            state,
            is_tls: trunk.is_tls,
        }
    }

    /// A stream, or the right to open a connection for it. `None`: every request has a connection of its own.
    ///
    /// # Errors
    /// No room within the time.
    pub(super) async fn stream_or_turn(
        self: &Rc<Self>,
        endpoint: u64,
        within: Duration,
    ) -> Result<Result<Line<B>, Option<Dialling<B>>>, ConnectError> {
        let deadline = tokio::time::Instant::now() + within;
        loop {
            match self.next(endpoint) {
                Next::Take(trunk) => return Ok(Ok(self.berth(endpoint, &trunk))),
                Next::Alone => return Ok(Err(None)),
                Next::Open => {
                    let of = Rc::clone(self);
                    return Ok(Err(Some(Dialling { of, endpoint })));
                }
                Next::Wait(room) => tokio::time::timeout_at(deadline, room.notified())
                    .await
                    .map_err(|_| ConnectError::Timeout(within))?,
            }
        }
    }

    fn next(&self, endpoint: u64) -> Next<B> {
        let now = Instant::now();
        let mut all = self.trunks.0.borrow_mut();
        let of = all.entry(endpoint).or_default();
        of.open.retain(|trunk| trunk.is_of_use(now));
        if let Some(trunk) = of.open.iter().find(|trunk| trunk.has_room()) {
            return Next::Take(Rc::clone(trunk));
        }
        if of.is_http1 {
            return Next::Alone;
        }
        if of.dialling || of.open.len() >= TRUNKS_MAX {
            return Next::Wait(Rc::clone(&of.room));
        }
        of.dialling = true;
        Next::Open
    }

    /// Speak HTTP/2 on a fresh connection; the first stream on it.
    pub(super) async fn trunk(
        self: &Rc<Self>,
        endpoint: u64,
        transport: Transport,
        keep: Duration,
        limits: &Limits,
    ) -> Result<Line<B>, ConnectError> {
        // A peer that vanished is noticed by the kernel: HTTP/2 pings between an app's messages would be taken for
        // an attack by gRPC servers, which allow one in five minutes.
        transport.socket().keep_alive();
        let is_tls = transport.is_tls();
        let (io, _) = Io::new(transport);
        let mut builder = http2::Builder::new(Local);
        builder
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_header_list_size(u32::try_from(limits.header_bytes.max(64 * 1024)).unwrap_or(u32::MAX));
        let (sender, mut connection) = builder.handshake(io).await.map_err(ConnectError::Handshake)?;
        let most = Rc::new(Cell::new(connection.current_max_send_streams()));
        let room = {
            let mut all = self.trunks.0.borrow_mut();
            Rc::clone(&all.entry(endpoint).or_default().room)
        };
        let trunk = Rc::new(Trunk {
            sender,
            is_tls,
            streams: Cell::new(0),
            most: Rc::clone(&most),
            unused_since: Cell::new(Instant::now()),
            keep,
            room: Rc::clone(&room),
        });
        tokio::task::spawn_local(async move {
            let ended = std::future::poll_fn(|cx| {
                let polled = Pin::new(&mut connection).poll(cx);
                most.set(connection.current_max_send_streams());
                polled
            });
            // Its error reaches whoever waits for an answer on it; here it only ends.
            let _ = ended.await;
            room.notify_waiters();
        });
        let line = self.berth(endpoint, &trunk);
        let mut all = self.trunks.0.borrow_mut();
        all.entry(endpoint).or_default().open.push(trunk);
        Ok(line)
    }
}

/// Runs hyper's tasks on the worker's own thread.
#[derive(Clone, Copy, Debug)]
struct Local;

impl<F: Future + 'static> Executor<F> for Local {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}
