//! The configuration as the program uses it: complete, validated, no `Option` that must be `Some`.
//!
//! Built from [`super::raw`] only; building it *is* the validation. Defaults are those of the reference
//! (`config/full.toml` shows every key).

mod deploy;
mod docker;
mod edge;
mod resilience;
mod rules;
mod traffic;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::policy::{Notify, Policy, Requirement, RevisionBy};
use crate::rollout::{ByColor, Color};
use crate::tls;
use crate::wire::preamble;

pub use deploy::{CommandLine, Deploy, OnFailure, SmokeProbe, Step, StepKind, Work};
pub use docker::Docker;
pub use edge::{Errors, IdFrom, Page, PageFor, PageKind, Problem, Respond, Trace};
pub use resilience::{Balance, BalancePolicy, Retry};
pub use rules::{Field, REQUEST_WORDS, Rule, RuleColor, Test};
pub use traffic::{AffinityKey, Aim, Hold, Mirror, Preview, SkewPath, Traffic, Warmup};

/// One whole configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// `[server]`
    pub server: Server,
    /// `[admin]`
    pub admin: Admin,
    /// `[[listener]]`, at least one.
    pub listeners: Vec<Listener>,
    /// `[limits]`; each app has its own copy with its overrides.
    pub limits: Limits,
    /// `[errors]`; each app has its own copy with its overrides.
    pub errors: Errors,
    /// `[log]`
    pub log: Log,
    /// `[docker]`
    pub docker: Docker,
    /// `[[notify]]`
    pub notify: Vec<Notify>,
    /// `[app.NAME]`, by name, at least one.
    pub apps: BTreeMap<String, App>,
}

/// `[server]`: the process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Data-plane threads; already resolved, never 0.
    pub workers: usize,
    /// Where journal, lock and default admin socket live.
    pub state_dir: PathBuf,
    /// Refuse to start when the state directory has no journal.
    pub require_state: bool,
    /// How long a shutdown waits for running requests.
    pub shutdown_grace: Duration,
    /// Networks whose `X-Forwarded-*`, `Forwarded` and PROXY protocol are believed.
    pub trusted_proxies: Vec<Network>,
    /// Whoever connects to a Unix socket is believed too (`"unix:"` in the list).
    pub trusts_unix: bool,
    /// A file that gets the active color after each change; `{app}` in it is the app's name. Never read.
    pub compat_file: Option<String>,
}

/// An address range in CIDR form; a bare address is a range of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    /// An address in the range.
    pub address: std::net::IpAddr,
    /// How many leading bits count.
    pub prefix: u8,
}

impl Network {
    /// Whether the range has this address. An IPv4-mapped IPv6 address counts as its IPv4 address.
    #[must_use]
    pub fn contains(&self, address: std::net::IpAddr) -> bool {
        use std::net::IpAddr::{V4, V6};
        match (self.address.to_canonical(), address.to_canonical()) {
            (V4(net), V4(is)) => {
                let mask = u32::MAX
                    .checked_shl(32 - u32::from(self.prefix.min(32)))
                    .unwrap_or(0);
                u32::from(net) & mask == u32::from(is) & mask
            }
            (V6(net), V6(is)) => {
                let mask = u128::MAX
                    .checked_shl(128 - u32::from(self.prefix.min(128)))
                    .unwrap_or(0);
                u128::from(net) & mask == u128::from(is) & mask
            }
            _ => false,
        }
    }
}

/// `[admin]`: the operator's doors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admin {
    /// The Unix socket; default `STATE_DIR/admin.sock`.
    pub socket: PathBuf,
    /// Permission bits of the socket; default 0600.
    pub mode: u32,
    /// Group that owns the socket.
    pub group: Option<String>,
    /// TCP address of API, metrics and probes.
    pub address: Option<SocketAddr>,
    /// `Host` values that are accepted over TCP besides the address itself and loopback names.
    pub hosts: Vec<String>,
    /// Tokens; with none, TCP is read-only. `token_file` is the one named `token` with role admin.
    pub tokens: Vec<Token>,
}

