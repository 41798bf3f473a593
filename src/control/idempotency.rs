//! Repeated idempotency keys get the first answer: while it is still being worked out, and after a restart.

use std::cell::RefCell;
use std::collections::VecDeque;

use tokio::sync::watch;

use super::ask::{Intent, Outcome, Refusal};

/// Keys remembered; the oldest goes first.
const KEYS: usize = 1_000;

type Answer = Result<Outcome, Refusal>;

/// The keys seen, oldest first.
#[derive(Debug, Default)]
pub(super) struct Answers(RefCell<VecDeque<Remembered>>);

#[derive(Debug)]
struct Remembered {
    app: String,
    key: String,
    /// `None` after a restart: the journal keeps what was done, not what was asked.
    intent: Option<Intent>,
    answer: watch::Receiver<Option<Answer>>,
}

/// What a key says.
pub(super) enum Seen {
    /// First time: tell the answer here when it is known.
    First(Pending),
    /// Seen before: the answer is, or will be, here.
    Before(watch::Receiver<Option<Answer>>),
    /// Seen before, with another request.
    Reused,
}

/// The first request with a key, under way. Dropped without an answer, the key counts as never seen.
pub(super) struct Pending {
    answer: watch::Sender<Option<Answer>>,
}

impl Answers {
    /// Look a key up, and remember it if it is new.
    pub(super) fn look_up(&self, app: &str, key: &str, intent: &Intent) -> Seen {
        let mut known = self.0.borrow_mut();
        // Abandoned without an answer: refused, or its asker's task ended. A retry is a first time.
        known.retain(|one| one.answer.borrow().is_some() || one.answer.has_changed().is_ok());
        if let Some(one) = known.iter().find(|one| one.app == app && one.key == key) {
            return match &one.intent {
                Some(before) if before != intent => Seen::Reused,
                _ => Seen::Before(one.answer.clone()),
            };
        }
        let (sender, answer) = watch::channel(None);
        Self::push(
            &mut known,
            Remembered {
                app: app.to_owned(),
                key: key.to_owned(),
                intent: Some(intent.clone()),
                answer,
            },
        );
        Seen::First(Pending { answer: sender })
    }

    /// An answer that the journal remembers.
    pub(super) fn recall(&self, app: &str, key: &str, outcome: Outcome) {
        let (_, answer) = watch::channel(Some(Ok(outcome)));
        let one = Remembered {
            app: app.to_owned(),
            key: key.to_owned(),
            intent: None,
            answer,
        };
        Self::push(&mut self.0.borrow_mut(), one);
    }

    fn push(known: &mut VecDeque<Remembered>, one: Remembered) {
        if known.len() == KEYS {
            known.pop_front();
        }
        known.push_back(one);
    }
}

impl Pending {
    /// Remember what happened. A refusal that moved nothing is not remembered: repeating it may well succeed.
    pub(super) fn settle(self, answer: &Answer) {
        let worth = match answer {
            Ok(outcome) => !outcome.dry_run,
            Err(refusal) => matches!(refusal, Refusal::RolledBack { .. }),
        };
        if worth {
            self.answer.send_replace(Some(answer.clone()));
        }
    }
}

/// Wait for the first request's answer; `None` when it was given up.
pub(super) async fn first_answer(mut answer: watch::Receiver<Option<Answer>>) -> Option<Answer> {
    let known = answer.wait_for(Option::is_some).await.ok()?;
    known.clone().map(|answer| {
        answer.map(|outcome| Outcome {
            repeated: true,
            ..outcome
        })
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, reason = "a test panics to fail")]
mod tests {
    use super::*;
    use crate::rollout::Color;

    fn outcome() -> Outcome {
        Outcome {
            app: "web".to_owned(),
            verb: "release",
            changed: true,
            dry_run: false,
            generation: 7,
            active: Color::Blue,
            from: Color::Blue,
            weight: 0,
            verify: None,
            gates: Vec::new(),
            bakes_until: None,
            warnings: Vec::new(),
            repeated: false,
        }
    }

    #[tokio::test]
    async fn a_repeat_waits_for_the_first_and_gets_its_answer() {
        let answers = Answers::default();
        let Seen::First(pending) = answers.look_up("web", "k", &Intent::Release) else {
            panic!("new")
        };
        let Seen::Before(waiting) = answers.look_up("web", "k", &Intent::Release) else {
            panic!("known")
        };
        pending.settle(&Ok(outcome()));
        let answer = first_answer(waiting).await.unwrap().unwrap();
        assert_eq!((answer.generation, answer.repeated), (7, true));
        assert!(matches!(
            answers.look_up("shop", "k", &Intent::Release),
            Seen::First(_)
        ));
    }

    #[tokio::test]
    async fn another_request_under_the_same_key_is_refused() {
        let answers = Answers::default();
        let Seen::First(pending) = answers.look_up("web", "k", &Intent::Release) else {
            panic!("new")
        };
        pending.settle(&Ok(outcome()));
        let other = Intent::Rollback { ignore_health: false };
        assert!(matches!(answers.look_up("web", "k", &other), Seen::Reused));
    }

    #[tokio::test]
    async fn a_refusal_is_not_remembered_and_a_restart_remembers() {
        let answers = Answers::default();
        let Seen::First(pending) = answers.look_up("web", "k", &Intent::Release) else {
            panic!("new")
        };
        pending.settle(&Err(Refusal::Stopping));
        assert!(matches!(
            answers.look_up("web", "k", &Intent::Release),
            Seen::First(_)
        ));
        answers.recall("web", "old", outcome());
        let Seen::Before(waiting) = answers.look_up("web", "old", &Intent::Release) else {
            panic!("recalled")
        };
        assert_eq!(first_answer(waiting).await.unwrap().unwrap().generation, 7);
    }
}
