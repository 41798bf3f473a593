//! The text of `/metrics`: what the workers' cells say, summed, and the levels that the control plane knows.
//!
//! The families of [`super::names`] are written as text here; the `prometheus` crate adds `process_*` and encodes
//! those. It records nothing: recording is the workers' cells.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

mod mirrors;
mod queues;

use mirrors::write_mirrors;
use queues::write_queues;

use super::control::ControlSnapshot;
use super::names::{self, Metric};
use super::text::{Text, labels, push_label};
use super::{
    AppGauges, Cell, ControlMetrics, PoolCells, PreambleCells, Registry, Snapshot, StreamKind, TlsCells,
};
use crate::rollout::{ByColor, Color};
use crate::tls::CertificateView;

/// `Content-Type` of the answer.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Where a scrape gets the levels from: the apps of the current table.
pub type Provider = Box<dyn Fn() -> Vec<AppGauges> + Send + Sync>;

/// Where a scrape gets the certificates in use from.
pub type Certificates = Box<dyn Fn() -> Vec<CertificateView> + Send + Sync>;

/// Answers scrapes. One for the process.
pub struct Exposition {
    registry: Arc<Registry>,
    control: Arc<ControlMetrics>,
    /// Label values by listener index.
    listeners: Vec<String>,
    access_dropped: Arc<AtomicU64>,
    apps: Provider,
    certificates: Certificates,
    earlier: Mutex<Earlier>,
}

/// What a scrape must know of the scrape before. The lock also keeps two scrapes apart.
#[derive(Debug, Default)]
struct Earlier {
    /// By app.
    finished: BTreeMap<String, Finished>,
    /// By endpoint, as counted by the endpoint, which forgets when it is removed.
    connect_errors: BTreeMap<EndpointKey, u64>,
    /// By app, service and color: never falls, whatever endpoints come and go.
    connect_error_totals: BTreeMap<(String, String, Color), u64>,
}

/// How far an app was: its generation, and the requests that each color had finished.
#[derive(Debug)]
struct Finished {
    generation: u64,
    by_color: ByColor<u64>,
}

/// App, service, color, endpoint.
type EndpointKey = (String, String, Color, String);

impl Exposition {
    /// `listeners` are the label values by listener index, as many as the registry was made for;
    /// `access_dropped` is [`super::AccessLog::dropped`]; `apps` and `certificates` are called once a scrape.
    #[must_use]
    pub fn new(
        registry: Arc<Registry>,
        control: Arc<ControlMetrics>,
        listeners: Vec<String>,
        access_dropped: Arc<AtomicU64>,
        apps: Provider,
        certificates: Certificates,
    ) -> Self {
        Self {
            registry,
            control,
            listeners,
            access_dropped,
            apps,
            certificates,
            earlier: Mutex::default(),
        }
    }

    /// The answer to a scrape, in text format 0.0.4. Takes time in proportion to apps × colors (some 100 ms for a
    /// thousand apps under traffic), so it belongs on a thread that serves no requests.
    #[must_use]
    pub fn render(&self) -> String {
        let mut earlier = self.earlier();
        let apps = (self.apps)();
        let pools = self.pools(&apps);
        let mut text = Text::default();
        write_pools(&mut text, &pools);
        earlier.count_connect_errors(&apps);
        text.family(&names::CONNECT_ERRORS);
        for ((app, service, color), count) in &earlier.connect_error_totals {
            let labels = labels(&names::CONNECT_ERRORS, &[app, service, color.as_str()]);
            text.sample(&names::CONNECT_ERRORS, &labels, count);
        }
        write_apps(&mut text, &apps);
        write_weights(&mut text, &apps, &mut earlier, &pools);
        let control = self.control.snapshot();
        write_gates(&mut text, &apps, &control);
        write_control(&mut text, &control);
        self.write_process(&mut text);
        text.into_string()
    }

    /// Every pool's cells, summed over the workers; the requests that reached no app are the pool without a name.
    fn pools(&self, apps: &[AppGauges]) -> Vec<Pool> {
        let live: BTreeMap<&str, &AppGauges> = apps.iter().map(|app| (app.app.as_str(), app)).collect();
        let mut pools = Vec::new();
        let unrouted = self.registry.worker_cells.iter().map(|worker| &worker.unrouted);
        pools.push(Pool::sum(("", "", None), true, unrouted));
        for ((app, service, color), cells) in self.registry.pools() {
            let live = live
                .get(app.as_str())
                .is_some_and(|app| app.services.contains(&service));
            let workers = cells.workers.iter().map(|cells| &**cells);
            pools.push(Pool::sum((&app, &service, color), live, workers));
        }
        pools
    }

