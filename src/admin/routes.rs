//! Every path of the admin API in one table; router, permissions and OpenAPI document are made from it.

use std::fmt;
use std::sync::Arc;

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, delete, get, post, put};
use http::{HeaderValue, Method, header};
use tokio::sync::{Semaphore, watch};

use super::auth::{self, Peer, Tokens};
use super::problem::{Code, Problem};
use super::request::discard;
use super::{changes, events, leases, reads, rollouts};
use crate::config::Role;
use crate::control::Handle;

/// One path with one method.
pub(super) struct Route {
    pub method: Method,
    pub path: &'static str,
    /// The role it needs. `Viewer` is open to everybody who reaches the door.
    pub needs: Role,
    pub summary: &'static str,
    /// The name of the body's schema.
    pub body: Option<&'static str>,
    /// The name of the answer's schema, or its content type.
    pub answer: &'static str,
    /// Query parameters with their meaning.
    pub query: &'static [(&'static str, &'static str)],
    handler: fn() -> MethodRouter<Arc<Door>>,
}

const fn read(
    path: &'static str,
    summary: &'static str,
    answer: &'static str,
    query: &'static [(&'static str, &'static str)],
    handler: fn() -> MethodRouter<Arc<Door>>,
) -> Route {
    Route {
        method: Method::GET,
        path,
        needs: Role::Viewer,
        summary,
        body: None,
        answer,
        query,
        handler,
    }
}

const fn write(
    method: Method,
    path: &'static str,
    needs: Role,
    summary: &'static str,
    body: &'static str,
    answer: &'static str,
    handler: fn() -> MethodRouter<Arc<Door>>,
) -> Route {
    Route {
        method,
        path,
        needs,
        summary,
        body: Some(body),
        answer,
        query: &[],
        handler,
    }
}

const APP_QUERY: (&str, &str) = ("app", "only this app");

