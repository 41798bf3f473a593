//! The request path.

use std::convert::Infallible;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant as StdInstant;

use http::header::{CONNECTION, EXPECT, HeaderValue, STRICT_TRANSPORT_SECURITY};
use http::{Request, Response, StatusCode, Version};
use http_body::Body;
use hyper::body::Incoming;

use super::beside::{Other, Wish};
use super::body::ReplyBody;
use super::error::ProxyError;
use super::exchange::Exchange;
use super::extended::Extended;
use super::headers::X_CUTOVER_VERIFY;
use super::heads::{carry, prepare, prime};
use super::origin::Origin;
use super::refusal::{Accepts, refuse};
use super::reply;
use super::retry::{BodyState, Spare, Tries, kind_of};
use super::seen::Seen;
use super::send::{connect_error, line_for, may_repeat, send};
use super::serving::Serving;
use super::target::{check_coding, check_head, settle_http2};
use super::upgrade;
use super::upload::{RequestBody, Upload};
use super::worker::{Proof, Worker};
use super::{grpc, hold, queue};
use crate::routing::{Asked, HoldQueue, HostBuffer, Lane, PickError, Special, Unavailable, choose};
use crate::upstream::{Claim, Line};

/// Serve one request: route, choose, claim, prepare, send, answer. Recording happens when the [`Exchange`] drops.
///
/// No `async fn`: the request would be in its future twice, whole and in parts.
pub(super) fn forward(
    worker: Rc<Worker>,
    serving: Serving,
    request: Request<Incoming>,
) -> impl Future<Output = Result<Response<ReplyBody>, Infallible>> {
    let (mut head, body) = request.into_parts();
    let mut body = RequestBody::new(body);
    let is_http2 = head.version == Version::HTTP_2;
    let settled = if is_http2 {
        let table = worker.shared.published.load();
        settle_http2(&mut head, table.edge.limits.header_count)
    } else {
        Ok(())
    };
    let exchange = Exchange::begin(&worker, serving, &head);
    async move {
        let was_http10 = head.version == Version::HTTP_10;
        let is_http1 = head.version <= Version::HTTP_11;
        // After a refusal it is the client's choice whether the body still comes (RFC 9110 §10.1.1): nothing may follow.
        let expects = !body.is_end_stream() && head.headers.contains_key(EXPECT);
        let front = Rc::clone(&exchange.client().front);
        let accepts = Accepts::of(&head.headers, exchange.seen());
        let own = settled
            .is_ok()
            .then(|| own_answer(&worker, &exchange, &head))
            .flatten();
        let mut closes = worker.stopping() || (expects && (front.redirect.is_some() || own.is_some()));
        let outcome = match (settled, own, front.redirect) {
            (Err(error), ..) => Err(error.into()),
            (Ok(()), Some(own), _) => Ok(own),
            (Ok(()), None, Some(status)) => redirect(status, &exchange, &head).map_err(Failure::from),
            (Ok(()), None, None) => attempt(&worker, &exchange, &mut head, &mut body).await,
        };
        let mut response = match outcome {
            Ok(response) => response,
            Err(Failure { error, message }) => {
                exchange.refused(error);
                closes |= expects;
                refuse(&exchange, error, message.as_deref(), &accepts)
            }
        };
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            return Ok(response);
        }
        closes |= is_http1 && exchange.client().is_last();
        if let Some(hsts) = &front.hsts {
            // Two would be none (RFC 6797 §8.1), and the app knows better what it wants.
            response
                .headers_mut()
                .entry(STRICT_TRANSPORT_SECURITY)
                .or_insert_with(|| hsts.clone());
        }
        if is_http2 {
            // No field says so there, and the connection stays.
            response.headers_mut().remove(CONNECTION);
            return Ok(response);
        }
        if closes {
            response
                .headers_mut()
                .insert(CONNECTION, HeaderValue::from_static("close"));
        }
        if !was_http10 {
            *response.version_mut() = Version::HTTP_11;
        }
        Ok(response)
    }
}

/// Why a request is answered by the proxy itself.
struct Failure {
    error: ProxyError,
    /// Words in place of the usual ones.
    message: Option<String>,
}

impl From<ProxyError> for Failure {
    fn from(error: ProxyError) -> Self {
        Self { error, message: None }
    }
}

