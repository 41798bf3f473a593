//! Why the store refused: what, where, why, and what to do about it.

use std::io;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

/// A refusal of the store. Whatever was to be committed is not committed, and nothing moved.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The operating system refused.
    #[error("cannot {doing} {}: {cause}; {}", .path.display(), advice(.cause))]
    Io {
        /// What was tried: "append to", "create".
        doing: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the operating system said.
        cause: io::Error,
    },
    /// Another process runs on this directory.
    #[error("{} is in use by {}: stop that process, or give this one a state_dir of its own", .dir.display(), holder(.pid))]
    Locked {
        /// The state directory.
        dir: PathBuf,
        /// The process that holds it, where it has said so.
        pid: Option<u32>,
    },
    /// There is a journal and nothing in it can be read.
    #[error(
        "{} cannot be read: {why}; which color is active is unknown, so nothing is started. Put a good copy there, or move \
         `journal` and `journal.prev` away and start with `--initial COLOR`", .path.display()
    )]
    Unreadable {
        /// The journal.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A newer version of this program wrote the journal.
    #[error(
        "{} was written by a newer cutover (format {found}, this one reads up to {reads}): run that version, or put \
         back the journal from before the upgrade", .path.display()
    )]
    NewerFormat {
        /// The journal.
        path: PathBuf,
        /// The format met.
        found: u64,
        /// The newest format that this version reads.
        reads: u64,
    },
    /// The entry does not fit in one line.
    #[error(
        "the entry takes {bytes} bytes and one journal line has at most {max}: shorten reason, message or endpoints"
    )]
    TooLong {
        /// The size it would have.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// The newest state of the app is in doubt; an operator has to say that the served one is right.
    #[error(
        "app `{app}` is degraded: {why}; check its active color, then repeat with `--force --reason TEXT`"
    )]
    Degraded {
        /// The app.
        app: String,
        /// What happened.
        why: String,
    },
    /// The entry is older than what the journal holds: somebody skipped the controller.
    #[error("app `{app}` is already at generation {is}; an entry for generation {offered} is not accepted")]
    Stale {
        /// The app.
        app: String,
        /// The newest generation in the journal.
        is: u64,
        /// The generation of the refused entry.
        offered: u64,
    },
    /// The store's thread has ended. Whether the last commit was written is unknown: read the journal again.
    #[error(
        "the store has stopped; whether the change was written is unknown until the journal is read again"
    )]
    Closed,
}

impl StoreError {
    pub(super) fn io(doing: &'static str, path: &Path, cause: io::Error) -> Self {
        Self::Io {
            doing,
            path: path.to_owned(),
            cause,
        }
    }

    /// The disk or the quota is full.
    #[must_use]
    pub fn disk_full(&self) -> bool {
        matches!(self, Self::Io { cause, .. } if is_full(cause))
    }

    /// The disk or the directory does not let itself be written.
    #[must_use]
    pub fn read_only(&self) -> bool {
        matches!(self, Self::Io { cause, .. } if is_read_only(cause))
    }
}

pub(super) fn is_full(cause: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(cause),
        Some(Errno::NOSPC | Errno::DQUOT | Errno::FBIG)
    )
}

fn is_read_only(cause: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(cause),
        Some(Errno::ROFS | Errno::ACCESS | Errno::PERM)
    )
}

fn advice(cause: &io::Error) -> &'static str {
    if is_full(cause) {
        return "free space on that disk (or raise its quota) and repeat; nothing changed";
    }
    if is_read_only(cause) {
        return "make it writable for this user (mount, owner, mode) or set another state_dir; nothing changed";
    }
    match Errno::from_io_error(cause) {
        Some(Errno::IO) => {
            "the disk is failing: look at the kernel's log, then set another state_dir; nothing changed"
        }
        Some(Errno::MFILE | Errno::NFILE) => "raise the limit of open files and repeat; nothing changed",
        Some(Errno::NOENT) => "the directory is gone: create it again and repeat; nothing changed",
        _ => "nothing changed",
    }
}

fn holder(pid: &Option<u32>) -> String {
    pid.map_or_else(
        || "another process".to_owned(),
        |pid| format!("the process with pid {pid}"),
    )
}
