//! Layout of a commit.
//!
//! ```text
//! | magic (8) | version (2) | reserved (2) | body length (4) | crc32c (4) | body |
//!  \___________________ covered ____________________________/              \cov./
//! ```

use crate::fields::{FieldError, FieldReader, put_count, put_name};
use crate::ids::WriterId;
use crate::ledger::Entry;
use crate::names::{NameError, commit_key};
use bytes::{BufMut, Bytes, BytesMut};

/// Version of the commit format that is written.
pub const COMMIT_VERSION: u16 = 1;
/// Most bytes of a commit.
pub const COMMIT_BYTES_MAX: usize = 64 * 1024 * 1024;

const MAGIC: [u8; 8] = *b"TLCOMMIT";
const HEADER_BYTES: usize = 20;
/// The checksum covers the header up to itself, and the body.
const CRC_AT: usize = 16;
const ENTRY_HEADER_BYTES: usize = 2 + 2 + 4;
/// A reader that does not know the kind of an entry with this flag must refuse the commit.
const MUST_UNDERSTAND: u16 = 1;

/// One link of a writer's chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    /// The backup.
    pub backup_id: String,
    /// The cluster that it is bound to; empty while unknown.
    pub cluster_id: String,
    /// Whose chain.
    pub writer: WriterId,
    /// Place in the chain: starts at 1 and is dense.
    pub seq: u64,
    /// Random: tells "exists already, and is mine" from another writer's commit.
    pub nonce: u128,
    /// When it was made, in epoch milliseconds.
    pub created_at_ms: i64,
    /// Program and version that made it.
    pub program: String,
    /// What it says.
    pub entries: Vec<Entry>,
}

/// Why bytes are no commit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommitError {
    /// The object ends too early. Stores show whole objects only, so this is damage.
    #[error("the commit is cut short: {present} of {needed} bytes")]
    Torn {
        /// Bytes needed.
        needed: u64,
        /// Bytes there.
        present: u64,
    },
    /// The bytes are there and wrong.
    #[error("the commit is corrupt: {what}")]
    Corrupt {
        /// What is wrong.
        what: &'static str,
    },
    /// Written by a newer version, in a way that this one cannot read.
    #[error("the commit has version {version}, this program reads up to {COMMIT_VERSION}; use a newer one")]
    Version {
        /// The version found.
        version: u16,
    },
    /// An entry that must be understood is not.
    #[error("the commit has an entry of kind {kind} that must be understood and is not; use a newer program")]
    Entry {
        /// The kind.
        kind: u16,
    },
    /// More than a reader would accept: make two commits of it.
    #[error("the commit has {len} bytes, the limit is {COMMIT_BYTES_MAX}")]
    TooLong {
        /// Its length.
        len: u64,
    },
    /// A field cannot be read or written.
    #[error("a field of the commit is unusable")]
    Field(#[from] FieldError),
}

impl Commit {
    /// The commit's object key.
    pub fn key(&self) -> Result<String, NameError> {
        commit_key(&self.backup_id, self.writer, self.seq)
    }

    /// Writes the commit. Fails on what a reader would refuse.
    pub fn encode(&self) -> Result<Bytes, CommitError> {
        let mut out = BytesMut::new();
        out.put_slice(&MAGIC);
        out.put_u16_le(COMMIT_VERSION);
        out.put_u16_le(0);
        out.put_u32_le(0);
        out.put_u32_le(0);
        self.encode_body(&mut out)?;
        if out.len() > COMMIT_BYTES_MAX {
            return Err(CommitError::TooLong {
                len: out.len() as u64,
            });
        }
        let (header, body) = out.split_at_mut(HEADER_BYTES);
        let (checked, crc) = header.split_at_mut(CRC_AT);
        if let Some(field) = checked.last_chunk_mut::<4>() {
            *field = (body.len() as u32).to_le_bytes();
        }
        crc.copy_from_slice(&checksum(checked, body));
        Ok(out.freeze())
    }

