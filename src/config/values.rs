//! What is inside a string: durations, sizes, addresses, hosts, paths, headers. Pure, and each `Err` says why.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use super::diagnostics::quoted;
use super::model::{Address, BadEndpoint, EndpointAddress, HostPattern, ListenAddress, Network, Protocol};

/// Bytes of a Unix socket's path that the kernel takes, its final zero not counted.
const UNIX_PATH_MAX: usize = 107;

/// A longer time is a mistake, and would overflow the clock.
const DURATION_MAX: Duration = Duration::from_secs(366 * 24 * 3600);

/// An endpoint as config, API and CLI write it: `HOST:PORT`, `unix:PATH`, `h2c://HOST:PORT`, `https://HOST:PORT`.
///
/// # Errors
/// Says what is missing or what cannot be used.
pub fn parse_endpoint(text: &str) -> Result<EndpointAddress, BadEndpoint> {
    endpoint(text).map_err(|why| BadEndpoint {
        text: quoted(text).trim_matches('`').to_owned(),
        why,
    })
}

fn endpoint(text: &str) -> Result<EndpointAddress, String> {
    let (protocol, rest) = match text.split_once("://") {
        Some(("https", rest)) => (Protocol::Https, rest),
        Some(("h2c", rest)) => (Protocol::H2c, rest),
        Some(("http", rest)) => {
            let address = quoted(rest.split('/').next().unwrap_or(""));
            return Err(format!("leave `http://` out: {address}"));
        }
        Some((scheme, _)) if !scheme.starts_with("unix:") && scheme != "unix" => {
            let why = "the scheme of an endpoint is `https://` (TLS), `h2c://` (HTTP/2), or none (HTTP/1.1)";
            return Err(why.to_owned());
        }
        _ => (Protocol::Http1, text),
    };
    let place = address(rest).map_err(|why| match protocol {
        Protocol::Http1 => why,
        // What it says of `HOST:PORT` is to be read behind the scheme.
        _ => format!("behind `{}`: {why}", protocol.prefix()),
    })?;
    if protocol == Protocol::Https && matches!(place, Address::Unix(_)) {
        return Err(
            "a Unix socket has no name that a certificate could be for; leave `https://` out".to_owned(),
        );
    }
    Ok(EndpointAddress { protocol, place })
}

fn address(text: &str) -> Result<Address, String> {
    if let Some(path) = text.strip_prefix("unix:") {
        return unix_path(path).map(Address::Unix);
    }
    if let Some(rest) = text.strip_prefix("docker:")
        && rest.contains(':')
    {
        return containers(rest);
    }
    if let Ok(address) = text.parse::<SocketAddr>() {
        return if address.port() == 0 {
            Err("port 0 cannot be connected to".to_owned())
        } else {
            Ok(Address::Ip(address))
        };
    }
    if text.parse::<Ipv6Addr>().is_ok() {
        return Err(format!(
            "an IPv6 address needs brackets and a port: `[{text}]:8000`"
        ));
    }
    if text.is_empty() {
        return Err("it is empty; write `host:port` or `unix:/path`".to_owned());
    }
    let Some((host, port)) = text.rsplit_once(':') else {
        return Err(if text.bytes().all(|b| b.is_ascii_digit()) {
            format!("it has no host: write `127.0.0.1:{text}`")
        } else {
            format!("it has no port: write {}", quoted(&format!("{text}:8000")))
        });
    };
    if host.is_empty() {
        return Err(format!(
            "it has no host: write {}",
            quoted(&format!("127.0.0.1:{port}"))
        ));
    }
    if port.contains('/') {
        return Err("an endpoint has no path; a path belongs to the service".to_owned());
    }
    let port = port_number(port).map_err(|why| match host {
        "docker" => format!("{why}; containers are written `docker:SERVICE:PORT`"),
        _ => why,
    })?;
    let host = host.to_ascii_lowercase();
    host_name(&host)?;
    Ok(Address::Name { host, port })
}

/// `SERVICE:PORT` or `LABEL=VALUE:PORT`, what follows `docker:`.
fn containers(text: &str) -> Result<Address, String> {
    if !cfg!(feature = "docker") {
        let why = "this cutover was built without Docker: build it with `--features docker`, or write the name that Docker's own \
                   name server knows, `SERVICE:PORT`";
        return Err(why.to_owned());
    }
    let (what, port) = text.rsplit_once(':').unwrap_or((text, ""));
    let port = port_number(port)?;
    let (label, value) = what.split_once('=').unwrap_or(("", what));
    let bad = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '/' | '"');
    if value.is_empty() || (label.is_empty() && what.contains('=')) || what.contains(bad) {
        return Err(
            "write `docker:SERVICE:PORT` for a compose service, or `docker:LABEL=VALUE:PORT`".to_owned(),
        );
    }
    Ok(Address::Docker {
        what: what.to_owned(),
        port,
    })
}

