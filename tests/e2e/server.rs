//! The real `cutover` with a config in a folder of its own, and the two doors to it: the command line and the socket.

use std::io::{BufRead, BufReader, Read};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::judge::Color;
use crate::ports;
use crate::wire::{Broken, Client, request};

/// The binary under test; `CUTOVER_BINARY` names another build of it.
pub fn binary() -> String {
    std::env::var("CUTOVER_BINARY").unwrap_or_else(|_| env!("CARGO_BIN_EXE_cutover").to_owned())
}

/// How long a start, a stop or a command may take before it counts as hanging.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A folder with a config file and a state directory; outlives the processes that run in it.
pub struct Site {
    dir: TempDir,
    /// The first listener's port.
    pub port: u16,
}

impl Site {
    /// Write a config: what every test needs, then `rest`.
    pub fn new(rest: &str) -> Self {
        let dir = tempfile::Builder::new()
            .prefix("cutover-e2e-")
            .tempdir()
            .expect("a temporary folder");
        let site = Self {
            dir,
            port: ports::free(),
        };
        site.write(rest);
        site
    }

    /// One app `web` with one service, both colors given, `initial = "blue"`.
    pub fn simple(blue: impl ToString, green: impl ToString) -> Self {
        Self::new(&simple(&blue.to_string(), &green.to_string(), ""))
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    pub fn config(&self) -> PathBuf {
        self.path().join("cutover.toml")
    }

    pub fn state(&self) -> PathBuf {
        self.path().join("state")
    }

    pub fn socket(&self) -> PathBuf {
        self.state().join("admin.sock")
    }

    pub fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    /// The whole text of a config with `rest`.
    pub fn text(&self, rest: &str) -> String {
        format!(
            "[server]\nstate_dir = {:?}\n\n[log]\naccess = \"off\"\n\n[[listener]]\naddress = \"127.0.0.1:{}\"\n\n{rest}",
            self.state(),
            self.port
        )
    }

    /// Replace the config as careful tools do: whole, by rename.
    pub fn write(&self, rest: &str) {
        let next = self.path().join(".next.toml");
        std::fs::write(&next, self.text(rest)).expect("write the config");
        std::fs::rename(&next, self.config()).expect("put the config in place");
    }

    /// Start, and wait until it serves.
    pub fn run(&self) -> Server {
        self.try_run()
            .unwrap_or_else(|end| panic!("cutover did not start: exit {:?}\n{}", end.code, end.stderr))
    }

    /// Start; `Err` when it ends by itself before it serves.
    pub fn try_run(&self) -> Result<Server, Ended> {
        let config = self.config();
        self.launch(&["run".as_ref(), "-c".as_ref(), config.as_os_str()], &[])
    }

    /// Start with these arguments and these shell limits (`ulimit` flags).
    pub fn launch(&self, args: &[&std::ffi::OsStr], limits: &[&str]) -> Result<Server, Ended> {
        let command = if limits.is_empty() {
            Command::new(binary())
        } else {
            let mut shell = Command::new("sh");
            let script = format!("ulimit {} && exec \"$0\" \"$@\"", limits.join(" "));
            shell.args(["-c", &script, &binary()]);
            shell
        };
        self.launch_by(command, args)
    }

    /// Start with a file of the test's in place of one of the system's, for this process alone.
    pub fn run_over(&self, system: &Path, own: &Path) -> Server {
        let config = self.config();
        let mut command = Command::new("unshare");
        let script = format!("mount --bind {own:?} {system:?} && exec \"$0\" \"$@\"");
        command.args(["--mount", "sh", "-c", &script, &binary()]);
        self.launch_by(command, &["run".as_ref(), "-c".as_ref(), config.as_os_str()])
            .unwrap_or_else(|end| panic!("cutover did not start: exit {:?}\n{}", end.code, end.stderr))
    }

    /// Start with more in its environment.
    pub fn run_with(&self, environment: &[(&str, &str)]) -> Server {
        let config = self.config();
        let mut command = Command::new(binary());
        command.envs(environment.iter().copied());
        self.launch_by(command, &["run".as_ref(), "-c".as_ref(), config.as_os_str()])
            .unwrap_or_else(|end| panic!("cutover did not start: exit {:?}\n{}", end.code, end.stderr))
    }

    fn launch_by(&self, mut command: Command, args: &[&std::ffi::OsStr]) -> Result<Server, Ended> {
        clean(&mut command).args(args).current_dir(self.path());
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("start cutover");
        let stderr = Arc::new(Mutex::new(String::new()));
        let (into, from) = (Arc::clone(&stderr), child.stderr.take().expect("its stderr"));
        let reader = std::thread::spawn(move || {
            for line in BufReader::new(from).split(b'\n').map_while(Result::ok) {
                let mut all = into.lock().unwrap();
                all.push_str(&String::from_utf8_lossy(&line));
                all.push('\n');
            }
        });
        let mut server = Server {
            child,
            stderr,
            reader: Some(reader),
            socket: self.socket(),
            address: self.address(),
        };
        server.wait_ready().map(|()| server)
    }

    /// A command of the operator, to this site's socket.
    pub fn cli(&self, args: &[&str]) -> Cli {
        let admin = format!("unix:{}", self.socket().display());
        let mut all: Vec<&str> = args.to_vec();
        all.extend(["--admin", &admin]);
        cli_in(self.path(), &all)
    }

    /// A command that names its own door, or none.
    pub fn cli_plain(&self, args: &[&str]) -> Cli {
        cli_in(self.path(), args)
    }

    pub fn admin(&self) -> Admin {
        Admin::connect(&self.socket())
    }

    pub fn client(&self) -> Client<TcpStream> {
        Client::connect(self.address()).expect("connect to the proxy")
    }
}

/// The text of one app `web` with one service; `more` goes behind it.
pub fn simple(blue: &str, green: &str, more: &str) -> String {
    format!("[app.web]\ninitial = \"blue\"\nblue = [{blue:?}]\ngreen = [{green:?}]\n\n{more}")
}

/// A process that ended.
#[derive(Debug)]
pub struct Ended {
    /// `None`: by a signal.
    pub code: Option<i32>,
    pub stderr: String,
}

/// A running `cutover run`.
pub struct Server {
    child: Child,
    stderr: Arc<Mutex<String>>,
    reader: Option<std::thread::JoinHandle<()>>,
    socket: PathBuf,
    address: SocketAddr,
}

impl Server {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Resident memory now.
    pub fn resident_kib(&self) -> u64 {
        self.status_kib("VmRSS:")
    }

