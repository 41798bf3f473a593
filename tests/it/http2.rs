//! HTTP/2 from clients: what is answered, what of a request reaches the app, and what becomes of broken ones.

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use h2::Reason;
use serde_json::Value;

use crate::harness::http2::{Answer, END_STREAM, H2, Outcome, Raw, get, kind, next, read};
use crate::harness::tls::{Authority, Kind};
use crate::harness::{Backend, Message, Proxy, Setup, ok, until};

/// The access log as it is by now.
fn log(proxy: &Proxy) -> Vec<Value> {
    let text = std::fs::read_to_string(proxy.folder().join("access.log")).unwrap_or_default();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// Wait for the line of a path.
#[track_caller]
fn logged(proxy: &Proxy, path: &str) -> Value {
    let find = || log(proxy).into_iter().find(|line| line["path"] == path);
    until("the request is logged", || find().is_some());
    find().unwrap()
}

fn logging(blue: &Backend, lines: &str) -> Proxy {
    Setup::new().access_log().blue(blue, lines).start()
}

fn echo() -> Backend {
    Backend::handler(|request: &Message| ok(&format!("{} {}", request.target(), request.text())))
}

#[test]
fn prior_knowledge_is_served_beside_http1_on_one_port() {
    let blue = echo();
    let proxy = logging(&blue, "");
    let mut client = H2::plain(proxy.address());
    for target in ["/one", "/two?x=1"] {
        let answer = client.get(target);
        assert_eq!((answer.status, answer.text()), (200, format!("{target} ")));
        assert_eq!(
            answer.field("content-length"),
            Some(answer.body.len().to_string().as_str())
        );
    }
    let request = client.request("POST", "/post");
    assert_eq!(client.ask(request, "body").text(), "/post body");
    // Methods that begin like the preface, byte by byte.
    for method in ["POST", "PUT", "PATCH", "PRI"] {
        let mut old = proxy.client();
        for byte in format!("{method} /{method} HTTP/1.1\r\nHost: a\r\n\r\n").bytes() {
            old.send([byte]);
        }
        assert_eq!(old.answer().text(), format!("/{method} "));
    }
    let requests = blue.requests();
    assert_eq!(requests[0].field("host"), Some("shop.test"));
    assert_eq!(requests[0].field("x-forwarded-proto"), Some("http"));
    assert_eq!(requests[0].field("x-forwarded-host"), Some("shop.test"));
    assert!(
        requests
            .iter()
            .all(|request| request.start.ends_with(" HTTP/1.1"))
    );
    let line = logged(&proxy, "/post");
    assert_eq!(
        (&line["proto"], &line["host"]),
        (&"HTTP/2.0".into(), &"shop.test".into())
    );
    assert_eq!(line["bytes_in"], 4);
    assert_eq!(
        proxy.metric("cutover_requests_total", &["code=\"200\"", "method=\"POST\""]),
        2.0
    );
}

#[test]
fn a_preface_in_pieces_is_one_and_half_a_preface_is_http1() {
    let blue = Backend::blue();
    let proxy = Setup::new()
        .blue(&blue, "")
        .toml("[limits]\nclient_header_timeout = \"300ms\"")
        .start();
    let mut raw = Raw(proxy.client());
    for byte in b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" {
        raw.0.send([*byte]);
    }
    raw.send(kind::SETTINGS, 0, 0, &[]).head(1, END_STREAM, &get("/"));
    assert_eq!(raw.outcome(1), Outcome::Answered);
    // The beginning of one, and silence: what HTTP/1 says to half a head.
    let mut slow = proxy.client();
    slow.send("P");
    assert_eq!(slow.answer().status(), 408);
    // Half of one, and the end of it.
    let mut ended = proxy.client();
    ended.send("PRI * HT").finish();
    assert_eq!(ended.rest(), b"");
}

