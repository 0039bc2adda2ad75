//! `manifest.json`: the ledger's state for people and scripts. Derived, and never read back by Teeline.

use crate::ledger::{
    Absence, Incarnation, LedgerState, PartitionAudit, PartitionState, StateObject, Superseded, TopicKey,
};
use crate::ranges::OffsetRange;
use crate::segment::SegmentInfo;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Version of the manifest that is written. Fields may join without a new one.
pub const MANIFEST_VERSION: u32 = 1;

/// The whole manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of the layout.
    pub format_version: u32,
    /// The backup.
    pub backup_id: String,
    /// Time of the first commit, in epoch milliseconds.
    pub created_at: i64,
    /// When this manifest was written, in epoch milliseconds.
    pub updated_at: i64,
    /// The cluster that the backup is bound to.
    pub source_cluster_id: Option<String>,
    /// Brokers of the source.
    pub source_brokers: Vec<String>,
    /// When the source was declared gone for good, in epoch milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_lost_at: Option<i64>,
    /// Retention of the backup; none: kept for ever.
    pub retention_policy: Option<RetentionPolicy>,
    /// Sums over everything.
    pub totals: Totals,
    /// Topics, one entry for each life of a topic.
    pub topics: Vec<Topic>,
    /// Stored pieces of the cluster's state: groups, configurations, access control lists and so on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cluster_state: Vec<ClusterState>,
}

/// A stored piece of the cluster's state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterState {
    /// `groups`, `topic-configs`, `acls`, `quotas` or `scram-users`.
    pub kind: String,
    /// Object key, without the store's prefix.
    pub key: String,
    /// Time of its first line, in epoch milliseconds.
    pub start_timestamp: i64,
    /// Time of its last line, in epoch milliseconds.
    pub end_timestamp: i64,
    /// Whether it begins with the whole state.
    pub full: bool,
    /// Bytes stored.
    pub object_bytes: u64,
    /// Checksum of the object; 8 hex digits.
    pub crc32c: String,
}

/// How long a backup is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetentionPolicy {
    /// Age after which segments may go, in milliseconds.
    pub max_age_ms: Option<i64>,
    /// Size beyond which the oldest segments may go.
    pub max_bytes: Option<u64>,
}

/// Sums over segments; overlapping segments count twice.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Segments.
    pub segment_count: u64,
    /// Records.
    pub record_count: u64,
    /// Bytes stored.
    pub object_bytes: u64,
    /// Bytes of the batches.
    pub uncompressed_bytes: u64,
}

/// One life of a topic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Topic {
    /// Name.
    pub name: String,
    /// Topic incarnation.
    pub topic_id: String,
    /// Number of partitions.
    pub partition_count: i32,
    /// Replicas of a partition, if known.
    pub replication_factor: Option<i16>,
    /// Configuration, if known.
    pub configs: BTreeMap<String, Option<String>>,
    /// Partitions.
    pub partitions: Vec<Partition>,
}

/// One partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Partition {
    /// Its number.
    pub partition_id: i32,
    /// Segments, by start offset.
    pub segments: Vec<Segment>,
    /// What is missing and not explained.
    pub holes: Vec<Offsets>,
    /// What the source does not have any more.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub absent: Vec<Absent>,
    /// Segments whose offsets are provisional.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unconfirmed_segments: Vec<Segment>,
    /// What is stored and not in the log any more.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub superseded: Vec<SupersededOffsets>,
    /// How the latest audit found the source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audit: Option<Audit>,
}

/// Offsets of one segment that are not in the log any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SupersededOffsets {
    /// Key of the segment.
    pub segment: String,
    /// First offset.
    pub start_offset: i64,
    /// Last offset.
    pub end_offset: i64,
    /// Leader epoch of the segment there; none when unknown.
    pub leader_epoch: Option<i32>,
    /// Where that epoch ends in the log; none when contents were compared instead.
    pub epoch_end_offset: Option<i64>,
}

