//! One HTTP/1.1 request of ours, its answer bounded in size and time: for smoke probes and webhooks.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use crate::tls::{self, Offer, Originators, Transport, Trust};
use crate::wire::Stream;

/// Bytes of an answer's body that are read.
const BODY_MAX: usize = 1 << 20;

/// An answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub took: Duration,
}

/// Send it to `HOST:PORT`, `https://HOST:PORT` or `unix:PATH`, on a connection of its own.
///
/// # Errors
/// In words: no connection, a broken answer, too much of it, not in time.
pub(super) async fn send(
    address: &str,
    request: Request<Full<Bytes>>,
    within: Duration,
) -> Result<Answer, String> {
    let began = Instant::now();
    let exchange = async {
        if let Some(path) = address.strip_prefix("unix:") {
            return talk(connected(UnixStream::connect(path).await)?, request).await;
        }
        if let Some(address) = address.strip_prefix("https://") {
            return talk(secured(address).await?, request).await;
        }
        talk(connected(TcpStream::connect(address).await)?, request).await
    };
    let (status, headers, body) = tokio::time::timeout(within, exchange)
        .await
        .unwrap_or_else(|_| Err(format!("no whole answer within {within:?}")))?;
    Ok(Answer {
        status,
        headers,
        body,
        took: began.elapsed(),
    })
}

fn connected<S>(stream: std::io::Result<S>) -> Result<S, String> {
    stream.map_err(|error| match error.kind() {
        std::io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        _ => error.to_string(),
    })
}

/// TLS with the system's authorities, and HTTP/1.1 in it.
async fn secured(address: &str) -> Result<Transport, String> {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned())
        .map_err(|_| format!("`{host}` is no name that a certificate can be for"))?;
    let stream = connected(TcpStream::connect(address).await)?;
    let stream = Stream::tcp(stream).map_err(|error| error.to_string())?;
    let origin = Originators::default().of(&Trust::default());
    let shaken = origin.connect(name, stream, Offer::Http1).await;
    shaken
        .map(|(transport, _)| transport)
        .map_err(|error| tls::why(&error))
}

async fn talk<S>(stream: S, request: Request<Full<Bytes>>) -> Result<(StatusCode, HeaderMap, Bytes), String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let broken = |error: hyper::Error| format!("the connection broke: {error}");
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    // Ends with the answer's body: the sender is dropped before.
    tokio::spawn(connection);
    let answer = sender.send_request(request).await.map_err(broken)?;
    drop(sender);
    let (head, body) = answer.into_parts();
    let body = Limited::new(body, BODY_MAX).collect().await;
    let body = body.map_err(|error| format!("the answer's body broke off: {error}"))?;
    Ok((head.status, head.headers, body.to_bytes()))
}
