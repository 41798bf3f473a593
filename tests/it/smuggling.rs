//! One request where one was meant: whatever the framing says, the app never sees two.

use crate::harness::{Backend, Proxy, Setup, Wire, ok, requests_in};

/// What each attack tries to get through.
const HIDDEN: &str = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";

/// Send an attack on a connection of its own and look at all that follows.
///
/// The client gets answers, at most `most` of them; the app got no request for `/smuggled`, and what it got is
/// clean HTTP to the strictest reader.
#[track_caller]
fn attack(proxy: &Proxy, blue: &Backend, bytes: &[u8], most: usize) -> Vec<u16> {
    let name = String::from_utf8_lossy(bytes).into_owned();
    let mut client = proxy.client();
    client.send(bytes).finish();
    let answers = answers_in(&client.rest());
    assert!(
        answers.len() <= most,
        "{} answers {answers:?} to {name:?}",
        answers.len()
    );
    for received in blue.received() {
        let (requests, left) = requests_in(&received);
        for request in &requests {
            assert_ne!(request.target(), "/smuggled", "through {name:?}");
            let framings = request.all("content-length").len() + request.all("transfer-encoding").len();
            assert!(framings <= 1, "{request:?} of {name:?}");
        }
        // A body cut short by its client is cut for the app too; a head is whole or not there.
        let left = String::from_utf8_lossy(&left).into_owned();
        assert!(
            left.is_empty() || left.starts_with("POST ") || left.starts_with("GET "),
            "{left:?} of {name:?}"
        );
        assert!(!left.starts_with("GET /smuggled"), "through {name:?}");
    }
    // Nobody else gets an answer that is not theirs.
    assert_eq!(proxy.fetch("/mine").text(), "/mine", "after {name:?}");
    answers
}

/// Statuses of the answers on a connection.
fn answers_in(bytes: &[u8]) -> Vec<u16> {
    let text = String::from_utf8_lossy(bytes).into_owned();
    let starts = text.match_indices("HTTP/1.1 ").map(|(at, _)| at);
    starts
        .filter_map(|at| text.get(at + 9..at + 12)?.parse().ok())
        .filter(|status| *status >= 200)
        .collect()
}

fn echo() -> Backend {
    Backend::handler(|request| ok(request.target()))
}

fn refused(answers: &[u16]) -> bool {
    matches!(answers, [] | [400 | 405 | 411 | 413 | 414 | 431 | 501 | 505])
}

#[test]
fn content_length_with_transfer_encoding() {
    let blue = echo();
    let proxy = Proxy::before(&blue);
    for attack_bytes in [
        format!(
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{HIDDEN}"
        ),
        format!(
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n{HIDDEN}"
        ),
        format!(
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{HIDDEN}",
            HIDDEN.len() + 5
        ),
        format!(
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{HIDDEN}\r\n0\r\n\r\n",
            HIDDEN.len()
        ),
    ] {
        // Refused, or chunked alone counts and the connection ends (RFC 9112 §6.1): what follows is not served.
        attack(&proxy, &blue, attack_bytes.as_bytes(), 1);
    }
}

