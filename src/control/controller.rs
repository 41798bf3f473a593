//! The controller: the one writer of routing state.
//!
//! It lives on the control plane's one thread. Each message of the mailbox becomes a task there, so a slow gate of
//! one app delays nobody; but every change goes through [`Controller::change`], one at a time for each app:
//! apply → commit → publish. Nothing else publishes.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use http::HeaderValue;
use jiff::Timestamp;
use tokio::sync::{Notify, broadcast, mpsc};

use super::ask::{Outcome, Refusal};
use super::drain::DrainJob;
use super::handle::{Handle, Message};
use super::view::{ConfigView, Event, EventKind, HistoryEntry};
use crate::config::{self, Config, EndpointAddress, ListenAddress, parse_endpoint};
use crate::metrics::{ControlMetrics, Registry};
use crate::rollout::{
    self, Actor, AppState, Applied, ByColor, Color, Command, FileEndpoints, Rejection, Transition, Trigger,
};
use crate::routing::{self, AppInput, Fixed, Published, Resolved, RoutingTable};
use crate::store::{self, StoreError, StoreHandle};
use crate::upstream::{Names, Prober};

/// Changes remembered for `history`, and events for late subscribers.
const REMEMBERED: usize = 1_000;
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
    /// The control plane's own counters.
    pub metrics: Arc<ControlMetrics>,
    /// The durable store.
    pub store: StoreHandle,
    /// What it held.
    pub restored: store::Restored,
    /// The listeners as bound, for the proof after a switch.
    pub listeners: Vec<ListenAddress>,
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
    pub(super) metrics: Arc<ControlMetrics>,
    pub(super) store: StoreHandle,
    pub(super) prober: RefCell<Prober>,
    pub(super) names: RefCell<Names>,
    pub(super) resolved: RefCell<Resolved>,
    pub(super) drained: Arc<Notify>,
    /// Notified when a drain job has ended.
    pub(super) drain_ended: Notify,
    pub(super) history: RefCell<VecDeque<HistoryEntry>>,
    pub(super) events: broadcast::Sender<Event>,
    pub(super) past_events: RefCell<VecDeque<Event>>,
    pub(super) answers: RefCell<HashMap<(String, String), Outcome>>,
    pub(super) warnings: RefCell<Vec<String>>,
    pub(super) listeners: Vec<ListenAddress>,
    pub(super) verify_secret: HeaderValue,
    pub(super) initial: Option<Color>,
    pub(super) on_reload: OnReload,
    pub(super) started: Timestamp,
    pub(super) stopping: Cell<bool>,
    /// A reload runs; the next one waits.
    pub(super) reloading: tokio::sync::Mutex<()>,
    /// Tables that some worker may still hold; freed here, so that no request pays for it.
    retired: RefCell<Vec<Arc<RoutingTable>>>,
}

/// One app's place.
pub(super) struct Slot {
    /// The state in force.
    pub(super) state: AppState,
    /// Commits of this app stand in line here.
    pub(super) line: Rc<tokio::sync::Mutex<()>>,
    /// What runs outside of a commit: a gate, a proof.
    pub(super) operation: Option<(String, String)>,
    /// The stored state is in doubt.
    pub(super) degraded: Option<String>,
    /// The app answers 503 for this reason: its first color is undecided, or its state is lost.
    pub(super) closed: Option<String>,
    /// Published, but not stored: the disk refused, an operator insisted.
    pub(super) undurable: Option<Box<store::Entry>>,
    /// Colors and gates that are finishing.
    pub(super) draining: Vec<DrainJob>,
}

