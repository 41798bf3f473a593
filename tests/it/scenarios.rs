//! One candidate after another that is bad in its own way: what the guard says of it, how long it took, how many
//! requests were harmed, how the operator's command ended, and what stands in the history.

use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::harness::backend::Backend;
use super::harness::desk::{Desk, Ended};
use super::harness::misbehave::{Load, Manners};
use super::harness::proxy::{Proxy, Setup};
use super::harness::wire::Wire;
use super::harness::{say, until};

/// Quick to judge, so that a test is quick, and only errors count: a machine with a load of its own is slow too.
const QUICK: &str = "guard = { bake = \"60s\", every = \"100ms\", min_requests = 20, grace = \"0s\", \
    rollback_when = ['candidate.error_rate > 0.05 && candidate.error_rate > 2.0 * baseline.error_rate'] }\n";

/// Blue, green that can be told how to behave, and an operator.
struct Scene {
    name: &'static str,
    blue: Manners,
    green: Manners,
    proxy: Proxy,
    desk: Desk,
    apps: [Backend; 2],
}

fn scene(name: &'static str, lines: &str) -> Scene {
    let (blue, green) = <(Manners, Manners)>::default();
    let apps = [blue.backend("blue"), green.backend("green")];
    let proxy = Setup::new().colors(&apps[0], &apps[1], lines).start();
    let desk = Desk::at(&proxy, &apps[0], &apps[1], "");
    Scene {
        name,
        blue,
        green,
        proxy,
        desk,
        apps,
    }
}

impl Scene {
    fn entries(&self) -> Vec<Value> {
        let history = self.proxy.get("/v1/history").done().json;
        history["entries"].as_array().unwrap().clone()
    }

    #[track_caller]
    fn entry(&self, verb: &str) -> Value {
        let entries = self.entries();
        let found = entries.iter().rfind(|entry| entry["verb"] == verb);
        found
            .unwrap_or_else(|| panic!("no {verb} in {entries:?}"))
            .clone()
    }

    /// Lines of the journal with these words.
    fn journal(&self, words: &[&str]) -> Vec<String> {
        let journal = std::fs::read_to_string(self.proxy.folder().join("state/journal")).unwrap();
        let fits = |line: &&str| words.iter().all(|word| line.contains(word));
        journal.lines().filter(fits).map(str::to_owned).collect()
    }

    /// `cutover switch green --wait`, while `meanwhile` is done after the guard has found nothing so often.
    fn switch(&self, after: usize, meanwhile: impl FnOnce()) -> Ended {
        let command = self.desk.begin(&["switch", "green", "--wait", "100s"]);
        until("the guard watches", || {
            self.proxy.app()["bake"]["phase"] == "watching" && self.journal(&["\"judged\""]).len() >= after
        });
        meanwhile();
        command.end()
    }

    /// It was taken back for this cause: exit code, status, history and metrics agree; the figures are said.
    #[track_caller]
    fn taken_back(&self, ended: Ended, load: Option<&Load>, bad_since: Timestamp, cause: &str) -> Duration {
        ended.expect(9).says(&["took green back to blue", cause]);
        let (app, entry) = (self.proxy.app(), self.entry("rollback"));
        assert_eq!(
            (&app["active"], &app["bake"]["phase"]),
            (&json!("blue"), &json!("rolled_back"))
        );
        assert_eq!(
            (&entry["trigger"], &entry["from"], &entry["to"]),
            (&json!("guard"), &json!("green"), &json!("blue"))
        );
        assert!(entry["reason"].as_str().unwrap().contains(cause), "{entry}");
        assert_eq!(
            self.proxy
                .metric("cutover_guard_rollbacks_total", &["app=\"web\""]),
            1.0
        );
        let took = since(&entry, bad_since);
        self.figure("rolled_back", Some(took), load, 9, &entry);
        took
    }

    /// Traffic stays on green; the bake ends in this phase.
    #[track_caller]
    fn stays(&self, ended: Ended, load: Option<&Load>, phase: &str, verb: &str) -> Value {
        ended.expect(0);
        let app = self.proxy.app();
        assert_eq!(
            (&app["active"], &app["bake"]["phase"]),
            (&json!("green"), &json!(phase)),
            "{app}"
        );
        let entry = self.entry(verb);
        self.figure(phase, None, load, 0, &entry);
        app["bake"].clone()
    }

