//! The lock, the rules of order, the thread, and the compatibility file.

use std::future::Future;
use std::os::unix::fs::PermissionsExt;
use std::pin::pin;
use std::task::{Context, Waker};

use super::super::{StoreHandle, state_from_json, state_to_json, write_compat_file};
use super::*;

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn the_state_directory_and_its_files_are_their_owners_alone() {
    let place = Place::new();
    let _journal = place.open();
    assert_eq!(mode(&place.path()), 0o700);
    for name in ["journal", "lock", "reserve"] {
        assert_eq!(mode(&place.file(name)), 0o600, "{name}");
    }
}

#[test]
fn a_second_process_is_refused_with_the_pid_of_the_first() {
    let place = Place::new();
    let (journal, _) = place.open();
    let error = place.try_open().unwrap_err();
    let pid = std::process::id();
    assert!(
        matches!(error, StoreError::Locked { pid: Some(held), .. } if held == pid),
        "{error}"
    );
    assert!(error.to_string().contains(&format!("pid {pid}")), "{error}");
    drop(journal);
    place.open();
}

#[test]
fn the_lock_of_a_dead_process_is_taken() {
    let place = Place::new();
    fs::create_dir(place.path()).unwrap();
    fs::write(place.file("lock"), "4194304999\n").unwrap();
    let (_journal, restored) = place.open();
    assert!(restored.fresh);
    assert_eq!(
        fs::read_to_string(place.file("lock")).unwrap(),
        format!("{}\n", std::process::id())
    );
}

#[test]
fn a_state_directory_that_is_a_file_is_an_error() {
    let place = Place::new();
    fs::write(place.path(), "").unwrap();
    let error = place.try_open().unwrap_err();
    assert!(error.to_string().contains("state directory"), "{error}");
}

#[test]
fn an_entry_older_than_the_newest_is_refused() {
    let place = Place::new();
    let (mut journal, _) = place.open();
    let all = fill(&mut journal);
    let old = all[2].clone();
    assert!(matches!(
        journal.append(old, false),
        Err(StoreError::Stale {
            is: 4,
            offered: 2,
            ..
        })
    ));
}

#[test]
fn an_outcome_never_takes_an_app_back() {
    let place = Place::new();
    let (mut journal, _) = place.open();
    let all = fill(&mut journal);
    let newest = newest(&all, "web").unwrap();
    // The outcome of the first switch comes in after two more.
    journal
        .append(entry("web", outcome(3), &all[2].state), false)
        .unwrap();
    drop(journal);
    let restored = place.opened();
    assert_eq!(restored.apps["web"].state, newest.state);
    assert_eq!(restored.history.last().unwrap().state, newest.state);
}

#[test]
fn a_journal_moved_away_under_the_running_process_is_written_anew() {
    for how in ["removed", "replaced", "longer"] {
        let place = Place::new();
        let (mut journal, _) = place.open();
        let all = fill(&mut journal);
        let path = place.file("journal");
        match how {
            "removed" => fs::remove_file(&path).unwrap(),
            "replaced" => {
                fs::remove_file(&path).unwrap();
                fs::write(&path, "nonsense").unwrap();
            }
            _ => fs::write(&path, [&place.journal()[..], b"more"].concat()).unwrap(),
        }
        let next = switch(&mut journal, "web").unwrap();
        drop(journal);
        let restored = place.opened();
        assert_eq!(restored.apps["web"].state, next.state, "{how}");
        assert_eq!(&restored.history[..all.len()], all, "{how}");
        assert_eq!(restored.notes, Vec::<String>::new(), "{how}");
    }
}

