//! What people read: tables and lines, made from the API's records by pure functions.

use std::fmt::Write;

use super::output::{Paint, clean};
use crate::admin::dto;
use crate::rollout::Color;

/// `status`: an app after the other, what is wrong first.
pub(super) fn status(status: &dto::Status, paint: Paint) -> String {
    let mut text = String::new();
    if let Some(error) = &status.config.last_error {
        let path = status.config.path.as_deref().unwrap_or("config");
        let banner = format!(
            "CONFIG REFUSED: {} is not in use; an older configuration runs",
            clean(path)
        );
        let _ = writeln!(text, "{}", paint.bad(&banner));
        for line in clean(error).lines() {
            let _ = writeln!(text, "  {line}");
        }
    }
    for line in &status.config.needs_restart {
        let _ = writeln!(text, "needs a restart: {}", clean(line));
    }
    for warning in &status.warnings {
        let _ = writeln!(text, "{} {}", paint.bad("warning:"), clean(warning));
    }
    for reason in &status.not_ready {
        let _ = writeln!(text, "{} {}", paint.bad("not ready:"), clean(reason));
    }
    for app in &status.apps {
        if !text.is_empty() {
            text.push('\n');
        }
        self::app(&mut text, app, paint);
    }
    text
}

fn app(text: &mut String, app: &dto::App, paint: Paint) {
    let active = Color::from(app.active);
    let rollback = match (&app.rollback.to, &app.rollback.reason) {
        (Some(to), _) => paint.good(&format!("ready, to {}", Color::from(*to))),
        (None, Some(why)) => format!("not possible, {}", clean(why)),
        (None, None) => "not possible".to_owned(),
    };
    let name = paint.strong(&clean(&app.app));
    let _ = writeln!(
        text,
        "{name}  active {}  generation {}  since {}  rollback: {rollback}",
        paint.strong(&shape(active)),
        app.generation,
        clean(&app.switched_at)
    );
    for line in remarks(app) {
        let _ = writeln!(text, "  {line}");
    }
    let mut rows = vec![
        [
            "COLOR",
            "ROLE",
            "SHARE",
            "IN-FLIGHT",
            "REVISION",
            "SERVICE",
            "ENDPOINT",
            "HEALTH",
        ]
        .map(str::to_owned),
    ];
    for (color, state) in [(Color::Blue, &app.colors.blue), (Color::Green, &app.colors.green)] {
        color_rows(&mut rows, color, state);
    }
    write_rows(text, &rows, paint);
}

/// What is not usual about an app.
fn remarks(app: &dto::App) -> Vec<String> {
    let mut remarks = Vec::new();
    if let Some(candidate) = app.candidate {
        remarks.push(format!(
            "candidate {} takes {} %",
            Color::from(candidate),
            app.weight
        ));
    }
    if app.spilled > 0 {
        remarks.push(format!(
            "{} requests for the candidate went to the active color: it had nothing healthy",
            app.spilled
        ));
    }
    if let Some(bake) = app
        .bake
        .as_ref()
        .filter(|bake| bake.phase != "passed" && bake.phase != "ended")
    {
        remarks.push(super::rollouts::bake_line(bake));
    }
    if let Some(rollout) = app.rollout.as_ref().filter(|rollout| rollout.phase != "done") {
        remarks.extend(super::rollouts::rollout_lines(rollout));
    }
    if let Some(hold) = &app.hold {
        remarks.push(format!(
            "HOLD since {}, at most {} s, {} waiting",
            clean(&hold.since),
            hold.max_seconds,
            hold.waiting
        ));
    }
    if let Some(message) = &app.maintenance {
        remarks.push(format!("MAINTENANCE: {}", clean(message)).trim_end().to_owned());
    }
    if let Some(operation) = &app.operation {
        remarks.push(format!("running: {}", clean(operation)));
    }
    if let Some(lease) = &app.lease {
        remarks.push(format!(
            "DEPLOYING: {} by {} since {} (`cutover lease show`)",
            clean(&lease.what),
            clean(&lease.by),
            clean(&lease.since)
        ));
    }
    if let Some(wants) = app.file_wants {
        let wants = Color::from(wants);
        remarks.push(format!(
            "the file says active = {wants}, reality differs: `cutover switch {wants}` makes it so, or change the file"
        ));
    }
    remarks.extend(confused(app));
    remarks.extend(kept(app));
    if let Some(why) = &app.degraded {
        remarks.push(format!("DEGRADED, the stored state was damaged: {}", clean(why)));
    }
    remarks
}

