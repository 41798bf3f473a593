//! Errors of the admin API: one table from what went wrong to status, stable code and exit code.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::{HeaderName, HeaderValue, StatusCode, header};

use super::dto::{self, schema};
use super::exit::Exit;
use super::show;
use crate::control::Refusal;

/// What kind of problem; its name is part of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// There is no such app.
    UnknownApp,
    /// No app was named and there are several.
    WhichApp,
    /// A value makes no sense.
    Invalid,
    /// The generation moved.
    GenerationMoved,
    /// Another operation holds the app.
    Busy,
    /// The target is not healthy.
    Unhealthy,
    /// A gate does not pass.
    GateRefused,
    /// The color cannot be drained, or its drain waited for.
    NotDrainable,
    /// Nothing to roll back to.
    RollbackImpossible,
    /// Traffic moved, did not prove itself and went back.
    RolledBack,
    /// The store could not take it.
    NotDurable,
    /// The stored state was damaged.
    Degraded,
    /// It did not happen in the time given.
    TimedOut,
    /// The config file was refused.
    ConfigInvalid,
    /// The process stops.
    Stopping,
    /// No such path.
    NotFound,
    /// The path does not take this method.
    MethodNotAllowed,
    /// The body or the query is not what the path takes.
    BadRequest,
    /// The body is not JSON by its content type.
    UnsupportedMediaType,
    /// The body is too large.
    BodyTooLarge,
    /// The body came too slowly.
    BodyTimeout,
    /// No token, or one that is not known.
    Unauthorized,
    /// The token's role is too small.
    Forbidden,
    /// TCP is read-only without tokens.
    ReadOnly,
    /// The `Host` is not one of ours.
    BadHost,
    /// The request comes from another site's page.
    BadOrigin,
    /// Too many long answers are open.
    TooMany,
}

/// What follows from a code.
#[derive(Clone, Copy, Debug)]
pub struct Facts {
    /// The HTTP status.
    pub status: StatusCode,
    /// The name in `code`.
    pub name: &'static str,
    /// The CLI's exit code.
    pub exit: Exit,
    /// `title`
    pub title: &'static str,
}

impl Code {
    /// All of them.
    pub const ALL: [Self; 27] = [
        Self::UnknownApp,
        Self::WhichApp,
        Self::Invalid,
        Self::GenerationMoved,
        Self::Busy,
        Self::Unhealthy,
        Self::GateRefused,
        Self::NotDrainable,
        Self::RollbackImpossible,
        Self::RolledBack,
        Self::NotDurable,
        Self::Degraded,
        Self::TimedOut,
        Self::ConfigInvalid,
        Self::Stopping,
        Self::NotFound,
        Self::MethodNotAllowed,
        Self::BadRequest,
        Self::UnsupportedMediaType,
        Self::BodyTooLarge,
        Self::BodyTimeout,
        Self::Unauthorized,
        Self::Forbidden,
        Self::ReadOnly,
        Self::BadHost,
        Self::BadOrigin,
        Self::TooMany,
    ];

