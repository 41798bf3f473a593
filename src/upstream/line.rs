//! One connection to an app, or one stream of one, as a request has it.

use std::cell::{Cell, OnceCell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use futures_util::future::Either;
use http::{Request, Response};
use http_body::{Body, Frame};
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1, http2};
use tokio::sync::oneshot;
use tokio::task::AbortHandle;

use super::driver::Driver;
use super::trunk::Berth;
use crate::tls::Transport;
use crate::wire::Socket;
use crate::wire::preamble::Ends;

/// A place on a connection to an endpoint, with the right to send one request on it.
pub struct Line<B> {
    pub(super) sender: Sender<B>,
    pub(super) state: Rc<LineState>,
    pub(super) is_tls: bool,
}

/// Whose requests a connection may carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// Anybody's.
    Anybody,
    /// Those of the client at these ends, which a PROXY header has named; `None` for clients without an address.
    Client(Option<Ends>),
}

/// What it sends on.
pub(super) enum Sender<B> {
    /// HTTP/1.1: the connection is this request's alone.
    Whole {
        sender: http1::SendRequest<B>,
        driver: Rc<Driver>,
        socket: Socket,
    },
    /// HTTP/2: one stream among others.
    Shared {
        sender: http2::SendRequest<B>,
        /// Its place among them, until this is dropped.
        _berth: Berth<B>,
    },
}

/// What is known of a line apart from who has it.
#[derive(Debug)]
pub struct LineState {
    pub(super) id: u64,
    pub(super) endpoint: u64,
    pub(super) whose: Whose,
    /// The gate of the request that is on it; 0 = none.
    pub(super) gate: Cell<u64>,
    /// It was ended by [`Connections::cut`].
    ///
    /// [`Connections::cut`]: super::Connections::cut
    pub(super) cut: Cell<bool>,
    /// The answer to the request that it carries has come to its end.
    pub(super) answered: Cell<bool>,
    /// Ends the connection; a stream has none of its own.
    pub(super) abort: OnceCell<AbortHandle>,
    /// Who gets the connection when the app has switched protocols.
    pub(super) heir: RefCell<Option<oneshot::Sender<Freed>>>,
    /// Whoever waits for something of a stream.
    waker: RefCell<Option<Waker>>,
}

/// The head of an answer; or why there is none, with the request if none of it was sent.
pub type Sent<B> = Result<Response<Incoming>, TrySendError<Request<B>>>;

/// A connection that HTTP has let go of, and what had come behind the answer's head.
pub type Freed = (Transport, Bytes);

impl LineState {
    pub(super) fn new(id: u64, endpoint: u64, whose: Whose) -> Rc<Self> {
        Rc::new(Self {
            id,
            endpoint,
            whose,
            gate: Cell::new(0),
            cut: Cell::new(false),
            answered: Cell::new(false),
            abort: OnceCell::new(),
            heir: RefCell::new(None),
            waker: RefCell::new(None),
        })
    }

    /// End what is on it, at once.
    pub(super) fn end(&self) {
        self.cut.set(true);
        if let Some(abort) = self.abort.get() {
            abort.abort();
        }
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }

    /// Whether [`Connections::cut`] has ended it.
    ///
    /// [`Connections::cut`]: super::Connections::cut
    #[must_use]
    pub fn is_cut(&self) -> bool {
        self.cut.get()
    }

    /// Ready once [`Connections::cut`] has ended it.
    ///
    /// [`Connections::cut`]: super::Connections::cut
    pub fn poll_cut(&self, cx: &Context<'_>) -> Poll<()> {
        if self.cut.get() {
            return Poll::Ready(());
        }
        let mut waker = self.waker.borrow_mut();
        if waker.as_ref().is_none_or(|known| !known.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
        Poll::Pending
    }
}

impl<B: Body + 'static> Line<B> {
    /// Send a request, wait for the head of its answer.
    ///
    /// # Errors
    /// With the request, if none of it was sent.
    pub fn send(&mut self, request: Request<B>) -> impl Future<Output = Sent<B>> + use<B> {
        // No `async fn`: the request would be moved into it, and once more out of it.
        match &mut self.sender {
            Sender::Whole { sender, .. } => Either::Left(sender.try_send_request(request)),
            Sender::Shared { sender, .. } => Either::Right(sender.try_send_request(request)),
        }
    }

