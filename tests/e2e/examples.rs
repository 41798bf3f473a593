//! The folders of config/examples, run as their READMEs say: the real server, the real command, a process for each container.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use crate::engine::Engine;
use crate::figures::{alone, full, say};
use crate::judge::{Color, Record, Reply, Switch, judge};
use crate::load::{Load, Plan};
use crate::nginx::Nginx;
use crate::ports;
use crate::random::Random;
use crate::server::{PATIENCE, binary, eventually};
use crate::wire::Client;

/// One system that moved to cutover.
struct Example {
    folder: &'static str,
    app: &'static str,
    /// The listener in the file.
    listener: &'static str,
    /// Every other place in the files, and what it is here, without its port.
    places: &'static [(&'static str, &'static str)],
    /// Where cutover writes the active color for others.
    compat: &'static str,
    runner: Runner,
    /// The step that moves the traffic.
    moves: &'static str,
    /// Asked for who answers.
    path: &'static str,
}

/// What runs the containers.
enum Runner {
    /// Services of one color in the compose file.
    Compose(&'static [&'static str]),
    Kubernetes,
    /// Somebody else's machines, behind names and TLS of their own.
    Hosted,
}

const NOCTURNA: Example = Example {
    folder: "nocturna",
    app: "api",
    listener: ":18080",
    places: &[(":18200", ":"), (":18201", ":"), (":18202", ":")],
    compat: ".current-env",
    runner: Runner::Compose(&["app"]),
    moves: "switch",
    path: "/v1/who",
};

const FORECASTER: Example = Example {
    folder: "forecaster",
    app: "backend",
    listener: ":18090",
    places: &[(":8001", ":"), (":8002", ":")],
    compat: ".active-env",
    runner: Runner::Compose(&["app"]),
    moves: "switch",
    path: "/who",
};

const ALA: Example = Example {
    folder: "ala",
    app: "ala",
    listener: ":18443",
    places: &[(":15000", ":"), (":15001", ":"), (":13000", ":"), (":13001", ":")],
    compat: ".current-env",
    runner: Runner::Compose(&["api", "frontend"]),
    moves: "switch",
    path: "/api/who",
};

const VCCI: Example = Example {
    folder: "vcci",
    app: "vcci",
    listener: ":18070",
    places: &[(":19101", ":"), (":19102", ":"), (":19103", ":"), (":19104", ":")],
    compat: ".current-env",
    runner: Runner::Kubernetes,
    moves: "rollout",
    path: "/v1/who",
};

const MINA: Example = Example {
    folder: "mina",
    app: "mina",
    listener: ":18060",
    places: &[
        ("mina-blue.example:443", "mina-blue.localhost:"),
        ("mina-green.example:443", "mina-green.localhost:"),
    ],
    compat: ".current-env",
    runner: Runner::Hosted,
    moves: "rollout",
    path: "/who",
};

/// What is made shorter, so that a story takes seconds: the guard's minutes, pauses, patience. Latencies are those of a busy
/// machine and judge nothing here.
const QUICK: [(&str, &str); 9] = [
    (
        "bake = \"15m\"",
        "bake = \"3s\"\nevery = \"200ms\"\nevaluations = 2\nmin_requests = 20",
    ),
    (
        "bake = \"5m\"",
        "bake = \"3s\"\nevery = \"200ms\"\nevaluations = 2\nmin_requests = 20",
    ),
    ("pause = \"1m\"", "pause = \"1s\""),
    ("pause = \"2m\"", "pause = \"1s\""),
    ("pause = \"5m\"", "pause = \"1s\""),
    ("candidate.p95 > 2.0 *", "candidate.p95 > 200.0 *"),
    ("candidate.p95 < 1.5 * baseline.p95 ||", "candidate.p95 < 30.0 ||"),
    ("candidate.p95 < 0.5", "candidate.p95 < 30.0"),
    ("# tls.ca = \"ca.pem\"", "tls.ca = \"ca.pem\""),
];

/// A copy of an example with ports of its own; everything it started ends with it.
struct Stage {
    dir: TempDir,
    example: Example,
    address: SocketAddr,
    /// The example's places, as they are here.
    places: Vec<String>,
    /// The socket of a real engine.
    engine: Option<PathBuf>,
    server: Option<Child>,
}

