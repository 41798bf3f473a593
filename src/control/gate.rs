//! The gate before a switch: every endpoint of the target, probed afresh.

use std::sync::Arc;

use super::ask::{Probe, Refusal};
use super::controller::Controller;
use super::handle::Probed;
use super::publish::{effective_endpoints, expecting};
use crate::config;
use crate::rollout::{Color, HealthFacts};
use crate::upstream::{Endpoint, Health, ProbeReport, probe_all};

/// What the gate found.
pub(super) struct Judged {
    pub(super) facts: HealthFacts,
    pub(super) probes: Vec<Probe>,
    /// A service for which the color has nothing to send to: not even `--force` moves traffic there.
    pub(super) without_endpoints: Option<String>,
}

impl Judged {
    /// For moves that need no gate.
    pub(super) fn unasked() -> Self {
        Self {
            facts: HealthFacts::good(),
            probes: Vec::new(),
            without_endpoints: None,
        }
    }
}

impl Controller {
    /// Probe every endpoint of a color now. A color is healthy when every service has a healthy endpoint.
    pub(super) async fn judge(&self, app: &str, color: Color, generation: u64) -> Result<Judged, Refusal> {
        let list = self.endpoints_of(app, color);
        let reports = probe_all(list.clone()).await;
        let required = self
            .config
            .borrow()
            .apps
            .get(app)
            .is_none_or(|of| of.switch.require.contains(&config::Requirement::Healthy));
        let mut facts = self.facts(app, color, |endpoint| {
            reports
                .iter()
                .find(|(probed, _)| probed.id == endpoint.id)
                .map(|(_, report)| report.clone())
        });
        facts.judged_in = Some(generation);
        facts.healthy |= !required;
        let probes = reports.into_iter().map(|(endpoint, report)| Probe {
            endpoint: endpoint.key.clone(),
            report,
        });
        Ok(Judged {
            facts,
            probes: probes.collect(),
            without_endpoints: self.empty_service(app, color),
        })
    }

    fn empty_service(&self, app: &str, color: Color) -> Option<String> {
        let config = self.config.borrow();
        let of = config.apps.get(app)?;
        let endpoints = self
            .with_slot(app, |slot| effective_endpoints(of, &slot.state))
            .ok()?;
        let mut empty = endpoints[color].iter().filter(|(_, list)| list.is_empty());
        empty.next().map(|(service, _)| service.clone())
    }

    /// What the last periodic probes say: for `rollback`, which waits for nothing.
    pub(super) fn known(&self, app: &str, color: Color) -> HealthFacts {
        self.facts(app, color, |endpoint| {
            let report = endpoint.last_probe()?;
            Some(ProbeReport {
                verdict: endpoint.health(),
                ..(*report).clone()
            })
        })
    }

    /// The answer to `probe`.
    pub(super) async fn probed(&self, app: &str, color: Color) -> Result<Probed, Refusal> {
        let judged = self.judge(app, color, 0).await?;
        let healthy = judged.facts.healthy;
        Ok(Probed {
            app: app.to_owned(),
            color,
            healthy,
            probes: judged.probes,
        })
    }

    fn facts(
        &self,
        app: &str,
        color: Color,
        report_of: impl Fn(&Endpoint) -> Option<ProbeReport>,
    ) -> HealthFacts {
        let table = self.published.load_full();
        let mut facts = HealthFacts {
            healthy: true,
            reachable: true,
            ..HealthFacts::default()
        };
        let Some(route) = table.app(app) else {
            return HealthFacts::default();
        };
        for service in &route.services {
            let members = &service.pools[color].members;
            let verdicts: Vec<_> = members
                .iter()
                .map(|member| (member, report_of(&member.endpoint)))
                .collect();
            if verdicts.is_empty() {
                facts
                    .refusals
                    .push(format!("{color} has no endpoints for service {}", service.name));
            }
            let any = |wanted: &dyn Fn(Health) -> bool| {
                verdicts
                    .iter()
                    .any(|(_, report)| report.as_ref().is_some_and(|report| wanted(report.verdict)))
            };
            facts.healthy &= any(&|verdict| verdict == Health::Healthy);
            facts.reachable &= any(&|verdict| matches!(verdict, Health::Healthy | Health::Failing));
            for (member, report) in &verdicts {
                match report {
                    Some(report) if report.verdict == Health::Healthy => {}
                    Some(report) => facts
                        .refusals
                        .push(format!("{}: {}", report.asked, report.reason)),
                    None => facts
                        .refusals
                        .push(format!("{}: not probed yet", member.endpoint.key.address)),
                }
            }
        }
        facts
    }

    fn endpoints_of(&self, app: &str, color: Color) -> Vec<(Arc<Endpoint>, Arc<config::Health>)> {
        let table = self.published.load_full();
        let config = self.config.borrow();
        let (Some(route), Some(of)) = (table.app(app), config.apps.get(app)) else {
            return Vec::new();
        };
        let state = self.with_slot(app, |slot| slot.state.clone()).ok();
        let mut list = Vec::new();
        for service in &route.services {
            let Some(settings) = of.services.get(&service.name) else {
                continue;
            };
            let health = expecting(settings, state.as_ref(), color);
            let members = service.pools[color].members.iter();
            list.extend(members.map(|member| (Arc::clone(&member.endpoint), Arc::clone(&health))));
        }
        list
    }
}
