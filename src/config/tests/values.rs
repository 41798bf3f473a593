//! What is inside a string, and that no text whatever makes the reader panic.

use std::time::Duration;

use proptest::prelude::*;

use super::none;
use crate::config::values::{host_pattern, host_value, listen_address, network, size, statuses};
use crate::config::{Address, EndpointAddress, Network, parse, parse_duration, parse_endpoint};

#[test]
fn durations() {
    for (text, milliseconds) in [
        ("0", 0),
        ("0s", 0),
        ("250ms", 250),
        ("5s", 5000),
        ("1m30s", 90_000),
        ("1h", 3_600_000),
        ("2d", 172_800_000),
    ] {
        assert_eq!(
            parse_duration(text),
            Ok(Duration::from_millis(milliseconds)),
            "{text}"
        );
    }
    for text in [
        "",
        "5",
        "s",
        "-5s",
        "5 s",
        "1.5s",
        "5us",
        "99999999999999999999s",
        "400d",
        "5s5",
        "٣s",
    ] {
        assert!(parse_duration(text).is_err(), "{text}");
    }
}

#[test]
fn sizes() {
    for (text, bytes) in [
        ("0", 0),
        ("512", 512),
        ("64KiB", 65_536),
        ("10MB", 10_000_000),
        ("1GiB", 1 << 30),
    ] {
        assert_eq!(size(text), Ok(bytes), "{text}");
    }
    for text in [
        "",
        "KiB",
        "-1",
        "1.5MiB",
        "64kib",
        "99999999999GiB",
        "9999999999999999999999",
    ] {
        assert!(size(text).is_err(), "{text}");
    }
}

#[test]
fn endpoints_are_shown_as_they_were_written() {
    for text in [
        "127.0.0.1:8001",
        "[::1]:8001",
        "web-blue:8000",
        "a_b.c:1",
        "unix:/run/app.sock",
        "https://mina.example.com:443",
        "https://[::1]:8443",
        "h2c://127.0.0.1:50051",
        "h2c://unix:/run/app.sock",
    ] {
        assert_eq!(
            parse_endpoint(text).map(|endpoint| endpoint.to_string()),
            Ok(text.to_owned())
        );
    }
    assert_eq!(
        parse_endpoint("WEB:80"),
        Ok(EndpointAddress::plain(Address::Name {
            host: "web".to_owned(),
            port: 80
        }))
    );
    let containers = [
        "docker:app-blue:8000",
        "h2c://docker:com.example.color=blue:50051",
    ];
    for text in containers {
        match parse_endpoint(text) {
            Ok(endpoint) if cfg!(feature = "docker") => assert_eq!(endpoint.to_string(), text),
            Err(bad) if !cfg!(feature = "docker") => assert!(bad.why.contains("--features docker"), "{bad}"),
            other => panic!("{text}: {other:?}"),
        }
    }
    if cfg!(feature = "docker") {
        for text in [
            "docker:a b:80",
            "docker:=blue:80",
            "docker:color=:80",
            "docker::80",
            "docker:app:0",
        ] {
            assert!(parse_endpoint(text).is_err(), "{text}");
        }
    }
    assert_eq!(
        parse_endpoint("docker:80").map(|one| one.to_string()),
        Ok("docker:80".to_owned()),
        "a host of that name"
    );
    for (text, why) in [
        ("", "it is empty"),
        ("web", "it has no port"),
        ("8001", "it has no host: write `127.0.0.1:8001`"),
        (":8001", "it has no host"),
        ("web:", "nothing follows the colon"),
        ("web:0", "1 to 65535"),
        ("docker:app-blue", "`docker:SERVICE:PORT`"),
        ("127.0.0.1:0", "port 0"),
        ("web:70000", "1 to 65535"),
        ("web:+80", "1 to 65535"),
        ("web:80/path", "has no path"),
        ("::1", "brackets and a port: `[::1]:8000`"),
        ("http://web:80/x", "leave `http://` out: `web:80`"),
        ("ftp://web:80", "or none (HTTP/1.1)"),
        (
            "https://web",
            "behind `https://`: it has no port: write `web:8000`",
        ),
        ("h2c://", "behind `h2c://`: it is empty"),
        ("https://unix:/run/x", "Unix socket has no name"),
        ("https://web:443/x", "has no path"),
        ("127.0.0.256:80", "not an IPv4 address"),
        ("we b:80", "not part of a host name"),
        ("-web:80", "not part of a host name"),
        ("bücher:80", "xn--"),
        ("unix:", "empty"),
        ("unix:///run/x", "one slash"),
        ("unix:a\0b", "zero byte"),
    ] {
        let error = parse_endpoint(text).expect_err(text).to_string();
        assert!(error.contains(why), "{text:?}: {error}");
    }
    let long = format!("unix:/{}", "x".repeat(107));
    assert!(parse_endpoint(&long).is_err());
    assert!(parse_endpoint(&long[..long.len() - 1]).is_ok());
}

