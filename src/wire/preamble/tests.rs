//! Headers whole and in pieces, good and bad; and anything at all.
#![allow(clippy::unwrap_used, reason = "a test panics to fail")]

use proptest::prelude::*;

use super::*;

/// Read as from a socket that gives what is asked for, at most `piece` bytes at a time. With what was left unread.
fn pull(bytes: &[u8], piece: usize) -> Result<(Preamble, usize), Malformed> {
    let mut taken = 0;
    loop {
        match read(&bytes[..taken])? {
            Step::Done(preamble) => return Ok((preamble, bytes.len() - taken)),
            Step::More(more) => {
                assert!(more > 0, "stands still at {taken}");
                if taken == bytes.len() {
                    return Err(Malformed("cut short"));
                }
                taken += more.min(piece).min(bytes.len() - taken);
            }
        }
    }
}

fn client(source: &str, destination: &str) -> Preamble {
    Preamble::Client {
        source: source.parse().unwrap(),
        destination: destination.parse().unwrap(),
    }
}

fn v2(command: u8, family: u8, block: &[u8]) -> Vec<u8> {
    binary(command, family, block)
}

#[test]
fn lines_of_version_1() {
    let of = |line: &str| pull(format!("{line}\r\n").as_bytes(), 999).map(|(preamble, _)| preamble);
    let good = "PROXY TCP4 203.0.113.9 198.51.100.1 56324 443";
    assert_eq!(of(good), Ok(client("203.0.113.9:56324", "198.51.100.1:443")));
    assert_eq!(
        of("PROXY TCP6 2001:db8::9 ::1 1 65535"),
        Ok(client("[2001:db8::9]:1", "[::1]:65535"))
    );
    assert_eq!(
        of("PROXY TCP4 1.1.1.1 1.1.1.1 0 0"),
        Ok(client("1.1.1.1:0", "1.1.1.1:0"))
    );
    for own in [
        "PROXY UNKNOWN",
        "PROXY UNKNOWN ffff::1 ffff::2 65535 65535",
        "PROXY UNKNOWN \t?",
    ] {
        assert_eq!(of(own), Ok(Preamble::Own(None)), "{own}");
    }
    for bad in [
        "PROXY TCP4 203.0.113.9 198.51.100.1 56324",
        "PROXY TCP4 203.0.113.9 198.51.100.1 56324 443 ",
        "PROXY TCP4  203.0.113.9 198.51.100.1 56324 443",
        "PROXY TCP4 203.0.113.9 198.51.100.1 056324 443",
        "PROXY TCP4 203.0.113.9 198.51.100.1 +1 443",
        "PROXY TCP4 203.0.113.9 198.51.100.1 65536 443",
        "PROXY TCP4 203.0.113.09 198.51.100.1 1 443",
        "PROXY TCP4 2001:db8::9 ::1 1 2",
        "PROXY TCP6 203.0.113.9 198.51.100.1 1 2",
        "PROXY UDP4 203.0.113.9 198.51.100.1 1 2",
        "PROXY UNKNOWNS 203.0.113.9 198.51.100.1",
        "PROXY tcp4 203.0.113.9 198.51.100.1 1 2",
        "proxy TCP4 203.0.113.9 198.51.100.1 1 2",
        "PROXY TCP4 203.0.113.9\n198.51.100.1 1 2",
        "PROXY\tTCP4 203.0.113.9 198.51.100.1 1 2",
        "PROXY TCP4 \u{e4} 198.51.100.1 1 2",
        "GET / HTTP/1.1",
        "",
    ] {
        assert!(of(bad).is_err(), "{bad:?}");
    }
    let endless = format!("PROXY UNKNOWN {}", "x".repeat(200));
    assert!(of(&endless).is_err());
    let longest = format!("PROXY UNKNOWN {}", "x".repeat(LINE_MAX - 16));
    assert_eq!(of(&longest), Ok(Preamble::Own(None)));
}

