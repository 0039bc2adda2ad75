//! When the records of a batch were, in truth.

use std::cell::RefCell;

use super::varint;
use crate::batch::{BatchError, BatchHeader, BatchView};
use crate::codec;

thread_local! {
    // Records are only looked at, batch after batch: one place for all of them.
    static ROOM: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Batches are rarely larger; the room for one that is is not kept.
const ROOM_BYTES_KEPT: usize = 2 * 1024 * 1024;

/// Smallest and largest timestamp of a batch's records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimestampRange {
    /// Smallest.
    pub min: i64,
    /// Largest.
    pub max: i64,
}

impl TimestampRange {
    /// The range that covers both.
    pub fn union(self, other: Self) -> Self {
        Self {
            min: self.min.min(other.min),
            max: self.max.max(other.max),
        }
    }

    /// Whether any moment in `[from, to)` lies within the range.
    pub fn overlaps(&self, from: i64, to: i64) -> bool {
        self.max >= from && self.min < to
    }
}

/// The true timestamp range of `batch`, from its records: first and last record say nothing about records
/// that arrived late, and the header's maximum is what the producer claims. In a `LogAppendTime` batch
/// it is the append time. A batch emptied by compaction has its header's maximum, as nothing else is left.
///
/// Decompresses; `limit` bounds the output as in [`super::Records::decode`].
pub fn timestamp_range(batch: &BatchView, limit: usize) -> Result<TimestampRange, BatchError> {
    let header = batch.header();
    if header.is_log_append_time() || header.record_count == 0 {
        return Ok(TimestampRange {
            min: header.max_timestamp,
            max: header.max_timestamp,
        });
    }
    let (codec, payload) = (header.compression()?, batch.payload());
    ROOM.with_borrow_mut(|room| {
        let records = codec::decompress_within(codec, &payload, limit, room);
        let range = records
            .map_err(BatchError::from)
            .and_then(|records| range_of(header, records));
        // Also after a failure, which may have come late.
        if room.capacity() > ROOM_BYTES_KEPT {
            *room = Vec::new();
        }
        range
    })
}

fn range_of(header: &BatchHeader, mut rest: &[u8]) -> Result<TimestampRange, BatchError> {
    let mut range: Option<TimestampRange> = None;
    // Only the field that is asked for is read; the rest of each record is jumped over.
    for index in 0..header.records() {
        if rest.is_empty() {
            return Err(BatchError::RecordCount {
                announced: header.records(),
                found: index,
            });
        }
        let delta = take_timestamp_delta(&mut rest).ok_or(BatchError::MalformedRecord {
            index,
            reason: "it is cut short",
        })?;
        let timestamp = header.base_timestamp.wrapping_add(delta);
        let own = TimestampRange {
            min: timestamp,
            max: timestamp,
        };
        range = Some(range.map_or(own, |range| range.union(own)));
    }
    Ok(range.expect("a batch with records has a range"))
}

fn take_timestamp_delta(bytes: &mut &[u8]) -> Option<i64> {
    let length = usize::try_from(varint::take_i32(bytes)?).ok()?;
    let (record, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    let (_attributes, mut fields) = record.split_first()?;
    varint::take_i64(&mut fields)
}
