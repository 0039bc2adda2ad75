//! Batches on their way to a segment: which offsets, where the bytes are, and what they are, to know them again.

use bytes::Bytes;
use teeline_archive::OffsetRange;
use teeline_archive::ids::{BufferPosition, SessionId};
use teeline_wire::batch::BatchHeader;

use crate::buffer::FrameLocation;

/// What makes two answers for the same offsets the same batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    producer: Option<(i64, i16, i32)>,
    last_offset_delta: i32,
    crc: u32,
}

impl Identity {
    /// The identity of a batch as its producer sent it.
    pub fn of(header: &BatchHeader) -> Self {
        Identity {
            producer: header.has_producer().then_some((
                header.producer_id,
                header.producer_epoch,
                header.base_sequence,
            )),
            last_offset_delta: header.last_offset_delta,
            crc: header.crc,
        }
    }

    /// The idempotent producer, if it comes from one.
    pub fn producer_id(&self) -> Option<i64> {
        self.producer.map(|(id, _, _)| id)
    }

    /// The same batch. Brokers may rewrite bytes, so a producer's sequence counts for more than the checksum.
    pub fn is_same(&self, other: &Identity) -> bool {
        match (self.producer, other.producer) {
            (Some(one), Some(two)) => one == two && self.last_offset_delta == other.last_offset_delta,
            _ => self.crc == other.crc && self.last_offset_delta == other.last_offset_delta,
        }
    }
}

/// Where the bytes of a batch are.
#[derive(Debug, Clone)]
pub enum Content {
    /// In the buffer.
    Captured {
        /// The intent's frame.
        intent: BufferPosition,
        /// The outcome's frame.
        outcome: BufferPosition,
        /// Where to read it.
        location: FrameLocation,
        /// Leader epoch, -1 when unknown. Until its segment closes: what was noted with its answer, to be proved.
        leader_epoch: i32,
        /// The append time that the broker stamped on it, in a topic that does so.
        append_time_ms: Option<i64>,
    },
    /// In memory: fetched from the source.
    Fetched(Bytes),
}

/// One batch of an open segment.
#[derive(Debug, Clone)]
pub struct Batch {
    /// Its offsets.
    pub range: OffsetRange,
    /// Its length in bytes.
    pub bytes: u32,
    /// What it is, to know it again.
    pub identity: Identity,
    /// When it joined the open segment, on the local clock.
    pub placed_ms: i64,
    /// Where its bytes are.
    pub content: Content,
}

impl Batch {
    /// The epoch of the leader that took it, -1 when unknown.
    pub fn leader_epoch(&self) -> i32 {
        match &self.content {
            Content::Captured { leader_epoch, .. } => *leader_epoch,
            Content::Fetched(bytes) => {
                BatchHeader::parse(bytes).map_or(-1, |header| header.partition_leader_epoch)
            }
        }
    }

    /// The writer session whose frame it came in; `None` for what was fetched.
    pub fn session(&self) -> Option<SessionId> {
        match &self.content {
            Content::Captured { outcome, .. } => Some(outcome.session),
            Content::Fetched(_) => None,
        }
    }
}

/// A batch that came by Fetch.
#[derive(Debug, Clone)]
pub struct FetchedBatch {
    /// Its header.
    pub header: BatchHeader,
    /// All of it.
    pub bytes: Bytes,
    /// Producer id of the transaction that it ends, for a marker.
    pub ends: Option<i64>,
}
