//! Host and path to a service, in time that does not grow with the number of routes.

use std::collections::HashMap;
use std::fmt;
use std::net::Ipv6Addr;

use crate::config::{HostPattern, PathMatch};

/// Where a service stands in the table: index of its app, index of the service in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Index into [`super::RoutingTable::apps`].
    pub app: usize,
    /// Index into [`super::AppRoute::services`].
    pub service: usize,
}

/// All matches of a configuration. Made anew by a reload only; a switch keeps it.
#[derive(Debug, Default)]
pub struct Matcher {
    exact: HashMap<Box<str>, Paths>,
    below: HashMap<Box<str>, Paths>,
    any: Paths,
}

#[derive(Debug, Default)]
struct Paths {
    exact: HashMap<Box<str>, Place>,
    prefixes: HashMap<Box<str>, Place>,
    /// Bytes of the longest prefix: what a client sends beyond it costs nothing.
    longest: usize,
    /// The service at `/`, apart because most apps have nothing else.
    root: Option<Place>,
}

impl Matcher {
    /// Add a service under each of its app's hosts (none = any host).
    pub fn add(&mut self, hosts: &[HostPattern], path: &PathMatch, place: Place) {
        if hosts.is_empty() {
            self.any.add(path, place);
        }
        for host in hosts {
            let paths = match host {
                HostPattern::Exact(name) => self.exact.entry(name.as_str().into()),
                HostPattern::Below(name) => self.below.entry(name.as_str().into()),
            };
            paths.or_default().add(path, place);
        }
    }

    /// The service for a host (lower case, no port) and a path (no query).
    ///
    /// The most specific host decides alone, as in nginx: exact name, then the longest wildcard, then any.
    #[must_use]
    pub fn find(&self, host: &str, path: &str) -> Option<Place> {
        self.paths_of(host).find(path)
    }

    fn paths_of(&self, host: &str) -> &Paths {
        if !self.exact.is_empty()
            && let Some(paths) = self.exact.get(host)
        {
            return paths;
        }
        if !self.below.is_empty() {
            let mut rest = host;
            while let Some((_, parent)) = rest.split_once('.') {
                if let Some(paths) = self.below.get(parent) {
                    return paths;
                }
                rest = parent;
            }
        }
        &self.any
    }
}

impl Paths {
    fn add(&mut self, path: &PathMatch, place: Place) {
        match path {
            PathMatch::Exact(path) => drop(self.exact.insert(path.as_str().into(), place)),
            PathMatch::Prefix(prefix) if prefix == "/" => self.root = Some(place),
            PathMatch::Prefix(prefix) => {
                self.longest = self.longest.max(prefix.len());
                self.prefixes.insert(prefix.as_str().into(), place);
            }
        }
    }

    fn find(&self, path: &str) -> Option<Place> {
        if !self.exact.is_empty()
            && let Some(place) = self.exact.get(path)
        {
            return Some(*place);
        }
        if !self.prefixes.is_empty() {
            // A prefix ends where the path does or before a slash, so the search begins at the last place for that.
            let mut rest = match path.as_bytes().get(..=self.longest) {
                Some(start) => &path[..start.iter().rposition(|byte| *byte == b'/').unwrap_or(0)],
                None => path,
            };
            loop {
                if let Some(place) = self.prefixes.get(rest) {
                    return Some(*place);
                }
                match rest.rfind('/') {
                    Some(slash) if slash > 0 => rest = &rest[..slash],
                    _ => break,
                }
            }
        }
        self.root
    }
}

/// What a byte of a host's name becomes, 0 where it may not be in one: unreserved, sub-delims, percent (RFC 3986
/// §3.2.2). Colons and brackets are an IPv6 address's alone.
const HOST_BYTES: [u8; 256] = {
    let mut table = [0; 256];
    let mut byte = 0_u8;
    while byte < 128 {
        let other = b"-._~!$&'()*+,;=%";
        let mut at = 0;
        let mut fine = byte.is_ascii_alphanumeric();
        while at < other.len() {
            fine = fine || other[at] == byte;
            at += 1;
        }
        if fine {
            table[byte as usize] = byte.to_ascii_lowercase();
        }
        byte += 1;
    }
    table
};

/// A host name in lower case without port, kept on the stack when it has to be changed at all.
pub struct HostBuffer {
    bytes: [u8; Self::MAX],
    length: usize,
}

impl HostBuffer {
    /// The longest name that DNS allows, and room for the brackets of an address.
    const MAX: usize = 255;

