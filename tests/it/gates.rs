//! Gates before a switch, and rollouts: what is asked, what is answered, and that nothing moves until it may.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use serde_json::{Value, json};

use super::harness::backend::{Backend, ok};
use super::harness::proxy::{Proxy, Setup};
use super::harness::until;

/// A proxy before two colors with these lines in `[app.web]`.
fn proxy(lines: &str) -> (Proxy, [Backend; 2]) {
    let (blue, green) = (Backend::blue(), Backend::green());
    let proxy = Setup::new().colors(&blue, &green, lines).start();
    (proxy, [blue, green])
}

fn dry_run(proxy: &Proxy) -> Value {
    proxy
        .post("switch", json!({ "to": "green", "dry_run": true }))
        .json
}

#[track_caller]
fn refused(proxy: &Proxy, verdict: &str, detail: &str) {
    let answer = proxy.post("switch", json!({ "to": "green" }));
    assert_eq!(
        (answer.status, &answer.json["code"]),
        (422, &json!("gate_refused")),
        "{}",
        answer.text
    );
    let gate = answer.json["gates"].as_array().unwrap().last().unwrap().clone();
    assert_eq!(gate["verdict"], verdict, "{gate}");
    assert!(gate["detail"].as_str().unwrap().contains(detail), "{gate}");
    assert_eq!(proxy.says(), "blue", "nothing moved");
    assert_eq!(proxy.generation(), 1);
}

#[test]
fn a_command_is_asked_before_a_switch() {
    let (proxy, _apps) = proxy(
        "switch.require = [\"healthy\", \"smoke\"]\ngate.smoke.run = \"echo $CUTOVER_TO is broken; exit 7\"\n",
    );
    let shown = dry_run(&proxy);
    assert_eq!(shown["gates"][0]["verdict"], "fail", "{shown}");
    refused(&proxy, "fail", "green is broken");
    assert_eq!(proxy.metric("cutover_gate_state", &["gate=\"smoke\""]), 0.0);
    let forced = proxy.post(
        "switch",
        json!({ "to": "green", "force": true, "reason": "known" }),
    );
    assert_eq!((forced.status, proxy.says().as_str()), (200, "green"));
}

#[test]
fn a_gate_that_hangs_is_killed_and_moves_nothing() {
    let (proxy, _apps) = proxy(
        "switch.require = [\"slow\"]\ngate.slow.run = [\"sleep\", \"600\"]\ngate.slow.timeout = \"200ms\"\n",
    );
    refused(&proxy, "insufficient data", "no answer within 200ms");
}

