//! Where a request would go, and why: the request path's own functions, with nothing sent and nothing counted.

use http::Uri;

use super::ask::Refusal;
use super::controller::Controller;
use super::handle::{Explain, ExplainRequest};
use crate::rollout::Weight;
use crate::routing::{
    AppRoute, HostBuffer, ServiceRoute, Special, Unavailable, Why, choose_with, peek_bucket,
};
use crate::upstream::Health;

impl Controller {
    /// Explain a request.
    pub(super) fn explain(&self, request: &ExplainRequest) -> Result<Explain, Refusal> {
        let invalid = |why: String| Refusal::Invalid(why);
        http::Method::from_bytes(request.method.as_bytes())
            .map_err(|_| invalid(format!("`{}` is no method", request.method)))?;
        let uri: Uri = request
            .url
            .parse()
            .map_err(|error| invalid(format!("`{}` is no URL: {error}", request.url)))?;
        let named = request
            .headers
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case("host"));
        let given = uri
            .authority()
            .map(|authority| authority.as_str())
            .or(named.map(|(_, value)| value.as_str()));
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
            Some((app, service)) => explain_route(&mut explain, app, service),
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

fn explain_route(explain: &mut Explain, app: &AppRoute, service: &ServiceRoute) {
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
    let choice = match choose_with(app, service, 0, &explain.path, Special::None, || {
        peek_bucket(app, 0)
    }) {
        Ok(choice) => choice,
        Err(Unavailable::Maintenance) => {
            explain
                .steps
                .push("maintenance: answered 503 by the proxy".to_owned());
            explain.status = Some(503);
            return;
        }
        Err(Unavailable::Held) => {
            explain
                .steps
                .push("hold: the request waits, then starts again".to_owned());
            return;
        }
    };
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
    if !lane.is_some_and(|lane| lane.has_usable()) {
        explain
            .steps
            .push(format!("{} has no healthy endpoint: answered 503", choice.color));
        explain.status = Some(503);
    }
}

fn why(app: &AppRoute, why: Why) -> String {
    let candidate = app.active.other();
    match why {
        Why::Active if app.weight == Weight::ZERO => {
            format!("color: {} is active and has everything", app.active)
        }
        Why::Active => format!("color: {} (the health path is never held)", app.active),
        Why::Weight { bucket, weight } => format!(
            "color: {candidate} has {} % of the requests; the next bucket is {bucket} of 10000",
            weight.percent()
        ),
        Why::Spilled { bucket } => format!(
            "color: bucket {bucket} is {candidate}'s, but it has nothing healthy: spilled to {}",
            app.active
        ),
    }
}
