//! Who asked, as far back as it is believed: a trusted proxy in front has written it down.

use std::net::IpAddr;

use http::header::{FORWARDED, HOST, HeaderMap, HeaderName, HeaderValue};

use super::forwarded::{self, Element};
use super::headers::Peer;
use super::seen::Seen;
use crate::routing::Edge;

pub(super) const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
pub(super) const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
pub(super) const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
pub(super) const X_FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
pub(super) const X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");

/// What a stranger may not say: the fields with which we name him, and `X_Forwarded_For`, which CGI and WSGI apps read
/// as `X-Forwarded-For`.
pub(super) const ONLY_OURS: [HeaderName; 11] = [
    FORWARDED,
    X_FORWARDED_FOR,
    X_FORWARDED_PROTO,
    X_FORWARDED_HOST,
    X_FORWARDED_PORT,
    X_REAL_IP,
    HeaderName::from_static("x_forwarded_for"),
    HeaderName::from_static("x_forwarded_proto"),
    HeaderName::from_static("x_forwarded_host"),
    HeaderName::from_static("x_forwarded_port"),
    HeaderName::from_static("x_real_ip"),
];

/// What a trusted proxy says of a request. A stranger's request has none.
#[derive(Debug)]
pub struct Origin {
    /// The client: the last address of the chain that is no trusted proxy; the first, if all are.
    pub client: Option<IpAddr>,
    /// Everybody on the way up to our peer, as `X-Forwarded-For` writes it; `None` when the peer is the first.
    chain: Option<String>,
    /// Scheme and host that the client used, where only `Forwarded` says so.
    proto: Option<HeaderValue>,
    host: Option<HeaderValue>,
    /// `Forwarded` as it came, if it says the same as the chain.
    forwarded: Option<String>,
}

impl Origin {
    /// Read what `peer` says, if it is believed.
    ///
    /// `X-Forwarded-For` stands where there are both: proxies that know only that field pass a stranger's `Forwarded`
    /// on untouched. One that contradicts it, or cannot be read, is not believed.
    #[must_use]
    pub fn of(headers: &HeaderMap, peer: &Peer, edge: &Edge) -> Option<Box<Self>> {
        if !edge.trusts(peer.ip) {
            return None;
        }
        let field = joined(headers, &FORWARDED);
        let elements = field.as_deref().and_then(forwarded::parse).unwrap_or_default();
        let written = joined(headers, &X_FORWARDED_FOR);
        let nodes = || elements.iter().map(node_of);
        let agrees = match &written {
            None => !elements.is_empty(),
            Some(chain) => {
                let chain = || chain.split(',').map(str::trim);
                chain().count() == elements.len()
                    && chain().zip(nodes()).all(|(entry, node)| {
                        entry == node
                            || forwarded::address(entry)
                                .is_some_and(|ip| forwarded::address(node) == Some(ip))
                    })
            }
        };
        let from_elements = written.is_none() && agrees;
        let chain = written.or_else(|| agrees.then(|| nodes().map(plain).collect::<Vec<_>>().join(", ")));
        let entries: Vec<&str> = chain.iter().flat_map(|chain| chain.split(',')).collect();
        let (client, at) = client_of(&entries, peer, edge);
        let said = at.and_then(|at| elements.get(at)).filter(|_| from_elements);
        let value = |text: &Option<std::borrow::Cow<'_, str>>| HeaderValue::try_from(text.as_deref()?).ok();
        Some(Box::new(Self {
            client,
            proto: said.and_then(|element| value(&element.proto)),
            host: said.and_then(|element| value(&element.host)),
            forwarded: field.as_ref().filter(|_| agrees).cloned(),
            chain,
        }))
    }
}

impl Origin {
    /// The scheme that the client used, where only `Forwarded` says so.
    pub(super) fn proto(&self) -> Option<&HeaderValue> {
        self.proto.as_ref()
    }
}

