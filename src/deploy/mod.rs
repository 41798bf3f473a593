//! One command instead of scripts: the steps of a deployment, run beside the operator.
//!
//! Commands come from the operator's own file and run as the operator: the server runs none, and learns of a deploy
//! only what the admin API takes: a lease while it lasts, the revision, the switch.
//!
//! [`Run`] is one deployment, [`plan`] what it will do and skip, `kin` what stands beside it; `hook` runs commands, `smoke` asks the target color
//! through a `door`, `shift` watches a rollout, `server` talks to the admin API.

mod door;
mod hook;
mod http;
mod kin;
mod lease;
mod plan;
mod run;
mod server;
mod shift;
mod smoke;
mod steps;
mod webhook;

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test panics to fail")]
mod tests;

use std::time::Duration;

use crate::admin::Exit;
use crate::admin::client::{Answer, ClientError};
use crate::admin::dto;
use crate::rollout::Color;
use crate::smoke::fill;

pub use plan::{Aim, Decided, Options, Planned, Situation, decide, needs_answers, plan};
pub use run::{Ask, Done, Run, Stopped};

/// What a deployment tells while it runs.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// It begins.
    Begun {
        /// The app.
        app: String,
        /// Where to.
        color: Color,
        /// What.
        revision: Option<String>,
        /// What serves now.
        active: Color,
        /// What is unusual about it.
        note: Option<String>,
    },
    /// A step begins.
    Step(Place),
    /// A line that a command printed.
    Line(String),
    /// A word of cutover's own.
    Note(String),
    /// Time passes; for spinners.
    Tick,
    /// A step is done.
    Passed(Place, Duration, String),
    /// A step is not for this time, and why.
    Skipped(Place, String),
    /// A step failed, and why.
    Failed(Place, Duration, String),
}

/// Which step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its number, from 1.
    pub at: usize,
    /// How many there are.
    pub of: usize,
    /// Its name.
    pub name: String,
    /// The color it is about, if it is about one.
    pub color: Option<Color>,
}

impl Place {
    /// `start green`
    #[must_use]
    pub fn title(&self) -> String {
        match self.color {
            Some(color) => format!("{} {color}", self.name),
            None => self.name.clone(),
        }
    }
}

/// Why a deployment did not get to its end.
#[derive(Debug)]
pub enum Trouble {
    /// The server refused.
    Refused(Answer),
    /// The server did not answer.
    Unanswered(ClientError),
    /// Found here: the exit code, and what people read.
    Here(Exit, String),
}

impl Trouble {
    /// In one line, for the record of the server.
    #[must_use]
    pub fn brief(&self) -> String {
        let text = match self {
            Self::Refused(answer) => serde_json::from_str::<dto::ProblemBody>(&answer.text).map_or_else(
                |_| format!("refused with {}", answer.status),
                |problem| problem.detail,
            ),
            Self::Unanswered(error) => error.to_string(),
            Self::Here(_, text) => text.clone(),
        };
        text.lines()
            .next()
            .unwrap_or_default()
            .chars()
            .take(200)
            .collect()
    }

    /// The stable code of a refusal.
    fn code(&self) -> Option<String> {
        match self {
            Self::Refused(answer) => serde_json::from_str::<dto::ProblemBody>(&answer.text)
                .ok()
                .map(|problem| problem.code),
            _ => None,
        }
    }
}

/// `12.4 s`
#[must_use]
pub fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}
