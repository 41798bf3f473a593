//! Latencies and failures of one measurement, and how they are told.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::time::sleep;

use super::Failure;

pub(crate) struct Tally {
    counts: Cell<bool>,
    latencies: RefCell<Vec<u32>>,
    failures: RefCell<BTreeMap<String, u64>>,
    seconds: Cell<f64>,
}

impl Tally {
    pub(crate) fn new() -> Rc<Self> {
        Rc::new(Self {
            counts: Cell::new(false),
            latencies: RefCell::new(Vec::with_capacity(1 << 20)),
            failures: RefCell::default(),
            seconds: Cell::new(0.0),
        })
    }

    /// Waits for the warm-up, says `begin`, and counts for so long.
    pub(crate) async fn measure(&self, warmup: Duration, seconds: Duration) {
        sleep(warmup).await;
        println!("begin");
        let start = Instant::now();
        self.counts.set(true);
        sleep(seconds).await;
        self.counts.set(false);
        self.seconds.set(start.elapsed().as_secs_f64());
    }

    pub(crate) fn answered(&self, latency: Duration) {
        if self.counts.get() {
            self.latencies.borrow_mut().push(tenths(latency));
        }
    }

    pub(crate) fn failed(&self, why: &str) {
        if self.counts.get() {
            *self.failures.borrow_mut().entry(why.to_owned()).or_default() += 1;
        }
    }

    /// One line of JSON. `backlog`: requests of a fixed rate that were due and not even sent.
    pub(crate) fn print(&self, backlog: Option<usize>) -> Result<(), Failure> {
        let mut latencies = self.latencies.borrow_mut();
        let failures = self.failures.borrow();
        if latencies.is_empty() {
            return Err(format!("nothing was answered: {failures:?}").into());
        }
        let mut line = format!(
            "{{\"requests\": {}, \"seconds\": {}, \"failed\": {}, \"why\": \"{}\", \"backlog\": {}",
            latencies.len(),
            self.seconds.get(),
            failures.values().sum::<u64>(),
            failures.keys().next().map_or("", String::as_str).escape_default(),
            backlog.unwrap_or(0),
        );
        for (name, microseconds) in percentiles(&mut latencies) {
            write!(line, ", \"{name}_us\": {microseconds}")?;
        }
        println!("{line}}}");
        Ok(())
    }
}

/// Tenths of a microsecond: seven minutes fit.
pub(crate) fn tenths(latency: Duration) -> u32 {
    u32::try_from(latency.as_nanos() / 100).unwrap_or(u32::MAX)
}

/// In microseconds.
pub(crate) fn percentiles(latencies: &mut [u32]) -> Vec<(&'static str, f64)> {
    latencies.sort_unstable();
    let at = |share: f64| {
        let index = (latencies.len() as f64 * share) as usize;
        latencies
            .get(index.min(latencies.len().saturating_sub(1)))
            .map_or(0.0, |tenths| f64::from(*tenths) / 10.0)
    };
    vec![
        ("p50", at(0.5)),
        ("p90", at(0.9)),
        ("p99", at(0.99)),
        ("p999", at(0.999)),
        ("max", at(1.0)),
    ]
}
