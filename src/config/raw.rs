//! The file as it is written: one struct a table, every value with its place, nothing checked beyond its type.
//!
//! The JSON Schema made from these structs is also what `shape` checks keys, types, names and ranges with, so a
//! key exists exactly when it is here. A key that nothing reads yet does not belong here.

pub(super) mod deploy;
mod docker;
mod edge;
pub(super) mod policy;
mod resilience;
mod traffic;

use std::collections::BTreeMap;
use std::ops::Range;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer};
use toml::Spanned;

pub(super) use docker::Docker;
pub(super) use edge::{Errors, IdFrom, Problem, ProxyVersion, Respond, Trace};
pub(super) use resilience::{Balance, Policy, Retry};
pub(super) use traffic::{Affinity, Aim, Failover, Hold, Mirror, Preview, Rule, RuleColor, Skew, Warmup};

/// A value and where it is written.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct At<T>(Spanned<T>);

impl<T> At<T> {
    /// A value that no file holds.
    pub(super) fn nowhere(value: T) -> Self {
        Self(Spanned::new(0..0, value))
    }

    /// A value with a place.
    pub(super) fn new(span: Range<usize>, value: T) -> Self {
        Self(Spanned::new(span, value))
    }

    pub(super) fn get(&self) -> &T {
        self.0.get_ref()
    }

    pub(super) fn span(&self) -> Range<usize> {
        self.0.span()
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for At<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Spanned::deserialize(deserializer).map(Self)
    }
}

impl<T: JsonSchema> JsonSchema for At<T> {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        T::schema_name()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        T::json_schema(generator)
    }
}

/// `"250ms"`
#[derive(Clone, Debug, Deserialize)]
#[serde(transparent)]
pub(super) struct DurationText(pub(super) String);

impl JsonSchema for DurationText {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Duration".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": r"^(0|([0-9]+(ms|s|m|h|d))+)$|\$\{" })
    }
}

/// `"64KiB"`, or bytes
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum SizeText {
    Bytes(i64),
    Text(String),
}

impl JsonSchema for SizeText {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Size".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": ["string", "integer"],
            "minimum": 0,
            "pattern": r"^[0-9]+(B|KiB|MiB|GiB|KB|MB|GB)?$|\$\{"
        })
    }
}

/// `"0660"`, or `0o660`
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum ModeText {
    Bits(i64),
    Text(String),
}

impl JsonSchema for ModeText {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Mode".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": ["string", "integer"], "minimum": 0, "maximum": 0o777 })
    }
}

