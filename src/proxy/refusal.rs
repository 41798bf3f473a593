//! The proxy's own answers to requests that are not served, in the form that the client asks for.

use std::rc::Rc;

use bytes::Bytes;
use http::header::{ACCEPT, CONNECTION, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER};
use http::{Response, StatusCode};

use super::body::ReplyBody;
use super::error::ProxyError;
use super::exchange::Exchange;
use super::grpc;
use super::seen::Seen;
use crate::config::{Errors, Page, PageKind, Problem};

const PROBLEM_JSON: &str = "application/problem+json";

/// What a client says of the answers that it takes; gathered before its head is changed.
#[derive(Debug)]
pub(super) struct Accepts {
    accept: Option<HeaderValue>,
}

impl Accepts {
    pub(super) fn of(headers: &HeaderMap, seen: Seen) -> Self {
        let accept = seen.has(Seen::ACCEPT).then(|| headers.get(ACCEPT));
        Self {
            accept: accept.flatten().cloned(),
        }
    }

    /// Whether it would rather have JSON than HTML. `*/*` asks for nothing.
    fn prefers_json(&self) -> bool {
        let Some(accept) = self.accept.as_ref().and_then(|accept| accept.to_str().ok()) else {
            return false;
        };
        let (mut json, mut html) = (0, 0);
        for range in accept.split(',') {
            let mut parts = range.split(';').map(str::trim);
            let kind = parts.next().unwrap_or_default();
            let quality = quality(parts);
            if is_json(kind) {
                json = json.max(quality);
            } else if ["text/html", "application/xhtml+xml"]
                .iter()
                .any(|html| kind.eq_ignore_ascii_case(html))
            {
                html = html.max(quality);
            }
        }
        json > 0 && json >= html
    }
}

fn is_json(kind: &str) -> bool {
    let Some((of, subtype)) = kind.split_once('/') else {
        return false;
    };
    let subtype = subtype.to_ascii_lowercase();
    of.eq_ignore_ascii_case("application") && (subtype == "json" || subtype.ends_with("+json"))
}

/// `q=` in thousandths; 1 where there is none, 0 where it cannot be read (RFC 9110 §12.4.2).
fn quality<'a>(mut parameters: impl Iterator<Item = &'a str>) -> u16 {
    let written =
        parameters.find_map(|parameter| parameter.strip_prefix("q=").or(parameter.strip_prefix("Q=")));
    let Some(written) = written else { return 1000 };
    let quality: f32 = written.trim().parse().unwrap_or(0.0);
    // In range by the clamp, and no number is 0.
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between 0 and 1000"
    )]
    let thousandths = (quality.clamp(0.0, 1.0) * 1000.0) as u16;
    thousandths
}

/// Refuse a request.
pub(super) fn refuse(
    exchange: &Rc<Exchange>,
    error: ProxyError,
    message: Option<&str>,
    accepts: &Accepts,
) -> Response<ReplyBody> {
    let id = exchange.id();
    let refusal = Refusal {
        error,
        message,
        accepts,
        errors: &exchange.errors(),
        id: id.as_ref().and_then(|id| id.to_str().ok()).unwrap_or_default(),
    };
    let answer = match exchange.call() {
        None => refusal.answer(),
        Some(_) => grpc::refusal(error, refusal.words()),
    };
    let mut response = answer.map(|body| body.accounted(exchange));
    exchange.expose_id(response.headers_mut());
    response
}

/// What is known of a request that is refused.
#[derive(Debug)]
struct Refusal<'a> {
    /// Why.
    error: ProxyError,
    /// Words in place of the usual ones: the operator's, in maintenance.
    message: Option<&'a str>,
    /// What the client takes.
    accepts: &'a Accepts,
    /// The app's pages, or those for no app.
    errors: &'a Errors,
    /// The id that the request goes by in the log.
    id: &'a str,
}

