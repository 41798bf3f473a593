//! `balance.max_in_flight`: no endpoint has more requests than it may, and the rest wait in line.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};

use serde_json::json;

use crate::harness::backend::HEALTH;
use crate::harness::{Backend, Proxy, Setup, Wire, ok, until};

/// Answers everything but probes when it is told to, one at a time.
fn stuck(name: &'static str) -> (Backend, Sender<()>) {
    let (go, rest) = channel::<()>();
    let rest = Mutex::new(rest);
    let app = Backend::handler(move |request| {
        if request.target() != HEALTH {
            let _ = rest.lock().unwrap().recv();
        }
        ok(name)
    });
    (app, go)
}

fn of_two(blue: &Backend, green: &Backend, balance: &str) -> Proxy {
    let lines = format!("balance = {{ {balance} }}\n[app.web.preview]\nfrom = [\"127.0.0.0/8\"]\n");
    Setup::new().access_log().colors(blue, green, &lines).start()
}

fn queue(proxy: &Proxy, color: &str) -> serde_json::Value {
    proxy.app()["colors"][color]["services"][0]["queue"].clone()
}

/// A request for this target that waits in the line of this color, the last of so many.
fn waits(proxy: &Proxy, target: &str, color: &str, count: u64) -> Wire {
    let mut wire = proxy.client();
    wire.send(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n"));
    until("it waits", || queue(proxy, color)["waiting"] == count);
    wire
}

/// A request for this target that the app has got.
fn is_with(proxy: &Proxy, app: &Backend, target: &str) -> Wire {
    let mut wire = proxy.client();
    wire.send(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n"));
    until("the app has it", || targets(app).iter().any(|at| at == target));
    wire
}

fn targets(app: &Backend) -> Vec<String> {
    let requests = app.requests();
    requests
        .iter()
        .map(|request| request.target().to_owned())
        .collect()
}

#[test]
fn those_above_the_bound_wait_first_come_first_served() {
    let ((blue, go), green) = (stuck("blue"), Backend::green());
    let proxy = of_two(&blue, &green, "max_in_flight = 1");
    let mut first = is_with(&proxy, &blue, "/0");
    // Each has a connection of its own, so both workers have some.
    let mut line: Vec<_> = (1..=9)
        .map(|n| waits(&proxy, &format!("/{n}"), "blue", n))
        .collect();
    assert_eq!(
        queue(&proxy, "blue"),
        json!({ "max_in_flight": 1, "in_flight": 1, "waiting": 9, "refused": 0 })
    );
    assert_eq!(proxy.metric("cutover_queued_requests", &["blue"]), 9.0);
    let explained = proxy.post("explain", json!({ "method": "GET", "url": "http://a/" }));
    let steps = explained.json["steps"].to_string();
    assert!(steps.contains("it waits behind 9 others, 5s at most"), "{steps}");
    assert_eq!(targets(&blue), ["/0"]);
    go.send(()).unwrap();
    assert_eq!(first.answer().text(), "blue");
    for (n, wire) in line.iter_mut().enumerate() {
        // One at a time: were another one served before it, this answer would not come.
        until("the next one is with the app", || targets(&blue).len() == n + 2);
        go.send(()).unwrap();
        assert_eq!(wire.answer().text(), "blue");
    }
    until("nobody is left", || queue(&proxy, "blue")["in_flight"] == 0);
    let explained = proxy.post("explain", json!({ "method": "GET", "url": "http://a/" }));
    assert!(explained.json["steps"].to_string().contains("there is room"));
}

#[test]
fn the_line_is_bounded_in_length_and_in_time() {
    let ((blue, go), green) = (stuck("blue"), Backend::green());
    let mut proxy = of_two(
        &blue,
        &green,
        "max_in_flight = 1, queue = 2, queue_timeout = \"1h\"",
    );
    let mut first = is_with(&proxy, &blue, "/0");
    let mut line = [waits(&proxy, "/1", "blue", 1), waits(&proxy, "/2", "blue", 2)];
    let refused = proxy.fetch("/3");
    assert_eq!(
        (refused.status(), refused.field("retry-after").is_some()),
        (503, true)
    );
    assert!(
        refused.text().contains("too many requests wait"),
        "{}",
        refused.text()
    );
    assert_eq!(
        proxy.metric("cutover_queue_refused_total", &["blue", "full"]),
        1.0
    );
    assert_eq!(queue(&proxy, "blue")["refused"], 1);
    for _ in 0..3 {
        go.send(()).unwrap();
    }
    assert_eq!(first.answer().text(), "blue");
    for wire in &mut line {
        assert_eq!(wire.answer().text(), "blue");
    }
    proxy.stop();
    let log = std::fs::read_to_string(proxy.folder().join("access.log")).unwrap();
    assert_eq!(
        log.matches("too many requests wait for the app").count(),
        1,
        "{log}"
    );

    let ((blue, _go), green) = (stuck("blue"), Backend::green());
    let mut proxy = of_two(&blue, &green, "max_in_flight = 1, queue_timeout = \"100ms\"");
    let _first = is_with(&proxy, &blue, "/0");
    let refused = proxy.fetch("/1");
    assert_eq!(
        (refused.status(), refused.field("retry-after").is_some()),
        (503, true)
    );
    assert_eq!(
        proxy.metric("cutover_queue_refused_total", &["blue", "timeout"]),
        1.0
    );
    assert_eq!(queue(&proxy, "blue")["waiting"], 0);
    proxy.stop();
    let log = std::fs::read_to_string(proxy.folder().join("access.log")).unwrap();
    assert_eq!(log.matches("waited too long for the app").count(), 1, "{log}");
}

#[test]
fn after_a_switch_the_waiting_go_to_the_new_color() {
    let ((blue, go), green) = (stuck("blue"), Backend::green());
    let proxy = of_two(&blue, &green, "max_in_flight = 2, queue_timeout = \"1h\"");
    let mut with_blue = [is_with(&proxy, &blue, "/a"), is_with(&proxy, &blue, "/b")];
    let mut line: Vec<_> = (1..=8)
        .map(|n| waits(&proxy, &format!("/{n}"), "blue", n))
        .collect();
    proxy.switch("green");
    for wire in &mut line {
        assert_eq!(wire.answer().text(), "green");
    }
    assert_eq!(targets(&blue), ["/a", "/b"], "nothing more of blue's");
    for wire in &mut with_blue {
        go.send(()).unwrap();
        assert_eq!(wire.answer().text(), "blue", "what runs ends where it is");
    }
    assert_eq!(queue(&proxy, "green")["waiting"], 0);
}

#[test]
fn who_leaves_the_line_holds_nobody_up() {
    let ((blue, go), green) = (stuck("blue"), Backend::green());
    let proxy = of_two(&blue, &green, "max_in_flight = 1, queue_timeout = \"1h\"");
    let mut first = is_with(&proxy, &blue, "/0");
    let gone = [waits(&proxy, "/1", "blue", 1), waits(&proxy, "/2", "blue", 2)];
    let mut last = waits(&proxy, "/3", "blue", 3);
    for wire in gone {
        wire.reset();
    }
    until("they are gone", || queue(&proxy, "blue")["waiting"] == 1);
    for _ in 0..2 {
        go.send(()).unwrap();
    }
    assert_eq!(first.answer().text(), "blue");
    assert_eq!(last.answer().text(), "blue");
    assert_eq!(targets(&blue), ["/0", "/3"]);
}

#[test]
fn the_proof_of_a_switch_does_not_wait_for_the_clients_of_the_app() {
    let (blue, (green, go)) = (Backend::blue(), stuck("green"));
    let proxy = of_two(&blue, &green, "max_in_flight = 1, queue_timeout = \"1h\"");
    let preview =
        |target: &str| format!("GET {target} HTTP/1.1\r\nHost: a\r\nX-Cutover-Color: green\r\n\r\n");
    let mut first = proxy.client();
    first.send(preview("/0"));
    until("green has it", || green.requests().len() == 1);
    let mut second = proxy.client();
    second.send(preview("/1"));
    until("it waits", || queue(&proxy, "green")["waiting"] == 1);
    proxy.switch("green");
    for wire in [&mut first, &mut second] {
        go.send(()).unwrap();
        assert_eq!(wire.answer().text(), "green");
    }
}

/// Counts the requests that it has at once.
fn counting(most: &Arc<AtomicUsize>) -> Backend {
    let (now, most) = (AtomicUsize::new(0), Arc::clone(most));
    Backend::handler(move |request| {
        if request.target() != HEALTH {
            most.fetch_max(now.fetch_add(1, SeqCst) + 1, SeqCst);
            std::thread::sleep(std::time::Duration::from_millis(1));
            now.fetch_sub(1, SeqCst);
        }
        ok("done")
    })
}

#[test]
fn no_endpoint_ever_has_more_than_the_bound_whichever_worker_asks() {
    const CLIENTS: usize = 24;
    let most: Vec<Arc<AtomicUsize>> = (0..2).map(|_| Arc::default()).collect();
    let apps: Vec<_> = most.iter().map(counting).collect();
    let list: Vec<_> = apps.iter().map(|app| format!("\"{}\"", app.address())).collect();
    let proxy = Setup::new()
        .toml(&format!(
            "[app.web]\ninitial = \"blue\"\nblue = [{}]\nhealth.path = \"{HEALTH}\"\n\
             balance = {{ max_in_flight = 3, queue_timeout = \"1h\" }}",
            list.join(", ")
        ))
        .start();
    let failed = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                let mut client = proxy.client();
                for _ in 0..20 {
                    if client.get("/").status() != 200 {
                        failed.store(true, SeqCst);
                    }
                }
            });
        }
    });
    assert!(!failed.load(SeqCst));
    let most: Vec<_> = most.iter().map(|most| most.load(SeqCst)).collect();
    assert!(most.iter().all(|most| *most <= 3), "{most:?}");
    let served: usize = apps.iter().map(|app| app.requests().len()).sum();
    assert_eq!(served, CLIENTS * 20);
    until("nobody is left", || {
        let queue = queue(&proxy, "blue");
        queue["waiting"] == 0 && queue["in_flight"] == 0
    });
}

#[test]
fn a_service_has_its_own_bound() {
    let ((api, go), web) = (stuck("api"), Backend::says("web"));
    let proxy = Setup::new()
        .toml(&format!(
            "[app.web]\ninitial = \"blue\"\n[app.web.service.web]\nblue = [\"{}\"]\n\
             [app.web.service.api]\npath_prefix = \"/api\"\nblue = [\"{}\"]\n\
             balance = {{ max_in_flight = 1, queue = 0 }}\nretry.attempts = 1",
            web.address(),
            api.address()
        ))
        .start();
    let mut first = is_with(&proxy, &api, "/api/0");
    assert_eq!(proxy.fetch("/api/1").status(), 503, "nobody may wait");
    assert_eq!(proxy.fetch("/").text(), "web");
    go.send(()).unwrap();
    assert_eq!(first.answer().text(), "api");
}
