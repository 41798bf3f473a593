//! HTTP/2 with real clients: hostile ones frame by frame, the tools that people use, and many streams across switches.

use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::client::SendRequest;
use http::Request;
use serde_json::Value;
use tokio::net::TcpStream;

use crate::apps::{App, Kind, tool};
use crate::figures::{alone, say, size};
use crate::judge::{Color, Record, Reply, Switch, judge};
use crate::server::{Site, eventually, simple};

/// Above what the process had before an attack. Goal: 32 MiB.
const GROWTH_KIB: u64 = 32 * 1024;

#[test]
fn no_flood_hurts_another_client_or_costs_memory() {
    let _machine = alone();
    let [attacked, other] = App::start_all([(Kind::Uvicorn, Color::Blue), (Kind::Uvicorn, Color::Green)]);
    let site = Site::new(&format!(
        "[app.shop]\nhosts = [\"shop.test\"]\ninitial = \"blue\"\nblue = [\"{}\"]\n\n\
         [app.other]\nhosts = [\"other.test\"]\ninitial = \"blue\"\nblue = [\"{}\"]\n",
        attacked.address(),
        other.address()
    ));
    let server = site.run();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/apps/http2.py");
    let mut command = Command::new(tool("python"));
    command.args([script, &site.address().to_string(), &server.pid().to_string()]);
    let output = run(command.env("PYTHONDONTWRITEBYTECODE", "1"));
    let all: Vec<Value> = output
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    assert!(all.len() >= 27, "{output}");
    let (mut slowest, mut growth) = (0.0_f64, 0);
    for said in &all {
        let name = said["attack"].as_str().expect("a name");
        let outcome = said["outcome"].as_str().expect("an outcome");
        assert!(expected(name).contains(&outcome), "{said}");
        assert_eq!(said["others_failed"], serde_json::json!([]), "{said}");
        assert!(said["others"].as_u64() > Some(0), "{said}");
        slowest = slowest.max(said["others_ms"].as_f64().unwrap_or(f64::MAX));
        growth = growth.max(said["growth_kib"].as_u64().unwrap_or(0));
    }
    // A busy machine is slow too; what is starved does not come within this.
    assert!(slowest < 5_000.0, "another client waited {slowest} ms");
    assert!(growth < GROWTH_KIB, "{growth} KiB more");
    say(&format!(
        "HTTP/2, {} attacks: another client's slowest answer {slowest:.0} ms, {growth} KiB of memory more at most",
        all.len()
    ));
    // What was taken back is truly given up.
    eventually("no request is left at the app", Duration::from_secs(30), || {
        let (_, text) = site.admin().get("/metrics").ok()?;
        let idle = |line: &str| line.starts_with("cutover_requests_in_flight{") && line.ends_with(" 0");
        let mut lines = text
            .as_str()?
            .lines()
            .filter(|line| line.starts_with("cutover_requests_in_flight{"));
        lines.all(idle).then_some(())
    });
    server.stop();
}

/// How an attack may end. 11 is ENHANCE_YOUR_CALM; a stream's error may be made the connection's (RFC 9113 §5.4.1).
fn expected(attack: &str) -> &'static [&'static str] {
    match attack {
        "rapid_reset" | "slow_reset" => &["goaway 11", "closed"],
        "made_you_reset_window_overflow" | "made_you_reset_priority_on_itself" => &["goaway 11"],
        "made_you_reset_window_update_0"
        | "made_you_reset_data_after_end"
        | "made_you_reset_headers_after_end" => &["goaway 1", "goaway 5", "goaway 11"],
        "made_you_reset_priority_of_wrong_length" => &["goaway 1", "goaway 6", "goaway 11"],
        "large_frame" => &["goaway 6"],
        "even_stream" | "push_promise" | "stream_ids_go_back" => &["goaway 1", "goaway 5"],
        "settings_flood" | "ping_flood" | "never_reads" => &["unread"],
        "window_update_flood" | "priority_flood" | "unknown_flood" | "zero_window" => &["open"],
        _ => &["goaway 1", "goaway 11"],
    }
}

fn run(command: &mut Command) -> String {
    let name = format!("{command:?}");
    let Output {
        status,
        stdout,
        stderr,
    } = command
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{name}: {error}. `tests/run` installs it"));
    let (stdout, stderr) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert!(status.success(), "{name}: {status}\n{stdout}\n{stderr}");
    stdout.into_owned()
}

