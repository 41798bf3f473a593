//! A container engine of the tests' own: Debian's `dockerd` with its data in a temporary folder, never the machine's.
//!
//! No image can be pulled here, so base images are made of the machine's own programs (`tests/apps/image.sh`). Where no engine can
//! run, [`Engine::start`] says so among the figures that `tests/run` shows last; `CUTOVER_ENGINE=required` makes that a failure.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use tempfile::TempDir;

use crate::figures::say;
use crate::server::{PATIENCE, binary, eventually};

/// What an engine did when it was asked.
pub struct Said {
    pub code: i32,
    /// The command, and all that it printed.
    pub text: String,
    /// What it printed on its stdout.
    pub out: String,
}

impl Said {
    fn of(command: &Command, output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            text: format!(
                "$ {command:?}\n{}{}",
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr)
            ),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
        }
    }

    /// The exit code is this one.
    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{}", self.text);
        self
    }

    /// The last line on its stdout.
    pub fn last(&self) -> &str {
        self.out.lines().last().unwrap_or_default().trim()
    }
}

/// The entry point of an app's image: takes the words that config/compose.yaml gives its app, and ends on SIGTERM as process 1 too.
const STANDIN: &str =
    "export COLOR=$2 PORT=$4\n/usr/bin/python3 /standin.py nocturna &\ntrap 'kill $!' TERM INT\nwait\n";

/// A running engine; everything in it ends with it.
pub struct Engine {
    dir: TempDir,
    daemon: Child,
}

impl Engine {
    /// Start one. None where none can run: that is said aloud, with the reason.
    pub fn start(what: &str) -> Option<Self> {
        match Self::try_start() {
            Ok(engine) => Some(engine),
            Err(why) => {
                let required = std::env::var("CUTOVER_ENGINE").is_ok_and(|wanted| wanted == "required");
                assert!(!required, "no container engine: {why}");
                say(&format!("SKIPPED, {what}: no container engine runs here: {why}"));
                None
            }
        }
    }

