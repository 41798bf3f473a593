//! The proof of a switch: requests through our own listener must be answered by the new color.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, response};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

use super::ask::Verify;
use super::certificates::Entrance;
use super::controller::Controller;
use crate::config::{App, HostPattern, ListenAddress, Probe, Service};
use crate::rollout::AppState;
use crate::wire::{Io, Stream, preamble};

/// The longest that one request of the proof may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// The most that is read of an answer's body.
const BODY_MAX: usize = 64 * 1024;

/// How one request of the proof ended.
enum Found {
    /// The new color answered.
    Right,
    /// Somebody else changed the app meanwhile; this proof says nothing any more.
    Overtaken,
    /// The old color, or the proxy itself because of the upstream.
    Wrong(String),
    /// Our own listener could not be reached.
    Unreachable(String),
}

impl Controller {
    /// Prove that the app's active color answers. `Err` says what answered instead.
    pub(super) async fn verify(&self, app: &str, after: &AppState, forced: bool) -> Result<Verify, String> {
        let Some(of) = self.config.borrow().apps.get(app).cloned() else {
            return Ok(Verify::Skipped("the app has left the config".to_owned()));
        };
        if forced {
            return Ok(Verify::Skipped("forced".to_owned()));
        }
        if of.switch.verify == 0 {
            return Ok(Verify::Skipped("switch.verify = 0".to_owned()));
        }
        let Some(listener) = entrance_for_proofs(&self.listeners) else {
            return Ok(Verify::Skipped(
                "every listener redirects or asks for a client's certificate".to_owned(),
            ));
        };
        let of_service = |service: &Service| match &service.health.kind {
            Probe::Http(probe) => Some((service.name.clone(), probe.path.clone())),
            Probe::Tcp | Probe::Grpc(_) => None,
        };
        let paths: Vec<(String, String)> = of.services.values().filter_map(of_service).collect();
        if paths.is_empty() {
            return Ok(Verify::Skipped(
                "no health path: there is nothing harmless to ask for".to_owned(),
            ));
        }
        let mut requests = 0;
        for (service, path) in paths
            .iter()
            .cycle()
            .take((of.switch.verify as usize).max(paths.len()))
        {
            match self.prove_once(listener, &of, service, path, after).await {
                Found::Right => requests += 1,
                Found::Overtaken => return Ok(Verify::Skipped("overtaken by a later change".to_owned())),
                Found::Wrong(why) => return Err(why),
                Found::Unreachable(why) => return Ok(Verify::Unverified(why)),
            }
        }
        Ok(Verify::Verified { requests })
    }

    async fn prove_once(
        &self,
        listener: &Entrance,
        of: &App,
        service: &str,
        path: &str,
        after: &AppState,
    ) -> Found {
        let secret = self.verify_secret.to_str().unwrap_or_default();
        let proof = format!("{secret} {} {service}", of.name);
        let request = Request::get(path)
            .header(http::header::HOST, host_of(of))
            .header(http::header::CONNECTION, "close")
            .header(
                http::header::USER_AGENT,
                concat!("cutover-verify/", env!("CARGO_PKG_VERSION")),
            )
            .header("x-cutover-verify", proof)
            .body(Empty::<Bytes>::new());
        let Ok(request) = request else {
            return Found::Unreachable(format!("{path} is no path to ask for"));
        };
        let host = host_of(of);
        let asked = ask(listener, &host, request, secret);
        match tokio::time::timeout(PATIENCE, asked).await {
            Ok(Ok(answer)) => judge(&answer, after, path),
            Ok(Err(why)) => Found::Unreachable(why),
            Err(_) => {
                let address = &listener.address;
                Found::Unreachable(format!("no answer through {address} within {PATIENCE:?}"))
            }
        }
    }
}

/// Any status from the new color passes: whether it is healthy was the gate's question.
fn judge(answer: &response::Parts, after: &AppState, path: &str) -> Found {
    let header = |name| {
        answer
            .headers
            .get(name)
            .and_then(|value: &HeaderValue| value.to_str().ok())
    };
    let generation = header("x-cutover-generation").and_then(|text| text.parse::<u64>().ok());
    let Some(generation) = generation else {
        return Found::Wrong(format!(
            "GET {path} was answered {} by the proxy itself",
            answer.status
        ));
    };
    if generation > after.generation {
        return Found::Overtaken;
    }
    match header("x-cutover-color") {
        Some(color) if color == after.active.as_str() => Found::Right,
        color => Found::Wrong(format!(
            "GET {path} was answered by {} (generation {generation})",
            color.unwrap_or("an unknown color")
        )),
    }
}

/// The first in clear text, else the first with TLS; none that would not let us in.
fn entrance_for_proofs(entrances: &[Entrance]) -> Option<&Entrance> {
    let asks = |entrance: &Entrance| entrance.tls.as_ref().is_some_and(|tls| tls.asks_clients());
    entrances
        .iter()
        .filter(|entrance| !entrance.redirects && !asks(entrance))
        .min_by_key(|entrance| entrance.tls.is_some())
}

async fn ask(
    listener: &Entrance,
    host: &str,
    request: Request<Empty<Bytes>>,
    secret: &str,
) -> Result<response::Parts, String> {
    let unreachable = |error: io::Error| format!("our own listener {}: {error}", listener.address);
    let stream = match &listener.address {
        ListenAddress::Tcp(address) => TcpStream::connect(reachable(*address))
            .await
            .and_then(Stream::tcp),
        ListenAddress::Unix(path) => UnixStream::connect(path).await.map(Stream::unix),
    };
    let mut stream = stream.map_err(unreachable)?;
    if listener.proxy_protocol {
        // No balancer sent us; the secret stands for its word.
        let header = preamble::own(secret.as_bytes());
        stream.write_all(&header).await.map_err(unreachable)?;
    }
    let answer = match &listener.tls {
        None => exchange(stream, request).await,
        // Boxed: the handshake's state is large, and proofs are rare.
        Some(tls) => {
            let stream = Box::pin(tls.connect(host, stream)).await.map_err(unreachable)?;
            exchange(stream, request).await
        }
    };
    answer.map_err(|error| format!("our own listener {}: {error}", listener.address))
}

async fn exchange<S: AsyncRead + AsyncWrite + Unpin + 'static>(
    stream: S,
    request: Request<Empty<Bytes>>,
) -> hyper::Result<response::Parts> {
    let (io, _) = Io::new(stream);
    let (mut sender, connection) = http1::handshake(io).await?;
    let driver = tokio::task::spawn_local(async move {
        // Its error is the request's error.
        let _ = connection.await;
    });
    let head = match sender.send_request(request).await {
        Ok(answer) => {
            let (head, body) = answer.into_parts();
            // Read to the end, so that it ends as any request; a large health page is let go.
            let _ = Limited::new(body, BODY_MAX).collect().await;
            Ok(head)
        }
        Err(error) => Err(error),
    };
    driver.abort();
    head
}

/// A listener on every address is reached over loopback.
fn reachable(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => SocketAddr::new(Ipv4Addr::LOCALHOST.into(), address.port()),
        IpAddr::V6(ip) if ip.is_unspecified() => SocketAddr::new(Ipv6Addr::LOCALHOST.into(), address.port()),
        _ => address,
    }
}

/// A host that the app answers to.
fn host_of(of: &App) -> String {
    match of.hosts.first() {
        Some(HostPattern::Exact(name)) => name.clone(),
        Some(HostPattern::Below(name)) => format!("cutover-verify.{name}"),
        None => "localhost".to_owned(),
    }
}
