//! What the control plane tells a scrape: the levels that no worker counts, as plain values.

use crate::rollout::{ByColor, Color};

/// The levels of one app at one moment. App names are unique in a list of these.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppGauges {
    /// Its name.
    pub app: String,
    /// The active color.
    pub active: Color,
    /// Each color's desired share of the traffic in percent.
    pub share: ByColor<u8>,
    /// The generation of its state.
    pub generation: u64,
    /// Requests that wait in a hold.
    pub held: u64,
    /// Its stored state is damaged; changes are refused.
    pub degraded: bool,
    /// Requests that went to the active color because the candidate had nothing healthy, since start.
    pub spilled: u64,
    /// Conditions of rules that had no answer for a request, since start.
    pub rule_errors: u64,
    /// Requests that the other color had an answer for, since start.
    pub skew_rescued: u64,
    /// What became of copies for the standby; all zero without a mirror.
    pub mirrored: Mirrored,
    /// The names of its services, those without endpoints included.
    pub services: Vec<String>,
    /// Its endpoints as configured.
    pub endpoints: Vec<EndpointGauge>,
    /// The lines in which its requests wait for room; none without `balance.max_in_flight`.
    pub queues: Vec<QueueGauge>,
}

/// One endpoint as configured. A name that resolves to several addresses may be one entry or several; they are
/// one series.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointGauge {
    /// Its service.
    pub service: String,
    /// Its color.
    pub color: Color,
    /// As the operator wrote it.
    pub endpoint: String,
    /// Its probes pass.
    pub up: bool,
    /// Its requests fail: it is left alone.
    pub ejected: bool,
    /// Connects that failed since the endpoint came to be.
    pub connect_errors: u64,
}

/// The line of one service in one color.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueGauge {
    /// The service.
    pub service: String,
    /// The color.
    pub color: Color,
    /// Requests that wait.
    pub waiting: u64,
    /// Requests refused because too many waited, since start.
    pub overflowed: u64,
    /// Requests refused because they had waited for too long, since start.
    pub timed_out: u64,
}

/// What became of the copies of an app's requests, since start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mirrored {
    /// Answered with a status of the same class.
    pub same: u64,
    /// Answered with another.
    pub different: u64,
    /// Not answered.
    pub failed: u64,
    /// Not made.
    pub dropped: u64,
    /// Microseconds of the active color for those compared.
    pub active_micros: u64,
    /// Microseconds of the standby for the same.
    pub standby_micros: u64,
}
