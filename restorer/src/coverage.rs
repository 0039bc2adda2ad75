//! `coverage`: which offsets of each partition are held, and what is missing between them, from the ledger alone.

use std::fmt::Write as _;

use serde::Serialize;
use teeline_archive::OffsetSet;
use teeline_archive::ledger::PartitionState;
use teeline_config::TopicFilter;

use crate::error::Damage;
use crate::figures;
use crate::ledger::Backup;

/// The coverage of a backup.
#[derive(Debug, Clone, Serialize)]
pub struct Coverage {
    /// The backup.
    pub backup_id: String,
    /// Partitions.
    pub partitions: Vec<PartitionCoverage>,
    /// Offsets held, all partitions together.
    pub offsets_held: u64,
    /// Offsets missing without an explanation.
    pub offsets_missing: u64,
    /// What of the ledger could not be read.
    pub damage: Vec<Damage>,
}

/// The coverage of one partition.
#[derive(Debug, Clone, Serialize)]
pub struct PartitionCoverage {
    /// Topic.
    pub topic: String,
    /// Which of its lives.
    pub incarnation: String,
    /// Number.
    pub partition: i32,
    /// Ranges held: first and last.
    pub held: Vec<(i64, i64)>,
    /// Ranges missing without an explanation.
    pub holes: Vec<(i64, i64)>,
    /// Ranges that the source does not have any more, and why.
    pub absent: Vec<(i64, i64, &'static str)>,
    /// Records captured and never confirmed; they count as nothing held.
    pub records_unconfirmed: u64,
}

/// Computes the coverage of the topics selected.
pub fn coverage(backup: &Backup, topics: &TopicFilter) -> Coverage {
    let mut partitions = Vec::new();
    for (key, topic) in backup.state.topics() {
        if !topics.matches(&key.name) {
            continue;
        }
        let incarnation = key.incarnation.to_string();
        for (number, state) in topic.partitions() {
            partitions.push(cover(&key.name, &incarnation, number, state));
        }
    }
    let span = |ranges: &[(i64, i64)]| -> u64 {
        ranges
            .iter()
            .map(|(first, last)| last.abs_diff(*first).saturating_add(1))
            .sum()
    };
    Coverage {
        backup_id: backup.id.clone(),
        offsets_held: partitions.iter().map(|partition| span(&partition.held)).sum(),
        offsets_missing: partitions.iter().map(|partition| span(&partition.holes)).sum(),
        partitions,
        damage: backup.damage.clone(),
    }
}

fn cover(topic: &str, incarnation: &str, partition: i32, state: &PartitionState) -> PartitionCoverage {
    let pairs = |set: &OffsetSet| {
        set.ranges()
            .iter()
            .map(|range| (range.first, range.last))
            .collect()
    };
    PartitionCoverage {
        topic: topic.to_owned(),
        incarnation: incarnation.to_owned(),
        partition,
        held: pairs(&state.held()),
        holes: state.holes().iter().map(|hole| (hole.first, hole.last)).collect(),
        absent: state
            .absences()
            .iter()
            .map(|absence| (absence.first_offset, absence.last_offset, absence.reason.as_str()))
            .collect(),
        records_unconfirmed: state
            .unconfirmed()
            .iter()
            .map(|segment| segment.record_count)
            .sum(),
    }
}

impl Coverage {
    /// Whether nothing is missing.
    pub fn is_whole(&self) -> bool {
        self.offsets_missing == 0 && self.damage.is_empty()
    }
}

/// The coverage as text.
pub fn render(coverage: &Coverage) -> String {
    let head = ["topic", "partition", "held", "missing", "remarks"];
    let mut rows = vec![head.iter().map(|cell| (*cell).to_owned()).collect::<Vec<_>>()];
    for partition in &coverage.partitions {
        let mut remarks = Vec::new();
        remarks.extend(
            partition
                .absent
                .iter()
                .map(|(first, last, why)| format!("{first}..={last} {why}")),
        );
        if partition.records_unconfirmed > 0 {
            remarks.push(figures::of(partition.records_unconfirmed, "unconfirmed record"));
        }
        rows.push(vec![
            partition.topic.clone(),
            partition.partition.to_string(),
            ranges(&partition.held),
            ranges(&partition.holes),
            remarks.join(", "),
        ]);
    }
    let mut text = figures::table(&rows);
    // Writing into a String cannot fail.
    let _ = writeln!(
        text,
        "\n{} held, {} missing",
        figures::of(coverage.offsets_held, "offset"),
        figures::count(coverage.offsets_missing)
    );
    for found in &coverage.damage {
        let _ = writeln!(text, "damaged: {}: {}", found.key, found.reason);
    }
    text
}

/// At most so many ranges in one cell.
const RANGES_SHOWN: usize = 6;

fn ranges(ranges: &[(i64, i64)]) -> String {
    if ranges.is_empty() {
        return "-".to_owned();
    }
    let shown: Vec<String> = ranges
        .iter()
        .take(RANGES_SHOWN)
        .map(|(first, last)| format!("{first}..={last}"))
        .collect();
    let more = ranges.len().saturating_sub(RANGES_SHOWN);
    let more = if more > 0 {
        format!(" and {more} more")
    } else {
        String::new()
    };
    format!("{}{more}", shown.join(" "))
}
