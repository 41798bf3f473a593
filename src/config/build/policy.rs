//! Gates, guard, rollouts and notifications.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use super::Build;
use crate::config::diagnostics::{did_you_mean, quoted};
use crate::config::load::PemFile;
use crate::config::policy::{
    Gate, GateKind, Guard, Notify, NotifyBy, NotifyOn, OnTimeout, Policy, Requirement, RevisionBy,
    RolloutPlan, StepGate, Url, WINDOW_WORDS, WithoutData,
};
use crate::config::raw::policy as raw;
use crate::config::raw::{self as file, At};
use crate::config::values;
use crate::expr::Condition;
use crate::rollout::{Pause, RolloutStep, check_steps};

/// The guard's conditions when the file has none: errors that are many and more than before, latencies that have
/// doubled and are felt.
const ROLLBACK_WHEN: [&str; 2] = [
    "candidate.error_rate > 0.05 && candidate.error_rate > 2.0 * baseline.error_rate",
    "candidate.p95 > 2.0 * baseline.p95 && candidate.p95 > 0.25",
];

/// The gates of a rollout's steps when the file has none.
const STEP_GATES: [&str; 2] = [
    "candidate.error_rate < 0.01",
    "candidate.p95 < 1.5 * baseline.p95 || candidate.p95 < 0.25",
];

/// Names of gates that need no table.
const BUILT_IN: [&str; 2] = ["healthy", "identity"];

const SECOND: Duration = Duration::from_secs(1);

