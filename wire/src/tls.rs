//! TLS towards clients: who the proxy is, and whether its clients say who they are.
//!
//! Files are read when somebody says so ([`TlsServer::reload`]): connections made from then on use what is new, and
//! files that cannot be used change nothing. Versions 1.2 and 1.3, and no ALPN: Kafka has none.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use teeline_config::{ClientCertificates, ListenTls};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::rustls::crypto::CryptoProvider;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::{
    Acceptor, ClientHello, NoClientAuth, ResolvesServerCert, WebPkiClientVerifier,
};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::{self, RootCertStore, ServerConfig};
use tokio_rustls::server::TlsStream;

/// Why files cannot be used. The reason is for people, and says which file.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct UnusableFiles(String);

/// Takes greetings of clients, for one listener or several.
pub struct TlsServer {
    settings: ListenTls,
    loaded: RwLock<Loaded>,
    /// Has no certificate: says no in the way of the protocol.
    refusing: Arc<ServerConfig>,
}

struct Loaded {
    files: Files,
    config: Arc<ServerConfig>,
}

/// What the files held.
#[derive(PartialEq, Eq)]
struct Files {
    cert: Vec<u8>,
    key: Vec<u8>,
    authorities: Option<Vec<u8>>,
}

/// Why a client's greeting led to nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Failure {
    /// The client went away before it was through; ports are probed like that.
    Closed,
    /// It took too long.
    Timeout,
    /// What came is not TLS.
    NotTls,
    /// No version or cipher in common.
    Incompatible,
    /// It asked for a name that nobody has here, or for none.
    UnknownName,
    /// It has to show a certificate, and did not.
    NoCertificate,
    /// The certificate that it showed does not count.
    BadCertificate,
    /// It does not accept ours.
    Refused,
    /// Its connection failed, or it broke the protocol.
    Broken,
}

impl Failure {
    /// A word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Timeout => "timeout",
            Self::NotTls => "not_tls",
            Self::Incompatible => "incompatible",
            Self::UnknownName => "unknown_name",
            Self::NoCertificate => "no_certificate",
            Self::BadCertificate => "bad_certificate",
            Self::Refused => "refused",
            Self::Broken => "broken",
        }
    }
}

/// A greeting that led to nothing.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
pub struct HandshakeError {
    /// What kind.
    pub failure: Failure,
    /// For people; holds nothing that the client sent, but perhaps the name it asked for, shortened.
    pub text: String,
}

impl TlsServer {
    /// Reads the files. Not for threads that must not block.
    pub fn load(settings: &ListenTls) -> Result<Self, UnusableFiles> {
        let files = Files::read(settings)?;
        let config = Arc::new(build(settings, &files)?);
        let refusing = builder()?
            .with_client_cert_verifier(Arc::new(NoClientAuth))
            .with_cert_resolver(Arc::new(Nobody));
        Ok(Self {
            settings: settings.clone(),
            loaded: RwLock::new(Loaded { files, config }),
            refusing: Arc::new(refusing),
        })
    }

    /// Reads the files again, and says whether something new came of it. When they cannot be used, what was read
    /// before stays. Not for threads that must not block.
    pub fn reload(&self) -> Result<bool, UnusableFiles> {
        let files = Files::read(&self.settings)?;
        if self.read().files == files {
            return Ok(false);
        }
        let config = Arc::new(build(&self.settings, &files)?);
        *self.loaded.write().unwrap_or_else(PoisonError::into_inner) = Loaded { files, config };
        Ok(true)
    }

    /// Takes a greeting. `choose` is asked with the name that the client greets, if it says one, and says what that
    /// leads to.
    pub async fn greet<S, T>(
        &self,
        stream: S,
        choose: impl FnOnce(Option<&str>) -> Option<T>,
        limit: Duration,
    ) -> Result<(TlsStream<S>, T), HandshakeError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        match tokio::time::timeout(limit, self.take(stream, choose)).await {
            Ok(done) => done,
            Err(_elapsed) => Err(HandshakeError {
                failure: Failure::Timeout,
                text: format!("no TLS handshake within {} ms", limit.as_millis()),
            }),
        }
    }

    async fn take<S, T>(
        &self,
        stream: S,
        choose: impl FnOnce(Option<&str>) -> Option<T>,
    ) -> Result<(TlsStream<S>, T), HandshakeError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let start = LazyConfigAcceptor::new(Acceptor::default(), stream)
            .await
            .map_err(|error| failed(&error))?;
        let name = start.client_hello().server_name().map(shortened);
        let Some(chosen) = choose(start.client_hello().server_name()) else {
            // Only to say no properly; that it fails is known.
            let _ = start.into_stream(Arc::clone(&self.refusing)).await;
            let text = match name {
                Some(name) => format!("the client asks for {name:?}, a name that nobody has here"),
                None => "the client asks for no name (hint: it connects by an address)".to_owned(),
            };
            return Err(HandshakeError {
                failure: Failure::UnknownName,
                text,
            });
        };
        let config = Arc::clone(&self.read().config);
        let stream = start.into_stream(config).await.map_err(|error| failed(&error))?;
        Ok((stream, chosen))
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Loaded> {
        // Writers replace the whole, so a poisoned lock still guards something sound.
        self.loaded.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for TlsServer {
    // Without the files, one of which is a key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TlsServer").field(&self.settings).finish()
    }
}

