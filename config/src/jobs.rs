//! What the segmenter, a backup and a restore are told to do.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::audit::StartAt;
use crate::cluster::Capture;
use crate::pattern::{TopicFilter, TopicPattern};
use crate::when::{When, WhenError};

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
    /// The level of zstd, 1 to 19; `None` is 3, or 1 for topics that it compresses about as well.
    pub level: Option<i32>,
    /// A segment closes at this many bytes before compression.
    pub segment_max_bytes: u64,
    /// A segment closes at this age.
    pub segment_max_interval_ms: u64,
    /// So many small segments close per minute at that age; what is more waits.
    pub small_segments_per_minute: u32,
    /// At this age a small segment closes in any case.
    pub small_segment_max_interval_ms: u64,
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
    /// Fewer, larger objects: request costs fall, and a range read needs only blocks.
    pub const DEFAULT_SEGMENT_MAX_BYTES: u64 = 134_217_728;
    /// The recovery point if host and cluster are lost together.
    pub const DEFAULT_SEGMENT_MAX_INTERVAL_MS: u64 = 60_000;
    /// Two a second: as many objects an hour as a few busy partitions make anyway.
    pub const DEFAULT_SMALL_SEGMENTS_PER_MINUTE: u32 = 120;
    /// Times the age of the others: the recovery point of nearly idle partitions, where there are too many of them, if host and
    /// cluster are lost together.
    pub const DEFAULT_SMALL_SEGMENT_INTERVALS: u64 = 10;
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
            level: None,
            segment_max_bytes: Self::DEFAULT_SEGMENT_MAX_BYTES,
            segment_max_interval_ms: Self::DEFAULT_SEGMENT_MAX_INTERVAL_MS,
            small_segments_per_minute: Self::DEFAULT_SMALL_SEGMENTS_PER_MINUTE,
            small_segment_max_interval_ms: Self::DEFAULT_SEGMENT_MAX_INTERVAL_MS
                * Self::DEFAULT_SMALL_SEGMENT_INTERVALS,
            block_bytes: Self::DEFAULT_BLOCK_BYTES,
            upload_concurrency: Self::DEFAULT_UPLOAD_CONCURRENCY,
            manifest_interval_ms: Self::DEFAULT_MANIFEST_INTERVAL_MS,
            hole_grace_ms: Self::DEFAULT_HOLE_GRACE_MS,
        }
    }
}

/// Where a backup by Fetch begins in a topic, as it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Start {
    /// With the first offset that the cluster still has.
    #[default]
    Earliest,
    /// With what is written from then on.
    Latest,
    /// With the first record at or after a moment.
    At(When),
    /// With this offset, in every partition.
    Offset(i64),
}

impl Start {
    /// What to write instead of a wrong start.
    pub const HINT: &str = "write earliest, latest, an offset, or a time (2026-11-21T08:00:00Z, -24h)";

    /// Reads `earliest`, `latest`, an offset, or a moment as RFC 3339 or relative to now.
    ///
    /// # Errors
    /// When it is none of them.
    pub fn parse(text: &str) -> Result<Self, WhenError> {
        let text = text.trim();
        match text {
            "earliest" => Ok(Self::Earliest),
            "latest" => Ok(Self::Latest),
            _ if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) => {
                text.parse().map(Self::Offset).map_err(|_| WhenError::Range)
            }
            _ => When::parse(text).map(Self::At),
        }
    }

    /// The same with its moment fixed; relative ones are counted from `now_ms`.
    pub fn resolve(self, now_ms: i64) -> StartAt {
        match self {
            Self::Earliest => StartAt::Earliest,
            Self::Latest => StartAt::Latest,
            Self::At(when) => StartAt::Timestamp(when.resolve(now_ms)),
            Self::Offset(offset) => StartAt::Offset(offset),
        }
    }
}