/// The configuration of cutover.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    /// The process.
    #[serde(default)]
    pub(super) server: Server,
    /// The operator's doors.
    #[serde(default)]
    pub(super) admin: Admin,
    /// Where clients connect.
    #[schemars(required, extend("minItems" = 1))]
    pub(super) listener: Option<Vec<Listener>>,
    /// What a client may cost.
    #[serde(default)]
    pub(super) limits: Limits,
    /// The proxy's own answers.
    #[serde(default)]
    pub(super) errors: Errors,
    /// What is switched as one, by name.
    #[schemars(required, extend("minProperties" = 1))]
    pub(super) app: Option<BTreeMap<At<String>, App>>,
    /// Access log and operations log.
    #[serde(default)]
    pub(super) log: Log,
    /// Where the containers of `docker:` endpoints are asked for.
    #[serde(default)]
    pub(super) docker: Docker,
    /// Who is told of switches, rollbacks and what the guard does.
    pub(super) notify: Option<Vec<policy::Notify>>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Server {
    /// Data-plane threads; 0 = one per core.
    #[schemars(range(min = 0, max = 1024), extend("default" = 0))]
    pub(super) workers: Option<At<i64>>,
    /// Journal, lock and admin socket; default: $STATE_DIRECTORY, else $XDG_STATE_HOME/cutover, else ./.cutover.
    pub(super) state_dir: Option<At<String>>,
    /// How long a shutdown waits for running requests.
    #[schemars(extend("default" = "30s"))]
    pub(super) shutdown_grace: Option<At<DurationText>>,
    /// Networks whose X-Forwarded-*, Forwarded and PROXY protocol are believed; "unix:" = Unix sockets.
    #[schemars(extend("default" = []))]
    pub(super) trusted_proxies: Option<Vec<At<String>>>,
    /// The active color is written here after each change, never read; {app} is the app's name.
    pub(super) compat_file: Option<At<String>>,
    /// Refuse to start when the state directory has no journal.
    #[schemars(extend("default" = false))]
    pub(super) require_state: Option<bool>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Admin {
    /// Unix socket of the API; default: STATE_DIR/admin.sock.
    pub(super) socket: Option<At<String>>,
    /// Optional TCP address of API, metrics and probes.
    pub(super) address: Option<At<String>>,
    /// File with the token that TCP changes need; without one TCP is read-only.
    pub(super) token_file: Option<At<String>>,
    /// Permission bits of the socket.
    #[schemars(extend("default" = "0600"))]
    pub(super) mode: Option<At<ModeText>>,
    /// Group that owns the socket.
    pub(super) group: Option<At<String>>,
    /// Further Host values that are accepted over TCP.
    #[schemars(extend("default" = []))]
    pub(super) hosts: Option<Vec<At<String>>>,
    /// Tokens with names and roles.
    pub(super) token: Option<Vec<Token>>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Token {
    /// Recorded as "by".
    #[schemars(required)]
    pub(super) name: Option<At<String>>,
    /// What it may do.
    #[schemars(required)]
    pub(super) role: Option<At<Role>>,
    /// File that holds the secret.
    #[schemars(required)]
    pub(super) file: Option<At<String>>,
}

#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Role {
    Viewer,
    Operator,
    Admin,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Listener {
    /// ADDRESS:PORT, or unix:PATH.
    #[schemars(required)]
    pub(super) address: Option<At<String>>,
    /// Each connection begins with a PROXY header (v1 or v2), from `server.trusted_proxies` only.
    #[schemars(extend("default" = false))]
    pub(super) proxy_protocol: Option<At<bool>>,
    /// With this table the listener speaks TLS.
    pub(super) tls: Option<Tls>,
    /// Answer every request with this status and the same address under https.
    #[schemars(extend("enum" = [301, 302, 307, 308]))]
    pub(super) redirect_https: Option<At<i64>>,
    /// Paths that the listener answers itself; never logged.
    pub(super) respond: Option<Vec<Respond>>,
    /// Every request through this listener goes to this color on purpose.
    pub(super) color: Option<At<Aim>>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Tls {
    /// Chosen by server name; the first is the default. Reloaded when the files change.
    #[schemars(required, extend("minItems" = 1))]
    pub(super) certificates: Option<Vec<Certificate>>,
    /// The oldest version that is spoken.
    #[schemars(extend("default" = "1.2"))]
    pub(super) min_version: Option<At<TlsVersion>>,
    /// Protocols offered to clients, the best first.
    #[schemars(extend("minItems" = 1, "default" = ["h2", "http/1.1"]))]
    pub(super) alpn: Option<Vec<Alpn>>,
    /// Clients must show a certificate that this PEM file's have signed; read at start.
    pub(super) client_ca: Option<At<String>>,
    /// Tell browsers to use https alone for so long.
    pub(super) hsts: Option<At<DurationText>>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Certificate {
    /// PEM file of the chain, the server's own certificate first.
    #[schemars(required)]
    pub(super) cert: Option<At<String>>,
    /// PEM file of its private key.
    #[schemars(required)]
    pub(super) key: Option<At<String>>,
}

#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
pub(super) enum TlsVersion {
    #[serde(rename = "1.2")]
    Tls12,
    #[serde(rename = "1.3")]
    Tls13,
}

#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
pub(super) enum Alpn {
    #[serde(rename = "h2")]
    Http2,
    #[serde(rename = "http/1.1")]
    Http1,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Limits {
    /// Bytes of a request head; more: 431.
    #[schemars(extend("default" = "64KiB"))]
    pub(super) header_bytes: Option<At<SizeText>>,
    /// Header fields of a request; more: 431.
    #[schemars(range(min = 1, max = 10_000), extend("default" = 100))]
    pub(super) header_count: Option<At<i64>>,
    /// Bytes of a request target; more: 414.
    #[schemars(extend("default" = "16KiB"))]
    pub(super) uri_bytes: Option<At<SizeText>>,
    /// Bytes of a request body, 0 = unlimited; more: 413.
    #[schemars(extend("default" = "0"))]
    pub(super) body_bytes: Option<At<SizeText>>,
    /// Open client connections; 0 = from the file descriptor limit.
    #[schemars(range(min = 0, max = 10_000_000), extend("default" = 0))]
    pub(super) connections: Option<At<i64>>,
    /// Requests at once over one HTTP/2 connection.
    #[schemars(range(min = 1, max = 100_000), extend("default" = 256))]
    pub(super) h2_streams: Option<At<i64>>,
    /// From accept to the first complete request head, TLS handshake included.
    #[schemars(extend("default" = "10s"))]
    pub(super) client_header_timeout: Option<At<DurationText>>,
    /// Between two requests of a connection.
    #[schemars(extend("default" = "75s"))]
    pub(super) client_idle_timeout: Option<At<DurationText>>,
    /// Between two reads of a request body.
    #[schemars(extend("default" = "30s"))]
    pub(super) client_body_timeout: Option<At<DurationText>>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct App {
    /// Host names, `*.` as the first label allowed; default: any.
    pub(super) hosts: Option<Vec<At<String>>>,
    /// The color of a first start.
    #[schemars(extend("default" = "auto"))]
    pub(super) initial: Option<At<Initial>>,
    /// A reload in which this value changed is a switch.
    pub(super) active: Option<At<Color>>,
    /// Blue endpoints of a single service at `/`.
    pub(super) blue: Option<At<Vec<At<String>>>>,
    /// Green endpoints of a single service at `/`.
    pub(super) green: Option<At<Vec<At<String>>>>,
    /// Parts of the app, by name.
    pub(super) service: BTreeMap<At<String>, Service>,
    /// Its own limits, over those of [limits].
    pub(super) limits: Limits,
    /// Deadlines of the upstream side.
    pub(super) timeouts: Timeouts,
    /// How both colors are probed.
    pub(super) health: Health,
    /// How a color is emptied.
    pub(super) drain: Drain,
    /// What is changed in requests and answers.
    pub(super) headers: Headers,
    /// Which endpoint a request goes to.
    pub(super) balance: Balance,
    /// When a request goes out once more.
    pub(super) retry: Retry,
    /// Over those of [errors], key by key.
    pub(super) errors: Errors,
    /// Connections to its endpoints begin with a PROXY header that names the client.
    pub(super) send_proxy_protocol: Option<At<ProxyVersion>>,
    /// How TLS is spoken to `https://` endpoints.
    pub(super) tls: UpstreamTls,
    /// What a switch needs.
    pub(super) switch: Switch,
    /// What `cutover deploy` does.
    pub(super) deploy: deploy::Deploy,
    /// Who a client is.
    pub(super) affinity: Affinity,
    /// Reach a color on purpose; without this table nobody can.
    pub(super) preview: Option<Preview>,
    /// Conditions that send requests to a color; the first that holds wins.
    pub(super) rule: Option<Vec<Rule>>,
    /// Checks with three verdicts, by name.
    pub(super) gate: policy::Gates,
    /// What watches after a switch.
    pub(super) guard: policy::Guard,
    /// A switch in steps.
    pub(super) rollout: Option<policy::Rollout>,
    /// How long the color that a switch left is kept: then it is said that it can be retired. Default: nobody says.
    pub(super) standby_ttl: Option<At<DurationText>>,
    /// The answer header in which the app names its revision.
    pub(super) revision_header: Option<At<String>>,
    /// In place of the header: a JSON pointer into the health page.
    pub(super) revision_json: Option<At<String>>,
    /// Whether the standby takes over from a dead color by itself.
    pub(super) failover: Failover,
    /// Assets of the other version.
    pub(super) skew: Skew,
    /// Copies of requests for the standby.
    pub(super) mirror: Mirror,
    /// What a color is asked for before it gets traffic.
    pub(super) warmup: Warmup,
    /// What may wait during a hold.
    pub(super) hold: Hold,
}

#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Initial {
    Blue,
    Green,
    Auto,
}

#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Color {
    Blue,
    Green,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Service {
    /// Exactly this path; wins over any prefix.
    pub(super) path: Option<At<String>>,
    /// This path and all below; the longest wins.
    #[schemars(extend("default" = "/"))]
    pub(super) path_prefix: Option<At<String>>,
    /// Take the prefix off before the request is sent on.
    #[schemars(extend("default" = false))]
    pub(super) strip_prefix: Option<At<bool>>,
    /// Blue endpoints: HOST:PORT, unix:PATH, https://HOST:PORT, h2c://HOST:PORT or docker:SERVICE:PORT.
    pub(super) blue: Option<At<Vec<At<String>>>>,
    /// Green endpoints: HOST:PORT, unix:PATH, https://HOST:PORT, h2c://HOST:PORT or docker:SERVICE:PORT.
    pub(super) green: Option<At<Vec<At<String>>>>,
    /// Over those of the app, key by key.
    pub(super) timeouts: Timeouts,
    /// Over that of the app, key by key.
    pub(super) health: Health,
    /// Over those of the app, header by header.
    pub(super) headers: Headers,
    /// Over that of the app, key by key.
    pub(super) tls: UpstreamTls,
    /// Over that of the app, key by key.
    pub(super) balance: Balance,
    /// Over that of the app, key by key.
    pub(super) retry: Retry,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct UpstreamTls {
    /// PEM file of the authorities that sign the apps' certificates; default: those of the system.
    pub(super) ca: Option<At<String>>,
    /// PEM file of the certificate that is shown to apps that ask for one.
    pub(super) client_cert: Option<At<String>>,
    /// PEM file of its private key.
    pub(super) client_key: Option<At<String>>,
    /// Offer HTTP/2 by ALPN; false: HTTP/1.1 alone.
    #[schemars(extend("default" = true))]
    pub(super) http2: Option<bool>,
    /// The name that certificates must be for, also sent as SNI; default: that of `headers.host`.
    pub(super) server_name: Option<At<String>>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Timeouts {
    /// To a connection.
    #[schemars(extend("default" = "5s"))]
    pub(super) connect: Option<At<DurationText>>,
    /// From the sent request to the head of the answer.
    #[schemars(extend("default" = "60s"))]
    pub(super) first_byte: Option<At<DurationText>>,
    /// Between two reads of the answer's body.
    #[schemars(extend("default" = "60s"))]
    pub(super) idle: Option<At<DurationText>>,
    /// How long an unused upstream connection is kept.
    #[schemars(extend("default" = "4s"))]
    pub(super) upstream_idle: Option<At<DurationText>>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Health {
    /// What to ask for; without it an open port is healthy.
    pub(super) path: Option<At<String>>,
    /// Between two probes of an endpoint.
    #[schemars(extend("default" = "2s"))]
    pub(super) interval: Option<At<DurationText>>,
    /// For one probe, connect included.
    #[schemars(extend("default" = "1s"))]
    pub(super) timeout: Option<At<DurationText>>,
    /// Passes in a row until a failing endpoint is healthy.
    #[schemars(range(min = 1, max = 1000), extend("default" = 2))]
    pub(super) rise: Option<At<i64>>,
    /// Failures in a row until a healthy endpoint is failing.
    #[schemars(range(min = 1, max = 1000), extend("default" = 3))]
    pub(super) fall: Option<At<i64>>,
    /// Default: http with a path, tcp without; grpc asks the gRPC health service.
    pub(super) kind: Option<At<Kind>>,
    /// The service that kind = "grpc" asks about; "" = the server as a whole.
    #[schemars(extend("default" = ""))]
    pub(super) grpc_service: Option<At<String>>,
    /// Statuses that pass: "200-299", "200,204".
    #[schemars(extend("default" = "200-299"))]
    pub(super) status: Option<At<String>>,
    /// The Host header; "" = the endpoint's own.
    #[schemars(extend("default" = ""))]
    pub(super) host: Option<At<String>>,
    /// Further headers of the probe.
    pub(super) headers: Option<BTreeMap<At<String>, At<String>>>,
    /// JSON pointers into the answer, and what they must equal.
    pub(super) json: Option<BTreeMap<At<String>, serde_json::Value>>,
    /// Must match the body; "" = no condition.
    #[schemars(extend("default" = ""))]
    pub(super) body_regex: Option<At<String>>,
    /// What the last endpoint of the active color does when it fails.
    #[schemars(extend("default" = "serve"))]
    pub(super) last: Option<At<Last>>,
    /// The answer must name the announced revision: "auto" = where the app says how it does.
    #[schemars(extend("default" = "auto"))]
    pub(super) identity: Option<At<Whether>>,
}

/// true, false, or "auto"
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Whether {
    Said(bool),
    /// The only word that the schema lets through.
    Auto(String),
}

impl JsonSchema for Whether {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Whether".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": ["boolean", "string"], "enum": ["auto", true, false] })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Kind {
    Http,
    Tcp,
    Grpc,
}

#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
pub(super) enum Last {
    #[serde(rename = "serve")]
    Serve,
    #[serde(rename = "503")]
    Refuse,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Drain {
    /// How long running requests of a draining color may go on.
    #[schemars(extend("default" = "30s"))]
    pub(super) http: Option<At<DurationText>>,
    /// What becomes of WebSockets, other upgrades and event streams.
    pub(super) streams: Streams,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Streams {
    /// Let them end by themselves, end them one after the other, or all at once.
    #[schemars(extend("default" = "spread"))]
    pub(super) policy: Option<At<StreamPolicy>>,
    /// When a stream that cannot be ended well is cut.
    #[schemars(extend("default" = "10m"))]
    pub(super) deadline: Option<At<DurationText>>,
    /// The time over which `spread` ends them.
    #[schemars(extend("default" = "60s"))]
    pub(super) spread: Option<At<DurationText>>,
}

#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum StreamPolicy {
    Keep,
    Spread,
    Close,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Headers {
    /// "preserve", "upstream" (the endpoint's own name), or a fixed name.
    #[schemars(extend("default" = "preserve"))]
    pub(super) host: Option<At<String>>,
    /// Names of the endpoint in Location and Set-Cookie become the client's; default: where `host` is "upstream".
    pub(super) rewrite_location: Option<At<bool>>,
    /// The header that names a request; "" = none.
    #[schemars(extend("default" = "x-request-id"))]
    pub(super) request_id: Option<At<String>>,
    /// Whose request ids are passed on; other requests get new ones.
    #[schemars(extend("default" = "anyone"))]
    pub(super) request_id_from: Option<At<IdFrom>>,
    /// Tell the client too by which id its request goes.
    #[schemars(extend("default" = false))]
    pub(super) expose_request_id: Option<At<bool>>,
    /// W3C trace context: pass it on, start a trace where there is none, or also for clients that are not trusted.
    #[schemars(extend("default" = "pass"))]
    pub(super) trace: Option<At<Trace>>,
    /// Also tell the app who asked as RFC 7239 has it: `Forwarded`.
    #[schemars(extend("default" = false))]
    pub(super) forwarded: Option<At<bool>>,
    /// Headers of requests.
    pub(super) request: HeaderChanges,
    /// Headers of answers.
    pub(super) response: HeaderChanges,
    /// Answer header that names the color; written out it also names the revision; "" = off.
    #[schemars(extend("default" = "x-cutover-color"))]
    pub(super) expose_color: Option<At<String>>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct HeaderChanges {
    /// Names and the values they get.
    pub(super) set: Option<BTreeMap<At<String>, At<String>>>,
    /// Names to take out.
    pub(super) remove: Option<Vec<At<String>>>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Switch {
    /// What a switch needs: healthy, identity, names of gates; [] = nothing.
    #[schemars(extend("default" = ["healthy"]))]
    pub(super) require: Option<Vec<At<String>>>,
    /// Requests through our own listener that prove a switch; 0 = off.
    #[schemars(range(min = 0, max = 100), extend("default" = 3))]
    pub(super) verify: Option<At<i64>>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Log {
    /// Form of the access log.
    #[schemars(extend("default" = "json"))]
    pub(super) access: Option<At<Access>>,
    /// Where the access log goes; "-" = stdout.
    #[schemars(extend("default" = "-"))]
    pub(super) file: Option<At<String>>,
    /// What is worth a line in the operations log.
    #[schemars(extend("default" = "info"))]
    pub(super) level: Option<At<String>>,
}

#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Access {
    Json,
    Combined,
    Off,
}
