//! Operators who collide, repeat themselves, and edit the file.

use serde_json::json;

use crate::harness::backend::HEALTH;
use crate::harness::{Backend, Ends, Proxy, Setup, ok, until};

#[test]
fn a_generation_that_moved_is_412_with_the_state_now() {
    let (blue, green) = (Backend::blue(), Backend::green());
    let proxy = Proxy::of(&blue, &green);
    let seen = proxy.get("/v1/apps/web").done().etag.unwrap();
    assert_eq!(seen, "\"g1\"");
    let to = json!({ "to": "green" });
    let moved = proxy
        .post_with("switch", &[("If-Match", &seen)], to.clone())
        .done();
    assert_eq!(moved.etag.as_deref(), Some("\"g2\""));
    for (verb, body) in [
        ("switch", json!({ "to": "blue" })),
        ("weight", json!({ "blue": 10 })),
        ("hold", json!({})),
        ("maintenance", json!({ "on": true })),
        ("rollback", json!({})),
    ] {
        let late = proxy.post_with(verb, &[("If-Match", &seen)], body);
        assert_eq!(
            (late.status, late.json["code"].as_str()),
            (412, Some("generation_moved")),
            "{verb}: {}",
            late.text
        );
        assert_eq!(late.json["current"]["generation"], 2);
        assert_eq!(late.json["current"]["active"], "green");
    }
    assert_eq!((proxy.says().as_str(), proxy.generation()), ("green", 2));
    assert_eq!(
        proxy.post_with("switch", &[("If-Match", "nonsense")], to).status,
        400
    );
}

#[test]
fn a_repeated_key_gets_the_first_answer() {
    let (blue, green) = (Backend::blue(), Backend::green());
    let mut proxy = Proxy::of(&blue, &green);
    let key = [("Idempotency-Key", "deploy-42")];
    let first = proxy.post_with("switch", &key, json!({ "to": "green" })).done();
    assert_eq!(first.json["repeated"], false);
    proxy.switch("blue");
    for _ in 0..2 {
        let second = proxy.post_with("switch", &key, json!({ "to": "green" })).done();
        assert_eq!(second.json["repeated"], true, "{}", second.text);
        assert_eq!(second.generation(), first.generation());
        assert_eq!(
            (proxy.says().as_str(), proxy.generation()),
            ("blue", 3),
            "nothing moved again"
        );
        proxy.restart();
    }
}

#[test]
fn of_two_switches_at_once_one_wins() {
    let blue = Backend::blue();
    // The gate takes long enough for both to be there.
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let asked = std::sync::Arc::<std::sync::atomic::AtomicUsize>::default();
    let of_green = asked.clone();
    let green = Backend::script(move |wire, _| {
        while let Some(request) = wire.request() {
            let verifies = request
                .field("user-agent")
                .is_some_and(|agent| agent.starts_with("cutover-verify"));
            if verifies {
                of_green.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                let _ = wait.lock().unwrap().recv();
            }
            wire.send(ok("green"));
        }
    });
    let proxy = Proxy::of(&blue, &green);
    std::thread::scope(|scope| {
        let first = scope.spawn(|| proxy.post("switch", json!({ "to": "green" })));
        until("the first is at work", || {
            asked.load(std::sync::atomic::Ordering::SeqCst) > 0
        });
        for (verb, body) in [
            ("switch", json!({ "to": "blue" })),
            ("weight", json!({ "green": 50 })),
        ] {
            let second = proxy.post(verb, body);
            assert_eq!(
                (second.status, second.json["code"].as_str()),
                (409, Some("busy")),
                "{}",
                second.text
            );
            assert!(
                second.json["operation"].as_str().unwrap().contains("switch"),
                "{}",
                second.text
            );
        }
        drop(go);
        first.join().unwrap().done();
    });
    assert_eq!((proxy.says().as_str(), proxy.generation()), ("green", 2));
}

#[test]
fn rollback_does_not_wait_for_a_switch_that_proves_itself() {
    let blue = Backend::blue();
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let green = Backend::script(move |wire, _| {
        while let Some(request) = wire.request() {
            if request
                .field("user-agent")
                .is_some_and(|agent| agent.starts_with("cutover-verify"))
            {
                let _ = wait.lock().unwrap().recv();
            }
            wire.send(ok("green"));
        }
    });
    let proxy = Proxy::of(&blue, &green);
    std::thread::scope(|scope| {
        let switch = scope.spawn(|| proxy.post("switch", json!({ "to": "green" })));
        until("it has moved", || proxy.app()["active"] == "green");
        proxy.post("rollback", json!({})).done();
        assert_eq!(proxy.says(), "blue");
        drop(go);
        let overtaken = switch.join().unwrap();
        assert_ne!(overtaken.status, 200, "{}", overtaken.text);
    });
    assert_eq!((proxy.says().as_str(), proxy.generation()), ("blue", 3));
}

