//! Rollouts: what operators ask of one, and the task that drives it from step to step.
//!
//! The machine is pure (`rollout::progress`); here are the clock, the windows and the gates. The driver's time is
//! monotonic, is counted only while the proxy runs and the rollout is not paused, and is written down as it goes.

use std::rc::Rc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::ask::{Ask, Gated, Outcome, Refusal, RolloutAsk, Verdict, Wanted};
use super::controller::{Committed, Controller, Insistence, itself};
use super::gates::Question;
use super::guard::judge::{Watchdog, lately};
use super::plan::{command, outcome, with_probes};
use super::view::EventKind;
use crate::config::{self, OnTimeout, StepGate};
use crate::metrics::SwitchResult;
use crate::rollout::{Applied, Change, Command, Pause, Rollout, RolloutChange, RolloutPhase, Trigger};

/// Between two looks at a rollout that waits for nothing but time, at most.
const LOOK: Duration = Duration::from_millis(500);

/// What the driver remembers of the step in force.
struct At {
    step: Option<usize>,
    /// When the step began, or this process took it up: its windows begin here.
    since: Instant,
    /// When time was last counted.
    counted: Instant,
    evaluated: Option<Instant>,
    /// The candidate was healthy in this step: losing that ends the rollout.
    was_healthy: bool,
    watchdog: Watchdog,
}

impl Controller {
    /// What an operator asks of a rollout.
    pub(super) async fn rollout(
        self: &Rc<Self>,
        app: &str,
        ask: &Ask,
        wanted: &RolloutAsk,
    ) -> Result<Outcome, Refusal> {
        let state = self.with_slot(app, |slot| slot.state.clone())?;
        let moves = matches!(wanted, RolloutAsk::Start { .. } | RolloutAsk::Promote { .. });
        let to = match (wanted, &state.rollout) {
            (
                RolloutAsk::Start {
                    to: Wanted::Color(color),
                    ..
                },
                _,
            ) => *color,
            (RolloutAsk::Start { .. }, _) | (_, None) => state.standby(),
            (_, Some(rollout)) => rollout.to,
        };
        // An abort waits for nothing and is stopped by nothing.
        let urgent = matches!(wanted, RolloutAsk::Abort);
        let operation = if urgent { None } else { Some(self.begin(app, ask)?) };
        let mut probes = super::gate::Judged::unasked();
        if moves && to != state.active {
            probes = self.judge(app, to, state.generation).await?;
            if let Some(service) = &probes.without_endpoints {
                let text = format!("{to} has no endpoints for service {service}");
                return Err(Refusal::Invalid(text));
            }
            probes.facts.watch = self.watch_after(app, &state);
        }
        let facts = probes.facts.clone();
        let change = Change::Rollout(match wanted {
            RolloutAsk::Start { steps, .. } => RolloutChange::Start {
                to,
                steps: steps.clone().unwrap_or_else(|| self.planned_steps(app)),
                facts,
            },
            RolloutAsk::Promote { full } => RolloutChange::Promote { full: *full, facts },
            RolloutAsk::Pause => RolloutChange::Pause,
            RolloutAsk::Resume => RolloutChange::Resume,
            RolloutAsk::Abort => RolloutChange::Abort,
        });
        let command = command(app, ask, change);
        if ask.dry_run {
            return self
                .rehearse(app, &command, ask, Vec::new())
                .map_err(|refusal| with_probes(refusal, &probes));
        }
        let insist = Insistence {
            urgent,
            undurable: urgent,
            ..Insistence::default()
        };
        let committed = self
            .change(command, insist)
            .await
            .map_err(|refusal| with_probes(refusal, &probes))?;
        let verify = match committed.applied.and_then(Applied::moved) {
            Some(_) => Some(
                self.proven(app, ask, &committed, false, std::time::Instant::now())
                    .await?,
            ),
            None => None,
        };
        drop(operation);
        let warnings = committed.warnings.clone();
        Ok(outcome(app, ask, &committed, verify, warnings))
    }

    fn planned_steps(&self, app: &str) -> Vec<crate::rollout::RolloutStep> {
        let config = self.config.borrow();
        config
            .apps
            .get(app)
            .map_or_else(Vec::new, |of| of.policy.rollout.steps.clone())
    }

    /// Drive, if the state says that a rollout runs that is not driven yet: after its start, or after a restart.
    pub(super) fn drive_rollout(self: &Rc<Self>, app: &str) {
        let of = self.with_slot(app, |slot| {
            let running = slot.state.rollout.as_ref().filter(|rollout| rollout.phase.runs());
            let of = running.map(|rollout| rollout.of);
            let is_new = of.is_some() && slot.driving != of;
            slot.driving = of;
            of.filter(|_| is_new)
        });
        if let Ok(Some(of)) = of {
            let (own, app) = (Rc::clone(self), app.to_owned());
            tokio::task::spawn_local(async move { own.drive(&app, of).await });
        }
    }

