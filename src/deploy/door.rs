//! How a request of ours gets to an endpoint or a URL: as the proxy's own do, TLS and PROXY header included.

use std::io;
use std::sync::Arc;

use rustls_pki_types::ServerName;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpStream, UnixStream};

use crate::config::{App, EndpointAddress, HostHeader, HostPattern, Protocol, Service};
use crate::tls::{self, Offer, Originator, Originators, Transport, Trust};
use crate::wire::Stream;
use crate::wire::preamble::Version;

/// Where a request goes, and how.
#[derive(Clone, Debug)]
pub(super) struct Door {
    /// `HOST:PORT` or `unix:PATH`.
    place: String,
    secure: Option<Secure>,
    /// HTTP/2 by prior knowledge; otherwise HTTP/1.1.
    pub http2: bool,
    preamble: Option<Version>,
    /// What the `Host` field says.
    pub host: String,
}

#[derive(Clone, Debug)]
struct Secure {
    origin: Arc<Originator>,
    name: ServerName<'static>,
}

impl Door {
    /// In clear text.
    pub(super) fn plain(place: String, host: String) -> Self {
        Self {
            place,
            secure: None,
            http2: false,
            preamble: None,
            host,
        }
    }

    /// By TLS, with the system's authorities.
    ///
    /// # Errors
    /// No certificate can be for this name.
    pub(super) fn tls(place: String, host: String, name: &str) -> Result<Self, String> {
        let secure = Some(secure(&Trust::default(), name)?);
        Ok(Self {
            secure,
            ..Self::plain(place, host)
        })
    }

    /// To an endpoint of a service. `resolved` is what its name is for the server, if it is a name.
    ///
    /// # Errors
    /// No certificate can be for its name.
    pub(super) fn endpoint(
        app: &App,
        service: &Service,
        address: &EndpointAddress,
        resolved: Option<&str>,
    ) -> Result<Self, String> {
        let place = resolved.map_or_else(|| address.place.to_string(), str::to_owned);
        let named = || {
            app.hosts.iter().find_map(|host| match host {
                HostPattern::Exact(name) => Some(name.clone()),
                HostPattern::Below(_) => None,
            })
        };
        let host = match &service.headers.host {
            HostHeader::Fixed(host) => host.clone(),
            HostHeader::Upstream => address.authority(),
            HostHeader::Preserve => named().unwrap_or_else(|| address.authority()),
        };
        let secure = match address.protocol {
            Protocol::Https => Some(secure(&service.tls.trust, &certified(service, address))?),
            Protocol::Http1 | Protocol::H2c => None,
        };
        Ok(Self {
            place,
            secure,
            http2: address.protocol == Protocol::H2c,
            preamble: app.send_proxy_protocol,
            host,
        })
    }

    /// A connection, ready for HTTP.
    ///
    /// # Errors
    /// In words.
    pub(super) async fn open(&self) -> Result<Transport, String> {
        let mut stream = match self.place.strip_prefix("unix:") {
            Some(path) => UnixStream::connect(path).await.map(Stream::unix),
            None => TcpStream::connect(&self.place).await.and_then(Stream::tcp),
        }
        .map_err(|error| refused(&error))?;
        if let Some(version) = self.preamble {
            let sent = stream.write_all(&version.header(None)).await;
            sent.map_err(|error| refused(&error))?;
        }
        match &self.secure {
            None => Ok(Transport::Plain(stream)),
            Some(Secure { origin, name }) => origin
                .connect(name.clone(), stream, Offer::Http1)
                .await
                .map(|(transport, _)| transport)
                .map_err(|error| tls::why(&error)),
        }
    }
}

fn secure(trust: &Trust, name: &str) -> Result<Secure, String> {
    let name = ServerName::try_from(name.to_owned())
        .map_err(|_| format!("`{name}` is no name that a certificate can be for"))?;
    Ok(Secure {
        origin: Originators::default().of(trust),
        name,
    })
}

/// The name that the certificate of an endpoint must be for: as the proxy asks for it.
fn certified(service: &Service, address: &EndpointAddress) -> String {
    let fixed = || match &service.headers.host {
        HostHeader::Fixed(host) => host.parse::<http::uri::Authority>().ok(),
        HostHeader::Preserve | HostHeader::Upstream => None,
    };
    let own = service.tls.server_name.clone();
    let own = own.or_else(|| fixed().map(|authority| authority.host().to_owned()));
    own.unwrap_or_else(|| address.name())
}

fn refused(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        _ => error.to_string(),
    }
}
