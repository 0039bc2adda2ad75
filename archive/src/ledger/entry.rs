//! What commits say. Absences, audits and state objects have files of their own.
//!
//! New fields are only ever appended to an entry, and new kinds may appear: a reader ignores bytes behind the
//! fields it knows and keeps entries of kinds it does not know as they are, so that neighbouring versions share one
//! ledger. Kinds that take something away are the exception: they are marked, and a reader that does not know one
//! refuses the commit.

use crate::fields::{FieldError, FieldReader, put_configs, put_count, put_name, read_configs};
use crate::ledger::{Absence, PartitionAudit, Removed, Replaced, StateObject, Superseded};
use crate::ranges::OffsetRange;
use crate::segment::SegmentInfo;
use bytes::{BufMut, Bytes, BytesMut};
use uuid::Uuid;

/// One statement of a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(
    clippy::large_enum_variant,
    reason = "nearly every entry is a segment, so boxing it saves nothing"
)]
pub enum Entry {
    /// A segment is stored.
    Segment(SegmentInfo),
    /// A topic was found like this.
    Topic(TopicSnapshot),
    /// The brokers of the source, as `host:port`.
    SourceBrokers(Vec<String>),
    /// How a transaction ended, known without its marker.
    TxnEvidence(TxnEvidence),
    /// The source is gone for good: what is not settled never will be.
    SourceLost {
        /// When it was declared, in epoch milliseconds.
        at_ms: i64,
    },
    /// The source has nothing at these offsets any more: the hole is explained, and stays.
    Absent(Absence),
    /// A stored range is not in the log any more: it is kept, and held no more.
    Superseded(Superseded),
    /// A partition was looked at from end to end.
    Audit(PartitionAudit),
    /// A piece of the cluster's state is stored.
    State(StateObject),
    /// Small segments were joined into a larger one.
    Replaced(Replaced),
    /// Objects of replaced segments were deleted.
    Removed(Removed),
    /// Written by a newer version; kept as it is.
    Unknown {
        /// Kind, as in the commit.
        kind: u16,
        /// The payload.
        payload: Bytes,
    },
}

/// A topic as it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicSnapshot {
    /// Name.
    pub name: String,
    /// Topic incarnation.
    pub incarnation: Uuid,
    /// When it was read, in epoch milliseconds.
    pub at_ms: i64,
    /// Number of partitions; -1 when unknown.
    pub partition_count: i32,
    /// Replicas of a partition; -1 when unknown.
    pub replication_factor: i16,
    /// Configuration.
    pub configs: Vec<(String, Option<String>)>,
}

/// How a transaction ended, for its batches in one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TxnEvidence {
    /// Producer id.
    pub producer_id: i64,
    /// Producer epoch.
    pub producer_epoch: i16,
    /// Topic.
    pub topic: String,
    /// Topic incarnation.
    pub incarnation: Uuid,
    /// Partition.
    pub partition: i32,
    /// First offset of the batches it speaks for.
    pub first_offset: i64,
    /// Last offset of the batches it speaks for.
    pub last_offset: i64,
    /// Committed, or aborted.
    pub commit: bool,
    /// When the broker said so, in epoch milliseconds.
    pub at_ms: i64,
}

const KIND_SEGMENT: u16 = 1;
const KIND_TOPIC: u16 = 2;
const KIND_SOURCE_BROKERS: u16 = 3;
const KIND_TXN_EVIDENCE: u16 = 4;
const KIND_SOURCE_LOST: u16 = 5;
const KIND_ABSENT: u16 = 6;
const KIND_SUPERSEDED: u16 = 7;
const KIND_AUDIT: u16 = 8;
const KIND_STATE: u16 = 9;
const KIND_REPLACED: u16 = 10;
const KIND_REMOVED: u16 = 11;

impl Entry {
    /// The kind that stands in the commit.
    pub fn kind(&self) -> u16 {
        match self {
            Entry::Segment(_) => KIND_SEGMENT,
            Entry::Topic(_) => KIND_TOPIC,
            Entry::SourceBrokers(_) => KIND_SOURCE_BROKERS,
            Entry::TxnEvidence(_) => KIND_TXN_EVIDENCE,
            Entry::SourceLost { .. } => KIND_SOURCE_LOST,
            Entry::Absent(_) => KIND_ABSENT,
            Entry::Superseded(_) => KIND_SUPERSEDED,
            Entry::Audit(_) => KIND_AUDIT,
            Entry::State(_) => KIND_STATE,
            Entry::Replaced(_) => KIND_REPLACED,
            Entry::Removed(_) => KIND_REMOVED,
            Entry::Unknown { kind, .. } => *kind,
        }
    }

    /// Whether a reader that does not know this kind must refuse the commit. So it is with entries that take something
    /// away: who passed over one would read batches that count no more. Passing over the others leaves a reader with less
    /// than there is, and it says so.
    pub(crate) fn must_be_understood(&self) -> bool {
        match self {
            Entry::Superseded(_) | Entry::Replaced(_) => true,
            Entry::Segment(_)
            | Entry::Topic(_)
            | Entry::SourceBrokers(_)
            | Entry::TxnEvidence(_)
            | Entry::SourceLost { .. }
            | Entry::Absent(_)
            | Entry::Audit(_)
            | Entry::State(_)
            | Entry::Removed(_)
            | Entry::Unknown { .. } => false,
        }
    }

