//! The request path.

use std::convert::Infallible;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant as StdInstant;

use http::header::{
    CONNECTION, CONTENT_LENGTH, EXPECT, HOST, HeaderValue, SET_COOKIE, STRICT_TRANSPORT_SECURITY,
    TRANSFER_ENCODING,
};
use http::{Request, Response, StatusCode, Version};
use http_body::Body;
use hyper::body::Incoming;

use super::beside::Wish;
use super::body::{ReplyBody, RequestBody, Upload};
use super::error::ProxyError;
use super::exchange::Exchange;
use super::extended::Extended;
use super::headers::{
    X_CUTOVER_COLOR, X_CUTOVER_GENERATION, X_CUTOVER_VERIFY, hide_preview, prepare_request, prepare_response,
};
use super::location::Names;
use super::origin::Origin;
use super::refusal::{Accepts, refuse};
use super::reply;
use super::retry::{BodyState, Spare, Tries, kind_of};
use super::seen::Seen;
use super::send::{connect_error, line_for, may_repeat, send};
use super::serving::Serving;
use super::sse::Events;
use super::target::{check_coding, check_head, origin_form, settle_http2};
use super::upgrade;
use super::worker::{Proof, Worker};
use super::{grpc, hold};
use crate::config::HostHeader;
use crate::routing::{Asked, HoldQueue, HostBuffer, Lane, PickError, Special, Unavailable, choose};
use crate::upstream::Line;

/// Serve one request: route, choose, claim, prepare, send, answer. Recording happens when the [`Exchange`] drops.
pub(super) async fn forward(
    worker: Rc<Worker>,
    serving: Serving,
    request: Request<Incoming>,
) -> Result<Response<ReplyBody>, Infallible> {
    let (mut head, body) = request.into_parts();
    let is_http2 = head.version == Version::HTTP_2;
    let settled = if is_http2 {
        let table = worker.shared.published.load();
        settle_http2(&mut head, table.edge.limits.header_count)
    } else {
        Ok(())
    };
    let exchange = Exchange::begin(&worker, serving, &head);
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
        (Ok(()), None, None) => attempt(&worker, &exchange, head, body).await,
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

async fn attempt(
    worker: &Rc<Worker>,
    exchange: &Rc<Exchange>,
    mut head: http::request::Parts,
    body: Incoming,
) -> Result<Response<ReplyBody>, Failure> {
    note_origin(worker, exchange, &head);
    let seen = exchange.seen();
    let proof = seen
        .has(Seen::VERIFY)
        .then(|| head.headers.remove(X_CUTOVER_VERIFY));
    let proof = worker.proof(proof.flatten().as_ref());
    let wanted = seen
        .has(Seen::UPGRADE)
        .then(|| upgrade::wanted(&head, !body.is_end_stream()))
        .flatten();
    let extended = head.extensions.remove::<Extended>();
    let mut tries = Tries::default();
    let way = Way {
        worker,
        exchange,
        proof: proof.as_ref(),
        switches: wanted.is_some(),
    };
    let (mut lane, mut line) = reach(way, &head, &body, &mut tries).await?;
    let upload = (!body.is_end_stream()).then(|| watched(exchange, &lane));
    let mut body = RequestBody::new(body, upload.clone());
    let plain = upload.is_none() && wanted.is_none() && proof.is_none();
    let mut wish = Wish::of(worker, &lane, &head, plain);
    let mut other = None;
    let (answer, freed, sent_at) = loop {
        let repeats = lane.settings.retry.attempts > 1 && wanted.is_none();
        let spare = repeats.then(|| Spare::of(&head, &worker.spares));
        let is_chunked = prime(exchange, &mut body).await;
        let wanted = wanted.as_ref();
        let request = prepare(
            worker,
            exchange,
            &lane,
            (head, body, is_chunked),
            wanted,
            &mut tries,
        );
        if let Some(wish) = wish.take() {
            other = Some(wish.with(worker, exchange, &lane, &request));
        }
        let sent_at = StdInstant::now();
        let failed = match send(worker, exchange, &lane, &mut line, request, upload.as_deref()).await {
            Ok((answer, freed)) => break (answer, freed, sent_at),
            Err(failed) => failed,
        };
        let state = failed.body_state(upload.is_some());
        let again = spare.filter(|spare| {
            let what = (failed.failed, spare.method(), state);
            tries.once_more(worker, exchange, &lane, what)
        });
        head = again.ok_or(failed.error)?.into_head();
        body = failed.body.unwrap_or_else(RequestBody::none);
        (lane, line) = reach(way, &head, &body, &mut tries).await?;
    };
    if !answer.body().is_end_stream() && check_coding(answer.headers()).is_err() {
        // Passed on without its coding it would be another body.
        return Err(ProxyError::BadAnswer.into());
    }
    exchange.answered(answer.status().as_u16(), sent_at.elapsed());
    if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
        let asked = wanted.zip(freed);
        let client = exchange.client();
        return Ok(upgrade::switched(worker, client, exchange, &lane, asked, extended, answer).await?);
    }
    if extended.is_some() && answer.status().is_success() {
        // For an extended CONNECT this would be a tunnel, and the app speaks HTTP.
        return Err(ProxyError::BadAnswer.into());
    }
    let (lane, line, answer) = match other {
        None => (lane, line, answer),
        // Boxed: what is seldom must not make every request's future larger.
        Some(other) => {
            Box::pin(other.answered(worker, exchange, (lane, line, answer), sent_at.elapsed())).await
        }
    };
    let upload = upload.filter(|_| line.is_http2());
    Ok(carry(worker, exchange, &lane, line, upload, answer, proof.is_some()).await)
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
    exchange: &'a Exchange,
    proof: Option<&'a Proof>,
    /// It wants to switch protocols.
    switches: bool,
}

