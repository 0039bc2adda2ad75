//! What can be wrong with a record batch.

use crate::codec::CodecError;

/// Why a record batch could not be read or changed.
///
/// [`BatchError::Incomplete`] is "not all there", everything else is "damaged" or "not what was asked for":
/// callers that read a log's tail treat the two differently.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// The bytes end before the batch does.
    #[error("record batch is incomplete: {needed} bytes needed, {available} there")]
    Incomplete {
        /// Bytes that the batch, or its header, takes.
        needed: usize,
        /// Bytes that there are.
        available: usize,
    },
    /// The batch has another message format than version 2 (Kafka before 0.11, or not a batch at all).
    #[error("record batch has message format {magic}, only format 2 is understood")]
    UnsupportedMagic {
        /// The magic byte found.
        magic: i8,
    },
    /// A header field has a value that no broker stores.
    #[error("record batch header has {field} {value}")]
    InvalidField {
        /// The field, in words.
        field: &'static str,
        /// Its value.
        value: i64,
    },
    /// The checksum in the header is not that of the content.
    #[error("record batch at offset {base_offset} has checksum {stored:08x}, its content {computed:08x}")]
    ChecksumMismatch {
        /// Base offset of the batch.
        base_offset: i64,
        /// The checksum in the header.
        stored: u32,
        /// The checksum of the bytes.
        computed: u32,
    },
    /// A record inside the batch cannot be read.
    #[error("record {index} of the batch is malformed: {reason}")]
    MalformedRecord {
        /// Position of the record within its batch, from 0.
        index: u32,
        /// What is wrong.
        reason: &'static str,
    },
    /// The number of records differs from the header's.
    #[error("record batch announces {announced} records and holds {found}")]
    RecordCount {
        /// The header's count.
        announced: u32,
        /// Records found.
        found: u32,
    },
    /// The batch cannot be produced again as it is.
    #[error("record batch cannot be replayed as it is: {reason}")]
    NotReplayable {
        /// Why not; `rebuild` may help.
        reason: &'static str,
    },
    /// A batch being built outgrew what the format can express.
    #[error("record batch would be too large: {what}")]
    TooLarge {
        /// What does not fit.
        what: &'static str,
    },
    /// The records could not be compressed or decompressed.
    #[error("record batch codec")]
    Codec(#[from] CodecError),
}
