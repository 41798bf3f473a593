//! An HTTP/1.1 client by hand: nothing is retried, pooled or repaired between the test and the bytes.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// How long a client waits for any byte.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A connection to a server, with what was read too far.
pub struct Client<S> {
    pub stream: S,
    ahead: Vec<u8>,
}

/// A whole answer.
#[derive(Debug)]
pub struct Response {
    pub status: u16,
    /// Names in lower case, in order.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// The server will close, or said so.
    pub close: bool,
}

/// An answer that did not come whole.
#[derive(Debug)]
pub enum Broken {
    /// Closed or reset before a byte of the answer.
    NoAnswer(String),
    /// Closed or reset in the middle; the bytes of the body that came.
    Cut { head: Box<Response>, why: String },
    /// Silence.
    TimedOut,
    /// Not HTTP.
    Malformed(String),
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoAnswer(why) => write!(f, "no answer: {why}"),
            Self::Cut { head, why } => write!(
                f,
                "cut after {} bytes of the body of a {}: {why}",
                head.body.len(),
                head.status
            ),
            Self::TimedOut => write!(f, "silence for {PATIENCE:?}"),
            Self::Malformed(what) => write!(f, "not HTTP: {what}"),
        }
    }
}

impl Response {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(is, _)| is == name)
            .map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error} in {:?}", self.text()))
    }
}

impl Client<TcpStream> {
    pub fn connect(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self::over(stream))
    }
}

impl Client<UnixStream> {
    pub fn connect_unix(path: &Path) -> io::Result<Self> {
        let stream = UnixStream::connect(path)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self::over(stream))
    }
}

