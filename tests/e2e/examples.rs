//! The folders of config/examples, run as their READMEs say: the real server, the real command, a process for each container.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::figures::{alone, say};
use crate::judge::{Color, Reply, Switch, judge};
use crate::load::{Load, Plan};
use crate::ports;
use crate::random::Random;
use crate::server::{PATIENCE, binary, eventually};
use crate::wire::Client;

/// One system that moved to cutover.
struct Example {
    folder: &'static str,
    app: &'static str,
    /// The listener's port in the file.
    listener: &'static str,
    /// Every other port in the files.
    ports: &'static [&'static str],
    /// Where cutover writes the active color for others.
    compat: &'static str,
    /// Services of one color in the compose file.
    containers: &'static [&'static str],
    /// Asked for who answers.
    path: &'static str,
}

const NOCTURNA: Example = Example {
    folder: "nocturna",
    app: "api",
    listener: "18080",
    ports: &["18200", "18201"],
    compat: ".current-env",
    containers: &["app"],
    path: "/v1/who",
};

const FORECASTER: Example = Example {
    folder: "forecaster",
    app: "backend",
    listener: "18090",
    ports: &["8001", "8002"],
    compat: ".active-env",
    containers: &["app"],
    path: "/who",
};

const ALA: Example = Example {
    folder: "ala",
    app: "ala",
    listener: "18443",
    ports: &["15000", "15001", "13000", "13001"],
    compat: ".current-env",
    containers: &["api", "frontend"],
    path: "/api/who",
};

/// A copy of an example with ports of its own; everything it started ends with it.
struct Stage {
    dir: TempDir,
    example: Example,
    address: SocketAddr,
    server: Option<Child>,
}

struct Ended {
    code: i32,
    text: String,
}

impl Ended {
    #[track_caller]
    fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{}", self.text);
        self
    }

    #[track_caller]
    fn says(self, words: &[&str]) -> Self {
        for word in words {
            assert!(
                self.text.contains(word),
                "it does not say {word:?}:\n{}",
                self.text
            );
        }
        self
    }
}

