//! What changes in the heads on their way through: hop-by-hop fields go, forwarding fields come.

use std::net::IpAddr;

use http::header::{
    CONNECTION, CONTENT_LENGTH, EXPECT, Entry, FORWARDED, HOST, HeaderMap, HeaderName, HeaderValue,
    PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};

use super::request_id::{RequestIds, acceptable};
use crate::config::{Headers, HostHeader, Network};

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
const X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");
/// The subject of the client's certificate. Only we say it: what a client sends under this name is dropped.
const X_CLIENT_CERT_SUBJECT: HeaderName = HeaderName::from_static("x-client-cert-subject");
/// The id of a request, for the logs of both sides.
pub(super) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Carries the secret of the proof after a switch; never passed on.
pub(super) const X_CUTOVER_VERIFY: HeaderName = HeaderName::from_static("x-cutover-verify");
/// The color that answered a proof.
pub(super) const X_CUTOVER_COLOR: HeaderName = HeaderName::from_static("x-cutover-color");
/// The generation that answered a proof.
pub(super) const X_CUTOVER_GENERATION: HeaderName = HeaderName::from_static("x-cutover-generation");

/// CGI and WSGI apps read `X_Forwarded_For` as `X-Forwarded-For`: a stranger must not write it in this form either.
const LOOKALIKES: [HeaderName; 5] = [
    HeaderName::from_static("x_forwarded_for"),
    HeaderName::from_static("x_forwarded_proto"),
    HeaderName::from_static("x_forwarded_host"),
    HeaderName::from_static("x_forwarded_port"),
    HeaderName::from_static("x_real_ip"),
];

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

    /// Whether what it says of other clients is believed. A Unix socket's peer is on this machine, but it is
    /// believed only where somebody wrote so, and there is no way to write it: not.
    #[must_use]
    pub fn is_trusted(&self, trusted: &[Network]) -> bool {
        self.ip
            .is_some_and(|ip| trusted.iter().any(|network| network.contains(ip)))
    }
}