#[test]
fn odd_transfer_encodings() {
    let blue = echo();
    let proxy = Proxy::before(&blue);
    let body = format!("{:x}\r\n{HIDDEN}\r\n0\r\n\r\n", HIDDEN.len());
    for odd in [
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding: chunkedx",
        "Transfer-Encoding: chunked, identity",
        "Transfer-Encoding: identity",
        "Transfer-Encoding: identity, chunked",
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: chunked, chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
        "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: gzip",
        "Transfer-Encoding:",
        "Transfer-Encoding: ,",
        "Transfer-Encoding: chunked,",
        "Transfer-Encoding: ,chunked",
        "Transfer-Encoding: \"chunked\"",
        "Transfer-Encoding: 'chunked'",
        "Transfer-Encoding: chunked;q=1",
        "Transfer-Encoding: chun ked",
        "Transfer-Encoding: CHUNKED",
        "Transfer-Encoding:\tchunked",
        "Transfer-Encoding:  chunked  ",
        "Transfer-Encoding : chunked",
        " Transfer-Encoding: chunked",
        "Transfer-Encoding\t: chunked",
        "Transfer-Encoding: chunked\0",
        "Transfer-Encoding: \x0bchunked",
        "Transfer-Encoding: \x0cchunked",
        "Transfer-Encoding: chunked\x7f",
        "Transfer-Encoding: \u{a0}chunked",
        "Transfer-Encoding:\r\n chunked",
        "Transfer-Encoding: chunked\r\n x",
        "Transfer-Encoding\r\n : chunked",
        "X: y\nTransfer-Encoding: chunked",
        "X: y\rTransfer-Encoding: chunked",
        "Transfer-Encoding: x\nchunked",
        "Transfer-Encoding;: chunked",
        "Transfer-Encoding=: chunked",
        "\0Transfer-Encoding: chunked",
        "Content-Encoding: x\r\nTransfer-Encoding: chunked, x",
        "TRANSFER-ENCODING: chunked",
    ] {
        for length in ["", "Content-Length: 4\r\n"] {
            let bytes: Vec<u8> = format!("POST / HTTP/1.1\r\nHost: a\r\n{length}{odd}\r\n\r\n{body}")
                .chars()
                .flat_map(|c| u8::try_from(c).map_or_else(|_| c.to_string().into_bytes(), |byte| vec![byte]))
                .collect();
            // Three readings are honest: refused; the body as chunked; or, where the odd field is none at all, a
            // body of 4 or 0 bytes and the rest a bad request.
            let answers = attack(&proxy, &blue, &bytes, 2);
            assert!(
                refused(&answers) || answers == [200] || answers == [200, 400],
                "{answers:?} to {odd:?} {length:?}"
            );
        }
    }
}

#[test]
fn odd_content_lengths() {
    let blue = echo();
    let proxy = Proxy::before(&blue);
    for odd in [
        "Content-Length: 4\r\nContent-Length: 5",
        "Content-Length: 5\r\nContent-Length: 4",
        "Content-Length: 0\r\nContent-Length: 38",
        "Content-Length: 4, 5",
        "Content-Length: +4",
        "Content-Length: -4",
        "Content-Length: 0x4",
        "Content-Length: 4.0",
        "Content-Length: 4e0",
        "Content-Length: 4 4",
        "Content-Length: 4\0",
        "Content-Length: 4;",
        "Content-Length: \"4\"",
        "Content-Length: 18446744073709551620",
        "Content-Length: 99999999999999999999999999",
        "Content-Length: 4\r\n 0",
        "Content-Length:\r\n 4",
        "Content-Length : 4",
        "Content-Length\t: 4",
        " Content-Length: 4",
        "Content-Length: \u{661}",
        "Content-Length: four",
        "Content-Length:",
        "Content-Length: ,",
    ] {
        let bytes = format!("POST / HTTP/1.1\r\nHost: a\r\n{odd}\r\n\r\nbody{HIDDEN}");
        let mut client = proxy.client();
        client.send(bytes.as_bytes()).finish();
        let answers = answers_in(&client.rest());
        assert!(refused(&answers), "{answers:?} to {odd:?}");
    }
    assert_eq!(blue.requests(), []);
    // The same value twice may be taken, as one.
    for same in [
        "Content-Length: 4\r\nContent-Length: 4",
        "Content-Length: 4, 4",
        "Content-Length: 04",
    ] {
        let bytes = format!("POST / HTTP/1.1\r\nHost: a\r\n{same}\r\n\r\nbody");
        let answers = attack(&proxy, &blue, bytes.as_bytes(), 1);
        assert!(refused(&answers) || answers == [200], "{answers:?} to {same:?}");
    }
}

