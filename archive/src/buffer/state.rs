//! The small files beside the buffer's data: identity, session, positions.
//!
//! All share one layout: magic, checksum, version, fields. They are replaced whole (written beside, synced,
//! renamed), so a reader sees the old or the new one.

use crate::fields::{FieldError, FieldReader};
use crate::ids::{BufferPosition, Lsn, SessionId, WriterId};
use bytes::{BufMut, Bytes, BytesMut};
use uuid::Uuid;

/// Who the buffer is (`buffer.id`): written once, when the directory is created.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BufferIdentity {
    /// Random identity of the directory.
    pub buffer_id: Uuid,
    /// The ledger chain that archives it.
    pub writer: WriterId,
}

/// The last session number handed out (`session`): durable before the session writes its first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionMark {
    /// The session.
    pub session: SessionId,
}

/// How far the writer is (`positions`): readers stop at `synced`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Positions {
    /// Last frame handed to the kernel.
    pub written: BufferPosition,
    /// Last frame known durable; never above `written`.
    pub synced: BufferPosition,
    /// The file that holds the last synced frame.
    pub file_number: u64,
    /// Bytes of that file up to the last synced frame's end.
    pub file_bytes: u64,
    /// Whether the session was closed properly: nothing follows.
    pub closed: bool,
}

/// How far the reader is (`archived`): everything up to here is in the ledger, so its files may go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Archived {
    /// The last archived position.
    pub position: BufferPosition,
}

/// Why a state file cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// The file is empty or not whole: its first creation was cut short.
    #[error("the state file is empty or cut short")]
    Torn,
    /// It is another kind of file, or was changed.
    #[error("the state file is corrupt: {why}")]
    Corrupt {
        /// What is wrong.
        why: &'static str,
    },
    /// Written by a newer version.
    #[error(
        "the state file has version {version}, this program reads up to {STATE_VERSION}; use a newer one"
    )]
    Version {
        /// The version found.
        version: u16,
    },
    /// The checksum is right and a field has no meaning.
    #[error("the state file has no meaning")]
    Field(#[from] FieldError),
}

/// Version of the state files.
pub const STATE_VERSION: u16 = 1;

const IDENTITY_MAGIC: [u8; 4] = *b"TLid";
const SESSION_MAGIC: [u8; 4] = *b"TLse";
const POSITIONS_MAGIC: [u8; 4] = *b"TLpo";
const ARCHIVED_MAGIC: [u8; 4] = *b"TLar";

impl BufferIdentity {
    /// Writes the file's content.
    pub fn encode(&self) -> Bytes {
        seal(IDENTITY_MAGIC, |out| {
            out.put_slice(self.buffer_id.as_bytes());
            out.put_u64_le(self.writer.0);
        })
    }

    /// Reads the file's content.
    pub fn decode(file: &[u8]) -> Result<BufferIdentity, StateError> {
        let mut fields = open(IDENTITY_MAGIC, file)?;
        Ok(BufferIdentity {
            buffer_id: fields.uuid("buffer id")?,
            writer: WriterId(fields.u64("writer")?),
        })
    }
}

impl SessionMark {
    /// Writes the file's content.
    pub fn encode(&self) -> Bytes {
        seal(SESSION_MAGIC, |out| out.put_u64_le(self.session.0))
    }

    /// Reads the file's content.
    pub fn decode(file: &[u8]) -> Result<SessionMark, StateError> {
        let mut fields = open(SESSION_MAGIC, file)?;
        Ok(SessionMark {
            session: SessionId(fields.u64("session")?),
        })
    }
}

impl Positions {
    /// Writes the file's content.
    pub fn encode(&self) -> Bytes {
        seal(POSITIONS_MAGIC, |out| {
            put_position(out, self.written);
            put_position(out, self.synced);
            out.put_u64_le(self.file_number);
            out.put_u64_le(self.file_bytes);
            out.put_u8(self.closed.into());
        })
    }

