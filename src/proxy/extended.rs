//! WebSockets over HTTP/2 (RFC 8441): an extended CONNECT towards the app becomes the handshake of RFC 6455.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::rc::Rc;

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use bytes::Bytes;
use http::header::{CONNECTION, HeaderMap, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, UPGRADE};
use http::{Method, StatusCode};
use hyper::ext::Protocol;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;

use super::exchange::Exchange;
use super::tunnel::Tunnel;

/// What the key is hashed with (RFC 6455 §1.3).
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// An extended CONNECT on its way: its key, and where the stream comes from when the app has agreed.
#[derive(Clone)]
pub(super) struct Extended {
    key: HeaderValue,
    stream: OnUpgrade,
}

/// Write an extended CONNECT for a WebSocket as the request to switch that HTTP/1.1 has. Any other CONNECT stays one,
/// and is refused.
pub(super) fn settle(head: &mut http::request::Parts) {
    let stream = head.extensions.remove::<OnUpgrade>();
    let is_websocket = head
        .extensions
        .remove::<Protocol>()
        .is_some_and(|protocol| protocol.as_str().eq_ignore_ascii_case("websocket"));
    let Some(stream) = stream.filter(|_| is_websocket && head.method == Method::CONNECT) else {
        return;
    };
    let Ok(key) = HeaderValue::try_from(base64(&noise())) else {
        return;
    };
    head.method = Method::GET;
    head.headers
        .insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    head.headers
        .insert(UPGRADE, HeaderValue::from_static("websocket"));
    // The client has none: over HTTP/2 the stream itself shows that both understand each other (RFC 8441 §5.1).
    head.headers.insert(SEC_WEBSOCKET_KEY, key.clone());
    head.extensions.insert(Extended { key, stream });
}

impl Extended {
    /// Whether the app's answer shows that it has read the handshake.
    pub(super) fn is_accepted_by(&self, answer: &HeaderMap) -> bool {
        let mut text = self.key.as_bytes().to_vec();
        text.extend(GUID.bytes());
        let wanted = base64(digest(&SHA1_FOR_LEGACY_USE_ONLY, &text).as_ref());
        answer
            .get(SEC_WEBSOCKET_ACCEPT)
            .is_some_and(|given| given == wanted.as_str())
    }

    /// The answer to the client, for the app's 101.
    pub(super) fn answer(&self, head: &mut http::response::Parts) {
        head.status = StatusCode::OK;
        for name in [CONNECTION, UPGRADE, SEC_WEBSOCKET_ACCEPT] {
            head.headers.remove(name);
        }
    }

    /// Run the tunnel once the answer has gone.
    pub(super) fn runs(self, exchange: &Rc<Exchange>, tunnel: Tunnel) {
        exchange.serving().becomes_tunnel();
        tokio::task::spawn_local(async move {
            match self.stream.await {
                Ok(stream) => tunnel.run(TokioIo::new(stream), Bytes::new()).await,
                Err(_) => tunnel.missed(),
            }
        });
    }
}

/// Not to be foreseen, and never the same (RFC 6455 §4.1).
fn noise() -> [u8; 16] {
    let half = || RandomState::new().build_hasher().finish().to_le_bytes();
    let mut both = [0; 16];
    both[..8].copy_from_slice(&half());
    both[8..].copy_from_slice(&half());
    both
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let at = |place: usize| usize::from(three.get(place).copied().unwrap_or(0));
        let word = at(0) << 16 | at(1) << 8 | at(2);
        for place in 0..4 {
            text.push(if place <= three.len() {
                char::from(DIGITS[word >> (18 - 6 * place) & 63])
            } else {
                '='
            });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_rfc4648() {
        let all = ["", "f", "fo", "foo", "foob", "fooba", "foobar"].map(|text| base64(text.as_bytes()));
        assert_eq!(
            all,
            ["", "Zg==", "Zm8=", "Zm9v", "Zm9vYg==", "Zm9vYmE=", "Zm9vYmFy"]
        );
        assert_ne!(noise(), noise());
    }

    #[test]
    fn the_key_is_hashed_as_in_rfc6455() {
        let text = format!("dGhlIHNhbXBsZSBub25jZQ=={GUID}");
        let hash = digest(&SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes());
        assert_eq!(base64(hash.as_ref()), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }
}