/// `[[admin.token]]`, or the one of `token_file`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// Recorded as "by".
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// The file that holds the secret; read at start and at each reload.
    pub file: PathBuf,
}

/// What a token may do; each role may do all that the one before may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Read.
    Viewer,
    /// Read, and change state.
    Operator,
    /// Everything, reload included.
    Admin,
}

/// `[[listener]]`: one bound socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Where it listens.
    pub address: ListenAddress,
    /// Each connection begins with a PROXY header.
    pub proxy_protocol: bool,
    /// `[listener.tls]`; `None` is clear text.
    pub tls: Option<Tls>,
    /// Every request is answered with this status and the same address under https.
    pub redirect_https: Option<u16>,
    /// What it answers itself.
    pub respond: Vec<Respond>,
    /// Every request through it is meant for this color.
    pub color: Option<Aim>,
}

/// `[listener.tls]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// Certificates and protocol.
    pub settings: tls::Settings,
    /// How long browsers shall use https alone (RFC 6797); `None` says nothing to them.
    pub hsts: Option<Duration>,
}

/// Where a listener listens.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ListenAddress {
    /// `127.0.0.1:8080`; port 0 lets the system choose.
    Tcp(SocketAddr),
    /// `unix:/run/cutover/web.sock`
    Unix(PathBuf),
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// `[limits]`: what a client may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a request head; more: 431.
    pub header_bytes: usize,
    /// Header fields of a request; more: 431.
    pub header_count: usize,
    /// Bytes of a request target; more: 414.
    pub uri_bytes: usize,
    /// Bytes of a request body, 0 = unlimited; more: 413.
    pub body_bytes: u64,
    /// Open client connections of the process; already resolved from the descriptor limit, never 0.
    /// (Process-wide: an app's own value is not possible, because a connection has no app yet.)
    pub connections: usize,
    /// Requests at once over one HTTP/2 connection; more are refused and may be sent again. Process-wide as well.
    pub h2_streams: u32,
    /// From accept to the first complete head, and from the first byte of a later head to its end.
    pub client_header_timeout: Duration,
    /// Between two requests of a connection.
    pub client_idle_timeout: Duration,
    /// Between two reads of a request body.
    pub client_body_timeout: Duration,
}

/// `[app.NAME]`: what is switched as one.
#[derive(Clone, Debug, PartialEq)]
pub struct App {
    /// Its name; a metric label.
    pub name: String,
    /// Host patterns; empty = any host.
    pub hosts: Vec<HostPattern>,
    /// Which color a first start activates.
    pub initial: Initial,
    /// `active = "green"` in the file: a reload in which it changed is a switch.
    pub active: Option<Color>,
    /// Its services, by name, at least one.
    pub services: BTreeMap<String, Service>,
    /// Its limits.
    pub limits: Limits,
    /// `[app.NAME.drain]`
    pub drain: Drain,
    /// `[app.NAME.headers]`; each service has its own copy with its overrides.
    pub headers: Headers,
    /// `[app.NAME.balance]`; each service has its own copy with its overrides.
    pub balance: Balance,
    /// `[app.NAME.retry]`; each service has its own copy with its overrides.
    pub retry: Retry,
    /// `[app.NAME.errors]`
    pub errors: Errors,
    /// Connections to its endpoints begin with a PROXY header of this version.
    pub send_proxy_protocol: Option<preamble::Version>,
    /// `[app.NAME.switch]`
    pub switch: Switch,
    /// `[app.NAME.deploy]`
    pub deploy: Deploy,
    /// What chooses between its colors.
    pub traffic: Traffic,
    /// Gates, guard and rollouts.
    pub policy: Policy,
}

/// A host that an app answers to, in lower case, without a port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HostPattern {
    /// `shop.example.com`
    Exact(String),
    /// `*.shop.example.com`, kept as `shop.example.com`: any name below, not itself.
    Below(String),
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => f.write_str(name),
            Self::Below(name) => write!(f, "*.{name}"),
        }
    }
}

/// `initial`: the color of a first start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Initial {
    /// This one.
    Color(Color),
    /// The first whose probes pass; both or neither: blue.
    Auto,
}

