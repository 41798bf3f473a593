//! One end of an HTTP/1.1 connection: sends any bytes, reads messages strictly.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use super::PATIENCE;

/// A request or an answer as it was on the wire.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// The first line.
    pub start: String,
    /// Names in lower case, in order.
    pub fields: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// The sizes of its chunks; empty when it was not chunked.
    pub chunks: Vec<usize>,
    pub trailers: Vec<(String, String)>,
}

impl Message {
    pub fn status(&self) -> u16 {
        let code = self.start.split(' ').nth(1).unwrap_or_default();
        code.parse()
            .unwrap_or_else(|_| panic!("no status line: {:?}", self.start))
    }

    pub fn method(&self) -> &str {
        self.start.split(' ').next().unwrap_or_default()
    }

    pub fn target(&self) -> &str {
        self.start.split(' ').nth(1).unwrap_or_default()
    }

    /// A field that is there once, or not at all.
    #[track_caller]
    pub fn field(&self, name: &str) -> Option<&str> {
        let all = self.all(name);
        assert!(all.len() < 2, "several {name} in {self:?}");
        all.first().copied()
    }

    pub fn all(&self, name: &str) -> Vec<&str> {
        let of_name = self.fields.iter().filter(|(field, _)| field == name);
        of_name.map(|(_, value)| value.as_str()).collect()
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// Why there is no whole message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Broken {
    /// The peer ended the connection before the first byte of one.
    Closed,
    /// It ended the connection in the middle; here is what came.
    Cut(Box<Message>),
    /// It is not HTTP.
    Malformed(String),
    /// Nothing came in time.
    Silent,
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(Box<TlsStream>),
}

/// A client's TLS over TCP.
pub type TlsStream = rustls::StreamOwned<rustls::ClientConnection, TcpStream>;

/// What a message is to be read as.
#[derive(Clone, Copy)]
enum Kind<'a> {
    Request,
    AnswerTo(&'a str),
}

/// One end of a connection.
#[derive(Debug)]
pub struct Wire {
    socket: Socket,
    unread: Vec<u8>,
    pub(super) record: Option<std::sync::Arc<std::sync::Mutex<Vec<u8>>>>,
}

impl Wire {
    pub fn tcp(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap_or_else(|error| panic!("connect {address}: {error}"));
        Self::of_tcp(stream)
    }

    pub fn unix(path: &Path) -> Self {
        let stream =
            UnixStream::connect(path).unwrap_or_else(|error| panic!("connect {}: {error}", path.display()));
        Self::of_unix(stream)
    }

    pub fn of_tcp(stream: TcpStream) -> Self {
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Self::of(Socket::Tcp(stream))
    }

    pub fn of_unix(stream: UnixStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Self::of(Socket::Unix(stream))
    }

    pub fn of_tls(stream: TlsStream) -> Self {
        Self::of(Socket::Tls(Box::new(stream)))
    }

    /// The TLS of a client that has any.
    #[track_caller]
    pub fn tls(&mut self) -> &mut TlsStream {
        match &mut self.socket {
            Socket::Tls(stream) => stream,
            _ => panic!("this is clear text"),
        }
    }

    fn of(socket: Socket) -> Self {
        Self {
            socket,
            unread: Vec::new(),
            record: None,
        }
    }

    /// Send bytes. A peer that is gone already is not this call's business: what it answered tells.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        let _ = self.try_send(bytes.as_ref());
        self
    }

