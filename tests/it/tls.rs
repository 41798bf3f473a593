//! TLS as clients see it: which certificate, which version, what is refused, and what outlives a reload.

use std::net::TcpStream;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use rustls::version::{TLS12, TLS13};
use rustls::{HandshakeKind, NamedGroup, ProtocolVersion};

use crate::harness::tls::{Authority, Kind};
use crate::harness::websocket::{self, Frame};
use crate::harness::{Backend, Broken, Message, Proxy, Setup, Wire, ok, until};

/// One TLS listener for `shop.test` with an ECDSA certificate, blue behind it.
fn shop(lines: &str) -> (Authority, Backend, Proxy) {
    let authority = Authority::new();
    authority.issue("shop", &["shop.test"], Kind::Ecdsa);
    let blue = Backend::blue();
    let proxy = Setup::new()
        .listeners(&authority.listener(&["shop"], lines))
        .blue(&blue, "")
        .start();
    (authority, blue, proxy)
}

/// The certificate that a server showed.
fn shown(wire: &mut Wire) -> Vec<u8> {
    let certificates = wire.tls().conn.peer_certificates().expect("a certificate");
    certificates[0].to_vec()
}

fn handshakes(proxy: &Proxy, version: &str, resumed: &str) -> f64 {
    let labels = [format!("version=\"{version}\""), format!("resumed=\"{resumed}\"")];
    proxy.metric("cutover_tls_handshakes_total", &[&labels[0], &labels[1]])
}

fn failures(proxy: &Proxy, reason: &str) -> f64 {
    let label = format!("reason=\"{reason}\"");
    proxy.metric("cutover_tls_handshake_failures_total", &[&label])
}

#[test]
fn both_versions_are_spoken_and_the_app_is_told_https() {
    let (authority, blue, proxy) = shop("");
    let mut new = authority.client().only(&TLS13).dial(proxy.tcp(0), "shop.test");
    assert_eq!(new.get("/13").text(), "blue");
    let connection = &new.tls().conn;
    assert_eq!(connection.protocol_version(), Some(ProtocolVersion::TLSv1_3));
    let group = connection.negotiated_key_exchange_group().unwrap().name();
    assert_eq!(
        group,
        NamedGroup::X25519MLKEM768,
        "safe against later quantum computers"
    );
    let mut old = authority.client().only(&TLS12).dial(proxy.tcp(0), "shop.test");
    assert_eq!(old.get("/12").text(), "blue");
    assert_eq!(old.get("/12-again").text(), "blue", "kept alive");
    for request in blue.requests() {
        assert_eq!(request.field("x-forwarded-proto"), Some("https"), "{request:?}");
        assert_eq!(request.field("x-forwarded-for"), Some("127.0.0.1"));
    }
    assert_eq!(
        (
            handshakes(&proxy, "1.3", "false"),
            handshakes(&proxy, "1.2", "false")
        ),
        (1.0, 1.0)
    );
    let expires = proxy.metric("cutover_tls_cert_not_after_timestamp_seconds", &["shop.pem"]);
    assert!(expires > 4e9, "{expires}: rcgen's certificates expire in 4096");
    assert_eq!(proxy.metric("cutover_tls_cert_up_to_date", &["shop.pem"]), 1.0);
}

#[test]
fn an_older_version_than_allowed_is_refused() {
    let (authority, _blue, proxy) = shop("min_version = \"1.3\"");
    let old = authority.client().only(&TLS12).build();
    let error = old.try_dial(proxy.tcp(0), "shop.test").expect_err("refused");
    assert!(error.to_string().contains("ProtocolVersion"), "{error}");
    until("the failure is counted", || failures(&proxy, "refused") == 1.0);
    let mut new = authority.client().dial(proxy.tcp(0), "shop.test");
    assert_eq!(new.get("/").text(), "blue");
}

