//! The JSON of the admin API, and the only place in `admin` that knows serde.
//!
//! Every top-level answer carries `schema`, its name and version. Requests refuse unknown fields; answers are
//! read tolerantly, so that an older CLI understands a newer server.

mod guard;
mod lease;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::rollout;

pub use guard::*;
pub use lease::{GiveLease, Lease, LeaseDocument, TakeLease};

/// The versioned names of the top-level answers.
pub mod schema {
    /// Of [`super::Status`].
    pub const STATUS: &str = "cutover.status/v1";
    /// Of [`super::Apps`].
    pub const APPS: &str = "cutover.apps/v1";
    /// Of [`super::AppDocument`].
    pub const APP: &str = "cutover.app/v1";
    /// Of [`super::Outcome`].
    pub const OUTCOME: &str = "cutover.outcome/v1";
    /// Of [`super::History`].
    pub const HISTORY: &str = "cutover.history/v1";
    /// Of [`super::Event`].
    pub const EVENT: &str = "cutover.event/v1";
    /// Of [`super::Lagged`].
    pub const LAGGED: &str = "cutover.lagged/v1";
    /// Of [`super::Reloaded`].
    pub const RELOAD: &str = "cutover.reload/v1";
    /// Of [`super::Explained`].
    pub const EXPLAIN: &str = "cutover.explain/v1";
    /// Of [`super::Drained`].
    pub const DRAINED: &str = "cutover.drained/v1";
    /// Of [`super::Settled`].
    pub const SETTLED: &str = "cutover.settled/v1";
    /// Of [`super::Approved`].
    pub const APPROVED: &str = "cutover.approved/v1";
    /// Of [`super::RolloutDocument`].
    pub const ROLLOUT: &str = "cutover.rollout/v1";
    /// Of [`super::Probed`].
    pub const PROBE: &str = "cutover.probe/v1";
    /// Of [`super::LeaseDocument`].
    pub const LEASE: &str = "cutover.lease/v1";
    /// Of [`super::ConfigText`].
    pub const CONFIG: &str = "cutover.config/v1";
    /// Of [`super::ProblemBody`].
    pub const PROBLEM: &str = "cutover.problem/v1";
}

/// A color.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Color {
    /// The first.
    Blue,
    /// The second.
    Green,
}

impl From<rollout::Color> for Color {
    fn from(color: rollout::Color) -> Self {
        match color {
            rollout::Color::Blue => Self::Blue,
            rollout::Color::Green => Self::Green,
        }
    }
}

impl From<Color> for rollout::Color {
    fn from(color: Color) -> Self {
        match color {
            Color::Blue => Self::Blue,
            Color::Green => Self::Green,
        }
    }
}

/// `GET /v1/status`: the process, its config and all apps.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Status {
    /// `cutover.status/v1`
    pub schema: String,
    /// This process's version.
    pub version: String,
    /// Its process id.
    pub pid: u32,
    /// When it started.
    pub started: String,
    /// Every active color can serve and the process does not stop.
    pub ready: bool,
    /// Why not, if not.
    pub not_ready: Vec<String>,
    /// The bound addresses of the listeners.
    pub listeners: Vec<String>,
    /// The config file.
    pub config: ConfigFile,
    /// What the operator must know.
    pub warnings: Vec<String>,
    /// The apps, by name.
    pub apps: Vec<App>,
}

/// The config file and its last reload.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ConfigFile {
    /// Where it is; null when run from flags.
    pub path: Option<String>,
    /// Hash of the content in use.
    pub hash: String,
    /// When it was taken into use.
    pub loaded_at: Option<String>,
    /// What is wrong with the file as it is now.
    pub last_error: Option<String>,
    /// What it says that needs a restart.
    pub needs_restart: Vec<String>,
}

/// `GET /v1/apps`
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Apps {
    /// `cutover.apps/v1`
    pub schema: String,
    /// The apps, by name.
    pub apps: Vec<App>,
}

