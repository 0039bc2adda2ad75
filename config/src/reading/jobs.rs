//! Reads what the segmenter, a backup and a restore are told to do.

use crate::jobs::{Backup, Compression, Restore, Segmenter, Start};
use crate::pattern::{TopicPattern, is_topic_name};
use crate::section::Section;
use crate::when::When;

use super::endpoint::HOUR_MS;

/// How segments are built: read from `segmenter:`, or from `backup:` with the same keys.
#[derive(Default)]
pub(super) struct SegmentKeys {
    compression: Option<Compression>,
    level: Option<i32>,
    segment_max_bytes: Option<u64>,
    segment_max_interval_ms: Option<u64>,
    block_bytes: Option<u64>,
    upload_concurrency: Option<usize>,
}

fn segment_keys(section: &mut Section<'_>) -> SegmentKeys {
    let choices = [
        ("zstd", Compression::Zstd),
        ("lz4", Compression::Lz4),
        ("none", Compression::None),
    ];
    let keys = SegmentKeys {
        compression: section.choice("compression", &choices, &["gzip", "snappy", "auto"]),
        level: section.number("compression_level", 1, 19),
        segment_max_bytes: section.size("segment_max", "segment_max_bytes", 64 << 10, 16 << 30),
        segment_max_interval_ms: section.millis(
            "segment_max_interval",
            "segment_max_interval_ms",
            100,
            24 * HOUR_MS,
        ),
        block_bytes: section.size("block", "block_bytes", 4 << 10, 64 << 20),
        upload_concurrency: section.number("upload_concurrency", 1, 64),
    };
    if keys.level.is_some() && keys.compression.is_some_and(|codec| codec != Compression::Zstd) {
        section.problem(
            "compression_level",
            "only zstd has levels",
            "remove the key, or set compression: zstd",
        );
    }
    if let (Some(segment), Some(block)) = (keys.segment_max_bytes, keys.block_bytes)
        && segment < block
    {
        section.problem(
            "block_bytes",
            "a block is larger than a segment",
            "make it smaller than segment_max_bytes",
        );
    }
    keys
}

pub(super) fn segmenter(top: &mut Section<'_>, from_backup: Option<SegmentKeys>) -> Segmenter {
    let default = Segmenter::default();
    let (mut embedded, mut manifest_interval_ms, mut hole_grace_ms) = (None, None, None);
    let (mut small_per_minute, mut small_interval_ms) = (None, None);
    let own = top.section("segmenter").map(|mut section| {
        embedded = section.boolean("embedded");
        manifest_interval_ms = section.millis("manifest_interval", "manifest_interval_ms", 100, 24 * HOUR_MS);
        hole_grace_ms = section.millis("hole_grace", "hole_grace_ms", 0, 24 * HOUR_MS);
        small_per_minute = section.number("small_segments_per_minute", 0, 1_000_000);
        small_interval_ms = section.millis(
            "small_segment_max_interval",
            "small_segment_max_interval_ms",
            100,
            24 * HOUR_MS,
        );
        section.not_yet(&["retention", "encryption", "recipients"]);
        let keys = segment_keys(&mut section);
        section.finish();
        keys
    });
    let either = |keys: &SegmentKeys| keys.compression.is_some() || keys.segment_max_bytes.is_some();
    if own.as_ref().is_some_and(either) && from_backup.as_ref().is_some_and(either) {
        top.problem(
            "segmenter",
            "segments are described twice, also in backup",
            "keep one of the two",
        );
    }
    let keys = own.unwrap_or_default();
    let other = from_backup.unwrap_or_default();
    let block_bytes = keys.block_bytes.or(other.block_bytes);
    let segment_max_bytes = keys
        .segment_max_bytes
        .or(other.segment_max_bytes)
        .unwrap_or(default.segment_max_bytes);
    let segment_max_interval_ms = keys
        .segment_max_interval_ms
        .or(other.segment_max_interval_ms)
        .unwrap_or(default.segment_max_interval_ms);
    Segmenter {
        embedded: embedded.unwrap_or(default.embedded),
        compression: keys
            .compression
            .or(other.compression)
            .unwrap_or(default.compression),
        level: keys.level.or(other.level),
        segment_max_bytes,
        segment_max_interval_ms,
        small_segments_per_minute: small_per_minute.unwrap_or(default.small_segments_per_minute),
        small_segment_max_interval_ms: small_interval_ms.unwrap_or_else(|| {
            segment_max_interval_ms.saturating_mul(Segmenter::DEFAULT_SMALL_SEGMENT_INTERVALS)
        }),
        // A default block must not be larger than a segment that was asked to be small.
        block_bytes: block_bytes.unwrap_or(default.block_bytes.min(segment_max_bytes)),
        upload_concurrency: keys
            .upload_concurrency
            .or(other.upload_concurrency)
            .unwrap_or(default.upload_concurrency),
        manifest_interval_ms: manifest_interval_ms.unwrap_or(default.manifest_interval_ms),
        hole_grace_ms: hole_grace_ms.unwrap_or(default.hole_grace_ms),
    }
}

/// Backup keys of the requirements that nothing honours so far.
const BACKUP_NOT_YET: [&str; 6] = [
    "include_offset_headers",
    "consumer_groups",
    "retention",
    "schedule",
    "encryption",
    "storage_path",
];