fn port_number(text: &str) -> Result<u16, String> {
    match text.parse::<u16>() {
        _ if text.starts_with('+') => Err("its port is not a number from 1 to 65535".to_owned()),
        Ok(port) if port > 0 => Ok(port),
        _ if text.is_empty() => Err("nothing follows the colon; write `host:port`".to_owned()),
        _ => Err("its port is not a number from 1 to 65535".to_owned()),
    }
}

/// Where a listener listens.
pub(super) fn listen_address(text: &str) -> Result<ListenAddress, String> {
    match text.strip_prefix("unix:") {
        Some(path) => unix_path(path).map(ListenAddress::Unix),
        None => socket_address(text)
            .map(ListenAddress::Tcp)
            .map_err(|why| format!("{why}, or `unix:/path`")),
    }
}

/// `ADDRESS:PORT`, no names: what to bind must not depend on a resolver.
pub(super) fn socket_address(text: &str) -> Result<SocketAddr, String> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    let port = text.rsplit(':').next().unwrap_or_default();
    let port = if port.parse::<u16>().is_ok() { port } else { "8080" };
    Err(match text.rsplit_once(':') {
        Some(("", _)) => format!("an address is needed before the port: `0.0.0.0:{port}`"),
        Some(("localhost", _)) => format!("an address is needed, not a name: `127.0.0.1:{port}`"),
        _ if text.parse::<Ipv4Addr>().is_ok() => format!("the port is missing: `{text}:8080`"),
        _ if text.parse::<Ipv6Addr>().is_ok() => format!("brackets and a port are missing: `[{text}]:8080`"),
        _ => format!("write `ADDRESS:PORT`, as in `127.0.0.1:{port}`"),
    })
}

fn unix_path(path: &str) -> Result<PathBuf, String> {
    if path.starts_with("//") {
        return Err("write `unix:/path`, with one slash".to_owned());
    }
    file_path(path)?;
    if path.len() > UNIX_PATH_MAX {
        return Err(format!(
            "the path of a Unix socket is {UNIX_PATH_MAX} bytes at most"
        ));
    }
    Ok(PathBuf::from(path))
}

/// A path of the file system.
pub(super) fn file_path(text: &str) -> Result<PathBuf, String> {
    if text.is_empty() {
        return Err("the path is empty".to_owned());
    }
    if text.contains('\0') {
        return Err("a path has no zero byte".to_owned());
    }
    Ok(PathBuf::from(text))
}

/// A path that a Unix socket can be bound to.
pub(super) fn socket_path(text: &str) -> Result<PathBuf, String> {
    let text = text.strip_prefix("unix:").unwrap_or(text);
    unix_path(text)
}

/// `"250ms"`, `"1m30s"`, `"0"`: numbers with `ms`, `s`, `m`, `h` or `d`, added up.
///
/// # Errors
/// Says what is not understood.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    const SYNTAX: &str = "write a number and a unit: `250ms`, `5s`, `2m`, `1h`, `1m30s`";
    let mut rest = text;
    let mut sum = Duration::ZERO;
    if rest.is_empty() {
        return Err(SYNTAX.to_owned());
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let (number, after) = rest.split_at(digits);
        let letters = after
            .find(|c: char| !c.is_ascii_alphabetic())
            .unwrap_or(after.len());
        let (unit, after) = after.split_at(letters);
        rest = after;
        let milliseconds = match unit {
            "ms" => 1,
            "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            "" if !number.is_empty() && rest.is_empty() => {
                return Err(format!(
                    "the unit is missing: `{}s`?",
                    quoted(text).trim_matches('`')
                ));
            }
            _ => return Err(SYNTAX.to_owned()),
        };
        let number: u64 = match number.parse() {
            Ok(number) => number,
            Err(_) if number.is_empty() => return Err(SYNTAX.to_owned()),
            Err(_) => return Err("it is longer than a year".to_owned()),
        };
        let part = Duration::from_millis(number.saturating_mul(milliseconds));
        sum = sum.saturating_add(part);
    }
    if sum > DURATION_MAX {
        return Err("it is longer than a year".to_owned());
    }
    Ok(sum)
}

/// `"64KiB"`, `"10MB"`, `"512"`: bytes.
pub(super) fn size(text: &str) -> Result<u64, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor: u64 = match unit {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "KB" => 1000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        _ => return Err("write a number and a unit: `64KiB`, `10MiB`, or bytes: `512`".to_owned()),
    };
    if number.is_empty() {
        return Err("write a number and a unit: `64KiB`, `10MiB`, or bytes: `512`".to_owned());
    }
    number
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(factor))
        .filter(|bytes| i64::try_from(*bytes).is_ok())
        .ok_or_else(|| "the number is too large".to_owned())
}

