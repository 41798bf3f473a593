//! Tables that stand at two levels: what one level says, laid over the other key by key.

use std::time::Duration;

use super::Build;
use crate::config::model::{Limits, Timeouts};
use crate::config::raw::{self, At, SizeText};
use crate::config::values;

const MILLISECOND: Duration = Duration::from_millis(1);

/// Descriptors that are not for clients: files, probes, admin connections.
const RESERVED_DESCRIPTORS: u64 = 256;

/// Clients that are served whatever the limit is.
const FEWEST: usize = 16;

/// What one `limits` table says.
#[derive(Clone, Copy, Default)]
pub(super) struct LimitsPart {
    header_bytes: Option<u64>,
    header_count: Option<usize>,
    uri_bytes: Option<u64>,
    body_bytes: Option<u64>,
    connections: Option<usize>,
    h2_streams: Option<u32>,
    client_header_timeout: Option<Duration>,
    client_idle_timeout: Option<Duration>,
    client_body_timeout: Option<Duration>,
}

impl LimitsPart {
    pub(super) fn read(raw: &raw::Limits, build: &mut Build<'_, '_, '_>) -> Self {
        let count = |at: &Option<At<i64>>| at.as_ref().and_then(|at| usize::try_from(*at.get()).ok());
        Self {
            header_bytes: build.size("header_bytes", raw.header_bytes.as_ref(), 256, 16 << 20),
            header_count: count(&raw.header_count),
            // The http crate's own bound of a request target.
            uri_bytes: build.size("uri_bytes", raw.uri_bytes.as_ref(), 16, 65_534),
            body_bytes: build.size("body_bytes", raw.body_bytes.as_ref(), 0, u64::MAX),
            connections: count(&raw.connections),
            h2_streams: count(&raw.h2_streams).and_then(|count| u32::try_from(count).ok()),
            client_header_timeout: build.duration(
                "client_header_timeout",
                raw.client_header_timeout.as_ref(),
                MILLISECOND,
            ),
            client_idle_timeout: build.duration(
                "client_idle_timeout",
                raw.client_idle_timeout.as_ref(),
                MILLISECOND,
            ),
            client_body_timeout: build.duration(
                "client_body_timeout",
                raw.client_body_timeout.as_ref(),
                MILLISECOND,
            ),
        }
    }

    /// This level's values where it has them, else the other's.
    pub(super) fn over(self, other: Self) -> Self {
        Self {
            header_bytes: self.header_bytes.or(other.header_bytes),
            header_count: self.header_count.or(other.header_count),
            uri_bytes: self.uri_bytes.or(other.uri_bytes),
            body_bytes: self.body_bytes.or(other.body_bytes),
            connections: self.connections.or(other.connections),
            h2_streams: self.h2_streams.or(other.h2_streams),
            client_header_timeout: self.client_header_timeout.or(other.client_header_timeout),
            client_idle_timeout: self.client_idle_timeout.or(other.client_idle_timeout),
            client_body_timeout: self.client_body_timeout.or(other.client_body_timeout),
        }
    }

    pub(super) fn over_defaults(self) -> Limits {
        let bytes = |own: Option<u64>, default: usize| {
            own.and_then(|bytes| usize::try_from(bytes).ok())
                .unwrap_or(default)
        };
        Limits {
            header_bytes: bytes(self.header_bytes, 64 << 10),
            header_count: self.header_count.unwrap_or(100),
            uri_bytes: bytes(self.uri_bytes, 16 << 10),
            body_bytes: self.body_bytes.unwrap_or(0),
            connections: self
                .connections
                .filter(|count| *count > 0)
                .unwrap_or_else(connections_by_descriptors),
            h2_streams: self.h2_streams.unwrap_or(256),
            client_header_timeout: self.client_header_timeout.unwrap_or(Duration::from_secs(10)),
            client_idle_timeout: self.client_idle_timeout.unwrap_or(Duration::from_secs(75)),
            client_body_timeout: self.client_body_timeout.unwrap_or(Duration::from_secs(30)),
        }
    }
}

/// A client takes two descriptors: its own and the one to its endpoint.
fn connections_by_descriptors() -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile)
        .current
        .unwrap_or(1 << 20);
    let reserved = RESERVED_DESCRIPTORS.min(limit / 2);
    usize::try_from((limit - reserved) / 2)
        .unwrap_or(usize::MAX)
        .max(FEWEST)
}

/// What one `timeouts` table says.
#[derive(Clone, Copy, Default)]
pub(super) struct TimeoutsPart {
    connect: Option<Duration>,
    first_byte: Option<Duration>,
    idle: Option<Duration>,
    upstream_idle: Option<Duration>,
}

impl TimeoutsPart {
    pub(super) fn read(raw: &raw::Timeouts, build: &mut Build<'_, '_, '_>) -> Self {
        Self {
            connect: build.duration("connect", raw.connect.as_ref(), MILLISECOND),
            first_byte: build.duration("first_byte", raw.first_byte.as_ref(), MILLISECOND),
            idle: build.duration("idle", raw.idle.as_ref(), MILLISECOND),
            upstream_idle: build.duration("upstream_idle", raw.upstream_idle.as_ref(), Duration::ZERO),
        }
    }

    /// This level's values where it has them, else the other's.
    pub(super) fn over(self, other: Self) -> Self {
        Self {
            connect: self.connect.or(other.connect),
            first_byte: self.first_byte.or(other.first_byte),
            idle: self.idle.or(other.idle),
            upstream_idle: self.upstream_idle.or(other.upstream_idle),
        }
    }

    pub(super) fn over_defaults(self) -> Timeouts {
        Timeouts {
            connect: self.connect.unwrap_or(Duration::from_secs(5)),
            first_byte: self.first_byte.unwrap_or(Duration::from_secs(60)),
            idle: self.idle.unwrap_or(Duration::from_secs(60)),
            upstream_idle: self.upstream_idle.unwrap_or(Duration::from_secs(4)),
        }
    }
}

impl Build<'_, '_, '_> {
    /// A size within bounds.
    pub(super) fn size(
        &mut self,
        key: &str,
        at: Option<&At<SizeText>>,
        least: u64,
        most: u64,
    ) -> Option<u64> {
        let at = at?;
        let bytes = match at.get() {
            SizeText::Bytes(bytes) => u64::try_from(*bytes).unwrap_or(0),
            SizeText::Text(text) => self.value(key, &at.span(), values::size(text))?,
        };
        if (least..=most).contains(&bytes) {
            return Some(bytes);
        }
        let message = format!("`{key}` must be {least} to {most} bytes, not {bytes}");
        self.findings.error(&at.span(), "out_of_range", message, None);
        None
    }
}
