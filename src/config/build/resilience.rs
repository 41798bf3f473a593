//! `[…retry]` and `[…balance]` of an app or service.

use std::time::Duration;

use super::Build;
use crate::config::model::{Balance, BalancePolicy, Retry};
use crate::config::raw::{self, At};

const MILLISECOND: Duration = Duration::from_millis(1);

/// What one `retry` and one `balance` table say.
#[derive(Clone, Copy, Default)]
pub(super) struct ResiliencePart {
    policy: Option<BalancePolicy>,
    max_in_flight: Option<usize>,
    queue: Option<usize>,
    queue_timeout: Option<Duration>,
    failures: Option<u32>,
    ejected: Option<Duration>,
    attempts: Option<u32>,
    budget: Option<f64>,
}

impl ResiliencePart {
    /// Ranges are the schema's.
    pub(super) fn read(balance: &raw::Balance, retry: &raw::Retry, build: &mut Build<'_, '_, '_>) -> Self {
        Self {
            policy: balance.policy.as_ref().map(|at| match at.get() {
                raw::Policy::LeastRequest => BalancePolicy::LeastRequest,
                raw::Policy::RoundRobin => BalancePolicy::RoundRobin,
                raw::Policy::Random => BalancePolicy::Random,
            }),
            max_in_flight: number(balance.max_in_flight.as_ref()),
            queue: number(balance.queue.as_ref()),
            queue_timeout: build.duration("queue_timeout", balance.queue_timeout.as_ref(), MILLISECOND),
            failures: number(balance.breaker.failures.as_ref()),
            ejected: build.duration("breaker.ejected", balance.breaker.ejected.as_ref(), MILLISECOND),
            attempts: number(retry.attempts.as_ref()),
            budget: retry.budget.as_ref().map(|at| *at.get()),
        }
    }

    /// This level's values where it has them, else the other's.
    pub(super) fn over(self, other: Self) -> Self {
        Self {
            policy: self.policy.or(other.policy),
            max_in_flight: self.max_in_flight.or(other.max_in_flight),
            queue: self.queue.or(other.queue),
            queue_timeout: self.queue_timeout.or(other.queue_timeout),
            failures: self.failures.or(other.failures),
            ejected: self.ejected.or(other.ejected),
            attempts: self.attempts.or(other.attempts),
            budget: self.budget.or(other.budget),
        }
    }

    pub(super) fn balance(&self) -> Balance {
        Balance {
            policy: self.policy.unwrap_or(BalancePolicy::LeastRequest),
            max_in_flight: self.max_in_flight.unwrap_or(0),
            queue: self.queue.unwrap_or(1000),
            queue_timeout: self.queue_timeout.unwrap_or(Duration::from_secs(5)),
            failures: self.failures.unwrap_or(5),
            ejected: self.ejected.unwrap_or(Duration::from_secs(10)),
        }
    }

    pub(super) fn retry(&self) -> Retry {
        Retry {
            attempts: self.attempts.unwrap_or(2),
            budget: self.budget.unwrap_or(0.2),
        }
    }
}

fn number<T: TryFrom<i64>>(at: Option<&At<i64>>) -> Option<T> {
    at.and_then(|at| T::try_from(*at.get()).ok())
}
