//! Names against a name server of our own on a loopback port, and hosts files of our own.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test panics to fail")]

use std::fs;
use std::net::Ipv4Addr;
use std::sync::Mutex;

use hickory_resolver::proto::op::{Message, ResponseCode};
use hickory_resolver::proto::rr::{RData, Record, RecordType};
use tempfile::TempDir;
use tokio::net::UdpSocket;

use super::*;

/// A guard against hanging, not a measure.
const PATIENT: Duration = Duration::from_secs(30);

/// A name server that knows one list of addresses, whatever the name.
struct Server {
    zone: Arc<Mutex<Zone>>,
    port: u16,
    _task: OwnedTask,
}

#[derive(Clone, Default)]
struct Zone {
    /// Empty: NXDOMAIN.
    addresses: Vec<IpAddr>,
    ttl: u32,
    /// Answer queries for IPv4 with SERVFAIL.
    v4_fails: bool,
    /// Names that were asked for with type A.
    asked: Vec<String>,
}

impl Server {
    async fn start(ttl: u32, addresses: &[&str]) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let port = socket.local_addr().unwrap().port();
        let zone = Arc::new(Mutex::new(Zone {
            addresses: parsed(addresses),
            ttl,
            ..Zone::default()
        }));
        let state = Arc::clone(&zone);
        let task = OwnedTask::spawn(async move {
            let mut buffer = [0; 1500];
            while let Ok((n, from)) = socket.recv_from(&mut buffer).await {
                let query = Message::from_vec(&buffer[..n]).unwrap();
                let answer = answer(&query, &mut state.lock().unwrap());
                let _ = socket.send_to(&answer.to_vec().unwrap(), from).await;
            }
        });
        Self {
            zone,
            port,
            _task: task,
        }
    }

    fn now_says(&self, ttl: u32, addresses: &[&str]) {
        let mut zone = self.zone.lock().unwrap();
        zone.ttl = ttl;
        zone.addresses = parsed(addresses);
    }

    fn asked(&self) -> Vec<String> {
        self.zone.lock().unwrap().asked.clone()
    }

    /// Waits for this many more lookups.
    async fn was_asked(&self, more: usize) {
        let enough = self.asked().len() + more;
        let wait = async {
            while self.asked().len() < enough {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(PATIENT, wait).await.expect("the name is looked up again");
    }
}

fn answer(query: &Message, zone: &mut Zone) -> Message {
    let question = query.queries[0].clone();
    let mut answer = Message::response(query.metadata.id, query.metadata.op_code);
    let v4 = question.query_type() == RecordType::A;
    if v4 {
        zone.asked.push(question.name().to_string());
    }
    if v4 && zone.v4_fails {
        answer.metadata.response_code = ResponseCode::ServFail;
    } else if zone.addresses.is_empty() {
        answer.metadata.response_code = ResponseCode::NXDomain;
    } else {
        for address in zone.addresses.iter().filter(|address| address.is_ipv4() == v4) {
            let data = RData::from(*address);
            answer.add_answer(Record::from_rdata(question.name().clone(), zone.ttl, data));
        }
    }
    answer.add_query(question);
    answer
}

fn parsed(addresses: &[&str]) -> Vec<IpAddr> {
    addresses.iter().map(|address| address.parse().unwrap()).collect()
}

/// A source that reads its own hosts file and `resolv.conf`.
fn source(dir: &TempDir, hosts: &str, resolv_conf: Option<&str>, port: u16) -> Source {
    let (hosts_path, resolv_path) = (dir.path().join("hosts"), dir.path().join("resolv.conf"));
    fs::write(&hosts_path, hosts).unwrap();
    if let Some(text) = resolv_conf {
        fs::write(&resolv_path, text).unwrap();
    }
    Source::from_files(hosts_path, resolv_path, Some(port))
}

fn asking(dir: &TempDir, server: &Server) -> Source {
    let conf = "nameserver 127.0.0.1\noptions timeout:5 attempts:1\n";
    source(dir, "127.0.0.1 localhost\n", Some(conf), server.port)
}

fn names(list: &[(&str, u16)]) -> BTreeSet<(String, u16)> {
    list.iter()
        .map(|(host, port)| ((*host).to_owned(), *port))
        .collect()
}

async fn next(results: &mut mpsc::Receiver<Resolution>) -> Resolution {
    let resolution = timeout(PATIENT, results.recv()).await;
    resolution
        .expect("a result in time")
        .expect("the names are alive")
}

fn shown(resolution: &Resolution) -> Vec<String> {
    resolution.addresses.iter().map(ToString::to_string).collect()
}

#[tokio::test]
async fn a_change_is_delivered_after_the_time_to_live_and_nothing_else_is() {
    let dir = TempDir::new().unwrap();
    let server = Server::start(1, &["10.0.0.2", "10.0.0.1"]).await;
    let (sender, mut results) = mpsc::channel(8);
    let mut all = Names::with_source(asking(&dir, &server), sender);
    all.reconcile(names(&[("web.test", 8000)]));

    let first = next(&mut results).await;
    assert_eq!(first.place.to_string(), "web.test:8000");
    assert_eq!(shown(&first), ["10.0.0.1:8000", "10.0.0.2:8000"], "sorted");
    assert_eq!(first.error, None);

    // The same set in another order is no change; then a real one.
    server.now_says(1, &["10.0.0.1", "10.0.0.2"]);
    server.was_asked(1).await;
    server.now_says(1, &["10.0.0.3"]);
    let second = next(&mut results).await;
    assert_eq!(shown(&second), ["10.0.0.3:8000"]);
    assert!(
        server.asked().iter().all(|name| name == "web.test."),
        "{:?}",
        server.asked()
    );
}

#[tokio::test]
async fn both_families_are_kept_ipv4_first() {
    let dir = TempDir::new().unwrap();
    let server = Server::start(60, &["fd00::1", "10.0.0.1"]).await;
    let (sender, mut results) = mpsc::channel(8);
    let mut all = Names::with_source(asking(&dir, &server), sender);
    all.reconcile(names(&[("web_blue.test", 80)]));
    assert_eq!(shown(&next(&mut results).await), ["10.0.0.1:80", "[fd00::1]:80"]);
}

#[tokio::test]
async fn a_name_that_stops_resolving_keeps_its_addresses() {
    let dir = TempDir::new().unwrap();
    let server = Server::start(1, &["10.0.0.1"]).await;
    let (sender, mut results) = mpsc::channel(8);
    let mut all = Names::with_source(asking(&dir, &server), sender);
    all.reconcile(names(&[("web.test", 80)]));
    assert_eq!(shown(&next(&mut results).await), ["10.0.0.1:80"]);

    server.now_says(1, &[]);
    server.was_asked(2).await;
    assert!(results.try_recv().is_err(), "NXDOMAIN is no news");
    server.now_says(1, &["10.0.0.2"]);
    assert_eq!(shown(&next(&mut results).await), ["10.0.0.2:80"]);
}

#[tokio::test]
async fn a_family_that_cannot_be_asked_for_keeps_its_addresses() {
    let dir = TempDir::new().unwrap();
    let server = Server::start(60, &["fd00::1", "10.0.0.1"]).await;
    let source = asking(&dir, &server);
    let both = source.lookup("web.test", &[]).await.unwrap().addresses;
    assert_eq!(both.len(), 2);

    server.zone.lock().unwrap().v4_fails = true;
    let kept = source.lookup("web.test", &both).await.unwrap().addresses;
    assert_eq!(with_port(&kept, 1), with_port(&both, 1));

    // A server that says there is none is believed.
    server.zone.lock().unwrap().v4_fails = false;
    server.now_says(60, &["fd00::1"]);
    let fewer = source.lookup("web.test", &both).await.unwrap().addresses;
    assert_eq!(fewer, parsed(&["fd00::1"]));
}

#[tokio::test]
async fn a_name_that_never_resolved_is_an_empty_list_with_an_error() {
    let dir = TempDir::new().unwrap();
    let server = Server::start(1, &[]).await;
    let (sender, mut results) = mpsc::channel(8);
    let mut all = Names::with_source(asking(&dir, &server), sender);
    all.reconcile(names(&[("web.test", 80)]));
    let first = next(&mut results).await;
    assert!(first.addresses.is_empty());
    assert_eq!(first.error.as_deref(), Some("there is no such name (NXDOMAIN)"));

    server.now_says(1, &["10.0.0.1"]);
    let second = next(&mut results).await;
    assert_eq!(
        (shown(&second), second.error),
        (vec!["10.0.0.1:80".to_owned()], None)
    );
}

#[tokio::test]
async fn refresh_looks_again_before_the_time_to_live_is_over() {
    let dir = TempDir::new().unwrap();
    let server = Server::start(3600, &["10.0.0.1"]).await;
    let (sender, mut results) = mpsc::channel(8);
    let mut all = Names::with_source(asking(&dir, &server), sender);
    all.reconcile(names(&[("web.test", 80)]));
    assert_eq!(shown(&next(&mut results).await), ["10.0.0.1:80"]);
    assert_eq!(server.asked().len(), 1);

    server.now_says(3600, &["10.0.0.9"]);
    for _ in 0..100 {
        all.refresh("web.test");
        all.refresh("other.test");
    }
    assert_eq!(shown(&next(&mut results).await), ["10.0.0.9:80"]);
    assert_eq!(server.asked().len(), 2, "a hundred wishes are one lookup");
}

#[tokio::test]
async fn names_no_longer_wanted_are_dropped_and_the_others_stay() {
    let dir = TempDir::new().unwrap();
    let server = Server::start(3600, &["10.0.0.1"]).await;
    let (sender, mut results) = mpsc::channel(8);
    let mut all = Names::with_source(asking(&dir, &server), sender);
    all.reconcile(names(&[("a.test", 80), ("b.test", 80)]));
    next(&mut results).await;
    next(&mut results).await;
    let task = all.followed[&("a.test".to_owned(), 80)]._task.id();

    all.reconcile(names(&[("a.test", 80), ("c.test", 80)]));
    assert_eq!(next(&mut results).await.place.to_string(), "c.test:80");
    assert_eq!(all.followed.len(), 2);
    assert_eq!(all.followed[&("a.test".to_owned(), 80)]._task.id(), task);

    drop(all);
    // The tasks held the senders: when the last is gone the channel ends.
    let end = timeout(PATIENT, results.recv()).await.unwrap();
    assert_eq!(end, None);
}

#[tokio::test]
async fn the_hosts_file_comes_first_and_is_read_again_when_it_changes() {
    let dir = TempDir::new().unwrap();
    let server = Server::start(60, &["10.0.0.1"]).await;
    let source = source(
        &dir,
        "# comment\n127.0.0.9 Web extra # more\nbroken line\n",
        Some("nameserver 127.0.0.1\n"),
        server.port,
    );
    let epoch = source.epoch();
    let answer = source.lookup("web", &[]).await.unwrap();
    assert_eq!(answer.addresses, parsed(&["127.0.0.9"]));
    assert!(
        server.asked().is_empty(),
        "a name of the hosts file is not asked of a server"
    );
    assert_eq!(source.epoch(), epoch);

    // Another length, so it is seen even where clocks are coarse.
    fs::write(dir.path().join("hosts"), "127.0.0.10 web\n::1 web\n").unwrap();
    assert_ne!(source.epoch(), epoch);
    let answer = source.lookup("web", &[]).await.unwrap();
    assert_eq!(answer.addresses, parsed(&["127.0.0.10", "::1"]));
}

#[tokio::test]
async fn localhost_needs_no_server() {
    let dir = TempDir::new().unwrap();
    // Port 9 answers nobody; neither the hosts file nor the built-in answer asks it.
    for hosts in ["127.0.0.1 localhost\n", ""] {
        let source = source(&dir, hosts, Some("nameserver 127.0.0.1\n"), 9);
        let found = source.lookup("localhost", &[]).await.unwrap().addresses;
        assert!(found.contains(&IpAddr::V4(Ipv4Addr::LOCALHOST)), "{found:?}");
    }
    let found = resolve_once("localhost", 8000, PATIENT).await.unwrap();
    assert!(found.contains(&"127.0.0.1:8000".parse().unwrap()), "{found:?}");
}

#[tokio::test]
async fn without_resolv_conf_the_system_is_asked() {
    for text in [None, Some("options ndots:2\n")] {
        let dir = TempDir::new().unwrap();
        let source = source(&dir, "", text, 9);
        let answer = source.lookup("localhost", &[]).await.unwrap();
        assert!(answer.addresses.contains(&IpAddr::V4(Ipv4Addr::LOCALHOST)));
        assert_eq!(answer.good_for, Duration::from_secs(5));
    }
}

#[tokio::test]
async fn what_is_no_name_is_an_error_and_an_address_is_itself() {
    let dir = TempDir::new().unwrap();
    let source = source(&dir, "", Some("nameserver 127.0.0.1\n"), 9);
    let error = source.lookup("a..b", &[]).await.unwrap_err();
    assert!(error.starts_with("`a..b` is not a host name"), "{error}");
    let answer = source.lookup("::1", &[]).await.unwrap();
    assert_eq!(answer.addresses, parsed(&["::1"]));
}

#[test]
fn pauses_after_failures_double_to_half_a_minute() {
    let pauses = [1, 2, 3, 4, 5, 6, 7, u32::MAX].map(|n| retry_pause(n).as_secs());
    assert_eq!(pauses, [1, 2, 4, 8, 16, 30, 30, 30]);
}
