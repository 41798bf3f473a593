//! The windows of every app and color, fed once a second from the workers' cells.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::time::Instant;

use super::guard::copies::Copies;
use super::overview::mirrored;
use crate::metrics::{Mirrored, Sample, WINDOW_MAX, Windows};
use crate::rollout::{ByColor, Color};
use crate::routing::{AppRoute, RoutingTable};

/// How often the cells are read.
pub(super) const TICK: Duration = Duration::from_secs(1);

/// All windows there are.
#[derive(Default)]
pub(super) struct Sampler {
    apps: BTreeMap<String, Track>,
}

/// One app's.
struct Track {
    read_at: Instant,
    colors: ByColor<OfColor>,
    mirror: Marks,
}

#[derive(Default)]
struct OfService {
    total: Sample,
    windows: Windows,
}

impl OfService {
    fn push(&mut self, now: Instant, covered: Duration, total: Sample) {
        let mut slice = total.since(&self.total);
        slice.covered = covered;
        self.windows.push(now, slice);
        self.total = total;
    }
}

/// Totals of copies now and then, while the same color is the standby.
#[derive(Default)]
struct Marks {
    active: Option<Color>,
    /// Oldest first; the last is of now.
    totals: VecDeque<(Instant, Mirrored)>,
}

/// Between two totals that are kept.
const MARK: Duration = Duration::from_secs(10);

impl Marks {
    fn push(&mut self, active: Color, now: Instant, total: Mirrored) {
        if self.active.replace(active) != Some(active) {
            self.totals.clear();
        }
        // The newest stands for now until it is far enough from the one before.
        let last_two = self.totals.len().checked_sub(2).map(|at| self.totals[at].0);
        if last_two.is_some_and(|before| now - before < MARK) {
            self.totals.pop_back();
        }
        self.totals.push_back((now, total));
        while self.totals.front().is_some_and(|(at, _)| now - *at > WINDOW_MAX) {
            self.totals.pop_front();
        }
    }

    fn copies(&self) -> Copies {
        let (Some((from, was)), Some((to, is))) = (self.totals.front(), self.totals.back()) else {
            return Copies::default();
        };
        let rose = |of: fn(&Mirrored) -> u64| of(is).saturating_sub(of(was));
        Copies {
            counts: Mirrored {
                same: rose(|total| total.same),
                different: rose(|total| total.different),
                failed: rose(|total| total.failed),
                dropped: rose(|total| total.dropped),
                active_micros: rose(|total| total.active_micros),
                standby_micros: rose(|total| total.standby_micros),
            },
            covered: *to - *from,
        }
    }
}

#[derive(Default)]
struct OfColor {
    /// Everything since start, as the cells say it.
    total: Sample,
    windows: Windows,
    /// The same of each service, where an app has several.
    services: BTreeMap<String, OfService>,
    /// Failed connects of each endpoint when it was last read: an endpoint's count goes with it.
    connects: HashMap<u64, u64>,
    connect_errors: u64,
}

impl Sampler {
    /// Read all cells. Apps that are gone are forgotten.
    pub(super) fn tick(&mut self, table: &RoutingTable, now: Instant) {
        self.apps.retain(|name, _| table.app(name).is_some());
        for app in &table.apps {
            self.read(app, now);
        }
    }

    /// Read one app's cells now, between two ticks: a switch draws its line here.
    pub(super) fn read(&mut self, app: &AppRoute, now: Instant) {
        let track = self.apps.entry(app.name.clone()).or_insert_with(|| Track {
            read_at: now,
            colors: ByColor::default(),
            mirror: Marks::default(),
        });
        if let Some(beside) = &app.beside {
            track.mirror.push(app.active, now, mirrored(&beside.counts));
        }
        let covered = now - track.read_at;
        track.read_at = now;
        for color in Color::ALL {
            let of = &mut track.colors[color];
            of.count_connects(app, color);
            let mut total = Sample {
                connect_errors: of.connect_errors,
                ..Sample::default()
            };
            let several = app.services.len() > 1;
            of.services
                .retain(|name, _| several && app.services.iter().any(|service| service.name == *name));
            for service in &app.services {
                let mut own = Sample::default();
                for lane in &service.pools[color].lanes {
                    own.add_worker(&lane.cells);
                }
                total.add(&own);
                if several {
                    let of = of.services.entry(service.name.clone()).or_default();
                    of.push(now, covered, own);
                }
            }
            let mut slice = total.since(&of.total);
            slice.covered = covered;
            of.windows.push(now, slice);
            of.total = total;
        }
    }

    /// What the standby made of copies, in the last half hour and since it is the standby.
    pub(super) fn copies(&self, app: &str) -> Copies {
        self.apps
            .get(app)
            .map_or_else(Copies::default, |track| track.mirror.copies())
    }

    /// What one color's requests were within `span`, not before `not_before`.
    pub(super) fn over(
        &self,
        app: &str,
        color: Color,
        span: Duration,
        not_before: Option<Instant>,
    ) -> Sample {
        self.apps.get(app).map_or_else(Sample::default, |track| {
            track.colors[color].windows.over(track.read_at, span, not_before)
        })
    }
}

impl Sampler {
    /// The services of an app, where it has several.
    pub(super) fn services(&self, app: &str) -> Vec<String> {
        let track = self.apps.get(app);
        track.map_or_else(Vec::new, |track| {
            track.colors.blue.services.keys().cloned().collect()
        })
    }

    /// As [`Self::over`], of one service.
    pub(super) fn over_service(
        &self,
        (app, service): (&str, &str),
        color: Color,
        span: Duration,
        not_before: Option<Instant>,
    ) -> Sample {
        let track = self.apps.get(app);
        let of = track.and_then(|track| Some((track, track.colors[color].services.get(service)?)));
        of.map_or_else(Sample::default, |(track, of)| {
            of.windows.over(track.read_at, span, not_before)
        })
    }
}

impl OfColor {
    fn count_connects(&mut self, app: &AppRoute, color: Color) {
        let members = app
            .services
            .iter()
            .flat_map(|service| &service.pools[color].members);
        let mut now = HashMap::new();
        for member in members {
            let count = member.endpoint.connect_errors.load(Relaxed);
            now.insert(member.endpoint.id, count);
        }
        for (id, count) in &now {
            // One that is new has failed only since it is here.
            let before = self.connects.get(id).copied().unwrap_or(0);
            self.connect_errors += count.saturating_sub(before);
        }
        self.connects = now;
    }
}
