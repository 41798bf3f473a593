//! What the doors ask for, step by step: facts, decision, proof.

use std::rc::Rc;
use std::time::Instant;

use jiff::Timestamp;

use super::ask::{Ask, Before, Gated, Intent, Outcome, Refusal, Verdict, Verify};
use super::controller::{Committed, Controller, Insistence, itself};
use super::gate::Judged;
use super::gates::Question;
use super::idempotency::{Seen, first_answer};
use super::plan::{change_of, command, needs_gate, outcome, target_of, verb, with_probes};
use super::publish::file_endpoints;
use super::view::EventKind;
use crate::config::parse_endpoint;
use crate::metrics::SwitchResult;
use crate::rollout::{self, AppState, Change, Color, Command, Past, Transition, Trigger, Weight};

impl Controller {
    /// Carry out a request.
    pub(super) async fn ask(self: &Rc<Self>, ask: Ask) -> Result<Outcome, Refusal> {
        let app = self.app_name(ask.app.as_deref())?;
        self.check_lease(&app, &ask)?;
        let pending = match &ask.idempotency_key {
            Some(key) if !ask.dry_run => match self.answers.look_up(&app, key, &ask.intent) {
                Seen::First(pending) => Some(pending),
                Seen::Before(answer) => {
                    let gone = "the first request with this idempotency key was refused; repeat to try again";
                    return first_answer(answer)
                        .await
                        .unwrap_or_else(|| Err(Refusal::Invalid(gone.to_owned())));
                }
                Seen::Reused => {
                    let text = "this idempotency key was used for another request: take a new one";
                    return Err(Refusal::Invalid(text.to_owned()));
                }
            },
            _ => None,
        };
        let result = self.carry_out(&app, &ask).await;
        if let Some(pending) = pending {
            pending.settle(&result);
        }
        if let Err(refusal) = &result {
            self.tell(EventKind::Refused, Some(&app), None, format!("{app}: {refusal}"));
        }
        result
    }

    async fn carry_out(self: &Rc<Self>, app: &str, ask: &Ask) -> Result<Outcome, Refusal> {
        match &ask.intent {
            Intent::Switch { release: true, .. } if !ask.dry_run => {
                let result = self.move_traffic(app, ask).await;
                self.released(app, ask, result).await
            }
            Intent::Switch { .. } | Intent::Weight { .. } => self.move_traffic(app, ask).await,
            Intent::Rollback { ignore_health } => self.roll_back(app, ask, None, *ignore_health).await,
            Intent::RollbackTo { past, ignore_health } => {
                self.roll_back(app, ask, Some(past), *ignore_health).await
            }
            Intent::Drain { color, force } => {
                self.simple(
                    app,
                    ask,
                    Change::Drain {
                        color: *color,
                        force: *force,
                    },
                )
                .await
            }
            Intent::Hold { max, idle } => self.hold(app, ask, *max, *idle).await,
            Intent::Release => self.simple(app, ask, Change::Release).await,
            Intent::Rollout(wanted) => self.rollout(app, ask, wanted).await,
            Intent::Maintenance(wanted) => self.simple(app, ask, Change::Maintenance(wanted.clone())).await,
            Intent::SetEndpoints {
                color,
                endpoints,
                revision,
            } => {
                let change = self.checked_endpoints(app, *color, endpoints, revision.as_deref())?;
                self.simple(app, ask, change).await
            }
        }
    }

