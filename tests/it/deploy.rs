//! `cutover deploy` against a running proxy: the steps, and what happens when they break.

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::harness::desk::{Desk, gone};
use crate::harness::{Backend, Message, Proxy, Setup, ok, until};

/// Each step leaves a line in `ran`.
const STEPS: &str = r#"
[app.web.deploy]
steps = ["backup", "migrate", "start", "healthy", "smoke", "check_it", "approve", "switch", "stop_old"]
lease = "3s"
backup.run = "sh -c 'echo backup >> ran'"
start = { run = ["sh -c 'echo start $CUTOVER_APP $CUTOVER_COLOR $CUTOVER_OTHER $CUTOVER_REVISION >> ran'", "echo says {color} {args}"] }
check_it = { run = "echo check {color} \"${CUTOVER_PREVIEW_URL}\" $UNSPLIT >> ran", shell = true, env = { UNSPLIT = "a  b" } }
healthy.timeout = "20s"
stop_old = { run = "sh -c 'echo stop $CUTOVER_OTHER >> ran'" }
"#;

fn lease_of(proxy: &Proxy) -> Value {
    proxy.get("/v1/apps/web/lease").done().json["lease"].clone()
}

fn events_of(proxy: &Proxy) -> String {
    proxy.get("/v1/events?after=0&follow=false").text
}

#[test]
fn all_steps_run_in_order_and_traffic_moves() {
    let (blue, green) = (Backend::blue(), Backend::green());
    let proxy = Proxy::of(&blue, &green);
    let desk = Desk::at(&proxy, &blue, &green, STEPS);
    let done = desk
        .cutover(&["deploy", "--yes", "--revision", "v2", "--", "one", "two words"])
        .expect(0);
    let lines: Vec<String> = desk.read("ran").lines().map(str::to_owned).collect();
    let url = format!("http://{}", green.address());
    assert_eq!(
        lines,
        [
            "backup",
            "start web green blue v2",
            &format!("check green {url} a b"),
            "stop blue",
        ]
    );
    let done = done.says(&[
        "web: deploy green (v2); blue is active",
        "[1/9] backup … ✓",
        "[2/9] migrate … skipped: it has no command",
        "[3/9] start green …\n    says green one two words\n[3/9] start green … ✓",
        "[5/9] smoke green … skipped: there are no probes",
        "[7/9] approve … ✓",
        "[9/9] stop_old blue … ✓",
    ]);
    assert!(
        done.out.starts_with("web: deploy green (v2): done in"),
        "{done:#?}"
    );
    assert!(done.out.contains("green is active (generation"), "{done:#?}");
    assert!(!done.err.contains('\x1b'), "no ANSI into a pipe: {done:#?}");
    assert_eq!(proxy.says(), "green");
    assert_eq!(proxy.app()["colors"]["green"]["revision"], "v2");
    assert_eq!(lease_of(&proxy), Value::Null);
    let events = events_of(&proxy);
    assert!(events.contains("deploy green revision v2 begins"), "{events}");
    assert!(events.contains("ended: done"), "{events}");

    // The other way round by itself; --json is one event a line.
    let done = desk.cutover(&["deploy", "--json", "--auto-switch"]).expect(0);
    let events: Vec<Value> = done
        .out
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert!(events.iter().all(|event| event["schema"] == "cutover.deploy/v1"));
    assert_eq!(events[0]["event"], "begin");
    let last = events.last().unwrap();
    assert_eq!(
        (&last["result"], &last["exit"], &last["active"]),
        (&json!("done"), &json!(0), &json!("blue"))
    );
    assert_eq!(proxy.says(), "blue");
}

