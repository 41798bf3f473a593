//! When apps fail: retries.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use crate::harness::{Backend, Proxy, Setup, Wire, ok, until};

/// Reads each request and ends the connection over it.
fn resets() -> Backend {
    Backend::script(|wire: &mut Wire, _| {
        if wire.request().is_some() {
            wire.reset_now();
        }
    })
}

/// One worker, no probes, blue has these endpoints.
fn before(endpoints: &[&Backend], lines: &str) -> Proxy {
    let list: Vec<_> = endpoints
        .iter()
        .map(|app| format!("\"{}\"", app.address()))
        .collect();
    Setup::new()
        .workers(1)
        .access_log()
        .toml(&format!(
            "[app.web]\ninitial = \"blue\"\nblue = [{}]\nhealth.interval = \"1h\"\n{lines}",
            list.join(", ")
        ))
        .start()
}

fn post(target: &str, body: &str) -> String {
    format!(
        "POST {target} HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

#[test]
fn what_may_be_repeated_goes_to_another_endpoint() {
    let (bad, good) = (resets(), Backend::says("good"));
    let proxy = before(&[&bad, &good], "");
    // Few enough for the retries that a quiet service always has.
    for method in ["GET", "DELETE", "PUT", "OPTIONS"] {
        let answer = proxy.client().ask(format!(
            "{method} /{method} HTTP/1.1\r\nHost: a\r\nX-A: 1\r\n\r\n"
        ));
        assert_eq!(
            (answer.status(), answer.text().as_str()),
            (200, "good"),
            "{method}"
        );
    }
    let (tried, served) = (bad.requests(), good.requests());
    assert!(!tried.is_empty(), "the bad one was never asked");
    assert_eq!(served.len(), 4);
    assert_eq!(
        proxy.metric("cutover_retries_total", &["blue"]),
        tried.len() as f64
    );
    // It is the same request: same id, same fields.
    for first in &tried {
        let second = served
            .iter()
            .find(|request| request.start == first.start)
            .unwrap();
        let sorted = |fields: &[(String, String)]| {
            let mut fields = fields.to_vec();
            fields.sort();
            fields
        };
        assert_eq!(sorted(&second.fields), sorted(&first.fields));
    }
    let mut proxy = proxy;
    proxy.stop();
    let log = std::fs::read_to_string(proxy.folder().join("access.log")).unwrap();
    assert_eq!(log.matches("\"retry\":1").count(), tried.len(), "{log}");
}

#[test]
fn what_may_have_been_done_is_not_done_twice() {
    let (bad, other) = (resets(), resets());
    let proxy = before(&[&bad, &other], "retry = { attempts = 5, budget = 1 }");
    let put = "PUT /put HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody";
    let chunked =
        "DELETE /chunked HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n";
    let requests = [
        post("/post", "body"),
        post("/empty", ""),
        "PATCH /patch HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
        put.to_owned(),
        chunked.to_owned(),
    ];
    for request in &requests {
        assert_eq!(proxy.client().ask(request).status(), 502, "{request}");
    }
    let seen = bad.requests().len() + other.requests().len();
    assert_eq!(seen, requests.len());
    assert_eq!(proxy.metric("cutover_retries_total", &[]), 0.0);
}

#[test]
fn attempts_are_tries_in_all() {
    for attempts in [1, 2, 4] {
        let bad = resets();
        let proxy = before(
            &[&bad],
            &format!("retry = {{ attempts = {attempts}, budget = 1 }}"),
        );
        assert_eq!(proxy.fetch("/").status(), 502);
        assert_eq!(bad.requests().len(), attempts);
    }
}

#[test]
fn retries_are_a_share_of_the_requests() {
    let bad = resets();
    let proxy = before(&[&bad], "retry = { attempts = 2, budget = 0.0 }");
    let begun = std::time::Instant::now();
    let mut client = proxy.client();
    for _ in 0..50 {
        assert_eq!(client.get("/").status(), 502);
    }
    let seconds = begun.elapsed().as_secs() + 2;
    let retries = bad.requests().len() as u64 - 50;
    assert!(retries >= 3, "a quiet service has three a second: {retries}");
    assert!(retries <= 3 * seconds, "{retries} in less than {seconds} s");
}

#[test]
fn a_retry_goes_where_the_traffic_goes_by_then() {
    let moved = Arc::new(AtomicBool::new(false));
    let of_app = Arc::clone(&moved);
    let blue = Backend::script(move |wire: &mut Wire, _| {
        while let Some(request) = wire.request() {
            if request.target() == "/slow" {
                until("the switch is done", || of_app.load(SeqCst));
                wire.reset_now();
                return;
            }
            wire.send(ok("blue"));
        }
    });
    let green = Backend::green();
    let proxy = Proxy::of(&blue, &green);
    let mut client = proxy.client();
    client.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
    until("blue has it", || {
        blue.requests().iter().any(|request| request.target() == "/slow")
    });
    proxy.switch("green");
    moved.store(true, SeqCst);
    let answer = client.answer();
    assert_eq!((answer.status(), answer.text().as_str()), (200, "green"));
}

#[test]
fn a_body_that_was_not_sent_goes_with_the_retry() {
    // The pooled connection is dead, and by then nobody listens: another endpoint gets the whole request.
    let (gone, there) = (
        Backend::says("gone"),
        Backend::handler(|request| ok(&request.text())),
    );
    let proxy = before(&[&gone, &there], "");
    let mut client = proxy.client();
    for n in 0..6 {
        client.get(&format!("/{n}"));
    }
    gone.stop_and_wait();
    for n in 0..6 {
        let body = format!("body {n}").repeat(1000);
        let answer = client.ask(post("/post", &body));
        assert_eq!((answer.status(), answer.text() == body), (200, true), "{n}");
    }
    let posts = there
        .requests()
        .iter()
        .filter(|request| request.method() == "POST")
        .count();
    assert_eq!(posts, 6, "each once");
}

/// Requests that each app has got so far.
fn counts(apps: &[&Backend]) -> Vec<usize> {
    apps.iter().map(|app| app.requests().len()).collect()
}

#[test]
fn an_endpoint_that_fails_is_left_alone_and_tried_again() {
    let well = Arc::new(AtomicBool::new(false));
    let of_app = Arc::clone(&well);
    let bad = Backend::script(move |wire: &mut Wire, _| {
        while wire.request().is_some() {
            if !of_app.load(SeqCst) {
                wire.reset_now();
                return;
            }
            wire.send(ok("back"));
        }
    });
    let good = Backend::says("good");
    let lines = "retry.attempts = 1\nbalance = { policy = \"round_robin\", breaker = { failures = 2, ejected = \"300ms\" } }";
    let proxy = before(&[&bad, &good], lines);
    let ejected = || proxy.metric("cutover_endpoint_ejected", &[bad.address()]);
    assert_eq!(ejected(), 0.0);
    let mut failed = 0;
    until("it is ejected", || {
        failed += usize::from(proxy.fetch("/").status() == 502);
        failed == 2
    });
    // Two in a row, and nobody else meets it until its time is over; then one at a time.
    assert_eq!(bad.requests().len(), 2);
    until("a trial failed", || proxy.fetch("/").status() == 502);
    assert_eq!(bad.requests().len(), 3);
    well.store(true, SeqCst);
    until("the trial was answered", || proxy.says() == "back");
    assert_eq!(ejected(), 0.0);
    let mut answers: Vec<_> = (0..4).map(|_| proxy.says()).collect();
    answers.sort();
    assert_eq!(answers, ["back", "back", "good", "good"]);
    // Told once each: a trial that fails is no second ejection.
    let told = || proxy.get("/v1/events?after=0&follow=false").text;
    until("it is told that it is back", || {
        told().contains("event: returned")
    });
    let told = told();
    for (event, words) in [
        ("ejected", "ejected: 2 failures in a row"),
        ("returned", "it answers again"),
    ] {
        assert_eq!(told.matches(&format!("event: {event}\n")).count(), 1, "{told}");
        assert!(
            told.contains(&format!(
                "{}: {}",
                bad.address(),
                words.split(": ").next().unwrap()
            )) || event == "returned",
            "{told}"
        );
        assert!(told.contains(words), "{told}");
    }
}

#[test]
fn a_status_is_no_failure_and_the_last_endpoint_is_never_ejected() {
    let five = Backend::handler(|_| b"HTTP/1.1 503 Oops\r\ncontent-length: 4\r\n\r\nfive".to_vec());
    let good = Backend::says("good");
    let breaker = "balance = { policy = \"round_robin\", breaker = { failures = 2, ejected = \"1h\" } }\nretry.attempts = 1";
    let proxy = before(&[&five, &good], breaker);
    for _ in 0..20 {
        proxy.fetch("/");
    }
    assert_eq!(counts(&[&five, &good]), [10, 10]);

    let (one, other) = (resets(), resets());
    let proxy = before(&[&one, &other], breaker);
    for _ in 0..20 {
        assert_eq!(proxy.fetch("/").status(), 502, "not 503: the last one is asked");
    }
    let asked = counts(&[&one, &other]);
    assert_eq!(asked.iter().sum::<usize>(), 20);
    assert_eq!(
        asked.iter().min(),
        Some(&2),
        "{asked:?}: one of them is ejected, the other is not"
    );
    assert_eq!(proxy.metric("cutover_endpoint_ejected", &[]), 1.0);
    let endpoints = proxy.app()["colors"].to_string();
    assert_eq!(endpoints.matches("\"ejected\":true").count(), 1, "{endpoints}");
}

#[test]
fn policies_share_out_the_requests() {
    for (policy, least) in [("least_request", 20), ("round_robin", 30), ("random", 10)] {
        let apps = [Backend::says("a"), Backend::says("b"), Backend::says("c")];
        let apps: Vec<&Backend> = apps.iter().collect();
        let proxy = before(&apps, &format!("balance.policy = \"{policy}\""));
        let mut client = proxy.client();
        for _ in 0..90 {
            client.get("/");
        }
        let counts = counts(&apps);
        assert_eq!(counts.iter().sum::<usize>(), 90);
        assert!(counts.iter().all(|count| *count >= least), "{policy}: {counts:?}");
    }
}
