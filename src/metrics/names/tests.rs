//! Names keep to the conventions, and what is written for operators names nothing else.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test panics to fail")]

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::*;

/// Runs `promtool` with this input and wants it to find nothing. Where it is not installed this says so on stderr,
/// and fails if `CI` is set: a check that silently does not run is none.
#[track_caller]
pub(in crate::metrics) fn promtool(arguments: &[&str], input: &str) {
    let child = Command::new("promtool")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = match child {
        Ok(child) => child,
        Err(error) => {
            let said = format!(
                "NOT CHECKED: `promtool {arguments:?}` did not run ({error}); apt-get install prometheus"
            );
            assert!(std::env::var_os("CI").is_none(), "{said}");
            // Past the capture of test output.
            writeln!(std::io::stderr(), "{said}").unwrap();
            return;
        }
    };
    let mut stdin = child.stdin.take().unwrap();
    // A tool that has seen enough closes its end; then its verdict below says why.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "promtool {arguments:?}: {said}");
    if arguments == ["check", "metrics"] {
        assert_eq!(said, "", "promtool has something to say");
    }
}

fn file(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn read(path: &str) -> String {
    std::fs::read_to_string(file(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

#[test]
fn names_keep_to_the_conventions() {
    let mut seen = BTreeSet::new();
    for metric in ALL {
        let name = metric.name;
        assert!(seen.insert(name), "{name} twice");
        assert!(name.starts_with("cutover_"), "{name}");
        assert!(name.chars().all(|c| c.is_ascii_lowercase() || c == '_'), "{name}");
        assert_eq!(name.ends_with("_total"), metric.kind == Kind::Counter, "{name}");
        assert!(
            metric.help.ends_with('.') && !metric.help.contains(['|', '\n']),
            "{name}"
        );
        assert!(!metric.labels.contains(&"le"), "{name}");
        if metric.kind == Kind::Histogram {
            assert!(name.ends_with("_seconds"), "{name}");
        }
    }
}

fn table() -> String {
    let mut out = String::from("| name | type | labels | meaning |\n|---|---|---|---|\n");
    for metric in ALL.iter().copied().chain(PROCESS) {
        let labels: Vec<String> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
        let (name, kind) = (metric.name, metric.kind.as_str());
        let (labels, help) = (labels.join(", "), metric.help);
        writeln!(out, "| `{name}` | {kind} | {labels} | {help} |").unwrap();
    }
    out
}

#[test]
fn the_page_has_this_table_and_names_nothing_else() {
    let page = read("docs/metrics.md");
    assert!(
        page.contains(&table()),
        "docs/metrics.md needs this table:\n\n{}",
        table()
    );
    for name in mentioned(&page) {
        assert!(
            known(&name),
            "docs/metrics.md names {name}, which is not exported"
        );
    }
}

#[test]
fn alerts_and_dashboard_use_exported_names_only() {
    for path in [
        "config/prometheus/prometheus.yml",
        "config/prometheus/alerts.yml",
        "config/grafana/dashboard.json",
    ] {
        for name in mentioned(&read(path)) {
            assert!(known(&name), "{path} names {name}, which is not exported");
        }
    }
    for path in ["config/prometheus/alerts.yml", "config/grafana/dashboard.json"] {
        assert!(mentioned(&read(path)).len() >= 5, "{path} names next to nothing");
    }
    let dashboard: serde_json::Value = serde_json::from_str(&read("config/grafana/dashboard.json")).unwrap();
    assert!(dashboard["panels"].as_array().unwrap().len() >= 4);
}

#[test]
fn promtool_accepts_the_examples() {
    let path = |path: &str| file(path).to_str().unwrap().to_owned();
    promtool(&["check", "rules", &path("config/prometheus/alerts.yml")], "");
    promtool(
        &["check", "config", &path("config/prometheus/prometheus.yml")],
        "",
    );
}

/// Every word that looks like one of our metrics.
fn mentioned(text: &str) -> BTreeSet<String> {
    text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
        .filter(|word| word.starts_with("cutover_") || word.starts_with("process_"))
        .map(str::to_owned)
        .collect()
}

fn known(name: &str) -> bool {
    name == "cutover_"
        || name == "process_"
        || ALL.iter().copied().chain(PROCESS).any(|metric| {
            let series = name.strip_prefix(metric.name);
            match metric.kind {
                Kind::Histogram => matches!(series, Some("" | "_bucket" | "_sum" | "_count")),
                _ => series == Some(""),
            }
        })
}
