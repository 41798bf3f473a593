//! What gRPC wants of a proxy: a status in its own words, its deadlines, and an end between two messages.
//!
//! The protocol is "gRPC over HTTP/2" of its own documentation; an answer that has no body but a status is called
//! Trailers-Only there.

use std::fmt::Write as _;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Response};
use tokio::time::Instant;

use super::body::ReplyBody;
use super::error::ProxyError;

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// Before each message: whether it is compressed, and its length.
const PREFIX: usize = 5;
/// A longer time is none, and would overflow the clock.
const TIMEOUT_MAX: Duration = Duration::from_secs(366 * 24 * 3600);
/// A client sends nothing on a call for as long as it likes; what bounds it is `timeouts.idle`, over both directions.
pub(super) const SILENCE: Duration = TIMEOUT_MAX;

/// How a call ended, as far as a proxy can say so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Code {
    InvalidArgument = 3,
    DeadlineExceeded = 4,
    PermissionDenied = 7,
    ResourceExhausted = 8,
    Unimplemented = 12,
    Unavailable = 14,
}

/// A gRPC call.
#[derive(Clone, Copy, Debug)]
pub(super) struct Call {
    /// When its client gives it up.
    pub(super) deadline: Option<Instant>,
}

impl Call {
    /// The call that a request is, if it is one.
    pub(super) fn of(method: &Method, headers: &HeaderMap) -> Option<Self> {
        if *method != Method::POST || !is_grpc(headers) {
            return None;
        }
        let timeout = headers
            .get(GRPC_TIMEOUT)
            .and_then(|value| timeout(value.as_bytes()));
        Some(Self {
            deadline: timeout.map(|timeout| Instant::now() + timeout),
        })
    }
}

/// Whether a message is gRPC: `application/grpc`, with any encoding of its messages.
pub(super) fn is_grpc(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    let rest = kind.and_then(|kind| kind.strip_prefix(b"application/grpc"));
    // `application/grpc-web` is another protocol.
    rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
}

/// Up to eight digits and a unit: hours, minutes, seconds, milli-, micro- and nanoseconds.
fn timeout(value: &[u8]) -> Option<Duration> {
    let (unit, digits) = value.split_last()?;
    if digits.is_empty() || digits.len() > 8 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    let timeout = match unit {
        b'H' => Duration::from_secs(number * 3600),
        b'M' => Duration::from_secs(number * 60),
        b'S' => Duration::from_secs(number),
        b'm' => Duration::from_millis(number),
        b'u' => Duration::from_micros(number),
        b'n' => Duration::from_nanos(number),
        _ => return None,
    };
    Some(timeout.min(TIMEOUT_MAX))
}

impl From<ProxyError> for Code {
    /// One exhaustive match: the whole mapping on one screen.
    fn from(error: ProxyError) -> Self {
        match error.status().as_u16() {
            400 => Self::InvalidArgument,
            403 => Self::PermissionDenied,
            404 => Self::Unimplemented,
            413 | 414 | 431 => Self::ResourceExhausted,
            408 => Self::DeadlineExceeded,
            504 if error == ProxyError::FirstByteTimeout => Self::DeadlineExceeded,
            _ => Self::Unavailable,
        }
    }
}

/// The answer to a call that is not forwarded: 200, because gRPC knows no other, and its own status.
pub(super) fn refusal(error: ProxyError, words: &str) -> Response<ReplyBody> {
    let mut response = Response::new(ReplyBody::none());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.extend(trailers(error.into(), words));
    response
}

/// How a call ends.
pub(super) fn trailers(code: Code, words: &str) -> HeaderMap {
    let mut trailers = HeaderMap::with_capacity(2);
    trailers.insert(GRPC_STATUS, HeaderValue::from(code as u16));
    let message = HeaderValue::try_from(escaped(words));
    trailers.insert(GRPC_MESSAGE, message.unwrap_or(HeaderValue::from_static("")));
    trailers
}

/// Printable ASCII without `%`, the rest in percent signs.
fn escaped(words: &str) -> String {
    let mut out = String::with_capacity(words.len());
    for byte in words.bytes() {
        match byte {
            b' '..=b'~' if byte != b'%' => out.push(char::from(byte)),
            _ => drop(write!(out, "%{byte:02X}")),
        }
    }
    out
}

