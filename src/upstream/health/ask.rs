//! One request of our own to an endpoint, on a connection of its own: for gates, webhooks and warm-up.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request};
use http_body_util::Full;
use tokio::time::{Instant, timeout};

use super::answer::{End, Seen};
use super::talk::converse;
use super::words;
use crate::tls::{self, Offer};
use crate::upstream::Endpoint;
use crate::upstream::dial::{ConnectError, dial};

/// An answer, at most 64 KiB of its body.
#[derive(Debug)]
pub struct Reply {
    /// Its status.
    pub status: u16,
    /// Its fields, trailers included.
    pub headers: HeaderMap,
    /// Its body, or the beginning of it.
    pub body: Vec<u8>,
    /// From the connect to the last byte.
    pub took: Duration,
}

/// Why there is no answer, in words.
#[derive(Debug, thiserror::Error)]
pub enum NoReply {
    /// Nothing was sent: another address may be tried.
    #[error("{0}")]
    Unreachable(String),
    /// It may have arrived.
    #[error("{0}")]
    Broken(String),
}

/// Ask once, over whatever the endpoint's requests go over: TLS, HTTP/2, a Unix socket. All of it ends within the time.
///
/// # Errors
/// No connection, no TLS, a broken answer, not in time.
pub async fn ask(
    endpoint: &Endpoint,
    request: Request<Full<Bytes>>,
    within: Duration,
) -> Result<Reply, NoReply> {
    let began = Instant::now();
    let dialled = dial(endpoint, None, within, Offer::All).await;
    let dialled = dialled.map_err(|error| match error {
        ConnectError::Io(error) => NoReply::Unreachable(words::of_io(&error)),
        ConnectError::Timeout(_) => NoReply::Unreachable(error.to_string()),
        other => NoReply::Broken(other.to_string()),
    })?;
    let mut seen = Seen::default();
    let left = within.saturating_sub(began.elapsed());
    let end = match timeout(left, converse(dialled, request, &mut seen)).await {
        Ok(Ok(end)) => end,
        Ok(Err(error)) => match tls::refusal(&error) {
            Some(why) => return Err(NoReply::Broken(why)),
            None => End::Broken(words::of_http(&error)),
        },
        Err(_) => End::TimedOut(within),
    };
    match (seen.status, end) {
        (Some(status), End::Complete | End::TooLong) => Ok(Reply {
            status,
            headers: seen.trailers,
            body: seen.body,
            took: began.elapsed(),
        }),
        (_, End::TimedOut(after)) => Err(NoReply::Broken(format!("no whole answer within {after:?}"))),
        (_, End::Broken(why)) => Err(NoReply::Broken(why)),
        (None, _) => Err(NoReply::Broken("no answer".to_owned())),
    }
}
