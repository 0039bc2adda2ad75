//! What a restore will do, decided before it does anything.
//!
//! A pure function of the ledger and the request: no store, no cluster, no clock. Whole segments outside the window
//! are sorted out here; blocks within segments later, by the footers.

mod contested;
mod selection;
mod view;

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use teeline_archive::ledger::{AbsenceReason, Incarnation, LedgerState, PartitionState};
use teeline_archive::segment::{SegmentInfo, UndecidedTransaction};
use teeline_archive::{OffsetRange, OffsetSet};
use teeline_config::TopicFilter;
use uuid::Uuid;

use crate::error::RestorerError;
use crate::target::settings::Settings;
use crate::transactions::Evidence;
use crate::window::{Position, Window};

pub(crate) use contested::touches;
use selection::Choice;
pub(crate) use view::show_holes;
pub use view::{PartitionView, PlanView, TargetView, TopicView, render};

/// What is asked for.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// Which topics, by their names in the archive.
    pub topics: TopicFilter,
    /// Names in the target, by names in the archive.
    pub mapping: BTreeMap<String, String>,
    /// Which life of a topic, where not the newest: by topic, an id or the beginning of one.
    pub incarnations: BTreeMap<String, String>,
    /// Which time.
    pub window: Window,
    /// Whether doubtful unconfirmed records are wanted too.
    pub include_quarantined: bool,
}

/// What will be done.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The backup.
    pub backup_id: String,
    /// The cluster it comes from.
    pub source_cluster_id: Option<String>,
    /// Which time.
    pub window: Window,
    /// Topics, by name.
    pub topics: Vec<TopicPlan>,
}

/// One topic of a plan.
#[derive(Debug, Clone)]
pub struct TopicPlan {
    /// Its name in the archive.
    pub name: String,
    /// Its name in the target.
    pub target: String,
    /// Which of its lives.
    pub incarnation: Uuid,
    /// All of its lives that the archive knows, oldest first.
    pub lives: Vec<Life>,
    /// Partitions it had.
    pub partition_count: i32,
    /// Replicas of each, if known.
    pub replication_factor: Option<i16>,
    /// The settings it had.
    pub settings: Settings,
    /// Partitions of which there is something.
    pub partitions: Vec<PartitionPlan>,
}

/// One life of a topic: deleted and created again, it gets another id.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Life {
    /// Topic id.
    #[serde(serialize_with = "as_text")]
    pub incarnation: Uuid,
    /// When it was first seen, epoch milliseconds.
    pub first_seen_ms: Option<i64>,
    /// Records held of it.
    pub records: u64,
    /// Whether this is the one restored.
    pub chosen: bool,
}

fn as_text<S: serde::Serializer>(id: &Uuid, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(id)
}

/// One partition of a plan.
#[derive(Debug, Clone)]
pub struct PartitionPlan {
    /// Its number.
    pub partition: i32,
    /// Segments with records of the window, and those that claim offsets of these.
    pub segments: Vec<Arc<SegmentInfo>>,
    /// Offsets that several segments claim: their blocks are read whatever their timestamps.
    pub contested: OffsetSet,
    /// Segments that may hold the markers of their transactions.
    pub marker_segments: Vec<Arc<SegmentInfo>>,
    /// Unconfirmed segments that will be restored.
    pub unconfirmed: Vec<Arc<SegmentInfo>>,
    /// Records of doubtful unconfirmed segments that will not.
    pub records_quarantined: u64,
    /// Offsets held.
    pub held: OffsetSet,
    /// Offsets missing, for no good reason.
    pub holes: Vec<OffsetRange>,
    /// Ends of transactions known without their markers.
    pub evidence: Vec<Evidence>,
    /// Transactions of which the archive certainly does not know the end.
    pub undecided: Vec<UndecidedTransaction>,
    /// At most so many records will be restored.
    pub records_max: u64,
    /// Bytes of the archive that will be read.
    pub archive_bytes: u64,
}

/// Makes the plan.
pub fn plan(state: &LedgerState, backup_id: &str, request: &Request) -> Result<Plan, RestorerError> {
    let choices = selection::choose(state, request)?;
    let topics = choices
        .into_iter()
        .map(|choice| plan_topic(choice, request))
        .collect();
    Ok(Plan {
        backup_id: backup_id.to_owned(),
        source_cluster_id: state.cluster_id().map(str::to_owned),
        window: request.window,
        topics,
    })
}

fn plan_topic(choice: Choice<'_>, request: &Request) -> TopicPlan {
    let Choice {
        name,
        target,
        incarnation,
        lives,
        topic,
    } = choice;
    let snapshot = topic.snapshot();
    let settings = snapshot
        .map(|snapshot| snapshot.configs.iter().cloned().collect())
        .unwrap_or_default();
    TopicPlan {
        name: name.to_owned(),
        target,
        incarnation,
        lives,
        partition_count: topic.partition_count(),
        replication_factor: snapshot
            .map(|snapshot| snapshot.replication_factor)
            .filter(|factor| *factor > 0),
        settings,
        partitions: plan_partitions(topic, request),
    }
}

fn plan_partitions(topic: &Incarnation, request: &Request) -> Vec<PartitionPlan> {
    topic
        .partitions()
        .map(|(number, partition)| plan_partition(number, partition, request))
        .collect()
}

