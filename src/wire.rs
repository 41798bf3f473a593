//! Sockets as hyper wants them: small writes joined into one `send`, large ones vectored, and a watch on what moves.

pub mod descriptors;
pub mod preamble;

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::rt;
use hyper_util::rt::TokioIo;
use rustix::net::{RecvFlags, recv};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream, tcp, unix};

/// Up to this many bytes in several slices are copied together and sent at once; measured: `writev` costs about
/// 5 % on small answers and wins on large ones.
const JOIN_MAX: usize = 4 * 1024;

/// After so much silence the kernel asks a peer whether it is still there.
const KEEP_ALIVE_AFTER: Duration = Duration::from_secs(60);

thread_local! {
    /// The worker's scratch buffer for joining slices.
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(Vec::with_capacity(JOIN_MAX));
}

/// A stream for hyper. `Send`, because upgrades ask for it.
#[derive(Debug)]
pub struct Io<S> {
    stream: TokioIo<S>,
    watch: Arc<Watch>,
    /// What was read of the stream already, and comes first.
    first: Bytes,
}

/// What a connection's owner can see of its stream while hyper has it. One thread writes and reads it; atomics
/// only because [`Io`] must be `Send`.
#[derive(Debug, Default)]
pub struct Watch {
    read: AtomicU64,
    written: AtomicU64,
    blocked: AtomicBool,
}

impl Watch {
    /// Bytes read so far.
    pub fn bytes_read(&self) -> u64 {
        self.read.load(Relaxed)
    }

    /// Bytes written so far.
    pub fn bytes_written(&self) -> u64 {
        self.written.load(Relaxed)
    }

    fn wrote(&self, polled: &Poll<io::Result<usize>>) {
        self.blocked.store(polled.is_pending(), Relaxed);
        if let Poll::Ready(Ok(bytes)) = polled {
            self.written
                .store(self.written.load(Relaxed) + *bytes as u64, Relaxed);
        }
    }

    /// The peer takes no more: the last write did not go through.
    pub fn is_blocked(&self) -> bool {
        self.blocked.load(Relaxed)
    }
}

impl<S> Io<S> {
    /// Wrap a stream.
    pub fn new(stream: S) -> (Self, Arc<Watch>) {
        let watch = Arc::<Watch>::default();
        (
            Self {
                stream: TokioIo::new(stream),
                watch: Arc::clone(&watch),
                first: Bytes::new(),
            },
            watch,
        )
    }

    /// What was taken from the stream before, given back: it is read before anything else. Not counted again.
    pub fn read_first(&mut self, first: Bytes) {
        self.first = first;
    }

    /// The stream again.
    pub fn into_inner(self) -> S {
        self.stream.into_inner()
    }
}

impl<S: AsyncRead + Unpin> rt::Read for Io<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buf: rt::ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.first.is_empty() {
            let count = self.first.len().min(buf.remaining());
            buf.put_slice(&self.first.split_to(count));
            return Poll::Ready(Ok(()));
        }
        let room = buf.remaining();
        // The cursor is consumed, so the count is taken from what the stream reports through a counting reader.
        let this = &mut *self;
        let mut counted = Counting {
            stream: this.stream.inner_mut(),
            read: 0,
        };
        let polled = rt::Read::poll_read(Pin::new(&mut TokioIo::new(&mut counted)), cx, buf);
        debug_assert!(
            counted.read <= room,
            "a reader cannot fill more than there is room for"
        );
        if counted.read > 0 {
            this.watch
                .read
                .store(this.watch.read.load(Relaxed) + counted.read as u64, Relaxed);
        }
        polled
    }
}

struct Counting<'a, S> {
    stream: &'a mut S,
    read: usize,
}

impl<S: AsyncRead + Unpin> AsyncRead for Counting<'_, S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut *self.stream).poll_read(cx, buf);
        self.read += buf.filled().len() - before;
        polled
    }
}

