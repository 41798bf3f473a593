//! The task that follows Docker: a list, then events; a list again after what an event does not tell, and now and then.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bollard::models::{EventMessage, EventMessageTypeEnum};
use bollard::query_parameters::{EventsOptions, ListContainersOptions};
use bollard::{API_DEFAULT_VERSION, Docker};
use futures_util::{Stream, StreamExt};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tracing::{info, warn};

use super::listed::{Container, containers, of};
use crate::config::{self, Address};
use crate::metrics::ControlMetrics;
use crate::upstream::Resolution;

/// For one answer of the engine, seconds.
const PATIENCE: u64 = 10;

/// The list is fetched again so often even if no event came: an engine that hangs is noticed, and an event that was lost is made good.
const LIST_AGAIN: Duration = Duration::from_secs(30);

/// The first and the longest pause before Docker is asked again after it did not answer; it doubles in between.
const RETRY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(15));

/// A container that was sent its end and does not end takes requests again after so long: it did not obey.
const DISOBEYED: Duration = Duration::from_secs(600);

/// The signals that ask a process to end: HUP, USR1 and others mean "read your files again" to most servers.
const ENDS: [&str; 4] = ["2", "3", "9", "15"];

/// What is known of the containers, and what was told of them.
pub(super) struct Follow {
    settings: config::Docker,
    wanted: watch::Receiver<BTreeSet<Address>>,
    results: mpsc::Sender<Resolution>,
    metrics: Arc<ControlMetrics>,
    containers: Vec<Container>,
    /// Containers that were told to end, and when.
    leaving: HashMap<String, Instant>,
    told: BTreeMap<Address, Vec<SocketAddr>>,
}

/// Why following ended.
enum End {
    /// Docker does not answer (any more).
    Lost(String),
    /// Nobody listens.
    Over,
}

impl From<bollard::errors::Error> for End {
    fn from(error: bollard::errors::Error) -> Self {
        Self::Lost(error.to_string())
    }
}

impl Follow {
    pub(super) fn new(
        settings: config::Docker,
        wanted: watch::Receiver<BTreeSet<Address>>,
        results: mpsc::Sender<Resolution>,
        metrics: Arc<ControlMetrics>,
    ) -> Self {
        Self {
            settings,
            wanted,
            results,
            metrics,
            containers: Vec::new(),
            leaving: HashMap::new(),
            told: BTreeMap::new(),
        }
    }

    /// Until nobody listens.
    pub(super) async fn run(mut self) {
        let mut failures = 0_u32;
        loop {
            let mut answered = false;
            let End::Lost(error) = self.follow(&mut answered, failures).await else {
                return;
            };
            failures = if answered { 1 } else { failures.saturating_add(1) };
            self.metrics.docker(Some(false));
            if failures == 1 {
                let (socket, kept) = (self.settings.socket.display(), self.told.len());
                warn!(%socket, error, kept, "Docker does not answer; what was last known of its containers stays");
            }
            if !self.tell_unknown(&error).await {
                return;
            }
            let doubled = RETRY.0.saturating_mul(2_u32.saturating_pow(failures - 1));
            sleep(doubled.min(RETRY.1)).await;
        }
    }

    /// From a connect until Docker is lost. `answered`: it was there.
    async fn follow(&mut self, answered: &mut bool, failures: u32) -> End {
        match self.try_follow(answered, failures).await {
            Ok(never) => match never {},
            Err(end) => end,
        }
    }

    async fn try_follow(
        &mut self,
        answered: &mut bool,
        failures: u32,
    ) -> Result<std::convert::Infallible, End> {
        let socket = self.settings.socket.display().to_string();
        let docker = Docker::connect_with_unix(&socket, PATIENCE, API_DEFAULT_VERSION)?
            .negotiate_version()
            .await?;
        // Events first, then the list: what happens in between is in one of them.
        let events = docker.events(Some(which_events()));
        futures_util::pin_mut!(events);
        // The request leaves when the stream is polled; what it has by then is handled below.
        let first = futures_util::poll!(events.next());
        self.list(&docker).await?;
        *answered = true;
        self.metrics.docker(Some(true));
        if failures > 0 {
            info!(socket, "Docker answers again");
        }
        if let std::task::Poll::Ready(first) = first {
            self.event(&docker, first).await?;
        }
        self.listen(&docker, events).await
    }

