//! Gates, guard, rollouts and notifications: what their tables mean, and what is wrong with them.

use std::time::Duration;

use super::mistakes::found_as_told;
use super::{BASE, good};
use crate::config::{
    GateKind, NotifyBy, NotifyOn, OnTimeout, Requirement, RevisionBy, StepGate, WithoutData, diff,
};
use crate::rollout::Pause;

#[test]
fn mistakes_are_found_with_their_places() {
    #[rustfmt::skip]
    found_as_told(&[
        ("bad_condition", "[app.web.guard]\nrollback_when = ['candidate§.eror_rate > 0.1']", "no field `eror_rate`", "did you mean `error_rate`?"),
        ("bad_condition", "[app.web.guard]\nwarn_when = ['§candidat.p95 > 0.1']", "no `candidat`", "did you mean `candidate`?"),
        ("bad_condition", "[app.web.guard]\nrollback_when = ['§candidate.p95']", "of type double", "compare"),
        ("bad_condition", "[app.web.gate.a]\nexpr = 'candidate.p95 >§ '", "not CEL", ""),
        ("bad_value", "[app.web.guard]\non_insufficient_data = §\"keep\"", "cannot be `keep`", "one of"),
        ("out_of_range", "[app.web.guard]\nevaluations = §0", "1 to 1000", ""),
        ("out_of_range", "[app.web.guard]\nevery = §\"1ms\"", "100 ms or more", ""),
        ("unknown_key", "[app.web.guard]\n§bakes = \"5m\"", "in `[app.web.guard]`", "did you mean `bake`?"),
        ("missing_key", "[app.web.switch]\nrequire = [§\"smoke\"]", "`smoke` needs requests to send", "[[app.NAME.deploy.smoke]]"),
        ("unknown_gate", "[app.web.switch]\nrequire = [§\"helthy\"]", "no gate `helthy`", "did you mean `healthy`?"),
        ("missing_key", "[app.web.switch]\nrequire = [§\"identity\"]", "needs `revision_header` or `revision_json`", ""),
        ("conflicting_keys", "[app.web.gate.§a]\ntimeout = \"1s\"", "one of `expr`", ""),
        ("conflicting_keys", "[app.web.gate.§a]\napprove = true\nrun = \"true\"", "one of `expr`", ""),
        ("duplicate_name", "[app.web.gate.§healthy]\napprove = true", "always there", ""),
        ("bad_value", "[app.web.gate.a]\nwebhook = §\"ftp://x/\"", "`webhook` cannot be used: write a URL as `http://", ""),
        ("conflicting_keys", "[app.web.gate.a]\nwebhook = \"http://x/\"\nca = §\"a.pem\"", "no webhook with `https://`", ""),
        ("bad_value", "[app.web.gate.a]\napprove = true\non_timeout = §\"promote\"", "cannot be `promote`", ""),
        ("bad_steps", "[app.web.rollout]\nsteps = [{ weight = 50 }, { weight = §10 }]", "rise", ""),
        ("out_of_range", "[app.web.rollout]\nsteps = [{ weight = §0 }]", "1 to 100", ""),
        ("bad_value", "[app.web.rollout]\nsteps = [{ weight = 1, pause = §\"soon\" }]", "`pause` cannot be used", ""),
        ("unknown_gate", "[app.web.rollout]\ngate = [§\"smoke\"]", "no gate `smoke`", ""),
        ("unknown_app", "[[notify]]\nwebhook = \"http://127.0.0.1:1/\"\napp = §\"wep\"", "no app `wep`", "did you mean `web`?"),
    ]);
}

#[test]
fn what_is_left_out_is_as_the_reference_says() {
    let policy = good(BASE).apps["web"].policy.clone();
    let guard = &policy.guard;
    assert_eq!(
        (guard.bake, guard.every, guard.grace),
        (
            Duration::from_secs(300),
            Duration::from_secs(5),
            Duration::from_secs(30)
        )
    );
    assert_eq!(
        (guard.min_requests, guard.evaluations, guard.connect_failures),
        (50, 3, 5)
    );
    assert_eq!(
        (guard.rollback_when.len(), guard.warn_when.len()),
        (2, 0),
        "the defaults compile"
    );
    assert_eq!(guard.on_insufficient_data, WithoutData::Stay);
    let steps: Vec<_> = policy.rollout.steps.iter().map(|step| step.weight).collect();
    assert_eq!((steps, policy.rollout.gate.len()), (vec![10, 50, 100], 2));
    assert_eq!(good(BASE).apps["web"].switch.require, [Requirement::Healthy]);
}

#[test]
fn what_is_written_is_meant() {
    let config = good(&format!(
        "{BASE}revision_header = \"X-Rev\"\n[app.web.switch]\nrequire = [\"healthy\", \"identity\", \"smoke\"]\n\
         [app.web.guard]\nbake = \"0\"\non_insufficient_data = \"hold\"\n\
         [app.web.gate.smoke]\nrun = [\"/bin/true\"]\non_timeout = \"rollback\"\n\
         [app.web.gate.hook]\nwebhook = \"http://h/x?key=secret\"\n\
         [app.web.gate.safe]\nwebhook = \"https://h/x\"\n\
         [app.web.rollout]\nsteps = [{{ weight = 10, pause = \"approval\" }}, {{ weight = 100 }}]\n\
         gate = [\"smoke\", \"candidate.requests > 5\"]\n\
         [[notify]]\nrun = \"cat\"\non = [\"guard\"]\n"
    ));
    let app = &config.apps["web"];
    assert_eq!(app.switch.require[2], Requirement::Gate("smoke".to_owned()));
    assert_eq!(app.policy.guard.on_insufficient_data, WithoutData::Stay);
    assert_eq!(
        app.policy.revision_by,
        Some(RevisionBy::Header("x-rev".to_owned()))
    );
    let smoke = &app.policy.gates["smoke"];
    assert_eq!(
        (&smoke.kind, smoke.on_timeout),
        (&GateKind::Run(vec!["/bin/true".to_owned()]), OnTimeout::Rollback)
    );
    let GateKind::Webhook(url) = &app.policy.gates["hook"].kind else {
        panic!("a webhook")
    };
    assert_eq!(
        (url.authority.as_str(), url.target.as_str(), url.shown.as_str()),
        ("h:80", "/x?key=secret", "http://h/x")
    );
    let GateKind::Webhook(url) = &app.policy.gates["safe"].kind else {
        panic!("a webhook")
    };
    assert_eq!(
        (url.authority.as_str(), url.endpoint.to_string().as_str()),
        ("h:443", "https://h:443")
    );
    assert_eq!(app.policy.rollout.steps[0].pause, Pause::Approval);
    assert!(
        matches!(&app.policy.rollout.gate[..], [StepGate::Named(name), StepGate::Holds(_)] if name == "smoke")
    );
    assert_eq!(config.notify[0].on, [NotifyOn::Guard]);
    assert_eq!(
        config.notify[0].by,
        NotifyBy::Run(["sh", "-c", "cat"].map(str::to_owned).to_vec())
    );
    let lines = diff(&good(BASE), &config).join("\n");
    assert!(
        lines.contains("guard.bake") && lines.contains("gate.smoke") && !lines.contains("secret"),
        "{lines}"
    );
}
