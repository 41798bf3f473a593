//! Containers as endpoints: `docker:SERVICE:PORT` follows the containers of a compose service over the Docker socket.
//!
//! Needs the feature `docker`; without it no configuration has such an endpoint. A Docker that does not answer is like a name
//! server that is down: it says nothing of the apps, so what was last known stays.

#[cfg(feature = "docker")]
mod follow;
#[cfg(feature = "docker")]
mod listed;

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::sync::{mpsc, watch};

use super::Resolution;
use super::task::OwnedTask;
use crate::config::{self, Address};
use crate::metrics::ControlMetrics;

/// Keeps the endpoints of containers up to date, in one task; it stops when this is dropped or nothing is followed.
#[derive(Debug)]
pub struct Containers {
    #[cfg_attr(
        not(feature = "docker"),
        expect(dead_code, reason = "nothing is followed in this build")
    )]
    results: mpsc::Sender<Resolution>,
    metrics: Arc<ControlMetrics>,
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    settings: config::Docker,
    wanted: watch::Sender<BTreeSet<Address>>,
    _task: OwnedTask,
}

impl Containers {
    /// Nothing is followed yet. Each endpoint's first addresses, and each later change, go to `results`.
    #[must_use]
    pub const fn new(results: mpsc::Sender<Resolution>, metrics: Arc<ControlMetrics>) -> Self {
        Self {
            results,
            metrics,
            running: None,
        }
    }

    /// Follow these endpoints and no others from now on, by these settings. Call it inside a tokio runtime.
    pub fn reconcile(&mut self, settings: &config::Docker, wanted: BTreeSet<Address>) {
        if wanted.is_empty() {
            if self.running.take().is_some() {
                self.metrics.docker(None);
            }
            return;
        }
        match &self.running {
            Some(running) if running.settings == *settings => {
                running.wanted.send_if_modified(|before| {
                    let changed = *before != wanted;
                    *before = wanted;
                    changed
                });
            }
            _ => self.running = self.start(settings, wanted),
        }
    }

    #[cfg(feature = "docker")]
    fn start(&self, settings: &config::Docker, wanted: BTreeSet<Address>) -> Option<Running> {
        let (sender, receiver) = watch::channel(wanted);
        let work = follow::Follow::new(
            settings.clone(),
            receiver,
            self.results.clone(),
            Arc::clone(&self.metrics),
        );
        Some(Running {
            settings: settings.clone(),
            wanted: sender,
            _task: OwnedTask::spawn(work.run()),
        })
    }

    /// No configuration gets here: without the feature such an endpoint is a mistake in the file.
    #[cfg(not(feature = "docker"))]
    #[expect(clippy::unused_self, reason = "the other build needs it")]
    fn start(&self, _: &config::Docker, _: BTreeSet<Address>) -> Option<Running> {
        None
    }
}
