//! One line of the journal: `SUM PREV SEQ {json}`.
//!
//! SUM is the checksum of everything behind it, so a torn or damaged line is known by itself. PREV repeats the SUM
//! of the line before, so a line that is missing, repeated or moved is known by its neighbours.

use sha2::{Digest, Sha256};

/// The longest line, in bytes and with its newline, that is written or read.
pub const LINE_MAX: usize = 1 << 20;

const HEX: usize = 16;

/// How many places that look like the beginning of a line are tried in a damaged one.
const SHAPES_MAX: usize = 64;

/// A checksum as it stands in the file: the first 64 bits of SHA-256 in lower-case hex.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sum([u8; HEX]);

impl Sum {
    /// What the first line has as PREV.
    pub(super) const NONE: Self = Self([b'0'; HEX]);

    fn of(bytes: &[u8]) -> Self {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let digest = Sha256::digest(bytes);
        let mut hex = [0; HEX];
        for (pair, byte) in hex.chunks_exact_mut(2).zip(digest.iter()) {
            pair[0] = DIGITS[usize::from(byte >> 4)];
            pair[1] = DIGITS[usize::from(byte & 15)];
        }
        Self(hex)
    }
}

/// A line whose checksum is right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Line<'a> {
    pub(super) sum: Sum,
    pub(super) prev: Sum,
    pub(super) seq: u64,
    pub(super) json: &'a str,
}

/// Write a line, newline included, to the end of `out`; returns its checksum.
pub(super) fn write(out: &mut Vec<u8>, prev: Sum, seq: u64, json: &str) -> Sum {
    let mut rest = Vec::with_capacity(json.len() + 40);
    rest.extend_from_slice(&prev.0);
    rest.push(b' ');
    rest.extend_from_slice(seq.to_string().as_bytes());
    rest.push(b' ');
    rest.extend_from_slice(json.as_bytes());
    let sum = Sum::of(&rest);
    out.extend_from_slice(&sum.0);
    out.push(b' ');
    out.append(&mut rest);
    out.push(b'\n');
    sum
}

/// Read a line, given without its newline; `None` if it is not exactly what was written.
pub(super) fn read(bytes: &[u8]) -> Option<Line<'_>> {
    let (sum, rest) = checksum(bytes)?;
    if Sum::of(rest) != sum {
        return None;
    }
    let (prev, rest) = checksum(rest)?;
    let (seq, json) = std::str::from_utf8(rest).ok()?.split_once(' ')?;
    Some(Line {
        sum,
        prev,
        seq: seq.parse().ok()?,
        json,
    })
}

/// Find a whole line at the end of bytes whose beginning is damaged: what is left when the newline between two
/// lines was lost.
pub(super) fn read_behind_damage(bytes: &[u8]) -> Option<Line<'_>> {
    // The cheap test on shape comes first: two checksums, a blank behind each. The bound is for text that somebody
    // filled with such shapes on purpose.
    (1..bytes.len())
        .filter_map(|start| bytes.get(start..))
        .filter(|tail| checksum(tail).is_some_and(|(_, rest)| checksum(rest).is_some()))
        .take(SHAPES_MAX)
        .find_map(read)
}

fn checksum(bytes: &[u8]) -> Option<(Sum, &[u8])> {
    let (hex, rest) = bytes.split_first_chunk::<HEX>()?;
    let shaped = hex.iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    match rest.split_first() {
        Some((b' ', rest)) if shaped => Some((Sum(*hex), rest)),
        _ => None,
    }
}
