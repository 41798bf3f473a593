//! `/v1/events`: what happens, as server-sent events.

use std::convert::Infallible;
use std::time::Duration;

use axum::response::sse::{Event as Frame, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::{StreamExt, stream};
use http::HeaderMap;
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::sync::{OwnedSemaphorePermit, watch};

use super::dto::{self, schema};
use super::problem::{Code, Problem};
use super::reads::long;
use super::request::Asked;
use super::show;
use crate::control;

/// A comment this often keeps proxies and readers sure that the stream lives.
const HEARTBEAT: Duration = Duration::from_secs(15);

pub(super) async fn events(asked: Asked<dto::EventsQuery>) -> Result<Response, Problem> {
    let permit = long(&asked.door, asked.unix)?;
    let follow = asked.query.follow.unwrap_or(true);
    // The header is what a reconnecting reader sends by itself; it is newer than the address it was opened with.
    let after = last_event_id(&asked.headers)?.or(asked.query.after);
    let after = if follow { after } else { after.or(Some(0)) };
    let (remembered, live) = asked.door.handle.subscribe(after).await?;
    let remembered = stream::iter(remembered).map(|event| frame(&event));
    let live = Live {
        receiver: follow.then_some(live),
        stop: asked.door.stop.clone(),
        _permit: Some(permit),
    };
    let live = stream::unfold(live, |mut live| async move {
        live.next().await.map(|frame| (frame, live))
    });
    let frames = remembered.chain(live).map(Ok::<_, Infallible>);
    let beat = KeepAlive::new().interval(HEARTBEAT).text("alive");
    Ok(Sse::new(frames).keep_alive(beat).into_response())
}

fn last_event_id(headers: &HeaderMap) -> Result<Option<u64>, Problem> {
    let Some(id) = headers.get("last-event-id") else {
        return Ok(None);
    };
    id.to_str()
        .ok()
        .and_then(|id| id.trim().parse().ok())
        .map(Some)
        .ok_or_else(|| Problem::new(Code::BadRequest, "Last-Event-ID: ids are numbers"))
}

pub(super) struct Live {
    receiver: Option<broadcast::Receiver<control::Event>>,
    stop: watch::Receiver<bool>,
    _permit: Option<OwnedSemaphorePermit>,
}

impl Live {
    #[cfg(test)]
    pub(super) fn for_test(
        receiver: broadcast::Receiver<control::Event>,
        stop: watch::Receiver<bool>,
    ) -> Self {
        Self {
            receiver: Some(receiver),
            stop,
            _permit: None,
        }
    }

    /// The next frame; none when the stream ends.
    pub(super) async fn next(&mut self) -> Option<Frame> {
        let receiver = self.receiver.as_mut()?;
        let received = tokio::select! {
            received = receiver.recv() => received,
            _ = self.stop.wait_for(|stop| *stop) => return None,
        };
        match received {
            Ok(event) => Some(frame(&event)),
            Err(RecvError::Lagged(missed)) => Some(lagged(missed)),
            Err(RecvError::Closed) => None,
        }
    }
}

fn frame(event: &control::Event) -> Frame {
    let frame = Frame::default()
        .event(event.kind.as_str())
        .data(show::json(&show::event(event)));
    match event.id {
        Some(id) => frame.id(id.to_string()),
        None => frame,
    }
}

fn lagged(missed: u64) -> Frame {
    Frame::default().event("lagged").data(show::json(&dto::Lagged {
        schema: schema::LAGGED.to_owned(),
        missed,
    }))
}
