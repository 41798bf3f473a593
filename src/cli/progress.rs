//! A deployment as people and programs see it while it runs.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::output::{Output, clean};
use crate::deploy::{Event, Place, seconds};

const SPINNER: [char; 10] = ['⠋', '⠙', '⠹', '⠸', '⠼', '⠴', '⠦', '⠧', '⠇', '⠏'];

/// Lines to stderr, one after the other; with `--json` events to stdout. A spinner only where it can be redrawn.
pub(super) struct Progress<'o> {
    output: &'o mut Output,
    json: bool,
    quiet: bool,
    step: Option<Running>,
    /// Somebody is asked: nothing may write over the question.
    asking: bool,
    turn: usize,
}

struct Running {
    place: Place,
    began: Instant,
    /// Its own line stands above what it printed.
    headed: bool,
}

impl<'o> Progress<'o> {
    pub(super) fn new(output: &'o mut Output, json: bool, quiet: bool) -> Self {
        Self {
            output,
            json,
            quiet,
            step: None,
            asking: false,
            turn: 0,
        }
    }

    pub(super) fn show(&mut self, event: &Event) {
        if self.json {
            if let Some(line) = as_json(event) {
                self.output.data(&line.to_string());
            }
            return;
        }
        if self.quiet {
            return;
        }
        if *event == Event::Tick {
            self.tick();
            return;
        }
        self.asking = false;
        self.wipe();
        match event {
            Event::Begun {
                app,
                color,
                revision,
                active,
                note,
            } => {
                let revision = revision
                    .as_ref()
                    .map_or(String::new(), |text| format!(" ({})", clean(text)));
                let note = note.as_ref().map_or(String::new(), |text| format!("; {text}"));
                let text = format!(
                    "{}: deploy {color}{revision}; {active} is active{note}",
                    clean(app)
                );
                self.output.note(&text);
            }
            Event::Step(place) => {
                self.step = Some(Running {
                    place: place.clone(),
                    began: Instant::now(),
                    headed: false,
                });
            }
            Event::Line(line) => self.under(&format!("    {}", clean(line))),
            Event::Note(line) => {
                for line in clean(line).lines() {
                    self.under(&format!("    · {line}"));
                }
            }
            Event::Passed(place, took, note) => {
                let note = if note.is_empty() {
                    String::new()
                } else {
                    format!("  {}", clean(note))
                };
                let mark = self.output.paint_errors.good("✓");
                self.end(place, &format!("{mark} {}{note}", seconds(*took)));
            }
            Event::Skipped(place, why) => self.end(place, &format!("skipped: {}", clean(why))),
            Event::Failed(place, took, why) => {
                let mark = self.output.paint_errors.bad("✗");
                self.end(place, &format!("{mark} {}  {}", seconds(*took), clean(why)));
            }
            Event::Tick => {}
        }
        self.draw();
    }

    /// `Switch traffic to green? [y/N]`
    pub(super) fn question(&mut self, text: &str) {
        self.wipe();
        self.head();
        self.asking = true;
        let text = self.output.paint_errors.strong(&clean(text));
        self.output.part(&format!("{text} [y/N] "));
    }

    fn end(&mut self, place: &Place, how: &str) {
        self.step = None;
        self.output.note(&format!("{} … {how}", heading(place)));
    }

    /// A line below the step that printed it.
    fn under(&mut self, line: &str) {
        self.head();
        self.output.note(line);
    }

    fn head(&mut self) {
        if let Some(step) = self.step.as_mut().filter(|step| !step.headed) {
            step.headed = true;
            let line = format!("{} …", heading(&step.place));
            self.output.note(&line);
        }
    }

    fn tick(&mut self) {
        self.turn += 1;
        self.draw();
    }

    fn draw(&mut self) {
        let Some(step) = self.step.as_ref().filter(|_| self.output.live && !self.asking) else {
            return;
        };
        let mark = SPINNER[self.turn % SPINNER.len()];
        let took = seconds(step.began.elapsed());
        let line = format!("\r\x1b[2K{mark} {} … {took}", heading(&step.place));
        self.output.part(&line);
    }

    fn wipe(&mut self) {
        if self.output.live && self.step.is_some() {
            self.output.part("\r\x1b[2K");
        }
    }
}

/// `[3/8] start green`
fn heading(place: &Place) -> String {
    format!("[{}/{}] {}", place.at, place.of, place.title())
}

fn as_json(event: &Event) -> Option<Value> {
    let of = |kind: &str, place: &Place| {
        json!({
            "schema": "cutover.deploy/v1", "event": kind, "at": place.at, "of": place.of, "step": place.name,
            "color": place.color.map(|color| color.as_str()),
        })
    };
    let ended = |kind: &str, place: &Place, took: Duration, note: &str| {
        let mut event = of(kind, place);
        event["seconds"] = json!(took.as_secs_f64());
        event["note"] = json!(note);
        event
    };
    Some(match event {
        Event::Begun {
            app,
            color,
            revision,
            active,
            note,
        } => json!({
            "schema": "cutover.deploy/v1", "event": "begin", "app": app, "color": color.as_str(),
            "revision": revision, "active": active.as_str(), "note": note,
        }),
        Event::Step(place) => of("step", place),
        Event::Line(line) => json!({ "schema": "cutover.deploy/v1", "event": "output", "line": line }),
        Event::Note(line) => json!({ "schema": "cutover.deploy/v1", "event": "note", "line": line }),
        Event::Passed(place, took, note) => ended("passed", place, *took, note),
        Event::Failed(place, took, why) => ended("failed", place, *took, why),
        Event::Skipped(place, why) => ended("skipped", place, Duration::ZERO, why),
        Event::Tick => return None,
    })
}
