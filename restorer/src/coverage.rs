//! `coverage`: which offsets of each partition are held and where they came from, and for every other offset why not.
//!
//! From the ledger alone, or checked against the source's cluster: then the logs say how far they reach. What is wanted
//! of a partition begins where its audit says, or with the first offset held, and ends with the high watermark. Each
//! offset in between is held, explained, not due yet, or *unexplained*.

mod judge;
pub mod live;
mod render;

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests;

use std::ops::AddAssign;

use serde::Serialize;
use teeline_config::TopicFilter;

use crate::error::Damage;
use crate::ledger::Backup;
use live::{Live, LivePartition};

pub use judge::Clock;
pub use render::render;

/// The coverage of a backup.
#[derive(Debug, Clone, Serialize)]
pub struct Coverage {
    /// The backup.
    pub backup_id: String,
    /// The cluster it comes from.
    pub cluster_id: Option<String>,
    /// Whether the source's cluster was asked.
    pub live: bool,
    /// Offsets accounted for (held, or explained by evidence), of those wanted, in percent; 100 only if all are.
    pub percent: f64,
    /// Offsets held, all partitions together.
    pub offsets_held: u64,
    /// Offsets missing without an explanation, although they are due.
    pub offsets_missing: u64,
    /// Where the offsets of all partitions are.
    pub offsets: Offsets,
    /// Partitions.
    pub partitions: Vec<PartitionCoverage>,
    /// Partitions of the source that the archive has nothing of, although there is something.
    pub not_in_archive: Vec<MissingPartition>,
    /// Partitions of the source that could not be asked, and why.
    pub not_asked: Vec<NotAsked>,
    /// Entries of the ledger that a newer version wrote and this one does not know.
    pub unknown_entries: u64,
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
    /// First offset held.
    pub held_from: Option<i64>,
    /// Last offset held.
    pub held_to: Option<i64>,
    /// Ranges held: first and last.
    pub held: Vec<(i64, i64)>,
    /// First offset wanted.
    pub wanted_from: Option<i64>,
    /// End of the source's log: as the cluster says, or the latest audit. None when nobody has looked.
    pub high_watermark: Option<i64>,
    /// How far the archive is behind that.
    pub lag: Option<u64>,
    /// When the partition was last audited, epoch milliseconds.
    pub audited_at_ms: Option<i64>,
    /// Offsets accounted for, of those wanted, in percent.
    pub percent: f64,
    /// Where the offsets are.
    pub offsets: Offsets,
    /// Ranges missing without an explanation, although they are due.
    pub holes: Vec<(i64, i64)>,
    /// Every range that is wanted and not held, and why.
    pub missing: Vec<Missing>,
    /// Ranges held that the log has lost: kept, and counted for nothing.
    pub superseded: Vec<SupersededRange>,
    /// Ranges that more than one segment holds. If they differ, restores leave the rivals out as disputed.
    pub held_twice: Vec<(i64, i64)>,
    /// Ranges held that lie behind the end of the source's log: the next audit will find out why.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub behind_the_end: Vec<(i64, i64)>,
    /// Ranges held only as captured under a leader that is not known, in a log that has had several: the auditor fetches
    /// them again and compares. They may turn out to be superseded.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub awaiting_comparison: Vec<(i64, i64)>,
    /// Records captured and never confirmed; they count as nothing held.
    pub records_unconfirmed: u64,
    /// Of these, the doubtful ones.
    pub records_quarantined: u64,
    /// Transactions that were not over where the archive ends, as far as the ledger tells.
    pub open_transactions: usize,
}

/// Where the offsets of a partition are. All are accounted for but the last two, and those held that await comparison.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Offsets {
    /// Everything between where the backup is to begin and the end of the log.
    pub wanted: u64,
    /// Held, in whatever way.
    pub held: u64,
    /// Held as captured on the way to the broker, or fetched into a segment of what was.
    pub tee: u64,
    /// Held as read back from the broker.
    pub fetch: u64,
    /// Transaction markers.
    pub marker: u64,
    /// Read back and found empty inside of segments: compacted away, or never used.
    pub empty: u64,
    /// Of those held, how many are yet to be compared with the log, see [`PartitionCoverage::awaiting_comparison`].
    pub awaiting_comparison: u64,
    /// Compacted away on the source before they were read.
    pub compacted: u64,
    /// Deleted on the source before they were read.
    pub deleted: u64,
    /// Cut off the source's log.
    pub truncated: u64,
    /// The source does not let us read them.
    pub not_auditable: u64,
    /// The backup was told to begin later, or to end earlier.
    pub not_wanted: u64,
    /// Went down with the source.
    pub source_lost: u64,
    /// Explained by a newer version, in a way that this one does not know.
    pub unknown: u64,
    /// Not due yet.
    pub not_yet: u64,
    /// Due, and without an explanation.
    pub unexplained: u64,
}

