//! Changes to a batch's header that leave its records alone.
//!
//! The checksum covers everything from the attributes on. It is linear, so the checksum of a batch with a
//! changed header follows from the old one and the difference of the two headers alone. That is cheaper than
//! reading the payload again, and safer: a payload that was damaged before the edit still fails its
//! checksum after it, where a recomputed one would hide the damage for ever.

use bytes::Bytes;

use super::checksum::shifted;
use super::header::{
    ATTRIBUTES_AT, BASE_OFFSET_AT, BASE_SEQUENCE_AT, BROKER_KEPT_BITS, COMPRESSION_MASK, CRC_AT,
    LEADER_EPOCH_AT, LOG_APPEND_TIME_BIT, MAX_TIMESTAMP_AT, PRODUCER_EPOCH_AT, PRODUCER_ID_AT, put,
};
use super::{BATCH_HEADER_BYTES, BatchError, BatchHeader, BatchView};

/// The idempotent producer's fields of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Producer {
    /// Producer id, from InitProducerId.
    pub id: i64,
    /// Its epoch.
    pub epoch: i16,
    /// Sequence of the batch's first record.
    pub base_sequence: i32,
}

impl Producer {
    /// No producer: the batch is sent without idempotence.
    pub const NONE: Self = Self {
        id: -1,
        epoch: -1,
        base_sequence: -1,
    };
}

/// A batch made ready for producing again: a new header before the untouched payload, so that the payload
/// can go from where it lies to the socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplayBatch {
    /// The new 61-byte header.
    pub header: Bytes,
    /// The records, as they were.
    pub payload: Bytes,
}

impl ReplayBatch {
    /// Bytes of the whole batch.
    pub fn size_bytes(&self) -> usize {
        self.header.len() + self.payload.len()
    }

    /// The whole batch in one piece; copies.
    pub fn to_bytes(&self) -> Bytes {
        [&self.header[..], &self.payload[..]].concat().into()
    }
}

/// Sets what a broker sets on every append: base offset and leader epoch. Neither is under the checksum.
pub fn set_base_offset_and_epoch(
    batch: &mut [u8],
    base_offset: i64,
    leader_epoch: i32,
) -> Result<(), BatchError> {
    let head = whole_header(batch)?;
    put(head, BASE_OFFSET_AT, base_offset.to_be_bytes());
    put(head, LEADER_EPOCH_AT, leader_epoch.to_be_bytes());
    BatchHeader::parse(batch).map(drop)
}

/// Makes of a batch as its producer sent it the batch that a broker stores in a `LogAppendTime` topic.
///
/// Like the broker it also drops attribute bits without a meaning, and leaves a batch alone that is so already.
pub fn as_log_append_time(batch: &mut [u8], append_time_ms: i64) -> Result<(), BatchError> {
    set_timestamps(batch, LOG_APPEND_TIME_BIT, append_time_ms)
}

/// Makes of a batch as its producer sent it the batch that a broker stores in a `CreateTime` topic:
/// the timestamp type bit is cleared and a wrong maximum timestamp put right.
///
/// `max_timestamp` is the records' true maximum (see [`crate::records::timestamp_range`]).
pub fn as_create_time(batch: &mut [u8], max_timestamp: i64) -> Result<(), BatchError> {
    set_timestamps(batch, 0, max_timestamp)
}

/// Resets, in place, all that ties a data batch to the log it came from, so that it can be produced again:
/// base offset 0, leader epoch -1, the given producer, and of the attributes only the codec.
///
/// Clearing the `LogAppendTime` bit exposes the records' own timestamps; where append times are wanted, rebuild.
pub fn reset_for_replay(batch: &mut [u8], producer: Producer) -> Result<(), BatchError> {
    let header = BatchHeader::parse(batch)?;
    let head = whole_header(batch)?;
    *head = replay_header(&header, producer)?;
    Ok(())
}

/// As [`reset_for_replay`], without copying the records.
pub fn split_for_replay(batch: &BatchView, producer: Producer) -> Result<ReplayBatch, BatchError> {
    let head = replay_header(batch.header(), producer)?;
    Ok(ReplayBatch {
        header: Bytes::copy_from_slice(&head),
        payload: batch.payload(),
    })
}

fn replay_header(header: &BatchHeader, producer: Producer) -> Result<[u8; BATCH_HEADER_BYTES], BatchError> {
    let refuse = |reason| Err(BatchError::NotReplayable { reason });
    if header.is_control() {
        return refuse("it holds a transaction marker");
    }
    if header.record_count == 0 {
        return refuse("compaction left no record in it");
    }
    if !header.is_dense() {
        return refuse("compaction took records out of it");
    }
    if producer.id >= 0 && producer.base_sequence < 0 {
        return Err(BatchError::InvalidField {
            field: "base sequence",
            value: i64::from(producer.base_sequence),
        });
    }
    let mut head = header.to_bytes();
    put(&mut head, BASE_OFFSET_AT, 0i64.to_be_bytes());
    put(&mut head, LEADER_EPOCH_AT, (-1i32).to_be_bytes());
    edit_checked(&mut head, header.payload_bytes(), |head| {
        put(
            head,
            ATTRIBUTES_AT,
            (header.attributes & COMPRESSION_MASK).to_be_bytes(),
        );
        put(head, PRODUCER_ID_AT, producer.id.to_be_bytes());
        put(head, PRODUCER_EPOCH_AT, producer.epoch.to_be_bytes());
        put(head, BASE_SEQUENCE_AT, producer.base_sequence.to_be_bytes());
    });
    Ok(head)
}

fn set_timestamps(batch: &mut [u8], type_bit: i16, max_timestamp: i64) -> Result<(), BatchError> {
    let header = BatchHeader::parse(batch)?;
    if header.attributes & LOG_APPEND_TIME_BIT == type_bit && header.max_timestamp == max_timestamp {
        return Ok(());
    }
    let head = whole_header(batch)?;
    edit_checked(head, header.payload_bytes(), |head| {
        put(
            head,
            ATTRIBUTES_AT,
            (header.attributes & BROKER_KEPT_BITS | type_bit).to_be_bytes(),
        );
        put(head, MAX_TIMESTAMP_AT, max_timestamp.to_be_bytes());
    });
    Ok(())
}

/// Applies an edit behind the checksum and corrects the checksum for it.
fn edit_checked(
    head: &mut [u8; BATCH_HEADER_BYTES],
    payload_bytes: u32,
    edit: impl FnOnce(&mut [u8; BATCH_HEADER_BYTES]),
) {
    let before = crc32c::crc32c(&head[ATTRIBUTES_AT..]);
    edit(head);
    let after = crc32c::crc32c(&head[ATTRIBUTES_AT..]);
    // What the difference of the headers becomes once the payload has been run through the checksum too.
    let difference = shifted(before ^ after, payload_bytes);
    let mut crc = [0; 4];
    crc.copy_from_slice(&head[CRC_AT..CRC_AT + 4]);
    put(head, CRC_AT, (u32::from_be_bytes(crc) ^ difference).to_be_bytes());
}

fn whole_header(batch: &mut [u8]) -> Result<&mut [u8; BATCH_HEADER_BYTES], BatchError> {
    let header = BatchHeader::parse(batch)?;
    let available = batch.len();
    if available != header.size_bytes() {
        return Err(BatchError::Incomplete {
            needed: header.size_bytes(),
            available,
        });
    }
    Ok(batch.first_chunk_mut().expect("a parsed header has 61 bytes"))
}
