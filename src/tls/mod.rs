//! TLS at our listeners: certificates by server name, reloaded while running, and the encrypted stream.
//!
//! [`Terminator`] is one listener's TLS, built once; a reload swaps its [`Certificates`] and nothing else, so that
//! sessions resume across it. [`Transport`] is what the data plane reads and writes. One provider: aws-lc-rs.

mod certificates;
mod own;
mod pair;
mod terminator;
mod transport;
mod x509;

pub use certificates::{CertificateView, Certificates, Refreshed};
pub use pair::{Pair, PairError, check_client_ca};
pub use terminator::{MinVersion, Session, Settings, Terminator, Tickets, TlsError};
pub use transport::Transport;

#[cfg(test)]
mod tests;
