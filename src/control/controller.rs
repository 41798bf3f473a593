//! The controller: the one writer of routing state.
//!
//! It lives on the control plane's one thread. Each message of the mailbox becomes a task there, so a slow gate of
//! one app delays nobody; but every change goes through [`Controller::change`], one at a time for each app:
//! apply → commit → publish. Nothing else publishes.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::{Arc, Mutex};

use http::HeaderValue;
use jiff::Timestamp;
use tokio::sync::{Notify, broadcast, mpsc};

use super::ask::Refusal;
use super::certificates::Entrance;
use super::drain::DrainJob;
use super::failover::Dark;
use super::gates::Approvals;
use super::guard::Guarding;
use super::handle::{Handle, Message};
use super::idempotency::Answers;
use super::lease::Lease;
use super::view::{ConfigView, Event, EventKind, HistoryEntry};
use super::windows::Sampler;
use crate::config::{self, Config};
use crate::metrics::{ControlMetrics, Registry};
use crate::rollout::{self, Actor, AppState, Applied, Color, Command, Note, Rejection, Transition, Trigger};
use crate::routing::{PreviewKey, Published, Resolved, RoutingTable};
use crate::store::{self, StoreError, StoreHandle};
use crate::tls::Originators;
use crate::upstream::{Containers, Names, Prober};

/// Messages that may wait in the mailbox.
const MAILBOX: usize = 256;

/// What the controller is made of.
pub struct Parts {
    /// The configuration to start with.
    pub config: Arc<Config>,
    /// Its file, content hash and text; `None` when run from flags.
    pub file: Option<(PathBuf, config::ContentHash, String)>,
    /// The published pointer.
    pub published: Published,
    /// The metric cells.
    pub registry: Arc<Registry>,
    /// TLS towards the apps.
    pub originators: Arc<Originators>,
    /// The control plane's own counters.
    pub metrics: Arc<ControlMetrics>,
    /// The durable store.
    pub store: StoreHandle,
    /// What it held.
    pub restored: store::Restored,
    /// The listeners as bound, in the order of the configuration.
    pub listeners: Vec<Entrance>,
    /// The secret that the data plane knows a proof by.
    pub verify_secret: HeaderValue,
    /// `--initial COLOR`
    pub initial: Option<Color>,
    /// What else a reload does; gives back warnings.
    pub on_reload: OnReload,
}

/// Called with each configuration that is taken into use.
pub type OnReload = Box<dyn Fn(&Config) -> Vec<String>>;

impl std::fmt::Debug for Parts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parts")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

/// The controller.
pub(super) struct Controller {
    pub(super) config: RefCell<Arc<Config>>,
    pub(super) file: Option<PathBuf>,
    pub(super) config_view: RefCell<ConfigView>,
    pub(super) file_hash: Cell<Option<config::ContentHash>>,
    pub(super) file_text: RefCell<String>,
    pub(super) apps: RefCell<BTreeMap<String, Slot>>,
    pub(super) published: Published,
    pub(super) registry: Arc<Registry>,
    pub(super) originators: Arc<Originators>,
    pub(super) metrics: Arc<ControlMetrics>,
    pub(super) store: StoreHandle,
    pub(super) prober: RefCell<Prober>,
    pub(super) names: RefCell<Names>,
    pub(super) containers: RefCell<Containers>,
    pub(super) resolved: RefCell<Resolved>,
    pub(super) drained: Arc<Notify>,
    /// Notified by a worker when a connect failed.
    pub(super) alarm: Arc<Notify>,
    /// Held by each notification under way.
    pub(super) notices: Rc<()>,
    /// Notified when a bake or a rollout may be over.
    pub(super) settled: Notify,
    /// Notified when a drain job has ended.
    pub(super) drain_ended: Notify,
    pub(super) history: RefCell<VecDeque<HistoryEntry>>,
    pub(super) events: broadcast::Sender<Event>,
    pub(super) past_events: RefCell<VecDeque<Event>>,
    pub(super) answers: Answers,
    pub(super) warnings: RefCell<Vec<String>>,
    pub(super) listeners: Vec<Entrance>,
    pub(super) verify_secret: HeaderValue,
    pub(super) initial: Option<Color>,
    pub(super) on_reload: OnReload,
    pub(super) started: Timestamp,
    pub(super) stopping: Cell<bool>,
    /// A reload runs; the next one waits.
    pub(super) reloading: tokio::sync::Mutex<()>,
    /// The newest generation in each app's compat file.
    pub(super) compat_written: Arc<Mutex<BTreeMap<String, u64>>>,
    /// What preview tokens are signed with, once some app has a preview.
    pub(super) preview_key: RefCell<Option<Arc<PreviewKey>>>,
    /// What each color's requests were like lately.
    pub(super) sampler: RefCell<Sampler>,
    /// Since when active colors have had nothing healthy.
    pub(super) dark: RefCell<Dark>,
    /// What was told of breakers.
    pub(super) breakers: RefCell<super::breakers::Breakers>,
    /// When endpoints with outdated addresses were last looked for.
    pub(super) doubted_at: Cell<Option<std::time::Instant>>,
    /// Tables that some worker may still hold; freed here, so that no request pays for it.
    pub(super) retired: RefCell<Vec<Arc<RoutingTable>>>,
}

