//! What is said about batches and segments.

use crate::fields::{FieldError, FieldReader, put_count, put_name};
use crate::ids::{Lsn, SessionId, WriterId};
use crate::names::{NameError, SegmentName, segment_key};
use crate::ranges::OffsetRange;
use crate::segment::Codec;
use bytes::{BufMut, BytesMut};
use uuid::Uuid;

/// Most undecided transactions that a segment lists.
pub const UNDECIDED_MAX: usize = 65_536;
/// Most gaps that a segment lists.
pub const GAPS_MAX: usize = 65_536;

/// What the caller knows about a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchMeta {
    /// Offset of the first record, as it stands in the batch.
    pub base_offset: i64,
    /// Offset of the last record.
    pub last_offset: i64,
    /// Records in the batch.
    pub record_count: u32,
    /// True lowest timestamp of the records; -1 if one of them has none.
    pub timestamp_min: i64,
    /// True highest timestamp of the records; -1 if they have none.
    pub timestamp_max: i64,
    /// Leader epoch; -1 when unknown.
    pub leader_epoch: i32,
    /// Idempotent producer, if any.
    pub producer: Option<Producer>,
    /// What kind of batch it is.
    pub kind: BatchKind,
}

/// An idempotent producer and where it stood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Producer {
    /// Producer id.
    pub id: i64,
    /// Producer epoch.
    pub epoch: i16,
    /// Sequence of the first record.
    pub base_sequence: i32,
}

/// What kind of batch it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BatchKind {
    /// Records outside of any transaction.
    Data,
    /// Records of a transaction.
    TransactionalData,
    /// A transaction marker.
    Control(Marker),
}

/// How a transaction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Marker {
    /// Committed, or aborted.
    pub commit: bool,
}

/// Whose segment it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentIdentity {
    /// The backup.
    pub backup_id: String,
    /// The cluster that the records come from.
    pub cluster_id: String,
    /// Topic.
    pub topic: String,
    /// Topic incarnation: the topic id, or a synthetic one for clusters without.
    pub incarnation: Uuid,
    /// Partition.
    pub partition: i32,
    /// Who wrote it.
    pub writer: WriterId,
    /// The session that named it; together with the counter it keeps names unique.
    pub session: SessionId,
    /// Which segment of the session.
    pub counter: u32,
    /// Where the batches come from.
    pub origin: Origin,
    /// When it was begun, in epoch milliseconds.
    pub created_at_ms: i64,
}

/// Where the batches of a segment come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Origin {
    /// Captured on their way to the broker and confirmed by its answer.
    Tee,
    /// Read back from the broker.
    Fetch,
    /// Captured, never confirmed; the offsets are provisional.
    Unconfirmed,
}

/// What only the caller knows about a whole segment; given before it is finished.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentNotes {
    /// First offset of a transaction that has no marker yet; -1 for none.
    pub undecided_first_offset: i64,
    /// Transactions of this segment without a marker when it closed.
    pub undecided: Vec<UndecidedTransaction>,
    /// The frames of the buffer that went in (origin tee).
    pub lsn_range: Option<LsnRange>,
    /// Unconfirmed, and nothing says that the broker would have taken it.
    pub quarantined: bool,
    /// Offsets between the batches that the segment does not vouch for: what a segment of origin fetch leaves to
    /// others. They are listed as the segment's gaps; notes that were read have none.
    pub gaps: Vec<OffsetRange>,
}

impl Default for SegmentNotes {
    fn default() -> SegmentNotes {
        SegmentNotes {
            undecided_first_offset: -1,
            undecided: Vec::new(),
            lsn_range: None,
            quarantined: false,
            gaps: Vec::new(),
        }
    }
}

/// A transaction whose end is not known yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UndecidedTransaction {
    /// Producer id.
    pub producer_id: i64,
    /// Producer epoch.
    pub producer_epoch: i16,
    /// First offset of its batches in the segment.
    pub first_offset: i64,
    /// Last offset of its batches in the segment.
    pub last_offset: i64,
}

