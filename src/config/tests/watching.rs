#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test panics to fail")]

use std::fs;
use std::os::unix::fs::symlink;

use super::*;

/// Far longer than any change should take; only a failing test waits this long.
const PATIENCE: Duration = Duration::from_secs(20);

fn hash(text: &str) -> Changed {
    Changed::Content(ContentHash::of(text.as_bytes()))
}

struct Watched {
    changes: mpsc::Receiver<Changed>,
    guard: Option<WatchGuard>,
    dir: tempfile::TempDir,
}

impl Watched {
    /// A file with this content, watched.
    fn of(text: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("cutover.toml"), text).unwrap();
        Self::in_dir(dir, text)
    }

    fn in_dir(dir: tempfile::TempDir, text: &str) -> Self {
        let loaded = ContentHash::of(text.as_bytes());
        let (changes, guard, warning) = watch(dir.path().join("cutover.toml"), loaded).unwrap();
        assert_eq!(warning, None);
        Self {
            changes,
            guard: Some(guard),
            dir,
        }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    async fn next(&mut self) -> Option<Changed> {
        tokio::time::timeout(PATIENCE, self.changes.recv())
            .await
            .expect("the watch must report")
    }
}

#[tokio::test]
async fn an_editors_rename_is_one_change() {
    let mut watched = Watched::of("a");
    fs::write(watched.at("cutover.toml.tmp"), "b").unwrap();
    fs::rename(watched.at("cutover.toml.tmp"), watched.at("cutover.toml")).unwrap();
    assert_eq!(watched.next().await, Some(hash("b")));
    // The directory is watched, so the new file is too.
    fs::write(watched.at("cutover.toml"), "c").unwrap();
    assert_eq!(watched.next().await, Some(hash("c")));
}

#[tokio::test]
async fn a_change_before_the_watch_began_is_seen() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("cutover.toml"), "newer").unwrap();
    let mut watched = Watched::in_dir(dir, "as it was loaded");
    assert_eq!(watched.next().await, Some(hash("newer")));
}

#[tokio::test]
async fn a_kubernetes_swap_is_one_change() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    for (version, text) in [("..v1", "a"), ("..v2", "b"), ("..v3", "c")] {
        fs::create_dir(at(version)).unwrap();
        fs::write(at(version).join("cutover.toml"), text).unwrap();
    }
    symlink("..v1", at("..data")).unwrap();
    symlink("..data/cutover.toml", at("cutover.toml")).unwrap();
    let mut watched = Watched::in_dir(dir, "a");
    for (version, before, text) in [("..v2", "..v1", "b"), ("..v3", "..v2", "c")] {
        symlink(version, watched.at("..data_tmp")).unwrap();
        fs::rename(watched.at("..data_tmp"), watched.at("..data")).unwrap();
        fs::remove_dir_all(watched.at(before)).unwrap();
        assert_eq!(watched.next().await, Some(hash(text)));
    }
}

#[tokio::test]
async fn a_link_into_another_directory_is_followed() {
    let other = tempfile::tempdir().unwrap();
    fs::write(other.path().join("real.toml"), "a").unwrap();
    let dir = tempfile::tempdir().unwrap();
    symlink(other.path().join("real.toml"), dir.path().join("cutover.toml")).unwrap();
    let mut watched = Watched::in_dir(dir, "a");
    fs::write(other.path().join("real.toml"), "b").unwrap();
    assert_eq!(watched.next().await, Some(hash("b")));
}

#[tokio::test]
async fn a_file_gone_and_back_is_two_changes_even_if_it_is_the_same() {
    let mut watched = Watched::of("a");
    fs::remove_file(watched.at("cutover.toml")).unwrap();
    assert!(matches!(watched.next().await, Some(Changed::Unreadable(why)) if why.contains("No such file")));
    fs::write(watched.at("cutover.toml"), "a").unwrap();
    assert_eq!(watched.next().await, Some(hash("a")));
}

#[tokio::test]
async fn a_rewrite_of_the_same_is_no_change() {
    let mut watched = Watched::of("a");
    for _ in 0..10 {
        fs::write(watched.at("cutover.toml.tmp"), "a").unwrap();
        fs::rename(watched.at("cutover.toml.tmp"), watched.at("cutover.toml")).unwrap();
    }
    // Had the rewrites been reported, one of them would come before this.
    fs::write(watched.at("cutover.toml"), "b").unwrap();
    assert_eq!(watched.next().await, Some(hash("b")));
}

#[tokio::test]
async fn a_storm_of_changes_is_few_reports_and_ends_with_the_last() {
    let mut watched = Watched::of("a");
    for n in 0..500 {
        fs::write(watched.at("cutover.toml.tmp"), format!("{n}")).unwrap();
        fs::rename(watched.at("cutover.toml.tmp"), watched.at("cutover.toml")).unwrap();
        fs::write(watched.at("another file"), "x").unwrap();
    }
    let mut reports = 1;
    while watched.next().await != Some(hash("499")) {
        reports += 1;
    }
    assert!(reports < 25, "{reports} reports of 500 changes");
}

