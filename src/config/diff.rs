//! What differs between two configurations, in the words of the file.

mod policy;
mod resilience;
mod traffic;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::time::Duration;

use super::model::{
    Aim, App, Config, Errors, Headers, HttpProbe, Initial, Limits, Listener, Page, Probe, Service, WhenLast,
};
use super::{AccessFormat, ContentHash, HostHeader, HostPattern, Role};
use crate::wire::preamble;

/// One line for each change from `old` to `new`; empty when they mean the same.
///
/// Values of headers and conditions may be secrets: of those only the name is told.
#[must_use]
pub fn diff(old: &Config, new: &Config) -> Vec<String> {
    changes(old, new).into_iter().map(|(line, _)| line).collect()
}

/// Those lines of [`diff`] that a reload does not put into effect.
#[must_use]
pub fn needs_restart(old: &Config, new: &Config) -> Vec<String> {
    changes(old, new)
        .into_iter()
        .filter_map(|(line, restart)| restart.then_some(line))
        .collect()
}

fn changes(old: &Config, new: &Config) -> Vec<(String, bool)> {
    let mut lines = Vec::new();
    compare(&process(old), &process(new), &mut lines);
    listeners(old, new, &mut lines);
    let names: BTreeSet<&String> = old.apps.keys().chain(new.apps.keys()).collect();
    for name in names {
        match (old.apps.get(name), new.apps.get(name)) {
            (Some(was), Some(is)) => app_changes((was, &old.errors), (is, &new.errors), &mut lines),
            (Some(_), None) => lines.push((format!("app.{name} removed"), false)),
            (None, Some(new)) => {
                let services = new.services.keys().cloned().collect::<Vec<_>>().join(", ");
                lines.push((format!("app.{name} added (services: {services})"), false));
            }
            (None, None) => {}
        }
    }
    lines
}

/// Keys with what they are, in order.
#[derive(Default)]
struct Flat(BTreeMap<String, Shown>);

#[derive(PartialEq)]
struct Shown {
    value: String,
    secret: bool,
}

impl Flat {
    fn put(&mut self, key: &str, value: impl ToString) {
        let value = value.to_string();
        self.0.insert(key.to_owned(), Shown { value, secret: false });
    }

    fn time(&mut self, key: &str, value: Duration) {
        self.put(key, shown_time(value));
    }

    fn list(&mut self, key: &str, values: impl IntoIterator<Item = impl ToString>) {
        let values: Vec<String> = values.into_iter().map(|value| value.to_string()).collect();
        self.put(key, values.join(", "));
    }

    /// What is not as in the other: a level's own word over the one above.
    fn add_where_not(&mut self, of: Self, above: &Self) {
        let own =
            of.0.into_iter()
                .filter(|(key, shown)| above.0.get(key) != Some(shown));
        self.0.extend(own);
    }

    fn secrets(&mut self, key: &str, values: impl IntoIterator<Item = (String, String)>) {
        for (name, value) in values {
            self.0
                .insert(format!("{key}.{name}"), Shown { value, secret: true });
        }
    }
}

fn compare(old: &Flat, new: &Flat, lines: &mut Vec<(String, bool)>) {
    let keys: BTreeSet<&String> = old.0.keys().chain(new.0.keys()).collect();
    for key in keys {
        let (was, is) = (old.0.get(key), new.0.get(key));
        if was == is {
            continue;
        }
        let restart = key.starts_with("admin.")
            || key.starts_with("log.")
            || matches!(key.as_str(), "server.workers" | "server.state_dir");
        let secret = was.or(is).is_some_and(|shown| shown.secret);
        let none = |shown: Option<&Shown>| match shown {
            Some(shown) if !shown.value.is_empty() => shown.value.clone(),
            _ => "none".to_owned(),
        };
        let mut line = match (was, is) {
            (Some(_), Some(_)) if secret => format!("{key}: changed"),
            (None, _) if secret => format!("{key}: added"),
            (_, None) if secret => format!("{key}: removed"),
            (was, is) => format!("{key}: {} → {}", none(was), none(is)),
        };
        if restart {
            line.push_str(" (needs a restart)");
        }
        lines.push((line, restart));
    }
}

