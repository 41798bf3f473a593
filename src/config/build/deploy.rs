//! `[app.NAME.deploy]`: which steps there are, and what each does.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use super::Build;
use crate::config::diagnostics::{did_you_mean, quoted};
use crate::config::model::{CommandLine, Deploy, OnFailure, SmokeProbe, Step, StepKind, Work};
use crate::config::raw::deploy as raw;
use crate::config::raw::{self as file, At};
use crate::config::values;
use crate::rollout::Color;

/// Steps that a file may list without defining them.
const BUILT_IN: [&str; 10] = [
    "backup", "migrate", "start", "healthy", "smoke", "approve", "switch", "rollout", "bake", "stop_old",
];

/// How long a command may run when nobody says.
const HOOK_TIME: Duration = Duration::from_secs(10 * 60);

/// How long a color may take to become healthy when nobody says.
const HEALTHY_TIME: Duration = Duration::from_secs(2 * 60);

/// How long the old color may take to drain before `stop_old` when nobody says.
const DRAIN_TIME: Duration = Duration::from_secs(15 * 60);

/// How long a smoke probe may take when nobody says.
const PROBE_TIME: Duration = Duration::from_secs(10);

/// Shorter leases could not be renewed in time.
const LEASE_MIN: Duration = Duration::from_secs(1);

