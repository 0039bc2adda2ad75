//! One partition judged: what of the archive the log has lost, what the archive lacks, and what explains the rest. Pure.
//!
//! The argument, in full in `docs/ARCHITECTURE.md`: within one leader epoch a log only grows, and one leader writes it.
//! So a segment is *certain* up to where the current leader says that the segment's last epoch ends; what it has at or
//! beyond that end is *superseded*. Where the leader does not know that epoch at all, or where the segment's epoch is
//! not known, the segment is in *doubt*: its offsets are fetched again, and then the two contents are compared. Nothing
//! is ever superseded on suspicion, and nothing in doubt keeps an offset from being fetched.

use std::collections::{BTreeMap, BTreeSet};

use teeline_archive::ledger::{Absence, AbsenceEvidence, AbsenceReason, PartitionState, Superseded};
use teeline_archive::segment::SegmentInfo;
use teeline_archive::{OffsetRange, OffsetSet};

use super::upstream::{Bounds, EpochAnswer, LogPartition};

/// What is known about a partition when it is judged.
#[derive(Debug, Clone, Copy)]
pub struct Case<'a> {
    /// Which one.
    pub partition: &'a LogPartition,
    /// What the ledger says; `None` for nothing.
    pub state: Option<&'a PartitionState>,
    /// How far the log reaches.
    pub bounds: Bounds,
    /// Where earlier leader epochs end in the log of this leader, by the epoch that was asked for.
    pub ends: &'a BTreeMap<i32, EpochAnswer>,
    /// Where the backup begins.
    pub start: i64,
    /// Everything below this is to be held now.
    pub demanded_to: i64,
    /// The topic's cleanup policy; empty when unknown.
    pub cleanup_policy: &'a str,
    /// Now, in epoch milliseconds.
    pub now_ms: i64,
}

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Stored ranges that the log has lost.
    pub superseded: Vec<Superseded>,
    /// Offsets that the log does not have, and the ledger does not say so yet.
    pub absences: Vec<Absence>,
    /// What is to be fetched, in order.
    pub wanted: Vec<OffsetRange>,
    /// What is in doubt and can be compared now with what is certain, by segment.
    pub doubts: Vec<Doubt>,
    /// Offsets held, what was just superseded left out.
    pub held: OffsetSet,
    /// Offsets held or explained.
    pub explained: OffsetSet,
    /// Offsets held only by segments in doubt: it is not known yet whether the log still has these records.
    pub awaiting: OffsetSet,
}

/// A segment of which it is not known whether the log still has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Doubt {
    /// The segment.
    pub segment: SegmentInfo,
    /// Which of its offsets can be compared.
    pub ranges: OffsetSet,
    /// What they are compared with: segments that are certain there, with the offsets that are.
    pub sure: Vec<(SegmentInfo, OffsetSet)>,
}

/// The leader epochs whose ends must be known to judge the partition.
pub fn epochs_in_question(state: &PartitionState, leader_epoch: i32) -> BTreeSet<i32> {
    let segments = state
        .segments()
        .iter()
        .filter(|segment| !state.held_by(segment).is_empty())
        .map(|segment| segment.leader_epoch_last);
    let absences = state
        .absences()
        .iter()
        .filter(|absence| absence.reason == AbsenceReason::Compacted)
        .map(|absence| absence.evidence.leader_epoch);
    let audited = state.audit().map(|audit| audit.leader_epoch);
    segments
        .chain(absences)
        .chain(audited)
        .filter(|epoch| (0..leader_epoch).contains(epoch))
        .collect()
}

