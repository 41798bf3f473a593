//! The command line: verbs and options, as clap reads them.

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::PossibleValue;
use clap::{Args, Parser, Subcommand, ValueEnum};

use super::deploy::Deploy;
use super::init::Init;
use crate::config;
use crate::rollout::Color;

/// Stands below the help of the whole and in the manual page.
const EXITS: &str = "\
Exit codes:
   0  done and verified, or already so      6  conflict: somebody else changes the app
   1  failed for another reason             7  no server answers
   2  usage                                 8  not permitted
   3  the config file is not valid          9  traffic moved and was taken back
   4  refused; traffic is unchanged        10  no rollback: nothing older is warm
   5  still under way at the timeout       11  a question was answered with no

New here: `cutover demo` shows it, `cutover init` writes a config file, `cutover check` reads one.";

/// A reverse proxy that is the traffic switch.
#[derive(Debug, Parser)]
#[command(
    name = "cutover",
    version,
    about,
    after_help = EXITS,
    disable_help_subcommand = true,
    subcommand_required = true,
    arg_required_else_help = true
)]
pub(super) struct Cli {
    /// Options of every verb.
    #[command(flatten)]
    pub common: Common,
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

/// Options that stand before or after the verb.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Common options")]
pub(super) struct Common {
    /// The app; not needed when there is only one
    #[arg(short, long, global = true, value_name = "APP")]
    pub app: Option<String>,
    /// The config file; a server uses it, other verbs find the server by it
    #[arg(short, long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Print the API's JSON
    #[arg(long, global = true)]
    pub json: bool,
    /// Print only the answer
    #[arg(short, long, global = true)]
    pub quiet: bool,
    /// The server: unix:PATH or http://HOST:PORT [env: CUTOVER_ADMIN]
    #[arg(long, global = true, value_name = "ADDRESS")]
    pub admin: Option<String>,
    /// A file that holds the token for changes over TCP [env: CUTOVER_TOKEN_FILE]
    #[arg(long, global = true, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Refuse unless the app is at this generation
    #[arg(long, global = true, value_name = "N", value_parser = generation)]
    pub expect_generation: Option<u64>,
    /// Why; kept in the history
    #[arg(long, global = true, value_name = "TEXT")]
    pub reason: Option<String>,
    /// Say what would happen, and do nothing
    #[arg(long, global = true)]
    pub dry_run: bool,
    /// Also wait this long, until guard and rollout are over and the old color has drained (probe: until it is healthy)
    #[arg(long, global = true, value_name = "DURATION", value_parser = duration)]
    pub wait: Option<Duration>,
    /// Although health or a gate refuses; needs --reason
    #[arg(long, global = true)]
    pub force: bool,
    /// Roll back although the target cannot be reached or was redeployed; needs --reason
    #[arg(long, global = true)]
    pub ignore_health: bool,
    /// Answer every prompt with yes
    #[arg(long, global = true)]
    pub yes: bool,
    /// Repeating a change with the same key repeats its first answer
    #[arg(long, global = true, value_name = "KEY", value_parser = key)]
    pub idempotency_key: Option<String>,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Run the proxy
    Run(Run),
    /// Write a first config file: from flags, questions, or an nginx file
    Init(Init),
    /// Check a config file, touching nothing
    Check,
    /// Try it: a proxy, two colors, and what to type
    Demo,
    /// Is the server alive? For container health checks
    Health {
        /// Ask whether every active color can serve
        #[arg(long)]
        ready: bool,
    },
    /// Print the JSON Schema of the config file
    Schema,
    /// Print a completion script for a shell
    Completion {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page
    Man,
    /// What serves, what is healthy, what would roll back
    #[command(visible_alias = "ls")]
    Status {
        /// Go on showing it
        #[arg(short, long)]
        watch: bool,
    },
    /// Send all traffic to a color
    Switch {
        /// The color, or whichever is not active
        to: Target,
        /// Without overlap: requests wait until none runs, then the traffic moves, then they go on
        #[arg(long)]
        hold: bool,
        /// With --hold: run this (a migration) while nothing runs; if it fails, nothing is switched
        #[arg(long, value_name = "COMMAND", requires = "hold")]
        run: Option<String>,
        /// With --hold: whatever happens, requests go on after this
        #[arg(long, default_value = "20s", value_name = "DURATION", value_parser = duration, requires = "hold")]
        max_hold: Duration,
    },
    /// Back to the color active before
    #[command(visible_alias = "undo")]
    Rollback {
        /// First start it, with the `start` of the config file, and wait until it is healthy
        #[arg(long)]
        start: bool,
        /// To what was active at a generation (41, g41) or with a revision, if that is still warm
        #[arg(long, value_name = "GENERATION|REVISION", conflicts_with = "start")]
        to: Option<String>,
    },
    /// Give a color a share of the traffic; the other gets the rest
    Weight {
        /// COLOR=PERCENT, like green=10
        #[arg(required = true, num_args = 1..=2, value_name = "COLOR=N", value_parser = share)]
        shares: Vec<(Color, u8)>,
    },
    /// Deploy: run the steps of the config file, then switch
    Deploy(Deploy),
    /// Ask a color with the smoke probes of the config file, or with a command
    Smoke {
        /// The color
        color: ColorName,
        /// A command that finds the color in $CUTOVER_PREVIEW_URL
        #[arg(last = true, value_name = "CMD")]
        command: Vec<String>,
    },
    /// Stop the color that does not serve, once it holds no request
    Retire,
    /// Who holds the app for a deploy
    #[command(subcommand)]
    Lease(Lease),
    /// A switch in steps, with gates between them
    #[command(subcommand)]
    Rollout(Rollout),
    /// Say yes to a gate that waits for an operator, or no
    Approve {
        /// The gate; not needed when only one waits
        gate: Option<String>,
        /// No instead of yes
        #[arg(long)]
        deny: bool,
    },
    /// Wait until the guard's bake and any rollout are over: exit 0 went well, 9 taken back, 5 still under way
    Wait {
        /// How long
        #[arg(long, default_value = "10m", value_name = "DURATION", value_parser = duration)]
        timeout: Duration,
    },
    /// Say what runs in a color
    #[command(subcommand)]
    Endpoints(Endpoints),
    /// Let a color finish what it has
    Drain {
        /// The color
        color: ColorName,
    },
    /// Wait until a color holds no request
    WaitDrained {
        /// The color
        color: ColorName,
        /// How long
        #[arg(long, default_value = "60s", value_name = "DURATION", value_parser = duration)]
        timeout: Duration,
    },
    /// Let requests wait
    Hold {
        /// At most this long; then they go on
        #[arg(long, default_value = "20s", value_name = "DURATION", value_parser = duration)]
        max: Duration,
    },
    /// Let held requests go on
    Release,
    /// Answer 503 with a message, or stop doing so
    Maintenance {
        /// Begin or end it
        state: OnOff,
        /// What clients are told
        #[arg(long, value_name = "TEXT")]
        message: Option<String>,
    },
    /// What was changed, by whom, why, and what it cost
    History {
        /// Only the last so many
        #[arg(short = 'n', long, value_name = "N")]
        limit: Option<usize>,
    },
    /// What happened lately
    Events {
        /// Go on with what happens
        #[arg(short, long)]
        follow: bool,
    },
    /// Where a request would go, and why
    Explain {
        /// The method
        method: String,
        /// http://host/path, or /path with a Host header
        url: String,
        /// A header, as `Name: value`
        #[arg(short = 'H', long = "header", value_name = "HEADER", value_parser = header)]
        headers: Vec<(String, String)>,
        /// The address it comes from
        #[arg(long, value_name = "IP")]
        from: Option<std::net::IpAddr>,
    },
    /// Make a token by which a color can be reached on purpose
    PreviewToken {
        /// The color, or whichever is not active
        #[arg(default_value = "standby")]
        to: Target,
        /// How long it lives
        #[arg(long, default_value = "1h", value_name = "DURATION", value_parser = duration)]
        ttl: Duration,
    },
    /// Read the config file again
    Reload,
    /// Print the configuration in use, secrets masked
    Config,
    /// Probe every endpoint of a color now
    Probe {
        /// The color
        color: ColorName,
    },
}

/// `run`
#[derive(Clone, Debug, Default, Args)]
pub(super) struct Run {
    /// Without a file: the address to listen on
    #[arg(long, value_name = "ADDRESS", conflicts_with = "config")]
    pub listen: Option<String>,
    /// Without a file: blue's endpoints
    #[arg(
        long,
        value_name = "ADDRESS",
        value_delimiter = ',',
        conflicts_with = "config"
    )]
    pub blue: Vec<String>,
    /// Without a file: green's endpoints
    #[arg(
        long,
        value_name = "ADDRESS",
        value_delimiter = ',',
        conflicts_with = "config"
    )]
    pub green: Vec<String>,
    /// The active color of a first start; later the store decides
    #[arg(long, value_name = "COLOR")]
    pub initial: Option<ColorName>,
}

