//! Clients of HTTP/2: one that keeps the rules (the `h2` crate's), and one that sends any frame.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, Method, Request, Version};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;

use super::PATIENCE;
use super::tls::Dialer;
use super::wire::Wire;

/// A whole answer.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub fields: HeaderMap,
    pub body: Bytes,
    pub trailers: HeaderMap,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// A field that is there once, or not at all.
    #[track_caller]
    pub fn field(&self, name: &str) -> Option<&str> {
        let mut all = self.fields.get_all(name).iter();
        let first = all.next().map(|value| value.to_str().unwrap());
        assert!(all.next().is_none(), "several {name} in {self:?}");
        first
    }
}

/// Why there is no whole answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// RST_STREAM.
    Reset(Reason),
    /// GOAWAY, or the connection ended.
    Connection(Option<Reason>),
}

impl From<h2::Error> for Lost {
    fn from(error: h2::Error) -> Self {
        match error.reason() {
            Some(reason) if error.is_reset() => Self::Reset(reason),
            reason => Self::Connection(reason),
        }
    }
}

/// A connection of a client that keeps the rules.
pub struct H2 {
    runtime: Runtime,
    requests: SendRequest<Bytes>,
    scheme: &'static str,
    driver: tokio::task::JoinHandle<Result<(), h2::Error>>,
}

/// A request whose answer is awaited, and whose body may go on.
pub struct Open {
    pub answer: ResponseFuture,
    pub upload: SendStream<Bytes>,
}

impl H2 {
    /// By prior knowledge.
    pub fn plain(address: SocketAddr) -> Self {
        Self::with(address, None, &h2::client::Builder::new())
    }

    /// By prior knowledge, with windows of its own.
    pub fn tuned(address: SocketAddr, builder: &h2::client::Builder) -> Self {
        Self::with(address, None, builder)
    }

    /// By ALPN; the handshake must have agreed on it.
    pub fn tls(dialer: &Dialer, address: SocketAddr, name: &str) -> Self {
        let mut config = (*dialer.0).clone();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Self::with(
            address,
            Some((Arc::new(config), name)),
            &h2::client::Builder::new(),
        )
    }