    /// The one table: status, name, exit code and title of every problem.
    #[must_use]
    pub const fn facts(self) -> Facts {
        use StatusCode as S;
        let (status, name, exit, title) = match self {
            Self::UnknownApp => (S::NOT_FOUND, "unknown_app", Exit::Usage, "No such app"),
            Self::WhichApp => (
                S::BAD_REQUEST,
                "which_app",
                Exit::Usage,
                "Several apps, none named",
            ),
            Self::Invalid => (
                S::BAD_REQUEST,
                "invalid",
                Exit::Usage,
                "The request makes no sense",
            ),
            Self::GenerationMoved => (
                S::PRECONDITION_FAILED,
                "generation_moved",
                Exit::Conflict,
                "The generation moved",
            ),
            Self::Busy => (
                S::CONFLICT,
                "busy",
                Exit::Conflict,
                "Another operation is running",
            ),
            Self::Unhealthy => (
                S::UNPROCESSABLE_ENTITY,
                "unhealthy",
                Exit::Refused,
                "The target is not healthy",
            ),
            Self::GateRefused => (
                S::UNPROCESSABLE_ENTITY,
                "gate_refused",
                Exit::Refused,
                "A gate does not pass",
            ),
            Self::NotDrainable => (
                S::UNPROCESSABLE_ENTITY,
                "not_drainable",
                Exit::Refused,
                "Not drainable",
            ),
            Self::RollbackImpossible => (
                S::UNPROCESSABLE_ENTITY,
                "rollback_impossible",
                Exit::NothingWarm,
                "Nothing to roll back to",
            ),
            Self::RolledBack => (
                S::UNPROCESSABLE_ENTITY,
                "rolled_back",
                Exit::RolledBack,
                "Traffic moved and was rolled back",
            ),
            Self::NotDurable => (
                S::INSUFFICIENT_STORAGE,
                "not_durable",
                Exit::Failed,
                "The change could not be made durable",
            ),
            Self::Degraded => (
                S::CONFLICT,
                "degraded",
                Exit::Refused,
                "The stored state was damaged",
            ),
            Self::TimedOut => (
                S::GATEWAY_TIMEOUT,
                "timed_out",
                Exit::StillRunning,
                "Not in the time given",
            ),
            Self::ConfigInvalid => (
                S::UNPROCESSABLE_ENTITY,
                "config_invalid",
                Exit::ConfigInvalid,
                "The config file was refused",
            ),
            Self::Stopping => (
                S::SERVICE_UNAVAILABLE,
                "stopping",
                Exit::Failed,
                "cutover is stopping",
            ),
            Self::NotFound => (S::NOT_FOUND, "not_found", Exit::Failed, "No such path"),
            Self::MethodNotAllowed => (
                S::METHOD_NOT_ALLOWED,
                "method_not_allowed",
                Exit::Failed,
                "The path does not take this method",
            ),
            Self::BadRequest => (
                S::BAD_REQUEST,
                "bad_request",
                Exit::Usage,
                "The request cannot be read",
            ),
            Self::UnsupportedMediaType => (
                S::UNSUPPORTED_MEDIA_TYPE,
                "unsupported_media_type",
                Exit::Failed,
                "The body must be JSON",
            ),
            Self::BodyTooLarge => (
                S::PAYLOAD_TOO_LARGE,
                "body_too_large",
                Exit::Failed,
                "The body is too large",
            ),
            Self::BodyTimeout => (
                S::REQUEST_TIMEOUT,
                "body_timeout",
                Exit::Failed,
                "The body came too slowly",
            ),
            Self::Unauthorized => (
                S::UNAUTHORIZED,
                "unauthorized",
                Exit::NotPermitted,
                "A token is needed",
            ),
            Self::Forbidden => (
                S::FORBIDDEN,
                "forbidden",
                Exit::NotPermitted,
                "The token may not do this",
            ),
            Self::ReadOnly => (S::FORBIDDEN, "read_only", Exit::NotPermitted, "TCP is read-only"),
            Self::BadHost => (
                S::FORBIDDEN,
                "bad_host",
                Exit::NotPermitted,
                "Not a name of this server",
            ),
            Self::BadOrigin => (
                S::FORBIDDEN,
                "bad_origin",
                Exit::NotPermitted,
                "Not a page of this server",
            ),
            Self::TooMany => (
                S::SERVICE_UNAVAILABLE,
                "too_many",
                Exit::Failed,
                "Too many long answers are open",
            ),
        };
        Facts {
            status,
            name,
            exit,
            title,
        }
    }

