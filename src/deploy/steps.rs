//! What each kind of step does.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::hook::{self, Hook, Told};
use super::plan::colors;
use super::run::{Ended, Job, interrupted};
use super::{Event, Trouble, smoke, webhook};
use crate::admin::{Code, Exit, dto};
use crate::config::{CommandLine, Step, StepKind, Work};
use crate::rollout::Color;

/// Between two rounds of probes.
const PROBE_PAUSE: Duration = Duration::from_millis(500);

/// How long `on_failure` may take.
const FAILURE_TIME: Duration = Duration::from_secs(60);

/// A guard that goes on saying the same, with other figures, is shown again so often.
const NOTE_AGAIN: Duration = Duration::from_secs(60);

/// How long a preview token lives beyond the time that its command may take.
const TOKEN_LIFE: Duration = Duration::from_secs(15 * 60);

/// The longest life that the server gives one.
const TOKEN_LIFE_MAX: Duration = Duration::from_secs(30 * 24 * 3600);

/// Lines of `on_failure.logs` that are kept.
const LOG_LINES: usize = 40;

/// Kinds of findings that are counted while waiting for health.
const FINDINGS_MAX: usize = 16;

impl Job<'_> {
    pub(super) async fn step(&mut self, step: &Step) -> Result<Ended, Trouble> {
        if *self.stop.borrow() {
            return Err(interrupted());
        }
        if step.kind != StepKind::Hook && step.kind != StepKind::StopOld && step.kind != StepKind::Bake {
            self.tell_revision().await?;
        }
        if let Some(question) = step.confirm.as_ref().filter(|_| !self.options.yes) {
            let question = self.filled(question)?;
            self.confirm(&question).await?;
        }
        match step.kind {
            StepKind::Hook | StepKind::Start => self.work(step).await.map(Ended::Done),
            StepKind::Healthy => self.healthy(step).await.map(Ended::Done),
            StepKind::Smoke => self.smoke(step).await.map(Ended::Done),
            StepKind::Approve => self.approve().await.map(Ended::Done),
            StepKind::Switch => self.switch().await.map(Ended::Done),
            StepKind::Rollout => self.rollout(step).await,
            StepKind::Bake => self.bake(step).await,
            StepKind::StopOld => self.stop_old(step).await,
        }
    }

    /// From here on the target is no longer what it was, whatever becomes of the start: the server must know, because
    /// a rollback to what it was is not possible any more.
    async fn tell_revision(&mut self) -> Result<(), Trouble> {
        if self.told_revision {
            return Ok(());
        }
        self.told_revision = true;
        let Some(revision) = &self.options.revision else {
            return Ok(());
        };
        let reason = self.reason();
        self.server.set_revision(self.color, revision, &reason).await
    }

    pub(super) fn reason(&self) -> String {
        match (&self.options.reason, &self.options.revision) {
            (Some(reason), _) => reason.clone(),
            (None, Some(revision)) => format!("deploy {revision}"),
            (None, None) => "deploy".to_owned(),
        }
    }

    fn filled(&mut self, text: &str) -> Result<String, Trouble> {
        self.values
            .fill(text, self.env)
            .map_err(|why| Trouble::Here(Exit::Failed, why))
    }

    /// The commands or the webhook of a step.
    pub(super) async fn work(&mut self, step: &Step) -> Result<String, Trouble> {
        match &step.work {
            Work::None => Ok(String::new()),
            Work::Webhook(url) => {
                let url = self.filled(url)?;
                let (name, values) = (step.name.clone(), self.values.clone());
                let within = step.timeout.unwrap_or(FAILURE_TIME);
                let call = async move { webhook::call(&url, &name, &values, within).await };
                self.waiting(call)
                    .await?
                    .map_err(|why| Trouble::Here(Exit::Failed, why))
            }
            Work::Run(lines) => {
                let began = Instant::now();
                for line in lines {
                    let left = step
                        .timeout
                        .map(|timeout| timeout.saturating_sub(began.elapsed()));
                    self.command(step, line, left).await?;
                }
                Ok(String::new())
            }
        }
    }

    async fn command(
        &mut self,
        step: &Step,
        line: &CommandLine,
        timeout: Option<Duration>,
    ) -> Result<(), Trouble> {
        self.take_token(timeout).await;
        let hook = self.hook(step, line, timeout)?;
        let program = hook.0.first().cloned().unwrap_or_default();
        match self.run_hook(hook, &mut |_| {}).await {
            hook::Ended::Passed => Ok(()),
            hook::Ended::Interrupted => Err(interrupted()),
            hook::Ended::TimedOut(left) => {
                let ended = hook::Ended::TimedOut(step.timeout.unwrap_or(left));
                let text = format!("step {}: `{program}`: {ended}", step.name);
                Err(Trouble::Here(Exit::Failed, text))
            }
            ended => Err(Trouble::Here(
                Exit::Failed,
                format!("step {}: `{program}`: {ended}", step.name),
            )),
        }
    }

    pub(super) async fn run_hook(&mut self, hook: Prepared, keep: &mut dyn FnMut(&str)) -> hook::Ended {
        let (words, env, folder, timeout) = hook;
        let hook = Hook {
            words,
            env,
            folder: &folder,
            timeout,
        };
        let values = &self.values;
        let show = &mut self.show;
        hook.run(&mut self.stop, &mut |told| match told {
            Told::Line(line) => {
                let line = values.masked(line);
                keep(&line);
                show(Event::Line(line));
            }
            Told::Tick => show(Event::Tick),
        })
        .await
    }

    /// A fresh preview token for a command, if the app has a preview: it outlives the command by a while. A command
    /// may well do without.
    pub(super) async fn take_token(&mut self, timeout: Option<Duration>) {
        if self.app.traffic.preview.is_none() {
            return;
        }
        let life = timeout.unwrap_or_default().saturating_add(TOKEN_LIFE);
        match self
            .server
            .preview_token(self.color, life.min(TOKEN_LIFE_MAX))
            .await
        {
            Ok(made) => {
                self.values.secrets.insert(made.token.clone());
                self.token = (made.header, made.token);
            }
            Err(trouble) => {
                let why = trouble.brief();
                (self.show)(Event::Note(format!("no preview token for commands: {why}")));
            }
        }
    }

    /// A command with all that it needs filled in.
    fn hook(
        &mut self,
        step: &Step,
        line: &CommandLine,
        timeout: Option<Duration>,
    ) -> Result<Prepared, Trouble> {
        let failed = |why: String| Trouble::Here(Exit::Failed, format!("step {}: {why}", step.name));
        let words = self.values.command(line, self.env).map_err(failed)?;
        self.surrounded(step, words, timeout)
    }

    /// Words that are what they are.
    pub(super) fn hook_as_is(&mut self, step: &Step, line: &CommandLine) -> Result<Prepared, Trouble> {
        let words = match line {
            CommandLine::Words(words) => words.clone(),
            CommandLine::Shell(script) => vec!["sh".to_owned(), "-c".to_owned(), script.clone()],
        };
        self.surrounded(step, words, None)
    }

    fn surrounded(
        &mut self,
        step: &Step,
        words: Vec<String>,
        timeout: Option<Duration>,
    ) -> Result<Prepared, Trouble> {
        let failed = |why: String| Trouble::Here(Exit::Failed, format!("step {}: {why}", step.name));
        let mut env: BTreeMap<String, String> = [
            ("CUTOVER_APP", self.values.app.clone()),
            ("CUTOVER_COLOR", self.color.to_string()),
            ("CUTOVER_OTHER", self.color.other().to_string()),
            (
                "CUTOVER_REVISION",
                self.values.revision.clone().unwrap_or_default(),
            ),
            ("CUTOVER_STEP", step.name.clone()),
            ("CUTOVER_PREVIEW_URL", self.preview.url().unwrap_or_default()),
            ("CUTOVER_PREVIEW_HEADER", self.token.0.clone()),
            ("CUTOVER_PREVIEW_TOKEN", self.token.1.clone()),
            ("CUTOVER_ADMIN", self.server.client.address.to_string()),
            ("CUTOVER_LEASE", self.server.lease.clone()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into();
        for (name, value) in &step.env {
            env.insert(name.clone(), self.values.fill(value, self.env).map_err(failed)?);
        }
        let folder = match &step.cwd {
            Some(cwd) => self.folder.join(self.values.fill(cwd, self.env).map_err(failed)?),
            None => self.folder.to_owned(),
        };
        Ok((words, env, folder, timeout))
    }

    /// Logs, and whatever else the file wants when a step has failed. Its own failure is a note.
    pub(super) async fn on_failure(&mut self, step: &Step) {
        let wanted = step
            .on_failure
            .clone()
            .unwrap_or_else(|| self.app.deploy.on_failure.clone());
        if let Some(line) = &wanted.logs {
            let mut lines: Vec<String> = Vec::new();
            match self.hook(step, line, Some(FAILURE_TIME)) {
                Ok(hook) => {
                    let ended = self
                        .run_hook(hook, &mut |line| {
                            if lines.len() == LOG_LINES {
                                lines.remove(0);
                            }
                            lines.push(line.to_owned());
                        })
                        .await;
                    if !matches!(ended, hook::Ended::Passed) {
                        (self.show)(Event::Note(format!("on_failure.logs: {ended}")));
                    }
                }
                Err(trouble) => (self.show)(Event::Note(format!("on_failure.logs: {}", trouble.brief()))),
            }
            self.logs = lines;
        }
        if let Some(line) = &wanted.run {
            let ended = match self.hook(step, line, Some(FAILURE_TIME)) {
                Ok(hook) => self.run_hook(hook, &mut |_| {}).await.to_string(),
                Err(trouble) => trouble.brief(),
            };
            (self.show)(Event::Note(format!("on_failure.run: {ended}")));
        }
    }

    /// Until every service of the target has a healthy endpoint. Each probe is a fresh one, begun after the start.
    pub(super) async fn healthy(&mut self, step: &Step) -> Result<String, Trouble> {
        let began = Instant::now();
        let timeout = step.timeout.unwrap_or(Duration::MAX);
        let mut findings: Vec<(String, usize)> = Vec::new();
        let mut since = None;
        loop {
            let (server, color) = (self.server.clone(), self.color);
            let probed = self.waiting(async move { server.probe(color).await }).await??;
            if probed.healthy {
                let since = *since.get_or_insert_with(Instant::now);
                if since.elapsed() >= step.settle {
                    self.preview.renew(colors(&self.server.app().await?, self.color));
                    return Ok(format!("{} endpoints probed", probed.probes.len()));
                }
            } else {
                since = None;
                self.find(&probed, &mut findings);
            }
            if began.elapsed() >= timeout {
                return Err(Trouble::Here(
                    Exit::Refused,
                    unhealthy(color, &probed, timeout, &findings),
                ));
            }
            self.waiting(tokio::time::sleep(PROBE_PAUSE)).await?;
        }
    }

    /// Count what a round of probes found; a finding that is new is told.
    fn find(&mut self, probed: &dto::Probed, findings: &mut Vec<(String, usize)>) {
        for probe in probed
            .probes
            .iter()
            .filter(|probe| probe.report.verdict != "healthy")
        {
            let what = match (probe.report.status, probe.report.reason.is_empty()) {
                (Some(status), _) => format!("{} {} → {status}", probe.service, probe.endpoint),
                (None, false) => format!("{} {} → {}", probe.service, probe.endpoint, probe.report.reason),
                (None, true) => format!("{} {} → {}", probe.service, probe.endpoint, probe.report.verdict),
            };
            if let Some((_, count)) = findings.iter_mut().find(|(known, _)| *known == what) {
                *count += 1;
            } else if findings.len() < FINDINGS_MAX {
                (self.show)(Event::Note(what.clone()));
                findings.push((what, 1));
            }
        }
    }

    /// The probes of the file, or the step's own command.
    async fn smoke(&mut self, step: &Step) -> Result<String, Trouble> {
        let note = if step.work == Work::None {
            self.smoke_probes().await?
        } else {
            match self.work(step).await {
                Err(Trouble::Here(Exit::Failed, why)) => return Err(Trouble::Here(Exit::Refused, why)),
                other => other?,
            };
            "its command passed".to_owned()
        };
        self.smoked = Some(note.clone());
        Ok(note)
    }

    pub(super) async fn smoke_probes(&mut self) -> Result<String, Trouble> {
        self.preview.renew(colors(&self.server.app().await?, self.color));
        let app = self.app;
        let of = app.deploy.smoke.len();
        for (at, probe) in app.deploy.smoke.iter().enumerate() {
            let (mut values, preview, env) = (self.values.clone(), self.preview.clone(), self.env);
            let sent = async {
                let said = smoke::send_probe(probe, &preview, &mut values, env).await;
                (said, values)
            };
            let (said, values) = self.waiting(sent).await?;
            self.values = values;
            match said {
                Ok(line) => {
                    let line = self.values.masked(&format!("{}/{of} {line}", at + 1));
                    (self.show)(Event::Note(line));
                }
                Err(why) => {
                    let text = format!("{} failed smoke probe {} of {of}: {why}", self.color, at + 1);
                    return Err(Trouble::Here(Exit::Refused, text));
                }
            }
        }
        Ok(format!("{of} of {of} probes passed"))
    }

    /// Before the switch: what is about to change, and a question.
    async fn approve(&mut self) -> Result<String, Trouble> {
        if self.options.yes || self.options.auto_switch {
            return Ok("answered by the command line".to_owned());
        }
        let app = self.server.app().await?;
        let active = Color::from(app.active);
        let named = |color: Color| match &colors(&app, color).revision {
            Some(revision) => format!("{color} ({revision})"),
            None => color.to_string(),
        };
        let target = colors(&app, self.color);
        let health = if target.healthy { "healthy" } else { "NOT healthy" };
        let smoke = self.smoked.clone().unwrap_or_else(|| "not run".to_owned());
        let (from, to) = (named(active), named(self.color));
        (self.show)(Event::Note(format!(
            "{}: {from} → {to}, generation {}; {} is {health}; smoke: {smoke}",
            self.app.name, app.generation, self.color
        )));
        self.gates().await?;
        let question = format!("Switch traffic to {}?", self.color);
        self.confirm(&question).await?;
        Ok("yes".to_owned())
    }

    /// How the gates stand that will be asked. What they say now refuses nothing yet: that is for the switch.
    async fn gates(&mut self) -> Result<(), Trouble> {
        let rollout = self
            .app
            .deploy
            .steps
            .iter()
            .any(|step| step.kind == StepKind::Rollout);
        let (server, color) = (self.server.clone(), self.color);
        let asked = self
            .waiting(async move { server.rehearse(color, rollout).await })
            .await?;
        match asked {
            Ok(outcome) => {
                for gate in outcome.gates {
                    (self.show)(Event::Note(format!(
                        "gate {}: {}  {}",
                        gate.gate, gate.verdict, gate.detail
                    )));
                }
            }
            Err(refused @ Trouble::Refused(_)) => {
                let why = refused.brief();
                (self.show)(Event::Note(format!("as it stands this would be refused: {why}")));
            }
            Err(other) => return Err(other),
        }
        Ok(())
    }

    /// Not interrupted: its outcome must be known.
    async fn switch(&mut self) -> Result<String, Trouble> {
        let reason = self.reason();
        let key = format!("deploy-{}", self.server.lease);
        let outcome = self.server.switch(self.color, &reason, &key).await?;
        self.switched = Some(outcome.generation);
        for warning in &outcome.warnings {
            (self.show)(Event::Note(format!("warning: {warning}")));
        }
        let proof = match &outcome.verify {
            Some(dto::Verify {
                requests: Some(requests),
                ..
            }) => format!(", verified by {requests} requests"),
            _ => String::new(),
        };
        Ok(match outcome.changed {
            true => format!("generation {}{proof}", outcome.generation),
            false => format!("{} was active already", self.color),
        })
    }

    /// Until the guard has seen enough; what it takes back is exit 9.
    async fn bake(&mut self, step: &Step) -> Result<Ended, Trouble> {
        let began = Instant::now();
        let (mut told, mut told_at) = (String::new(), began);
        loop {
            let app = self.server.app().await?;
            let ours = app.bake.filter(|bake| {
                Color::from(bake.to) == self.color
                    && self.switched.is_none_or(|generation| bake.of >= generation)
            });
            let Some(bake) = ours else {
                return Ok(Ended::Skipped("no guard watches it".to_owned()));
            };
            let said = words(&bake.note);
            if said != told || told_at.elapsed() >= NOTE_AGAIN {
                (self.show)(Event::Note(format!("{}: {}", bake.phase, bake.note)));
                (told, told_at) = (said, Instant::now());
            }
            match bake.phase.as_str() {
                "watching" | "rollback_blocked" => {}
                "rolled_back" => {
                    let text = format!("the guard took {} back: {}", self.color, bake.note);
                    return Err(Trouble::Here(Exit::RolledBack, text));
                }
                phase => return Ok(Ended::Done(format!("{phase}; {}", bake.note))),
            }
            if step.timeout.is_some_and(|timeout| began.elapsed() >= timeout) {
                let text = format!("the guard still watches {}; `cutover wait` waits on", self.color);
                return Err(Trouble::Here(Exit::StillRunning, text));
            }
            self.waiting(tokio::time::sleep(PROBE_PAUSE)).await?;
        }
    }

    /// Wait until the old color has drained, then stop it.
    async fn stop_old(&mut self, step: &Step) -> Result<Ended, Trouble> {
        let old = self.color.other();
        let app = self.server.app().await?;
        if Color::from(app.active) != self.color {
            let text = format!("{old} serves: it is not stopped");
            return Err(Trouble::Here(Exit::Refused, text));
        }
        let wait = step.timeout.unwrap_or(FAILURE_TIME);
        let server = self.server.clone();
        match self
            .waiting(async move { server.drained(old, wait).await })
            .await?
        {
            Ok(_) => {}
            Err(trouble) if is(&trouble, Code::NotDrainable) && colors(&app, old).share == 0 => {
                return Ok(Ended::Skipped(format!(
                    "{old} had no traffic: there is nothing to stop"
                )));
            }
            Err(trouble) => return Err(trouble),
        }
        self.work(step).await.map(Ended::Done)
    }
}

/// What a note says, apart from the figures in it.
pub(super) fn words(note: &str) -> String {
    note.chars()
        .filter(|c| !c.is_ascii_digit() && *c != '.')
        .collect()
}

pub(super) type Prepared = (Vec<String>, BTreeMap<String, String>, PathBuf, Option<Duration>);

pub(super) fn is(trouble: &Trouble, code: Code) -> bool {
    trouble.code().as_deref() == Some(code.facts().name)
}

/// Every probe of the last round, and what the rounds before found.
fn unhealthy(color: Color, last: &dto::Probed, timeout: Duration, findings: &[(String, usize)]) -> String {
    let mut text = format!("{color} did not become healthy within {timeout:?}; the last probes:");
    for probe in &last.probes {
        let report = &probe.report;
        let mark = if report.verdict == "healthy" { "✔" } else { "✖" };
        let status = report
            .status
            .map_or_else(|| report.verdict.clone(), |status| status.to_string());
        text.push_str(&format!(
            "\n  {mark} {} {}  {} → {status} in {} ms",
            probe.service, probe.endpoint, report.url, report.latency_ms
        ));
        if !report.reason.is_empty() {
            text.push_str(&format!(": {}", report.reason));
        }
    }
    let counted = findings.iter().map(|(what, count)| format!("{count}× {what}"));
    let counted = counted.collect::<Vec<_>>().join(", ");
    if !counted.is_empty() {
        text.push_str(&format!("\nall rounds: {counted}"));
    }
    text
}