/// Head and body stay where they are until they are sent: every future that they are handed to would keep room for
/// them.
async fn attempt(
    worker: &Rc<Worker>,
    exchange: &Rc<Exchange>,
    head: &mut http::request::Parts,
    body: &mut RequestBody,
) -> Result<Response<ReplyBody>, Failure> {
    note_origin(worker, exchange, head);
    let seen = exchange.seen();
    let proof = seen
        .has(Seen::VERIFY)
        .then(|| head.headers.remove(X_CUTOVER_VERIFY));
    let proof = worker.proof(proof.flatten().as_ref());
    let wanted = seen
        .has(Seen::UPGRADE)
        .then(|| upgrade::wanted(head, !body.is_end_stream()))
        .flatten();
    let extended = head.extensions.remove::<Extended>();
    let way = Way {
        worker,
        exchange,
        proof: proof.as_ref(),
        switches: wanted.is_some(),
    };
    let asked = ask(way, head, body, wanted.as_ref()).await?;
    let Answered { answer, sent_at, .. } = &asked;
    if !answer.body().is_end_stream() && check_coding(answer.headers()).is_err() {
        // Passed on without its coding it would be another body.
        return Err(ProxyError::BadAnswer.into());
    }
    exchange.answered(answer.status().as_u16(), sent_at.elapsed());
    if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
        let agreed = wanted.zip(asked.freed);
        let (client, lane) = (exchange.client(), &asked.lane);
        return Ok(upgrade::switched(worker, client, exchange, lane, agreed, extended, asked.answer).await?);
    }
    if extended.is_some() && answer.status().is_success() {
        // For an extended CONNECT this would be a tunnel, and the app speaks HTTP.
        return Err(ProxyError::BadAnswer.into());
    }
    let (lane, line, answer) = match asked.other {
        None => (asked.lane, asked.line, asked.answer),
        // Boxed: what is seldom must not make every request's future larger.
        Some(other) => {
            let first = (asked.lane, asked.line, asked.answer);
            Box::pin(other.answered(worker, exchange, first, asked.sent_at.elapsed())).await
        }
    };
    Ok(carry(
        worker,
        exchange,
        &lane,
        line,
        asked.upload,
        answer,
        proof.is_some(),
    )
    .await)
}

/// An app's answer, and through what it came.
struct Answered {
    lane: Arc<Lane>,
    line: Line<RequestBody>,
    answer: Response<Incoming>,
    /// The connection, should it be a switch of protocols.
    freed: Option<upgrade::Inheritance>,
    sent_at: StdInstant,
    upload: Option<Rc<Upload>>,
    /// The other color is asked as well.
    other: Option<Other>,
}

/// Send it, as often as it takes and may be.
async fn ask(
    way: Way<'_>,
    head: &mut http::request::Parts,
    body: &mut RequestBody,
    wanted: Option<&HeaderValue>,
) -> Result<Answered, Failure> {
    let Way { worker, exchange, .. } = way;
    let mut tries = Tries::default();
    let (mut lane, mut line) = reach(way, head, body, &mut tries).await?;
    let upload = (!body.is_end_stream()).then(|| watched(exchange, &lane));
    body.is_watched_by(upload.clone());
    let plain = upload.is_none() && wanted.is_none() && way.proof.is_none();
    let mut wish = Wish::of(worker, &lane, head, plain);
    let mut other = None;
    loop {
        let repeats = lane.settings.retry.attempts > 1 && wanted.is_none();
        let spare = repeats.then(|| Spare::of(head, &worker.spares));
        let is_chunked = prime(exchange, body).await;
        prepare(worker, exchange, &lane, head, is_chunked, wanted, &mut tries);
        let mut request = Some(request_of(head, body));
        if let (Some(wish), Some(request)) = (wish.take(), &request) {
            other = Some(wish.with(worker, exchange, &lane, request));
        }
        let sent_at = StdInstant::now();
        let failed = match send(
            worker,
            exchange,
            &lane,
            &mut line,
            &mut request,
            upload.as_deref(),
        )
        .await
        {
            Ok((answer, freed)) => {
                return Ok(Answered {
                    lane,
                    line,
                    answer,
                    freed,
                    sent_at,
                    upload,
                    other,
                });
            }
            Err(failed) => failed,
        };
        let state = failed.body_state(upload.is_some());
        let again = spare.filter(|spare| {
            let what = (failed.failed, spare.method(), state);
            tries.once_more(worker, exchange, &lane, what)
        });
        *head = again.ok_or(failed.error)?.into_head();
        *body = failed.body.unwrap_or_else(RequestBody::none);
        (lane, line) = reach(way, head, body, &mut tries).await?;
    }
}

/// Head and body taken from where they were.
fn request_of(head: &mut http::request::Parts, body: &mut RequestBody) -> Request<RequestBody> {
    let (empty, body) = Request::new(std::mem::replace(body, RequestBody::none())).into_parts();
    Request::from_parts(std::mem::replace(head, empty), body)
}