struct Ended {
    code: i32,
    out: String,
    /// Both streams.
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
    /// With a server that runs.
    fn set(example: Example, engine: Option<&Engine>) -> Self {
        let mut stage = Self::prepared(example);
        if let Some(engine) = engine {
            stage.use_engine(engine);
        }
        stage.start();
        stage
    }

    /// `docker` is the real one, but for a registry that is not there.
    fn use_engine(&mut self, engine: &Engine) {
        // Compose itself runs `docker`: that is the one behind this.
        let script = "#!/bin/sh\n[ \"$1\" = compose ] || PATH=${PATH#*:} exec docker \"$@\"\nshift\n\
                      [ \"$1\" = pull ] && { echo \"$2 is here already\"; exit 0; }\n\
                      exec docker-compose --ansi never \"$@\"\n";
        std::fs::write(self.dir.path().join("bin/docker"), script).unwrap();
        self.engine = Some(engine.socket());
    }

    fn prepared(example: Example) -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/examples");
        let folder = dir.path().join(example.folder);
        std::fs::create_dir(&folder).unwrap();
        std::fs::copy(from.join("standin.py"), dir.path().join("standin.py")).unwrap();
        let port = ports::free();
        let mut swaps = vec![(example.listener, format!(":{port}"))];
        for (written, here) in example.places {
            swaps.push((*written, format!("{here}{}", ports::free())));
        }
        for entry in std::fs::read_dir(from.join(example.folder)).unwrap() {
            let entry = entry.unwrap();
            let target = folder.join(entry.file_name());
            std::fs::copy(entry.path(), &target).unwrap();
            if target
                .extension()
                .is_some_and(|end| end == "toml" || end == "yaml")
            {
                let mut text = std::fs::read_to_string(&target).unwrap();
                for (written, here) in &swaps {
                    text = text.replace(written, here);
                }
                for (written, quick) in QUICK {
                    text = text.replace(written, quick);
                }
                std::fs::write(&target, text).unwrap();
            }
        }
        if matches!(example.runner, Runner::Hosted) {
            certificates(&folder);
        }
        // These are process supervisors here: no engine, no cluster, the same commands.
        let bin = dir.path().join("bin");
        std::fs::create_dir(&bin).unwrap();
        std::fs::create_dir(dir.path().join("containers")).unwrap();
        for name in ["docker", "kubectl", "hosting"] {
            let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/apps");
            let file = bin.join(name);
            std::fs::write(
                &file,
                format!("#!/bin/sh\nexec python3 {script}/{name}.py \"$@\"\n"),
            )
            .unwrap();
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
            std::fs::set_permissions(&file, mode).unwrap();
        }
        let places = swaps.into_iter().skip(1).map(|(_, here)| here).collect();
        std::os::unix::fs::symlink(binary(), bin.join("cutover")).unwrap();
        Self {
            dir,
            example,
            address: SocketAddr::from(([127, 0, 0, 1], port)),
            places,
            engine: None,
            server: None,
        }
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
        if let Some(socket) = &self.engine {
            command.env("DOCKER_HOST", format!("unix://{}", socket.display()));
            command.env("DOCKER_CONFIG", self.dir.path().join("client"));
        }
        let app = |system: &str| {
            format!(
                "python3 {} {system}",
                self.dir.path().join("standin.py").display()
            )
        };
        match (&self.example.runner, self.places.as_slice()) {
            (Runner::Kubernetes, [a, b, c, d]) => {
                let pods = |one: &str, other: &str| format!("127.0.0.1{one},127.0.0.1{other}");
                let all = format!("vcci-blue={} vcci-green={}", pods(a, b), pods(c, d));
                command.env("KUBECTL_PODS", all).env("KUBECTL_APP", app("vcci"));
            }
            (Runner::Hosted, [blue, green]) => {
                command
                    .env("HOSTING_COPIES", format!("blue={blue} green={green}"))
                    .env("HOSTING_CERTS", self.folder())
                    .env("HOSTING_APP", app("mina"));
            }
            _ => {}
        }
        command
    }

    fn start(&mut self) {
        let command = self.command(&binary(), &["run", "-c", "cutover.toml"]);
        self.started(command);
    }

    fn started(&mut self, mut command: Command) {
        let quiet = command.stdout(Stdio::null()).stderr(Stdio::null());
        self.server = Some(quiet.spawn().expect("start cutover"));
        eventually("cutover answers", PATIENCE, || {
            (self.cutover(&["health"]).code == 0).then_some(())
        });
    }

    fn cutover(&self, args: &[&str]) -> Ended {
        let output = self.command(&binary(), args).output().expect("run cutover");
        Ended {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
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
        let said: Value = serde_json::from_slice(&answer.body).expect("JSON");
        let text = |key: &str| said[key].as_str().unwrap_or_default().to_owned();
        (text("color"), text("revision"))
    }

    /// Who answers, what the journal has, what `.current-env` says: one color and revision.
    #[track_caller]
    fn serves(&self, color: &str, revision: &str) {
        let wanted = (color.to_owned(), revision.to_owned());
        assert_eq!(self.who(), wanted);
        let (_, active, of) = self.journal();
        assert_eq!((active, of), wanted, "the journal");
        eventually("the compat file follows", PATIENCE, || {
            let text = std::fs::read_to_string(self.folder().join(self.example.compat)).unwrap_or_default();
            (text.trim() == color).then_some(())
        });
    }

    /// Stop what runs in a color, behind cutover's back.
    fn stop(&self, color: &str) {
        let args: Vec<String> = match &self.example.runner {
            Runner::Compose(services) => {
                let names = services.iter().map(|name| format!("{name}-{color}"));
                let verb = ["docker", "compose", "stop"].map(str::to_owned);
                verb.into_iter().chain(names).collect()
            }
            Runner::Kubernetes => {
                let target = format!("deployment/vcci-{color}");
                ["kubectl", "scale", &target, "--replicas=0"]
                    .map(str::to_owned)
                    .into()
            }
            Runner::Hosted => ["hosting", "stop", color].map(str::to_owned).into(),
        };
        let program = self.dir.path().join("bin").join(&args[0]);
        let args: Vec<&str> = args.iter().skip(1).map(String::as_str).collect();
        let status = self
            .command(&program.to_string_lossy(), &args)
            .stdout(Stdio::null())
            .status();
        assert!(status.expect("run the stand-in").success(), "{args:?}");
    }

    /// The newest state that the journal's file has: generation, active color, and its revision.
    fn journal(&self) -> (u64, String, String) {
        let text = std::fs::read_to_string(self.folder().join("state/journal")).expect("the journal");
        let newest = text.lines().rev().filter_map(|line| line.splitn(4, ' ').nth(3));
        let of_app = newest
            .filter_map(|json| serde_json::from_str::<Value>(json).ok())
            .find(|entry| entry["app"] == self.example.app)
            .expect("a line about the app");
        let state = &of_app["state"];
        let active = state["active"].as_str().unwrap_or_default().to_owned();
        let revision = state[&active]["revision"].as_str().unwrap_or_default();
        let generation = state["generation"].as_u64().unwrap_or_default();
        (generation, active.clone(), revision.to_owned())
    }

    /// The verbs of the history above a generation, and where each went.
    fn history_since(&self, generation: u64) -> Vec<String> {
        let text = self.app(&["history", "--json"]).expect(0).out;
        let history: Value = serde_json::from_str(&text).expect("JSON");
        let entries = history["entries"].as_array().expect("entries").iter();
        let newer = entries.filter(|entry| entry["generation"].as_u64() > Some(generation));
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        newer
            .map(|entry| format!("{} {}", text(&entry["verb"]), text(&entry["to"])))
            .collect()
    }
}

