//! TLS towards the apps: whom to believe, what to show them, and why a handshake failed, in words.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use jiff::Timestamp;
use rustls::client::{ClientConfig, Resumption};
use rustls::pki_types::{ServerName, UnixTime};
use rustls::sign::SingleCertAndKey;
use rustls::{AlertDescription, CertificateError, Error, RootCertStore};
use sha2::{Digest, Sha256};
use tokio_rustls::TlsConnector;

use super::certificates::Refreshed;
use super::pair::{Certificate, Pair, roots_of};
use super::terminator::provider;
use super::transport::Transport;
use crate::wire::Stream;

/// Sessions that are remembered for one [`Originator`].
const SESSIONS: usize = 256;

/// Whom to believe, and what to show. Endpoints with the same share one [`Originator`].
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Trust {
    /// PEM file of the authorities that sign the apps' certificates; `None`: those of the system.
    pub ca: Option<PathBuf>,
    /// What we show to apps that ask for a certificate.
    pub identity: Option<Pair>,
    /// HTTP/2 is not offered by ALPN, HTTP/1.1 alone.
    pub http1_only: bool,
}

/// What is offered by ALPN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offer {
    /// HTTP/2 and HTTP/1.1: the app chooses.
    All,
    /// HTTP/1.1 alone: the request wants to switch protocols.
    Http1,
}

/// The client side of TLS with one [`Trust`]. Shared by workers and probes; a reload swaps what is in it.
#[derive(Debug)]
pub struct Originator {
    trust: Trust,
    current: ArcSwap<Current>,
    /// Why the files as they are now are not in use.
    refused: Mutex<Option<String>>,
}

/// What handshakes are made with, or why none can be.
#[derive(Debug)]
enum Current {
    Ready {
        all: Arc<ClientConfig>,
        http1: Arc<ClientConfig>,
        fingerprint: [u8; 32],
    },
    Broken(String),
}

impl Originator {
    /// Read its files. What is wrong with them is told by each handshake.
    fn new(trust: &Trust) -> Self {
        let read = Current::read(trust);
        let (current, refused) = match read {
            Ok(ready) => (ready, None),
            Err(why) => (Current::Broken(why.clone()), Some(why)),
        };
        Self {
            trust: trust.clone(),
            current: ArcSwap::from_pointee(current),
            refused: Mutex::new(refused),
        }
    }

    /// Shake hands with an app: its certificate must be for `name`. The caller bounds it in time. Also says whether
    /// HTTP/2 was agreed on.
    ///
    /// # Errors
    /// The app's certificate is not to be believed, the app refuses us, or there is no TLS: see [`why`].
    pub async fn connect(
        &self,
        name: ServerName<'static>,
        stream: Stream,
        offer: Offer,
    ) -> io::Result<(Transport, bool)> {
        let config = match (&**self.current.load(), offer) {
            (Current::Ready { all, .. }, Offer::All) => Arc::clone(all),
            (Current::Ready { http1, .. }, Offer::Http1) => Arc::clone(http1),
            (Current::Broken(why), _) => return Err(io::Error::other(why.clone())),
        };
        let stream = TlsConnector::from(config).connect(name, stream).await?;
        let agreed = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        Ok((Transport::Tls(Box::new(stream.into())), agreed))
    }

    /// Read the files again. Bad ones change nothing.
    fn refresh(&self, refreshed: &mut Refreshed) {
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        match Current::read(&self.trust) {
            Ok(new) => {
                *refused = None;
                if !new.is_same(&self.current.load()) {
                    self.current.store(Arc::new(new));
                    refreshed.taken.push(self.trust.label());
                }
            }
            Err(why) => {
                if refused.as_ref() != Some(&why) {
                    refreshed.refused.push(why.clone());
                }
                if matches!(**self.current.load(), Current::Broken(_)) {
                    self.current.store(Arc::new(Current::Broken(why.clone())));
                }
                *refused = Some(why);
            }
        }
    }
}

