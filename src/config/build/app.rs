//! `[app.NAME]` and its services.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::time::Duration;

use super::Build;
use super::errors::ErrorsPart;
use super::health::HealthPart;
use super::origin::OriginPart;
use super::parts::{LimitsPart, TimeoutsPart};
use super::resilience::ResiliencePart;
use crate::config::diagnostics::quoted;
use crate::config::load::PemFile;
use crate::config::model::{
    Address, App, Drain, EndpointAddress, Headers, HostPattern, Initial, ListenAddress, PathMatch, Protocol,
    Service, StreamPolicy, Streams, Switch,
};
use crate::config::raw::{self, At, DurationText};
use crate::config::values;
use crate::rollout::{ByColor, Color};
use crate::wire::preamble::Version;

/// What each service wants to answer; each pair of host and path belongs to one.
#[derive(Default)]
pub(super) struct Matches(Vec<Claim>);

struct Claim {
    hosts: Vec<Option<HostPattern>>,
    matches: PathMatch,
    owner: String,
    place: Range<usize>,
}

impl Matches {
    /// Reports each pair that a service wants and an earlier one of the file has.
    pub(super) fn settle(mut self, build: &mut Build<'_, '_, '_>) {
        self.0.sort_by_key(|claim| claim.place.start);
        let mut taken: BTreeMap<(Option<HostPattern>, PathMatch), String> = BTreeMap::new();
        for claim in self.0 {
            let mut told = BTreeSet::new();
            for host in claim.hosts {
                let on = host
                    .as_ref()
                    .map_or("any host".to_owned(), |host| format!("`{host}`"));
                let owner = taken
                    .entry((host, claim.matches.clone()))
                    .or_insert_with(|| claim.owner.clone());
                if *owner != claim.owner && told.insert(owner.clone()) {
                    let (what, owner) = (shown(&claim.matches), quoted(owner));
                    let message = format!("{what} on {on} is answered by {owner} already");
                    let hint = "give them different `hosts`, `path` or `path_prefix`".to_owned();
                    build
                        .findings
                        .error(&claim.place, "duplicate_match", message, hint);
                }
            }
        }
    }
}

/// The service that `blue` and `green` of an app stand for.
const SHORTHAND: &str = "web";

type RawEndpoints = Option<At<Vec<At<String>>>>;

/// What is needed to build one app.
pub(super) struct AppBuild<'b, 'a, 't, 'e> {
    pub(super) build: &'b mut Build<'a, 't, 'e>,
    pub(super) name: &'b At<String>,
    pub(super) limits: &'b LimitsPart,
    pub(super) errors: &'b ErrorsPart,
    pub(super) listens: &'b [&'b ListenAddress],
    pub(super) pem: &'b mut Vec<(PemFile, Range<usize>)>,
}

