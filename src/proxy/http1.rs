//! HTTP/1 on a client's connection: hyper parses it, and ends it well. Between two requests it needs none of hyper.

use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use hyper::server::conn::http1::Builder;
use hyper::service::service_fn;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::client::{Client, End, say_timeout};
use super::forward::forward;
use super::serving::Serving;
use super::tunnel::Tunnel;
use super::worker::Worker;
use crate::config::Limits;
use crate::tls::Transport;
use crate::wire::Io;

/// hyper's least buffer; a smaller `header_bytes` is held by its own bound.
const BUFFER_MIN: usize = 8 * 1024;
/// How much of an answer hyper may gather while the client takes none, and the most it reads at once.
const BUFFER_MAX: usize = 256 * 1024;

/// How long, and for how many bytes, an early answer's connection is read on.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 512 * 1024;

/// Serve a client until it ends, resets, or runs out of time.
///
/// hyper keeps two buffers of 8 KiB a connection and a good deal of state. Most connections are quiet most of the time,
/// so hyper comes when something is there to be read, and goes when nothing has been for a while.
#[allow(clippy::manual_async_fn, reason = "its arguments would be kept twice")]
pub(super) fn serve(
    worker: Rc<Worker>,
    client: Rc<Client>,
    mut io: Io<Transport>,
) -> impl Future<Output = ()> {
    async move {
        loop {
            // Boxed: what is quiet must not keep the room that hyper needs.
            let read = match Box::pin(speak(&worker, &client, io)).await {
                Then::Over => return,
                Then::Tunnel(tunnel, transport, read) => return Box::pin(tunnel.run(transport, read)).await,
                Then::Quiet(quiet, read) => {
                    io = quiet;
                    read
                }
            };
            if !read.is_empty() {
                // Half a head behind the last request: it is hyper's to go on with.
                client.must_not_rest();
                io.read_first(read);
                continue;
            }
            // Empty, and yet it holds hyper's buffer.
            drop(read);
            let resting = worker.count_resting();
            let end = std::future::poll_fn(|cx| client.poll_rest(cx)).await;
            drop(resting);
            if let End::TimedOut(_) = end {
                return say_goodbye(io.into_inner()).await;
            }
        }
    }
}

/// What follows on a connection; with what hyper had read and not used.
enum Then {
    /// Nothing.
    Over,
    /// The next request, some time.
    Quiet(Io<Transport>, Bytes),
    /// Another protocol.
    Tunnel(Tunnel, Transport, Bytes),
}

/// Serve requests, until it is over or quiet.
async fn speak(worker: &Rc<Worker>, client: &Rc<Client>, io: Io<Transport>) -> Then {
    let service = service_fn(|request| {
        let serving = Serving::alone(client, &request);
        forward(Rc::clone(worker), serving, request)
    });
    let mut connection = builder(&client.limits).serve_connection(io, service);
    let mut blocked = None;
    let end = std::future::poll_fn(|cx| {
        client.wakes(cx);
        if let Poll::Ready(result) = Pin::new(&mut connection).poll(cx) {
            return Poll::Ready(End::Served(result));
        }
        client.poll_end(cx, &mut blocked)
    })
    .await;
    let parts = connection.into_parts();
    if let Some(tunnel) = client.take_tunnel() {
        if let End::Served(Ok(())) = end {
            // hyper has written the 101 and let go; what it read behind the request's head is the tunnel's.
            client.keep_alive();
            return Then::Tunnel(tunnel, parts.io.into_inner(), parts.read_buf);
        }
        tunnel.missed();
        return Then::Over;
    }
    match end {
        End::Quiet => return Then::Quiet(parts.io, parts.read_buf),
        End::Served(result) => {
            if result.is_err_and(|error| worker.refused_by_parser(&error)) || client.uploads() {
                linger(parts.io.into_inner()).await;
            }
        }
        End::TimedOut(false) if !client.is_blocked() => say_goodbye(parts.io.into_inner()).await,
        End::Reset | End::TimedOut(false) => {}
        End::TimedOut(true) => {
            worker.head_timed_out();
            say_timeout(parts.io.into_inner()).await;
        }
    }
    Then::Over
}

fn builder(limits: &Limits) -> Builder {
    let mut builder = Builder::new();
    builder
        .half_close(true)
        .max_header_size(limits.header_bytes)
        .max_buf_size(limits.header_bytes.clamp(BUFFER_MIN, BUFFER_MAX).max(64 * 1024))
        // Both timers are ours: hyper's counts keep-alive time too and closes without a word.
        .header_read_timeout(None);
    if limits.header_count != 100 {
        // hyper's default needs no allocation; any other number costs one a request.
        builder.max_headers(limits.header_count);
    }
    builder
}

/// Read on for a moment after an answer that came before the end of its request: closing over unread bytes would be
/// a reset, which takes the answer from a client that has not read it yet (RFC 9112 §9.6).
async fn linger(mut stream: Transport) {
    let mut sink = [0; 4096];
    let read = async {
        let mut left = LINGER_BYTES;
        while left > 0 {
            match stream.read(&mut sink).await {
                Ok(0) | Err(_) => return,
                Ok(bytes) => left = left.saturating_sub(bytes),
            }
        }
    };
    // Out of time or of patience: the close is a reset then, as it must be at some point.
    let _ = tokio::time::timeout(LINGER, read).await;
}

/// An orderly end of TLS, so that the client need not wonder whether something was cut off.
async fn say_goodbye(mut stream: Transport) {
    if !stream.is_tls() {
        return;
    }
    let _ = tokio::time::timeout(Duration::from_secs(1), stream.shutdown()).await;
}
