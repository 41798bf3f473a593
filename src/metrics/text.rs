//! The text format 0.0.4 of Prometheus, written straight into one string.
//!
//! Not through the exposition crate's message types: they hold every label of every bucket as strings of their
//! own, which for a thousand apps is a quarter of a million small maps to build and drop at each scrape.

use std::fmt::{Display, Write as _};
use std::sync::LazyLock;

use super::names::{Kind, Metric};
use super::{BOUNDS, Snapshot};

/// The values of `le` below `+Inf`, in seconds, as short as they can be written.
static LE: LazyLock<Vec<String>> = LazyLock::new(|| BOUNDS.iter().map(|us| seconds(*us)).collect());

/// An exposition being written.
#[derive(Debug, Default)]
pub(super) struct Text(String);

impl Text {
    pub(super) fn into_string(self) -> String {
        self.0
    }

    pub(super) fn raw(&mut self) -> &mut String {
        &mut self.0
    }

    /// Begin a family: its `# HELP` and `# TYPE` lines.
    pub(super) fn family(&mut self, metric: &Metric) {
        let mut help = String::new();
        for c in metric.help.chars() {
            match c {
                '\\' => help.push_str("\\\\"),
                '\n' => help.push_str("\\n"),
                c => help.push(c),
            }
        }
        let (name, kind) = (metric.name, metric.kind.as_str());
        self.line(format_args!("# HELP {name} {help}\n# TYPE {name} {kind}"));
    }

    /// One sample of a counter or gauge. `labels` were made by [`labels`]; empty for none.
    pub(super) fn sample(&mut self, metric: &Metric, labels: &str, value: impl Display) {
        debug_assert_ne!(metric.kind, Kind::Histogram);
        let name = metric.name;
        if labels.is_empty() {
            self.line(format_args!("{name} {value}"));
        } else {
            self.line(format_args!("{name}{{{labels}}} {value}"));
        }
    }

    /// A whole family that has no labels.
    pub(super) fn single(&mut self, metric: &Metric, value: impl Display) {
        self.family(metric);
        self.sample(metric, "", value);
    }

    /// One histogram: its buckets, cumulative, its sum in seconds and its count.
    pub(super) fn histogram(&mut self, metric: &Metric, labels: &str, snapshot: &Snapshot) {
        let comma = if labels.is_empty() { "" } else { "," };
        let mut count = 0;
        let bounds = LE.iter().map(String::as_str).chain(["+Inf"]);
        for (le, bucket) in bounds.zip(&snapshot.buckets) {
            count += bucket;
            // Most lines of a scrape are these, hence no formatting of the parts that are strings already.
            for part in [metric.name, "_bucket{", labels, comma, "le=\"", le, "\"} "] {
                self.0.push_str(part);
            }
            self.line(format_args!("{count}"));
        }
        let (name, sum) = (metric.name, seconds(snapshot.sum_us));
        if labels.is_empty() {
            self.line(format_args!("{name}_sum {sum}\n{name}_count {count}"));
        } else {
            self.line(format_args!(
                "{name}_sum{{{labels}}} {sum}\n{name}_count{{{labels}}} {count}"
            ));
        }
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        // Writing to a string cannot fail.
        let _ = self.0.write_fmt(line);
        self.0.push('\n');
    }
}

/// The inside of the braces: names of the metric with these values, escaped as the format says.
pub(super) fn labels(metric: &Metric, values: &[&str]) -> String {
    debug_assert_eq!(metric.labels.len(), values.len(), "{}", metric.name);
    let mut out = String::new();
    for (name, value) in metric.labels.iter().zip(values) {
        push_label(&mut out, name, value);
    }
    out
}

/// One more label after those of `out`.
pub(super) fn push_label(out: &mut String, name: &str, value: &str) {
    if !out.is_empty() {
        out.push(',');
    }
    out.push_str(name);
    out.push_str("=\"");
    for c in value.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            c => out.push(c),
        }
    }
    out.push('"');
}

/// Microseconds as seconds, exact, without trailing zeros, without an exponent.
fn seconds(us: u64) -> String {
    let (whole, part) = (us / 1_000_000, us % 1_000_000);
    if part == 0 {
        return whole.to_string();
    }
    let text = format!("{whole}.{part:06}");
    text.trim_end_matches('0').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_written_short_and_rise() {
        assert_eq!(
            (LE[0].as_str(), LE[1].as_str(), LE[60].as_str()),
            ("0.0001", "0.000125", "100")
        );
        let values: Vec<f64> = LE.iter().filter_map(|le| le.parse().ok()).collect();
        assert_eq!(values.len(), BOUNDS.len());
        assert!(values.is_sorted_by(|a, b| a < b));
        for (le, us) in LE.iter().zip(BOUNDS) {
            assert_eq!(le.parse(), Ok(us as f64 / 1e6));
            assert!(!(le.contains('.') && le.ends_with('0')), "{le}");
        }
    }

    #[test]
    fn sums_are_exact() {
        for (us, text) in [
            (0, "0"),
            (1, "0.000001"),
            (1_500_000, "1.5"),
            (u64::MAX, "18446744073709.551615"),
        ] {
            assert_eq!(seconds(us), text);
        }
    }
}
