//! Upstreams that refuse, hang, reset, answer garbage, stop in mid-body or never read: the client gets the right
//! status or a cut it can see, in time, and the next client is unharmed.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use crate::backend::{Backend, read_request};
use crate::figures::alone;
use crate::ports;
use crate::server::{Server, Site};
use crate::wire::{Broken, Client, Response, request};

/// A service `/bad` on the faulty upstream beside a good one at `/`. Timeouts are short, so that the test is.
struct Bench {
    site: Site,
    _good: Backend,
    server: Server,
}

impl Bench {
    fn with(bad: &str) -> Self {
        let good = Backend::says("blue");
        let site = Site::new(&format!(
            r#"
[app.web]
initial = "blue"

[app.web.timeouts]
connect = "500ms"
first_byte = "700ms"
idle = "700ms"

[app.web.service.good]
path_prefix = "/"
blue = ["{}"]

[app.web.service.bad]
path_prefix = "/bad"
blue = ["{bad}"]
"#,
            good.address
        ));
        let server = site.run();
        Self {
            site,
            _good: good,
            server,
        }
    }

    /// One request to the faulty upstream on a connection of its own.
    fn ask(&self, bytes: &[u8]) -> Result<Response, Broken> {
        self.site.client().exchange(bytes)
    }

    fn ask_get(&self) -> Result<Response, Broken> {
        self.ask(&request("GET", "/bad/x", &[], None))
    }

    /// The same client goes on where its connection still stands, another one always.
    fn assert_others_unharmed(self) {
        let mut other = self.site.client();
        for _ in 0..3 {
            let answer = other.get("/fine").expect("the next client's answer");
            assert_eq!(answer.status, 200);
            assert_eq!(answer.json()["path"], "/fine");
        }
        // An open connection would make the shutdown linger.
        drop(other);
        self.server.stop();
    }
}

#[track_caller]
fn status(answer: Result<Response, Broken>, wanted: &[u16]) -> Response {
    let answer = answer.unwrap_or_else(|broken| panic!("no status: {broken}"));
    assert!(
        wanted.contains(&answer.status),
        "{} is none of {wanted:?}: {:?}",
        answer.status,
        answer.text()
    );
    assert!(answer.body.len() < 2000, "a short page: {:?}", answer.text());
    answer
}

#[track_caller]
fn in_time(what: impl FnOnce()) {
    let started = Instant::now();
    what();
    assert!(
        started.elapsed() < Duration::from_secs(10),
        "it took {:?}",
        started.elapsed()
    );
}

#[test]
fn a_refusing_upstream_is_502_or_503() {
    let _machine = alone();
    let bench = Bench::with(&format!("127.0.0.1:{}", ports::free()));
    for _ in 0..3 {
        in_time(|| drop(status(bench.ask_get(), &[502, 503])));
        in_time(|| {
            drop(status(
                bench.ask(&request("POST", "/bad/x", &[], Some(b"body"))),
                &[502, 503],
            ))
        });
    }
    bench.assert_others_unharmed();
}

#[test]
fn a_hanging_upstream_is_504() {
    let _machine = alone();
    let silent = Backend::does(|mut stream| {
        let _ = std::io::copy(&mut stream, &mut std::io::sink());
    });
    let bench = Bench::with(&silent.address.to_string());
    in_time(|| drop(status(bench.ask_get(), &[504])));
    in_time(|| {
        drop(status(
            bench.ask(&request("POST", "/bad/x", &[], Some(b"body"))),
            &[504],
        ))
    });
    bench.assert_others_unharmed();
}

