//! Whether an archive is the source's log, offset by offset.
//!
//! Every batch of the log is to be in the archive at its offsets, byte for byte but for a leader epoch that the tee
//! did not know; what the archive holds and the log does not must be listed as superseded; and every offset without a
//! record must be explained. The log is a raw read of the source ([`crate::source_log`]); the archive comes from its
//! own readers ([`crate::archived`]). A compacted log is not for this comparison: it has fewer records than were
//! captured, and the archive rightly keeps them.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;
use std::time::Duration;

use teeline_archive::ledger::{Absence, AbsenceReason, PartitionState, Superseded};
use teeline_archive::segment::Origin;
use teeline_archive::{OffsetRange, OffsetSet};

use crate::archived::{Archived, ArchivedSegment, await_whole};
use crate::source_log::{RawBatch, SourceLog, SourcePartition};
use crate::wait::wait_for;

/// One way in which the archive is not the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// What is wrong there.
    pub wrong: Wrong,
}

/// What is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wrong {
    /// The ledger does not know the partition.
    Unknown,
    /// Batches of the log that no segment has.
    Missing(OffsetRange),
    /// A segment has another batch where the log has this one, and no entry says that it is superseded.
    Altered(OffsetRange, String),
    /// A segment has a batch where the log has none, and no entry says that it is superseded.
    Foreign(OffsetRange, String),
    /// The batch is right, its leader epoch is not: archived, and in the log.
    Epoch(OffsetRange, i32, i32),
    /// A batch is superseded in part, which no truncation does.
    HalfSuperseded(OffsetRange, String),
    /// The ledger says that offsets are missing which a segment has.
    Unlisted(OffsetRange),
    /// The ledger says that offsets are held which the log does not have yet.
    BeyondTheEnd(OffsetRange),
    /// Neither held nor explained.
    Unexplained(OffsetRange),
    /// Explained as absent, and the log has a record there.
    WronglyAbsent(OffsetRange, &'static str),
}

/// What a comparison found.
#[derive(Debug, Default)]
pub struct Comparison {
    /// Objects that cannot be read or contradict the ledger.
    pub damage: Vec<String>,
    /// Where archive and log differ.
    pub findings: Vec<Finding>,
    /// Batches in the log.
    pub batches: u64,
    /// Offsets in the log.
    pub offsets: u64,
    /// Offsets that more than one segment holds.
    pub offsets_twice: u64,
    /// Offsets by the origin of the segments that hold them.
    pub by_origin: BTreeMap<&'static str, u64>,
    /// Records in segments that were fetched.
    pub records_fetched: u64,
    /// Archived batches that the log does not have any more, listed as superseded: by topic and partition.
    pub superseded: BTreeMap<(String, i32), Vec<RawBatch>>,
    /// Unconfirmed batches, the same way.
    pub unconfirmed: BTreeMap<(String, i32), Vec<RawBatch>>,
}

/// Compares every partition of `source` with what `archive` has of it.
pub fn compare(source: &SourceLog, archive: &Archived) -> Comparison {
    let mut comparison = Comparison {
        damage: archive.damage.clone(),
        ..Comparison::default()
    };
    for ((topic, partition), log) in &source.0 {
        let segments = archive.segments_of(topic, &log.topic_id, *partition);
        let mut found = One {
            log,
            wrong: Vec::new(),
            comparison: &mut comparison,
            place: (topic.clone(), *partition),
        };
        match archive.partition(topic, &log.topic_id, *partition) {
            Some(state) => found.compare(&segments, state),
            None if log.batches.is_empty() => {}
            None => found.wrong.push(Wrong::Unknown),
        }
        let wrong = found.wrong;
        comparison.findings.extend(wrong.into_iter().map(|wrong| Finding {
            topic: topic.clone(),
            partition: *partition,
            wrong,
        }));
    }
    comparison
}

/// Until the archive is the log. The auditor takes its time: it demands only what is older than its grace, and what it
/// fetched to compare it is judged in the round after.
pub fn await_equal(source: &SourceLog, archive: &Path, backup_id: &str, limit: Duration) {
    // Cheap to ask, and mostly what is waited for.
    await_whole(source, archive, backup_id, limit);
    wait_for("the archive to be the log", limit, || {
        let compared = compare(source, &Archived::read(archive, backup_id));
        if compared.is_equal() {
            return Ok(());
        }
        Err(compared.wrongs())
    });
}