/// `GET /v1/apps/{app}`
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct AppDocument {
    /// `cutover.app/v1`
    pub schema: String,
    /// The app.
    #[serde(flatten)]
    pub app: App,
}

/// One app.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct App {
    /// Its name.
    pub app: String,
    /// Its hosts as written; empty = any.
    pub hosts: Vec<String>,
    /// Its generation; also the ETag `"gN"`.
    pub generation: u64,
    /// The active color.
    pub active: Color,
    /// The color that takes a share, if one does.
    pub candidate: Option<Color>,
    /// The candidate's share in percent.
    pub weight: u8,
    /// When the active color last changed.
    pub switched_at: String,
    /// Requests are held.
    pub hold: Option<Hold>,
    /// In maintenance, with this message.
    pub maintenance: Option<String>,
    /// What runs, with who started it.
    pub operation: Option<String>,
    /// Who holds the app for a deploy.
    #[serde(default)]
    pub lease: Option<Lease>,
    /// The newest bake: what the guard watches, or how it ended.
    #[serde(default)]
    pub bake: Option<Bake>,
    /// The newest rollout, under way or over.
    #[serde(default)]
    pub rollout: Option<Rollout>,
    /// What the file says when reality differs.
    pub file_wants: Option<Color>,
    /// When the standby that was left has been kept for long enough (`standby_ttl`); it stays warm all the same.
    #[serde(default)]
    pub standby_until: Option<String>,
    /// Whether a rollback would work now.
    pub rollback: Rollback,
    /// The stored state was damaged: how.
    pub degraded: Option<String>,
    /// Requests that went to the active color because the candidate had nothing healthy.
    pub spilled: u64,
    /// Both colors.
    pub colors: Colors,
}

/// Requests are held.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Hold {
    /// Since when.
    pub since: String,
    /// At most how many seconds.
    pub max_seconds: f64,
    /// Requests that wait.
    pub waiting: usize,
}

/// Whether a rollback would work now.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Rollback {
    /// It would.
    pub ready: bool,
    /// Where it would go.
    pub to: Option<Color>,
    /// Why it would not.
    pub reason: Option<String>,
}

/// Both colors of an app.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Colors {
    /// Blue.
    pub blue: ColorState,
    /// Green.
    pub green: ColorState,
}

/// One color of an app.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ColorState {
    /// `active`, `standby`, `candidate`, `draining`, `drained` or `empty`.
    pub role: String,
    /// Its revision.
    pub revision: Option<String>,
    /// Its share of the traffic in percent.
    pub share: u8,
    /// Every service has a healthy endpoint.
    pub healthy: bool,
    /// Requests in flight.
    pub in_flight: u64,
    /// Of them, streams: WebSockets, other upgrades, event streams.
    #[serde(default)]
    pub streams: u64,
    /// Its endpoints by service.
    pub services: Vec<Service>,
}

/// One service in one color.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Service {
    /// Its name.
    pub service: String,
    /// Its endpoints come from the API, not the file.
    pub overridden: bool,
    /// How full it is, where `[app.X.balance] max_in_flight` bounds it.
    #[serde(default)]
    pub queue: Option<Queue>,
    /// Its endpoints.
    pub endpoints: Vec<Endpoint>,
}

/// How full a bounded service is in one color.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, ToSchema)]
pub struct Queue {
    /// Requests that each endpoint may have at once.
    pub max_in_flight: usize,
    /// Requests that they have, all together.
    pub in_flight: usize,
    /// Requests that wait for room.
    pub waiting: usize,
    /// Requests answered 503 since the start: too many waited, or they had waited for too long.
    pub refused: u64,
}

/// One endpoint as configured.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Endpoint {
    /// As written.
    pub address: String,
    /// What it resolved to, when that differs.
    pub resolved: Vec<String>,
    /// `unknown`, `healthy`, `failing` or `unreachable`.
    pub health: String,
    /// Its requests fail: it is left alone for now (`[app.X.balance] breaker`).
    #[serde(default)]
    pub ejected: bool,
    /// The last probe.
    pub last_probe: Option<ProbeReport>,
}

