//! Kerberos 5, the client's side: from a keytab or a file of tickets to a ticket for a broker (RFC 4120), and from there
//! to tokens of GSS-API (RFC 4121).
//!
//! What is here authenticates and nothing else: no passwords, no delegation, no encryption of what follows. Keys are
//! those of AES (RFC 3962, RFC 8009), in the library that TLS uses anyway; single DES, triple DES and RC4 are not there
//! (RFC 8429). Everything that comes from a KDC, a broker or a file is bounded, and checked before it is believed.
//!
//! Getting a ticket blocks: `flight` does it on a thread that may, and on few of them.
//!
//! - `der`: the encoding of messages. `messages`: the messages. `crypto`: keys and what they do.
//! - `configuration`, `keytab`, `cache`: the files. `kdc`: the way to a KDC.
//! - `tickets`: gets a ticket, and keeps it. `flight`: one job for all who want it. `context`: shows it to a broker, who proves itself in turn.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

mod cache;
mod configuration;
mod context;
mod crypto;
mod der;
mod flight;
mod kdc;
mod keytab;
mod messages;
#[cfg(test)]
mod testing;
mod tickets;

pub(super) use context::{Context, Offer};
pub(super) use flight::ticket;
pub(super) use tickets::Found;

use crypto::Key;

/// Why there is no ticket, or no agreement with a broker.
#[derive(Debug, Clone, thiserror::Error)]
pub(in crate::client) enum KerberosError {
    /// A file cannot be read.
    #[error("read {}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: Arc<io::Error>,
    },
    /// A file is not what it should be, or lacks what is needed.
    #[error("{}: {reason}", path.display())]
    Unusable {
        /// Which.
        path: PathBuf,
        /// Why, in words, with a hint.
        reason: String,
    },
    /// Nothing says which realm, or where its KDCs are.
    #[error("{0}")]
    NotDescribed(String),
    /// No KDC of the realm answers. That may pass.
    #[error("no KDC of {realm} answers")]
    Unreachable {
        /// The realm.
        realm: String,
        /// The last failure.
        #[source]
        source: Arc<io::Error>,
    },
    /// KDCs are slow, or too many are asked at once. That may pass.
    #[error("there is no ticket in time")]
    Late,
    /// The KDC, or the broker, has said no.
    #[error("{by} refuses: {reason}")]
    Refused {
        /// Who.
        by: String,
        /// Why: its code and its words.
        reason: String,
    },
    /// A message is not what the protocol has there.
    #[error("{0} is malformed")]
    Malformed(&'static str),
    /// A message is well-formed, but is not from whom it should be, or is not the answer to what was asked.
    #[error("{0}")]
    NotProven(&'static str),
}

/// A name in a realm. Its type is not part of it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Principal {
    realm: String,
    parts: Vec<String>,
}

impl Principal {
    /// As it is written: `primary/instance@REALM`; a backslash takes a character's meaning away.
    fn parse(text: &str, default_realm: Option<&str>) -> Result<Self, KerberosError> {
        let wrong = |why: &str| KerberosError::NotDescribed(format!("principal {text:?} {why}"));
        let mut parts = vec![String::new()];
        let mut realm: Option<String> = None;
        let mut letters = text.chars();
        while let Some(letter) = letters.next() {
            let literal = match letter {
                '\\' => letters.next().ok_or_else(|| wrong("ends in a backslash"))?,
                '@' if realm.is_none() => {
                    realm = Some(String::new());
                    continue;
                }
                '/' if realm.is_none() => {
                    parts.push(String::new());
                    continue;
                }
                other => other,
            };
            let current = realm.as_mut().or_else(|| parts.last_mut());
            if let Some(part) = current {
                part.push(literal);
            }
        }
        let realm = match realm.as_deref().or(default_realm) {
            Some(realm) if !realm.is_empty() => realm.to_owned(),
            _ => return Err(wrong("has no realm, and krb5.conf has no default_realm")),
        };
        if parts.iter().any(String::is_empty) {
            return Err(wrong("has an empty part"));
        }
        Ok(Self { realm, parts })
    }

    /// The service that grants tickets of `of`, in `realm`.
    fn granting(of: &str, realm: &str) -> Self {
        Self {
            realm: realm.to_owned(),
            parts: vec![GRANTING.to_owned(), of.to_owned()],
        }
    }

    /// Whose tickets this one grants, if it does.
    fn grants(&self) -> Option<&str> {
        match self.parts.as_slice() {
            [service, realm] if service == GRANTING => Some(realm),
            _ => None,
        }
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.parts.join("/"), self.realm)
    }
}

/// A ticket, and the key that goes with it.
#[derive(Debug, Clone)]
pub(in crate::client) struct Ticket {
    client: Principal,
    server: Principal,
    key: Key,
    /// As the KDC gave it: for whom it is meant only.
    bytes: Vec<u8>,
    /// When it ends, in seconds of Unix.
    end: u64,
}

impl Ticket {
    fn is_usable(&self, now: Moment) -> bool {
        self.end > now.seconds.saturating_add(TICKET_MARGIN_SECONDS)
    }
}

/// A moment, as Kerberos tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Moment {
    seconds: u64,
    micros: u32,
}

impl Moment {
    fn now() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            seconds: since.as_secs(),
            micros: since.subsec_micros(),
        }
    }
}

/// A file's content. One that is larger than any is refused.
fn read_file(path: &Path) -> Result<Vec<u8>, KerberosError> {
    use io::Read as _;
    let failed = |source: io::Error| KerberosError::File {
        path: path.to_owned(),
        source: Arc::new(source),
    };
    let file = std::fs::File::open(path).map_err(failed)?;
    let mut content = Vec::new();
    file.take(FILE_BYTES_MAX + 1)
        .read_to_end(&mut content)
        .map_err(failed)?;
    if content.len() as u64 > FILE_BYTES_MAX {
        return Err(unusable(path, format!("is larger than {FILE_BYTES_MAX} bytes")));
    }
    Ok(content)
}

fn unusable(path: &Path, reason: impl Into<String>) -> KerberosError {
    KerberosError::Unusable {
        path: path.to_owned(),
        reason: reason.into(),
    }
}

/// Big-endian numbers and counted bytes of a file.
struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(u8::from_be_bytes)
    }

    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    fn counted(&mut self) -> Option<&'a [u8]> {
        let count = self.u32()?;
        self.take(usize::try_from(count).ok()?)
    }
}

const GRANTING: &str = "krbtgt";
/// Not shown shortly before its end: it has to arrive, and clocks differ.
const TICKET_MARGIN_SECONDS: u64 = 60;
const FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn principals_are_read_as_they_are_written() {
        let read = |text: &str| Principal::parse(text, Some("DEFAULT")).map(|read| (read.parts, read.realm));
        let own = |parts: &[&str], realm: &str| {
            let parts: Vec<String> = parts.iter().map(ToString::to_string).collect();
            (parts, realm.to_owned())
        };
        assert_eq!(read("me").unwrap(), own(&["me"], "DEFAULT"));
        assert_eq!(read("me/host.a@REALM").unwrap(), own(&["me", "host.a"], "REALM"));
        assert_eq!(read(r"a\/b\@c@R/S").unwrap(), own(&["a/b@c"], "R/S"));
        for wrong in ["", "a//b@R", r"a\", "@R", "a@"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
        assert!(Principal::parse("me", None).is_err());
        assert_eq!(Principal::granting("B", "A").grants(), Some("B"));
    }
}
