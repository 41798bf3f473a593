//! Probes against small apps that answer well, badly, or not at all.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test panics to fail")]

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::net::{TcpSocket, UnixListener};

use super::super::task::OwnedTask;
use super::super::{EndpointKey, Target};
use super::test_app::{App, Does, PATIENT, http, over_http, says, serve, settings};
use super::*;
use crate::config::{Address, EndpointAddress, HttpProbe, Probe};
use crate::rollout::Color;

/// For probes that must run into their timeout.
const SHORT: Duration = Duration::from_millis(400);

/// An endpoint for one probe.
fn of(target: Target, place: Address) -> Arc<Endpoint> {
    Endpoint::new(EndpointKey {
        app: "shop".into(),
        service: "web".into(),
        color: Color::Blue,
        address: EndpointAddress::plain(place),
        target,
        tls: None,
        preamble: None,
    })
}

fn at(address: SocketAddr) -> Arc<Endpoint> {
    of(Target::Tcp(address), Address::Ip(address))
}

impl App {
    async fn probed(&self, settings: &config::Health) -> ProbeReport {
        probe_once(&at(self.address), settings).await
    }
}

#[track_caller]
fn assert_found(report: &ProbeReport, verdict: Health, status: Option<u16>, reason: &str) {
    assert_eq!(
        (report.verdict, report.status, report.reason.as_str()),
        (verdict, status, reason)
    );
}

#[tokio::test]
async fn a_page_that_says_200_is_healthy() {
    let app = App::saying("200 OK", "fine").await;
    let report = app.probed(&over_http(http())).await;
    assert_found(&report, Health::Healthy, Some(200), "200");
    assert_eq!(report.asked, format!("GET http://{}/healthz?deep=1", app.address));
}

#[tokio::test]
async fn the_request_is_a_plain_one_for_the_endpoints_own_host() {
    let app = App::saying("204 No Content", "").await;
    app.probed(&over_http(http())).await;
    let head = app.asked.lock().unwrap()[0].to_ascii_lowercase();
    assert!(head.starts_with("get /healthz?deep=1 http/1.1\r\n"), "{head}");
    for line in [
        format!("\r\nhost: {}\r\n", app.address),
        format!("\r\nuser-agent: cutover-probe/{}\r\n", env!("CARGO_PKG_VERSION")),
        "\r\nconnection: close\r\n".into(),
    ] {
        assert!(head.contains(&line), "no {line:?} in {head}");
    }
}

#[tokio::test]
async fn host_and_headers_are_those_of_the_probe() {
    let app = App::saying("200 OK", "").await;
    let probe = HttpProbe {
        host: "shop.example.com".into(),
        headers: vec![
            ("x-probe".into(), "yes".into()),
            ("user-agent".into(), "me".into()),
        ],
        ..http()
    };
    let report = app.probed(&over_http(probe)).await;
    assert!(
        report.asked.ends_with("(Host: shop.example.com)"),
        "{}",
        report.asked
    );
    let head = app.asked.lock().unwrap()[0].to_ascii_lowercase();
    assert!(head.contains("\r\nhost: shop.example.com\r\n"), "{head}");
    assert!(
        head.contains("\r\nx-probe: yes\r\n") && head.contains("\r\nuser-agent: me\r\n"),
        "{head}"
    );
}

#[tokio::test]
async fn a_name_as_written_is_the_host() {
    let app = App::saying("200 OK", "").await;
    let written = Address::Name {
        host: "web-blue".into(),
        port: 8000,
    };
    probe_once(&of(Target::Tcp(app.address), written), &over_http(http())).await;
    let head = app.asked.lock().unwrap()[0].to_ascii_lowercase();
    assert!(head.contains("\r\nhost: web-blue:8000\r\n"), "{head}");
}

#[tokio::test]
async fn a_wrong_status_is_failing_and_shows_the_body() {
    let app = App::saying("503 Service Unavailable", "{\"db\":\n \"down\"}\x1b[0m").await;
    let report = app.probed(&over_http(http())).await;
    assert_found(
        &report,
        Health::Failing,
        Some(503),
        "503, body: {\"db\": \"down\"}[0m",
    );
    let app = App::saying("500 Oops", "").await;
    assert_found(
        &app.probed(&over_http(http())).await,
        Health::Failing,
        Some(500),
        "500",
    );
}

#[tokio::test]
async fn the_wanted_statuses_are_ranges() {
    let app = App::saying("404 Not Found", "").await;
    let status = vec![(200, 200), (400, 410)];
    let report = app.probed(&over_http(HttpProbe { status, ..http() })).await;
    assert_found(&report, Health::Healthy, Some(404), "404");
}

