//! One record as one line. Written by hand: serialisers allocate, and here bytes need not be text.

use std::io::Write as _;
use std::time::{Duration, SystemTime};

use http::Version;
use jiff::Timestamp;

use super::Record;
use crate::rollout::Color;

/// Bytes of one value that are logged; the rest is cut off.
const VALUE_MAX: usize = 2048;

/// The current second as text: formatted once a second, not once a record.
#[derive(Debug, Default)]
pub(super) struct Clock {
    second: u64,
    iso: Vec<u8>,
    combined: Vec<u8>,
}

impl Clock {
    /// Milliseconds within the second whose text the clock now holds. (A time before 1970 is 1970.)
    fn set(&mut self, time: SystemTime) -> u32 {
        let since = time
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or(Duration::ZERO);
        if self.second != since.as_secs() || self.iso.is_empty() {
            self.second = since.as_secs();
            let at = i64::try_from(self.second)
                .ok()
                .and_then(|second| Timestamp::from_second(second).ok())
                .unwrap_or_default();
            self.iso.clear();
            self.combined.clear();
            // Writing to a vector cannot fail.
            let _ = write!(self.iso, "{}", at.strftime("%Y-%m-%dT%H:%M:%S"));
            let _ = write!(self.combined, "{}", at.strftime("%d/%b/%Y:%H:%M:%S +0000"));
        }
        since.subsec_millis()
    }
}

/// One JSON object and a line end. The same keys in the same order in every line.
pub(super) fn json(out: &mut Vec<u8>, clock: &mut Clock, record: &Record<'_>) {
    let millis = clock.set(record.time);
    out.extend_from_slice(b"{\"time\":\"");
    out.extend_from_slice(&clock.iso);
    out.push(b'.');
    digits(out, u64::from(millis), 3);
    out.push(b'Z');
    out.extend_from_slice(b"\",\"method\":");
    text(out, Some(record.method.as_bytes()));
    out.extend_from_slice(b",\"scheme\":");
    text(out, Some(record.scheme.as_bytes()));
    out.extend_from_slice(b",\"host\":");
    text(out, record.host);
    out.extend_from_slice(b",\"path\":");
    text(out, Some(without_query(record.path)));
    out.extend_from_slice(b",\"proto\":\"");
    out.extend_from_slice(protocol(record.version));
    out.extend_from_slice(b"\",\"status\":");
    digits(out, u64::from(record.status), 1);
    out.extend_from_slice(b",\"duration_s\":");
    seconds(out, record.duration);
    out.extend_from_slice(b",\"upstream_duration_s\":");
    match record.upstream_duration {
        Some(duration) => seconds(out, duration),
        None => out.extend_from_slice(b"null"),
    }
    out.extend_from_slice(b",\"bytes_in\":");
    digits(out, record.bytes_in, 1);
    out.extend_from_slice(b",\"bytes_out\":");
    digits(out, record.bytes_out, 1);
    out.extend_from_slice(b",\"client_ip\":");
    match record.client {
        Some(client) => {
            let _ = write!(out, "\"{client}\"");
        }
        None => out.extend_from_slice(b"null"),
    }
    let strings: [(&[u8], Option<&[u8]>); 6] = [
        (b",\"app\":", record.app.map(str::as_bytes)),
        (b",\"service\":", record.service.map(str::as_bytes)),
        (b",\"color\":", record.color.map(Color::as_str).map(str::as_bytes)),
        (b",\"endpoint\":", record.endpoint.map(str::as_bytes)),
        (b",\"request_id\":", record.request_id),
        (b",\"trace_id\":", record.trace_id),
    ];
    for (key, value) in strings {
        out.extend_from_slice(key);
        text(out, value);
    }
    out.extend_from_slice(b",\"retry\":");
    digits(out, u64::from(record.retries), 1);
    out.extend_from_slice(b",\"error\":");
    text(out, record.error.map(str::as_bytes));
    out.extend_from_slice(b",\"user_agent\":");
    text(out, record.user_agent);
    out.extend_from_slice(b",\"referer\":");
    text(out, record.referer.map(without_query));
    out.extend_from_slice(b"}\n");
}

