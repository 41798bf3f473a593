//! `[app.NAME.retry]` and `[app.NAME.balance]`.

use std::time::Duration;

use super::Build;
use crate::config::model::{Balance, BalancePolicy, Retry};
use crate::config::raw::{self, At};

impl Build<'_, '_, '_> {
    pub(super) fn balance(&mut self, raw: &raw::Balance) -> Balance {
        let (failures, ejected) = (&raw.breaker.failures, raw.breaker.ejected.as_ref());
        Balance {
            policy: match raw.policy.as_ref().map(At::get) {
                Some(raw::Policy::RoundRobin) => BalancePolicy::RoundRobin,
                Some(raw::Policy::Random) => BalancePolicy::Random,
                Some(raw::Policy::LeastRequest) | None => BalancePolicy::LeastRequest,
            },
            failures: failures
                .as_ref()
                .map_or(5, |at| u32::try_from(*at.get()).unwrap_or(5)),
            ejected: self
                .duration("breaker.ejected", ejected, Duration::from_millis(1))
                .unwrap_or(Duration::from_secs(10)),
        }
    }

    /// Ranges are the schema's.
    pub(super) fn retry(&mut self, raw: &raw::Retry) -> Retry {
        Retry {
            attempts: raw
                .attempts
                .as_ref()
                .map_or(2, |at| u32::try_from(*at.get()).unwrap_or(2)),
            budget: raw.budget.as_ref().map_or(0.2, |at| *at.get()),
        }
    }
}
