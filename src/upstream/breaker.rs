//! Passive health: an endpoint that fails requests is left alone for a while. A fact of its own, beside what probes say.
//!
//! Two words, written only when something fails: on the usual path a request reads them and goes on.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Failures of one endpoint in a row, over all workers, and until when it is left alone.
#[derive(Debug, Default)]
pub struct Breaker {
    failures: AtomicU32,
    /// Milliseconds of [`now`]; 0 = it takes requests.
    until: AtomicU64,
    /// How often it was ejected.
    ejections: AtomicU64,
}

/// Milliseconds since the first time that anybody asked, plus one: never 0.
#[must_use]
pub fn now() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    let since = START.get_or_init(Instant::now).elapsed().as_millis();
    u64::try_from(since).unwrap_or(u64::MAX - 1) + 1
}

impl Breaker {
    /// Whether it is left alone now. The time is asked for only if it failed before.
    #[must_use]
    pub fn is_ejected(&self, now: impl FnOnce() -> u64) -> bool {
        let until = self.until.load(Relaxed);
        until != 0 && now() < until
    }

    /// A request goes to it. The first after the ejection is a trial: until its outcome is known others stay away, for
    /// as long again at most. False: somebody else has the trial.
    pub fn admit(&self, now: impl FnOnce() -> u64, ejected: Duration) -> bool {
        let until = self.until.load(Relaxed);
        if until == 0 {
            return true;
        }
        let now = now();
        now >= until
            && self
                .until
                .compare_exchange(until, later(now, ejected), Relaxed, Relaxed)
                .is_ok()
    }

    /// It has answered, whatever the status. True: it was ejected until now.
    pub fn answered(&self) -> bool {
        if self.failures.load(Relaxed) == 0 {
            return false;
        }
        self.failures.store(0, Relaxed);
        self.until.swap(0, Relaxed) != 0
    }

    /// It has failed: no connection, a reset before the answer, or no answer in time. At `limit` in a row (0 = never)
    /// it is left alone, if `others` can take its requests. True: from now on.
    pub fn failed(&self, now: u64, limit: u32, ejected: Duration, others: bool) -> bool {
        let failures = self.failures.fetch_add(1, Relaxed).saturating_add(1);
        if limit == 0 || failures < limit || !others {
            return false;
        }
        let first = self.until.swap(later(now, ejected), Relaxed) == 0;
        if first {
            self.ejections.fetch_add(1, Relaxed);
        }
        first
    }

    /// How often it was ejected, and whether it has not come back from the last time.
    #[must_use]
    pub fn story(&self) -> (u64, bool) {
        (self.ejections.load(Relaxed), self.until.load(Relaxed) != 0)
    }
}

fn later(now: u64, by: Duration) -> u64 {
    now.saturating_add(u64::try_from(by.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIME: Duration = Duration::from_millis(100);

    #[test]
    fn failures_in_a_row_eject_and_an_answer_starts_anew() {
        let breaker = Breaker::default();
        assert!(!breaker.failed(1, 3, TIME, true) && !breaker.failed(1, 3, TIME, true));
        assert!(!breaker.answered(), "it was never ejected");
        assert!(!breaker.failed(1, 3, TIME, true) && !breaker.failed(1, 3, TIME, true));
        assert!(!breaker.is_ejected(|| 1));
        assert!(breaker.failed(1, 3, TIME, true), "the third in a row");
        assert!(!breaker.failed(2, 3, TIME, true), "told once");
        assert!(breaker.is_ejected(|| 50) && !breaker.admit(|| 50, TIME));
        assert!(breaker.answered());
        assert!(!breaker.is_ejected(|| 50) && breaker.admit(|| 50, TIME));
    }

    #[test]
    fn one_trial_at_a_time() {
        let breaker = Breaker::default();
        assert!(breaker.failed(1, 1, TIME, true));
        assert!(!breaker.is_ejected(|| 101));
        assert!(breaker.admit(|| 101, TIME), "the trial");
        assert!(
            breaker.is_ejected(|| 102) && !breaker.admit(|| 102, TIME),
            "a second one"
        );
        // A trial that never comes to an end does not keep it out for ever.
        assert!(!breaker.is_ejected(|| 201) && breaker.admit(|| 201, TIME));
        assert!(!breaker.failed(210, 1, TIME, true), "it was not back");
        assert!(breaker.is_ejected(|| 305));
        assert!(breaker.admit(|| 310, TIME) && breaker.answered());
    }

    #[test]
    fn the_last_one_is_never_ejected_nor_is_any_without_a_limit() {
        let breaker = Breaker::default();
        for _ in 0..100 {
            assert!(!breaker.failed(1, 5, TIME, false));
            assert!(!breaker.failed(1, 0, TIME, true));
        }
        assert!(!breaker.is_ejected(|| 1) && breaker.admit(|| 1, TIME));
        // With others there again the next failure counts with those before it.
        assert!(breaker.failed(1, 5, TIME, true));
    }
}
