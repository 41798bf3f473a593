//! Apps that refuse, hang, reset, lie, and hang up between two requests.

use std::sync::Mutex;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use crate::harness::{Backend, Broken, Proxy, Setup, Wire, ok, until};

const SHORT: Duration = Duration::from_millis(300);

/// Probes so seldom that the first one is the only one: requests find out by themselves.
fn unwatched(blue: &Backend, lines: &str) -> Proxy {
    Setup::new()
        .blue(blue, &format!("health.interval = \"1h\"\n{lines}"))
        .start()
}

#[test]
fn an_app_that_refuses_is_502_and_then_503_once_the_probes_know() {
    let blue = Backend::blue();
    let proxy = Setup::new()
        .blue(
            &blue,
            "health.interval = \"50ms\"\nhealth.rise = 1\nhealth.fall = 1",
        )
        .start();
    assert_eq!(proxy.says(), "blue");
    let address = blue.address().parse().unwrap();
    blue.stop_and_wait();
    let answer = proxy.fetch("/");
    assert!([502, 503].contains(&answer.status()), "{answer:?}");
    until("503", || proxy.fetch("/").status() == 503);
    let answer = proxy.fetch("/");
    assert_eq!(answer.field("retry-after"), Some("1"));
    assert_eq!(answer.field("content-type"), Some("text/plain; charset=utf-8"));
    assert_eq!(proxy.get("/readyz").status, 503);
    // It comes back, and so does the service.
    let _blue = Backend::at(address, |wire, _| {
        while wire.request().is_some() {
            wire.send(ok("back"));
        }
    });
    until("it is back", || proxy.says() == "back");
}

#[test]
fn an_app_that_refuses_is_502() {
    let blue = Backend::blue();
    let proxy = unwatched(&blue, "");
    blue.stop_and_wait();
    for _ in 0..3 {
        let mut client = proxy.client();
        assert_eq!(client.get("/").status(), 502);
        assert_eq!(client.get("/").status(), 502, "the client's connection goes on");
    }
    assert!(proxy.metric("cutover_upstream_connect_errors_total", &["blue"]) >= 6.0);
}

#[test]
fn an_endpoint_that_refuses_costs_nothing_while_there_is_another() {
    let (dead, alive) = (Backend::blue(), Backend::says("alive"));
    let proxy = Setup::new()
        .toml(&format!(
            "[app.web]\ninitial = \"blue\"\nblue = [\"{}\", \"{}\"]\nhealth.interval = \"1h\"",
            dead.address(),
            alive.address()
        ))
        .start();
    dead.stop_and_wait();
    let mut client = proxy.client();
    for n in 0..20 {
        assert_eq!(client.get(&format!("/{n}")).text(), "alive");
        assert_eq!(client.post(&format!("/{n}"), "body").text(), "alive");
    }
    assert_eq!(alive.requests().len(), 40, "each exactly once");
}

#[test]
fn an_app_that_never_answers_is_504() {
    let blue = Backend::script(|wire, _| {
        wire.request();
        wire.rest();
    });
    let proxy = unwatched(&blue, "timeouts.first_byte = \"300ms\"");
    let mut client = proxy.client();
    for _ in 0..2 {
        let begun = Instant::now();
        assert_eq!(client.get("/").status(), 504);
        assert!(begun.elapsed() >= SHORT - Duration::from_millis(50));
        assert_eq!(client.post("/", "body").status(), 504);
    }
    until("the app was let go", || blue.open() == 0);
}

#[test]
fn hanging_requests_do_not_disturb_others() {
    let blue = Backend::script(|wire, _| {
        while let Some(request) = wire.request() {
            if request.target() == "/hang" {
                wire.rest();
                return;
            }
            wire.send(ok("blue"));
        }
    });
    let proxy = unwatched(&blue, "");
    let hanging: Vec<Wire> = (0..60)
        .map(|_| {
            let mut client = proxy.client();
            client.send("GET /hang HTTP/1.1\r\nHost: a\r\n\r\n");
            client
        })
        .collect();
    until("all hang", || {
        proxy.metric("cutover_requests_in_flight", &["blue"]) >= 60.0
    });
    for _ in 0..20 {
        assert_eq!(proxy.says(), "blue");
    }
    hanging.into_iter().for_each(Wire::reset);
    until("all are forgotten", || {
        proxy.metric("cutover_requests_in_flight", &[]) == 0.0
    });
}

