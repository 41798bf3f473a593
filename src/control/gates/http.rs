//! Asking over HTTP: webhooks. One connection a question; nothing is pooled.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_TYPE, HOST, HeaderValue, USER_AGENT};
use http::{Method, Request, StatusCode};
use http_body_util::Full;
use serde_json::{Map, Value};
use tokio::net::lookup_host;
use tokio::time::sleep;

use crate::config::{Protocol, Url, parse_duration};
use crate::control::ask::Verdict;
use crate::rollout::Color;
use crate::tls::{Originators, Trust};
use crate::upstream::{self, Endpoint, EndpointKey, Handshake, NoReply, Target};

/// How long one question may take; the gate's own time goes over it.
const QUESTION: Duration = Duration::from_secs(10);

/// Before a question that failed, or was answered with `wait`, is asked again.
const AGAIN: Duration = Duration::from_secs(1);

/// The longest `retry_after` that is believed.
const AGAIN_MAX: Duration = Duration::from_secs(300);

const AGENT: &str = concat!("cutover/", env!("CARGO_PKG_VERSION"));

/// Ask a webhook until it says pass or fail. `once`: whatever it says now.
pub(super) async fn ask(
    url: &Url,
    facts: &[(&'static str, String)],
    once: bool,
    originators: &Originators,
) -> (Verdict, String) {
    let mut body = Map::new();
    for (name, value) in facts {
        let value = match *name {
            "generation" | "weight" => value.parse::<u64>().map_or(Value::Null, Value::from),
            "dry_run" => Value::from(value == "true"),
            _ => Value::from(value.as_str()),
        };
        body.insert((*name).to_owned(), value);
    }
    let body = Value::Object(body).to_string();
    loop {
        let answer = tokio::time::timeout(QUESTION, post(url, &body, originators)).await;
        let answer = answer.unwrap_or_else(|_| Err(format!("no answer within {QUESTION:?}")));
        let (verdict, detail, pause) = judge(&answer);
        // A fault of the way there is asked again until the gate's time is over; what was said stands.
        let is_open = verdict == Verdict::Insufficient;
        if !is_open || once {
            return (verdict, format!("{} {detail}", url.shown));
        }
        tracing::debug!(url = url.shown, detail, "webhook: asking again");
        sleep(pause).await;
    }
}

/// What an answer says: `{"status": "pass" | "fail" | "wait", "retry_after": 5 | "5s"}`. A 2xx without a body passes.
pub(super) fn judge(answer: &Result<(StatusCode, Bytes), String>) -> (Verdict, String, Duration) {
    let (status, body) = match answer {
        Ok(answer) => answer,
        Err(why) => return (Verdict::Insufficient, format!("could not be asked: {why}"), AGAIN),
    };
    if status.is_server_error() {
        return (Verdict::Insufficient, format!("answered {status}"), AGAIN);
    }
    if !status.is_success() {
        return (Verdict::Fail, format!("answered {status}"), AGAIN);
    }
    if body.iter().all(u8::is_ascii_whitespace) {
        return (
            Verdict::Pass,
            format!("answered {status} without a word, which passes"),
            AGAIN,
        );
    }
    let said: Option<Value> = serde_json::from_slice(body).ok();
    let word = said
        .as_ref()
        .and_then(|said| said.get("status"))
        .and_then(Value::as_str);
    let why = said
        .as_ref()
        .and_then(|said| said.get("reason"))
        .and_then(Value::as_str);
    let why: String = why
        .unwrap_or_default()
        .chars()
        .filter(|c| !c.is_control())
        .take(200)
        .collect();
    let why = if why.is_empty() { why } else { format!(": {why}") };
    match word {
        Some("pass") => (Verdict::Pass, format!("says pass{why}"), AGAIN),
        Some("fail") => (Verdict::Fail, format!("says fail{why}"), AGAIN),
        Some("wait") => {
            let after = said.as_ref().and_then(|said| said.get("retry_after"));
            let pause = match after {
                Some(Value::Number(seconds)) => {
                    seconds.as_f64().and_then(|s| Duration::try_from_secs_f64(s).ok())
                }
                Some(Value::String(text)) => parse_duration(text).ok(),
                _ => None,
            };
            let pause = pause
                .unwrap_or(AGAIN)
                .clamp(Duration::from_millis(100), AGAIN_MAX);
            (Verdict::Insufficient, format!("says wait{why}"), pause)
        }
        _ => {
            let detail = "answered what is no verdict: `{\"status\": \"pass\" | \"fail\" | \"wait\"}` is";
            (Verdict::Fail, detail.to_owned(), AGAIN)
        }
    }
}

/// POST a JSON body, over TLS where the URL says so; the status and a bounded body.
pub(in crate::control) async fn post(
    url: &Url,
    body: &str,
    originators: &Originators,
) -> Result<(StatusCode, Bytes), String> {
    let mut why = NoReply::Unreachable(format!("{} has no address", url.authority));
    let addresses = lookup_host(&url.authority).await;
    for address in addresses.map_err(|error| error.to_string())? {
        let endpoint = at(url, address, originators);
        match upstream::ask(&endpoint, request(url, body)?, QUESTION).await {
            Ok(reply) => {
                let status = StatusCode::from_u16(reply.status).map_err(|error| error.to_string())?;
                return Ok((status, reply.body.into()));
            }
            Err(error @ NoReply::Unreachable(_)) => why = error,
            Err(error) => return Err(error.to_string()),
        }
    }
    Err(why.to_string())
}

fn request(url: &Url, body: &str) -> Result<Request<Full<Bytes>>, String> {
    Request::builder()
        .method(Method::POST)
        .uri(&url.target)
        .header(HOST, &url.authority)
        .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
        .header(USER_AGENT, HeaderValue::from_static(AGENT))
        .header(CONNECTION, HeaderValue::from_static("close"))
        .body(Full::new(Bytes::from(body.to_owned())))
        .map_err(|error| error.to_string())
}

/// One address of a webhook, as an endpoint of nobody's: asked once, never probed, in no table.
fn at(url: &Url, address: SocketAddr, originators: &Originators) -> Arc<Endpoint> {
    let trust = Trust {
        ca: url.ca.clone(),
        ..Trust::default()
    };
    let is_tls = url.endpoint.protocol == Protocol::Https;
    let origin = is_tls.then(|| originators.of(&trust));
    let key = EndpointKey {
        app: String::new(),
        service: String::new(),
        color: Color::Blue,
        address: url.endpoint.clone(),
        target: Target::Tcp(address),
        tls: is_tls.then(|| Handshake {
            name: url.endpoint.name(),
            trust,
        }),
        preamble: None,
    };
    Endpoint::over(key, origin)
}
