//! The rules of the machine, one test each, named by the decision that they come from.

#![allow(clippy::unwrap_used, reason = "a test panics to fail")]

use std::time::Duration;

use jiff::Timestamp;

use super::*;

/// A state and a clock, so that a test reads as a list of commands.
struct App {
    state: AppState,
    clock: i64,
}

impl App {
    fn new() -> Self {
        Self {
            state: AppState::first(Blue, at(0)),
            clock: 0,
        }
    }

    fn run(&mut self, command: &Command) -> Result<Option<Applied>, Rejection> {
        self.clock += 1;
        match apply(&self.state, command, at(self.clock))? {
            Transition::NoChange => Ok(None),
            Transition::Changed(next, applied) => {
                self.state = next;
                Ok(Some(applied))
            }
            Transition::Noted(next, _) => {
                assert_eq!(next.generation, self.state.generation, "a note is no change");
                self.state = next;
                Ok(None)
            }
        }
    }

    fn change(&mut self, change: Change) -> Result<Option<Applied>, Rejection> {
        self.run(&command(change))
    }

    fn switch(&mut self, to: Color) -> Option<Applied> {
        self.change(switch(to)).unwrap()
    }

    fn weight(&mut self, color: Color, percent: u8) -> Option<Applied> {
        self.change(weight(color, percent)).unwrap()
    }

    fn rollback(&mut self) -> Result<Option<Applied>, Rejection> {
        self.change(rollback(HealthFacts::good(), false))
    }
}

use Color::{Blue, Green};

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn command(change: Change) -> Command {
    Command {
        app: "web".to_owned(),
        change,
        expect_generation: None,
        by: Actor {
            name: "a test".to_owned(),
            trigger: Trigger::Cli,
        },
        reason: String::new(),
        idempotency_key: None,
    }
}

fn switch(to: Color) -> Change {
    Change::Switch {
        to,
        facts: HealthFacts::good(),
        force: false,
    }
}

fn weight(color: Color, percent: u8) -> Change {
    Change::Weight {
        color,
        percent,
        facts: HealthFacts::good(),
        force: false,
    }
}

fn rollback(facts: HealthFacts, ignore_health: bool) -> Change {
    Change::Rollback { facts, ignore_health }
}

fn ill() -> HealthFacts {
    HealthFacts {
        refusals: vec!["web 127.0.0.1:1: connection refused".to_owned()],
        ..HealthFacts::default()
    }
}

fn file(list: &[&str]) -> FileEndpoints {
    let list = list.iter().map(|&address| address.to_owned()).collect();
    [("web".to_owned(), list)].into()
}

fn redeploy(color: Color, endpoints: &[&str], said: &[&str]) -> Change {
    Change::SetEndpoints {
        color,
        endpoints: file(endpoints),
        revision: None,
        file: file(said),
    }
}

fn revision(color: Color, name: &str) -> Change {
    Change::SetEndpoints {
        color,
        endpoints: FileEndpoints::new(),
        revision: Some(name.to_owned()),
        file: FileEndpoints::new(),
    }
}

fn reload(blue: &[&str], green: &[&str], changed: [bool; 2]) -> Change {
    Change::Reload {
        file: ByColor {
            blue: file(blue),
            green: file(green),
        },
        changed: ByColor {
            blue: changed[0],
            green: changed[1],
        },
    }
}

// Decision 9: rollback.

#[test]
fn d9_rollback_goes_back_to_the_color_before() {
    let mut app = App::new();
    app.switch(Green);
    assert_eq!(
        app.rollback(),
        Ok(Some(Applied::RolledBack {
            from: Green,
            to: Blue
        }))
    );
    assert_eq!((app.state.active, app.state.trail.len()), (Blue, 0));
}

#[test]
fn d9_a_second_rollback_never_returns_to_the_color_just_left() {
    let mut app = App::new();
    for to in [Green, Blue, Green, Blue] {
        app.switch(to);
    }
    app.rollback().unwrap();
    for _ in 0..3 {
        let error = app.rollback().unwrap_err();
        assert!(matches!(error, Rejection::NothingWarm { .. }), "{error}");
    }
    assert_eq!(app.state.active, Green);
    // A switch is a new beginning.
    app.switch(Blue);
    app.rollback().unwrap();
    assert_eq!(app.state.active, Green);
}

#[test]
fn d9_rollback_without_a_past_says_what_to_do() {
    let error = App::new().rollback().unwrap_err();
    assert!(error.to_string().contains("`switch`"), "{error}");
}

