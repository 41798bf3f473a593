//! The guard: after every switch it watches the new color, and goes back by itself when its conditions say so.
//!
//! A bake is stored with the state that began it, so a restart goes on with it. What the guard finds is written down
//! at each evaluation; what it does is a [`Change`] like any other, through the one controller.

pub(crate) mod copies;
pub(crate) mod judge;
#[cfg(test)]
mod tests;

use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::time::Instant;

use super::controller::{Controller, Insistence, itself};
use super::view::EventKind;
use crate::config::{self, WithoutData};
use crate::metrics::{SwitchResult, WINDOW_MAX};
use crate::rollout::{AppState, Bake, BakePhase, Baseline, Change, Color, Command, Rollout, Trigger, Watch};
use judge::{Figures, Round, Sides, Watchdog, ask, lately};

/// The window of rates and latencies, where it has enough requests; else all since the switch.
pub(super) const WINDOW: Duration = Duration::from_secs(60);

/// How long before a switch the outgoing color is looked at; the half hour, when that has too few requests.
const BEFORE: Duration = Duration::from_secs(300);

/// The guard of one app, while its bake runs.
pub(super) struct Guarding {
    of: u64,
    /// When this process began to watch.
    since: Instant,
    /// How long another process had watched before.
    already: Duration,
    watchdog: Watchdog,
    /// The candidate was healthy at some time: losing that trips.
    was_healthy: bool,
}

/// What has given a color traffic.
enum Watched {
    /// A switch: the bake's name, and the color.
    Bake(u64, Color),
    /// A step of a rollout.
    Rollout(Box<Rollout>),
}

impl Watched {
    fn to(&self) -> Color {
        match self {
            Self::Bake(_, to) => *to,
            Self::Rollout(rollout) => rollout.to,
        }
    }
}

impl Guarding {
    fn watched(&self) -> Duration {
        self.already + self.since.elapsed()
    }
}

impl Controller {
    fn guard_of(&self, app: &str) -> Option<config::Guard> {
        let config = self.config.borrow();
        config.apps.get(app).map(|of| of.policy.guard.clone())
    }

    /// What a switch away from the active color is to be watched by; `None` without a guard.
    pub(super) fn watch_after(&self, app: &str, state: &AppState) -> Option<Watch> {
        let guard = self.guard_of(app).filter(|guard| !guard.bake.is_zero())?;
        let mut sampler = self.sampler.borrow_mut();
        if let Some(route) = self.published.load_full().app(app) {
            sampler.read(route, Instant::now());
        }
        let mut before = sampler.over(app, state.active, BEFORE, None);
        if before.requests() < guard.min_requests {
            before = sampler.over(app, state.active, WINDOW_MAX, None);
        }
        Some(Watch {
            length: guard.bake,
            baseline: Baseline {
                covered: before.covered,
                requests: before.requests(),
                errors: before.errors(),
                client_errors: before.client_errors,
                connect_errors: before.connect_errors,
                p50: before.quantile(0.5),
                p95: before.quantile(0.95),
                p99: before.quantile(0.99),
            },
        })
    }

    /// Watch, if the state says that a bake runs which is not watched yet: after a switch, or after a restart.
    pub(super) fn guard(self: &Rc<Self>, app: &str) {
        let begun = self.with_slot(app, |slot| {
            let bake = slot.state.bake.as_ref().filter(|bake| bake.phase.runs());
            let Some(bake) = bake else {
                slot.guarding = None;
                return None;
            };
            if slot
                .guarding
                .as_ref()
                .is_some_and(|guarding| guarding.of == bake.of)
            {
                return None;
            }
            let (of, to) = (bake.of, bake.to);
            slot.guarding = Some(Guarding {
                of,
                since: Instant::now(),
                already: bake.watched,
                watchdog: Watchdog::default(),
                was_healthy: false,
            });
            Some((of, to))
        });
        let Ok(Some((of, to))) = begun else { return };
        let healthy = self.known(app, to).healthy;
        let _ = self.with_slot(app, |slot| {
            if let Some(guarding) = &mut slot.guarding {
                guarding.was_healthy = healthy;
            }
        });
        let (own, app) = (Rc::clone(self), app.to_owned());
        tokio::task::spawn_local(async move { own.bake(&app, of).await });
    }