#[test]
fn an_app_that_ends_before_its_head_is_502() {
    for half in ["", "HTTP/1.1 200", "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n"] {
        for reset in [true, false] {
            let blue = Backend::script(move |wire, _| {
                wire.request();
                wire.send(half);
                if reset {
                    wire.reset_now();
                }
            });
            let proxy = unwatched(&blue, "");
            let mut client = proxy.client();
            assert_eq!(client.get("/").status(), 502, "{half:?} {reset}");
            assert_eq!(client.post("/", "body").status(), 502, "{half:?} {reset}");
            let methods: Vec<_> = blue
                .requests()
                .iter()
                .map(|request| request.method().to_owned())
                .collect();
            assert_eq!(
                methods,
                ["GET", "GET", "POST"],
                "what may be repeated is tried twice"
            );
        }
    }
}

#[test]
fn garbage_is_502_and_the_next_client_is_unhurt() {
    for garbage in [
        "garbage\r\n\r\n",
        "\0\0\0\0\r\n\r\n",
        "HTTP/1.1\r\n\r\n",
        "HTTP/9.9 200 OK\r\n\r\n",
        "HTTP/1.1 20 OK\r\n\r\n",
        "HTTP/1.1 2000 OK\r\n\r\n",
        "HTTP/1.1 abc OK\r\n\r\n",
        "HTTP/1.1 099 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        "HTTP/1.1 200 OK\r\n: empty\r\n\r\n",
        "HTTP/1.1 200 OK\r\nna me: x\r\n\r\n",
        "HTTP/1.1 200 OK\r\nx: a\0b\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: +4\r\n\r\nblue",
        "HTTP/1.1 200 OK\r\ncontent-length: 4x\r\n\r\nblue",
        "HTTP/1.1 200 OK\r\ncontent-length: 99999999999999999999\r\n\r\nblue",
        "HTTP/1.1 200 OK\r\ncontent-length: 4\r\ncontent-length: 5\r\n\r\nblue",
        "SSH-2.0-OpenSSH\r\n",
        "HTTP/2.0 200\r\n\r\n",
        "\u{16}\u{3}\u{1}\0\u{5}hello",
    ] {
        let blue = Backend::script(move |wire, number| {
            while wire.request().is_some() {
                if number == 0 {
                    wire.send(garbage);
                    return;
                }
                wire.send(ok("blue"));
            }
        });
        let proxy = unwatched(&blue, "");
        let mut client = proxy.client();
        assert_eq!(client.get("/").status(), 502, "{garbage:?}");
        assert_eq!(client.get("/").text(), "blue", "{garbage:?}");
    }
}

#[test]
fn an_answer_framed_twice_is_never_passed_on_as_such() {
    for answer in [
        "HTTP/1.1 200 OK\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n\r\n4\r\nblue\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-length: 40\r\n\r\n4\r\nblue\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 4\r\ncontent-length: 4\r\n\r\nblue",
    ] {
        let blue = Backend::answers(answer);
        let proxy = unwatched(&blue, "");
        let got = proxy.fetch("/");
        assert!(
            got.status() == 502 || got.text() == "blue",
            "{answer:?} became {got:?}"
        );
        let framings = got.all("content-length").len() + got.all("transfer-encoding").len();
        assert_eq!(framings, 1, "{got:?}");
    }
}

