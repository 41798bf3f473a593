//! Conditions over windows: what they say, how sure that is, and when it is enough to act. Pure.

use std::collections::HashMap;
use std::fmt::Write;
use std::time::Duration;

use cel::Value;

use super::copies::Copies;
use crate::config::Guard;
use crate::control::windows::TICK;
use crate::expr::{Condition, NoAnswer};
use crate::metrics::Sample;
use crate::rollout::Baseline;

/// What conditions know of one color.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Figures {
    pub requests: u64,
    pub errors: u64,
    pub client_errors: u64,
    pub connect_errors: u64,
    pub rps: f64,
    pub weight: u8,
    /// In seconds, with the number of requests that they are of.
    pub p50: Option<f64>,
    pub p95: Option<f64>,
    pub p99: Option<f64>,
    pub timed: u64,
    /// The window.
    pub covered: Duration,
}

impl Figures {
    /// Of a window. Latencies may be of a shorter one.
    pub(crate) fn of(sample: &Sample, latencies: &Sample, weight: u8) -> Self {
        let seconds = |q| latencies.quantile(q).map(|time| time.as_secs_f64());
        Self {
            requests: sample.requests(),
            errors: sample.errors(),
            client_errors: sample.client_errors,
            connect_errors: sample.connect_errors,
            rps: sample.rps(),
            weight,
            p50: seconds(0.5),
            p95: seconds(0.95),
            p99: seconds(0.99),
            timed: latencies.requests(),
            covered: sample.covered,
        }
    }

    /// Of what was kept of the color that a switch left.
    pub(crate) fn of_baseline(kept: &Baseline) -> Self {
        let seconds = |time: Option<Duration>| time.map(|time| time.as_secs_f64());
        let covered = kept.covered.as_secs_f64();
        Self {
            requests: kept.requests,
            errors: kept.errors,
            client_errors: kept.client_errors,
            connect_errors: kept.connect_errors,
            rps: if covered > 0.0 {
                kept.requests as f64 / covered
            } else {
                0.0
            },
            weight: 100,
            p50: seconds(kept.p50),
            p95: seconds(kept.p95),
            p99: seconds(kept.p99),
            timed: kept.requests,
            covered: kept.covered,
        }
    }

    fn share(&self, part: u64) -> f64 {
        if self.requests == 0 {
            0.0
        } else {
            (part as f64 / self.requests as f64).min(1.0)
        }
    }

    /// A field by the name that conditions have for it. Without requests there is no latency.
    fn field(&self, name: &str) -> Option<f64> {
        match name {
            "requests" => Some(self.requests as f64),
            "errors" => Some(self.errors as f64),
            "connect_errors" => Some(self.connect_errors as f64),
            "weight" => Some(f64::from(self.weight)),
            "rps" => Some(self.rps),
            "error_rate" => Some(self.share(self.errors)),
            "rate_4xx" => Some(self.share(self.client_errors)),
            "p50" => self.p50,
            "p95" => self.p95,
            "p99" => self.p99,
            _ => None,
        }
    }

    fn value(&self) -> Value {
        let mut fields: HashMap<String, Value> = HashMap::new();
        let whole = |number: u64| Value::Int(i64::try_from(number).unwrap_or(i64::MAX));
        for (name, number) in [
            ("requests", self.requests),
            ("errors", self.errors),
            ("connect_errors", self.connect_errors),
            ("weight", self.weight.into()),
        ] {
            fields.insert(name.to_owned(), whole(number));
        }
        for name in ["rps", "error_rate", "rate_4xx", "p50", "p95", "p99"] {
            if let Some(number) = self.field(name) {
                fields.insert(name.to_owned(), number.into());
            }
        }
        fields.into()
    }
}

/// The two sides of a comparison, and both together.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Sides {
    pub candidate: Figures,
    pub baseline: Figures,
    pub app: Figures,
    pub mirror: Copies,
}

impl Sides {
    fn side(&self, name: &str) -> Option<&Figures> {
        match name {
            "candidate" => Some(&self.candidate),
            "baseline" => Some(&self.baseline),
            "app" => Some(&self.app),
            _ => None,
        }
    }
}

/// What one condition says.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Finding {
    /// `None`: nobody can say.
    pub holds: Option<bool>,
    /// The values it is about, with the count they rest on: `candidate.error_rate 0.312 of 1042 in 60 s`.
    pub values: String,
    /// Why nobody can say.
    pub lacks: Option<String>,
}

