//! A switch that guards itself: real backends that misbehave on command, and what became of the traffic.

use std::sync::atomic::Ordering::SeqCst;

use serde_json::{Value, json};

use super::harness::backend::{Backend, ok};
use super::harness::misbehave::{Load, Manners};
use super::harness::proxy::{Proxy, Setup};
use super::harness::until;

/// Quick to judge, so that a test is quick; all else as by default.
const QUICK: &str = "guard.every = \"100ms\"\nguard.min_requests = 20\nguard.grace = \"0s\"\n";

fn phase(proxy: &Proxy) -> Value {
    proxy.app()["bake"]["phase"].clone()
}

#[track_caller]
fn wait_for_phase(proxy: &Proxy, wanted: &str) -> Value {
    until(wanted, || phase(proxy) == wanted);
    proxy.app()["bake"].clone()
}

/// The newest entry of the history with this verb.
#[track_caller]
fn entry(proxy: &Proxy, verb: &str) -> Value {
    let history = proxy.get("/v1/history").done().json;
    let entries = history["entries"].as_array().unwrap();
    let found = entries.iter().rev().find(|entry| entry["verb"] == verb);
    found.unwrap_or_else(|| panic!("no {verb} in {history}")).clone()
}

/// Traffic is back on blue, and everything says so.
#[track_caller]
fn taken_back(proxy: &Proxy, cause: &str) {
    let bake = wait_for_phase(proxy, "rolled_back");
    assert!(bake["note"].as_str().unwrap().contains(cause), "{bake}");
    let app = proxy.app();
    assert_eq!(app["active"], "blue");
    let entry = entry(proxy, "rollback");
    assert_eq!(
        (&entry["trigger"], &entry["from"], &entry["to"]),
        (&json!("guard"), &json!("green"), &json!("blue"))
    );
    assert!(entry["reason"].as_str().unwrap().contains(cause), "{entry}");
    assert_eq!(
        proxy.metric("cutover_guard_rollbacks_total", &["app=\"web\""]),
        1.0
    );
    let labels = ["trigger=\"guard\"", "result=\"rolled_back\""];
    assert_eq!(proxy.metric("cutover_switches_total", &labels), 1.0);
    let settled = proxy.get("/v1/apps/web/settled?wait=0s").done().json;
    assert_eq!(
        (&settled["settled"], &settled["bake"]["phase"]),
        (&json!(true), &json!("rolled_back"))
    );
    // The guard does not go to and fro: the next rollback has nowhere to go.
    assert_eq!(
        proxy.post("rollback", json!({})).json["code"],
        "rollback_impossible"
    );
    assert_eq!(proxy.says(), "blue");
}

#[test]
fn a_burst_of_errors_is_taken_back_and_nobody_else_is_harmed() {
    let (blue, manners) = (Backend::blue(), Manners::default());
    let green = manners.backend("green");
    let proxy = Setup::new().colors(&blue, &green, QUICK).start();
    let load = Load::on(&proxy);
    load.more(100);
    manners.errors.store(3, SeqCst);
    let outcome = proxy.switch("green");
    assert!(outcome.json["bakes_until"].is_string(), "{}", outcome.text);
    taken_back(&proxy, "candidate.error_rate > 0.05");
    let failed = load.harmed();
    load.more(50);
    assert_eq!(load.harmed(), failed, "blue fails nothing");
    // Every evaluation is in the journal, with value, threshold, count and window.
    let journal = std::fs::read_to_string(proxy.folder().join("state/journal")).unwrap();
    let judged = journal
        .lines()
        .find(|line| line.contains("\"judged\"") && line.contains("fail 1 of 3"))
        .unwrap();
    assert!(
        judged.contains("candidate.error_rate 0.")
            && judged.contains("(n ")
            && judged.contains("baseline.error_rate 0"),
        "{judged}"
    );
}

#[test]
fn a_slow_tail_is_taken_back() {
    let (blue, manners) = (Backend::blue(), Manners::default());
    let green = manners.backend("green");
    let proxy = Setup::new().colors(&blue, &green, QUICK).start();
    let load = Load::on(&proxy);
    load.more(100);
    manners.slow.store(400, SeqCst);
    proxy.switch("green");
    taken_back(&proxy, "candidate.p95 > 2.0 * baseline.p95");
    assert_eq!(load.harmed(), 0, "slow is not failed");
}

#[test]
fn refused_connects_are_taken_back_at_once() {
    let (blue, green) = (Backend::blue(), Backend::green());
    // Probes would find it too: they are far apart here.
    let lines = format!("{QUICK}health.fall = 1000\nguard.bake = \"10m\"\n");
    let proxy = Setup::new().colors(&blue, &green, &lines).start();
    proxy.switch("green");
    green.stop_and_wait();
    let mut harmed = 0;
    until("blue answers", || {
        let status = proxy.fetch("/").status();
        harmed += u64::from(status >= 500);
        status == 200
    });
    let bake = wait_for_phase(&proxy, "rolled_back");
    let note = bake["note"].as_str().unwrap();
    assert!(
        note.contains("failed in a row") || note.contains("lost its health"),
        "{note}"
    );
    assert!(harmed <= 50, "{harmed} requests were harmed");
    assert_eq!(proxy.says(), "blue");
}

#[test]
fn lost_health_is_taken_back_without_a_single_request() {
    let (blue, manners) = (Backend::blue(), Manners::default());
    let green = manners.backend("green");
    let proxy = Setup::new().colors(&blue, &green, QUICK).start();
    proxy.switch("green");
    assert_eq!(phase(&proxy), "watching");
    manners.ill.store(true, SeqCst);
    taken_back(&proxy, "lost its health");
}

