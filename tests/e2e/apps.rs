//! Real app servers, each started and stopped by its own pid.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::judge::Color;
use crate::ports;
use crate::wire::Client;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Uvicorn,
    Gunicorn,
    Node,
    /// WebSockets on the Python package of that name.
    Sockets,
    /// The same on Node's package `ws`.
    NodeSockets,
    /// Pages, WebSockets and event streams on uvicorn (`crowd.py`).
    Crowd,
    /// A bidirectional gRPC method on grpcio (`crowd.py`).
    Chat,
}

/// One app server in one color, always on the same port.
pub struct App {
    kind: Kind,
    color: Color,
    pub port: u16,
    child: Option<Child>,
}

impl App {
    /// Start them side by side, and wait until each answers.
    pub fn start_all<const N: usize>(of: [(Kind, Color); N]) -> [Self; N] {
        let mut all = of.map(|(kind, color)| Self {
            kind,
            color,
            port: ports::free(),
            child: None,
        });
        all.iter_mut().for_each(Self::begin);
        all.iter_mut().for_each(Self::wait);
        all
    }

    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("kill -9");
            child.wait().expect("wait for a killed app");
        }
    }

    /// After a kill: the same server on the same port.
    pub fn restart(&mut self) {
        self.kill();
        self.begin();
        self.wait();
    }

    fn begin(&mut self) {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/apps");
        let mut command = match self.kind {
            Kind::Uvicorn | Kind::Crowd => {
                let mut command = Command::new(tool("uvicorn"));
                command.args([
                    "--app-dir",
                    folder,
                    "--host",
                    "127.0.0.1",
                    "--port",
                    &self.port.to_string(),
                ]);
                command.args([
                    "--no-access-log",
                    "--log-level",
                    "error",
                    "--ws",
                    if self.kind == Kind::Crowd {
                        "websockets"
                    } else {
                        "none"
                    },
                    if self.kind == Kind::Crowd {
                        "crowd:asgi"
                    } else {
                        "app:asgi"
                    },
                ]);
                command
            }
            Kind::Gunicorn => {
                let mut command = Command::new(tool("gunicorn"));
                command.args([
                    "--chdir",
                    folder,
                    "--bind",
                    &self.address(),
                    "--threads",
                    "16",
                    "--keep-alive",
                    "5",
                ]);
                command.args(["--log-level", "error", "app:wsgi"]);
                command
            }
            Kind::Node => {
                let mut command = Command::new("node");
                command.arg(format!("{folder}/app.js"));
                command
            }
            Kind::Sockets => {
                let mut command = Command::new(tool("python"));
                command.arg(format!("{folder}/sockets.py"));
                command
            }
            Kind::NodeSockets => node_sockets(),
            Kind::Chat => {
                let mut command = Command::new(tool("python"));
                command.args([format!("{folder}/crowd.py"), "chat".to_owned()]);
                command
            }
        };
        command
            .env("COLOR", self.color.name())
            .env("PORT", self.port.to_string())
            .env("PYTHONDONTWRITEBYTECODE", "1");
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn();
        self.child = Some(child.unwrap_or_else(|error| {
            panic!("{:?} does not start: {error}. `tests/run` installs it", self.kind)
        }));
    }

    fn wait(&mut self) {
        let address = SocketAddr::from(([127, 0, 0, 1], self.port));
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            if let Ok(mut client) = Client::connect(address)
                // grpcio speaks HTTP/2 alone: an open port has to do.
                && (self.kind == Kind::Chat || client.get("/healthz").is_ok_and(|answer| answer.status == 200))
            {
                return;
            }
            if let Some(child) = &mut self.child
                && let Ok(Some(status)) = child.try_wait()
            {
                panic!("{:?} on port {} ended at once: {status}", self.kind, self.port);
            }
            assert!(
                Instant::now() < deadline,
                "{:?} does not answer on port {}",
                self.kind,
                self.port
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for App {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // gunicorn's workers end with their arbiter only when it is asked, not when it is killed.
            if self.kind == Kind::Gunicorn {
                let _ = rustix::process::kill_process(
                    rustix::process::Pid::from_child(child),
                    rustix::process::Signal::TERM,
                );
                let deadline = Instant::now() + Duration::from_secs(5);
                while matches!(child.try_wait(), Ok(None)) && Instant::now() < deadline {
                    std::thread::sleep(Duration::from_millis(10));
                }
            }
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Node with `sockets.js`; the package `ws` is npm's or Debian's, as `tests/run` found it.
pub fn node_sockets() -> Command {
    let mut command = Command::new("node");
    let own = tools().join("node/node_modules");
    command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/apps/sockets.js"));
    command.env("NODE_PATH", format!("{}:/usr/share/nodejs", own.display()));
    command
}

/// A program of the virtual environment that `tests/run` makes in the target directory.
pub fn tool(name: &str) -> PathBuf {
    let path = tools().join("venv/bin").join(name);
    assert!(
        path.exists(),
        "{} is missing: run tests/run once, it installs it",
        path.display()
    );
    path
}

/// Where `tests/run` puts what it installs.
fn tools() -> PathBuf {
    std::env::var_os("CUTOVER_TEST_TOOLS").map_or_else(
        || {
            // target/debug/cutover → target/test-tools
            let binary = PathBuf::from(env!("CARGO_BIN_EXE_cutover"));
            binary
                .ancestors()
                .nth(2)
                .expect("a target directory")
                .join("test-tools")
        },
        PathBuf::from,
    )
}