impl Stage {
    fn set(example: Example) -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/examples");
        let folder = dir.path().join(example.folder);
        std::fs::create_dir(&folder).unwrap();
        std::fs::copy(from.join("standin.py"), dir.path().join("standin.py")).unwrap();
        let port = ports::free();
        let mut swaps = vec![(example.listener, port)];
        swaps.extend(example.ports.iter().map(|written| (*written, ports::free())));
        for entry in std::fs::read_dir(from.join(example.folder)).unwrap() {
            let entry = entry.unwrap();
            let target = folder.join(entry.file_name());
            std::fs::copy(entry.path(), &target).unwrap();
            if target
                .extension()
                .is_some_and(|end| end == "toml" || end == "yaml")
            {
                let mut text = std::fs::read_to_string(&target).unwrap();
                for (written, port) in &swaps {
                    text = text.replace(&format!(":{written}"), &format!(":{port}"));
                }
                // The guard's minutes become seconds.
                let quick = "bake = \"3s\"\nevery = \"200ms\"\nevaluations = 2\nmin_requests = 20";
                for bake in ["bake = \"15m\"", "bake = \"5m\""] {
                    text = text.replace(bake, quick);
                }
                std::fs::write(&target, text).unwrap();
            }
        }
        // `docker` is a process supervisor here: no engine, the same commands.
        let bin = dir.path().join("bin");
        std::fs::create_dir(&bin).unwrap();
        std::fs::create_dir(dir.path().join("containers")).unwrap();
        let engine = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/apps/docker.py");
        let docker = bin.join("docker");
        std::fs::write(&docker, format!("#!/bin/sh\nexec python3 {engine} \"$@\"\n")).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&docker, mode).unwrap();
        let mut stage = Self {
            dir,
            example,
            address: SocketAddr::from(([127, 0, 0, 1], port)),
            server: None,
        };
        stage.start();
        stage
    }

    fn folder(&self) -> PathBuf {
        self.dir.path().join(self.example.folder)
    }

    fn command(&self, program: &str, args: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(args).current_dir(self.folder()).stdin(Stdio::null());
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("CUTOVER_") {
                command.env_remove(&name);
            }
        }
        let path = std::env::var("PATH").unwrap_or_default();
        command
            .env(
                "PATH",
                format!("{}:{path}", self.dir.path().join("bin").display()),
            )
            .env("DOCKER_STATE", self.dir.path().join("containers"))
            .env(
                "CUTOVER_ADMIN",
                format!("unix:{}", self.folder().join("state/admin.sock").display()),
            )
            .env("NO_COLOR", "1");
        command
    }

    fn start(&mut self) {
        let mut command = self.command(&binary(), &["run", "-c", "cutover.toml"]);
        self.server = Some(
            command
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .expect("start cutover"),
        );
        eventually("cutover answers", PATIENCE, || {
            (self.cutover(&["health"]).code == 0).then_some(())
        });
    }

    fn cutover(&self, args: &[&str]) -> Ended {
        let output = self.command(&binary(), args).output().expect("run cutover");
        Ended {
            code: output.status.code().unwrap_or(-1),
            text: format!(
                "$ cutover {}\n{}{}",
                args.join(" "),
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr)
            ),
        }
    }

    /// A verb of the app.
    fn app(&self, args: &[&str]) -> Ended {
        let mut all = args.to_vec();
        all.extend(["-a", self.example.app]);
        self.cutover(&all)
    }

    /// Behind a `--` nothing is ours: the app goes first.
    fn deploy(&self, revision: &str, more: &[&str]) -> Ended {
        let mut args = vec!["deploy", "--yes", "--revision", revision];
        args.extend(more);
        self.app(&args)
    }

    /// Color and revision of whoever answers now.
    #[track_caller]
    fn who(&self) -> (String, String) {
        let mut client = Client::connect(self.address).expect("connect to the proxy");
        let answer = client.get(self.example.path).expect("an answer");
        assert_eq!(answer.status, 200, "{}", answer.text());
        let said: serde_json::Value = serde_json::from_slice(&answer.body).expect("JSON");
        let text = |key: &str| said[key].as_str().unwrap_or_default().to_owned();
        (text("color"), text("revision"))
    }

    #[track_caller]
    fn serves(&self, color: &str, revision: &str) {
        assert_eq!(self.who(), (color.to_owned(), revision.to_owned()));
        eventually("the compat file follows", PATIENCE, || {
            let text = std::fs::read_to_string(self.folder().join(self.example.compat)).unwrap_or_default();
            (text.trim() == color).then_some(())
        });
    }

    fn compose(&self, verb: &[&str], color: &str) {
        let names = self
            .example
            .containers
            .iter()
            .map(|name| format!("{name}-{color}"));
        let mut args = vec!["compose".to_owned()];
        args.extend(verb.iter().map(|word| (*word).to_owned()));
        args.extend(names);
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let docker = self.dir.path().join("bin/docker");
        let status = self
            .command(&docker.to_string_lossy(), &args)
            .stdout(Stdio::null())
            .status();
        assert!(status.expect("run the stand-in").success(), "{args:?}");
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        for color in ["blue", "green"] {
            self.compose(&["stop"], color);
        }
        if let Some(mut server) = self.server.take() {
            let _ = server.kill();
            let _ = server.wait();
        }
    }
}

