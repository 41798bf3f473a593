//! The PROXY protocol on a client's connection: who is believed, for how long it is waited for, and what is refused.

use std::io;
use std::rc::Rc;

use tokio::io::AsyncReadExt;
use tokio::time::{Instant, timeout_at};

use super::front::shutdown_lingered;
use super::headers::Peer;
use super::worker::Worker;
use crate::wire::Stream;
use crate::wire::preamble::{HEADER_MAX, Malformed, Preamble, Step, read};

/// Why there is no client.
enum Refused {
    /// It is not one of the trusted proxies.
    Untrusted,
    Malformed(Malformed),
    /// It ended the connection.
    Left(io::Error),
    TimedOut,
}

/// Take the header off a connection to a listener with `proxy_protocol`, until `deadline` at most, and say whose
/// connection it is. None: nobody's; that is counted and told.
pub(super) async fn take(
    worker: &Rc<Worker>,
    stream: &mut Stream,
    balancer: Peer,
    deadline: Instant,
) -> Option<Peer> {
    let trusted = worker.shared.published.load().edge.trusts(balancer.ip);
    // Only this machine's own proofs may come from elsewhere: a stranger's bytes are not even read.
    if !trusted && !stream.socket().is_of_this_machine() {
        return refuse(worker, &balancer, &Refused::Untrusted);
    }
    let read = tokio::select! {
        read = timeout_at(deadline, whole(stream)) => read,
        () = shutdown_lingered(worker) => return None,
    };
    match read {
        Ok(Ok(Preamble::Own(secret))) => {
            let is_proof = secret.is_some_and(|secret| *secret == *worker.shared.verify_secret.as_bytes());
            if trusted || is_proof {
                return Some(balancer);
            }
            refuse(worker, &balancer, &Refused::Untrusted)
        }
        Ok(Ok(Preamble::Client { source, destination })) if trusted => {
            Some(Peer::behind(source, destination))
        }
        _ if !trusted => refuse(worker, &balancer, &Refused::Untrusted),
        Ok(Ok(Preamble::Client { .. })) => None,
        Ok(Err(refused)) => refuse(worker, &balancer, &refused),
        Err(_) => refuse(worker, &balancer, &Refused::TimedOut),
    }
}

/// The header, and not a byte of what follows.
async fn whole(stream: &mut Stream) -> Result<Preamble, Refused> {
    let mut buffer = Vec::with_capacity(128);
    loop {
        match read(&buffer).map_err(Refused::Malformed)? {
            Step::Done(preamble) => return Ok(preamble),
            Step::More(more) => {
                debug_assert!(
                    buffer.len() + more <= HEADER_MAX,
                    "the parser bounds what it asks for"
                );
                let wanted = u64::try_from(more).unwrap_or(0);
                match (&mut *stream).take(wanted).read_buf(&mut buffer).await {
                    Ok(0) => return Err(Refused::Left(io::ErrorKind::UnexpectedEof.into())),
                    Ok(_) => {}
                    Err(error) => return Err(Refused::Left(error)),
                }
            }
        }
    }
}

fn refuse(worker: &Rc<Worker>, balancer: &Peer, why: &Refused) -> Option<Peer> {
    let (cells, from) = (&worker.cells.preamble, balancer.ip);
    match why {
        Refused::Left(error) => {
            cells.left.add(1);
            tracing::debug!(?from, %error, "connection ended before its PROXY header");
        }
        Refused::Untrusted => {
            cells.untrusted.add(1);
            worker.say_rarely(|| {
                tracing::warn!(
                    ?from,
                    "connection closed: this listener wants the PROXY protocol, and {} is not in server.trusted_proxies",
                    balancer.text.to_str().unwrap_or("it"),
                );
            });
        }
        Refused::Malformed(what) => {
            cells.malformed.add(1);
            worker.say_rarely(|| {
                tracing::warn!(
                    ?from,
                    "connection closed: {what}; this listener has proxy_protocol = true, so whoever connects must send one"
                );
            });
        }
        Refused::TimedOut => {
            cells.timed_out.add(1);
            worker.say_rarely(|| {
                tracing::warn!(
                    ?from,
                    "connection closed: no PROXY header within client_header_timeout"
                );
            });
        }
    }
    None
}
