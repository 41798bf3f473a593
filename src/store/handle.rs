//! The journal on a thread of its own.

use std::thread;

use tokio::sync::{mpsc, oneshot};

use super::{Entry, Journal, StoreError};
use crate::rollout::AppState;

/// How many requests may wait for the disk. The controller commits one change at a time, so this is never reached.
const WAITING_MAX: usize = 64;

/// The way to the thread that has the journal. Requests are served in the order in which they came.
///
/// When the last handle is dropped the thread ends, and with it the lock on the state directory.
#[derive(Clone, Debug)]
pub struct StoreHandle {
    requests: mpsc::Sender<Request>,
}

#[derive(Debug)]
enum Request {
    Commit(Box<Entry>, bool, oneshot::Sender<Result<u64, StoreError>>),
    Compact(oneshot::Sender<Result<(), StoreError>>),
    Repair(String, oneshot::Sender<Result<(), StoreError>>),
    Newest(String, oneshot::Sender<Option<AppState>>),
    Close(oneshot::Sender<()>),
}

impl StoreHandle {
    /// Give the journal its thread.
    ///
    /// # Errors
    /// The operating system has no thread to give.
    pub fn start(journal: Journal) -> Result<Self, StoreError> {
        let (requests, inbox) = mpsc::channel(WAITING_MAX);
        thread::Builder::new()
            .name("cutover-store".to_owned())
            .spawn(move || serve(journal, inbox))
            .map_err(|cause| StoreError::io("start a thread for", "the journal".as_ref(), cause))?;
        Ok(Self { requests })
    }

    /// [`Journal::append`]. If this future is dropped while it waits, the entry is committed all the same.
    ///
    /// # Errors
    /// As [`Journal::append`]; and [`StoreError::Closed`], after which the outcome is unknown.
    pub async fn commit(&self, entry: Entry, urgent: bool) -> Result<u64, StoreError> {
        self.ask(|reply| Request::Commit(Box::new(entry), urgent, reply))
            .await?
    }

    /// [`Journal::compact`].
    ///
    /// # Errors
    /// As [`Journal::compact`], and [`StoreError::Closed`].
    pub async fn compact(&self) -> Result<(), StoreError> {
        self.ask(Request::Compact).await?
    }

    /// [`Journal::repair`].
    ///
    /// # Errors
    /// As [`Journal::repair`], and [`StoreError::Closed`].
    pub async fn repair(&self, app: &str) -> Result<(), StoreError> {
        self.ask(|reply| Request::Repair(app.to_owned(), reply)).await?
    }

    /// [`Journal::newest`].
    ///
    /// # Errors
    /// [`StoreError::Closed`].
    pub async fn newest(&self, app: &str) -> Result<Option<AppState>, StoreError> {
        self.ask(|reply| Request::Newest(app.to_owned(), reply)).await
    }

    /// Finish what was asked before, then end the thread and let go of the state directory. Every later request,
    /// through any handle, gets [`StoreError::Closed`].
    pub async fn close(&self) {
        // An error means that it is closed already.
        let _ = self.ask(Request::Close).await;
    }

    async fn ask<T>(&self, request: impl FnOnce(oneshot::Sender<T>) -> Request) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        let sent = self.requests.send(request(reply)).await;
        sent.map_err(|_| StoreError::Closed)?;
        answer.await.map_err(|_| StoreError::Closed)
    }
}

/// The thread: one request after the other. Nobody waiting for an answer is no reason not to do it.
fn serve(mut journal: Journal, mut inbox: mpsc::Receiver<Request>) {
    while let Some(request) = inbox.blocking_recv() {
        match request {
            Request::Commit(entry, urgent, reply) => {
                let _ = reply.send(journal.append(*entry, urgent));
            }
            Request::Compact(reply) => {
                let _ = reply.send(journal.compact());
            }
            Request::Repair(app, reply) => {
                let _ = reply.send(journal.repair(&app));
            }
            Request::Newest(app, reply) => {
                let _ = reply.send(journal.newest(&app).cloned());
            }
            Request::Close(reply) => {
                drop(journal);
                let _ = reply.send(());
                return;
            }
        }
    }
}
