//! What a request is for: the host and target of its head.

use http::header::{COOKIE, Entry, HOST, HeaderMap, HeaderValue, TRANSFER_ENCODING};
use http::{Method, Uri, Version};

use super::error::ProxyError;
use super::extended;
use crate::routing::HostBuffer;

/// What hyper lets through and a proxy must not (RFC 9112 §3.2, RFC 9110 §7.2).
pub(super) fn check_head<'b>(
    head: &http::request::Parts,
    hosts: &'b mut HostBuffer,
) -> Result<&'b str, ProxyError> {
    if head.method == Method::CONNECT {
        return Err(ProxyError::Malformed("CONNECT is not served"));
    }
    if !is_for_a_proxy(head) {
        return Err(ProxyError::Malformed("invalid target"));
    }
    let mut given = head.headers.get_all(HOST).iter();
    let field = match (given.next(), given.next()) {
        (Some(_), Some(_)) => return Err(ProxyError::Malformed("several Host fields")),
        (None, _) if head.version != Version::HTTP_10 => return Err(ProxyError::Malformed("no Host field")),
        (field, _) => field,
    };
    let field = match field {
        Some(value) => Some(
            value
                .to_str()
                .map_err(|_| ProxyError::Malformed("invalid Host field"))?,
        ),
        None => None,
    };
    // The field must be valid even where the absolute form overrides it: others may read it.
    let authority = match (head.uri.authority(), field) {
        (Some(authority), _) => authority.as_str(),
        (None, Some(field)) => field,
        (None, None) => return Ok(""),
    };
    if authority.contains('@') {
        return Err(ProxyError::Malformed("user information in the target"));
    }
    if let Some(field) = field
        && head.uri.authority().is_some()
        && HostBuffer::new().normalise(field).is_none()
    {
        return Err(ProxyError::Malformed("invalid Host field"));
    }
    hosts
        .normalise(authority)
        .ok_or(ProxyError::Malformed("invalid Host field"))
}

/// Write a head that came over HTTP/2 as HTTP/1.1 has it, so that everything behind sees one form: the authority in
/// `Host`, the target in origin form, one `Cookie` (RFC 9113 §8.2.3, §8.3.1). What may not be is refused by
/// [`check_head`] then, or here; so are more fields than `fields_max`, which hyper counts in HTTP/1 alone.
pub(super) fn settle_http2(head: &mut http::request::Parts, fields_max: usize) -> Result<(), ProxyError> {
    join_cookies(&mut head.headers);
    extended::settle(head);
    if head.headers.len() > fields_max {
        return Err(ProxyError::TooManyFields);
    }
    let target = head.uri.path_and_query().map_or("", |target| target.as_str());
    let asterisk = target == "*" && head.method == Method::OPTIONS;
    if !target.starts_with('/') && !asterisk && head.method != Method::CONNECT {
        return Err(ProxyError::Malformed("invalid :path"));
    }
    if let Some(authority) = head.uri.authority() {
        let value = HeaderValue::try_from(authority.as_str())
            .map_err(|_| ProxyError::Malformed("invalid :authority"))?;
        // §8.3.1: a Host that names another place makes the request malformed.
        let mut hosts = head.headers.get_all(HOST).iter();
        if hosts.any(|host| !host.as_bytes().eq_ignore_ascii_case(value.as_bytes())) {
            return Err(ProxyError::Malformed("Host is not :authority"));
        }
        head.headers.insert(HOST, value);
    }
    let mut parts = http::uri::Parts::default();
    parts.path_and_query = head.uri.path_and_query().cloned();
    head.uri = Uri::from_parts(parts).map_err(|_| ProxyError::Malformed("invalid :path"))?;
    Ok(())
}

/// Clients may split `Cookie` so that it compresses better; HTTP/1 has one.
fn join_cookies(headers: &mut HeaderMap) {
    let Entry::Occupied(mut cookies) = headers.entry(COOKIE) else {
        return;
    };
    if cookies.iter().nth(1).is_none() {
        return;
    }
    let crumbs: Vec<&[u8]> = cookies.iter().map(HeaderValue::as_bytes).collect();
    // Valid values joined by valid bytes.
    if let Ok(joined) = HeaderValue::from_bytes(&crumbs.join(&b"; "[..])) {
        cookies.insert(joined);
    }
}