#[test]
fn the_certificate_follows_the_server_name() {
    let authority = Authority::new();
    let first = authority.issue("first", &["first.test"], Kind::Ecdsa);
    let exact = authority.issue("exact", &["www.shop.test"], Kind::Ecdsa);
    let wild = authority.issue("wild", &["*.shop.test"], Kind::Ecdsa);
    let blue = Backend::blue();
    let proxy = Setup::new()
        .listeners(&authority.listener(&["first", "exact", "wild"], ""))
        .blue(&blue, "")
        .start();
    for (name, wanted) in [
        ("first.test", &first),
        ("www.shop.test", &exact),
        ("WWW.Shop.Test", &exact),
        ("api.shop.test", &wild),
    ] {
        let mut wire = authority.client().dial(proxy.tcp(0), name);
        assert_eq!(shown(&mut wire), wanted.to_vec(), "{name}");
    }
    // A wildcard stands for one label; who asks for what nobody has gets the first, and refuses it.
    for name in ["shop.test", "a.b.shop.test", "other.test"] {
        let error = authority
            .client()
            .build()
            .try_dial(proxy.tcp(0), name)
            .expect_err(name);
        let text = error.to_string();
        assert!(text.contains("first.test"), "{name}: {text}");
    }
}

#[test]
fn a_client_gets_the_kind_of_key_that_it_can_verify() {
    let authority = Authority::new();
    // RSA stands first in the file: who can do ECDSA gets it all the same.
    let rsa = authority.issue("rsa", &["shop.test"], Kind::Rsa);
    let ecdsa = authority.issue("ecdsa", &["shop.test"], Kind::Ecdsa);
    let blue = Backend::blue();
    let proxy = Setup::new()
        .listeners(&authority.listener(&["rsa", "ecdsa"], ""))
        .blue(&blue, "")
        .start();
    for version in [&TLS13, &TLS12] {
        let mut old = authority
            .client()
            .rsa_only()
            .only(version)
            .dial(proxy.tcp(0), "shop.test");
        assert_eq!(shown(&mut old), rsa.to_vec());
        assert_eq!(old.get("/").text(), "blue");
        let mut new = authority.client().only(version).dial(proxy.tcp(0), "shop.test");
        assert_eq!(shown(&mut new), ecdsa.to_vec());
        assert_eq!(new.get("/").text(), "blue");
    }
}

#[test]
fn sessions_resume_across_a_new_certificate_and_new_clients_see_it() {
    let (authority, _blue, proxy) = shop("");
    for (version, label) in [(&TLS13, "1.3"), (&TLS12, "1.2")] {
        let client = authority.client().only(version).build();
        let mut first = client.dial(proxy.tcp(0), "shop.test");
        assert_eq!(first.get("/").text(), "blue");
        assert_eq!(first.tls().conn.handshake_kind().map(is_resumed), Some(false));
        let renewed = authority.issue("shop", &["shop.test"], Kind::Ecdsa);
        until("a new client sees the new certificate", || {
            shown(&mut authority.client().dial(proxy.tcp(0), "shop.test")) == renewed.to_vec()
        });
        let before = handshakes(&proxy, label, "true");
        let mut again = client.dial(proxy.tcp(0), "shop.test");
        assert_eq!(again.get("/").text(), "blue");
        assert_eq!(
            again.tls().conn.handshake_kind(),
            Some(HandshakeKind::Resumed),
            "{label}"
        );
        assert_eq!(handshakes(&proxy, label, "true"), before + 1.0);
        // What was open all the time is still open.
        assert_eq!(first.get("/").text(), "blue");
    }
}

fn is_resumed(kind: HandshakeKind) -> bool {
    kind == HandshakeKind::Resumed
}

