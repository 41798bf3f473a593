//! The first minute: what the store remembers, and the color of an app that it does not.

use std::rc::Rc;
use std::time::Duration;

use jiff::Timestamp;

use super::ask::Outcome;
use super::controller::{Controller, Insistence, Slot, itself};
use super::publish::file_endpoints;
use super::view::HistoryEntry;
use crate::config::{self, Initial};
use crate::rollout::{AppState, Applied, ByColor, Change, Color, Command, Trigger};
use crate::store::{self, Event};
use crate::upstream::Health;

/// How long the start waits for apps to decide on their first color.
const PATIENCE: Duration = Duration::from_secs(1);
/// Between two looks at the first probes.
const LOOK: Duration = Duration::from_millis(20);

impl Controller {
    /// Take up every app of the config with its stored state, or as new, and publish.
    pub(super) async fn restore(self: &Rc<Self>, restored: store::Restored) {
        self.recall(&restored);
        let config = self.config.borrow().clone();
        let mut undecided = Vec::new();
        for (name, of) in &config.apps {
            let slot = match restored.apps.get(name) {
                Some(known) => Slot {
                    degraded: known.degraded.clone(),
                    ..Slot::new(known.state.clone())
                },
                None => match restored.lost.get(name).or(restored.doubt.as_ref()) {
                    Some(why) => lost(why),
                    None => {
                        undecided.push(name.clone());
                        self.undecided(of)
                    }
                },
            };
            self.apps.borrow_mut().insert(name.clone(), slot);
        }
        self.publish_all();
        for name in config.apps.keys().filter(|name| !undecided.contains(name)) {
            self.take_up(name).await;
            self.take_up_watch(name);
        }
        let deciding = undecided.into_iter().map(|name| {
            let controller = Rc::clone(self);
            tokio::task::spawn_local(async move { controller.decide_first(&name).await })
        });
        // Usually the first probes have answered within milliseconds: then nobody ever meets an undecided app. Who
        // connects meanwhile waits in the listener's queue; who needs longer decides in the background.
        let all = futures_util::future::join_all(deciding.collect::<Vec<_>>());
        let _ = tokio::time::timeout(PATIENCE, all).await;
    }

    /// History, remembered answers and warnings of the journal.
    fn recall(&self, restored: &store::Restored) {
        self.warnings.borrow_mut().extend(restored.notes.iter().cloned());
        let mut active = std::collections::HashMap::new();
        for entry in &restored.history {
            if let Event::Outcome {
                of,
                requests,
                failed,
                cancelled,
                verify,
            } = &entry.event
            {
                let mut history = self.history.borrow_mut();
                if let Some(line) = history.iter_mut().rev().find(|line| line.seq == *of) {
                    let (requests, failed, cancelled) = (*requests, *failed, *cancelled);
                    let verify = verify.clone();
                    line.outcome = Some(super::view::OutcomeView {
                        requests,
                        failed,
                        cancelled,
                        verify,
                    });
                }
                continue;
            }
            let from = active.insert(entry.app.clone(), entry.state.active);
            if let (Some(key), Event::Changed(applied)) = (&entry.idempotency_key, &entry.event) {
                self.answers
                    .recall(&entry.app, key, answer_of(entry, *applied, from));
            }
            if !matches!(entry.event, Event::Noted(note) if note.is_passing()) {
                self.push_history(line_of(entry, from));
            }
        }
    }

    /// A restart releases a hold, and a config that changed meanwhile counts as a reload.
    pub(super) async fn take_up(self: &Rc<Self>, app: &str) {
        let Ok(state) = self.with_slot(app, |slot| slot.state.clone()) else {
            return;
        };
        if state.hold.is_some() {
            self.start_command(app, Change::Release, "a restart releases a hold")
                .await;
        }
        let config = self.config.borrow().clone();
        if let Some(of) = config.apps.get(app) {
            let file = ByColor::from_fn(|color| file_endpoints(of, color));
            let change = Change::Reload {
                file,
                changed: ByColor::default(),
            };
            self.start_command(
                app,
                change,
                "the config file changed while cutover was not running",
            )
            .await;
        }
    }

    /// A bake and a rollout go on where they were.
    pub(super) fn take_up_watch(self: &Rc<Self>, app: &str) {
        self.guard(app);
        self.drive_rollout(app);
    }

    async fn start_command(self: &Rc<Self>, app: &str, change: Change, reason: &str) {
        let command = Command {
            app: app.to_owned(),
            change,
            expect_generation: None,
            by: itself("start", Trigger::Start),
            reason: reason.to_owned(),
            idempotency_key: None,
        };
        let insist = Insistence {
            urgent: true,
            undurable: true,
            ..Insistence::default()
        };
        if let Err(error) = self.change(command, insist).await {
            tracing::error!(app, %error, "the stored state could not be brought up to date");
        }
    }

