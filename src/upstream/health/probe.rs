//! One probe: ask once, say what was found.

use std::convert::Infallible;
use std::future::pending;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, HOST, HeaderMap, HeaderName, HeaderValue, LOCATION, USER_AGENT};
use http::{Request, Uri};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use tokio::time::{Instant, timeout};

use super::answer::{self, BODY_MAX, End, Found, Seen};
use super::words;
use super::{Health, ProbeReport};
use crate::config::{self, HttpProbe, Probe};
use crate::tls::{self, Offer, Transport};
use crate::upstream::dial::{ConnectError, Dialled, dial};
use crate::upstream::{Endpoint, Target};

/// Bytes of an answer's head that are read.
const HEAD_MAX: usize = 64 * 1024;

/// Probe once, on a connection of its own, over TLS if the endpoint's requests go over TLS. The endpoint's own name is
/// the `Host` unless the probe names another.
///
/// The verdict is `Healthy`, `Failing` (it takes connections, but the answer is wrong or does not come),
/// `Unreachable` (it does not take them, or there is no TLS with it), or `Unknown` when *we* could not ask, for want
/// of descriptors or memory. All of it ends within the probe's timeout, whatever the other side sends.
pub async fn probe_once(endpoint: &Endpoint, settings: &config::Health) -> ProbeReport {
    let at = Timestamp::now();
    let began = Instant::now();
    let found = match dial(endpoint, settings.timeout, Offer::All).await {
        Err(error) => refused(&error),
        Ok(Dialled { transport }) => match &settings.kind {
            Probe::Tcp => Found {
                verdict: Health::Healthy,
                status: None,
                reason: if transport.is_tls() {
                    "connected, TLS"
                } else {
                    "connected"
                }
                .into(),
            },
            Probe::Http(probe) => ask(transport, probe, endpoint, settings.timeout, began).await,
        },
    };
    ProbeReport {
        asked: asked(endpoint, settings),
        status: found.status,
        latency: began.elapsed(),
        verdict: found.verdict,
        reason: found.reason,
        at,
    }
}

fn asked(endpoint: &Endpoint, settings: &config::Health) -> String {
    let target = &endpoint.key.target;
    let tls = endpoint.key.tls.as_ref();
    let mut question = match &settings.kind {
        Probe::Tcp => format!("connect {target}"),
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
    if let Probe::Http(probe) = &settings.kind
        && !probe.host.is_empty()
    {
        question += &format!(" (Host: {})", probe.host);
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
    Found {
        verdict,
        status: None,
        reason,
    }
}

async fn ask(
    transport: Transport,
    probe: &HttpProbe,
    endpoint: &Endpoint,
    within: Duration,
    began: Instant,
) -> Found {
    let request = match request(probe, endpoint) {
        Ok(request) => request,
        Err(reason) => {
            return Found {
                verdict: Health::Failing,
                status: None,
                reason,
            };
        }
    };
    let mut seen = Seen::default();
    // One limit for all of it: what the connect took is gone.
    let left = within.saturating_sub(began.elapsed());
    let talk = converse(TokioIo::new(transport), request, &mut seen);
    let end = match timeout(left, talk).await {
        Ok(Ok(end)) => end,
        Ok(Err(error)) => match tls::refusal(&error) {
            Some(why) => return refused(&ConnectError::Tls(why)),
            None => End::Broken(words::of_http(&error)),
        },
        Err(_) => End::TimedOut(within),
    };
    answer::judge(probe, &seen, &end)
}

/// Send the request and read the answer into `seen`, which keeps what came when this is cut short.
async fn converse<T>(io: T, request: Request<Empty<Bytes>>, seen: &mut Seen) -> hyper::Result<End>
where
    T: hyper::rt::Read + hyper::rt::Write + Unpin,
{
    let (mut sender, connection) = http1::Builder::new().max_buf_size(HEAD_MAX).handshake(io).await?;
    let talk = async {
        let answer = sender.send_request(request).await?;
        seen.status = Some(answer.status().as_u16());
        seen.location = answer
            .headers()
            .get(LOCATION)
            .map(|value| value.as_bytes().to_vec());
        let mut body = answer.into_body();
        while let Some(frame) = body.frame().await {
            // Trailers mean nothing here.
            let Ok(data) = frame?.into_data() else { continue };
            let room = BODY_MAX - seen.body.len();
            seen.body.extend_from_slice(&data[..data.len().min(room)]);
            if data.len() > room {
                return Ok(End::TooLong);
            }
        }
        Ok(End::Complete)
    };
    // The connection moves the bytes; how it ends is told to `talk` as well. Here, and not in a task of its own, so
    // that it is gone when the probe is.
    let moves = async {
        let _ = connection.await;
        pending::<Infallible>().await
    };
    tokio::select! {
        biased;
        end = talk => end,
        never = moves => match never {},
    }
}

fn request(probe: &HttpProbe, endpoint: &Endpoint) -> Result<Request<Empty<Bytes>>, String> {
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
    if !probe.host.is_empty() {
        let value = HeaderValue::from_str(&probe.host).map_err(|_| unusable("host", &probe.host))?;
        headers.insert(HOST, value);
    } else if !headers.contains_key(HOST) {
        headers.insert(HOST, endpoint.authority.clone());
    }
    headers
        .entry(USER_AGENT)
        .or_insert(HeaderValue::from_static(concat!(
            "cutover-probe/",
            env!("CARGO_PKG_VERSION")
        )));
    headers.insert(CONNECTION, HeaderValue::from_static("close"));

    let path: Uri = probe.path.parse().map_err(|_| unusable("path", &probe.path))?;
    let mut request = Request::new(Empty::new());
    *request.uri_mut() = path;
    *request.headers_mut() = headers;
    Ok(request)
}