/// `endpoints`
#[derive(Debug, Subcommand)]
pub(super) enum Endpoints {
    /// Set a color's endpoints, its revision, or both
    Set {
        /// The color
        color: ColorName,
        /// HOST:PORT or unix:PATH; SERVICE=HOST:PORT when there are several services
        #[arg(value_name = "ENDPOINT")]
        endpoints: Vec<String>,
        /// The service of endpoints that name none
        #[arg(long, value_name = "NAME")]
        service: Option<String>,
        /// What runs there: a git sha, a tag
        #[arg(long, value_name = "REVISION")]
        revision: Option<String>,
    },
}

/// `lease`
#[derive(Debug, Subcommand)]
pub(super) enum Lease {
    /// Who holds the app, and how long
    Show,
    /// End the hold; that deploy stops after the command it is running
    Break,
}

/// `rollout`
#[derive(Debug, Subcommand)]
pub(super) enum Rollout {
    /// Begin one
    Start {
        /// The color that gains; default: whichever is not active
        to: Option<Target>,
        /// WEIGHT[:PAUSE], with a comma between them, like 10:5m,50:approval,100; default: those of the config
        #[arg(long, value_name = "STEPS", value_delimiter = ',', value_parser = step)]
        steps: Vec<(u8, Option<String>)>,
    },
    /// The next step now
    Promote {
        /// All the way
        #[arg(long)]
        full: bool,
    },
    /// Stop the clock; the share stays
    Pause,
    /// Go on
    Resume,
    /// Take the share away
    Abort,
    /// How far it is
    Status,
}

