//! Switching protocols (RFC 9110 §7.8): what is asked for, what the app agreed to, and the handing over.

use std::rc::Rc;
use std::sync::Arc;

use http::header::{CONNECTION, CONTENT_LENGTH, HeaderMap, HeaderValue, UPGRADE};
use http::{Response, Version};
use hyper::body::Incoming;
use tokio::sync::oneshot;

use super::body::ReplyBody;
use super::client::Client;
use super::error::ProxyError;
use super::exchange::Exchange;
use super::extended::Extended;
use super::headers::{names, prepare_response};
use super::streams::Leash;
use super::tunnel::Tunnel;
use super::worker::Worker;
use crate::metrics::StreamKind;
use crate::routing::Lane;
use crate::upstream::Freed;

/// Where the app's connection comes when HTTP is over on it.
pub(super) type Inheritance = oneshot::Receiver<Freed>;

/// The protocols that a request asks to switch to and that may be passed on; `None` for an ordinary request.
///
/// Only with `Connection: upgrade`, over HTTP/1.1 (or by an extended CONNECT) and without a body. Other versions of HTTP and TLS are never
/// passed on: whoever speaks them to the app through a tunnel has passed all rules of this proxy (h2c smuggling).
pub(super) fn wanted(head: &http::request::Parts, has_body: bool) -> Option<HeaderValue> {
    let asked = head.headers.get(UPGRADE)?;
    let may_ask = head.version == Version::HTTP_11 || head.extensions.get::<Extended>().is_some();
    if has_body || !may_ask || !asks_to_switch(&head.headers) {
        return None;
    }
    let all = head.headers.get_all(UPGRADE).iter();
    let fit: Vec<&str> = all.flat_map(names).filter(|name| is_fit(name)).collect();
    match fit.as_slice() {
        [] => None,
        // Mostly: the field as it came.
        [only] if only.len() == asked.len() => Some(asked.clone()),
        several => HeaderValue::try_from(several.join(", ")).ok(),
    }
}

fn asks_to_switch(headers: &HeaderMap) -> bool {
    let mut options = headers.get_all(CONNECTION).iter().flat_map(names);
    options.any(|option| option.eq_ignore_ascii_case("upgrade"))
}

fn is_fit(protocol: &str) -> bool {
    let name = protocol.split('/').next().unwrap_or_default().trim();
    let refused = ["h2c", "h2", "h3", "http", "tls"];
    !name.is_empty() && !refused.iter().any(|other| name.eq_ignore_ascii_case(other))
}

/// Say the wish again on the next connection: the fields that carried it were meant for the last one.
pub(super) fn ask(headers: &mut HeaderMap, wanted: &HeaderValue) {
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, wanted.clone());
}

/// What the app has switched to, if that is one of those asked for.
fn agreed(wanted: &HeaderValue, answer: &HeaderMap) -> Option<(HeaderValue, StreamKind)> {
    let mut fields = answer.get_all(UPGRADE).iter();
    let field = fields.next().filter(|_| fields.next().is_none())?;
    let mut said = names(field);
    let protocol = said.next().filter(|_| said.next().is_none())?;
    if !names(wanted).any(|name| name.eq_ignore_ascii_case(protocol)) {
        return None;
    }
    let kind = if protocol.eq_ignore_ascii_case("websocket") {
        StreamKind::WebSocket
    } else {
        StreamKind::Upgrade
    };
    Some((field.clone(), kind))
}

/// The app has switched protocols: the answer for the client, whose connection finds the tunnel in `client` when
/// HTTP is over on it too; or over HTTP/2, whose stream it is. Nobody having asked, or for something else: 502.
pub(super) async fn switched(
    worker: &Rc<Worker>,
    client: &Client,
    exchange: &Rc<Exchange>,
    lane: &Arc<Lane>,
    asked: Option<(HeaderValue, Inheritance)>,
    extended: Option<Extended>,
    answer: Response<Incoming>,
) -> Result<Response<ReplyBody>, ProxyError> {
    let (wanted, freed) = asked.ok_or(ProxyError::BadAnswer)?;
    let (mut head, _) = answer.into_parts();
    let (protocol, kind) = agreed(&wanted, &head.headers).ok_or(ProxyError::BadAnswer)?;
    let app = freed.await.map_err(|_| ProxyError::Reset)?;
    prepare_response(&mut head.headers, &lane.settings.headers);
    head.headers.remove(CONTENT_LENGTH);
    if let Some(extended) = &extended {
        if !extended.is_accepted_by(&head.headers) {
            return Err(ProxyError::BadAnswer);
        }
        extended.answer(&mut head);
    } else {
        head.headers
            .insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        head.headers.insert(UPGRADE, protocol);
    }
    if let Some((name, value)) = &lane.exposed {
        head.headers.insert(name.clone(), value.clone());
    }
    let leash = Leash::new(worker, exchange, lane, kind).ok_or(ProxyError::Reset)?;
    exchange.serving().goes_through(0);
    let tunnel = Tunnel::new(leash, Rc::clone(exchange), app);
    match extended {
        None => client.will_tunnel(tunnel),
        Some(extended) => extended.runs(exchange, tunnel),
    }
    head.version = Version::HTTP_11;
    Ok(Response::from_parts(head, ReplyBody::none()))
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn asked(version: Version, fields: &[(&str, &str)]) -> Option<String> {
        let mut request = Request::builder().version(version);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let (head, ()) = request.body(()).unwrap().into_parts();
        wanted(&head, false).map(|value| value.to_str().unwrap().to_owned())
    }

    #[test]
    fn only_a_whole_wish_for_a_fit_protocol_is_passed_on() {
        let one_one = Version::HTTP_11;
        let of = |connection: &str, upgrade: &str| {
            asked(one_one, &[("connection", connection), ("upgrade", upgrade)])
        };
        assert_eq!(of("Upgrade", "websocket").as_deref(), Some("websocket"));
        assert_eq!(
            of("keep-alive, UPGRADE", "WebSocket").as_deref(),
            Some("WebSocket")
        );
        assert_eq!(
            of("upgrade", "h2c, irc/1, websocket").as_deref(),
            Some("irc/1, websocket")
        );
        for refused in [
            "h2c",
            "H2C",
            "h2",
            "HTTP/2.0",
            "TLS/1.0",
            "tls",
            "h3",
            "",
            ",",
            "h2c, HTTP/3",
        ] {
            assert_eq!(of("upgrade", refused), None, "{refused}");
        }
        assert_eq!(of("keep-alive", "websocket"), None);
        assert_eq!(of("upgrades", "websocket"), None);
        assert_eq!(asked(one_one, &[("upgrade", "websocket")]), None);
        let old = [("connection", "upgrade"), ("upgrade", "websocket")];
        assert_eq!(asked(Version::HTTP_10, &old), None);
    }

    #[test]
    fn the_app_may_only_switch_to_what_was_asked_for() {
        let wanted = HeaderValue::from_static("irc/1, websocket");
        let of = |fields: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for field in fields {
                headers.append(UPGRADE, HeaderValue::from_static(field));
            }
            agreed(&wanted, &headers).map(|(_, kind)| kind)
        };
        assert_eq!(of(&["WebSocket"]), Some(StreamKind::WebSocket));
        assert_eq!(of(&["irc/1"]), Some(StreamKind::Upgrade));
        for wrong in [
            &[][..],
            &["h2c"],
            &["websocket, irc/1"],
            &["websocket", "websocket"],
            &["irc/2"],
        ] {
            assert_eq!(of(wrong), None, "{wrong:?}");
        }
    }
}
