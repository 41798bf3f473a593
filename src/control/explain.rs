//! Where a request would go, and why: the request path's own functions, with nothing sent and nothing counted.

use std::net::IpAddr;

use http::{HeaderMap, HeaderName, HeaderValue, Uri};

use super::ask::Refusal;
use super::controller::Controller;
use super::handle::{Explain, ExplainRequest};
use crate::config::RuleColor;
use crate::rollout::{Color, Weight};
use crate::routing::{
    AppRoute, Asked, From, HostBuffer, Lack, PreviewKey, ServiceRoute, Special, Unavailable, Why,
    choose_with, client_of, holds, peek_bucket,
};
use crate::upstream::Health;

impl Controller {
    /// Explain a request.
    pub(super) fn explain(&self, request: &ExplainRequest) -> Result<Explain, Refusal> {
        let invalid = |why: String| Refusal::Invalid(why);
        let method = http::Method::from_bytes(request.method.as_bytes())
            .map_err(|_| invalid(format!("`{}` is no method", request.method)))?;
        let uri: Uri = request
            .url
            .parse()
            .map_err(|error| invalid(format!("`{}` is no URL: {error}", request.url)))?;
        let headers = headers(&request.headers)?;
        let peer = peer(request.from.as_deref())?;
        let named = headers
            .get(http::header::HOST)
            .and_then(|host| host.to_str().ok());
        let given = uri.authority().map(|authority| authority.as_str()).or(named);
        let mut buffer = HostBuffer::new();
        let host = match given {
            Some(given) => buffer
                .normalise(given)
                .ok_or_else(|| invalid(format!("`{given}` is no host")))?
                .to_owned(),
            None => String::new(),
        };
        let path = uri.path();
        let mut explain = Explain {
            host: host.clone(),
            path: path.to_owned(),
            app: None,
            service: None,
            color: None,
            endpoints: Vec::new(),
            steps: Vec::new(),
            status: None,
        };
        let table = self.published.load_full();
        match table.find(&host, path) {
            Some((app, service)) => {
                let tls = uri.scheme() == Some(&http::uri::Scheme::HTTPS);
                let asked = Asked {
                    method: &method,
                    host: &host,
                    uri: &uri,
                    headers: &headers,
                    client: client_of(&headers, peer, &table.edge),
                    is_trusted: table.edge.trusts(peer),
                    proto: None,
                    tls,
                    server_name: tls.then_some(host.as_str()),
                    subject: None,
                    door: None,
                };
                let key = table.edge.preview.as_deref();
                explain_route(&mut explain, app, service, &asked, key);
            }
            None => {
                explain.steps.push(format!(
                    "no app or service matches host `{host}` and path `{path}`"
                ));
                explain.status = Some(404);
            }
        }
        Ok(explain)
    }
}

/// The fields of the request; their names in any case.
fn headers(given: &[(String, String)]) -> Result<HeaderMap, Refusal> {
    let mut headers = HeaderMap::new();
    for (name, value) in given {
        let (Ok(field), Ok(content)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) else {
            return Err(Refusal::Invalid(format!("`{name}: {value}` is no header")));
        };
        headers
            .try_append(field, content)
            .map_err(|_| Refusal::Invalid("too many headers".to_owned()))?;
    }
    Ok(headers)
}

fn peer(from: Option<&str>) -> Result<Option<IpAddr>, Refusal> {
    let Some(text) = from else { return Ok(None) };
    let peer = text.parse();
    peer.map(Some)
        .map_err(|_| Refusal::Invalid(format!("`{text}` is no address: write one like 192.0.2.1")))
}

fn explain_route(
    explain: &mut Explain,
    app: &AppRoute,
    service: &ServiceRoute,
    asked: &Asked<'_>,
    key: Option<&PreviewKey>,
) {
    explain.app = Some(app.name.clone());
    explain.service = Some(service.name.clone());
    let hosts: Vec<_> = app.hosts.iter().map(ToString::to_string).collect();
    let hosts = if hosts.is_empty() {
        "any host".to_owned()
    } else {
        hosts.join(", ")
    };
    explain.steps.push(format!(
        "route: {hosts} → app {}; {} → service {}",
        app.name, service.matches, service.name
    ));
    let choice = match choose_with(app, service, 0, asked, key, Special::None, || peek_bucket(app, 0)) {
        Ok(choice) => choice,
        Err(Unavailable::Maintenance) => {
            explain
                .steps
                .push("maintenance: answered 503 by the proxy".to_owned());
            explain.status = Some(503);
            return;
        }
        Err(Unavailable::Untrusted(why)) => {
            explain
                .steps
                .push(format!("preview: answered 403 by the proxy: {}", why.as_str()));
            explain.status = Some(403);
            return;
        }
        Err(Unavailable::Held) => {
            explain
                .steps
                .push("hold: the request waits, then starts again".to_owned());
            return;
        }
    };
    explain_rules(explain, app, asked, choice.why);
    explain.steps.push(why(app, choice.why));
    explain.color = Some(choice.color);
    let pool = &service.pools[choice.color];
    let lane = pool.lanes.first();
    for member in &pool.members {
        let health = member.endpoint.health();
        let serves = matches!(health, Health::Healthy | Health::Unknown)
            || (pool.serve_when_failing && health == Health::Failing);
        if serves {
            explain.endpoints.push(member.endpoint.key.address.to_string());
        }
        explain.steps.push(format!(
            "endpoint {}: {}",
            member.endpoint.key.address,
            health.as_str()
        ));
    }
    if let Some(queue) = service.settings.queues[choice.color].as_ref() {
        explain_queue(explain, service, choice.color, queue.waiting());
    }
    if !lane.is_some_and(|lane| lane.has_usable()) {
        explain
            .steps
            .push(format!("{} has no healthy endpoint: answered 503", choice.color));
        explain.status = Some(503);
    }
}

