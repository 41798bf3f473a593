//! The mailbox, and everything else that reaches the controller, until the process stops.

use std::rc::Rc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

use super::controller::{Controller, Inboxes, Parts};
use super::handle::{Handle, Message};
use super::view::{Event, EventKind};
use super::windows;
use crate::config::{Address, Changed};
use crate::shutdown::Watcher;
use crate::upstream::{HealthChange, Resolution, Target};

/// How often drains are looked at when no worker says anything.
const DRAIN_TICK: Duration = Duration::from_millis(50);
/// How often slower things are looked at: what could not be stored, names whose addresses fail.
const SLOW_TICK: Duration = Duration::from_secs(1);

/// The least time between two looks for endpoints whose addresses may be out of date.
const DOUBT_PAUSE: Duration = Duration::from_millis(100);

/// The controller, ready to run on the control plane's thread.
pub struct Control {
    controller: Rc<Controller>,
    inbox: mpsc::Receiver<Message>,
    inboxes: Inboxes,
}

impl std::fmt::Debug for Control {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Control").finish_non_exhaustive()
    }
}

impl Control {
    /// Take up the stored state and publish the first table. Must be called on the thread that will run it.
    pub async fn start(mut parts: Parts) -> (Self, Handle) {
        let restored = std::mem::take(&mut parts.restored);
        let fresh = restored.fresh;
        let (controller, inbox, handle, inboxes) = Controller::new(parts);
        if fresh {
            controller.metrics.first_start_without_state();
            let text =
                "first start: the state directory had no journal; the active colors were chosen afresh";
            controller.warnings.borrow_mut().push(text.to_owned());
            tracing::warn!("{text}");
        }
        controller.metrics.reloaded(controller.started);
        controller.restore(restored).await;
        (
            Self {
                controller,
                inbox,
                inboxes,
            },
            handle,
        )
    }

    /// Serve the mailbox until every handle is gone. `file` and `certificates` tell of changed files; `stopping` makes
    /// the process unready.
    pub async fn run(
        mut self,
        mut file: Option<mpsc::Receiver<Changed>>,
        mut certificates: Option<mpsc::Receiver<Changed>>,
        mut stopping: Watcher,
    ) {
        let mut drain_tick = tokio::time::interval(DRAIN_TICK);
        drain_tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut slow_tick = tokio::time::interval(SLOW_TICK);
        slow_tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut sample_tick = tokio::time::interval(windows::TICK);
        sample_tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let controller = Rc::clone(&self.controller);
        loop {
            tokio::select! {
                message = self.inbox.recv() => match message {
                    Some(message) => controller.serve(message),
                    None => return,
                },
                Some(change) = self.inboxes.health_changes.recv() => {
                    controller.health_changed(&change);
                    controller.watch_failovers();
                }
                Some(found) = self.inboxes.resolutions.recv() => controller.resolved(found),
                change = next(&mut file) => {
                    let controller = Rc::clone(&controller);
                    tokio::task::spawn_local(async move { controller.file_changed(change).await });
                }
                _ = next(&mut certificates) => {
                    let controller = Rc::clone(&controller);
                    tokio::task::spawn_local(async move { controller.certificates_changed().await });
                }
                () = controller.drained.notified() => controller.follow_drains(),
                () = controller.alarm.notified() => {
                    controller.alarmed();
                    controller.watch_breakers();
                    controller.doubt_names();
                }
                _ = drain_tick.tick(), if controller.drains() => controller.follow_drains(),
                _ = slow_tick.tick() => controller.slow_tick(),
                _ = sample_tick.tick() => controller.sample(),
                () = stopping.requested(), if !controller.stopping.get() => controller.stopping.set(true),
            }
        }
    }
}

async fn next(file: &mut Option<mpsc::Receiver<Changed>>) -> Changed {
    match file {
        Some(changes) => match changes.recv().await {
            Some(change) => change,
            None => std::future::pending().await,
        },
        None => std::future::pending().await,
    }
}