    /// The most memory that it ever had resident.
    pub fn peak_kib(&self) -> u64 {
        self.status_kib("VmHWM:")
    }

    fn status_kib(&self, name: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("its status");
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let number = line.and_then(|rest| rest.split_whitespace().next());
        number.and_then(|number| number.parse().ok()).expect(name)
    }

    pub fn stderr(&self) -> String {
        self.stderr.lock().unwrap().clone()
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("signal cutover");
    }

    /// `kill -9`, and gone when this returns.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("look at cutover")
    }

    /// Wait for its end.
    pub fn wait(&mut self, patience: Duration) -> Option<ExitStatus> {
        wait(&mut self.child, patience)
    }

    /// SIGTERM, and wait for a clean end.
    pub fn stop(mut self) {
        self.signal(Signal::TERM);
        let status = self.wait(PATIENCE).expect("cutover ends after SIGTERM");
        assert_eq!(
            status.code(),
            Some(0),
            "cutover ended with {status}\n{}",
            self.stderr()
        );
    }

    /// The listener answers, and not with "the first active color is not decided yet": a first start looks around first.
    fn decided(&self) -> bool {
        let answer = Client::connect(self.address)
            .ok()
            .and_then(|mut client| client.get("/healthz").ok());
        answer.is_some_and(|answer| answer.status != 503 || !answer.text().contains("not decided yet"))
    }

    fn wait_ready(&mut self) -> Result<(), Ended> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.ended() {
                if let Some(reader) = self.reader.take() {
                    let _ = reader.join();
                }
                return Err(Ended {
                    code: status.code(),
                    stderr: self.stderr(),
                });
            }
            let answers = Client::connect_unix(&self.socket)
                .is_ok_and(|mut client| client.get("/v1/apps").is_ok_and(|answer| answer.status == 200));
            if answers && self.decided() {
                return Ok(());
            }
            assert!(
                Instant::now() < deadline,
                "cutover is not ready after {PATIENCE:?}\n{}",
                self.stderr()
            );
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
        if std::thread::panicking() {
            println!("--- stderr of cutover\n{}---", self.stderr());
        }
    }
}

/// What a command printed and how it ended.
#[derive(Debug)]
pub struct Cli {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Cli {
    /// Both streams, for looking for words.
    pub fn text(&self) -> String {
        format!("{}\n{}", self.stdout, self.stderr)
    }

    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(
            self.code, code,
            "another exit code than wanted\nstdout: {}\nstderr: {}",
            self.stdout, self.stderr
        );
        self
    }

