//! What is asked of the other color besides: once more for what this one has not (skew), or a copy of it (mirror).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use http::Method;

use super::Recent;
use crate::config::{Mirror, SkewPath};

/// An app's wishes, with what has become of them; `None` in the table where there are none.
#[derive(Debug)]
pub struct Beside {
    /// Paths whose 404 is asked once of the other color.
    pub skew: Vec<SkewPath>,
    /// What is copied to the standby.
    pub mirror: Option<Mirror>,
    /// Where paths are remembered for a warm-up; carried over.
    pub recent: Option<Arc<Recent>>,
    /// Carried over.
    pub counts: Arc<BesideCounts>,
}

impl Beside {
    /// Whether a 404 for this is asked of the other color.
    #[must_use]
    pub fn covers(&self, method: &Method, path: &str) -> bool {
        matches!(*method, Method::GET | Method::HEAD) && self.skew.iter().any(|skew| skew.covers(path))
    }
}

/// What has become of requests to the other color. Rare, so all workers share it.
#[derive(Debug, Default)]
pub struct BesideCounts {
    /// 404s that the other color had an answer for.
    pub rescued: AtomicU64,
    /// Copies with an answer of the same status class.
    pub same: AtomicU64,
    /// Copies with another one.
    pub different: AtomicU64,
    /// Copies without an answer.
    pub failed: AtomicU64,
    /// Copies that were not made, because too many were under way.
    pub dropped: AtomicU64,
    /// Microseconds that the active color took for those that were compared.
    pub active_micros: AtomicU64,
    /// Microseconds that the standby took for the same.
    pub standby_micros: AtomicU64,
    under_way: AtomicUsize,
}

impl BesideCounts {
    /// The right to make a copy; `None` when `most` are under way.
    pub fn copy(self: &Arc<Self>, most: usize) -> Option<CopyPermit> {
        let room = |n: usize| (n < most).then_some(n + 1);
        if self.under_way.fetch_update(Relaxed, Relaxed, room).is_ok() {
            return Some(CopyPermit(Arc::clone(self)));
        }
        self.dropped.fetch_add(1, Relaxed);
        None
    }

    /// Both sides have answered: with which status, after how long.
    pub fn compared(&self, active: (u16, Duration), standby: (u16, Duration)) {
        let alike = active.0 / 100 == standby.0 / 100;
        let count = if alike { &self.same } else { &self.different };
        count.fetch_add(1, Relaxed);
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.active_micros.fetch_add(micros(active.1), Relaxed);
        self.standby_micros.fetch_add(micros(standby.1), Relaxed);
    }
}

/// A copy under way, until this is dropped.
#[derive(Debug)]
pub struct CopyPermit(Arc<BesideCounts>);

impl Drop for CopyPermit {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test panics to fail")]
mod tests {
    use super::*;

    #[test]
    fn so_many_copies_and_no_more() {
        let counts = Arc::new(BesideCounts::default());
        let permits: Vec<_> = (0..5).filter_map(|_| counts.copy(3)).collect();
        assert_eq!((permits.len(), counts.dropped.load(Relaxed)), (3, 2));
        drop(permits);
        assert!(counts.copy(1).is_some());
    }

    #[test]
    fn a_class_of_statuses_is_alike() {
        let counts = BesideCounts::default();
        let ms = Duration::from_millis;
        counts.compared((200, ms(1)), (204, ms(3)));
        counts.compared((404, ms(1)), (500, ms(3)));
        assert_eq!(
            (counts.same.load(Relaxed), counts.different.load(Relaxed)),
            (1, 1)
        );
        assert_eq!(
            (
                counts.active_micros.load(Relaxed),
                counts.standby_micros.load(Relaxed)
            ),
            (2_000, 6_000)
        );
    }
}
