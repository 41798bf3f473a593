//! `[…health]`: which kind of probe comes out of two levels, and what its conditions are.

use std::ops::Range;
use std::time::Duration;

use serde_json::Value;

use super::Build;
use crate::config::RevisionBy;
use crate::config::model::{EndpointAddress, GrpcProbe, Health, HttpProbe, Probe, Protocol, WhenLast};
use crate::config::raw::{self, At, Kind};
use crate::config::values;
use crate::rollout::ByColor;

/// Probing faster than this is a load test.
const LEAST_INTERVAL: Duration = Duration::from_millis(10);

/// What one `health` table says.
#[derive(Clone, Default)]
pub(super) struct HealthPart {
    kind: Option<Kind>,
    path: Option<String>,
    grpc_service: Option<String>,
    interval: Option<Duration>,
    timeout: Option<Duration>,
    rise: Option<u32>,
    fall: Option<u32>,
    status: Option<Vec<(u16, u16)>>,
    host: Option<String>,
    headers: Option<Vec<(String, String)>>,
    json: Option<Vec<(String, Value)>>,
    body_regex: Option<Option<regex::Regex>>,
    last: Option<WhenLast>,
    /// `None`: where it can be.
    identity: Option<bool>,
    revision_by: Option<RevisionBy>,
}

impl HealthPart {
    pub(super) fn read(raw: &raw::Health, build: &mut Build<'_, '_, '_>) -> Self {
        let count = |at: &Option<At<i64>>| at.as_ref().and_then(|at| u32::try_from(*at.get()).ok());
        Self {
            kind: raw.kind.as_ref().map(|at| *at.get()),
            // A path that cannot be used still says that HTTP is meant.
            path: raw
                .path
                .as_ref()
                .map(|at| build.text("path", at, values::request_target).unwrap_or_default()),
            grpc_service: raw
                .grpc_service
                .as_ref()
                .and_then(|at| build.text("grpc_service", at, grpc_service)),
            interval: build.duration("interval", raw.interval.as_ref(), LEAST_INTERVAL),
            timeout: build.duration("timeout", raw.timeout.as_ref(), Duration::from_millis(1)),
            rise: count(&raw.rise),
            fall: count(&raw.fall),
            status: raw
                .status
                .as_ref()
                .and_then(|at| build.text("status", at, values::statuses)),
            host: raw
                .host
                .as_ref()
                .and_then(|at| build.text("host", at, host_or_none)),
            headers: raw.headers.as_ref().map(|set| build.header_values(set)),
            json: raw.json.as_ref().map(|json| build.json(json)),
            body_regex: raw
                .body_regex
                .as_ref()
                .and_then(|at| build.text("body_regex", at, pattern_or_none)),
            last: raw.last.as_ref().map(|at| match at.get() {
                raw::Last::Serve => WhenLast::Serve,
                raw::Last::Refuse => WhenLast::Refuse,
            }),
            identity: said(raw),
            revision_by: None,
        }
    }

    /// With where the app says which revision it is.
    pub(super) fn named_by(self, revision_by: Option<RevisionBy>) -> Self {
        Self { revision_by, ..self }
    }

    /// This level's values where it has them, else the other's.
    ///
    /// A level that says `kind` or `path` decides what a probe is; the path of a level below does not make a
    /// probe HTTP that this level calls TCP.
    pub(super) fn over(&self, other: &Self) -> Self {
        let own_kind = self.kind.or(self.path.as_ref().map(|_| Kind::Http));
        Self {
            kind: own_kind.or(other.kind),
            path: self.path.clone().or_else(|| other.path.clone()),
            grpc_service: self.grpc_service.clone().or_else(|| other.grpc_service.clone()),
            interval: self.interval.or(other.interval),
            timeout: self.timeout.or(other.timeout),
            rise: self.rise.or(other.rise),
            fall: self.fall.or(other.fall),
            status: self.status.clone().or_else(|| other.status.clone()),
            host: self.host.clone().or_else(|| other.host.clone()),
            headers: self.headers.clone().or_else(|| other.headers.clone()),
            json: self.json.clone().or_else(|| other.json.clone()),
            body_regex: self.body_regex.clone().or_else(|| other.body_regex.clone()),
            last: self.last.or(other.last),
            identity: self.identity.or(other.identity),
            revision_by: self.revision_by.clone().or_else(|| other.revision_by.clone()),
        }
    }