#[test]
fn a_body_on_a_request_that_needs_none_stays_a_body() {
    let blue = echo();
    let proxy = Proxy::before(&blue);
    for method in ["GET", "HEAD", "OPTIONS", "DELETE", "TRACE"] {
        let bytes = format!(
            "{method} / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{HIDDEN}",
            HIDDEN.len()
        );
        attack(&proxy, &blue, bytes.as_bytes(), 1);
        let chunked = format!(
            "{method} / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{HIDDEN}\r\n0\r\n\r\n",
            HIDDEN.len()
        );
        attack(&proxy, &blue, chunked.as_bytes(), 1);
    }
}

#[test]
fn odd_chunks() {
    let blue = echo();
    let proxy = Proxy::before(&blue);
    for odd in [
        "0x4\r\nbody\r\n0\r\n\r\n",
        "+4\r\nbody\r\n0\r\n\r\n",
        "-4\r\nbody\r\n0\r\n\r\n",
        "4_\r\nbody\r\n0\r\n\r\n",
        " 4\r\nbody\r\n0\r\n\r\n",
        "4 4\r\nbody\r\n0\r\n\r\n",
        "\r\n4\r\nbody\r\n0\r\n\r\n",
        ";\r\nbody\r\n0\r\n\r\n",
        "zz\r\nbody\r\n0\r\n\r\n",
        "10000000000000004\r\nbody\r\n0\r\n\r\n",
        "ffffffffffffffff\r\nbody\r\n0\r\n\r\n",
        "4\nbody\r\n0\r\n\r\n",
        "4\rbody\r\n0\r\n\r\n",
        "4\r\nbody\n0\r\n\r\n",
        "4\r\nbody0\r\n\r\n",
        "4\r\nbodyXX0\r\n\r\n",
        "4;a\nb\r\nbody\r\n0\r\n\r\n",
        "4;a\rb\r\nbody\r\n0\r\n\r\n",
        "4\r\nbody\r\n0\n\n",
        "4\r\nbody\r\n0\r\nno colon\r\n\r\n",
    ] {
        let bytes = format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{odd}{HIDDEN}");
        attack(&proxy, &blue, bytes.as_bytes(), 1);
    }
    // An extension is never passed on, so what is odd in it is cleaned, and the next request is one.
    let cleaned = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4;\0\r\nbody\r\n0\r\n\r\n";
    attack(&proxy, &blue, cleaned.as_bytes(), 1);
    let valid = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\
                 4;a=b;c=\"d;e\"\r\nbody\r\n000\r\n\r\n";
    assert_eq!(proxy.client().ask(valid).text(), "/");
}

#[test]
fn chunk_extensions_and_trailers_are_bounded() {
    let blue = echo();
    let proxy = Proxy::before(&blue);
    let flood = |part: String| {
        let mut client = proxy.client();
        client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
        for _ in 0..200 {
            if client.try_send(part.as_bytes()).is_err() {
                break;
            }
        }
        client.finish();
        let answers = answers_in(&client.rest());
        assert!(refused(&answers) || answers == [502], "{answers:?}");
    };
    flood(format!("4;{}\r\nbody\r\n", "x".repeat(64 * 1024)));
    flood(format!("0\r\n{}", "x: y\r\n".repeat(20_000)));
}

#[test]
fn odd_lines_in_the_head() {
    let blue = echo();
    let proxy = Proxy::before(&blue);
    for odd in [
        "X-A : 1",
        "X-A\t: 1",
        "X A: 1",
        ": 1",
        "no colon",
        "X-\0A: 1",
        "X-A: a\0b",
        "X-A: a\rb",
        "X-\u{e9}: 1",
        "X-A(: 1",
        "X-A: 1\r\n folded",
        "X-A: 1\r\n\tfolded",
        " X-A: 1",
        "X-A: a\x08b",
    ] {
        let bytes: Vec<u8> = format!("GET / HTTP/1.1\r\nHost: a\r\n{odd}\r\nX-B: 2\r\n\r\n")
            .chars()
            .map(|c| u8::try_from(c).unwrap())
            .collect();
        let answers = attack(&proxy, &blue, &bytes, 1);
        assert!(refused(&answers), "{answers:?} to {odd:?}");
    }
}

