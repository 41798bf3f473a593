//! The PROXY protocol, and what else a balancer in front says of its clients.

use std::net::{SocketAddr, TcpStream};

use crate::harness::tls::{Authority, Kind};
use crate::harness::{Backend, Proxy, Setup, Wire, until};

const LISTENER: &str = "[[listener]]\naddress = \"127.0.0.1:0\"\nproxy_protocol = true\n";
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
const TCP4: &[u8] = b"\x21\x11\0\x0C\xCB\0\x71\x09\xC6\x33\x64\x01\xDC\x04\x01\xBB";
const LINE: &[u8] = b"PROXY TCP4 203.0.113.9 198.51.100.1 56324 443\r\n";

fn v2(rest: &[u8]) -> Vec<u8> {
    [SIGNATURE, rest].concat()
}

/// A proxy behind balancers of this network.
fn behind(network: &str, blue: &Backend) -> Proxy {
    Setup::new()
        .server(&format!("trusted_proxies = [\"{network}\"]"))
        .listeners(LISTENER)
        .access_log()
        .toml("[limits]\nclient_header_timeout = \"20s\"")
        .blue(blue, "")
        .start()
}

fn refused(proxy: &Proxy, reason: &str) -> f64 {
    let label = format!("reason=\"{reason}\"");
    proxy.metric("cutover_proxy_protocol_failures_total", &[&label])
}

/// A connection from another address of this machine.
fn from(source: &str, to: SocketAddr) -> Wire {
    use socket2::{Domain, Socket, Type};
    let source: SocketAddr = format!("{source}:0").parse().unwrap();
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&source.into()).unwrap();
    socket.connect(&to.into()).unwrap();
    Wire::of_tcp(TcpStream::from(socket))
}

