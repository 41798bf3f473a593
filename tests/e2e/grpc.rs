//! gRPC of the Python `grpcio` package at both ends: every kind of call, and streams that count across switches.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, ChildStdout, Command, Stdio};

use serde_json::{Value, json};

use crate::apps::tool;
use crate::figures::{alone, say, size};
use crate::judge::Color;
use crate::ports;
use crate::server::Site;

/// `rpc.py`, as an app or as clients; stopped by its own handle.
struct Script {
    child: Child,
    lines: std::io::Lines<BufReader<ChildStdout>>,
}

impl Script {
    fn run(args: &[&str], env: &[(&str, String)]) -> Self {
        let mut command = Command::new(tool("python"));
        command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/apps/rpc.py"));
        command.args(args).env("PYTHONDONTWRITEBYTECODE", "1");
        command.envs(env.iter().map(|(name, value)| (*name, value.as_str())));
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("rpc.py starts");
        let lines = BufReader::new(child.stdout.take().expect("stdout")).lines();
        Self { child, lines }
    }

    fn line(&mut self) -> String {
        self.lines.next().expect("one more line").expect("a line")
    }

    fn json(&mut self) -> Value {
        serde_json::from_str(&self.line()).expect("JSON")
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

struct App {
    port: u16,
    _script: Script,
}

impl App {
    fn start(color: Color) -> Self {
        let port = ports::free();
        let env = [("COLOR", color.name().to_owned()), ("PORT", port.to_string())];
        let mut script = Script::run(&[], &env);
        assert_eq!(script.line(), "ready");
        Self {
            port,
            _script: script,
        }
    }
}

fn site(blue: &App, green: &App, streams: &str) -> Site {
    Site::new(&format!(
        "[app.web]\ninitial = \"blue\"\nblue = [\"h2c://127.0.0.1:{}\"]\ngreen = [\"h2c://127.0.0.1:{}\"]\n\
         health = {{ kind = \"grpc\", interval = \"200ms\", timeout = \"5s\" }}\ndrain.streams = {streams}\n",
        blue.port, green.port
    ))
}

/// So many streams, open; what each says at its end comes from [`Script::json`].
fn chats(address: SocketAddr, count: usize, seconds: usize) -> Script {
    let address = address.to_string();
    let mut clients = Script::run(&["chat", &address, &count.to_string(), &seconds.to_string()], &[]);
    for _ in 0..count {
        assert!(clients.line().contains("open"));
    }
    clients
}

#[test]
fn every_kind_of_call_passes_both_ways() {
    let _machine = alone();
    let (blue, green) = (App::start(Color::Blue), App::start(Color::Green));
    let site = site(&blue, &green, "{ policy = \"keep\" }");
    let server = site.run();
    let address = site.address().to_string();
    for color in [Color::Blue, Color::Green] {
        if color == Color::Green {
            assert_eq!(site.admin().switch(color).expect("an answer").0, 200);
        }
        let name = color.name();
        let said = Script::run(&["check", &address], &[]).json();
        let of = |text: &str| format!("{name} {text}");
        assert_eq!(said["hello"], of("world"));
        assert_eq!(
            (&said["initial"], &said["trailing"]),
            (&json!(name), &json!("5")),
            "{said}"
        );
        assert_eq!(said["large"], json!(true));
        assert_eq!(
            said["features"],
            json!([of("0"), of("1"), of("2"), of("3"), of("4")])
        );
        assert_eq!(said["record"], of("100 4950"));
        assert_eq!(said["chat"], json!([of("one"), of("two"), of("three")]));
        assert_eq!(said["chat_end"], "OK");
        assert_eq!(said["fail"], json!(["NOT_FOUND", "nothing h\u{e9}re, 100 %"]));
        assert_eq!(said["deadline"][0], "DEADLINE_EXCEEDED");
        assert_eq!(said["unknown"][0], "UNIMPLEMENTED");
    }
    server.stop();
}

#[test]
fn bidirectional_streams_live_and_end_as_the_policy_says() {
    let _machine = alone();
    let (blue, green) = (App::start(Color::Blue), App::start(Color::Green));
    let (count, switches) = (20, size(20, 200));

    let kept = site(&blue, &green, "{ policy = \"keep\" }");
    let server = kept.run();
    let seconds = size(5, 40);
    let mut clients = chats(kept.address(), count, seconds);
    let mut admin = kept.admin();
    for at in 0..switches {
        let to = if at % 2 == 0 { Color::Green } else { Color::Blue };
        assert_eq!(admin.switch(to).expect("an answer").0, 200);
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    let mut messages = 0;
    for _ in 0..count {
        let said = clients.json();
        assert_eq!(
            (&said["wrong"], &said["code"]),
            (&json!(0), &json!("OK")),
            "{said}"
        );
        assert_eq!(said["colors"], json!(["blue"]), "{said}");
        messages += said["messages"].as_u64().unwrap_or(0);
    }
    say(&format!(
        "gRPC, keep: {count} bidirectional streams, {messages} messages, {switches} switches, 0 broken"
    ));
    server.stop();

    let closed = site(&blue, &green, "{ policy = \"close\" }");
    let server = closed.run();
    let mut clients = chats(closed.address(), count, 60);
    // A call is spared in its first second, and these are older then.
    std::thread::sleep(std::time::Duration::from_secs(1));
    assert_eq!(closed.admin().switch(Color::Green).expect("an answer").0, 200);
    closed
        .cli(&["wait-drained", "blue", "--timeout", "20s"])
        .expect(0);
    for _ in 0..count {
        let said = clients.json();
        assert_eq!(
            (&said["wrong"], &said["code"]),
            (&json!(0), &json!("UNAVAILABLE")),
            "{said}"
        );
        assert_eq!(said["details"], "the app has moved: call again", "{said}");
    }
    say(&format!(
        "gRPC, close: {count} streams ended once each, with UNAVAILABLE"
    ));
    server.stop();
}
