//! What one color's requests were like lately: sliding windows of counts and latencies, in constant memory.
//!
//! The control plane reads the workers' cells once a second; what they rose by is one slice. Sixty slices of a second
//! and thirty of a minute are kept, in the same buckets as everywhere, so a window's counts are exact and its
//! quantiles known to within one bucket. Time is monotonic: a clock that jumps moves nothing here.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::histogram::BOUNDS;
use super::{PoolCells, Snapshot};

/// Slices of a second that are kept.
const SECONDS: usize = 60;

/// Slices of a minute that are kept.
const MINUTES: usize = 30;

/// How long a slice of the coarse ring is.
const MINUTE: Duration = Duration::from_secs(60);

/// The longest window.
pub const WINDOW_MAX: Duration = Duration::from_secs(MINUTES as u64 * 60);

/// What the requests of a stretch of time were. Requests that their client gave up, and streams, are not among them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    /// How long the stretch is.
    pub covered: Duration,
    /// From head to last byte; its count is the number of requests.
    pub latency: Snapshot,
    /// Answers of 500 and above that the app made.
    pub upstream_errors: u64,
    /// Requests that the proxy could not serve: no connection, no answer, an answer cut short, nothing healthy.
    pub proxy_errors: u64,
    /// Answers of 400 to 499, of the app or of the proxy.
    pub client_errors: u64,
    /// Requests that their client gave up.
    pub cancelled: u64,
    /// Connections that could not be made.
    pub connect_errors: u64,
}

impl Sample {
    /// Requests.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.latency.count()
    }

    /// Requests that failed, on the app's side or the proxy's.
    #[must_use]
    pub const fn errors(&self) -> u64 {
        self.upstream_errors + self.proxy_errors
    }

    /// The share of requests that failed; 0 without requests.
    #[must_use]
    pub fn error_rate(&self) -> f64 {
        share(self.errors(), self.requests())
    }

    /// The share of requests answered 400 to 499; 0 without requests.
    #[must_use]
    pub fn client_error_rate(&self) -> f64 {
        share(self.client_errors, self.requests())
    }

    /// Requests a second; 0 when no time is covered.
    #[must_use]
    pub fn rps(&self) -> f64 {
        if self.covered.is_zero() {
            0.0
        } else {
            self.requests() as f64 / self.covered.as_secs_f64()
        }
    }

    /// The latency that a share `q` of the requests does not exceed; `None` without requests.
    #[must_use]
    pub fn quantile(&self, q: f64) -> Option<Duration> {
        self.latency.quantile(q)
    }

    /// Add one worker's cells of one pool.
    pub fn add_worker(&mut self, cells: &PoolCells) {
        let mut aside = Snapshot::default();
        cells.duration.merge_into(&mut self.latency);
        cells.aside.merge_into(&mut aside);
        self.latency.take(&aside);
        self.upstream_errors += cells.upstream_errors.get();
        self.proxy_errors += cells.failed.get();
        self.client_errors += cells.client_errors.get();
        self.cancelled += cells.cancelled.get();
    }

    /// Add another stretch.
    pub fn add(&mut self, other: &Self) {
        self.covered += other.covered;
        for (sum, count) in self.latency.buckets.iter_mut().zip(other.latency.buckets) {
            *sum += count;
        }
        self.latency.sum_us += other.latency.sum_us;
        self.upstream_errors += other.upstream_errors;
        self.proxy_errors += other.proxy_errors;
        self.client_errors += other.client_errors;
        self.cancelled += other.cancelled;
        self.connect_errors += other.connect_errors;
    }

    /// What came on top of an earlier total.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        let mut latency = self.latency.clone();
        latency.take(&before.latency);
        Self {
            covered: self.covered.saturating_sub(before.covered),
            latency,
            upstream_errors: self.upstream_errors.saturating_sub(before.upstream_errors),
            proxy_errors: self.proxy_errors.saturating_sub(before.proxy_errors),
            client_errors: self.client_errors.saturating_sub(before.client_errors),
            cancelled: self.cancelled.saturating_sub(before.cancelled),
            connect_errors: self.connect_errors.saturating_sub(before.connect_errors),
        }
    }

    fn is_empty(&self) -> bool {
        self.requests() == 0 && self.cancelled == 0 && self.connect_errors == 0 && self.errors() == 0
    }
}

fn share(part: u64, whole: u64) -> f64 {
    // A stream that was cut failed, and is no request here: the share of all of them is still at most 1.
    if whole == 0 {
        0.0
    } else {
        (part as f64 / whole as f64).min(1.0)
    }
}

