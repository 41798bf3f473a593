//! What clients send. Every class of RFC 9112 that a proxy and an app could read differently.

use super::Outcome::{Cut, Refused};
use super::{Case, HIDDEN, Outcome, run};

/// One request of the case reaches the app.
fn once(shown: impl Into<String>) -> Outcome {
    Outcome::Served(vec![shown.into()])
}

fn case(name: impl Into<String>, sent: String, allowed: &[Outcome]) -> Case {
    Case {
        name: name.into(),
        sent,
        allowed: allowed.to_vec(),
    }
}

/// Cases that must all be refused; behind each stands a request that must not be served.
fn refused(sent: impl IntoIterator<Item = String>) -> Vec<Case> {
    let refused = |sent: String| case("refused", sent + HIDDEN, &[Refused]);
    sent.into_iter().map(refused).collect()
}

/// A GET with an odd line in its head.
fn with_line(line: &&str) -> String {
    format!("GET /~ HTTP/1.1\r\nHost: a\r\n{line}\r\nX-B: 2\r\n\r\n")
}

/// A request that is hidden as the body of another, chunked.
fn hidden_in_chunks() -> String {
    format!("{:x}\r\n{HIDDEN}\r\n0\r\n\r\n", HIDDEN.len())
}

#[test]
fn lines_of_the_head() {
    let odd = [
        "X-A : 1",
        "X-A\t: 1",
        "X-A\u{a0}: 1",
        "X A: 1",
        ": 1",
        ":",
        "no colon",
        "X-\0A: 1",
        "X-A\0: 1",
        "X-A: a\0b",
        "X-A: \0",
        "X-A: a\rb",
        "X-A\r: 1",
        "\rX-A: 1",
        "X-\u{e9}: 1",
        "X-A(: 1",
        "X-A@b: 1",
        "X-A[0]: 1",
        "X-\"A\": 1",
        "X-A/1: 1",
        "X-A,: 1",
        "X-A;: 1",
        "X-A=: 1",
        "{X-A}: 1",
        "X-A: 1\r\n folded",
        "X-A: 1\r\n\tfolded",
        "X-A: 1\r\n ",
        "X-A:\r\n 1",
        " X-A: 1",
        "\tX-A: 1",
        "X-A: a\x08b",
        "X-A: a\x0bb",
        "X-A: a\x1bb",
        "X-A: a\x7fb",
        "\x00",
        "GET /smuggled HTTP/1.1",
    ];
    run(refused(odd.iter().map(with_line)));
    // The same as the first line of the fields, where it follows the request line.
    let first = odd
        .iter()
        .map(|line| format!("GET /~ HTTP/1.1\r\n{line}\r\nHost: a\r\n\r\n"));
    run(refused(first));
}

/// A recipient may take a lone LF for a line's end (RFC 9112 §2.2); then what goes on has CRLF.
#[test]
fn bare_line_feeds() {
    let one = |sent: &str| case("bare LF", sent.to_owned(), &[Refused, once("GET /~ ")]);
    let mut cases: Vec<_> = [
        "GET /~ HTTP/1.1\nHost: a\n\n",
        "GET /~ HTTP/1.1\r\nHost: a\nX-A: 1\r\n\r\n",
        "GET /~ HTTP/1.1\r\nHost: a\r\nX-A: 1\n\r\n",
        "GET /~ HTTP/1.1\r\nHost: a\r\nX-A: 1\r\n\n",
        "\nGET /~ HTTP/1.1\r\nHost: a\r\n\r\n",
        "\r\nGET /~ HTTP/1.1\r\nHost: a\r\n\r\n",
        "\r\n\r\nGET /~ HTTP/1.1\r\nHost: a\r\n\r\n",
    ]
    .map(one)
    .into();
    let body = "POST /~ HTTP/1.1\nHost: a\nContent-Length: 4\n\nbody";
    cases.push(case(
        "bare LF before a body",
        body.to_owned(),
        &[Refused, once("POST /~ body")],
    ));
    cases.extend(refused([
        "\rGET /~ HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
        "GET /~ HTTP/1.1\rHost: a\r\r".to_owned(),
        "GET /~ HTTP/1.1\r\r\nHost: a\r\n\r\n".to_owned(),
        "GET /~ HTTP/1.1\r\nHost: a\r\r\n\r\n".to_owned(),
        "GET /~ HTTP/1.1\r\nHost: a\r\n\r\r\n".to_owned(),
    ]));
    run(cases);
}