/// Frames of one session, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LsnRange {
    /// The session.
    pub session: SessionId,
    /// First frame.
    pub first: Lsn,
    /// Last frame.
    pub last: Lsn,
}

/// A segment as the ledger lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentInfo {
    /// Object key.
    pub key: String,
    /// Whose segment it is.
    pub identity: SegmentIdentity,
    /// Codec.
    pub codec: Codec,
    /// First offset held.
    pub start_offset: i64,
    /// Last offset held.
    pub end_offset: i64,
    /// Offsets between the two that are neither held nor vouched for. A segment of origin fetch vouches for what it
    /// spans: what is missing in it was missing in the log, but for gaps that its writer listed.
    pub gaps: Vec<OffsetRange>,
    /// True lowest timestamp; -1 if some record has none.
    pub timestamp_min: i64,
    /// True highest timestamp; -1 if no record has one.
    pub timestamp_max: i64,
    /// Records, transaction markers not counted.
    pub record_count: u64,
    /// Batches, markers included.
    pub batch_count: u64,
    /// Transaction markers.
    pub control_count: u64,
    /// Batches of records that belong to a transaction.
    pub transactional_count: u64,
    /// First offset of a transaction that had no marker yet; -1 for none.
    pub undecided_first_offset: i64,
    /// Transactions without a marker when the segment closed.
    pub undecided: Vec<UndecidedTransaction>,
    /// Bytes of the object.
    pub object_bytes: u64,
    /// Bytes of the batches.
    pub uncompressed_bytes: u64,
    /// Checksum of the footer, which holds the checksums of everything else.
    pub footer_crc32c: u32,
    /// Leader epoch of the first batch that has one; -1 for none.
    pub leader_epoch_first: i32,
    /// Leader epoch of the last batch that has one; -1 for none.
    pub leader_epoch_last: i32,
    /// The frames of the buffer that went in (origin tee).
    pub lsn_range: Option<LsnRange>,
    /// Unconfirmed, and nothing says that the broker would have taken it.
    pub quarantined: bool,
}

impl SegmentInfo {
    /// From the first to the last offset, gaps included.
    pub fn range(&self) -> OffsetRange {
        OffsetRange {
            first: self.start_offset,
            last: self.end_offset,
        }
    }

    /// Whether the offsets are provisional.
    pub fn unconfirmed(&self) -> bool {
        self.identity.origin == Origin::Unconfirmed
    }
}

impl SegmentIdentity {
    /// The parts of the object's key.
    pub fn name(&self, first_offset: i64, codec: Codec) -> SegmentName {
        SegmentName {
            backup_id: self.backup_id.clone(),
            topic: self.topic.clone(),
            partition: self.partition,
            unconfirmed: self.origin == Origin::Unconfirmed,
            incarnation: self.incarnation,
            first_offset,
            writer: self.writer,
            session: self.session,
            counter: self.counter,
            codec,
        }
    }

    /// The object's key.
    pub fn key(&self, first_offset: i64, codec: Codec) -> Result<String, NameError> {
        segment_key(&self.name(first_offset, codec))
    }

    pub(crate) fn encode(&self, out: &mut BytesMut) -> Result<(), FieldError> {
        put_name(out, "backup id", &self.backup_id)?;
        put_name(out, "cluster id", &self.cluster_id)?;
        put_name(out, "topic", &self.topic)?;
        out.put_slice(self.incarnation.as_bytes());
        out.put_i32_le(self.partition);
        out.put_u64_le(self.writer.0);
        out.put_u64_le(self.session.0);
        out.put_u32_le(self.counter);
        out.put_u8(self.origin.code());
        out.put_i64_le(self.created_at_ms);
        Ok(())
    }

