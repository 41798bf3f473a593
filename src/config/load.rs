//! From a file, a text or flags to a [`Config`].

use std::collections::BTreeMap;
use std::fmt;
use std::fs::OpenOptions;
use std::io::{self, Read};
use std::ops::Range;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;
use sha2::{Digest, Sha256};
use toml::Spanned;
use toml::de::DeTable;

use super::diagnostics::{Diagnostics, Findings};
use super::model::{Config, Errors};
use super::raw::{self, At};
use super::shape::Env;
use super::{build, schema, shape, values};
use crate::tls;

/// A larger configuration file is not read; one of 10,000 routes is.
pub const MAX_BYTES: u64 = 2 << 20;

/// A configuration and the text it came from.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// Tells one content of the file from another.
    pub hash: ContentHash,
    /// The text as written: `${VAR}` stands as `${VAR}`, so it shows no secret of the environment.
    pub text: String,
    /// What may be used but is worth a word.
    pub warnings: Diagnostics,
    /// What errors call the file.
    name: String,
    /// Files that it names and that must be good before it is used; see [`Loaded::with_files`].
    pem: Vec<(PemFile, Range<usize>)>,
}

impl Loaded {
    /// Read the files that it names: certificates and keys must be good, the pages of `errors` are taken in. Apart from
    /// [`load`], because whoever only wants to know where the server is (`cutover status`) need not be able to read
    /// its keys. Certificates that the `running` configuration names are left out: they are in use, and go on if the
    /// files are bad now.
    ///
    /// # Errors
    /// Each file that cannot be used, with its place in the configuration.
    pub fn with_files(mut self, running: Option<&Config>) -> Result<Self, Diagnostics> {
        let texts = self.read_files(running)?;
        let apps = self.config.apps.values_mut().map(|app| &mut app.errors);
        for page in apps.chain([&mut self.config.errors]).flat_map(Errors::all_pages) {
            if let Some(text) = texts.get(&page.file) {
                page.text = Arc::clone(text);
            }
        }
        Ok(self)
    }

    fn read_files(&self, running: Option<&Config>) -> Result<BTreeMap<PathBuf, Arc<str>>, Diagnostics> {
        let mut findings = Findings::new(&self.name, &self.text);
        let listeners = running.map_or(&[][..], |config| &config.listeners);
        let in_use = |file: &PemFile| {
            let mut settings = listeners.iter().filter_map(|listener| listener.tls.as_ref());
            settings.any(|tls| match file {
                PemFile::Pair(pair) => tls.settings.certificates.contains(pair),
                PemFile::Ca(path) => tls.settings.client_ca.as_ref() == Some(path),
                PemFile::Page(_) => false,
            }) || running.is_some_and(|config| towards_apps(config, file))
        };
        let mut texts = BTreeMap::new();
        for (file, span) in self.pem.iter().filter(|(file, _)| !in_use(file)) {
            let checked = match file {
                PemFile::Pair(pair) => pair.check(),
                PemFile::Ca(path) => tls::check_ca(path),
                PemFile::Page(path) => {
                    match read_page(path) {
                        Ok(text) => drop(texts.insert(path.clone(), text)),
                        Err(why) => {
                            let message = format!("the page `{}` cannot be used: {why}", path.display());
                            findings.error(span, "bad_page", message, None);
                        }
                    }
                    continue;
                }
            };
            if let Err(error) = checked {
                let hint = error.hint.map(str::to_owned);
                findings.error(span, "bad_certificate", error.to_string(), hint);
            }
        }
        findings.finish(texts).map(|(texts, _)| texts)
    }
}

/// A page larger than this is a mistake: each worker that shows it holds a copy for as long as a client takes.
const PAGE_MAX: usize = 256 * 1024;

