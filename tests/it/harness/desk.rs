//! The operator's desk: a config file of their own, and the real `cutover` command.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::backend::{Backend, HEALTH};
use super::{Proxy, until};

/// A folder with a config file, and a proxy that it is about.
pub struct Desk {
    folder: TempDir,
    admin: String,
}

/// A command that has ended.
#[derive(Debug)]
pub struct Ended {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Ended {
    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{self:#?}");
        self
    }

    /// All of these words are in what it printed.
    #[track_caller]
    pub fn says(self, words: &[&str]) -> Self {
        for word in words {
            let said = self.out.contains(word) || self.err.contains(word);
            assert!(said, "it does not say {word:?}: {self:#?}");
        }
        self
    }
}

impl Desk {
    /// `deploy` is what stands in the file from `[app.web.deploy]` on.
    pub fn at(proxy: &Proxy, blue: &Backend, green: &Backend, deploy: &str) -> Self {
        let desk = Self {
            folder: tempfile::tempdir().unwrap(),
            admin: format!("unix:{}", proxy.folder().join("state/admin.sock").display()),
        };
        let (blue, green) = (blue.address(), green.address());
        let text = format!(
            "[[listener]]\naddress = \"127.0.0.1:0\"\n[app.web]\nblue = [\"{blue}\"]\ngreen = [\"{green}\"]\n\
             health.path = \"{HEALTH}\"\n{deploy}\n"
        );
        std::fs::write(desk.path("cutover.toml"), text).unwrap();
        desk
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The content of a file that a hook wrote; empty when there is none.
    pub fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    pub fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cutover"));
        command.args(args);
        self.surround(&mut command);
        command
    }

    fn surround(&self, command: &mut Command) {
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("CUTOVER_") {
                command.env_remove(&name);
            }
        }
        command
            .current_dir(self.folder.path())
            .env("CUTOVER_ADMIN", &self.admin)
            .env("NO_COLOR", "1")
            .env("DESK_SECRET", "s3cr3t-of-the-desk")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
    }

    /// Run `cutover ARGS` to its end.
    pub fn cutover(&self, args: &[&str]) -> Ended {
        ended(self.command(args).spawn().unwrap())
    }

    /// Begin `cutover ARGS`.
    pub fn begin(&self, args: &[&str]) -> Running {
        Running(Some(self.command(args).spawn().unwrap()))
    }

    /// Run `cutover ARGS` at a terminal, where somebody types this.
    pub fn typed(&self, args: &str, input: &str) -> Ended {
        let mut command = Command::new("script");
        let line = format!("{} {args}", env!("CARGO_BIN_EXE_cutover"));
        command.args(["--quiet", "--return", "--command", &line, "/dev/null"]);
        self.surround(&mut command);
        let mut child = command
            .env("TERM", "xterm")
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(input.as_bytes()).unwrap();
        let ended = ended(child);
        drop(stdin);
        ended
    }
}

/// A command under way. Killed when dropped.
pub struct Running(Option<Child>);

impl Running {
    pub fn signal(&self, signal: Signal) {
        let child = self.0.as_ref().expect("it has ended");
        kill_process(Pid::from_child(child), signal).unwrap();
    }

    pub fn end(mut self) -> Ended {
        ended(self.0.take().expect("it has ended"))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn ended(child: Child) -> Ended {
    let output = child.wait_with_output().unwrap();
    Ended {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Wait until a process is gone; one that nobody has waited for yet counts as gone.
#[track_caller]
pub fn gone(pid: &str) {
    let stat = Path::new("/proc").join(pid.trim()).join("stat");
    until("the process has ended", || {
        let state = std::fs::read_to_string(&stat).unwrap_or_default();
        state
            .rsplit(") ")
            .next()
            .is_none_or(|rest| rest.is_empty() || rest.starts_with('Z'))
    });
}
