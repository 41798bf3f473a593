//! What a request costs in instructions, counted by callgrind: a guard that does not depend on time, nor on what else
//! the machine does. The baseline is of the debug build, which the tests have anyway; a speed is for benches/compare.

use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::backend::Backend;
use crate::figures;
use crate::ports;
use crate::server::{PATIENCE, binary};
use crate::wire::Client;

/// Thousands of instructions of one `GET /small` and its answer on kept connections, of all threads. Fewer: lower it.
/// More: say in the commit what for.
const BASELINE: f64 = 300.0;
/// The control plane works beside, and another compiler makes other code.
const TOLERANCE: f64 = 1.1;
const REQUESTS: u32 = 400;

/// The process under valgrind; killed when dropped.
struct Counted(Child);

impl Drop for Counted {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Counted {
    fn control(&self, what: &str) {
        let done = Command::new("callgrind_control")
            .args([what, &self.0.id().to_string()])
            .output()
            .expect("callgrind_control, which comes with valgrind");
        let said = String::from_utf8_lossy(&done.stdout);
        assert!(
            done.status.success() && !said.contains("Error"),
            "callgrind_control {what}: {said}"
        );
    }
}

#[test]
fn a_request_takes_no_more_instructions_than_it_did() {
    let _alone = figures::alone();
    let folder = tempfile::tempdir().unwrap();
    let (blue, green) = (Backend::says("blue"), Backend::says("green"));
    let port = ports::free();
    let config = folder.path().join("cutover.toml");
    let text = format!(
        "[server]\nworkers = 1\nstate_dir = {:?}\n[log]\naccess = \"off\"\n[[listener]]\naddress = \"127.0.0.1:{port}\"\n\
         [app.web]\ninitial = \"blue\"\nblue = [\"{}\"]\ngreen = [\"{}\"]\nhealth.path = \"/healthz\"\n\
         health.interval = \"1h\"\n",
        folder.path().join("state"),
        blue.address,
        green.address
    );
    std::fs::write(&config, text).unwrap();
    let counts = folder.path().join("callgrind.out");
    let counted = Command::new("valgrind")
        .arg("--tool=callgrind")
        .arg(format!("--callgrind-out-file={}", counts.display()))
        .args([binary().as_str(), "run", "-c"])
        .arg(&config)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("valgrind: tests/run installs it");
    let counted = Counted(counted);
    let mut client = connected(port);
    ask(&mut client, 100);
    // The least of several: the control plane's own work is in some of them.
    let least = (1..=3)
        .map(|round| {
            counted.control("--zero");
            ask(&mut client, REQUESTS);
            counted.control("--dump");
            total(&std::fs::read_to_string(format!("{}.{round}", counts.display())).unwrap())
        })
        .min()
        .unwrap();
    let each = least as f64 / f64::from(REQUESTS) / 1000.0;
    figures::say(&format!(
        "instructions a request, debug build: {each:.1} thousand (baseline {BASELINE})"
    ));
    assert!(
        each <= BASELINE * TOLERANCE,
        "{each:.1} thousand instructions a request; the baseline is {BASELINE}"
    );
}

/// The proxy takes a while to start under valgrind.
fn connected(port: u16) -> Client<TcpStream> {
    let end = Instant::now() + PATIENCE * 4;
    loop {
        if let Ok(mut client) = Client::connect(([127, 0, 0, 1], port).into())
            && client.get("/small").is_ok_and(|answer| answer.status == 200)
        {
            return client;
        }
        assert!(Instant::now() < end, "no answer from the proxy under valgrind");
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn ask(client: &mut Client<TcpStream>, times: u32) {
    for _ in 0..times {
        assert_eq!(client.get("/small").expect("an answer").status, 200);
    }
}

/// The sum in a file of callgrind's.
fn total(text: &str) -> u64 {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("totals: ").or(line.strip_prefix("summary: ")));
    line.and_then(|count| count.trim().parse().ok())
        .expect("a total in callgrind's file")
}
