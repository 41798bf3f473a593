//! A controller for the tests of the doors: it remembers what was asked and answers from a small state.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{broadcast, mpsc};

use super::handle::Message;
use super::{
    AppView, Ask, ColorView, ConfigView, Drained, EndpointView, Event, EventKind, Explain, ExplainRequest,
    Handle, HistoryEntry, Intent, LeaseAsk, LeaseView, Outcome, OutcomeView, Overview, PreviewToken, Probe,
    Probed, Refusal, Reloaded, ServiceView, Verify, Wanted,
};
use crate::config::{Address, EndpointAddress};
use crate::rollout::{Actor, ByColor, Color, Trigger};
use crate::upstream::{EndpointKey, Health, ProbeReport, Target};

/// A fixed moment, for golden outputs.
pub(crate) const AT: &str = "2026-11-21T06:00:00Z";

/// What the fake knows; shared with the test.
#[derive(Clone)]
pub(crate) struct Fake {
    state: Arc<Mutex<State>>,
    events: broadcast::Sender<Event>,
}

pub(crate) struct State {
    pub overview: Overview,
    /// The next answers are these.
    pub refusals: VecDeque<Refusal>,
    pub asks: Vec<Ask>,
    /// The next answers to waits are these.
    pub wait_refusals: VecDeque<Refusal>,
    pub waits: Vec<(Option<String>, Color, Duration)>,
    pub explained: Vec<ExplainRequest>,
    pub reloads: Vec<Actor>,
    pub leases: Vec<LeaseAsk>,
    pub remembered: Vec<Event>,
    pub healthy: bool,
}

impl Fake {
    /// Start it with these apps on the current runtime.
    pub(crate) fn start(apps: &[&str]) -> (Handle, Self) {
        let (handle, inbox) = Handle::new(16);
        let (events, _) = broadcast::channel(4);
        let state = State {
            overview: overview(apps),
            refusals: VecDeque::new(),
            wait_refusals: VecDeque::new(),
            asks: Vec::new(),
            waits: Vec::new(),
            explained: Vec::new(),
            reloads: Vec::new(),
            leases: Vec::new(),
            remembered: (1..=3).map(event).collect(),
            healthy: true,
        };
        let fake = Self {
            state: Arc::new(Mutex::new(state)),
            events,
        };
        tokio::spawn(answer(fake.clone(), inbox));
        (handle, fake)
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub(crate) fn refuse(&self, refusal: Refusal) {
        self.state().refusals.push_back(refusal);
    }

    pub(crate) fn refuse_waits(&self, refusal: Refusal) {
        self.state().wait_refusals.push_back(refusal);
    }

    pub(crate) fn emit(&self, id: u64) {
        self.events.send(event(id)).unwrap();
    }

    pub(crate) fn subscribers(&self) -> usize {
        self.events.receiver_count()
    }
}

async fn answer(fake: Fake, mut inbox: mpsc::Receiver<Message>) {
    while let Some(message) = inbox.recv().await {
        let mut state = fake.state();
        match message {
            Message::Ask(ask, reply) => drop(reply.send(state.ask(*ask))),
            Message::Overview(reply) => drop(reply.send(Box::new(state.overview.clone()))),
            Message::History(reply) => drop(reply.send((1..=3).map(entry).collect())),
            Message::Subscribe(after, reply) => {
                let mut events = state.remembered.clone();
                events.retain(|event| after.is_some_and(|after| event.id > Some(after)));
                drop(reply.send((events, fake.events.subscribe())));
            }
            Message::Reload(by, reply) => {
                state.reloads.push(by);
                let reloaded = Reloaded {
                    changed: true,
                    diff: vec!["app.web.drain.http: 30s → 10s".to_owned()],
                    needs_restart: Vec::new(),
                    warnings: Vec::new(),
                };
                drop(reply.send(state.refusal().map(|()| reloaded)));
            }
            Message::Explain(request, reply) => {
                state.explained.push(*request);
                drop(reply.send(state.refusal().map(|()| explain())));
            }
            Message::WaitDrained(app, color, wait, reply) => {
                state.waits.push((app, color, wait));
                let drained = Drained {
                    app: "web".to_owned(),
                    color,
                    waited: Duration::from_millis(12),
                };
                let refused = state.wait_refusals.pop_front().map_or(Ok(()), Err);
                drop(reply.send(refused.map(|()| drained)));
            }
            Message::WaitSettled(app, wait, reply) => {
                state.waits.push((app, Color::Green, wait));
                let bake = state.overview.apps.first().and_then(|app| app.bake.clone());
                let settled = super::Settled {
                    app: "web".to_owned(),
                    settled: !bake.as_ref().is_some_and(|bake| bake.phase.runs()),
                    active: Color::Green,
                    generation: 43,
                    bake,
                    rollout: None,
                };
                let refused = state.wait_refusals.pop_front().map_or(Ok(()), Err);
                drop(reply.send(refused.map(|()| settled)));
            }
            Message::Approve { gate, reply, .. } => {
                let name = gate.unwrap_or_else(|| "manual".to_owned());
                drop(reply.send(state.refusal().map(|()| name)));
            }
            Message::Probe(_, color, reply) => {
                let healthy = state.healthy;
                let probed = Probed {
                    app: "web".to_owned(),
                    color,
                    healthy,
                    probes: vec![probe(color, healthy)],
                };
                drop(reply.send(state.refusal().map(|()| probed)));
            }
            Message::Lease(_, ask, by, reply) => {
                state.leases.push(ask);
                drop(reply.send(state.refusal().map(|()| Some(lease(by)))));
            }
            Message::PreviewToken(_, aim, life, reply) => {
                let token = PreviewToken {
                    app: "web".to_owned(),
                    aim,
                    token: format!("{}.1000.ab", aim.as_str()),
                    expires: Timestamp::UNIX_EPOCH + life,
                    header: "x-cutover-color".to_owned(),
                    cookie: None,
                };
                drop(reply.send(state.refusal().map(|()| token)));
            }
            Message::ConfigText(reply) => drop(reply.send("[admin]\n".to_owned())),
        }
    }
}

impl State {
    fn refusal(&mut self) -> Result<(), Refusal> {
        self.refusals.pop_front().map_or(Ok(()), Err)
    }

