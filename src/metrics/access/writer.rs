//! The thread that writes. Only it touches the file.

use std::fmt;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender};

use super::Shared;

/// Where lines go.
pub(super) type Sink = Box<dyn Write + Send>;

/// Opens the sink again; `Ok(None)` where there is nothing to open.
pub(super) type Reopen = Box<dyn Fn() -> io::Result<Option<Sink>> + Send>;

/// Some lines, each with its line end.
#[derive(Debug, Default)]
pub(super) struct Lines {
    pub(super) bytes: Vec<u8>,
    pub(super) count: u64,
}

/// What the writer is asked to do, in order.
#[derive(Debug)]
pub(super) enum Job {
    Write(Lines),
    Reopen,
    /// Say when all before is done.
    Sync(SyncSender<()>),
}

pub(super) struct Writer {
    sink: Sink,
    reopen: Reopen,
    shared: Arc<Shared>,
    /// A write ended inside a line.
    torn: bool,
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer")
            .field("torn", &self.torn)
            .finish_non_exhaustive()
    }
}

impl Writer {
    pub(super) fn new(sink: Sink, reopen: Reopen, shared: Arc<Shared>) -> Self {
        Self {
            sink,
            reopen,
            shared,
            torn: false,
        }
    }

    /// Until nobody can send any more.
    pub(super) fn run(mut self, jobs: &Receiver<Job>) {
        for job in jobs {
            match job {
                Job::Write(lines) => self.write(lines),
                Job::Reopen => self.reopen(),
                // Whoever asked may have stopped waiting.
                Job::Sync(done) => drop(done.try_send(())),
            }
        }
    }

    fn write(&mut self, lines: Lines) {
        let mut written = 0;
        let error = self
            .end_torn_line()
            .and_then(|()| write_counted(&mut *self.sink, &lines.bytes, &mut written))
            .err();
        let whole = &lines.bytes[..written];
        if let Some(last) = whole.last() {
            self.torn = *last != b'\n';
        }
        if let Some(error) = error {
            let ended = whole.iter().filter(|byte| **byte == b'\n').count() as u64;
            self.shared.lost(lines.count.saturating_sub(ended), &error);
        }
        self.shared.give_spare(lines.bytes);
    }

    /// What was lost must not spoil the first line that can be written again.
    fn end_torn_line(&mut self) -> io::Result<()> {
        if self.torn {
            self.sink.write_all(b"\n")?;
            self.torn = false;
        }
        Ok(())
    }

    fn reopen(&mut self) {
        match (self.reopen)() {
            Ok(Some(sink)) => {
                self.sink = sink;
                self.torn = false;
            }
            Ok(None) => {}
            Err(error) => tracing::warn!(
                %error,
                "the access log cannot be opened again; lines still go to the file that was open before"
            ),
        }
    }
}

fn write_counted(sink: &mut dyn Write, bytes: &[u8], written: &mut usize) -> io::Result<()> {
    while *written < bytes.len() {
        match sink.write(&bytes[*written..]) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(more) => *written += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
