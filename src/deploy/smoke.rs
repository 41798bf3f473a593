//! Smoke probes: requests to the target color before anybody else gets there.

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, header};
use http_body_util::Full;
use serde_json::Value;

use super::door::Door;
use super::fill::{Env, Values};
use super::http::{Answer, send, start_of};
use crate::admin::dto;
use crate::config::{Aim, App, PathMatch, Protocol, Service, SmokeProbe, parse_endpoint};
use crate::rollout::Color;

/// A value that a probe captured is cut at so many bytes.
const CAPTURE_MAX: usize = 4096;

/// Where requests to one color go.
#[derive(Clone, Debug)]
pub(super) struct Preview<'a> {
    app: &'a App,
    color: Color,
    state: dto::ColorState,
    /// Listeners through which every request is meant for one color.
    listeners: &'a [(Aim, String)],
}

impl<'a> Preview<'a> {
    pub(super) fn of(
        app: &'a App,
        color: Color,
        state: &dto::ColorState,
        listeners: &'a [(Aim, String)],
    ) -> Self {
        Self {
            app,
            color,
            state: state.clone(),
            listeners,
        }
    }

    /// The color as it is now.
    pub(super) fn renew(&mut self, state: &dto::ColorState) {
        self.state = state.clone();
    }

    /// What `$CUTOVER_PREVIEW_URL` says: the listener that is there for this color; or else an endpoint of the service
    /// that answers `/`, or of the first.
    pub(super) fn url(&self) -> Option<String> {
        if let Some(url) = self.listener() {
            return Some(url);
        }
        let service = self.service("/").or_else(|| self.app.services.values().next())?;
        let (address, resolved) = self.written(service)?;
        Some(match parse_endpoint(&address).ok()?.protocol {
            // Its certificate is for its name, not for what the name resolves to.
            Protocol::Https => address,
            _ => {
                let place = resolved.unwrap_or_else(|| address.trim_start_matches("h2c://").to_owned());
                match place.starts_with("unix:") {
                    true => place,
                    false => format!("http://{place}"),
                }
            }
        })
    }

    /// A listener for this very color; or that of the standby, while this color is one.
    fn listener(&self) -> Option<String> {
        let aimed = |aim: Aim| self.listeners.iter().find(|(is, _)| *is == aim);
        let standby = || aimed(Aim::Standby).filter(|_| self.state.role == "standby");
        let (_, url) = aimed(Aim::Color(self.color)).or_else(standby)?;
        Some(url.clone())
    }

    /// The door to what answers a path, and what the path is there.
    fn target(&self, path: &str) -> Result<(Door, String), String> {
        let bare = path.split('?').next().unwrap_or(path);
        let service = self
            .service(bare)
            .ok_or_else(|| format!("no service of the app answers `{bare}`"))?;
        let (address, resolved) = self
            .written(service)
            .ok_or_else(|| format!("service {} has no endpoint in this color", service.name))?;
        let address = parse_endpoint(&address).map_err(|error| error.to_string())?;
        let door = Door::endpoint(self.app, service, &address, resolved.as_deref())?;
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
        Ok((door, path))
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

    /// A healthy endpoint of the service if there is one, else the first: as written, and what it resolved to.
    fn written(&self, service: &Service) -> Option<(String, Option<String>)> {
        let mut services = self.state.services.iter();
        let endpoints = &services.find(|state| state.service == service.name)?.endpoints;
        let healthy = endpoints.iter().find(|endpoint| endpoint.health == "healthy");
        let endpoint = healthy.or_else(|| endpoints.first())?;
        Some((endpoint.address.clone(), endpoint.resolved.first().cloned()))
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
    let (request, door, asked) = request(probe, preview, values, env)?;
    let answer = send(&door, request, probe.within)
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

type Prepared = (Request<Full<Bytes>>, Door, String);

fn request(
    probe: &SmokeProbe,
    preview: &Preview<'_>,
    values: &mut Values,
    env: &Env<'_>,
) -> Result<Prepared, String> {
    let path = values.fill(&probe.path, env)?;
    let asked = format!("{} {path}", probe.method);
    let (mut door, path) = preview.target(&path).map_err(|why| format!("{asked}: {why}"))?;
    let unusable = |what: &str| format!("{asked}: {what} cannot be sent");
    let body = values.fill(&probe.body, env)?;
    let mut builder = Request::builder().method(probe.method.as_str()).uri(path);
    for (name, value) in &probe.headers {
        let value = values.fill(value, env)?;
        if name == "host" {
            door.host = value;
            continue;
        }
        let name = HeaderName::try_from(name.as_str()).map_err(|_| unusable(name))?;
        let value = HeaderValue::try_from(value).map_err(|_| unusable(name.as_str()))?;
        builder = builder.header(name, value);
    }
    let host = HeaderValue::try_from(&door.host).map_err(|_| unusable("host"))?;
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
    Ok((request, door, asked))
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
