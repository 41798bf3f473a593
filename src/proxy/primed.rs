//! What is taken of a body in advance, so that it leaves in the same write as its head.

use std::pin::Pin;
use std::task::Poll;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

/// The first frame of a body, if it has come by the time that the connection's own task has had one turn.
///
/// The body's channel hands out nothing before it was asked once. Ask, let the connection's task run (it stands
/// before this one in the queue), ask again: no system call, no delay for a body that comes later.
///
/// An error is handed out too: the channel tells it once only, and would then look like a clean end.
pub(super) async fn first_frame(body: &mut Incoming) -> Option<Primed> {
    if body.is_end_stream() {
        return None;
    }
    let mut turns = 0;
    std::future::poll_fn(|cx| {
        if let Poll::Ready(polled) = Pin::new(&mut *body).poll_frame(cx) {
            return Poll::Ready(polled);
        }
        turns += 1;
        if turns > 1 {
            return Poll::Ready(None);
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await
}

/// What [`first_frame`] got.
pub(super) type Primed = Result<Frame<Bytes>, hyper::Error>;

pub(super) fn primed_bytes(primed: Option<&Primed>) -> u64 {
    let data = primed
        .and_then(|primed| primed.as_ref().ok())
        .and_then(Frame::data_ref);
    data.map_or(0, |data| data.len() as u64)
}

/// What is left of a body, and what was taken of it in advance.
pub(super) fn with_primed(rest: SizeHint, primed: Option<&Primed>) -> SizeHint {
    match rest.exact() {
        Some(exact) => SizeHint::with_exact(exact + primed_bytes(primed)),
        None => rest,
    }
}