/// For each listener in use the one of a new configuration that stands for it: the same address.
#[must_use]
pub fn same_listeners<'n>(old: &[Listener], new: &'n [Listener]) -> Vec<Option<&'n Listener>> {
    let mut free: Vec<&Listener> = new.iter().collect();
    let find = |old: &Listener| {
        // Several may have the same address when the system chooses the port.
        let at = free.iter().position(|new| new.address == old.address)?;
        Some(free.remove(at))
    };
    old.iter().map(find).collect()
}

fn listeners(old: &Config, new: &Config, lines: &mut Vec<(String, bool)>) {
    let sorted = |config: &Config| {
        let mut all = config.listeners.clone();
        all.sort_by_key(|listener| listener.address.to_string());
        all
    };
    let (was, is) = (sorted(old), sorted(new));
    for (new, old) in is.iter().zip(same_listeners(&is, &was)) {
        match old {
            Some(old) => listener_changes(old, new, lines),
            None => {
                let address = &new.address;
                lines.push((format!("listener {address} added (needs a restart)"), true));
            }
        }
    }
    for (old, new) in was.iter().zip(same_listeners(&was, &is)) {
        if new.is_none() {
            let address = &old.address;
            lines.push((format!("listener {address} removed (needs a restart)"), true));
        }
    }
}

fn listener_changes(old: &Listener, new: &Listener, lines: &mut Vec<(String, bool)>) {
    let (was, is) = (listener(old), listener(new));
    let mut changed = Vec::new();
    compare(&was, &is, &mut changed);
    for (line, _) in changed {
        // Certificates are swapped while running; a listener that begins or ceases to speak TLS is another one.
        let live = line.starts_with("tls.certificates") && old.tls.is_some() && new.tls.is_some();
        let restart = if live { "" } else { " (needs a restart)" };
        lines.push((format!("listener {}: {line}{restart}", new.address), !live));
    }
}

fn listener(listener: &Listener) -> Flat {
    let mut flat = Flat::default();
    flat.put(
        "redirect_https",
        listener
            .redirect_https
            .map(|status| status.to_string())
            .unwrap_or_default(),
    );
    flat.put("color", listener.color.map_or("", Aim::as_str));
    flat.put("proxy_protocol", listener.proxy_protocol);
    flat.list(
        "respond",
        listener.respond.iter().map(|own| {
            let fields = own.headers.iter().map(|(name, value)| format!("{name}: {value}"));
            let fields: Vec<_> = fields.collect();
            format!("{} → {} {:?} {fields:?}", own.path, own.status, own.body)
        }),
    );
    let Some(tls) = &listener.tls else {
        return flat;
    };
    let settings = &tls.settings;
    let pair = |pair: &crate::tls::Pair| format!("{} with {}", pair.cert.display(), pair.key.display());
    flat.list("tls.certificates", settings.certificates.iter().map(pair));
    flat.put("tls.min_version", settings.min_version.as_str());
    flat.list("tls.alpn", &settings.alpn);
    let client_ca = settings.client_ca.as_deref();
    flat.put(
        "tls.client_ca",
        client_ca
            .map(|path| path.display().to_string())
            .unwrap_or_default(),
    );
    flat.put("tls.hsts", tls.hsts.map(shown_time).unwrap_or_default());
    flat
}

