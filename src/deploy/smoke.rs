//! Smoke probes: requests to the target color before anybody else gets there.

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, header};
use http_body_util::Full;
use serde_json::Value;

use super::fill::{Env, Values};
use super::http::{Answer, send, start_of};
use crate::admin::dto;
use crate::config::{App, HostPattern, PathMatch, Service, SmokeProbe};

/// A value that a probe captured is cut at so many bytes.
const CAPTURE_MAX: usize = 4096;

/// Where requests to one color go.
#[derive(Clone, Debug)]
pub(super) struct Preview<'a> {
    app: &'a App,
    state: dto::ColorState,
}

impl<'a> Preview<'a> {
    pub(super) fn of(app: &'a App, state: &dto::ColorState) -> Self {
        Self {
            app,
            state: state.clone(),
        }
    }

    /// The color as it is now.
    pub(super) fn renew(&mut self, state: &dto::ColorState) {
        self.state = state.clone();
    }

    /// What `$CUTOVER_PREVIEW_URL` says: an endpoint of the service that answers `/`, or else of the first.
    pub(super) fn url(&self) -> Option<String> {
        let service = self.service("/").or_else(|| self.app.services.values().next())?;
        let address = self.endpoint(service)?;
        Some(match address.starts_with("unix:") {
            true => address,
            false => format!("http://{address}"),
        })
    }

    /// The address that answers a path, and what the path is there.
    fn target(&self, path: &str) -> Result<(String, String), String> {
        let bare = path.split('?').next().unwrap_or(path);
        let service = self
            .service(bare)
            .ok_or_else(|| format!("no service of the app answers `{bare}`"))?;
        let address = self
            .endpoint(service)
            .ok_or_else(|| format!("service {} has no endpoint in this color", service.name))?;
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
        Ok((address, path))
    }

    fn service(&self, path: &str) -> Option<&'a Service> {
        let fits = |service: &&Service| match &service.matches {
            PathMatch::Exact(exact) => exact == path,
            PathMatch::Prefix(prefix) if prefix == "/" => true,
            PathMatch::Prefix(prefix) => path
                .strip_prefix(prefix.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/')),
        };
        let weight = |service: &&Service| match &service.matches {
            PathMatch::Exact(_) => usize::MAX,
            PathMatch::Prefix(prefix) => prefix.len(),
        };
        self.app.services.values().filter(fits).max_by_key(weight)
    }

    /// A healthy endpoint of the service if there is one, else the first.
    fn endpoint(&self, service: &Service) -> Option<String> {
        let mut services = self.state.services.iter();
        let endpoints = &services.find(|state| state.service == service.name)?.endpoints;
        let healthy = endpoints.iter().find(|endpoint| endpoint.health == "healthy");
        let endpoint = healthy.or_else(|| endpoints.first())?;
        Some(endpoint.resolved.first().unwrap_or(&endpoint.address).clone())
    }

    fn host(&self, address: &str) -> String {
        let named = self.app.hosts.iter().find_map(|host| match host {
            HostPattern::Exact(name) => Some(name.clone()),
            HostPattern::Below(_) => None,
        });
        match named {
            Some(name) => name,
            None if address.starts_with("unix:") => "localhost".to_owned(),
            None => address.to_owned(),
        }
    }
}

/// Send one probe and judge its answer; what it captures is in `values` then. The answer is a line about it.
///
/// # Errors
/// What was sent, what came, and what was wanted.
pub(super) async fn send_probe(
    probe: &SmokeProbe,
    preview: &Preview<'_>,
    values: &mut Values,
    env: &Env<'_>,
) -> Result<String, String> {
    let (request, address, asked) = request(probe, preview, values, env)?;
    let answer = send(&address, request, probe.within)
        .await
        .map_err(|why| format!("{asked} → {why}"))?;
    let line = format!(
        "{asked} → {} in {} ms",
        answer.status.as_u16(),
        answer.took.as_millis()
    );
    let wrong = judge(probe, &answer, values, env);
    if !wrong.is_empty() {
        let body = start_of(&answer.body);
        let body = if body.is_empty() { "empty".to_owned() } else { body };
        return Err(format!("{line}; {}\n  body: {body}", wrong.join("; ")));
    }
    let json = serde_json::from_slice::<Value>(&answer.body).unwrap_or_default();
    for (name, pointer) in &probe.capture {
        let value = match json.pointer(pointer) {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Null) | None => {
                let body = start_of(&answer.body);
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

type Prepared = (Request<Full<Bytes>>, String, String);

fn request(
    probe: &SmokeProbe,
    preview: &Preview<'_>,
    values: &mut Values,
    env: &Env<'_>,
) -> Result<Prepared, String> {
    let path = values.fill(&probe.path, env)?;
    let asked = format!("{} {path}", probe.method);
    let (address, path) = preview.target(&path).map_err(|why| format!("{asked}: {why}"))?;
    let unusable = |what: &str| format!("{asked}: {what} cannot be sent");
    let body = values.fill(&probe.body, env)?;
    let mut builder = Request::builder().method(probe.method.as_str()).uri(path);
    let mut host = preview.host(&address);
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
        .map_err(|error| format!("{asked}: {error}"))?;
    request
        .headers_mut()
        .entry(header::USER_AGENT)
        .or_insert(HeaderValue::from_static(concat!(
            "cutover-smoke/",
            env!("CARGO_PKG_VERSION")
        )));
    Ok((request, address, asked))
}

/// Everything that is not as wanted.
fn judge(probe: &SmokeProbe, answer: &Answer, values: &mut Values, env: &Env<'_>) -> Vec<String> {
    let mut wrong = Vec::new();
    let status = answer.status.as_u16();
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
        match serde_json::from_slice::<Value>(&answer.body) {
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
        && !pattern.is_match(&String::from_utf8_lossy(&answer.body))
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
