//! The health protocol of gRPC, `grpc.health.v1.Health/Check`: a few bytes, by hand.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST, HeaderValue, TE, USER_AGENT};
use http::{Method, Request, Uri};
use http_body_util::Full;

use super::answer::{End, Found, Seen};
use super::words::shown;
use crate::upstream::Health;

const PATH: &str = "/grpc.health.v1.Health/Check";
/// Before each message: not compressed (one byte), its length (four).
const PREFIX: usize = 5;
/// Field 1 of the request, a string: its name. Field 1 of the answer, a number: the status.
const NAME: u8 = 0x0a;
const STATUS: u8 = 0x08;

/// Ask about a service; the empty name is the server as a whole. Names are 127 bytes at most.
pub(super) fn request(service: &str, host: &HeaderValue) -> Request<Full<Bytes>> {
    let name = &service.as_bytes()[..service.len().min(127)];
    let mut message = Vec::with_capacity(PREFIX + 2 + name.len());
    message.extend([0; PREFIX]);
    if !name.is_empty() {
        message.extend([NAME, name.len() as u8]);
        message.extend(name);
    }
    message[PREFIX - 1] = (message.len() - PREFIX) as u8;
    let mut request = Request::new(Full::from(message));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = Uri::from_static(PATH);
    let headers = request.headers_mut();
    headers.insert(HOST, host.clone());
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(TE, HeaderValue::from_static("trailers"));
    headers.insert(
        USER_AGENT,
        HeaderValue::from_static(concat!("cutover-probe/", env!("CARGO_PKG_VERSION"))),
    );
    request
}

/// What was asked, in words.
pub(super) fn asked(service: &str) -> String {
    match service {
        "" => format!("gRPC {PATH}"),
        name => format!("gRPC {PATH} of `{name}`"),
    }
}

/// Judge the answer. The endpoint took the connection, so it is healthy or failing.
pub(super) fn judge(service: &str, seen: &Seen, end: &End) -> Found {
    let complaint = complaint(service, seen, end);
    let verdict = match complaint {
        None => Health::Healthy,
        Some(_) => Health::Failing,
    };
    let reason = complaint.unwrap_or_else(|| "SERVING".to_owned());
    Found::new(verdict, seen.status, reason)
}

fn complaint(service: &str, seen: &Seen, end: &End) -> Option<String> {
    match end {
        End::TimedOut(after) => return Some(format!("no whole answer within {after:?}")),
        End::Broken(why) => return Some(why.clone()),
        End::TooLong => return Some("the answer is too long for a gRPC health check".to_owned()),
        End::Complete => {}
    }
    if seen.status != Some(200) {
        return Some(format!(
            "answered HTTP {}, a gRPC server answers 200",
            seen.status.unwrap_or_default()
        ));
    }
    let field = |name: &str| {
        let value = seen.trailers.get(name).map(HeaderValue::as_bytes);
        value.map(shown)
    };
    match field("grpc-status").as_deref() {
        Some("0") => {}
        Some("5") => return Some(format!("it knows no service `{service}` (NOT_FOUND)")),
        Some("12") => {
            return Some("it has no grpc.health.v1.Health service (UNIMPLEMENTED)".to_owned());
        }
        Some(code) => {
            let message = field("grpc-message").unwrap_or_default();
            return Some(format!("grpc-status {code} {message}").trim_end().to_owned());
        }
        None => return Some("the answer has no grpc-status: it is not gRPC".to_owned()),
    }
    match status(&seen.body) {
        Some(1) => None,
        Some(0) => Some("UNKNOWN".to_owned()),
        Some(2) => Some("NOT_SERVING".to_owned()),
        Some(3) => Some("SERVICE_UNKNOWN".to_owned()),
        Some(other) => Some(format!("unknown serving status {other}")),
        None => Some("the answer is no HealthCheckResponse".to_owned()),
    }
}

/// The status of a HealthCheckResponse; one that is left out is 0 (proto3).
fn status(body: &[u8]) -> Option<u8> {
    let (prefix, message) = body.split_at_checked(PREFIX)?;
    let length = u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]);
    if prefix[0] != 0 || usize::try_from(length) != Ok(message.len()) {
        return None;
    }
    match message {
        [] => Some(0),
        [STATUS, value, ..] if *value < 0x80 => Some(*value),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(status: Option<&'static str>, body: &[u8]) -> Seen {
        let mut seen = Seen {
            status: Some(200),
            body: body.to_vec(),
            ..Seen::default()
        };
        if let Some(status) = status {
            seen.trailers
                .insert("grpc-status", HeaderValue::from_static(status));
        }
        seen
    }

    #[test]
    fn only_serving_is_healthy() {
        let of = |status, body: &[u8]| judge("shop", &seen(status, body), &End::Complete).reason;
        assert_eq!(of(Some("0"), &[0, 0, 0, 0, 2, 8, 1]), "SERVING");
        assert_eq!(of(Some("0"), &[0, 0, 0, 0, 2, 8, 2]), "NOT_SERVING");
        assert_eq!(of(Some("0"), &[0, 0, 0, 0, 0]), "UNKNOWN");
        assert_eq!(of(Some("0"), b""), "the answer is no HealthCheckResponse");
        assert_eq!(
            of(Some("0"), &[1, 0, 0, 0, 2, 8, 1]),
            "the answer is no HealthCheckResponse"
        );
        assert_eq!(of(Some("5"), b""), "it knows no service `shop` (NOT_FOUND)");
        assert_eq!(
            of(None, b"<html>"),
            "the answer has no grpc-status: it is not gRPC"
        );
        assert_eq!(of(Some("14"), b""), "grpc-status 14");
    }
}
