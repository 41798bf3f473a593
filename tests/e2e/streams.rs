//! WebSockets of the Python `websockets` package at both ends, counting their messages across switches.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::apps::{App, Kind, node_sockets, tool};
use crate::figures::{alone, say, size};
use crate::judge::Color;
use crate::server::{Site, simple};

/// So many clients, and what each said at its end.
struct Clients {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
    count: usize,
}

impl Clients {
    /// Returns when all are connected.
    fn start(address: SocketAddr, count: usize, seconds: usize) -> Self {
        let mut command = Command::new(tool("python"));
        command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/apps/sockets.py"));
        Self::by(command, address, count, seconds)
    }

    /// The same, of a program that takes the same words.
    fn by(mut command: Command, address: SocketAddr, count: usize, seconds: usize) -> Self {
        command.args(["count", &address.to_string()]);
        command.args([count.to_string(), seconds.to_string()]);
        command.env("PYTHONDONTWRITEBYTECODE", "1");
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the clients start");
        let mut lines = BufReader::new(child.stdout.take().expect("stdout")).lines();
        for _ in 0..count {
            let line = lines.next().expect("a client").expect("a line");
            assert!(line.contains("open"), "{line}");
        }
        Self { child, lines, count }
    }

    fn ended(mut self) -> Vec<Value> {
        let all: Vec<Value> = (&mut self.lines)
            .map(|line| serde_json::from_str(&line.expect("a line")).expect("JSON"))
            .collect();
        assert!(self.child.wait().expect("the clients end").success());
        assert_eq!(all.len(), self.count);
        all
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn site(apps: &[App; 2], streams: &str) -> Site {
    let [blue, green] = apps;
    let drain = format!("\n[app.web.drain]\nstreams = {streams}\n");
    Site::new(&simple(&blue.address(), &green.address(), &drain))
}

#[test]
fn websockets_of_real_clients_live_and_end_as_the_policy_says() {
    let _machine = alone();
    let apps = App::start_all([(Kind::Sockets, Color::Blue), (Kind::Sockets, Color::Green)]);
    let count = size(20, 100);

    let kept = site(&apps, "{ policy = \"keep\" }");
    let server = kept.run();
    let clients = Clients::start(kept.address(), count, 4);
    let mut admin = kept.admin();
    for at in 0..8 {
        let to = if at % 2 == 0 { Color::Green } else { Color::Blue };
        assert_eq!(admin.switch(to).expect("an answer").0, 200);
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    let all = clients.ended();
    let mut messages = 0;
    for said in &all {
        assert_eq!(
            (said["wrong"].as_u64(), said["code"].as_u64()),
            (Some(0), Some(1000)),
            "{said}"
        );
        assert_eq!(said["colors"], serde_json::json!(["blue"]), "{said}");
        messages += said["messages"].as_u64().unwrap_or(0);
    }
    say(&format!(
        "streams, keep: {count} WebSockets, {messages} messages, 8 switches, 0 broken"
    ));
    server.stop();

    let spread = site(&apps, "{ policy = \"spread\", spread = \"1s\" }");
    let server = spread.run();
    let clients = Clients::start(spread.address(), count, 20);
    assert_eq!(spread.admin().switch(Color::Green).expect("an answer").0, 200);
    spread
        .cli(&["wait-drained", "blue", "--timeout", "15s"])
        .expect(0);
    let mut last: f64 = 0.0;
    for said in clients.ended() {
        assert_eq!(
            (said["wrong"].as_u64(), said["code"].as_u64()),
            (Some(0), Some(1012)),
            "{said}"
        );
        last = last.max(said["at"].as_f64().unwrap_or(f64::MAX));
    }
    assert!(last < 15.0, "the last one ended after {last} s");
    say(&format!(
        "streams, spread over 1 s: {count} WebSockets ended with 1012, the last {last:.1} s after it began"
    ));
    server.stop();
}

#[test]
fn node_at_either_end_of_a_websocket() {
    let _machine = alone();
    let apps = App::start_all([(Kind::NodeSockets, Color::Blue), (Kind::Sockets, Color::Green)]);
    let site = site(&apps, "{ policy = \"spread\", spread = \"500ms\" }");
    let server = site.run();
    let count = size(6, 40);
    // Python's package towards Node's, then Node's towards Node's, and after the switch Node's towards Python's.
    for node in [false, true] {
        let clients = match node {
            false => Clients::start(site.address(), count, 2),
            true => Clients::by(node_sockets(), site.address(), count, 2),
        };
        for said in clients.ended() {
            assert_eq!(
                (said["wrong"].as_u64(), said["code"].as_u64()),
                (Some(0), Some(1000)),
                "{said}"
            );
            assert_eq!(said["colors"], serde_json::json!(["blue"]), "{said}");
        }
    }
    let left = Clients::by(node_sockets(), site.address(), count, 60);
    assert_eq!(site.admin().switch(Color::Green).expect("an answer").0, 200);
    let mut messages = 0;
    for said in left.ended() {
        assert_eq!(
            (said["wrong"].as_u64(), said["code"].as_u64()),
            (Some(0), Some(1012)),
            "{said}"
        );
        messages += said["messages"].as_u64().unwrap_or(0);
    }
    for said in Clients::by(node_sockets(), site.address(), count, 2).ended() {
        assert_eq!(
            (said["wrong"].as_u64(), said["code"].as_u64()),
            (Some(0), Some(1000)),
            "{said}"
        );
        assert_eq!(said["colors"], serde_json::json!(["green"]), "{said}");
        messages += said["messages"].as_u64().unwrap_or(0);
    }
    say(&format!(
        "streams, Node's ws at both ends and against Python's: {count} clients at a time, {messages} messages around a switch, 0 wrong"
    ));
    server.stop();
}