/// `10.0.0.0/8`, `::1`: kept with the bits behind the prefix cleared, mapped IPv4 ranges as IPv4.
pub(super) fn network(text: &str) -> Result<Network, String> {
    const SYNTAX: &str = "write a network as `10.0.0.0/8` or an address as `10.1.2.3`";
    let (address, prefix) = match text.split_once('/') {
        Some((address, prefix)) => (address, Some(prefix)),
        None => (text, None),
    };
    let address: IpAddr = address.parse().map_err(|_| SYNTAX.to_owned())?;
    let bits = if address.is_ipv4() { 32 } else { 128 };
    let prefix = match prefix {
        None => bits,
        Some(prefix) if !prefix.is_empty() && prefix.bytes().all(|b| b.is_ascii_digit()) => prefix
            .parse::<u8>()
            .ok()
            .filter(|prefix| *prefix <= bits)
            .ok_or_else(|| format!("the number after the slash is {bits} at most"))?,
        Some(_) => return Err(SYNTAX.to_owned()),
    };
    Ok(match address {
        IpAddr::V4(v4) => Network {
            address: (v4 & mask4(prefix)).into(),
            prefix,
        },
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) if prefix >= 96 => Network {
                address: (v4 & mask4(prefix - 96)).into(),
                prefix: prefix - 96,
            },
            _ => Network {
                address: (v6 & mask6(prefix)).into(),
                prefix,
            },
        },
    })
}

fn mask4(prefix: u8) -> Ipv4Addr {
    u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0).into()
}

fn mask6(prefix: u8) -> Ipv6Addr {
    u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0).into()
}

/// `shop.example.com`, `*.shop.example.com`, `127.0.0.1`, `[::1]`
pub(super) fn host_pattern(text: &str) -> Result<HostPattern, String> {
    let name = text.to_ascii_lowercase();
    if name == "*" {
        return Err("for any host leave `hosts` out".to_owned());
    }
    if name.contains("://") {
        return Err("a host is a name only, without a scheme".to_owned());
    }
    if let Some(inside) = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return match inside.parse::<Ipv6Addr>() {
            Ok(address) => Ok(HostPattern::Exact(format!("[{address}]"))),
            Err(_) => Err("this is not an IPv6 address".to_owned()),
        };
    }
    if name.parse::<Ipv6Addr>().is_ok() {
        return Err(format!("an IPv6 address needs brackets: `[{name}]`"));
    }
    if name.contains(':') {
        return Err("a host has no port; the listener has it".to_owned());
    }
    if let Some(below) = name.strip_prefix("*.") {
        if below.contains('*') {
            return Err("`*` is allowed once, as the first label".to_owned());
        }
        host_name(below)?;
        return Ok(HostPattern::Below(below.to_owned()));
    }
    if name.contains('*') {
        return Err("`*` is allowed only as the whole first label: `*.example.com`".to_owned());
    }
    host_name(&name)?;
    Ok(HostPattern::Exact(name))
}

/// A fixed `Host` value: a name or an address, with or without a port.
pub(super) fn host_value(text: &str) -> Result<String, String> {
    let lower = text.to_ascii_lowercase();
    if lower.contains('*') {
        return Err("this is one name, `*` is not possible".to_owned());
    }
    match lower.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') && !host.contains("//") => {
            host_pattern(host)?;
            port_number(port)?;
        }
        _ => {
            host_pattern(&lower)?;
        }
    }
    Ok(lower)
}

/// The name of a TLS server: a DNS name or an IP address, without a port.
pub(super) fn server_name(text: &str) -> Result<String, String> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(address.to_string());
    }
    let name = text.to_ascii_lowercase();
    if name.contains(':') {
        return Err("a server name has no scheme and no port".to_owned());
    }
    host_name(&name)?;
    Ok(name)
}

