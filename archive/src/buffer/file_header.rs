//! The header of a buffer file: whose it is, and which frames it begins with.

use crate::fields::FieldReader;
use crate::ids::{Lsn, SessionId};
use bytes::BufMut;
use uuid::Uuid;

/// Bytes of the header; the first frame follows.
pub const FILE_HEADER_BYTES: usize = 64;
/// Version of the file format that is written.
pub const BUFFER_VERSION: u16 = 1;

const MAGIC: [u8; 8] = *b"TLBUFFER";
/// The checksum covers everything from here on, and the bytes before it are the magic and itself.
const CHECKED_FROM: usize = 12;

/// The header of a buffer file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileHeader {
    /// The buffer (directory) that the file belongs to.
    pub buffer_id: Uuid,
    /// The only session whose frames the file holds.
    pub session: SessionId,
    /// Number of the file, as in its name.
    pub file_number: u64,
    /// LSN of the first frame.
    pub first_lsn: Lsn,
    /// When the file was created, in epoch milliseconds.
    pub created_at_ms: i64,
}

/// Why the bytes are no header.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FileHeaderError {
    /// Nothing has been written: no bytes, or zeros only. The file was created and not used.
    #[error("no header has been written")]
    NotThere,
    /// The file ends inside the header: its creation was cut short.
    #[error("the header is cut short: {present} of {FILE_HEADER_BYTES} bytes")]
    Torn {
        /// Bytes present.
        present: usize,
    },
    /// The bytes are not a header of ours, or were changed since.
    #[error("the header is corrupt: {why}")]
    Corrupt {
        /// What is wrong.
        why: &'static str,
    },
    /// Written by a newer version: not damage, but not readable either.
    #[error("the header has version {version}, this program reads up to {BUFFER_VERSION}; use a newer one")]
    Version {
        /// The version found.
        version: u16,
    },
}

impl FileHeader {
    /// Writes the header.
    pub fn encode(&self) -> [u8; FILE_HEADER_BYTES] {
        let mut tail = Vec::with_capacity(FILE_HEADER_BYTES - CHECKED_FROM);
        tail.put_u16_le(BUFFER_VERSION);
        tail.put_u16_le(0);
        tail.put_slice(self.buffer_id.as_bytes());
        tail.put_u64_le(self.session.0);
        tail.put_u64_le(self.file_number);
        tail.put_u64_le(self.first_lsn.0);
        tail.put_i64_le(self.created_at_ms);
        let mut out = [0; FILE_HEADER_BYTES];
        let mut front = out.as_mut_slice();
        front.put_slice(&MAGIC);
        front.put_u32_le(crc32c::crc32c(&tail));
        front.put_slice(&tail);
        out
    }

    /// Reads a header from the first bytes of a file.
    pub fn decode(file: &[u8]) -> Result<FileHeader, FileHeaderError> {
        let Some(head) = file.first_chunk::<FILE_HEADER_BYTES>() else {
            return Err(match file.iter().all(|byte| *byte == 0) {
                true => FileHeaderError::NotThere,
                false => FileHeaderError::Torn { present: file.len() },
            });
        };
        if head.iter().all(|byte| *byte == 0) {
            return Err(FileHeaderError::NotThere);
        }
        let (front, checked) = head.split_at(CHECKED_FROM);
        let Some((magic, crc)) = front.split_first_chunk::<8>() else {
            return Err(FileHeaderError::Corrupt { why: "length" });
        };
        if *magic != MAGIC {
            return Err(FileHeaderError::Corrupt { why: "magic" });
        }
        if crc != crc32c::crc32c(checked).to_le_bytes() {
            return Err(FileHeaderError::Corrupt { why: "checksum" });
        }
        let mut fields = FieldReader::new(checked);
        let short = |_| FileHeaderError::Corrupt { why: "length" };
        let version = fields.u16("version").map_err(short)?;
        if version != BUFFER_VERSION {
            return Err(FileHeaderError::Version { version });
        }
        fields.u16("reserved").map_err(short)?;
        Ok(FileHeader {
            buffer_id: fields.uuid("buffer id").map_err(short)?,
            session: SessionId(fields.u64("session").map_err(short)?),
            file_number: fields.u64("file number").map_err(short)?,
            first_lsn: Lsn(fields.u64("first lsn").map_err(short)?),
            created_at_ms: fields.i64("created at").map_err(short)?,
        })
    }
}

#[cfg(test)]
#[allow(clippy::indexing_slicing)]
mod tests {
    use super::*;

    fn header() -> FileHeader {
        FileHeader {
            buffer_id: Uuid::from_u128(7),
            session: SessionId(3),
            file_number: 12,
            first_lsn: Lsn(44),
            created_at_ms: 1_700_000_000_000,
        }
    }

    #[test]
    fn any_flipped_bit_is_noticed() {
        let bytes = header().encode();
        assert_eq!(FileHeader::decode(&bytes), Ok(header()));
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(FileHeader::decode(&bad).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn nothing_torn_and_newer_are_three_answers() {
        let bytes = header().encode();
        assert_eq!(FileHeader::decode(&[]), Err(FileHeaderError::NotThere));
        assert_eq!(FileHeader::decode(&[0; 4096]), Err(FileHeaderError::NotThere));
        assert_eq!(
            FileHeader::decode(&bytes[..63]),
            Err(FileHeaderError::Torn { present: 63 })
        );
        let mut newer = bytes;
        newer[CHECKED_FROM] = 2;
        let crc = crc32c::crc32c(&newer[CHECKED_FROM..]);
        newer[8..12].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(
            FileHeader::decode(&newer),
            Err(FileHeaderError::Version { version: 2 })
        );
    }
}
