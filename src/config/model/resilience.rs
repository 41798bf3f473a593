//! `[app.NAME.retry]` and `[app.NAME.balance]`.

/// `[app.NAME.retry]`: when a request goes out once more.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Retry {
    /// Tries in all; 1 = no retry.
    pub attempts: u32,
    /// Retries as a share of the requests of the last ten seconds.
    pub budget: f64,
}
