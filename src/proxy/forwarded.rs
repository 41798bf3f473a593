//! `Forwarded` (RFC 7239): read, and written so that it can be read.

use std::borrow::Cow;
use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};

/// One element: what one proxy said of the request that it got.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Element<'a> {
    /// Who asked it.
    pub(super) node: Option<Cow<'a, str>>,
    /// The `Host` that it was asked with.
    pub(super) host: Option<Cow<'a, str>>,
    /// The scheme that it was asked with.
    pub(super) proto: Option<Cow<'a, str>>,
}

/// The elements of a field, the first proxy's first. `None`: it does not follow RFC 7239 §4, so it says nothing.
pub(super) fn parse(field: &str) -> Option<Vec<Element<'_>>> {
    let mut rest = field;
    let mut elements = Vec::new();
    loop {
        let (element, after) = element(rest.trim_start_matches(BLANK))?;
        elements.extend(element);
        rest = after.trim_start_matches(BLANK);
        match rest.strip_prefix(',') {
            Some(after) => rest = after,
            None if rest.is_empty() => return Some(elements),
            None => return None,
        }
    }
}

const BLANK: [char; 2] = [' ', '\t'];

/// One element and what follows it; empty elements of a list count for nothing (RFC 9110 §5.6.1.2).
fn element(text: &str) -> Option<(Option<Element<'_>>, &str)> {
    let mut found = Element::default();
    let mut by = None;
    let mut rest = text;
    let mut any = false;
    loop {
        if !rest.starts_with([';', ',']) && !rest.is_empty() {
            let (name, after) = token(rest)?;
            let (value, after) = value(after.strip_prefix('=')?)?;
            rest = after;
            any = true;
            let place = match name.to_ascii_lowercase().as_str() {
                "for" => &mut found.node,
                "host" => &mut found.host,
                "proto" => &mut found.proto,
                "by" => &mut by,
                // Extensions.
                _ => &mut None,
            };
            // "Each parameter MUST NOT occur more than once per field-value."
            if place.replace(value).is_some() {
                return None;
            }
        }
        match rest.strip_prefix(';') {
            // Some proxies put a blank there, which the grammar has no place for.
            Some(after) => rest = after.trim_start_matches(BLANK),
            None => return Some((any.then_some(found), rest)),
        }
    }
}

fn token(text: &str) -> Option<(&str, &str)> {
    let end = text.find(|c| !is_token(c)).unwrap_or(text.len());
    (end > 0).then(|| text.split_at(end))
}

fn is_token(c: char) -> bool {
    c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c)
}

fn value(text: &str) -> Option<(Cow<'_, str>, &str)> {
    let Some(inside) = text.strip_prefix('"') else {
        return token(text).map(|(value, rest)| (Cow::Borrowed(value), rest));
    };
    let mut unescaped = String::new();
    let mut chars = inside.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => {
                let value = if unescaped.len() == at {
                    Cow::Borrowed(&inside[..at])
                } else {
                    Cow::Owned(unescaped)
                };
                return Some((value, &inside[at + 1..]));
            }
            '\\' => unescaped.push(chars.next()?.1),
            c if c.is_ascii_control() && c != '\t' => return None,
            c => unescaped.push(c),
        }
    }
    None
}

/// The address in a node (RFC 7239 §6) or in an entry of `X-Forwarded-For`: with a port or without, IPv6 with
/// brackets or without. None for `unknown`, hidden names and nonsense.
pub(super) fn address(node: &str) -> Option<IpAddr> {
    let node = node.trim();
    let bare = node.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let address = bare
        .unwrap_or(node)
        .parse::<IpAddr>()
        .ok()
        .or_else(|| Some(node.parse::<SocketAddr>().ok()?.ip()))?;
    Some(address.to_canonical())
}

/// Add an element. `node` is an address, `unknown`, or a hidden name.
pub(super) fn push(field: &mut String, node: &str, host: Option<&str>, proto: Option<&str>) {
    if !field.is_empty() {
        field.push_str(", ");
    }
    field.push_str("for=");
    match node.parse::<IpAddr>() {
        Ok(IpAddr::V6(ip)) => drop(write!(field, "\"[{ip}]\"")),
        _ => push_value(field, node),
    }
    for (name, value) in [("host", host), ("proto", proto)] {
        if let Some(value) = value {
            field.push(';');
            field.push_str(name);
            field.push('=');
            push_value(field, value);
        }
    }
}

