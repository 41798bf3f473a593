//! `[app.NAME.headers]`

use std::collections::{BTreeMap, BTreeSet};

use super::Build;
use crate::config::diagnostics::quoted;
use crate::config::model::{Headers, HostHeader};
use crate::config::raw::{self, At};
use crate::config::values;

/// The answer header that names the color, unless the file says otherwise.
const EXPOSE_COLOR: &str = "x-cutover-color";

impl Build<'_, '_, '_> {
    pub(super) fn headers(&mut self, raw: &raw::Headers) -> Headers {
        let (request_set, request_remove) = self.changes(&raw.request);
        let (response_set, response_remove) = self.changes(&raw.response);
        Headers {
            host: raw
                .host
                .as_ref()
                .map_or(HostHeader::Preserve, |at| self.host_header(at)),
            forwarded: raw.forwarded.as_ref().is_some_and(|at| *at.get()),
            request_set,
            request_remove,
            response_set,
            response_remove,
            expose_color: match &raw.expose_color {
                None => EXPOSE_COLOR.to_owned(),
                Some(at) if at.get().is_empty() => String::new(),
                Some(at) => self
                    .text("expose_color", at, values::header_name)
                    .unwrap_or_default(),
            },
            expose_revision: raw.expose_color.as_ref().is_some_and(|at| !at.get().is_empty()),
        }
    }

    fn host_header(&mut self, at: &At<String>) -> HostHeader {
        match at.get().as_str() {
            "preserve" => HostHeader::Preserve,
            "upstream" => HostHeader::Upstream,
            _ => HostHeader::Fixed(self.text("host", at, values::host_value).unwrap_or_default()),
        }
    }

    fn changes(&mut self, raw: &raw::HeaderChanges) -> (Vec<(String, String)>, Vec<String>) {
        let set = raw
            .set
            .as_ref()
            .map(|set| self.header_values(set))
            .unwrap_or_default();
        let mut remove = Vec::new();
        for at in raw.remove.iter().flatten() {
            let Some(name) = self.text("remove", at, values::header_name) else {
                continue;
            };
            if set.iter().any(|(set, _)| *set == name) {
                let message = format!("`{name}` is both set and removed");
                let hint = "setting replaces what was there: leave it out of `remove`".to_owned();
                self.findings.error(&at.span(), "conflicting_keys", message, hint);
            }
            remove.push(name);
        }
        (set, remove)
    }

    /// Names and values of headers, by lower-case name.
    pub(super) fn header_values(&mut self, raw: &BTreeMap<At<String>, At<String>>) -> Vec<(String, String)> {
        let mut set = BTreeMap::new();
        let mut seen = BTreeSet::new();
        for (name, value) in raw {
            let valid = self.text(name.get(), value, values::header_value);
            let Some(lower) = self.value(
                quoted(name.get()).trim_matches('`'),
                &name.span(),
                values::header_name(name.get()),
            ) else {
                continue;
            };
            if !seen.insert(lower.clone()) {
                let message = format!("the header `{lower}` is set twice: letter case does not count");
                self.findings.error(&name.span(), "duplicate_name", message, None);
            }
            if let Some(value) = valid {
                set.insert(lower, value);
            }
        }
        set.into_iter().collect()
    }
}
