//! Why the process is not ready, if it is not.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// The reasons against being ready. Ready is when there are none.
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<Mutex<Reasons>>);

#[derive(Debug, Default)]
struct Reasons {
    next: u64,
    by_blocker: BTreeMap<u64, String>,
}

impl Readiness {
    /// Not ready, for this reason, until the blocker is dropped.
    #[must_use = "the reason ends when the blocker is dropped"]
    pub fn block(&self, why: impl Into<String>) -> Blocker {
        let id = self.with(|reasons| {
            let id = reasons.next;
            reasons.next += 1;
            reasons.by_blocker.insert(id, why.into());
            id
        });
        Blocker {
            id,
            readiness: self.clone(),
        }
    }

    /// The reasons, oldest first.
    #[must_use]
    pub fn reasons(&self) -> Vec<String> {
        self.with(|reasons| reasons.by_blocker.values().cloned().collect())
    }

    /// Whether nothing blocks.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.with(|reasons| reasons.by_blocker.is_empty())
    }

    fn with<R>(&self, f: impl FnOnce(&mut Reasons) -> R) -> R {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// One reason against being ready; dropping it takes the reason away.
#[derive(Debug)]
pub struct Blocker {
    id: u64,
    readiness: Readiness,
}

impl Drop for Blocker {
    fn drop(&mut self) {
        self.readiness.with(|reasons| reasons.by_blocker.remove(&self.id));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_when_the_last_blocker_is_dropped() {
        let readiness = Readiness::default();
        assert!(readiness.is_ready());
        let listeners = readiness.block("the listeners are not bound");
        let first_probes = readiness.block(String::from("web/blue was never probed"));
        assert_eq!(
            readiness.reasons(),
            ["the listeners are not bound", "web/blue was never probed"]
        );
        drop(listeners);
        assert_eq!(readiness.reasons(), ["web/blue was never probed"]);
        assert!(!readiness.is_ready());
        drop(first_probes);
        assert!(readiness.is_ready());
        assert!(readiness.reasons().is_empty());
    }

    #[test]
    fn the_same_reason_twice_is_two_reasons() {
        let readiness = Readiness::default();
        let one = readiness.block("stopping");
        let other = readiness.clone().block("stopping");
        drop(one);
        assert_eq!(readiness.reasons(), ["stopping"]);
        drop(other);
        assert!(readiness.is_ready());
    }
}