/// The comparison of one partition.
struct One<'a> {
    log: &'a SourcePartition,
    wrong: Vec<Wrong>,
    comparison: &'a mut Comparison,
    place: (String, i32),
}

impl One<'_> {
    fn compare(&mut self, segments: &[&ArchivedSegment], state: &PartitionState) {
        self.comparison.batches += self.log.batches.len() as u64;
        self.comparison.offsets += self
            .log
            .batches
            .iter()
            .map(|batch| range(batch).span())
            .sum::<u64>();
        let mut found = BTreeSet::new();
        let mut held = OffsetSet::new();
        for segment in segments {
            if segment.info.unconfirmed() {
                let list = self.comparison.unconfirmed.entry(self.place.clone());
                list.or_default().extend(segment.batches.iter().cloned());
            } else {
                self.compare_segment(segment, state, &mut found, &mut held);
            }
        }
        let missing: OffsetSet = self
            .log
            .batches
            .iter()
            .filter(|batch| !found.contains(&batch.base_offset))
            .map(range)
            .collect();
        self.wrong
            .extend(missing.ranges().iter().map(|range| Wrong::Missing(*range)));
        self.compare_books(state, &held);
    }

    fn compare_segment(
        &mut self,
        segment: &ArchivedSegment,
        state: &PartitionState,
        found: &mut BTreeSet<i64>,
        held: &mut OffsetSet,
    ) {
        let key = &segment.info.key;
        let superseded = state.superseded_of(key);
        // What another segment holds as well, better known, was not lost.
        let lost: OffsetSet = state
            .superseded()
            .iter()
            .filter(|lost| lost.segment == *key)
            .map(Superseded::range)
            .collect();
        let origin = segment.info.identity.origin;
        for batch in &segment.batches {
            let range = range(batch);
            if superseded.contains_range(range) {
                if lost.contains_range(range) {
                    let list = self.comparison.superseded.entry(self.place.clone());
                    list.or_default().push(batch.clone());
                }
                continue;
            }
            if superseded.ranges().iter().any(|part| part.overlaps(&range)) {
                self.wrong.push(Wrong::HalfSuperseded(range, key.clone()));
            }
            // What the source has deleted since cannot be compared any more.
            if batch.last_offset < self.log.log_start {
                continue;
            }
            self.count(batch, origin, held);
            if self.is_in_the_log(batch, key) {
                found.insert(batch.base_offset);
            }
        }
    }

    fn count(&mut self, batch: &RawBatch, origin: Origin, held: &mut OffsetSet) {
        let range = range(batch);
        let comparison = &mut *self.comparison;
        *comparison.by_origin.entry(origin.as_str()).or_default() += range.span();
        if origin == Origin::Fetch && !batch.control {
            comparison.records_fetched += u64::from(batch.records);
        }
        let new: u64 = held.holes(range).iter().map(OffsetRange::span).sum();
        comparison.offsets_twice += range.span() - new;
        held.insert(range);
    }

    /// Whether the log has the very same batch. Says so if not.
    fn is_in_the_log(&mut self, batch: &RawBatch, key: &str) -> bool {
        let batches = &self.log.batches;
        let after = batches.partition_point(|each| each.last_offset < batch.base_offset);
        let Some(there) = batches
            .get(after)
            .filter(|each| each.base_offset <= batch.last_offset)
        else {
            self.wrong.push(Wrong::Foreign(range(batch), key.to_owned()));
            return false;
        };
        if !there.is_same(batch) {
            let what = format!("{key} has {batch:?}, the log {there:?}");
            self.wrong.push(Wrong::Altered(range(batch), what));
            return false;
        }
        if batch.leader_epoch >= 0 && batch.leader_epoch != there.leader_epoch {
            let wrong = Wrong::Epoch(range(batch), batch.leader_epoch, there.leader_epoch);
            self.wrong.push(wrong);
        }
        true
    }

    /// The ledger's own account: what it says is held, and how it explains the rest.
    fn compare_books(&mut self, state: &PartitionState, in_segments: &OffsetSet) {
        let (held, absences) = (state.held(), state.absences());
        for range in in_segments.ranges() {
            let unlisted = held.holes(*range);
            self.wrong.extend(unlisted.into_iter().map(Wrong::Unlisted));
        }
        let end = self.log.high_watermark;
        if let Some(last) = held.last().filter(|last| *last >= end) {
            let beyond = OffsetRange { first: end, last };
            self.wrong.push(Wrong::BeyondTheEnd(beyond));
        }
        let Some(whole) = OffsetRange::new(self.log.log_start, end - 1) else {
            return;
        };
        let explained: OffsetSet = held
            .ranges()
            .iter()
            .copied()
            .chain(absences.iter().map(Absence::range))
            .collect();
        let unexplained = explained.holes(whole);
        self.wrong.extend(unexplained.into_iter().map(Wrong::Unexplained));
        // What was cut off, or not to be had, may come back.
        let lasting =
            |absence: &&Absence| matches!(absence.reason, AbsenceReason::Compacted | AbsenceReason::Deleted);
        for absence in absences.iter().filter(lasting) {
            let there = self
                .log
                .batches
                .iter()
                .find(|batch| range(batch).overlaps(&absence.range()));
            if let Some(batch) = there.filter(|batch| batch.base_offset >= self.log.log_start) {
                let wrong = Wrong::WronglyAbsent(range(batch), absence.reason.as_str());
                self.wrong.push(wrong);
            }
        }
    }
}