    fn figure(&self, verdict: &str, took: Option<Duration>, load: Option<&Load>, exit: i32, entry: &Value) {
        let took = took.map_or_else(|| "-".to_owned(), |took| format!("{:.3} s", took.as_secs_f64()));
        let (harmed, asked) = load.map_or((0, 0), |load| (load.harmed(), load.asked()));
        say(&format!(
            "guard, {}: {verdict}, back after {took}, {harmed} of {asked} requests harmed, exit {exit}, history: {} ({})",
            self.name, entry["verb"], entry["reason"]
        ));
    }
}

/// From then to this entry of the history.
fn since(entry: &Value, then: Timestamp) -> Duration {
    let at: Timestamp = entry["at"].as_str().unwrap().parse().unwrap();
    Duration::try_from(at.duration_since(then)).unwrap_or_default()
}

#[test]
fn errors_from_the_first_request_on() {
    let scene = scene("30 % errors at once", QUICK);
    let load = Load::on(&scene.proxy);
    load.more(100);
    scene.green.errors.store(3, SeqCst);
    let begun = Timestamp::now();
    let ended = scene.switch(0, || {});
    scene.taken_back(ended, Some(&load), begun, "candidate.error_rate > 0.05");
    // With the third evaluation that failed, not with a fourth.
    assert_eq!(scene.journal(&["\"judged\"", "fail 1 of 3"]).len(), 1);
    assert_eq!(scene.journal(&["\"judged\"", "fail 2 of 3"]).len(), 1);
    assert_eq!(
        scene.journal(&["\"judged\"", "fail 3 of 3"]).len(),
        0,
        "that one went back"
    );
}

#[test]
fn bad_only_later_in_the_bake() {
    let scene = scene("30 % errors later", QUICK);
    let load = Load::on(&scene.proxy);
    load.more(100);
    let mut bad = Timestamp::now();
    let ended = scene.switch(1, || {
        let well = "baseline.error_rate`: pass: ";
        until("it was well", || scene.journal(&["\"judged\"", well]).len() > 3);
        assert_eq!(load.harmed(), 0);
        scene.green.errors.store(3, SeqCst);
        bad = Timestamp::now();
    });
    scene.taken_back(ended, Some(&load), bad, "candidate.error_rate > 0.05");
}

/// Two services, `api` beside `pages`.
fn two_services(name: &'static str) -> Scene {
    let (blue, green) = <(Manners, Manners)>::default();
    let apps = [blue.backend("blue"), green.backend("green")];
    let [b, g] = [apps[0].address(), apps[1].address()];
    let tables = format!(
        "[app.web]\ninitial = \"blue\"\nhealth = {{ path = \"/healthz\", interval = \"50ms\", timeout = \"5s\" }}\n{QUICK}\
             [app.web.service.pages]\npath_prefix = \"/\"\nblue = [\"{b}\"]\ngreen = [\"{g}\"]\n\
             [app.web.service.api]\npath_prefix = \"/api\"\nblue = [\"{b}\"]\ngreen = [\"{g}\"]\n"
    );
    let proxy = Setup::new().toml(&tables).start();
    let desk = Desk::at(&proxy, &apps[0], &apps[1], "");
    Scene {
        name,
        blue,
        green,
        proxy,
        desk,
        apps,
    }
}

#[test]
fn only_one_service_fails() {
    let scene = two_services("one service fails");
    let load = Load::mixed(&scene.proxy);
    load.more(100);
    scene.green.fail(|request| request.target().starts_with("/api"));
    let begun = Timestamp::now();
    let ended = scene.switch(0, || {});
    scene.taken_back(ended, Some(&load), begun, "candidate.error_rate > 0.05");
}

/// One request in 25: 4 % of all, below the 5 % that the condition asks for.
#[test]
fn only_a_service_fails_that_few_ask_for() {
    let scene = two_services("a service of few requests fails");
    let load = Load::of(&scene.proxy, |number| match number % 25 {
        0 => ("GET", "/api/1"),
        _ => ("GET", "/"),
    });
    load.more(200);
    scene.green.fail(|request| request.target().starts_with("/api"));
    let begun = Timestamp::now();
    let ended = scene.switch(0, || {});
    scene.taken_back(
        ended,
        Some(&load),
        begun,
        "service api: `candidate.error_rate > 0.05",
    );
}

