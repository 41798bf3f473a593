//! Upgrades, event streams, and what becomes of them at a switch.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::websocket::{AGREE, ASK, CLOSE, Frame, PING, PONG, app, open, read};
use crate::harness::{Backend, Proxy, Setup, Wire, ok, until};

/// A WebSocket app in one color, and every frame that it got.
fn websocket(color: &'static str) -> (Backend, Receiver<Frame>) {
    let (tell, told) = channel::<Frame>();
    let tell: Mutex<Sender<Frame>> = Mutex::new(tell);
    let backend = Backend::script(move |wire, _| {
        app(wire, color, &|frame| {
            let _ = tell.lock().unwrap().send(frame);
        });
    });
    (backend, told)
}

struct Stage {
    proxy: Proxy,
    blue: Backend,
    _green: Backend,
    /// What blue got.
    told: Receiver<Frame>,
}

/// Two colors with this `streams = …` and other lines of `[app.web]`.
fn stage(streams: &str, setup: Setup) -> Stage {
    let (blue, told) = websocket("blue");
    let (green, _) = websocket("green");
    let lines = format!("drain.streams = {streams}\nlimits.client_idle_timeout = \"300ms\"\n");
    let proxy = setup.colors(&blue, &green, &lines).start();
    Stage {
        proxy,
        blue,
        _green: green,
        told,
    }
}

#[track_caller]
fn echo(client: &mut Wire, color: &str, text: &str) {
    client.send(Frame::text(text).masked().bytes());
    let frame = read(client).expect("an echo");
    assert_eq!(frame, Frame::text(format!("{color} {text}")));
}

/// The app's end of a stream: 1012, masked, after the last message.
#[track_caller]
fn told_of_the_end(told: &Receiver<Frame>) {
    let closes = told.iter().find(|frame| frame.opcode == CLOSE).expect("a Close");
    assert_eq!((closes.code(), closes.masked), (Some(1012), true));
}

fn streams(proxy: &Proxy, color: &str) -> u64 {
    proxy.app()["colors"][color]["streams"].as_u64().unwrap()
}

fn is_drained(proxy: &Proxy, color: &str, wait: &str) -> bool {
    let reply = proxy.get(&format!("/v1/apps/web/colors/{color}/drained?wait={wait}"));
    assert!([200, 408, 504, 409].contains(&reply.status), "{}", reply.text);
    reply.status == 200
}

#[test]
fn a_websocket_passes_in_both_directions() {
    let stage = stage("{}", Setup::new());
    let mut client = stage.proxy.client();
    let head = open(&mut client);
    assert_eq!(head.field("upgrade"), Some("websocket"));
    assert_eq!(head.field("connection"), Some("Upgrade"));
    assert_eq!(
        head.field("sec-websocket-accept"),
        Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
    );
    assert_eq!(head.field("x-cutover-color"), Some("blue"));
    assert_eq!(
        (
            head.all("transfer-encoding").len(),
            head.all("content-length").len()
        ),
        (0, 0)
    );
    echo(&mut client, "blue", "one");
    let open = ["app=\"web\"", "color=\"blue\"", "kind=\"websocket\""];
    assert_eq!(stage.proxy.metric("cutover_streams_open", &open), 1.0);
    assert_eq!(
        stage
            .proxy
            .metric("cutover_requests_in_flight", &["color=\"blue\""]),
        1.0
    );
    assert_eq!(streams(&stage.proxy, "blue"), 1);

    // In pieces, with a ping between them.
    for frame in [
        Frame::text("a").part(),
        Frame::of(PING, "p"),
        Frame::of(0, "b").part(),
        Frame::of(0, "c"),
    ] {
        client.send(frame.masked().bytes());
    }
    let all: Vec<Frame> = (0..4).map(|_| read(&mut client).unwrap()).collect();
    let wanted = [
        Frame::text("blue a").part(),
        Frame::of(PONG, "p"),
        Frame::of(0, "b").part(),
        Frame::of(0, "c"),
    ];
    assert_eq!(all, wanted);

    client.send(Frame::close(4321).masked().bytes());
    assert_eq!(read(&mut client).unwrap().code(), Some(4321));
    client.assert_closed();
    until("the stream is over", || {
        stage.proxy.metric("cutover_streams_open", &open) == 0.0
    });
    until("it is counted", || {
        stage.proxy.metric("cutover_requests_total", &["code=\"101\""]) == 1.0
    });
    assert_eq!(stage.proxy.metric("cutover_requests_in_flight", &[]), 0.0);
    let request = String::from_utf8_lossy(&stage.blue.received().concat()).to_lowercase();
    assert!(request.contains("\r\nconnection: upgrade\r\n"), "{request}");
    assert!(request.contains("\r\nupgrade: websocket\r\n"), "{request}");
    assert!(
        request.contains("\r\nx-forwarded-for: 127.0.0.1\r\n"),
        "{request}"
    );
}