#[test]
fn a_bad_pair_changes_nothing_and_is_told_everywhere() {
    let authority = Authority::new();
    let good = authority.issue("shop", &["shop.test"], Kind::Ecdsa);
    let blue = Backend::blue();
    let proxy = Setup::new()
        .listeners(&authority.listener(&["shop"], ""))
        .blue(&blue, "")
        .in_file()
        .start();
    let now = || shown(&mut authority.client().dial(proxy.tcp(0), "shop.test"));
    let warnings = || proxy.get("/v1/status").done().json["warnings"].to_string();
    let fresh = || proxy.metric("cutover_tls_cert_up_to_date", &["shop.pem"]);
    let good_key = std::fs::read(authority.path("shop.key")).unwrap();
    let other = Authority::new();
    other.issue("other", &["shop.test"], Kind::Ecdsa);
    let other_key = std::fs::read(other.path("other.key")).unwrap();
    for (key, why) in [
        (&other_key[..], "does not belong to the certificate"),
        (b"junk", "no private key"),
        (b"", "no private key"),
    ] {
        authority.replace("shop.key", key);
        until(why, || warnings().contains(why) && fresh() == 0.0);
        assert_eq!(now(), good.to_vec(), "{why}");
        // A reload by hand says the same, and takes the rest of the file.
        let reloaded = proxy.reload().done();
        assert!(
            reloaded.json["warnings"].to_string().contains(why),
            "{}",
            reloaded.text
        );
        assert_eq!(now(), good.to_vec(), "{why}");
    }
    std::fs::remove_file(authority.path("shop.key")).unwrap();
    until("it is missed", || warnings().contains("no such file"));
    assert_eq!(now(), good.to_vec());
    authority.replace("shop.key", good_key);
    until("all is well again", || {
        !warnings().contains("certificate") && fresh() == 1.0
    });
    // Another file in the configuration is taken while running; a bad one there refuses the whole file.
    let second = authority.issue("second", &["shop.test"], Kind::Ecdsa);
    proxy.rewrite(|text| {
        text.replace("shop.pem", "second.pem")
            .replace("shop.key", "missing.key")
    });
    until("the file is refused", || {
        proxy.get("/v1/status").done().text.contains("missing.key")
    });
    assert_eq!(proxy.reload().status, 422);
    assert_eq!(now(), good.to_vec());
    proxy.rewrite(|text| text.replace("missing.key", "second.key"));
    until("the other pair is in use", || now() == second.to_vec());
    assert_eq!(proxy.metric("cutover_tls_cert_up_to_date", &["second.pem"]), 1.0);
    // Then its own files are watched.
    let third = authority.issue("second", &["shop.test"], Kind::Ecdsa);
    until("its renewal is in use", || now() == third.to_vec());
}

