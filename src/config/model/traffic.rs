//! Who goes where: what chooses between the colors of an app.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, Method};

use super::{Network, Rule};
use crate::rollout::Color;

/// All that chooses between the colors of an app, besides its state.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Traffic {
    /// `[app.NAME.affinity]`
    pub affinity: AffinityKey,
    /// `[app.NAME.preview]`; `None` is off.
    pub preview: Option<Preview>,
    /// `[[app.NAME.rule]]`, in order.
    pub rules: Arc<[Rule]>,
    /// `[app.NAME.hold]`
    pub hold: Hold,
    /// `[app.NAME.failover]`: after so long without anything healthy the standby takes over; `None` is never.
    pub failover: Option<Duration>,
    /// `[app.NAME.skew] paths`: a 404 on these is asked once of the other color.
    pub skew: Vec<SkewPath>,
    /// `[app.NAME.mirror]`; `None` is off.
    pub mirror: Option<Mirror>,
    /// `[app.NAME.warmup]`; `None` is off.
    pub warmup: Option<Warmup>,
}

/// `[app.NAME.warmup]`: what a color is asked for before it gets its first share of the traffic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warmup {
    /// GET requests at most, 1 or more.
    pub requests: u32,
    /// For so long at most.
    pub max: Duration,
    /// Paths, in turn; empty: those that clients asked for lately.
    pub paths: Vec<String>,
    /// Requests under way at a time.
    pub parallel: usize,
}

/// A path of `[app.NAME.skew]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SkewPath {
    /// `/app.js`
    Exact(String),
    /// `/assets/*`, kept as `/assets/`.
    Below(String),
}

impl SkewPath {
    /// Whether it has this path.
    #[must_use]
    pub fn covers(&self, path: &str) -> bool {
        match self {
            Self::Exact(own) => path == own,
            Self::Below(start) => path.starts_with(start.as_str()),
        }
    }
}

impl fmt::Display for SkewPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(path) => f.write_str(path),
            Self::Below(start) => write!(f, "{start}*"),
        }
    }
}

/// `[app.NAME.mirror]`: copies of safe requests for the standby. Answers are compared and thrown away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirror {
    /// Of the requests, 1 to 100.
    pub percent: u8,
    /// Of these methods; safe ones.
    pub methods: Vec<Method>,
    /// Bytes of the standby's answer that are read; a longer one ends its connection.
    pub max_body: usize,
    /// Copies under way at most; more are not made.
    pub max_in_flight: usize,
}

/// `[app.NAME.hold]`: what may wait during a hold, and how it goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hold {
    /// Requests that wait at most; more get 503.
    pub requests: usize,
    /// Bytes of their heads.
    pub bytes: usize,
    /// Requests a second that go on after the release.
    pub release_rate: u32,
}

impl Default for Hold {
    fn default() -> Self {
        Self {
            requests: 1_000,
            bytes: 64 << 20,
            release_rate: 1_000,
        }
    }
}

/// `[app.NAME.preview]`: reach a color on purpose, the standby above all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Preview {
    /// The request header that names a color or holds a token. The app never sees it.
    pub header: HeaderName,
    /// A cookie that does the same.
    pub cookie: Option<String>,
    /// Networks from which a color may be named without a token.
    pub from: Vec<Network>,
}

/// A color that is meant on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aim {
    /// This one.
    Color(Color),
    /// Whichever is not active.
    Standby,
}

impl Aim {
    /// By its word.
    #[must_use]
    pub fn of(word: &str) -> Option<Self> {
        match word {
            "blue" => Some(Self::Color(Color::Blue)),
            "green" => Some(Self::Color(Color::Green)),
            "standby" => Some(Self::Standby),
            _ => None,
        }
    }

    /// Its word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Color(color) => color.as_str(),
            Self::Standby => "standby",
        }
    }

    /// The color, while this one is active.
    #[must_use]
    pub const fn color(self, active: Color) -> Color {
        match self {
            Self::Color(color) => color,
            Self::Standby => active.other(),
        }
    }
}

/// `[app.NAME.affinity] key`: who a client is while two colors share the traffic. Never which color it gets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum AffinityKey {
    /// A cookie that cutover sets for it.
    #[default]
    Ours,
    /// The value of a header.
    Header(HeaderName),
    /// The value of a cookie of the app's.
    Cookie(String),
    /// Its address.
    Ip,
    /// Nobody: each request is drawn by itself.
    None,
}

/// As the file writes it.
impl fmt::Display for AffinityKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ours => f.write_str("cookie"),
            Self::Header(name) => write!(f, "header:{name}"),
            Self::Cookie(name) => write!(f, "cookie:{name}"),
            Self::Ip => f.write_str("ip"),
            Self::None => f.write_str("none"),
        }
    }
}