#[test]
fn a_large_message_arrives_whole_and_unchanged() {
    let stage = stage("{}", Setup::new());
    let mut client = stage.proxy.client();
    open(&mut client);
    let size = 16 * 1024 * 1024;
    let payload: Vec<u8> = (0..size).map(|at: usize| (at * 31 + at / 997) as u8).collect();
    let frame = Frame::of(2, &payload);
    client.send(frame.clone().masked().bytes());
    assert!(read(&mut client).unwrap() == frame);
    echo(&mut client, "blue", "after it");
}

#[test]
fn nothing_behind_either_head_is_lost() {
    // The app speaks in the same write as its 101, the client behind its request.
    let blue = Backend::script(|wire, _| {
        wire.request();
        wire.send([AGREE.as_bytes(), &Frame::text("first").bytes()].concat());
        while let Some(frame) = read(wire) {
            wire.send(
                Frame {
                    masked: false,
                    ..frame
                }
                .bytes(),
            );
        }
    });
    let proxy = Proxy::before(&blue);
    let mut client = proxy.client();
    let big = Frame::text("x".repeat(100_000)).masked();
    client.send([ASK.as_bytes(), &big.bytes()].concat());
    assert_eq!(client.head().status(), 101);
    assert_eq!(read(&mut client), Some(Frame::text("first")));
    assert_eq!(read(&mut client), Some(Frame::text("x".repeat(100_000))));
}

#[test]
fn frames_may_be_split_anywhere() {
    let stage = stage("{}", Setup::new());
    let mut client = stage.proxy.client();
    open(&mut client);
    let both = [
        Frame::text("y".repeat(130)).masked().bytes(),
        Frame::text("z").masked().bytes(),
    ]
    .concat();
    for at in 0..=both.len() {
        client.send(&both[..at]);
        std::thread::sleep(Duration::from_micros(300));
        client.send(&both[at..]);
        assert_eq!(
            read(&mut client),
            Some(Frame::text(format!("blue {}", "y".repeat(130))))
        );
        assert_eq!(read(&mut client), Some(Frame::text("blue z")));
    }
    for byte in both.clone() {
        client.send([byte]);
    }
    assert!(read(&mut client).is_some() && read(&mut client).is_some());
}

#[test]
fn a_slow_reader_stops_the_other_side() {
    let sent = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counted = Arc::clone(&sent);
    let blue = Backend::script(move |wire, _| {
        if wire.request().is_some() && wire.try_send(AGREE.as_bytes()).is_ok() {
            let frame = Frame::of(2, vec![b'x'; 64 * 1024]).bytes();
            while wire.try_send(&frame).is_ok() {
                counted.fetch_add(frame.len(), std::sync::atomic::Ordering::SeqCst);
            }
        }
    });
    let proxy = Proxy::before(&blue);
    let mut client = proxy.client().small_window();
    open(&mut client);
    let (mut last, mut same) = (0, 0);
    until("the app is stopped", || {
        std::thread::sleep(Duration::from_millis(20));
        let now = sent.load(std::sync::atomic::Ordering::SeqCst);
        same = if now == last { same + 1 } else { 0 };
        last = now;
        same > 10 && now > 0
    });
    assert!(
        last < 64 * 1024 * 1024,
        "{last} bytes for a client that takes none"
    );
}

