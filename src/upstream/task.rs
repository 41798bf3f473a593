//! Background tasks with an owner.

use std::future::Future;

use tokio::task::JoinHandle;

/// A background task that ends when its owner drops it.
#[derive(Debug)]
pub(super) struct OwnedTask(JoinHandle<()>);

impl OwnedTask {
    /// Start it on the runtime of the caller.
    pub(super) fn spawn(work: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(tokio::spawn(work))
    }

    /// Tells this task from another.
    #[cfg(test)]
    pub(super) fn id(&self) -> tokio::task::Id {
        self.0.id()
    }
}

impl Drop for OwnedTask {
    fn drop(&mut self) {
        self.0.abort();
    }
}
