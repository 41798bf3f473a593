//! Server-sent events and gRPC calls on their way through: streams that may be ended between two events or messages.

use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap};
use http_body::Body;
use hyper::body::Incoming;
use tokio::time::Instant;

use super::deadline::Deadline;
use super::exchange::Exchange;
use super::grpc::{self, Messages};
use super::streams::Leash;
use super::worker::Worker;
use crate::metrics::StreamKind;
use crate::routing::Lane;

/// See [`Events::spared_until`]. Most calls that are no streams are over by then.
const BRIEF: Duration = Duration::from_secs(1);

/// What is known of an event stream, or of a call.
pub(super) struct Events {
    leash: Rc<Leash>,
    edges: Edges,
    /// A call younger than this may be a short one: nobody can tell a unary call from the first message of many.
    spared_until: Option<Instant>,
    timer: Option<Deadline>,
    /// The policy wants its end, at the next edge.
    due: bool,
}

/// What the policy wants of an event stream now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    /// Go on.
    Go,
    /// End here: the last event is whole.
    End,
    /// It was to be ended well and its time is over.
    Cut,
}

impl Events {
    /// The stream that an answer is, if it is one: of unknown length, and `text/event-stream` or the answer to a call.
    pub(super) fn of(
        worker: &Rc<Worker>,
        exchange: &Exchange,
        lane: &Arc<Lane>,
        headers: &HeaderMap,
        body: &Incoming,
    ) -> Option<Box<Self>> {
        // Most answers have a length: one look at that, none at their fields.
        if body.is_end_stream() || body.size_hint().exact().is_some() {
            return None;
        }
        let (kind, edges) = if exchange.call().is_some() && grpc::is_grpc(headers) {
            (StreamKind::Grpc, Edges::Messages(Messages::default()))
        } else if is_event_stream(headers) {
            let compressed = headers.contains_key(CONTENT_ENCODING);
            let lines = (!compressed).then(Lines::default);
            (StreamKind::Sse, lines.map_or(Edges::Anywhere, Edges::Lines))
        } else {
            return None;
        };
        Some(Box::new(Self {
            leash: Leash::new(worker, exchange, lane, kind)?,
            edges,
            spared_until: (kind == StreamKind::Grpc).then(|| Instant::now() + BRIEF),
            timer: None,
            due: false,
        }))
    }

    /// The call that it answers, if it is one.
    pub(super) fn call(&self, exchange: &Exchange) -> Option<grpc::Call> {
        exchange.call().filter(|_| self.leash.kind == StreamKind::Grpc)
    }

    /// Whether to go on. This task is woken when the answer changes.
    pub(super) fn poll_wish(&mut self, cx: &mut Context<'_>) -> Wish {
        let Some(ending) = self.leash.ending(cx) else {
            return Wish::Go;
        };
        let begins = self
            .spared_until
            .map_or(ending.begins, |at| ending.begins.max(at));
        self.due = Instant::now() >= begins;
        if self.due && self.edges.is_here() {
            return Wish::End;
        }
        let at = if self.due { ending.cut.max(begins) } else { begins };
        let timer = self.timer.get_or_insert_with(|| Deadline::new(at));
        match timer.poll(cx, at) {
            Poll::Pending => Wish::Go,
            Poll::Ready(()) if self.due => Wish::Cut,
            // The time has come to begin: once more.
            Poll::Ready(()) => {
                cx.waker().wake_by_ref();
                Wish::Go
            }
        }
    }

    /// These bytes are next: what of them goes on. When the stream is to end, nothing behind the last whole event.
    pub(super) fn pass(&mut self, mut data: Bytes) -> Bytes {
        let last_edge = self.edges.feed(&data);
        if self.due
            && let Some(at) = last_edge
        {
            data.truncate(at);
            self.edges.end_here();
        }
        data
    }
}

/// Where a stream may end.
#[derive(Debug)]
enum Edges {
    /// Behind a blank line.
    Lines(Lines),
    /// Behind a message.
    Messages(Messages),
    /// The events are compressed: any place is as good as another.
    Anywhere,
}