impl Build<'_, '_, '_> {
    pub(super) fn policy(&mut self, raw: &file::App) -> Policy {
        let guard = self.guard(&raw.guard);
        let mut gates = BTreeMap::new();
        for (name, raw) in &raw.gate {
            if let Some(gate) = self.gate(name, raw, guard.min_requests) {
                gates.insert(gate.name.clone(), gate);
            }
        }
        let known: Vec<&str> = raw.gate.keys().map(|name| name.get().as_str()).collect();
        let rollout = self.rollout(raw.rollout.as_ref(), &known);
        Policy {
            gates,
            guard,
            rollout,
            standby_ttl: self.duration("standby_ttl", raw.standby_ttl.as_ref(), Duration::from_millis(1)),
            // What is wrong with it was said where the probes were built.
            revision_by: revision_by(raw).ok().flatten(),
        }
    }

    /// Where the app says which revision it is; reports what cannot be.
    pub(super) fn revision_by(&mut self, raw: &file::App) -> Option<RevisionBy> {
        match revision_by(raw) {
            Ok(by) => by,
            Err((place, code, message)) => {
                self.findings.error(&place, code, message, None);
                None
            }
        }
    }

    /// `[app.NAME.switch] require`
    pub(super) fn require(&mut self, raw: &file::App) -> Vec<Requirement> {
        let Some(list) = &raw.switch.require else {
            return vec![Requirement::Healthy];
        };
        let mut found = Vec::new();
        for at in list {
            let name = at.get().as_str();
            let one = match name {
                "healthy" => Requirement::Healthy,
                "identity" => {
                    if raw.revision_header.is_none() && raw.revision_json.is_none() {
                        let message = "`identity` needs `revision_header` or `revision_json`: nothing says which revision answers";
                        self.findings.error(&at.span(), "missing_key", message, None);
                    }
                    Requirement::Identity
                }
                name if raw.gate.keys().any(|known| known.get() == name) => {
                    Requirement::Gate(name.to_owned())
                }
                // A table of that name is a gate of its own.
                "smoke" => {
                    let probes = matches!(&raw.deploy.smoke, Some(file::deploy::Smoke::Probes(list)) if !list.is_empty());
                    if !probes {
                        let message = "`smoke` needs requests to send";
                        let hint = "add `[[app.NAME.deploy.smoke]]` with `request = \"GET /\"`: the server runs no command".to_owned();
                        self.findings.error(&at.span(), "missing_key", message, hint);
                    }
                    Requirement::Smoke
                }
                name => {
                    let known = raw.gate.keys().map(|known| known.get().as_str());
                    let known: Vec<&str> = BUILT_IN.into_iter().chain(["smoke"]).chain(known).collect();
                    self.unknown_gate(at, name, &known);
                    continue;
                }
            };
            if found.contains(&one) {
                let message = format!("{} is in the list twice", quoted(name));
                self.findings.error(&at.span(), "duplicate_name", message, None);
            } else {
                found.push(one);
            }
        }
        found
    }

    fn unknown_gate(&mut self, at: &At<String>, name: &str, known: &[&str]) {
        let message = format!("there is no gate {}", quoted(name));
        let hint = did_you_mean(name, known.iter().copied()).unwrap_or_else(|| {
            format!(
                "there are: {}; others need a table `[app.NAME.gate.…]`",
                known.join(", ")
            )
        });
        self.findings.error(&at.span(), "unknown_gate", message, hint);
    }

    fn guard(&mut self, raw: &raw::Guard) -> Guard {
        let own = raw.rollback_when.as_ref();
        let rollback_when = match own {
            Some(list) => self.conditions(list),
            None => ROLLBACK_WHEN
                .iter()
                .filter_map(|source| built_in(source))
                .collect(),
        };
        let number = |at: &Option<At<i64>>, default: u32| {
            at.as_ref()
                .and_then(|at| u32::try_from(*at.get()).ok())
                .unwrap_or(default)
        };
        let every = self
            .duration("every", raw.every.as_ref(), SECOND / 10)
            .unwrap_or(5 * SECOND);
        let without = raw.on_insufficient_data.as_ref();
        if let Some(at) = without
            && matches!(at.get(), raw::WithoutData::Hold)
        {
            self.older_word("on_insufficient_data", &at.span());
        }
        Guard {
            bake: self
                .duration("bake", raw.bake.as_ref(), Duration::ZERO)
                .unwrap_or(300 * SECOND),
            rollback_when,
            warn_when: raw
                .warn_when
                .as_ref()
                .map_or_else(Vec::new, |list| self.conditions(list)),
            min_requests: number(&raw.min_requests, 50).into(),
            evaluations: number(&raw.evaluations, 3),
            every,
            grace: self
                .duration("grace", raw.grace.as_ref(), Duration::ZERO)
                .unwrap_or(30 * SECOND),
            on_insufficient_data: match without.map(At::get) {
                None | Some(raw::WithoutData::Stay | raw::WithoutData::Hold) => WithoutData::Stay,
                Some(raw::WithoutData::Promote) => WithoutData::Promote,
                Some(raw::WithoutData::Rollback) => WithoutData::Rollback,
            },
            connect_failures: number(&raw.connect_failures, 5),
        }
    }

    fn older_word(&mut self, key: &str, place: &Range<usize>) {
        let message = format!("`{key} = \"hold\"` is understood as \"stay\"");
        let hint = "write \"stay\": a hold is of requests".to_owned();
        self.findings.warn(place, "older_word", message, hint);
    }

    fn conditions(&mut self, list: &[At<String>]) -> Vec<Condition> {
        list.iter().filter_map(|at| self.over_windows(at)).collect()
    }

    /// A condition over the windows.
    fn over_windows(&mut self, at: &At<String>) -> Option<Condition> {
        self.condition("expr", at, WINDOW_WORDS)
    }

    fn gate(&mut self, name: &At<String>, raw: &raw::Gate, min_requests: u64) -> Option<Gate> {
        self.text(name.get(), name, values::name)?;
        if BUILT_IN.contains(&name.get().as_str()) {
            let message = format!("{} is a gate that is always there", quoted(name.get()));
            let hint = "give yours another name".to_owned();
            self.findings.error(&name.span(), "duplicate_name", message, hint);
        }
        let kind = self.gate_kind(name, raw);
        let default = match kind {
            Some(GateKind::Approve) => 3600 * SECOND,
            _ => 60 * SECOND,
        };
        if let Some(at) = &raw.on_timeout
            && matches!(at.get(), raw::OnTimeout::Hold)
        {
            self.older_word("on_timeout", &at.span());
        }
        let timeout = self.duration("timeout", raw.timeout.as_ref(), Duration::from_millis(1));
        let own = raw
            .min_requests
            .as_ref()
            .and_then(|at| u64::try_from(*at.get()).ok());
        Some(Gate {
            name: name.get().clone(),
            kind: kind?,
            timeout: timeout.unwrap_or(default),
            on_timeout: match raw.on_timeout.as_ref().map(At::get) {
                Some(raw::OnTimeout::Rollback) => OnTimeout::Rollback,
                Some(raw::OnTimeout::Stay | raw::OnTimeout::Hold) | None => OnTimeout::Stay,
            },
            min_requests: own.unwrap_or(min_requests),
        })
    }

    fn gate_kind(&mut self, name: &At<String>, raw: &raw::Gate) -> Option<GateKind> {
        let approve = raw.approve.as_ref().filter(|at| *at.get());
        let given = [
            raw.expr.is_some(),
            raw.run.is_some(),
            raw.webhook.is_some(),
            approve.is_some(),
        ];
        if given.iter().filter(|given| **given).count() != 1 {
            let message = "a gate has one of `expr`, `run`, `webhook` and `approve = true`".to_owned();
            self.findings
                .error(&name.span(), "conflicting_keys", message, None);
            return None;
        }
        if let Some(list) = &raw.expr {
            let list = texts(list);
            let conditions: Vec<_> = list.iter().filter_map(|at| self.over_windows(at)).collect();
            return (conditions.len() == list.len()).then_some(GateKind::Expr(conditions));
        }
        if let Some(command) = &raw.run {
            return self.command(command).map(GateKind::Run);
        }
        if let Some(at) = &raw.webhook {
            return self.url(at, raw.ca.as_ref()).map(GateKind::Webhook);
        }
        Some(GateKind::Approve)
    }

    fn command(&mut self, raw: &At<raw::OneOrMore>) -> Option<Vec<String>> {
        let words: Vec<String> = match raw.get() {
            raw::OneOrMore::One(line) => vec!["sh".to_owned(), "-c".to_owned(), line.clone()],
            raw::OneOrMore::More(words) => words.clone(),
        };
        if words.first().is_none_or(|program| program.is_empty())
            || words.iter().any(|word| word.contains('\0'))
        {
            let message = "`run` names no program".to_owned();
            let hint =
                "write `run = [\"/usr/local/bin/check\", \"--fast\"]`, or a line for the shell".to_owned();
            self.findings.error(&raw.span(), "bad_value", message, hint);
            return None;
        }
        Some(words)
    }

    fn url(&mut self, at: &At<String>, ca: Option<&At<String>>) -> Option<Url> {
        let ca = ca.and_then(|at| self.text("ca", at, values::file_path));
        let url = self.text("webhook", at, url)?;
        Some(Url { ca, ..url })
    }

    pub(super) fn gates_ca(&mut self, raw: &file::App, pem: &mut Vec<(PemFile, Range<usize>)>) {
        for gate in raw.gate.values() {
            self.webhook_ca(gate.webhook.as_ref(), gate.ca.as_ref(), pem);
        }
    }

    /// `ca` says who signs a webhook's certificate.
    pub(super) fn webhook_ca(
        &mut self,
        webhook: Option<&At<String>>,
        ca: Option<&At<String>>,
        pem: &mut Vec<(PemFile, Range<usize>)>,
    ) {
        let Some(at) = ca else { return };
        if !webhook.is_some_and(|url| url.get().starts_with("https://")) {
            let message = "`ca` has no effect: there is no webhook with `https://`".to_owned();
            self.findings.error(&at.span(), "conflicting_keys", message, None);
        } else if let Ok(path) = values::file_path(at.get()) {
            pem.push((PemFile::Ca(path), at.span()));
        }
    }

    fn rollout(&mut self, raw: Option<&raw::Rollout>, known: &[&str]) -> RolloutPlan {
        let steps = match raw.and_then(|raw| raw.steps.as_ref()) {
            Some(steps) => self.steps(steps),
            None => default_steps(),
        };
        let gate = match raw.and_then(|raw| raw.gate.as_ref()) {
            Some(list) => list.iter().filter_map(|at| self.step_gate(at, known)).collect(),
            None => STEP_GATES
                .iter()
                .filter_map(|source| built_in(source))
                .map(StepGate::Holds)
                .collect(),
        };
        RolloutPlan { steps, gate }
    }

    fn step_gate(&mut self, at: &At<String>, known: &[&str]) -> Option<StepGate> {
        let text = at.get();
        if known.contains(&text.as_str()) {
            return Some(StepGate::Named(text.clone()));
        }
        // A single word is no condition: it is a name that nobody has.
        if values::name(text).is_ok() && !text.contains('.') {
            self.unknown_gate(at, text, known);
            return None;
        }
        self.over_windows(at).map(StepGate::Holds)
    }

    fn steps(&mut self, raw: &[raw::RolloutStep]) -> Vec<RolloutStep> {
        let mut steps = Vec::new();
        let mut place = 0..0;
        for step in raw {
            let Some(weight) = &step.weight else { continue };
            place = weight.span();
            let pause = match &step.pause {
                None => Pause::For(Duration::ZERO),
                Some(at) if at.get() == "approval" => Pause::Approval,
                Some(at) => match self.text("pause", at, values::parse_duration) {
                    Some(time) => Pause::For(time),
                    None => continue,
                },
            };
            steps.push(RolloutStep {
                weight: u8::try_from(*weight.get()).unwrap_or(0),
                pause,
            });
        }
        if let Err(why) = check_steps(&steps)
            && steps.len() == raw.len()
        {
            self.findings.error(&place, "bad_steps", why.to_string(), None);
        }
        steps
    }

    /// `[[notify]]`
    pub(super) fn notify(&mut self, raw: &[raw::Notify], apps: &[&str]) -> Vec<Notify> {
        let mut all = Vec::new();
        for raw in raw {
            let by = match (&raw.webhook, &raw.run) {
                (Some(at), None) => self.url(at, raw.ca.as_ref()).map(NotifyBy::Webhook),
                (None, Some(command)) => self.command(command).map(NotifyBy::Run),
                _ => {
                    let place = raw.webhook.as_ref().map_or(0..0, At::span);
                    let message = "`[[notify]]` has one of `webhook` and `run`".to_owned();
                    self.findings.error(&place, "conflicting_keys", message, None);
                    None
                }
            };
            if let Some(at) = &raw.app
                && !apps.contains(&at.get().as_str())
            {
                let message = format!("there is no app {}", quoted(at.get()));
                let hint = did_you_mean(at.get(), apps.iter().copied());
                self.findings.error(&at.span(), "unknown_app", message, hint);
            }
            let on = raw.on.as_ref().map(|list| {
                let on = list.iter().map(|on| match on {
                    raw::NotifyOn::Switch => NotifyOn::Switch,
                    raw::NotifyOn::Rollback => NotifyOn::Rollback,
                    raw::NotifyOn::Guard => NotifyOn::Guard,
                    raw::NotifyOn::Rollout => NotifyOn::Rollout,
                    raw::NotifyOn::Standby => NotifyOn::Standby,
                });
                on.collect()
            });
            let timeout = self.duration("timeout", raw.timeout.as_ref(), Duration::from_millis(1));
            all.extend(by.map(|by| Notify {
                on: on.unwrap_or_else(|| {
                    vec![
                        NotifyOn::Switch,
                        NotifyOn::Rollback,
                        NotifyOn::Guard,
                        NotifyOn::Rollout,
                        NotifyOn::Standby,
                    ]
                }),
                app: raw.app.as_ref().map(|at| at.get().clone()),
                by,
                timeout: timeout.unwrap_or(5 * SECOND),
            }));
        }
        all
    }
}

