//! Names of endpoints, resolved in the background again and again.
//!
//! A name that does not resolve is an empty list with an error, never a failure of the process; a name that
//! stops resolving keeps its last good addresses, because a name server that is down says nothing of the apps.

mod source;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{info, warn};

use super::task::OwnedTask;
use crate::config::Address;
use source::Source;

/// The least and the most time between two lookups of a name, whatever its time to live.
const TTL: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// The first and the longest pause after a lookup that failed; it doubles in between.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// The least time from one lookup to one on demand.
const REFRESH_PAUSE: Duration = Duration::from_secs(1);

/// How often the hosts file and `resolv.conf` are looked at for changes.
const LOOK_AT_FILES: Duration = Duration::from_secs(5);

/// What a name resolves to now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolution {
    /// The name with its port, as it was asked for.
    pub place: Address,
    /// Sorted, IPv4 first, no address twice. Empty only when the name never resolved.
    pub addresses: Vec<SocketAddr>,
    /// Why there are none.
    pub error: Option<String>,
}

/// Keeps names resolved, each in a task of its own; all stop when it is dropped.
#[derive(Debug)]
pub struct Names {
    source: Arc<Source>,
    results: mpsc::Sender<Resolution>,
    followed: BTreeMap<(String, u16), Followed>,
}

#[derive(Debug)]
struct Followed {
    wake: Arc<Notify>,
    _task: OwnedTask,
}

impl Names {
    /// No names yet. Each name's first result, and each later change of its addresses, goes to `results`.
    #[must_use]
    pub fn new(results: mpsc::Sender<Resolution>) -> Self {
        Self::with_source(Source::system(), results)
    }

    fn with_source(source: Source, results: mpsc::Sender<Resolution>) -> Self {
        Self {
            source: Arc::new(source),
            results,
            followed: BTreeMap::new(),
        }
    }

    /// Follow these names (host, port) and no others from now on. Call it inside a tokio runtime.
    pub fn reconcile(&mut self, wanted: BTreeSet<(String, u16)>) {
        let mut before = std::mem::take(&mut self.followed);
        for name in wanted {
            let followed = before.remove(&name).unwrap_or_else(|| {
                let wake = Arc::new(Notify::new());
                let follow = Follow {
                    host: name.0.clone(),
                    port: name.1,
                    source: Arc::clone(&self.source),
                    results: self.results.clone(),
                    wake: Arc::clone(&wake),
                };
                Followed {
                    wake,
                    _task: OwnedTask::spawn(follow.run()),
                }
            });
            self.followed.insert(name, followed);
        }
    }

    /// Look this host up again soon, on all its ports: a connect to it failed. At most once a second each; more
    /// calls are one. A host that is not followed is ignored.
    pub fn refresh(&self, host: &str) {
        for ((followed, _), name) in &self.followed {
            if followed == host {
                name.wake.notify_one();
            }
        }
    }
}

/// Look a name up once, as [`Names`] would. Sorted, IPv4 first.
///
/// # Errors
/// In words: there is no such name, no server answered, or not within `within`.
pub async fn resolve_once(host: &str, port: u16, within: Duration) -> Result<Vec<SocketAddr>, String> {
    let source = Source::system();
    match timeout(within, source.lookup(host, &[])).await {
        Ok(answer) => Ok(with_port(&answer?.addresses, port)),
        Err(_) => Err(format!("no answer from the name servers within {within:?}")),
    }
}

/// The addresses of one lookup, and for how long they are good.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Answer {
    addresses: Vec<IpAddr>,
    good_for: Duration,
}

fn with_port(addresses: &[IpAddr], port: u16) -> Vec<SocketAddr> {
    let mut sorted: Vec<_> = addresses.iter().map(|ip| SocketAddr::new(*ip, port)).collect();
    // The order of `SocketAddr` has all of IPv4 before IPv6.
    sorted.sort_unstable();
    sorted.dedup();
    sorted
}

/// The task of one name.
struct Follow {
    host: String,
    port: u16,
    source: Arc<Source>,
    results: mpsc::Sender<Resolution>,
    wake: Arc<Notify>,
}

impl Follow {
    async fn run(self) {
        // What was told last: nothing, or these addresses.
        let mut told: Option<Vec<SocketAddr>> = None;
        let mut known: Vec<IpAddr> = Vec::new();
        let mut failures = 0_u32;
        loop {
            let epoch = self.source.epoch();
            let pause = match self.source.lookup(&self.host, &known).await {
                Ok(answer) => {
                    if failures > 0 {
                        info!(host = self.host, "the name resolves again");
                    }
                    failures = 0;
                    known = answer.addresses;
                    let addresses = with_port(&known, self.port);
                    if told.as_ref() != Some(&addresses) {
                        if !self.tell(addresses.clone(), None).await {
                            return;
                        }
                        told = Some(addresses);
                    }
                    answer.good_for.clamp(TTL.0, TTL.1)
                }
                Err(error) => {
                    if failures == 0 {
                        let kept = known.len();
                        warn!(host = self.host, error, kept, "the name does not resolve");
                    }
                    failures = failures.saturating_add(1);
                    if told.is_none() {
                        if !self.tell(Vec::new(), Some(error)).await {
                            return;
                        }
                        told = Some(Vec::new());
                    }
                    retry_pause(failures)
                }
            };
            self.rest(pause, epoch).await;
        }
    }

    /// False when nobody listens any more.
    async fn tell(&self, addresses: Vec<SocketAddr>, error: Option<String>) -> bool {
        let resolution = Resolution {
            place: Address::Name {
                host: self.host.clone(),
                port: self.port,
            },
            addresses,
            error,
        };
        self.results.send(resolution).await.is_ok()
    }

    /// Until the pause is over, a refresh is asked for, or the system's files changed.
    async fn rest(&self, pause: Duration, epoch: u64) {
        let began = Instant::now();
        let due = began + pause;
        loop {
            tokio::select! {
                () = sleep_until(due.min(Instant::now() + LOOK_AT_FILES)) => {
                    if Instant::now() >= due || self.source.epoch() != epoch {
                        return;
                    }
                }
                () = self.wake.notified() => {
                    return sleep_until(due.min(began + REFRESH_PAUSE)).await;
                }
            }
        }
    }
}

/// The pause after this many failures in a row.
fn retry_pause(failures: u32) -> Duration {
    let doubled = 2_u32.saturating_pow(failures.saturating_sub(1));
    RETRY.0.saturating_mul(doubled).min(RETRY.1)
}
