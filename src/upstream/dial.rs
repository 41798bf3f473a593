//! Connecting to an endpoint: TCP or Unix, and TLS where its address says so. Requests and probes come through here.

use std::io;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, timeout_at};

use super::health::words;
use super::{Endpoint, Target};
use crate::config::Protocol;
use crate::tls::{self, Offer, Transport};
use crate::wire::Stream;
use crate::wire::preamble::Ends;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Not within the time.
    #[error("no connection within {0:?}")]
    Timeout(Duration),
    /// The last file descriptors are kept for other things.
    #[error("too few file descriptors are left (`ulimit -n`, LimitNOFILE)")]
    Descriptors,
    /// The system refused.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// There is a connection, but no TLS on it. In words.
    #[error("{0}")]
    Tls(String),
    /// There is a connection, but the TLS handshake did not end within the time.
    #[error("no TLS handshake within {0:?}")]
    TlsTimeout(Duration),
    /// hyper refused.
    #[error("{0}")]
    Handshake(hyper::Error),
}

impl ConnectError {
    /// Whether it says something of this process, and nothing of the app.
    #[must_use]
    pub fn is_our_own(&self) -> bool {
        match self {
            Self::Descriptors => true,
            Self::Io(error) => words::is_our_own(error),
            _ => false,
        }
    }
}

/// A connection, and what is spoken on it.
#[derive(Debug)]
pub(super) struct Dialled {
    pub(super) transport: Transport,
    /// HTTP/2; otherwise HTTP/1.1.
    pub(super) http2: bool,
}

/// Connect, TLS handshake included. An endpoint that wants a PROXY header gets one before all else: for the client at
/// these `ends`, or for ourselves.
pub(super) async fn dial(
    endpoint: &Endpoint,
    ends: Option<Ends>,
    within: Duration,
    offer: Offer,
) -> Result<Dialled, ConnectError> {
    let deadline = Instant::now() + within;
    let opened = async {
        let mut stream = connect(&endpoint.key.target).await?;
        if let Some(version) = endpoint.key.preamble {
            stream.write_all(&version.header(ends)).await?;
        }
        Ok::<_, io::Error>(stream)
    };
    let stream = timeout_at(deadline, opened)
        .await
        .map_err(|_| ConnectError::Timeout(within))??;
    let Some(secure) = &endpoint.secure else {
        return Ok(Dialled {
            transport: Transport::Plain(stream),
            http2: endpoint.key.address.protocol == Protocol::H2c,
        });
    };
    let name = secure.name.clone().map_err(ConnectError::Tls)?;
    let shaken = timeout_at(deadline, secure.origin.connect(name, stream, offer)).await;
    let (transport, http2) = shaken
        .map_err(|_| ConnectError::TlsTimeout(within))?
        .map_err(|error| ConnectError::Tls(tls::why(&error)))?;
    Ok(Dialled { transport, http2 })
}

async fn connect(target: &Target) -> io::Result<Stream> {
    match target {
        Target::Tcp(address) => Stream::tcp(TcpStream::connect(*address).await?),
        Target::Unix(path) => Ok(Stream::unix(UnixStream::connect(path).await?)),
    }
}
