//! Objects that hold the state of the source's cluster beside its records.

use crate::fields::{FieldError, FieldReader, put_name};
use bytes::{BufMut, BytesMut};
use std::fmt;

/// A stored piece of the cluster's state: JSON lines, compressed, each with the time at which it was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateObject {
    /// What it is about.
    pub kind: StateKind,
    /// Object key.
    pub key: String,
    /// Time of its first line, in epoch milliseconds.
    pub first_at_ms: i64,
    /// Time of its last line, in epoch milliseconds.
    pub last_at_ms: i64,
    /// Whether it begins with the whole state: nothing older is needed to read it.
    pub full: bool,
    /// Bytes of the object.
    pub bytes: u64,
    /// Checksum of the object's bytes.
    pub crc32c: u32,
}

/// What a state object is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum StateKind {
    /// Consumer groups and their offsets.
    Groups,
    /// Configurations and partition counts of topics.
    TopicConfigs,
    /// Access control lists.
    Acls,
    /// Client quotas.
    Quotas,
    /// Names of SCRAM users, with mechanism and iterations; no secrets.
    ScramUsers,
    /// A kind that a newer version wrote; its code.
    Unknown(u8),
}

impl StateKind {
    /// The kinds that are known, in their order.
    pub const ALL: [StateKind; 5] = [
        StateKind::Groups,
        StateKind::TopicConfigs,
        StateKind::Acls,
        StateKind::Quotas,
        StateKind::ScramUsers,
    ];

    /// The number that stands in the ledger.
    pub fn code(self) -> u8 {
        match self {
            StateKind::Groups => 1,
            StateKind::TopicConfigs => 2,
            StateKind::Acls => 3,
            StateKind::Quotas => 4,
            StateKind::ScramUsers => 5,
            StateKind::Unknown(code) => code,
        }
    }

    /// The kind of a number.
    pub fn from_code(code: u8) -> StateKind {
        let known = StateKind::ALL.into_iter().find(|kind| kind.code() == code);
        known.unwrap_or(StateKind::Unknown(code))
    }

    /// The kind of a word that stands in a key.
    pub fn from_word(word: &str) -> Option<StateKind> {
        let known = StateKind::ALL.into_iter().find(|kind| kind.word() == Some(word));
        known.or_else(|| {
            let code = word.strip_prefix(UNKNOWN)?.parse().ok()?;
            Some(StateKind::from_code(code))
        })
    }

    fn word(self) -> Option<&'static str> {
        match self {
            StateKind::Groups => Some("groups"),
            StateKind::TopicConfigs => Some("topic-configs"),
            StateKind::Acls => Some("acls"),
            StateKind::Quotas => Some("quotas"),
            StateKind::ScramUsers => Some("scram-users"),
            StateKind::Unknown(_) => None,
        }
    }
}

impl fmt::Display for StateKind {
    /// The word for it in keys and reports.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A number that has a word by now is shown by it.
        match StateKind::from_code(self.code()).word() {
            Some(word) => f.write_str(word),
            None => write!(f, "{UNKNOWN}{}", self.code()),
        }
    }
}

const UNKNOWN: &str = "kind-";

impl StateObject {
    pub(super) fn encode(&self, out: &mut BytesMut) -> Result<(), FieldError> {
        out.put_u8(self.kind.code());
        put_name(out, "key", &self.key)?;
        out.put_i64_le(self.first_at_ms);
        out.put_i64_le(self.last_at_ms);
        out.put_u8(self.full.into());
        out.put_u64_le(self.bytes);
        out.put_u32_le(self.crc32c);
        Ok(())
    }

    pub(super) fn decode(fields: &mut FieldReader<'_>) -> Result<StateObject, FieldError> {
        Ok(StateObject {
            kind: StateKind::from_code(fields.u8("kind")?),
            key: fields.name("key")?,
            first_at_ms: fields.i64("first time")?,
            last_at_ms: fields.i64("last time")?,
            full: fields.flag("full")?,
            bytes: fields.u64("bytes")?,
            crc32c: fields.u32("checksum")?,
        })
    }
}
