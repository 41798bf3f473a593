//! Random commands, right and wrong, against the pure machine and the journal, with the invariants checked after
//! every step. What failed is repeated by `CUTOVER_SEED=N cargo test --test simulation`; how many sequences run is
//! `CUTOVER_SIMULATIONS`, or 100,000 with `CUTOVER_E2E=full`.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test panics to fail")]

use std::collections::BTreeMap;
use std::time::Duration;

use cutover::rollout::{
    Actor, AppState, Applied, BakePhase, Baseline, ByColor, Change, Color, Command, FileEndpoints,
    HealthFacts, Note, Past, Pause, Rejection, RolloutChange, RolloutStep, TRAIL_MAX, Transition, Trigger,
    Watch, Weight, apply, bucket_of_key, is_candidate, may_fail_over,
};
use cutover::store::{Entry, Event, Journal, state_from_json, state_to_json};
use jiff::{SignedDuration, Timestamp};

const SEQUENCES: u64 = 2_000;
const STEPS: u64 = 120;

/// So many times as much with `CUTOVER_E2E=full`: 100,000 sequences.
const FULL: u64 = 50;

#[test]
fn the_machine_keeps_its_invariants() {
    run(SEQUENCES, |seed| {
        let mut world = World::new(seed);
        for _ in 0..STEPS {
            world.step();
        }
    });
}

/// Two operators read the same generation and both flip: exactly one gets through, whatever they do.
#[test]
fn of_two_operators_who_expect_the_same_generation_one_wins() {
    run(SEQUENCES, |seed| {
        let mut world = World::new(seed);
        for _ in 0..STEPS / 10 {
            world.step();
            let read = world.state.generation;
            let mut first = world.command();
            let mut second = world.command();
            first.expect_generation = Some(read);
            second.expect_generation = Some(read);
            let won = matches!(world.try_apply(&first), Ok(Transition::Changed(..)));
            let result = world.try_apply(&second);
            if won {
                let moved = Rejection::Moved {
                    expected: read,
                    is: read + 1,
                };
                assert_eq!(result, Err(moved), "{first:?} then {second:?}");
            }
        }
    });
}

/// The same machine with a real journal: killed and restarted at random steps, at random bytes of the last line.
#[test]
fn a_restart_at_any_step_finds_the_last_committed_state() {
    run(SEQUENCES / 50, |seed| {
        let memory = std::path::Path::new("/dev/shm");
        let dir = if memory.is_dir() {
            tempfile::TempDir::new_in(memory)
        } else {
            tempfile::TempDir::new()
        };
        let dir = dir.unwrap();
        let mut world = World::new(seed);
        let (mut journal, restored) = Journal::open(dir.path()).unwrap();
        assert!(restored.fresh);
        journal.append(entry(&world.state, Event::First), false).unwrap();
        for _ in 0..STEPS / 2 {
            let before = world.state.generation;
            if let Some(event) = world.step() {
                let risen = u64::from(matches!(event, Event::Changed(_)));
                assert_eq!(world.state.generation, before + risen);
                journal.append(entry(&world.state, event), false).unwrap();
            }
            if world.dice.one_in(40) {
                journal.compact().unwrap();
            }
            if world.dice.one_in(8) {
                drop(journal);
                if world.dice.one_in(3) {
                    tear(&mut world.dice, dir.path());
                }
                let restored;
                (journal, restored) = Journal::open(dir.path()).unwrap();
                assert_eq!(restored.apps["web"].state, world.state);
                assert_eq!(restored.apps["web"].degraded, None);
            }
        }
    });
}

/// A change that was being written when the power went: some bytes of a line behind the last one.
fn tear(dice: &mut Dice, dir: &std::path::Path) {
    let path = dir.join("journal");
    let mut bytes = std::fs::read(&path).unwrap();
    let start = bytes[..bytes.len() - 1]
        .iter()
        .rposition(|b| *b == b'\n')
        .unwrap()
        + 1;
    let line = bytes[start..].to_vec();
    let cut = dice.below(line.len() as u64 - 1) as usize;
    bytes.extend_from_slice(&line[..cut]);
    std::fs::write(&path, bytes).unwrap();
}

fn entry(state: &AppState, event: Event) -> Entry {
    Entry {
        seq: 0,
        at: state.switched_at,
        app: "web".to_owned(),
        event,
        by: actor(),
        reason: "simulated".to_owned(),
        idempotency_key: None,
        state: state.clone(),
    }
}

