//! Rollouts: a switch in steps. Which step is in force, how long it has been, and what may come next.

use std::time::Duration;

use jiff::Timestamp;

use super::apply::Step;
use super::{AppState, Applied, Color, HealthFacts, Note, Rejection, Transition, Weight, next_salt};

/// The most steps a rollout may have.
pub const STEPS_MAX: usize = 100;

/// One step of a rollout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RolloutStep {
    /// The candidate's share in percent, 1 to 100; 100 is the switch.
    pub weight: u8,
    /// What has to pass before the next step, besides the gates.
    pub pause: Pause,
}

/// What a step waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pause {
    /// Time, in which the proxy runs. May be zero.
    For(Duration),
    /// An operator's `rollout promote`.
    Approval,
}

/// A rollout: the newest one of an app, under way or over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rollout {
    /// The generation that began it: its name.
    pub of: u64,
    /// The color that gains.
    pub to: Color,
    /// All steps.
    pub steps: Vec<RolloutStep>,
    /// The step in force; `None` before the first.
    pub at: Option<usize>,
    /// How it stands.
    pub phase: RolloutPhase,
    /// How long the step's pause has been. The time in which no proxy ran, or the rollout was paused, is not in it.
    pub waited: Duration,
    /// When it began.
    pub since: Timestamp,
    /// The last thing that was found, in words.
    pub note: String,
}

/// How a rollout stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RolloutPhase {
    /// Its gates are asked; no traffic has moved yet.
    Gating,
    /// A step is in force.
    Shifting,
    /// An operator has stopped the clock.
    Paused,
    /// Over: the last step is in force.
    Done,
    /// Over: an operator, or a gate before the first step, ended it.
    Aborted,
    /// Over: a gate or the guard took the traffic back.
    RolledBack,
}

impl RolloutPhase {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Gating,
        Self::Shifting,
        Self::Paused,
        Self::Done,
        Self::Aborted,
        Self::RolledBack,
    ];

    /// The word in status, API and journal.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Gating => "gating",
            Self::Shifting => "shifting",
            Self::Paused => "paused",
            Self::Done => "done",
            Self::Aborted => "aborted",
            Self::RolledBack => "rolled_back",
        }
    }

    /// Whether it is under way.
    #[must_use]
    pub const fn runs(self) -> bool {
        matches!(self, Self::Gating | Self::Shifting | Self::Paused)
    }
}

/// What an operator or the driver wants of a rollout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RolloutChange {
    /// Begin one.
    Start {
        /// The color that gains.
        to: Color,
        /// The steps.
        steps: Vec<RolloutStep>,
        /// What is known of that color's health.
        facts: HealthFacts,
    },
    /// The driver: the step `from` is over (`None`: the gates before the first), the next one comes.
    Next {
        /// The rollout.
        of: u64,
        /// The step that is over.
        from: Option<usize>,
        /// What is known of the color's health, and of the guard after the last step.
        facts: HealthFacts,
    },
    /// The driver: so long the step has been, and this was found.
    At {
        /// The rollout.
        of: u64,
        /// The step; `None` before the first.
        step: Option<usize>,
        /// How long its pause has been.
        waited: Duration,
    },
    /// The driver: a gate or the guard says no.
    Fail {
        /// The rollout.
        of: u64,
    },
    /// An operator: the next step now, or the last one.
    Promote {
        /// All the way.
        full: bool,
        /// What is known of the color's health.
        facts: HealthFacts,
    },
    /// An operator: stop the clock.
    Pause,
    /// An operator: let it go on.
    Resume,
    /// An operator: take the share away.
    Abort,
}

