#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test panics to fail")]

use std::collections::BTreeSet;
use std::time::Duration;

use http::Method;
use jiff::Timestamp;

use super::*;
use crate::metrics::names::Kind;
use crate::metrics::{EndpointGauge, SwitchResult};
use crate::rollout::Trigger;

const MS: Duration = Duration::from_millis(1);

/// An exposition with two workers and two listeners, and the apps it will be told of.
struct Bench {
    registry: Arc<Registry>,
    control: Arc<ControlMetrics>,
    dropped: Arc<AtomicU64>,
    apps: Arc<Mutex<Vec<AppGauges>>>,
    exposition: Exposition,
}

fn bench(apps: Vec<AppGauges>) -> Bench {
    let registry = Arc::new(Registry::new(2, 2));
    let control = Arc::new(ControlMetrics::default());
    let dropped = Arc::new(AtomicU64::new(0));
    let apps = Arc::new(Mutex::new(apps));
    let told = Arc::clone(&apps);
    let exposition = Exposition::new(
        Arc::clone(&registry),
        Arc::clone(&control),
        vec!["127.0.0.1:8080".to_owned(), "unix:/run/web.sock".to_owned()],
        Arc::clone(&dropped),
        Box::new(move || told.lock().unwrap().clone()),
        Box::new(certificates),
    );
    Bench {
        registry,
        control,
        dropped,
        apps,
        exposition,
    }
}

/// One file on two listeners, of which one has refused what it holds now, and another file.
fn certificates() -> Vec<CertificateView> {
    let view = |cert: &str, not_after, up_to_date| CertificateView {
        cert: cert.to_owned(),
        not_after,
        up_to_date,
    };
    vec![
        view("a.pem", 1_900_000_000, true),
        view("a.pem", 1_800_000_000, false),
        view("b.pem", 1_700_000_000, true),
    ]
}

#[test]
fn handshakes_are_summed_and_each_certificate_is_one_series() {
    let bench = bench(Vec::new());
    let cells = |worker: usize| &bench.registry.worker_cells[worker].tls;
    cells(0).shaken(true, false);
    cells(1).shaken(true, false);
    cells(1).shaken(false, true);
    cells(1).refused.add(3);
    cells(0).left.add(1);
    cells(1).timed_out.add(2);
    let text = bench.exposition.render();
    for line in [
        r#"cutover_tls_handshakes_total{version="1.3",resumed="false"} 2"#,
        r#"cutover_tls_handshakes_total{version="1.3",resumed="true"} 0"#,
        r#"cutover_tls_handshakes_total{version="1.2",resumed="true"} 1"#,
        r#"cutover_tls_handshake_failures_total{reason="refused"} 3"#,
        r#"cutover_tls_handshake_failures_total{reason="left"} 1"#,
        r#"cutover_tls_handshake_failures_total{reason="timeout"} 2"#,
        r#"cutover_tls_cert_not_after_timestamp_seconds{cert="a.pem"} 1800000000"#,
        r#"cutover_tls_cert_up_to_date{cert="a.pem"} 0"#,
        r#"cutover_tls_cert_up_to_date{cert="b.pem"} 1"#,
    ] {
        has(&text, line);
    }
    assert_eq!(text.matches("cert_up_to_date{").count(), 2);
}

fn app(name: &str, endpoints: Vec<EndpointGauge>) -> AppGauges {
    AppGauges {
        app: name.to_owned(),
        active: Color::Blue,
        share: ByColor { blue: 90, green: 10 },
        generation: 4,
        held: 3,
        degraded: false,
        spilled: 7,
        rule_errors: 3,
        skew_rescued: 0,
        mirrored: crate::metrics::Mirrored::default(),
        services: vec!["web".to_owned()],
        endpoints,
        queues: vec![crate::metrics::QueueGauge {
            service: "web".to_owned(),
            color: Color::Blue,
            waiting: 2,
            overflowed: 5,
            timed_out: 6,
        }],
    }
}

fn endpoint(color: Color, name: &str, connect_errors: u64) -> EndpointGauge {
    EndpointGauge {
        service: "web".to_owned(),
        color,
        endpoint: name.to_owned(),
        up: true,
        ejected: false,
        connect_errors,
    }
}

fn get(bench: &Bench, color: Color, worker: usize, times: u64) {
    for _ in 0..times {
        let pool = bench.registry.pool("shop", "web", Some(color));
        pool.workers[worker].finished(&Method::GET, 200, MS);
    }
}

#[track_caller]
fn has(text: &str, line: &str) {
    assert!(text.lines().any(|is| is == line), "no line `{line}` in\n{text}");
}