#[test]
fn a_dead_old_color_blocks_the_way_back_until_it_is_there_again() {
    let (blue, manners) = (Backend::blue(), Manners::default());
    let green = manners.backend("green");
    let proxy = Setup::new().colors(&blue, &green, QUICK).start();
    let load = Load::on(&proxy);
    proxy.switch("green");
    blue.stop_and_wait();
    until("the probes know it", || {
        proxy.app()["colors"]["blue"]["services"][0]["endpoints"][0]["health"] == "unreachable"
    });
    manners.errors.store(5, SeqCst);
    let bake = wait_for_phase(&proxy, "rollback_blocked");
    assert!(
        bake["note"].as_str().unwrap().contains("cannot be reached"),
        "{bake}"
    );
    assert_eq!(proxy.app()["active"], "green");
    assert_eq!(entry(&proxy, "rollback blocked")["trigger"], "guard");
    let address = blue.address().parse().unwrap();
    let _blue = Backend::at(address, |wire, _| {
        while wire.request().is_some() {
            wire.send(ok("blue"));
        }
    });
    wait_for_phase(&proxy, "rolled_back");
    assert_eq!(proxy.says(), "blue");
    drop(load);
}

#[test]
fn without_traffic_nobody_knows_and_traffic_stays() {
    let (blue, green) = (Backend::blue(), Backend::green());
    let lines = format!("{QUICK}guard.bake = \"1s\"\n");
    let proxy = Setup::new().colors(&blue, &green, &lines).start();
    proxy.switch("green");
    let bake = wait_for_phase(&proxy, "insufficient_data");
    assert!(
        bake["note"].as_str().unwrap().contains("of 20 requests"),
        "{bake}"
    );
    assert_eq!(proxy.app()["active"], "green");
    entry(&proxy, "bake insufficient data");
}

#[test]
fn without_traffic_the_operator_may_have_said_to_go_back() {
    let (blue, green) = (Backend::blue(), Backend::green());
    let lines = format!("{QUICK}guard.bake = \"1s\"\nguard.on_insufficient_data = \"rollback\"\n");
    let proxy = Setup::new().colors(&blue, &green, &lines).start();
    proxy.switch("green");
    taken_back(&proxy, "insufficient data at the end");
}

#[test]
fn a_healthy_candidate_passes_and_the_wait_ends() {
    let (blue, green) = (Backend::blue(), Backend::green());
    // In `it` a machine with a load of its own: what it makes slow is not the candidate's fault.
    let lines =
        format!("{QUICK}guard.bake = \"2s\"\nguard.rollback_when = ['candidate.error_rate > 0.05']\n");
    let proxy = Setup::new().colors(&blue, &green, &lines).start();
    let load = Load::on(&proxy);
    load.more(50);
    proxy.switch("green");
    let settled = proxy.get("/v1/apps/web/settled?wait=60s").done().json;
    assert_eq!(
        (&settled["bake"]["phase"], &settled["active"]),
        (&json!("passed"), &json!("green")),
        "{settled}"
    );
    assert_eq!(load.harmed(), 0);
    assert_eq!(proxy.metric("cutover_gate_state", &["gate=\"guard\""]), 1.0);
}

#[test]
fn an_operators_word_ends_a_bake() {
    let (blue, green) = (Backend::blue(), Backend::green());
    let proxy = Setup::new().colors(&blue, &green, "").start();
    proxy.switch("green");
    assert_eq!(phase(&proxy), "watching");
    proxy.post("weight", json!({ "blue": 10 })).done();
    assert_eq!(phase(&proxy), "ended");
    proxy.switch("green");
    proxy.switch("blue");
    assert_eq!(
        (phase(&proxy), proxy.app()["bake"]["to"].clone()),
        (json!("watching"), json!("blue"))
    );
    proxy.post("rollback", json!({})).done();
    assert_eq!((phase(&proxy), proxy.says().as_str()), (json!("ended"), "green"));
}

#[test]
fn a_bake_goes_on_after_a_restart_and_still_guards() {
    let (blue, manners) = (Backend::blue(), Manners::default());
    let green = manners.backend("green");
    let mut proxy = Setup::new().colors(&blue, &green, QUICK).start();
    proxy.switch("green");
    until("it has watched", || {
        proxy.app()["bake"]["watched_seconds"].as_f64().unwrap() > 0.3
    });
    let before = proxy.app()["bake"].clone();
    proxy.restart();
    let after = proxy.app()["bake"].clone();
    assert_eq!(
        (&after["phase"], &after["of"]),
        (&json!("watching"), &before["of"])
    );
    assert!(after["watched_seconds"].as_f64().unwrap() >= before["watched_seconds"].as_f64().unwrap());
    manners.errors.store(5, SeqCst);
    let load = Load::on(&proxy);
    let bake = wait_for_phase(&proxy, "rolled_back");
    assert_eq!(
        (&bake["of"], proxy.app()["active"].clone()),
        (&before["of"], json!("blue"))
    );
    drop(load);
}

#[test]
fn a_switch_without_a_guard_is_not_watched() {
    let (blue, green) = (Backend::blue(), Backend::green());
    let proxy = Setup::new().colors(&blue, &green, "guard.bake = \"0\"\n").start();
    assert!(proxy.switch("green").json["bakes_until"].is_null());
    assert!(proxy.app()["bake"].is_null());
}
