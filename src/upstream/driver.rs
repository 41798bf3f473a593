//! Who drives a connection to an app: a task of its own, or the request that reads a long answer from it.
//!
//! hyper's side of an HTTP/1 connection is a future. Its task sends requests and reads the heads of answers, many in
//! turn, which is what the processor's caches like best. A long body is another thing: each piece of it would be handed
//! over from one task to another, with a wake-up there and one back. So whoever reads such a body polls the connection
//! itself, is woken by the socket, and finds each piece where it has just put it: a fifth of what 256 KiB cost.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Wake, Waker};

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use http_body::{Body, Frame};
use hyper::body::Incoming;
use hyper::client::conn::http1::Connection;

use super::line::Freed;
use crate::tls::Transport;
use crate::wire::Io;

/// hyper's side of one HTTP/1 connection.
pub(super) struct Driver {
    /// `None` once its task has ended.
    connection: RefCell<Option<Box<dyn Hyper>>>,
    /// Whether it has come to its end, and well.
    ended: Cell<Option<bool>>,
    tender: Arc<Tender>,
    /// `tender`, as what is polled wants it.
    waker: Waker,
}

/// Wakes whoever drives the connection. It is the only waker that the connection ever sees: to drive it in turn costs no
/// registering anew. Of one thread; atomics only because a waker must be `Send`.
#[derive(Default)]
struct Tender {
    /// A request drives it, and not its task.
    driven: AtomicBool,
    /// Who drives it is about to look again.
    hushed: AtomicBool,
    /// Woken since it was polled last.
    woken: AtomicBool,
    request: AtomicWaker,
    task: OnceLock<Waker>,
}

impl Wake for Tender {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.woken.store(true, Relaxed);
        if self.hushed.load(Relaxed) {
            return;
        }
        if self.driven.load(Relaxed) {
            self.request.wake();
        } else {
            self.wake_task();
        }
    }
}

impl Tender {
    fn wake_task(&self) {
        // Not polled once yet: it is about to be.
        if let Some(task) = self.task.get() {
            task.wake_by_ref();
        }
    }

    /// Whoever drives the connection does what would wake them to drive it: they will without.
    fn hush<T>(&self, does: impl FnOnce() -> T) -> T {
        self.hushed.store(true, Relaxed);
        let done = does();
        self.hushed.store(false, Relaxed);
        done
    }
}

/// A connection, whatever the bodies of its requests are.
trait Hyper {
    /// Whether it has come to its end, and well.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<bool>;

    fn freed(self: Box<Self>) -> Freed;
}

impl<B> Hyper for Connection<Io<Transport>, B>
where
    B: Body + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        // Its error reaches whoever waits for an answer on it; here it only ends.
        Future::poll(Pin::new(self), cx).map(|ended| ended.is_ok())
    }

    fn freed(self: Box<Self>) -> Freed {
        let parts = self.into_parts();
        (parts.io.into_inner(), parts.read_buf)
    }
}

