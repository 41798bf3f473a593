//! What the doors ask for, and what they get back.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;

use crate::rollout::{Actor, Color, RolloutStep};
use crate::upstream::{EndpointKey, ProbeReport};

/// One request for a change, before any fact is known.
#[derive(Clone, Debug)]
pub struct Ask {
    /// The app; `None` is the only one there is.
    pub app: Option<String>,
    /// What is wanted.
    pub intent: Intent,
    /// Refuse unless the generation is this one.
    pub expect_generation: Option<u64>,
    /// Who asks.
    pub by: Actor,
    /// Why, in their words.
    pub reason: String,
    /// Repeats the first answer for the same key.
    pub idempotency_key: Option<String>,
    /// The secret of the lease under which this is asked.
    pub lease: Option<String>,
    /// Say what would happen, and do nothing.
    pub dry_run: bool,
}

/// What can be asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Intent {
    /// All traffic to a color.
    Switch {
        /// Which.
        to: Wanted,
        /// Although the gates refuse.
        force: bool,
        /// End the hold afterwards, whatever became of the switch.
        release: bool,
    },
    /// Back to the color active before.
    Rollback {
        /// Although the target cannot be reached or was redeployed.
        ignore_health: bool,
    },
    /// Back to what was active at some time.
    RollbackTo {
        /// When.
        past: Before,
        /// Although the target cannot be reached or was redeployed.
        ignore_health: bool,
    },
    /// A share in percent for a color, the rest for the other.
    Weight {
        /// The color.
        color: Color,
        /// Its share, 0 to 100.
        percent: u8,
        /// Although the gates refuse.
        force: bool,
    },
    /// A color finishes what it has.
    Drain {
        /// The color.
        color: Color,
        /// Although it has traffic.
        force: bool,
    },
    /// Requests wait.
    Hold {
        /// At most this long.
        max: Duration,
        /// Answer when no request runs any more.
        idle: bool,
    },
    /// Requests go on.
    Release,
    /// 503 from the proxy itself, with a message; `None` ends it.
    Maintenance(Option<Option<String>>),
    /// A switch in steps.
    Rollout(RolloutAsk),
    /// What runs in a color.
    SetEndpoints {
        /// The color.
        color: Color,
        /// Endpoints by service, as written; empty keeps them all.
        endpoints: BTreeMap<String, Vec<String>>,
        /// The revision; `None` keeps it.
        revision: Option<String>,
    },
}

/// A time that a rollback is to go back to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Before {
    /// That of a generation.
    Generation(u64),
    /// The last one of a revision.
    Revision(String),
}

/// What can be asked of a rollout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RolloutAsk {
    /// Begin one.
    Start {
        /// The color that gains.
        to: Wanted,
        /// The steps; `None`: those of the config.
        steps: Option<Vec<RolloutStep>>,
    },
    /// The next step now.
    Promote {
        /// All the way.
        full: bool,
    },
    /// Stop the clock.
    Pause,
    /// Go on.
    Resume,
    /// Take the share away.
    Abort,
}

/// What a gate says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Yes.
    Pass,
    /// No.
    Fail,
    /// Nobody can say yet.
    Insufficient,
}

impl Verdict {
    /// The word in API and history.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::Insufficient => "insufficient data",
        }
    }

    /// The value of `cutover_gate_state`.
    pub(super) const fn number(self) -> i64 {
        match self {
            Self::Pass => 1,
            Self::Fail => 0,
            Self::Insufficient => -1,
        }
    }
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

/// A gate, and what it said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gated {
    /// Its name.
    pub gate: String,
    /// `expr`, `run`, `webhook`, `approve`, `identity`
    pub kind: &'static str,
    /// What it says.
    pub verdict: Verdict,
    /// Why: values with their counts and windows, an exit code, a webhook's words.
    pub detail: String,
}

impl std::fmt::Display for Gated {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "gate {} ({}): {}: {}",
            self.gate, self.kind, self.verdict, self.detail
        )
    }
}

/// The target of a switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// This color.
    Color(Color),
    /// Whichever is not active.
    Standby,
}

