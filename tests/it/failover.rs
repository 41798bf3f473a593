//! The active color loses all that is healthy, and the standby serves.

use serde_json::json;

use crate::harness::{Backend, Proxy, Setup, until};

fn two(lines: &str) -> (Backend, Backend, Proxy) {
    let (blue, green) = (Backend::blue(), Backend::green());
    let lines = format!("health.rise = 1\nhealth.fall = 1\n{lines}");
    let proxy = Setup::new().colors(&blue, &green, &lines).start();
    until("green is known to be healthy", || {
        proxy.app()["colors"]["green"]["healthy"] == true
    });
    (blue, green, proxy)
}

/// Wait until the control plane has been told that a color is `health` now, and has drawn its conclusions: what it
/// would do then stands in line before a change of ours, which has to be the next generation.
fn concluded(proxy: &Proxy, color: &str, health: &str) {
    until("it has been told", || {
        let events = proxy.get("/v1/events?after=0&follow=false").text;
        let of_color = |line: &&str| line.contains(&format!("web web {color} "));
        let last = events
            .lines()
            .filter(|line| line.contains("→"))
            .rfind(of_color)
            .map(str::to_owned);
        last.is_some_and(|line| line.contains(&format!("→ {health}")))
    });
    let before = proxy.generation();
    let revision = json!({ "revision": format!("r{before}") });
    proxy.put("/v1/apps/web/colors/blue", revision).done();
    assert_eq!(proxy.generation(), before + 1, "something else was changed");
}

fn active(proxy: &Proxy) -> String {
    proxy.app()["active"].as_str().unwrap().to_owned()
}

#[test]
fn the_standby_takes_over_and_everybody_is_told() {
    let (blue, _green, proxy) = two("failover = { auto = true, after = \"100ms\" }");
    blue.stop_and_wait();
    until("green serves", || active(&proxy) == "green");
    assert_eq!(proxy.says(), "green");
    let history = proxy.get("/v1/history").done().json;
    let last = history["entries"].as_array().unwrap().last().unwrap().clone();
    assert_eq!(
        (last["verb"].as_str(), last["to"].as_str()),
        (Some("switch"), Some("green"))
    );
    assert!(last["by"].to_string().contains("failover"), "{last}");
    assert!(
        last["reason"].as_str().unwrap().contains("nothing healthy"),
        "{last}"
    );
    let counted = [
        "from=\"blue\"",
        "to=\"green\"",
        "trigger=\"failover\"",
        "result=\"done\"",
    ];
    until("it is counted", || {
        proxy.metric("cutover_switches_total", &counted) == 1.0
    });
}

#[test]
fn it_never_flaps_back_by_itself_not_even_after_a_restart() {
    let (blue, green, mut proxy) = two("failover = { auto = true, after = \"0s\" }");
    let address = blue.address().to_owned();
    blue.stop_and_wait();
    until("green serves", || active(&proxy) == "green");
    // Blue is back, and green goes.
    let _blue = Backend::at(address.parse().unwrap(), |wire, _| {
        while wire.request().is_some() {
            wire.send(crate::harness::ok("blue"));
        }
    });
    until("blue is healthy again", || {
        proxy.app()["colors"]["blue"]["healthy"] == true
    });
    green.stop_and_wait();
    concluded(&proxy, "green", "unreachable");
    assert_eq!(active(&proxy), "green");
    proxy.restart_unready();
    concluded(&proxy, "blue", "healthy");
    concluded(&proxy, "green", "unreachable");
    assert_eq!(active(&proxy), "green");
    // An operator may.
    proxy.post("switch", json!({ "to": "blue" })).done();
    assert_eq!(proxy.says(), "blue");
}

#[test]
fn nothing_moves_unless_the_file_says_so_and_the_standby_is_healthy() {
    for (lines, standby) in [
        ("failover.auto = false", true),
        ("failover = { auto = true, after = \"0s\" }", false),
    ] {
        let (blue, green, proxy) = two(lines);
        if !standby {
            green.stop_and_wait();
            concluded(&proxy, "green", "unreachable");
        }
        blue.stop_and_wait();
        concluded(&proxy, "blue", "unreachable");
        assert_eq!(active(&proxy), "blue", "{lines}");
        assert_eq!(proxy.fetch("/").status(), 503);
    }
}

#[test]
fn maintenance_and_a_hold_are_the_operators() {
    let (blue, _green, proxy) = two("failover = { auto = true, after = \"0s\" }");
    proxy.post("maintenance", json!({ "on": true })).done();
    blue.stop_and_wait();
    concluded(&proxy, "blue", "unreachable");
    assert_eq!(active(&proxy), "blue");
    proxy.post("maintenance", json!({ "on": false })).done();
    until("green serves", || active(&proxy) == "green");
}