#[test]
fn alpn_chooses_and_tls_has_its_rules_here_too() {
    let authority = Authority::new();
    authority.issue("shop", &["shop.test"], Kind::Ecdsa);
    let blue = echo();
    let listeners = authority.listener(&["shop"], "hsts = \"1d\"")
        + &authority.listener(&["shop"], "alpn = [\"http/1.1\"]")
        + "[[listener]]\naddress = \"127.0.0.1:0\"\nredirect_https = 308\n";
    let proxy = Setup::new().listeners(&listeners).blue(&blue, "").start();
    let dialer = authority.client().build();
    let mut client = H2::tls(&dialer, proxy.tcp(0), "shop.test");
    let answer = client.get("/");
    assert_eq!(
        (answer.status, answer.field("strict-transport-security")),
        (200, Some("max-age=86400"))
    );
    assert_eq!(blue.request().field("x-forwarded-proto"), Some("https"));
    // Another host than the certificate's: this request only, not the connection.
    let elsewhere = http::Request::get("https://other.test/");
    assert_eq!(client.ask(elsewhere, "").status, 421);
    assert_eq!(client.get("/again").status, 200);
    // Clients without ALPN, and the listener without h2.
    assert_eq!(dialer.dial(proxy.tcp(0), "shop.test").get("/old").text(), "/old ");
    let mut only_old = (*dialer.0).clone();
    only_old.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let mut wire = crate::harness::tls::Dialer(Arc::new(only_old)).dial(proxy.tcp(1), "shop.test");
    assert_eq!(wire.tls().conn.alpn_protocol(), Some(&b"http/1.1"[..]));
    assert_eq!(wire.get("/only").text(), "/only ");
    let answer = H2::plain(proxy.tcp(2)).get("/there?x");
    assert_eq!(
        (answer.status, answer.field("location")),
        (308, Some("https://shop.test/there?x"))
    );
}

#[test]
fn many_requests_at_once_get_their_own_answers() {
    let blue = echo();
    let proxy = Proxy::before(&blue);
    let mut client = H2::plain(proxy.address());
    let targets: Vec<String> = (0..100).map(|number| format!("/{number}")).collect();
    for (target, answer) in targets.iter().zip(client.get_all(&targets)) {
        assert_eq!(answer.unwrap().text(), format!("{target} "));
    }
}

#[test]
fn nothing_that_is_for_one_connection_crosses() {
    let blue = Backend::answers(
        "HTTP/1.1 200 OK\r\ncontent-length: 4\r\nconnection: keep-alive, x-secret\r\nkeep-alive: timeout=5\r\n\
         proxy-connection: x\r\nx-secret: 1\r\nupgrade: h2c\r\nx-stays: 1\r\n\r\nblue",
    );
    let proxy = Proxy::before(&blue);
    let mut client = H2::plain(proxy.address());
    let request = client
        .request("GET", "/")
        .header("te", "trailers")
        .header("cookie", "a=1")
        .header("cookie", "b=2")
        .header("http2-settings", "AAAA");
    let answer = client.ask(request, "");
    for name in [
        "connection",
        "keep-alive",
        "proxy-connection",
        "x-secret",
        "upgrade",
        "transfer-encoding",
    ] {
        assert_eq!(answer.field(name), None);
    }
    assert_eq!(
        (answer.text().as_str(), answer.field("x-stays")),
        ("blue", Some("1"))
    );
    let request = blue.request();
    assert_eq!(request.field("cookie"), Some("a=1; b=2"));
    assert_eq!(request.field("te"), Some("trailers"));
    assert_eq!(request.field("http2-settings"), None);
}

#[test]
fn trailers_pass_both_ways() {
    let blue = Backend::handler(|_| {
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n\
          4\r\nblue\r\n0\r\nx-sum: 42\r\nconnection: x\r\nte: x\r\n\r\n"
            .to_vec()
    });
    let proxy = Proxy::before(&blue);
    let mut client = H2::plain(proxy.address());
    let request = client.request("POST", "/").header("trailer", "x-check");
    let mut open = client.open(request, true);
    open.upload.send_data(Bytes::from_static(b"body"), false).unwrap();
    let trailers = http::HeaderMap::from_iter([(
        http::HeaderName::from_static("x-check"),
        http::HeaderValue::from_static("7"),
    )]);
    open.upload.send_trailers(trailers).unwrap();
    let answer = client.wait(read(open.answer)).unwrap();
    assert_eq!(answer.text(), "blue");
    // Nobody declared it: over HTTP/2 that is not needed.
    assert_eq!(answer.trailers.len(), 1, "{answer:?}");
    assert_eq!(answer.trailers["x-sum"], "42");
    let request = blue.request();
    assert_eq!(
        (request.text().as_str(), &request.trailers[..]),
        ("body", &[("x-check".to_owned(), "7".to_owned())][..])
    );
}