/// What a backup by Fetch takes. How its segments are built is said by [`Segmenter`], whose keys may also
/// be written under `backup:`.
#[derive(Debug, Clone, PartialEq)]
pub struct Backup {
    /// Which topics.
    pub topics: TopicFilter,
    /// Go on for ever, instead of ending where the logs end at the start.
    pub continuous: bool,
    /// So long a record waits for others at most, of a continuous backup.
    pub interval: Duration,
    /// Where topics begin.
    pub start: Start,
    /// Where topics begin that are named; names before patterns, the first that matches.
    pub start_by_topic: Vec<(TopicPattern, Start)>,
    /// Ends after so many records.
    pub max_messages: Option<u64>,
    /// Backups that run at the same time in one process.
    pub max_concurrent_backups: usize,
    /// Partitions that are read at the same time.
    pub max_concurrent_partitions: usize,
    /// One response of a broker.
    pub fetch_max_bytes: u64,
    /// How much may be fetched per second; `None` sets no limit.
    pub bytes_per_second: Option<u64>,
    /// Whether the state of the cluster (groups, topic settings, ACLs, quotas, users) is recorded too.
    pub include_metadata: bool,
}

impl Backup {
    /// The recovery point of a continuous backup. Each look makes a segment of every partition that has grown, so this is
    /// what [`Segmenter::DEFAULT_SEGMENT_MAX_INTERVAL_MS`] is for what proxies capture.
    pub const DEFAULT_INTERVAL: Duration = Duration::from_millis(Segmenter::DEFAULT_SEGMENT_MAX_INTERVAL_MS);
    /// Each may take the memory and the cores of a whole process.
    pub const DEFAULT_MAX_CONCURRENT_BACKUPS: usize = 3;
    /// Some wait for the network while others compress.
    pub const DEFAULT_MAX_CONCURRENT_PARTITIONS: usize = 4;
    /// As Kafka's own consumers ask of a partition. What is larger was no faster at hand, and cost a quarter more CPU and
    /// twice the memory, as it does not stay in the processor's caches; over a long way more at once is worth it.
    pub const DEFAULT_FETCH_MAX_BYTES: u64 = 1024 * 1024;
    /// Which topics are meant: of Kafka's own only those that are named, as they mean nothing in another cluster.
    pub fn filter(&self) -> TopicFilter {
        let mut filter = self.topics.clone();
        let names: Vec<&str> = self
            .topics
            .include
            .iter()
            .filter_map(TopicPattern::exact_name)
            .collect();
        let own = Capture::DEFAULT_EXCLUDE
            .iter()
            .filter(|name| !names.contains(name));
        filter.exclude.extend(own.map(|name| TopicPattern::exact(name)));
        filter
    }
}

impl Default for Backup {
    fn default() -> Self {
        Self {
            topics: TopicFilter::default(),
            continuous: false,
            interval: Self::DEFAULT_INTERVAL,
            start: Start::Earliest,
            start_by_topic: Vec::new(),
            max_messages: None,
            max_concurrent_backups: Self::DEFAULT_MAX_CONCURRENT_BACKUPS,
            max_concurrent_partitions: Self::DEFAULT_MAX_CONCURRENT_PARTITIONS,
            fetch_max_bytes: Self::DEFAULT_FETCH_MAX_BYTES,
            bytes_per_second: None,
            include_metadata: true,
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_is_a_word_an_offset_or_a_moment() {
        assert_eq!(Start::parse("earliest"), Ok(Start::Earliest));
        assert_eq!(Start::parse("latest"), Ok(Start::Latest));
        assert_eq!(Start::parse("1200"), Ok(Start::Offset(1200)));
        let hour_ago = Start::parse("-1h").map(|start| start.resolve(7_200_000));
        assert_eq!(hour_ago, Ok(StartAt::Timestamp(3_600_000)));
        assert!(Start::parse("").is_err() && Start::parse("-5").is_err() && Start::parse("newest").is_err());
    }

    #[test]
    fn the_topics_of_kafka_itself_are_taken_when_they_are_named() {
        let of = |include: &[&str]| Backup {
            topics: TopicFilter::new(
                include
                    .iter()
                    .flat_map(|text| TopicPattern::parse(text))
                    .collect(),
                Vec::new(),
            ),
            ..Backup::default()
        };
        assert!(of(&[]).filter().matches("orders") && !of(&[]).filter().matches("__consumer_offsets"));
        assert!(!of(&["*"]).filter().matches("__transaction_state"));
        assert!(of(&["__consumer_offsets"]).filter().matches("__consumer_offsets"));
    }
}