#[test]
fn hammered_by_operators_it_moves_once_a_generation() {
    let (blue, green) = (Backend::blue(), Backend::green());
    let proxy = Proxy::of(&blue, &green);
    let done: usize = std::thread::scope(|scope| {
        let operators: Vec<_> = (0..4)
            .map(|operator| {
                let proxy = &proxy;
                scope.spawn(move || {
                    let to = if operator % 2 == 0 { "green" } else { "blue" };
                    let results = (0..15).map(|_| proxy.post("switch", json!({ "to": to })));
                    results
                        .filter(|reply| {
                            assert!([200, 409].contains(&reply.status), "{}", reply.text);
                            reply.status == 200 && reply.json["changed"] == true
                        })
                        .count()
                })
            })
            .collect();
        operators
            .into_iter()
            .map(|operator| operator.join().unwrap())
            .sum()
    });
    assert_eq!(proxy.generation() as usize, 1 + done);
    let entries = proxy.get("/v1/history").done().json["entries"]
        .as_array()
        .unwrap()
        .clone();
    let generations: Vec<_> = entries
        .iter()
        .map(|entry| entry["generation"].as_u64().unwrap())
        .collect();
    assert!(
        generations.windows(2).all(|pair| pair[1] == pair[0] + 1),
        "{generations:?}"
    );
    assert_eq!(proxy.says(), proxy.app()["active"].as_str().unwrap());
}

#[test]
fn a_dry_run_moves_nothing() {
    let (blue, green) = (Backend::blue(), Backend::green());
    let proxy = Proxy::of(&blue, &green);
    let would = proxy
        .post("switch", json!({ "to": "green", "dry_run": true }))
        .done();
    assert_eq!(
        (would.json["active"].as_str(), would.json["dry_run"].as_bool()),
        (Some("green"), Some(true))
    );
    green.stop_and_wait();
    assert_eq!(
        proxy
            .post("switch", json!({ "to": "green", "dry_run": true }))
            .status,
        422
    );
    assert_eq!((proxy.says().as_str(), proxy.generation()), ("blue", 1));
}

#[test]
fn endpoints_are_set_and_kept() {
    let (blue, green, other) = (Backend::blue(), Backend::green(), Backend::says("other"));
    let mut proxy = Proxy::of(&blue, &green);
    let set = json!({ "endpoints": { "web": [other.address()] }, "revision": "abc" });
    proxy.put("/v1/apps/web/colors/green", set).done();
    assert_eq!((proxy.says().as_str(), proxy.generation()), ("blue", 2));
    proxy.switch("green");
    assert_eq!(proxy.says(), "other");
    proxy.restart();
    assert_eq!(proxy.says(), "other");
    assert_eq!(proxy.app()["colors"]["green"]["revision"], "abc");
    for bad in [
        json!({ "endpoints": { "nope": ["a:1"] } }),
        json!({ "endpoints": { "web": ["nonsense"] } }),
        json!({}),
    ] {
        assert_eq!(
            proxy.put("/v1/apps/web/colors/green", bad.clone()).status,
            400,
            "{bad}"
        );
    }
}

#[test]
fn the_active_colors_endpoints_change_without_a_failed_request() {
    let (one, two, green) = (Backend::says("one"), Backend::says("two"), Backend::green());
    let proxy = Proxy::of(&one, &green);
    let over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let ends = Ends(&over);
        let hammer = scope.spawn(|| {
            let mut client = proxy.client();
            while !over.load(std::sync::atomic::Ordering::SeqCst) {
                let answer = client.post("/", "body");
                assert_eq!(answer.status(), 200, "{answer:?}");
            }
        });
        for n in 0..20 {
            let (to, says) = if n % 2 == 0 { (&two, "two") } else { (&one, "one") };
            let set = json!({ "endpoints": { "web": [to.address()] } });
            proxy.put("/v1/apps/web/colors/blue", set).done();
            assert_eq!(proxy.says(), says);
        }
        drop(ends);
        hammer.join().unwrap();
    });
}

fn from_file(blue: &Backend, green: &Backend) -> Proxy {
    Setup::new().colors(blue, green, "").in_file().start()
}