impl Driver {
    pub(super) fn new<B>(connection: Connection<Io<Transport>, B>) -> Rc<Self>
    where
        B: Body + 'static,
        B::Data: Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let tender = Arc::<Tender>::default();
        Rc::new(Self {
            connection: RefCell::new(Some(Box::new(connection))),
            ended: Cell::new(None),
            waker: Waker::from(Arc::clone(&tender)),
            tender,
        })
    }

    /// The task of the connection, until its end; with the stream, if that is well. When the task is dropped, so is
    /// the connection.
    pub(super) fn tend(self: &Rc<Self>) -> impl Future<Output = Option<Freed>> + use<> {
        let tending = Tending(Rc::clone(self));
        async move {
            let driver = &tending.0;
            let well = std::future::poll_fn(|cx| driver.poll_tended(cx)).await;
            let connection = driver.connection.take();
            connection.filter(|_| well).map(Hyper::freed)
        }
    }

    fn poll_tended(&self, cx: &mut Context<'_>) -> Poll<bool> {
        self.tender.task.get_or_init(|| cx.waker().clone());
        if self.is_driven() {
            return self.ended.get().map_or(Poll::Pending, Poll::Ready);
        }
        self.poll()
    }

    /// From now on whoever reads the answer's body drives it. They must read it, or let it rest: nobody else does.
    pub(super) fn take(&self) {
        self.tender.driven.store(true, Relaxed);
    }

    /// No request drives it any more: its task does.
    pub(super) fn rest(&self) {
        if self.tender.driven.swap(false, Relaxed) && self.tender.woken.load(Relaxed) {
            self.tender.wake_task();
        }
    }

    fn drive(&self, cx: &Context<'_>) {
        self.tender.request.register(cx.waker());
        if self.poll().is_ready() {
            self.tender.wake_task();
        }
    }

    fn poll(&self) -> Poll<bool> {
        if let Some(well) = self.ended.get() {
            return Poll::Ready(well);
        }
        let mut slot = self.connection.borrow_mut();
        let Some(connection) = slot.as_mut() else {
            return Poll::Ready(false);
        };
        self.tender.woken.store(false, Relaxed);
        let polled = connection.poll(&mut Context::from_waker(&self.waker));
        if let Poll::Ready(well) = polled {
            self.ended.set(Some(well));
        }
        polled
    }

    /// The next frame of an answer's body.
    pub(super) fn poll_body(
        &self,
        body: &mut Incoming,
        cx: &mut Context<'_>,
    ) -> Poll<Option<hyper::Result<Frame<Bytes>>>> {
        if !self.is_driven() {
            return Pin::new(body).poll_frame(cx);
        }
        if let Poll::Ready(frame) = self.poll_quietly(body) {
            return Poll::Ready(frame);
        }
        self.drive(cx);
        self.poll_quietly(body)
    }

    /// Whoever reads it drives the connection: neither has to wake the other.
    fn poll_quietly(&self, body: &mut Incoming) -> Poll<Option<hyper::Result<Frame<Bytes>>>> {
        let mut quietly = Context::from_waker(Waker::noop());
        self.tender.hush(|| Pin::new(body).poll_frame(&mut quietly))
    }

    /// Whether a request drives it.
    fn is_driven(&self) -> bool {
        self.tender.driven.load(Relaxed)
    }

    /// Whether it has come to its end.
    pub(super) fn has_ended(&self) -> bool {
        self.ended.get().is_some()
    }
}

/// The task's hold on a connection.
struct Tending(Rc<Driver>);

impl Drop for Tending {
    fn drop(&mut self) {
        let driver = &self.0;
        driver.ended.set(Some(driver.ended.get().unwrap_or(false)));
        // Whoever waits for something of it is told by this.
        drop(driver.connection.take());
        driver.tender.request.wake();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Relaxed);
        }
    }

    #[test]
    fn whoever_drives_is_woken_and_nobody_else() {
        let (task, request) = (Arc::<Count>::default(), Arc::<Count>::default());
        let counts = || (task.0.load(Relaxed), request.0.load(Relaxed));
        let tender = Arc::<Tender>::default();
        let waker = Waker::from(Arc::clone(&tender));
        waker.wake_by_ref();
        assert!(tender.task.set(Waker::from(Arc::clone(&task))).is_ok());
        tender.request.register(&Waker::from(Arc::clone(&request)));
        assert_eq!(counts(), (0, 0));
        waker.wake_by_ref();
        assert_eq!(counts(), (1, 0), "its task, as long as no request drives it");
        tender.driven.store(true, Relaxed);
        tender.hush(|| waker.wake_by_ref());
        assert_eq!(
            counts(),
            (1, 0),
            "who drives it needs no waking for what they do themselves"
        );
        waker.wake_by_ref();
        assert_eq!(counts(), (1, 1));
        tender.driven.store(false, Relaxed);
        waker.wake_by_ref();
        assert_eq!(counts(), (2, 1));
    }
}