    async fn bake(self: &Rc<Self>, app: &str, of: u64) {
        while let Some(left) = self.until_next(app, of) {
            tokio::time::sleep(left).await;
            self.evaluate(app, of).await;
        }
    }

    /// The running bake with this name, and its guard's settings.
    fn running(&self, app: &str, of: u64) -> Option<(Bake, config::Guard)> {
        let bake = self.with_slot(app, |slot| slot.state.bake.clone()).ok()??;
        let guard = self.guard_of(app)?;
        (bake.of == of && bake.phase.runs()).then_some((bake, guard))
    }

    /// How long until the next evaluation: one is at the very end.
    fn until_next(&self, app: &str, of: u64) -> Option<Duration> {
        let (bake, guard) = self.running(app, of)?;
        let watched = self
            .with_slot(app, |slot| slot.guarding.as_ref().map(Guarding::watched))
            .ok()??;
        let left = bake.length.saturating_sub(watched);
        Some(if left.is_zero() {
            guard.every
        } else {
            guard.every.min(left)
        })
    }

    async fn evaluate(self: &Rc<Self>, app: &str, of: u64) {
        let Some((bake, guard)) = self.running(app, of) else {
            return;
        };
        let (sides, lately) = self.sides_after(app, &bake, &guard);
        let healthy = self.known(app, bake.to).healthy;
        let services = self.sides_of_services(app, &bake, &guard);
        let judged = self.with_slot(app, |slot| {
            let guarding = slot.guarding.as_mut().filter(|guarding| guarding.of == of)?;
            guarding.was_healthy |= healthy;
            let mut round = guarding.watchdog.evaluate_both(&guard, &sides, &lately);
            guarding.watchdog.evaluate_services(&guard, &services, &mut round);
            Some((round, guarding.watched()))
        });
        let Ok(Some((round, watched))) = judged else {
            return;
        };
        // Health that only a gate has seen, and that is gone again, was never told as a change.
        self.health_under_guard(app, bake.to);
        for warning in &round.warn {
            tracing::warn!(app, warning, "guard");
            self.tell(
                EventKind::Guard,
                Some(app),
                None,
                format!("{app}: {} is watched: {warning}", bake.to),
            );
        }
        self.metrics.gate(app, "guard", verdict_of(&round));
        if let Some(why) = &round.trip {
            self.go_back(app, of, why).await;
        } else if watched >= bake.length {
            self.bake_over(app, &bake, &guard, &round, watched).await;
        } else {
            self.write_down(
                app,
                Change::Watched {
                    of,
                    watched,
                    end: None,
                },
                &round.text,
            )
            .await;
        }
    }

    /// The end of the time: passed, or nobody can say.
    async fn bake_over(
        self: &Rc<Self>,
        app: &str,
        bake: &Bake,
        guard: &config::Guard,
        round: &Round,
        watched: Duration,
    ) {
        let of = bake.of;
        let lacks = self
            .lacked_all_along(app, bake, guard)
            .filter(|_| round.lacks.is_some());
        let (end, text) = match (lacks, guard.on_insufficient_data) {
            (None, _) => (BakePhase::Passed, round.text.clone()),
            (Some(why), WithoutData::Promote) => (
                BakePhase::Passed,
                format!("insufficient data ({why}) counts as passed; {}", round.text),
            ),
            (Some(why), WithoutData::Stay) => {
                let text = format!(
                    "insufficient data: {why}; traffic stays, {} stays warm; {}",
                    bake.from, round.text
                );
                (BakePhase::Insufficient, text)
            }
            (Some(why), WithoutData::Rollback) => {
                return self
                    .go_back(app, of, &format!("insufficient data at the end: {why}"))
                    .await;
            }
        };
        let end = Some(end);
        self.write_down(app, Change::Watched { of, watched, end }, &text)
            .await;
    }

    /// What some condition lacks even over all the time since the switch.
    fn lacked_all_along(&self, app: &str, bake: &Bake, guard: &config::Guard) -> Option<String> {
        let since = self
            .with_slot(app, |slot| slot.guarding.as_ref().map(|guarding| guarding.since))
            .ok()??;
        let sides = self.sides(app, bake, WINDOW_MAX, since, since);
        guard
            .rollback_when
            .iter()
            .find_map(|condition| ask(condition, &sides, guard.min_requests).lacks)
    }

