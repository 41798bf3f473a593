//! Who goes where: what chooses between the colors of an app.

use std::fmt;

use http::HeaderName;

/// All that chooses between the colors of an app, besides its state.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Traffic {
    /// `[app.NAME.affinity]`
    pub affinity: AffinityKey,
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
