//! `list` and `describe`: what an archive holds, from the ledger alone.

use std::fmt::Write as _;

use serde::Serialize;
use teeline_archive::ledger::{Incarnation, PartitionState, StateObject};

use crate::error::Damage;
use crate::figures;
use crate::ledger::{Backup, Summary};
use crate::plan::{Lost, open_at_the_end, show_holes};
use crate::window::show_ms;

/// A backup in detail.
#[derive(Debug, Clone, Serialize)]
pub struct Description {
    /// Totals.
    #[serde(flatten)]
    pub summary: Summary,
    /// Brokers of the source, as last seen.
    pub source_brokers: Vec<String>,
    /// When the source was declared gone for good, epoch milliseconds.
    pub source_lost_at_ms: Option<i64>,
    /// Stored pieces of the cluster's state (groups, configurations and so on): number and time of the last one, by kind.
    pub cluster_state: Vec<StateDescription>,
    /// Topics, each life of its own.
    pub topic_lives: Vec<TopicDescription>,
}

/// What there is of one kind of the cluster's state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StateDescription {
    /// `groups`, `topic-configs`, `acls`, `quotas` or `scram-users`.
    pub kind: String,
    /// Objects.
    pub objects: usize,
    /// From when, epoch milliseconds.
    pub from_ms: i64,
    /// Until when, epoch milliseconds.
    pub to_ms: i64,
}

/// One life of a topic.
#[derive(Debug, Clone, Serialize)]
pub struct TopicDescription {
    /// Name.
    pub name: String,
    /// Topic id.
    pub incarnation: String,
    /// Whether a restore takes this life if not told otherwise.
    pub newest: bool,
    /// When it was first seen, epoch milliseconds.
    pub first_seen_ms: Option<i64>,
    /// Partitions it had.
    pub partition_count: i32,
    /// Replicas of each; -1 if unknown.
    pub replication_factor: i16,
    /// Settings of its own.
    pub settings: Vec<(String, Option<String>)>,
    /// Partitions of which there is something.
    pub partitions: Vec<PartitionDescription>,
}

/// One partition.
#[derive(Debug, Clone, Serialize)]
pub struct PartitionDescription {
    /// Number.
    pub partition: i32,
    /// First offset held.
    pub first_offset: Option<i64>,
    /// Last offset held.
    pub last_offset: Option<i64>,
    /// True lowest timestamp.
    pub timestamp_min: Option<i64>,
    /// True highest timestamp.
    pub timestamp_max: Option<i64>,
    /// Segments.
    pub segments: usize,
    /// Records; those of overlapping segments count twice.
    pub records: u64,
    /// Records in unconfirmed segments.
    pub records_unconfirmed: u64,
    /// Records that the log has lost, at most: segments are counted, not batches.
    pub records_superseded: u64,
    /// Transactions that were not over where the archive ends, as far as the ledger tells.
    pub open_transactions: usize,
    /// Bytes as stored.
    pub object_bytes: u64,
    /// Offsets missing without an explanation: first and last.
    pub holes: Vec<(i64, i64)>,
}

/// Describes a backup.
pub fn describe(backup: &Backup) -> Description {
    let topics = backup.state.topics();
    let topic_lives = topics.iter().map(|(key, topic)| {
        let newest = backup
            .state
            .latest_incarnation(&key.name)
            .map(|(latest, _)| latest.incarnation);
        describe_topic(&key.name, key.incarnation, newest == Some(key.incarnation), topic)
    });
    Description {
        summary: backup.summary(),
        source_brokers: backup.state.source_brokers().to_vec(),
        source_lost_at_ms: backup.state.source_lost_at_ms(),
        cluster_state: describe_state(backup.state.state_objects()),
        topic_lives: topic_lives.collect(),
    }
}

