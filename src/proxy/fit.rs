//! A request in the form of the connection that it goes out on: HTTP/1.1 or HTTP/2 (RFC 9113 §8.2.2, §8.3.1).

use http::header::{CONNECTION, HOST, HeaderValue, TRANSFER_ENCODING, UPGRADE};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Request, Uri, Version};
use http_body::Body;

use super::error::ProxyError;
use super::target::origin_form;
use super::upload::RequestBody;
use crate::upstream::Line;

/// Give it that form. It may have had the other one before, for a connection on which it was never sent.
pub(super) fn fit(request: &mut Request<RequestBody>, line: &Line<RequestBody>) -> Result<(), ProxyError> {
    match (line.is_http2(), request.version() == Version::HTTP_2) {
        (true, false) => to_http2(request, line.is_tls()),
        (false, true) => to_http1(request),
        _ => Ok(()),
    }
}

/// `Host` becomes the authority, and what frames an HTTP/1.1 message goes. A wish to switch protocols goes as well:
/// HTTP/2 has none, and a server may leave one unanswered anyway (RFC 9110 §7.8).
fn to_http2(request: &mut Request<RequestBody>, is_tls: bool) -> Result<(), ProxyError> {
    let host = request.headers_mut().remove(HOST);
    let authority = host.and_then(|host| Authority::try_from(host.as_bytes()).ok());
    let mut parts = std::mem::take(request.uri_mut()).into_parts();
    parts.scheme = Some(if is_tls { Scheme::HTTPS } else { Scheme::HTTP });
    parts.authority = Some(authority.ok_or(ProxyError::Malformed("invalid Host field"))?);
    parts
        .path_and_query
        .get_or_insert_with(|| PathAndQuery::from_static("/"));
    *request.uri_mut() =
        Uri::from_parts(parts).map_err(|_| ProxyError::Malformed("invalid target for HTTP/2"))?;
    for name in [TRANSFER_ENCODING, CONNECTION, UPGRADE] {
        request.headers_mut().remove(name);
    }
    *request.version_mut() = Version::HTTP_2;
    Ok(())
}

fn to_http1(request: &mut Request<RequestBody>) -> Result<(), ProxyError> {
    let host = request.uri().authority().map(Authority::as_str);
    let host = host.and_then(|host| HeaderValue::try_from(host).ok());
    *request.uri_mut() = origin_form(request.uri(), None);
    let host = host.ok_or(ProxyError::Malformed("invalid Host field"))?;
    request.headers_mut().insert(HOST, host);
    let streams = !request.body().is_end_stream();
    if streams && request.body().size_hint().exact().is_none() {
        request
            .headers_mut()
            .insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    *request.version_mut() = Version::HTTP_11;
    Ok(())
}

/// A second copy of a request for HTTP/2. Its server may say afterwards that it has not looked at it (RFC 9113 §8.7).
pub(super) struct Spare(http::request::Parts, RequestBody);

impl Spare {
    /// A copy, if its body is here as a whole.
    pub(super) fn of(request: &Request<RequestBody>) -> Option<Self> {
        let body = request.body().copy()?;
        let mut head = Request::new(()).into_parts().0;
        head.method = request.method().clone();
        head.uri = request.uri().clone();
        head.version = request.version();
        head.headers = request.headers().clone();
        Some(Self(head, body))
    }

    /// The request again.
    pub(super) fn request(self) -> Request<RequestBody> {
        Request::from_parts(self.0, self.1)
    }
}

/// Whether the app has said that it has not begun with a request: a stream refused, or behind the last that a GOAWAY
/// lets it finish.
pub(super) fn not_begun(error: &hyper::Error) -> bool {
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = next {
        if let Some(error) = error.downcast_ref::<h2::Error>() {
            return error.is_remote()
                && match error.reason() {
                    Some(h2::Reason::REFUSED_STREAM) => error.is_reset(),
                    Some(h2::Reason::NO_ERROR) => error.is_go_away(),
                    _ => false,
                };
        }
        next = error.source();
    }
    false
}
