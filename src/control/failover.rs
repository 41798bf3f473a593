//! Failover: the active color has lost its last healthy endpoint, the standby is healthy, and the file allows it.
//!
//! It is a switch like any other, by another actor: journaled, in the history, to be rolled back. It happens once: who
//! has failed over stays there until somebody moves the traffic again, so that two half-dead colors play no tennis.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::controller::{Controller, Insistence, itself};
use super::view::HistoryEntry;
use crate::metrics::SwitchResult;
use crate::rollout::{Applied, Change, Color, Command, Trigger, may_fail_over};
use crate::routing::AppRoute;
use crate::upstream::Health;

/// Since when each app's active color has had nothing healthy.
pub(super) type Dark = BTreeMap<String, Instant>;

impl Controller {
    /// Look at every app that may fail over.
    pub(super) fn watch_failovers(self: &Rc<Self>) {
        let config = self.config.borrow().clone();
        let may = config.apps.values().filter_map(|app| {
            let after = app.traffic.failover?;
            Some((&app.name, after))
        });
        for (name, after) in may {
            if let Some(for_so_long) = self.dark_for(name)
                && for_so_long >= after
                && self.may_fail_over(name)
            {
                self.dark.borrow_mut().remove(name);
                let (own, name) = (Rc::clone(self), name.clone());
                tokio::task::spawn_local(async move { own.fail_over(&name, for_so_long).await });
            }
        }
    }

    /// How long the active color has had nothing healthy; `None` while it has.
    fn dark_for(&self, app: &str) -> Option<Duration> {
        let table = self.published.load_full();
        let route = table.app(app)?;
        let mut dark = self.dark.borrow_mut();
        if is_dark(route, route.active) && is_healthy(route, route.active.other()) {
            return Some(dark.entry(app.to_owned()).or_insert_with(Instant::now).elapsed());
        }
        dark.remove(app);
        None
    }

    /// Nothing else decides about the app now, and it has not failed over since somebody last moved it.
    fn may_fail_over(&self, app: &str) -> bool {
        let last_move = {
            let history = self.history.borrow();
            let moved =
                |entry: &&HistoryEntry| entry.app == app && entry.from.is_some_and(|from| from != entry.to);
            history.iter().rev().find(moved).map(|entry| entry.by.trigger)
        };
        let may = self.with_slot(app, |slot| {
            slot.operation.is_none()
                && slot.degraded.is_none()
                && slot.closed.is_none()
                && may_fail_over(&slot.state, last_move)
        });
        matches!(may, Ok(true))
    }

    async fn fail_over(self: &Rc<Self>, app: &str, dark: Duration) {
        let begun = Instant::now();
        let Ok(state) = self.with_slot(app, |slot| slot.state.clone()) else {
            return;
        };
        let (from, to) = (state.active, state.standby());
        let mut facts = self.known(app, to);
        facts.judged_in = Some(state.generation);
        let reason = format!("{from} has had nothing healthy for {dark:.1?} and {to} is healthy");
        tracing::error!(app, %from, %to, reason, "failing over");
        let command = Command {
            app: app.to_owned(),
            change: Change::Switch {
                to,
                facts,
                force: false,
            },
            expect_generation: Some(state.generation),
            by: itself("failover", Trigger::Failover),
            reason,
            idempotency_key: None,
        };
        let insist = Insistence {
            urgent: true,
            ..Insistence::default()
        };
        let result = match self.change(command, insist).await {
            Ok(committed) if committed.applied.and_then(Applied::moved).is_some() => SwitchResult::Done,
            // It was so already: somebody was quicker.
            Ok(_) => return,
            Err(error) => {
                tracing::error!(app, %error, "failing over was refused");
                SwitchResult::Refused
            }
        };
        self.metrics
            .switched(app, (from, to), Trigger::Failover, result, begun.elapsed());
    }
}

/// Some service has endpoints of this color and not one that can be called healthy. What was never probed may be.
fn is_dark(route: &AppRoute, color: Color) -> bool {
    route.services.iter().any(|service| {
        let members = &service.pools[color].members;
        !members.is_empty()
            && members
                .iter()
                .all(|member| matches!(member.endpoint.health(), Health::Failing | Health::Unreachable))
    })
}

/// Every service has an endpoint whose probes pass.
fn is_healthy(route: &AppRoute, color: Color) -> bool {
    route.services.iter().all(|service| {
        let mut members = service.pools[color].members.iter();
        members.any(|member| member.endpoint.health() == Health::Healthy)
    })
}