#[test]
fn forty_hanging_requests_hinder_nobody_else() {
    let _machine = alone();
    let silent = Backend::does(|mut stream| {
        let _ = std::io::copy(&mut stream, &mut std::io::sink());
    });
    let bench = Bench::with(&silent.address.to_string());
    let address = bench.site.address();
    let hanging: Vec<_> = (0..40)
        .map(|_| {
            std::thread::spawn(move || {
                Client::connect(address)
                    .expect("connect")
                    .exchange(&request("GET", "/bad/x", &[], None))
            })
        })
        .collect();
    let mut other = bench.site.client();
    let mut slowest = Duration::ZERO;
    for _ in 0..50 {
        let started = Instant::now();
        assert_eq!(other.get("/fine").expect("an answer").status, 200);
        slowest = slowest.max(started.elapsed());
    }
    assert!(
        slowest < Duration::from_millis(600),
        "a good request took {slowest:?} beside hanging ones"
    );
    for one in hanging {
        status(one.join().unwrap(), &[504]);
    }
    bench.assert_others_unharmed();
}

#[test]
fn a_resetting_upstream_is_502() {
    let _machine = alone();
    for after_head in [false, true] {
        let resets = Backend::does(move |mut stream| {
            if after_head {
                let _ = read_request(&mut stream, &mut Vec::new());
            }
            // Linger 0: the close is a reset.
            let _ = socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO));
        });
        let bench = Bench::with(&resets.address.to_string());
        in_time(|| drop(status(bench.ask_get(), &[502, 503])));
        in_time(|| {
            drop(status(
                bench.ask(&request("POST", "/bad/x", &[], Some(b"body"))),
                &[502, 503],
            ))
        });
        bench.assert_others_unharmed();
    }
}

#[test]
fn garbage_instead_of_an_answer_is_502() {
    let _machine = alone();
    const GARBAGE: [&[u8]; 8] = [
        b"\x00\xff\x13\x37 nothing of the kind\r\n\r\n",
        b"HTTP/1.1 abc OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon here\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: many\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nhalf a hea",
        b"SSH-2.0-OpenSSH_9.2p1\r\n",
        b"",
    ];
    for garbage in GARBAGE {
        let talks = Backend::does(move |mut stream| {
            if read_request(&mut stream, &mut Vec::new()).is_some() {
                let _ = stream.write_all(garbage);
                let _ = stream.shutdown(Shutdown::Both);
            }
        });
        let bench = Bench::with(&talks.address.to_string());
        in_time(|| {
            let answer = bench.ask_get();
            let answer =
                answer.unwrap_or_else(|broken| panic!("{:?}: {broken}", String::from_utf8_lossy(garbage)));
            assert!(
                matches!(answer.status, 502 | 503),
                "{:?}: {}",
                String::from_utf8_lossy(garbage),
                answer.status
            );
        });
        bench.assert_others_unharmed();
    }
}

#[test]
fn an_answer_cut_by_the_upstream_is_cut_for_the_client() {
    let _machine = alone();
    const CUT: [&[u8]; 4] = [
        b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\nonly this",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n9\r\nonly this\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n9\r\nonly",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n9\r\nonly this\r\nzz\r\n",
    ];
    for cut in CUT {
        for silence in [false, true] {
            let talks = Backend::does(move |mut stream| {
                if read_request(&mut stream, &mut Vec::new()).is_some() {
                    let _ = stream.write_all(cut);
                    if silence {
                        // Stays open and says nothing more: the idle timeout must cut it.
                        let _ = std::io::copy(&mut stream, &mut std::io::sink());
                    } else {
                        let _ = stream.shutdown(Shutdown::Both);
                    }
                }
            });
            let bench = Bench::with(&talks.address.to_string());
            in_time(|| {
                let answer = bench.ask_get();
                let text = String::from_utf8_lossy(cut);
                match answer {
                    Err(Broken::Cut { .. }) => {}
                    // Seen before the head went out: a clean error is as good.
                    Ok(answer) if matches!(answer.status, 502 | 504) => {}
                    other => panic!("passed on as whole, or hung ({text:?}, silence {silence}): {other:?}"),
                }
            });
            bench.assert_others_unharmed();
        }
    }
}