/// Ask one condition.
pub(crate) fn ask(condition: &Condition, sides: &Sides, min_requests: u64) -> Finding {
    let values = values(condition, sides);
    if let Some((what, n)) = too_few(condition, sides, min_requests) {
        return Finding {
            holds: None,
            values,
            lacks: Some(format!("{what} has {n} of {min_requests} requests")),
        };
    }
    let answer = condition.holds(|context| {
        context.add_variable_from_value("candidate", sides.candidate.value());
        context.add_variable_from_value("baseline", sides.baseline.value());
        context.add_variable_from_value("app", sides.app.value());
        context.add_variable_from_value("mirror", sides.mirror.value());
    });
    match answer {
        Ok(holds) => Finding {
            holds: Some(holds),
            values,
            lacks: None,
        },
        Err(why) => Finding {
            holds: None,
            values,
            lacks: Some(match why {
                NoAnswer::Missing(name) => format!("no requests to know `{name}` by"),
                other => other.to_string(),
            }),
        },
    }
}

/// Rates and latencies need requests; counts, weights and requests a second speak for themselves. Of the baseline
/// only latencies do: an old color without errors has none to compare with, whatever its traffic.
fn too_few(condition: &Condition, sides: &Sides, min_requests: u64) -> Option<(String, u64)> {
    let short = condition.paths().iter().filter_map(|path| {
        let (side, field) = path.split_once('.')?;
        if side == "mirror" {
            let n = sides.mirror.requests();
            return (Copies::is_rate(field) && n < min_requests).then(|| ("mirror".to_owned(), n));
        }
        let figures = sides.side(side)?;
        let n = match field {
            "p50" | "p95" | "p99" => figures.timed,
            "error_rate" | "rate_4xx" if side != "baseline" => figures.requests,
            _ => return None,
        };
        (n < min_requests).then(|| (side.to_owned(), n))
    });
    short.min_by_key(|(_, n)| *n)
}

fn values(condition: &Condition, sides: &Sides) -> String {
    let mut text = String::new();
    for path in condition.paths() {
        let Some((side, field)) = path.split_once('.') else {
            continue;
        };
        let (number, n, covered) = match sides.side(side) {
            Some(figures) if matches!(field, "p50" | "p95" | "p99") => {
                (figures.field(field), figures.timed, figures.covered)
            }
            Some(figures) => (figures.field(field), figures.requests, figures.covered),
            None => (
                sides.mirror.field(field),
                sides.mirror.requests(),
                sides.mirror.covered,
            ),
        };
        let separator = if text.is_empty() { "" } else { ", " };
        let _ = match number {
            Some(number) => write!(text, "{separator}{path} {}", short(number)),
            None => write!(text, "{separator}{path} unknown"),
        };
        let _ = write!(text, " (n {n} in {:.0} s)", covered.as_secs_f64());
    }
    text
}

