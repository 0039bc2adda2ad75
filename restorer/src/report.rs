//! What a restore did, and whether that was all.

use std::fmt::Write as _;
use std::time::Duration;

use serde::Serialize;
use teeline_runtime::ExitCode;

use crate::apart::OpenTransaction;
use crate::figures;
use crate::plan::{Only, Plan, show_holes};
use crate::tally::Tally;

/// The final report.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// `report`, to tell it from other lines.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// `complete`, or `incomplete` with reasons.
    pub outcome: &'static str,
    /// The backup.
    pub backup_id: String,
    /// Which class of records was restored, if not the log itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub only: Option<Only>,
    /// How long the producing took.
    pub elapsed_ms: u64,
    /// Sums over all partitions.
    pub total: Tally,
    /// Topics.
    pub topics: Vec<TopicReport>,
    /// Why it is incomplete; empty when it is not.
    pub reasons: Vec<String>,
    /// What to know besides.
    pub notes: Vec<String>,
}

/// One topic.
#[derive(Debug, Clone, Serialize)]
pub struct TopicReport {
    /// Its name in the archive.
    pub name: String,
    /// Its name in the target.
    pub target: String,
    /// Partitions.
    pub partitions: Vec<PartitionReport>,
}

/// One partition.
#[derive(Debug, Clone, Serialize)]
pub struct PartitionReport {
    /// Its number.
    pub partition: i32,
    /// What was restored and what left out.
    #[serde(flatten)]
    pub tally: Tally,
    /// Offsets that the archive does not have: first and last.
    pub holes: Vec<(i64, i64)>,
    /// Transactions that were not over where the archive ends; their records are left out.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub open_transactions: Vec<OpenTransaction>,
    /// The target's end offset before.
    pub end_offset_before: i64,
    /// The target's end offset afterwards.
    pub end_offset_after: i64,
}

/// What the workers found out about one partition.
#[derive(Debug, Clone)]
pub struct Restored {
    /// Which topic of the plan.
    pub topic: usize,
    /// Which of its partitions, by number.
    pub partition: i32,
    /// What was restored and what left out.
    pub tally: Tally,
    /// Transactions that were not over where the archive ends.
    pub open_transactions: Vec<OpenTransaction>,
}

impl PartitionReport {
    /// How many more records the target has than were produced: less than none means loss.
    fn surplus(&self) -> i64 {
        let grown = self.end_offset_after.saturating_sub(self.end_offset_before);
        grown.saturating_sub(i64::try_from(self.tally.records).unwrap_or(i64::MAX))
    }
}

impl Report {
    /// Puts plan, work and the target's offsets together.
    pub fn new(
        plan: &Plan,
        restored: &[Restored],
        offsets: impl Fn(&str, i32) -> (i64, i64),
        elapsed: Duration,
    ) -> Self {
        let mut total = Tally::default();
        let topics = plan.topics.iter().enumerate().map(|(place, topic)| {
            let partitions = topic.partitions.iter().map(|partition| {
                let number = partition.partition;
                let work = restored
                    .iter()
                    .find(|work| work.topic == place && work.partition == number);
                let mut tally = work.map(|work| work.tally).unwrap_or_default();
                tally.records_quarantined = partition.records_quarantined;
                tally.records_superseded += partition.records_superseded;
                total += tally;
                let (end_offset_before, end_offset_after) = offsets(&topic.target, number);
                let holes = partition
                    .holes
                    .iter()
                    .map(|hole| (hole.first, hole.last))
                    .collect();
                PartitionReport {
                    partition: number,
                    tally,
                    holes,
                    open_transactions: work
                        .map(|work| work.open_transactions.clone())
                        .unwrap_or_default(),
                    end_offset_before,
                    end_offset_after,
                }
            });
            let partitions = partitions.collect();
            TopicReport {
                name: topic.name.clone(),
                target: topic.target.clone(),
                partitions,
            }
        });
        let topics: Vec<_> = topics.collect();
        let mut report = Self {
            kind: "report",
            outcome: "complete",
            backup_id: plan.backup_id.clone(),
            only: plan.only,
            elapsed_ms: u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX),
            total,
            topics,
            reasons: Vec::new(),
            notes: Vec::new(),
        };
        report.reasons = report.find_reasons();
        if !report.reasons.is_empty() {
            report.outcome = "incomplete";
        }
        report.notes = report.find_notes();
        report
    }

    /// What the process says to its caller.
    pub fn exit_code(&self) -> ExitCode {
        if self.lost_in_target().next().is_some() {
            ExitCode::Failed
        } else if self.reasons.is_empty() {
            ExitCode::Done
        } else {
            ExitCode::Incomplete
        }
    }

    fn partitions(&self) -> impl Iterator<Item = (&TopicReport, &PartitionReport)> {
        self.topics
            .iter()
            .flat_map(|topic| topic.partitions.iter().map(move |partition| (topic, partition)))
    }

    /// Partitions that hold fewer records than were acknowledged.
    fn lost_in_target(&self) -> impl Iterator<Item = (&TopicReport, &PartitionReport)> {
        self.partitions().filter(|(_, partition)| partition.surplus() < 0)
    }

    fn find_reasons(&self) -> Vec<String> {
        let mut reasons = Vec::new();
        for (topic, partition) in self.partitions() {
            let at = format!("{} partition {}", topic.name, partition.partition);
            if !partition.holes.is_empty() {
                reasons.push(format!("{at}: {}", show_holes(&partition.holes)));
            }
            reasons.extend(ends_inside(
                &at,
                &partition.open_transactions,
                partition.tally.records_open,
            ));
            let surplus = partition.surplus();
            if surplus < 0 {
                let lost = figures::of(surplus.unsigned_abs(), "acknowledged record");
                reasons.push(format!("{at}: the target lost {lost}"));
            }
        }
        let beside = |number: u64, only: Only| if self.only == Some(only) { 0 } else { number };
        let counted = [
            (
                self.total
                    .records_undecided
                    .saturating_sub(self.total.records_open),
                "left out, since their transaction's end is not known",
            ),
            (
                self.total.records_disputed,
                "left out, since other records claim their offsets and nothing tells which the source kept",
            ),
            (
                beside(self.total.records_unconfirmed, Only::Unconfirmed),
                "restored although no answer of the broker confirmed them",
            ),
            (
                self.total.records_quarantined,
                "left out as doubtful; --include-quarantined restores them",
            ),
        ];
        for (number, text) in counted {
            if number > 0 {
                reasons.push(format!("{} {text}", figures::of(number, "record")));
            }
        }
        reasons
    }

    fn find_notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        for (topic, partition) in self.partitions() {
            let surplus = partition.surplus();
            if surplus > 0 {
                let (target, number) = (&topic.target, partition.partition);
                let more = figures::of(surplus.unsigned_abs(), "offset");
                notes.push(format!(
                    "{target} partition {number}: somebody else wrote {more} meanwhile"
                ));
            }
        }
        notes
    }
}