/// Steps 1 to 3, and the connection. A failed connect, with which nothing was sent, is tried again here.
async fn reach(
    way: Way<'_>,
    head: &http::request::Parts,
    body: &impl Body,
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
            Decision::Wait(queue) => {
                hold::wait(worker, exchange, head, &queue).await?;
                now = None;
                continue;
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
        match lane.pick(tries.ticket(worker), choice.explicit, tries.failed()) {
            Ok(claim) => {
                exchange.claimed(lane, claim);
                exchange.introduce(choice.newcomer);
                return Ok(Decision::Send(Arc::clone(lane)));
            }
            // Publish comes before close, so a newer table is there to be loaded.
            Err(PickError::Closed) => {}
            Err(PickError::Empty) => {
                exchange.undecided(&lane.cells, &service.settings);
                return Err(ProxyError::NoHealthyEndpoint.into());
            }
        }
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

/// Take what has come of the request's body, unless the client waits for a word. True: its length is not known.
async fn prime(exchange: &Exchange, body: &mut RequestBody) -> bool {
    if body.is_end_stream() {
        return false;
    }
    let is_sized = body.size_hint().exact().is_some();
    if !exchange.seen().has(Seen::EXPECT) {
        body.prime().await;
    }
    !is_sized
}

/// Step 4: the request as the app shall see it. No future of its own: a head is large, and would be moved into it.
fn prepare(
    worker: &Worker,
    exchange: &Exchange,
    lane: &Lane,
    (mut head, body, is_chunked): (http::request::Parts, RequestBody, bool),
    wanted: Option<&HeaderValue>,
    tries: &mut Tries,
) -> Request<RequestBody> {
    tries.draw(&worker.ids, || prepare_head(worker, exchange, lane, &mut head));
    if is_chunked {
        // Said aloud: hyper leaves the body of a GET away otherwise.
        head.headers
            .insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    if let Some(wanted) = wanted {
        upgrade::ask(&mut head.headers, wanted);
    }
    Request::from_parts(head, body)
}

fn prepare_head(worker: &Worker, exchange: &Exchange, lane: &Lane, head: &mut http::request::Parts) {
    let mut names_host = exchange.seen().has(Seen::HOST);
    if let Some(authority) = head.uri.authority() {
        // The absolute form's host is the request's host (RFC 9112 §3.2.2).
        if let Ok(value) = HeaderValue::try_from(authority.as_str()) {
            head.headers.insert(HOST, value);
            names_host = true;
        }
    }
    if head.uri.scheme().is_some() || lane.settings.strip.is_some() {
        head.uri = origin_form(&head.uri, lane.settings.strip.as_deref());
    }
    head.version = Version::HTTP_11;
    let seen = exchange.seen();
    if let Some(preview) = &lane.settings.preview {
        hide_preview(&mut head.headers, preview);
    }
    let rules = &lane.settings.headers;
    let endpoint = || {
        let own = exchange.with_claim(|claim| claim.endpoint().authority.clone());
        own.unwrap_or(HeaderValue::from_static("localhost"))
    };
    prepare_request(
        &mut head.headers,
        seen,
        rules,
        exchange.peer(),
        exchange.origin(),
        &worker.ids,
        endpoint,
    );
    let is_named = names_host && rules.request_remove.is_empty();
    if !is_named && matches!(rules.host, HostHeader::Preserve) && !head.headers.contains_key(HOST) {
        // An HTTP/1.0 client may leave it out; what goes on is HTTP/1.1.
        head.headers.insert(HOST, endpoint());
    }
    exchange.named(&head.headers, &lane.settings);
    if rules.rewrite_location {
        exchange.goes_by(Names::of(&head.headers, lane.settings.strip.as_deref()));
    }
}

/// Step 6: the answer as the client shall see it, with its body on the way.
async fn carry(
    worker: &Rc<Worker>,
    exchange: &Rc<Exchange>,
    lane: &Arc<Lane>,
    line: Line<RequestBody>,
    upload: Option<Rc<Upload>>,
    answer: Response<Incoming>,
    is_proof: bool,
) -> Response<ReplyBody> {
    let (mut head, body) = answer.into_parts();
    exchange.in_the_clients_words(&mut head.headers);
    prepare_response(&mut head.headers, &lane.settings.headers);
    if let Some((name, value)) = &lane.exposed {
        head.headers.insert(name.clone(), value.clone());
    }
    if let Some(newcomer) = exchange.newcomer() {
        head.headers
            .append(SET_COOKIE, newcomer.cookie(worker.ids.noise()));
    }
    if is_proof {
        head.headers
            .insert(X_CUTOVER_COLOR, HeaderValue::from_static(lane.color.as_str()));
        head.headers
            .insert(X_CUTOVER_GENERATION, HeaderValue::from(lane.generation));
    }
    if head.status == StatusCode::NO_CONTENT || !body.is_end_stream() {
        // RFC 9110 §8.6: a 204 has no Content-Length; some apps send one. With a body hyper writes what is true of
        // it: the app's own may stand beside `Transfer-Encoding` (RFC 9112 §6.3) or be a list.
        head.headers.remove(CONTENT_LENGTH);
    }
    let events = Events::of(worker, exchange, lane, &head.headers, &body);
    if events.is_some() {
        line.carries_stream();
        // A stream ends by its policy, not with its gate's requests.
        exchange.serving().goes_through(0);
    }
    let (exchange, timeouts) = (Rc::clone(exchange), &lane.settings.timeouts);
    let body = ReplyBody::upstream(body, exchange, Rc::clone(worker), line, timeouts, events, upload).await;
    Response::from_parts(head, body)
}
