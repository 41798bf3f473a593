//! Rollouts, approvals, and the wait for what watches after a switch.

use std::time::Duration;

use http::Method;
use serde_json::{Value, json};

use super::args::Rollout;
use super::failure::Failure;
use super::operate::change;
use super::output::clean;
use super::remote::Remote;
use crate::admin::client::Call;
use crate::admin::{Exit, dto};
use crate::rollout::Color;

pub(super) async fn rollout(remote: &mut Remote<'_>, verb: &Rollout) -> Result<(), Failure> {
    let (path, body) = match verb {
        Rollout::Status => return status(remote).await,
        Rollout::Start { to, steps } => {
            let mut body = json!({});
            if let Some(to) = to {
                body["to"] = Value::from(to.as_str());
            }
            if !steps.is_empty() {
                let steps = steps.iter().map(|(weight, pause)| match pause {
                    Some(pause) => json!({ "weight": weight, "pause": pause }),
                    None => json!({ "weight": weight }),
                });
                body["steps"] = steps.collect();
            }
            ("/rollout", body)
        }
        Rollout::Promote { full } => ("/rollout/promote", json!({ "full": full })),
        Rollout::Pause => ("/rollout/pause", json!({})),
        Rollout::Resume => ("/rollout/resume", json!({})),
        Rollout::Abort => ("/rollout/abort", json!({})),
    };
    let outcome = change(remote, path, body).await?;
    match remote.common.wait {
        Some(wait) if !outcome.dry_run => settle(remote, wait).await,
        _ => Ok(()),
    }
}

async fn status(remote: &mut Remote<'_>) -> Result<(), Failure> {
    let call = Call::get(remote.app_path("/rollout"));
    let (document, text): (dto::RolloutDocument, _) = remote.call(&call).await?;
    if remote.common.json {
        remote.output.data(&text);
        return Ok(());
    }
    match &document.rollout {
        None => remote
            .output
            .data(&format!("{}: there was no rollout", clean(&document.app))),
        Some(rollout) => {
            for line in rollout_lines(rollout) {
                remote.output.data(&line);
            }
        }
    }
    Ok(())
}

/// A rollout for people.
pub(super) fn rollout_lines(rollout: &dto::Rollout) -> Vec<String> {
    let to = Color::from(rollout.to);
    let actual = rollout.actual.map_or_else(
        || "no requests lately".to_owned(),
        |share| format!("{:.1} % of the last minute", share * 100.0),
    );
    let mut lines = vec![format!(
        "rollout to {to}: {} at {} % ({actual})",
        clean(&rollout.phase),
        rollout.desired
    )];
    let steps = rollout.steps.iter().enumerate().map(|(at, step)| {
        let mark = if rollout.step == Some(at) { ">" } else { " " };
        let pause = step
            .pause
            .as_deref()
            .map_or_else(String::new, |pause| format!(", then {}", clean(pause)));
        let waited = if rollout.step == Some(at) && rollout.phase == "shifting" {
            format!(" ({:.0} s so far)", rollout.waited_seconds)
        } else {
            String::new()
        };
        format!("  {mark} {} %{pause}{waited}", step.weight)
    });
    lines.extend(steps);
    if rollout.waits_for_approval {
        lines.push("  waits for `cutover rollout promote`".to_owned());
    }
    if !rollout.note.is_empty() {
        lines.push(format!("  {}", clean(&rollout.note)));
    }
    lines
}

/// A bake for people.
pub(super) fn bake_line(bake: &dto::Bake) -> String {
    let (from, to) = (Color::from(bake.from), Color::from(bake.to));
    let note = if bake.note.is_empty() {
        String::new()
    } else {
        format!(": {}", clean(&bake.note))
    };
    match bake.phase.as_str() {
        "watching" => format!(
            "guard watches {to}, {:.0} of {:.0} s; it would go back to {from}{note}",
            bake.watched_seconds, bake.length_seconds
        ),
        "rollback_blocked" => format!("GUARD CANNOT GO BACK to {from}, traffic stays on {to}{note}"),
        "rolled_back" => format!("guard took {to} back to {from}{note}"),
        "insufficient_data" => format!("bake of {to} is over, and nobody can say{note}"),
        "passed" => format!("bake of {to} passed"),
        _ => format!("bake of {to} ended: traffic was moved by hand"),
    }
}