impl AppBuild<'_, '_, '_, '_> {
    pub(super) fn app(mut self, raw: &raw::App, matches: &mut Matches) -> App {
        let name = self.name.get().clone();
        self.build.text(&name, self.name, values::name);
        let hosts = self.hosts(raw);
        let of_connections = [
            ("connections", &raw.limits.connections),
            ("h2_streams", &raw.limits.h2_streams),
        ];
        for (key, at) in of_connections {
            let Some(at) = at else { continue };
            let message = format!("`{key}` is for the whole process: a connection has no app yet");
            let hint = "put it into `[limits]`".to_owned();
            self.build
                .findings
                .error(&at.span(), "conflicting_keys", message, hint);
        }
        let limits = LimitsPart::read(&raw.limits, self.build).over(*self.limits);
        let headers = self.build.headers(&raw.headers, None);
        let errors = ErrorsPart::read(&raw.errors, self.build, self.pem).over(self.errors);
        let resilience = ResiliencePart::read(&raw.balance, &raw.retry, self.build);
        let services = self.services(raw, &headers, resilience);
        if let Some(hosts) = &hosts {
            let claims = services
                .iter()
                .filter_map(|(service, place)| self.claim(hosts, service, place));
            matches.0.extend(claims);
        }
        let services: BTreeMap<_, _> = services
            .into_iter()
            .map(|(service, _)| (service.name.clone(), service))
            .collect();
        self.one_client_a_connection(raw, &services);
        let (initial, active) = self.colors(raw, &services);
        let deploy = self.build.deploy(self.name, &raw.deploy);
        self.build.gates_ca(raw, self.pem);
        App {
            name,
            hosts: hosts.unwrap_or_default(),
            initial,
            active,
            services,
            limits: limits.over_defaults(),
            drain: Drain {
                http: self
                    .build
                    .duration("http", raw.drain.http.as_ref(), Duration::ZERO)
                    .unwrap_or(Duration::from_secs(30)),
                streams: self.streams(&raw.drain.streams),
            },
            deploy,
            balance: resilience.balance(),
            retry: resilience.retry(),
            headers,
            errors: errors.over_defaults(),
            send_proxy_protocol: raw.send_proxy_protocol.as_ref().map(|at| match at.get() {
                raw::ProxyVersion::V1 => Version::V1,
                raw::ProxyVersion::V2 => Version::V2,
            }),
            traffic: self.build.traffic(raw),
            switch: Switch {
                require: self.build.require(raw),
                verify: raw
                    .switch
                    .verify
                    .as_ref()
                    .map_or(3, |at| u32::try_from(*at.get()).unwrap_or(3)),
            },
            policy: self.build.policy(raw),
        }
    }

    /// A connection that names its client carries nobody else's requests; over `h2c://` it would.
    fn one_client_a_connection(&mut self, raw: &raw::App, services: &BTreeMap<String, Service>) {
        let Some(at) = &raw.send_proxy_protocol else {
            return;
        };
        let mut endpoints = services.values().flat_map(|service| service.endpoints.iter());
        if endpoints.any(|(_, all)| all.iter().any(|endpoint| endpoint.protocol == Protocol::H2c)) {
            let message = "`send_proxy_protocol` with `h2c://` endpoints: streams of all clients share a connection there";
            let hint = "speak HTTP/1.1 to them, with or without TLS".to_owned();
            self.build
                .findings
                .error(&at.span(), "conflicting_keys", message, hint);
        }
    }

    fn streams(&mut self, raw: &raw::Streams) -> Streams {
        let mut time = |key, at: &Option<At<DurationText>>, default| {
            let given = self.build.duration(key, at.as_ref(), Duration::ZERO);
            given.unwrap_or(Duration::from_secs(default))
        };
        Streams {
            deadline: time("deadline", &raw.deadline, 600),
            spread: time("spread", &raw.spread, 60),
            policy: match raw.policy.as_ref().map(At::get) {
                Some(raw::StreamPolicy::Keep) => StreamPolicy::Keep,
                Some(raw::StreamPolicy::Close) => StreamPolicy::Close,
                Some(raw::StreamPolicy::Spread) | None => StreamPolicy::Spread,
            },
        }
    }

    /// None when one of them was wrong: then nobody knows what the app answers.
    fn hosts(&mut self, raw: &raw::App) -> Option<Vec<HostPattern>> {
        let mut all = !self.broken(None, &["hosts"]);
        let mut hosts = Vec::new();
        for at in raw.hosts.iter().flatten() {
            let Some(host) = self.build.text("hosts", at, values::host_pattern) else {
                all = false;
                continue;
            };
            if hosts.contains(&host) {
                let message = format!("`{host}` is in the list twice");
                self.build
                    .findings
                    .error(&at.span(), "duplicate_match", message, None);
            } else {
                hosts.push(host);
            }
        }
        all.then_some(hosts)
    }