fn describe_state(objects: &[StateObject]) -> Vec<StateDescription> {
    let mut kinds: Vec<StateDescription> = Vec::new();
    for object in objects {
        let kind = object.kind.to_string();
        // The ledger lists them by kind.
        match kinds.last_mut().filter(|last| last.kind == kind) {
            Some(last) => {
                last.objects += 1;
                last.to_ms = last.to_ms.max(object.last_at_ms);
            }
            None => kinds.push(StateDescription {
                kind,
                objects: 1,
                from_ms: object.first_at_ms,
                to_ms: object.last_at_ms,
            }),
        }
    }
    kinds
}

fn describe_topic(
    name: &str,
    incarnation: uuid::Uuid,
    newest: bool,
    topic: &Incarnation,
) -> TopicDescription {
    let snapshot = topic.snapshot();
    TopicDescription {
        name: name.to_owned(),
        incarnation: incarnation.to_string(),
        newest,
        first_seen_ms: topic.first_seen_ms(),
        partition_count: topic.partition_count(),
        replication_factor: snapshot.map_or(-1, |snapshot| snapshot.replication_factor),
        settings: snapshot
            .map(|snapshot| snapshot.configs.clone())
            .unwrap_or_default(),
        partitions: topic
            .partitions()
            .map(|(number, state)| describe_partition(number, state))
            .collect(),
    }
}

fn describe_partition(partition: i32, state: &PartitionState) -> PartitionDescription {
    let held = state.held();
    let all = || state.segments().iter().chain(state.unconfirmed());
    let dated = || all().filter(|segment| segment.record_count > 0);
    PartitionDescription {
        partition,
        first_offset: held.first(),
        last_offset: held.last(),
        timestamp_min: dated().map(|segment| segment.timestamp_min).min(),
        timestamp_max: dated().map(|segment| segment.timestamp_max).max(),
        segments: all().count(),
        records: state.record_count(),
        records_unconfirmed: state
            .unconfirmed()
            .iter()
            .map(|segment| segment.record_count)
            .sum(),
        records_superseded: records_superseded(state),
        open_transactions: open_at_the_end(state).len(),
        object_bytes: all().map(|segment| segment.object_bytes).sum(),
        holes: state.holes().iter().map(|hole| (hole.first, hole.last)).collect(),
    }
}

fn records_superseded(state: &PartitionState) -> u64 {
    let lost = Lost::of(state);
    let segments = state.segments().iter();
    segments.fold(0, |sum, segment| sum.saturating_add(lost.records_gone(segment)))
}

/// A listing as text.
pub fn render_list(backups: &[Summary]) -> String {
    let head = [
        "backup", "cluster", "from", "to", "topics", "records", "stored", "saved",
    ];
    let mut rows = vec![head.iter().map(|cell| (*cell).to_owned()).collect::<Vec<_>>()];
    for backup in backups {
        rows.push(vec![
            backup.backup_id.clone(),
            backup.cluster_id.clone().unwrap_or_else(|| "unknown".to_owned()),
            moment(backup.created_at_ms),
            moment(backup.updated_at_ms),
            backup.topics.to_string(),
            figures::count(backup.records),
            figures::bytes(backup.object_bytes),
            saved(backup.object_bytes, backup.uncompressed_bytes),
        ]);
    }
    let mut text = figures::table(&rows);
    for backup in backups {
        text.push_str(&render_damage(&backup.backup_id, &backup.damage));
    }
    text
}

/// A description as text.
pub fn render(description: &Description) -> String {
    let mut text = String::new();
    // Writing into a String cannot fail.
    let _ = write_head(&mut text, description);
    for topic in &description.topic_lives {
        let _ = write_topic(&mut text, topic);
    }
    text.push_str(&render_damage(
        &description.summary.backup_id,
        &description.summary.damage,
    ));
    text
}

