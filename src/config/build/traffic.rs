//! The tables of an app that choose between its colors.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use http::{HeaderName, Method};

use super::Build;
use crate::config::diagnostics::{did_you_mean, quoted};
use crate::config::model::{AffinityKey, Aim, Hold, Mirror, Network, Preview, SkewPath, Traffic, Warmup};
use crate::config::raw::{self, At};
use crate::config::values;
use crate::rollout::Color;

/// Who may name a color when nobody says: this machine.
const LOOPBACK: Network = Network {
    address: IpAddr::V4(Ipv4Addr::new(127, 0, 0, 0)),
    prefix: 8,
};

impl Build<'_, '_, '_> {
    pub(super) fn traffic(&mut self, raw: &raw::App) -> Traffic {
        Traffic {
            affinity: self.affinity(raw.affinity.key.as_ref()),
            preview: raw.preview.as_ref().map(|raw| self.preview(raw)),
            rules: self.rules(raw.rule.as_ref()).into(),
            hold: self.hold(&raw.hold),
            failover: self.failover(&raw.failover),
            skew: self.skew(&raw.skew),
            mirror: self.mirror(&raw.mirror),
            warmup: self.warmup(&raw.warmup),
        }
    }

    fn warmup(&mut self, raw: &raw::Warmup) -> Option<Warmup> {
        let max = self.duration("max", raw.max.as_ref(), Duration::from_millis(1));
        let paths = raw.paths.iter().flatten();
        let paths = paths
            .filter_map(|at| self.text("paths", at, values::request_target))
            .collect();
        // Ranges have been checked with the schema.
        let number = |at: &Option<At<i64>>| at.as_ref().map(|at| *at.get());
        let requests = number(&raw.requests).and_then(|count| u32::try_from(count).ok());
        let parallel = number(&raw.parallel).and_then(|count| usize::try_from(count).ok());
        requests.filter(|count| *count > 0).map(|requests| Warmup {
            requests,
            max: max.unwrap_or(Duration::from_secs(30)),
            paths,
            parallel: parallel.unwrap_or(4),
        })
    }

    fn skew(&mut self, raw: &raw::Skew) -> Vec<SkewPath> {
        let mut paths = Vec::new();
        for at in raw.paths.iter().flatten() {
            paths.extend(self.text("paths", at, skew_path));
        }
        paths
    }

    fn mirror(&mut self, raw: &raw::Mirror) -> Option<Mirror> {
        let methods = match &raw.methods {
            None => vec![Method::GET, Method::HEAD],
            Some(list) => {
                let read = list.iter().filter_map(|at| self.text("methods", at, safe_method));
                read.collect()
            }
        };
        let max_body = self.size("max_body", raw.max_body.as_ref(), 0, u64::from(u32::MAX));
        // Ranges have been checked with the schema.
        let number = |at: &Option<At<i64>>| at.as_ref().map(|at| *at.get());
        let percent = number(&raw.percent).and_then(|percent| u8::try_from(percent).ok());
        let max_in_flight = number(&raw.max_in_flight).and_then(|most| usize::try_from(most).ok());
        percent.filter(|percent| *percent > 0).map(|percent| Mirror {
            percent,
            methods,
            max_body: max_body
                .and_then(|bytes| usize::try_from(bytes).ok())
                .unwrap_or(64 << 10),
            max_in_flight: max_in_flight.unwrap_or(32),
        })
    }

    fn failover(&mut self, raw: &raw::Failover) -> Option<Duration> {
        let after = self.duration("after", raw.after.as_ref(), Duration::ZERO);
        raw.auto
            .unwrap_or(false)
            .then(|| after.unwrap_or(Duration::from_secs(5)))
    }

    fn hold(&mut self, raw: &raw::Hold) -> Hold {
        let defaults = Hold::default();
        // Ranges have been checked with the schema.
        let number = |at: &Option<At<i64>>| at.as_ref().and_then(|at| u32::try_from(*at.get()).ok());
        let bytes = self.size("bytes", raw.bytes.as_ref(), 1, u64::from(u32::MAX));
        Hold {
            requests: number(&raw.requests).map_or(defaults.requests, |count| count as usize),
            bytes: bytes
                .and_then(|bytes| usize::try_from(bytes).ok())
                .unwrap_or(defaults.bytes),
            release_rate: number(&raw.release_rate).unwrap_or(defaults.release_rate),
        }
    }

    fn preview(&mut self, raw: &raw::Preview) -> Preview {
        let named = raw.header.as_ref().and_then(|at| {
            let name = values::header_name(at.get());
            self.value("header", &at.span(), name.and_then(header))
        });
        let from = raw.from.as_ref().map(|list| {
            let networks = list
                .iter()
                .filter_map(|at| self.text("from", at, values::network));
            networks.collect()
        });
        Preview {
            header: named.unwrap_or(HeaderName::from_static("x-cutover-color")),
            cookie: raw
                .cookie
                .as_ref()
                .and_then(|at| self.text("cookie", at, cookie_name)),
            from: from.unwrap_or_else(|| vec![LOOPBACK]),
        }
    }

    fn affinity(&mut self, at: Option<&At<String>>) -> AffinityKey {
        const WORDS: [&str; 3] = ["cookie", "ip", "none"];
        let Some(at) = at else {
            return AffinityKey::default();
        };
        match at.get().as_str() {
            "cookie" => return AffinityKey::Ours,
            "ip" => return AffinityKey::Ip,
            "none" => return AffinityKey::None,
            _ => {}
        }
        let named = match at.get().split_once(':') {
            Some(("header", name)) => values::header_name(name)
                .and_then(header)
                .map(AffinityKey::Header),
            Some(("cookie", name)) => cookie_name(name).map(AffinityKey::Cookie),
            _ => {
                let message = format!("`key` cannot be {}", quoted(at.get()));
                let hint = did_you_mean(at.get(), WORDS).unwrap_or_else(|| {
                    "one of `cookie`, `header:NAME`, `cookie:NAME`, `ip`, `none`".to_owned()
                });
                self.findings.error(&at.span(), "bad_value", message, hint);
                return AffinityKey::default();
            }
        };
        self.value("key", &at.span(), named).unwrap_or_default()
    }
}

