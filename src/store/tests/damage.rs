//! Files that are cut, flipped, shuffled, forged, missing or something else altogether.

use std::collections::BTreeMap;

use rustix::fs::{CWD, Mode};

use super::super::line::{self, Sum};
use super::super::replay;
use super::*;

#[test]
fn what_was_committed_is_what_comes_back() {
    let place = Place::new();
    let (mut journal, restored) = place.open();
    assert!(restored.fresh && restored.apps.is_empty() && restored.notes.is_empty());
    assert_eq!(restored.next_seq, 1);
    let all = fill(&mut journal);
    drop(journal);

    let restored = place.opened();
    assert!(!restored.fresh);
    assert_eq!(restored.notes, Vec::<String>::new());
    assert_eq!(restored.history, all);
    assert_eq!(restored.next_seq, all.len() as u64 + 1);
    for (app, is) in &restored.apps {
        assert_eq!(
            (&is.state, &is.degraded),
            (&newest(&all, app).unwrap().state, &None)
        );
    }
    assert_eq!(restored.apps.len(), 2);
}

#[test]
fn a_journal_cut_at_any_byte_gives_the_state_after_its_last_whole_line() {
    let place = Place::new();
    let (mut journal, _) = place.open();
    let all = fill(&mut journal);
    drop(journal);
    let bytes = place.journal();
    let starts = starts(&bytes);
    for len in 0..=bytes.len() {
        place.put(&bytes[..len]);
        // The first line is the header.
        let whole = starts.iter().filter(|start| **start <= len).count() - 1;
        if whole == 0 {
            let error = place.try_open().unwrap_err();
            assert!(matches!(error, StoreError::Unreadable { .. }), "{len}: {error}");
            continue;
        }
        let committed = &all[..whole - 1];
        let (mut journal, restored) = place.open();
        assert_eq!(restored.history, committed, "cut at {len}");
        assert_eq!(
            restored.notes.is_empty(),
            starts.contains(&len),
            "cut at {len}: {:?}",
            restored.notes
        );
        assert_eq!((restored.doubt, restored.fresh), (None, false));
        for app in ["api", "web"] {
            let is = restored.apps.get(app);
            assert_eq!(
                is.map(|is| &is.state),
                newest(committed, app).map(|e| &e.state),
                "cut at {len}"
            );
            assert!(is.is_none_or(|is| is.degraded.is_none()));
        }
        // And it goes on from there.
        if let Some(next) = all.get(whole - 1) {
            assert_eq!(journal.append(next.clone(), false).unwrap(), next.seq);
            drop(journal);
            assert_eq!(place.opened().history, &all[..whole]);
        }
    }
}

/// One bit of every byte, through the whole of `open`, and on from there.
#[test]
fn a_flipped_bit_never_gives_a_wrong_state() {
    let place = Place::new();
    let (mut journal, _) = place.open();
    let all = fill(&mut journal);
    drop(journal);
    let bytes = place.journal();
    let starts = starts(&bytes);
    let last = starts[starts.len() - 2];
    for at in 0..bytes.len() {
        let mut flipped = bytes.clone();
        flipped[at] ^= 1 << (at % 8);
        place.put(&flipped);
        let (mut journal, restored) = place.open();
        assert!(!restored.notes.is_empty(), "byte {at}");
        assert_eq!(restored.apps.len(), 2, "byte {at}: nobody is lost");
        let hit = starts.iter().filter(|start| **start <= at).count() - 1;
        for (app, is) in &restored.apps {
            let newest = newest(&all, app).unwrap();
            let of_app: Vec<_> = all.iter().filter(|e| e.app == *app).map(|e| &e.state).collect();
            assert!(
                of_app.contains(&&is.state),
                "byte {at}: a state that {app} never had"
            );
            if newest.seq as usize != hit {
                assert_eq!(is.state, newest.state, "byte {at}: not the newest of {app}");
            }
            if at < last && is.degraded.is_none() {
                assert_eq!(
                    is.state, newest.state,
                    "byte {at}: {app} is older and does not say so"
                );
            }
            // A state in the middle that is nowhere else shows on its app.
            if (1..starts.len() - 2).contains(&hit) && all[hit - 1].app == *app {
                let same = |e: &&Entry| e.app == *app && e.state == all[hit - 1].state;
                if all.iter().filter(same).count() == 1 {
                    assert!(is.degraded.is_some(), "byte {at}: {app} has a hole");
                }
            }
        }
        go_on(&place, &mut journal, &restored, at);
    }
}

