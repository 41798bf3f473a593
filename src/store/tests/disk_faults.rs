//! A disk that refuses, at every operation.

use rustix::io::Errno;

use super::super::disk::Op;
use super::*;

#[test]
fn a_failed_append_is_undone_before_it_is_refused() {
    for op in [Op::Write, Op::Sync] {
        for errno in [Errno::NOSPC, Errno::IO, Errno::ROFS, Errno::DQUOT] {
            let place = Place::new();
            let disk = Disk::default();
            let (mut journal, _) = place.open_on(&disk).unwrap();
            let all = fill(&mut journal);
            let before = place.journal();
            disk.faults.fail(op, errno);
            let error = switch(&mut journal, "web").unwrap_err();
            let (text, said) = (error.to_string(), std::io::Error::from(errno).to_string());
            assert!(text.contains(&said) && text.contains("journal"), "{text}");
            assert!(text.contains("nothing changed"), "{text}");
            assert_eq!(error.disk_full(), matches!(errno, Errno::NOSPC | Errno::DQUOT));
            assert_eq!(error.read_only(), errno == Errno::ROFS);
            assert_eq!(place.journal()[..before.len()], before, "{op:?} {errno:?}");
            if op == Op::Write {
                assert_eq!(place.journal().len(), before.len(), "the half line is gone");
            }
            assert_eq!(journal.newest("web"), Some(&newest(&all, "web").unwrap().state));
            disk.faults.heal();
            let next = switch(&mut journal, "web").unwrap();
            drop(journal);
            let restored = place.opened();
            assert_eq!(restored.apps["web"].state, next.state);
            assert_eq!(restored.notes, Vec::<String>::new(), "{op:?} {errno:?}");
        }
    }
}

#[test]
fn when_the_undo_fails_too_all_changes_wait_for_a_new_file() {
    let place = Place::new();
    let disk = Disk::default();
    let (mut journal, _) = place.open_on(&disk).unwrap();
    fill(&mut journal);
    disk.faults.fail(Op::Sync, Errno::IO);
    disk.faults.fail(Op::Cut, Errno::IO);
    switch(&mut journal, "web").unwrap_err();
    disk.faults.heal();
    disk.faults.fail(Op::Rename, Errno::IO);
    let error = switch(&mut journal, "api").unwrap_err();
    assert!(error.to_string().contains("Input/output error"), "{error}");
    disk.faults.heal();
    let next = switch(&mut journal, "api").unwrap();
    drop(journal);
    let restored = place.opened();
    assert_eq!(restored.notes, Vec::<String>::new());
    assert_eq!(restored.apps["api"].state, next.state);
    assert_eq!(
        restored.apps["web"].state.generation, 4,
        "the refused change is nowhere"
    );
}

#[test]
fn a_new_file_whose_name_is_not_durable_takes_no_line() {
    let place = Place::new();
    let disk = Disk::default();
    let (mut journal, _) = place.open_on(&disk).unwrap();
    fill(&mut journal);
    disk.faults.fail(Op::SyncDir, Errno::IO);
    journal.compact().unwrap_err();
    // A crash now may bring the old name back: a line in the new file would be lost.
    let before = place.journal();
    switch(&mut journal, "web").unwrap_err();
    assert_eq!(place.journal(), before);
    disk.faults.heal();
    switch(&mut journal, "web").unwrap();
}

#[test]
fn a_failed_compaction_leaves_the_journal_as_it_is() {
    for op in [Op::Create, Op::Write, Op::Sync, Op::Link, Op::Rename] {
        let place = Place::new();
        let disk = Disk::default();
        let (mut journal, _) = place.open_on(&disk).unwrap();
        let all = fill(&mut journal);
        let before = place.journal();
        disk.faults.fail(op, Errno::NOSPC);
        let error = journal.compact().unwrap_err();
        assert!(error.disk_full(), "{error}");
        assert!(
            !place.file("journal.new").exists(),
            "{op:?}: space on a full disk"
        );
        assert_eq!(place.journal(), before);
        disk.faults.heal();
        switch(&mut journal, "web").unwrap();
        drop(journal);
        assert_eq!(&place.opened().history[..all.len()], all, "{op:?}");
    }
}

