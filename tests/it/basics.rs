//! Requests and answers as they should be: connections kept, framings of both sides, nothing changed on the way.

use crate::harness::{Backend, Proxy, Setup, Wire, ok};

#[test]
fn a_request_is_answered() {
    let blue = Backend::blue();
    let proxy = Proxy::before(&blue);
    assert_eq!(proxy.says(), "blue");
}

#[test]
fn both_sides_keep_their_connections() {
    let blue = Backend::blue();
    let proxy = Proxy::before(&blue);
    let mut client = proxy.client();
    for n in 0..20 {
        assert_eq!(client.get(&format!("/{n}")).text(), "blue");
        assert_eq!(client.post(&format!("/{n}"), "body").text(), "blue");
    }
    assert_eq!((blue.requests().len(), blue.connections()), (40, 1));
}

#[test]
fn a_connection_ends_when_either_side_of_it_says_so() {
    let blue = Backend::handler(|_| {
        b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 4\r\n\r\nblue".to_vec()
    });
    let proxy = Proxy::before(&blue);
    let mut client = proxy.client();
    // The app's wish concerns its own connection only.
    let answer = client.get("/");
    assert_eq!(
        (answer.field("connection"), answer.text().as_str()),
        (None, "blue")
    );
    assert_eq!(client.get("/").text(), "blue");
    assert_eq!(blue.connections(), 2);

    let answer = client.ask("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    assert_eq!(
        (answer.field("connection"), answer.text().as_str()),
        (Some("close"), "blue")
    );
    client.assert_closed();
}

#[test]
fn an_http10_client_gets_what_it_understands() {
    let blue = Backend::handler(|request| match request.target() {
        "/chunked" => {
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nbl\r\n2\r\nue\r\n0\r\n\r\n".to_vec()
        }
        _ => ok("blue"),
    });
    let proxy = Proxy::before(&blue);
    for target in ["/", "/chunked"] {
        let mut client = proxy.client();
        let answer = client.ask(format!("GET {target} HTTP/1.0\r\n\r\n"));
        assert_eq!((answer.status(), answer.text().as_str()), (200, "blue"));
        assert_eq!(answer.field("transfer-encoding"), None);
        client.assert_closed();
    }
    for request in blue.requests() {
        assert!(request.start.ends_with(" HTTP/1.1"), "{}", request.start);
        assert_eq!(request.field("host"), Some(blue.address()));
    }
}

#[test]
fn an_http10_client_may_ask_to_be_kept() {
    let blue = Backend::blue();
    let proxy = Proxy::before(&blue);
    let mut client = proxy.client();
    for _ in 0..3 {
        let answer = client.ask("GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n");
        assert_eq!(answer.text(), "blue");
        assert_eq!(answer.field("connection"), Some("keep-alive"));
    }
}

#[test]
fn head_has_the_fields_and_no_body() {
    let blue = Backend::handler(|request| match request.target() {
        "/sized" => b"HTTP/1.1 200 OK\r\ncontent-length: 4000\r\n\r\n".to_vec(),
        "/chunked" => b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_vec(),
        _ => b"HTTP/1.1 200 OK\r\n\r\n".to_vec(),
    });
    let proxy = Proxy::before(&blue);
    let mut client = proxy.client();
    let head = |target: &str| format!("HEAD {target} HTTP/1.1\r\nHost: a\r\n\r\n");
    let answer = client.ask(head("/sized"));
    assert_eq!(
        (answer.status(), answer.field("content-length")),
        (200, Some("4000"))
    );
    assert_eq!(client.ask(head("/chunked")).status(), 200);
    assert_eq!(client.ask(head("/plain")).status(), 200);
    // Nobody counted a body that was never sent: the connections are in step.
    assert_eq!(client.ask(head("/sized")).field("content-length"), Some("4000"));
    assert_eq!(blue.connections(), 1);
}

#[test]
fn answers_without_a_body_have_none() {
    let blue = Backend::handler(|request| match request.target() {
        "/204" => b"HTTP/1.1 204 No Content\r\n\r\n".to_vec(),
        "/304" => b"HTTP/1.1 304 Not Modified\r\netag: \"a\"\r\n\r\n".to_vec(),
        "/304-sized" => b"HTTP/1.1 304 Not Modified\r\ncontent-length: 12\r\netag: \"a\"\r\n\r\n".to_vec(),
        "/empty" => b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n".to_vec(),
        _ => ok("blue"),
    });
    let proxy = Proxy::before(&blue);
    let mut client = proxy.client();
    let answer = client.get("/204");
    assert_eq!((answer.status(), answer.field("content-length")), (204, None));
    assert_eq!(answer.field("transfer-encoding"), None);
    assert_eq!(client.get("/304").field("etag"), Some("\"a\""));
    assert_eq!(client.get("/304-sized").status(), 304);
    let answer = client.get("/empty");
    assert_eq!(
        (answer.field("content-length"), answer.text().as_str()),
        (Some("0"), "")
    );
    assert_eq!(client.get("/").text(), "blue");
    assert_eq!(blue.connections(), 1);
}

#[test]
fn a_204_that_announces_a_length_loses_it() {
    let blue = Backend::handler(|request| match request.target() {
        "/204" => b"HTTP/1.1 204 No Content\r\ncontent-length: 0\r\n\r\n".to_vec(),
        _ => ok("blue"),
    });
    let proxy = Proxy::before(&blue);
    let mut client = proxy.client();
    let answer = client.get("/204");
    assert_eq!((answer.status(), answer.field("content-length")), (204, None));
    assert_eq!(client.get("/").text(), "blue");
}