/// A request was carried out, or would be (`dry_run`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The app.
    pub app: String,
    /// `switch`, `rollback`, `weight`, …
    pub verb: &'static str,
    /// False: it was already so.
    pub changed: bool,
    /// Nothing was done, because nothing should be.
    pub dry_run: bool,
    /// The generation now (for a dry run: still).
    pub generation: u64,
    /// The active color now (for a dry run: as it would be).
    pub active: Color,
    /// The active color before.
    pub from: Color,
    /// The candidate's share in percent.
    pub weight: u8,
    /// How the proof went, for a switch.
    pub verify: Option<Verify>,
    /// What the gates said.
    pub gates: Vec<Gated>,
    /// The guard watches until then; `None`: no bake began.
    pub bakes_until: Option<Timestamp>,
    /// What the operator should know: skipped checks, a failing page, undurable state.
    pub warnings: Vec<String>,
    /// The answer was given before, to the same idempotency key.
    pub repeated: bool,
}

/// The proof of a switch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verify {
    /// This many requests through our own listener were answered by the new color.
    Verified {
        /// How many.
        requests: u32,
    },
    /// Not done, and why: off, no health path, no usable listener, forced.
    Skipped(String),
    /// Our own listener could not be reached; the switch stands.
    Unverified(String),
}

/// A request was refused or failed. Unless it says so, nothing moved.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Refusal {
    /// There is no such app.
    #[error("there is no app `{name}`; there are: {}", .known.join(", "))]
    UnknownApp {
        /// What was asked for.
        name: String,
        /// What there is.
        known: Vec<String>,
    },
    /// No app was named, and there are several.
    #[error("which app? There are: {}", .known.join(", "))]
    WhichApp {
        /// What there is.
        known: Vec<String>,
    },
    /// The request makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// The generation moved.
    #[error("the app is at generation {is}, not {expected}: somebody changed it in between")]
    Moved {
        /// Expected.
        expected: u64,
        /// Found.
        is: u64,
    },
    /// Another operation holds the app.
    #[error("{operation} by {by} is still running")]
    Busy {
        /// What runs.
        operation: String,
        /// Who started it.
        by: String,
    },
    /// The target is not healthy.
    #[error("{color} is not healthy; still serving {active}")]
    Unhealthy {
        /// The target.
        color: Color,
        /// What serves on.
        active: Color,
        /// Every probe of the target.
        probes: Vec<Probe>,
    },
    /// A gate does not pass.
    #[error("gate {} does not pass; still serving {active}: {}", .gates.last().map_or("", |gated| &gated.gate), .gates.last().map_or_else(String::new, ToString::to_string))]
    Gate {
        /// What serves on.
        active: Color,
        /// What each gate said that was asked, in order.
        gates: Vec<Gated>,
    },
    /// The color still has traffic, or never had any.
    #[error("{0}")]
    NotDrainable(String),
    /// Nothing to roll back to.
    #[error("rollback is impossible: {0}")]
    NothingWarm(String),
    /// The switch was made, its proof failed, and it was taken back.
    #[error("{to} did not prove itself and traffic is back on {back}: {why}")]
    RolledBack {
        /// Where it went.
        to: Color,
        /// Where it is now.
        back: Color,
        /// What the proof found.
        why: String,
        /// The generation now.
        generation: u64,
    },
    /// The store could not take the change, so it was not made.
    #[error("the change could not be made durable, so it was not made: {0}")]
    NotDurable(String),
    /// The app's stored state was damaged; changes need `--force --reason`.
    #[error(
        "the stored state of this app was damaged ({0}); look at `status`, then repeat with --force --reason"
    )]
    Degraded(String),
    /// It did not happen in the time given.
    #[error("{0}")]
    TimedOut(String),
    /// The config file was refused.
    #[error("the config file was refused; the running configuration stays\n{0}")]
    Config(String),
    /// The process stops.
    #[error("cutover is stopping")]
    Stopping,
}

/// One endpoint's probe, as a refusal lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// The endpoint.
    pub endpoint: EndpointKey,
    /// What the probe found.
    pub report: ProbeReport,
}
