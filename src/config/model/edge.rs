//! `[errors]` and `respond`: what the proxy says itself.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// `[errors]`, or an app's with those under it: the proxy's own answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Errors {
    /// When they are `application/problem+json`.
    pub problem: Problem,
    /// Files in place of the usual words.
    pub pages: BTreeMap<PageFor, Page>,
    /// `Retry-After` of a 503.
    pub retry_after: Duration,
    /// The page of an app in maintenance.
    pub maintenance: Option<Page>,
    /// `Retry-After` of an app in maintenance.
    pub maintenance_retry_after: Duration,
}

impl Errors {
    /// The page for a status: its own before its class's.
    #[must_use]
    pub fn page(&self, status: u16) -> Option<&Page> {
        self.pages
            .get(&PageFor::Status(status))
            .or_else(|| self.pages.get(&PageFor::Class(status / 100)))
    }

    /// Every page that is named.
    pub fn all_pages(&mut self) -> impl Iterator<Item = &mut Page> {
        self.pages.values_mut().chain(&mut self.maintenance)
    }
}

/// `errors.problem`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Problem {
    /// Where the client asks for JSON rather than HTML.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

impl Problem {
    /// The word in the file.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Always => "always",
            Self::Never => "never",
        }
    }
}

/// Which answers a page is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PageFor {
    /// `"503"`
    Status(u16),
    /// `"5xx"`: the first digit.
    Class(u16),
}

impl fmt::Display for PageFor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => status.fmt(f),
            Self::Class(digit) => write!(f, "{digit}xx"),
        }
    }
}

/// A file that is an answer's body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// The file.
    pub file: PathBuf,
    /// What is in it.
    pub kind: PageKind,
    /// Its text, as read when the configuration was; empty before.
    pub text: Arc<str>,
}

/// What is in a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageKind {
    /// `.html`
    Html,
    /// `.txt`
    Text,
    /// `.json`
    Json,
}

impl PageKind {
    /// `Content-Type`
    #[must_use]
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Html => "text/html; charset=utf-8",
            Self::Text => "text/plain; charset=utf-8",
            Self::Json => "application/json",
        }
    }
}

/// `respond = [{ … }]` of a listener: an answer of the proxy's own to a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Respond {
    /// Exactly this path.
    pub path: String,
    /// The status.
    pub status: u16,
    /// The body.
    pub body: String,
    /// Header fields by lower-case name, `content-type` among them.
    pub headers: Vec<(String, String)>,
}

/// `headers.request_id_from`: whose request ids are passed on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IdFrom {
    /// Every client's, if they could not break a log.
    #[default]
    Anyone,
    /// Those of `server.trusted_proxies`.
    Trusted,
    /// Each request gets a new one.
    Nobody,
}

impl IdFrom {
    /// The word in the file.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Anyone => "anyone",
            Self::Trusted => "trusted",
            Self::Nobody => "nobody",
        }
    }
}

/// `headers.trace`: W3C trace context.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Trace {
    /// What comes is passed on as it is.
    #[default]
    Pass,
    /// A request without a valid `traceparent` gets one.
    Start,
    /// So does every request that does not come from `server.trusted_proxies`.
    Restart,
}

impl Trace {
    /// The word in the file.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Start => "start",
            Self::Restart => "restart",
        }
    }
}
