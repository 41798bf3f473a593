//! Verbs that change something.

use std::collections::BTreeMap;
use std::time::Duration;

use http::Method;
use serde_json::{Value, json};

use super::args::{Endpoints, OnOff};
use super::failure::{Failure, probe_line};
use super::output::clean;
use super::remote::Remote;
use crate::admin::client::Call;
use crate::admin::{Code, Exit, dto};
use crate::rollout::Color;

/// Between two probes of `probe --wait`.
const PROBE_PAUSE: Duration = Duration::from_millis(500);

pub(super) async fn switch(remote: &mut Remote<'_>, to: &str) -> Result<(), Failure> {
    let body = json!({ "to": to, "force": remote.common.force });
    let outcome = change(remote, "/switch", body).await?;
    settle(remote, &outcome).await
}

pub(super) async fn rollback(remote: &mut Remote<'_>, to: Option<&str>) -> Result<(), Failure> {
    let mut body = json!({ "ignore_health": remote.common.ignore_health });
    if let Some(to) = to {
        // `g41` as the ETag has it, or the bare number of the history; all else is a revision.
        let number = to.strip_prefix('g').unwrap_or(to).parse::<u64>();
        body["to"] = number.map_or_else(|_| Value::from(to), Value::from);
    }
    let outcome = change(remote, "/rollback", body).await?;
    settle(remote, &outcome).await
}

pub(super) async fn weight(remote: &mut Remote<'_>, shares: &[(Color, u8)]) -> Result<(), Failure> {
    let mut body = json!({ "force": remote.common.force });
    for (color, percent) in shares {
        body[color.as_str()] = Value::from(*percent);
    }
    change(remote, "/weight", body).await.map(drop)
}

pub(super) async fn drain(remote: &mut Remote<'_>, color: Color) -> Result<(), Failure> {
    let body = json!({ "color": color.as_str(), "force": remote.common.force });
    let outcome = change(remote, "/drain", body).await?;
    match remote.common.wait {
        Some(wait) if !outcome.dry_run => drained(remote, color, wait).await,
        _ => Ok(()),
    }
}

pub(super) async fn hold(remote: &mut Remote<'_>, max: Duration) -> Result<(), Failure> {
    let body = json!({ "max": format!("{}ms", max.as_millis()) });
    change(remote, "/hold", body).await.map(drop)
}

pub(super) async fn release(remote: &mut Remote<'_>) -> Result<(), Failure> {
    change(remote, "/release", json!({})).await.map(drop)
}

pub(super) async fn maintenance(
    remote: &mut Remote<'_>,
    state: OnOff,
    message: Option<&str>,
) -> Result<(), Failure> {
    let mut body = json!({ "on": state == OnOff::On });
    if let Some(message) = message {
        body["message"] = Value::from(message);
    }
    change(remote, "/maintenance", body).await.map(drop)
}

pub(super) async fn endpoints(remote: &mut Remote<'_>, verb: &Endpoints) -> Result<(), Failure> {
    let Endpoints::Set {
        color,
        endpoints,
        service,
        revision,
    } = verb;
    if endpoints.is_empty() && revision.is_none() {
        return Err(Failure::usage(
            "nothing to set: give endpoints, --revision or both",
        ));
    }
    let mut services: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut bare = Vec::new();
    for endpoint in endpoints {
        match endpoint
            .split_once('=')
            .filter(|(name, _)| !name.contains([':', '/']))
        {
            Some((name, address)) => services
                .entry(name.to_owned())
                .or_default()
                .push(address.to_owned()),
            None => bare.push(endpoint.clone()),
        }
    }
    if !bare.is_empty() {
        let service = match service {
            Some(service) => service.clone(),
            None => only_service(remote).await?,
        };
        services.entry(service).or_default().extend(bare);
    }
    let mut body = json!({ "endpoints": services });
    if let Some(revision) = revision {
        body["revision"] = Value::from(revision.clone());
    }
    let (outcome, text) = remote
        .change(Method::PUT, &format!("/colors/{}", color.0), body)
        .await?;
    show(remote, &outcome, &text);
    Ok(())
}

