//! A request as its client's connection knows it: HTTP/1 serves one at a time, HTTP/2 many.

use std::cell::Cell;
use std::rc::Rc;

use http::{Request, Version};
use http_body::Body;
use tokio::time::Instant;

use super::client::Client;
use super::http2::{Many, Stream};

/// The client's connection is busy as long as this lives: until both bodies of the request are through.
pub(super) struct Serving {
    client: Rc<Client>,
    /// Over HTTP/2: where it stands among the others.
    among: Option<(Rc<Many>, Rc<Stream>)>,
    /// When it ended, if somebody has looked.
    end: Cell<Option<Instant>>,
}

impl Serving {
    /// The request of a connection that serves no other meanwhile.
    pub(super) fn alone(client: &Rc<Client>, request: &Request<impl Body>) -> Self {
        client.begins(
            !request.body().is_end_stream(),
            request.version() == Version::HTTP_10,
        );
        Self {
            client: Rc::clone(client),
            among: None,
            end: Cell::new(None),
        }
    }

    /// One of many.
    pub(super) fn among(client: &Rc<Client>, many: &Rc<Many>, stream: Rc<Stream>) -> Self {
        Self {
            client: Rc::clone(client),
            among: Some((Rc::clone(many), stream)),
            end: Cell::new(None),
        }
    }

    /// Whose request it is.
    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    /// What HTTP/2 knows of it.
    pub(super) fn stream(&self) -> Option<&Stream> {
        self.among.as_ref().map(|(_, stream)| &**stream)
    }

    /// It claimed an endpoint through this gate; 0: its end is not that gate's business any more.
    pub(super) fn goes_through(&self, gate: u64) {
        match self.stream() {
            None => self.client.goes_through(gate),
            Some(stream) => stream.goes_through(gate),
        }
    }

    /// It ends now: the clock need not be read again.
    pub(super) fn ends_at(&self, now: std::time::Instant) {
        self.end.set(Some(Instant::from_std(now)));
    }

    /// The request's body is through.
    pub(super) fn uploaded(&self) {
        if self.among.is_none() {
            self.client.uploaded();
        }
    }

    /// The answer is cut short, and why; what the connection has done itself stands over what it led to.
    pub(super) fn answer_cut(&self, why: &'static str) -> &'static str {
        match self.stream() {
            None => {
                self.client.answer_cut();
                why
            }
            Some(stream) => stream.given_up().unwrap_or(why),
        }
    }

    /// A WebSocket follows the answer, over HTTP/2.
    pub(super) fn becomes_tunnel(&self) {
        if let Some((many, stream)) = &self.among {
            many.becomes_tunnel(stream);
        }
    }

    /// The client took the request back before it had an answer.
    pub(super) fn taken_back(&self) {
        if let Some(stream) = self.stream() {
            stream.is_taken_back();
        }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        match &self.among {
            None => self.client.ends(self.end.get().unwrap_or_else(Instant::now)),
            Some((many, stream)) => many.ends(stream),
        }
    }
}
