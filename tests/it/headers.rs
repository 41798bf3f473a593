//! Heads on their way through: what is meant for one connection stays on it, who asked is told truthfully.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use crate::harness::{Backend, Message, Proxy, Setup, ok};

/// What the app saw of a `GET` with these field lines.
fn seen(proxy: &Proxy, blue: &Backend, lines: &str) -> Message {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let target = format!("/{}", NEXT.fetch_add(1, Relaxed));
    let answer = proxy
        .client()
        .ask(format!("GET {target} HTTP/1.1\r\n{lines}\r\n\r\n"));
    assert_eq!(answer.status(), 200, "{lines}: {answer:?}");
    let mut requests = blue.requests();
    requests.retain(|request| request.target() == target);
    assert_eq!(requests.len(), 1);
    requests.remove(0)
}

#[test]
fn hop_by_hop_fields_do_not_reach_the_app() {
    let blue = Backend::blue();
    let proxy = Proxy::before(&blue);
    let request = seen(
        &proxy,
        &blue,
        "Host: a\r\nConnection: keep-alive, X-Private\r\nConnection: X-Also,,\r\nX-Private: 1\r\nX-Also: 2\r\n\
         Keep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\nTE: gzip;q=0.5\r\nUpgrade: h2c\r\n\
         HTTP2-Settings: AAMAAABkAAQAAP__\r\nProxy-Authorization: Basic eA==\r\nX-Public: 3",
    );
    for gone in [
        "connection",
        "x-private",
        "x-also",
        "keep-alive",
        "proxy-connection",
        "te",
        "upgrade",
        "http2-settings",
        "proxy-authorization",
    ] {
        assert_eq!(request.all(gone), [""; 0], "{gone}");
    }
    assert_eq!(request.field("x-public"), Some("3"));
}

#[test]
fn hop_by_hop_fields_do_not_reach_the_client() {
    let blue = Backend::handler(|_| {
        b"HTTP/1.1 200 OK\r\nconnection: keep-alive, x-private\r\nx-private: 1\r\nkeep-alive: timeout=5\r\n\
          proxy-connection: keep-alive\r\nupgrade: h2c\r\nx-public: 3\r\ncontent-length: 4\r\n\r\nblue"
            .to_vec()
    });
    let proxy = Proxy::before(&blue);
    let answer = proxy.fetch("/");
    for gone in [
        "connection",
        "x-private",
        "keep-alive",
        "proxy-connection",
        "upgrade",
    ] {
        assert_eq!(answer.all(gone), [""; 0], "{gone}");
    }
    assert_eq!(
        (answer.field("x-public"), answer.text().as_str()),
        (Some("3"), "blue")
    );
}

