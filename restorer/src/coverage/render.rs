//! The coverage as text.

use std::fmt::Write as _;

use super::{Coverage, Missing, Offsets, PartitionCoverage};
use crate::figures;
use crate::window::show_ms;

/// The coverage as text.
pub fn render(coverage: &Coverage) -> String {
    let head = [
        "topic",
        "partition",
        "held",
        "end",
        "lag",
        "covered",
        "missing",
        "remarks",
    ];
    let mut rows = vec![head.iter().map(|cell| (*cell).to_owned()).collect::<Vec<_>>()];
    rows.extend(coverage.partitions.iter().map(row));
    let mut text = figures::table(&rows);
    // Writing into a String cannot fail.
    let _ = write_foot(&mut text, coverage);
    text
}

fn write_foot(text: &mut String, coverage: &Coverage) -> std::fmt::Result {
    let offsets = &coverage.offsets;
    writeln!(
        text,
        "\n{} wanted, {} held ({}); {} % accounted for",
        figures::of(offsets.wanted, "offset"),
        figures::count(offsets.held),
        origins(offsets),
        coverage.percent,
    )?;
    for (number, reason) in [
        (offsets.compacted, "compacted away before they were read"),
        (offsets.deleted, "deleted before they were read"),
        (offsets.truncated, "cut off the log"),
        (offsets.not_auditable, "that the source does not let us read"),
        (offsets.not_wanted, "not wanted by configuration"),
        (offsets.source_lost, "lost with the source"),
        (offsets.unknown, "explained by a newer version"),
        (offsets.not_yet, "not due yet"),
    ] {
        if number > 0 {
            writeln!(text, "missing: {} {reason}", figures::of(number, "offset"))?;
        }
    }
    if offsets.awaiting_comparison > 0 {
        writeln!(
            text,
            "of those held, {} to be compared with the log yet: captured under a leader that is not known",
            figures::of(offsets.awaiting_comparison, "offset")
        )?;
    }
    for partition in &coverage.partitions {
        for hole in unexplained(partition).take(HOLES_NAMED) {
            writeln!(
                text,
                "unexplained: {} partition {}: offsets {}{}",
                partition.topic,
                partition.partition,
                range(hole.first_offset, hole.last_offset),
                seen(hole),
            )?;
        }
    }
    write_source(text, coverage)?;
    if coverage.unknown_entries > 0 {
        let entries = figures::of(coverage.unknown_entries, "entry").replace("entrys", "entries");
        writeln!(text, "the ledger has {entries} of a newer version, passed over")?;
    }
    for found in &coverage.damage {
        writeln!(text, "damaged: {}: {}", found.key, found.reason)?;
    }
    let verdict = if coverage.is_whole() {
        "nothing is missing without an explanation".to_owned()
    } else {
        format!(
            "{} missing without an explanation",
            figures::of(coverage.offsets_missing, "offset")
        )
    };
    writeln!(text, "{verdict}")
}

/// What the cluster has and the archive has nothing of, and what could not be asked.
fn write_source(text: &mut String, coverage: &Coverage) -> std::fmt::Result {
    for missing in &coverage.not_in_archive {
        let what = if missing.expected {
            "not in the archive"
        } else {
            "not part of the backup"
        };
        writeln!(
            text,
            "{what}: {} partition {}, offsets {}",
            missing.topic,
            missing.partition,
            range(missing.log_start_offset, missing.high_watermark.saturating_sub(1)),
        )?;
    }
    for refused in &coverage.not_asked {
        let partition = refused
            .partition
            .map_or_else(String::new, |number| format!(" partition {number}"));
        writeln!(
            text,
            "not asked: {}{partition}: {}",
            refused.topic, refused.reason
        )?;
    }
    Ok(())
}

fn unexplained(partition: &PartitionCoverage) -> impl Iterator<Item = &Missing> {
    partition
        .missing
        .iter()
        .filter(|missing| missing.reason == "unexplained")
}