#[test]
fn a_webhook_waits_passes_and_is_written_down() {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let hook = Backend::handler(move |request| {
        let facts: Value = serde_json::from_slice(&request.body).unwrap_or_default();
        assert_eq!(
            (&facts["to"], &facts["app"], &facts["generation"]),
            (&json!("green"), &json!("web"), &json!(1))
        );
        if counted.fetch_add(1, SeqCst) < 2 {
            ok(r#"{"status":"wait","retry_after":0.1}"#)
        } else {
            ok(r#"{"status":"pass"}"#)
        }
    });
    let (proxy, _apps) = proxy(&format!(
        "switch.require = [\"healthy\", \"ci\"]\ngate.ci.webhook = \"http://{}/gate?token=secret\"\n",
        hook.address()
    ));
    let outcome = proxy.switch("green");
    assert_eq!(outcome.json["gates"][0]["verdict"], "pass", "{}", outcome.text);
    assert!(!outcome.text.contains("secret"), "a URL's query is not shown");
    assert!(calls.load(SeqCst) >= 3);
    let history = proxy.get("/v1/history").done().text;
    assert!(history.contains("gate ci (webhook): pass"), "{history}");
}

#[test]
fn a_webhook_that_talks_nonsense_fails() {
    let hook = Backend::says("<html>");
    let (proxy, _apps) = proxy(&format!(
        "switch.require = [\"ci\"]\ngate.ci.webhook = \"http://{}/\"\n",
        hook.address()
    ));
    refused(&proxy, "fail", "no verdict");
}

#[test]
fn an_operator_approves_or_denies() {
    let (proxy, _apps) =
        proxy("switch.require = [\"go\"]\ngate.go.approve = true\ngate.go.timeout = \"60s\"\n");
    assert_eq!(
        proxy.post("approve", json!({})).json["code"],
        "invalid",
        "nothing waits yet"
    );
    std::thread::scope(|scope| {
        let denied = scope.spawn(|| refused(&proxy, "fail", "denied by"));
        until("the gate waits", || {
            proxy
                .post("approve", json!({ "gate": "go", "deny": true }))
                .status
                == 200
        });
        denied.join().unwrap();
        let switched = scope.spawn(|| proxy.switch("green"));
        until("the gate waits again", || {
            proxy.post("approve", json!({})).status == 200
        });
        assert_eq!(switched.join().unwrap().json["gates"][0]["verdict"], "pass");
    });
    assert_eq!(proxy.says(), "green");
}

#[test]
fn a_rollback_is_not_kept_waiting_by_a_gate() {
    let (proxy, _apps) =
        proxy("guard.bake = \"0\"\ngate.go.approve = true\nswitch.require = [\"healthy\"]\n");
    proxy.switch("green");
    // The gate is for going back by `switch`; `rollback` asks nobody.
    proxy.post("rollback", json!({})).done();
    assert_eq!(proxy.says(), "blue");
}

#[test]
fn the_revision_must_answer() {
    let green = Backend::handler(|_| {
        b"HTTP/1.1 200 OK\r\nx-app-revision: v1\r\ncontent-length: 5\r\n\r\ngreen".to_vec()
    });
    let blue = Backend::blue();
    // The gate alone: probes would refuse another revision too.
    let lines = "switch.require = [\"healthy\", \"identity\"]\nrevision_header = \"x-app-revision\"\n\
        health.identity = false\n";
    let proxy = Setup::new().colors(&blue, &green, lines).start();
    let unknown = dry_run(&proxy);
    assert_eq!(unknown["gates"][0]["verdict"], "insufficient data", "{unknown}");
    proxy
        .put("/v1/apps/web/colors/green", json!({ "revision": "v2" }))
        .done();
    let answer = proxy.post("switch", json!({ "to": "green" }));
    assert_eq!(answer.json["code"], "gate_refused");
    assert!(answer.text.contains("v2 was announced"), "{}", answer.text);
    proxy
        .put("/v1/apps/web/colors/green", json!({ "revision": "v1" }))
        .done();
    proxy.switch("green");
}

#[test]
fn a_condition_on_windows_says_what_it_lacks() {
    let (proxy, _apps) = proxy(
        "switch.require = [\"calm\"]\ngate.calm.expr = \"app.error_rate < 0.01\"\ngate.calm.timeout = \"300ms\"\n",
    );
    let shown = dry_run(&proxy);
    assert_eq!(shown["gates"][0]["verdict"], "insufficient data", "{shown}");
    refused(&proxy, "insufficient data", "no answer within");
    for _ in 0..60 {
        proxy.fetch("/");
    }
    until("the window has them", || {
        proxy.post("switch", json!({ "to": "green" })).status == 200
    });
}

// --- rollouts ----------------------------------------------------------------------------------------------------

/// Steps without pauses, gates without a need for traffic.
const EASY: &str = "guard.bake = \"0\"\nrollout.gate = ['candidate.weight > 0']\nguard.every = \"100ms\"\n";

fn rollout(proxy: &Proxy) -> Value {
    proxy.get("/v1/apps/web/rollout").done().json["rollout"].clone()
}

#[track_caller]
fn start(proxy: &Proxy, steps: Value) -> Value {
    proxy.post("rollout", json!({ "steps": steps })).done().json
}

#[track_caller]
fn wait_for(proxy: &Proxy, phase: &str, step: Value) {
    until(&format!("{phase} {step}"), || {
        let rollout = rollout(proxy);
        rollout["phase"] == phase && rollout["step"] == step
    });
}

#[test]
fn a_rollout_goes_from_step_to_step_to_the_switch() {
    let (proxy, _apps) = proxy(EASY);
    start(
        &proxy,
        json!([{ "weight": 10 }, { "weight": 50, "pause": "100ms" }, { "weight": 100 }]),
    );
    wait_for(&proxy, "done", json!(2));
    assert_eq!(
        (proxy.app()["active"].clone(), proxy.says().as_str()),
        (json!("green"), "green")
    );
    let history = proxy.get("/v1/history").done().json;
    let verbs: Vec<_> = history["entries"]
        .as_array()
        .unwrap()
        .iter()
        .map(|e| e["verb"].as_str().unwrap().to_owned())
        .collect();
    assert!(
        verbs.ends_with(&["rollout start", "weight", "weight", "switch"].map(str::to_owned)),
        "{verbs:?}"
    );
    // Counted when it has proven itself, which is after it is in force.
    let labels = ["trigger=\"rollout\"", "result=\"done\""];
    until("the switch is counted", || {
        proxy.metric("cutover_switches_total", &labels) == 1.0
    });
}

#[test]
fn a_rollout_waits_for_an_approval_over_a_restart_and_is_promoted() {
    let (mut proxy, _apps) = proxy(EASY);
    start(
        &proxy,
        json!([{ "weight": 10 }, { "weight": 50, "pause": "approval" }, { "weight": 100 }]),
    );
    wait_for(&proxy, "shifting", json!(1));
    proxy.restart();
    let before = rollout(&proxy);
    assert_eq!(
        (
            &before["phase"],
            &before["desired"],
            &before["waits_for_approval"]
        ),
        (&json!("shifting"), &json!(50), &json!(true))
    );
    proxy.post("rollout/promote", json!({})).done();
    assert_eq!(
        (proxy.app()["active"].clone(), rollout(&proxy)["phase"].clone()),
        (json!("green"), json!("done"))
    );
}

#[test]
fn a_paused_rollout_does_not_count_time_and_an_abort_takes_the_share_away() {
    let (proxy, _apps) = proxy(EASY);
    start(
        &proxy,
        json!([{ "weight": 20, "pause": "10m" }, { "weight": 100 }]),
    );
    wait_for(&proxy, "shifting", json!(0));
    until("time is counted", || {
        rollout(&proxy)["waited_seconds"].as_f64().unwrap() > 0.0
    });
    proxy.post("rollout/pause", json!({})).done();
    let waited = rollout(&proxy)["waited_seconds"].clone();
    std::thread::sleep(std::time::Duration::from_millis(700));
    assert_eq!(
        (&rollout(&proxy)["waited_seconds"], &rollout(&proxy)["desired"]),
        (&waited, &json!(20))
    );
    proxy.post("rollout/resume", json!({})).done();
    let second = proxy.post("rollout", json!({ "steps": [{ "weight": 100 }] }));
    assert_eq!(
        (second.status, &second.json["code"]),
        (409, &json!("busy")),
        "one that shifts is not superseded"
    );
    proxy
        .post("rollout/abort", json!({ "reason": "not today" }))
        .done();
    let app = proxy.app();
    assert_eq!(
        (&app["weight"], &app["active"], &app["rollout"]["phase"]),
        (&json!(0), &json!("blue"), &json!("aborted"))
    );
    assert_eq!(proxy.post("rollout/abort", json!({})).json["code"], "invalid");
}

#[test]
fn a_rollout_that_still_gates_gives_way_to_a_newer_one() {
    let lines =
        format!("{EASY}switch.require = [\"go\"]\ngate.go.approve = true\ngate.go.timeout = \"10m\"\n");
    let (proxy, _apps) = proxy(&lines);
    let first = start(
        &proxy,
        json!([{ "weight": 10, "pause": "10m" }, { "weight": 100 }]),
    );
    wait_for(&proxy, "gating", Value::Null);
    let second = start(&proxy, json!([{ "weight": 30, "pause": "approval" }]));
    assert!(second["generation"].as_u64() > first["generation"].as_u64());
    until("its gate waits", || {
        let _ = proxy.post("approve", json!({ "gate": "go" }));
        rollout(&proxy)["step"] == json!(0)
    });
    assert_eq!(
        (&rollout(&proxy)["of"], &rollout(&proxy)["desired"]),
        (&second["generation"], &json!(30))
    );
}

#[test]
fn a_step_that_fails_its_gate_is_taken_back() {
    let (proxy, _apps) =
        proxy("guard.bake = \"0\"\nguard.every = \"100ms\"\nrollout.gate = ['candidate.weight > 50']\n");
    start(&proxy, json!([{ "weight": 10 }, { "weight": 100 }]));
    wait_for(&proxy, "rolled_back", json!(0));
    let app = proxy.app();
    assert_eq!((&app["active"], &app["weight"]), (&json!("blue"), &json!(0)));
    assert!(
        app["rollout"]["note"]
            .as_str()
            .unwrap()
            .contains("`candidate.weight > 50`: fail"),
        "{app}"
    );
}

#[test]
fn a_step_without_traffic_stays_and_says_what_it_lacks() {
    let (proxy, _apps) = proxy("guard.bake = \"0\"\nguard.every = \"100ms\"\n");
    start(&proxy, json!([{ "weight": 10 }, { "weight": 100 }]));
    until("it says so", || {
        rollout(&proxy)["note"]
            .as_str()
            .unwrap_or_default()
            .contains("0 of 50 requests")
    });
    assert_eq!(
        (&rollout(&proxy)["phase"], &rollout(&proxy)["desired"]),
        (&json!("shifting"), &json!(10))
    );
    // An operator's switch is not slowed by it.
    proxy.switch("green");
    assert_eq!(
        (rollout(&proxy)["phase"].clone(), proxy.says().as_str()),
        (json!("aborted"), "green")
    );
}

#[test]
fn steps_that_make_no_sense_are_refused() {
    let (proxy, _apps) = proxy(EASY);
    for steps in [
        json!([]),
        json!([{ "weight": 0 }]),
        json!([{ "weight": 50 }, { "weight": 10 }]),
        json!([{ "weight": 10, "pause": "soon" }]),
    ] {
        assert_eq!(
            proxy.post("rollout", json!({ "steps": steps })).json["code"],
            "invalid",
            "{steps}"
        );
    }
    assert_eq!(
        proxy.post("rollout", json!({ "to": "blue" })).json["code"],
        "invalid"
    );
    assert_eq!(proxy.generation(), 1);
}

#[test]
fn whoever_wants_to_know_is_told() {
    let hook = Backend::says("");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("told");
    let lines = format!(
        "guard.bake = \"0\"\n[[notify]]\nwebhook = \"http://{}/told\"\non = [\"rollback\"]\n\
         [[notify]]\nrun = \"cat >> {}\"\non = [\"switch\"]\n\
         [[notify]]\nwebhook = \"http://127.0.0.1:1/nobody\"\ntimeout = \"100ms\"\n",
        hook.address(),
        file.display()
    );
    let (proxy, _apps) = proxy(&lines);
    proxy.switch("green");
    proxy.post("rollback", json!({ "reason": "told you" })).done();
    until("the webhook is told", || !hook.requests().is_empty());
    let told: Value = serde_json::from_slice(&hook.request().body).unwrap();
    assert_eq!(
        (&told["on"], &told["to"], &told["reason"]),
        (&json!("rollback"), &json!("blue"), &json!("told you"))
    );
    until("the command is told", || {
        std::fs::read_to_string(&file).is_ok_and(|text| text.ends_with('}'))
    });
    let told: Value = serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
    assert_eq!(
        (&told["verb"], &told["generation"]),
        (&json!("switch"), &json!(2))
    );
}