    /// The place of an app that is seen for the first time.
    pub(super) fn undecided(&self, of: &config::App) -> Slot {
        let color = self.initial.or(of.active).unwrap_or(match of.initial {
            Initial::Color(color) => color,
            Initial::Auto => Color::Blue,
        });
        let mut slot = Slot::new(AppState::first(color, Timestamp::now()));
        slot.closed = Some("the first active color is not decided yet".to_owned());
        slot
    }

    /// Decide the first color of an app and store it; until then it answers 503.
    pub(super) async fn decide_first(self: &Rc<Self>, app: &str) {
        let Some(of) = self.config.borrow().apps.get(app).cloned() else {
            return;
        };
        let fixed = self.initial.or(of.active).or(match of.initial {
            Initial::Color(color) => Some(color),
            Initial::Auto => None,
        });
        let (color, why) = match fixed {
            Some(color) => (color, "as the config says"),
            None => self.first_healthy(app, &of).await,
        };
        let Ok(line) = self.with_slot(app, |slot| Rc::clone(&slot.line)) else {
            return;
        };
        let _turn = line.lock().await;
        if self.with_slot(app, |slot| slot.closed.is_none()).unwrap_or(true) {
            // An operator was faster: their word stands.
            return;
        }
        let now = Timestamp::now();
        let state = AppState::first(color, now);
        let entry = store::Entry {
            seq: 0,
            at: now,
            app: app.to_owned(),
            event: Event::First,
            by: itself("start", Trigger::Start),
            reason: why.to_owned(),
            idempotency_key: None,
            state: state.clone(),
        };
        tracing::info!(app, %color, why, "first start of this app");
        let stored = self.store.commit(entry.clone(), true).await;
        let _ = self.with_slot(app, |slot| {
            slot.state = state;
            slot.closed = None;
            if let Err(error) = &stored {
                tracing::error!(app, %error, "the first state could not be stored");
                slot.undurable = Some(Box::new(entry.clone()));
            }
        });
        self.push_history(line_of(
            &store::Entry {
                seq: stored.unwrap_or_default(),
                ..entry
            },
            None,
        ));
        self.publish_state(app, None);
        self.write_compat(app, 1, color);
    }

    /// The first color whose probes pass; both: blue; none in time: blue.
    async fn first_healthy(&self, app: &str, of: &config::App) -> (Color, &'static str) {
        let slowest = of
            .services
            .values()
            .map(|service| service.health.interval + service.health.timeout);
        let patience = slowest.max().unwrap_or_default() * 2;
        let until = tokio::time::Instant::now() + patience;
        loop {
            let blue = self.known(app, Color::Blue);
            let green = self.known(app, Color::Green);
            if blue.healthy {
                return (Color::Blue, "blue is healthy");
            }
            if green.healthy && self.was_probed(app, Color::Blue) {
                return (Color::Green, "green is healthy and blue is not");
            }
            if tokio::time::Instant::now() >= until {
                return (Color::Blue, "neither color became healthy in time");
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Whether every endpoint of a color has been probed: one that is slow to answer is not yet one that fails.
    fn was_probed(&self, app: &str, color: Color) -> bool {
        let table = self.published.load_full();
        let services = table.app(app).into_iter().flat_map(|route| &route.services);
        let mut members = services.flat_map(|service| &service.pools[color].members);
        members.all(|member| {
            member.endpoint.last_probe().is_some() && member.endpoint.health() != Health::Unknown
        })
    }
}

/// An app whose state cannot be read: never an empty table, never a guess.
fn lost(why: &str) -> Slot {
    let mut slot = Slot::new(AppState::first(Color::Blue, Timestamp::now()));
    slot.degraded = Some(why.to_owned());
    slot.closed = Some("the stored state of this app cannot be read".to_owned());
    slot
}

fn line_of(entry: &store::Entry, from: Option<Color>) -> HistoryEntry {
    let (verb, detail) = match &entry.event {
        Event::First => ("first start", String::new()),
        Event::Restored { note } => ("restored", note.clone()),
        Event::Changed(applied) => (applied.verb(), super::record::detail(*applied, &entry.state)),
        Event::Noted(note) => (note.verb(), String::new()),
        Event::Outcome { .. } => ("outcome", String::new()),
    };
    HistoryEntry {
        seq: entry.seq,
        at: entry.at,
        app: entry.app.clone(),
        verb: verb.to_owned(),
        from,
        to: entry.state.active,
        weight: entry.state.weight.percent(),
        generation: entry.state.generation,
        by: entry.by.clone(),
        reason: entry.reason.clone(),
        detail,
        outcome: None,
    }
}

/// The answer that a change once got, as far as the journal knows it.
fn answer_of(entry: &store::Entry, applied: Applied, from: Option<Color>) -> Outcome {
    Outcome {
        app: entry.app.clone(),
        verb: applied.verb(),
        changed: true,
        dry_run: false,
        generation: entry.state.generation,
        active: entry.state.active,
        from: from.unwrap_or(entry.state.active),
        weight: entry.state.weight.percent(),
        verify: None,
        gates: Vec::new(),
        bakes_until: None,
        warnings: Vec::new(),
        repeated: true,
    }
}