    fn ask(&mut self, ask: Ask) -> Result<Outcome, Refusal> {
        self.asks.push(ask.clone());
        self.refusal()?;
        let known: Vec<_> = self.overview.apps.iter().map(|app| app.name.clone()).collect();
        let name = match (&ask.app, known.as_slice()) {
            (Some(name), _) => name.clone(),
            (None, [only]) => only.clone(),
            (None, _) => return Err(Refusal::WhichApp { known }),
        };
        let Some(app) = self.overview.apps.iter_mut().find(|app| app.name == name) else {
            return Err(Refusal::UnknownApp { name, known });
        };
        if let Some(expected) = ask
            .expect_generation
            .filter(|expected| *expected != app.generation)
        {
            let is = app.generation;
            return Err(Refusal::Moved { expected, is });
        }
        let from = app.active;
        let to = match ask.intent {
            Intent::Switch {
                to: Wanted::Color(color),
                ..
            } => color,
            Intent::Switch { .. } | Intent::Rollback { .. } | Intent::RollbackTo { .. } => from.other(),
            _ => from,
        };
        let switch = matches!(ask.intent, Intent::Switch { .. });
        let changed = !switch || to != from;
        if changed && !ask.dry_run {
            app.generation += 1;
            app.active = to;
        }
        Ok(Outcome {
            app: name,
            verb: if switch { "switch" } else { "other" },
            changed,
            dry_run: ask.dry_run,
            generation: app.generation,
            active: to,
            from,
            weight: 0,
            verify: (switch && changed && !ask.dry_run).then_some(Verify::Verified { requests: 3 }),
            gates: Vec::new(),
            bakes_until: None,
            warnings: Vec::new(),
            repeated: false,
        })
    }
}

fn at() -> Timestamp {
    AT.parse().unwrap()
}

fn overview(apps: &[&str]) -> Overview {
    Overview {
        apps: apps.iter().map(|name| app(name)).collect(),
        config: ConfigView::default(),
        warnings: Vec::new(),
        version: "0.1.0",
        pid: 1,
        started: at(),
        ready: true,
        not_ready: Vec::new(),
        listeners: vec!["127.0.0.1:8080".to_owned()],
    }
}

fn app(name: &str) -> AppView {
    AppView {
        name: name.to_owned(),
        hosts: Vec::new(),
        generation: 42,
        active: Color::Blue,
        weight: 0,
        switched_at: at(),
        hold: None,
        maintenance: None,
        operation: None,
        lease: None,
        bake: None,
        rollout: None,
        file_wants: None,
        standby_until: None,
        rollback: Err("green was never active".to_owned()),
        degraded: None,
        spilled: 0,
        colors: ByColor::from_fn(|color| {
            let blue = color == Color::Blue;
            ColorView {
                role: if blue { "active" } else { "standby" },
                revision: blue.then(|| "abc".to_owned()),
                share: if blue { 100 } else { 0 },
                healthy: blue,
                in_flight: if blue { 3 } else { 0 },
                streams: if blue { 1 } else { 0 },
                services: vec![ServiceView {
                    name: "web".to_owned(),
                    overridden: false,
                    queue: None,
                    endpoints: vec![EndpointView {
                        address: "127.0.0.1:8001".to_owned(),
                        resolved: Vec::new(),
                        health: if blue { Health::Healthy } else { Health::Failing },
                        ejected: false,
                        last_probe: Some(Arc::new(probe(color, blue).report)),
                    }],
                }],
            }
        }),
    }
}

/// A probe, for refusals.
pub(crate) fn probe(color: Color, healthy: bool) -> Probe {
    let address: std::net::SocketAddr = "127.0.0.1:8001".parse().unwrap();
    Probe {
        endpoint: EndpointKey {
            app: "web".to_owned(),
            service: "web".to_owned(),
            color,
            address: EndpointAddress::plain(Address::Ip(address)),
            target: Target::Tcp(address),
            tls: None,
            preamble: None,
        },
        report: ProbeReport {
            asked: "GET http://127.0.0.1:8001/healthz".to_owned(),
            status: Some(if healthy { 200 } else { 503 }),
            latency: Duration::from_micros(4200),
            verdict: if healthy { Health::Healthy } else { Health::Failing },
            reason: if healthy {
                String::new()
            } else {
                "body: db\u{1b}[31m down".to_owned()
            },
            named: None,
            at: at(),
        },
    }
}

fn lease(by: Actor) -> LeaseView {
    LeaseView {
        what: "deploy green".to_owned(),
        by,
        since: at(),
        left: Duration::from_secs(30),
    }
}

fn event(id: u64) -> Event {
    Event {
        id: Some(id),
        at: at(),
        app: Some("web".to_owned()),
        kind: EventKind::Changed,
        message: format!("change {id}"),
    }
}

fn entry(seq: u64) -> HistoryEntry {
    HistoryEntry {
        seq,
        at: at(),
        app: "web".to_owned(),
        verb: "switch".to_owned(),
        from: Some(Color::Blue),
        to: Color::Green,
        weight: 0,
        generation: 40 + seq,
        by: Actor {
            name: "root (uid 0)".to_owned(),
            trigger: Trigger::Cli,
        },
        reason: "release 7".to_owned(),
        detail: String::new(),
        outcome: Some(OutcomeView {
            requests: 100,
            failed: 0,
            cancelled: 1,
            verify: "verified".to_owned(),
        }),
    }
}

fn explain() -> Explain {
    Explain {
        host: "shop".to_owned(),
        path: "/".to_owned(),
        app: Some("web".to_owned()),
        service: Some("web (/)".to_owned()),
        color: Some(Color::Blue),
        endpoints: vec!["127.0.0.1:8001".to_owned()],
        steps: vec![
            "any host → app web".to_owned(),
            "blue is active → blue".to_owned(),
        ],
        status: None,
    }
}
