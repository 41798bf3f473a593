//! What changes nothing.

use std::fmt::Write;
use std::time::Duration;

use axum::response::Response;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use tokio::sync::OwnedSemaphorePermit;

use super::dto::{self, schema};
use super::openapi;
use super::problem::{Code, Problem};
use super::request::{Asked, duration};
use super::routes::{Door, ROUTES};
use super::show;
use crate::control::{AppView, Overview, Refusal};

/// How long `drained` waits when nobody says.
const WAIT_DEFAULT: Duration = Duration::from_secs(60);

/// The longest wait.
const WAIT_MAX: Duration = Duration::from_secs(24 * 3600);

/// How long `/readyz` waits for the controller.
const READY_TIME: Duration = Duration::from_secs(2);

/// How many lines of history when nobody says.
const HISTORY_DEFAULT: usize = 1000;

/// A JSON answer.
pub(super) fn json(value: &impl serde::Serialize) -> Response {
    with_type(show::json(value), "application/json")
}

fn with_type(text: String, kind: &'static str) -> Response {
    let mut response = Response::new(text.into());
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

fn text(text: impl Into<String>) -> Response {
    with_type(text.into(), "text/plain; charset=utf-8")
}

pub(super) async fn status(asked: Asked<dto::StatusQuery>) -> Result<Response, Problem> {
    let mut overview = asked.door.handle.overview().await?;
    if let Some(app) = &asked.query.app {
        find(&overview, Some(app))?;
        overview.apps.retain(|view| view.name == *app);
    }
    Ok(json(&show::status(&overview)))
}

pub(super) async fn apps(asked: Asked<dto::StatusQuery>) -> Result<Response, Problem> {
    let mut overview = asked.door.handle.overview().await?;
    if let Some(app) = &asked.query.app {
        find(&overview, Some(app))?;
        overview.apps.retain(|view| view.name == *app);
    }
    let apps = overview.apps.iter().map(show::app).collect();
    let mut response = json(&dto::Apps {
        schema: schema::APPS.to_owned(),
        apps,
    });
    // A generation is an app's; a list of several has none.
    if let [only] = overview.apps.as_slice() {
        response
            .headers_mut()
            .insert(header::ETAG, show::etag(only.generation));
    }
    Ok(response)
}

pub(super) async fn app(asked: Asked<dto::Nothing>) -> Result<Response, Problem> {
    let view = view(&asked.door, asked.app().as_deref()).await?;
    let mut response = json(&dto::AppDocument {
        schema: schema::APP.to_owned(),
        app: show::app(&view),
    });
    response
        .headers_mut()
        .insert(header::ETAG, show::etag(view.generation));
    Ok(response)
}

/// The app with this name, or the only one.
pub(super) async fn view(door: &Door, name: Option<&str>) -> Result<AppView, Problem> {
    let overview = door.handle.overview().await?;
    Ok(find(&overview, name)?.clone())
}

fn find<'a>(overview: &'a Overview, name: Option<&str>) -> Result<&'a AppView, Refusal> {
    let known = || overview.apps.iter().map(|view| view.name.clone()).collect();
    match (name, overview.apps.as_slice()) {
        (None, [only]) => Ok(only),
        (None, _) => Err(Refusal::WhichApp { known: known() }),
        (Some(name), apps) => apps
            .iter()
            .find(|view| view.name == name)
            .ok_or_else(|| Refusal::UnknownApp {
                name: name.to_owned(),
                known: known(),
            }),
    }
}

pub(super) async fn drained(asked: Asked<dto::DrainedQuery>) -> Result<Response, Problem> {
    let wait = match &asked.query.wait {
        Some(text) => duration("wait", text)?.min(WAIT_MAX),
        None => WAIT_DEFAULT,
    };
    let _permit = long(&asked.door, asked.unix)?;
    let drained = asked
        .door
        .handle
        .wait_drained(asked.app(), asked.color()?, wait)
        .await?;
    Ok(json(&show::drained(drained)))
}

/// Leave for an answer that takes long.
pub(super) fn long(door: &Door, unix: bool) -> Result<OwnedSemaphorePermit, Problem> {
    let slots = if unix { &door.long_unix } else { &door.long_tcp };
    slots.clone().try_acquire_owned().map_err(|_| {
        Problem::new(
            Code::TooMany,
            "too many event streams and waits are open; close some and try again",
        )
        .header(header::RETRY_AFTER, HeaderValue::from_static("5"))
    })
}

pub(super) async fn history(asked: Asked<dto::HistoryQuery>) -> Result<Response, Problem> {
    let mut entries = asked.door.handle.history().await?;
    if let Some(app) = &asked.query.app {
        // An app that is gone from the config still has its history.
        entries.retain(|entry| entry.app == *app);
        if entries.is_empty() {
            view(&asked.door, Some(app)).await?;
        }
    }
    let limit = asked.query.limit.unwrap_or(HISTORY_DEFAULT);
    let last = entries.len().saturating_sub(limit);
    Ok(json(&dto::History {
        schema: schema::HISTORY.to_owned(),
        entries: entries.iter().skip(last).map(show::history).collect(),
    }))
}

pub(super) async fn config(asked: Asked<dto::Nothing>) -> Result<Response, Problem> {
    let text = asked.door.handle.config_text().await?;
    if wants_text(&asked.headers) {
        return Ok(with_type(text, "application/toml"));
    }
    Ok(json(&dto::ConfigText {
        schema: schema::CONFIG.to_owned(),
        text,
    }))
}

fn wants_text(headers: &HeaderMap) -> bool {
    headers
        .get(header::ACCEPT)
        .and_then(|accept| accept.to_str().ok())
        .is_some_and(|accept| accept.contains("toml") || accept.starts_with("text/"))
}

pub(super) async fn metrics(asked: Asked<dto::ReadyQuery>) -> Response {
    with_type(
        (asked.door.extras.metrics)(),
        "text/plain; version=0.0.4; charset=utf-8",
    )
}

pub(super) async fn livez(asked: Asked<dto::ReadyQuery>) -> Response {
    verdict(&(asked.door.extras.not_live)(), true)
}

pub(super) async fn readyz(asked: Asked<dto::ReadyQuery>) -> Response {
    let overview = tokio::time::timeout(READY_TIME, asked.door.handle.overview()).await;
    let reasons = match overview {
        Ok(Ok(overview)) if overview.ready => Vec::new(),
        Ok(Ok(overview)) if overview.not_ready.is_empty() => vec!["not ready".to_owned()],
        Ok(Ok(overview)) => overview.not_ready,
        Ok(Err(refusal)) => vec![refusal.to_string()],
        Err(_) => vec!["the controller does not answer".to_owned()],
    };
    verdict(&reasons, asked.query.verbose.is_some())
}

fn verdict(reasons: &[String], verbose: bool) -> Response {
    if reasons.is_empty() {
        return text("ok\n");
    }
    let mut lines = String::from("not ok\n");
    // The reasons are short and bounded; without `verbose` only the first is told.
    for reason in reasons.iter().take(if verbose { usize::MAX } else { 1 }) {
        let _ = writeln!(lines, "{reason}");
    }
    let mut response = text(lines);
    *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    response
}

pub(super) async fn openapi(_: Asked<dto::ReadyQuery>) -> Response {
    with_type(openapi::document().to_string(), "application/json")
}

pub(super) async fn index(_: Asked<dto::ReadyQuery>) -> Response {
    let mut page = String::from("cutover admin API\n\n");
    for route in ROUTES {
        let _ = writeln!(
            page,
            "{:4} {:40} {}",
            route.method.as_str(),
            route.path,
            route.summary
        );
    }
    text(page)
}
