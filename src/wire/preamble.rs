//! The PROXY protocol, version 1 and 2: what a load balancer says of a client before the client's own first byte.
//!
//! Pure: bytes in, meaning out, and back. The rules are those of HAProxy's `proxy-protocol.txt` (sections 2.1 and 2.2);
//! whoever reads it from a socket asks [`read`] how many bytes may be taken next, so that not one byte of what
//! follows is.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// A client's address and the one that it connected to.
pub type Ends = (SocketAddr, SocketAddr);

/// Begins every header of version 2.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// The longest line of version 1, its end included.
const LINE_MAX: usize = 107;
/// The shortest: `PROXY UNKNOWN` and the line's end.
const LINE_MIN: usize = 15;
/// The fixed part of a header of version 2.
const FIXED: usize = 16;
/// The longest header of version 2 that is read: addresses, and what balancers add about TLS and clouds. The protocol
/// would allow 64 KiB.
pub const HEADER_MAX: usize = 4096;

const TCP4_BYTES: usize = 12;
const TCP6_BYTES: usize = 36;
const UNIX_BYTES: usize = 216;

/// The type of the field that carries our own secret; from the range for applications (section 2.2.7).
const OWN_FIELD: u8 = 0xE0;

/// What a header says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Preamble {
    /// The connection is the balancer's own (`LOCAL`), or it knows no more than we do (`UNKNOWN`, Unix sockets, UDP):
    /// the connection's own addresses stand. With the value of [`own`]'s field, if it has one.
    Own(Option<Box<[u8]>>),
    /// A client connected from `source` to `destination`.
    Client {
        /// The client.
        source: SocketAddr,
        /// The balancer's address that it connected to.
        destination: SocketAddr,
    },
}

/// Where reading stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// At least so many bytes more belong to the header; more may not be taken.
    More(usize),
    /// The header is whole.
    Done(Preamble),
}

/// This is no PROXY header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(&'static str);

/// Read a header from what has come of it.
///
/// # Errors
/// Whatever comes next, it cannot become one.
pub fn read(seen: &[u8]) -> Result<Step, Malformed> {
    let signature = &SIGNATURE[..seen.len().min(SIGNATURE.len())];
    if seen.is_empty() || seen.starts_with(signature) {
        return read_binary(seen);
    }
    read_line(seen)
}

fn read_line(seen: &[u8]) -> Result<Step, Malformed> {
    const START: &[u8] = b"PROXY ";
    let start = &START[..seen.len().min(START.len())];
    if !seen.starts_with(start) {
        return Err(Malformed("it does not begin with a PROXY header"));
    }
    if let Some(line) = seen.strip_suffix(b"\r\n") {
        let line = std::str::from_utf8(line).map_err(|_| Malformed("the PROXY line is not ASCII"))?;
        return parse_line(line).map(Step::Done);
    }
    if seen.contains(&b'\n') {
        return Err(Malformed("the PROXY line does not end in CRLF"));
    }
    if seen.len() >= LINE_MAX {
        return Err(Malformed("the PROXY line has no end"));
    }
    let more = if seen.len() < LINE_MIN {
        LINE_MIN - seen.len()
    } else if seen.starts_with(b"PROXY UNKNOWN") {
        usize::from(!seen.ends_with(b"\r")) + 1
    } else {
        // Each field that has not begun has a byte at least, and a space before it.
        let begun = seen.iter().filter(|byte| **byte == b' ').count();
        let empty = usize::from(seen.ends_with(b" "));
        2 * 5usize.saturating_sub(begun) + empty + usize::from(!seen.ends_with(b"\r")) + 1
    };
    Ok(Step::More(more.min(LINE_MAX - seen.len())))
}

