//! A connection as the data plane reads and writes it, to either side: in clear text, or through TLS.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::TlsStream;

use crate::wire::{Socket, Stream};

/// One type for both, so that hyper's code is there once. Only TLS pays for a box: its state is a kilobyte, and a
/// connection in clear text is as small as before.
#[derive(Debug)]
pub enum Transport {
    /// Clear text.
    Plain(Stream),
    /// TLS.
    Tls(Box<TlsStream<Stream>>),
}

impl Transport {
    /// Whether it is encrypted.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        matches!(self, Self::Tls(_))
    }

    /// The socket under it.
    #[must_use]
    pub fn socket(&self) -> Socket {
        match self {
            Self::Plain(stream) => stream.socket(),
            Self::Tls(stream) => stream.get_ref().0.socket(),
        }
    }
}

/// Whether a client is at the other end.
fn is_clients(stream: &TlsStream<Stream>) -> bool {
    matches!(stream, TlsStream::Server(_))
}

impl AsyncRead for Transport {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => match ready!(Pin::new(&mut **stream).poll_read(cx, buf)) {
                // Many clients leave without close_notify. Nothing is trusted to that end: a request says its own
                // length, and one that is cut is seen as cut. An app's answer may end with its connection: there it
                // stays an error (RFC 9112 §9.8).
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof && is_clients(stream) => {
                    Poll::Ready(Ok(()))
                }
                read => Poll::Ready(read),
            },
        }
    }
}

impl AsyncWrite for Transport {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
