//! The switch and what goes with it, while requests run.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::backend::HEALTH;
use crate::harness::{Backend, Broken, Ends, Proxy, Setup, Wire, ok, until};

/// Says its color; `/slow` sends the half of it and the rest when told.
fn slow(color: &'static str) -> (Backend, Sender<()>) {
    let (go, wait) = channel::<()>();
    let wait = Mutex::new(wait);
    let backend = Backend::script(move |wire, _| {
        while let Some(request) = wire.request() {
            if request.target() != "/slow" {
                wire.send(ok(color));
                continue;
            }
            wire.send("HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\nhalf");
            let _ = wait.lock().unwrap().recv();
            wire.send("half");
        }
    });
    (backend, go)
}

fn ask_slowly(proxy: &Proxy) -> Wire {
    let mut client = proxy.client();
    client.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.head().status(), 200);
    assert_eq!(client.bytes(4), b"half");
    client
}

#[test]
fn a_switch_moves_every_later_request_and_no_earlier_one() {
    let (blue, green) = (Backend::blue(), Backend::green());
    let proxy = Proxy::of(&blue, &green);
    let mut kept: Vec<Wire> = (0..8).map(|_| proxy.client()).collect();
    for round in 0..10 {
        let now = if round % 2 == 0 {
            ("blue", "green")
        } else {
            ("green", "blue")
        };
        for client in &mut kept {
            assert_eq!(client.get("/").text(), now.0);
        }
        let outcome = proxy.switch(now.1);
        assert_eq!(outcome.json["changed"], true);
        assert_eq!(outcome.json["verify"]["result"], "verified", "{}", outcome.text);
        for client in &mut kept {
            let answer = client.get("/");
            assert_eq!(
                (answer.text().as_str(), answer.field("x-cutover-color")),
                (now.1, Some(now.1))
            );
        }
        assert_eq!(proxy.says(), now.1);
    }
    let again = proxy.switch("blue");
    assert_eq!(again.json["changed"], false);
    assert_eq!(proxy.generation(), 11);
}

#[test]
fn eight_clients_hammer_while_it_switches_and_nobody_notices() {
    let (blue, green) = (Backend::blue(), Backend::green());
    let proxy = Proxy::of(&blue, &green);
    // Counts the switches that were answered; even = blue.
    let answered = AtomicU64::new(0);
    let begun = AtomicU64::new(0);
    let over = AtomicBool::new(false);
    let mut total = 0;
    std::thread::scope(|scope| {
        let ends = Ends(&over);
        let hammers: Vec<_> = (0..8)
            .map(|hammer| {
                let (proxy, answered, begun, over) = (&proxy, &answered, &begun, &over);
                scope.spawn(move || {
                    let mut client = proxy.client();
                    let mut count = 0_u64;
                    while !over.load(SeqCst) {
                        let before = answered.load(SeqCst);
                        let answer = match (count + hammer) % 3 {
                            0 => client.get("/"),
                            1 => client.post("/", "body"),
                            _ => client.ask(
                                "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n",
                            ),
                        };
                        let after = begun.load(SeqCst);
                        assert_eq!(answer.status(), 200, "{answer:?}");
                        // If no switch ran between the two looks, only one color can be right.
                        if before == after {
                            let right = if before % 2 == 0 { "blue" } else { "green" };
                            assert_eq!(answer.text(), right, "late: {before} switches were answered");
                        }
                        count += 1;
                    }
                    count
                })
            })
            .collect();
        for n in 0..60 {
            begun.fetch_add(1, SeqCst);
            proxy.switch(if n % 2 == 0 { "green" } else { "blue" });
            answered.fetch_add(1, SeqCst);
        }
        drop(ends);
        total = hammers.into_iter().map(|hammer| hammer.join().unwrap()).sum();
    });
    assert!(total > 100, "{total} requests say little");
    assert_eq!(proxy.metric("cutover_requests_total", &["code=\"50"]), 0.0);
    assert_eq!(
        (blue.requests().len() + green.requests().len()) as u64,
        total,
        "each exactly once"
    );
}

