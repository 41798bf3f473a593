//! Holding the app while a deployment runs.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::Trouble;
use super::server::Server;
use crate::admin::Exit;

/// A lease that is renewed until it is given back. Dropped without that (the process died), it runs out by itself.
#[derive(Debug)]
pub(super) struct Held {
    server: Server,
    what: Arc<Mutex<String>>,
    lost: watch::Receiver<Option<String>>,
    renewing: JoinHandle<()>,
}

impl Held {
    /// Take the lease of the app.
    ///
    /// # Errors
    /// Somebody else holds it, or changes the app: exit 6, with who.
    pub(super) async fn take(server: &Server, what: String, time: Duration) -> Result<Self, Trouble> {
        server.take_lease(&what, time).await?;
        let what = Arc::new(Mutex::new(what));
        let (tell, lost) = watch::channel(None);
        let renewing = tokio::spawn(renew(server.clone(), Arc::clone(&what), time, tell));
        Ok(Self {
            server: server.clone(),
            what,
            lost,
            renewing,
        })
    }

    /// What others see from the next renewal on.
    pub(super) fn say(&self, what: String) {
        *self.what.lock().unwrap_or_else(PoisonError::into_inner) = what;
    }

    /// # Errors
    /// The lease was broken, or ran out and somebody else has it.
    pub(super) fn still(&self) -> Result<(), Trouble> {
        match &*self.lost.borrow() {
            None => Ok(()),
            Some(why) => Err(Trouble::Here(Exit::Conflict, why.clone())),
        }
    }

    /// Give it back.
    pub(super) async fn give(self, outcome: &str) {
        self.renewing.abort();
        // A server that is gone keeps no lease.
        let _ = self.server.give_lease(outcome).await;
    }
}

async fn renew(
    server: Server,
    what: Arc<Mutex<String>>,
    time: Duration,
    lost: watch::Sender<Option<String>>,
) {
    loop {
        tokio::time::sleep(time / 3).await;
        let now = what.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match server.take_lease(&now, time).await {
            // No answer: the next try may have one. A server that restarted takes the lease as a new one.
            Ok(()) | Err(Trouble::Unanswered(_) | Trouble::Here(..)) => {}
            Err(refused @ Trouble::Refused(_)) => {
                let why = format!("this deploy does not hold the app any more: {}", refused.brief());
                let _ = lost.send(Some(why));
                return;
            }
        }
    }
}
