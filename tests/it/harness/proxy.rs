//! The proxy under test: the real composition root in a thread, on free ports, with its state in a temporary folder.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, Once, PoisonError};
use std::thread::JoinHandle;

use cutover::app::{App, Source, Until};
use cutover::config::{self, ListenAddress};
use cutover::shutdown;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::admin::{self, Reply};
use super::backend::{Backend, HEALTH};
use super::until;
use super::wire::{Message, Wire};

/// What a proxy is to be like. Text is TOML.
#[derive(Default)]
pub struct Setup {
    server: String,
    grace: Option<&'static str>,
    workers: Option<usize>,
    listeners: Option<String>,
    access_log: bool,
    rest: String,
    in_file: bool,
}

impl Setup {
    /// One app `web` at `/`.
    pub fn new() -> Self {
        Self::default()
    }

    /// Lines of `[server]`.
    pub fn server(mut self, lines: &str) -> Self {
        self.server = lines.to_owned();
        self
    }

    /// A shutdown's grace in place of one second.
    pub fn grace(mut self, time: &'static str) -> Self {
        self.grace = Some(time);
        self
    }

    /// So many in place of two.
    pub fn workers(mut self, count: usize) -> Self {
        self.workers = Some(count);
        self
    }

    /// With an access log, in the file `access.log` of its folder.
    pub fn access_log(mut self) -> Self {
        self.access_log = true;
        self
    }

    /// `[[listener]]` tables in place of the one on a free port.
    pub fn listeners(mut self, tables: &str) -> Self {
        self.listeners = Some(tables.to_owned());
        self
    }

    /// More tables, `[app.…]` above all.
    pub fn toml(mut self, tables: &str) -> Self {
        self.rest += tables;
        self.rest.push('\n');
        self
    }

    /// App `web` with one endpoint a color, an HTTP health path, and further lines of `[app.web]`.
    pub fn colors(self, blue: &Backend, green: &Backend, lines: &str) -> Self {
        let (blue, green) = (blue.address(), green.address());
        self.toml(&format!(
            "[app.web]\ninitial = \"blue\"\nblue = [\"{blue}\"]\ngreen = [\"{green}\"]\n\
             health.path = \"{HEALTH}\"\nhealth.interval = \"50ms\"\nhealth.timeout = \"5s\"\n{lines}"
        ))
    }

    /// App `web` with a blue endpoint only and further lines of `[app.web]`.
    pub fn blue(self, backend: &Backend, lines: &str) -> Self {
        let address = backend.address();
        self.toml(&format!(
            "[app.web]\ninitial = \"blue\"\nblue = [\"{address}\"]\n{lines}"
        ))
    }

    /// The configuration is a file, so that it can be changed and reloaded.
    pub fn in_file(mut self) -> Self {
        self.in_file = true;
        self
    }

    /// Start it and wait until it is ready.
    pub fn start(self) -> Proxy {
        let proxy = self.start_unready();
        proxy.wait_ready();
        proxy
    }

    /// Start it and wait until its admin door answers.
    pub fn start_unready(self) -> Proxy {
        note_panics();
        let mut proxy = Proxy {
            folder: tempfile::tempdir().unwrap(),
            setup: self,
            running: None,
        };
        proxy.launch();
        proxy
    }

    fn text(&self, folder: &Path) -> String {
        let listeners = self
            .listeners
            .as_deref()
            .unwrap_or("[[listener]]\naddress = \"127.0.0.1:0\"\n");
        let log = if self.access_log {
            format!("file = \"{}\"", folder.join("access.log").display())
        } else {
            "access = \"off\"".to_owned()
        };
        format!(
            "[server]\nworkers = {}\nshutdown_grace = \"{}\"\nstate_dir = \"{}\"\n{}\n[log]\n{log}\n{listeners}\n{}",
            self.workers.unwrap_or(2),
            self.grace.unwrap_or("1s"),
            folder.join("state").display(),
            self.server,
            self.rest
        )
    }
}

/// A running proxy. Stopped when dropped, and then its thread must have ended well.
pub struct Proxy {
    folder: TempDir,
    setup: Setup,
    running: Option<Running>,
}

struct Running {
    addresses: Vec<ListenAddress>,
    socket: PathBuf,
    stop: shutdown::Trigger,
    thread: JoinHandle<Result<(), String>>,
}

impl Proxy {
    /// In front of one backend, as blue.
    pub fn before(backend: &Backend) -> Self {
        Setup::new().blue(backend, "").start()
    }

    /// In front of two colors with an HTTP health path; blue is active.
    pub fn of(blue: &Backend, green: &Backend) -> Self {
        Setup::new().colors(blue, green, "").start()
    }

    fn launch(&mut self) {
        let text = self.setup.text(self.folder.path());
        let environment = |_: &str| None;
        let source = if self.setup.in_file {
            std::fs::write(self.file(), text).unwrap();
            Source::file(&self.file()).unwrap_or_else(|error| panic!("{error}"))
        } else {
            let config = config::parse(&text, "test.toml", &environment)
                .unwrap_or_else(|wrong| panic!("{wrong}\n{text}"));
            Source { config, file: None }
        };
        let app = App::bind(source, None).unwrap_or_else(|error| panic!("{error}"));
        let (stop, watcher) = shutdown::channel();
        let (addresses, socket) = (app.addresses(), app.admin_socket().to_owned());
        let thread = std::thread::Builder::new()
            .name("control".to_owned())
            .spawn(move || app.run(Until::Told(watcher)).map_err(|error| error.to_string()))
            .unwrap();
        self.running = Some(Running {
            addresses,
            socket,
            stop,
            thread,
        });
        until("the admin door answers", || self.get("/livez").status == 200);
    }