    /// Reads the file's content.
    pub fn decode(file: &[u8]) -> Result<Positions, StateError> {
        let mut fields = open(POSITIONS_MAGIC, file)?;
        let positions = Positions {
            written: read_position(&mut fields)?,
            synced: read_position(&mut fields)?,
            file_number: fields.u64("file number")?,
            file_bytes: fields.u64("file bytes")?,
            closed: fields.flag("closed")?,
        };
        if positions.synced > positions.written {
            return Err(FieldError::invalid("synced position", positions.synced).into());
        }
        Ok(positions)
    }
}

impl Archived {
    /// Writes the file's content.
    pub fn encode(&self) -> Bytes {
        seal(ARCHIVED_MAGIC, |out| put_position(out, self.position))
    }

    /// Reads the file's content.
    pub fn decode(file: &[u8]) -> Result<Archived, StateError> {
        Ok(Archived {
            position: read_position(&mut open(ARCHIVED_MAGIC, file)?)?,
        })
    }
}

fn put_position(out: &mut BytesMut, position: BufferPosition) {
    out.put_u64_le(position.session.0);
    out.put_u64_le(position.lsn.0);
}

fn read_position(fields: &mut FieldReader<'_>) -> Result<BufferPosition, FieldError> {
    Ok(BufferPosition {
        session: SessionId(fields.u64("session")?),
        lsn: Lsn(fields.u64("lsn")?),
    })
}

fn seal(magic: [u8; 4], fields: impl FnOnce(&mut BytesMut)) -> Bytes {
    let mut checked = BytesMut::with_capacity(64);
    checked.put_u16_le(STATE_VERSION);
    checked.put_u16_le(0);
    fields(&mut checked);
    let mut out = BytesMut::with_capacity(8 + checked.len());
    out.put_slice(&magic);
    out.put_u32_le(crc32c::crc32c(&checked));
    out.put_slice(&checked);
    out.freeze()
}

fn open(magic: [u8; 4], file: &[u8]) -> Result<FieldReader<'_>, StateError> {
    if file.iter().all(|byte| *byte == 0) {
        return Err(StateError::Torn);
    }
    let Some((found, rest)) = file.split_first_chunk::<4>() else {
        return Err(StateError::Torn);
    };
    let Some((crc, checked)) = rest.split_first_chunk::<4>() else {
        return Err(StateError::Torn);
    };
    if *found != magic {
        return Err(StateError::Corrupt { why: "magic" });
    }
    if *crc != crc32c::crc32c(checked).to_le_bytes() {
        return Err(StateError::Corrupt { why: "checksum" });
    }
    let mut fields = FieldReader::new(checked);
    let version = fields.u16("version")?;
    if version != STATE_VERSION {
        return Err(StateError::Version { version });
    }
    fields.u16("reserved")?;
    Ok(fields)
}

#[cfg(test)]
#[allow(clippy::indexing_slicing)]
mod tests {
    use super::*;

    #[test]
    fn each_state_file_is_read_back_and_any_flipped_bit_is_noticed() {
        let at = |session, lsn| BufferPosition::new(SessionId(session), Lsn(lsn));
        let identity = BufferIdentity {
            buffer_id: Uuid::from_u128(5),
            writer: WriterId(9),
        };
        let positions = Positions {
            written: at(2, 9),
            synced: at(2, 7),
            file_number: 4,
            file_bytes: 400,
            closed: true,
        };
        let archived = Archived { position: at(1, 3) };
        let mark = SessionMark {
            session: SessionId(2),
        };
        assert_eq!(BufferIdentity::decode(&identity.encode()), Ok(identity));
        assert_eq!(Positions::decode(&positions.encode()), Ok(positions));
        assert_eq!(Archived::decode(&archived.encode()), Ok(archived));
        assert_eq!(SessionMark::decode(&mark.encode()), Ok(mark));
        for bit in 0..positions.encode().len() * 8 {
            let mut bad = positions.encode().to_vec();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(Positions::decode(&bad).is_err(), "bit {bit}");
        }
        assert!(Archived::decode(&positions.encode()).is_err());
        assert_eq!(Archived::decode(&[]), Err(StateError::Torn));
    }
}