#[tokio::test]
async fn a_redirect_is_named_and_not_followed() {
    let moved =
        "HTTP/1.1 301 Moved\r\nlocation: https://shop.example.com/healthz\r\ncontent-length: 0\r\n\r\n";
    let app = App::that(Does::Say(moved.into())).await;
    let report = app.probed(&over_http(http())).await;
    assert_found(
        &report,
        Health::Failing,
        Some(301),
        "answered 301 to https://shop.example.com/healthz, redirects are not followed",
    );
    assert_eq!(app.asked.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn nobody_listening_is_unreachable() {
    // Bound, so that nobody else gets the port, but not listening.
    let closed = TcpSocket::new_v4().unwrap();
    closed.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = closed.local_addr().unwrap();
    for kind in [Probe::Tcp, Probe::Http(Box::new(http()))] {
        let report = probe_once(&at(address), &settings(kind, PATIENT)).await;
        assert_found(&report, Health::Unreachable, None, "connection refused");
    }
}

#[tokio::test]
async fn an_open_port_is_enough_for_tcp() {
    let app = App::that(Does::Hang("")).await;
    let report = app.probed(&settings(Probe::Tcp, PATIENT)).await;
    assert_found(&report, Health::Healthy, None, "connected");
    assert_eq!(report.asked, format!("connect {}", app.address));
}

#[tokio::test]
async fn silence_after_the_connect_is_failing() {
    for said in ["", "HTTP/1.1 200 OK\r\nx-half: "] {
        let app = App::that(Does::Hang(said)).await;
        let report = app.probed(&settings(Probe::Http(Box::new(http())), SHORT)).await;
        assert_found(&report, Health::Failing, None, "no answer within 400ms");
    }
}

#[tokio::test]
async fn a_body_that_never_ends_is_failing() {
    let head = "HTTP/1.1 200 OK\r\ncontent-length: 9000000\r\n\r\n";
    for does in [Does::Hang(head), Does::Drip(head)] {
        let app = App::that(does).await;
        let report = app.probed(&settings(Probe::Http(Box::new(http())), SHORT)).await;
        let reason = "200, but its body did not end within 400ms";
        assert_found(&report, Health::Failing, Some(200), reason);
    }
}

#[tokio::test]
async fn a_wrong_status_is_told_although_its_body_never_ends() {
    let app = App::that(Does::Hang("HTTP/1.1 500 No\r\n\r\nstack trace")).await;
    let report = app.probed(&settings(Probe::Http(Box::new(http())), SHORT)).await;
    assert_found(&report, Health::Failing, Some(500), "500, body: stack trace");
}

#[tokio::test]
async fn floods_are_cut() {
    // A body: enough was read to know the status.
    let body = Does::Flood("HTTP/1.1 200 OK\r\n\r\n", "xxxxxxxx");
    let report = App::that(body.clone()).await.probed(&over_http(http())).await;
    assert_found(&report, Health::Healthy, Some(200), "200");
    let json = vec![("/ok".to_owned(), true.into())];
    let report = App::that(body)
        .await
        .probed(&over_http(HttpProbe { json, ..http() }))
        .await;
    let reason = "the body is longer than 64 KiB, so its JSON was not read";
    assert_found(&report, Health::Failing, Some(200), reason);

    let head = Does::Flood("HTTP/1.1 200 OK\r\n", "x-more: of it\r\n");
    let report = App::that(head).await.probed(&over_http(http())).await;
    assert_found(
        &report,
        Health::Failing,
        None,
        "the head of the answer is too large",
    );

    let interim = Does::Flood("", "HTTP/1.1 100 Continue\r\n\r\n");
    let report = App::that(interim)
        .await
        .probed(&settings(Probe::Http(Box::new(http())), SHORT))
        .await;
    assert_found(&report, Health::Failing, None, "no answer within 400ms");
}

#[tokio::test]
async fn garbage_and_torn_answers_are_failing() {
    let app = App::that(Does::Say("SSH-2.0-OpenSSH_9.9\r\n".into())).await;
    let report = app.probed(&over_http(http())).await;
    assert_eq!((report.verdict, report.status), (Health::Failing, None));
    assert!(
        report.reason.starts_with("the answer is not HTTP/1.1: "),
        "{}",
        report.reason
    );

    for torn in ["", "HTTP/1.1 200 OK\r\nx-half: "] {
        let app = App::that(Does::Say(torn.into())).await;
        let reason = "it closed the connection before the end of the answer";
        assert_found(
            &app.probed(&over_http(http())).await,
            Health::Failing,
            None,
            reason,
        );
    }
    let torn = "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nfive.";
    let app = App::that(Does::Say(torn.into())).await;
    let reason = "200, but it closed the connection before the end of the answer";
    assert_found(
        &app.probed(&over_http(http())).await,
        Health::Failing,
        Some(200),
        reason,
    );
}

#[tokio::test]
async fn json_conditions() {
    let page = r#"{"database":"lost","queue":{"depth":1.0},"workers":[{"up":true}]}"#;
    let app = App::saying("200 OK", page).await;
    let wanting = |pointer: &str, value: serde_json::Value| HttpProbe {
        json: vec![
            ("/workers/0/up".to_owned(), true.into()),
            (pointer.to_owned(), value),
        ],
        ..http()
    };
    for (pointer, value, reason) in [
        ("/queue/depth", 1.into(), None),
        ("/database", "lost".into(), None),
        (
            "/database",
            "connected".into(),
            Some(r#"JSON /database is "lost", wanted "connected""#),
        ),
        (
            "/queue/depth",
            2.into(),
            Some("JSON /queue/depth is 1.0, wanted 2"),
        ),
        ("/nothing", 0.into(), Some("JSON has no /nothing, wanted 0")),
    ] {
        let report = app.probed(&over_http(wanting(pointer, value))).await;
        match reason {
            None => assert_found(&report, Health::Healthy, Some(200), "200"),
            Some(reason) => assert_found(&report, Health::Failing, Some(200), reason),
        }
    }
    let app = App::saying("200 OK", "<html>login</html>").await;
    let report = app.probed(&over_http(wanting("/x", 1.into()))).await;
    assert_found(
        &report,
        Health::Failing,
        Some(200),
        "the body is not JSON: <html>login</html>",
    );
}

#[tokio::test]
async fn text_conditions() {
    let app = App::saying("200 OK", "state: ready\n").await;
    let wanting = |regex: &str| HttpProbe {
        body_regex: Some(regex::Regex::new(regex).unwrap()),
        ..http()
    };
    let report = app.probed(&over_http(wanting("state: (ready|busy)"))).await;
    assert_found(&report, Health::Healthy, Some(200), "200");
    let report = app.probed(&over_http(wanting("^ready$"))).await;
    assert_found(
        &report,
        Health::Failing,
        Some(200),
        "the body does not match `^ready$`: state: ready",
    );
}

#[tokio::test]
async fn a_long_foreign_text_makes_a_short_reason() {
    let app = App::saying("500 Oops", &"word\n".repeat(10_000)).await;
    let report = app.probed(&over_http(http())).await;
    assert!(
        report.reason.len() < 250 && !report.reason.contains('\n'),
        "{}",
        report.reason
    );
}

#[tokio::test]
async fn a_unix_socket_is_probed_like_a_port() {
    let dir = tempfile::tempdir().unwrap();
    let path: PathBuf = dir.path().join("app.sock");
    let endpoint = of(Target::Unix(path.clone()), Address::Unix(path.clone()));

    let report = probe_once(&endpoint, &over_http(http())).await;
    assert_found(&report, Health::Unreachable, None, "there is no such socket file");

    let listener = UnixListener::bind(&path).unwrap();
    let asked = Arc::<Mutex<Vec<String>>>::default();
    let log = Arc::clone(&asked);
    let does = Arc::new(Mutex::new(says("200 OK", "")));
    let app = OwnedTask::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            serve(stream, Arc::clone(&does), Arc::clone(&log)).await;
        }
    });
    let report = probe_once(&endpoint, &over_http(http())).await;
    assert_found(&report, Health::Healthy, Some(200), "200");
    assert_eq!(
        report.asked,
        format!("GET http://localhost/healthz?deep=1 over unix:{}", path.display())
    );
    let head = asked.lock().unwrap()[0].to_ascii_lowercase();
    assert!(head.contains("\r\nhost: localhost\r\n"), "{head}");
    drop(app);
}

#[tokio::test]
async fn a_probe_that_cannot_be_sent_says_so() {
    let app = App::saying("200 OK", "").await;
    for probe in [
        HttpProbe {
            headers: vec![("bad name".into(), "x".into())],
            ..http()
        },
        HttpProbe {
            host: "bad\nhost".into(),
            ..http()
        },
        HttpProbe {
            path: "/bad path".into(),
            ..http()
        },
    ] {
        let report = app.probed(&over_http(probe)).await;
        assert_eq!(report.verdict, Health::Failing);
        assert!(report.reason.contains("cannot be sent"), "{}", report.reason);
    }
}
