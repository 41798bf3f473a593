//! WebSockets over HTTP/2 (RFC 8441) towards apps that speak HTTP/1.1, event streams, and both at a switch.

use std::sync::Mutex;
use std::sync::mpsc::{Receiver, channel};

use bytes::Bytes;
use h2::ext::Protocol;
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, Method};
use serde_json::json;

use crate::harness::http2::{H2, Lost, next, read};
use crate::harness::websocket::{CLOSE, Frame, app};
use crate::harness::{Backend, Proxy, Setup, ok, requests_in, until};

/// A WebSocket app in one color, and every frame that it got.
fn websocket(color: &'static str) -> (Backend, Receiver<Frame>) {
    let (tell, told) = channel::<Frame>();
    let tell = Mutex::new(tell);
    let backend = Backend::script(move |wire, _| {
        app(wire, color, &|frame| {
            let _ = tell.lock().unwrap().send(frame);
        });
    });
    (backend, told)
}

/// A client's end of a WebSocket on a stream.
struct Socket {
    upload: SendStream<Bytes>,
    body: RecvStream,
    unread: Vec<u8>,
}

impl Socket {
    fn send(&mut self, frame: &Frame) {
        self.upload.send_data(frame.bytes().into(), false).unwrap();
    }

    /// The next (short, unmasked) frame; `None` at the orderly end of the stream.
    fn frame(&mut self, client: &H2) -> Result<Option<Frame>, Lost> {
        while self.unread.len() < 2 || self.unread.len() < 2 + usize::from(self.unread[1]) {
            match client.wait(next(&mut self.body))? {
                Some(data) => self.unread.extend_from_slice(&data),
                None => return Ok(None),
            }
        }
        let frame: Vec<u8> = self.unread.drain(..2 + usize::from(self.unread[1])).collect();
        Ok(Some(Frame::of(frame[0] & 0x0f, &frame[2..])))
    }

    #[track_caller]
    fn echo(&mut self, client: &H2, color: &str, text: &str) {
        self.send(&Frame::text(text).masked());
        let frame = self.frame(client).unwrap().expect("an echo");
        assert_eq!(frame, Frame::text(format!("{color} {text}")));
    }
}

/// Ask for a WebSocket.
fn ask(client: &mut H2, protocol: &'static str) -> crate::harness::http2::Open {
    until("the server takes extended CONNECT", || client.may_connect());
    let request = client
        .request("CONNECT", "/ws?x")
        .header("sec-websocket-version", "13")
        .header("sec-websocket-protocol", "chat")
        .extension(Protocol::from_static(protocol));
    client.open(request, true)
}

#[track_caller]
fn open(client: &mut H2) -> (Socket, HeaderMap) {
    let open = ask(client, "websocket");
    let (head, body) = client.wait(open.answer).unwrap().into_parts();
    assert_eq!(head.status, 200);
    let socket = Socket {
        upload: open.upload,
        body,
        unread: Vec::new(),
    };
    (socket, head.headers)
}

fn stage(streams: &str) -> (Proxy, Backend, Receiver<Frame>, Backend) {
    let (blue, told) = websocket("blue");
    let (green, _) = websocket("green");
    let lines = format!("drain.streams = {streams}\nlimits.client_idle_timeout = \"300ms\"\n");
    let proxy = Setup::new().access_log().colors(&blue, &green, &lines).start();
    (proxy, blue, told, green)
}

fn open_streams(proxy: &Proxy, kind: &str) -> f64 {
    proxy.metric("cutover_streams_open", &[&format!("kind=\"{kind}\"")])
}

#[test]
fn a_websocket_on_a_stream_passes_in_both_directions() {
    let (proxy, blue, _told, _green) = stage("{ policy = \"keep\" }");
    let mut client = H2::plain(proxy.address());
    let (mut socket, head) = open(&mut client);
    for gone in ["upgrade", "connection", "sec-websocket-accept"] {
        assert!(head.get(gone).is_none(), "{head:?}");
    }
    assert_eq!(head["x-cutover-color"], "blue");
    socket.echo(&client, "blue", "one");
    assert_eq!(open_streams(&proxy, "websocket"), 1.0);
    // Other requests and another WebSocket of the same connection go beside it, to the new color.
    proxy.switch("green");
    let (mut other, _) = open(&mut client);
    other.echo(&client, "green", "two");
    socket.echo(&client, "blue", "kept");
    assert_eq!(client.get("/").text(), "green");
    for (socket, color) in [(&mut socket, "blue"), (&mut other, "green")] {
        socket.send(&Frame::close(1000).masked());
        let close = socket.frame(&client).unwrap().expect("a Close");
        assert_eq!(close.code(), Some(1000), "{color}");
        socket.upload.send_data(Bytes::new(), true).unwrap();
        assert_eq!(socket.frame(&client), Ok(None));
    }
    until("none is open", || open_streams(&proxy, "websocket") == 0.0);
    let begun = blue.received();
    let mut begun = begun.iter().flat_map(|bytes| requests_in(bytes).0);
    let request = begun.find(|one| one.target() == "/ws?x").expect("the handshake");
    assert_eq!(request.method(), "GET");
    assert_eq!(request.field("upgrade"), Some("websocket"));
    assert_eq!(request.field("connection"), Some("Upgrade"));
    assert_eq!(request.field("host"), Some("shop.test"));
    assert_eq!(request.field("sec-websocket-protocol"), Some("chat"));
    assert_eq!(request.field("sec-websocket-key").map(str::len), Some(24));
}

