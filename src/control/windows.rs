//! The windows of every app and color, fed once a second from the workers' cells.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::time::Instant;

use crate::metrics::{Sample, Windows};
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
}

#[derive(Default)]
struct OfColor {
    /// Everything since start, as the cells say it.
    total: Sample,
    windows: Windows,
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
        });
        let covered = now - track.read_at;
        track.read_at = now;
        for color in Color::ALL {
            let of = &mut track.colors[color];
            of.count_connects(app, color);
            let mut total = Sample {
                connect_errors: of.connect_errors,
                ..Sample::default()
            };
            for service in &app.services {
                for lane in &service.pools[color].lanes {
                    total.add_worker(&lane.cells);
                }
            }
            let mut slice = total.since(&of.total);
            slice.covered = covered;
            of.windows.push(now, slice);
            of.total = total;
        }
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
