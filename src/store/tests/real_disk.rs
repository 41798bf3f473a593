//! A real file system that is really full, or really read-only: a small tmpfs, where this user may mount one.

use std::io::Write;
use std::process::Command;

use super::*;

/// A mounted tmpfs that is unmounted at the end.
struct Mount {
    dir: TempDir,
}

impl Mount {
    /// `None`: this user may not mount, and the test says that it did nothing.
    fn new(size: &str, test: &str) -> Option<Self> {
        let dir = TempDir::new().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"])
            .arg(dir.path())
            .output()
            .is_ok_and(|out| out.status.success());
        if !mounted {
            let _ = writeln!(std::io::stderr(), "SKIPPED {test}: mounting a tmpfs needs root");
            return None;
        }
        Some(Self { dir })
    }

    fn remount(&self, how: &str) {
        let done = Command::new("mount")
            .args(["-o", &format!("remount,{how}")])
            .arg(self.dir.path())
            .status();
        assert!(done.unwrap().success());
    }

    fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.dir.path()).status();
    }
}

/// Fill the disk to the last byte.
fn fill_up(path: &Path) {
    let mut file = fs::File::create(path).unwrap();
    let block = [1; 4096];
    for size in [4096, 256, 1] {
        while file.write_all(&block[..size]).is_ok() {}
    }
}

#[test]
fn a_full_disk_refuses_changes_and_still_goes_back() {
    let Some(mount) = Mount::new("1m", "a_full_disk_refuses_changes_and_still_goes_back") else {
        return;
    };
    let (mut journal, restored) = Journal::open(&mount.state()).unwrap();
    assert_eq!(restored.notes, Vec::<String>::new());
    journal.append(first("web"), false).unwrap();
    switch(&mut journal, "web").unwrap();
    fill_up(&mount.dir.path().join("ballast"));

    // The last page of the journal may have room for some more lines.
    let mut refused = None;
    for _ in 0..40 {
        refused = refused.or(switch(&mut journal, "web").err());
    }
    let error = refused.expect("the disk is full");
    assert!(error.disk_full(), "{error}");
    assert!(error.to_string().contains("No space left on device"), "{error}");

    let back = switched("web", journal.newest("web").unwrap());
    journal.append(back.clone(), true).unwrap();
    assert!(
        switch(&mut journal, "web").unwrap_err().disk_full(),
        "the reserve is for rollbacks"
    );
    drop(journal);

    // Still full, and started again.
    let (mut journal, restored) = Journal::open(&mount.state()).unwrap();
    assert_eq!(restored.apps["web"].state, back.state);
    assert!(switch(&mut journal, "web").unwrap_err().disk_full());
    fs::remove_file(mount.dir.path().join("ballast")).unwrap();
    switch(&mut journal, "web").unwrap();
    assert_eq!(
        fs::metadata(mount.state().join("reserve")).unwrap().len(),
        256 << 10
    );
}

#[test]
fn a_disk_that_becomes_read_only_refuses_changes_and_is_served() {
    let Some(mount) = Mount::new(
        "1m",
        "a_disk_that_becomes_read_only_refuses_changes_and_is_served",
    ) else {
        return;
    };
    let (mut journal, _) = Journal::open(&mount.state()).unwrap();
    let all = fill(&mut journal);
    drop(journal);
    // A torn line, so that there is something to cut.
    let path = mount.state().join("journal");
    let mut file = fs::OpenOptions::new().append(true).open(&path).unwrap();
    file.write_all(b"0123456789abcdef 01234").unwrap();
    drop(file);

    mount.remount("ro");
    let (mut journal, restored) = Journal::open(&mount.state()).unwrap();
    assert_eq!(restored.history, all);
    assert!(
        restored
            .notes
            .iter()
            .any(|note| note.contains("Read-only file system")),
        "{:?}",
        restored.notes
    );
    let error = switch(&mut journal, "web").unwrap_err();
    assert!(
        error.read_only() && error.to_string().contains("state_dir"),
        "{error}"
    );
    assert!(matches!(
        Journal::open(&mount.state()),
        Err(StoreError::Locked { .. })
    ));

    mount.remount("rw");
    let next = switch(&mut journal, "web").unwrap();
    drop(journal);
    let (_journal, restored) = Journal::open(&mount.state()).unwrap();
    assert_eq!(restored.apps["web"].state, next.state);
    assert_eq!(restored.notes, Vec::<String>::new());
}

#[test]
fn a_first_start_without_room_is_an_error_that_names_the_file() {
    let Some(mount) = Mount::new(
        "64k",
        "a_first_start_without_room_is_an_error_that_names_the_file",
    ) else {
        return;
    };
    fs::create_dir(mount.state()).unwrap();
    fill_up(&mount.dir.path().join("ballast"));
    let error = Journal::open(&mount.state()).unwrap_err();
    assert!(
        error.disk_full() && error.to_string().contains("journal"),
        "{error}"
    );
    fs::remove_file(mount.dir.path().join("ballast")).unwrap();
    let (mut journal, restored) = Journal::open(&mount.state()).unwrap();
    assert!(restored.fresh);
    // 64 KiB have no room for the reserve: changes go on until the disk is really full.
    assert!(restored.notes[0].contains("reserve"), "{:?}", restored.notes);
    journal.append(first("web"), false).unwrap();
    let error = (0..1000).find_map(|_| switch(&mut journal, "web").err()).unwrap();
    assert!(error.disk_full(), "{error}");
    let state = journal.newest("web").cloned().unwrap();
    drop(journal);
    let (_journal, restored) = Journal::open(&mount.state()).unwrap();
    assert_eq!(restored.apps["web"].state, state);
}
