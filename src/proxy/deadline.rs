//! A timer that is moved for free: it is set again only when it fires too early.

use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use tokio::task::coop::unconstrained;
use tokio::time::{Instant, Sleep, sleep_until};

/// One timer for a row of deadlines. Most deadlines are met, so each is only remembered; the timer wheel hears of
/// it when an earlier one fires.
#[derive(Debug)]
pub(super) struct Deadline {
    sleep: Pin<Box<Sleep>>,
    armed: Instant,
    registered: bool,
}

impl Deadline {
    /// A timer first set to this instant.
    pub(super) fn new(at: Instant) -> Self {
        Self {
            sleep: Box::pin(sleep_until(at)),
            armed: at,
            registered: false,
        }
    }

    /// Ready once `deadline` has passed.
    ///
    /// The waker is registered once, so a timer belongs to one task for its life.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, deadline: Instant) -> Poll<()> {
        if deadline < self.armed {
            self.arm(deadline);
        }
        loop {
            if self.registered && !self.sleep.is_elapsed() {
                return Poll::Pending;
            }
            // Outside of the task's budget: a timer that is refused for want of it would be taken for registered.
            if pin!(unconstrained(self.sleep.as_mut())).poll(cx).is_pending() {
                self.registered = true;
                return Poll::Pending;
            }
            if self.armed >= deadline {
                return Poll::Ready(());
            }
            self.arm(deadline);
        }
    }

    fn arm(&mut self, at: Instant) {
        self.sleep.as_mut().reset(at);
        self.armed = at;
        self.registered = false;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_deadline_moved_on_while_armed_fires_once_and_late() {
        let start = Instant::now();
        let mut timer = Deadline::new(start + Duration::from_secs(1));
        let end = start + Duration::from_secs(5);
        std::future::poll_fn(|cx| timer.poll(cx, end)).await;
        assert_eq!(Instant::now() - start, Duration::from_secs(5));
    }

    #[tokio::test(start_paused = true)]
    async fn an_earlier_deadline_fires_early() {
        let start = Instant::now();
        let mut timer = Deadline::new(start + Duration::from_secs(60));
        let end = start + Duration::from_secs(2);
        std::future::poll_fn(|cx| timer.poll(cx, end)).await;
        assert_eq!(Instant::now() - start, Duration::from_secs(2));
    }

    #[tokio::test(start_paused = true)]
    async fn a_deadline_first_polled_without_budget_still_fires() {
        let end = Instant::now() + Duration::from_secs(1);
        let mut timer = Deadline::new(end);
        let fired = std::future::poll_fn(|cx| {
            while tokio::task::coop::has_budget_remaining() {
                let _ = pin!(tokio::task::coop::consume_budget()).poll(cx);
            }
            timer.poll(cx, end)
        });
        let outcome = tokio::time::timeout(Duration::from_secs(5), fired).await;
        assert!(outcome.is_ok(), "the timer was never registered");
    }
}