/// The service that endpoints without a name belong to.
async fn only_service(remote: &Remote<'_>) -> Result<String, Failure> {
    let (document, _): (dto::AppDocument, _) = remote.call(&Call::get(remote.app_path(""))).await?;
    match document.app.colors.blue.services.as_slice() {
        [only] => Ok(only.service.clone()),
        several => {
            let names: Vec<_> = several.iter().map(|service| service.service.as_str()).collect();
            Err(Failure::usage(format!(
                "which service? There are: {}. Write SERVICE=HOST:PORT, or --service NAME",
                names.join(", ")
            )))
        }
    }
}

/// Ask for a change and show the answer.
pub(super) async fn change(
    remote: &mut Remote<'_>,
    rest: &str,
    body: Value,
) -> Result<dto::Outcome, Failure> {
    let (outcome, text) = remote.change(Method::POST, rest, body).await?;
    show(remote, &outcome, &text);
    Ok(outcome)
}

pub(super) fn show(remote: &mut Remote<'_>, outcome: &dto::Outcome, text: &str) {
    if remote.common.json {
        remote.output.data(text);
    } else if remote.common.quiet {
        remote.output.data(Color::from(outcome.active).as_str());
    } else {
        remote.output.data(&sentence(outcome));
    }
    if !remote.common.quiet {
        for gated in &outcome.gates {
            remote.output.note(&super::failure::gate_line(gated));
        }
        if let Some(until) = &outcome.bakes_until
            && !outcome.dry_run
            && remote.common.wait.is_none()
        {
            let old = Color::from(outcome.active).other();
            remote.output.note(&format!(
                "the guard watches until {}, and goes back to {old} by itself; `cutover wait` tells how it ends",
                clean(until)
            ));
        }
        for warning in &outcome.warnings {
            remote.output.note(&format!("warning: {}", clean(warning)));
        }
    }
}

/// What happened, in one line.
pub(super) fn sentence(outcome: &dto::Outcome) -> String {
    let active = Color::from(outcome.active);
    let from = Color::from(outcome.from);
    let app = clean(&outcome.app);
    let verb = clean(&outcome.verb);
    if !outcome.changed {
        let would = if outcome.dry_run {
            "would change nothing"
        } else {
            "nothing changed"
        };
        return format!(
            "{app}: {verb}: {active} is active, already so; {would} (generation {})",
            outcome.generation
        );
    }
    let mut text = format!("{app}: {verb}: ");
    if outcome.dry_run {
        text.push_str("dry run, nothing was done; then ");
    }
    if active == from {
        text.push_str(&format!("{active} is active"));
    } else {
        text.push_str(&format!("{active} is active, it was {from}"));
    }
    if outcome.weight > 0 {
        text.push_str(&format!(", {} takes {} %", active.other(), outcome.weight));
    }
    let now = if outcome.dry_run {
        "still generation"
    } else {
        "generation"
    };
    text.push_str(&format!(" ({now} {})", outcome.generation));
    match &outcome.verify {
        Some(dto::Verify {
            requests: Some(requests),
            ..
        }) => text.push_str(&format!(", verified by {requests} requests")),
        Some(verify) => {
            let why = verify.reason.as_deref().unwrap_or("no reason given");
            text.push_str(&format!(", proof {}: {}", clean(&verify.result), clean(why)));
        }
        None => {}
    }
    if outcome.repeated {
        text.push_str(" [answered before, to the same idempotency key]");
    }
    text
}

/// `--wait` of a switch: until the color that lost its traffic has drained.
pub(super) async fn settle(remote: &mut Remote<'_>, outcome: &dto::Outcome) -> Result<(), Failure> {
    let Some(wait) = remote.common.wait else {
        return Ok(());
    };
    if outcome.dry_run || outcome.weight > 0 {
        return Ok(());
    }
    let old = Color::from(outcome.active).other();
    let mut left = wait;
    if outcome.bakes_until.is_some() {
        let begun = tokio::time::Instant::now();
        super::rollouts::settle(remote, wait).await?;
        left = wait.saturating_sub(begun.elapsed());
    }
    match drained(remote, old, left).await {
        // It was so already, and the other color has never had traffic: there is nothing to wait for.
        Err(failure) if !outcome.changed && is(&failure, Code::NotDrainable) => Ok(()),
        other => other,
    }
}

