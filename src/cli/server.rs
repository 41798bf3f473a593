//! Verbs that need no running server: the server itself, and what is about files.

use std::path::{Path, PathBuf};

use clap::CommandFactory;
use serde_json::json;

use super::args::{Cli, Common, Run};
use super::failure::Failure;
use super::output::{Output, Paint};
use crate::admin::Exit;
use crate::app::{self, Origin, RunError, RunOptions};
use crate::config::{self, Diagnostics, Severity};
use crate::demo;

/// Looked for when `-c` is not given.
const DEFAULT_FILES: [&str; 2] = ["cutover.toml", "/etc/cutover/cutover.toml"];

/// Where `run` without a file listens when nobody says.
const DEFAULT_LISTEN: &str = "127.0.0.1:8080";

pub(super) fn run(verb: &Run, common: &Common) -> Result<(), Failure> {
    let flags = verb.listen.is_some() || !verb.blue.is_empty() || !verb.green.is_empty();
    let origin = if flags {
        if verb.blue.is_empty() && verb.green.is_empty() {
            return Err(Failure::usage(
                "--listen without a color: give --blue, --green or both",
            ));
        }
        Origin::Flags {
            listen: verb.listen.clone().unwrap_or_else(|| DEFAULT_LISTEN.to_owned()),
            blue: verb.blue.clone(),
            green: verb.green.clone(),
        }
    } else {
        Origin::File(file(common)?)
    };
    let options = RunOptions {
        origin,
        initial: verb.initial.map(|name| name.0),
    };
    ended(app::run(&options))
}

pub(super) fn demo() -> Result<(), Failure> {
    ended(demo::run(&mut std::io::stdout()))
}

fn ended(result: Result<(), RunError>) -> Result<(), Failure> {
    result.map_err(|error| match error {
        RunError::Config(diagnostics) => Failure::new(Exit::ConfigInvalid, diagnostics.render(false)),
        error @ RunError::Tls { .. } => Failure::new(Exit::ConfigInvalid, error.to_string()),
        other => Failure::new(Exit::Failed, other.to_string()),
    })
}

/// The file named with `-c`, or the first default that exists.
pub(super) fn file(common: &Common) -> Result<PathBuf, Failure> {
    if let Some(file) = &common.config {
        return Ok(file.clone());
    }
    let found = DEFAULT_FILES
        .into_iter()
        .map(Path::new)
        .find(|path| path.exists());
    found.map(Path::to_owned).ok_or_else(|| {
        Failure::new(
            Exit::ConfigInvalid,
            format!(
                "no config file: there is no {}; name one with -c FILE, or run with --listen, --blue and --green",
                DEFAULT_FILES.join(" and no ")
            ),
        )
    })
}

pub(super) fn check(
    common: &Common,
    env: &dyn Fn(&str) -> Option<String>,
    output: &mut Output,
) -> Result<(), Failure> {
    let path = file(common)?;
    let name = path.display();
    let checked = config::load(&path, env).and_then(|loaded| loaded.with_files(None));
    match checked {
        Ok(loaded) => {
            let apps = loaded.config.apps.len();
            let endpoints: usize = loaded
                .config
                .apps
                .values()
                .flat_map(|app| app.services.values())
                .map(|service| service.endpoints.blue.len() + service.endpoints.green.len())
                .sum();
            if common.json {
                let report = json!({
                    "schema": "cutover.check/v1",
                    "ok": true,
                    "file": path,
                    "hash": loaded.hash.to_string(),
                    "diagnostics": list(&loaded.warnings),
                });
                output.data(&report.to_string());
                return Ok(());
            }
            if !loaded.warnings.is_empty() && !common.quiet {
                let warnings = loaded.warnings.render(output.paint_errors == Paint::Ansi);
                output.note(&warnings);
            }
            let count = |number: usize, word: &str| {
                let plural = if number == 1 { "" } else { "s" };
                format!("{number} {word}{plural}")
            };
            output.data(&match common.quiet {
                true => "ok".to_owned(),
                false => format!(
                    "{name}: ok ({}, {})",
                    count(apps, "app"),
                    count(endpoints, "endpoint")
                ),
            });
            Ok(())
        }
        Err(diagnostics) => {
            let mut failure = Failure::new(
                Exit::ConfigInvalid,
                format!(
                    "{name}: refused\n{}",
                    diagnostics.render(output.paint_errors == Paint::Ansi)
                ),
            );
            failure.json = Some(
                json!({
                    "schema": "cutover.check/v1",
                    "ok": false,
                    "file": path,
                    "diagnostics": list(&diagnostics),
                })
                .to_string(),
            );
            Err(failure)
        }
    }
}

fn list(diagnostics: &Diagnostics) -> Vec<serde_json::Value> {
    let one = |item: &config::Diagnostic| {
        json!({
            "severity": match item.severity {
                Severity::Error => "error",
                Severity::Warning => "warning",
            },
            "code": item.code,
            "message": item.message,
            "line": item.line,
            "column": item.column,
            "hint": item.hint,
        })
    };
    diagnostics.items.iter().map(one).collect()
}

pub(super) fn schema(output: &mut Output) -> Result<(), Failure> {
    output.data(&format!("{:#}", config::schema()));
    Ok(())
}

pub(super) fn completion(shell: clap_complete::Shell, output: &mut Output) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "cutover", &mut script);
    output.data(&String::from_utf8_lossy(&script));
    Ok(())
}

pub(super) fn man(output: &mut Output) -> Result<(), Failure> {
    let mut page = Vec::new();
    clap_mangen::Man::new(Cli::command())
        .render(&mut page)
        .map_err(|error| Failure::new(Exit::Failed, error.to_string()))?;
    let mut page = String::from_utf8_lossy(&page).into_owned();
    page.push_str(".SH \"EXIT STATUS\"\n");
    for exit in Exit::ALL {
        page.push_str(&format!(".TP\n{}\n{}\n", exit.number(), exit.meaning()));
    }
    output.data(&page);
    Ok(())
}
