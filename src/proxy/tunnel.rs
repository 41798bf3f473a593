//! A tunnel: bytes between a client and an app after both have switched protocols.
//!
//! What is read goes out before more is read, so a slow reader stops the other side and nothing is gathered. An idle
//! tunnel has no buffer at all: a worker's tunnels read through one, and only what could not be written is kept.

use std::cell::RefCell;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::deadline::Deadline;
use super::exchange::{CUT_BY_CLIENT, ENDED_BY_POLICY, Exchange};
use super::frames::{Frames, goodbye};
use super::streams::{Ending, FAREWELL, Leash};
use crate::metrics::StreamKind;
use crate::tls::Transport;
use crate::upstream::Freed;

/// The most that is read at once, and so the most that is kept for a side that does not read.
const BUFFER: usize = 16 * 1024;

thread_local! {
    /// The worker's one buffer for reading.
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; BUFFER].into_boxed_slice());
}

/// What the app agreed to, until the client's connection is free for it.
pub(super) struct Tunnel {
    // Fields drop in order: the leash says "no stream any more" before the exchange ends the claim.
    leash: Rc<Leash>,
    exchange: Rc<Exchange>,
    app: Freed,
}

impl Tunnel {
    pub(super) fn new(leash: Rc<Leash>, exchange: Rc<Exchange>, app: Freed) -> Self {
        Self { leash, exchange, app }
    }

    /// The client went away before it could begin.
    pub(super) fn missed(self) {
        self.exchange.cut(CUT_BY_CLIENT);
    }

    /// Copy both ways until both sides have ended, one has failed, or the policy ends it.
    pub(super) async fn run(self, client: impl AsyncRead + AsyncWrite + Unpin, behind_head: Bytes) {
        let (app, app_first) = self.app;
        // A peer that vanished without a word would otherwise hold its color for ever. (The client's was told by its
        // connection.)
        app.socket().keep_alive();
        let is_websocket = self.leash.kind == StreamKind::WebSocket;
        let mut pair = Pair {
            client,
            app,
            up: Flow::new(behind_head, is_websocket),
            down: Flow::new(app_first, is_websocket),
            timer: None,
            half_closed_since: None,
            said_at: None,
        };
        let end = std::future::poll_fn(|cx| {
            let ending = self.leash.ending(cx);
            let moved = (pair.up.passed, pair.down.passed);
            let end = pair.poll(cx, ending);
            self.exchange.received(pair.up.passed - moved.0);
            self.exchange.sent(pair.down.passed - moved.1);
            end
        })
        .await;
        match end {
            End::Both => {}
            End::Client => self.exchange.cut(CUT_BY_CLIENT),
            End::App => self.exchange.cut("upstream broke the stream off"),
            End::Policy => self.exchange.cut(ENDED_BY_POLICY),
            End::Deadline => self.exchange.cut("stream deadline over"),
        }
        if !matches!(end, End::Both | End::Policy)
            && let Some(stream) = self.exchange.serving().stream()
        {
            // Dropping our end would be an orderly end of it.
            stream.breaks();
        }
    }
}

/// Why a tunnel is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// Both sides have ended.
    Both,
    /// The client's connection failed.
    Client,
    /// The app's connection failed.
    App,
    /// The policy ended it, well.
    Policy,
    /// The policy's time was over before it could be ended well.
    Deadline,
}

/// Both connections.
struct Pair<C> {
    client: C,
    app: Transport,
    up: Flow,
    down: Flow,
    timer: Option<Deadline>,
    /// One side of a WebSocket has ended without the other: since when nothing has moved.
    half_closed_since: Option<Instant>,
    /// Both sides were told that this ends.
    said_at: Option<Instant>,
}

impl<C: AsyncRead + AsyncWrite + Unpin> Pair<C> {
    fn poll(&mut self, cx: &mut Context<'_>, ending: Option<Ending>) -> Poll<End> {
        let now = ending.map(|_| Instant::now());
        let due = ending.filter(|ending| now.is_some_and(|now| now >= ending.begins));
        if due.is_some() && self.up.frames.is_none() {
            return Poll::Ready(End::Policy);
        }
        if due.is_some() {
            self.up.say(true);
            self.down.say(false);
        }
        let before = self.up.passed + self.down.passed;
        let up = self.up.poll(cx, &mut self.client, &mut self.app);
        let down = self.down.poll(cx, &mut self.app, &mut self.client);
        match (up, down) {
            (Poll::Ready(Err(broken)), _) => return Poll::Ready(broken.end(End::Client, End::App)),
            (_, Poll::Ready(Err(broken))) => return Poll::Ready(broken.end(End::App, End::Client)),
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => {
                let by_policy = self.up.is_told() || self.down.is_told();
                return Poll::Ready(if by_policy { End::Policy } else { End::Both });
            }
            _ => {}
        }
        if due.is_some() && self.both_have_answered() {
            return Poll::Ready(End::Policy);
        }
        let moved = self.up.passed + self.down.passed != before;
        self.poll_time(cx, ending, due.is_some(), moved)
    }

