//! Reading requests: preconditions, bodies, bounded in size and time.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use http::request::Parts;
use http::{HeaderMap, HeaderName, header};
use http_body_util::BodyExt;
use serde::de::DeserializeOwned;

use super::auth::Caller;
use super::problem::{Code, Problem, nearest};
use super::routes::Door;
use crate::config;
use crate::control::{Ask, Intent};
use crate::rollout::Color;

/// The largest body, in bytes.
pub const BODY_MAX: usize = 64 * 1024;

/// How much of an unwanted body is taken before the connection is closed over it, and for how long.
const DISCARD_MAX: usize = 1024 * 1024;
const DISCARD_TIME: Duration = Duration::from_secs(2);

/// How long a body may take.
const BODY_TIME: Duration = Duration::from_secs(10);

/// The name in a path that stands for the only app there is.
pub const ONLY_APP: &str = "-";

/// The header that carries the secret of a lease, on changes that its holder asks for.
pub const LEASE_HEADER: HeaderName = HeaderName::from_static("cutover-lease");

/// The longest `reason`, in characters.
const REASON_MAX: usize = 500;

/// The longest `Idempotency-Key`, in characters.
const KEY_MAX: usize = 200;

/// A request with a JSON body `T`, its sender known and permitted.
pub(super) struct Sent<T> {
    pub door: Arc<Door>,
    pub caller: Caller,
    pub body: T,
    params: HashMap<String, String>,
    expect_generation: Option<u64>,
    idempotency_key: Option<String>,
    lease: Option<String>,
}

impl<T> Sent<T> {
    /// The app in the path; none when it is `-`.
    pub(super) fn app(&self) -> Option<String> {
        app_of(&self.params)
    }

    /// The color in the path.
    pub(super) fn color(&self) -> Result<Color, Problem> {
        color_of(&self.params)
    }

    /// The change that is asked for.
    pub(super) fn ask(&self, intent: Intent, reason: &str, dry_run: bool) -> Result<Ask, Problem> {
        Ok(Ask {
            app: self.app(),
            intent,
            expect_generation: self.expect_generation,
            by: self.caller.actor.clone(),
            reason: words("reason", reason, REASON_MAX)?,
            idempotency_key: self.idempotency_key.clone(),
            lease: self.lease.clone(),
            dry_run,
        })
    }
}

impl<T: DeserializeOwned> FromRequest<Arc<Door>> for Sent<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, door: &Arc<Door>) -> Result<Self, Problem> {
        let (mut parts, body) = request.into_parts();
        let params = params(&mut parts).await?;
        let caller = caller(&parts)?;
        let expect_generation = if_match(&parts.headers)?;
        let idempotency_key = idempotency_key(&parts.headers)?;
        let lease = single(&parts.headers, &LEASE_HEADER)?.map(str::to_owned);
        let body = read_body(&parts.headers, body).await?;
        Ok(Self {
            door: Arc::clone(door),
            caller,
            body: parse_body(&body)?,
            params,
            expect_generation,
            idempotency_key,
            lease,
        })
    }
}

/// A request without a body, with the query `Q`.
pub(super) struct Asked<Q> {
    pub door: Arc<Door>,
    pub query: Q,
    pub headers: HeaderMap,
    /// Whether it came over the socket.
    pub unix: bool,
    params: HashMap<String, String>,
}

impl<Q> Asked<Q> {
    pub(super) fn app(&self) -> Option<String> {
        app_of(&self.params)
    }

    pub(super) fn color(&self) -> Result<Color, Problem> {
        color_of(&self.params)
    }
}

impl<Q: DeserializeOwned> FromRequestParts<Arc<Door>> for Asked<Q> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, door: &Arc<Door>) -> Result<Self, Problem> {
        let params = params(parts).await?;
        let Query(query) = Query::try_from_uri(&parts.uri)
            .map_err(|rejection| Problem::new(Code::BadRequest, rejection.body_text()))?;
        Ok(Self {
            door: Arc::clone(door),
            query,
            unix: matches!(parts.extensions.get(), Some(super::auth::Peer::Unix(_))),
            headers: std::mem::take(&mut parts.headers),
            params,
        })
    }
}

async fn params(parts: &mut Parts) -> Result<HashMap<String, String>, Problem> {
    Path::<HashMap<String, String>>::from_request_parts(parts, &())
        .await
        .map(|Path(params)| params)
        .map_err(|rejection| Problem::new(Code::BadRequest, rejection.body_text()))
}

/// Put there by the guard, before any handler.
fn caller(parts: &Parts) -> Result<Caller, Problem> {
    parts
        .extensions
        .get::<Caller>()
        .cloned()
        .ok_or_else(|| Problem::new(Code::Forbidden, "the sender is not known"))
}

fn app_of(params: &HashMap<String, String>) -> Option<String> {
    params.get("app").filter(|app| *app != ONLY_APP).cloned()
}

fn color_of(params: &HashMap<String, String>) -> Result<Color, Problem> {
    color(params.get("color").map_or("", String::as_str))
}