#[track_caller]
fn lacks(text: &str, part: &str) {
    let found: Vec<&str> = text.lines().filter(|line| line.contains(part)).collect();
    assert!(found.is_empty(), "{found:?}");
}

/// Something in every family, with the label values nobody should choose.
fn full() -> Bench {
    let nasty = "unix:/run/\"a\\b\"\n.sock";
    let bench = bench(vec![app(
        "shop",
        vec![
            endpoint(Color::Blue, nasty, 2),
            endpoint(Color::Green, "green:1", 0),
        ],
    )]);
    let blue = bench.registry.pool("shop", "web", Some(Color::Blue));
    for (worker, cells) in blue.workers.iter().enumerate() {
        cells.finished(&Method::GET, 200, MS);
        cells.finished(&Method::from_bytes(b"BREW").unwrap(), 999, 10 * MS);
        cells.finished(&Method::from_bytes(b"WHEN").unwrap(), 99, 200_000 * MS);
        cells.upstream.record(Duration::from_micros(250));
        cells.in_flight.add(worker as i64 + 1);
        cells.retries.add(1);
    }
    let undecided = bench.registry.pool("shop", "web", None);
    undecided.workers[0].finished(&Method::POST, 503, MS);
    let unrouted = &bench.registry.worker_cells[1].unrouted;
    unrouted.finished(&Method::GET, 404, MS);
    bench.registry.worker_cells[0].connections[0].add(5);
    bench.registry.worker_cells[1].connections[0].add(6);
    let colors = (Color::Blue, Color::Green);
    for result in SwitchResult::ALL {
        bench
            .control
            .switched("shop", colors, Trigger::Cli, result, 20 * MS);
    }
    bench.control.drained(2000 * MS);
    bench.control.drain_cancelled(3);
    bench
        .control
        .reloaded(Timestamp::from_second(1_700_000_000).unwrap());
    bench.control.reload_failed();
    bench.control.state_write_failed();
    bench.control.first_start_without_state();
    bench.control.docker(Some(false));
    bench.dropped.store(12, Relaxed);
    bench
}

#[test]
fn the_workers_are_summed() {
    let text = full().exposition.render();
    for line in [
        r#"cutover_requests_total{app="shop",service="web",color="blue",method="GET",code="200"} 2"#,
        r#"cutover_requests_total{app="shop",service="web",color="blue",method="OTHER",code="other"} 4"#,
        r#"cutover_requests_total{app="shop",service="web",color="",method="POST",code="503"} 1"#,
        r#"cutover_requests_total{app="",service="",color="",method="GET",code="404"} 1"#,
        r#"cutover_requests_in_flight{app="shop",service="web",color="blue"} 3"#,
        r#"cutover_retries_total{app="shop",service="web",color="blue"} 2"#,
        r#"cutover_connections{listener="127.0.0.1:8080"} 11"#,
        r#"cutover_connections{listener="unix:/run/web.sock"} 0"#,
        "cutover_access_log_dropped_total 12",
    ] {
        has(&text, line);
    }
    lacks(&text, "BREW");
}

