//! `[app.NAME.headers]`

use std::collections::{BTreeMap, BTreeSet};

use http::HeaderName;

use super::Build;
use crate::config::diagnostics::quoted;
use crate::config::model::{Headers, HostHeader, IdFrom, Trace};
use crate::config::raw::{self, At};
use crate::config::values;

/// The answer header that names the color, unless the file says otherwise.
const EXPOSE_COLOR: &str = "x-cutover-color";

/// The header that names a request, unless the file says otherwise. Static, so that workers share no count of it.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

type Set = Vec<(String, String)>;

impl Build<'_, '_, '_> {
    /// One `headers` table; what it does not say is as in `under`, or the default.
    pub(super) fn headers(&mut self, raw: &raw::Headers, under: Option<&Headers>) -> Headers {
        let is = |at: &Option<At<bool>>| at.as_ref().map(|at| *at.get());
        let host = raw.host.as_ref().map(|at| self.host_header(at));
        let host_is_upstream = host.as_ref().map(|host| *host == HostHeader::Upstream);
        let expose_color = raw.expose_color.as_ref().map(|at| match at.get().as_str() {
            "" => String::new(),
            _ => self
                .text("expose_color", at, values::header_name)
                .unwrap_or_default(),
        });
        let request_id = raw.request_id.as_ref().map(|at| match at.get().as_str() {
            "" => None,
            _ => {
                let name = self.text("request_id", at, values::header_name);
                name.and_then(|name| HeaderName::try_from(name).ok())
            }
        });
        let (request_set, request_remove) = self.changes(&raw.request);
        let (response_set, response_remove) = self.changes(&raw.response);
        let (request_set, request_remove) = match under {
            None => (request_set, request_remove),
            Some(under) => merged(
                request_set,
                request_remove,
                &under.request_set,
                &under.request_remove,
            ),
        };
        let (response_set, response_remove) = match under {
            None => (response_set, response_remove),
            Some(under) => merged(
                response_set,
                response_remove,
                &under.response_set,
                &under.response_remove,
            ),
        };
        Headers {
            rewrite_location: is(&raw.rewrite_location)
                .or(host_is_upstream)
                .unwrap_or_else(|| under.is_some_and(|under| under.rewrite_location)),
            host: host.unwrap_or_else(|| under.map_or(HostHeader::Preserve, |under| under.host.clone())),
            request_id: request_id
                .unwrap_or_else(|| under.map_or(Some(REQUEST_ID), |under| under.request_id.clone())),
            request_id_from: raw
                .request_id_from
                .as_ref()
                .map(id_from)
                .unwrap_or_else(|| under.map(|under| under.request_id_from).unwrap_or_default()),
            expose_request_id: is(&raw.expose_request_id)
                .unwrap_or_else(|| under.is_some_and(|under| under.expose_request_id)),
            trace: raw
                .trace
                .as_ref()
                .map(trace)
                .unwrap_or_else(|| under.map(|under| under.trace).unwrap_or_default()),
            forwarded: is(&raw.forwarded).unwrap_or_else(|| under.is_some_and(|under| under.forwarded)),
            request_set,
            request_remove,
            response_set,
            response_remove,
            expose_revision: expose_color.as_ref().map_or_else(
                || under.is_some_and(|under| under.expose_revision),
                |name| !name.is_empty(),
            ),
            expose_color: expose_color.unwrap_or_else(|| {
                under.map_or_else(|| EXPOSE_COLOR.to_owned(), |under| under.expose_color.clone())
            }),
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

/// A service's changes over its app's: of one header the service's word stands, whether it sets or removes.
fn merged(
    mut set: Set,
    mut remove: Vec<String>,
    under_set: &Set,
    under_remove: &[String],
) -> (Set, Vec<String>) {
    for (name, value) in under_set {
        if !remove.contains(name) && !set.iter().any(|(own, _)| own == name) {
            set.push((name.clone(), value.clone()));
        }
    }
    for name in under_remove {
        if !remove.contains(name) && !set.iter().any(|(own, _)| own == name) {
            remove.push(name.clone());
        }
    }
    (set, remove)
}

fn id_from(at: &At<raw::IdFrom>) -> IdFrom {
    match at.get() {
        raw::IdFrom::Anyone => IdFrom::Anyone,
        raw::IdFrom::Trusted => IdFrom::Trusted,
        raw::IdFrom::Nobody => IdFrom::Nobody,
    }
}

fn trace(at: &At<raw::Trace>) -> Trace {
    match at.get() {
        raw::Trace::Pass => Trace::Pass,
        raw::Trace::Start => Trace::Start,
        raw::Trace::Restart => Trace::Restart,
    }
}
