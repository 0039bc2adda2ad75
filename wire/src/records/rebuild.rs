//! Batches with some of their records.

use super::{BatchBuilder, RecordView, Records};
use crate::batch::{BatchError, BatchView};
use crate::codec::Compression;

/// Encodes anew the records of `batch` for which `keep` answers true, with the same codec, ready for producing:
/// base offset 0, leader epoch -1, no producer, dense offsets, timestamp deltas from the first kept record.
/// `None` if nothing is kept. Keys, values and headers go over as bytes.
///
/// With `keep` always true this is also how to replay what cannot be replayed as it is:
/// - a batch that compaction took records out of becomes dense;
/// - a `LogAppendTime` batch becomes a `CreateTime` batch whose records all carry the append time, which is
///   the timestamp that consumers were shown.
///
/// `limit` bounds decompression as in [`Records::decode`].
pub fn rebuild(
    batch: &BatchView,
    limit: usize,
    keep: impl FnMut(&RecordView<'_>) -> bool,
) -> Result<Option<BatchView>, BatchError> {
    let records = Records::decode(batch, limit)?;
    collect(&records, batch.header().compression()?, keep)
}

/// As [`rebuild`], in as many batches as are needed for each to stay within `batch_bytes_max`: another
/// encoder or another level can make the same records larger than a topic's `max.message.bytes` allows.
///
/// A single record that does not fit by itself is returned in a batch of its own: the broker decides.
pub fn rebuild_within(
    batch: &BatchView,
    limit: usize,
    batch_bytes_max: usize,
    mut keep: impl FnMut(&RecordView<'_>) -> bool,
) -> Result<Vec<BatchView>, BatchError> {
    let records = Records::decode(batch, limit)?;
    let compression = batch.header().compression()?;
    let mut todo = Vec::new();
    todo.extend(collect(&records, compression, &mut keep)?);
    let mut done = Vec::new();
    while let Some(candidate) = todo.pop() {
        let count = candidate.header().record_count;
        if candidate.bytes().len() <= batch_bytes_max || count < 2 {
            done.push(candidate);
            continue;
        }
        let records = Records::decode(&candidate, limit)?;
        let half = count / 2;
        // Last in, first out: the second half goes in first.
        todo.extend(collect(&records, compression, |record| {
            record.offset_delta >= half
        })?);
        todo.extend(collect(&records, compression, |record| {
            record.offset_delta < half
        })?);
    }
    Ok(done)
}

fn collect(
    records: &Records,
    compression: Compression,
    mut keep: impl FnMut(&RecordView<'_>) -> bool,
) -> Result<Option<BatchView>, BatchError> {
    let mut builder = BatchBuilder::new(compression);
    for record in records {
        let record = record?;
        if keep(&record) {
            builder.push_record(&record)?;
        }
    }
    builder.build()
}