#[test]
fn a_histogram_is_cumulative_and_in_seconds() {
    let text = full().exposition.render();
    let name = "cutover_request_duration_seconds";
    let pool = r#"app="shop",service="web",color="blue""#;
    for line in [
        format!(r#"{name}_bucket{{{pool},le="0.0008"}} 0"#),
        format!(r#"{name}_bucket{{{pool},le="0.001"}} 2"#),
        format!(r#"{name}_bucket{{{pool},le="0.008"}} 2"#),
        format!(r#"{name}_bucket{{{pool},le="0.01"}} 4"#),
        format!(r#"{name}_bucket{{{pool},le="100"}} 4"#),
        format!(r#"{name}_bucket{{{pool},le="+Inf"}} 6"#),
        format!("{name}_sum{{{pool}}} 400.022"),
        format!("{name}_count{{{pool}}} 6"),
        format!(r#"cutover_upstream_duration_seconds_bucket{{{pool},le="0.00025"}} 2"#),
        r#"cutover_switch_duration_seconds_bucket{le="0.02"} 2"#.to_owned(),
        "cutover_switch_duration_seconds_sum 0.04".to_owned(),
        "cutover_drain_seconds_count 1".to_owned(),
    ] {
        has(&text, &line);
    }
}

#[test]
fn the_apps_levels_are_there() {
    let text = full().exposition.render();
    for line in [
        r#"cutover_active{app="shop",color="blue"} 1"#,
        r#"cutover_active{app="shop",color="green"} 0"#,
        r#"cutover_weight_ratio{app="shop",color="blue",kind="desired"} 0.9"#,
        r#"cutover_weight_ratio{app="shop",color="green",kind="desired"} 0.1"#,
        r#"cutover_generation{app="shop"} 4"#,
        r#"cutover_held_requests{app="shop"} 3"#,
        r#"cutover_app_degraded{app="shop"} 0"#,
        r#"cutover_spilled_total{app="shop"} 7"#,
        r#"cutover_endpoint_up{app="shop",service="web",color="blue",endpoint="unix:/run/\"a\\b\"\n.sock"} 1"#,
        r#"cutover_switches_total{app="shop",from="blue",to="green",trigger="cli",result="rolled_back"} 1"#,
        r#"cutover_config_reloads_total{result="success"} 1"#,
        r#"cutover_config_reloads_total{result="failure"} 1"#,
        "cutover_config_last_reload_successful 0",
        "cutover_config_last_reload_success_timestamp_seconds 1700000000",
        "cutover_state_write_errors_total 1",
        "cutover_first_start_without_state 1",
        "cutover_docker_up 0",
        "cutover_drain_cancelled_total 3",
        concat!(
            "cutover_build_info{version=\"",
            env!("CARGO_PKG_VERSION"),
            "\"} 1"
        ),
    ] {
        has(&text, line);
    }
}

/// The names that a text has a `# TYPE` line for, with their types, in order.
fn families(text: &str) -> Vec<(&str, &str)> {
    text.lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '))
        .collect()
}

#[test]
fn exactly_the_named_families_are_exported() {
    let text = full().exposition.render();
    let mut named: Vec<&Metric> = names::ALL.to_vec();
    if cfg!(target_os = "linux") {
        named.extend(names::PROCESS);
    }
    let exported: BTreeSet<_> = families(&text).into_iter().collect();
    let wanted: BTreeSet<_> = named
        .iter()
        .map(|metric| (metric.name, metric.kind.as_str()))
        .collect();
    assert_eq!(exported, wanted);
    let ours = families(&text).into_iter().map(|(name, _)| name);
    let ours: Vec<&str> = ours.filter(|name| name.starts_with("cutover_")).collect();
    assert!(
        ours.iter().eq(names::ALL.iter().map(|metric| &metric.name)),
        "{ours:?}"
    );
}

#[test]
fn every_sample_has_its_metrics_labels_and_is_alone() {
    let text = full().exposition.render();
    let mut seen = BTreeSet::new();
    for line in text.lines().filter(|line| line.starts_with("cutover_")) {
        let (series, value) = line.rsplit_once(' ').unwrap();
        assert!(seen.insert(series), "twice: {series}");
        assert!(value.parse::<f64>().unwrap().is_finite(), "{line}");
        let (name, labels) = series
            .strip_suffix('}')
            .map_or((series, ""), |series| series.split_once('{').unwrap());
        let metric = names::ALL
            .iter()
            .find(|metric| match metric.kind {
                Kind::Histogram => ["_bucket", "_sum", "_count"]
                    .iter()
                    .any(|suffix| name.strip_suffix(suffix) == Some(metric.name)),
                _ => metric.name == name,
            })
            .unwrap_or_else(|| panic!("unnamed: {name}"));
        let mut wanted = metric.labels.to_vec();
        if name.ends_with("_bucket") {
            wanted.push("le");
        }
        assert_eq!(label_names(labels), wanted, "{line}");
    }
}

/// The label names of the inside of braces, honouring quotes.
fn label_names(labels: &str) -> Vec<&str> {
    let mut names = Vec::new();
    let mut rest = labels;
    while let Some((name, value)) = rest.split_once("=\"") {
        names.push(name);
        let mut escaped = false;
        let end = value.find(|c| {
            let ends = c == '"' && !escaped;
            escaped = c == '\\' && !escaped;
            ends
        });
        rest = value[end.expect("an unclosed value") + 1..].trim_start_matches(',');
    }
    assert_eq!(rest, "");
    names
}

#[test]
fn the_actual_share_is_that_of_the_requests_between_two_scrapes() {
    let bench = bench(vec![app("shop", vec![])]);
    get(&bench, Color::Blue, 0, 50);
    lacks(&bench.exposition.render(), r#"kind="actual""#);
    get(&bench, Color::Blue, 1, 3);
    get(&bench, Color::Green, 0, 1);
    let text = bench.exposition.render();
    has(
        &text,
        r#"cutover_weight_ratio{app="shop",color="blue",kind="actual"} 0.75"#,
    );
    has(
        &text,
        r#"cutover_weight_ratio{app="shop",color="green",kind="actual"} 0.25"#,
    );
    // No requests since: nothing to say.
    lacks(&bench.exposition.render(), r#"kind="actual""#);
}

#[test]
fn the_actual_share_is_left_out_across_a_change() {
    let bench = bench(vec![app("shop", vec![])]);
    let _first = bench.exposition.render();
    get(&bench, Color::Blue, 0, 1);
    bench.apps.lock().unwrap()[0].generation = 5;
    lacks(&bench.exposition.render(), r#"kind="actual""#);
    get(&bench, Color::Green, 0, 1);
    let text = bench.exposition.render();
    has(
        &text,
        r#"cutover_weight_ratio{app="shop",color="green",kind="actual"} 1"#,
    );
    has(
        &text,
        r#"cutover_weight_ratio{app="shop",color="blue",kind="actual"} 0"#,
    );
}

#[test]
fn a_removed_apps_levels_go_and_its_counters_stay() {
    let bench = full();
    let _first = bench.exposition.render();
    bench.apps.lock().unwrap().clear();
    let text = bench.exposition.render();
    for gauge in [
        "endpoint_up{",
        "active{",
        "weight_ratio{",
        "generation{",
        "held_requests{",
        "app_degraded{",
    ] {
        lacks(&text, gauge);
    }
    // Its last requests have not ended; then the level goes too.
    has(
        &text,
        r#"cutover_requests_in_flight{app="shop",service="web",color="blue"} 3"#,
    );
    let blue = bench.registry.pool("shop", "web", Some(Color::Blue));
    blue.workers[0].in_flight.add(-1);
    blue.workers[1].in_flight.add(-2);
    let text = bench.exposition.render();
    lacks(&text, r#"requests_in_flight{app="shop""#);
    has(
        &text,
        r#"cutover_requests_total{app="shop",service="web",color="blue",method="GET",code="200"} 2"#,
    );
    has(
        &text,
        r#"cutover_upstream_connect_errors_total{app="shop",service="web",color="blue"} 2"#,
    );
}

#[test]
fn connect_errors_never_fall_when_endpoints_come_and_go() {
    let bench = bench(vec![app("shop", vec![])]);
    let total = |endpoints: Vec<EndpointGauge>, wanted: u64| {
        bench.apps.lock().unwrap()[0].endpoints = endpoints;
        let line = format!(
            r#"cutover_upstream_connect_errors_total{{app="shop",service="web",color="blue"}} {wanted}"#
        );
        has(&bench.exposition.render(), &line);
    };
    let blue = |name: &str, errors: u64| endpoint(Color::Blue, name, errors);
    total(vec![], 0);
    total(vec![blue("a:1", 10), blue("b:1", 1)], 11);
    total(vec![blue("b:1", 3)], 13);
    // Another endpoint under the old name begins at zero.
    total(vec![blue("a:1", 2), blue("b:1", 3)], 15);
    total(vec![blue("a:1", 2), blue("b:1", 1)], 16);
}

#[test]
fn endpoints_of_one_name_are_one_series() {
    let mut down = endpoint(Color::Blue, "web:1", 1);
    down.up = false;
    let bench = bench(vec![app("shop", vec![endpoint(Color::Blue, "web:1", 1), down])]);
    let text = bench.exposition.render();
    let up: Vec<&str> = text
        .lines()
        .filter(|line| line.starts_with("cutover_endpoint_up"))
        .collect();
    assert_eq!(
        up,
        [r#"cutover_endpoint_up{app="shop",service="web",color="blue",endpoint="web:1"} 1"#]
    );
    has(
        &text,
        r#"cutover_upstream_connect_errors_total{app="shop",service="web",color="blue"} 2"#,
    );
}

#[test]
fn promtool_accepts_it() {
    names::tests::promtool(&["check", "metrics"], &full().exposition.render());
    names::tests::promtool(&["check", "metrics"], &bench(vec![]).exposition.render());
}

#[test]
fn a_thousand_apps_are_rendered_whole() {
    let apps: Vec<AppGauges> = (0..1000).map(|n| app(&format!("app-{n}"), vec![])).collect();
    let bench = bench(apps);
    for n in 0..1000 {
        for color in Color::ALL {
            let pool = bench.registry.pool(&format!("app-{n}"), "web", Some(color));
            pool.workers[n % 2].finished(&Method::GET, 200, MS);
        }
    }
    let text = bench.exposition.render();
    let inf = text.matches(r#"le="+Inf"} 1"#).count();
    assert_eq!(inf, 2000);
}