/// The table.
pub(super) static ROUTES: &[Route] = &[
    read(
        "/v1/status",
        "The process, its config and all apps",
        "Status",
        &[APP_QUERY],
        || get(reads::status),
    ),
    read("/v1/apps", "All apps", "Apps", &[APP_QUERY], || get(reads::apps)),
    read(
        "/v1/apps/{app}",
        "One app; `-` is the only one there is",
        "AppDocument",
        &[],
        || get(reads::app),
    ),
    write(
        Method::POST,
        "/v1/apps/{app}/switch",
        Role::Operator,
        "All traffic to a color",
        "Switch",
        "Outcome",
        || post(changes::switch),
    ),
    write(
        Method::POST,
        "/v1/apps/{app}/rollback",
        Role::Operator,
        "Back to the color active before",
        "RollBack",
        "Outcome",
        || post(changes::rollback),
    ),
    write(
        Method::POST,
        "/v1/apps/{app}/weight",
        Role::Operator,
        "A share of the traffic for a color",
        "Weight",
        "Outcome",
        || post(changes::weight),
    ),
    write(
        Method::POST,
        "/v1/apps/{app}/rollout",
        Role::Operator,
        "Begin a switch in steps",
        "StartRollout",
        "Outcome",
        || post(rollouts::start).get(rollouts::show),
    ),
    read(
        "/v1/apps/{app}/rollout",
        "The newest rollout",
        "RolloutDocument",
        &[],
        // Served by the route above: one path has one router.
        MethodRouter::new,
    ),
    write(
        Method::POST,
        "/v1/apps/{app}/rollout/promote",
        Role::Operator,
        "The rollout's next step now",
        "SteerRollout",
        "Outcome",
        || post(rollouts::promote),
    ),
    write(
        Method::POST,
        "/v1/apps/{app}/rollout/pause",
        Role::Operator,
        "Stop the rollout's clock",
        "SteerRollout",
        "Outcome",
        || post(rollouts::pause),
    ),
    write(
        Method::POST,
        "/v1/apps/{app}/rollout/resume",
        Role::Operator,
        "Let the rollout go on",
        "SteerRollout",
        "Outcome",
        || post(rollouts::resume),
    ),
    write(
        Method::POST,
        "/v1/apps/{app}/rollout/abort",
        Role::Operator,
        "Take the rollout's share away",
        "SteerRollout",
        "Outcome",
        || post(rollouts::abort),
    ),
    write(
        Method::POST,
        "/v1/apps/{app}/approve",
        Role::Operator,
        "Yes or no to a gate that waits for it",
        "Approve",
        "Approved",
        || post(rollouts::approve),
    ),
    read(
        "/v1/apps/{app}/settled",
        "Wait until neither a bake nor a rollout is under way",
        "Settled",
        &[("wait", "how long to wait, as `60s`; the default")],
        || get(rollouts::settled),
    ),
    write(
        Method::POST,
        "/v1/apps/{app}/drain",
        Role::Operator,
        "A color finishes what it has",
        "Drain",
        "Outcome",
        || post(changes::drain),
    ),
    write(
        Method::POST,
        "/v1/apps/{app}/hold",
        Role::Operator,
        "Requests wait",
        "HoldRequests",
        "Outcome",
        || post(changes::hold),
    ),
    write(
        Method::POST,
        "/v1/apps/{app}/release",
        Role::Operator,
        "Requests go on",
        "Release",
        "Outcome",
        || post(changes::release),
    ),
    write(
        Method::POST,
        "/v1/apps/{app}/maintenance",
        Role::Operator,
        "503 with a message, from the proxy itself",
        "Maintenance",
        "Outcome",
        || post(changes::maintenance),
    ),
    write(
        Method::PUT,
        "/v1/apps/{app}/colors/{color}",
        Role::Operator,
        "What runs in a color",
        "SetColor",
        "Outcome",
        || put(changes::set_color),
    ),
    write(
        Method::POST,
        "/v1/apps/{app}/colors/{color}/probe",
        Role::Operator,
        "Probe every endpoint of a color afresh",
        "Nothing",
        "Probed",
        || post(changes::probe),
    ),
    write(
        Method::POST,
        "/v1/apps/{app}/preview-token",
        Role::Operator,
        "A token by which a color can be reached on purpose, for a while",
        "NewPreviewToken",
        "PreviewToken",
        || post(changes::preview_token),
    ),
    read(
        "/v1/apps/{app}/colors/{color}/drained",
        "Wait until a color holds no request",
        "Drained",
        &[("wait", "how long to wait, as `60s`; the default")],
        || get(reads::drained),
    ),
    write(
        Method::POST,
        "/v1/apps/{app}/explain",
        Role::Viewer,
        "Where a request would go, and why",
        "Explain",
        "Explained",
        || post(changes::explain),
    ),
    write(
        Method::POST,
        "/v1/explain",
        Role::Viewer,
        "Where a request would go, and why",
        "Explain",
        "Explained",
        || post(changes::explain),
    ),
    read(
        "/v1/apps/{app}/lease",
        "Who holds the app for a deploy",
        "LeaseDocument",
        &[],
        || get(leases::show),
    ),
    write(
        Method::PUT,
        "/v1/apps/{app}/lease",
        Role::Operator,
        "Hold the app for a deploy, or go on holding it",
        "TakeLease",
        "LeaseDocument",
        || put(leases::take),
    ),
    write(
        Method::DELETE,
        "/v1/apps/{app}/lease",
        Role::Operator,
        "Give the lease back; without its id: break it",
        "GiveLease",
        "LeaseDocument",
        || delete(leases::give),
    ),
    read(
        "/v1/history",
        "Committed changes, oldest first",
        "History",
        &[APP_QUERY, ("limit", "only the last so many")],
        || get(reads::history),
    ),
    read(
        "/v1/events",
        "What happens, as server-sent events; `Last-Event-ID` goes on after an id",
        "text/event-stream",
        &[
            ("after", "begin with the remembered events above this id"),
            ("follow", "`false`: end after the remembered ones"),
        ],
        || get(events::events),
    ),
    read(
        "/v1/config",
        "The configuration in use, secrets masked",
        "ConfigText",
        &[],
        || get(reads::config),
    ),
    write(
        Method::POST,
        "/v1/reload",
        Role::Admin,
        "Read the config file again",
        "Nothing",
        "Reloaded",
        || post(changes::reload),
    ),
    read("/metrics", "Metrics for Prometheus", "text/plain", &[], || {
        get(reads::metrics)
    }),
    read("/livez", "The process is alive", "text/plain", &[], || {
        get(reads::livez)
    }),
    read(
        "/readyz",
        "Every active color can serve",
        "text/plain",
        &[("verbose", "say every reason")],
        || get(reads::readyz),
    ),
    read(
        "/openapi.json",
        "This API's description",
        "application/json",
        &[],
        || get(reads::openapi),
    ),
    read("/", "The paths there are", "text/plain", &[], || {
        get(reads::index)
    }),
];

