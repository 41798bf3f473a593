//! What is told of each change: history, events, log, the compat file.

use std::sync::{Arc, PoisonError};

use jiff::Timestamp;

use super::controller::Controller;
use super::view::{Event, EventKind, HistoryEntry};
use crate::rollout::{AppState, Applied, Color, Command, Note};
use crate::store;

/// Changes remembered for `history`, and events for late subscribers.
const REMEMBERED: usize = 1_000;

impl Controller {
    pub(super) fn remember(
        &self,
        command: &Command,
        before: &AppState,
        after: &AppState,
        applied: Applied,
        seq: Option<u64>,
        at: Timestamp,
    ) {
        let entry = HistoryEntry {
            from: Some(before.active),
            detail: detail(applied, after),
            ..line(command, after, applied.verb(), seq, at)
        };
        let message = sentence(&entry);
        tracing::info!(
            app = command.app,
            generation = after.generation,
            by = command.by.name,
            "{message}"
        );
        self.tell(EventKind::Changed, Some(&command.app), seq, message);
        self.notify(&entry);
        self.push_history(entry);
        self.write_compat(&command.app, after.generation, after.active);
    }

    /// A note: all are events and in the journal, those that say something new are in the history.
    pub(super) fn remember_note(
        &self,
        command: &Command,
        after: &AppState,
        note: Note,
        seq: Option<u64>,
        at: Timestamp,
    ) {
        let entry = line(command, after, note.verb(), seq, at);
        let message = sentence(&entry);
        let kind = match note {
            Note::Gated => EventKind::Gate,
            Note::RolloutAt | Note::RolloutDone => EventKind::Rollout,
            Note::StandbyOver => EventKind::Standby,
            Note::Judged | Note::BakePassed | Note::BakeInsufficient | Note::BakeBlocked => EventKind::Guard,
        };
        if !note.is_passing() {
            tracing::info!(app = command.app, "{message}");
            self.notify(&entry);
            self.push_history(entry);
        }
        self.tell(kind, Some(&command.app), seq, message);
    }

    pub(super) fn push_history(&self, entry: HistoryEntry) {
        let mut history = self.history.borrow_mut();
        if history.len() == REMEMBERED {
            history.pop_front();
        }
        history.push_back(entry);
    }

    /// Tell all subscribers, and remember for those who come later.
    pub(super) fn tell(&self, kind: EventKind, app: Option<&str>, id: Option<u64>, message: String) {
        let event = Event {
            id,
            at: Timestamp::now(),
            app: app.map(str::to_owned),
            kind,
            message,
        };
        let mut past = self.past_events.borrow_mut();
        if past.len() == REMEMBERED {
            past.pop_front();
        }
        past.push_back(event.clone());
        // Nobody listening is no error.
        let _ = self.events.send(event);
    }

    /// The compat file is for scripts of before; a failure is told and stops nothing.
    pub(super) fn write_compat(&self, app: &str, generation: u64, active: Color) {
        let Some(template) = self.config.borrow().server.compat_file.clone() else {
            return;
        };
        let (app, written) = (app.to_owned(), Arc::clone(&self.compat_written));
        tokio::task::spawn_blocking(move || {
            // Held over the write, so that a slow older write never comes after a newer one.
            let mut written = written.lock().unwrap_or_else(PoisonError::into_inner);
            let newest = written.entry(app.clone()).or_default();
            if generation < *newest {
                return;
            }
            *newest = generation;
            if let Err(error) = store::write_compat_file(&template, &app, active) {
                tracing::warn!(app, %error, "compat_file was not written");
            }
        });
    }

    /// Requests finished and failed of an app so far.
    pub(super) fn totals(&self, app: &str) -> (u64, u64) {
        let pools = self.registry.pools();
        let of_app = pools.iter().filter(|((name, _, _), _)| name == app);
        of_app
            .map(|(_, cells)| cells.totals())
            .fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
    }
}

/// A command's line in the history, of a change that leaves the active color as it is and has nothing more to tell.
fn line(command: &Command, after: &AppState, verb: &str, seq: Option<u64>, at: Timestamp) -> HistoryEntry {
    HistoryEntry {
        seq: seq.unwrap_or_default(),
        at,
        app: command.app.clone(),
        verb: verb.to_owned(),
        from: Some(after.active),
        to: after.active,
        weight: after.weight.percent(),
        generation: after.generation,
        by: command.by.clone(),
        reason: command.reason.clone(),
        detail: String::new(),
        outcome: None,
    }
}

pub(super) fn detail(applied: Applied, after: &AppState) -> String {
    match applied {
        Applied::Draining(color) => color.to_string(),
        Applied::EndpointsSet(color) => {
            let of_color = &after.colors[color];
            let revision = of_color
                .revision
                .as_deref()
                .map(|rev| format!(" revision {rev}"))
                .unwrap_or_default();
            let lists = of_color
                .overrides
                .iter()
                .map(|(name, over)| format!(" {name}={}", over.endpoints.join(",")));
            format!("{color}{revision}{}", lists.collect::<String>())
        }
        Applied::Maintenance(on) => if on { "on" } else { "off" }.to_owned(),
        Applied::RolloutStarted(color) | Applied::RolloutEnded { color, .. } => color.to_string(),
        _ => String::new(),
    }
}

/// A change in one line, for events and the log.
fn sentence(entry: &HistoryEntry) -> String {
    let moved = match entry.from {
        Some(from) if from != entry.to => format!(" {from} → {}", entry.to),
        _ if entry.verb == "weight" => format!(" {} {} %", entry.to.other(), entry.weight),
        _ => String::new(),
    };
    let detail = if entry.detail.is_empty() {
        String::new()
    } else {
        format!(" {}", entry.detail)
    };
    let reason = if entry.reason.is_empty() {
        String::new()
    } else {
        format!(": {}", entry.reason)
    };
    format!(
        "{} {}{moved}{detail} (generation {}, by {}){reason}",
        entry.app, entry.verb, entry.generation, entry.by.name
    )
}
