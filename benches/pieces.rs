//! The pieces of the request path that are ours, each by itself: `cargo bench --bench pieces`.
//!
//! What they cost together, beside nginx and HAProxy: `benches/compare/run.sh`.
#![allow(missing_docs, clippy::unwrap_used, reason = "a bench is a program of its own")]

use std::collections::BTreeMap;
use std::hint::black_box;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use criterion::{Criterion, criterion_group, criterion_main};
use cutover::config::{
    self, Address, EndpointAddress, Headers, HostHeader, HostPattern, IdFrom, PathMatch, Trace,
};
use cutover::metrics::Registry;
use cutover::proxy::headers::{Peer, prepare_request, prepare_response};
use cutover::proxy::request_id::RequestIds;
use cutover::proxy::seen::Seen;
use cutover::rollout::{AppState, ByColor, Color, Phase, Weight, is_candidate};
use cutover::routing::{
    AppInput, Asked, Fixed, HostBuffer, Matcher, Place, Resolved, Special, choose, rebuild,
};
use cutover::upstream::{Endpoint, EndpointKey, Gate, Target};
use http::{HeaderMap, HeaderValue, Method, Uri};
use jiff::Timestamp;
use tokio::sync::Notify;

/// Routes of `count` apps with a host each and two services.
fn matcher(count: usize) -> Matcher {
    let mut matcher = Matcher::default();
    for app in 0..count / 2 {
        let hosts = [HostPattern::Exact(format!("app{app}.example.com"))];
        matcher.add(&hosts, &PathMatch::Prefix("/".into()), Place { app, service: 0 });
        matcher.add(
            &hosts,
            &PathMatch::Prefix("/api".into()),
            Place { app, service: 1 },
        );
    }
    matcher
}

fn routing(c: &mut Criterion) {
    for count in [10, 10_000] {
        let matcher = matcher(count);
        c.bench_function(&format!("route/{count}"), |b| {
            b.iter(|| {
                let mut buffer = HostBuffer::new();
                let host = buffer.normalise(black_box("app3.example.com:8080")).unwrap();
                matcher.find(host, black_box("/api/v1/things/42"))
            });
        });
    }
}

fn split(c: &mut Criterion) {
    let weight = Weight::candidate(10).unwrap();
    let mut phase = Phase::of_worker(0, 2);
    c.bench_function("split", |b| {
        b.iter(|| is_candidate(phase.next_bucket(), black_box(weight)))
    });
}

/// Steps 2 and 3 of a request of an app with these lines, at this weight of green.
fn decide(c: &mut Criterion, name: &str, lines: &str, percent: u8) {
    let text = format!(
        "[server]\nstate_dir = \"/nowhere\"\n[[listener]]\naddress = \"127.0.0.1:0\"\n\
         [app.web]\nblue = [\"127.0.0.1:1\"]\ngreen = [\"127.0.0.1:2\"]\n{lines}"
    );
    let config = config::parse(&text, "bench", &|_| None).unwrap();
    let mut state = AppState::first(Color::Blue, Timestamp::UNIX_EPOCH);
    state.weight = Weight::candidate(percent).unwrap();
    let app = &config.apps["web"];
    let endpoints = ByColor::from_fn(|color| {
        let service = &app.services["web"];
        BTreeMap::from([(service.name.clone(), service.endpoints[color].clone())])
    });
    let fixed = Fixed {
        workers: 2,
        registry: &Registry::new(2, 1),
        drained: &Arc::default(),
        originators: &cutover::tls::Originators::default(),
    };
    let input = AppInput {
        config: app,
        state: &state,
        degraded: false,
        endpoints: &endpoints,
    };
    let route = rebuild(fixed, input, &Resolved::default(), None, Instant::now()).app;
    let (method, uri, headers) = (Method::GET, Uri::from_static("/api/v1/things?debug=1"), browser());
    let asked = Asked {
        method: &method,
        host: "shop.example.com",
        uri: &uri,
        headers: &headers,
        client: "203.0.113.9".parse().ok(),
        is_trusted: false,
        proto: None,
        tls: false,
        server_name: None,
        subject: None,
        door: None,
    };
    c.bench_function(&format!("choose/{name}"), |b| {
        b.iter(|| {
            let asked = black_box(&asked);
            choose(&route, &route.services[0], 0, asked, None, Special::None)
        });
    });
}

