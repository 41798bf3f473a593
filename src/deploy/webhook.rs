//! A step that is a POST to somebody else.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Uri, header};
use http_body_util::Full;
use serde_json::json;

use super::door::Door;
use super::fill::Values;
use super::http::send;
use crate::smoke::start_of;

/// Tell a URL about the step; any 2xx passes.
///
/// # Errors
/// In words, with the answer's beginning.
pub(super) async fn call(url: &str, step: &str, values: &Values, within: Duration) -> Result<String, String> {
    let uri: Uri = url
        .parse()
        .map_err(|error| format!("`{url}` is no URL: {error}"))?;
    let wrong = || format!("`{url}`: write http://host:port/path, or https://");
    let authority = uri.authority().cloned().ok_or_else(wrong)?;
    let host = authority.host();
    let place = |port: u16| format!("{host}:{}", authority.port_u16().unwrap_or(port));
    let door = match uri.scheme_str() {
        Some("http") => Door::plain(place(80), authority.to_string()),
        Some("https") => {
            let name = host.trim_start_matches('[').trim_end_matches(']');
            Door::tls(place(443), authority.to_string(), name)?
        }
        _ => return Err(wrong()),
    };
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let body = json!({
        "schema": "cutover.hook/v1",
        "app": values.app,
        "step": step,
        "color": values.color.as_str(),
        "other": values.other.as_str(),
        "revision": values.revision,
    });
    let request = Request::post(path)
        .header(header::HOST, authority.as_str())
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::USER_AGENT, concat!("cutover/", env!("CARGO_PKG_VERSION")))
        .header(header::CONNECTION, "close")
        .body(Full::new(Bytes::from(body.to_string())))
        .map_err(|error| error.to_string())?;
    let answer = send(&door, request, within)
        .await
        .map_err(|why| format!("{url}: {why}"))?;
    let said = start_of(&answer.body);
    if answer.status.is_success() {
        Ok(format!("{} {said}", answer.status.as_u16()).trim_end().to_owned())
    } else {
        Err(format!("{url} answered {}: {said}", answer.status))
    }
}