#[test]
fn the_tools_that_people_use_are_served() {
    let _machine = alone();
    let [blue, green] = App::start_all([(Kind::Uvicorn, Color::Blue), (Kind::Node, Color::Green)]);
    let folder = tempfile::tempdir().expect("a folder");
    let key = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let (pem, own) = (folder.path().join("a.pem"), folder.path().join("a.key"));
    std::fs::write(&pem, key.cert.pem()).expect("write");
    std::fs::write(&own, key.signing_key.serialize_pem()).expect("write");
    let port = crate::ports::free();
    let tls = format!(
        "\n[[listener]]\naddress = \"127.0.0.1:{port}\"\n[listener.tls]\ncertificates = [{{ cert = {pem:?}, key = {own:?} }}]\n"
    );
    let site = Site::new(&simple(&blue.address(), &green.address(), &tls));
    let server = site.run();
    let (plain, safe) = (
        format!("http://{}/whoami", site.address()),
        format!("https://localhost:{port}/whoami"),
    );
    let version = [
        "-sS",
        "--max-time",
        "20",
        "-o",
        "/dev/null",
        "-w",
        "%{http_version} %{http_code}",
    ];
    let curl = |more: &[&str]| run(Command::new("curl").args(version).args(more));
    let ca = pem.display().to_string();
    assert_eq!(curl(&["--http2", "--cacert", &ca, &safe]), "2 200");
    assert_eq!(curl(&["--http1.1", "--cacert", &ca, &safe]), "1.1 200");
    assert_eq!(curl(&["--http2-prior-knowledge", &plain]), "2 200");
    assert_eq!(curl(&["--http2-prior-knowledge", "-d", "body", &plain]), "2 200");
    assert_eq!(
        curl(&["--http2", &plain]),
        "1.1 200",
        "h2c by Upgrade is not answered"
    );
    let said = run(Command::new("nghttp").args(["-nv", &plain]));
    assert!(
        said.contains(":status: 200") && said.contains("END_STREAM"),
        "{said}"
    );
    let count = size(2_000, 50_000).to_string();
    for target in [&plain, &safe] {
        let said = run(Command::new("h2load").args(["-n", &count, "-c", "4", "-m", "50", target]));
        assert!(
            said.contains(&format!("{count} succeeded, 0 failed, 0 errored")),
            "{said}"
        );
    }
    server.stop();
}

const CONNECTIONS: usize = 4;
const STREAMS: usize = 50;

/// One of many at once over a connection: ask until told to stop.
async fn ask(mut requests: SendRequest<Bytes>, stop: std::rc::Rc<std::cell::Cell<bool>>) -> Vec<Record> {
    let mut records = Vec::new();
    while !stop.get() {
        let started = Instant::now();
        let outcome = one(&mut requests).await;
        records.push(Record {
            started,
            ended: Instant::now(),
            outcome,
        });
    }
    records
}

async fn one(requests: &mut SendRequest<Bytes>) -> Result<Color, String> {
    let told = |error: h2::Error| error.to_string();
    std::future::poll_fn(|cx| requests.poll_ready(cx))
        .await
        .map_err(told)?;
    let request = Request::get("http://shop.test/whoami")
        .body(())
        .map_err(|error| error.to_string())?;
    let (answer, _) = requests.send_request(request, true).map_err(told)?;
    let (head, mut body) = answer.await.map_err(told)?.into_parts();
    let mut bytes = Vec::new();
    while let Some(data) = body.data().await {
        let data = data.map_err(told)?;
        let _ = body.flow_control().release_capacity(data.len());
        bytes.extend_from_slice(&data);
    }
    let said: Value = serde_json::from_slice(&bytes).map_err(|error| format!("{} {error}", head.status))?;
    said["color"]
        .as_str()
        .and_then(Color::parse)
        .ok_or_else(|| said.to_string())
}

#[test]
fn many_streams_at_once_lose_nothing_in_200_switches() {
    let _machine = alone();
    let [blue, green] = App::start_all([(Kind::Node, Color::Blue), (Kind::Node, Color::Green)]);
    let site = Site::simple(blue.address(), green.address());
    let server = site.run();
    let address = site.address();
    let (tell, told) = std::sync::mpsc::channel::<()>();
    let clients = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let local = tokio::task::LocalSet::new();
        local.block_on(&runtime, async move {
            let stop = std::rc::Rc::new(std::cell::Cell::new(false));
            let (mut tasks, mut connections, mut kept) = (Vec::new(), Vec::new(), Vec::new());
            for _ in 0..CONNECTIONS {
                let tcp = TcpStream::connect(address).await.expect("connect");
                let (requests, connection) = h2::client::handshake(tcp).await.expect("a handshake");
                connections.push(tokio::task::spawn_local(connection));
                for _ in 0..STREAMS {
                    tasks.push(tokio::task::spawn_local(ask(
                        requests.clone(),
                        std::rc::Rc::clone(&stop),
                    )));
                }
                // The last of them ends the connection.
                kept.push(requests);
            }
            while told.try_recv().is_err() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            stop.set(true);
            let mut records = Vec::new();
            for task in tasks {
                records.extend(task.await.expect("a client"));
            }
            assert!(
                connections.iter().all(|one| !one.is_finished()),
                "a switch closed a connection"
            );
            records
        })
    });
    let mut admin = site.admin();
    let mut log = Vec::new();
    std::thread::sleep(Duration::from_millis(200));
    for at in 0..200 {
        let to = if at % 2 == 0 { Color::Green } else { Color::Blue };
        let sent = Instant::now();
        let (status, said) = admin
            .switch(to)
            .unwrap_or_else(|broken| panic!("switch {at}: {broken}"));
        assert_eq!(status, 200, "{said}");
        log.push(Switch {
            sent,
            replied: Instant::now(),
            to,
            reply: Reply::Done,
        });
        std::thread::sleep(Duration::from_millis(5));
    }
    std::thread::sleep(Duration::from_millis(200));
    tell.send(()).expect("the clients are there");
    let records = clients.join().expect("the clients");
    let verdict = judge(Color::Blue, &log, &records);
    say(&format!(
        "HTTP/2, {CONNECTIONS} connections of {STREAMS} streams: {}",
        verdict.line(&log)
    ));
    verdict.assert_clean();
    assert!(
        verdict.by_color.iter().all(|count| *count > 0),
        "both colors served"
    );
    server.stop();
}