    /// Each side was told, and has said its own last word or gone.
    fn both_have_answered(&self) -> bool {
        let done = |told: &Flow, answers: &Flow| told.is_over() && answers.is_over_at_source();
        done(&self.up, &self.down) && done(&self.down, &self.up)
    }

    fn poll_time(
        &mut self,
        cx: &mut Context<'_>,
        ending: Option<Ending>,
        due: bool,
        moved: bool,
    ) -> Poll<End> {
        if due && self.said_at.is_none() && self.up.is_over() && self.down.is_over() {
            self.said_at = Some(Instant::now());
        }
        let half_closed = self.up.frames.is_some() && (self.up.ended || self.down.ended);
        if half_closed && (moved || self.half_closed_since.is_none()) {
            self.half_closed_since = Some(Instant::now());
        }
        let (at, end) = match (self.said_at, ending, self.half_closed_since) {
            (Some(said), ..) => (said + FAREWELL, End::Policy),
            (None, Some(ending), _) if due => (ending.cut.max(ending.begins), End::Deadline),
            // Nobody waits for the other half of a WebSocket whose connection has ended.
            (None, _, Some(since)) if half_closed => (since + FAREWELL, End::Both),
            (None, Some(ending), _) => (ending.begins, End::Policy),
            (None, None, _) => return Poll::Pending,
        };
        let timer = self.timer.get_or_insert_with(|| Deadline::new(at));
        ready!(timer.poll(cx, at));
        if due || end != End::Policy {
            return Poll::Ready(end);
        }
        // The time has come to begin: once more from the start.
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

/// One direction.
struct Flow {
    /// Read and not yet written.
    pending: Bytes,
    /// Where the frames end in what has gone out (or was thrown away); `None` when it is no WebSocket.
    frames: Option<Frames>,
    /// The rest of our own Close frame, once it is time for it.
    farewell: Option<Farewell>,
    /// The source has ended.
    ended: bool,
    /// The destination was told of that.
    shut: bool,
    passed: u64,
}

/// Our last word in one direction.
enum Farewell {
    /// To be said at the end of the frame that is under way.
    Due { masked: bool },
    /// Being said; nothing else goes this way any more.
    Said(Bytes),
}

/// Which side of a direction failed.
enum Broken {
    Source,
    Destination,
}

impl Broken {
    fn end(self, source: End, destination: End) -> End {
        match self {
            Self::Source => source,
            Self::Destination => destination,
        }
    }
}

impl Flow {
    fn new(first: Bytes, is_websocket: bool) -> Self {
        Self {
            pending: first,
            frames: is_websocket.then(Frames::default),
            farewell: None,
            ended: false,
            shut: false,
            passed: 0,
        }
    }

    /// Say good-bye at the next end of a frame.
    fn say(&mut self, masked: bool) {
        if self.farewell.is_none() {
            self.farewell = Some(Farewell::Due { masked });
        }
    }

    fn is_told(&self) -> bool {
        matches!(self.farewell, Some(Farewell::Said(_)))
    }

    /// The destination has got the last frame of this direction, ours or the source's own.
    fn is_over(&self) -> bool {
        match &self.farewell {
            Some(Farewell::Said(rest)) => rest.is_empty(),
            _ => self.shut || (self.is_closed() && self.pending.is_empty()),
        }
    }

    /// The source has said its last word.
    fn is_over_at_source(&self) -> bool {
        self.ended || self.is_closed()
    }

    fn is_closed(&self) -> bool {
        self.frames.as_ref().is_some_and(Frames::is_closed)
    }

    /// Move what can be moved. Ready when the source has ended and the destination knows.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut (impl AsyncRead + Unpin),
        to: &mut (impl AsyncWrite + Unpin),
    ) -> Poll<Result<(), Broken>> {
        loop {
            self.speak_if_between();
            if !self.pending.is_empty() {
                let bytes = std::mem::take(&mut self.pending);
                let taken = self.pass(cx, to, &bytes)?;
                self.pending = bytes.slice(taken..);
                if taken == 0 {
                    return Poll::Pending;
                }
                continue;
            }
            // A destination that takes nothing must not keep the source's answer from being heard.
            let spoken = self.poll_farewell(cx, to)?;
            // TLS keeps what its socket did not take, and nothing else would send it on: no more is read until then.
            match Pin::new(&mut *to).poll_flush(cx) {
                Poll::Ready(Err(_)) => return Poll::Ready(Err(Broken::Destination)),
                Poll::Pending if !self.is_told() => return Poll::Pending,
                _ => {}
            }
            if self.ended {
                if self.is_told() {
                    // The destination has our Close, and time to answer it: its end is the tunnel's.
                    return if spoken {
                        Poll::Ready(Ok(()))
                    } else {
                        Poll::Pending
                    };
                }
                if !self.shut {
                    // A failure means that it is gone, which ends this direction as well.
                    let _ = ready!(Pin::new(&mut *to).poll_shutdown(cx));
                    self.shut = true;
                }
                return Poll::Ready(Ok(()));
            }
            ready!(self.fill(cx, from, to))?;
        }
    }

    /// Our Close frame goes where no other frame is under way, and none behind another Close.
    fn speak_if_between(&mut self) {
        let Some(Farewell::Due { masked }) = self.farewell else {
            return;
        };
        let between = self
            .frames
            .as_ref()
            .is_some_and(|at| at.is_between() && !at.is_closed());
        if between && !self.ended {
            let mask = masked.then(mask);
            self.farewell = Some(Farewell::Said(goodbye(mask).into()));
        }
    }

    /// Bytes from the source: written, or thrown away once we have said good-bye. How many are dealt with.
    fn pass(
        &mut self,
        cx: &mut Context<'_>,
        to: &mut (impl AsyncWrite + Unpin),
        bytes: &[u8],
    ) -> Result<usize, Broken> {
        let taken = match (&self.farewell, &self.frames) {
            (Some(Farewell::Said(_)), _) => return Ok(self.heard(bytes)),
            (Some(Farewell::Due { .. }), Some(frames)) if !frames.is_between() => {
                let rest = frames.rest_of_frame(bytes);
                written(Pin::new(to).poll_write(cx, &bytes[..rest]))?
            }
            _ => written(Pin::new(to).poll_write(cx, bytes))?,
        };
        self.passed += taken as u64;
        Ok(self.heard(&bytes[..taken]))
    }

    fn heard(&mut self, bytes: &[u8]) -> usize {
        if let Some(frames) = &mut self.frames {
            frames.feed(bytes);
        }
        bytes.len()
    }

    /// Write our own last words; true when there are none left.
    fn poll_farewell(
        &mut self,
        cx: &mut Context<'_>,
        to: &mut (impl AsyncWrite + Unpin),
    ) -> Result<bool, Broken> {
        let Some(Farewell::Said(rest)) = &mut self.farewell else {
            return Ok(true);
        };
        while !rest.is_empty() {
            match written(Pin::new(&mut *to).poll_write(cx, rest))? {
                0 => return Ok(false),
                some => rest.advance(some),
            }
        }
        Ok(true)
    }

    /// Read once and pass it on; what is not taken is kept.
    fn fill(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut (impl AsyncRead + Unpin),
        to: &mut (impl AsyncWrite + Unpin),
    ) -> Poll<Result<(), Broken>> {
        SCRATCH.with_borrow_mut(|scratch| {
            let mut read = ReadBuf::new(scratch);
            ready!(Pin::new(from).poll_read(cx, &mut read)).map_err(|_| Broken::Source)?;
            let bytes = read.filled();
            if bytes.is_empty() {
                self.ended = true;
                return Poll::Ready(Ok(()));
            }
            let taken = self.pass(cx, to, bytes)?;
            self.pending = Bytes::copy_from_slice(&bytes[taken..]);
            Poll::Ready(Ok(()))
        })
    }
}

/// Bytes written; 0 when nothing more is taken now.
fn written(polled: Poll<io::Result<usize>>) -> Result<usize, Broken> {
    match polled {
        Poll::Pending => Ok(0),
        Poll::Ready(Ok(0) | Err(_)) => Err(Broken::Destination),
        Poll::Ready(Ok(count)) => Ok(count),
    }
}

/// A mask for one frame (RFC 6455 §5.3 wants it not to be foreseeable).
fn mask() -> [u8; 4] {
    let [a, b, c, d, ..] = RandomState::new().build_hasher().finish().to_le_bytes();
    [a, b, c, d]
}

#[cfg(test)]
mod tests;