/// An authority, and a certificate for the name of each hosted copy.
fn certificates(folder: &Path) {
    let params = |names: &[&str]| {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        rcgen::CertificateParams::new(names).expect("parameters")
    };
    let mut own = params(&[]);
    own.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    // Of one name with what it signs it would count as signed by itself.
    own.distinguished_name
        .push(rcgen::DnType::CommonName, "authority");
    let key = rcgen::KeyPair::generate().expect("a key");
    let certificate = own.self_signed(&key).expect("an authority");
    std::fs::write(folder.join("ca.pem"), certificate.pem()).expect("write");
    let authority = rcgen::Issuer::new(own, key);
    for color in ["blue", "green"] {
        let key = rcgen::KeyPair::generate().expect("a key");
        let certificate = params(&[&format!("mina-{color}.localhost")])
            .signed_by(&key, &authority)
            .expect("a certificate");
        std::fs::write(folder.join(format!("{color}.pem")), certificate.pem()).expect("write");
        std::fs::write(folder.join(format!("{color}.key")), key.serialize_pem()).expect("write");
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        for color in ["blue", "green"] {
            self.stop(color);
        }
        if let Some(mut server) = self.server.take() {
            let _ = server.kill();
            let _ = server.wait();
        }
    }
}

/// Load while something happens; the answer is everything that clients got.
fn under_load(stage: &Stage, connections: usize, random: &mut Random, work: impl FnOnce()) -> Vec<Record> {
    let plan = Plan {
        prefixes: vec![stage.example.path],
        ..Plan::to(stage.address, connections)
    };
    let load = Load::start(&plan, random);
    load.flow(50);
    work();
    load.flow(50);
    load.stop()
}

