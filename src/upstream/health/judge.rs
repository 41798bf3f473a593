//! Rise and fall.

use super::Health;

/// Makes health of probes: the first probe decides alone; after it a change needs several in a row.
///
/// Pure: it holds only the count, the health itself is the endpoint's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Judge {
    /// Probes in a row that spoke against the present health.
    against: u32,
}

impl Judge {
    /// The health after one more probe: `now` is the health before it, `verdict` what the probe found.
    ///
    /// `fall` probes in a row that do not pass end health, `rise` that pass bring it back (0 counts as 1). Between
    /// failing and unreachable the last probe decides at once. A verdict of `Unknown` is a probe that could not be
    /// made and says nothing.
    pub fn hear(&mut self, now: Health, verdict: Health, rise: u32, fall: u32) -> Health {
        if verdict == Health::Unknown {
            return now;
        }
        let passes = verdict == Health::Healthy;
        let needed = match now {
            Health::Unknown => 1,
            Health::Healthy if passes => return self.unanimous(now),
            Health::Healthy => fall,
            Health::Failing | Health::Unreachable if passes => rise,
            Health::Failing | Health::Unreachable => return self.unanimous(verdict),
        };
        self.against = self.against.saturating_add(1);
        if self.against >= needed {
            return self.unanimous(verdict);
        }
        now
    }

    /// Somebody else answers there than was announced: whatever was known of the endpoint is of another.
    pub fn stranger(&mut self) -> Health {
        self.unanimous(Health::Unknown)
    }

    fn unanimous(&mut self, health: Health) -> Health {
        self.against = 0;
        health
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Health::{Failing, Healthy, Unknown, Unreachable};
    use super::*;

    fn heard(rise: u32, fall: u32, verdicts: &[Health]) -> Vec<Health> {
        let mut judge = Judge::default();
        let mut now = Unknown;
        let hear = |verdict: &Health| {
            now = judge.hear(now, *verdict, rise, fall);
            now
        };
        verdicts.iter().map(hear).collect()
    }

    #[test]
    fn the_first_probe_decides_alone() {
        assert_eq!(heard(5, 5, &[Healthy]), [Healthy]);
        assert_eq!(heard(5, 5, &[Failing]), [Failing]);
        assert_eq!(heard(5, 5, &[Unreachable]), [Unreachable]);
    }

    #[test]
    fn fall_in_a_row_end_health_and_one_pass_starts_the_count_again() {
        assert_eq!(
            heard(
                2,
                3,
                &[
                    Healthy,
                    Failing,
                    Failing,
                    Healthy,
                    Failing,
                    Unreachable,
                    Unreachable
                ]
            ),
            [Healthy, Healthy, Healthy, Healthy, Healthy, Healthy, Unreachable]
        );
    }

    #[test]
    fn rise_in_a_row_bring_it_back_and_one_failure_starts_the_count_again() {
        assert_eq!(
            heard(2, 1, &[Failing, Healthy, Failing, Healthy, Healthy]),
            [Failing, Failing, Failing, Failing, Healthy]
        );
    }

    #[test]
    fn failing_and_unreachable_follow_the_last_probe() {
        assert_eq!(
            heard(3, 3, &[Unreachable, Failing, Unreachable]),
            [Unreachable, Failing, Unreachable]
        );
    }

    #[test]
    fn a_probe_that_could_not_be_made_says_nothing() {
        assert_eq!(
            heard(1, 2, &[Unknown, Healthy, Failing, Unknown, Failing]),
            [Unknown, Healthy, Healthy, Healthy, Failing]
        );
    }

    fn verdict() -> impl Strategy<Value = Health> {
        prop_oneof![Just(Healthy), Just(Failing), Just(Unreachable), Just(Unknown)]
    }

    proptest! {
        // The rules read backwards, from the history: they name one health for each probe, without counting.
        #[test]
        fn health_is_what_the_history_says(
            verdicts in proptest::collection::vec(verdict(), 0..60), rise in 0_u32..5, fall in 0_u32..5,
        ) {
            let after = heard(rise, fall, &verdicts);
            let mut said: Vec<Health> = Vec::new();
            let mut before = Unknown;
            for (verdict, now) in verdicts.into_iter().zip(after) {
                if verdict == Unknown {
                    prop_assert_eq!(now, before);
                    continue;
                }
                said.push(verdict);
                let last = |n: u32, passes: bool| {
                    let n = n.max(1) as usize;
                    said.len() >= n && said.iter().rev().take(n).all(|v| (*v == Healthy) == passes)
                };
                let expected = match before {
                    Unknown => verdict,
                    Healthy if last(fall, false) => verdict,
                    Healthy => Healthy,
                    _ if last(rise, true) => Healthy,
                    _ if verdict == Healthy => before,
                    _ => verdict,
                };
                prop_assert_eq!(now, expected);
                before = now;
            }
        }
    }
}