    /// The words (any case) must all be in what it printed.
    #[track_caller]
    pub fn says(self, words: &[&str]) -> Self {
        let text = self.text().to_lowercase();
        for word in words {
            assert!(
                text.contains(&word.to_lowercase()),
                "it does not say {word:?}\nstdout: {}\nstderr: {}",
                self.stdout,
                self.stderr
            );
        }
        self
    }
}

/// Run `cutover ARGS` in a folder, to its end.
pub fn cli_in(folder: &Path, args: &[&str]) -> Cli {
    let mut command = Command::new(binary());
    clean(&mut command).args(args).current_dir(folder);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("start cutover");
    let drain = |from: Option<Box<dyn Read + Send>>| {
        std::thread::spawn(move || {
            let mut text = Vec::new();
            if let Some(mut from) = from {
                let _ = from.read_to_end(&mut text);
            }
            String::from_utf8_lossy(&text).into_owned()
        })
    };
    let stdout = drain(
        child
            .stdout
            .take()
            .map(|pipe| Box::new(pipe) as Box<dyn Read + Send>),
    );
    let stderr = drain(
        child
            .stderr
            .take()
            .map(|pipe| Box::new(pipe) as Box<dyn Read + Send>),
    );
    let status = wait(&mut child, PATIENCE * 2).unwrap_or_else(|| {
        let _ = child.kill();
        panic!("cutover {args:?} does not end")
    });
    let (stdout, stderr) = (stdout.join().unwrap(), stderr.join().unwrap());
    Cli {
        code: status.code().unwrap_or(-1),
        stdout,
        stderr,
    }
}

/// Nothing of the developer's own environment may reach the process.
fn clean(command: &mut Command) -> &mut Command {
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CUTOVER_")
            || text == "STATE_DIRECTORY"
            || text == "XDG_STATE_HOME"
            || text == "RUST_LOG"
        {
            command.env_remove(&name);
        }
    }
    command.env("NO_COLOR", "1")
}

fn wait(child: &mut Child, patience: Duration) -> Option<ExitStatus> {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(status) = child.try_wait().expect("wait for a child") {
            return Some(status);
        }
        if Instant::now() > deadline {
            return None;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// The admin socket closes a connection that says nothing for 10 s; one that was silent for longer than this is
/// not used again, so that no change is sent into a closing connection.
const ADMIN_IDLE: Duration = Duration::from_secs(3);

/// One kept connection to the admin socket.
pub struct Admin {
    socket: PathBuf,
    client: Client<UnixStream>,
    used: Instant,
}

impl Admin {
    pub fn connect(socket: &Path) -> Self {
        let client =
            Client::connect_unix(socket).unwrap_or_else(|error| panic!("{}: {error}", socket.display()));
        Self {
            socket: socket.to_owned(),
            client,
            used: Instant::now(),
        }
    }

    pub fn get(&mut self, path: &str) -> Result<(u16, Value), Broken> {
        self.call(&request("GET", path, &[("host", "localhost")], None))
    }

    pub fn post(&mut self, path: &str, body: &Value) -> Result<(u16, Value), Broken> {
        let body = body.to_string();
        let headers = [("host", "localhost"), ("content-type", "application/json")];
        self.call(&request("POST", path, &headers, Some(body.as_bytes())))
    }

    /// `POST …/switch` of the app `web`.
    pub fn switch(&mut self, to: Color) -> Result<(u16, Value), Broken> {
        self.post("/v1/apps/web/switch", &serde_json::json!({ "to": to.name() }))
    }

    /// Active color and generation of the app `web`.
    pub fn state(&mut self) -> (Color, u64) {
        let (status, app) = self
            .get("/v1/apps/web")
            .unwrap_or_else(|broken| panic!("GET /v1/apps/web: {broken}"));
        assert_eq!(status, 200, "{app}");
        let color = app["active"]
            .as_str()
            .and_then(Color::parse)
            .unwrap_or_else(|| panic!("no active color in {app}"));
        (
            color,
            app["generation"]
                .as_u64()
                .unwrap_or_else(|| panic!("no generation in {app}")),
        )
    }

    fn call(&mut self, bytes: &[u8]) -> Result<(u16, Value), Broken> {
        if self.used.elapsed() > ADMIN_IDLE {
            self.client = Client::connect_unix(&self.socket)
                .map_err(|error| Broken::NoAnswer(format!("{}: {error}", self.socket.display())))?;
        }
        let response = self.client.exchange(bytes)?;
        self.used = Instant::now();
        let value = serde_json::from_slice(&response.body).unwrap_or(Value::String(response.text()));
        Ok((response.status, value))
    }
}

/// Wait for a condition; fails with `what` after `patience`.
#[track_caller]
pub fn eventually<T>(what: &str, patience: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "not within {patience:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