#[test]
fn a_changed_file_is_taken_by_itself() {
    let (blue, green, other) = (Backend::blue(), Backend::green(), Backend::says("other"));
    let proxy = from_file(&blue, &green);
    let mut client = proxy.client();
    assert_eq!(client.get("/").text(), "blue");
    proxy.rewrite(|text| text.replace(blue.address(), other.address()));
    until("it serves the other", || client.get("/").text() == "other");
    assert_eq!(proxy.generation(), 2, "endpoints changed: one generation");
    assert_eq!(proxy.metric("cutover_config_last_reload_successful", &[]), 1.0);
}

#[test]
fn a_harmless_change_leaves_everything_alone() {
    let (blue, green) = (Backend::blue(), Backend::green());
    let proxy = from_file(&blue, &green);
    let mut client = proxy.client();
    assert_eq!(client.get("/").text(), "blue");
    let requests = proxy.metric("cutover_requests_total", &[]);
    proxy.rewrite(|text| text + "\n[app.other]\nhosts = [\"other.test\"]\nblue = [\"127.0.0.1:9\"]\n");
    let reloaded = proxy.reload().done();
    until("both apps are there", || {
        proxy.get("/v1/apps").json["apps"].as_array().unwrap().len() == 2
    });
    assert_eq!(reloaded.json["schema"], "cutover.reload/v1");
    assert_eq!((client.get("/").text().as_str(), proxy.generation()), ("blue", 1));
    assert!(
        proxy.metric("cutover_requests_total", &[]) > requests,
        "the counters went on"
    );
    // The pooled connections are the old ones: one a worker for requests, and those of the probes ended.
    let mut plain = blue.received();
    plain.retain(|bytes| !bytes.starts_with(format!("GET {HEALTH}").as_bytes()));
    assert_eq!(plain.len(), 1);
}

#[test]
fn a_broken_file_changes_nothing_and_says_so_everywhere() {
    let (blue, green) = (Backend::blue(), Backend::green());
    let proxy = from_file(&blue, &green);
    proxy.switch("green");
    let good = std::fs::read_to_string(proxy.file()).unwrap();
    for broken in [
        "",
        "[",
        "\0\0\0\0",
        "nonsense = 1",
        &good[..good.len() / 2],
        &good.replace("green = [\"127", "green = [\"999"),
        &good.replace("[app.web]", "[app.web]\ncolour = 1"),
    ] {
        let refused = {
            proxy.rewrite(|_| broken.to_owned());
            proxy.reload()
        };
        if refused.status == 200 {
            // A half that happens to be whole is a configuration of its own.
            panic!("{broken:?} was taken: {}", refused.text);
        }
        assert_eq!(
            (refused.status, refused.json["code"].as_str()),
            (422, Some("config_invalid")),
            "{}",
            refused.text
        );
        assert_eq!(proxy.says(), "green");
        let status = proxy.get("/v1/status").done().json;
        assert!(status["config"]["last_error"].is_string(), "{status}");
        assert_eq!(proxy.metric("cutover_config_last_reload_successful", &[]), 0.0);
    }
    std::fs::remove_file(proxy.file()).unwrap();
    assert_eq!(proxy.reload().status, 422);
    assert_eq!(proxy.says(), "green");
    std::fs::write(proxy.file(), &good).unwrap();
    assert_eq!(proxy.reload().status, 200);
    assert!(proxy.get("/v1/status").done().json["config"]["last_error"].is_null());
    assert_eq!((proxy.says().as_str(), proxy.generation()), ("green", 2));
}

#[test]
fn reloads_do_not_disturb_requests() {
    let (blue, green, other) = (Backend::blue(), Backend::green(), Backend::says("other"));
    let proxy = from_file(&blue, &green);
    let over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let ends = Ends(&over);
        for _ in 0..3 {
            scope.spawn(|| {
                let mut client = proxy.client();
                while !over.load(std::sync::atomic::Ordering::SeqCst) {
                    assert_eq!(client.get("/").status(), 200);
                    assert_eq!(client.post("/", "body").status(), 200);
                }
            });
        }
        for n in 0..30 {
            proxy.rewrite(|text| {
                let text = if n % 3 == 0 {
                    text.replace(blue.address(), other.address())
                } else {
                    text.replace(other.address(), blue.address())
                };
                text + &format!("# {n}\n")
            });
            proxy.reload().done();
        }
        drop(ends);
    });
}

#[test]
fn the_api_is_not_served_on_the_data_port() {
    let blue = Backend::blue();
    let proxy = Proxy::before(&blue);
    assert_eq!(proxy.fetch("/v1/apps/web").text(), "blue");
    assert_eq!(proxy.fetch("/metrics").text(), "blue");
}
