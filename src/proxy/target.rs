//! What a request is for: the host and target of its head.

use http::header::HOST;
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
