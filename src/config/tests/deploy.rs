//! `[app.NAME.deploy]`.

use std::time::Duration;

use super::{BASE, bad, good};
use crate::config::{CommandLine, Deploy, StepKind, Work, diff};

fn deploy(text: &str) -> Deploy {
    let mut config = good(&format!("{BASE}[app.web.deploy]\n{text}"));
    config.apps.remove("web").unwrap().deploy
}

#[test]
fn without_a_table_there_are_the_steps_that_cutover_does_itself() {
    let deploy = good(BASE).apps.remove("web").unwrap().deploy;
    let names: Vec<_> = deploy.steps.iter().map(|step| step.name.as_str()).collect();
    assert_eq!(names, Deploy::DEFAULT_STEPS);
    assert_eq!(deploy.lease, Duration::from_secs(30));
    assert_eq!(
        deploy.step("healthy").unwrap().timeout,
        Some(Duration::from_secs(120))
    );
}

#[test]
fn steps_are_commands_or_webhooks() {
    let deploy = deploy(
        r#"
        steps = ["pull", "tell", "start", "smoke", "switch", "stop_old"]
        env = { A = "${HOME}", B = "b" }
        pull.run = ["docker compose pull 'app {color}'", ["sh", "-c", "echo ${X} $${Y}"]]
        tell = { webhook = "http://ci:80/hook", timeout = "5s" }
        start = { run = "echo ${UNSET:-x} | cat", shell = true, env = { B = "c" }, cwd = "sub", confirm = true, when = "blue" }
        smoke = { run = "./smoke.sh" }
        stop_old = { run = "down", confirm = "Stop {other}?" }
        "#,
    );
    let of = |name: &str| deploy.step(name).unwrap();
    let words = |words: &[&str]| CommandLine::Words(words.iter().map(|word| (*word).to_owned()).collect());
    assert_eq!(
        of("pull").work,
        Work::Run(vec![
            words(&["docker", "compose", "pull", "app {color}"]),
            words(&["sh", "-c", "echo ${X} $${Y}"]),
        ])
    );
    assert_eq!(of("tell").work, Work::Webhook("http://ci:80/hook".to_owned()));
    let start = of("start");
    assert_eq!(
        start.work,
        Work::Run(vec![CommandLine::Shell("echo ${UNSET:-x} | cat".to_owned())])
    );
    let env: Vec<_> = start
        .env
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    assert_eq!(
        env,
        ["A=${HOME}", "B=c"],
        "not expanded here, and the step's own wins"
    );
    assert_eq!(start.confirm.as_deref(), Some("Run start?"));
    assert_eq!(of("smoke").kind, StepKind::Smoke);
    assert_eq!(of("stop_old").confirm.as_deref(), Some("Stop {other}?"));
}

#[test]
fn probes_are_read_with_what_they_expect() {
    let deploy = deploy(
        "[[app.web.deploy.smoke]]\nrequest = \"POST /v1/x?a={code}\"\nheaders = { \"X-A\" = \"${T}\" }\n\
         body = '{\"a\":1}'\nexpect = { status = \"201,204\", json = { \"/ok\" = true }, within = \"2s\" }\n\
         capture = { code = \"/code\" }\n[[app.web.deploy.smoke]]\nrequest = \"GET /\"\n",
    );
    let [first, second] = &deploy.smoke[..] else {
        panic!("{deploy:?}")
    };
    assert_eq!(
        (first.method.as_str(), first.path.as_str()),
        ("POST", "/v1/x?a={code}")
    );
    assert_eq!(first.headers, [("x-a".to_owned(), "${T}".to_owned())]);
    assert_eq!(first.status, [(201, 201), (204, 204)]);
    assert_eq!(first.within, Duration::from_secs(2));
    assert_eq!(
        (second.status.as_slice(), second.within),
        (&[(200, 299)][..], Duration::from_secs(10))
    );
}

