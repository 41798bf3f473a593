//! Verbs that look.

use std::time::Duration;

use http::{HeaderName, HeaderValue, Method};
use serde_json::json;

use super::failure::Failure;
use super::output::clean;
use super::remote::Remote;
use super::tables;
use crate::admin::client::{Call, ClientError, Received};
use crate::admin::{Exit, dto};
use crate::rollout::Color;

/// Between two looks of `status --watch`.
const WATCH_PAUSE: Duration = Duration::from_secs(1);

/// Before `events --follow` connects again.
const RECONNECT_PAUSE: Duration = Duration::from_secs(1);

pub(super) async fn status(remote: &mut Remote<'_>, watch: bool) -> Result<(), Failure> {
    let call = Call::get(query("/v1/status", &remote.app_query()));
    let (status, text): (dto::Status, _) = remote.call(&call).await?;
    if !watch {
        show_status(remote, &status, &text);
        return Ok(());
    }
    let mut last = String::new();
    let mut now: Result<_, Failure> = Ok((status, text));
    while !remote.output.closed {
        match &now {
            Ok((status, text)) => redraw(remote, status, text, &mut last),
            Err(failure) => remote.output.note(&format!("error: {}", failure.message)),
        }
        tokio::time::sleep(WATCH_PAUSE).await;
        now = remote.call(&call).await;
    }
    Ok(())
}

fn show_status(remote: &mut Remote<'_>, status: &dto::Status, text: &str) {
    if remote.common.json {
        remote.output.data(text);
    } else if remote.common.quiet {
        remote.output.data(&tables::quiet(status));
    } else {
        let text = tables::status(status, remote.output.paint);
        remote.output.data(&text);
    }
}

/// A terminal is redrawn; a file or a pipe gets a line when something changed.
fn redraw(remote: &mut Remote<'_>, status: &dto::Status, text: &str, last: &mut String) {
    if remote.output.terminal && !remote.common.json {
        let screen = tables::status(status, remote.output.paint);
        remote.output.data(&format!("\x1b[H\x1b[2J{screen}"));
        return;
    }
    let line = if remote.common.json {
        text.to_owned()
    } else {
        tables::summary(status)
    };
    if line != *last {
        remote.output.data(&line);
        *last = line;
    }
}

pub(super) async fn history(remote: &mut Remote<'_>, limit: Option<usize>) -> Result<(), Failure> {
    let mut parameters = remote.app_query();
    parameters.extend(limit.map(|limit| format!("limit={limit}")));
    let call = Call::get(query("/v1/history", &parameters));
    let (history, text): (dto::History, _) = remote.call(&call).await?;
    if remote.common.json {
        remote.output.data(&text);
        return Ok(());
    }
    if history.entries.is_empty() && !remote.common.quiet {
        remote.output.note("nothing was changed yet");
    }
    for entry in &history.entries {
        remote.output.data(&tables::history_line(entry));
    }
    Ok(())
}

/// The remembered events; with `follow` also what comes, over any number of connections.
pub(super) async fn events(remote: &mut Remote<'_>, follow: bool) -> Result<(), Failure> {
    let mut last = "0".to_owned();
    let mut connected = false;
    loop {
        let mut call = Call::get(if follow {
            "/v1/events"
        } else {
            "/v1/events?follow=false"
        });
        let id = HeaderValue::from_str(&last).ok();
        call.headers
            .extend(id.map(|id| (HeaderName::from_static("last-event-id"), id)));
        let ended = match remote.client.events(&call).await {
            Ok(Ok(mut stream)) => {
                connected = true;
                loop {
                    match stream.next().await {
                        Ok(Some(event)) => {
                            if let Some(id) = &event.id {
                                last.clone_from(id);
                            }
                            show_event(remote, &event);
                            if remote.output.closed {
                                return Ok(());
                            }
                        }
                        Ok(None) if !follow => return Ok(()),
                        Ok(None) => break None,
                        Err(error) => break Some(error),
                    }
                }
            }
            Ok(Err(answer)) => return Err(Failure::refused(&answer, remote.output.paint_errors)),
            Err(error) => Some(error),
        };
        match ended {
            Some(error) if !follow || !connected => return Err(Failure::unanswered(&error, false)),
            Some(ClientError::Connect { .. }) => {}
            Some(error) => remote.output.note(&format!("{error}; connecting again")),
            None => remote
                .output
                .note("the server ended the stream; connecting again"),
        }
        tokio::time::sleep(RECONNECT_PAUSE).await;
    }
}