/// The watch on a request's body.
fn watched(exchange: &Rc<Exchange>, lane: &Lane) -> Rc<Upload> {
    let limits = &lane.settings.limits;
    // The client of a call is silent for as long as it likes.
    let timeout = exchange
        .call()
        .map_or(limits.client_body_timeout, |_| grpc::SILENCE);
    Upload::new(exchange, limits.body_bytes, timeout)
}

/// Who asks, where a proxy that is trusted says so.
fn note_origin(worker: &Worker, exchange: &Exchange, head: &http::request::Parts) {
    let table = worker.shared.published.load();
    if let Some(origin) = Origin::of(&head.headers, exchange.peer(), &table.edge) {
        exchange.says(origin);
    }
}

/// What is the same for every try of a request.
#[derive(Clone, Copy)]
struct Way<'a> {
    worker: &'a Rc<Worker>,
    exchange: &'a Rc<Exchange>,
    proof: Option<&'a Proof>,
    /// It wants to switch protocols.
    switches: bool,
}

/// Steps 1 to 3, and the connection. A failed connect, with which nothing was sent, is tried again here.
async fn reach(
    way: Way<'_>,
    head: &http::request::Parts,
    body: &RequestBody,
    tries: &mut Tries,
) -> Result<(Arc<Lane>, Line<RequestBody>), Failure> {
    let Way {
        worker,
        exchange,
        proof,
        switches,
    } = way;
    let mut hosts = HostBuffer::new();
    let host = check_head(head, &mut hosts)?;
    if !body.is_end_stream() {
        check_coding(&head.headers)?;
    }
    let client = exchange.client();
    if let Some(name) = &client.name
        && !client.front.answers_for(name, host)
    {
        return Err(ProxyError::Misdirected.into());
    }
    let state = if body.is_end_stream() {
        BodyState::None
    } else {
        BodyState::Whole
    };
    // Until the first wait it is as late as when the head came.
    let mut now = tries.is_first().then(|| exchange.begun());
    loop {
        let lane = match decide(worker, exchange, host, head, proof, tries)? {
            Decision::Send(lane) => lane,
            // Boxed, as below: what is seldom must not make every request's future larger.
            Decision::Wait(queue) => {
                Box::pin(hold::wait(worker, exchange, head, &queue)).await?;
                now = None;
                continue;
            }
            Decision::Queue(lane, explicit) => {
                now = None;
                match Box::pin(queue::wait(worker, exchange, head, (&lane, explicit), tries)).await? {
                    true => lane,
                    false => continue,
                }
            }
        };
        check_limits(&lane, head, body)?;
        tries.begins(worker, exchange, &lane);
        let at = now.take().unwrap_or_else(StdInstant::now);
        match line_for(
            worker,
            exchange,
            &lane,
            at,
            may_repeat(&head.method, body),
            switches,
        )
        .await
        {
            Ok(line) => return Ok((lane, line)),
            Err(error) => {
                let error = connect_error(&error);
                if !tries.once_more(worker, exchange, &lane, (kind_of(error), &head.method, state)) {
                    return Err(error.into());
                }
            }
        }
    }
}

/// What the listener answers itself. The proof of a switch goes past it: it may ask for the same path.
fn own_answer(
    worker: &Worker,
    exchange: &Rc<Exchange>,
    head: &http::request::Parts,
) -> Option<Response<ReplyBody>> {
    let own = &exchange.client().front.own;
    if own.is_empty() || worker.proof(head.headers.get(X_CUTOVER_VERIFY)).is_some() {
        return None;
    }
    own.to(head.uri.path(), exchange)
}

/// The same place, under https and its usual port.
fn redirect(
    status: StatusCode,
    exchange: &Rc<Exchange>,
    head: &http::request::Parts,
) -> Result<Response<ReplyBody>, ProxyError> {
    let mut hosts = HostBuffer::new();
    let host = check_head(head, &mut hosts)?;
    if host.is_empty() {
        return Err(ProxyError::Malformed("no Host field to redirect by"));
    }
    let response = reply::redirect(status, host, &head.uri).ok_or(ProxyError::Malformed("invalid target"))?;
    exchange.redirected(status.as_u16());
    Ok(response.map(|body| body.accounted(exchange)))
}

