//! Gates before a switch and between the steps of a rollout: each says pass, fail, or that it cannot say.

mod http;
mod run;
mod smoke;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::ask::{Gated, Refusal, Verdict};
use super::controller::{Controller, Insistence, itself};
use super::guard::WINDOW;
use super::guard::judge::{Figures, Finding, Sides, ask};
use super::view::EventKind;
use crate::config::{self, Gate, GateKind, HttpProbe, Probe, Requirement, RevisionBy};
use crate::expr::Condition;
use crate::metrics::{Sample, WINDOW_MAX};
use crate::rollout::{AppState, Change, Color, Command, Note, Trigger};
use crate::upstream::{Endpoint, Health, probe_once};

pub(super) use http::post;
pub(super) use run::run;

/// Between two looks at windows that have too few requests.
const AGAIN: Duration = Duration::from_secs(1);

/// Between two looks at whether somebody has moved the app meanwhile.
const LOOK: Duration = Duration::from_millis(100);

/// How long an endpoint may take to say its revision.
const IDENTITY: Duration = Duration::from_secs(5);

/// What a gate is asked about.
#[derive(Clone, Debug)]
pub(super) struct Question {
    pub app: String,
    /// The color that gains.
    pub to: Color,
    /// The state it is asked in.
    pub state: AppState,
    /// `switch`, `weight`, `rollout`
    pub phase: &'static str,
    /// Say what is so now, and wait for nothing.
    pub now: bool,
}

impl Question {
    /// What commands get in their environment, and webhooks in their body.
    fn facts(&self, gate: &str) -> Vec<(&'static str, String)> {
        let revision = self.state.colors[self.to].revision.clone();
        vec![
            ("app", self.app.clone()),
            ("gate", gate.to_owned()),
            ("phase", self.phase.to_owned()),
            ("from", self.to.other().to_string()),
            ("to", self.to.to_string()),
            ("revision", revision.unwrap_or_default()),
            ("weight", self.state.share(self.to).to_string()),
            ("generation", self.state.generation.to_string()),
            ("dry_run", self.now.to_string()),
        ]
    }
}

impl Controller {
    /// Ask the gates that a switch requires besides health, in their order. The first that does not pass ends it,
    /// unless only what is so now is wanted: then all are asked.
    pub(super) async fn required(self: &Rc<Self>, question: &Question) -> Vec<Gated> {
        let required = {
            let config = self.config.borrow();
            config
                .apps
                .get(&question.app)
                .map_or_else(Vec::new, |of| of.switch.require.clone())
        };
        let mut asked = Vec::new();
        for one in required {
            let gated = match &one {
                Requirement::Healthy => continue,
                Requirement::Identity => self.identity(question).await,
                Requirement::Smoke => self.smoke(question).await,
                Requirement::Gate(name) => self.gate(question, name).await,
            };
            let passed = gated.verdict == Verdict::Pass;
            asked.push(gated);
            if !passed && !question.now {
                break;
            }
        }
        // Last: what the gates refuse needs no warm-up.
        if !question.now && asked.iter().all(|gated| gated.verdict == Verdict::Pass) {
            asked.extend(self.warm(question).await);
        }
        asked
    }

    /// Ask one gate until it says pass or fail, its time is over, or somebody moves the app.
    pub(super) async fn gate(self: &Rc<Self>, question: &Question, name: &str) -> Gated {
        let found = {
            let config = self.config.borrow();
            config
                .apps
                .get(&question.app)
                .and_then(|of| of.policy.gates.get(name).cloned())
        };
        let Some(gate) = found else {
            let detail = "the config has no such gate any more".to_owned();
            return self.told(question, name, "gone", Verdict::Fail, detail).await;
        };
        let kind = gate.kind.as_str();
        let generation = question.state.generation;
        let asking = async {
            tokio::select! {
                answer = timeout(gate.timeout, self.answer(question, &gate)) => answer.ok(),
                () = self.moved(&question.app, generation) => {
                    Some((Verdict::Fail, "somebody changed the app meanwhile".to_owned()))
                }
            }
        };
        let (verdict, detail) = asking.await.unwrap_or_else(|| {
            let after = gate.timeout;
            (
                Verdict::Insufficient,
                format!("no answer within {after:?} (on_timeout: nothing moves on a timer)"),
            )
        });
        self.told(question, name, kind, verdict, detail).await
    }

    async fn answer(self: &Rc<Self>, question: &Question, gate: &Gate) -> (Verdict, String) {
        match &gate.kind {
            GateKind::Expr(conditions) => self.conditions(question, gate, conditions).await,
            GateKind::Run(words) => run(words, &question.facts(&gate.name), None).await,
            GateKind::Webhook(url) => {
                let facts = question.facts(&gate.name);
                http::ask(url, &facts, question.now, &self.originators).await
            }
            GateKind::Approve => self.approval(question, &gate.name).await,
        }
    }

