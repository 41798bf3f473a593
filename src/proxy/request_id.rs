//! Request ids: 32 hex digits, unique enough to find one request in the logs of both sides.

use std::cell::Cell;
use std::hash::{BuildHasher, RandomState};

use http::HeaderValue;

/// A worker's source of ids.
#[derive(Debug)]
pub struct RequestIds {
    /// Random in each process and worker.
    prefix: u64,
    next: Cell<u64>,
}

/// Ids from elsewhere longer than this are replaced.
const ACCEPTED_MAX: usize = 128;

impl Default for RequestIds {
    fn default() -> Self {
        Self::new()
    }
}

impl RequestIds {
    /// A source seeded from the system's randomness.
    #[must_use]
    pub fn new() -> Self {
        let random = || RandomState::new().hash_one(std::process::id());
        Self {
            prefix: random(),
            next: Cell::new(random()),
        }
    }

    /// A new id.
    pub fn next(&self) -> HeaderValue {
        let count = self.next.replace(self.next.get().wrapping_add(1));
        let mut text = [0; 32];
        hex(self.prefix, &mut text[..16]);
        hex(mix(count), &mut text[16..]);
        HeaderValue::from_bytes(&text).unwrap_or_else(|_| HeaderValue::from_static("0"))
    }

    /// Where the source stands. Set back to an earlier place it says again what it has said from there.
    pub(super) fn stand(&self, at: Option<u64>) -> u64 {
        let before = self.next.get();
        self.next.set(at.unwrap_or(before));
        before
    }

    /// A number unlike those before it, and unlike those of another process.
    pub(super) fn noise(&self) -> u64 {
        let count = self.next.replace(self.next.get().wrapping_add(1));
        mix(self.prefix ^ mix(count))
    }
}

/// Whether an id that came with a request may be passed on.
pub(super) fn acceptable(id: &HeaderValue) -> bool {
    !id.is_empty() && id.len() <= ACCEPTED_MAX && id.as_bytes().iter().all(u8::is_ascii_graphic)
}

/// Spread a counter over all bits (the finaliser of splitmix64).
fn mix(mut n: u64) -> u64 {
    n = (n ^ (n >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    n = (n ^ (n >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    n ^ (n >> 31)
}

fn hex(n: u64, out: &mut [u8]) {
    let digit = |nibble: u8| b"0123456789abcdef"[usize::from(nibble)];
    for (byte, pair) in n.to_be_bytes().into_iter().zip(out.chunks_exact_mut(2)) {
        pair.copy_from_slice(&[digit(byte >> 4), digit(byte & 0xF)]);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn ids_are_32_hex_digits_and_differ() {
        let ids = RequestIds::new();
        let made: HashSet<_> = (0..1_000).map(|_| ids.next()).collect();
        assert_eq!(made.len(), 1_000);
        for id in made {
            assert!(
                id.len() == 32 && id.as_bytes().iter().all(u8::is_ascii_hexdigit),
                "{id:?}"
            );
        }
    }

    #[test]
    fn ids_that_could_break_a_log_are_not_accepted() {
        let long = "x".repeat(129);
        for (id, fine) in [
            ("abc-123", true),
            ("", false),
            ("a b", false),
            (long.as_str(), false),
        ] {
            let value = HeaderValue::from_str(id).unwrap_or_else(|_| HeaderValue::from_static(""));
            assert_eq!(acceptable(&value), fine, "{id:?}");
        }
    }
}
