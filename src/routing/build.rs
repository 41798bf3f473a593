//! Building a table: a pure function of configuration, state and resolved names, that carries live parts over.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Instant;

use http::{HeaderName, HeaderValue};
use tokio::sync::Notify;

use super::table::{AppRoute, Lane, Member, PaddedPoint, Pool, RoutingTable, ServiceRoute, Settings};
use super::{Affinity, Beside, HoldQueue, Matcher, Place, RetryBudget};
use crate::config::{self, Address, Config, EndpointAddress, HostHeader, Preview, Probe, Protocol, WhenLast};
use crate::metrics::Registry;
use crate::rollout::{AppState, ByColor, Color, Phase};
use crate::tls::Originators;
use crate::upstream::{Endpoint, EndpointKey, Gate, Handshake, Queue, Target};

/// What a name resolved to, by name and port as written. Addresses and sockets need no entry.
pub type Resolved = HashMap<Address, Vec<Target>>;

/// All that one app's part is built from.
#[derive(Clone, Copy, Debug)]
pub struct AppInput<'a> {
    /// What the file says.
    pub config: &'a config::App,
    /// What the store says.
    pub state: &'a AppState,
    /// The stored state is in doubt.
    pub degraded: bool,
    /// The endpoints in force (file and overrides), by color and service.
    pub endpoints: &'a ByColor<BTreeMap<String, Vec<EndpointAddress>>>,
}

/// What [`rebuild`] made.
#[derive(Debug)]
pub struct Built {
    /// The new part.
    pub app: Arc<AppRoute>,
    /// Gates of the old part that are not in the new one: close them after the publish. With their colors.
    pub closing: Vec<(Color, Arc<Gate>)>,
}

/// What stays the same for the life of the process.
#[derive(Clone, Copy, Debug)]
pub struct Fixed<'a> {
    /// Number of workers.
    pub workers: usize,
    /// The metric cells.
    pub registry: &'a Registry,
    /// Notified when a closed gate's last claim ends.
    pub drained: &'a Arc<Notify>,
    /// Makes the TLS towards endpoints.
    pub originators: &'a Originators,
}

/// Build one app's part, carrying over the endpoints, gates, cells and split points of its part before.
#[must_use]
pub fn rebuild(
    fixed: Fixed<'_>,
    input: AppInput<'_>,
    resolved: &Resolved,
    before: Option<&AppRoute>,
    now: Instant,
) -> Built {
    let AppInput { config, state, .. } = input;
    let mut carried = Carried::of(before, fixed.workers);
    let besides = Besides {
        preview: config.traffic.preview.clone().map(Arc::new),
        beside: beside(config, before),
    };
    let hold = state.hold.map(|hold| {
        before
            .and_then(|app| app.hold.clone())
            .unwrap_or_else(|| HoldQueue::new(config.traffic.hold, now + hold.max + HoldQueue::MARGIN))
    });
    let services = config
        .services
        .values()
        .map(|service| build_service(fixed, input, service, &besides, resolved, &mut carried))
        .collect();
    let phases = before.map(|app| Arc::clone(&app.phases)).unwrap_or_else(|| {
        let point = |worker| PaddedPoint::new(Phase::of_worker(worker, fixed.workers).point());
        (0..fixed.workers).map(point).collect()
    });
    let app = AppRoute {
        name: config.name.clone(),
        hosts: config.hosts.clone(),
        generation: state.generation,
        active: state.active,
        weight: state.weight,
        affinity: Affinity {
            key: config.traffic.affinity.clone(),
            salt: state.salt,
        },
        preview: besides.preview,
        beside: besides.beside,
        rules: Arc::clone(&config.traffic.rules),
        revisions: state.colors.map(|_, color| color.revision.clone()),
        hold,
        maintenance: state
            .maintenance
            .as_ref()
            .map(|on| on.message.clone().unwrap_or_default()),
        degraded: input.degraded,
        drain: config.drain,
        services,
        phases,
        spilled: before.map_or_else(Arc::default, |app| Arc::clone(&app.spilled)),
        rule_errors: before.map_or_else(Arc::default, |app| Arc::clone(&app.rule_errors)),
    };
    Built {
        app: Arc::new(app),
        closing: carried.left_over(),
    }
}

/// The host and path index of a configuration.
#[must_use]
pub fn matcher(config: &Config) -> Matcher {
    let mut matcher = Matcher::default();
    for (app, of) in config.apps.values().enumerate() {
        for (service, matched) in of.services.values().enumerate() {
            matcher.add(&of.hosts, &matched.matches, Place { app, service });
        }
    }
    matcher
}

/// A table that differs from another in one app.
#[must_use]
pub fn with_app(table: &RoutingTable, app: Arc<AppRoute>) -> RoutingTable {
    let mut apps = table.apps.clone();
    if let Some(place) = apps.iter_mut().find(|at| at.name == app.name) {
        *place = app;
    }
    RoutingTable {
        version: table.version + 1,
        apps,
        matcher: Arc::clone(&table.matcher),
        edge: Arc::clone(&table.edge),
    }
}