/// How the latest audit found a partition of the source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Audit {
    /// When, in epoch milliseconds.
    pub at: i64,
    /// Where that begins which the backup is to hold.
    pub start_offset: i64,
    /// First offset that the source had.
    pub log_start_offset: i64,
    /// High watermark of the source.
    pub high_watermark: i64,
    /// Leader epoch, if known.
    pub leader_epoch: Option<i32>,
}

/// A run of offsets, both ends included.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offsets {
    /// First offset.
    pub start_offset: i64,
    /// Last offset.
    pub end_offset: i64,
}

/// Offsets that the source does not have any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Absent {
    /// First offset.
    pub start_offset: i64,
    /// Last offset.
    pub end_offset: i64,
    /// Why: `compacted`, `deleted`, `source-lost`, `truncated`, `not-auditable` or `not-wanted`.
    pub reason: String,
    /// First offset that the source still had, if it was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_start_offset: Option<i64>,
    /// Leader epoch in which it was asked, if known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leader_epoch: Option<i32>,
    /// The topic's cleanup policy, if known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cleanup_policy: Option<String>,
}

/// One segment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segment {
    /// Object key, without the store's prefix.
    pub key: String,
    /// First offset.
    pub start_offset: i64,
    /// Last offset.
    pub end_offset: i64,
    /// True lowest timestamp, in epoch milliseconds; -1 if some record has none.
    pub start_timestamp: i64,
    /// True highest timestamp, in epoch milliseconds; -1 if no record has one.
    pub end_timestamp: i64,
    /// Records, transaction markers not counted.
    pub record_count: u64,
    /// Batches, markers included.
    pub batch_count: u64,
    /// `zstd`, `lz4` or `none`.
    pub codec: String,
    /// `tee`, `fetch` or `unconfirmed`.
    pub origin: String,
    /// Bytes stored.
    pub object_bytes: u64,
    /// Bytes of the batches.
    pub uncompressed_bytes: u64,
    /// Checksum of the footer, which holds the checksums of everything else; 8 hex digits.
    pub footer_crc32c: String,
    /// Offsets in between that are not held.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gaps: Vec<Offsets>,
}

impl Manifest {
    /// The manifest of a ledger's state.
    pub fn from_ledger(ledger: &LedgerState, now_ms: i64) -> Manifest {
        let mut totals = Totals::default();
        for segment in ledger.segments() {
            totals.segment_count = totals.segment_count.saturating_add(1);
            totals.record_count = totals.record_count.saturating_add(segment.record_count);
            totals.object_bytes = totals.object_bytes.saturating_add(segment.object_bytes);
            totals.uncompressed_bytes = totals
                .uncompressed_bytes
                .saturating_add(segment.uncompressed_bytes);
        }
        Manifest {
            format_version: MANIFEST_VERSION,
            backup_id: ledger.backup_id().unwrap_or_default().to_owned(),
            created_at: ledger.created_at_ms().unwrap_or(now_ms),
            updated_at: now_ms,
            source_cluster_id: ledger.cluster_id().map(str::to_owned),
            source_brokers: ledger.source_brokers().to_vec(),
            source_lost_at: ledger.source_lost_at_ms(),
            retention_policy: None,
            totals,
            topics: ledger
                .topics()
                .into_iter()
                .map(|(key, topic)| Topic::new(key, topic))
                .collect(),
            cluster_state: ledger.state_objects().iter().map(ClusterState::new).collect(),
        }
    }

    /// The file's content: indented JSON with a final newline.
    pub fn to_json(&self) -> Result<String, serde_json::Error> {
        Ok(serde_json::to_string_pretty(self)? + "\n")
    }

    /// Reads a manifest, for tools; unknown fields are ignored.
    pub fn from_json(text: &str) -> Result<Manifest, serde_json::Error> {
        serde_json::from_str(text)
    }
}

