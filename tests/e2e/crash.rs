//! `kill -9` of cutover at random moments while it switches. After each restart the active color is the last one that
//! was acknowledged, or the one that was being committed: never anything else.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::backend::Backend;
use crate::figures::{alone, say, size};
use crate::judge::Color;
use crate::random::Random;
use crate::server::{Admin, Site};

#[test]
fn the_active_color_survives_kill_9_at_any_moment() {
    let _machine = alone();
    let mut random = Random::seeded("crash");
    let (blue, green) = (Backend::says("blue"), Backend::says("green"));
    let site = Site::simple(blue.address, green.address);
    let mut known = Known {
        color: Color::Blue,
        generation: 0,
        in_doubt: None,
    };
    let (mut acknowledged, mut in_doubt, mut went_through) = (0, 0, 0);
    let mut slowest = Duration::ZERO;
    let kills = size(40, 500);
    for round in 0..=kills {
        let started = Instant::now();
        let mut server = site.run();
        slowest = slowest.max(started.elapsed());
        let (found, generation) = site.admin().state();
        went_through +=
            usize::from(known.meets(found, generation, &format!("round {round}\n{}", server.stderr())));
        let seen = site.client().get("/").expect("an answer").json();
        assert_eq!(
            seen["color"],
            found.name(),
            "round {round}: the traffic goes elsewhere than the state says"
        );
        if round == kills {
            server.stop();
            break;
        }

        let admin = site.admin();
        let stop = AtomicBool::new(false);
        // Short moments hit the first switches of a process, long ones its steady state.
        let most = if random.once_in(2) { 8 } else { 60 };
        let moment = random.pause(Duration::from_millis(most));
        let count;
        (known, count) = std::thread::scope(|scope| {
            let operator = scope.spawn(|| switch_until_dead(admin, found, generation, &stop));
            std::thread::sleep(moment);
            server.kill();
            stop.store(true, Ordering::Relaxed);
            operator.join().expect("the operator")
        });
        acknowledged += count;
        in_doubt += usize::from(known.in_doubt.is_some());
    }
    say(&format!(
        "kill -9 {kills} times: {acknowledged} switches acknowledged, {in_doubt} in doubt at the kill ({went_through} of \
         them found committed), 0 lost, 0 invented; slowest start {slowest:.1?}"
    ));
    assert!(
        acknowledged > 0,
        "no switch was acknowledged in all rounds: the kills came too early to prove anything"
    );
}

/// What the operator knows when the process is dead.
struct Known {
    color: Color,
    generation: u64,
    /// Asked for, not answered.
    in_doubt: Option<Color>,
}

impl Known {
    /// Panic unless the state found after the restart may follow from what is known; whether the switch in doubt happened.
    fn meets(&self, found: Color, generation: u64, context: &str) -> bool {
        let at = self.generation;
        assert!(
            found == self.color || self.in_doubt == Some(found),
            "{found} after {} was acknowledged; {context}",
            self.color
        );
        assert!(
            generation >= at,
            "generation {generation} after {at} was acknowledged; {context}"
        );
        let moved = found != self.color;
        // Nobody but the operator changes anything: one in doubt is one generation at most.
        let most = at + u64::from(moved);
        assert!(
            at == 0 || generation == most,
            "generation {generation}, not {most}; {context}"
        );
        moved
    }
}

/// Switch back and forth until the connection breaks.
fn switch_until_dead(mut admin: Admin, color: Color, generation: u64, stop: &AtomicBool) -> (Known, usize) {
    let mut known = Known {
        color,
        generation,
        in_doubt: None,
    };
    let mut acknowledged = 0;
    while !stop.load(Ordering::Relaxed) {
        let to = known.color.other();
        match admin.switch(to) {
            Ok((200, said)) => {
                assert_eq!(said["active"], to.name(), "{said}");
                known.color = to;
                known.generation = said["generation"].as_u64().expect("a generation");
                acknowledged += 1;
            }
            Ok((status, said)) => panic!("switch to {to}: {status} {said}"),
            Err(_) => {
                known.in_doubt = Some(to);
                break;
            }
        }
    }
    (known, acknowledged)
}

#[test]
#[should_panic(expected = "green after blue was acknowledged")]
fn a_color_nobody_asked_for_fails_the_test() {
    Known {
        color: Color::Blue,
        generation: 7,
        in_doubt: None,
    }
    .meets(Color::Green, 8, "");
}
