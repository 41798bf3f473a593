//! What is counted, and how: cells that one worker writes and a scrape sums.

pub mod cells;
pub mod histogram;

pub use cells::{Cell, Gauge, PoolCells, PoolMetrics, Registry, WorkerCells};
pub use histogram::{BOUNDS, Histogram, Snapshot};