pub(super) async fn approve(remote: &mut Remote<'_>, gate: Option<&str>, deny: bool) -> Result<(), Failure> {
    let mut body = json!({ "deny": deny });
    if let Some(gate) = gate {
        body["gate"] = Value::from(gate);
    }
    let call = Call {
        method: Method::POST,
        path: remote.app_path("/approve"),
        body: Some(body.to_string()),
        headers: Vec::new(),
        time: Duration::from_secs(30),
    };
    let (approved, text): (dto::Approved, _) = remote.call(&call).await?;
    if remote.common.json {
        remote.output.data(&text);
    } else if !remote.common.quiet {
        let word = if approved.approved { "approved" } else { "denied" };
        remote
            .output
            .data(&format!("gate {}: {word}", clean(&approved.gate)));
    }
    Ok(())
}

/// `wait`: the outcome is data.
pub(super) async fn wait(remote: &mut Remote<'_>, timeout: Duration) -> Result<(), Failure> {
    let (settled, text) = settled(remote, timeout).await?;
    if remote.common.json {
        remote.output.data(&text);
    } else if !remote.common.quiet {
        let active = Color::from(settled.active);
        remote.output.data(&format!(
            "{}: {active} is active (generation {})",
            clean(&settled.app),
            settled.generation
        ));
    }
    verdict(remote, &settled)
}

/// `--wait` of a change: told on stderr.
pub(super) async fn settle(remote: &mut Remote<'_>, wait: Duration) -> Result<(), Failure> {
    if !remote.common.quiet {
        remote.output.note("waiting until guard and rollout are over");
    }
    let (settled, _) = settled(remote, wait).await?;
    verdict(remote, &settled)
}

async fn settled(remote: &Remote<'_>, wait: Duration) -> Result<(dto::Settled, String), Failure> {
    let mut call = Call::get(remote.app_path(&format!("/settled?wait={}ms", wait.as_millis())));
    call.time = wait.saturating_add(Duration::from_secs(10));
    remote.call(&call).await
}

/// Exit 0, 9 or 5, with what there is to say.
fn verdict(remote: &mut Remote<'_>, settled: &dto::Settled) -> Result<(), Failure> {
    let bake = settled.bake.as_ref();
    let rollout = settled.rollout.as_ref();
    if !settled.settled {
        let what = match (bake, rollout) {
            (Some(bake), _) if matches!(bake.phase.as_str(), "watching" | "rollback_blocked") => {
                bake_line(bake)
            }
            (_, Some(rollout)) => rollout_lines(rollout).join("\n"),
            _ => "it is still under way".to_owned(),
        };
        return Err(Failure::new(Exit::StillRunning, what));
    }
    // What ended last speaks: a rollout's last step begins a bake.
    let newest_is_rollout = rollout.is_some_and(|rollout| bake.is_none_or(|bake| rollout.of > bake.of));
    if let Some(rollout) = rollout.filter(|rollout| newest_is_rollout && rollout.phase != "done") {
        let exit = if rollout.phase == "rolled_back" {
            Exit::RolledBack
        } else {
            Exit::Refused
        };
        return Err(Failure::new(exit, rollout_lines(rollout).join("\n")));
    }
    match bake {
        Some(bake) if bake.phase == "rolled_back" => Err(Failure::new(Exit::RolledBack, bake_line(bake))),
        Some(bake) => {
            if !remote.common.quiet {
                remote.output.note(&bake_line(bake));
            }
            Ok(())
        }
        None => Ok(()),
    }
}
