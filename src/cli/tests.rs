//! The command line from outside: arguments in; exit code, stdout and stderr out.

use std::cell::RefCell;
use std::ffi::OsString;
use std::io::{self, Write};
use std::rc::Rc;
use std::time::Duration;

use clap::CommandFactory;

use super::args::Cli;
use super::output::{Output, Paint, clean};
use super::{run, tables};
use crate::admin::testing::{SECRETS, Server};
use crate::admin::{Exit, dto};
use crate::control::fake::probe;
use crate::control::{Before, Intent, Refusal, Wanted};
use crate::rollout::{Color, Trigger};

#[derive(Clone, Default)]
struct Page(Rc<RefCell<Vec<u8>>>);

impl Write for Page {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Page {
    fn text(&self) -> String {
        String::from_utf8(self.0.borrow().clone()).unwrap()
    }
}

#[derive(Debug)]
struct Ended {
    exit: Exit,
    out: String,
    err: String,
}

/// Words are split at spaces; `_` in a word is a space.
fn cutover_in(env: &[(&str, &str)], line: &str) -> Ended {
    let args = std::iter::once("cutover".to_owned())
        .chain(line.split_whitespace().map(|word| word.replace('_', " ")));
    let env = |name: &str| {
        let found = env.iter().find(|(key, _)| *key == name);
        found.map(|(_, value)| (*value).to_owned())
    };
    let (out, err) = (Page::default(), Page::default());
    let mut output = Output::into(Box::new(out.clone()), Box::new(err.clone()));
    let exit = run(args.map(OsString::from), &env, &mut output);
    Ended {
        exit,
        out: out.text(),
        err: err.text(),
    }
}

fn cutover(server: &Server, line: &str) -> Ended {
    let admin = format!("unix:{}", server.socket().display());
    cutover_in(&[("CUTOVER_ADMIN", &admin)], line)
}

fn web() -> Server {
    Server::start(&["web"], false)
}

#[test]
fn the_definition_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn what_makes_no_sense_is_exit_2_and_says_why() {
    for (line, words) in [
        ("", "Usage"),
        ("swich green", "'switch'"),
        ("switch", "<TO>"),
        ("switch gren", "'green'"),
        ("switch red", "possible values: blue, green, standby"),
        ("switch green blue", "unexpected argument"),
        ("switch green --force", "--force needs --reason"),
        ("switch green --force --reason _", "--force needs --reason"),
        ("rollback --ignore-health", "--ignore-health needs --reason"),
        ("rollback --force --reason x", "--ignore-health --reason TEXT"),
        ("rollback green", "unexpected argument"),
        (
            "switch green --ignore-health --reason x",
            "does not take --ignore-health",
        ),
        ("weight green", "COLOR=PERCENT"),
        ("weight gren=10", "did you mean `green`"),
        ("weight green=101", "0 to 100"),
        ("weight green=-1", "0 to 100"),
        ("weight green=10 blue=80", "do not add up"),
        ("weight green=10 green=90", "named twice"),
        ("weight green=10 --wait 1s", "does not take --wait"),
        ("hold --max 20", "unit"),
        ("hold --force --reason x", "does not take --force"),
        ("maintenance maybe", "possible values: on, off"),
        ("reload --dry-run", "does not take --dry-run"),
        ("status --dry-run", "does not take --dry-run"),
        (
            "config --expect-generation 1",
            "does not take --expect-generation",
        ),
        ("check --admin unix:/x", "does not take --admin"),
        ("switch green --expect-generation x", "a generation is a number"),
        ("switch green --idempotency-key a_b", "visible ASCII"),
        ("explain GET", "<URL>"),
        ("explain GET / -H x", "Name: value"),
        ("drain standby", "possible values: blue, green"),
        ("run --listen 127.0.0.1:1", "without a color"),
        ("run --blue a:1 -c x", "cannot be used with"),
        ("status --admin ftp://x", "--admin: `ftp://x` is no admin address"),
        ("status --admin https://x:1", "no TLS"),
        ("status --token-file /no/such/file", "--token-file: /no/such/file"),
        ("endpoints set green --admin unix:/x", ""),
        ("upgrade", "unrecognized"),
        ("deploy --no-switch --auto-switch", "cannot be used with"),
        ("lease", "Usage"),
    ] {
        let ended = cutover_in(&[], line);
        let expected = if line.contains("unix:/x") && line.starts_with("endpoints") {
            Exit::Unreachable
        } else {
            Exit::Usage
        };
        assert_eq!(ended.exit, expected, "{line}: {ended:?}");
        assert!(
            ended.err.contains(words) && ended.out.is_empty(),
            "{line}: {ended:?}"
        );
    }
    let ended = cutover_in(&[("CUTOVER_ADMIN", "nonsense")], "status");
    assert!(
        ended.exit == Exit::Usage && ended.err.contains("$CUTOVER_ADMIN"),
        "{ended:?}"
    );
    let ended = cutover_in(&[("CUTOVER_TOKEN_FILE", "/no/such/file")], "status");
    assert!(
        ended.exit == Exit::Usage && ended.err.contains("$CUTOVER_TOKEN_FILE"),
        "{ended:?}"
    );
}

#[test]
fn options_stand_before_and_after_the_verb() {
    let server = web();
    for line in [
        "--dry-run --reason a_reason -a web switch green",
        "switch green --dry-run --reason a_reason -a web",
        "-a web switch --dry-run green --reason a_reason",
    ] {
        let ended = cutover(&server, line);
        assert_eq!(ended.exit, Exit::Done, "{ended:?}");
        let ask = server.fake.state().asks.pop().unwrap();
        assert!(ask.dry_run && ask.reason == "a reason" && ask.app.as_deref() == Some("web"));
        assert_eq!(
            ended.out,
            "web: switch: dry run, nothing was done; then green is active, it was blue (still generation 42)\n"
        );
    }
}

#[test]
fn exit_0_done_and_verified() {
    let server = web();
    let ended = cutover(
        &server,
        "switch green --expect-generation g42 --idempotency-key k",
    );
    assert_eq!(ended.exit, Exit::Done, "{ended:?}");
    assert_eq!(
        ended.out,
        "web: switch: green is active, it was blue (generation 43), verified by 3 requests\n"
    );
    assert_eq!(ended.err, "");
    {
        let state = server.fake.state();
        let ask = &state.asks[0];
        assert_eq!(
            (ask.expect_generation, ask.idempotency_key.as_deref()),
            (Some(42), Some("k"))
        );
        assert_eq!(ask.by.trigger, Trigger::Cli);
    }
    let ended = cutover(&server, "switch green");
    assert_eq!(ended.exit, Exit::Done);
    assert_eq!(
        ended.out,
        "web: switch: green is active, already so; nothing changed (generation 43)\n"
    );
    assert_eq!(cutover(&server, "switch standby -q").out, "blue\n");
    let json: serde_json::Value = serde_json::from_str(&cutover(&server, "switch green --json").out).unwrap();
    assert_eq!(
        (&json["changed"], &json["active"]),
        (&true.into(), &"green".into())
    );
}

#[test]
fn exit_1_for_what_has_no_number() {
    let server = web();
    server.fake.refuse(Refusal::NotDurable("disk full".to_owned()));
    let ended = cutover(&server, "switch green");
    assert_eq!(ended.exit, Exit::Failed);
    assert_eq!(
        ended.err,
        "error: the change could not be made durable, so it was not made: disk full\n\
         serving: blue (generation 42), nothing was changed\n\
         next: make room or make state_dir writable, then try again\n"
    );
}

#[test]
fn exit_2_for_names_that_only_the_server_knows() {
    let server = Server::start(&["web", "shop"], false);
    let ended = cutover(&server, "-a shap switch green");
    assert!(
        ended.exit == Exit::Usage && ended.err.contains("did you mean `shop`"),
        "{ended:?}"
    );
    let ended = cutover(&server, "switch green");
    assert!(
        ended.exit == Exit::Usage && ended.err.contains("-a APP"),
        "{ended:?}"
    );
}

#[test]
fn exit_3_config_invalid() {
    let server = web();
    server.fake.refuse(Refusal::Config(
        "cutover.toml:3:1: unknown key `helth`".to_owned(),
    ));
    let ended = cutover(&server, "reload");
    assert_eq!(ended.exit, Exit::ConfigInvalid);
    assert!(ended.err.contains("cutover.toml:3:1"), "{ended:?}");
    let file = server.dir.path().join("bad.toml");
    std::fs::write(&file, "[[listener]]\nadress = \"127.0.0.1:1\"\n").unwrap();
    for verb in ["check", "status"] {
        let ended = cutover_in(&[], &format!("{verb} -c {}", file.display()));
        assert_eq!(ended.exit, Exit::ConfigInvalid, "{ended:?}");
        assert!(ended.err.contains("did you mean `address`"), "{ended:?}");
        assert!(ended.out.is_empty());
    }
    let ended = cutover_in(&[], &format!("check --json -c {}", file.display()));
    let json: serde_json::Value = serde_json::from_str(&ended.out).unwrap();
    assert_eq!(json["ok"], false);
    let found = json["diagnostics"].as_array().unwrap();
    assert!(found.iter().any(|one| one["line"] == 2), "{json}");
}

#[test]
fn exit_4_refused_with_every_probe() {
    let server = web();
    let refusal = || Refusal::Unhealthy {
        color: Color::Green,
        active: Color::Blue,
        probes: vec![probe(Color::Green, false), probe(Color::Green, true)],
    };
    server.fake.refuse(refusal());
    let ended = cutover(&server, "switch green");
    assert_eq!(ended.exit, Exit::Refused);
    assert_eq!(
        ended.err,
        "error: green is not healthy; still serving blue\n  \
         ✖ web 127.0.0.1:8001  http://127.0.0.1:8001/healthz → 503 in 4.2 ms: body: db\u{fffd}[31m down\n  \
         ✔ web 127.0.0.1:8001  http://127.0.0.1:8001/healthz → 200 in 4.2 ms\n\
         serving: blue (generation 42), nothing was changed\n\
         next: fix the app and try again (`cutover probe COLOR --wait 60s` waits for it), or --force --reason TEXT\n"
    );
    assert_eq!(ended.out, "");
    server.fake.refuse(refusal());
    let ended = cutover(&server, "switch green --json");
    let json: serde_json::Value = serde_json::from_str(&ended.out).unwrap();
    assert_eq!(
        (&json["code"], json["probes"].as_array().unwrap().len()),
        (&"unhealthy".into(), 2)
    );
    server
        .fake
        .refuse_waits(Refusal::NotDrainable("blue has traffic".to_owned()));
    assert_eq!(cutover(&server, "wait-drained blue").exit, Exit::Refused);
    server.fake.state().healthy = false;
    let ended = cutover(&server, "probe green");
    assert_eq!((ended.exit, ended.out.contains("✖ web")), (Exit::Refused, true));
}

#[test]
fn exit_5_still_running() {
    let server = web();
    server
        .fake
        .refuse_waits(Refusal::TimedOut("green holds 3 requests after 1s".to_owned()));
    let ended = cutover(&server, "wait-drained green --timeout 1s");
    assert_eq!(ended.exit, Exit::StillRunning);
    assert!(ended.err.contains("`cutover status` tells"), "{ended:?}");
    // A switch that is done, whose old color does not drain in time.
    server
        .fake
        .refuse_waits(Refusal::TimedOut("blue holds 3 requests".to_owned()));
    let ended = cutover(&server, "switch green --wait 2s");
    assert_eq!(ended.exit, Exit::StillRunning, "{ended:?}");
    assert!(ended.out.contains("green is active, it was blue"), "{ended:?}");
    assert_eq!(
        server.fake.state().waits[1],
        (None, Color::Blue, Duration::from_secs(2))
    );
    server.fake.state().healthy = false;
    assert_eq!(
        cutover(&server, "probe green --wait 1ms").exit,
        Exit::StillRunning
    );
}

#[test]
fn exit_6_conflict() {
    let server = web();
    let ended = cutover(&server, "switch green --expect-generation 41");
    assert_eq!(ended.exit, Exit::Conflict);
    assert!(ended.err.contains("at generation 42, not 41"), "{ended:?}");
    server.fake.refuse(Refusal::Busy {
        operation: "switch to green".to_owned(),
        by: "ci".to_owned(),
    });
    let ended = cutover(&server, "weight green=10");
    assert_eq!(ended.exit, Exit::Conflict);
    assert!(
        ended.err.contains("switch to green by ci is still running"),
        "{ended:?}"
    );
}

#[test]
fn exit_7_lists_the_places_with_the_reason_each() {
    let dir = tempfile::TempDir::new().unwrap();
    let state = dir.path().display().to_string();
    drop(std::os::unix::net::UnixListener::bind(dir.path().join("admin.sock")).unwrap());
    let env = [
        ("STATE_DIRECTORY", state.as_str()),
        ("XDG_STATE_HOME", "/no/such"),
    ];
    let ended = cutover_in(&env, "status");
    // A server packaged on this machine would be found first; then there is nothing to see here.
    if !std::path::Path::new("/run/cutover/admin.sock").exists() {
        assert_eq!(ended.exit, Exit::Unreachable, "{ended:?}");
        let lines: Vec<_> = ended.err.lines().collect();
        assert_eq!(
            lines[1],
            "  unix:/run/cutover/admin.sock (packaged): no such file"
        );
        assert_eq!(
            lines[2],
            format!("  unix:{state}/admin.sock ($STATE_DIRECTORY): nobody listens there")
        );
        assert_eq!(
            lines[3],
            "  unix:/no/such/cutover/admin.sock ($XDG_STATE_HOME): no such file"
        );
        assert!(lines[4].contains(".cutover/admin.sock (this directory)"));
    }
    let ended = cutover_in(&env, "health --admin unix:/no/such");
    assert_eq!(ended.exit, Exit::Unreachable);
    assert!(ended.err.contains("unix:/no/such (--admin): no such file") && ended.err.lines().count() == 3);
}

#[test]
fn exit_8_not_permitted() {
    let server = Server::start(&["web"], true);
    let address = format!("http://{}", server.tcp);
    let env = [("CUTOVER_ADMIN", address.as_str())];
    assert_eq!(cutover_in(&env, "status -q").out, "blue\n");
    let ended = cutover_in(&env, "rollback");
    assert_eq!(ended.exit, Exit::NotPermitted);
    assert!(ended.err.contains("--token-file"), "{ended:?}");
    let file = |name: &str| {
        server
            .dir
            .path()
            .join(format!("{name}.token"))
            .display()
            .to_string()
    };
    let ended = cutover_in(&env, &format!("reload --token-file {}", file(SECRETS[1].0)));
    assert_eq!(ended.exit, Exit::NotPermitted);
    let boss = file(SECRETS[2].0);
    let ended = cutover_in(&[env[0], ("CUTOVER_TOKEN_FILE", &boss)], "reload -q");
    assert_eq!((ended.exit, ended.out.as_str()), (Exit::Done, "changed\n"));
    assert!(!ended.err.contains(SECRETS[2].2));
}

#[test]
fn exit_9_rolled_back_and_10_nothing_warm() {
    let server = web();
    server.fake.refuse(Refusal::RolledBack {
        to: Color::Green,
        back: Color::Blue,
        why: "502 from the proxy".to_owned(),
        generation: 44,
    });
    let ended = cutover(&server, "switch green");
    assert_eq!(ended.exit, Exit::RolledBack);
    assert!(
        ended
            .err
            .contains("serving: blue (generation 44), back as before"),
        "{ended:?}"
    );
    server.fake.refuse(Refusal::NothingWarm(
        "blue was redeployed 14:02 and never active".to_owned(),
    ));
    let ended = cutover(&server, "rollback");
    assert_eq!(ended.exit, Exit::NothingWarm);
    assert!(ended.err.contains("--ignore-health --reason TEXT"), "{ended:?}");
}

#[test]
fn numbers_are_the_interface() {
    let numbers: Vec<_> = Exit::ALL.iter().map(|exit| exit.number()).collect();
    assert_eq!(numbers, (0..=11).chain([130]).collect::<Vec<_>>());
}

#[test]
fn every_verb_asks_for_what_it_says() {
    let server = web();
    for (line, intent) in [
        (
            "switch standby --force --reason x",
            Intent::Switch {
                to: Wanted::Standby,
                force: true,
                release: false,
            },
        ),
        (
            "rollback --ignore-health --reason x",
            Intent::Rollback { ignore_health: true },
        ),
        (
            "rollback --to g41",
            Intent::RollbackTo {
                past: Before::Generation(41),
                ignore_health: false,
            },
        ),
        (
            "rollback --to v1.2",
            Intent::RollbackTo {
                past: Before::Revision("v1.2".to_owned()),
                ignore_health: false,
            },
        ),
        (
            "weight green=10 blue=90",
            Intent::Weight {
                color: Color::Green,
                percent: 10,
                force: false,
            },
        ),
        (
            "drain blue",
            Intent::Drain {
                color: Color::Blue,
                force: false,
            },
        ),
        (
            "hold --max 1500ms",
            Intent::Hold {
                max: Duration::from_millis(1500),
                idle: false,
            },
        ),
        ("release", Intent::Release),
        ("maintenance on", Intent::Maintenance(Some(None))),
        (
            "maintenance on --message back_soon",
            Intent::Maintenance(Some(Some("back soon".to_owned()))),
        ),
        ("maintenance off", Intent::Maintenance(None)),
        (
            "endpoints set green 127.0.0.1:1 127.0.0.1:2 --revision r7",
            Intent::SetEndpoints {
                color: Color::Green,
                endpoints: [(
                    "web".to_owned(),
                    vec!["127.0.0.1:1".to_owned(), "127.0.0.1:2".to_owned()],
                )]
                .into(),
                revision: Some("r7".to_owned()),
            },
        ),
        (
            "endpoints set green api=a:1 b:2 --service web",
            Intent::SetEndpoints {
                color: Color::Green,
                endpoints: [
                    ("api".to_owned(), vec!["a:1".to_owned()]),
                    ("web".to_owned(), vec!["b:2".to_owned()]),
                ]
                .into(),
                revision: None,
            },
        ),
    ] {
        let ended = cutover(&server, line);
        assert_eq!(ended.exit, Exit::Done, "{line}: {ended:?}");
        assert_eq!(server.fake.state().asks.pop().unwrap().intent, intent, "{line}");
    }
    assert_eq!(cutover(&server, "endpoints set green").exit, Exit::Usage);
    let ended = cutover(&server, "wait-drained blue --timeout 3s");
    assert_eq!(
        ended.out,
        "web: blue has drained after 12 ms; it can be stopped\n"
    );
    let ended = cutover(&server, "health --ready");
    assert_eq!((ended.exit, ended.out.as_str()), (Exit::Done, "ok\n"));
    server.fake.state().overview.ready = false;
    let ended = cutover(&server, "health --ready");
    assert_eq!(ended.exit, Exit::Failed);
    assert!(ended.err.contains("not ready"), "{ended:?}");
    assert_eq!(cutover(&server, "health").exit, Exit::Done);
    assert_eq!(cutover(&server, "config").out, "[admin]\n");
}

#[test]
fn status_is_a_table() {
    let server = web();
    assert_eq!(
        cutover(&server, "status").out,
        "web  active ■ blue  generation 42  since 2026-11-21T06:00:00.000Z  rollback: not possible, green was never active
  COLOR    ROLE     SHARE  IN-FLIGHT     REVISION  SERVICE  ENDPOINT        HEALTH
  ■ blue   active   100 %  3 (1 stream)  abc       web      127.0.0.1:8001  ✔ healthy, 200 in 4.2 ms
  ▲ green  standby  0 %    0             -         web      127.0.0.1:8001  ✖ failing, 503 in 4.2 ms: body: db\u{fffd}[31m down
"
    );
    assert_eq!(cutover(&server, "ls -q").out, "blue\n");
    let json: serde_json::Value = serde_json::from_str(&cutover(&server, "status --json").out).unwrap();
    assert_eq!(json["schema"], "cutover.status/v1");
    {
        let mut state = server.fake.state();
        let overview = &mut state.overview;
        overview.config.path = Some("cutover.toml".to_owned());
        overview.config.last_error = Some("cutover.toml:3:1: unknown key".to_owned());
        overview.warnings = vec!["first start without state".to_owned()];
        let app = &mut overview.apps[0];
        app.weight = 10;
        app.spilled = 7;
        app.maintenance = Some("back soon".to_owned());
        app.operation = Some("switch by ci".to_owned());
        app.file_wants = Some(Color::Green);
        app.degraded = Some("line 3".to_owned());
        app.rollback = Ok(Color::Green);
        app.colors.green.services.clear();
    }
    assert_eq!(
        cutover(&server, "status").out,
        "CONFIG REFUSED: cutover.toml is not in use; an older configuration runs
  cutover.toml:3:1: unknown key
warning: first start without state

web  active ■ blue  generation 42  since 2026-11-21T06:00:00.000Z  rollback: ready, to green
  candidate green takes 10 %
  7 requests for the candidate went to the active color: it had nothing healthy
  MAINTENANCE: back soon
  running: switch by ci
  the file says active = green, reality differs: `cutover switch green` makes it so, or change the file
  DEGRADED, the stored state was damaged: line 3
  COLOR    ROLE     SHARE  IN-FLIGHT     REVISION  SERVICE  ENDPOINT        HEALTH
  ■ blue   active   100 %  3 (1 stream)  abc       web      127.0.0.1:8001  ✔ healthy, 200 in 4.2 ms
  ▲ green  standby  0 %    0             -         -        no endpoint
"
    );
}

#[test]
fn history_events_and_explanations_are_lines() {
    let server = web();
    let ended = cutover(&server, "history -n 1");
    assert_eq!(
        ended.out,
        "2026-11-21T06:00:00.000Z  web  g43  switch blue → green  by root (uid 0) [cli]  \"release 7\"  \
         0 of 100 requests failed, 1 cut by the drain, verified\n"
    );
    let ended = cutover(&server, "events");
    assert_eq!(ended.out.lines().count(), 3, "{ended:?}");
    assert_eq!(
        ended.out.lines().next().unwrap(),
        "2026-11-21T06:00:00.000Z  changed        web  change 1"
    );
    let ended = cutover(&server, "events --json");
    for line in ended.out.lines() {
        let event: dto::Event = serde_json::from_str(line).unwrap();
        assert_eq!(event.schema, "cutover.event/v1");
    }
    let ended = cutover(&server, "explain GET http://shop/ -H X-A:_1");
    assert_eq!(
        ended.out,
        "1. any host → app web\n2. blue is active → blue\n→ web web (/) blue 127.0.0.1:8001\n"
    );
    let request = server.fake.state().explained.pop().unwrap();
    assert_eq!(request.headers, [("X-A".to_owned(), "1".to_owned())]);
    assert_eq!(
        cutover(&server, "reload").out,
        "reloaded:\n  app.web.drain.http: 30s → 10s\n"
    );
}

/// A reader that has enough after some lines, as `head` does.
struct Enough(usize, Page);

impl Write for Enough {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0 == 0 {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        self.0 -= bytes.iter().filter(|byte| **byte == b'\n').count().min(self.0);
        self.1.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn followed_events_end_when_nobody_reads_them() {
    let server = web();
    let admin = format!("unix:{}", server.socket().display());
    let env = |name: &str| (name == "CUTOVER_ADMIN").then(|| admin.clone());
    let page = Page::default();
    let mut output = Output::into(Box::new(Enough(2, page.clone())), Box::new(io::sink()));
    let args = ["cutover", "events", "--follow"].map(OsString::from);
    // Three are remembered; the third write finds the pipe closed, and that is no failure.
    assert_eq!(run(args, &env, &mut output), Exit::Done);
    assert_eq!(page.text().lines().count(), 2);
}

#[test]
fn a_full_disk_under_stdout_is_a_failure() {
    struct Full;
    impl Write for Full {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::StorageFull.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut output = Output::into(Box::new(Full), Box::new(io::sink()));
    let args = ["cutover", "schema"].map(OsString::from);
    assert_eq!(run(args, &|_| None, &mut output), Exit::Failed);
}

#[test]
fn files_need_no_server() {
    let dir = tempfile::TempDir::new().unwrap();
    let file = dir.path().join("good.toml");
    let text = "[[listener]]\naddress = \"127.0.0.1:8080\"\n[app.web]\nblue = [\"127.0.0.1:8001\"]\n\
                green = [\"127.0.0.1:8002\"]\n";
    std::fs::write(&file, text).unwrap();
    let ended = cutover_in(&[], &format!("check -c {}", file.display()));
    assert_eq!(ended.exit, Exit::Done, "{ended:?}");
    assert_eq!(
        ended.out,
        format!("{}: ok (1 app, 2 endpoints)\n", file.display())
    );
    let schema: serde_json::Value = serde_json::from_str(&cutover_in(&[], "schema").out).unwrap();
    assert!(schema.get("$schema").is_some());
    assert!(cutover_in(&[], "completion bash").out.contains("_cutover"));
    let man = cutover_in(&[], "man").out;
    assert!(man.contains(".TH") && man.contains("rolled back"));
    let ended = cutover_in(&[], "--version");
    assert_eq!((ended.exit, ended.err.as_str()), (Exit::Done, ""));
    assert!(cutover_in(&[], "switch --help").out.contains("standby"));
}

#[test]
fn the_socket_of_the_config_file_is_found() {
    let server = web();
    let file = server.dir.path().join("cutover.toml");
    let text = format!(
        "[admin]\nsocket = \"{}\"\n[[listener]]\naddress = \"127.0.0.1:8080\"\n[app.web]\nblue = [\"127.0.0.1:8001\"]\n",
        server.socket().display()
    );
    std::fs::write(&file, text).unwrap();
    let ended = cutover_in(&[], &format!("status -q -c {}", file.display()));
    assert_eq!(
        (ended.exit, ended.out.as_str()),
        (Exit::Done, "blue\n"),
        "{ended:?}"
    );
}

#[test]
fn text_from_elsewhere_cannot_act_on_a_terminal() {
    assert_eq!(
        clean("a\u{1b}[2Jb\u{9b}\r\tc\u{202e}d\ne"),
        "a\u{fffd}[2Jb\u{fffd}\u{fffd} c\u{fffd}d\ne"
    );
    assert_eq!(Paint::Plain.bad("x"), "x");
    assert_eq!(Paint::Ansi.bad("x"), "\u{1b}[31mx\u{1b}[0m");
}

#[test]
fn a_line_an_app_for_pipes() {
    let server = web();
    let json = cutover(&server, "status --json").out;
    let status: dto::Status = serde_json::from_str(&json).unwrap();
    assert_eq!(
        tables::summary(&status),
        "web  active blue  generation 42  blue healthy  green not healthy"
    );
}

#[test]
fn wait_says_how_it_ended() {
    use crate::rollout::BakePhase;
    let server = web();
    assert_eq!(cutover(&server, "wait").exit, Exit::Done, "nothing is under way");
    for (phase, exit, said) in [
        (
            BakePhase::Watching,
            Exit::StillRunning,
            "guard watches green, 12 of 300 s",
        ),
        (
            BakePhase::Blocked,
            Exit::StillRunning,
            "GUARD CANNOT GO BACK to blue",
        ),
        (
            BakePhase::RolledBack,
            Exit::RolledBack,
            "guard took green back to blue: it failed",
        ),
        (BakePhase::Insufficient, Exit::Done, "nobody can say"),
        (BakePhase::Passed, Exit::Done, "bake of green passed"),
        (BakePhase::Ended, Exit::Done, "traffic was moved by hand"),
    ] {
        server.fake.state().overview.apps[0].bake = Some(crate::control::BakeView {
            phase,
            of: 43,
            from: Color::Blue,
            to: Color::Green,
            since: jiff::Timestamp::UNIX_EPOCH,
            length: Duration::from_secs(300),
            watched: Duration::from_secs(12),
            note: "it failed".to_owned(),
        });
        let ended = cutover(&server, "wait --timeout 1s");
        assert_eq!(ended.exit, exit, "{phase:?} {ended:?}");
        assert!(ended.err.contains(said), "{phase:?} {ended:?}");
    }
}