    /// An empty buffer.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            bytes: [0; Self::MAX],
            length: 0,
        }
    }

    /// Normalise a `Host` value or URI authority: no port, no final dot, lower case. `None` when it is no host at
    /// all (RFC 9110 §7.2): such a request is answered 400.
    pub fn normalise(&mut self, authority: &str) -> Option<&str> {
        let host = without_port(authority)?;
        let host = host.strip_suffix('.').unwrap_or(host);
        if host.is_empty() || host.len() > Self::MAX || !is_well_formed(host) {
            return None;
        }
        let is_address = host.starts_with('[');
        for (to, from) in self.bytes.iter_mut().zip(host.bytes()) {
            *to = match HOST_BYTES[usize::from(from)] {
                0 if is_address && b"[]:".contains(&from) => from,
                0 => return None,
                lower => lower,
            };
        }
        self.length = host.len();
        std::str::from_utf8(&self.bytes[..self.length]).ok()
    }
}

impl Default for HostBuffer {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for HostBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HostBuffer")
            .field("length", &self.length)
            .finish_non_exhaustive()
    }
}

/// What no single character tells: an address in the brackets, two digits behind each percent sign.
fn is_well_formed(host: &str) -> bool {
    if let Some(literal) = host.strip_prefix('[') {
        return literal
            .strip_suffix(']')
            .is_some_and(|address| address.parse::<Ipv6Addr>().is_ok());
    }
    if !host.contains('%') {
        return true;
    }
    let mut encoded = host.split('%').skip(1);
    encoded.all(|rest| rest.len() >= 2 && rest.bytes().take(2).all(|digit| digit.is_ascii_hexdigit()))
}

fn without_port(authority: &str) -> Option<&str> {
    let (host, port) = if authority.starts_with('[') {
        let end = authority.find(']')? + 1;
        let (host, rest) = authority.split_at(end);
        (
            host,
            if rest.is_empty() {
                ""
            } else {
                rest.strip_prefix(':')?
            },
        )
    } else {
        authority.split_once(':').unwrap_or((authority, ""))
    };
    (port.len() <= 5 && port.bytes().all(|byte| byte.is_ascii_digit())).then_some(host)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test panics to fail")]
    use super::*;

    fn place(app: usize) -> Place {
        Place { app, service: 0 }
    }

    fn prefix(path: &str) -> PathMatch {
        PathMatch::Prefix(path.to_owned())
    }

    #[test]
    fn longest_prefix_wins_on_segment_boundaries_and_exact_beats_it() {
        let mut matcher = Matcher::default();
        matcher.add(&[], &prefix("/"), place(0));
        matcher.add(&[], &prefix("/api"), place(1));
        matcher.add(&[], &prefix("/api/v2"), place(2));
        matcher.add(&[], &PathMatch::Exact("/api/v2/ping".into()), place(3));
        for (path, app) in [
            ("/", 0),
            ("/apix", 0),
            ("/api", 1),
            ("/api/", 1),
            ("/api/v20", 1),
            ("/api/v2/x/y", 2),
            ("/api/v2/ping", 3),
            ("/api/v2/ping/", 2),
            ("/api/v2////////////////////////", 2),
            ("/apiapiapiapiapi", 0),
            ("/é/éééééééééééé", 0),
            ("*", 0),
        ] {
            assert_eq!(matcher.find("any.example", path), Some(place(app)), "{path}");
        }
    }

    #[test]
    fn without_a_root_service_other_paths_match_nothing() {
        let mut matcher = Matcher::default();
        matcher.add(&[], &prefix("/api"), place(0));
        assert_eq!(matcher.find("h", "/other"), None);
    }

    #[test]
    fn the_most_specific_host_decides_alone() {
        let mut matcher = Matcher::default();
        matcher.add(
            &[HostPattern::Exact("shop.example.com".into())],
            &prefix("/only"),
            place(0),
        );
        matcher.add(
            &[HostPattern::Below("example.com".into())],
            &prefix("/"),
            place(1),
        );
        matcher.add(
            &[HostPattern::Below("b.example.com".into())],
            &prefix("/"),
            place(2),
        );
        matcher.add(&[], &prefix("/"), place(3));
        assert_eq!(matcher.find("shop.example.com", "/only/x"), Some(place(0)));
        assert_eq!(matcher.find("shop.example.com", "/"), None);
        assert_eq!(matcher.find("a.example.com", "/"), Some(place(1)));
        assert_eq!(matcher.find("a.b.example.com", "/"), Some(place(2)));
        assert_eq!(matcher.find("example.com", "/"), Some(place(3)));
    }

    #[test]
    fn hosts_are_normalised_or_refused() {
        let mut buffer = HostBuffer::new();
        for (given, wanted) in [
            ("Example.COM:8080", "example.com"),
            ("example.com.", "example.com"),
            ("[::1]:80", "[::1]"),
            ("127.0.0.1", "127.0.0.1"),
        ] {
            assert_eq!(buffer.normalise(given), Some(wanted));
        }
        let long = "a".repeat(256);
        for bad in [
            "",
            ":80",
            "a b",
            "a/b",
            "a@b",
            "exa\0mple",
            "[::1",
            "[::1]x",
            "a:b",
            "a:123456",
            "é",
            &long,
        ] {
            assert_eq!(buffer.normalise(bad), None, "{bad:?}");
        }
    }
}
