//! The client of the admin API: HTTP/1.1 over the Unix socket or TCP, one connection a request.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use http::uri::Authority;
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use super::auth::CLIENT_HEADER;

/// For a connection.
const CONNECT_TIME: Duration = Duration::from_secs(5);

/// The largest answer that is read, in bytes.
const ANSWER_MAX: usize = 32 * 1024 * 1024;

/// The longest line of an event stream, in bytes.
const LINE_MAX: usize = 256 * 1024;

/// Silence for this long is a dead event stream: the server sends a comment every 15 seconds.
const SILENCE: Duration = Duration::from_secs(45);

/// Where a server may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// `unix:/run/cutover/admin.sock`
    Unix(PathBuf),
    /// `http://127.0.0.1:9900`
    Http(Authority),
}

impl Address {
    /// From `unix:PATH` or `http://HOST:PORT`; a bare path is a socket too.
    ///
    /// # Errors
    /// Says what is accepted.
    pub fn parse(text: &str) -> Result<Self, String> {
        let form = || format!("`{text}` is no admin address; write `unix:PATH` or `http://HOST:PORT`");
        if let Some(path) = text.strip_prefix("unix:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            return if path.is_empty() {
                Err(form())
            } else {
                Ok(Self::Unix(path.into()))
            };
        }
        if text.starts_with('/') || text.starts_with("./") {
            return Ok(Self::Unix(text.into()));
        }
        if text.starts_with("https://") {
            return Err(format!(
                "`{text}`: the admin API speaks no TLS; write `http://HOST:PORT`"
            ));
        }
        let authority = text
            .strip_prefix("http://")
            .map(|rest| rest.strip_suffix('/').unwrap_or(rest))
            .and_then(|rest| rest.parse::<Authority>().ok())
            .filter(|authority| authority.port_u16().is_some() && !authority.as_str().contains('@'));
        authority.map(Self::Http).ok_or_else(form)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Http(authority) => write!(f, "http://{authority}"),
        }
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No connection.
    #[error("{address}: {}", reason(.source))]
    Connect {
        /// Where.
        address: Address,
        /// Why.
        source: io::Error,
    },
    /// The connection broke; a change may have been made or not.
    #[error("the connection to {address} broke before the answer was complete: {why}")]
    Broken {
        /// Where.
        address: Address,
        /// How.
        why: String,
    },
    /// No answer in time; a change may still be made.
    #[error("{address} did not answer within {} s", .after.as_secs())]
    Silent {
        /// Where.
        address: Address,
        /// How long.
        after: Duration,
    },
}

/// The reason of a failed connect in words that help.
fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "no such file".to_owned(),
        io::ErrorKind::ConnectionRefused => "nobody listens there".to_owned(),
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        io::ErrorKind::TimedOut => format!("no connection within {} s", CONNECT_TIME.as_secs()),
        _ => error.to_string(),
    }
}

/// One request.
#[derive(Clone, Debug)]
pub struct Call {
    /// Its method.
    pub method: Method,
    /// Path and query.
    pub path: String,
    /// Its JSON body.
    pub body: Option<String>,
    /// Further headers.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// How long the answer may take.
    pub time: Duration,
}

impl Call {
    /// A GET, answered within ten seconds.
    #[must_use]
    pub fn get(path: impl Into<String>) -> Self {
        Self {
            method: Method::GET,
            path: path.into(),
            body: None,
            headers: Vec::new(),
            time: Duration::from_secs(10),
        }
    }
}

/// A whole answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its body as text.
    pub text: String,
}

/// A server that answered a connect.
#[derive(Clone, Debug)]
pub struct Client {
    /// Where it is.
    pub address: Address,
    /// Sent as bearer token over TCP.
    token: Option<HeaderValue>,
}

impl Client {
    /// A client for this address.
    #[must_use]
    pub const fn new(address: Address, token: Option<HeaderValue>) -> Self {
        Self { address, token }
    }