/// Degraded apps refuse until repaired, the others go on; a restart in between changes nothing of that.
fn go_on(place: &Place, journal: &mut Journal, restored: &Restored, at: usize) {
    for (app, is) in &restored.apps {
        let result = switch(journal, app);
        match &is.degraded {
            None => assert!(result.is_ok(), "byte {at}: {result:?}"),
            Some(_) => assert!(
                matches!(result, Err(StoreError::Degraded { .. })),
                "byte {at}: {result:?}"
            ),
        }
    }
    let copy = Place::new();
    fs::create_dir(copy.path()).unwrap();
    copy.put(&place.journal());
    let (mut again, second) = copy.open();
    for (app, is) in &restored.apps {
        assert_eq!(
            is.degraded.is_some(),
            second.apps[app].degraded.is_some(),
            "byte {at}: {app}"
        );
        again.repair(app).unwrap();
        let repaired = switch(&mut again, app).unwrap();
        assert_eq!(again.newest(app), Some(&repaired.state));
    }
    drop(again);
    let third = copy.opened();
    assert!(third.notes.is_empty(), "byte {at}: {:?}", third.notes);
    assert!(third.apps.values().all(|is| is.degraded.is_none()), "byte {at}");
}

/// Every bit of every byte, through the reader alone.
#[test]
fn no_flipped_bit_makes_the_reader_panic_or_invent() {
    let place = Place::new();
    let (mut journal, _) = place.open();
    let all = fill(&mut journal);
    drop(journal);
    let mut bytes = place.journal();
    bytes.truncate(starts(&bytes)[5]);
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << bit;
            place.put(&flipped);
            let reading = replay::read(&place.file("journal"), 500, now()).unwrap().unwrap();
            for entry in reading.kept.entries() {
                assert_eq!(entry, &all[entry.seq as usize - 1], "byte {at} bit {bit}");
            }
            assert!(
                reading.torn_at.is_some() || !reading.damage.is_empty(),
                "byte {at} bit {bit}: unnoticed"
            );
        }
    }
}

#[test]
fn lines_that_are_missing_repeated_or_swapped_are_noticed_by_the_chain() {
    let place = Place::new();
    let (mut journal, _) = place.open();
    let all = fill(&mut journal);
    drop(journal);
    let bytes = place.journal();
    let lines: Vec<&[u8]> = bytes.split_inclusive(|b| *b == b'\n').collect();
    let check = |lines: &[&[u8]], what: &str, degraded: &[&str]| {
        place.put(&lines.concat());
        let restored = place.opened();
        assert!(!restored.notes.is_empty(), "{what}");
        for app in ["api", "web"] {
            let is = &restored.apps[app];
            assert_eq!(is.state, newest(&all, app).unwrap().state, "{what}: {app}");
            assert_eq!(is.degraded.is_some(), degraded.contains(&app), "{what}: {app}");
        }
    };
    let mut missing = lines.clone();
    missing.remove(4); // api, generation 2
    check(&missing, "missing", &["api"]);
    let mut repeated = lines.clone();
    repeated.push(lines[3]);
    // Behind the last line that fits, anything may be missing.
    check(&repeated, "an old line of web at the end", &["api", "web"]);
    let mut swapped = lines.clone();
    swapped.swap(8, 9); // the newest lines of both
    // The line of api should have had one before it and one behind; web's is the last, and follows its own.
    check(&swapped, "swapped", &["api"]);
}

#[test]
fn an_app_whose_only_line_is_damaged_is_missed_and_not_begun_anew() {
    let place = Place::new();
    let (mut journal, _) = place.open();
    for app in ["api", "shop", "web"] {
        journal.append(first(app), false).unwrap();
    }
    drop(journal);
    let mut bytes = place.journal();
    let at = starts(&bytes)[2] + 60;
    bytes[at] ^= 1;
    place.put(&bytes);
    let (mut journal, restored) = place.open();
    assert!(restored.doubt.is_some());
    assert!(!restored.apps.contains_key("shop"));
    let error = journal.append(first("shop"), false).unwrap_err();
    assert!(matches!(error, StoreError::Degraded { .. }), "{error}");
    // A change of somebody else rewrites the file, and the doubt stays.
    journal.repair("web").unwrap();
    switch(&mut journal, "web").unwrap();
    drop(journal);
    let (mut journal, restored) = place.open();
    assert!(
        restored.doubt.is_some() && restored.notes.is_empty(),
        "{:?}",
        restored.notes
    );
    assert!(journal.append(first("shop"), false).is_err());
    journal.repair("shop").unwrap();
    journal.append(first("shop"), false).unwrap();
    // Now all are found, and a new app begins like any other.
    journal.append(first("blog"), false).unwrap();
    drop(journal);
    assert_eq!(place.opened().doubt, None);
}

