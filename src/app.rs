//! The composition root: bind, wire, run, stop. The only place that knows all the parts.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::HeaderValue;
use tokio::runtime::{Builder, LocalOptions};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Semaphore, mpsc, watch};

use crate::admin;
use crate::config::{self, Config, ContentHash, Diagnostics, ListenAddress, Loaded};
use crate::control::{Control, Entrance, Handle, Parts};
use crate::metrics::{AccessLog, ControlMetrics, Exposition, Registry, ops};
use crate::proxy::{self, Listener, Phase, Plane};
use crate::rollout::{Actor, Color, Trigger};
use crate::routing::{Edge, Published, RoutingTable};
use crate::shutdown;
use crate::store::{Journal, Restored, StoreError, StoreHandle};
use crate::tls::{self, Certificates, Originators, Terminator};

/// After SIGTERM the process is unready and still accepts for so long: load balancers need a moment to notice.
const SETTLE: Duration = Duration::from_millis(300);
/// Between two looks at whether the workers have finished.
const LOOK: Duration = Duration::from_millis(10);
/// How long before the end of the grace streams that were to be kept are told that it ends.
const FAREWELL: Duration = Duration::from_secs(1);
/// The longest wait for the access log at the end.
const LOG_FLUSH: Duration = Duration::from_secs(2);

/// How to run.
#[derive(Clone, Debug)]
pub struct RunOptions {
    /// Where the configuration comes from.
    pub origin: Origin,
    /// The active color of apps that the store does not know.
    pub initial: Option<Color>,
}

/// Where the configuration comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A file.
    File(PathBuf),
    /// `--listen A --blue B --green C`
    Flags {
        /// The listener's address.
        listen: String,
        /// Blue's endpoints.
        blue: Vec<String>,
        /// Green's endpoints.
        green: Vec<String>,
    },
}

/// The process could not start, or not go on.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The configuration has mistakes.
    #[error("{0}")]
    Config(Diagnostics),
    /// A listener's TLS cannot be set up.
    #[error("listener {address}: {source}")]
    Tls {
        /// The listener.
        address: ListenAddress,
        /// What is wrong.
        source: tls::TlsError,
    },
    /// A listener cannot be bound.
    #[error("{0}")]
    Listen(#[from] proxy::BindError),
    /// The admin doors cannot be opened.
    #[error("{0}")]
    Admin(#[from] admin::BindError),
    /// The store cannot be opened.
    #[error("{0}")]
    Store(#[from] StoreError),
    /// `server.require_state` is on and there is no state.
    #[error(
        "{}: no journal here, and server.require_state is on: mount the right state directory, or start once with \
         require_state = false", .0.display()
    )]
    NoState(PathBuf),
    /// The logs cannot be opened.
    #[error("{0}")]
    Log(String),
    /// The system refused something else.
    #[error("{doing}: {source}")]
    System {
        /// What was tried.
        doing: &'static str,
        /// The system's error.
        source: io::Error,
    },
}

/// A configuration with where it came from.
#[derive(Debug)]
pub struct Source {
    /// The configuration.
    pub config: Config,
    /// Its file, hash and text; `None` when it came from flags.
    pub file: Option<(PathBuf, ContentHash, String)>,
}

impl Source {
    /// From a file.
    ///
    /// # Errors
    /// Every mistake in it.
    pub fn file(path: &Path) -> Result<Self, RunError> {
        let loaded = config::load(path, &environment).and_then(|loaded| loaded.with_files(None));
        let Loaded {
            config,
            hash,
            text,
            warnings,
            ..
        } = loaded.map_err(RunError::Config)?;
        for warning in &warnings.items {
            tracing::warn!("{warning}");
        }
        Ok(Self {
            config,
            file: Some((path.to_owned(), hash, text)),
        })
    }

    /// From wherever it is.
    ///
    /// # Errors
    /// Every mistake in it.
    pub fn of(origin: &Origin) -> Result<Self, RunError> {
        match origin {
            Origin::File(path) => Self::file(path),
            Origin::Flags { listen, blue, green } => {
                let config =
                    config::from_flags(listen, blue, green, &environment).map_err(RunError::Config)?;
                Ok(Self { config, file: None })
            }
        }
    }
}

fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Run until a signal ends it.
///
/// # Errors
/// The start failed; nothing was served.
pub fn run(options: &RunOptions) -> Result<(), RunError> {
    let source = Source::of(&options.origin)?;
    ops::init(&source.config.log.level).map_err(|error| RunError::Log(error.to_string()))?;
    let app = App::bind(source, options.initial)?;
    app.run(Until::Signal)
}

