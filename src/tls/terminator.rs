//! One listener's TLS: the rustls configuration, built once, and the handshake.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock};

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::{NoServerSessionStorage, ProducesTickets, VerifierBuilderError, WebPkiClientVerifier};
use rustls::{HandshakeKind, ProtocolVersion, ServerConfig, ServerConnection, SupportedProtocolVersion};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::client::TlsStream as ClientStream;

use super::certificates::Certificates;
use super::own::OwnClient;
use super::pair::{Pair, PairError, roots_of};
use super::transport::Transport;
use super::x509::Facts;
use crate::wire::Stream;

/// Resumptions that one full handshake pays for.
const TICKETS: usize = 2;

/// X25519MLKEM768 is its first key exchange (the feature `prefer-post-quantum`).
pub(super) fn provider() -> &'static Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> =
        LazyLock::new(|| Arc::new(aws_lc_rs::default_provider()));
    &PROVIDER
}

/// How a listener terminates TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The first is the default for clients that name no server, or an unknown one.
    pub certificates: Vec<Pair>,
    /// Older clients are refused.
    pub min_version: MinVersion,
    /// Protocols offered by ALPN, the best first.
    pub alpn: Vec<String>,
    /// Clients must show a certificate that one of these has signed. Read at start.
    pub client_ca: Option<PathBuf>,
}

/// The oldest version of TLS that is spoken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MinVersion {
    /// TLS 1.2 with forward secrecy and authenticated encryption only: rustls has no other.
    #[default]
    Tls12,
    /// TLS 1.3.
    Tls13,
}

impl MinVersion {
    /// As the file writes it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tls12 => "1.2",
            Self::Tls13 => "1.3",
        }
    }

    fn versions(self) -> &'static [&'static SupportedProtocolVersion] {
        static ALL: [&SupportedProtocolVersion; 2] = [&rustls::version::TLS13, &rustls::version::TLS12];
        match self {
            Self::Tls12 => &ALL,
            Self::Tls13 => &ALL[..1],
        }
    }
}

/// TLS could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be used.
    #[error("{0}")]
    File(#[from] PairError),
    /// The certificates of `client_ca` cannot be used.
    #[error("client_ca: {0}")]
    ClientCa(#[from] VerifierBuilderError),
    /// rustls refuses.
    #[error("TLS cannot be set up: {0}")]
    Rustls(#[from] rustls::Error),
}

/// The keys of session tickets: one for the process, so that a session resumes on any worker and across reloads.
/// They change every six hours; a ticket is good for twelve at most.
#[derive(Clone, Debug)]
pub struct Tickets(Arc<dyn ProducesTickets>);

impl Tickets {
    /// New keys.
    ///
    /// # Errors
    /// The system has no randomness.
    pub fn new() -> Result<Self, TlsError> {
        Ok(Self(aws_lc_rs::Ticketer::new()?))
    }
}

/// One listener's TLS. Shared by the workers; nothing in it changes but the certificates.
#[derive(Debug)]
pub struct Terminator {
    server: Arc<ServerConfig>,
    certificates: Arc<Certificates>,
    asks_clients: bool,
    own: OwnClient,
}

/// What a handshake has settled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// The server name that the client asked for, in lower case.
    pub name: Option<Box<str>>,
    /// The subject of the client's certificate (RFC 4514), where the listener asks for one.
    pub subject: Option<String>,
    /// TLS 1.3, or 1.2.
    pub is_tls13: bool,
    /// A session from before went on.
    pub resumed: bool,
    /// HTTP/2 was agreed on (by ALPN); else HTTP/1.1.
    pub is_h2: bool,
}

impl Terminator {
    /// Read the files and set it up.
    ///
    /// # Errors
    /// A file that cannot be used.
    pub fn new(settings: &Settings, tickets: &Tickets) -> Result<Self, TlsError> {
        let certificates = Arc::new(Certificates::load(&settings.certificates)?);
        let builder = ServerConfig::builder_with_provider(Arc::clone(provider()))
            .with_protocol_versions(settings.min_version.versions())?;
        let builder = match &settings.client_ca {
            None => builder.with_no_client_auth(),
            Some(path) => {
                let roots = Arc::new(roots_of(path)?);
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(provider()));
                builder.with_client_cert_verifier(verifier.build()?)
            }
        };
        let mut server = builder.with_cert_resolver(Arc::clone(&certificates) as _);
        server.alpn_protocols = settings
            .alpn
            .iter()
            .map(|name| name.clone().into_bytes())
            .collect();
        // All suites are good; that the server has the last word is what scanners, and the rules behind them, ask for.
        server.ignore_client_order = true;
        // Tickets alone: a store would be a lock that all workers share, and lose its sessions at a restart too.
        server.session_storage = Arc::new(NoServerSessionStorage {});
        if settings.client_ca.is_some() {
            // A resumed session would not show its certificate again: every connection is verified.
            server.send_tls13_tickets = 0;
        } else {
            server.ticketer = Arc::clone(&tickets.0);
            server.send_tls13_tickets = TICKETS;
        }
        Ok(Self {
            server: Arc::new(server),
            own: OwnClient::new(&certificates)?,
            certificates,
            asks_clients: settings.client_ca.is_some(),
        })
    }

    /// Its certificates.
    #[must_use]
    pub fn certificates(&self) -> &Arc<Certificates> {
        &self.certificates
    }

    /// Whether clients must show a certificate.
    #[must_use]
    pub fn asks_clients(&self) -> bool {
        self.asks_clients
    }

    /// Shake hands with a client. The caller bounds it in time.
    ///
    /// # Errors
    /// The client left, or it and we do not agree; rustls has told it by an alert.
    pub async fn accept(&self, stream: Stream) -> io::Result<(Transport, Session)> {
        let stream = TlsAcceptor::from(Arc::clone(&self.server)).accept(stream).await?;
        let session = Session::of(stream.get_ref().1);
        Ok((Transport::Tls(Box::new(stream.into())), session))
    }

    /// Be a client of this listener, over a connection to it: only its own certificates are accepted.
    ///
    /// # Errors
    /// The handshake failed.
    pub async fn connect(&self, host: &str, stream: Stream) -> io::Result<ClientStream<Stream>> {
        self.own.connect(host, stream).await
    }
}

impl Session {
    fn of(connection: &ServerConnection) -> Self {
        let certificate = connection.peer_certificates().and_then(<[_]>::first);
        Self {
            name: connection.server_name().map(Box::from),
            // A certificate without a readable subject was verified all the same: it has an empty one.
            subject: certificate.map(|one| Facts::read(one).map(|facts| facts.subject).unwrap_or_default()),
            is_tls13: connection.protocol_version() == Some(ProtocolVersion::TLSv1_3),
            resumed: connection.handshake_kind() == Some(HandshakeKind::Resumed),
            is_h2: connection.alpn_protocol() == Some(b"h2"),
        }
    }
}