#[test]
fn answers_without_a_body_have_none() {
    let blue = Backend::handler(|request: &Message| match request.target() {
        "/204" => b"HTTP/1.1 204 No Content\r\ncontent-length: 0\r\n\r\n".to_vec(),
        "/304" => b"HTTP/1.1 304 Not Modified\r\netag: \"x\"\r\n\r\n".to_vec(),
        _ if request.method() == "HEAD" => b"HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\n".to_vec(),
        _ => ok(""),
    });
    let proxy = Proxy::before(&blue);
    let mut client = H2::plain(proxy.address());
    for (method, target, status, length) in [
        ("GET", "/204", 204, None),
        ("GET", "/304", 304, None),
        ("HEAD", "/", 200, Some("7")),
        ("GET", "/", 200, Some("0")),
    ] {
        let request = client.request(method, target);
        let answer = client.ask(request, "");
        assert_eq!(
            (answer.status, answer.field("content-length"), answer.body.len()),
            (status, length, 0)
        );
    }
    // The crate's client has no way of saying `*`.
    let mut raw = Raw::plain(proxy.address());
    let mut fields = get("*");
    fields[0].1 = "OPTIONS";
    raw.head(1, END_STREAM, &fields);
    assert_eq!(raw.outcome(1), Outcome::Answered);
    assert_eq!(blue.requests().pop().unwrap().start, "OPTIONS * HTTP/1.1");
}

#[test]
fn what_is_too_large_is_refused_with_its_own_status() {
    let blue = Backend::blue();
    let proxy = Setup::new()
        .toml("[limits]\nheader_bytes = \"8KiB\"\nheader_count = 20\nuri_bytes = 100\nbody_bytes = 10")
        .blue(&blue, "")
        .start();
    let mut client = H2::plain(proxy.address());
    let long = format!("/{}", "x".repeat(200));
    assert_eq!(client.get(&long).status, 414);
    let mut request = client.request("GET", "/");
    for number in 0..30 {
        request = request.header(format!("x-{number}"), "1");
    }
    assert_eq!(client.ask(request, "").status, 431);
    let request = client.request("GET", "/").header("x-long", "x".repeat(9_000));
    assert_eq!(client.ask(request, "").status, 431);
    let request = client.request("POST", "/").header("content-length", "11");
    assert_eq!(client.ask(request, "12345678901").status, 413);
    let request = client.request("POST", "/");
    assert_eq!(client.ask(request, "12345678901").status, 413);
    // None of it was the connection's end.
    assert_eq!(client.get("/fine").status, 200);
    let seen: Vec<String> = blue
        .received()
        .iter()
        .map(|bytes| String::from_utf8_lossy(bytes).into_owned())
        .collect();
    assert!(
        !seen
            .iter()
            .any(|text| text.contains("x-long") || text.contains("\r\n0\r\n")),
        "{seen:?}"
    );
}

#[test]
fn a_cut_answer_is_never_taken_for_a_whole_one() {
    let cut = |head: &'static str| {
        Backend::script(move |wire, _| {
            let Some(request) = wire.request() else { return };
            if request.target() == "/whole" {
                wire.send(ok("whole"));
            } else {
                wire.send(format!("HTTP/1.1 200 OK\r\n{head}"));
            }
        })
    };
    for head in [
        "content-length: 10\r\n\r\nhalf",
        "transfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n",
        "transfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n0\r\n",
        "transfer-encoding: chunked\r\n\r\n4\r\nhalf\r\nzzz\r\n",
    ] {
        let blue = cut(head);
        let proxy = logging(&blue, "");
        let mut raw = Raw::plain(proxy.address());
        raw.head(1, END_STREAM, &get("/cut"));
        assert!(matches!(raw.outcome(1), Outcome::Reset(_)), "{head:?}");
        // The connection and its other streams are none the worse.
        raw.head(3, END_STREAM, &get("/whole"));
        assert_eq!(raw.outcome(3), Outcome::Answered, "{head:?}");
        assert_eq!(logged(&proxy, "/cut")["error"], "upstream cut the answer short");
    }
}