fn actor() -> Actor {
    Actor {
        name: "simulation".to_owned(),
        trigger: Trigger::Api,
    }
}

/// Run sequences with seeds; the seed of one that fails is in the panic's output.
fn run(default: u64, sequence: impl Fn(u64)) {
    let number = |name| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    if let Some(seed) = number("CUTOVER_SEED") {
        return sequence(seed);
    }
    let full = std::env::var("CUTOVER_E2E").is_ok_and(|size| size == "full");
    let count = if full { default * FULL } else { default };
    for seed in 0..number("CUTOVER_SIMULATIONS").unwrap_or(count) {
        let shown = Shown(seed);
        sequence(seed);
        std::mem::forget(shown);
    }
}

/// Says its seed if it is dropped, which happens only when a sequence panics.
struct Shown(u64);

impl Drop for Shown {
    #[allow(clippy::print_stderr, reason = "a failing test says how to repeat it")]
    fn drop(&mut self) {
        eprintln!("repeat with CUTOVER_SEED={}", self.0);
    }
}

/// splitmix64: small, and good enough to choose commands.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    fn color(&mut self) -> Color {
        Color::ALL[self.below(2) as usize]
    }
}

/// One app, its config file, its clock, and what the invariants have to remember.
struct World {
    dice: Dice,
    state: AppState,
    now: Timestamp,
    file: ByColor<FileEndpoints>,
    /// The last change of the active color, if nothing but rollbacks came since.
    rolled_back: bool,
    /// Who moved all traffic last, as the history says it.
    last_move: Option<Trigger>,
    /// Clients, by the keys that affinity knows them by.
    clients: [[u8; 8]; 24],
}

impl World {
    fn new(seed: u64) -> Self {
        let mut dice = Dice(seed);
        let now = Timestamp::from_second(1_700_000_000).unwrap();
        Self {
            state: AppState::first(dice.color(), now),
            last_move: None,
            clients: std::array::from_fn(|_| dice.next().to_le_bytes()),
            dice,
            now,
            file: ByColor::from_fn(|color| [("web".to_owned(), vec![format!("{color}:1")])].into()),
            rolled_back: false,
        }
    }

    /// One random command; what it changed.
    fn step(&mut self) -> Option<Event> {
        if self.dice.one_in(10) {
            self.crash();
        }
        let command = match self.dice.one_in(12) {
            true => self.lights_out()?,
            false => self.command(),
        };
        match self.try_apply(&command) {
            Ok(Transition::Changed(_, applied)) => Some(Event::Changed(applied)),
            Ok(Transition::Noted(_, note)) => Some(Event::Noted(note)),
            _ => None,
        }
    }

    /// The active color has nothing healthy, and the standby is: what the driver of failovers asks for, if it may.
    fn lights_out(&mut self) -> Option<Command> {
        if !may_fail_over(&self.state, self.last_move) {
            return None;
        }
        assert_ne!(self.last_move, Some(Trigger::Failover), "tennis");
        assert!(
            self.state.hold.is_none() && self.state.maintenance.is_none(),
            "an operator decides"
        );
        let mut facts = HealthFacts::good();
        // Now and then somebody changes the app between the look and the command.
        let seen = self.state.generation - u64::from(self.dice.one_in(4) && self.state.generation > 1);
        facts.judged_in = Some(seen);
        Some(Command {
            app: "web".to_owned(),
            change: Change::Switch {
                to: self.state.standby(),
                facts,
                force: false,
            },
            expect_generation: Some(seen),
            by: Actor {
                name: "failover".to_owned(),
                trigger: Trigger::Failover,
            },
            reason: String::new(),
            idempotency_key: None,
        })
    }

    /// Who goes to the candidate: the same keys in the same state are the same clients, always.
    fn candidates(&self, state: &AppState) -> Vec<bool> {
        let of = |key: &[u8; 8]| is_candidate(bucket_of_key(state.salt, key), state.weight);
        self.clients.iter().map(of).collect()
    }