#[test]
fn the_color_that_serves_is_left_alone() {
    let (blue, green) = (Backend::blue(), Backend::green());
    let proxy = Proxy::of(&blue, &green);
    let desk = Desk::at(&proxy, &blue, &green, STEPS);
    desk.cutover(&["deploy", "blue", "--yes"]).expect(4).says(&[
        "blue serves the traffic and is healthy",
        "cutover deploy green",
        "--in-place",
    ]);
    desk.cutover(&["deploy", "--yes", "--expect-generation", "77"])
        .expect(6);
    for (args, words) in [
        (
            vec!["deploy", "--yes", "--from", "strat"],
            "did you mean `start`?",
        ),
        (
            vec!["deploy", "--yes", "--until", "nothing"],
            "there are: backup, migrate",
        ),
        (
            vec!["deploy", "--yes", "--from", "switch", "--until", "start"],
            "--from comes behind --until",
        ),
        (
            vec!["deploy", "--idempotency-key", "k"],
            "a lease keeps a second one out",
        ),
        (vec!["deploy", "-a", "shop"], "has no app `shop`; it has: web"),
        (vec!["deploy", "purple"], "possible values: blue, green, auto"),
        (vec!["deploy", "-c", "none.toml"], "none.toml"),
    ] {
        let ended = desk.cutover(&args);
        assert!(matches!(ended.code, 2 | 3), "{args:?}: {ended:#?}");
        ended.says(&[words]);
    }
    // A pipeline that would have to ask does not begin where nobody can answer.
    desk.cutover(&["deploy", "green"])
        .expect(2)
        .says(&["no terminal", "--yes", "--auto-switch"]);
    // A dry run tells and does nothing.
    desk.cutover(&["deploy", "--yes", "--dry-run"]).expect(0).says(&[
        "[1/9] backup: would run: sh -c",
        "would be skipped: it has no command",
    ]);
    assert_eq!((desk.read("ran").as_str(), proxy.says().as_str()), ("", "blue"));
    assert_eq!(proxy.generation(), 1);

    desk.cutover(&["deploy", "--no-switch"])
        .expect(0)
        .says(&["[8/9] switch green … skipped: --no-switch"]);
    assert_eq!(proxy.says(), "blue");
    desk.cutover(&["deploy", "--yes", "--from", "switch", "--until", "switch"])
        .expect(0)
        .says(&[
            "[3/9] start green … skipped: before --from",
            "[9/9] stop_old blue … skipped: behind --until",
        ]);
    assert_eq!(proxy.says(), "green");
    // Only what is behind the switch: for the color that serves now.
    desk.cutover(&["deploy", "--yes", "--from", "stop_old"])
        .expect(0)
        .says(&["[9/9] stop_old blue … ✓"]);
    desk.cutover(&["deploy", "blue", "--yes", "--from", "stop_old"])
        .expect(4)
        .says(&["blue does not serve"]);
    desk.cutover(&["deploy", "green", "--yes", "--in-place", "--until", "start"])
        .expect(0);
}

#[test]
fn a_person_is_asked_and_may_decline() {
    let (blue, green) = (Backend::blue(), Backend::green());
    let proxy = Proxy::of(&blue, &green);
    let desk = Desk::at(&proxy, &blue, &green, STEPS);
    for answer in ["n\n", "\n", "maybe\n"] {
        desk.typed("deploy green --revision v3", answer)
            .expect(11)
            .says(&[
                "web: blue → green (v3), generation 2; green is healthy",
                "Switch traffic to green? [y/N]",
                "declined",
                "serving: blue, unchanged",
                "--revision v3 --from approve",
            ]);
    }
    assert_eq!((proxy.says().as_str(), lease_of(&proxy)), ("blue", Value::Null));
    desk.typed("deploy green --from approve --until switch", "yes\n")
        .expect(0);
    assert_eq!(proxy.says(), "green");
}

