//! The transition function.

use jiff::Timestamp;

use super::{
    Activation, AppState, Bake, BakePhase, Change, Color, Command, FileEndpoints, HealthFacts, Hold,
    Maintenance, Override, TRAIL_MAX, Weight, next_salt,
};

/// What [`apply`] made of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(
    clippy::large_enum_variant,
    reason = "made once a command and taken apart at once: a box would only be in the way"
)]
pub enum Transition {
    /// The next state; its generation is one higher. To be committed, then published.
    Changed(AppState, Applied),
    /// Something to remember, and nothing to publish: the next state has the same generation. To be committed.
    Noted(AppState, Note),
    /// It is already so. Nothing to commit, nothing to publish, and not an error.
    NoChange,
}

/// What happened, for journal, events and metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    /// All traffic moved.
    Switched {
        /// From this color.
        from: Color,
        /// To this one.
        to: Color,
    },
    /// All traffic moved back.
    RolledBack {
        /// From this color.
        from: Color,
        /// To this one.
        to: Color,
    },
    /// The candidate's share changed; 0 ends the candidacy.
    Weighed {
        /// The candidate.
        color: Color,
        /// Its share in percent.
        percent: u8,
    },
    /// A color was told to finish.
    Draining(Color),
    /// Requests wait.
    Held,
    /// Requests go on.
    Released,
    /// Maintenance began or ended.
    Maintenance(bool),
    /// Endpoints or revision of a color changed.
    EndpointsSet(Color),
    /// The config file changed endpoints.
    Reloaded,
    /// A rollout to this color began.
    RolloutStarted(Color),
    /// A rollout's clock was stopped.
    RolloutPaused,
    /// A rollout goes on.
    RolloutResumed,
    /// A rollout was ended before its last step.
    RolloutEnded {
        /// The color that gained.
        color: Color,
        /// It had a share, which went back.
        moved: bool,
    },
}

/// What is remembered without a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Note {
    /// One evaluation of the guard, or of a gate.
    Judged,
    /// A gate's verdict.
    Gated,
    /// A bake is over, and all was well.
    BakePassed,
    /// A bake is over, and nobody can say.
    BakeInsufficient,
    /// The guard wants to go back and cannot.
    BakeBlocked,
    /// How far a rollout is.
    RolloutAt,
    /// A rollout's last step is in force, and was no switch.
    RolloutDone,
    /// The standby has been kept for as long as the file wants.
    StandbyOver,
}

impl Note {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Judged,
        Self::Gated,
        Self::BakePassed,
        Self::BakeInsufficient,
        Self::BakeBlocked,
        Self::RolloutAt,
        Self::RolloutDone,
        Self::StandbyOver,
    ];

    /// The verb in history, events and journal.
    #[must_use]
    pub const fn verb(self) -> &'static str {
        match self {
            Self::Judged => "judged",
            Self::Gated => "gate",
            Self::BakePassed => "bake passed",
            Self::BakeInsufficient => "bake insufficient data",
            Self::BakeBlocked => "rollback blocked",
            Self::RolloutAt => "rollout at",
            Self::RolloutDone => "rollout done",
            Self::StandbyOver => "standby over",
        }
    }

    /// One of many that say nearly the same: for the journal, not for the history.
    #[must_use]
    pub const fn is_passing(self) -> bool {
        matches!(self, Self::Judged | Self::RolloutAt)
    }
}

impl Applied {
    /// The verb that history and events show.
    #[must_use]
    pub const fn verb(self) -> &'static str {
        match self {
            Self::Switched { .. } => "switch",
            Self::RolledBack { .. } => "rollback",
            Self::Weighed { .. } => "weight",
            Self::Draining(_) => "drain",
            Self::Held => "hold",
            Self::Released => "release",
            Self::Maintenance(_) => "maintenance",
            Self::EndpointsSet(_) => "endpoints",
            Self::Reloaded => "reload",
            Self::RolloutStarted(_) => "rollout start",
            Self::RolloutPaused => "rollout pause",
            Self::RolloutResumed => "rollout resume",
            Self::RolloutEnded { .. } => "rollout abort",
        }
    }

    /// From and to, where traffic moved whole.
    #[must_use]
    pub const fn moved(self) -> Option<(Color, Color)> {
        match self {
            Self::Switched { from, to } | Self::RolledBack { from, to } => Some((from, to)),
            _ => None,
        }
    }
}

