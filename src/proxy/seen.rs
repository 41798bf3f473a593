//! One look at the names of a head, in place of a search for each field that matters to a proxy.
//!
//! A search hashes the name it is for; most requests have none of some twenty fields that must be looked for. One walk
//! over the names that are there costs what two searches do.

use http::header::HeaderMap;

/// Which kinds of fields a head has. What is added to the head or taken out later changes nothing here: it is a look
/// at what came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen(u16);

impl Seen {
    /// Meant for one connection: [`strip_hop_by_hop`] has work to do.
    ///
    /// [`strip_hop_by_hop`]: super::headers::strip_hop_by_hop
    pub const HOP_BY_HOP: Self = Self(1);
    /// `Upgrade`, which is one of those too.
    pub const UPGRADE: Self = Self(1 << 1);
    /// `Expect`.
    pub const EXPECT: Self = Self(1 << 2);
    /// The subject of a client's certificate, which only we say.
    pub const SUBJECT: Self = Self(1 << 3);
    /// Something of `Forwarded`, `X-Forwarded-*`, `X-Real-IP`, or what apps read as those.
    pub const FORWARDING: Self = Self(1 << 4);
    /// The proof after a switch.
    pub const VERIFY: Self = Self(1 << 5);
    /// `Accept`.
    pub const ACCEPT: Self = Self(1 << 6);
    /// `Host`.
    pub const HOST: Self = Self(1 << 7);

    /// Look.
    #[must_use]
    pub fn at(headers: &HeaderMap) -> Self {
        headers.keys().fold(Self(0), |seen, name| {
            Self(seen.0 | Self::kind_of(name.as_str()).0)
        })
    }

    /// Whether there is any field of these kinds.
    #[must_use]
    pub fn has(self, kinds: Self) -> bool {
        self.0 & kinds.0 != 0
    }

    fn kind_of(name: &str) -> Self {
        match name {
            "connection"
            | "keep-alive"
            | "proxy-connection"
            | "transfer-encoding"
            | "te"
            | "http2-settings"
            | "proxy-authenticate"
            | "proxy-authorization" => Self::HOP_BY_HOP,
            "upgrade" => Self(Self::HOP_BY_HOP.0 | Self::UPGRADE.0),
            "host" => Self::HOST,
            "accept" => Self::ACCEPT,
            "expect" => Self::EXPECT,
            "forwarded" | "x-forwarded-for" | "x-forwarded-proto" | "x-forwarded-host"
            | "x-forwarded-port" | "x-real-ip" | "x_forwarded_for" | "x_forwarded_proto"
            | "x_forwarded_host" | "x_forwarded_port" | "x_real_ip" => Self::FORWARDING,
            "x-client-cert-subject" => Self::SUBJECT,
            "x-cutover-verify" => Self::VERIFY,
            _ => Self(0),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test panics to fail")]
mod tests {
    use http::header::{HeaderName, HeaderValue};

    use super::super::{headers, origin};
    use super::*;

    fn seen(name: &str) -> Seen {
        let mut map = HeaderMap::new();
        map.insert("x-other", HeaderValue::from_static("1"));
        map.insert(HeaderName::try_from(name).unwrap(), HeaderValue::from_static("1"));
        Seen::at(&map)
    }

    /// Whatever the work that is skipped would change, the look sees.
    #[test]
    fn nothing_that_is_taken_out_escapes_the_look() {
        let names = [
            "connection",
            "keep-alive",
            "proxy-connection",
            "transfer-encoding",
            "upgrade",
            "te",
            "http2-settings",
            "proxy-authenticate",
            "proxy-authorization",
            "trailer",
            "x-other",
            "cookie",
        ];
        for name in names {
            let mut map = HeaderMap::new();
            map.insert(HeaderName::try_from(name).unwrap(), HeaderValue::from_static("1"));
            headers::take_out_hop_by_hop(&mut map);
            assert_eq!(map.is_empty(), seen(name).has(Seen::HOP_BY_HOP), "{name}");
        }
        for name in origin::ONLY_OURS {
            assert!(seen(name.as_str()).has(Seen::FORWARDING), "{name}");
        }
        assert!(seen("upgrade").has(Seen::UPGRADE));
        assert!(seen("expect").has(Seen::EXPECT));
        assert!(seen("x-client-cert-subject").has(Seen::SUBJECT));
        assert!(seen("x-cutover-verify").has(Seen::VERIFY));
        assert!(seen("host").has(Seen::HOST) && seen("accept").has(Seen::ACCEPT));
        assert_eq!(seen("cookie"), Seen(0));
    }
}
