//! Asking over HTTP: webhooks, and an endpoint's own word. One connection a question; nothing is pooled.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_TYPE, HOST, HeaderMap, HeaderValue, USER_AGENT};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::{Map, Value};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::sleep;

use crate::config::{Url, parse_duration};
use crate::control::ask::Verdict;
use crate::upstream::Target;

/// Bytes of an answer that are read.
const BODY_MAX: usize = 64 << 10;

/// How long one question may take; the gate's own time goes over it.
const QUESTION: Duration = Duration::from_secs(10);

/// Before a question that failed, or was answered with `wait`, is asked again.
const AGAIN: Duration = Duration::from_secs(1);

/// The longest `retry_after` that is believed.
const AGAIN_MAX: Duration = Duration::from_secs(300);

const AGENT: &str = concat!("cutover/", env!("CARGO_PKG_VERSION"));

/// Ask a webhook until it says pass or fail. `once`: whatever it says now.
pub(super) async fn ask(url: &Url, facts: &[(&'static str, String)], once: bool) -> (Verdict, String) {
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
        let answer = tokio::time::timeout(QUESTION, post(url, &body)).await;
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

/// POST a JSON body; the status and a bounded body.
pub(in crate::control) async fn post(url: &Url, body: &str) -> Result<(StatusCode, Bytes), String> {
    let request = Request::builder()
        .method(Method::POST)
        .uri(&url.target)
        .header(HOST, &url.authority)
        .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
        .header(USER_AGENT, HeaderValue::from_static(AGENT))
        .header(CONNECTION, HeaderValue::from_static("close"))
        .body(Full::new(Bytes::from(body.to_owned())))
        .map_err(|error| error.to_string())?;
    let stream = TcpStream::connect(&url.authority)
        .await
        .map_err(|error| error.to_string())?;
    let (head, body) = converse(stream, request).await?;
    Ok((head.status, body))
}

/// GET a path of an endpoint; the headers of its answer.
pub(super) async fn get(target: &Target, path: &str) -> Result<HeaderMap, String> {
    let request = Request::builder()
        .uri(path)
        .header(
            HOST,
            target.to_string().trim_start_matches("unix:/").replace('/', "-"),
        )
        .header(USER_AGENT, HeaderValue::from_static(AGENT))
        .header(CONNECTION, HeaderValue::from_static("close"))
        .body(Full::new(Bytes::new()))
        .map_err(|error| error.to_string())?;
    let (head, _) = match target {
        Target::Tcp(address) => {
            let stream = TcpStream::connect(address)
                .await
                .map_err(|error| error.to_string())?;
            converse(stream, request).await?
        }
        Target::Unix(path) => {
            let stream = UnixStream::connect(path)
                .await
                .map_err(|error| error.to_string())?;
            converse(stream, request).await?
        }
    };
    Ok(head.headers)
}

async fn converse(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Full<Bytes>>,
) -> Result<(http::response::Parts, Bytes), String> {
    let words = |error: hyper::Error| error.to_string();
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(words)?;
    let connection = Aborted(tokio::spawn(connection));
    let answer = sender.send_request(request).await.map_err(words)?;
    let (head, body) = answer.into_parts();
    let body = Limited::new(body, BODY_MAX)
        .collect()
        .await
        .map_err(|error| error.to_string())?;
    drop(connection);
    Ok((head, body.to_bytes()))
}

/// The connection's task ends with the question.
struct Aborted<T>(tokio::task::JoinHandle<T>);

impl<T> Drop for Aborted<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}
