//! What a request on kept connections allocates, counted: a guard that does not depend on time.
//!
//! The whole proxy runs in this process; app and client use buffers of their own and allocate nothing meanwhile.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test panics to fail, and prints its figures"
)]

use std::alloc::System;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use cutover::app::{App, Source, Until};
use cutover::config::{self, ListenAddress};
use cutover::shutdown;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Allocations and reallocations of one `GET` and its answer. Fewer: lower it. More: say in the commit what for.
const BASELINE: f64 = 7.0;
/// The control plane works beside: probes, windows, ticks.
const TOLERANCE: f64 = 0.5;

const REQUEST: &[u8] =
    b"GET /some/page?with=query HTTP/1.1\r\nHost: shop.example.com\r\nUser-Agent: test/1.0\r\n\
    Accept: */*\r\nAccept-Encoding: gzip\r\nCookie: session=0123456789abcdef\r\n\r\n";
const ANSWER: &[u8] =
    b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 12\r\n\r\nhello, world";

/// Answer each read with one answer: heads are small and come whole.
fn app() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            std::thread::spawn(move || {
                let mut buffer = [0; 4096];
                while stream.read(&mut buffer).is_ok_and(|count| count > 0) {
                    if stream.write_all(ANSWER).is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

fn ask(client: &mut TcpStream, times: usize) {
    let mut buffer = [0; 4096];
    for _ in 0..times {
        client.write_all(REQUEST).unwrap();
        let mut count = 0;
        while !buffer[..count].ends_with(b"hello, world") {
            let more = client.read(&mut buffer[count..]).unwrap();
            assert_ne!(more, 0, "the proxy closed the connection");
            count += more;
        }
        assert!(buffer.starts_with(b"HTTP/1.1 200 "), "not the app's answer");
    }
}

#[test]
fn a_request_allocates_no_more_than_it_did() {
    let folder = tempfile::tempdir().unwrap();
    let (blue, green) = (app(), app());
    let text = format!(
        "[server]\nworkers = 1\nstate_dir = \"{}\"\n[log]\naccess = \"off\"\n[[listener]]\naddress = \"127.0.0.1:0\"\n\
         [app.web]\ninitial = \"blue\"\nblue = [\"{blue}\"]\ngreen = [\"{green}\"]\nhealth.path = \"/healthz\"\n",
        folder.path().join("state").display()
    );
    let config = config::parse(&text, "test.toml", &|_| None).unwrap_or_else(|wrong| panic!("{wrong}"));
    let app = App::bind(Source { config, file: None }, None).unwrap();
    let ListenAddress::Tcp(address) = app.addresses()[0].clone() else {
        panic!("a TCP listener was asked for")
    };
    let (stop, watcher) = shutdown::channel();
    let running = std::thread::spawn(move || app.run(Until::Told(watcher)).unwrap());

    let mut client = TcpStream::connect(address).unwrap();
    client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    ask(&mut client, 500);
    // The least of several: what the control plane does is in some of them.
    let (mut least, begun) = (f64::MAX, Instant::now());
    for _ in 0..20 {
        let region = Region::new(ALLOCATOR);
        ask(&mut client, 500);
        let counted = region.change();
        let each = (counted.allocations + counted.reallocations) as f64 / 500.0;
        least = least.min(each);
    }
    eprintln!(
        "{least:.2} allocations a request; 10,000 requests in {:?}",
        begun.elapsed()
    );
    assert!(
        least <= BASELINE + TOLERANCE,
        "{least:.2} allocations a request; the baseline is {BASELINE}"
    );
    drop(client);
    stop.request();
    running.join().unwrap();
}