fn process(config: &Config) -> Flat {
    let mut flat = Flat::default();
    let server = &config.server;
    flat.put("server.workers", server.workers);
    flat.put("server.state_dir", server.state_dir.display());
    flat.put("server.require_state", server.require_state);
    flat.time("server.shutdown_grace", server.shutdown_grace);
    flat.list(
        "server.trusted_proxies",
        server
            .trusted_proxies
            .iter()
            .map(|network| format!("{}/{}", network.address, network.prefix))
            .chain(server.trusts_unix.then(|| "unix:".to_owned())),
    );
    flat.put(
        "server.compat_file",
        server.compat_file.as_deref().unwrap_or_default(),
    );
    let admin = &config.admin;
    flat.put("admin.socket", admin.socket.display());
    flat.put("admin.mode", format!("{:04o}", admin.mode));
    flat.put("admin.group", admin.group.as_deref().unwrap_or_default());
    flat.put(
        "admin.address",
        admin
            .address
            .map(|address| address.to_string())
            .unwrap_or_default(),
    );
    flat.list("admin.hosts", &admin.hosts);
    for token in &admin.tokens {
        let role = match token.role {
            Role::Viewer => "viewer",
            Role::Operator => "operator",
            Role::Admin => "admin",
        };
        flat.put(
            &format!("admin.token.{}", token.name),
            format!("{role} {}", token.file.display()),
        );
    }
    let access = match config.log.access {
        AccessFormat::Json => "json",
        AccessFormat::Combined => "combined",
        AccessFormat::Off => "off",
    };
    flat.put("log.access", access);
    flat.put("log.file", &config.log.file);
    flat.put("log.level", &config.log.level);
    let docker = &config.docker;
    flat.put("docker.socket", docker.socket.display());
    flat.put("docker.project", docker.project.as_deref().unwrap_or_default());
    flat.put("docker.network", docker.network.as_deref().unwrap_or_default());
    limits("limits", &config.limits, &mut flat);
    errors("errors", &config.errors, &mut flat);
    flat.put("limits.connections", config.limits.connections);
    flat.put("limits.h2_streams", config.limits.h2_streams);
    flat
}

fn limits(key: &str, limits: &Limits, flat: &mut Flat) {
    flat.put(&format!("{key}.header_bytes"), limits.header_bytes);
    flat.put(&format!("{key}.header_count"), limits.header_count);
    flat.put(&format!("{key}.uri_bytes"), limits.uri_bytes);
    flat.put(&format!("{key}.body_bytes"), limits.body_bytes);
    flat.time(
        &format!("{key}.client_header_timeout"),
        limits.client_header_timeout,
    );
    flat.time(&format!("{key}.client_idle_timeout"), limits.client_idle_timeout);
    flat.time(&format!("{key}.client_body_timeout"), limits.client_body_timeout);
}

fn app_changes(
    (old, old_errors): (&App, &Errors),
    (new, new_errors): (&App, &Errors),
    lines: &mut Vec<(String, bool)>,
) {
    compare(&app(old, old_errors), &app(new, new_errors), lines);
    if old.deploy != new.deploy {
        // Hooks may hold secrets, and the server runs none: that something differs is enough.
        lines.push((
            format!("app.{}.deploy: changed (for `cutover deploy`)", new.name),
            false,
        ));
    }
    let names: BTreeSet<&String> = old.services.keys().chain(new.services.keys()).collect();
    for name in names {
        let key = format!("app.{}.service.{name}", new.name);
        match (old.services.get(name), new.services.get(name)) {
            (Some(was), Some(is)) => {
                compare(&service(&key, was, old), &service(&key, is, new), lines);
            }
            (Some(_), None) => lines.push((format!("{key} removed"), false)),
            (None, Some(new)) => lines.push((format!("{key} added ({})", new.matches), false)),
            (None, None) => {}
        }
    }
}

