//! Files that are not what they should be.

use std::fs;
use std::os::unix::fs::symlink;

use super::{BASE, none};
use crate::config::{ContentHash, MAX_BYTES, load};

#[test]
fn a_good_file_is_loaded_with_its_text_hash_and_warnings() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("cutover.toml");
    fs::write(&path, BASE).unwrap();
    let loaded = load(&path, &none).unwrap();
    assert_eq!(loaded.text, BASE);
    assert_eq!(loaded.hash, ContentHash::of(BASE.as_bytes()));
    assert_eq!(loaded.hash.to_string().len(), 64);
    assert_eq!(loaded.warnings.items.len(), 1);
}

#[test]
fn each_bad_file_has_its_own_error() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::write(at("empty"), " \n").unwrap();
    fs::write(at("latin1"), b"# caf\xe9\n").unwrap();
    fs::write(at("zeros"), [0; 64]).unwrap();
    fs::create_dir(at("directory")).unwrap();
    symlink("nowhere", at("dangling")).unwrap();
    symlink("loop", at("loop")).unwrap();
    fs::File::create(at("huge")).unwrap().set_len(100 << 20).unwrap();
    fs::write(at("limit"), "#".repeat(usize::try_from(MAX_BYTES).unwrap() + 1)).unwrap();
    let fifo = std::process::Command::new("mkfifo")
        .arg(at("fifo"))
        .status()
        .unwrap();
    assert!(fifo.success());
    for (name, code, message) in [
        ("empty", "file_empty", "empty"),
        ("latin1", "file_not_text", "not text"),
        ("zeros", "file_not_text", "not text"),
        ("directory", "not_a_file", "a directory"),
        ("dangling", "file_missing", "a link to `nowhere`"),
        ("loop", "file_unreadable", "cannot be read"),
        ("huge", "file_too_large", "larger than 2048 KiB"),
        ("limit", "file_too_large", "larger than 2048 KiB"),
        ("fifo", "not_a_file", "a pipe"),
        ("missing", "file_missing", "no such file"),
        ("missing/deeper", "file_missing", "no such file"),
        ("empty/deeper", "file_unreadable", "Not a directory"),
    ] {
        let found = load(&at(name), &none).expect_err(name);
        assert_eq!(found.items[0].code, code, "{name}: {found}");
        let shown = found.to_string();
        assert!(shown.contains(message) && shown.contains(name), "{name}: {shown}");
    }
}

#[test]
fn the_largest_file_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("cutover.toml");
    let mut text = BASE.to_owned();
    text.push_str(&"#".repeat(usize::try_from(MAX_BYTES).unwrap() - text.len()));
    fs::write(&path, text).unwrap();
    load(&path, &none).unwrap();
}

#[test]
fn no_large_file_overflows_or_floods() {
    let most = usize::try_from(MAX_BYTES).unwrap() - 200;
    let many = |unit: &str| unit.repeat(most / unit.len());
    let deep = "a.".repeat(most / 2);
    for (name, text) in [
        ("syntax errors", many("=\n")),
        ("unknown keys", (0..80_000).map(|n| format!("x{n}=1\n")).collect()),
        (
            "one long line",
            format!("{BASE}[log]\nlevel = \"{}\"\n", many("x")),
        ),
        ("open brackets", many("[")),
        ("open arrays", format!("a = {}", many("["))),
        ("open tables", format!("a = {}", many("{a="))),
        ("deep dotted key", format!("{deep}a = 1\n")),
        ("deep header", format!("[{deep}a]\n")),
        (
            "deep condition",
            format!("{BASE}[app.web.health]\npath = \"/\"\njson.{deep}a = 1\n"),
        ),
        (
            "open variables",
            format!("{BASE}[log]\nfile = \"{}\"\n", many("${")),
        ),
        ("variables", format!("{BASE}[log]\nfile = \"{}\"\n", many("${A}"))),
        ("duplicates", format!("{BASE}{}", many("[log]\n"))),
        (
            "endpoints",
            format!(
                "[[listener]]\naddress = \"127.0.0.1:0\"\n[app.a]\nblue = [{}]\n",
                many("\"a:1\",")
            ),
        ),
    ] {
        let found = crate::config::parse(&text, "cutover.toml", &none).expect_err(name);
        assert!(found.to_string().len() < 1_000_000, "{name}");
        assert!(found.items.len() <= 100, "{name}");
    }
}

#[test]
fn a_bad_certificate_is_found_by_the_check_and_not_by_reading() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("cutover.toml");
    let text = format!(
        "{BASE}[[listener]]\naddress = \"127.0.0.1:8443\"\n[listener.tls]\nclient_ca = \"/nonexistent/ca.pem\"\n\
         certificates = [\n  {{ cert = \"/nonexistent/a.pem\", key = \"a.key\" }},\n]\n"
    );
    fs::write(&path, &text).unwrap();
    // `cutover status -c FILE` only wants to know where the server is.
    let loaded = load(&path, &none).unwrap();
    let found = loaded.clone().with_files(None).expect_err("they do not exist");
    let places: Vec<_> = found.items.iter().map(|item| (item.code, item.line)).collect();
    let line = |what: &str| text.lines().position(|line| line.contains(what)).map(|at| at + 1);
    assert_eq!(
        places,
        [
            ("bad_certificate", line("/ca.pem")),
            ("bad_certificate", line("/a.pem"))
        ]
    );
    let shown = found.to_string();
    assert!(
        shown.contains("/nonexistent/a.pem: there is no such file"),
        "{shown}"
    );
    // What runs with them already goes on with them.
    assert!(loaded.clone().with_files(Some(&loaded.config)).is_ok());
}
