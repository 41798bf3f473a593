//! What of a request decides where it goes. Made of borrowed parts: nothing is copied, and what nobody looks at costs
//! nothing.

use std::net::IpAddr;

use http::header::COOKIE;
use http::{HeaderMap, HeaderName, Uri};

use crate::config::Network;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// A request as routing sees it.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// Its target.
    pub uri: &'a Uri,
    /// Its fields as they came.
    pub headers: &'a HeaderMap,
    /// The other end of the connection; `None` over a Unix socket.
    pub peer: Option<IpAddr>,
    /// The connection is TLS.
    pub tls: bool,
    /// Networks whose forwarding fields are believed.
    pub trusted: &'a [Network],
}

impl<'a> Asked<'a> {
    /// The path, as it came.
    #[must_use]
    pub fn path(&self) -> &'a str {
        self.uri.path()
    }

    /// Whether the peer may speak for other clients.
    #[must_use]
    pub fn is_forwarded(&self) -> bool {
        !self.trusted.is_empty() && self.peer.is_some_and(|ip| is_among(ip, self.trusted))
    }

    /// The client's address: the peer's or, where that is a trusted proxy, the last one in `X-Forwarded-For` that is
    /// none.
    #[must_use]
    pub fn client(&self) -> Option<IpAddr> {
        let named = if self.is_forwarded() {
            nearest_stranger(self.headers, self.trusted)
        } else {
            None
        };
        named.or(self.peer).map(|ip| ip.to_canonical())
    }

    /// The client's side is https, as the connection or a trusted proxy says.
    #[must_use]
    pub fn is_https(&self) -> bool {
        let said = || self.headers.get(X_FORWARDED_PROTO);
        self.tls || (self.is_forwarded() && said().is_some_and(|proto| proto == "https"))
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

fn is_among(ip: IpAddr, networks: &[Network]) -> bool {
    networks.iter().any(|network| network.contains(ip))
}

/// The last address of the chain that is no trusted proxy; none when something else stands in its way.
fn nearest_stranger(headers: &HeaderMap, trusted: &[Network]) -> Option<IpAddr> {
    for field in headers.get_all(X_FORWARDED_FOR).iter().rev() {
        for text in field.to_str().ok()?.rsplit(',') {
            let address = text.trim().parse().ok()?;
            if !is_among(address, trusted) {
                return Some(address);
            }
        }
    }
    None
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test panics to fail")]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn map(fields: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    fn asked<'a>(headers: &'a HeaderMap, peer: &str, trusted: &'a [Network]) -> Asked<'a> {
        static ROOT: std::sync::LazyLock<Uri> = std::sync::LazyLock::new(|| Uri::from_static("/"));
        Asked {
            uri: &ROOT,
            headers,
            peer: peer.parse().ok(),
            tls: false,
            trusted,
        }
    }

    fn inside() -> [Network; 1] {
        [Network {
            address: "10.0.0.0".parse().unwrap(),
            prefix: 8,
        }]
    }

    #[test]
    fn the_client_is_whom_trusted_proxies_name() {
        let of = |fields: &[(&'static str, &str)], peer: &str, trusted: &[Network]| {
            let headers = map(fields);
            asked(&headers, peer, trusted).client().map(|ip| ip.to_string())
        };
        let chain = [
            ("x-forwarded-for", "1.1.1.1, 9.9.9.9"),
            ("x-forwarded-for", "10.0.0.7"),
        ];
        assert_eq!(of(&chain, "10.0.0.2", &inside()).as_deref(), Some("9.9.9.9"));
        assert_eq!(of(&chain, "10.0.0.2", &[]).as_deref(), Some("10.0.0.2"));
        assert_eq!(
            of(&chain, "203.0.113.5", &inside()).as_deref(),
            Some("203.0.113.5")
        );
        assert_eq!(of(&[], "10.0.0.2", &inside()).as_deref(), Some("10.0.0.2"));
        let junk = [("x-forwarded-for", "1.1.1.1, unknown, 10.0.0.7")];
        assert_eq!(of(&junk, "10.0.0.2", &inside()).as_deref(), Some("10.0.0.2"));
        assert_eq!(of(&[], "::ffff:1.2.3.4", &[]).as_deref(), Some("1.2.3.4"));
        assert_eq!(of(&chain, "unix:", &inside()), None);
    }

    #[test]
    fn https_is_believed_from_the_connection_and_from_trusted_proxies() {
        let headers = map(&[("x-forwarded-proto", "https")]);
        let trusted = inside();
        assert!(asked(&headers, "10.0.0.2", &trusted).is_https());
        assert!(!asked(&headers, "203.0.113.5", &trusted).is_https());
        let none = HeaderMap::new();
        let mut tls = asked(&none, "203.0.113.5", &trusted);
        assert!(!tls.is_https());
        tls.tls = true;
        assert!(tls.is_https());
    }

    #[test]
    fn cookies_are_found_among_others_and_nothing_like_them() {
        let headers = map(&[("cookie", "a=1; xid=no;id=one ;id=two"), ("cookie", "b=; c")]);
        let of = |name| asked(&headers, "1.1.1.1", &[]).cookie(name).map(<[u8]>::to_vec);
        assert_eq!(of("a").as_deref(), Some(&b"1"[..]));
        assert_eq!(of("id").as_deref(), Some(&b"one"[..]));
        assert_eq!(of("b").as_deref(), Some(&b""[..]));
        assert_eq!((of("c"), of("i"), of("")), (None, None, None));
    }
}
