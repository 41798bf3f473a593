//! Whether the log of clients and the log of switches agree with the promise: no request failed, and none whose
//! first byte was sent after a switch's reply was answered by a color that this reply had ruled out.

use std::fmt;
use std::time::{Duration, Instant};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Color {
    Blue,
    Green,
}

impl Color {
    pub fn name(self) -> &'static str {
        match self {
            Self::Blue => "blue",
            Self::Green => "green",
        }
    }

    pub fn other(self) -> Self {
        match self {
            Self::Blue => Self::Green,
            Self::Green => Self::Blue,
        }
    }

    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "blue" => Some(Self::Blue),
            "green" => Some(Self::Green),
            _ => None,
        }
    }
}

impl fmt::Display for Color {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One request as its client saw it.
#[derive(Clone, Debug)]
pub struct Record {
    /// Just before its first byte was written.
    pub started: Instant,
    /// When its last byte was read, or it failed.
    pub ended: Instant,
    /// The color in the app's own body, every byte checked; or what went wrong.
    pub outcome: Result<Color, String>,
}

/// One switch as its operator saw it. Switches of one log never overlap.
#[derive(Clone, Debug)]
pub struct Switch {
    pub sent: Instant,
    pub replied: Instant,
    pub to: Color,
    pub reply: Reply,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    /// Acknowledged: from `replied` on, only this color.
    Done,
    /// Refused: nothing moved.
    Refused,
    /// No answer: it may have happened or not.
    Unknown,
}

/// What came out.
#[derive(Debug, Default)]
pub struct Verdict {
    pub requests: usize,
    pub failed: Vec<String>,
    pub late: Vec<String>,
    pub by_color: [usize; 2],
    pub p50: Duration,
    pub p99: Duration,
    pub max: Duration,
}

/// Judge the requests against the switches. `first` was active before all of them.
pub fn judge(first: Color, switches: &[Switch], records: &[Record]) -> Verdict {
    let mut verdict = Verdict {
        requests: records.len(),
        ..Verdict::default()
    };
    let mut took: Vec<Duration> = Vec::with_capacity(records.len());
    let origin = records.iter().map(|record| record.started).min();
    for record in records {
        let at = origin.map_or(Duration::ZERO, |origin| record.started - origin);
        match &record.outcome {
            Err(why) => verdict.failed.push(format!(
                "at {at:?} after {:?}: {why}",
                record.ended - record.started
            )),
            Ok(color) => {
                took.push(record.ended - record.started);
                verdict.by_color[*color as usize] += 1;
                if !possible(first, switches, record).contains(color) {
                    verdict.late.push(format!(
                        "at {at:?}: {color} after {:?}",
                        record.ended - record.started
                    ));
                }
            }
        }
    }
    took.sort_unstable();
    let at = |share: f64| {
        took.get(((took.len() as f64 * share) as usize).min(took.len().saturating_sub(1)))
            .copied()
    };
    verdict.p50 = at(0.5).unwrap_or_default();
    verdict.p99 = at(0.99).unwrap_or_default();
    verdict.max = took.last().copied().unwrap_or_default();
    verdict
}

/// The colors that may answer: the one of the last reply before its first byte, and those of switches that were under
/// way while it ran.
fn possible(first: Color, switches: &[Switch], record: &Record) -> Vec<Color> {
    let settled = switches.partition_point(|switch| switch.replied <= record.started);
    let mut colors = Vec::new();
    let mut known = false;
    for switch in switches[..settled].iter().rev() {
        match switch.reply {
            Reply::Refused => {}
            Reply::Unknown => colors.push(switch.to),
            Reply::Done => {
                colors.push(switch.to);
                known = true;
                break;
            }
        }
    }
    if !known {
        colors.push(first);
    }
    let running = switches[settled..]
        .iter()
        .take_while(|switch| switch.sent <= record.ended);
    colors.extend(
        running
            .filter(|switch| switch.reply != Reply::Refused)
            .map(|switch| switch.to),
    );
    colors
}

impl Verdict {
    /// The line to quote.
    pub fn line(&self, switches: &[Switch]) -> String {
        let count = |wanted| switches.iter().filter(|switch| switch.reply == wanted).count();
        let mut took: Vec<Duration> = switches
            .iter()
            .filter(|switch| switch.reply == Reply::Done)
            .map(|switch| switch.replied - switch.sent)
            .collect();
        took.sort_unstable();
        let at = |share: usize| {
            took.get(took.len() * share / 100)
                .or(took.last())
                .copied()
                .unwrap_or_default()
        };
        format!(
            "{} switches (p50 {:.1?}, p99 {:.1?}), {} refused; {} requests ({} blue, {} green): {} failed, {} late; p50 {:.1?}, p99 {:.1?}, max {:.1?}",
            count(Reply::Done),
            at(50),
            at(99),
            count(Reply::Refused),
            self.requests,
            self.by_color[0],
            self.by_color[1],
            self.failed.len(),
            self.late.len(),
            self.p50,
            self.p99,
            self.max,
        )
    }

