//! `https://` endpoints: whom they are believed to be, what is said when they are not, and what survives a renewal.

use http::Response;
use hyper_util::rt::TokioIo;
use serde_json::Value;

use crate::harness::service::{Service, Speaks, whole};
use crate::harness::tls::{Authority, Kind};
use crate::harness::websocket::{self, Frame};
use crate::harness::{Backend, Proxy, Setup, until};

/// An app over TLS for `app.test` and 127.0.0.1 that tells what it was asked.
fn secure(authority: &Authority, alpn: &[&str]) -> Service {
    authority.issue("app", &["app.test", "127.0.0.1"], Kind::Ecdsa);
    let speaks = Speaks::Tls(authority.server("app", alpn, false));
    Service::new(speaks, |request| async move {
        let host = request
            .headers()
            .get("host")
            .map(|host| host.to_str().unwrap().to_owned());
        let authority = request.uri().authority().map(ToString::to_string);
        let host = host.or(authority).unwrap_or_default();
        Response::new(whole(format!("{} {host}", request.uri().path())))
    })
}

/// App `web` with this one blue endpoint and further lines of `[app.web]`.
fn before(endpoint: &str, lines: &str) -> Setup {
    let interval = if lines.contains("interval") {
        ""
    } else {
        "health.interval = \"50ms\"\n"
    };
    Setup::new().toml(&format!(
        "[app.web]\ninitial = \"blue\"\nblue = [\"{endpoint}\"]\nhealth.timeout = \"5s\"\n{interval}{lines}"
    ))
}

fn ca(authority: &Authority) -> String {
    format!("tls.ca = {:?}\n", authority.path("ca.pem").display().to_string())
}

/// What `status` shows of the only endpoint.
fn shown(proxy: &Proxy) -> (String, String) {
    let app = proxy.app();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let endpoint = find(&app, "reason").unwrap_or_default();
    (text(&endpoint["health"]), text(&endpoint["last_probe"]["reason"]))
}

/// The first object in it that has a probe with this key.
fn find(value: &Value, key: &str) -> Option<Value> {
    match value {
        Value::Object(map)
            if map
                .get("last_probe")
                .is_some_and(|probe| probe.get(key).is_some()) =>
        {
            Some(value.clone())
        }
        Value::Object(map) => map.values().find_map(|value| find(value, key)),
        Value::Array(list) => list.iter().find_map(|value| find(value, key)),
        _ => None,
    }
}

#[test]
fn an_app_behind_tls_is_reached_and_probed_through_it() {
    let authority = Authority::new();
    let app = secure(&authority, &["http/1.1"]);
    let lines = ca(&authority) + "health.path = \"/healthz\"\n";
    let proxy = before(&format!("https://{}", app.address), &lines).start();
    let mut client = proxy.client();
    assert_eq!(client.get("/a").text(), "/a shop.test");
    assert_eq!(
        client.get("/b").text(),
        "/b shop.test",
        "over the same connection"
    );
    until("the probes pass", || shown(&proxy).0 == "healthy");
    assert_eq!(app.over("HTTP/1.1"), 2);
    until("later probes resume the session", || app.resumed() > 0);
}

#[test]
fn the_endpoints_own_name_is_its_host_and_server_name() {
    let authority = Authority::new();
    let app = secure(&authority, &["http/1.1"]);
    let port = app.address.port();
    authority.issue("other", &["localhost"], Kind::Ecdsa);
    let other = Service::says(Speaks::Tls(authority.server("other", &[], false)), "other");
    let name = format!("https://localhost:{}", other.address.port());
    let by_name = before(&name, &(ca(&authority) + "headers.host = \"upstream\"\n")).start();
    until("the name is resolved", || by_name.fetch("/").status() == 200);
    // A fixed name is both; `server_name` is the certificate's alone.
    let fixed = ca(&authority) + "headers.host = \"app.test\"\n";
    let fixed = before(&format!("https://127.0.0.1:{port}"), &fixed).start();
    assert_eq!(fixed.fetch("/").text(), "/ app.test");
    let named = ca(&authority) + "tls.server_name = \"app.test\"\nheaders.host = \"upstream\"\n";
    let named = before(&format!("https://127.0.0.1:{port}"), &named).start();
    assert_eq!(named.fetch("/").text(), format!("/ 127.0.0.1:{port}"));
}