    /// Connect and hang up: whether somebody is there.
    ///
    /// # Errors
    /// [`ClientError::Connect`].
    pub async fn knock(&self) -> Result<(), ClientError> {
        match &self.address {
            Address::Unix(path) => self.connect(UnixStream::connect(path)).await.map(drop),
            Address::Http(authority) => self
                .connect(TcpStream::connect(authority.as_str()))
                .await
                .map(drop),
        }
    }

    /// Send a request and read the whole answer.
    ///
    /// # Errors
    /// No connection, or no whole answer. An answer that is a problem is no error here.
    pub async fn call(&self, call: &Call) -> Result<Answer, ClientError> {
        let exchange = async {
            let response = self.send(call).await?;
            let status = response.status();
            let body = Limited::new(response.into_body(), ANSWER_MAX)
                .collect()
                .await
                .map_err(|error| self.broken(error))?;
            Ok(Answer {
                status,
                text: String::from_utf8_lossy(&body.to_bytes()).into_owned(),
            })
        };
        tokio::time::timeout(call.time, exchange)
            .await
            .unwrap_or(Err(self.silent(call.time)))
    }

    /// Send a request and read its answer event by event.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub async fn events(&self, call: &Call) -> Result<Result<Events, Answer>, ClientError> {
        let response = tokio::time::timeout(call.time, self.send(call))
            .await
            .unwrap_or(Err(self.silent(call.time)))?;
        if response.status() == StatusCode::OK {
            return Ok(Ok(Events {
                client: self.clone(),
                body: response.into_body(),
                buffer: Vec::new(),
            }));
        }
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_MAX)
            .collect()
            .await
            .map_err(|error| self.broken(error))?;
        Ok(Err(Answer {
            status,
            text: String::from_utf8_lossy(&body.to_bytes()).into_owned(),
        }))
    }

    async fn send(&self, call: &Call) -> Result<Response<Incoming>, ClientError> {
        match &self.address {
            Address::Unix(path) => {
                let stream = self.connect(UnixStream::connect(path)).await?;
                self.exchange(stream, "localhost", call).await
            }
            Address::Http(authority) => {
                let stream = self.connect(TcpStream::connect(authority.as_str())).await?;
                self.exchange(stream, authority.as_str(), call).await
            }
        }
    }

    async fn connect<S>(&self, connecting: impl Future<Output = io::Result<S>>) -> Result<S, ClientError> {
        tokio::time::timeout(CONNECT_TIME, connecting)
            .await
            .unwrap_or(Err(io::ErrorKind::TimedOut.into()))
            .map_err(|source| ClientError::Connect {
                address: self.address.clone(),
                source,
            })
    }

    async fn exchange<S>(&self, stream: S, host: &str, call: &Call) -> Result<Response<Incoming>, ClientError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (mut sender, connection) = http1::handshake::<_, Full<Bytes>>(TokioIo::new(stream))
            .await
            .map_err(|error| self.broken(error))?;
        // Ends with the answer's body: the sender is dropped before.
        tokio::spawn(connection);
        let body = call.body.clone().unwrap_or_default();
        let mut request = Request::new(Full::new(Bytes::from(body)));
        *request.method_mut() = call.method.clone();
        *request.uri_mut() = call.path.parse().map_err(|error| self.broken(error))?;
        let headers = request.headers_mut();
        headers.insert(
            header::HOST,
            HeaderValue::from_str(host).map_err(|error| self.broken(error))?,
        );
        headers.insert(CLIENT_HEADER, HeaderValue::from_static("cli"));
        if call.body.is_some() {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        if let (Some(token), Address::Http(_)) = (&self.token, &self.address) {
            headers.insert(header::AUTHORIZATION, token.clone());
        }
        for (name, value) in &call.headers {
            headers.insert(name, value.clone());
        }
        sender
            .send_request(request)
            .await
            .map_err(|error| self.broken(error))
    }

    fn broken(&self, why: impl fmt::Display) -> ClientError {
        ClientError::Broken {
            address: self.address.clone(),
            why: why.to_string(),
        }
    }

    fn silent(&self, after: Duration) -> ClientError {
        ClientError::Silent {
            address: self.address.clone(),
            after,
        }
    }
}