    async fn listen(
        &mut self,
        docker: &Docker,
        mut events: impl Stream<Item = Result<EventMessage, bollard::errors::Error>> + Unpin,
    ) -> Result<std::convert::Infallible, End> {
        let mut again = interval(LIST_AGAIN);
        again.set_missed_tick_behavior(MissedTickBehavior::Delay);
        again.reset();
        loop {
            tokio::select! {
                event = events.next() => self.event(docker, event).await?,
                changed = self.wanted.changed() => match changed {
                    Ok(()) => self.tell().await?,
                    Err(_) => return Err(End::Over),
                },
                _ = again.tick() => self.list(docker).await?,
            }
        }
    }

    async fn event(
        &mut self,
        docker: &Docker,
        event: Option<Result<EventMessage, bollard::errors::Error>>,
    ) -> Result<(), End> {
        let event = event.ok_or_else(|| End::Lost("it closed the stream of events".to_owned()))??;
        let actor = event.actor.unwrap_or_default();
        let (Some(id), Some(action)) = (actor.id, event.action) else {
            return Ok(());
        };
        let of_container = event.typ == Some(EventMessageTypeEnum::CONTAINER);
        match action.as_str() {
            // `docker stop` says `kill` when it begins and `die` when it is over: nothing new goes there from the first on.
            "kill" if of_container => {
                let signal = actor
                    .attributes
                    .unwrap_or_default()
                    .remove("signal")
                    .unwrap_or_default();
                if ENDS.contains(&signal.as_str()) {
                    self.leaving.insert(id, Instant::now());
                    self.tell().await?;
                }
            }
            "die" | "stop" | "pause" | "destroy" if of_container => {
                self.containers.retain(|container| container.id != id);
                if action != "pause" {
                    self.leaving.remove(&id);
                }
                self.tell().await?;
            }
            // A start, another network, another name: the event does not say the address.
            _ => {
                if action == "start" {
                    self.leaving.remove(&id);
                }
                self.list(docker).await?;
            }
        }
        Ok(())
    }

    async fn list(&mut self, docker: &Docker) -> Result<(), End> {
        let all = docker
            .list_containers(Some(ListContainersOptions::default()))
            .await?;
        self.containers = containers(all, &self.settings);
        let known: BTreeSet<&str> = self
            .containers
            .iter()
            .map(|container| container.id.as_str())
            .collect();
        self.leaving
            .retain(|id, since| known.contains(id.as_str()) && since.elapsed() < DISOBEYED);
        self.tell().await
    }

    /// Tell of each endpoint whose addresses are not what was told last.
    async fn tell(&mut self) -> Result<(), End> {
        let wanted = self.wanted.borrow_and_update().clone();
        self.told.retain(|place, _| wanted.contains(place));
        for place in wanted {
            let stays = self
                .containers
                .iter()
                .filter(|container| !self.leaving.contains_key(&container.id));
            let (addresses, error) = of(stays, &place, &self.settings);
            if self.told.get(&place) == Some(&addresses) {
                continue;
            }
            info!(endpoint = %place, ?addresses, "containers");
            self.told.insert(place.clone(), addresses.clone());
            let resolution = Resolution {
                place,
                addresses,
                error,
            };
            if self.results.send(resolution).await.is_err() {
                return Err(End::Over);
            }
        }
        Ok(())
    }

    /// Docker was never there: say so of what nothing is known of. False when nobody listens.
    async fn tell_unknown(&mut self, error: &str) -> bool {
        let wanted = self.wanted.borrow().clone();
        for place in wanted {
            if self.told.contains_key(&place) {
                continue;
            }
            self.told.insert(place.clone(), Vec::new());
            let resolution = Resolution {
                place,
                addresses: Vec::new(),
                error: Some(format!("Docker does not answer: {error}")),
            };
            if self.results.send(resolution).await.is_err() {
                return false;
            }
        }
        true
    }
}

fn which_events() -> EventsOptions {
    let list = |values: &[&str]| values.iter().map(|value| (*value).to_owned()).collect::<Vec<_>>();
    let filters = HashMap::from([
        ("type".to_owned(), list(&["container", "network"])),
        (
            "event".to_owned(),
            list(&[
                "start",
                "unpause",
                "rename",
                "connect",
                "disconnect",
                "kill",
                "die",
                "stop",
                "pause",
                "destroy",
            ]),
        ),
    ]);
    EventsOptions {
        filters: Some(filters),
        ..EventsOptions::default()
    }
}
