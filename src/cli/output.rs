//! Where words go: data to stdout, progress and errors to stderr. Nothing else in the library prints.

use std::fmt;
use std::io::{self, IsTerminal, Write};

/// Both streams, and how to write to them.
pub(super) struct Output {
    stdout: Box<dyn Write>,
    stderr: Box<dyn Write>,
    /// How stdout may look.
    pub paint: Paint,
    /// How stderr may look.
    pub paint_errors: Paint,
    /// Stdout is a terminal: it can be redrawn.
    pub terminal: bool,
    /// Stderr is a terminal that can redraw a line.
    pub live: bool,
    /// Nobody reads stdout any more.
    pub closed: bool,
    failed: bool,
}

impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Output")
            .field("terminal", &self.terminal)
            .finish_non_exhaustive()
    }
}

/// Whether ANSI colors may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Paint {
    /// Plain text.
    Plain,
    /// ANSI.
    Ansi,
}

impl Paint {
    /// Good news.
    #[must_use]
    pub(super) fn good(self, text: &str) -> String {
        self.with("32", text)
    }

    /// Bad news.
    #[must_use]
    pub(super) fn bad(self, text: &str) -> String {
        self.with("31", text)
    }

    /// What matters.
    #[must_use]
    pub(super) fn strong(self, text: &str) -> String {
        self.with("1", text)
    }

    fn with(self, code: &str, text: &str) -> String {
        match self {
            Self::Plain => text.to_owned(),
            Self::Ansi => format!("\x1b[{code}m{text}\x1b[0m"),
        }
    }
}

impl Output {
    /// The process's own. Colors go to terminals only, and never when `NO_COLOR` is set.
    #[must_use]
    pub(super) fn process(env: &dyn Fn(&str) -> Option<String>) -> Self {
        let set = |name: &str| env(name).is_some_and(|value| !value.is_empty());
        let dumb = env("TERM").is_some_and(|term| term == "dumb");
        let paint = |terminal: bool| match terminal && !dumb && !set("NO_COLOR") {
            true => Paint::Ansi,
            false => Paint::Plain,
        };
        let terminal = io::stdout().is_terminal();
        Self {
            stdout: Box::new(io::stdout()),
            stderr: Box::new(io::stderr()),
            paint: paint(terminal),
            paint_errors: paint(io::stderr().is_terminal()),
            terminal,
            live: io::stderr().is_terminal() && !dumb,
            closed: false,
            failed: false,
        }
    }

    /// Into these two, plain.
    #[cfg(test)]
    pub(crate) fn into(stdout: Box<dyn Write>, stderr: Box<dyn Write>) -> Self {
        Self {
            stdout,
            stderr,
            paint: Paint::Plain,
            paint_errors: Paint::Plain,
            terminal: false,
            live: false,
            closed: false,
            failed: false,
        }
    }

    /// Data: a line, or several, to stdout.
    pub(super) fn data(&mut self, text: &str) {
        let end = if text.ends_with('\n') { "" } else { "\n" };
        let written = write!(self.stdout, "{text}{end}").and_then(|()| self.stdout.flush());
        if let Err(error) = written {
            self.closed = true;
            // A closed pipe is how `| head` says that it has enough; anything else lost data.
            self.failed |= error.kind() != io::ErrorKind::BrokenPipe;
        }
    }

    /// Progress or an error: a line to stderr. If even that fails, nobody can be told.
    pub(super) fn note(&mut self, text: &str) {
        let end = if text.ends_with('\n') { "" } else { "\n" };
        let _ = write!(self.stderr, "{text}{end}").and_then(|()| self.stderr.flush());
    }

    /// A part of a line to stderr: a spinner, a question.
    pub(super) fn part(&mut self, text: &str) {
        let _ = write!(self.stderr, "{text}").and_then(|()| self.stderr.flush());
    }

    /// Data was lost: stdout could not be written.
    #[must_use]
    pub(super) const fn lost(&self) -> bool {
        self.failed
    }
}

/// Text from elsewhere, made harmless for a terminal: no control character, no change of writing direction.
#[must_use]
pub(super) fn clean(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '\n' => '\n',
            '\t' => ' ',
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => '\u{fffd}',
            c if c.is_control() => '\u{fffd}',
            c => c,
        })
        .collect()
}