#[test]
fn an_upstream_that_never_reads_does_not_fill_the_memory() {
    let _machine = alone();
    let stuck = Backend::does(|stream| {
        // Holds the connection without reading; the test is over long before.
        std::thread::sleep(Duration::from_secs(60));
        drop(stream);
    });
    let bench = Bench::with(&stuck.address.to_string());
    let before = bench.server.resident_kib();
    let mut stream = TcpStream::connect(bench.site.address()).expect("connect");
    stream.set_write_timeout(Some(Duration::from_secs(2))).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream
        .write_all(b"POST /bad/x HTTP/1.1\r\nHost: test\r\nContent-Length: 268435456\r\n\r\n")
        .unwrap();
    let block = vec![b'x'; 256 * 1024];
    let mut sent = 0_u64;
    while sent < 256 * 1024 * 1024 {
        match stream.write(&block) {
            Ok(length) => sent += length as u64,
            Err(_) => break,
        }
    }
    assert!(
        sent < 64 * 1024 * 1024,
        "{sent} bytes were taken although nobody reads them"
    );
    let grown = bench.server.resident_kib().saturating_sub(before);
    assert!(
        grown < 32 * 1024,
        "{grown} KiB more while an upstream does not read"
    );
    // An answer (504, 408, 502) or a close, but an end.
    let started = Instant::now();
    let mut said = [0; 64];
    let end = stream.read(&mut said);
    assert!(
        started.elapsed() < Duration::from_secs(19),
        "the client hangs: {end:?}"
    );
    if let Ok(length @ 12..) = end {
        let text = String::from_utf8_lossy(&said[..length]).into_owned();
        assert!(
            ["504", "408", "502"].iter().any(|status| text.contains(status)),
            "{text:?}"
        );
    }
    bench.assert_others_unharmed();
}

#[test]
fn left_over_bytes_of_one_answer_never_reach_the_next_client() {
    let _machine = alone();
    let chatty = Backend::does(|mut stream| {
        let mut ahead = Vec::new();
        while read_request(&mut stream, &mut ahead).is_some() {
            let extra = "HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\npoison";
            if stream
                .write_all(format!("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok{extra}").as_bytes())
                .is_err()
            {
                return;
            }
        }
    });
    let bench = Bench::with(&chatty.address.to_string());
    for round in 0..50 {
        let mut client = bench.site.client();
        let answer = client.get("/bad/x").expect("an answer");
        assert_eq!(
            (answer.status, answer.text().as_str()),
            (200, "ok"),
            "round {round}"
        );
    }
    bench.assert_others_unharmed();
}

#[test]
fn a_post_is_never_sent_twice() {
    let _machine = alone();
    let seen = std::sync::Arc::new(std::sync::Mutex::new(Vec::<String>::new()));
    let into = std::sync::Arc::clone(&seen);
    // Answers the first request of a connection, and closes on the second after it has read it.
    let closing = Backend::does(move |mut stream| {
        let mut ahead = Vec::new();
        for turn in 0.. {
            let Some(request) = read_request(&mut stream, &mut ahead) else {
                return;
            };
            into.lock()
                .unwrap()
                .push(format!("{} {}", request.method, request.target));
            if turn == 1 {
                let _ = stream.shutdown(Shutdown::Both);
                return;
            }
            if stream
                .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
                .is_err()
            {
                return;
            }
        }
    });
    let bench = Bench::with(&closing.address.to_string());
    let mut client = bench.site.client();
    for number in 0..60 {
        let answer = client
            .exchange(&request(
                "POST",
                &format!("/bad/{number}"),
                &[],
                Some(b"pay once"),
            ))
            .expect("an answer");
        assert!(matches!(answer.status, 200 | 502), "{}", answer.status);
        if answer.close {
            client = bench.site.client();
        }
    }
    let mut arrived = seen.lock().unwrap().clone();
    let before = arrived.len();
    arrived.sort();
    arrived.dedup();
    assert_eq!(arrived.len(), before, "some POST arrived twice");
    bench.assert_others_unharmed();
}
