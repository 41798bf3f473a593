//! Which protocol a client in clear text speaks, seen in its first bytes (RFC 9113 §3.3, "prior knowledge").

use crate::wire::Socket;

/// What a client sends first over HTTP/2 (RFC 9113 §3.4). No request of HTTP/1 begins so.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A version of HTTP that connections are served in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    /// HTTP/1.0 and 1.1.
    Http1,
    /// HTTP/2.
    Http2,
}

/// Wait for the first bytes and tell by them; they stay in the socket. The caller bounds it in time.
pub(super) async fn spoken(socket: &Socket) -> Protocol {
    let mut first = [0; PREFACE.len()];
    loop {
        // An error, or an end without a preface: HTTP/1 meets it again and knows what to do.
        let Ok(ended) = socket.readable().await else {
            return Protocol::Http1;
        };
        match socket.peek_at(&mut first, judge) {
            Ok(protocol) => return protocol,
            Err(error) if !ended && error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => return Protocol::Http1,
        }
    }
}

/// `None` while both are possible.
fn judge(seen: &[u8]) -> Option<Protocol> {
    if seen == PREFACE {
        return Some(Protocol::Http2);
    }
    let possible = !seen.is_empty() && PREFACE.starts_with(seen);
    (!possible).then_some(Protocol::Http1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_preface_is_http2() {
        assert_eq!(judge(PREFACE), Some(Protocol::Http2));
        for cut in 1..PREFACE.len() {
            assert_eq!(judge(&PREFACE[..cut]), None, "{cut}");
        }
        for other in [
            &b""[..],
            b"G",
            b"PO",
            b"PRI * HTTP/1",
            b"PRI * HTTP/2.0\r\nH",
            b"\x16\x03\x01",
        ] {
            assert_eq!(judge(other), Some(Protocol::Http1), "{other:?}");
        }
    }
}