impl Build<'_, '_, '_> {
    pub(super) fn deploy(&mut self, app: &At<String>, raw: &raw::Deploy) -> Deploy {
        let default = file::deploy::Step::default();
        let listed: Vec<(String, Range<usize>)> = match &raw.steps {
            Some(list) => list
                .get()
                .iter()
                .map(|at| (at.get().clone(), at.span()))
                .collect(),
            None => Deploy::DEFAULT_STEPS
                .map(|name| (name.to_owned(), app.span()))
                .into(),
        };
        let mut steps: Vec<Step> = Vec::new();
        for (name, span) in &listed {
            if steps.iter().any(|step| step.name == *name) {
                let message = format!("the step {} is listed twice", quoted(name));
                self.findings.error(span, "duplicate_name", message, None);
                continue;
            }
            let defined = defined(raw, name);
            if defined.is_none() && !BUILT_IN.contains(&name.as_str()) && !self.is_broken_step(app, name) {
                let message = format!("no step is called {}", quoted(name));
                let own = raw.step.keys().map(|at| at.get().as_str());
                let hint = did_you_mean(name, BUILT_IN.into_iter().chain(own)).unwrap_or_else(|| {
                    format!(
                        "define it: `{name} = {{ run = \"…\" }}` in `[app.{}.deploy]`",
                        app.get()
                    )
                });
                self.findings.error(span, "unknown_step", message, hint);
                continue;
            }
            steps.push(self.step(raw, name, span, defined.unwrap_or(&default)));
        }
        let mut spare = Vec::new();
        for (name, step) in &raw.step {
            if listed.iter().any(|(listed, _)| listed == name.get()) {
                continue;
            }
            if !matches!(name.get().as_str(), "start" | "stop_old") {
                let message = format!("the step {} never runs: it is not in `steps`", quoted(name.get()));
                let hint = did_you_mean(name.get(), BUILT_IN)
                    .unwrap_or_else(|| "add it to `steps`, at its place".to_owned());
                self.findings.warn(&name.span(), "unused_step", message, hint);
            }
            spare.push(self.step(raw, name.get(), &name.span(), step));
        }
        self.order(&steps, raw);
        let lease = self.duration("lease", raw.lease.as_ref(), LEASE_MIN);
        Deploy {
            smoke: match &raw.smoke {
                Some(raw::Smoke::Probes(probes)) => {
                    probes.iter().filter_map(|probe| self.smoke(probe)).collect()
                }
                _ => Vec::new(),
            },
            on_failure: self
                .on_failure(raw.on_failure.as_ref(), false)
                .unwrap_or_default(),
            lease: lease.unwrap_or(Duration::from_secs(30)),
            steps,
            spare,
        }
    }

    fn is_broken_step(&self, app: &At<String>, name: &str) -> bool {
        self.findings.is_broken(&["app", app.get(), "deploy", name])
            || self.findings.is_broken(&["app", app.get(), "deploy"])
    }

    /// What cannot work in this order.
    fn order(&mut self, steps: &[Step], raw: &raw::Deploy) {
        let at = |kind: StepKind| steps.iter().position(|step| step.kind == kind);
        let Some(list) = &raw.steps else { return };
        let mut wrong = |first: &str, then: &str| {
            let message = format!("`{then}` comes before `{first}`");
            let hint = format!("put `{first}` first");
            self.findings.error(&list.span(), "step_order", message, hint);
        };
        for (first, then) in [
            ("switch", "bake"),
            ("switch", "stop_old"),
            ("rollout", "bake"),
            ("rollout", "stop_old"),
            ("start", "healthy"),
        ] {
            let (a, b) = (at(StepKind::named(first)), at(StepKind::named(then)));
            if let (Some(a), Some(b)) = (a, b)
                && b < a
            {
                wrong(first, then);
            }
        }
        if at(StepKind::Switch).is_some() && at(StepKind::Rollout).is_some() {
            let message = "`switch` and `rollout` are both listed".to_owned();
            let hint = "traffic moves at once or in steps: keep one of them".to_owned();
            self.findings
                .error(&list.span(), "conflicting_keys", message, hint);
        }
    }

    fn step(&mut self, deploy: &raw::Deploy, name: &str, place: &Range<usize>, raw: &raw::Step) -> Step {
        let kind = StepKind::named(name);
        let valid = !name.is_empty()
            && name
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b));
        if !valid || matches!(name, "env" | "lease" | "cwd" | "steps") {
            let message = format!("a step cannot be called {}", quoted(name));
            let hint = "use letters, digits, `-` and `_`, and none of cutover's own words".to_owned();
            self.findings.error(place, "bad_value", message, hint);
        }
        let shell = raw.shell.as_ref().is_some_and(|at| *at.get());
        let work = self.work(raw, shell);
        if work != Work::None && !kind.takes_work() {
            let span = raw.run.as_ref().map_or_else(|| place.clone(), At::span);
            let message = format!("`{name}` is done by cutover itself: a command has no place in it");
            let hint = "give the command to a step of your own, and put that into `steps`".to_owned();
            self.findings.error(&span, "conflicting_keys", message, hint);
        }
        if let (Some(at), false) = (&raw.settle, kind == StepKind::Healthy) {
            let message = "`settle` belongs to the step `healthy` only".to_owned();
            self.findings.error(&at.span(), "conflicting_keys", message, None);
        }
        let timeout = self.duration("timeout", raw.timeout.as_ref(), Duration::from_millis(1));
        let default = match kind {
            StepKind::Hook | StepKind::Start | StepKind::Smoke => Some(HOOK_TIME),
            StepKind::Healthy => Some(HEALTHY_TIME),
            StepKind::StopOld => Some(DRAIN_TIME),
            StepKind::Approve | StepKind::Switch | StepKind::Rollout | StepKind::Bake => None,
        };
        let mut env = BTreeMap::new();
        for (name, value) in deploy.env.iter().flatten().chain(raw.env.iter().flatten()) {
            self.text("env", name, env_name);
            self.deferred("env", value);
            env.insert(name.get().clone(), value.get().clone());
        }
        Step {
            name: name.to_owned(),
            kind,
            work,
            timeout: timeout.or(default),
            env,
            cwd: raw.cwd.as_ref().or(deploy.cwd.as_ref()).map(|at| {
                self.deferred("cwd", at);
                at.get().clone()
            }),
            confirm: raw.confirm.as_ref().and_then(|at| match at.get() {
                raw::Confirm::Yes(false) => None,
                raw::Confirm::Yes(true) => Some(format!("Run {name}?")),
                raw::Confirm::Question(text) => Some(text.clone()),
            }),
            when: raw.when.as_ref().map(|at| match at.get() {
                file::Color::Blue => Color::Blue,
                file::Color::Green => Color::Green,
            }),
            settle: self
                .duration("settle", raw.settle.as_ref(), Duration::ZERO)
                .unwrap_or_default(),
            on_failure: self.on_failure(raw.on_failure.as_ref(), shell),
        }
    }

    fn work(&mut self, raw: &raw::Step, shell: bool) -> Work {
        if let (Some(_), Some(at)) = (&raw.run, &raw.webhook) {
            let message = "`run` and `webhook` cannot both be set".to_owned();
            let hint = "a step is a command or a webhook: make two steps of them".to_owned();
            self.findings.error(&at.span(), "conflicting_keys", message, hint);
        }
        if let Some(at) = &raw.webhook {
            self.text("webhook", at, webhook);
            self.deferred("webhook", at);
            return Work::Webhook(at.get().clone());
        }
        let Some(at) = &raw.run else { return Work::None };
        let lines = match at.get() {
            raw::Run::One(text) => vec![raw::Command::Text(text.clone())],
            raw::Run::Several(list) => list.clone(),
        };
        let read = lines.iter().map(|line| command(line, shell));
        let read = read.collect::<Result<Vec<_>, _>>();
        match self.value("run", &at.span(), read) {
            Some(lines) if lines.is_empty() => Work::None,
            Some(lines) => Work::Run(lines),
            None => Work::None,
        }
    }

    fn on_failure(&mut self, raw: Option<&raw::OnFailure>, shell: bool) -> Option<OnFailure> {
        let raw = raw?;
        let mut read = |key: &str, at: &Option<At<String>>| {
            let at = at.as_ref()?;
            let line = command(&raw::Command::Text(at.get().clone()), shell);
            self.value(key, &at.span(), line)
        };
        Some(OnFailure {
            logs: read("logs", &raw.logs),
            run: read("run", &raw.run),
        })
    }

    fn smoke(&mut self, raw: &raw::SmokeProbe) -> Option<SmokeProbe> {
        let at = raw.request.as_ref()?;
        let (method, path) = self.text("request", at, request)?;
        let mut headers = Vec::new();
        for (name, value) in raw.headers.iter().flatten() {
            self.deferred("headers", value);
            if let Some(header) = self.text("headers", name, smoke_header) {
                headers.push((header, value.get().clone()));
            }
        }
        if let Some(body) = &raw.body {
            self.deferred("body", body);
        }
        let expect = &raw.expect;
        let mut json = Vec::new();
        for (pointer, value) in expect.json.iter().flatten() {
            if let Some(pointer) = self.text("json", pointer, values::pointer) {
                json.push((pointer, value.clone()));
            }
        }
        let mut header = Vec::new();
        for (name, value) in expect.header.iter().flatten() {
            if let Some(name) = self.text("header", name, smoke_header) {
                header.push((name, value.get().clone()));
            }
        }
        let mut capture = Vec::new();
        for (name, pointer) in raw.capture.iter().flatten() {
            self.text("capture", name, capture_name);
            if let Some(pointer) = self.text("capture", pointer, values::pointer) {
                capture.push((name.get().clone(), pointer));
            }
        }
        let status = expect.status.as_ref();
        let pattern = expect.body_regex.as_ref().filter(|at| !at.get().is_empty());
        Some(SmokeProbe {
            method,
            path,
            headers,
            body: raw.body.as_ref().map(|at| at.get().clone()).unwrap_or_default(),
            status: status
                .and_then(|at| self.text("status", at, values::statuses))
                .unwrap_or_else(|| vec![(200, 299)]),
            json,
            header,
            body_regex: pattern.and_then(|at| self.text("body_regex", at, values::pattern)),
            within: self
                .duration("within", expect.within.as_ref(), Duration::from_millis(1))
                .unwrap_or(PROBE_TIME),
            capture,
        })
    }

    /// A text whose `${VAR}` are filled in when the step runs: here only their form is looked at.
    fn deferred(&mut self, key: &str, at: &At<String>) {
        self.text(key, at, variables);
    }
}

