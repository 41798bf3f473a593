#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test panics to fail")]

mod deploy;
mod files;
mod meaning;
mod mistakes;
mod policy;
mod traffic;
mod values;

use super::*;

/// No environment at all.
fn none(_: &str) -> Option<String> {
    None
}

/// What every configuration needs, for tests about something else.
const BASE: &str = "[[listener]]\naddress = \"127.0.0.1:0\"\n[app.web]\nblue = [\"127.0.0.1:8001\"]\ngreen = [\"127.0.0.1:8002\"]\n";

fn good(text: &str) -> Config {
    parse(text, "cutover.toml", &none).unwrap_or_else(|error| panic!("{error}\n--- in ---\n{text}"))
}

fn bad(text: &str) -> Diagnostics {
    parse(text, "cutover.toml", &none).expect_err("a mistake must be found")
}