#[test]
fn request_lines() {
    let line = |line: &str| format!("{line}\r\nHost: a\r\n\r\n");
    let mut cases = refused(
        [
            "GET  /~ HTTP/1.1",
            "GET /~  HTTP/1.1",
            "GET\t/~\tHTTP/1.1",
            "GET\x0b/~ HTTP/1.1",
            " GET /~ HTTP/1.1",
            "\tGET /~ HTTP/1.1",
            "GET /~ b HTTP/1.1",
            "GET /~\tb HTTP/1.1",
            "GET /~\0b HTTP/1.1",
            "GET /~\x7fb HTTP/1.1",
            "GET /~\rb HTTP/1.1",
            "GET /~ HTTP/1.1 ",
            "GET /~ HTTP/1.1\t",
            "GET /~ HTTP/1.2",
            "GET /~ HTTP/2.0",
            "GET /~ HTTP/2",
            "GET /~ HTTP/0.9",
            "GET /~ HTTP/1.",
            "GET /~ HTTP/.1",
            "GET /~ HTTP/1.01",
            "GET /~ HTTP/1.1.1",
            "GET /~ http/1.1",
            "GET /~ HTTP/1,1",
            "GET /~ HTTP/11.1",
            "GET /~ HTTP 1.1",
            "GET /~ HTTPS/1.1",
            "GET /~ ICY/1.1",
            "GET /~ HTTP/+1.1",
            "GET /~",
            "GET /~ ",
            "GET",
            "GET HTTP/1.1",
            " /~ HTTP/1.1",
            "/~ HTTP/1.1",
            "G\0T /~ HTTP/1.1",
            "GE(T /~ HTTP/1.1",
            "GET\u{e9} /~ HTTP/1.1",
            "GET: /~ HTTP/1.1",
            "\"GET\" /~ HTTP/1.1",
            "GET ~ HTTP/1.1",
            "GET *~ HTTP/1.1",
            "GET * HTTP/1.1",
            "POST * HTTP/1.1",
            "GET a:80 HTTP/1.1",
            "GET :80/~ HTTP/1.1",
            "GET http:// HTTP/1.1",
            "GET http:///~ HTTP/1.1",
            "GET http:/~ HTTP/1.1",
            "GET http:~ HTTP/1.1",
            "GET ://a/~ HTTP/1.1",
            "GET http://a b/~ HTTP/1.1",
            "GET http://u@a/~ HTTP/1.1",
            "GET http://u:p@a/~ HTTP/1.1",
            "GET http://[::1/~ HTTP/1.1",
            "GET http://a:port/~ HTTP/1.1",
            "GET ?~ HTTP/1.1",
            "GET \\~ HTTP/1.1",
            "CONNECT a:80 HTTP/1.1",
            "CONNECT /~ HTTP/1.1",
            "CONNECT http://a/~ HTTP/1.1",
        ]
        .map(line),
    );
    // Forwarded byte for byte, or refused; a fragment is no part of a target (RFC 9110 §7.1) and may be left away.
    for target in [
        "/~//..//x",
        "/~%00",
        "/~%0d%0aX:1",
        "/~?a=b?c",
        "/~;a=b",
        "/~%2e%2e",
        "//~",
        "/~\"<>",
        "/~{|}^`",
        "/~\\x",
    ] {
        let sent = line(&format!("GET {target} HTTP/1.1"));
        cases.push(case(target, sent, &[Refused, once(format!("GET {target} "))]));
    }
    cases.push(case(
        "fragment",
        line("GET /~#fragment HTTP/1.1"),
        &[Refused, once("GET /~ ")],
    ));
    cases.push(case(
        "8-bit",
        line("GET /~\u{e9} HTTP/1.1"),
        &[Refused, once("GET /~\u{e9} ")],
    ));
    cases.push(case(
        "http://a without a path",
        line("GET http://a?~ HTTP/1.1"),
        &[Refused, once("GET /?~ ")],
    ));
    cases.push(case(
        "own method",
        line("get /~ HTTP/1.1"),
        &[Refused, once("get /~ ")],
    ));
    cases.push(case("PRI", line("PRI /~ HTTP/1.1"), &[Refused, once("PRI /~ ")]));
    run(cases);
}