#[test]
fn a_compaction_that_fails_on_its_own_refuses_no_change() {
    let place = Place::new();
    let disk = Disk::default();
    let limits = Limits {
        compact_at: 3_000,
        ..small()
    };
    let (mut journal, _) = Journal::open_with(&place.path(), limits, disk.clone()).unwrap();
    journal.append(first("web"), false).unwrap();
    disk.faults.fail(Op::Create, Errno::NOSPC);
    for _ in 0..40 {
        switch(&mut journal, "web").unwrap();
    }
    assert!(place.journal().len() > 6_000);
    let state = journal.newest("web").cloned();
    drop(journal);
    assert_eq!(Some(place.opened().apps["web"].state.clone()), state);
}

#[test]
fn a_repair_that_cannot_write_leaves_the_app_degraded() {
    let place = Place::new();
    let (mut journal, _) = place.open();
    fill(&mut journal);
    drop(journal);
    let mut bytes = place.journal();
    let at = starts(&bytes)[3] + 50;
    bytes[at] ^= 4;
    place.put(&bytes);
    let disk = Disk::default();
    let (mut journal, _) = place.open_on(&disk).unwrap();
    disk.faults.fail(Op::Rename, Errno::ROFS);
    assert!(journal.repair("web").unwrap_err().read_only());
    disk.faults.heal();
    assert!(matches!(
        switch(&mut journal, "web"),
        Err(StoreError::Degraded { .. })
    ));
    journal.repair("web").unwrap();
    switch(&mut journal, "web").unwrap();
    assert_eq!(
        fs::read(place.file("journal.damaged")).unwrap(),
        bytes,
        "evidence stays"
    );
}

#[test]
fn the_reserve_serves_what_is_urgent_and_nothing_else() {
    let place = Place::new();
    let disk = Disk::default();
    let (mut journal, _) = place.open_on(&disk).unwrap();
    fill(&mut journal);
    // From here on there is no room for the reserve: it cannot be taken again once it is given up.
    disk.faults.fail(Op::Reserve, Errno::NOSPC);
    let reserve = || fs::metadata(place.file("reserve")).unwrap().len();
    assert_eq!(reserve(), 4096);
    disk.faults.fail(Op::Write, Errno::NOSPC);
    assert!(switch(&mut journal, "web").unwrap_err().disk_full());
    assert_eq!(reserve(), 4096, "an ordinary change does not touch it");
    let back = switched("web", journal.newest("web").unwrap());
    assert!(
        journal.append(back, true).unwrap_err().disk_full(),
        "the disk is full all the same"
    );
    assert_eq!(reserve(), 0);
    disk.faults.heal();
    disk.faults.fail(Op::Reserve, Errno::NOSPC);
    let error = switch(&mut journal, "web").unwrap_err();
    assert!(
        error.to_string().contains("reserve"),
        "what was freed is for rollbacks: {error}"
    );
    let back = switched("web", journal.newest("web").unwrap());
    journal.append(back, true).unwrap();
    disk.faults.heal();
    switch(&mut journal, "web").unwrap();
    assert_eq!(
        reserve(),
        4096,
        "taken again with the first ordinary change that finds room"
    );
}

#[test]
fn a_disk_without_room_for_a_reserve_works_and_says_so() {
    let place = Place::new();
    let disk = Disk::default();
    disk.faults.fail(Op::Reserve, Errno::NOSPC);
    let (mut journal, restored) = place.open_on(&disk).unwrap();
    assert!(restored.notes[0].contains("reserve"), "{:?}", restored.notes);
    fill(&mut journal);
    assert!(!place.file("reserve").exists());
}
