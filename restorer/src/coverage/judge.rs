//! The coverage of one partition, from what the ledger says and, if it was asked, the log.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::time::Duration;

use teeline_archive::ledger::{Absence, AbsenceReason, PartitionState, TopicKey};
use teeline_archive::segment::{Origin, SegmentInfo};
use teeline_archive::{OffsetRange, OffsetSet};

use super::{Evidence, LivePartition, Missing, Offsets, PartitionCoverage, SupersededRange};
use crate::absences;
use crate::plan::{held_twice, open_at_the_end};

/// What is due: everything that an audit saw long enough ago.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    now_ms: i64,
    grace_ms: i64,
    last_commit_ms: i64,
}

impl Clock {
    /// Records may take `grace` from the broker to the ledger.
    pub fn new(now_ms: i64, grace: Duration) -> Self {
        Self {
            now_ms,
            grace_ms: i64::try_from(grace.as_millis()).unwrap_or(i64::MAX),
            last_commit_ms: i64::MIN,
        }
    }

    pub(super) fn with_last_commit(self, at_ms: Option<i64>) -> Self {
        Self {
            last_commit_ms: at_ms.unwrap_or(i64::MIN),
            ..self
        }
    }

    fn is_over(&self, at_ms: i64) -> bool {
        self.now_ms.saturating_sub(at_ms) >= self.grace_ms
    }

    /// The offset up to which a partition must be held or explained by now.
    fn due_end(&self, state: &PartitionState, held_end: i64) -> i64 {
        let Some(latest) = state.audit() else {
            // Nobody has looked how far the log goes; what lies between records that are held is due.
            return held_end;
        };
        // A log that was cut back ends where the latest audit says.
        let audits = [Some(latest), state.previous_audit()];
        let seen = audits
            .into_iter()
            .flatten()
            .filter(|audit| self.is_over(audit.at_ms))
            .map(|audit| audit.high_watermark.min(latest.high_watermark))
            .max()
            .unwrap_or(i64::MIN);
        if self.is_over(self.last_commit_ms.max(latest.at_ms)) {
            seen.max(held_end)
        } else {
            seen
        }
    }
}

pub(super) fn cover(
    key: &TopicKey,
    partition: i32,
    state: &PartitionState,
    clock: Clock,
    log: Option<LivePartition>,
) -> PartitionCoverage {
    let held = state.held();
    let held_end = held.last().map_or(i64::MIN, |last| last.saturating_add(1));
    let audit = state.audit();
    let high_watermark = log
        .map(|log| log.high_watermark)
        .or(audit.map(|audit| audit.high_watermark));
    let window = window(state, &held, high_watermark);
    let due_end = clock.due_end(state, held_end);
    let missing = window.map_or_else(Vec::new, |window| {
        missing(state, &held, window, due_end, high_watermark, log)
    });
    let mut offsets = origins(state);
    offsets.wanted = window.map_or(0, |window| window.span());
    for found in &missing {
        let span = found.last_offset.abs_diff(found.first_offset).saturating_add(1);
        *offsets.of_reason(found.reason) += span;
    }
    let awaiting = awaiting_comparison(state);
    offsets.awaiting_comparison = awaiting.span();
    let holes = missing.iter().filter(|found| found.reason == UNEXPLAINED);
    let unconfirmed = |doubtful: bool| {
        let segments = state.unconfirmed().iter();
        let counted = segments.filter(|segment| segment.quarantined || !doubtful);
        counted.map(|segment| segment.record_count).sum()
    };
    PartitionCoverage {
        topic: key.name.clone(),
        incarnation: key.incarnation.to_string(),
        partition,
        held_from: held.first(),
        held_to: held.last(),
        wanted_from: window.map(|window| window.first),
        high_watermark,
        lag: high_watermark.map(|end| lag(end, window.map(|window| window.first), &held)),
        audited_at_ms: audit.map(|audit| audit.at_ms),
        percent: offsets.percent(),
        offsets,
        holes: holes.map(|hole| (hole.first_offset, hole.last_offset)).collect(),
        superseded: state.superseded().iter().map(superseded).collect(),
        held_twice: pairs(&held_twice(state)),
        behind_the_end: log.map_or_else(Vec::new, |log| behind(&held, log.high_watermark)),
        awaiting_comparison: pairs(&awaiting),
        records_unconfirmed: unconfirmed(false),
        records_quarantined: unconfirmed(true),
        open_transactions: open_at_the_end(state).len(),
        held: pairs(&held),
        missing,
    }
}