type Wrong = (Range<usize>, &'static str, String);

fn revision_by(raw: &file::App) -> Result<Option<RevisionBy>, Wrong> {
    let bad = |at: &At<String>, key: &str, why: String| (at.span(), "bad_value", format!("`{key}`: {why}"));
    match (&raw.revision_header, &raw.revision_json) {
        (None, None) => Ok(None),
        (Some(at), None) => values::header_name(at.get())
            .map(|name| Some(RevisionBy::Header(name)))
            .map_err(|why| bad(at, "revision_header", why)),
        (None, Some(at)) => values::pointer(at.get())
            .map(|pointer| Some(RevisionBy::Json(pointer)))
            .map_err(|why| bad(at, "revision_json", why)),
        (Some(_), Some(at)) => {
            let message = "`revision_header` and `revision_json` are two places for one thing: keep one";
            Err((at.span(), "conflicting_keys", message.to_owned()))
        }
    }
}

fn default_steps() -> Vec<RolloutStep> {
    let step = |weight, seconds| RolloutStep {
        weight,
        pause: Pause::For(seconds * SECOND),
    };
    vec![step(10, 300), step(50, 300), step(100, 0)]
}

/// Ours, and shown by a test to compile.
fn built_in(source: &str) -> Option<Condition> {
    Condition::compile(source, WINDOW_WORDS).ok()
}

/// Each text with the place to point at: its own, or the list's.
fn texts(at: &At<raw::OneOrMore>) -> Vec<At<String>> {
    let texts = match at.get() {
        raw::OneOrMore::One(text) => std::slice::from_ref(text),
        raw::OneOrMore::More(texts) => texts,
    };
    texts
        .iter()
        .map(|text| At::new(at.span(), text.clone()))
        .collect()
}

/// `http://HOST[:PORT]/PATH`, or `https://…`
fn url(text: &str) -> Result<Url, String> {
    const SYNTAX: &str = "write a URL as `http://127.0.0.1:9000/hook`";
    let uri: http::Uri = text.parse().map_err(|_| SYNTAX.to_owned())?;
    let (scheme, Some(authority)) = (uri.scheme_str().unwrap_or_default(), uri.authority()) else {
        return Err(SYNTAX.to_owned());
    };
    let (usual, prefix) = match scheme {
        "http" => (80, ""),
        "https" => (443, "https://"),
        _ => return Err(SYNTAX.to_owned()),
    };
    if authority.as_str().contains('@') || authority.host().is_empty() {
        return Err("a URL here has no user and no password".to_owned());
    }
    let port = authority.port_u16().unwrap_or(usual);
    let place = format!("{}:{port}", authority.host());
    let endpoint = values::parse_endpoint(&format!("{prefix}{place}")).map_err(|bad| bad.to_string())?;
    let target = uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    Ok(Url {
        shown: format!("{scheme}://{authority}{}", uri.path()),
        authority: place,
        endpoint,
        target: target.to_owned(),
        ca: None,
    })
}
