//! A client of our own listener, for the proof of a switch: it knows the listener by its certificates.

use std::io;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ClientConfig, Resumption};
use rustls::crypto::{verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, Error, SignatureScheme};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::certificates::Certificates;
use super::terminator::{TlsError, provider};
use crate::wire::Stream;

/// Connects to our own listener.
pub(super) struct OwnClient(Arc<ClientConfig>);

impl OwnClient {
    /// For the listener with these certificates, whatever they become.
    pub(super) fn new(certificates: &Arc<Certificates>) -> Result<Self, TlsError> {
        let mut config = ClientConfig::builder_with_provider(Arc::clone(provider()))
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(OnlyOurs(Arc::clone(certificates))))
            .with_no_client_auth();
        // No ALPN: HTTP/1.1, whatever the listener offers to others.
        // A proof is rare, and a full handshake proves more.
        config.resumption = Resumption::disabled();
        Ok(Self(Arc::new(config)))
    }

    pub(super) async fn connect(&self, host: &str, stream: Stream) -> io::Result<TlsStream<Stream>> {
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        TlsConnector::from(Arc::clone(&self.0))
            .connect(name, stream)
            .await
    }
}

impl std::fmt::Debug for OwnClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("OwnClient").finish()
    }
}

/// Accepts a certificate because the listener has it: names, dates and authorities are other clients' business.
/// That the other end has the key is checked as ever.
#[derive(Debug)]
struct OnlyOurs(Arc<Certificates>);

impl ServerCertVerifier for OnlyOurs {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if self.0.contains(end_entity) {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(CertificateError::ApplicationVerificationFailure.into())
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &provider().signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &provider().signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}