impl Topic {
    fn new(key: &TopicKey, topic: &Incarnation) -> Topic {
        let snapshot = topic.snapshot();
        Topic {
            name: key.name.clone(),
            topic_id: key.incarnation.hyphenated().to_string(),
            partition_count: topic.partition_count(),
            replication_factor: snapshot
                .map(|snapshot| snapshot.replication_factor)
                .filter(|factor| *factor > 0),
            configs: snapshot
                .map(|snapshot| snapshot.configs.iter().cloned().collect())
                .unwrap_or_default(),
            partitions: topic
                .partitions()
                .map(|(number, partition)| Partition::new(number, partition))
                .collect(),
        }
    }
}

impl Partition {
    fn new(partition_id: i32, partition: &PartitionState) -> Partition {
        Partition {
            partition_id,
            segments: partition.segments().iter().map(Segment::new).collect(),
            holes: partition.holes().iter().map(Offsets::new).collect(),
            absent: partition.absences().iter().map(Absent::new).collect(),
            unconfirmed_segments: partition.unconfirmed().iter().map(Segment::new).collect(),
            superseded: partition
                .superseded()
                .iter()
                .map(SupersededOffsets::new)
                .collect(),
            audit: partition.audit().map(Audit::new),
        }
    }
}

impl Offsets {
    fn new(range: &OffsetRange) -> Offsets {
        Offsets {
            start_offset: range.first,
            end_offset: range.last,
        }
    }
}

impl Absent {
    fn new(absence: &Absence) -> Absent {
        Absent {
            start_offset: absence.first_offset,
            end_offset: absence.last_offset,
            reason: absence.reason.as_str().to_owned(),
            log_start_offset: known(absence.evidence.log_start_offset),
            leader_epoch: known(absence.evidence.leader_epoch),
            cleanup_policy: Some(absence.evidence.cleanup_policy.clone()).filter(|text| !text.is_empty()),
        }
    }
}

impl SupersededOffsets {
    fn new(superseded: &Superseded) -> SupersededOffsets {
        SupersededOffsets {
            segment: superseded.segment.clone(),
            start_offset: superseded.first_offset,
            end_offset: superseded.last_offset,
            leader_epoch: known(superseded.leader_epoch),
            epoch_end_offset: known(superseded.end_offset),
        }
    }
}

impl Audit {
    fn new(audit: &PartitionAudit) -> Audit {
        Audit {
            at: audit.at_ms,
            start_offset: audit.start_offset,
            log_start_offset: audit.log_start_offset,
            high_watermark: audit.high_watermark,
            leader_epoch: known(audit.leader_epoch),
        }
    }
}

impl ClusterState {
    fn new(object: &StateObject) -> ClusterState {
        ClusterState {
            kind: object.kind.to_string(),
            key: object.key.clone(),
            start_timestamp: object.first_at_ms,
            end_timestamp: object.last_at_ms,
            full: object.full,
            object_bytes: object.bytes,
            crc32c: format!("{:08x}", object.crc32c),
        }
    }
}

/// In the ledger -1 stands for "not known".
fn known<T: PartialOrd + From<i8>>(value: T) -> Option<T> {
    (value >= T::from(0)).then_some(value)
}

impl Segment {
    fn new(info: &SegmentInfo) -> Segment {
        Segment {
            key: info.key.clone(),
            start_offset: info.start_offset,
            end_offset: info.end_offset,
            start_timestamp: info.timestamp_min,
            end_timestamp: info.timestamp_max,
            record_count: info.record_count,
            batch_count: info.batch_count,
            codec: info.codec.as_str().to_owned(),
            origin: info.identity.origin.as_str().to_owned(),
            object_bytes: info.object_bytes,
            uncompressed_bytes: info.uncompressed_bytes,
            footer_crc32c: format!("{:08x}", info.footer_crc32c),
            gaps: info.gaps.iter().map(Offsets::new).collect(),
        }
    }
}
