//! TLS to brokers.
//!
//! Certificates are always checked: against the authorities that the configuration names, or the system's. The files
//! are read again for every connection ([`TlsClient::secure`]) or when somebody says so ([`TlsClient::reload`]), so that
//! renewed ones are used; what was made of them is kept while they stay the same, because reading the system's
//! authorities takes a while and resuming a session needs the same settings.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use teeline_config::{ClientCertificate, HostPort, Tls};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{self, CertificateError, RootCertStore};

use super::ClientError;
use crate::tls::{authorities, certificates, private_key, provider};

/// Makes TLS of TCP, for all connections to one cluster.
pub struct TlsClient {
    settings: Tls,
    loaded: Mutex<Option<Loaded>>,
}

struct Loaded {
    files: Files,
    config: Arc<rustls::ClientConfig>,
}

/// What the files held.
#[derive(PartialEq, Eq)]
struct Files {
    ca: Option<Vec<u8>>,
    client: Option<(Vec<u8>, Vec<u8>)>,
}

impl TlsClient {
    /// Nothing is read yet.
    pub fn new(settings: Tls) -> Self {
        Self {
            settings,
            loaded: Mutex::default(),
        }
    }

    /// Reads the files, and says whether something new came of it. What was read before stays in use when it fails.
    /// Not for threads that must not block.
    pub fn reload(&self) -> Result<bool, ClientError> {
        let before = self.loaded();
        let now = self.config()?;
        Ok(before.is_none_or(|before| !Arc::ptr_eq(&before, &now)))
    }

    /// Greets the broker, and checks that it is the one that was meant. The files are read again.
    pub async fn secure(
        self: &Arc<Self>,
        stream: TcpStream,
        address: &HostPort,
        limit: Duration,
    ) -> Result<TlsStream<TcpStream>, ClientError> {
        let config = self.read().await?;
        self.greet(config, stream, address, limit).await
    }

    /// The same with what was read last, so that many connections at once cost no reading.
    pub async fn secure_as_loaded(
        self: &Arc<Self>,
        stream: TcpStream,
        address: &HostPort,
        limit: Duration,
    ) -> Result<TlsStream<TcpStream>, ClientError> {
        let config = match self.loaded() {
            Some(config) => config,
            None => self.read().await?,
        };
        self.greet(config, stream, address, limit).await
    }

    async fn greet(
        &self,
        config: Arc<rustls::ClientConfig>,
        stream: TcpStream,
        address: &HostPort,
        limit: Duration,
    ) -> Result<TlsStream<TcpStream>, ClientError> {
        let name = self.server_name(address)?;
        let greeting = TlsConnector::from(config).connect(name, stream);
        match tokio::time::timeout(limit, greeting).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(error)) => Err(refusal(address, error).unwrap_or_else(|error| {
                let hint = "the port may not expect TLS: see security_protocol";
                let text = format!("TLS handshake: {error} (hint: {hint})");
                connect(address, io::Error::new(error.kind(), text))
            })),
            Err(_elapsed) => {
                let text = format!("no TLS handshake within {} ms", limit.as_millis());
                Err(connect(address, io::Error::new(io::ErrorKind::TimedOut, text)))
            }
        }
    }

    async fn read(self: &Arc<Self>) -> Result<Arc<rustls::ClientConfig>, ClientError> {
        let this = Arc::clone(self);
        tokio::task::spawn_blocking(move || this.config())
            .await
            .map_err(|_panicked| wrong("the files could not be read".to_owned()))?
    }

    fn loaded(&self) -> Option<Arc<rustls::ClientConfig>> {
        let loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        loaded.as_ref().map(|loaded| Arc::clone(&loaded.config))
    }

    fn server_name(&self, address: &HostPort) -> Result<ServerName<'static>, ClientError> {
        let name = self.settings.server_name.as_ref().unwrap_or(&address.host);
        ServerName::try_from(name.clone()).map_err(|_| {
            wrong(format!(
                "{name:?} is no name that a certificate can bear (hint: name one in tls.server_name)"
            ))
        })
    }

    fn config(&self) -> Result<Arc<rustls::ClientConfig>, ClientError> {
        let files = Files::read(&self.settings)?;
        // Held while files are parsed: connections made at the same time wait for one of them to do it.
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(loaded) = loaded.as_ref()
            && loaded.files == files
        {
            return Ok(Arc::clone(&loaded.config));
        }
        let config = Arc::new(build(&self.settings, &files)?);
        *loaded = Some(Loaded {
            files,
            config: Arc::clone(&config),
        });
        Ok(config)
    }
}

