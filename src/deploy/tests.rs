//! Texts and plans, without a server.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::fill::Values;
use super::*;
use crate::config::{self, CommandLine, Config};

fn values(revision: Option<&str>) -> Values {
    Values {
        app: "shop".to_owned(),
        color: Color::Green,
        other: Color::Blue,
        revision: revision.map(str::to_owned),
        args: vec!["one".to_owned(), "two words".to_owned()],
        captured: BTreeMap::from([("code".to_owned(), "{color}".to_owned())]),
        secrets: BTreeSet::new(),
    }
}

fn env(name: &str) -> Option<String> {
    (name == "TOKEN").then(|| "hush-hush".to_owned())
}

#[test]
fn texts_are_filled_in_once() {
    let mut values = values(Some("v2"));
    for (text, wanted) in [
        ("app-{color} {other} {revision} {app}", "app-green blue v2 shop"),
        (
            "{\"a\":{\"b\":1},\"c\":\"{code}\"}",
            "{\"a\":{\"b\":1},\"c\":\"{color}\"}",
        ),
        ("Bearer ${TOKEN}!", "Bearer hush-hush!"),
        (
            "$${TOKEN} $5 {} {unknown} { color }",
            "${TOKEN} $5 {} {unknown} { color }",
        ),
        ("{args}", "one two words"),
        ("ünï {color} €", "ünï green €"),
    ] {
        assert_eq!(values.fill(text, &env).unwrap(), wanted, "{text}");
    }
    assert_eq!(values.masked("a hush-hush b"), "a *** b");
    assert!(
        values
            .fill("${UNSET_HERE}", &env)
            .unwrap_err()
            .contains("`UNSET_HERE` is not set")
    );
    values.revision = None;
    assert!(
        values
            .fill("{revision}", &env)
            .unwrap_err()
            .contains("--revision R")
    );
}

/// What a revision from a CI input may hold.
const NASTY: &str = "$(touch pwned) `x` \"; rm -rf / # '";

#[test]
fn no_value_becomes_a_part_of_a_script() {
    let mut values = values(Some(NASTY));
    let words = CommandLine::Words(["tag", "app:{revision}", "{args}"].map(str::to_owned).into());
    let filled = values.command(&words, &env).unwrap();
    assert_eq!(filled, ["tag", &format!("app:{NASTY}"), "one", "two words"]);
    let script = CommandLine::Shell("printf '%s|' {revision} \"x{revision}y\" {args} {color}".to_owned());
    let filled = values.command(&script, &env).unwrap();
    assert!(!filled[2].contains("touch"), "{filled:?}");
    let quoted = CommandLine::Shell("sh -c 'echo {revision}'".to_owned());
    assert!(
        values
            .command(&quoted, &env)
            .unwrap_err()
            .contains("single quotes")
    );
    // A real shell agrees.
    let ran = std::process::Command::new(&filled[0])
        .args(&filled[1..])
        .env("CUTOVER_REVISION", NASTY)
        .output()
        .unwrap();
    let said = String::from_utf8(ran.stdout).unwrap();
    assert_eq!(said, format!("{NASTY}|x{NASTY}y|one|two words|green|"));
}

proptest! {
    #[test]
    fn filling_never_panics_and_keeps_what_is_not_ours(text in "[a-z{}$ ü\"\\\\]{0,40}") {
        let mut values = values(Some("v"));
        if let Ok(filled) = values.fill(&text, &env)
            && !text.contains(['{', '$'])
        {
            prop_assert_eq!(filled, text);
        }
    }

    #[test]
    fn a_value_arrives_whole(value in "\\PC{0,30}") {
        let mut values = values(Some(&value));
        prop_assert_eq!(values.fill("<{revision}>", &env).unwrap(), format!("<{value}>"));
    }
}

fn config(deploy: &str) -> Config {
    let text = format!(
        "[[listener]]\naddress = \"127.0.0.1:0\"\n[app.web]\nblue = [\"a:1\"]\ngreen = [\"b:1\"]\n\
         [app.web.deploy]\n{deploy}"
    );
    config::parse(&text, "test.toml", &|_| None).unwrap_or_else(|wrong| panic!("{wrong}"))
}

fn planned(deploy: &str, options: &Options) -> Vec<String> {
    let config = config(deploy);
    let deploy = &config.apps["web"].deploy;
    let plan = plan(deploy, options, Color::Green).unwrap();
    let line = |planned: &Planned<'_>| match &planned.skip {
        Some(why) => format!("{}: {why}", planned.step.name),
        None => planned.step.name.clone(),
    };
    plan.iter().map(line).collect()
}

#[test]
fn a_plan_says_what_runs_and_why_the_rest_does_not() {
    let deploy = "start.run = \"up\"\nbackup = { run = \"b\", when = \"blue\" }\nstop_old.run = \"down\"\n";
    let all = planned(deploy, &Options::default());
    assert_eq!(
        all,
        [
            "backup: for blue only",
            "migrate: it has no command",
            "start",
            "healthy",
            "smoke: there are no probes",
            "approve",
            "switch",
            "bake",
        ],
        "stop_old only runs where it is listed"
    );
    let some = Options {
        from: Some("healthy".to_owned()),
        no_switch: true,
        ..Options::default()
    };
    assert_eq!(planned(deploy, &some)[2..4], ["start: before --from", "healthy"]);
    assert_eq!(
        planned(deploy, &some)[5..7],
        ["approve: --no-switch", "switch: --no-switch"]
    );
    // Without a switch there is nothing to ask.
    let config = config(deploy);
    let of = |options: &Options| {
        let plan = plan(&config.apps["web"].deploy, options, Color::Green).unwrap();
        needs_answers(&plan, options)
    };
    assert!(of(&Options::default()));
    assert!(!of(&some));
    for yes in [true, false] {
        let answered = Options {
            yes,
            auto_switch: !yes,
            ..Options::default()
        };
        assert!(!of(&answered));
    }
}

#[test]
fn seconds_are_short() {
    assert_eq!(seconds(Duration::from_millis(12_449)), "12.4 s");
}

#[test]
fn a_probe_asks_by_the_name_that_the_proxy_would_send() {
    for (lines, host) in [
        ("", "a:1"),
        ("hosts = [\"*.a.test\", \"b.test\"]", "b.test"),
        ("hosts = [\"*.a.test\"]", "a:1"),
        ("hosts = [\"b.test\"]\nheaders.host = \"upstream\"", "a:1"),
        ("hosts = [\"b.test\"]\nheaders.host = \"c.test\"", "c.test"),
    ] {
        let text = format!("[[listener]]\naddress = \"127.0.0.1:0\"\n[app.web]\nblue = [\"a:1\"]\n{lines}\n");
        let config = config::parse(&text, "test.toml", &|_| None).unwrap_or_else(|wrong| panic!("{wrong}"));
        let app = &config.apps["web"];
        let service = &app.services["web"];
        let door = door::Door::endpoint(app, service, &service.endpoints.blue[0], None).unwrap();
        assert_eq!(door.host, host, "{lines}");
    }
}

#[test]
fn a_note_that_differs_in_its_figures_says_the_same() {
    let words = steps::words;
    assert_eq!(
        words("candidate has 3 of 50 requests, 0.5 s"),
        words("candidate has 12 of 50 requests, 10.25 s")
    );
    assert_ne!(
        words("candidate has 3 of 50 requests"),
        words("baseline has 3 of 50 requests")
    );
}
