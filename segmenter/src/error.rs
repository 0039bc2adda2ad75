//! What ends a segmenter. What can be waited out (store or source down, disk slow) is waited out and is not here.

use teeline_archive::ids::WriterId;
use teeline_runtime::StoreError;

use crate::buffer::BufferError;

/// Why a segmenter cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum SegmenterError {
    /// The buffer cannot be read. The disk's fault, or a setting's.
    #[error("follow the write-ahead buffer")]
    Buffer(#[from] BufferError),
    /// The store refuses us, or answers what cannot be.
    #[error("use the archive")]
    Store(#[from] StoreError),
    /// The store cannot keep ledgers. The operator's to change.
    #[error("the archive cannot keep a ledger: {reason}")]
    UnsuitableStore {
        /// Why, and what to do.
        reason: String,
    },
    /// The backup belongs to another cluster. The operator's mistake.
    #[error(
        "backup {backup_id} belongs to cluster {bound_to}, the buffer was captured from {found} \
         (hint: give this cluster a backup_id of its own)"
    )]
    OtherCluster {
        /// The backup.
        backup_id: String,
        /// The cluster it is bound to.
        bound_to: String,
        /// The cluster of this buffer.
        found: String,
    },
    /// Somebody else writes this chain: a copy of the buffer directory, or a second process.
    #[error(
        "another process wrote commit {seq} of ledger chain {writer} in backup {backup_id}: this one stops \
         (hint: only one segmenter may serve a buffer; was its directory copied?)"
    )]
    Fenced {
        /// The backup.
        backup_id: String,
        /// The chain.
        writer: WriterId,
        /// The commit that is not ours.
        seq: u64,
    },
    /// The ledger cannot be understood.
    #[error("the ledger object {key} is unusable: {reason}")]
    Ledger {
        /// The object.
        key: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A segment cannot be built. A bug, or a limit.
    #[error("build a segment")]
    Segment(#[source] crate::writer::WriteError),
    /// Settings contradict each other.
    #[error("{0}")]
    Usage(String),
    /// A part of the segmenter ended that never may. A bug.
    #[error("the {part} stopped unexpectedly")]
    Stopped {
        /// Which part.
        part: &'static str,
    },
}
