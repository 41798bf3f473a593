//! One HTTP/1.1 request of ours, its answer bounded in size and time: for smoke probes and webhooks.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

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

/// Send it to `HOST:PORT` or `unix:PATH`, on a connection of its own.
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
        match address.strip_prefix("unix:") {
            Some(path) => talk(connected(UnixStream::connect(path).await)?, request).await,
            None => talk(connected(TcpStream::connect(address).await)?, request).await,
        }
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

/// The beginning of a body, on one line.
pub(super) fn start_of(body: &[u8]) -> String {
    const SHOWN: usize = 300;
    let text = String::from_utf8_lossy(&body[..body.len().min(SHOWN)]);
    let mut text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if body.len() > SHOWN {
        text.push('…');
    }
    text
}
