//! gRPC through the proxy, its frames by hand: what a call is told when it is not served, or not any more.
//!
//! Real clients and servers at both ends are in tests/e2e/grpc.rs.

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::{HeaderValue, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Incoming;
use serde_json::json;

use crate::harness::service::{Body, Service, Speaks, pause};
use crate::harness::{Message, Proxy, Setup, until};

const CALL: &str = "POST /shop.Orders/Watch HTTP/1.1\r\nHost: shop.test\r\nTE: trailers\r\n\
    Content-Type: application/grpc+proto\r\nContent-Length: 5\r\n";
/// An empty message.
const EMPTY: &str = "\0\0\0\0\0";

/// A call with these fields.
fn call(fields: &str) -> String {
    format!("{CALL}{fields}\r\n{EMPTY}")
}

/// What gRPC says of an answer that has nothing else.
#[track_caller]
fn refused(answer: &Message) -> (&str, &str) {
    assert_eq!(
        (answer.status(), answer.field("content-type")),
        (200, Some("application/grpc")),
        "{answer:?}"
    );
    assert!(answer.body.is_empty(), "{answer:?}");
    let field = |name| answer.field(name).unwrap_or_default();
    (field("grpc-status"), field("grpc-message"))
}

/// App `web` with one endpoint a color, blue active, and further lines of `[app.web]`.
fn colors(blue: &str, green: &str, lines: &str) -> Proxy {
    Setup::new()
        .toml(&format!(
            "[app.web]\nhosts = [\"shop.test\"]\ninitial = \"blue\"\nblue = [\"h2c://{blue}\"]\ngreen = [\"h2c://{green}\"]\n\
             health.path = \"/healthz\"\nhealth.interval = \"50ms\"\nhealth.timeout = \"5s\"\n{lines}"
        ))
        .start_unready()
}

/// A message that says a color, again and again.
fn ticks(color: &'static str) -> Response<Body> {
    let message = move |()| async move {
        pause(5).await;
        let message = [&[0, 0, 0, 0, 100][..], &[color.as_bytes()[0]; 100]].concat();
        // In two pieces: a cut between them would be seen.
        let (first, second) = message.split_at(50);
        [
            Ok(Frame::data(Bytes::copy_from_slice(first))),
            Ok(Frame::data(Bytes::copy_from_slice(second))),
        ]
    };
    let pieces = stream::repeat(()).then(message).flat_map(stream::iter);
    let mut answer = Response::new(BodyExt::boxed(StreamBody::new(pieces)));
    let headers = answer.headers_mut();
    headers.insert("content-type", HeaderValue::from_static("application/grpc"));
    // So that an HTTP/1.1 client gets them.
    headers.insert("trailer", HeaderValue::from_static("grpc-status, grpc-message"));
    answer
}

#[test]
fn a_refusal_is_a_status_of_its_own_and_never_a_page() {
    let closed = "127.0.0.1:1";
    let proxy = colors("127.0.0.1:2", closed, "limits.body_bytes = 20\n");
    let answer = proxy.client().ask(call(""));
    assert_eq!(refused(&answer).0, "14");
    assert!(
        ["connect failed", "no healthy endpoint"].contains(&refused(&answer).1),
        "{answer:?}"
    );
    let elsewhere = call("").replace("shop.test", "elsewhere.test");
    assert_eq!(
        refused(&proxy.client().ask(elsewhere)),
        ("12", "no app or service matches")
    );
    let page = proxy.client().post("/", "x");
    assert!(
        [502, 503].contains(&page.status()),
        "others get what they always got: {page:?}"
    );
    let app = Service::new(Speaks::H2c, |_| async { ticks("blue") });
    let address = app.address.to_string();
    let proxy = colors(&address, closed, "limits.body_bytes = 4\n");
    until("blue is there", || proxy.get("/readyz").status == 200);
    assert_eq!(refused(&proxy.client().ask(call(""))).0, "8");
    proxy
        .post(
            "maintenance",
            json!({ "on": true, "message": "back at 9, 100 %" }),
        )
        .done();
    assert_eq!(
        refused(&proxy.client().ask(call(""))),
        ("14", "back at 9, 100 %25")
    );
}

#[test]
fn the_deadline_of_a_call_stands_over_that_of_the_file() {
    let app = Service::new(Speaks::H2c, |request: Request<Incoming>| async move {
        assert_eq!(request.headers()["grpc-timeout"], "300m", "the app knows it too");
        pause(3_600_000).await;
        ticks("blue")
    });
    let proxy = colors(
        &app.address.to_string(),
        "127.0.0.1:1",
        "timeouts.first_byte = \"1h\"\n",
    );
    until("blue is there", || proxy.get("/readyz").status == 200);
    let answer = proxy.client().ask(call("grpc-timeout: 300m\r\n"));
    assert_eq!(refused(&answer).0, "4");
    let impatient = "timeouts.first_byte = \"100ms\"\n";
    let proxy = colors(&app.address.to_string(), "127.0.0.1:1", impatient);
    until("blue is there", || proxy.get("/readyz").status == 200);
    let answer = proxy.client().ask(call("grpc-timeout: 300m\r\n"));
    assert_eq!(refused(&answer).0, "4");
}

#[test]
fn a_call_ends_between_two_messages_and_says_so() {
    let app = |color| Service::new(Speaks::H2c, move |_| async move { ticks(color) });
    let (blue, green) = (app("blue"), app("green"));
    let (blue_at, green_at) = (blue.address.to_string(), green.address.to_string());
    let lines = "drain.streams = { policy = \"close\" }\n";
    let proxy = colors(&blue_at, &green_at, lines);
    until("both are there", || {
        proxy.get("/readyz").status == 200 && proxy.metric("cutover_endpoint_up", &[]) == 2.0
    });
    let mut client = proxy.client();
    client.send(call(""));
    until("it is a stream", || {
        proxy.metric("cutover_streams_open", &["kind=\"grpc\""]) == 1.0
    });
    proxy.switch("green");
    let answer = client.answer();
    assert_eq!(answer.status(), 200);
    assert!(
        !answer.body.is_empty() && answer.body.len().is_multiple_of(105),
        "{} bytes",
        answer.body.len()
    );
    let said = |name: &str| {
        let found = answer.trailers.iter().find(|(field, _)| field == name);
        found.map(|(_, value)| value.as_str())
    };
    assert_eq!(said("grpc-status"), Some("14"), "{:?}", answer.trailers);
    assert_eq!(said("grpc-message"), Some("the app has moved: call again"));
    until("no stream is left", || {
        proxy.metric("cutover_streams_open", &["kind=\"grpc\""]) == 0.0
    });

    // With `keep` it goes on; an app that breaks off is said to be unavailable.
    let kept = colors(&blue_at, &green_at, "drain.streams = { policy = \"keep\" }\n");
    until("both are there", || {
        kept.get("/readyz").status == 200 && kept.metric("cutover_endpoint_up", &[]) == 2.0
    });
    let mut client = kept.client();
    client.send(call(""));
    until("it is a stream", || {
        kept.metric("cutover_streams_open", &["kind=\"grpc\""]) == 1.0
    });
    kept.switch("green");
    assert_eq!(
        kept.metric("cutover_streams_open", &["kind=\"grpc\"", "color=\"blue\""]),
        1.0
    );
    blue.hang_up();
    let answer = client.answer();
    assert!(
        answer
            .trailers
            .contains(&("grpc-status".to_owned(), "14".to_owned())),
        "{:?}",
        answer.trailers
    );
}