/// A path, with `*` at the end for all that begins so.
fn skew_path(text: &str) -> Result<SkewPath, String> {
    let (path, below) = match text.strip_suffix('*') {
        Some(path) => (path, true),
        None => (text, false),
    };
    if path.contains('*') {
        return Err("`*` stands at the end only, as in `/assets/*`".to_owned());
    }
    let path = values::path(path)?;
    Ok(if below {
        SkewPath::Below(path)
    } else {
        SkewPath::Exact(path)
    })
}

/// A method that changes nothing (RFC 9110 §9.2.1) and has no meaning of its own for a proxy.
fn safe_method(text: &str) -> Result<Method, String> {
    match text {
        "GET" => Ok(Method::GET),
        "HEAD" => Ok(Method::HEAD),
        "OPTIONS" => Ok(Method::OPTIONS),
        _ => Err(format!(
            "{} may change something: GET, HEAD and OPTIONS are copied only",
            quoted(text)
        )),
    }
}

/// A checked name as the data plane looks it up.
fn header(name: String) -> Result<HeaderName, String> {
    HeaderName::try_from(name).map_err(|error| error.to_string())
}

pub(super) const fn aim(raw: raw::Aim) -> Aim {
    match raw {
        raw::Aim::Blue => Aim::Color(Color::Blue),
        raw::Aim::Green => Aim::Color(Color::Green),
        raw::Aim::Standby => Aim::Standby,
    }
}

/// A cookie's name (RFC 6265 §4.1.1: a token).
fn cookie_name(text: &str) -> Result<String, String> {
    // What a header's name may have is what a token may have.
    match HeaderName::try_from(text) {
        Ok(_) if text.len() <= 256 => Ok(text.to_owned()),
        _ => Err("a cookie's name has letters, digits, `-`, `_` and the like, and no spaces".to_owned()),
    }
}
