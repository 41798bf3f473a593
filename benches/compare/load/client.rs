//! One client connection: clear or TLS, one request at a time, only as much HTTP/1.1 as the answers need.

use std::sync::Arc;

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::client::Resumption;
use tokio_rustls::rustls::crypto::{CryptoProvider, aws_lc_rs};
use tokio_rustls::rustls::version::TLS13;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::Failure;

/// What the certificate of the comparison is for.
const NAME: &str = "bench.test";

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Handshake {
    /// A connection serves many requests; how it began is no matter.
    Kept,
    /// A new connection for each request, nothing of an earlier one is used.
    Full,
    /// A new connection for each request, with the ticket of an earlier one.
    Resumed,
}

/// Whom to ask, and for what.
pub(crate) struct Origin {
    pub(crate) address: String,
    pub(crate) path: String,
    tls: Option<TlsConnector>,
}

impl Origin {
    /// `ca`: the one certificate that is trusted, a PEM file; needed for `https://`.
    pub(crate) fn new(url: &str, ca: Option<&str>, handshake: Handshake) -> Result<Self, Failure> {
        let (scheme, rest) = url.split_once("://").ok_or("the URL has no scheme")?;
        let (address, path) = rest.find('/').map_or((rest, "/"), |slash| rest.split_at(slash));
        let tls = match (scheme, ca) {
            ("http", _) => None,
            ("https", Some(ca)) => Some(connector(ca, handshake)?),
            _ => return Err("the URL must begin with http:// or, with --ca, https://".into()),
        };
        Ok(Self {
            address: address.to_owned(),
            path: path.to_owned(),
            tls,
        })
    }
}

/// TLS 1.3, X25519 and AES-128-GCM and nothing else, so that all proxies do the same work.
fn connector(ca: &str, handshake: Handshake) -> Result<TlsConnector, Failure> {
    let provider = CryptoProvider {
        kx_groups: vec![aws_lc_rs::kx_group::X25519],
        cipher_suites: vec![aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256],
        ..aws_lc_rs::default_provider()
    };
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca)?)?;
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    if handshake != Handshake::Resumed {
        config.resumption = Resumption::disabled();
    }
    Ok(TlsConnector::from(Arc::new(config)))
}

enum Stream {
    Clear(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

pub(crate) struct Client {
    stream: Stream,
    buffer: Vec<u8>,
    kept: Vec<u8>,
    closing: Vec<u8>,
}

/// What an answer said, besides being whole and a 200.
pub(crate) struct Answer {
    /// The connection may be used again.
    pub(crate) keeps: bool,
    /// The first byte of the body.
    pub(crate) first: u8,
}

impl Client {
    pub(crate) async fn connect(origin: &Origin) -> Result<Self, Failure> {
        let stream = TcpStream::connect(&origin.address).await?;
        stream.set_nodelay(true)?;
        let stream = match &origin.tls {
            None => Stream::Clear(stream),
            Some(tls) => Stream::Tls(Box::new(tls.connect(ServerName::try_from(NAME)?, stream).await?)),
        };
        let head = format!("GET {} HTTP/1.1\r\nHost: {NAME}\r\n", origin.path);
        Ok(Self {
            stream,
            buffer: vec![0; 16 * 1024],
            kept: format!("{head}\r\n").into_bytes(),
            closing: format!("{head}Connection: close\r\n\r\n").into_bytes(),
        })
    }

    /// False once the other side has closed, as far as that is known without waiting. A client that does not look would
    /// count as failed what no pool of connections sends.
    pub(crate) fn is_open(&self) -> bool {
        let stream = match &self.stream {
            Stream::Clear(stream) => stream,
            Stream::Tls(_) => return true,
        };
        matches!(stream.try_read(&mut [0; 1]), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
    }

    /// One request and its whole answer. An answer that is not a 200 with a length is an error.
    pub(crate) async fn ask(&mut self, close: bool) -> Result<Answer, Failure> {
        let request = if close { &self.closing } else { &self.kept };
        match &mut self.stream {
            Stream::Clear(stream) => exchange(stream, request, &mut self.buffer).await,
            Stream::Tls(stream) => exchange(&mut **stream, request, &mut self.buffer).await,
        }
    }

    /// The bare stream, for what is no longer HTTP.
    pub(crate) fn into_clear(self) -> Result<TcpStream, Failure> {
        match self.stream {
            Stream::Clear(stream) => Ok(stream),
            Stream::Tls(_) => Err("only over http://".into()),
        }
    }
}

async fn exchange<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    request: &[u8],
    buffer: &mut Vec<u8>,
) -> Result<Answer, Failure> {
    stream.write_all(request).await?;
    let mut filled = 0;
    let head_end = loop {
        if let Some(end) = find_end(&buffer[..filled]) {
            break end;
        }
        if filled == buffer.len() {
            return Err("the head of the answer is too long".into());
        }
        filled += some(stream.read(&mut buffer[filled..]).await?)?;
    };
    let (length, keeps) = read_head(&buffer[..head_end])?;
    let mut received = filled - head_end;
    if received == 0 && length > 0 {
        received = some(stream.read(&mut buffer[head_end..]).await?)?;
    }
    let first = if length > 0 { buffer[head_end] } else { 0 };
    if received < length && buffer.len() < 128 * 1024 {
        // Large answers: fewer calls, so that the client is not what limits.
        buffer.resize(128 * 1024, 0);
    }
    while received < length {
        received += some(stream.read(buffer).await?)?;
    }
    if received > length {
        return Err("more came than was announced".into());
    }
    Ok(Answer { keeps, first })
}

fn some(read: usize) -> Result<usize, Failure> {
    if read == 0 {
        return Err("closed before the whole answer".into());
    }
    Ok(read)
}

/// Where the body begins, once the head is whole.
pub(crate) fn find_end(bytes: &[u8]) -> Option<usize> {
    bytes
        .windows(4)
        .position(|four| four == b"\r\n\r\n")
        .map(|at| at + 4)
}

/// The length of the body, and whether the connection stays.
fn read_head(head: &[u8]) -> Result<(usize, bool), Failure> {
    let head = std::str::from_utf8(head)?;
    if !head.starts_with("HTTP/1.1 200") {
        return Err(head.lines().next().unwrap_or_default().into());
    }
    let (mut length, mut keeps) = (None, true);
    for line in head.lines() {
        if let Some((name, value)) = line.split_once(':') {
            if name.eq_ignore_ascii_case("content-length") {
                length = Some(value.trim().parse()?);
            } else if name.eq_ignore_ascii_case("connection") {
                keeps = !value.trim().eq_ignore_ascii_case("close");
            }
        }
    }
    Ok((length.ok_or("an answer without content-length")?, keeps))
}