#[test]
fn d9_rollback_during_a_weight_takes_the_share_away_and_asks_for_no_health() {
    let mut app = App::new();
    app.switch(Green);
    app.weight(Blue, 30);
    let done = app.change(rollback(ill(), false)).unwrap();
    assert_eq!(
        done,
        Some(Applied::Weighed {
            color: Blue,
            percent: 0
        })
    );
    assert_eq!((app.state.active, app.state.share(Blue)), (Green, 0));
    assert!(app.state.colors.blue.left);
}

#[test]
fn d9_a_target_that_answers_but_fails_is_good_enough() {
    let mut app = App::new();
    app.switch(Green);
    let failing = HealthFacts {
        reachable: true,
        ..ill()
    };
    assert!(app.change(rollback(failing, false)).unwrap().is_some());
}

#[test]
fn d9_a_target_that_cannot_be_reached_is_refused_unless_health_is_ignored() {
    let mut app = App::new();
    app.switch(Green);
    let error = app.change(rollback(ill(), false)).unwrap_err();
    assert!(error.to_string().contains("connection refused"), "{error}");
    assert_eq!(app.state.active, Green);
    assert!(app.change(rollback(ill(), true)).unwrap().is_some());
}

#[test]
fn d9_a_target_redeployed_since_is_refused_unless_health_is_ignored() {
    for change in [revision(Blue, "v2"), redeploy(Blue, &["b:2"], &["b:1"])] {
        let mut app = App::new();
        app.switch(Green);
        app.change(change).unwrap();
        let error = app.rollback().unwrap_err();
        assert!(
            error.to_string().contains("redeployed at 1970-01-01T00:00:02"),
            "{error}"
        );
        assert!(app.change(rollback(HealthFacts::good(), true)).unwrap().is_some());
    }
}

#[test]
fn d9_a_redeployment_of_the_color_that_runs_does_not_spoil_the_other() {
    let mut app = App::new();
    app.switch(Green);
    app.change(revision(Green, "v3")).unwrap();
    assert!(app.rollback().unwrap().is_some());
}

#[test]
fn d9_rollback_opens_a_drained_target() {
    let mut app = App::new();
    app.switch(Green);
    app.change(Change::Drain {
        color: Blue,
        force: false,
    })
    .unwrap();
    app.rollback().unwrap();
    assert!(!app.state.colors.blue.drained);
}

#[test]
fn d9_the_trail_is_bounded_and_forgets_the_oldest() {
    let mut app = App::new();
    for _ in 0..3 * TRAIL_MAX {
        app.switch(app.state.standby());
    }
    assert_eq!(app.state.trail.len(), TRAIL_MAX);
    assert_eq!(
        app.state.trail.last().unwrap().generation + 1,
        app.state.generation
    );
}

// Decision 19: generations, and the revert by verify.

#[test]
fn d19_the_first_generation_is_one_and_each_change_is_one_more() {
    let mut app = App::new();
    assert_eq!(app.state.generation, 1);
    let changes = [
        switch(Green),
        weight(Blue, 5),
        weight(Blue, 0),
        revision(Blue, "v1"),
        redeploy(Blue, &["b:2"], &["b:1"]),
        Change::Hold {
            max: Duration::from_secs(1),
        },
        Change::Release,
        Change::Maintenance(Some(None)),
        Change::Maintenance(Some(Some("soon".to_owned()))),
        Change::Maintenance(None),
        Change::Drain {
            color: Blue,
            force: false,
        },
        reload(&["b:9"], &[], [true, false]),
    ];
    for (done, change) in changes.into_iter().enumerate() {
        assert!(app.change(change.clone()).unwrap().is_some(), "{change:?}");
        assert_eq!(app.state.generation, done as u64 + 2, "{change:?}");
    }
}

#[test]
fn d19_what_is_so_already_changes_nothing() {
    let mut app = App::new();
    for change in [
        switch(Blue),
        weight(Blue, 100),
        weight(Green, 0),
        Change::Release,
        Change::Maintenance(None),
        redeploy(Blue, &["b:1"], &["b:1"]),
        Change::Revert { of: 1 },
        reload(&["b:1"], &["g:1"], [false, false]),
    ] {
        assert_eq!(app.change(change.clone()), Ok(None), "{change:?}");
    }
    assert_eq!(app.state, App::new().state);
}

