//! One request of ours, its answer bounded in size and time: for smoke probes and webhooks.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};

use super::door::Door;
use crate::tls::{self, Transport};

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

/// Send it through a door, on a connection of its own.
///
/// # Errors
/// In words: no connection, a broken answer, too much of it, not in time.
pub(super) async fn send(
    door: &Door,
    request: Request<Full<Bytes>>,
    within: Duration,
) -> Result<Answer, String> {
    let began = Instant::now();
    let exchange = async {
        let transport = door.open().await?;
        let answer = match door.http2 {
            true => over_http2(transport, request).await,
            false => over_http1(transport, request).await,
        };
        let broken = |error: hyper::Error| {
            tls::refusal(&error).unwrap_or_else(|| format!("the connection broke: {error}"))
        };
        let (head, body) = answer.map_err(broken)?.into_parts();
        let body = Limited::new(body, BODY_MAX).collect().await;
        let body = body.map_err(|error| format!("the answer's body broke off: {error}"))?;
        Ok((head.status, head.headers, body.to_bytes()))
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

async fn over_http1(
    transport: Transport,
    request: Request<Full<Bytes>>,
) -> Result<Response<Incoming>, hyper::Error> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(transport)).await?;
    // Ends with the answer's body: the sender is dropped before.
    tokio::spawn(connection);
    sender.send_request(request).await
}

/// Fields of the connection and `Host` have no place in HTTP/2 (RFC 9113 §8.2.2, §8.3.1).
async fn over_http2(
    transport: Transport,
    mut request: Request<Full<Bytes>>,
) -> Result<Response<Incoming>, hyper::Error> {
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    let host = request.headers().get(header::HOST);
    let whole = Uri::builder()
        .scheme("http")
        .authority(host.map_or(&b"localhost"[..], HeaderValue::as_bytes))
        .path_and_query(path);
    if let Ok(uri) = whole.build() {
        *request.uri_mut() = uri;
    }
    request.headers_mut().remove(header::CONNECTION);
    request.headers_mut().remove(header::HOST);
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(transport)).await?;
    tokio::spawn(connection);
    sender.send_request(request).await
}