    /// All services, each with the place to point at.
    fn services(
        &mut self,
        raw: &raw::App,
        headers: &Headers,
        resilience: ResiliencePart,
    ) -> Vec<(Service, Range<usize>)> {
        let health = HealthPart::read(&raw.health, self.build).named_by(self.build.identities(raw));
        let timeouts = TimeoutsPart::read(&raw.timeouts, self.build);
        let tls = OriginPart::read(&raw.tls, self.build, self.pem);
        let shorthand = raw.blue.as_ref().or(raw.green.as_ref());
        if let (Some(at), false) = (shorthand, raw.service.is_empty()) {
            let message = "`blue` and `green` of an app are short for its only service, and it has services";
            let hint = format!("move them into `[app.{}.service.NAME]`", self.name.get());
            self.build
                .findings
                .error(&at.span(), "conflicting_keys", message, hint);
        }
        let mut services = Vec::new();
        let mut http = false;
        if raw.service.is_empty() {
            let endpoints = self.endpoints(None, &self.name.span(), &raw.blue, &raw.green);
            self.need_path(None, &health, &raw.health, &self.name.span());
            http |= health.is_http();
            self.build
                .grpc(&raw.health, health.is_grpc(), &self.name.span(), &endpoints);
            services.push((
                Service {
                    name: SHORTHAND.to_owned(),
                    matches: PathMatch::Prefix("/".to_owned()),
                    strip_prefix: false,
                    endpoints,
                    timeouts: timeouts.over_defaults(),
                    health: health.over_defaults(headers.fixed_host()),
                    headers: headers.clone(),
                    tls: tls.over_defaults(),
                    balance: resilience.balance(),
                    retry: resilience.retry(),
                },
                self.name.span(),
            ));
        } else {
            for (name, raw) in &raw.service {
                let service = self.service(name, raw, (&health, timeouts, &tls, resilience), headers);
                http |= matches!(service.0.health.kind, crate::config::model::Probe::Http(_));
                services.push(service);
            }
        }
        let http = http || self.probe_unclear(None);
        self.build.http_only(&raw.health, http);
        let endpoints: Vec<_> = services.iter().map(|(service, _)| &service.endpoints).collect();
        self.build.tls_unused(&raw.tls, &endpoints);
        services
    }

    fn service(
        &mut self,
        name: &At<String>,
        raw: &raw::Service,
        (health, timeouts, tls, resilience): (&HealthPart, TimeoutsPart, &OriginPart, ResiliencePart),
        headers: &Headers,
    ) -> (Service, Range<usize>) {
        self.build.text(name.get(), name, values::name);
        let headers = self.build.headers(&raw.headers, Some(headers));
        let (matches, place) = self.path_match(name, raw);
        if let (Some(at), PathMatch::Exact(_)) = (&raw.strip_prefix, &matches)
            && *at.get()
        {
            let message = "`strip_prefix` needs `path_prefix`: with `path` nothing would be left".to_owned();
            self.build
                .findings
                .error(&at.span(), "conflicting_keys", message, None);
        }
        let endpoints = self.endpoints(Some(name.get()), &name.span(), &raw.blue, &raw.green);
        let own = HealthPart::read(&raw.health, self.build);
        let merged = own.over(health);
        self.need_path(Some(name.get()), &merged, &raw.health, &name.span());
        self.build
            .grpc(&raw.health, merged.is_grpc(), &name.span(), &endpoints);
        let http = merged.is_http() || self.probe_unclear(Some(name.get()));
        self.build.http_only(&raw.health, http);
        let timeouts = TimeoutsPart::read(&raw.timeouts, self.build).over(timeouts);
        let resilience = ResiliencePart::read(&raw.balance, &raw.retry, self.build).over(resilience);
        let own_tls = OriginPart::read(&raw.tls, self.build, self.pem);
        self.build.tls_unused(&raw.tls, &[&endpoints]);
        let service = Service {
            name: name.get().clone(),
            matches,
            strip_prefix: raw.strip_prefix.as_ref().is_some_and(|at| *at.get()),
            endpoints,
            timeouts: timeouts.over_defaults(),
            health: merged.over_defaults(headers.fixed_host()),
            headers,
            tls: own_tls.over(tls).over_defaults(),
            balance: resilience.balance(),
            retry: resilience.retry(),
        };
        (service, place)
    }

