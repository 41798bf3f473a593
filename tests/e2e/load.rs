//! Clients in a closed loop over kept-alive connections, GET and POST mixed; every byte of every answer is checked.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

use crate::judge::{Color, Record};
use crate::random::Random;
use crate::wire::{Client, Response, request, request_chunked};

/// Chunks in a body at most.
const CHUNKS_MAX: usize = 64;

/// What to send.
#[derive(Clone)]
pub struct Plan {
    pub address: SocketAddr,
    /// Connections, each with one request at a time.
    pub connections: usize,
    /// Path prefixes, one drawn for each request.
    pub prefixes: Vec<&'static str>,
    /// Bodies from 0 to this many bytes.
    pub body_max: usize,
    /// A client whose connection the server closed politely connects again; otherwise it is done (for shutdowns).
    pub reconnect: bool,
}

impl Plan {
    pub fn to(address: SocketAddr, connections: usize) -> Self {
        Self {
            address,
            connections,
            prefixes: vec!["/"],
            body_max: 64 * 1024,
            reconnect: true,
        }
    }
}

/// Running clients.
pub struct Load {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicUsize>,
    clients: Vec<JoinHandle<Vec<Record>>>,
    pub opened: Arc<AtomicUsize>,
}

/// A body and its hash, made once: the clients shall not spend the machine on hashing.
struct Body {
    bytes: Vec<u8>,
    sha256: String,
}

