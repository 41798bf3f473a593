//! What an answer says of its endpoint.

use std::time::Duration;

use serde_json::Value;

use super::Health;
use super::words::shown;
use crate::config::{HttpProbe, RevisionBy};

/// Bytes of a body that are read; a health page has no more.
pub(super) const BODY_MAX: usize = 64 * 1024;

/// What has been seen of an answer, as far as it came.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) status: Option<u16>,
    /// The `Location` header.
    pub(super) location: Option<Vec<u8>>,
    /// Its trailers, and its head's fields.
    pub(super) trailers: http::HeaderMap,
    /// At most [`BODY_MAX`] bytes.
    pub(super) body: Vec<u8>,
}

/// How the exchange ended.
#[derive(Debug)]
pub(super) enum End {
    /// The answer is complete.
    Complete,
    /// The body goes on after [`BODY_MAX`] bytes.
    TooLong,
    /// It broke off; why.
    Broken(String),
    /// The time for the probe was over.
    TimedOut(Duration),
}

/// What a probe found.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) verdict: Health,
    pub(super) status: Option<u16>,
    pub(super) reason: String,
    /// The announced revision was named, or not.
    pub(super) named: Option<bool>,
}

impl Found {
    pub(super) fn new(verdict: Health, status: Option<u16>, reason: impl Into<String>) -> Self {
        Self {
            verdict,
            status,
            reason: reason.into(),
            named: None,
        }
    }
}

/// Judge an answer. The endpoint took the connection, so it is healthy or failing.
pub(super) fn judge(probe: &HttpProbe, seen: &Seen, end: &End) -> Found {
    let (verdict, reason) = match complaint(probe, seen, end) {
        Some(complaint) => (Health::Failing, complaint),
        None => (Health::Healthy, seen.status.unwrap_or_default().to_string()),
    };
    Found::new(verdict, seen.status, reason)
}

/// Whether a healthy answer is that of the announced revision. Another one's health says nothing of this one.
pub(super) fn identify(found: Found, by: &RevisionBy, announced: &str, seen: &Seen) -> Found {
    if found.verdict != Health::Healthy {
        return found;
    }
    let is = named(by, seen);
    if is.as_deref() == Some(announced) {
        return Found {
            named: Some(true),
            ..found
        };
    }
    let is = match is {
        Some(is) => format!("says {by}: {}", shown(is.as_bytes())),
        None => format!("has no {by}"),
    };
    Found {
        verdict: Health::Unknown,
        named: Some(false),
        reason: format!(
            "{}, but {is}, and {} was announced",
            found.reason,
            shown(announced.as_bytes())
        ),
        ..found
    }
}

/// The revision that an answer names.
fn named(by: &RevisionBy, seen: &Seen) -> Option<String> {
    match by {
        RevisionBy::Header(name) => {
            let value = seen.trailers.get(name)?.to_str().ok()?;
            Some(value.to_owned())
        }
        RevisionBy::Json(pointer) => {
            let document: Value = serde_json::from_slice(&seen.body).ok()?;
            match document.pointer(pointer)? {
                Value::String(text) => Some(text.clone()),
                Value::Null => None,
                other => Some(other.to_string()),
            }
        }
    }
}

fn complaint(probe: &HttpProbe, seen: &Seen, end: &End) -> Option<String> {
    let Some(status) = seen.status else {
        return Some(match end {
            End::TimedOut(after) => format!("no answer within {after:?}"),
            End::Broken(why) => why.clone(),
            End::Complete | End::TooLong => "no answer".into(),
        });
    };
    if !probe
        .status
        .iter()
        .any(|(from, to)| (*from..=*to).contains(&status))
    {
        return Some(wrong_status(status, seen));
    }
    match end {
        End::Complete | End::TooLong => {}
        End::TimedOut(after) => return Some(format!("{status}, but its body did not end within {after:?}")),
        End::Broken(why) => return Some(format!("{status}, but {why}")),
    }
    wrong_json(probe, seen, end).or_else(|| wrong_text(probe, seen))
}

fn wrong_status(status: u16, seen: &Seen) -> String {
    match &seen.location {
        Some(location) if (300..400).contains(&status) => {
            format!(
                "answered {status} to {}, redirects are not followed",
                shown(location)
            )
        }
        _ if seen.body.is_empty() => status.to_string(),
        _ => format!("{status}, body: {}", shown(&seen.body)),
    }
}

fn wrong_json(probe: &HttpProbe, seen: &Seen, end: &End) -> Option<String> {
    if probe.json.is_empty() {
        return None;
    }
    if matches!(end, End::TooLong) {
        return Some(format!(
            "the body is longer than {} KiB, so its JSON was not read",
            BODY_MAX / 1024
        ));
    }
    let Ok(document) = serde_json::from_slice::<Value>(&seen.body) else {
        return Some(format!("the body is not JSON: {}", shown(&seen.body)));
    };
    probe
        .json
        .iter()
        .find_map(|(pointer, wanted)| match document.pointer(pointer) {
            Some(is) if same(is, wanted) => None,
            Some(is) => Some(format!(
                "JSON {pointer} is {}, wanted {}",
                shown(is.to_string().as_bytes()),
                shown(wanted.to_string().as_bytes())
            )),
            None => Some(format!(
                "JSON has no {pointer}, wanted {}",
                shown(wanted.to_string().as_bytes())
            )),
        })
}

/// Equal; numbers by value, so that `1` in the configuration is `1.0` on the page.
fn same(is: &Value, wanted: &Value) -> bool {
    is == wanted || matches!((is.as_f64(), wanted.as_f64()), (Some(is), Some(wanted)) if is == wanted)
}

fn wrong_text(probe: &HttpProbe, seen: &Seen) -> Option<String> {
    let regex = probe.body_regex.as_ref()?;
    if regex.is_match(&String::from_utf8_lossy(&seen.body)) {
        return None;
    }
    Some(format!(
        "the body does not match `{}`: {}",
        shown(regex.as_str().as_bytes()),
        shown(&seen.body)
    ))
}
