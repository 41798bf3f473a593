#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test panics to fail")]

use super::*;

#[test]
fn shows() {
    for file in ["minimal", "full"] {
        match load(
            std::path::Path::new(&format!("{}/config/{file}.toml", env!("CARGO_MANIFEST_DIR"))),
            &|_| None,
        ) {
            Ok(l) => println!("{}", l.warnings),
            Err(e) => println!("{e}"),
        }
    }
    println!("{}", serde_json::to_string_pretty(&schema()).unwrap());
}
