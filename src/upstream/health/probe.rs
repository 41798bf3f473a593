//! One probe: ask once, say what was found.

use std::convert::Infallible;
use std::future::pending;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, HOST, HeaderMap, HeaderName, HeaderValue, LOCATION, USER_AGENT};
use http::{Request, Uri};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, timeout};

use super::answer::{self, BODY_MAX, End, Found, Seen};
use super::words;
use super::{Health, ProbeReport};
use crate::config::{self, EndpointAddress, HttpProbe, Probe};
use crate::upstream::Target;

/// Bytes of an answer's head that are read.
const HEAD_MAX: usize = 64 * 1024;

/// Probe once, on a connection of its own. `target` is where to connect, `address` what the operator wrote, which
/// is the `Host` unless the probe names another.
///
/// The verdict is `Healthy`, `Failing` (it takes connections, but the answer is wrong or does not come),
/// `Unreachable` (it does not take them), or `Unknown` when *we* could not ask, for want of descriptors or memory.
/// All of it ends within the probe's timeout, whatever the other side sends.
pub async fn probe_once(
    target: &Target,
    address: &EndpointAddress,
    settings: &config::Health,
) -> ProbeReport {
    let at = Timestamp::now();
    let began = Instant::now();
    let found = match connect(target, settings.timeout).await {
        Err(found) => found,
        Ok(connection) => match &settings.kind {
            Probe::Tcp => Found {
                verdict: Health::Healthy,
                status: None,
                reason: "connected".into(),
            },
            Probe::Http(probe) => ask(connection, probe, address, settings.timeout, began).await,
        },
    };
    ProbeReport {
        asked: asked(target, settings),
        status: found.status,
        latency: began.elapsed(),
        verdict: found.verdict,
        reason: found.reason,
        at,
    }
}

fn asked(target: &Target, settings: &config::Health) -> String {
    let Probe::Http(probe) = &settings.kind else {
        return format!("connect {target}");
    };
    let path = &probe.path;
    let question = match target {
        Target::Tcp(address) => format!("GET http://{address}{path}"),
        Target::Unix(_) => format!("GET http://localhost{path} over {target}"),
    };
    if probe.host.is_empty() {
        question
    } else {
        format!("{question} (Host: {})", probe.host)
    }
}

enum Connection {
    Tcp(TcpStream),
    Unix(UnixStream),
}

async fn connect(target: &Target, within: Duration) -> Result<Connection, Found> {
    let connecting = async {
        io::Result::Ok(match target {
            Target::Tcp(address) => Connection::Tcp(TcpStream::connect(address).await?),
            Target::Unix(path) => Connection::Unix(UnixStream::connect(path).await?),
        })
    };
    let (verdict, reason) = match timeout(within, connecting).await {
        Ok(Ok(connection)) => return Ok(connection),
        Ok(Err(error)) if words::is_our_own(&error) => (
            Health::Unknown,
            format!("could not probe, cutover itself has {}", words::of_io(&error)),
        ),
        Ok(Err(error)) => (Health::Unreachable, words::of_io(&error)),
        Err(_) => (Health::Unreachable, format!("no connection within {within:?}")),
    };
    Err(Found {
        verdict,
        status: None,
        reason,
    })
}

async fn ask(
    connection: Connection,
    probe: &HttpProbe,
    address: &EndpointAddress,
    within: Duration,
    began: Instant,
) -> Found {
    let request = match request(probe, address) {
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
    let end = match connection {
        Connection::Tcp(stream) => timeout(left, converse(TokioIo::new(stream), request, &mut seen)).await,
        Connection::Unix(stream) => timeout(left, converse(TokioIo::new(stream), request, &mut seen)).await,
    };
    let end = match end {
        Ok(Ok(end)) => end,
        Ok(Err(error)) => End::Broken(words::of_http(&error)),
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

fn request(probe: &HttpProbe, address: &EndpointAddress) -> Result<Request<Empty<Bytes>>, String> {
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
    let host = match address {
        _ if !probe.host.is_empty() => probe.host.clone(),
        EndpointAddress::Unix(_) => "localhost".into(),
        written => written.to_string(),
    };
    if !probe.host.is_empty() || !headers.contains_key(HOST) {
        let value = HeaderValue::from_str(&host).map_err(|_| unusable("host", &host))?;
        headers.insert(HOST, value);
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
