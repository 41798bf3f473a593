//! What a compaction keeps, and what it leaves behind.

use super::*;

fn open(place: &Place, compact_at: u64, entries: usize) -> (Journal, Restored) {
    let limits = Limits {
        compact_at,
        entries,
        ..small()
    };
    Journal::open_with(&place.path(), limits, Disk::default()).unwrap()
}

#[test]
fn a_long_journal_is_compacted_on_its_own_and_stays_short() {
    let place = Place::new();
    let (mut journal, _) = open(&place, 20_000, 10);
    journal.append(first("quiet"), false).unwrap();
    journal.append(first("web"), false).unwrap();
    let mut longest = 0;
    for _ in 0..400 {
        switch(&mut journal, "web").unwrap();
        longest = longest.max(place.journal().len());
    }
    assert!(longest < 40_000, "{longest}");
    let web = journal.newest("web").cloned();
    drop(journal);
    let (_journal, restored) = open(&place, 20_000, 10);
    assert_eq!(restored.notes, Vec::<String>::new());
    assert_eq!(Some(&restored.apps["web"].state), web.as_ref());
    assert_eq!(restored.apps["quiet"].state, AppState::first(Color::Blue, now()));
    assert_eq!(restored.next_seq, 403);
    let seqs: Vec<u64> = restored.history.iter().map(|e| e.seq).collect();
    assert_eq!(seqs, [1, 393, 394, 395, 396, 397, 398, 399, 400, 401, 402]);
}

#[test]
fn a_compaction_that_frees_little_does_not_come_with_every_append() {
    let place = Place::new();
    let disk = Disk::default();
    let limits = Limits {
        compact_at: 2_000,
        entries: 100,
        ..small()
    };
    let (mut journal, _) = Journal::open_with(&place.path(), limits, disk.clone()).unwrap();
    journal.append(first("web"), false).unwrap();
    let met = disk.faults.met();
    for _ in 0..90 {
        switch(&mut journal, "web").unwrap();
    }
    // An append writes and syncs; all that is kept is longer than the limit, so the file doubles before the next one.
    let compactions = (disk.faults.met() - met - 2 * 90) / 7;
    assert!((2..10).contains(&compactions), "{compactions} compactions");
}

#[test]
fn a_young_idempotency_key_outlives_its_entrys_turn_and_an_old_one_does_not() {
    let place = Place::new();
    let (mut journal, _) = open(&place, 1 << 20, 3);
    let mut state = AppState::first(Color::Blue, now());
    journal.append(first("web"), false).unwrap();
    for (key, hours) in [("old", 25), ("young", 23), ("new", 0)] {
        let mut entry = switched("web", &state);
        state = entry.state.clone();
        entry.idempotency_key = Some(key.to_owned());
        entry.at = Timestamp::now() - SignedDuration::from_hours(hours);
        journal.append(entry, false).unwrap();
    }
    for _ in 0..5 {
        switch(&mut journal, "web").unwrap();
    }
    journal.compact().unwrap();
    drop(journal);
    let (_journal, restored) = open(&place, 1 << 20, 3);
    let keys: Vec<_> = restored
        .history
        .iter()
        .filter_map(|e| e.idempotency_key.as_deref())
        .collect();
    assert_eq!(keys, ["young", "new"]);
    assert_eq!(restored.history.len(), 5);
}

#[test]
fn the_file_before_a_compaction_stays_as_the_second_good_copy() {
    let place = Place::new();
    let (mut journal, _) = place.open();
    let all = fill(&mut journal);
    let before = place.journal();
    journal.compact().unwrap();
    assert_eq!(fs::read(place.file("journal.prev")).unwrap(), before);
    switch(&mut journal, "web").unwrap();
    assert_eq!(
        fs::read(place.file("journal.prev")).unwrap(),
        before,
        "appends go to the new file alone"
    );
    drop(journal);
    assert_eq!(&place.opened().history[..all.len()], all);
}

/// The process dies after every single operation of an append and a compaction.
#[test]
fn a_process_that_dies_anywhere_loses_nothing_acknowledged() {
    let mut steps = 0;
    for dies_after in 0.. {
        let place = Place::new();
        let disk = Disk::default();
        let (mut journal, _) = place.open_on(&disk).unwrap();
        let all = fill(&mut journal);
        journal.compact().unwrap();
        let next = switched("web", &newest(&all, "web").unwrap().state);
        let met = disk.faults.met();
        disk.faults.die_after(dies_after);
        let appended = journal.append(next.clone(), false).is_ok();
        let compacted = appended && journal.compact().is_ok();
        steps = disk.faults.met() - met;
        drop(journal);

        let restored = place.opened();
        assert_eq!(restored.doubt, None, "died after {dies_after}");
        for (app, is) in &restored.apps {
            assert_eq!(is.degraded, None, "died after {dies_after}");
            let before = &newest(&all, app).unwrap().state;
            let after = if app == "web" { &next.state } else { before };
            assert!(
                is.state == *after || (!appended && is.state == *before),
                "died after {dies_after}"
            );
        }
        assert_eq!(restored.apps.len(), 2);
        if compacted {
            break;
        }
    }
    assert!(steps >= 8, "only {steps} operations were there to die at");
}

#[test]
fn an_entry_too_long_for_a_line_is_refused_and_one_that_just_fits_is_read_again() {
    let place = Place::new();
    let (mut journal, _) = place.open();
    let mut long = first("web");
    long.reason = "x".repeat(1 << 20);
    let error = journal.append(long.clone(), false).unwrap_err();
    assert!(matches!(error, StoreError::TooLong { .. }), "{error}");
    long.reason.truncate((1 << 20) - (17 << 10));
    journal.append(long, false).unwrap();
    journal.compact().unwrap();
    drop(journal);
    let restored = place.opened();
    assert!(restored.notes.is_empty() && restored.apps.len() == 1);
}