    /// Switch, and weight: what needs a healthy target and, when all traffic moved, a proof.
    async fn move_traffic(self: &Rc<Self>, app: &str, ask: &Ask) -> Result<Outcome, Refusal> {
        let begun = Instant::now();
        let state = self.with_slot(app, |slot| slot.state.clone())?;
        let (target, force) = target_of(&ask.intent, &state);
        if let Some(expected) = ask.expect_generation
            && expected != state.generation
        {
            return Err(Refusal::Moved {
                expected,
                is: state.generation,
            });
        }
        let operation = self.begin(app, ask)?;
        let judged = match needs_gate(&ask.intent, &state, target) {
            true => self.judge(app, target, state.generation).await?,
            false => Judged::unasked(),
        };
        if let Some(service) = &judged.without_endpoints {
            let text = format!(
                "{target} has no endpoints for service {service}: `cutover endpoints set {target} …` first"
            );
            return Err(Refusal::Invalid(text));
        }
        let gates = self
            .gates_before(app, ask, &state, target, &judged, force)
            .await?;
        let mut facts = judged.facts.clone();
        facts.watch = self.watch_after(app, &state);
        let change = change_of(&ask.intent, &state, facts);
        let command = command(app, ask, change);
        let mut warnings = Vec::new();
        if force && !judged.facts.healthy {
            warnings.push(format!(
                "{target} is not healthy; moved by --force: {}",
                judged.facts.refusals.join("; ")
            ));
        }
        if ask.dry_run {
            let result = self.rehearse(app, &command, ask, warnings);
            return result
                .map(|outcome| Outcome { gates, ..outcome })
                .map_err(|refusal| with_probes(refusal, &judged));
        }
        let insist = Insistence {
            repair: force,
            ..Insistence::default()
        };
        let committed = match self.change(command, insist).await {
            Ok(committed) => committed,
            Err(refusal) => {
                self.count_switch(app, &state, target, ask.by.trigger, failed(&refusal), begun);
                return Err(with_probes(refusal, &judged));
            }
        };
        warnings.extend(committed.warnings.iter().cloned());
        let moved = committed.applied.and_then(rollout::Applied::moved).is_some();
        let verify = if moved {
            Some(self.proven(app, ask, &committed, force, begun).await?)
        } else {
            None
        };
        drop(operation);
        if moved {
            self.count_switch(app, &state, target, ask.by.trigger, SwitchResult::Done, begun);
        }
        let outcome = outcome(app, ask, &committed, verify, warnings);
        Ok(Outcome { gates, ..outcome })
    }

    /// What the gates say that the config requires besides health. Only an unhealthy target is not worth asking for.
    async fn gates_before(
        self: &Rc<Self>,
        app: &str,
        ask: &Ask,
        state: &AppState,
        target: Color,
        judged: &Judged,
        force: bool,
    ) -> Result<Vec<Gated>, Refusal> {
        if !needs_gate(&ask.intent, state, target) || force || !judged.facts.healthy {
            return Ok(Vec::new());
        }
        let question = Question {
            app: app.to_owned(),
            to: target,
            state: state.clone(),
            phase: verb(&ask.intent),
            now: ask.dry_run,
        };
        let gates = self.required(&question).await;
        match gates.iter().all(|gated| gated.verdict == Verdict::Pass) {
            true => Ok(gates),
            false => {
                if !ask.dry_run {
                    let begun = Instant::now();
                    self.count_switch(app, state, target, ask.by.trigger, SwitchResult::Refused, begun);
                }
                Err(Refusal::Gate {
                    active: state.active,
                    gates,
                })
            }
        }
    }

    /// Prove a switch, and take it back when the proof fails.
    pub(super) async fn proven(
        self: &Rc<Self>,
        app: &str,
        ask: &Ask,
        committed: &Committed,
        force: bool,
        begun: Instant,
    ) -> Result<Verify, Refusal> {
        let after = &committed.after;
        let why = match self.verify(app, after, force).await {
            Ok(verify) => {
                self.note_verify(committed.seq, &verify);
                let now = self.with_slot(app, |slot| slot.state.clone())?;
                if now.generation != after.generation && now.active != after.active {
                    return Err(Refusal::Moved {
                        expected: after.generation,
                        is: now.generation,
                    });
                }
                return Ok(verify);
            }
            Err(why) => why,
        };
        let back = Command {
            app: app.to_owned(),
            change: Change::Revert { of: after.generation },
            expect_generation: None,
            by: itself("verify", Trigger::Verify),
            reason: why.clone(),
            idempotency_key: None,
        };
        let urgent = Insistence {
            urgent: true,
            ..Insistence::default()
        };
        let reverted = self.change(back, urgent).await?;
        if reverted.applied.is_none() {
            // Somebody moved on meanwhile; their word stands.
            return Err(Refusal::Moved {
                expected: after.generation,
                is: reverted.after.generation,
            });
        }
        self.count_switch(
            app,
            &committed.before,
            after.active,
            ask.by.trigger,
            SwitchResult::RolledBack,
            begun,
        );
        Err(Refusal::RolledBack {
            to: after.active,
            back: reverted.after.active,
            why,
            generation: reverted.after.generation,
        })
    }

