//! The few facts of a certificate that rustls does not tell: its names, its last second, its subject (RFC 5280).
//!
//! Read only of our own certificates and of those that rustls has verified; anything odd is `None`, never a panic.

use std::fmt::Write as _;
use std::net::IpAddr;

use jiff::civil::DateTime;
use jiff::tz::TimeZone;

const INTEGER: u8 = 0x02;
const OBJECT: u8 = 0x06;
const UTF8: u8 = 0x0c;
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// 2.5.29.17, subjectAltName.
const SUBJECT_ALT_NAME: &[u8] = &[0x55, 0x1d, 0x11];

/// What a certificate says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Facts {
    /// `dNSName`s of the subjectAltName, in lower case; `*.` may be the first label.
    pub(super) dns: Vec<String>,
    /// `iPAddress`es of the subjectAltName.
    pub(super) ips: Vec<IpAddr>,
    /// Its last second, in Unix time.
    pub(super) not_after: i64,
    /// The subject as RFC 4514 writes it, in ASCII: fit for a header.
    pub(super) subject: String,
}

impl Facts {
    /// Of a certificate in DER.
    pub(super) fn read(certificate: &[u8]) -> Option<Self> {
        let mut body = Der(Der(Der(certificate).take(SEQUENCE)?).take(SEQUENCE)?);
        // The version is explicit and may be left out.
        if body.peek() == Some(0xa0) {
            body.next()?;
        }
        body.take(INTEGER)?;
        let _algorithm = body.take(SEQUENCE)?;
        let _issuer = body.take(SEQUENCE)?;
        let mut validity = Der(body.take(SEQUENCE)?);
        let _not_before = validity.next()?;
        let (kind, text) = validity.next()?;
        let not_after = time(kind, text)?;
        let subject = subject(body.take(SEQUENCE)?)?;
        let _key = body.take(SEQUENCE)?;
        let mut facts = Self {
            dns: Vec::new(),
            ips: Vec::new(),
            not_after,
            subject,
        };
        while let Some((tag, content)) = body.next() {
            if tag == 0xa3 {
                facts.read_extensions(content)?;
            }
        }
        Some(facts)
    }

    fn read_extensions(&mut self, content: &[u8]) -> Option<()> {
        let mut extensions = Der(Der(content).take(SEQUENCE)?);
        while let Some((SEQUENCE, extension)) = extensions.next() {
            let mut fields = Der(extension);
            let id = fields.take(OBJECT)?;
            let (mut tag, mut value) = fields.next()?;
            // `critical`, when it is there.
            if tag == 0x01 {
                (tag, value) = fields.next()?;
            }
            if id == SUBJECT_ALT_NAME && tag == 0x04 {
                self.read_names(Der(value).take(SEQUENCE)?);
            }
        }
        Some(())
    }

    fn read_names(&mut self, content: &[u8]) {
        let mut names = Der(content);
        while let Some((tag, name)) = names.next() {
            match (tag, name.len()) {
                (0x82, _) => self
                    .dns
                    .extend(std::str::from_utf8(name).ok().map(str::to_ascii_lowercase)),
                (0x87, 4) => self.ips.extend(<[u8; 4]>::try_from(name).ok().map(IpAddr::from)),
                (0x87, 16) => self.ips.extend(<[u8; 16]>::try_from(name).ok().map(IpAddr::from)),
                _ => {}
            }
        }
    }
}

/// DER elements, one behind the other.
struct Der<'a>(&'a [u8]);

impl<'a> Der<'a> {
    fn peek(&self) -> Option<u8> {
        self.0.first().copied()
    }

    /// The next element's tag and content.
    fn next(&mut self) -> Option<(u8, &'a [u8])> {
        let (&tag, rest) = self.0.split_first()?;
        let (&first, rest) = rest.split_first()?;
        let (length, rest) = match first {
            0..=0x7f => (usize::from(first), rest),
            // Four bytes of length are more than any certificate has; 0x80 would be BER.
            0x81..=0x84 => {
                let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
                let length = bytes
                    .iter()
                    .fold(0_usize, |length, byte| length << 8 | usize::from(*byte));
                (length, rest)
            }
            _ => return None,
        };
        let (content, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some((tag, content))
    }

    /// The content of the next element, which must have this tag.
    fn take(&mut self, tag: u8) -> Option<&'a [u8]> {
        self.next()
            .filter(|(is, _)| *is == tag)
            .map(|(_, content)| content)
    }
}