    pub(crate) fn decode(fields: &mut FieldReader<'_>) -> Result<SegmentIdentity, FieldError> {
        Ok(SegmentIdentity {
            backup_id: fields.name("backup id")?,
            cluster_id: fields.name("cluster id")?,
            topic: fields.name("topic")?,
            incarnation: fields.uuid("incarnation")?,
            partition: fields.i32("partition")?,
            writer: WriterId(fields.u64("writer")?),
            session: SessionId(fields.u64("session")?),
            counter: fields.u32("counter")?,
            origin: Origin::from_code(fields.u8("origin")?)?,
            created_at_ms: fields.i64("created at")?,
        })
    }
}

impl Origin {
    fn code(self) -> u8 {
        match self {
            Origin::Tee => 1,
            Origin::Fetch => 2,
            Origin::Unconfirmed => 3,
        }
    }

    fn from_code(code: u8) -> Result<Origin, FieldError> {
        match code {
            1 => Ok(Origin::Tee),
            2 => Ok(Origin::Fetch),
            3 => Ok(Origin::Unconfirmed),
            other => Err(FieldError::invalid("origin", other)),
        }
    }

    /// The word for it in manifests and reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Origin::Tee => "tee",
            Origin::Fetch => "fetch",
            Origin::Unconfirmed => "unconfirmed",
        }
    }
}

impl SegmentNotes {
    pub(crate) fn encode(&self, out: &mut BytesMut) -> Result<(), FieldError> {
        if self.undecided.len() > UNDECIDED_MAX {
            let (len, limit) = (self.undecided.len() as u64, UNDECIDED_MAX as u64);
            return Err(FieldError::TooLong {
                what: "undecided transactions",
                len,
                limit,
            });
        }
        out.put_u8(self.quarantined.into());
        out.put_i64_le(self.undecided_first_offset);
        let range = self.lsn_range.unwrap_or(NO_LSN_RANGE);
        out.put_u64_le(range.session.0);
        out.put_u64_le(range.first.0);
        out.put_u64_le(range.last.0);
        put_count(out, "undecided transactions", self.undecided.len())?;
        for transaction in &self.undecided {
            out.put_i64_le(transaction.producer_id);
            out.put_i16_le(transaction.producer_epoch);
            out.put_i64_le(transaction.first_offset);
            out.put_i64_le(transaction.last_offset);
        }
        Ok(())
    }

    pub(crate) fn decode(fields: &mut FieldReader<'_>) -> Result<SegmentNotes, FieldError> {
        let quarantined = fields.flag("quarantined")?;
        let undecided_first_offset = fields.i64("undecided first offset")?;
        let range = LsnRange {
            session: SessionId(fields.u64("session")?),
            first: Lsn(fields.u64("first lsn")?),
            last: Lsn(fields.u64("last lsn")?),
        };
        let count = fields.count(8 + 2 + 8 + 8, "undecided transactions")?;
        let undecided = (0..count)
            .map(|_| {
                Ok(UndecidedTransaction {
                    producer_id: fields.i64("producer id")?,
                    producer_epoch: fields.i16("producer epoch")?,
                    first_offset: fields.i64("first offset")?,
                    last_offset: fields.i64("last offset")?,
                })
            })
            .collect::<Result<_, FieldError>>()?;
        let lsn_range = (range != NO_LSN_RANGE).then_some(range);
        Ok(SegmentNotes {
            undecided_first_offset,
            undecided,
            lsn_range,
            quarantined,
            gaps: Vec::new(),
        })
    }
}

/// No frame has LSN 0, so this can stand for "none".
const NO_LSN_RANGE: LsnRange = LsnRange {
    session: SessionId(0),
    first: Lsn(0),
    last: Lsn(0),
};

pub(crate) fn put_gaps(out: &mut BytesMut, gaps: &[OffsetRange]) -> Result<(), FieldError> {
    put_count(out, "gaps", gaps.len())?;
    for gap in gaps {
        out.put_i64_le(gap.first);
        out.put_i64_le(gap.last);
    }
    Ok(())
}