#[test]
fn a_journal_line_can_be_read_by_a_human() {
    let place = Place::new();
    let (mut journal, _) = place.open();
    journal.append(first("web"), false).unwrap();
    let entry = switch(&mut journal, "web").unwrap();
    let text = String::from_utf8(place.journal()).unwrap();
    let line = text.lines().last().unwrap();
    let (sums, json) = line.split_once(" 2 {").unwrap();
    assert_eq!(sums.len(), 33);
    for part in [
        r#""app":"web""#,
        r#""event":{"switch":{"from":"blue","to":"green"}}"#,
        r#""by":"uid 1000 (deploy)","trigger":"cli""#,
        r#""active":"green""#,
        &format!(r#""at":"{}""#, entry.at),
    ] {
        assert!(json.contains(part), "{part} in {json}");
    }
}

#[test]
fn a_state_out_of_range_is_not_read() {
    let good = state_to_json(&AppState::first(Color::Blue, now()));
    assert_eq!(
        state_from_json(&good).unwrap(),
        AppState::first(Color::Blue, now())
    );
    for (from, to) in [
        (r#""weight":0"#, r#""weight":100"#),
        (r#""weight":0"#, r#""weight":-1"#),
        (r#""generation":1"#, r#""generation":0"#),
        (r#""active":"blue""#, r#""active":"Blue""#),
        (r#""active":"blue""#, r#""active":"blue","pinned":true"#),
        (r#""active":"blue","#, ""),
    ] {
        let bad = good.replace(from, to);
        assert_ne!(bad, good);
        state_from_json(&bad).unwrap_err();
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(future)
}

#[test]
fn the_handle_commits_answers_and_closes() {
    let place = Place::new();
    let (journal, _) = place.open();
    block_on(async {
        let store = StoreHandle::start(journal).unwrap();
        let other = store.clone();
        assert_eq!(store.commit(first("web"), false).await.unwrap(), 1);
        let state = other.newest("web").await.unwrap().unwrap();
        let next = switched("web", &state);
        assert_eq!(other.commit(next.clone(), true).await.unwrap(), 2);
        assert_eq!(store.newest("web").await.unwrap(), Some(next.state));
        assert_eq!(store.newest("api").await.unwrap(), None);
        store.compact().await.unwrap();
        store.repair("web").await.unwrap();
        store.close().await;
        // The directory is free, and the other handle knows.
        let (journal, restored) = place.open();
        assert_eq!(restored.history.len(), 2);
        assert!(matches!(
            other.commit(first("api"), false).await,
            Err(StoreError::Closed)
        ));
        other.close().await;
        drop(journal);
    });
}

#[test]
fn a_commit_that_nobody_waits_for_any_more_is_made() {
    let place = Place::new();
    let (journal, _) = place.open();
    block_on(async {
        let store = StoreHandle::start(journal).unwrap();
        {
            let commit = pin!(store.commit(first("web"), false));
            let _ = commit.poll(&mut Context::from_waker(Waker::noop()));
        }
        assert!(store.newest("web").await.unwrap().is_some());
    });
}

#[test]
fn the_compat_file_has_the_color_and_a_newline() {
    let dir = TempDir::new().unwrap();
    let template = dir.path().join(".current-env-{app}");
    let template = template.to_str().unwrap();
    let path = write_compat_file(template, "web", Color::Green).unwrap();
    assert_eq!(path, dir.path().join(".current-env-web"));
    assert_eq!(fs::read_to_string(&path).unwrap(), "green\n");
    // What somebody wrote there, and what a crash left, is replaced.
    fs::write(&path, "blue and more\n").unwrap();
    fs::write(dir.path().join("..current-env-web.cutover-new"), "half").unwrap();
    write_compat_file(template, "web", Color::Blue).unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "blue\n");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    assert_eq!(mode(&path) & 0o444, 0o444 & mode(&path));
}

#[test]
fn a_compat_file_that_cannot_be_written_is_an_error_with_its_path() {
    let dir = TempDir::new().unwrap();
    let missing = dir.path().join("no/such/file");
    let error = write_compat_file(missing.to_str().unwrap(), "web", Color::Blue).unwrap_err();
    assert!(error.to_string().contains("no/such/file"), "{error}");
    let template = dir.path().join("{app}");
    for app in ["../escape", "..", "a/b"] {
        write_compat_file(template.to_str().unwrap(), app, Color::Blue).unwrap_err();
    }
    fs::create_dir(dir.path().join("taken")).unwrap();
    write_compat_file(dir.path().join("taken").to_str().unwrap(), "web", Color::Blue).unwrap_err();
    assert_eq!(
        fs::read_dir(dir.path()).unwrap().count(),
        1,
        "no temporary file stays"
    );
}
