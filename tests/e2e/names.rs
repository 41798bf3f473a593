//! Names with several addresses, followed while a real name server (dnsmasq, from Debian) changes what it says.
//!
//! dnsmasq listens on an address of its own below 127.0.0.0/8, port 53; the proxy reads a `resolv.conf` that is mounted over
//! the system's for its process alone. Both need root; without it the tests say loudly that they did not run.

use std::io::Write;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::backend::{Backend, read_request};
use crate::figures::{alone, say};
use crate::server::{PATIENCE, Server, Site};
use crate::wire::Client;

#[track_caller]
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "still not: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Whether this machine lets a process have its own `/etc/resolv.conf`.
fn can_run() -> bool {
    let tried = Command::new("unshare")
        .args(["--mount", "mount", "--bind", "/etc/hosts", "/etc/resolv.conf"])
        .stderr(Stdio::null())
        .status();
    let can = tried.is_ok_and(|status| status.success());
    if !can {
        say("NOT RUN: names with a real name server: no mount namespace here (it needs root)");
    }
    can
}

/// An address of loopback that is this test's own: third and fourth part are given.
fn loopback(last: u8) -> Ipv4Addr {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let [a, b, ..] = std::process::id().to_le_bytes();
    let c = u8::try_from(NEXT.fetch_add(1, SeqCst) % 256).unwrap_or(0);
    Ipv4Addr::new(127, a | 1, b ^ c, last)
}

/// dnsmasq with one hosts file and no server above it.
struct NameServer {
    folder: TempDir,
    address: Ipv4Addr,
    child: Child,
}

impl NameServer {
    /// Its answers are good for so many seconds.
    fn start(ttl: u32, addresses: &[Ipv4Addr]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let address = (0..200)
            .map(|_| loopback(53))
            .find(|address| UdpSocket::bind((*address, 53)).is_ok())
            .expect("a loopback address with port 53 free");
        write_hosts(folder.path(), addresses);
        let resolv = format!("nameserver {address}\noptions timeout:2 attempts:3\n");
        std::fs::write(folder.path().join("resolv.conf"), resolv).expect("write");
        let child = Command::new("dnsmasq")
            .args([
                "--keep-in-foreground",
                "--conf-file=/dev/null",
                "--no-resolv",
                "--no-hosts",
            ])
            .args(["--bind-interfaces", "--user=root", "--pid-file=", "--log-queries"])
            .arg(format!("--log-facility={}", folder.path().join("log").display()))
            .arg(format!("--addn-hosts={}", folder.path().join("hosts").display()))
            .arg(format!("--listen-address={address}"))
            .arg(format!("--local-ttl={ttl}"))
            .spawn()
            .expect("dnsmasq; tests/run installs it");
        let server = Self {
            folder,
            address,
            child,
        };
        until("dnsmasq answers", || {
            TcpStream::connect((server.address, 53)).is_ok()
        });
        server
    }

    /// Other addresses from now on.
    fn now_says(&self, addresses: &[Ipv4Addr]) {
        write_hosts(self.folder.path(), addresses);
        kill_process(Pid::from_child(&self.child), Signal::HUP).expect("signal dnsmasq");
    }

    /// How often it was asked for the addresses.
    fn asked(&self) -> usize {
        let log = std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
        log.matches("query[A] app.test").count()
    }