impl Edges {
    fn is_here(&self) -> bool {
        match self {
            Self::Lines(lines) => lines.at_edge,
            Self::Messages(messages) => messages.at_edge(),
            Self::Anywhere => true,
        }
    }

    fn feed(&mut self, data: &Bytes) -> Option<usize> {
        match self {
            Self::Lines(lines) => lines.feed(data),
            Self::Messages(messages) => messages.feed(data),
            Self::Anywhere => None,
        }
    }

    /// What came behind the last edge is left out.
    fn end_here(&mut self) {
        match self {
            Self::Lines(lines) => lines.at_edge = true,
            Self::Messages(messages) => *messages = Messages::default(),
            Self::Anywhere => {}
        }
    }
}

fn is_event_stream(headers: &HeaderMap) -> bool {
    let of = headers.get(CONTENT_TYPE).map(|value| value.as_bytes());
    let essence = of.and_then(|text| text.split(|byte| *byte == b';').next());
    essence.is_some_and(|text| text.trim_ascii().eq_ignore_ascii_case(b"text/event-stream"))
}

/// Finds the ends of events: blank lines, ended by LF, CR or both (the HTML standard, §9.2.5).
#[derive(Clone, Debug)]
struct Lines {
    /// The last event is whole, or there was none yet.
    at_edge: bool,
    line_is_empty: bool,
    after_cr: bool,
}

impl Default for Lines {
    fn default() -> Self {
        Self {
            at_edge: true,
            line_is_empty: true,
            after_cr: false,
        }
    }
}

impl Lines {
    /// How many of these bytes belong to whole events, if one ends here.
    fn feed(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut last = None;
        for (at, byte) in bytes.iter().enumerate() {
            let ends_line = match byte {
                b'\r' => true,
                b'\n' => !self.after_cr,
                _ => {
                    (self.line_is_empty, self.at_edge) = (false, false);
                    false
                }
            };
            if ends_line {
                self.at_edge = self.line_is_empty;
                self.line_is_empty = true;
            }
            self.after_cr = *byte == b'\r';
            if self.at_edge {
                last = Some(at + 1);
            }
        }
        last
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    /// The edges in a text, fed in one piece per byte.
    fn edges(text: &[u8]) -> Vec<usize> {
        let mut edges = Lines::default();
        let at = |at| {
            edges.feed(&text[at..=at]);
            edges.at_edge.then_some(at + 1)
        };
        (0..text.len()).filter_map(at).collect()
    }

    #[test]
    fn an_event_ends_with_a_blank_line_of_any_kind() {
        assert_eq!(edges(b"data: 1\n\ndata"), [9]);
        assert_eq!(edges(b"data: 1\r\n\r\nda"), [10, 11]);
        assert_eq!(edges(b"data: 1\r\rda"), [9]);
        assert_eq!(edges(b"a\n\n\nb"), [3, 4]);
        assert_eq!(edges(b"a\r\n"), [0_usize; 0]);
        assert_eq!(edges(b": ping\n\n"), [8]);
    }

    proptest! {
        #[test]
        fn splits_change_nothing(
            text in prop::collection::vec(prop_oneof![Just(b'a'), Just(b'\n'), Just(b'\r')], 0..40),
            cut: prop::sample::Index,
        ) {
            let cut = cut.index(text.len() + 1);
            let (mut whole, mut split) = (Lines::default(), Lines::default());
            let last = whole.feed(&text);
            let first = split.feed(&text[..cut]);
            let second = split.feed(&text[cut..]).map(|at| at + cut);
            prop_assert_eq!(last, second.or(first));
            prop_assert_eq!(last, edges(&text).last().copied());
            prop_assert_eq!(whole.at_edge, split.at_edge);
        }
    }

    #[test]
    fn an_event_stream_is_known_by_its_type() {
        let of = |text: &'static str| {
            is_event_stream(&HeaderMap::from_iter([(
                CONTENT_TYPE,
                HeaderValue::from_static(text),
            )]))
        };
        assert!(of("text/event-stream") && of("Text/Event-Stream ; charset=utf-8"));
        assert!(!of("text/event-streams") && !of("text/plain") && !is_event_stream(&HeaderMap::new()));
    }
}