#[test]
fn a_second_deploy_is_told_who_holds_the_app() {
    let (blue, green) = (Backend::blue(), Backend::green());
    let proxy = Proxy::of(&blue, &green);
    let waits = "\n[app.web.deploy]\nsteps = [\"start\", \"switch\"]\nlease = \"3s\"\n\
                 start = { run = \"echo go >> began; until [ -e go ]; do sleep 0.02; done\", shell = true }\n";
    let desk = Desk::at(&proxy, &blue, &green, waits);
    let first = desk.begin(&["deploy", "--revision", "v2"]);
    until("the first has begun", || !desk.read("began").is_empty());
    desk.cutover(&["deploy"]).expect(6).says(&[
        "deploy green revision v2",
        "by ",
        "cutover lease break",
        "serving: blue",
    ]);
    desk.cutover(&["lease", "show"])
        .expect(0)
        .says(&["web: deploy green revision v2", "ends in"]);
    desk.cutover(&["status"])
        .expect(0)
        .says(&["deploy green revision v2"]);
    // Whoever would move traffic waits as well; going back, and protecting clients, is never kept from anybody.
    desk.cutover(&["switch", "green"]).expect(6);
    desk.cutover(&["weight", "green=10"]).expect(6);
    desk.cutover(&["endpoints", "set", "green", "--revision", "x"])
        .expect(6);
    desk.cutover(&["maintenance", "on"]).expect(0);
    desk.cutover(&["maintenance", "off"]).expect(0);
    desk.cutover(&["rollback"]).expect(10);
    desk.write("go", "");
    first.end().expect(0);
    assert_eq!(proxy.says(), "green");

    // A lease that is broken stops its deploy after the command that runs; what it holds is free at once.
    std::fs::remove_file(desk.path("go")).unwrap();
    desk.write("began", "");
    let first = desk.begin(&["deploy"]);
    until("it has begun", || !desk.read("began").is_empty());
    desk.cutover(&["lease", "break"])
        .expect(0)
        .says(&["broken: deploy blue", "web: free"]);
    desk.cutover(&["switch", "blue"]).expect(0);
    until("the broken one knows", || {
        events_of(&proxy).contains("was broken by")
    });
    desk.write("go", "");
    first.end().expect(6).says(&["does not hold the app any more"]);
}

#[test]
fn a_killed_deploy_leaves_the_app_free_and_is_taken_up_again() {
    let (blue, green) = (Backend::blue(), Backend::green());
    let proxy = Proxy::of(&blue, &green);
    let waits = "\n[app.web.deploy]\nsteps = [\"start\", \"healthy\", \"switch\"]\nlease = \"1s\"\n\
                 start = { run = \"echo $$ >> began; until [ -e go ]; do sleep 0.02; done\", shell = true }\n";
    let desk = Desk::at(&proxy, &blue, &green, waits);
    let killed = desk.begin(&["deploy", "--revision", "v2"]);
    until("it has begun", || !desk.read("began").is_empty());
    killed.signal(Signal::KILL);
    drop(killed);
    until("its lease ran out", || lease_of(&proxy) == Value::Null);
    until("that is told", || events_of(&proxy).contains("its lease ran out"));
    assert_eq!(proxy.says(), "blue");
    desk.write("go", "");
    desk.cutover(&["deploy", "green", "--revision", "v2", "--from", "start"])
        .expect(0);
    assert_eq!(proxy.says(), "green");
}

#[test]
fn an_interrupt_ends_the_command_with_all_it_started() {
    let (blue, green) = (Backend::blue(), Backend::green());
    let proxy = Proxy::of(&blue, &green);
    let waits = "\n[app.web.deploy]\nsteps = [\"start\", \"switch\"]\n\
                 start = { run = \"sleep 600 & echo $! > pid.new; mv pid.new pid; wait\", shell = true }\n";
    for signal in [Signal::INT, Signal::TERM] {
        let desk = Desk::at(&proxy, &blue, &green, waits);
        let running = desk.begin(&["deploy"]);
        until("it has begun", || !desk.read("pid").is_empty());
        running.signal(signal);
        running
            .end()
            .expect(130)
            .says(&["interrupted", "serving: blue, unchanged", "--from start"]);
        gone(&desk.read("pid"));
        assert_eq!(lease_of(&proxy), Value::Null);
    }
    assert_eq!(proxy.says(), "blue");
}

