//! The pieces of the request path that are ours, each by itself: `cargo bench --bench pieces`.
//!
//! What they cost together, beside nginx and HAProxy: `benches/compare/run.sh`.
#![allow(missing_docs, clippy::unwrap_used, reason = "a bench is a program of its own")]

use std::hint::black_box;
use std::net::SocketAddr;
use std::sync::Arc;

use criterion::{Criterion, criterion_group, criterion_main};
use cutover::config::{Address, EndpointAddress, Headers, HostHeader, HostPattern, PathMatch};
use cutover::proxy::headers::{Peer, prepare_request, prepare_response};
use cutover::proxy::request_id::RequestIds;
use cutover::rollout::{Color, Phase, Weight, is_candidate};
use cutover::routing::{HostBuffer, Matcher, Place};
use cutover::upstream::{Endpoint, EndpointKey, Gate, Target};
use http::{HeaderMap, HeaderValue};
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

fn claim(c: &mut Criterion) {
    let address: SocketAddr = "127.0.0.1:8001".parse().unwrap();
    let endpoint = Endpoint::new(EndpointKey {
        app: "web".into(),
        service: "web".into(),
        color: Color::Blue,
        address: EndpointAddress::plain(Address::Ip(address)),
        target: Target::Tcp(address),
        tls: None,
    });
    let gate = Gate::open(&endpoint, 2, &Arc::new(Notify::new()));
    c.bench_function("claim and release", |b| b.iter(|| drop(black_box(gate.claim(0)))));
}

fn headers(c: &mut Criterion) {
    let rules = Headers {
        host: HostHeader::Preserve,
        request_set: vec![],
        request_remove: vec![],
        response_set: vec![],
        response_remove: vec![],
        expose_color: "x-cutover-color".into(),
        expose_revision: false,
    };
    let (peer, ids) = (Peer::new(Some("203.0.113.9".parse().unwrap())), RequestIds::new());
    let mut request = HeaderMap::new();
    for (name, value) in [
        ("host", "shop.example.com"),
        ("user-agent", "Mozilla/5.0 (X11; Linux x86_64)"),
        ("accept", "text/html,application/xhtml+xml"),
        ("accept-language", "en-US,en;q=0.5"),
        ("accept-encoding", "gzip, deflate, br"),
        ("connection", "keep-alive"),
        ("cookie", "session=0123456789abcdef"),
    ] {
        request.insert(name, HeaderValue::from_static(value));
    }
    let endpoint = || HeaderValue::from_static("app:8000");
    c.bench_function("request head (copy included)", |b| {
        b.iter(|| {
            let mut headers = request.clone();
            prepare_request(&mut headers, &rules, &peer, &[], &ids, endpoint);
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

criterion_group!(pieces, routing, split, claim, headers);
criterion_main!(pieces);
