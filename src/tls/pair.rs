//! A certificate and its key, from two PEM files to what rustls signs with.

use std::fs::OpenOptions;
use std::io::{self, Read};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{InconsistentKeys, RootCertStore, SignatureAlgorithm};
use sha2::{Digest, Sha256};

use super::terminator::provider;
use super::x509::Facts;

/// A larger PEM file is not read.
const FILE_MAX: u64 = 1 << 20;

/// Where a certificate and its key are.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pair {
    /// The chain in PEM, the server's own certificate first.
    pub cert: PathBuf,
    /// The private key in PEM: PKCS#8, PKCS#1 or SEC1.
    pub key: PathBuf,
}

impl Pair {
    /// Whether it can be used: reads both files and nothing else.
    ///
    /// # Errors
    /// With the file at fault, why, and what to do.
    pub fn check(&self) -> Result<(), PairError> {
        Certificate::load(self).map(drop)
    }
}

/// A file of a pair cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {why}", .path.display())]
pub struct PairError {
    /// The file at fault.
    pub path: PathBuf,
    /// What is wrong with it.
    pub why: String,
    /// What to do.
    pub hint: Option<&'static str>,
}

/// A certificate in use.
#[derive(Debug)]
pub(super) struct Certificate {
    pub(super) pair: Pair,
    /// What rustls sends and signs with.
    pub(super) key: Arc<CertifiedKey>,
    pub(super) facts: Facts,
    /// Of both files as they were read.
    pub(super) fingerprint: [u8; 32],
}

impl Certificate {
    /// Read a pair and see that its halves belong together.
    pub(super) fn load(pair: &Pair) -> Result<Self, PairError> {
        let cert = read(&pair.cert)?;
        let key = read(&pair.key)?;
        let wrong = |path: &Path, why: &str, hint| PairError {
            path: path.to_owned(),
            why: why.to_owned(),
            hint,
        };
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&cert)
            .collect::<Result<_, pem::Error>>()
            .map_err(|error| {
                wrong(
                    &pair.cert,
                    &format!("not a PEM file of certificates: {error}"),
                    None,
                )
            })?;
        let facts = chain.first().map(|first| Facts::read(first)).ok_or_else(|| {
            let hint = "it begins with `-----BEGIN CERTIFICATE-----`; are `cert` and `key` swapped?";
            wrong(&pair.cert, "there is no certificate in it", Some(hint))
        })?;
        let facts = facts.ok_or_else(|| wrong(&pair.cert, "its first certificate cannot be read", None))?;
        let private = PrivateKeyDer::from_pem_slice(&key).map_err(|error| match error {
            pem::Error::NoItemsFound if key.windows(9).any(|text| text == b"ENCRYPTED") => {
                let hint = "write it out without: `openssl pkey -in KEY -out NEW`";
                wrong(&pair.key, "the key is locked with a passphrase", Some(hint))
            }
            pem::Error::NoItemsFound => wrong(&pair.key, "there is no private key in it", None),
            error => wrong(
                &pair.key,
                &format!("not a PEM file of a private key: {error}"),
                None,
            ),
        })?;
        let certified = CertifiedKey::from_der(chain, private, provider()).map_err(|error| match error {
            rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                let why = format!(
                    "this key does not belong to the certificate in {}",
                    pair.cert.display()
                );
                wrong(
                    &pair.key,
                    &why,
                    Some("the server's own certificate must be the first of its file"),
                )
            }
            error => wrong(&pair.key, &format!("the key cannot be used: {error}"), None),
        })?;
        let fingerprint = Sha256::new()
            .chain_update((cert.len() as u64).to_be_bytes())
            .chain_update(&cert)
            .chain_update(&key)
            .finalize()
            .into();
        Ok(Self {
            pair: pair.clone(),
            key: Arc::new(certified),
            facts,
            fingerprint,
        })
    }

    /// Its file, as the label of metrics and in messages.
    pub(super) fn label(&self) -> String {
        self.pair.cert.display().to_string()
    }

    pub(super) fn is_rsa(&self) -> bool {
        self.key.key.algorithm() == SignatureAlgorithm::RSA
    }

    /// Whether it is for this host: lower case, no port, an IPv6 address in brackets (RFC 9525 §6.3).
    pub(super) fn covers(&self, host: &str) -> bool {
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        if let Ok(ip) = bare.parse::<IpAddr>() {
            return self.facts.ips.contains(&ip);
        }
        let parent = host.split_once('.').map(|(_, parent)| parent);
        self.facts.dns.iter().any(|name| match name.strip_prefix("*.") {
            Some(below) => parent == Some(below),
            None => name == host,
        })
    }
}

/// Whether a file holds certificates that others can be checked against.
///
/// # Errors
/// With the file and why.
pub fn check_ca(path: &Path) -> Result<(), PairError> {
    roots_of(path).map(drop)
}

pub(super) fn roots_of(path: &Path) -> Result<RootCertStore, PairError> {
    let wrong = |why: String| PairError {
        path: path.to_owned(),
        why,
        hint: None,
    };
    let bytes = read(path)?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&bytes) {
        let certificate =
            certificate.map_err(|error| wrong(format!("not a PEM file of certificates: {error}")))?;
        roots
            .add(certificate)
            .map_err(|error| wrong(format!("a certificate in it cannot be used: {error}")))?;
    }
    if roots.is_empty() {
        return Err(wrong("there is no certificate in it".to_owned()));
    }
    Ok(roots)
}

fn read(path: &Path) -> Result<Vec<u8>, PairError> {
    let wrong = |why: String, hint| PairError {
        path: path.to_owned(),
        why,
        hint,
    };
    read_bytes(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => {
            let hint = "a relative path is relative to where cutover was started";
            wrong("there is no such file".to_owned(), Some(hint))
        }
        io::ErrorKind::PermissionDenied => {
            let hint = "the user that runs cutover must be able to read it";
            wrong("it may not be read".to_owned(), Some(hint))
        }
        _ => wrong(format!("it cannot be read: {error}"), None),
    })
}

fn read_bytes(path: &Path) -> io::Result<Vec<u8>> {
    // Without this a named pipe would be waited for.
    let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is not a file"));
    }
    let mut bytes = Vec::new();
    file.take(FILE_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > FILE_MAX {
        return Err(io::Error::other("it is larger than 1 MiB"));
    }
    Ok(bytes)
}