#[test]
fn only_posts_fail() {
    let scene = scene("only POST fails", QUICK);
    let load = Load::mixed(&scene.proxy);
    load.more(100);
    scene.green.fail(|request| request.method() == "POST");
    let begun = Timestamp::now();
    let ended = scene.switch(0, || {});
    scene.taken_back(ended, Some(&load), begun, "candidate.error_rate > 0.05");
}

#[test]
fn only_the_slowest_of_a_hundred_are_worse() {
    let condition = "candidate.p99 > 2.0 * baseline.p99 && candidate.p99 > 0.5";
    let lines = format!(
        "guard = {{ bake = \"60s\", every = \"100ms\", min_requests = 50, grace = \"0s\", rollback_when = ['{condition}'] }}"
    );
    let scene = scene("only p99 is worse", &lines);
    let load = Load::on(&scene.proxy);
    load.more(200);
    scene.green.tail.store(1_500, SeqCst);
    let begun = Timestamp::now();
    let ended = scene.switch(0, || {});
    scene.taken_back(ended, Some(&load), begun, condition);
    assert_eq!(load.harmed(), 0, "slow is not failed");
}

#[test]
fn a_candidate_that_takes_connections_and_says_nothing() {
    // Probes would find it too: here they believe nothing.
    let lines = format!("{QUICK}timeouts.first_byte = \"200ms\"\nretry.attempts = 1\nhealth.fall = 1000\n");
    let scene = scene("silent death, found by requests", &lines);
    let load = Load::on(&scene.proxy);
    load.more(100);
    let mut bad = Timestamp::now();
    let ended = scene.switch(2, || {
        scene.green.silent.store(true, SeqCst);
        bad = Timestamp::now();
    });
    scene.taken_back(ended, Some(&load), bad, "candidate.error_rate > 0.05");
    scene.green.silent.store(false, SeqCst);
}

#[test]
fn a_candidate_that_dies_silently_without_traffic() {
    let scene = scene(
        "silent death, found by probes",
        // One probe of 5 s is enough here.
        &format!("{QUICK}health.fall = 1\n"),
    );
    let mut bad = Timestamp::now();
    let ended = scene.switch(1, || {
        scene.green.silent.store(true, SeqCst);
        bad = Timestamp::now();
    });
    scene.taken_back(ended, None, bad, "lost its health");
    scene.green.silent.store(false, SeqCst);
}

#[test]
fn connections_that_are_refused() {
    // Probes are far apart here: what trips is the workers' own failed connects.
    let scene = scene(
        "connects refused",
        &format!("{QUICK}health.fall = 1000\nretry.attempts = 1\n"),
    );
    let load = Load::on(&scene.proxy);
    load.more(100);
    let ended = scene.switch(1, || scene.apps[1].stop_and_wait());
    let first = load
        .first_harm()
        .expect("somebody was harmed before the guard knew");
    let took = scene.taken_back(
        ended,
        Some(&load),
        first,
        "failed in a row (connect_failures = 5)",
    );
    // Below one second from the first failure on: five failed connects at 200 requests a second, and one commit.
    assert!(took < Duration::from_secs(20), "{took:?}");
    let harmed = load.harmed();
    load.more(50);
    assert_eq!(load.harmed(), harmed, "blue fails nothing");
}

#[test]
fn health_that_flaps_for_less_than_it_takes_is_no_verdict() {
    let lines = QUICK.replace("bake = \"60s\"", "bake = \"2s\"") + "health.fall = 3\nhealth.rise = 1\n";
    let scene = scene("health flaps, fall not reached", &lines);
    let load = Load::on(&scene.proxy);
    load.more(50);
    let ended = scene.switch(1, || scene.green.flaps.store(2, SeqCst));
    scene.stays(ended, Some(&load), "passed", "bake passed");
    assert_eq!(load.harmed(), 0);
}

