//! Whether the standby may take over by itself.

use super::{AppState, Trigger};

/// Nobody else decides about the app now, and it has not failed over since somebody last moved it: two half-dead colors
/// play no tennis. `last_move` is what moved all traffic last, if anything ever did.
#[must_use]
pub fn may_fail_over(state: &AppState, last_move: Option<Trigger>) -> bool {
    state.hold.is_none()
        && state.maintenance.is_none()
        && !state.colors[state.standby()].drained
        && last_move != Some(Trigger::Failover)
}