/// The bytes of a request with `Host: test` and a sized body (none: no `Content-Length`).
pub fn request(method: &str, target: &str, headers: &[(&str, &str)], body: Option<&[u8]>) -> Vec<u8> {
    let mut bytes = head(method, target, headers);
    if let Some(body) = body {
        bytes.extend_from_slice(format!("Content-Length: {}\r\n\r\n", body.len()).as_bytes());
        bytes.extend_from_slice(body);
    } else {
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

/// The same with a chunked body, in chunks of up to `chunk` bytes.
pub fn request_chunked(
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
    body: &[u8],
    chunk: usize,
) -> Vec<u8> {
    let mut bytes = head(method, target, headers);
    bytes.extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n");
    for part in body.chunks(chunk.max(1)) {
        bytes.extend_from_slice(format!("{:x}\r\n", part.len()).as_bytes());
        bytes.extend_from_slice(part);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"0\r\n\r\n");
    bytes
}

fn head(method: &str, target: &str, headers: &[(&str, &str)]) -> Vec<u8> {
    let mut text = format!("{method} {target} HTTP/1.1\r\n");
    if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
        text.push_str("Host: test\r\n");
    }
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.into_bytes()
}

impl<S: Read + Write> Client<S> {
    pub fn over(stream: S) -> Self {
        Self {
            stream,
            ahead: Vec::new(),
        }
    }

    /// Send a request and read its answer.
    pub fn exchange(&mut self, bytes: &[u8]) -> Result<Response, Broken> {
        self.stream
            .write_all(bytes)
            .map_err(|error| broken_before(&error))?;
        self.receive(bytes.starts_with(b"HEAD "))
    }

    /// A GET.
    pub fn get(&mut self, target: &str) -> Result<Response, Broken> {
        self.exchange(&request("GET", target, &[], None))
    }

    /// Read one final answer; interim ones (1xx) are passed over.
    pub fn receive(&mut self, to_head: bool) -> Result<Response, Broken> {
        loop {
            let mut response = self.read_head()?;
            if (100..200).contains(&response.status) && response.status != 101 {
                continue;
            }
            let empty = to_head || matches!(response.status, 101 | 204 | 304);
            if !empty && let Err(why) = self.read_body(&mut response) {
                return match why {
                    Broken::NoAnswer(why) => Err(Broken::Cut {
                        head: Box::new(response),
                        why,
                    }),
                    other => Err(other),
                };
            }
            return Ok(response);
        }
    }

    fn read_head(&mut self) -> Result<Response, Broken> {
        loop {
            let mut fields = [httparse::EMPTY_HEADER; 128];
            let mut parsed = httparse::Response::new(&mut fields);
            match parsed.parse(&self.ahead) {
                Ok(httparse::Status::Complete(length)) => {
                    let headers: Vec<(String, String)> = parsed
                        .headers
                        .iter()
                        .map(|field| {
                            (
                                field.name.to_ascii_lowercase(),
                                String::from_utf8_lossy(field.value).into_owned(),
                            )
                        })
                        .collect();
                    let close = parsed.version == Some(0)
                        || headers
                            .iter()
                            .any(|(name, value)| name == "connection" && value.eq_ignore_ascii_case("close"));
                    let status = parsed.code.unwrap_or(0);
                    self.ahead.drain(..length);
                    return Ok(Response {
                        status,
                        headers,
                        body: Vec::new(),
                        close,
                    });
                }
                Ok(httparse::Status::Partial) => {
                    let before = self.ahead.len();
                    match self.fill() {
                        Err(Broken::NoAnswer(why)) if before > 0 => {
                            return Err(Broken::Malformed(format!("{why} inside a head")));
                        }
                        other => other?,
                    }
                }
                Err(error) => {
                    let start = String::from_utf8_lossy(&self.ahead[..self.ahead.len().min(60)]).into_owned();
                    return Err(Broken::Malformed(format!("{error}: {start:?}")));
                }
            }
        }
    }

    fn read_body(&mut self, response: &mut Response) -> Result<(), Broken> {
        if response
            .header("transfer-encoding")
            .is_some_and(|value| value.eq_ignore_ascii_case("chunked"))
        {
            return self.read_chunks(&mut response.body);
        }
        if let Some(length) = response.header("content-length") {
            let length: usize = length
                .parse()
                .map_err(|_| Broken::Malformed(format!("content-length {length:?}")))?;
            return self.take(length, &mut response.body);
        }
        response.close = true;
        loop {
            response.body.append(&mut self.ahead);
            match self.fill() {
                Ok(()) => {}
                Err(Broken::NoAnswer(why)) if why == END => return Ok(()),
                Err(other) => return Err(other),
            }
        }
    }

    fn read_chunks(&mut self, body: &mut Vec<u8>) -> Result<(), Broken> {
        loop {
            let line = self.line()?;
            let size = line.split(';').next().unwrap_or("").trim();
            let size = usize::from_str_radix(size, 16)
                .map_err(|_| Broken::Malformed(format!("chunk size {line:?}")))?;
            if size == 0 {
                // Trailers up to the empty line.
                while !self.line()?.is_empty() {}
                return Ok(());
            }
            self.take(size, body)?;
            if !self.line()?.is_empty() {
                return Err(Broken::Malformed("a chunk longer than its size".to_owned()));
            }
        }
    }

    fn line(&mut self) -> Result<String, Broken> {
        loop {
            if let Some(end) = self.ahead.windows(2).position(|pair| pair == b"\r\n") {
                let line = String::from_utf8_lossy(&self.ahead[..end]).into_owned();
                self.ahead.drain(..end + 2);
                return Ok(line);
            }
            self.fill()?;
        }
    }

    /// Exactly `length` bytes; on an early end, what came is in `into`.
    fn take(&mut self, length: usize, into: &mut Vec<u8>) -> Result<(), Broken> {
        let mut left = length;
        loop {
            let now = left.min(self.ahead.len());
            into.extend(self.ahead.drain(..now));
            left -= now;
            if left == 0 {
                return Ok(());
            }
            self.fill()?;
        }
    }

    fn fill(&mut self) -> Result<(), Broken> {
        let mut part = [0; 16 * 1024];
        loop {
            match self.stream.read(&mut part) {
                Ok(0) => return Err(Broken::NoAnswer(END.to_owned())),
                Ok(length) => {
                    self.ahead.extend_from_slice(&part[..length]);
                    return Ok(());
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(broken_before(&error)),
            }
        }
    }
}

const END: &str = "closed";

fn broken_before(error: &io::Error) -> Broken {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Broken::TimedOut,
        _ => Broken::NoAnswer(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that has already said all it will ever say.
    struct Said(io::Cursor<Vec<u8>>);
    impl Read for Said {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            self.0.read(into)
        }
    }
    impl Write for Said {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    fn said(text: &str) -> Client<Said> {
        Client::over(Said(io::Cursor::new(text.as_bytes().to_vec())))
    }

    #[test]
    fn the_client_reads_sized_chunked_and_following_answers() {
        let mut client = said(
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nabHTTP/1.1 200 OK\r\n\
             transfer-encoding: chunked\r\n\r\n3\r\ncde\r\n0\r\nx: y\r\n\r\nHTTP/1.1 204 No\r\n\r\n",
        );
        assert_eq!(client.get("/").unwrap().text(), "ab");
        assert_eq!(client.get("/").unwrap().text(), "cde");
        assert_eq!(client.get("/").unwrap().status, 204);
        assert!(matches!(client.get("/"), Err(Broken::NoAnswer(_))));
    }

    #[test]
    fn the_client_never_takes_a_cut_answer_for_a_whole_one() {
        for text in [
            "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nabc",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n",
        ] {
            assert!(matches!(said(text).get("/"), Err(Broken::Cut { .. })), "{text:?}");
        }
        assert!(matches!(said("junk\r\n\r\n").get("/"), Err(Broken::Malformed(_))));
    }
}