/// What one probe found.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ProbeReport {
    /// What was asked: a URL, or `tcp://HOST:PORT` for a connect.
    pub url: String,
    /// The answer's status, if there was one.
    pub status: Option<u16>,
    /// How long it took, in milliseconds.
    pub latency_ms: f64,
    /// What it says of the endpoint: `healthy`, `failing`, `unreachable`.
    pub verdict: String,
    /// Why, in words.
    pub reason: String,
    /// When it began.
    pub at: String,
}

/// A probe of one endpoint, as refusals and `probe` list it.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Probe {
    /// The endpoint as written.
    pub endpoint: String,
    /// Its service.
    pub service: String,
    /// Its color.
    pub color: Color,
    /// What was found.
    #[serde(flatten)]
    pub report: ProbeReport,
}

/// The answer to a change.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Outcome {
    /// `cutover.outcome/v1`
    pub schema: String,
    /// The app.
    pub app: String,
    /// `switch`, `rollback`, `weight`, …
    pub verb: String,
    /// The generation now.
    pub generation: u64,
    /// The active color now; of a dry run: as it would be.
    pub active: Color,
    /// False: it was already so.
    pub changed: bool,
    /// The active color before.
    pub from: Color,
    /// The candidate's share in percent.
    pub weight: u8,
    /// How the proof went, for a switch.
    pub verify: Option<Verify>,
    /// What the gates said.
    #[serde(default)]
    pub gates: Vec<Gated>,
    /// The guard watches until then; null: no bake began.
    #[serde(default)]
    pub bakes_until: Option<String>,
    /// What the operator should know.
    pub warnings: Vec<String>,
    /// Nothing was done, because nothing should be.
    pub dry_run: bool,
    /// The answer was given before, to the same idempotency key.
    pub repeated: bool,
}

/// The proof of a switch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Verify {
    /// `verified`, `skipped` or `unverified`.
    pub result: String,
    /// Requests through our own listener that the new color answered.
    pub requests: Option<u32>,
    /// Why it was skipped or not possible.
    pub reason: Option<String>,
}

/// `GET /v1/history`
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct History {
    /// `cutover.history/v1`
    pub schema: String,
    /// Committed changes, oldest first.
    pub entries: Vec<HistoryEntry>,
}

/// A committed change.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct HistoryEntry {
    /// Journal sequence; also the event id.
    pub seq: u64,
    /// When.
    pub at: String,
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
    /// Who.
    pub by: String,
    /// Through which door: `cli`, `api`, `file`, …
    pub trigger: String,
    /// Why.
    pub reason: String,
    /// Further words.
    pub detail: String,
    /// What happened to requests meanwhile, once known.
    pub outcome: Option<RequestsMeanwhile>,
}

/// What happened to the requests of an app from a change to the end of its drain.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct RequestsMeanwhile {
    /// Finished.
    pub requests: u64,
    /// Of them, failed on the proxy's or the upstream's side.
    pub failed: u64,
    /// Cut at the end of the drain time.
    pub cancelled: u64,
    /// How the proof went.
    pub verify: String,
}

/// The data of a server-sent event.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Event {
    /// `cutover.event/v1`
    pub schema: String,
    /// Journal sequence, for events that are changes.
    pub id: Option<u64>,
    /// When.
    pub at: String,
    /// The app, if it is about one.
    pub app: Option<String>,
    /// `changed`, `refused`, `health`, `ejected`, `returned`, `drained`, `reloaded`, `reload_failed`, `store_failed`.
    pub kind: String,
    /// One line for people.
    pub message: String,
}

/// The data of `event: lagged`: the reader was too slow and lost events.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Lagged {
    /// `cutover.lagged/v1`
    pub schema: String,
    /// How many are lost to this stream; changes are still in `/v1/history`.
    pub missed: u64,
}