/// Judges a partition. `None` when the survey is older than what the ledger knows, or when the end of an epoch in question
/// is not known: look again.
pub fn judge(case: &Case<'_>) -> Option<Verdict> {
    let mut verdict = Verdict::default();
    let mut settled = OffsetSet::new();
    let mut certain: Vec<(&SegmentInfo, OffsetSet)> = Vec::new();
    let mut doubtful: Vec<(&SegmentInfo, OffsetSet)> = Vec::new();
    if let Some(state) = case.state {
        for segment in state.segments() {
            let kept = state.held_by(segment);
            let Standing {
                certain: own,
                doubtful: doubt,
                superseded,
            } = standing(case, segment, &kept)?;
            insert_all(&mut verdict.held, &own);
            insert_all(&mut verdict.held, &doubt);
            insert_all(&mut settled, &own);
            if !own.is_empty() {
                certain.push((segment, own));
            }
            if let Some(range) = superseded {
                verdict.superseded.push(supersede(case, segment, range));
            }
            if !doubt.is_empty() {
                doubtful.push((segment, doubt));
            }
        }
    }
    for (_, doubt) in &doubtful {
        insert_all(&mut verdict.awaiting, doubt);
    }
    for range in settled.ranges() {
        verdict.awaiting.remove(*range);
    }
    let absent = absent_now(case);
    insert_all(&mut settled, &absent);
    verdict.explained = verdict.held.clone();
    insert_all(&mut verdict.explained, &absent);
    let log_start = case.bounds.log_start.max(0);
    if let Some(window) = OffsetRange::new(case.start.max(log_start), case.demanded_to.saturating_sub(1)) {
        verdict.wanted = settled.holes(window);
        verdict.doubts = doubtful
            .into_iter()
            .filter_map(|(segment, doubt)| comparable(segment, &doubt, window, &settled, &certain))
            .collect();
    }
    // What is deleted already needs no fetch to be found missing.
    if let Some(below) = OffsetRange::new(case.start, log_start.saturating_sub(1)) {
        for range in verdict.explained.holes(below) {
            verdict
                .absences
                .push(absence(case, range, AbsenceReason::Deleted));
            verdict.explained.insert(range);
        }
    }
    if let Some(range) = cut_back(case) {
        for range in verdict.held.holes(range) {
            if !absent.contains_range(range) {
                verdict
                    .absences
                    .push(absence(case, range, AbsenceReason::Truncated));
            }
        }
    }
    Some(verdict)
}

/// A segment's offsets, sorted out.
struct Standing {
    certain: OffsetSet,
    doubtful: OffsetSet,
    superseded: Option<OffsetRange>,
}

fn standing(case: &Case<'_>, segment: &SegmentInfo, kept: &OffsetSet) -> Option<Standing> {
    let (epoch, current) = (segment.leader_epoch_last, case.bounds.leader_epoch);
    let certain = |certain: OffsetSet| {
        Some(Standing {
            certain,
            doubtful: OffsetSet::new(),
            superseded: None,
        })
    };
    let doubtful = |doubtful: OffsetSet| {
        Some(Standing {
            certain: OffsetSet::new(),
            doubtful,
            superseded: None,
        })
    };
    if kept.is_empty() || current <= 0 || epoch == current {
        // The first leader epoch has no other before it, and without epochs there is nothing to go by.
        return match epoch > current && current >= 0 && !kept.is_empty() {
            true => None,
            false => certain(kept.clone()),
        };
    }
    if epoch > current {
        return None;
    }
    if epoch < 0 {
        return doubtful(kept.clone());
    }
    // Not answered now: fetching everything again would be the wrong conclusion.
    let answer = case.ends.get(&epoch)?;
    if answer.end_offset < 0 {
        // The leader's memory does not reach back that far: it stays as it is.
        return certain(kept.clone());
    }
    let (below, behind) = split(kept, answer.end_offset);
    let is_known = answer.leader_epoch >= epoch;
    Some(Standing {
        certain: if is_known { below.clone() } else { OffsetSet::new() },
        // The log has no batch of this epoch: those below the end were lost too, or are compacted away. Comparing tells.
        doubtful: if is_known { OffsetSet::new() } else { below },
        superseded: behind
            .first()
            .zip(behind.last())
            .and_then(|(first, last)| OffsetRange::new(first, last)),
    })
}

/// Splits a set at an offset: what lies below, and what lies at it and behind.
fn split(set: &OffsetSet, at: i64) -> (OffsetSet, OffsetSet) {
    let mut below = OffsetSet::new();
    let mut behind = OffsetSet::new();
    for range in set.ranges() {
        if let Some(part) = OffsetRange::new(range.first, range.last.min(at.saturating_sub(1))) {
            below.insert(part);
        }
        if let Some(part) = OffsetRange::new(range.first.max(at), range.last) {
            behind.insert(part);
        }
    }
    (below, behind)
}