/// What all services of an app have in common.
struct Besides {
    preview: Option<Arc<Preview>>,
    beside: Option<Arc<Beside>>,
}

fn beside(config: &config::App, before: Option<&AppRoute>) -> Option<Arc<Beside>> {
    let traffic = &config.traffic;
    let remembers = traffic
        .warmup
        .as_ref()
        .is_some_and(|warmup| warmup.paths.is_empty());
    if traffic.skew.is_empty() && traffic.mirror.is_none() && !remembers {
        return None;
    }
    let recent = before
        .and_then(|app| app.beside.as_ref()?.recent.clone())
        .unwrap_or_default();
    let counts = before
        .and_then(|app| app.beside.as_ref())
        .map(|beside| Arc::clone(&beside.counts));
    Some(Arc::new(Beside {
        skew: traffic.skew.clone(),
        mirror: traffic.mirror.clone(),
        recent: remembers.then_some(recent),
        counts: counts.unwrap_or_default(),
    }))
}

/// The live parts of the table before, taken out as they find their place in the new one.
struct Carried {
    members: HashMap<EndpointKey, Arc<Member>>,
    /// By service.
    budgets: HashMap<String, Arc<[RetryBudget]>>,
    /// By service.
    queues: HashMap<String, ByColor<Option<Arc<Queue>>>>,
    kept: Vec<u64>,
}

impl Carried {
    fn of(before: Option<&AppRoute>, workers: usize) -> Self {
        let services = || before.into_iter().flat_map(|app| &app.services);
        let budgets = services().map(|service| (service.name.clone(), Arc::clone(&service.settings.budgets)));
        let queues = services().map(|service| (service.name.clone(), service.settings.queues.clone()));
        let pools = services().flat_map(|service| service.pools.iter());
        let members = pools.flat_map(|(_, pool)| &pool.members);
        let by_key = members.map(|member| (member.endpoint.key.clone(), Arc::clone(member)));
        Self {
            members: by_key.collect(),
            budgets: budgets
                .filter(|(_, of_workers)| of_workers.len() == workers)
                .collect(),
            queues: queues.collect(),
            kept: Vec::new(),
        }
    }

    /// The gate to go on with: the one before if there was one, a new one otherwise, none if none is wanted.
    fn gate(
        &mut self,
        fixed: Fixed<'_>,
        endpoint: &Arc<Endpoint>,
        wanted: bool,
        before: Option<&Arc<Gate>>,
    ) -> Option<Arc<Gate>> {
        if !wanted {
            return None;
        }
        let gate = before.map_or_else(|| Gate::open(endpoint, fixed.workers, fixed.drained), Arc::clone);
        self.kept.push(gate.id);
        Some(gate)
    }

    /// A line for each color, where one is wanted: whoever waits goes on waiting.
    fn queues(&mut self, service: &config::Service) -> ByColor<Option<Arc<Queue>>> {
        let mut before = self.queues.remove(&service.name).unwrap_or_default();
        ByColor::from_fn(|color| {
            let wanted = service.balance.max_in_flight > 0;
            wanted.then(|| before[color].take().unwrap_or_else(Queue::new))
        })
    }

    fn left_over(self) -> Vec<(Color, Arc<Gate>)> {
        let gates = self.members.values().flat_map(|member| {
            let color = member.endpoint.key.color;
            [&member.open, &member.explicit]
                .into_iter()
                .flatten()
                .map(move |gate| (color, Arc::clone(gate)))
        });
        gates.filter(|(_, gate)| !self.kept.contains(&gate.id)).collect()
    }
}

fn build_service(
    fixed: Fixed<'_>,
    input: AppInput<'_>,
    service: &config::Service,
    besides: &Besides,
    resolved: &Resolved,
    carried: &mut Carried,
) -> ServiceRoute {
    let app = input.config;
    let prefix = match &service.matches {
        config::PathMatch::Prefix(prefix) if service.strip_prefix && prefix != "/" => Some(prefix.clone()),
        _ => None,
    };
    let settings = Arc::new(Settings {
        app: app.name.clone(),
        service: service.name.clone(),
        timeouts: service.timeouts,
        limits: app.limits,
        headers: service.headers.clone(),
        errors: Arc::new(app.errors.clone()),
        strip: prefix,
        balance: service.balance,
        retry: service.retry,
        queues: carried.queues(service),
        budgets: carried
            .budgets
            .remove(&service.name)
            .unwrap_or_else(|| (0..fixed.workers).map(|_| RetryBudget::default()).collect()),
        preview: besides.preview.clone(),
        beside: besides.beside.clone(),
        streams: app.drain.streams,
    });
    let pool = |color| build_pool(fixed, input, service, &settings, color, resolved, carried);
    ServiceRoute {
        name: service.name.clone(),
        matches: service.matches.clone(),
        health_path: match &service.health.kind {
            Probe::Http(probe) => Some(probe.path.split('?').next().unwrap_or_default().to_owned()),
            Probe::Tcp | Probe::Grpc(_) => None,
        },
        pools: ByColor::from_fn(pool),
        undecided: fixed.registry.pool(&app.name, &service.name, None),
        settings,
    }
}

