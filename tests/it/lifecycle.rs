//! From the first start to the last stop: readiness, restarts, the stored state.

use std::sync::Mutex;
use std::sync::mpsc::channel;

use serde_json::json;

use crate::harness::backend::HEALTH;
use crate::harness::{Backend, Setup, ok, until};

#[test]
fn it_is_not_ready_before_the_first_color_is_decided() {
    let (go, wait) = channel::<()>();
    let wait = Mutex::new(wait);
    let blue = Backend::script(move |wire, _| {
        while let Some(request) = wire.request() {
            if request.target() == HEALTH {
                let _ = wait.lock().unwrap().recv();
            }
            wire.send(ok("blue"));
        }
    });
    let address = blue.address();
    let proxy = Setup::new()
        .toml(&format!(
            "[app.web]\nblue = [\"{address}\"]\nhealth.path = \"{HEALTH}\"\nhealth.timeout = \"60s\""
        ))
        .start_unready();
    let ready = proxy.get("/readyz");
    assert_eq!(ready.status, 503, "{}", ready.text);
    assert!(
        ready
            .text
            .contains("web: the first active color is not decided yet"),
        "{}",
        ready.text
    );
    assert_eq!(proxy.fetch("/").status(), 503);
    drop(go);
    until("ready", || proxy.get("/readyz").status == 200);
    assert_eq!(proxy.says(), "blue");
}

#[test]
fn a_restart_keeps_the_active_color() {
    let (blue, green) = (Backend::blue(), Backend::green());
    let mut proxy = crate::harness::Proxy::of(&blue, &green);
    proxy.switch("green");
    let generation = proxy.generation();
    for _ in 0..2 {
        proxy.restart();
        assert_eq!((proxy.says().as_str(), proxy.generation()), ("green", generation));
    }
    proxy.post("rollback", json!({})).done();
    proxy.restart();
    assert_eq!(proxy.says(), "blue");
}

#[test]
fn a_restart_keeps_weights() {
    let (blue, green) = (Backend::blue(), Backend::green());
    let mut proxy = crate::harness::Proxy::of(&blue, &green);
    proxy.post("weight", json!({ "green": 25 })).done();
    proxy.restart();
    assert_eq!(proxy.app()["weight"], 25);
    let mut client = proxy.client();
    let green = (0..400).filter(|_| client.get("/").text() == "green").count();
    assert!((95..=105).contains(&green), "{green} of 400");
}

#[test]
fn maintenance_survives_a_restart_and_a_hold_does_not() {
    let (blue, green) = (Backend::blue(), Backend::green());
    let mut proxy = crate::harness::Proxy::of(&blue, &green);
    let message = json!({ "on": true, "message": "back at noon" });
    proxy.post("maintenance", message).done();
    proxy.restart();
    let answer = proxy.fetch("/");
    assert_eq!(answer.status(), 503);
    assert!(answer.text().contains("back at noon"), "{}", answer.text());
    proxy.post("maintenance", json!({ "on": false })).done();
    assert_eq!(proxy.says(), "blue");

    proxy.post("hold", json!({ "max": "300s" })).done();
    let mut held = proxy.client();
    held.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    until("it is held", || proxy.app()["hold"]["waiting"] == 1);
    drop(held);
    proxy.restart();
    assert_eq!(proxy.says(), "blue");
    assert!(proxy.app()["hold"].is_null());
}

#[test]
fn two_proxies_do_not_share_a_state_folder() {
    let blue = Backend::blue();
    let proxy = crate::harness::Proxy::before(&blue);
    let text = format!(
        "[server]\nstate_dir = \"{}\"\n[log]\naccess = \"off\"\n[[listener]]\naddress = \"127.0.0.1:0\"\n[app.web]\nblue = [\"{}\"]",
        proxy.folder().join("state").display(),
        blue.address()
    );
    let config = cutover::config::parse(&text, "second.toml", &|_| None).unwrap();
    let source = cutover::app::Source { config, file: None };
    let refused = cutover::app::App::bind(source, None).unwrap_err().to_string();
    assert!(refused.contains(&std::process::id().to_string()), "{refused}");
    assert_eq!(proxy.says(), "blue");
}