    /// Wait until the connection can take the next request.
    ///
    /// # Errors
    /// It has ended.
    pub async fn ready(&mut self) -> hyper::Result<()> {
        match &mut self.sender {
            Sender::Whole { sender, .. } => sender.ready().await,
            Sender::Shared { sender, .. } => sender.ready().await,
        }
    }
}

impl<B> Line<B> {
    /// Whether the connection can take the next request right now.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        match &self.sender {
            Sender::Whole { sender, driver, .. } => sender.is_ready() && !driver.has_ended(),
            Sender::Shared { .. } => true,
        }
    }

    /// Whether it has ended.
    pub(super) fn is_closed(&self) -> bool {
        match &self.sender {
            Sender::Whole { sender, driver, .. } => sender.is_closed() || driver.has_ended(),
            Sender::Shared { sender, .. } => sender.is_closed(),
        }
    }

    /// The next frame of an answer that has come on it.
    pub fn poll_body(
        &self,
        body: &mut Incoming,
        cx: &mut Context<'_>,
    ) -> Poll<Option<hyper::Result<Frame<Bytes>>>> {
        match &self.sender {
            Sender::Whole { driver, .. } => driver.poll_body(body, cx),
            Sender::Shared { .. } => Pin::new(body).poll_frame(cx),
        }
    }

    /// Whoever reads the answer's body drives the connection from now on, until [`Line::answered`]. A request's body that
    /// is still on its way must not depend on that: a client may take nothing of the answer until it has sent all.
    pub fn take(&self) {
        if let Sender::Whole { driver, .. } = &self.sender {
            driver.take();
        }
    }

    /// Whether nothing has come on an unused connection, by the kernel's word.
    pub(super) fn is_quiet(&self) -> bool {
        match &self.sender {
            Sender::Whole { socket, .. } => socket.is_quiet(),
            Sender::Shared { .. } => true,
        }
    }

    /// Whether it is a stream of HTTP/2.
    #[must_use]
    pub fn is_http2(&self) -> bool {
        matches!(self.sender, Sender::Shared { .. })
    }

    /// Whether it is encrypted.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        self.is_tls
    }

    /// Of a stream: tells when it is cut. A whole connection ends by itself then, with an error of its own.
    #[must_use]
    pub fn stream(&self) -> Option<&Rc<LineState>> {
        self.is_http2().then_some(&self.state)
    }

    /// Remember through which gate the request on it came.
    pub fn carries(&self, gate: u64) {
        self.state.gate.set(gate);
        self.state.answered.set(false);
    }

    /// The answer is whole; the rest of the request may still be on its way. Without this, dropping the line
    /// ends the connection at once. Nobody reads from it any more: its task drives it again.
    pub fn answered(&self) {
        self.state.answered.set(true);
        if let Sender::Whole { driver, .. } = &self.sender {
            driver.rest();
        }
    }

    /// What it carries is a stream now: [`Connections::cut`] does not end it.
    ///
    /// [`Connections::cut`]: super::Connections::cut
    pub fn carries_stream(&self) {
        self.state.gate.set(0);
    }

    /// The request that goes out next asks to switch protocols: if the app does, the connection comes here.
    pub fn inherit(&self) -> oneshot::Receiver<Freed> {
        let (heir, inheritance) = oneshot::channel();
        *self.state.heir.borrow_mut() = Some(heir);
        inheritance
    }

    /// Whether [`Connections::cut`] ended it.
    ///
    /// [`Connections::cut`]: super::Connections::cut
    #[must_use]
    pub fn was_cut(&self) -> bool {
        self.state.cut.get()
    }

    /// Unique on the worker.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.state.id
    }
}

impl<B> Drop for Line<B> {
    fn drop(&mut self) {
        // Left to itself hyper would flush first, and an app that never reads would keep the request for ever.
        if !self.state.answered.get()
            && let Some(abort) = self.state.abort.get()
        {
            abort.abort();
        }
    }
}

impl<B> std::fmt::Debug for Line<B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Line").field(&self.state).finish()
    }
}
