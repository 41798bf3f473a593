//! What changes something, and the other paths with a body.

use std::time::Duration;

use axum::response::Response;
use http::header;

use super::dto;
use super::problem::{Code, Problem};
use super::reads::json;
use super::request::{Sent, color, duration, meant, words};
use super::routes::Door;
use super::show;
use crate::config::Aim;
use crate::control::{Ask, Before, ExplainRequest, Intent, Refusal, Wanted};
use crate::rollout::Color;

/// How long a hold lasts when nobody says.
const HOLD_DEFAULT: Duration = Duration::from_secs(20);

/// The longest hold.
const HOLD_MAX: Duration = Duration::from_secs(3600);

/// The longest maintenance message, in characters.
const MESSAGE_MAX: usize = 2000;

pub(super) async fn switch(sent: Sent<dto::Switch>) -> Result<Response, Problem> {
    let to = target(&sent.body.to)?;
    let intent = Intent::Switch {
        to,
        force: sent.body.force,
        release: sent.body.release,
    };
    let ask = sent.ask(intent, &sent.body.reason, sent.body.dry_run)?;
    change(&sent.door, ask).await
}

/// `blue`, `green` or `standby`.
pub(super) fn target(name: &str) -> Result<Wanted, Problem> {
    match name {
        "standby" => Ok(Wanted::Standby),
        "blue" => Ok(Wanted::Color(Color::Blue)),
        "green" => Ok(Wanted::Color(Color::Green)),
        other => Err(Problem::new(
            Code::Invalid,
            format!("`to`: `{other}` is not `blue`, `green` or `standby`")
                + &meant(other, &["blue", "green", "standby"]),
        )),
    }
}

pub(super) async fn rollback(sent: Sent<dto::RollBack>) -> Result<Response, Problem> {
    let ignore_health = sent.body.ignore_health;
    let intent = match &sent.body.to {
        None => Intent::Rollback { ignore_health },
        Some(past) => Intent::RollbackTo {
            past: match past {
                dto::Past::Generation(at) => Before::Generation(*at),
                dto::Past::Revision(revision) => Before::Revision(revision.clone()),
            },
            ignore_health,
        },
    };
    let ask = sent.ask(intent, &sent.body.reason, sent.body.dry_run)?;
    change(&sent.door, ask).await
}

pub(super) async fn weight(sent: Sent<dto::Weight>) -> Result<Response, Problem> {
    let (color, percent) = share(sent.body.blue, sent.body.green)?;
    let intent = Intent::Weight {
        color,
        percent,
        force: sent.body.force,
    };
    let ask = sent.ask(intent, &sent.body.reason, sent.body.dry_run)?;
    change(&sent.door, ask).await
}

/// One color's share; of both, they must add up.
fn share(blue: Option<u64>, green: Option<u64>) -> Result<(Color, u8), Problem> {
    let invalid = |why: &str| Problem::new(Code::Invalid, why);
    let (color, percent) = match (blue, green) {
        (Some(blue), Some(green)) if blue.checked_add(green) != Some(100) => {
            return Err(invalid(&format!(
                "blue={blue} and green={green} do not add up to 100; name one color, the other gets the rest"
            )));
        }
        (_, Some(percent)) => (Color::Green, percent),
        (Some(percent), None) => (Color::Blue, percent),
        (None, None) => return Err(invalid("name a color with its share, like {\"green\": 10}")),
    };
    u8::try_from(percent)
        .ok()
        .filter(|percent| *percent <= 100)
        .map(|percent| (color, percent))
        .ok_or_else(|| invalid(&format!("{color}={percent}: a share is 0 to 100 percent")))
}

pub(super) async fn drain(sent: Sent<dto::Drain>) -> Result<Response, Problem> {
    let intent = Intent::Drain {
        color: color(&sent.body.color)?,
        force: sent.body.force,
    };
    let ask = sent.ask(intent, &sent.body.reason, sent.body.dry_run)?;
    change(&sent.door, ask).await
}

pub(super) async fn hold(sent: Sent<dto::HoldRequests>) -> Result<Response, Problem> {
    let max = match &sent.body.max {
        Some(text) => duration("max", text)?,
        None => HOLD_DEFAULT,
    };
    if max.is_zero() || max > HOLD_MAX {
        return Err(Problem::new(
            Code::Invalid,
            "`max`: a hold lasts more than 0 and at most 1h",
        ));
    }
    let idle = sent.body.idle;
    let ask = sent.ask(Intent::Hold { max, idle }, &sent.body.reason, sent.body.dry_run)?;
    change(&sent.door, ask).await
}

