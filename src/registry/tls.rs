//! TLS: whom we trust and who we are, per host; and the connector that puts it on a connection.
//!
//! ureq's own connector cannot take trust anchors (the built-in fallback where a host has no certificates) and hides
//! what failed; this one keeps rustls' error.

use std::fmt;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme, StreamOwned};
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, Either, LazyBuffers, NextTimeout, Transport, TransportAdapter,
};

use super::origin::Origin;
use super::roots::{self, Roots};
use super::settings::Settings;
use super::{Error, der};

/// Where the certificates for a host lie.
#[derive(Debug, Default)]
pub(super) struct Trust {
    /// For the host itself, most specific first; the first that exists counts.
    pub own: Vec<PathBuf>,
    /// For the registry that led to this host: a token server or storage behind it is trusted by the same authorities.
    /// Our own certificate stays with the registry.
    pub registry: Vec<PathBuf>,
}

/// The TLS configuration for a host: this machine's authorities and those of certs.d, which may hold our own certificate
/// too (`*.crt`, `*.cert` with `*.key`; containers-certs.d(5)).
///
/// # Errors
/// [`Error::Config`] when a file in the directory cannot be read or used.
pub(super) fn client_config(
    settings: &Settings,
    trust: &Trust,
    verify: bool,
) -> Result<Arc<ClientConfig>, Error> {
    let existing = |list: &[PathBuf]| list.iter().find(|directory| directory.is_dir()).cloned();
    let read = |directory: Option<&PathBuf>| directory.map(|d| CertificateFiles::read(d)).transpose();
    let (own, registry) = (existing(&trust.own), existing(&trust.registry));
    let files = read(own.as_ref())?.unwrap_or_default();
    let further = read(registry.as_ref())?.unwrap_or_default();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| bad_file(Path::new("TLS"), "no protocol version is usable", error))?;
    let builder = if verify {
        let Roots { store: mut roots, source } = roots::of_machine(settings)?;
        let mut pinned = Vec::new();
        for (path, certificate) in files.authorities.into_iter().chain(further.authorities) {
            pinned.push(certificate.clone());
            roots.add(certificate).map_err(|error| bad_file(&path, "it holds no usable authority", error))?;
        }
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .map_err(|error| bad_file(Path::new("TLS"), "no trusted authority is usable", error))?;
        let looked = looked(&source, trust, own.iter().chain(&registry));
        let verifier = Verifier { inner: verifier, pinned, looked };
        builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier))
    } else {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(AcceptAny(provider)))
    };
    let config = match files.own {
        Some((path, chain, key)) => builder
            .with_client_auth_cert(chain, key)
            .map_err(|error| bad_file(&path, "certificate and key do not fit", error))?,
        None => builder.with_no_client_auth(),
    };
    Ok(Arc::new(config))
}

/// Whom a verifier trusts, for its errors.
fn looked<'a>(source: &str, trust: &Trust, used: impl Iterator<Item = &'a PathBuf>) -> String {
    let used: Vec<String> = used.map(|path| format!("`{}`", path.display())).collect();
    match (used.is_empty(), trust.own.first()) {
        (false, _) => format!("trusted are {source}, and those in {}", used.join(" and ")),
        (true, Some(first)) => {
            let others = trust.own.len() - 1;
            format!("trusted are {source}; there is no `{}`, nor {others} other places", first.display())
        }
        (true, None) => format!("trusted are {source}"),
    }
}

/// Where certificates for a host may lie, most specific first.
pub(super) fn directories(config_home: Option<&Path>, origin: &Origin) -> Vec<PathBuf> {
    let mut names = vec![origin.host_port()];
    let with_port = format!("{}:{}", origin.host, origin.port);
    if names[0] != with_port {
        names.insert(0, with_port);
    }
    if origin.host == "registry-1.docker.io" {
        names.push(crate::oci::DEFAULT_REGISTRY.to_owned());
    }
    let mut bases: Vec<PathBuf> = config_home.iter().map(|d| d.join("containers/certs.d")).collect();
    bases.extend([PathBuf::from("/etc/containers/certs.d"), PathBuf::from("/etc/docker/certs.d")]);
    bases.iter().flat_map(|base| names.iter().map(move |name| base.join(name))).collect()
}

