//! Bodies: both framings both ways, trailers, streamed and never gathered, early answers, clients that go away.

use std::sync::Mutex;
use std::sync::mpsc::channel;
use std::time::Duration;

use crate::harness::{Backend, Broken, Proxy, Setup, ok, until};

#[test]
fn a_chunked_answer_arrives_chunked_and_whole() {
    let blue = Backend::handler(|_| {
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n\
          4;name=value\r\nblue\r\n0003\r\n is\r\nA\r\n the color\r\n0\r\n\r\n"
            .to_vec()
    });
    let proxy = Proxy::before(&blue);
    let mut client = proxy.client();
    for _ in 0..3 {
        let answer = client.get("/");
        assert_eq!(answer.text(), "blue is the color");
        assert_eq!(answer.field("transfer-encoding"), Some("chunked"));
        assert_eq!(answer.field("content-length"), None);
    }
    assert_eq!(blue.connections(), 1);
}

#[test]
fn a_chunked_request_arrives_chunked_and_whole() {
    let blue = Backend::blue();
    let proxy = Proxy::before(&blue);
    let mut client = proxy.client();
    for _ in 0..3 {
        let answer = client.ask(
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\
             4;x=\"y\"\r\nbody\r\n05\r\n of a\r\n0\r\n\r\n",
        );
        assert_eq!(answer.text(), "blue");
    }
    for request in blue.requests() {
        assert_eq!(request.text(), "body of a");
        assert_eq!(request.field("transfer-encoding"), Some("chunked"));
        assert_eq!(request.field("content-length"), None);
    }
    assert_eq!(blue.connections(), 1);
}

#[test]
fn thousands_of_one_byte_chunks_arrive_whole_both_ways() {
    const BYTES: usize = 5_000;
    let chunked = |body: &str| {
        let chunks: String = body.chars().map(|byte| format!("1\r\n{byte}\r\n")).collect();
        format!("{chunks}0\r\n\r\n")
    };
    let blue = Backend::handler(move |request| {
        let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
        format!("{head}{}", chunked(&request.text())).into_bytes()
    });
    let proxy = Proxy::before(&blue);
    let body: String = (0..BYTES).map(|at| char::from(b'a' + (at % 26) as u8)).collect();
    let head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    let answer = proxy.client().ask(format!("{head}{}", chunked(&body)));
    assert!(answer.text() == body, "{} bytes came back", answer.text().len());
}

#[test]
fn sized_bodies_keep_their_size() {
    let blue = Backend::handler(|request| ok(&request.text()));
    let proxy = Proxy::before(&blue);
    let mut client = proxy.client();
    for size in [0, 1, 4_096, 8_192, 65_536, 1_000_000, 3_000_000] {
        let body = "x".repeat(size);
        let answer = client.post("/", &body);
        assert_eq!(answer.field("content-length"), Some(size.to_string().as_str()));
        assert!(answer.text() == body, "{size} bytes came back changed");
    }
    for request in blue.requests() {
        assert_eq!(request.field("transfer-encoding"), None);
        assert_eq!(
            request.field("content-length"),
            Some(request.body.len().to_string().as_str())
        );
    }
}

#[test]
fn an_answer_that_ends_with_its_connection_is_framed_for_the_client() {
    let blue = Backend::answers("HTTP/1.1 200 OK\r\n\r\nblue until the end");
    let proxy = Proxy::before(&blue);
    let mut client = proxy.client();
    for _ in 0..2 {
        let answer = client.get("/");
        assert_eq!(answer.text(), "blue until the end");
        assert_eq!(answer.field("transfer-encoding"), Some("chunked"));
    }
}