/// Walk back from our peer as long as addresses are known and trusted. With the entry that named the client.
fn client_of(entries: &[&str], peer: &Peer, edge: &Edge) -> (Option<IpAddr>, Option<usize>) {
    let mut found = (peer.ip, None);
    for (at, entry) in entries.iter().enumerate().rev() {
        let Some(ip) = forwarded::address(entry) else {
            break;
        };
        found = (Some(ip), Some(at));
        if !edge.trusts(Some(ip)) {
            break;
        }
    }
    found
}

fn node_of<'a>(element: &'a Element<'_>) -> &'a str {
    element.node.as_deref().unwrap_or("unknown")
}

/// A node as `X-Forwarded-For` writes it: the address alone, or the word. A comma in it would be two entries.
fn plain(node: &str) -> String {
    match forwarded::address(node) {
        Some(ip) => ip.to_string(),
        None => node.replace([',', ' '], "_"),
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

/// Tell the app who asked: what a trusted proxy has written is continued, anything else (`seen` knows whether there is
/// any) goes, and is written anew. `forwarded`
/// also in the form of RFC 7239.
pub(super) fn tell(
    headers: &mut HeaderMap,
    seen: Seen,
    peer: &Peer,
    origin: Option<&Origin>,
    forwarded: bool,
) {
    let host = headers.get(HOST).cloned();
    if let Some(origin) = origin {
        return continued(headers, peer, origin, host.as_ref(), forwarded);
    }
    if seen.has(Seen::FORWARDING) {
        for name in ONLY_OURS {
            headers.remove(name);
        }
    }
    anew(headers, peer, host, forwarded);
}

fn continued(
    headers: &mut HeaderMap,
    peer: &Peer,
    origin: &Origin,
    host: Option<&HeaderValue>,
    forwarded: bool,
) {
    let own = peer.text.to_str().unwrap_or_default();
    let chain = origin.chain.as_ref();
    let chain = chain.and_then(|chain| HeaderValue::try_from(format!("{chain}, {own}")).ok());
    headers.insert(X_FORWARDED_FOR, chain.unwrap_or_else(|| peer.text.clone()));
    let real = origin.client.filter(|ip| Some(*ip) != peer.ip);
    let real = real.and_then(|ip| HeaderValue::try_from(ip.to_string()).ok());
    headers.insert(X_REAL_IP, real.unwrap_or_else(|| peer.text.clone()));
    let proto = origin.proto.clone();
    headers
        .entry(X_FORWARDED_PROTO)
        .or_insert_with(|| proto.unwrap_or(HeaderValue::from_static(peer.scheme)));
    if let Some(host) = origin.host.as_ref().or(host) {
        headers.entry(X_FORWARDED_HOST).or_insert_with(|| host.clone());
    }
    let before = origin.forwarded.clone().or_else(|| {
        let mut field = String::new();
        for entry in origin.chain.iter().flat_map(|chain| chain.split(',')) {
            forwarded::push(&mut field, entry.trim(), None, None);
        }
        forwarded.then_some(field)
    });
    match before {
        Some(before) => headers.insert(FORWARDED, own_element(before, peer, host)),
        None => headers.remove(FORWARDED),
    };
}

fn anew(headers: &mut HeaderMap, peer: &Peer, host: Option<HeaderValue>, forwarded: bool) {
    if forwarded {
        headers.insert(FORWARDED, own_element(String::new(), peer, host.as_ref()));
    }
    headers.insert(X_FORWARDED_FOR, peer.text.clone());
    headers.insert(X_REAL_IP, peer.text.clone());
    headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static(peer.scheme));
    if let Some(host) = host {
        headers.insert(X_FORWARDED_HOST, host);
    }
}

fn own_element(mut field: String, peer: &Peer, host: Option<&HeaderValue>) -> HeaderValue {
    let node = peer.ip.map_or("unknown".to_owned(), |ip| ip.to_string());
    let host = host.and_then(|host| host.to_str().ok());
    forwarded::push(&mut field, &node, host, Some(peer.scheme));
    // Nothing in it but what came in a field's value; if not, nothing is said.
    HeaderValue::try_from(field).unwrap_or(HeaderValue::from_static("for=unknown"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test panics to fail")]
mod tests {
    use super::*;
    use crate::config::{Config, Network, parse};

    fn edge(networks: &[&str], trusts_unix: bool) -> Edge {
        Edge {
            limits: config().limits,
            errors: config().errors.into(),
            trusted: networks.iter().map(|text| network(text)).collect(),
            trusts_unix,
            preview: None,
        }
    }

    fn config() -> Config {
        let text = "[[listener]]\naddress = \"127.0.0.1:0\"\n[app.a]\nblue = [\"a:1\"]\n";
        parse(text, "test", &|_| None).unwrap()
    }

    fn network(text: &str) -> Network {
        let (address, prefix) = text.split_once('/').unwrap();
        Network {
            address: address.parse().unwrap(),
            prefix: prefix.parse().unwrap(),
        }
    }

    fn told_by(
        fields: &[(&'static str, &str)],
        peer: &str,
        networks: &[&str],
        rfc7239: bool,
    ) -> impl Fn(&str) -> String + use<> {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::try_from(*value).unwrap());
        }
        let edge = edge(networks, true);
        let peer = Peer::new(peer.parse().ok());
        let origin = Origin::of(&headers, &peer, &edge);
        let seen = Seen::at(&headers);
        tell(&mut headers, seen, &peer, origin.as_deref(), rfc7239);
        move |name| {
            let all: Vec<_> = headers
                .get_all(name)
                .iter()
                .map(|value| value.to_str().unwrap())
                .collect();
            all.join(" | ")
        }
    }

    #[test]
    fn a_stranger_is_not_believed() {
        let sent = [
            ("host", "shop.test:81"),
            ("x-forwarded-for", "1.2.3.4"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "evil"),
            ("x-forwarded-port", "443"),
            ("x-real-ip", "1.2.3.4"),
            ("forwarded", "for=1.2.3.4"),
            ("x_forwarded_for", "1.2.3.4"),
            ("x_real_ip", "1.2.3.4"),
        ];
        let of = told_by(&sent, "203.0.113.9", &["10.0.0.0/8"], false);
        assert_eq!(of("x-forwarded-for"), "203.0.113.9");
        assert_eq!(of("x-real-ip"), "203.0.113.9");
        assert_eq!(of("x-forwarded-proto"), "http");
        assert_eq!(of("x-forwarded-host"), "shop.test:81");
        for gone in ["forwarded", "x-forwarded-port", "x_forwarded_for", "x_real_ip"] {
            assert_eq!(of(gone), "", "{gone}");
        }
        let of = told_by(&sent, "2001:db8::9", &["10.0.0.0/8"], true);
        assert_eq!(
            of("forwarded"),
            "for=\"[2001:db8::9]\";host=\"shop.test:81\";proto=http"
        );
    }

    #[test]
    fn a_trusted_proxy_is_continued() {
        let sent = [
            ("host", "a"),
            ("x-forwarded-for", "9.9.9.9, 198.51.100.7"),
            ("x-forwarded-for", "10.1.1.1"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-port", "8443"),
        ];
        let of = told_by(&sent, "10.0.0.2", &["10.0.0.0/8"], false);
        assert_eq!(of("x-forwarded-for"), "9.9.9.9, 198.51.100.7, 10.1.1.1, 10.0.0.2");
        assert_eq!(of("x-real-ip"), "198.51.100.7");
        assert_eq!(
            (of("x-forwarded-proto"), of("x-forwarded-port")),
            ("https".into(), "8443".into())
        );
        assert_eq!(of("forwarded"), "");
        let of = told_by(&sent, "10.0.0.2", &["10.0.0.0/8"], true);
        assert_eq!(
            of("forwarded"),
            "for=9.9.9.9, for=198.51.100.7, for=10.1.1.1, for=10.0.0.2;host=a;proto=http"
        );
    }

    #[test]
    fn who_is_the_client() {
        let of = |chain: &str| {
            told_by(
                &[("x-forwarded-for", chain)],
                "10.0.0.2",
                &["10.0.0.0/8", "fd00::/8"],
                false,
            )("x-real-ip")
        };
        assert_eq!(of("198.51.100.7"), "198.51.100.7");
        assert_eq!(of("198.51.100.7, 10.3.3.3"), "198.51.100.7");
        assert_eq!(of("198.51.100.7:5123, fd00::1"), "198.51.100.7");
        assert_eq!(of("[2001:db8::5]:80, [fd00::1]"), "2001:db8::5");
        // All are trusted: the first of them. What cannot be read ends the way back.
        assert_eq!(of("10.4.4.4, 10.3.3.3"), "10.4.4.4");
        assert_eq!(of("9.9.9.9, nonsense, 10.3.3.3"), "10.3.3.3");
        assert_eq!(of("nonsense"), "10.0.0.2");
        assert_eq!(of(""), "10.0.0.2");
    }

    #[test]
    fn forwarded_alone_is_as_good() {
        let sent = [
            ("host", "inner:8080"),
            (
                "forwarded",
                "for=9.9.9.9, For=\"[2001:db8::7]:4711\";proto=https;host=\"shop.test\", for=10.1.1.1;proto=http",
            ),
        ];
        let of = told_by(&sent, "10.0.0.2", &["10.0.0.0/8"], false);
        assert_eq!(of("x-forwarded-for"), "9.9.9.9, 2001:db8::7, 10.1.1.1, 10.0.0.2");
        assert_eq!(of("x-real-ip"), "2001:db8::7");
        assert_eq!(of("x-forwarded-proto"), "https");
        assert_eq!(of("x-forwarded-host"), "shop.test");
        assert_eq!(
            of("forwarded"),
            format!("{}, for=10.0.0.2;host=\"inner:8080\";proto=http", sent[1].1)
        );
        let hidden = told_by(
            &[("forwarded", "for=\"_a, b\", for=unknown")],
            "10.0.0.2",
            &["10.0.0.0/8"],
            false,
        );
        assert_eq!(hidden("x-forwarded-for"), "_a__b, unknown, 10.0.0.2");
        assert_eq!(hidden("x-real-ip"), "10.0.0.2");
    }

    #[test]
    fn a_forwarded_that_contradicts_goes() {
        // The proxy in front knows X-Forwarded-For only; the other field is its client's.
        for lie in ["for=1.2.3.4", "for=198.51.100.7, for=10.9.9.9", "nonsense"] {
            let sent = [("x-forwarded-for", "198.51.100.7"), ("forwarded", lie)];
            let of = told_by(&sent, "10.0.0.2", &["10.0.0.0/8"], false);
            assert_eq!(of("forwarded"), "", "{lie}");
            assert_eq!(of("x-real-ip"), "198.51.100.7");
        }
        let same = [
            ("x-forwarded-for", "198.51.100.7"),
            ("forwarded", "for=\"198.51.100.7:80\";by=_x"),
        ];
        let of = told_by(&same, "10.0.0.2", &["10.0.0.0/8"], false);
        assert_eq!(
            of("forwarded"),
            "for=\"198.51.100.7:80\";by=_x, for=10.0.0.2;proto=http"
        );
        let only = told_by(&[("forwarded", "nonsense")], "10.0.0.2", &["10.0.0.0/8"], false);
        assert_eq!(
            (only("forwarded"), only("x-forwarded-for")),
            (String::new(), "10.0.0.2".into())
        );
    }

    #[test]
    fn the_peers_of_unix_sockets_are_believed_only_when_said_so() {
        let fields = [("x-forwarded-for", "198.51.100.7")];
        assert_eq!(told_by(&fields, "", &[], false)("x-real-ip"), "198.51.100.7");
        let mut headers = HeaderMap::new();
        headers.insert("x-forwarded-for", HeaderValue::from_static("198.51.100.7"));
        assert!(Origin::of(&headers, &Peer::new(None), &edge(&["0.0.0.0/0"], false)).is_none());
    }
}