    /// A share that begins has a salt of its own; while it lasts, more of it only moves clients forward, less only back.
    fn check_clients(&self, before: &AppState, next: &AppState, told: &str) {
        let begins = before.weight == Weight::ZERO && next.weight > Weight::ZERO;
        assert_eq!(
            next.salt != before.salt,
            begins,
            "a new salt, and only where a share begins: {told}"
        );
        if begins || before.active != next.active {
            return;
        }
        let (was, is) = (self.candidates(before), self.candidates(next));
        for (was, is) in was.into_iter().zip(is) {
            let forward = next.weight >= before.weight;
            assert!(
                if forward { !was || is } else { was || !is },
                "a client went the other way: {told}"
            );
        }
    }

    /// What is in memory is gone; what the journal says is all there is.
    fn crash(&mut self) {
        let json = state_to_json(&self.state);
        let back = state_from_json(&json).unwrap();
        assert_eq!(back, self.state, "{json}");
        assert_eq!(state_to_json(&back), json);
        assert_eq!(
            self.candidates(&back),
            self.candidates(&self.state),
            "a restart moves nobody"
        );
    }

    fn command(&mut self) -> Command {
        let change = self.change();
        let expect_generation = match self.dice.below(8) {
            0 => Some(self.dice.below(self.state.generation + 3)),
            1 => Some(self.state.generation),
            _ => None,
        };
        Command {
            app: "web".to_owned(),
            change,
            expect_generation,
            by: actor(),
            reason: String::new(),
            idempotency_key: None,
        }
    }

    fn change(&mut self) -> Change {
        match self.dice.below(28) {
            26..=27 => Change::RollbackTo {
                past: self.past(),
                facts: self.facts(),
                ignore_health: self.dice.one_in(6),
            },
            16..=18 => self.guard(),
            19..=25 => Change::Rollout(self.rollout()),
            0..=3 => Change::Switch {
                to: self.dice.color(),
                facts: self.facts(),
                force: self.dice.one_in(6),
            },
            4..=6 => Change::Rollback {
                facts: self.facts(),
                ignore_health: self.dice.one_in(6),
            },
            7 => Change::Revert {
                of: self.state.generation.saturating_sub(self.dice.below(3)),
            },
            8..=9 => Change::Weight {
                color: self.dice.color(),
                percent: self.percent(),
                facts: self.facts(),
                force: self.dice.one_in(6),
            },
            10 => Change::Drain {
                color: self.dice.color(),
                force: self.dice.one_in(3),
            },
            11 => Change::Hold {
                max: Duration::from_nanos(self.dice.next()),
            },
            12 => Change::Release,
            13 => Change::Maintenance(match self.dice.below(3) {
                0 => None,
                1 => Some(None),
                _ => Some(Some("back \"soon\"\n\u{1F6A7}".to_owned())),
            }),
            14 => self.set_endpoints(),
            _ => self.reload(),
        }
    }

    /// Some time, mostly one that was.
    fn past(&mut self) -> Past {
        match self.dice.below(3) {
            0 => Past::Revision(format!("v{}", self.dice.below(3))),
            _ => Past::Generation {
                at: 1 + self.dice.below(self.state.generation + 1),
                color: self.dice.color(),
            },
        }
    }

    /// What the guard says: of this bake, of an older one, of none.
    fn guard(&mut self) -> Change {
        let of = match (&self.state.bake, self.dice.one_in(8)) {
            (Some(bake), false) => bake.of,
            _ => self.dice.below(self.state.generation + 2),
        };
        let end = [None, None, Some(BakePhase::Passed), Some(BakePhase::Insufficient)];
        match self.dice.below(3) {
            0 => Change::GuardBack {
                of,
                facts: self.facts(),
            },
            1 => Change::Note(Note::ALL[self.dice.below(Note::ALL.len() as u64) as usize]),
            _ => Change::Watched {
                of,
                watched: Duration::from_secs(self.dice.below(600)),
                end: end[self.dice.below(4) as usize],
            },
        }
    }

    fn rollout(&mut self) -> RolloutChange {
        let (of, at) = match (&self.state.rollout, self.dice.one_in(8)) {
            (Some(rollout), false) => (rollout.of, rollout.at),
            _ => (
                self.dice.below(self.state.generation + 2),
                Some(self.dice.below(4) as usize),
            ),
        };
        match self.dice.below(12) {
            0..=1 => RolloutChange::Start {
                to: self.dice.color(),
                steps: self.steps(),
                facts: self.facts(),
            },
            2..=5 => RolloutChange::Next {
                of,
                from: at,
                facts: self.facts(),
            },
            6 => RolloutChange::At {
                of,
                step: at,
                waited: Duration::from_secs(self.dice.below(600)),
            },
            7 => RolloutChange::Fail { of },
            8 => RolloutChange::Promote {
                full: self.dice.one_in(2),
                facts: self.facts(),
            },
            9 => RolloutChange::Pause,
            10 => RolloutChange::Resume,
            _ => RolloutChange::Abort,
        }
    }