/// `/path`, `http://host/path`, or `OPTIONS *`. hyper also takes `a:80` for an authority, and `://a/` for a URL.
fn is_for_a_proxy(head: &http::request::Parts) -> bool {
    let uri = &head.uri;
    let form = match uri.scheme_str() {
        None => uri.authority().is_none(),
        Some(scheme) => scheme == "http" || scheme == "https",
    };
    form && (uri.path().starts_with('/') || (head.method == Method::OPTIONS && uri.path() == "*"))
}

/// The one coding that a body may come in. hyper looks at the last of a list only; what stands before it would be
/// lost on the way, and other servers read such lists in other ways (RFC 9112 §6.1).
pub(super) fn check_coding(headers: &HeaderMap) -> Result<(), ProxyError> {
    let mut given = headers.get_all(TRANSFER_ENCODING).iter();
    match (given.next(), given.next()) {
        (None, _) => Ok(()),
        (Some(coding), None) if coding.as_bytes().eq_ignore_ascii_case(b"chunked") => Ok(()),
        _ => Err(ProxyError::Malformed("transfer coding other than `chunked`")),
    }
}

/// Path and query alone, without the prefix that the service strips.
pub(super) fn origin_form(uri: &Uri, strip: Option<&str>) -> Uri {
    let target = uri.path_and_query().map_or("/", |target| target.as_str());
    let rest = strip
        .and_then(|prefix| target.strip_prefix(prefix))
        .unwrap_or(target);
    if rest.starts_with('/') || rest == "*" {
        return rest.parse().unwrap_or(Uri::from_static("/"));
    }
    format!("/{rest}").parse().unwrap_or(Uri::from_static("/"))
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn settled(
        method: &str,
        target: &str,
        fields: &[(&str, &str)],
    ) -> Result<http::request::Parts, ProxyError> {
        let mut request = Request::builder()
            .version(Version::HTTP_2)
            .method(method)
            .uri(target);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let (mut head, ()) = request.body(()).unwrap().into_parts();
        settle_http2(&mut head, 4).map(|()| head)
    }

    #[test]
    fn a_head_of_http2_is_told_in_the_words_of_http1() {
        let crumbs = [("cookie", "a=1"), ("cookie", "b=2"), ("cookie", "c=3")];
        let head = settled("GET", "https://shop.test:8443/a?b", &crumbs).unwrap();
        assert_eq!(head.uri, "/a?b");
        assert_eq!(head.headers["host"], "shop.test:8443");
        let cookies: Vec<_> = head.headers.get_all("cookie").iter().collect();
        assert_eq!(cookies, ["a=1; b=2; c=3"]);
        let head = settled("GET", "http://shop.test/", &[("host", "SHOP.test")]).unwrap();
        assert_eq!(head.headers.get_all("host").iter().count(), 1);
        assert_eq!(settled("OPTIONS", "*", &[("host", "h")]).unwrap().uri, "*");
    }

    #[test]
    fn one_request_names_one_place() {
        let authority = "http://shop.test/";
        for hosts in [
            &["evil.test"][..],
            &["shop.test", "evil.test"],
            &["shop.test:81"],
            &[""],
        ] {
            let fields: Vec<_> = hosts.iter().map(|host| ("host", *host)).collect();
            let settled = settled("GET", authority, &fields);
            assert_eq!(
                settled.err(),
                Some(ProxyError::Malformed("Host is not :authority")),
                "{hosts:?}"
            );
        }
        assert!(settled("GET", "*", &[("host", "h")]).is_err());
    }

    #[test]
    fn the_origin_form_keeps_the_asterisk() {
        assert_eq!(origin_form(&Uri::from_static("*"), None), "*");
        assert_eq!(origin_form(&Uri::from_static("http://h"), None), "/");
        assert_eq!(origin_form(&Uri::from_static("/api"), Some("/api")), "/");
        assert_eq!(origin_form(&Uri::from_static("/api/x?y"), Some("/api")), "/x?y");
    }
}
