//! What `status`, `/readyz` and the metrics show, gathered from state and table.

use std::sync::atomic::Ordering::Relaxed;

use super::controller::{Controller, Slot};
use super::view::{AppView, ColorView, EndpointView, HoldView, Overview, QueueView, ServiceView};
use crate::metrics::{AppGauges, EndpointGauge, Mirrored, QueueGauge};
use crate::rollout::{self, Actor, Change, Color, Command, Rejection, Transition, Trigger};
use crate::routing::{AppRoute, BesideCounts, Published, ServiceRoute};
use crate::upstream::breaker::now;
use crate::upstream::{Endpoint, Health, ProbeReport};

impl Controller {
    /// The whole state.
    pub(super) fn overview(&self) -> Overview {
        let table = self.published.load_full();
        let apps: Vec<AppView> = {
            let slots = self.apps.borrow();
            let shown = slots
                .iter()
                .filter_map(|(name, slot)| Some((slot, table.app(name)?)));
            shown.map(|(slot, route)| self.app_view(slot, route)).collect()
        };
        let mut not_ready = self.closed_now();
        not_ready.extend(apps.iter().filter_map(unready));
        if self.stopping.get() {
            not_ready.push("cutover is stopping".to_owned());
        }
        Overview {
            config: self.config_view.borrow().clone(),
            warnings: self.warnings_now(),
            version: env!("CARGO_PKG_VERSION"),
            pid: std::process::id(),
            started: self.started,
            ready: not_ready.is_empty(),
            not_ready,
            listeners: self
                .listeners
                .iter()
                .map(|entrance| entrance.address.to_string())
                .collect(),
            apps,
        }
    }

    /// The apps that answer 503 until their color is decided or their state repaired.
    fn closed_now(&self) -> Vec<String> {
        let slots = self.apps.borrow();
        let closed = slots
            .iter()
            .filter_map(|(name, slot)| Some((name, slot.closed.as_ref()?)));
        closed.map(|(name, why)| format!("{name}: {why}")).collect()
    }

    fn warnings_now(&self) -> Vec<String> {
        let mut warnings = self.warnings.borrow().clone();
        warnings.extend(self.certificate_warnings());
        for (name, slot) in &*self.apps.borrow() {
            if slot.undurable.is_some() {
                warnings.push(format!(
                    "{name}: the state in force is NOT stored; a restart now would undo it"
                ));
            }
        }
        warnings
    }

    fn app_view(&self, slot: &Slot, route: &AppRoute) -> AppView {
        let state = &slot.state;
        let name = &route.name;
        let file_wants = self.config.borrow().apps.get(name).and_then(|of| of.active);
        AppView {
            name: name.clone(),
            hosts: route.hosts.iter().map(ToString::to_string).collect(),
            generation: state.generation,
            active: state.active,
            weight: state.weight.percent(),
            switched_at: state.switched_at,
            hold: state.hold.map(|hold| HoldView {
                since: hold.since,
                max_seconds: hold.max.as_secs_f64(),
                waiting: route.hold.as_ref().map_or(0, |queue| queue.waiting()),
            }),
            maintenance: route.maintenance.clone(),
            operation: slot
                .operation
                .as_ref()
                .map(|(what, by)| format!("{what} by {by}")),
            lease: slot.lease.as_ref().and_then(super::lease::Lease::view),
            bake: state.bake.as_ref().map(Into::into),
            rollout: self.rollout_view(name, state),
            file_wants: file_wants.filter(|color| *color != state.active),
            standby_until: self.standby_until(name, state),
            rollback: self.rollback_now(slot, name),
            degraded: slot.degraded.clone(),
            spilled: route.spilled.load(Relaxed),
            colors: rollout::ByColor::from_fn(|color| self.color_view(slot, route, color)),
        }
    }

    /// What `rollback` would do now.
    fn rollback_now(&self, slot: &Slot, app: &str) -> Result<Color, String> {
        let change = Change::Rollback {
            facts: self.known(app, slot.state.standby()),
            ignore_health: false,
        };
        let command = Command {
            app: app.to_owned(),
            change,
            expect_generation: None,
            by: Actor {
                name: String::new(),
                trigger: Trigger::Api,
            },
            reason: String::new(),
            idempotency_key: None,
        };
        match rollout::apply(&slot.state, &command, slot.state.switched_at) {
            Ok(Transition::Changed(after, _)) => Ok(after.active),
            Ok(Transition::NoChange | Transition::Noted(..)) => Ok(slot.state.active),
            Err(Rejection::NothingWarm { why }) => Err(why),
            Err(other) => Err(other.to_string()),
        }
    }

    fn color_view(&self, slot: &Slot, route: &AppRoute, color: Color) -> ColorView {
        let state = &slot.state;
        let of_color = &state.colors[color];
        let draining: u64 = slot.draining_in_flight(color);
        let view = |service: &ServiceRoute| ServiceView {
            name: service.name.clone(),
            overridden: of_color.overrides.contains_key(&service.name),
            queue: queue_view(service, color),
            endpoints: endpoint_views(
                service.pools[color]
                    .members
                    .iter()
                    .map(|member| &*member.endpoint),
            ),
        };
        let services: Vec<ServiceView> = route.services.iter().map(view).collect();
        let members = route
            .services
            .iter()
            .flat_map(|service| &service.pools[color].members);
        let gates: Vec<_> = members
            .flat_map(|member| [&member.open, &member.explicit].into_iter().flatten())
            .collect();
        let empty = services.iter().all(|service| service.endpoints.is_empty());
        let role = if color == state.active {
            "active"
        } else if state.weight.percent() > 0 {
            "candidate"
        } else if draining > 0 {
            "draining"
        } else if of_color.drained {
            "drained"
        } else if empty {
            "empty"
        } else {
            "standby"
        };
        ColorView {
            role,
            revision: of_color.revision.clone(),
            share: state.share(color),
            healthy: !services.is_empty()
                && services.iter().all(|service| {
                    service
                        .endpoints
                        .iter()
                        .any(|endpoint| endpoint.health == Health::Healthy)
                }),
            in_flight: draining + gates.iter().map(|gate| gate.in_flight()).sum::<u64>(),
            streams: slot.draining_streams(color) + gates.iter().map(|gate| gate.streams()).sum::<u64>(),
            services,
        }
    }
}

