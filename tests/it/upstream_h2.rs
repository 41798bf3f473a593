//! HTTP/2 towards the apps: many requests on few connections, and none of them lost when one of those ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Incoming;
use tokio::sync::Semaphore;

use crate::harness::service::{Body, Service, Speaks, pause, whole};
use crate::harness::tls::{Authority, Kind};
use crate::harness::websocket::ASK;
use crate::harness::{Ends, Proxy, Setup, until};

/// App `web` with one endpoint a color, blue active, and further lines of `[app.web]`.
fn colors(blue: &Service, green: Option<&Service>, lines: &str) -> Proxy {
    let green = green.map_or(String::new(), |green| {
        format!("green = [\"h2c://{}\"]\n", green.address)
    });
    Setup::new()
        .toml(&format!(
            "[app.web]\ninitial = \"blue\"\nblue = [\"h2c://{}\"]\n{green}\
             health.path = \"/healthz\"\nhealth.interval = \"50ms\"\nhealth.timeout = \"5s\"\n{lines}",
            blue.address
        ))
        .start()
}

async fn echo(request: Request<Incoming>) -> Response<Body> {
    let head = format!(
        "{} {} {}",
        request.method(),
        request.uri(),
        request
            .headers()
            .get("x-forwarded-host")
            .map_or("", |host| host.to_str().unwrap())
    );
    let body = request
        .into_body()
        .collect()
        .await
        .map(http_body_util::Collected::to_bytes);
    let body = body.unwrap_or_else(|error| Bytes::from(error.to_string()));
    Response::new(whole([head.as_bytes(), b"\n", &body[..]].concat()))
}

#[test]
fn requests_of_http1_clients_go_out_as_streams() {
    let app = Service::new(Speaks::H2c, echo);
    let proxy = colors(&app, None, "");
    let mut client = proxy.client();
    assert_eq!(
        client.get("/a?b=c").text(),
        "GET http://shop.test/a?b=c shop.test\n"
    );
    assert_eq!(
        client.post("/p", "hello").text(),
        "POST http://shop.test/p shop.test\nhello"
    );
    let chunked =
        "POST /c HTTP/1.1\r\nHost: shop.test\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    assert_eq!(
        client.ask(chunked).text(),
        "POST http://shop.test/c shop.test\nabc"
    );
    let head = client.ask("HEAD / HTTP/1.1\r\nHost: shop.test\r\n\r\n");
    assert_eq!((head.status(), head.field("content-length")), (200, Some("33")));
    let large = "x".repeat(3 << 20);
    assert!(
        client.post("/large", &large).text().ends_with(&large),
        "past every window"
    );
    assert_eq!(app.over("HTTP/2.0"), 5);
}

#[test]
fn many_requests_share_a_connection() {
    const MANY: usize = 40;
    let gate = Arc::new(Semaphore::new(0));
    let of_app = Arc::clone(&gate);
    let app = Service::new(Speaks::H2c, move |_| {
        let gate = Arc::clone(&of_app);
        async move {
            gate.acquire().await.unwrap().forget();
            Response::new(whole("blue"))
        }
    });
    let proxy = colors(&app, None, "timeouts.upstream_idle = \"1h\"\n");
    std::thread::scope(|scope| {
        for _ in 0..MANY {
            scope.spawn(|| assert_eq!(proxy.says(), "blue"));
        }
        until("all are there at once", || app.most_at_once() == MANY);
        gate.add_permits(MANY);
    });
    // One for each of the two workers; those of probes are closed.
    assert!(app.open() <= 3, "{} connections", app.open());
}

#[test]
fn an_app_never_gets_more_streams_than_it_allows_at_once() {
    let app = Service::with_streams(Speaks::H2c, 2, |_| async {
        pause(20).await;
        Response::new(whole("blue"))
    });
    let proxy = colors(&app, None, "");
    std::thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                let mut client = proxy.client();
                for _ in 0..3 {
                    assert_eq!(client.get("/").text(), "blue");
                }
            });
        }
    });
    assert_eq!(app.over("HTTP/2.0"), 48);
}

#[test]
fn a_goaway_loses_nothing() {
    let app = Service::new(Speaks::H2c, |request: Request<Incoming>| async move {
        pause(1).await;
        echo(request).await
    });
    let proxy = colors(&app, None, "");
    let (done, served) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut client = proxy.client();
                while !done.load(SeqCst) {
                    let answer = client.get("/");
                    assert_eq!(answer.status(), 200, "{answer:?}");
                    let answer = client.post("/", "body");
                    assert!(answer.text().ends_with("\nbody"), "{answer:?}");
                    served.fetch_add(2, SeqCst);
                }
            });
        }
        let _ends = Ends(&done);
        for round in 1..=30 {
            app.leave();
            let before = served.load(SeqCst);
            until("requests go on", || served.load(SeqCst) > before + 8);
            assert!(round < 31);
        }
    });
    assert!(
        app.connections() > 10,
        "connections were replaced: {}",
        app.connections()
    );
}

