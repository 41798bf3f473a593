//! What changes in the heads on their way through: hop-by-hop fields go, forwarding fields come.

use std::net::{IpAddr, SocketAddr};

use http::header::{
    CONNECTION, CONTENT_LENGTH, COOKIE, EXPECT, Entry, HOST, HeaderMap, HeaderName, HeaderValue,
    PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};

use super::origin::{self, Origin};
use super::request_id::{RequestIds, acceptable};
use super::seen::Seen;
use super::trace;
use crate::config::{Headers, HostHeader, IdFrom, Preview, Trace};

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");
/// The subject of the client's certificate. Only we say it: what a client sends under this name is dropped.
const X_CLIENT_CERT_SUBJECT: HeaderName = HeaderName::from_static("x-client-cert-subject");
/// Carries the secret of the proof after a switch; never passed on.
pub(super) const X_CUTOVER_VERIFY: HeaderName = HeaderName::from_static("x-cutover-verify");
/// The color that answered a proof.
pub(super) const X_CUTOVER_COLOR: HeaderName = HeaderName::from_static("x-cutover-color");
/// The generation that answered a proof.
pub(super) const X_CUTOVER_GENERATION: HeaderName = HeaderName::from_static("x-cutover-generation");

/// Who is at the other end of a client connection.
#[derive(Debug)]
pub struct Peer {
    /// The address; `None` over a Unix socket.
    pub ip: Option<IpAddr>,
    /// The address as a header value, made once a connection. `unix:` over a Unix socket, as nginx says it.
    pub text: HeaderValue,
    /// `https` or `http`.
    pub scheme: &'static str,
    /// The subject of its certificate, where the listener asks for one.
    pub subject: Option<HeaderValue>,
    /// Its address and the one that it connected to, as a PROXY header has them.
    pub ends: Option<Box<(SocketAddr, SocketAddr)>>,
}

impl Peer {
    /// A client at this address.
    #[must_use]
    pub fn new(ip: Option<IpAddr>) -> Self {
        let ip = ip.map(|ip| ip.to_canonical());
        let text = ip.and_then(|ip| HeaderValue::try_from(ip.to_string()).ok());
        Self {
            ip,
            text: text.unwrap_or(HeaderValue::from_static("unix:")),
            scheme: "http",
            subject: None,
            ends: None,
        }
    }

    /// A client behind a balancer that has sent a PROXY header.
    #[must_use]
    pub fn behind(source: SocketAddr, destination: SocketAddr) -> Self {
        Self {
            ends: Some(Box::new((source, destination))),
            ..Self::new(Some(source.ip()))
        }
    }

    /// The same client, through TLS, with the subject of its certificate if it has shown one.
    #[must_use]
    pub fn through_tls(mut self, subject: Option<&str>) -> Self {
        self.scheme = "https";
        // Escaped to ASCII where it was read, so it is a header's value.
        self.subject = subject.and_then(|subject| HeaderValue::try_from(subject).ok());
        self
    }
}

/// Remove what is meant for one connection only (RFC 9110 §7.6.1), with the fields that `Connection` names.
///
/// `Trailer` stays: it announces fields that are passed on. `TE` stays as `trailers` if the client takes them.
pub fn strip_hop_by_hop(headers: &mut HeaderMap) {
    // Most messages have none of them.
    if Seen::at(headers).has(Seen::HOP_BY_HOP) {
        take_out_hop_by_hop(headers);
    }
}

/// The work of [`strip_hop_by_hop`].
pub(super) fn take_out_hop_by_hop(headers: &mut HeaderMap) {
    if headers.contains_key(CONNECTION) {
        strip_named(headers);
    }
    headers.remove(KEEP_ALIVE);
    headers.remove(PROXY_CONNECTION);
    headers.remove(TRANSFER_ENCODING);
    headers.remove(UPGRADE);
    headers.remove(HTTP2_SETTINGS);
    headers.remove(PROXY_AUTHENTICATE);
    headers.remove(PROXY_AUTHORIZATION);
    if let Entry::Occupied(te) = headers.entry(TE) {
        let trailers = te
            .iter()
            .any(|value| names(value).any(|name| name.eq_ignore_ascii_case("trailers")));
        te.remove_entry_mult();
        if trailers {
            headers.insert(TE, HeaderValue::from_static("trailers"));
        }
    }
}