    /// The running rollout with this name.
    fn in_progress(&self, app: &str, of: u64) -> Option<(Rollout, config::Policy)> {
        let rollout = self.with_slot(app, |slot| slot.state.rollout.clone()).ok()??;
        let policy = self.config.borrow().apps.get(app).map(|of| of.policy.clone())?;
        (rollout.of == of && rollout.phase.runs()).then_some((rollout, policy))
    }

    async fn drive(self: &Rc<Self>, app: &str, of: u64) {
        let now = Instant::now();
        let mut at = At {
            step: None,
            since: now,
            counted: now,
            evaluated: None,
            was_healthy: false,
            watchdog: Watchdog::default(),
        };
        while let Some((rollout, policy)) = self.in_progress(app, of) {
            let now = Instant::now();
            if rollout.at != at.step {
                at = At {
                    step: rollout.at,
                    since: now,
                    counted: now,
                    evaluated: None,
                    was_healthy: false,
                    watchdog: Watchdog::default(),
                };
            }
            match rollout.phase {
                RolloutPhase::Gating => self.gate_the_start(app, &rollout).await,
                RolloutPhase::Paused => at.counted = now,
                _ => {
                    let passed = now - at.counted;
                    at.counted = now;
                    self.look_at_step(app, &rollout, &policy, &mut at, passed).await;
                }
            }
            sleep(LOOK).await;
        }
    }

    /// Before the first step: what any switch requires.
    async fn gate_the_start(self: &Rc<Self>, app: &str, rollout: &Rollout) {
        let Some(question) = self.question(app, rollout) else {
            return;
        };
        let asked = self.required(&question).await;
        match asked.iter().find(|gated| gated.verdict != Verdict::Pass) {
            None => self.next_step(app, rollout, "the gates pass").await,
            Some(gated) if gated.verdict == Verdict::Fail || self.ends_on_timeout(app, &gated.gate) => {
                self.fail(app, rollout, &gated.to_string(), false).await;
            }
            Some(gated) => self.found(app, rollout, Duration::ZERO, &gated.to_string()).await,
        }
    }

    fn question(&self, app: &str, rollout: &Rollout) -> Option<Question> {
        let state = self.with_slot(app, |slot| slot.state.clone()).ok()?;
        Some(Question {
            app: app.to_owned(),
            to: rollout.to,
            state,
            phase: "rollout",
            now: false,
        })
    }

    fn ends_on_timeout(&self, app: &str, gate: &str) -> bool {
        let config = self.config.borrow();
        let gate = config.apps.get(app).and_then(|of| of.policy.gates.get(gate));
        gate.is_some_and(|gate| gate.on_timeout == OnTimeout::Rollback)
    }

    /// A step in force: does the guard still bear it, is its time over, do its gates pass?
    async fn look_at_step(
        self: &Rc<Self>,
        app: &str,
        rollout: &Rollout,
        policy: &config::Policy,
        at: &mut At,
        passed: Duration,
    ) {
        let facts = self.known(app, rollout.to);
        if at.was_healthy && !facts.healthy {
            let why = format!(
                "{} has lost its health: {}",
                rollout.to,
                facts.refusals.join("; ")
            );
            return self.fail(app, rollout, &why, true).await;
        }
        at.was_healthy |= facts.healthy;
        let waited = rollout.waited + passed;
        let is_due = at
            .evaluated
            .is_none_or(|last| last.elapsed() >= policy.guard.every);
        let over = match rollout.step().map(|step| step.pause) {
            Some(Pause::For(time)) => waited >= time,
            // Only an operator ends it.
            Some(Pause::Approval) | None => false,
        };
        if !is_due {
            return self.count(app, rollout, waited);
        }
        at.evaluated = Some(Instant::now());
        let Some(question) = self.question(app, rollout) else {
            return;
        };
        let least = policy.guard.min_requests;
        let sides = self.sides_now(app, rollout.to, &question.state, Some(at.since), least);
        let (to, span) = (rollout.to, lately(&policy.guard));
        let now = self.sides_within(app, to, &question.state, Some(at.since), |_| span);
        let round = at.watchdog.evaluate_both(&policy.guard, &sides, &now);
        for warning in &round.warn {
            self.tell(
                EventKind::Guard,
                Some(app),
                None,
                format!("{app}: {} is watched: {warning}", rollout.to),
            );
        }
        if let Some(why) = round.trip {
            return self.fail(app, rollout, &why, true).await;
        }
        if !over {
            return self.found(app, rollout, waited, &round.text).await;
        }
        let asked = self.step_gates(app, &question, policy, at.since).await;
        match asked.iter().find(|gated| gated.verdict != Verdict::Pass) {
            None => {
                self.next_step(app, rollout, "its time is over and its gates pass")
                    .await
            }
            Some(gated) if gated.verdict == Verdict::Fail || self.ends_on_timeout(app, &gated.gate) => {
                self.fail(app, rollout, &gated.to_string(), false).await;
            }
            // Nobody knows: it stays where it is, and asks again.
            Some(gated) => self.found(app, rollout, waited, &format!("waits: {gated}")).await,
        }
    }