impl fmt::Debug for TlsClient {
    // Without the files, one of which is a key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TlsClient").field(&self.settings).finish()
    }
}

impl Files {
    fn read(settings: &Tls) -> Result<Self, ClientError> {
        let read = |path: &Path| {
            std::fs::read(path).map_err(|error| wrong(format!("read {}: {error}", path.display())))
        };
        let ca = settings.ca_file.as_deref().map(read).transpose()?;
        let client = settings.client.as_ref().map(|client| {
            let ClientCertificate { cert_file, key_file } = client;
            Ok::<_, ClientError>((read(cert_file)?, read(key_file)?))
        });
        Ok(Self {
            ca,
            client: client.transpose()?,
        })
    }
}

fn build(settings: &Tls, files: &Files) -> Result<rustls::ClientConfig, ClientError> {
    let unusable = |error: rustls::Error| wrong(error.to_string());
    let builder = rustls::ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(unusable)?
        .with_root_certificates(roots(settings, files)?);
    let (Some(client), Some((cert, key))) = (&settings.client, &files.client) else {
        return Ok(builder.with_no_client_auth());
    };
    let chain = certificates(&client.cert_file, cert).map_err(wrong)?;
    let key = private_key(&client.key_file, key).map_err(wrong)?;
    builder.with_client_auth_cert(chain, key).map_err(|error| {
        let (cert, key) = (client.cert_file.display(), client.key_file.display());
        wrong(format!("{cert} and {key} cannot be used together: {error}"))
    })
}

fn roots(settings: &Tls, files: &Files) -> Result<RootCertStore, ClientError> {
    if let (Some(path), Some(bytes)) = (&settings.ca_file, &files.ca) {
        return authorities(path, bytes).map_err(wrong);
    }
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    let (usable, _broken) = roots.add_parsable_certificates(found.certs);
    if usable == 0 {
        let reason = found.errors.first().map(ToString::to_string).unwrap_or_default();
        return Err(wrong(format!(
            "the system trusts no authority {reason} (hint: name the brokers' authority in tls.ca_file)"
        )));
    }
    Ok(roots)
}

/// What an I/O error of a TLS stream means, if TLS itself found it; otherwise the error again.
pub(super) fn refusal(address: &HostPort, error: io::Error) -> Result<ClientError, io::Error> {
    let Some(cause) = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>())
    else {
        return Err(error);
    };
    let hint = match cause {
        rustls::Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => " (hint: tls.server_name says which name the brokers' certificates bear)",
        rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
            " (hint: name the brokers' authority in tls.ca_file)"
        }
        rustls::Error::AlertReceived(_) => {
            " (hint: the broker may want a client certificate that it trusts: tls.cert_file)"
        }
        rustls::Error::InvalidMessage(_) => " (hint: the port may not expect TLS: see security_protocol)",
        _ => "",
    };
    Ok(ClientError::Tls {
        address: address.to_string(),
        reason: format!("{cause}{hint}"),
    })
}

fn connect(address: &HostPort, error: io::Error) -> ClientError {
    ClientError::Connect {
        address: address.to_string(),
        source: Arc::new(error),
    }
}

fn wrong(reason: String) -> ClientError {
    ClientError::Security { what: "TLS", reason }
}