    fn with(
        address: SocketAddr,
        tls: Option<(Arc<rustls::ClientConfig>, &str)>,
        builder: &h2::client::Builder,
    ) -> Self {
        #[allow(
            clippy::disallowed_methods,
            reason = "the client goes on while its test waits for other things"
        )]
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let (requests, driver) = runtime.block_on(async {
            let tcp = TcpStream::connect(address).await.unwrap();
            tcp.set_nodelay(true).unwrap();
            let io: Box<dyn Duplex> = match tls {
                None => Box::new(tcp),
                Some((config, name)) => {
                    let name = ServerName::try_from(name.to_owned()).unwrap();
                    let connector = tokio_rustls::TlsConnector::from(config);
                    let stream = connector.connect(name, tcp).await.unwrap();
                    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
                    Box::new(stream)
                }
            };
            let (requests, connection) = builder.handshake(io).await.unwrap();
            (requests, tokio::spawn(connection))
        });
        Self {
            runtime,
            requests,
            scheme,
            driver,
        }
    }

    /// The beginnings of a request for the host `shop.test`.
    pub fn request(&self, method: &str, target: &str) -> http::request::Builder {
        Request::builder()
            .version(Version::HTTP_2)
            .method(Method::from_bytes(method.as_bytes()).unwrap())
            .uri(format!("{}://shop.test{target}", self.scheme))
    }

    /// Wait for something, but not for ever.
    #[track_caller]
    pub fn wait<T>(&self, what: impl Future<Output = T>) -> T {
        let waited = self
            .runtime
            .block_on(async { tokio::time::timeout(PATIENCE, what).await });
        waited.expect("nothing came in time")
    }

    /// Send a head; `more`: a body follows.
    #[track_caller]
    pub fn open(&mut self, request: http::request::Builder, more: bool) -> Open {
        let request = request.body(()).unwrap();
        let mut requests = self.requests.clone();
        let (answer, upload) = self
            .wait(async {
                std::future::poll_fn(|cx| requests.poll_ready(cx)).await?;
                requests.send_request(request, !more)
            })
            .unwrap_or_else(|error| panic!("not sent: {error}"));
        Open { answer, upload }
    }

    /// Send a request with a body (empty: none) and read its answer.
    pub fn try_ask(&mut self, request: http::request::Builder, body: &'static str) -> Result<Answer, Lost> {
        let mut open = self.open(request, !body.is_empty());
        if !body.is_empty() {
            open.upload
                .send_data(Bytes::from_static(body.as_bytes()), true)
                .unwrap();
        }
        self.wait(read(open.answer))
    }

    #[track_caller]
    pub fn ask(&mut self, request: http::request::Builder, body: &'static str) -> Answer {
        self.try_ask(request, body)
            .unwrap_or_else(|lost| panic!("no whole answer: {lost:?}"))
    }

    #[track_caller]
    pub fn get(&mut self, target: &str) -> Answer {
        let request = self.request("GET", target);
        self.ask(request, "")
    }

    /// So many requests at once.
    #[track_caller]
    pub fn get_all(&mut self, targets: &[String]) -> Vec<Result<Answer, Lost>> {
        let open: Vec<_> = targets
            .iter()
            .map(|target| {
                let request = self.request("GET", target);
                self.open(request, false).answer
            })
            .collect();
        let tasks: Vec<_> = open
            .into_iter()
            .map(|answer| self.runtime.spawn(read(answer)))
            .collect();
        tasks.into_iter().map(|task| self.wait(task).unwrap()).collect()
    }

    /// The server has ended the connection: true if orderly, after GOAWAY without error.
    #[track_caller]
    pub fn ended(mut self) -> bool {
        let driver = std::mem::replace(&mut self.driver, self.runtime.spawn(async { Ok(()) }));
        match self.wait(driver).unwrap() {
            Ok(()) => true,
            Err(error) => error.reason() == Some(Reason::NO_ERROR),
        }
    }

    /// Whether the server has said that it takes extended CONNECT (RFC 8441 §3).
    pub fn may_connect(&self) -> bool {
        self.requests.is_extended_connect_protocol_enabled()
    }

    /// Whether the connection is still there.
    pub fn is_open(&self) -> bool {
        !self.driver.is_finished()
    }
}

trait Duplex: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Duplex for T {}

/// Read an answer to its end.
pub async fn read(answer: ResponseFuture) -> Result<Answer, Lost> {
    let (head, mut body) = answer.await?.into_parts();
    let mut bytes = Vec::new();
    while let Some(data) = next(&mut body).await? {
        bytes.extend_from_slice(&data);
    }
    let trailers = body.trailers().await?.unwrap_or_default();
    Ok(Answer {
        status: head.status.as_u16(),
        fields: head.headers,
        body: bytes.into(),
        trailers,
    })
}

/// The next of a body, with room made for as much again.
pub async fn next(body: &mut RecvStream) -> Result<Option<Bytes>, Lost> {
    let Some(data) = body.data().await else {
        return Ok(None);
    };
    let data = data?;
    let _ = body.flow_control().release_capacity(data.len());
    Ok(Some(data))
}

/// Types of frames (RFC 9113 §6).
pub mod kind {
    pub const DATA: u8 = 0;
    pub const HEADERS: u8 = 1;
    pub const RST_STREAM: u8 = 3;
    pub const SETTINGS: u8 = 4;
    pub const PING: u8 = 6;
    pub const GOAWAY: u8 = 7;
}

pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;
pub const ACK: u8 = 1;

/// A frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

impl Frame {
    /// The error code of RST_STREAM and GOAWAY.
    pub fn code(&self) -> u32 {
        let at = if self.kind == kind::GOAWAY { 4 } else { 0 };
        u32::from_be_bytes(self.payload[at..at + 4].try_into().unwrap())
    }
}

