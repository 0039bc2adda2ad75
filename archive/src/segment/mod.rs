//! Segments: runs of record batches of one partition, compressed in independent blocks.
//!
//! Decompressed by the stock tool of its codec, a segment is a Kafka log file. What Teeline adds, the footer,
//! travels in a skippable frame at the end (zstd, lz4) or in an object beside it (none).
//!
//! One layer per module: [`meta`] (what is said about batches and segments), [`level`] (how hard zstd tries),
//! [`codec`] (blocks to compressed bytes and back), [`footer`] (layout of footer and trailer), [`builder`] (batches to
//! an object), [`reader`] (an object to batches).

pub mod builder;
pub mod codec;
pub mod footer;
pub mod level;
pub mod meta;
pub mod reader;

pub use builder::{BLOCK_BYTES_DEFAULT, Finished, SegmentBuilder};
pub use codec::Codec;
pub use footer::{BlockEntry, FOOTER_BYTES_MAX, FOOTER_TRAILER_BYTES, Footer, Location, MarkerEntry};
pub use level::{Level, LevelTrial};
pub use meta::{
    BatchKind, BatchMeta, LsnRange, Marker, Origin, Producer, SegmentIdentity, SegmentInfo, SegmentNotes,
    UndecidedTransaction,
};
pub use reader::{SegmentReader, batches, decode_block};

use crate::fields::FieldError;
use crate::names::NameError;
use crate::ranges::OffsetRange;

/// What goes wrong with a segment.
#[derive(Debug, thiserror::Error)]
pub enum SegmentError {
    /// A name in the identity cannot be used. The caller's mistake.
    #[error("the segment cannot be named")]
    Name(#[from] NameError),
    /// A batch does not fit what is said about it, or comes out of order. The caller's mistake.
    #[error("the batch at offset {base_offset} is refused: {why}")]
    Batch {
        /// Base offset that was given.
        base_offset: i64,
        /// What is wrong.
        why: &'static str,
    },
    /// A gap covers a batch, or lies outside of the segment. The caller's mistake.
    #[error("the gap {gap} does not lie between the segment's batches")]
    Gap {
        /// The gap that was given.
        gap: OffsetRange,
    },
    /// The footer would grow beyond its limits: close this segment and begin another.
    #[error("the segment is full: {what}")]
    Full {
        /// Which limit.
        what: &'static str,
    },
    /// A segment without a batch cannot be finished.
    #[error("the segment has no batch")]
    Empty,
    /// A field cannot be written or read.
    #[error("a field of the segment is unusable")]
    Field(#[from] FieldError),
    /// The compression library failed.
    #[error("compress a block with {codec}")]
    Compress {
        /// The codec.
        codec: Codec,
        /// Its error.
        #[source]
        source: std::io::Error,
    },
    /// The object is not whole: it ends before its footer does.
    #[error("the segment is cut short: {present} bytes, at least {needed} needed")]
    Torn {
        /// Bytes needed.
        needed: u64,
        /// Bytes there.
        present: u64,
    },
    /// The bytes are there and wrong. Named: what, and where in the object.
    #[error("the segment is corrupt at byte {at}: {what}")]
    Corrupt {
        /// What is wrong.
        what: &'static str,
        /// Position in the object.
        at: u64,
    },
    /// A block's bytes are as written and yet do not decompress.
    #[error("decompress the block at byte {at} with {codec}")]
    Decompress {
        /// The codec.
        codec: Codec,
        /// Position in the object.
        at: u64,
        /// The library's error.
        #[source]
        source: std::io::Error,
    },
    /// Written by a newer version.
    #[error(
        "the segment has version {version}, this program reads up to {}; use a newer one",
        footer::SEGMENT_VERSION
    )]
    Version {
        /// The version found.
        version: u16,
    },
}

impl SegmentError {
    /// Whether the object's bytes are to blame: cut short, changed, or not decompressible.
    pub fn is_damage(&self) -> bool {
        use SegmentError::{Corrupt, Decompress, Field, Torn};
        matches!(self, Torn { .. } | Corrupt { .. } | Decompress { .. } | Field(_))
    }
}