    pub fn try_send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        match &mut self.socket {
            Socket::Tcp(stream) => stream.write_all(bytes),
            Socket::Unix(stream) => stream.write_all(bytes),
            Socket::Tls(stream) => stream.write_all(bytes).and_then(|()| stream.flush()),
        }
    }

    /// Send a request and read its answer, which must be whole.
    #[track_caller]
    pub fn ask(&mut self, request: impl AsRef<[u8]>) -> Message {
        let text = String::from_utf8_lossy(request.as_ref()).into_owned();
        let method = text.split(' ').next().unwrap_or_default().to_owned();
        self.send(request).answer_to(&method)
    }

    /// `GET` with a Host, on this connection.
    #[track_caller]
    pub fn get(&mut self, target: &str) -> Message {
        self.ask(format!("GET {target} HTTP/1.1\r\nHost: shop.test\r\n\r\n"))
    }

    /// `POST` with a Host and a Content-Length, on this connection.
    #[track_caller]
    pub fn post(&mut self, target: &str, body: &str) -> Message {
        let length = body.len();
        self.ask(format!(
            "POST {target} HTTP/1.1\r\nHost: shop.test\r\nContent-Length: {length}\r\n\r\n{body}"
        ))
    }

    /// The next answer, which must be whole.
    #[track_caller]
    pub fn answer(&mut self) -> Message {
        self.answer_to("GET")
    }

    #[track_caller]
    pub fn answer_to(&mut self, method: &str) -> Message {
        match self.try_answer_to(method) {
            Ok(answer) => answer,
            Err(broken) => panic!("no whole answer: {broken:?}"),
        }
    }

    pub fn try_answer(&mut self) -> Result<Message, Broken> {
        self.try_answer_to("GET")
    }

    pub fn try_answer_to(&mut self, method: &str) -> Result<Message, Broken> {
        self.message(Kind::AnswerTo(method))
    }

    /// The head of the next answer alone.
    #[track_caller]
    pub fn head(&mut self) -> Message {
        self.read_head()
            .unwrap_or_else(|broken| panic!("no head: {broken:?}"))
    }

    /// The next chunk of a chunked body.
    #[track_caller]
    pub fn chunk(&mut self) -> Vec<u8> {
        let mut message = Message::default();
        match self.read_chunk(&mut message) {
            Ok(_) => message.body,
            Err(broken) => panic!("no chunk: {broken:?}"),
        }
    }

    /// So many bytes.
    #[track_caller]
    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        while self.unread.len() < count {
            match self.fill() {
                Ok(true) => {}
                other => panic!("{other:?} after {} of {count} bytes", self.unread.len()),
            }
        }
        self.unread.drain(..count).collect()
    }

    /// So many bytes, if the peer does not end before.
    pub fn try_bytes(&mut self, count: usize) -> Option<Vec<u8>> {
        while self.unread.len() < count {
            match self.fill() {
                Ok(true) => {}
                _ => return None,
            }
        }
        Some(self.unread.drain(..count).collect())
    }

    /// The next request, if one comes.
    pub fn request(&mut self) -> Option<Message> {
        self.message(Kind::Request).ok()
    }

    /// The head of the next request alone.
    pub fn request_head(&mut self) -> Option<Message> {
        self.read_head().ok()
    }

    /// Everything until the peer ends the connection, in whichever way.
    pub fn rest(&mut self) -> Vec<u8> {
        while let Ok(true) = self.fill() {}
        std::mem::take(&mut self.unread)
    }

    /// The peer has ended the connection, and nothing came before that.
    #[track_caller]
    pub fn assert_closed(&mut self) {
        let left = String::from_utf8_lossy(&self.unread).into_owned();
        assert_eq!(left, "", "bytes where the end should be");
        match self.fill() {
            Ok(false) | Err(Broken::Closed) => {}
            other => panic!(
                "not closed: {other:?} {:?}",
                String::from_utf8_lossy(&self.unread)
            ),
        }
    }

    /// Nothing comes for this long. Only for what must not happen at all; a slow machine can only hide it.
    #[track_caller]
    pub fn assert_silent(&mut self, time: Duration) {
        self.patience(time);
        let came = self.fill();
        self.patience(PATIENCE);
        assert_eq!(
            came,
            Err(Broken::Silent),
            "{:?}",
            String::from_utf8_lossy(&self.unread)
        );
    }

    pub fn patience(&mut self, time: Duration) {
        match &self.socket {
            Socket::Tcp(stream) => stream.set_read_timeout(Some(time)).unwrap(),
            Socket::Unix(stream) => stream.set_read_timeout(Some(time)).unwrap(),
            Socket::Tls(stream) => stream.sock.set_read_timeout(Some(time)).unwrap(),
        }
    }

    /// No more will be sent; answers may still come.
    pub fn finish(&mut self) -> &mut Self {
        let _ = match &mut self.socket {
            Socket::Tcp(stream) => stream.shutdown(Shutdown::Write),
            Socket::Unix(stream) => stream.shutdown(Shutdown::Write),
            Socket::Tls(stream) => {
                stream.conn.send_close_notify();
                stream.conn.complete_io(&mut stream.sock).map(drop)
            }
        };
        self
    }

    /// End the connection with a reset.
    pub fn reset(self) {
        self.reset_now();
    }

    /// The same now. Connecting to nowhere resets, however many copies of the descriptor there are.
    pub fn reset_now(&self) {
        match &self.socket {
            Socket::Tcp(stream) => rustix::net::connect_unspec(stream).unwrap(),
            Socket::Tls(stream) => rustix::net::connect_unspec(&stream.sock).unwrap(),
            Socket::Unix(_) => {}
        }
    }

    /// Let the kernel hold as little as it can on the way in.
    pub fn small_window(self) -> Self {
        if let Socket::Tcp(stream) = &self.socket {
            socket2::SockRef::from(stream).set_recv_buffer_size(4096).unwrap();
        }
        self
    }

    /// The same connection once more, for a thread that writes while this one reads.
    pub fn twin(&self) -> Self {
        match &self.socket {
            Socket::Tcp(stream) => Self::of_tcp(stream.try_clone().unwrap()),
            _ => panic!("only over TCP"),
        }
    }

    /// True if there is more; false at the peer's orderly end; `Closed` at a reset.
    fn fill(&mut self) -> Result<bool, Broken> {
        let mut some = [0; 64 * 1024];
        let read = match &mut self.socket {
            Socket::Tcp(stream) => stream.read(&mut some),
            Socket::Unix(stream) => stream.read(&mut some),
            Socket::Tls(stream) => stream.read(&mut some),
        };
        match read {
            Ok(0) => Ok(false),
            Ok(count) => {
                if let Some(record) = &self.record {
                    record.lock().unwrap().extend_from_slice(&some[..count]);
                }
                self.unread.extend_from_slice(&some[..count]);
                Ok(true)
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                Err(Broken::Silent)
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(true),
            Err(_) => Err(Broken::Closed),
        }
    }

    fn message(&mut self, kind: Kind<'_>) -> Result<Message, Broken> {
        let mut message = self.read_head()?;
        let no_body = match kind {
            Kind::Request => false,
            Kind::AnswerTo(method) => {
                let status = message.status();
                method == "HEAD" || status < 200 || status == 204 || status == 304
            }
        };
        if no_body {
            return Ok(message);
        }
        let coded = message.all("transfer-encoding").join(",");
        let length = message.all("content-length").join(",");
        match (coded.as_str(), length.as_str()) {
            ("", "") if matches!(kind, Kind::Request) => {}
            ("", "") => {
                while self.fill().map_err(|_| Broken::Cut(Box::new(message.clone())))? {}
                message.body = std::mem::take(&mut self.unread);
            }
            ("", digits) => {
                let wrong = || Broken::Malformed(format!("content-length {digits:?}"));
                let plain = digits.bytes().all(|digit| digit.is_ascii_digit());
                let length = digits.parse().ok().filter(|_| plain).ok_or_else(wrong)?;
                self.read_sized(&mut message, length)?;
            }
            ("chunked", "") => while self.read_chunk(&mut message)? {},
            both => return Err(Broken::Malformed(format!("framing {both:?}"))),
        }
        Ok(message)
    }

    fn read_head(&mut self) -> Result<Message, Broken> {
        let end = loop {
            if let Some(at) = find(&self.unread, b"\r\n\r\n") {
                break at + 4;
            }
            match self.fill() {
                Ok(true) => {}
                Err(Broken::Silent) => return Err(Broken::Silent),
                _ if self.unread.is_empty() => return Err(Broken::Closed),
                _ => {
                    let start = String::from_utf8_lossy(&self.unread).into_owned();
                    return Err(Broken::Cut(Box::new(Message {
                        start,
                        ..Message::default()
                    })));
                }
            }
        };
        let head: Vec<u8> = self.unread.drain(..end).collect();
        parse_head(&head)
    }

    fn read_sized(&mut self, message: &mut Message, length: usize) -> Result<(), Broken> {
        while self.unread.len() < length {
            match self.fill() {
                Ok(true) => {}
                Err(Broken::Silent) => return Err(Broken::Silent),
                _ => {
                    message.body = std::mem::take(&mut self.unread);
                    return Err(Broken::Cut(Box::new(message.clone())));
                }
            }
        }
        message.body = self.unread.drain(..length).collect();
        Ok(())
    }

    /// One chunk; false after the last one and the trailers.
    fn read_chunk(&mut self, message: &mut Message) -> Result<bool, Broken> {
        let size = self.line(message)?;
        let hex = !size.is_empty() && size.bytes().all(|digit| digit.is_ascii_hexdigit());
        let wrong = || Broken::Malformed(format!("chunk size {size:?}"));
        let size = usize::from_str_radix(&size, 16)
            .ok()
            .filter(|_| hex)
            .ok_or_else(wrong)?;
        if size == 0 {
            loop {
                let line = self.line(message)?;
                if line.is_empty() {
                    return Ok(false);
                }
                message.trailers.push(parse_field(&line)?);
            }
        }
        while self.unread.len() < size + 2 {
            if !matches!(self.fill(), Ok(true)) {
                return Err(Broken::Cut(Box::new(message.clone())));
            }
        }
        message.body.extend(self.unread.drain(..size));
        message.chunks.push(size);
        match self.unread.drain(..2).as_slice() {
            b"\r\n" => Ok(true),
            other => Err(Broken::Malformed(format!("{other:?} after a chunk"))),
        }
    }

    fn line(&mut self, message: &Message) -> Result<String, Broken> {
        loop {
            if let Some(at) = find(&self.unread, b"\r\n") {
                let line: Vec<u8> = self.unread.drain(..at + 2).collect();
                return String::from_utf8(line[..at].to_vec())
                    .map_err(|_| Broken::Malformed("8-bit line".to_owned()));
            }
            match self.fill() {
                Ok(true) => {}
                Err(Broken::Silent) => return Err(Broken::Silent),
                _ => return Err(Broken::Cut(Box::new(message.clone()))),
            }
        }
    }
}