fn parse_line(line: &str) -> Result<Preamble, Malformed> {
    let rest = line
        .strip_prefix("PROXY ")
        .ok_or(Malformed("the PROXY line names no protocol"))?;
    if rest == "UNKNOWN" || rest.starts_with("UNKNOWN ") {
        return Ok(Preamble::Own(None));
    }
    let mut fields = rest.split(' ');
    let mut next = || {
        fields
            .next()
            .ok_or(Malformed("a field of the PROXY line is missing"))
    };
    let (protocol, source, destination) = (next()?, next()?, next()?);
    let (source_port, destination_port) = (port(next()?)?, port(next()?)?);
    if fields.next().is_some() {
        return Err(Malformed("the PROXY line has too many fields"));
    }
    let address = |text: &str| match protocol {
        "TCP4" => text.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
        "TCP6" => text.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        _ => None,
    };
    if !matches!(protocol, "TCP4" | "TCP6") {
        return Err(Malformed(
            "the PROXY line's protocol is not TCP4, TCP6 or UNKNOWN",
        ));
    }
    const BAD: Malformed = Malformed("an address of the PROXY line is invalid");
    Ok(Preamble::Client {
        source: SocketAddr::new(address(source).ok_or(BAD)?, source_port),
        destination: SocketAddr::new(address(destination).ok_or(BAD)?, destination_port),
    })
}

/// A port without a sign or leading zeros: some would read those as octal.
fn port(text: &str) -> Result<u16, Malformed> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse()
        .ok()
        .filter(|_| plain)
        .ok_or(Malformed("a port of the PROXY line is invalid"))
}

fn read_binary(seen: &[u8]) -> Result<Step, Malformed> {
    let Some((fixed, rest)) = seen.split_first_chunk::<FIXED>() else {
        // The shortest header of the other version is shorter than this fixed part: no more than that before it is
        // clear which version it is.
        let least = if seen.len() < SIGNATURE.len() {
            SIGNATURE.len()
        } else {
            FIXED
        };
        return Ok(Step::More(least - seen.len()));
    };
    let length = usize::from(u16::from_be_bytes([fixed[14], fixed[15]]));
    if FIXED + length > HEADER_MAX {
        return Err(Malformed("the PROXY header is too long"));
    }
    if fixed[12] >> 4 != 2 {
        return Err(Malformed("the PROXY header's version is not 2"));
    }
    let command = fixed[12] & 0xF;
    if command > 1 {
        return Err(Malformed("the PROXY header's command is unknown"));
    }
    if rest.len() < length {
        return Ok(Step::More(length - rest.len()));
    }
    if command == 0 {
        // "The receiver must accept this connection as valid and must use the real connection endpoints and discard
        // the protocol block": what it says may be anything.
        return Ok(Step::Done(Preamble::Own(own_field(fixed[13], rest))));
    }
    addresses(fixed[13], rest).map(Step::Done)
}

fn addresses(family: u8, block: &[u8]) -> Result<Preamble, Malformed> {
    const SHORT: Malformed = Malformed("the PROXY header is shorter than its addresses");
    let (source, destination) = match family {
        0x11 => {
            let a = block.first_chunk::<TCP4_BYTES>().ok_or(SHORT)?;
            let address = |at: usize| Ipv4Addr::new(a[at], a[at + 1], a[at + 2], a[at + 3]);
            let port = |at: usize| u16::from_be_bytes([a[at], a[at + 1]]);
            (
                SocketAddr::from((address(0), port(8))),
                SocketAddr::from((address(4), port(10))),
            )
        }
        0x21 => {
            let a = block.first_chunk::<TCP6_BYTES>().ok_or(SHORT)?;
            let address = |at: usize| {
                let mut octets = [0; 16];
                octets.copy_from_slice(&a[at..at + 16]);
                Ipv6Addr::from(octets)
            };
            let port = |at: usize| u16::from_be_bytes([a[at], a[at + 1]]);
            (
                SocketAddr::from((address(0), port(32))),
                SocketAddr::from((address(16), port(34))),
            )
        }
        // Unspecified, datagrams, and Unix sockets: no address that a client of this proxy could have.
        0x00..=0x02 | 0x10 | 0x12 | 0x20 | 0x22 => return Ok(Preamble::Own(None)),
        0x30..=0x32 => {
            return if block.len() < UNIX_BYTES {
                Err(SHORT)
            } else {
                Ok(Preamble::Own(None))
            };
        }
        _ => return Err(Malformed("the PROXY header's address family is unknown")),
    };
    let fields = &block[if family == 0x11 { TCP4_BYTES } else { TCP6_BYTES }..];
    if fields_of(fields).any(|field| field.is_none()) {
        return Err(Malformed("a field of the PROXY header is longer than the header"));
    }
    Ok(Preamble::Client { source, destination })
}