/// When a running app stops.
#[derive(Debug)]
pub enum Until {
    /// At SIGTERM or SIGINT; SIGHUP reloads.
    Signal,
    /// When told. For `demo` and tests.
    Told(shutdown::Watcher),
}

/// Everything bound, nothing running: conflicts show here, and port 0 has become a real port.
#[derive(Debug)]
pub struct App {
    source: Source,
    initial: Option<Color>,
    listeners: Vec<Listener>,
    /// By listener.
    terminators: Vec<Option<Arc<Terminator>>>,
    doors: admin::Bound,
    store: StoreHandle,
    restored: Restored,
    log: Arc<AccessLog>,
}

impl App {
    /// Open the store, bind listeners and doors.
    ///
    /// # Errors
    /// With what cannot be had and what to do; nothing is left behind.
    pub fn bind(source: Source, initial: Option<Color>) -> Result<Self, RunError> {
        let config = &source.config;
        let terminators = terminators(&config.listeners)?;
        let state_dir = &config.server.state_dir;
        let (journal, restored) = Journal::open(state_dir)?;
        if restored.fresh && config.server.require_state {
            return Err(RunError::NoState(state_dir.clone()));
        }
        for note in &restored.notes {
            tracing::warn!("{note}");
        }
        let with_tls = config.listeners.iter().zip(&terminators);
        let listeners = with_tls.map(|(listener, tls)| proxy::bind(listener, tls.clone()));
        let listeners = listeners.collect::<Result<Vec<_>, _>>()?;
        let doors = admin::bind(&config.admin)?;
        let log = AccessLog::open(&config.log)
            .map_err(|error| RunError::Log(format!("access log {}: {error}", config.log.file)))?;
        let store = StoreHandle::start(journal)?;
        Ok(Self {
            initial,
            listeners,
            terminators,
            doors,
            store,
            restored,
            log: Arc::new(log),
            source,
        })
    }

    /// Where it listens, real ports included.
    #[must_use]
    pub fn addresses(&self) -> Vec<ListenAddress> {
        self.listeners
            .iter()
            .map(|listener| listener.address.clone())
            .collect()
    }

    /// The admin socket.
    #[must_use]
    pub fn admin_socket(&self) -> &Path {
        self.doors.socket()
    }

    /// The admin TCP address, if there is one, with its real port.
    #[must_use]
    pub fn admin_address(&self) -> Option<std::net::SocketAddr> {
        self.doors.tcp_address()
    }

    /// Run. This thread becomes the control plane.
    ///
    /// # Errors
    /// Threads or descriptors that cannot be had.
    pub fn run(self, until: Until) -> Result<(), RunError> {
        let system = |doing| move |source| RunError::System { doing, source };
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build_local(LocalOptions::default())
            .map_err(system("starting the control plane"))?;
        runtime.block_on(self.serve(until))
    }

    async fn serve(self, until: Until) -> Result<(), RunError> {
        let system = |doing| move |source| RunError::System { doing, source };
        let addresses = self.addresses();
        let config = Arc::new(self.source.config);
        let registry = Arc::new(Registry::new(config.server.workers, self.listeners.len()));
        let metrics = Arc::<ControlMetrics>::default();
        let published = Published::new(empty_table(&config), config.server.workers);
        let verify_secret = secret().map_err(system("reading /dev/urandom"))?;
        let (changes, _guard) = watch_file(self.source.file.as_ref());
        let certificates = certificates_of(&self.terminators);
        let originators = Arc::<Originators>::default();
        let (renewals, _renewals_guard) = watch_certificates(certificates.clone(), &originators);
        let (phase, phases) = watch::channel(Phase::Running);
        let (stop, _) = shutdown::channel();
        let shared = Arc::new(proxy::Shared {
            published: published.clone(),
            registry: Arc::clone(&registry),
            permits: Arc::new(Semaphore::new(config.limits.connections)),
            verify_secret: verify_secret.clone(),
            phase: phases,
            log: Arc::clone(&self.log),
            grace: config.server.shutdown_grace,
        });
        let parts = Parts {
            config: Arc::clone(&config),
            file: self.source.file,
            published: published.clone(),
            registry: Arc::clone(&registry),
            originators,
            metrics: Arc::clone(&metrics),
            store: self.store.clone(),
            restored: self.restored,
            listeners: entrances(&config, &addresses, &self.terminators),
            verify_secret,
            initial: self.initial,
            on_reload: reread_tokens(self.doors.tokens()),
        };
        let (control, handle) = Control::start(parts).await;
        let plane = proxy::start(&shared, self.listeners).map_err(system("starting the workers"))?;
        let names = addresses.iter().map(ToString::to_string).collect();
        let apps = Box::new(move || crate::control::gauges(&published));
        let certs = Box::new(move || certificates.iter().flat_map(|one| one.views()).collect());
        let exposition = Exposition::new(registry, metrics, names, self.log.dropped(), apps, certs);
        let extras = admin::Extras {
            metrics: Arc::new(move || exposition.render()),
            not_live: Arc::new(Vec::new),
        };
        announce(&addresses, self.doors.socket(), self.doors.tcp_address());
        let control = tokio::task::spawn_local(control.run(changes, renewals, stop.watcher()));
        let (close_doors, mut closed) = shutdown::channel();
        let doors = admin::serve(self.doors, handle.clone(), extras, async move {
            closed.requested().await
        });
        let doors = tokio::task::spawn_local(doors);
        let grace = config.server.shutdown_grace;
        stopped(until, &handle, &self.log, grace, &stop, &phase, &plane).await;
        close_doors.request();
        said(doors.await);
        drop(handle);
        control.abort();
        // A join error is a panic there, which was reported when it happened.
        let _ = tokio::task::spawn_blocking(move || plane.join()).await;
        let log = self.log;
        let _ = tokio::task::spawn_blocking(move || log.finish(LOG_FLUSH)).await;
        self.store.close().await;
        Ok(())
    }
}