#[test]
fn health_that_flaps_goes_back_once_and_stays_there() {
    let lines = format!("{QUICK}health.fall = 2\nhealth.rise = 1\n");
    let scene = scene("health flaps", &lines);
    let load = Load::on(&scene.proxy);
    load.more(50);
    let mut bad = Timestamp::now();
    let ended = scene.switch(1, || {
        scene.green.flaps.store(4, SeqCst);
        bad = Timestamp::now();
    });
    scene.taken_back(ended, Some(&load), bad, "lost its health");
    // Healthy again, ill again: nobody moves for that.
    let generation = scene.proxy.generation();
    for healthy in [true, false, true, false] {
        until("green flaps", || {
            scene.proxy.app()["colors"]["green"]["healthy"] == healthy
        });
    }
    assert_eq!(scene.proxy.generation(), generation);
    let moves = scene
        .entries()
        .into_iter()
        .filter(|entry| !entry["from"].is_null() && entry["from"] != entry["to"]);
    assert_eq!(moves.count(), 2, "there and back");
}

#[test]
fn both_colors_fail_alike() {
    let scene = scene(
        "both colors fail",
        &QUICK.replace("bake = \"60s\"", "bake = \"2s\""),
    );
    let load = Load::on(&scene.proxy);
    for color in [&scene.blue, &scene.green] {
        color.errors.store(4, SeqCst);
    }
    load.more(200);
    let ended = scene.switch(0, || {});
    let bake = scene.stays(ended, Some(&load), "passed", "bake passed");
    assert!(
        bake["note"].as_str().unwrap().contains("baseline.error_rate 0."),
        "no worse than what was left: {bake}"
    );
}

#[test]
fn all_clients_give_up() {
    // The proof is requests too.
    let lines = QUICK.replace("bake = \"60s\"", "bake = \"2s\"")
        + "switch.verify = 0
";
    let scene = scene("all clients give up", &lines);
    let asked = || {
        let mut wire = Wire::tcp(scene.proxy.address());
        wire.send("GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n");
        wire
    };
    let ended = scene.switch(0, || {
        scene.green.slow.store(300, SeqCst);
        for _ in 0..60 {
            let wire = asked();
            std::thread::sleep(Duration::from_millis(5));
            wire.reset();
        }
    });
    let bake = scene.stays(ended, None, "insufficient_data", "bake insufficient data");
    assert!(
        bake["note"].as_str().unwrap().contains("0 of 20 requests"),
        "{bake}"
    );
}

#[test]
fn another_revision_answers() {
    let lines = format!(
        "{QUICK}revision_header = \"x-app-revision\"\nhealth.identity = false\nswitch.require = [\"healthy\", \"identity\"]\n"
    );
    let scene = scene("wrong revision", &lines);
    "r41".clone_into(&mut scene.green.revision.lock().unwrap());
    let load = Load::on(&scene.proxy);
    scene
        .desk
        .cutover(&["endpoints", "set", "green", "--revision", "r42"])
        .expect(0);
    let refused = scene.desk.cutover(&["switch", "green"]);
    refused.expect(4).says(&["identity", "r41", "r42"]);
    let entry = scene.entry("gate");
    assert!(
        entry["reason"].as_str().unwrap().contains("r42 was announced"),
        "{entry}"
    );
    assert_eq!((scene.proxy.says().as_str(), load.harmed()), ("blue", 0));
    scene.figure("refused before anything moved", None, Some(&load), 4, &entry);
    "r42".clone_into(&mut scene.green.revision.lock().unwrap());
    scene.desk.cutover(&["switch", "green"]).expect(0);
}

#[test]
fn a_rollout_ends_at_once_when_its_candidate_dies() {
    for (name, failures, lines, cause) in [
        (
            "a rollout's candidate dies, found by requests",
            5,
            "health.fall = 1000\nretry.attempts = 1\n",
            "failed in a row",
        ),
        (
            "a rollout's candidate dies, found by probes",
            0,
            "health.fall = 1\n",
            "lost its health",
        ),
    ] {
        let guard = QUICK.replace("guard = {", &format!("guard = {{ connect_failures = {failures},"));
        let lines = guard + lines;
        let scene = scene(name, &lines);
        let load = Load::on(&scene.proxy);
        load.more(50);
        scene
            .desk
            .cutover(&["rollout", "start", "--steps", "50:approval,100"])
            .expect(0);
        until("its first step", || scene.proxy.app()["rollout"]["desired"] == 50);
        let shown = || scene.proxy.app()["rollout"].clone();
        until("it was seen healthy", || {
            shown()["waited_seconds"].as_f64().unwrap_or_default() > 0.2
        });
        let died = Timestamp::now();
        scene.apps[1].stop_and_wait();
        until("the rollout is over", || shown()["phase"] == "rolled_back");
        assert!(shown()["note"].as_str().unwrap().contains(cause), "{}", shown());
        let app = scene.proxy.app();
        assert_eq!((&app["active"], &app["weight"]), (&json!("blue"), &json!(0)));
        scene.desk.cutover(&["wait", "--timeout", "20s"]).expect(9);
        let entry = scene.entry("rollout abort");
        scene.figure("rolled_back", Some(since(&entry, died)), Some(&load), 9, &entry);
        let harmed = load.harmed();
        load.more(50);
        assert_eq!(load.harmed(), harmed, "blue fails nothing");
    }
}

