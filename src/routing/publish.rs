//! The one pointer, and the push that wakes idle workers.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::{ArcSwap, Guard};
use tokio::sync::Notify;

use super::RoutingTable;

/// The published table. Cloned into every worker; only the controller publishes.
#[derive(Clone, Debug)]
pub struct Published {
    table: Arc<ArcSwap<RoutingTable>>,
    signals: Arc<[WorkerSignal]>,
}

/// Idle workers never load, so each publish also wakes a worker's housekeeping, which reports back.
#[derive(Debug, Default)]
pub struct WorkerSignal {
    wake: Notify,
    applied: AtomicU64,
    cuts: Mutex<Vec<u64>>,
}

impl Published {
    /// A first table for this many workers.
    #[must_use]
    pub fn new(table: RoutingTable, workers: usize) -> Self {
        Self {
            table: Arc::new(ArcSwap::from_pointee(table)),
            signals: (0..workers).map(|_| WorkerSignal::default()).collect(),
        }
    }

    /// The table of this moment. Never keep the guard across an `.await`.
    #[must_use]
    pub fn load(&self) -> Guard<Arc<RoutingTable>> {
        self.table.load()
    }

    /// The table of this moment, to keep. For the control plane.
    #[must_use]
    pub fn load_full(&self) -> Arc<RoutingTable> {
        self.table.load_full()
    }

    /// Publish a table; returns the one before it, for the controller to drop when nobody holds it.
    ///
    /// When this returns, every `load` that begins later sees the new table or one after it.
    pub fn publish(&self, table: RoutingTable) -> Arc<RoutingTable> {
        let before = self.table.swap(Arc::new(table));
        for signal in &*self.signals {
            signal.wake.notify_one();
        }
        before
    }

    /// Wait for the next publish. For a worker's housekeeping.
    pub async fn published(&self, worker: usize) {
        match self.signals.get(worker) {
            Some(signal) => signal.wake.notified().await,
            None => std::future::pending().await,
        }
    }

    /// The time of these gates' requests is over: every worker ends their connections.
    pub fn cut(&self, gates: &[u64]) {
        for signal in &*self.signals {
            signal
                .cuts
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .extend_from_slice(gates);
            signal.wake.notify_one();
        }
    }

    /// The gates to cut on this worker since it last asked.
    #[must_use]
    pub fn cuts(&self, worker: usize) -> Vec<u64> {
        let signal = self.signals.get(worker);
        signal
            .map(|signal| std::mem::take(&mut *signal.cuts.lock().unwrap_or_else(PoisonError::into_inner)))
            .unwrap_or_default()
    }

    /// A worker has reconciled its connections with this version.
    pub fn applied(&self, worker: usize, version: u64) {
        if let Some(signal) = self.signals.get(worker) {
            signal.applied.store(version, Ordering::Release);
        }
    }

    /// The newest version that every worker has applied.
    #[must_use]
    pub fn applied_by_all(&self) -> u64 {
        self.signals
            .iter()
            .map(|signal| signal.applied.load(Ordering::Acquire))
            .min()
            .unwrap_or(0)
    }
}
