//! A listener's certificates: chosen by server name and by what the client can verify, swapped as a whole.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use rustls::SignatureScheme;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::pair::{Certificate, Pair, PairError};

/// The certificates of one listener.
#[derive(Debug)]
pub struct Certificates {
    /// What handshakes see.
    table: ArcSwap<Table>,
    /// What a reload wants; never looked at by a handshake.
    wanted: Mutex<Wanted>,
}

#[derive(Debug)]
struct Wanted {
    pairs: Vec<Pair>,
    /// Why a pair as it is now is not the one in use.
    refused: BTreeMap<Pair, String>,
}

/// What reading the files again has changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Refreshed {
    /// Certificates that are in use from now on, by file.
    pub taken: Vec<String>,
    /// Pairs that are not, and why; told once for each new reason.
    pub refused: Vec<String>,
}

/// A certificate in use, for metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateView {
    /// Its file.
    pub cert: String,
    /// Its last second, in Unix time.
    pub not_after: i64,
    /// Whether it is what the files say; false: they were refused and this older one goes on.
    pub up_to_date: bool,
}

impl Certificates {
    /// Read all pairs.
    ///
    /// # Errors
    /// The first that cannot be used.
    pub fn load(pairs: &[Pair]) -> Result<Self, PairError> {
        let all = pairs.iter().map(|pair| Certificate::load(pair).map(Arc::new));
        let table = Table::new(all.collect::<Result<_, _>>()?);
        Ok(Self {
            table: ArcSwap::from_pointee(table),
            wanted: Mutex::new(Wanted {
                pairs: pairs.to_vec(),
                refused: BTreeMap::new(),
            }),
        })
    }

    /// Read the files again and take what is good. A bad pair changes nothing: the old one goes on. Blocks on files.
    pub fn refresh(&self) -> Refreshed {
        let mut wanted = self.wanted();
        self.read(&mut wanted)
    }

    /// The same with other files, from a new configuration.
    pub fn replace(&self, pairs: &[Pair]) -> Refreshed {
        let mut wanted = self.wanted();
        wanted.pairs = pairs.to_vec();
        self.read(&mut wanted)
    }

    fn read(&self, wanted: &mut Wanted) -> Refreshed {
        let before = self.table.load_full();
        let mut refreshed = Refreshed::default();
        let mut refused = BTreeMap::new();
        let mut all = Vec::new();
        for pair in &wanted.pairs {
            let old = before.all.iter().find(|one| one.pair == *pair);
            match Certificate::load(pair) {
                Ok(new) => match old {
                    Some(old) if old.fingerprint == new.fingerprint => all.push(Arc::clone(old)),
                    _ => {
                        refreshed.taken.push(new.label());
                        all.push(Arc::new(new));
                    }
                },
                Err(error) => {
                    let why = error.to_string();
                    if wanted.refused.get(pair) != Some(&why) {
                        refreshed.refused.push(why.clone());
                    }
                    refused.insert(pair.clone(), why);
                    all.extend(old.map(Arc::clone));
                }
            }
        }
        wanted.refused = refused;
        // With nothing that works the old certificates go on, whatever their files are called.
        let same =
            all.len() == before.all.len() && all.iter().zip(&before.all).all(|(a, b)| Arc::ptr_eq(a, b));
        if !all.is_empty() && !same {
            self.table.store(Arc::new(Table::new(all)));
        }
        refreshed
    }

    /// Every file that they come from.
    #[must_use]
    pub fn files(&self) -> Vec<PathBuf> {
        let wanted = self.wanted();
        let both = |pair: &Pair| [pair.cert.clone(), pair.key.clone()];
        wanted.pairs.iter().flat_map(both).collect()
    }

    /// The pairs that were refused as they are now, and why.
    #[must_use]
    pub fn refused(&self) -> Vec<String> {
        self.wanted().refused.values().cloned().collect()
    }

    /// Those in use.
    #[must_use]
    pub fn views(&self) -> Vec<CertificateView> {
        let wanted = self.wanted();
        let view = |one: &Arc<Certificate>| CertificateView {
            cert: one.label(),
            not_after: one.facts.not_after,
            up_to_date: !wanted.refused.contains_key(&one.pair),
        };
        self.table.load().all.iter().map(view).collect()
    }

    /// Whether the certificate that a client with this server name gets is for `host` too (lower case, no port).
    #[must_use]
    pub fn covers(&self, name: &str, host: &str) -> bool {
        let table = self.table.load();
        let mut named = table.named(name).peekable();
        match named.peek() {
            Some(_) => named.any(|one| one.covers(host)),
            None => table.all.first().is_some_and(|one| one.covers(host)),
        }
    }

    /// Whether this is the server's own certificate of one of them, in DER.
    pub(super) fn contains(&self, end_entity: &[u8]) -> bool {
        let table = self.table.load();
        table
            .all
            .iter()
            .any(|one| one.key.cert.first().is_some_and(|own| own.as_ref() == end_entity))
    }

    fn wanted(&self) -> MutexGuard<'_, Wanted> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let table = self.table.load();
        let chosen = table.choose(hello.server_name(), hello.signature_schemes())?;
        Some(Arc::clone(&chosen.key))
    }
}

/// All certificates, found by name.
#[derive(Debug)]
pub(super) struct Table {
    /// In the order of the file; the first is the default.
    all: Vec<Arc<Certificate>>,
    exact: HashMap<Box<str>, Vec<usize>>,
    /// `*.example.com` under `example.com`.
    below: HashMap<Box<str>, Vec<usize>>,
}

impl Table {
    pub(super) fn new(all: Vec<Arc<Certificate>>) -> Self {
        let mut table = Self {
            all,
            exact: HashMap::new(),
            below: HashMap::new(),
        };
        // Stable: ECDSA before RSA, because it costs a tenth, otherwise the order of the file.
        let mut order: Vec<usize> = (0..table.all.len()).collect();
        order.sort_by_key(|at| table.all[*at].is_rsa());
        for at in order {
            for name in &table.all[at].facts.dns {
                let places = match name.strip_prefix("*.") {
                    Some(below) => table.below.entry(below.into()),
                    None => table.exact.entry(name.as_str().into()),
                };
                places.or_default().push(at);
            }
        }
        table
    }

    /// The certificate for a server name and what the client can verify: an exact name before a wildcard, and the
    /// default where no name matches. None when the client can verify none of them.
    pub(super) fn choose(
        &self,
        name: Option<&str>,
        schemes: &[SignatureScheme],
    ) -> Option<&Arc<Certificate>> {
        let fits = |one: &&Arc<Certificate>| one.key.key.choose_scheme(schemes).is_some();
        if let Some(name) = name {
            let mut named = self.named(name).peekable();
            if named.peek().is_some() {
                return named.find(fits);
            }
        }
        self.all.iter().find(fits)
    }

    /// Those for a name, in order of preference. A wildcard stands for one label.
    fn named(&self, name: &str) -> impl Iterator<Item = &Arc<Certificate>> {
        let name = name.strip_suffix('.').unwrap_or(name);
        let exact = self.exact.get(name);
        let below = name
            .split_once('.')
            .and_then(|(_, parent)| self.below.get(parent));
        let places = exact.into_iter().chain(below).flatten();
        places.map(|at| &self.all[*at])
    }
}
