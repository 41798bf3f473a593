//! What the control plane shows: plain records, turned into JSON by `admin` alone.

use std::sync::Arc;

use jiff::Timestamp;

use super::settle::{BakeView, RolloutView};
use crate::rollout::{Actor, ByColor, Color};
use crate::upstream::{Health, ProbeReport};

/// The whole state at one moment.
#[derive(Clone, Debug)]
pub struct Overview {
    /// The apps, by name.
    pub apps: Vec<AppView>,
    /// The config file and its last reload.
    pub config: ConfigView,
    /// Anything the operator must know: damaged journal, undurable state, first start without state.
    pub warnings: Vec<String>,
    /// This process's version.
    pub version: &'static str,
    /// Process id.
    pub pid: u32,
    /// When it started.
    pub started: Timestamp,
    /// Every active color can serve, and the process does not stop.
    pub ready: bool,
    /// Why not, if not.
    pub not_ready: Vec<String>,
    /// The bound addresses of the listeners.
    pub listeners: Vec<String>,
}

/// The config file.
#[derive(Clone, Debug, Default)]
pub struct ConfigView {
    /// Where it is; `None` when run from flags.
    pub path: Option<String>,
    /// Hash of the content in use.
    pub hash: String,
    /// When it was taken into use.
    pub loaded_at: Option<Timestamp>,
    /// What is wrong with the file as it is now; the configuration in use is an older one.
    pub last_error: Option<String>,
    /// What it says that needs a restart.
    pub needs_restart: Vec<String>,
}

/// One app.
#[derive(Clone, Debug)]
pub struct AppView {
    /// Its name.
    pub name: String,
    /// Its hosts as written; empty = any.
    pub hosts: Vec<String>,
    /// Its generation.
    pub generation: u64,
    /// The active color.
    pub active: Color,
    /// The candidate's share in percent.
    pub weight: u8,
    /// When the active color last changed.
    pub switched_at: Timestamp,
    /// Requests are held: since when, at most how many seconds, how many wait.
    pub hold: Option<HoldView>,
    /// In maintenance with this message.
    pub maintenance: Option<String>,
    /// What runs, with who started it.
    pub operation: Option<String>,
    /// Who holds the app for a deploy.
    pub lease: Option<super::LeaseView>,
    /// The newest bake.
    pub bake: Option<BakeView>,
    /// The newest rollout.
    pub rollout: Option<RolloutView>,
    /// What the file says (`active = …`) when reality differs.
    pub file_wants: Option<Color>,
    /// When the standby that was left has been kept for long enough (`standby_ttl`).
    pub standby_until: Option<Timestamp>,
    /// Whether `rollback` would work now, or why not.
    pub rollback: Result<Color, String>,
    /// The stored state was damaged.
    pub degraded: Option<String>,
    /// Requests that went to the active color because the candidate had nothing healthy.
    pub spilled: u64,
    /// Both colors.
    pub colors: ByColor<ColorView>,
}

/// A hold.
#[derive(Clone, Copy, Debug)]
pub struct HoldView {
    /// Since when.
    pub since: Timestamp,
    /// At most how many seconds.
    pub max_seconds: f64,
    /// Requests that wait.
    pub waiting: usize,
}

/// One color of an app.
#[derive(Clone, Debug)]
pub struct ColorView {
    /// `active`, `standby`, `candidate`, `draining`, `drained` or `empty`.
    pub role: &'static str,
    /// Its revision.
    pub revision: Option<String>,
    /// Its share of the traffic in percent, as wanted.
    pub share: u8,
    /// Every service has a healthy endpoint.
    pub healthy: bool,
    /// Requests in flight.
    pub in_flight: u64,
    /// Of them, streams: WebSockets, other upgrades, event streams.
    pub streams: u64,
    /// Its endpoints, by service.
    pub services: Vec<ServiceView>,
}

