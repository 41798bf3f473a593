//! One probe: ask once, say what was found.

use bytes::Bytes;
use http::header::{CONNECTION, HOST, HeaderMap, HeaderName, HeaderValue, USER_AGENT};
use http::{Request, Uri};
use http_body_util::Full;
use jiff::Timestamp;
use tokio::time::{Instant, timeout};

use super::answer::{self, End, Found, Seen};
use super::talk::converse;
use super::{Health, ProbeReport, grpc, words};
use crate::config::{self, HttpProbe, Probe};
use crate::tls::{self, Offer};
use crate::upstream::dial::{ConnectError, Dialled, dial};
use crate::upstream::{Endpoint, Target};

/// Probe once, on a connection of its own, over TLS if the endpoint's requests go over TLS. The endpoint's own name is
/// the `Host` unless the probe names another.
///
/// The verdict is `Healthy`, `Failing` (it takes connections, but the answer is wrong or does not come),
/// `Unreachable` (it does not take them, or there is no TLS with it), or `Unknown` when *we* could not ask, for want
/// of descriptors or memory. All of it ends within the probe's timeout, whatever the other side sends.
pub async fn probe_once(endpoint: &Endpoint, settings: &config::Health) -> ProbeReport {
    let at = Timestamp::now();
    let began = Instant::now();
    let found = match dial(endpoint, None, settings.timeout, Offer::All).await {
        Err(error) => refused(&error),
        Ok(dialled) => ask(dialled, settings, endpoint, began).await,
    };
    ProbeReport {
        asked: asked(endpoint, settings),
        status: found.status,
        latency: began.elapsed(),
        verdict: found.verdict,
        reason: found.reason,
        named: found.named,
        at,
    }
}

fn asked(endpoint: &Endpoint, settings: &config::Health) -> String {
    let target = &endpoint.key.target;
    let tls = endpoint.key.tls.as_ref();
    let mut question = match &settings.kind {
        Probe::Tcp => format!("connect {target}"),
        Probe::Grpc(probe) => format!("{} at {target}", grpc::asked(&probe.service)),
        Probe::Http(probe) => {
            let (scheme, path) = (if tls.is_some() { "https" } else { "http" }, &probe.path);
            match target {
                Target::Tcp(address) => format!("GET {scheme}://{address}{path}"),
                Target::Unix(_) => format!("GET {scheme}://localhost{path} over {target}"),
            }
        }
    };
    if let Some(tls) = tls {
        question += &format!(" (TLS: {})", tls.name);
    }
    let host = match &settings.kind {
        Probe::Http(probe) => probe.host.as_str(),
        Probe::Grpc(probe) => &probe.host,
        Probe::Tcp => "",
    };
    if !host.is_empty() {
        question += &format!(" (Host: {host})");
    }
    question
}

/// What a connection that cannot be had says of the endpoint.
fn refused(error: &ConnectError) -> Found {
    let (verdict, reason) = match error {
        ConnectError::Io(error) if words::is_our_own(error) => (
            Health::Unknown,
            format!("could not probe, cutover itself has {}", words::of_io(error)),
        ),
        ConnectError::Io(error) => (Health::Unreachable, words::of_io(error)),
        error => (Health::Unreachable, words::shown(error.to_string().as_bytes())),
    };
    Found::new(verdict, None, reason)
}

async fn ask(dialled: Dialled, settings: &config::Health, endpoint: &Endpoint, began: Instant) -> Found {
    let request = match &settings.kind {
        Probe::Http(probe) => request(probe, endpoint),
        Probe::Grpc(probe) => host(&probe.host, endpoint).map(|host| grpc::request(&probe.service, &host)),
        Probe::Tcp => return connected(dialled.transport.is_tls()),
    };
    let request = match request {
        Ok(request) => request,
        Err(reason) => {
            return Found::new(Health::Failing, None, reason);
        }
    };
    let mut seen = Seen::default();
    // One limit for all of it: what the connect took is gone.
    let left = settings.timeout.saturating_sub(began.elapsed());
    let end = match timeout(left, converse(dialled, request, &mut seen)).await {
        Ok(Ok(end)) => end,
        Ok(Err(error)) => match tls::refusal(&error) {
            Some(why) => return refused(&ConnectError::Tls(why)),
            None => End::Broken(words::of_http(&error)),
        },
        Err(_) => End::TimedOut(settings.timeout),
    };
    match &settings.kind {
        Probe::Grpc(probe) => grpc::judge(&probe.service, &seen, &end),
        Probe::Http(probe) => {
            let found = answer::judge(probe, &seen, &end);
            match (&settings.identity, &settings.revision) {
                (Some(by), Some(announced)) => answer::identify(found, by, announced, &seen),
                _ => found,
            }
        }
        Probe::Tcp => connected(false),
    }
}

fn connected(is_tls: bool) -> Found {
    let reason = if is_tls { "connected, TLS" } else { "connected" };
    Found::new(Health::Healthy, None, reason)
}

/// The `Host` that a probe names, else the endpoint's own.
fn host(named: &str, endpoint: &Endpoint) -> Result<HeaderValue, String> {
    if named.is_empty() {
        return Ok(endpoint.authority.clone());
    }
    HeaderValue::from_str(named).map_err(|_| {
        format!(
            "the probe's host `{}` cannot be sent",
            words::shown(named.as_bytes())
        )
    })
}

fn request(probe: &HttpProbe, endpoint: &Endpoint) -> Result<Request<Full<Bytes>>, String> {
    let unusable = |what: &str, text: &str| {
        format!(
            "the probe's {what} `{}` cannot be sent",
            words::shown(text.as_bytes())
        )
    };
    let mut headers = HeaderMap::new();
    for (name, value) in &probe.headers {
        let name_of = HeaderName::from_bytes(name.as_bytes()).map_err(|_| unusable("header", name))?;
        let value = HeaderValue::from_str(value).map_err(|_| unusable("header", name))?;
        headers.append(name_of, value);
    }
    if !probe.host.is_empty() || !headers.contains_key(HOST) {
        headers.insert(HOST, host(&probe.host, endpoint)?);
    }
    headers
        .entry(USER_AGENT)
        .or_insert(HeaderValue::from_static(concat!(
            "cutover-probe/",
            env!("CARGO_PKG_VERSION")
        )));
    headers.insert(CONNECTION, HeaderValue::from_static("close"));

    let path: Uri = probe.path.parse().map_err(|_| unusable("path", &probe.path))?;
    let mut request = Request::new(Full::default());
    *request.uri_mut() = path;
    *request.headers_mut() = headers;
    Ok(request)
}