/// The whole story of a system, in the order in which it would happen.
fn story(example: Example) {
    let _machine = alone();
    story_in(example, None);
}

fn story_in(example: Example, engine: Option<&Engine>) {
    let mut random = Random::seeded(example.folder);
    let stage = Stage::set(example, engine);
    first_deployment(&stage);
    a_good_release(&stage, &mut random);
    back_with_the_old_color_stopped(&stage);
    bad_releases(&stage);
    one_that_turns_bad(&stage, &mut random);
    confused(&stage);
    the_way_back(stage);
}

/// Nothing runs; status says what to type.
fn first_deployment(stage: &Stage) {
    eventually("status sees that nothing runs", PATIENCE, || {
        stage.app(&["status"]).text.contains("NOTHING RUNS").then_some(())
    });
    stage
        .deploy("v1", &[])
        .expect(0)
        .says(&["a first deployment", "blue is active"]);
    stage.serves("blue", "v1");
}

/// Under load: no request fails.
fn a_good_release(stage: &Stage, random: &mut Random) {
    let moves = stage.example.moves;
    let (before, ..) = stage.journal();
    let mut times = None;
    let records = under_load(stage, 8, random, || {
        let sent = std::time::Instant::now();
        stage.deploy("v2", &["--until", moves]).expect(0);
        times = Some((sent, std::time::Instant::now()));
    });
    let (sent, replied) = times.expect("it was deployed");
    let switch = Switch {
        sent,
        replied,
        to: Color::Green,
        reply: Reply::Done,
    };
    let verdict = judge(Color::Blue, &[switch], &records);
    say(&format!(
        "example {}: a release under load: {} requests, {} failed",
        stage.example.folder,
        verdict.requests,
        verdict.failed.len()
    ));
    verdict.assert_clean();
    stage.serves("green", "v2");
    let history = stage.history_since(before);
    assert!(history.iter().any(|line| line.ends_with("green")), "{history:?}");
    stage
        .app(&["status"])
        .expect(0)
        .says(&["both colors run: green serves, blue is warm"]);

    // Back, at once, and forth again.
    let (before, ..) = stage.journal();
    stage.app(&["rollback"]).expect(0);
    stage.serves("blue", "v1");
    assert_eq!(stage.history_since(before), ["rollback blue"]);
    stage.app(&["switch", "green"]).expect(0);
    stage.serves("green", "v2");
}

/// `rollback` alone cannot, `--start` can.
fn back_with_the_old_color_stopped(stage: &Stage) {
    eventually("the bake is over and blue is retired", PATIENCE, || {
        (stage.app(&["retire", "--yes"]).code == 0).then_some(())
    });
    eventually("blue is seen down", PATIENCE, || {
        (stage.app(&["rollback", "--dry-run"]).code == 10).then_some(())
    });
    let (before, ..) = stage.journal();
    stage.app(&["rollback"]).expect(10);
    stage.serves("green", "v2");
    assert_eq!(stage.journal().0, before, "a refusal changes nothing");
    stage
        .app(&["rollback", "--start"])
        .expect(0)
        .says(&["start blue … ✓", "healthy blue … ✓"]);
    stage.serves("blue", "v1");
}