#[test]
fn the_policy_ends_a_websocket_on_a_stream_and_not_its_connection() {
    let (proxy, _blue, told, _green) = stage("{ policy = \"close\" }");
    let mut client = H2::plain(proxy.address());
    let (mut socket, _) = open(&mut client);
    socket.echo(&client, "blue", "one");
    proxy.switch("green");
    let close = socket.frame(&client).unwrap().expect("a Close");
    assert_eq!((close.opcode, close.code()), (CLOSE, Some(1012)));
    socket.send(&Frame::close(1012).masked());
    assert_eq!(socket.frame(&client), Ok(None));
    let at_app = told.iter().find(|frame| frame.opcode == CLOSE).expect("a Close");
    assert_eq!((at_app.code(), at_app.masked), (Some(1012), true));
    assert_eq!(client.get("/").text(), "green");
    assert!(client.is_open());
}

#[test]
fn only_websockets_that_the_app_agrees_to_are_opened() {
    let answers = |head: &'static str| {
        Backend::script(move |wire, _| {
            if let Some(request) = wire.request() {
                wire.send(if request.field("upgrade").is_some() {
                    head.as_bytes().to_vec()
                } else {
                    ok("blue")
                });
            }
        })
    };
    for (head, status) in [
        ("HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\n\r\nno", 403),
        ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nno", 502),
        // An answer to somebody else's handshake.
        (
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
            502,
        ),
        (
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n",
            502,
        ),
    ] {
        let blue = answers(head);
        let proxy = Proxy::before(&blue);
        let mut client = H2::plain(proxy.address());
        let open = ask(&mut client, "websocket");
        let answer = client.wait(read(open.answer)).unwrap();
        assert_eq!(answer.status, status, "{head}");
        assert_eq!(client.get("/").text(), "blue");
    }
    let blue = Backend::blue();
    let proxy = Proxy::before(&blue);
    let mut client = H2::plain(proxy.address());
    let open = ask(&mut client, "connect-udp");
    assert_eq!(client.wait(read(open.answer)).unwrap().status, 400);
    let plain = http::Request::builder()
        .method(Method::CONNECT)
        .uri("shop.test:443");
    let open = client.open(plain, true);
    assert_eq!(client.wait(read(open.answer)).unwrap().status, 400);
    assert_eq!(blue.requests(), []);
}

#[test]
fn either_side_that_breaks_off_is_told_to_the_other() {
    let (proxy, blue, _told, _green) = stage("{ policy = \"keep\" }");
    let mut client = H2::plain(proxy.address());
    let (mut socket, _) = open(&mut client);
    socket.echo(&client, "blue", "one");
    socket.upload.send_reset(Reason::CANCEL);
    until("the app was told", || blue.open() == 0);
    until("it is no stream any more", || {
        open_streams(&proxy, "websocket") == 0.0
    });
    let (mut socket, _) = open(&mut client);
    socket.echo(&client, "blue", "two");
    blue.hang_up();
    // Orderly at the TCP level, so orderly here (RFC 8441 §5).
    assert!(matches!(socket.frame(&client), Ok(None) | Err(Lost::Reset(_))));
    assert!(client.is_open());
}

#[test]
fn events_pass_as_they_come_and_end_between_two_of_them() {
    let (go, wait) = channel::<&str>();
    let wait = Mutex::new(wait);
    let blue = Backend::script(move |wire, _| {
        let Some(request) = wire.request() else { return };
        if request.target() != "/events" {
            wire.send(ok("blue"));
            return;
        }
        wire.send("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n");
        while let Ok(text) = wait.lock().unwrap().recv() {
            wire.send(format!("{:x}\r\n{text}\r\n", text.len()));
        }
    });
    let green = Backend::green();
    let proxy = Setup::new()
        .colors(&blue, &green, "drain.streams = { policy = \"close\" }")
        .start();
    let mut client = H2::plain(proxy.address());
    let request = client.request("GET", "/events");
    let open = client.open(request, false);
    let mut body = client.wait(open.answer).unwrap().into_body();
    for text in ["data: 1\n\n", "data: 2\n\n", "data: ha"] {
        go.send(text).unwrap();
        assert_eq!(client.wait(next(&mut body)).unwrap().unwrap(), text);
    }
    assert_eq!(open_streams(&proxy, "sse"), 1.0);
    proxy.post("switch", json!({ "to": "green" })).done();
    go.send("lf\n\ndata: 4").unwrap();
    assert_eq!(client.wait(next(&mut body)).unwrap().unwrap(), "lf\n\n");
    let rest = client.wait(async {
        let mut rest = Vec::new();
        while let Some(data) = next(&mut body).await? {
            rest.extend_from_slice(&data);
        }
        Ok::<_, Lost>(rest)
    });
    assert_eq!(rest, Ok(Vec::new()), "ended between two events");
    assert_eq!(client.get("/").text(), "green");
}
