//! How the connections of Teeline's own client to a cluster are protected.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::secret::Secret;

/// Kafka's name for what [`Security`] says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SecurityProtocol {
    /// Neither TLS nor SASL.
    #[default]
    Plaintext,
    /// TLS.
    Ssl,
    /// SASL over plaintext.
    SaslPlaintext,
    /// SASL over TLS.
    SaslSsl,
}

impl SecurityProtocol {
    /// Every one, with its name in the file, which is Kafka's.
    pub const ALL: [(&'static str, Self); 4] = [
        ("PLAINTEXT", Self::Plaintext),
        ("SSL", Self::Ssl),
        ("SASL_PLAINTEXT", Self::SaslPlaintext),
        ("SASL_SSL", Self::SaslSsl),
    ];

    /// As it is written in the file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Plaintext => "PLAINTEXT",
            Self::Ssl => "SSL",
            Self::SaslPlaintext => "SASL_PLAINTEXT",
            Self::SaslSsl => "SASL_SSL",
        }
    }

    /// Whether connections are encrypted.
    pub fn has_tls(self) -> bool {
        matches!(self, Self::Ssl | Self::SaslSsl)
    }

    /// Whether the client says who it is by SASL.
    pub fn has_sasl(self) -> bool {
        matches!(self, Self::SaslPlaintext | Self::SaslSsl)
    }
}

/// TLS, SASL, both or neither.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Security {
    /// TLS, if connections are encrypted.
    pub tls: Option<Tls>,
    /// SASL, if the client has to say who it is.
    pub sasl: Option<Sasl>,
}

impl Security {
    /// Kafka's name for it.
    pub fn protocol(&self) -> SecurityProtocol {
        match (&self.tls, &self.sasl) {
            (None, None) => SecurityProtocol::Plaintext,
            (Some(_), None) => SecurityProtocol::Ssl,
            (None, Some(_)) => SecurityProtocol::SaslPlaintext,
            (Some(_), Some(_)) => SecurityProtocol::SaslSsl,
        }
    }
}

/// Whom to trust, and what to show. There is no way to trust everybody.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tls {
    /// Certificates of the authorities to trust, PEM; `None` trusts those of the system.
    pub ca_file: Option<PathBuf>,
    /// What the client shows, for brokers that ask for it (mTLS).
    pub client: Option<ClientCertificate>,
    /// The name that every broker's certificate must bear; `None` for the host that was connected to.
    pub server_name: Option<String>,
}

/// A certificate of the client and its key, as PEM files. Read again for each connection, so that renewed ones
/// are used without a restart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCertificate {
    /// The certificate, followed by its intermediate ones.
    pub cert_file: PathBuf,
    /// Its private key, not encrypted.
    pub key_file: PathBuf,
}

/// A mechanism of SASL, with what it needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sasl {
    /// Name and password as they are.
    Plain(Login),
    /// Proof of the password by SHA-256; the broker proves that it knows it too.
    ScramSha256(Login),
    /// The same by SHA-512.
    ScramSha512(Login),
    /// A token.
    OauthBearer(Bearer),
    /// A ticket of Kerberos 5.
    Gssapi(Kerberos),
}

impl Sasl {
    /// The mechanism, as it is called on the wire and in the file.
    pub fn mechanism(&self) -> &'static str {
        match self {
            Self::Plain(_) => "PLAIN",
            Self::ScramSha256(_) => "SCRAM-SHA-256",
            Self::ScramSha512(_) => "SCRAM-SHA-512",
            Self::OauthBearer(_) => "OAUTHBEARER",
            Self::Gssapi(_) => "GSSAPI",
        }
    }
}

/// A user and a password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    /// Who.
    pub username: String,
    /// How it is shown.
    pub password: Credential,
}

/// A token of OAuth 2, as somebody else obtained it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bearer {
    /// The token.
    pub token: Credential,
    /// What the broker wants to know besides (KIP-342), by name.
    pub extensions: BTreeMap<String, String>,
}

/// Who to be towards Kerberos, and where its realms are described.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Kerberos {
    /// What proves who we are.
    pub identity: KerberosIdentity,
    /// The first part of the brokers' principals; their host is the second.
    pub service_name: String,
    /// Files in the form of `krb5.conf`; what an earlier one says counts. Those that are not there are left out.
    pub configuration: Vec<PathBuf>,
}

/// What proves to Kerberos who we are. Files are read again whenever they are needed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum KerberosIdentity {
    /// The principal's long-term keys.
    Keytab {
        /// Who; without a realm, in the default one.
        principal: String,
        /// The file with the keys.
        keytab: PathBuf,
    },
    /// Tickets that somebody else obtains and renews.
    TicketCache(PathBuf),
}

impl Kerberos {
    /// What Kafka's own brokers are called unless their operators say otherwise.
    pub const DEFAULT_SERVICE_NAME: &'static str = "kafka";
    /// Where Kerberos is described on most systems.
    pub const DEFAULT_CONFIGURATION: &'static str = "/etc/krb5.conf";
}

/// A credential, or the file that holds it. A file is read again at each authentication: tokens expire, and
/// passwords are changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credential {
    /// In place.
    Given(Secret),
    /// In a file; a line break at its end does not count.
    File(PathBuf),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_protocol_follows_from_what_is_there() {
        let login = Login {
            username: "u".to_owned(),
            password: Credential::Given(Secret::new("hidden")),
        };
        let sasl = Some(Sasl::Plain(login));
        let tls = Some(Tls::default());
        let all = [
            (None, None),
            (tls.clone(), None),
            (None, sasl.clone()),
            (tls, sasl),
        ];
        for ((tls, sasl), (name, protocol)) in all.into_iter().zip(SecurityProtocol::ALL) {
            let security = Security { tls, sasl };
            assert_eq!(security.protocol(), protocol);
            assert_eq!(protocol.as_str(), name);
            assert_eq!(security.tls.is_some(), protocol.has_tls());
            assert_eq!(security.sasl.is_some(), protocol.has_sasl());
            assert!(!format!("{security:?}").contains("hidden"));
        }
    }
}