#[derive(Default)]
struct CertificateFiles {
    authorities: Vec<(PathBuf, CertificateDer<'static>)>,
    own: Option<(PathBuf, Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
}

impl CertificateFiles {
    fn read(directory: &Path) -> Result<Self, Error> {
        let list = std::fs::read_dir(directory)
            .map_err(|error| bad_file(directory, "its certificates cannot be listed", error))?;
        let mut paths: Vec<PathBuf> = list.filter_map(|entry| Some(entry.ok()?.path())).collect();
        paths.sort();
        let mut files = Self::default();
        for path in paths {
            match path.extension().and_then(|e| e.to_str()) {
                Some("crt") => {
                    let certificates = read_certificates(&path)?;
                    files.authorities.extend(certificates.into_iter().map(|c| (path.clone(), c)));
                }
                Some("cert") if files.own.is_none() => {
                    let key = path.with_extension("key");
                    if !key.exists() {
                        let what = "no key lies beside it; the certificate of an authority is called `*.crt`";
                        return Err(Error::Config { path, what, source: None });
                    }
                    let chain = read_certificates(&path)?;
                    let key = PrivateKeyDer::from_pem_file(&key)
                        .map_err(|error| bad_file(&key, "it holds no private key in PEM form", error))?;
                    files.own = Some((path, chain, key));
                }
                Some("key") if !path.with_extension("cert").exists() => {
                    let what = "no certificate lies beside it: it would be called `*.cert`";
                    return Err(Error::Config { path, what, source: None });
                }
                _ => {}
            }
        }
        Ok(files)
    }
}

fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let bad = |error| bad_file(path, "it holds no certificate in PEM form", error);
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path).map_err(bad)?.collect();
    certificates.map_err(bad)
}

fn bad_file(
    path: &Path,
    what: &'static str,
    source: impl std::error::Error + Send + Sync + 'static,
) -> Error {
    Error::Config { path: path.to_owned(), what, source: Some(Box::new(source)) }
}

/// Verifies as usual, and accepts a server whose very certificate lies in certs.d: people make one with a single
/// `openssl req -x509` and use it both as authority and as server certificate, which every other client accepts.
#[derive(Debug)]
struct Verifier {
    inner: Arc<WebPkiServerVerifier>,
    pinned: Vec<CertificateDer<'static>>,
    /// Whom it trusts, in words.
    looked: String,
}

/// A server's certificate is not good.
#[derive(Debug, thiserror::Error)]
#[error("its certificate{subject} {what}")]
struct BadCertificate {
    subject: String,
    what: String,
}

impl Verifier {
    /// What is wrong with a certificate, with the names in it.
    fn explain(
        &self,
        error: rustls::Error,
        certificate: &CertificateDer<'_>,
        name: &ServerName<'_>,
    ) -> rustls::Error {
        use rustls::CertificateError as E;
        let rustls::Error::InvalidCertificate(fault) = &error else { return error };
        let (subject, issuer) = match der::names(certificate) {
            Some((subject, issuer)) => (format!(" ({subject})"), issuer),
            None => (String::new(), "an unreadable name".into()),
        };
        let what = match fault {
            E::Expired | E::ExpiredContext { .. } => "has expired".to_owned(),
            E::NotValidYet | E::NotValidYetContext { .. } => {
                "is not valid yet: check this machine's clock".to_owned()
            }
            E::NotValidForName | E::NotValidForNameContext { .. } => {
                format!("is not valid for `{}`", name.to_str())
            }
            E::UnknownIssuer => format!("is by an authority that is not trusted ({issuer}); {}", self.looked),
            other => format!("cannot be verified ({other}); {}", self.looked),
        };
        rustls::Error::Other(rustls::OtherError(Arc::new(BadCertificate { subject, what })))
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let result = self.inner.verify_server_cert(certificate, intermediates, name, ocsp, now);
        if result.is_err() && self.pinned.iter().any(|pinned| pinned.as_ref() == certificate.as_ref()) {
            let parsed = ParsedCertificate::try_from(certificate)?;
            rustls::client::verify_server_name(&parsed, name)?;
            return Ok(ServerCertVerified::assertion());
        }
        result.map_err(|error| self.explain(error, certificate, name))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

/// Accepts any certificate: only where the user said so.
#[derive(Debug)]
struct AcceptAny(Arc<CryptoProvider>);

impl ServerCertVerifier for AcceptAny {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// Wraps connections to https addresses in TLS.
pub(super) struct TlsConnector(pub Arc<ClientConfig>);

impl fmt::Debug for TlsConnector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TlsConnector")
    }
}

impl<In: Transport> Connector<In> for TlsConnector {
    type Out = Either<In, TlsTransport>;