#[test]
fn hosts() {
    let head = |fields: &str| format!("GET /~ HTTP/1.1\r\n{fields}X-B: 2\r\n\r\n");
    let mut cases = refused(
        [
            "",
            "Host: a\r\nHost: a\r\n",
            "Host: a\r\nHost: b\r\n",
            "Host: a\r\nhost: \r\n",
            "Host: a\r\nX-A: 1\r\nHOST: b\r\n",
            "Host : a\r\n",
            "Host: a b\r\n",
            "Host: a, b\r\n",
            "Host: a/b\r\n",
            "Host: a\\b\r\n",
            "Host: a?b\r\n",
            "Host: a#b\r\n",
            "Host: u@a\r\n",
            "Host: http://a\r\n",
            "Host: a:port\r\n",
            "Host: a:80:80\r\n",
            "Host: a:-1\r\n",
            "Host: a:99999999\r\n",
            "Host: [::1\r\n",
            "Host: ::1]\r\n",
            "Host: [a]b\r\n",
            "Host: a\tb\r\n",
            "Host: \"a\"\r\n",
            "Host: <a>\r\n",
            "Host: \u{e9}\r\n",
            "Host: a\0\r\n",
            "Host: a\r\n b\r\n",
            "Host:\r\n a\r\n",
            "Host: {a}\r\n",
            "Host: a|b\r\n",
            "Host: a^b\r\n",
        ]
        .map(head),
    );
    // The absolute form wins over the field, which must be valid all the same.
    let absolute = |fields: &str| format!("GET http://a/~ HTTP/1.1\r\n{fields}\r\n");
    cases.extend(refused(
        ["Host: a\r\nHost: b\r\n", "Host: b c\r\n", "Host: a/b\r\n"].map(absolute),
    ));
    for fields in ["Host: a\r\n", "Host: b\r\n", "Host: a:80\r\n"] {
        cases.push(case(fields, absolute(fields), &[once("GET /~ ")]));
    }
    for fields in [
        "Host: a:\r\n",
        "Host: a.\r\n",
        "Host: A\r\n",
        "Host: a;b\r\n",
        "Host: \r\n",
        "Host:\r\n",
        "Host: [::1]:80\r\n",
    ] {
        cases.push(case(fields, head(fields), &[Refused, once("GET /~ ")]));
    }
    run(cases);
}

#[test]
fn content_lengths() {
    let odd = |field: &str| format!("POST /~ HTTP/1.1\r\nHost: a\r\n{field}\r\n\r\nbody");
    let mut cases = refused(
        [
            "Content-Length: 4\r\nContent-Length: 5",
            "Content-Length: 5\r\nContent-Length: 4",
            "Content-Length: 0\r\nContent-Length: 38",
            "Content-Length: 4\r\nX-A: 1\r\ncontent-length: 0",
            "Content-Length: 4, 5",
            "Content-Length: 4,5",
            "Content-Length: 4,",
            "Content-Length: ,4",
            "Content-Length: +4",
            "Content-Length: -4",
            "Content-Length: - 4",
            "Content-Length: 0x4",
            "Content-Length: 4h",
            "Content-Length: 4.0",
            "Content-Length: 4e0",
            "Content-Length: 4 4",
            "Content-Length: 4_0",
            "Content-Length: 4\0",
            "Content-Length: \x004",
            "Content-Length: 4\x0b",
            "Content-Length: \x0c4",
            "Content-Length: 4;",
            "Content-Length: 4#",
            "Content-Length: \"4\"",
            "Content-Length: '4'",
            "Content-Length: (4)",
            "Content-Length: 18446744073709551615",
            "Content-Length: 18446744073709551616",
            "Content-Length: 18446744073709551620",
            "Content-Length: 99999999999999999999999999",
            "Content-Length: 4\r\n 0",
            "Content-Length: 4\r\n\t",
            "Content-Length:\r\n 4",
            "Content-Length : 4",
            "Content-Length\t: 4",
            " Content-Length: 4",
            "Content-Length: \u{b2}",
            "Content-Length: \u{a0}4",
            "Content-Length: four",
            "Content-Length: 4\r",
            "Content-Length:",
            "Content-Length: ,",
            "Content-Length: true",
        ]
        .map(odd),
    );
    // The same value twice may be taken, as one.
    for same in [
        "Content-Length: 4\r\nContent-Length: 4",
        "Content-Length: 4, 4",
        "Content-Length: 04",
        "Content-Length:4",
        "Content-Length: \t4\t ",
    ] {
        cases.push(case(same, odd(same), &[Refused, once("POST /~ body")]));
    }
    // A field of another name is none.
    for other in ["Content_Length: 4", "X-Content-Length: 4", "Content-Lengt: 4"] {
        cases.push(case(other, odd(other), &[Refused, once("POST /~ ")]));
    }
    cases.push(case(
        "more than is sent",
        "POST /~ HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nbody".to_owned(),
        &[Cut],
    ));
    run(cases);
}