/// Where a request goes now.
enum Decision {
    /// Through this lane; the endpoint is claimed.
    Send(Arc<Lane>),
    /// Nowhere yet: wait in this room and decide again.
    Wait(Arc<HoldQueue>),
    /// Through this lane (by its explicit gates?), when there is room.
    Queue(Arc<Lane>, bool),
}

/// Steps 1 to 3. The table's guard never leaves this function.
fn decide(
    worker: &Worker,
    exchange: &Exchange,
    host: &str,
    head: &http::request::Parts,
    proof: Option<&Proof>,
    tries: &mut Tries,
) -> Result<Decision, Failure> {
    loop {
        let table = worker.shared.published.load();
        let asked = asked(exchange, host, head);
        let found = match proof {
            None => table.find(host, asked.path()),
            Some(proof) => table.named(&proof.app, &proof.service),
        };
        let (app, service) = found.ok_or(ProxyError::NoRoute)?;
        let special = if proof.is_some() {
            Special::Verify
        } else {
            Special::None
        };
        let undecided = || {
            if let Some(cells) = service.undecided.workers.get(worker.index) {
                exchange.undecided(cells, &service.settings);
            }
        };
        let key = table.edge.preview.as_deref();
        let choice = match choose(app, service, worker.index, &asked, key, special) {
            Ok(choice) => choice,
            Err(Unavailable::Maintenance) => {
                undecided();
                return Err(Failure {
                    error: ProxyError::Maintenance,
                    message: app.maintenance.clone(),
                });
            }
            Err(Unavailable::Untrusted(why)) => {
                undecided();
                return Err(ProxyError::Untrusted(why.as_str()).into());
            }
            Err(Unavailable::Held) => {
                undecided();
                let queue = app.hold.as_ref().ok_or(ProxyError::HoldOverflow)?;
                return Ok(Decision::Wait(Arc::clone(queue)));
            }
        };
        let lane = &service.pools[choice.color].lanes[worker.index];
        match pick(worker, lane, choice.explicit, proof, tries) {
            Ok(claim) => {
                exchange.claimed(lane, claim);
                exchange.introduce(choice.newcomer);
                return Ok(Decision::Send(Arc::clone(lane)));
            }
            // Publish comes before close, so a newer table is there to be loaded.
            Err(PickError::Closed) => {}
            Err(PickError::Full) => {
                exchange.undecided(&lane.cells, &service.settings);
                exchange.introduce(choice.newcomer);
                return Ok(Decision::Queue(Arc::clone(lane), choice.explicit));
            }
            Err(PickError::Empty) => {
                exchange.undecided(&lane.cells, &service.settings);
                return Err(ProxyError::NoHealthyEndpoint.into());
            }
        }
    }
}

/// An endpoint of the color. The proof of a switch does not wait for room.
fn pick(
    worker: &Worker,
    lane: &Lane,
    explicit: bool,
    proof: Option<&Proof>,
    tries: &mut Tries,
) -> Result<Claim, PickError> {
    let ticket = tries.ticket(worker);
    match proof {
        None => lane.pick(ticket, explicit, tries.failed()),
        Some(_) => lane.pick_any(ticket, explicit, tries.failed()),
    }
}

/// The request as routing sees it.
fn asked<'a>(exchange: &'a Exchange, host: &'a str, head: &'a http::request::Parts) -> Asked<'a> {
    let (peer, origin) = (exchange.peer(), exchange.origin());
    Asked {
        method: &head.method,
        host,
        uri: &head.uri,
        headers: &head.headers,
        client: exchange.client_ip(),
        is_trusted: origin.is_some(),
        proto: origin.and_then(Origin::proto),
        tls: peer.scheme == "https",
        server_name: exchange.client().name.as_deref(),
        subject: peer.subject.as_ref(),
        door: exchange.client().front.color,
    }
}

fn check_limits(lane: &Lane, head: &http::request::Parts, body: &impl Body) -> Result<(), ProxyError> {
    let limits = &lane.settings.limits;
    let target = head
        .uri
        .path_and_query()
        .map_or(0, |target| target.as_str().len());
    if target > limits.uri_bytes {
        return Err(ProxyError::TargetTooLong);
    }
    if limits.body_bytes > 0 && body.size_hint().lower() > limits.body_bytes {
        return Err(ProxyError::BodyTooLarge);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::future_bytes;
    use super::*;

    /// Each request moves its future, and one over HTTP/2 allocates it. What is large and seldom is boxed, and heads are
    /// lent to futures, not given.
    #[test]
    fn a_requests_future_stays_small() {
        let bytes = future_bytes(|(worker, serving, request)| forward(worker, serving, request));
        assert!(bytes <= 3600, "{bytes} bytes");
    }
}