/// One that never becomes healthy, and one that is healthy and wrong.
fn bad_releases(stage: &Stage) {
    let file = std::fs::read_to_string(stage.folder().join("cutover.toml")).unwrap();
    let patient = file.lines().map(|line| match line.starts_with("healthy = ") {
        true => "healthy = { timeout = \"3s\" }",
        false => line,
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
            "serving: blue, unchanged",
            "--from healthy",
        ]);
    stage.serves("blue", "v1");
    let failed = stage.deploy("v3-broken", &[]).expect(4).says(&[
        "smoke green … ✗",
        "serving: blue, unchanged",
        "--from smoke",
    ]);
    let probe = match stage.example.runner {
        Runner::Kubernetes => "GET /v1/items: 500",
        _ => "green failed smoke probe",
    };
    failed.says(&[probe]);
    stage.serves("blue", "v1");
}

/// It passes every check and then fails its users: taken back, and the deploy that watched says so.
fn one_that_turns_bad(stage: &Stage, random: &mut Random) {
    let (before, ..) = stage.journal();
    let taken_back = match stage.example.moves {
        "rollout" => "the share of green was taken back",
        _ => "the guard took green back",
    };
    under_load(stage, 4, random, || {
        stage
            .deploy("v3-rots", &["--until", "bake"])
            .expect(9)
            .says(&[taken_back, "blue serves"]);
    });
    stage.serves("blue", "v1");
    let history = stage.history_since(before);
    assert!(
        history.last().is_some_and(|line| line.ends_with("blue")),
        "{history:?}"
    );
    if stage.example.moves == "rollout" {
        // In steps it never got far; all at once, it is the guard who goes back.
        let (before, ..) = stage.journal();
        under_load(stage, 4, random, || {
            stage
                .app(&["switch", "green", "--wait", "30s"])
                .expect(9)
                .says(&["guard took green back to blue"]);
        });
        stage.serves("blue", "v1");
        assert_eq!(stage.history_since(before), ["switch green", "rollback blue"]);
    }
}

/// Back to what was there before, as the README says: `.current-env` names the color, and cutover is stopped.
fn the_way_back(mut stage: Stage) {
    let written = std::fs::read_to_string(stage.folder().join(stage.example.compat)).unwrap();
    let color = written.trim();
    let before = stage.who();
    assert_eq!(before.0, color);
    let mut server = Guarded(stage.server.take().expect("it runs"));
    rustix::process::kill_process(
        rustix::process::Pid::from_child(&server.0),
        rustix::process::Signal::TERM,
    )
    .expect("signal cutover");
    let status = server.0.wait().expect("its end");
    assert_eq!(status.code(), Some(0), "cutover ended with {status}");
    let (half, first) = (stage.places.len() / 2, usize::from(color == "green"));
    let of_color = match stage.example.folder {
        // blue and green of each service, one after the other
        "ala" => vec![&stage.places[first]],
        _ => stage.places[first * half..][..half].iter().collect(),
    };
    if matches!(stage.example.runner, Runner::Hosted) {
        // DNS names the copy again: clients reach it by themselves.
        let url = format!("https://{}/who", of_color[0]);
        let output = stage
            .command("curl", &["-fsS", "--noproxy", "*", "--cacert", "ca.pem", &url])
            .output()
            .expect("run curl");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            said.contains(&before.1),
            "{said} {}",
            String::from_utf8_lossy(&output.stderr)
        );
        return;
    }
    let servers: String = of_color
        .iter()
        .map(|place| format!("server 127.0.0.1{place};\n"))
        .collect();
    let port = stage.address.port();
    let http = format!(
        "upstream active {{\n{servers}}}\nserver {{\nlisten 127.0.0.1:{port};\nlocation / {{ proxy_pass http://active; }}\n}}\n"
    );
    let folder = tempfile::tempdir().expect("a folder");
    let _nginx = Nginx::start(folder.path(), &http, std::iter::once(port));
    assert_eq!(stage.who(), before, "nginx sends to the same copy");
}