#[test]
fn declared_trailers_pass_both_ways() {
    let blue = Backend::handler(|_| {
        b"HTTP/1.1 200 OK\r\ntrailer: x-sum\r\ntransfer-encoding: chunked\r\n\r\n\
          4\r\nblue\r\n0\r\nx-sum: 42\r\n\r\n"
            .to_vec()
    });
    let proxy = Proxy::before(&blue);
    let mut client = proxy.client();
    let answer = client.ask(
        "POST / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: TE\r\nTrailer: x-check\r\n\
         Transfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\nx-check: 7\r\n\r\n",
    );
    assert_eq!(answer.text(), "blue");
    assert_eq!(answer.trailers, [("x-sum".to_owned(), "42".to_owned())]);
    let request = blue.request();
    assert_eq!(request.trailers, [("x-check".to_owned(), "7".to_owned())]);
    assert_eq!(request.field("te"), Some("trailers"));

    // Trailers are where servers disagree about the end of a request: nothing follows on the connection.
    assert_eq!(answer.field("connection"), Some("close"));
    client.assert_closed();

    // A client that takes no trailers gets the same body without them.
    let answer = proxy.fetch("/");
    assert_eq!((answer.text().as_str(), answer.trailers.len()), ("blue", 0));
}

#[test]
fn trailers_are_never_merged_into_the_head() {
    let blue = Backend::blue();
    let proxy = Proxy::before(&blue);
    let answer = proxy.client().ask(
        "POST / HTTP/1.1\r\nHost: a\r\nTrailer: content-length, host, transfer-encoding, x-forwarded-for\r\n\
         Transfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\ncontent-length: 9\r\nhost: evil\r\n\
         transfer-encoding: gzip\r\nx-forwarded-for: 6.6.6.6\r\n\r\n",
    );
    assert_eq!(answer.text(), "blue");
    let request = blue.request();
    assert_eq!(
        (request.field("host"), request.text().as_str()),
        (Some("a"), "body")
    );
    assert_eq!(request.field("x-forwarded-for"), Some("127.0.0.1"));
    let forbidden = ["content-length", "host", "transfer-encoding"];
    assert!(
        !request
            .trailers
            .iter()
            .any(|(name, _)| forbidden.contains(&name.as_str())),
        "{:?}",
        request.trailers
    );
}

#[test]
fn an_answer_streams() {
    let (go, wait) = channel::<()>();
    let wait = Mutex::new(wait);
    let blue = Backend::script(move |wire, _| {
        wire.request();
        wire.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n");
        for word in ["one", "two", "six"] {
            wait.lock().unwrap().recv().unwrap();
            wire.send(format!("3\r\n{word}\r\n"));
        }
        wire.send("0\r\n\r\n");
    });
    let proxy = Proxy::before(&blue);
    let mut client = proxy.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    // The head alone, then each chunk before the next one exists.
    assert_eq!(client.head().status(), 200);
    for word in ["one", "two", "six"] {
        go.send(()).unwrap();
        assert_eq!(client.chunk(), word.as_bytes());
    }
    assert_eq!(client.chunk(), b"");
}

#[test]
fn a_request_streams() {
    let (tell, told) = channel();
    let tell = Mutex::new(tell);
    let blue = Backend::script(move |wire, _| {
        wire.request_head();
        for _ in 0..3 {
            tell.lock().unwrap().send(wire.chunk()).unwrap();
        }
        wire.send(ok("blue"));
    });
    let proxy = Proxy::before(&blue);
    let mut client = proxy.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    for word in ["one", "two"] {
        client.send(format!("3\r\n{word}\r\n"));
        assert_eq!(told.recv().unwrap(), word.as_bytes());
    }
    client.send("0\r\n\r\n");
    assert_eq!(told.recv().unwrap(), b"");
    assert_eq!(client.answer().text(), "blue");
}