impl Trust {
    /// In messages.
    fn label(&self) -> String {
        let ca = self.ca.as_ref().map(|path| path.display().to_string());
        let own = self.identity.as_ref().map(|pair| pair.cert.display().to_string());
        let files: Vec<String> = ca.into_iter().chain(own).collect();
        if files.is_empty() {
            "the system's authorities".to_owned()
        } else {
            format!("{} (towards apps)", files.join(", "))
        }
    }

    fn files(&self) -> impl Iterator<Item = PathBuf> {
        let pair = self
            .identity
            .iter()
            .flat_map(|pair| [pair.cert.clone(), pair.key.clone()]);
        self.ca.clone().into_iter().chain(pair)
    }
}

impl Current {
    fn read(trust: &Trust) -> Result<Self, String> {
        let roots = match &trust.ca {
            Some(path) => roots_of(path).map_err(|error| error.to_string())?,
            None => system_roots()?,
        };
        let identity = match &trust.identity {
            Some(pair) => Some(Certificate::load(pair).map_err(|error| error.to_string())?),
            None => None,
        };
        let mut hash = Sha256::new();
        for root in &roots.roots {
            hash.update((root.subject_public_key_info.len() as u64).to_be_bytes());
            hash.update(&root.subject_public_key_info);
            hash.update(&root.subject);
        }
        if let Some(identity) = &identity {
            hash.update(identity.fingerprint);
        }
        let builder = ClientConfig::builder_with_provider(Arc::clone(provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| format!("TLS cannot be set up: {error}"))?
            .with_root_certificates(roots);
        let mut http1 = match identity {
            None => builder.with_no_client_auth(),
            Some(identity) => {
                builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(identity.key)))
            }
        };
        http1.alpn_protocols = vec![b"http/1.1".to_vec()];
        // Its lock is taken once a handshake, never by a request.
        http1.resumption = Resumption::in_memory_sessions(SESSIONS);
        let mut all = http1.clone();
        if !trust.http1_only {
            all.alpn_protocols.insert(0, b"h2".to_vec());
        }
        Ok(Self::Ready {
            all: Arc::new(all),
            http1: Arc::new(http1),
            fingerprint: hash.finalize().into(),
        })
    }

    fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (
                Self::Ready { fingerprint, .. },
                Self::Ready {
                    fingerprint: other, ..
                },
            ) => fingerprint == other,
            _ => false,
        }
    }
}

fn system_roots() -> Result<RootCertStore, String> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let why =
            "this system has no certificates of authorities: install `ca-certificates`, or set `tls.ca`";
        return Err(why.to_owned());
    }
    Ok(roots)
}

/// All that are in use, by what they are made from.
#[derive(Debug, Default)]
pub struct Originators(Mutex<BTreeMap<Trust, Arc<Originator>>>);

impl Originators {
    /// The one for this; made, and its files read, when it is first asked for.
    #[must_use]
    pub fn of(&self, trust: &Trust) -> Arc<Originator> {
        let mut all = self.all();
        let made = all
            .entry(trust.clone())
            .or_insert_with(|| Arc::new(Originator::new(trust)));
        Arc::clone(made)
    }

    /// Read all files again, and forget what no endpoint uses any more. Blocks on files.
    pub fn refresh(&self) -> Refreshed {
        let mut refreshed = Refreshed::default();
        let in_use: Vec<_> = {
            let mut all = self.all();
            all.retain(|_, one| Arc::strong_count(one) > 1);
            all.values().map(Arc::clone).collect()
        };
        for one in in_use {
            one.refresh(&mut refreshed);
        }
        refreshed
    }

    /// Every file that they come from.
    #[must_use]
    pub fn files(&self) -> Vec<PathBuf> {
        self.all().keys().flat_map(Trust::files).collect()
    }

