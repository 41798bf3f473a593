//! Why a command failed: its exit code, and what people read.

use std::fmt::Write;

use super::output::{Paint, clean};
use crate::admin::client::{Answer, ClientError};
use crate::admin::dto::{Gated, Probe, ProblemBody};
use crate::admin::find::NotFound;
use crate::admin::{Code, Exit};

/// A command failed.
#[derive(Debug)]
pub(super) struct Failure {
    /// How the process ends.
    pub exit: Exit,
    /// What people read, without `error: `.
    pub message: String,
    /// The API's problem, for `--json`.
    pub json: Option<String>,
}

impl Failure {
    /// A failure with these words.
    #[must_use]
    pub(super) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self {
            exit,
            message: message.into(),
            json: None,
        }
    }

    /// The command line makes no sense.
    #[must_use]
    pub(super) fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message)
    }

    /// From an answer that is not a success.
    #[must_use]
    pub(super) fn refused(answer: &Answer, paint: Paint) -> Self {
        let Ok(problem) = serde_json::from_str::<ProblemBody>(&answer.text) else {
            return Self::new(
                exit_of_status(answer.status.as_u16()),
                format!("the server answered {} without a word", answer.status),
            );
        };
        let code = Code::named(&problem.code);
        Self {
            // An unknown code is a newer server's; the status still says the kind.
            exit: code.map_or_else(
                || exit_of_status(answer.status.as_u16()),
                |code| code.facts().exit,
            ),
            message: describe(&problem, code, paint),
            json: Some(answer.text.clone()),
        }
    }

    /// From a call without an answer; of a change, the outcome is open.
    #[must_use]
    pub(super) fn unanswered(error: &ClientError, change: bool) -> Self {
        let exit = match error {
            ClientError::Connect { source, .. } if source.kind() == std::io::ErrorKind::PermissionDenied => {
                Exit::NotPermitted
            }
            ClientError::Silent { .. } if change => Exit::StillRunning,
            ClientError::Connect { .. } | ClientError::Silent { .. } => Exit::Unreachable,
            ClientError::Broken { .. } => Exit::Failed,
        };
        let open = match error {
            ClientError::Silent { .. } | ClientError::Broken { .. } if change => {
                "\nnext: it may have been done or not; `cutover status` tells"
            }
            _ => "",
        };
        Self::new(exit, format!("{error}{open}"))
    }
}

impl From<NotFound> for Failure {
    fn from(error: NotFound) -> Self {
        match error {
            NotFound::Usage(why) => Self::usage(why),
            NotFound::Config(why) => Self::new(Exit::ConfigInvalid, why),
            NotFound::Tried { places, forbidden } => {
                let mut message = "no server found; tried:\n".to_owned();
                for (place, why) in &places {
                    let _ = writeln!(message, "  {place}: {why}");
                }
                message.push_str(if forbidden {
                    "next: run this as the server's user or a member of admin.group, or use --admin http://… with a token"
                } else {
                    "next: start it with `cutover run`, or say where it is: --admin unix:PATH or $CUTOVER_ADMIN"
                });
                Self::new(
                    if forbidden {
                        Exit::NotPermitted
                    } else {
                        Exit::Unreachable
                    },
                    message,
                )
            }
        }
    }
}

/// For a problem without a code that we know.
const fn exit_of_status(status: u16) -> Exit {
    match status {
        400 | 404 => Exit::Usage,
        401 | 403 => Exit::NotPermitted,
        409 | 412 => Exit::Conflict,
        422 => Exit::Refused,
        _ => Exit::Failed,
    }
}

fn describe(problem: &ProblemBody, code: Option<Code>, paint: Paint) -> String {
    let mut text = clean(problem.detail.trim_end());
    for probe in problem.probes.iter().flatten() {
        let _ = write!(text, "\n  {}", probe_line(probe, paint));
    }
    for gated in problem.gates.iter().flatten() {
        let _ = write!(text, "\n  {}", gate_line(gated));
    }
    if let (Some(active), Some(generation)) = (problem.active, problem.generation) {
        let active = crate::rollout::Color::from(active);
        let unchanged = if code == Some(Code::RolledBack) {
            "back as before"
        } else {
            "nothing was changed"
        };
        let _ = write!(text, "\nserving: {active} (generation {generation}), {unchanged}");
    }
    if let Some(next) = code.and_then(next) {
        let _ = write!(text, "\nnext: {next}");
    }
    text
}

/// One probe as a line: `✖ web 10.0.0.9:8080  http://…/healthz → 503 in 4 ms: body {"db":"down"}`.
#[must_use]
pub(super) fn probe_line(probe: &Probe, paint: Paint) -> String {
    let report = &probe.report;
    let mark = match report.verdict.as_str() {
        "healthy" => paint.good("✔"),
        _ => paint.bad("✖"),
    };
    let status = report
        .status
        .map_or_else(|| clean(&report.verdict), |status| status.to_string());
    let mut line = format!(
        "{mark} {} {}  {} → {status} in {} ms",
        clean(&probe.service),
        clean(&probe.endpoint),
        clean(&report.url),
        report.latency_ms
    );
    if !report.reason.is_empty() {
        let _ = write!(line, ": {}", clean(&report.reason));
    }
    line
}

/// One gate as a line: `✖ gate smoke (run): fail: exit status: 1`.
#[must_use]
pub(super) fn gate_line(gated: &Gated) -> String {
    let mark = match gated.verdict.as_str() {
        "pass" => "✔",
        "fail" => "✖",
        _ => "?",
    };
    let (gate, kind) = (clean(&gated.gate), clean(&gated.kind));
    format!(
        "{mark} gate {gate} ({kind}): {}: {}",
        clean(&gated.verdict),
        clean(&gated.detail)
    )
}

/// What to do next, where the sentence itself does not say it.
const fn next(code: Code) -> Option<&'static str> {
    match code {
        Code::Unhealthy => Some(
            "fix the app and try again (`cutover probe COLOR --wait 60s` waits for it), or --force --reason TEXT",
        ),
        Code::GateRefused => {
            Some("`--dry-run` shows what each gate says now; --force --reason TEXT moves all the same")
        }
        Code::GenerationMoved => Some("look at `cutover status` and `cutover history`, then decide again"),
        Code::Busy => Some("wait for it (`cutover status` shows it), or `cutover rollback`"),
        Code::RollbackImpossible => Some("--ignore-health --reason TEXT goes back all the same"),
        Code::RolledBack => Some("look at the app's log and `cutover history`"),
        Code::TimedOut => Some("it may still happen; `cutover status` tells"),
        Code::WhichApp => Some("name it with -a APP"),
        Code::NotDurable => Some("make room or make state_dir writable, then try again"),
        Code::Unauthorized | Code::Forbidden => {
            Some("name a token of a sufficient role with --token-file, or use the Unix socket")
        }
        Code::Stopping
        | Code::UnknownApp
        | Code::Invalid
        | Code::NotDrainable
        | Code::Degraded
        | Code::ConfigInvalid
        | Code::NotFound
        | Code::MethodNotAllowed
        | Code::BadRequest
        | Code::UnsupportedMediaType
        | Code::BodyTooLarge
        | Code::BodyTimeout
        | Code::ReadOnly
        | Code::BadHost
        | Code::BadOrigin
        | Code::TooMany => None,
    }
}