    fn write_process(&self, text: &mut Text) {
        let mut open: BTreeMap<&str, i64> = BTreeMap::new();
        for (at, listener) in self.listeners.iter().enumerate() {
            let workers = self.registry.worker_cells.iter();
            let count: i64 = workers
                .filter_map(|cells| cells.connections.get(at))
                .map(super::Gauge::get)
                .sum();
            *open.entry(listener).or_default() += count;
        }
        text.family(&names::CONNECTIONS);
        for (listener, count) in open {
            text.sample(
                &names::CONNECTIONS,
                &labels(&names::CONNECTIONS, &[listener]),
                count,
            );
        }
        let resting = self.registry.worker_cells.iter().map(|cells| cells.resting.get());
        text.single(&names::CONNECTIONS_RESTING, resting.sum::<i64>());
        self.write_tls(text);
        self.write_preambles(text);
        text.single(&names::ACCESS_DROPPED, self.access_dropped.load(Relaxed));
        text.family(&names::BUILD_INFO);
        let version = labels(&names::BUILD_INFO, &[env!("CARGO_PKG_VERSION")]);
        text.sample(&names::BUILD_INFO, &version, 1);
        write_process_collector(text);
    }

    fn write_preambles(&self, text: &mut Text) {
        let cells = || self.registry.worker_cells.iter().map(|cells| &cells.preamble);
        let sum = |of: fn(&PreambleCells) -> &Cell| cells().map(|cells| of(cells).get()).sum::<u64>();
        let metric = &names::PROXY_PROTOCOL_FAILURES;
        text.family(metric);
        for (reason, count) in [
            ("untrusted", sum(|cells| &cells.untrusted)),
            ("malformed", sum(|cells| &cells.malformed)),
            ("left", sum(|cells| &cells.left)),
            ("timeout", sum(|cells| &cells.timed_out)),
        ] {
            text.sample(metric, &labels(metric, &[reason]), count);
        }
    }

    fn write_tls(&self, text: &mut Text) {
        let cells = || self.registry.worker_cells.iter().map(|cells| &cells.tls);
        let mut done: BTreeMap<(&str, &str), u64> = BTreeMap::new();
        for cells in cells() {
            cells.each_done(|version, resumed, count| *done.entry((version, resumed)).or_default() += count);
        }
        text.family(&names::TLS_HANDSHAKES);
        for ((version, resumed), count) in done {
            let labels = labels(&names::TLS_HANDSHAKES, &[version, resumed]);
            text.sample(&names::TLS_HANDSHAKES, &labels, count);
        }
        text.family(&names::TLS_FAILURES);
        let sum = |of: fn(&TlsCells) -> &Cell| cells().map(|cells| of(cells).get()).sum::<u64>();
        for (reason, count) in [
            ("refused", sum(|cells| &cells.refused)),
            ("left", sum(|cells| &cells.left)),
            ("timeout", sum(|cells| &cells.timed_out)),
        ] {
            text.sample(
                &names::TLS_FAILURES,
                &labels(&names::TLS_FAILURES, &[reason]),
                count,
            );
        }
        // One file may serve several listeners: it is one series.
        let mut in_use: BTreeMap<String, (i64, bool)> = BTreeMap::new();
        for view in (self.certificates)() {
            let (not_after, up_to_date) = in_use.entry(view.cert).or_insert((view.not_after, true));
            *not_after = view.not_after.min(*not_after);
            *up_to_date &= view.up_to_date;
        }
        text.family(&names::TLS_NOT_AFTER);
        for (cert, (not_after, _)) in &in_use {
            text.sample(
                &names::TLS_NOT_AFTER,
                &labels(&names::TLS_NOT_AFTER, &[cert]),
                not_after,
            );
        }
        text.family(&names::TLS_UP_TO_DATE);
        for (cert, (_, up_to_date)) in &in_use {
            let labels = labels(&names::TLS_UP_TO_DATE, &[cert]);
            text.sample(&names::TLS_UP_TO_DATE, &labels, u8::from(*up_to_date));
        }
    }

