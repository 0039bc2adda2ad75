//! State objects: what a cluster is beside its records, with time.
//!
//! A state object is a run of JSON lines, compressed by zstd: a header, then changes in the order of time. Folding the
//! lines of a run of objects up to a moment gives the state at that moment. Lines are JSON and not binary because
//! people read them when nothing else works any more, and because there are few of them.
//!
//! | module | duty |
//! |---|---|
//! | `item` | what a state consists of |
//! | `line` | one line, to text and back |
//! | `write`, `read` | an object, to bytes and back |
//! | `fold` | from objects to the state at a moment |

mod fold;
mod item;
mod line;
mod read;
#[cfg(test)]
mod tests;
mod write;

use crate::names::NameError;

pub use fold::{FoldError, StateFold, objects_at};
pub use item::{
    AclKey, AclValue, GroupKey, GroupValue, ItemKey, ItemValue, Items, OffsetKey, OffsetValue, PartKey,
    PartValue, QuotaKey, QuotaValue, ScramUserKey, ScramUserValue, SourceKey, SourceValue, TopicItemKey,
    TopicItemValue,
};
pub use line::{Header, Line, What};
pub use read::StateReader;
pub use write::{FinishedState, StateWriter};

/// Version of the lines that is written.
pub const STATE_VERSION: u16 = 1;
/// Longest line.
pub const LINE_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Largest object.
pub const OBJECT_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Most content of an object, decompressed.
pub const CONTENT_BYTES_MAX: u64 = 1024 * 1024 * 1024;

/// A state object that cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The object is longer or shorter than the ledger says.
    #[error("it has {found} bytes, the ledger says {expected}")]
    Length {
        /// What the ledger says.
        expected: u64,
        /// What there is.
        found: u64,
    },
    /// The object is not the one that the ledger lists.
    #[error("its checksum is {found:08x}, the ledger says {expected:08x}")]
    Checksum {
        /// What the ledger says.
        expected: u32,
        /// What there is.
        found: u32,
    },
    /// The object, a line or the content exceeds its limit.
    #[error("{what} is too long, the limit is {limit} bytes")]
    TooLong {
        /// What.
        what: &'static str,
        /// The limit.
        limit: u64,
    },
    /// The codec refuses, or the content is cut short.
    #[error("decompress or compress lines")]
    Codec(#[source] std::io::Error),
    /// A line is not what it should be.
    #[error("line {number} cannot be used: {reason}")]
    Line {
        /// Which, from 1.
        number: u64,
        /// Why.
        reason: String,
    },
    /// A newer program wrote the object.
    #[error("it has version {0}, this program knows {STATE_VERSION}; use a newer one")]
    Version(u16),
    /// It belongs elsewhere.
    #[error("it is about {found}, the ledger says {expected}")]
    Elsewhere {
        /// What the ledger says.
        expected: String,
        /// What it says itself.
        found: String,
    },
    /// No key can be built for it.
    #[error("its key cannot be built")]
    Name(#[from] NameError),
}
