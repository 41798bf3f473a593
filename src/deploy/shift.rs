//! The step `rollout`: a switch in steps, begun under the deploy's lease and driven by the server.

use std::time::{Duration, Instant};

use super::run::{Ended, Job};
use super::steps::words;
use super::{Event, Trouble};
use crate::admin::{Exit, dto};
use crate::config::Step;
use crate::rollout::Color;

/// Between two looks at how far it is.
const LOOK_PAUSE: Duration = Duration::from_millis(250);

impl Job<'_> {
    /// Begin the rollout of the file, and wait until it is over. One that is under way to the target is taken up.
    pub(super) async fn rollout(&mut self, step: &Step) -> Result<Ended, Trouble> {
        let app = self.server.app().await?;
        if Color::from(app.active) == self.color {
            return Ok(Ended::Done(format!("{} was active already", self.color)));
        }
        let ours = |app: &dto::App| {
            let under_way = app.rollout.clone().filter(runs);
            under_way.filter(|rollout| Color::from(rollout.to) == self.color)
        };
        if let Some(rollout) = ours(&app) {
            self.switched = Some(rollout.of);
            (self.show)(Event::Note("it is under way already".to_owned()));
        } else {
            let reason = self.reason();
            let key = format!("deploy-rollout-{}", self.server.lease);
            let outcome = self.server.begin_rollout(self.color, &reason, &key).await?;
            self.switched = Some(outcome.generation);
        }
        self.watch(step).await
    }

    async fn watch(&mut self, step: &Step) -> Result<Ended, Trouble> {
        let began = Instant::now();
        let (mut told, mut noted) = (String::new(), String::new());
        let gone = || Trouble::Here(Exit::Failed, "the server knows no rollout any more".to_owned());
        loop {
            let rollout = self.server.app().await?.rollout.ok_or_else(gone)?;
            let line = standing(&rollout);
            if line != told {
                (self.show)(Event::Note(line.clone()));
                told = line;
            }
            // Counts in it change with every look: only new words are told.
            let said = words(&rollout.note);
            if !rollout.note.is_empty() && said != noted {
                (self.show)(Event::Note(rollout.note.clone()));
                noted = said;
            }
            match rollout.phase.as_str() {
                "done" => return Ok(Ended::Done(format!("{} has all of it", self.color))),
                "rolled_back" => {
                    let text = format!("the share of {} was taken back: {}", self.color, rollout.note);
                    return Err(Trouble::Here(Exit::RolledBack, text));
                }
                "aborted" => {
                    let text = format!("the rollout to {} was ended: {}", self.color, rollout.note);
                    return Err(Trouble::Here(Exit::Refused, text));
                }
                _ => {}
            }
            if step.timeout.is_some_and(|timeout| began.elapsed() >= timeout) {
                let text = format!(
                    "the rollout goes on at {} %; `cutover wait` waits on, `cutover rollout abort` ends it",
                    rollout.desired
                );
                return Err(Trouble::Here(Exit::StillRunning, text));
            }
            if rollout.waits_for_approval && self.may_promote(&rollout).await? {
                self.server.promote().await?;
                continue;
            }
            let paused = self.waiting(tokio::time::sleep(LOOK_PAUSE)).await;
            if let Err(Trouble::Here(Exit::Interrupted, _)) = paused {
                let now = self.server.app().await.ok().and_then(|app| app.rollout);
                let desired = now.map_or(rollout.desired, |rollout| rollout.desired);
                let text = format!(
                    "interrupted; the rollout goes on at {desired} %: `cutover rollout abort` ends it"
                );
                return Err(Trouble::Here(Exit::Interrupted, text));
            }
            paused?;
        }
    }

    /// A step that waits for an operator: this one, if there is one. Else somebody elsewhere says `rollout promote`.
    async fn may_promote(&mut self, rollout: &dto::Rollout) -> Result<bool, Trouble> {
        if self.options.yes || self.options.auto_switch {
            return Ok(true);
        }
        if self.ask.is_none() {
            return Ok(false);
        }
        let question = format!("{} has {} %. Go on?", self.color, rollout.desired);
        self.confirm(&question).await?;
        Ok(true)
    }
}

fn runs(rollout: &dto::Rollout) -> bool {
    matches!(rollout.phase.as_str(), "gating" | "shifting" | "paused")
}

/// `shifting, 10 %, step 1 of 3`
fn standing(rollout: &dto::Rollout) -> String {
    let step = rollout.step.map_or_else(String::new, |at| {
        format!(", step {} of {}", at + 1, rollout.steps.len())
    });
    let waits = match rollout.waits_for_approval {
        true => ", waits for `cutover rollout promote`",
        false => "",
    };
    format!("{}, {} %{step}{waits}", rollout.phase, rollout.desired)
}