    pub(crate) fn encode(&self, out: &mut BytesMut) -> Result<(), FieldError> {
        match self {
            Entry::Segment(info) => info.encode(out),
            Entry::Topic(topic) => topic.encode(out),
            Entry::SourceBrokers(brokers) => {
                put_count(out, "brokers", brokers.len())?;
                brokers
                    .iter()
                    .try_for_each(|broker| put_name(out, "broker", broker))
            }
            Entry::TxnEvidence(evidence) => evidence.encode(out),
            Entry::SourceLost { at_ms } => {
                out.put_i64_le(*at_ms);
                Ok(())
            }
            Entry::Absent(absence) => absence.encode(out),
            Entry::Superseded(superseded) => superseded.encode(out),
            Entry::Audit(audit) => audit.encode(out),
            Entry::State(object) => object.encode(out),
            Entry::Replaced(replaced) => replaced.encode(out),
            Entry::Removed(removed) => removed.encode(out),
            Entry::Unknown { payload, .. } => {
                out.put_slice(payload);
                Ok(())
            }
        }
    }

    pub(crate) fn decode(kind: u16, payload: &[u8]) -> Result<Entry, FieldError> {
        let fields = &mut FieldReader::new(payload);
        Ok(match kind {
            KIND_SEGMENT => Entry::Segment(SegmentInfo::decode(fields)?),
            KIND_TOPIC => Entry::Topic(TopicSnapshot::decode(fields)?),
            KIND_SOURCE_BROKERS => {
                let count = fields.count(2, "brokers")?;
                Entry::SourceBrokers(
                    (0..count)
                        .map(|_| fields.name("broker"))
                        .collect::<Result<_, _>>()?,
                )
            }
            KIND_TXN_EVIDENCE => Entry::TxnEvidence(TxnEvidence::decode(fields)?),
            KIND_SOURCE_LOST => Entry::SourceLost {
                at_ms: fields.i64("time")?,
            },
            KIND_ABSENT => Entry::Absent(Absence::decode(fields)?),
            KIND_SUPERSEDED => Entry::Superseded(Superseded::decode(fields)?),
            KIND_AUDIT => Entry::Audit(PartitionAudit::decode(fields)?),
            KIND_STATE => Entry::State(StateObject::decode(fields)?),
            KIND_REPLACED => Entry::Replaced(Replaced::decode(fields)?),
            KIND_REMOVED => Entry::Removed(Removed::decode(fields)?),
            kind => Entry::Unknown {
                kind,
                payload: Bytes::copy_from_slice(payload),
            },
        })
    }
}

impl TopicSnapshot {
    fn encode(&self, out: &mut BytesMut) -> Result<(), FieldError> {
        put_name(out, "topic", &self.name)?;
        out.put_slice(self.incarnation.as_bytes());
        out.put_i64_le(self.at_ms);
        out.put_i32_le(self.partition_count);
        out.put_i16_le(self.replication_factor);
        put_configs(out, &self.configs)
    }

    fn decode(fields: &mut FieldReader<'_>) -> Result<TopicSnapshot, FieldError> {
        Ok(TopicSnapshot {
            name: fields.name("topic")?,
            incarnation: fields.uuid("incarnation")?,
            at_ms: fields.i64("time")?,
            partition_count: fields.i32("partition count")?,
            replication_factor: fields.i16("replication factor")?,
            configs: read_configs(fields)?,
        })
    }
}

impl TxnEvidence {
    fn encode(&self, out: &mut BytesMut) -> Result<(), FieldError> {
        out.put_i64_le(self.producer_id);
        out.put_i16_le(self.producer_epoch);
        put_name(out, "topic", &self.topic)?;
        out.put_slice(self.incarnation.as_bytes());
        out.put_i32_le(self.partition);
        out.put_i64_le(self.first_offset);
        out.put_i64_le(self.last_offset);
        out.put_u8(self.commit.into());
        out.put_i64_le(self.at_ms);
        check_range(self.first_offset, self.last_offset)
    }

    fn decode(fields: &mut FieldReader<'_>) -> Result<TxnEvidence, FieldError> {
        let evidence = TxnEvidence {
            producer_id: fields.i64("producer id")?,
            producer_epoch: fields.i16("producer epoch")?,
            topic: fields.name("topic")?,
            incarnation: fields.uuid("incarnation")?,
            partition: fields.i32("partition")?,
            first_offset: fields.i64("first offset")?,
            last_offset: fields.i64("last offset")?,
            commit: fields.flag("commit")?,
            at_ms: fields.i64("time")?,
        };
        check_range(evidence.first_offset, evidence.last_offset)?;
        Ok(evidence)
    }

    /// The offsets it speaks for.
    pub fn range(&self) -> OffsetRange {
        OffsetRange {
            first: self.first_offset,
            last: self.last_offset,
        }
    }
}

pub(super) fn check_range(first: i64, last: i64) -> Result<(), FieldError> {
    match OffsetRange::new(first, last) {
        Some(_) => Ok(()),
        None => Err(FieldError::invalid("offsets", format_args!("{first}..={last}"))),
    }
}
