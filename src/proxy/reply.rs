//! Answers of the proxy's own that are no refusals.

use http::header::{CONTENT_TYPE, HeaderValue, LOCATION};
use http::{Response, StatusCode, Uri};

use super::body::ReplyBody;
use super::refusal::text;

/// The answer that sends a client to the same place under https and its usual port.
pub(super) fn redirect(status: StatusCode, host: &str, target: &Uri) -> Option<Response<ReplyBody>> {
    let target = target.path_and_query().map_or("/", |target| target.as_str());
    // `OPTIONS *` has no path.
    let target = if target.starts_with('/') { target } else { "/" };
    let location = HeaderValue::try_from(format!("https://{host}{target}")).ok()?;
    let mut response = Response::new(ReplyBody::own(text(status, "this is served over https")));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    headers.insert(LOCATION, location);
    Some(response)
}

/// A whole 408 for a client that did not finish its head: hyper is out of the way by then.
pub(super) const HEAD_TIMEOUT: &[u8] = b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\n\
    content-type: text/plain; charset=utf-8\r\ncontent-length: 42\r\n\r\n\
    408 Request Timeout: request head timeout\n";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_canned_408_says_its_own_length() {
        let text = std::str::from_utf8(HEAD_TIMEOUT).unwrap_or_default();
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or_default();
        assert!(
            head.contains(&format!("content-length: {}", body.len())),
            "{}",
            body.len()
        );
    }
}
