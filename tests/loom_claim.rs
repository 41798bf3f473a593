//! The claim protocol under loom: every interleaving of a few threads, every value a relaxed read may see.
//!
//! The word's own source file is compiled here with loom's atomics. (`--cfg loom` is no way: with it tokio has no
//! net module, and the library does not build.)

#![allow(
    clippy::unwrap_used,
    unreachable_pub,
    dead_code,
    missing_docs,
    reason = "a test; the file included is the library's"
)]

mod atomic {
    pub(crate) use loom::sync::atomic::{AtomicU64, Ordering};
}
#[path = "../src/upstream/claim/word.rs"]
mod word;

use loom::sync::Arc;
use loom::sync::atomic::{AtomicU64, Ordering::Relaxed};
use loom::thread;
use word::{Released, Word};

/// One endpoint's word with what is around it. All but the word is relaxed, so that only the word orders it.
#[derive(Default)]
struct World {
    word: Word,
    /// 1 when the table without this word is published.
    table: AtomicU64,
    /// Requests between claim and release.
    inside: [AtomicU64; 2],
    /// Reports that the last claim of the closed word ended.
    reports: AtomicU64,
}

impl World {
    /// One request.
    fn request(&self, of: usize) {
        let released = match self.word.claim() {
            Ok(()) => {
                self.inside[of].store(1, Relaxed);
                self.inside[of].store(0, Relaxed);
                self.word.release()
            }
            Err(released) => {
                // What makes "load again until accepted" end: the refusal shows the newer table.
                assert_eq!(self.table.load(Relaxed), 1, "refused without a newer table");
                released
            }
        };
        if released == Released::LastOfClosed {
            self.reports.fetch_add(1, Relaxed);
        }
    }

    /// Publish and close, in this order; true if nothing was in flight right after.
    fn close(&self) -> bool {
        self.table.store(1, Relaxed);
        self.word.close();
        self.drained()
    }

    /// Look whether the drain is over; if so nobody may be inside.
    fn drained(&self) -> bool {
        let drained = self.word.count() == 0;
        if drained {
            for inside in &self.inside {
                assert_eq!(inside.load(Relaxed), 0, "drained with a request inside");
            }
        }
        drained
    }
}

#[test]
fn two_requests_and_a_close() {
    loom::model(|| {
        let world = Arc::new(World::default());
        let requests = [0, 1].map(|of| {
            let world = Arc::clone(&world);
            thread::spawn(move || world.request(of))
        });
        let seen_at_close = world.close();
        for request in requests {
            request.join().unwrap();
        }
        assert!(world.drained(), "all requests are over");
        // The controller looks once after the close and then only when told. So either it saw zero, or it is told.
        assert!(
            seen_at_close || world.reports.load(Relaxed) > 0,
            "the end of the drain was missed"
        );
        assert!(world.word.claim().is_err(), "a closed word opened again");
    });
}

#[test]
fn a_drain_that_was_seen_is_over_for_good() {
    loom::model(|| {
        let world = Arc::new(World::default());
        let request = {
            let world = Arc::clone(&world);
            thread::spawn(move || {
                world.request(0);
                world.request(0);
            })
        };
        let drained = world.close();
        if drained {
            // From here on only refused attempts come and go.
            assert!(world.word.claim().is_err());
            assert_eq!(world.inside[0].load(Relaxed), 0);
        }
        request.join().unwrap();
        assert!(world.drained(), "the request is over");
        assert!(
            drained || world.reports.load(Relaxed) > 0,
            "the end of the drain was missed"
        );
    });
}

#[test]
fn one_report_when_nobody_is_refused() {
    loom::model(|| {
        let world = Arc::new(World::default());
        // Both hold a claim before the close, so no refusal can report.
        world.word.claim().unwrap();
        world.word.claim().unwrap();
        let ends = [0, 1].map(|_| {
            let world = Arc::clone(&world);
            thread::spawn(move || world.word.release() == Released::LastOfClosed)
        });
        let seen_at_close = world.close();
        let reports = ends.map(|end| u64::from(end.join().unwrap())).iter().sum::<u64>();
        // The last request reports, once; none does if both were over before the close, and then the closer sees it.
        assert!(
            reports == 1 || (reports == 0 && seen_at_close),
            "{reports} reports"
        );
    });
}
