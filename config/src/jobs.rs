//! What the segmenter, a backup and a restore are told to do.

use std::collections::BTreeMap;

use crate::pattern::TopicFilter;
use crate::when::When;

/// The codec of segments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Compression {
    /// Best ratio at high speed.
    #[default]
    Zstd,
    /// Fastest, lower ratio.
    Lz4,
    /// None; for data that is compressed already.
    None,
}

impl Compression {
    /// As it is written in the file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Zstd => "zstd",
            Self::Lz4 => "lz4",
            Self::None => "none",
        }
    }
}

/// How the buffer becomes segments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segmenter {
    /// Whether the proxy runs one inside; otherwise `teeline-segmenter run` serves the same directory.
    pub embedded: bool,
    /// The codec of segments.
    pub compression: Compression,
    /// The level of zstd, 1 to 19.
    pub level: i32,
    /// A segment closes at this many bytes before compression.
    pub segment_max_bytes: u64,
    /// A segment closes at this age.
    pub segment_max_interval_ms: u64,
    /// Bytes before compression of one block, the unit of range reads.
    pub block_bytes: u64,
    /// Segments built and uploaded at the same time.
    pub upload_concurrency: usize,
    /// The shortest time between two rewrites of `manifest.json`.
    pub manifest_interval_ms: u64,
    /// How old a hole must be before it is filled by Fetch.
    pub hole_grace_ms: u64,
}

impl Segmenter {
    /// Compresses JSON events by about 80 % at several hundred MB/s per core; higher levels cost more than they save.
    pub const DEFAULT_LEVEL: i32 = 3;
    /// Fewer, larger objects: request costs fall, and a range read needs only blocks.
    pub const DEFAULT_SEGMENT_MAX_BYTES: u64 = 134_217_728;
    /// The recovery point if host and cluster are lost together.
    pub const DEFAULT_SEGMENT_MAX_INTERVAL_MS: u64 = 60_000;
    /// Large enough for the codec to find repetition, small enough to read one record cheaply.
    pub const DEFAULT_BLOCK_BYTES: u64 = 1024 * 1024;
    /// Hides the store's latency; each costs about two parts of memory.
    pub const DEFAULT_UPLOAD_CONCURRENCY: usize = 4;
    /// The manifest is a view for people; rewriting it with every commit would cost a put each.
    pub const DEFAULT_MANIFEST_INTERVAL_MS: u64 = 10_000;
    /// Responses still under way must not be taken for holes: longer than a producer's request timeout.
    pub const DEFAULT_HOLE_GRACE_MS: u64 = 30_000;
}

impl Default for Segmenter {
    fn default() -> Self {
        Self {
            embedded: true,
            compression: Compression::Zstd,
            level: Self::DEFAULT_LEVEL,
            segment_max_bytes: Self::DEFAULT_SEGMENT_MAX_BYTES,
            segment_max_interval_ms: Self::DEFAULT_SEGMENT_MAX_INTERVAL_MS,
            block_bytes: Self::DEFAULT_BLOCK_BYTES,
            upload_concurrency: Self::DEFAULT_UPLOAD_CONCURRENCY,
            manifest_interval_ms: Self::DEFAULT_MANIFEST_INTERVAL_MS,
            hole_grace_ms: Self::DEFAULT_HOLE_GRACE_MS,
        }
    }
}

/// What a backup by Fetch takes. How its segments are built is said by [`Segmenter`], whose keys may also
/// be written under `backup:`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Backup {
    /// Which topics.
    pub topics: TopicFilter,
}

/// What a restore gives back, and how.
#[derive(Debug, Clone, PartialEq)]
pub struct Restore {
    /// Which topics, by the names they have in the archive.
    pub topics: TopicFilter,
    /// Names in the target, by names in the archive.
    pub topic_mapping: BTreeMap<String, String>,
    /// Records with timestamps from here on; inclusive.
    pub time_window_start: Option<When>,
    /// Records with timestamps before this; exclusive.
    pub time_window_end: Option<When>,
    /// Print the plan and stop.
    pub dry_run: bool,
    /// Check everything that was selected before the first record is produced.
    pub validate_checksum: bool,
    /// Create target topics that do not exist, with the original configuration and partition count.
    pub create_topics: bool,
    /// Allow restoring into the cluster that the backup came from.
    pub allow_source: bool,
    /// Allow restoring into topics that hold records already.
    pub allow_nonempty: bool,
    /// Restore batches too whose write was never confirmed and is doubtful.
    pub include_quarantined: bool,
}

impl Default for Restore {
    fn default() -> Self {
        Self {
            topics: TopicFilter::default(),
            topic_mapping: BTreeMap::new(),
            time_window_start: None,
            time_window_end: None,
            dry_run: false,
            // Refusing damaged data before anything is produced is what makes a restore safe to repeat.
            validate_checksum: true,
            create_topics: true,
            allow_source: false,
            allow_nonempty: false,
            include_quarantined: false,
        }
    }
}