/// `[app.NAME.service.NAME]`: a part of an app.
#[derive(Clone, Debug, PartialEq)]
pub struct Service {
    /// Its name; a metric label. The shorthand's is `web`.
    pub name: String,
    /// Which requests are its.
    pub matches: PathMatch,
    /// Take the matched prefix off before the request is sent on.
    pub strip_prefix: bool,
    /// The endpoints of each color as the file says them; may be empty.
    pub endpoints: ByColor<Vec<EndpointAddress>>,
    /// `[…timeouts]`
    pub timeouts: Timeouts,
    /// `[…health]`
    pub health: Health,
    /// `[…headers]`
    pub headers: Headers,
    /// `[…tls]`: for its `https://` endpoints.
    pub tls: UpstreamTls,
    /// `[…balance]`
    pub balance: Balance,
    /// `[…retry]`
    pub retry: Retry,
}

/// `[…tls]` of an app or service: how TLS is spoken to `https://` endpoints.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UpstreamTls {
    /// Whom to believe, and what to show.
    pub trust: tls::Trust,
    /// The name that certificates must be for, and SNI; `None`: that of `headers.host`, where it is a fixed one, else
    /// the endpoint's own.
    pub server_name: Option<String>,
}

/// Which paths a service answers. An exact path wins over any prefix, a longer prefix over a shorter.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PathMatch {
    /// `path = "/exact"`
    Exact(String),
    /// `path_prefix = "/api"`: `/api`, `/api/` and below, never `/apix`. No trailing slash, except `/` itself.
    Prefix(String),
}

impl fmt::Display for PathMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(path) => write!(f, "={path}"),
            Self::Prefix(path) => f.write_str(path),
        }
    }
}

/// One endpoint as an operator writes it. `Display` gives back what was written; it is key and metric label.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndpointAddress {
    /// What is spoken there.
    pub protocol: Protocol,
    /// Where it is.
    pub place: Address,
}

impl EndpointAddress {
    /// HTTP/1.1 in clear text at this address.
    #[must_use]
    pub const fn plain(place: Address) -> Self {
        Self {
            protocol: Protocol::Http1,
            place,
        }
    }
}

impl EndpointAddress {
    /// Its name as the `Host` field says it: without the protocol's usual port (RFC 9110 §4.2.3), and `localhost`
    /// for a Unix socket.
    #[must_use]
    pub fn authority(&self) -> String {
        let usual = match self.protocol {
            Protocol::Http1 | Protocol::H2c => 80,
            Protocol::Https => 443,
        };
        match &self.place {
            Address::Unix(_) => "localhost".to_owned(),
            Address::Ip(address) if address.port() == usual => match address.ip() {
                std::net::IpAddr::V4(ip) => ip.to_string(),
                std::net::IpAddr::V6(ip) => format!("[{ip}]"),
            },
            Address::Name { host, port } if *port == usual => host.clone(),
            // A container is called by its service's name, as others in its network call it.
            Address::Docker { what, port } if *port == usual => service_of(what).to_owned(),
            Address::Docker { what, port } => format!("{}:{port}", service_of(what)),
            place => place.to_string(),
        }
    }

    /// Its name without a port, as a certificate has it. Empty for a Unix socket.
    #[must_use]
    pub fn name(&self) -> String {
        match &self.place {
            Address::Ip(address) => address.ip().to_string(),
            Address::Name { host, .. } => host.clone(),
            Address::Docker { what, .. } => service_of(what).to_owned(),
            Address::Unix(_) => String::new(),
        }
    }
}

/// A name for containers: their compose service, or the value of their label.
fn service_of(what: &str) -> &str {
    what.rsplit_once('=').map_or(what, |(_, value)| value)
}

impl fmt::Display for EndpointAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.protocol.prefix(), self.place)
    }
}

/// What an endpoint speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// HTTP/1.1 in clear text: no scheme is written.
    Http1,
    /// `h2c://`: HTTP/2 in clear text, by prior knowledge (RFC 9113 §3.3).
    H2c,
    /// `https://`: TLS, then what it agrees to by ALPN: HTTP/2 or HTTP/1.1.
    Https,
}