/// A DNS name in lower case (RFC 1123, and underscores, as container networks have them), or an IPv4 address.
fn host_name(name: &str) -> Result<(), String> {
    if name.parse::<Ipv4Addr>().is_ok() {
        return Ok(());
    }
    if !name.is_ascii() {
        return Err("write the name in its ASCII form (`xn--…`)".to_owned());
    }
    if name.ends_with('.') {
        return Err("leave out the dot at the end".to_owned());
    }
    if name.is_empty() || name.len() > 253 {
        return Err("a host name has 1 to 253 characters".to_owned());
    }
    for label in name.split('.') {
        let valid = (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_');
        if !valid {
            return Err(format!(
                "{} is not part of a host name: letters, digits and `-`",
                quoted(label)
            ));
        }
    }
    let last = name.rsplit('.').next().unwrap_or(name);
    if last.bytes().all(|b| b.is_ascii_digit()) {
        return Err("this is not an IPv4 address, and no name ends in a number".to_owned());
    }
    Ok(())
}

/// `200-299`, `200,204`: inclusive ranges.
pub(super) fn statuses(text: &str) -> Result<Vec<(u16, u16)>, String> {
    let number = |text: &str| {
        text.trim()
            .parse::<u16>()
            .ok()
            .filter(|status| (200..=599).contains(status))
            .ok_or_else(|| "write statuses from 200 to 599 as `200-299` or `200,204`".to_owned())
    };
    text.split(',')
        .map(|part| {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let range = (number(first)?, number(last)?);
            if range.0 > range.1 {
                return Err(format!("the range runs backwards: `{}-{}`?", range.1, range.0));
            }
            Ok(range)
        })
        .collect()
}

/// Fields of one connection, or of the message's framing: no configuration may touch them (RFC 9110, 7.6.1).
const RESERVED: [&str; 10] = [
    "connection",
    "content-length",
    "expect",
    "host",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// A header name in lower case that may be set or removed.
pub(super) fn header_name(text: &str) -> Result<String, String> {
    let name = http::HeaderName::try_from(text)
        .map_err(|_| "a header name has letters, digits and `-` only".to_owned())?;
    match name.as_str() {
        "host" => Err("`host` has a key of its own: `host = …`".to_owned()),
        name if RESERVED.contains(&name) => Err(format!(
            "`{name}` belongs to the connection: cutover sets it itself"
        )),
        name => Ok(name.to_owned()),
    }
}

/// A header value. The message never has it: it may be a secret.
pub(super) fn header_value(text: &str) -> Result<String, String> {
    match http::HeaderValue::try_from(text) {
        Ok(value) if value.to_str().is_ok() => Ok(text.to_owned()),
        _ => Err("a header value has visible ASCII characters, spaces and tabs only".to_owned()),
    }
}

/// A request path without a query, as `path` of a service says it.
pub(super) fn path(text: &str) -> Result<String, String> {
    if !text.starts_with('/') {
        return Err(format!("a path starts with `/`: {}", quoted(&format!("/{text}"))));
    }
    if text.contains(['?', '#']) {
        return Err("a path has no `?` and no `#`: queries do not take part in routing".to_owned());
    }
    if text.split('/').any(|segment| segment == "." || segment == "..") {
        return Err("`.` and `..` never match".to_owned());
    }
    request_target(text)
}

/// A request path, a query allowed.
pub(super) fn request_target(text: &str) -> Result<String, String> {
    if !text.starts_with('/') {
        return Err(format!("a path starts with `/`: {}", quoted(&format!("/{text}"))));
    }
    if text.contains('#') || !text.bytes().all(|b| b.is_ascii_graphic()) {
        return Err("a path has visible ASCII characters only; write others as `%20`".to_owned());
    }
    match http::uri::PathAndQuery::try_from(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(_) => Err("this is not a path that a request can have".to_owned()),
    }
}

/// A JSON pointer (RFC 6901).
pub(super) fn pointer(text: &str) -> Result<String, String> {
    if !text.starts_with('/') {
        return Err(format!(
            "a JSON pointer starts with `/`: {}",
            quoted(&format!("/{text}"))
        ));
    }
    if text
        .split('~')
        .skip(1)
        .any(|after| !after.starts_with(['0', '1']))
    {
        return Err("in a JSON pointer `~` is written `~0`, and `/` inside a name `~1`".to_owned());
    }
    Ok(text.to_owned())
}

/// The name of an app, a service or a token: it becomes a label, a part of a URL and of a file name.
pub(super) fn name(text: &str) -> Result<(), String> {
    let valid = (1..=63).contains(&text.len())
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
    if valid {
        Ok(())
    } else {
        Err(
            "a name has 1 to 63 letters, digits, `-`, `_` or `.`, and starts with a letter or digit"
                .to_owned(),
        )
    }
}

/// A condition on a body. Bounded: a pattern may not take the memory of the process.
pub(super) fn pattern(text: &str) -> Result<regex::Regex, String> {
    regex::RegexBuilder::new(text)
        .size_limit(1 << 20)
        .dfa_size_limit(1 << 20)
        .build()
        .map_err(|error| match error {
            regex::Error::CompiledTooBig(_) => "the pattern is too large".to_owned(),
            // The last line names the problem; those before draw a picture of the pattern.
            error => error
                .to_string()
                .lines()
                .last()
                .unwrap_or_default()
                .trim_start_matches("error: ")
                .to_owned(),
        })
}

/// The words of a command, as a shell would split them; no shell takes part (POSIX, 2.2 and 2.3).
pub(super) fn words(text: &str) -> Result<Vec<String>, String> {
    shlex::split(text).ok_or_else(|| "a quote is not closed, or a backslash stands at the end".to_owned())
}
