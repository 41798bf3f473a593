//! A gate that is a command: exit code 0 passes. It and all it started are killed when its time is over.

use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;

use crate::control::ask::Verdict;

/// Bytes of its output that are kept for the verdict: the last ones.
const OUTPUT_MAX: usize = 2048;

/// How long its output may take to end after it has: a child that it left behind may hold it open.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// Run it in a process group of its own, with the facts in its environment as `CUTOVER_…` and `input` on its
/// standard input. Dropping the future kills the group.
pub(in crate::control) async fn run(
    words: &[String],
    facts: &[(&'static str, String)],
    input: Option<&str>,
) -> (Verdict, String) {
    let Some((program, arguments)) = words.split_first() else {
        return (Verdict::Fail, "no command".to_owned());
    };
    let mut command = Command::new(program);
    command
        .args(arguments)
        .stdin(if input.is_some() {
            Stdio::piped()
        } else {
            Stdio::null()
        })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    for (name, value) in facts {
        command.env(format!("CUTOVER_{}", name.to_ascii_uppercase()), value);
    }
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => return (Verdict::Fail, format!("{program} could not be started: {error}")),
    };
    let group = Group(
        child
            .id()
            .and_then(|id| i32::try_from(id).ok())
            .and_then(Pid::from_raw),
    );
    if let (Some(mut stdin), Some(input)) = (child.stdin.take(), input) {
        let input = input.to_owned();
        // It may never read: nothing waits for that, and the pipe goes with the command.
        tokio::spawn(async move { stdin.write_all(input.as_bytes()).await });
    }
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let reading = tokio::spawn(async move {
        let mut tail = Vec::new();
        let (out, err) = tokio::join!(tail_of(stdout), tail_of(stderr));
        tail.extend(out);
        tail.extend(err);
        tail
    });
    let status = child.wait().await;
    let output = tokio::time::timeout(LAST_WORDS, reading).await;
    drop(group);
    let output = output.ok().and_then(Result::ok).unwrap_or_default();
    let output = String::from_utf8_lossy(&output);
    let said = output.trim().lines().last().unwrap_or_default();
    let said: String = said
        .chars()
        .filter(|letter| !letter.is_control())
        .take(300)
        .collect();
    let said = if said.is_empty() {
        said
    } else {
        format!(": {said}")
    };
    match status {
        Ok(status) if status.success() => (Verdict::Pass, format!("exit code 0{said}")),
        Ok(status) => (Verdict::Fail, format!("{status}{said}")),
        Err(error) => (Verdict::Fail, format!("its end is not known: {error}")),
    }
}

/// The last bytes of a stream, whatever its length.
async fn tail_of(stream: Option<impl tokio::io::AsyncRead + Unpin>) -> Vec<u8> {
    let mut tail = Vec::new();
    let Some(mut stream) = stream else { return tail };
    let mut chunk = [0; 1024];
    while let Ok(read) = stream.read(&mut chunk).await {
        if read == 0 {
            break;
        }
        tail.extend_from_slice(&chunk[..read]);
        let over = tail.len().saturating_sub(OUTPUT_MAX);
        tail.drain(..over);
    }
    tail
}

/// Kills the process group when dropped: children that the command left behind end with it.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(pid) = self.0 {
            // Gone already is what it should be.
            let _ = kill_process_group(pid, Signal::KILL);
        }
    }
}
