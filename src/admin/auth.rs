//! Who asks, and what they may do.
//!
//! Over the Unix socket the file's permission bits are the gate: whoever could connect may do everything, and the
//! kernel says who it was. Over TCP reading is open, changes need a token, and a browser must not be talked into
//! anything: `Host` is checked against DNS rebinding, `Origin` and `Sec-Fetch-Site` against other sites' pages.

use std::fmt;
use std::io::Read;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use http::uri::Authority;
use http::{HeaderMap, HeaderValue, header};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::problem::{Code, Problem};
use crate::config::{self, Role};
use crate::rollout::{Actor, Trigger};

/// The shortest token that is accepted, in characters.
pub const TOKEN_MIN: usize = 16;

/// The largest token file that is read, in bytes.
const TOKEN_FILE_MAX: u64 = 4096;

/// The header by which the command line is told from other users of the socket.
pub const CLIENT_HEADER: &str = "x-cutover-client";

/// The other end of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Peer {
    /// Over the Unix socket, with the user id if the kernel told it.
    Unix(Option<u32>),
    /// Over TCP.
    Tcp {
        /// Our address as the client reached it.
        local: SocketAddr,
    },
}

/// A request whose sender is known and may do what it asks.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    /// Recorded with the change.
    pub actor: Actor,
}

/// The tokens in use; shared with whoever reloads the configuration.
#[derive(Clone, Debug, Default)]
pub struct Tokens(Arc<ArcSwap<Vec<Token>>>);

/// One token. The secret itself is not kept.
struct Token {
    name: String,
    role: Role,
    digest: [u8; 32],
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({}, {:?})", self.name, self.role)
    }
}

/// A token file that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("token `{name}`: {}: {why}", .file.display())]
pub struct TokenError {
    /// The token's name.
    pub name: String,
    /// Its file.
    pub file: PathBuf,
    /// What is wrong, and what to do.
    pub why: String,
}

impl Tokens {
    /// Read the files and take their tokens into use, all of them or none. Gives back warnings.
    ///
    /// # Errors
    /// A file that cannot be read, is empty, or holds a token shorter than [`TOKEN_MIN`]; the tokens in use stay.
    pub fn reload(&self, tokens: &[config::Token]) -> Result<Vec<String>, TokenError> {
        let mut warnings = Vec::new();
        let mut read = Vec::with_capacity(tokens.len());
        for token in tokens {
            let fail = |why: String| TokenError {
                name: token.name.clone(),
                file: token.file.clone(),
                why,
            };
            let secret = read_secret(&token.file, &mut warnings).map_err(fail)?;
            read.push(Token {
                name: token.name.clone(),
                role: token.role,
                digest: Sha256::digest(secret.as_bytes()).into(),
            });
        }
        self.0.store(Arc::new(read));
        Ok(warnings)
    }

    /// Whether there is none: TCP is read-only.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.load().is_empty()
    }

    /// Name and role of a secret. Every token is compared, each in constant time, so that the time taken tells
    /// neither which one came close nor how close.
    fn find(&self, secret: &[u8]) -> Option<(String, Role)> {
        let digest = Sha256::digest(secret);
        let mut found = None;
        for token in self.0.load().iter() {
            if bool::from(token.digest.ct_eq(digest.as_slice())) {
                found = Some((token.name.clone(), token.role));
            }
        }
        found
    }
}

fn read_secret(file: &Path, warnings: &mut Vec<String>) -> Result<String, String> {
    let opened = std::fs::File::open(file).map_err(|error| format!("cannot be read: {error}"))?;
    let metadata = opened
        .metadata()
        .map_err(|error| format!("cannot be read: {error}"))?;
    if !metadata.is_file() {
        return Err("is not a file".to_owned());
    }
    let mut text = String::new();
    opened
        .take(TOKEN_FILE_MAX + 1)
        .read_to_string(&mut text)
        .map_err(|error| format!("cannot be read: {error}"))?;
    let secret = text.trim();
    let length = secret.chars().count();
    if secret.is_empty() {
        return Err("is empty; write a token into it, for example `openssl rand -hex 32`".to_owned());
    }
    if text.len() as u64 > TOKEN_FILE_MAX {
        return Err(format!("is larger than {TOKEN_FILE_MAX} bytes; that is no token"));
    }
    if length < TOKEN_MIN {
        return Err(format!(
            "holds a token of {length} characters; use at least {TOKEN_MIN}, for example `openssl rand -hex 32`"
        ));
    }
    if !secret.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(
            "holds characters that no Authorization header can carry; use letters and digits".to_owned(),
        );
    }
    if metadata.mode() & 0o004 != 0 {
        warnings.push(format!(
            "{} can be read by every user of this machine; `chmod o-r` it",
            file.display()
        ));
    }
    Ok(secret.to_owned())
}

