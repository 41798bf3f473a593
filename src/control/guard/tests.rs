//! What the guard's conditions do over time, on simulated traffic: seeds, no clock.

#![allow(clippy::unwrap_used, reason = "a test panics to fail")]

use std::time::Duration;

use tokio::time::Instant;

use super::judge::{Figures, Sides, Watchdog, ask, lately};
use super::{BEFORE, WINDOW};
use crate::config::{Guard, WINDOW_WORDS};
use crate::expr::Condition;
use crate::metrics::{Mirrored, PoolCells, Sample, Windows};
use crate::rollout::Baseline;

fn guard(lines: &str) -> Guard {
    let text = format!(
        "[[listener]]\naddress = \"127.0.0.1:0\"\n[app.web]\nblue = [\"127.0.0.1:1\"]\ngreen = [\"127.0.0.1:2\"]\n\
         [app.web.guard]\n{lines}"
    );
    let config = crate::config::parse(&text, "test.toml", &|_| None).unwrap();
    config.apps["web"].policy.guard.clone()
}

fn figures(requests: u64, errors: u64, p95: Option<f64>) -> Figures {
    Figures {
        requests,
        errors,
        p50: p95.map(|time| time / 2.0),
        p95,
        p99: p95.map(|time| time * 2.0),
        timed: requests,
        rps: requests as f64 / 60.0,
        weight: 100,
        covered: WINDOW,
        ..Figures::default()
    }
}

fn sides(candidate: Figures, baseline: Figures) -> Sides {
    Sides {
        app: candidate.clone(),
        candidate,
        baseline,
        ..Sides::default()
    }
}

fn condition(source: &str) -> Condition {
    Condition::compile(source, WINDOW_WORDS).unwrap()
}

#[test]
fn a_condition_counts_when_it_held_often_enough_in_a_row() {
    let guard = guard("");
    let mut dog = Watchdog::default();
    let bad = sides(figures(1000, 300, Some(0.1)), figures(1000, 5, Some(0.1)));
    let good = sides(figures(1000, 5, Some(0.1)), figures(1000, 5, Some(0.1)));
    assert!(dog.evaluate(&guard, &bad).trip.is_none());
    assert!(dog.evaluate(&guard, &bad).trip.is_none());
    assert!(dog.evaluate(&guard, &good).trip.is_none());
    for _ in 0..2 {
        assert!(dog.evaluate(&guard, &bad).trip.is_none());
    }
    let round = dog.evaluate(&guard, &bad);
    let why = round.trip.unwrap();
    assert!(why.contains("candidate.error_rate 0.3 (n 1000 in 60 s)"), "{why}");
    assert!(
        why.contains("fail 3 of 3") && why.contains("candidate.error_rate > 0.05"),
        "{why}"
    );
}

#[test]
fn a_service_that_few_ask_for_is_not_lost_in_the_rest() {
    let guard = guard("");
    let service = |candidate, baseline| vec![("api".to_owned(), sides(candidate, baseline))];
    let well = sides(figures(6000, 60, Some(0.1)), figures(6000, 60, Some(0.1)));
    let evaluate = |dog: &mut Watchdog, services: &[(String, Sides)]| {
        let mut round = dog.evaluate(&guard, &well);
        assert_eq!(round.trip, None, "all of it is well");
        dog.evaluate_services(&guard, services, &mut round);
        round
    };
    for (candidate, baseline, trips) in [
        // Nearly all fails: as few as anywhere will do.
        (figures(60, 60, None), figures(60, 0, None), true),
        (figures(40, 40, None), figures(60, 0, None), false),
        // Some fail: not believed of a few.
        (figures(100, 10, None), figures(1000, 0, None), false),
        (figures(600, 60, None), figures(1000, 0, None), true),
        // It has always been so.
        (figures(600, 60, None), figures(1000, 90, None), false),
        (figures(600, 0, Some(0.9)), figures(1000, 0, Some(0.3)), true),
        // It has always been slow.
        (figures(600, 0, Some(0.9)), figures(1000, 0, Some(0.8)), false),
    ] {
        let mut dog = Watchdog::default();
        let services = service(candidate.clone(), baseline);
        for _ in 0..2 {
            assert_eq!(evaluate(&mut dog, &services).trip, None);
        }
        let round = evaluate(&mut dog, &services);
        assert_eq!(round.trip.is_some(), trips, "{candidate:?}: {}", round.text);
        assert!(!trips || round.trip.unwrap().starts_with("service api: `candidate."));
    }
    // Counts are of the app as a whole.
    let whole = self::guard("rollback_when = ['candidate.requests > 10 && candidate.error_rate > 0.5']");
    let mut round = Watchdog::default().evaluate(&whole, &well);
    let before = round.clone();
    Watchdog::default().evaluate_services(
        &whole,
        &service(figures(900, 900, None), figures(9, 0, None)),
        &mut round,
    );
    assert_eq!(round, before);
}