    /// Back, at once: no gate, no network, no proof, and no waiting for what else runs.
    async fn roll_back(
        self: &Rc<Self>,
        app: &str,
        ask: &Ask,
        past: Option<&Before>,
        ignore_health: bool,
    ) -> Result<Outcome, Refusal> {
        let begun = Instant::now();
        let state = self.with_slot(app, |slot| slot.state.clone())?;
        let target = state.standby();
        let facts = self.known(app, target);
        let mut warnings = Vec::new();
        if !facts.healthy && state.weight == Weight::ZERO {
            warnings.push(format!("{target} is not healthy: {}", facts.refusals.join("; ")));
        }
        let change = match past {
            None => Change::Rollback { facts, ignore_health },
            Some(past) => Change::RollbackTo {
                past: self.past(app, past)?,
                facts,
                ignore_health,
            },
        };
        let command = command(app, ask, change);
        if ask.dry_run {
            return self.rehearse(app, &command, ask, warnings);
        }
        let insist = Insistence {
            urgent: true,
            repair: ignore_health,
            undurable: ignore_health,
            ..Insistence::default()
        };
        let committed = match self.change(command, insist).await {
            Ok(committed) => committed,
            Err(refusal) => {
                self.count_switch(app, &state, target, ask.by.trigger, failed(&refusal), begun);
                return Err(refusal);
            }
        };
        if committed.applied.and_then(rollout::Applied::moved).is_some() {
            self.count_switch(
                app,
                &state,
                committed.after.active,
                ask.by.trigger,
                SwitchResult::RolledBack,
                begun,
            );
        } else {
            warnings.clear();
        }
        warnings.extend(committed.warnings.iter().cloned());
        Ok(outcome(app, ask, &committed, None, warnings))
    }

    /// What was active then, as the history knows it.
    fn past(&self, app: &str, before: &Before) -> Result<Past, Refusal> {
        let at = match before {
            Before::Revision(revision) => return Ok(Past::Revision(revision.clone())),
            Before::Generation(at) => *at,
        };
        let now = self.with_slot(app, |slot| slot.state.generation)?;
        if at == 0 || at > now {
            return Err(Refusal::Invalid(format!(
                "there was no generation {at}: the app is at {now}"
            )));
        }
        let history = self.history.borrow();
        let then = history
            .iter()
            .rfind(|entry| entry.app == app && entry.generation <= at);
        then.map(|entry| Past::Generation { at, color: entry.to })
            .ok_or_else(|| {
                Refusal::NothingWarm(format!(
                    "generation {at} is older than what is remembered: see `cutover history`"
                ))
            })
    }

    /// A change that needs no gate and no proof.
    pub(super) async fn simple(
        self: &Rc<Self>,
        app: &str,
        ask: &Ask,
        change: Change,
    ) -> Result<Outcome, Refusal> {
        let command = command(app, ask, change);
        if ask.dry_run {
            return self.rehearse(app, &command, ask, Vec::new());
        }
        let _operation = self.begin(app, ask)?;
        let repair = matches!(ask.intent, Intent::Drain { force: true, .. }) && !ask.reason.is_empty();
        let committed = self
            .change(
                command,
                Insistence {
                    repair,
                    ..Insistence::default()
                },
            )
            .await?;
        let warnings = committed.warnings.clone();
        Ok(outcome(app, ask, &committed, None, warnings))
    }

