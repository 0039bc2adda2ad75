//! The 61 bytes before the records.

use super::BatchError;
use crate::codec::Compression;

/// Length of a RecordBatch v2 header, and so of the smallest batch.
pub const BATCH_HEADER_BYTES: usize = 61;
/// Producer id of a batch without idempotence.
pub const NO_PRODUCER_ID: i64 = -1;
/// Base sequence of a batch without idempotence.
pub const NO_SEQUENCE: i32 = -1;
/// Timestamp of a record that has none.
pub const NO_TIMESTAMP: i64 = -1;

/// Bytes before the part that the length field counts.
pub(super) const LOG_OVERHEAD_BYTES: usize = 12;
/// Bytes of the header that the length field counts: the least it can be.
const HEADER_BYTES_IN_LENGTH: u32 = (BATCH_HEADER_BYTES - LOG_OVERHEAD_BYTES) as u32;
pub(super) const BASE_OFFSET_AT: usize = 0;
pub(super) const LEADER_EPOCH_AT: usize = 12;
pub(super) const CRC_AT: usize = 17;
pub(super) const ATTRIBUTES_AT: usize = 21;
pub(super) const MAX_TIMESTAMP_AT: usize = 35;
pub(super) const PRODUCER_ID_AT: usize = 43;
pub(super) const PRODUCER_EPOCH_AT: usize = 51;
pub(super) const BASE_SEQUENCE_AT: usize = 53;

pub(super) const COMPRESSION_MASK: i16 = 0x07;
pub(super) const LOG_APPEND_TIME_BIT: i16 = 0x08;
const TRANSACTIONAL_BIT: i16 = 0x10;
const CONTROL_BIT: i16 = 0x20;
const DELETE_HORIZON_BIT: i16 = 0x40;
/// Bits that a broker keeps when it rewrites the attributes; the others it drops.
pub(super) const BROKER_KEPT_BITS: i16 =
    COMPRESSION_MASK | TRANSACTIONAL_BIT | CONTROL_BIT | DELETE_HORIZON_BIT;

const MAGIC_V2: i8 = 2;

/// The header fields of one batch. Field meanings and names are Kafka's.
///
/// A parsed header holds: magic is 2, the length covers at least the header, base offset, last offset delta
/// and record count are not negative, and the last offset does not overflow. Counts are still only the
/// sender's word: use them for limits after decoding, never for allocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchHeader {
    /// Offset of the first record the batch ever held.
    pub base_offset: i64,
    /// Bytes after the length field.
    pub batch_length: i32,
    /// Epoch of the leader that appended the batch, -1 if unknown.
    pub partition_leader_epoch: i32,
    /// CRC-32C of everything from the attributes on.
    pub crc: u32,
    /// Codec, timestamp type, transactional and control flags.
    pub attributes: i16,
    /// Last offset minus base offset; compaction keeps it.
    pub last_offset_delta: i32,
    /// What the records' timestamp deltas are relative to.
    pub base_timestamp: i64,
    /// Largest record timestamp, or the append time.
    pub max_timestamp: i64,
    /// Producer id, -1 for none.
    pub producer_id: i64,
    /// Producer epoch, -1 for none.
    pub producer_epoch: i16,
    /// Sequence of the first record, -1 for none.
    pub base_sequence: i32,
    /// Records that the batch holds.
    pub record_count: i32,
}

impl BatchHeader {
    /// Reads the header at the start of `bytes`; the records need not be there.
    pub fn parse(bytes: &[u8]) -> Result<Self, BatchError> {
        let Some(head) = bytes.first_chunk::<BATCH_HEADER_BYTES>() else {
            return Err(match bytes.get(16).map(|&byte| byte as i8) {
                Some(magic) if magic != MAGIC_V2 => BatchError::UnsupportedMagic { magic },
                _ => BatchError::Incomplete {
                    needed: BATCH_HEADER_BYTES,
                    available: bytes.len(),
                },
            });
        };
        let magic = head[16] as i8;
        if magic != MAGIC_V2 {
            return Err(BatchError::UnsupportedMagic { magic });
        }
        let header = Self {
            base_offset: i64::from_be_bytes(field(head, BASE_OFFSET_AT)),
            batch_length: i32::from_be_bytes(field(head, 8)),
            partition_leader_epoch: i32::from_be_bytes(field(head, LEADER_EPOCH_AT)),
            crc: u32::from_be_bytes(field(head, CRC_AT)),
            attributes: i16::from_be_bytes(field(head, ATTRIBUTES_AT)),
            last_offset_delta: i32::from_be_bytes(field(head, 23)),
            base_timestamp: i64::from_be_bytes(field(head, 27)),
            max_timestamp: i64::from_be_bytes(field(head, MAX_TIMESTAMP_AT)),
            producer_id: i64::from_be_bytes(field(head, PRODUCER_ID_AT)),
            producer_epoch: i16::from_be_bytes(field(head, PRODUCER_EPOCH_AT)),
            base_sequence: i32::from_be_bytes(field(head, BASE_SEQUENCE_AT)),
            record_count: i32::from_be_bytes(field(head, 57)),
        };
        header.check()
    }

