//! What a listener does before a request is looked at: TLS, or sending everybody to https.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, StatusCode};
use tokio::time::{Instant, timeout_at};

use super::client::say_timeout;
use super::headers::Peer;
use super::preface::{Protocol, spoken};
use super::respond::OwnAnswers;
use super::worker::{LINGER, Phase, Worker};
use crate::config::{Aim, Listener};
use crate::tls::{Session, Terminator, Transport};
use crate::wire::Stream;

/// A listener's own way with connections and requests. Each worker has its copy.
#[derive(Debug)]
pub(super) struct Front {
    pub(super) tls: Option<Arc<Terminator>>,
    /// Each connection begins with a PROXY header.
    pub(super) proxy_protocol: bool,
    /// Sent with every answer.
    pub(super) hsts: Option<HeaderValue>,
    /// What it answers itself.
    pub(super) own: OwnAnswers,
    /// What every request is answered with.
    pub(super) redirect: Option<StatusCode>,
    /// The color that every request means.
    pub(super) color: Option<Aim>,
}

impl Front {
    /// Of a listener; `tls` is there if its configuration says so.
    pub(super) fn new(listener: &Listener, tls: Option<Arc<Terminator>>) -> Self {
        let hsts = listener.tls.as_ref().and_then(|tls| tls.hsts);
        Self {
            tls,
            proxy_protocol: listener.proxy_protocol,
            hsts: hsts.and_then(strict_transport),
            own: OwnAnswers::new(&listener.respond),
            redirect: listener
                .redirect_https
                .and_then(|status| StatusCode::from_u16(status).ok()),
            color: listener.color,
        }
    }

    /// A copy for another worker: its header value shares no count with this one.
    pub(super) fn copy(&self) -> Self {
        let hsts = self.hsts.as_ref();
        Self {
            tls: self.tls.clone(),
            proxy_protocol: self.proxy_protocol,
            hsts: hsts.and_then(|value| HeaderValue::from_bytes(value.as_bytes()).ok()),
            own: self.own.copy(),
            redirect: self.redirect,
            color: self.color,
        }
    }

    /// Whether a request for `host` may come over a connection that was opened for the server `name`: for the same,
    /// or for one that the connection's certificate names too (RFC 9110 §7.4).
    pub(super) fn answers_for(&self, name: &str, host: &str) -> bool {
        name == host
            || self
                .tls
                .as_ref()
                .is_none_or(|tls| tls.certificates().covers(name, host))
    }
}

fn strict_transport(time: Duration) -> Option<HeaderValue> {
    HeaderValue::try_from(format!("max-age={}", time.as_secs())).ok()
}

/// A connection that is ready for its first request.
pub(super) struct Opened {
    pub(super) transport: Transport,
    pub(super) peer: Peer,
    /// The server name that the client asked for.
    pub(super) name: Option<Box<str>>,
    pub(super) protocol: Protocol,
}

/// A connection in clear text, once its client has shown which protocol it speaks. None: it has not, until the
/// `deadline`, or a shutdown did not wait for it.
pub(super) async fn look_at(
    worker: Rc<Worker>,
    stream: Stream,
    peer: Peer,
    deadline: Instant,
) -> Option<Box<Opened>> {
    let socket = stream.socket();
    let transport = Transport::Plain(stream);
    let spoken = tokio::select! {
        spoken = timeout_at(deadline, spoken(&socket)) => spoken,
        () = shutdown_lingered(&worker) => return None,
    };
    let Ok(protocol) = spoken else {
        // Half a preface, which may be half a method: what HTTP/1 says to half a head.
        if socket.take(&mut [0; 64]).is_ok_and(|count| count > 0) {
            worker.head_timed_out();
            say_timeout(transport).await;
        }
        return None;
    };
    Some(Box::new(Opened {
        transport,
        peer,
        name: None,
        protocol,
    }))
}

/// Shake hands, until `deadline` at most. None: there is no connection, and that is counted and told.
pub(super) async fn shake_hands(
    worker: Rc<Worker>,
    tls: Option<Arc<Terminator>>,
    stream: Stream,
    peer: Peer,
    deadline: Instant,
) -> Option<Box<Opened>> {
    let tls = tls?;
    let shaken = tokio::select! {
        shaken = timeout_at(deadline, tls.accept(stream)) => shaken,
        () = shutdown_lingered(&worker) => return None,
    };
    let cells = &worker.cells.tls;
    match shaken {
        Ok(Ok((transport, session))) => {
            let Session {
                name,
                subject,
                is_tls13,
                resumed,
                is_h2,
            } = session;
            cells.shaken(is_tls13, resumed);
            Some(Box::new(Opened {
                transport,
                peer: peer.through_tls(subject.as_deref()),
                name,
                protocol: if is_h2 { Protocol::Http2 } else { Protocol::Http1 },
            }))
        }
        Ok(Err(error)) if left(&error) => {
            cells.left.add(1);
            tracing::debug!(client = ?peer.ip, %error, "client left during the TLS handshake");
            None
        }
        Ok(Err(error)) => {
            cells.refused.add(1);
            tracing::debug!(client = ?peer.ip, %error, "TLS handshake failed");
            worker.say_rarely(|| {
                tracing::warn!(client = ?peer.ip, %error, "TLS handshakes fail; this is one of them");
            });
            None
        }
        Err(_) => {
            cells.timed_out.add(1);
            tracing::debug!(client = ?peer.ip, "no TLS handshake in time");
            None
        }
    }
}

/// Port scanners and TCP health checks do this all day.
fn left(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    matches!(
        error.kind(),
        UnexpectedEof | ConnectionReset | ConnectionAborted | BrokenPipe
    )
}

/// A shutdown does not wait for clients that are still silent after this.
pub(super) async fn shutdown_lingered(worker: &Worker) {
    let mut phase = worker.shared.phase.clone();
    if phase.wait_for(|phase| *phase >= Phase::Closing).await.is_ok() {
        tokio::time::sleep(LINGER).await;
    }
}
