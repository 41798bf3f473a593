//! The JSON of a journal line: a mirror of the domain's types, so that neither side's names bind the other.
//!
//! Unknown fields are refused, not skipped: a field that this version does not know may change what the rest means.

mod state;
mod watch;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Entry, Event};
use crate::rollout::{Actor, AppState, Applied, Color, Note, Trigger};
use state::State;

/// The format of the lines that this version writes, and the newest that it reads.
pub const FORMAT: u64 = 1;

/// How much is said of a line that cannot be understood, in characters.
const WHY_MAX: usize = 300;

/// What one line says, its checksum being right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Record {
    /// The first line of a file; `apps` as in [`Record::Entry`].
    Header { apps: u64 },
    /// An entry.
    Entry {
        entry: Box<Entry>,
        /// How many apps the journal knew when this was written: fewer found means that some were lost.
        apps: u64,
        /// The app was degraded when this was written, and why.
        degraded: Option<String>,
    },
    /// The line is whole and names its app, but the rest cannot be understood.
    Strange { app: String, why: String },
    /// The line is whole and says nothing that can be used.
    Nothing,
    /// The line is of a newer format.
    Newer(u64),
}

/// An app's state as the JSON object that a journal line has.
#[must_use]
pub fn state_to_json(state: &AppState) -> String {
    to_json(&State::from(state))
}

/// Read what [`state_to_json`] wrote.
///
/// # Errors
/// What is wrong with the text, and where in it.
pub fn state_from_json(json: &str) -> Result<AppState, String> {
    let state: State = serde_json::from_str(json).map_err(|error| error.to_string())?;
    state.try_into()
}

pub(super) fn header_to_json(apps: u64) -> String {
    to_json(&Header {
        v: FORMAT,
        journal: "cutover".to_owned(),
        apps,
    })
}

pub(super) fn entry_to_json(entry: &Entry, apps: u64, degraded: Option<&str>) -> String {
    to_json(&Body {
        v: FORMAT,
        at: entry.at,
        app: entry.app.clone(),
        event: Happened::from(&entry.event),
        by: entry.by.name.clone(),
        trigger: entry.by.trigger.as_str().to_owned(),
        reason: entry.reason.clone(),
        key: entry.idempotency_key.clone(),
        apps,
        degraded: degraded.map(str::to_owned),
        state: State::from(&entry.state),
    })
}

pub(super) fn record_from_json(seq: u64, json: &str) -> Record {
    let Ok(envelope) = serde_json::from_str::<Envelope>(json) else {
        return Record::Nothing;
    };
    if envelope.v > FORMAT {
        return Record::Newer(envelope.v);
    }
    let Some(app) = envelope.app else {
        return serde_json::from_str::<Header>(json)
            .map_or(Record::Nothing, |header| Record::Header { apps: header.apps });
    };
    let read = serde_json::from_str::<Body>(json)
        .map_err(|error| error.to_string())
        .and_then(|body| {
            let (apps, degraded) = (body.apps, body.degraded.clone());
            let entry = Box::new(body.into_entry(seq)?);
            Ok(Record::Entry {
                entry,
                apps,
                degraded,
            })
        });
    // An error may quote the line, and what it says goes into another one.
    let bounded = |why: String| why.chars().take(WHY_MAX).collect();
    read.unwrap_or_else(|why| Record::Strange {
        app,
        why: bounded(why),
    })
}

/// JSON of a mirror type. Strings, numbers and maps with string keys always have one.
fn to_json(value: &impl Serialize) -> String {
    #[allow(
        clippy::expect_used,
        reason = "the mirror types below hold nothing that JSON cannot say"
    )]
    serde_json::to_string(value).expect("a mirror type has JSON")
}

/// As much of a line as says whose it is.
#[derive(Deserialize)]
struct Envelope {
    v: u64,
    app: Option<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    v: u64,
    journal: String,
    apps: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    v: u64,
    at: Timestamp,
    app: String,
    event: Happened,
    by: String,
    trigger: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    reason: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    apps: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    degraded: Option<String>,
    state: State,
}

impl Body {
    fn into_entry(self, seq: u64) -> Result<Entry, String> {
        let trigger = Trigger::ALL
            .into_iter()
            .find(|trigger| trigger.as_str() == self.trigger)
            .ok_or_else(|| format!("unknown trigger `{}`", self.trigger))?;
        Ok(Entry {
            seq,
            at: self.at,
            app: self.app,
            event: self.event.into(),
            by: Actor {
                name: self.by,
                trigger,
            },
            reason: self.reason,
            idempotency_key: self.key,
            state: self.state.try_into()?,
        })
    }
}

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Hue {
    Blue,
    Green,
}

impl From<Color> for Hue {
    fn from(color: Color) -> Self {
        match color {
            Color::Blue => Self::Blue,
            Color::Green => Self::Green,
        }
    }
}

