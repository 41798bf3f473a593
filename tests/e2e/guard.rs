//! The guard as it is by default, in the real process: how long a bad switch lasts, how the operator's commands end,
//! and that a clock which jumps moves nothing.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde_json::Value;

use crate::backend::Backend;
use crate::figures::{alone, full, say};
use crate::server::{Cli, Site, eventually, simple};
use crate::wire::Client;

const HEALTH: &str = "[app.web.health]\npath = \"/healthz\"\ninterval = \"200ms\"\n";

/// A green that answers three of ten with 500, once it is told to.
fn moody() -> (Backend, Arc<AtomicBool>) {
    let bad = Arc::<AtomicBool>::default();
    let (told, count) = (Arc::clone(&bad), AtomicU64::new(0));
    let green = Backend::says_unless("green", move |seen| {
        let is_bad = told.load(SeqCst) && seen.path() != "/healthz" && count.fetch_add(1, SeqCst) % 10 < 3;
        is_bad.then(|| b"HTTP/1.1 500 Oops\r\nconnection: close\r\ncontent-length: 0\r\n\r\n".to_vec())
    });
    (green, bad)
}

fn site(blue: &Backend, green: &Backend, more: &str) -> Site {
    let (blue, green) = (blue.address.to_string(), green.address.to_string());
    Site::new(&simple(&blue, &green, &format!("{HEALTH}{more}")))
}

/// 200 requests a second until it is told to stop: how many there were, and how many failed.
fn traffic(address: SocketAddr, stop: &AtomicBool, harmed: &AtomicU64) -> u64 {
    let client = |_| {
        let (mut asked, mut next) = (0, Instant::now());
        let mut client = None;
        while !stop.load(SeqCst) {
            let kept = client.take().or_else(|| Client::connect(address).ok());
            if let Some(mut kept) = kept {
                match kept.get("/") {
                    Ok(answer) => {
                        harmed.fetch_add(u64::from(answer.status >= 500), SeqCst);
                        client = (!answer.close).then_some(kept);
                    }
                    Err(_) => drop(harmed.fetch_add(1, SeqCst)),
                }
                asked += 1;
            }
            next = (next + Duration::from_millis(20)).max(Instant::now());
            std::thread::sleep(next - Instant::now());
        }
        asked
    };
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..4).map(|at| scope.spawn(move || client(at))).collect();
        clients.into_iter().map(|one| one.join().unwrap()).sum()
    })
}

/// Stops the traffic when it goes, also when a test fails: nobody would end otherwise.
struct Stops<'a>(&'a AtomicBool);

impl Drop for Stops<'_> {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}

fn history(site: &Site) -> Vec<Value> {
    let (_, document) = site.admin().get("/v1/history").expect("the history");
    document["entries"].as_array().expect("entries").clone()
}

#[track_caller]
fn newest(site: &Site, verb: &str) -> Value {
    let entries = history(site);
    let found = entries.iter().rfind(|entry| entry["verb"] == verb);
    found
        .unwrap_or_else(|| panic!("no {verb} in {entries:?}"))
        .clone()
}

fn at(entry: &Value) -> Timestamp {
    entry["at"].as_str().unwrap().parse().unwrap()
}

fn app(site: &Site) -> Value {
    site.admin().get("/v1/apps/web").expect("the app").1
}

fn judged(site: &Site, words: &str) -> usize {
    let journal = std::fs::read_to_string(site.state().join("journal")).unwrap_or_default();
    let lines = journal.lines();
    lines
        .filter(|line| line.contains("\"judged\"") && line.contains(words))
        .count()
}

/// 30 % errors at 200 requests a second: the default guard goes back with its third evaluation, 15 s after the switch.
#[test]
fn the_default_guard_takes_errors_back_with_its_third_evaluation() {
    let _machine = alone();
    let (blue, (green, bad)) = (Backend::says("blue"), moody());
    let site = site(&blue, &green, "");
    let server = site.run();
    let (stop, harmed) = (AtomicBool::new(false), AtomicU64::new(0));
    let (asked, ended): (u64, Cli) = std::thread::scope(|scope| {
        let stops = Stops(&stop);
        let load = scope.spawn(|| traffic(site.address(), &stop, &harmed));
        std::thread::sleep(Duration::from_secs(2));
        bad.store(true, SeqCst);
        let ended = site.cli(&["switch", "green", "--wait", "50s"]);
        drop(stops);
        (load.join().unwrap(), ended)
    });
    ended.expect(9).says(&["took green back to blue", "fail 3 of 3"]);
    let (switched, back) = (newest(&site, "switch"), newest(&site, "rollback"));
    assert_eq!(
        (&back["trigger"], &back["to"]),
        (&"guard".into(), &"blue".into()),
        "{back}"
    );
    let took = Duration::try_from(at(&back).duration_since(at(&switched))).unwrap();
    say(&format!(
        "guard by default, 30 % errors at 200/s: back after {:.2} s (bound 16 s), {} of {asked} requests harmed, exit 9, {}",
        took.as_secs_f64(),
        harmed.load(SeqCst),
        back["reason"]
    ));
    // Not one evaluation was passed over, however busy this machine is; the time in seconds is a release's to judge.
    assert_eq!(
        (judged(&site, "fail 1 of 3"), judged(&site, "fail 2 of 3")),
        (1, 1)
    );
    assert_eq!(judged(&site, "pass"), 0, "the first evaluation saw it already");
    assert!(
        took < Duration::from_secs(if full() { 16 } else { 40 }),
        "{took:?}"
    );
    server.stop();
}

