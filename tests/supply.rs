//! What is built in: no banned crate, no licence that the binary may not be given away under. The same lists as
//! deny.toml (a test compares them), but without network, so that every run checks them.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test panics to fail")]

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

const TARGET: &str = "x86_64-unknown-linux-gnu";

#[test]
fn no_banned_crate_is_built_in() {
    let banned = denied();
    assert!(banned.contains_key("ring"), "deny.toml bans ring: {banned:?}");
    let found: Vec<String> = packages()
        .iter()
        .filter_map(|package| {
            banned
                .get(&package.name)
                .map(|why| format!("{} {}: {why}", package.name, package.version))
        })
        .collect();
    assert!(
        found.is_empty(),
        "banned (`cargo tree -i NAME` shows who wants it):\n{}",
        found.join("\n")
    );
}

#[test]
fn every_licence_is_one_we_may_ship() {
    let allowed = allowed();
    let bad: Vec<String> = packages()
        .iter()
        .filter(|package| {
            !package
                .licence
                .as_deref()
                .is_some_and(|licence| permits(licence, &allowed))
        })
        .map(|package| format!("{} {}: {:?}", package.name, package.version, package.licence))
        .collect();
    assert!(
        bad.is_empty(),
        "no licence of deny.toml's list:\n{}",
        bad.join("\n")
    );
}

#[test]
fn every_ban_has_a_reason() {
    for (name, why) in denied() {
        assert!(why.len() > 10, "{name}: {why:?}");
    }
}

#[test]
fn the_checks_can_fail() {
    let allowed: BTreeSet<String> = ["MIT", "Apache-2.0", "Unicode-3.0"].map(str::to_owned).into();
    for (licence, wanted) in [
        ("MIT", true),
        ("MIT/Apache-2.0", true),
        ("GPL-3.0-only", false),
        ("MIT OR GPL-3.0-only", true),
        ("MIT AND GPL-3.0-only", false),
        ("(MIT OR Apache-2.0) AND Unicode-3.0", true),
        ("(MIT OR Apache-2.0) AND OpenSSL", false),
        ("Apache-2.0 WITH LLVM-exception", false),
        ("", false),
    ] {
        assert_eq!(permits(licence, &allowed), wanted, "{licence:?}");
    }
    assert!(
        packages().iter().any(|package| package.name == "hyper"),
        "the list of packages is read"
    );
    assert!(
        packages().iter().any(|package| package.name == "bollard"),
        "with those of optional features"
    );
}

struct Package {
    name: String,
    version: String,
    licence: Option<String>,
}

/// All packages that a build for [`TARGET`] uses, with every feature, our own aside.
///
/// From `cargo tree`, not `cargo metadata`: the latter also lists optional dependencies that no feature turns on.
fn packages() -> Vec<Package> {
    let output = Command::new(env!("CARGO"))
        .args([
            "tree",
            "--locked",
            "--offline",
            "--target",
            TARGET,
            "--edges",
            "normal,build,dev",
            "--all-features",
        ])
        .args(["--prefix", "none", "--no-dedupe", "--format", "{p}|{l}"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo tree");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let text = String::from_utf8(output.stdout).unwrap();
    let lines: BTreeSet<&str> = text.lines().collect();
    lines
        .into_iter()
        .map(|line| {
            let (package, licence) = line.split_once('|').unwrap();
            let mut words = package.split(' ');
            Package {
                name: words.next().unwrap_or("").to_owned(),
                version: words.next().unwrap_or("").to_owned(),
                licence: (!licence.is_empty()).then(|| licence.to_owned()),
            }
        })
        .filter(|package| package.name != "cutover")
        .collect()
}

fn deny_toml() -> toml::Table {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/deny.toml");
    std::fs::read_to_string(path).unwrap().parse().unwrap()
}

/// Banned crate and reason.
fn denied() -> BTreeMap<String, String> {
    let table = deny_toml();
    let list = table["bans"]["deny"].as_array().unwrap();
    list.iter()
        .map(|entry| {
            let text = |key: &str| {
                entry
                    .get(key)
                    .and_then(toml::Value::as_str)
                    .unwrap_or("")
                    .to_owned()
            };
            (text("crate"), text("reason"))
        })
        .collect()
}

fn allowed() -> BTreeSet<String> {
    let table = deny_toml();
    let list = table["licenses"]["allow"].as_array().unwrap();
    list.iter()
        .map(|entry| entry.as_str().unwrap().to_owned())
        .collect()
}

/// Whether an SPDX expression can be met with the allowed licences alone. `/` is the old way to write OR.
fn permits(expression: &str, allowed: &BTreeSet<String>) -> bool {
    let spaced = expression
        .replace('/', " OR ")
        .replace('(', " ( ")
        .replace(')', " ) ");
    let tokens: Vec<&str> = spaced.split_whitespace().collect();
    let mut at = 0;
    let met = any(&tokens, &mut at, allowed);
    met && at == tokens.len()
}

fn any(tokens: &[&str], at: &mut usize, allowed: &BTreeSet<String>) -> bool {
    let mut met = all(tokens, at, allowed);
    while tokens.get(*at) == Some(&"OR") {
        *at += 1;
        met |= all(tokens, at, allowed);
    }
    met
}

fn all(tokens: &[&str], at: &mut usize, allowed: &BTreeSet<String>) -> bool {
    let mut met = one(tokens, at, allowed);
    while tokens.get(*at) == Some(&"AND") {
        *at += 1;
        met &= one(tokens, at, allowed);
    }
    met
}

fn one(tokens: &[&str], at: &mut usize, allowed: &BTreeSet<String>) -> bool {
    let Some(token) = tokens.get(*at) else {
        return false;
    };
    *at += 1;
    if *token == "(" {
        let met = any(tokens, at, allowed);
        *at += 1;
        return met;
    }
    let mut licence = (*token).to_owned();
    if tokens.get(*at) == Some(&"WITH") {
        licence = format!("{licence} WITH {}", tokens.get(*at + 1).unwrap_or(&""));
        *at += 2;
    }
    allowed.contains(&licence)
}
