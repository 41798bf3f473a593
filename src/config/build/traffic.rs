//! The tables of an app that choose between its colors.

use http::HeaderName;

use super::Build;
use crate::config::diagnostics::{did_you_mean, quoted};
use crate::config::model::{AffinityKey, Traffic};
use crate::config::raw::{self, At};
use crate::config::values;

impl Build<'_, '_, '_> {
    pub(super) fn traffic(&mut self, raw: &raw::App) -> Traffic {
        Traffic {
            affinity: self.affinity(raw.affinity.key.as_ref()),
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
                .and_then(|name| HeaderName::try_from(name).map_err(|error| error.to_string()))
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

/// A cookie's name (RFC 6265 §4.1.1: a token).
fn cookie_name(text: &str) -> Result<String, String> {
    // What a header's name may have is what a token may have.
    match HeaderName::try_from(text) {
        Ok(_) if text.len() <= 256 => Ok(text.to_owned()),
        _ => Err("a cookie's name has letters, digits, `-`, `_` and the like, and no spaces".to_owned()),
    }
}