/// A body on a request that needs none stays a body (CL.0).
#[test]
fn bodies_that_are_requests() {
    let mut cases = Vec::new();
    for method in [
        "GET", "HEAD", "OPTIONS", "DELETE", "TRACE", "PUT", "POST", "PATCH", "PROPFIND",
    ] {
        let head = format!("{method} /~ HTTP/1.1\r\nHost: a\r\n");
        let sized = format!("{head}Content-Length: {}\r\n\r\n{HIDDEN}", HIDDEN.len());
        let chunked = format!("{head}Transfer-Encoding: chunked\r\n\r\n{}", hidden_in_chunks());
        for sent in [sized, chunked] {
            cases.push(case(method, sent, &[once(format!("{method} /~ {HIDDEN}"))]));
        }
    }
    run(cases);
}

#[test]
fn content_length_with_transfer_encoding() {
    let lengths = ["4", "0", "5", "43", "1000"];
    let mut cases = Vec::new();
    for length in lengths {
        for order in [0, 1] {
            let mut fields = [
                format!("Content-Length: {length}\r\n"),
                "Transfer-Encoding: chunked\r\n".to_owned(),
            ];
            fields.rotate_left(order);
            let head = format!("POST /~ HTTP/1.1\r\nHost: a\r\n{}\r\n", fields.concat());
            // Refused, or chunked alone counts and the connection ends (RFC 9112 §6.1): what follows is not served.
            cases.push(case(
                "CL.TE",
                format!("{head}0\r\n\r\n{HIDDEN}"),
                &[Refused, once("POST /~ ")],
            ));
            cases.push(case(
                "TE.CL",
                head + &hidden_in_chunks() + HIDDEN,
                &[Refused, once(format!("POST /~ {HIDDEN}"))],
            ));
        }
    }
    for method in ["GET", "HEAD"] {
        let head = format!(
            "{method} /~ HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n"
        );
        cases.push(case(
            "CL.TE",
            format!("{head}0\r\n\r\n{HIDDEN}"),
            &[Refused, once(format!("{method} /~ "))],
        ));
    }
    run(cases);
}