/// A connection of a client that sends any frame.
pub struct Raw(pub Wire);

impl Raw {
    /// With preface and settings sent and ours acknowledged.
    pub fn plain(address: SocketAddr) -> Self {
        let mut raw = Self(Wire::tcp(address));
        raw.0.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        raw.send(kind::SETTINGS, 0, 0, &[])
            .send(kind::SETTINGS, ACK, 0, &[]);
        raw
    }

    pub fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> &mut Self {
        self.0.send(frame(kind, flags, stream, payload));
        self
    }

    /// A request with these fields, pseudo-header fields among them, in one HEADERS frame.
    pub fn head(&mut self, stream: u32, flags: u8, fields: &[(&str, &str)]) -> &mut Self {
        self.send(kind::HEADERS, flags | END_HEADERS, stream, &block(fields))
    }

    /// The next frame, if one comes.
    pub fn frame(&mut self) -> Option<Frame> {
        let head = self.0.try_bytes(9)?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        Some(Frame {
            kind: head[3],
            flags: head[4],
            stream: u32::from_be_bytes([head[5], head[6], head[7], head[8]]),
            payload: self.0.try_bytes(length as usize)?,
        })
    }

    /// The next frame of this kind for this stream; others are passed over. `None`: the connection ended before.
    pub fn until(&mut self, kind: u8, stream: u32) -> Option<Frame> {
        loop {
            let frame = self.frame()?;
            if frame.kind == kind && frame.stream == stream {
                return Some(frame);
            }
        }
    }

    /// The first frame of a stream.
    pub fn first_of(&mut self, stream: u32) -> Option<Frame> {
        loop {
            let frame = self.frame()?;
            if frame.stream == stream {
                return Some(frame);
            }
        }
    }

    /// What becomes of a stream: RST_STREAM with this code, `Ok` at END_STREAM, GOAWAY's code, or `None`.
    pub fn outcome(&mut self, stream: u32) -> Outcome {
        while let Some(frame) = self.frame() {
            let ends = matches!(frame.kind, kind::DATA | kind::HEADERS) && frame.flags & END_STREAM != 0;
            match frame.kind {
                kind::RST_STREAM if frame.stream == stream => return Outcome::Reset(frame.code()),
                kind::GOAWAY if frame.code() != 0 => return Outcome::GoAway(frame.code()),
                _ if ends && frame.stream == stream => return Outcome::Answered,
                _ => {}
            }
        }
        Outcome::Closed
    }

    /// No other client's business: the connection answers a ping.
    #[track_caller]
    pub fn assert_alive(&mut self) {
        self.send(kind::PING, 0, 0, b"are you?");
        let pong = self.until(kind::PING, 0).expect("no pong: the connection ended");
        assert_eq!((pong.flags, pong.payload.as_slice()), (ACK, &b"are you?"[..]));
    }
}

/// What became of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Answered,
    Reset(u32),
    GoAway(u32),
    Closed,
}

pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = vec![length[1], length[2], length[3], kind, flags];
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// Fields as literals without indexing and without Huffman coding (RFC 7541 §6.2.2): any bytes at all.
pub fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, value) in fields {
        bytes.push(0);
        for text in [name, value] {
            length(&mut bytes, text.len());
            bytes.extend(text.bytes());
        }
    }
    bytes
}

fn length(bytes: &mut Vec<u8>, count: usize) {
    if count < 127 {
        return bytes.push(u8::try_from(count).unwrap());
    }
    bytes.push(127);
    let mut rest = count - 127;
    while rest >= 128 {
        bytes.push(u8::try_from(rest % 128).unwrap() | 128);
        rest /= 128;
    }
    bytes.push(u8::try_from(rest).unwrap());
}

/// The fields of an ordinary request, to which others may be added.
pub fn get(target: &str) -> Vec<(&str, &str)> {
    vec![
        (":method", "GET"),
        (":scheme", "http"),
        (":path", target),
        (":authority", "shop.test"),
    ]
}