fn choosing(c: &mut Criterion) {
    let rule = |when: &str| format!("[[app.web.rule]]\nwhen = '{when}'\ncolor = \"green\"\n");
    decide(c, "nothing on", "", 0);
    decide(c, "weight, no key", "affinity.key = \"none\"", 10);
    decide(c, "weight, by cookie", "", 10);
    decide(c, "weight, by header", "affinity.key = \"header:user-agent\"", 10);
    decide(c, "weight, by address", "affinity.key = \"ip\"", 10);
    let simple = r#"request.headers["x-beta"] == "1" && request.path.startsWith("/api")"#;
    decide(c, "a rule, native", &rule(simple), 0);
    decide(c, "ten rules, native, and a cookie", &rule(simple).repeat(10), 10);
    decide(
        c,
        "a rule, native, by a pattern",
        &rule(r#"request.path.matches("^/shop/[0-9]+$")"#),
        0,
    );
    decide(c, "a rule, CEL", &rule("size(request.path) > 1000"), 0);
    decide(
        c,
        "a rule, CEL, of headers",
        &rule(r#"size(request.headers["user-agent"]) > 1000"#),
        0,
    );
}

/// The head of a browser's request that is known by a cookie of ours.
fn browser() -> HeaderMap {
    let mut request = HeaderMap::new();
    for (name, value) in [
        ("host", "shop.example.com"),
        ("user-agent", "Mozilla/5.0 (X11; Linux x86_64)"),
        ("accept", "text/html,application/xhtml+xml"),
        ("accept-language", "en-US,en;q=0.5"),
        ("accept-encoding", "gzip, deflate, br"),
        ("connection", "keep-alive"),
        ("cookie", "session=0123456789abcdef; cutover_id=0123456789abcdef"),
    ] {
        request.insert(name, HeaderValue::from_static(value));
    }
    request
}

fn claim(c: &mut Criterion) {
    let address: SocketAddr = "127.0.0.1:8001".parse().unwrap();
    let endpoint = Endpoint::new(EndpointKey {
        app: "web".into(),
        service: "web".into(),
        color: Color::Blue,
        address: EndpointAddress::plain(Address::Ip(address)),
        target: Target::Tcp(address),
        tls: None,
        preamble: None,
    });
    let gate = Gate::open(&endpoint, 2, &Arc::new(Notify::new()));
    c.bench_function("claim and release", |b| b.iter(|| drop(black_box(gate.claim(0)))));
}

fn headers(c: &mut Criterion) {
    let rules = Headers {
        host: HostHeader::Preserve,
        forwarded: false,
        rewrite_location: false,
        request_id: Some(http::HeaderName::from_static("x-request-id")),
        request_id_from: IdFrom::Anyone,
        expose_request_id: false,
        trace: Trace::Pass,
        request_set: vec![],
        request_remove: vec![],
        response_set: vec![],
        response_remove: vec![],
        expose_color: "x-cutover-color".into(),
        expose_revision: false,
    };
    let (peer, ids) = (Peer::new(Some("203.0.113.9".parse().unwrap())), RequestIds::new());
    let request = browser();
    let endpoint = || HeaderValue::from_static("app:8000");
    c.bench_function("request head (copy included)", |b| {
        b.iter(|| {
            let mut headers = request.clone();
            let seen = Seen::at(&headers);
            prepare_request(&mut headers, seen, &rules, &peer, None, &ids, endpoint);
            headers
        });
    });
    c.bench_function("request head: the copy alone", |b| {
        b.iter(|| black_box(request.clone()))
    });
    let mut response = HeaderMap::new();
    response.insert("content-type", HeaderValue::from_static("text/html"));
    response.insert("content-length", HeaderValue::from_static("128"));
    response.insert("connection", HeaderValue::from_static("keep-alive"));
    c.bench_function("response head (copy included)", |b| {
        b.iter(|| {
            let mut headers = response.clone();
            prepare_response(&mut headers, &rules);
            headers
        });
    });
}

criterion_group!(pieces, routing, split, choosing, claim, headers);
criterion_main!(pieces);
