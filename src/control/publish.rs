//! From state to table: build, publish, close what left, and keep probes and names in line.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Instant;

use super::controller::Controller;
use crate::config::{self, Address, Config, EndpointAddress, parse_endpoint};
use crate::rollout::{self, AppState, ByColor, Color, FileEndpoints};
use crate::routing::{self, AppInput, Fixed, RoutingTable};
use crate::upstream::Endpoint;

impl Controller {
    /// Publish one app's part anew, close what is no longer in it, and bring probes and names in line.
    ///
    /// `switch` is the journal sequence and the request totals at the change, for its outcome.
    pub(super) fn publish_app(&self, app: &str, change: Option<(u64, (u64, u64))>) {
        self.publish_state(app, change);
        self.follow_endpoints();
    }

    /// The same for a change that leaves every endpoint where it is: a first start makes one for each app, and following
    /// looks at all endpoints of all apps.
    pub(super) fn publish_state(&self, app: &str, change: Option<(u64, (u64, u64))>) {
        let Some(built) = self.build(app) else { return };
        let table = routing::with_app(&self.published.load(), built.app);
        let version = table.version;
        self.retire(self.published.publish(table));
        for (_, gate) in &built.closing {
            gate.close();
        }
        self.start_drains(app, built.closing, version, change);
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
                preview: self.preview_key(&config),
                trusts_unix: config.server.trusts_unix,
                errors: Arc::new(config.errors.clone()),
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
            originators: &self.originators,
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
        let (mut names, mut containers) = (BTreeSet::new(), BTreeSet::new());
        for (name, slot) in &*apps {
            let Some(of) = config.apps.get(name) else { continue };
            let endpoints = effective_endpoints(of, &slot.state);
            let addresses = endpoints
                .iter()
                .flat_map(|(_, services)| services.values().flatten());
            for address in addresses {
                match &address.place {
                    Address::Name { host, port } => drop(names.insert((host.clone(), *port))),
                    place @ Address::Docker { .. } => drop(containers.insert(place.clone())),
                    Address::Ip(_) | Address::Unix(_) => {}
                }
            }
        }
        for endpoint in self.published.load_full().endpoints() {
            endpoint.alarm.get_or_init(|| Arc::clone(&self.alarm));
        }
        self.names.borrow_mut().reconcile(names);
        self.containers.borrow_mut().reconcile(&config.docker, containers);
        self.prober.borrow_mut().reconcile(self.to_probe(&config));
    }

    fn to_probe(&self, config: &Config) -> Vec<(Arc<Endpoint>, Arc<config::Health>)> {
        let table = self.published.load_full();
        let mut healths: HashMap<(&str, &str, Color), Arc<config::Health>> = HashMap::new();
        let apps = self.apps.borrow();
        for app in config.apps.values() {
            let state = apps.get(&app.name).map(|slot| &slot.state);
            for (service, color) in app
                .services
                .values()
                .flat_map(|one| Color::ALL.map(|color| (one, color)))
            {
                let health = expecting(service, state, color);
                healths.insert((&app.name, &service.name, color), health);
            }
        }
        let with_health = |endpoint: &Arc<Endpoint>| {
            let key = &endpoint.key;
            let health = healths.get(&(key.app.as_str(), key.service.as_str(), key.color))?;
            Some((Arc::clone(endpoint), Arc::clone(health)))
        };
        table.endpoints().filter_map(with_health).collect()
    }

    pub(super) fn retire(&self, table: Arc<RoutingTable>) {
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
}

/// How a service of a color is probed: as the file says, and for the revision that was announced of the color.
pub(super) fn expecting(
    service: &config::Service,
    state: Option<&AppState>,
    color: Color,
) -> Arc<config::Health> {
    let mut health = service.health.clone();
    health.revision = state.and_then(|state| state.colors[color].revision.clone());
    Arc::new(health)
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