fn write_head(text: &mut String, description: &Description) -> std::fmt::Result {
    let summary = &description.summary;
    writeln!(text, "backup   {}", summary.backup_id)?;
    let brokers = description.source_brokers.join(", ");
    let cluster = summary.cluster_id.as_deref().unwrap_or("unknown");
    writeln!(
        text,
        "cluster  {cluster}{}",
        if brokers.is_empty() {
            String::new()
        } else {
            format!(" ({brokers})")
        }
    )?;
    if let Some(at) = description.source_lost_at_ms {
        writeln!(text, "         declared gone for good at {}", show_ms(at))?;
    }
    writeln!(
        text,
        "commits  {} to {}",
        moment(summary.created_at_ms),
        moment(summary.updated_at_ms)
    )?;
    writeln!(
        text,
        "holds    {} in {}, {} stored ({} saved)",
        figures::of(summary.records, "record"),
        figures::of(summary.segments, "segment"),
        figures::bytes(summary.object_bytes),
        saved(summary.object_bytes, summary.uncompressed_bytes),
    )?;
    for state in &description.cluster_state {
        let (from, to) = (show_ms(state.from_ms), show_ms(state.to_ms));
        writeln!(text, "state    {} from {from} to {to}", state.kind)?;
    }
    Ok(())
}

fn write_topic(text: &mut String, topic: &TopicDescription) -> std::fmt::Result {
    let life = if topic.newest {
        ""
    } else {
        ", an earlier life of the topic"
    };
    writeln!(text, "\ntopic {} ({}{life})", topic.name, topic.incarnation)?;
    let partitions = figures::of(u64::from(topic.partition_count.unsigned_abs()), "partition");
    let replicas = match topic.replication_factor {
        factor if factor > 0 => format!(", replication factor {factor}"),
        _ => String::new(),
    };
    writeln!(text, "  {partitions}{replicas}")?;
    let set = topic
        .settings
        .iter()
        .filter_map(|(name, value)| Some(format!("{name}={}", value.as_deref()?)));
    let set: Vec<String> = set.collect();
    if !set.is_empty() {
        writeln!(text, "  {}", set.join(", "))?;
    }
    let head = [
        "partition",
        "offsets",
        "records",
        "from",
        "to",
        "stored",
        "remarks",
    ];
    let mut rows = vec![head.iter().map(|cell| (*cell).to_owned()).collect::<Vec<_>>()];
    rows.extend(topic.partitions.iter().map(row));
    for line in figures::table(&rows).lines() {
        writeln!(text, "  {line}")?;
    }
    Ok(())
}

fn row(partition: &PartitionDescription) -> Vec<String> {
    let offsets = match (partition.first_offset, partition.last_offset) {
        (Some(first), Some(last)) => format!("{first}..={last}"),
        _ => "none".to_owned(),
    };
    let mut remarks = Vec::new();
    if !partition.holes.is_empty() {
        remarks.push(show_holes(&partition.holes));
    }
    if partition.records_unconfirmed > 0 {
        remarks.push(figures::of(partition.records_unconfirmed, "unconfirmed record"));
    }
    if partition.records_superseded > 0 {
        remarks.push(figures::of(partition.records_superseded, "superseded record"));
    }
    if partition.open_transactions > 0 {
        let open = figures::of(partition.open_transactions as u64, "open transaction");
        remarks.push(format!("ends inside {open}"));
    }
    vec![
        partition.partition.to_string(),
        offsets,
        figures::count(partition.records),
        moment(partition.timestamp_min),
        moment(partition.timestamp_max),
        figures::bytes(partition.object_bytes),
        remarks.join(", "),
    ]
}

fn render_damage(backup_id: &str, damage: &[Damage]) -> String {
    let lines = damage
        .iter()
        .map(|found| format!("damaged: backup {backup_id}: {}: {}\n", found.key, found.reason));
    lines.collect()
}

fn moment(at_ms: Option<i64>) -> String {
    at_ms.map_or_else(|| "-".to_owned(), show_ms)
}

fn saved(stored: u64, plain: u64) -> String {
    if plain == 0 {
        return "0 %".to_owned();
    }
    let share = 100.0 - 100.0 * stored as f64 / plain as f64;
    format!("{share:.0} %")
}