/// Finds the ends of messages.
#[derive(Clone, Debug, Default)]
pub(super) struct Messages {
    /// What has come of a prefix.
    prefix: [u8; PREFIX],
    had: usize,
    /// What is still to come of a message.
    left: u64,
}

impl Messages {
    /// The last message is whole, or there was none yet.
    pub(super) fn at_edge(&self) -> bool {
        self.had == 0 && self.left == 0
    }

    /// How many of these bytes belong to whole messages, if one ends here.
    pub(super) fn feed(&mut self, bytes: &Bytes) -> Option<usize> {
        let mut last = None;
        let mut at = 0;
        while at < bytes.len() {
            if self.left > 0 {
                let step = usize::try_from(self.left)
                    .unwrap_or(usize::MAX)
                    .min(bytes.len() - at);
                at += step;
                self.left -= step as u64;
            } else {
                self.prefix[self.had] = bytes[at];
                self.had += 1;
                at += 1;
                if self.had == PREFIX {
                    let [_, length @ ..] = self.prefix;
                    (self.left, self.had) = (u64::from(u32::from_be_bytes(length)), 0);
                }
            }
            if self.at_edge() {
                last = Some(at);
            }
        }
        last
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_call_is_known_by_its_type() {
        let of = |kind: &'static str| {
            let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(kind))]);
            Call::of(&Method::POST, &headers).is_some()
        };
        assert!(of("application/grpc") && of("application/grpc+proto") && of("application/grpc;x=y"));
        assert!(!of("application/grpc-web") && !of("application/json") && !of("application/grpcx"));
    }

    #[test]
    fn timeouts_have_eight_digits_and_a_unit() {
        let of = |text: &str| timeout(text.as_bytes()).map(|timeout| timeout.as_nanos());
        assert_eq!(of("1H"), Some(3_600_000_000_000));
        assert_eq!(of("2M"), Some(120_000_000_000));
        assert_eq!(of("3S"), Some(3_000_000_000));
        assert_eq!(of("4m"), Some(4_000_000));
        assert_eq!(of("5u"), Some(5_000));
        assert_eq!(of("99999999n"), Some(99_999_999));
        assert_eq!(of("99999999H"), Some(TIMEOUT_MAX.as_nanos()));
        for wrong in ["", "S", "1", "1s", "-1S", "123456789S", "1 S", "é"] {
            assert_eq!(of(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn a_message_is_written_in_printable_ascii() {
        let all = trailers(Code::Unavailable, "50 % für\n");
        assert_eq!(all["grpc-status"], "14");
        assert_eq!(all["grpc-message"], "50 %25 f%C3%BCr%0A");
    }

    #[test]
    fn refusals_have_the_status_that_clients_act_on() {
        let of = |error| Code::from(error) as u8;
        assert_eq!(of(ProxyError::NoRoute), 12);
        assert_eq!(of(ProxyError::FirstByteTimeout), 4);
        assert_eq!(of(ProxyError::ConnectTimeout), 14);
        assert_eq!(of(ProxyError::NoHealthyEndpoint), 14);
        assert_eq!(of(ProxyError::Maintenance), 14);
        assert_eq!(of(ProxyError::DrainExpired), 14);
        assert_eq!(of(ProxyError::BodyTooLarge), 8);
        assert_eq!(of(ProxyError::Malformed("x")), 3);
    }

    proptest! {
        #[test]
        fn edges_do_not_depend_on_how_the_bytes_come(
            lengths in prop::collection::vec(0_usize..20, 0..8), cut: prop::sample::Index, extra in 0_usize..4,
        ) {
            let mut text = Vec::new();
            for length in &lengths {
                text.extend([0, 0, 0, 0, u8::try_from(*length).unwrap()]);
                text.resize(text.len() + length, 7);
            }
            let whole_messages = text.len();
            text.resize(text.len() + extra, 0);
            let cut = cut.index(text.len() + 1);
            let (mut whole, mut split) = (Messages::default(), Messages::default());
            let last = whole.feed(&Bytes::copy_from_slice(&text));
            let first = split.feed(&Bytes::copy_from_slice(&text[..cut]));
            let second = split.feed(&Bytes::copy_from_slice(&text[cut..])).map(|at| at + cut);
            prop_assert_eq!(last, second.or(first));
            prop_assert_eq!(last, (whole_messages > 0).then_some(whole_messages));
            prop_assert_eq!((whole.at_edge(), split.at_edge()), (extra == 0, extra == 0));
        }
    }
}
