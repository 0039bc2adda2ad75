//! What the source does not have at offsets of one partition, as far as it is still believed.
//!
//! An absence is true of the log in which it was found. A log that was cut back, as by an unclean election, grows again
//! over the same offsets: what was absent there may be a batch now. So an absence counts until something disproves it,
//! and what the ledger says is heard once: said again it is no news.

use std::collections::BTreeSet;

use teeline_archive::ledger::{Absence, AbsenceReason, PartitionState};
use teeline_archive::{OffsetRange, OffsetSet};

use super::Partition;

/// The absences of one partition.
#[derive(Debug, Default)]
pub(super) struct Absent {
    ranges: OffsetSet,
    /// First and last offset, and when it was found.
    heard: BTreeSet<(i64, i64, i64)>,
    /// Where the ledger says that the log was cut back: the segment if one is named, first and last offset, and when that
    /// was found. What was acted upon is not acted upon again.
    cuts: BTreeSet<(String, i64, i64, i64)>,
}

impl Absent {
    /// Found now, by asking the source.
    pub(super) fn find(&mut self, range: OffsetRange, at_ms: i64) {
        self.heard.insert((range.first, range.last, at_ms));
        self.ranges.insert(range);
    }

    /// The log has, or may have, something at these offsets.
    pub(super) fn disprove(&mut self, range: OffsetRange) {
        self.ranges.remove(range);
    }

    /// The log was cut back to this offset.
    pub(super) fn cut(&mut self, first: i64) {
        self.ranges.remove(OffsetRange {
            first,
            last: i64::MAX,
        });
    }

    /// The offsets.
    pub(super) fn ranges(&self) -> &OffsetSet {
        &self.ranges
    }
}

impl Partition {
    /// Takes in what the ledger says newly: what an auditor found to be cut off, or to be another content, is not held
    /// unless another segment holds it or one `in_flight` to the ledger, and what is absent need not be fetched, unless
    /// somebody waits for it.
    pub fn learn(&mut self, state: &PartitionState, is_source_lost: bool, in_flight: &OffsetSet) {
        self.learn_cuts(state, in_flight);
        let cuts = Cuts::of(state);
        for absence in state.absences() {
            let said = (absence.first_offset, absence.last_offset, absence.at_ms);
            if !is_lasting(absence.reason, is_source_lost) || !self.absent.heard.insert(said) {
                continue;
            }
            let left = cuts.spare(absence);
            for range in left.map_or_else(Vec::new, |left| self.urgent.holes(left)) {
                self.absent.ranges.insert(range);
            }
        }
    }

    fn learn_cuts(&mut self, state: &PartitionState, in_flight: &OffsetSet) {
        let truncated = state
            .absences()
            .iter()
            .filter(|absence| absence.reason == AbsenceReason::Truncated);
        for cut in truncated {
            let key = (String::new(), cut.first_offset, cut.last_offset, cut.at_ms);
            if self.absent.cuts.insert(key) {
                self.absent.cut(cut.first_offset);
            }
        }
        if state.superseded().is_empty() {
            return;
        }
        let held = state.held();
        for cut in state.superseded() {
            let key = (cut.segment.clone(), cut.first_offset, cut.last_offset, cut.at_ms);
            if self.absent.cuts.insert(key) {
                self.absent.cut(cut.first_offset);
                for range in held.holes(cut.range()) {
                    self.supersede(range, in_flight);
                }
            }
        }
    }
}

/// Where the log of a partition was cut back, and when that was found.
#[derive(Debug, Default)]
struct Cuts {
    /// In order of time; each with the lowest offset of itself and of all later ones.
    lowest: Vec<(i64, i64)>,
}

impl Cuts {
    /// What the ledger says of them.
    fn of(state: &PartitionState) -> Cuts {
        let truncated = state
            .absences()
            .iter()
            .filter(|absence| absence.reason == AbsenceReason::Truncated)
            .map(|absence| (absence.at_ms, absence.first_offset));
        let superseded = state
            .superseded()
            .iter()
            .map(|superseded| (superseded.at_ms, superseded.first_offset));
        let mut lowest: Vec<(i64, i64)> = truncated.chain(superseded).collect();
        lowest.sort_unstable();
        let mut first = i64::MAX;
        for (_, at) in lowest.iter_mut().rev() {
            first = first.min(*at);
            *at = first;
        }
        Cuts { lowest }
    }

    /// What is left of an absence. One that was found before the log was cut back, or just then, says nothing of what
    /// the log has behind the cut.
    fn spare(&self, absence: &Absence) -> Option<OffsetRange> {
        let after = self.lowest.partition_point(|(at_ms, _)| *at_ms < absence.at_ms);
        let cut = self.lowest.get(after).map_or(i64::MAX, |(_, first)| *first);
        OffsetRange::new(
            absence.first_offset,
            absence.last_offset.min(cut.saturating_sub(1)),
        )
    }
}

/// Whether an absence may stand for data. Where the log was cut back it grows again, and what could not be read or was
/// not wanted may well be there.
fn is_lasting(reason: AbsenceReason, is_source_lost: bool) -> bool {
    match reason {
        AbsenceReason::Compacted | AbsenceReason::Deleted => true,
        AbsenceReason::SourceLost => is_source_lost,
        AbsenceReason::Truncated
        | AbsenceReason::NotAuditable
        | AbsenceReason::NotWanted
        | AbsenceReason::Unknown(_) => false,
    }
}