#[test]
fn a_broken_upload_never_looks_complete() {
    let blue = Backend::blue();
    let proxy = logging(&blue, "");
    for (number, reason) in [Reason::NO_ERROR, Reason::CANCEL, Reason::INTERNAL_ERROR]
        .into_iter()
        .enumerate()
    {
        let mut client = H2::plain(proxy.address());
        let path = format!("/{number}");
        let request = client.request("POST", &path);
        let mut open = client.open(request, true);
        open.upload.send_data(Bytes::from_static(b"half"), false).unwrap();
        until("the app has half of it", || {
            let received = blue.received();
            received.len() > number && received[number].ends_with(b"4\r\nhalf\r\n")
        });
        open.upload.send_reset(reason);
        until("the app's connection is over", || blue.open() == 0);
        assert_eq!(logged(&proxy, &path)["status"], 499, "{reason:?}");
    }
    assert_eq!(blue.connections(), 3);
    for bytes in blue.received() {
        assert!(
            bytes.ends_with(b"4\r\nhalf\r\n"),
            "{:?}",
            String::from_utf8_lossy(&bytes)
        );
    }
}

#[test]
fn a_request_taken_back_is_cancelled_at_the_app() {
    let blue = Backend::script(|wire, _| {
        wire.request();
        wire.rest();
    });
    let proxy = logging(&blue, "");
    let mut client = H2::plain(proxy.address());
    let request = client.request("GET", "/back");
    let mut open = client.open(request, false);
    until("the app has it", || blue.open() == 1);
    open.upload.send_reset(Reason::CANCEL);
    until("the app was told", || blue.open() == 0);
    let line = logged(&proxy, "/back");
    assert_eq!(
        (&line["status"], &line["error"]),
        (&499.into(), &"client went away".into())
    );
    until("its claim is back", || {
        proxy.metric("cutover_requests_in_flight", &[]) == 0.0
    });
}