pub(super) async fn release(sent: Sent<dto::Release>) -> Result<Response, Problem> {
    let ask = sent.ask(Intent::Release, &sent.body.reason, sent.body.dry_run)?;
    change(&sent.door, ask).await
}

pub(super) async fn maintenance(sent: Sent<dto::Maintenance>) -> Result<Response, Problem> {
    let message = match &sent.body.message {
        Some(message) => Some(words("message", message, MESSAGE_MAX)?),
        None => None,
    };
    if !sent.body.on && message.is_some() {
        return Err(Problem::new(Code::Invalid, "`message` goes with `on: true` only"));
    }
    let intent = Intent::Maintenance(sent.body.on.then_some(message));
    let ask = sent.ask(intent, &sent.body.reason, sent.body.dry_run)?;
    change(&sent.door, ask).await
}

pub(super) async fn set_color(sent: Sent<dto::SetColor>) -> Result<Response, Problem> {
    let color = sent.color()?;
    if sent.body.endpoints.is_empty() && sent.body.revision.is_none() {
        return Err(Problem::new(
            Code::Invalid,
            "nothing to set: give `endpoints`, `revision` or both",
        ));
    }
    let revision = match &sent.body.revision {
        Some(revision) => Some(words("revision", revision, 200)?),
        None => None,
    };
    let intent = Intent::SetEndpoints {
        color,
        endpoints: sent.body.endpoints.clone(),
        revision,
    };
    let ask = sent.ask(intent, &sent.body.reason, sent.body.dry_run)?;
    change(&sent.door, ask).await
}

/// Ask, and answer with the outcome, or with the refusal and where the app stands.
pub(super) async fn change(door: &Door, ask: Ask) -> Result<Response, Problem> {
    let app = ask.app.clone();
    // In a task of its own: a client that hangs up leaves the change to its end, and the answer to its key.
    let handle = door.handle.clone();
    let answer = tokio::spawn(async move { handle.ask(ask).await })
        .await
        .unwrap_or(Err(Refusal::Stopping));
    match answer {
        Ok(outcome) => {
            let generation = outcome.generation;
            let mut response = json(&show::outcome(outcome));
            response
                .headers_mut()
                .insert(header::ETAG, show::etag(generation));
            Ok(response)
        }
        Err(refusal) => Err(explain_refusal(door, app, refusal).await),
    }
}

async fn explain_refusal(door: &Door, app: Option<String>, refusal: Refusal) -> Problem {
    let mut problem = Problem::from(refusal);
    if matches!(problem.code, Code::Stopping | Code::UnknownApp | Code::WhichApp) {
        return problem;
    }
    if let Ok(overview) = door.handle.overview().await {
        let view = match app {
            Some(name) => overview.apps.iter().find(|view| view.name == name),
            None => overview.apps.first(),
        };
        if let Some(view) = view {
            problem.describe(show::app(view));
        }
    }
    problem
}

pub(super) async fn probe(sent: Sent<dto::Nothing>) -> Result<Response, Problem> {
    let probed = sent.door.handle.probe(sent.app(), sent.color()?).await?;
    Ok(json(&show::probed(&probed)))
}

/// Changes nothing, but lets whoever has the answer in: so it is no read.
pub(super) async fn preview_token(sent: Sent<dto::NewPreviewToken>) -> Result<Response, Problem> {
    let word = sent.body.color.as_str();
    let aim = Aim::of(word).ok_or_else(|| {
        let known = ["blue", "green", "standby"];
        let why = format!("`color`: `{word}` is not `blue`, `green` or `standby`");
        Problem::new(Code::Invalid, why + &meant(word, &known))
    })?;
    let life = duration("ttl", &sent.body.ttl)?;
    let token = sent.door.handle.preview_token(sent.app(), aim, life).await?;
    Ok(json(&show::preview_token(token)))
}

/// Not bound to an app: which app it is, is part of the answer.
pub(super) async fn explain(sent: Sent<dto::Explain>) -> Result<Response, Problem> {
    let request = ExplainRequest {
        method: sent.body.method.clone(),
        url: sent.body.url.clone(),
        headers: sent.body.headers.clone(),
        from: sent.body.from.clone(),
    };
    if let Some(app) = sent.app() {
        super::reads::view(&sent.door, Some(&app)).await?;
    }
    let explain = sent.door.handle.explain(request).await?;
    Ok(json(&show::explained(explain)))
}

pub(super) async fn reload(sent: Sent<dto::Nothing>) -> Result<Response, Problem> {
    let reloaded = sent.door.handle.reload(sent.caller.actor.clone()).await?;
    Ok(json(&show::reloaded(reloaded)))
}
