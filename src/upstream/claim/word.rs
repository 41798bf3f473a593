//! The protocol of one claim word, apart from what it guards, so that loom can try every interleaving of it.

use super::atomic::{AtomicU64, Ordering};

/// The bit that refuses claims. The other 63 count.
const CLOSED: u64 = 1 << 63;

/// One worker's claims on one endpoint: a count, and a bit that refuses more.
#[derive(Debug, Default)]
pub struct Word(AtomicU64);

/// What undoing or ending a claim found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Released {
    /// Others remain, or the word is open.
    Open,
    /// It was the last claim of a closed word.
    LastOfClosed,
}

impl Word {
    /// Take a claim; `Err` when the word is closed, with what undoing the attempt found.
    ///
    /// # Errors
    /// The word is closed: load the table again.
    pub fn claim(&self) -> Result<(), Released> {
        // Acquire pairs with the Release in `close`: whoever sees the bit also sees the table published before it.
        if self.0.fetch_add(1, Ordering::Acquire) & CLOSED == 0 {
            return Ok(());
        }
        // Undoing counts as a release: between add and undo a drain may have looked and seen one.
        Err(self.release())
    }

    /// End a claim.
    pub fn release(&self) -> Released {
        // Release: what the request did happens before the drain that sees zero. AcqRel for the one who reports it.
        if self.0.fetch_sub(1, Ordering::AcqRel) == CLOSED | 1 {
            Released::LastOfClosed
        } else {
            Released::Open
        }
    }

    /// Refuse claims from now on. Publish the table without this word first.
    pub fn close(&self) {
        self.0.fetch_or(CLOSED, Ordering::AcqRel);
    }

    /// Claims held now.
    pub fn count(&self) -> u64 {
        self.0.load(Ordering::Acquire) & !CLOSED
    }
}