#[test]
fn malformed_requests_are_errors_of_their_stream_and_reach_nobody() {
    let blue = Backend::blue();
    let proxy = Proxy::before(&blue);
    let with = |extra: &[(&'static str, &'static str)]| {
        let mut fields = get("/evil");
        fields.extend(extra);
        fields
    };
    let without = |name: &str| {
        get("/evil")
            .into_iter()
            .filter(|(field, _)| *field != name)
            .collect::<Vec<_>>()
    };
    let mut late = get("/evil");
    late.insert(0, ("x-first", "1"));
    let protocol_errors = [
        with(&[("connection", "close")]),
        with(&[("transfer-encoding", "chunked")]),
        with(&[("upgrade", "h2c")]),
        with(&[("keep-alive", "x")]),
        with(&[("proxy-connection", "x")]),
        with(&[("te", "gzip")]),
        with(&[(":path", "/twice")]),
        with(&[(":unknown", "x")]),
        with(&[(":status", "200")]),
        with(&[("X-Upper", "1")]),
        with(&[("content-length", "5")]),
        with(&[("content-length", "0"), ("content-length", "1")]),
        with(&[("content-length", "-1")]),
        with(&[(":protocol", "websocket")]),
        without(":method"),
        without(":scheme"),
        without(":path"),
        late,
        vec![
            (":method", "GET"),
            (":scheme", "http"),
            (":path", ""),
            (":authority", "a"),
        ],
        vec![
            (":method", "GET"),
            (":scheme", "http"),
            (":path", "/a b"),
            (":authority", "a"),
        ],
        vec![
            (":method", "G T"),
            (":scheme", "http"),
            (":path", "/"),
            (":authority", "a"),
        ],
        vec![
            (":method", "GET"),
            (":scheme", "http"),
            (":path", "/"),
            (":authority", "a b"),
        ],
        vec![
            (":method", "CONNECT"),
            (":scheme", "http"),
            (":path", "/"),
            (":authority", "a:1"),
        ],
        with(&[("x-crlf", "a\r\nevil: 1")]),
        with(&[("x-nul", "a\0b")]),
        with(&[("x\r\nevil", "1")]),
        with(&[("x space", "1")]),
        with(&[("x:colon", "1")]),
        with(&[("", "1")]),
    ];
    for fields in protocol_errors {
        let mut raw = Raw::plain(proxy.address());
        raw.head(1, END_STREAM, &fields);
        let outcome = raw.outcome(1);
        // A stream error may be made one of the connection (RFC 9113 §5.4.1).
        assert!(
            matches!(outcome, Outcome::Reset(1) | Outcome::GoAway(1 | 9)),
            "{fields:?}: {outcome:?}"
        );
        if outcome == Outcome::Reset(1) {
            raw.head(3, END_STREAM, &get("/fine"));
            assert_eq!(raw.outcome(3), Outcome::Answered, "{fields:?}");
        }
    }
    // Well-formed for h2, and not for us: answered.
    let refused = [
        with(&[("host", "other.test")]),
        with(&[("host", "shop.test"), ("host", "other.test")]),
        without(":authority"),
        vec![(":method", "CONNECT"), (":authority", "evil.test:443")],
        vec![
            (":method", "GET"),
            (":scheme", "http"),
            (":path", "evil"),
            (":authority", "a"),
        ],
        vec![
            (":method", "GET"),
            (":scheme", "http"),
            (":path", "*"),
            (":authority", "a"),
        ],
        vec![
            (":method", "GET"),
            (":scheme", "http"),
            (":path", "/evil"),
            (":authority", "user@a"),
        ],
    ];
    for fields in refused {
        let mut raw = Raw::plain(proxy.address());
        raw.head(1, END_STREAM, &fields);
        let frame = raw
            .first_of(1)
            .unwrap_or_else(|| panic!("no answer to {fields:?}"));
        // 400 is in the static table (RFC 7541, appendix A).
        let is_400 = frame.kind == kind::HEADERS && frame.payload[0] == 0x8c;
        assert!(is_400 || frame.code() == 1, "{fields:?}: {frame:?}");
    }
    assert!(blue.requests().iter().all(|request| request.target() == "/fine"));
}

#[test]
fn a_body_that_belies_its_length_is_a_stream_error_and_no_request() {
    let blue = Backend::blue();
    let proxy = Proxy::before(&blue);
    for (length, data) in [("3", &b"four"[..]), ("5", b"four")] {
        let mut raw = Raw::plain(proxy.address());
        let mut fields = get("/");
        fields[0].1 = "POST";
        fields.push(("content-length", length));
        raw.head(1, 0, &fields).send(kind::DATA, END_STREAM, 1, data);
        assert_eq!(raw.outcome(1), Outcome::Reset(1), "{length}");
        raw.assert_alive();
    }
    until("the app's connections are over", || blue.open() == 0);
    for bytes in blue.received() {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        assert!(
            !text.ends_with("four") || text.contains("content-length: 5"),
            "{text}"
        );
    }
}

#[test]
fn a_request_keeps_the_color_it_chose_and_later_ones_get_the_new_one() {
    let (go, wait) = channel::<()>();
    let wait = Mutex::new(wait);
    let blue = Backend::script(move |wire, _| {
        while let Some(request) = wire.request() {
            if request.target() == "/slow" {
                wire.send("HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\nblue");
                wait.lock().unwrap().recv().unwrap();
                wire.send("blue");
            } else {
                wire.send(ok("blue"));
            }
        }
    });
    let green = Backend::green();
    let proxy = Proxy::of(&blue, &green);
    let mut client = H2::plain(proxy.address());
    let request = client.request("GET", "/slow");
    let open = client.open(request, false);
    let mut body = client.wait(open.answer).unwrap().into_body();
    assert_eq!(client.wait(next(&mut body)).unwrap().unwrap(), "blue");
    for (color, times) in [("green", 5), ("blue", 5), ("green", 5)] {
        proxy.switch(color);
        for _ in 0..times {
            assert_eq!(client.get("/").text(), color, "over the same connection");
        }
    }
    assert!(
        proxy.metric("cutover_requests_in_flight", &["color=\"blue\""]) >= 1.0,
        "the claim lasts"
    );
    go.send(()).unwrap();
    assert_eq!(client.wait(next(&mut body)).unwrap().unwrap(), "blue");
    assert_eq!(client.wait(next(&mut body)), Ok(None));
    until("the claim is back", || {
        proxy.metric("cutover_requests_in_flight", &["color=\"blue\""]) == 0.0
    });
    assert!(client.is_open(), "a switch closes no connection");
}

