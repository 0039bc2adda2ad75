//! Two contents of the same offsets: is what was captured what the log has?
//!
//! Batches are compared, not bytes: brokers rewrite batches (codec, timestamps), and compaction thins them out. With a
//! producer id, that, its epoch, the base sequence and the offsets say which batch it is. Without, every record that the
//! log still has must be one that was captured at its offset. Records that the log has no more contradict nothing.

use std::collections::HashMap;

use teeline_archive::{OffsetRange, OffsetSet};
use teeline_runtime::Store;
use teeline_wire::batch::{BatchError, BatchView};
use teeline_wire::records::{DECOMPRESSED_BYTES_MAX, RecordView, Records};

use super::judge::Doubt;
use crate::stored::{StoredError, StoredSegment};

/// What the comparison of a doubtful segment showed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Comparison {
    /// Offsets at which the log has the same batches.
    pub same: OffsetSet,
    /// Offsets at which the log has other batches.
    pub different: OffsetSet,
    /// Offsets at which the log has nothing any more, or fewer of the records: neither shown nor disproved.
    pub gone: OffsetSet,
}

/// Why two contents could not be compared.
#[derive(Debug, thiserror::Error)]
pub enum CompareError {
    /// A segment cannot be read.
    #[error(transparent)]
    Read(#[from] StoredError),
    /// The records of a batch cannot be read.
    #[error("read the records at offset {offset} of segment {key} to compare them")]
    Batch {
        /// The segment's key.
        key: String,
        /// The batch's offset.
        offset: i64,
        /// What is wrong with it.
        #[source]
        source: BatchError,
    },
}

/// Compares the doubtful offsets of a segment with the segments that are certain there.
///
/// # Errors
/// When one of the segments cannot be read.
pub async fn compare(store: &Store, doubt: &Doubt) -> Result<Comparison, CompareError> {
    let mut comparison = Comparison::default();
    let Some(span) = span_of(&doubt.ranges) else {
        return Ok(comparison);
    };
    let questioned = StoredSegment::open(store, &doubt.segment).await?;
    let mut sure = Vec::new();
    for (segment, valid) in &doubt.sure {
        sure.push((StoredSegment::open(store, segment).await?, valid));
    }
    for block in questioned.blocks_by_offset(span.first, span.last) {
        let own = questioned.batches_of(store, block).await?;
        let Some(reach) = own.first().zip(own.last()).and_then(|(first, last)| {
            OffsetRange::new(first.header().base_offset, last.header().last_offset())
        }) else {
            continue;
        };
        let mut log = Vec::new();
        for (segment, valid) in &sure {
            for block in segment.blocks_by_offset(reach.first, reach.last) {
                let batches = segment.batches_of(store, block).await?;
                log.extend(
                    batches
                        .into_iter()
                        .filter(|batch| valid.contains_range(range_of(batch))),
                );
            }
        }
        for batch in &own {
            judge_batch(questioned.key(), batch, &log, &doubt.ranges, &mut comparison)?;
        }
    }
    Ok(comparison)
}

/// One batch against everything that the log has at its offsets.
fn judge_batch(
    key: &str,
    batch: &BatchView,
    log: &[BatchView],
    doubt: &OffsetSet,
    comparison: &mut Comparison,
) -> Result<(), CompareError> {
    let range = range_of(batch);
    // Its head may lie below the log's start; its tail must be in reach.
    let Some(part) = doubt.ranges().iter().find(|part| part.overlaps(&range)) else {
        return Ok(());
    };
    if part.last < range.last {
        return Ok(());
    }
    let Some(judged) = OffsetRange::new(range.first.max(part.first), range.last) else {
        return Ok(());
    };
    let there: Vec<&BatchView> = log
        .iter()
        .filter(|other| range_of(other).overlaps(&judged))
        .collect();
    // What compaction has thinned out takes the place of nothing: the captured batch holds more.
    let records = there
        .iter()
        .fold(0u32, |sum, other| sum.saturating_add(other.header().records()));
    let is_thinner = records < batch.header().records();
    let verdict = if there.is_empty() {
        &mut comparison.gone
    } else {
        let failed = |source| CompareError::Batch {
            key: key.to_owned(),
            offset: range.first,
            source,
        };
        match is_same(batch, &there, judged).map_err(failed)? {
            true if is_thinner => &mut comparison.gone,
            true => &mut comparison.same,
            false => &mut comparison.different,
        }
    };
    verdict.insert(judged);
    Ok(())
}

fn is_same(batch: &BatchView, there: &[&BatchView], judged: OffsetRange) -> Result<bool, BatchError> {
    let header = batch.header();
    for other in there {
        let found = other.header();
        if header.has_producer() != found.has_producer() || header.is_control() != found.is_control() {
            return Ok(false);
        }
        if header.has_producer() {
            let one = (header.producer_id, header.producer_epoch, header.base_sequence);
            let two = (found.producer_id, found.producer_epoch, found.base_sequence);
            if one != two || range_of(batch) != range_of(other) {
                return Ok(false);
            }
        } else if header.crc != found.crc && !has_all(batch, other, judged)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether every record that the log has in the judged offsets was captured at its offset.
fn has_all(batch: &BatchView, other: &BatchView, judged: OffsetRange) -> Result<bool, BatchError> {
    let captured = Records::decode(batch, DECOMPRESSED_BYTES_MAX)?;
    let mut by_offset = HashMap::new();
    for record in &captured {
        let record = record?;
        by_offset.insert(record.offset, record);
    }
    let found = Records::decode(other, DECOMPRESSED_BYTES_MAX)?;
    for record in &found {
        let record = record?;
        if !judged.contains(record.offset) {
            continue;
        }
        match by_offset.get(&record.offset) {
            Some(captured) if is_same_record(captured, &record) => {}
            _ => return Ok(false),
        }
    }
    Ok(true)
}

/// Timestamps are left out: brokers set them.
fn is_same_record(one: &RecordView<'_>, other: &RecordView<'_>) -> bool {
    one.key == other.key && one.value == other.value && one.headers.bytes() == other.headers.bytes()
}

fn range_of(batch: &BatchView) -> OffsetRange {
    let header = batch.header();
    OffsetRange {
        first: header.base_offset,
        last: header.last_offset().max(header.base_offset),
    }
}

fn span_of(set: &OffsetSet) -> Option<OffsetRange> {
    OffsetRange::new(set.first()?, set.last()?)
}

#[cfg(test)]
#[path = "compare_tests.rs"]
mod tests;