/// The odd forms of the one coding (TE.TE): each alone and beside a Content-Length.
#[test]
fn transfer_encodings() {
    // Some server reads each of these as chunked, and some other does not.
    let refused_all = [
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding: chunkedx",
        "Transfer-Encoding: x chunked",
        "Transfer-Encoding: chunked, identity",
        "Transfer-Encoding: identity",
        "Transfer-Encoding: identity, chunked",
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: gzip,chunked",
        "Transfer-Encoding: chunked, chunked",
        "Transfer-Encoding: chunked, gzip",
        "Transfer-Encoding: deflate",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
        "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nX-A: 1\r\ntransfer-encoding: x",
        "Transfer-Encoding: gzip",
        "Transfer-Encoding:",
        "Transfer-Encoding: ,",
        "Transfer-Encoding: chunked,",
        "Transfer-Encoding: ,chunked",
        "Transfer-Encoding: \"chunked\"",
        "Transfer-Encoding: 'chunked'",
        "Transfer-Encoding: <chunked>",
        "Transfer-Encoding: chunked;q=1",
        "Transfer-Encoding: chunked; a",
        "Transfer-Encoding: chun ked",
        "Transfer-Encoding: chunk",
        "Transfer-Encoding : chunked",
        " Transfer-Encoding: chunked",
        "Transfer-Encoding\t: chunked",
        "Transfer-Encoding\x0b: chunked",
        "Transfer-Encoding: chunked\0",
        "Transfer-Encoding: \0chunked",
        "Transfer-Encoding: \x0bchunked",
        "Transfer-Encoding: \x0cchunked",
        "Transfer-Encoding: chunked\x0b",
        "Transfer-Encoding: chunked\x7f",
        "Transfer-Encoding: \u{a0}chunked",
        "Transfer-Encoding: chunked\u{85}",
        "Transfer-Encoding: \u{ff}chunked",
        "Transfer-Encoding:\r\n chunked",
        "Transfer-Encoding:\r\n\tchunked",
        "Transfer-Encoding: chunked\r\n x",
        "Transfer-Encoding\r\n : chunked",
        "X: y\rTransfer-Encoding: chunked",
        "Transfer-Encoding: x\nchunked",
        "Transfer-Encoding;: chunked",
        "Transfer-Encoding=: chunked",
        "\0Transfer-Encoding: chunked",
        "Transfer-Encoding\0: chunked",
        "Transfer\u{a0}Encoding: chunked",
        "Content-Encoding: x\r\nTransfer-Encoding: chunked, x",
    ];
    let chunked = [
        "Transfer-Encoding: CHUNKED",
        "TRANSFER-ENCODING: chunked",
        "Transfer-Encoding:\tchunked",
        "Transfer-Encoding:chunked",
        "Transfer-Encoding:  chunked  ",
        "X: y\nTransfer-Encoding: chunked",
    ];
    // Of another name: no coding at all, so the body has the length that is given, or none.
    let other = [
        "Transfer_Encoding: chunked",
        "TransferEncoding: chunked",
        "X-Transfer-Encoding: chunked",
        "Transfer-Encodin: chunked",
    ];
    let mut cases = Vec::new();
    for length in ["", "Content-Length: 4\r\n"] {
        let head = |field: &str| format!("POST /~ HTTP/1.1\r\nHost: a\r\n{length}{field}\r\n\r\n");
        cases.extend(refused(
            refused_all.map(|field| head(field) + &hidden_in_chunks()),
        ));
        for field in chunked {
            let sent = head(field) + &hidden_in_chunks();
            cases.push(case(field, sent, &[Refused, once(format!("POST /~ {HIDDEN}"))]));
        }
        for field in other {
            let body = if length.is_empty() { "" } else { "body" };
            let sent = format!("{}{body}", head(field));
            cases.push(case(field, sent, &[Refused, once(format!("POST /~ {body}"))]));
        }
    }
    run(cases);
}