/// The TLS of each listener that has any.
fn terminators(listeners: &[config::Listener]) -> Result<Vec<Option<Arc<Terminator>>>, RunError> {
    let mut tickets = None;
    let terminators = listeners.iter().map(|listener| {
        let Some(tls) = &listener.tls else { return Ok(None) };
        let failed = |source| RunError::Tls {
            address: listener.address.clone(),
            source,
        };
        let tickets = match &tickets {
            Some(tickets) => tickets,
            None => tickets.insert(tls::Tickets::new().map_err(failed)?),
        };
        let terminator = Terminator::new(&tls.settings, tickets).map_err(failed)?;
        Ok(Some(Arc::new(terminator)))
    });
    terminators.collect()
}

/// Every listener's certificates.
fn certificates_of(terminators: &[Option<Arc<Terminator>>]) -> Vec<Arc<Certificates>> {
    let with_tls = terminators.iter().flatten();
    with_tls.map(|one| Arc::clone(one.certificates())).collect()
}

/// The listeners as the control plane knows them.
fn entrances(
    config: &Config,
    addresses: &[ListenAddress],
    terminators: &[Option<Arc<Terminator>>],
) -> Vec<Entrance> {
    let all = config.listeners.iter().zip(addresses).zip(terminators);
    all.map(|((listener, address), tls)| Entrance {
        address: address.clone(),
        tls: tls.clone(),
        proxy_protocol: listener.proxy_protocol,
        redirects: listener.redirect_https.is_some(),
    })
    .collect()
}

/// The doors end within seconds by themselves; an error there is said and ends nothing else.
fn said(doors: Result<io::Result<()>, tokio::task::JoinError>) {
    match doors {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::error!(%error, "the admin doors failed"),
        Err(error) => tracing::error!(%error, "the admin doors panicked"),
    }
}

/// A reload also reads the token files again.
fn reread_tokens(tokens: admin::Tokens) -> crate::control::OnReload {
    Box::new(move |config: &Config| match tokens.reload(&config.admin.tokens) {
        Ok(warnings) => warnings,
        Err(error) => vec![format!("{error}; the tokens in use stay")],
    })
}

/// The table before the first: nothing matches.
fn empty_table(config: &Config) -> RoutingTable {
    RoutingTable {
        version: 0,
        apps: Vec::new(),
        matcher: Arc::default(),
        edge: Arc::new(Edge {
            limits: config.limits,
            trusted: config.server.trusted_proxies.clone(),
            preview: None,
            trusts_unix: config.server.trusts_unix,
            errors: Arc::new(config.errors.clone()),
        }),
    }
}

/// A secret that no client can guess, new in every process.
fn secret() -> io::Result<HeaderValue> {
    let mut bytes = [0_u8; 16];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    HeaderValue::try_from(text).map_err(io::Error::other)
}

type FileWatch = (
    Option<mpsc::Receiver<config::Changed>>,
    Option<config::WatchGuard>,
);

fn watch_file(file: Option<&(PathBuf, ContentHash, String)>) -> FileWatch {
    let Some((path, hash, _)) = file else {
        return (None, None);
    };
    match config::watch(path.clone(), *hash) {
        Ok((changes, guard, warning)) => {
            if let Some(warning) = warning {
                tracing::warn!("{warning}");
            }
            (Some(changes), Some(guard))
        }
        Err(error) => {
            tracing::warn!(%error, "the config file is not watched; `cutover reload` and SIGHUP still work");
            (None, None)
        }
    }
}