#[tokio::test]
async fn a_half_written_file_ends_as_the_whole() {
    use std::io::Write;
    let mut watched = Watched::of("a");
    let mut file = fs::File::create(watched.at("cutover.toml")).unwrap();
    file.write_all(b"half").unwrap();
    file.flush().unwrap();
    file.write_all(b" and half").unwrap();
    drop(file);
    while watched.next().await != Some(hash("half and half")) {}
}

#[test]
fn only_what_two_looks_agree_on_is_news() {
    let seen = |text: &str| Seen::Content(ContentHash::of(text.as_bytes()));
    let gone = || Seen::Unreadable("gone".to_owned());
    let mut looks = [gone(), seen("half"), seen("whole"), seen("whole"), seen("never")].into_iter();
    assert_eq!(settle(seen("half"), || looks.next()), Some(seen("whole")));
    assert_eq!(looks.next(), Some(seen("never")), "no look more than needed");
    assert_eq!(settle(seen("a"), || None), None, "the watch ended");
}

#[tokio::test]
async fn without_notifications_it_polls_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("cutover.toml");
    fs::write(&path, "a").unwrap();
    let fails = |_: SyncSender<()>, _: SharedNames| Err(notify::Error::generic("no watches left"));
    let (mut changes, _guard, warning) = start(path.clone(), ContentHash::of(b"a"), fails).unwrap();
    let warning = warning.unwrap();
    assert!(
        warning.contains("no watches left") && warning.contains("every 2 seconds"),
        "{warning}"
    );
    fs::write(&path, "b").unwrap();
    let change = tokio::time::timeout(PATIENCE, changes.recv()).await.unwrap();
    assert_eq!(change, Some(hash("b")));
}

#[tokio::test]
async fn any_change_of_any_of_several_files_is_told() {
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let paths = [one.path().join("site.pem"), other.path().join("site.key")];
    fs::write(&paths[0], "a").unwrap();
    let watched = paths.clone();
    let (mut changes, _guard, warning) = watch_files(move || watched.to_vec()).unwrap();
    assert_eq!(warning, None);
    let mut next = async || {
        tokio::time::timeout(PATIENCE, changes.recv())
            .await
            .expect("the watch must report")
    };
    let mut seen = vec![next().await];
    fs::write(&paths[1], "b").unwrap();
    seen.push(next().await);
    fs::write(&paths[0], "c").unwrap();
    seen.push(next().await);
    fs::remove_file(&paths[0]).unwrap();
    seen.push(next().await);
    for (at, change) in seen.iter().enumerate() {
        assert!(matches!(change, Some(Changed::Content(_))), "{change:?}");
        assert!(!seen[..at].contains(change), "{seen:?}");
    }
}

#[tokio::test]
async fn a_slow_receiver_gets_the_newest() {
    let mut watched = Watched::of("a");
    fs::write(watched.at("cutover.toml"), "b").unwrap();
    // Nobody takes "b" out while it waits in the channel; what comes after it must not be lost.
    let waiting = async {
        while watched.changes.is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting)
        .await
        .expect("the watch must report");
    fs::write(watched.at("cutover.toml"), "c").unwrap();
    assert_eq!(watched.next().await, Some(hash("b")));
    assert_eq!(watched.next().await, Some(hash("c")));
}

#[tokio::test]
async fn it_ends_with_its_guard() {
    let mut watched = Watched::of("a");
    drop(watched.guard.take());
    assert_eq!(watched.next().await, None);
}

#[test]
fn notifications_wake_it_and_reading_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("cutover.toml");
    fs::write(&path, "a").unwrap();
    let (wake, woken) = sync_channel(1);
    let names = SharedNames::default();
    let mut places = Places {
        notifier: Some(notifier(wake, Arc::clone(&names)).unwrap()),
        names,
        watched: BTreeSet::new(),
    };
    assert_eq!(places.follow(std::slice::from_ref(&path)), None);
    fs::write(dir.path().join("tmp"), "b").unwrap();
    fs::rename(dir.path().join("tmp"), &path).unwrap();
    // No poll is running here: only a notification can end this.
    woken.recv_timeout(PATIENCE).unwrap();
}

#[test]
fn only_events_of_the_file_matter() {
    use notify::event::{CreateKind, ModifyKind};
    let names = Names(["cutover.toml".into()].into());
    let event = |kind, name: &str| notify::Event::new(kind).add_path(PathBuf::from("/etc").join(name));
    let written = EventKind::Access(AccessKind::Close(AccessMode::Write));
    let opened = EventKind::Access(AccessKind::Open(AccessMode::Any));
    let read = EventKind::Access(AccessKind::Close(AccessMode::Read));
    let modified = EventKind::Modify(ModifyKind::Any);
    assert!(names.concern(&event(written, "cutover.toml")));
    assert!(names.concern(&event(modified, "cutover.toml")));
    assert!(names.concern(&event(EventKind::Create(CreateKind::Any), "..data")));
    assert!(!names.concern(&event(opened, "cutover.toml")));
    assert!(!names.concern(&event(read, "cutover.toml")));
    assert!(!names.concern(&event(modified, "access.log")));
}