    /// Write the verdict down, count it, and give it back.
    pub(super) async fn told(
        self: &Rc<Self>,
        question: &Question,
        name: &str,
        kind: &'static str,
        verdict: Verdict,
        detail: String,
    ) -> Gated {
        if !question.now {
            self.metrics.gate(&question.app, name, verdict.number());
            let text = format!("gate {name} ({kind}): {verdict}: {detail}");
            tracing::info!(app = question.app, gate = name, %verdict, detail, "gate");
            self.note(&question.app, Note::Gated, &text).await;
        }
        Gated {
            gate: name.to_owned(),
            kind,
            verdict,
            detail,
        }
    }

    /// A line in the journal that changes nothing.
    pub(super) async fn note(self: &Rc<Self>, app: &str, note: Note, text: &str) {
        let command = Command {
            app: app.to_owned(),
            change: Change::Note(note),
            expect_generation: None,
            by: itself("gate", Trigger::Guard),
            reason: text.to_owned(),
            idempotency_key: None,
        };
        if let Err(error) = self.change(command, Insistence::default()).await {
            tracing::warn!(app, %error, "what a gate said was not stored");
        }
    }

    pub(super) async fn moved(&self, app: &str, generation: u64) {
        loop {
            sleep(LOOK).await;
            if self.with_slot(app, |slot| slot.state.generation).ok() != Some(generation) {
                return;
            }
        }
    }

    async fn conditions(
        self: &Rc<Self>,
        question: &Question,
        gate: &Gate,
        conditions: &[Condition],
    ) -> (Verdict, String) {
        loop {
            let (verdict, detail) = self.hold_all(question, conditions, gate.min_requests);
            if verdict != Verdict::Insufficient || question.now {
                return (verdict, detail);
            }
            self.note(
                &question.app,
                Note::Judged,
                &format!("gate {}: {detail}", gate.name),
            )
            .await;
            sleep(AGAIN.max(gate.timeout / 20)).await;
        }
    }

    /// Whether all of these hold now, in the windows of both colors.
    pub(super) fn hold_all(
        &self,
        question: &Question,
        conditions: &[Condition],
        least: u64,
    ) -> (Verdict, String) {
        let sides = self.sides_now(&question.app, question.to, &question.state, None, least);
        let findings = conditions
            .iter()
            .map(|condition| (condition, ask(condition, &sides, least)));
        all_hold(findings)
    }

    /// Both colors as they are now: the last minute, or half an hour where that has too few requests.
    pub(super) fn sides_now(
        &self,
        app: &str,
        to: Color,
        state: &AppState,
        since: Option<Instant>,
        least: u64,
    ) -> Sides {
        let little = |short: &Sample| short.requests() < least;
        self.sides_within(app, to, state, since, |short| {
            if little(short) { WINDOW_MAX } else { WINDOW }
        })
    }

    /// Both colors as they are now, in a window that may depend on what the last minute has.
    pub(super) fn sides_within(
        &self,
        app: &str,
        to: Color,
        state: &AppState,
        since: Option<Instant>,
        span: impl Fn(&Sample) -> Duration,
    ) -> Sides {
        let sampler = self.sampler.borrow();
        let look = |color, since| {
            let short = sampler.over(app, color, WINDOW, since);
            match span(&short) {
                WINDOW => short,
                span => sampler.over(app, color, span, since),
            }
        };
        let (own, other) = (look(to, since), look(to.other(), None));
        let mut both = own.clone();
        both.add(&other);
        both.covered = own.covered.max(other.covered);
        Sides {
            candidate: Figures::of(&own, &own, state.share(to)),
            baseline: Figures::of(&other, &other, state.share(to.other())),
            app: Figures::of(&both, &both, 100),
            mirror: sampler.copies(app),
        }
    }

    /// Wait for an operator's word.
    async fn approval(&self, question: &Question, gate: &str) -> (Verdict, String) {
        let app = &question.app;
        if question.now {
            return (
                Verdict::Insufficient,
                format!("waits for `cutover approve {gate}`"),
            );
        }
        let (say, said) = tokio::sync::oneshot::channel();
        let _ = self.with_slot(app, |slot| slot.approvals.insert(gate.to_owned(), say));
        let message = format!("{app}: gate {gate} waits for `cutover approve {gate}`, or `--deny`");
        self.tell(EventKind::Gate, Some(app), None, message);
        match said.await {
            Ok((true, by)) => (Verdict::Pass, format!("approved by {by}")),
            Ok((false, by)) => (Verdict::Fail, format!("denied by {by}")),
            Err(_) => (Verdict::Insufficient, "asked again by somebody else".to_owned()),
        }
    }