#[test]
fn another_host_than_the_certificates_is_misdirected() {
    let authority = Authority::new();
    authority.issue("shop", &["shop.test", "*.shop.test"], Kind::Ecdsa);
    authority.issue("bank", &["bank.test"], Kind::Ecdsa);
    let blue = Backend::blue();
    let proxy = Setup::new()
        .listeners(&authority.listener(&["shop", "bank"], ""))
        .blue(&blue, "")
        .start();
    let mut wire = authority.client().dial(proxy.tcp(0), "shop.test");
    let mut ask = |host: &str| wire.ask(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"));
    assert_eq!(ask("SHOP.test:8443").status(), 200);
    assert_eq!(
        ask("api.shop.test").status(),
        200,
        "the certificate is for it too"
    );
    for host in ["bank.test", "a.b.shop.test", "127.0.0.1", "shop.test.evil.test"] {
        assert_eq!(ask(host).status(), 421, "{host}");
    }
    assert_eq!(ask("shop.test").status(), 200, "the connection goes on");
    // Without a server name there is nothing to compare with.
    let name = "127.0.0.1";
    authority.issue("shop", &["shop.test", "127.0.0.1"], Kind::Ecdsa);
    until("the address is in the certificate", || {
        authority.client().build().try_dial(proxy.tcp(0), name).is_ok()
    });
    let mut wire = authority.client().dial(proxy.tcp(0), name);
    assert_eq!(
        wire.ask("GET / HTTP/1.1\r\nHost: bank.test\r\n\r\n").status(),
        200
    );
    assert_eq!(proxy.metric("cutover_requests_total", &["code=\"421\""]), 4.0);
}

#[test]
fn a_redirect_keeps_path_and_query() {
    let blue = Backend::blue();
    for status in [301, 302, 307, 308] {
        let proxy = Setup::new()
            .listeners(&format!(
                "[[listener]]\naddress = \"127.0.0.1:0\"\nredirect_https = {status}\n"
            ))
            .blue(&blue, "")
            .start();
        let mut client = proxy.client();
        for (host, target, location) in [
            ("shop.test", "/", "https://shop.test/"),
            (
                "Shop.Test:8080",
                "/a/b?c=d&e=%20",
                "https://shop.test/a/b?c=d&e=%20",
            ),
            ("[::1]:80", "/?x", "https://[::1]/?x"),
            ("shop.test", "http://other.test:81/p?q", "https://other.test/p?q"),
        ] {
            let answer = client.ask(format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n"));
            assert_eq!(answer.status(), status);
            assert_eq!(answer.field("location"), Some(location), "{target}");
            assert_eq!(answer.field("strict-transport-security"), None, "RFC 6797 §7.2");
        }
        assert_eq!(client.post("/p", "body").status(), status);
        let bad = proxy.client().ask("GET / HTTP/1.1\r\nHost: a b\r\n\r\n");
        assert_eq!(bad.status(), 400);
        let none = proxy.client().ask("GET / HTTP/1.0\r\n\r\n");
        assert_eq!((none.status(), none.field("location")), (400, None));
    }
    assert_eq!(blue.requests().len(), 0);
}

#[test]
fn only_clients_with_a_certificate_come_in_and_nobody_forges_its_subject() {
    let authority = Authority::new();
    authority.issue("shop", &["shop.test"], Kind::Ecdsa);
    let ca = authority.path("ca.pem");
    let blue = Backend::blue();
    let listeners = format!(
        "{}{}[[listener]]\naddress = \"127.0.0.1:0\"\n",
        authority.listener(&["shop"], &format!("client_ca = {ca:?}")),
        authority.listener(&["shop"], "")
    );
    let proxy = Setup::new().listeners(&listeners).blue(&blue, "").start();
    let forged = |target: &str| {
        format!("GET /{target} HTTP/1.1\r\nHost: shop.test\r\nX-Client-Cert-Subject: CN=root\r\n\r\n")
    };
    let identity = authority.for_client("Ants, Bees", "ännchen");
    let known = authority.client().shows(identity).build();
    for _ in 0..2 {
        let mut wire = known.dial(proxy.tcp(0), "shop.test");
        assert_eq!(wire.ask(forged("known")).status(), 200);
        let kind = wire.tls().conn.handshake_kind();
        assert_ne!(
            kind,
            Some(HandshakeKind::Resumed),
            "each connection shows its certificate"
        );
    }
    let stranger = Authority::new();
    for client in [
        authority.client(),
        authority.client().shows(stranger.for_client("Wasps", "eve")),
    ] {
        for version in [&TLS12, &TLS13] {
            let client = client.clone().only(version).build();
            // In TLS 1.3 the client hears of it with its first read.
            let refused = match client.try_dial(proxy.tcp(0), "shop.test") {
                Err(_) => true,
                Ok(mut wire) => {
                    wire.send(forged("stranger"));
                    wire.try_answer() == Err(Broken::Closed)
                }
            };
            assert!(refused);
        }
    }
    until("they are counted", || failures(&proxy, "refused") == 4.0);
    // Where no certificate is asked for there is no subject, whatever the client says.
    let mut wire = authority.client().dial(proxy.tcp(1), "shop.test");
    assert_eq!(wire.ask(forged("nobody")).status(), 200);
    assert_eq!(Wire::tcp(proxy.tcp(2)).ask(forged("nobody")).status(), 200);
    let subjects = |target: &str| {
        let of = |request: &Message| request.field("x-client-cert-subject").map(str::to_owned);
        let all = blue.requests();
        let these = all.iter().filter(|request| request.target() == target);
        these.map(of).collect::<Vec<_>>()
    };
    let subject = Some("CN=\\C3\\A4nnchen,O=Ants\\, Bees".to_owned());
    assert_eq!(subjects("/known"), [subject.clone(), subject]);
    assert_eq!(subjects("/nobody"), [None, None]);
    assert!(subjects("/stranger").is_empty(), "nothing of theirs came through");
}

#[test]
fn a_handshake_has_the_time_of_a_head() {
    let authority = Authority::new();
    authority.issue("shop", &["shop.test"], Kind::Ecdsa);
    let blue = Backend::blue();
    let proxy = Setup::new()
        .toml("[limits]\nclient_header_timeout = \"400ms\"\n")
        .listeners(&authority.listener(&["shop"], ""))
        .blue(&blue, "")
        .start();
    let begun = Instant::now();
    let mut silent = Wire::tcp(proxy.tcp(0));
    let mut half = Wire::tcp(proxy.tcp(0));
    // A record that says it is longer than what follows.
    half.send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03");
    silent.assert_closed();
    half.assert_closed();
    assert!(begun.elapsed() >= Duration::from_millis(400));
    until("both are counted", || failures(&proxy, "timeout") == 2.0);
    // Counted from accept: a handshake does not buy more time, and a half head is told.
    let mut slow = authority.client().dial(proxy.tcp(0), "shop.test");
    slow.send("GET / HTTP/1.1\r\nHost:");
    assert_eq!(slow.answer().status(), 408);
    slow.assert_closed();
    let mut idle = authority.client().dial(proxy.tcp(0), "shop.test");
    idle.assert_closed();
    until("all connections are gone", || {
        proxy.metric("cutover_connections", &[]) == 0.0
    });
}

#[test]
fn who_speaks_no_tls_is_refused_and_who_leaves_is_no_failure_of_ours() {
    let (_authority, blue, proxy) = shop("");
    let mut plain = Wire::tcp(proxy.tcp(0));
    plain.send("GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n");
    let answer = plain.rest();
    assert!(!answer.starts_with(b"HTTP"), "an alert at most");
    until("it is counted", || failures(&proxy, "refused") == 1.0);
    drop(TcpStream::connect(proxy.tcp(0)).unwrap());
    until("it is counted apart", || failures(&proxy, "left") == 1.0);
    assert_eq!(blue.requests().len(), 0);
}

#[test]
fn bodies_are_whole_in_both_directions() {
    let authority = Authority::new();
    authority.issue("shop", &["shop.test"], Kind::Ecdsa);
    let echo = Backend::handler(|request| {
        let mut answer = format!(
            "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n",
            request.body.len()
        )
        .into_bytes();
        answer.extend_from_slice(&request.body);
        answer
    });
    let proxy = Setup::new()
        .listeners(&authority.listener(&["shop"], ""))
        .blue(&echo, "")
        .start();
    let mut wire = authority.client().dial(proxy.tcp(0), "shop.test");
    for size in [
        0_usize,
        1,
        4096,
        16 * 1024 - 1,
        16 * 1024,
        16 * 1024 + 1,
        300_000,
        3 << 20,
    ] {
        let body: String = (0..size)
            .map(|at| char::from(b'a' + (at * 7 % 26) as u8))
            .collect();
        // Both directions at once would need two threads here; the proxy holds what is on its way.
        let answer = wire.post("/", &body);
        assert_eq!(answer.status(), 200);
        assert!(
            answer.body == body.as_bytes(),
            "{size} bytes came back as {}",
            answer.body.len()
        );
    }
}

#[test]
fn a_client_that_has_said_all_still_gets_its_answer() {
    let authority = Authority::new();
    authority.issue("shop", &["shop.test"], Kind::Ecdsa);
    let slow = Backend::handler(|_| {
        std::thread::sleep(Duration::from_millis(200));
        ok("late")
    });
    let proxy = Setup::new()
        .listeners(&authority.listener(&["shop"], ""))
        .blue(&slow, "")
        .start();
    for version in [&TLS13, &TLS12] {
        let mut wire = authority.client().only(version).dial(proxy.tcp(0), "shop.test");
        // close_notify right behind the request: encrypted bytes on the socket while nobody reads it.
        wire.send("GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n").finish();
        assert_eq!(wire.answer().text(), "late");
    }
    // A FIN without close_notify is an end of the same kind.
    let mut wire = authority.client().dial(proxy.tcp(0), "shop.test");
    wire.send("GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n");
    wire.tls().sock.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(wire.answer().text(), "late");
}

#[test]
fn a_reset_ends_the_request() {
    let authority = Authority::new();
    authority.issue("shop", &["shop.test"], Kind::Ecdsa);
    let mute = Backend::script(|wire, _| {
        wire.request();
        wire.rest();
    });
    let proxy = Setup::new()
        .listeners(&authority.listener(&["shop"], ""))
        .blue(&mute, "")
        .start();
    let mut wire = authority.client().dial(proxy.tcp(0), "shop.test");
    wire.send("GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n");
    let in_flight = || proxy.metric("cutover_requests_in_flight", &["color=\"blue\""]);
    until("it is under way", || in_flight() == 1.0);
    wire.reset();
    until("it is over", || in_flight() == 0.0);
}

#[test]
fn a_websocket_passes_through_tls_whole_and_ends_at_a_switch() {
    let authority = Authority::new();
    authority.issue("shop", &["shop.test"], Kind::Ecdsa);
    let big: Vec<u8> = (0..3 << 20).map(|at: u32| (at * 31 % 251) as u8).collect();
    let told = big.clone();
    // A flood at the beginning, then silence: whatever TLS has kept must go out without another byte to push it.
    let blue = Backend::script(move |wire, _| {
        if wire
            .request()
            .is_some_and(|request| request.field("upgrade").is_some())
        {
            wire.send(websocket::AGREE);
            wire.send(Frame::of(2, &told).bytes());
            while let Some(frame) = websocket::read(wire) {
                wire.send(
                    Frame {
                        masked: false,
                        ..frame.clone()
                    }
                    .bytes(),
                );
                if frame.opcode == websocket::CLOSE {
                    return;
                }
            }
        } else {
            wire.send(ok("blue"));
        }
    });
    let green = Backend::green();
    let proxy = Setup::new()
        .listeners(&authority.listener(&["shop"], ""))
        .colors(&blue, &green, "drain.streams = { policy = \"close\" }\n")
        .start();
    for version in [&TLS13, &TLS12] {
        let mut wire = authority.client().only(version).dial(proxy.tcp(0), "shop.test");
        websocket::open(&mut wire);
        std::thread::sleep(Duration::from_millis(100));
        assert!(websocket::read(&mut wire).expect("the flood").payload == big);
        let up: Vec<u8> = big.iter().rev().copied().collect();
        wire.send(Frame::of(2, &up[..200_000]).masked().bytes());
        assert!(websocket::read(&mut wire).expect("an echo").payload == up[..200_000]);
        proxy.switch("green");
        assert_eq!(websocket::read(&mut wire).expect("a Close").code(), Some(1012));
        wire.send(Frame::close(1012).masked().bytes());
        wire.assert_closed();
        proxy.switch("blue");
    }
}

#[test]
fn the_last_bytes_of_a_tunnel_reach_a_slow_client() {
    let authority = Authority::new();
    authority.issue("shop", &["shop.test"], Kind::Ecdsa);
    let big: Vec<u8> = (0..8 << 20).map(|at: u32| (at * 31 % 251) as u8).collect();
    let told = big.clone();
    // It says all and ends, long before the client has taken it.
    let blue = Backend::script(move |wire, _| {
        wire.request();
        wire.send("HTTP/1.1 101 Switching Protocols\r\nUpgrade: bytes\r\nConnection: Upgrade\r\n\r\n");
        wire.send(&told);
    });
    let proxy = Setup::new()
        .listeners(&authority.listener(&["shop"], ""))
        .blue(&blue, "")
        .start();
    let mut wire = authority.client().dial(proxy.tcp(0), "shop.test");
    wire.send("GET / HTTP/1.1\r\nHost: shop.test\r\nConnection: upgrade\r\nUpgrade: bytes\r\n\r\n");
    assert_eq!(wire.head().status(), 101);
    wire.finish();
    std::thread::sleep(Duration::from_millis(300));
    assert!(wire.bytes(big.len()) == big);
    wire.assert_closed();
}

#[test]
fn strict_transport_security_is_said_once() {
    let (authority, _blue, proxy) = shop("hsts = \"1h\"");
    let mut wire = authority.client().dial(proxy.tcp(0), "shop.test");
    for (request, status) in [
        ("GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n", 200),
        ("GET / HTTP/1.1\r\nHost: other.test\r\n\r\n", 421),
    ] {
        let answer = wire.ask(request);
        assert_eq!(answer.status(), status);
        assert_eq!(answer.field("strict-transport-security"), Some("max-age=3600"));
    }
    let own = Backend::answers(
        "HTTP/1.1 200 OK\r\nstrict-transport-security: max-age=5; includeSubDomains\r\ncontent-length: 0\r\n\r\n",
    );
    let proxy = Setup::new()
        .listeners(&authority.listener(&["shop"], "hsts = \"1h\""))
        .blue(&own, "")
        .start();
    let answer = authority.client().dial(proxy.tcp(0), "shop.test").get("/");
    assert_eq!(
        answer.field("strict-transport-security"),
        Some("max-age=5; includeSubDomains")
    );
}

#[test]
fn a_switch_is_proven_through_tls_where_there_is_nothing_else() {
    let authority = Authority::new();
    // For another host and of an unknown authority: the proof knows it by itself.
    authority.issue("shop", &["elsewhere.test"], Kind::Ecdsa);
    let (blue, green) = (Backend::blue(), Backend::green());
    let proven = |proxy: &Proxy| {
        let answer = proxy.switch("green");
        assert_eq!(answer.json["changed"], true);
        answer.json["verify"].to_string()
    };
    let redirect = "[[listener]]\naddress = \"127.0.0.1:0\"\nredirect_https = 308\n";
    let tls = authority.listener(&["shop"], "min_version = \"1.3\"");
    for hosts in ["", "hosts = [\"shop.test\"]", "hosts = [\"*.shop.test\"]"] {
        let proxy = Setup::new()
            .listeners(&format!("{redirect}{tls}"))
            .colors(&blue, &green, hosts)
            .start();
        let verify = proven(&proxy);
        assert!(
            verify.contains("verified") && !verify.contains("un"),
            "{hosts}: {verify}"
        );
        assert!(handshakes(&proxy, "1.3", "false") >= 3.0);
    }
    let ca = authority.path("ca.pem");
    let closed = authority.listener(&["shop"], &format!("client_ca = {ca:?}"));
    let proxy = Setup::new()
        .listeners(&format!("{redirect}{closed}"))
        .colors(&blue, &green, "")
        .start();
    let verify = proven(&proxy);
    assert!(verify.contains("skipped"), "{verify}");
    assert!(blue.requests().is_empty() && green.requests().is_empty());
}

#[test]
fn switches_fail_nothing_under_tls_load() {
    let authority = Authority::new();
    authority.issue("shop", &["shop.test"], Kind::Ecdsa);
    let (blue, green) = (Backend::blue(), Backend::green());
    let proxy = Setup::new()
        .listeners(&authority.listener(&["shop"], ""))
        .colors(&blue, &green, "")
        .start();
    let stop = Arc::new(AtomicBool::new(false));
    let asked = Arc::new(AtomicUsize::new(0));
    // Rises with each switch that was acknowledged: odd is green.
    let switched = Arc::new(AtomicUsize::new(0));
    let address = proxy.tcp(0);
    let dialer = authority.client().build();
    let load = |keep: usize| {
        let (stop, asked, switched, dialer) = (
            Arc::clone(&stop),
            Arc::clone(&asked),
            Arc::clone(&switched),
            dialer.clone(),
        );
        std::thread::spawn(move || {
            while !stop.load(SeqCst) {
                let mut wire = dialer.dial(address, "shop.test");
                for _ in 0..keep {
                    let before = switched.load(SeqCst);
                    let answer = wire.get("/");
                    let after = switched.load(SeqCst);
                    assert_eq!(answer.status(), 200, "{answer:?}");
                    // A request that began and ended between two switches must have the color between them; one
                    // more may be under way without being acknowledged.
                    let late = ["blue", "green"][(before + 1) % 2];
                    let done = (before..=after + 1).any(|n| ["blue", "green"][n % 2] == answer.text());
                    assert!(
                        done,
                        "{} between {before} and {after}; late would be {late}",
                        answer.text()
                    );
                    asked.fetch_add(1, SeqCst);
                }
            }
        })
    };
    let threads = [load(1), load(5), load(200), load(200)];
    for _ in 0..10 {
        let goal = asked.load(SeqCst) + 20;
        until("requests go on", || asked.load(SeqCst) >= goal);
        authority.issue("shop", &["shop.test"], Kind::Ecdsa);
        let to = ["green", "blue"][switched.load(SeqCst) % 2];
        proxy.switch(to);
        switched.fetch_add(1, SeqCst);
        // From here on nothing of the other color may begin.
        for _ in 0..3 {
            let mut wire = dialer.dial(address, "shop.test");
            assert_eq!(wire.get("/").text(), to, "late");
        }
    }
    stop.store(true, SeqCst);
    for thread in threads {
        thread.join().expect("no request failed");
    }
    assert!(asked.load(SeqCst) >= 200);
    assert!(handshakes(&proxy, "1.3", "true") > 0.0, "clients resumed");
}

#[test]
fn curl_is_content() {
    let Ok(version) = Command::new("curl").arg("--version").output() else {
        return;
    };
    assert!(version.status.success());
    let authority = Authority::new();
    authority.issue("ecdsa", &["shop.test"], Kind::Ecdsa);
    authority.issue("rsa", &["shop.test"], Kind::Rsa);
    let blue = Backend::blue();
    let proxy = Setup::new()
        .listeners(&authority.listener(&["ecdsa", "rsa"], ""))
        .blue(&blue, "")
        .start();
    let port = proxy.tcp(0).port();
    let resolve = format!("shop.test:{port}:127.0.0.1");
    let url = format!("https://shop.test:{port}/");
    let ca = authority.path("ca.pem");
    for more in [&["--tlsv1.3"][..], &["--tls-max", "1.2"], &["--http2"], &[]] {
        let mut curl = Command::new("curl");
        curl.args([
            "--silent",
            "--show-error",
            "--noproxy",
            "*",
            "--max-time",
            "15",
            "--write-out",
            "|%{http_code}|%{ssl_verify_result}",
        ]);
        curl.arg("--cacert")
            .arg(&ca)
            .args(["--resolve", &resolve])
            .args(more);
        let output = curl.args([&url, &url]).output().unwrap();
        let (out, err) = (
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
        );
        assert_eq!(out, "blue|200|0blue|200|0", "{more:?}: {err}");
    }
}
