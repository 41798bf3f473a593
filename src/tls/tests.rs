#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test panics to fail")]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{CertificateParams, CustomExtension, DnType, DnValue, KeyPair};
use rustls::SignatureScheme as Scheme;

use super::certificates::Table;
use super::pair::Certificate;
use super::x509::Facts;
use super::*;

const BOTH: &[Scheme] = &[Scheme::RSA_PSS_SHA256, Scheme::ECDSA_NISTP256_SHA256];
const RSA: &[Scheme] = &[Scheme::RSA_PSS_SHA256, Scheme::RSA_PKCS1_SHA256];
const ECDSA: &[Scheme] = &[Scheme::ECDSA_NISTP256_SHA256];

fn key(rsa: bool) -> KeyPair {
    if rsa {
        KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap()
    } else {
        KeyPair::generate().unwrap()
    }
}

/// Write a pair for these names; `rsa` in its name makes it one.
fn write(dir: &Path, name: &str, hosts: &[&str]) -> Pair {
    let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
    let key = key(name.contains("rsa"));
    let certificate = CertificateParams::new(hosts).unwrap().self_signed(&key).unwrap();
    let pair = Pair {
        cert: dir.join(format!("{name}.pem")),
        key: dir.join(format!("{name}.key")),
    };
    std::fs::write(&pair.cert, certificate.pem()).unwrap();
    std::fs::write(&pair.key, key.serialize_pem()).unwrap();
    pair
}

/// A table of these, and what it chooses by file name.
struct Chosen(Table);

impl Chosen {
    fn of(all: &[(&str, &[&str])]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let load = |(name, hosts): &(&str, &[&str])| {
            Arc::new(Certificate::load(&write(dir.path(), name, hosts)).unwrap())
        };
        Self(Table::new(all.iter().map(load).collect()))
    }

    fn get(&self, name: Option<&str>, schemes: &[Scheme]) -> Option<String> {
        let chosen = self.0.choose(name, schemes)?;
        Some(
            chosen
                .pair
                .cert
                .file_stem()
                .unwrap()
                .to_string_lossy()
                .into_owned(),
        )
    }
}

#[test]
fn an_exact_name_wins_over_a_wildcard_and_both_over_the_default() {
    let table = Chosen::of(&[
        ("first", &["first.test"]),
        ("wild", &["*.shop.test"]),
        ("exact", &["www.shop.test", "shop.test"]),
        ("UPPER", &["Loud.Test"]),
    ]);
    for (name, wanted) in [
        ("first.test", "first"),
        ("www.shop.test", "exact"),
        ("shop.test", "exact"),
        ("shop.test.", "exact"),
        ("api.shop.test", "wild"),
        ("loud.test", "UPPER"),
        // One label: neither more nor none.
        ("a.b.shop.test", "first"),
        (".shop.test", "wild"),
        ("test", "first"),
        ("", "first"),
        ("unknown", "first"),
    ] {
        assert_eq!(table.get(Some(name), BOTH).as_deref(), Some(wanted), "{name}");
    }
    assert_eq!(table.get(None, BOTH).as_deref(), Some("first"));
}

#[test]
fn the_kind_of_key_follows_the_client() {
    let table = Chosen::of(&[
        ("rsa-shop", &["shop.test", "*.shop.test"]),
        ("ecdsa-shop", &["shop.test"]),
        ("ecdsa-only", &["only.test"]),
    ]);
    for (name, schemes, wanted) in [
        (Some("shop.test"), BOTH, Some("ecdsa-shop")),
        (Some("shop.test"), RSA, Some("rsa-shop")),
        (Some("shop.test"), ECDSA, Some("ecdsa-shop")),
        (Some("a.shop.test"), BOTH, Some("rsa-shop")),
        // Better none than one for another name: the client would refuse it anyway, and say the wrong reason.
        (Some("a.shop.test"), ECDSA, None),
        (Some("only.test"), RSA, None),
        // The default is the first that can be verified.
        (None, BOTH, Some("rsa-shop")),
        (None, ECDSA, Some("ecdsa-shop")),
        (Some("unknown"), ECDSA, Some("ecdsa-shop")),
        (None, &[], None),
    ] {
        assert_eq!(
            table.get(name, schemes).as_deref(),
            wanted,
            "{name:?} {schemes:?}"
        );
    }
}

