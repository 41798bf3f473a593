//! TLS at our listeners and towards the apps: certificates reloaded while running, and the encrypted stream.
//!
//! [`Terminator`] is one listener's TLS, built once; a reload swaps its [`Certificates`] and nothing else, so that
//! sessions resume across it. [`Originator`] is the client side. [`Transport`] is what the data plane reads and
//! writes on both. One provider: aws-lc-rs.

mod certificates;
mod origin;
mod own;
mod pair;
mod terminator;
mod transport;
mod x509;

pub use certificates::{CertificateView, Certificates, Refreshed};
pub use origin::{Offer, Originator, Originators, Trust, refusal, why};
pub use pair::{Pair, PairError, check_ca};
pub use terminator::{MinVersion, Session, Settings, Terminator, Tickets, TlsError};
pub use transport::Transport;

#[cfg(test)]
mod tests;