/// Why a command was refused. Nothing moved.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// Somebody else changed the app in between.
    #[error("the app is at generation {is}, not {expected}: somebody changed it in between")]
    Moved {
        /// The generation the command expected.
        expected: u64,
        /// The generation it met.
        is: u64,
    },
    /// The color that would get traffic is not healthy.
    #[error("{color} is not healthy{}", list(.refusals))]
    Unhealthy {
        /// The color.
        color: Color,
        /// One line for each endpoint that refuses.
        refusals: Vec<String>,
    },
    /// The color that would get traffic has no endpoints for some service.
    #[error("rollback is impossible: {why}")]
    NothingWarm {
        /// What is missing, as a sentence.
        why: String,
    },
    /// The color still has a share of the traffic.
    #[error("{color} still has {percent} % of the traffic: switch away from it first")]
    HasTraffic {
        /// The color.
        color: Color,
        /// Its share in percent.
        percent: u8,
    },
    /// A share outside 0 to 100.
    #[error("a weight is a whole percent from 0 to 100, not {0}")]
    WeightOutOfRange(u8),
    /// The rollout is not possible.
    #[error("{0}")]
    Rollout(String),
    /// Another rollout has moved traffic and is not over.
    #[error("a rollout to {to} is at {percent} %: `cutover rollout abort` first")]
    RolloutRuns {
        /// Where it goes.
        to: Color,
        /// How far it is.
        percent: u8,
    },
    /// No rollout is under way.
    #[error("no rollout is under way")]
    NoRollout,
}

fn list(lines: &[String]) -> String {
    lines.iter().map(|line| format!("; {line}")).collect()
}

/// Apply a command to a state.
///
/// Pure: the clock's reading comes in as `now`, health as facts inside the command.
///
/// # Errors
/// A [`Rejection`] that names why nothing may move.
pub fn apply(state: &AppState, command: &Command, now: Timestamp) -> Result<Transition, Rejection> {
    if let Some(expected) = command.expect_generation
        && expected != state.generation
    {
        return Err(Rejection::Moved {
            expected,
            is: state.generation,
        });
    }
    let step = Step { state, now };
    match &command.change {
        Change::Switch { to, facts, force } => step.switch(*to, facts, *force),
        Change::Rollback { facts, ignore_health } => step.rollback(facts, *ignore_health),
        Change::RollbackTo {
            past,
            facts,
            ignore_health,
        } => step.rollback_to(past, facts, *ignore_health),
        Change::Revert { of } => Ok(step.revert(*of)),
        Change::Weight {
            color,
            percent,
            facts,
            force,
        } => step.weigh(*color, *percent, facts, *force),
        Change::Drain { color, force } => step.drain(*color, *force),
        Change::Hold { max } => Ok(step.hold(*max)),
        Change::Release => Ok(step.release()),
        Change::Maintenance(wanted) => Ok(step.maintain(wanted.as_ref())),
        Change::SetEndpoints {
            color,
            endpoints,
            revision,
            file,
        } => Ok(step.set_endpoints(*color, endpoints, revision.as_deref(), file)),
        Change::Reload { file, changed } => Ok(step.reload(file, changed)),
        Change::Watched { of, watched, end } => Ok(step.watched(*of, *watched, *end, &command.reason)),
        Change::GuardBack { of, facts } => Ok(step.guard_back(*of, facts, &command.reason)),
        Change::Rollout(change) => step.rollout(change, &command.reason),
        Change::Note(note) => Ok(Transition::Noted(state.clone(), *note)),
    }
}

/// One application: the state it starts from and the time it happens at.
pub(super) struct Step<'a> {
    pub(super) state: &'a AppState,
    pub(super) now: Timestamp,
}

