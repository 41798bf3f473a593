//! Holding the app while a deployment runs.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::Trouble;
use super::server::Server;
use super::steps::is;
use crate::admin::{Code, Exit};

/// A lease that is renewed until it is given back. Dropped without that (the process died), it runs out by itself.
#[derive(Debug)]
pub(super) struct Held {
    server: Server,
    what: Arc<Mutex<String>>,
    time: Duration,
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
            time,
            lost,
            renewing,
        })
    }

    /// What others see from the next renewal on.
    pub(super) fn say(&self, what: String) {
        *self.what.lock().unwrap_or_else(PoisonError::into_inner) = what;
    }

    /// Renew it now, between two steps: nothing more is begun without it. A server that does not answer says nothing
    /// against it.
    ///
    /// # Errors
    /// The lease was broken, or ran out and somebody else has it.
    pub(super) async fn still(&self) -> Result<(), Trouble> {
        let known = self.lost.borrow().clone();
        let why = match known {
            Some(why) => Some(why),
            None => {
                let what = self.what.lock().unwrap_or_else(PoisonError::into_inner).clone();
                lost(&self.server.take_lease(&what, self.time).await)
            }
        };
        why.map_or(Ok(()), |why| Err(Trouble::Here(Exit::Conflict, why)))
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
    tell: watch::Sender<Option<String>>,
) {
    loop {
        tokio::time::sleep(time / 3).await;
        let now = what.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(why) = lost(&server.take_lease(&now, time).await) {
            let _ = tell.send(Some(why));
            return;
        }
    }
}

/// Why the lease is gone. No answer, or a server that stops: the next try may have a better one; a server that restarted
/// takes the lease as a new one.
fn lost(renewed: &Result<(), Trouble>) -> Option<String> {
    let Err(refused @ Trouble::Refused(_)) = renewed else {
        return None;
    };
    let gone = format!("this deploy does not hold the app any more: {}", refused.brief());
    (!is(refused, Code::Stopping)).then_some(gone)
}