#[test]
fn a_step_that_fails_stops_the_deploy_and_shows_why() {
    let (blue, green) = (Backend::blue(), Backend::green());
    let proxy = Proxy::of(&blue, &green);
    let fails = r#"
[app.web.deploy]
steps = ["backup", "late", "switch"]
on_failure = { logs = "sh -c 'for n in 1 2 3; do echo log line $n of {color}; done'", run = "touch cleaned" }
backup = { run = "sh -c 'echo token is ${DESK_SECRET}; [ -e good ] || exit 3'" }
late = { run = "sleep 600 & echo $! > pid; wait", shell = true, timeout = "300ms", on_failure = { logs = "echo own words" } }
"#;
    let desk = Desk::at(&proxy, &blue, &green, fails);
    let ended = desk.cutover(&["deploy", "green"]).expect(1).says(&[
        "[1/3] backup …\n    token is ***\n",
        "step backup: `sh`: exit status: 3",
        "log line 3 of green",
        "serving: blue, unchanged",
        "next: goes on with the same step: cutover deploy green --from backup",
    ]);
    assert!(!format!("{ended:?}").contains("s3cr3t"), "{ended:#?}");
    assert!(desk.path("cleaned").exists());
    assert!(events_of(&proxy).contains("failed at backup"));
    desk.write("good", "");
    desk.cutover(&["deploy", "green"]).expect(1).says(&[
        "[2/3] late … ✗",
        "not done within 300ms",
        "own words",
        "--from late",
    ]);
    gone(&desk.read("pid"));
    assert_eq!(proxy.says(), "blue");

    let cannot = "\n[app.web.deploy]\nsteps = [\"backup\", \"b\", \"c\"]\nbackup.run = \"no-such-program --x\"\n\
                  b.run = \"echo {revision}\"\nc = { run = \"true\", cwd = \"/no/such/folder\" }\n";
    let desk = Desk::at(&proxy, &blue, &green, cannot);
    desk.cutover(&["deploy"])
        .expect(1)
        .says(&["there is no program `no-such-program`"]);
    desk.cutover(&["deploy", "--from", "b"])
        .expect(1)
        .says(&["say it with --revision R"]);
    desk.cutover(&["deploy", "--from", "c"])
        .expect(1)
        .says(&["there is no folder /no/such/folder"]);
}

#[test]
fn a_color_that_never_becomes_healthy_is_shown_probe_by_probe() {
    let blue = Backend::blue();
    let green = Backend::answers(
        "HTTP/1.1 503 No\r\nContent-Length: 30\r\nConnection: close\r\n\r\n{\"db\":\"connection refused yet\"}",
    );
    let proxy = Proxy::of(&blue, &green);
    let deploy =
        "\n[app.web.deploy]\nhealthy.timeout = \"1200ms\"\non_failure.logs = \"echo the app says hello\"\n";
    let desk = Desk::at(&proxy, &blue, &green, deploy);
    desk.cutover(&["deploy", "green", "--yes"]).expect(4).says(&[
        "green did not become healthy within 1.2s",
        &format!("web {}  http://", green.address()),
        "→ 503 in",
        "connection refused yet",
        "× web",
        "the app says hello",
        "serving: blue, unchanged",
        "--from healthy",
    ]);
    assert_eq!(proxy.says(), "blue");
}

