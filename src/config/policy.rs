//! What guards a switch, as the program uses it: gates before it, the guard after it, rollouts, and who is told.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use super::model::EndpointAddress;
use crate::expr::{Condition, Type, Vocabulary};
use crate::rollout::RolloutStep;

/// What conditions know of one color in its window.
const COLOR: Type = Type::Record(&[
    ("requests", Type::Int),
    ("errors", Type::Int),
    ("rps", Type::Double),
    ("error_rate", Type::Double),
    ("rate_4xx", Type::Double),
    ("p50", Type::Double),
    ("p95", Type::Double),
    ("p99", Type::Double),
    ("weight", Type::Int),
    ("connect_errors", Type::Int),
]);

/// What conditions know of copies that the standby was sent (`[app.NAME.mirror]`).
const MIRROR: Type = Type::Record(&[
    ("requests", Type::Int),
    ("different", Type::Int),
    ("failed", Type::Int),
    ("difference_rate", Type::Double),
    ("failure_rate", Type::Double),
    ("slowdown", Type::Double),
]);

/// The variables of conditions over the windows. `candidate` is the color moved to, `baseline` the color moved from,
/// `app` both together, `mirror` what the standby made of copies.
pub const WINDOW_WORDS: &Vocabulary = &[
    ("candidate", COLOR),
    ("baseline", COLOR),
    ("app", COLOR),
    ("mirror", MIRROR),
];

/// `[app.NAME.guard]`: what watches after a switch.
#[derive(Clone, Debug, PartialEq)]
pub struct Guard {
    /// How long it watches; zero = no guard.
    pub bake: Duration,
    /// It goes back when one of these holds, often enough in a row.
    pub rollback_when: Vec<Condition>,
    /// It says so when one of these holds.
    pub warn_when: Vec<Condition>,
    /// Requests without which a rate or a latency says nothing.
    pub min_requests: u64,
    /// Evaluations in a row in which a condition holds before it counts.
    pub evaluations: u32,
    /// Between two evaluations.
    pub every: Duration,
    /// Latencies of so long after the switch are left out: a cold cache is no regression.
    pub grace: Duration,
    /// What the end of the bake means when there were too few requests.
    pub on_insufficient_data: WithoutData,
    /// Failed connects in a row that trip it at once; 0 = off.
    pub connect_failures: u32,
}

/// `guard.on_insufficient_data`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WithoutData {
    /// Traffic stays, the old color stays warm, and it is said that nobody knows.
    Stay,
    /// It counts as passed.
    Promote,
    /// It goes back.
    Rollback,
}

/// `[app.NAME.gate.NAME]`: a check with three verdicts.
#[derive(Clone, Debug, PartialEq)]
pub struct Gate {
    /// Its name; a metric label.
    pub name: String,
    /// What is asked.
    pub kind: GateKind,
    /// How long it may take to say pass or fail.
    pub timeout: Duration,
    /// What happens when it does not.
    pub on_timeout: OnTimeout,
    /// Requests without which a rate or a latency says nothing.
    pub min_requests: u64,
}

/// What a gate asks.
#[derive(Clone, Debug, PartialEq)]
pub enum GateKind {
    /// All of these must hold.
    Expr(Vec<Condition>),
    /// A command: exit code 0 passes.
    Run(Vec<String>),
    /// A POST to this URL, answered `{"status": "pass" | "fail" | "wait"}`.
    Webhook(Url),
    /// An operator.
    Approve,
}

impl GateKind {
    /// The key in the file.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Expr(_) => "expr",
            Self::Run(_) => "run",
            Self::Webhook(_) => "webhook",
            Self::Approve => "approve",
        }
    }
}

/// `gate.on_timeout`. Never promote: a timer decides nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnTimeout {
    /// Nothing moves: a switch is refused, a rollout waits in its step.
    Stay,
    /// Traffic goes back: a rollout ends. (Before a switch nothing has moved yet, so it is refused.)
    Rollback,
}

/// `http://HOST[:PORT]/PATH`, or `https://`, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    /// As it is shown: without user, password and query.
    pub shown: String,
    /// Where to connect: `host:port`.
    pub authority: String,
    /// The same as an endpoint: with what is spoken there.
    pub endpoint: EndpointAddress,
    /// What is asked for: path and query.
    pub target: String,
    /// `ca`: who signs its certificate; `None`: the system's authorities say.
    pub ca: Option<PathBuf>,
}

/// What a switch needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Requirement {
    /// Every service of the target has a healthy endpoint.
    Healthy,
    /// The target's endpoints answer with the revision that was announced.
    Identity,
    /// The smoke probes of `[[app.NAME.deploy.smoke]]` pass.
    Smoke,
    /// A gate of the app.
    Gate(String),
}

impl Requirement {
    /// Its name in the file and in metrics.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Healthy => "healthy",
            Self::Identity => "identity",
            Self::Smoke => "smoke",
            Self::Gate(name) => name,
        }
    }
}

/// `[app.NAME.rollout]`
#[derive(Clone, Debug, PartialEq)]
pub struct RolloutPlan {
    /// The steps, unless `rollout start` names others.
    pub steps: Vec<RolloutStep>,
    /// What must pass before each next step.
    pub gate: Vec<StepGate>,
}

/// One entry of `rollout.gate`.
#[derive(Clone, Debug, PartialEq)]
pub enum StepGate {
    /// A condition that must hold.
    Holds(Condition),
    /// A gate of the app, by name.
    Named(String),
}

/// All of it, of one app.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// `[app.NAME.gate.NAME]`
    pub gates: BTreeMap<String, Gate>,
    /// `[app.NAME.guard]`
    pub guard: Guard,
    /// `[app.NAME.rollout]`, or its defaults.
    pub rollout: RolloutPlan,
    /// `standby_ttl`: how long the color that a switch left is kept; `None`: nobody says.
    pub standby_ttl: Option<Duration>,
    /// Where the app says which revision it is.
    pub revision_by: Option<RevisionBy>,
}

/// Where an app says which revision it is: `revision_header` or `revision_json`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RevisionBy {
    /// In this header of its answers, in lower case.
    Header(String),
    /// At this JSON pointer (RFC 6901) of its health page.
    Json(String),
}

impl std::fmt::Display for RevisionBy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Header(name) => f.write_str(name),
            Self::Json(pointer) => write!(f, "JSON {pointer}"),
        }
    }
}

/// `[[notify]]`: who is told.
#[derive(Clone, Debug, PartialEq)]
pub struct Notify {
    /// Of what.
    pub on: Vec<NotifyOn>,
    /// Only of this app.
    pub app: Option<String>,
    /// How.
    pub by: NotifyBy,
    /// How long one try may take.
    pub timeout: Duration,
}

/// How somebody is told.
#[derive(Clone, Debug, PartialEq)]
pub enum NotifyBy {
    /// A POST to this URL.
    Webhook(Url),
    /// A command that gets the event on its standard input.
    Run(Vec<String>),
}

/// `notify.on`
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum NotifyOn {
    /// Traffic moved whole.
    Switch,
    /// Traffic went back.
    Rollback,
    /// The guard warned, went back, could not go back, or its bake is over.
    Guard,
    /// A rollout began, moved or ended.
    Rollout,
    /// A standby has been kept for as long as `standby_ttl` says.
    Standby,
}

impl NotifyOn {
    /// The word in the file.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Switch => "switch",
            Self::Rollback => "rollback",
            Self::Guard => "guard",
            Self::Rollout => "rollout",
            Self::Standby => "standby",
        }
    }
}
