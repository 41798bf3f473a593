//! Clients that are stuck, in every place where one can be: each is let go in its time, and nobody else notices.
//!
//! A body that goes on dripping is no such client: [`crate::limits`] has it.

use std::io::Write;
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use crate::harness::http2::{END_HEADERS, END_STREAM, block, frame, get, kind};
use crate::harness::tls::{Authority, Kind};
use crate::harness::{Backend, Proxy, Setup, Wire, ok, until};

/// Of each kind so many at once.
const EACH: usize = 4;

/// What such a client sends on a connection in clear text, before it does nothing more.
const STUCK: &[(&str, &str)] = &[
    ("silence", ""),
    ("one byte", "G"),
    ("half a request line", "GET /abc HTT"),
    ("a request line", "GET / HTTP/1.1\r\n"),
    ("half a field name", "GET / HTTP/1.1\r\nHos"),
    ("half a field value", "GET / HTTP/1.1\r\nHost: a"),
    ("a head without its end", "GET / HTTP/1.1\r\nHost: a\r\n"),
    ("half of the end", "GET / HTTP/1.1\r\nHost: a\r\n\r"),
    ("empty lines", "\r\n\r\n"),
    (
        "a body that never comes",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n",
    ),
    (
        "half a body",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nhalf",
    ),
    (
        "a chunked body that never comes",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
    ),
    (
        "half a chunk size",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1",
    ),
    (
        "half a chunk",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n10\r\nhalf",
    ),
    (
        "chunks without the last",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
    ),
    (
        "half of the trailers",
        "POST / HTTP/1.1\r\nHost: a\r\nTrailer: x-t\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX-T: 1",
    ),
    (
        "100-continue and then nothing",
        "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 9\r\n\r\n",
    ),
    ("idle behind an answer", "GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
    (
        "half a second request",
        "GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HT",
    ),
    ("no reading", "GET /endless HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("half a preface of HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM"),
    ("the preface of HTTP/2 alone", http2_preface()),
];

const fn http2_preface() -> &'static str {
    "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
}

/// The same over HTTP/2, behind preface and SETTINGS.
fn stuck_http2() -> Vec<(&'static str, Vec<u8>)> {
    let head = |flags, fields: &[(&str, &str)]| frame(kind::HEADERS, flags, 1, &block(fields));
    let settings =
        |payload: &[u8]| [http2_preface().as_bytes(), &frame(kind::SETTINGS, 0, 0, payload)].concat();
    let mut post = get("/");
    post[0] = (":method", "POST");
    let half = &block(&get("/"))[..2];
    // SETTINGS_INITIAL_WINDOW_SIZE = 0 (RFC 9113 §6.5.2).
    let no_window = settings(&[0, 4, 0, 0, 0, 0]);
    vec![
        ("HTTP/2, idle", settings(&[])),
        ("HTTP/2, half a frame", [&settings(&[])[..], &[0, 0, 9]].concat()),
        (
            "HTTP/2, HEADERS without their end",
            [settings(&[]), frame(kind::HEADERS, END_STREAM, 1, half)].concat(),
        ),
        (
            "HTTP/2, a body that never comes",
            [settings(&[]), head(END_HEADERS, &post)].concat(),
        ),
        (
            "HTTP/2, half a body",
            [
                settings(&[]),
                head(END_HEADERS, &post),
                frame(kind::DATA, 0, 1, b"half"),
            ]
            .concat(),
        ),
        (
            "HTTP/2, no window",
            [no_window, head(END_HEADERS | END_STREAM, &get("/endless"))].concat(),
        ),
        (
            "HTTP/2, no reading",
            [
                settings(&[0, 4, 0x7f, 0xff, 0xff, 0xff]),
                head(END_HEADERS | END_STREAM, &get("/endless")),
            ]
            .concat(),
        ),
    ]
}

/// Answers; `/endless` has no end.
fn app() -> Backend {
    Backend::script(|wire: &mut Wire, _| {
        while let Some(request) = wire.request() {
            if request.target() == "/endless" {
                wire.send("HTTP/1.1 200 OK\r\ncontent-length: 1000000000000\r\n\r\n");
                let block = vec![b'x'; 64 * 1024];
                while wire.try_send(&block).is_ok() {}
                return;
            }
            wire.send(ok("fine"));
        }
    })
}

/// One who sends this and then does nothing, not even read.
fn stuck(proxy: &Proxy, listener: usize, bytes: &[u8]) -> TcpStream {
    let stream = TcpStream::connect(proxy.tcp(listener)).unwrap();
    socket2::SockRef::from(&stream)
        .set_recv_buffer_size(4096)
        .unwrap();
    (&stream).write_all(bytes).unwrap();
    stream
}

#[test]
fn who_is_stuck_is_let_go_and_nobody_else_notices() {
    let authority = Authority::new();
    authority.issue("a", &["a.test"], Kind::Ecdsa);
    let app = app();
    let proxy = Setup::new()
        .server("trusted_proxies = [\"127.0.0.0/8\"]")
        .listeners(&format!(
            "[[listener]]\naddress = \"127.0.0.1:0\"\n{}[[listener]]\naddress = \"127.0.0.1:0\"\nproxy_protocol = true\n",
            authority.listener(&["a"], "")
        ))
        .toml("[limits]\nclient_header_timeout = \"500ms\"\nclient_idle_timeout = \"500ms\"\nclient_body_timeout = \"500ms\"")
        .blue(&app, "")
        .start();
    let over = AtomicBool::new(false);
    let mut kinds: Vec<(&str, usize, Vec<u8>)> = STUCK
        .iter()
        .map(|(name, bytes)| (*name, 0, bytes.as_bytes().to_vec()))
        .collect();
    kinds.extend(stuck_http2().into_iter().map(|(name, bytes)| (name, 0, bytes)));
    // The beginning of a ClientHello: a record of 512 bytes, of which a few come.
    let hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03aaaaaaaaaaaaaaaa".to_vec();
    kinds.extend([
        ("TLS, silence", 1, Vec::new()),
        ("TLS, half a ClientHello", 1, hello),
        ("PROXY, silence", 2, Vec::new()),
        ("PROXY, half a header", 2, b"PROXY TCP4 127.0.0.1 127.0".to_vec()),
        (
            "PROXY, a header alone",
            2,
            b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n".to_vec(),
        ),
    ]);
    std::thread::scope(|scope| {
        let ends = crate::harness::Ends(&over);
        let innocent = scope.spawn(|| {
            let mut answers = 0;
            while !over.load(SeqCst) {
                let mut client = proxy.client();
                let answer = client.ask("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
                assert_eq!((answer.status(), answer.text().as_str()), (200, "fine"));
                client.assert_closed();
                answers += 1;
            }
            answers
        });
        let mut crowd = Vec::new();
        for (_, listener, bytes) in &kinds {
            crowd.extend((0..EACH).map(|_| stuck(&proxy, *listener, bytes)));
        }
        // Shaken hands, and then nothing; and half a head inside.
        let mut inside: Vec<Wire> = (0..2 * EACH)
            .map(|_| authority.client().dial(proxy.tcp(1), "a.test"))
            .collect();
        for wire in inside.iter_mut().take(EACH) {
            wire.send("GET / HTTP/1.1\r\nHost: a.test\r\nX-");
        }
        assert!(kinds.len() + 2 >= 20);
        until("all of them were let go", || {
            // The innocent one has a connection now and then.
            proxy.metric("cutover_connections", &[]) <= 1.0
        });
        until("nothing of theirs runs", || {
            proxy.metric("cutover_requests_in_flight", &[]) <= 1.0
        });
        drop((crowd, inside));
        drop(ends);
        assert!(innocent.join().unwrap() > 10);
    });
    until("the app was let go", || {
        proxy.metric("cutover_requests_in_flight", &[]) == 0.0
    });
}
