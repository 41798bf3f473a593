//! How connections and streams in HTTP/2 end: shutdown, silence, clients that take nothing, and the end of a drain.

use std::sync::Mutex;
use std::sync::mpsc::channel;

use h2::Reason;

use crate::harness::http2::{END_STREAM, H2, Lost, Outcome, Raw, get, kind, next};
use crate::harness::{Backend, Setup, ok, until};

/// Answers with the first half of 8 bytes, and with the second when told.
fn halves() -> (std::sync::mpsc::Sender<()>, Backend) {
    let (go, wait) = channel::<()>();
    let wait = Mutex::new(wait);
    let blue = Backend::script(move |wire, _| {
        while wire.request().is_some() {
            wire.send("HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\nhalf");
            if wait.lock().unwrap().recv().is_err() {
                return;
            }
            wire.send("half");
        }
    });
    (go, blue)
}

/// Sends for ever.
fn endless() -> Backend {
    Backend::script(|wire, _| {
        while let Some(request) = wire.request() {
            if request.target() == "/small" {
                wire.send(ok("small"));
                continue;
            }
            wire.send("HTTP/1.1 200 OK\r\ncontent-length: 400000000\r\n\r\n");
            while wire.try_send(&[b'x'; 64 * 1024]).is_ok() {}
            return;
        }
    })
}

#[test]
fn a_shutdown_says_goaway_and_finishes_what_runs() {
    let (go, blue) = halves();
    let mut proxy = Setup::new().grace("20s").blue(&blue, "").start();
    let mut client = H2::plain(proxy.address());
    let request = client.request("GET", "/");
    let open = client.open(request, false);
    let mut body = client.wait(open.answer).unwrap().into_body();
    assert_eq!(client.wait(next(&mut body)).unwrap().unwrap(), "half");
    let idle = H2::plain(proxy.address());
    proxy.begin_stop();
    assert!(idle.ended(), "an idle connection leaves at once, with GOAWAY");
    go.send(()).unwrap();
    assert_eq!(client.wait(next(&mut body)).unwrap().unwrap(), "half");
    assert_eq!(client.wait(next(&mut body)), Ok(None));
    assert!(client.ended());
    proxy.stop();
}

#[test]
fn a_shutdown_does_not_wait_for_ever() {
    let (_go, blue) = halves();
    let mut proxy = Setup::new().blue(&blue, "").start();
    let mut client = H2::plain(proxy.address());
    let request = client.request("GET", "/");
    let open = client.open(request, false);
    let mut body = client.wait(open.answer).unwrap().into_body();
    assert_eq!(client.wait(next(&mut body)).unwrap().unwrap(), "half");
    proxy.stop();
    assert!(client.wait(next(&mut body)).is_err(), "cut, and not for whole");
}

#[test]
fn a_connection_without_requests_ends_in_time() {
    let blue = Backend::blue();
    let proxy = Setup::new()
        .toml("[limits]\nclient_header_timeout = \"200ms\"\nclient_idle_timeout = \"400ms\"")
        .blue(&blue, "")
        .start();
    // Not one head, or half of one.
    assert!(H2::plain(proxy.address()).ended());
    let mut half = Raw::plain(proxy.address());
    half.send(kind::HEADERS, END_STREAM, 1, &[0x82]);
    let goaway = half.until(kind::GOAWAY, 0).expect("GOAWAY");
    assert_eq!(goaway.code(), 0);
    // After one: the time between two.
    let mut client = H2::plain(proxy.address());
    assert_eq!(client.get("/").text(), "blue");
    assert!(client.ended());
    until("none is left", || proxy.metric("cutover_connections", &[]) == 0.0);
}

#[test]
fn a_stream_whose_client_has_no_room_is_let_go_and_no_other() {
    let blue = endless();
    let proxy = Setup::new()
        .access_log()
        .toml("[limits]\nclient_idle_timeout = \"500ms\"")
        .blue(&blue, "")
        .start();
    let mut raw = Raw::plain(proxy.address());
    // SETTINGS_INITIAL_WINDOW_SIZE = 0.
    raw.send(kind::SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]);
    raw.head(1, END_STREAM, &get("/endless"));
    assert!(matches!(raw.outcome(1), Outcome::Reset(_)));
    until("the app is let go", || blue.open() == 0);
    raw.assert_alive();
    // An answer that has ended at the app holds nothing but some bytes.
    raw.head(3, END_STREAM, &get("/small"));
    assert!(raw.until(kind::HEADERS, 3).is_some());
}

#[test]
fn a_client_that_reads_nothing_at_all_is_let_go() {
    let blue = endless();
    let proxy = Setup::new()
        .toml("[limits]\nclient_idle_timeout = \"500ms\"")
        .blue(&blue, "")
        .start();
    let mut raw = Raw(proxy.client().small_window());
    raw.0.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    raw.send(kind::SETTINGS, 0, 0, &[0, 4, 0x7f, 0xff, 0xff, 0xff]);
    // WINDOW_UPDATE: as much as there can be.
    raw.send(8, 0, 0, &[0x7f, 0, 0, 0]);
    for stream in [1, 3, 5] {
        raw.head(stream, END_STREAM, &get("/endless"));
    }
    until("it is served", || blue.open() == 3);
    until("the app is let go", || blue.open() == 0);
    until("the connection is gone", || {
        proxy.metric("cutover_connections", &[]) == 0.0
    });
}

#[test]
fn the_end_of_a_drain_cuts_the_streams_of_that_color_alone() {
    let (_go, blue) = halves();
    let green = Backend::green();
    let proxy = Setup::new()
        .access_log()
        .colors(&blue, &green, "drain.http = \"300ms\"")
        .start_unready();
    let _ = proxy.app();
    let mut client = H2::plain(proxy.address());
    let request = client.request("GET", "/");
    let open = client.open(request, false);
    let mut body = client.wait(open.answer).unwrap().into_body();
    assert_eq!(client.wait(next(&mut body)).unwrap().unwrap(), "half");
    // One of the same color whose client has no room: it would not notice that its answer was cut.
    let mut full = Raw::plain(proxy.address());
    full.send(kind::SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0])
        .head(1, END_STREAM, &get("/full"));
    assert!(full.until(kind::HEADERS, 1).is_some());
    proxy
        .post("switch", serde_json::json!({ "to": "green", "force": true }))
        .done();
    assert_eq!(client.get("/").text(), "green", "over the same connection");
    assert!(matches!(
        client.wait(next(&mut body)),
        Err(Lost::Reset(Reason::INTERNAL_ERROR))
    ));
    assert!(matches!(full.outcome(1), Outcome::Reset(_)));
    let drained = proxy.get("/v1/apps/web/colors/blue/drained?wait=15s").done();
    assert_eq!(drained.json["drained"], true);
    assert_eq!(client.get("/").text(), "green", "the connection stays");
    full.assert_alive();
    let log = || std::fs::read_to_string(proxy.folder().join("access.log")).unwrap_or_default();
    until("both are logged", || {
        log().matches("drain time over").count() == 2
    });
}