fn is(failure: &Failure, code: Code) -> bool {
    failure
        .json
        .as_deref()
        .and_then(|text| serde_json::from_str::<dto::ProblemBody>(text).ok())
        .is_some_and(|problem| problem.code == code.facts().name)
}

async fn drained(remote: &mut Remote<'_>, color: Color, wait: Duration) -> Result<(), Failure> {
    if !remote.common.quiet {
        remote.output.note(&format!("waiting until {color} has drained"));
    }
    let (drained, _) = remote.wait_drained(color, wait).await?;
    if !remote.common.quiet {
        remote.output.note(&drained_sentence(&drained));
    }
    Ok(())
}

fn drained_sentence(drained: &dto::Drained) -> String {
    format!(
        "{}: {} has drained after {} ms; it can be stopped",
        clean(&drained.app),
        Color::from(drained.color),
        drained.waited_ms
    )
}

pub(super) async fn wait_drained(
    remote: &mut Remote<'_>,
    color: Color,
    timeout: Duration,
) -> Result<(), Failure> {
    let (drained, text) = remote.wait_drained(color, timeout).await?;
    if remote.common.json {
        remote.output.data(&text);
    } else if remote.common.quiet {
        remote.output.data("drained");
    } else {
        remote.output.data(&drained_sentence(&drained));
    }
    Ok(())
}

pub(super) async fn probe(remote: &mut Remote<'_>, color: Color) -> Result<(), Failure> {
    let call = Call {
        method: Method::POST,
        path: remote.app_path(&format!("/colors/{color}/probe")),
        body: Some("{}".to_owned()),
        headers: Vec::new(),
        time: Duration::from_secs(60),
    };
    let until = remote.common.wait.map(|wait| tokio::time::Instant::now() + wait);
    loop {
        let (probed, text): (dto::Probed, _) = remote.call(&call).await?;
        let late = until.is_none_or(|until| tokio::time::Instant::now() >= until);
        if !probed.healthy && !late {
            tokio::time::sleep(PROBE_PAUSE).await;
            continue;
        }
        if remote.common.json {
            remote.output.data(&text);
        } else if remote.common.quiet {
            remote
                .output
                .data(if probed.healthy { "healthy" } else { "unhealthy" });
        } else {
            for probe in &probed.probes {
                let line = probe_line(probe, remote.output.paint);
                remote.output.data(&line);
            }
        }
        return match (probed.healthy, remote.common.wait) {
            (true, _) => Ok(()),
            (false, None) => Err(Failure::new(
                Exit::Refused,
                format!("{color} would not pass the gate"),
            )),
            (false, Some(_)) => Err(Failure::new(
                Exit::StillRunning,
                format!("{color} did not become healthy in the time given"),
            )),
        };
    }
}

pub(super) async fn reload(remote: &mut Remote<'_>) -> Result<(), Failure> {
    let call = Call {
        method: Method::POST,
        path: "/v1/reload".to_owned(),
        body: Some("{}".to_owned()),
        headers: Vec::new(),
        time: Duration::from_secs(60),
    };
    let (reloaded, text): (dto::Reloaded, _) = remote.call(&call).await?;
    if remote.common.json {
        remote.output.data(&text);
        return Ok(());
    }
    if remote.common.quiet {
        remote
            .output
            .data(if reloaded.changed { "changed" } else { "unchanged" });
        return Ok(());
    }
    if reloaded.changed {
        remote.output.data("reloaded:");
    } else {
        remote
            .output
            .data("the content is the one in use; nothing changed");
    }
    for line in &reloaded.diff {
        remote.output.data(&format!("  {}", clean(line)));
    }
    for line in &reloaded.needs_restart {
        remote.output.note(&format!("needs a restart: {}", clean(line)));
    }
    for line in &reloaded.warnings {
        remote.output.note(&format!("warning: {}", clean(line)));
    }
    Ok(())
}
