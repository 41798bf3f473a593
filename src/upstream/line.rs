//! One connection to an app as a request has it.

use std::cell::{Cell, OnceCell, RefCell};
use std::rc::Rc;

use bytes::Bytes;
use hyper::client::conn::http1::SendRequest;
use tokio::sync::oneshot;
use tokio::task::AbortHandle;

use crate::tls::Transport;
use crate::wire::Socket;

/// One connection to an endpoint, with the right to send on it.
pub struct Line<B> {
    pub(super) sender: SendRequest<B>,
    pub(super) socket: Socket,
    pub(super) state: Rc<LineState>,
}

/// What is known of a connection apart from who has it.
#[derive(Debug)]
pub(super) struct LineState {
    pub(super) id: u64,
    pub(super) endpoint: u64,
    /// The gate of the request that is on it; 0 = none.
    pub(super) gate: Cell<u64>,
    /// It was ended by [`Connections::cut`].
    pub(super) cut: Cell<bool>,
    /// The answer to the request that it carries has come to its end.
    pub(super) answered: Cell<bool>,
    pub(super) abort: OnceCell<AbortHandle>,
    /// Who gets the connection when the app has switched protocols.
    pub(super) heir: RefCell<Option<oneshot::Sender<Freed>>>,
}

/// A connection that HTTP has let go of, and what had come behind the answer's head.
pub type Freed = (Transport, Bytes);

impl<B> Line<B> {
    /// The right to send.
    pub fn sender(&mut self) -> &mut SendRequest<B> {
        &mut self.sender
    }

    /// Whether the connection can take the next request right now.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.sender.is_ready()
    }

    /// Remember through which gate the request on it came.
    pub fn carries(&self, gate: u64) {
        self.state.gate.set(gate);
        self.state.answered.set(false);
    }

    /// The answer is whole; the rest of the request may still be on its way. Without this, dropping the line
    /// ends the connection at once.
    pub fn answered(&self) {
        self.state.answered.set(true);
    }

    /// What it carries is a stream now: [`Connections::cut`] does not end it.
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
