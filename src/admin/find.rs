//! Finding the server: the places that are tried, in order, and why each was of no use.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use http::HeaderValue;

use super::client::{Address, Client, ClientError};
use crate::config;

/// Where a packaged server puts its socket.
const PACKAGED: &str = "/run/cutover/admin.sock";

/// What `-c` is when nobody says it: a server may well have been started with it.
const HERE: &str = "cutover.toml";

/// Where a server started in this directory puts it.
const LOCAL: &str = ".cutover/admin.sock";

/// What the search starts from.
pub struct Search<'a> {
    /// `--admin`
    pub admin: Option<&'a str>,
    /// `-c`
    pub config: Option<&'a Path>,
    /// `--token-file`
    pub token_file: Option<&'a Path>,
    /// The environment.
    pub env: &'a dyn Fn(&str) -> Option<String>,
}

impl fmt::Debug for Search<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Search")
            .field("admin", &self.admin)
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

/// No server.
#[derive(Debug)]
pub enum NotFound {
    /// An address or a token file makes no sense.
    Usage(String),
    /// The config file named with `-c` was refused.
    Config(String),
    /// Tried, with the reason each; `forbidden` when one was there and refused us.
    Tried {
        /// Place and reason.
        places: Vec<(String, String)>,
        /// A socket exists, but its permissions keep us out.
        forbidden: bool,
    },
}

/// The first place where a server answers a connect.
///
/// # Errors
/// None does; or what was given to find it cannot be used.
pub async fn find(search: &Search<'_>) -> Result<Client, NotFound> {
    let token = token(search)?;
    let mut places = Vec::new();
    let mut forbidden = false;
    for (source, address) in candidates(search)? {
        let client = Client::new(address, token.clone());
        match client.knock().await {
            Ok(()) => return Ok(client),
            Err(error) => {
                forbidden |= matches!(&error, ClientError::Connect { source, .. }
                    if source.kind() == io::ErrorKind::PermissionDenied);
                let why = error.to_string();
                let why = why
                    .strip_prefix(&format!("{}: ", client.address))
                    .unwrap_or(&why)
                    .to_owned();
                places.push((format!("{} ({source})", client.address), why));
            }
        }
    }
    Err(NotFound::Tried { places, forbidden })
}

/// What is named outright is the only candidate; else the usual places.
fn candidates(search: &Search<'_>) -> Result<Vec<(&'static str, Address)>, NotFound> {
    if let Some(admin) = search.admin {
        let address = Address::parse(admin).map_err(|why| NotFound::Usage(format!("--admin: {why}")))?;
        return Ok(vec![("--admin", address)]);
    }
    if let Some(admin) = (search.env)("CUTOVER_ADMIN").filter(|admin| !admin.is_empty()) {
        let address =
            Address::parse(&admin).map_err(|why| NotFound::Usage(format!("$CUTOVER_ADMIN: {why}")))?;
        return Ok(vec![("$CUTOVER_ADMIN", address)]);
    }
    if let Some(path) = search.config {
        return of_file("-c", path, search.env);
    }
    // One that is refused names no server; `check` and `run` say why.
    let here = Path::new(HERE);
    let mut candidates = match here.exists() {
        true => of_file("./cutover.toml", here, search.env).unwrap_or_default(),
        false => Vec::new(),
    };
    candidates.push(("packaged", Address::Unix(PACKAGED.into())));
    let below = |name: &str, inner: &str| {
        (search.env)(name)
            .filter(|value| !value.is_empty())
            .map(|value| Address::Unix(PathBuf::from(value).join(inner)))
    };
    candidates.extend(below("STATE_DIRECTORY", "admin.sock").map(|address| ("$STATE_DIRECTORY", address)));
    candidates
        .extend(below("XDG_STATE_HOME", "cutover/admin.sock").map(|address| ("$XDG_STATE_HOME", address)));
    candidates.push(("this directory", Address::Unix(LOCAL.into())));
    Ok(candidates)
}

/// The doors that a config file names.
fn of_file(
    source: &'static str,
    path: &Path,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Vec<(&'static str, Address)>, NotFound> {
    let loaded = config::load(path, env).map_err(|diagnostics| NotFound::Config(diagnostics.to_string()))?;
    let admin = loaded.config.admin;
    let authority = admin.address.and_then(|address| address.to_string().parse().ok());
    let tcp = authority.map(|authority| (source, Address::Http(authority)));
    Ok([(source, Address::Unix(admin.socket))]
        .into_iter()
        .chain(tcp)
        .collect())
}

fn token(search: &Search<'_>) -> Result<Option<HeaderValue>, NotFound> {
    let from_env = || (search.env)("CUTOVER_TOKEN_FILE").filter(|file| !file.is_empty());
    let (source, file) = match (search.token_file, from_env()) {
        (Some(file), _) => ("--token-file", file.to_owned()),
        (None, Some(file)) => ("$CUTOVER_TOKEN_FILE", PathBuf::from(file)),
        (None, None) => return Ok(None),
    };
    let fail = |why: String| NotFound::Usage(format!("{source}: {}: {why}", file.display()));
    let text = std::fs::read_to_string(&file).map_err(|error| fail(error.to_string()))?;
    let mut value = HeaderValue::from_str(&format!("Bearer {}", text.trim()))
        .map_err(|_| fail("holds characters that no header can carry".to_owned()))?;
    if text.trim().is_empty() {
        return Err(fail("is empty".to_owned()));
    }
    value.set_sensitive(true);
    Ok(Some(value))
}
