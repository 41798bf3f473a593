//! What of a request decides where it goes. Made of borrowed parts: nothing is copied, and what nobody looks at costs
//! nothing.

use std::net::{IpAddr, SocketAddr};

use http::header::{COOKIE, FORWARDED};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};

use super::Edge;
use crate::config::Aim;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// A request as routing sees it.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// Its method.
    pub method: &'a Method,
    /// Its host in lower case, without a port.
    pub host: &'a str,
    /// Its target.
    pub uri: &'a Uri,
    /// Its fields as they came.
    pub headers: &'a HeaderMap,
    /// The client's address, as far back as it is believed; `None` when only a Unix socket is known.
    pub client: Option<IpAddr>,
    /// The other end of the connection is a trusted proxy: it may speak for other clients.
    pub is_trusted: bool,
    /// The scheme that the client used, where a trusted proxy says it in `Forwarded` only.
    pub proto: Option<&'a HeaderValue>,
    /// The connection is TLS.
    pub tls: bool,
    /// The server name that the connection was opened for.
    pub server_name: Option<&'a str>,
    /// The subject of the client's certificate.
    pub subject: Option<&'a HeaderValue>,
    /// The color that its listener is for.
    pub door: Option<Aim>,
}

impl<'a> Asked<'a> {
    /// The path, as it came.
    #[must_use]
    pub fn path(&self) -> &'a str {
        self.uri.path()
    }

    /// Whether it says that somebody has passed it on, trusted or not.
    #[must_use]
    pub fn says_forwarded(&self) -> bool {
        self.headers.contains_key(X_FORWARDED_FOR) || self.headers.contains_key(FORWARDED)
    }

    /// The client's address, IPv4 as IPv4.
    #[must_use]
    pub fn client(&self) -> Option<IpAddr> {
        self.client.map(|ip| ip.to_canonical())
    }

    /// The client's side is https, as the connection or a trusted proxy says.
    #[must_use]
    pub fn is_https(&self) -> bool {
        let said = || self.headers.get(X_FORWARDED_PROTO).or(self.proto);
        self.tls || (self.is_trusted && said().is_some_and(|proto| proto == "https"))
    }

    /// The first cookie of this name (RFC 6265 §5.4 lets a client send several; which one is real, nobody knows).
    #[must_use]
    pub fn cookie(&self, name: &str) -> Option<&'a [u8]> {
        let fields = self.headers.get_all(COOKIE).iter();
        let mut pairs = fields.flat_map(|field| field.as_bytes().split(|byte| *byte == b';'));
        pairs.find_map(|pair| {
            let pair = pair.trim_ascii_start();
            let value = pair.strip_prefix(name.as_bytes())?.strip_prefix(b"=")?;
            Some(value.trim_ascii_end())
        })
    }
}

/// The client that `X-Forwarded-For` names, if `peer` is believed: for `explain`, which has no connection to ask.
#[must_use]
pub fn client_of(headers: &HeaderMap, peer: Option<IpAddr>, edge: &Edge) -> Option<IpAddr> {
    let mut client = peer;
    if !edge.trusts(peer) {
        return client;
    }
    let fields = headers.get_all(X_FORWARDED_FOR).iter().rev();
    let entries = fields.flat_map(|field| field.to_str().unwrap_or_default().rsplit(','));
    for entry in entries {
        let entry = entry.trim();
        let address = entry
            .parse()
            .or_else(|_| entry.parse().map(|at: SocketAddr| at.ip()));
        let Ok(ip) = address else { break };
        client = Some(ip);
        if !edge.trusts(client) {
            break;
        }
    }
    client
}

#[cfg(test)]
impl<'a> Asked<'a> {
    /// A plain `GET` for a test.
    pub(super) fn plain(uri: &'a Uri, headers: &'a HeaderMap) -> Self {
        Self {
            method: &Method::GET,
            host: "a",
            uri,
            headers,
            client: None,
            is_trusted: false,
            proto: None,
            tls: false,
            server_name: None,
            subject: None,
            door: None,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test panics to fail")]
mod tests {
    use super::*;
    use crate::config::{self, Network};

    fn map(fields: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    fn plain(headers: &HeaderMap) -> Asked<'_> {
        static ROOT: std::sync::LazyLock<Uri> = std::sync::LazyLock::new(|| Uri::from_static("/"));
        Asked::plain(&ROOT, headers)
    }

    #[test]
    fn the_client_is_whom_trusted_proxies_name() {
        let text = "[[listener]]\naddress = \"127.0.0.1:0\"\n[app.a]\nblue = [\"a:1\"]\n";
        let parsed = config::parse(text, "test", &|_| None).unwrap();
        let network = Network {
            address: "10.0.0.0".parse().unwrap(),
            prefix: 8,
        };
        let edge = |trusted: &[Network]| Edge {
            limits: parsed.limits,
            errors: parsed.errors.clone().into(),
            trusted: trusted.to_vec(),
            preview: None,
            trusts_unix: false,
        };
        let (inside, nobody) = (edge(&[network]), edge(&[]));
        let of = |fields: &[(&'static str, &str)], peer: &str, edge: &Edge| {
            client_of(&map(fields), peer.parse().ok(), edge).map(|ip| ip.to_string())
        };
        let chain = [
            ("x-forwarded-for", "1.1.1.1, 9.9.9.9:81"),
            ("x-forwarded-for", "10.0.0.7"),
        ];
        assert_eq!(of(&chain, "10.0.0.2", &inside).as_deref(), Some("9.9.9.9"));
        assert_eq!(of(&chain, "10.0.0.2", &nobody).as_deref(), Some("10.0.0.2"));
        assert_eq!(of(&chain, "203.0.113.5", &inside).as_deref(), Some("203.0.113.5"));
        assert_eq!(of(&[], "10.0.0.2", &inside).as_deref(), Some("10.0.0.2"));
        let junk = [("x-forwarded-for", "1.1.1.1, unknown, 10.0.0.7")];
        assert_eq!(of(&junk, "10.0.0.2", &inside).as_deref(), Some("10.0.0.7"));
        assert_eq!(of(&chain, "unix:", &inside), None);
    }

    #[test]
    fn https_is_believed_from_the_connection_and_from_trusted_proxies() {
        let (headers, none) = (map(&[("x-forwarded-proto", "https")]), HeaderMap::new());
        let https = HeaderValue::from_static("https");
        for (headers, is_trusted, proto, tls, expected) in [
            (&headers, true, None, false, true),
            (&headers, false, None, false, false),
            (&none, true, Some(&https), false, true),
            (&none, true, None, false, false),
            (&none, false, None, true, true),
        ] {
            let asked = Asked {
                is_trusted,
                proto,
                tls,
                ..plain(headers)
            };
            assert_eq!(asked.is_https(), expected, "{asked:?}");
        }
    }

    #[test]
    fn cookies_are_found_among_others_and_nothing_like_them() {
        let headers = map(&[("cookie", "a=1; xid=no;id=one ;id=two"), ("cookie", "b=; c")]);
        let of = |name| plain(&headers).cookie(name).map(<[u8]>::to_vec);
        assert_eq!(of("a").as_deref(), Some(&b"1"[..]));
        assert_eq!(of("id").as_deref(), Some(&b"one"[..]));
        assert_eq!(of("b").as_deref(), Some(&b""[..]));
        assert_eq!((of("c"), of("i"), of("")), (None, None, None));
    }
}