/// One app's place.
pub(super) struct Slot {
    /// The state in force.
    pub(super) state: AppState,
    /// Commits of this app stand in line here.
    pub(super) line: Rc<tokio::sync::Mutex<()>>,
    /// What runs outside of a commit: a gate, a proof.
    pub(super) operation: Option<(String, String)>,
    /// Who holds the app for a deploy.
    pub(super) lease: Option<Lease>,
    /// The lease that was broken last, and by whom: its holder shall not take it again.
    pub(super) lease_broken: Option<(String, String)>,
    /// The stored state is in doubt.
    pub(super) degraded: Option<String>,
    /// The app answers 503 for this reason: its first color is undecided, or its state is lost.
    pub(super) closed: Option<String>,
    /// Published, but not stored: the disk refused, an operator insisted.
    pub(super) undurable: Option<Box<store::Entry>>,
    /// Colors and gates that are finishing.
    pub(super) draining: Vec<DrainJob>,
    /// The guard, while a bake runs.
    pub(super) guarding: Option<Guarding>,
    /// The rollout that a task drives.
    pub(super) driving: Option<u64>,
    /// Gates that wait for an operator.
    pub(super) approvals: Approvals,
}

impl Slot {
    pub(super) fn new(state: AppState) -> Self {
        Self {
            state,
            line: Rc::default(),
            operation: None,
            lease: None,
            lease_broken: None,
            degraded: None,
            closed: None,
            undurable: None,
            draining: Vec::new(),
            guarding: None,
            driving: None,
            approvals: Approvals::new(),
        }
    }
}

/// A command that went through.
pub(super) struct Committed {
    pub(super) before: AppState,
    pub(super) after: AppState,
    pub(super) applied: Option<Applied>,
    pub(super) seq: Option<u64>,
    pub(super) warnings: Vec<String>,
}

impl Committed {
    fn unchanged(state: AppState) -> Self {
        Self {
            before: state.clone(),
            after: state,
            applied: None,
            seq: None,
            warnings: Vec::new(),
        }
    }
}

/// How a change is to be committed.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Insistence {
    /// May use the disk's reserve.
    pub(super) urgent: bool,
    /// The operator says that the served state is right, although the stored one is in doubt.
    pub(super) repair: bool,
    /// Publish although the store refuses, and store it later.
    pub(super) undurable: bool,
    /// Leave the publish to the caller, who has more to change with it.
    pub(super) unpublished: bool,
}