/// `YYMMDDHHMMSSZ` or `YYYYMMDDHHMMSSZ` (RFC 5280 §4.1.2.5).
fn time(kind: u8, text: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(text).ok()?.strip_suffix('Z')?;
    let (year, rest): (i16, &str) = match kind {
        UTC_TIME => {
            let year: i16 = text.get(..2)?.parse().ok()?;
            (if year < 50 { 2000 + year } else { 1900 + year }, text.get(2..)?)
        }
        GENERALIZED_TIME => (text.get(..4)?.parse().ok()?, text.get(4..)?),
        _ => return None,
    };
    let mut parts = [0_i8; 5];
    for (at, part) in parts.iter_mut().enumerate() {
        *part = rest.get(2 * at..2 * at + 2)?.parse().ok()?;
    }
    let [month, day, hour, minute, second] = parts;
    let civil = DateTime::new(year, month, day, hour, minute, second, 0).ok()?;
    let zoned = civil.to_zoned(TimeZone::UTC).ok()?;
    Some(zoned.timestamp().as_second())
}

/// The subject as RFC 4514 writes it: the last part first.
fn subject(content: &[u8]) -> Option<String> {
    let mut parts = Vec::new();
    let mut sets = Der(content);
    while let Some((SET, set)) = sets.next() {
        let mut values = Vec::new();
        let mut set = Der(set);
        while let Some((SEQUENCE, pair)) = set.next() {
            let mut pair = Der(pair);
            let id = pair.take(OBJECT)?;
            let whole = pair.0;
            let (tag, value) = pair.next()?;
            values.push(attribute(id, tag, value, whole));
        }
        parts.push(values.join("+"));
    }
    parts.reverse();
    Some(parts.join(","))
}

fn attribute(id: &[u8], tag: u8, value: &[u8], whole: &[u8]) -> String {
    let name = match id {
        [0x55, 0x04, 3] => "CN",
        [0x55, 0x04, 6] => "C",
        [0x55, 0x04, 7] => "L",
        [0x55, 0x04, 8] => "ST",
        [0x55, 0x04, 9] => "STREET",
        [0x55, 0x04, 10] => "O",
        [0x55, 0x04, 11] => "OU",
        [0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 0x01, 1] => "UID",
        [0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 0x01, 25] => "DC",
        [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 1] => "emailAddress",
        _ => "",
    };
    // UTF-8, printable and IA5 strings are text; what else there is goes as hexadecimal digits (RFC 4514 §2.4).
    match (name, tag) {
        ("", _) => format!("{}=#{}", dotted(id), hex(whole)),
        (name, UTF8 | 0x13 | 0x16) => format!("{name}={}", escaped(value)),
        (name, _) => format!("{name}=#{}", hex(whole)),
    }
}

fn escaped(value: &[u8]) -> String {
    let mut out = String::with_capacity(value.len());
    for (at, byte) in value.iter().enumerate() {
        let edge = at == 0 || at + 1 == value.len();
        match byte {
            b',' | b'+' | b'"' | b'\\' | b'<' | b'>' | b';' => {
                out.push('\\');
                out.push(char::from(*byte));
            }
            b'#' if at == 0 => out.push_str("\\#"),
            b' ' if edge => out.push_str("\\ "),
            // Also all that is not ASCII, as OpenSSL and nginx write it.
            0..0x20 | 0x7f.. => drop(write!(out, "\\{byte:02X}")),
            _ => out.push(char::from(*byte)),
        }
    }
    out
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}

/// An object identifier with dots.
fn dotted(id: &[u8]) -> String {
    let mut arcs: Vec<u64> = Vec::new();
    let mut arc = 0_u64;
    for byte in id {
        arc = arc.wrapping_shl(7) | u64::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            if arcs.is_empty() {
                let first = (arc / 40).min(2);
                arcs.push(first);
                arc -= first * 40;
            }
            arcs.push(arc);
            arc = 0;
        }
    }
    let texts: Vec<String> = arcs.iter().map(u64::to_string).collect();
    texts.join(".")
}
