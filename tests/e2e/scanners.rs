//! sslscan and testssl.sh look at a TLS listener: nothing that they find may be more than "low".
//!
//! Both from Debian. In CI they look at protocols, suites and preferences; `CUTOVER_E2E=full` lets them do all that they can.

use std::path::Path;
use std::process::Command;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose,
    date_time_ymd,
};
use serde_json::Value;

use crate::ports;
use crate::server::{Server, Site, simple};

fn full() -> bool {
    std::env::var("CUTOVER_E2E").is_ok_and(|size| size == "full")
}

/// A listener on this port with an ECDSA certificate for `scan.example`, signed by `ca.pem` of the site's folder.
fn listener() -> (Site, Server, u16) {
    let site = Site::new("");
    let mut params = CertificateParams::new(Vec::new()).expect("parameters");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    // A name of its own: under one name both look self-signed to a scanner.
    params
        .distinguished_name
        .push(DnType::CommonName, "An authority for this test");
    let issuer =
        CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("an authority");
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new(vec!["scan.example".to_owned()]).expect("parameters");
    params.distinguished_name.push(DnType::CommonName, "scan.example");
    // Scanners do not like certificates for ever.
    let year: i32 = jiff::Zoned::now().year().into();
    (params.not_before, params.not_after) = (date_time_ymd(year - 1, 12, 1), date_time_ymd(year + 1, 1, 31));
    let certificate = params.signed_by(&key, &issuer).expect("a certificate");
    let write = |name: &str, text: String| std::fs::write(site.path().join(name), text).expect("write");
    write("ca.pem", issuer.pem());
    write("site.pem", certificate.pem());
    write("site.key", key.serialize_pem());
    let port = ports::free();
    site.write(&format!(
        "[[listener]]\naddress = \"127.0.0.1:{port}\"\n[listener.tls]\n\
         certificates = [{{ cert = \"site.pem\", key = \"site.key\" }}]\nhsts = \"365d\"\n\n{}",
        simple("127.0.0.1:9", "127.0.0.1:10", "")
    ));
    let server = site.run();
    (site, server, port)
}

fn run(command: &mut Command) -> String {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}; tests/run installs it"));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn sslscan_finds_nothing_old() {
    let (_site, _server, port) = listener();
    let mut command = Command::new("sslscan");
    command.args(["--no-colour", "--sni-name=scan.example"]);
    if !full() {
        command.args(["--no-groups", "--no-fallback"]);
    }
    let found = run(command.arg(format!("127.0.0.1:{port}")));
    let line = |start: &str| {
        let mut lines = found.lines().filter(|line| line.starts_with(start));
        let line = lines.next().unwrap_or_else(|| panic!("no {start}: {found}"));
        line[start.len()..].trim().to_owned()
    };
    for (protocol, is) in [
        ("SSLv2", "disabled"),
        ("SSLv3", "disabled"),
        ("TLSv1.0", "disabled"),
        ("TLSv1.1", "disabled"),
        ("TLSv1.2", "enabled"),
        ("TLSv1.3", "enabled"),
    ] {
        assert_eq!(line(protocol), is, "{protocol}: {found}");
    }
    assert!(found.contains("Session renegotiation not supported"), "{found}");
    for verdict in found.lines().filter(|line| line.contains("vulnerable")) {
        assert!(verdict.contains("not vulnerable"), "{verdict}");
    }
    let suites: Vec<&str> = found
        .lines()
        .filter(|line| line.starts_with("Preferred") || line.starts_with("Accepted"))
        .collect();
    assert!(suites.len() >= 6, "{found}");
    for suite in suites {
        let sealed = suite.contains("GCM") || suite.contains("CHACHA20");
        let forward = suite.contains("TLSv1.3") || suite.contains("ECDHE");
        assert!(sealed && forward, "{suite}");
    }
}

#[test]
fn testssl_finds_nothing_above_low() {
    let (site, _server, port) = listener();
    let out = site.path().join("found.json");
    let mut command = Command::new("testssl");
    command
        .args([
            "--quiet",
            "--color",
            "0",
            "--warnings",
            "off",
            "-n",
            "none",
            "--ip",
            "127.0.0.1",
        ])
        .arg("--add-ca")
        .arg(site.path().join("ca.pem"))
        .arg("--jsonfile")
        .arg(&out);
    if full() {
        command.args(["-p", "-P", "-s", "-f", "-S", "-U"]);
    } else {
        command.args(["-p", "-P"]);
    }
    let printed = run(command.arg(format!("scan.example:{port}")));
    let findings = findings(&out);
    let ids: Vec<&str> = findings.iter().map(|(id, _, _)| id.as_str()).collect();
    for looked_at in ["TLS1", "TLS1_1", "TLS1_2", "TLS1_3", "cipher_order"] {
        assert!(
            ids.contains(&looked_at),
            "{looked_at} was not looked at: {ids:?}\n{printed}"
        );
    }
    let bad: Vec<_> = findings
        .iter()
        .filter(|(id, severity, _)| {
            !["OK", "INFO", "LOW"].contains(&severity.as_str()) && !is_about_the_scan(id)
        })
        .collect();
    assert!(bad.is_empty(), "{bad:#?}\n{printed}");
}

/// What says something of the scanner's own machine, or of the authority of this test, which runs no server for
/// revocations.
fn is_about_the_scan(id: &str) -> bool {
    [
        "engine_problem",
        "scanTime",
        "cert_revocation",
        "sessionresumption_ticket",
    ]
    .contains(&id)
}

/// Id, severity, text.
fn findings(file: &Path) -> Vec<(String, String, String)> {
    let text = std::fs::read_to_string(file).expect("testssl.sh writes its findings");
    let all: Vec<Value> = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    let of = |finding: &Value, name: &str| finding[name].as_str().unwrap_or_default().to_owned();
    all.iter()
        .map(|finding| (of(finding, "id"), of(finding, "severity"), of(finding, "finding")))
        .collect()
}