pub(crate) fn read_gaps(
    fields: &mut FieldReader<'_>,
    inside: Option<OffsetRange>,
) -> Result<Vec<OffsetRange>, FieldError> {
    let inside = inside.ok_or_else(|| FieldError::invalid("offsets", "end before start"))?;
    let count = fields.count(8 + 8, "gaps")?;
    let mut gaps = Vec::with_capacity(count);
    let mut after = inside.first;
    for _ in 0..count {
        let gap = OffsetRange {
            first: fields.i64("gap")?,
            last: fields.i64("gap")?,
        };
        // Ends of a segment are held, so a gap lies strictly inside, and gaps are in order.
        if gap.first <= after || gap.last < gap.first || gap.last >= inside.last {
            return Err(FieldError::invalid("gap", gap));
        }
        after = gap.last;
        gaps.push(gap);
    }
    Ok(gaps)
}

impl SegmentInfo {
    pub(crate) fn encode(&self, out: &mut BytesMut) -> Result<(), FieldError> {
        put_name(out, "key", &self.key)?;
        self.identity.encode(out)?;
        out.put_u8(self.codec.code());
        out.put_i64_le(self.start_offset);
        out.put_i64_le(self.end_offset);
        out.put_i64_le(self.timestamp_min);
        out.put_i64_le(self.timestamp_max);
        out.put_u64_le(self.record_count);
        out.put_u64_le(self.batch_count);
        out.put_u64_le(self.control_count);
        out.put_u64_le(self.transactional_count);
        out.put_u64_le(self.object_bytes);
        out.put_u64_le(self.uncompressed_bytes);
        out.put_u32_le(self.footer_crc32c);
        out.put_i32_le(self.leader_epoch_first);
        out.put_i32_le(self.leader_epoch_last);
        let notes = SegmentNotes {
            undecided_first_offset: self.undecided_first_offset,
            undecided: self.undecided.clone(),
            lsn_range: self.lsn_range,
            quarantined: self.quarantined,
            gaps: Vec::new(),
        };
        notes.encode(out)?;
        put_gaps(out, &self.gaps)
    }

    pub(crate) fn decode(fields: &mut FieldReader<'_>) -> Result<SegmentInfo, FieldError> {
        let key = fields.name("key")?;
        let identity = SegmentIdentity::decode(fields)?;
        let codec = Codec::from_code(fields.u8("codec")?)?;
        let mut info = SegmentInfo {
            key,
            identity,
            codec,
            start_offset: fields.i64("start offset")?,
            end_offset: fields.i64("end offset")?,
            timestamp_min: fields.i64("lowest timestamp")?,
            timestamp_max: fields.i64("highest timestamp")?,
            record_count: fields.u64("record count")?,
            batch_count: fields.u64("batch count")?,
            control_count: fields.u64("control count")?,
            transactional_count: fields.u64("transactional count")?,
            object_bytes: fields.u64("object bytes")?,
            uncompressed_bytes: fields.u64("uncompressed bytes")?,
            footer_crc32c: fields.u32("footer checksum")?,
            leader_epoch_first: fields.i32("first leader epoch")?,
            leader_epoch_last: fields.i32("last leader epoch")?,
            gaps: Vec::new(),
            undecided_first_offset: -1,
            undecided: Vec::new(),
            lsn_range: None,
            quarantined: false,
        };
        info.set_notes(SegmentNotes::decode(fields)?);
        info.gaps = read_gaps(fields, OffsetRange::new(info.start_offset, info.end_offset))?;
        Ok(info)
    }

    pub(crate) fn set_notes(&mut self, notes: SegmentNotes) {
        self.undecided_first_offset = notes.undecided_first_offset;
        self.undecided = notes.undecided;
        self.lsn_range = notes.lsn_range;
        self.quarantined = notes.quarantined;
    }
}