impl Snapshot {
    /// Take out what another one counted.
    fn take(&mut self, other: &Self) {
        for (count, out) in self.buckets.iter_mut().zip(other.buckets) {
            *count = count.saturating_sub(out);
        }
        self.sum_us = self.sum_us.saturating_sub(other.sum_us);
    }

    /// The duration that a share `q` does not exceed, evenly spread within its bucket; `None` when nothing was
    /// counted. What is above the last bound is said to be at it.
    #[must_use]
    pub fn quantile(&self, q: f64) -> Option<Duration> {
        let count = self.count();
        if count == 0 {
            return None;
        }
        let rank = (q.clamp(0.0, 1.0) * count as f64).ceil().max(1.0);
        let mut below = 0.0;
        for (at, &here) in self.buckets.iter().enumerate() {
            let here = here as f64;
            if here > 0.0 && below + here >= rank {
                let last = BOUNDS[BOUNDS.len() - 1];
                let upper = BOUNDS.get(at).copied().unwrap_or(last);
                let lower = at
                    .checked_sub(1)
                    .and_then(|at| BOUNDS.get(at))
                    .copied()
                    .unwrap_or(0);
                let us = lower as f64 + (upper - lower.min(upper)) as f64 * (rank - below) / here;
                return Some(Duration::from_secs_f64(us / 1e6));
            }
            below += here;
        }
        None
    }
}

/// One color's windows.
#[derive(Debug, Default)]
pub struct Windows {
    seconds: VecDeque<Slice>,
    minutes: VecDeque<Slice>,
    /// The minute that is not full yet.
    open: Option<(Instant, Sample)>,
}

/// What happened from a moment to a moment. Most slices of a quiet app have nothing in them.
#[derive(Debug)]
struct Slice {
    begins: Instant,
    ends: Instant,
    sample: Option<Box<Sample>>,
}

impl Slice {
    fn new(begins: Instant, ends: Instant, sample: Sample) -> Self {
        Self {
            begins,
            ends,
            sample: (!sample.is_empty()).then(|| Box::new(sample)),
        }
    }

    fn add_to(&self, sum: &mut Sample) {
        match &self.sample {
            Some(sample) => sum.add(sample),
            None => sum.covered += self.ends - self.begins,
        }
    }
}

impl Windows {
    /// What happened up to `now`, from the end of the slice before.
    pub fn push(&mut self, now: Instant, mut sample: Sample) {
        let begins = now.checked_sub(sample.covered).unwrap_or(now);
        sample.covered = now - begins;
        let (open_since, open) = self.open.get_or_insert_with(|| (begins, Sample::default()));
        open.add(&sample);
        if now - *open_since >= MINUTE {
            let full = std::mem::take(open);
            ring(&mut self.minutes, MINUTES, Slice::new(*open_since, now, full));
            self.open = None;
        }
        ring(&mut self.seconds, SECONDS, Slice::new(begins, now, sample));
    }

    /// What happened within `span` before `now`, but not before `not_before`: whole slices only, so a second's edge
    /// may be missing, or a minute's when the span is longer than a minute.
    #[must_use]
    pub fn over(&self, now: Instant, span: Duration, not_before: Option<Instant>) -> Sample {
        let from = now.checked_sub(span);
        let from = match (from, not_before) {
            (Some(a), Some(b)) => Some(a.max(b)),
            (a, b) => a.or(b),
        };
        // A tick comes a little late or early; half of a slice inside is inside.
        let inside =
            |begins: Instant, ends: Instant| from.is_none_or(|from| begins + (ends - begins) / 2 >= from);
        let mut sum = Sample::default();
        let fine = self.seconds.front().map(|first| first.begins);
        let fine_reaches = match (fine, from) {
            (Some(first), Some(from)) => first <= from || self.minutes.is_empty(),
            (Some(_), None) => self.minutes.is_empty(),
            (None, _) => true,
        };
        if fine_reaches {
            for slice in self
                .seconds
                .iter()
                .filter(|slice| inside(slice.begins, slice.ends))
            {
                slice.add_to(&mut sum);
            }
            return sum;
        }
        for slice in self
            .minutes
            .iter()
            .filter(|slice| inside(slice.begins, slice.ends))
        {
            slice.add_to(&mut sum);
        }
        if let Some((since, open)) = &self.open
            && inside(*since, *since + open.covered)
        {
            sum.add(open);
        }
        sum
    }
}

