//! One command: in a process group of its own, its output line by line, its time limited.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior};

/// Between SIGTERM and SIGKILL.
const TERM_TIME: Duration = Duration::from_secs(5);

/// How long output is still taken after the end of the command. What it left running may keep the pipe open for ever.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// A longer line is cut into several, in bytes.
const LINE_MAX: usize = 4096;

/// Between two ticks for spinners.
const TICK: Duration = Duration::from_millis(120);

/// A command, ready to run.
#[derive(Debug)]
pub(super) struct Hook<'a> {
    /// Program and arguments.
    pub words: Vec<String>,
    /// Set on top of the environment of this process.
    pub env: BTreeMap<String, String>,
    pub folder: &'a Path,
    pub timeout: Option<Duration>,
}

/// What a command tells while it runs.
pub(super) enum Told<'t> {
    Line(&'t str),
    Tick,
}

/// How it ended.
#[derive(Debug)]
pub(super) enum Ended {
    Passed,
    Failed(ExitStatus),
    NotStarted(io::Error),
    TimedOut(Duration),
    Interrupted,
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Passed => f.write_str("done"),
            Self::Failed(status) => write!(f, "{status}"),
            Self::NotStarted(error) => write!(f, "it cannot be started: {error}"),
            Self::TimedOut(after) => {
                write!(f, "not done within {after:?}; it was killed with all it started")
            }
            Self::Interrupted => f.write_str("interrupted; it was killed with all it started"),
        }
    }
}

impl Hook<'_> {
    /// Run it to its end. `stop` turning true interrupts it.
    pub(super) async fn run(self, stop: &mut watch::Receiver<bool>, tell: &mut dyn FnMut(Told<'_>)) -> Ended {
        let Some((program, args)) = self.words.split_first() else {
            return Ended::NotStarted(io::ErrorKind::InvalidInput.into());
        };
        let spawned = Command::new(program)
            .args(args)
            .envs(&self.env)
            .current_dir(self.folder)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn();
        let mut child = match spawned {
            Ok(child) => child,
            Err(error) => return Ended::NotStarted(named(error, program, self.folder)),
        };
        let (send, mut lines) = mpsc::channel(64);
        if let Some(pipe) = child.stdout.take() {
            tokio::spawn(read_lines(pipe, send.clone()));
        }
        if let Some(pipe) = child.stderr.take() {
            tokio::spawn(read_lines(pipe, send.clone()));
        }
        drop(send);
        let began = Instant::now();
        let deadline = self.timeout.map(|timeout| (timeout, began + timeout));
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut open = true;
        let ended = loop {
            tokio::select! {
                biased;
                () = requested(stop) => break kill(&mut child, Ended::Interrupted).await,
                () = at(deadline) => {
                    let after = self.timeout.unwrap_or_default();
                    break kill(&mut child, Ended::TimedOut(after)).await;
                }
                line = lines.recv(), if open => match line {
                    Some(line) => tell(Told::Line(&line)),
                    None => open = false,
                },
                status = child.wait() => break match status {
                    Ok(status) if status.success() => Ended::Passed,
                    Ok(status) => Ended::Failed(status),
                    Err(error) => Ended::NotStarted(error),
                },
                _ = tick.tick() => tell(Told::Tick),
            }
        };
        let rest = async {
            while let Some(line) = lines.recv().await {
                tell(Told::Line(&line));
            }
        };
        let _ = tokio::time::timeout(LAST_WORDS, rest).await;
        ended
    }
}

/// The error of a start with what could not be started: the system's own words name neither.
fn named(error: io::Error, program: &str, folder: &Path) -> io::Error {
    let why = match error.kind() {
        io::ErrorKind::NotFound if !folder.is_dir() => {
            format!("there is no folder {} to run it in", folder.display())
        }
        io::ErrorKind::NotFound => format!("there is no program `{program}`"),
        io::ErrorKind::PermissionDenied => format!("`{program}` may not be executed"),
        _ => return error,
    };
    io::Error::new(error.kind(), why)
}

async fn at(deadline: Option<(Duration, Instant)>) {
    match deadline {
        Some((_, deadline)) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// Ready once it is true; never when nobody can set it any more.
pub(super) async fn requested(stop: &mut watch::Receiver<bool>) {
    if stop.wait_for(|stop| *stop).await.is_err() {
        std::future::pending().await
    }
}

/// SIGTERM to the whole group, SIGKILL to what is left of it.
async fn kill(child: &mut Child, ended: Ended) -> Ended {
    let group = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
    let Some(group) = group else { return ended };
    // Whoever is gone already needs no signal.
    let _ = kill_process_group(group, Signal::TERM);
    let gone = tokio::time::timeout(TERM_TIME, child.wait()).await;
    let _ = kill_process_group(group, Signal::KILL);
    if gone.is_err() {
        let _ = child.wait().await;
    }
    ended
}

async fn read_lines(mut pipe: impl AsyncRead + Unpin, lines: mpsc::Sender<String>) {
    let mut line = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        let count = match pipe.read(&mut chunk).await {
            Ok(0) | Err(_) => break,
            Ok(count) => count,
        };
        for byte in &chunk[..count] {
            // A progress bar rewrites its line with CR: each state is a line here.
            let ends = matches!(byte, b'\n' | b'\r');
            if !ends {
                line.push(*byte);
            }
            if (ends && !line.is_empty()) || line.len() >= LINE_MAX {
                let text = String::from_utf8_lossy(&line).into_owned();
                line.clear();
                if lines.send(text).await.is_err() {
                    return;
                }
            }
        }
    }
    if !line.is_empty() {
        let _ = lines.send(String::from_utf8_lossy(&line).into_owned()).await;
    }
}