#[test]
fn headers_of_version_2() {
    let of = |bytes: &[u8]| pull(bytes, 9999).map(|(preamble, _)| preamble);
    let tcp4 = [203, 0, 113, 9, 198, 51, 100, 1, 0xDC, 0x04, 0x01, 0xBB];
    let known = client("203.0.113.9:56324", "198.51.100.1:443");
    assert_eq!(of(&v2(0x21, 0x11, &tcp4)), Ok(known.clone()));
    // Further fields are passed over, as long as they fit.
    let with = |fields: &[u8]| v2(0x21, 0x11, &[&tcp4[..], fields].concat());
    assert_eq!(of(&with(&[0x04, 0, 2, 0, 0, 0xEA, 0, 1, b'x'])), Ok(known));
    assert!(of(&with(&[0x04, 0, 3, 0, 0])).is_err());
    assert!(of(&with(&[0x04, 0])).is_err());
    let mut tcp6 = [0; 36];
    tcp6[15] = 1;
    tcp6[31] = 2;
    tcp6[33] = 7;
    assert_eq!(of(&v2(0x21, 0x21, &tcp6)), Ok(client("[::1]:7", "[::2]:0")));
    // LOCAL says nothing, whatever it says; so do datagrams and Unix sockets.
    for own in [
        v2(0x20, 0x00, &[]),
        v2(0x20, 0x11, &tcp4),
        v2(0x20, 0xFF, &[1, 2, 3]),
        v2(0x21, 0x00, &[1, 2, 3]),
        v2(0x21, 0x12, &tcp4),
        v2(0x21, 0x31, &[0; 216]),
    ] {
        assert_eq!(of(&own), Ok(Preamble::Own(None)), "{own:?}");
    }
    for bad in [
        v2(0x11, 0x11, &tcp4),
        v2(0x22, 0x11, &tcp4),
        v2(0x21, 0x11, &tcp4[..11]),
        v2(0x21, 0x21, &tcp6[..35]),
        v2(0x21, 0x31, &[0; 215]),
        v2(0x21, 0x13, &tcp4),
        v2(0x21, 0x41, &tcp4),
        v2(0x21, 0x00, &[0; HEADER_MAX - 15]),
    ] {
        assert!(of(&bad).is_err(), "{:?}", &bad[..20.min(bad.len())]);
    }
    assert_eq!(
        of(&v2(0x21, 0x00, &[0; HEADER_MAX - 16])),
        Ok(Preamble::Own(None))
    );
}

#[test]
fn our_own_connections_are_known_by_their_secret() {
    let (preamble, left) = pull(&own(b"0123abcd"), 1).unwrap();
    assert_eq!((preamble, left), (Preamble::Own(Some(b"0123abcd"[..].into())), 0));
}

#[test]
fn one_family_for_both_ends() {
    let ends = Some((
        "203.0.113.9:1".parse().unwrap(),
        "[2001:db8::1]:2".parse().unwrap(),
    ));
    assert_eq!(
        Version::V1.header(ends),
        b"PROXY TCP6 ::ffff:203.0.113.9 2001:db8::1 1 2\r\n"
    );
    let ends = Some((
        "[::ffff:10.0.0.1]:1".parse().unwrap(),
        "10.0.0.2:2".parse().unwrap(),
    ));
    assert_eq!(Version::V1.header(ends), b"PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\n");
}

fn address() -> impl Strategy<Value = SocketAddr> {
    let ip = prop_oneof![
        any::<[u8; 4]>().prop_map(IpAddr::from),
        any::<[u8; 16]>()
            .prop_map(Ipv6Addr::from)
            .prop_filter("IPv4 in disguise", |ip| ip.to_ipv4_mapped().is_none())
            .prop_map(IpAddr::from),
    ];
    (ip, any::<u16>()).prop_map(SocketAddr::from)
}

proptest! {
    /// What we write we read, in pieces of any size, and never a byte of what follows.
    #[test]
    fn written_and_read(source in address(), destination in address(), v2: bool, piece in 1usize..40, after in "[ -~]{0,40}") {
        let version = if v2 { Version::V2 } else { Version::V1 };
        let mut bytes = version.header(Some((source, destination)));
        bytes.extend_from_slice(after.as_bytes());
        let (preamble, left) = pull(&bytes, piece).unwrap();
        prop_assert_eq!(left, after.len());
        let Preamble::Client { source: from, destination: to } = preamble else {
            return Err(TestCaseError::fail("no client"));
        };
        prop_assert_eq!((canonical(from), canonical(to)), (source, destination));
    }

    /// Anything at all: an answer or an error, never a panic, never more than the bound.
    #[test]
    fn anything(bytes in proptest::collection::vec(any::<u8>(), 0..300), piece in 1usize..40, kind in 0u8..4) {
        let start: &[u8] = match kind {
            0 => b"",
            1 => b"PROXY ",
            2 => &SIGNATURE,
            _ => b"PROXY TCP4 1.2.3.4 ",
        };
        let bytes = [start, &bytes].concat();
        let _ = pull(&bytes, piece);
        if let Ok(Step::More(more)) = read(&bytes) {
            prop_assert!(more > 0 && bytes.len() + more <= HEADER_MAX);
        }
    }

    /// A header with one byte changed is read in the same bounds, and a cut one is never whole.
    #[test]
    fn spoilt(source in address(), destination in address(), v2: bool, at in 0usize..60, byte: u8) {
        let version = if v2 { Version::V2 } else { Version::V1 };
        let mut bytes = version.header(Some((source, destination)));
        let at = at % bytes.len();
        prop_assert!(!matches!(read(&bytes[..at]), Ok(Step::Done(_))));
        bytes[at] = byte;
        let _ = pull(&bytes, 1);
    }
}
