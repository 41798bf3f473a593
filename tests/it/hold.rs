//! The no-overlap cutover: `switch --hold --run`, by the real command line against the whole proxy.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Mutex;
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use serde_json::json;

use crate::harness::backend::HEALTH;
use crate::harness::{Backend, Proxy, Setup, Wire, ok, until};

fn two(lines: &str) -> (Backend, Backend, Proxy) {
    let (blue, green) = (Backend::blue(), Backend::green());
    let proxy = Setup::new().colors(&blue, &green, lines).start();
    (blue, green, proxy)
}

/// Its `/slow` takes until it is told.
fn slow_blue() -> (Backend, Sender<()>) {
    let (go, rest) = channel::<()>();
    let rest = Mutex::new(rest);
    let blue = Backend::handler(move |request| {
        if request.target() == "/slow" {
            let _ = rest.lock().unwrap().recv();
        }
        ok("blue")
    });
    (blue, go)
}

/// `cutover switch green --hold …`, begun.
fn begin(proxy: &Proxy, more: &[&str]) -> Child {
    let socket = proxy.folder().join("state/admin.sock");
    Command::new(env!("CARGO_BIN_EXE_cutover"))
        .args(["switch", "green", "--hold", "--admin"])
        .arg(format!("unix:{}", socket.display()))
        .args(more)
        .current_dir(proxy.folder())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Its exit code and all that it said.
fn ended(child: Child) -> (Option<i32>, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = child.wait_with_output().unwrap();
    let said = [stdout, stderr].concat();
    (status.code(), String::from_utf8_lossy(&said).into_owned())
}

fn there(path: &Path) -> impl Fn() -> bool {
    let path = path.to_owned();
    move || path.exists()
}

/// A request that is sent and waits.
fn waiting(proxy: &Proxy, count: u64) -> Vec<Wire> {
    let before = proxy.app()["hold"]["waiting"].as_u64().unwrap_or(0);
    let send = |_| {
        let mut wire = proxy.client();
        wire.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        wire
    };
    let wires = (0..count).map(send).collect();
    until("they wait", || proxy.app()["hold"]["waiting"] == before + count);
    wires
}

fn says_all(wires: Vec<Wire>, color: &str) {
    for mut wire in wires {
        let answer = wire.answer();
        assert_eq!((answer.status(), answer.text().as_str()), (200, color));
    }
}

/// A command that says that it runs and goes on until it is told.
const WAITS: &str = "touch started; until [ -e go ]; do sleep 0.01; done";

#[test]
fn while_the_command_runs_no_request_does_and_then_all_go_to_the_new_color() {
    let (blue, go) = slow_blue();
    let green = Backend::green();
    let proxy = Setup::new().colors(&blue, &green, "").start();
    let (started, release) = (proxy.folder().join("started"), proxy.folder().join("go"));
    let mut slow = proxy.client();
    slow.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
    until("it is with blue", || blue.requests().len() == 1);

    let command = format!("echo $CUTOVER_APP $CUTOVER_FROM $CUTOVER_TO > facts; {WAITS}");
    let cli = begin(&proxy, &["--run", &command]);
    until("the app is held", || !proxy.app()["hold"].is_null());
    let mut early = waiting(&proxy, 3);
    assert!(!started.exists(), "a request of blue still runs");
    go.send(()).unwrap();
    assert_eq!(slow.answer().text(), "blue", "what ran has ended well");
    until("the command runs", there(&started));
    let facts = std::fs::read_to_string(proxy.folder().join("facts")).unwrap();
    assert_eq!(facts, "web blue green\n");

    early.extend(waiting(&proxy, 5));
    assert_eq!((blue.requests().len(), green.requests().len()), (1, 0));
    assert_eq!(proxy.fetch(HEALTH).status(), 200, "health is never held");
    std::fs::write(&release, "").unwrap();
    let (code, said) = ended(cli);
    assert_eq!(code, Some(0), "{said}");
    assert!(
        said.contains("green is active, it was blue") && said.contains("verified"),
        "{said}"
    );
    says_all(early, "green");
    assert_eq!(
        blue.requests().len(),
        1,
        "0 requests to the old color after the hold"
    );
    assert!(proxy.app()["hold"].is_null());
    assert_eq!(proxy.metric("cutover_requests_total", &["code=\"50"]), 0.0);
    let history = proxy.get("/v1/history").done().json;
    let verbs: Vec<_> = history["entries"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| entry["verb"].clone())
        .collect();
    assert_eq!(verbs[verbs.len() - 3..], ["hold", "switch", "release"]);
}

#[test]
fn a_command_that_fails_switches_nothing_and_the_requests_go_on() {
    let (_blue, green, proxy) = two("");
    let cli = begin(
        &proxy,
        &[
            "--run",
            "touch started; until [ -e go ]; do sleep 0.01; done; exit 3",
        ],
    );
    until("the command runs", there(&proxy.folder().join("started")));
    let held = waiting(&proxy, 4);
    std::fs::write(proxy.folder().join("go"), "").unwrap();
    let (code, said) = ended(cli);
    assert_eq!(code, Some(4), "{said}");
    assert!(
        said.contains("exit status: 3") && said.contains("nothing was switched"),
        "{said}"
    );
    assert!(said.contains("released: blue is active"), "{said}");
    says_all(held, "blue");
    assert_eq!(green.requests().len(), 0);
}

#[test]
fn a_command_line_killed_in_mid_hold_keeps_nobody_waiting() {
    let (_blue, _green, proxy) = two("");
    let mut cli = begin(
        &proxy,
        &["--max-hold", "1500ms", "--run", "touch started; exec sleep 4"],
    );
    until("the command runs", there(&proxy.folder().join("started")));
    let held = waiting(&proxy, 3);
    cli.kill().unwrap();
    cli.wait().unwrap();
    says_all(held, "blue");
    assert!(proxy.app()["hold"].is_null());
    assert_eq!(proxy.says(), "blue");
}

/// A process that a command wrote down.
fn noted(path: PathBuf) -> Pid {
    until("its pid is written", || {
        std::fs::read_to_string(&path).is_ok_and(|text| text.ends_with('\n'))
    });
    let text = std::fs::read_to_string(path).unwrap();
    Pid::from_raw(text.trim().parse().unwrap()).unwrap()
}

#[test]
fn a_command_that_takes_too_long_is_stopped_with_all_that_it_started() {
    let (_blue, _green, proxy) = two("");
    // It does not care for SIGTERM, and neither does its child.
    let command = "trap '' TERM; sh -c 'trap \"\" TERM; echo $$ > child; while :; do sleep 0.1; done' & wait";
    let cli = begin(&proxy, &["--max-hold", "1s", "--run", command]);
    let child = noted(proxy.folder().join("child"));
    let (code, said) = ended(cli);
    assert_eq!(code, Some(4), "{said}");
    assert!(said.contains("did not end within"), "{said}");
    until("its child is gone too", || test_kill_process(child).is_err());
    assert_eq!(proxy.says(), "blue");
}

#[test]
fn ctrl_c_stops_the_command_and_lets_the_requests_go_on() {
    let (_blue, _green, proxy) = two("");
    let cli = begin(
        &proxy,
        &["--max-hold", "60s", "--run", "echo $$ > child; exec sleep 50"],
    );
    let child = noted(proxy.folder().join("child"));
    let held = waiting(&proxy, 2);
    kill_process(Pid::from_child(&cli), Signal::INT).unwrap();
    let (code, said) = ended(cli);
    assert_eq!(code, Some(4), "{said}");
    assert!(said.contains("stopped by SIGINT"), "{said}");
    until("the command is gone", || test_kill_process(child).is_err());
    says_all(held, "blue");
}

#[test]
fn a_color_that_does_not_fall_idle_in_time_keeps_the_traffic() {
    let (blue, go) = slow_blue();
    let green = Backend::green();
    let proxy = Setup::new().colors(&blue, &green, "").start();
    let mut slow = proxy.client();
    slow.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
    until("it is with blue", || blue.requests().len() == 1);
    let (code, said) = ended(begin(&proxy, &["--max-hold", "300ms", "--run", "touch never"]));
    assert_eq!(code, Some(4), "{said}");
    assert!(said.contains("1 running requests"), "{said}");
    assert!(!proxy.folder().join("never").exists());
    assert_eq!(proxy.says(), "blue");
    go.send(()).unwrap();
    assert_eq!(slow.answer().text(), "blue");
}

#[test]
fn a_switch_that_is_refused_releases_to_the_old_color() {
    let blue = Backend::blue();
    let green = Backend::handler(|_| b"HTTP/1.1 500 Oh\r\ncontent-length: 0\r\n\r\n".to_vec());
    let proxy = Setup::new().colors(&blue, &green, "").start();
    proxy.post("hold", json!({ "max": "60s", "idle": true })).done();
    let held = waiting(&proxy, 2);
    let refused = proxy.post("switch", json!({ "to": "green", "release": true }));
    assert_eq!(refused.status, 422, "{}", refused.text);
    says_all(held, "blue");
    assert!(proxy.app()["hold"].is_null());
}

#[test]
fn an_app_held_by_somebody_else_is_left_alone() {
    let (_blue, _green, proxy) = two("");
    proxy.post("hold", json!({ "max": "60s" })).done();
    let (code, said) = ended(begin(&proxy, &[]));
    assert_eq!(code, Some(6), "{said}");
    assert!(!proxy.app()["hold"].is_null(), "their hold stands");
    proxy.post("release", json!({})).done();
    let (code, said) = ended(begin(&proxy, &["--dry-run"]));
    assert!(code == Some(0) && said.contains("dry run"), "{said}");
    assert_eq!(proxy.says(), "blue");
}

#[test]
fn the_room_is_bounded_and_they_leave_it_one_after_the_other() {
    let (_blue, _green, proxy) = two("hold = { requests = 8, release_rate = 20 }");
    proxy.post("hold", json!({ "max": "60s" })).done();
    // One client: eight, and it is not modest any more.
    let held = waiting(&proxy, 8);
    let refused = proxy.fetch("/");
    assert_eq!((refused.status(), refused.field("retry-after")), (503, Some("1")));
    let begun = Instant::now();
    proxy.post("release", json!({})).done();
    says_all(held, "blue");
    assert!(
        begun.elapsed() >= Duration::from_millis(350),
        "8 at 20 a second: {:?}",
        begun.elapsed()
    );
    // Bytes are bounded too.
    let (_blue, _green, proxy) = two("hold = { bytes = \"1KiB\" }");
    proxy.post("hold", json!({ "max": "60s" })).done();
    let large = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(2_000));
    assert_eq!(proxy.client().ask(large).status(), 503);
    let held = waiting(&proxy, 1);
    proxy.post("release", json!({})).done();
    says_all(held, "blue");
}