impl Protocol {
    /// What is written before the address.
    #[must_use]
    pub const fn prefix(self) -> &'static str {
        match self {
            Self::Http1 => "",
            Self::H2c => "h2c://",
            Self::Https => "https://",
        }
    }
}

/// Where an endpoint is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Address {
    /// `127.0.0.1:8001`, `[::1]:8001`
    Ip(SocketAddr),
    /// `web-blue:8000`: a name, resolved again by its time to live and on connect errors.
    Name {
        /// The name in lower case.
        host: String,
        /// The port.
        port: u16,
    },
    /// `docker:app-blue:8000`, `docker:LABEL=VALUE:8000`: the running containers of a compose service, or with a label.
    Docker {
        /// What is written between `docker:` and the port: a compose service, or `LABEL=VALUE`.
        what: String,
        /// The port inside the containers.
        port: u16,
    },
    /// `unix:/run/app.sock`
    Unix(PathBuf),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => address.fmt(f),
            Self::Name { host, port } => write!(f, "{host}:{port}"),
            Self::Docker { what, port } => write!(f, "docker:{what}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// What is wrong with an endpoint's text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not an endpoint: {why}")]
pub struct BadEndpoint {
    /// What was written.
    pub text: String,
    /// Why it cannot be used, and what can.
    pub why: String,
}

/// `[…timeouts]`: deadlines of the upstream side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// To a connection; then 504.
    pub connect: Duration,
    /// From the sent request to the answer's head; then 504.
    pub first_byte: Duration,
    /// Between two reads of the answer's body; then it is cut.
    pub idle: Duration,
    /// How long an unused connection is kept.
    pub upstream_idle: Duration,
}

/// `[…health]`: how both colors are probed, always.
#[derive(Clone, Debug)]
pub struct Health {
    /// What a probe is.
    pub kind: Probe,
    /// Between two probes of an endpoint.
    pub interval: Duration,
    /// For one probe, connect included.
    pub timeout: Duration,
    /// Passes in a row until a failing endpoint counts as healthy.
    pub rise: u32,
    /// Failures in a row until a healthy endpoint counts as failing.
    pub fall: u32,
    /// What the last endpoint of the active color does when it fails.
    pub last: WhenLast,
    /// `identity`: where the answer must name the announced revision, if one was announced.
    pub identity: Option<RevisionBy>,
    /// The announced revision. The file never has one: the control plane puts it in.
    pub revision: Option<String>,
}

impl PartialEq for Health {
    fn eq(&self, other: &Self) -> bool {
        (
            &self.kind,
            self.interval,
            self.timeout,
            self.rise,
            self.fall,
            self.last,
            &self.identity,
            &self.revision,
        ) == (
            &other.kind,
            other.interval,
            other.timeout,
            other.rise,
            other.fall,
            other.last,
            &other.identity,
            &other.revision,
        )
    }
}

/// What a probe does.
#[derive(Clone, Debug, PartialEq)]
pub enum Probe {
    /// Connect; an open port is healthy.
    Tcp,
    /// Ask for a path and look at the answer.
    Http(Box<HttpProbe>),
    /// Ask `grpc.health.v1.Health/Check`; `SERVING` is healthy.
    Grpc(Box<GrpcProbe>),
}

/// Whom a gRPC probe asks about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GrpcProbe {
    /// The service's full name; empty = the server as a whole.
    pub service: String,
    /// The authority of the request; empty = the endpoint's own.
    pub host: String,
}

/// What an HTTP probe asks for and expects. Redirects are never followed.
#[derive(Clone, Debug)]
pub struct HttpProbe {
    /// The path, with its query.
    pub path: String,
    /// The `Host` header; empty = the endpoint's own.
    pub host: String,
    /// Further headers.
    pub headers: Vec<(String, String)>,
    /// The statuses that pass, as inclusive ranges.
    pub status: Vec<(u16, u16)>,
    /// JSON pointers that must equal.
    pub json: Vec<(String, serde_json::Value)>,
    /// Must match the body, when there is one.
    pub body_regex: Option<regex::Regex>,
}