    fn run(&self, site: &Site) -> Server {
        site.run_over(
            Path::new("/etc/resolv.conf"),
            &self.folder.path().join("resolv.conf"),
        )
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn write_hosts(folder: &Path, addresses: &[Ipv4Addr]) {
    let lines: String = addresses.iter().map(|at| format!("{at} app.test\n")).collect();
    let next = folder.join("hosts.next");
    std::fs::write(&next, lines).expect("write");
    std::fs::rename(next, folder.join("hosts")).expect("rename");
}

/// An app that says its address. `/held` takes until it is told.
struct App {
    address: Ipv4Addr,
    backend: Option<Backend>,
    streams: Arc<Mutex<Vec<TcpStream>>>,
    told: Arc<AtomicBool>,
    holds: Arc<AtomicBool>,
}

impl App {
    /// On this port of an address of its own; 0 = any.
    fn start(port: u16) -> (Self, u16) {
        let (listener, address) = (0..200)
            .find_map(|_| {
                let address = loopback(1);
                let listener = TcpListener::bind(SocketAddr::from((address, port))).ok()?;
                Some((listener, address))
            })
            .expect("a loopback address with this port free");
        let port = listener.local_addr().expect("its address").port();
        let (streams, told, holds) = (
            Arc::<Mutex<Vec<TcpStream>>>::default(),
            Arc::<AtomicBool>::default(),
            Arc::<AtomicBool>::default(),
        );
        let (of_all, tell, held) = (Arc::clone(&streams), Arc::clone(&told), Arc::clone(&holds));
        let backend = Backend::on(listener, move |mut stream| {
            of_all.lock().unwrap().push(stream.try_clone().expect("a copy"));
            let mut ahead = Vec::new();
            while let Some(seen) = read_request(&mut stream, &mut ahead) {
                if seen.path() == "/held" {
                    held.store(true, SeqCst);
                    until("it is told", || tell.load(SeqCst));
                }
                let body = address.to_string();
                let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
                if stream.write_all(answer.as_bytes()).is_err() {
                    return;
                }
            }
        });
        let app = Self {
            address,
            backend: Some(backend),
            streams,
            told,
            holds,
        };
        (app, port)
    }

    /// Nobody listens any more, and every connection is cut.
    fn die(&mut self) {
        self.backend = None;
        for stream in self.streams.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    fn is_in(&self, list: &[String]) -> bool {
        list.iter()
            .any(|at| at.starts_with(&format!("{}:", self.address)))
    }
}

/// What the name resolves to, as `status` shows it.
fn resolved(site: &Site) -> Vec<String> {
    let (_, app) = site.admin().get("/v1/apps/web").expect("the admin API");
    let list = app["colors"]["blue"]["services"][0]["endpoints"][0]["resolved"].clone();
    serde_json::from_value(list).unwrap_or_default()
}

#[test]
fn addresses_come_and_go_without_a_failed_request() {
    let _machine = alone();
    if !can_run() {
        return;
    }
    let (mut a, port) = App::start(0);
    let (mut b, _) = App::start(port);
    let (c, _) = App::start(port);
    let names = NameServer::start(1, &[a.address, b.address]);
    let site = Site::new(&format!(
        "[app.web]\ninitial = \"blue\"\nblue = [\"app.test:{port}\"]\n"
    ));
    let server = names.run(&site);
    until("both are known", || resolved(&site).len() == 2);

    let (over, failed, done) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
    let ask = || {
        site.client()
            .get("/")
            .map(|answer| answer.text())
            .unwrap_or_default()
    };
    let serves = |app: &App| until("it serves", || ask() == app.address.to_string());
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut client = site.client();
                while !over.load(SeqCst) {
                    match client.get("/") {
                        Ok(answer) if answer.status == 200 => done.fetch_add(1, SeqCst),
                        wrong => {
                            println!("failed: {wrong:?}");
                            client = site.client();
                            failed.fetch_add(1, SeqCst)
                        }
                    };
                }
            });
        }
        let ends = Ends(&over);
        serves(&a);
        serves(&b);

        names.now_says(&[a.address, b.address, c.address]);
        serves(&c);

        // What runs on an address that is taken away ends well.
        let held = (0..200)
            .find_map(|_| {
                let mut client = site.client();
                b.holds.store(false, SeqCst);
                let held = scope.spawn(move || client.get("/held"));
                until("some app has it", || {
                    [&a, &b, &c].iter().any(|app| app.holds.load(SeqCst))
                });
                if b.holds.load(SeqCst) {
                    return Some(held);
                }
                for other in [&a, &c] {
                    other.told.store(true, SeqCst);
                }
                assert_eq!(held.join().unwrap().expect("an answer").status, 200);
                for other in [&a, &c] {
                    other.told.store(false, SeqCst);
                    other.holds.store(false, SeqCst);
                }
                None
            })
            .expect("a held request on the second address");
        names.now_says(&[a.address, c.address]);
        until("it is gone", || !b.is_in(&resolved(&site)));
        b.told.store(true, SeqCst);
        let answer = held.join().unwrap().expect("the answer of the held request");
        assert_eq!((answer.status, answer.text()), (200, b.address.to_string()));
        b.die();
        // One that dies without a word: its requests go to the others.
        a.die();
        serves(&c);
        let some = done.load(SeqCst);
        until("the traffic flows", || done.load(SeqCst) > some + 200);
        drop(ends);
    });
    assert_eq!(failed.load(SeqCst), 0, "of {}", done.load(SeqCst));
    say(&format!(
        "names: an address added, one taken away, one dead, by a real name server: {} requests, 0 failed",
        done.load(SeqCst)
    ));
    server.stop();
}

/// Says that it is over when it goes, also when a test fails: the threads that ask meanwhile must end.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}

#[test]
fn a_refused_connect_asks_the_name_again_long_before_its_time() {
    let _machine = alone();
    if !can_run() {
        return;
    }
    let (mut a, port) = App::start(0);
    let (b, _) = App::start(port);
    // Good for an hour: without a reason nobody would ask again for a minute.
    let names = NameServer::start(3600, &[a.address]);
    let site = Site::new(&format!(
        "[app.web]\ninitial = \"blue\"\nblue = [\"app.test:{port}\"]\n"
    ));
    let server = names.run(&site);
    let says = |app: &App| {
        let mut client: Client<TcpStream> = site.client();
        client
            .get("/")
            .is_ok_and(|answer| answer.text() == app.address.to_string())
    };
    until("it serves", || says(&a));
    let asked = names.asked();
    names.now_says(&[b.address]);
    let begun = Instant::now();
    a.die();
    until("the new address serves", || says(&b));
    let took = begun.elapsed();
    let more = names.asked() - asked;
    assert!(more >= 1);
    // Once a second at most, however many requests failed.
    assert!(
        more as u64 <= took.as_secs() + 3,
        "asked {more} times in {took:?}"
    );
    server.stop();
}
