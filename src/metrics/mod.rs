//! What is counted, and how: cells that one worker writes and a scrape sums; the text of a scrape; the logs.

pub mod access;
pub mod cells;
pub mod control;
pub mod exposition;
pub mod gauges;
pub mod histogram;
pub mod names;
pub mod ops;
mod text;
pub mod windows;

pub use access::{AccessLog, Record, WorkerLog};
pub use cells::{
    Cell, Gauge, PoolCells, PoolMetrics, PreambleCells, Registry, StreamKind, TlsCells, WorkerCells,
};
pub use control::{ControlMetrics, SwitchResult};
pub use exposition::Exposition;
pub use gauges::{AppGauges, EndpointGauge, Mirrored, QueueGauge};
pub use histogram::{BOUNDS, Histogram, Snapshot};
pub use windows::{Sample, WINDOW_MAX, Windows};
