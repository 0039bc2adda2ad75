//! Mechanisms of SASL, the client's side: messages in, messages out.
//!
//! PLAIN (RFC 4616), SCRAM (`scram`), OAUTHBEARER (RFC 7628 with the extensions of KIP-342), GSSAPI (`gssapi`, over
//! `kerberos`). Nothing here is logged, and nothing that is shown holds a credential.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Instant;

use teeline_config::{Bearer, Credential, Login, Sasl, Secret};

mod gssapi;
mod kerberos;
mod scram;

use gssapi::Gssapi;
pub(super) use kerberos::KerberosError;
use scram::{Digest, Scram};

/// Why an authentication did not come about, apart from the connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum SaslError {
    /// The credential's file cannot be read.
    #[error("read {}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The credential's file has nothing in it.
    #[error("{} is empty", .0.display())]
    EmptyFile(PathBuf),
    /// What the broker sent is not what the mechanism sends.
    #[error("the broker sent a malformed {0}")]
    Malformed(&'static str),
    /// The broker's nonce does not continue ours: the message may be an old one.
    #[error("the broker's nonce does not continue ours")]
    WrongNonce,
    /// So few iterations give the password away, so many take for ever.
    #[error("the broker asks for {0} iterations; 4096 to 1000000 are accepted")]
    Iterations(u32),
    /// The broker did not prove that it knows the password.
    #[error("the broker did not prove that it knows the password: it may be another than it seems")]
    NotProven,
    /// Kerberos gave no ticket, or the broker did not prove itself by it.
    #[error(transparent)]
    Kerberos(#[from] KerberosError),
    /// The process is stopping.
    #[error("the process is stopping")]
    Stopping,
    /// The broker's own words.
    #[error("{0}")]
    Refused(String),
}

/// One authentication.
#[derive(Debug)]
pub(super) enum Exchange {
    /// Everything is said at once.
    Plain(PlainMessage),
    /// Two rounds.
    Scram(Scram),
    /// Everything is said at once; a refusal has to be confirmed.
    Bearer(BearerMessage),
    /// Three rounds, the last of which only says that all is well.
    Gssapi(Box<Gssapi>),
}

impl Exchange {
    /// Begins with what the configuration says towards the broker at `host`: its files are read, and others are asked
    /// for tickets until then.
    pub(super) async fn begin(sasl: &Sasl, host: &str, until: Instant) -> Result<Self, SaslError> {
        if let Sasl::Gssapi(kerberos) = sasl {
            return Self::gssapi(kerberos::ticket(kerberos, host, until).await?);
        }
        let sasl = sasl.clone();
        let read = tokio::task::spawn_blocking(move || Self::read(&sasl));
        read.await.unwrap_or(Err(SaslError::Stopping))
    }

    fn gssapi(found: kerberos::Found) -> Result<Self, SaslError> {
        Ok(Self::Gssapi(Box::new(Gssapi::begin(found)?)))
    }

    /// Those that need nobody else: not for threads that must not block.
    fn read(sasl: &Sasl) -> Result<Self, SaslError> {
        Ok(match sasl {
            Sasl::Plain(login) => Self::Plain(PlainMessage::new(login)?),
            Sasl::ScramSha256(login) => Self::scram(Digest::Sha256, login)?,
            Sasl::ScramSha512(login) => Self::scram(Digest::Sha512, login)?,
            Sasl::OauthBearer(bearer) => Self::Bearer(BearerMessage::new(bearer)?),
            Sasl::Gssapi(_) => return Err(SaslError::Malformed("beginning: it takes a ticket")),
        })
    }

    fn scram(digest: Digest, login: &Login) -> Result<Self, SaslError> {
        let password = reveal(&login.password)?;
        Ok(Self::Scram(Scram::new(digest, &login.username, password)))
    }

    /// The first message.
    pub(super) fn first(&self) -> Vec<u8> {
        match self {
            Self::Plain(message) => message.0.expose().as_bytes().to_vec(),
            Self::Scram(scram) => scram.first(),
            Self::Bearer(message) => message.text.expose().as_bytes().to_vec(),
            Self::Gssapi(gssapi) => gssapi.first(),
        }
    }

    /// The answer to a message of the broker; none when all is said. SCRAM takes a while.
    pub(super) fn next(&mut self, message: &[u8]) -> Result<Option<Vec<u8>>, SaslError> {
        match self {
            Self::Plain(_) => Ok(None),
            Self::Scram(scram) => scram.next(message),
            Self::Bearer(bearer) => bearer.next(message),
            Self::Gssapi(gssapi) => gssapi.next(message),
        }
    }
}

/// `NUL user NUL password`.
pub(super) struct PlainMessage(Secret);

impl PlainMessage {
    fn new(login: &Login) -> Result<Self, SaslError> {
        let password = reveal(&login.password)?;
        let text = format!("\0{}\0{}", login.username, password.expose());
        Ok(Self(Secret::new(text)))
    }
}

impl fmt::Debug for PlainMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PlainMessage")
    }
}