#[test]
fn the_client_is_who_the_balancer_says() {
    let blue = Backend::blue();
    let proxy = behind("127.0.0.0/8", &blue);
    let mut tcp6 = b"\x21\x21\0\x2A".to_vec();
    tcp6.extend([&b"\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x07"[..], &[0; 20]].concat());
    // A field behind the addresses: an authority of one byte, and one of no byte.
    tcp6.extend(b"\x02\0\0\x04\0\0");
    let cases: &[(Vec<u8>, &str)] = &[
        (LINE.to_vec(), "203.0.113.9"),
        (b"PROXY TCP6 2001:db8::9 ::1 1 2\r\n".to_vec(), "2001:db8::9"),
        (v2(TCP4), "203.0.113.9"),
        (v2(&tcp6), "2001:db8::7"),
        // Its own health checks, and clients that it does not know: its own address.
        (b"PROXY UNKNOWN\r\n".to_vec(), "127.0.0.1"),
        (b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n".to_vec(), "127.0.0.1"),
        (v2(b"\x20\0\0\0"), "127.0.0.1"),
        (v2(b"\x20\x11\0\x03abc"), "127.0.0.1"),
        (v2(b"\x21\0\0\0"), "127.0.0.1"),
    ];
    for (at, (header, client)) in cases.iter().enumerate() {
        let mut wire = Wire::tcp(proxy.tcp(0));
        // Header and request in one write: not a byte of the request may be taken for the header.
        let request = format!("GET /{at} HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 6.6.6.6\r\n\r\n");
        wire.send([&header[..], request.as_bytes()].concat());
        assert_eq!(wire.answer().text(), "blue", "{at}");
        assert_eq!(wire.get("/again").text(), "blue", "one header a connection");
        let requests = blue.requests();
        let seen = |target: &str| {
            requests
                .iter()
                .find(|request| request.target() == target)
                .unwrap()
        };
        let request = seen(&format!("/{at}"));
        let expected = match *client {
            // The balancer is trusted, so what comes over its own connection is believed.
            "127.0.0.1" => "6.6.6.6, 127.0.0.1",
            client => client,
        };
        assert_eq!(request.all("x-forwarded-for"), [expected], "{at}");
    }
    let log = proxy.folder().join("access.log");
    until("all are logged", || {
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        let of = |target: &str, ip: &str| {
            let mut lines = text
                .lines()
                .filter(|line| line.contains(&format!("\"path\":\"{target}\"")));
            lines.any(|line| line.contains(&format!("\"client_ip\":\"{ip}\"")))
        };
        of("/0", "203.0.113.9") && of("/3", "2001:db8::7") && of("/4", "6.6.6.6")
    });
}

#[test]
fn a_header_in_pieces_is_a_header() {
    let blue = Backend::blue();
    let proxy = behind("127.0.0.1", &blue);
    for header in [LINE.to_vec(), v2(TCP4)] {
        let mut wire = Wire::tcp(proxy.tcp(0));
        for byte in &header {
            wire.send([*byte]);
        }
        assert_eq!(wire.get("/").text(), "blue");
    }
    let clients: Vec<_> = blue
        .requests()
        .iter()
        .map(|request| request.field("x-real-ip").unwrap().to_owned())
        .collect();
    assert_eq!(clients, ["203.0.113.9"; 2]);
}

#[test]
fn tls_comes_behind_the_header() {
    let authority = Authority::new();
    authority.issue("shop", &["shop.test"], Kind::Ecdsa);
    let blue = Backend::blue();
    let listener = authority.listener(&["shop"], "");
    let listener = listener.replace("[listener.tls]", "proxy_protocol = true\n[listener.tls]");
    let proxy = Setup::new()
        .server("trusted_proxies = [\"127.0.0.1\"]")
        .listeners(&listener)
        .blue(&blue, "")
        .start();
    let dialer = authority.client().build();
    for header in [LINE.to_vec(), v2(TCP4)] {
        let mut wire = dialer
            .try_dial_behind(proxy.tcp(0), "shop.test", &header)
            .unwrap();
        assert_eq!(wire.get("/").text(), "blue");
    }
    for request in blue.requests() {
        assert_eq!(request.field("x-real-ip"), Some("203.0.113.9"));
        assert_eq!(request.field("x-forwarded-proto"), Some("https"));
    }
    assert!(
        dialer.try_dial(proxy.tcp(0), "shop.test").is_err(),
        "a handshake without a header"
    );
    until("it is counted", || refused(&proxy, "malformed") == 1.0);
}

#[test]
fn anything_else_is_closed_without_an_answer() {
    let blue = Backend::blue();
    let proxy = behind("127.0.0.1", &blue);
    let bad: &[&[u8]] = &[
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"PROXY TCP4 203.0.113.9 198.51.100.1 56324\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"PROXY TCP4 203.0.113.999 198.51.100.1 56324 443\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"PROXY TCP4 203.0.113.9 198.51.100.1 56324 443\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        &[b"PROXY UNKNOWN ".to_vec(), vec![b'x'; 200]].concat(),
        &v2(b"\x31\x11\0\x0C............"),
        &v2(b"\x22\x11\0\x0C............"),
        &v2(b"\x21\x11\0\x04...."),
        &v2(b"\x21\x11\xFF\xFF"),
    ];
    for bytes in bad {
        let mut wire = Wire::tcp(proxy.tcp(0));
        wire.send(bytes);
        wire.assert_closed();
    }
    until("all are counted", || {
        refused(&proxy, "malformed") == bad.len() as f64
    });
    let mut early = Wire::tcp(proxy.tcp(0));
    early.send(&LINE[..20]).finish();
    early.assert_closed();
    until("it is counted", || refused(&proxy, "left") == 1.0);
    assert_eq!(blue.requests().len(), 0);
}

#[test]
fn strangers_are_closed_whatever_they_send() {
    let blue = Backend::blue();
    let proxy = behind("192.0.2.0/24", &blue);
    for header in [
        LINE,
        &v2(TCP4),
        b"PROXY UNKNOWN\r\n",
        &v2(b"\x20\0\0\0"),
        b"GET / HTTP/1.1\r\n\r\n",
    ] {
        let mut wire = Wire::tcp(proxy.tcp(0));
        let request = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        wire.send([header, request].concat());
        wire.assert_closed();
    }
    until("all are counted", || refused(&proxy, "untrusted") == 5.0);
    // From another machine not even the header is awaited.
    from("127.0.0.2", proxy.tcp(0)).assert_closed();
    until("it is counted", || refused(&proxy, "untrusted") == 6.0);
    assert_eq!(blue.requests().len(), 0);
    // Trust follows a reload.
    let proxy = Setup::new()
        .server("trusted_proxies = [\"192.0.2.0/24\"]")
        .listeners(LISTENER)
        .blue(&blue, "")
        .in_file()
        .start();
    proxy.rewrite(|text| text.replace("192.0.2.0/24", "127.0.0.2"));
    proxy.reload().done();
    let mut wire = from("127.0.0.2", proxy.tcp(0));
    wire.send(LINE);
    assert_eq!(wire.get("/").text(), "blue");
}

#[test]
fn a_header_has_the_time_of_a_head() {
    let blue = Backend::blue();
    let proxy = Setup::new()
        .server("trusted_proxies = [\"127.0.0.1\"]")
        .listeners(LISTENER)
        .toml("[limits]\nclient_header_timeout = \"150ms\"")
        .blue(&blue, "")
        .start();
    for begin in [&b""[..], &LINE[..11], &v2(TCP4)[..17]] {
        let mut wire = Wire::tcp(proxy.tcp(0));
        wire.send(begin);
        wire.assert_closed();
    }
    until("all are counted", || refused(&proxy, "timeout") == 3.0);
    // The header and then silence: the time is not counted from the header.
    let mut wire = Wire::tcp(proxy.tcp(0));
    wire.send(LINE);
    wire.assert_closed();
}

#[test]
fn a_switch_is_proven_through_a_listener_for_balancers() {
    let (blue, green) = (Backend::blue(), Backend::green());
    let proxy = Setup::new()
        .server("trusted_proxies = [\"192.0.2.0/24\"]")
        .listeners(LISTENER)
        .colors(&blue, &green, "")
        .start();
    let reply = proxy.post("switch", serde_json::json!({ "to": "green" })).done();
    assert_eq!(reply.json["verify"]["result"], "verified", "{}", reply.text);
    assert_eq!(refused(&proxy, "untrusted"), 0.0);
}

#[test]
fn a_unix_socket_may_be_a_balancers() {
    let blue = Backend::blue();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("web.sock");
    let address = format!("address = \"unix:{}\"", path.display());
    let proxy = Setup::new()
        .server("trusted_proxies = [\"unix:\"]")
        .listeners(&format!(
            "[[listener]]\n{address}\nproxy_protocol = true\n[[listener]]\naddress = \"127.0.0.1:0\"\n"
        ))
        .blue(&blue, "headers.forwarded = true")
        .start();
    let mut wire = Wire::unix(&path);
    wire.send(LINE);
    assert_eq!(wire.get("/").text(), "blue");
    let request = |target: &str| {
        let mut all = blue.requests();
        all.retain(|request| request.target() == target);
        all.remove(0)
    };
    assert_eq!(request("/").field("x-real-ip"), Some("203.0.113.9"));
    let mut own = Wire::unix(&path);
    own.send(b"PROXY UNKNOWN\r\n");
    own.ask("GET /own HTTP/1.1\r\nHost: a:80\r\nForwarded: for=\"[2001:db8::1]\";proto=https\r\n\r\n");
    let own = request("/own");
    assert_eq!(own.field("x-forwarded-for"), Some("2001:db8::1, unix:"));
    assert_eq!(own.field("x-forwarded-proto"), Some("https"));
    assert_eq!(
        own.field("forwarded"),
        Some("for=\"[2001:db8::1]\";proto=https, for=unknown;host=\"a:80\";proto=http")
    );
    // Who is not trusted is told of as ever, and as RFC 7239 has it too.
    proxy.client().get("/tcp");
    assert_eq!(
        request("/tcp").field("forwarded"),
        Some("for=127.0.0.1;host=shop.test;proto=http")
    );
    assert!(proxy.metric("cutover_requests_total", &["code=\"200\""]) >= 3.0);
}

#[test]
fn the_app_may_get_a_header_of_its_own() {
    let blue = Backend::script(|wire, _| {
        // The header, then requests: a strict app.
        let first = wire.bytes(16);
        let mut header = first.clone();
        if first.starts_with(SIGNATURE) {
            header.extend(wire.bytes(usize::from(first[15])));
        } else {
            while !header.ends_with(b"\r\n") {
                header.extend(wire.bytes(1));
            }
        }
        let shown = String::from_utf8_lossy(&header[..]).into_owned();
        while wire.request().is_some() {
            let body = format!(
                "{:?}",
                if first.starts_with(SIGNATURE) {
                    header.escape_ascii().to_string()
                } else {
                    shown.clone()
                }
            );
            wire.send(crate::harness::ok(&body));
        }
    });
    let proxy = |version: &str| {
        Setup::new()
            .server("trusted_proxies = [\"127.0.0.1\"]")
            .listeners(&format!("{LISTENER}[[listener]]\naddress = \"127.0.0.1:0\"\n"))
            .blue(
                &blue,
                &format!("send_proxy_protocol = \"{version}\"\nhealth.path = \"/healthz\""),
            )
            .start()
    };
    let v1 = proxy("v1");
    // A client of our own: the connection's addresses.
    let mut own = Wire::tcp(v1.tcp(1));
    let told = own.get("/").text();
    let port = v1.tcp(1).port();
    assert!(told.starts_with("\"PROXY TCP4 127.0.0.1 127.0.0.1 "), "{told}");
    assert!(told.contains(&format!(" {port}\\r\\n")), "{told}");
    assert_eq!(
        own.get("/again").text(),
        told,
        "the same connection, or another with the same header"
    );
    // Another client: another header, though a connection is free.
    assert_ne!(Wire::tcp(v1.tcp(1)).get("/").text(), told);
    // One that a balancer has named.
    let mut named = Wire::tcp(v1.tcp(0));
    named.send(LINE);
    assert_eq!(
        named.get("/").text(),
        "\"PROXY TCP4 203.0.113.9 198.51.100.1 56324 443\\r\\n\""
    );
    let binary = proxy("v2");
    let mut named = Wire::tcp(binary.tcp(0));
    named.send(LINE);
    let expected = v2(TCP4).escape_ascii().to_string();
    assert_eq!(named.get("/").text(), format!("{expected:?}"));
}