/// Write lines with right checksums by hand.
fn forge(place: &Place, jsons: &[String]) {
    let mut bytes = Vec::new();
    let header = r#"{"v":1,"journal":"cutover","apps":0}"#;
    let mut sum = line::write(&mut bytes, Sum::NONE, 0, header);
    for (at, json) in jsons.iter().enumerate() {
        sum = line::write(&mut bytes, sum, at as u64 + 1, json);
    }
    fs::create_dir_all(place.path()).unwrap();
    place.put(&bytes);
}

fn json_of(entry: &Entry) -> String {
    super::super::wire::entry_to_json(entry, 2, None)
}

#[test]
fn an_app_that_cannot_be_understood_takes_nobody_down_and_is_not_thrown_away() {
    let place = Place::new();
    let web = first("web");
    let later = switched("web", &web.state);
    let strange = json_of(&later).replace(r#""active":"green""#, r#""active":"purple""#);
    let lost = json_of(&first("api")).replace(r#""weight":0"#, r#""weight":100"#);
    forge(
        &place,
        &[
            json_of(&web),
            lost.clone(),
            strange.clone(),
            json_of(&first("blog")),
        ],
    );
    for _ in 0..2 {
        let (mut journal, restored) = place.open();
        assert_eq!(restored.apps["web"].state, web.state);
        let why = restored.apps["web"].degraded.as_deref().unwrap();
        assert!(why.contains("purple"), "{why}");
        assert!(restored.lost["api"].contains("weight 100"), "{:?}", restored.lost);
        assert_eq!(restored.apps["blog"].degraded, None);
        assert!(matches!(
            journal.append(first("api"), false),
            Err(StoreError::Degraded { .. })
        ));
        switch(&mut journal, "blog").unwrap();
        // A compaction keeps the lines that it does not understand.
        journal.compact().unwrap();
        let text = String::from_utf8(place.journal()).unwrap();
        assert!(text.contains(&strange) && text.contains(&lost), "{text}");
    }
    let (mut journal, _) = place.open();
    for app in ["api", "web"] {
        journal.repair(app).unwrap();
    }
    journal.append(first("api"), false).unwrap();
    journal.append(later.clone(), false).unwrap();
    drop(journal);
    let restored = place.opened();
    assert_eq!(restored.apps["web"].state, later.state);
    assert!(restored.lost.is_empty() && restored.apps.values().all(|is| is.degraded.is_none()));
}

#[test]
fn a_newer_format_is_an_error_that_says_so() {
    let place = Place::new();
    forge(&place, &[json_of(&first("web")).replace(r#""v":1"#, r#""v":2"#)]);
    let before = place.journal();
    let error = place.try_open().unwrap_err();
    assert!(
        matches!(
            error,
            StoreError::NewerFormat {
                found: 2,
                reads: 1,
                ..
            }
        ),
        "{error}"
    );
    assert!(error.to_string().contains("newer cutover"), "{error}");
    assert_eq!(place.journal(), before);
}

#[test]
fn the_previous_file_serves_when_the_journal_has_nothing() {
    let noise: Vec<u8> = (0..9000_u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    for (what, junk) in [
        ("missing", None),
        ("empty", Some(&[][..])),
        ("zeros", Some(&[0; 5000][..])),
        ("noise", Some(&noise[..])),
    ] {
        let place = Place::new();
        let (mut journal, _) = place.open();
        let all = fill(&mut journal);
        journal.compact().unwrap();
        drop(journal);
        match junk {
            None => fs::remove_file(place.file("journal")).unwrap(),
            Some(junk) => place.put(junk),
        }
        let (mut journal, restored) = place.open();
        assert!(
            restored.notes[0].contains("journal.prev"),
            "{what}: {:?}",
            restored.notes
        );
        assert!(!restored.fresh && restored.doubt.is_some(), "{what}");
        for (app, is) in &restored.apps {
            assert_eq!(is.state, newest(&all, app).unwrap().state, "{what}");
            assert!(
                is.degraded.is_some(),
                "{what}: the newest change may have been in the lost file"
            );
        }
        assert!(
            matches!(switch(&mut journal, "web"), Err(StoreError::Degraded { .. })),
            "{what}"
        );
        journal.repair("web").unwrap();
        let next = switch(&mut journal, "web").unwrap();
        assert_eq!(
            fs::read(place.file("journal.damaged")).ok().as_deref(),
            junk,
            "{what}"
        );
        drop(journal);
        let restored = place.opened();
        assert_eq!(restored.apps["web"].state, next.state, "{what}");
        assert_eq!(restored.apps["web"].degraded, None, "{what}");
        assert!(
            restored.apps["api"].degraded.is_some(),
            "{what}: nobody has said anything of api yet"
        );
    }
}

#[test]
fn files_that_hold_nothing_are_an_error_and_never_an_empty_table() {
    for junk in [&b""[..], b"\n", b"\n\n\n", b"{}\n", &[0; 70_000], &[b'\n'; 5000]] {
        let place = Place::new();
        fs::create_dir(place.path()).unwrap();
        place.put(junk);
        let error = place.try_open().unwrap_err();
        assert!(matches!(error, StoreError::Unreadable { .. }), "{error}");
        fs::write(place.file("journal.prev"), junk).unwrap();
        assert!(matches!(place.try_open(), Err(StoreError::Unreadable { .. })));
        fs::remove_file(place.file("journal")).unwrap();
        assert!(matches!(place.try_open(), Err(StoreError::Unreadable { .. })));
        assert_eq!(
            fs::read(place.file("journal.prev")).unwrap(),
            junk,
            "evidence stays"
        );
    }
}

#[test]
fn a_journal_that_is_a_directory_or_a_pipe_is_an_error() {
    let place = Place::new();
    fs::create_dir_all(place.file("journal")).unwrap();
    assert!(matches!(place.try_open(), Err(StoreError::Unreadable { .. })));
    fs::remove_dir(place.file("journal")).unwrap();
    rustix::fs::mkfifoat(CWD, place.file("journal"), Mode::RUSR | Mode::WUSR).unwrap();
    let error = place.try_open().unwrap_err();
    assert!(error.to_string().contains("not a regular file"), "{error}");
}

#[test]
fn a_left_over_temporary_file_is_nobodys_business() {
    let place = Place::new();
    let (mut journal, _) = place.open();
    let all = fill(&mut journal);
    drop(journal);
    fs::write(place.file("journal.new"), "half a comp").unwrap();
    fs::write(place.file("journal.link"), "old").unwrap();
    let (mut journal, restored) = place.open();
    assert_eq!(restored.history, all);
    journal.compact().unwrap();
    assert!(!place.file("journal.new").exists() && !place.file("journal.link").exists());
}

#[test]
fn sixty_four_mebibytes_open_and_most_of_them_are_let_go() {
    let place = Place::new();
    let (journal, _) = place.open();
    drop(journal);
    let mut web = first("web");
    web.seq = 1;
    let mut jsons = vec![json_of(&web)];
    for _ in 0..65 {
        web = switched("web", &web.state);
        web.reason = "x".repeat(1_000_000);
        jsons.push(json_of(&web));
    }
    forge(&place, &jsons);
    assert!(fs::metadata(place.file("journal")).unwrap().len() > 64 << 20 >> 1);
    // A line that no end is in sight of is skipped, not kept.
    let mut bytes = place.journal();
    bytes.extend(vec![b'z'; 3 << 20]);
    place.put(&bytes);
    let limits = Limits {
        entries: 3,
        ..small()
    };
    let (journal, restored) = Journal::open_with(&place.path(), limits, Disk::default()).unwrap();
    assert_eq!(restored.apps["web"].state, web.state);
    assert_eq!(restored.history.len(), 3);
    assert!(restored.notes[0].contains("torn"), "{:?}", restored.notes);
    drop(journal);
}

#[test]
fn every_kind_of_event_survives_the_line() {
    let place = Place::new();
    let (mut journal, _) = place.open();
    let mut state = AppState::first(Color::Green, now());
    let blue = Color::Blue;
    let changes = [
        to_green(),
        Applied::RolledBack {
            from: Color::Green,
            to: blue,
        },
        Applied::Weighed {
            color: blue,
            percent: 99,
        },
        Applied::Draining(blue),
        Applied::Held,
        Applied::Released,
        Applied::Maintenance(true),
        Applied::Maintenance(false),
        Applied::EndpointsSet(Color::Green),
        Applied::Reloaded,
    ];
    let mut events = vec![
        Event::First,
        Event::Restored {
            note: "ümlaut \u{0} \\ \"".to_owned(),
        },
    ];
    events.extend(changes.map(Event::Changed));
    events.push(outcome(3));
    let mut all = BTreeMap::new();
    for (event, trigger) in events.into_iter().zip(Trigger::ALL.into_iter().cycle()) {
        let mut entry = entry("web", event, &state);
        entry.by.trigger = trigger;
        entry.idempotency_key = Some("key".to_owned());
        if matches!(entry.event, Event::Changed(_)) {
            state.generation += 1;
            entry.state = state.clone();
        }
        entry.seq = journal.append(entry.clone(), false).unwrap();
        all.insert(entry.seq, entry);
    }
    drop(journal);
    assert_eq!(place.opened().history, all.into_values().collect::<Vec<_>>());
}