impl<S: AsyncWrite + Unpin> rt::Write for Io<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(self.stream.inner_mut()).poll_write(cx, buf);
        self.watch.wrote(&polled);
        polled
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = match bufs {
            [only] => Pin::new(self.stream.inner_mut()).poll_write(cx, only),
            _ if bufs.iter().map(|slice| slice.len()).sum::<usize>() <= JOIN_MAX => {
                SCRATCH.with_borrow_mut(|scratch| {
                    scratch.clear();
                    bufs.iter().for_each(|slice| scratch.extend_from_slice(slice));
                    Pin::new(self.stream.inner_mut()).poll_write(cx, scratch)
                })
            }
            _ => Pin::new(self.stream.inner_mut()).poll_write_vectored(cx, bufs),
        };
        self.watch.wrote(&polled);
        polled
    }

    fn is_write_vectored(&self) -> bool {
        // Fixed for a connection's life: the queue strategy, so that bodies are never copied by hyper.
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(self.stream.inner_mut()).poll_flush(cx);
        // A socket is never flushed in vain; TLS has accepted bytes that the peer may not take.
        self.watch.blocked.store(polled.is_pending(), Relaxed);
        polled
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self.stream.inner_mut()).poll_shutdown(cx)
    }
}

/// A connection's stream: read and written by hyper, looked at by its owner through [`Stream::socket`].
#[derive(Debug)]
pub struct Stream {
    read: ReadHalf,
    socket: Socket,
}

#[derive(Debug)]
enum ReadHalf {
    Tcp(tcp::OwnedReadHalf),
    Unix(unix::OwnedReadHalf),
}

/// The socket under an [`Stream`].
#[derive(Clone, Debug)]
pub enum Socket {
    /// TCP.
    Tcp(Arc<tcp::OwnedWriteHalf>),
    /// Unix.
    Unix(Arc<unix::OwnedWriteHalf>),
}

impl Stream {
    /// Of an accepted or opened TCP connection.
    ///
    /// # Errors
    /// The peer is gone already.
    pub fn tcp(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        let (read, write) = stream.into_split();
        Ok(Self {
            read: ReadHalf::Tcp(read),
            socket: Socket::Tcp(Arc::new(write)),
        })
    }

    /// Of a connection over a Unix socket.
    #[must_use]
    pub fn unix(stream: UnixStream) -> Self {
        let (read, write) = stream.into_split();
        Self {
            read: ReadHalf::Unix(read),
            socket: Socket::Unix(Arc::new(write)),
        }
    }

    /// The socket, to look at later.
    #[must_use]
    pub fn socket(&self) -> Socket {
        self.socket.clone()
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(half) => tcp_of(half).as_fd(),
            Self::Unix(half) => unix_of(half).as_fd(),
        }
    }
}