impl Controller {
    /// One message: a task of its own where it may take time. A door that has gone away wants no answer.
    fn serve(self: &Rc<Self>, message: Message) {
        match message {
            Message::Ask(ask, reply) => {
                self.spawn(|own| async move { drop(reply.send(own.ask(*ask).await)) })
            }
            Message::Reload(by, reply) => {
                self.spawn(|own| async move { drop(reply.send(own.reload(by).await)) })
            }
            Message::WaitDrained(app, color, timeout, reply) => self.spawn(|own| async move {
                let result = match own.app_name(app.as_deref()) {
                    Ok(app) => own.wait_drained(&app, color, timeout).await,
                    Err(refusal) => Err(refusal),
                };
                drop(reply.send(result));
            }),
            Message::Probe(app, color, reply) => self.spawn(|own| async move {
                let result = match own.app_name(app.as_deref()) {
                    Ok(app) => own.probed(&app, color).await,
                    Err(refusal) => Err(refusal),
                };
                drop(reply.send(result));
            }),
            Message::Lease(app, ask, by, reply) => {
                let name = self.app_name(app.as_deref());
                drop(reply.send(name.and_then(|app| self.lease(&app, ask, &by))));
            }
            Message::WaitSettled(app, time, reply) => self.spawn(|own| async move {
                let result = match own.app_name(app.as_deref()) {
                    Ok(app) => own.wait_settled(&app, time).await,
                    Err(refusal) => Err(refusal),
                };
                drop(reply.send(result));
            }),
            Message::Approve {
                app,
                gate,
                yes,
                by,
                reply,
            } => {
                let result = self
                    .app_name(app.as_deref())
                    .and_then(|app| self.approve(&app, gate.as_deref(), yes, &by.name));
                drop(reply.send(result));
            }
            Message::Overview(reply) => drop(reply.send(Box::new(self.overview()))),
            Message::History(reply) => drop(reply.send(self.history.borrow().iter().cloned().collect())),
            Message::Subscribe(after, reply) => {
                drop(reply.send((self.missed_events(after), self.events.subscribe())));
            }
            Message::Explain(request, reply) => drop(reply.send(self.explain(&request))),
            Message::PreviewToken(app, aim, life, reply) => {
                let token = |app: String| self.preview_token(&app, aim, life);
                drop(reply.send(self.app_name(app.as_deref()).and_then(token)));
            }
            Message::ConfigText(reply) => drop(reply.send(self.config_text())),
        }
    }

    /// Remembered events behind the one with this id; `None` wants none, 0 all.
    fn missed_events(&self, after: Option<u64>) -> Vec<Event> {
        let Some(after) = after else { return Vec::new() };
        let past = self.past_events.borrow();
        // By place, because events that are no changes have no id.
        let seen = past
            .iter()
            .rposition(|event| event.id.is_some_and(|id| id <= after));
        past.iter().skip(seen.map_or(0, |at| at + 1)).cloned().collect()
    }

    fn spawn<F: Future<Output = ()> + 'static>(self: &Rc<Self>, task: impl FnOnce(Rc<Self>) -> F) {
        tokio::task::spawn_local(task(Rc::clone(self)));
    }

    fn health_changed(self: &Rc<Self>, change: &HealthChange) {
        let key = &change.endpoint.key;
        let (from, to) = (change.from.as_str(), change.to.as_str());
        let reason = &change.report.reason;
        let message = format!(
            "{} {} {} {}: {from} → {to}: {reason}",
            key.app, key.service, key.color, key.address
        );
        tracing::info!(app = key.app, color = %key.color, endpoint = %key.address, from, to, reason, "health");
        self.tell(EventKind::Health, Some(&key.app), None, message);
        self.health_under_guard(&key.app, key.color);
    }

    /// A name has other addresses now: the same endpoints as configured, other targets. No command, no generation.
    fn resolved(&self, found: Resolution) {
        let Resolution {
            place: address,
            addresses,
            error,
        } = found;
        if let Some(error) = error {
            tracing::warn!(endpoint = %address, error, "no address is known of this endpoint");
        }
        let targets: Vec<_> = addresses.into_iter().map(Target::Tcp).collect();
        let config = self.config.borrow().clone();
        let users: Vec<String> = {
            let apps = self.apps.borrow();
            let uses = |name: &String, slot: &super::controller::Slot| {
                config.apps.get(name).is_some_and(|of| {
                    let endpoints = super::publish::effective_endpoints(of, &slot.state);
                    endpoints
                        .iter()
                        .any(|(_, by)| by.values().flatten().any(|used| used.place == address))
                })
            };
            apps.iter()
                .filter(|(name, slot)| uses(name, slot))
                .map(|(name, _)| name.clone())
                .collect()
        };
        self.resolved.borrow_mut().insert(address, targets);
        for app in users {
            self.publish_app(&app, None);
        }
    }

    fn sample(&self) {
        let table = self.published.load_full();
        self.sampler
            .borrow_mut()
            .tick(&table, tokio::time::Instant::now());
    }

    fn slow_tick(self: &Rc<Self>) {
        self.free_retired();
        self.expire_leases();
        self.watch_failovers();
        self.watch_standbys();
        if self.apps.borrow().values().any(|slot| slot.undurable.is_some()) {
            self.spawn(|own| async move { own.store_undurable().await });
        }
        self.watch_breakers();
        self.doubted_at.take();
        self.doubt_names();
    }

    /// Addresses that refuse connections may be out of date: ask their names again. At once, and then not for each of
    /// the thousands that may fail in a second.
    fn doubt_names(&self) {
        let now = std::time::Instant::now();
        if self.doubted_at.get().is_some_and(|at| now < at + DOUBT_PAUSE) {
            return;
        }
        self.doubted_at.set(Some(now));
        let table = self.published.load_full();
        for endpoint in table.endpoints() {
            let failing = endpoint
                .connect_failures
                .load(std::sync::atomic::Ordering::Relaxed)
                > 0
                || endpoint.health() == crate::upstream::Health::Unreachable;
            if let Address::Name { host, .. } = &endpoint.key.address.place
                && failing
            {
                self.names.borrow().refresh(host);
            }
        }
    }

    fn config_text(&self) -> String {
        super::reload::masked(&self.file_text.borrow())
    }
}