#[test]
fn who_is_not_believed_is_refused_with_the_reason() {
    let ours = Authority::new();
    let foreign = Authority::named("another CA");
    foreign.issue("app", &["127.0.0.1"], Kind::Ecdsa);
    ours.issue("wrong", &["elsewhere.test"], Kind::Ecdsa);
    ours.issue_as("old", &["127.0.0.1"], Kind::Ecdsa, |params| {
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2021, 1, 1);
    });
    ours.issue_as("early", &["127.0.0.1"], Kind::Ecdsa, |params| {
        params.not_before = rcgen::date_time_ymd(2120, 1, 1);
        params.not_after = rcgen::date_time_ymd(2121, 1, 1);
    });
    let tls = |authority: &Authority, name: &str, asks| Speaks::Tls(authority.server(name, &[], asks));
    ours.issue("good", &["127.0.0.1"], Kind::Ecdsa);
    for (speaks, why) in [
        (
            tls(&foreign, "app", false),
            "certificate refused: its issuer is unknown",
        ),
        (tls(&ours, "wrong", false), "it is for elsewhere.test"),
        (tls(&ours, "old", false), "it expired at 2021-01-01T00:00:00Z"),
        (tls(&ours, "early", false), "it is not valid before 2120-01-01"),
        (tls(&ours, "good", true), "it wants a client certificate"),
    ] {
        let app = Service::says(speaks, "must not be seen");
        let lines = ca(&ours) + "health.path = \"/healthz\"\n";
        let proxy = before(&format!("https://{}", app.address), &lines).start_unready();
        until(&format!("{why}: {:?}", shown(&proxy)), || {
            shown(&proxy).1.contains(why)
        });
        assert_eq!(shown(&proxy).0, "unreachable", "{why}");
        let answer = proxy.fetch("/");
        assert!([502, 503].contains(&answer.status()), "{answer:?}");
        assert_eq!(app.requests(), 0, "{why}");
    }
    let plain = Backend::script(|wire, _| {
        wire.send("HTTP/1.1 400 Bad Request\r\n\r\n");
    });
    let proxy = before(&format!("https://{}", plain.address()), &ca(&ours)).start_unready();
    until("it speaks no TLS", || {
        shown(&proxy).1.contains("does not speak TLS") || shown(&proxy).1.contains("closed the connection")
    });
}

#[test]
fn a_certificate_of_our_own_is_shown_and_renewed_without_a_restart() {
    let authority = Authority::new();
    authority.issue("app", &["127.0.0.1"], Kind::Ecdsa);
    authority.issue("us", &["us.test"], Kind::Ecdsa);
    let app = Service::says(Speaks::Tls(authority.server("app", &[], true)), "you are known");
    let path = |end: &str| format!("{:?}", authority.path(end).display().to_string());
    let lines = format!(
        "{}tls.client_cert = {}\ntls.client_key = {}\ntimeouts.upstream_idle = \"0\"\nhealth.interval = \"1h\"\n",
        ca(&authority),
        path("us.pem"),
        path("us.key")
    );
    let setup = before(&format!("https://{}", app.address), &lines).access_log();
    let proxy = setup.start();
    assert_eq!(proxy.fetch("/").text(), "you are known");
    // A renewal that is no certificate changes nothing and is told.
    let good = std::fs::read(authority.path("us.pem")).unwrap();
    authority.replace("us.pem", "nonsense");
    let warned = || {
        let status = proxy.get("/v1/status").done().json;
        status["warnings"].to_string().contains("TLS towards apps")
    };
    until("it is told", warned);
    assert_eq!(proxy.fetch("/").text(), "you are known", "with the old one");
    authority.replace("us.pem", good);
    until("it is well again", || !warned());
    // Another authority: the app is not believed any more.
    let other = Authority::new();
    let trusted = std::fs::read(authority.path("ca.pem")).unwrap();
    authority.replace("ca.pem", std::fs::read(other.path("ca.pem")).unwrap());
    until("the new authority counts", || proxy.fetch("/").status() == 502);
    until("the log has it", || {
        let log = std::fs::read_to_string(proxy.folder().join("access.log")).unwrap_or_default();
        log.contains("no TLS with the app")
    });
    authority.replace("ca.pem", trusted);
    until("and the old one again", || proxy.fetch("/").status() == 200);
}

#[test]
fn a_websocket_goes_through_tls() {
    let authority = Authority::new();
    authority.issue("app", &["127.0.0.1"], Kind::Ecdsa);
    let app = Service::new(
        Speaks::Tls(authority.server("app", &[], false)),
        |mut request| async move {
            let upgraded = hyper::upgrade::on(&mut request);
            tokio::spawn(async move {
                let mut stream = TokioIo::new(upgraded.await.unwrap());
                let (mut from, mut to) = tokio::io::split(&mut stream);
                let _ = tokio::io::copy(&mut from, &mut to).await;
            });
            let agreed = Response::builder().status(101).header("connection", "upgrade");
            agreed.header("upgrade", "websocket").body(whole("")).unwrap()
        },
    );
    let proxy = before(&format!("https://{}", app.address), &ca(&authority)).start();
    let mut client = proxy.client();
    websocket::open(&mut client);
    client.send(Frame::text("hello").masked().bytes());
    assert_eq!(websocket::read(&mut client).unwrap().payload, b"hello");
}
