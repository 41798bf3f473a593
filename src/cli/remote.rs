//! Verbs that ask a server: finding it, sending, and the common options as headers.

use std::fmt;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Method, header};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::args::Common;
use super::failure::Failure;
use super::output::Output;
use crate::admin::client::{Answer, Call, Client};
use crate::admin::find::{Search, find};
use crate::admin::{Exit, LEASE_HEADER, ONLY_APP, dto};
use crate::rollout::Color;

/// How long a change may take to be answered: probes, commit, proof.
const CHANGE_TIME: Duration = Duration::from_secs(120);

/// A server, and how to talk to it and to people.
pub(super) struct Remote<'a> {
    pub client: Client,
    pub common: &'a Common,
    pub output: &'a mut Output,
}

impl fmt::Debug for Remote<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remote")
            .field("client", &self.client)
            .finish_non_exhaustive()
    }
}

impl<'a> Remote<'a> {
    /// Find the server.
    pub(super) async fn find(
        common: &'a Common,
        env: &dyn Fn(&str) -> Option<String>,
        output: &'a mut Output,
    ) -> Result<Self, Failure> {
        let client = find(&Search {
            admin: common.admin.as_deref(),
            config: common.config.as_deref(),
            token_file: common.token_file.as_deref(),
            env,
        })
        .await?;
        Ok(Self {
            client,
            common,
            output,
        })
    }

    /// The path of an app's resource.
    pub(super) fn app_path(&self, rest: &str) -> String {
        let app = self
            .common
            .app
            .as_deref()
            .map_or_else(|| ONLY_APP.to_owned(), encode);
        format!("/v1/apps/{app}{rest}")
    }

    /// `?app=…`, when an app was named.
    pub(super) fn app_query(&self) -> Vec<String> {
        let app = self.common.app.iter();
        app.map(|app| format!("app={}", encode(app))).collect()
    }

    /// The answer to a call, and its text as it came.
    pub(super) async fn call<T: DeserializeOwned>(&self, call: &Call) -> Result<(T, String), Failure> {
        let answer = self.answer(call).await?;
        let value = serde_json::from_str(&answer.text).map_err(|error| {
            Failure::new(
                Exit::Failed,
                format!("the answer of {} is not understood: {error}", self.client.address),
            )
        })?;
        Ok((value, answer.text))
    }

    /// A successful answer.
    pub(super) async fn answer(&self, call: &Call) -> Result<Answer, Failure> {
        let change = call.method != Method::GET;
        let answer = self
            .client
            .call(call)
            .await
            .map_err(|error| Failure::unanswered(&error, change))?;
        if answer.status.is_success() {
            Ok(answer)
        } else {
            Err(Failure::refused(&answer, self.output.paint_errors))
        }
    }

    /// Ask for a change; reason and dry run are added to the body.
    pub(super) async fn change(
        &self,
        method: Method,
        rest: &str,
        body: Value,
    ) -> Result<(dto::Outcome, String), Failure> {
        self.change_at(self.common.expect_generation, method, rest, body)
            .await
    }

    /// The same, if the app is at this generation.
    pub(super) async fn change_at(
        &self,
        generation: Option<u64>,
        method: Method,
        rest: &str,
        mut body: Value,
    ) -> Result<(dto::Outcome, String), Failure> {
        if let Some(reason) = &self.common.reason {
            body["reason"] = Value::from(reason.clone());
        }
        if self.common.dry_run {
            body["dry_run"] = Value::from(true);
        }
        let mut headers = Vec::new();
        if let Some(generation) = generation {
            let etag = HeaderValue::from_str(&format!("\"g{generation}\""));
            headers.extend(etag.ok().map(|etag| (header::IF_MATCH, etag)));
        }
        if let Some(key) = &self.common.idempotency_key {
            let key = HeaderValue::from_str(key).ok();
            headers.extend(key.map(|key| (HeaderName::from_static("idempotency-key"), key)));
        }
        // A hook of a deploy may change what the deploy holds.
        let lease = std::env::var("CUTOVER_LEASE")
            .ok()
            .filter(|lease| !lease.is_empty());
        let lease = lease.and_then(|lease| HeaderValue::from_str(&lease).ok());
        headers.extend(lease.map(|lease| (LEASE_HEADER, lease)));
        self.call(&Call {
            method,
            path: self.app_path(rest),
            body: Some(body.to_string()),
            headers,
            time: CHANGE_TIME,
        })
        .await
    }

    /// Wait until a color has drained.
    pub(super) async fn wait_drained(
        &self,
        color: Color,
        timeout: Duration,
    ) -> Result<(dto::Drained, String), Failure> {
        let rest = format!("/colors/{color}/drained?wait={}ms", timeout.as_millis());
        let mut call = Call::get(self.app_path(&rest));
        call.time = timeout.saturating_add(Duration::from_secs(10));
        self.call(&call).await.map_err(|mut failure| {
            // A wait that got no answer at all was running when its time ended.
            if failure.exit == Exit::Unreachable && failure.json.is_none() {
                failure.exit = Exit::StillRunning;
            }
            failure
        })
    }
}

/// Text as a part of a path or query.
pub(super) fn encode(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}
