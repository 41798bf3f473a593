//! From what is written to what is meant: defaults, ranges, and what one value means for another.

mod app;
mod deploy;
mod docker;
mod errors;
mod headers;
mod health;
mod listeners;
mod origin;
mod parts;
mod policy;
mod resilience;
mod rules;
mod traffic;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use super::diagnostics::{Findings, did_you_mean, quoted};
use super::load::PemFile;
use super::model::{AccessFormat, Admin, Config, ListenAddress, Log, Role, Server, Token};
use super::raw::{self, At, DurationText, ModeText};
use super::shape::Env;
use super::values;
use app::AppBuild;
use errors::ErrorsPart;
use parts::LimitsPart;

/// How `trusted_proxies` writes the peers of Unix sockets; nginx writes it so.
const UNIX: &str = "unix:";

/// The configuration, as good as it can be made; what is wrong is in `findings`.
///
/// `pem` gets the files that it names: they are read by [`super::Loaded::with_files`].
pub(super) fn build(
    file: &raw::File,
    findings: &mut Findings<'_>,
    env: &Env<'_>,
    pem: &mut Vec<(PemFile, Range<usize>)>,
) -> Config {
    let mut build = Build { findings, env };
    let server = build.server(&file.server);
    let admin = build.admin(&file.admin, &server.state_dir);
    let listeners = build.listeners(file.listener.as_deref().unwrap_or_default(), admin.address, pem);
    build.proxies_for(&file.listener, &server);
    let own = LimitsPart::read(&file.limits, &mut build);
    let limits = own.over_defaults();
    let log = build.log(&file.log);
    let errors = ErrorsPart::read(&file.errors, &mut build, pem);
    let docker = build.docker(&file.docker);
    let mut apps = BTreeMap::new();
    let mut matches = app::Matches::default();
    let listens: Vec<&ListenAddress> = listeners.iter().map(|listener| &listener.address).collect();
    for (name, raw) in file.app.iter().flatten() {
        let app = AppBuild {
            build: &mut build,
            name,
            limits: &own,
            errors: &errors,
            listens: &listens,
            pem,
        };
        let app = app.app(raw, &mut matches);
        apps.insert(name.get().clone(), app);
    }
    matches.settle(&mut build);
    build.compat_file(&file.server, apps.len());
    let names: Vec<&str> = apps.keys().map(String::as_str).collect();
    for raw in file.notify.iter().flatten() {
        build.webhook_ca(raw.webhook.as_ref(), raw.ca.as_ref(), pem);
    }
    let notify = build.notify(file.notify.as_deref().unwrap_or_default(), &names);
    Config {
        server,
        admin,
        listeners,
        limits,
        errors: errors.over_defaults(),
        log,
        docker,
        notify,
        apps,
    }
}

/// What all parts need.
struct Build<'a, 't, 'e> {
    findings: &'a mut Findings<'t>,
    env: &'a Env<'e>,
}

