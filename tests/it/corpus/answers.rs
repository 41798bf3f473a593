//! What apps answer: malformed, ambiguous, too much, too little. The client gets a 502, a clean answer, or one that
//! it can tell is cut; the next client gets its own.

use std::sync::Arc;
use std::sync::Mutex;

use super::{HIDDEN, alone, innocent, latin1, shown, text};
use crate::harness::{Backend, Broken, Wire, ok};

/// What may come of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Outcome {
    /// 502, and nothing of it reaches the client.
    Refused,
    /// This status and this body, framed well.
    Whole(u16, &'static str),
    /// The client has a head, and can tell that the body is not whole.
    Cut,
}
use Outcome::{Cut, Refused, Whole};

/// What the client of the case got.
fn outcome(client: &mut Wire, method: &str) -> Result<(Outcome, String), String> {
    match client.try_answer_to(method) {
        Ok(answer) => {
            let framed = answer.all("content-length").len() + answer.all("transfer-encoding").len() <= 1;
            let smuggled = answer
                .fields
                .iter()
                .any(|(name, _)| name.starts_with("x-smuggled"));
            if !framed || smuggled || answer.all("set-cookie").len() > 1 {
                return Err(format!("unclean: {answer:?}"));
            }
            let body = text(&answer.body);
            Ok(match answer.status() {
                502 if body.starts_with("502 ") => (Refused, body),
                // The text is compared by the caller.
                status => (Whole(status, ""), body),
            })
        }
        Err(Broken::Cut(_) | Broken::Closed) => Ok((Cut, String::new())),
        Err(broken) => Err(format!("{broken:?}")),
    }
}

/// How the app goes on behind its answer.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Then {
    Stays,
    Closes,
}
use Then::{Closes, Stays};

struct Case {
    method: &'static str,
    answer: String,
    then: Then,
    allowed: Vec<Outcome>,
}

fn case(answer: impl Into<String>, then: Then, allowed: &[Outcome]) -> Case {
    Case {
        method: "GET",
        answer: answer.into(),
        then,
        allowed: allowed.to_vec(),
    }
}

