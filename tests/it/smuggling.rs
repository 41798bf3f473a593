//! One request where one was meant, where that takes more than bytes sent at once: see [`crate::corpus`] for those.

use crate::harness::{Backend, Proxy, Setup, ok};

/// What each attack tries to get through.
const HIDDEN: &str = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";

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
    // Whatever the app says, unless it is 101: what stands behind is a request like any other.
    for status in [
        "200 OK",
        "400 Bad Request",
        "403 Forbidden",
        "426 Upgrade Required",
        "500 Oops",
    ] {
        let blue = Backend::handler(move |_| {
            format!("HTTP/1.1 {status}\r\nUpgrade: websocket\r\nContent-Length: 10\r\n\r\nno upgrade")
                .into_bytes()
        });
        let proxy = Proxy::before(&blue);
        let mut client = proxy.client();
        client.send(format!(
            "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n{HIDDEN}"
        ));
        assert_eq!(client.answer().text(), "no upgrade");
        assert_eq!(client.answer().text(), "no upgrade");
        let requests = blue.requests();
        let upgrades: Vec<_> = requests.iter().map(|request| request.field("upgrade")).collect();
        assert_eq!(upgrades, [Some("websocket"), None], "{status}");
        for request in &requests {
            assert_eq!(request.field("x-forwarded-for"), Some("127.0.0.1"));
        }
    }
}