#[test]
fn what_comes_after_an_answer_is_nobodys_answer() {
    for extra in [
        "HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\npoison",
        "extra bytes",
        "\r\n",
    ] {
        let blue = Backend::script(move |wire, _| {
            while let Some(request) = wire.request() {
                wire.send([ok(request.target()), extra.as_bytes().to_vec()].concat());
            }
        });
        let proxy = unwatched(&blue, "");
        let mut clients: Vec<Wire> = (0..4).map(|_| proxy.client()).collect();
        for n in 0..20 {
            let target = format!("/{n}");
            let answer = clients[n % 4].get(&target);
            assert_eq!(answer.text(), target, "after {extra:?}");
        }
    }
}

#[test]
fn an_answer_that_comes_while_nobody_asked_is_nobodys_answer() {
    let (go, wait) = channel::<()>();
    let (said, says) = channel::<()>();
    let both = Mutex::new((wait, said));
    let blue = Backend::script(move |wire, number| {
        wire.request();
        wire.send(ok("blue"));
        if number == 0 {
            let both = both.lock().unwrap();
            both.0.recv().unwrap();
            wire.send("HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\npoison");
            both.1.send(()).unwrap();
        }
        while wire.request().is_some() {
            wire.send(ok("blue"));
        }
    });
    let proxy = unwatched(&blue, "");
    let mut client = proxy.client();
    assert_eq!(client.get("/").text(), "blue");
    go.send(()).unwrap();
    says.recv().unwrap();
    for _ in 0..5 {
        assert_eq!(client.get("/").text(), "blue");
        assert_eq!(client.post("/", "body").text(), "blue");
    }
}

#[test]
fn a_body_where_none_may_be_is_nobodys_answer() {
    for answer in [
        "HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\npoison",
        "HTTP/1.1 204 No Content\r\n\r\npoison",
        "HTTP/1.1 304 Not Modified\r\ncontent-length: 6\r\n\r\npoison",
    ] {
        let blue = Backend::script(move |wire, _| {
            while let Some(request) = wire.request() {
                match request.target() {
                    "/bad" => wire.send(answer),
                    _ => wire.send(ok("blue")),
                };
            }
        });
        let proxy = unwatched(&blue, "");
        let mut client = proxy.client();
        for _ in 0..5 {
            let bad = client.ask("HEAD /bad HTTP/1.1\r\nHost: a\r\n\r\n");
            assert!([200, 204, 304].contains(&bad.status()));
            assert_eq!(client.get("/").text(), "blue", "{answer:?}");
        }
    }
}

#[test]
fn a_body_that_stops_coming_is_cut() {
    for half in [
        "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n",
    ] {
        let blue = Backend::script(move |wire, _| {
            wire.request();
            wire.send(half);
            wire.rest();
        });
        let proxy = unwatched(&blue, "timeouts.idle = \"300ms\"");
        let mut client = proxy.client();
        let begun = Instant::now();
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        match client.try_answer() {
            Err(Broken::Cut(cut)) => assert_eq!(cut.text(), "half"),
            other => panic!("{other:?}"),
        }
        assert!(begun.elapsed() >= SHORT - Duration::from_millis(50));
        until("the app was let go", || blue.open() == 0);
    }
}

#[test]
fn a_body_that_drips_arrives_whole() {
    let blue = Backend::script(|wire, _| {
        wire.request();
        wire.send("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n");
        for byte in b"drip drip." {
            std::thread::sleep(Duration::from_millis(60));
            wire.send([*byte]);
        }
    });
    let proxy = unwatched(
        &blue,
        "timeouts.idle = \"500ms\"\ntimeouts.first_byte = \"500ms\"",
    );
    assert_eq!(proxy.fetch("/").text(), "drip drip.");
}