    fn try_start() -> Result<Self, String> {
        let dir = tempfile::Builder::new()
            .prefix("cutover-engine-")
            .tempdir()
            .map_err(|error| error.to_string())?;
        let at = |name: &str| dir.path().join(name);
        let log = std::fs::File::create(at("log")).map_err(|error| error.to_string())?;
        let errors = log.try_clone().map_err(|error| error.to_string())?;
        // No rule of the machine's packet filter is touched: published ports go through docker-proxy.
        let daemon = Command::new("dockerd")
            .args(["--iptables=false", "--ip6tables=false", "--bridge=none"])
            .arg(format!("--host=unix://{}", at("docker.sock").display()))
            .arg(format!("--data-root={}", at("data").display()))
            .arg(format!("--exec-root={}", at("exec").display()))
            .arg(format!("--pidfile={}", at("pid").display()))
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            .spawn()
            .map_err(|error| format!("dockerd: {error}"))?;
        let mut engine = Self { dir, daemon };
        let began = std::time::Instant::now();
        while engine.docker(&["version"]).code != 0 {
            let ended = engine.daemon.try_wait().ok().flatten();
            if ended.is_some() || began.elapsed() > PATIENCE {
                return Err(format!(
                    "dockerd {}: {}",
                    ended.map_or("does not answer".to_owned(), |end| end.to_string()),
                    engine.log_end()
                ));
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        // An engine that answers may still be forbidden to make a container, or a network.
        engine.import("base", "debian:bookworm-slim", &[]);
        for args in [
            &[
                "run",
                "--rm",
                "--network",
                "none",
                "debian:bookworm-slim",
                "sh",
                "-c",
                ":",
            ][..],
            &["network", "create", "trial"],
            &[
                "run",
                "--rm",
                "--network",
                "trial",
                "debian:bookworm-slim",
                "sh",
                "-c",
                ":",
            ],
            &["network", "rm", "trial"],
        ] {
            let said = engine.docker(args);
            if said.code != 0 {
                return Err(said.text.replace('\n', " "));
            }
        }
        Ok(engine)
    }

    fn log_end(&self) -> String {
        let log = std::fs::read_to_string(self.path().join("log")).unwrap_or_default();
        log.lines().last().unwrap_or_default().to_owned()
    }

    /// The folder of the engine; tests may put their files beside its own.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The engine's socket.
    pub fn socket(&self) -> PathBuf {
        self.path().join("docker.sock")
    }

    /// A command that talks to this engine and to no other.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .env("DOCKER_HOST", format!("unix://{}", self.socket().display()))
            .env("DOCKER_CONFIG", self.path().join("client"))
            .env("DOCKER_BUILDKIT", "0")
            .stdin(Stdio::null());
        command
    }

    /// `docker …`, to its end.
    pub fn docker(&self, args: &[&str]) -> Said {
        let mut command = self.command("docker");
        match command.args(args).output() {
            Ok(output) => Said::of(&command, output),
            Err(error) => Said {
                code: -1,
                text: format!("docker: {error}"),
                out: String::new(),
            },
        }
    }

    /// Make an image named `tag` of this machine's own programs. `changes` are lines of a Dockerfile.
    pub fn import(&self, kind: &str, tag: &str, changes: &[&str]) {
        let root = self.path().join(tag.replace([':', '/'], "-"));
        let made = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/apps/image.sh"))
            .args([kind.as_ref(), root.as_os_str()])
            .output()
            .expect("run image.sh");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        if kind == "python" {
            let standin = concat!(env!("CARGO_MANIFEST_DIR"), "/config/examples/standin.py");
            std::fs::copy(standin, root.join("standin.py")).expect("copy the stand-in");
            std::fs::write(root.join("standin.sh"), STANDIN).expect("write");
        }
        let mut tar = Command::new("tar")
            .arg("-C")
            .arg(&root)
            .args(["-c", "."])
            .stdout(Stdio::piped())
            .spawn()
            .expect("tar");
        let mut command = self.command("docker");
        command.arg("import");
        for change in changes {
            command.args(["--change", change]);
        }
        command
            .args(["-", tag])
            .stdin(tar.stdout.take().expect("its output"));
        let output = command.output().expect("docker import");
        assert!(tar.wait().expect("tar ends").success());
        Said::of(&command, output).expect(0);
        std::fs::remove_dir_all(&root).expect("remove the root");
    }

    /// Build our own Dockerfile as `tag`: its last stage to the letter, its first one replaced by the binary under test, because a
    /// compiler's image can neither be pulled nor made here.
    pub fn build(&self, tag: &str) {
        let context = self.path().join("context");
        std::fs::create_dir_all(&context).expect("a folder");
        let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/Dockerfile"))
            .expect("the Dockerfile");
        let stages: Vec<usize> = text.match_indices("FROM ").map(|(at, _)| at).collect();
        assert_eq!(stages.len(), 2, "a stage that builds, a stage that runs");
        let built = "FROM scratch AS build\nCOPY cutover /cutover\nCOPY ca-certificates.crt /etc/ssl/certs/ca-certificates.crt\n";
        std::fs::write(
            context.join("Dockerfile"),
            format!("{built}{}", &text[stages[1]..]),
        )
        .expect("write");
        // Without what only a debugger reads: the image is half the size.
        let stripped = Command::new("strip")
            .args(["--strip-debug", "-o"])
            .arg(context.join("cutover"))
            .arg(binary())
            .status();
        assert!(stripped.expect("strip, of binutils").success());
        std::fs::write(context.join("ca-certificates.crt"), "").expect("write");
        let folder = context.display().to_string();
        self.docker(&["build", "-t", tag, &folder]).expect(0);
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let all = self.docker(&["ps", "-aq"]);
        let mut args = vec!["rm", "-f", "-v"];
        args.extend(all.out.split_whitespace());
        if args.len() > 3 {
            self.docker(&args);
        }
        self.docker(&["network", "prune", "-f"]);
        let pid = i32::try_from(self.daemon.id())
            .ok()
            .and_then(rustix::process::Pid::from_raw);
        if let Some(pid) = pid {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let began = std::time::Instant::now();
        while matches!(self.daemon.try_wait(), Ok(None)) {
            if began.elapsed() > PATIENCE {
                let _ = self.daemon.kill();
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }
}

/// A docker compose project in an engine.
pub struct Compose<'a> {
    pub engine: &'a Engine,
    pub folder: PathBuf,
    /// Set for every command, beside what the file has.
    pub environment: Vec<(&'static str, String)>,
}

impl Compose<'_> {
    /// `docker compose …`; Debian has it as `docker-compose`.
    pub fn run(&self, args: &[&str]) -> Said {
        let mut command = self.engine.command("docker-compose");
        command
            .args(["--ansi", "never", "-p", "cutover-test"])
            .args(args)
            .current_dir(&self.folder);
        command.envs(self.environment.iter().map(|(name, value)| (*name, value)));
        let output = command.output().expect("docker-compose; tests/run installs it");
        Said::of(&command, output)
    }

    /// The id of a service's container, running or not. Asked of the engine: compose takes its time to start.
    pub fn container(&self, service: &str) -> String {
        let label = format!("label=com.docker.compose.service={service}");
        let said = self.engine.docker(&["ps", "-aq", "--filter", &label]).expect(0);
        said.last().to_owned()
    }

    /// What `docker inspect` says of a service's container.
    pub fn inspect(&self, service: &str, template: &str) -> String {
        let id = self.container(service);
        self.engine
            .docker(&["inspect", "--format", template, &id])
            .expect(0)
            .last()
            .to_owned()
    }

    /// A verb of the `cutover` in the project.
    pub fn cutover(&self, args: &[&str]) -> Said {
        let id = self.container("cutover");
        let mut all = vec!["exec", id.as_str(), "cutover"];
        all.extend(args);
        self.engine.docker(&all)
    }

    /// Wait until the engine says that a service's container is healthy, by the image's own health check.
    pub fn healthy(&self, service: &str) {
        eventually("the container is healthy", PATIENCE * 2, || {
            (self.inspect(service, "{{.State.Health.Status}}") == "healthy").then_some(())
        });
    }
}