/// Resolves no certificate for anybody.
#[derive(Debug)]
struct Nobody;

impl ResolvesServerCert for Nobody {
    fn resolve(&self, _client: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        None
    }
}

impl Files {
    fn read(settings: &ListenTls) -> Result<Self, UnusableFiles> {
        let read = |path: &Path| {
            std::fs::read(path).map_err(|error| UnusableFiles(format!("read {}: {error}", path.display())))
        };
        let authorities = settings.clients.authorities().map(|path| read(path));
        Ok(Self {
            cert: read(&settings.cert_file)?,
            key: read(&settings.key_file)?,
            authorities: authorities.transpose()?,
        })
    }
}

fn builder() -> Result<rustls::ConfigBuilder<ServerConfig, rustls::WantsVerifier>, UnusableFiles> {
    ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| UnusableFiles(error.to_string()))
}

fn build(settings: &ListenTls, files: &Files) -> Result<ServerConfig, UnusableFiles> {
    let verifier = match (settings.clients.authorities(), &files.authorities) {
        (Some(path), Some(bytes)) => {
            let roots = Arc::new(authorities(path, bytes).map_err(UnusableFiles)?);
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider());
            let verifier = match settings.clients {
                ClientCertificates::Optional(_) => verifier.allow_unauthenticated(),
                _ => verifier,
            };
            verifier
                .build()
                .map_err(|error| UnusableFiles(format!("{}: {error}", path.display())))?
        }
        _ => Arc::new(NoClientAuth),
    };
    let chain = certificates(&settings.cert_file, &files.cert).map_err(UnusableFiles)?;
    let key = private_key(&settings.key_file, &files.key).map_err(UnusableFiles)?;
    builder()?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .map_err(|error| {
            let (cert, key) = (settings.cert_file.display(), settings.key_file.display());
            UnusableFiles(format!("{cert} and {key} cannot be used together: {error}"))
        })
}

fn failed(error: &io::Error) -> HandshakeError {
    let cause = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>());
    let Some(cause) = cause else {
        let failure = match error.kind() {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
                Failure::Closed
            }
            _ => Failure::Broken,
        };
        let text = format!("TLS handshake: {error}");
        return HandshakeError { failure, text };
    };
    let (failure, hint) = match cause {
        rustls::Error::InvalidMessage(_) => (
            Failure::NotTls,
            " (hint: the client may not speak TLS: its security.protocol)",
        ),
        rustls::Error::PeerIncompatible(_) => (Failure::Incompatible, ""),
        rustls::Error::NoCertificatesPresented => (
            Failure::NoCertificate,
            " (hint: listen.tls.client_ca_file asks for one)",
        ),
        rustls::Error::InvalidCertificate(_) => (
            Failure::BadCertificate,
            " (hint: listen.tls.client_ca_file says whose count)",
        ),
        rustls::Error::AlertReceived(_) => (
            Failure::Refused,
            " (hint: the client does not trust the certificate, or not for the name it connects to)",
        ),
        _ => (Failure::Broken, ""),
    };
    let text = format!("TLS handshake: {cause}{hint}");
    HandshakeError { failure, text }
}

fn shortened(name: &str) -> String {
    name.chars().take(NAME_CHARS_SHOWN).collect()
}

const NAME_CHARS_SHOWN: usize = 100;

/// Named, because a process may hold several and then has no default.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// Every certificate of a file. The error is for people, as of the other two.
pub(crate) fn certificates(path: &Path, bytes: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(bytes).collect();
    match read {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        _ => Err(format!(
            "{} holds no certificate in PEM (hint: keytool -exportcert -rfc writes it out of a Java keystore)",
            path.display()
        )),
    }
}

/// The certificates of a file as authorities to trust.
pub(crate) fn authorities(path: &Path, bytes: &[u8]) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path, bytes)? {
        roots
            .add(certificate)
            .map_err(|error| format!("{}: {error}", path.display()))?;
    }
    Ok(roots)
}

/// The private key of a file.
pub(crate) fn private_key(path: &Path, bytes: &[u8]) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_slice(bytes).map_err(|_| {
        format!(
            "{} holds no private key in PEM (hint: an encrypted one must be decrypted first)",
            path.display()
        )
    })
}