/// Trailers are passed on without what is meant for one connection or frames and routes a message (RFC 9110 §6.5.1).
pub(super) fn prepare_trailers(trailers: &mut HeaderMap) {
    strip_hop_by_hop(trailers);
    for name in [TE, TRAILER, HOST, CONTENT_LENGTH] {
        trailers.remove(name);
    }
}

fn strip_named(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .flat_map(names)
        .filter_map(|name| HeaderName::from_bytes(name.as_bytes()).ok())
        .collect();
    headers.remove(CONNECTION);
    for name in named {
        // Naming what frames or routes the message must not take it away; `TE` is looked at by the caller.
        let kept = [HOST, CONTENT_LENGTH, TE, TRAILER];
        if !kept.contains(&name) {
            headers.remove(name);
        }
    }
}

/// The names in a list field.
pub(super) fn names(value: &HeaderValue) -> impl Iterator<Item = &str> {
    value
        .to_str()
        .unwrap_or_default()
        .split(',')
        .map(str::trim)
        .filter(|name| !name.is_empty())
}

/// Make a client's head fit for the app; `seen` is what was seen in it when it came.
pub fn prepare_request(
    headers: &mut HeaderMap,
    seen: Seen,
    rules: &Headers,
    peer: &Peer,
    origin: Option<&Origin>,
    ids: &RequestIds,
    endpoint: impl FnOnce() -> HeaderValue,
) {
    // Room for what is added below, so that the map grows once at most.
    headers.reserve(6);
    if seen.has(Seen::HOP_BY_HOP) {
        take_out_hop_by_hop(headers);
    }
    if seen.has(Seen::EXPECT) {
        headers.remove(EXPECT);
    }
    if seen.has(Seen::SUBJECT) {
        headers.remove(X_CLIENT_CERT_SUBJECT);
    }
    if let Some(subject) = &peer.subject {
        headers.insert(X_CLIENT_CERT_SUBJECT, subject.clone());
    }
    origin::tell(headers, seen, peer, origin, rules.forwarded);
    name(headers, rules, origin.is_some(), ids);
    match &rules.host {
        HostHeader::Preserve => {}
        HostHeader::Upstream => drop(headers.insert(HOST, endpoint())),
        HostHeader::Fixed(name) => {
            if let Ok(value) = HeaderValue::try_from(name) {
                headers.insert(HOST, value);
            }
        }
    }
    apply(headers, &rules.request_remove, &rules.request_set);
}

/// The request's id, and its trace.
fn name(headers: &mut HeaderMap, rules: &Headers, from_trusted: bool, ids: &RequestIds) {
    if let Some(name) = &rules.request_id {
        let believed = match rules.request_id_from {
            IdFrom::Anyone => true,
            IdFrom::Trusted => from_trusted,
            IdFrom::Nobody => false,
        };
        match headers.entry(name) {
            Entry::Occupied(id) if believed && acceptable(id.get()) => {}
            Entry::Occupied(mut id) => drop(id.insert_mult(ids.next())),
            Entry::Vacant(place) => drop(place.insert(ids.next())),
        }
    }
    if rules.trace != Trace::Pass {
        let id = rules
            .request_id
            .as_ref()
            .and_then(|name| headers.get(name))
            .cloned();
        trace::begin(headers, rules.trace, from_trusted, id.as_ref(), ids);
    }
}

/// Take out what was for us: the preview's header, and its cookie from among the others.
pub(super) fn hide_preview(headers: &mut HeaderMap, preview: &Preview) {
    headers.remove(&preview.header);
    let Some(name) = &preview.cookie else { return };
    let ours = |pair: &&[u8]| {
        let rest = pair.trim_ascii_start().strip_prefix(name.as_bytes());
        rest.is_some_and(|rest| rest.starts_with(b"="))
    };
    let pairs = |value: &HeaderValue| -> Vec<Vec<u8>> {
        let pairs = value.as_bytes().split(|byte| *byte == b';');
        pairs
            .filter(|pair| !ours(pair))
            .map(|pair| pair.trim_ascii().to_vec())
            .collect()
    };
    let is_there = |value: &HeaderValue| {
        value
            .as_bytes()
            .split(|byte| *byte == b';')
            .any(|pair| ours(&pair))
    };
    if !headers.get_all(COOKIE).iter().any(is_there) {
        return;
    }
    let left: Vec<_> = headers.get_all(COOKIE).iter().flat_map(pairs).collect();
    headers.remove(COOKIE);
    let left: Vec<_> = left.into_iter().filter(|pair| !pair.is_empty()).collect();
    if let Ok(value) = HeaderValue::from_bytes(&left.join(&b"; "[..]))
        && !left.is_empty()
    {
        headers.insert(COOKIE, value);
    }
}