#[test]
fn statuses_targets_and_fields_pass_unchanged() {
    let statuses = [
        200, 201, 202, 203, 205, 206, 207, 226, 300, 301, 302, 303, 307, 308, 400, 401, 402, 403, 404, 405,
        406, 409, 410, 411, 412, 415, 416, 417, 418, 421, 422, 425, 426, 428, 429, 451, 500, 501, 505, 507,
        511, 599, 799,
    ];
    let blue = Backend::handler(|request| {
        let status = request
            .target()
            .trim_start_matches('/')
            .split('?')
            .next()
            .unwrap_or_default();
        let fields =
            "set-cookie: a=1; Path=/\r\nset-cookie: b=\"x, y\"\r\nx-latin: caf\u{e9}\r\nvary: a\r\nvary: b";
        let fields: Vec<u8> = fields.chars().map(|c| u8::try_from(c).unwrap()).collect();
        let mut answer = format!("HTTP/1.1 {status} Whatever\r\ncontent-length: 2\r\n").into_bytes();
        answer.extend(fields);
        answer.extend(b"\r\n\r\nok");
        answer
    });
    let proxy = Proxy::before(&blue);
    let mut client = proxy.client();
    for status in statuses {
        let target = format!("/{status}?a=%2F%00&b=[1]&c='&&=?;%zz");
        let answer = client.ask(format!(
            "GET {target} HTTP/1.1\r\nHost: a\r\nCookie: a=1; b=\"2\"\r\nAccept-Encoding: br\r\nX-Twice: 1\r\nX-Twice: 2\r\n\r\n"
        ));
        assert_eq!(answer.status(), status);
        assert_eq!(answer.all("set-cookie"), ["a=1; Path=/", "b=\"x, y\""]);
        assert_eq!(answer.all("vary"), ["a", "b"]);
        assert_eq!(answer.field("x-latin"), Some("caf\u{e9}"));
        let request = blue.requests().pop().unwrap();
        assert_eq!(request.target(), target);
        assert_eq!(request.field("cookie"), Some("a=1; b=\"2\""));
        assert_eq!(request.field("accept-encoding"), Some("br"));
        assert_eq!(request.all("x-twice"), ["1", "2"]);
    }
}

#[test]
fn methods_pass_unchanged() {
    let blue = Backend::blue();
    let proxy = Proxy::before(&blue);
    let mut client = proxy.client();
    for method in ["OPTIONS", "DELETE", "PUT", "PATCH", "TRACE", "PROPFIND", "BREW"] {
        let answer = client.ask(format!(
            "{method} /x HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"
        ));
        assert_eq!(answer.text(), "blue", "{method}");
        assert_eq!(blue.requests().pop().unwrap().method(), method);
    }
    assert_eq!(
        client.ask("CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n").status(),
        400
    );
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let blue = Backend::handler(|request| ok(request.target()));
    let proxy = Proxy::before(&blue);
    let mut client = proxy.client();
    let mut all = String::new();
    for n in 0..50 {
        if n % 3 == 0 {
            all += &format!("POST /{n} HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc");
        } else {
            all += &format!("GET /{n} HTTP/1.1\r\nHost: a\r\n\r\n");
        }
    }
    client.send(all);
    for n in 0..50 {
        assert_eq!(client.answer().text(), format!("/{n}"));
    }
    assert_eq!(blue.requests().len(), 50);
}

#[test]
fn nothing_is_served_after_connection_close() {
    let blue = Backend::blue();
    let proxy = Proxy::before(&blue);
    let mut client = proxy.client();
    client.send("GET /1 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.answer().text(), "blue");
    client.assert_closed();
    assert_eq!(blue.request().target(), "/1");
}

#[test]
fn unix_sockets_on_both_sides() {
    let folder = tempfile::tempdir().unwrap();
    let (front, back) = (folder.path().join("front.sock"), folder.path().join("back.sock"));
    let blue = Backend::unix(&back, |wire, _| {
        while wire.request().is_some() {
            wire.send(ok("blue"));
        }
    });
    let proxy = Setup::new()
        .listeners(&format!("[[listener]]\naddress = \"unix:{}\"\n", front.display()))
        .blue(&blue, "")
        .start();
    let mut client = Wire::unix(&front);
    assert_eq!(client.get("/").text(), "blue");
    assert_eq!(client.post("/", "body").text(), "blue");
    let requests = blue.requests();
    assert_eq!(requests[1].text(), "body");
    assert_eq!(requests[0].field("x-forwarded-for"), Some("unix:"));
    drop(client);
    drop(proxy);
}

#[test]
fn a_stop_lets_running_requests_finish() {
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let blue = Backend::script(move |wire, _| {
        wire.request();
        wire.send("HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\nhalf");
        wait.lock().unwrap().recv().unwrap();
        wire.send("half");
    });
    let mut proxy = Setup::new().blue(&blue, "").start();
    let mut client = proxy.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.head().status(), 200);
    proxy.begin_stop();
    go.send(()).unwrap();
    assert_eq!(client.bytes(8), b"halfhalf");
    client.assert_closed();
    proxy.stop();
}