    fn connect(
        &self,
        details: &ConnectionDetails,
        chained: Option<In>,
    ) -> Result<Option<Self::Out>, ureq::Error> {
        let Some(transport) = chained else { return Ok(None) };
        if !details.needs_tls() || transport.is_tls() {
            return Ok(Some(Either::A(transport)));
        }
        let host = details.uri.host().unwrap_or_default();
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let name = ServerName::try_from(host).map_err(|_| ureq::Error::Tls("the host name is not valid"))?;
        let mut connection = ClientConnection::new(self.0.clone(), name)?;
        let mut socket = TransportAdapter::new(transport.boxed(), details.current_time.clone());
        socket.set_timeout(details.timeout);
        connection
            .complete_io(&mut socket)
            .map_err(|error| ureq::Error::Other(Box::new(HandshakeError(error))))?;
        let config = details.config;
        Ok(Some(Either::B(TlsTransport {
            buffers: LazyBuffers::new(config.input_buffer_size(), config.output_buffer_size()),
            stream: StreamOwned { conn: connection, sock: socket },
        })))
    }
}

/// The handshake failed. Told apart from later failures, as the other side may not speak TLS at all.
#[derive(Debug, thiserror::Error)]
#[error("the TLS handshake failed")]
pub(super) struct HandshakeError(#[source] pub std::io::Error);

impl HandshakeError {
    /// Why it failed, without the words of the library around it.
    pub fn cause(self) -> crate::image::BoxError {
        let inner = self.0.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        match inner {
            Some(rustls::Error::Other(other)) => other.0.to_string().into(),
            Some(
                rustls::Error::AlertReceived(rustls::AlertDescription::ProtocolVersion)
                | rustls::Error::PeerIncompatible(rustls::PeerIncompatible::ServerDoesNotSupportTls12Or13),
            ) => "it speaks only versions of TLS that are no longer safe: 1.2 is the oldest that is".into(),
            Some(rustls::Error::AlertReceived(
                rustls::AlertDescription::CertificateRequired | rustls::AlertDescription::BadCertificate,
            )) => "it demands a certificate of ours: put it and its key beside the authority as client.cert and client.key".into(),
            _ => self.0.into(),
        }
    }

    /// Whether what came back is no TLS: another protocol, or a closed connection.
    pub fn is_not_tls(&self) -> bool {
        let inner = self.0.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        match inner {
            Some(rustls::Error::InvalidMessage(_)) => true,
            Some(_) => false,
            None => matches!(
                self.0.kind(),
                std::io::ErrorKind::UnexpectedEof
                    | std::io::ErrorKind::ConnectionReset
                    | std::io::ErrorKind::BrokenPipe
            ),
        }
    }
}

/// A connection in TLS.
pub(super) struct TlsTransport {
    buffers: LazyBuffers,
    stream: StreamOwned<ClientConnection, TransportAdapter>,
}

impl fmt::Debug for TlsTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TlsTransport")
    }
}

impl Transport for TlsTransport {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), ureq::Error> {
        self.stream.get_mut().set_timeout(timeout);
        let output = &self.buffers.output()[..amount];
        Ok(self.stream.write_all(output)?)
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, ureq::Error> {
        self.stream.get_mut().set_timeout(timeout);
        let input = self.buffers.input_append_buf();
        let amount = self.stream.read(input)?;
        self.buffers.input_appended(amount);
        Ok(amount > 0)
    }

    fn is_open(&mut self) -> bool {
        self.stream.get_mut().get_mut().is_open()
    }

    fn is_tls(&self) -> bool {
        true
    }
}