    /// Mostly a rising list, now and then one that is none.
    fn steps(&mut self) -> Vec<RolloutStep> {
        let mut weights: Vec<u8> = (0..self.dice.below(5))
            .map(|_| self.dice.below(102) as u8)
            .collect();
        if !self.dice.one_in(5) {
            weights.sort_unstable();
            weights.dedup();
        }
        let pause = |seconds| match seconds {
            0 => Pause::Approval,
            seconds => Pause::For(Duration::from_secs(seconds)),
        };
        weights
            .into_iter()
            .map(|weight| RolloutStep {
                weight,
                pause: pause(self.dice.below(3)),
            })
            .collect()
    }

    fn percent(&mut self) -> u8 {
        match self.dice.below(4) {
            0 => [0, 100, 101, 255][self.dice.below(4) as usize],
            _ => self.dice.below(101) as u8,
        }
    }

    fn facts(&mut self) -> HealthFacts {
        let healthy = !self.dice.one_in(4);
        HealthFacts {
            judged_in: match self.dice.below(6) {
                0 => Some(self.dice.below(self.state.generation + 1)),
                1 => None,
                _ => Some(self.state.generation),
            },
            healthy,
            reachable: healthy || self.dice.one_in(2),
            refusals: vec!["web 127.0.0.1:9: refused".to_owned()],
            watch: self.dice.one_in(2).then(|| Watch {
                length: Duration::from_secs(300),
                baseline: Baseline::default(),
            }),
        }
    }

    fn endpoints(&mut self) -> Vec<String> {
        let count = self.dice.below(3);
        (0..count)
            .map(|_| format!("10.0.0.{}:80", self.dice.below(3)))
            .collect()
    }

    fn set_endpoints(&mut self) -> Change {
        let color = self.dice.color();
        let mut endpoints = BTreeMap::new();
        if !self.dice.one_in(3) {
            endpoints.insert("web".to_owned(), self.endpoints());
        }
        Change::SetEndpoints {
            color,
            endpoints,
            revision: self.dice.one_in(2).then(|| format!("v{}", self.dice.below(3))),
            file: self.file[color].clone(),
        }
    }

    fn reload(&mut self) -> Change {
        let old = self.file.clone();
        if !self.dice.one_in(3) {
            let color = self.dice.color();
            let list = self.endpoints();
            self.file[color].insert("web".to_owned(), list);
        }
        Change::Reload {
            file: self.file.clone(),
            changed: ByColor::from_fn(|color| old[color] != self.file[color]),
        }
    }

    fn try_apply(&mut self, command: &Command) -> Result<Transition, Rejection> {
        self.now += SignedDuration::from_nanos(1 + self.dice.below(10_000_000_000) as i64);
        let before = self.state.clone();
        let result = apply(&self.state, command, self.now);
        assert_eq!(self.state, before, "apply is pure");
        assert_eq!(
            apply(&self.state, command, self.now),
            result,
            "and gives the same answer twice"
        );
        if let Ok(Transition::Changed(next, applied)) = &result {
            let told = format!("{command:?}\nfrom {before:?}\nto {next:?}");
            check_state(next, &told);
            check_change(&before, next, command, *applied, self.now, &told);
            self.check_clients(&before, next, &told);
            if applied.moved().is_some() {
                self.last_move = Some(command.by.trigger);
            }
            self.state = next.clone();
        }
        if let Ok(Transition::Noted(next, _)) = &result {
            let told = format!("{command:?}\nfrom {before:?}\nto {next:?}");
            check_state(next, &told);
            check_note(&before, next, &told);
            self.state = next.clone();
        }
        self.check_answer(&before, command, &result);
        result
    }

