//! How many retries a service may have: a share of its requests, so that retries never multiply an outage.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The seconds that count.
const WINDOW: usize = 10;

/// Retries that each second has whatever the requests were: a quiet service may retry too.
const ALWAYS: u64 = 3;

/// One worker's count of a service's requests and retries over the last ten seconds. Only the worker writes.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct RetryBudget {
    slots: [Slot; WINDOW],
}

/// What a second had.
#[derive(Debug, Default)]
struct Slot {
    /// Which, plus one: 0 is none.
    second: AtomicU64,
    requests: AtomicU64,
    retries: AtomicU64,
}

impl RetryBudget {
    /// A request came in this second (of any clock that never goes back).
    pub fn request(&self, second: u64) {
        let slot = self.slot(second);
        slot.requests.store(slot.requests.load(Relaxed) + 1, Relaxed);
    }

    /// A retry went out.
    pub fn retry(&self, second: u64) {
        let slot = self.slot(second);
        slot.retries.store(slot.retries.load(Relaxed) + 1, Relaxed);
    }

    /// Whether one more retry stays within `share` of the requests of the last ten seconds, or within three this
    /// second.
    #[must_use]
    pub fn allows(&self, second: u64, share: f64) -> bool {
        if self.slot(second).retries.load(Relaxed) < ALWAYS {
            return true;
        }
        let (mut requests, mut retries) = (0, 0);
        for slot in &self.slots {
            // The slot's second is its number plus one, so a second of ten ago is just out.
            if slot.second.load(Relaxed) + WINDOW as u64 > second + 1 {
                requests += slot.requests.load(Relaxed);
                retries += slot.retries.load(Relaxed);
            }
        }
        #[allow(clippy::cast_precision_loss, reason = "ten seconds have no 2^52 requests")]
        let within = (retries + 1) as f64 <= share * requests as f64;
        within
    }

    fn slot(&self, second: u64) -> &Slot {
        let at = usize::try_from(second % WINDOW as u64).unwrap_or(0);
        let slot = &self.slots[at];
        if slot.second.load(Relaxed) != second + 1 {
            slot.second.store(second + 1, Relaxed);
            slot.requests.store(0, Relaxed);
            slot.retries.store(0, Relaxed);
        }
        slot
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn three_a_second_are_always_allowed() {
        let budget = RetryBudget::default();
        for second in 100..130 {
            for _ in 0..3 {
                assert!(budget.allows(second, 0.0));
                budget.retry(second);
            }
            assert!(!budget.allows(second, 0.0), "a fourth");
        }
    }

    #[test]
    fn the_share_is_of_ten_seconds() {
        let budget = RetryBudget::default();
        for _ in 0..100 {
            budget.request(50);
        }
        for _ in 0..20 {
            assert!(budget.allows(50, 0.2));
            budget.retry(50);
        }
        assert!(!budget.allows(50, 0.2), "the 21st of 100");
        // The next second has its three, and no more until the old requests are forgotten and new ones came.
        for _ in 0..3 {
            assert!(budget.allows(51, 0.2));
            budget.retry(51);
        }
        assert!(!budget.allows(51, 0.2));
        for _ in 0..100 {
            budget.request(60);
        }
        budget.retry(60);
        budget.retry(60);
        budget.retry(60);
        // Second 50 is out of the window, second 51 is in: 6 retries of 100 requests.
        assert!(budget.allows(60, 0.07));
        assert!(!budget.allows(60, 0.06));
    }

    proptest! {
        #[test]
        fn never_more_than_the_share_and_three_a_second(
            events in proptest::collection::vec((any::<bool>(), 0_u64..3), 0..400), share in 0.0_f64..1.0,
        ) {
            let budget = RetryBudget::default();
            let (mut now, mut requests, mut retries, mut this) = (0, vec![], vec![], 0);
            for (is_request, later) in events {
                if later == 2 {
                    now += 1;
                    this = 0;
                }
                if is_request {
                    budget.request(now);
                    requests.push(now);
                } else if budget.allows(now, share) {
                    budget.retry(now);
                    retries.push(now);
                    this += 1;
                    let recent = |list: &[u64]| list.iter().filter(|at| **at + 10 > now).count();
                    let within = recent(&retries) as f64 <= share * recent(&requests) as f64;
                    prop_assert!(within || this <= 3);
                }
            }
        }
    }
}