/// The whole story of a system, in the order in which it would happen.
fn story(example: Example) {
    let _machine = alone();
    let mut random = Random::seeded(example.folder);
    let prefix = example.path;
    let stage = Stage::set(example);

    // Nothing runs; status says what to type. The first deployment.
    eventually("status sees that nothing runs", PATIENCE, || {
        stage.app(&["status"]).text.contains("NOTHING RUNS").then_some(())
    });
    stage
        .deploy("v1", &[])
        .expect(0)
        .says(&["a first deployment", "blue is active"]);
    stage.serves("blue", "v1");

    // A good release under load: no request fails.
    let plan = Plan {
        prefixes: vec![prefix],
        ..Plan::to(stage.address, 8)
    };
    let load = Load::start(&plan, &mut random);
    load.flow(100);
    let sent = std::time::Instant::now();
    stage.deploy("v2", &["--until", "switch"]).expect(0);
    let replied = std::time::Instant::now();
    load.flow(100);
    let verdict = judge(
        Color::Blue,
        &[Switch {
            sent,
            replied,
            to: Color::Green,
            reply: Reply::Done,
        }],
        &load.stop(),
    );
    say(&format!(
        "example {}: a release under load: {} requests, {} failed",
        stage.example.folder,
        verdict.requests,
        verdict.failed.len()
    ));
    verdict.assert_clean();
    stage.serves("green", "v2");
    stage
        .app(&["status"])
        .expect(0)
        .says(&["both colors run: green serves, blue is warm"]);

    // Back, at once, and forth again.
    stage.app(&["rollback"]).expect(0);
    stage.serves("blue", "v1");
    stage.app(&["switch", "green"]).expect(0);

    // Back with the old color stopped: rollback alone cannot, --start can.
    eventually("the bake is over and blue is retired", PATIENCE, || {
        (stage.app(&["retire", "--yes"]).code == 0).then_some(())
    });
    eventually("blue is seen down", PATIENCE, || {
        (stage.app(&["rollback", "--dry-run"]).code == 10).then_some(())
    });
    stage.app(&["rollback"]).expect(10);
    stage.serves("green", "v2");
    stage
        .app(&["rollback", "--start"])
        .expect(0)
        .says(&["start blue … ✓", "healthy blue … ✓"]);
    assert_eq!(stage.who().0, "blue");

    // A release that never becomes healthy, and one that is healthy and wrong.
    let short = std::fs::read_to_string(stage.folder().join("cutover.toml")).unwrap();
    let patient = short.lines().map(|line| {
        if line.starts_with("healthy = ") {
            "healthy = { timeout = \"3s\" }"
        } else {
            line
        }
    });
    let impatient: Vec<&str> = patient.collect();
    std::fs::write(stage.folder().join("impatient.toml"), impatient.join("\n")).unwrap();
    stage
        .deploy("v3-sick", &["-c", "impatient.toml"])
        .expect(4)
        .says(&[
            "green did not become healthy within 3s",
            "503",
            "ERROR: could not connect to the database",
            "--from healthy",
        ]);
    assert_eq!(stage.who().0, "blue");
    stage
        .deploy("v3-broken", &[])
        .expect(4)
        .says(&["green failed smoke probe", "--from smoke"]);
    assert_eq!(stage.who().0, "blue");

    // One that turns bad after the switch: the guard takes it back, and the deploy that watched says so.
    let plan = Plan {
        prefixes: vec![prefix],
        ..Plan::to(stage.address, 4)
    };
    let load = Load::start(&plan, &mut random);
    load.flow(50);
    stage
        .deploy("v3-rots", &["--until", "bake"])
        .expect(9)
        .says(&["the guard took green back"]);
    load.stop();
    assert_eq!(stage.who().0, "blue");

    // Both, none: what status says. Then the next good release, and what history kept.
    for color in ["blue", "green"] {
        stage.compose(&["stop"], color);
    }
    eventually("status sees that nothing runs", PATIENCE, || {
        stage.app(&["status"]).text.contains("NOTHING RUNS").then_some(())
    });
    stage.deploy("v4", &["--until", "switch"]).expect(0);
    stage.serves("blue", "v4");
    let history = stage.app(&["history"]).expect(0).text;
    for verb in ["switch", "rollback"] {
        assert!(history.contains(verb), "{history}");
    }
}

#[test]
fn nocturna_moves_to_cutover() {
    story(NOCTURNA);
}

#[test]
fn forecaster_moves_to_cutover() {
    story(FORECASTER);
}

#[test]
fn ala_moves_to_cutover() {
    story(ALA);
}