/// A range that is wanted and not held.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Missing {
    /// First offset.
    pub first_offset: i64,
    /// Last offset.
    pub last_offset: i64,
    /// Why: `compacted`, `deleted`, `truncated`, `not-auditable`, `not-wanted`, `source-lost`, `unknown`, `not-yet` or
    /// `unexplained`.
    pub reason: &'static str,
    /// What shows it.
    pub evidence: Evidence,
}

/// What shows why a range is missing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Evidence {
    /// When it was found, epoch milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at_ms: Option<i64>,
    /// First offset that the source still had.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_start_offset: Option<i64>,
    /// End of the source's log.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub high_watermark: Option<i64>,
    /// Leader epoch in which the source was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub leader_epoch: Option<i32>,
    /// The topic's cleanup policy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cleanup_policy: Option<String>,
}

/// A range held that the log has lost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SupersededRange {
    /// Key of the segment.
    pub segment: String,
    /// First offset.
    pub first_offset: i64,
    /// Last offset.
    pub last_offset: i64,
    /// Leader epoch under which it was written; -1 if unknown.
    pub leader_epoch: i32,
    /// Where that epoch ends in the log; -1 if contents were compared instead.
    pub epoch_end_offset: i64,
    /// When it was found, epoch milliseconds.
    pub at_ms: i64,
}

/// A partition of the source that the archive has nothing of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MissingPartition {
    /// Topic.
    pub topic: String,
    /// Which of its lives.
    pub incarnation: String,
    /// Number.
    pub partition: i32,
    /// First offset of the log.
    pub log_start_offset: i64,
    /// End of the log.
    pub high_watermark: i64,
    /// Whether the backup should have it: it has the topic, or the topic was asked for.
    pub expected: bool,
}

/// A partition of the source that could not be asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NotAsked {
    /// Topic.
    pub topic: String,
    /// Number; none for the whole topic.
    pub partition: Option<i32>,
    /// Why.
    pub reason: String,
}

/// Computes the coverage of the topics selected, against the logs if they were asked.
pub fn coverage(backup: &Backup, topics: &TopicFilter, clock: Clock, live: Option<&Live>) -> Coverage {
    let mut partitions = Vec::new();
    let clock = clock.with_last_commit(backup.state.updated_at_ms());
    for (key, topic) in backup.state.topics() {
        if !topics.matches(&key.name) {
            continue;
        }
        for (number, state) in topic.partitions() {
            let log = live.and_then(|live| live.partition(&backup.state, key, number));
            partitions.push(judge::cover(key, number, state, clock, log));
        }
    }
    let not_in_archive = live.map_or_else(Vec::new, |live| live.missing(&backup.state, topics));
    let mut offsets = Offsets::default();
    partitions
        .iter()
        .for_each(|partition| offsets += partition.offsets);
    for missing in not_in_archive.iter().filter(|missing| missing.expected) {
        let span = missing.high_watermark.abs_diff(missing.log_start_offset);
        offsets.wanted += span;
        offsets.unexplained += span;
    }
    Coverage {
        backup_id: backup.id.clone(),
        cluster_id: backup.state.cluster_id().map(str::to_owned),
        live: live.is_some(),
        percent: offsets.percent(),
        offsets_held: offsets.held,
        offsets_missing: offsets.unexplained,
        offsets,
        partitions,
        not_in_archive,
        not_asked: live.map_or_else(Vec::new, |live| live.not_asked(topics)),
        unknown_entries: backup.state.unknown_entries(),
        damage: backup.damage.clone(),
    }
}

impl Coverage {
    /// Whether nothing is missing without an explanation, and everything could be looked at. What awaits comparison is not
    /// missing: it lowers the percentage, and nothing else.
    pub fn is_whole(&self) -> bool {
        self.offsets_missing == 0 && self.damage.is_empty() && self.not_asked.is_empty()
    }
}

impl Offsets {
    /// Offsets accounted for, of those wanted, in percent: rounded down, so that 100 means all.
    pub fn percent(&self) -> f64 {
        if self.wanted == 0 {
            return 100.0;
        }
        let open = self.not_yet.saturating_add(self.unexplained);
        let open = open.saturating_add(self.awaiting_comparison);
        let accounted = self.wanted.saturating_sub(open);
        // Hundredths of a percent, in whole numbers, since a float would round up.
        let share = u128::from(accounted).saturating_mul(10_000) / u128::from(self.wanted);
        share as f64 / 100.0
    }
}

impl AddAssign for Offsets {
    fn add_assign(&mut self, other: Self) {
        self.wanted += other.wanted;
        self.held += other.held;
        self.tee += other.tee;
        self.fetch += other.fetch;
        self.marker += other.marker;
        self.empty += other.empty;
        self.awaiting_comparison += other.awaiting_comparison;
        self.compacted += other.compacted;
        self.deleted += other.deleted;
        self.truncated += other.truncated;
        self.not_auditable += other.not_auditable;
        self.not_wanted += other.not_wanted;
        self.source_lost += other.source_lost;
        self.unknown += other.unknown;
        self.not_yet += other.not_yet;
        self.unexplained += other.unexplained;
    }
}