fn plan_partition(number: i32, partition: &PartitionState, request: &Request) -> PartitionPlan {
    // Segments of markers only hold nothing to restore; their markers are found by their footers.
    let wanted = |segment: &&SegmentInfo| {
        let position = request
            .window
            .position(segment.timestamp_min, segment.timestamp_max);
        segment.record_count > 0 && position != Position::Outside
    };
    let contested = contested::contested(partition.segments(), |segment| wanted(&segment));
    // What else claims the offsets of wanted records may be what the source kept, whatever its timestamps.
    let rivals = |segment: &&SegmentInfo| contested::touches(&contested, segment.range());
    let segments: Vec<_> = partition
        .segments()
        .iter()
        .filter(|segment| wanted(segment) || rivals(segment))
        .cloned()
        .map(Arc::new)
        .collect();
    let first_wanted = segments
        .iter()
        .map(|segment| segment.start_offset)
        .min()
        .unwrap_or(i64::MAX);
    let transactional = segments.iter().any(|segment| segment.transactional_count > 0);
    let marks = |segment: &&SegmentInfo| {
        transactional && segment.control_count > 0 && segment.end_offset >= first_wanted
    };
    let marker_segments: Vec<_> = partition
        .segments()
        .iter()
        .filter(marks)
        .cloned()
        .map(Arc::new)
        .collect();
    let (quarantined, unconfirmed): (Vec<_>, Vec<_>) = partition
        .unconfirmed()
        .iter()
        .filter(wanted)
        .partition(|segment| segment.quarantined && !request.include_quarantined);
    let unconfirmed: Vec<_> = unconfirmed.into_iter().cloned().map(Arc::new).collect();
    let all = || segments.iter().chain(&unconfirmed);
    PartitionPlan {
        partition: number,
        records_quarantined: quarantined.iter().map(|segment| segment.record_count).sum(),
        held: partition.held(),
        holes: holes(partition),
        evidence: evidence(partition),
        undecided: undecided(partition, &segments),
        records_max: all().map(|segment| segment.record_count).sum(),
        archive_bytes: all().map(|segment| segment.object_bytes).sum(),
        segments,
        contested,
        marker_segments,
        unconfirmed,
    }
}

/// What is missing between the first and the last offset held. What compaction or retention took on the source is
/// not missing: the topic would not have it either. What went down with the source is.
fn holes(partition: &PartitionState) -> Vec<OffsetRange> {
    let held = partition.held();
    let (Some(first), Some(last)) = (held.first(), held.last()) else {
        return Vec::new();
    };
    let mut explained = held;
    let absences = partition.absences().iter();
    absences
        .filter(|absence| absence.reason != AbsenceReason::SourceLost)
        .for_each(|absence| explained.insert(absence.range()));
    explained.holes(OffsetRange { first, last })
}

fn evidence(partition: &PartitionState) -> Vec<Evidence> {
    let known = partition.evidence().iter();
    known
        .map(|entry| Evidence {
            producer_id: entry.producer_id,
            producer_epoch: entry.producer_epoch,
            first_offset: entry.first_offset,
            last_offset: entry.last_offset,
            commit: entry.commit,
        })
        .collect()
}

/// Transactions that were open when their segment closed, and that neither a marker behind them nor evidence can have
/// ended. Others may turn out undecided while restoring.
fn undecided(partition: &PartitionState, segments: &[Arc<SegmentInfo>]) -> Vec<UndecidedTransaction> {
    let markers_up_to = partition
        .segments()
        .iter()
        .filter(|segment| segment.control_count > 0)
        .map(|segment| segment.end_offset)
        .max()
        .unwrap_or(-1);
    let evident = |open: &UndecidedTransaction| {
        partition.evidence().iter().any(|entry| {
            entry.producer_id == open.producer_id
                && entry.producer_epoch == open.producer_epoch
                && entry.first_offset <= open.last_offset
                && open.first_offset <= entry.last_offset
        })
    };
    let open = segments.iter().flat_map(|segment| &segment.undecided);
    open.filter(|open| open.last_offset > markers_up_to && !evident(open))
        .copied()
        .collect()
}

impl Plan {
    /// At most so many records.
    pub fn records_max(&self) -> u64 {
        self.partitions()
            .map(|(_, partition)| partition.records_max)
            .sum()
    }

    /// Bytes of the archive to be read.
    pub fn archive_bytes(&self) -> u64 {
        self.partitions()
            .map(|(_, partition)| partition.archive_bytes)
            .sum()
    }

    /// Every partition, with its topic.
    pub fn partitions(&self) -> impl Iterator<Item = (&TopicPlan, &PartitionPlan)> {
        self.topics
            .iter()
            .flat_map(|topic| topic.partitions.iter().map(move |partition| (topic, partition)))
    }

    /// Segments to be read, unconfirmed ones included.
    pub fn segments(&self) -> impl Iterator<Item = &Arc<SegmentInfo>> {
        self.partitions()
            .flat_map(|(_, partition)| partition.segments.iter().chain(&partition.unconfirmed))
    }
}

impl TopicPlan {
    /// Whether there is nothing to restore but the topic itself.
    pub fn is_empty(&self) -> bool {
        self.partitions.iter().all(PartitionPlan::is_empty)
    }
}

impl PartitionPlan {
    /// Whether there is anything to restore.
    pub fn is_empty(&self) -> bool {
        self.segments.is_empty() && self.unconfirmed.is_empty()
    }
}