#[test]
fn too_few_requests_are_no_verdict_and_zero_traffic_trips_nothing() {
    let guard = guard("");
    let mut dog = Watchdog::default();
    for _ in 0..10 {
        let round = dog.evaluate(
            &guard,
            &sides(figures(49, 49, Some(9.0)), figures(1000, 0, Some(0.1))),
        );
        assert_eq!(
            (round.trip, round.lacks.unwrap().as_str()),
            (None, "candidate has 49 of 50 requests")
        );
        let round = dog.evaluate(&guard, &Sides::default());
        assert!(round.trip.is_none() && round.lacks.unwrap().contains("0 of 50"));
    }
    // Without a baseline an error rate still says something; a latency does not.
    let round = dog.evaluate(&guard, &sides(figures(1000, 300, Some(9.0)), Figures::default()));
    assert!(round.text.contains("fail 1 of 3") && round.lacks.unwrap().contains("baseline has 0 of 50"));
}

#[test]
fn counts_and_weights_need_no_minimum() {
    let few = sides(figures(3, 0, None), figures(600, 0, None));
    let mut refused = figures(0, 0, None);
    refused.connect_errors = 7;
    let refused = sides(refused, Figures::default());
    for (source, sides, holds) in [
        ("candidate.connect_errors > 5", &refused, Some(true)),
        ("candidate.weight < 10", &few, Some(false)),
        ("candidate.rps < 0.8 * baseline.rps", &few, Some(true)),
        ("candidate.requests < 10", &few, Some(true)),
        ("candidate.rate_4xx > 0.5", &few, None),
    ] {
        assert_eq!(ask(&condition(source), sides, 50).holds, holds, "{source}");
    }
}

#[test]
fn what_the_standby_made_of_copies_can_be_asked_for() {
    let mut few = Sides::default();
    few.mirror.counts = Mirrored {
        same: 30,
        ..Mirrored::default()
    };
    let found = ask(&condition("mirror.difference_rate < 0.01"), &few, 50);
    assert_eq!(found.lacks.as_deref(), Some("mirror has 30 of 50 requests"));
    let mut many = Sides::default();
    many.mirror.counts = Mirrored {
        same: 90,
        different: 4,
        failed: 6,
        dropped: 1000,
        active_micros: 100,
        standby_micros: 250,
    };
    for (source, holds) in [
        ("mirror.requests == 100 && mirror.failed == 6", true),
        (
            "mirror.difference_rate < 0.05 && mirror.failure_rate > 0.05",
            true,
        ),
        ("mirror.slowdown < 2.0", false),
    ] {
        let found = ask(&condition(source), &many, 50);
        assert_eq!(found.holds, Some(holds), "{source}: {}", found.values);
    }
    assert!(
        ask(&condition("mirror.slowdown < 2.0"), &many, 50)
            .values
            .contains("mirror.slowdown 2.5 (n 100")
    );
}

/// vcci (systems.md): below 10 % of traffic drop green; 10 to 50 % roll back at once; above that roll back, else
/// hotfix: the guard's rollback, which says so when it is blocked.
#[test]
fn the_decision_tree_of_vcci_is_expressible() {
    let guard = guard(
        "rollback_when = ['candidate.weight < 10 && candidate.error_rate > 0.02', \
         'candidate.weight >= 10 && candidate.weight <= 50 && candidate.error_rate > 0.05', \
         'candidate.weight > 50 && candidate.error_rate > 0.1']\nevaluations = 1",
    );
    for (weight, errors, trips) in [
        (5, 30, true),
        (5, 10, false),
        (30, 30, false),
        (30, 60, true),
        (100, 60, false),
        (100, 110, true),
    ] {
        let mut candidate = figures(1000, errors, Some(0.1));
        candidate.weight = weight;
        let round = Watchdog::default().evaluate(&guard, &sides(candidate, figures(1000, 0, Some(0.1))));
        assert_eq!(round.trip.is_some(), trips, "{weight} %, {errors} of 1000");
    }
}