/// The additional fields: type and value; `None` once, where one is cut short.
fn fields_of(mut rest: &[u8]) -> impl Iterator<Item = Option<(u8, &[u8])>> {
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let field = rest.split_first_chunk::<3>().and_then(|(head, after)| {
            let (value, after) =
                after.split_at_checked(usize::from(u16::from_be_bytes([head[1], head[2]])))?;
            rest = after;
            Some((head[0], value))
        });
        if field.is_none() {
            rest = &[];
        }
        Some(field)
    })
}

fn own_field(family: u8, block: &[u8]) -> Option<Box<[u8]>> {
    let mut fields = fields_of(block).flatten();
    let (_, value) = fields.find(|(kind, _)| family == 0 && *kind == OWN_FIELD)?;
    Some(value.into())
}

/// The header of a connection of our own to our own listener, known by a secret: the proof of a switch comes over no
/// balancer.
#[must_use]
pub fn own(secret: &[u8]) -> Vec<u8> {
    let mut header = binary(0x20, 0x00, &[]);
    let length = u16::try_from(secret.len()).unwrap_or(0);
    header.push(OWN_FIELD);
    header.extend_from_slice(&length.to_be_bytes());
    header.extend_from_slice(&secret[..usize::from(length)]);
    let length = u16::try_from(header.len() - FIXED).unwrap_or(0);
    header[14..FIXED].copy_from_slice(&length.to_be_bytes());
    header
}

/// The bytes of a header for an app.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    /// A line of text.
    V1,
    /// Binary.
    V2,
}

impl Version {
    /// As the file writes it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::V1 => "v1",
            Self::V2 => "v2",
        }
    }

    /// The header that says who the client is: its address and the one that it connected to. `None`: the connection
    /// is our own, or nobody knows.
    #[must_use]
    pub fn header(self, ends: Option<Ends>) -> Vec<u8> {
        let ends = ends.map(|(source, destination)| {
            let (source, destination) = (canonical(source), canonical(destination));
            if source.is_ipv4() == destination.is_ipv4() {
                (source, destination)
            } else {
                // One family for both: IPv4 has a place in IPv6.
                (mapped(source), mapped(destination))
            }
        });
        match (self, ends) {
            (Self::V1, None) => b"PROXY UNKNOWN\r\n".to_vec(),
            (Self::V1, Some((source, destination))) => {
                let family = if source.is_ipv4() { "TCP4" } else { "TCP6" };
                format!(
                    "PROXY {family} {} {} {} {}\r\n",
                    source.ip(),
                    destination.ip(),
                    source.port(),
                    destination.port()
                )
                .into_bytes()
            }
            (Self::V2, None) => binary(0x20, 0x00, &[]),
            (Self::V2, Some((source, destination))) => {
                let mut block = Vec::with_capacity(TCP6_BYTES);
                for ip in [source.ip(), destination.ip()] {
                    match ip {
                        IpAddr::V4(ip) => block.extend_from_slice(&ip.octets()),
                        IpAddr::V6(ip) => block.extend_from_slice(&ip.octets()),
                    }
                }
                block.extend_from_slice(&source.port().to_be_bytes());
                block.extend_from_slice(&destination.port().to_be_bytes());
                binary(0x21, if source.is_ipv4() { 0x11 } else { 0x21 }, &block)
            }
        }
    }
}

fn binary(command: u8, family: u8, block: &[u8]) -> Vec<u8> {
    let mut header = Vec::with_capacity(FIXED + block.len());
    header.extend_from_slice(&SIGNATURE);
    header.extend_from_slice(&[command, family]);
    header.extend_from_slice(&u16::try_from(block.len()).unwrap_or(0).to_be_bytes());
    header.extend_from_slice(block);
    header
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

fn mapped(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) => SocketAddr::new(ip.to_ipv6_mapped().into(), address.port()),
        IpAddr::V6(_) => address,
    }
}

#[cfg(test)]
mod tests;
