//! Endpoints that follow containers (feature `docker`): against an Engine API of the tests' own, and against a real engine where one runs.
//!
//! `cargo nextest run --features docker --test docker`

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr,
    dead_code,
    missing_docs,
    unreachable_pub,
    reason = "a test panics to fail, prints its figures, and shares its tools with tests/e2e"
)]

#[path = "../e2e/engine.rs"]
mod engine;
mod engine_api;
#[path = "../e2e/figures.rs"]
mod figures;
#[path = "../e2e/judge.rs"]
mod judge;
#[path = "../e2e/ports.rs"]
mod ports;
#[path = "../e2e/server.rs"]
mod server;
#[path = "../e2e/wire.rs"]
mod wire;

mod real;

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex};

use engine_api::{EngineApi, target_of};
use server::{PATIENCE, Site, eventually};
use wire::Client;

/// An app on one loopback address; it names itself, and `/slow` waits until it is let go.
struct App {
    gate: Arc<(Mutex<Gate>, Condvar)>,
}

#[derive(Default)]
struct Gate {
    waiting: usize,
    open: bool,
}

impl App {
    fn start(listener: TcpListener, name: &'static str) -> Self {
        let gate: Arc<(Mutex<Gate>, Condvar)> = Arc::default();
        let of_app = Arc::clone(&gate);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let gate = Arc::clone(&of_app);
                std::thread::spawn(move || answer(stream, name, &gate));
            }
        });
        Self { gate }
    }

    fn waiting(&self) -> usize {
        self.gate.0.lock().unwrap().waiting
    }

    fn let_go(&self) {
        self.gate.0.lock().unwrap().open = true;
        self.gate.1.notify_all();
    }
}

fn answer(mut stream: TcpStream, name: &str, (gate, opened): &(Mutex<Gate>, Condvar)) {
    let Some(target) = target_of(stream.try_clone().expect("a second handle")) else {
        return;
    };
    if target == "/slow" {
        let mut gate = gate.lock().unwrap();
        gate.waiting += 1;
        drop(opened.wait_while(gate, |gate| !gate.open).unwrap());
    }
    let _ = write!(
        stream,
        "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{name}",
        name.len()
    );
}

