//! `cutover init`: what it writes is accepted, and nothing that is there is lost.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

struct Ended {
    code: i32,
    out: String,
    err: String,
}

fn run(folder: &Path, args: &[&str]) -> Ended {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cutover"));
    command.args(args).current_dir(folder).stdin(Stdio::null());
    ended(&mut command)
}

fn ended(command: &mut Command) -> Ended {
    let output = command.output().unwrap();
    Ended {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

impl Ended {
    #[track_caller]
    fn expect(self, code: i32, words: &[&str]) -> Self {
        assert_eq!(self.code, code, "{}\n{}", self.out, self.err);
        for word in words {
            let said = self.out.contains(word) || self.err.contains(word);
            assert!(said, "it does not say {word:?}:\n{}\n{}", self.out, self.err);
        }
        self
    }
}

#[test]
fn flags_make_a_file_that_check_accepts() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let args = [
        "init",
        "-a",
        "shop",
        "--listen",
        "8080",
        "--blue",
        "a:1,b:1",
        "--green",
        "https://c:2",
        "--host",
        "shop.test",
        "--health",
        "/up",
        "--compose",
        "app-{color}",
    ];
    run(here, &args).expect(0, &["cutover.toml is written", "cutover check"]);
    run(here, &["check"]).expect(0, &["cutover.toml: ok (1 app, 3 endpoints)"]);
    let written = std::fs::read_to_string(here.join("cutover.toml")).unwrap();
    for line in [
        "address = \"0.0.0.0:8080\"",
        "hosts = [\"shop.test\"]",
        "blue = [\"a:1\", \"b:1\"]",
        "health.path = \"/up\"",
        "start = { run = \"docker compose up -d app-{color}\"",
    ] {
        assert!(written.contains(line), "{line}\n{written}");
    }

    // What is there stays, unless --force; `--print` and another name never touch it.
    let other = ["init", "--blue", "z:9"];
    run(here, &other).expect(1, &["cutover.toml exists and stays as it is", "--force"]);
    assert_eq!(
        std::fs::read_to_string(here.join("cutover.toml")).unwrap(),
        written
    );
    let printed =
        run(here, &[&other[..], &["--print"]].concat()).expect(0, &["blue = [\"z:9\"]", "green = []"]);
    assert!(printed.out.starts_with("# Made by `cutover init`."));
    assert_eq!(
        std::fs::read_to_string(here.join("cutover.toml")).unwrap(),
        written
    );
    run(here, &[&other[..], &["-q", "-c", "other.toml"]].concat()).expect(0, &["other.toml"]);
    run(here, &[&other[..], &["--force", "--json"]].concat())
        .expect(0, &["cutover.init/v1", "\"apps\":[\"web\"]"]);
    assert!(
        std::fs::read_to_string(here.join("cutover.toml"))
            .unwrap()
            .contains("z:9")
    );
    run(here, &["check"]).expect(0, &["ok"]);
}

#[test]
fn mistakes_are_told_and_nothing_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    for (args, code, words) in [
        (&["init"][..], 2, "there is no terminal to ask at"),
        (&["init", "--blue", "a"], 2, "is not an endpoint"),
        (
            &["init", "--blue", "a:1", "--listen", "here"],
            2,
            "write an address and a port",
        ),
        (
            &["init", "--blue", "a:1", "--health", "up"],
            2,
            "a path starts with `/`",
        ),
        (&["init", "--blue", "a:1", "--compose", "app"], 2, "app-{color}"),
        (&["init", "--blue", "a:1", "-a", "no name"], 3, "name"),
        (
            &["init", "--from-nginx", "none.conf"],
            3,
            "none.conf:1: none.conf",
        ),
        (
            &["init", "--from-nginx", "x", "--blue", "a:1"],
            2,
            "cannot be used with",
        ),
        (
            &["init", "--blue", "a:1", "--dry-run"],
            2,
            "does not take --dry-run",
        ),
    ] {
        run(here, args).expect(code, &[words]);
    }
    std::fs::write(here.join("files.conf"), "server { listen 80; root /srv; }").unwrap();
    run(here, &["init", "--from-nginx", "files.conf"]).expect(
        3,
        &[
            "nothing was written",
            "files.conf:1",
            "there is nothing to switch",
        ],
    );
    assert!(!here.join("cutover.toml").exists());
}

#[test]
fn an_nginx_file_is_translated_and_the_rest_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let text = "upstream app { server 127.0.0.1:8001; }\nserver {\n    listen 127.0.0.1:80;\n    server_name shop.test;\n    gzip on;\n    \
                location / { proxy_pass http://app; proxy_set_header Host $host; }\n}\n";
    std::fs::write(here.join("nginx.conf"), text).unwrap();
    run(
        here,
        &[
            "init",
            "--from-nginx",
            "nginx.conf",
            "--health",
            "/health",
            "--green",
            "127.0.0.1:8002",
            "-a",
            "front",
        ],
    )
    .expect(
        0,
        &[
            "nginx.conf:5: `gzip on;`: cutover does not compress",
            "1 of the nginx file's lines",
        ],
    );
    run(here, &["check"]).expect(0, &["cutover.toml: ok (1 app, 2 endpoints)"]);
    let written = std::fs::read_to_string(here.join("cutover.toml")).unwrap();
    for line in [
        "[app.front]",
        "green = [\"127.0.0.1:8002\"]\n",
        "health.path = \"/health\"",
        "# - nginx.conf:5: `gzip on;`",
    ] {
        assert!(written.contains(line), "{line}\n{written}");
    }
    let json = run(here, &["init", "--from-nginx", "nginx.conf", "--force", "--json"]).expect(0, &[]);
    let report: serde_json::Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!(report["open"][0]["place"], "nginx.conf:5");
    assert!(json.err.is_empty(), "{}", json.err);
}

/// At a terminal, where somebody types this.
fn typed(folder: &Path, args: &str, input: &str) -> Ended {
    let line = format!("{} {args}", env!("CARGO_BIN_EXE_cutover"));
    let mut child = Command::new("script")
        .args(["--quiet", "--return", "--command", &line, "/dev/null"])
        .current_dir(folder)
        .env("TERM", "xterm")
        .env("NO_COLOR", "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    drop(stdin);
    Ended {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

#[test]
fn a_person_is_asked_again_until_the_answer_makes_sense() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    // Name, listener, hosts, blue (wrong, then right), green, health, compose.
    typed(here, "init", "shop\n\n\nnowhere\n127.0.0.1:9001\n\n/up\n\n").expect(
        0,
        &[
            "What is the app called? [web]",
            "is not an endpoint",
            "Where is green? [127.0.0.1:8002]",
            "is written",
        ],
    );
    run(here, &["check"]).expect(0, &["ok (1 app, 2 endpoints)"]);
    let written = std::fs::read_to_string(here.join("cutover.toml")).unwrap();
    for line in [
        "[app.shop]",
        "address = \"127.0.0.1:8080\"",
        "blue = [\"127.0.0.1:9001\"]",
        "green = [\"127.0.0.1:8002\"]",
        "health.path = \"/up\"",
    ] {
        assert!(written.contains(line), "{line}\n{written}");
    }
    // Who leaves has written nothing; --yes takes what is usual.
    typed(here, "init -c left.toml", "shop\n\x04").expect(11, &["nothing was written"]);
    assert!(!here.join("left.toml").exists());
    typed(here, "init -c usual.toml --blue a:1 --yes", "").expect(0, &["usual.toml is written"]);
}