impl Controller {
    pub(super) fn new(parts: Parts) -> (Rc<Self>, mpsc::Receiver<Message>, Handle, Inboxes) {
        let (handle, inbox) = Handle::new(MAILBOX);
        let (health, health_changes) = mpsc::channel(1024);
        let (found, resolutions) = mpsc::channel(256);
        let (path, hash, text) = match parts.file {
            Some((path, hash, text)) => (Some(path), Some(hash), text),
            None => (
                None,
                None,
                "# cutover runs from flags: there is no config file\n".to_owned(),
            ),
        };
        let now = Timestamp::now();
        let config_view = ConfigView {
            path: path.as_ref().map(|path| path.display().to_string()),
            hash: hash.map(|hash| hash.to_string()).unwrap_or_default(),
            loaded_at: Some(now),
            ..ConfigView::default()
        };
        let controller = Rc::new(Self {
            config: RefCell::new(parts.config),
            file: path,
            config_view: RefCell::new(config_view),
            file_hash: Cell::new(hash),
            file_text: RefCell::new(text),
            apps: RefCell::default(),
            published: parts.published,
            registry: parts.registry,
            originators: parts.originators,
            containers: RefCell::new(Containers::new(found.clone(), Arc::clone(&parts.metrics))),
            metrics: parts.metrics,
            store: parts.store,
            prober: RefCell::new(Prober::new(health)),
            names: RefCell::new(Names::new(found)),
            resolved: RefCell::default(),
            drained: Arc::default(),
            alarm: Arc::default(),
            notices: Rc::default(),
            settled: Notify::new(),
            drain_ended: Notify::new(),
            history: RefCell::default(),
            events: broadcast::Sender::new(256),
            past_events: RefCell::default(),
            answers: Answers::default(),
            warnings: RefCell::default(),
            listeners: parts.listeners,
            verify_secret: parts.verify_secret,
            initial: parts.initial,
            on_reload: parts.on_reload,
            started: now,
            stopping: Cell::new(false),
            reloading: tokio::sync::Mutex::default(),
            compat_written: Arc::default(),
            preview_key: RefCell::default(),
            sampler: RefCell::default(),
            dark: RefCell::default(),
            breakers: RefCell::default(),
            doubted_at: Cell::default(),
            retired: RefCell::default(),
        });
        (
            controller,
            inbox,
            handle,
            Inboxes {
                health_changes,
                resolutions,
            },
        )
    }

    /// The name of the app asked for.
    pub(super) fn app_name(&self, asked: Option<&str>) -> Result<String, Refusal> {
        let apps = self.apps.borrow();
        let known = || apps.keys().cloned().collect();
        match asked {
            Some(name) if apps.contains_key(name) => Ok(name.to_owned()),
            Some(name) => Err(Refusal::UnknownApp {
                name: name.to_owned(),
                known: known(),
            }),
            None => match apps.keys().next() {
                Some(only) if apps.len() == 1 => Ok(only.clone()),
                _ => Err(Refusal::WhichApp { known: known() }),
            },
        }
    }

    /// A look at an app's place.
    pub(super) fn with_slot<T>(&self, app: &str, look: impl FnOnce(&mut Slot) -> T) -> Result<T, Refusal> {
        let mut apps = self.apps.borrow_mut();
        let known = || Vec::new();
        let slot = apps.get_mut(app).ok_or_else(|| Refusal::UnknownApp {
            name: app.to_owned(),
            known: known(),
        })?;
        Ok(look(slot))
    }

    /// Apply, commit, publish: the only way in which anything changes.
    pub(super) async fn change(
        self: &Rc<Self>,
        command: Command,
        insist: Insistence,
    ) -> Result<Committed, Refusal> {
        let line = self.with_slot(&command.app, |slot| Rc::clone(&slot.line))?;
        let _turn = line.lock().await;
        let now = Timestamp::now();
        let (before, degraded) =
            self.with_slot(&command.app, |slot| (slot.state.clone(), slot.degraded.clone()))?;
        let (after, applied) = match rollout::apply(&before, &command, now) {
            Ok(Transition::Changed(after, applied)) => (after, applied),
            Ok(Transition::Noted(after, note)) => {
                return self.keep_note(&command, before, after, note, insist).await;
            }
            Ok(Transition::NoChange) => return Ok(Committed::unchanged(before)),
            Err(rejection) => return Err(refusal_of(rejection, &before)),
        };
        if let Some(why) = degraded {
            if !insist.repair {
                return Err(Refusal::Degraded(why));
            }
            self.store
                .repair(&command.app)
                .await
                .map_err(|error| not_durable(&error))?;
        }
        let entry = store::Entry {
            seq: 0,
            at: now,
            app: command.app.clone(),
            event: store::Event::Changed(applied),
            by: command.by.clone(),
            reason: command.reason.clone(),
            idempotency_key: command.idempotency_key.clone(),
            state: after.clone(),
        };
        let (seq, warnings) = self.commit(entry, insist).await?;
        self.with_slot(&command.app, |slot| {
            slot.state = after.clone();
            slot.degraded = None;
            slot.closed = None;
            if seq.is_some() {
                // An older state that waited to be stored is out of date now; the store would refuse it for ever.
                slot.undurable = None;
            }
        })?;
        let totals = self.totals(&command.app);
        if !insist.unpublished {
            self.publish_app(&command.app, seq.zip(Some(totals)));
        }
        self.remember(&command, &before, &after, applied, seq, now);
        self.guard(&command.app);
        self.drive_rollout(&command.app);
        self.settled.notify_waiters();
        Ok(Committed {
            before,
            after,
            applied: Some(applied),
            seq,
            warnings,
        })
    }