/// One server-sent event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Received {
    /// Its id, if it has one.
    pub id: Option<String>,
    /// Its name.
    pub event: String,
    /// Its data.
    pub data: String,
}

/// An open event stream.
#[derive(Debug)]
pub struct Events {
    client: Client,
    body: Incoming,
    buffer: Vec<u8>,
}

impl Events {
    /// The next event; none when the server ended the stream.
    ///
    /// # Errors
    /// The connection broke or fell silent.
    pub async fn next(&mut self) -> Result<Option<Received>, ClientError> {
        loop {
            if let Some(event) = take_event(&mut self.buffer) {
                return Ok(Some(event));
            }
            if self.buffer.len() > LINE_MAX {
                return Err(self.client.broken("an event is too long"));
            }
            let frame = tokio::time::timeout(SILENCE, self.body.frame())
                .await
                .map_err(|_| self.client.silent(SILENCE))?;
            match frame {
                None => return Ok(None),
                Some(Err(error)) => return Err(self.client.broken(error)),
                Some(Ok(frame)) => {
                    if let Some(data) = frame.data_ref() {
                        self.buffer.extend_from_slice(data);
                    }
                }
            }
        }
    }
}

/// Take the first whole event out of the buffer; comments are skipped. Our server ends lines with LF.
fn take_event(buffer: &mut Vec<u8>) -> Option<Received> {
    loop {
        let end = buffer.windows(2).position(|two| two == b"\n\n")?;
        let block: Vec<u8> = buffer.drain(..end + 2).collect();
        let text = String::from_utf8_lossy(&block);
        let mut event = Received::default();
        let mut any = false;
        for line in text.lines() {
            let (name, value) = line.split_once(':').unwrap_or((line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match name {
                "id" => event.id = Some(value.to_owned()),
                "event" => event.event = value.to_owned(),
                "data" => {
                    if any {
                        event.data.push('\n');
                    }
                    event.data.push_str(value);
                    any = true;
                }
                _ => {}
            }
        }
        if any {
            return Some(event);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test panics to fail")]

    use super::*;

    #[test]
    fn events_are_taken_whole_and_comments_skipped() {
        let mut buffer = b": alive\n\nevent: changed\nid: 7\ndata: {\"a\":1}\n\nevent: hea".to_vec();
        let event = take_event(&mut buffer).unwrap();
        assert_eq!(
            (event.id.as_deref(), event.event.as_str(), event.data.as_str()),
            (Some("7"), "changed", "{\"a\":1}")
        );
        assert_eq!(take_event(&mut buffer), None);
        buffer.extend_from_slice(b"lth\ndata: x\ndata: y\n\n");
        assert_eq!(take_event(&mut buffer).unwrap().data, "x\ny");
    }

    #[test]
    fn addresses_are_a_socket_or_an_http_authority() {
        assert_eq!(Address::parse("unix:/a/b").unwrap(), Address::Unix("/a/b".into()));
        assert_eq!(
            Address::parse("unix:///a/b").unwrap(),
            Address::Unix("/a/b".into())
        );
        assert_eq!(Address::parse("/a/b").unwrap(), Address::Unix("/a/b".into()));
        assert_eq!(
            Address::parse("http://[::1]:99/").unwrap().to_string(),
            "http://[::1]:99"
        );
        for bad in [
            "",
            "unix:",
            "http://",
            "http://host",
            "http://u@h:1",
            "https://h:1",
            "h:1",
            "http://h:1/v1",
        ] {
            assert!(Address::parse(bad).is_err(), "{bad}");
        }
    }
}
