//! Answers on their way through: streamed, never gathered, with the request's account held to the last byte.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
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
use super::upload::{BodyError, RequestBody, Upload};
use super::worker::Worker;
use crate::config::Timeouts;
use crate::upstream::Line;

/// Why a body that nobody sends any more of is given up.
const IDLE: &str = "upstream idle timeout";
/// The most of an answer that HTTP/2 gets at once. A client that has no room for so much within
/// `client_idle_timeout` is let go.
const PIECE: usize = 32 * 1024;

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
    failed: bool,
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
            failed: false,
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
            && !std::mem::replace(&mut self.failed, true)
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
