//! Bodies on their way through: streamed, never gathered, with the request's account held to the last byte.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::Instant;

use super::deadline::Deadline;
use super::error::ProxyError;
use super::exchange::{CUT_BY_CLIENT, ENDED_BY_POLICY, Exchange};
use super::grpc::{self, Call, Code};
use super::headers::prepare_trailers;
use super::primed::{Primed, first_frame, primed_bytes, with_primed};
use super::sse::{Events, Wish};
use super::worker::Worker;
use crate::config::Timeouts;
use crate::upstream::Line;

/// Why a body that nobody sends any more of is given up.
const IDLE: &str = "upstream idle timeout";
/// The most of an answer that HTTP/2 gets at once. A client that has no room for so much within
/// `client_idle_timeout` is let go.
const PIECE: usize = 32 * 1024;

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
pub(super) struct BodyError(&'static str);

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

/// An answer's body on its way to the client.
pub(super) struct ReplyBody(Reply);

enum Reply {
    /// The proxy's own words.
    Own(Option<Bytes>, Option<Rc<Exchange>>),
    /// The app's.
    Upstream(Box<Download>),
}

struct Download {
    inner: Incoming,
    primed: Option<Primed>,
    /// What is left of a frame that goes out in pieces.
    rest: Bytes,
    /// It is an event stream. Stands before the exchange, because it goes before it: see [`Claim::mark_stream`].
    ///
    /// [`Claim::mark_stream`]: crate::upstream::Claim::mark_stream
    events: Option<Box<Events>>,
    exchange: Rc<Exchange>,
    worker: Rc<Worker>,
    line: Option<Line<RequestBody>>,
    /// The request's body, where it must be told that nobody wants the rest: over HTTP/2.
    upload: Option<Rc<Upload>>,
    /// It answers a gRPC call, in gRPC.
    call: Option<Call>,
    keep: Duration,
    idle: Duration,
    timer: Option<Deadline>,
    waiting_since: Option<Instant>,
    /// The app's side has failed.
    broken: bool,
    done: bool,
}

impl ReplyBody {
    /// No body at all, and no account held: what follows a 101 is no body.
    pub(super) fn none() -> Self {
        Self(Reply::Own(None, None))
    }

    /// The proxy's own words.
    pub(super) fn own(text: Bytes) -> Self {
        Self(Reply::Own(Some(text), None))
    }

    /// Hold the request's account until the words are through.
    pub(super) fn accounted(mut self, exchange: &Rc<Exchange>) -> Self {
        if let Reply::Own(_, held) = &mut self.0 {
            *held = Some(Rc::clone(exchange));
        }
        self
    }

    /// The app's answer. What has come of it already is taken along, so that a small answer leaves in one write
    /// with its head.
    pub(super) async fn upstream(
        mut inner: Incoming,
        exchange: Rc<Exchange>,
        worker: Rc<Worker>,
        line: Line<RequestBody>,
        timeouts: &Timeouts,
        events: Option<Box<Events>>,
        upload: Option<Rc<Upload>>,
    ) -> Self {
        let call = events.as_ref().and_then(|events| events.call(&exchange));
        let sent = upload.as_ref().is_none_or(|upload| upload.has_ended());
        let upload = upload.filter(|_| line.is_http2());
        let primed = first_frame(&mut inner).await;
        if sent && !inner.is_end_stream() {
            line.take();
        }
        exchange.sent(primed_bytes(primed.as_ref()));
        let download = Download {
            inner,
            primed,
            rest: Bytes::new(),
            exchange,
            worker,
            line: Some(line),
            upload,
            call,
            keep: timeouts.upstream_idle,
            idle: timeouts.idle,
            timer: None,
            waiting_since: None,
            events,
            broken: false,
            done: false,
        };
        Self(Reply::Upstream(Box::new(download)))
    }
}

impl Download {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.events.as_mut().map(|events| events.poll_wish(cx)) {
            None | Some(Wish::Go) => {}
            Some(Wish::End) => {
                // A clean end for the client; the app sees its connection go.
                self.exchange.cut(ENDED_BY_POLICY);
                self.give_up(ProxyError::DrainExpired);
                let trailers = || grpc::trailers(Code::Unavailable, "the app has moved: call again");
                return Poll::Ready(self.call.map(|_| Ok(Frame::trailers(trailers()))));
            }
            Some(Wish::Cut) => return Poll::Ready(Some(self.fails("stream deadline over"))),
        }
        let stream = self.line.as_ref().and_then(Line::stream);
        if stream.is_some_and(|stream| stream.poll_cut(cx).is_ready()) {
            return Poll::Ready(Some(self.fails("drain time over")));
        }
        let polled = match self.primed.take() {
            Some(primed) => Poll::Ready(Some(primed)),
            None => self.poll_inner(cx),
        };
        let Poll::Ready(polled) = polled else {
            ready!(self.poll_idle(cx));
            return Poll::Ready(Some(self.fails(IDLE)));
        };
        if let Some(Err(_)) = &polled
            && !std::mem::replace(&mut self.broken, true)
        {
            // hyper throws away what it has not written yet: let it write what came before.
            self.primed = polled;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.waiting_since = None;
        match polled {
            Some(Ok(mut frame)) => {
                if let Some(trailers) = frame.trailers_mut() {
                    prepare_trailers(trailers);
                }
                self.finish_if_ended();
                Poll::Ready(Some(Ok(match &mut self.events {
                    None => frame,
                    Some(events) => frame.map_data(|data| events.pass(data)),
                })))
            }
            Some(Err(_)) => {
                let cut = self.line.as_ref().is_some_and(Line::was_cut);
                let why = if cut {
                    "drain time over"
                } else {
                    "upstream cut the answer short"
                };
                Poll::Ready(Some(self.fails(why)))
            }
            None => {
                self.finish();
                Poll::Ready(None)
            }
        }
    }

    /// The same for HTTP/2, in pieces: each that is asked for is a sign that the client takes some.
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(stream) = self.exchange.serving().stream() {
            stream.has_room();
        }
        if self.rest.is_empty() {
            match ready!(self.poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.rest = data,
                    Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                },
                other => return Poll::Ready(other),
            }
        }
        let piece = self.rest.split_to(self.rest.len().min(PIECE));
        if let Some(stream) = self.exchange.serving().stream() {
            stream.hands_out();
        }
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_over_http2(&self) -> bool {
        self.exchange.serving().stream().is_some()
    }

    fn poll_inner(&mut self, cx: &mut Context<'_>) -> Poll<Option<Primed>> {
        let polled = match &self.line {
            Some(line) => line.poll_body(&mut self.inner, cx),
            None => Pin::new(&mut self.inner).poll_frame(cx),
        };
        if let Poll::Ready(Some(Ok(frame))) = &polled
            && let Some(data) = frame.data_ref()
        {
            self.exchange.sent(data.len() as u64);
        }
        polled
    }

    fn poll_idle(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let since = *self.waiting_since.get_or_insert_with(Instant::now);
        let end = match self.call {
            None => since + self.idle,
            Some(Call { deadline: Some(at) }) => at,
            // On a call either side may be the one that speaks.
            Some(_) => {
                self.upload
                    .as_ref()
                    .map_or(since, |upload| upload.progress().max(since))
                    + self.idle
            }
        };
        self.timer.get_or_insert_with(|| Deadline::new(end)).poll(cx, end)
    }

    /// An error ends the client's connection too, so that a cut answer is never taken for a whole one.
    fn broken(&mut self, why: &'static str) -> BodyError {
        self.exchange.cut(why);
        self.give_up(ProxyError::Reset);
        BodyError(why)
    }

    /// The same; but a call can say in its own words that it has failed, and is not taken for whole.
    fn fails(&mut self, why: &'static str) -> Result<Frame<Bytes>, BodyError> {
        let error = self.broken(why);
        if self.call.is_none() {
            return Err(error);
        }
        let code = if why == IDLE {
            Code::DeadlineExceeded
        } else {
            Code::Unavailable
        };
        Ok(Frame::trailers(grpc::trailers(code, why)))
    }

    /// Nobody wants the rest, neither of the answer nor of the request.
    fn give_up(&mut self, why: ProxyError) {
        self.done = true;
        self.line = None;
        if let Some(upload) = self.upload.take() {
            upload.abort(why);
        }
    }

    fn finish_if_ended(&mut self) {
        if self.inner.is_end_stream() {
            self.finish();
        }
    }

    /// The answer is whole: its connection can carry the next one.
    fn finish(&mut self) {
        self.done = true;
        let now = self.exchange.ends();
        let Some(line) = self.line.take() else { return };
        self.worker.keep_line(line, now, self.keep);
    }
}

impl Drop for Download {
    fn drop(&mut self) {
        if self.done {
            return;
        }
        if self.primed.is_none() && self.inner.is_end_stream() {
            self.finish();
        } else {
            self.exchange.cut(CUT_BY_CLIENT);
            self.give_up(ProxyError::ClientGone);
        }
    }
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut self.0 {
            Reply::Own(text, exchange) => {
                let text = text.take();
                if let (Some(exchange), Some(text)) = (exchange, &text) {
                    exchange.sent(text.len() as u64);
                    if let Some(stream) = exchange.serving().stream() {
                        stream.hands_out();
                    }
                }
                Poll::Ready(text.map(|text| Ok(Frame::data(text))))
            }
            Reply::Upstream(download) if download.is_over_http2() => download.poll_piece(cx),
            Reply::Upstream(download) => download.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Reply::Own(text, _) => text.is_none(),
            Reply::Upstream(download) => {
                download.rest.is_empty() && download.primed.is_none() && download.inner.is_end_stream()
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Reply::Own(text, _) => SizeHint::with_exact(text.as_ref().map_or(0, |text| text.len() as u64)),
            Reply::Upstream(download) => with_primed(download.inner.size_hint(), download.primed.as_ref()),
        }
    }
}