    /// Panic with the first few offenders unless nothing failed and nothing was late.
    pub fn assert_clean(&self) {
        let few = |lines: &[String]| {
            lines
                .iter()
                .take(8)
                .map(|line| format!("\n  {line}"))
                .collect::<String>()
        };
        assert!(
            self.failed.is_empty(),
            "{} of {} requests failed:{}",
            self.failed.len(),
            self.requests,
            few(&self.failed)
        );
        assert!(
            self.late.is_empty(),
            "{} of {} requests were late:{}",
            self.late.len(),
            self.requests,
            few(&self.late)
        );
    }
}

#[cfg(test)]
mod tests {
    use super::Color::{Blue, Green};
    use super::*;

    fn at(origin: Instant, ms: u64) -> Instant {
        origin + Duration::from_millis(ms)
    }
    fn record(origin: Instant, from: u64, to: u64, color: Color) -> Record {
        Record {
            started: at(origin, from),
            ended: at(origin, to),
            outcome: Ok(color),
        }
    }
    fn switch(origin: Instant, from: u64, to: u64, color: Color, reply: Reply) -> Switch {
        Switch {
            sent: at(origin, from),
            replied: at(origin, to),
            to: color,
            reply,
        }
    }

    #[test]
    fn a_request_that_began_after_the_reply_and_got_the_old_color_is_late() {
        let now = Instant::now();
        let log = [
            switch(now, 10, 20, Green, Reply::Done),
            switch(now, 50, 60, Blue, Reply::Done),
        ];
        for (record, late) in [
            (record(now, 0, 5, Blue), false),
            (record(now, 0, 5, Green), true),   // before anybody asked
            (record(now, 0, 30, Green), false), // the switch was under way
            (record(now, 15, 30, Blue), false), // began before the reply
            (record(now, 20, 30, Blue), true),
            (record(now, 20, 30, Green), false),
            (record(now, 30, 49, Blue), true), // ended before the next switch was sent
            (record(now, 30, 51, Blue), false), // the next one may have moved it
            (record(now, 61, 62, Green), true),
            (record(now, 61, 62, Blue), false),
        ] {
            let verdict = judge(Blue, &log, std::slice::from_ref(&record));
            assert_eq!(verdict.late.len(), usize::from(late), "{record:?}");
        }
    }

    #[test]
    fn refused_switches_move_nothing_and_unknown_ones_may() {
        let now = Instant::now();
        let refused = [switch(now, 10, 20, Green, Reply::Refused)];
        assert_eq!(
            judge(
                Blue,
                &refused,
                &[record(now, 15, 16, Green), record(now, 30, 31, Green)]
            )
            .late
            .len(),
            2
        );
        let unknown = [switch(now, 10, 20, Green, Reply::Unknown)];
        assert!(
            judge(
                Blue,
                &unknown,
                &[record(now, 30, 31, Green), record(now, 30, 31, Blue)]
            )
            .late
            .is_empty()
        );
    }

    #[test]
    #[should_panic(expected = "1 of 1 requests failed")]
    fn a_failed_request_fails_the_test() {
        let now = Instant::now();
        judge(
            Blue,
            &[],
            &[Record {
                started: now,
                ended: now,
                outcome: Err("no answer".to_owned()),
            }],
        )
        .assert_clean();
    }
}