impl Step<'_> {
    pub(super) fn rollout(&self, change: &RolloutChange, why: &str) -> Result<Transition, Rejection> {
        if let RolloutChange::Start { to, steps, facts } = change {
            return self.start(*to, steps, facts);
        }
        let running = self.state.rollout.as_ref().filter(|rollout| rollout.phase.runs());
        let by_driver = |of: u64| running.filter(|rollout| rollout.of == of);
        let by_operator = || running.ok_or(Rejection::NoRollout);
        match change {
            RolloutChange::Start { .. } => Ok(Transition::NoChange),
            RolloutChange::Next { of, from, facts } => match by_driver(*of) {
                Some(rollout) if rollout.stands_at(*from) => {
                    self.advance(rollout, rollout.next(), facts, why)
                }
                _ => Ok(Transition::NoChange),
            },
            RolloutChange::At { of, step, waited } => Ok(match by_driver(*of) {
                Some(rollout) if rollout.at == *step => self.at(rollout, *waited, why),
                _ => Transition::NoChange,
            }),
            RolloutChange::Fail { of } => Ok(match by_driver(*of) {
                Some(rollout) => self.end(rollout, why, true),
                None => Transition::NoChange,
            }),
            RolloutChange::Promote { full, facts } => {
                let rollout = by_operator()?;
                // All the way is the last step, or past it.
                let last = if *full { rollout.steps.len() - 1 } else { 0 };
                let next = rollout.next().max(last);
                self.advance(rollout, next, facts, why)
            }
            RolloutChange::Pause => {
                Ok(self.turn(by_operator()?, RolloutPhase::Shifting, RolloutPhase::Paused))
            }
            RolloutChange::Resume => {
                Ok(self.turn(by_operator()?, RolloutPhase::Paused, RolloutPhase::Shifting))
            }
            RolloutChange::Abort => Ok(self.end(by_operator()?, why, false)),
        }
    }

    fn start(&self, to: Color, steps: &[RolloutStep], facts: &HealthFacts) -> Result<Transition, Rejection> {
        check_steps(steps)?;
        if to == self.state.active {
            return Err(Rejection::Rollout(format!(
                "{to} is active already: there is nothing to roll out"
            )));
        }
        // One that has not moved anything yet gives way to a newer one; one that has does not.
        if let Some(rollout) = &self.state.rollout
            && rollout.phase.runs()
            && let Some(step) = rollout.step()
        {
            return Err(Rejection::RolloutRuns {
                to: rollout.to,
                percent: step.weight,
            });
        }
        self.judge(to, facts, false)?;
        let mut next = self.next();
        self.end_bake(&mut next);
        // A share given by hand stays until the first step.
        next.rollout = Some(Rollout {
            of: next.generation,
            to,
            steps: steps.to_vec(),
            at: None,
            phase: RolloutPhase::Gating,
            waited: Duration::ZERO,
            since: self.now,
            note: String::new(),
        });
        Ok(Transition::Changed(next, Applied::RolloutStarted(to)))
    }

    /// Put a step in force.
    fn advance(
        &self,
        rollout: &Rollout,
        at: usize,
        facts: &HealthFacts,
        why: &str,
    ) -> Result<Transition, Rejection> {
        let mut rollout = rollout.clone();
        why.clone_into(&mut rollout.note);
        let Some(step) = rollout.steps.get(at).copied() else {
            // The last step was no switch: its share stays.
            rollout.phase = RolloutPhase::Done;
            let mut next = self.state.clone();
            next.rollout = Some(rollout);
            return Ok(Transition::Noted(next, Note::RolloutDone));
        };
        self.judge(rollout.to, facts, false)?;
        rollout.at = Some(at);
        rollout.waited = Duration::ZERO;
        rollout.phase = RolloutPhase::Shifting;
        let to = rollout.to;
        let Some(weight) = Weight::candidate(step.weight) else {
            rollout.phase = RolloutPhase::Done;
            let Transition::Changed(mut next, applied) = self.move_to(to, facts) else {
                return Ok(Transition::NoChange);
            };
            next.rollout = Some(rollout);
            return Ok(Transition::Changed(next, applied));
        };
        let mut next = self.next();
        if self.state.weight == Weight::ZERO {
            next.salt = next_salt(self.state.salt, self.state.generation, self.now);
        }
        next.rollout = Some(rollout);
        next.weight = weight;
        next.colors[to].drained = false;
        next.colors[to].left = false;
        let (color, percent) = (to, step.weight);
        Ok(Transition::Changed(next, Applied::Weighed { color, percent }))
    }

    fn at(&self, rollout: &Rollout, waited: Duration, note: &str) -> Transition {
        let mut rollout = rollout.clone();
        rollout.waited = rollout.waited.max(waited);
        note.clone_into(&mut rollout.note);
        let mut next = self.state.clone();
        next.rollout = Some(rollout);
        Transition::Noted(next, Note::RolloutAt)
    }

    fn turn(&self, rollout: &Rollout, from: RolloutPhase, to: RolloutPhase) -> Transition {
        let gating = rollout.at.is_none();
        let is = if gating && from == RolloutPhase::Shifting {
            RolloutPhase::Gating
        } else {
            from
        };
        if rollout.phase != is {
            return Transition::NoChange;
        }
        let mut rollout = rollout.clone();
        rollout.phase = if gating && to == RolloutPhase::Shifting {
            RolloutPhase::Gating
        } else {
            to
        };
        let mut next = self.next();
        next.rollout = Some(rollout);
        let applied = if to == RolloutPhase::Paused {
            Applied::RolloutPaused
        } else {
            Applied::RolloutResumed
        };
        Transition::Changed(next, applied)
    }

    /// The share goes back to the active color.
    fn end(&self, rollout: &Rollout, why: &str, failed: bool) -> Transition {
        let mut rollout = rollout.clone();
        let moved = self.state.weight > Weight::ZERO;
        rollout.phase = if failed && moved {
            RolloutPhase::RolledBack
        } else {
            RolloutPhase::Aborted
        };
        why.clone_into(&mut rollout.note);
        let color = rollout.to;
        let mut next = self.next();
        next.rollout = Some(rollout);
        if moved {
            next.weight = Weight::ZERO;
            next.colors[color].left = true;
        }
        Transition::Changed(next, Applied::RolloutEnded { color, moved })
    }

    /// Somebody moves traffic by hand: their word stands over guard and rollout.
    pub(super) fn take_over(&self, next: &mut AppState) {
        self.end_bake(next);
        if let Some(rollout) = &mut next.rollout
            && rollout.phase.runs()
        {
            rollout.phase = RolloutPhase::Aborted;
            rollout.note = "traffic was moved by another command".to_owned();
        }
    }

    fn end_bake(&self, next: &mut AppState) {
        if let Some(bake) = &mut next.bake
            && bake.phase.runs()
        {
            bake.phase = super::BakePhase::Ended;
            bake.note = "traffic was moved by another command".to_owned();
        }
    }
}

