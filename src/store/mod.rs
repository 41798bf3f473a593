//! The durable journal: what each app's routing state is, who changed it, when and why.
//!
//! ```text
//! STATE_DIR/journal          the one truth: checksummed, chained, readable lines; appended and fsynced
//! STATE_DIR/journal.prev     the file that the last compaction replaced
//! STATE_DIR/journal.damaged  a damaged file that a rewrite replaced, kept for whoever wants to look
//! STATE_DIR/lock             held by the running process; contains its pid
//! STATE_DIR/reserve          space kept back, so that a rollback still fits on a full disk
//! ```
//! A change is committed here before it is published (durable before visible). Each line has the *whole* state
//! of one app, so one readable line is enough to know an app, and a damaged one hides at most one change.
//!
//! [`Journal`] is the plain, blocking type; [`StoreHandle`] runs one on a thread of its own, because neither the
//! controller's mailbox nor any request may wait for a disk.

mod compat;
mod disk;
mod error;
mod handle;
mod journal;
mod kept;
mod line;
mod lock;
mod replay;
mod reserve;
#[cfg(test)]
mod tests;
mod wire;

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::rollout::{Actor, AppState, Applied, Note};

pub use compat::write_compat_file;
pub use error::StoreError;
pub use handle::StoreHandle;
pub use journal::Journal;
pub use line::LINE_MAX;
pub use wire::{FORMAT, state_from_json, state_to_json};

/// One thing that happened to an app, with the state that it led to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its place in the journal and its event id; assigned by the commit, whatever it was before.
    pub seq: u64,
    /// When.
    pub at: Timestamp,
    /// The app.
    pub app: String,
    /// What happened.
    pub event: Event,
    /// Who, and through which door.
    pub by: Actor,
    /// Why, in the operator's words; may be empty.
    pub reason: String,
    /// The key under which the command may be repeated.
    pub idempotency_key: Option<String>,
    /// The whole state of the app afterwards. (For [`Event::Outcome`] the commit puts in the newest one.)
    pub state: AppState,
}

/// What an [`Entry`] is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The app was seen for the first time.
    First,
    /// The process restarted and took the state up again.
    Restored {
        /// What was special about it; may be empty.
        note: String,
    },
    /// A command changed the state.
    Changed(Applied),
    /// Something to remember; the generation is the same. The reason says what.
    Noted(Note),
    /// What happened meanwhile, known only later; the state is unchanged.
    Outcome {
        /// The sequence number of the change that this is the outcome of.
        of: u64,
        /// Requests answered while the change took effect.
        requests: u64,
        /// Those of them that failed.
        failed: u64,
        /// Requests cut off at the end of the drain.
        cancelled: u64,
        /// What the proof after the switch found, in a word.
        verify: String,
    },
}

/// What a journal held when it was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Restored {
    /// The newest readable state of every app.
    pub apps: BTreeMap<String, RestoredApp>,
    /// Apps that have lines of which none can be read, and why. They have a state; it is not known. Never to be
    /// started as if they were new: their changes are refused until [`Journal::repair`].
    pub lost: BTreeMap<String, String>,
    /// Damage may have hidden apps without a trace. An app that is in neither map may be one of them, so its
    /// first commit is refused until [`Journal::repair`], too.
    pub doubt: Option<String>,
    /// What happened, oldest first, bounded.
    pub history: Vec<Entry>,
    /// The sequence number that the next commit gets.
    pub next_seq: u64,
    /// What was found and done, one sentence each, for the log and `status`. Empty when all was well.
    pub notes: Vec<String>,
    /// No journal existed: this is the first start.
    pub fresh: bool,
}

/// One app, as restored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestoredApp {
    /// Its newest readable state.
    pub state: AppState,
    /// Why that may not be the newest state there was. Its changes are refused until [`Journal::repair`].
    pub degraded: Option<String>,
}