#[test]
fn naming_fields_that_frame_or_route_does_no_harm() {
    let blue = Backend::blue();
    let proxy = Proxy::before(&blue);
    let answer = proxy.client().ask(
        "POST / HTTP/1.1\r\nHost: a\r\nConnection: Host, Content-Length, X-Forwarded-For, X-Real-IP, \
         Transfer-Encoding, X-Request-Id\r\nContent-Length: 4\r\n\r\nbody",
    );
    assert_eq!(answer.text(), "blue");
    let request = blue.request();
    assert_eq!(
        (request.field("host"), request.text().as_str()),
        (Some("a"), "body")
    );
    assert_eq!(request.field("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(request.field("x-real-ip"), Some("127.0.0.1"));
    assert!(request.field("x-request-id").is_some());

    let answer = proxy.client().ask(
        "POST / HTTP/1.1\r\nHost: a\r\nConnection: transfer-encoding\r\nTransfer-Encoding: chunked\r\n\r\n\
         4\r\nbody\r\n0\r\n\r\n",
    );
    assert_eq!(answer.text(), "blue");
    assert_eq!(blue.requests()[1].text(), "body");
}

#[test]
fn the_app_is_told_who_asked() {
    let blue = Backend::blue();
    let proxy = Proxy::before(&blue);
    let mut ids = std::collections::HashSet::new();
    for _ in 0..5 {
        let request = seen(&proxy, &blue, "Host: shop.test:8080");
        assert_eq!(request.field("host"), Some("shop.test:8080"));
        assert_eq!(request.field("x-forwarded-for"), Some("127.0.0.1"));
        assert_eq!(request.field("x-real-ip"), Some("127.0.0.1"));
        assert_eq!(request.field("x-forwarded-proto"), Some("http"));
        assert_eq!(request.field("x-forwarded-host"), Some("shop.test:8080"));
        ids.insert(request.field("x-request-id").unwrap().to_owned());
    }
    assert_eq!(ids.len(), 5);
}

const SPOOFED: &str = "Host: a\r\nX-Forwarded-For: 6.6.6.6\r\nX-Forwarded-For: 7.7.7.7\r\nX-Forwarded-Proto: https\r\n\
    X-Forwarded-Host: evil\r\nX-Forwarded-Port: 443\r\nX-Real-IP: 6.6.6.6\r\nForwarded: for=6.6.6.6\r\nX-Request-Id: mine-1";

#[test]
fn strangers_cannot_say_who_asked() {
    let blue = Backend::blue();
    let proxy = Proxy::before(&blue);
    let request = seen(&proxy, &blue, SPOOFED);
    assert_eq!(request.all("x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(request.all("x-real-ip"), ["127.0.0.1"]);
    assert_eq!(request.all("x-forwarded-proto"), ["http"]);
    assert_eq!(request.all("x-forwarded-host"), ["a"]);
    assert_eq!(request.all("x-forwarded-port"), [""; 0]);
    assert_eq!(request.all("forwarded"), [""; 0]);
    assert_eq!(request.field("x-request-id"), Some("mine-1"));
}

#[test]
fn trusted_proxies_can() {
    let blue = Backend::blue();
    let proxy = Setup::new()
        .server("trusted_proxies = [\"127.0.0.0/8\", \"10.0.0.0/8\"]")
        .blue(&blue, "")
        .start();
    let request = seen(&proxy, &blue, SPOOFED);
    assert_eq!(request.all("x-forwarded-for"), ["6.6.6.6, 7.7.7.7, 127.0.0.1"]);
    assert_eq!(request.all("x-real-ip"), ["7.7.7.7"]);
    assert_eq!(request.all("x-forwarded-proto"), ["https"]);
    assert_eq!(request.all("x-forwarded-host"), ["evil"]);
    assert_eq!(request.all("x-forwarded-port"), ["443"]);
    // It contradicts X-Forwarded-For, so it is somebody else's.
    assert_eq!(request.all("forwarded"), [""; 0]);
    // The client is the nearest address that is not trusted itself.
    let request = seen(
        &proxy,
        &blue,
        "Host: a\r\nX-Forwarded-For: 6.6.6.6, 9.9.9.9, 10.1.2.3",
    );
    assert_eq!(request.field("x-real-ip"), Some("9.9.9.9"));
}

#[test]
fn a_request_id_that_could_break_a_log_is_replaced() {
    let blue = Backend::blue();
    let proxy = Proxy::before(&blue);
    for bad in ["", "a b", "caf\u{e9}", &"x".repeat(200)] {
        let request = seen(&proxy, &blue, &format!("Host: a\r\nX-Request-Id: {bad}"));
        assert_eq!(request.field("x-request-id").unwrap().len(), 32, "{bad}");
    }
    let request = seen(
        &proxy,
        &blue,
        "Host: a\r\nTraceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    );
    assert!(request.field("traceparent").is_some());
}

#[test]
fn one_valid_host_is_needed() {
    let blue = Backend::blue();
    let proxy = Proxy::before(&blue);
    let refused = |lines: &str| {
        let answer = proxy.client().ask(format!("GET / HTTP/1.1\r\n{lines}\r\n\r\n"));
        assert_eq!(answer.status(), 400, "{lines:?} was taken");
    };
    refused("X-A: 1");
    refused("Host: a\r\nHost: b");
    refused("Host: a\r\nHost: a");
    for bad in [
        "a b",
        "a/b",
        "a?b",
        "a#b",
        "user@a",
        "a:b",
        "a:99999999",
        "[::1",
        "::1",
        "a\\b",
        "a<b",
        "a\"b",
        "a{b",
        "a|b",
        "a^b",
        "a`b",
        "http://a",
        "caf\u{e9}",
        "a%zz",
        "[zz]",
        "a:80:80",
        "@",
    ] {
        refused(&format!("Host: {bad}"));
    }
    for fine in ["a", "A.B.", "a:8080", "127.0.0.1", "[::1]:80", "a_b", "x-1.test"] {
        assert_eq!(
            seen(&proxy, &blue, &format!("Host: {fine}")).field("host"),
            Some(fine)
        );
    }
}

#[test]
fn the_absolute_form_wins_over_the_host_field() {
    let blue = Backend::blue();
    let proxy = Proxy::before(&blue);
    let mut client = proxy.client();
    let answer = client.ask("GET http://Shop.test:81/a?b HTTP/1.1\r\nHost: other.test\r\n\r\n");
    assert_eq!(answer.text(), "blue");
    let request = blue.request();
    assert_eq!(request.start, "GET /a?b HTTP/1.1");
    assert!(
        request
            .field("host")
            .unwrap()
            .eq_ignore_ascii_case("shop.test:81")
    );
    assert_eq!(
        client
            .ask("GET http://u:p@a/ HTTP/1.1\r\nHost: a\r\n\r\n")
            .status(),
        400
    );
    let mut client = proxy.client();
    assert_eq!(
        client.ask("GET http://a/ HTTP/1.1\r\nHost: a b\r\n\r\n").status(),
        400
    );
    assert_eq!(blue.requests().len(), 1);
    assert_eq!(
        proxy.client().ask("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n").text(),
        "blue"
    );
    assert_eq!(blue.requests()[1].start, "OPTIONS * HTTP/1.1");
}

#[test]
fn header_rules_apply() {
    let blue = Backend::handler(|_| {
        b"HTTP/1.1 200 OK\r\nserver: secret/1\r\nx-old: 1\r\ncontent-length: 4\r\n\r\nblue".to_vec()
    });
    let proxy = Setup::new()
        .blue(
            &blue,
            "headers.host = \"upstream\"\nheaders.expose_color = \"x-served-by\"\n\
             headers.request.set = { x-env = \"test\" }\nheaders.request.remove = [\"x-drop\"]\n\
             headers.response.set = { x-old = \"2\" }\nheaders.response.remove = [\"server\"]",
        )
        .start();
    let answer = proxy
        .client()
        .ask("GET / HTTP/1.1\r\nHost: a\r\nX-Drop: 1\r\nX-Env: mine\r\n\r\n");
    assert_eq!((answer.field("server"), answer.field("x-old")), (None, Some("2")));
    assert_eq!(answer.field("x-served-by"), Some("blue"));
    let request = blue.request();
    assert_eq!(
        (request.field("x-drop"), request.field("x-env")),
        (None, Some("test"))
    );
    assert_eq!(request.field("host"), Some(blue.address()));
    assert_eq!(request.field("x-forwarded-host"), Some("a"));
}

#[test]
fn the_secret_header_of_the_proof_is_never_passed_on() {
    let blue = Backend::handler(|_| ok("blue"));
    let proxy = Proxy::before(&blue);
    let request = seen(&proxy, &blue, "Host: a\r\nX-Cutover-Verify: 0123 web web");
    assert_eq!(request.field("x-cutover-verify"), None);
}

#[test]
fn a_service_has_rules_of_its_own_over_the_apps() {
    let blue = Backend::handler(|_| {
        b"HTTP/1.1 200 OK\r\nserver: x\r\nx-b: app\r\ncontent-length: 4\r\n\r\nblue".to_vec()
    });
    let address = blue.address();
    let proxy = Setup::new()
        .toml(&format!(
            "[app.web]\ninitial = \"blue\"\nheaders.request.set = {{ x-a = \"app\", x-b = \"app\" }}\n\
             headers.request.remove = [\"x-c\"]\nheaders.response.remove = [\"server\"]\n\
             [app.web.service.web]\nblue = [\"{address}\"]\n\
             [app.web.service.api]\npath_prefix = \"/api\"\nblue = [\"{address}\"]\nheaders.host = \"api.test\"\n\
             headers.request.set = {{ x-a = \"api\", x-c = \"api\" }}\nheaders.request.remove = [\"x-b\"]\n\
             headers.response.set = {{ server = \"y\" }}\nheaders.expose_color = \"\""
        ))
        .start();
    let lines = "Host: a\r\nX-A: 0\r\nX-B: 0\r\nX-C: 0\r\n\r\n";
    let web = proxy.client().ask(format!("GET / HTTP/1.1\r\n{lines}"));
    let api = proxy.client().ask(format!("GET /api HTTP/1.1\r\n{lines}"));
    let requests = blue.requests();
    let of = |target: &str| {
        let request = requests
            .iter()
            .find(|request| request.target() == target)
            .unwrap();
        ["host", "x-a", "x-b", "x-c"].map(|name| request.field(name).unwrap_or("-"))
    };
    assert_eq!(of("/"), ["a", "app", "app", "-"]);
    assert_eq!(of("/api"), ["api.test", "api", "-", "api"]);
    assert_eq!(
        (web.field("server"), web.field("x-cutover-color")),
        (None, Some("blue"))
    );
    assert_eq!(
        (api.field("server"), api.field("x-cutover-color")),
        (Some("y"), None)
    );
}

#[test]
fn an_app_under_a_name_of_its_own_speaks_of_the_clients() {
    let own = std::sync::Arc::new(std::sync::OnceLock::<String>::new());
    let name = std::sync::Arc::clone(&own);
    let blue = Backend::handler(move |_| {
        let name = name.get().unwrap();
        let host = name.split(':').next().unwrap();
        format!(
            "HTTP/1.1 302 Found\r\nlocation: http://{name}/login?next=/\r\nset-cookie: a=1; Domain={host}\r\n\
             set-cookie: b=2\r\ncontent-length: 0\r\n\r\n"
        )
        .into_bytes()
    });
    own.set(blue.address().to_owned()).unwrap();
    let told = |lines: &str| {
        let proxy = Setup::new().blue(&blue, lines).start();
        let answer = proxy.client().ask("GET / HTTP/1.1\r\nHost: shop.test:81\r\n\r\n");
        let cookies = answer.all("set-cookie").join(" | ");
        (answer.field("location").unwrap().to_owned(), cookies)
    };
    let own = format!("http://{}/login?next=/", blue.address());
    let rewritten = (
        "http://shop.test:81/login?next=/".to_owned(),
        "a=1; Domain=shop.test | b=2".to_owned(),
    );
    assert_eq!(told("headers.host = \"upstream\""), rewritten);
    assert_eq!(
        told("headers.host = \"upstream\"\nheaders.rewrite_location = false").0,
        own
    );
    assert_eq!(
        told("").0,
        own,
        "a name that the client used is nobody's to change"
    );
}

#[test]
fn request_ids_come_from_whom_the_operator_says() {
    let blue = Backend::blue();
    let id = |lines: &str, server: &str, name: &str| {
        let proxy = Setup::new().server(server).blue(&blue, lines).start();
        let answer = proxy
            .client()
            .ask("GET / HTTP/1.1\r\nHost: a\r\nX-Request-Id: mine\r\nX-Correlation: yours\r\n\r\n");
        let request = blue.requests().pop().unwrap();
        let told = request.field(name).unwrap_or("-").to_owned();
        assert_eq!(answer.all("x-request-id").len(), 0);
        (told, answer.field("x-correlation").map(str::to_owned))
    };
    assert_eq!(id("", "", "x-request-id").0, "mine");
    assert_eq!(
        id("headers.request_id_from = \"nobody\"", "", "x-request-id")
            .0
            .len(),
        32
    );
    assert_eq!(
        id("headers.request_id_from = \"trusted\"", "", "x-request-id")
            .0
            .len(),
        32
    );
    let trusted = "trusted_proxies = [\"127.0.0.1\"]";
    assert_eq!(
        id("headers.request_id_from = \"trusted\"", trusted, "x-request-id").0,
        "mine"
    );
    let other = "headers.request_id = \"x-correlation\"\nheaders.expose_request_id = true";
    assert_eq!(
        id(other, "", "x-correlation"),
        ("yours".to_owned(), Some("yours".to_owned()))
    );
    assert_eq!(
        id("headers.request_id = \"\"", "", "x-request-id").0,
        "mine",
        "not ours to touch then"
    );
}

#[test]
fn a_trace_is_passed_on_or_begun() {
    let blue = Backend::blue();
    let id = "0af7651916cd43dd8448eb211c80319c";
    let parent = format!("00-{id}-b7ad6b7169203331-01");
    let good = format!("Traceparent: {parent}\r\nTracestate: a=1,b=2\r\n");
    let bad = "Traceparent: nonsense\r\nTracestate: a=1\r\n";
    let sent = [("/none", ""), ("/good", good.as_str()), ("/bad", bad)];
    for rule in ["pass", "start", "restart"] {
        let lines = format!("headers.trace = \"{rule}\"");
        let proxy = Setup::new().access_log().blue(&blue, &lines).start();
        for (path, lines) in sent {
            let target = format!("/{rule}{path}");
            let request = format!("GET {target} HTTP/1.1\r\nHost: a\r\n{lines}\r\n");
            assert_eq!(proxy.client().ask(request).status(), 200);
        }
        let log = proxy.folder().join("access.log");
        let mut logged = String::new();
        crate::harness::until("all are logged", || {
            logged = std::fs::read_to_string(&log).unwrap_or_default();
            logged.lines().count() == sent.len()
        });
        for (path, _) in sent {
            let target = format!("/{rule}{path}");
            let requests = blue.requests();
            let request = requests
                .iter()
                .find(|request| request.target() == target)
                .unwrap();
            let of = |name| request.field(name).unwrap_or("-");
            let line = logged.lines().find(|line| line.contains(&target)).unwrap();
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            let in_log = line["trace_id"].as_str().unwrap_or("-");
            match (rule, path) {
                ("pass", "/none") => assert_eq!((of("traceparent"), in_log), ("-", "-")),
                ("pass", "/bad") => assert_eq!((of("traceparent"), in_log), ("nonsense", "-")),
                ("pass" | "start", "/good") => {
                    assert_eq!((of("traceparent"), in_log), (parent.as_str(), id));
                    assert_eq!(of("tracestate"), "a=1,b=2");
                }
                _ => {
                    let told = of("traceparent");
                    assert_eq!((told.len(), &told[3..35]), (55, in_log), "{target}");
                    assert_eq!(
                        (of("tracestate"), of("x-request-id")),
                        ("-", in_log),
                        "{target}: one id finds both"
                    );
                    assert_ne!(in_log, id);
                }
            }
        }
    }
}