/// Make an app's head fit for the client.
pub fn prepare_response(headers: &mut HeaderMap, rules: &Headers) {
    strip_hop_by_hop(headers);
    apply(headers, &rules.response_remove, &rules.response_set);
}

/// Rules were checked at load; what cannot be a header is left out here rather than trusted.
fn apply(headers: &mut HeaderMap, remove: &[String], set: &[(String, String)]) {
    for name in remove {
        headers.remove(name.as_str());
    }
    for (name, value) in set {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            headers.insert(name, value);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test panics to fail")]
mod tests {
    use super::*;

    fn map(fields: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(
                HeaderName::try_from(*name).unwrap(),
                HeaderValue::try_from(*value).unwrap(),
            );
        }
        headers
    }

    fn rules() -> Headers {
        Headers {
            host: HostHeader::Preserve,
            request_set: vec![],
            request_remove: vec![],
            response_set: vec![],
            response_remove: vec![],
            expose_color: String::new(),
            expose_revision: false,
            forwarded: false,
            rewrite_location: false,
            request_id: Some(HeaderName::from_static("x-request-id")),
            request_id_from: IdFrom::Anyone,
            expose_request_id: false,
            trace: Trace::Pass,
        }
    }

    fn prepared_for(fields: &[(&str, &str)], peer: Peer) -> HeaderMap {
        let mut headers = map(fields);
        let endpoint = || HeaderValue::from_static("app:8000");
        let seen = Seen::at(&headers);
        prepare_request(
            &mut headers,
            seen,
            &rules(),
            &peer,
            None,
            &RequestIds::new(),
            endpoint,
        );
        headers
    }

    #[test]
    fn hop_by_hop_fields_and_those_named_go() {
        let mut headers = map(&[
            ("connection", "close, x-secret"),
            ("connection", "Host, content-length, te"),
            ("keep-alive", "timeout=5"),
            ("x-secret", "1"),
            ("te", "gzip, trailers"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("http2-settings", "AAAA"),
            ("host", "h"),
            ("content-length", "3"),
            ("trailer", "x-sum"),
        ]);
        strip_hop_by_hop(&mut headers);
        let mut left: Vec<_> = headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.to_str().unwrap()))
            .collect();
        left.sort_unstable();
        assert_eq!(
            left,
            [
                ("content-length", "3"),
                ("host", "h"),
                ("te", "trailers"),
                ("trailer", "x-sum")
            ]
        );
    }

    #[test]
    fn what_is_ours_to_say() {
        let sent = [
            ("host", "a"),
            ("expect", "100-continue"),
            ("x-forwarded-for", "1.2.3.4"),
        ];
        let headers = prepared_for(&sent, Peer::new(Some("203.0.113.9".parse().unwrap())));
        assert_eq!(headers["x-forwarded-for"], "203.0.113.9");
        assert_eq!(headers["x-request-id"].len(), 32);
        assert!(!headers.contains_key("expect"));
    }

    #[test]
    fn the_subject_of_a_certificate_is_only_ours_to_say() {
        let sent = [("host", "h"), ("x-client-cert-subject", "CN=forged")];
        let peer = || Peer::new(Some("10.0.0.2".parse().unwrap()));
        let plain = prepared_for(&sent, peer());
        assert_eq!(plain.get("x-client-cert-subject"), None);
        let tls = prepared_for(&sent, peer().through_tls(None));
        assert_eq!(tls.get("x-client-cert-subject"), None);
        assert_eq!(tls["x-forwarded-proto"], "https");
        let known = prepared_for(&sent, peer().through_tls(Some("CN=ann")));
        let all: Vec<_> = known.get_all("x-client-cert-subject").iter().collect();
        assert_eq!(all, ["CN=ann"]);
    }
}
