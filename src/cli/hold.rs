//! `switch --hold`: requests wait while the old color finishes, a command runs, and the traffic moves; so that no
//! request is served by one color while another is by the other.
//!
//! Whatever fails, the requests go on to the color that has the traffic then; if this process dies, the server lets
//! them go on at the hold's limit.

use std::process::Stdio;
use std::time::{Duration, Instant};

use http::Method;
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::json;
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};

use super::failure::Failure;
use super::operate::{settle, show};
use super::output::clean;
use super::remote::Remote;
use crate::admin::{Exit, dto};
use crate::rollout::Color;

/// How long a command may take to end after SIGTERM; then it is killed.
const TERM_TIME: Duration = Duration::from_secs(1);

/// `switch --hold`
pub(super) async fn switch(
    remote: &mut Remote<'_>,
    to: &str,
    run: Option<&str>,
    max: Duration,
) -> Result<(), Failure> {
    if remote.common.dry_run {
        return super::operate::switch(remote, to).await;
    }
    let begun = Instant::now();
    say(
        remote,
        &format!("holding requests for {max:?} at most, until none runs"),
    );
    let held = tokio::select! {
        held = hold(remote, max) => held,
        what = told_to_stop() => Err(stopped(what)),
    };
    let held = match held {
        Ok(held) if held.changed => held,
        Ok(_) => {
            let text = "the app is held already, by somebody else: `cutover release` ends that";
            return Err(Failure::new(Exit::Conflict, text));
        }
        Err(failure) => return give_up(remote, failure).await,
    };
    for warning in &held.warnings {
        say(remote, &format!("warning: {}", clean(warning)));
    }
    say(
        remote,
        &format!("{} is idle after {:?}", Color::from(held.active), begun.elapsed()),
    );
    if let Some(command) = run {
        // A part is kept for the switch itself.
        let left = max.saturating_sub(begun.elapsed()).mul_f64(0.9);
        if let Err(why) = run_command(remote, command, left, &held, to).await {
            let text = format!("{why}; nothing was switched, and the requests go on");
            return give_up(remote, Failure::new(Exit::Refused, text)).await;
        }
    }
    let body = json!({ "to": to, "force": remote.common.force, "release": true });
    let moved = remote
        .change_at(Some(held.generation), Method::POST, "/switch", body)
        .await;
    match moved {
        Ok((outcome, text)) => {
            show(remote, &outcome, &text);
            settle(remote, &outcome).await
        }
        Err(failure) => give_up(remote, failure).await,
    }
}

async fn hold(remote: &Remote<'_>, max: Duration) -> Result<dto::Outcome, Failure> {
    let body = json!({ "max": format!("{}ms", max.as_millis()), "idle": true });
    let held = remote.change(Method::POST, "/hold", body).await;
    held.map(|(outcome, _)| outcome).map_err(|mut failure| {
        // It did not fall idle in time: nothing runs on, and nothing has moved.
        if failure.exit == Exit::StillRunning {
            failure.exit = Exit::Refused;
        }
        failure
    })
}

/// Let the requests go on, and fail.
async fn give_up(remote: &mut Remote<'_>, failure: Failure) -> Result<(), Failure> {
    let body = json!({ "reason": "the switch with --hold was given up" });
    match remote.change_at(None, Method::POST, "/release", body).await {
        Ok((outcome, _)) => {
            let active = Color::from(outcome.active);
            say(remote, &format!("released: {active} is active"));
        }
        Err(_) => say(
            remote,
            "the release got no answer; the server releases at the hold's limit",
        ),
    }
    Err(failure)
}

fn say(remote: &mut Remote<'_>, text: &str) {
    if !remote.common.quiet {
        remote.output.note(text);
    }
}

fn stopped(what: &str) -> Failure {
    Failure::new(Exit::Failed, format!("stopped by {what}"))
}

async fn told_to_stop() -> &'static str {
    let (Ok(mut interrupt), Ok(mut terminate)) =
        (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => "SIGINT",
        _ = terminate.recv() => "SIGTERM",
    }
}

/// Run a command of the operator's; what it starts ends with it when its time is over.
async fn run_command(
    remote: &mut Remote<'_>,
    command: &str,
    limit: Duration,
    held: &dto::Outcome,
    to: &str,
) -> Result<(), String> {
    say(
        remote,
        &format!("running `{}`, for {limit:?} at most", clean(command)),
    );
    let (from, begun) = (Color::from(held.active), Instant::now());
    let to = if to == "standby" {
        from.other().as_str()
    } else {
        to
    };
    let child = Command::new("sh")
        .args(["-c", command])
        .env("CUTOVER_APP", &held.app)
        .env("CUTOVER_FROM", from.as_str())
        .env("CUTOVER_TO", to)
        .stdin(Stdio::null())
        // stdout is data, and that is ours.
        .stdout(Stdio::from(std::io::stderr()))
        .process_group(0)
        .spawn();
    let mut group = Group::of(child.map_err(|error| format!("`sh` cannot be started: {error}"))?);
    let ended = tokio::select! {
        ended = group.child.wait() => ended.map_err(|error| format!("the command was lost: {error}")),
        () = tokio::time::sleep(limit) => Err(format!("the command did not end within {limit:?} and was stopped")),
        what = told_to_stop() => Err(format!("stopped by {what}")),
    };
    match ended {
        Ok(status) => {
            group.ended = true;
            if status.success() {
                say(remote, &format!("the command ended after {:?}", begun.elapsed()));
                return Ok(());
            }
            Err(format!("the command failed ({status})"))
        }
        Err(why) => {
            group.stop().await;
            Err(why)
        }
    }
}

/// A command with all that it has started.
struct Group {
    child: Child,
    pid: Option<Pid>,
    ended: bool,
}

impl Group {
    fn of(child: Child) -> Self {
        let pid = child
            .id()
            .and_then(|id| i32::try_from(id).ok())
            .and_then(Pid::from_raw);
        Self {
            child,
            pid,
            ended: false,
        }
    }

    /// Ask it to end, and kill what is left of it.
    async fn stop(&mut self) {
        self.signal(Signal::TERM);
        let _ = tokio::time::timeout(TERM_TIME, self.child.wait()).await;
        self.signal(Signal::KILL);
        let _ = self.child.wait().await;
        self.ended = true;
    }

    /// A group whose members are gone refuses, which is what was wanted.
    fn signal(&self, signal: Signal) {
        if let Some(pid) = self.pid {
            let _ = kill_process_group(pid, signal);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if !self.ended {
            self.signal(Signal::KILL);
        }
    }
}