#[test]
fn chunks() {
    let odd = |body: &str| {
        format!("POST /~ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{body}{HIDDEN}")
    };
    let mut cases: Vec<_> = [
        "0x4\r\nbody\r\n0\r\n\r\n",
        "4h\r\nbody\r\n0\r\n\r\n",
        "+4\r\nbody\r\n0\r\n\r\n",
        "-4\r\nbody\r\n0\r\n\r\n",
        "4_\r\nbody\r\n0\r\n\r\n",
        "_4\r\nbody\r\n0\r\n\r\n",
        " 4\r\nbody\r\n0\r\n\r\n",
        "\t4\r\nbody\r\n0\r\n\r\n",
        "4 4\r\nbody\r\n0\r\n\r\n",
        "4\x0b\r\nbody\r\n0\r\n\r\n",
        "4\0\r\nbody\r\n0\r\n\r\n",
        "4,\r\nbody\r\n0\r\n\r\n",
        "\"4\"\r\nbody\r\n0\r\n\r\n",
        "\u{b2}\r\nbody\r\n0\r\n\r\n",
        "\r\n4\r\nbody\r\n0\r\n\r\n",
        "\r\nbody\r\n0\r\n\r\n",
        ";\r\nbody\r\n0\r\n\r\n",
        ";a=b\r\nbody\r\n0\r\n\r\n",
        "zz\r\nbody\r\n0\r\n\r\n",
        "10000000000000004\r\nbody\r\n0\r\n\r\n",
        "100000000\r\nbody\r\n0\r\n\r\n",
        "ffffffffffffffff\r\nbody\r\n0\r\n\r\n",
        "fffffffffffffffff\r\nbody\r\n0\r\n\r\n",
        "00000000000000000000000000000000000g\r\nbody\r\n0\r\n\r\n",
        "4\nbody\r\n0\r\n\r\n",
        "4\rbody\r\n0\r\n\r\n",
        "4\n\rbody\r\n0\r\n\r\n",
        "4\r\r\nbody\r\n0\r\n\r\n",
        "4\r\nbody\n0\r\n\r\n",
        "4\r\nbody\r0\r\n\r\n",
        "4\r\nbody0\r\n\r\n",
        "4\r\nbodyXX0\r\n\r\n",
        "4\r\nbod\r\n0\r\n\r\n",
        "3\r\nbody\r\n0\r\n\r\n",
        "4;a\nb\r\nbody\r\n0\r\n\r\n",
        "4;a\rb\r\nbody\r\n0\r\n\r\n",
        "4;a=\"\r\n\"\r\nbody\r\n0\r\n\r\n",
        "4\r\nbody\r\n0\n\n",
        "4\r\nbody\r\n0\r\n\r",
        "4\r\nbody\r\n0\r\r\n\r\n",
        "4\r\nbody\r\n0;a\nb\r\n\r\n",
        "4\r\nbody\r\n-0\r\n\r\n",
        "4\r\nbody\r\n0\r\nno colon\r\n\r\n",
        "4\r\nbody\r\n0\r\nX-A : 1\r\n\r\n",
        "4\r\nbody\r\n0\r\n X-A: 1\r\n\r\n",
        "4\r\nbody\r\n0\r\nX-A: 1\r\n folded\r\n\r\n",
        "4\r\nbody\r\n0\r\nX-A: a\0b\r\n\r\n",
        "4\r\nbody\r\n0\r\nX\0A: 1\r\n\r\n",
        "4\r\nbody\r\n0\r\nX-A: a\rb\r\n\r\n",
        "4\r\nbody\r\n0\r\n: 1\r\n\r\n",
    ]
    .into_iter()
    .map(|body| case(body, odd(body), &[Cut]))
    .collect();
    // A server that ends the trailers at a lone LF sees a request where we see a trailer: that one must be the last.
    for trailers in [
        "\n",
        "X-A: 1\n\n",
        "X-A: 1\n\r\n",
        "X-A: 1\r\n\n",
        "\nX-A: 1\r\n\r\n",
    ] {
        let sent = odd(&format!("4\r\nbody\r\n0\r\n{trailers}")) + HIDDEN;
        cases.push(case(trailers, sent, &[Cut, once("POST /~ body")]));
    }
    let last = "POST /~ HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n";
    // What is cut off by the client's end is no whole body.
    for cut in [
        "",
        "4",
        "4\r\n",
        "4\r\nbo",
        "4\r\nbody",
        "4\r\nbody\r\n",
        "4\r\nbody\r\n0",
        "4\r\nbody\r\n0\r\n",
        "4\r\nbody\r\n0\r\nX-A: 1\r\n",
    ] {
        cases.push(case(cut, format!("{last}{cut}"), &[Cut]));
    }
    // Valid, or cleaned: an extension is never passed on.
    for valid in [
        "4;a=b;c=\"d;e\"\r\nbody\r\n000\r\n\r\n",
        "4 ;a\r\nbody\r\n0\r\n\r\n",
        "4\t\r\nbody\r\n0\r\n\r\n",
        "00000004\r\nbody\r\n0\r\n\r\n",
        "4;\0\r\nbody\r\n0\r\n\r\n",
        "4;\u{e9}\r\nbody\r\n0\r\n\r\n",
        "1\r\nb\r\n3\r\nody\r\n0;last\r\n\r\n",
        "4\r\nbody\r\n0\r\nX-A: 1\r\n\r\n",
        "4\r\nbody\r\n0\r\nHost: b\r\nContent-Length: 9\r\nTransfer-Encoding: x\r\n\r\n",
        "4\r\nbody\r\n0\r\nX-Forwarded-For: 9.9.9.9\r\n\r\n",
    ] {
        cases.push(case(
            valid,
            format!("{last}{valid}{HIDDEN}"),
            &[Cut, once("POST /~ body")],
        ));
    }
    run(cases);
}