    /// What was refused of the files as they are now, and why.
    #[must_use]
    pub fn refused(&self) -> Vec<String> {
        let of = |one: &Arc<Originator>| one.refused.lock().unwrap_or_else(PoisonError::into_inner).clone();
        self.all().values().filter_map(of).collect()
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<Trust, Arc<Originator>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why a handshake with an app failed, for one line of a terminal.
#[must_use]
pub fn why(error: &io::Error) -> String {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    match inner {
        Some(Error::InvalidCertificate(why)) => format!("certificate refused: {}", of_certificate(why)),
        Some(Error::AlertReceived(alert)) => of_alert(*alert),
        Some(Error::InvalidMessage(_)) => "what answers there does not speak TLS".to_owned(),
        Some(Error::PeerIncompatible(why)) => format!("no common TLS version or cipher: {why:?}"),
        Some(Error::NoApplicationProtocol) => "it speaks neither HTTP/2 nor HTTP/1.1 (ALPN)".to_owned(),
        Some(other) => format!("TLS failed: {other}"),
        None if error.kind() == io::ErrorKind::UnexpectedEof => {
            "it closed the connection during the TLS handshake".to_owned()
        }
        None => error.to_string(),
    }
}

/// The app's refusal of our handshake, if that is what an error of a connection comes from. In TLS 1.3 we are through
/// with the handshake before the app has judged our certificate: its word comes in place of an answer.
#[must_use]
pub fn refusal(error: &(dyn std::error::Error + 'static)) -> Option<String> {
    let mut next = Some(error);
    while let Some(error) = next {
        let io = error.downcast_ref::<io::Error>();
        if let Some(Error::AlertReceived(alert)) = io.and_then(|io| io.get_ref()?.downcast_ref::<Error>()) {
            return Some(of_alert(*alert));
        }
        next = error.source();
    }
    None
}

fn of_certificate(error: &CertificateError) -> String {
    let day = |time: &UnixTime| {
        i64::try_from(time.as_secs())
            .ok()
            .and_then(|seconds| Timestamp::from_second(seconds).ok())
            .map_or_else(|| "?".to_owned(), |time| time.to_string())
    };
    match error {
        CertificateError::ExpiredContext { not_after, .. } => format!("it expired at {}", day(not_after)),
        CertificateError::Expired => "it has expired".to_owned(),
        CertificateError::NotValidYetContext { not_before, .. } => {
            format!("it is not valid before {}", day(not_before))
        }
        CertificateError::NotValidYet => "it is not valid yet".to_owned(),
        CertificateError::NotValidForNameContext { expected, presented } => {
            let presented = match presented.as_slice() {
                [] => "nothing".to_owned(),
                names => names.iter().map(|name| bare(name)).collect::<Vec<_>>().join(", "),
            };
            format!(
                "it is for {presented}, not for {} (`tls.server_name` can name another)",
                expected.to_str()
            )
        }
        CertificateError::UnknownIssuer => {
            "its issuer is unknown (`tls.ca` can name the file of an authority of your own)".to_owned()
        }
        CertificateError::Revoked => "it is revoked".to_owned(),
        CertificateError::BadSignature => {
            "its signature is wrong: another authority of the same name has signed it".to_owned()
        }
        CertificateError::InvalidPurposeContext { .. } | CertificateError::InvalidPurpose => {
            "it is not for servers".to_owned()
        }
        // An authority that stands as a server's own certificate is told apart only by its text.
        other => other.to_string(),
    }
}

/// rustls says `DnsName("a.test")`.
fn bare(name: &str) -> &str {
    name.split('"').nth(1).unwrap_or(name)
}

fn of_alert(alert: AlertDescription) -> String {
    match alert {
        AlertDescription::CertificateRequired | AlertDescription::NoCertificate => {
            "it wants a client certificate (`tls.client_cert`, `tls.client_key`)".to_owned()
        }
        AlertDescription::BadCertificate
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::CertificateRevoked
        | AlertDescription::CertificateExpired
        | AlertDescription::CertificateUnknown
        | AlertDescription::UnknownCA => format!("it refuses our client certificate: {alert:?}"),
        AlertDescription::UnrecognisedName => "it does not know this server name (SNI)".to_owned(),
        other => format!("it refused the TLS handshake: {other:?}"),
    }
}
