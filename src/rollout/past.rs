//! `rollback --to`: back to what was active at some time, where that is still what it was.

use super::apply::Step;
use super::{Activation, Applied, Color, HealthFacts, Rejection, Transition, Weight};

/// What was active at some time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Past {
    /// What was active at a generation. The history knows which color that was.
    Generation {
        /// The generation.
        at: u64,
        /// The color that was active then.
        color: Color,
    },
    /// The last time that this revision was active.
    Revision(String),
}

impl std::fmt::Display for Past {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Generation { at, color } => write!(f, "{color} at generation {at}"),
            Self::Revision(revision) => write!(f, "revision {revision}"),
        }
    }
}

impl Step<'_> {
    /// Like any rollback, only to a place that is named: nothing older than what is warm, and nothing redeployed since.
    pub(super) fn rollback_to(
        &self,
        past: &Past,
        facts: &HealthFacts,
        ignore_health: bool,
    ) -> Result<Transition, Rejection> {
        if self.is_now(past) {
            return Ok(match self.state.weight {
                Weight::ZERO => Transition::NoChange,
                // A candidate's share is what there is to take back.
                _ => self.end_candidacy(),
            });
        }
        let nothing = |why: String| Rejection::NothingWarm { why };
        let trail = &self.state.trail;
        let found = match past {
            Past::Revision(revision) => trail
                .iter()
                .rposition(|was| was.revision.as_ref() == Some(revision)),
            // A place bears the last generation in which it was active.
            Past::Generation { at, color } => {
                let covers = |was: &Activation| was.color == *color && was.generation >= *at;
                trail.iter().position(covers)
            }
        };
        let Some(found) = found else {
            let known: Vec<_> = trail.iter().map(ToString::to_string).collect();
            let known = match known.as_slice() {
                [] => "nothing older is known".to_owned(),
                known => format!("known are: {}", known.join(", ")),
            };
            return Err(nothing(format!("{past} is not on the way back; {known}")));
        };
        let target = &trail[found];
        if target.color == self.state.active {
            return Err(nothing(format!(
                "{past} was {target}, and {} has been redeployed since: it is what is active now",
                target.color
            )));
        }
        if !ignore_health {
            self.judge_rollback(target, facts)?;
        }
        let (from, to) = (self.state.active, target.color);
        let mut next = self.next();
        self.take_over(&mut next);
        next.trail.truncate(found);
        next.left_by_rollback = Some(from);
        self.activate(&mut next, to);
        Ok(Transition::Changed(next, Applied::RolledBack { from, to }))
    }

    /// It is what is active, and has been since then.
    fn is_now(&self, past: &Past) -> bool {
        let active = self.state.active;
        let since = self.state.trail.last().map_or(0, |was| was.generation);
        match past {
            Past::Generation { at, color } => *color == active && *at > since,
            Past::Revision(revision) => self.state.colors[active].revision.as_ref() == Some(revision),
        }
    }
}