fn read_page(path: &Path) -> Result<Arc<str>, String> {
    let bytes = read_file(path).map_err(|error| error.to_string())?;
    if bytes.len() > PAGE_MAX {
        return Err(format!("larger than {} KiB", PAGE_MAX / 1024));
    }
    let text = String::from_utf8(bytes).map_err(|_| "not text in UTF-8".to_owned())?;
    if text.is_empty() {
        return Err("it is empty".to_owned());
    }
    Ok(text.into())
}

/// A file that the configuration names.
#[derive(Clone, Debug)]
pub(super) enum PemFile {
    Pair(tls::Pair),
    Ca(PathBuf),
    /// Of `errors`.
    Page(PathBuf),
}

/// Whether handshakes with apps use it.
fn towards_apps(config: &Config, file: &PemFile) -> bool {
    let mut services = config.apps.values().flat_map(|app| app.services.values());
    services.any(|service| match file {
        PemFile::Pair(pair) => service.tls.trust.identity.as_ref() == Some(pair),
        PemFile::Ca(path) => service.tls.trust.ca.as_ref() == Some(path),
        PemFile::Page(_) => false,
    })
}

/// SHA-256 of the bytes of a file; displayed in hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ContentHash(pub [u8; 32]);

impl ContentHash {
    /// Of these bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }
}

impl fmt::Display for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Read and check a configuration file. `env` answers for `${VAR}` and the default of `state_dir`.
///
/// # Errors
/// Everything that is wrong with the file, not just the first thing.
pub fn load(path: &Path, env: &dyn Fn(&str) -> Option<String>) -> Result<Loaded, Diagnostics> {
    let name = path.display().to_string();
    let bytes = read_file(path).map_err(|error| error.diagnose(&name))?;
    let hash = ContentHash::of(&bytes);
    let text = String::from_utf8(bytes)
        .ok()
        .filter(|text| !text.contains('\0'))
        .ok_or_else(|| {
            let message = "the file is not text: a configuration is TOML in UTF-8".to_owned();
            Diagnostics::one(&name, "file_not_text", message, None)
        })?;
    let mut pem = Vec::new();
    let (config, warnings) = parse_text(&text, &name, env, &mut pem)?;
    Ok(Loaded {
        config,
        hash,
        text,
        warnings,
        name,
        pem,
    })
}

