//! The time after a switch in which the guard watches: pure bookkeeping of what it found.

use std::time::Duration;

use jiff::Timestamp;

use super::apply::Step;
use super::{Applied, Color, HealthFacts, Note, Rejection, Transition};

/// What the guard is to do after a switch; comes with the facts of the command that switches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watch {
    /// How long it watches.
    pub length: Duration,
    /// What the color that is left was like.
    pub baseline: Baseline,
}

/// What the requests of the outgoing color were, in the time before the switch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Baseline {
    /// The time that was looked at.
    pub covered: Duration,
    /// Requests.
    pub requests: u64,
    /// Of them, failed on the app's side or the proxy's.
    pub errors: u64,
    /// Of them, answered 400 to 499.
    pub client_errors: u64,
    /// Connections that could not be made.
    pub connect_errors: u64,
    /// The latency that half of the requests did not exceed; `None` without requests.
    pub p50: Option<Duration>,
    /// The same for 95 of 100.
    pub p95: Option<Duration>,
    /// The same for 99 of 100.
    pub p99: Option<Duration>,
}

/// A bake: the newest one of an app, under way or over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bake {
    /// The generation of the switch that began it: its name.
    pub of: u64,
    /// The color that was left, and stays warm.
    pub from: Color,
    /// The color that is watched.
    pub to: Color,
    /// When it began.
    pub since: Timestamp,
    /// How long it watches.
    pub length: Duration,
    /// How long it has watched. The time in which no proxy ran is not in it.
    pub watched: Duration,
    /// How it stands.
    pub phase: BakePhase,
    /// What it compares with.
    pub baseline: Baseline,
    /// The last thing that was found, in words.
    pub note: String,
}

/// How a bake stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BakePhase {
    /// It watches.
    Watching,
    /// It wants to go back and cannot: the color that was left is not there any more. It goes on watching.
    Blocked,
    /// Over, and all was well.
    Passed,
    /// Over, and nobody can say: too few requests. Traffic stays where it is.
    Insufficient,
    /// It went back.
    RolledBack,
    /// Somebody moved traffic meanwhile: their word stands.
    Ended,
}

impl BakePhase {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Watching,
        Self::Blocked,
        Self::Passed,
        Self::Insufficient,
        Self::RolledBack,
        Self::Ended,
    ];

    /// The word in status, API and journal.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Watching => "watching",
            Self::Blocked => "rollback_blocked",
            Self::Passed => "passed",
            Self::Insufficient => "insufficient_data",
            Self::RolledBack => "rolled_back",
            Self::Ended => "ended",
        }
    }

    /// Whether the guard still watches.
    #[must_use]
    pub const fn runs(self) -> bool {
        matches!(self, Self::Watching | Self::Blocked)
    }
}

impl Step<'_> {
    /// The running bake with this name.
    fn baking(&self, of: u64) -> Option<&Bake> {
        let bake = self.state.bake.as_ref();
        bake.filter(|bake| bake.of == of && bake.phase.runs())
    }

    /// An evaluation, or the end of a bake: written down, nothing moves.
    pub(super) fn watched(
        &self,
        of: u64,
        watched: Duration,
        end: Option<BakePhase>,
        note: &str,
    ) -> Transition {
        let Some(bake) = self.baking(of) else {
            return Transition::NoChange;
        };
        let mut bake = bake.clone();
        bake.watched = bake.watched.max(watched);
        note.clone_into(&mut bake.note);
        let said = match end {
            Some(BakePhase::Passed) => Note::BakePassed,
            Some(BakePhase::Insufficient) => Note::BakeInsufficient,
            _ => Note::Judged,
        };
        if said != Note::Judged {
            bake.phase = if said == Note::BakePassed {
                BakePhase::Passed
            } else {
                BakePhase::Insufficient
            };
        }
        self.noted(bake, said)
    }

    fn noted(&self, bake: Bake, said: Note) -> Transition {
        let mut next = self.state.clone();
        next.bake = Some(bake);
        Transition::Noted(next, said)
    }

    /// The guard goes back to the color that was left; where that is gone, it says so and traffic stays.
    pub(super) fn guard_back(&self, of: u64, facts: &HealthFacts, note: &str) -> Transition {
        let Some(bake) = self.baking(of) else {
            return Transition::NoChange;
        };
        let mut bake = bake.clone();
        if self.state.active != bake.to {
            return Transition::NoChange;
        }
        let judged = match self.state.trail.last() {
            Some(target) if target.color == bake.from => self.judge_rollback(target, facts),
            _ => Err(Rejection::NothingWarm {
                why: format!("{} is not where the switch came from any more", bake.from),
            }),
        };
        if let Err(why) = judged {
            let said = if bake.phase == BakePhase::Blocked {
                Note::Judged
            } else {
                Note::BakeBlocked
            };
            bake.phase = BakePhase::Blocked;
            bake.note = format!("{note}; {why}");
            return self.noted(bake, said);
        }
        let (from, to) = (self.state.active, bake.from);
        let mut next = self.next();
        next.trail.pop();
        next.left_by_rollback = Some(from);
        bake.phase = BakePhase::RolledBack;
        note.clone_into(&mut bake.note);
        next.bake = Some(bake);
        self.activate(&mut next, to);
        Transition::Changed(next, Applied::RolledBack { from, to })
    }
}
