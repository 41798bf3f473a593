//! Requests across switches: which failed, and which were answered by the old color although they were sent after the
//! command had returned.
//!
//! Standard input has a line a switch, `START END COLOR`: nanoseconds of CLOCK_MONOTONIC before and after the command, and
//! the first byte of the answers that are right from then on (`*`: any). Its end ends the measurement.

use std::cell::{Cell, RefCell};
use std::io::Read;
use std::rc::Rc;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tokio::time::timeout;

use super::client::{Client, Origin};
use super::pace::Pace;
use super::tally::{percentiles, tenths};
use super::{Args, Failure, PATIENCE};

/// What a switch does to latencies is looked for from its start to so long after its end.
const AFTERMATH: Duration = Duration::from_millis(50);

struct Record {
    sent: u64,
    done: u64,
    latency: u32,
    /// 0: failed.
    color: u8,
}

struct Mark {
    start: u64,
    end: u64,
    color: u8,
}

pub(crate) async fn run(args: &Args) -> Result<(), Failure> {
    let pace = Pace::start(args.rate)?;
    let records = Rc::new(RefCell::new(Vec::with_capacity(1 << 20)));
    let going = Rc::new(Cell::new(true));
    for _ in 0..args.connections {
        tokio::task::spawn_local(ask(
            Rc::clone(&args.origin),
            Rc::clone(&pace),
            Rc::clone(&records),
            Rc::clone(&going),
        ));
    }
    tokio::time::sleep(args.warmup).await;
    records.borrow_mut().clear();
    println!("begin");
    let marks = tokio::task::spawn_blocking(|| {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).map(|_| text)
    });
    let marks = read_marks(&marks.await??)?;
    going.set(false);
    let records = records.borrow();
    print(&records, &marks)
}

async fn ask(origin: Rc<Origin>, pace: Rc<Pace>, records: Rc<RefCell<Vec<Record>>>, going: Rc<Cell<bool>>) {
    let mut client: Option<Client> = None;
    while going.get() {
        let due = pace.next().await;
        // Where there is nothing to ask on, that a connection can be had is not what is judged, so it comes before `sent`.
        let ready = match client.take().filter(Client::is_open) {
            Some(client) => Ok(client),
            None => Client::connect(&origin).await,
        };
        let sent = now();
        let answer = timeout(PATIENCE, async {
            let mut ready = ready?;
            let answer = ready.ask(false).await?;
            Ok::<_, Failure>((ready, answer))
        });
        let color = match answer.await {
            Ok(Ok((ready, answer))) => {
                client = answer.keeps.then_some(ready);
                answer.first
            }
            _ => 0,
        };
        records.borrow_mut().push(Record {
            sent,
            done: now(),
            latency: tenths(due.elapsed()),
            color,
        });
        if color == 0 {
            // A proxy that refuses everything must not become a busy loop of failures.
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

fn now() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

fn read_marks(text: &str) -> Result<Vec<Mark>, Failure> {
    text.lines()
        .map(|line| {
            let words: Vec<&str> = line.split(' ').collect();
            let &[start, end, color] = words.as_slice() else {
                return Err(format!("not START END COLOR: {line}").into());
            };
            Ok(Mark {
                start: start.parse()?,
                end: end.parse()?,
                color: *color.as_bytes().first().ok_or("no color")?,
            })
        })
        .collect()
}

fn print(records: &[Record], marks: &[Mark]) -> Result<(), Failure> {
    let (mut quiet, mut during) = (Vec::new(), Vec::new());
    let (mut failed, mut late, mut latest) = (0_u64, 0_u64, 0_u64);
    for record in records {
        let after = marks.partition_point(|mark| mark.start <= record.sent);
        let last = after.checked_sub(1).map(|index| &marks[index]);
        let disturbed = last.is_some_and(|mark| record.sent < mark.end + AFTERMATH.as_nanos() as u64);
        if record.color == 0 {
            failed += 1;
            continue;
        }
        if disturbed { &mut during } else { &mut quiet }.push(record.latency);
        // Under way when the next command began: either color is right.
        let is_over = marks.get(after).is_none_or(|next| record.done < next.start);
        if let Some(mark) = last
            && mark.color != b'*'
            && record.color != mark.color
            && record.sent > mark.end
            && is_over
        {
            late += 1;
            latest = latest.max(record.sent - mark.end);
        }
    }
    if quiet.is_empty() || (during.is_empty() && !marks.is_empty()) {
        return Err("nothing was answered before, or during, the switches".into());
    }
    let of = |name: &str, latencies: &mut Vec<u32>| {
        let found = percentiles(latencies);
        found
            .iter()
            .map(|(which, us)| format!(", \"{name}_{which}_us\": {us}"))
            .collect::<String>()
    };
    println!(
        "{{\"requests\": {}, \"switches\": {}, \"failed\": {failed}, \"late\": {late}, \"late_by_ms\": {}{}{}}}",
        records.len(),
        marks.len(),
        latest as f64 / 1e6,
        of("quiet", &mut quiet),
        of("during", &mut during),
    );
    Ok(())
}
