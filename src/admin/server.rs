//! Serving the doors: bounded in connections, header time and size.

use std::fmt;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tower_service::Service;

use super::auth::Peer;
use super::bind::Bound;
use super::routes::{Door, router};
use crate::control::Handle;

/// Connections over TCP at once.
const TCP_CONNECTIONS: usize = 256;

/// Connections over the socket at once, counted apart: TCP cannot shut the operator out.
const UNIX_CONNECTIONS: usize = 256;

/// Event streams and waits at once, on each door.
pub(super) const LONG_ANSWERS: usize = 64;

/// For a request head, and for the time between two requests.
const HEADER_TIME: Duration = Duration::from_secs(10);

/// The largest head, in bytes.
const HEAD_MAX: usize = 32 * 1024;

/// How long open requests may go on at shutdown.
const ENDING: Duration = Duration::from_secs(5);

/// What the doors show that is not the controller's.
#[derive(Clone)]
pub struct Extras {
    /// The text of `/metrics`.
    pub metrics: Arc<dyn Fn() -> String + Send + Sync>,
    /// Why `/livez` should fail; empty while the process works.
    pub not_live: Arc<dyn Fn() -> Vec<String> + Send + Sync>,
}

impl fmt::Debug for Extras {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Extras").finish_non_exhaustive()
    }
}

/// Serve until `shutdown` is ready and the open requests are answered (five seconds at most). The socket's name is
/// removed at the end. Runs on the current tokio runtime.
///
/// # Errors
/// A listener that the runtime does not take.
pub async fn serve(
    bound: Bound,
    handle: Handle,
    extras: Extras,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    let tokens = bound.tokens();
    let Bound {
        unix,
        file: _file,
        tcp,
        hosts,
        ..
    } = bound;
    let (stopping, stop) = watch::channel(false);
    let door = Arc::new(Door {
        handle,
        extras,
        tokens,
        hosts,
        long_unix: Arc::new(Semaphore::new(LONG_ANSWERS)),
        long_tcp: Arc::new(Semaphore::new(LONG_ANSWERS)),
        stop: stop.clone(),
    });
    let router = router(door);
    let unix = UnixListener::from_std(unix)?;
    let tcp = tcp.map(TcpListener::from_std).transpose()?;
    let doors = async {
        tokio::join!(
            serve_unix(unix, router.clone(), stop.clone()),
            serve_tcp(tcp, router.clone(), stop.clone()),
        );
    };
    let end = async {
        shutdown.await;
        let _ = stopping.send(true);
    };
    tokio::join!(doors, end);
    Ok(())
}

async fn serve_unix(listener: UnixListener, router: Router, mut stop: watch::Receiver<bool>) {
    let mut open = Open::new(UNIX_CONNECTIONS);
    loop {
        let permit = tokio::select! {
            permit = open.slot() => permit,
            () = stopped(&mut stop) => break,
        };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stopped(&mut stop) => break,
        };
        match accepted {
            Ok((stream, _)) => {
                let peer = Peer::Unix(stream.peer_cred().ok().map(|credentials| credentials.uid()));
                open.serve(stream, peer, &router, &stop, permit);
            }
            Err(error) => wait_out(&error).await,
        }
    }
    drop(listener);
    open.end().await;
}

async fn serve_tcp(listener: Option<TcpListener>, router: Router, mut stop: watch::Receiver<bool>) {
    let Some(listener) = listener else {
        return;
    };
    let mut open = Open::new(TCP_CONNECTIONS);
    loop {
        let permit = tokio::select! {
            permit = open.slot() => permit,
            () = stopped(&mut stop) => break,
        };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stopped(&mut stop) => break,
        };
        match accepted.and_then(|(stream, _)| Ok((stream.local_addr()?, stream))) {
            Ok((local, stream)) => {
                let _ = stream.set_nodelay(true);
                open.serve(stream, Peer::Tcp { local }, &router, &stop, permit);
            }
            Err(error) => wait_out(&error).await,
        }
    }
    drop(listener);
    open.end().await;
}

/// Ready when the process stops. The borrow of the value must not outlive this: it is not `Send`.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

/// Accepting failed: out of descriptors, or a client that is gone already. Neither ends the door.
async fn wait_out(error: &io::Error) {
    tracing::warn!(%error, "admin: accept");
    tokio::time::sleep(Duration::from_millis(100)).await;
}

/// The open connections of one door.
struct Open {
    slots: Arc<Semaphore>,
    tasks: JoinSet<()>,
}

impl Open {
    fn new(slots: usize) -> Self {
        Self {
            slots: Arc::new(Semaphore::new(slots)),
            tasks: JoinSet::new(),
        }
    }

    /// Wait for a free place; connections above the bound stay in the accept queue.
    async fn slot(&mut self) -> Option<OwnedSemaphorePermit> {
        while self.tasks.try_join_next().is_some() {}
        Arc::clone(&self.slots).acquire_owned().await.ok()
    }

    fn serve<S>(
        &mut self,
        stream: S,
        peer: Peer,
        router: &Router,
        stop: &watch::Receiver<bool>,
        permit: Option<OwnedSemaphorePermit>,
    ) where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (router, stop) = (router.clone(), stop.clone());
        self.tasks.spawn(async move {
            let _permit = permit;
            connection(stream, peer, router, stop).await;
        });
    }

    /// Let the open requests end, but not for ever.
    async fn end(mut self) {
        let all = async { while self.tasks.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(ENDING, all).await;
    }
}

async fn connection<S>(stream: S, peer: Peer, router: Router, mut stop: watch::Receiver<bool>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(peer.clone());
        router.clone().call(request)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIME)
        .max_buf_size(HEAD_MAX)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    // Errors here are the client's: it hung up, or sent no HTTP, which hyper has answered.
    tokio::select! {
        _ = connection.as_mut() => {}
        () = stopped(&mut stop) => {
            connection.as_mut().graceful_shutdown();
            let _ = connection.await;
        }
    }
}
