//! The exit codes of the command line: stable, so that scripts may branch on them.

/// How a command ended. The numbers are the interface; they never change their meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Exit {
    /// Done and verified, or already so.
    Done = 0,
    /// Failed for a reason that has no number of its own.
    Failed = 1,
    /// The command line, a name or a value in it makes no sense.
    Usage = 2,
    /// The config file was refused.
    ConfigInvalid = 3,
    /// Refused by health or a gate; traffic unchanged.
    Refused = 4,
    /// Still running at the timeout; `status` tells the outcome.
    StillRunning = 5,
    /// The generation moved, or another operation holds the app.
    Conflict = 6,
    /// The admin endpoint cannot be reached.
    Unreachable = 7,
    /// Not permitted.
    NotPermitted = 8,
    /// Traffic moved and was rolled back.
    RolledBack = 9,
    /// Rollback impossible: nothing older is warm.
    NothingWarm = 10,
    /// A question was answered with no.
    Declined = 11,
    /// Interrupted by a signal.
    Interrupted = 130,
}

impl Exit {
    /// All of them, by number.
    pub const ALL: [Self; 13] = [
        Self::Done,
        Self::Failed,
        Self::Usage,
        Self::ConfigInvalid,
        Self::Refused,
        Self::StillRunning,
        Self::Conflict,
        Self::Unreachable,
        Self::NotPermitted,
        Self::RolledBack,
        Self::NothingWarm,
        Self::Declined,
        Self::Interrupted,
    ];

    /// The number that the process ends with.
    #[must_use]
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// One line for the manual.
    #[must_use]
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Done => "done and verified (already so: also 0, changed: false)",
            Self::Failed => "failed for another reason",
            Self::Usage => "usage",
            Self::ConfigInvalid => "config invalid",
            Self::Refused => "refused by health or a gate; traffic unchanged",
            Self::StillRunning => "still running at the timeout; `cutover status` tells the outcome",
            Self::Conflict => "conflict: the generation moved, or another operation holds the app",
            Self::Unreachable => "the admin endpoint cannot be reached",
            Self::NotPermitted => "not permitted",
            Self::RolledBack => "traffic moved and was rolled back",
            Self::NothingWarm => "rollback impossible: nothing older is warm",
            Self::Declined => "a question was answered with no; what was done before it stays",
            Self::Interrupted => {
                "interrupted (Ctrl-C, SIGTERM); a running command was ended with all it started"
            }
        }
    }
}
