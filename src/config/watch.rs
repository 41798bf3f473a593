//! Tells when the content of the configuration file, or of files that it names, has changed.
//!
//! File notifications say *when* to look, the hash of the content says *whether* anything changed. They watch
//! the directories and not the file: editors and Kubernetes replace files and links, and a watch on the file
//! would stay with the old one. Where notifications do not arrive (network and bind mounts, no watches left), a
//! look every two seconds does the same work.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use notify::event::{AccessKind, AccessMode};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;

use super::load::{ContentHash, read_file};

/// Between two looks when nothing was heard.
const POLL: Duration = Duration::from_secs(2);

/// How long nothing may be heard before the file is read.
const QUIET: Duration = Duration::from_millis(200);

/// A storm of notifications does not put off a look for longer than this.
const STORM_MAX: Duration = Duration::from_secs(2);

/// Between the two reads that must agree.
const SETTLE: Duration = Duration::from_millis(50);

/// What became of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Changed {
    /// It has other content now: load it.
    Content(ContentHash),
    /// It cannot be read any more, and why; the configuration in use stays.
    Unreadable(String),
}

/// Ends the watch when dropped.
#[derive(Debug)]
pub struct WatchGuard {
    stop: Arc<AtomicBool>,
    wake: SyncSender<()>,
}

impl Drop for WatchGuard {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        // A full channel wakes the thread just as well.
        let _ = self.wake.try_send(());
    }
}

/// Watch a configuration file whose content was `loaded`, on a thread of its own, until the guard is dropped.
///
/// Only the newest change waits in the channel: whoever is slow misses what is out of date. The string is a
/// warning: notifications cannot be had, and changes are noticed within seconds by polling alone.
///
/// # Errors
/// When no thread can be started.
pub fn watch(
    path: PathBuf,
    loaded: ContentHash,
) -> std::io::Result<(mpsc::Receiver<Changed>, WatchGuard, Option<String>)> {
    start(path, loaded, notifier)
}

/// Watch several files at once, such as certificates: any change of any of them is one [`Changed::Content`], whatever
/// has become of the file. `paths` is asked at each look, so the list may change. The first look is news too.
///
/// # Errors
/// As [`watch`].
pub fn watch_files(
    paths: impl Fn() -> Vec<PathBuf> + Send + Sync + 'static,
) -> std::io::Result<(mpsc::Receiver<Changed>, WatchGuard, Option<String>)> {
    let paths: Paths = Arc::new(paths);
    let subject = Subject {
        name: "the certificates",
        thread: "certificate-watch",
        look: {
            let paths = Arc::clone(&paths);
            Box::new(move || Seen::look_at_all(&paths()))
        },
        paths,
    };
    start_with(
        subject,
        Seen::Unreadable("not looked at yet".to_owned()),
        notifier,
    )
}

type SharedNames = Arc<Mutex<Names>>;

fn start(
    path: PathBuf,
    loaded: ContentHash,
    notifier: impl FnOnce(SyncSender<()>, SharedNames) -> Result<RecommendedWatcher, notify::Error>,
) -> std::io::Result<(mpsc::Receiver<Changed>, WatchGuard, Option<String>)> {
    let followed = path.clone();
    let subject = Subject {
        name: "the configuration",
        thread: "config-watch",
        look: Box::new(move || Seen::look(&path)),
        paths: Arc::new(move || vec![followed.clone()]),
    };
    start_with(subject, Seen::Content(loaded), notifier)
}

type Paths = Arc<dyn Fn() -> Vec<PathBuf> + Send + Sync>;

/// What is watched.
struct Subject {
    /// In the warning.
    name: &'static str,
    thread: &'static str,
    look: Box<dyn Fn() -> Seen + Send>,
    paths: Paths,
}

fn start_with(
    subject: Subject,
    delivered: Seen,
    notifier: impl FnOnce(SyncSender<()>, SharedNames) -> Result<RecommendedWatcher, notify::Error>,
) -> std::io::Result<(mpsc::Receiver<Changed>, WatchGuard, Option<String>)> {
    let (wake, woken) = sync_channel(1);
    let names = SharedNames::default();
    let (notifier, mut warning) = match notifier(wake.clone(), Arc::clone(&names)) {
        Ok(notifier) => (Some(notifier), None),
        Err(error) => (None, Some(error.to_string())),
    };
    let mut places = Places {
        notifier,
        names,
        watched: BTreeSet::new(),
    };
    if let Some(error) = places.follow(&(subject.paths)()) {
        warning.get_or_insert(error);
    }
    let stop = Arc::new(AtomicBool::new(false));
    let (out, changes) = mpsc::channel(1);
    let (name, thread) = (subject.name, subject.thread);
    let watching = Watching {
        delivered,
        pending: None,
        subject,
        places,
        woken,
        stop: Arc::clone(&stop),
        out,
    };
    std::thread::Builder::new()
        .name(thread.to_owned())
        .spawn(move || watching.run())?;
    let warning = warning.map(|error| {
        format!("file notifications cannot be used ({error}): {name} is looked at every 2 seconds")
    });
    Ok((changes, WatchGuard { stop, wake }, warning))
}

/// What one look found.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Seen {
    Content(ContentHash),
    Unreadable(String),
}

impl Seen {
    fn look(path: &Path) -> Self {
        match read_file(path) {
            Ok(bytes) => Self::Content(ContentHash::of(&bytes)),
            Err(error) => Self::Unreadable(error.to_string()),
        }
    }

