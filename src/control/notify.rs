//! Who is told: webhooks and commands on switches, rollbacks, and what guard and rollouts do. Nothing waits for them.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::time::{sleep, timeout};

use super::controller::Controller;
use super::gates::{post, run};
use super::view::HistoryEntry;
use crate::config::{Notify, NotifyBy, NotifyOn};
use crate::rollout::Trigger;
use crate::tls::Originators;

/// Notices under way at the same time; more are dropped, and that is logged.
const NOTICES_MAX: usize = 32;

/// How often one is tried.
const TRIES: u32 = 3;

/// Before the next try.
const AGAIN: Duration = Duration::from_secs(1);

impl Controller {
    /// Tell everybody who wants to know of this entry.
    pub(super) fn notify(&self, entry: &HistoryEntry) {
        let kinds = kinds(entry);
        let wanted: Vec<Notify> = {
            let config = self.config.borrow();
            let concerns = |notify: &&Notify| {
                notify.app.as_ref().is_none_or(|app| *app == entry.app)
                    && notify.on.iter().any(|on| kinds.contains(on))
            };
            config.notify.iter().filter(concerns).cloned().collect()
        };
        for notify in wanted {
            let on = notify
                .on
                .iter()
                .find(|on| kinds.contains(on))
                .map_or("", |on| on.as_str());
            // Counted by its references: one is the controller's.
            if Rc::strong_count(&self.notices) > NOTICES_MAX {
                tracing::warn!(
                    app = entry.app,
                    on,
                    "a notification is dropped: too many are under way"
                );
                continue;
            }
            let (held, body) = (Rc::clone(&self.notices), body(entry, on));
            let originators = Arc::clone(&self.originators);
            tokio::task::spawn_local(async move {
                tell(&notify, &body, &originators).await;
                drop(held);
            });
        }
    }
}

/// What an entry of the history is to somebody who wants to know.
fn kinds(entry: &HistoryEntry) -> Vec<NotifyOn> {
    let by_rollout = entry.by.trigger == Trigger::Rollout;
    match entry.verb.as_str() {
        "switch" if by_rollout => vec![NotifyOn::Switch, NotifyOn::Rollout],
        "switch" => vec![NotifyOn::Switch],
        "rollback" if entry.by.trigger == Trigger::Guard => vec![NotifyOn::Rollback, NotifyOn::Guard],
        "rollback" => vec![NotifyOn::Rollback],
        "weight" if by_rollout => vec![NotifyOn::Rollout],
        "standby over" => vec![NotifyOn::Standby],
        "rollback blocked" | "bake passed" | "bake insufficient data" => vec![NotifyOn::Guard],
        verb if verb.starts_with("rollout") => vec![NotifyOn::Rollout],
        _ => Vec::new(),
    }
}

fn body(entry: &HistoryEntry, on: &str) -> String {
    json!({
        "schema": "cutover.notify/v1",
        "on": on,
        "app": entry.app,
        "verb": entry.verb,
        "from": entry.from.map(|color| color.as_str()),
        "to": entry.to.as_str(),
        "weight": entry.weight,
        "generation": entry.generation,
        "by": entry.by.name,
        "trigger": entry.by.trigger.as_str(),
        "reason": entry.reason,
        "at": format!("{:.3}", entry.at),
        "seq": entry.seq,
    })
    .to_string()
}

async fn tell(notify: &Notify, body: &str, originators: &Originators) {
    let mut why = String::new();
    for attempt in 0..TRIES {
        if attempt > 0 {
            sleep(AGAIN * attempt).await;
        }
        let told = timeout(notify.timeout, once(notify, body, originators)).await;
        match told.unwrap_or_else(|_| Err(format!("not told within {:?}", notify.timeout))) {
            Ok(()) => return,
            Err(error) => why = error,
        }
    }
    let to = match &notify.by {
        NotifyBy::Webhook(url) => url.shown.as_str(),
        NotifyBy::Run(words) => words.first().map_or("", String::as_str),
    };
    tracing::warn!(to, why, "nobody was told: the notification failed");
}

async fn once(notify: &Notify, body: &str, originators: &Originators) -> Result<(), String> {
    match &notify.by {
        NotifyBy::Webhook(url) => match post(url, body, originators).await {
            Ok((status, _)) if status.is_success() => Ok(()),
            Ok((status, _)) => Err(format!("answered {status}")),
            Err(error) => Err(error),
        },
        NotifyBy::Run(words) => match run(words, &[], Some(body)).await {
            (super::ask::Verdict::Pass, _) => Ok(()),
            (_, detail) => Err(detail),
        },
    }
}