#[test]
fn a_host_is_covered_by_what_its_connection_got() {
    let dir = tempfile::tempdir().unwrap();
    let pairs = [
        write(
            dir.path(),
            "a",
            &["a.test", "*.a.test", "192.0.2.1", "2001:db8::1"],
        ),
        write(dir.path(), "b", &["b.test"]),
    ];
    let certificates = Certificates::load(&pairs).unwrap();
    for (name, host, covered) in [
        ("a.test", "x.a.test", true),
        ("a.test", "x.y.a.test", false),
        ("a.test", "b.test", false),
        ("b.test", "a.test", false),
        ("a.test", "192.0.2.1", true),
        ("a.test", "[2001:db8::1]", true),
        ("a.test", "192.0.2.2", false),
        ("b.test", "192.0.2.1", false),
        // The default was shown.
        ("unknown.test", "a.test", true),
        ("unknown.test", "b.test", false),
        ("a.test", "", false),
    ] {
        assert_eq!(certificates.covers(name, host), covered, "{name} for {host}");
    }
}

#[test]
fn a_bad_pair_is_named_with_its_reason() {
    let dir = tempfile::tempdir().unwrap();
    let good = write(dir.path(), "good", &["a.test"]);
    let other = write(dir.path(), "other", &["a.test"]);
    let file = |name: &str, content: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    };
    let locked = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
    let junk = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let missing = PathBuf::from("/nonexistent/x.pem");
    let cases: [(&PathBuf, &PathBuf, &str); 9] = [
        (
            &good.cert,
            &other.key,
            "other.key: this key does not belong to the certificate in",
        ),
        (&good.key, &good.cert, "good.key: there is no certificate in it"),
        (&missing, &good.key, "x.pem: there is no such file"),
        (&good.cert, &missing, "x.pem: there is no such file"),
        (&dir.path().to_owned(), &good.key, "it is not a file"),
        (
            &good.cert,
            &file("locked", locked),
            "locked: the key is locked with a passphrase",
        ),
        (
            &good.cert,
            &file("empty", ""),
            "empty: there is no private key in it",
        ),
        (
            &file("junk", junk),
            &good.key,
            "junk: its first certificate cannot be read",
        ),
        (
            &file("torn", &junk[..40]),
            &good.key,
            "torn: not a PEM file of certificates",
        ),
    ];
    for (cert, key, why) in cases {
        let pair = Pair {
            cert: cert.clone(),
            key: key.clone(),
        };
        let error = pair.check().expect_err(why).to_string();
        assert!(error.contains(why), "{error}\nshould say: {why}");
    }
    assert_eq!(good.check(), Ok(()));
    let huge = file("huge", "");
    std::fs::File::options()
        .write(true)
        .open(&huge)
        .unwrap()
        .set_len(2 << 20)
        .unwrap();
    assert!(
        check_ca(&huge)
            .unwrap_err()
            .to_string()
            .contains("larger than 1 MiB")
    );
    assert!(
        check_ca(&good.key)
            .unwrap_err()
            .to_string()
            .contains("no certificate")
    );
    assert_eq!(check_ca(&good.cert), Ok(()));
}

#[test]
fn a_refresh_takes_what_is_good_and_keeps_what_was() {
    let dir = tempfile::tempdir().unwrap();
    let pairs = [
        write(dir.path(), "a", &["a.test"]),
        write(dir.path(), "b", &["b.test"]),
    ];
    let certificates = Certificates::load(&pairs).unwrap();
    let now = || {
        certificates
            .views()
            .into_iter()
            .map(|view| view.up_to_date)
            .collect::<Vec<_>>()
    };
    assert_eq!(
        certificates.refresh(),
        Refreshed::default(),
        "nothing has changed"
    );
    // One is renewed, the other spoilt: each has its own fate.
    write(dir.path(), "a", &["a.test", "new.test"]);
    std::fs::write(&pairs[1].key, "junk").unwrap();
    let refreshed = certificates.refresh();
    assert_eq!(refreshed.taken, [pairs[0].cert.display().to_string()]);
    assert_eq!(refreshed.refused.len(), 1);
    assert!(certificates.covers("a.test", "new.test"));
    assert!(certificates.covers("b.test", "b.test"), "the old one goes on");
    assert_eq!(now(), [true, false]);
    assert_eq!(certificates.refresh(), Refreshed::default(), "told once");
    assert_eq!(certificates.refused(), refreshed.refused);
    // Other files, of which none is good: everything goes on as it was.
    let gone = Pair {
        cert: dir.path().join("gone.pem"),
        key: dir.path().join("gone.key"),
    };
    assert_eq!(certificates.replace(std::slice::from_ref(&gone)).refused.len(), 1);
    assert!(certificates.covers("a.test", "new.test"));
    assert_eq!(
        certificates.files(),
        [gone.cert, gone.key],
        "and what is wanted is watched"
    );
    write(dir.path(), "gone", &["c.test"]);
    assert_eq!(certificates.refresh().taken.len(), 1);
    assert_eq!((now(), certificates.refused().len()), (vec![true], 0));
    assert!(
        certificates.covers("anything", "c.test"),
        "the only one is the default"
    );
}