/// The standby has been kept for long enough.
fn kept(app: &dto::App) -> Option<String> {
    let until: jiff::Timestamp = app.standby_until.as_ref()?.parse().ok()?;
    (until <= jiff::Timestamp::now()).then(|| {
        let standby = Color::from(app.active).other();
        format!("{standby} has been kept since the last switch for as long as `standby_ttl` says: `cutover retire` stops it")
    })
}

/// Who runs and who serves, where that is not plain, and what to type.
fn confused(app: &dto::App) -> Option<String> {
    let active = Color::from(app.active);
    let (serves, other) = match active {
        Color::Blue => (&app.colors.blue, &app.colors.green),
        Color::Green => (&app.colors.green, &app.colors.blue),
    };
    let standby = active.other();
    let down = |state: &dto::ColorState| {
        let mut endpoints = state.services.iter().flat_map(|service| &service.endpoints);
        !state.healthy && endpoints.all(|endpoint| endpoint.health == "unreachable")
    };
    if serves.healthy && other.healthy && app.weight == 0 {
        return Some(format!(
            "both colors run: {active} serves, {standby} is warm; `cutover switch {standby}` goes there, `cutover retire` \
             stops it"
        ));
    }
    if down(serves) && down(other) {
        return Some(format!(
            "NOTHING RUNS: no endpoint of either color can be reached; start {active} and it serves at once \
             (`cutover deploy {active}`)"
        ));
    }
    if !serves.healthy && other.healthy {
        return Some(format!(
            "{active} serves and has nothing healthy, {standby} is healthy: `cutover rollback` or `cutover switch {standby}`"
        ));
    }
    None
}

const COLUMNS: usize = 8;

fn color_rows(rows: &mut Vec<[String; COLUMNS]>, color: Color, state: &dto::ColorState) {
    let mut first = [
        shape(color),
        clean(&state.role),
        format!("{} %", state.share),
        in_flight(state),
        state.revision.as_deref().map_or_else(|| "-".to_owned(), clean),
    ];
    for service in &state.services {
        for endpoint in &service.endpoints {
            let [color, role, share, in_flight, revision] = std::mem::take(&mut first);
            let from = if service.overridden { " (set)" } else { "" };
            rows.push([
                color,
                role,
                share,
                in_flight,
                revision,
                format!("{}{from}", clean(&service.service)),
                clean(&endpoint.address),
                health(endpoint),
            ]);
        }
    }
    // Not taken by any endpoint: the color has none.
    if !first[0].is_empty() {
        let [color, role, share, in_flight, revision] = first;
        let none = "no endpoint".to_owned();
        rows.push([
            color,
            role,
            share,
            in_flight,
            revision,
            "-".to_owned(),
            none,
            String::new(),
        ]);
    }
}

/// `3`, or `3 (2 streams, 5 wait)`.
fn in_flight(state: &dto::ColorState) -> String {
    let mut notes = Vec::new();
    match state.streams {
        0 => {}
        1 => notes.push("1 stream".to_owned()),
        streams => notes.push(format!("{streams} streams")),
    }
    let queues = state.services.iter().filter_map(|service| service.queue.as_ref());
    match queues.map(|queue| queue.waiting).sum() {
        0 => {}
        1 => notes.push("1 waits".to_owned()),
        waiting @ 2_usize.. => notes.push(format!("{waiting} wait")),
    }
    match notes.is_empty() {
        true => state.in_flight.to_string(),
        false => format!("{} ({})", state.in_flight, notes.join(", ")),
    }
}

fn health(endpoint: &dto::Endpoint) -> String {
    let mark = match endpoint.health.as_str() {
        "healthy" => "✔",
        "unknown" => "?",
        _ => "✖",
    };
    let mut text = format!("{mark} {}", clean(&endpoint.health));
    if endpoint.ejected {
        text += ", ejected";
    }
    let Some(probe) = &endpoint.last_probe else {
        return text + ", never probed";
    };
    match probe.status {
        Some(status) => {
            let _ = write!(text, ", {status} in {} ms", probe.latency_ms);
        }
        None => {
            let _ = write!(text, ", in {} ms", probe.latency_ms);
        }
    }
    if endpoint.health != "healthy" && !probe.reason.is_empty() {
        let _ = write!(text, ": {}", clean(&probe.reason));
    }
    text
}

/// A color by shape and word, so that it can be told without seeing hues.
fn shape(color: Color) -> String {
    match color {
        Color::Blue => "■ blue".to_owned(),
        Color::Green => "▲ green".to_owned(),
    }
}