/// What a reload did.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Reloaded {
    /// `cutover.reload/v1`
    pub schema: String,
    /// False: the content is the one in use.
    pub changed: bool,
    /// What differs, a line each.
    pub diff: Vec<String>,
    /// What needs a restart to take effect.
    pub needs_restart: Vec<String>,
    /// Warnings of the file.
    pub warnings: Vec<String>,
}

/// Where a request would go, and why.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Explained {
    /// `cutover.explain/v1`
    pub schema: String,
    /// The host that was matched.
    pub host: String,
    /// The path that was matched.
    pub path: String,
    /// The app, if one matches.
    pub app: Option<String>,
    /// The service, with its match.
    pub service: Option<String>,
    /// The color.
    pub color: Option<Color>,
    /// The endpoints it may go to, first the one it would get now.
    pub endpoints: Vec<String>,
    /// Every step with its reason, in order.
    pub steps: Vec<String>,
    /// The status when the proxy would answer itself.
    pub status: Option<u16>,
}

/// A color has drained.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Drained {
    /// `cutover.drained/v1`
    pub schema: String,
    /// The app.
    pub app: String,
    /// The color.
    pub color: Color,
    /// Always true: anything else is an error.
    pub drained: bool,
    /// How long the wait was, in milliseconds.
    pub waited_ms: u64,
}

/// Every endpoint of a color, probed afresh.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Probed {
    /// `cutover.probe/v1`
    pub schema: String,
    /// The app.
    pub app: String,
    /// The color.
    pub color: Color,
    /// The color would pass the gate.
    pub healthy: bool,
    /// One for each endpoint.
    pub probes: Vec<Probe>,
}

/// The configuration in use.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ConfigText {
    /// `cutover.config/v1`
    pub schema: String,
    /// As TOML, secrets masked.
    pub text: String,
}

/// An error (RFC 9457).
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct ProblemBody {
    /// `cutover.problem/v1`
    pub schema: String,
    /// `urn:cutover:problem:CODE`
    #[serde(rename = "type")]
    pub kind: String,
    /// The kind of problem in words.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// Stable name of the kind of problem.
    pub code: String,
    /// What happened this time, what traffic does now, what to do.
    pub detail: String,
    /// The app's generation now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generation: Option<u64>,
    /// The generation that the request expected.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expected: Option<u64>,
    /// The active color now: where traffic goes on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub active: Option<Color>,
    /// Every probe of the target.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub probes: Option<Vec<Probe>>,
    /// What each gate said that was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gates: Option<Vec<Gated>>,
    /// The names there are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub known: Option<Vec<String>>,
    /// The name that was probably meant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub did_you_mean: Option<String>,
    /// What runs, when something does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operation: Option<String>,
    /// Who started it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// The app's whole state, when a precondition failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub current: Option<Box<App>>,
}

/// `POST /v1/apps/{app}/switch`
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Switch {
    /// `blue`, `green` or `standby`.
    pub to: String,
    /// Although the gates refuse.
    #[serde(default)]
    pub force: bool,
    /// End a hold afterwards, whatever became of the switch.
    #[serde(default)]
    pub release: bool,
    /// Why.
    #[serde(default)]
    pub reason: String,
    /// Say what would happen, and do nothing.
    #[serde(default)]
    pub dry_run: bool,
}

/// `POST /v1/apps/{app}/rollback`
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RollBack {
    /// Not to the color before, but to what was active at a generation (a number), or with a revision (a text).
    pub to: Option<Past>,
    /// Although the target cannot be reached or was redeployed.
    pub ignore_health: bool,
    /// Why.
    pub reason: String,
    /// Say what would happen, and do nothing.
    pub dry_run: bool,
}

/// Where a rollback goes.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum Past {
    /// What was active at this generation.
    Generation(u64),
    /// The last time that this revision was active.
    Revision(String),
}

/// `POST /v1/apps/{app}/weight`: one color, or both adding to 100.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Weight {
    /// Blue's share in percent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub blue: Option<u64>,
    /// Green's share in percent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub green: Option<u64>,
    /// Although the gates refuse.
    pub force: bool,
    /// Why.
    pub reason: String,
    /// Say what would happen, and do nothing.
    pub dry_run: bool,
}

