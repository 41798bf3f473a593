//! A small app for the tests of this module, and settings for its probes.

#![allow(clippy::unwrap_used, reason = "a test panics to fail")]

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpSocket;

use super::super::task::OwnedTask;
use crate::config::{self, HttpProbe, Probe, WhenLast};

/// Long enough for a passing probe on the slowest machine.
pub(super) const PATIENT: Duration = Duration::from_secs(30);

/// What a test app does with each connection, after it read the request's head.
#[derive(Clone)]
pub(super) enum Does {
    /// Write this and close.
    Say(String),
    /// Write the first, then the second for as long as somebody reads.
    Flood(&'static str, &'static str),
    /// Write this, then a byte now and then.
    Drip(&'static str),
    /// Write this, then nothing, and keep the connection.
    Hang(&'static str),
}

/// An app on a free loopback port; stops when dropped.
pub(super) struct App {
    pub(super) address: SocketAddr,
    /// The heads of the requests that came.
    pub(super) asked: Arc<Mutex<Vec<String>>>,
    /// What it does with connections from now on.
    pub(super) does: Arc<Mutex<Does>>,
    _task: OwnedTask,
}

impl App {
    pub(super) async fn that(does: Does) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        // So that a test can keep the port when the app is gone.
        socket.set_reuseport(true).unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(128).unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let does = Arc::new(Mutex::new(does));
        let (log, script) = (Arc::clone(&asked), Arc::clone(&does));
        let task = OwnedTask::spawn(async move {
            let mut open = Vec::new();
            while let Ok((stream, _)) = listener.accept().await {
                open.push(OwnedTask::spawn(serve(
                    stream,
                    Arc::clone(&script),
                    Arc::clone(&log),
                )));
            }
        });
        Self {
            address,
            asked,
            does,
            _task: task,
        }
    }

    pub(super) async fn saying(status: &str, body: &str) -> Self {
        Self::that(says(status, body)).await
    }
}

pub(super) fn says(status: &str, body: &str) -> Does {
    Does::Say(format!(
        "HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    ))
}

pub(super) async fn serve<S>(mut stream: S, does: Arc<Mutex<Does>>, asked: Arc<Mutex<Vec<String>>>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let Ok(byte) = stream.read_u8().await else { return };
        head.push(byte);
    }
    asked.lock().unwrap().push(String::from_utf8(head).unwrap());
    let does = does.lock().unwrap().clone();
    // The prober may go away at any time: a failed write ends the connection.
    match does {
        Does::Say(text) => {
            let _ = stream.write_all(text.as_bytes()).await;
            let _ = stream.shutdown().await;
        }
        Does::Flood(first, more) => {
            let _ = stream.write_all(first.as_bytes()).await;
            let more = more.repeat(1000);
            while stream.write_all(more.as_bytes()).await.is_ok() {}
        }
        Does::Drip(first) => {
            let _ = stream.write_all(first.as_bytes()).await;
            while stream.write_all(b"x").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        Does::Hang(first) => {
            let _ = stream.write_all(first.as_bytes()).await;
            std::future::pending::<()>().await;
        }
    }
}

pub(super) fn http() -> HttpProbe {
    HttpProbe {
        path: "/healthz?deep=1".into(),
        host: String::new(),
        headers: Vec::new(),
        status: vec![(200, 299)],
        json: Vec::new(),
        body_regex: None,
    }
}

pub(super) fn settings(kind: Probe, timeout: Duration) -> config::Health {
    config::Health {
        kind,
        interval: Duration::from_millis(10),
        timeout,
        rise: 1,
        fall: 1,
        last: WhenLast::Serve,
        identity: None,
        revision: None,
    }
}

pub(super) fn over_http(probe: HttpProbe) -> config::Health {
    settings(Probe::Http(Box::new(probe)), PATIENT)
}