    /// The code with this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|code| code.facts().name == name)
    }

    /// The code of a refusal.
    #[must_use]
    pub const fn of(refusal: &Refusal) -> Self {
        match refusal {
            Refusal::UnknownApp { .. } => Self::UnknownApp,
            Refusal::WhichApp { .. } => Self::WhichApp,
            Refusal::Invalid(_) => Self::Invalid,
            Refusal::Moved { .. } => Self::GenerationMoved,
            Refusal::Busy { .. } => Self::Busy,
            Refusal::Unhealthy { .. } => Self::Unhealthy,
            Refusal::Gate { .. } => Self::GateRefused,
            Refusal::NotDrainable(_) => Self::NotDrainable,
            Refusal::NothingWarm(_) => Self::RollbackImpossible,
            Refusal::RolledBack { .. } => Self::RolledBack,
            Refusal::NotDurable(_) => Self::NotDurable,
            Refusal::Degraded(_) => Self::Degraded,
            Refusal::TimedOut(_) => Self::TimedOut,
            Refusal::Config(_) => Self::ConfigInvalid,
            Refusal::Stopping => Self::Stopping,
        }
    }
}

/// An error answer.
#[derive(Debug)]
pub struct Problem {
    /// What kind.
    pub code: Code,
    /// The body.
    pub body: Box<dto::ProblemBody>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Problem {
    /// A problem with a sentence about it.
    #[must_use]
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        let facts = code.facts();
        let body = dto::ProblemBody {
            schema: schema::PROBLEM.to_owned(),
            kind: format!("urn:cutover:problem:{}", facts.name),
            title: facts.title.to_owned(),
            status: facts.status.as_u16(),
            code: facts.name.to_owned(),
            detail: detail.into(),
            ..dto::ProblemBody::default()
        };
        Self {
            code,
            body: Box::new(body),
            headers: Vec::new(),
        }
    }

    /// The same with a header.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// Say where the app stands; the whole of it when a precondition failed.
    pub(super) fn describe(&mut self, app: dto::App) {
        self.body.generation.get_or_insert(app.generation);
        self.body.active.get_or_insert(app.active);
        if self.code == Code::GenerationMoved {
            self.headers.push((header::ETAG, show::etag(app.generation)));
            self.body.current = Some(Box::new(app));
        }
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let mut problem = Self::new(Code::of(&refusal), refusal.to_string());
        let body = &mut problem.body;
        match refusal {
            Refusal::UnknownApp { name, known } => {
                body.did_you_mean = nearest(&name, known.iter().map(String::as_str)).map(str::to_owned);
                if let Some(meant) = &body.did_you_mean {
                    body.detail.push_str(&format!("; did you mean `{meant}`?"));
                }
                body.known = Some(known);
            }
            Refusal::WhichApp { known } => body.known = Some(known),
            Refusal::Moved { expected, is } => {
                body.expected = Some(expected);
                body.generation = Some(is);
            }
            Refusal::Busy { operation, by } => {
                body.operation = Some(operation);
                body.by = Some(by);
            }
            Refusal::Unhealthy { active, probes, .. } => {
                body.active = Some(active.into());
                body.probes = Some(probes.iter().map(show::probe).collect());
            }
            Refusal::Gate { active, gates } => {
                body.active = Some(active.into());
                body.gates = Some(gates.iter().map(show::gated).collect());
            }
            Refusal::RolledBack { back, generation, .. } => {
                body.active = Some(back.into());
                body.generation = Some(generation);
            }
            Refusal::Invalid(_)
            | Refusal::NotDrainable(_)
            | Refusal::NothingWarm(_)
            | Refusal::NotDurable(_)
            | Refusal::Degraded(_)
            | Refusal::TimedOut(_)
            | Refusal::Config(_)
            | Refusal::Stopping => {}
        }
        problem
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::from(show::json(&*self.body)));
        *response.status_mut() = self.code.facts().status;
        response.headers_mut().insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        for (name, value) in self.headers {
            response.headers_mut().insert(name, value);
        }
        response
    }
}

/// The known name that was probably meant.
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    known
        .into_iter()
        .map(|candidate| (strsim::jaro_winkler(name, candidate), candidate))
        .filter(|(likeness, _)| *likeness > 0.8)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, candidate)| candidate)
}
