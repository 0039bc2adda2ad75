//! The plan as people and scripts see it.

use std::fmt::Write as _;

use serde::Serialize;
use teeline_archive::OffsetRange;

use super::{Life, Only, PartitionPlan, Plan, TopicPlan};
use crate::figures;
use crate::window::{Window, show_ms};

/// A plan together with what was found in the target.
#[derive(Debug, Clone, Serialize)]
pub struct PlanView {
    /// `plan`, to tell it from other lines.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// The backup.
    pub backup_id: String,
    /// The cluster it comes from.
    pub source_cluster_id: Option<String>,
    /// The target.
    pub target: TargetView,
    /// Which time.
    pub window: Window,
    /// Which class of records, if not the log itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub only: Option<Only>,
    /// Topics.
    pub topics: Vec<TopicView>,
    /// At most so many records, all topics together.
    pub records_max: u64,
    /// Bytes of the archive to be read.
    pub archive_bytes: u64,
    /// What to know before.
    pub warnings: Vec<String>,
    /// Why this plan will not be carried out as it stands.
    pub refused: Vec<String>,
}

/// The target, as far as the plan concerns it.
#[derive(Debug, Clone, Default, Serialize)]
pub struct TargetView {
    /// Where it is.
    pub bootstrap: String,
    /// Its cluster id.
    pub cluster_id: Option<String>,
    /// Brokers that are alive.
    pub brokers: usize,
}

/// One topic.
#[derive(Debug, Clone, Serialize)]
pub struct TopicView {
    /// Its name in the archive.
    pub name: String,
    /// Its name in the target.
    pub target: String,
    /// Which of its lives.
    pub incarnation: String,
    /// All lives that the archive knows, oldest first.
    pub lives: Vec<Life>,
    /// Whether the target topic has to be created.
    pub create: bool,
    /// Partitions that the target topic has or gets.
    pub target_partitions: i32,
    /// Replicas of each that it has or gets; -1 for the target's default.
    pub target_replication_factor: i16,
    /// What will be done to it, and what to know.
    pub notes: Vec<String>,
    /// Partitions.
    pub partitions: Vec<PartitionView>,
}

/// One partition.
#[derive(Debug, Clone, Serialize)]
pub struct PartitionView {
    /// Its number.
    pub partition: i32,
    /// Segments to be read.
    pub segments: usize,
    /// First offset held.
    pub first_offset: Option<i64>,
    /// Last offset held.
    pub last_offset: Option<i64>,
    /// At most so many records.
    pub records_max: u64,
    /// Bytes of the archive to be read.
    pub archive_bytes: u64,
    /// Of the records, those in unconfirmed segments.
    pub records_unconfirmed: u64,
    /// Doubtful unconfirmed records that are left out.
    pub records_quarantined: u64,
    /// Records left out with segments of which the log has lost everything.
    pub records_superseded: u64,
    /// Offsets missing: first and last.
    pub holes: Vec<(i64, i64)>,
    /// Transactions of which the archive does not know the end.
    pub transactions_undecided: usize,
}

impl TopicView {
    /// What the archive says; the target's part is filled in by whoever looked there.
    pub fn of(topic: &TopicPlan) -> Self {
        Self {
            name: topic.name.clone(),
            target: topic.target.clone(),
            incarnation: topic.incarnation.to_string(),
            lives: topic.lives.clone(),
            create: false,
            target_partitions: topic.partition_count,
            target_replication_factor: topic.replication_factor.unwrap_or(-1),
            notes: Vec::new(),
            partitions: topic.partitions.iter().map(PartitionView::of).collect(),
        }
    }
}

impl PartitionView {
    fn of(partition: &PartitionPlan) -> Self {
        Self {
            partition: partition.partition,
            segments: partition.segments.len() + partition.unconfirmed.len(),
            first_offset: partition.held.first(),
            last_offset: partition.held.last(),
            records_max: partition.records_max,
            archive_bytes: partition.archive_bytes,
            records_unconfirmed: partition
                .unconfirmed
                .iter()
                .map(|segment| segment.record_count)
                .sum(),
            records_quarantined: partition.records_quarantined,
            records_superseded: partition.records_superseded,
            holes: partition
                .holes
                .iter()
                .map(|hole| (hole.first, hole.last))
                .collect(),
            transactions_undecided: partition.undecided.len(),
        }
    }
}

impl PlanView {
    /// What the archive says.
    pub fn of(plan: &Plan, target: TargetView) -> Self {
        Self {
            kind: "plan",
            backup_id: plan.backup_id.clone(),
            source_cluster_id: plan.source_cluster_id.clone(),
            target,
            window: plan.window,
            only: plan.only,
            topics: plan.topics.iter().map(TopicView::of).collect(),
            records_max: plan.records_max(),
            archive_bytes: plan.archive_bytes(),
            warnings: Vec::new(),
            refused: Vec::new(),
        }
    }
}

