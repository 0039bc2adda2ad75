//! Transaction markers.

use super::{BatchError, BatchView};
use crate::records::{DECOMPRESSED_BYTES_MAX, Records};

/// What a control record says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ControlKind {
    /// The producer's transaction is aborted.
    Abort,
    /// The producer's transaction is committed.
    Commit,
    /// Another control record (those of the cluster metadata log); the number is its type.
    Other(i16),
}

/// The end of a transaction, as the log has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ControlMarker {
    /// Offset of the marker.
    pub offset: i64,
    /// Producer whose transaction ends.
    pub producer_id: i64,
    /// Epoch that the coordinator ended it under, see [`ControlMarker::ends`].
    pub producer_epoch: i16,
    /// Commit or abort.
    pub kind: ControlKind,
    /// When the coordinator wrote it.
    pub timestamp: i64,
}

impl ControlMarker {
    /// Whether this marker ends an open transaction of `producer_id` whose batches carry `data_epoch`.
    ///
    /// Under the first transaction protocol a marker repeats the epoch of the data, except where the
    /// coordinator fenced the producer: then it is higher. Under the second (KIP-890) it is always one
    /// higher. A marker of a lower epoch belongs to an earlier transaction.
    pub fn ends(&self, producer_id: i64, data_epoch: i16) -> bool {
        !matches!(self.kind, ControlKind::Other(_))
            && self.producer_id == producer_id
            && self.producer_epoch >= data_epoch
    }

    /// Whether the marker commits.
    pub fn is_commit(&self) -> bool {
        self.kind == ControlKind::Commit
    }
}

/// The marker in a control batch; `None` for a data batch and for a control batch emptied by compaction.
pub fn control_marker(batch: &BatchView) -> Result<Option<ControlMarker>, BatchError> {
    let header = batch.header();
    if !header.is_control() || header.record_count == 0 {
        return Ok(None);
    }
    let records = Records::decode(batch, DECOMPRESSED_BYTES_MAX)?;
    let Some(record) = records.iter().next().transpose()? else {
        return Ok(None);
    };
    let malformed = |reason| BatchError::MalformedRecord { index: 0, reason };
    // Key: version i16, type i16. Later versions may add fields behind these two.
    let key = record.key.ok_or(malformed("a control record has no key"))?;
    let kind: [u8; 2] = key
        .get(2..4)
        .and_then(|bytes| bytes.try_into().ok())
        .ok_or(malformed("a control record's key is shorter than 4 bytes"))?;
    let kind = match i16::from_be_bytes(kind) {
        0 => ControlKind::Abort,
        1 => ControlKind::Commit,
        other => ControlKind::Other(other),
    };
    Ok(Some(ControlMarker {
        offset: record.offset,
        producer_id: header.producer_id,
        producer_epoch: header.producer_epoch,
        kind,
        timestamp: record.timestamp,
    }))
}