/// A color by name.
pub(super) fn color(name: &str) -> Result<Color, Problem> {
    name.parse().map_err(|unknown: crate::rollout::UnknownColor| {
        Problem::new(
            Code::Invalid,
            unknown.to_string() + &meant(name, &["blue", "green"]),
        )
    })
}

/// `; did you mean X?`, or nothing.
pub(super) fn meant(name: &str, known: &[&str]) -> String {
    nearest(name, known.iter().copied())
        .map_or_else(String::new, |known| format!("; did you mean `{known}`?"))
}

/// A duration by its text.
pub(super) fn duration(field: &str, text: &str) -> Result<Duration, Problem> {
    config::parse_duration(text).map_err(|why| {
        Problem::new(
            Code::Invalid,
            format!("`{field}`: `{text}` is no duration: {why}"),
        )
    })
}

/// Free text of people: one line, bounded, nothing that could act on a terminal or forge a journal line.
pub(super) fn words(field: &str, text: &str, max: usize) -> Result<String, Problem> {
    if text.chars().count() > max {
        let why = format!("`{field}` is longer than {max} characters");
        return Err(Problem::new(Code::Invalid, why));
    }
    if text.chars().any(char::is_control) {
        let why = format!("`{field}` holds a control character or a line break; write one line");
        return Err(Problem::new(Code::Invalid, why));
    }
    Ok(text.trim().to_owned())
}

/// `If-Match: "g42"` is a generation; `*` or nothing is none.
fn if_match(headers: &HeaderMap) -> Result<Option<u64>, Problem> {
    let Some(text) = single(headers, &header::IF_MATCH)? else {
        return Ok(None);
    };
    if text == "*" {
        return Ok(None);
    }
    text.strip_prefix("\"g")
        .and_then(|rest| rest.strip_suffix('"'))
        .filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))
        .and_then(|digits| digits.parse().ok())
        .map(Some)
        .ok_or_else(|| {
            Problem::new(
                Code::BadRequest,
                format!("If-Match: `{text}` is no generation; send one ETag as it came, like \"g42\", or *"),
            )
        })
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let Some(key) = single(headers, &HeaderName::from_static("idempotency-key"))? else {
        return Ok(None);
    };
    if key.is_empty() || key.len() > KEY_MAX || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(Problem::new(
            Code::BadRequest,
            format!("Idempotency-Key: use 1 to {KEY_MAX} visible ASCII characters"),
        ));
    }
    Ok(Some(key.to_owned()))
}

fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, Problem> {
    let mut values = headers.get_all(name).iter();
    let Some(first) = values.next() else {
        return Ok(None);
    };
    let text = first.to_str().ok().filter(|_| values.next().is_none());
    text.map(|text| Some(text.trim())).ok_or_else(|| {
        Problem::new(
            Code::BadRequest,
            format!("{name}: send it once, in visible ASCII"),
        )
    })
}

async fn read_body(headers: &HeaderMap, body: Body) -> Result<Vec<u8>, Problem> {
    let read = tokio::time::timeout(BODY_TIME, collect(body))
        .await
        .map_err(|_| {
            let seconds = BODY_TIME.as_secs();
            Problem::new(
                Code::BodyTimeout,
                format!("the body did not come within {seconds} seconds"),
            )
        })?;
    let bytes = read?;
    if !bytes.is_empty() && !is_json(headers) {
        return Err(Problem::new(
            Code::UnsupportedMediaType,
            "send the body with `Content-Type: application/json`",
        ));
    }
    Ok(bytes)
}

async fn collect(mut body: Body) -> Result<Vec<u8>, Problem> {
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame
            .map_err(|error| Problem::new(Code::BadRequest, format!("the body ended badly: {error}")))?;
        if let Some(data) = frame.data_ref() {
            if bytes.len() + data.len() > BODY_MAX {
                discard(body).await;
                let why = format!("a body may have {BODY_MAX} bytes");
                return Err(Problem::new(Code::BodyTooLarge, why));
            }
            bytes.extend_from_slice(data);
        }
    }
    Ok(bytes)
}

/// Take the rest of a body that is not wanted, within bounds. A connection closed with bytes unread is reset, and
/// the reset may overtake the answer that says why.
pub(super) async fn discard(mut body: Body) {
    let rest = async {
        let mut seen = 0;
        while let Some(Ok(frame)) = body.frame().await {
            seen += frame.data_ref().map_or(0, bytes::Bytes::len);
            if seen > DISCARD_MAX {
                break;
            }
        }
    };
    let _ = tokio::time::timeout(DISCARD_TIME, rest).await;
}

fn is_json(headers: &HeaderMap) -> bool {
    headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(';').next())
        .is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"))
}

/// An empty body is `{}`.
fn parse_body<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    let text = if bytes.is_empty() { b"{}" } else { bytes };
    serde_json::from_slice(text).map_err(|error| Problem::new(Code::BadRequest, format!("the body: {error}")))
}
