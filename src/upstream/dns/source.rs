//! Where addresses come from: the hosts file, then the name servers of `resolv.conf`, as the system's own
//! resolver would have it.

use std::fs::{self, File};
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::{Query, ResponseCode};
use hickory_resolver::proto::rr::{Name, RecordType};
use hickory_resolver::{Hosts, Resolver, TokioResolver, config, system_conf};
use tokio::time::timeout;
use tracing::warn;

use super::{Answer, TTL};

/// For one lookup with all its tries.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long an answer of the system's own resolver, which tells no time to live, is good.
const SYSTEM_TTL: Duration = Duration::from_secs(5);

/// The system's files, read again when they change, and the resolver made of them.
#[derive(Debug)]
pub(super) struct Source {
    hosts: PathBuf,
    resolv_conf: PathBuf,
    /// Instead of 53, for tests.
    port: Option<u16>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    stamps: [Option<Stamp>; 2],
    epoch: u64,
    loaded: Option<Loaded>,
}

/// What of a file's metadata changes with its content.
type Stamp = (i64, i64, u64, u64);

#[derive(Clone)]
struct Loaded {
    hosts: Arc<Hosts>,
    /// None when there is no usable `resolv.conf`: then the system's own resolver is asked.
    resolver: Option<TokioResolver>,
}

impl std::fmt::Debug for Loaded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Loaded")
            .field("resolver", &self.resolver.is_some())
            .finish_non_exhaustive()
    }
}

impl Source {
    /// `/etc/hosts` and `/etc/resolv.conf`.
    pub(super) fn system() -> Self {
        Self::from_files("/etc/hosts".into(), "/etc/resolv.conf".into(), None)
    }

    /// These files, and name servers on this port.
    pub(super) fn from_files(hosts: PathBuf, resolv_conf: PathBuf, port: Option<u16>) -> Self {
        Self {
            hosts,
            resolv_conf,
            port,
            state: Mutex::default(),
        }
    }

    /// A number that changes with the files.
    pub(super) fn epoch(&self) -> u64 {
        self.fresh(|state| state.epoch)
    }

    /// Look a host up. `before` are the addresses it had: those of a family that could not be asked for are kept.
    pub(super) async fn lookup(&self, host: &str, before: &[IpAddr]) -> Result<Answer, String> {
        if let Ok(address) = host.parse::<IpAddr>() {
            return Ok(Answer {
                addresses: vec![address],
                good_for: TTL.1,
            });
        }
        // Not `from_utf8`, which refuses the underscores that container names are full of.
        let name = Name::from_str(host).map_err(|error| format!("`{host}` is not a host name: {error}"))?;
        let loaded = self.loaded();
        let addresses = of_hosts(&loaded.hosts, &name);
        if !addresses.is_empty() {
            return Ok(Answer {
                addresses,
                good_for: TTL.1,
            });
        }
        let answer = match &loaded.resolver {
            Some(resolver) => timeout(PATIENCE, of_servers(resolver, name, before)).await,
            None => timeout(PATIENCE, of_system(host)).await,
        };
        answer.unwrap_or_else(|_| Err(format!("no answer from the name servers within {PATIENCE:?}")))
    }

    fn loaded(&self) -> Loaded {
        self.fresh(|state| state.loaded.get_or_insert_with(|| self.load()).clone())
    }

    /// The state, emptied if the files changed. Two `stat`s: no more than the control plane can spare.
    fn fresh<R>(&self, f: impl FnOnce(&mut State) -> R) -> R {
        let stamps = [&self.hosts, &self.resolv_conf].map(|path| {
            let of = |meta: fs::Metadata| (meta.mtime(), meta.mtime_nsec(), meta.len(), meta.ino());
            fs::metadata(path).ok().map(of)
        });
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.stamps != stamps {
            *state = State {
                stamps,
                epoch: state.epoch + 1,
                loaded: None,
            };
        }
        f(&mut state)
    }