    /// Reads a commit.
    pub fn decode(object: &[u8]) -> Result<Commit, CommitError> {
        let present = object.len() as u64;
        let torn = |needed: usize| CommitError::Torn {
            needed: needed as u64,
            present,
        };
        let corrupt = |what| CommitError::Corrupt { what };
        let (header, body) = object.split_at_checked(HEADER_BYTES).ok_or(torn(HEADER_BYTES))?;
        let (checked, crc) = header.split_at(CRC_AT);
        let (magic, rest) = checked.split_at(MAGIC.len());
        if magic != MAGIC {
            return Err(corrupt("it does not begin like one"));
        }
        let mut fields = FieldReader::new(rest);
        let version = fields.u16("version")?;
        fields.u16("reserved")?;
        let body_bytes = fields.u32("body length")? as usize;
        if body_bytes.saturating_add(HEADER_BYTES) > COMMIT_BYTES_MAX {
            return Err(corrupt("it claims an impossible length"));
        }
        if body.len() < body_bytes {
            return Err(torn(body_bytes + HEADER_BYTES));
        }
        if body.len() > body_bytes {
            return Err(corrupt("bytes follow its end"));
        }
        if crc != checksum(checked, body) {
            return Err(corrupt("it does not match its checksum"));
        }
        if version != COMMIT_VERSION {
            return Err(CommitError::Version { version });
        }
        Commit::decode_body(&mut FieldReader::new(body))
    }

    fn encode_body(&self, out: &mut BytesMut) -> Result<(), CommitError> {
        put_name(out, "backup id", &self.backup_id)?;
        put_name(out, "cluster id", &self.cluster_id)?;
        out.put_u64_le(self.writer.0);
        out.put_u64_le(self.seq);
        out.put_u128_le(self.nonce);
        out.put_i64_le(self.created_at_ms);
        put_name(out, "program", &self.program)?;
        put_count(out, "entries", self.entries.len())?;
        for entry in &self.entries {
            out.put_u16_le(entry.kind());
            out.put_u16_le(match entry.must_be_understood() {
                true => MUST_UNDERSTAND,
                false => 0,
            });
            let len_at = out.len();
            out.put_u32_le(0);
            entry.encode(out)?;
            if out.len() > COMMIT_BYTES_MAX {
                return Err(CommitError::TooLong {
                    len: out.len() as u64,
                });
            }
            let len = (out.len() - len_at - 4) as u32;
            if let Some(field) = out.get_mut(len_at..).and_then(|rest| rest.first_chunk_mut::<4>()) {
                *field = len.to_le_bytes();
            }
        }
        Ok(())
    }

    fn decode_body(fields: &mut FieldReader<'_>) -> Result<Commit, CommitError> {
        let mut commit = Commit {
            backup_id: fields.name("backup id")?,
            cluster_id: fields.name("cluster id")?,
            writer: WriterId(fields.u64("writer")?),
            seq: fields.u64("sequence")?,
            nonce: fields.u128("nonce")?,
            created_at_ms: fields.i64("created at")?,
            program: fields.name("program")?,
            entries: Vec::new(),
        };
        if commit.seq == 0 {
            return Err(FieldError::invalid("sequence", 0).into());
        }
        for _ in 0..fields.count(ENTRY_HEADER_BYTES, "entries")? {
            let kind = fields.u16("entry kind")?;
            let flags = fields.u16("entry flags")?;
            let len = fields.u32("entry length")? as usize;
            let entry = Entry::decode(kind, fields.bytes(len, "entry")?)?;
            if matches!(entry, Entry::Unknown { .. }) && flags & MUST_UNDERSTAND != 0 {
                return Err(CommitError::Entry { kind });
            }
            commit.entries.push(entry);
        }
        Ok(commit)
    }
}

fn checksum(checked: &[u8], body: &[u8]) -> [u8; 4] {
    crc32c::crc32c_append(crc32c::crc32c(checked), body).to_le_bytes()
}