/// Says that the archive ends inside of transactions: readers of committed records had not seen theirs either.
fn ends_inside(at: &str, open: &[OpenTransaction], records: u64) -> Option<String> {
    let first = open.iter().map(|open| open.first_offset).min()?;
    let transactions = figures::of(open.len() as u64, "open transaction");
    let producers = open.iter().take(OPEN_NAMED_MAX);
    let named: Vec<String> = producers
        .map(|open| format!("producer {} from offset {}", open.producer_id, open.first_offset))
        .collect();
    let more = open.len().saturating_sub(OPEN_NAMED_MAX);
    let more = if more > 0 {
        format!(" and {more} more")
    } else {
        String::new()
    };
    Some(format!(
        "{at}: the archive ends inside {transactions} ({}{more}); {} from offset {first} on left out",
        named.join(", "),
        figures::of(records, "record")
    ))
}

/// At most so many transactions are named in a line.
const OPEN_NAMED_MAX: usize = 3;

/// The report as text.
pub fn render(report: &Report) -> String {
    let mut text = String::new();
    let head = ["topic", "target", "partition", "records", "bytes", "end offset"];
    let mut rows = vec![head.iter().map(|cell| (*cell).to_owned()).collect::<Vec<_>>()];
    for (topic, partition) in report.partitions() {
        rows.push(vec![
            topic.name.clone(),
            topic.target.clone(),
            partition.partition.to_string(),
            figures::count(partition.tally.records),
            figures::bytes(partition.tally.bytes),
            partition.end_offset_after.to_string(),
        ]);
    }
    text.push_str(&figures::table(&rows));
    let elapsed = Duration::from_millis(report.elapsed_ms);
    // Writing into a String cannot fail.
    let _ = writeln!(
        text,
        "\nrestored {}, {} in {} ({} records/s, {}/s)",
        figures::of(report.total.records, "record"),
        figures::bytes(report.total.bytes),
        figures::duration(elapsed),
        figures::count(figures::per_second(report.total.records, elapsed)),
        figures::bytes(figures::per_second(report.total.bytes, elapsed)),
    );
    for line in left_out(&report.total) {
        let _ = writeln!(text, "left out: {line}");
    }
    for note in &report.notes {
        let _ = writeln!(text, "note: {note}");
    }
    for reason in &report.reasons {
        let _ = writeln!(text, "incomplete: {reason}");
    }
    let verdict = if report.reasons.is_empty() {
        "complete, and"
    } else {
        "done but incomplete;"
    };
    let _ = writeln!(
        text,
        "{verdict} the target's end offsets were compared with what was produced"
    );
    text
}

fn left_out(total: &Tally) -> Vec<String> {
    let counted = [
        (total.records_outside_window, "outside the window"),
        (total.records_aborted, "of aborted transactions"),
        (total.records_superseded, "that the source lost to a later leader"),
        (total.records_duplicate, "held twice"),
        (
            total.records_unconfirmed_duplicate,
            "unconfirmed here and confirmed elsewhere",
        ),
    ];
    let present = counted.iter().filter(|(number, _)| *number > 0);
    present
        .map(|(number, text)| format!("{} {text}", figures::of(*number, "record")))
        .collect()
}
