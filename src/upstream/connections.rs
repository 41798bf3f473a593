//! A worker's own connections to the apps: no lock, no sharing, gone with the worker.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Buf;
use http_body::Body;
use hyper::client::conn::http1;

use super::Endpoint;
use super::dial::{ConnectError, Dialled, dial};
use super::driver::Driver;
use super::line::{Line, LineState, Sender, Whose};
use super::trunk::Trunks;
use crate::config::{Limits, Protocol, Timeouts};
use crate::tls::{Offer, Transport};
use crate::wire::Io;
use crate::wire::descriptors::{self, Use};

/// Unused connections kept to one endpoint by one worker. More were open at once only in a burst.
const IDLE_MAX: usize = 1024;

/// A connection unused for less than this is taken for alive without asking the kernel: an app that had closed it
/// so soon would have said so with its last answer, and what has come since, the event loop has been told by now.
const TRUSTED_FOR: Duration = Duration::from_millis(10);

/// One worker's connections to all endpoints.
pub struct Connections<B> {
    idle: RefCell<HashMap<u64, Vec<Idle<B>>, ById>>,
    lines: RefCell<HashMap<u64, Rc<LineState>, ById>>,
    next_line: Cell<u64>,
    pub(super) trunks: Trunks<B>,
}

/// For maps and sets by an id of our own.
pub type ById = BuildHasherDefault<IdHasher>;

/// Ids are counted up by ourselves: any mixing would be work for nothing.
#[derive(Debug, Default)]
pub struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        // hashbrown takes the top seven bits for its tags, so spread a little.
        self.0.wrapping_mul(0x9E37_79B9_7F4A_7C15)
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 << 8) | u64::from(*byte);
        }
    }

    fn write_u64(&mut self, id: u64) {
        self.0 = id;
    }
}

/// The most recently used one that may carry these requests.
fn last_of<B>(list: &mut Vec<Idle<B>>, whose: Whose) -> Option<Idle<B>> {
    if whose == Whose::Anybody {
        return list.pop();
    }
    let at = list.iter().rposition(|idle| idle.line.state.whose == whose)?;
    Some(list.remove(at))
}

struct Idle<B> {
    line: Line<B>,
    since: Instant,
    expires: Instant,
}

impl<B> Default for Connections<B> {
    fn default() -> Self {
        Self {
            idle: RefCell::default(),
            lines: RefCell::default(),
            next_line: Cell::new(1),
            trunks: Trunks::default(),
        }
    }
}