#[test]
#[rustfmt::skip]
fn mistakes_name_the_place_and_the_way_out() {
    for (text, code, message, hint) in [
        ("steps = [\"aprove\"]", "unknown_step", "no step is called `aprove`", "did you mean `approve`?"),
        ("steps = [\"mine\"]", "unknown_step", "`mine`", "define it: `mine = { run"),
        ("steps = [\"switch\", \"switch\"]", "duplicate_name", "listed twice", ""),
        ("steps = [\"stop_old\", \"switch\"]", "step_order", "`stop_old` comes before `switch`", "put `switch` first"),
        ("healthy.run = \"x\"", "conflicting_keys", "`healthy` is done by cutover itself", "a step of your own"),
        ("start = { run = \"x\", webhook = \"http://a/\" }", "conflicting_keys", "`run` and `webhook`", "two steps"),
        ("start.settle = \"1s\"", "conflicting_keys", "`settle` belongs to", ""),
        ("start.run = \"echo 'a\"", "bad_value", "a quote is not closed", ""),
        ("start.run = \" \"", "bad_value", "the command is empty", ""),
        ("start.run = [\"sh\", \"-c\", \"x\"]", "bad_value", "`-c` is an argument, not a command", ""),
        ("start.run = \"echo ${A:-b}\"", "bad_value", "a shell's own forms need `shell = true`", ""),
        ("start.run = 5", "wrong_type", "must be a string or an array", ""),
        ("start.confirm = 5", "wrong_type", "must be a boolean or a string", ""),
        ("start.timeot = \"1s\"", "unknown_key", "unknown key `timeot`", "did you mean `timeout`?"),
        ("start.timeout = \"0\"", "out_of_range", "`timeout` must not be 0", ""),
        ("start.env = { \"1A\" = \"x\" }", "bad_value", "starts with no digit", ""),
        ("start.webhook = \"ftp://x\"", "bad_value", "write a URL as", ""),
        ("\"a b\" = { run = \"x\" }\nsteps = [\"a b\"]", "bad_value", "a step cannot be called `a b`", ""),
        ("smoke = 5", "wrong_type", "must be a table or an array of tables", ""),
        ("[[app.web.deploy.smoke]]\nbody = \"\"", "missing_key", "`[[app.web.deploy.smoke]]` needs `request`", ""),
        ("[[app.web.deploy.smoke]]\nrequest = \"/x\"", "bad_value", "write METHOD PATH", ""),
        ("[[app.web.deploy.smoke]]\nrequest = \"get /x\"", "bad_value", "in capitals", ""),
        ("[[app.web.deploy.smoke]]\nrequest = \"GET x\"", "bad_value", "a path starts with `/`", ""),
        ("[[app.web.deploy.smoke]]\nrequest = \"GET /\"\nexpect.body_regex = \"(\"", "bad_value", "`body_regex`", ""),
        ("[[app.web.deploy.smoke]]\nrequest = \"GET /\"\ncapture.color = \"/c\"", "bad_value", "a meaning of its own", ""),
        ("[[app.web.deploy.smoke]]\nrequest = \"GET /\"\ncapture.c = \"c\"", "bad_value", "a JSON pointer starts with", ""),
        ("lease = \"10ms\"", "out_of_range", "`lease` must be 1000 ms or more", ""),
    ] {
        let wrong = bad(&format!("{BASE}[app.web.deploy]\n{text}"));
        let fits = wrong.items.iter().any(|item| {
            item.code == code && item.message.contains(message)
                && (hint.is_empty() || item.hint.as_deref().is_some_and(|is| is.contains(hint)))
                && item.line.is_some_and(|line| line >= 3)
        });
        assert!(fits, "{text}: {wrong:?}");
    }
}

#[test]
fn a_change_is_told_without_its_content() {
    let old = good(&format!("{BASE}[app.web.deploy]\nstart.run = \"up\""));
    let new = good(&format!("{BASE}[app.web.deploy]\nstart.run = \"up --secret\""));
    assert_eq!(
        diff(&old, &new),
        ["app.web.deploy: changed (for `cutover deploy`)"]
    );
}