fn defined<'r>(raw: &'r raw::Deploy, name: &str) -> Option<&'r raw::Step> {
    if let ("smoke", Some(smoke)) = (name, &raw.smoke) {
        return match smoke {
            raw::Smoke::Step(step) => Some(step),
            raw::Smoke::Probes(_) => None,
        };
    }
    let mut steps = raw.step.iter();
    steps.find_map(|(known, step)| (known.get() == name).then_some(step))
}

fn command(line: &raw::Command, shell: bool) -> Result<CommandLine, String> {
    let words = match line {
        raw::Command::Text(text) if text.trim().is_empty() => return Err("the command is empty".to_owned()),
        raw::Command::Text(text) if shell => return Ok(CommandLine::Shell(text.clone())),
        raw::Command::Text(text) => values::words(text)?,
        raw::Command::Words(words) => words.clone(),
    };
    match words.first() {
        None => return Err("the command is empty".to_owned()),
        Some(first) if first.starts_with('-') => {
            return Err(format!(
                "{} is an argument, not a command: each text of the list is a command of its own; one command word by word is `[[\"sh\", \"-c\", \"…\"]]`",
                quoted(first)
            ));
        }
        Some(_) => {}
    }
    words.iter().try_for_each(|word| variables(word))?;
    Ok(CommandLine::Words(words))
}

