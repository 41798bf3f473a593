//! Every metric: its name, kind, help and labels, in one place. What is not here is not exported.
//!
//! `docs/metrics.md` shows the same table (a test compares them). Names, labels and meanings are an interface:
//! alerts and dashboards of operators depend on them.

/// One metric family.
#[derive(Debug, PartialEq, Eq)]
pub struct Metric {
    /// The full name. A histogram's series add `_bucket`, `_sum` and `_count`.
    pub name: &'static str,
    /// Its type in the exposition.
    pub kind: Kind,
    /// What it says, in one sentence; also the `# HELP` line.
    pub help: &'static str,
    /// Its label names, in the order they are written.
    pub labels: &'static [&'static str],
}

/// A metric's type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Rises only, from the start of the process.
    Counter,
    /// A level.
    Gauge,
    /// Durations by upper bound, in seconds.
    Histogram,
}

impl Kind {
    /// The word on the `# TYPE` line.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

const POOL: &[&str] = &["app", "service", "color"];
const APP: &[&str] = &["app"];
const APP_COLOR: &[&str] = &["app", "color"];

const fn counter(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Metric {
    Metric {
        name,
        kind: Kind::Counter,
        help,
        labels,
    }
}

const fn gauge(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Metric {
    Metric {
        name,
        kind: Kind::Gauge,
        help,
        labels,
    }
}

const fn histogram(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Metric {
    Metric {
        name,
        kind: Kind::Histogram,
        help,
        labels,
    }
}

macro_rules! metrics {
    ($($constant:ident = $kind:ident($name:literal, $labels:expr, $help:literal);)*) => {
        $(#[doc = $help] pub const $constant: Metric = $kind($name, $labels, $help);)*

        /// Every metric of ours, in the order of the exposition. (`process_*` come from the exposition crate.)
        pub const ALL: &[&Metric] = &[$(&$constant),*];
    };
}

metrics! {
    REQUESTS = counter("cutover_requests_total", &["app", "service", "color", "method", "code"],
        "Requests answered. An unusual method is OTHER, a status outside 100 to 599 is other; app, service or color is empty where none was chosen.");
    REQUEST_DURATION = histogram("cutover_request_duration_seconds", POOL,
        "From a request's head to the end of the answer's body.");
    UPSTREAM_DURATION = histogram("cutover_upstream_duration_seconds", POOL,
        "From the request sent to the head of the upstream's answer.");
    IN_FLIGHT = gauge("cutover_requests_in_flight", POOL,
        "Requests that have begun and not ended.");
    STREAMS = gauge("cutover_streams_open", &["app", "color", "kind"],
        "Open streams, counted among the requests in flight too; kind is websocket, upgrade (any other protocol), sse or grpc (a call whose answer has begun).");
    RETRIES = counter("cutover_retries_total", POOL,
        "Times that a request went out once more: after a connect that failed, a connection that ended before the answer, or one that had died unused.");
    CONNECT_ERRORS = counter("cutover_upstream_connect_errors_total", POOL,
        "Connections to endpoints that could not be made.");
    SPILLED = counter("cutover_spilled_total", APP,
        "Requests that went to the active color because the candidate had nothing healthy.");
    RULE_ERRORS = counter("cutover_rule_errors_total", APP,
        "Conditions of rules that had no answer for a request (a value that is no text, failed arithmetic); it went on to the next rule.");
    SKEW_RESCUED = counter("cutover_skew_rescued_total", APP,
        "Requests answered by the other color because the first had only a 404 for an asset.");
    MIRRORED = counter("cutover_mirrored_total", &["app", "result"],
        "Copies of requests for the standby; result is same or different (the class of the status, against the active color's), failed (no answer) or dropped (too many under way).");
    MIRROR_SECONDS = counter("cutover_mirror_seconds_total", &["app", "side"],
        "Time to the head of the answers that were compared; side is active or standby.");
    GENERATION = gauge("cutover_generation", APP,
        "Counts committed changes of an app's routing state.");
    HELD = gauge("cutover_held_requests", APP,
        "Requests that wait because the app is held.");
    DEGRADED = gauge("cutover_app_degraded", APP,
        "1 while an app's stored state is damaged and its changes are refused.");
    QUEUED = gauge("cutover_queued_requests", POOL,
        "Requests that wait because every endpoint has balance.max_in_flight requests; absent where that is 0.");
    QUEUE_REFUSED = counter("cutover_queue_refused_total", &["app", "service", "color", "reason"],
        "Requests answered 503 because too many waited (reason full) or they had waited for balance.queue_timeout (reason timeout).");
    ENDPOINT_UP = gauge("cutover_endpoint_up", &["app", "service", "color", "endpoint"],
        "1 while the endpoint's probes pass.");
    ENDPOINT_EJECTED = gauge("cutover_endpoint_ejected", &["app", "service", "color", "endpoint"],
        "1 while the endpoint fails requests and is left alone for the others of its color.");
    ACTIVE = gauge("cutover_active", APP_COLOR,
        "1 for the active color, 0 for the standby.");
    WEIGHT = gauge("cutover_weight_ratio", &["app", "color", "kind"],
        "A color's share of the traffic: desired is what the state says, actual the share of the requests that ended since the previous scrape; actual is absent when there were none or the generation changed meanwhile.");
    GATE_STATE = gauge("cutover_gate_state", &["app", "gate"],
        "What a gate last said: 1 pass, 0 fail, -1 insufficient data; absent before it was asked. The guard is the gate called guard.");
    GUARD_ROLLBACKS = counter("cutover_guard_rollbacks_total", APP,
        "Switches and rollouts that the guard took back.");
    SWITCHES = counter("cutover_switches_total", &["app", "from", "to", "trigger", "result"],
        "Attempts to move an app from one color to the other; result is done, refused, rolled_back or failed.");
    SWITCH_DURATION = histogram("cutover_switch_duration_seconds", &[],
        "From the request of a switch to its reply, proof included, for switches that moved traffic.");
    DRAIN = histogram("cutover_drain_seconds", &[],
        "From the moment a color took nothing new to the end of its last request.");
    DRAIN_CANCELLED = counter("cutover_drain_cancelled_total", &[],
        "Requests cut because the drain time was over.");
    RELOAD_SUCCESSFUL = gauge("cutover_config_last_reload_successful", &[],
        "1 if the config file as last read is in use, 0 if it was refused.");
    RELOAD_SUCCESS_TIME = gauge("cutover_config_last_reload_success_timestamp_seconds", &[],
        "When a config file was last taken into use, in Unix time.");
    RELOADS = counter("cutover_config_reloads_total", &["result"],
        "Reloads of the config file; result is success or failure.");
    STATE_WRITE_ERRORS = counter("cutover_state_write_errors_total", &[],
        "Changes that could not be made durable.");
    FIRST_START = gauge("cutover_first_start_without_state", &[],
        "1 if the process started without any stored state and chose the colors itself.");
    DOCKER_UP = gauge("cutover_docker_up", &[],
        "1 if Docker answers and its events are followed, 0 if what was last known of its containers is used; absent without `docker:` endpoints.");
    CONNECTIONS = gauge("cutover_connections", &["listener"],
        "Open client connections.");
    CONNECTIONS_RESTING = gauge("cutover_connections_resting", &[],
        "Those of them that rest between two HTTP/1 requests, and hold no buffers.");
    TLS_HANDSHAKES = counter("cutover_tls_handshakes_total", &["version", "resumed"],
        "TLS handshakes with clients that were done; resumed is true where an earlier session went on.");
    TLS_FAILURES = counter("cutover_tls_handshake_failures_total", &["reason"],
        "TLS handshakes with clients that came to nothing; reason is refused (no common version, name or certificate, or no TLS at all), left (the client ended the connection) or timeout.");
    TLS_NOT_AFTER = gauge("cutover_tls_cert_not_after_timestamp_seconds", &["cert"],
        "When the certificate in use expires, in Unix time; cert is its file.");
    TLS_UP_TO_DATE = gauge("cutover_tls_cert_up_to_date", &["cert"],
        "1 if the certificate in use is what its files hold now, 0 if they were refused and the older one goes on.");
    PROXY_PROTOCOL_FAILURES = counter("cutover_proxy_protocol_failures_total", &["reason"],
        "Connections closed at their PROXY header; reason is untrusted (not from server.trusted_proxies), malformed, left (the peer ended the connection) or timeout.");
    ACCESS_DROPPED = counter("cutover_access_log_dropped_total", &[],
        "Lines of the access log that were lost because it could not be written fast enough, or at all.");
    BUILD_INFO = gauge("cutover_build_info", &["version"],
        "Always 1; the label says which version runs.");
}

/// What the exposition crate adds on Linux: name, type and meaning.
pub const PROCESS: &[Metric] = &[
    counter(
        "process_cpu_seconds_total",
        &[],
        "User and system CPU time, in whole seconds.",
    ),
    gauge("process_open_fds", &[], "Open file descriptors."),
    gauge("process_max_fds", &[], "The limit of open file descriptors."),
    gauge("process_virtual_memory_bytes", &[], "Virtual memory."),
    gauge("process_resident_memory_bytes", &[], "Resident memory."),
    gauge(
        "process_start_time_seconds",
        &[],
        "When the process started, in Unix time.",
    ),
    gauge("process_threads", &[], "Threads."),
];

#[cfg(test)]
pub(super) mod tests;