/// The combined form of Apache and nginx, escaped as nginx does: `"`, `\` and all that is not printable ASCII is
/// `\xHH`. The user is always `-`, the zone always UTC.
pub(super) fn combined(out: &mut Vec<u8>, clock: &mut Clock, record: &Record<'_>) {
    clock.set(record.time);
    match record.client {
        Some(client) => {
            let _ = write!(out, "{client}");
        }
        None => out.push(b'-'),
    }
    out.extend_from_slice(b" - - [");
    out.extend_from_slice(&clock.combined);
    out.extend_from_slice(b"] \"");
    if record.method.is_empty() {
        out.push(b'-');
    } else {
        hex_escaped(out, record.method.as_bytes());
        out.push(b' ');
        hex_escaped(out, without_query(record.path));
        out.push(b' ');
        out.extend_from_slice(protocol(record.version));
    }
    out.extend_from_slice(b"\" ");
    digits(out, u64::from(record.status), 3);
    out.push(b' ');
    digits(out, record.bytes_out, 1);
    for value in [record.referer.map(without_query), record.user_agent] {
        out.extend_from_slice(b" \"");
        match value {
            None | Some([]) => out.push(b'-'),
            Some(value) => hex_escaped(out, value),
        }
        out.push(b'"');
    }
    out.push(b'\n');
}

fn without_query(target: &[u8]) -> &[u8] {
    let end = target.iter().position(|byte| matches!(byte, b'?' | b'#'));
    &target[..end.unwrap_or(target.len())]
}

const fn protocol(version: Version) -> &'static [u8] {
    match version {
        Version::HTTP_09 => b"HTTP/0.9",
        Version::HTTP_10 => b"HTTP/1.0",
        Version::HTTP_2 => b"HTTP/2.0",
        Version::HTTP_3 => b"HTTP/3.0",
        _ => b"HTTP/1.1",
    }
}

/// A JSON string of any bytes, or `null`. What is not UTF-8 becomes U+FFFD; control characters (DEL and C1
/// included, which terminals obey) are escaped.
fn text(out: &mut Vec<u8>, value: Option<&[u8]>) {
    let Some(value) = value else {
        out.extend_from_slice(b"null");
        return;
    };
    out.push(b'"');
    for chunk in cut(value).utf8_chunks() {
        plain(out, chunk.valid());
        if !chunk.invalid().is_empty() {
            out.extend_from_slice("\u{FFFD}".as_bytes());
        }
    }
    out.push(b'"');
}

fn plain(out: &mut Vec<u8>, valid: &str) {
    let special = |c: char| c == '"' || c == '\\' || c.is_control();
    let mut rest = valid;
    while let Some(at) = rest.find(special) {
        let (before, from) = rest.split_at(at);
        out.extend_from_slice(before.as_bytes());
        let mut chars = from.chars();
        match chars.next() {
            Some(c @ ('"' | '\\')) => out.extend_from_slice(&[b'\\', c as u8]),
            Some(c) => {
                // Control characters end at U+009F.
                let c = c as u32 as u8;
                out.extend_from_slice(b"\\u00");
                out.extend_from_slice(&[hex(c >> 4), hex(c & 15)]);
            }
            None => {}
        }
        rest = chars.as_str();
    }
    out.extend_from_slice(rest.as_bytes());
}

fn hex_escaped(out: &mut Vec<u8>, value: &[u8]) {
    let value = &value[..value.len().min(VALUE_MAX)];
    for &byte in value {
        match byte {
            b'"' | b'\\' | 0..=31 | 127.. => {
                out.extend_from_slice(&[b'\\', b'x', hex(byte >> 4), hex(byte & 15)]);
            }
            byte => out.push(byte),
        }
    }
}

const fn hex(nibble: u8) -> u8 {
    b"0123456789ABCDEF"[(nibble & 15) as usize]
}

/// The first [`VALUE_MAX`] bytes, without a character that the cut goes through.
fn cut(value: &[u8]) -> &[u8] {
    if value.len() <= VALUE_MAX {
        return value;
    }
    let mut end = VALUE_MAX;
    while end > VALUE_MAX - 3 && value[end] & 0xC0 == 0x80 {
        end -= 1;
    }
    &value[..end]
}

/// Seconds with six decimals.
fn seconds(out: &mut Vec<u8>, duration: Duration) {
    digits(out, duration.as_secs(), 1);
    out.push(b'.');
    digits(out, u64::from(duration.subsec_micros()), 6);
}

/// A number with at least `width` digits.
fn digits(out: &mut Vec<u8>, mut number: u64, width: usize) {
    let mut buffer = [b'0'; 20];
    let mut at = buffer.len();
    while number > 0 || buffer.len() - at < width {
        at -= 1;
        buffer[at] = b'0' + (number % 10) as u8;
        number /= 10;
    }
    out.extend_from_slice(&buffer[at..]);
}
