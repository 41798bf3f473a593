//! The control plane: one writer of all routing state, and the doors' way to it.
//!
//! [`Handle`] is what admin, watcher and signals hold. They send an [`Ask`]; the controller finds out the facts
//! (health), lets the pure machine decide, commits to the store, publishes the table, proves the switch, answers.

mod ask;
mod breakers;
mod certificates;
mod controller;
mod drain;
mod explain;
mod failover;
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test panics to fail")]
pub(crate) mod fake;
mod gate;
mod gates;
mod guard;
mod handle;
mod hold;
mod idempotency;
mod lease;
mod notify;
mod operate;
mod overview;
mod plan;
mod preview;
mod publish;
mod record;
mod reload;
mod restore;
mod rollout;
mod run;
mod settle;
mod standby;
mod verify;
mod view;
mod warmup;
mod windows;

pub use ask::{Ask, Before, Gated, Intent, Outcome, Probe, Refusal, RolloutAsk, Verdict, Verify, Wanted};
pub use certificates::Entrance;
pub use controller::{OnReload, Parts};
pub use handle::{Drained, Explain, ExplainRequest, Handle, PreviewToken, Probed, Reloaded};
pub use lease::{LeaseAsk, LeaseView};
pub use overview::gauges;
pub use run::Control;
pub use settle::{BakeView, RolloutView, Settled};
pub use view::{
    AppView, ColorView, ConfigView, EndpointView, Event, EventKind, HistoryEntry, HoldView, OutcomeView,
    Overview, ServiceView,
};
