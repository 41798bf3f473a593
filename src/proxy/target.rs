//! What a request is for: the host and target of its head.

use http::header::{HOST, HeaderMap, TRANSFER_ENCODING};
use http::{Method, Uri, Version};

use super::error::ProxyError;
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
    if rest.starts_with('/') {
        return rest.parse().unwrap_or(Uri::from_static("/"));
    }
    format!("/{rest}").parse().unwrap_or(Uri::from_static("/"))
}