    async fn step_gates(
        self: &Rc<Self>,
        app: &str,
        question: &Question,
        policy: &config::Policy,
        since: Instant,
    ) -> Vec<Gated> {
        let least = policy.guard.min_requests;
        let mut asked = Vec::new();
        for (number, gate) in policy.rollout.gate.iter().enumerate() {
            let gated = match gate {
                StepGate::Named(name) => self.gate(question, name).await,
                StepGate::Holds(condition) => {
                    let sides = self.sides_now(app, question.to, &question.state, Some(since), least);
                    let finding = super::guard::judge::ask(condition, &sides, least);
                    let (verdict, detail) = super::gates::all_hold([(condition, finding)].into_iter());
                    let gate = format!("step-{}", number + 1);
                    self.metrics.gate(app, &gate, verdict.number());
                    Gated {
                        gate,
                        kind: "expr",
                        verdict,
                        detail,
                    }
                }
            };
            let passed = gated.verdict == Verdict::Pass;
            asked.push(gated);
            if !passed {
                break;
            }
        }
        asked
    }

    /// Time that passed in a step, in memory: it is written down with the next finding.
    fn count(&self, app: &str, rollout: &Rollout, waited: Duration) {
        let _ = self.with_slot(app, |slot| {
            if let Some(is) = &mut slot.state.rollout
                && is.of == rollout.of
                && is.at == rollout.at
                && is.phase == RolloutPhase::Shifting
            {
                is.waited = waited;
            }
        });
    }

    async fn found(self: &Rc<Self>, app: &str, rollout: &Rollout, waited: Duration, text: &str) {
        let (of, step) = (rollout.of, rollout.at);
        self.by_driver(app, RolloutChange::At { of, step, waited }, text, false)
            .await;
    }

    /// The share goes back. Where the guard is why, it is counted as its doing.
    pub(super) async fn fail(self: &Rc<Self>, app: &str, rollout: &Rollout, why: &str, by_guard: bool) {
        tracing::warn!(app, why, "the rollout is taken back");
        let change = RolloutChange::Fail { of: rollout.of };
        let committed = self.by_driver(app, change, why, true).await;
        if by_guard && committed.is_some_and(|committed| committed.applied.is_some()) {
            self.metrics.guard_rolled_back(app);
        }
    }

    /// The next step; the last one is a switch, proven and watched like any other.
    async fn next_step(self: &Rc<Self>, app: &str, rollout: &Rollout, why: &str) {
        let Ok(state) = self.with_slot(app, |slot| slot.state.clone()) else {
            return;
        };
        let Ok(judged) = self.judge(app, rollout.to, state.generation).await else {
            return;
        };
        let mut facts = judged.facts;
        if !facts.healthy {
            return self
                .fail(
                    app,
                    rollout,
                    &format!("not healthy: {}", facts.refusals.join("; ")),
                    false,
                )
                .await;
        }
        facts.watch = self.watch_after(app, &state);
        let change = RolloutChange::Next {
            of: rollout.of,
            from: rollout.at,
            facts,
        };
        let begun = std::time::Instant::now();
        let Some(committed) = self.by_driver(app, change, why, false).await else {
            return;
        };
        let Some(moved) = committed.applied.and_then(Applied::moved) else {
            return;
        };
        let result = match self.verify(app, &committed.after, false).await {
            Ok(verify) => {
                self.note_verify(committed.seq, &verify);
                SwitchResult::Done
            }
            Err(why) => {
                let of = committed.after.generation;
                let back = Command {
                    app: app.to_owned(),
                    change: Change::Revert { of },
                    expect_generation: None,
                    by: itself("verify", Trigger::Verify),
                    reason: why,
                    idempotency_key: None,
                };
                let insist = Insistence {
                    urgent: true,
                    ..Insistence::default()
                };
                if let Err(error) = self.change(back, insist).await {
                    tracing::error!(app, %error, "the rollout's switch did not prove itself and could not be taken back");
                }
                SwitchResult::RolledBack
            }
        };
        self.metrics
            .switched(app, moved, Trigger::Rollout, result, begun.elapsed());
    }

    async fn by_driver(
        self: &Rc<Self>,
        app: &str,
        change: RolloutChange,
        why: &str,
        urgent: bool,
    ) -> Option<Committed> {
        let command = Command {
            app: app.to_owned(),
            change: Change::Rollout(change),
            expect_generation: None,
            by: itself("rollout", Trigger::Rollout),
            reason: why.to_owned(),
            idempotency_key: None,
        };
        let insist = Insistence {
            urgent,
            undurable: urgent,
            ..Insistence::default()
        };
        match self.change(command, insist).await {
            Ok(committed) => Some(committed),
            // Somebody moved the app between the look and the step: the next look sees it.
            Err(Refusal::Moved { .. }) => None,
            Err(error) => {
                tracing::warn!(app, %error, "the rollout could not go on");
                None
            }
        }
    }
}