pub(super) fn backup(section: Option<Section<'_>>) -> (Backup, Option<SegmentKeys>) {
    let default = Backup::default();
    let Some(mut section) = section else {
        return (default, None);
    };
    section.not_yet(&BACKUP_NOT_YET);
    let start_offset = section.parsed("start_offset", start_offset, START_OFFSET_HINT);
    let start_time = section.when("start_timestamp").map(Start::At);
    if section.has("start_offset") && section.has("start_timestamp") {
        section.problem(
            "start_timestamp",
            "the start is given twice, also as start_offset",
            "remove one of the two",
        );
    }
    let backup = Backup {
        topics: section.topics("topics").unwrap_or(default.topics),
        continuous: section.boolean("continuous").unwrap_or(default.continuous),
        interval: section
            .duration("interval", "interval_ms", 100, HOUR_MS)
            .unwrap_or(default.interval),
        start: start_offset.or(start_time).unwrap_or(default.start),
        start_by_topic: start_by_topic(&mut section),
        max_messages: section.number("max_messages", 1, i64::MAX),
        max_concurrent_backups: section
            .number("max_concurrent_backups", 1, 64)
            .unwrap_or(default.max_concurrent_backups),
        max_concurrent_partitions: section
            .number("max_concurrent_partitions", 1, 256)
            .unwrap_or(default.max_concurrent_partitions),
        fetch_max_bytes: section
            .size("fetch_max", "fetch_max_bytes", 64 << 10, 64 << 20)
            .unwrap_or(default.fetch_max_bytes),
        bytes_per_second: section.size("rate_limit", "bytes_per_second", 64 << 10, 1 << 40),
        include_metadata: section
            .boolean("include_metadata")
            .unwrap_or(default.include_metadata),
    };
    let keys = segment_keys(&mut section);
    section.finish();
    (backup, Some(keys))
}

const START_OFFSET_HINT: &str = "write earliest, latest or an offset; a time belongs into start_timestamp";

fn start_offset(text: &str) -> Result<Start, &'static str> {
    match Start::parse(text) {
        Ok(start @ (Start::Earliest | Start::Latest | Start::Offset(_))) => Ok(start),
        _ => Err("is not a start offset"),
    }
}

fn start_by_topic(section: &mut Section<'_>) -> Vec<(TopicPattern, Start)> {
    const KEY: &str = "start_offsets";
    let mut starts = Vec::new();
    for (topic, start) in section.table(KEY).unwrap_or_default() {
        match (TopicPattern::parse(&topic), Start::parse(&start)) {
            (Ok(pattern), Ok(start)) => starts.push((pattern, start)),
            (Err(error), _) => section.problem(
                KEY,
                format!("{topic:?}: {error}"),
                "write a name, or a glob as `orders-*`",
            ),
            (_, Err(error)) => section.problem(KEY, format!("{topic}: {error}"), Start::HINT),
        }
    }
    // What is said of one topic counts for more than what is said of many.
    starts.sort_by_key(|(pattern, _)| pattern.exact_name().is_none());
    starts
}

/// Restore keys of the requirements that nothing honours so far.
const RESTORE_NOT_YET: [&str; 13] = [
    "partitions",
    "partition_mapping",
    "include_original_offset_header",
    "include_offset_headers",
    "include_original_headers",
    "rate_limit_records_per_sec",
    "rate_limit_bytes_per_sec",
    "max_concurrent_partitions",
    "consumer_groups",
    "consumer_group_strategy",
    "schema_mapping",
    "shards",
    "encryption",
];

pub(super) fn restore(section: Option<Section<'_>>) -> Restore {
    let default = Restore::default();
    let Some(mut section) = section else {
        return default;
    };
    section.not_yet(&RESTORE_NOT_YET);
    let topics = section.topics("topics").unwrap_or_default();
    let topic_mapping = section.table("topic_mapping").unwrap_or_default();
    check_mapping(&section, &topic_mapping);
    let time_window_start = section.when("time_window_start");
    let time_window_end = section.when("time_window_end");
    let empty = match (time_window_start, time_window_end) {
        (Some(When::At(start)), Some(When::At(end))) => end <= start,
        (Some(When::FromNow(start)), Some(When::FromNow(end))) => end <= start,
        _ => false,
    };
    if empty {
        let hint = "the start is inclusive, the end exclusive: make the end later";
        section.problem(
            "time_window_end",
            "is not after time_window_start, so no record is meant",
            hint,
        );
    }
    let mut boolean = |key, default| section.boolean(key).unwrap_or(default);
    let restore = Restore {
        topics,
        topic_mapping,
        time_window_start,
        time_window_end,
        dry_run: boolean("dry_run", default.dry_run),
        validate_checksum: boolean("validate_checksum", default.validate_checksum),
        create_topics: boolean("create_topics", default.create_topics),
        allow_source: boolean("allow_source", default.allow_source),
        allow_nonempty: boolean("allow_nonempty", default.allow_nonempty),
        include_quarantined: boolean("include_quarantined", default.include_quarantined),
    };
    section.finish();
    restore
}

fn check_mapping(section: &Section<'_>, mapping: &std::collections::BTreeMap<String, String>) {
    let mut taken = std::collections::BTreeMap::new();
    for (from, to) in mapping {
        for name in [from, to].into_iter().filter(|name| !is_topic_name(name)) {
            let message = format!("{name:?} cannot be the name of a topic");
            section.problem(
                "topic_mapping",
                message,
                "patterns are not possible here; name each topic",
            );
        }
        if let Some(other) = taken.insert(to, from) {
            let message = format!("{other} and {from} would both be restored into {to}");
            section.problem("topic_mapping", message, "give each a topic of its own");
        }
    }
}