/// A green that dies: from its first refused connection on it takes less than a second.
#[test]
fn refused_connects_are_taken_back_within_a_second() {
    let _machine = alone();
    let dead = Arc::<AtomicBool>::default();
    let told = Arc::clone(&dead);
    // Dead, it ends the connections that it has; new ones are refused.
    let green = Backend::says_unless("green", move |_| told.load(SeqCst).then(Vec::new));
    let blue = Backend::says("blue");
    // Probes are far apart: the workers' own failed connects must do.
    let site = site(&blue, &green, "fall = 1000\n");
    let server = site.run();
    site.cli(&["switch", "green"]).expect(0).says(&["cutover wait"]);
    let (stop, harmed) = (AtomicBool::new(false), AtomicU64::new(0));
    let (asked, died, ended) = std::thread::scope(|scope| {
        let stops = Stops(&stop);
        let load = scope.spawn(|| traffic(site.address(), &stop, &harmed));
        std::thread::sleep(Duration::from_millis(500));
        let died = Timestamp::now();
        dead.store(true, SeqCst);
        drop(green);
        let ended = site.cli(&["wait", "--timeout", "40s"]);
        drop(stops);
        (load.join().unwrap(), died, ended)
    });
    ended.expect(9).says(&["took green back to blue"]);
    let back = newest(&site, "rollback");
    let took = Duration::try_from(at(&back).duration_since(died)).unwrap();
    say(&format!(
        "guard by default, connects refused at 200/s: back {:.3} s after the app's death (bound 1 s from the first failure), \
         {} of {asked} requests harmed, exit 9, {}",
        took.as_secs_f64(),
        harmed.load(SeqCst),
        back["reason"]
    ));
    assert!(
        back["reason"].as_str().unwrap().contains("connect_failures = 5"),
        "{back}"
    );
    assert!(
        took < Duration::from_secs(if full() { 1 } else { 20 }),
        "{took:?}"
    );
    server.stop();
}

/// `wait` and `switch --wait`: 5 while the guard watches, 0 when it has found nothing, 9 when it went back.
#[test]
fn what_wait_says_and_how_it_ends() {
    let _machine = alone();
    let (blue, (green, bad)) = (Backend::says("blue"), moody());
    let guard = "[app.web.guard]\nbake = \"3s\"\nevery = \"200ms\"\nmin_requests = 20\ngrace = \"0s\"\n\
        rollback_when = ['candidate.error_rate > 0.05']\n";
    let site = site(&blue, &green, guard);
    let server = site.run();
    // Nothing was ever switched: nothing is waited for.
    site.cli(&["wait", "--timeout", "5s"]).expect(0);
    let begun = Instant::now();
    site.cli(&["switch", "green", "--wait", "300ms"])
        .expect(5)
        .says(&["guard watches green"]);
    site.cli(&["wait", "--timeout", "100ms"]).expect(5);
    let said = site.cli(&["wait", "--timeout", "0s", "--json"]).expect(5);
    let said: Value = serde_json::from_str(&said.stdout).expect("JSON, also while it runs");
    assert_eq!(
        (&said["settled"], &said["bake"]["phase"]),
        (&false.into(), &"watching".into())
    );
    // No traffic, so nobody knows; traffic stays, and it says so.
    site.cli(&["wait", "--timeout", "40s"])
        .expect(0)
        .says(&["nobody can say"]);
    assert!(begun.elapsed() >= Duration::from_secs(3), "it did wait");
    site.cli(&["wait-drained", "blue", "--timeout", "20s"]).expect(0);
    site.cli(&["switch", "blue"]).expect(0);
    let (stop, harmed) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let _stops = Stops(&stop);
        let _load = scope.spawn(|| traffic(site.address(), &stop, &harmed));
        bad.store(true, SeqCst);
        let ended = site.cli(&["switch", "green", "--wait", "50s", "--json"]);
        // stdout is one JSON document: the switch. How it ended is told on stderr, and by the exit code.
        let ended = ended.expect(9);
        let said: Value = serde_json::from_str(&ended.stdout).expect("one document");
        assert_eq!(said["changed"], true, "{said}");
    });
    site.cli(&["wait"]).expect(9).says(&["took green back to blue"]);
    // An operator who moves on has nothing to wait for any more.
    bad.store(false, SeqCst);
    site.cli(&["switch", "green"]).expect(0);
    site.cli(&["rollback"]).expect(0);
    site.cli(&["wait", "--timeout", "5s"])
        .expect(0)
        .says(&["blue is active"]);
    server.stop();
}