/// As it is, or quoted where it has characters that a token has not.
fn push_value(field: &mut String, value: &str) {
    if !value.is_empty() && value.chars().all(is_token) {
        field.push_str(value);
        return;
    }
    field.push('"');
    for c in value.chars() {
        if matches!(c, '"' | '\\') {
            field.push('\\');
        }
        field.push(c);
    }
    field.push('"');
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test panics to fail")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn nodes(field: &str) -> Option<Vec<String>> {
        let node = |element: Element<'_>| element.node.map_or("-".to_owned(), Cow::into_owned);
        Some(parse(field)?.into_iter().map(node).collect())
    }

    #[test]
    fn what_the_rfc_shows_is_read() {
        let all = |field| nodes(field).unwrap().join(" ");
        assert_eq!(all("for=\"_gazonk\""), "_gazonk");
        assert_eq!(
            all("For=\"[2001:db8:cafe::17]:4711\""),
            "[2001:db8:cafe::17]:4711"
        );
        assert_eq!(all("for=192.0.2.60;proto=http;by=203.0.113.43"), "192.0.2.60");
        assert_eq!(
            all("for=192.0.2.43, for=198.51.100.17"),
            "192.0.2.43 198.51.100.17"
        );
        assert_eq!(all("for=_hidden, , for=_SEVKISEK,"), "_hidden _SEVKISEK");
        assert_eq!(all("proto=https;for=1.1.1.1 , host=a"), "1.1.1.1 -");
        let one = &parse("FOR=unknown; Host=\"a\\\"b:80\";PROTO=https;secret=x").unwrap()[0];
        assert_eq!(one.host.as_deref(), Some("a\"b:80"));
        assert_eq!(one.proto.as_deref(), Some("https"));
    }

    #[test]
    fn what_is_not_of_that_form_says_nothing() {
        for bad in [
            "1.2.3.4",
            "for",
            "for=",
            "for=[::1]",
            "for=1.1.1.1:80",
            "for=1.1.1.1 for=2.2.2.2",
            "for=a;for=b",
            "for=\"a",
            "for=\"a\\",
            "for=\"a\"b",
            "=a",
            "for =a",
            "for= a",
            "for=\u{e4}",
            "for=a;;=b",
        ] {
            assert_eq!(nodes(bad), None, "{bad}");
        }
        assert_eq!(nodes("").unwrap(), [""; 0]);
    }

    #[test]
    fn addresses_in_any_dress() {
        let of = |node| address(node).map(|ip| ip.to_string()).unwrap_or_default();
        assert_eq!(of("192.0.2.1"), "192.0.2.1");
        assert_eq!(of(" 192.0.2.1:4711 "), "192.0.2.1");
        assert_eq!(of("2001:db8::1"), "2001:db8::1");
        assert_eq!(of("[2001:db8::1]"), "2001:db8::1");
        assert_eq!(of("[2001:db8::1]:80"), "2001:db8::1");
        assert_eq!(of("::ffff:192.0.2.1"), "192.0.2.1");
        for none in [
            "unknown",
            "_hidden",
            "192.0.2.1:x",
            "192.0.2.256",
            "[::1",
            "",
            "localhost",
        ] {
            assert_eq!(of(none), "", "{none}");
        }
    }

    #[test]
    fn what_is_written_is_quoted_where_it_must_be() {
        let mut field = String::new();
        push(&mut field, "192.0.2.1", Some("a.test"), Some("https"));
        push(&mut field, "2001:db8::1", Some("a.test:8080"), None);
        push(&mut field, "unknown", None, None);
        assert_eq!(
            field,
            "for=192.0.2.1;host=a.test;proto=https, for=\"[2001:db8::1]\";host=\"a.test:8080\", for=unknown"
        );
    }

    proptest! {
        #[test]
        fn written_and_read(
            all in proptest::collection::vec(("[ -~]{0,20}", proptest::option::of("[ -~]{0,20}"), proptest::option::of("[a-z]{1,5}")), 1..5)
        ) {
            let mut field = String::new();
            for (node, host, proto) in &all {
                push(&mut field, node, host.as_deref(), proto.as_deref());
            }
            let read = parse(&field).unwrap();
            prop_assert_eq!(read.len(), all.len());
            for (element, (node, host, proto)) in read.iter().zip(&all) {
                let said = element.node.as_deref().unwrap();
                prop_assert!(said == node || address(said) == address(node), "{said} {node}");
                prop_assert_eq!(element.host.as_deref(), host.as_deref());
                prop_assert_eq!(element.proto.as_deref(), proto.as_deref());
            }
        }

        #[test]
        fn anything(text in "[ -~\\t,;=\"\\\\]{0,60}") {
            let _ = parse(&text);
        }
    }
}