impl From<Hue> for Color {
    fn from(hue: Hue) -> Self {
        match hue {
            Hue::Blue => Self::Blue,
            Hue::Green => Self::Green,
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
enum Happened {
    First,
    Restored {
        note: String,
    },
    Switch {
        from: Hue,
        to: Hue,
    },
    Rollback {
        from: Hue,
        to: Hue,
    },
    Weight {
        color: Hue,
        percent: u8,
    },
    Drain {
        color: Hue,
    },
    Hold,
    Release,
    Maintenance {
        on: bool,
    },
    Endpoints {
        color: Hue,
    },
    Reload,
    #[serde(rename = "rollout start")]
    RolloutStart {
        color: Hue,
    },
    #[serde(rename = "rollout pause")]
    RolloutPause,
    #[serde(rename = "rollout resume")]
    RolloutResume,
    #[serde(rename = "rollout abort")]
    RolloutAbort {
        color: Hue,
        moved: bool,
    },
    Note {
        what: Remark,
    },
    Outcome {
        of: u64,
        requests: u64,
        failed: u64,
        cancelled: u64,
        verify: String,
    },
}

/// The verb of a [`Note`].
#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
struct Remark(Note);

impl From<Remark> for String {
    fn from(remark: Remark) -> Self {
        remark.0.verb().to_owned()
    }
}

impl TryFrom<String> for Remark {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let known = Note::ALL.into_iter().find(|note| note.verb() == text);
        known.map(Self).ok_or_else(|| format!("unknown note `{text}`"))
    }
}

impl From<&Event> for Happened {
    fn from(event: &Event) -> Self {
        match event {
            Event::First => Self::First,
            Event::Restored { note } => Self::Restored { note: note.clone() },
            Event::Changed(applied) => (*applied).into(),
            Event::Noted(note) => Self::Note { what: Remark(*note) },
            Event::Outcome {
                of,
                requests,
                failed,
                cancelled,
                verify,
            } => Self::Outcome {
                of: *of,
                requests: *requests,
                failed: *failed,
                cancelled: *cancelled,
                verify: verify.clone(),
            },
        }
    }
}

impl From<Applied> for Happened {
    fn from(applied: Applied) -> Self {
        match applied {
            Applied::Switched { from, to } => Self::Switch {
                from: from.into(),
                to: to.into(),
            },
            Applied::RolledBack { from, to } => Self::Rollback {
                from: from.into(),
                to: to.into(),
            },
            Applied::Weighed { color, percent } => Self::Weight {
                color: color.into(),
                percent,
            },
            Applied::Draining(color) => Self::Drain { color: color.into() },
            Applied::Held => Self::Hold,
            Applied::Released => Self::Release,
            Applied::Maintenance(on) => Self::Maintenance { on },
            Applied::EndpointsSet(color) => Self::Endpoints { color: color.into() },
            Applied::Reloaded => Self::Reload,
            Applied::RolloutStarted(color) => Self::RolloutStart { color: color.into() },
            Applied::RolloutPaused => Self::RolloutPause,
            Applied::RolloutResumed => Self::RolloutResume,
            Applied::RolloutEnded { color, moved } => Self::RolloutAbort {
                color: color.into(),
                moved,
            },
        }
    }
}

impl From<Happened> for Event {
    fn from(happened: Happened) -> Self {
        Self::Changed(match happened {
            Happened::First => return Self::First,
            Happened::Restored { note } => return Self::Restored { note },
            Happened::Note { what } => return Self::Noted(what.0),
            Happened::Outcome {
                of,
                requests,
                failed,
                cancelled,
                verify,
            } => {
                return Self::Outcome {
                    of,
                    requests,
                    failed,
                    cancelled,
                    verify,
                };
            }
            Happened::Switch { from, to } => Applied::Switched {
                from: from.into(),
                to: to.into(),
            },
            Happened::Rollback { from, to } => Applied::RolledBack {
                from: from.into(),
                to: to.into(),
            },
            Happened::Weight { color, percent } => Applied::Weighed {
                color: color.into(),
                percent,
            },
            Happened::Drain { color } => Applied::Draining(color.into()),
            Happened::Hold => Applied::Held,
            Happened::Release => Applied::Released,
            Happened::Maintenance { on } => Applied::Maintenance(on),
            Happened::Endpoints { color } => Applied::EndpointsSet(color.into()),
            Happened::Reload => Applied::Reloaded,
            Happened::RolloutStart { color } => Applied::RolloutStarted(color.into()),
            Happened::RolloutPause => Applied::RolloutPaused,
            Happened::RolloutResume => Applied::RolloutResumed,
            Happened::RolloutAbort { color, moved } => Applied::RolloutEnded {
                color: color.into(),
                moved,
            },
        })
    }
}
