//! A first config file, written for somebody: from a few answers, or from the nginx file that did the job before.
//!
//! A [`Draft`] is what is known; [`Draft::to_toml`] writes it down with comments for whoever will edit it. Nothing here asks, reads
//! a terminal or writes a file.

pub mod nginx;
mod toml;

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test panics to fail")]
mod tests;

use std::collections::BTreeMap;

/// A config file to be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Draft {
    /// What it was made from: the first lines of the file.
    pub about: Vec<String>,
    /// `server.trusted_proxies`
    pub trusted_proxies: Vec<String>,
    /// `[limits]`: key and duration or size.
    pub limits: BTreeMap<String, String>,
    /// `[[listener]]`
    pub listeners: Vec<Listener>,
    /// `[app.NAME]`
    pub apps: Vec<App>,
    /// What a person must look at: the last lines of the file.
    pub open: Vec<String>,
}

/// `[[listener]]`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listener {
    /// `address`
    pub address: String,
    /// `proxy_protocol`
    pub proxy_protocol: bool,
    /// `redirect_https`
    pub redirect_https: Option<u16>,
    /// `respond`
    pub respond: Vec<Respond>,
    /// `[listener.tls]`
    pub tls: Option<Tls>,
}

/// An answer of cutover's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Respond {
    /// `path`
    pub path: String,
    /// `status`
    pub status: u16,
    /// `body`
    pub body: String,
}

/// `[listener.tls]`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    /// `certificates`: cert and key.
    pub certificates: Vec<(String, String)>,
    /// `min_version`
    pub min_version: Option<String>,
    /// `client_ca`
    pub client_ca: Option<String>,
    /// `hsts`, in seconds.
    pub hsts: Option<u64>,
}

/// `[app.NAME]`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct App {
    /// Its name.
    pub name: String,
    /// `hosts`; none is any.
    pub hosts: Vec<String>,
    /// Names that it has, although it answers to any.
    pub named: Vec<String>,
    /// `limits.body_bytes`
    pub body_bytes: Option<String>,
    /// `errors.pages`
    pub pages: BTreeMap<String, String>,
    /// `health.path` of all services that have none of their own.
    pub health: Option<String>,
    /// Its services; one at `/` is written in short.
    pub services: Vec<Service>,
    /// The compose service of one color, with `{color}` in it: gives the deploy steps their commands.
    pub compose: Option<String>,
}

/// `[app.NAME.service.NAME]`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Service {
    /// Its name.
    pub name: String,
    /// `path_prefix`, or with `exact` `path`.
    pub path: String,
    /// Exactly this path.
    pub exact: bool,
    /// `strip_prefix`
    pub strip_prefix: bool,
    /// `blue`
    pub blue: Vec<String>,
    /// `green`
    pub green: Vec<String>,
    /// Where green was found, if that was a guess.
    pub guessed: Option<String>,
    /// `timeouts.connect`
    pub connect: Option<String>,
    /// `timeouts.first_byte` and `timeouts.idle`
    pub read: Option<String>,
    /// `headers.host`, when it is not `preserve`.
    pub host: Option<String>,
    /// `headers.request.set`
    pub set: BTreeMap<String, String>,
    /// `headers.request.remove`
    pub remove: Vec<String>,
    /// `headers.response.set`
    pub answer_set: BTreeMap<String, String>,
    /// `headers.response.remove`
    pub answer_remove: Vec<String>,
    /// `tls.server_name`
    pub server_name: Option<String>,
    /// `tls.ca`
    pub ca: Option<String>,
}