    /// HTTP without a path is a mistake; nothing at all is worth a warning.
    fn need_path(
        &mut self,
        service: Option<&str>,
        health: &HealthPart,
        raw: &raw::Health,
        place: &Range<usize>,
    ) {
        if self.probe_unclear(service) {
            return;
        }
        if health.lacks_path() {
            let place = raw.kind.as_ref().map_or(place.clone(), At::span);
            let message = "`kind = \"http\"` needs a path to ask for".to_owned();
            let hint = "add `path = \"/healthz\"`".to_owned();
            self.build.findings.error(&place, "missing_key", message, hint);
        } else if !health.is_http() && raw.kind.is_none() {
            let message = "no health path: an open port counts as healthy".to_owned();
            let hint = format!("add `path` to `[app.{}.health]`", self.name.get());
            self.build.findings.warn(place, "no_health_path", message, hint);
        }
    }

    /// Whether what a probe is depends on a value that was wrong.
    fn probe_unclear(&self, service: Option<&str>) -> bool {
        [None, service].into_iter().any(|service| {
            self.broken(service, &["health"])
                || self.broken(service, &["health", "path"])
                || self.broken(service, &["health", "kind"])
        })
    }

    fn path_match(&mut self, name: &At<String>, raw: &raw::Service) -> (PathMatch, Range<usize>) {
        match (&raw.path, &raw.path_prefix) {
            (Some(path), prefix) => {
                if prefix.is_some() {
                    let message = "`path` and `path_prefix` cannot both be set".to_owned();
                    let hint = "`path` is this path only, `path_prefix` also what is below".to_owned();
                    self.build
                        .findings
                        .error(&path.span(), "conflicting_keys", message, hint);
                }
                let text = self.build.text("path", path, values::path).unwrap_or_default();
                (PathMatch::Exact(text), path.span())
            }
            (None, Some(prefix)) => {
                let text = self
                    .build
                    .text("path_prefix", prefix, values::path)
                    .unwrap_or_default();
                let text = match text.trim_end_matches('/') {
                    "" if text.is_empty() => String::new(),
                    "" => "/".to_owned(),
                    trimmed => trimmed.to_owned(),
                };
                (PathMatch::Prefix(text), prefix.span())
            }
            (None, None) => {
                let service = Some(name.get().as_str());
                let unclear = self.broken(service, &["path"]) || self.broken(service, &["path_prefix"]);
                let prefix = if unclear { "" } else { "/" };
                (PathMatch::Prefix(prefix.to_owned()), name.span())
            }
        }
    }

    fn endpoints(
        &mut self,
        service: Option<&str>,
        place: &Range<usize>,
        blue: &RawEndpoints,
        green: &RawEndpoints,
    ) -> ByColor<Vec<EndpointAddress>> {
        let raw = ByColor { blue, green };
        let mut taken: BTreeMap<Address, Color> = BTreeMap::new();
        let endpoints = raw.map(|color, list| {
            let list = list.as_ref().map(At::get).into_iter().flatten();
            self.color(color, list, &mut taken)
        });
        let written = raw.map(|color, list| {
            list.as_ref().is_some_and(|list| !list.get().is_empty())
                || self.broken(service, &[color.as_str()])
                || self.broken(service, &["service"])
        });
        match (written.blue, written.green) {
            (false, false) => {
                let message = "neither color has an endpoint".to_owned();
                let hint = "add `blue = [\"127.0.0.1:8001\"]` and `green = [\"127.0.0.1:8002\"]`".to_owned();
                self.build.findings.error(place, "no_endpoints", message, hint);
            }
            (true, true) => {}
            (blue, _) => {
                let (empty, list) = if blue {
                    (Color::Green, raw.green)
                } else {
                    (Color::Blue, raw.blue)
                };
                let place = list.as_ref().map_or(place.clone(), At::span);
                let message = format!("{empty} has no endpoints: it cannot be switched to");
                let hint = "add some here, or later with `cutover endpoints set`".to_owned();
                self.build
                    .findings
                    .warn(&place, "color_without_endpoints", message, hint);
            }
        }
        endpoints
    }

