//! Rules: conditions on a request that send it to a color.

use serde_json::json;

use crate::harness::{Backend, Proxy, Setup, Wire, until};

fn rules(rules: &[(&str, &str)]) -> String {
    let table = |(when, color): &(&str, &str)| {
        format!("[[app.web.rule]]\nwhen = '''{when}'''\ncolor = \"{color}\"\n")
    };
    rules.iter().map(table).collect()
}

fn with(list: &[(&str, &str)]) -> (Backend, Backend, Proxy) {
    let (blue, green) = (Backend::blue(), Backend::green());
    let proxy = Setup::new().colors(&blue, &green, &rules(list)).start();
    (blue, green, proxy)
}

fn ask(wire: &mut Wire, target: &str, fields: &str) -> String {
    let answer = wire.ask(format!("GET {target} HTTP/1.1\r\nHost: a\r\n{fields}\r\n"));
    assert_eq!(answer.status(), 200, "{answer:?}");
    answer.text()
}

#[test]
fn the_first_rule_that_holds_wins_at_any_weight() {
    let (_blue, _green, proxy) = with(&[
        (r#"request.path == "/old""#, "active"),
        (
            r#"request.headers["x-beta"] == "1" && request.path.startsWith("/api")"#,
            "green",
        ),
        (r#"request.query["peek"] == "yes""#, "candidate"),
        (r#"size(request.path) > 20"#, "green"),
    ]);
    let mut wire = proxy.client();
    let beta = "X-Beta: 1\r\n";
    assert_eq!(ask(&mut wire, "/api", beta), "green");
    assert_eq!(ask(&mut wire, "/api", ""), "blue");
    assert_eq!(ask(&mut wire, "/", beta), "blue");
    assert_eq!(ask(&mut wire, "/old", beta), "blue");
    assert_eq!(ask(&mut wire, "/a/path/of/many/bytes", ""), "green");
    // No candidate, no rule.
    assert_eq!(ask(&mut wire, "/?peek=yes", ""), "blue");
    proxy.post("weight", json!({ "green": 1 })).done();
    assert_eq!(ask(&mut wire, "/?peek=yes", ""), "green");
    assert_eq!(ask(&mut wire, "/old", beta), "blue");
    // Nobody is introduced who did not need a bucket.
    let ruled = wire.ask("GET /api HTTP/1.1\r\nHost: a\r\nX-Beta: 1\r\n\r\n");
    assert_eq!(ruled.field("set-cookie"), None);
    // A color is a color, whichever is active.
    proxy.switch("green");
    assert_eq!(ask(&mut wire, "/old", ""), "green");
    assert_eq!(ask(&mut wire, "/api", beta), "green");
}

#[test]
fn a_condition_without_an_answer_goes_on_to_the_next_rule_and_is_counted() {
    let (_blue, _green, proxy) = with(&[
        ("10 / (size(request.path) - 2) > 100", "blue"),
        (r#"request.headers["x-who"] == "ann""#, "green"),
        (r#"request.path == "/x""#, "green"),
    ]);
    let mut wire = proxy.client();
    // Divides by zero, then a header that is not there: only the first is out of the ordinary.
    assert_eq!(ask(&mut wire, "/x", ""), "green");
    assert_eq!(proxy.metric("cutover_rule_errors_total", &["app=\"web\""]), 1.0);
    let answer = wire.ask(b"GET /long HTTP/1.1\r\nHost: a\r\nX-Who: \xff\xfe\r\n\r\n");
    assert_eq!((answer.status(), answer.text().as_str()), (200, "blue"));
    assert_eq!(proxy.metric("cutover_rule_errors_total", &["app=\"web\""]), 2.0);
}

#[test]
fn a_rule_for_a_sick_or_drained_color_spills_to_the_active_one() {
    let (blue, green) = (Backend::blue(), Backend::green());
    let lines = format!(
        "health.rise = 1\nhealth.fall = 1\n{}",
        rules(&[(r#"request.path == "/x""#, "green")])
    );
    let proxy = Setup::new().colors(&blue, &green, &lines).start();
    let mut wire = proxy.client();
    assert_eq!(ask(&mut wire, "/x", ""), "green");
    proxy.post("drain", json!({ "color": "green" })).done();
    assert_eq!(ask(&mut wire, "/x", ""), "blue");
    assert_eq!(proxy.metric("cutover_spilled_total", &[]), 1.0);
    proxy.switch("green");
    proxy.switch("blue");
    assert_eq!(ask(&mut wire, "/x", ""), "green");
    green.stop_and_wait();
    until("green is known to be gone", || {
        proxy.app()["colors"]["green"]["healthy"] == false
    });
    assert_eq!(ask(&mut wire, "/x", ""), "blue");
}

#[test]
fn rules_do_not_jump_a_hold_or_maintenance() {
    let (_blue, _green, proxy) = with(&[("true", "green")]);
    assert_eq!(proxy.says(), "green");
    proxy.post("maintenance", json!({ "on": true })).done();
    assert_eq!(proxy.fetch("/").status(), 503);
    proxy.post("maintenance", json!({ "on": false })).done();
    proxy.post("hold", json!({ "max": "20s" })).done();
    let mut held = proxy.client();
    held.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    until("it waits", || proxy.app()["hold"]["waiting"] == 1);
    proxy.post("release", json!({})).done();
    assert_eq!(held.answer().text(), "green");
}

#[test]
fn the_proof_of_a_switch_is_not_led_astray() {
    let (_blue, _green, proxy) = with(&[("true", "blue")]);
    assert_eq!(proxy.switch("green").json["verify"]["result"], "verified");
    assert_eq!(proxy.says(), "blue");
}

#[test]
fn explain_says_which_rule_and_why_the_others_not() {
    let (_blue, _green, proxy) = with(&[
        (r#"request.headers["x-beta"] == "1""#, "blue"),
        (
            r#"request.path == "/y" && client.address.inNetwork("192.0.2.0/24")"#,
            "candidate",
        ),
        (r#"request.path.startsWith("/y")"#, "green"),
    ]);
    let explain = |target: &str| {
        let wish = json!({ "method": "GET", "url": target, "from": "192.0.2.1" });
        let told = proxy.post("explain", wish).done().json;
        (
            told["color"].as_str().unwrap().to_owned(),
            told["steps"].to_string(),
        )
    };
    let (color, steps) = explain("/y");
    assert_eq!(color, "green");
    for part in [
        "rule 1",
        "has not what it asks for",
        "rule 2",
        "there is no candidate",
        "rule 3",
        "color: rule 3 says green",
    ] {
        assert!(steps.contains(part), "{part} is not in {steps}");
    }
    assert_eq!(proxy.client().get("/y").text(), "green");
    let (color, steps) = explain("/");
    assert_eq!(color, "blue");
    assert!(steps.contains("is active and has everything"), "{steps}");
    assert_eq!(
        proxy.metric("cutover_rule_errors_total", &[]),
        0.0,
        "explain counts nothing"
    );
}

#[test]
fn a_reload_takes_new_rules_and_leaves_the_old_ones_when_they_are_wrong() {
    let (blue, green) = (Backend::blue(), Backend::green());
    let lines = rules(&[(r#"request.path == "/x""#, "green")]);
    let proxy = Setup::new().colors(&blue, &green, &lines).in_file().start();
    assert_eq!(proxy.fetch("/x").text(), "green");
    proxy.rewrite(|text| text.replace("request.path ==", "request.pth =="));
    let refused = proxy.reload();
    assert!(refused.text.contains("no field `pth`"), "{}", refused.text);
    assert_eq!(proxy.fetch("/x").text(), "green");
    proxy.rewrite(|text| text.replace("request.pth == \"/x\"", "request.path == \"/z\""));
    proxy.reload().done();
    assert_eq!(
        (proxy.fetch("/x").text(), proxy.fetch("/z").text()),
        ("blue".into(), "green".into())
    );
}
