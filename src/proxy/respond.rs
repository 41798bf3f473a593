//! Answers that a listener gives itself: `respond = [{ path, status, body, headers }]`.

use std::rc::Rc;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};

use super::body::ReplyBody;
use super::exchange::Exchange;
use crate::config;

/// All of a listener's.
#[derive(Debug, Default)]
pub(super) struct OwnAnswers(Vec<OwnAnswer>);

#[derive(Debug)]
struct OwnAnswer {
    path: Box<str>,
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl OwnAnswers {
    pub(super) fn new(respond: &[config::Respond]) -> Self {
        Self(respond.iter().map(OwnAnswer::new).collect())
    }

    /// For another worker: nothing that both would count on.
    pub(super) fn copy(&self) -> Self {
        Self(self.0.iter().map(OwnAnswer::copy).collect())
    }

    /// The answer to a request for this path, if there is one. It is counted and not logged.
    pub(super) fn to(&self, path: &str, exchange: &Rc<Exchange>) -> Option<Response<ReplyBody>> {
        let own = self.0.iter().find(|own| *own.path == *path)?;
        exchange.answered_silently(own.status.as_u16());
        let mut response = Response::new(ReplyBody::own(own.body.clone()).accounted(exchange));
        *response.status_mut() = own.status;
        response.headers_mut().clone_from(&own.headers);
        Some(response)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl OwnAnswer {
    fn new(respond: &config::Respond) -> Self {
        let field = |(name, value): &(String, String)| {
            // Checked at load; what cannot be a header is left out here rather than trusted.
            Some((
                HeaderName::try_from(name).ok()?,
                HeaderValue::try_from(value).ok()?,
            ))
        };
        Self {
            path: respond.path.as_str().into(),
            status: StatusCode::from_u16(respond.status).unwrap_or(StatusCode::OK),
            headers: respond.headers.iter().filter_map(field).collect(),
            body: Bytes::copy_from_slice(respond.body.as_bytes()),
        }
    }

    fn copy(&self) -> Self {
        let field = |(name, value): (&HeaderName, &HeaderValue)| {
            Some((name.clone(), HeaderValue::from_bytes(value.as_bytes()).ok()?))
        };
        Self {
            path: self.path.clone(),
            status: self.status,
            headers: self.headers.iter().filter_map(field).collect(),
            body: Bytes::copy_from_slice(&self.body),
        }
    }
}