#[test]
fn without_a_101_bytes_behind_the_head_are_a_request_or_nothing() {
    for status in ["200 OK", "400 Bad Request", "426 Upgrade Required"] {
        let blue = Backend::handler(move |request| match request.target() {
            "/ws" => format!("HTTP/1.1 {status}\r\ncontent-length: 2\r\n\r\nno").into_bytes(),
            _ => ok("blue"),
        });
        let proxy = Proxy::before(&blue);
        // A whole request: it is one, with all that is done to requests, and never bytes in a tunnel.
        let mut client = proxy.client();
        client.send(
            [
                ASK,
                "GET /admin HTTP/1.1\r\nHost: b\r\nX-Forwarded-For: 10.0.0.1\r\n\r\n",
            ]
            .concat(),
        );
        assert_eq!(client.answer().text(), "no");
        assert_eq!(client.answer().text(), "blue");
        let requests = blue.requests();
        assert_eq!(requests.len(), 2, "{requests:?}");
        assert_eq!(requests[1].field("x-forwarded-for"), Some("127.0.0.1"));
        // Frames: malformed.
        let mut client = proxy.client();
        client.send([ASK.as_bytes(), &Frame::text("hello").masked().bytes()].concat());
        assert_eq!(client.answer().text(), "no");
        let rest = client.rest();
        assert!(rest.is_empty() || rest.starts_with(b"HTTP/1.1 400"), "{rest:?}");
        assert_eq!(blue.requests().len(), 3);
    }
}

#[test]
fn only_what_was_asked_for_is_switched_to() {
    for answer in [
        "HTTP/1.1 101 Switching Protocols\r\n\r\nraw bytes",
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\nraw bytes",
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket, x\r\n\r\nraw",
    ] {
        let blue = Backend::answers(answer);
        let proxy = Proxy::before(&blue);
        let mut client = proxy.client();
        assert_eq!(client.ask(ASK).status(), 502, "{answer}");
        drop(client);
        until("all is over", || {
            proxy.metric("cutover_requests_in_flight", &[]) == 0.0
        });
        assert_eq!(proxy.metric("cutover_streams_open", &[]), 0.0);
    }
    // Nobody asked at all.
    let blue = Backend::answers(AGREE);
    let proxy = Proxy::before(&blue);
    assert_eq!(proxy.fetch("/").status(), 502);
    let plain = ASK.replace("Connection: keep-alive, Upgrade\r\n", "");
    assert_eq!(proxy.client().ask(plain).status(), 502);
}

#[test]
fn what_may_not_be_upgraded_is_an_ordinary_request() {
    let blue = Backend::blue();
    let proxy = Proxy::before(&blue);
    let base = "GET / HTTP/1.1\r\nHost: a\r\n";
    let cases = [
        format!("{base}Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n"),
        format!("{base}Connection: upgrade\r\nUpgrade: HTTP/2.0, TLS/1.0\r\n\r\n"),
        format!("{base}Upgrade: websocket\r\n\r\n"),
        format!("{base}Connection: keep-alive\r\nUpgrade: websocket\r\n\r\n"),
        "GET / HTTP/1.0\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n".to_owned(),
        "POST / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 2\r\n\r\nhi"
            .to_owned(),
        "POST / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
            .to_owned(),
    ];
    for case in &cases {
        assert_eq!(proxy.client().ask(case).text(), "blue", "{case}");
    }
    let requests = blue.requests();
    assert_eq!(requests.len(), cases.len());
    for request in requests {
        for field in ["upgrade", "http2-settings", "connection"] {
            assert_eq!(request.field(field), None, "{request:?}");
        }
    }
    // Of several the fit ones go on.
    let several = format!(
        "{base}Connection: upgrade, http2-settings\r\nUpgrade: h2c, foo/2\r\nHTTP2-Settings: A\r\n\r\n"
    );
    assert_eq!(proxy.client().ask(several).text(), "blue");
    let requests = blue.requests();
    let upgrades = requests
        .iter()
        .filter(|request| request.field("upgrade").is_some());
    let upgrades: Vec<_> = upgrades.collect();
    assert_eq!(upgrades.len(), 1, "{upgrades:?}");
    assert_eq!(
        (upgrades[0].field("upgrade"), upgrades[0].field("http2-settings")),
        (Some("foo/2"), None)
    );
}

const FOO: &str = "GET /foo HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: foo\r\n\r\n";
const FOO_AGREED: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: Foo\r\n\r\n";