impl Socket {
    /// Ready once there is something to read: bytes, the peer's end, or an error.
    ///
    /// Takes the stream's one place for a waiting reader: only to be polled while nobody reads.
    pub fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            Self::Tcp(half) => tcp_of(half).poll_read_ready(cx).map(|_| ()),
            Self::Unix(half) => unix_of(half).poll_read_ready(cx).map(|_| ()),
        }
    }

    /// Ready once the peer has reset the connection. A peer that has only finished sending has not: it may wait
    /// for an answer, so from then on this stays pending and the next write tells.
    ///
    /// Takes the stream's one place for a waiting reader: only to be polled while nobody reads. (A Unix socket
    /// has no reset: its peer's end is seen at the next write.)
    pub fn poll_reset(&self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let (ready, peeked) = match self {
                Self::Tcp(half) => {
                    let stream = tcp_of(half);
                    let ready = stream.poll_read_ready(cx);
                    (ready, || stream.try_io(Interest::READABLE, || self.peek()))
                }
                Self::Unix(_) => return Poll::Pending,
            };
            if ready!(ready).is_err() {
                return Poll::Ready(());
            }
            match peeked() {
                // The readiness was stale and is cleared now: ask again, to be woken.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return Poll::Ready(()),
                Ok(_) => return Poll::Pending,
            }
        }
    }

    /// The peer's address and our own; `None` for a Unix socket, and for a connection that has failed already.
    #[must_use]
    pub fn ends(&self) -> Option<preamble::Ends> {
        match self {
            Self::Tcp(half) => Some((tcp_of(half).peer_addr().ok()?, tcp_of(half).local_addr().ok()?)),
            Self::Unix(_) => None,
        }
    }

    /// Whether both ends of the connection have the same address: then the peer runs on this machine. (A Unix socket's
    /// always does.)
    #[must_use]
    pub fn is_of_this_machine(&self) -> bool {
        match self {
            Self::Tcp(_) => self.ends().is_some_and(|(peer, own)| peer.ip() == own.ip()),
            Self::Unix(_) => true,
        }
    }

    /// Ask the kernel to look after a peer that has been silent for a minute: for connections without a timeout.
    pub fn keep_alive(&self) {
        let Self::Tcp(half) = self else { return };
        let often = TcpKeepalive::new()
            .with_time(KEEP_ALIVE_AFTER)
            .with_interval(KEEP_ALIVE_AFTER / 4);
        // Refused only for a connection that has failed already.
        let _ = SockRef::from(tcp_of(half)).set_tcp_keepalive(&often);
    }

    /// Whether an unused connection is truly unused: nothing has arrived and it has not ended. One system call,
    /// without waiting; the event loop may not have heard yet what the kernel knows.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.peek()
            .is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Let the close of this connection be a reset: what was sent is not whole, and the peer must see that.
    pub fn reset_on_close(&self) {
        let now = Some(Duration::ZERO);
        // A socket that is gone already needs no reset.
        let _ = match self {
            Self::Tcp(half) => SockRef::from(tcp_of(half)).set_linger(now),
            Self::Unix(_) => Ok(()),
        };
    }

    /// Wait until something has come; true when it is the peer's end.
    ///
    /// # Errors
    /// The connection failed.
    pub async fn readable(&self) -> io::Result<bool> {
        let ready = match self {
            Self::Tcp(half) => tcp_of(half).ready(Interest::READABLE).await?,
            Self::Unix(half) => unix_of(half).ready(Interest::READABLE).await?,
        };
        Ok(ready.is_read_closed())
    }

    /// Look at the first bytes that have come, and leave them there. While they tell nothing this is
    /// [`io::ErrorKind::WouldBlock`], and [`Socket::readable`] waits for more.
    ///
    /// # Errors
    /// That, or the connection failed.
    pub fn peek_at<T>(&self, first: &mut [u8], tell: impl Fn(&[u8]) -> Option<T>) -> io::Result<T> {
        let mut look = |fd: BorrowedFd<'_>| {
            let (count, _) = recv(fd, &mut *first, RecvFlags::PEEK)?;
            tell(&first[..count]).ok_or_else(|| io::ErrorKind::WouldBlock.into())
        };
        match self {
            Self::Tcp(half) => {
                let stream = tcp_of(half);
                stream.try_io(Interest::READABLE, || look(stream.as_fd()))
            }
            Self::Unix(half) => {
                let stream = unix_of(half);
                stream.try_io(Interest::READABLE, || look(stream.as_fd()))
            }
        }
    }

    /// Take what has come, as far as there is room, without waiting and whatever the event loop knows.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`], or the connection failed.
    pub fn take(&self, bytes: &mut [u8]) -> io::Result<usize> {
        Ok(recv(self, bytes, RecvFlags::empty())?.1)
    }

    fn peek(&self) -> io::Result<usize> {
        let mut byte = [MaybeUninit::uninit(); 1];
        match self {
            Self::Tcp(half) => SockRef::from(tcp_of(half)).peek(&mut byte),
            Self::Unix(half) => SockRef::from(unix_of(half)).peek(&mut byte),
        }
    }

    fn poll_write_with(
        &self,
        cx: &mut Context<'_>,
        mut write: impl FnMut(&Self) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            match self {
                Self::Tcp(half) => ready!(tcp_of(half).poll_write_ready(cx))?,
                Self::Unix(half) => ready!(unix_of(half).poll_write_ready(cx))?,
            }
            match write(self) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                done => return Poll::Ready(done),
            }
        }
    }
}

fn tcp_of(half: &tcp::OwnedWriteHalf) -> &TcpStream {
    half.as_ref()
}

fn unix_of(half: &unix::OwnedWriteHalf) -> &UnixStream {
    half.as_ref()
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.read {
            ReadHalf::Tcp(half) => Pin::new(half).poll_read(cx, buf),
            ReadHalf::Unix(half) => Pin::new(half).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.socket.poll_write_with(cx, |socket| match socket {
            Socket::Tcp(half) => half.try_write(buf),
            Socket::Unix(half) => half.try_write(buf),
        })
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.socket.poll_write_with(cx, |socket| match socket {
            Socket::Tcp(half) => half.try_write_vectored(bufs),
            Socket::Unix(half) => half.try_write_vectored(bufs),
        })
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(match &self.socket {
            Socket::Tcp(half) => SockRef::from(tcp_of(half)).shutdown(Shutdown::Write),
            Socket::Unix(half) => SockRef::from(unix_of(half)).shutdown(Shutdown::Write),
        })
    }
}