/// Whether there is room for it now.
fn explain_queue(explain: &mut Explain, service: &ServiceRoute, color: Color, waiting: usize) {
    let balance = &service.settings.balance;
    let members = service.pools[color].members.iter();
    let taken: Vec<_> = members.map(|member| member.endpoint.slots.taken()).collect();
    let bound = balance.max_in_flight;
    let room = waiting == 0 && taken.iter().any(|taken| *taken < bound);
    let next = match waiting {
        _ if room => "there is room".to_owned(),
        n if n >= balance.queue => format!("{n} wait, and more are answered 503"),
        n => format!(
            "it waits behind {n} others, {:?} at most, then 503",
            balance.queue_timeout
        ),
    };
    let taken: usize = taken.iter().sum();
    explain.steps.push(format!(
        "balance: {taken} requests in flight, max_in_flight {bound} for each endpoint: {next}"
    ));
}

/// Every rule that was looked at, if rules were.
fn explain_rules(explain: &mut Explain, app: &AppRoute, asked: &Asked<'_>, why: Why) {
    let looked_at = match why {
        Why::Rule { rule } | Why::RuleSpilled { rule } => rule + 1,
        Why::Meant => 0,
        _ if app.hold.is_some() => 0,
        _ => app.rules.len(),
    };
    for (at, rule) in app.rules.iter().enumerate().take(looked_at) {
        let found = match holds(rule, asked) {
            Ok(true) if rule.color == RuleColor::Candidate && app.weight == Weight::ZERO => {
                "holds, but there is no candidate".to_owned()
            }
            Ok(true) => "holds".to_owned(),
            Ok(false) => "does not hold".to_owned(),
            Err(Lack::Missing) => "does not hold: the request has not what it asks for".to_owned(),
            Err(Lack::Odd(why)) => format!("has no answer and is passed over (counted): {why}"),
        };
        let (number, source) = (at + 1, rule.when.source());
        explain.steps.push(format!("rule {number} `{source}` {found}"));
    }
}

fn why(app: &AppRoute, why: Why) -> String {
    let candidate = app.active.other();
    match why {
        Why::Active if app.weight == Weight::ZERO => {
            format!("color: {} is active and has everything", app.active)
        }
        Why::Meant => "color: the request means this one on purpose (preview)".to_owned(),
        Why::Rule { rule } => format!("color: rule {} says {}", rule + 1, said(app, rule)),
        Why::RuleSpilled { rule } => format!(
            "color: rule {} says {}, but {candidate} has nothing healthy or is drained: spilled to {}",
            rule + 1,
            said(app, rule),
            app.active
        ),
        Why::Active => format!("color: {} (the health path is never held)", app.active),
        Why::Weight { bucket, from, weight } => format!(
            "color: {candidate} has {} %, the buckets below {}; {} {bucket} of 10000",
            weight.percent(),
            u32::from(weight.percent()) * 100,
            origin(app, from),
        ),
        Why::Spilled { bucket, from } => format!(
            "color: {} {bucket} of 10000, {candidate}'s, but it has nothing healthy: spilled to {}",
            origin(app, from),
            app.active
        ),
    }
}

fn said(app: &AppRoute, rule: usize) -> &'static str {
    app.rules.get(rule).map_or("", |rule| rule.color.as_str())
}

/// Whose bucket it is, as the beginning of a sentence.
fn origin(app: &AppRoute, from: From) -> String {
    match from {
        From::Key => format!("this client's bucket (affinity by {}) is", app.affinity.key),
        From::Sequence if app.affinity.introduces() => {
            "it is a new client and gets a cookie; the next bucket is".to_owned()
        }
        From::Sequence => "there is no key to know the client by; the next bucket is".to_owned(),
    }
}
