//! Which color a request goes to, and why. Pure: `forward` acts on it, `explain` prints it.

use std::sync::atomic::Ordering::Relaxed;

use super::preview::meant;
use super::rules::{Lack, holds};
use super::{AppRoute, Asked, Newcomer, PreviewKey, ServiceRoute, Untrusted};
use crate::config::RuleColor;
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
    /// A client that is to be told who it is.
    pub newcomer: Option<Newcomer>,
    /// Rules that had no answer for what the request holds.
    pub odd: u32,
}

impl Choice {
    const fn new(color: Color, why: Why) -> Self {
        Self {
            color,
            why,
            explicit: false,
            newcomer: None,
            odd: 0,
        }
    }

    /// The same through the explicit gates.
    const fn explicitly(self) -> Self {
        Self {
            explicit: true,
            ..self
        }
    }
}

/// Why a color was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// It is active and has everything.
    Active,
    /// The request means this color, and may.
    Meant,
    /// This rule sends it here.
    Rule {
        /// Its place among the app's rules, from 0.
        rule: usize,
    },
    /// This rule would send it to the other color, which has nothing healthy or is drained.
    RuleSpilled {
        /// Its place among the app's rules, from 0.
        rule: usize,
    },
    /// A share of the traffic is the candidate's, and this bucket fell so.
    Weight {
        /// The bucket, of 10,000.
        bucket: u32,
        /// Where the bucket is from.
        from: From,
        /// The candidate's share.
        weight: Weight,
    },
    /// The bucket was the candidate's, but it has nothing healthy.
    Spilled {
        /// The bucket, of 10,000.
        bucket: u32,
        /// Where the bucket is from.
        from: From,
    },
}

/// Where a bucket is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// The client's key: it is the same each time.
    Key,
    /// The sequence: there is no key.
    Sequence,
}

/// Why there is no color.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unavailable {
    /// Maintenance: 503 at once.
    Maintenance,
    /// A hold: wait, then start again.
    Held,
    /// It means a color, and may not: 403.
    Untrusted(Untrusted),
}

/// Step 2 of a request, drawing a bucket where one is needed.
///
/// # Errors
/// The app is in maintenance or held, or the request means a color that it may not.
pub fn choose(
    app: &AppRoute,
    service: &ServiceRoute,
    worker: usize,
    asked: &Asked<'_>,
    key: Option<&PreviewKey>,
    special: Special,
) -> Result<Choice, Unavailable> {
    let choice = choose_with(app, service, worker, asked, key, special, || {
        next_bucket(app, worker)
    });
    if let Ok(choice) = &choice {
        if matches!(choice.why, Why::Spilled { .. } | Why::RuleSpilled { .. }) {
            app.spilled.fetch_add(1, Relaxed);
        }
        if choice.odd > 0 {
            app.rule_errors.fetch_add(u64::from(choice.odd), Relaxed);
        }
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
    asked: &Asked<'_>,
    key: Option<&PreviewKey>,
    special: Special,
    draw: impl FnOnce() -> u32,
) -> Result<Choice, Unavailable> {
    let active = Choice::new(app.active, Why::Active);
    if special == Special::Verify {
        return Ok(Choice {
            explicit: app.hold.is_some(),
            ..active
        });
    }
    let meant = match (&app.preview, asked.door) {
        (None, None) => None,
        _ => meant(app, asked, key).map_err(Unavailable::Untrusted)?,
    };
    if let Some(color) = meant
        && color != app.active
    {
        // On purpose: neither a hold nor maintenance is meant for those who look at the other color.
        return Ok(Choice::new(color, Why::Meant).explicitly());
    }
    if app.maintenance.is_some() {
        return Err(Unavailable::Maintenance);
    }
    if app.hold.is_some() {
        // A load balancer in front must not take a hold for a failure.
        return if service.health_path.as_deref() == Some(asked.path()) {
            Ok(active.explicitly())
        } else {
            Err(Unavailable::Held)
        };
    }
    if meant.is_some() {
        return Ok(Choice {
            why: Why::Meant,
            ..active
        });
    }
    let mut odd = 0;
    if !app.rules.is_empty()
        && let Some(choice) = ruled(app, service, worker, asked, &mut odd)
    {
        return Ok(Choice { odd, ..choice });
    }
    if app.weight == Weight::ZERO {
        return Ok(Choice { odd, ..active });
    }
    Ok(Choice {
        odd,
        ..split(app, service, worker, asked, draw)
    })
}

/// The first rule that holds; `odd` counts those that had no answer.
fn ruled(
    app: &AppRoute,
    service: &ServiceRoute,
    worker: usize,
    asked: &Asked<'_>,
    odd: &mut u32,
) -> Option<Choice> {
    for (rule, of) in app.rules.iter().enumerate() {
        match holds(of, asked) {
            Ok(true) => {}
            Ok(false) | Err(Lack::Missing) => continue,
            Err(Lack::Odd(_)) => {
                *odd += 1;
                continue;
            }
        }
        let candidate = app.weight > Weight::ZERO;
        let color = match of.color {
            RuleColor::Blue => Color::Blue,
            RuleColor::Green => Color::Green,
            RuleColor::Active => app.active,
            RuleColor::Candidate if candidate => app.active.other(),
            RuleColor::Candidate => continue,
        };
        let choice = Choice::new(color, Why::Rule { rule });
        let lane = &service.pools[color].lanes[worker];
        return Some(if color == app.active {
            choice
        } else if !lane.has_usable() || !lane.takes_explicit() {
            Choice::new(app.active, Why::RuleSpilled { rule })
        } else if candidate {
            choice
        } else {
            choice.explicitly()
        });
    }
    None
}

fn split(
    app: &AppRoute,
    service: &ServiceRoute,
    worker: usize,
    asked: &Asked<'_>,
    draw: impl FnOnce() -> u32,
) -> Choice {
    let (bucket, from) = match app.affinity.bucket(asked) {
        Some(bucket) => (bucket, From::Key),
        None => (draw(), From::Sequence),
    };
    let newcomer = (from == From::Sequence && app.affinity.introduces()).then(|| Newcomer {
        bucket,
        salt: app.affinity.salt,
        secure: asked.is_https(),
    });
    let weight = app.weight;
    let why = Why::Weight { bucket, from, weight };
    let candidate = app.active.other();
    let choice = if !is_candidate(bucket, weight) {
        Choice::new(app.active, why)
    } else if service.pools[candidate].lanes[worker].has_usable() {
        Choice::new(candidate, why)
    } else {
        Choice::new(app.active, Why::Spilled { bucket, from })
    };
    Choice { newcomer, ..choice }
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
