//! Tells the program which Pingora it is built on: the version in Cargo.lock.

fn main() {
    let lock = std::fs::read_to_string("Cargo.lock").unwrap_or_default();
    let version = lock
        .split_once("name = \"pingora-proxy\"\nversion = \"")
        .and_then(|(_, rest)| rest.split('"').next())
        .unwrap_or("unknown");
    println!("cargo::rustc-env=PINGORA_VERSION={version}");
    println!("cargo::rerun-if-changed=Cargo.lock");
}