    /// Several files as one: each with its content, or why it has none.
    fn look_at_all(paths: &[PathBuf]) -> Self {
        let mut all = Vec::new();
        for path in paths {
            let seen = format!("{:?} {:?}\n", path, Self::look(path));
            all.extend_from_slice(seen.as_bytes());
        }
        Self::Content(ContentHash::of(&all))
    }
}

/// The thread.
struct Watching {
    subject: Subject,
    places: Places,
    woken: Receiver<()>,
    stop: Arc<AtomicBool>,
    out: mpsc::Sender<Changed>,
    /// What the receiver knows, or is about to.
    delivered: Seen,
    /// A change that found the channel full.
    pending: Option<Changed>,
}

impl Watching {
    fn run(mut self) {
        // Something may have changed between the load and the first watch, so the first look is now.
        while !self.ended() {
            self.look();
            self.send();
            match self.woken.recv_timeout(POLL) {
                Ok(()) => self.wait_for_quiet(),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn ended(&self) -> bool {
        self.stop.load(Ordering::Acquire) || self.out.is_closed()
    }

    fn wait_for_quiet(&self) {
        let end = Instant::now() + STORM_MAX;
        while !self.ended() && Instant::now() < end {
            if self.woken.recv_timeout(QUIET).is_err() {
                return;
            }
        }
    }

    /// A file that is being written, or missing for the moment of a rename, is not news.
    fn look(&mut self) {
        let seen = (self.subject.look)();
        if seen == self.delivered {
            return;
        }
        let settled = settle(seen, || {
            std::thread::sleep(SETTLE);
            (!self.ended()).then(|| (self.subject.look)())
        });
        let Some(seen) = settled else { return };
        // Links may lead elsewhere now.
        self.places.follow(&(self.subject.paths)());
        if seen != self.delivered {
            self.pending = Some(match &seen {
                Seen::Content(hash) => Changed::Content(*hash),
                Seen::Unreadable(why) => Changed::Unreadable(why.clone()),
            });
            self.delivered = seen;
        }
    }

    fn send(&mut self) {
        if let Some(change) = self.pending.take()
            && let Err(mpsc::error::TrySendError::Full(change)) = self.out.try_send(change)
        {
            self.pending = Some(change);
        }
    }
}

/// What two looks in a row agree on; none when there is no other look.
fn settle(mut seen: Seen, mut again: impl FnMut() -> Option<Seen>) -> Option<Seen> {
    loop {
        let next = again()?;
        if next == seen {
            return Some(seen);
        }
        seen = next;
    }
}

/// File names that a notification is about when it matters.
#[derive(Default)]
struct Names(BTreeSet<OsString>);

impl Names {
    fn concern(&self, event: &notify::Event) -> bool {
        let read_only = match event.kind {
            EventKind::Access(AccessKind::Close(AccessMode::Write)) => false,
            // Our own reading would wake us for ever.
            EventKind::Access(_) => true,
            _ => false,
        };
        if read_only {
            return false;
        }
        event.need_rescan()
            || event.paths.is_empty()
            || event.paths.iter().any(|path| {
                path.file_name().is_none_or(|name| {
                    // Kubernetes keeps the content behind `..data`.
                    self.0.contains(name) || name.to_string_lossy().starts_with("..")
                })
            })
    }
}

fn notifier(wake: SyncSender<()>, names: SharedNames) -> Result<RecommendedWatcher, notify::Error> {
    notify::recommended_watcher(move |event: Result<notify::Event, notify::Error>| {
        let matters = match (&event, names.lock()) {
            (Ok(event), Ok(names)) => names.concern(event),
            _ => true,
        };
        if matters {
            // One waiting signal stands for any number of events.
            let _ = wake.try_send(());
        }
    })
}

/// The directories that are watched.
struct Places {
    notifier: Option<RecommendedWatcher>,
    names: SharedNames,
    watched: BTreeSet<PathBuf>,
}

impl Places {
    /// Watch the directory of each file, and of each link on the way to it. The string says why one cannot be.
    fn follow(&mut self, paths: &[PathBuf]) -> Option<String> {
        let notifier = self.notifier.as_mut()?;
        let (mut wanted, mut names) = (BTreeSet::new(), BTreeSet::new());
        for path in paths {
            let (directories, of_path) = places_of(path);
            wanted.extend(directories);
            names.extend(of_path);
        }
        if let Ok(mut known) = self.names.lock() {
            known.0 = names;
        }
        for gone in self.watched.difference(&wanted) {
            // The directory may not exist any more.
            let _ = notifier.unwatch(gone);
        }
        let mut failed = None;
        for new in &wanted {
            // Again for those known: a directory that was replaced has a watch that will never fire.
            if let Err(error) = notifier.watch(new, RecursiveMode::NonRecursive) {
                failed = Some(format!("{}: {error}", new.display()));
            }
        }
        self.watched = wanted;
        failed
    }
}

fn places_of(path: &Path) -> (BTreeSet<PathBuf>, BTreeSet<OsString>) {
    /// As many links as the kernel follows.
    const LINKS_MAX: usize = 40;
    let mut directories = BTreeSet::new();
    let mut names = BTreeSet::new();
    let mut path = path.to_owned();
    for _ in 0..LINKS_MAX {
        let directory = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
            _ => PathBuf::from("."),
        };
        names.extend(path.file_name().map(OsString::from));
        let target = std::fs::read_link(&path);
        path = match target {
            Ok(target) => directory.join(target),
            Err(_) => PathBuf::new(),
        };
        directories.insert(directory);
        if path.as_os_str().is_empty() {
            break;
        }
    }
    (directories, names)
}

#[cfg(test)]
#[path = "tests/watching.rs"]
mod tests;