#[test]
fn bare_line_feeds_do_not_reach_the_app() {
    let blue = echo();
    let proxy = Proxy::before(&blue);
    for bytes in [
        format!("GET / HTTP/1.1\nHost: a\n\n{HIDDEN}"),
        "GET / HTTP/1.1\r\nHost: a\nX-A: 1\r\n\r\n".to_owned(),
        "GET / HTTP/1.1\r\nHost: a\r\nX-A: 1\n\r\n".to_owned(),
        "GET / HTTP/1.1\r\nHost: a\r\nX-A: 1\r\n\n".to_owned(),
        "\nGET / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
    ] {
        // A recipient may take a lone LF for a line's end (RFC 9112 §2.2); what goes on has CRLF.
        let mut client = proxy.client();
        client.send(bytes.as_bytes()).finish();
        client.rest();
    }
    for received in blue.received() {
        let text = String::from_utf8_lossy(&received).into_owned();
        assert!(!text.replace("\r\n", "").contains(['\r', '\n']), "{text:?}");
        let (_, left) = requests_in(&received);
        assert_eq!(left, b"");
    }
}

#[test]
fn odd_request_lines() {
    let blue = echo();
    let proxy = Proxy::before(&blue);
    for odd in [
        "GET  / HTTP/1.1",
        "GET /  HTTP/1.1",
        "GET\t/\tHTTP/1.1",
        " GET / HTTP/1.1",
        "GET /a b HTTP/1.1",
        "GET /a\tb HTTP/1.1",
        "GET /a\0b HTTP/1.1",
        "GET /a\x7fb HTTP/1.1",
        "GET / HTTP/1.1 ",
        "GET / HTTP/1.2",
        "GET / HTTP/2.0",
        "GET / HTTP/0.9",
        "GET / http/1.1",
        "GET / HTTP/1,1",
        "GET / HTTP/11.1",
        "GET /",
        "GET",
        "G\0T / HTTP/1.1",
        "GET/ / HTTP/1.1",
        "GE(T / HTTP/1.1",
        "GET a HTTP/1.1",
        "GET * HTTP/1.1",
        "GET a:80 HTTP/1.1",
        "GET //user@a/ HTTP/1.1",
        "GET /#fragment HTTP/1.1",
        "GET http:// HTTP/1.1",
        "GET http:///path HTTP/1.1",
        "CONNECT a:80 HTTP/1.1",
    ] {
        let answers = attack(&proxy, &blue, format!("{odd}\r\nHost: a\r\n\r\n").as_bytes(), 1);
        assert!(
            refused(&answers) || answers == [200] || answers == [404],
            "{answers:?} to {odd:?}"
        );
    }
    for request in blue.requests() {
        assert!(
            request.start.ends_with(" HTTP/1.1") && request.start.split(' ').count() == 3,
            "{request:?}"
        );
    }
}

#[test]
fn nothing_after_a_bad_request_is_served() {
    let blue = echo();
    let proxy = Proxy::before(&blue);
    let bytes = format!("GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /bad HTTP/1.1\r\nHost : a\r\n\r\n{HIDDEN}");
    let answers = attack(&proxy, &blue, bytes.as_bytes(), 2);
    assert_eq!(answers, [200, 400]);
    let bytes = format!("GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /bad HTTP/1.1\r\n\r\n{HIDDEN}");
    let answers = attack(&proxy, &blue, bytes.as_bytes(), 2);
    assert_eq!(
        answers,
        [200, 400],
        "no Host: the proxy's own 400 ends the connection as well"
    );
}

#[test]
fn http10_with_transfer_encoding() {
    let blue = echo();
    let proxy = Proxy::before(&blue);
    for lines in [
        "Transfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nConnection: keep-alive",
        "Transfer-Encoding: identity",
        "Content-Length: 4\r\nTransfer-Encoding: chunked\r\nConnection: keep-alive",
    ] {
        let bytes = format!("POST / HTTP/1.0\r\nHost: a\r\n{lines}\r\n\r\n0\r\n\r\n{HIDDEN}");
        attack(&proxy, &blue, bytes.as_bytes(), 1);
    }
    // A request has no body that ends with its connection.
    let mut client = proxy.client();
    client
        .send("POST /plain HTTP/1.0\r\nHost: a\r\n\r\nbody")
        .finish();
    client.rest();
    let plain: Vec<_> = blue
        .requests()
        .into_iter()
        .filter(|request| request.target() == "/plain")
        .collect();
    assert!(plain.iter().all(|request| request.text().is_empty()), "{plain:?}");
}

