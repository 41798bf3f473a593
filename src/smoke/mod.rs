//! Smoke probes: requests to the target color before anybody else gets there, and what their answers must be. Pure: who
//! sends them (the deploy beside the operator, the gate in the server) is not known here.

pub(crate) mod fill;

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, header};
use http_body_util::Full;
use serde_json::Value;

use crate::config::{App, PathMatch, Service, SmokeProbe};
use fill::{Env, Values};

/// A value that a probe captured is cut at so many bytes.
const CAPTURE_MAX: usize = 4096;

/// An answer as far as it is judged.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Heard<'a> {
    pub(crate) status: u16,
    pub(crate) headers: &'a HeaderMap,
    pub(crate) body: &'a [u8],
    pub(crate) took: Duration,
}

/// The service of an app that answers a path, and what the path is there.
pub(crate) fn service<'a>(app: &'a App, path: &str) -> Option<(&'a Service, String)> {
    let bare = path.split('?').next().unwrap_or(path);
    let fits = |service: &&Service| match &service.matches {
        PathMatch::Exact(exact) => exact == bare,
        PathMatch::Prefix(prefix) if prefix == "/" => true,
        PathMatch::Prefix(prefix) => bare
            .strip_prefix(prefix.as_str())
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/')),
    };
    let weight = |service: &&Service| match &service.matches {
        PathMatch::Exact(_) => usize::MAX,
        PathMatch::Prefix(prefix) => prefix.len(),
    };
    let service = app.services.values().filter(fits).max_by_key(weight)?;
    let path = match &service.matches {
        PathMatch::Prefix(prefix) if service.strip_prefix && prefix != "/" => {
            let rest = path.strip_prefix(prefix.as_str()).unwrap_or(path);
            if rest.starts_with('/') {
                rest.to_owned()
            } else {
                format!("/{rest}")
            }
        }
        _ => path.to_owned(),
    };
    Some((service, path))
}

/// The request of a probe, for `path` at an endpoint whose own name is `host`.
///
/// # Errors
/// What cannot be filled in or sent.
pub(crate) fn request(
    probe: &SmokeProbe,
    (path, host): (&str, String),
    values: &mut Values,
    env: &Env<'_>,
) -> Result<Request<Full<Bytes>>, String> {
    let unusable = |what: &str| format!("{what} cannot be sent");
    let body = values.fill(&probe.body, env)?;
    let mut builder = Request::builder().method(probe.method.as_str()).uri(path);
    let mut host = host;
    for (name, value) in &probe.headers {
        let value = values.fill(value, env)?;
        if name == "host" {
            host = value;
            continue;
        }
        let name = HeaderName::try_from(name.as_str()).map_err(|_| unusable(name))?;
        let value = HeaderValue::try_from(value).map_err(|_| unusable(name.as_str()))?;
        builder = builder.header(name, value);
    }
    let host = HeaderValue::try_from(host).map_err(|_| unusable("host"))?;
    builder = builder
        .header(header::HOST, host)
        .header(header::CONNECTION, "close");
    let mut request = builder
        .body(Full::new(Bytes::from(body)))
        .map_err(|error| error.to_string())?;
    request
        .headers_mut()
        .entry(header::USER_AGENT)
        .or_insert(HeaderValue::from_static(concat!(
            "cutover-smoke/",
            env!("CARGO_PKG_VERSION")
        )));
    Ok(request)
}

/// Judge an answer; what it captures is in `values` then. The answer is a line about it.
///
/// # Errors
/// What came, and what was wanted.
pub(crate) fn settle(
    probe: &SmokeProbe,
    (asked, answer): (&str, Heard<'_>),
    values: &mut Values,
    env: &Env<'_>,
) -> Result<String, String> {
    let line = format!("{asked} → {} in {} ms", answer.status, answer.took.as_millis());
    let wrong = judge(probe, &answer, values, env);
    if !wrong.is_empty() {
        let body = start_of(answer.body);
        let body = if body.is_empty() { "empty".to_owned() } else { body };
        return Err(format!("{line}; {}\n  body: {body}", wrong.join("; ")));
    }
    let json = serde_json::from_slice::<Value>(answer.body).unwrap_or_default();
    for (name, pointer) in &probe.capture {
        let value = match json.pointer(pointer) {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Null) | None => {
                let body = start_of(answer.body);
                return Err(format!(
                    "{line}; the answer has no `{pointer}` to capture as {name}\n  body: {body}"
                ));
            }
            Some(value) => value.to_string(),
        };
        let value: String = value.chars().take(CAPTURE_MAX).collect();
        values.captured.insert(name.clone(), value);
    }
    Ok(line)
}

/// The beginning of a body, on one line.
pub(crate) fn start_of(body: &[u8]) -> String {
    const SHOWN: usize = 300;
    let text = String::from_utf8_lossy(&body[..body.len().min(SHOWN)]);
    let mut text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if body.len() > SHOWN {
        text.push('…');
    }
    text
}

/// Everything that is not as wanted.
fn judge(probe: &SmokeProbe, answer: &Heard<'_>, values: &mut Values, env: &Env<'_>) -> Vec<String> {
    let mut wrong = Vec::new();
    let status = answer.status;
    if !probe
        .status
        .iter()
        .any(|(first, last)| (*first..=*last).contains(&status))
    {
        wrong.push(format!("wanted status {}", ranges(&probe.status)));
    }
    for (name, wanted) in &probe.header {
        let is = answer
            .headers
            .get(name)
            .map(|value| String::from_utf8_lossy(value.as_bytes()));
        match (values.fill(wanted, env), is) {
            (Err(why), _) => wrong.push(why),
            (Ok(wanted), Some(is)) if is == wanted => {}
            (Ok(wanted), Some(is)) => wrong.push(format!("header {name} is `{is}`, wanted `{wanted}`")),
            (Ok(wanted), None) => wrong.push(format!("no header {name}, wanted `{wanted}`")),
        }
    }
    if !probe.json.is_empty() {
        match serde_json::from_slice::<Value>(answer.body) {
            Err(_) => wrong.push("the body is not JSON".to_owned()),
            Ok(json) => {
                for (pointer, wanted) in &probe.json {
                    match json.pointer(pointer) {
                        Some(is) if is == wanted => {}
                        Some(is) => wrong.push(format!("`{pointer}` is {is}, wanted {wanted}")),
                        None => wrong.push(format!("no `{pointer}`, wanted {wanted}")),
                    }
                }
            }
        }
    }
    if let Some(pattern) = &probe.body_regex
        && !pattern.is_match(&String::from_utf8_lossy(answer.body))
    {
        wrong.push(format!("the body does not match `{pattern}`"));
    }
    wrong
}

fn ranges(ranges: &[(u16, u16)]) -> String {
    let one = |(first, last): &(u16, u16)| {
        if first == last {
            first.to_string()
        } else {
            format!("{first}-{last}")
        }
    };
    ranges.iter().map(one).collect::<Vec<_>>().join(",")
}