    fn earlier(&self) -> MutexGuard<'_, Earlier> {
        self.earlier.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Exposition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exposition")
            .field("listeners", &self.listeners)
            .finish_non_exhaustive()
    }
}

/// One (app, service, color), summed over the workers.
struct Pool {
    app: String,
    color: Option<Color>,
    /// The three labels, written.
    labels: String,
    /// In the current table; otherwise only its counters stay.
    live: bool,
    requests: BTreeMap<(&'static str, u16), u64>,
    duration: Snapshot,
    upstream: Snapshot,
    in_flight: i64,
    streams: [i64; StreamKind::ALL.len()],
    retries: u64,
}

impl Pool {
    fn sum<'a>(
        (app, service, color): (&str, &str, Option<Color>),
        live: bool,
        workers: impl Iterator<Item = &'a PoolCells>,
    ) -> Self {
        let mut pool = Self {
            app: app.to_owned(),
            color,
            labels: labels(
                &names::IN_FLIGHT,
                &[app, service, color.map_or("", Color::as_str)],
            ),
            live,
            requests: BTreeMap::new(),
            duration: Snapshot::default(),
            upstream: Snapshot::default(),
            in_flight: 0,
            streams: [0; StreamKind::ALL.len()],
            retries: 0,
        };
        for cells in workers {
            cells.each_request_count(|method, status, count| {
                *pool.requests.entry((method, status)).or_default() += count;
            });
            cells.duration.merge_into(&mut pool.duration);
            cells.upstream.merge_into(&mut pool.upstream);
            pool.in_flight += cells.in_flight.get();
            for (sum, kind) in pool.streams.iter_mut().zip(StreamKind::ALL) {
                *sum += cells.streams(kind).get();
            }
            pool.retries += cells.retries.get();
        }
        pool
    }
}

fn write_pools(text: &mut Text, pools: &[Pool]) {
    text.family(&names::REQUESTS);
    for pool in pools {
        for ((method, status), count) in &pool.requests {
            let mut labels = pool.labels.clone();
            push_label(&mut labels, "method", method);
            match status {
                0 => push_label(&mut labels, "code", "other"),
                status => push_label(&mut labels, "code", &status.to_string()),
            }
            text.sample(&names::REQUESTS, &labels, count);
        }
    }
    let mut durations = |metric: &Metric, of: fn(&Pool) -> &Snapshot| {
        text.family(metric);
        // A pool without traffic would be 64 lines of zeros.
        for pool in pools.iter().filter(|pool| of(pool).count() > 0) {
            text.histogram(metric, &pool.labels, of(pool));
        }
    };
    durations(&names::REQUEST_DURATION, |pool| &pool.duration);
    durations(&names::UPSTREAM_DURATION, |pool| &pool.upstream);
    text.family(&names::IN_FLIGHT);
    // The last requests of a removed app still count.
    for pool in pools.iter().filter(|pool| pool.live || pool.in_flight != 0) {
        text.sample(&names::IN_FLIGHT, &pool.labels, pool.in_flight);
    }
    write_streams(text, pools);
    text.family(&names::RETRIES);
    for pool in pools.iter().filter(|pool| pool.color.is_some()) {
        text.sample(&names::RETRIES, &pool.labels, pool.retries);
    }
}

/// A series a color and kind: services are summed, because a stream policy is the app's.
fn write_streams(text: &mut Text, pools: &[Pool]) {
    let mut open: BTreeMap<(&str, Color), [i64; StreamKind::ALL.len()]> = BTreeMap::new();
    for pool in pools {
        let Some(color) = pool.color else { continue };
        if pool.live || pool.streams.iter().any(|count| *count != 0) {
            let sums = open.entry((&pool.app, color)).or_default();
            for (sum, count) in sums.iter_mut().zip(pool.streams) {
                *sum += count;
            }
        }
    }
    text.family(&names::STREAMS);
    for ((app, color), counts) in open {
        for (kind, count) in StreamKind::ALL.into_iter().zip(counts) {
            let labels = labels(&names::STREAMS, &[app, color.as_str(), kind.as_str()]);
            text.sample(&names::STREAMS, &labels, count);
        }
    }
}