/// A color on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ColorName(pub Color);

impl ValueEnum for ColorName {
    fn value_variants<'a>() -> &'a [Self] {
        &[Self(Color::Blue), Self(Color::Green)]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.0.as_str()))
    }
}

/// The target of a switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Target {
    /// Blue
    Blue,
    /// Green
    Green,
    /// Whichever is not active
    Standby,
}

impl Target {
    /// As the API spells it.
    #[must_use]
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Blue => "blue",
            Self::Green => "green",
            Self::Standby => "standby",
        }
    }
}

/// `on` or `off`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum OnOff {
    /// Begin
    On,
    /// End
    Off,
}

impl Cli {
    /// Options that clap cannot judge: those that a verb does not take would be ignored silently, which is worst
    /// for `--dry-run`.
    ///
    /// # Errors
    /// The sentence to print; exit 2.
    pub(super) fn check(&self) -> Result<(), String> {
        let common = &self.common;
        let (name, takes) = self.verb.takes();
        if common.force && matches!(self.verb, Verb::Rollback { .. }) {
            return Err(
                "`rollback` has no --force: it asks no gate. To go back although the target cannot be \
                        reached or was redeployed, say --ignore-health --reason TEXT"
                    .to_owned(),
            );
        }
        let given = [
            ("--force", common.force, takes.force),
            ("--ignore-health", common.ignore_health, takes.ignore_health),
            ("--wait", common.wait.is_some(), takes.wait),
            ("--dry-run", common.dry_run, takes.change),
            ("--reason", common.reason.is_some(), takes.change),
            (
                "--expect-generation",
                common.expect_generation.is_some(),
                takes.change,
            ),
            (
                "--idempotency-key",
                common.idempotency_key.is_some(),
                takes.change,
            ),
            ("--admin", common.admin.is_some(), takes.server),
            ("--token-file", common.token_file.is_some(), takes.server),
            ("--app", common.app.is_some(), takes.server || takes.name),
        ];
        if let Some((flag, ..)) = given.iter().find(|(_, given, taken)| *given && !taken) {
            return Err(format!(
                "`{name}` does not take {flag}; `cutover {name} --help` shows what it takes"
            ));
        }
        let reason = common
            .reason
            .as_deref()
            .is_some_and(|reason| !reason.trim().is_empty());
        for (flag, given) in [
            // No history is written by `init`.
            ("--force", common.force && !matches!(self.verb, Verb::Init(_))),
            ("--ignore-health", common.ignore_health),
        ] {
            if given && !reason {
                return Err(format!("{flag} needs --reason TEXT: the history must say why"));
            }
        }
        if matches!(self.verb, Verb::Switch { hold: true, .. }) && common.idempotency_key.is_some() {
            return Err("`switch --hold` is several changes: it takes no --idempotency-key".to_owned());
        }
        if let Verb::Weight { shares } = &self.verb
            && let [(first, a), (second, b)] = shares[..]
        {
            if first == second {
                return Err(format!("`{first}` is named twice"));
            }
            if u16::from(a) + u16::from(b) != 100 {
                return Err(format!("{first}={a} and {second}={b} do not add up to 100"));
            }
        }
        Ok(())
    }
}