fn show_event(remote: &mut Remote<'_>, event: &Received) {
    if event.event == "lagged" {
        remote
            .output
            .note("some events were lost, this reader was too slow; `cutover history` has every change");
        if !remote.common.json {
            return;
        }
    }
    if remote.common.json {
        remote.output.data(&event.data);
        return;
    }
    match serde_json::from_str::<dto::Event>(&event.data) {
        Ok(parsed) => {
            let about = remote.common.app.as_deref();
            if about.is_none() || parsed.app.is_none() || parsed.app.as_deref() == about {
                remote.output.data(&tables::event_line(&parsed));
            }
        }
        Err(_) => remote.output.data(&clean(&event.data)),
    }
}

pub(super) async fn explain(
    remote: &mut Remote<'_>,
    method: &str,
    url: &str,
    headers: &[(String, String)],
    from: Option<std::net::IpAddr>,
) -> Result<(), Failure> {
    let path = match remote.common.app {
        Some(_) => remote.app_path("/explain"),
        None => "/v1/explain".to_owned(),
    };
    let call = Call {
        method: Method::POST,
        path,
        body: Some(json!({ "method": method, "url": url, "headers": headers, "from": from }).to_string()),
        headers: Vec::new(),
        time: Duration::from_secs(10),
    };
    let (explained, text): (dto::Explained, _) = remote.call(&call).await?;
    if remote.common.json {
        remote.output.data(&text);
    } else if remote.common.quiet {
        let answer = match (explained.color, explained.status) {
            (_, Some(status)) => status.to_string(),
            (Some(color), None) => Color::from(color).to_string(),
            (None, None) => "none".to_owned(),
        };
        remote.output.data(&answer);
    } else {
        remote.output.data(&tables::explained(&explained));
    }
    Ok(())
}

/// The token is the data, how to use it a note: it can go straight into a variable.
pub(super) async fn preview_token(remote: &mut Remote<'_>, to: &str, ttl: Duration) -> Result<(), Failure> {
    let call = Call {
        method: Method::POST,
        path: remote.app_path("/preview-token"),
        body: Some(json!({ "color": to, "ttl": format!("{}ms", ttl.as_millis()) }).to_string()),
        headers: Vec::new(),
        time: Duration::from_secs(10),
    };
    let (made, text): (dto::PreviewToken, _) = remote.call(&call).await?;
    if remote.common.json {
        remote.output.data(&text);
        return Ok(());
    }
    remote.output.data(&clean(&made.token));
    if !remote.common.quiet {
        let cookie = made.cookie.map(|name| format!(" or the cookie {}", clean(&name)));
        remote.output.note(&format!(
            "for {} of {}, until {}: put it into the request header {}{}",
            clean(&made.color),
            clean(&made.app),
            clean(&made.expires),
            clean(&made.header),
            cookie.unwrap_or_default()
        ));
    }
    Ok(())
}

pub(super) async fn config(remote: &mut Remote<'_>) -> Result<(), Failure> {
    let (config, text): (dto::ConfigText, _) = remote.call(&Call::get("/v1/config")).await?;
    if remote.common.json {
        remote.output.data(&text);
    } else {
        // Comments may hold anything, and this goes to terminals.
        remote.output.data(&clean(&config.text));
    }
    Ok(())
}

pub(super) async fn health(remote: &mut Remote<'_>, ready: bool) -> Result<(), Failure> {
    let path = if ready { "/readyz?verbose" } else { "/livez" };
    let mut call = Call::get(path);
    call.time = Duration::from_secs(5);
    let answer = remote
        .client
        .call(&call)
        .await
        .map_err(|error| Failure::unanswered(&error, false))?;
    if answer.status.is_success() {
        if remote.common.json {
            remote
                .output
                .data(&json!({ "schema": "cutover.health/v1", "ok": true }).to_string());
        } else {
            remote.output.data("ok");
        }
        return Ok(());
    }
    let mut failure = Failure::new(Exit::Failed, clean(answer.text.trim_end()));
    let reasons: Vec<_> = answer.text.lines().skip(1).collect();
    failure.json =
        Some(json!({ "schema": "cutover.health/v1", "ok": false, "reasons": reasons }).to_string());
    Err(failure)
}

fn query(path: &str, parameters: &[String]) -> String {
    if parameters.is_empty() {
        return path.to_owned();
    }
    format!("{path}?{}", parameters.join("&"))
}
