//! Listening sockets: bound once, then one queue that every worker accepts from.

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener as StdUnixListener, UnixStream as StdUnixStream};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, UnixListener};

use super::client::{serve_behind_balancer, serve_plain, serve_tls};
use super::front::Front;
use super::headers::Peer;
use super::worker::{Phase, Worker};
use crate::config::{self, ListenAddress};
use crate::tls::Terminator;
use crate::wire::Stream;
use crate::wire::descriptors::{self, Use};

/// Connections that the kernel keeps for us while all workers are busy.
const BACKLOG: i32 = 4096;

/// How long accepting pauses when the process is out of descriptors: no spinning, and back in a moment.
const BREATHER: Duration = Duration::from_millis(50);

/// A bound socket.
#[derive(Debug)]
pub struct Listener {
    /// Where it is bound; the real port where 0 was asked for.
    pub address: ListenAddress,
    socket: Bound,
    front: Front,
}

#[derive(Debug)]
enum Bound {
    Tcp(std::net::TcpListener),
    Unix(StdUnixListener),
}

/// A socket could not be bound.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {source}{}", hint(.source))]
pub struct BindError {
    /// The address asked for.
    pub address: ListenAddress,
    /// The system's error.
    pub source: io::Error,
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            "; another process has it (`ss -ltnp` shows which): stop it or choose another address"
        }
        io::ErrorKind::PermissionDenied => {
            "; ports below 1024 need CAP_NET_BIND_SERVICE or root, sockets a writable folder"
        }
        io::ErrorKind::AddrNotAvailable => "; this machine has no such address",
        _ => "",
    }
}

/// Bind a listener; `tls` is what its `[listener.tls]` has become. A Unix socket left by a dead process is taken over;
/// one that answers is not.
///
/// # Errors
/// With the address and what to do.
pub fn bind(listener: &config::Listener, tls: Option<Arc<Terminator>>) -> Result<Listener, BindError> {
    let address = &listener.address;
    let fail = |source| BindError {
        address: address.clone(),
        source,
    };
    let (address, socket) = match address {
        ListenAddress::Tcp(address) => {
            let socket = bind_tcp(*address).map_err(fail)?;
            let real = socket.local_addr().map_err(fail)?;
            (ListenAddress::Tcp(real), Bound::Tcp(socket))
        }
        ListenAddress::Unix(path) => (
            ListenAddress::Unix(path.clone()),
            Bound::Unix(bind_unix(path).map_err(fail)?),
        ),
    };
    Ok(Listener {
        address,
        socket,
        front: Front::new(listener, tls),
    })
}

fn bind_tcp(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // So that a restart does not wait for the kernel to forget the connections of the process before.
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(address.ip().is_loopback())?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

fn bind_unix(path: &Path) -> io::Result<StdUnixListener> {
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_socket());
    if is_socket && StdUnixStream::connect(path).is_ok() {
        return Err(io::Error::from(io::ErrorKind::AddrInUse));
    }
    if is_socket {
        std::fs::remove_file(path)?;
    }
    let socket = StdUnixListener::bind(path)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

impl Listener {
    /// Another handle on the same queue, for a worker.
    ///
    /// # Errors
    /// Out of descriptors.
    pub fn handle(&self) -> io::Result<Self> {
        let socket = match &self.socket {
            Bound::Tcp(socket) => Bound::Tcp(socket.try_clone()?),
            Bound::Unix(socket) => Bound::Unix(socket.try_clone()?),
        };
        Ok(Self {
            address: self.address.clone(),
            socket,
            front: self.front.copy(),
        })
    }
}

/// A worker's end of a listener.
enum Accepting {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Accepting {
    fn new(listener: Listener) -> io::Result<Self> {
        Ok(match listener.socket {
            Bound::Tcp(socket) => Self::Tcp(TcpListener::from_std(socket)?),
            Bound::Unix(socket) => Self::Unix(UnixListener::from_std(socket)?),
        })
    }

    async fn accept(&self) -> io::Result<(Stream, Peer)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, address) = listener.accept().await?;
                Ok((Stream::tcp(stream)?, Peer::new(Some(address.ip()))))
            }
            Self::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                Ok((Stream::unix(stream), Peer::new(None)))
            }
        }
    }
}

/// Accept until the plane closes its listeners, then until the queue is empty.
pub(super) async fn accept_loop(worker: Rc<Worker>, at: usize, listener: Listener) -> io::Result<()> {
    let address = listener.address.clone();
    let front = Rc::new(listener.front.copy());
    let accepting = Accepting::new(listener)?;
    let mut phase = worker.shared.phase.clone();
    loop {
        tokio::select! {
            biased;
            accepted = accepting.accept() => take(&worker, at, accepted, &address, &front).await,
            // The queue was empty just now: whoever connects from here on is refused, nobody is dropped.
            _ = phase.wait_for(|phase| *phase >= Phase::Closing) => return Ok(()),
        }
    }
}

/// Serve a client in a task of its own, and hold its place until the end.
fn spawn(serving: impl Future<Output = ()> + 'static, held: impl Sized + 'static) {
    tokio::task::spawn_local(serving.map(move |()| drop(held)));
}

async fn take(
    worker: &Rc<Worker>,
    at: usize,
    accepted: io::Result<(Stream, Peer)>,
    address: &ListenAddress,
    front: &Rc<Front>,
) {
    match accepted {
        Ok((stream, peer)) => {
            if descriptors::is_kept(&stream.socket(), Use::Client) {
                wait_for_descriptors(worker, address, &stream).await;
            }
            // One more than the limit is accepted and waits here; the kernel's queue holds those behind it.
            let Ok(permit) = worker.shared.permits.clone().acquire_owned().await else {
                return;
            };
            let (worker, front) = (Rc::clone(worker), Rc::clone(front));
            let held = (worker.count_connection(at), permit);
            // Several kinds of tasks: one in clear text does not carry the room that a handshake takes. And no `async`
            // block around what serves: it would keep room for what that is made of.
            if front.proxy_protocol {
                spawn(serve_behind_balancer(worker, front, stream, peer), held);
            } else if front.tls.is_some() {
                spawn(serve_tls(worker, front, stream, peer), held);
            } else {
                spawn(serve_plain(worker, front, stream, peer), held);
            }
        }
        Err(error) if gone_already(&error) => {}
        Err(error) => {
            worker
                .say_rarely(|| tracing::error!(%address, %error, "cannot accept connections; trying again"));
            tokio::time::sleep(BREATHER).await;
        }
    }
}

/// The last descriptors are for the clients that are served, and for the operator: this one waits, and those behind it in
/// the kernel's queue.
async fn wait_for_descriptors(worker: &Worker, address: &ListenAddress, stream: &Stream) {
    while descriptors::next_is_kept(&stream.socket(), Use::Client) {
        worker.say_rarely(|| {
            tracing::error!(%address, "new clients wait: nearly all file descriptors are in use (raise LimitNOFILE or \
                `ulimit -n`, or lower limits.connections)");
        });
        tokio::time::sleep(BREATHER).await;
    }
}

/// The client left while it stood in the queue: its own affair.
fn gone_already(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted, InvalidInput, NotConnected};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionReset | Interrupted | InvalidInput | NotConnected
    )
}
