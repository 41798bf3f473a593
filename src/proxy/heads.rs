//! Steps 4 and 6: a request as the app shall see it, and its answer as the client shall.

use std::rc::Rc;
use std::sync::Arc;

use http::header::{CONTENT_LENGTH, HOST, HeaderValue, SET_COOKIE, TRANSFER_ENCODING};
use http::{Response, StatusCode, Version};
use http_body::Body;
use hyper::body::Incoming;

use super::body::ReplyBody;
use super::exchange::Exchange;
use super::headers::{
    X_CUTOVER_COLOR, X_CUTOVER_GENERATION, hide_preview, prepare_request, prepare_response,
};
use super::location::Names;
use super::retry::Tries;
use super::seen::Seen;
use super::sse::Events;
use super::target::origin_form;
use super::upgrade;
use super::upload::{RequestBody, Upload};
use super::worker::Worker;
use crate::config::HostHeader;
use crate::routing::Lane;
use crate::upstream::Line;

/// Take what has come of the request's body, unless the client waits for a word. True: its length is not known.
pub(super) async fn prime(exchange: &Exchange, body: &mut RequestBody) -> bool {
    if body.is_end_stream() {
        return false;
    }
    let is_sized = body.size_hint().exact().is_some();
    if !exchange.seen().has(Seen::EXPECT) {
        body.prime().await;
    }
    !is_sized
}

/// Step 4: the request's head as the app shall see it.
pub(super) fn prepare(
    worker: &Worker,
    exchange: &Exchange,
    lane: &Lane,
    head: &mut http::request::Parts,
    is_chunked: bool,
    wanted: Option<&HeaderValue>,
    tries: &mut Tries,
) {
    tries.draw(&worker.ids, || prepare_head(worker, exchange, lane, head));
    if is_chunked {
        // Said aloud: hyper leaves the body of a GET away otherwise.
        head.headers
            .insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    if let Some(wanted) = wanted {
        upgrade::ask(&mut head.headers, wanted);
    }
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
pub(super) async fn carry(
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
