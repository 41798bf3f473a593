//! Rollouts, approvals, and the wait for guard and rollout.

use std::time::Duration;

use axum::response::Response;

use super::changes::{change, target};
use super::dto::{self, schema};
use super::problem::{Code, Problem};
use super::reads::{json, long, view};
use super::request::{Asked, Sent, duration};
use super::show;
use crate::control::{Intent, RolloutAsk, Wanted};
use crate::rollout::{Pause, RolloutStep};

/// How long `settled` waits when nobody says.
const WAIT_DEFAULT: Duration = Duration::from_secs(60);

/// The longest wait.
const WAIT_MAX: Duration = Duration::from_secs(24 * 3600);

pub(super) async fn start(sent: Sent<dto::StartRollout>) -> Result<Response, Problem> {
    let to = match &sent.body.to {
        Some(name) => target(name)?,
        None => Wanted::Standby,
    };
    let steps = match &sent.body.steps {
        Some(steps) => Some(steps.iter().map(step).collect::<Result<Vec<_>, _>>()?),
        None => None,
    };
    steer(
        &sent,
        RolloutAsk::Start { to, steps },
        &sent.body.reason,
        sent.body.dry_run,
    )
    .await
}

fn step(step: &dto::RolloutStep) -> Result<RolloutStep, Problem> {
    let pause = match step.pause.as_deref() {
        None => Pause::For(Duration::ZERO),
        Some("approval") => Pause::Approval,
        Some(text) => Pause::For(duration("pause", text)?),
    };
    Ok(RolloutStep {
        weight: step.weight,
        pause,
    })
}

pub(super) async fn promote(sent: Sent<dto::SteerRollout>) -> Result<Response, Problem> {
    let full = sent.body.full;
    steer(
        &sent,
        RolloutAsk::Promote { full },
        &sent.body.reason,
        sent.body.dry_run,
    )
    .await
}

pub(super) async fn pause(sent: Sent<dto::SteerRollout>) -> Result<Response, Problem> {
    plain(&sent, RolloutAsk::Pause).await
}

pub(super) async fn resume(sent: Sent<dto::SteerRollout>) -> Result<Response, Problem> {
    plain(&sent, RolloutAsk::Resume).await
}

pub(super) async fn abort(sent: Sent<dto::SteerRollout>) -> Result<Response, Problem> {
    plain(&sent, RolloutAsk::Abort).await
}

async fn plain(sent: &Sent<dto::SteerRollout>, wanted: RolloutAsk) -> Result<Response, Problem> {
    if sent.body.full {
        return Err(Problem::new(Code::Invalid, "`full` goes with `promote` only"));
    }
    steer(sent, wanted, &sent.body.reason, sent.body.dry_run).await
}

async fn steer<T>(
    sent: &Sent<T>,
    wanted: RolloutAsk,
    reason: &str,
    dry_run: bool,
) -> Result<Response, Problem> {
    let ask = sent.ask(Intent::Rollout(wanted), reason, dry_run)?;
    change(&sent.door, ask).await
}

pub(super) async fn show(asked: Asked<dto::Nothing>) -> Result<Response, Problem> {
    let view = view(&asked.door, asked.app().as_deref()).await?;
    Ok(json(&dto::RolloutDocument {
        schema: schema::ROLLOUT.to_owned(),
        rollout: view.rollout.as_ref().map(show::rollout),
        app: view.name,
    }))
}

pub(super) async fn approve(sent: Sent<dto::Approve>) -> Result<Response, Problem> {
    let by = sent.caller.actor.clone();
    let (gate, yes) = (sent.body.gate.clone(), !sent.body.deny);
    let gate = sent.door.handle.approve(sent.app(), gate, yes, by).await?;
    Ok(json(&dto::Approved {
        schema: schema::APPROVED.to_owned(),
        gate,
        approved: yes,
    }))
}

pub(super) async fn settled(asked: Asked<dto::DrainedQuery>) -> Result<Response, Problem> {
    let wait = match &asked.query.wait {
        Some(text) => duration("wait", text)?.min(WAIT_MAX),
        None => WAIT_DEFAULT,
    };
    let _permit = long(&asked.door, asked.unix)?;
    let settled = asked.door.handle.wait_settled(asked.app(), wait).await?;
    Ok(json(&show::settled(&settled)))
}