#[test]
fn a_connection_that_breaks_fails_its_requests_and_no_others() {
    let gate = Arc::new(Semaphore::new(0));
    let of_app = Arc::clone(&gate);
    let app = Service::new(Speaks::H2c, move |request: Request<Incoming>| {
        let gate = Arc::clone(&of_app);
        async move {
            if request.uri().path() == "/wait" {
                gate.acquire().await.unwrap().forget();
            }
            Response::new(whole("blue"))
        }
    });
    let proxy = colors(&app, None, "");
    let mut waits = proxy.client();
    // No GET: that would go out once more.
    waits.send("POST /wait HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n");
    until("it is there", || app.requests() == 1);
    app.hang_up();
    assert_eq!(waits.answer().status(), 502);
    assert_eq!(proxy.says(), "blue");
}

/// A body of one piece of data, then trailers.
fn with_trailers(text: &'static str) -> Body {
    let trailers = HeaderMap::from_iter([(
        http::HeaderName::from_static("x-sum"),
        HeaderValue::from_static("42"),
    )]);
    let frames = [
        Ok(Frame::data(Bytes::from_static(text.as_bytes()))),
        Ok(Frame::trailers(trailers)),
    ];
    StreamBody::new(stream::iter(frames)).boxed()
}

#[test]
fn trailers_pass_both_ways() {
    let app = Service::new(Speaks::H2c, |request: Request<Incoming>| async move {
        let collected = request.into_body().collect().await.unwrap();
        let sum = collected
            .trailers()
            .and_then(|trailers| trailers.get("x-in").cloned());
        let mut answer = Response::new(with_trailers("data"));
        answer
            .headers_mut()
            .insert("trailer", HeaderValue::from_static("x-sum"));
        if let Some(sum) = sum {
            answer.headers_mut().insert("x-seen", sum);
        }
        answer
    });
    let proxy = colors(&app, None, "");
    let answer = proxy.client().ask(
        "POST / HTTP/1.1\r\nHost: h\r\nTE: trailers\r\nTrailer: x-in\r\nTransfer-Encoding: chunked\r\n\r\n\
         2\r\nhi\r\n0\r\nx-in: 7\r\n\r\n",
    );
    assert_eq!(
        (answer.text().as_str(), answer.field("x-seen")),
        ("data", Some("7"))
    );
    assert_eq!(answer.trailers, [("x-sum".to_owned(), "42".to_owned())]);
}

#[test]
fn streams_of_a_color_that_is_left_finish_and_its_deadline_cuts_only_them() {
    let gate = Arc::new(Semaphore::new(0));
    let app = |color: &'static str| {
        let gate = Arc::clone(&gate);
        Service::new(Speaks::H2c, move |request: Request<Incoming>| {
            let gate = Arc::clone(&gate);
            async move {
                if request.uri().path() == "/wait" {
                    gate.acquire().await.unwrap().forget();
                }
                Response::new(whole(color))
            }
        })
    };
    let (blue, green) = (app("blue"), app("green"));
    let proxy = colors(&blue, Some(&green), "drain.http = \"20s\"\n");
    let mut waits = proxy.client();
    waits.send("GET /wait HTTP/1.1\r\nHost: h\r\n\r\n");
    until("blue has it", || blue.requests() >= 1);
    proxy.switch("green");
    assert_eq!(proxy.says(), "green");
    gate.add_permits(1);
    assert_eq!(waits.answer().text(), "blue", "it keeps what it chose");
    until("blue's connections are closed", || blue.open() == 0);

    let hasty = colors(&blue, Some(&green), "drain.http = \"100ms\"\n");
    let (mut cut, mut stays) = (hasty.client(), hasty.client());
    let before = blue.requests();
    cut.send("GET /wait HTTP/1.1\r\nHost: h\r\n\r\n");
    until("blue has it", || blue.requests() > before);
    hasty.switch("green");
    let before = green.requests();
    stays.send("GET /wait HTTP/1.1\r\nHost: h\r\n\r\n");
    until("green has it", || green.requests() > before);
    assert_eq!(cut.answer().status(), 504);
    gate.add_permits(2);
    assert_eq!(stays.answer().text(), "green");
}

