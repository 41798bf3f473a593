//! What can go wrong with a request: on which side, at which stage, and what the client is told.

use http::StatusCode;

/// Whose fault it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// The client's.
    Downstream,
    /// The app's.
    Upstream,
    /// Ours, or the operator's wish.
    Proxy,
}

/// A request that the proxy answers itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ProxyError {
    /// The request is malformed beyond what hyper refuses.
    Malformed(&'static str),
    /// No app or service matches.
    NoRoute,
    /// The connection's certificate is for other hosts.
    Misdirected,
    /// It means a color on purpose, and may not.
    Untrusted(&'static str),
    /// The request's body did not come in time.
    BodyTimeout,
    /// The request's body is larger than allowed.
    BodyTooLarge,
    /// The request's target is longer than allowed.
    TargetTooLong,
    /// The request has more fields than allowed.
    TooManyFields,
    /// The client went away before there was an answer.
    ClientGone,
    /// The color has no endpoint that can take it.
    NoHealthyEndpoint,
    /// The app is in maintenance.
    Maintenance,
    /// A hold's waiting room is full, or the hold outlasted its limit.
    HoldOverflow,
    /// Every endpoint has as many requests as it may have, and too many wait already.
    QueueFull,
    /// The same, and it has waited for as long as it may.
    QueueTimeout,
    /// We have no file descriptors left.
    Exhausted,
    /// No connection in time.
    ConnectTimeout,
    /// Connection refused or failed.
    ConnectFailed,
    /// There is no TLS with the app: its certificate is refused, or it refuses us.
    TlsFailed,
    /// No answer in time.
    FirstByteTimeout,
    /// The connection ended before there was an answer.
    Reset,
    /// The answer is not HTTP, or not one that may be passed on.
    BadAnswer,
    /// The color was draining and its time was over.
    DrainExpired,
}

impl ProxyError {
    /// What the client gets. One exhaustive match: the whole mapping on one screen.
    pub(super) const fn status(self) -> StatusCode {
        match self {
            Self::Malformed(_) => StatusCode::BAD_REQUEST,
            Self::NoRoute => StatusCode::NOT_FOUND,
            Self::Misdirected => StatusCode::MISDIRECTED_REQUEST,
            Self::Untrusted(_) => StatusCode::FORBIDDEN,
            Self::BodyTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TargetTooLong => StatusCode::URI_TOO_LONG,
            Self::TooManyFields => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            // Never sent; 499 in the log.
            Self::ClientGone => StatusCode::BAD_REQUEST,
            Self::NoHealthyEndpoint
            | Self::Maintenance
            | Self::HoldOverflow
            | Self::QueueFull
            | Self::QueueTimeout
            | Self::Exhausted => StatusCode::SERVICE_UNAVAILABLE,
            Self::ConnectFailed | Self::TlsFailed | Self::Reset | Self::BadAnswer => StatusCode::BAD_GATEWAY,
            Self::ConnectTimeout | Self::FirstByteTimeout | Self::DrainExpired => StatusCode::GATEWAY_TIMEOUT,
        }
    }

    /// The name in the log.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Malformed(why) | Self::Untrusted(why) => why,
            Self::NoRoute => "no app or service matches",
            Self::Misdirected => "host is not the one of this TLS connection",
            Self::BodyTimeout => "request body timeout",
            Self::BodyTooLarge => "request body too large",
            Self::TargetTooLong => "request target too long",
            Self::TooManyFields => "too many header fields",
            Self::ClientGone => "client went away",
            Self::NoHealthyEndpoint => "no healthy endpoint",
            Self::Maintenance => "maintenance",
            Self::HoldOverflow => "held too long or too many",
            Self::QueueFull => "too many requests wait for the app",
            Self::QueueTimeout => "waited too long for the app",
            Self::Exhausted => "out of file descriptors",
            Self::ConnectTimeout => "connect timeout",
            Self::ConnectFailed => "connect failed",
            Self::TlsFailed => "no TLS with the app",
            Self::FirstByteTimeout => "first byte timeout",
            Self::Reset => "upstream closed before an answer",
            Self::BadAnswer => "upstream answer invalid",
            Self::DrainExpired => "drain time over",
        }
    }

    /// Whose fault.
    pub(super) const fn side(self) -> Side {
        match self {
            Self::Malformed(_)
            | Self::NoRoute
            | Self::Misdirected
            | Self::Untrusted(_)
            | Self::BodyTimeout
            | Self::BodyTooLarge
            | Self::TargetTooLong
            | Self::TooManyFields
            | Self::ClientGone => Side::Downstream,
            Self::NoHealthyEndpoint
            | Self::QueueFull
            | Self::QueueTimeout
            | Self::ConnectTimeout
            | Self::ConnectFailed
            | Self::TlsFailed
            | Self::FirstByteTimeout
            | Self::Reset
            | Self::BadAnswer => Side::Upstream,
            Self::Maintenance | Self::HoldOverflow | Self::Exhausted | Self::DrainExpired => Side::Proxy,
        }
    }

    /// The rest of the request may still be on its way: the connection cannot go on.
    pub(super) const fn closes(self) -> bool {
        matches!(
            self,
            Self::Malformed(_)
                | Self::BodyTimeout
                | Self::BodyTooLarge
                | Self::TargetTooLong
                | Self::TooManyFields
        )
    }
}