impl Rollout {
    /// Whether the driver's view of it is still so.
    fn stands_at(&self, step: Option<usize>) -> bool {
        self.at == step && self.phase != RolloutPhase::Paused
    }

    /// The step in force.
    #[must_use]
    pub fn step(&self) -> Option<RolloutStep> {
        self.steps.get(self.at?).copied()
    }

    /// The step that comes next.
    #[must_use]
    pub fn next(&self) -> usize {
        self.at.map_or(0, |at| at + 1)
    }
}

/// Whether these can be the steps of a rollout.
///
/// # Errors
/// A [`Rejection`] that says what is wrong.
pub fn check_steps(steps: &[RolloutStep]) -> Result<(), Rejection> {
    let bad = |why: String| Err(Rejection::Rollout(why));
    if steps.is_empty() || steps.len() > STEPS_MAX {
        return bad(format!("a rollout has 1 to {STEPS_MAX} steps"));
    }
    let mut before = 0;
    for step in steps {
        if !(1..=100).contains(&step.weight) {
            return bad(format!(
                "a step's weight is 1 to 100 percent, not {}",
                step.weight
            ));
        }
        if step.weight <= before {
            return bad(format!(
                "the weights of the steps rise: {} does not follow {before}",
                step.weight
            ));
        }
        before = step.weight;
    }
    Ok(())
}
