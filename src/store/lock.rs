//! One process at a time on a state directory.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::StoreError;
use super::error::is_full;

/// The lock on a state directory, held while this lives. The kernel lets go when the process dies, however it
/// dies, so a lock file that a dead process left is simply taken.
#[derive(Debug)]
pub(super) struct Lock {
    _file: File,
}

impl Lock {
    pub(super) fn take(dir: &Path) -> Result<Self, StoreError> {
        let path = dir.join("lock");
        let mut file = open(&path).map_err(|cause| StoreError::io("open", &path, cause))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                return Err(StoreError::Locked {
                    dir: dir.to_owned(),
                    pid: read_pid(&mut file),
                });
            }
            Err(errno) => return Err(StoreError::io("lock", &path, errno.into())),
        }
        // The pid is a courtesy to the next one who comes. The lock holds without it, so a full or read-only
        // disk is no reason to stop here.
        let _ = write_pid(&mut file);
        Ok(Self { _file: file })
    }
}

fn open(path: &Path) -> io::Result<File> {
    let writable = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path);
    match writable {
        // On a read-only disk the journal is still served, and the lock of an earlier run still locks.
        Err(error) if is_full(&error) || error.kind() != io::ErrorKind::NotFound => {
            File::open(path).map_err(|_| error)
        }
        other => other,
    }
}

fn read_pid(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.take(32).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

fn write_pid(file: &mut File) -> io::Result<()> {
    file.rewind()?;
    file.set_len(0)?;
    writeln!(file, "{}", std::process::id())
}
