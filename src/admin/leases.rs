//! Leases of apps.

use std::time::Duration;

use axum::response::Response;

use super::dto::{self, schema};
use super::problem::{Code, Problem};
use super::reads::json;
use super::request::{Asked, Sent, duration, words};
use super::show;
use crate::control::{LeaseAsk, LeaseView};

const TIME_MIN: Duration = Duration::from_secs(1);
const TIME_MAX: Duration = Duration::from_secs(3600);

/// The longest text about a lease, in characters.
const TEXT_MAX: usize = 300;

pub(super) async fn show(asked: Asked<dto::StatusQuery>) -> Result<Response, Problem> {
    let view = super::reads::view(&asked.door, asked.app().as_deref()).await?;
    Ok(document(view.name, view.lease.as_ref()))
}

pub(super) async fn take(sent: Sent<dto::TakeLease>) -> Result<Response, Problem> {
    let body = &sent.body;
    let time = duration("time", &body.time)?;
    if !(TIME_MIN..=TIME_MAX).contains(&time) {
        return Err(Problem::new(Code::Invalid, "`time`: a lease lasts 1s to 1h"));
    }
    if !(16..=100).contains(&body.id.len()) || !body.id.bytes().all(|byte| byte.is_ascii_graphic()) {
        let why = "`id`: use 16 to 100 visible ASCII characters that nobody can guess";
        return Err(Problem::new(Code::Invalid, why));
    }
    let ask = LeaseAsk::Take {
        id: body.id.clone(),
        what: words("what", &body.what, TEXT_MAX)?,
        time,
    };
    answer(&sent, ask).await
}

pub(super) async fn give(sent: Sent<dto::GiveLease>) -> Result<Response, Problem> {
    let ask = match &sent.body.id {
        Some(id) => LeaseAsk::Give {
            id: id.clone(),
            outcome: words("outcome", &sent.body.outcome, TEXT_MAX)?,
        },
        None => LeaseAsk::Break,
    };
    answer(&sent, ask).await
}

async fn answer<T>(sent: &Sent<T>, ask: LeaseAsk) -> Result<Response, Problem> {
    let view = super::reads::view(&sent.door, sent.app().as_deref()).await?;
    let by = sent.caller.actor.clone();
    match sent.door.handle.lease(Some(view.name.clone()), ask, by).await {
        Ok(lease) => Ok(document(view.name, lease.as_ref())),
        Err(refusal) => {
            let mut problem = Problem::from(refusal);
            problem.describe(show::app(&view));
            Err(problem)
        }
    }
}

fn document(app: String, lease: Option<&LeaseView>) -> Response {
    json(&dto::LeaseDocument {
        schema: schema::LEASE.to_owned(),
        app,
        lease: lease.map(show::lease),
    })
}