/// Each `${` must be `${NAME}`; `$${` is the characters themselves.
fn variables(text: &str) -> Result<(), String> {
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        let escaped = rest[..at].ends_with('$');
        rest = &rest[at + 2..];
        let name = rest.split('}').next().unwrap_or_default();
        let whole = name.len() < rest.len() && !name.is_empty();
        let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        if !(escaped || whole && plain) {
            return Err(
                "it has a `${` that no variable name and `}` follow; a shell's own forms need `shell = true`, \
                 and for the characters themselves write `$${`"
                    .to_owned(),
            );
        }
    }
    Ok(())
}

fn env_name(text: &str) -> Result<(), String> {
    let valid = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if valid {
        Ok(())
    } else {
        Err("a variable's name has letters, digits and `_`, and starts with no digit".to_owned())
    }
}

fn webhook(text: &str) -> Result<(), String> {
    if !["http://", "https://", "${"]
        .iter()
        .any(|start| text.starts_with(start))
    {
        return Err("write a URL as `http://host:port/path`, or with `https://`".to_owned());
    }
    Ok(())
}

fn request(text: &str) -> Result<(String, String), String> {
    let (method, path) = text
        .split_once(' ')
        .ok_or_else(|| "write METHOD PATH, as `GET /health`".to_owned())?;
    let method = method.trim();
    if method.is_empty() || !method.bytes().all(|b| b.is_ascii_uppercase()) {
        return Err("the method comes first, in capitals: `GET /health`".to_owned());
    }
    let path = path.trim();
    if !path.starts_with('/') {
        return Err(format!(
            "a path starts with `/`: {}",
            quoted(&format!("{method} /{path}"))
        ));
    }
    Ok((method.to_owned(), path.to_owned()))
}

fn smoke_header(text: &str) -> Result<String, String> {
    http::HeaderName::try_from(text)
        .map(|name| name.as_str().to_owned())
        .map_err(|_| "a header name has letters, digits and `-` only".to_owned())
}

fn capture_name(text: &str) -> Result<(), String> {
    let plain = text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if text.is_empty() || !plain {
        return Err("a name has letters, digits and `_` only".to_owned());
    }
    if matches!(text, "color" | "other" | "revision" | "app" | "args") {
        return Err(format!("`{text}` has a meaning of its own; take another name"));
    }
    Ok(())
}
