//! Which color a request goes to, and why. Pure: `forward` acts on it, `explain` prints it.

use std::sync::atomic::Ordering::Relaxed;

use super::{AppRoute, ServiceRoute};
use crate::rollout::{Color, Phase, Weight, is_candidate};

/// What makes a request special.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Special {
    /// Nothing: an ordinary request.
    #[default]
    None,
    /// The proof after a switch: skips hold and maintenance.
    Verify,
}

/// The color chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The color.
    pub color: Color,
    /// Why this one.
    pub why: Why,
    /// Go through the explicit gates: the ordinary ones are closed by a hold.
    pub explicit: bool,
}

/// Why a color was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// It is active and has everything.
    Active,
    /// A share of the traffic is the candidate's, and this bucket fell so.
    Weight {
        /// The bucket, of 10,000.
        bucket: u32,
        /// The candidate's share.
        weight: Weight,
    },
    /// The bucket was the candidate's, but it has nothing healthy.
    Spilled {
        /// The bucket, of 10,000.
        bucket: u32,
    },
}

/// Why there is no color.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unavailable {
    /// Maintenance: 503 at once.
    Maintenance,
    /// A hold: wait, then start again.
    Held,
}

/// Step 2 of a request, drawing a bucket where one is needed.
///
/// # Errors
/// The app is in maintenance or held.
pub fn choose(
    app: &AppRoute,
    service: &ServiceRoute,
    worker: usize,
    path: &str,
    special: Special,
) -> Result<Choice, Unavailable> {
    let choice = choose_with(app, service, worker, path, special, || next_bucket(app, worker));
    if let Ok(Choice {
        why: Why::Spilled { .. },
        ..
    }) = choice
    {
        app.spilled.fetch_add(1, Relaxed);
    }
    choice
}

/// The same with a bucket from elsewhere, and nothing counted: for `explain`.
///
/// # Errors
/// As [`choose`].
pub fn choose_with(
    app: &AppRoute,
    service: &ServiceRoute,
    worker: usize,
    path: &str,
    special: Special,
    bucket: impl FnOnce() -> u32,
) -> Result<Choice, Unavailable> {
    let active = |explicit| {
        Ok(Choice {
            color: app.active,
            why: Why::Active,
            explicit,
        })
    };
    if special == Special::Verify {
        return active(app.hold.is_some());
    }
    if app.maintenance.is_some() {
        return Err(Unavailable::Maintenance);
    }
    if app.hold.is_some() {
        // A load balancer in front must not take a hold for a failure.
        return if service.health_path.as_deref() == Some(path) {
            active(true)
        } else {
            Err(Unavailable::Held)
        };
    }
    if app.weight == Weight::ZERO {
        return active(false);
    }
    Ok(split(app, service, worker, bucket()))
}

fn split(app: &AppRoute, service: &ServiceRoute, worker: usize, bucket: u32) -> Choice {
    if !is_candidate(bucket, app.weight) {
        return Choice {
            color: app.active,
            why: Why::Weight {
                bucket,
                weight: app.weight,
            },
            explicit: false,
        };
    }
    let candidate = app.active.other();
    if service.pools[candidate].lanes[worker].has_usable() {
        return Choice {
            color: candidate,
            why: Why::Weight {
                bucket,
                weight: app.weight,
            },
            explicit: false,
        };
    }
    Choice {
        color: app.active,
        why: Why::Spilled { bucket },
        explicit: false,
    }
}

fn next_bucket(app: &AppRoute, worker: usize) -> u32 {
    let Some(point) = app.phases.get(worker) else {
        return 0;
    };
    let mut phase = Phase::at(point.get());
    let bucket = phase.next_bucket();
    point.set(phase.point());
    bucket
}

/// The bucket that a worker would draw next, left where it is.
#[must_use]
pub fn peek_bucket(app: &AppRoute, worker: usize) -> u32 {
    app.phases
        .get(worker)
        .map_or(0, |point| Phase::at(point.get()).next_bucket())
}