    /// The header as it stands at the start of a batch.
    pub fn to_bytes(&self) -> [u8; BATCH_HEADER_BYTES] {
        let mut head = [0; BATCH_HEADER_BYTES];
        put(&mut head, BASE_OFFSET_AT, self.base_offset.to_be_bytes());
        put(&mut head, 8, self.batch_length.to_be_bytes());
        put(
            &mut head,
            LEADER_EPOCH_AT,
            self.partition_leader_epoch.to_be_bytes(),
        );
        put(&mut head, 16, MAGIC_V2.to_be_bytes());
        put(&mut head, CRC_AT, self.crc.to_be_bytes());
        put(&mut head, ATTRIBUTES_AT, self.attributes.to_be_bytes());
        put(&mut head, 23, self.last_offset_delta.to_be_bytes());
        put(&mut head, 27, self.base_timestamp.to_be_bytes());
        put(&mut head, MAX_TIMESTAMP_AT, self.max_timestamp.to_be_bytes());
        put(&mut head, PRODUCER_ID_AT, self.producer_id.to_be_bytes());
        put(&mut head, PRODUCER_EPOCH_AT, self.producer_epoch.to_be_bytes());
        put(&mut head, BASE_SEQUENCE_AT, self.base_sequence.to_be_bytes());
        put(&mut head, 57, self.record_count.to_be_bytes());
        head
    }

    /// Checksum of the header's part of the content; the payload's continues from it.
    pub(crate) fn content_crc(&self) -> u32 {
        crc32c::crc32c(self.to_bytes().get(ATTRIBUTES_AT..).unwrap_or_default())
    }

    /// Bytes of the whole batch, header included.
    pub fn size_bytes(&self) -> usize {
        // `check` made sure that the length is positive.
        LOG_OVERHEAD_BYTES + self.batch_length.unsigned_abs() as usize
    }

    /// Bytes of the records, as they are compressed.
    pub(super) fn payload_bytes(&self) -> u32 {
        // `check` made sure that the length covers the header.
        self.batch_length
            .unsigned_abs()
            .saturating_sub(HEADER_BYTES_IN_LENGTH)
    }

    /// Offset of the last record the batch ever held.
    pub fn last_offset(&self) -> i64 {
        self.base_offset.saturating_add(i64::from(self.last_offset_delta))
    }

    /// Offset after the batch.
    pub fn next_offset(&self) -> i64 {
        self.last_offset().saturating_add(1)
    }

    /// Records as an unsigned number.
    pub fn records(&self) -> u32 {
        self.record_count.unsigned_abs()
    }

    /// The codec of the records; an error for a codec id that does not exist.
    pub fn compression(&self) -> Result<Compression, BatchError> {
        let id = self.attributes & COMPRESSION_MASK;
        Compression::from_id(id).ok_or(BatchError::InvalidField {
            field: "compression codec",
            value: i64::from(id),
        })
    }

    /// Whether [`BatchHeader::max_timestamp`] is the append time of all records.
    pub fn is_log_append_time(&self) -> bool {
        self.attributes & LOG_APPEND_TIME_BIT != 0
    }

    /// Whether the batch belongs to a transaction.
    pub fn is_transactional(&self) -> bool {
        self.attributes & TRANSACTIONAL_BIT != 0
    }

    /// Whether the batch holds a control record (a transaction marker) instead of data.
    pub fn is_control(&self) -> bool {
        self.attributes & CONTROL_BIT != 0
    }

    /// Whether a compaction put its delete horizon where the base timestamp was.
    pub fn has_delete_horizon(&self) -> bool {
        self.attributes & DELETE_HORIZON_BIT != 0
    }

    /// Whether the batch came from an idempotent producer.
    pub fn has_producer(&self) -> bool {
        self.producer_id >= 0
    }

    /// Whether every offset of the batch has a record, as far as the header tells; brokers demand it of
    /// producers, compaction undoes it.
    pub fn is_dense(&self) -> bool {
        i64::from(self.last_offset_delta) + 1 == i64::from(self.record_count)
    }

    /// Sequence of the last record; sequences wrap at `i32::MAX` to 0. -1 without a producer.
    pub fn last_sequence(&self) -> i32 {
        if self.base_sequence < 0 {
            return NO_SEQUENCE;
        }
        advance_sequence(self.base_sequence, self.last_offset_delta.unsigned_abs())
    }

    fn check(self) -> Result<Self, BatchError> {
        let invalid = |field, value| Err(BatchError::InvalidField { field, value });
        if self.batch_length < HEADER_BYTES_IN_LENGTH as i32 {
            return invalid("length", i64::from(self.batch_length));
        }
        if self.base_offset < 0 {
            return invalid("base offset", self.base_offset);
        }
        if self.last_offset_delta < 0 {
            return invalid("last offset delta", i64::from(self.last_offset_delta));
        }
        if self.record_count < 0 {
            return invalid("record count", i64::from(self.record_count));
        }
        // One more than the last offset must exist too: it is the next batch's base.
        if self
            .base_offset
            .checked_add(i64::from(self.last_offset_delta) + 1)
            .is_none()
        {
            return invalid("base offset", self.base_offset);
        }
        Ok(self)
    }
}

/// The sequence `records` after `sequence`; Kafka's sequences wrap from `i32::MAX` to 0.
pub(crate) fn advance_sequence(sequence: i32, records: u32) -> i32 {
    let wrapped = (i64::from(sequence) + i64::from(records)) & i64::from(i32::MAX);
    // Masked to 31 bits, so it fits.
    wrapped as i32
}

fn field<const N: usize>(head: &[u8; BATCH_HEADER_BYTES], at: usize) -> [u8; N] {
    let mut value = [0; N];
    value.copy_from_slice(
        head.get(at..at + N)
            .expect("constant positions lie inside the header"),
    );
    value
}

pub(super) fn put<const N: usize>(head: &mut [u8; BATCH_HEADER_BYTES], at: usize, value: [u8; N]) {
    head.get_mut(at..at + N)
        .expect("constant positions lie inside the header")
        .copy_from_slice(&value);
}