/// Remove what is meant for one connection only (RFC 9110 §7.6.1), with the fields that `Connection` names.
///
/// `Trailer` stays: it announces fields that are passed on. `TE` stays as `trailers` if the client takes them.
pub fn strip_hop_by_hop(headers: &mut HeaderMap) {
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

/// Make a client's head fit for the app.
pub fn prepare_request(
    headers: &mut HeaderMap,
    rules: &Headers,
    peer: &Peer,
    trusted: &[Network],
    ids: &RequestIds,
    endpoint: impl FnOnce() -> HeaderValue,
) {
    // Room for what is added below, so that the map grows once at most.
    headers.reserve(6);
    strip_hop_by_hop(headers);
    headers.remove(EXPECT);
    headers.remove(X_CLIENT_CERT_SUBJECT);
    if let Some(subject) = &peer.subject {
        headers.insert(X_CLIENT_CERT_SUBJECT, subject.clone());
    }
    forwarding(headers, peer, trusted);
    let named = headers.get(X_REQUEST_ID).is_some_and(acceptable);
    if !named {
        headers.insert(X_REQUEST_ID, ids.next());
    }
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

/// Who asked, for the app: believed from trusted proxies and continued, otherwise written anew.
fn forwarding(headers: &mut HeaderMap, peer: &Peer, trusted: &[Network]) {
    let host = headers.get(HOST).cloned();
    if !trusted.is_empty() && peer.is_trusted(trusted) {
        let chain = joined(headers, &X_FORWARDED_FOR);
        let client = chain
            .as_deref()
            .and_then(|chain| nearest_stranger(chain, trusted));
        let value = match &chain {
            Some(chain) => {
                HeaderValue::try_from(format!("{chain}, {}", peer.text.to_str().unwrap_or_default()))
            }
            None => Ok(peer.text.clone()),
        };
        headers.insert(X_FORWARDED_FOR, value.unwrap_or_else(|_| peer.text.clone()));
        let real = client.and_then(|ip| HeaderValue::try_from(ip.to_string()).ok());
        headers.insert(X_REAL_IP, real.unwrap_or_else(|| peer.text.clone()));
        headers
            .entry(X_FORWARDED_PROTO)
            .or_insert(HeaderValue::from_static(peer.scheme));
        if let Some(host) = host {
            headers.entry(X_FORWARDED_HOST).or_insert(host);
        }
        return;
    }
    headers.remove(FORWARDED);
    headers.remove(X_FORWARDED_PORT);
    for name in LOOKALIKES {
        headers.remove(name);
    }
    headers.insert(X_FORWARDED_FOR, peer.text.clone());
    headers.insert(X_REAL_IP, peer.text.clone());
    headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static(peer.scheme));
    match host {
        Some(host) => drop(headers.insert(X_FORWARDED_HOST, host)),
        None => drop(headers.remove(X_FORWARDED_HOST)),
    }
}

fn joined(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    let values: Vec<_> = headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .collect();
    (!values.is_empty()).then(|| values.join(", "))
}

/// The client: the last address of the chain that is no trusted proxy.
fn nearest_stranger(chain: &str, trusted: &[Network]) -> Option<IpAddr> {
    let addresses = chain.rsplit(',').map(|text| text.trim().parse::<IpAddr>());
    addresses
        .take_while(Result::is_ok)
        .flatten()
        .find(|address| !trusted.iter().any(|network| network.contains(*address)))
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
        }
    }

    fn prepared(fields: &[(&str, &str)], peer: &str, trusted: &[Network]) -> HeaderMap {
        prepared_for(fields, Peer::new(Some(peer.parse().unwrap())), trusted)
    }

    fn prepared_for(fields: &[(&str, &str)], peer: Peer, trusted: &[Network]) -> HeaderMap {
        let mut headers = map(fields);
        let endpoint = || HeaderValue::from_static("app:8000");
        prepare_request(
            &mut headers,
            &rules(),
            &peer,
            trusted,
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
    fn a_stranger_is_not_believed() {
        let sent = [
            ("host", "shop.example"),
            ("x-forwarded-for", "1.2.3.4"),
            ("x-forwarded-proto", "https"),
            ("x-real-ip", "1.2.3.4"),
            ("forwarded", "for=1.2.3.4"),
            ("x-forwarded-host", "evil"),
            ("x_forwarded_for", "1.2.3.4"),
            ("x_real_ip", "1.2.3.4"),
            ("expect", "100-continue"),
        ];
        let headers = prepared(&sent, "203.0.113.9", &[]);
        let of = |name: &str| headers.get(name).map(|value| value.to_str().unwrap().to_owned());
        assert_eq!(of("x-forwarded-for").as_deref(), Some("203.0.113.9"));
        assert_eq!(of("x-real-ip").as_deref(), Some("203.0.113.9"));
        assert_eq!(of("x-forwarded-proto").as_deref(), Some("http"));
        assert_eq!(of("x-forwarded-host").as_deref(), Some("shop.example"));
        assert_eq!((of("forwarded"), of("expect")), (None, None));
        assert_eq!((of("x_forwarded_for"), of("x_real_ip")), (None, None));
        assert_eq!(of("x-request-id").unwrap().len(), 32);
    }

    #[test]
    fn the_subject_of_a_certificate_is_only_ours_to_say() {
        let sent = [("host", "h"), ("x-client-cert-subject", "CN=forged")];
        let peer = || Peer::new(Some("10.0.0.2".parse().unwrap()));
        let trusted = [Network {
            address: "10.0.0.0".parse().unwrap(),
            prefix: 8,
        }];
        let plain = prepared_for(&sent, peer(), &trusted);
        assert_eq!(plain.get("x-client-cert-subject"), None);
        let tls = prepared_for(&sent, peer().through_tls(None), &[]);
        assert_eq!(tls.get("x-client-cert-subject"), None);
        assert_eq!(tls["x-forwarded-proto"], "https");
        let known = prepared_for(&sent, peer().through_tls(Some("CN=ann")), &[]);
        let all: Vec<_> = known.get_all("x-client-cert-subject").iter().collect();
        assert_eq!(all, ["CN=ann"]);
    }

    #[test]
    fn a_trusted_proxy_is_continued() {
        let trusted = [Network {
            address: "10.0.0.0".parse().unwrap(),
            prefix: 8,
        }];
        let sent = [
            ("x-forwarded-for", "9.9.9.9, 198.51.100.7, 10.1.1.1"),
            ("x-forwarded-proto", "https"),
            ("x-request-id", "abc"),
        ];
        let headers = prepared(&sent, "10.0.0.2", &trusted);
        assert_eq!(
            headers["x-forwarded-for"],
            "9.9.9.9, 198.51.100.7, 10.1.1.1, 10.0.0.2"
        );
        assert_eq!(headers["x-real-ip"], "198.51.100.7");
        assert_eq!(headers["x-forwarded-proto"], "https");
        assert_eq!(headers["x-request-id"], "abc");
    }
}