/// A number with four digits that matter.
pub(crate) fn short(number: f64) -> String {
    if number.fract() == 0.0 && number.abs() < 1e12 {
        return format!("{number:.0}");
    }
    let digits = if number.abs() >= 100.0 { 1 } else { 4 };
    let text = format!("{number:.digits$}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// What the guard makes of its conditions over time.
#[derive(Clone, Debug, Default)]
pub(crate) struct Watchdog {
    /// For each condition, evaluations in a row in which it held.
    streaks: Vec<u32>,
    /// The same of `warn_when`.
    warnings: Vec<u32>,
    /// The same of the conditions that are asked of each service.
    services: HashMap<(usize, String), u32>,
}

/// What one evaluation found.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Round {
    /// A condition has held often enough: go back, and why.
    pub trip: Option<String>,
    /// Conditions of `warn_when` that have just held often enough.
    pub warn: Vec<String>,
    /// Some condition could not be judged, and why.
    pub lacks: Option<String>,
    /// All of it in one line, for the journal.
    pub text: String,
}

/// So many times `min_requests` make the time since the last evaluation a window of its own.
const LATELY: u64 = 5;

/// The window in which a candidate that has just turned bad shows at once: what was good before does not thin it out.
/// None where evaluations come faster than figures: several in a row would be one and the same.
pub(crate) fn lately(guard: &Guard) -> Duration {
    if guard.every < TICK {
        Duration::ZERO
    } else {
        guard.every
    }
}

impl Watchdog {
    /// One evaluation of one window.
    #[cfg(test)]
    pub(crate) fn evaluate(&mut self, guard: &Guard, sides: &Sides) -> Round {
        self.evaluate_both(guard, sides, &Sides::default())
    }

    /// One evaluation: a condition holds in the usual window or, with enough requests there, in the one since the
    /// last evaluation.
    pub(crate) fn evaluate_both(&mut self, guard: &Guard, sides: &Sides, lately: &Sides) -> Round {
        let enough = guard.min_requests.saturating_mul(LATELY).max(1);
        let is_much = lately.candidate.requests >= enough && lately.candidate.timed >= enough;
        let ask = |condition: &Condition| {
            let finding = ask(condition, sides, guard.min_requests);
            if finding.holds == Some(true) || !is_much {
                return finding;
            }
            let now = ask(condition, lately, guard.min_requests);
            if now.holds == Some(true) { now } else { finding }
        };
        let mut round = Round {
            trip: None,
            warn: Vec::new(),
            lacks: None,
            text: String::new(),
        };
        self.streaks.resize(guard.rollback_when.len(), 0);
        self.warnings.resize(guard.warn_when.len(), 0);
        for (condition, streak) in guard.rollback_when.iter().zip(&mut self.streaks) {
            let finding = ask(condition);
            count(streak, finding.holds);
            let verdict = match finding.holds {
                Some(true) => format!("fail {streak} of {}", guard.evaluations),
                Some(false) => "pass".to_owned(),
                None => "insufficient data".to_owned(),
            };
            let said = line(condition, &finding, &verdict);
            if *streak >= guard.evaluations && round.trip.is_none() {
                round.trip = Some(said.clone());
            }
            if let Some(lacks) = finding.lacks {
                round.lacks.get_or_insert(lacks);
            }
            if !round.text.is_empty() {
                round.text.push_str("; ");
            }
            round.text.push_str(&said);
        }
        for (condition, streak) in guard.warn_when.iter().zip(&mut self.warnings) {
            let finding = ask(condition);
            count(streak, finding.holds);
            if *streak == guard.evaluations {
                round.warn.push(line(condition, &finding, "warning"));
            }
        }
        round
    }
}

/// So many times `min_requests` a service of several needs, so that the many that are asked about cry no wolf; where most
/// of its requests fail the usual number will do.
const OF_SERVICE: u64 = 10;

impl Watchdog {
    /// The services of an app, each by itself: one that few requests go to is lost in the figures of all of them. Only
    /// conditions on rates and latencies can be asked so.
    pub(crate) fn evaluate_services(
        &mut self,
        guard: &Guard,
        services: &[(String, Sides)],
        round: &mut Round,
    ) {
        for (at, condition) in guard.rollback_when.iter().enumerate() {
            if !condition.paths().iter().all(|path| is_of_services(path)) {
                continue;
            }
            for (service, sides) in services {
                let own = &sides.candidate;
                let most_fail = own.errors * 2 > own.requests;
                let least = guard.min_requests.max(1) * if most_fail { 1 } else { OF_SERVICE };
                let finding = ask(condition, sides, least);
                let streak = self.services.entry((at, service.clone())).or_default();
                count(streak, finding.holds);
                if *streak == 0 {
                    continue;
                }
                let verdict = format!("fail {streak} of {}", guard.evaluations);
                let said = format!("service {service}: {}", line(condition, &finding, &verdict));
                if *streak >= guard.evaluations && round.trip.is_none() {
                    round.trip = Some(said.clone());
                }
                round.text.push_str("; ");
                round.text.push_str(&said);
            }
        }
    }
}

fn is_of_services(path: &str) -> bool {
    let (side, field) = path.split_once('.').unwrap_or_default();
    matches!(side, "candidate" | "baseline")
        && matches!(
            field,
            "error_rate" | "rate_4xx" | "p50" | "p95" | "p99" | "weight"
        )
}

fn count(streak: &mut u32, holds: Option<bool>) {
    *streak = if holds == Some(true) {
        streak.saturating_add(1)
    } else {
        0
    };
}

fn line(condition: &Condition, finding: &Finding, verdict: &str) -> String {
    let lacks = finding
        .lacks
        .as_ref()
        .map_or_else(String::new, |why| format!(" ({why})"));
    format!("`{}`: {verdict}{lacks}: {}", condition.source(), finding.values)
}
