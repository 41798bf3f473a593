//! The doors' end of the mailbox.

use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{broadcast, mpsc, oneshot};

use super::{Ask, Event, HistoryEntry, LeaseAsk, LeaseView, Outcome, Overview, Refusal, Settled};
use crate::config::Aim;
use crate::control::Probe;
use crate::rollout::{Actor, Color};

/// A way to the controller; cheap to clone.
#[derive(Clone, Debug)]
pub struct Handle {
    mailbox: mpsc::Sender<Message>,
}

/// What stands in the mailbox.
#[derive(Debug)]
pub(super) enum Message {
    Ask(Box<Ask>, Reply<Result<Outcome, Refusal>>),
    Overview(Reply<Box<Overview>>),
    History(Reply<Vec<HistoryEntry>>),
    Subscribe(Option<u64>, Reply<(Vec<Event>, broadcast::Receiver<Event>)>),
    Reload(Actor, Reply<Result<Reloaded, Refusal>>),
    Explain(Box<ExplainRequest>, Reply<Result<Explain, Refusal>>),
    WaitDrained(Option<String>, Color, Duration, Reply<Result<Drained, Refusal>>),
    WaitSettled(Option<String>, Duration, Reply<Result<Settled, Refusal>>),
    Approve {
        app: Option<String>,
        gate: Option<String>,
        yes: bool,
        by: Actor,
        reply: Reply<Result<String, Refusal>>,
    },
    Probe(Option<String>, Color, Reply<Result<Probed, Refusal>>),
    ConfigText(Reply<String>),
    Lease(
        Option<String>,
        LeaseAsk,
        Actor,
        Reply<Result<Option<LeaseView>, Refusal>>,
    ),
    PreviewToken(
        Option<String>,
        Aim,
        Duration,
        Reply<Result<PreviewToken, Refusal>>,
    ),
}

pub(super) type Reply<T> = oneshot::Sender<T>;

/// What a reload did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reloaded {
    /// False: the content is the one in use.
    pub changed: bool,
    /// What differs, a line each.
    pub diff: Vec<String>,
    /// What needs a restart to take effect.
    pub needs_restart: Vec<String>,
    /// Warnings of the file.
    pub warnings: Vec<String>,
}

/// A color has drained.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drained {
    /// The app.
    pub app: String,
    /// The color.
    pub color: Color,
    /// How long the wait was.
    pub waited: Duration,
}

/// Every endpoint of a color, probed afresh.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probed {
    /// The app.
    pub app: String,
    /// The color.
    pub color: Color,
    /// Whether the color would pass the gate.
    pub healthy: bool,
    /// One for each endpoint.
    pub probes: Vec<Probe>,
}

/// A token by which a color can be reached for a while.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PreviewToken {
    /// The app.
    pub app: String,
    /// The color it is for.
    pub aim: Aim,
    /// The token.
    pub token: String,
    /// When it ends.
    pub expires: Timestamp,
    /// The request header that it goes into.
    pub header: String,
    /// The cookie that it may go into.
    pub cookie: Option<String>,
}

/// A request to explain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExplainRequest {
    /// `GET`
    pub method: String,
    /// `http://host/path?query`, or `/path` with a `host` header.
    pub url: String,
    /// Headers, names as given.
    pub headers: Vec<(String, String)>,
    /// The address it comes from.
    pub from: Option<String>,
}

/// Where a request would go, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explain {
    /// The host and path that were matched.
    pub host: String,
    /// The path.
    pub path: String,
    /// The app, if one matches.
    pub app: Option<String>,
    /// The service, with its match.
    pub service: Option<String>,
    /// The color.
    pub color: Option<Color>,
    /// The endpoints it may go to, first the one it would get now.
    pub endpoints: Vec<String>,
    /// Every step with its reason, in order.
    pub steps: Vec<String>,
    /// The status when the proxy would answer itself.
    pub status: Option<u16>,
}

impl Handle {
    /// A handle and the controller's end of it.
    pub(super) fn new(bound: usize) -> (Self, mpsc::Receiver<Message>) {
        let (mailbox, inbox) = mpsc::channel(bound);
        (Self { mailbox }, inbox)
    }

    async fn send<T>(&self, message: impl FnOnce(Reply<T>) -> Message) -> Result<T, Refusal> {
        let (reply, answer) = oneshot::channel();
        self.mailbox
            .send(message(reply))
            .await
            .map_err(|_| Refusal::Stopping)?;
        answer.await.map_err(|_| Refusal::Stopping)
    }

