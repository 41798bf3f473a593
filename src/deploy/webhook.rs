//! A step that is a POST to somebody else.

use std::time::Duration;

use bytes::Bytes;
use http::uri::Scheme;
use http::{Request, Uri, header};
use http_body_util::Full;
use serde_json::json;

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
    let authority = match (uri.scheme(), uri.authority()) {
        (Some(scheme), Some(authority)) if [Scheme::HTTP, Scheme::HTTPS].contains(scheme) => {
            authority.clone()
        }
        _ => return Err(format!("`{url}`: write http://host:port/path, or https://")),
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
    let host = authority.host();
    let (before, usual) = if uri.scheme() == Some(&Scheme::HTTPS) {
        ("https://", 443)
    } else {
        ("", 80)
    };
    let address = format!("{before}{host}:{}", authority.port_u16().unwrap_or(usual));
    let answer = send(&address, request, within)
        .await
        .map_err(|why| format!("{url}: {why}"))?;
    let said = start_of(&answer.body);
    if answer.status.is_success() {
        Ok(format!("{} {said}", answer.status.as_u16()).trim_end().to_owned())
    } else {
        Err(format!("{url} answered {}: {said}", answer.status))
    }
}
