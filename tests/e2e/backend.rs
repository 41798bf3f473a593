//! Backends inside the test: one that answers as the real apps do, and one that does whatever a test tells it to.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

use crate::load::sha256;

/// A listener on loopback with a thread for each connection. It ends with its value; open connections end with their peer.
pub struct Backend {
    pub address: SocketAddr,
    /// Connections accepted.
    pub accepted: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    accept: Option<JoinHandle<()>>,
}

impl Backend {
    /// Do this with each connection.
    pub fn does(act: impl Fn(TcpStream) + Send + Sync + 'static) -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").expect("a port on loopback"), act)
    }

    /// The same on a listener that is there already.
    pub fn on(listener: TcpListener, act: impl Fn(TcpStream) + Send + Sync + 'static) -> Self {
        let address = listener.local_addr().expect("its address");
        let stop = Arc::new(AtomicBool::new(false));
        let accepted = Arc::new(AtomicUsize::new(0));
        let (stopped, counted) = (Arc::clone(&stop), Arc::clone(&accepted));
        let act = Arc::new(act);
        let accept = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                counted.fetch_add(1, Ordering::Relaxed);
                let _ = stream.set_nodelay(true);
                let act = Arc::clone(&act);
                std::thread::spawn(move || act(stream));
            }
        });
        Self {
            address,
            accepted,
            stop,
            accept: Some(accept),
        }
    }

    /// Answers as tests/apps do: names its color and tells what arrived. `/slow?ms=N` waits.
    pub fn says(color: &'static str) -> Self {
        Self::does(move |stream| serve(stream, |seen| Some(describe(color, seen))))
    }

    /// As [`Self::says`], with the color asked for at each request.
    pub fn chooses(color: impl Fn() -> &'static str + Send + Sync + 'static) -> Self {
        Self::does(move |stream| serve(stream, |seen| Some(describe(color(), seen))))
    }

    /// As [`Self::says`], and tells when a `/slow` request has arrived.
    pub fn says_when_slow(color: &'static str) -> (Self, mpsc::Receiver<()>) {
        let (arrived, arrivals) = mpsc::channel();
        let backend = Self::says_unless(color, move |seen| {
            if seen.path() == "/slow" {
                let _ = arrived.send(());
            }
            None
        });
        (backend, arrivals)
    }

    /// As [`Self::says`], but `decide` may answer a request with raw bytes of its own; the connection ends after them.
    pub fn says_unless(
        color: &'static str,
        decide: impl Fn(&Seen) -> Option<Vec<u8>> + Send + Sync + 'static,
    ) -> Self {
        Self::does(move |mut stream| {
            let copy = stream.try_clone();
            let Ok(copy) = copy else { return };
            let mut last = Vec::new();
            serve(copy, |seen| match decide(seen) {
                Some(raw) => {
                    last = raw;
                    None
                }
                None => Some(describe(color, seen)),
            });
            let _ = stream.write_all(&last);
            let _ = stream.shutdown(Shutdown::Both);
        })
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // Wakes the accept.
        let _ = TcpStream::connect(self.address);
        if let Some(accept) = self.accept.take() {
            let _ = accept.join();
        }
    }
}

/// A request that arrived whole.
pub struct Seen {
    pub method: String,
    pub target: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Seen {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(is, _)| is == name)
            .map(|(_, value)| value.as_str())
    }

    pub fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or("")
    }
}

fn describe(color: &str, seen: &Seen) -> Vec<u8> {
    if seen.path().ends_with("/slow")
        && let Some(ms) = seen.target.split("ms=").nth(1).and_then(|text| text.parse().ok())
    {
        std::thread::sleep(std::time::Duration::from_millis(ms));
    }
    let body = serde_json::json!({
        "color": color,
        "method": seen.method,
        "path": seen.path(),
        "length": seen.body.len(),
        "sha256": sha256(&seen.body),
        "host": seen.header("host"),
    })
    .to_string();
    let length = body.len();
    let body = if seen.method == "HEAD" { "" } else { &body };
    format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nx-app-color: {color}\r\ncontent-length: {length}\r\n\r\n{body}")
        .into_bytes()
}

/// Read requests and answer them until the client leaves or `answer` gives none.
fn serve(mut stream: TcpStream, mut answer: impl FnMut(&Seen) -> Option<Vec<u8>>) {
    let mut ahead = Vec::new();
    while let Some(seen) = read_request(&mut stream, &mut ahead) {
        let Some(bytes) = answer(&seen) else { return };
        if stream.write_all(&bytes).is_err() {
            return;
        }
    }
}

/// One request with its body, or `None` at the end of the connection (or at nonsense, which no test sends here).
pub fn read_request(stream: &mut TcpStream, ahead: &mut Vec<u8>) -> Option<Seen> {
    let (mut seen, length) = loop {
        let mut fields = [httparse::EMPTY_HEADER; 128];
        let mut parsed = httparse::Request::new(&mut fields);
        match parsed.parse(ahead) {
            Ok(httparse::Status::Complete(length)) => {
                let headers = parsed.headers.iter();
                let seen = Seen {
                    method: parsed.method?.to_owned(),
                    target: parsed.path?.to_owned(),
                    headers: headers
                        .map(|field| {
                            (
                                field.name.to_ascii_lowercase(),
                                String::from_utf8_lossy(field.value).into_owned(),
                            )
                        })
                        .collect(),
                    body: Vec::new(),
                };
                break (seen, length);
            }
            Ok(httparse::Status::Partial) => more(stream, ahead)?,
            Err(_) => return None,
        }
    };
    ahead.drain(..length);
    if seen.header("transfer-encoding").is_some() {
        read_chunks(stream, ahead, &mut seen.body)?;
    } else if let Some(length) = seen
        .header("content-length")
        .and_then(|text| text.parse::<usize>().ok())
    {
        while ahead.len() < length {
            more(stream, ahead)?;
        }
        seen.body = ahead.drain(..length).collect();
    }
    Some(seen)
}

fn read_chunks(stream: &mut TcpStream, ahead: &mut Vec<u8>, body: &mut Vec<u8>) -> Option<()> {
    loop {
        let end = loop {
            if let Some(end) = ahead.windows(2).position(|pair| pair == b"\r\n") {
                break end;
            }
            more(stream, ahead)?;
        };
        let size =
            usize::from_str_radix(std::str::from_utf8(&ahead[..end]).ok()?.split(';').next()?, 16).ok()?;
        while ahead.len() < end + 2 + size + 2 {
            more(stream, ahead)?;
        }
        ahead.drain(..end + 2);
        body.extend(ahead.drain(..size));
        ahead.drain(..2);
        if size == 0 {
            return Some(());
        }
    }
}

fn more(stream: &mut TcpStream, ahead: &mut Vec<u8>) -> Option<()> {
    let mut part = [0; 16 * 1024];
    match stream.read(&mut part) {
        Ok(length) if length > 0 => {
            ahead.extend_from_slice(&part[..length]);
            Some(())
        }
        _ => None,
    }
}