    /// An operator's word for a gate that waits for one.
    pub(super) fn approve(
        &self,
        app: &str,
        gate: Option<&str>,
        yes: bool,
        by: &str,
    ) -> Result<String, Refusal> {
        let waiting = self.with_slot(app, |slot| {
            slot.approvals.retain(|_, say| !say.is_closed());
            let name = match gate {
                Some(name) => name.to_owned(),
                None => match slot.approvals.keys().next() {
                    Some(only) if slot.approvals.len() == 1 => only.clone(),
                    _ => return Err(slot.approvals.keys().cloned().collect::<Vec<_>>()),
                },
            };
            match slot.approvals.remove(&name) {
                Some(say) => Ok((name, say)),
                None => Err(slot.approvals.keys().cloned().collect()),
            }
        })?;
        match waiting {
            Ok((name, say)) => {
                let _ = say.send((yes, by.to_owned()));
                Ok(name)
            }
            Err(known) if known.is_empty() => {
                Err(Refusal::Invalid("no gate waits for an approval".to_owned()))
            }
            Err(known) => {
                let text = format!("which gate? These wait for an approval: {}", known.join(", "));
                Err(Refusal::Invalid(text))
            }
        }
    }

    /// Whether every endpoint of the target answers with the revision that was announced.
    async fn identity(self: &Rc<Self>, question: &Question) -> Gated {
        let (verdict, detail) = self.identify(question).await;
        self.told(question, "identity", "identity", verdict, detail).await
    }

    async fn identify(&self, question: &Question) -> (Verdict, String) {
        let to = question.to;
        let Some(revision) = question.state.colors[to].revision.clone() else {
            let detail = format!("no revision of {to} is known: `cutover endpoints set {to} --revision R`");
            return (Verdict::Insufficient, detail);
        };
        let Some((by, asked)) = self.to_identify(&question.app, to, &revision) else {
            let detail = "no `revision_header` or `revision_json`, or no endpoints".to_owned();
            return (Verdict::Insufficient, detail);
        };
        for (endpoint, settings) in asked {
            let report = probe_once(&endpoint, &settings).await;
            match (report.named, report.verdict) {
                (Some(true), _) => {}
                // Our own want of descriptors says nothing of the app.
                (None, Health::Unknown) => {
                    return (
                        Verdict::Insufficient,
                        format!("{}: {}", report.asked, report.reason),
                    );
                }
                _ => return (Verdict::Fail, format!("{}: {}", report.asked, report.reason)),
            }
        }
        (Verdict::Pass, format!("every endpoint says {by}: {revision}"))
    }

    /// What names the revision, and whom to ask how: each endpoint as its health page is asked, else at `/`.
    #[allow(
        clippy::type_complexity,
        reason = "a pair and a list of pairs: names for them would say no more"
    )]
    fn to_identify(
        &self,
        app: &str,
        to: Color,
        revision: &str,
    ) -> Option<(RevisionBy, Vec<(Arc<Endpoint>, config::Health)>)> {
        let table = self.published.load_full();
        let config = self.config.borrow();
        let of = config.apps.get(app)?;
        let by = of.policy.revision_by.clone()?;
        let mut asked = Vec::new();
        for service in &table.app(app)?.services {
            let mut settings = of.services.get(&service.name)?.health.clone();
            if !matches!(settings.kind, Probe::Http(_)) {
                settings.kind = Probe::Http(Box::new(any_answer()));
            }
            settings.timeout = settings.timeout.max(IDENTITY);
            (settings.identity, settings.revision) = (Some(by.clone()), Some(revision.to_owned()));
            let members = service.pools[to].members.iter();
            asked.extend(members.map(|member| (Arc::clone(&member.endpoint), settings.clone())));
        }
        (!asked.is_empty()).then_some((by, asked))
    }
}

/// A page that is asked for its headers only.
fn any_answer() -> HttpProbe {
    HttpProbe {
        path: "/".to_owned(),
        host: String::new(),
        headers: Vec::new(),
        status: vec![(100, 599)],
        json: Vec::new(),
        body_regex: None,
    }
}

/// The verdict of conditions that must all hold: one that does not is a fail, whatever the others lack.
pub(super) fn all_hold<'a>(findings: impl Iterator<Item = (&'a Condition, Finding)>) -> (Verdict, String) {
    let mut verdict = Verdict::Pass;
    let mut lines = Vec::new();
    for (condition, finding) in findings {
        let one = match finding.holds {
            Some(true) => Verdict::Pass,
            Some(false) => Verdict::Fail,
            None => Verdict::Insufficient,
        };
        verdict = match (verdict, one) {
            (Verdict::Fail, _) | (_, Verdict::Fail) => Verdict::Fail,
            (Verdict::Insufficient, _) | (_, Verdict::Insufficient) => Verdict::Insufficient,
            _ => Verdict::Pass,
        };
        let lacks = finding.lacks.map_or_else(String::new, |why| format!(" ({why})"));
        lines.push(format!(
            "`{}`: {one}{lacks}: {}",
            condition.source(),
            finding.values
        ));
    }
    (verdict, lines.join("; "))
}

/// Gates that wait for an operator, by name.
pub(super) type Approvals = BTreeMap<String, tokio::sync::oneshot::Sender<(bool, String)>>;