#[test]
fn d19_a_stale_expectation_is_refused_and_names_both_generations() {
    let mut app = App::new();
    app.switch(Green);
    let mut stale = command(switch(Blue));
    stale.expect_generation = Some(1);
    assert_eq!(app.run(&stale), Err(Rejection::Moved { expected: 1, is: 2 }));
    stale.expect_generation = Some(2);
    assert!(app.run(&stale).unwrap().is_some());
}

#[test]
fn d19_health_judged_in_an_older_generation_is_refused_even_by_force() {
    let mut app = App::new();
    app.weight(Green, 1);
    let facts = HealthFacts {
        judged_in: Some(1),
        ..HealthFacts::good()
    };
    let change = Change::Switch {
        to: Green,
        facts,
        force: true,
    };
    assert_eq!(app.change(change), Err(Rejection::Moved { expected: 1, is: 2 }));
}

#[test]
fn d19_a_revert_is_a_second_change_and_leaves_no_way_back_to_what_failed() {
    let mut app = App::new();
    app.switch(Green);
    app.switch(Blue);
    app.switch(Green);
    let done = app.change(Change::Revert { of: 4 }).unwrap();
    assert_eq!(
        done,
        Some(Applied::RolledBack {
            from: Green,
            to: Blue
        })
    );
    assert_eq!((app.state.generation, app.state.active), (5, Blue));
    assert!(matches!(app.rollback(), Err(Rejection::NothingWarm { .. })));
}

#[test]
fn d19_a_revert_undoes_the_switch_it_names_and_nothing_else() {
    let mut app = App::new();
    app.switch(Green);
    app.weight(Blue, 10);
    assert_eq!(
        app.change(Change::Revert { of: 2 }),
        Ok(None),
        "somebody moved on"
    );
    assert_eq!(
        app.change(Change::Revert { of: 3 }),
        Ok(None),
        "that was no switch"
    );
    app.weight(Blue, 0);
    assert_eq!(app.change(Change::Revert { of: 4 }), Ok(None));
    assert_eq!(app.state.active, Green);
}

// Decision 20: endpoints set through the API, against the file.

#[test]
fn d20_an_override_lasts_until_the_files_own_value_changes() {
    let mut app = App::new();
    app.change(redeploy(Green, &["g:2"], &["g:1"])).unwrap();
    assert_eq!(app.change(reload(&["b:1"], &["g:1"], [false, false])), Ok(None));
    assert_eq!(app.state.colors.green.overrides["web"].endpoints, ["g:2"]);
    // Blue's part of the file changes: green's override stays.
    app.change(reload(&["b:9"], &["g:1"], [true, false])).unwrap();
    assert_eq!(app.state.colors.green.overrides.len(), 1);
    assert_eq!(
        (
            app.state.colors.blue.incarnation,
            app.state.colors.green.incarnation
        ),
        (1, 1)
    );
    app.change(reload(&["b:9"], &["g:3"], [false, true])).unwrap();
    assert!(app.state.colors.green.overrides.is_empty());
    assert_eq!(app.state.colors.green.incarnation, 2);
}

#[test]
fn d20_an_override_of_a_color_that_the_file_leaves_out_survives_a_reload() {
    let mut app = App::new();
    app.change(redeploy(Green, &["g:1"], &[])).unwrap();
    let change = Change::Reload {
        file: ByColor {
            blue: file(&["b:2"]),
            green: FileEndpoints::new(),
        },
        changed: ByColor {
            blue: true,
            green: false,
        },
    };
    app.change(change).unwrap();
    assert_eq!(app.state.colors.green.overrides["web"].endpoints, ["g:1"]);
    assert_eq!(app.state.colors.green.incarnation, 1);
}

#[test]
fn d20_setting_a_second_time_remembers_what_the_file_says_now() {
    let mut app = App::new();
    app.change(redeploy(Green, &["g:2"], &["g:1"])).unwrap();
    assert_eq!(app.change(redeploy(Green, &["g:2"], &["g:1"])), Ok(None));
    app.change(redeploy(Green, &["g:1"], &["g:1"])).unwrap();
    assert_eq!(app.state.colors.green.overrides["web"].endpoints, ["g:1"]);
}

#[test]
fn d20_maintenance_and_hold_leave_the_routing_alone() {
    let mut app = App::new();
    app.weight(Green, 20);
    let before = app.state.clone();
    let max = Duration::from_secs(5);
    app.change(Change::Hold { max }).unwrap();
    app.change(Change::Maintenance(Some(None))).unwrap();
    let since = app.state.hold.unwrap().since;
    assert_eq!(
        app.change(Change::Hold { max: max * 2 }),
        Ok(None),
        "the first hold stands"
    );
    assert_eq!(app.state.hold, Some(Hold { since, max }));
    assert_eq!(
        (app.state.active, app.state.weight),
        (before.active, before.weight)
    );
    assert_eq!(app.state.colors, before.colors);
}

