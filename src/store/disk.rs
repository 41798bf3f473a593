//! Every operation that changes something on disk, in one place: so that a test can make any of them fail.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::FallocateFlags;

/// The disk as the journal sees it.
#[derive(Clone, Debug, Default)]
pub(super) struct Disk {
    #[cfg(test)]
    pub(super) faults: faults::Faults,
}

/// The operations, by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Op {
    Create,
    Write,
    Sync,
    Cut,
    Link,
    Rename,
    SyncDir,
    Reserve,
}

impl Disk {
    /// Create a file, or empty it, to be written at its end. Only its owner may read it: reasons and
    /// endpoints are nobody else's business.
    pub(super) fn create(&self, path: &Path) -> io::Result<File> {
        self.may(Op::Create)?;
        // Not `truncate(true)`: that cannot be combined with `append`.
        let file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .mode(0o600)
            .open(path)?;
        file.set_len(0)?;
        Ok(file)
    }

    /// Write all bytes to the end.
    pub(super) fn write(&self, mut file: &File, bytes: &[u8]) -> io::Result<()> {
        let allowed = self.may(Op::Write);
        #[cfg(test)]
        if allowed.is_err() && !self.faults.long_dead() {
            // A disk that fails or fills up does so in the middle of a write.
            file.write_all(&bytes[..bytes.len() / 2])?;
        }
        allowed?;
        file.write_all(bytes)
    }

    /// Wait until everything written is on the medium, the length included.
    pub(super) fn sync(&self, file: &File) -> io::Result<()> {
        self.may(Op::Sync)?;
        file.sync_all()
    }

    /// Shorten a file.
    pub(super) fn cut(&self, file: &File, len: u64) -> io::Result<()> {
        self.may(Op::Cut)?;
        file.set_len(len)
    }

    /// Give a file a second name, which may be taken: it is replaced in one step.
    pub(super) fn link_over(&self, file: &Path, name: &Path, temp: &Path) -> io::Result<()> {
        self.may(Op::Link)?;
        remove(temp)?;
        if fs::hard_link(file, temp).is_err() {
            // Some file systems have no hard links.
            fs::copy(file, temp)?;
            File::open(temp)?.sync_all()?;
        }
        self.rename(temp, name)
    }

    /// Put a file in the place of another in one step.
    pub(super) fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.may(Op::Rename)?;
        fs::rename(from, to)
    }

    /// Wait until the names in a directory are on the medium.
    pub(super) fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.may(Op::SyncDir)?;
        File::open(dir)?.sync_all()
    }

    /// Give a file real blocks up to `len`, so that they are there when the disk is full.
    pub(super) fn allocate(&self, mut file: &File, len: u64) -> io::Result<()> {
        self.may(Op::Reserve)?;
        match rustix::fs::fallocate(file, FallocateFlags::empty(), 0, len) {
            Ok(()) => Ok(()),
            Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => {
                let zeros = [0; 4096];
                for _ in 0..len.div_ceil(4096) {
                    file.write_all(&zeros)?;
                }
                file.sync_all()
            }
            Err(error) => Err(error.into()),
        }
    }

    #[cfg(test)]
    fn may(&self, op: Op) -> io::Result<()> {
        self.faults.meet(op)
    }

    #[cfg(not(test))]
    #[allow(
        clippy::unused_self,
        clippy::unnecessary_wraps,
        reason = "the tests' twin fails"
    )]
    fn may(&self, _op: Op) -> io::Result<()> {
        Ok(())
    }
}

/// Remove a file that may not be there.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
pub(super) mod faults {
    #![allow(clippy::unwrap_used, reason = "a test panics to fail")]

    use std::io;
    use std::sync::{Arc, Mutex};

    use rustix::io::Errno;

    use super::Op;

    /// What a test wants to fail. Shared, so that the test keeps a hand on it.
    #[derive(Clone, Debug, Default)]
    pub(in crate::store) struct Faults(Arc<Mutex<Inner>>);

    #[derive(Debug, Default)]
    struct Inner {
        failing: Vec<(Op, Errno)>,
        /// Everything fails from this many operations on, as if the process had been killed there.
        dead_after: Option<usize>,
        met: usize,
    }

    impl Faults {
        /// This kind of operation fails from now on.
        pub(in crate::store) fn fail(&self, op: Op, errno: Errno) {
            self.0.lock().unwrap().failing.push((op, errno));
        }

        /// `n` more operations work, and then nothing does.
        pub(in crate::store) fn die_after(&self, n: usize) {
            let mut inner = self.0.lock().unwrap();
            inner.dead_after = Some(inner.met + n);
        }

        /// All works again.
        pub(in crate::store) fn heal(&self) {
            let mut inner = self.0.lock().unwrap();
            inner.failing.clear();
            inner.dead_after = None;
        }

        /// How many operations there have been.
        pub(in crate::store) fn met(&self) -> usize {
            self.0.lock().unwrap().met
        }

        pub(super) fn long_dead(&self) -> bool {
            let inner = self.0.lock().unwrap();
            inner.dead_after.is_some_and(|n| inner.met > n + 1)
        }

        pub(super) fn meet(&self, op: Op) -> io::Result<()> {
            let mut inner = self.0.lock().unwrap();
            inner.met += 1;
            if inner.dead_after.is_some_and(|n| inner.met > n) {
                return Err(Errno::IO.into());
            }
            match inner.failing.iter().find(|(failing, _)| *failing == op) {
                Some((_, errno)) => Err((*errno).into()),
                None => Ok(()),
            }
        }
    }
}