/// Refuse what a browser was talked into, and names that are not ours. The socket has neither problem.
///
/// # Errors
/// [`Code::BadHost`], [`Code::BadOrigin`].
pub(super) fn check_site(
    peer: &Peer,
    headers: &HeaderMap,
    hosts: &[String],
    change: bool,
) -> Result<(), Problem> {
    let Peer::Tcp { local } = peer else {
        return Ok(());
    };
    let host = one(headers, &header::HOST).and_then(|host| host.parse::<Authority>().ok());
    let Some(host) = host.filter(|host| is_ours(host, *local, hosts)) else {
        let shown = headers
            .get(header::HOST)
            .map_or("", |host| host.to_str().unwrap_or("?"));
        return Err(Problem::new(
            Code::BadHost,
            format!("`{shown}` is not a name of this server; to accept it, add it to admin.hosts"),
        ));
    };
    if headers.contains_key(header::ORIGIN) {
        let origin = one(headers, &header::ORIGIN).unwrap_or("");
        let authority = origin
            .strip_prefix("http://")
            .or_else(|| origin.strip_prefix("https://"))
            .unwrap_or("");
        if !authority.eq_ignore_ascii_case(host.as_str()) {
            return Err(Problem::new(
                Code::BadOrigin,
                format!("a page of `{origin}` may not use this API"),
            ));
        }
    }
    let site = headers.get("sec-fetch-site").map(HeaderValue::as_bytes);
    if change && !matches!(site, None | Some(b"same-origin" | b"none")) {
        return Err(Problem::new(
            Code::BadOrigin,
            "a page of another site may not change anything here",
        ));
    }
    Ok(())
}

/// The one value of a header; none when it is missing, repeated or not text.
fn one<'a>(headers: &'a HeaderMap, name: &http::HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let first = values.next()?.to_str().ok()?;
    values.next().is_none().then_some(first)
}

fn is_ours(authority: &Authority, local: SocketAddr, hosts: &[String]) -> bool {
    if authority.as_str().contains('@') {
        return false;
    }
    let host = authority.host().trim_end_matches('.');
    // The port is not compared: published ports differ from ours, and an attacker's name fails without it.
    if let Ok(ip) = host.trim_matches(['[', ']']).parse::<IpAddr>() {
        return ip.is_loopback()
            || ip.to_canonical() == local.ip().to_canonical()
            || listed(host, authority, hosts);
    }
    host.eq_ignore_ascii_case("localhost") || listed(host, authority, hosts)
}

fn listed(host: &str, authority: &Authority, hosts: &[String]) -> bool {
    hosts
        .iter()
        .any(|ours| ours.eq_ignore_ascii_case(host) || ours.eq_ignore_ascii_case(authority.as_str()))
}

/// Who asks; refused when they may not do what needs this role.
///
/// # Errors
/// [`Code::Unauthorized`], [`Code::Forbidden`], [`Code::ReadOnly`].
pub(super) fn authorize(
    peer: &Peer,
    headers: &HeaderMap,
    needs: Role,
    tokens: &Tokens,
) -> Result<Caller, Problem> {
    match peer {
        Peer::Unix(uid) => {
            let cli = headers
                .get(CLIENT_HEADER)
                .is_some_and(|value| value.as_bytes() == b"cli");
            Ok(Caller {
                actor: Actor {
                    name: uid.map_or_else(|| "unknown".to_owned(), user_name),
                    trigger: if cli { Trigger::Cli } else { Trigger::Api },
                },
            })
        }
        Peer::Tcp { .. } => {
            let name = authorize_tcp(headers, needs, tokens)?;
            Ok(Caller {
                actor: Actor {
                    name,
                    trigger: Trigger::Api,
                },
            })
        }
    }
}

fn authorize_tcp(headers: &HeaderMap, needs: Role, tokens: &Tokens) -> Result<String, Problem> {
    let reading = needs == Role::Viewer;
    if tokens.is_empty() {
        return if reading {
            Ok("anonymous".to_owned())
        } else {
            Err(Problem::new(
                Code::ReadOnly,
                "without a token TCP is read-only; set admin.token_file, or use the Unix socket",
            ))
        };
    }
    if !headers.contains_key(header::AUTHORIZATION) {
        return if reading {
            Ok("anonymous".to_owned())
        } else {
            Err(unauthorized("changes need `Authorization: Bearer TOKEN`"))
        };
    }
    let secret = one(headers, &header::AUTHORIZATION)
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, secret)| secret.trim());
    let Some((name, role)) = secret.and_then(|secret| tokens.find(secret.as_bytes())) else {
        return Err(unauthorized("the token is not one of this server's"));
    };
    if role < needs {
        return Err(Problem::new(
            Code::Forbidden,
            format!(
                "token `{name}` has the role {}; this needs {}",
                word(role),
                word(needs)
            ),
        ));
    }
    Ok(name)
}

fn unauthorized(detail: &str) -> Problem {
    Problem::new(Code::Unauthorized, detail).header(
        header::WWW_AUTHENTICATE,
        HeaderValue::from_static("Bearer realm=\"cutover\""),
    )
}

/// A role as the config spells it.
pub(super) const fn word(role: Role) -> &'static str {
    match role {
        Role::Viewer => "viewer",
        Role::Operator => "operator",
        Role::Admin => "admin",
    }
}

/// `root (uid 0)`; `uid 1000` when no file names it.
fn user_name(uid: u32) -> String {
    let name = std::fs::read_to_string("/etc/passwd")
        .ok()
        .and_then(|text| find_id(&text, uid).map(str::to_owned));
    name.map_or_else(|| format!("uid {uid}"), |name| format!("{name} (uid {uid})"))
}

/// The name with this number in a file of the form of `/etc/passwd`.
fn find_id(text: &str, id: u32) -> Option<&str> {
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse::<u32>().ok()? == id).then_some(name)
    })
}