impl Earlier {
    /// Add what endpoints have counted since the scrape before. (An endpoint's own count goes with it; a sum over
    /// the endpoints of the moment would fall, and a counter must not.)
    fn count_connect_errors(&mut self, apps: &[AppGauges]) {
        let mut now: BTreeMap<EndpointKey, u64> = BTreeMap::new();
        for app in apps {
            for service in &app.services {
                for color in Color::ALL {
                    let key = (app.app.clone(), service.clone(), color);
                    self.connect_error_totals.entry(key).or_default();
                }
            }
            for endpoint in &app.endpoints {
                let name = endpoint.endpoint.clone();
                let key = (app.app.clone(), endpoint.service.clone(), endpoint.color, name);
                *now.entry(key).or_default() += endpoint.connect_errors;
            }
        }
        for (key, count) in &now {
            // Less than before: another endpoint of the same name, which began at zero.
            let before = self.connect_errors.get(key).copied().unwrap_or(0);
            let more = count.checked_sub(before).unwrap_or(*count);
            let pool = (key.0.clone(), key.1.clone(), key.2);
            *self.connect_error_totals.entry(pool).or_default() += more;
        }
        self.connect_errors = now;
    }
}

/// Each color's share of the requests that have ended since the scrape before; `None` where that means nothing:
/// no requests, no scrape before, or a change between the two, when the requests belong to two desired shares.
fn actual_share(before: Option<&Finished>, now: &Finished) -> Option<ByColor<f64>> {
    let before = before.filter(|before| before.generation == now.generation)?;
    let since = now
        .by_color
        .map(|color, count| count.saturating_sub(before.by_color[color]));
    let all = since.blue + since.green;
    (all > 0).then(|| since.map(|_, count| *count as f64 / all as f64))
}

fn write_apps(text: &mut Text, apps: &[AppGauges]) {
    let mut each = |metric: &Metric, value: fn(&AppGauges) -> u64| {
        text.family(metric);
        for app in apps {
            text.sample(metric, &labels(metric, &[&app.app]), value(app));
        }
    };
    each(&names::SPILLED, |app| app.spilled);
    each(&names::RULE_ERRORS, |app| app.rule_errors);
    each(&names::SKEW_RESCUED, |app| app.skew_rescued);
    write_mirrors(text, apps);
    let mut each = |metric: &Metric, value: fn(&AppGauges) -> u64| {
        text.family(metric);
        for app in apps {
            text.sample(metric, &labels(metric, &[&app.app]), value(app));
        }
    };
    each(&names::GENERATION, |app| app.generation);
    each(&names::HELD, |app| app.held);
    each(&names::DEGRADED, |app| u64::from(app.degraded));
    write_queues(text, apps);
    text.family(&names::ENDPOINT_UP);
    for app in apps {
        // Two entries of one name are one series: two would make the whole scrape invalid.
        let mut up: BTreeMap<(&str, Color, &str), bool> = BTreeMap::new();
        for endpoint in &app.endpoints {
            let key = (
                endpoint.service.as_str(),
                endpoint.color,
                endpoint.endpoint.as_str(),
            );
            *up.entry(key).or_default() |= endpoint.up;
        }
        for ((service, color, endpoint), up) in up {
            let values = [app.app.as_str(), service, color.as_str(), endpoint];
            text.sample(
                &names::ENDPOINT_UP,
                &labels(&names::ENDPOINT_UP, &values),
                u8::from(up),
            );
        }
    }
    text.family(&names::ENDPOINT_EJECTED);
    for app in apps {
        let mut ejected: BTreeMap<(&str, Color, &str), bool> = BTreeMap::new();
        for endpoint in &app.endpoints {
            let key = (
                endpoint.service.as_str(),
                endpoint.color,
                endpoint.endpoint.as_str(),
            );
            *ejected.entry(key).or_insert(true) &= endpoint.ejected;
        }
        for ((service, color, endpoint), ejected) in ejected {
            let values = [app.app.as_str(), service, color.as_str(), endpoint];
            let labels = labels(&names::ENDPOINT_EJECTED, &values);
            text.sample(&names::ENDPOINT_EJECTED, &labels, u8::from(ejected));
        }
    }
    text.family(&names::ACTIVE);
    for app in apps {
        for color in Color::ALL {
            let labels = labels(&names::ACTIVE, &[&app.app, color.as_str()]);
            text.sample(&names::ACTIVE, &labels, u8::from(color == app.active));
        }
    }
}