#[test]
fn a_subject_is_written_as_rfc_4514_says() {
    let subject = |parts: &[(DnType, DnValue)]| {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        for (kind, value) in parts {
            params.distinguished_name.push(kind.clone(), value.clone());
        }
        let certificate = params.self_signed(&key(false)).unwrap();
        Facts::read(certificate.der()).unwrap().subject
    };
    let text = |value: &str| DnValue::Utf8String(value.to_owned());
    assert_eq!(subject(&[]), "");
    let parts = [
        (DnType::CountryName, text("DE")),
        (DnType::OrganizationName, text("A, B + C")),
        (DnType::CommonName, text(" #x\"\\<>; ")),
    ];
    assert_eq!(
        subject(&parts),
        "CN=\\ #x\\\"\\\\\\<\\>\\;\\ ,O=A\\, B \\+ C,C=DE"
    );
    assert_eq!(subject(&[(DnType::CommonName, text("#1"))]), "CN=\\#1");
    // Nothing of a subject ends a header line, or is not ASCII.
    assert_eq!(
        subject(&[(DnType::CommonName, text("a\r\nb\0é\u{7f}"))]),
        "CN=a\\0D\\0Ab\\00\\C3\\A9\\7F"
    );
    let odd = DnType::CustomDnType(vec![1, 2, 840, 113_549, 1, 9, 2]);
    assert_eq!(subject(&[(odd, text("x"))]), "1.2.840.113549.1.9.2=#0c0178");
}

#[test]
fn names_and_dates_are_read() {
    let mut params = CertificateParams::new(vec![
        "A.Test".to_owned(),
        "*.b.test".to_owned(),
        "10.0.0.1".to_owned(),
    ])
    .unwrap();
    params
        .custom_extensions
        .push(CustomExtension::from_oid_content(&[1, 2, 3], vec![5, 0]));
    for (year, seconds) in [(2031, 1_924_992_000), (2050, 2_524_608_000), (1999, 915_148_800)] {
        params.not_before = rcgen::date_time_ymd(1990, 1, 1);
        params.not_after = rcgen::date_time_ymd(year, 1, 1);
        let certificate = params.self_signed(&key(false)).unwrap();
        let facts = Facts::read(certificate.der()).unwrap();
        assert_eq!(facts.not_after, seconds, "{year}");
        assert_eq!(facts.dns, ["a.test", "*.b.test"]);
        assert_eq!(facts.ips, ["10.0.0.1".parse::<std::net::IpAddr>().unwrap()]);
    }
}

#[test]
fn no_bytes_make_the_reader_panic() {
    let params = CertificateParams::new(vec!["a.test".to_owned()]).unwrap();
    let good = params.self_signed(&key(false)).unwrap().der().to_vec();
    assert!(Facts::read(&good).is_some());
    for end in 0..good.len() {
        assert_eq!(Facts::read(&good[..end]), None, "cut at {end}");
    }
    let mut bytes = good.clone();
    for at in 0..bytes.len() {
        for value in [0, 1, 0x30, 0x7f, 0x80, 0x84, 0xff] {
            bytes[at] = value;
            // Whatever it says of such a certificate, it says it without a panic.
            let _ = Facts::read(&bytes);
        }
        bytes[at] = good[at];
    }
}

#[test]
fn sessions_are_kept_in_tickets_alone_and_clients_with_certificates_get_none() {
    let dir = tempfile::tempdir().unwrap();
    let pair = write(dir.path(), "a", &["a.test"]);
    let tickets = Tickets::new().unwrap();
    let mut settings = Settings {
        certificates: vec![pair.clone()],
        min_version: MinVersion::Tls12,
        alpn: vec!["http/1.1".to_owned()],
        client_ca: None,
    };
    let open = Terminator::new(&settings, &tickets).unwrap();
    assert!(!open.asks_clients());
    settings.client_ca = Some(pair.cert.clone());
    let closed = Terminator::new(&settings, &tickets).unwrap();
    assert!(closed.asks_clients());
    settings.client_ca = Some(pair.key);
    let error = Terminator::new(&settings, &tickets).unwrap_err();
    assert!(error.to_string().contains("a.key"), "{error}");
}
