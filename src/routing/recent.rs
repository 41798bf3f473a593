//! Paths that clients asked for lately, for a warm-up. Kept only where an app has one without paths of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use arc_swap::ArcSwapOption;
use http::header::{AUTHORIZATION, COOKIE};
use http::{HeaderMap, Method};

/// Paths that are kept.
const KEPT: usize = 64;

/// Of so many requests one is looked at.
const ONE_OF: u64 = 8;

/// Longer ones are passed over.
const PATH_MAX: usize = 512;

/// The last paths, in no order. Shared by all workers, written now and then.
#[derive(Debug)]
pub struct Recent {
    paths: [ArcSwapOption<String>; KEPT],
    next: AtomicUsize,
}

impl Default for Recent {
    fn default() -> Self {
        Self {
            paths: std::array::from_fn(|_| ArcSwapOption::empty()),
            next: AtomicUsize::new(0),
        }
    }
}

impl Recent {
    /// A request without a body comes by; `noise` is any number that is new each time. What only its sender may see is
    /// not remembered: a request with credentials or cookies.
    pub fn passes(&self, noise: u64, method: &Method, target: Option<&str>, headers: &HeaderMap) {
        let Some(target) = target else { return };
        let is_first = self.next.load(Relaxed) < KEPT;
        if !(is_first || noise.is_multiple_of(ONE_OF)) || method != Method::GET || target.len() > PATH_MAX {
            return;
        }
        if headers.contains_key(AUTHORIZATION) || headers.contains_key(COOKIE) {
            return;
        }
        let at = self.next.fetch_add(1, Relaxed) % KEPT;
        self.paths[at].store(Some(Arc::new(target.to_owned())));
    }

    /// Those that there are, each once.
    #[must_use]
    pub fn paths(&self) -> Vec<String> {
        let mut paths: Vec<String> = self
            .paths
            .iter()
            .filter_map(|one| one.load().as_ref().map(|path| (**path).clone()))
            .collect();
        paths.sort_unstable();
        paths.dedup();
        paths
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test panics to fail")]
mod tests {
    use super::*;

    #[test]
    fn what_is_safe_and_nobodys_own_is_kept_and_no_more_than_fits() {
        let recent = Recent::default();
        let none = HeaderMap::new();
        let mut own = HeaderMap::new();
        own.insert(COOKIE, "session=1".parse().unwrap());
        recent.passes(0, &Method::POST, Some("/order"), &none);
        recent.passes(0, &Method::GET, Some("/account"), &own);
        recent.passes(
            0,
            &Method::GET,
            Some(&format!("/{}", "x".repeat(PATH_MAX))),
            &none,
        );
        recent.passes(0, &Method::GET, None, &none);
        assert!(recent.paths().is_empty());
        recent.passes(1, &Method::GET, Some("/a?b"), &none);
        recent.passes(1, &Method::GET, Some("/a?b"), &none);
        assert_eq!(recent.paths(), ["/a?b"]);
        for number in 0..1000_u64 {
            recent.passes(number, &Method::GET, Some(&format!("/{number}")), &none);
        }
        assert_eq!(recent.paths().len(), KEPT);
    }
}