/// mina (systems.md): back when errors exceed 5 % or responses take twice as long; warn above 3 % and above 1 s;
/// the active users must not drop by more than a fifth.
#[test]
fn the_thresholds_of_mina_are_expressible() {
    let guard = guard(
        "rollback_when = ['candidate.error_rate > 0.05', 'candidate.p95 > 2.0 * baseline.p95', \
         'candidate.rps < 0.8 * baseline.rps']\n\
         warn_when = ['candidate.error_rate > 0.03', 'candidate.p95 > 1.0']\nevaluations = 2",
    );
    let normal = || figures(1000, 2, Some(0.4));
    let mut slow_users = figures(700, 2, Some(0.4));
    slow_users.rps = 700.0 / 60.0;
    for (candidate, trips, warns) in [
        (figures(1000, 60, Some(0.4)), true, true),
        (figures(1000, 40, Some(0.4)), false, true),
        (figures(1000, 2, Some(0.81)), true, false),
        (figures(1000, 2, Some(0.79)), false, false),
        (figures(1000, 2, Some(1.1)), true, true),
        (slow_users, true, false),
        (normal(), false, false),
    ] {
        let mut dog = Watchdog::default();
        let sides = sides(candidate, normal());
        dog.evaluate(&guard, &sides);
        let round = dog.evaluate(&guard, &sides);
        assert_eq!(
            (round.trip.is_some(), !round.warn.is_empty()),
            (trips, warns),
            "{}",
            round.text
        );
        // A warning is said once, not at every evaluation.
        assert!(dog.evaluate(&guard, &sides).warn.is_empty());
    }
}

// --- a thousand bakes --------------------------------------------------------------------------------------------

/// xorshift64*: the same bakes every time.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// About normal: twelve coins.
    fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.unit()).sum::<f64>() - 6.0
    }
}

/// What one second of a traffic is like.
#[derive(Clone, Copy)]
struct Traffic {
    rps: f64,
    errors: f64,
    /// The median, in seconds.
    median: f64,
    /// How far latencies scatter (log-normal).
    spread: f64,
}

/// Seconds of one kind, to draw from: making each of a million anew would only take time.
fn seconds(random: &mut Random, traffic: Traffic, count: usize) -> Vec<Sample> {
    (0..count)
        .map(|_| {
            let cells = PoolCells::default();
            // Bursts: the rate of a second scatters by a third.
            let requests = (traffic.rps * (1.0 + random.normal() / 3.0)).max(0.0).round() as u64;
            for _ in 0..requests {
                let latency = traffic.median * (traffic.spread * random.normal()).exp();
                let failed = random.unit() < traffic.errors;
                cells.finished(
                    &http::Method::GET,
                    if failed { 500 } else { 200 },
                    Duration::from_secs_f64(latency),
                );
                if failed {
                    cells.upstream_errors.add(1);
                }
            }
            let mut sample = Sample::default();
            sample.add_worker(&cells);
            sample.covered = Duration::from_secs(1);
            sample
        })
        .collect()
}

/// One bake of five minutes; the second at which the guard went back.
fn bake(
    guard: &Guard,
    random: &mut Random,
    before: &[Sample],
    after: &dyn Fn(u64) -> usize,
    kinds: &[Vec<Sample>],
) -> Option<u64> {
    let start = Instant::now();
    let draw = |random: &mut Random, from: &[Sample]| from[random.next() as usize % from.len()].clone();
    let mut outgoing = Windows::default();
    for second in 1..=BEFORE.as_secs() {
        outgoing.push(start + Duration::from_secs(second), draw(random, before));
    }
    let seen = outgoing.over(start + BEFORE, BEFORE, None);
    let baseline = Figures::of_baseline(&Baseline {
        covered: seen.covered,
        requests: seen.requests(),
        errors: seen.errors(),
        client_errors: 0,
        connect_errors: 0,
        p50: seen.quantile(0.5),
        p95: seen.quantile(0.95),
        p99: seen.quantile(0.99),
    });
    let mut windows = Windows::default();
    let mut dog = Watchdog::default();
    for second in 1..=300 {
        let now = start + Duration::from_secs(second);
        windows.push(now, draw(random, &kinds[after(second)]));
        if second % 5 != 0 {
            continue;
        }
        let timed = windows.over(now, WINDOW, Some(start + guard.grace));
        let own = Figures::of(&windows.over(now, WINDOW, Some(start)), &timed, 100);
        let lately = |since| windows.over(now, lately(guard), Some(since));
        let now = Figures::of(&lately(start), &lately(start + guard.grace), 100);
        let (own, now) = (sides(own, baseline.clone()), sides(now, baseline.clone()));
        if dog.evaluate_both(guard, &own, &now).trip.is_some() {
            return Some(second);
        }
    }
    None
}

