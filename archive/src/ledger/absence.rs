//! Offsets that the source does not have, why, and what shows it.

use crate::fields::{FieldError, FieldReader, put_name};
use crate::ledger::entry::check_range;
use crate::ranges::OffsetRange;
use bytes::{BufMut, BytesMut};
use uuid::Uuid;

/// Offsets that the source does not have any more, or that the backup is not to hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Absence {
    /// Topic.
    pub topic: String,
    /// Topic incarnation.
    pub incarnation: Uuid,
    /// Partition.
    pub partition: i32,
    /// First offset.
    pub first_offset: i64,
    /// Last offset.
    pub last_offset: i64,
    /// Why.
    pub reason: AbsenceReason,
    /// When it was found, in epoch milliseconds.
    pub at_ms: i64,
    /// What showed it.
    pub evidence: AbsenceEvidence,
}

/// What was read from the source when the offsets were found to be absent.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AbsenceEvidence {
    /// First offset that the source still had; -1 when it was not asked.
    pub log_start_offset: i64,
    /// The leader epoch in which it was asked; -1 when unknown.
    pub leader_epoch: i32,
    /// The topic's cleanup policy; empty when unknown.
    pub cleanup_policy: String,
}

impl AbsenceEvidence {
    /// Nothing was written down.
    pub const NONE: AbsenceEvidence = AbsenceEvidence {
        log_start_offset: -1,
        leader_epoch: -1,
        cleanup_policy: String::new(),
    };
}

impl Default for AbsenceEvidence {
    fn default() -> AbsenceEvidence {
        AbsenceEvidence::NONE
    }
}

/// Why the source has nothing there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum AbsenceReason {
    /// A read over these offsets returned nothing: compacted away, or never used.
    Compacted,
    /// They lie below the first offset that the source still has.
    Deleted,
    /// The source is gone for good.
    SourceLost,
    /// They lay beyond the end to which the source's log was cut back.
    Truncated,
    /// The source does not let us read them.
    NotAuditable,
    /// The backup was told to begin later, or to end earlier.
    NotWanted,
    /// A reason that a newer version gave; its code.
    Unknown(u8),
}

impl Absence {
    pub(super) fn encode(&self, out: &mut BytesMut) -> Result<(), FieldError> {
        put_name(out, "topic", &self.topic)?;
        out.put_slice(self.incarnation.as_bytes());
        out.put_i32_le(self.partition);
        out.put_i64_le(self.first_offset);
        out.put_i64_le(self.last_offset);
        out.put_u8(self.reason.code());
        out.put_i64_le(self.at_ms);
        // Older commits end here, and what says nothing is written as they wrote it.
        if self.evidence != AbsenceEvidence::NONE {
            out.put_i64_le(self.evidence.log_start_offset);
            out.put_i32_le(self.evidence.leader_epoch);
            put_name(out, "cleanup policy", &self.evidence.cleanup_policy)?;
        }
        check_range(self.first_offset, self.last_offset)
    }

    pub(super) fn decode(fields: &mut FieldReader<'_>) -> Result<Absence, FieldError> {
        let absence = Absence {
            topic: fields.name("topic")?,
            incarnation: fields.uuid("incarnation")?,
            partition: fields.i32("partition")?,
            first_offset: fields.i64("first offset")?,
            last_offset: fields.i64("last offset")?,
            reason: AbsenceReason::from_code(fields.u8("reason")?),
            at_ms: fields.i64("time")?,
            evidence: match fields.remaining() {
                0 => AbsenceEvidence::NONE,
                _ => AbsenceEvidence {
                    log_start_offset: fields.i64("log start offset")?,
                    leader_epoch: fields.i32("leader epoch")?,
                    cleanup_policy: fields.name("cleanup policy")?,
                },
            },
        };
        check_range(absence.first_offset, absence.last_offset)?;
        Ok(absence)
    }

    /// The offsets it speaks for.
    pub fn range(&self) -> OffsetRange {
        OffsetRange {
            first: self.first_offset,
            last: self.last_offset,
        }
    }
}

impl AbsenceReason {
    fn code(self) -> u8 {
        match self {
            AbsenceReason::Compacted => 1,
            AbsenceReason::Deleted => 2,
            AbsenceReason::SourceLost => 3,
            AbsenceReason::Truncated => 4,
            AbsenceReason::NotAuditable => 5,
            AbsenceReason::NotWanted => 6,
            AbsenceReason::Unknown(code) => code,
        }
    }

    fn from_code(code: u8) -> AbsenceReason {
        match code {
            1 => AbsenceReason::Compacted,
            2 => AbsenceReason::Deleted,
            3 => AbsenceReason::SourceLost,
            4 => AbsenceReason::Truncated,
            5 => AbsenceReason::NotAuditable,
            6 => AbsenceReason::NotWanted,
            other => AbsenceReason::Unknown(other),
        }
    }

    /// The word for it in manifests and reports.
    pub fn as_str(self) -> &'static str {
        match self {
            AbsenceReason::Compacted => "compacted",
            AbsenceReason::Deleted => "deleted",
            AbsenceReason::SourceLost => "source-lost",
            AbsenceReason::Truncated => "truncated",
            AbsenceReason::NotAuditable => "not-auditable",
            AbsenceReason::NotWanted => "not-wanted",
            AbsenceReason::Unknown(_) => "unknown",
        }
    }
}
