//! What a client may cost: sizes, counts, and time.

use std::time::{Duration, Instant};

use crate::harness::{Backend, Proxy, Setup, until};

fn limited(blue: &Backend, limits: &str) -> Proxy {
    Setup::new()
        .toml(&format!("[limits]\n{limits}"))
        .blue(blue, "")
        .start()
}

/// Times that are long enough for everything else in a test and short enough to wait for.
const SHORT: Duration = Duration::from_millis(300);

#[test]
fn a_head_too_large_is_431() {
    let blue = Backend::blue();
    let proxy = limited(&blue, "header_bytes = \"16KiB\"");
    let head = |size: usize| format!("GET / HTTP/1.1\r\nHost: a\r\nX-Big: {}\r\n\r\n", "x".repeat(size));
    assert_eq!(proxy.client().ask(head(12 * 1024)).text(), "blue");
    for size in [17 * 1024, 256 * 1024, 4 * 1024 * 1024] {
        let mut client = proxy.client();
        let answer = client.ask(head(size));
        assert_eq!(answer.status(), 431, "{size}");
        let after = client.rest();
        assert!(!after.starts_with(b"HTTP"), "a second answer: {after:?}");
    }
    assert_eq!(blue.requests().len(), 1);
    assert!(proxy.metric("cutover_requests_total", &["code=\"431\""]) >= 3.0);
}

#[test]
fn a_head_without_end_is_431() {
    let blue = Backend::blue();
    let proxy = limited(&blue, "header_bytes = \"16KiB\"");
    let mut client = proxy.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n");
    let line = format!("X-A: {}\r\n", "x".repeat(1000));
    while client.try_send(line.as_bytes()).is_ok() {}
    drop(client);
    assert_eq!(proxy.says(), "blue");
}

#[test]
fn too_many_fields_are_431() {
    let blue = Backend::blue();
    for (limits, fine, bad) in [
        ("", 90, 200),
        ("header_count = 20", 15, 25),
        ("header_count = 300", 290, 350),
    ] {
        let proxy = limited(&blue, limits);
        let head = |count: usize| {
            let lines: String = (0..count).map(|n| format!("X-{n}: {n}\r\n")).collect();
            format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n")
        };
        assert_eq!(proxy.client().ask(head(fine)).text(), "blue", "{limits}");
        assert_eq!(proxy.client().ask(head(bad)).status(), 431, "{limits}");
    }
}

#[test]
fn a_target_too_long_is_414() {
    let blue = Backend::blue();
    let proxy = limited(&blue, "uri_bytes = \"1KiB\"");
    let get = |size: usize| format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(size));
    assert_eq!(proxy.client().ask(get(1000)).text(), "blue");
    for size in [1025, 8 * 1024, 60 * 1024] {
        let mut client = proxy.client();
        assert_eq!(client.ask(get(size)).status(), 414, "{size}");
        client.assert_closed();
    }
    // Longer than a whole head may be, or than a target can be.
    for size in [70 * 1024, 4 * 1024 * 1024] {
        let status = proxy.client().ask(get(size)).status();
        assert!([414, 431].contains(&status), "{status}");
    }
    assert_eq!(blue.requests().len(), 1);
}

#[test]
fn a_body_announced_too_large_is_413() {
    let blue = Backend::blue();
    let proxy = limited(&blue, "body_bytes = \"1KiB\"");
    let mut client = proxy.client();
    assert_eq!(client.post("/", &"x".repeat(1024)).text(), "blue");
    let answer = client.post("/", &"x".repeat(1025));
    assert_eq!(
        (answer.status(), answer.field("connection")),
        (413, Some("close"))
    );
    client.assert_closed();
    assert_eq!(blue.requests().len(), 1, "the app heard of it");
}