/// The wall clock of the process goes 400 days ahead, then 800 back, while the guard watches and while a rollout pauses.
#[test]
fn a_clock_that_jumps_moves_nothing() {
    let _machine = alone();
    let (blue, (green, bad)) = (Backend::says("blue"), moody());
    let guard = "[app.web.guard]\nbake = \"10m\"\nevery = \"200ms\"\nmin_requests = 20\ngrace = \"0s\"\n\
        rollback_when = ['candidate.error_rate > 0.05']\n";
    let site = site(&blue, &green, guard);
    let clock = site.path().join("clock");
    let set = |offset: &str| {
        let next = site.path().join(".clock");
        std::fs::write(&next, offset).unwrap();
        std::fs::rename(&next, &clock).unwrap();
    };
    set("+0");
    let server = site.run_with(&[
        ("LD_PRELOAD", faketime().to_str().unwrap()),
        ("FAKETIME_TIMESTAMP_FILE", clock.to_str().unwrap()),
        ("FAKETIME_NO_CACHE", "1"),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
    ]);
    site.cli(&["switch", "green"]).expect(0);
    let before = at(&newest(&site, "switch"));
    let mut jumped = Vec::new();
    for offset in ["+400d", "-400d", "+0"] {
        set(offset);
        let seen = judged(&site, "");
        eventually("it goes on evaluating", Duration::from_secs(20), || {
            (judged(&site, "") > seen + 2).then_some(())
        });
        let bake = app(&site)["bake"].clone();
        assert_eq!(bake["phase"], "watching", "after {offset}: {bake}");
        let watched = bake["watched_seconds"].as_f64().unwrap();
        assert!(watched < 300.0, "{offset}: {watched} s");
        // The clock did jump: what is written down meanwhile bears its time.
        site.cli(&["endpoints", "set", "green", "--revision", &format!("r{offset}")])
            .expect(0);
        jumped.push(at(&newest(&site, "endpoints")));
    }
    let days = |to: Timestamp| to.duration_since(before).as_secs() / 86_400;
    assert_eq!(
        (days(jumped[0]), days(jumped[1]), days(jumped[2])),
        (400, -399, 0)
    );
    // And it still guards, also across a jump.
    let (stop, harmed) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let _stops = Stops(&stop);
        let _load = scope.spawn(|| traffic(site.address(), &stop, &harmed));
        bad.store(true, SeqCst);
        set("+400d");
        site.cli(&["wait", "--timeout", "40s"]).expect(9);
    });
    bad.store(false, SeqCst);
    set("+0");
    // The pause of a rollout's step is no earlier over.
    site.cli(&["rollout", "start", "--steps", "10:10m,100"]).expect(0);
    let step = |site: &Site| app(site)["rollout"].clone();
    eventually("its first step", Duration::from_secs(20), || {
        (step(&site)["step"] == 0).then_some(())
    });
    for offset in ["+400d", "-400d"] {
        set(offset);
        let waited = step(&site)["waited_seconds"].as_f64().unwrap();
        eventually("time goes on", Duration::from_secs(20), || {
            (step(&site)["waited_seconds"].as_f64().unwrap() > waited).then_some(())
        });
        let rollout = step(&site);
        assert_eq!(
            (&rollout["step"], &rollout["phase"]),
            (&0.into(), &"shifting".into()),
            "{rollout}"
        );
        assert!(rollout["waited_seconds"].as_f64().unwrap() < 300.0, "{rollout}");
    }
    say(
        "guard, wall clock jumps 400 days ahead and back: bake and rollout go on by the monotonic clock, exit 9 for a bad candidate",
    );
    server.stop();
}

/// Where Debian has libfaketime (tests/run installs it).
fn faketime() -> PathBuf {
    let folders = std::fs::read_dir("/usr/lib").expect("/usr/lib");
    let paths = folders
        .map_while(Result::ok)
        .map(|entry| entry.path().join("faketime/libfaketime.so.1"));
    let mut found = paths.filter(|path| path.is_file());
    found
        .next()
        .expect("libfaketime is installed (tests/run does that)")
}