/// What of the doubtful offsets lies in the window and is settled otherwise, so that there is something to compare with.
fn comparable(
    segment: &SegmentInfo,
    doubt: &OffsetSet,
    window: OffsetRange,
    settled: &OffsetSet,
    certain: &[(&SegmentInfo, OffsetSet)],
) -> Option<Doubt> {
    let mut ranges = OffsetSet::new();
    for range in doubt.ranges() {
        let within = OffsetRange::new(range.first.max(window.first), range.last.min(window.last));
        // A batch is compared as a whole, so a run of offsets waits until all of it can be.
        if let Some(within) = within
            && settled.contains_range(within)
        {
            ranges.insert(within);
        }
    }
    let span = OffsetRange::new(ranges.first()?, ranges.last()?)?;
    let sure = certain
        .iter()
        .filter(|(other, _)| other.range().overlaps(&span))
        .map(|(other, own)| ((*other).clone(), own.clone()))
        .collect();
    Some(Doubt {
        segment: segment.clone(),
        ranges,
        sure,
    })
}

/// The absences of the ledger that hold today.
fn absent_now(case: &Case<'_>) -> OffsetSet {
    let mut absent = OffsetSet::new();
    for found in case.state.map_or(&[][..], PartitionState::absences) {
        let range = match found.reason {
            // A log that answers is not lost, and what lies behind its start is not deleted: a broker that did not know the
            // topic yet may have said so.
            AbsenceReason::Deleted => {
                let last = case.bounds.log_start.saturating_sub(1);
                OffsetRange::new(found.first_offset, found.last_offset.min(last))
            }
            AbsenceReason::SourceLost => None,
            AbsenceReason::Compacted => still_absent(case, found),
            // Reasons that lie with us, or that a log which grows again overtakes: asked anew each time.
            AbsenceReason::Truncated
            | AbsenceReason::NotAuditable
            | AbsenceReason::NotWanted
            | AbsenceReason::Unknown(_) => None,
        };
        if let Some(range) = range {
            absent.insert(range);
        }
    }
    absent
}

/// Nothing was there when it was read. A log that was cut back since may have written there anew.
fn still_absent(case: &Case<'_>, found: &Absence) -> Option<OffsetRange> {
    let (epoch, current) = (found.evidence.leader_epoch, case.bounds.leader_epoch);
    let range = found.range();
    if current <= 0 || epoch == current {
        return Some(range);
    }
    let answer = case.ends.get(&epoch).filter(|_| epoch >= 0)?;
    if answer.end_offset < 0 {
        return Some(range);
    }
    if answer.leader_epoch < epoch {
        return None;
    }
    OffsetRange::new(range.first, range.last.min(answer.end_offset.saturating_sub(1)))
}

/// Offsets that the last audit saw, and that a later leader's log does not reach any more.
fn cut_back(case: &Case<'_>) -> Option<OffsetRange> {
    let audit = case.state?.audit()?;
    if audit.leader_epoch < 0 || audit.leader_epoch >= case.bounds.leader_epoch {
        return None;
    }
    let answer = case
        .ends
        .get(&audit.leader_epoch)
        .filter(|answer| answer.end_offset >= 0)?;
    let first = answer.end_offset.max(case.bounds.high_watermark).max(case.start);
    OffsetRange::new(first, audit.high_watermark.saturating_sub(1))
}

fn supersede(case: &Case<'_>, segment: &SegmentInfo, range: OffsetRange) -> Superseded {
    let end = case.ends.get(&segment.leader_epoch_last);
    Superseded {
        topic: case.partition.topic.to_string(),
        incarnation: case.partition.id.incarnation,
        partition: case.partition.id.partition,
        segment: segment.key.clone(),
        first_offset: range.first,
        last_offset: range.last,
        leader_epoch: segment.leader_epoch_last,
        end_offset: end.map_or(-1, |answer| answer.end_offset),
        at_ms: case.now_ms,
        same: false,
    }
}

fn absence(case: &Case<'_>, range: OffsetRange, reason: AbsenceReason) -> Absence {
    Absence {
        topic: case.partition.topic.to_string(),
        incarnation: case.partition.id.incarnation,
        partition: case.partition.id.partition,
        first_offset: range.first,
        last_offset: range.last,
        reason,
        at_ms: case.now_ms,
        evidence: AbsenceEvidence {
            log_start_offset: case.bounds.log_start,
            leader_epoch: case.bounds.leader_epoch,
            cleanup_policy: case.cleanup_policy.to_owned(),
        },
    }
}

fn insert_all(set: &mut OffsetSet, more: &OffsetSet) {
    more.ranges().iter().for_each(|range| set.insert(*range));
}

#[cfg(test)]
#[path = "judge_tests.rs"]
pub(super) mod tests;