impl Build<'_, '_, '_> {
    fn server(&mut self, raw: &raw::Server) -> Server {
        let workers = match raw.workers.as_ref().map_or(0, |at| *at.get()) {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            count => usize::try_from(count).unwrap_or(1),
        };
        let state_dir = match &raw.state_dir {
            Some(at) => self.text("state_dir", at, values::file_path).unwrap_or_default(),
            None => self.default_state_dir(),
        };
        let mut trusted_proxies = Vec::new();
        let all = || raw.trusted_proxies.iter().flatten();
        let trusts_unix = all().any(|at| at.get() == UNIX);
        for at in all().filter(|at| at.get() != UNIX) {
            trusted_proxies.extend(self.text("trusted_proxies", at, values::network));
        }
        Server {
            workers,
            state_dir,
            require_state: raw.require_state.unwrap_or(false),
            shutdown_grace: self
                .duration("shutdown_grace", raw.shutdown_grace.as_ref(), Duration::ZERO)
                .unwrap_or(Duration::from_secs(30)),
            trusted_proxies,
            trusts_unix,
            compat_file: raw.compat_file.as_ref().map(|at| at.get().clone()),
        }
    }

    fn default_state_dir(&self) -> PathBuf {
        let set = |name| (self.env)(name).filter(|value| !value.is_empty());
        if let Some(dirs) = set("STATE_DIRECTORY") {
            // systemd lists several with colons between them; the first is ours.
            return PathBuf::from(dirs.split(':').next().unwrap_or(&dirs));
        }
        // The XDG specification: a relative path there is ignored.
        match set("XDG_STATE_HOME").filter(|dir| dir.starts_with('/')) {
            Some(dir) => PathBuf::from(dir).join("cutover"),
            None => PathBuf::from("./.cutover"),
        }
    }

    fn compat_file(&mut self, raw: &raw::Server, apps: usize) {
        let Some(at) = &raw.compat_file else { return };
        if self.text("compat_file", at, values::file_path).is_some()
            && apps > 1
            && !at.get().contains("{app}")
        {
            let message = "`compat_file` would be written by several apps".to_owned();
            let hint = "put `{app}` into its name".to_owned();
            self.findings.error(&at.span(), "conflicting_keys", message, hint);
        }
    }

    fn admin(&mut self, raw: &raw::Admin, state_dir: &std::path::Path) -> Admin {
        let socket = match &raw.socket {
            Some(at) => self.text("socket", at, values::socket_path).unwrap_or_default(),
            None => {
                let socket = state_dir.join("admin.sock");
                if let Err(why) = values::socket_path(&socket.to_string_lossy()) {
                    let message = format!(
                        "the admin socket {} cannot be used: {why}",
                        quoted(&socket.to_string_lossy())
                    );
                    let hint = "set `[admin] socket` to a short path".to_owned();
                    self.findings.error(&(0..0), "bad_value", message, hint);
                }
                socket
            }
        };
        let tokens = self.tokens(raw);
        let address = raw
            .address
            .as_ref()
            .and_then(|at| Some((at, self.text("address", at, values::socket_address)?)));
        if let Some((at, address)) = address
            && !address.ip().to_canonical().is_loopback()
            && tokens.is_empty()
            && !self.findings.is_broken(&["admin", "token_file"])
            && !self.findings.is_broken(&["admin", "token"])
        {
            let message = format!("`{address}` can be reached from other machines, and no token is set");
            let hint = "set `token_file`, or listen on 127.0.0.1".to_owned();
            self.findings.error(&at.span(), "admin_open", message, hint);
        }
        let mut hosts = Vec::new();
        for at in raw.hosts.iter().flatten() {
            hosts.extend(self.text("hosts", at, values::host_value));
        }
        Admin {
            socket,
            mode: raw.mode.as_ref().and_then(|at| self.mode(at)).unwrap_or(0o600),
            group: raw.group.as_ref().map(|at| at.get().clone()),
            address: address.map(|(_, address)| address),
            hosts,
            tokens,
        }
    }

    fn mode(&mut self, at: &At<ModeText>) -> Option<u32> {
        let bits = match at.get() {
            ModeText::Bits(bits) => u32::try_from(*bits).ok(),
            ModeText::Text(text) => u32::from_str_radix(text, 8).ok(),
        };
        let bits = bits.filter(|bits| *bits <= 0o777);
        if bits.is_none() {
            let message = "`mode` is not a file mode".to_owned();
            let hint = "write it in octal: `\"0660\"`".to_owned();
            self.findings.error(&at.span(), "bad_value", message, hint);
        }
        bits
    }

    fn tokens(&mut self, raw: &raw::Admin) -> Vec<Token> {
        let mut tokens = Vec::new();
        let mut names = BTreeSet::new();
        if let Some(at) = &raw.token_file {
            names.insert("token".to_owned());
            let file = self.text("token_file", at, values::file_path).unwrap_or_default();
            tokens.push(Token {
                name: "token".to_owned(),
                role: Role::Admin,
                file,
            });
        }
        for token in raw.token.iter().flatten() {
            // A key that is missing or of the wrong type has been reported.
            let (Some(name), Some(role), Some(file)) = (&token.name, &token.role, &token.file) else {
                continue;
            };
            self.text("name", name, values::name);
            if !names.insert(name.get().clone()) {
                let message = format!("two tokens are called {}", quoted(name.get()));
                let hint = "`token_file` is the one called `token`; each needs its own name".to_owned();
                self.findings.error(&name.span(), "duplicate_name", message, hint);
            }
            tokens.push(Token {
                name: name.get().clone(),
                role: match role.get() {
                    raw::Role::Viewer => Role::Viewer,
                    raw::Role::Operator => Role::Operator,
                    raw::Role::Admin => Role::Admin,
                },
                file: self.text("file", file, values::file_path).unwrap_or_default(),
            });
        }
        tokens
    }

    fn log(&mut self, raw: &raw::Log) -> Log {
        if let Some(at) = &raw.file {
            self.text("file", at, values::file_path);
        }
        if let Some(at) = &raw.level {
            self.level(at);
        }
        let text = |at: &Option<At<String>>, default: &str| {
            at.as_ref()
                .map_or_else(|| default.to_owned(), |at| at.get().clone())
        };
        Log {
            access: match raw.access.as_ref().map(At::get) {
                Some(raw::Access::Combined) => AccessFormat::Combined,
                Some(raw::Access::Off) => AccessFormat::Off,
                Some(raw::Access::Json) | None => AccessFormat::Json,
            },
            file: text(&raw.file, "-"),
            level: text(&raw.level, "info"),
        }
    }

    /// A level, or directives of `tracing` such as `info,cutover=debug`.
    fn level(&mut self, at: &At<String>) {
        const LEVELS: [&str; 6] = ["error", "warn", "info", "debug", "trace", "off"];
        let text = at.get();
        if LEVELS.contains(&text.as_str()) {
            return;
        }
        // A single unknown word would pass as the name of a module, and silence everything.
        let directives = text.contains(['=', ',']) && tracing_subscriber::EnvFilter::try_new(text).is_ok();
        if !directives {
            let message = format!("`level` cannot be {}", quoted(text));
            let hint = did_you_mean(text, LEVELS).unwrap_or_else(|| {
                format!(
                    "one of {}, or directives such as `info,cutover=debug`",
                    LEVELS.join(", ")
                )
            });
            self.findings.error(&at.span(), "bad_value", message, hint);
        }
    }

    /// The text of a key, read by one of [`values`].
    fn text<T>(
        &mut self,
        key: &str,
        at: &At<String>,
        read: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        self.value(key, &at.span(), read(at.get()))
    }

    /// What reading the value of a key gave.
    fn value<T>(&mut self, key: &str, span: &Range<usize>, result: Result<T, String>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(why) => {
                let message = format!("`{key}` cannot be used: {why}");
                self.findings.error(span, "bad_value", message, None);
                None
            }
        }
    }

    /// A duration that is at least `least`.
    fn duration(&mut self, key: &str, at: Option<&At<DurationText>>, least: Duration) -> Option<Duration> {
        let at = at?;
        let value = self.value(key, &at.span(), values::parse_duration(&at.get().0))?;
        if value < least {
            let message = if value.is_zero() {
                format!("`{key}` must not be 0")
            } else {
                format!("`{key}` must be {} ms or more", least.as_millis())
            };
            self.findings.error(&at.span(), "out_of_range", message, None);
            return None;
        }
        Some(value)
    }
}