#[test]
fn alpn_decides_and_a_switch_of_protocols_gets_http1() {
    let authority = Authority::new();
    authority.issue("app", &["127.0.0.1"], Kind::Ecdsa);
    let app = |alpn: &[&str]| Service::new(Speaks::Tls(authority.server("app", alpn, false)), echo);
    let ca = format!("tls.ca = {:?}\n", authority.path("ca.pem").display().to_string());
    let before = |app: &Service, lines: &str| {
        let toml = format!(
            "[app.web]\ninitial = \"blue\"\nblue = [\"https://{}\"]\nhealth.path = \"/healthz\"\n{ca}{lines}",
            app.address
        );
        Setup::new().toml(&toml).start()
    };
    let both = app(&["h2", "http/1.1"]);
    let proxy = before(&both, "");
    assert_eq!(proxy.fetch("/").text(), "GET https://shop.test/ shop.test\n");
    assert_eq!((both.over("HTTP/2.0"), both.over("HTTP/1.1")), (1, 0));
    let asked = proxy.client().ask(ASK);
    assert_eq!((asked.status(), both.over("HTTP/1.1")), (200, 1), "{asked:?}");
    let old = app(&["http/1.1"]);
    let proxy = before(&old, "");
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| assert_eq!(proxy.fetch("/").text(), "GET / shop.test\n"));
        }
    });
    assert_eq!(old.over("HTTP/1.1"), 8);
    let refused = app(&["h2", "http/1.1"]);
    let proxy = before(&refused, "tls.http2 = false\n");
    assert_eq!(proxy.fetch("/").text(), "GET / shop.test\n");
    // In clear text there is no choice: the wish is left unanswered (RFC 9110 §7.8).
    let plain = Service::new(Speaks::H2c, echo);
    let answer = colors(&plain, None, "").client().ask(ASK);
    assert_eq!((answer.status(), plain.over("HTTP/2.0")), (200, 1));
}

#[test]
fn an_app_that_is_silent_runs_into_the_deadline_and_hears_of_it() {
    let gone = Arc::new(AtomicUsize::new(0));
    let of_app = Arc::clone(&gone);
    let app = Service::new(Speaks::H2c, move |_| {
        let gone = Arc::clone(&of_app);
        async move {
            struct Gone(Arc<AtomicUsize>);
            impl Drop for Gone {
                fn drop(&mut self) {
                    self.0.fetch_add(1, SeqCst);
                }
            }
            let _gone = Gone(gone);
            tokio::time::sleep(Duration::from_secs(3600)).await;
            Response::new(whole("never"))
        }
    });
    let proxy = colors(&app, None, "timeouts.first_byte = \"200ms\"\n");
    assert_eq!(proxy.fetch("/").status(), 504);
    until("the stream is reset", || gone.load(SeqCst) == 1);
    // A client that goes away ends its stream too.
    let patient = colors(&app, None, "");
    let mut client = patient.client();
    client.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    until("it is there", || app.requests() == 2);
    client.reset();
    until("its stream is reset", || gone.load(SeqCst) == 2);
}

/// A gRPC answer: this message, then its status.
fn grpc(message: &'static [u8], status: &'static str) -> Response<Body> {
    let prefix = [0, 0, 0, 0, u8::try_from(message.len()).unwrap()];
    let data = Bytes::from([&prefix[..], message].concat());
    let name = http::HeaderName::from_static("grpc-status");
    let trailers = HeaderMap::from_iter([(name, HeaderValue::from_static(status))]);
    let frames = [Ok(Frame::data(data)), Ok(Frame::trailers(trailers))];
    let mut answer = Response::new(StreamBody::new(stream::iter(frames)).boxed());
    answer
        .headers_mut()
        .insert("content-type", HeaderValue::from_static("application/grpc"));
    answer
}

#[test]
fn a_grpc_probe_asks_the_health_service() {
    let serving = Arc::new(AtomicBool::new(true));
    let of_app = Arc::clone(&serving);
    let app = Service::new(Speaks::H2c, move |request: Request<Incoming>| {
        let serving = Arc::clone(&of_app);
        async move {
            assert_eq!(request.uri().path(), "/grpc.health.v1.Health/Check");
            assert_eq!(request.headers()["te"], "trailers");
            let body = request.into_body().collect().await.unwrap().to_bytes();
            assert_eq!(&body[..], [b"\0\0\0\0\x06\x0a\x04".as_slice(), b"shop"].concat());
            grpc(if serving.load(SeqCst) { &[8, 1] } else { &[8, 2] }, "0")
        }
    });
    let toml = format!(
        "[app.web]\ninitial = \"blue\"\nblue = [\"h2c://{}\"]\nhealth.kind = \"grpc\"\n\
         health.grpc_service = \"shop\"\nhealth.interval = \"50ms\"\nhealth.timeout = \"5s\"\n",
        app.address
    );
    let proxy = Setup::new().toml(&toml).start();
    let shown = || proxy.get("/v1/apps/web").done().text;
    until("it is healthy", || {
        shown().contains("\"SERVING\"") && shown().contains("\"healthy\"")
    });
    serving.store(false, SeqCst);
    until("it is not", || {
        shown().contains("\"NOT_SERVING\"") && shown().contains("\"failing\"")
    });
}