#[test]
fn a_client_that_does_not_read_stops_the_app() {
    let sent = Arc::new(AtomicU64::new(0));
    let of_app = Arc::clone(&sent);
    let blue = Backend::script(move |wire, _| {
        if wire.request().is_none() {
            return;
        }
        wire.send("HTTP/1.1 200 OK\r\ncontent-length: 400000000\r\n\r\n");
        let block = vec![b'x'; 64 * 1024];
        while wire.try_send(&block).is_ok() {
            of_app.fetch_add(block.len() as u64, SeqCst);
        }
    });
    let proxy = Proxy::before(&blue);
    let mut builder = h2::client::Builder::new();
    builder.initial_window_size(1 << 20);
    let mut client = H2::tuned(proxy.address(), &builder);
    let request = client.request("GET", "/");
    let open = client.open(request, false);
    let _unread = client.wait(open.answer).unwrap();
    // It has stopped once nothing moves for a while; what the kernel holds of it is up to some MiB.
    let mut before = u64::MAX;
    until("the app is stopped", || {
        std::thread::sleep(Duration::from_millis(300));
        std::mem::replace(&mut before, sent.load(SeqCst)) == sent.load(SeqCst)
    });
    assert!(sent.load(SeqCst) < 20 << 20, "{} bytes", sent.load(SeqCst));
}

#[test]
fn uploads_and_downloads_are_whole_at_any_size() {
    let blue = Backend::handler(|request: &Message| ok(&request.text()));
    let proxy = Proxy::before(&blue);
    let mut client = H2::plain(proxy.address());
    for size in [0, 1, 16_384, 65_535, 65_536, 3_000_000] {
        let body: Bytes = (0..size)
            .map(|at| b'a' + u8::try_from(at % 23).unwrap())
            .collect::<Vec<_>>()
            .into();
        let request = client.request("POST", "/");
        let mut open = client.open(request, true);
        let whole = body.clone();
        let answer: Answer = client.wait(async move {
            open.upload.send_data(whole, true).unwrap();
            read(open.answer).await.unwrap()
        });
        assert_eq!(answer.body, body, "{size}");
    }
}

#[test]
fn more_streams_than_allowed_are_refused_and_may_come_again() {
    let (go, wait) = channel::<()>();
    let wait = Mutex::new(wait);
    let blue = Backend::script(move |wire, _| {
        if wire.request().is_some() {
            wait.lock().unwrap().recv().unwrap();
            wire.send(ok("blue"));
        }
    });
    let proxy = Setup::new()
        .toml("[limits]\nh2_streams = 4")
        .blue(&blue, "")
        .start();
    let mut raw = Raw::plain(proxy.address());
    for stream in [1, 3, 5, 7, 9] {
        raw.head(stream, END_STREAM, &get("/"));
    }
    assert_eq!(raw.outcome(9), Outcome::Reset(7), "REFUSED_STREAM");
    until("the others are at the app", || blue.open() == 4);
    (0..5).for_each(|_| go.send(()).unwrap());
    until("they are answered", || {
        proxy.metric("cutover_requests_in_flight", &[]) == 0.0
    });
    raw.assert_alive();
    raw.head(11, END_STREAM, &get("/"));
    assert_eq!(raw.outcome(11), Outcome::Answered);
    assert_eq!(blue.requests().len(), 5);
}

#[test]
fn h2c_by_upgrade_stays_refused() {
    let blue = Backend::blue();
    let proxy = Proxy::before(&blue);
    let answer = proxy.client().ask(
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n",
    );
    assert_eq!((answer.status(), answer.text().as_str()), (200, "blue"));
    let request = blue.request();
    assert_eq!(
        (request.field("upgrade"), request.field("http2-settings")),
        (None, None)
    );
}
