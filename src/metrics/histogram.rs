//! One histogram scheme for exposition, windows and gates: log-linear, ten steps a decade.

use std::time::Duration;

use super::Cell;

/// Upper bounds of the buckets in microseconds: 0.1 ms to 100 s. One more bucket follows for all above.
///
/// Ten bounds a decade, chosen so that the usual alert thresholds (5 ms, 100 ms, 0.25 s, 0.5 s, 1 s, 2.5 s) are
/// bounds themselves; neighbours differ by a third at most, so a quantile is known to within that.
pub const BOUNDS: [u64; 61] = bounds();

const STEPS: [u64; 10] = [100, 125, 150, 200, 250, 300, 400, 500, 600, 800];

const fn bounds() -> [u64; 61] {
    let mut out = [0; 61];
    let mut scale = 1;
    let mut i = 0;
    while i < 60 {
        out[i] = STEPS[i % 10] * scale;
        i += 1;
        if i % 10 == 0 {
            scale *= 10;
        }
    }
    out[60] = 100 * scale;
    out
}

/// Counts of durations by bucket. One writer; any reader.
#[derive(Debug)]
pub struct Histogram {
    buckets: [Cell; BOUNDS.len() + 1],
    sum_us: Cell,
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            buckets: std::array::from_fn(|_| Cell::default()),
            sum_us: Cell::default(),
        }
    }
}

impl Histogram {
    /// Count one duration.
    pub fn record(&self, duration: Duration) {
        let us = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        self.buckets[BOUNDS.partition_point(|bound| *bound < us)].add(1);
        self.sum_us.add(us);
    }

    /// Add what has been counted so far to `into`.
    pub fn merge_into(&self, into: &mut Snapshot) {
        for (sum, cell) in into.buckets.iter_mut().zip(&self.buckets) {
            *sum += cell.get();
        }
        into.sum_us += self.sum_us.get();
    }
}

/// A histogram's counts at one moment, summed over workers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Counts by bucket, not cumulative; the last is all above [`BOUNDS`].
    pub buckets: [u64; BOUNDS.len() + 1],
    /// Sum of all durations in microseconds.
    pub sum_us: u64,
}

impl Default for Snapshot {
    fn default() -> Self {
        Self {
            buckets: [0; BOUNDS.len() + 1],
            sum_us: 0,
        }
    }
}

impl Snapshot {
    /// How many durations were counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_rise_by_a_third_at_most() {
        for pair in BOUNDS.windows(2) {
            assert!(pair[0] < pair[1] && pair[1] * 3 <= pair[0] * 4, "{pair:?}");
        }
        assert_eq!((BOUNDS[0], BOUNDS[60]), (100, 100_000_000));
    }

    #[test]
    fn a_duration_is_counted_at_or_below_its_bound() {
        for (us, bucket) in [(0, 0), (100, 0), (101, 1), (100_000_000, 60), (100_000_001, 61)] {
            let histogram = Histogram::default();
            histogram.record(Duration::from_micros(us));
            let mut seen = Snapshot::default();
            histogram.merge_into(&mut seen);
            assert_eq!((seen.buckets[bucket], seen.count(), seen.sum_us), (1, 1, us));
        }
    }
}