#[test]
fn a_download_of_the_old_color_survives_and_is_waited_for() {
    let ((blue, go), green) = (slow("blue"), Backend::green());
    let proxy = Proxy::of(&blue, &green);
    let mut download = ask_slowly(&proxy);
    proxy.switch("green");
    assert_eq!(proxy.says(), "green");
    assert_eq!(proxy.app()["colors"]["blue"]["in_flight"], 1);
    assert_eq!(proxy.app()["colors"]["blue"]["role"], "draining");
    let early = proxy.get("/v1/apps/web/colors/blue/drained?wait=100ms");
    assert_eq!(
        (early.status, early.json["code"].as_str()),
        (504, Some("timed_out")),
        "{}",
        early.text
    );

    let finished = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (proxy, finished) = (&proxy, &finished);
        let waiting = scope.spawn(move || {
            let drained = proxy.get("/v1/apps/web/colors/blue/drained?wait=15s").done();
            (drained, finished.load(SeqCst))
        });
        finished.store(true, SeqCst);
        go.send(()).unwrap();
        assert_eq!(download.bytes(4), b"half");
        let (drained, was_finished) = waiting.join().unwrap();
        assert_eq!(drained.json["drained"], true);
        assert!(was_finished, "drained before the last byte");
    });
    until("its connections are closed", || blue.open() == 0);
    // The download's own connection goes on, with the new color.
    assert_eq!(download.get("/").text(), "green");
}

#[test]
fn an_upload_of_the_old_color_survives() {
    let (blue, green) = (
        Backend::handler(|request| ok(&format!("blue {}", request.text()))),
        Backend::green(),
    );
    let proxy = Proxy::of(&blue, &green);
    let mut upload = proxy.client();
    upload.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 8\r\n\r\nhalf");
    until("the app has the half", || {
        blue.received().iter().any(|bytes| bytes.ends_with(b"half"))
    });
    proxy.switch("green");
    upload.send("half");
    assert_eq!(upload.answer().text(), "blue halfhalf");
    proxy.get("/v1/apps/web/colors/blue/drained?wait=15s").done();
}

#[test]
fn at_the_drain_deadline_what_still_runs_is_cut_and_counted() {
    let ((blue, go), green) = (slow("blue"), Backend::green());
    let proxy = Setup::new()
        .colors(&blue, &green, "drain.http = \"300ms\"")
        .start();
    let mut half = ask_slowly(&proxy);
    let mut headless = proxy.client();
    headless.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nhalf");
    until("both are there", || {
        proxy.app()["colors"]["blue"]["in_flight"] == 2
    });
    let begun = Instant::now();
    proxy.switch("green");
    proxy.get("/v1/apps/web/colors/blue/drained?wait=15s").done();
    assert!(begun.elapsed() >= Duration::from_millis(250));
    // The one with a head is cut, never completed; the one without is told.
    assert_eq!(half.rest(), b"");
    let told = headless.answer();
    assert_eq!(told.status(), 504, "{told:?}");
    assert_eq!(proxy.metric("cutover_drain_cancelled_total", &[]), 2.0);
    let history = proxy.get("/v1/history").done().json;
    let last = history["entries"]
        .as_array()
        .unwrap()
        .iter()
        .rfind(|entry| entry["verb"] == "switch")
        .cloned();
    assert_eq!(last.unwrap()["outcome"]["cancelled"], 2);
    drop(go);
}

#[test]
fn an_unhealthy_target_is_refused_with_every_probe() {
    let blue = Backend::blue();
    let green = Backend::handler(|_| b"HTTP/1.1 500 Oh\r\ncontent-length: 0\r\n\r\n".to_vec());
    let proxy = Proxy::of(&blue, &green);
    let refused = proxy.post("switch", json!({ "to": "green" }));
    assert_eq!(
        (refused.status, refused.json["code"].as_str()),
        (422, Some("unhealthy")),
        "{}",
        refused.text
    );
    let probes = refused.json["probes"].as_array().unwrap();
    assert_eq!((probes.len(), probes[0]["status"].as_u64()), (1, Some(500)));
    assert_eq!(probes[0]["url"], format!("http://{}{HEALTH}", green.address()));
    assert!(
        probes[0]["reason"].as_str().unwrap().contains("500"),
        "{}",
        refused.text
    );
    assert_eq!((proxy.says().as_str(), proxy.generation()), ("blue", 1));

    proxy
        .post(
            "switch",
            json!({ "to": "green", "force": true, "reason": "drill" }),
        )
        .done();
    assert_eq!(proxy.fetch("/").status(), 500);
    proxy.post("rollback", json!({})).done();
    assert_eq!(proxy.says(), "blue");
}

#[test]
fn a_dead_target_is_refused() {
    let (blue, green) = (Backend::blue(), Backend::green());
    let proxy = Proxy::of(&blue, &green);
    green.stop_and_wait();
    let refused = proxy.post("switch", json!({ "to": "green" }));
    assert_eq!(refused.status, 422, "{}", refused.text);
    assert_eq!(refused.json["probes"][0]["verdict"], "unreachable");
    assert_eq!(proxy.says(), "blue");
}