/// Two operators, a rollout and the guard, all at the moment in which the guard has enough.
#[test]
fn operators_guard_and_rollout_in_the_same_instant() {
    let scene = scene("four at once", &format!("{QUICK}switch.verify = 0\n"));
    let (proxy, load) = (&scene.proxy, Load::on(&scene.proxy));
    load.more(60);
    let mut by_guard = 0;
    for round in 0..8 {
        scene.green.errors.store(5, SeqCst);
        proxy.switch("green");
        let seen = scene.journal(&["\"judged\"", "fail 2 of 3"]).len();
        // In half of the rounds shortly before the guard trips, in the others at once.
        if round % 2 == 0 {
            until("two evaluations have failed, or it went back", || {
                scene.journal(&["\"judged\"", "fail 2 of 3"]).len() > seen || proxy.app()["active"] == "blue"
            });
        }
        // About when the third evaluation is due; who is first differs from round to round, and must not matter.
        std::thread::sleep(Duration::from_millis(if round % 2 == 0 {
            70 + 10 * round
        } else {
            0
        }));
        let asks = [
            ("rollback", json!({})),
            ("switch", json!({ "to": "blue" })),
            ("weight", json!({ "green": 10 })),
            (
                "rollout",
                json!({ "steps": [{ "weight": 20, "pause": "approval" }, { "weight": 100 }] }),
            ),
            ("switch", json!({ "to": "green" })),
        ];
        let answers: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = asks
                .iter()
                .map(|(verb, body)| scope.spawn(|| proxy.post(verb, body.clone())))
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        for (answer, (verb, _)) in answers.iter().zip(&asks) {
            // 400: a rollout to the color that has become active meanwhile.
            let known = [200, 202, 400, 409, 412, 422].contains(&answer.status);
            assert!(known, "{verb}: {} {}", answer.status, answer.text);
        }
        scene.green.errors.store(0, SeqCst);
        let entries = scene.entries();
        by_guard = entries
            .iter()
            .filter(|entry| entry["verb"] == "rollback" && entry["trigger"] == "guard")
            .count();
        proxy.post("rollout/abort", json!({}));
        until("blue has all of it", || {
            proxy.post(
                "switch",
                json!({ "to": "blue", "force": true, "reason": "next round" }),
            );
            let app = proxy.app();
            app["active"] == "blue" && app["weight"] == 0
        });
        assert_eq!(proxy.says(), "blue");
    }
    // Each change is one generation, in the order of the journal, from where the last one left off.
    let (mut generation, mut active) = (1, json!("blue"));
    for entry in scene.entries() {
        let is = entry["generation"].as_u64().unwrap();
        assert!(
            is == generation || is == generation + 1,
            "{entry} after generation {generation}"
        );
        if is > generation {
            assert!(
                entry["from"].is_null() || entry["from"] == active,
                "{entry} while {active} was active"
            );
            (generation, active) = (is, entry["to"].clone());
        }
    }
    assert_eq!(
        (proxy.generation(), &proxy.app()["active"]),
        (generation, &active)
    );
    assert_eq!(
        proxy.metric("cutover_guard_rollbacks_total", &["app=\"web\""]),
        by_guard as f64,
        "what the guard did and what the history says it did"
    );
    say(&format!(
        "guard, two operators, rollout and guard at once, 8 rounds: generation {generation}, {by_guard} rollbacks by the guard, \
         {} of {} requests harmed, history in order",
        load.harmed(),
        load.asked()
    ));
}