    #[track_caller]
    fn wait_ready(&self) {
        until("the proxy is ready", || self.get("/readyz").status == 200);
    }

    fn running(&self) -> &Running {
        self.running.as_ref().expect("it was stopped")
    }

    /// Where its listeners are, in the order of the configuration.
    pub fn tcp(&self, at: usize) -> SocketAddr {
        match &self.running().addresses[at] {
            ListenAddress::Tcp(address) => *address,
            ListenAddress::Unix(path) => panic!("{} is no TCP address", path.display()),
        }
    }

    /// Where its first TCP listener is.
    pub fn address(&self) -> SocketAddr {
        let tcp = |address: &ListenAddress| match address {
            ListenAddress::Tcp(address) => Some(*address),
            ListenAddress::Unix(_) => None,
        };
        self.running()
            .addresses
            .iter()
            .find_map(tcp)
            .expect("a TCP listener")
    }

    /// A new connection to it.
    pub fn client(&self) -> Wire {
        Wire::tcp(self.address())
    }

    /// One `GET` on a connection of its own.
    #[track_caller]
    pub fn fetch(&self, target: &str) -> Message {
        self.client().get(target)
    }

    /// What answers now.
    #[track_caller]
    pub fn says(&self) -> String {
        self.fetch("/").text()
    }

    /// A request to its admin door.
    pub fn get(&self, path: &str) -> Reply {
        admin::call(&self.running().socket, "GET", path, &[], None)
    }

    /// A change of app `web`.
    pub fn post(&self, verb: &str, body: Value) -> Reply {
        self.post_with(verb, &[], body)
    }

    pub fn post_with(&self, verb: &str, fields: &[(&str, &str)], body: Value) -> Reply {
        let path = format!("/v1/apps/web/{verb}");
        admin::call(&self.running().socket, "POST", &path, fields, Some(&body))
    }

    pub fn put(&self, path: &str, body: Value) -> Reply {
        admin::call(&self.running().socket, "PUT", path, &[], Some(&body))
    }

    pub fn reload(&self) -> Reply {
        admin::call(
            &self.running().socket,
            "POST",
            "/v1/reload",
            &[],
            Some(&json!({})),
        )
    }

    /// Switch, which must succeed.
    #[track_caller]
    pub fn switch(&self, to: &str) -> Reply {
        self.post("switch", json!({ "to": to })).done()
    }

    /// App `web` as the admin API shows it.
    #[track_caller]
    pub fn app(&self) -> Value {
        self.get("/v1/apps/web").done().json
    }

    pub fn generation(&self) -> u64 {
        self.app()["generation"].as_u64().expect("a generation")
    }

    /// The sum of a metric over all labels that hold every one of these texts.
    pub fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        let text = self.get("/metrics").done().text;
        let line = |line: &&str| {
            let rest = line.strip_prefix(name);
            rest.is_some_and(|rest| {
                rest.starts_with([' ', '{']) && labels.iter().all(|label| rest.contains(label))
            })
        };
        let value = |line: &str| {
            line.rsplit(' ')
                .next()
                .and_then(|value| value.parse::<f64>().ok())
        };
        text.lines().filter(line).filter_map(value).sum()
    }

    /// The configuration file.
    pub fn file(&self) -> PathBuf {
        self.folder.path().join("cutover.toml")
    }

    /// Where it keeps its state.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Change the configuration file.
    pub fn rewrite(&self, change: impl FnOnce(String) -> String) {
        let text = std::fs::read_to_string(self.file()).unwrap();
        let new = self.folder.path().join("new.toml");
        std::fs::write(&new, change(text)).unwrap();
        std::fs::rename(new, self.file()).unwrap();
    }

    /// Ask it to stop, and go on meanwhile.
    pub fn begin_stop(&self) {
        self.running().stop.request();
    }

    /// Stop it; it must end well.
    pub fn stop(&mut self) {
        let Some(running) = self.running.take() else {
            return;
        };
        running.stop.request();
        let ended = running.thread.join();
        if std::thread::panicking() {
            return;
        }
        assert_eq!(ended.map_err(|_| "panicked"), Ok(Ok(())), "how the proxy ended");
        let panics = PANICS.lock().unwrap_or_else(PoisonError::into_inner);
        assert!(panics.is_empty(), "threads panicked: {panics:?}");
    }

    /// Stop it and start it again, not waiting until it is ready.
    pub fn restart_unready(&mut self) {
        self.stop();
        self.launch();
    }

    /// Stop it and start it again with the same folder and configuration.
    pub fn restart(&mut self) {
        self.stop();
        self.launch();
        self.wait_ready();
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.stop();
    }
}

static PANICS: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Panics on threads that are not a test's own are caught by nobody else: workers are started again, and a
/// backend's thread is nobody's. Remember them for [`Proxy::stop`].
pub fn note_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let thread = std::thread::current();
            let name = thread.name().unwrap_or_default();
            if ["worker-", "control", "backend"]
                .iter()
                .any(|prefix| name.starts_with(prefix))
            {
                let mut panics = PANICS.lock().unwrap_or_else(PoisonError::into_inner);
                panics.push(format!("{name}: {info}"));
            }
            before(info);
        }));
    });
}