/// `POST /v1/apps/{app}/drain`
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Drain {
    /// `blue` or `green`.
    pub color: String,
    /// Although it has traffic.
    #[serde(default)]
    pub force: bool,
    /// Why.
    #[serde(default)]
    pub reason: String,
    /// Say what would happen, and do nothing.
    #[serde(default)]
    pub dry_run: bool,
}

/// `POST /v1/apps/{app}/hold`
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct HoldRequests {
    /// At most this long, as `"20s"`, which is the default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max: Option<String>,
    /// Answer when no request runs any more; 504 if the hold is over before.
    pub idle: bool,
    /// Why.
    pub reason: String,
    /// Say what would happen, and do nothing.
    pub dry_run: bool,
}

/// `POST /v1/apps/{app}/release`
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Release {
    /// Why.
    pub reason: String,
    /// Say what would happen, and do nothing.
    pub dry_run: bool,
}

/// `POST /v1/apps/{app}/maintenance`
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Maintenance {
    /// Begin or end it.
    pub on: bool,
    /// What clients are told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Why.
    #[serde(default)]
    pub reason: String,
    /// Say what would happen, and do nothing.
    #[serde(default)]
    pub dry_run: bool,
}

/// `PUT /v1/apps/{app}/colors/{color}`
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SetColor {
    /// Endpoints by service; a service left out keeps its own.
    pub endpoints: BTreeMap<String, Vec<String>>,
    /// The revision that runs there; left out: unchanged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// Why.
    pub reason: String,
    /// Say what would happen, and do nothing.
    pub dry_run: bool,
}

/// `POST /v1/apps/{app}/preview-token`
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewPreviewToken {
    /// `standby`, `blue` or `green`.
    #[serde(default = "standby")]
    pub color: String,
    /// How long it lives, as `1h`; at most 30 days.
    #[serde(default = "an_hour")]
    pub ttl: String,
}

fn standby() -> String {
    "standby".to_owned()
}

fn an_hour() -> String {
    "1h".to_owned()
}

/// A token by which a color can be reached for a while.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct PreviewToken {
    /// `cutover.preview-token/v1`
    pub schema: String,
    /// The app.
    pub app: String,
    /// `standby`, `blue` or `green`.
    pub color: String,
    /// The token.
    pub token: String,
    /// When it ends.
    pub expires: String,
    /// The request header that it goes into.
    pub header: String,
    /// The cookie that it may go into.
    pub cookie: Option<String>,
}

/// `POST /v1/explain`
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Explain {
    /// `GET`
    #[serde(default = "get")]
    pub method: String,
    /// `http://host/path?query`, or `/path` with a `host` header.
    pub url: String,
    /// Headers as name and value.
    #[serde(default)]
    pub headers: Vec<(String, String)>,
    /// The address it comes from.
    #[serde(default)]
    pub from: Option<String>,
}

fn get() -> String {
    "GET".to_owned()
}

/// A request without parameters.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Nothing {}

/// The query of `GET /v1/status` and `/v1/apps`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StatusQuery {
    /// Only this app.
    pub app: Option<String>,
}

/// The query of `GET /v1/history`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HistoryQuery {
    /// Only this app.
    pub app: Option<String>,
    /// Only the last so many.
    pub limit: Option<usize>,
}

/// The query of `GET /v1/events`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EventsQuery {
    /// Begin with the remembered events above this id.
    pub after: Option<u64>,
    /// `false`: end after the remembered ones.
    pub follow: Option<bool>,
}

/// The query of `GET …/drained` and `…/settled`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DrainedQuery {
    /// How long to wait, as `60s`.
    pub wait: Option<String>,
}

/// The query of `GET /readyz`: `?verbose`, with any value.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ReadyQuery {
    /// Say every reason.
    pub verbose: Option<String>,
}