    /// Ask for a change. The answer comes when it is durable, published and, for a switch, proven.
    ///
    /// # Errors
    /// Every way in which it was refused; nothing moved unless the refusal says so.
    pub async fn ask(&self, ask: Ask) -> Result<Outcome, Refusal> {
        self.send(|reply| Message::Ask(Box::new(ask), reply)).await?
    }

    /// The whole state.
    ///
    /// # Errors
    /// [`Refusal::Stopping`] only.
    pub async fn overview(&self) -> Result<Box<Overview>, Refusal> {
        self.send(Message::Overview).await
    }

    /// Committed changes, oldest first.
    ///
    /// # Errors
    /// [`Refusal::Stopping`] only.
    pub async fn history(&self) -> Result<Vec<HistoryEntry>, Refusal> {
        self.send(Message::History).await
    }

    /// Events from now on, after those remembered with an id above `after`.
    ///
    /// # Errors
    /// [`Refusal::Stopping`] only.
    pub async fn subscribe(
        &self,
        after: Option<u64>,
    ) -> Result<(Vec<Event>, broadcast::Receiver<Event>), Refusal> {
        self.send(|reply| Message::Subscribe(after, reply)).await
    }

    /// Read the config file again and take it into use.
    ///
    /// # Errors
    /// [`Refusal::Config`] with every mistake; the running configuration stays.
    pub async fn reload(&self, by: Actor) -> Result<Reloaded, Refusal> {
        self.send(|reply| Message::Reload(by, reply)).await?
    }

    /// Where a request would go, and why.
    ///
    /// # Errors
    /// [`Refusal::Invalid`] when it is not a request.
    pub async fn explain(&self, request: ExplainRequest) -> Result<Explain, Refusal> {
        self.send(|reply| Message::Explain(Box::new(request), reply))
            .await?
    }

    /// Wait until neither a bake nor a rollout is under way; the answer says how it is when the time is over, too.
    ///
    /// # Errors
    /// No such app, [`Refusal::Stopping`].
    pub async fn wait_settled(&self, app: Option<String>, time: Duration) -> Result<Settled, Refusal> {
        self.send(|reply| Message::WaitSettled(app, time, reply)).await?
    }

    /// An operator's yes or no to a gate that waits for it; `None` is the only one that does. Gives back its name.
    ///
    /// # Errors
    /// [`Refusal::Invalid`] when none waits, or several do and none is named.
    pub async fn approve(
        &self,
        app: Option<String>,
        gate: Option<String>,
        yes: bool,
        by: Actor,
    ) -> Result<String, Refusal> {
        self.send(|reply| Message::Approve {
            app,
            gate,
            yes,
            by,
            reply,
        })
        .await?
    }

    /// Wait until a color holds no request.
    ///
    /// # Errors
    /// [`Refusal::NotDrainable`] at once when it was neither drained nor switched away from;
    /// [`Refusal::TimedOut`].
    pub async fn wait_drained(
        &self,
        app: Option<String>,
        color: Color,
        timeout: Duration,
    ) -> Result<Drained, Refusal> {
        self.send(|reply| Message::WaitDrained(app, color, timeout, reply))
            .await?
    }

    /// Probe every endpoint of a color afresh.
    ///
    /// # Errors
    /// The app is not known.
    pub async fn probe(&self, app: Option<String>, color: Color) -> Result<Probed, Refusal> {
        self.send(|reply| Message::Probe(app, color, reply)).await?
    }

    /// Take, renew, give back or break the lease of an app.
    ///
    /// # Errors
    /// [`Refusal::Busy`] with who holds it.
    pub async fn lease(
        &self,
        app: Option<String>,
        ask: LeaseAsk,
        by: Actor,
    ) -> Result<Option<LeaseView>, Refusal> {
        self.send(|reply| Message::Lease(app, ask, by, reply)).await?
    }

    /// A token by which a color can be reached for so long.
    ///
    /// # Errors
    /// [`Refusal::Invalid`]: the app has no preview, or the life is too long.
    pub async fn preview_token(
        &self,
        app: Option<String>,
        aim: Aim,
        life: Duration,
    ) -> Result<PreviewToken, Refusal> {
        self.send(|reply| Message::PreviewToken(app, aim, life, reply))
            .await?
    }

    /// The configuration in use as text, secrets masked.
    ///
    /// # Errors
    /// [`Refusal::Stopping`] only.
    pub async fn config_text(&self) -> Result<String, Refusal> {
        self.send(Message::ConfigText).await
    }
}