#[test]
fn verify_takes_back_a_switch_to_an_app_that_does_not_answer() {
    let blue = Backend::blue();
    // Passes every probe, and falls over at the first request through the listener.
    let green = Backend::script(|wire, _| {
        while let Some(request) = wire.request() {
            if request
                .field("user-agent")
                .is_some_and(|agent| agent.starts_with("cutover-verify"))
            {
                return;
            }
            wire.send(ok("green"));
        }
    });
    let proxy = Proxy::of(&blue, &green);
    let back = proxy.post("switch", json!({ "to": "green" }));
    assert_eq!(
        (back.status, back.json["code"].as_str()),
        (422, Some("rolled_back")),
        "{}",
        back.text
    );
    assert_eq!(back.json["active"], "blue");
    // There and back: two changes.
    assert_eq!((proxy.says().as_str(), proxy.generation()), ("blue", 3));
    let verbs: Vec<_> = proxy.get("/v1/history").done().json["entries"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| entry["by"].as_str().unwrap().to_owned())
        .collect();
    assert!(verbs.last().unwrap().contains("verify"), "{verbs:?}");
}

#[test]
fn verify_passes_on_any_status_of_the_new_color() {
    let blue = Backend::blue();
    let green = Backend::handler(|request| {
        let verifies = request
            .field("user-agent")
            .is_some_and(|agent| agent.starts_with("cutover-verify"));
        if verifies {
            b"HTTP/1.1 500 Oh\r\ncontent-length: 0\r\n\r\n".to_vec()
        } else {
            ok("green")
        }
    });
    let proxy = Proxy::of(&blue, &green);
    assert_eq!(proxy.switch("green").json["verify"]["result"], "verified");
    assert_eq!(proxy.says(), "green");
}

