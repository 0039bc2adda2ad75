//! What a segmenter is told, and what it reports when it ends.

use std::path::PathBuf;

use teeline_archive::ids::BufferPosition;
use teeline_config::{Segmenter as Settings, TopicFilter};
use teeline_runtime::Store;
use teeline_wire::client::ClientConfig;

/// One segmenter: one buffer, one backup.
#[derive(Debug, Clone)]
pub struct Options {
    /// The virtual cluster it serves; names it in logs, metrics and health.
    pub name: String,
    /// The backup that it writes.
    pub backup_id: String,
    /// The write-ahead buffer.
    pub buffer_dir: PathBuf,
    /// How large it may grow.
    pub buffer_max_bytes: u64,
    /// Where the archive is.
    pub store: Store,
    /// Which topics are captured.
    pub topics: TopicFilter,
    /// The cluster that the buffer was captured from, to settle what is unresolved and to fill holes. Without it,
    /// what is unresolved stays in the buffer.
    pub upstream: Option<ClientConfig>,
    /// How segments are built.
    pub settings: Settings,
    /// The cluster is gone for good: archive what is unresolved as unconfirmed.
    pub source_lost: bool,
    /// End when no writer lives and everything is archived, instead of waiting for the next writer.
    pub until_drained: bool,
    /// An auditor compares the whole backup with the log, so that holes between the captures of several writers may be left
    /// to it.
    pub audited: bool,
    /// How the auditor beside the segmenter audits, if one runs.
    pub audit: Option<teeline_config::Audit>,
}

/// How a run ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DrainReport {
    /// The buffer is archived up to here.
    pub archived_to: Option<BufferPosition>,
    /// The last frame that was read.
    pub read_to: Option<BufferPosition>,
    /// Frames that are still needed from the buffer: not committed, or unresolved.
    pub remaining: u64,
    /// Intents among them of which it is not known whether the broker wrote them.
    pub unsettled: u64,
    /// Intents archived as unconfirmed.
    pub unconfirmed: u64,
    /// Offsets that are missing between those held, and could not be fetched.
    pub missing_offsets: u64,
    /// Segments committed by this run.
    pub segments: u64,
    /// Records in them.
    pub records: u64,
    /// Everything that was read is archived, and nothing is missing.
    pub complete: bool,
}
