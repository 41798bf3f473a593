//! What the standby made of copies of requests, as conditions see it.

use std::collections::HashMap;
use std::time::Duration;

use cel::Value;

use crate::metrics::Mirrored;

/// Copies within a window.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Copies {
    pub counts: Mirrored,
    /// The window.
    pub covered: Duration,
}

impl Copies {
    /// Copies with an answer, and those without.
    pub(crate) fn requests(&self) -> u64 {
        self.counts.same + self.counts.different + self.counts.failed
    }

    /// A field by the name that conditions have for it. Without copies there is no rate.
    pub(crate) fn field(&self, name: &str) -> Option<f64> {
        let of = self.requests();
        let share = |part: u64| (of > 0).then(|| part as f64 / of as f64);
        match name {
            "requests" => Some(of as f64),
            "different" => Some(self.counts.different as f64),
            "failed" => Some(self.counts.failed as f64),
            "difference_rate" => share(self.counts.different),
            "failure_rate" => share(self.counts.failed),
            // How often as long the standby takes, on average, for the same requests.
            "slowdown" => (self.counts.active_micros > 0)
                .then(|| self.counts.standby_micros as f64 / self.counts.active_micros as f64),
            _ => None,
        }
    }

    /// Whether a field says something only of enough copies.
    pub(crate) fn is_rate(name: &str) -> bool {
        matches!(name, "difference_rate" | "failure_rate" | "slowdown")
    }

    pub(crate) fn value(&self) -> Value {
        let mut fields: HashMap<String, Value> = HashMap::new();
        for (name, number) in [
            ("requests", self.requests()),
            ("different", self.counts.different),
            ("failed", self.counts.failed),
        ] {
            fields.insert(
                name.to_owned(),
                Value::Int(i64::try_from(number).unwrap_or(i64::MAX)),
            );
        }
        for name in ["difference_rate", "failure_rate", "slowdown"] {
            if let Some(number) = self.field(name) {
                fields.insert(name.to_owned(), number.into());
            }
        }
        fields.into()
    }
}