    fn check_answer(&mut self, before: &AppState, command: &Command, result: &Result<Transition, Rejection>) {
        let told = || format!("{command:?}\non {before:?}\ngave {result:?}");
        let expected = command.expect_generation.is_none_or(|g| g == before.generation);
        assert!(
            expected || matches!(result, Err(Rejection::Moved { .. })),
            "{}",
            told()
        );
        let plain = before.weight == Weight::ZERO;
        match &command.change {
            Change::Switch { to, .. } if expected && plain && *to == before.active => {
                assert_eq!(*result, Ok(Transition::NoChange), "{}", told());
            }
            Change::Switch { to, facts, force } if *to != before.active => {
                assert!(facts.healthy || *force || result.is_err(), "{}", told());
            }
            Change::Weight { percent, .. } if expected && *percent > 100 => {
                assert_eq!(*result, Err(Rejection::WeightOutOfRange(*percent)), "{}", told());
            }
            Change::Rollback { .. } if expected && plain && self.rolled_back => {
                assert!(
                    matches!(result, Err(Rejection::NothingWarm { .. })),
                    "ping-pong: {}",
                    told()
                );
            }
            Change::Reload { file, .. } if expected => {
                for (color, is) in self.state.colors.iter() {
                    for (service, held) in &is.overrides {
                        assert_eq!(file[color][service], held.file, "the file wins: {}", told());
                    }
                }
            }
            _ => {}
        }
        if let Ok(Transition::Changed(_, applied)) = result {
            match applied {
                Applied::Switched { .. } => {
                    self.rolled_back = false;
                    self.check_way_back(before);
                }
                Applied::RolledBack { .. } => self.rolled_back = true,
                _ => {}
            }
        }
    }

    /// Right after a switch, `rollback` returns to the color before, and `revert` of that switch too.
    fn check_way_back(&self, before: &AppState) {
        let rollback = Change::Rollback {
            facts: HealthFacts::good(),
            ignore_health: false,
        };
        let revert = Change::Revert {
            of: self.state.generation,
        };
        for change in [rollback, revert] {
            let command = Command {
                app: "web".to_owned(),
                change,
                expect_generation: Some(self.state.generation),
                by: actor(),
                reason: String::new(),
                idempotency_key: None,
            };
            let result = apply(&self.state, &command, self.now);
            let Ok(Transition::Changed(next, Applied::RolledBack { .. })) = result else {
                panic!("no way back from {:?}: {result:?}", self.state);
            };
            assert_eq!(next.active, before.active);
            assert_eq!(next.share(before.active), 100);
        }
    }
}

/// What is true of every state there is.
fn check_state(state: &AppState, told: &str) {
    assert_eq!(
        state.share(Color::Blue) + state.share(Color::Green),
        100,
        "{told}"
    );
    assert!(state.trail.len() <= TRAIL_MAX, "{told}");
    if state.weight > Weight::ZERO {
        assert!(
            !state.colors[state.standby()].drained,
            "a candidate is drained: {told}"
        );
        assert!(
            !state.colors[state.standby()].left,
            "a candidate has left: {told}"
        );
    }
    assert!(
        !state.colors[state.active].left,
        "the active color has left: {told}"
    );
    check_watch(state, told);
    let generations: Vec<u64> = state.trail.iter().map(|was| was.generation).collect();
    assert!(
        generations.is_sorted_by(|a, b| a < b),
        "the trail is out of order: {told}"
    );
    assert!(
        generations.last().is_none_or(|last| *last < state.generation),
        "{told}"
    );
    assert_ne!(
        state.trail.last().map(|was| was.color),
        Some(state.active),
        "{told}"
    );
}

/// What is true of every note: nothing that routes, nothing that counts.
fn check_note(before: &AppState, next: &AppState, told: &str) {
    let routing = |state: &AppState| AppState {
        bake: None,
        rollout: None,
        ..state.clone()
    };
    assert_eq!(routing(before), routing(next), "a note moves nothing: {told}");
    if let (Some(was), Some(is)) = (&before.bake, &next.bake) {
        assert!(
            is.watched >= was.watched && is.of == was.of,
            "time runs backwards: {told}"
        );
        assert!(
            was.phase.runs() || was == is,
            "a bake that is over stays over: {told}"
        );
    }
}

/// Bakes and rollouts of a state.
fn check_watch(state: &AppState, told: &str) {
    if let Some(bake) = state.bake.as_ref().filter(|bake| bake.phase.runs()) {
        assert_eq!(bake.to, state.active, "the guard watches what serves: {told}");
        assert_eq!(state.weight, Weight::ZERO, "{told}");
    }
    let Some(rollout) = state.rollout.as_ref().filter(|rollout| rollout.phase.runs()) else {
        return;
    };
    assert_eq!(
        rollout.to,
        state.standby(),
        "a rollout is of the candidate: {told}"
    );
    if let Some(step) = rollout.step() {
        assert_eq!(
            step.weight,
            state.weight.percent(),
            "the step in force is in force: {told}"
        );
    }
}