fn range(batch: &RawBatch) -> OffsetRange {
    OffsetRange {
        first: batch.base_offset,
        last: batch.last_offset,
    }
}

impl Comparison {
    /// Whether the archive is the log.
    pub fn is_equal(&self) -> bool {
        self.damage.is_empty() && self.findings.is_empty()
    }

    /// The counts, for people.
    pub fn figures(&self) -> String {
        let superseded: usize = self.superseded.values().map(Vec::len).sum();
        format!(
            "{} batches on {} offsets; held by origin: {:?}; {} offsets twice, {} records fetched, {superseded} batches \
             superseded",
            self.batches, self.offsets, self.by_origin, self.offsets_twice, self.records_fetched
        )
    }

    /// Panics with what is wrong, if anything is.
    pub fn assert_equal(&self) {
        assert!(self.is_equal(), "{}", self.wrongs());
    }

    /// What is wrong, a line each; not more than a screen of it.
    pub fn wrongs(&self) -> String {
        const SHOWN: usize = 20;
        let damage = self.damage.iter().map(|text| format!("damaged: {text}"));
        let lines: Vec<String> = damage
            .chain(self.findings.iter().map(Finding::to_string))
            .collect();
        format!(
            "the archive is not the log: {} findings\n{}",
            lines.len(),
            lines[..lines.len().min(SHOWN)].join("\n")
        )
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}: ", self.topic, self.partition)?;
        match &self.wrong {
            Wrong::Unknown => write!(f, "the ledger does not know the partition"),
            Wrong::Missing(range) => write!(f, "{range} is in the log and in no segment"),
            Wrong::Altered(range, what) => write!(f, "{range} is another batch: {what}"),
            Wrong::Foreign(range, key) => write!(f, "{range} is in {key} and not in the log"),
            Wrong::Epoch(range, archived, log) => {
                write!(f, "{range} has leader epoch {archived}, in the log {log}")
            }
            Wrong::HalfSuperseded(range, key) => {
                write!(f, "{range} of {key} is superseded in part")
            }
            Wrong::Unlisted(range) => {
                write!(f, "{range} is in a segment, and the ledger says it is missing")
            }
            Wrong::BeyondTheEnd(range) => {
                write!(f, "{range} is said to be held, and the log ends before it")
            }
            Wrong::Unexplained(range) => write!(f, "{range} is neither held nor explained"),
            Wrong::WronglyAbsent(range, reason) => {
                write!(f, "{range} is said to be {reason}, and is in the log")
            }
        }
    }
}