    fn color<'r>(
        &mut self,
        color: Color,
        list: impl Iterator<Item = &'r At<String>>,
        taken: &mut BTreeMap<Address, Color>,
    ) -> Vec<EndpointAddress> {
        let mut endpoints = Vec::new();
        for at in list {
            let endpoint = match values::parse_endpoint(at.get()) {
                Ok(endpoint) => endpoint,
                Err(bad) => {
                    self.build
                        .findings
                        .error(&at.span(), "bad_endpoint", bad.to_string(), None);
                    continue;
                }
            };
            if let Some(other) = taken.insert(endpoint.place.clone(), color) {
                let (message, hint) = if other == color {
                    (format!("`{endpoint}` is in {color} twice"), None)
                } else {
                    let hint = "a switch would change nothing: give each color its own".to_owned();
                    (format!("`{endpoint}` is in blue and in green"), Some(hint))
                };
                self.build
                    .findings
                    .error(&at.span(), "duplicate_endpoint", message, hint);
                continue;
            }
            if self.listens.iter().any(|listen| is_own(listen, &endpoint.place)) {
                let message =
                    format!("`{endpoint}` is a listener of cutover itself: requests would go in a circle");
                self.build
                    .findings
                    .error(&at.span(), "endpoint_is_listener", message, None);
            }
            endpoints.push(endpoint);
        }
        endpoints
    }

    fn claim(&self, hosts: &[HostPattern], service: &Service, place: &Range<usize>) -> Option<Claim> {
        if let PathMatch::Exact(path) | PathMatch::Prefix(path) = &service.matches
            && path.is_empty()
        {
            return None; // It could not be read and has been reported.
        }
        let hosts = if hosts.is_empty() {
            vec![None]
        } else {
            hosts.iter().cloned().map(Some).collect()
        };
        Some(Claim {
            hosts,
            matches: service.matches.clone(),
            owner: format!("{}/{}", self.name.get(), service.name),
            place: place.clone(),
        })
    }

    /// Whether a key of this app, or of a service of it, had a value that was taken out.
    fn broken(&self, service: Option<&str>, keys: &[&str]) -> bool {
        let mut path = vec!["app", self.name.get().as_str()];
        path.extend(service.into_iter().flat_map(|name| ["service", name]));
        path.extend(keys);
        self.build.findings.is_broken(&path)
    }

    fn colors(&mut self, raw: &raw::App, services: &BTreeMap<String, Service>) -> (Initial, Option<Color>) {
        let initial = match raw.initial.as_ref().map(At::get) {
            Some(raw::Initial::Blue) => Initial::Color(Color::Blue),
            Some(raw::Initial::Green) => Initial::Color(Color::Green),
            Some(raw::Initial::Auto) | None => Initial::Auto,
        };
        let active = raw.active.as_ref().map(|at| match at.get() {
            raw::Color::Blue => Color::Blue,
            raw::Color::Green => Color::Green,
        });
        let wanted = [
            (
                "initial",
                raw.initial.as_ref().map(At::span),
                match initial {
                    Initial::Color(color) => Some(color),
                    Initial::Auto => None,
                },
            ),
            ("active", raw.active.as_ref().map(At::span), active),
        ];
        for (key, span, color) in wanted {
            if let (Some(span), Some(color)) = (span, color)
                && services
                    .values()
                    .any(|service| service.endpoints[color].is_empty())
            {
                let message = format!("`{key}` is {color}, which has no endpoints in the file");
                self.build
                    .findings
                    .warn(&span, "color_without_endpoints", message, None);
            }
        }
        (initial, active)
    }
}

/// Whether connecting to the endpoint would reach the listener.
fn is_own(listen: &ListenAddress, endpoint: &Address) -> bool {
    match (listen, endpoint) {
        (ListenAddress::Tcp(listen), Address::Ip(endpoint)) => {
            listen == endpoint
                || (listen.ip().is_unspecified()
                    && listen.port() == endpoint.port()
                    && endpoint.ip().is_loopback())
        }
        (ListenAddress::Unix(listen), Address::Unix(endpoint)) => listen == endpoint,
        _ => false,
    }
}

fn shown(matches: &PathMatch) -> String {
    match matches {
        PathMatch::Exact(path) => format!("the path `{path}`"),
        PathMatch::Prefix(path) => format!("the prefix `{path}`"),
    }
}
