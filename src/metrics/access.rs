//! The access log: workers format lines into buffers of their own; one thread writes them.
//!
//! A worker never waits for the log. Between it and the writer is a queue of whole buffers; when that is full, or
//! the file cannot be written, lines are lost, counted (`access_log_dropped_total`) and warned of.

mod format;
mod writer;

use std::fs::File;
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, TryLockError};
use std::time::{Duration, Instant, SystemTime};

use self::format::Clock;
use self::writer::{Job, Lines, Sink, Writer};
use crate::config::{AccessFormat, Log};
use crate::rollout::Color;

/// Bytes in a worker's buffer at which it is handed to the writer.
const FULL: usize = 16 * 1024;

/// Buffers between workers and writer: 4 MiB of usual lines, about 25 MiB if every value is as long as it may be
/// and all of it must be escaped.
const QUEUE: usize = 256;

/// What is logged of one request, all of it borrowed. There is no field for `Authorization` or `Cookie`.
///
/// What comes from the client is bytes: it need not be text. Absent values are `null` in JSON, `-` in combined.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// When the answer ended.
    pub time: SystemTime,
    /// The client's address; `None` on a Unix socket.
    pub client: Option<IpAddr>,
    /// `https` or `http`, as the client spoke to us.
    pub scheme: &'a str,
    /// Empty when no request could be read.
    pub method: &'a str,
    /// The host that was asked for.
    pub host: Option<&'a [u8]>,
    /// The path. From a `?` on it is not logged: queries hold secrets.
    pub path: &'a [u8],
    /// The protocol version.
    pub version: http::Version,
    /// The status that was answered; 499 when the client left before.
    pub status: u16,
    /// Bytes of the request body.
    pub bytes_in: u64,
    /// Bytes of the answer's body.
    pub bytes_out: u64,
    /// From the request's head to the end of the answer's body.
    pub duration: Duration,
    /// From the request sent to the head of the upstream's answer.
    pub upstream_duration: Option<Duration>,
    /// The app.
    pub app: Option<&'a str>,
    /// The service.
    pub service: Option<&'a str>,
    /// The color that answered, or was to answer.
    pub color: Option<Color>,
    /// The endpoint, as configured.
    pub endpoint: Option<&'a str>,
    /// The request id.
    pub request_id: Option<&'a [u8]>,
    /// The trace id of `traceparent`.
    pub trace_id: Option<&'a [u8]>,
    /// How many times it was sent again.
    pub retries: u32,
    /// What went wrong, with stage and side: `upstream timeout: first_byte`.
    pub error: Option<&'a str>,
    /// `User-Agent`.
    pub user_agent: Option<&'a [u8]>,
    /// `Referer`, without its query.
    pub referer: Option<&'a [u8]>,
}

/// The access log of the process. Its thread ends when this and all [`WorkerLog`]s are dropped.
#[derive(Debug)]
pub struct AccessLog {
    format: AccessFormat,
    /// `None`: off.
    queue: Option<SyncSender<Job>>,
    shared: Arc<Shared>,
}

/// What workers and writer share.
#[derive(Debug)]
struct Shared {
    dropped: Arc<AtomicU64>,
    /// Unix time of the last warning, so that a full disk is one line a minute.
    warned: AtomicU64,
    /// Written buffers, for the workers to use again.
    spare: Mutex<Vec<Vec<u8>>>,
}

impl AccessLog {
    /// Open the file (`-` is stdout; made with mode 0640) and start the writer. With `access = "off"` there is
    /// neither.
    ///
    /// # Errors
    /// The file cannot be opened, or no thread can be started.
    pub fn open(log: &Log) -> io::Result<Self> {
        if log.access == AccessFormat::Off {
            return Ok(Self::off());
        }
        let path = (log.file != "-").then(|| log.file.clone());
        let sink: Sink = match &path {
            Some(path) => Box::new(open_file(path)?),
            None => Box::new(stdout()?),
        };
        let reopen = move || match &path {
            Some(path) => open_file(path).map(|file| Some(Box::new(file) as Sink)),
            None => Ok(None),
        };
        Self::start(log.access, sink, Box::new(reopen))
    }

    fn off() -> Self {
        Self {
            format: AccessFormat::Off,
            queue: None,
            shared: Shared::new(),
        }
    }

    fn start(format: AccessFormat, sink: Sink, reopen: writer::Reopen) -> io::Result<Self> {
        let (queue, jobs) = sync_channel(QUEUE);
        let shared = Shared::new();
        let writer = Writer::new(sink, reopen, Arc::clone(&shared));
        std::thread::Builder::new()
            .name("access-log".to_owned())
            .spawn(move || writer.run(&jobs))?;
        Ok(Self {
            format,
            queue: Some(queue),
            shared,
        })
    }

    /// A worker's end.
    #[must_use]
    pub fn worker(&self) -> WorkerLog {
        WorkerLog {
            format: self.format,
            queue: self.queue.clone(),
            shared: Arc::clone(&self.shared),
            lines: Lines::default(),
            clock: Clock::default(),
        }
    }

