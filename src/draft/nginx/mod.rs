//! An nginx file, translated as far as it is about this proxy's job; the rest is told line by line.
//!
//! `tokens` knows the form, `upstreams` where requests go, `servers` who listens for whom, `locations` which request goes where,
//! `known` what is said of the rest. What each directive becomes is the table of docs/migrate-from-nginx.md.

mod known;
mod locations;
mod servers;
mod tokens;
mod upstreams;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::Draft;
pub use tokens::NotNginx;
use tokens::{Directive, Place};
use upstreams::Upstreams;

/// What was translated, and what was not.
#[derive(Debug)]
pub struct Translated {
    /// The config file to be.
    pub draft: Draft,
    /// In the order of the file.
    pub notes: Vec<Note>,
}

/// Something that is not in the draft, or differs there.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Note {
    /// `FILE:LINE`
    pub place: String,
    /// What stands there.
    pub text: String,
    /// Why it is left out, or what to do.
    pub why: String,
}

/// Read an nginx file with what it includes, and translate it.
///
/// # Errors
/// It cannot be read, or it has not the form of an nginx file: nginx would not start with it either.
pub fn read(path: &Path) -> Result<Translated, NotNginx> {
    let (file, missing) = tokens::read(path)?;
    let mut notes = Notes::default();
    for missing in missing {
        notes.say(&missing.at, missing.text, &missing.why);
    }
    // A whole file has its servers in `http {}`; one of `conf.d` has them as they are.
    let mut level: Vec<Directive> = Vec::new();
    for directive in file.children() {
        if directive.name == "http" {
            level.extend(directive.children().iter().cloned());
        } else {
            level.push(directive.clone());
        }
    }
    let upstreams = Upstreams::of(&level, &mut notes);
    let mut draft = Draft {
        about: vec![format!("Made by `cutover init --from-nginx {}`.", path.display())],
        ..Draft::default()
    };
    global(&level, &upstreams, &mut draft, &mut notes);
    servers::translate(&level, upstreams, &mut draft, &mut notes);
    if draft.apps.is_empty() {
        let why = "no server with a `proxy_pass` was found: there is nothing to switch";
        notes.say(&file.at, "the file".to_owned(), why);
    }
    let notes: Vec<Note> = notes.found.into_iter().map(|(_, note)| note).collect();
    draft.open.extend(
        notes
            .iter()
            .map(|note| format!("{}: `{}`: {}", note.place, note.text, note.why)),
    );
    Ok(Translated { draft, notes })
}

/// What is of the whole file.
fn global(level: &[Directive], upstreams: &Upstreams, draft: &mut Draft, notes: &mut Notes) {
    for directive in level {
        let variable = directive.args.last().map_or("", String::as_str);
        match directive.name.as_str() {
            // The usual map for WebSockets, which go through without being told.
            "map" if directive.first() == "$http_upgrade" || upstreams.names(variable) => {}
            "set_real_ip_from"
                if directive.first().parse::<std::net::IpAddr>().is_ok()
                    || directive.first().contains('/') =>
            {
                draft.trusted_proxies.push(directive.first().to_owned());
            }
            "set_real_ip_from" => notes.add(directive, "only addresses and networks can be trusted"),
            "real_ip_header"
                if !matches!(
                    directive.first().to_ascii_lowercase().as_str(),
                    "x-forwarded-for" | "proxy_protocol"
                ) =>
            {
                notes.add(
                    directive,
                    "X-Forwarded-For, Forwarded and PROXY headers are read, no other field",
                );
            }
            _ => notes.unknown(directive),
        }
    }
    let inside = level
        .iter()
        .filter(|directive| directive.name == "server")
        .flat_map(|server| server.children());
    for directive in level.iter().chain(inside) {
        limit(directive, &mut draft.limits, notes);
    }
}