/// Watch the files of all certificates, whichever a reload makes them.
fn watch_certificates(certificates: Vec<Arc<Certificates>>, originators: &Arc<Originators>) -> FileWatch {
    let originators = Arc::clone(originators);
    let files = move || {
        let ours = certificates.iter().flat_map(|one| one.files());
        ours.chain(originators.files()).collect()
    };
    match config::watch_files(files) {
        Ok((changes, guard, warning)) => {
            if let Some(warning) = warning {
                tracing::warn!("{warning}");
            }
            (Some(changes), Some(guard))
        }
        Err(error) => {
            tracing::warn!(%error, "certificates are not watched; `cutover reload` and SIGHUP still work");
            (None, None)
        }
    }
}

fn announce(addresses: &[ListenAddress], socket: &Path, tcp: Option<std::net::SocketAddr>) {
    for address in addresses {
        tracing::info!(%address, "listening");
    }
    tracing::info!(socket = %socket.display(), "admin socket");
    if let Some(address) = tcp {
        tracing::info!(%address, "admin over TCP");
    }
}

/// Wait for the end, then bring it about: unready, settle, close the listeners, finish, give up when time is over.
async fn stopped(
    until: Until,
    handle: &Handle,
    log: &Arc<AccessLog>,
    grace: Duration,
    stop: &shutdown::Trigger,
    phase: &watch::Sender<Phase>,
    plane: &Plane,
) {
    let mut signals = match until {
        Until::Told(mut watcher) => {
            watcher.requested().await;
            None
        }
        Until::Signal => {
            let mut signals = Signals::new();
            signals.first(handle, log).await;
            Some(signals)
        }
    };
    let begun = Instant::now();
    stop.request();
    tracing::info!("stopping: no longer ready; finishing what runs");
    let settles = signals.is_some();
    let finish = async {
        if settles {
            tokio::time::sleep(SETTLE.min(grace)).await;
        }
        plane.close_listeners();
        phase.send_replace(Phase::Closing);
        // Kept streams are told shortly before the end, so that they can say good-bye within the grace.
        let farewell = grace - FAREWELL.min(grace / 2);
        while !plane.is_finished() && begun.elapsed() < grace {
            if begun.elapsed() >= farewell {
                phase.send_if_modified(|phase| std::mem::replace(phase, Phase::Ending) != Phase::Ending);
            }
            tokio::time::sleep(LOOK).await;
        }
    };
    tokio::select! {
        () = finish => {}
        () = second(&mut signals) => tracing::warn!("second signal: stopping at once"),
    }
    if !plane.is_finished() {
        tracing::warn!("requests still running are cut");
        phase.send_replace(Phase::Killed);
    }
}

/// The signals that a server listens to. One that cannot be had is said, and then never comes.
#[derive(Debug)]
struct Signals {
    term: Option<Signal>,
    interrupt: Option<Signal>,
    quit: Option<Signal>,
    hangup: Option<Signal>,
}

impl Signals {
    fn new() -> Self {
        let get = |kind| {
            signal(kind)
                .inspect_err(|error| tracing::error!(%error, "a signal cannot be listened to"))
                .ok()
        };
        Self {
            term: get(SignalKind::terminate()),
            interrupt: get(SignalKind::interrupt()),
            quit: get(SignalKind::quit()),
            hangup: get(SignalKind::hangup()),
        }
    }

    /// The first that ends the process; SIGHUP meanwhile reloads config and access log.
    async fn first(&mut self, handle: &Handle, log: &Arc<AccessLog>) {
        loop {
            tokio::select! {
                () = received(&mut self.term) => return,
                () = received(&mut self.interrupt) => return,
                () = received(&mut self.quit) => return,
                () = received(&mut self.hangup) => {
                    log.reopen();
                    let handle = handle.clone();
                    tokio::task::spawn_local(async move {
                        let by = Actor { name: "SIGHUP".to_owned(), trigger: Trigger::File };
                        // The verdict is told in the log, as event, metric and in status.
                        let _ = handle.reload(by).await;
                    });
                }
            }
        }
    }
}

async fn second(signals: &mut Option<Signals>) {
    match signals {
        Some(signals) => tokio::select! {
            () = received(&mut signals.term) => {}
            () = received(&mut signals.interrupt) => {}
            () = received(&mut signals.quit) => {}
        },
        None => std::future::pending().await,
    }
}

async fn received(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => {
            signal.recv().await;
        }
        None => std::future::pending().await,
    }
}