impl PartialEq for HttpProbe {
    fn eq(&self, other: &Self) -> bool {
        let regex = |probe: &Self| probe.body_regex.as_ref().map(|regex| regex.as_str().to_owned());
        (
            &self.path,
            &self.host,
            &self.headers,
            &self.status,
            &self.json,
            regex(self),
        ) == (
            &other.path,
            &other.host,
            &other.headers,
            &other.status,
            &other.json,
            regex(other),
        )
    }
}

/// `health.last`: the last endpoint of the active color fails its probes. (Refused connects never serve.)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenLast {
    /// It keeps the traffic, shown as failing: a broken health page is no reason to turn the site off.
    Serve,
    /// It leaves the pool; requests get 503.
    Refuse,
}

/// `[app.NAME.drain]`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drain {
    /// How long running requests of a draining color may go on; then they are cut and counted.
    pub http: Duration,
    /// What becomes of the streams of a draining color.
    pub streams: Streams,
}

/// `streams` of `[app.NAME.drain]`: WebSockets, other upgrades, and event streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Streams {
    /// How they end.
    pub policy: StreamPolicy,
    /// When a stream that could not be ended between two of its frames or events is cut. Not for
    /// [`StreamPolicy::Keep`].
    pub deadline: Duration,
    /// The time over which [`StreamPolicy::Spread`] ends them.
    pub spread: Duration,
}

/// How the streams of a color end that has no share of the traffic any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamPolicy {
    /// By themselves: the color stays draining until then.
    Keep,
    /// Each at a time of its own, so that clients do not all come back at once.
    Spread,
    /// At once.
    Close,
}

impl StreamPolicy {
    /// The word in the file.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Keep => "keep",
            Self::Spread => "spread",
            Self::Close => "close",
        }
    }
}

/// `[app.NAME.headers]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Headers {
    /// The `Host` that the app sees.
    pub host: HostHeader,
    /// The endpoint's name in `Location` and `Set-Cookie` becomes the client's.
    pub rewrite_location: bool,
    /// The header that names a request.
    pub request_id: Option<http::HeaderName>,
    /// Whose ids are passed on.
    pub request_id_from: IdFrom,
    /// The client is told the id too.
    pub expose_request_id: bool,
    /// W3C trace context.
    pub trace: Trace,
    /// The app is also told who asked by `Forwarded` (RFC 7239).
    pub forwarded: bool,
    /// Set on requests, by lower-case name.
    pub request_set: Vec<(String, String)>,
    /// Removed from requests.
    pub request_remove: Vec<String>,
    /// Set on answers.
    pub response_set: Vec<(String, String)>,
    /// Removed from answers.
    pub response_remove: Vec<String>,
    /// The answer header that names the color; empty = off.
    pub expose_color: String,
    /// Whether `expose_color` was written out: then it also names the revision (`green@abc`).
    pub expose_revision: bool,
}

impl Headers {
    /// The `Host` that every request gets; empty when it differs.
    #[must_use]
    pub fn fixed_host(&self) -> &str {
        match &self.host {
            HostHeader::Fixed(name) => name,
            HostHeader::Preserve | HostHeader::Upstream => "",
        }
    }
}

/// `headers.host`
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostHeader {
    /// What the client sent.
    Preserve,
    /// The endpoint's own.
    Upstream,
    /// Always this.
    Fixed(String),
}

/// `[app.NAME.switch]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Switch {
    /// What a switch needs, in the order in which it is asked.
    pub require: Vec<Requirement>,
    /// Requests through our own listener that prove a switch; 0 = off.
    pub verify: u32,
}

/// `[log]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// Form of the access log.
    pub access: AccessFormat,
    /// Where it goes; `-` = stdout.
    pub file: String,
    /// What is worth a line in the operations log (stderr).
    pub level: String,
}

/// `log.access`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessFormat {
    /// One JSON object a line.
    Json,
    /// The Apache/nginx combined form.
    Combined,
    /// None.
    Off,
}
