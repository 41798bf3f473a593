//! A probe's one exchange, over HTTP/1.1 or HTTP/2.

use std::convert::Infallible;
use std::future::{Future, pending};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http::header::{CONNECTION, HOST, LOCATION};
use http::uri::{Authority, Scheme};
use http::{Request, Response, Uri, Version};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper::rt::Executor;
use hyper_util::rt::TokioIo;
use tokio::task::AbortHandle;

use super::answer::{BODY_MAX, End, Seen};
use crate::upstream::dial::Dialled;

/// Bytes of an answer's head that are read.
const HEAD_MAX: u32 = 64 * 1024;

/// Send the request and read the answer into `seen`, which keeps what came when this is cut short.
pub(super) async fn converse(
    dialled: Dialled,
    request: Request<Full<Bytes>>,
    seen: &mut Seen,
) -> hyper::Result<End> {
    let is_tls = dialled.transport.is_tls();
    let io = TokioIo::new(dialled.transport);
    if dialled.http2 {
        // Hyper runs a connection in tasks of its own: they are gone when the probe is.
        let tasks = Tasks::default();
        let mut builder = http2::Builder::new(Spawns(Arc::clone(&tasks.0)));
        builder.max_header_list_size(HEAD_MAX);
        let (mut sender, connection) = builder.handshake(io).await?;
        let talk = async {
            let answer = sender.send_request(for_http2(request, is_tls)).await?;
            read(answer, seen).await
        };
        return alongside(talk, connection).await;
    }
    let mut builder = http1::Builder::new();
    builder.max_buf_size(HEAD_MAX as usize);
    let (mut sender, connection) = builder.handshake(io).await?;
    let talk = async { read(sender.send_request(request).await?, seen).await };
    alongside(talk, connection).await
}

/// The connection moves the bytes; how it ends is told to `talk` as well. Here, and not in a task of its own, so that it
/// is gone when the probe is.
async fn alongside(
    talk: impl Future<Output = hyper::Result<End>>,
    connection: impl Future<Output = hyper::Result<()>>,
) -> hyper::Result<End> {
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

async fn read(answer: Response<Incoming>, seen: &mut Seen) -> hyper::Result<End> {
    seen.status = Some(answer.status().as_u16());
    seen.location = answer
        .headers()
        .get(LOCATION)
        .map(|value| value.as_bytes().to_vec());
    // An answer without a body has what else would be trailers in its head.
    seen.trailers = answer.headers().clone();
    let mut body = answer.into_body();
    while let Some(frame) = body.frame().await {
        let data = match frame?.into_data() {
            Ok(data) => data,
            Err(frame) => {
                seen.trailers.extend(frame.into_trailers().unwrap_or_default());
                continue;
            }
        };
        let room = BODY_MAX - seen.body.len();
        seen.body.extend_from_slice(&data[..data.len().min(room)]);
        if data.len() > room {
            return Ok(End::TooLong);
        }
    }
    Ok(End::Complete)
}

/// `Host` becomes the authority (RFC 9113 §8.3.1).
fn for_http2(mut request: Request<Full<Bytes>>, is_tls: bool) -> Request<Full<Bytes>> {
    let host = request.headers_mut().remove(HOST);
    request.headers_mut().remove(CONNECTION);
    let mut parts = std::mem::take(request.uri_mut()).into_parts();
    parts.scheme = Some(if is_tls { Scheme::HTTPS } else { Scheme::HTTP });
    let authority = host.and_then(|host| Authority::try_from(host.as_bytes()).ok());
    parts.authority = Some(authority.unwrap_or(Authority::from_static("localhost")));
    *request.uri_mut() = Uri::from_parts(parts).unwrap_or_default();
    *request.version_mut() = Version::HTTP_2;
    request
}

type Handles = Arc<Mutex<Vec<AbortHandle>>>;

/// Aborts its tasks when it is dropped.
#[derive(Default)]
struct Tasks(Handles);

impl Drop for Tasks {
    fn drop(&mut self) {
        let mut handles = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        handles.drain(..).for_each(|handle| handle.abort());
    }
}

#[derive(Clone)]
struct Spawns(Handles);

impl<F> Executor<F> for Spawns
where
    F: Future<Output: Send> + Send + 'static,
{
    fn execute(&self, future: F) {
        let handle = tokio::spawn(future).abort_handle();
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(handle);
    }
}