/// The traffic assumed: 20 to 200 requests a second with bursts of a third, 0.1 to 2 % errors, log-normal latencies
/// with a median of 5 to 200 ms, which in a healthy candidate is up to a quarter slower than before.
const RATES: [f64; 3] = [20.0, 60.0, 200.0];

fn bakes() -> usize {
    // Each takes some milliseconds unoptimised; all of them where all of it is wanted.
    match std::env::var("CUTOVER_E2E").as_deref() {
        Ok("full") => 1000,
        _ => 300,
    }
}

#[test]
fn no_healthy_candidate_is_taken_back_and_no_bad_one_is_missed() {
    let guard = guard("");
    let mut random = Random(0x5eed_0001);
    let (mut healthy, mut false_alarms, mut bad, mut missed) = (0, 0, 0, 0);
    let rounds = bakes() / (RATES.len() * 4) + 1;
    for rps in RATES {
        for (errors, median) in [(0.001, 0.005), (0.005, 0.05), (0.02, 0.02), (0.01, 0.2)] {
            let traffic = Traffic {
                rps,
                errors,
                median,
                spread: 0.6,
            };
            let slower = Traffic {
                median: median * 1.25,
                ..traffic
            };
            let failing = Traffic {
                errors: 0.15,
                ..traffic
            };
            let slow = Traffic {
                median: median * 3.0 + 0.25,
                ..traffic
            };
            let kinds: Vec<Vec<Sample>> = [traffic, slower, failing, slow]
                .map(|kind| seconds(&mut random, kind, (2000.0 / rps) as usize + 40))
                .into();
            for _ in 0..rounds {
                for as_before in [0, 1] {
                    healthy += 1;
                    false_alarms +=
                        usize::from(bake(&guard, &mut random, &kinds[0], &|_| as_before, &kinds).is_some());
                }
                // Bad at once, bad after two minutes, and slow after one.
                for (kind, from) in [(2, 0), (2, 120), (3, 60)] {
                    bad += 1;
                    let after = |second: u64| if second > from { kind } else { 0 };
                    let tripped = bake(&guard, &mut random, &kinds[0], &after, &kinds);
                    missed += usize::from(tripped.is_none_or(|second| second <= from));
                }
            }
        }
    }
    assert_eq!(false_alarms, 0, "of {healthy} healthy bakes");
    assert!(missed * 1000 <= bad, "{missed} of {bad} bad ones were missed");
}

#[test]
fn a_burst_of_errors_at_200_a_second_trips_with_the_third_evaluation() {
    let guard = guard("");
    let mut random = Random(7);
    let fine = Traffic {
        rps: 200.0,
        errors: 0.001,
        median: 0.02,
        spread: 0.5,
    };
    let kinds: Vec<Vec<Sample>> = [fine, Traffic { errors: 0.3, ..fine }]
        .map(|kind| seconds(&mut random, kind, 60))
        .into();
    let bound = u64::from(guard.evaluations) * guard.every.as_secs();
    let tripped = bake(&guard, &mut random, &kinds[0], &|_| 1, &kinds).unwrap();
    assert_eq!(tripped, bound);
    // Also when it was well for minutes: what was good does not thin out what is bad now.
    for turns in 100..105 {
        let after = |second: u64| usize::from(second > turns);
        let tripped = bake(&guard, &mut random, &kinds[0], &after, &kinds).unwrap();
        assert!(
            tripped > turns && tripped - turns <= bound + 1,
            "{turns}: {tripped}"
        );
    }
}

#[test]
fn a_cold_start_is_no_regression() {
    let guard = guard("");
    let mut random = Random(11);
    let warm = Traffic {
        rps: 60.0,
        errors: 0.001,
        median: 0.05,
        spread: 0.5,
    };
    let kinds: Vec<Vec<Sample>> = [warm, Traffic { median: 1.5, ..warm }]
        .map(|kind| seconds(&mut random, kind, 100))
        .into();
    let cold_for = |seconds: u64| move |second: u64| usize::from(second <= seconds);
    assert_eq!(bake(&guard, &mut random, &kinds[0], &cold_for(29), &kinds), None);
    assert!(bake(&guard, &mut random, &kinds[0], &cold_for(120), &kinds).is_some());
}