/// Which common options a verb takes.
#[derive(Clone, Copy, Default)]
struct Takes {
    /// It talks to a server.
    server: bool,
    /// It is a change of an app.
    change: bool,
    force: bool,
    ignore_health: bool,
    wait: bool,
    /// It names an app itself.
    name: bool,
}

impl Verb {
    fn takes(&self) -> (&'static str, Takes) {
        let none = Takes::default();
        let server = Takes { server: true, ..none };
        let change = Takes {
            change: true,
            ..server
        };
        let force = Takes {
            force: true,
            ..change
        };
        match self {
            Self::Run(_) => ("run", none),
            Self::Init(_) => (
                "init",
                Takes {
                    force: true,
                    name: true,
                    ..none
                },
            ),
            Self::Check => ("check", none),
            Self::Demo => ("demo", none),
            Self::Schema => ("schema", none),
            Self::Completion { .. } => ("completion", none),
            Self::Man => ("man", none),
            Self::Health { .. } => ("health", server),
            Self::Status { .. } => ("status", server),
            Self::WaitDrained { .. } => ("wait-drained", server),
            Self::History { .. } => ("history", server),
            Self::Events { .. } => ("events", server),
            Self::Explain { .. } => ("explain", server),
            Self::PreviewToken { .. } => ("preview-token", server),
            Self::Reload => ("reload", server),
            Self::Config => ("config", server),
            Self::Probe { .. } => ("probe", Takes { wait: true, ..server }),
            Self::Switch { .. } => ("switch", Takes { wait: true, ..force }),
            Self::Weight { .. } => ("weight", force),
            Self::Drain { .. } => ("drain", Takes { wait: true, ..force }),
            Self::Rollback { .. } => {
                let takes = Takes {
                    ignore_health: true,
                    wait: true,
                    ..change
                };
                ("rollback", takes)
            }
            Self::Deploy(_) => ("deploy", change),
            Self::Smoke { .. } => ("smoke", server),
            Self::Retire => ("retire", server),
            Self::Lease(_) => ("lease", server),
            Self::Rollout(Rollout::Status) => ("rollout status", server),
            Self::Rollout(_) => ("rollout", Takes { wait: true, ..change }),
            Self::Approve { .. } => ("approve", server),
            Self::Wait { .. } => ("wait", server),
            Self::Endpoints(_) => ("endpoints", change),
            Self::Hold { .. } => ("hold", change),
            Self::Release => ("release", change),
            Self::Maintenance { .. } => ("maintenance", change),
        }
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    config::parse_duration(text)
}

/// `42`, or `g42` as `status` shows it.
fn generation(text: &str) -> Result<u64, String> {
    text.strip_prefix('g')
        .unwrap_or(text)
        .parse()
        .map_err(|_| "a generation is a number, as `cutover status` shows it".to_owned())
}

fn key(text: &str) -> Result<String, String> {
    if text.is_empty() || text.len() > 200 || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("use 1 to 200 visible ASCII characters".to_owned());
    }
    Ok(text.to_owned())
}

fn share(text: &str) -> Result<(Color, u8), String> {
    let (name, percent) = text
        .split_once('=')
        .ok_or_else(|| "write COLOR=PERCENT, like green=10".to_owned())?;
    let color: Color = name.parse().map_err(|unknown: crate::rollout::UnknownColor| {
        match crate::admin::nearest(name, ["blue", "green"]) {
            Some(meant) => format!("{unknown}; did you mean `{meant}`?"),
            None => unknown.to_string(),
        }
    })?;
    percent
        .parse()
        .ok()
        .filter(|percent| *percent <= 100)
        .map(|percent| (color, percent))
        .ok_or_else(|| "a share is a whole number from 0 to 100".to_owned())
}

/// `10:5m`, `50:approval`, `100`
fn step(text: &str) -> Result<(u8, Option<String>), String> {
    let (weight, pause) = match text.split_once(':') {
        Some((weight, pause)) => (weight, Some(pause)),
        None => (text, None),
    };
    let weight = weight
        .trim_end_matches('%')
        .parse()
        .ok()
        .filter(|weight| (1..=100).contains(weight));
    let weight =
        weight.ok_or_else(|| "a step is WEIGHT[:PAUSE], like 10:5m; a weight is 1 to 100".to_owned())?;
    if let Some(pause) = pause
        && pause != "approval"
    {
        config::parse_duration(pause).map_err(|why| format!("a pause is a time or `approval`: {why}"))?;
    }
    Ok((weight, pause.map(str::to_owned)))
}

fn header(text: &str) -> Result<(String, String), String> {
    text.split_once(':')
        .map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned()))
        .filter(|(name, _)| !name.is_empty())
        .ok_or_else(|| "write a header as `Name: value`".to_owned())
}