#[test]
fn a_slow_reader_stops_the_app_and_not_the_memory() {
    let sent = std::sync::Arc::<std::sync::atomic::AtomicUsize>::default();
    let counted = sent.clone();
    let size = 256 * 1024 * 1024;
    let blue = Backend::script(move |wire, _| {
        if wire.request().is_some_and(|request| request.target() == "/small") {
            wire.send(ok("blue"));
            return;
        }
        wire.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {size}\r\n\r\n"));
        let block = vec![b'x'; 64 * 1024];
        while wire.try_send(&block).is_ok() {
            counted.fetch_add(block.len(), std::sync::atomic::Ordering::SeqCst);
        }
    });
    let proxy = Proxy::before(&blue);
    let mut client = proxy.client().small_window();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.head().status(), 200);
    // Whatever all the sockets' buffers hold, it comes to rest far below the size.
    let mut last = 0;
    let mut same = 0;
    until("the app is stopped by back-pressure", || {
        std::thread::sleep(Duration::from_millis(20));
        let now = sent.load(std::sync::atomic::Ordering::SeqCst);
        same = if now == last { same + 1 } else { 0 };
        last = now;
        same > 10 && now > 0
    });
    assert!(
        last < 64 * 1024 * 1024,
        "{last} bytes taken for a client that takes none"
    );
    assert_eq!(proxy.fetch("/small").text(), "blue", "others are served");
}

#[test]
fn an_early_answer_reaches_a_client_that_is_still_sending() {
    let blue = Backend::script(|wire, _| {
        wire.request_head();
        wire.send("HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\nconnection: close\r\n\r\nno");
    });
    let proxy = Proxy::before(&blue);
    let mut client = proxy.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\nsome");
    let answer = client.answer();
    assert_eq!((answer.status(), answer.text().as_str()), (403, "no"));
    // The rest of the body was never sent: whatever follows, it is not taken for a request.
    client.send("GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n");
    client.finish().rest();
    assert_eq!(proxy.fetch("/").status(), 403);
    for bytes in blue.received() {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        assert_eq!(
            text.matches(" HTTP/1.1\r\n").count() - text.matches("GET /smuggled").count(),
            1
        );
    }
}

#[test]
fn an_early_answer_and_the_whole_upload_afterwards() {
    let blue = Backend::script(|wire, _| {
        while wire.request_head().is_some() {
            wire.send(ok("early"));
            wire.bytes(8);
        }
    });
    let proxy = Proxy::before(&blue);
    let mut client = proxy.client();
    for _ in 0..3 {
        client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 8\r\n\r\nhalf");
        assert_eq!(client.answer().text(), "early");
        client.send("half");
    }
}

#[test]
fn an_upload_goes_on_while_its_client_takes_nothing_of_the_answer() {
    const UPLOAD: usize = 32 << 20;
    let (tell, told) = channel::<usize>();
    let tell = Mutex::new(tell);
    let blue = Backend::script(move |wire, _| {
        wire.request_head();
        let mut writer = wire.twin();
        // More than all buffers between here and the client hold.
        std::thread::spawn(move || {
            writer.send("HTTP/1.1 200 OK\r\ncontent-length: 268435456\r\n\r\n");
            let block = vec![b'a'; 256 * 1024];
            while writer.try_send(&block).is_ok() {}
        });
        tell.lock().unwrap().send(wire.bytes(UPLOAD).len()).unwrap();
    });
    let proxy = Proxy::before(&blue);
    let mut client = proxy.client();
    client.send(format!(
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {UPLOAD}\r\n\r\n"
    ));
    assert_eq!(client.head().status(), 200);
    std::thread::sleep(Duration::from_millis(200));
    client.send(vec![b'u'; UPLOAD]);
    assert_eq!(told.recv_timeout(Duration::from_secs(30)).unwrap(), UPLOAD);
}

#[test]
fn a_client_that_has_finished_sending_gets_its_answer() {
    let (go, wait) = channel::<()>();
    let wait = Mutex::new(wait);
    let blue = Backend::script(move |wire, _| {
        wire.request();
        wait.lock().unwrap().recv().unwrap();
        // One answer a connection, and said so: the POST must not meet it as it closes.
        wire.send("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 8\r\n\r\nhalf");
        wait.lock().unwrap().recv().unwrap();
        wire.send("half");
    });
    let proxy = Proxy::before(&blue);
    for request in [
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody",
    ] {
        let mut client = proxy.client();
        client.send(request).finish();
        until("the app has it", || {
            proxy.metric("cutover_requests_in_flight", &[]) > 0.0
        });
        go.send(()).unwrap();
        assert_eq!(client.head().status(), 200);
        go.send(()).unwrap();
        assert_eq!(client.bytes(8), b"halfhalf");
        client.assert_closed();
    }
}