/// What is true of every change.
fn check_change(
    before: &AppState,
    next: &AppState,
    command: &Command,
    applied: Applied,
    now: Timestamp,
    told: &str,
) {
    assert_eq!(next.generation, before.generation + 1, "{told}");
    assert_ne!(
        AppState {
            generation: before.generation,
            ..next.clone()
        },
        *before,
        "a change that changes nothing: {told}"
    );
    match applied.moved() {
        Some((from, to)) => {
            assert_eq!((from, to), (before.active, next.active), "{told}");
            assert_ne!(from, to, "{told}");
            assert_eq!(next.share(to), 100, "{told}");
            assert!(next.colors[from].left && !next.colors[to].drained, "{told}");
            assert_eq!(next.switched_at, now, "{told}");
        }
        None => {
            assert_eq!(next.active, before.active, "{told}");
            assert_eq!(
                (&next.trail, next.switched_at),
                (&before.trail, before.switched_at),
                "{told}"
            );
        }
    }
    for color in Color::ALL {
        let (was, is) = (&before.colors[color], &next.colors[color]);
        let redeployed = was.revision != is.revision || was.overrides != is.overrides;
        assert!(!redeployed || is.incarnation == was.incarnation + 1, "{told}");
        if is.incarnation != was.incarnation {
            assert_eq!(is.redeployed_at, Some(now), "{told}");
        }
        assert!(
            !(was.drained && is.drained && is != was && next.share(color) > before.share(color)),
            "{told}"
        );
    }
    check_gates(before, next, command, told);
}

/// Who may gain traffic, and by what.
fn check_gates(before: &AppState, next: &AppState, command: &Command, told: &str) {
    let standby = before.standby();
    let gained = next.share(standby) > before.share(standby);
    match &command.change {
        Change::Switch { facts, force, .. } | Change::Weight { facts, force, .. } => {
            assert!(!gained || facts.healthy || *force, "an ill color gained: {told}");
            let current = facts.judged_in.is_none_or(|g| g == before.generation);
            assert!(!gained || current, "judged on an older generation: {told}");
        }
        Change::Rollback { facts, ignore_health } => {
            assert!(!gained || facts.reachable || *ignore_health, "{told}");
            if before.weight > Weight::ZERO {
                assert_eq!(
                    (next.active, next.weight),
                    (before.active, Weight::ZERO),
                    "{told}"
                );
            } else {
                let target = before.trail.last().map(|was| (was.color, was.incarnation));
                let is = (next.active, before.colors[next.active].incarnation);
                assert!(*ignore_health || target == Some(is), "another deployment: {told}");
            }
        }
        Change::RollbackTo {
            facts, ignore_health, ..
        } => {
            assert!(!gained || facts.reachable || *ignore_health, "{told}");
            if next.active == before.active {
                assert_eq!(next.weight, Weight::ZERO, "{told}");
                return;
            }
            let at = next.trail.len();
            assert_eq!(
                next.trail[..],
                before.trail[..at],
                "the way back is what is left of it: {told}"
            );
            let target = &before.trail[at];
            let same = target.incarnation == before.colors[next.active].incarnation;
            assert!(target.color == next.active && (same || *ignore_health), "{told}");
        }
        Change::Revert { of } => {
            assert_eq!(*of, before.generation, "{told}");
            assert_eq!(
                before.trail.last().map(|was| was.generation + 1),
                Some(*of),
                "{told}"
            );
        }
        Change::Rollout(RolloutChange::Next { facts, .. } | RolloutChange::Promote { facts, .. }) => {
            assert!(!gained || facts.healthy, "an ill color gained by a step: {told}")
        }
        Change::GuardBack { of, facts } => {
            let bake = before.bake.as_ref().expect("a bake");
            assert!(
                bake.of == *of && bake.phase.runs() && next.active == bake.from,
                "{told}"
            );
            assert!(facts.reachable, "{told}");
        }
        _ => assert!(
            !gained,
            "only a switch, a weight or a way back gives traffic: {told}"
        ),
    }
}