#[test]
fn another_protocol_passes_with_each_half_closed_by_itself() {
    let blue = Backend::script(|wire, _| {
        wire.request();
        wire.send(FOO_AGREED);
        // The client's end is heard, and the answer comes after it.
        let all = wire.rest();
        std::thread::sleep(Duration::from_millis(50));
        wire.send(format!("{} bytes", all.len()));
    });
    let proxy = Proxy::before(&blue);
    let mut client = proxy.client();
    let head = client.send(FOO).head();
    assert_eq!((head.status(), head.field("upgrade")), (101, Some("Foo")));
    let kind = ["kind=\"upgrade\""];
    assert_eq!(proxy.metric("cutover_streams_open", &kind), 1.0);
    client.send("0123456789").finish();
    assert_eq!(client.rest(), b"10 bytes");
    until("it is over", || {
        proxy.metric("cutover_streams_open", &kind) == 0.0
    });
}

#[test]
fn the_end_of_either_side_ends_the_other() {
    let stage = stage("{}", Setup::new());
    let mut client = stage.proxy.client();
    open(&mut client);
    echo(&mut client, "blue", "one");
    stage.blue.hang_up();
    client.assert_closed();
    drop(client);
    until("nothing is held", || streams(&stage.proxy, "blue") == 0);

    let mut client = stage.proxy.client();
    open(&mut client);
    echo(&mut client, "blue", "two");
    client.reset();
    until("the app's side is gone", || stage.blue.open() == 0);
    until("nothing is held", || {
        stage.proxy.metric("cutover_requests_in_flight", &[]) == 0.0
    });
}