    fn checked_endpoints(
        &self,
        app: &str,
        color: Color,
        endpoints: &std::collections::BTreeMap<String, Vec<String>>,
        revision: Option<&str>,
    ) -> Result<Change, Refusal> {
        let config = self.config.borrow();
        let of = config
            .apps
            .get(app)
            .ok_or_else(|| Refusal::Invalid(format!("no app `{app}` in the config")))?;
        if endpoints.is_empty() && revision.is_none() {
            return Err(Refusal::Invalid("name endpoints, a revision, or both".to_owned()));
        }
        if revision
            .is_some_and(|text| text.is_empty() || text.len() > 200 || text.chars().any(char::is_control))
        {
            return Err(Refusal::Invalid(
                "a revision has 1 to 200 printable characters".to_owned(),
            ));
        }
        let mut written = std::collections::BTreeMap::new();
        for (service, list) in endpoints {
            if !of.services.contains_key(service) {
                let known: Vec<_> = of.services.keys().map(String::as_str).collect();
                let text = format!(
                    "app `{app}` has no service `{service}`; it has: {}",
                    known.join(", ")
                );
                return Err(Refusal::Invalid(text));
            }
            let parsed = list
                .iter()
                .map(|text| parse_endpoint(text).map(|address| address.to_string()));
            let parsed = parsed
                .collect::<Result<Vec<_>, _>>()
                .map_err(|bad| Refusal::Invalid(bad.to_string()))?;
            written.insert(service.clone(), parsed);
        }
        let file = file_endpoints(of, color);
        Ok(Change::SetEndpoints {
            color,
            endpoints: written,
            revision: revision.map(str::to_owned),
            file,
        })
    }

    /// What a command would do, without doing it.
    pub(super) fn rehearse(
        &self,
        app: &str,
        command: &Command,
        ask: &Ask,
        warnings: Vec<String>,
    ) -> Result<Outcome, Refusal> {
        let before = self.with_slot(app, |slot| slot.state.clone())?;
        let (after, applied) = match rollout::apply(&before, command, Timestamp::now()) {
            Ok(Transition::Changed(after, applied)) => (after, Some(applied)),
            Ok(Transition::NoChange | Transition::Noted(..)) => (before.clone(), None),
            Err(rejection) => return Err(super::controller::refusal_of(rejection, &before)),
        };
        let committed = Committed {
            before,
            after,
            applied,
            seq: None,
            warnings: Vec::new(),
        };
        let mut outcome = outcome(app, ask, &committed, None, warnings);
        outcome.generation = committed.before.generation;
        Ok(outcome)
    }

    /// Hold the app for an operation; refused while another one runs.
    pub(super) fn begin(self: &Rc<Self>, app: &str, ask: &Ask) -> Result<Operation, Refusal> {
        self.with_slot(app, |slot| match &slot.operation {
            Some((operation, by)) => Err(Refusal::Busy {
                operation: operation.clone(),
                by: by.clone(),
            }),
            None => {
                slot.operation = Some((verb(&ask.intent).to_owned(), ask.by.name.clone()));
                Ok(())
            }
        })??;
        Ok(Operation {
            controller: Rc::clone(self),
            app: app.to_owned(),
        })
    }

    fn count_switch(
        &self,
        app: &str,
        before: &AppState,
        to: Color,
        trigger: Trigger,
        result: SwitchResult,
        begun: Instant,
    ) {
        self.metrics
            .switched(app, (before.active, to), trigger, result, begun.elapsed());
    }
}

/// The app is held for an operation until this is dropped.
pub(super) struct Operation {
    controller: Rc<Controller>,
    app: String,
}

impl Drop for Operation {
    fn drop(&mut self) {
        let _ = self.controller.with_slot(&self.app, |slot| slot.operation = None);
    }
}

/// How a switch that did not happen is counted.
const fn failed(refusal: &Refusal) -> SwitchResult {
    match refusal {
        Refusal::NotDurable(_) | Refusal::Stopping => SwitchResult::Failed,
        _ => SwitchResult::Refused,
    }
}
