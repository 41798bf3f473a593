//! Space kept back for the moment when the disk is full and traffic must go back.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use super::StoreError;
use super::disk::{Disk, remove};
use super::error::is_full;

/// A file with real blocks and no content. Emptying it makes room for about a hundred journal lines.
#[derive(Debug)]
pub(super) struct Reserve {
    path: PathBuf,
    size: u64,
    kept: Kept,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kept {
    /// The space is there.
    Full,
    /// It was given up and could not be taken again yet.
    Spent,
    /// There has never been room for it.
    Never,
}

impl Reserve {
    /// Take the reserve. That it cannot be taken is a note, not an error.
    pub(super) fn open(dir: &Path, size: u64, disk: &Disk, notes: &mut Vec<String>) -> Self {
        let path = dir.join("reserve");
        let length = std::fs::metadata(&path).ok().map(|is| is.len());
        let mut reserve = Self {
            path,
            size,
            kept: Kept::Spent,
        };
        if length == Some(size) {
            reserve.kept = Kept::Full;
        } else if let Err(error) = reserve.take(disk) {
            if length.is_none() {
                // Without it, changes go on until the disk is really full.
                let _ = remove(&reserve.path);
                reserve.kept = Kept::Never;
            }
            let (path, kib) = (reserve.path.display(), size / 1024);
            notes.push(format!(
                "the reserve {path} of {kib} KiB cannot be taken ({error}): on a full disk a rollback may not be stored"
            ));
        }
        reserve
    }

    /// Give the space up. `false`: there is none to give.
    pub(super) fn give_up(&mut self, disk: &Disk) -> bool {
        if self.kept != Kept::Full {
            return false;
        }
        // Blocks are free only once the file system has written down that they are: hence the fsync.
        let emptied = File::options()
            .write(true)
            .open(&self.path)
            .and_then(|file| disk.cut(&file, 0).and_then(|()| disk.sync(&file)));
        self.kept = Kept::Spent;
        emptied.is_ok()
    }

    /// Take the space again after it was given up, before an ordinary change is written: what was freed for
    /// rollbacks must not go to anything else.
    pub(super) fn refill(&mut self, disk: &Disk) -> Result<(), StoreError> {
        if self.kept != Kept::Spent {
            return Ok(());
        }
        match self.take(disk) {
            Err(cause) if is_full(&cause) => Err(StoreError::io("take the reserve for", &self.path, cause)),
            // The disk is not full, so an ordinary change takes nothing from a rollback.
            _ => Ok(()),
        }
    }

    fn take(&mut self, disk: &Disk) -> io::Result<()> {
        let file = disk.create(&self.path)?;
        let taken = disk.allocate(&file, self.size);
        match &taken {
            Ok(()) => self.kept = Kept::Full,
            Err(_) => file.set_len(0)?, // a part of it would be neither reserve nor free
        }
        taken
    }
}