    /// The two sides of a bake: the last minute of the new color, or all since the switch when that is little; and the
    /// time since the last evaluation.
    fn sides_after(&self, app: &str, bake: &Bake, guard: &config::Guard) -> (Sides, Sides) {
        let guarding = self.with_slot(app, |slot| {
            slot.guarding
                .as_ref()
                .map(|guarding| (guarding.since, guarding.already))
        });
        let (since, already) = guarding
            .ok()
            .flatten()
            .unwrap_or((Instant::now(), Duration::ZERO));
        let grace = guard.grace.saturating_sub(already);
        let now = self.sides(app, bake, lately(guard), since, since + grace);
        let sides = self.sides(app, bake, WINDOW, since, since + grace);
        if sides.candidate.requests < guard.min_requests || sides.candidate.timed < guard.min_requests {
            return (self.sides(app, bake, WINDOW_MAX, since, since + grace), now);
        }
        (sides, now)
    }

    /// The two sides of each service, where the app has several: all since the switch, and before it as long as that is
    /// remembered. After a restart it is not, and then services are not judged by themselves.
    fn sides_of_services(&self, app: &str, bake: &Bake, guard: &config::Guard) -> Vec<(String, Sides)> {
        let since = self.with_slot(app, |slot| {
            let guarding = slot.guarding.as_ref()?;
            guarding.already.is_zero().then_some(guarding.since)
        });
        let Ok(Some(since)) = since else { return Vec::new() };
        let weight = self.with_slot(app, |slot| slot.state.share(bake.to)).unwrap_or(0);
        let sampler = self.sampler.borrow();
        let of_one = |service: String| {
            let of = (app, service.as_str());
            let own = sampler.over_service(of, bake.to, WINDOW_MAX, Some(since));
            let timed = sampler.over_service(of, bake.to, WINDOW_MAX, Some(since + guard.grace));
            let before = sampler.over_service(of, bake.from, WINDOW_MAX, None);
            let sides = Sides {
                candidate: Figures::of(&own, &timed, weight),
                baseline: Figures::of(&before, &before, 100),
                ..Sides::default()
            };
            (service, sides)
        };
        sampler.services(app).into_iter().map(of_one).collect()
    }

    fn sides(&self, app: &str, bake: &Bake, span: Duration, since: Instant, timed_since: Instant) -> Sides {
        let weight = self.with_slot(app, |slot| slot.state.share(bake.to)).unwrap_or(0);
        let sampler = self.sampler.borrow();
        let own = sampler.over(app, bake.to, span, Some(since));
        let timed = sampler.over(app, bake.to, span, Some(timed_since));
        let mut both = own.clone();
        let mut other = sampler.over(app, bake.from, span, Some(since));
        other.covered = Duration::ZERO;
        both.add(&other);
        Sides {
            candidate: Figures::of(&own, &timed, weight),
            baseline: Figures::of_baseline(&bake.baseline),
            app: Figures::of(&both, &both, 100),
            mirror: sampler.copies(app),
        }
    }

    /// A connect failed somewhere: a color under guard may be gone.
    pub(super) fn alarmed(self: &Rc<Self>) {
        for (app, watched) in self.under_guard() {
            let limit = self.guard_of(&app).map_or(0, |guard| guard.connect_failures);
            if let Some(why) = self.gone(&app, watched.to(), limit) {
                self.trip(&app, watched, why);
            }
        }
    }

    /// Every color that has got traffic and may have it taken away again.
    fn under_guard(&self) -> Vec<(String, Watched)> {
        let apps = self.apps.borrow();
        let mut all = Vec::new();
        for (name, slot) in apps.iter() {
            let bake = slot.state.bake.as_ref().filter(|bake| bake.phase.runs());
            all.extend(bake.map(|bake| (name.clone(), Watched::Bake(bake.of, bake.to))));
            let rollout = slot.state.rollout.as_ref();
            let shifts = rollout.filter(|rollout| rollout.phase.runs() && rollout.at.is_some());
            all.extend(shifts.map(|rollout| (name.clone(), Watched::Rollout(Box::new(rollout.clone())))));
        }
        all
    }