    /// Whether there is a log at all.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.queue.is_some()
    }

    /// Lines lost since start.
    #[must_use]
    pub fn dropped(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.shared.dropped)
    }

    /// Open the file again under its name, after it was rotated away. What was queued before goes to the old one.
    /// Returns at once; when the file cannot be opened the old one stays in use, with a warning. False: the queue
    /// is full, ask again.
    pub fn reopen(&self) -> bool {
        self.queue
            .as_ref()
            .is_none_or(|queue| queue.try_send(Job::Reopen).is_ok())
    }

    /// Wait until all that workers have flushed is written or counted as lost, at most `within`. Blocks: for the
    /// end of the process, after the workers. False: not all of it.
    #[must_use]
    pub fn finish(&self, within: Duration) -> bool {
        let Some(queue) = &self.queue else {
            return true;
        };
        let until = Instant::now() + within;
        let (done, wait) = sync_channel(1);
        let mut job = Job::Sync(done);
        loop {
            match queue.try_send(job) {
                Ok(()) => break,
                Err(TrySendError::Full(back)) if Instant::now() < until => job = back,
                Err(_) => return false,
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        wait.recv_timeout(until.saturating_duration_since(Instant::now()))
            .is_ok()
    }
}

/// One worker's end of the access log; lives on the worker.
#[derive(Debug)]
pub struct WorkerLog {
    format: AccessFormat,
    queue: Option<SyncSender<Job>>,
    shared: Arc<Shared>,
    lines: Lines,
    clock: Clock,
}

impl WorkerLog {
    /// Log one request. Nothing is allocated once the worker's buffers exist, and nothing waits.
    pub fn write(&mut self, record: &Record<'_>) {
        match self.format {
            AccessFormat::Off => return,
            AccessFormat::Json => format::json(&mut self.lines.bytes, &mut self.clock, record),
            AccessFormat::Combined => format::combined(&mut self.lines.bytes, &mut self.clock, record),
        }
        self.lines.count += 1;
        if self.lines.bytes.len() > FULL {
            self.flush();
        }
    }

    /// Hand what is buffered to the writer. The worker calls this some times a second and when it ends.
    pub fn flush(&mut self) {
        if self.lines.count == 0 {
            return;
        }
        let Some(queue) = &self.queue else {
            return;
        };
        let next = Lines {
            bytes: self.shared.take_spare(),
            count: 0,
        };
        let full = std::mem::replace(&mut self.lines, next);
        let count = full.count;
        if let Err(error) = queue.try_send(Job::Write(full)) {
            if let TrySendError::Full(Job::Write(lines)) = error {
                self.shared.give_spare(lines.bytes);
            }
            self.shared
                .lost(count, &"it is written more slowly than requests come");
        }
    }
}

impl Drop for WorkerLog {
    fn drop(&mut self) {
        self.flush();
    }
}

impl Shared {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            dropped: Arc::default(),
            warned: AtomicU64::new(0),
            spare: Mutex::default(),
        })
    }

    fn lost(&self, lines: u64, why: &dyn std::fmt::Display) {
        let all = self.dropped.fetch_add(lines, Relaxed) + lines;
        let now = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_or(0, |since| since.as_secs());
        let warned = self.warned.load(Relaxed);
        let due = warned == 0 || now >= warned.saturating_add(60);
        let mine = || {
            self.warned
                .compare_exchange(warned, now, Relaxed, Relaxed)
                .is_ok()
        };
        if due && mine() {
            tracing::warn!(
                lost = all,
                "the access log loses lines: {why}; requests are served as before"
            );
        }
    }

    /// An empty buffer. Neither side waits for the other's hold of the lock, which is a push or a pop.
    fn take_spare(&self) -> Vec<u8> {
        let spare = match self.spare.try_lock() {
            Ok(mut spare) => spare.pop(),
            Err(TryLockError::Poisoned(_) | TryLockError::WouldBlock) => None,
        };
        spare.unwrap_or_else(|| Vec::with_capacity(FULL + FULL / 2))
    }

    fn give_spare(&self, mut buffer: Vec<u8>) {
        // One that grew for a huge line is not kept.
        if buffer.capacity() > 4 * FULL {
            return;
        }
        buffer.clear();
        if let Ok(mut spare) = self.spare.try_lock()
            && spare.len() < QUEUE
        {
            spare.push(buffer);
        }
    }
}

fn open_file(path: &str) -> io::Result<File> {
    File::options().append(true).create(true).mode(0o640).open(path)
}

/// Stdout as a file of its own: no line buffering, no lock shared with other output.
fn stdout() -> io::Result<File> {
    use std::os::fd::AsFd as _;
    Ok(File::from(io::stdout().as_fd().try_clone_to_owned()?))
}

#[cfg(test)]
mod tests;
