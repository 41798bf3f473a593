//! The process is asked to stop, and is told when everybody has.
//!
//! A [`Watcher`] is both ears and a blocker: whoever holds one hears the request, and the process waits until it
//! is dropped. Works across threads and runtimes.

use tokio::sync::watch;

/// A trigger, and the first of its watchers. That first one counts too: give it away or drop it.
#[must_use]
pub fn channel() -> (Trigger, Watcher) {
    let (sender, receiver) = watch::channel(false);
    (Trigger(sender), Watcher(receiver))
}

/// Asks for the stop. Dropping it asks too, since nobody could any more.
#[derive(Debug)]
pub struct Trigger(watch::Sender<bool>);

impl Trigger {
    /// Ask every watcher to stop. Asking again changes nothing.
    pub fn request(&self) {
        self.0.send_replace(true);
    }

    /// Another watcher.
    #[must_use]
    pub fn watcher(&self) -> Watcher {
        Watcher(self.0.subscribe())
    }

    /// How many watchers are left.
    #[must_use]
    pub fn remaining(&self) -> usize {
        self.0.receiver_count()
    }

    /// Resolves when every watcher was dropped.
    pub async fn all_gone(&self) {
        self.0.closed().await;
    }
}

/// Hears the request to stop; holds the end of the process back until it is dropped.
#[derive(Clone, Debug)]
pub struct Watcher(watch::Receiver<bool>);

impl Watcher {
    /// Resolves when the stop is, or was, requested. May be dropped and called again.
    pub async fn requested(&mut self) {
        // An error is a dropped trigger: a request as well.
        let _ = self.0.wait_for(|requested| *requested).await;
    }

    /// Whether the stop was requested.
    #[must_use]
    pub fn is_requested(&self) -> bool {
        *self.0.borrow() || self.0.has_changed().is_err()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test panics to fail")]

    use std::thread;

    use futures_util::FutureExt;
    use tokio::runtime::Builder;

    use super::*;

    #[tokio::test]
    async fn a_request_reaches_every_watcher_early_and_late() {
        let (trigger, mut first) = channel();
        let mut second = first.clone();
        assert!(!first.is_requested());
        assert!(first.requested().now_or_never().is_none());

        trigger.request();
        first.requested().await;
        second.requested().await;
        second.requested().await;
        let mut late = trigger.watcher();
        late.requested().await;
        assert!(first.is_requested() && second.is_requested() && late.is_requested());
    }

    #[tokio::test]
    async fn a_dropped_trigger_is_a_request() {
        let (trigger, mut watcher) = channel();
        drop(trigger);
        assert!(watcher.is_requested());
        watcher.requested().await;
    }

    #[tokio::test]
    async fn all_gone_waits_for_the_last_clone() {
        let (trigger, first) = channel();
        let second = first.clone();
        trigger.request();
        assert_eq!(trigger.remaining(), 2);
        drop(first);
        assert!(trigger.all_gone().now_or_never().is_none());
        drop(second);
        assert_eq!(trigger.remaining(), 0);
        trigger.all_gone().await;
    }

    #[test]
    fn watchers_live_on_other_threads_and_runtimes() {
        let (trigger, watcher) = channel();
        let (heard, hears) = std::sync::mpsc::channel();
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let mut watcher = watcher.clone();
                let heard = heard.clone();
                thread::spawn(move || {
                    let runtime = Builder::new_current_thread().build().unwrap();
                    runtime.block_on(watcher.requested());
                    heard.send(()).unwrap();
                })
            })
            .collect();
        drop(watcher);
        let runtime = Builder::new_current_thread().build().unwrap();
        trigger.request();
        runtime.block_on(trigger.all_gone());
        // Each thread spoke before it dropped its watcher.
        assert_eq!(hears.try_iter().count(), 4);
        for thread in threads {
            thread.join().unwrap();
        }
    }
}
