//! `[app.NAME.retry]` and `[app.NAME.balance]`.

use std::time::Duration;

/// `[…balance]`: which endpoint of a color a request goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Balance {
    /// How it is chosen.
    pub policy: BalancePolicy,
    /// Requests that an endpoint has at once; 0 = as many as come.
    pub max_in_flight: usize,
    /// Requests that wait for one of them to end, for each service and color.
    pub queue: usize,
    /// For how long.
    pub queue_timeout: Duration,
    /// `breaker.failures`: so many in a row eject an endpoint; 0 = never.
    pub failures: u32,
    /// `breaker.ejected`: for how long.
    pub ejected: Duration,
}

/// `balance.policy`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BalancePolicy {
    /// Of two, the one with fewer requests of this worker.
    LeastRequest,
    /// One after the other; each worker on its own.
    RoundRobin,
    /// By chance.
    Random,
}

impl BalancePolicy {
    /// The word in the file.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::LeastRequest => "least_request",
            Self::RoundRobin => "round_robin",
            Self::Random => "random",
        }
    }
}

/// `[…retry]`: when a request goes out once more.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Retry {
    /// Tries in all; 1 = no retry.
    pub attempts: u32,
    /// Retries as a share of the requests of the last ten seconds.
    pub budget: f64,
}
