//! Requests' bodies on their way to the app, and the watch on them.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::Instant;

use super::deadline::Deadline;
use super::error::ProxyError;
use super::exchange::Exchange;
use super::headers::prepare_trailers;
use super::primed::{Primed, first_frame, with_primed};

/// A request's body on its way to the app. Boxed: most requests have none, and each is moved a dozen times.
pub(super) struct RequestBody(Option<Box<Carried>>);

struct Carried {
    /// `None` for a copy, which has all there is of it in `primed`.
    inner: Option<Incoming>,
    primed: Option<Primed>,
    watched: Option<Rc<Upload>>,
    idle: Option<Deadline>,
    waiting_since: Option<Instant>,
}

/// What the request's path wants to know of its body while the app's connection has it.
pub(super) struct Upload {
    /// Held to the last byte of the body.
    exchange: RefCell<Option<Rc<Exchange>>>,
    limit: u64,
    seen: Cell<u64>,
    timeout: Duration,
    error: Cell<Option<ProxyError>>,
    ended: Cell<bool>,
    progress: Cell<Instant>,
    is_http2: bool,
    /// It goes out as a stream among others: whoever reads it must be told when it is given up.
    shared: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

/// A body could not be read to its end.
#[derive(Debug)]
pub(super) struct BodyError(pub(super) &'static str);

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for BodyError {}

impl Upload {
    /// Watch a body of at most `limit` bytes (0 = unlimited), with `timeout` between two reads.
    pub(super) fn new(exchange: &Rc<Exchange>, limit: u64, timeout: Duration) -> Rc<Self> {
        Rc::new(Self {
            exchange: RefCell::new(Some(Rc::clone(exchange))),
            limit,
            seen: Cell::new(0),
            timeout,
            error: Cell::new(None),
            ended: Cell::new(false),
            progress: Cell::new(Instant::now()),
            is_http2: exchange.serving().stream().is_some(),
            shared: Cell::new(false),
            waker: RefCell::new(None),
        })
    }

    /// Why the body could not be read to its end, if that is so.
    pub(super) fn error(&self) -> Option<ProxyError> {
        self.error.get()
    }

    /// When it last moved, or ended.
    pub(super) fn progress(&self) -> Instant {
        self.progress.get()
    }

    /// No more of it is read.
    pub(super) fn has_ended(&self) -> bool {
        self.ended.get()
    }

    /// It goes out over HTTP/2.
    pub(super) fn is_shared(&self) {
        self.shared.set(true);
    }

    /// Nobody wants the rest: a stream of HTTP/2 is reset, if the body is not through.
    pub(super) fn abort(&self, error: ProxyError) {
        if self.ended.get() {
            return;
        }
        self.fail(error);
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }

    fn wakes(&self, cx: &Context<'_>) {
        if self.shared.get() {
            *self.waker.borrow_mut() = Some(cx.waker().clone());
        }
    }

    fn end(&self) {
        self.ended.set(true);
        self.progress.set(Instant::now());
        if let Some(exchange) = self.exchange.borrow_mut().take() {
            exchange.uploaded();
        }
    }

    fn fail(&self, error: ProxyError) -> BodyError {
        if self.error.get().is_none() {
            self.error.set(Some(error));
        }
        self.end();
        BodyError(error.as_str())
    }

    fn take(&self, frame: &Frame<Bytes>) -> Result<(), BodyError> {
        let Some(data) = frame.data_ref() else {
            // hyper ends trailers at CRLF CRLF; what a lone LF among them has ended for others is lost in them.
            if let Some(exchange) = self.exchange.borrow().as_ref() {
                exchange.client().ends_here();
            }
            return Ok(());
        };
        let bytes = data.len() as u64;
        self.seen.set(self.seen.get() + bytes);
        self.progress.set(Instant::now());
        if let Some(exchange) = self.exchange.borrow().as_ref() {
            exchange.received(bytes);
        }
        if self.limit > 0 && self.seen.get() > self.limit {
            return Err(self.fail(ProxyError::BodyTooLarge));
        }
        Ok(())
    }
}

impl RequestBody {
    /// A body to pass on.
    pub(super) fn new(inner: Incoming) -> Self {
        if inner.is_end_stream() {
            return Self::none();
        }
        Self::of(Some(inner), None, None)
    }

    /// No body.
    pub(super) fn none() -> Self {
        Self(None)
    }

    fn of(inner: Option<Incoming>, primed: Option<Primed>, watched: Option<Rc<Upload>>) -> Self {
        Self(Some(Box::new(Carried {
            inner,
            primed,
            watched,
            idle: None,
            waiting_since: None,
        })))
    }

    /// Who watches it; nobody when it is empty.
    pub(super) fn is_watched_by(&mut self, watched: Option<Rc<Upload>>) {
        if let Some(carried) = &mut self.0 {
            carried.watched = watched;
        }
    }

    /// Take what has come of the body already, so that a small one leaves in the same write as its head.
    pub(super) async fn prime(&mut self) {
        let Some(carried) = &mut self.0 else { return };
        let (None, Some(inner)) = (&carried.primed, &mut carried.inner) else {
            return;
        };
        carried.primed = first_frame(inner).await;
        if let (Some(watched), Some(Ok(frame))) = (&carried.watched, &carried.primed) {
            // A body over its limit is refused when the frame is taken out below.
            let _ = watched.take(frame);
        }
    }

    /// The same body once more, if all there is of it has come.
    pub(super) fn copy(&self) -> Option<Self> {
        let Some(carried) = &self.0 else {
            return Some(Self::none());
        };
        if !carried.has_ended() {
            return None;
        }
        let primed = match &carried.primed {
            None => None,
            Some(Ok(frame)) => Some(Ok(Frame::data(frame.data_ref()?.clone()))),
            Some(Err(_)) => return None,
        };
        Some(Self::of(None, primed, carried.watched.clone()))
    }
}

impl Carried {
    /// Whether nothing comes behind what is here.
    fn has_ended(&self) -> bool {
        self.inner.as_ref().is_none_or(Incoming::is_end_stream)
    }

    fn poll_idle(&mut self, cx: &mut Context<'_>, watched: &Upload) -> Poll<BodyError> {
        watched.wakes(cx);
        let since = *self.waiting_since.get_or_insert_with(Instant::now);
        let end = since + watched.timeout;
        let timer = self.idle.get_or_insert_with(|| Deadline::new(end));
        timer
            .poll(cx, end)
            .map(|()| watched.fail(ProxyError::BodyTimeout))
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Some(watched) = self.watched.clone() else {
            let Some(inner) = &mut self.inner else {
                return Poll::Ready(None);
            };
            return Pin::new(inner)
                .poll_frame(cx)
                .map_err(|_| BodyError("client went away"));
        };
        if let Some(error) = watched.error() {
            return Poll::Ready(Some(Err(BodyError(error.as_str()))));
        }
        if let Some(primed) = self.primed.take() {
            let Ok(frame) = primed else {
                return Poll::Ready(Some(Err(watched.fail(ProxyError::ClientGone))));
            };
            if self.has_ended() {
                watched.end();
            }
            return Poll::Ready(Some(Ok(frame)));
        }
        let Some(inner) = &mut self.inner else {
            return Poll::Ready(None);
        };
        let Poll::Ready(polled) = Pin::new(inner).poll_frame(cx) else {
            return self.poll_idle(cx, &watched).map(|error| Some(Err(error)));
        };
        self.waiting_since = None;
        Poll::Ready(match polled {
            Some(Ok(mut frame)) => Some(watched.take(&frame).map(|()| {
                if let Some(trailers) = frame.trailers_mut() {
                    prepare_trailers(trailers);
                }
                if self.has_ended() {
                    watched.end();
                }
                frame
            })),
            Some(Err(_)) => Some(Err(watched.fail(ProxyError::ClientGone))),
            // A client may reset a stream for no error, and hyper then says that the body is over: it is not whole.
            None if watched.is_http2 && !self.has_ended() => Some(Err(watched.fail(ProxyError::ClientGone))),
            None => {
                watched.end();
                None
            }
        })
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.0
            .as_mut()
            .map_or(Poll::Ready(None), |carried| carried.poll_frame(cx))
    }

    fn is_end_stream(&self) -> bool {
        self.0
            .as_ref()
            .is_none_or(|carried| carried.primed.is_none() && carried.has_ended())
    }

    fn size_hint(&self) -> SizeHint {
        let Some(carried) = &self.0 else {
            return SizeHint::with_exact(0);
        };
        let rest = carried.inner.as_ref();
        with_primed(
            rest.map_or(SizeHint::with_exact(0), Body::size_hint),
            carried.primed.as_ref(),
        )
    }
}

impl Drop for Carried {
    fn drop(&mut self) {
        if let Some(watched) = &self.watched {
            watched.end();
        }
    }
}