// Decision 25: weights.

#[test]
fn d25_the_other_color_gets_the_rest() {
    let mut app = App::new();
    app.weight(Green, 10);
    assert_eq!((app.state.share(Blue), app.state.share(Green)), (90, 10));
    app.weight(Blue, 70);
    assert_eq!((app.state.share(Blue), app.state.share(Green)), (70, 30));
    assert_eq!(app.state.active, Blue);
}

#[test]
fn d25_a_hundred_for_the_standby_is_a_switch_whichever_color_is_named() {
    for (color, percent) in [(Green, 100), (Blue, 0)] {
        let mut app = App::new();
        app.weight(Green, 50);
        assert_eq!(
            app.weight(color, percent),
            Some(Applied::Switched {
                from: Blue,
                to: Green
            })
        );
        assert_eq!((app.state.share(Green), app.state.trail.len()), (100, 1));
        app.rollback().unwrap();
        assert_eq!(app.state.active, Blue);
    }
}

#[test]
fn d25_a_switch_to_the_active_color_ends_a_candidacy_and_needs_no_health() {
    let mut app = App::new();
    app.weight(Green, 50);
    let change = Change::Switch {
        to: Blue,
        facts: ill(),
        force: false,
    };
    let done = app.change(change.clone()).unwrap();
    assert_eq!(
        done,
        Some(Applied::Weighed {
            color: Green,
            percent: 0
        })
    );
    assert_eq!(app.change(change), Ok(None));
}

#[test]
fn d25_a_share_above_a_hundred_is_refused() {
    let mut app = App::new();
    for color in Color::ALL {
        assert_eq!(
            app.change(weight(color, 101)),
            Err(Rejection::WeightOutOfRange(101))
        );
    }
}

#[test]
fn d25_an_ill_color_gains_nothing_and_may_always_lose() {
    let mut app = App::new();
    app.weight(Green, 50);
    let sick = |percent, force| Change::Weight {
        color: Green,
        percent,
        facts: ill(),
        force,
    };
    for percent in [51, 100] {
        let error = app.change(sick(percent, false)).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("green is not healthy; web 127.0.0.1:1"),
            "{error}"
        );
    }
    assert!(app.change(sick(20, false)).unwrap().is_some());
    assert!(app.change(sick(0, false)).unwrap().is_some());
    assert!(app.change(sick(100, true)).unwrap().is_some());
    assert_eq!(app.state.active, Green);
}

// Decision 26: drain.

#[test]
fn d26_a_color_with_a_share_is_not_drained() {
    let mut app = App::new();
    app.weight(Green, 1);
    for (color, percent) in [(Blue, 99), (Green, 1)] {
        assert_eq!(
            app.change(Change::Drain { color, force: false }),
            Err(Rejection::HasTraffic { color, percent })
        );
    }
}

#[test]
fn d26_a_candidate_drained_by_force_has_no_share_left() {
    let mut app = App::new();
    app.weight(Green, 40);
    app.change(Change::Drain {
        color: Green,
        force: true,
    })
    .unwrap();
    assert_eq!((app.state.share(Blue), app.state.share(Green)), (100, 0));
    assert!(app.state.colors.green.drained && app.state.colors.green.left);
}

#[test]
fn d26_a_drained_color_opens_with_its_next_share() {
    for change in [weight(Green, 1), switch(Green)] {
        let mut app = App::new();
        let drain = Change::Drain {
            color: Green,
            force: false,
        };
        app.change(drain.clone()).unwrap();
        assert_eq!(app.change(drain), Ok(None));
        app.change(change).unwrap();
        assert!(!app.state.colors.green.drained && !app.state.colors.green.left);
    }
}

#[test]
fn d26_there_is_something_to_wait_for_only_where_traffic_has_left() {
    let mut app = App::new();
    assert!(!app.state.colors.green.left, "it never had any");
    app.switch(Green);
    assert!(app.state.colors.blue.left && !app.state.colors.green.left);
    app.weight(Blue, 10);
    assert!(!app.state.colors.blue.left);
    app.weight(Blue, 0);
    assert!(app.state.colors.blue.left);
}
