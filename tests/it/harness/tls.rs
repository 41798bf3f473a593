//! A certificate authority for one test, and clients that trust it alone.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, IsCa, KeyPair};
use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, SupportedProtocolVersion};
use tempfile::TempDir;

use super::PATIENCE;
use super::wire::Wire;

/// A kind of key.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Ecdsa,
    Rsa,
}

/// Signs certificates; what it signs is in its folder.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: TempDir,
}

impl Authority {
    pub fn new() -> Self {
        Self::named("test CA")
    }

    pub fn named(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.pem"), issuer.pem()).unwrap();
        Self { issuer, folder }
    }

    pub fn path(&self, file: &str) -> PathBuf {
        self.folder.path().join(file)
    }

    /// Write `NAME.pem` and `NAME.key` for these hosts, as a renewal does. Gives back the certificate.
    pub fn issue(&self, name: &str, hosts: &[&str], kind: Kind) -> CertificateDer<'static> {
        self.issue_as(name, hosts, kind, |_| {})
    }

    /// The same, with something special about it.
    pub fn issue_as(
        &self,
        name: &str,
        hosts: &[&str],
        kind: Kind,
        change: impl FnOnce(&mut CertificateParams),
    ) -> CertificateDer<'static> {
        let key = match kind {
            Kind::Ecdsa => KeyPair::generate().unwrap(),
            Kind::Rsa => KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap(),
        };
        let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
        let mut params = CertificateParams::new(hosts).unwrap();
        change(&mut params);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        self.replace(&format!("{name}.key"), key.serialize_pem());
        self.replace(&format!("{name}.pem"), certificate.pem());
        certificate.der().clone()
    }

    /// Put other content into a file, at once.
    pub fn replace(&self, file: &str, content: impl AsRef<[u8]>) {
        std::fs::write(self.path("new"), content).unwrap();
        std::fs::rename(self.path("new"), self.path(file)).unwrap();
    }

    /// An app's side of TLS, with a pair issued before. With `asks`, clients must show a certificate of this authority.
    pub fn server(&self, name: &str, alpn: &[&str], asks: bool) -> Arc<ServerConfig> {
        let chain = CertificateDer::pem_file_iter(self.path(&format!("{name}.pem"))).unwrap();
        let chain = chain.collect::<Result<Vec<_>, _>>().unwrap();
        let key = PrivateKeyDer::from_pem_file(self.path(&format!("{name}.key"))).unwrap();
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap();
        let builder = if asks {
            let roots = Arc::new(self.client().roots);
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider);
            builder.with_client_cert_verifier(verifier.build().unwrap())
        } else {
            builder.with_no_client_auth()
        };
        let mut config = builder.with_single_cert(chain, key).unwrap();
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        Arc::new(config)
    }

    /// A client's certificate with this subject.
    pub fn for_client(&self, organisation: &str, name: &str) -> Identity {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name = DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::OrganizationName, organisation);
        params.distinguished_name.push(DnType::CommonName, name);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let der = PrivatePkcs8KeyDer::from(key.serialize_der());
        (certificate.der().clone(), Arc::new(der.into()))
    }

    /// `[[listener]]` on a free port with these pairs, and further lines of `[listener.tls]`.
    pub fn listener(&self, names: &[&str], lines: &str) -> String {
        let pair = |name: &&str| {
            let path = |end: &str| self.path(&format!("{name}.{end}")).display().to_string();
            format!("{{ cert = {:?}, key = {:?} }}", path("pem"), path("key"))
        };
        let pairs: Vec<String> = names.iter().map(pair).collect();
        let pairs = pairs.join(", ");
        format!(
            "[[listener]]\naddress = \"127.0.0.1:0\"\n[listener.tls]\ncertificates = [{pairs}]\n{lines}\n"
        )
    }

    /// A client that trusts this authority alone.
    pub fn client(&self) -> TlsClient {
        let mut roots = RootCertStore::empty();
        let issuer: &rcgen::Certificate = self.issuer.as_ref();
        roots.add(issuer.der().clone()).unwrap();
        TlsClient {
            roots,
            provider: aws_lc_rs::default_provider(),
            versions: rustls::ALL_VERSIONS.to_vec(),
            identity: None,
        }
    }
}

/// A certificate and its key.
pub type Identity = (CertificateDer<'static>, Arc<PrivateKeyDer<'static>>);

/// What a client is to be like.
#[derive(Clone)]
pub struct TlsClient {
    roots: RootCertStore,
    provider: CryptoProvider,
    versions: Vec<&'static SupportedProtocolVersion>,
    identity: Option<Identity>,
}

impl TlsClient {
    pub fn only(mut self, version: &'static SupportedProtocolVersion) -> Self {
        self.versions = vec![version];
        self
    }

    pub fn shows(mut self, identity: Identity) -> Self {
        self.identity = Some(identity);
        self
    }

    /// It verifies no signature but RSA in the handshake, as very old ones do.
    pub fn rsa_only(mut self) -> Self {
        let all = self.provider.signature_verification_algorithms;
        let rsa = |scheme: &rustls::SignatureScheme| format!("{scheme:?}").starts_with("RSA");
        let mapping: Vec<_> = all
            .mapping
            .iter()
            .filter(|(scheme, _)| rsa(scheme))
            .copied()
            .collect();
        self.provider.signature_verification_algorithms = WebPkiSupportedAlgorithms {
            all: all.all,
            mapping: mapping.leak(),
        };
        self
    }

    /// The client itself; its sessions resume among its own connections.
    pub fn build(self) -> Dialer {
        let builder = ClientConfig::builder_with_provider(Arc::new(self.provider))
            .with_protocol_versions(&self.versions)
            .unwrap()
            .with_root_certificates(self.roots);
        let mut config = match self.identity {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => builder
                .with_client_auth_cert(vec![certificate], key.clone_key())
                .unwrap(),
        };
        config.resumption = Resumption::in_memory_sessions(64);
        Dialer(Arc::new(config))
    }

    /// A connection whose handshake is done.
    #[track_caller]
    pub fn dial(self, address: SocketAddr, name: &str) -> Wire {
        self.build().dial(address, name)
    }
}

/// Opens connections.
#[derive(Clone)]
pub struct Dialer(pub Arc<ClientConfig>);

impl Dialer {
    #[track_caller]
    pub fn dial(&self, address: SocketAddr, name: &str) -> Wire {
        self.try_dial(address, name)
            .unwrap_or_else(|error| panic!("handshake with {address} as {name}: {error}"))
    }

    /// Why there is no connection, if there is none.
    pub fn try_dial(&self, address: SocketAddr, name: &str) -> std::io::Result<Wire> {
        self.try_dial_behind(address, name, b"")
    }

    /// The same; these bytes go before the handshake.
    pub fn try_dial_behind(&self, address: SocketAddr, name: &str, before: &[u8]) -> std::io::Result<Wire> {
        let mut stream = TcpStream::connect(address)?;
        stream.write_all(before)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let mut connection = ClientConnection::new(Arc::clone(&self.0), name).unwrap();
        while connection.is_handshaking() {
            connection.complete_io(&mut stream)?;
        }
        Ok(Wire::of_tls(rustls::StreamOwned::new(connection, stream)))
    }
}