fn build_pool(
    fixed: Fixed<'_>,
    input: AppInput<'_>,
    service: &config::Service,
    settings: &Arc<Settings>,
    color: Color,
    resolved: &Resolved,
    carried: &mut Carried,
) -> Pool {
    let AppInput {
        config: app,
        state,
        endpoints,
        ..
    } = input;
    let of_color = &state.colors[color];
    let open = state.share(color) > 0 && state.hold.is_none() && !of_color.drained;
    let none = Vec::new();
    let addresses = endpoints[color].get(&service.name).unwrap_or(&none);
    let mut members: Vec<Arc<Member>> = Vec::new();
    for (address, target) in addresses.iter().flat_map(|address| targets(address, resolved)) {
        let key = EndpointKey {
            app: app.name.clone(),
            service: service.name.clone(),
            color,
            address: address.clone(),
            target,
            tls: handshake(service, address),
            preamble: app.send_proxy_protocol,
        };
        if members.iter().any(|member| member.endpoint.key == key) {
            continue;
        }
        let before = carried.members.get(&key).cloned();
        let endpoint = before
            .as_ref()
            .map_or_else(|| new_endpoint(fixed, key), |member| Arc::clone(&member.endpoint));
        let gates = before
            .as_ref()
            .map(|member| (member.open.as_ref(), member.explicit.as_ref()));
        let (before_open, before_explicit) = gates.unwrap_or_default();
        members.push(Arc::new(Member {
            open: carried.gate(fixed, &endpoint, open, before_open),
            explicit: carried.gate(fixed, &endpoint, !of_color.drained, before_explicit),
            endpoint,
        }));
    }
    let serve_when_failing = color == state.active && service.health.last == WhenLast::Serve;
    let metrics = fixed.registry.pool(&app.name, &service.name, Some(color));
    let lane = |(worker, cells): (usize, &Arc<_>)| {
        Arc::new(Lane::new(
            worker,
            color,
            // One for each worker: a clone would be counted on a cache line that all of them share.
            exposed(&service.headers, color, of_color.revision.as_deref()),
            state.generation,
            Arc::clone(settings),
            Arc::clone(cells),
            members.clone(),
            serve_when_failing,
        ))
    };
    let lanes = metrics.workers.iter().enumerate().map(lane).collect();
    Pool {
        members,
        lanes,
        serve_when_failing,
    }
}

fn new_endpoint(fixed: Fixed<'_>, key: EndpointKey) -> Arc<Endpoint> {
    let origin = key.tls.as_ref().map(|tls| fixed.originators.of(&tls.trust));
    Endpoint::over(key, origin)
}

/// How TLS is spoken to an endpoint: connections are the endpoint's and not a request's, so that a `Host` of the
/// client's says nothing about their name.
fn handshake(service: &config::Service, address: &EndpointAddress) -> Option<Handshake> {
    if address.protocol != Protocol::Https {
        return None;
    }
    let fixed = match &service.headers.host {
        HostHeader::Fixed(host) => Some(without_port(host)),
        HostHeader::Preserve | HostHeader::Upstream => None,
    };
    let own = service.tls.server_name.clone().or(fixed);
    Some(Handshake {
        name: own.unwrap_or_else(|| address.name()),
        trust: service.tls.trust.clone(),
    })
}

fn without_port(host: &str) -> String {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => name,
        _ => host,
    };
    name.trim_start_matches('[').trim_end_matches(']').to_owned()
}

fn targets<'a>(address: &'a EndpointAddress, resolved: &Resolved) -> Vec<(&'a EndpointAddress, Target)> {
    match &address.place {
        Address::Ip(ip) => vec![(address, Target::Tcp(*ip))],
        Address::Unix(path) => vec![(address, Target::Unix(path.clone()))],
        name @ (Address::Name { .. } | Address::Docker { .. }) => {
            let found = resolved.get(name).into_iter().flatten();
            found.map(|target| (address, target.clone())).collect()
        }
    }
}

fn exposed(
    headers: &config::Headers,
    color: Color,
    revision: Option<&str>,
) -> Option<(HeaderName, HeaderValue)> {
    let name = HeaderName::try_from(headers.expose_color.as_str()).ok()?;
    let value = match revision {
        Some(revision) if headers.expose_revision => HeaderValue::try_from(format!("{color}@{revision}")),
        _ => HeaderValue::try_from(color.as_str()),
    };
    Some((
        name,
        value.unwrap_or_else(|_| HeaderValue::from_static(color.as_str())),
    ))
}

/// Every gate of an app's part.
pub fn gates(app: &AppRoute) -> impl Iterator<Item = &Arc<Gate>> {
    let pools = app.services.iter().flat_map(|service| service.pools.iter());
    let members = pools.flat_map(|(_, pool)| &pool.members);
    members.flat_map(|member| [&member.open, &member.explicit].into_iter().flatten())
}