/// What the handlers share.
pub(super) struct Door {
    pub handle: Handle,
    pub extras: super::Extras,
    pub tokens: Tokens,
    pub hosts: Vec<String>,
    /// Long answers (events, waits), counted apart so that readers over TCP cannot shut out the socket.
    pub long_unix: Arc<Semaphore>,
    pub long_tcp: Arc<Semaphore>,
    /// True when the process stops: streams end.
    pub stop: watch::Receiver<bool>,
}

impl fmt::Debug for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Door").finish_non_exhaustive()
    }
}

/// The router; every request must carry a [`Peer`].
pub(super) fn router(door: Arc<Door>) -> Router {
    let mut router = Router::new();
    for route in ROUTES {
        router = router.route(route.path, (route.handler)());
    }
    router
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(middleware::from_fn_with_state(Arc::clone(&door), guard))
        .with_state(door)
}

/// Stands before every path: site, permission, and headers that every answer gets.
async fn guard(State(door): State<Arc<Door>>, mut request: Request, next: Next) -> Response {
    let mut response = match admit(&door, &mut request) {
        Ok(()) => next.run(request).await,
        Err(problem) => {
            discard(request.into_body()).await;
            problem.into_response()
        }
    };
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    response
}

fn admit(door: &Door, request: &mut Request) -> Result<(), Problem> {
    let Some(peer) = request.extensions().get::<Peer>().cloned() else {
        return Err(Problem::new(Code::Forbidden, "the connection is not known"));
    };
    let needs = needs(request);
    auth::check_site(
        &peer,
        request.headers(),
        &door.hosts,
        request.method() != Method::GET,
    )?;
    if let Some(needs) = needs {
        let caller = auth::authorize(&peer, request.headers(), needs, &door.tokens)?;
        request.extensions_mut().insert(caller);
    }
    Ok(())
}

/// The role that a request needs; none when no path or method fits, which is answered with 404 or 405.
fn needs(request: &Request) -> Option<Role> {
    let path = request.extensions().get::<MatchedPath>()?.as_str();
    let method = match *request.method() {
        Method::HEAD => &Method::GET,
        ref method => method,
    };
    ROUTES
        .iter()
        .find(|route| route.path == path && route.method == *method)
        .map(|route| route.needs)
}

async fn not_found(request: Request) -> Problem {
    Problem::new(
        Code::NotFound,
        format!(
            "there is no `{}` here; `GET /` lists the paths",
            request.uri().path()
        ),
    )
}

/// The router adds `Allow`.
async fn method_not_allowed(request: Request) -> Problem {
    Problem::new(
        Code::MethodNotAllowed,
        format!(
            "`{}` does not take {}; see Allow",
            request.uri().path(),
            request.method()
        ),
    )
}