impl Load {
    /// Start the clients.
    pub fn start(plan: &Plan, random: &mut Random) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let done = Arc::new(AtomicUsize::new(0));
        let opened = Arc::new(AtomicUsize::new(0));
        let bodies = Arc::new(bodies(plan.body_max, random));
        let clients = (0..plan.connections)
            .map(|_| {
                let one = One {
                    plan: plan.clone(),
                    stop: Arc::clone(&stop),
                    done: Arc::clone(&done),
                    opened: Arc::clone(&opened),
                    bodies: Arc::clone(&bodies),
                    random: Random::from(random.next()),
                };
                std::thread::spawn(move || one.run())
            })
            .collect();
        Self {
            stop,
            done,
            clients,
            opened,
        }
    }

    /// Requests that have ended until now.
    pub fn done(&self) -> usize {
        self.done.load(Ordering::Relaxed)
    }

    /// Wait until `more` further requests have ended, so that what comes next happens under load.
    pub fn flow(&self, more: usize) {
        let goal = self.done() + more;
        let deadline = Instant::now() + Duration::from_secs(30);
        while self.done() < goal {
            assert!(
                Instant::now() < deadline,
                "the load stands still at {} requests",
                self.done()
            );
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Let each client end its request, and give the log.
    pub fn stop(self) -> Vec<Record> {
        self.stop.store(true, Ordering::Relaxed);
        self.finish()
    }

    /// Wait for clients that end by themselves.
    pub fn finish(self) -> Vec<Record> {
        self.clients
            .into_iter()
            .flat_map(|client| client.join().expect("a client panicked"))
            .collect()
    }
}

fn bodies(max: usize, random: &mut Random) -> Vec<Body> {
    let mut sizes = vec![0, 1, max];
    // Half of the rest small, half anywhere: most real bodies are small, the large ones break things.
    sizes.extend((0..14).map(|_| random.below(2048.min(max + 1))));
    sizes.extend((0..14).map(|_| random.below(max + 1)));
    sizes
        .into_iter()
        .map(|size| {
            let bytes: Vec<u8> = (0..size).map(|_| random.next() as u8).collect();
            Body {
                sha256: sha256(&bytes),
                bytes,
            }
        })
        .collect()
}

/// In lower-case hex.
pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

struct One {
    plan: Plan,
    stop: Arc<AtomicBool>,
    done: Arc<AtomicUsize>,
    opened: Arc<AtomicUsize>,
    bodies: Arc<Vec<Body>>,
    random: Random,
}

impl One {
    fn run(mut self) -> Vec<Record> {
        let mut records = Vec::new();
        while !self.stop.load(Ordering::Relaxed) {
            let began = Instant::now();
            match Client::connect(self.plan.address) {
                Ok(mut client) => {
                    self.opened.fetch_add(1, Ordering::Relaxed);
                    self.talk(&mut client, &mut records);
                }
                // Nothing listens: for a client that may not come back that is the end, for others a failure.
                Err(_) if !self.plan.reconnect => break,
                Err(error) => {
                    let outcome = Err(format!("connect: {error}"));
                    records.push(Record {
                        started: began,
                        ended: Instant::now(),
                        outcome,
                    });
                    std::thread::sleep(Duration::from_millis(20));
                }
            }
            if !self.plan.reconnect {
                break;
            }
        }
        records
    }

    /// One connection, until it is closed or all is said.
    fn talk(&mut self, client: &mut Client<std::net::TcpStream>, records: &mut Vec<Record>) {
        let bodies = Arc::clone(&self.bodies);
        while !self.stop.load(Ordering::Relaxed) {
            let prefix = *self.random.pick(&self.plan.prefixes);
            let path = format!(
                "{}/r{}",
                prefix.trim_end_matches('/'),
                self.random.below(1_000_000)
            );
            let body = self
                .random
                .once_in(2)
                .then(|| &bodies[self.random.below(bodies.len())]);
            let bytes = self.encode(&path, body);
            let started = Instant::now();
            let answer = client.exchange(&bytes);
            let ended = Instant::now();
            let (outcome, go_on) = match answer {
                Ok(response) => (check(&response, &path, body), !response.close),
                Err(broken) => (Err(format!("{path}: {broken}")), false),
            };
            records.push(Record {
                started,
                ended,
                outcome,
            });
            self.done.fetch_add(1, Ordering::Relaxed);
            if !go_on {
                return;
            }
        }
    }

    fn encode(&mut self, path: &str, body: Option<&Body>) -> Vec<u8> {
        match body {
            None => request("GET", path, &[], None),
            Some(body) if self.random.once_in(2) => request("POST", path, &[], Some(&body.bytes)),
            Some(body) => {
                // Each chunk is handed over by itself, one a turn of a busy worker: a body in thousands of them
                // would say how long that takes under load, and nothing about switches. (tests/it/bodies.rs has one.)
                let least = body.bytes.len() / CHUNKS_MAX;
                let chunk = 1 + least + self.random.below(16 * 1024);
                request_chunked("POST", path, &[], &body.bytes, chunk)
            }
        }
    }
}

/// The color that answered, if all of the answer is as it must be.
fn check(response: &Response, path: &str, body: Option<&Body>) -> Result<Color, String> {
    let wrong = |what: &str| {
        Err(format!(
            "{path}: {what}; status {}, body {:?}",
            response.status,
            shorten(&response.text())
        ))
    };
    if response.status != 200 {
        return wrong("not 200");
    }
    let Ok(said) = serde_json::from_slice::<serde_json::Value>(&response.body) else {
        return wrong("not JSON");
    };
    let (method, length) = body.map_or(("GET", 0), |body| ("POST", body.bytes.len()));
    let sha256 = body.map_or_else(|| sha256(b""), |body| body.sha256.clone());
    if said["method"] != method || said["path"] != path {
        return wrong("another request's answer");
    }
    if said["length"] != length || said["sha256"] != sha256.as_str() {
        return wrong("the body did not arrive as sent");
    }
    let Some(color) = said["color"].as_str().and_then(Color::parse) else {
        return wrong("no color");
    };
    if response.header("x-app-color") != Some(color.name()) {
        return wrong("head and body are of two answers");
    }
    if response
        .header("x-cutover-color")
        .is_some_and(|exposed| exposed != color.name())
    {
        return wrong("x-cutover-color names another color than answered");
    }
    Ok(color)
}

fn shorten(text: &str) -> String {
    text.chars().take(160).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apps::{App, Kind};
    use crate::backend::Backend;
    use crate::figures::{alone, say};
    use crate::judge::{Reply, Switch, judge};

    /// The clients and the apps alone, without a proxy: what the harness itself can do and that it blames nobody.
    #[test]
    fn real_apps_asked_directly_fail_nothing() {
        let _machine = alone();
        let mut random = Random::seeded("harness");
        let apps = App::start_all([
            (Kind::Uvicorn, Color::Blue),
            (Kind::Gunicorn, Color::Blue),
            (Kind::Node, Color::Blue),
        ]);
        for app in &apps {
            let plan = Plan::to(SocketAddr::from(([127, 0, 0, 1], app.port)), 16);
            let started = Instant::now();
            let load = Load::start(&plan, &mut random);
            load.flow(400);
            let verdict = judge(Color::Blue, &[], &load.stop());
            let rate = verdict.requests as f64 / started.elapsed().as_secs_f64();
            say(&format!(
                "harness, app asked directly: {rate:.0} requests/s; {}",
                verdict.line(&[])
            ));
            verdict.assert_clean();
        }
    }

    #[test]
    fn a_proxy_that_lies_is_found_out() {
        let _machine = alone();
        let mut random = Random::from(7);
        // Green answers 30 ms longer than it may: the "switch" to blue is acknowledged before it has happened.
        let now_blue = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&now_blue);
        let turncoat = Backend::chooses(move || {
            if seen.load(Ordering::Relaxed) {
                "blue"
            } else {
                "green"
            }
        });
        let load = Load::start(&Plan::to(turncoat.address, 8), &mut random);
        load.flow(100);
        let sent = Instant::now();
        let log = [Switch {
            sent,
            replied: Instant::now(),
            to: Color::Blue,
            reply: Reply::Done,
        }];
        load.flow(50);
        now_blue.store(true, Ordering::Relaxed);
        load.flow(100);
        let verdict = judge(Color::Green, &log, &load.stop());
        assert!(verdict.failed.is_empty(), "{:?}", verdict.failed);
        assert!(!verdict.late.is_empty());

        // Another body than was sent for, a wrong status, half an answer: each is a failed request.
        for raw in [
            "HTTP/1.1 200 OK\r\nx-app-color: blue\r\ncontent-length: 2\r\n\r\n{}",
            "HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 200\r\n\r\n{",
        ] {
            let liar = Backend::says_unless("blue", move |_| Some(raw.as_bytes().to_vec()));
            let load = Load::start(&Plan::to(liar.address, 2), &mut random);
            load.flow(4);
            let verdict = judge(Color::Blue, &[], &load.stop());
            assert_eq!(verdict.failed.len(), verdict.requests, "{raw:?}");
        }
    }
}