#[test]
fn http10() {
    let mut cases = refused(
        [
            "Transfer-Encoding: chunked",
            "Transfer-Encoding: chunked\r\nConnection: keep-alive",
            "Transfer-Encoding: identity",
            "Transfer-Encoding: gzip, chunked",
            "Content-Length: 4\r\nTransfer-Encoding: chunked\r\nConnection: keep-alive",
            "Transfer-Encoding: chunked\r\nContent-Length: 4",
        ]
        .map(|fields| format!("POST /~ HTTP/1.0\r\nHost: a\r\n{fields}\r\n\r\n0\r\n\r\n")),
    );
    // A request has no body that ends with its connection, and without keep-alive nothing follows.
    let plain = |fields: &str| format!("POST /~ HTTP/1.0\r\nHost: a\r\n{fields}\r\n{HIDDEN}");
    cases.push(case("until close", plain(""), &[Refused, once("POST /~ ")]));
    cases.push(case(
        "no Host",
        "GET /~ HTTP/1.0\r\n\r\n".to_owned() + HIDDEN,
        &[Refused, once("GET /~ ")],
    ));
    let length = format!("Content-Length: {}\r\n", HIDDEN.len());
    cases.push(case(
        "sized",
        plain(&length) + HIDDEN,
        &[once(format!("POST /~ {HIDDEN}"))],
    ));
    cases.push(case(
        "upgrade",
        plain("Connection: upgrade\r\nUpgrade: websocket\r\n"),
        &[Refused, once("POST /~ ")],
    ));
    run(cases);
}

#[test]
fn fields_for_one_connection() {
    let mut cases = Vec::new();
    for fields in [
        "Connection: close, Host\r\n",
        "Connection: close, Content-Length\r\n",
        "Connection: close, Transfer-Encoding, X-Forwarded-For\r\n",
        "Connection: close\r\nConnection: keep-alive\r\n",
        "Connection: keep-alive, close\r\n",
        "Connection: close\r\nKeep-Alive: timeout=1000\r\nProxy-Connection: keep-alive\r\n",
        "Connection: close\r\nX-Forwarded-For: 9.9.9.9\r\nX-Forwarded-For: 8.8.8.8\r\n",
        "Connection: close, Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n",
        "Connection: close\r\nUpgrade: websocket\r\n",
        "Connection: close\r\nUpgrade: TLS/1.0, HTTP/1.1\r\n",
    ] {
        let sent = format!("POST /~ HTTP/1.1\r\nHost: a\r\n{fields}Content-Length: 4\r\n\r\nbody{HIDDEN}");
        cases.push(case(fields, sent, &[Refused, once("POST /~ body")]));
    }
    run(cases);
}

