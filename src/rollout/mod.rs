//! The pure heart: what an app's routing state is, which changes exist, and what each one does.
//!
//! Nothing here knows a clock, a socket, a file or a task. [`apply`] maps a state and a [`Command`] to the
//! next state or to a named [`Rejection`]; the controller commits what comes out, and the simulation in
//! `tests/simulation.rs` runs millions of them with seeds.

mod apply;
mod bake;
mod bucket;
mod color;
mod command;
mod failover;
mod past;
mod progress;
mod split;
mod state;
#[cfg(test)]
mod tests;

pub use apply::{Applied, Note, Rejection, Transition, apply};
pub use bake::{Bake, BakePhase, Baseline, Watch};
pub use bucket::{bucket_of_id, bucket_of_key, id_in_bucket, next_salt};
pub use color::{ByColor, Color, UnknownColor};
pub use command::{Actor, Change, Command, FileEndpoints, HealthFacts, Trigger};
pub use failover::may_fail_over;
pub use past::Past;
pub use progress::{Pause, Rollout, RolloutChange, RolloutPhase, RolloutStep, STEPS_MAX, check_steps};
pub use split::{BUCKETS, Phase, is_candidate};
pub use state::{Activation, AppState, ColorState, Hold, Maintenance, Override, TRAIL_MAX, Weight};