/// The process has one limit where nginx has one a server: the most generous of them.
fn limit(directive: &Directive, limits: &mut BTreeMap<String, String>, notes: &mut Notes) {
    let key = match directive.name.as_str() {
        "client_header_timeout" => "client_header_timeout",
        "client_body_timeout" => "client_body_timeout",
        "keepalive_timeout" => "client_idle_timeout",
        "large_client_header_buffers" => {
            if let [count, size] = directive.args.as_slice()
                && let (Ok(count), Some(size)) = (count.parse::<u64>(), bytes(size))
            {
                limits.insert(
                    "header_bytes".to_owned(),
                    size_text(count.saturating_mul(size).max(8 << 10)),
                );
            }
            return;
        }
        _ => return,
    };
    match milliseconds(directive.first()) {
        Some(0) => notes.add(
            directive,
            "connections are always kept; `limits.client_idle_timeout` ends unused ones",
        ),
        Some(time) => {
            let before = limits.get(key).and_then(|text| milliseconds(text)).unwrap_or(0);
            limits.insert(key.to_owned(), time_text(time.max(before)));
        }
        None => notes.add(directive, "this is no time"),
    }
}

/// What is found on the way, by place; each once.
#[derive(Debug, Default)]
struct Notes {
    found: BTreeSet<(Place, Note)>,
}

impl Notes {
    fn add(&mut self, directive: &Directive, why: &str) {
        self.say(&directive.at, directive.text(), why);
    }

    fn say(&mut self, at: &Place, text: String, why: &str) {
        let note = Note {
            place: told(at),
            text,
            why: why.to_owned(),
        };
        self.found.insert((at.clone(), note));
    }

    /// A directive that nobody looks at: nothing, its reason, or that nobody knows it.
    fn unknown(&mut self, directive: &Directive) {
        match known::why(&directive.name) {
            Some("") => {}
            Some("cutover does not compress: let the app, or a CDN, do it") if directive.first() == "off" => {
            }
            Some(why) => self.add(directive, why),
            None => self.add(directive, "this directive is not understood"),
        }
    }
}

/// `nginx.conf:12`
fn told(at: &Place) -> String {
    format!("{}:{}", at.file.display(), at.line)
}

/// A time of nginx: `60`, `60s`, `1m30s`, `500ms`.
fn milliseconds(text: &str) -> Option<u64> {
    let mut rest = text;
    let mut sum: u64 = 0;
    while !rest.is_empty() {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let number: u64 = rest[..digits].parse().ok()?;
        rest = rest[digits..].trim_start();
        let units = [
            ("ms", 1),
            ("s", 1000),
            ("m", 60_000),
            ("h", 3_600_000),
            ("d", 86_400_000),
        ];
        let unit = units.iter().find(|(unit, _)| rest.starts_with(unit));
        let factor = match unit {
            Some((unit, factor)) => {
                rest = rest[unit.len()..].trim_start();
                *factor
            }
            None if rest.is_empty() => 1000,
            None => return None,
        };
        sum = sum.checked_add(number.checked_mul(factor)?)?;
    }
    (!text.is_empty()).then_some(sum)
}

fn time_text(milliseconds: u64) -> String {
    match milliseconds % 1000 {
        0 => format!("{}s", milliseconds / 1000),
        _ => format!("{milliseconds}ms"),
    }
}

/// A size of nginx: `1m`, `16k`, `8192`.
fn bytes(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor: u64 = match text[digits.len()..].to_ascii_lowercase().as_str() {
        "" => 1,
        "k" => 1 << 10,
        "m" => 1 << 20,
        "g" => 1 << 30,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(factor)
}

fn size_text(bytes: u64) -> String {
    match bytes {
        0 => "0".to_owned(),
        bytes if bytes % (1 << 20) == 0 => format!("{}MiB", bytes >> 20),
        bytes if bytes % (1 << 10) == 0 => format!("{}KiB", bytes >> 10),
        bytes => bytes.to_string(),
    }
}
