//! Who goes where while two colors share the traffic: buckets, and the sequence that fills them evenly.

use super::Weight;

/// Number of buckets that a share is measured in: a percent is a hundred of them.
pub const BUCKETS: u32 = 10_000;

/// Whether a bucket belongs to the candidate at this weight.
///
/// Raising the weight only adds buckets to the candidate, so whoever was moved stays moved.
#[must_use]
pub const fn is_candidate(bucket: u32, weight: Weight) -> bool {
    bucket < weight.percent() as u32 * 100
}

/// A low-discrepancy sequence of buckets: any run of N draws holds a share to within a few draws of exact.
///
/// A random draw would stray by ±1 point in 10,000 requests about one time in twenty; adding the golden ratio
/// modulo one (Weyl's sequence, the most even of its kind) never does, and costs one addition.
#[derive(Clone, Copy, Debug)]
pub struct Phase(u64);

impl Phase {
    /// The golden ratio's fraction as a 64-bit fixed-point number: 2^64 / φ, odd.
    const STEP: u64 = 0x9E37_79B9_7F4A_7C15;

    /// The sequence of one of `workers` workers: each starts at its own point, so that together they stay even.
    #[must_use]
    pub const fn of_worker(worker: usize, workers: usize) -> Self {
        let share = u64::MAX / (if workers == 0 { 1 } else { workers as u64 });
        Self(share.wrapping_mul(worker as u64))
    }

    /// Continue from a point that [`Phase::point`] gave.
    #[must_use]
    pub const fn at(point: u64) -> Self {
        Self(point)
    }

    /// Where the sequence stands, to store it in an atomic cell.
    #[must_use]
    pub const fn point(self) -> u64 {
        self.0
    }

    /// The next bucket, below [`BUCKETS`].
    pub fn next_bucket(&mut self) -> u32 {
        self.0 = self.0.wrapping_add(Self::STEP);
        // The top bits are the even ones; multiply-shift maps them to 0..BUCKETS without a division.
        (((self.0 >> 32) * BUCKETS as u64) >> 32) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_exact_to_a_tenth_of_a_point_over_ten_thousand() {
        for percent in 0..=99 {
            let weight = Weight::candidate(percent).unwrap();
            for worker in 0..4 {
                let mut phase = Phase::of_worker(worker, 4);
                let hits = (0..10_000)
                    .filter(|_| is_candidate(phase.next_bucket(), weight))
                    .count();
                let error = (hits as f64 / 100.0 - f64::from(percent)).abs();
                assert!(
                    error <= 0.1,
                    "weight {percent}, worker {worker}: {hits} of 10,000"
                );
            }
        }
    }

    #[test]
    fn raising_the_weight_never_takes_a_bucket_back() {
        for bucket in 0..BUCKETS {
            let mut was = false;
            for percent in 0..=99 {
                let is = is_candidate(bucket, Weight::candidate(percent).unwrap());
                assert!(is || !was, "bucket {bucket} left the candidate at {percent} %");
                was = is;
            }
        }
    }
}