/// The plan as text.
pub fn render(view: &PlanView) -> String {
    let mut text = String::new();
    // Writing into a String cannot fail.
    let _ = write_head(&mut text, view);
    for topic in &view.topics {
        let _ = write_topic(&mut text, topic);
    }
    let up_to = if view.window.is_all() { "" } else { "up to " };
    let _ = writeln!(
        text,
        "\nin all: {up_to}{} in {}, {} of the archive to read",
        figures::of(view.records_max, "record"),
        figures::of(view.topics.len() as u64, "topic"),
        figures::bytes(view.archive_bytes),
    );
    for warning in &view.warnings {
        let _ = writeln!(text, "warning: {warning}");
    }
    for reason in &view.refused {
        let _ = writeln!(text, "refused: {reason}");
    }
    text
}

fn write_head(text: &mut String, view: &PlanView) -> std::fmt::Result {
    let id = |id: &Option<String>| id.clone().unwrap_or_else(|| "unknown".to_owned());
    writeln!(
        text,
        "backup  {} of cluster {}",
        view.backup_id,
        id(&view.source_cluster_id)
    )?;
    writeln!(
        text,
        "target  {}, cluster {}, {}",
        view.target.bootstrap,
        id(&view.target.cluster_id),
        figures::of(view.target.brokers as u64, "broker"),
    )?;
    writeln!(text, "window  {}", view.window)?;
    if let Some(only) = view.only {
        writeln!(text, "only    {} records, apart from the log", only.as_str())?;
    }
    Ok(())
}

fn write_topic(text: &mut String, topic: &TopicView) -> std::fmt::Result {
    let arrow = if topic.name == topic.target {
        String::new()
    } else {
        format!(" -> {}", topic.target)
    };
    writeln!(text, "\ntopic {}{arrow}", topic.name)?;
    if topic.lives.len() > 1 {
        for life in &topic.lives {
            let first = life.first_seen_ms.map_or_else(|| "unknown".to_owned(), show_ms);
            let chosen = if life.chosen { "  <- this one" } else { "" };
            let records = figures::of(life.records, "record");
            writeln!(
                text,
                "  incarnation {}, first seen {first}, {records}{chosen}",
                life.incarnation
            )?;
        }
    }
    for note in &topic.notes {
        writeln!(text, "  {note}")?;
    }
    if topic.partitions.is_empty() {
        return writeln!(text, "  the archive holds no record of it");
    }
    let head = ["partition", "offsets", "segments", "records", "bytes", "remarks"];
    let mut rows = vec![head.iter().map(|cell| (*cell).to_owned()).collect::<Vec<_>>()];
    rows.extend(topic.partitions.iter().map(row));
    for line in figures::table(&rows).lines() {
        writeln!(text, "  {line}")?;
    }
    Ok(())
}

fn row(partition: &PartitionView) -> Vec<String> {
    let offsets = match (partition.first_offset, partition.last_offset) {
        (Some(first), Some(last)) => format!("{first}..={last}"),
        _ => "none".to_owned(),
    };
    vec![
        partition.partition.to_string(),
        offsets,
        partition.segments.to_string(),
        figures::count(partition.records_max),
        figures::bytes(partition.archive_bytes),
        remarks(partition).join(", "),
    ]
}

fn remarks(partition: &PartitionView) -> Vec<String> {
    let mut remarks = Vec::new();
    if !partition.holes.is_empty() {
        remarks.push(show_holes(&partition.holes));
    }
    if partition.transactions_undecided > 0 {
        remarks.push(figures::of(
            partition.transactions_undecided as u64,
            "open transaction",
        ));
    }
    if partition.records_unconfirmed > 0 {
        remarks.push(figures::of(partition.records_unconfirmed, "unconfirmed record"));
    }
    if partition.records_superseded > 0 {
        remarks.push(format!(
            "{} left out",
            figures::of(partition.records_superseded, "superseded record")
        ));
    }
    if partition.records_quarantined > 0 {
        remarks.push(format!(
            "{} left out",
            figures::of(partition.records_quarantined, "quarantined record")
        ));
    }
    remarks
}

/// At most so many holes are named in a line.
const HOLES_NAMED: usize = 3;

/// Holes in words: `missing offsets 10..=12, 20..=20 and 4 more holes`.
pub(crate) fn show_holes(holes: &[(i64, i64)]) -> String {
    let ranges = holes.iter().take(HOLES_NAMED);
    let named: Vec<String> = ranges
        .filter_map(|(first, last)| Some(OffsetRange::new(*first, *last)?.to_string()))
        .collect();
    let more = holes.len().saturating_sub(HOLES_NAMED) as u64;
    let more = if more > 0 {
        format!(" and {}", figures::of(more, "more hole"))
    } else {
        String::new()
    };
    format!("missing offsets {}{more}", named.join(", "))
}