/// The login of a test user in two requests; the second needs a value of the first answer.
fn app(request: &Message) -> Vec<u8> {
    let body = request.text();
    let json = |status: &str, body: &str| {
        format!(
            "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nAccess-Control-Allow-Origin: *\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .into_bytes()
    };
    match request.target() {
        "/api/code" if request.field("x-key") == Some("s3cr3t-of-the-desk") => {
            json("200 OK", r#"{"code":"77-ab"}"#)
        }
        "/api/login?code=77-ab" if body == r#"{"code":"77-ab","color":"green"}"# => {
            json("201 Made", r#"{"ok":true,"user":{"id":5}}"#)
        }
        _ => ok("green"),
    }
}

const PROBES: &str = r#"
[[app.web.deploy.smoke]]
request = "GET /api/code"
headers = { x-key = "${DESK_SECRET}" }
expect = { status = "200", header = { access-control-allow-origin = "*" }, within = "20s" }
capture = { code = "/code" }

[[app.web.deploy.smoke]]
request = "POST /api/login?code={code}"
body = '{"code":"{code}","color":"{color}"}'
expect = { status = "201", json = { "/ok" = true, "/user/id" = WANTED }, body_regex = "user" }
"#;

#[test]
fn smoke_probes_ask_the_target_and_hand_values_on() {
    let blue = Backend::blue();
    let green = Backend::handler(app);
    let proxy = Proxy::of(&blue, &green);
    let desk = Desk::at(&proxy, &blue, &green, &PROBES.replace("WANTED", "5"));
    let done = desk
        .cutover(&["deploy", "green", "--yes", "--until", "switch"])
        .expect(0)
        .says(&[
            "1/2 GET /api/code → 200 in",
            "2/2 POST /api/login?code=77-ab → 201 in",
            "2 of 2 probes passed",
        ]);
    assert!(!format!("{done:?}").contains("s3cr3t"), "{done:#?}");
    assert_eq!(proxy.says(), "green");
    proxy.switch("blue");

    let desk = Desk::at(&proxy, &blue, &green, &PROBES.replace("WANTED", "6"));
    desk.cutover(&["deploy", "green", "--yes"]).expect(4).says(&[
        "green failed smoke probe 2 of 2: POST /api/login?code=77-ab → 201",
        "`/user/id` is 5, wanted 6",
        "body: {\"ok\":true,\"user\":{\"id\":5}}",
        "serving: blue, unchanged",
    ]);
    assert_eq!(proxy.says(), "blue");
    desk.cutover(&["deploy", "green", "--yes", "--skip-smoke", "--until", "switch"])
        .expect(0)
        .says(&["smoke green … skipped: --skip-smoke"]);
}

#[test]
fn a_server_that_restarts_is_waited_for_and_one_that_is_gone_is_exit_7() {
    let (blue, green) = (Backend::blue(), Backend::green());
    let mut proxy = Setup::new().colors(&blue, &green, "").start();
    let waits = "\n[app.web.deploy]\nsteps = [\"start\", \"healthy\", \"switch\"]\n\
                 start = { run = \"echo go >> began; until [ -e go ]; do sleep 0.02; done\", shell = true }\n";
    let desk = Desk::at(&proxy, &blue, &green, waits);
    let first = desk.begin(&["deploy", "green"]);
    until("it has begun", || !desk.read("began").is_empty());
    proxy.restart();
    desk.write("go", "");
    first.end().expect(0);
    assert_eq!(proxy.says(), "green");
    proxy.stop();
    desk.cutover(&["deploy"]).expect(7);
}

#[test]
fn a_first_deployment_begins_with_nothing_running() {
    let blue = Backend::blue();
    let green = Backend::green();
    let (b, g) = (blue.address().to_owned(), green.address().to_owned());
    let proxy = Proxy::of(&blue, &green);
    let desk = Desk::at(&proxy, &blue, &green, STEPS);
    drop((blue, green));
    until("nothing answers", || {
        let app = proxy.app();
        ["blue", "green"]
            .iter()
            .all(|color| app["colors"][color]["healthy"] == false)
            && app["colors"]["blue"]["services"][0]["endpoints"][0]["health"] == "unreachable"
    });
    let started = std::thread::spawn({
        let ran = desk.path("ran");
        move || {
            until("the start hook ran", || {
                std::fs::read_to_string(&ran).is_ok_and(|text| text.contains("start web blue"))
            });
            Backend::at(b.parse().unwrap(), |wire, _| {
                while wire.request().is_some() {
                    wire.send(ok("blue again"));
                }
            })
        }
    });
    let done = desk
        .cutover(&["deploy", "--yes", "--revision", "v1"])
        .expect(0)
        .says(&[
            "nothing in it is healthy: a first deployment, or a recovery",
            "blue was active already",
            "stop_old green … skipped: green had no traffic",
        ]);
    let _blue = started.join().unwrap();
    assert_eq!(proxy.says(), "blue again", "{done:#?} {g}");
}

/// Colors that can be started and stopped: each is "up" while its file exists.
const SLOTS: &str = r#"
[app.web.deploy]
steps = ["start", "healthy", "switch"]
lease = "3s"
start.run = "touch up-{color}"
healthy.timeout = "20s"
stop_old = { run = "rm up-{other}", confirm = "Stop {other}?" }
"#;

/// A backend that answers while the file exists, and breaks every connection otherwise.
fn slot(file: &std::path::Path, says: &'static str) -> Backend {
    let file = file.to_owned();
    Backend::script(move |wire, _| {
        while wire.request().is_some() {
            if !file.exists() {
                return;
            }
            wire.send(ok(says));
        }
    })
}

#[test]
fn a_color_is_retired_once_it_is_empty_and_comes_back_for_a_rollback() {
    let folder = tempfile::tempdir().unwrap();
    let (up_blue, up_green) = (folder.path().join("up-blue"), folder.path().join("up-green"));
    std::fs::write(&up_blue, "").unwrap();
    let (blue, green) = (slot(&up_blue, "blue"), slot(&up_green, "green"));
    let proxy = Setup::new().colors(&blue, &green, "guard.bake = \"0\"\n").start();
    let deploy = SLOTS.replace("up-", &format!("{}/up-", folder.path().display()));
    let desk = Desk::at(&proxy, &blue, &green, &deploy);

    desk.cutover(&["deploy", "--revision", "v2"]).expect(0);
    desk.cutover(&["status"])
        .expect(0)
        .says(&["both colors run: green serves, blue is warm", "cutover retire"]);
    desk.cutover(&["weight", "blue=10"]).expect(0);
    desk.cutover(&["retire", "--yes"])
        .expect(4)
        .says(&["blue takes 10 % of the traffic"]);
    desk.cutover(&["weight", "blue=0"]).expect(0);
    desk.cutover(&["retire"])
        .expect(2)
        .says(&["`stop_old` asks first", "--yes"]);
    desk.typed("retire", "no\n")
        .expect(11)
        .says(&["Stop blue? [y/N]"]);
    assert!(up_blue.exists());
    desk.typed("retire", "y\n")
        .expect(0)
        .says(&["blue holds no request and was stopped"]);
    assert!(!up_blue.exists());
    until("blue is seen down", || {
        proxy.app()["colors"]["blue"]["healthy"] == false
    });

    // Going back to it needs it running; --start sees to that.
    desk.cutover(&["rollback", "--start", "--dry-run"]).expect(2);
    desk.cutover(&["rollback", "--start"]).expect(0).says(&[
        "[1/2] start blue … ✓",
        "[2/2] healthy blue … ✓",
        "blue is active",
    ]);
    assert!(up_blue.exists());
    assert_eq!(proxy.says(), "blue");

    // Nothing runs.
    std::fs::remove_file(&up_blue).unwrap();
    std::fs::remove_file(&up_green).unwrap();
    let nothing = Desk::at(&proxy, &blue, &green, "");
    nothing
        .cutover(&["retire", "--yes"])
        .expect(2)
        .says(&["add `stop_old`"]);
    nothing
        .cutover(&["rollback", "--start"])
        .expect(2)
        .says(&["add `start`"]);
}

#[test]
fn smoke_asks_one_color_by_probes_or_by_a_command() {
    let blue = Backend::blue();
    let green = Backend::handler(app);
    let proxy = Proxy::of(&blue, &green);
    let desk = Desk::at(&proxy, &blue, &green, &PROBES.replace("WANTED", "5"));
    desk.cutover(&["smoke", "green"])
        .expect(0)
        .says(&["web: green passed in", "2 of 2 probes passed"]);
    desk.cutover(&["smoke", "blue"])
        .expect(4)
        .says(&["blue failed smoke probe 1 of 2"]);
    let url = format!("http://{}", green.address());
    desk.cutover(&[
        "smoke",
        "green",
        "--",
        "sh",
        "-c",
        "echo {at} $CUTOVER_PREVIEW_URL; test $CUTOVER_COLOR = green",
    ])
    .expect(0)
    .says(&[&format!("{{at}} {url}")]);
    desk.cutover(&["smoke", "green", "--", "false"])
        .expect(4)
        .says(&["green failed: exit status: 1"]);
    Desk::at(&proxy, &blue, &green, "")
        .cutover(&["smoke", "green"])
        .expect(2)
        .says(&["there are no probes"]);
}
