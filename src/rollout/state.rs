//! The routing state of one app: all that is stored, and nothing that can be derived.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;

use super::{Bake, ByColor, Color, Rollout};

/// How many earlier activations an app remembers for `rollback`.
pub const TRAIL_MAX: usize = 16;

/// The candidate's share of the traffic in percent, 0 to 99. (100 % is a switch, not a weight.)
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Weight(u8);

impl Weight {
    /// No candidate: the active color has everything.
    pub const ZERO: Self = Self(0);

    /// A candidate's share; `None` for 100 and above.
    #[must_use]
    pub const fn candidate(percent: u8) -> Option<Self> {
        if percent < 100 { Some(Self(percent)) } else { None }
    }

    /// The share in percent.
    #[must_use]
    pub const fn percent(self) -> u8 {
        self.0
    }
}

/// The stored state of one app. Every field is an operator's decision or a consequence of one; health is not
/// here, because nobody decides it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppState {
    /// Counts every committed change of this state by exactly one; the first state is 1.
    pub generation: u64,
    /// The color that takes the traffic.
    pub active: Color,
    /// The standby's share while it is a candidate; zero otherwise.
    pub weight: Weight,
    /// What clients' keys are hashed with; another one for each candidacy.
    pub salt: u64,
    /// What is known of each color.
    pub colors: ByColor<ColorState>,
    /// Requests wait instead of being served.
    pub hold: Option<Hold>,
    /// Requests are answered 503 by the proxy itself.
    pub maintenance: Option<Maintenance>,
    /// Colors that were active before, oldest first, at most [`TRAIL_MAX`]: where `rollback` goes.
    pub trail: Vec<Activation>,
    /// The color that the last rollback left. The next rollback never returns to it; a switch clears it.
    pub left_by_rollback: Option<Color>,
    /// When the active color last changed.
    pub switched_at: Timestamp,
    /// The newest bake: what the guard watches, or how it ended.
    pub bake: Option<Bake>,
    /// The newest rollout, under way or over.
    pub rollout: Option<Rollout>,
}

impl AppState {
    /// The state of an app that has never been switched: generation 1, everything to `active`.
    #[must_use]
    pub fn first(active: Color, now: Timestamp) -> Self {
        Self {
            generation: 1,
            active,
            weight: Weight::ZERO,
            salt: 0,
            colors: ByColor::default(),
            hold: None,
            maintenance: None,
            trail: Vec::new(),
            left_by_rollback: None,
            switched_at: now,
            bake: None,
            rollout: None,
        }
    }

    /// The color that is not active.
    #[must_use]
    pub const fn standby(&self) -> Color {
        self.active.other()
    }

    /// A color's share of the traffic in percent.
    #[must_use]
    pub fn share(&self, color: Color) -> u8 {
        if color == self.active {
            100 - self.weight.percent()
        } else {
            self.weight.percent()
        }
    }
}

/// What is stored of one color.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ColorState {
    /// The operator's name for what runs in this color.
    pub revision: Option<String>,
    /// Counts redeployments (endpoints or revision changed): a rollback target whose count moved is gone.
    pub incarnation: u64,
    /// When it was last redeployed, for the sentence that refuses a rollback.
    pub redeployed_at: Option<Timestamp>,
    /// Endpoints set through the API, by service; they override the file's.
    pub overrides: BTreeMap<String, Override>,
    /// `drain` was said of this color: not even explicit traffic enters it.
    pub drained: bool,
    /// It had a share of the traffic and has none now: there is something to wait for.
    pub left: bool,
}

/// Endpoints that were set through the API for one service and color.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Override {
    /// The endpoints in force.
    pub endpoints: Vec<String>,
    /// What the file said when they were set. When the file's own value changes, the file wins.
    pub file: Vec<String>,
}

/// A time in which requests wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hold {
    /// When it began.
    pub since: Timestamp,
    /// How long it lasts at most; then it is released to the active color.
    pub max: Duration,
}

/// A time in which the proxy answers 503 itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Maintenance {
    /// What the answer says.
    pub message: Option<String>,
    /// When it began.
    pub since: Timestamp,
}

/// A color as it was while active.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Activation {
    /// The color.
    pub color: Color,
    /// Its revision then.
    pub revision: Option<String>,
    /// Its [`ColorState::incarnation`] then.
    pub incarnation: u64,
    /// The last generation in which it was active.
    pub generation: u64,
}

impl std::fmt::Display for Activation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.revision {
            Some(revision) => write!(
                f,
                "{}@{revision} until generation {}",
                self.color, self.generation
            ),
            None => write!(f, "{} until generation {}", self.color, self.generation),
        }
    }
}