fn run(cases: Vec<Case>) {
    let current = Arc::<Mutex<(Vec<u8>, Option<Then>)>>::default();
    let of_app = Arc::clone(&current);
    let app = Backend::script(move |wire: &mut Wire, _| {
        while let Some(request) = wire.request() {
            if request.target() != "/case" {
                wire.send(ok(&shown(&request)));
                continue;
            }
            let (bytes, then) = of_app.lock().unwrap().clone();
            wire.send(bytes);
            if then == Some(Closes) {
                return;
            }
        }
    });
    let proxy = alone(&app);
    let mut wrong = Vec::new();
    for (at, case) in cases.iter().enumerate() {
        *current.lock().unwrap() = (latin1(&case.answer), Some(case.then));
        let mut client = proxy.client();
        client.send(format!("{} /case HTTP/1.1\r\nHost: a\r\n\r\n", case.method));
        let shown = |what: &str| {
            format!(
                "{what} for {:?}",
                case.answer.chars().take(200).collect::<String>()
            )
        };
        match outcome(&mut client, case.method) {
            Err(what) => wrong.push(shown(&what)),
            Ok((got, body)) => {
                let is = |wanted: &Outcome| match (wanted, &got) {
                    (Whole(status, text), Whole(came, _)) => status == came && *text == body,
                    (wanted, got) => wanted == got,
                };
                if !case.allowed.iter().any(is) {
                    wrong.push(shown(&format!("{got:?} {body:?}")));
                }
                // The same client goes on, if it may.
                let next = format!("GET /next/{at} HTTP/1.1\r\nHost: a\r\n\r\n");
                match client.send(next).try_answer() {
                    Ok(answer) if answer.text() != format!("GET /next/{at} ") => {
                        wrong.push(shown(&format!("the next request got {answer:?}")));
                    }
                    _ => {}
                }
            }
        }
        if let Err(what) = innocent(&proxy, at) {
            wrong.push(shown(&what));
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

const OK: &str = "HTTP/1.1 200 OK\r\n";

#[test]
fn status_lines() {
    let mut cases: Vec<_> = [
        "",
        "\0",
        "noise\r\n\r\n",
        "200 OK\r\n\r\n",
        "HTTP/1.1\r\n\r\n",
        "HTTP/1.1 \r\n\r\n",
        "HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 2x0 OK\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 -20 OK\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 000 OK\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 099 OK\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1  200 OK\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1\t200 OK\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200OK\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 O\0K\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 O\rK\r\nContent-Length: 0\r\n\r\n",
        "HTTP/2 200 OK\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.2 200 OK\r\nContent-Length: 0\r\n\r\n",
        "HTTP/11 200 OK\r\nContent-Length: 0\r\n\r\n",
        "http/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        "ICY 200 OK\r\nContent-Length: 0\r\n\r\n",
        " HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "\x15\x03\x01\0\x02\x02\x46",
        "\0\0\x12\x04\0\0\0\0\0\0\x03\0\0\0\x64\0\x04\0\x10\0\0\0\x06\0\0\x40\0",
        "HTTP/1.1 200 OK\r\nContent-Le",
        "HTTP/1.1 200 OK\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\nmore",
        "HTTP/1.1 100 Continue\r\n\r\n",
    ]
    .map(|answer| case(answer, Closes, &[Refused]))
    .into();
    for fine in [
        "HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 \r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 \u{e9}\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\nContent-Length: 0\n\n",
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 103 Early Hints\r\nX-Smuggled: 1\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    ] {
        cases.push(case(fine, Stays, &[Refused, Whole(200, "")]));
    }
    cases.push(case(
        "HTTP/1.1 999 Odd\r\nContent-Length: 0\r\n\r\n",
        Stays,
        &[Refused, Whole(999, "")],
    ));
    run(cases);
}

#[test]
fn lines_of_the_head() {
    let with = |line: &&str| format!("{OK}{line}\r\nContent-Length: 2\r\n\r\nhi");
    let mut cases: Vec<_> = [
        "X-A : 1",
        "X-A\t: 1",
        "X A: 1",
        ": 1",
        "no colon",
        "X-\0A: 1",
        "X-A: a\0b",
        "X-A: a\rX-Smuggled: 1",
        "X-A: a\r\n folded",
        "X-A: a\r\n\tfolded",
        " X-A: 1",
        "X-A: a\x08b",
        "X-\u{e9}: 1",
        "X-A(: 1",
        "HTTP/1.1 200 OK",
    ]
    .iter()
    .map(|line| case(with(line), Stays, &[Refused]))
    .collect();
    cases.push(case(with(&"X-A: \u{e9}"), Stays, &[Refused, Whole(200, "hi")]));
    cases.push(case(with(&"X-A: 1\nX-B: 2"), Stays, &[Refused, Whole(200, "hi")]));
    cases.push(case(
        with(&"Connection: Content-Length"),
        Stays,
        &[Refused, Whole(200, "hi")],
    ));
    cases.push(case(
        with(&"Connection: close, Transfer-Encoding"),
        Closes,
        &[Refused, Whole(200, "hi")],
    ));
    cases.push(case(
        with(&"Upgrade: h2c\r\nConnection: upgrade"),
        Stays,
        &[Refused, Whole(200, "hi")],
    ));
    cases.push(case(
        format!("{OK}{}\r\n\r\n", "X-A: 1\r\n".repeat(20_000)),
        Closes,
        &[Refused],
    ));
    cases.push(case(
        format!("{OK}X-A: {}\r\n\r\n", "a".repeat(1 << 21)),
        Closes,
        &[Refused],
    ));
    cases.push(case("\r\n".repeat(100_000), Closes, &[Refused]));
    cases.push(case(
        format!("HTTP/1.1 200 {}\r\n\r\n", "a".repeat(1 << 21)),
        Closes,
        &[Refused],
    ));
    run(cases);
}

#[test]
fn lengths() {
    let with = |fields: &str| format!("{OK}{fields}\r\n\r\nhi");
    let mut cases: Vec<_> = [
        "Content-Length: 2\r\nContent-Length: 3",
        "Content-Length: 3\r\nContent-Length: 2",
        "Content-Length: 2, 3",
        "Content-Length: +2",
        "Content-Length: -2",
        "Content-Length: 0x2",
        "Content-Length: 2.0",
        "Content-Length: 2 2",
        "Content-Length: two",
        "Content-Length:",
        "Content-Length: ,",
        "Content-Length: 18446744073709551618",
        "Content-Length: 99999999999999999999999",
        "Content-Length : 2",
        "Content-Length: 2\r\n 0",
        "Content-Length: 2\0",
        "Content-Length: \u{b2}",
    ]
    .map(|fields| case(with(fields), Closes, &[Refused]))
    .into();
    for same in [
        "Content-Length: 2\r\nContent-Length: 2",
        "Content-Length: 2, 2",
        "Content-Length: 02",
    ] {
        cases.push(case(with(same), Stays, &[Refused, Whole(200, "hi")]));
    }
    cases.push(case(with("Content-Length: 9"), Closes, &[Cut]));
    cases.push(case(
        with("Content-Length: 18446744073709551615"),
        Closes,
        &[Cut, Refused],
    ));
    // More than was announced is nobody's.
    cases.push(case(with("Content-Length: 1"), Stays, &[Whole(200, "h")]));
    cases.push(case(with("Content-Length: 0"), Stays, &[Whole(200, "")]));
    let second = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\nX-Smuggled: 1\r\n\r\npoison";
    for first in [
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
    ] {
        cases.push(case(format!("{first}{second}"), Stays, &[Whole(200, "hi")]));
        cases.push(case(format!("{first}\r\n\r\n"), Stays, &[Whole(200, "hi")]));
        cases.push(case(format!("{first}{HIDDEN}"), Stays, &[Whole(200, "hi")]));
    }
    for (status, line) in [
        (204, "HTTP/1.1 204 No Content\r\n"),
        (304, "HTTP/1.1 304 Not Modified\r\n"),
    ] {
        cases.push(case(
            format!("{line}Content-Length: 6\r\n\r\npoison"),
            Stays,
            &[Whole(status, "")],
        ));
        cases.push(case(
            format!("{line}Transfer-Encoding: chunked\r\n\r\n6\r\npoison\r\n0\r\n\r\n"),
            Stays,
            &[Whole(status, "")],
        ));
        cases.push(case(format!("{line}\r\n{second}"), Stays, &[Whole(status, "")]));
    }
    for body in ["poison".to_owned(), second.to_owned()] {
        let mut head = case(
            format!("{OK}Content-Length: 6\r\n\r\n{body}"),
            Stays,
            &[Whole(200, "")],
        );
        head.method = "HEAD";
        cases.push(head);
    }
    // Until the end of the connection: whole, because nothing says otherwise.
    cases.push(case(format!("{OK}\r\nhi"), Closes, &[Whole(200, "hi")]));
    cases.push(case("HTTP/1.0 200 OK\r\n\r\nhi", Closes, &[Whole(200, "hi")]));
    run(cases);
}

#[test]
fn transfer_encodings() {
    let with = |fields: &str| format!("{OK}{fields}\r\n\r\n2\r\nhi\r\n0\r\n\r\n");
    let mut cases = Vec::new();
    for odd in [
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: gzip",
        "Transfer-Encoding: identity",
        "Transfer-Encoding: chunked, chunked",
        "Transfer-Encoding: chunked, identity",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
        "Transfer-Encoding: chunked,",
        "Transfer-Encoding: ,chunked",
        "Transfer-Encoding: \"chunked\"",
        "Transfer-Encoding: chunked;q=1",
        "Transfer-Encoding:",
        "Transfer-Encoding : chunked",
        "Transfer-Encoding: \x0bchunked",
        "Transfer-Encoding: chunked\0",
        "Transfer-Encoding:\r\n chunked",
        "Transfer-Encoding: \u{a0}chunked",
    ] {
        cases.push(case(with(odd), Closes, &[Refused]));
    }
    for fine in [
        "Transfer-Encoding: CHUNKED",
        "transfer-encoding:chunked",
        "Transfer-Encoding: \tchunked ",
    ] {
        cases.push(case(with(fine), Stays, &[Whole(200, "hi")]));
    }
    for both in [
        "Content-Length: 2\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 2",
        "Transfer-Encoding: chunked\r\nContent-Length: 500",
        "Transfer-Encoding: chunked\r\nContent-Length: x",
    ] {
        // What stands behind is nobody's answer.
        let poisoned = with(both) + "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison";
        cases.push(case(poisoned, Stays, &[Refused, Whole(200, "hi")]));
    }
    cases.push(case(
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
        Closes,
        &[Refused],
    ));
    run(cases);
}

#[test]
fn chunks() {
    let with = |body: &str| format!("{OK}Transfer-Encoding: chunked\r\n\r\n{body}");
    let mut cases: Vec<_> = [
        "",
        "2",
        "2\r\n",
        "2\r\nh",
        "2\r\nhi",
        "2\r\nhi\r\n",
        "2\r\nhi\r\n0",
        "2\r\nhi\r\n0\r\n",
        "2\r\nhi\r\n0\r\nX-A: 1\r\n",
        "2\r\nhi\r\n0\r\nno colon\r\n\r\n",
        "2\r\nhi\r\n0\r\nX-A: a\0b\r\n\r\n",
        "0x2\r\nhi\r\n0\r\n\r\n",
        "+2\r\nhi\r\n0\r\n\r\n",
        "-2\r\nhi\r\n0\r\n\r\n",
        "2 2\r\nhi\r\n0\r\n\r\n",
        "2_\r\nhi\r\n0\r\n\r\n",
        "zz\r\nhi\r\n0\r\n\r\n",
        ";\r\nhi\r\n0\r\n\r\n",
        "\r\n2\r\nhi\r\n0\r\n\r\n",
        "2\nhi\r\n0\r\n\r\n",
        "2\r\nhi\n0\r\n\r\n",
        "2\r\nhi0\r\n\r\n",
        "2\r\nhiXX0\r\n\r\n",
        "2;a\nb\r\nhi\r\n0\r\n\r\n",
        "2\r\nhi\r\n0\n\n",
        "10000000000000002\r\nhi\r\n0\r\n\r\n",
        "ffffffffffffffff\r\nhi\r\n0\r\n\r\n",
    ]
    .map(|body| case(with(body), Closes, &[Cut, Refused]))
    .into();
    for fine in [
        "2;a=b\r\nhi\r\n0\r\n\r\n",
        "002\r\nhi\r\n00\r\n\r\n",
        "2\r\nhi\r\n0\r\nX-Smuggled: 1\r\n\r\n",
        "2\r\nhi\r\n0\r\nContent-Length: 9\r\n\r\n",
    ] {
        cases.push(case(with(fine), Stays, &[Whole(200, "hi")]));
    }
    let flood = format!("2\r\nhi\r\n0\r\n{}\r\n", "X-A: 1\r\n".repeat(20_000));
    cases.push(case(with(&flood), Closes, &[Cut]));
    let extension = format!("2;{}\r\nhi\r\n0\r\n\r\n", "a".repeat(1 << 17));
    cases.push(case(with(&extension), Closes, &[Cut, Refused]));
    run(cases);
}