impl<B> Connections<B>
where
    B: Body + Unpin + 'static,
    B::Data: Send + Buf,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    /// An unused connection to an endpoint, the most recently used first; or a stream on one that is shared, if the
    /// request may have one.
    ///
    /// `careful` asks the kernel about it whatever its age: for requests that must not be sent twice.
    pub fn take(
        self: &Rc<Self>,
        endpoint: u64,
        whose: Whose,
        now: Instant,
        careful: bool,
        offer: Offer,
    ) -> Option<Line<B>> {
        let mut idle = self.idle.borrow_mut();
        while let Some(list) = idle.get_mut(&endpoint)
            && let Some(Idle { line, since, expires }) = last_of(list, whose)
        {
            let fresh = now < expires && line.is_ready();
            let trusted = !careful && now.saturating_duration_since(since) < TRUSTED_FOR;
            if fresh && (trusted || line.is_quiet()) {
                return Some(line);
            }
        }
        drop(idle);
        if self.trunks.is_empty() || offer == Offer::Http1 {
            return None;
        }
        self.stream(endpoint, now)
    }

    /// Keep a connection whose request and answer have ended.
    pub fn give_back(&self, line: Line<B>, now: Instant, keep: Duration) {
        line.state.gate.set(0);
        // A stream is over with its answer.
        if line.is_http2() || line.is_closed() || line.state.cut.get() {
            return;
        }
        let mut idle = self.idle.borrow_mut();
        let list = idle.entry(line.state.endpoint).or_default();
        if list.len() < IDLE_MAX {
            list.push(Idle {
                line,
                since: now,
                expires: now + keep,
            });
        }
    }

    /// Open a connection, or get a stream on one that has been opened meanwhile. A connection has a
    /// task of this worker until either side ends it.
    ///
    /// # Errors
    /// No connection within `timeouts.connect`, or refused.
    pub async fn open(
        self: &Rc<Self>,
        endpoint: &Endpoint,
        whose: Whose,
        timeouts: &Timeouts,
        limits: &Limits,
        offer: Offer,
    ) -> Result<Line<B>, ConnectError> {
        let id = endpoint.id;
        // Until the app says otherwise one connection is opened at a time where it may be shared.
        let shares = endpoint.key.address.protocol != Protocol::Http1 && offer == Offer::All;
        let turn = if shares {
            match self.stream_or_turn(id, timeouts.connect).await? {
                Ok(line) => return Ok(line),
                Err(turn) => turn,
            }
        } else {
            None
        };
        let ends = match whose {
            Whose::Anybody => None,
            Whose::Client(ends) => ends,
        };
        let Dialled { transport, http2 } = dial(endpoint, ends, timeouts.connect, offer).await?;
        if descriptors::is_kept(&transport.socket(), Use::App) {
            return Err(ConnectError::Descriptors);
        }
        if http2 && whose != Whose::Anybody {
            let message = "an app with send_proxy_protocol cannot be spoken to over h2c://: streams of all clients share it";
            return Err(ConnectError::Io(std::io::Error::other(message)));
        }
        if http2 {
            return self.trunk(id, transport, timeouts.upstream_idle, limits).await;
        }
        if turn.is_some() {
            self.trunks.found_http1(id);
        }
        self.whole((id, whose), transport, limits).await
    }

    /// Speak HTTP/1.1 on a fresh connection.
    async fn whole(
        self: &Rc<Self>,
        (endpoint, whose): (u64, Whose),
        transport: Transport,
        limits: &Limits,
    ) -> Result<Line<B>, ConnectError> {
        let (socket, is_tls) = (transport.socket(), transport.is_tls());
        let (io, _) = Io::new(transport);
        let mut builder = http1::Builder::new();
        // An app may answer with larger heads than clients may send; hyper's own bound on fields stays.
        builder.max_header_size(limits.header_bytes.max(64 * 1024));
        let (sender, connection) = builder.handshake(io).await.map_err(ConnectError::Handshake)?;
        let state = LineState::new(self.next_id(), endpoint, whose);
        self.register(&state);
        let registered = Registered {
            of: Rc::clone(self),
            id: state.id,
        };
        let driver = Driver::new(connection);
        let (of_task, tend) = (Rc::clone(&state), driver.tend());
        let task = tokio::task::spawn_local(async move {
            let _registered = registered;
            let freed = tend.await;
            let heir = of_task.heir.borrow_mut().take();
            if let (Some(freed), Some(heir)) = (freed, heir) {
                // Nobody there: the answer was no switch of protocols, and the connection has simply ended.
                let _ = heir.send(freed);
            }
        });
        let _ = state.abort.set(task.abort_handle());
        Ok(Line {
            sender: Sender::Whole {
                sender,
                driver,
                socket,
            },
            state,
            is_tls,
        })
    }

    /// Close unused connections whose endpoint is not to be kept, and those unused for too long.
    pub fn sweep(&self, now: Instant, keep: impl Fn(u64) -> bool) {
        self.idle.borrow_mut().retain(|endpoint, list| {
            list.retain(|idle| now < idle.expires && !idle.line.is_closed());
            !list.is_empty() && keep(*endpoint)
        });
        self.trunks.sweep(now, keep);
    }

    /// End the connections that carry requests of these gates, at once. Their clients see the cut.
    pub fn cut(&self, gates: &[u64]) {
        // Collected first: an aborted task may be dropped at once and take itself off the map.
        let lines = self.lines.borrow();
        let doomed = lines
            .values()
            .filter(|line| gates.contains(&line.gate.get()))
            .map(Rc::clone);
        let doomed: Vec<_> = doomed.collect();
        drop(lines);
        for line in doomed {
            line.end();
        }
    }

    /// Connections open now, each stream of HTTP/2 counted as one.
    #[must_use]
    pub fn count(&self) -> usize {
        self.lines.borrow().len()
    }
}

impl<B> Connections<B> {
    pub(super) fn next_id(&self) -> u64 {
        self.next_line.replace(self.next_line.get() + 1)
    }

    pub(super) fn register(&self, state: &Rc<LineState>) {
        self.lines.borrow_mut().insert(state.id, Rc::clone(state));
    }

    pub(super) fn forget(&self, id: u64) {
        if let Ok(mut lines) = self.lines.try_borrow_mut() {
            lines.remove(&id);
        }
    }
}

/// A line's place in the register; dropped with its driver.
struct Registered<B> {
    of: Rc<Connections<B>>,
    id: u64,
}

impl<B> Drop for Registered<B> {
    fn drop(&mut self) {
        self.of.forget(self.id);
    }
}

impl<B> std::fmt::Debug for Connections<B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connections")
            .field("lines", &self.lines.borrow().len())
            .finish_non_exhaustive()
    }
}