fn ring(slices: &mut VecDeque<Slice>, most: usize, slice: Slice) {
    if slices.len() == most {
        slices.pop_front();
    }
    slices.push_back(slice);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Exact requests, in microseconds; every tenth fails.
    fn sample(latencies: &[u64]) -> Sample {
        let cells = PoolCells::default();
        for (at, us) in latencies.iter().enumerate() {
            let status = if at % 10 == 9 { 500 } else { 200 };
            cells.finished(&http::Method::GET, status, Duration::from_micros(*us));
            if status == 500 {
                cells.upstream_errors.add(1);
            }
        }
        let mut sample = Sample::default();
        sample.add_worker(&cells);
        sample
    }

    /// A seeded, lumpy traffic: the latencies of second `at`.
    fn traffic(at: u64) -> Vec<u64> {
        let mut x = at.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        (0..20 + at % 50)
            .map(|_| {
                x ^= x << 13;
                x ^= x >> 7;
                x ^= x << 17;
                let tail = if x.is_multiple_of(20) { 400_000 } else { 0 };
                1000 + x % 40_000 + tail
            })
            .collect()
    }

    fn bucket(us: u64) -> usize {
        BOUNDS.partition_point(|bound| *bound < us)
    }

    #[tokio::test(start_paused = true)]
    async fn counts_are_exact_and_quantiles_within_a_bucket() {
        let start = Instant::now();
        let mut windows = Windows::default();
        for second in 0..2400 {
            let mut slice = sample(&traffic(second));
            slice.covered = Duration::from_secs(1);
            windows.push(start + Duration::from_secs(second + 1), slice);
        }
        let now = start + Duration::from_secs(2400);
        for span in [1, 5, 30, 60, 120, 300, 600, 1200, 1800] {
            let mut exact: Vec<u64> = (2400 - span..2400).flat_map(traffic).collect();
            exact.sort_unstable();
            let errors: u64 = (2400 - span..2400).map(|at| traffic(at).len() as u64 / 10).sum();
            let seen = windows.over(now, Duration::from_secs(span), None);
            let off = seen.requests().abs_diff(exact.len() as u64);
            assert!(
                off * 100 <= exact.len() as u64,
                "{span} s: {} for {}",
                seen.requests(),
                exact.len()
            );
            assert_eq!(seen.covered, Duration::from_secs(span));
            assert_eq!(seen.errors(), errors, "{span} s");
            for q in [0.5, 0.95, 0.99] {
                let at = ((q * exact.len() as f64).ceil() as usize).max(1) - 1;
                let found = seen.quantile(q).unwrap().as_micros() as u64;
                assert!(
                    bucket(found).abs_diff(bucket(exact[at])) <= 1,
                    "{span} s, {q}: {found} for {}",
                    exact[at]
                );
            }
        }
        assert!(windows.seconds.len() == SECONDS && windows.minutes.len() == MINUTES);
    }

    #[tokio::test(start_paused = true)]
    async fn a_window_begins_where_it_is_told_and_late_ticks_lose_nothing() {
        let start = Instant::now();
        let mut windows = Windows::default();
        for second in 1..=20 {
            let mut slice = sample(&[1000; 10]);
            slice.covered = Duration::from_secs(1);
            windows.push(start + Duration::from_secs(second), slice);
        }
        // A stall: the next tick comes seven seconds later and brings it all.
        let mut slice = sample(&[1000; 70]);
        slice.covered = Duration::from_secs(7);
        let now = start + Duration::from_secs(27);
        windows.push(now, slice);
        let all = windows.over(now, Duration::from_secs(60), None);
        assert_eq!((all.requests(), all.covered), (270, Duration::from_secs(27)));
        let since = windows.over(
            now,
            Duration::from_secs(60),
            Some(start + Duration::from_secs(10)),
        );
        assert_eq!((since.requests(), since.rps()), (170, 10.0));
        assert_eq!(Windows::default().over(now, MINUTE, None).quantile(0.5), None);
    }

    #[test]
    fn cancelled_requests_and_streams_are_in_no_window() {
        let cells = PoolCells::default();
        let get = http::Method::GET;
        cells.finished(&get, 200, Duration::from_millis(5));
        cells.finished(&get, 499, Duration::from_secs(60));
        cells.set_aside(Duration::from_secs(60), true);
        cells.finished(&get, 101, Duration::from_secs(600));
        cells.set_aside(Duration::from_secs(600), false);
        let mut sample = Sample::default();
        sample.add_worker(&cells);
        assert_eq!((sample.requests(), sample.cancelled, sample.errors()), (1, 1, 0));
        assert!(sample.quantile(1.0).unwrap() <= Duration::from_millis(5));
    }
}