impl Refusal<'_> {
    /// The answer: problem+json for clients that ask for JSON, the operator's page where there is one, else a line of
    /// text.
    fn answer(&self) -> Response<ReplyBody> {
        let status = self.error.status();
        let (content_type, body) = self.body(status);
        let mut response = Response::new(ReplyBody::own(body));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        if let Some(seconds) = self.retry_after(status) {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.error.closes() {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }

    fn body(&self, status: StatusCode) -> (&'static str, Bytes) {
        let problem = match self.errors.problem {
            Problem::Auto => self.accepts.prefers_json(),
            Problem::Always => true,
            Problem::Never => false,
        };
        if problem {
            return (PROBLEM_JSON, self.problem(status));
        }
        let of_maintenance = || self.errors.maintenance.as_ref();
        let page = match self.error {
            ProxyError::Maintenance => of_maintenance().or_else(|| self.errors.page(status.as_u16())),
            _ => self.errors.page(status.as_u16()),
        };
        // Without text it was never read: a configuration that did not come from a file.
        match page.filter(|page| !page.text.is_empty()) {
            Some(page) => (page.kind.content_type(), self.filled(page, status).into()),
            None => (PageKind::Text.content_type(), text(status, self.words())),
        }
    }

    fn words(&self) -> &str {
        self.message
            .filter(|text| !text.is_empty())
            .unwrap_or(self.error.as_str())
    }

    /// RFC 9457; the type is `about:blank`, so the title is the status's own (§4.2.1).
    fn problem(&self, status: StatusCode) -> Bytes {
        let mut problem = serde_json::json!({
            "type": "about:blank",
            "title": status.canonical_reason().unwrap_or_default(),
            "status": status.as_u16(),
            "detail": self.words(),
        });
        if !self.id.is_empty() {
            problem["request_id"] = self.id.into();
        }
        Bytes::from(format!("{problem}\n"))
    }

    /// The page with its places filled in, each written so that it cannot be more than text there.
    fn filled(&self, page: &Page, status: StatusCode) -> String {
        let mut filled = String::with_capacity(page.text.len() + 64);
        let mut rest = &*page.text;
        let number = status.as_u16().to_string();
        let places = [
            ("{status}", number.as_str()),
            ("{reason}", status.canonical_reason().unwrap_or_default()),
            ("{message}", self.words()),
            ("{request_id}", self.id),
        ];
        while let Some(at) = rest.find('{') {
            filled.push_str(&rest[..at]);
            rest = &rest[at..];
            match places.iter().find(|(place, _)| rest.starts_with(place)) {
                Some((place, value)) => {
                    escape(&mut filled, value, page.kind);
                    rest = &rest[place.len()..];
                }
                None => {
                    filled.push('{');
                    rest = &rest[1..];
                }
            }
        }
        filled.push_str(rest);
        filled
    }

    fn retry_after(&self, status: StatusCode) -> Option<u64> {
        let time = match self.error {
            ProxyError::Maintenance => self.errors.maintenance_retry_after,
            _ if status == StatusCode::SERVICE_UNAVAILABLE => self.errors.retry_after,
            _ => return None,
        };
        // Whole seconds, and never "at once".
        Some(
            time.as_millis()
                .div_ceil(1000)
                .max(1)
                .try_into()
                .unwrap_or(u64::MAX),
        )
    }
}

fn escape(out: &mut String, value: &str, kind: PageKind) {
    match kind {
        PageKind::Text => out.push_str(value),
        PageKind::Json => {
            let quoted = serde_json::Value::from(value).to_string();
            out.push_str(
                quoted
                    .trim_start_matches('"')
                    .strip_suffix('"')
                    .unwrap_or_default(),
            );
        }
        PageKind::Html => {
            for c in value.chars() {
                match c {
                    '&' => out.push_str("&amp;"),
                    '<' => out.push_str("&lt;"),
                    '>' => out.push_str("&gt;"),
                    '"' => out.push_str("&quot;"),
                    '\'' => out.push_str("&#39;"),
                    c => out.push(c),
                }
            }
        }
    }
}

/// A line of text.
pub(super) fn text(status: StatusCode, words: &str) -> Bytes {
    let reason = status.canonical_reason().unwrap_or("");
    Bytes::from(format!("{} {reason}: {words}\n", status.as_u16()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test panics to fail")]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn accepting(accept: &str) -> Accepts {
        Accepts {
            accept: HeaderValue::try_from(accept)
                .ok()
                .filter(|value| !value.is_empty()),
        }
    }

    #[test]
    fn who_asks_for_json() {
        for json in [
            "application/json",
            "application/problem+json",
            "Application/JSON; charset=utf-8",
            "application/json, text/plain, */*",
            "text/html;q=0.5, application/json;q=0.6",
            "application/vnd.api+json",
            "application/json, text/html",
        ] {
            assert!(accepting(json).prefers_json(), "{json}");
        }
        for other in [
            "",
            "*/*",
            "application/*",
            "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
            "text/html, application/json;q=0.9",
            "application/json;q=0",
            "application/json;q=nonsense",
            "application/jsonp",
            "text/json5",
            "json",
        ] {
            assert!(!accepting(other).prefers_json(), "{other}");
        }
    }

    #[test]
    fn what_is_filled_in_stays_text() {
        let errors = crate::config::parse(
            "[[listener]]\naddress = \"127.0.0.1:0\"\n[app.a]\nblue = [\"a:1\"]\n",
            "test",
            &|_| None,
        )
        .unwrap()
        .errors;
        let accepts = accepting("");
        let refusal = Refusal {
            error: ProxyError::Maintenance,
            message: Some("back at <9> & \"later\"\n"),
            accepts: &accepts,
            errors: &errors,
            id: "abc",
        };
        let page = |kind, text: &str| Page {
            file: "x".into(),
            kind,
            text: Arc::from(text),
        };
        let of = |kind, text: &str| refusal.filled(&page(kind, text), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(
            of(
                PageKind::Html,
                "<style>b{c}</style>{message}{ {status} {reason} {request_id}{"
            ),
            "<style>b{c}</style>back at &lt;9&gt; &amp; &quot;later&quot;\n{ 503 Service Unavailable abc{"
        );
        assert_eq!(
            of(PageKind::Json, "{\"m\":\"{message}\"}"),
            "{\"m\":\"back at <9> & \\\"later\\\"\\n\"}"
        );
        assert_eq!(of(PageKind::Text, "{{message}}"), "{back at <9> & \"later\"\n}");
    }
}