#[test]
fn an_app_that_never_reads_is_504_and_memory_stays_flat() {
    let (done, wait) = channel::<()>();
    let wait = Mutex::new(wait);
    let blue = Backend::script(move |wire, _| {
        wire.request_head();
        // Neither reads on nor ends, until the test does.
        let _ = wait.lock().unwrap().recv();
    });
    let proxy = unwatched(&blue, "timeouts.first_byte = \"500ms\"");
    let mut client = proxy.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000000\r\n\r\n");
    let block = vec![b'x'; 64 * 1024];
    let taken = std::thread::scope(|scope| {
        let sending = scope.spawn(|| (0..3_000).take_while(|_| client.try_send(&block).is_ok()).count());
        // The request ends although its app does not: the claim is released, and a drain could end.
        until("it is counted", || {
            proxy.metric("cutover_requests_total", &["504"]) == 1.0
        });
        assert_eq!(proxy.metric("cutover_requests_in_flight", &[]), 0.0);
        sending.join().unwrap()
    });
    assert!(taken < 1_000, "{taken} blocks were taken");
    // It had sent on when the answer came, so the answer may have been lost to the reset that followed.
    if let Ok(answer) = client.try_answer() {
        assert_eq!(answer.status(), 504);
    }
    drop(done);
}

/// Serves one request a connection and ends it afterwards: every pooled connection is stale.
fn one_each() -> Backend {
    Backend::script(|wire, _| {
        if let Some(request) = wire.request() {
            wire.send(ok(request.target()));
        }
    })
}

#[test]
fn a_connection_closed_while_idle_costs_no_request() {
    let blue = one_each();
    let proxy = unwatched(&blue, "");
    let mut clients: Vec<Wire> = (0..4).map(|_| proxy.client()).collect();
    let mut expected = 0;
    for n in 0..100 {
        let client = &mut clients[n % 4];
        let target = format!("/{n}");
        let answer = match n % 3 {
            0 => client.get(&target),
            1 => client.post(&target, "body"),
            _ => client.ask(format!(
                "POST {target} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n"
            )),
        };
        expected += 1;
        assert_eq!((answer.status(), answer.text()), (200, target));
        // An app that ends after its answer without a word of warning can always be too late for the next request.
        // One that has ended by then costs nothing, whether or not the event loop has heard of it.
        until("the app has ended the connection", || blue.ended() == expected);
    }
    let mut targets: Vec<_> = blue
        .requests()
        .iter()
        .map(|request| request.target().to_owned())
        .collect();
    targets.sort_unstable();
    targets.dedup();
    assert_eq!(
        (targets.len(), blue.requests().len()),
        (expected, expected),
        "each exactly once"
    );
}

#[test]
fn a_connection_that_is_reset_as_the_request_arrives_never_repeats_a_post() {
    // The worst moment: the pooled connection dies while the next request is on it.
    let blue = Backend::script(|wire, number| {
        wire.request();
        wire.send(ok("blue"));
        if number == 0 && wire.request().is_some() {
            wire.reset_now();
            return;
        }
        while wire.request().is_some() {
            wire.send(ok("blue"));
        }
    });
    let proxy = unwatched(&blue, "");
    let mut client = proxy.client();
    assert_eq!(client.get("/").text(), "blue");
    assert_eq!(client.post("/once", "body").status(), 502);
    let posts = blue
        .requests()
        .iter()
        .filter(|request| request.method() == "POST")
        .count();
    assert_eq!(posts, 1);
    assert_eq!(client.post("/again", "body").text(), "blue");
}

#[test]
fn idle_connections_are_given_up_in_time() {
    let blue = Backend::blue();
    let proxy = unwatched(&blue, "timeouts.upstream_idle = \"200ms\"");
    assert_eq!(proxy.says(), "blue");
    assert_eq!(blue.open(), 1);
    until("it is closed", || blue.open() == 0);
    assert_eq!(proxy.says(), "blue");
    assert_eq!(blue.connections(), 2);
}

#[test]
fn a_get_right_after_the_app_ended_the_connection_is_served() {
    let blue = one_each();
    let proxy = unwatched(&blue, "");
    let mut clients: Vec<Wire> = (0..4).map(|_| proxy.client()).collect();
    for n in 0..2_000 {
        let target = format!("/{n}");
        let answer = clients[n % 4].get(&target);
        assert_eq!((answer.status(), answer.text()), (200, target));
        // No sleep: the time in which a connection is taken without a look is what this is about.
        while blue.ended() <= n {
            std::hint::spin_loop();
        }
    }
    assert_eq!(blue.requests().len(), 2_000);
}