    /// A service is gone when none of its endpoints takes connections.
    fn gone(&self, app: &str, to: Color, limit: u32) -> Option<String> {
        let table = self.published.load_full();
        let route = table.app(app).filter(|_| limit > 0)?;
        route.services.iter().find_map(|service| {
            let members = &service.pools[to].members;
            let failures = members
                .iter()
                .map(|member| member.endpoint.connect_failures.load(Relaxed));
            let (sum, least) = failures.fold((0, u32::MAX), |(sum, least), one| (sum + one, least.min(one)));
            (!members.is_empty() && least > 0 && sum >= limit).then(|| {
                format!(
                    "{sum} connects to service {} of {to} failed in a row (connect_failures = {limit})",
                    service.name
                )
            })
        })
    }

    /// An endpoint's health changed: a color under guard may have lost it.
    pub(super) fn health_under_guard(self: &Rc<Self>, app: &str, color: Color) {
        let bake = self.with_slot(app, |slot| slot.state.bake.clone()).ok().flatten();
        let Some(bake) = bake.filter(|bake| bake.phase.runs() && bake.to == color) else {
            return;
        };
        let facts = self.known(app, color);
        let lost = self.with_slot(app, |slot| {
            let guarding = slot.guarding.as_mut()?;
            guarding.was_healthy |= facts.healthy;
            (guarding.was_healthy && !facts.healthy).then_some(())
        });
        if matches!(lost, Ok(Some(()))) {
            let why = format!("{color} has lost its health: {}", facts.refusals.join("; "));
            self.trip(app, Watched::Bake(bake.of, color), why);
        }
    }

    fn trip(self: &Rc<Self>, app: &str, watched: Watched, why: String) {
        let (own, app) = (Rc::clone(self), app.to_owned());
        tokio::task::spawn_local(async move {
            match watched {
                Watched::Bake(of, _) => own.go_back(&app, of, &why).await,
                Watched::Rollout(rollout) => own.fail(&app, &rollout, &why, true).await,
            }
        });
    }

    /// Back to the color that was left; it is warm, so it is as quick as any switch.
    async fn go_back(self: &Rc<Self>, app: &str, of: u64, why: &str) {
        let begun = std::time::Instant::now();
        let Some((bake, _)) = self.running(app, of) else {
            return;
        };
        let facts = self.known(app, bake.from);
        let command = self.by_guard(app, Change::GuardBack { of, facts }, why);
        // Traffic first: a disk that refuses keeps nobody on a color that fails.
        let insist = Insistence {
            urgent: true,
            undurable: true,
            ..Insistence::default()
        };
        match self.change(command, insist).await {
            Ok(committed) if committed.applied.is_some() => {
                let moved = (bake.to, bake.from);
                self.metrics.switched(
                    app,
                    moved,
                    Trigger::Guard,
                    SwitchResult::RolledBack,
                    begun.elapsed(),
                );
                self.metrics.guard_rolled_back(app);
                tracing::warn!(app, why, "the guard took the switch back");
            }
            Ok(_) => {}
            Err(error) => tracing::error!(app, %error, why, "the guard could not take the switch back"),
        }
    }

    fn by_guard(&self, app: &str, change: Change, why: &str) -> Command {
        Command {
            app: app.to_owned(),
            change,
            expect_generation: None,
            by: itself("guard", Trigger::Guard),
            reason: why.to_owned(),
            idempotency_key: None,
        }
    }

    /// A note in the journal. When it cannot be stored nothing waits for it: the next one says more.
    async fn write_down(self: &Rc<Self>, app: &str, change: Change, text: &str) {
        let command = self.by_guard(app, change, text);
        if let Err(error) = self.change(command, Insistence::default()).await {
            tracing::warn!(app, %error, "what the guard found was not stored");
        }
    }
}

fn verdict_of(round: &Round) -> i64 {
    match (&round.trip, &round.lacks) {
        (Some(_), _) => 0,
        (None, Some(_)) => -1,
        (None, None) => 1,
    }
}