impl Step<'_> {
    /// The state to change, one generation on.
    pub(super) fn next(&self) -> AppState {
        AppState {
            generation: self.state.generation + 1,
            ..self.state.clone()
        }
    }

    fn switch(&self, to: Color, facts: &HealthFacts, force: bool) -> Result<Transition, Rejection> {
        if to == self.state.active {
            if self.state.weight == Weight::ZERO {
                return Ok(Transition::NoChange);
            }
            return Ok(self.end_candidacy());
        }
        self.judge(to, facts, force)?;
        Ok(self.move_to(to, facts))
    }

    /// All traffic to `to`, remembering where it came from; the guard begins to watch.
    pub(super) fn move_to(&self, to: Color, facts: &HealthFacts) -> Transition {
        let from = self.state.active;
        let mut next = self.next();
        self.take_over(&mut next);
        if let Some(watch) = &facts.watch {
            next.bake = Some(Bake {
                of: next.generation,
                from,
                to,
                since: self.now,
                length: watch.length,
                watched: std::time::Duration::ZERO,
                phase: BakePhase::Watching,
                baseline: watch.baseline.clone(),
                note: String::new(),
            });
        }
        next.trail.push(self.activation());
        if next.trail.len() > TRAIL_MAX {
            next.trail.remove(0);
        }
        next.left_by_rollback = None;
        self.activate(&mut next, to);
        Transition::Changed(next, Applied::Switched { from, to })
    }

    /// The color that is active now, as a place to return to.
    fn activation(&self) -> Activation {
        let color = self.state.active;
        Activation {
            color,
            revision: self.state.colors[color].revision.clone(),
            incarnation: self.state.colors[color].incarnation,
            generation: self.state.generation,
        }
    }

    pub(super) fn activate(&self, next: &mut AppState, to: Color) {
        next.active = to;
        next.weight = Weight::ZERO;
        next.switched_at = self.now;
        next.colors[to].drained = false;
        next.colors[to].left = false;
        next.colors[to.other()].left = true;
    }

    pub(super) fn end_candidacy(&self) -> Transition {
        let color = self.state.standby();
        let mut next = self.next();
        self.take_over(&mut next);
        next.weight = Weight::ZERO;
        next.colors[color].left = true;
        Transition::Changed(next, Applied::Weighed { color, percent: 0 })
    }

    pub(super) fn judge(&self, color: Color, facts: &HealthFacts, force: bool) -> Result<(), Rejection> {
        if let Some(judged_in) = facts.judged_in
            && judged_in != self.state.generation
        {
            return Err(Rejection::Moved {
                expected: judged_in,
                is: self.state.generation,
            });
        }
        if facts.healthy || force {
            return Ok(());
        }
        Err(Rejection::Unhealthy {
            color,
            refusals: facts.refusals.clone(),
        })
    }

    fn rollback(&self, facts: &HealthFacts, ignore_health: bool) -> Result<Transition, Rejection> {
        if self.state.weight > Weight::ZERO {
            return Ok(self.end_candidacy());
        }
        let target = self.rollback_target()?;
        if !ignore_health {
            self.judge_rollback(target, facts)?;
        }
        let (from, to) = (self.state.active, target.color);
        let mut next = self.next();
        self.take_over(&mut next);
        next.trail.pop();
        next.left_by_rollback = Some(from);
        self.activate(&mut next, to);
        Ok(Transition::Changed(next, Applied::RolledBack { from, to }))
    }

    /// The last activation on the trail, unless it is the color that a rollback has just left.
    fn rollback_target(&self) -> Result<&Activation, Rejection> {
        let nothing = |why: &str| Rejection::NothingWarm { why: why.to_owned() };
        let Some(target) = self.state.trail.last() else {
            return Err(nothing(
                "nothing older is known; `switch` moves traffic either way",
            ));
        };
        if self.state.left_by_rollback == Some(target.color) || target.color == self.state.active {
            return Err(nothing(
                "the last rollback left the only other color; `switch` moves traffic either way",
            ));
        }
        Ok(target)
    }

    pub(super) fn judge_rollback(&self, target: &Activation, facts: &HealthFacts) -> Result<(), Rejection> {
        let now = &self.state.colors[target.color];
        if now.incarnation != target.incarnation {
            let when = now
                .redeployed_at
                .map_or_else(String::new, |at| format!(" at {at:.0}"));
            let why = format!(
                "{} was redeployed{when} and has not been active since",
                target.color
            );
            return Err(Rejection::NothingWarm { why });
        }
        if !facts.reachable {
            let why = format!("{} cannot be reached{}", target.color, list(&facts.refusals));
            return Err(Rejection::NothingWarm { why });
        }
        Ok(())
    }

    /// Undo the switch that made generation `of`, unless somebody moved on since.
    fn revert(&self, of: u64) -> Transition {
        let Some(back) = self.state.trail.last() else {
            return Transition::NoChange;
        };
        // A switch made the generation after the one it remembers; any other change did not make this one.
        if self.state.generation != of || back.generation + 1 != of {
            return Transition::NoChange;
        }
        let (from, to) = (self.state.active, back.color);
        let mut next = self.next();
        self.take_over(&mut next);
        if let Some(bake) = next.bake.as_mut().filter(|bake| bake.of == of) {
            bake.phase = BakePhase::RolledBack;
            "the switch did not prove itself".clone_into(&mut bake.note);
        }
        next.trail.pop();
        // It is a rollback like any other: the next one must not go to the color that has just failed its proof.
        next.left_by_rollback = Some(from);
        self.activate(&mut next, to);
        Transition::Changed(next, Applied::RolledBack { from, to })
    }

    fn weigh(
        &self,
        color: Color,
        percent: u8,
        facts: &HealthFacts,
        force: bool,
    ) -> Result<Transition, Rejection> {
        if percent > 100 {
            return Err(Rejection::WeightOutOfRange(percent));
        }
        let share = if color == self.state.active {
            100 - percent
        } else {
            percent
        };
        let candidate = self.state.standby();
        let Some(weight) = Weight::candidate(share) else {
            return self.switch(candidate, facts, force);
        };
        if weight == self.state.weight {
            return Ok(Transition::NoChange);
        }
        if weight == Weight::ZERO {
            return Ok(self.end_candidacy());
        }
        if weight > self.state.weight {
            self.judge(candidate, facts, force)?;
        }
        let mut next = self.next();
        if self.state.weight == Weight::ZERO {
            next.salt = next_salt(self.state.salt, self.state.generation, self.now);
        }
        self.take_over(&mut next);
        next.weight = weight;
        next.colors[candidate].drained = false;
        next.colors[candidate].left = false;
        Ok(Transition::Changed(
            next,
            Applied::Weighed {
                color: candidate,
                percent: share,
            },
        ))
    }

    fn drain(&self, color: Color, force: bool) -> Result<Transition, Rejection> {
        if self.state.colors[color].drained {
            return Ok(Transition::NoChange);
        }
        let percent = self.state.share(color);
        if percent > 0 && !force {
            return Err(Rejection::HasTraffic { color, percent });
        }
        let mut next = self.next();
        next.colors[color].drained = true;
        if color == self.state.standby() && percent > 0 {
            // A drained color takes nothing new, so by force its candidacy ends; the share goes to the active one.
            self.take_over(&mut next);
            next.weight = Weight::ZERO;
            next.colors[color].left = true;
        }
        Ok(Transition::Changed(next, Applied::Draining(color)))
    }

    fn hold(&self, max: std::time::Duration) -> Transition {
        if self.state.hold.is_some() {
            return Transition::NoChange;
        }
        let mut next = self.next();
        next.hold = Some(Hold { since: self.now, max });
        Transition::Changed(next, Applied::Held)
    }

    fn release(&self) -> Transition {
        if self.state.hold.is_none() {
            return Transition::NoChange;
        }
        let mut next = self.next();
        next.hold = None;
        Transition::Changed(next, Applied::Released)
    }

    fn maintain(&self, wanted: Option<&Option<String>>) -> Transition {
        let same = match (&self.state.maintenance, wanted) {
            (None, None) => true,
            (Some(is), Some(message)) => is.message == *message,
            _ => false,
        };
        if same {
            return Transition::NoChange;
        }
        let mut next = self.next();
        next.maintenance = wanted.map(|message| Maintenance {
            message: message.clone(),
            since: self.now,
        });
        Transition::Changed(next, Applied::Maintenance(wanted.is_some()))
    }

    fn set_endpoints(
        &self,
        color: Color,
        endpoints: &FileEndpoints,
        revision: Option<&str>,
        file: &FileEndpoints,
    ) -> Transition {
        let mut next = self.next();
        let target = &mut next.colors[color];
        for (service, list) in endpoints {
            let said = file.get(service).cloned().unwrap_or_default();
            let current = target
                .overrides
                .get(service)
                .map_or(&said, |held| &held.endpoints);
            if list != current {
                target.overrides.insert(
                    service.clone(),
                    Override {
                        endpoints: list.clone(),
                        file: said,
                    },
                );
            }
        }
        if let Some(revision) = revision {
            target.revision = Some(revision.to_owned());
        }
        let before = &self.state.colors[color];
        if target.overrides == before.overrides && target.revision == before.revision {
            return Transition::NoChange;
        }
        target.incarnation += 1;
        target.redeployed_at = Some(self.now);
        // What was drained is gone; what is there now is new.
        target.drained = false;
        Transition::Changed(next, Applied::EndpointsSet(color))
    }

    /// The file's endpoints changed: overrides set over an older value of the file end, and so the file wins.
    fn reload(&self, file: &super::ByColor<FileEndpoints>, changed: &super::ByColor<bool>) -> Transition {
        let mut next = self.next();
        let mut touched = false;
        for color in Color::ALL {
            let target = &mut next.colors[color];
            let held = target.overrides.len();
            // A service that the file does not name for this color has no endpoints there: the same as an empty list.
            target
                .overrides
                .retain(|service, over| file[color].get(service).map_or(&[][..], Vec::as_slice) == over.file);
            if changed[color] || target.overrides.len() != held {
                touched = true;
                target.incarnation += 1;
                target.redeployed_at = Some(self.now);
            }
        }
        if touched {
            Transition::Changed(next, Applied::Reloaded)
        } else {
            Transition::NoChange
        }
    }
}
