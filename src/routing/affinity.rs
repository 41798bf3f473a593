//! Who a client is while two colors share the traffic, and the cookie by which a new one is known again.

use std::net::IpAddr;

use http::HeaderValue;

use super::Asked;
use crate::config::AffinityKey;
use crate::rollout::{bucket_of_id, bucket_of_key, id_in_bucket};

/// The cookie that is set for new clients. It says who, never which color.
pub const COOKIE: &str = "cutover_id";

/// A longer key is none: hashing it is no work that a client may give us.
const KEY_MAX: usize = 4096;

/// What an app's clients are known by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Affinity {
    /// By what.
    pub key: AffinityKey,
    /// What keys are hashed with in this rollout.
    pub salt: u64,
}

impl Affinity {
    /// The bucket of a client that can be known; `None` when one has to be drawn.
    #[must_use]
    pub fn bucket(&self, asked: &Asked<'_>) -> Option<u32> {
        let key = match &self.key {
            AffinityKey::None => return None,
            AffinityKey::Ours => {
                let id = asked.cookie(COOKIE).and_then(id_of)?;
                return Some(bucket_of_id(self.salt, id));
            }
            AffinityKey::Ip => return asked.client().map(|ip| bucket_of_address(self.salt, ip)),
            AffinityKey::Header(name) => asked.headers.get(name)?.as_bytes(),
            AffinityKey::Cookie(name) => asked.cookie(name)?,
        };
        (1..=KEY_MAX)
            .contains(&key.len())
            .then(|| bucket_of_key(self.salt, key))
    }

    /// Whether a client whose bucket was drawn is to be known by it from now on.
    #[must_use]
    pub fn introduces(&self) -> bool {
        self.key == AffinityKey::Ours
    }
}

/// A machine has a whole IPv6 network, and may change its address in it every hour.
fn bucket_of_address(salt: u64, ip: IpAddr) -> u32 {
    match ip {
        IpAddr::V4(ip) => bucket_of_key(salt, &ip.octets()),
        IpAddr::V6(ip) => bucket_of_key(salt, &ip.octets()[..8]),
    }
}

/// What a cookie of ours holds: 16 hex digits in lower case. Anything else is not ours.
fn id_of(value: &[u8]) -> Option<u64> {
    let lower = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    if value.len() != 16 || !value.iter().all(lower) {
        return None;
    }
    u64::from_str_radix(std::str::from_utf8(value).ok()?, 16).ok()
}

/// A client to be known from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Newcomer {
    /// Its bucket.
    pub bucket: u32,
    /// What its key will be hashed with.
    pub salt: u64,
    /// Its side of the connection is https.
    pub secure: bool,
}

impl Newcomer {
    /// The `Set-Cookie` value that introduces it; `noise` makes it unlike others of its bucket.
    ///
    /// For the session only: longer than that nobody needs to be known.
    #[must_use]
    pub fn cookie(&self, noise: u64) -> HeaderValue {
        let id = id_in_bucket(self.salt, self.bucket, noise);
        let secure = if self.secure { "; Secure" } else { "" };
        let text = format!("{COOKIE}={id:016x}; Path=/; HttpOnly; SameSite=Lax{secure}");
        HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static(""))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test panics to fail")]
mod tests {
    use http::{HeaderMap, HeaderName, Uri};

    use super::*;

    fn bucket(key: AffinityKey, fields: &[(&'static str, &str)], peer: &str) -> Option<u32> {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        let uri = Uri::from_static("/");
        let asked = Asked {
            client: peer.parse().ok(),
            ..Asked::plain(&uri, &headers)
        };
        Affinity { key, salt: 7 }.bucket(&asked)
    }

    #[test]
    fn a_newcomer_is_known_again_in_its_bucket() {
        for (at, secure) in [(0, false), (4_321, true), (9_999, false)] {
            let newcomer = Newcomer {
                bucket: at,
                salt: 7,
                secure,
            };
            let cookie = newcomer.cookie(0xFEED).to_str().unwrap().to_owned();
            assert!(cookie.contains("; HttpOnly; SameSite=Lax"), "{cookie}");
            assert_eq!(cookie.ends_with("; Secure"), secure, "{cookie}");
            let (pair, _) = cookie.split_once(';').unwrap();
            assert_eq!(
                bucket(AffinityKey::Ours, &[("cookie", pair)], ""),
                Some(at),
                "{pair}"
            );
        }
    }

    #[test]
    fn what_is_no_key_is_drawn_and_nothing_hostile_is_more_than_that() {
        let long = "x".repeat(KEY_MAX + 1);
        for value in [
            "",
            "cutover_id",
            "cutover_id=",
            "cutover_id=0123456789ABCDEF",
            "cutover_id=0123456789abcde",
            "cutover_id=0123456789abcdef0",
            "cutover_id=+123456789abcdef",
            "cutover_id=\u{ff}\u{ff}\u{ff}\u{ff}\u{ff}\u{ff}\u{ff}\u{ff}",
            "xcutover_id=0123456789abcdef",
        ] {
            assert_eq!(
                bucket(AffinityKey::Ours, &[("cookie", value)], "1.1.1.1"),
                None,
                "{value:?}"
            );
        }
        let by_header = || AffinityKey::Header(HeaderName::from_static("x-user"));
        assert_eq!(bucket(by_header(), &[("x-user", &long)], ""), None);
        assert_eq!(bucket(by_header(), &[("x-user", "")], ""), None);
        assert_eq!(bucket(by_header(), &[], ""), None);
        assert!(bucket(by_header(), &[("x-user", "ann")], "").is_some());
        assert!(bucket(by_header(), &[("x-user", "\u{e9}")], "").is_some());
        let by_cookie = || AffinityKey::Cookie("session".to_owned());
        assert_eq!(
            bucket(by_cookie(), &[("cookie", &format!("session={long}"))], ""),
            None
        );
        assert!(bucket(by_cookie(), &[("cookie", "session=s1")], "").is_some());
        assert_eq!(
            bucket(AffinityKey::Ip, &[], ""),
            None,
            "a Unix socket has no address"
        );
        assert_eq!(
            bucket(
                AffinityKey::None,
                &[("cookie", "cutover_id=0123456789abcdef")],
                ""
            ),
            None
        );
    }

    #[test]
    fn addresses_of_one_ipv6_network_are_one_client() {
        let of = |ip| bucket(AffinityKey::Ip, &[], ip);
        assert_eq!(of("2001:db8:1:2::1"), of("2001:db8:1:2:ffff::9"));
        assert_ne!(of("2001:db8:1:2::1"), of("2001:db8:1:3::1"));
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
    }
}
