//! What an audit found: how far a partition was looked at, and which stored batches its log has lost.

use crate::fields::{FieldError, FieldReader, put_count, put_name};
use crate::ledger::entry::check_range;
use crate::ranges::OffsetRange;
use bytes::{BufMut, BytesMut};
use uuid::Uuid;

/// Offsets of one segment that the log gave to other batches, or gave up: kept, and held no more.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Superseded {
    /// Topic.
    pub topic: String,
    /// Topic incarnation.
    pub incarnation: Uuid,
    /// Partition.
    pub partition: i32,
    /// Key of the segment. Other segments at the same offsets are not meant.
    pub segment: String,
    /// First offset.
    pub first_offset: i64,
    /// Last offset.
    pub last_offset: i64,
    /// Leader epoch of what is superseded; -1 when unknown.
    pub leader_epoch: i32,
    /// Where that epoch ends in the log now; -1 when the contents were compared instead.
    pub end_offset: i64,
    /// When it was found, in epoch milliseconds.
    pub at_ms: i64,
    /// Another segment holds the same batches, better known: nothing was lost, this copy just counts no more.
    pub same: bool,
}

/// A partition as an audit left it. The latest one counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionAudit {
    /// Topic.
    pub topic: String,
    /// Topic incarnation.
    pub incarnation: Uuid,
    /// Partition.
    pub partition: i32,
    /// When the source was asked, in epoch milliseconds.
    pub at_ms: i64,
    /// Where that begins which the backup is to hold.
    pub start_offset: i64,
    /// First offset that the source had.
    pub log_start_offset: i64,
    /// High watermark of the source.
    pub high_watermark: i64,
    /// Leader epoch of the partition; -1 when unknown.
    pub leader_epoch: i32,
    /// Where the leader epochs that were asked for end, by epoch.
    pub epochs: Vec<EpochEnd>,
}

/// Where a leader epoch ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochEnd {
    /// The epoch.
    pub leader_epoch: i32,
    /// First offset behind it; -1 when the source cannot tell.
    pub end_offset: i64,
    /// The largest epoch up to this one of which the source's log has anything; -1 when unknown. A smaller one than this
    /// says that what was written under it is not in the log, not even in front of the end.
    pub known_epoch: i32,
}

impl EpochEnd {
    /// True when the source's log has nothing of this epoch at all.
    pub fn is_foreign(&self) -> bool {
        self.end_offset >= 0 && self.known_epoch >= 0 && self.known_epoch < self.leader_epoch
    }
}

const EPOCH_END_BYTES: usize = 4 + 8;

impl Superseded {
    pub(super) fn encode(&self, out: &mut BytesMut) -> Result<(), FieldError> {
        put_name(out, "topic", &self.topic)?;
        out.put_slice(self.incarnation.as_bytes());
        out.put_i32_le(self.partition);
        put_name(out, "segment", &self.segment)?;
        out.put_i64_le(self.first_offset);
        out.put_i64_le(self.last_offset);
        out.put_i32_le(self.leader_epoch);
        out.put_i64_le(self.end_offset);
        out.put_i64_le(self.at_ms);
        out.put_u8(self.same.into());
        check_range(self.first_offset, self.last_offset)
    }

    pub(super) fn decode(fields: &mut FieldReader<'_>) -> Result<Superseded, FieldError> {
        let superseded = Superseded {
            topic: fields.name("topic")?,
            incarnation: fields.uuid("incarnation")?,
            partition: fields.i32("partition")?,
            segment: fields.name("segment")?,
            first_offset: fields.i64("first offset")?,
            last_offset: fields.i64("last offset")?,
            leader_epoch: fields.i32("leader epoch")?,
            end_offset: fields.i64("end offset")?,
            at_ms: fields.i64("time")?,
            same: fields.remaining() > 0 && fields.flag("same")?,
        };
        check_range(superseded.first_offset, superseded.last_offset)?;
        Ok(superseded)
    }

    /// The offsets it speaks for.
    pub fn range(&self) -> OffsetRange {
        OffsetRange {
            first: self.first_offset,
            last: self.last_offset,
        }
    }
}

impl PartitionAudit {
    pub(super) fn encode(&self, out: &mut BytesMut) -> Result<(), FieldError> {
        put_name(out, "topic", &self.topic)?;
        out.put_slice(self.incarnation.as_bytes());
        out.put_i32_le(self.partition);
        out.put_i64_le(self.at_ms);
        out.put_i64_le(self.start_offset);
        out.put_i64_le(self.log_start_offset);
        out.put_i64_le(self.high_watermark);
        out.put_i32_le(self.leader_epoch);
        put_count(out, "epochs", self.epochs.len())?;
        for epoch in &self.epochs {
            out.put_i32_le(epoch.leader_epoch);
            out.put_i64_le(epoch.end_offset);
        }
        for epoch in &self.epochs {
            out.put_i32_le(epoch.known_epoch);
        }
        Ok(())
    }

    pub(super) fn decode(fields: &mut FieldReader<'_>) -> Result<PartitionAudit, FieldError> {
        let mut audit = PartitionAudit {
            topic: fields.name("topic")?,
            incarnation: fields.uuid("incarnation")?,
            partition: fields.i32("partition")?,
            at_ms: fields.i64("time")?,
            start_offset: fields.i64("start offset")?,
            log_start_offset: fields.i64("log start offset")?,
            high_watermark: fields.i64("high watermark")?,
            leader_epoch: fields.i32("leader epoch")?,
            epochs: (0..fields.count(EPOCH_END_BYTES, "epochs")?)
                .map(|_| {
                    Ok(EpochEnd {
                        leader_epoch: fields.i32("leader epoch")?,
                        end_offset: fields.i64("end offset")?,
                        known_epoch: -1,
                    })
                })
                .collect::<Result<_, FieldError>>()?,
        };
        if fields.remaining() > 0 {
            for epoch in &mut audit.epochs {
                epoch.known_epoch = fields.i32("known epoch")?;
            }
        }
        Ok(audit)
    }

    /// What the backup is to hold: from its start to the high watermark. None when that is empty.
    pub fn wanted(&self) -> Option<OffsetRange> {
        OffsetRange::new(self.start_offset, self.high_watermark.saturating_sub(1))
    }
}