#[test]
fn a_body_that_grows_too_large_is_413() {
    let blue = Backend::script(|wire, _| {
        while wire.request().is_some() {
            wire.send(crate::harness::ok("blue"));
        }
    });
    let proxy = limited(&blue, "body_bytes = \"1KiB\"");
    let chunked = |sizes: &[usize]| {
        let chunks: String = sizes
            .iter()
            .map(|size| format!("{size:x}\r\n{}\r\n", "x".repeat(*size)))
            .collect();
        format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}0\r\n\r\n")
    };
    assert_eq!(proxy.client().ask(chunked(&[512, 512])).text(), "blue");
    for sizes in [&[1025][..], &[512, 512, 1], &[600; 100]] {
        let mut client = proxy.client();
        let answer = client.ask(chunked(sizes));
        assert_eq!(
            (answer.status(), answer.field("connection")),
            (413, Some("close")),
            "{sizes:?}"
        );
        client.assert_closed();
    }
    // What the app got of the others did not look whole.
    until("the app was let go", || blue.open() <= 1);
    let whole = blue
        .received()
        .iter()
        .flat_map(|bytes| crate::harness::requests_in(bytes).0)
        .count();
    assert_eq!(whole, 1);
}

#[test]
fn a_head_begun_and_not_finished_is_408() {
    let blue = Backend::blue();
    let proxy = limited(&blue, "client_header_timeout = \"300ms\"");
    for half in [
        "G",
        "GET / HTTP/1.1\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX-",
        "\r\n",
    ] {
        let mut client = proxy.client();
        let begun = Instant::now();
        client.send(half);
        let answer = client.answer();
        assert_eq!(
            (answer.status(), answer.field("connection")),
            (408, Some("close")),
            "{half:?}"
        );
        client.assert_closed();
        assert!(
            begun.elapsed() >= SHORT - Duration::from_millis(50),
            "{:?}",
            begun.elapsed()
        );
    }
    // The same in a later head of a kept connection.
    let mut client = proxy.client();
    assert_eq!(client.get("/").text(), "blue");
    client.send("GET /half HTTP/1.1\r\n");
    assert_eq!(client.answer().status(), 408);
    client.assert_closed();
    assert!(proxy.metric("cutover_requests_total", &["code=\"408\""]) >= 5.0);
}