#[test]
fn a_client_that_resets_is_forgotten_upstream() {
    let blue = Backend::script(|wire, number| {
        wire.request();
        if number == 1 {
            wire.send("HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\nhalf");
        }
        // Hang until the proxy ends it.
        wire.rest();
    });
    let proxy = Proxy::before(&blue);
    // While the answer is awaited, and in its middle.
    for round in 1..=2 {
        let mut client = proxy.client();
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        until("the app has it", || blue.open() == 1);
        if round == 2 {
            client.head();
        }
        client.reset();
        until("the app is told", || blue.open() == 0);
        assert_eq!(blue.connections(), round);
    }
    until("the claims are released", || {
        proxy.metric("cutover_requests_in_flight", &[]) == 0.0
    });
}

#[test]
fn a_broken_upload_never_looks_whole() {
    let blue = Backend::script(|wire, _| {
        wire.request();
    });
    let proxy = Proxy::before(&blue);
    for half in [
        "Content-Length: 100\r\n\r\nhalf",
        "Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
        "Transfer-Encoding: chunked\r\n\r\n40\r\nhalf",
        "Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n0\r\n",
    ] {
        for reset in [true, false] {
            let before = blue.connections();
            let mut client = proxy.client();
            client.send(format!("POST / HTTP/1.1\r\nHost: a\r\n{half}"));
            until("the app has the half", || {
                let received = blue.received();
                received.len() > before
                    && received[before].ends_with(b"half") | received[before].ends_with(b"half\r\n")
            });
            if reset {
                client.reset();
            } else {
                client.finish();
            }
            until("the app is told", || blue.open() == 0);
            let received = blue.received().pop().unwrap();
            let (whole, _) = crate::harness::requests_in(&received);
            assert_eq!(whole, [], "{half:?} was passed on as whole");
        }
    }
}

#[test]
fn an_answer_cut_by_the_app_is_cut_for_the_client() {
    for (answer, came) in [
        ("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf", "half"),
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n",
            "half",
        ),
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n40\r\nhalf",
            "",
        ),
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n0\r\n",
            "half",
        ),
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n0",
            "half",
        ),
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\nzz\r\n",
            "half",
        ),
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalfmore\r\n0\r\n\r\n",
            "half",
        ),
    ] {
        for reset in [true, false] {
            let (tell, told) = channel::<()>();
            let told = Mutex::new(told);
            let blue = Backend::script(move |wire, _| {
                wire.request();
                wire.send(answer);
                told.lock().unwrap().recv().unwrap();
                if reset {
                    wire.reset_now();
                }
            });
            let proxy = Proxy::before(&blue);
            let mut client = proxy.client();
            client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
            // A reset may overtake what was sent before it: let the head arrive first.
            until(&format!("{answer:?} {reset} is on its way"), || {
                proxy.metric("cutover_upstream_duration_seconds_count", &[]) > 0.0
            });
            tell.send(()).unwrap();
            match client.try_answer() {
                Err(Broken::Cut(half)) => {
                    assert!(
                        came.starts_with(&half.text()) || half.text() == "half",
                        "{half:?}"
                    );
                }
                other => panic!("{answer:?} ({reset}) became {other:?}"),
            }
        }
    }
}

#[test]
fn a_cut_answer_never_ends_well_for_an_http10_client_of_sized_answers() {
    let blue = Backend::answers("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf");
    let proxy = Setup::new().blue(&blue, "").start();
    let mut client = proxy.client();
    client.send("GET / HTTP/1.0\r\n\r\n");
    assert!(matches!(client.try_answer(), Err(Broken::Cut(_))));
}