fn write_weights(text: &mut Text, apps: &[AppGauges], earlier: &mut Earlier, pools: &[Pool]) {
    let mut finished: BTreeMap<&str, ByColor<u64>> = BTreeMap::new();
    for pool in pools {
        if let Some(color) = pool.color {
            finished.entry(&pool.app).or_default()[color] += pool.requests.values().sum::<u64>();
        }
    }
    let before = std::mem::take(&mut earlier.finished);
    text.family(&names::WEIGHT);
    for app in apps {
        let mut kind = |kind: &str, share: ByColor<f64>| {
            for (color, share) in share.iter() {
                let labels = labels(&names::WEIGHT, &[&app.app, color.as_str(), kind]);
                text.sample(&names::WEIGHT, &labels, share);
            }
        };
        kind("desired", app.share.map(|_, percent| f64::from(*percent) / 100.0));
        let now = Finished {
            generation: app.generation,
            by_color: finished.get(app.app.as_str()).copied().unwrap_or_default(),
        };
        if let Some(actual) = actual_share(before.get(&app.app), &now) {
            kind("actual", actual);
        }
        earlier.finished.insert(app.app.clone(), now);
    }
}

/// Gates of apps that are gone are gone; what the guard took back is counted for every app, from zero.
fn write_gates(text: &mut Text, apps: &[AppGauges], control: &ControlSnapshot) {
    let is_live = |name: &str| apps.iter().any(|app| app.app == name);
    text.family(&names::GATE_STATE);
    for ((app, gate), verdict) in control.gates.iter().filter(|((app, _), _)| is_live(app)) {
        text.sample(
            &names::GATE_STATE,
            &labels(&names::GATE_STATE, &[app, gate]),
            verdict,
        );
    }
    text.family(&names::GUARD_ROLLBACKS);
    for app in apps {
        let count = control.guard_rollbacks.get(&app.app).copied().unwrap_or(0);
        text.sample(
            &names::GUARD_ROLLBACKS,
            &labels(&names::GUARD_ROLLBACKS, &[&app.app]),
            count,
        );
    }
}

fn write_control(text: &mut Text, control: &ControlSnapshot) {
    text.family(&names::SWITCHES);
    for ((app, from, to, trigger, result), count) in &control.switches {
        let values = [
            app.as_str(),
            from.as_str(),
            to.as_str(),
            trigger.as_str(),
            result.as_str(),
        ];
        text.sample(&names::SWITCHES, &labels(&names::SWITCHES, &values), count);
    }
    text.family(&names::SWITCH_DURATION);
    text.histogram(&names::SWITCH_DURATION, "", &control.switch_duration);
    text.family(&names::DRAIN);
    text.histogram(&names::DRAIN, "", &control.drain);
    let totals = &control.totals;
    text.single(&names::DRAIN_CANCELLED, totals.drain_cancelled);
    text.single(&names::RELOAD_SUCCESSFUL, u8::from(totals.last_reload_ok));
    if let Some(at) = totals.last_success {
        text.single(&names::RELOAD_SUCCESS_TIME, at.as_second());
    }
    text.family(&names::RELOADS);
    for (result, count) in [("success", totals.reloads_ok), ("failure", totals.reloads_failed)] {
        text.sample(&names::RELOADS, &labels(&names::RELOADS, &[result]), count);
    }
    text.single(&names::STATE_WRITE_ERRORS, totals.state_write_errors);
    text.single(&names::FIRST_START, u8::from(totals.first_start_without_state));
    if let Some(up) = totals.docker {
        text.single(&names::DOCKER_UP, u8::from(up));
    }
}

/// CPU, memory and descriptors of this process, as the exposition crate reads them from `/proc`.
fn write_process_collector(text: &mut Text) {
    #[cfg(target_os = "linux")]
    {
        use prometheus::core::Collector as _;
        use prometheus::process_collector::ProcessCollector;
        let families = ProcessCollector::for_self().collect();
        let whole = text.raw().len();
        if let Err(error) = prometheus::TextEncoder::new().encode_utf8(&families, text.raw()) {
            text.raw().truncate(whole);
            tracing::warn!(%error, "process metrics are missing from this scrape");
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = text;
}

#[cfg(test)]
mod tests;
