//! Every change there is, as a value.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::{BakePhase, Color, Note, Past, RolloutChange, Watch};

/// A change of one app, with who wants it and why. CLI, API, file watcher, guard and pipeline all send this.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// The app it is about.
    pub app: String,
    /// What to change.
    pub change: Change,
    /// Refuse unless the app's generation is this one (`If-Match`, `--expect-generation`).
    pub expect_generation: Option<u64>,
    /// Who.
    pub by: Actor,
    /// Why, in the operator's words; may be empty.
    pub reason: String,
    /// Repeating a command with the same key repeats its first answer.
    pub idempotency_key: Option<String>,
}

/// Who sent a command, and through which door.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Actor {
    /// `uid 1000 (deploy)`, a token's name, `config file`, `verify`.
    pub name: String,
    /// The door.
    pub trigger: Trigger,
}

/// The door through which a command came; a metric label, so a closed set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trigger {
    /// The command line, over the admin socket.
    Cli,
    /// The admin API, called by something else.
    Api,
    /// A change of the config file.
    File,
    /// The proof after a switch found the wrong color answering.
    Verify,
    /// A hold reached its limit, or the process restarted in one.
    Timer,
    /// The active color had nothing healthy any more.
    Failover,
    /// The process itself: first start, restore.
    Start,
    /// The guard's conditions tripped.
    Guard,
    /// A rollout's driver went a step on, or back.
    Rollout,
}

impl Trigger {
    /// All of them, in label order.
    pub const ALL: [Self; 9] = [
        Self::Cli,
        Self::Api,
        Self::File,
        Self::Verify,
        Self::Timer,
        Self::Failover,
        Self::Start,
        Self::Guard,
        Self::Rollout,
    ];

    /// The label value.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cli => "cli",
            Self::Api => "api",
            Self::File => "file",
            Self::Verify => "verify",
            Self::Timer => "timer",
            Self::Failover => "failover",
            Self::Start => "start",
            Self::Guard => "guard",
            Self::Rollout => "rollout",
        }
    }
}

impl fmt::Display for Trigger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// What a command changes. Facts that the pure machine cannot know (health, the file's endpoints) come inside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Move all traffic to a color, now.
    Switch {
        /// The color to move to.
        to: Color,
        /// What the gates found, and in which generation.
        facts: HealthFacts,
        /// Move although the gates refuse.
        force: bool,
    },
    /// Go back to the color that was active before; while a candidate has a share, take the share away.
    Rollback {
        /// What the last known probes say of the color to go back to. Never a fresh probe.
        facts: HealthFacts,
        /// Go back although the target cannot be reached or was redeployed.
        ignore_health: bool,
    },
    /// Go back to what was active at some time.
    RollbackTo {
        /// What.
        past: Past,
        /// As for [`Change::Rollback`].
        facts: HealthFacts,
        /// As for [`Change::Rollback`].
        ignore_health: bool,
    },
    /// The proof after a switch failed: return to where the switch came from.
    Revert {
        /// The generation that the failed switch made.
        of: u64,
    },
    /// The guard found something, or its time is over: written down, nothing moves. What it found is the reason.
    Watched {
        /// The bake.
        of: u64,
        /// How long it has watched.
        watched: Duration,
        /// How the bake ended; `None`: it goes on.
        end: Option<BakePhase>,
    },
    /// The guard's conditions tripped: back to the color that the bake's switch left.
    GuardBack {
        /// The bake.
        of: u64,
        /// What the last known probes say of that color.
        facts: HealthFacts,
    },
    /// What is wanted of a rollout.
    Rollout(RolloutChange),
    /// A line in the journal that changes nothing.
    Note(Note),
    /// Give one color a share in percent, and the other the rest.
    Weight {
        /// The color named.
        color: Color,
        /// Its share, 0 to 100.
        percent: u8,
        /// What the gates found of the color that gains.
        facts: HealthFacts,
        /// Move although the gates refuse.
        force: bool,
    },
    /// Let a color finish what it has and take nothing new, not even explicit traffic.
    Drain {
        /// The color to drain.
        color: Color,
        /// Drain it although it has a share of the traffic.
        force: bool,
    },
    /// Let requests wait.
    Hold {
        /// How long at most.
        max: Duration,
    },
    /// Let waiting requests go on.
    Release,
    /// Answer 503 from the proxy itself (`Some`), or stop doing so (`None`).
    Maintenance(Option<Option<String>>),
    /// Say what runs in a color: endpoints by service, a revision, or both.
    SetEndpoints {
        /// The color.
        color: Color,
        /// The new endpoints of each service named. Empty: only the revision changes.
        endpoints: BTreeMap<String, Vec<String>>,
        /// The new revision; `None` keeps the old one.
        revision: Option<String>,
        /// What the config file says of the named services, to notice later that it changed.
        file: FileEndpoints,
    },
    /// A new config file was taken into use; `file` is what it says of every service.
    Reload {
        /// The file's endpoints, by color and service.
        file: super::ByColor<FileEndpoints>,
        /// The colors whose endpoints from the file differ from the file before.
        changed: super::ByColor<bool>,
    },
}

/// What the config file says: endpoints by service.
pub type FileEndpoints = BTreeMap<String, Vec<String>>;

/// What is known of the health of the color a command moves traffic to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HealthFacts {
    /// The generation in which this was found out; a command judged on an older one is refused.
    pub judged_in: Option<u64>,
    /// Every service has a healthy endpoint.
    pub healthy: bool,
    /// Some endpoint of every service at least accepts connections (for `rollback`, which forgives the rest).
    pub reachable: bool,
    /// One line for each endpoint that is not healthy.
    pub refusals: Vec<String>,
    /// What is to watch over the color once it has all traffic; `None`: nothing.
    pub watch: Option<Watch>,
}

impl HealthFacts {
    /// Facts that let everything pass, for tests and for moves that need none.
    #[must_use]
    pub fn good() -> Self {
        Self {
            judged_in: None,
            healthy: true,
            reachable: true,
            refusals: Vec::new(),
            watch: None,
        }
    }
}
