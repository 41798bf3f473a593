//! `standby_ttl`: how long the color that a switch left is kept warm. The server stops nothing; it says when it is time.

use std::rc::Rc;

use jiff::Timestamp;

use super::controller::Controller;
use crate::rollout::{AppState, Note};
use crate::upstream::Health;

impl Controller {
    /// When the standby has been kept for long enough; `None` without a `standby_ttl`, and while no switch has left one.
    pub(super) fn standby_until(&self, app: &str, state: &AppState) -> Option<Timestamp> {
        let ttl = self.config.borrow().apps.get(app)?.policy.standby_ttl?;
        let was_left = state.colors[state.standby()].left;
        was_left
            .then(|| state.switched_at.saturating_add(ttl).ok())
            .flatten()
    }

    /// Say once of each standby that its time is over, unless it is gone already or the guard may still need it.
    pub(super) fn watch_standbys(self: &Rc<Self>) {
        let names: Vec<String> = self.apps.borrow().keys().cloned().collect();
        for app in names {
            let Ok(state) = self.with_slot(&app, |slot| slot.state.clone()) else {
                continue;
            };
            let is_over = self
                .standby_until(&app, &state)
                .is_some_and(|until| until <= Timestamp::now());
            let is_baking = state.bake.as_ref().is_some_and(|bake| bake.phase.runs());
            if !is_over || is_baking || !self.is_there(&app, &state) || self.has_said(&app, &state) {
                continue;
            }
            let standby = state.standby();
            let text = format!(
                "{standby} has been the standby since {:.0}: `cutover retire` stops it",
                state.switched_at
            );
            let own = Rc::clone(self);
            tokio::task::spawn_local(async move { own.note(&app, Note::StandbyOver, &text).await });
        }
    }

    /// Some endpoint of the standby takes connections.
    fn is_there(&self, app: &str, state: &AppState) -> bool {
        let table = self.published.load_full();
        let Some(route) = table.app(app) else { return false };
        let mut members = route
            .services
            .iter()
            .flat_map(|service| &service.pools[state.standby()].members);
        members.any(|member| matches!(member.endpoint.health(), Health::Healthy | Health::Failing))
    }

    /// The history has it since the last switch.
    fn has_said(&self, app: &str, state: &AppState) -> bool {
        let history = self.history.borrow();
        let mut since = history
            .iter()
            .rev()
            .filter(|entry| entry.app == app)
            .take_while(|entry| entry.at >= state.switched_at);
        since.any(|entry| entry.verb == Note::StandbyOver.verb())
    }
}
