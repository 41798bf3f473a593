//! All that a user's app speaks, at once, while it is switched: HTTP/1.1 in closed loops, HTTP/2 with many streams,
//! WebSockets, gRPC, event streams, large uploads and downloads. Every byte is compared.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::apps::{App, Kind, tool};
use crate::figures::{alone, full, say, size};
use crate::judge::{Color, Reply, Switch, judge};
use crate::load::{Load, Plan};
use crate::random::Random;
use crate::server::Site;

/// The clients of `tests/apps/crowd.py`, one process.
struct Visitors {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Visitors {
    /// Returns when every stream is up.
    fn start(address: SocketAddr, wanted: &Value) -> Self {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/apps/crowd.py");
        let mut child = Command::new(tool("python"))
            .args([script, "visit", &address.to_string(), &wanted.to_string()])
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the clients start");
        let lines = BufReader::new(child.stdout.take().expect("stdout")).lines();
        let mut all = Self { child, lines };
        assert_eq!(all.line(), json!({ "open": true }));
        all
    }

    fn line(&mut self) -> Value {
        let line = self
            .lines
            .next()
            .expect("the clients say something")
            .expect("a line");
        serde_json::from_str(&line).expect("JSON")
    }

    /// Let them end what they have, and hear what they saw.
    fn ended(mut self) -> Value {
        drop(self.child.stdin.take());
        let said = self.line();
        assert!(self.child.wait().expect("the clients end").success());
        said
    }
}

impl Drop for Visitors {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

struct Town {
    /// Held: dropping an app ends it.
    _apps: [App; 4],
    site: Site,
}

impl Town {
    /// Two services, pages and gRPC, that move together.
    fn start(streams: &str) -> Self {
        let apps = App::start_all([
            (Kind::Crowd, Color::Blue),
            (Kind::Chat, Color::Blue),
            (Kind::Crowd, Color::Green),
            (Kind::Chat, Color::Green),
        ]);
        let [blue_page, blue_chat, green_page, green_chat] = apps.each_ref().map(App::address);
        let site = Site::new(&format!(
            r#"
[app.web]
initial = "blue"

[app.web.drain]
http = "10m"
streams = {streams}

[app.web.service.page]
path_prefix = "/"
blue = ["{blue_page}"]
green = ["{green_page}"]
health = {{ path = "/healthz", interval = "1s", timeout = "10s" }}

[app.web.service.chat]
path_prefix = "/crowd.Chat"
blue = ["h2c://{blue_chat}"]
green = ["h2c://{green_chat}"]
health = {{ kind = "grpc", interval = "1s", timeout = "10s" }}
"#
        ));
        Self { _apps: apps, site }
    }
}

#[test]
fn two_hundred_switches_with_everything_open_break_nothing() {
    let _machine = alone();
    let mut random = Random::seeded("crowd");
    let town = Town::start("{ policy = \"keep\" }");
    let server = town.site.run();
    let load = Load::start(&Plan::to(town.site.address(), size(16, 32)), &mut random);
    load.flow(100);
    let wanted = json!({
        "sockets": size(30, 100), "chats": size(10, 20), "readers": size(10, 20), "h2": size(2, 4),
        "streams": 50, "uploads": size(2, 10), "downloads": size(2, 10), "blocks": size(128, 1600),
    });
    let visitors = Visitors::start(town.site.address(), &wanted);
    let (mut admin, mut log, mut to) = (town.site.admin(), Vec::new(), Color::Green);
    for _ in 0..size(40, 200) {
        let sent = Instant::now();
        let answer = admin.switch(to);
        let (replied, reply) = (Instant::now(), Reply::Done);
        assert_eq!(answer.expect("an answer").0, 200, "{}", server.stderr());
        log.push(Switch {
            sent,
            replied,
            to,
            reply,
        });
        to = to.other();
        std::thread::sleep(random.pause(Duration::from_millis(50)));
    }
    load.flow(100);
    let said = visitors.ended();
    let verdict = judge(Color::Blue, &log, &load.stop());
    say(&format!("crowd, keep, HTTP/1.1: {}", verdict.line(&log)));
    verdict.assert_clean();
    for kind in ["sockets", "chats", "readers", "h2", "uploads", "downloads"] {
        let seen = &said[kind];
        assert_eq!(seen["streams"], wanted[kind], "{kind}: {said}");
        assert_eq!(seen["ends"], json!({ "done": wanted[kind] }), "{kind}: {said}");
        assert_eq!(seen["wrong"], json!([]), "{kind}: {said}");
        say(&format!(
            "crowd, keep, {kind}: {} at once, {} messages, answers or bytes, 0 broken, 0 wrong",
            seen["streams"], seen["messages"]
        ));
    }
    server.stop();
}

#[test]
fn spread_ends_each_stream_once_and_well() {
    let _machine = alone();
    let town = Town::start("{ policy = \"spread\", spread = \"2s\" }");
    let server = town.site.run();
    let count = size(20, 100);
    let wanted = json!({ "sockets": count, "chats": count / 2, "readers": count / 2 });
    let visitors = Visitors::start(town.site.address(), &wanted);
    let switched = town.site.admin().switch(Color::Green).expect("an answer");
    assert_eq!(switched.0, 200, "{}", switched.1);
    // All of blue's streams end by the policy; the clients say how, and end by themselves then.
    town.site
        .cli(&["wait-drained", "blue", "--timeout", "30s"])
        .expect(0);
    let said = visitors.ended();
    for (kind, end) in [
        ("sockets", "1012"),
        ("chats", "UNAVAILABLE"),
        ("readers", "last chunk"),
    ] {
        assert_eq!(said[kind]["ends"], json!({ end: wanted[kind] }), "{kind}: {said}");
        assert_eq!(said[kind]["wrong"], json!([]), "{kind}: {said}");
    }
    say(&format!(
        "crowd, spread over 2 s: {count} WebSockets ended with 1012, {} gRPC streams with UNAVAILABLE, {} event streams with a last chunk",
        count / 2,
        count / 2
    ));
    server.stop();
}

#[test]
fn memory_stays_flat_while_gigabytes_stream() {
    let _machine = alone();
    let town = Town::start("{ policy = \"keep\" }");
    let server = town.site.run();
    // Once before measuring: what a first stream allocates stays.
    let stream = |blocks: usize| {
        let wanted = json!({ "sockets": 1, "uploads": 2, "downloads": 2, "blocks": blocks });
        let said = Visitors::start(town.site.address(), &wanted).ended();
        for kind in ["uploads", "downloads"] {
            assert_eq!(said[kind]["ends"], json!({ "done": 2 }), "{said}");
            assert_eq!(said[kind]["wrong"], json!([]), "{said}");
        }
    };
    stream(64);
    let before = server.peak_kib();
    // 64 KiB a block, four streams: 256 MiB, or 10 GiB.
    let blocks = size(1024, 40 * 1024);
    stream(blocks);
    let grown = server.peak_kib().saturating_sub(before);
    say(&format!(
        "streamed {} MiB{}: resident memory's peak rose by {grown} KiB",
        blocks / 4,
        if full() { "" } else { " (full size: 10 GiB)" }
    ));
    assert!(
        grown < 16 * 1024,
        "the peak rose by {grown} KiB over {before} KiB"
    );
    server.stop();
}