    /// Whether probes ask for a path.
    pub(super) fn is_http(&self) -> bool {
        match self.kind {
            Some(kind) => kind == Kind::Http,
            None => self.path.is_some(),
        }
    }

    /// Whether probes ask the gRPC health service.
    pub(super) fn is_grpc(&self) -> bool {
        self.kind == Some(Kind::Grpc)
    }

    /// Whether HTTP is asked for, but no path to ask for.
    pub(super) fn lacks_path(&self) -> bool {
        self.is_http() && self.path.is_none()
    }

    /// `fixed` is the `Host` that requests get, where it is always the same.
    pub(super) fn over_defaults(self, fixed: &str) -> Health {
        let asks = self.is_http() && self.identity.unwrap_or(true);
        let identity = self.revision_by.clone().filter(|_| asks);
        let kind = if self.is_http() {
            Probe::Http(Box::new(HttpProbe {
                path: self.path.unwrap_or_default(),
                host: self
                    .host
                    .filter(|host| !host.is_empty())
                    .unwrap_or_else(|| fixed.to_owned()),
                headers: self.headers.unwrap_or_default(),
                status: self.status.unwrap_or_else(|| vec![(200, 299)]),
                json: self.json.unwrap_or_default(),
                body_regex: self.body_regex.flatten(),
            }))
        } else if self.is_grpc() {
            Probe::Grpc(Box::new(GrpcProbe {
                service: self.grpc_service.unwrap_or_default(),
                host: self
                    .host
                    .filter(|host| !host.is_empty())
                    .unwrap_or_else(|| fixed.to_owned()),
            }))
        } else {
            Probe::Tcp
        };
        Health {
            kind,
            interval: self.interval.unwrap_or(Duration::from_secs(2)),
            timeout: self.timeout.unwrap_or(Duration::from_secs(1)),
            rise: self.rise.unwrap_or(2),
            fall: self.fall.unwrap_or(3),
            last: self.last.unwrap_or(WhenLast::Serve),
            identity,
            revision: None,
        }
    }
}

/// What `identity` says, unless it is "auto".
fn said(raw: &raw::Health) -> Option<bool> {
    match raw.identity.as_ref().map(At::get) {
        Some(raw::Whether::Said(said)) => Some(*said),
        Some(raw::Whether::Auto(word)) => {
            debug_assert_eq!(word, "auto", "the schema knows no other");
            None
        }
        None => None,
    }
}

