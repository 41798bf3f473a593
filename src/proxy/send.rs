//! Step 5 of a request: a connection, the request on it, and the wait for the head of the answer.

use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant as StdInstant;

use http::header::UPGRADE;
use http::{Method, Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use tokio::time::Instant;

use super::deadline::Deadline;
use super::error::ProxyError;
use super::exchange::Exchange;
use super::fit::{Spare, fit, not_begun};
use super::retry::{BodyState, Failed, kind_of};
use super::seen::Seen;
use super::upgrade;
use super::upload::{RequestBody, Upload};
use super::worker::Worker;
use crate::config::Protocol;
use crate::routing::Lane;
use crate::tls::Offer;
use crate::upstream::{ConnectError, Endpoint, Line, LineState, Sent, Whose};
use crate::wire::preamble::Ends;

/// How often a request that was never sent goes out again: pooled connections may all have died at once.
const RESENDS: u32 = 8;

/// Why there is no answer, and what is left of the request.
pub(super) struct Unanswered {
    pub(super) error: ProxyError,
    pub(super) failed: Failed,
    /// Its body, if nothing of it was sent.
    pub(super) body: Option<RequestBody>,
}

impl Unanswered {
    /// What is left of the body of a request that `had` one.
    pub(super) fn body_state(&self, had: bool) -> BodyState {
        match (had, &self.body) {
            (false, _) => BodyState::None,
            (true, Some(_)) => BodyState::Whole,
            (true, None) => BodyState::Begun,
        }
    }
}

impl From<ProxyError> for Unanswered {
    fn from(error: ProxyError) -> Self {
        Self {
            error,
            failed: kind_of(error),
            body: None,
        }
    }
}

/// Step 5. What was never sent, or not begun by the word of the app, is sent again on another connection to
/// the same endpoint; anything else is the caller's. With the answer to a wish to switch protocols comes the connection's
/// inheritance.
pub(super) async fn send(
    worker: &Rc<Worker>,
    exchange: &Exchange,
    lane: &Lane,
    line: &mut Line<RequestBody>,
    request: &mut Option<Request<RequestBody>>,
    upload: Option<&Upload>,
) -> Result<(Response<Incoming>, Option<upgrade::Inheritance>), Unanswered> {
    let mut resends = 0;
    while let Some(message) = request.as_mut() {
        let method = message.method().clone();
        // Of what came with `Upgrade` not all still has it.
        let asks = exchange.seen().has(Seen::UPGRADE) && message.headers().contains_key(UPGRADE);
        exchange.with_claim(|claim| line.carries(claim.gate()));
        fit(message, line)?;
        let freed = (asks && !line.is_http2()).then(|| line.inherit());
        let stream = line.stream().map(Rc::clone);
        let spare = stream.as_ref().and_then(|_| Spare::of(message)).map(Box::new);
        if let (Some(upload), true) = (upload, stream.is_some()) {
            upload.is_shared();
        }
        let Some(message) = request.take() else { break };
        let sent = pin!(line.send(message));
        let again = match answer_in_time(sent, stream.as_deref(), exchange, lane, upload).await {
            Ok(answer) => {
                exchange.with_claim(|claim| answered(claim.endpoint()));
                return Ok((answer, freed));
            }
            Err(NoAnswer::NeverSent(again)) => *again,
            Err(NoAnswer::NotBegun(error)) => match spare {
                Some(spare) => spare.request(),
                None => return Err(given_up(upload, error).into()),
            },
            Err(NoAnswer::Failed(error)) if line.was_cut() && error == ProxyError::Reset => {
                return Err(given_up(upload, ProxyError::DrainExpired).into());
            }
            Err(NoAnswer::Failed(error)) => {
                // A status is never a failure, and nor is what the client or the operator did.
                if matches!(error, ProxyError::Reset | ProxyError::FirstByteTimeout) {
                    exchange.with_claim(|claim| failed(lane, claim.endpoint()));
                }
                return Err(given_up(upload, error).into());
            }
        };
        // An app that closes every connection at once would be dialled for ever.
        if resends == RESENDS {
            return Err(unsent(ProxyError::Reset, again));
        }
        resends += 1;
        exchange.retried();
        let repeat = may_repeat(&method, again.body());
        *request = Some(again);
        match line_for(worker, exchange, lane, StdInstant::now(), repeat, asks).await {
            Ok(other) => *line = other,
            Err(error) => {
                return Err(Unanswered {
                    error: connect_error(&error),
                    failed: Failed::Unsent,
                    body: request.take().map(Request::into_body),
                });
            }
        }
    }
    // Not reached: whoever calls has a request.
    Err(ProxyError::Reset.into())
}

/// No more of the request's body is read.
fn given_up(upload: Option<&Upload>, error: ProxyError) -> ProxyError {
    if let Some(upload) = upload {
        upload.abort(error);
    }
    error
}

/// The endpoint has failed a request: at the breaker's limit that is the last for a while.
fn failed(lane: &Lane, endpoint: &Endpoint) {
    if lane.failed(endpoint) {
        let key = &endpoint.key;
        let (failures, pause) = (lane.settings.balance.failures, lane.settings.balance.ejected);
        tracing::warn!(app = key.app, service = key.service, color = %key.color, endpoint = endpoint.label,
            failures, ?pause, "an endpoint that fails requests is left alone; the others take its share");
        endpoint.ring();
    }
}

/// The endpoint has answered: if it was left alone, that is over.
fn answered(endpoint: &Endpoint) {
    if endpoint.breaker.answered() {
        let key = &endpoint.key;
        tracing::info!(app = key.app, service = key.service, color = %key.color, endpoint = endpoint.label,
            "an endpoint that was left alone answers again");
        endpoint.ring();
    }
}

fn unsent(error: ProxyError, request: Request<RequestBody>) -> Unanswered {
    Unanswered {
        error,
        failed: Failed::Unsent,
        body: Some(request.into_body()),
    }
}

/// Whether sending a request twice by accident does no harm (RFC 9110 §9.2.2), and its body is not a stream.
pub(super) fn may_repeat(method: &Method, body: &impl Body) -> bool {
    body.is_end_stream() && method.is_idempotent()
}

/// A connection to the endpoint that the request has claimed; `now` may be read a moment ago, not before a wait.
pub(super) async fn line_for(
    worker: &Rc<Worker>,
    exchange: &Exchange,
    lane: &Lane,
    now: StdInstant,
    may_repeat: bool,
    switches: bool,
) -> Result<Line<RequestBody>, ConnectError> {
    let Some(endpoint) = exchange.with_claim(|claim| Arc::clone(claim.endpoint())) else {
        return Err(ConnectError::Io(std::io::Error::other("no endpoint claimed")));
    };
    let client = || exchange.client().addresses();
    line_to(worker, &endpoint, lane, client, now, may_repeat, switches).await
}

/// A connection to an endpoint: a kept one, or a new one. `client` says whose it is, where that has to be told.
pub(super) async fn line_to(
    worker: &Rc<Worker>,
    endpoint: &Arc<Endpoint>,
    lane: &Lane,
    client: impl FnOnce() -> Option<Ends>,
    now: StdInstant,
    may_repeat: bool,
    switches: bool,
) -> Result<Line<RequestBody>, ConnectError> {
    let key = &endpoint.key;
    let tells = key.preamble.is_some();
    let whose = if tells {
        Whose::Client(client())
    } else {
        Whose::Anybody
    };
    // What wants to switch protocols needs HTTP/1.1 and a connection of its own, where that can be had; and so does
    // what goes over a connection that names its client.
    let offer = if (switches && key.address.protocol == Protocol::Https) || tells {
        Offer::Http1
    } else {
        Offer::All
    };
    if let Some(line) = worker
        .connections
        .take(endpoint.id, whose, now, !may_repeat, offer)
    {
        return Ok(line);
    }
    let settings = &lane.settings;
    // Boxed: almost every request finds a connection, and none must carry the room of a handshake with it.
    let opening = worker
        .connections
        .open(endpoint, whose, &settings.timeouts, &settings.limits, offer);
    let opened = Box::pin(opening).await;
    match &opened {
        Ok(_) => endpoint.connected(),
        Err(error) if error.is_our_own() => {
            worker.say_rarely(|| tracing::error!(%error, "cannot connect to apps"));
        }
        Err(error) => {
            endpoint.connect_failed();
            failed(lane, endpoint);
            tracing::debug!(endpoint = %endpoint.key.target, %error, "connect failed");
            if matches!(error, ConnectError::Tls(_)) {
                let key = &endpoint.key;
                worker.say_rarely(|| {
                    tracing::warn!(app = key.app, service = key.service, color = %key.color,
                        endpoint = %key.address, %error, "no TLS with an endpoint");
                });
            }
        }
    }
    opened
}

pub(super) fn connect_error(error: &ConnectError) -> ProxyError {
    match error {
        error if error.is_our_own() => ProxyError::Exhausted,
        ConnectError::Timeout(_) | ConnectError::TlsTimeout(_) => ProxyError::ConnectTimeout,
        ConnectError::Tls(_) => ProxyError::TlsFailed,
        ConnectError::Descriptors | ConnectError::Io(_) | ConnectError::Handshake(_) => {
            ProxyError::ConnectFailed
        }
    }
}

/// Why there is no answer.
enum NoAnswer {
    /// Not a byte was sent: here is the request again.
    NeverSent(Box<Request<RequestBody>>),
    /// It was sent, but the app has not begun with it, it says; what else it is.
    NotBegun(ProxyError),
    /// Anything else.
    Failed(ProxyError),
}

/// Wait for the answer's head, from the last that moved of the request.
async fn answer_in_time(
    mut sent: Pin<&mut impl Future<Output = Sent<RequestBody>>>,
    stream: Option<&LineState>,
    exchange: &Exchange,
    lane: &Lane,
    upload: Option<&Upload>,
) -> Result<Response<Incoming>, NoAnswer> {
    let begun = Instant::now();
    let patience = lane.settings.timeouts.first_byte;
    let deadline = exchange.call().and_then(|call| call.deadline);
    let mut own = None;
    let mut poll_timer = |cx: &mut Context<'_>, end| {
        if !exchange.client().is_http2() {
            return exchange.client().poll_timer(cx, end);
        }
        own.get_or_insert_with(|| Deadline::new(end)).poll(cx, end)
    };
    let answered = std::future::poll_fn(|cx| {
        if let Poll::Ready(answered) = sent.as_mut().poll(cx) {
            return Poll::Ready(Some(answered));
        }
        // Dropping what waits for it resets the stream.
        if stream.is_some_and(|stream| stream.poll_cut(cx).is_ready()) {
            return Poll::Ready(None);
        }
        let moved = upload.map_or(begun, |upload| upload.progress().max(begun));
        poll_timer(cx, deadline.unwrap_or(moved + patience)).map(|()| None)
    })
    .await;
    match answered {
        Some(Ok(answer)) => Ok(answer),
        None if stream.is_some_and(LineState::is_cut) => Err(NoAnswer::Failed(ProxyError::DrainExpired)),
        None => Err(NoAnswer::Failed(ProxyError::FirstByteTimeout)),
        Some(Err(mut error)) => Err(match error.take_message() {
            Some(request) => NoAnswer::NeverSent(Box::new(request)),
            None if not_begun(error.error()) => NoAnswer::NotBegun(why_unanswered(error.error(), upload)),
            None => NoAnswer::Failed(why_unanswered(error.error(), upload)),
        }),
    }
}

fn why_unanswered(error: &hyper::Error, upload: Option<&Upload>) -> ProxyError {
    if let Some(error) = upload.and_then(Upload::error) {
        return error;
    }
    if crate::tls::refusal(error).is_some() {
        return ProxyError::TlsFailed;
    }
    if error.is_parse() || error.is_parse_status() {
        ProxyError::BadAnswer
    } else {
        ProxyError::Reset
    }
}
