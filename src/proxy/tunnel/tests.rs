//! One direction, driven by hand over a pair of sockets.

#![allow(clippy::unwrap_used, reason = "a test panics to fail")]

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::*;
use crate::wire::Stream;

fn frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    [&[0x80 | opcode, payload.len() as u8], payload].concat()
}

/// A flow between two sockets, and the far ends of both.
struct Bench {
    flow: Flow,
    from: Stream,
    to: Stream,
    source: UnixStream,
    sink: UnixStream,
}

impl Bench {
    fn new(first: &[u8], is_websocket: bool) -> Self {
        let (source, from) = UnixStream::pair().unwrap();
        let (to, sink) = UnixStream::pair().unwrap();
        Self {
            flow: Flow::new(Bytes::copy_from_slice(first), is_websocket),
            from: Stream::unix(from),
            to: Stream::unix(to),
            source,
            sink,
        }
    }

    /// Poll until so many bytes have passed, or the flow is over.
    async fn drive(&mut self, passed: u64) -> bool {
        std::future::poll_fn(|cx| match self.flow.poll(cx, &mut self.from, &mut self.to) {
            Poll::Ready(result) => Poll::Ready(result.is_ok()),
            Poll::Pending if self.flow.passed >= passed => Poll::Ready(false),
            Poll::Pending => Poll::Pending,
        })
        .await
    }

    /// End the source, and what the sink has got in all.
    async fn finish(mut self) -> Vec<u8> {
        drop(self.source);
        let done = std::future::poll_fn(|cx| self.flow.poll(cx, &mut self.from, &mut self.to)).await;
        assert!(done.is_ok());
        drop((self.from, self.to));
        let mut all = Vec::new();
        self.sink.read_to_end(&mut all).await.unwrap();
        all
    }
}

#[tokio::test]
async fn wherever_the_end_falls_frames_stay_whole_and_nothing_follows_the_close() {
    let frames = [
        frame(1, b"one"),
        frame(2, &[0x88; 20]),
        frame(9, b""),
        frame(0, b"four"),
    ];
    let bytes = frames.concat();
    let mut ends = vec![0];
    for frame in &frames {
        ends.push(ends.last().unwrap() + frame.len());
    }
    for at in 0..=bytes.len() {
        let mut bench = Bench::new(b"", true);
        bench.source.write_all(&bytes[..at]).await.unwrap();
        bench.drive(at as u64).await;
        bench.flow.say(false);
        bench.source.write_all(&bytes[at..]).await.unwrap();
        let end = *ends.iter().find(|end| **end >= at).unwrap();
        let wanted = [&bytes[..end], &goodbye(None)].concat();
        assert_eq!(bench.finish().await, wanted, "told after {at} bytes");
    }
}

#[tokio::test]
async fn no_second_close_follows_one_that_has_passed() {
    let close = frame(8, &[3, 232]);
    let mut bench = Bench::new(&close, true);
    bench.drive(close.len() as u64).await;
    bench.flow.say(false);
    assert!(bench.flow.is_over() && bench.flow.is_over_at_source());
    assert_eq!(bench.finish().await, close);
}

#[tokio::test]
async fn a_source_that_ends_in_mid_frame_is_followed_by_its_end_alone() {
    let bytes = frame(1, b"never whole");
    let mut bench = Bench::new(&bytes[..5], true);
    bench.drive(5).await;
    bench.flow.say(true);
    assert_eq!(bench.finish().await, &bytes[..5]);
}

#[tokio::test]
async fn what_came_behind_the_head_goes_first_and_the_end_last() {
    let mut bench = Bench::new(&[1; 100_000], false);
    bench.source.write_all(&[2; 10]).await.unwrap();
    // More than the socket holds: the flow has to wait for the reader.
    let Bench {
        flow,
        from,
        to,
        source,
        sink,
    } = &mut bench;
    let reader = async {
        let mut all = vec![0; 100_010];
        sink.read_exact(&mut all).await.unwrap();
        all
    };
    let mover = async {
        source.shutdown().await.unwrap();
        std::future::poll_fn(|cx| flow.poll(cx, from, to)).await.is_ok()
    };
    let (all, done) = tokio::join!(reader, mover);
    assert!(done && all[..100_000].iter().all(|byte| *byte == 1) && all[100_000..] == [2; 10]);
    let mut end = [0];
    assert_eq!(
        bench.sink.read(&mut end).await.unwrap(),
        0,
        "the end is passed on"
    );
}

/// Takes everything at once, as TLS does, and lets go of it when `open`.
#[derive(Default)]
struct Hoard {
    taken: Vec<u8>,
    out: Vec<u8>,
    open: bool,
    shut: bool,
}

impl AsyncWrite for Hoard {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.taken.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.open {
            return Poll::Pending;
        }
        let taken = std::mem::take(&mut self.taken);
        self.out.extend(taken);
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.as_mut().poll_flush(cx))?;
        self.shut = true;
        Poll::Ready(Ok(()))
    }
}

#[tokio::test]
async fn what_a_destination_keeps_goes_out_before_the_end() {
    let (mut from, mut to) = (&b"last"[..], Hoard::default());
    let mut flow = Flow::new(Bytes::from_static(b"first "), false);
    let mut cx = Context::from_waker(std::task::Waker::noop());
    assert!(flow.poll(&mut cx, &mut from, &mut to).is_pending());
    assert_eq!(
        to.taken, b"first ",
        "nothing more is read while that has not gone out"
    );
    to.open = true;
    let done = std::future::poll_fn(|cx| flow.poll(cx, &mut from, &mut to)).await;
    assert!(done.is_ok() && to.shut);
    assert_eq!(to.out, b"first last");
}