/// A child that does not outlive a test that fails.
struct Guarded(Child);

impl Drop for Guarded {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Nothing runs: what status says. Then the next good release.
fn confused(stage: &Stage) {
    for color in ["blue", "green"] {
        stage.stop(color);
    }
    eventually("status sees that nothing runs", PATIENCE, || {
        stage.app(&["status"]).text.contains("NOTHING RUNS").then_some(())
    });
    stage.deploy("v4", &["--until", stage.example.moves]).expect(0);
    stage.serves("blue", "v4");
    let generation = stage.journal().0;
    let history = stage.app(&["history"]).expect(0).text;
    for verb in ["switch", "rollback"] {
        assert!(history.contains(verb), "{history}");
    }
    if stage.folder().join("backup.sh").exists() {
        let kept = std::fs::read_dir(stage.folder().join("backups")).expect("backups");
        assert_eq!(kept.count(), 5, "six releases, the last five backups");
    }
    // What is acknowledged is on disk.
    let status = stage.app(&["status", "--json"]).expect(0).out;
    let status: Value = serde_json::from_str(&status).expect("JSON");
    assert_eq!(status["apps"][0]["generation"], generation, "{status}");
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

#[test]
fn vcci_moves_to_cutover() {
    story(VCCI);
}

#[test]
fn mina_moves_to_cutover() {
    story(MINA);
}

/// The same stories with real containers.
#[test]
fn the_compose_files_of_the_examples_run_in_an_engine() {
    let _machine = alone();
    let Some(engine) = Engine::start("the compose files of config/examples") else {
        return;
    };
    engine.import("python", "python:3-slim", &[]);
    story_in(NOCTURNA, Some(&engine));
    if full() {
        story_in(FORECASTER, Some(&engine));
        story_in(ALA, Some(&engine));
    }
}

/// The blocks of the README's two minutes, word by word; only ports and the folder are this run's.
#[test]
fn the_two_minutes_of_the_readme_are_true() {
    let _machine = alone();
    let readme = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    let section = readme
        .split("\n## ")
        .find(|section| section.starts_with("Two minutes of nocturna"));
    let mut blocks: Vec<&str> = section.expect("the section").split("```sh\n").skip(1).collect();
    for block in &mut blocks {
        *block = block.split("```").next().unwrap();
    }
    let [server, operator] = blocks[..] else {
        panic!("two terminals: {blocks:?}");
    };
    let mut stage = Stage::prepared(NOCTURNA);
    let here = |block: &str| {
        let folder = format!("cd {}", stage.folder().display());
        let block = block.replace("cd config/examples/nocturna", &folder);
        block.replace(":18080", &format!(":{}", stage.address.port()))
    };
    let terminal = |script: &str| {
        let mut command = stage.command("sh", &["-e", "-c", script]);
        command.env_remove("CUTOVER_ADMIN").current_dir(stage.dir.path());
        command
    };
    // The last command in place of its shell, so that stopping the one stops the other.
    let server = terminal(&here(server).replace("cutover run", "exec cutover run"));
    let mut operator = terminal(&here(operator));
    stage.started(server);
    let output = operator.output().expect("run the block");
    let said = String::from_utf8_lossy(&output.stdout);
    let all = format!("{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{all}");
    let answers: Vec<&str> = said
        .lines()
        .filter(|line| line.starts_with('{') || line.contains("\"color\""))
        .collect();
    for (color, revision) in [("blue", "v1"), ("green", "v2")] {
        let wanted = format!("\"color\": \"{color}\", \"revision\": \"{revision}\"");
        assert!(
            answers.iter().any(|line| line.contains(&wanted)),
            "{wanted}\n{all}"
        );
    }
    for words in [
        "both colors run: green serves, blue is warm",
        "smoke green … ✓",
        "migrate … ✓",
        "rollback",
    ] {
        assert!(all.contains(words), "{words}\n{all}");
    }
    stage.serves("blue", "v1");
}