fn app(app: &App, above: &Errors) -> Flat {
    let mut flat = Flat::default();
    let key = |rest: &str| format!("app.{}.{rest}", app.name);
    flat.list(&key("hosts"), app.hosts.iter().map(HostPattern::to_string));
    flat.put(
        &key("initial"),
        match app.initial {
            Initial::Color(color) => color.as_str(),
            Initial::Auto => "auto",
        },
    );
    flat.put(&key("active"), app.active.map_or("", |color| color.as_str()));
    limits(&key("limits"), &app.limits, &mut flat);
    flat.time(&key("drain.http"), app.drain.http);
    let streams = &app.drain.streams;
    flat.put(&key("drain.streams.policy"), streams.policy.as_str());
    flat.time(&key("drain.streams.deadline"), streams.deadline);
    flat.time(&key("drain.streams.spread"), streams.spread);
    headers(&key("headers"), &app.headers, &mut flat);
    let [mut own, mut of_all] = [Flat::default(), Flat::default()];
    errors(&key("errors"), &app.errors, &mut own);
    errors(&key("errors"), above, &mut of_all);
    flat.add_where_not(own, &of_all);
    flat.list(
        &key("switch.require"),
        app.switch.require.iter().map(super::Requirement::as_str),
    );
    let sends = app.send_proxy_protocol;
    flat.put(
        &key("send_proxy_protocol"),
        sends.map_or("", preamble::Version::as_str),
    );
    flat.put(&key("switch.verify"), app.switch.verify);
    resilience::resilience(&key, &app.balance, &app.retry, &mut flat);
    traffic::traffic(&app.name, &app.traffic, &mut flat);
    policy::policy(&key, &app.policy, &mut flat);
    flat
}

fn headers(key: &str, headers: &Headers, flat: &mut Flat) {
    let key = |rest: &str| format!("{key}.{rest}");
    flat.put(
        &key("host"),
        match &headers.host {
            HostHeader::Preserve => "preserve",
            HostHeader::Upstream => "upstream",
            HostHeader::Fixed(name) => name,
        },
    );
    flat.put(&key("forwarded"), headers.forwarded);
    flat.secrets(&key("request.set"), headers.request_set.clone());
    flat.list(&key("request.remove"), &headers.request_remove);
    flat.secrets(&key("response.set"), headers.response_set.clone());
    flat.list(&key("response.remove"), &headers.response_remove);
    let revision = if headers.expose_revision {
        " (with the revision)"
    } else {
        ""
    };
    flat.put(
        &key("expose_color"),
        format!("{}{revision}", headers.expose_color),
    );
    // Said only where it is not what `host` says already.
    let implied = headers.host == HostHeader::Upstream;
    let rewrites = (headers.rewrite_location != implied).then_some(headers.rewrite_location);
    flat.put(
        &key("rewrite_location"),
        rewrites.map(|is| is.to_string()).unwrap_or_default(),
    );
    let name = headers.request_id.as_ref();
    flat.put(&key("request_id"), name.map_or("", |name| name.as_str()));
    flat.put(&key("request_id_from"), headers.request_id_from.as_str());
    flat.put(&key("expose_request_id"), headers.expose_request_id);
    flat.put(&key("trace"), headers.trace.as_str());
}

fn errors(key: &str, errors: &Errors, flat: &mut Flat) {
    let page = |page: &Page| {
        let hash = ContentHash::of(page.text.as_bytes()).to_string();
        format!(
            "{} ({} bytes, {})",
            page.file.display(),
            page.text.len(),
            &hash[..8]
        )
    };
    flat.put(&format!("{key}.problem"), errors.problem.as_str());
    for (which, of) in &errors.pages {
        flat.put(&format!("{key}.pages.{which}"), page(of));
    }
    flat.time(&format!("{key}.retry_after"), errors.retry_after);
    let of_maintenance = errors.maintenance.as_ref();
    flat.put(
        &format!("{key}.maintenance.page"),
        of_maintenance.map(page).unwrap_or_default(),
    );
    flat.time(
        &format!("{key}.maintenance.retry_after"),
        errors.maintenance_retry_after,
    );
}