/// Columns as wide as their widest cell; the last one is painted by its mark.
fn write_rows(text: &mut String, rows: &[[String; COLUMNS]], paint: Paint) {
    let mut widths = [0; COLUMNS];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    for row in rows {
        let mut line = String::new();
        for (at, (cell, width)) in row.iter().zip(widths).enumerate() {
            if at + 1 == COLUMNS {
                line.push_str(&match cell.chars().next() {
                    Some('✔') => paint.good(cell),
                    Some('✖') => paint.bad(cell),
                    _ => cell.clone(),
                });
            } else {
                // Not `{cell:width$}`: a width above 65,535 would be a panic.
                let gap = width.saturating_sub(cell.chars().count()) + 2;
                line.push_str(cell);
                line.extend(std::iter::repeat_n(' ', gap));
            }
        }
        let _ = writeln!(text, "  {}", line.trim_end());
    }
}

/// `status -q`: the active color; with several apps each with its name.
pub(super) fn quiet(status: &dto::Status) -> String {
    match status.apps.as_slice() {
        [only] => Color::from(only.active).to_string(),
        several => {
            let lines = several
                .iter()
                .map(|app| format!("{} {}", clean(&app.app), Color::from(app.active)));
            lines.collect::<Vec<_>>().join("\n")
        }
    }
}

/// One line an app, for `status --watch` into a pipe.
pub(super) fn summary(status: &dto::Status) -> String {
    let lines = status.apps.iter().map(|app| {
        let side = |state: &dto::ColorState| if state.healthy { "healthy" } else { "not healthy" };
        let mut line = format!(
            "{}  active {}  generation {}  blue {}  green {}",
            clean(&app.app),
            Color::from(app.active),
            app.generation,
            side(&app.colors.blue),
            side(&app.colors.green),
        );
        for remark in remarks(app) {
            let _ = write!(line, "  {remark}");
        }
        line
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// One change.
pub(super) fn history_line(entry: &dto::HistoryEntry) -> String {
    let to = Color::from(entry.to);
    let colors = match entry.from.map(Color::from) {
        Some(from) if from != to => format!("{from} → {to}"),
        _ => to.to_string(),
    };
    let mut line = format!(
        "{}  {}  g{}  {} {colors}",
        clean(&entry.at),
        clean(&entry.app),
        entry.generation,
        clean(&entry.verb)
    );
    if entry.weight > 0 {
        let _ = write!(line, ", {} takes {} %", to.other(), entry.weight);
    }
    if !entry.detail.is_empty() {
        let _ = write!(line, ", {}", clean(&entry.detail));
    }
    let _ = write!(line, "  by {} [{}]", clean(&entry.by), clean(&entry.trigger));
    if !entry.reason.is_empty() {
        let _ = write!(line, "  \"{}\"", clean(&entry.reason));
    }
    if let Some(outcome) = &entry.outcome {
        let _ = write!(
            line,
            "  {} of {} requests failed",
            outcome.failed, outcome.requests
        );
        if outcome.cancelled > 0 {
            let _ = write!(line, ", {} cut by the drain", outcome.cancelled);
        }
        if !outcome.verify.is_empty() {
            let _ = write!(line, ", {}", clean(&outcome.verify));
        }
    }
    line
}

/// One event.
pub(super) fn event_line(event: &dto::Event) -> String {
    let app = event.app.as_deref().map_or_else(|| "-".to_owned(), clean);
    format!(
        "{}  {:14} {app}  {}",
        clean(&event.at),
        clean(&event.kind),
        clean(&event.message)
    )
}

/// Every step, then the verdict.
pub(super) fn explained(explained: &dto::Explained) -> String {
    let mut text = String::new();
    for (at, step) in explained.steps.iter().enumerate() {
        let _ = writeln!(text, "{}. {}", at + 1, clean(step));
    }
    let app = explained.app.as_deref().unwrap_or("-");
    let service = explained.service.as_deref().unwrap_or("-");
    match (explained.status, explained.color) {
        (Some(status), _) => {
            let _ = writeln!(text, "→ the proxy answers {status} itself");
        }
        (None, color) => {
            let color = color.map_or("-", |color| Color::from(color).as_str());
            let endpoints = clean(&explained.endpoints.join(", "));
            let _ = writeln!(text, "→ {} {} {color} {endpoints}", clean(app), clean(service));
        }
    }
    text
}