/// Every request that a strict reader finds in the bytes of one connection, and what is left over.
pub fn requests_in(bytes: &[u8]) -> (Vec<Message>, Vec<u8>) {
    let (mut near, far) = UnixStream::pair().unwrap();
    let copy = bytes.to_vec();
    let writer = std::thread::spawn(move || {
        let _ = near.write_all(&copy);
    });
    let mut wire = Wire::of_unix(far);
    let mut found = Vec::new();
    let record = std::sync::Arc::<std::sync::Mutex<Vec<u8>>>::default();
    wire.record = Some(std::sync::Arc::clone(&record));
    let mut whole = 0;
    while let Some(request) = wire.request() {
        found.push(request);
        whole = record.lock().unwrap().len() - wire.unread.len();
    }
    drop(wire);
    writer.join().unwrap();
    (found, bytes[whole..].to_vec())
}

fn parse_head(head: &[u8]) -> Result<Message, Broken> {
    let text: String = head.iter().map(|byte| char::from(*byte)).collect();
    let mut lines = text.strip_suffix("\r\n\r\n").unwrap_or(&text).split("\r\n");
    let start = lines.next().unwrap_or_default().to_owned();
    let fields = lines.map(parse_field).collect::<Result<_, _>>()?;
    Ok(Message {
        start,
        fields,
        ..Message::default()
    })
}

fn parse_field(line: &str) -> Result<(String, String), Broken> {
    let wrong = || Broken::Malformed(format!("field {line:?}"));
    let (name, value) = line.split_once(':').ok_or_else(wrong)?;
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    let clean = !name.is_empty() && name.bytes().all(token) && !value.contains(['\r', '\n', '\0']);
    clean
        .then(|| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .ok_or_else(wrong)
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}