#[test]
fn a_client_that_drips_its_head_gets_no_more_time() {
    let blue = Backend::blue();
    let proxy = limited(&blue, "client_header_timeout = \"300ms\"");
    let mut client = proxy.client();
    let begun = Instant::now();
    for byte in b"GET / HTTP/1.1\r\nHost: a\r\nX-Slow: ".iter().cycle() {
        if client.try_send(&[*byte]).is_err() || begun.elapsed() > Duration::from_secs(10) {
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(begun.elapsed() < Duration::from_secs(10), "it was never ended");
    assert_eq!(blue.requests(), []);
}

#[test]
fn a_client_that_says_nothing_is_closed_without_a_word() {
    let blue = Backend::blue();
    let proxy = limited(&blue, "client_header_timeout = \"300ms\"");
    let begun = Instant::now();
    proxy.client().assert_closed();
    assert!(begun.elapsed() >= SHORT - Duration::from_millis(50));
}

#[test]
fn an_idle_client_is_closed_without_a_word() {
    let blue = Backend::blue();
    let proxy = limited(&blue, "client_idle_timeout = \"300ms\"");
    let mut client = proxy.client();
    assert_eq!(client.get("/").text(), "blue");
    let begun = Instant::now();
    client.assert_closed();
    assert!(begun.elapsed() >= SHORT - Duration::from_millis(50));
}

#[test]
fn the_idle_time_does_not_count_while_a_request_runs() {
    let blue = Backend::script(|wire, _| {
        while wire.request().is_some() {
            std::thread::sleep(SHORT * 2);
            wire.send(crate::harness::ok("blue"));
        }
    });
    let proxy = limited(
        &blue,
        "client_idle_timeout = \"300ms\"\nclient_header_timeout = \"300ms\"\nclient_body_timeout = \"300ms\"",
    );
    let mut client = proxy.client();
    assert_eq!(client.get("/").text(), "blue");
    assert_eq!(client.post("/", "body").text(), "blue");
}

#[test]
fn a_body_that_stops_coming_is_408() {
    let blue = Backend::script(|wire, _| {
        wire.request();
        wire.rest();
    });
    let proxy = limited(&blue, "client_body_timeout = \"300ms\"");
    for half in [
        "Content-Length: 100\r\n\r\nhalf",
        "Content-Length: 100\r\n\r\n",
        "Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
        "Transfer-Encoding: chunked\r\n\r\n4\r\nha",
    ] {
        let mut client = proxy.client();
        let begun = Instant::now();
        let answer = client.ask(format!("POST / HTTP/1.1\r\nHost: a\r\n{half}"));
        assert_eq!(
            (answer.status(), answer.field("connection")),
            (408, Some("close")),
            "{half:?}"
        );
        client.assert_closed();
        assert!(begun.elapsed() >= SHORT - Duration::from_millis(50));
    }
    until("the app was let go", || blue.open() == 0);
    for bytes in blue.received() {
        assert_eq!(crate::harness::requests_in(&bytes).0, []);
    }
}

#[test]
fn a_body_that_drips_is_fine() {
    let blue = Backend::handler(|request| crate::harness::ok(&request.text()));
    let proxy = limited(&blue, "client_body_timeout = \"1s\"");
    let mut client = proxy.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 15\r\n\r\n");
    for byte in b"drip drip drip." {
        std::thread::sleep(Duration::from_millis(100));
        client.send([*byte]);
    }
    assert_eq!(client.answer().text(), "drip drip drip.");
}

#[test]
fn a_client_that_takes_nothing_is_let_go() {
    let blue = Backend::script(|wire, _| {
        wire.request();
        wire.send("HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n");
        let block = vec![b'x'; 64 * 1024];
        while wire.try_send(&block).is_ok() {}
    });
    let proxy = limited(&blue, "client_idle_timeout = \"500ms\"");
    let mut client = proxy.client().small_window();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    client.head();
    until("the app is told", || blue.connections() == 1 && blue.open() == 0);
    until("nothing is in flight", || {
        proxy.metric("cutover_requests_in_flight", &[]) == 0.0
    });
}

#[test]
fn connections_over_the_limit_wait_for_a_place() {
    let blue = Backend::blue();
    let proxy = limited(&blue, "connections = 2");
    let (mut one, mut two) = (proxy.client(), proxy.client());
    assert_eq!(
        (one.get("/").text(), two.get("/").text()),
        ("blue".to_owned(), "blue".to_owned())
    );
    let mut three = proxy.client();
    three.send("GET /three HTTP/1.1\r\nHost: a\r\n\r\n");
    three.assert_silent(Duration::from_millis(200));
    drop(one);
    assert_eq!(three.answer().text(), "blue");
    assert_eq!(two.get("/").text(), "blue");
}

#[test]
fn other_protocols_do_no_harm() {
    let blue = Backend::blue();
    let proxy = limited(&blue, "client_header_timeout = \"300ms\"");
    for noise in [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03aaaaaaaaaaaaaaaaaaaaaaaaaaaa"[..],
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c\x7f\x00\x00\x01\x7f\x00\x00\x01\x00\x50\x00\x51GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r",
        b"\0\0\0\0\0\0\0\0\xff\xff\xff\xff",
        b"GET /\r\n\r\n",
        b"GET / HTTP/9.9\r\nHost: a\r\n\r\n",
    ] {
        let mut client = proxy.client();
        client.send(noise);
        let answer = String::from_utf8_lossy(&client.rest()).into_owned();
        let refused = ["400", "408", "505"].map(|code| format!("HTTP/1.1 {code} "));
        assert!(
            answer.is_empty() || refused.iter().any(|start| answer.starts_with(start)),
            "{:?} got {answer:?}",
            String::from_utf8_lossy(noise)
        );
    }
    assert_eq!(blue.requests(), []);
    assert_eq!(proxy.says(), "blue");
}