/// Check the text of a configuration; `name` is what errors call it.
///
/// # Errors
/// Everything that is wrong with it.
pub fn parse(text: &str, name: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<Config, Diagnostics> {
    parse_text(text, name, env, &mut Vec::new()).map(|(config, _)| config)
}

/// The configuration of `cutover run --listen A --blue B --green C`: one app `web` with one service `web`.
///
/// # Errors
/// Each flag that cannot be used; the diagnostics name the flag in place of a file.
pub fn from_flags(
    listen: &str,
    blue: &[String],
    green: &[String],
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Config, Diagnostics> {
    let mut wrong = Diagnostics::default();
    let mut bad = |flag: &str, message: String| {
        let one = Diagnostics::one(flag, "bad_flag", message, None);
        wrong.items.extend(one.items);
    };
    if let Err(why) = values::listen_address(listen) {
        bad("--listen", format!("cannot listen there: {why}"));
    }
    for (flag, list) in [("--blue", blue), ("--green", green)] {
        for endpoint in list {
            if let Err(error) = values::parse_endpoint(endpoint) {
                bad(flag, error.to_string());
            }
        }
    }
    if !wrong.is_empty() {
        return Err(wrong);
    }
    let list = |texts: &[String]| Some(At::nowhere(texts.iter().cloned().map(At::nowhere).collect()));
    let app = raw::App {
        blue: list(blue),
        green: list(green),
        ..raw::App::default()
    };
    let file = raw::File {
        listener: Some(vec![raw::Listener {
            address: Some(At::nowhere(listen.to_owned())),
            ..raw::Listener::default()
        }]),
        app: Some([(At::nowhere("web".to_owned()), app)].into()),
        ..raw::File::default()
    };
    let mut findings = Findings::new("command line", "");
    let config = build::build(&file, &mut findings, env, &mut Vec::new());
    findings.finish(config).map(|(config, _)| config)
}

fn parse_text(
    text: &str,
    name: &str,
    env: &Env<'_>,
    pem: &mut Vec<(PemFile, Range<usize>)>,
) -> Result<(Config, Diagnostics), Diagnostics> {
    if text.trim().is_empty() {
        let message = "the file is empty".to_owned();
        let hint = "the smallest has `[[listener]]` with `address`, and `[app.web]` with `blue` and `green`";
        return Err(Diagnostics::one(
            name,
            "file_empty",
            message,
            Some(hint.to_owned()),
        ));
    }
    let mut findings = Findings::new(name, text);
    let (mut table, mistakes) = DeTable::parse_recoverable(text);
    let mut readable = true;
    for mistake in &mistakes {
        let duplicate = mistake.message().contains("duplicate key");
        readable &= duplicate;
        let code = if duplicate { "duplicate_key" } else { "toml_syntax" };
        let message = mistake.message().lines().collect::<Vec<_>>().join("; ");
        let span = mistake.span().unwrap_or(0..0);
        findings.error(&span, code, message, None);
    }
    if !readable {
        // What was meant is unclear: more messages would be about something nobody wrote.
        return Err(findings.give_up());
    }
    shape::check(&mut table, schema::shared(), &mut findings, env);
    let file = match deserialize(table) {
        Ok(file) => file,
        Err(error) => {
            // `shape` should have taken out all that does not fit; if it missed something, say it all the same.
            let span = error.span().unwrap_or(0..0);
            if findings.clean() {
                findings.error(&span, "wrong_type", error.message(), None);
            }
            return Err(findings.give_up());
        }
    };
    let config = build::build(&file, &mut findings, env, pem);
    findings.finish(config)
}

fn deserialize(table: Spanned<DeTable<'_>>) -> Result<raw::File, toml::de::Error> {
    raw::File::deserialize(toml::de::Deserializer::from(table))
}

/// Why a file could not be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("not a file, but {0}")]
    NotAFile(&'static str),
    #[error("larger than {} KiB", MAX_BYTES / 1024)]
    TooLarge,
}

impl ReadError {
    fn diagnose(&self, name: &str) -> Diagnostics {
        let path = Path::new(name);
        let (code, message, hint) = match self {
            Self::Io(error) if error.kind() == io::ErrorKind::NotFound => match std::fs::read_link(path) {
                Ok(target) => (
                    "file_missing",
                    format!(
                        "the file is a link to `{}`, which does not exist",
                        target.display()
                    ),
                    None,
                ),
                Err(_) => (
                    "file_missing",
                    "there is no such file".to_owned(),
                    Some("name one with `-c FILE`".to_owned()),
                ),
            },
            Self::Io(error) => (
                "file_unreadable",
                format!("the file cannot be read: {error}"),
                None,
            ),
            Self::NotAFile(what) => ("not_a_file", format!("this is {what}, not a file"), None),
            Self::TooLarge => (
                "file_too_large",
                format!("the file is larger than {} KiB", MAX_BYTES / 1024),
                Some("is it the right one?".to_owned()),
            ),
        };
        Diagnostics::one(name, code, message, hint)
    }
}

/// The bytes of a regular file, at most [`MAX_BYTES`].
pub(super) fn read_file(path: &Path) -> Result<Vec<u8>, ReadError> {
    // Without this a named pipe would be waited for.
    let flags = rustix::fs::OFlags::NONBLOCK.bits();
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(flags.cast_signed())
        .open(path)?;
    let metadata = file.metadata()?;
    if metadata.is_dir() {
        return Err(ReadError::NotAFile("a directory"));
    }
    if !metadata.is_file() {
        return Err(ReadError::NotAFile("a pipe, a socket or a device"));
    }
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length > MAX_BYTES) {
        return Err(ReadError::TooLarge);
    }
    Ok(bytes)
}
