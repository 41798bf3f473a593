//! The server, as a deployment talks to it: one app, under one lease.

use std::time::{Duration, Instant};

use http::{HeaderName, HeaderValue, Method};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::Trouble;
use super::steps::is;
use crate::admin::client::{Call, Client, ClientError};
use crate::admin::{Code, Exit, LEASE_HEADER, dto};
use crate::rollout::Color;

/// How long a server that does not answer is asked again: a restart of the proxy takes a moment.
const PATIENCE: Duration = Duration::from_secs(15);

/// Between two tries.
const PAUSE: Duration = Duration::from_millis(300);

/// How long a change may take to be answered: probes, commit, proof.
const CHANGE_TIME: Duration = Duration::from_secs(120);

/// For everything else.
const CALL_TIME: Duration = Duration::from_secs(20);

/// One app of a server.
#[derive(Clone, Debug)]
pub(super) struct Server {
    pub client: Client,
    pub app: String,
    /// The secret of the lease.
    pub lease: String,
}

impl Server {
    /// The app as it is.
    pub(super) async fn app(&self) -> Result<dto::App, Trouble> {
        let document: dto::AppDocument = self.patiently(&Call::get(self.path(""))).await?;
        Ok(document.app)
    }

    /// Probe every endpoint of a color now.
    pub(super) async fn probe(&self, color: Color) -> Result<dto::Probed, Trouble> {
        let mut call = self.send(Method::POST, &format!("/colors/{color}/probe"), &json!({}));
        call.time = Duration::from_secs(60);
        self.patiently(&call).await
    }

    /// Say what runs in a color.
    pub(super) async fn set_revision(
        &self,
        color: Color,
        revision: &str,
        reason: &str,
    ) -> Result<(), Trouble> {
        let body = json!({ "revision": revision, "reason": reason });
        let call = self.send(Method::PUT, &format!("/colors/{color}"), &body);
        self.patiently(&call).await.map(|_: dto::Outcome| ())
    }

    /// All traffic to a color. The key makes it safe to ask again when the answer was lost.
    pub(super) async fn switch(
        &self,
        color: Color,
        reason: &str,
        key: &str,
    ) -> Result<dto::Outcome, Trouble> {
        self.moves("/switch", color, reason, key).await
    }

    /// Begin the rollout of the server's file to a color. The key is as in [`Server::switch`].
    pub(super) async fn begin_rollout(
        &self,
        color: Color,
        reason: &str,
        key: &str,
    ) -> Result<dto::Outcome, Trouble> {
        self.moves("/rollout", color, reason, key).await
    }

    async fn moves(
        &self,
        path: &str,
        color: Color,
        reason: &str,
        key: &str,
    ) -> Result<dto::Outcome, Trouble> {
        let body = json!({ "to": color.as_str(), "reason": reason });
        self.patiently(&self.keyed(path, &body, key)).await
    }

    /// What the gates say of a switch, or a rollout, that is not made.
    pub(super) async fn rehearse(&self, color: Color, rollout: bool) -> Result<dto::Outcome, Trouble> {
        let body = json!({ "to": color.as_str(), "dry_run": true });
        let mut call = self.send(Method::POST, if rollout { "/rollout" } else { "/switch" }, &body);
        call.time = CHANGE_TIME;
        self.patiently(&call).await
    }

    /// The next step of the rollout.
    pub(super) async fn promote(&self) -> Result<dto::Outcome, Trouble> {
        let mut call = self.send(Method::POST, "/rollout/promote", &json!({}));
        call.time = CHANGE_TIME;
        self.answer(&call).await.and_then(|text| parsed(&text))
    }

    /// A token for a color, and the header it goes into.
    pub(super) async fn preview_token(
        &self,
        color: Color,
        life: Duration,
    ) -> Result<dto::PreviewToken, Trouble> {
        let body = json!({ "color": color.as_str(), "ttl": format!("{}s", life.as_secs()) });
        self.patiently(&self.send(Method::POST, "/preview-token", &body))
            .await
    }

    /// Wait until a color holds no request.
    pub(super) async fn drained(&self, color: Color, wait: Duration) -> Result<dto::Drained, Trouble> {
        let mut call = Call::get(self.path(&format!("/colors/{color}/drained?wait={}ms", wait.as_millis())));
        call.time = wait.saturating_add(Duration::from_secs(10));
        self.patiently(&call).await
    }

    /// Take the lease, or renew it.
    pub(super) async fn take_lease(&self, what: &str, time: Duration) -> Result<(), Trouble> {
        let body = json!({ "id": self.lease, "what": what, "time": format!("{}ms", time.as_millis()) });
        let call = self.send(Method::PUT, "/lease", &body);
        self.answer(&call).await.map(drop)
    }

    /// Give the lease back.
    pub(super) async fn give_lease(&self, outcome: &str) -> Result<(), Trouble> {
        let body = json!({ "id": self.lease, "outcome": outcome });
        let mut call = self.send(Method::DELETE, "/lease", &body);
        call.time = Duration::from_secs(5);
        self.answer(&call).await.map(drop)
    }

    fn path(&self, rest: &str) -> String {
        // A config's app names have no character that a path would have to escape.
        format!("/v1/apps/{}{rest}", self.app)
    }

    fn send(&self, method: Method, rest: &str, body: &Value) -> Call {
        let lease = HeaderValue::from_str(&self.lease).ok();
        Call {
            method,
            path: self.path(rest),
            body: Some(body.to_string()),
            headers: lease.map(|lease| (LEASE_HEADER, lease)).into_iter().collect(),
            time: CALL_TIME,
        }
    }

    /// A change that is made once, however often it is asked for.
    fn keyed(&self, rest: &str, body: &Value, key: &str) -> Call {
        let mut call = self.send(Method::POST, rest, body);
        call.time = CHANGE_TIME;
        let key = HeaderValue::from_str(key).ok();
        call.headers
            .extend(key.map(|key| (HeaderName::from_static("idempotency-key"), key)));
        call
    }

    /// Ask again while nobody answers; every call here may be repeated.
    async fn patiently<T: DeserializeOwned>(&self, call: &Call) -> Result<T, Trouble> {
        let until = Instant::now() + PATIENCE;
        loop {
            match self.answer(call).await {
                Err(Trouble::Unanswered(error)) if may_pass(&error) && Instant::now() < until => {
                    tokio::time::sleep(PAUSE).await;
                }
                Err(ref refused @ Trouble::Refused(_))
                    if is(refused, Code::Stopping) && Instant::now() < until =>
                {
                    tokio::time::sleep(PAUSE).await;
                }
                answer => return answer.and_then(|text| parsed(&text)),
            }
        }
    }

    async fn answer(&self, call: &Call) -> Result<String, Trouble> {
        let answer = self.client.call(call).await.map_err(Trouble::Unanswered)?;
        if answer.status.is_success() {
            Ok(answer.text)
        } else {
            Err(Trouble::Refused(answer))
        }
    }
}

/// Whether time may help.
fn may_pass(error: &ClientError) -> bool {
    match error {
        ClientError::Connect { source, .. } => source.kind() != std::io::ErrorKind::PermissionDenied,
        ClientError::Broken { .. } | ClientError::Silent { .. } => true,
    }
}

fn parsed<T: DeserializeOwned>(text: &str) -> Result<T, Trouble> {
    serde_json::from_str(text).map_err(|error| {
        Trouble::Here(
            Exit::Failed,
            format!("the server's answer is not understood: {error}"),
        )
    })
}