fn seen(hole: &Missing) -> String {
    match (hole.evidence.at_ms, hole.evidence.high_watermark) {
        (Some(at), Some(end)) => format!(" (the log ended at {end}; audited {})", show_ms(at)),
        (None, Some(end)) => format!(" (the log ends at {end})"),
        _ => String::new(),
    }
}

fn origins(offsets: &Offsets) -> String {
    let counted = [
        (offsets.tee, "captured"),
        (offsets.fetch, "fetched"),
        (offsets.marker, "transaction markers"),
        (offsets.empty, "found empty"),
    ];
    let present = counted.iter().filter(|(number, _)| *number > 0);
    let parts: Vec<String> = present
        .map(|(number, text)| format!("{} {text}", figures::count(*number)))
        .collect();
    if parts.is_empty() {
        "nothing".to_owned()
    } else {
        parts.join(", ")
    }
}

fn row(partition: &PartitionCoverage) -> Vec<String> {
    let number = |value: Option<i64>| value.map_or_else(|| "-".to_owned(), |value| value.to_string());
    vec![
        partition.topic.clone(),
        partition.partition.to_string(),
        ranges(partition.held.iter().copied()),
        number(partition.high_watermark),
        partition.lag.map_or_else(|| "-".to_owned(), figures::count),
        format!("{} %", partition.percent),
        ranges(partition.holes.iter().copied()),
        remarks(partition).join(", "),
    ]
}

fn remarks(partition: &PartitionCoverage) -> Vec<String> {
    let explained = partition
        .missing
        .iter()
        .filter(|missing| missing.reason != "unexplained");
    let mut remarks: Vec<String> = explained
        .clone()
        .take(RANGES_SHOWN)
        .map(|missing| {
            format!(
                "{} {}",
                range(missing.first_offset, missing.last_offset),
                missing.reason
            )
        })
        .collect();
    let more = explained.count().saturating_sub(RANGES_SHOWN);
    if more > 0 {
        remarks.push(format!("and {more} more"));
    }
    if !partition.superseded.is_empty() {
        let lost = partition
            .superseded
            .iter()
            .map(|range| (range.first_offset, range.last_offset));
        remarks.push(format!("superseded {}", ranges(lost)));
    }
    if !partition.behind_the_end.is_empty() {
        let behind = ranges(partition.behind_the_end.iter().copied());
        remarks.push(format!("{behind} behind the end of the log"));
    }
    if !partition.awaiting_comparison.is_empty() {
        let awaiting = ranges(partition.awaiting_comparison.iter().copied());
        remarks.push(format!("{awaiting} awaits comparison"));
    }
    if !partition.held_twice.is_empty() {
        let twice = ranges(partition.held_twice.iter().copied());
        remarks.push(format!("{twice} held twice"));
    }
    if partition.records_unconfirmed > 0 {
        remarks.push(figures::of(partition.records_unconfirmed, "unconfirmed record"));
    }
    if partition.open_transactions > 0 {
        let open = figures::of(partition.open_transactions as u64, "open transaction");
        remarks.push(format!("ends inside {open}"));
    }
    remarks
}

/// At most so many ranges in one cell.
const RANGES_SHOWN: usize = 6;
/// At most so many holes of one partition are named below the table.
const HOLES_NAMED: usize = 20;

fn range(first: i64, last: i64) -> String {
    format!("{first}..={last}")
}

fn ranges(ranges: impl Iterator<Item = (i64, i64)>) -> String {
    let all: Vec<(i64, i64)> = ranges.collect();
    if all.is_empty() {
        return "-".to_owned();
    }
    let shown: Vec<String> = all
        .iter()
        .take(RANGES_SHOWN)
        .map(|(first, last)| range(*first, *last))
        .collect();
    let more = all.len().saturating_sub(RANGES_SHOWN);
    let more = if more > 0 {
        format!(" and {more} more")
    } else {
        String::new()
    };
    format!("{}{more}", shown.join(" "))
}