impl Build<'_, '_, '_> {
    /// Reports conditions on an answer where no probe asks for one.
    ///
    /// `http` says whether any probe that this table applies to is HTTP.
    pub(super) fn http_only(&mut self, raw: &raw::Health, http: bool) {
        if http {
            return;
        }
        let kind = raw.kind.as_ref().map(|at| *at.get());
        let is_grpc = kind == Some(Kind::Grpc);
        let conditions = [
            ("status", raw.status.as_ref().map(At::span)),
            (
                "host",
                raw.host
                    .as_ref()
                    .filter(|at| !is_grpc && !at.get().is_empty())
                    .map(At::span),
            ),
            (
                "body_regex",
                raw.body_regex
                    .as_ref()
                    .filter(|at| !at.get().is_empty())
                    .map(At::span),
            ),
            (
                "headers",
                raw.headers.iter().flatten().next().map(|(name, _)| name.span()),
            ),
            (
                "json",
                raw.json.iter().flatten().next().map(|(name, _)| name.span()),
            ),
            (
                "identity",
                raw.identity
                    .as_ref()
                    .filter(|_| said(raw) == Some(true))
                    .map(At::span),
            ),
            (
                "path",
                raw.path
                    .as_ref()
                    .filter(|_| matches!(kind, Some(Kind::Tcp | Kind::Grpc)))
                    .map(At::span),
            ),
        ];
        for (key, span) in conditions {
            if let Some(span) = span {
                let message = if is_grpc {
                    format!(
                        "`{key}` has no effect: with `kind = \"grpc\"` a probe asks the gRPC health service"
                    )
                } else {
                    format!(
                        "`{key}` has no effect: without `path`, or with `kind = \"tcp\"`, a probe only connects"
                    )
                };
                let hint = if key == "path" {
                    "remove `path` or `kind`"
                } else {
                    "add `path = \"/healthz\"`, or remove it"
                };
                self.findings
                    .error(&span, "conflicting_keys", message, hint.to_owned());
            }
        }
    }

    /// Where the app says which revision it is; reports probes that need it and cannot have it.
    pub(super) fn identities(&mut self, raw: &raw::App) -> Option<RevisionBy> {
        let by = self.revision_by(raw);
        let services = raw.service.values().map(|service| &service.health);
        for health in services.chain([&raw.health]) {
            self.identity(health, by.as_ref());
        }
        by
    }

    /// `identity = true` needs something to know a revision by.
    fn identity(&mut self, raw: &raw::Health, by: Option<&RevisionBy>) {
        if let Some(at) = raw
            .identity
            .as_ref()
            .filter(|_| said(raw) == Some(true) && by.is_none())
        {
            let message = "`identity = true`, but nothing says which revision answers".to_owned();
            let hint =
                "add `revision_header = \"x-app-revision\"` or `revision_json = \"/version\"` to the app"
                    .to_owned();
            self.findings.error(&at.span(), "missing_key", message, hint);
        }
    }

    /// gRPC needs HTTP/2, and its key a probe that uses it.
    pub(super) fn grpc(
        &mut self,
        raw: &raw::Health,
        is_grpc: bool,
        place: &Range<usize>,
        endpoints: &ByColor<Vec<EndpointAddress>>,
    ) {
        if !is_grpc {
            if let Some(at) = raw.grpc_service.as_ref().filter(|at| !at.get().is_empty()) {
                let message = "`grpc_service` has no effect without `kind = \"grpc\"`".to_owned();
                self.findings.error(&at.span(), "conflicting_keys", message, None);
            }
            return;
        }
        let plain = |address: &&EndpointAddress| address.protocol == Protocol::Http1;
        let place = raw.kind.as_ref().map_or_else(|| place.clone(), At::span);
        if let Some(address) = endpoints.iter().flat_map(|(_, list)| list).find(plain) {
            let message = format!("`kind = \"grpc\"` needs HTTP/2, and `{address}` is HTTP/1.1");
            let hint = format!("write `h2c://{address}`, or `https://{address}` where it speaks TLS");
            self.findings.error(&place, "conflicting_keys", message, hint);
        }
    }

    fn json(&mut self, raw: &std::collections::BTreeMap<At<String>, Value>) -> Vec<(String, Value)> {
        let mut json = Vec::new();
        for (pointer, value) in raw {
            if let Some(pointer) = self.text("json", pointer, values::pointer) {
                json.push((pointer, value.clone()));
            }
        }
        json
    }
}

fn host_or_none(text: &str) -> Result<String, String> {
    if text.is_empty() {
        return Ok(String::new());
    }
    values::host_value(text)
}

/// The full name of a gRPC service: `shop.v1.Orders`.
fn grpc_service(text: &str) -> Result<String, String> {
    let fits = text.len() <= 127
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'/'));
    if fits {
        Ok(text.to_owned())
    } else {
        Err("the name of a gRPC service has up to 127 letters, digits, `.` and `_`".to_owned())
    }
}

fn pattern_or_none(text: &str) -> Result<Option<regex::Regex>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    values::pattern(text).map(Some)
}
