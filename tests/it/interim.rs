//! 1xx: consumed, never passed on; `Expect` answered by the proxy once it has reached an app.

use crate::harness::{Backend, Proxy, ok, until};

const UPLOAD: &str = "PUT /up HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n";

#[test]
fn interim_answers_nobody_asked_for_are_consumed() {
    for interim in [
        "HTTP/1.1 100 Continue\r\n\r\n",
        "HTTP/1.1 102 Processing\r\n\r\n",
        "HTTP/1.1 103 Early Hints\r\nlink: </a.css>; rel=preload\r\n\r\n",
        "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\n",
    ] {
        let blue = Backend::handler(move |_| [interim.as_bytes(), &ok("blue")].concat());
        let proxy = Proxy::before(&blue);
        let mut client = proxy.client();
        for _ in 0..3 {
            let answer = client.get("/");
            assert_eq!(
                (answer.status(), answer.text().as_str()),
                (200, "blue"),
                "{interim}"
            );
            assert_eq!(answer.field("link"), None);
        }
        assert_eq!(blue.connections(), 1);
    }
}

#[test]
fn a_101_nobody_asked_for_is_502_and_opens_no_tunnel() {
    let blue = Backend::script(|wire, _| {
        while wire.request().is_some() {
            wire.send(
                "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\nsecret",
            );
        }
    });
    let proxy = Proxy::before(&blue);
    let mut client = proxy.client();
    assert_eq!(client.get("/").status(), 502);
    for request in blue.requests() {
        assert_eq!(
            (request.field("upgrade"), request.field("connection")),
            (None, None)
        );
    }
    assert_eq!(
        client.get("/").status(),
        502,
        "the client's connection is in step"
    );
}

#[test]
fn expect_is_answered_when_the_app_is_reached_and_not_passed_on() {
    let blue = Backend::blue();
    let proxy = Proxy::before(&blue);
    let mut client = proxy.client();
    let interim = client.send(UPLOAD).head();
    assert_eq!(interim.status(), 100);
    assert_eq!(client.send("body").answer().text(), "blue");
    let request = blue.request();
    assert_eq!((request.field("expect"), request.text().as_str()), (None, "body"));
    assert_eq!(client.get("/").text(), "blue");
}

#[test]
fn expect_gets_no_100_when_no_app_can_be_reached() {
    let blue = Backend::blue();
    let proxy = Proxy::before(&blue);
    blue.stop_and_wait();
    let mut client = proxy.client();
    let answer = client.send(UPLOAD).head();
    assert!([502, 503].contains(&answer.status()), "{answer:?}");
    // The body was not asked for, so the next bytes would be ambiguous: the connection ends.
    assert_eq!(answer.field("connection"), Some("close"));
}

#[test]
fn expect_with_the_body_sent_at_once() {
    let blue = Backend::blue();
    let proxy = Proxy::before(&blue);
    let mut client = proxy.client();
    client.send(format!("{UPLOAD}body"));
    let mut answer = client.answer();
    if answer.status() == 100 {
        answer = client.answer();
    }
    assert_eq!(answer.text(), "blue");
    assert_eq!(blue.request().text(), "body");
}

#[test]
fn an_app_that_refuses_before_the_body_is_heard() {
    let blue = Backend::script(|wire, _| {
        wire.request_head();
        wire.send("HTTP/1.1 417 Expectation Failed\r\ncontent-length: 2\r\n\r\nno");
    });
    let proxy = Proxy::before(&blue);
    let mut client = proxy.client();
    let mut answer = client.send(UPLOAD).answer();
    if answer.status() == 100 {
        answer = client.answer();
    }
    assert_eq!((answer.status(), answer.text().as_str()), (417, "no"));
    // The body never came, so the connection cannot go on.
    client.assert_closed();
    until("the app was let go", || blue.open() == 0);
}
