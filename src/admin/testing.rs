//! A real server on a real socket and port, in a thread of its own, before the fake controller.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use tempfile::TempDir;
use tokio::sync::oneshot;

use super::{Extras, Tokens, bind, serve};
use crate::config::{Admin, Role, Token};
use crate::control::fake::Fake;

pub(crate) const SECRETS: [(&str, Role, &str); 3] = [
    ("wall", Role::Viewer, "viewer-secret-0123456789"),
    ("ci", Role::Operator, "operator-secret-0123456789"),
    ("boss", Role::Admin, "admin-secret-0123456789"),
];

pub(crate) struct Server {
    pub fake: Fake,
    pub dir: TempDir,
    pub tcp: SocketAddr,
    pub tokens: Tokens,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// A configuration with a socket in this directory and a TCP port of the system's choice.
pub(crate) fn config(dir: &Path) -> Admin {
    Admin {
        socket: dir.join("run/admin.sock"),
        mode: 0o600,
        group: None,
        address: Some("127.0.0.1:0".parse().unwrap()),
        hosts: vec!["ops.example".to_owned()],
        tokens: Vec::new(),
    }
}

/// The three tokens as files.
pub(crate) fn tokens(dir: &Path) -> Vec<Token> {
    SECRETS
        .iter()
        .map(|(name, role, secret)| {
            let file = dir.join(format!("{name}.token"));
            std::fs::write(&file, format!("{secret}\n")).unwrap();
            Token {
                name: (*name).to_owned(),
                role: *role,
                file,
            }
        })
        .collect()
}

impl Server {
    pub(crate) fn start(apps: &[&str], with_tokens: bool) -> Self {
        let dir = TempDir::new().unwrap();
        let mut config = config(dir.path());
        if with_tokens {
            config.tokens = tokens(dir.path());
        }
        let bound = bind(&config).unwrap();
        let (tcp, tokens) = (bound.tcp_address().unwrap(), bound.tokens());
        let apps: Vec<String> = apps.iter().map(|app| (*app).to_owned()).collect();
        let (stop, stopped) = oneshot::channel();
        let (send, receive) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let apps: Vec<&str> = apps.iter().map(String::as_str).collect();
                let (handle, fake) = Fake::start(&apps);
                send.send(fake).unwrap();
                let extras = Extras {
                    metrics: Arc::new(|| "cutover_active 1\n".to_owned()),
                    not_live: Arc::new(Vec::new),
                };
                let end = async { drop(stopped.await) };
                serve(bound, handle, extras, end).await.unwrap();
            });
        });
        Self {
            fake: receive.recv().unwrap(),
            dir,
            tcp,
            tokens,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join("run/admin.sock")
    }

    /// End it, and wait for that.
    pub(crate) fn stop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }

    /// Over the socket.
    pub(crate) fn unix(&self, request: &str) -> Reply {
        let stream = UnixStream::connect(self.socket()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        exchange(stream, request)
    }

    /// Over TCP.
    pub(crate) fn tcp(&self, request: &str) -> Reply {
        let stream = TcpStream::connect(self.tcp).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        exchange(stream, request)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A request: `extra` are header lines, each with its CRLF.
pub(crate) fn request(method: &str, path: &str, extra: &str, body: &str) -> String {
    let host = if extra.starts_with("Host:") {
        ""
    } else {
        "Host: localhost\r\n"
    };
    let length = body.len();
    let content = if body.is_empty() || extra.to_ascii_lowercase().contains("content-type") {
        ""
    } else {
        "Content-Type: application/json\r\n"
    };
    format!(
        "{method} {path} HTTP/1.1\r\n{host}{extra}{content}Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )
}

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Reply {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Reply {
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    pub(crate) fn code(&self) -> String {
        assert!(self.head.contains("application/problem+json"), "{self:?}");
        self.json()["code"].as_str().unwrap().to_owned()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

fn exchange(mut stream: impl Read + Write, request: &str) -> Reply {
    stream.write_all(request.as_bytes()).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text
        .split_once("\r\n\r\n")
        .unwrap_or_else(|| panic!("no head: {text:?}"));
    let body = if head.to_ascii_lowercase().contains("transfer-encoding: chunked") {
        unchunk(body)
    } else {
        body.to_owned()
    };
    Reply {
        status: head.split(' ').nth(1).unwrap().parse().unwrap(),
        head: head.to_owned(),
        body,
    }
}

fn unchunk(mut rest: &str) -> String {
    let mut out = String::new();
    while let Some((size, after)) = rest.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).unwrap();
        out.push_str(&after[..size]);
        rest = after[size..].strip_prefix("\r\n").unwrap_or("");
    }
    out
}