fn service(key: &str, service: &Service, above: &App) -> Flat {
    let mut flat = Flat::default();
    let key = |rest: &str| format!("{key}.{rest}");
    flat.put(&key("path"), &service.matches);
    flat.put(&key("strip_prefix"), service.strip_prefix);
    for (color, endpoints) in service.endpoints.iter() {
        flat.list(&key(color.as_str()), endpoints);
    }
    flat.time(&key("timeouts.connect"), service.timeouts.connect);
    flat.time(&key("timeouts.first_byte"), service.timeouts.first_byte);
    flat.time(&key("timeouts.idle"), service.timeouts.idle);
    flat.time(&key("timeouts.upstream_idle"), service.timeouts.upstream_idle);
    let [mut own, mut of_app] = [Flat::default(), Flat::default()];
    headers(&key("headers"), &service.headers, &mut own);
    headers(&key("headers"), &above.headers, &mut of_app);
    resilience::resilience(&key, &service.balance, &service.retry, &mut own);
    resilience::resilience(&key, &above.balance, &above.retry, &mut of_app);
    flat.add_where_not(own, &of_app);
    let trust = &service.tls.trust;
    let file = |path: &Option<std::path::PathBuf>| {
        path.iter()
            .map(|path| path.display().to_string())
            .collect::<String>()
    };
    flat.put(&key("tls.ca"), file(&trust.ca));
    let pair = trust.identity.as_ref();
    flat.put(&key("tls.client_cert"), file(&pair.map(|pair| pair.cert.clone())));
    flat.put(&key("tls.client_key"), file(&pair.map(|pair| pair.key.clone())));
    flat.put(&key("tls.http2"), !trust.http1_only);
    flat.put(
        &key("tls.server_name"),
        service.tls.server_name.clone().unwrap_or_default(),
    );
    let health = &service.health;
    flat.time(&key("health.interval"), health.interval);
    flat.time(&key("health.timeout"), health.timeout);
    flat.put(&key("health.rise"), health.rise);
    flat.put(&key("health.fall"), health.fall);
    flat.put(
        &key("health.last"),
        match health.last {
            WhenLast::Serve => "serve",
            WhenLast::Refuse => "503",
        },
    );
    flat.put(&key("health.identity"), health.identity.is_some());
    match &health.kind {
        Probe::Tcp => flat.put(&key("health.kind"), "tcp"),
        Probe::Grpc(probe) => {
            flat.put(&key("health.kind"), "grpc");
            flat.put(&key("health.grpc_service"), &probe.service);
            flat.put(&key("health.host"), &probe.host);
        }
        Probe::Http(probe) => {
            flat.put(&key("health.kind"), "http");
            http_probe(&key("health"), probe, &mut flat);
        }
    }
    flat
}

fn http_probe(key: &str, probe: &HttpProbe, flat: &mut Flat) {
    flat.put(&format!("{key}.path"), &probe.path);
    flat.put(&format!("{key}.host"), &probe.host);
    flat.list(
        &format!("{key}.status"),
        probe.status.iter().map(|(first, last)| {
            if first == last {
                first.to_string()
            } else {
                format!("{first}-{last}")
            }
        }),
    );
    flat.secrets(&format!("{key}.headers"), probe.headers.clone());
    let json = probe
        .json
        .iter()
        .map(|(pointer, value)| (pointer.clone(), value.to_string()));
    flat.secrets(&format!("{key}.json"), json);
    flat.put(
        &format!("{key}.body_regex"),
        probe.body_regex.as_ref().map_or("", |regex| regex.as_str()),
    );
}

/// A duration as the file writes it: `1m30s`, `250ms`.
fn shown_time(duration: Duration) -> String {
    let mut rest = duration.as_millis();
    if rest == 0 {
        return "0s".to_owned();
    }
    let mut out = String::new();
    for (unit, size) in [("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)] {
        if rest >= size {
            let _ = write!(out, "{}{unit}", rest / size);
            rest %= size;
        }
    }
    out
}