#[test]
fn a_kept_stream_outlives_the_switch_and_holds_its_color() {
    let stage = stage(
        "{ policy = \"keep\", deadline = \"100ms\" }\ndrain.http = \"100ms\"",
        Setup::new(),
    );
    let proxy = &stage.proxy;
    let mut clients: Vec<Wire> = (0..8).map(|_| proxy.client()).collect();
    clients.iter_mut().for_each(|client| drop(open(client)));
    proxy.switch("green");
    for count in 0..60 {
        // Past `drain.http` and `deadline`: neither is for kept streams.
        clients
            .iter_mut()
            .for_each(|client| echo(client, "blue", &count.to_string()));
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(proxy.says(), "green");
    assert_eq!(streams(proxy, "blue"), 8);
    assert_eq!(proxy.app()["colors"]["blue"]["role"], "draining");
    let waited = proxy.get("/v1/apps/web/colors/blue/drained?wait=50ms");
    assert_ne!(waited.status, 200);
    assert!(waited.text.contains("8 of them streams"), "{}", waited.text);
    // There and back again: what was kept is kept.
    proxy.switch("blue");
    proxy.switch("green");
    for mut client in clients {
        echo(&mut client, "blue", "last");
        client.send(Frame::close(1000).masked().bytes());
        assert_eq!(read(&mut client).unwrap().code(), Some(1000));
    }
    assert!(is_drained(proxy, "blue", "10s"));
    assert_eq!(proxy.metric("cutover_drain_cancelled_total", &[]), 0.0);
}

#[test]
fn closed_streams_end_at_once_with_1012_on_both_sides() {
    let stage = stage("{ policy = \"close\" }", Setup::new());
    let mut clients: Vec<Wire> = (0..4).map(|_| stage.proxy.client()).collect();
    for client in &mut clients {
        open(client);
        echo(client, "blue", "one");
    }
    let begun = Instant::now();
    stage.proxy.switch("green");
    for client in &mut clients {
        let close = read(client).expect("a Close");
        assert_eq!((close.code(), close.masked), (Some(1012), false));
        client.send(Frame::close(1012).masked().bytes());
        client.assert_closed();
        told_of_the_end(&stage.told);
    }
    assert!(is_drained(&stage.proxy, "blue", "10s"));
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    until("it is counted", || {
        stage.proxy.metric("cutover_requests_total", &["code=\"101\""]) == 4.0
    });
}

#[test]
fn a_close_waits_for_the_frame_that_is_under_way() {
    let stage = stage("{ policy = \"close\" }", Setup::new());
    let mut client = stage.proxy.client();
    open(&mut client);
    echo(&mut client, "blue", "one");
    let big = Frame::text("m".repeat(70_000)).masked().bytes();
    client.send(&big[..40_000]);
    stage.proxy.switch("green");
    // Nothing is under way to the client.
    assert_eq!(read(&mut client).and_then(|frame| frame.code()), Some(1012));
    client.send(&big[40_000..]);
    client.send(Frame::close(1012).masked().bytes());
    client.assert_closed();
    let all: Vec<Frame> = (0..3).map(|_| stage.told.recv().unwrap()).collect();
    assert_eq!(all[1].payload.len(), 70_000, "whole");
    assert_eq!((all[2].code(), all[2].masked), (Some(1012), true));
    assert!(is_drained(&stage.proxy, "blue", "10s"));
}

#[test]
fn a_side_that_answers_no_close_is_waited_for_five_seconds() {
    let stage = stage("{ policy = \"close\" }", Setup::new());
    let mut client = stage.proxy.client();
    open(&mut client);
    let begun = Instant::now();
    stage.proxy.switch("green");
    assert_eq!(read(&mut client).and_then(|frame| frame.code()), Some(1012));
    client.assert_closed();
    let took = begun.elapsed();
    assert!((4_500..9_000).contains(&took.as_millis()), "{took:?}");
    assert!(is_drained(&stage.proxy, "blue", "10s"));
}

#[test]
fn spread_streams_each_end_once_inside_the_window() {
    let stage = stage("{ policy = \"spread\", spread = \"1500ms\" }", Setup::new());
    let clients: Vec<Wire> = (0..24)
        .map(|_| {
            let mut client = stage.proxy.client();
            open(&mut client);
            client
        })
        .collect();
    let begun = Instant::now();
    stage.proxy.switch("green");
    let readers: Vec<_> = clients
        .into_iter()
        .map(|mut client| {
            std::thread::spawn(move || {
                for count in 0.. {
                    client.send(Frame::text(count.to_string()).masked().bytes());
                    let frame = read(&mut client).expect("an echo or a Close");
                    if frame.opcode == CLOSE {
                        let ended = begun.elapsed();
                        client.send(Frame::close(1012).masked().bytes());
                        assert_eq!(frame.code(), Some(1012));
                        client.assert_closed();
                        return ended;
                    }
                    assert_eq!(
                        frame,
                        Frame::text(format!("blue {count}")),
                        "none lost, none twice"
                    );
                    std::thread::sleep(Duration::from_millis(5));
                }
                unreachable!()
            })
        })
        .collect();
    let mut ends: Vec<_> = readers.into_iter().map(|reader| reader.join().unwrap()).collect();
    ends.sort();
    assert!(ends[23] < Duration::from_millis(3500), "{ends:?}");
    // Evenly: two workers with an even row each. A quarter of the window is never empty.
    let quarter = Duration::from_millis(375);
    for from in 0..4 {
        let of_quarter = ends
            .iter()
            .filter(|end| (quarter * from..quarter * (from + 1)).contains(*end));
        let count = of_quarter.count();
        assert!(count >= 1, "{ends:?}");
    }
    assert!(is_drained(&stage.proxy, "blue", "10s"));
    assert_eq!(stage.proxy.metric("cutover_streams_open", &[]), 0.0);
}

#[test]
fn another_protocol_is_closed_and_a_stream_that_begins_too_late_too() {
    let (go, wait) = channel::<()>();
    let wait = Mutex::new(wait);
    let blue = Backend::script(move |wire, _| {
        while let Some(request) = wire.request() {
            match request.target() {
                "/foo" => {
                    wire.send(FOO_AGREED);
                    return;
                }
                "/ws" => {
                    let _ = wait.lock().unwrap().recv();
                    wire.send(AGREE);
                    while read(wire).is_some() {}
                    return;
                }
                _ => drop(wire.send(ok("blue"))),
            }
        }
    });
    let green = Backend::green();
    let lines = "drain.streams.policy = \"close\"";
    let proxy = Setup::new().colors(&blue, &green, lines).start();
    let mut foo = proxy.client();
    assert_eq!(foo.send(FOO).head().status(), 101);
    let mut late = proxy.client();
    late.send(ASK);
    until("it waits", || {
        proxy.metric("cutover_requests_in_flight", &["color=\"blue\""]) == 2.0
    });
    proxy.switch("green");
    foo.assert_closed();
    go.send(()).unwrap();
    assert_eq!(late.head().status(), 101);
    assert_eq!(read(&mut late).and_then(|frame| frame.code()), Some(1012));
}

#[test]
fn drain_http_is_for_ordinary_requests_alone() {
    let blue = Backend::script(|wire, _| {
        while let Some(request) = wire.request() {
            if request.target() == "/slow" {
                wire.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n");
                wire.rest();
                return;
            }
            if request.target() == "/events" {
                wire.send("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n");
                while wire.try_send(b"data: x\n\n").is_ok() {
                    std::thread::sleep(Duration::from_millis(5));
                }
                return;
            }
            if request.field("upgrade").is_some() {
                wire.send(AGREE);
                while let Some(frame) = read(wire) {
                    wire.send(
                        Frame {
                            masked: false,
                            ..frame
                        }
                        .bytes(),
                    );
                }
                return;
            }
            wire.send(ok("blue"));
        }
    });
    let green = Backend::green();
    let lines = "drain = { http = \"200ms\", streams.policy = \"keep\" }";
    let proxy = Setup::new().colors(&blue, &green, lines).start();
    let (mut slow, mut events, mut socket) = (proxy.client(), proxy.client(), proxy.client());
    slow.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n").head();
    events.send("GET /events HTTP/1.1\r\nHost: a\r\n\r\n").head();
    open(&mut socket);
    assert_eq!(proxy.metric("cutover_streams_open", &["kind=\"sse\""]), 1.0);
    proxy.switch("green");
    assert_eq!(slow.chunk(), b"x");
    slow.assert_closed();
    assert_eq!(proxy.metric("cutover_drain_cancelled_total", &[]), 1.0);
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(400) {
        assert!(events.chunk().ends_with(b"\n\n"));
    }
    socket.send(Frame::text("still").masked().bytes());
    assert_eq!(read(&mut socket), Some(Frame::text("still")));
    assert_eq!(streams(&proxy, "blue"), 2);
}

/// Sends what it is told to.
fn events(color: &'static str, more: Mutex<Receiver<&'static str>>) -> Backend {
    Backend::script(move |wire, _| {
        while let Some(request) = wire.request() {
            if request.target() != "/events" {
                wire.send(ok(color));
                continue;
            }
            wire.send("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n\r\n");
            for text in more.lock().unwrap().iter() {
                if wire.try_send(text.as_bytes()).is_err() {
                    break;
                }
            }
            return;
        }
    })
}

#[test]
fn an_event_stream_ends_between_two_events_with_a_last_chunk() {
    let (say, more) = channel();
    let (blue, green) = (events("blue", Mutex::new(more)), Backend::green());
    let proxy = Setup::new()
        .colors(&blue, &green, "drain.streams.policy = \"close\"")
        .start();
    let mut client = proxy.client();
    client.send("GET /events HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.head().status(), 200);
    say.send("data: 1\n\ndata: 2").unwrap();
    assert_eq!(client.chunk(), b"data: 1\n\ndata: 2");
    proxy.switch("green");
    client.assert_silent(Duration::from_millis(100));
    // The end of the event, another, and the beginning of one that never ends.
    say.send("2\n\ndata: 3\n\ndata: ").unwrap();
    assert_eq!(client.chunk(), b"2\n\ndata: 3\n\n");
    assert_eq!(client.chunk(), b"", "a last chunk");
    assert!(is_drained(&proxy, "blue", "10s"));
    assert_eq!(client.get("/").text(), "green", "the connection is whole");
    assert_eq!(proxy.metric("cutover_streams_open", &[]), 0.0);
}

#[test]
fn an_event_stream_between_events_ends_at_once() {
    let (say, more) = channel();
    let (blue, green) = (events("blue", Mutex::new(more)), Backend::green());
    let lines = "drain.streams = { policy = \"spread\", spread = \"300ms\" }";
    let proxy = Setup::new().colors(&blue, &green, lines).start();
    let mut client = proxy.client();
    client.send("GET /events HTTP/1.1\r\nHost: a\r\n\r\n");
    say.send("data: 1\n\n").unwrap();
    let head = client.head();
    assert_eq!(
        (head.status(), client.chunk().as_slice()),
        (200, b"data: 1\n\n".as_slice())
    );
    proxy.switch("green");
    assert_eq!(client.chunk(), b"");
    assert!(is_drained(&proxy, "blue", "10s"));
}

#[test]
fn a_reload_a_hold_and_other_apps_touch_no_stream() {
    let (other_blue, other_green) = (Backend::blue(), Backend::green());
    let other = format!(
        "[app.other]\nhosts = [\"o\"]\ninitial = \"blue\"\nblue = [\"{}\"]\ngreen = [\"{}\"]\n",
        other_blue.address(),
        other_green.address()
    );
    let (blue, _told) = websocket("blue");
    let green = Backend::green();
    let proxy = Setup::new()
        .in_file()
        .colors(&blue, &green, "drain.streams.policy = \"close\"")
        .toml(&other)
        .start();
    let mut client = proxy.client();
    open(&mut client);
    proxy.rewrite(|text| text.replace("hosts = [\"o\"]", "hosts = [\"p\"]\nlimits.uri_bytes = \"1KiB\""));
    proxy.reload().done();
    echo(&mut client, "blue", "reload");
    proxy.post("hold", json!({ "max": "60s" })).done();
    echo(&mut client, "blue", "held");
    proxy.post("release", json!({})).done();
    echo(&mut client, "blue", "released");
    proxy.post("weight", json!({ "green": 50 })).done();
    proxy.post("weight", json!({ "green": 0 })).done();
    echo(&mut client, "blue", "weights");
    proxy.post("maintenance", json!({ "on": true })).done();
    echo(&mut client, "blue", "maintenance");
    proxy.post("maintenance", json!({ "on": false })).done();
    proxy.switch("green");
    assert_eq!(read(&mut client).and_then(|frame| frame.code()), Some(1012));
}

#[test]
fn a_shutdown_says_good_bye_by_policy() {
    for (policy, at_once) in [("keep", false), ("close", true)] {
        let setup = Setup::new().server("");
        let mut stage = stage(&format!("{{ policy = \"{policy}\" }}"), setup);
        let mut client = stage.proxy.client();
        open(&mut client);
        let begun = Instant::now();
        stage.proxy.begin_stop();
        if !at_once {
            echo(&mut client, "blue", "still");
        }
        assert_eq!(
            read(&mut client).and_then(|frame| frame.code()),
            Some(1012),
            "{policy}"
        );
        let took = begun.elapsed();
        client.send(Frame::close(1012).masked().bytes());
        client.assert_closed();
        // The harness gives a shutdown one second; the farewell of kept streams begins at its half.
        assert_eq!(took < Duration::from_millis(400), at_once, "{policy} {took:?}");
        told_of_the_end(&stage.told);
        stage.proxy.stop();
    }
}

#[test]
fn a_stream_is_one_line_of_the_access_log_at_its_end() {
    let stage = stage("{ policy = \"close\" }", Setup::new().access_log());
    let file = stage.proxy.folder().join("access.log");
    let lines = || -> Vec<serde_json::Value> {
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        let whole = text.lines().filter_map(|line| serde_json::from_str(line).ok());
        whole
            .filter(|line: &serde_json::Value| line["status"] == 101)
            .collect()
    };
    let (mut first, mut second) = (stage.proxy.client(), stage.proxy.client());
    open(&mut first);
    open(&mut second);
    echo(&mut first, "blue", "12345");
    std::thread::sleep(Duration::from_millis(700));
    assert_eq!(lines().len(), 0, "not before the end");
    first.send(Frame::close(1000).masked().bytes());
    first.rest();
    until("the first is logged", || lines().len() == 1);
    let line = &lines()[0];
    // 6 + 5 and 6 + 2 bytes in; 2 + 10 and 2 + 2 out.
    assert_eq!(
        (line["bytes_in"].as_u64(), line["bytes_out"].as_u64()),
        (Some(19), Some(16)),
        "{line}"
    );
    assert!(line["error"].is_null() && line["color"] == "blue", "{line}");
    stage.proxy.switch("green");
    until("the second is logged", || {
        second.send(Frame::close(1012).masked().bytes());
        lines().len() == 2
    });
    assert_eq!(lines()[1]["error"], "stream ended by policy");
}
