//! What a restore will do, decided before it does anything.
//!
//! A pure function of the ledger and the request: no store, no cluster, no clock. Whole segments outside the window
//! are sorted out here; blocks within segments later, by the footers.

mod contested;
mod lost;
mod partition;
mod selection;
mod view;

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use teeline_archive::ledger::{Incarnation, LedgerState};
use teeline_archive::segment::SegmentInfo;
use teeline_config::TopicFilter;
use uuid::Uuid;

use crate::error::RestorerError;
use crate::target::settings::Settings;
use crate::window::Window;

pub(crate) use contested::{held_twice, touches};
pub use lost::Lost;
pub use partition::PartitionPlan;
use partition::plan_partition;
pub(crate) use partition::{blocks_of, disputes, open_at_the_end};
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
    /// Only one class of records, apart from the rest.
    pub only: Option<Only>,
}

/// A class of records that is no part of the log, or not for certain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Only {
    /// Acknowledged by the source, and lost by it to a later leader
    Superseded,
    /// Captured, and never confirmed
    Unconfirmed,
    /// Rivals at the same offsets, where nothing tells which of them the source kept
    Disputed,
}

impl Only {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Superseded => "superseded",
            Self::Unconfirmed => "unconfirmed",
            Self::Disputed => "disputed",
        }
    }
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
    /// Which class of records, if not the log itself.
    pub only: Option<Only>,
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

/// Makes the plan.
pub fn plan(state: &LedgerState, backup_id: &str, request: &Request) -> Result<Plan, RestorerError> {
    let choices = selection::choose(state, request)?;
    let topics = choices.into_iter().map(|choice| plan_topic(choice, request));
    let topics = match request.only {
        None => topics.collect(),
        Some(only) => apart(only, topics.filter(|topic| !topic.is_empty()).collect())?,
    };
    Ok(Plan {
        backup_id: backup_id.to_owned(),
        source_cluster_id: state.cluster_id().map(str::to_owned),
        window: request.window,
        only: request.only,
        topics,
    })
}

/// Records that are no part of the log must not get into a copy of it: they go into topics of their own.
fn apart(only: Only, topics: Vec<TopicPlan>) -> Result<Vec<TopicPlan>, RestorerError> {
    let only = only.as_str();
    if topics.is_empty() {
        let text = format!("the selected topics have no {only} records; nothing to restore");
        return Err(RestorerError::Usage(text));
    }
    let unmapped = topics.iter().filter(|topic| topic.name == topic.target);
    let maps: Vec<String> = unmapped
        .map(|topic| format!("--map {0}={0}_{only}", topic.name))
        .collect();
    if maps.is_empty() {
        return Ok(topics);
    }
    Err(RestorerError::Usage(format!(
        "--only {only} restores records apart from the rest: give each topic another name ({})",
        maps.join(" ")
    )))
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