/// In order, and nothing behind a bad one or behind the last.
#[test]
fn pipelines() {
    let get = |target: &str| format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n");
    let served =
        |targets: &[&str]| Outcome::Served(targets.iter().map(|target| format!("GET {target} ")).collect());
    let (first, second) = (get("/~/1"), get("/~/2"));
    let mut cases = vec![
        case(
            "three",
            format!("{first}{second}{}", get("/~/3")),
            &[served(&["/~/1", "/~/2", "/~/3"])],
        ),
        case(
            "CRLF between",
            format!("{first}\r\n{second}"),
            &[served(&["/~/1", "/~/2"]), served(&["/~/1"])],
        ),
        case(
            "behind close",
            format!("GET /~/1 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n{HIDDEN}"),
            &[served(&["/~/1"])],
        ),
        case(
            "a body before",
            format!("POST /~/1 HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody{second}"),
            &[Outcome::Served(vec![
                "POST /~/1 body".to_owned(),
                "GET /~/2 ".to_owned(),
            ])],
        ),
    ];
    for bad in [
        "GET /bad HTTP/1.1\r\nHost : a\r\n\r\n",
        "GET /bad HTTP/1.1\r\n\r\n",
        "GET /bad HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        "GET  /bad HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST /bad HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n",
        "POST /bad HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: x\r\n\r\n",
        "POST /bad HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "GET * HTTP/1.1\r\nHost: a\r\n\r\n",
        "noise\r\n\r\n",
        "\0\0\0\0",
        "body of nothing",
    ] {
        cases.push(case(bad, format!("{first}{bad}{HIDDEN}"), &[served(&["/~/1"])]));
    }
    run(cases);
}

#[test]
fn other_protocols() {
    run(refused([
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_owned(),
        "\x16\x03\x01\x02\0\x01\0\x01\u{fc}\x03\x03".to_owned() + &"\u{aa}".repeat(64),
        "SSH-2.0-OpenSSH_9.9\r\n".to_owned(),
        "PROXY TCP4 9.9.9.9 8.8.8.8 1 2\r\n".to_owned(),
        "\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x7f\0\0\x01\x7f\0\0\x01\0\x01\0\x02".to_owned(),
        "EHLO a\r\nMAIL FROM:<a@b>\r\n".to_owned(),
        "*1\r\n$4\r\nPING\r\n".to_owned(),
        "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_owned(),
        "GET /~\r\n".to_owned(),
        "\0".repeat(200),
        "\u{ff}".repeat(200),
        "<stream:stream xmlns='jabber:client'>\r\n\r\n".to_owned(),
        "OPTIONS rtsp://a/~ RTSP/1.0\r\nHost: a\r\n\r\n".to_owned(),
        "INVITE sip:a@b SIP/2.0\r\nHost: a\r\n\r\n".to_owned(),
    ]));
}

#[test]
fn sizes() {
    let get = |field: String| format!("GET /~ HTTP/1.1\r\nHost: a\r\n{field}\r\n\r\n");
    let mut cases = refused([
        get((0..200).map(|at| format!("X-{at}: 1\r\n")).collect()),
        get((0..20_000).map(|at| format!("X-{at}: 1\r\n")).collect()),
        get(format!("X-A: {}", "a".repeat(65 * 1024))),
        get(format!("X-A: {}", "a".repeat(1 << 22))),
        get(format!("{}: 1", "a".repeat(70_000))),
        get("X-A: 1\r\n".repeat(101)),
        format!("GET /~{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(17 * 1024)),
        format!("GET /~{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(70_000)),
        format!("GET /~{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(1 << 22)),
        format!("{} /~ HTTP/1.1\r\nHost: a\r\n\r\n", "A".repeat(1 << 20)),
        format!("GET /~ HTTP/1.1\r\nHost: {}\r\n\r\n", "a".repeat(9_000)),
        "\r\n".repeat(100_000),
        " ".repeat(200_000),
    ]);
    let chunked = "POST /~ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    for odd in [
        format!("4;{}\r\nbody\r\n0\r\n\r\n", "x".repeat(1 << 17)),
        "1;xxxxxxxxxxxxxxxxxxxxxxxx\r\na\r\n".repeat(4_000),
        format!("4{}\r\nbody\r\n0\r\n\r\n", ";a".repeat(20_000)),
        format!("4\r\nbody\r\n0\r\nX-A: {}\r\n\r\n", "a".repeat(1 << 20)),
        format!("4\r\nbody\r\n0\r\n{}\r\n", "X-A: 1\r\n".repeat(20_000)),
    ] {
        let name = odd.chars().take(20).collect::<String>();
        cases.push(case(name, format!("{chunked}{odd}{HIDDEN}"), &[Cut]));
    }
    let zeros = format!("{chunked}{}4\r\nbody\r\n0\r\n\r\n", "0".repeat(1 << 20));
    cases.push(case("a size of many digits", zeros, &[Cut, once("POST /~ body")]));
    run(cases);
}