#[test]
fn listeners() {
    for text in ["127.0.0.1:8080", "0.0.0.0:0", "[::]:443", "unix:/run/web.sock"] {
        assert_eq!(
            listen_address(text).map(|address| address.to_string()),
            Ok(text.to_owned())
        );
    }
    for text in [
        "",
        "8080",
        "localhost:80",
        "127.0.0.1",
        "::1",
        "127.0.0.1:70000",
        "unix:",
    ] {
        assert!(listen_address(text).is_err(), "{text}");
    }
}

#[test]
fn networks() {
    let net = |address: &str, prefix| {
        Ok(Network {
            address: address.parse().unwrap(),
            prefix,
        })
    };
    assert_eq!(network("10.1.2.3/8"), net("10.0.0.0", 8));
    assert_eq!(network("10.1.2.3"), net("10.1.2.3", 32));
    assert_eq!(network("0.0.0.0/0"), net("0.0.0.0", 0));
    assert_eq!(network("fd00::1/8"), net("fd00::", 8));
    assert_eq!(network("::ffff:10.1.2.3/104"), net("10.0.0.0", 8));
    for text in [
        "",
        "10.0.0.0/",
        "10.0.0.0/33",
        "::/129",
        "10.0.0.0/+8",
        "10/8",
        "web/8",
        "10.0.0.0/8/8",
    ] {
        assert!(network(text).is_err(), "{text}");
    }
    assert!(
        network("10.0.0.0/8")
            .unwrap()
            .contains("::ffff:10.9.9.9".parse().unwrap())
    );
    assert!(network("0.0.0.0/0").unwrap().contains("1.2.3.4".parse().unwrap()));
}

#[test]
fn hosts() {
    for (text, shown) in [
        ("Shop.Example.com", "shop.example.com"),
        ("*.shop.example.com", "*.shop.example.com"),
        ("localhost", "localhost"),
        ("127.0.0.1", "127.0.0.1"),
        ("[::0:1]", "[::1]"),
    ] {
        assert_eq!(
            host_pattern(text).map(|host| host.to_string()),
            Ok(shown.to_owned())
        );
    }
    for text in [
        "", "*", "a.*", "*a.b", "*.", "a..b", ".a", "a.", "http://a", "a:80", "::1", "[::1", "a b", "1.2.3",
        "ä",
    ] {
        assert!(host_pattern(text).is_err(), "{text}");
    }
    for text in ["a", "a:80", "[::1]", "[::1]:80", "127.0.0.1:80"] {
        assert_eq!(host_value(text), Ok(text.to_owned()));
    }
    for text in ["", "a:", "a:x", "*.a", "a/b", "http://a"] {
        assert!(host_value(text).is_err(), "{text}");
    }
}

#[test]
fn status_lists() {
    assert_eq!(statuses("200-299"), Ok(vec![(200, 299)]));
    assert_eq!(
        statuses("200, 204,301-302"),
        Ok(vec![(200, 200), (204, 204), (301, 302)])
    );
    for text in ["", "2xx", "199", "600", "200-", "200,,204", "299-200"] {
        assert!(statuses(text).is_err(), "{text}");
    }
}

const FULL: &str = include_str!("../../../config/full.toml");

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_text_makes_it_panic(text in "(?s).{0,200}") {
        if let Err(found) = parse(&text, "x", &none) {
            prop_assert!(!found.is_empty());
            let _ = found.render(true);
        }
    }

    #[test]
    fn no_changed_byte_makes_it_panic(at in 0..FULL.len(), byte: u8) {
        let mut bytes = FULL.as_bytes().to_vec();
        bytes[at] = byte;
        if let Ok(text) = String::from_utf8(bytes)
            && let Err(found) = parse(&text, "x", &none)
        {
            prop_assert!(!found.is_empty());
            let _ = found.render(false);
        }
    }

    #[test]
    fn no_cut_or_shuffle_makes_it_panic(lines in proptest::collection::vec(0usize..120, 0..40), cut in 0usize..400) {
        let all: Vec<&str> = FULL.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
        let mut text: String = lines.iter().map(|n| format!("{}\n", all[n % all.len()])).collect();
        let end = text.len().saturating_sub(cut);
        if text.is_char_boundary(end) {
            text.truncate(end);
        }
        if let Err(found) = parse(&text, "x", &none) {
            prop_assert!(!found.is_empty());
            let _ = found.render(false);
        }
    }
}
