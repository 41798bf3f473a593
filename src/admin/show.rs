//! From the control plane's records to the API's JSON.

use std::time::Duration;

use http::HeaderValue;
use jiff::Timestamp;

use super::dto::{self, schema};
use crate::control;
use crate::upstream::ProbeReport;

/// The JSON text of an answer.
pub(super) fn json(value: &impl serde::Serialize) -> String {
    // Our own records have string keys and no failing serializer; the fallback keeps even that from a panic.
    serde_json::to_string(value).unwrap_or_else(|error| format!("{{\"error\":\"{error}\"}}"))
}

/// The ETag of a generation: `"g42"`.
pub(super) fn etag(generation: u64) -> HeaderValue {
    HeaderValue::from_str(&format!("\"g{generation}\"")).unwrap_or(HeaderValue::from_static("\"g\""))
}

/// RFC 3339 in UTC, to the millisecond.
pub(super) fn time(at: Timestamp) -> String {
    format!("{at:.3}")
}

pub(super) fn status(overview: &control::Overview) -> dto::Status {
    dto::Status {
        schema: schema::STATUS.to_owned(),
        version: overview.version.to_owned(),
        pid: overview.pid,
        started: time(overview.started),
        ready: overview.ready,
        not_ready: overview.not_ready.clone(),
        listeners: overview.listeners.clone(),
        config: dto::ConfigFile {
            path: overview.config.path.clone(),
            hash: overview.config.hash.clone(),
            loaded_at: overview.config.loaded_at.map(time),
            last_error: overview.config.last_error.clone(),
            needs_restart: overview.config.needs_restart.clone(),
        },
        warnings: overview.warnings.clone(),
        apps: overview.apps.iter().map(app).collect(),
    }
}

pub(super) fn app(view: &control::AppView) -> dto::App {
    dto::App {
        app: view.name.clone(),
        hosts: view.hosts.clone(),
        generation: view.generation,
        active: view.active.into(),
        candidate: (view.weight > 0).then(|| view.active.other().into()),
        weight: view.weight,
        switched_at: time(view.switched_at),
        hold: view.hold.map(|hold| dto::Hold {
            since: time(hold.since),
            max_seconds: hold.max_seconds,
            waiting: hold.waiting,
        }),
        maintenance: view.maintenance.clone(),
        operation: view.operation.clone(),
        lease: view.lease.as_ref().map(lease),
        bake: view.bake.as_ref().map(bake),
        rollout: view.rollout.as_ref().map(rollout),
        file_wants: view.file_wants.map(Into::into),
        standby_until: view.standby_until.map(time),
        rollback: dto::Rollback {
            ready: view.rollback.is_ok(),
            to: view.rollback.as_ref().ok().map(|color| (*color).into()),
            reason: view.rollback.as_ref().err().cloned(),
        },
        degraded: view.degraded.clone(),
        spilled: view.spilled,
        colors: dto::Colors {
            blue: color(&view.colors.blue),
            green: color(&view.colors.green),
        },
    }
}

pub(super) fn lease(view: &control::LeaseView) -> dto::Lease {
    dto::Lease {
        what: view.what.clone(),
        by: view.by.name.clone(),
        since: time(view.since),
        expires_in_seconds: view.left.as_secs_f64(),
    }
}

fn bake(view: &control::BakeView) -> dto::Bake {
    dto::Bake {
        phase: view.phase.as_str().to_owned(),
        of: view.of,
        from: view.from.into(),
        to: view.to.into(),
        since: time(view.since),
        length_seconds: view.length.as_secs_f64(),
        watched_seconds: milliseconds(view.watched) / 1e3,
        note: view.note.clone(),
    }
}

pub(super) fn rollout(view: &control::RolloutView) -> dto::Rollout {
    let step = |step: &crate::rollout::RolloutStep| dto::RolloutStep {
        weight: step.weight,
        pause: match step.pause {
            crate::rollout::Pause::Approval => Some("approval".to_owned()),
            crate::rollout::Pause::For(time) if time.is_zero() => None,
            crate::rollout::Pause::For(time) => Some(format!("{}ms", time.as_millis())),
        },
    };
    dto::Rollout {
        phase: view.phase.as_str().to_owned(),
        of: view.of,
        to: view.to.into(),
        steps: view.steps.iter().map(step).collect(),
        step: view.at,
        waited_seconds: milliseconds(view.waited) / 1e3,
        waits_for_approval: view.waits_for_approval(),
        since: time(view.since),
        desired: view.desired,
        actual: view.actual,
        note: view.note.clone(),
    }
}

pub(super) fn settled(settled: &control::Settled) -> dto::Settled {
    dto::Settled {
        schema: schema::SETTLED.to_owned(),
        app: settled.app.clone(),
        settled: settled.settled,
        active: settled.active.into(),
        generation: settled.generation,
        bake: settled.bake.as_ref().map(bake),
        rollout: settled.rollout.as_ref().map(rollout),
    }
}

/// A gate as answers and refusals list it.
pub(super) fn gated(gated: &control::Gated) -> dto::Gated {
    dto::Gated {
        gate: gated.gate.clone(),
        kind: gated.kind.to_owned(),
        verdict: gated.verdict.as_str().to_owned(),
        detail: gated.detail.clone(),
    }
}

fn color(view: &control::ColorView) -> dto::ColorState {
    dto::ColorState {
        role: view.role.to_owned(),
        revision: view.revision.clone(),
        share: view.share,
        healthy: view.healthy,
        in_flight: view.in_flight,
        streams: view.streams,
        services: view.services.iter().map(service).collect(),
    }
}