    fn load(&self) -> Loaded {
        let mut hosts = Hosts::default();
        if let Err(error) = File::open(&self.hosts).and_then(|file| hosts.read_hosts_conf(file)) {
            warn!(file = %self.hosts.display(), %error, "the hosts file cannot be read");
        }
        let resolver = self
            .resolver()
            .inspect_err(|error| {
                let file = self.resolv_conf.display();
                warn!(%file, error, "no name servers; the system's own resolver is asked instead");
            })
            .ok();
        Loaded {
            hosts: Arc::new(hosts),
            resolver,
        }
    }

    fn resolver(&self) -> Result<TokioResolver, String> {
        let text = fs::read(&self.resolv_conf).map_err(|error| error.to_string())?;
        let (mut servers, mut options) =
            system_conf::parse_resolv_conf(text).map_err(|error| error.to_string())?;
        if let Some(port) = self.port {
            let connections = servers.name_servers.iter_mut().flat_map(|s| &mut s.connections);
            connections.for_each(|connection| connection.port = port);
        }
        options.ip_strategy = config::LookupIpStrategy::Ipv4AndIpv6;
        // We look there ourselves: a name found in the hosts file is not asked of a server for its other family.
        options.use_hosts_file = config::ResolveHosts::Never;
        let mut builder = Resolver::builder_with_config(servers, TokioRuntimeProvider::default());
        *builder.options_mut() = options;
        builder.build().map_err(|error| error.to_string())
    }
}

fn of_hosts(hosts: &Hosts, name: &Name) -> Vec<IpAddr> {
    let of_type = |kind| hosts.lookup_static_host(&Query::query(name.to_lowercase(), kind));
    [RecordType::A, RecordType::AAAA]
        .into_iter()
        .filter_map(of_type)
        .flat_map(|lookup| addresses(lookup.answers()))
        .collect()
}

async fn of_servers(resolver: &TokioResolver, name: Name, before: &[IpAddr]) -> Result<Answer, String> {
    // When to ask again is decided here, not by a second cache.
    resolver.clear_cache();
    let lookup = resolver
        .lookup_ip(name.clone())
        .await
        .map_err(|error| in_words(&error))?;
    let good_for = lookup.valid_until().saturating_duration_since(Instant::now());
    let mut found: Vec<IpAddr> = lookup.iter().collect();
    if found.is_empty() {
        return Err(NO_ADDRESS.into());
    }
    // The lookup above succeeds when one family does. Before the other one's addresses are given up, make sure
    // that a server said so.
    for v4 in [true, false] {
        let lost = before.iter().any(|ip| ip.is_ipv4() == v4) && !found.iter().any(|ip| ip.is_ipv4() == v4);
        if lost {
            let again = if v4 {
                resolver.ipv4_lookup(name.clone()).await
            } else {
                resolver.ipv6_lookup(name.clone()).await
            };
            match again {
                Ok(lookup) => found.extend(addresses(lookup.answers())),
                Err(error) if error.is_no_records_found() => {}
                Err(_) => found.extend(before.iter().filter(|ip| ip.is_ipv4() == v4)),
            }
        }
    }
    Ok(Answer {
        addresses: found,
        good_for,
    })
}

async fn of_system(host: &str) -> Result<Answer, String> {
    let found = tokio::net::lookup_host((host, 0))
        .await
        .map_err(|error| error.to_string())?;
    let addresses: Vec<_> = found.map(|address| address.ip()).collect();
    if addresses.is_empty() {
        return Err(NO_ADDRESS.into());
    }
    Ok(Answer {
        addresses,
        good_for: SYSTEM_TTL,
    })
}

fn addresses(records: &[hickory_resolver::proto::rr::Record]) -> Vec<IpAddr> {
    records
        .iter()
        .filter_map(|record| record.data.ip_addr())
        .collect()
}

const NO_ADDRESS: &str = "the name has no address (no A or AAAA record)";

fn in_words(error: &NetError) -> String {
    match error {
        NetError::Dns(DnsError::NoRecordsFound(none)) if none.response_code == ResponseCode::NXDomain => {
            "there is no such name (NXDOMAIN)".into()
        }
        NetError::Dns(DnsError::NoRecordsFound(_)) => NO_ADDRESS.into(),
        NetError::Timeout => "no name server answered in time".into(),
        other => other.to_string(),
    }
}