#[test]
fn verify_does_not_take_a_color_that_an_app_claims_for_proof() {
    // The old color answers with the new color's name in its own header: it is replaced by the truth.
    let lying = |body: &'static str, color: &'static str| {
        Backend::handler(move |_| {
            format!(
                "HTTP/1.1 200 OK\r\nx-cutover-color: {color}\r\nx-cutover-generation: 99\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            )
            .into_bytes()
        })
    };
    let (blue, green) = (lying("blue", "green"), lying("green", "blue"));
    let proxy = Proxy::of(&blue, &green);
    assert_eq!(proxy.fetch("/").field("x-cutover-color"), Some("blue"));
    assert_eq!(proxy.switch("green").json["verify"]["result"], "verified");
    assert_eq!(proxy.fetch("/").field("x-cutover-color"), Some("green"));
}

#[test]
fn rollback_goes_back_once_and_never_to_the_color_just_left() {
    let (blue, green) = (Backend::blue(), Backend::green());
    let proxy = Proxy::of(&blue, &green);
    let nothing = proxy.post("rollback", json!({}));
    assert_eq!(
        (nothing.status, nothing.json["code"].as_str()),
        (422, Some("rollback_impossible")),
        "{}",
        nothing.text
    );
    proxy.switch("green");
    let back = proxy.post("rollback", json!({ "reason": "drill" })).done();
    assert_eq!(
        (back.json["active"].as_str(), proxy.says().as_str()),
        (Some("blue"), "blue")
    );
    let again = proxy.post("rollback", json!({}));
    assert_eq!(again.json["code"], "rollback_impossible", "{}", again.text);
    assert_eq!(proxy.says(), "blue");
}

#[test]
fn rollback_needs_no_healthy_page_but_somebody_there() {
    let sick = std::sync::Arc::new(AtomicBool::new(false));
    let of_blue = sick.clone();
    let blue = Backend::handler(move |request| {
        if of_blue.load(SeqCst) && request.target() == HEALTH {
            return b"HTTP/1.1 500 Oh\r\ncontent-length: 0\r\n\r\n".to_vec();
        }
        ok("blue")
    });
    let green = Backend::green();
    let proxy = Setup::new()
        .colors(&blue, &green, "health.fall = 1\nhealth.rise = 1")
        .start();
    let health = |color: &str| {
        proxy.app()["colors"][color]["services"][0]["endpoints"][0]["health"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    proxy.switch("green");
    sick.store(true, SeqCst);
    until("blue fails", || health("blue") == "failing");
    let back = proxy.post("rollback", json!({})).done();
    assert!(!back.json["warnings"].as_array().unwrap().is_empty());
    assert_eq!(proxy.says(), "blue");

    sick.store(false, SeqCst);
    until("blue is well", || health("blue") == "healthy");
    proxy.switch("green");
    blue.stop_and_wait();
    until("blue is gone", || health("blue") == "unreachable");
    let refused = proxy.post("rollback", json!({}));
    assert_eq!(refused.json["code"], "rollback_impossible", "{}", refused.text);
    assert_eq!(proxy.says(), "green");
}

#[test]
fn a_share_is_exact() {
    let (blue, green) = (Backend::blue(), Backend::green());
    let proxy = Setup::new().colors(&blue, &green, "").start();
    for percent in [1, 10, 33, 50, 99] {
        proxy.post("weight", json!({ "green": percent })).done();
        // Over several connections, so that both workers have their part.
        let count: usize = std::thread::scope(|scope| {
            let clients: Vec<_> = (0..4)
                .map(|_| {
                    let mut client = proxy.client();
                    scope.spawn(move || (0..2_500).filter(|_| client.get("/").text() == "green").count())
                })
                .collect();
            clients.into_iter().map(|client| client.join().unwrap()).sum()
        });
        let share = count as f64 / 100.0;
        assert!(
            (share - f64::from(percent)).abs() <= 1.0,
            "{share} % instead of {percent} %"
        );
    }
    let status = proxy.app();
    assert_eq!(
        (status["active"].as_str(), status["weight"].as_u64()),
        (Some("blue"), Some(99))
    );
    assert_eq!(status["candidate"], "green");
}

#[test]
fn a_candidate_with_nothing_healthy_gets_nothing_and_that_is_counted() {
    let (blue, green) = (Backend::blue(), Backend::green());
    let proxy = Setup::new().colors(&blue, &green, "health.fall = 1").start();
    proxy.post("weight", json!({ "green": 50 })).done();
    green.stop_and_wait();
    until("green is out", || {
        proxy.app()["colors"]["green"]["services"][0]["endpoints"][0]["health"] == "unreachable"
    });
    let mut client = proxy.client();
    for _ in 0..100 {
        assert_eq!(client.get("/").text(), "blue");
    }
    let spilled = proxy.metric("cutover_spilled_total", &[]);
    assert!((45.0..=55.0).contains(&spilled), "{spilled}");
}

#[test]
fn a_weight_of_100_is_a_switch_and_rollback_ends_a_share() {
    let (blue, green) = (Backend::blue(), Backend::green());
    let proxy = Proxy::of(&blue, &green);
    proxy.post("weight", json!({ "green": 30 })).done();
    proxy.post("rollback", json!({})).done();
    assert_eq!(
        (proxy.app()["weight"].as_u64(), proxy.app()["active"].as_str()),
        (Some(0), Some("blue"))
    );
    proxy.post("weight", json!({ "green": 30 })).done();
    let all = proxy.post("weight", json!({ "green": 100 })).done();
    assert_eq!(
        (all.json["active"].as_str(), proxy.says().as_str()),
        (Some("green"), "green")
    );
    for bad in [
        json!({ "green": 101 }),
        json!({ "green": -1 }),
        json!({ "green": 60, "blue": 60 }),
        json!({}),
    ] {
        assert_eq!(proxy.post("weight", bad.clone()).status, 400, "{bad}");
    }
}

#[test]
fn held_requests_wait_and_go_on() {
    let (blue, green) = (Backend::blue(), Backend::green());
    let proxy = Proxy::of(&blue, &green);
    proxy.post("hold", json!({ "max": "60s" })).done();
    let mut held: Vec<Wire> = (0..10)
        .map(|n| {
            let mut client = proxy.client();
            if n % 2 == 0 {
                client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
            } else {
                client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody");
            }
            client
        })
        .collect();
    until("all wait", || proxy.app()["hold"]["waiting"] == 10);
    assert_eq!(proxy.metric("cutover_held_requests", &[]), 10.0);
    assert_eq!((blue.requests().len(), green.requests().len()), (0, 0));
    // The health path is never held: a load balancer must not take a hold for a failure.
    assert_eq!(proxy.fetch(HEALTH).text(), "blue");
    // A switch goes through meanwhile, proof included, and those who wait get the new color.
    proxy.switch("green");
    assert_eq!(proxy.app()["hold"]["waiting"], 10);
    proxy.post("release", json!({})).done();
    for client in &mut held {
        assert_eq!(client.answer().text(), "green");
    }
    assert_eq!(green.requests().len(), 10);
    assert_eq!(proxy.says(), "green");
}

#[test]
fn a_hold_ends_by_itself() {
    let blue = Backend::blue();
    let proxy = Proxy::before(&blue);
    proxy.post("hold", json!({ "max": "300ms" })).done();
    let begun = Instant::now();
    assert_eq!(proxy.says(), "blue");
    assert!(
        begun.elapsed() >= Duration::from_millis(200),
        "{:?}",
        begun.elapsed()
    );
    until("it says so", || proxy.app()["hold"].is_null());
}

#[test]
fn a_hold_is_bounded() {
    let blue = Backend::blue();
    let proxy = Proxy::before(&blue);
    proxy.post("hold", json!({ "max": "60s" })).done();
    let mut held: Vec<Wire> = Vec::new();
    for _ in 0..1_000 {
        let mut client = proxy.client();
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        held.push(client);
    }
    until("the room is full", || proxy.app()["hold"]["waiting"] == 1_000);
    let over = proxy.fetch("/");
    assert_eq!(
        (over.status(), over.field("retry-after")),
        (503, Some("1")),
        "{over:?}"
    );
    // One that gives up makes room for another.
    held.pop().unwrap().reset();
    until("there is room", || proxy.app()["hold"]["waiting"] == 999);
    let mut late = proxy.client();
    late.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    until("it is taken", || proxy.app()["hold"]["waiting"] == 1_000);
    proxy.post("release", json!({})).done();
    for client in held.iter_mut().chain([&mut late]) {
        assert_eq!(client.answer().text(), "blue");
    }
}

#[test]
fn a_drained_standby_lets_its_connections_go() {
    let (blue, green) = (Backend::blue(), Backend::green());
    let proxy = Proxy::of(&blue, &green);
    let never = proxy.get("/v1/apps/web/colors/green/drained?wait=1s");
    assert_eq!(never.json["code"], "not_drainable", "{}", never.text);
    let active = proxy.post("drain", json!({ "color": "blue" }));
    assert_eq!(active.json["code"], "not_drainable", "{}", active.text);
    proxy.switch("green");
    proxy.post("drain", json!({ "color": "blue" })).done();
    proxy.get("/v1/apps/web/colors/blue/drained?wait=15s").done();
    assert_eq!(proxy.app()["colors"]["blue"]["role"], "drained");
    assert_eq!(proxy.says(), "green");
}

#[test]
fn services_move_together() {
    let tell = |text: &'static str| Backend::says(text);
    let all = [
        tell("web blue"),
        tell("web green"),
        tell("api blue"),
        tell("api green"),
    ];
    let proxy = Setup::new()
        .toml(&format!(
            "[app.web]\ninitial = \"blue\"\nhealth.path = \"{HEALTH}\"\n[app.web.service.web]\nblue = [\"{}\"]\n\
             green = [\"{}\"]\n[app.web.service.api]\npath_prefix = \"/api\"\nblue = [\"{}\"]\ngreen = [\"{}\"]",
            all[0].address(),
            all[1].address(),
            all[2].address(),
            all[3].address()
        ))
        .start();
    proxy.switch("green");
    assert_eq!(
        (
            proxy.fetch("/").text().as_str(),
            proxy.fetch("/api/x").text().as_str()
        ),
        ("web green", "api green")
    );
    all[2].stop_and_wait();
    let refused = proxy.post("switch", json!({ "to": "blue" }));
    assert_eq!(refused.status, 422, "one sick service is enough");
    assert_eq!(refused.json["probes"].as_array().unwrap().len(), 2);
    assert_eq!(
        (
            proxy.fetch("/").text().as_str(),
            proxy.fetch("/api/x").text().as_str()
        ),
        ("web green", "api green")
    );
}

#[test]
fn the_old_color_may_be_killed_once_it_is_drained() {
    let (blue, green) = (Backend::blue(), Backend::green());
    let proxy = Proxy::of(&blue, &green);
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let ends = Ends(&over);
        let hammer = scope.spawn(|| {
            let mut client = proxy.client();
            while !over.load(SeqCst) {
                assert_eq!(client.get("/").status(), 200);
                assert_eq!(client.post("/", "body").status(), 200);
            }
        });
        proxy.switch("green");
        proxy.get("/v1/apps/web/colors/blue/drained?wait=15s").done();
        blue.stop_and_wait();
        for _ in 0..50 {
            assert_eq!(proxy.says(), "green");
        }
        drop(ends);
        hammer.join().unwrap();
    });
}

#[test]
fn a_cut_download_is_told_even_while_it_switches() {
    let (blue, green) = (
        Backend::answers("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf"),
        Backend::green(),
    );
    let proxy = Setup::new()
        .toml(&format!(
            "[app.web]\ninitial = \"blue\"\nblue = [\"{}\"]\ngreen = [\"{}\"]",
            blue.address(),
            green.address()
        ))
        .start();
    let mut client = proxy.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    proxy.switch("green");
    assert!(matches!(client.try_answer(), Err(Broken::Cut(_))));
}