/// Apps on 127.0.0.2 and up, all on one port, as containers have it.
fn apps<const N: usize>(names: [&'static str; N]) -> (u16, [App; N]) {
    loop {
        let first = TcpListener::bind("127.0.0.2:0").expect("a free port");
        let port = first.local_addr().unwrap().port();
        let others = (1..N).map(|at| TcpListener::bind((format!("127.0.0.{}", at + 2), port)));
        let Ok(others) = others.collect::<Result<Vec<_>, _>>() else {
            continue;
        };
        let mut listeners = std::iter::once(first).chain(others);
        return (
            port,
            names.map(|name| App::start(listeners.next().unwrap(), name)),
        );
    }
}

/// A site whose blue is the compose service `app-blue` of project `shop`, and whose engine is at the path.
fn site(port: u16) -> (Site, PathBuf) {
    let site = Site::new("");
    let socket = site.path().join("engine.sock");
    site.write(&format!(
        "[docker]\nsocket = {socket:?}\nproject = \"shop\"\n\n[app.web]\ninitial = \"blue\"\nblue = [\"docker:app-blue:{port}\"]\n\
         green = [\"docker:app-green:{port}\"]\nbalance = {{ policy = \"round_robin\" }}\nhealth = {{ path = \"/\", interval = \"200ms\" }}\n"
    ));
    (site, socket)
}

fn who(site: &Site, path: &str) -> String {
    let mut client = Client::connect(site.address()).expect("connect");
    let answer = client.get(path).expect("an answer");
    format!("{} {}", answer.status, answer.text())
}

fn metric(site: &Site, name: &str) -> Option<String> {
    let mut client = Client::connect_unix(&site.socket()).expect("connect");
    let text = client.get("/metrics").expect("metrics").text();
    let mut lines = text.lines().filter_map(|line| line.strip_prefix(name));
    lines.next().map(|rest| rest.trim().to_owned())
}

/// Wait until every one of some requests is answered by one of these, and each of them is seen.
fn served_by(site: &Site, names: &[&str]) {
    eventually(&format!("{names:?} serve"), PATIENCE, || {
        let answers: std::collections::BTreeSet<String> = (0..12).map(|_| who(site, "/")).collect();
        let wanted: std::collections::BTreeSet<String> =
            names.iter().map(|name| format!("200 {name}")).collect();
        (answers == wanted).then_some(())
    });
}

#[test]
fn a_container_that_stops_leaves_the_pool_at_once_and_finishes_what_it_has() {
    let (port, [b1, b2, _other]) = apps(["b1", "b2", "other"]);
    let (site, socket) = site(port);
    let engine = EngineApi::start(&socket);
    engine.starts("b1", "shop", "app-blue", "127.0.0.2");
    engine.starts("b2", "shop", "app-blue", "127.0.0.3");
    engine.starts("o1", "other", "app-blue", "127.0.0.4");
    let _server = site.run();
    served_by(&site, &["b1", "b2"]);
    assert_eq!(metric(&site, "cutover_docker_up").as_deref(), Some("1"));

    // Each of them has a request that runs.
    let address = site.address();
    let slow: Vec<_> = (0..8)
        .map(|_| {
            std::thread::spawn(move || {
                Client::connect(address)
                    .expect("connect")
                    .get("/slow")
                    .map(|answer| answer.status)
            })
        })
        .collect();
    eventually("both have slow requests", PATIENCE, || {
        (b1.waiting() > 0 && b2.waiting() > 0).then_some(())
    });

    // HUP is no end. TERM is: from then on nothing new, while the container runs, answers and is healthy.
    engine.is_sent("b1", 1);
    engine.is_sent("b2", 15);
    served_by(&site, &["b1"]);
    for _ in 0..50 {
        assert_eq!(who(&site, "/"), "200 b1");
    }
    b1.let_go();
    b2.let_go();
    for one in slow {
        assert_eq!(
            one.join().unwrap().expect("a slow request's answer"),
            200,
            "what ran is finished"
        );
    }
    engine.dies("b2");

    // A container that is made anew at another address is found at once.
    engine.starts("b3", "shop", "app-blue", "127.0.0.3");
    served_by(&site, &["b1", "b2"]);
}

#[test]
fn docker_that_is_gone_says_nothing_of_the_apps() {
    let (port, _apps) = apps(["b1", "g1", "b2"]);
    let (site, socket) = site(port);
    let mut engine = EngineApi::start(&socket);
    engine.starts("b1", "shop", "app-blue", "127.0.0.2");
    engine.starts("g1", "shop", "app-green", "127.0.0.3");
    let server = site.run();
    served_by(&site, &["b1"]);

    engine.go_away();
    eventually("it is noticed", PATIENCE, || {
        (metric(&site, "cutover_docker_up")? == "0").then_some(())
    });
    for _ in 0..20 {
        assert_eq!(who(&site, "/"), "200 b1");
    }
    let said = server.stderr();
    assert!(said.contains("Docker does not answer"), "{said}");
    // A switch needs no Docker.
    assert_eq!(site.cli(&["switch", "green"]).code, 0);
    served_by(&site, &["g1"]);
    assert_eq!(site.cli(&["switch", "blue"]).code, 0);

    // What happened meanwhile is known when it is back.
    engine.dies("b1");
    engine.starts("b2", "shop", "app-blue", "127.0.0.4");
    engine.come_back();
    served_by(&site, &["b2"]);
    eventually("it is said", PATIENCE, || {
        (metric(&site, "cutover_docker_up")? == "1").then_some(())
    });
}

#[test]
fn docker_may_come_later_and_another_socket_is_a_reload() {
    let (port, _apps) = apps(["b1", "b2"]);
    let (site, socket) = site(port);
    let _server = site.run();
    assert!(who(&site, "/").starts_with("503"), "nothing is known of blue");
    assert_eq!(metric(&site, "cutover_docker_up").as_deref(), Some("0"));
    let engine = EngineApi::start(&socket);
    engine.starts("b1", "shop", "app-blue", "127.0.0.2");
    served_by(&site, &["b1"]);

    let second = site.path().join("second.sock");
    let other = EngineApi::start(&second);
    other.starts("b2", "shop", "app-blue", "127.0.0.3");
    let text = std::fs::read_to_string(site.config()).unwrap();
    std::fs::write(site.config(), text.replace("engine.sock", "second.sock")).unwrap();
    assert_eq!(site.cli(&["reload"]).code, 0);
    served_by(&site, &["b2"]);
    eventually("the first one is left", PATIENCE, || {
        engine.starts("x", "shop", "app-red", "127.0.0.9");
        (engine.followers() == 0).then_some(())
    });

    // No endpoint of that kind: nobody asks, and there is no such metric.
    let text = std::fs::read_to_string(site.config()).unwrap();
    let plain = text
        .replace("docker:app-blue", "127.0.0.2")
        .replace("docker:app-green", "127.0.0.3");
    std::fs::write(site.config(), plain).unwrap();
    assert_eq!(site.cli(&["reload"]).code, 0);
    eventually("nobody asks", PATIENCE, || {
        metric(&site, "cutover_docker_up").is_none().then_some(())
    });
}

#[test]
fn endpoints_of_containers_can_be_set_and_mistakes_are_told() {
    let (port, _apps) = apps(["b1", "b2"]);
    let (site, socket) = site(port);
    let engine = EngineApi::start(&socket);
    engine.starts("b1", "shop", "app-blue", "127.0.0.2");
    engine.starts("v2", "shop", "app-v2", "127.0.0.3");
    let _server = site.run();
    served_by(&site, &["b1"]);
    let set = format!("docker:app-v2:{port}");
    let said = site.cli(&["endpoints", "set", "green", &set]);
    assert_eq!(said.code, 0, "{}{}", said.stdout, said.stderr);
    eventually("green is healthy", PATIENCE, || {
        (site.cli(&["switch", "green"]).code == 0).then_some(())
    });
    served_by(&site, &["b2"]);
    let said = site.cli(&["endpoints", "set", "blue", "docker:color=:80"]);
    assert_ne!(said.code, 0);
    assert!(said.stderr.contains("docker:LABEL=VALUE:PORT"), "{}", said.stderr);
}