/// How full it is, where that is bounded.
fn queue_view(service: &ServiceRoute, color: Color) -> Option<QueueView> {
    let queue = service.settings.queues[color].as_ref()?;
    let members = &service.pools[color].members;
    Some(QueueView {
        max_in_flight: service.settings.balance.max_in_flight,
        in_flight: members.iter().map(|member| member.endpoint.slots.taken()).sum(),
        waiting: queue.waiting(),
        refused: queue.overflowed.load(Relaxed) + queue.timed_out.load(Relaxed),
    })
}

/// What the metrics show of the apps: all of it stands in the table.
#[must_use]
pub fn gauges(published: &Published) -> Vec<AppGauges> {
    published
        .load_full()
        .apps
        .iter()
        .map(|app| gauges_of(app))
        .collect()
}

fn gauges_of(route: &AppRoute) -> AppGauges {
    let pools = route.services.iter().flat_map(|service| {
        service
            .pools
            .iter()
            .map(move |(color, pool)| (service.name.clone(), color, pool))
    });
    let endpoints = pools.flat_map(|(service, color, pool)| {
        pool.members.iter().map(move |member| EndpointGauge {
            service: service.clone(),
            color,
            endpoint: member.endpoint.key.address.to_string(),
            up: member.endpoint.health() == Health::Healthy,
            ejected: member.endpoint.breaker.is_ejected(now),
            connect_errors: member.endpoint.connect_errors.load(Relaxed),
        })
    });
    let candidate = route.weight.percent();
    AppGauges {
        app: route.name.clone(),
        active: route.active,
        share: rollout::ByColor::from_fn(|color| {
            if color == route.active {
                100 - candidate
            } else {
                candidate
            }
        }),
        generation: route.generation,
        held: route.hold.as_ref().map_or(0, |queue| queue.waiting() as u64),
        degraded: route.degraded,
        spilled: route.spilled.load(Relaxed),
        rule_errors: route.rule_errors.load(Relaxed),
        skew_rescued: route
            .beside
            .as_ref()
            .map_or(0, |beside| beside.counts.rescued.load(Relaxed)),
        mirrored: route
            .beside
            .as_ref()
            .map(|beside| mirrored(&beside.counts))
            .unwrap_or_default(),
        services: route
            .services
            .iter()
            .map(|service| service.name.clone())
            .collect(),
        endpoints: endpoints.collect(),
        queues: queue_gauges(route),
    }
}

fn queue_gauges(route: &AppRoute) -> Vec<QueueGauge> {
    let of = |service: &ServiceRoute, color| {
        let queue = service.settings.queues[color].as_ref()?;
        Some(QueueGauge {
            service: service.name.clone(),
            color,
            waiting: queue.waiting() as u64,
            overflowed: queue.overflowed.load(Relaxed),
            timed_out: queue.timed_out.load(Relaxed),
        })
    };
    let services = route.services.iter();
    services
        .flat_map(|service| Color::ALL.into_iter().filter_map(move |color| of(service, color)))
        .collect()
}

pub(super) fn mirrored(counts: &BesideCounts) -> Mirrored {
    Mirrored {
        same: counts.same.load(Relaxed),
        different: counts.different.load(Relaxed),
        failed: counts.failed.load(Relaxed),
        dropped: counts.dropped.load(Relaxed),
        active_micros: counts.active_micros.load(Relaxed),
        standby_micros: counts.standby_micros.load(Relaxed),
    }
}

/// One row for each address as written; what it resolved to stands behind it.
fn endpoint_views<'a>(endpoints: impl Iterator<Item = &'a Endpoint>) -> Vec<EndpointView> {
    let mut rows: Vec<EndpointView> = Vec::new();
    for endpoint in endpoints {
        let address = endpoint.key.address.to_string();
        let resolved = endpoint.label.clone();
        let health = endpoint.health();
        let ejected = endpoint.breaker.is_ejected(now);
        match rows.iter_mut().find(|row| row.address == address) {
            Some(row) => {
                row.resolved.push(resolved);
                row.ejected &= ejected;
                if health == Health::Healthy {
                    row.health = health;
                }
            }
            None => rows.push(EndpointView {
                resolved: if resolved == address {
                    Vec::new()
                } else {
                    vec![resolved]
                },
                address,
                health,
                ejected,
                last_probe: endpoint.last_probe(),
            }),
        }
    }
    rows
}

/// Why an app is not ready: only its active color counts.
fn unready(app: &AppView) -> Option<String> {
    let active = &app.colors[app.active];
    let serves = |endpoint: &EndpointView| {
        matches!(
            endpoint.health,
            Health::Healthy | Health::Unknown | Health::Failing
        )
    };
    let dead = active
        .services
        .iter()
        .find(|service| !service.endpoints.iter().any(serves))?;
    let last = dead
        .endpoints
        .iter()
        .filter_map(|endpoint| endpoint.last_probe.as_deref());
    let why: Vec<_> = last
        .map(|report: &ProbeReport| format!("{}: {}", report.asked, report.reason))
        .collect();
    Some(format!(
        "{}: {} has no endpoint for service {} {}",
        app.name,
        app.active,
        dead.name,
        why.join("; ")
    ))
}