impl Slot {
    pub(super) fn new(state: AppState) -> Self {
        Self {
            state,
            line: Rc::default(),
            operation: None,
            degraded: None,
            closed: None,
            undurable: None,
            draining: Vec::new(),
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

/// How a change is to be committed.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Insistence {
    /// May use the disk's reserve.
    pub(super) urgent: bool,
    /// The operator says that the served state is right, although the stored one is in doubt.
    pub(super) repair: bool,
    /// Publish although the store refuses, and store it later.
    pub(super) undurable: bool,
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
            metrics: parts.metrics,
            store: parts.store,
            prober: RefCell::new(Prober::new(health)),
            names: RefCell::new(Names::new(found)),
            resolved: RefCell::default(),
            drained: Arc::default(),
            drain_ended: Notify::new(),
            history: RefCell::default(),
            events: broadcast::Sender::new(256),
            past_events: RefCell::default(),
            answers: RefCell::default(),
            warnings: RefCell::default(),
            listeners: parts.listeners,
            verify_secret: parts.verify_secret,
            initial: parts.initial,
            on_reload: parts.on_reload,
            started: now,
            stopping: Cell::new(false),
            reloading: tokio::sync::Mutex::default(),
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
        let (mut after, applied) = match rollout::apply(&before, &command, now) {
            Ok(Transition::Changed(after, applied)) => (after, applied),
            Ok(Transition::NoChange) => {
                let after = before.clone();
                return Ok(Committed {
                    before,
                    after,
                    applied: None,
                    seq: None,
                    warnings: Vec::new(),
                });
            }
            Err(rejection) => return Err(refusal_of(rejection, &before)),
        };
        if let Some(why) = degraded {
            if !insist.repair {
                return Err(Refusal::Degraded(why));
            }
            after.maintenance = None;
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
        })?;
        let totals = self.totals(&command.app);
        self.publish_app(&command.app, seq.zip(Some(totals)));
        self.remember(&command, &before, &after, applied, seq, now);
        Ok(Committed {
            before,
            after,
            applied: Some(applied),
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

    /// Publish one app's part anew, close what is no longer in it, and bring probes and names in line.
    ///
    /// `switch` is the journal sequence and the request totals at the change, for its outcome.
    pub(super) fn publish_app(&self, app: &str, change: Option<(u64, (u64, u64))>) {
        let Some(built) = self.build(app) else { return };
        let table = routing::with_app(&self.published.load(), built.app);
        let version = table.version;
        self.retire(self.published.publish(table));
        for (_, gate) in &built.closing {
            gate.close();
        }
        self.start_drains(app, built.closing, version, change);
        self.follow_endpoints();
    }

    /// Publish everything anew: apps or routes came or went.
    pub(super) fn publish_all(&self) {
        let config = Arc::clone(&self.config.borrow());
        let before = self.published.load_full();
        let mut closing = BTreeMap::new();
        let mut apps = Vec::new();
        for name in config.apps.keys() {
            if let Some(built) = self.build(name) {
                closing.insert(name.clone(), built.closing);
                apps.push(built.app);
            }
        }
        let version = before.version + 1;
        let table = RoutingTable {
            version,
            apps,
            matcher: Arc::new(routing::matcher(&config)),
            edge: Arc::new(routing::Edge {
                limits: config.limits,
                trusted: config.server.trusted_proxies.clone(),
            }),
        };
        self.retire(self.published.publish(table));
        for gone in before
            .apps
            .iter()
            .filter(|app| !config.apps.contains_key(&app.name))
        {
            routing::gates(gone).for_each(|gate| gate.close());
        }
        for (app, gates) in closing {
            for (_, gate) in &gates {
                gate.close();
            }
            self.start_drains(&app, gates, version, None);
        }
        self.follow_endpoints();
    }

    fn build(&self, app: &str) -> Option<routing::Built> {
        let config = self.config.borrow();
        let apps = self.apps.borrow();
        let (of, slot) = (config.apps.get(app)?, apps.get(app)?);
        let endpoints = effective_endpoints(of, &slot.state);
        let mut state = slot.state.clone();
        if let Some(why) = &slot.closed {
            state.maintenance = Some(rollout::Maintenance {
                message: Some(why.clone()),
                since: state.switched_at,
            });
        }
        let fixed = Fixed {
            workers: self.registry.worker_cells.len(),
            registry: &self.registry,
            drained: &self.drained,
        };
        let input = AppInput {
            config: of,
            state: &state,
            degraded: slot.degraded.is_some(),
            endpoints: &endpoints,
        };
        let table = self.published.load_full();
        let before = table.app(app).map(|before| &**before);
        Some(routing::rebuild(
            fixed,
            input,
            &self.resolved.borrow(),
            before,
            Instant::now(),
        ))
    }

    /// Probe and resolve exactly what the table has.
    fn follow_endpoints(&self) {
        let config = self.config.borrow();
        let apps = self.apps.borrow();
        let mut names = std::collections::BTreeSet::new();
        for (name, slot) in &*apps {
            let Some(of) = config.apps.get(name) else { continue };
            let endpoints = effective_endpoints(of, &slot.state);
            let addresses = endpoints
                .iter()
                .flat_map(|(_, services)| services.values().flatten());
            names.extend(addresses.filter_map(|address| match address {
                EndpointAddress::Name { host, port } => Some((host.clone(), *port)),
                EndpointAddress::Ip(_) | EndpointAddress::Unix(_) => None,
            }));
        }
        self.names.borrow_mut().reconcile(names);
        self.prober.borrow_mut().reconcile(self.to_probe(&config));
    }

    fn to_probe(&self, config: &Config) -> Vec<(Arc<crate::upstream::Endpoint>, Arc<config::Health>)> {
        let table = self.published.load_full();
        let mut healths: HashMap<(&str, &str), Arc<config::Health>> = HashMap::new();
        for app in config.apps.values() {
            for service in app.services.values() {
                healths.insert((&app.name, &service.name), Arc::new(service.health.clone()));
            }
        }
        let with_health = |endpoint: &Arc<crate::upstream::Endpoint>| {
            let health = healths.get(&(endpoint.key.app.as_str(), endpoint.key.service.as_str()))?;
            Some((Arc::clone(endpoint), Arc::clone(health)))
        };
        table.endpoints().filter_map(with_health).collect()
    }

    fn retire(&self, table: Arc<RoutingTable>) {
        let mut retired = self.retired.borrow_mut();
        retired.push(table);
        retired.retain(|table| Arc::strong_count(table) > 1);
    }

    /// Free tables that nobody holds any more.
    pub(super) fn free_retired(&self) {
        self.retired
            .borrow_mut()
            .retain(|table| Arc::strong_count(table) > 1);
    }

    fn remember(
        &self,
        command: &Command,
        before: &AppState,
        after: &AppState,
        applied: Applied,
        seq: Option<u64>,
        at: Timestamp,
    ) {
        let entry = HistoryEntry {
            seq: seq.unwrap_or_default(),
            at,
            app: command.app.clone(),
            verb: applied.verb().to_owned(),
            from: Some(before.active),
            to: after.active,
            weight: after.weight.percent(),
            generation: after.generation,
            by: command.by.clone(),
            reason: command.reason.clone(),
            detail: detail(applied, after),
            outcome: None,
        };
        let message = sentence(&entry);
        tracing::info!(
            app = command.app,
            generation = after.generation,
            by = command.by.name,
            "{message}"
        );
        self.tell(EventKind::Changed, Some(&command.app), seq, message);
        self.push_history(entry);
        self.write_compat(&command.app, after.active);
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
    pub(super) fn write_compat(&self, app: &str, active: Color) {
        let Some(template) = self.config.borrow().server.compat_file.clone() else {
            return;
        };
        let app = app.to_owned();
        tokio::task::spawn_blocking(move || {
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

/// What reaches the controller besides the mailbox.
pub(super) struct Inboxes {
    pub(super) health_changes: mpsc::Receiver<crate::upstream::HealthChange>,
    pub(super) resolutions: mpsc::Receiver<crate::upstream::Resolution>,
}

/// The endpoints in force: the file's, except where the API has set others.
pub(super) fn effective_endpoints(
    config: &config::App,
    state: &AppState,
) -> ByColor<BTreeMap<String, Vec<EndpointAddress>>> {
    ByColor::from_fn(|color| {
        let of_service = |service: &config::Service| match state.colors[color].overrides.get(&service.name) {
            // Checked when they were set; what a later version cannot read is left out and so unhealthy.
            Some(over) => over
                .endpoints
                .iter()
                .filter_map(|text| parse_endpoint(text).ok())
                .collect(),
            None => service.endpoints[color].clone(),
        };
        config
            .services
            .values()
            .map(|service| (service.name.clone(), of_service(service)))
            .collect()
    })
}

/// What the file says of one color.
pub(super) fn file_endpoints(config: &config::App, color: Color) -> FileEndpoints {
    let texts =
        |service: &config::Service| service.endpoints[color].iter().map(ToString::to_string).collect();
    config
        .services
        .values()
        .map(|service| (service.name.clone(), texts(service)))
        .collect()
}

/// The process itself as an actor.
pub(super) fn itself(name: &str, trigger: Trigger) -> Actor {
    Actor {
        name: name.to_owned(),
        trigger,
    }
}

pub(super) fn not_durable(error: &StoreError) -> Refusal {
    Refusal::NotDurable(error.to_string())
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
        Rejection::WeightOutOfRange(_) => Refusal::Invalid(rejection.to_string()),
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