/// What is held only by segments of which it is not known under which leader they were written, in a log that has had more
/// than one, or under one that the log has nothing of. The first leader epoch has no other before it.
fn awaiting_comparison(state: &PartitionState) -> OffsetSet {
    let mut awaiting = OffsetSet::new();
    let audited = state.audit().map(|audit| audit.leader_epoch);
    let stored = state.segments().iter().map(|segment| segment.leader_epoch_last);
    if stored.chain(audited).all(|epoch| epoch <= 0) {
        return awaiting;
    }
    let ends = state.audit().map_or(&[][..], |audit| &audit.epochs);
    let foreign: BTreeSet<i32> = ends
        .iter()
        .filter(|end| end.is_foreign())
        .map(|end| end.leader_epoch)
        .collect();
    let (certain, doubtful): (Vec<_>, Vec<_>) = state
        .segments()
        .iter()
        .partition(|segment| segment.leader_epoch_last >= 0 && !foreign.contains(&segment.leader_epoch_last));
    for segment in doubtful {
        let own = state.held_by(segment);
        own.ranges().iter().for_each(|range| awaiting.insert(*range));
    }
    for segment in certain {
        let own = state.held_by(segment);
        own.ranges().iter().for_each(|range| awaiting.remove(*range));
    }
    awaiting
}

/// From where the backup is to begin to the end of the log, as far as anybody knows.
fn window(state: &PartitionState, held: &OffsetSet, high_watermark: Option<i64>) -> Option<OffsetRange> {
    let absent: Vec<OffsetRange> = absences::in_force(state).map(|(_, range)| range).collect();
    let begins = [held.first(), state.audit().map(|audit| audit.start_offset)];
    let first = begins
        .into_iter()
        .flatten()
        .chain(absent.iter().map(|range| range.first))
        .min()?;
    let ends = [held.last(), high_watermark.map(|end| end.saturating_sub(1))];
    let last = ends
        .into_iter()
        .flatten()
        .chain(absent.iter().map(|range| range.last))
        .max()?;
    OffsetRange::new(first, last)
}

/// Offsets between the last one held and the end of the log.
fn lag(end: i64, wanted_from: Option<i64>, held: &OffsetSet) -> u64 {
    let from = match held.last() {
        Some(last) => last.saturating_add(1),
        None => wanted_from.unwrap_or(end),
    };
    end.saturating_sub(from).max(0).unsigned_abs()
}

/// Everything in the window that is not held, each range with its reason.
fn missing(
    state: &PartitionState,
    held: &OffsetSet,
    window: OffsetRange,
    due_end: i64,
    high_watermark: Option<i64>,
    log: Option<LivePartition>,
) -> Vec<Missing> {
    let mut rest: OffsetSet = held.holes(window).into_iter().collect();
    let mut found = Vec::new();
    // The latest word about an offset counts.
    let mut absences: Vec<(&Absence, OffsetRange)> = absences::in_force(state).collect();
    absences.sort_by_key(|(absence, _)| Reverse(absence.at_ms));
    for (absence, range) in absences {
        for range in take(&mut rest, range) {
            found.push(explained(range, absence));
        }
    }
    let audit = state.audit();
    let log_start = log
        .map(|log| log.log_start_offset)
        .into_iter()
        .chain(audit.map(|audit| audit.log_start_offset))
        .max();
    if let Some(below) = log_start.and_then(|start| OffsetRange::new(window.first, start.saturating_sub(1))) {
        for range in take(&mut rest, below) {
            found.push(of(
                range,
                AbsenceReason::Deleted.as_str(),
                Evidence {
                    at_ms: audit.map(|audit| audit.at_ms).filter(|_| log.is_none()),
                    log_start_offset: log_start,
                    ..Evidence::default()
                },
            ));
        }
    }
    let evidence = Evidence {
        at_ms: audit.map(|audit| audit.at_ms),
        high_watermark,
        ..Evidence::default()
    };
    if let Some(due) = OffsetRange::new(window.first, due_end.saturating_sub(1)) {
        for range in take(&mut rest, due) {
            found.push(of(range, UNEXPLAINED, evidence.clone()));
        }
    }
    for range in rest.ranges() {
        found.push(of(*range, NOT_YET, evidence.clone()));
    }
    found.sort_by_key(|missing| missing.first_offset);
    found
}

const UNEXPLAINED: &str = "unexplained";
const NOT_YET: &str = "not-yet";

