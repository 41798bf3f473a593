//! Clients that take their time on purpose, and a process that has no file descriptors left: others are served.
//!
//! slowhttptest (Debian) plays its four attacks; `tests/it/slow.rs` has twenty forms of its own, byte by byte.

use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

use crate::backend::Backend;
use crate::figures::{alone, say, size};
use crate::server::{PATIENCE, Server, Site, eventually, simple};
use crate::wire::{Broken, Client};

fn metric(site: &Site, name: &str) -> f64 {
    let text = Client::connect_unix(&site.socket())
        .expect("the admin socket")
        .get("/metrics")
        .expect("the metrics")
        .text();
    let lines = text.lines().filter(|line| {
        line.strip_prefix(name)
            .is_some_and(|rest| rest.starts_with(['{', ' ']))
    });
    lines
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum()
}

/// Ask over and over until it is over; the longest that an answer took, and how many there were.
fn innocent(site: &Site, over: &AtomicBool) -> Result<(Duration, usize), Broken> {
    let (mut longest, mut count) = (Duration::ZERO, 0);
    while !over.load(SeqCst) {
        // A new connection each time: it is these that an attack keeps out.
        let begun = Instant::now();
        let answer = site.client().get("/")?;
        assert_eq!(answer.status, 200);
        longest = longest.max(begun.elapsed());
        count += 1;
    }
    Ok((longest, count))
}

#[test]
fn slowhttptest_keeps_nobody_else_waiting() {
    let _machine = alone();
    let large = "x".repeat(4 << 20);
    let blue = Backend::says_unless("blue", move |seen| {
        (seen.path() == "/large").then(|| {
            format!(
                "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{large}",
                large.len()
            )
            .into_bytes()
        })
    });
    let site = Site::new(&format!(
        "[limits]\nclient_header_timeout = \"1s\"\nclient_idle_timeout = \"2s\"\nclient_body_timeout = \"1s\"\n\n{}",
        simple(&blue.address.to_string(), "127.0.0.1:9", "")
    ));
    let server = site.run();
    let clients = size(300, 1000).to_string();
    let seconds = size(4, 20).to_string();
    for (name, mode, path) in [
        ("headers", &["-H", "-i", "1", "-x", "8"][..], "/"),
        ("bodies", &["-B", "-i", "2", "-s", "100000", "-x", "8"], "/"),
        (
            "reading",
            &["-X", "-n", "1", "-w", "1", "-y", "16", "-z", "8"],
            "/large",
        ),
        ("ranges", &["-R", "-a", "5", "-b", "2000"], "/"),
    ] {
        let before = server.resident_kib();
        let over = AtomicBool::new(false);
        let (longest, count, output) = std::thread::scope(|scope| {
            let innocent = scope.spawn(|| innocent(&site, &over));
            let output = Command::new("slowhttptest")
                .args(mode)
                .args([
                    "-c", &clients, "-r", &clients, "-l", &seconds, "-p", "20", "-v", "1",
                ])
                .args(["-u", &format!("http://{}{path}", site.address())])
                .stdin(Stdio::null())
                .output();
            over.store(true, SeqCst);
            let (longest, count) = innocent
                .join()
                .expect("the innocent client")
                .expect("its answers");
            (
                longest,
                count,
                output.expect("slowhttptest; tests/run installs it"),
            )
        });
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(text.contains("service available"), "it never began: {text}");
        assert!(!text.contains("NO"), "it found the service gone: {text}");
        assert!(count > 10, "{name}: only {count} answers meanwhile");
        let more = server.resident_kib().saturating_sub(before) / 1024;
        assert!(more < 128, "{name}: {more} MiB more");
        eventually("the slow ones are gone", PATIENCE, || {
            (metric(&site, "cutover_connections") <= 1.0).then_some(())
        });
        say(&format!(
            "slowhttptest, slow {name}: {clients} clients; another one got {count} answers, none after more than {longest:?}; {more} MiB more"
        ));
    }
    server.stop();
}

/// Descriptors that a process has open.
fn descriptors(server: &Server) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", server.pid()))
        .expect("its descriptors")
        .count()
}

fn set_limit(server: &Server, limit: usize) {
    let status = Command::new("prlimit")
        .args([
            format!("--pid={}", server.pid()),
            format!("--nofile={limit}:20000"),
        ])
        .status()
        .expect("prlimit");
    assert!(status.success());
}

#[test]
fn without_descriptors_new_clients_wait_the_others_go_on_and_the_admin_socket_answers() {
    let _machine = alone();
    let (blue, green) = (Backend::says("blue"), Backend::says("green"));
    let site = Site::new(&format!(
        "[limits]\nconnections = 10000\n\n{}",
        simple(&blue.address.to_string(), &green.address.to_string(), "")
    ));
    let server = site.run();
    let mut served: Vec<_> = (0..8).map(|_| site.client()).collect();
    for client in &mut served {
        assert_eq!(client.get("/").expect("an answer").status, 200);
    }
    // As many as it has, and a few: an eighth of the limit twice is kept for others than clients.
    let limit = descriptors(&server) * 4 / 3 + 8;
    set_limit(&server, limit);
    let crowd: Vec<TcpStream> = (0..limit * 2)
        .filter_map(|_| TcpStream::connect(site.address()).ok())
        .collect();
    eventually("it says so", PATIENCE, || {
        server.stderr().contains("new clients wait").then_some(())
    });
    for round in 0..4 {
        for client in &mut served {
            let answer = client
                .get("/")
                .unwrap_or_else(|broken| panic!("round {round}: {broken}"));
            assert_eq!(answer.status, 200);
        }
        site.cli(&["status"]).expect(0);
    }
    site.cli(&["switch", "green"]).expect(0);
    for client in &mut served {
        assert_eq!(client.get("/").expect("an answer").json()["color"], "green");
    }
    assert!(descriptors(&server) <= limit);
    // Those that wait are served when there is room again.
    set_limit(&server, 20_000);
    let mut late = site.client();
    assert_eq!(late.get("/").expect("an answer").json()["color"], "green");
    drop(crowd);
    eventually("the crowd is gone", PATIENCE, || {
        (metric(&site, "cutover_connections") <= 9.0).then_some(())
    });
    server.stop();
}
