//! Claims: a request holds one on its endpoint until its last byte, and a drain is over when none is left.
//!
//! In-flight count and closed bit share one atomic word, a word a worker. To claim is to add one and look at the
//! bit that came back; a closed word is never opened again, so a refused claim proves that a newer table is out.

use std::fmt;
use std::sync::Arc;

use tokio::sync::Notify;

use super::{Endpoint, Slot};
use atomic::{AtomicU64, Ordering};

mod word;
pub use word::{Released, Word};

/// The atomics of [`word`]. `tests/loom_claim.rs` compiles the same file with loom's instead.
mod atomic {
    pub(super) use std::sync::atomic::{AtomicU64, Ordering};
}

#[cfg(test)]
mod tests;

/// One time of service of one endpoint: a word for each worker. When the time is over it is closed; a later time
/// of service is another gate.
pub struct Gate {
    /// Unique in the process.
    pub id: u64,
    words: Box<[Arc<GuardedWord>]>,
}

/// A worker's word with what a claim needs. In an `Arc` of its own, so that claiming touches only cache lines
/// that belong to the worker.
#[repr(align(128))]
struct GuardedWord {
    word: Word,
    /// Of the claims, those that are streams. Only the owning worker writes.
    streams: AtomicU64,
    gate: u64,
    endpoint: Arc<Endpoint>,
    drained: Arc<Notify>,
}

impl Gate {
    /// An open gate for `workers` workers; `drained` is notified when a closed word falls to zero.
    #[must_use]
    pub fn open(endpoint: &Arc<Endpoint>, workers: usize, drained: &Arc<Notify>) -> Arc<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        let word = || {
            Arc::new(GuardedWord {
                word: Word::default(),
                streams: AtomicU64::new(0),
                gate: id,
                endpoint: Arc::clone(endpoint),
                drained: Arc::clone(drained),
            })
        };
        Arc::new(Self {
            id,
            words: (0..workers).map(|_| word()).collect(),
        })
    }

    /// Claim for a request on this worker; `None` when the gate is closed: load the table again.
    pub fn claim(&self, worker: usize) -> Option<Claim> {
        let word = self.words.get(worker)?;
        match word.word.claim() {
            Ok(()) => Some(Claim {
                word: Arc::clone(word),
                slot: None,
            }),
            Err(released) => {
                word.report(released);
                None
            }
        }
    }

    /// Refuse claims from now on. The table without this gate must be published already.
    pub fn close(&self) {
        for word in &self.words {
            word.word.close();
        }
    }

    /// Claims held now, over all workers. Zero on a closed gate means drained, for good.
    #[must_use]
    pub fn in_flight(&self) -> u64 {
        self.words.iter().map(|word| word.word.count()).sum()
    }

    /// Of the claims held now, those of streams: they follow a policy of their own when the gate is closed.
    #[must_use]
    pub fn streams(&self) -> u64 {
        self.words
            .iter()
            .map(|word| word.streams.load(Ordering::Relaxed))
            .sum()
    }

    /// Claims that one worker holds now.
    #[must_use]
    pub fn in_flight_on(&self, worker: usize) -> u64 {
        self.words.get(worker).map_or(0, |word| word.word.count())
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate")
            .field("id", &self.id)
            .field("in_flight", &self.in_flight())
            .finish()
    }
}

impl GuardedWord {
    fn report(&self, released: Released) {
        if released == Released::LastOfClosed {
            self.drained.notify_one();
        }
    }
}

/// A request's hold on its endpoint. Dropping it is the end of the request, and may be the end of a drain.
pub struct Claim {
    word: Arc<GuardedWord>,
    /// Where the endpoint's requests are bounded. Boxed: elsewhere a claim is to stay as small as it was.
    slot: Option<Box<Slot>>,
}

impl Claim {
    /// The endpoint claimed.
    #[must_use]
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        &self.word.endpoint
    }

    /// With this slot, which is given back when the claim ends.
    #[must_use]
    pub fn with_slot(self, slot: Slot) -> Self {
        let mut claim = self;
        claim.slot = Some(Box::new(slot));
        claim
    }

    /// The gate it went through.
    #[must_use]
    pub fn gate(&self) -> u64 {
        self.word.gate
    }

    /// The request has become a stream, until the mark is dropped (before the claim).
    #[must_use]
    pub fn mark_stream(&self) -> StreamMark {
        self.word.streams.fetch_add(1, Ordering::Relaxed);
        StreamMark(Arc::clone(&self.word))
    }
}

/// Says of a claim that it is a stream's.
pub struct StreamMark(Arc<GuardedWord>);

impl Drop for StreamMark {
    fn drop(&mut self) {
        self.0.streams.fetch_sub(1, Ordering::Relaxed);
    }
}

impl fmt::Debug for StreamMark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("StreamMark").field(&self.0.gate).finish()
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.word.report(self.word.word.release());
    }
}

impl fmt::Debug for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Claim").field(&self.word.endpoint.key).finish()
    }
}