fn service(view: &control::ServiceView) -> dto::Service {
    dto::Service {
        service: view.name.clone(),
        overridden: view.overridden,
        queue: view.queue.map(|queue| dto::Queue {
            max_in_flight: queue.max_in_flight,
            in_flight: queue.in_flight,
            waiting: queue.waiting,
            refused: queue.refused,
        }),
        endpoints: view
            .endpoints
            .iter()
            .map(|endpoint| dto::Endpoint {
                address: endpoint.address.clone(),
                resolved: endpoint.resolved.clone(),
                health: endpoint.health.as_str().to_owned(),
                ejected: endpoint.ejected,
                last_probe: endpoint.last_probe.as_deref().map(report),
            })
            .collect(),
    }
}

/// A probe as refusals list it.
pub(super) fn probe(probe: &control::Probe) -> dto::Probe {
    dto::Probe {
        endpoint: probe.endpoint.address.to_string(),
        service: probe.endpoint.service.clone(),
        color: probe.endpoint.color.into(),
        report: report(&probe.report),
    }
}

fn report(report: &ProbeReport) -> dto::ProbeReport {
    dto::ProbeReport {
        url: url(&report.asked),
        status: report.status,
        latency_ms: milliseconds(report.latency),
        verdict: report.verdict.as_str().to_owned(),
        reason: report.reason.clone(),
        at: time(report.at),
    }
}

/// `GET http://…` → `http://…`, `connect HOST:PORT` → `tcp://HOST:PORT`.
fn url(asked: &str) -> String {
    match asked.split_once(' ') {
        Some(("connect", address)) if address.starts_with("unix:") => address.to_owned(),
        Some(("connect", address)) => format!("tcp://{address}"),
        Some((_, url)) => url.to_owned(),
        None => asked.to_owned(),
    }
}

/// Milliseconds to the microsecond: enough for a probe, and short to read.
fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

pub(super) fn outcome(outcome: control::Outcome) -> dto::Outcome {
    dto::Outcome {
        schema: schema::OUTCOME.to_owned(),
        app: outcome.app,
        verb: outcome.verb.to_owned(),
        generation: outcome.generation,
        active: outcome.active.into(),
        changed: outcome.changed,
        from: outcome.from.into(),
        weight: outcome.weight,
        verify: outcome.verify.map(|verify| {
            let (result, requests, reason) = match verify {
                control::Verify::Verified { requests } => ("verified", Some(requests), None),
                control::Verify::Skipped(why) => ("skipped", None, Some(why)),
                control::Verify::Unverified(why) => ("unverified", None, Some(why)),
            };
            dto::Verify {
                result: result.to_owned(),
                requests,
                reason,
            }
        }),
        gates: outcome.gates.iter().map(gated).collect(),
        bakes_until: outcome.bakes_until.map(time),
        warnings: outcome.warnings,
        dry_run: outcome.dry_run,
        repeated: outcome.repeated,
    }
}

pub(super) fn history(entry: &control::HistoryEntry) -> dto::HistoryEntry {
    dto::HistoryEntry {
        seq: entry.seq,
        at: time(entry.at),
        app: entry.app.clone(),
        verb: entry.verb.clone(),
        from: entry.from.map(Into::into),
        to: entry.to.into(),
        weight: entry.weight,
        generation: entry.generation,
        by: entry.by.name.clone(),
        trigger: entry.by.trigger.as_str().to_owned(),
        reason: entry.reason.clone(),
        detail: entry.detail.clone(),
        outcome: entry.outcome.as_ref().map(|outcome| dto::RequestsMeanwhile {
            requests: outcome.requests,
            failed: outcome.failed,
            cancelled: outcome.cancelled,
            verify: outcome.verify.clone(),
        }),
    }
}

pub(super) fn event(event: &control::Event) -> dto::Event {
    dto::Event {
        schema: schema::EVENT.to_owned(),
        id: event.id,
        at: time(event.at),
        app: event.app.clone(),
        kind: event.kind.as_str().to_owned(),
        message: event.message.clone(),
    }
}

pub(super) fn reloaded(reloaded: control::Reloaded) -> dto::Reloaded {
    dto::Reloaded {
        schema: schema::RELOAD.to_owned(),
        changed: reloaded.changed,
        diff: reloaded.diff,
        needs_restart: reloaded.needs_restart,
        warnings: reloaded.warnings,
    }
}

pub(super) fn explained(explain: control::Explain) -> dto::Explained {
    dto::Explained {
        schema: schema::EXPLAIN.to_owned(),
        host: explain.host,
        path: explain.path,
        app: explain.app,
        service: explain.service,
        color: explain.color.map(Into::into),
        endpoints: explain.endpoints,
        steps: explain.steps,
        status: explain.status,
    }
}

pub(super) fn drained(drained: control::Drained) -> dto::Drained {
    dto::Drained {
        schema: schema::DRAINED.to_owned(),
        app: drained.app,
        color: drained.color.into(),
        drained: true,
        waited_ms: u64::try_from(drained.waited.as_millis()).unwrap_or(u64::MAX),
    }
}

pub(super) fn preview_token(token: control::PreviewToken) -> dto::PreviewToken {
    dto::PreviewToken {
        schema: "cutover.preview-token/v1".to_owned(),
        app: token.app,
        color: token.aim.as_str().to_owned(),
        token: token.token,
        expires: token.expires.to_string(),
        header: token.header,
        cookie: token.cookie,
    }
}

pub(super) fn probed(probed: &control::Probed) -> dto::Probed {
    dto::Probed {
        schema: schema::PROBE.to_owned(),
        app: probed.app.clone(),
        color: probed.color.into(),
        healthy: probed.healthy,
        probes: probed.probes.iter().map(probe).collect(),
    }
}
