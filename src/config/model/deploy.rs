//! `[app.NAME.deploy]`, complete. Only `cutover deploy` and its kin act on it: the server runs no command.
//!
//! Texts keep their `${VAR}`, `{color}`, `{other}`, `{revision}`, `{app}` and `{args}`: they are filled in when a step
//! runs.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::rollout::Color;

/// What `cutover deploy` does.
#[derive(Clone, Debug, PartialEq)]
pub struct Deploy {
    /// The steps in their order.
    pub steps: Vec<Step>,
    /// Steps that are defined and not in the list: `start` for `rollback --start`, `stop_old` for `retire`.
    pub spare: Vec<Step>,
    /// Requests to the target color, in order.
    pub smoke: Vec<SmokeProbe>,
    /// What to do when a step fails that does not say it itself.
    pub on_failure: OnFailure,
    /// How long after its last sign of life a deploy still holds the app.
    pub lease: Duration,
}

impl Deploy {
    /// The steps when the file names none. `stop_old` only runs where it is listed.
    pub const DEFAULT_STEPS: [&'static str; 8] = [
        "backup", "migrate", "start", "healthy", "smoke", "approve", "switch", "bake",
    ];

    /// A step by its name, listed or not.
    #[must_use]
    pub fn step(&self, name: &str) -> Option<&Step> {
        let mut all = self.steps.iter().chain(&self.spare);
        all.find(|step| step.name == name)
    }
}

/// One step.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// Its name.
    pub name: String,
    /// What cutover itself does in it.
    pub kind: StepKind,
    /// What else is done.
    pub work: Work,
    /// How long it may take; `None` where it has no limit of its own.
    pub timeout: Option<Duration>,
    /// Further environment, the deploy's own included.
    pub env: BTreeMap<String, String>,
    /// Where commands run, relative to the folder of the config file.
    pub cwd: Option<String>,
    /// Ask before; the question.
    pub confirm: Option<String>,
    /// Only when the target is this color.
    pub when: Option<Color>,
    /// `healthy`: how long it must stay so.
    pub settle: Duration,
    /// What to do when it fails, in place of the deploy's own.
    pub on_failure: Option<OnFailure>,
}

impl Step {
    /// A step of cutover's own, without a command.
    #[must_use]
    pub fn bare(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            kind: StepKind::named(name),
            work: Work::None,
            timeout: Some(Duration::from_secs(120)),
            env: BTreeMap::new(),
            cwd: None,
            confirm: None,
            when: None,
            settle: Duration::ZERO,
            on_failure: None,
        }
    }
}

/// What a step is by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepKind {
    /// Its command or webhook, nothing else.
    Hook,
    /// Its command or webhook, after the target was told its revision.
    Start,
    /// Wait until the target is healthy.
    Healthy,
    /// Send the smoke probes.
    Smoke,
    /// Ask whether to go on.
    Approve,
    /// Move the traffic.
    Switch,
    /// Move the traffic in the steps of `[app.NAME.rollout]`.
    Rollout,
    /// Wait for the end of the bake.
    Bake,
    /// Wait until the other color has drained, then its command or webhook.
    StopOld,
}

impl StepKind {
    /// By the name of the step.
    #[must_use]
    pub fn named(name: &str) -> Self {
        match name {
            "start" => Self::Start,
            "healthy" => Self::Healthy,
            "smoke" => Self::Smoke,
            "approve" => Self::Approve,
            "switch" => Self::Switch,
            "rollout" => Self::Rollout,
            "bake" => Self::Bake,
            "stop_old" => Self::StopOld,
            _ => Self::Hook,
        }
    }

    /// Whether the target serves when it is done.
    #[must_use]
    pub const fn moves_traffic(self) -> bool {
        matches!(self, Self::Switch | Self::Rollout)
    }

    /// Whether a command has a place in it.
    #[must_use]
    pub const fn takes_work(self) -> bool {
        matches!(self, Self::Hook | Self::Start | Self::StopOld | Self::Smoke)
    }
}

/// What a step does besides what its name says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Work {
    /// Nothing.
    None,
    /// Commands, one after the other.
    Run(Vec<CommandLine>),
    /// A POST to this URL.
    Webhook(String),
}

/// One command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommandLine {
    /// Program and arguments, no shell.
    Words(Vec<String>),
    /// For `sh -c`.
    Shell(String),
}

impl fmt::Display for CommandLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Words(words) => f.write_str(&words.join(" ")),
            Self::Shell(script) => f.write_str(script),
        }
    }
}

/// What to do when a step fails.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OnFailure {
    /// A command whose last lines are shown.
    pub logs: Option<CommandLine>,
    /// A command that is run.
    pub run: Option<CommandLine>,
}

/// One request to the target color, and what its answer must be.
#[derive(Clone, Debug)]
pub struct SmokeProbe {
    /// `POST`
    pub method: String,
    /// Path and query.
    pub path: String,
    /// Headers.
    pub headers: Vec<(String, String)>,
    /// Body.
    pub body: String,
    /// The statuses that pass, as inclusive ranges.
    pub status: Vec<(u16, u16)>,
    /// JSON pointers that must equal.
    pub json: Vec<(String, serde_json::Value)>,
    /// Headers that must equal.
    pub header: Vec<(String, String)>,
    /// Must match the body, when there is one.
    pub body_regex: Option<regex::Regex>,
    /// The whole answer must have come by then.
    pub within: Duration,
    /// Values for the next probes: name and JSON pointer.
    pub capture: Vec<(String, String)>,
}

impl PartialEq for SmokeProbe {
    fn eq(&self, other: &Self) -> bool {
        let regex = |probe: &Self| probe.body_regex.as_ref().map(|regex| regex.as_str().to_owned());
        let key = |probe: &Self| {
            let text = (
                probe.method.clone(),
                probe.path.clone(),
                probe.body.clone(),
                regex(probe),
            );
            let lists = (probe.headers.clone(), probe.header.clone(), probe.capture.clone());
            (
                text,
                lists,
                probe.status.clone(),
                probe.json.clone(),
                probe.within,
            )
        };
        key(self) == key(other)
    }
}