/// Takes out of a set what lies in a range.
fn take(set: &mut OffsetSet, range: OffsetRange) -> Vec<OffsetRange> {
    let after = set.ranges().partition_point(|held| held.last < range.first);
    let touching = set.ranges().iter().skip(after);
    let taken: Vec<OffsetRange> = touching
        .take_while(|held| held.first <= range.last)
        .filter_map(|held| OffsetRange::new(held.first.max(range.first), held.last.min(range.last)))
        .collect();
    if !taken.is_empty() {
        set.remove(range);
    }
    taken
}

fn of(range: OffsetRange, reason: &'static str, evidence: Evidence) -> Missing {
    Missing {
        first_offset: range.first,
        last_offset: range.last,
        reason,
        evidence,
    }
}

fn explained(range: OffsetRange, absence: &Absence) -> Missing {
    let known = |value: i64| (value >= 0).then_some(value);
    let evidence = Evidence {
        at_ms: Some(absence.at_ms),
        log_start_offset: known(absence.evidence.log_start_offset),
        high_watermark: None,
        leader_epoch: (absence.evidence.leader_epoch >= 0).then_some(absence.evidence.leader_epoch),
        cleanup_policy: Some(absence.evidence.cleanup_policy.clone()).filter(|policy| !policy.is_empty()),
    };
    of(range, absence.reason.as_str(), evidence)
}

impl Offsets {
    fn of_reason(&mut self, reason: &str) -> &mut u64 {
        match reason {
            "compacted" => &mut self.compacted,
            "deleted" => &mut self.deleted,
            "truncated" => &mut self.truncated,
            "not-auditable" => &mut self.not_auditable,
            "not-wanted" => &mut self.not_wanted,
            "source-lost" => &mut self.source_lost,
            NOT_YET => &mut self.not_yet,
            UNEXPLAINED => &mut self.unexplained,
            _ => &mut self.unknown,
        }
    }
}

/// Where the offsets held come from. What was captured counts first, then what was read back.
fn origins(state: &PartitionState) -> Offsets {
    let mut offsets = Offsets::default();
    let mut claimed = OffsetSet::new();
    let (tee, fetch): (Vec<_>, Vec<_>) = state
        .segments()
        .iter()
        .partition(|segment| segment.identity.origin == Origin::Tee);
    for segment in tee {
        let new = claim(&mut claimed, &state.held_by(segment));
        // Markers are fetched into the segments of what was captured around them.
        let marker = segment.control_count.min(new);
        offsets.marker += marker;
        offsets.tee += new.saturating_sub(marker);
    }
    for segment in fetch {
        let own = state.held_by(segment);
        let new = claim(&mut claimed, &own);
        let marker = segment.control_count.min(new);
        let empty = if new == own.span() { empty(segment, new) } else { 0 };
        offsets.marker += marker;
        offsets.empty += empty;
        offsets.fetch += new.saturating_sub(marker).saturating_sub(empty);
    }
    offsets.held = claimed.span();
    offsets
}

/// Offsets of a segment read back without a record or marker: the read itself shows that there is none.
fn empty(segment: &SegmentInfo, span: u64) -> u64 {
    span.saturating_sub(segment.record_count)
        .saturating_sub(segment.control_count)
}

/// Adds what a segment holds; how many of its offsets no other one held before.
fn claim(claimed: &mut OffsetSet, own: &OffsetSet) -> u64 {
    let mut new = 0u64;
    for range in own.ranges() {
        let missing = claimed.holes(*range);
        new = missing
            .iter()
            .fold(new, |sum, hole| sum.saturating_add(hole.span()));
        claimed.insert(*range);
    }
    new
}

fn superseded(found: &teeline_archive::ledger::Superseded) -> SupersededRange {
    SupersededRange {
        segment: found.segment.clone(),
        first_offset: found.first_offset,
        last_offset: found.last_offset,
        leader_epoch: found.leader_epoch,
        epoch_end_offset: found.end_offset,
        at_ms: found.at_ms,
    }
}

fn behind(held: &OffsetSet, end: i64) -> Vec<(i64, i64)> {
    let after = held.ranges().partition_point(|range| range.last < end);
    let behind = held.ranges().iter().skip(after);
    behind.map(|range| (range.first.max(end), range.last)).collect()
}

fn pairs(set: &OffsetSet) -> Vec<(i64, i64)> {
    set.ranges()
        .iter()
        .map(|range| (range.first, range.last))
        .collect()
}
