//! How near the process is to its limit of file descriptors, and for whom the last ones are kept.
//!
//! Clients stop being accepted first, then no connections to apps are opened for requests; the rest is for the admin
//! doors, probes and files. So a flood of clients leaves those that are served, and the operator, what they need.

use std::os::fd::{AsFd, AsRawFd};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use rustix::io::fcntl_dupfd_cloexec;
use rustix::process::{Resource, getrlimit};

/// The soft limit when it was last looked at.
static LIMIT: AtomicU64 = AtomicU64::new(u64::MAX);

/// The most that is kept for each of the two who come after clients; an eighth of a small limit.
const KEPT: u64 = 64;

/// Whom a descriptor is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// A client's connection.
    Client,
    /// A connection to an app, for requests.
    App,
}

/// Look at the limit: somebody may have changed it.
pub fn look() {
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    LIMIT.store(limit, Relaxed);
}

/// Whether a descriptor is one of those kept for others. The system gives out the lowest number that is free, so the
/// number of a new one says how many there are.
#[must_use]
pub fn is_kept(descriptor: &impl AsFd, from: Use) -> bool {
    let number = u64::try_from(descriptor.as_fd().as_raw_fd()).unwrap_or(0);
    number >= bound(LIMIT.load(Relaxed), from)
}

/// The same of the next descriptor that there would be.
#[must_use]
pub fn next_is_kept(any: &impl AsFd, from: Use) -> bool {
    match fcntl_dupfd_cloexec(any, 0) {
        Ok(next) => is_kept(&next, from),
        // There is none at all.
        Err(_) => true,
    }
}

fn bound(limit: u64, from: Use) -> u64 {
    let kept = (limit / 8).min(KEPT);
    match from {
        Use::Client => limit - 2 * kept,
        Use::App => limit - kept,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_stop_first_then_apps_and_the_rest_is_the_operators() {
        for (limit, clients, apps) in [
            (64, 48, 56),
            (128, 96, 112),
            (1024, 896, 960),
            (65_536, 65_408, 65_472),
        ] {
            assert_eq!(
                (bound(limit, Use::Client), bound(limit, Use::App)),
                (clients, apps)
            );
        }
    }
}