    /// Commit what changes no routing, in the line of its app.
    async fn keep_note(
        self: &Rc<Self>,
        command: &Command,
        before: AppState,
        after: AppState,
        note: Note,
        insist: Insistence,
    ) -> Result<Committed, Refusal> {
        let now = Timestamp::now();
        let entry = store::Entry {
            seq: 0,
            at: now,
            app: command.app.clone(),
            event: store::Event::Noted(note),
            by: command.by.clone(),
            reason: command.reason.clone(),
            idempotency_key: None,
            state: after.clone(),
        };
        let (seq, warnings) = self.commit(entry, insist).await?;
        self.with_slot(&command.app, |slot| slot.state = after.clone())?;
        self.remember_note(command, &after, note, seq, now);
        self.settled.notify_waiters();
        Ok(Committed {
            before,
            after,
            applied: None,
            seq,
            warnings,
        })
    }

    /// Make an entry durable, or say why not.
    async fn commit(
        &self,
        entry: store::Entry,
        insist: Insistence,
    ) -> Result<(Option<u64>, Vec<String>), Refusal> {
        match self.store.commit(entry.clone(), insist.urgent).await {
            Ok(seq) => Ok((Some(seq), Vec::new())),
            Err(error) => {
                self.metrics.state_write_failed();
                self.tell(EventKind::StoreFailed, Some(&entry.app), None, error.to_string());
                tracing::error!(app = entry.app, %error, "the change could not be stored");
                if !insist.undurable {
                    return Err(not_durable(&error));
                }
                let warning = format!(
                    "NOT DURABLE: {error}; a restart now would undo this. Storing is tried again every second"
                );
                self.with_slot(&entry.app.clone(), |slot| slot.undurable = Some(Box::new(entry)))?;
                Ok((None, vec![warning]))
            }
        }
    }

    /// Try again to store what was published without.
    pub(super) async fn store_undurable(&self) {
        let waiting: Vec<_> = self
            .apps
            .borrow()
            .values()
            .filter_map(|slot| slot.undurable.clone())
            .collect();
        for entry in waiting {
            let app = entry.app.clone();
            let generation = entry.state.generation;
            if self.store.commit(*entry, true).await.is_ok() {
                let _ = self.with_slot(&app, |slot| {
                    if slot
                        .undurable
                        .as_ref()
                        .is_some_and(|entry| entry.state.generation == generation)
                    {
                        slot.undurable = None;
                    }
                });
                tracing::info!(app, "the undurable state is stored now");
            }
        }
    }
}

/// What reaches the controller besides the mailbox.
pub(super) struct Inboxes {
    pub(super) health_changes: mpsc::Receiver<crate::upstream::HealthChange>,
    pub(super) resolutions: mpsc::Receiver<crate::upstream::Resolution>,
}

/// The process itself as an actor.
pub(super) fn itself(name: &str, trigger: Trigger) -> Actor {
    Actor {
        name: name.to_owned(),
        trigger,
    }
}

pub(super) fn not_durable(error: &StoreError) -> Refusal {
    match error {
        // Only the end of the process closes the store; what became of the change, its next start knows.
        StoreError::Closed => Refusal::Stopping,
        error => Refusal::NotDurable(error.to_string()),
    }
}

pub(super) fn refusal_of(rejection: Rejection, state: &AppState) -> Refusal {
    match rejection {
        Rejection::Moved { expected, is } => Refusal::Moved { expected, is },
        Rejection::Unhealthy { color, .. } => Refusal::Unhealthy {
            color,
            active: state.active,
            probes: Vec::new(),
        },
        Rejection::NothingWarm { why } => Refusal::NothingWarm(why),
        Rejection::HasTraffic { .. } => Refusal::NotDrainable(rejection.to_string()),
        Rejection::WeightOutOfRange(_) | Rejection::Rollout(_) | Rejection::NoRollout => {
            Refusal::Invalid(rejection.to_string())
        }
        Rejection::RolloutRuns { to, percent } => Refusal::Busy {
            operation: format!("a rollout to {to} (at {percent} %)"),
            by: "an operator".to_owned(),
        },
    }
}