/// The token with its extensions.
pub(super) struct BearerMessage {
    text: Secret,
    refusal: Option<String>,
}

impl BearerMessage {
    fn new(bearer: &Bearer) -> Result<Self, SaslError> {
        Ok(Self {
            text: bearer_text(&reveal(&bearer.token)?, &bearer.extensions),
            refusal: None,
        })
    }

    fn next(&mut self, message: &[u8]) -> Result<Option<Vec<u8>>, SaslError> {
        if let Some(refusal) = self.refusal.take() {
            return Err(SaslError::Refused(refusal));
        }
        if message.is_empty() {
            return Ok(None);
        }
        // The broker says why in JSON, and fails once that is confirmed.
        self.refusal = Some(String::from_utf8_lossy(message).into_owned());
        Ok(Some(b"\x01".to_vec()))
    }
}

impl fmt::Debug for BearerMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BearerMessage")
    }
}

fn bearer_text(token: &Secret, extensions: &BTreeMap<String, String>) -> Secret {
    let mut text = format!("n,,\x01auth=Bearer {}\x01", token.expose());
    for (name, value) in extensions {
        text.push_str(&format!("{name}={value}\x01"));
    }
    text.push('\x01');
    Secret::new(text)
}

fn reveal(credential: &Credential) -> Result<Secret, SaslError> {
    let path = match credential {
        Credential::Given(secret) => return Ok(secret.clone()),
        Credential::File(path) => path,
    };
    let text = std::fs::read_to_string(path).map_err(|source| SaslError::File {
        path: path.clone(),
        source,
    })?;
    // Editors end files with a line break, credentials do not.
    match text.trim_end_matches(['\r', '\n']) {
        "" => Err(SaslError::EmptyFile(path.clone())),
        text => Ok(Secret::new(text)),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn login(password: Credential) -> Login {
        Login {
            username: "user".to_owned(),
            password,
        }
    }

    #[test]
    fn a_password_is_read_again_from_its_file() {
        let path = std::env::temp_dir().join(format!("teeline-password-{}", std::process::id()));
        let sasl = Sasl::Plain(login(Credential::File(path.clone())));
        for (written, expected) in [("one\n", "one"), ("two\r\n", "two")] {
            std::fs::write(&path, written).unwrap();
            let first = Exchange::read(&sasl).unwrap().first();
            assert_eq!(first, format!("\0user\0{expected}").into_bytes());
        }
        std::fs::write(&path, "\n").unwrap();
        assert!(matches!(Exchange::read(&sasl), Err(SaslError::EmptyFile(_))));
        std::fs::remove_file(&path).unwrap();
        let error = Exchange::read(&sasl).unwrap_err();
        assert!(error.to_string().contains("teeline-password"), "{error}");
    }

    #[test]
    fn a_token_goes_with_its_extensions_and_a_refusal_is_confirmed() {
        let bearer = Sasl::OauthBearer(Bearer {
            token: Credential::Given(Secret::new("t.o.k")),
            extensions: BTreeMap::from([("logicalCluster".to_owned(), "lkc-1".to_owned())]),
        });
        let mut exchange = Exchange::read(&bearer).unwrap();
        assert_eq!(
            exchange.first(),
            b"n,,\x01auth=Bearer t.o.k\x01logicalCluster=lkc-1\x01\x01"
        );
        assert_eq!(
            exchange.next(b"{\"status\":\"invalid_token\"}").unwrap().unwrap(),
            b"\x01"
        );
        let error = exchange.next(b"").unwrap_err();
        assert_eq!(error.to_string(), "{\"status\":\"invalid_token\"}");
    }

    #[test]
    fn no_credential_is_shown() {
        let secret = || Credential::Given(Secret::new("hidden"));
        let bearer = Bearer {
            token: secret(),
            extensions: BTreeMap::new(),
        };
        let all = [
            Sasl::Plain(login(secret())),
            Sasl::ScramSha256(login(secret())),
            Sasl::ScramSha512(login(secret())),
            Sasl::OauthBearer(bearer),
        ];
        for sasl in all {
            let exchange = Exchange::read(&sasl).unwrap();
            assert!(!format!("{sasl:?} {exchange:?}").contains("hidden"));
        }
    }
}