/// One service in one color.
#[derive(Clone, Debug)]
pub struct ServiceView {
    /// Its name.
    pub name: String,
    /// Whether its endpoints come from the API, not the file.
    pub overridden: bool,
    /// Where `balance.max_in_flight` bounds its requests.
    pub queue: Option<QueueView>,
    /// Its endpoints.
    pub endpoints: Vec<EndpointView>,
}

/// How full a bounded service is in one color.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueView {
    /// Requests that each endpoint may have at once.
    pub max_in_flight: usize,
    /// Requests that they have, all together.
    pub in_flight: usize,
    /// Requests that wait for room.
    pub waiting: usize,
    /// Requests refused since start: too many waited, or they had waited for too long.
    pub refused: u64,
}

/// One endpoint as configured.
#[derive(Clone, Debug)]
pub struct EndpointView {
    /// As written.
    pub address: String,
    /// What it resolved to, when that differs.
    pub resolved: Vec<String>,
    /// The best health among what it resolved to.
    pub health: Health,
    /// Its requests fail: all that it resolved to is left alone for now.
    pub ejected: bool,
    /// The last probe.
    pub last_probe: Option<Arc<ProbeReport>>,
}

/// One line of history: a committed change.
#[derive(Clone, Debug)]
pub struct HistoryEntry {
    /// Journal sequence; also the event id.
    pub seq: u64,
    /// When.
    pub at: Timestamp,
    /// The app.
    pub app: String,
    /// `switch`, `rollback`, …
    pub verb: String,
    /// The active color before.
    pub from: Option<Color>,
    /// The active color after.
    pub to: Color,
    /// The candidate's share after, in percent.
    pub weight: u8,
    /// The generation after.
    pub generation: u64,
    /// Who, and through which door.
    pub by: Actor,
    /// Why.
    pub reason: String,
    /// Further words: the color drained, the revision set.
    pub detail: String,
    /// What happened to requests meanwhile, once known (end of verify and drain).
    pub outcome: Option<OutcomeView>,
}

/// What happened to the requests of an app from a change to the end of its drain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OutcomeView {
    /// Requests finished.
    pub requests: u64,
    /// Of them, failed on the proxy's or the upstream's side.
    pub failed: u64,
    /// Cut at the end of the drain time.
    pub cancelled: u64,
    /// How the proof went.
    pub verify: String,
}

/// Something that happened.
#[derive(Clone, Debug)]
pub struct Event {
    /// Journal sequence, for events that are changes.
    pub id: Option<u64>,
    /// When.
    pub at: Timestamp,
    /// The app, if it is about one.
    pub app: Option<String>,
    /// What.
    pub kind: EventKind,
    /// One line for people.
    pub message: String,
}

/// What kind of event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// A committed change.
    Changed,
    /// A change was refused.
    Refused,
    /// An endpoint's health changed.
    Health,
    /// Requests to an endpoint fail: it is left alone.
    Ejected,
    /// An endpoint that was left alone answers again.
    Returned,
    /// A color has drained.
    Drained,
    /// The config file was taken into use.
    Reloaded,
    /// The config file was refused.
    ReloadFailed,
    /// The store failed.
    StoreFailed,
    /// A deploy began or ended.
    Deploy,
    /// The guard evaluated, warned, or ended a bake.
    Guard,
    /// A gate said something, or waits for an operator.
    Gate,
    /// How far a rollout is.
    Rollout,
    /// A standby has been kept for as long as the file wants.
    Standby,
}

impl EventKind {
    /// The SSE event name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Changed => "changed",
            Self::Refused => "refused",
            Self::Health => "health",
            Self::Ejected => "ejected",
            Self::Returned => "returned",
            Self::Drained => "drained",
            Self::Reloaded => "reloaded",
            Self::ReloadFailed => "reload_failed",
            Self::StoreFailed => "store_failed",
            Self::Deploy => "deploy",
            Self::Guard => "guard",
            Self::Gate => "gate",
            Self::Rollout => "rollout",
            Self::Standby => "standby",
        }
    }
}