#[test]
fn an_own_answer_never_turns_a_body_into_a_request() {
    let blue = echo();
    let proxy = Setup::new()
        .toml(&format!(
            "[app.web]\ninitial = \"blue\"\nhosts = [\"shop.test\"]\nblue = [\"{}\"]\n\
             [app.down]\ninitial = \"blue\"\nhosts = [\"down.test\"]\nblue = []\ngreen = [\"{}\"]",
            blue.address(),
            blue.address()
        ))
        .start_unready();
    crate::harness::until("it serves", || proxy.says() == "/");
    // No endpoint (503), no app (404), no Host (400), in maintenance later: always with a body that is a request.
    let inner = "GET /smuggled HTTP/1.1\r\nHost: shop.test\r\n\r\n";
    for (host, padding) in [
        ("Host: down.test", 0),
        ("Host: nowhere.test", 0),
        ("X-No: host", 0),
        ("Host: nowhere.test", 300_000),
        ("Host: down.test", 300_000),
    ] {
        let mut body = "x".repeat(padding);
        body += inner;
        let sized = format!(
            "POST / HTTP/1.1\r\n{host}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let chunked = format!(
            "POST / HTTP/1.1\r\n{host}\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n",
            body.len()
        );
        for bytes in [sized, chunked] {
            // At once, and with the body behind the answer.
            let mut client = proxy.client();
            client.send(&bytes).finish();
            assert!(answers_in(&client.rest()).len() <= 1, "{host}");
            let (head, rest) = bytes.split_at(bytes.find("\r\n\r\n").unwrap() + 4);
            let mut client = proxy.client();
            let first = client.send(head).answer();
            assert!(first.status() >= 400);
            client.send(rest).finish();
            assert_eq!(answers_in(&client.rest()), [0_u16; 0], "{host}: a second answer");
        }
    }
    assert!(
        blue.requests()
            .iter()
            .all(|request| request.target() != "/smuggled")
    );
}

#[test]
fn an_app_that_is_down_never_turns_a_body_into_a_request() {
    let blue = echo();
    let proxy = Setup::new().blue(&blue, "health.interval = \"1h\"").start();
    let address = blue.address().parse().unwrap();
    blue.stop_and_wait();
    let head = format!(
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n",
        HIDDEN.len()
    );
    let mut client = proxy.client();
    assert_eq!(client.send(&head).answer().status(), 502);
    // The app comes back before the body does.
    let again = Backend::at(address, |wire, _| {
        while let Some(request) = wire.request() {
            wire.send(ok(request.target()));
        }
    });
    client.send(HIDDEN).finish();
    assert_eq!(answers_in(&client.rest()), [0_u16; 0]);
    assert_eq!(again.requests(), []);
}

#[test]
fn bytes_behind_an_upgrade_are_not_tunnelled() {
    let blue = Backend::script(|wire: &mut Wire, _| {
        while wire.request().is_some() {
            wire.send(ok("no upgrade"));
        }
    });
    let proxy = Proxy::before(&blue);
    let mut client = proxy.client();
    client.send(format!(
        "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n{HIDDEN}"
    ));
    // The second is an ordinary pipelined request, routed and prepared as such.
    assert_eq!(client.answer().text(), "no upgrade");
    assert_eq!(client.answer().text(), "no upgrade");
    let requests = blue.requests();
    let upgrades: Vec<_> = requests.iter().map(|request| request.field("upgrade")).collect();
    assert_eq!(upgrades, [Some("websocket"), None]);
    for request in &requests {
        assert_eq!(request.field("x-forwarded-for"), Some("127.0.0.1"));
    }
}
