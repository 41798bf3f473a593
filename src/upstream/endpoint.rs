//! One address of an app, with what is known of it. Shared by all workers and carried over from table to table.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use http::HeaderValue;
use jiff::Timestamp;
use rustls_pki_types::ServerName;
use tokio::sync::Notify;

use super::Breaker;
use super::health::Judged;
use super::queue::Slots;
use crate::config::EndpointAddress;
use crate::rollout::Color;
use crate::tls::{Originator, Trust};
use crate::wire::preamble::Version;

/// What makes an endpoint the same endpoint: a change of any part is a new one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndpointKey {
    /// Its app.
    pub app: String,
    /// Its service.
    pub service: String,
    /// Its color.
    pub color: Color,
    /// As the operator wrote it: the metric label and the row in `status`.
    pub address: EndpointAddress,
    /// What it resolved to; a name with several addresses is several endpoints.
    pub target: Target,
    /// How TLS is spoken there; `None` is clear text.
    pub tls: Option<Handshake>,
    /// Each connection begins with a PROXY header of this version.
    pub preamble: Option<Version>,
}

/// What a TLS handshake with an endpoint depends on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Handshake {
    /// The name that its certificate must be for; a DNS name is also sent as SNI (RFC 6066 §3).
    pub name: String,
    /// Whom to believe, and what to show.
    pub trust: Trust,
}

/// An endpoint's TLS, ready for use.
#[derive(Debug)]
pub(super) struct Secure {
    pub(super) origin: Arc<Originator>,
    /// Or why no certificate can be for this name.
    pub(super) name: Result<ServerName<'static>, String>,
}

/// Where to connect.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Target {
    /// An IP address and port.
    Tcp(SocketAddr),
    /// A Unix socket.
    Unix(PathBuf),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// What the probes say. Nothing else is health: draining and weight are other facts with other types.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// Never probed. Takes traffic if its color is active; never passes a gate.
    Unknown,
    /// Its probes pass.
    Healthy,
    /// It accepts connections, but its probes do not pass.
    Failing,
    /// It does not accept connections.
    Unreachable,
}

impl Health {
    /// The word in `status`, API and events.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Healthy => "healthy",
            Self::Failing => "failing",
            Self::Unreachable => "unreachable",
        }
    }

    const fn from_u8(value: u8) -> Self {
        match value {
            1 => Self::Healthy,
            2 => Self::Failing,
            3 => Self::Unreachable,
            _ => Self::Unknown,
        }
    }
}

/// What one probe found, for people to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeReport {
    /// What was asked: `GET http://10.0.0.9:8080/healthz`, `connect 10.0.0.9:8080`.
    pub asked: String,
    /// The answer's status, if there was one.
    pub status: Option<u16>,
    /// How long it took.
    pub latency: Duration,
    /// What it says of the endpoint, before rise and fall.
    pub verdict: Health,
    /// Why, in words: `503, body: {"db":"down"}`, `connection refused`. Bounded, one line.
    pub reason: String,
    /// Whether the answer named the announced revision; `None`: it was not asked to, or there is none.
    pub named: Option<bool>,
    /// When it began.
    pub at: Timestamp,
}

/// An endpoint: one address, its health, and what was counted of it.
#[derive(Debug)]
pub struct Endpoint {
    /// Unique in the process, never reused: the key of the workers' connection maps.
    pub id: u64,
    /// What it is.
    pub key: EndpointKey,
    /// Its target as text, for the access log.
    pub label: String,
    /// Its own name as the `Host` field says it.
    pub authority: HeaderValue,
    pub(super) secure: Option<Secure>,
    health: AtomicU8,
    last_probe: ArcSwapOption<ProbeReport>,
    /// Rise and fall; locked by the control plane only, once a probe.
    pub(super) judged: Mutex<Judged>,
    /// What requests say of it.
    pub breaker: Breaker,
    /// How many requests it has, where that is bounded.
    pub slots: Slots,
    /// Connects that failed in a row, over all workers.
    pub connect_failures: AtomicU32,
    /// Told of each connect that fails, and when the breaker opens or closes: whoever watches need not look.
    pub alarm: OnceLock<Arc<Notify>>,
    /// Connects that failed, since start. Counted on the error path only, so one shared cell will do.
    pub connect_errors: AtomicU64,
}

impl Endpoint {
    /// A new endpoint in clear text, never probed.
    #[must_use]
    pub fn new(key: EndpointKey) -> Arc<Self> {
        Self::over(key, None)
    }

    /// A new endpoint, never probed; the handshake of its key is made by `origin`.
    #[must_use]
    pub fn over(key: EndpointKey, origin: Option<Arc<Originator>>) -> Arc<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let secure = key.tls.as_ref().zip(origin).map(|(tls, origin)| Secure {
            origin,
            name: ServerName::try_from(tls.name.clone())
                .map_err(|_| format!("`{}` is no name that a certificate can be for", tls.name)),
        });
        let authority = HeaderValue::try_from(key.address.authority());
        Arc::new(Self {
            id: NEXT.fetch_add(1, Relaxed),
            label: key.target.to_string(),
            // Host names are checked when they are read.
            authority: authority.unwrap_or(HeaderValue::from_static("localhost")),
            secure,
            key,
            health: AtomicU8::new(0),
            last_probe: ArcSwapOption::empty(),
            judged: Mutex::default(),
            breaker: Breaker::default(),
            slots: Slots::default(),
            connect_failures: AtomicU32::new(0),
            connect_errors: AtomicU64::new(0),
            alarm: OnceLock::new(),
        })
    }

    /// What the probes say.
    pub fn health(&self) -> Health {
        Health::from_u8(self.health.load(Relaxed))
    }

    /// Set by the prober after rise and fall; true when this changed it.
    pub fn set_health(&self, health: Health) -> bool {
        self.health.swap(health as u8, Relaxed) != health as u8
    }

    /// The last probe's report.
    pub fn last_probe(&self) -> Option<Arc<ProbeReport>> {
        self.last_probe.load_full()
    }

    /// Remember a probe's report.
    pub fn record_probe(&self, report: ProbeReport) {
        self.last_probe.store(Some(Arc::new(report)));
    }

    /// A connect succeeded.
    pub fn connected(&self) {
        // Read first: on the usual path nothing shared is written.
        if self.connect_failures.load(Relaxed) != 0 {
            self.connect_failures.store(0, Relaxed);
        }
    }

    /// A connect failed.
    pub fn connect_failed(&self) {
        self.connect_failures.fetch_add(1, Relaxed);
        self.connect_errors.fetch_add(1, Relaxed);
        self.ring();
    }

    /// Tell whoever watches that there is something to look at.
    pub fn ring(&self) {
        if let Some(alarm) = self.alarm.get() {
            alarm.notify_one();
        }
    }
}
