//! What grows with the configuration, in one process: looking up a route, publishing a switch. Called by scale.py.
//!
//! Prints one line of JSON. Nanoseconds for lookups, microseconds for publishes.

#![allow(missing_docs, clippy::unwrap_used, reason = "a bench is a program of its own")]
#![allow(clippy::print_stdout, reason = "what it prints is its result")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use cutover::config::{self, App, Config, HostPattern, PathMatch};
use cutover::metrics::Registry;
use cutover::rollout::{AppState, ByColor, Color};
use cutover::routing::{
    AppInput, AppRoute, Built, Edge, Fixed, HostBuffer, Matcher, Place, Published, Resolved, RoutingTable,
    rebuild, with_app,
};
use cutover::tls::Originators;
use jiff::Timestamp;

fn main() {
    let parts = [
        ("lookup_10", lookup(10, 5)),
        ("lookup_10000", lookup(10_000, 5)),
        ("lookup_10000_all_hosts", lookup(10_000, 5_000)),
        ("lookup_10_paths", lookup_path(10)),
        ("lookup_10000_paths", lookup_path(10_000)),
    ];
    let mut line: Vec<String> = parts
        .iter()
        .map(|(name, nanoseconds)| format!("\"{name}\": {nanoseconds:.1}"))
        .collect();
    for (apps, endpoints) in [(100, 5), (1_000, 4)] {
        line.push(format!(
            "\"publish_{apps}x{}\": {}",
            2 * endpoints,
            publish(apps, endpoints)
        ));
    }
    println!("{{{}}}", line.join(", "));
}

/// `count` routes of apps with a host each and two services; requests go to `hosts` of them in turn.
fn lookup(count: usize, hosts: usize) -> f64 {
    let mut matcher = Matcher::default();
    for app in 0..count / 2 {
        let host = [HostPattern::Exact(format!("app{app}.example.com"))];
        for (service, path) in ["/", "/api"].into_iter().enumerate() {
            matcher.add(&host, &PathMatch::Prefix(path.into()), Place { app, service });
        }
    }
    // A stride that is prime to all counts: neighbours in time are none in memory.
    let asked: Vec<String> = (0..hosts)
        .map(|host| format!("app{}.example.com:8080", host * 2_477 % hosts))
        .collect();
    time(&asked, |authority| {
        let mut buffer = HostBuffer::new();
        let host = buffer.normalise(authority).unwrap();
        matcher.find(host, "/api/v1/things/42").unwrap()
    })
}

/// One app with `count` services by path.
fn lookup_path(count: usize) -> f64 {
    let mut matcher = Matcher::default();
    for service in 0..count {
        let path = PathMatch::Prefix(format!("/part{service:05}"));
        matcher.add(&[], &path, Place { app: 0, service });
    }
    let asked: Vec<String> = (0..5)
        .map(|part| format!("/part{part:05}/v1/things/42"))
        .collect();
    time(&asked, |path| matcher.find("shop.example.com", path).unwrap())
}

/// The median of many short runs, in nanoseconds a call.
fn time<T>(asked: &[String], mut call: impl FnMut(&str) -> T) -> f64 {
    const CALLS: usize = 20_000;
    let mut runs: Vec<f64> = (0..101)
        .map(|_| {
            let start = Instant::now();
            for text in asked.iter().cycle().take(CALLS) {
                black_box(call(black_box(text)));
            }
            start.elapsed().as_nanos() as f64 / CALLS as f64
        })
        .collect();
    runs.sort_by(f64::total_cmp);
    runs[runs.len() / 2]
}

struct World {
    config: Config,
    registry: Registry,
    resolved: Resolved,
}

impl World {
    fn new(apps: usize, endpoints: usize) -> Self {
        let mut text =
            "[server]\nstate_dir = \"/nowhere\"\n[[listener]]\naddress = \"127.0.0.1:0\"\n".to_owned();
        for app in 0..apps {
            let list = |color: usize| {
                let one =
                    |index: usize| format!("\"127.{color}.{}.{}:{}\"", app / 250, app % 250, 1_000 + index);
                (0..endpoints).map(one).collect::<Vec<_>>().join(", ")
            };
            let (blue, green) = (list(1), list(2));
            write!(
                text,
                "[app.a{app}]\nhosts = [\"a{app}.test\"]\nblue = [{blue}]\ngreen = [{green}]\n"
            )
            .unwrap();
        }
        Self {
            config: config::parse(&text, "bench", &|_| None).unwrap(),
            registry: Registry::new(2, 1),
            resolved: Resolved::default(),
        }
    }

    fn build(&self, app: &App, active: Color, before: Option<&AppRoute>) -> Built {
        let state = AppState::first(active, Timestamp::UNIX_EPOCH);
        let endpoints = ByColor::from_fn(|color| {
            let lists = app.services.values();
            lists
                .map(|service| (service.name.clone(), service.endpoints[color].clone()))
                .collect::<BTreeMap<_, _>>()
        });
        let fixed = Fixed {
            workers: 2,
            registry: &self.registry,
            drained: &Arc::default(),
            originators: &Originators::default(),
        };
        let input = AppInput {
            config: app,
            state: &state,
            degraded: false,
            endpoints: &endpoints,
        };
        rebuild(fixed, input, &self.resolved, before, Instant::now())
    }
}

/// Switches of one app after the other while another thread reads the table as a worker does: what building and publishing
/// take, and the publish of the pointer alone.
fn publish(apps: usize, endpoints: usize) -> String {
    const SWITCHES: usize = 2_000;
    let world = World::new(apps, endpoints);
    let all: Vec<&App> = world.config.apps.values().collect();
    let table = RoutingTable {
        version: 1,
        apps: all
            .iter()
            .map(|app| world.build(app, Color::Blue, None).app)
            .collect(),
        matcher: Arc::new(cutover::routing::matcher(&world.config)),
        edge: Arc::new(Edge {
            limits: world.config.limits,
            trusted: Vec::new(),
            preview: None,
            trusts_unix: false,
            errors: Arc::new(world.config.errors.clone()),
        }),
    };
    let published = Published::new(table, 2);
    let stop = AtomicBool::new(false);
    let (mut whole, mut pointer) = (Vec::new(), Vec::new());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                black_box(published.load().version);
                std::thread::sleep(Duration::from_micros(10));
            }
        });
        for number in 0..SWITCHES {
            let app = all[number * 37 % all.len()];
            let start = Instant::now();
            let before = published.load_full();
            let active = before.app(&app.name).unwrap().active.other();
            let built = world.build(app, active, before.app(&app.name).map(|before| &**before));
            let table = with_app(&before, built.app);
            let swap = Instant::now();
            drop(black_box(published.publish(table)));
            pointer.push(swap.elapsed());
            whole.push(start.elapsed());
            for (_, gate) in built.closing {
                gate.close();
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    format!(
        "{{\"built_and_published_us\": {}, \"published_us\": {}}}",
        percentiles(&mut whole),
        percentiles(&mut pointer)
    )
}

fn percentiles(times: &mut [Duration]) -> String {
    times.sort_unstable();
    let at =
        |share: usize| times[(times.len() * share / 1_000).min(times.len() - 1)].as_nanos() as f64 / 1_000.0;
    format!(
        "{{\"p50\": {}, \"p99\": {}, \"max\": {}}}",
        at(500),
        at(990),
        at(1_000)
    )
}
