//! What the ledger says about one partition: what is held, what is missing and why.

use crate::ids::WriterId;
use crate::ledger::held::HeldIndex;
use crate::ledger::{Absence, PartitionAudit, Removed, Replaced, Superseded, TxnEvidence};
use crate::names::parse_segment_key;
use crate::ranges::{OffsetRange, OffsetSet};
use crate::segment::SegmentInfo;
use std::cmp::{Ordering, Reverse};
use std::collections::{BTreeMap, HashSet};

/// One partition of a topic.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PartitionState {
    /// Sorted by start offset, longest first, then by key.
    segments: Vec<SegmentInfo>,
    /// Sorted like the others, among themselves.
    unconfirmed: Vec<SegmentInfo>,
    evidence: Vec<TxnEvidence>,
    absences: Vec<Absence>,
    superseded: Vec<Superseded>,
    /// Superseded too, by the same batches.
    copies: Vec<Superseded>,
    /// Segments that others took the place of, by key; without those that are removed and of no use any more.
    replaced: BTreeMap<String, SegmentInfo>,
    /// What was said about them; of other chains it may come before the segments do.
    replacements: BTreeMap<String, Replacement>,
    /// The latest audits and whose they are, latest first; the higher writer where two are of the same time.
    audits: Vec<(WriterId, PartitionAudit)>,
    index: HeldIndex,
}

/// When a segment was replaced, and whether its object is still there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replacement {
    /// When it was replaced, in epoch milliseconds.
    pub at_ms: i64,
    /// Its object was deleted.
    pub removed: bool,
}

impl PartitionState {
    /// Segments with true offsets, by start offset; of two with the same start the longer comes first. They may
    /// overlap.
    pub fn segments(&self) -> &[SegmentInfo] {
        &self.segments
    }

    /// Segments with provisional offsets.
    pub fn unconfirmed(&self) -> &[SegmentInfo] {
        &self.unconfirmed
    }

    /// How transactions ended, known without their markers; by offset.
    pub fn evidence(&self) -> &[TxnEvidence] {
        &self.evidence
    }

    /// What the source does not have any more; by offset.
    pub fn absences(&self) -> &[Absence] {
        &self.absences
    }

    /// A segment by its key.
    pub fn segment(&self, key: &str) -> Option<&SegmentInfo> {
        // The key names the start offset, by which the segments are sorted.
        let name = parse_segment_key(key).ok()?;
        let list = if name.unconfirmed {
            &self.unconfirmed
        } else {
            &self.segments
        };
        let from = list.partition_point(|segment| segment.start_offset < name.first_offset);
        let mut same_start = list
            .iter()
            .skip(from)
            .take_while(|segment| segment.start_offset == name.first_offset);
        same_start.find(|segment| segment.key == key)
    }

    /// What was stored and is not in the log any more; by offset.
    pub fn superseded(&self) -> &[Superseded] {
        &self.superseded
    }

    /// What was stored and is held by another segment, of better known epoch; by offset.
    pub fn superseded_copies(&self) -> &[Superseded] {
        &self.copies
    }

    /// The offsets of one segment that count no more, whether the log lost them or another segment has the same.
    pub fn superseded_of(&self, key: &str) -> OffsetSet {
        self.index.lost_of(key).cloned().unwrap_or_default()
    }

    /// Segments that others took the place of: not read any more, and still the record of what their writers have
    /// committed. Those that came from no buffer record nothing, and are forgotten once they are removed.
    pub fn replaced(&self) -> impl Iterator<Item = (&SegmentInfo, Replacement)> {
        let said = |key: &str| self.replacements.get(key).copied();
        self.replaced
            .values()
            .filter_map(move |info| Some((info, said(&info.key)?)))
    }

    /// Whether another segment took the place of this one.
    pub fn is_replaced(&self, key: &str) -> bool {
        self.replacements.contains_key(key)
    }

    /// How many segments were replaced, whether they are removed or not.
    pub fn replaced_count(&self) -> usize {
        self.replacements.len()
    }

    /// The latest audit.
    pub fn audit(&self) -> Option<&PartitionAudit> {
        self.audits.first().map(|(_, audit)| audit)
    }

    /// The audit before the latest one: what it saw has had time to be archived when the latest is young.
    pub fn previous_audit(&self) -> Option<&PartitionAudit> {
        self.audits.get(1).map(|(_, audit)| audit)
    }

    /// What a segment vouches for: what it spans, without its gaps and without what is superseded.
    pub fn held_by(&self, segment: &SegmentInfo) -> OffsetSet {
        self.index.held_by(segment)
    }

    /// The offsets held. Unconfirmed segments hold none, nor does what is superseded.
    pub fn held(&self) -> OffsetSet {
        self.index.held().clone()
    }

    /// The offsets held, and those that the source does not have any more.
    pub fn explained(&self) -> OffsetSet {
        let mut explained = self.held();
        self.absences
            .iter()
            .for_each(|absence| explained.insert(absence.range()));
        explained
    }

    /// What is missing, and not explained, between the first and the last offset held.
    pub fn holes(&self) -> Vec<OffsetRange> {
        let held = self.index.held();
        match (held.first(), held.last()) {
            (Some(first), Some(last)) => self.explained().holes(OffsetRange { first, last }),
            _ => Vec::new(),
        }
    }

    /// Records held, counted by segment: overlapping segments count twice.
    pub fn record_count(&self) -> u64 {
        self.segments
            .iter()
            .fold(0, |sum, segment| sum.saturating_add(segment.record_count))
    }

    pub(crate) fn add_segment(&mut self, info: SegmentInfo) {
        self.index.note_reach(&info);
        if let Some(replacement) = self.replacements.get(&info.key) {
            if !(replacement.removed && is_forgettable(&info)) {
                self.replaced.insert(info.key.clone(), info);
            }
            return;
        }
        let is_unconfirmed = info.unconfirmed();
        let list = if is_unconfirmed {
            &mut self.unconfirmed
        } else {
            &mut self.segments
        };
        if let Err(place) = list.binary_search_by(|listed| segment_order(listed, &info)) {
            if !is_unconfirmed {
                self.index.add(&info);
            }
            list.insert(place, info);
        }
    }

    pub(crate) fn add_evidence(&mut self, evidence: TxnEvidence) {
        let order = |e: &TxnEvidence| {
            (
                e.first_offset,
                e.last_offset,
                e.producer_id,
                e.producer_epoch,
                e.at_ms,
                e.commit,
            )
        };
        if let Err(place) = self.evidence.binary_search_by_key(&order(&evidence), order) {
            self.evidence.insert(place, evidence);
        }
    }

    pub(crate) fn add_absence(&mut self, absence: Absence) {
        if let Err(place) = self
            .absences
            .binary_search_by(|listed| absence_order(listed, &absence))
        {
            self.absences.insert(place, absence);
        }
    }

    pub(crate) fn add_superseded(&mut self, superseded: Superseded) {
        self.index
            .lose(&superseded.segment, superseded.range(), &self.segments);
        let list = if superseded.same {
            &mut self.copies
        } else {
            &mut self.superseded
        };
        if let Err(place) = list.binary_search_by(|listed| superseded_order(listed, &superseded)) {
            list.insert(place, superseded);
        }
    }

    /// Takes segments out of what is read, if what takes their place is listed: reading twice does no harm, not reading
    /// would.
    pub(crate) fn replace(&mut self, entry: &Replaced) {
        // What was removed has been listed before.
        let is_removed = |key: &str| self.replacements.get(key).is_some_and(|said| said.removed);
        let is_known = self.segment(&entry.by).is_some()
            || self.replaced.contains_key(&entry.by)
            || is_removed(&entry.by);
        if !is_known || entry.keys.contains(&entry.by) {
            return;
        }
        let gone: HashSet<&str> = entry.keys.iter().map(String::as_str).collect();
        for key in &entry.keys {
            let replacement = Replacement {
                at_ms: entry.at_ms,
                removed: false,
            };
            self.replacements.entry(key.clone()).or_insert(replacement);
        }
        let out = self
            .segments
            .extract_if(.., |segment| gone.contains(segment.key.as_str()));
        let out: Vec<SegmentInfo> = out.collect();
        for info in out {
            self.index.recount(info.range(), &self.segments);
            self.replaced.insert(info.key.clone(), info);
        }
    }

    pub(crate) fn note_removed(&mut self, entry: &Removed) {
        for key in &entry.keys {
            if let Some(replacement) = self.replacements.get_mut(key) {
                replacement.removed = true;
                if self.replaced.get(key).is_some_and(is_forgettable) {
                    self.replaced.remove(key);
                }
            }
        }
    }

    pub(crate) fn add_audit(&mut self, audit: &PartitionAudit, writer: WriterId) {
        // One writer's audits of the same time come in the order of its chain.
        let place = self
            .audits
            .partition_point(|(who, held)| (held.at_ms, *who) > (audit.at_ms, writer));
        self.audits.insert(place, (writer, audit.clone()));
        self.audits.truncate(AUDITS_KEPT);
    }
}

/// A segment of frames of a buffer says which of them are committed, for as long as the buffer has them; others were
/// fetched, or joined.
fn is_forgettable(info: &SegmentInfo) -> bool {
    info.lsn_range.is_none()
}

/// The latest, and the one before it.
const AUDITS_KEPT: usize = 2;

fn segment_order(one: &SegmentInfo, other: &SegmentInfo) -> Ordering {
    let offsets = |s: &SegmentInfo| (s.start_offset, Reverse(s.end_offset));
    offsets(one)
        .cmp(&offsets(other))
        .then_with(|| one.key.cmp(&other.key))
}

fn absence_order(one: &Absence, other: &Absence) -> Ordering {
    let plain = |a: &Absence| (a.first_offset, a.last_offset, a.at_ms, a.reason);
    plain(one)
        .cmp(&plain(other))
        .then_with(|| one.evidence.cmp(&other.evidence))
}

fn superseded_order(one: &Superseded, other: &Superseded) -> Ordering {
    let offsets = |s: &Superseded| (s.first_offset, s.last_offset);
    let rest = |s: &Superseded| (s.at_ms, s.leader_epoch, s.end_offset);
    offsets(one)
        .cmp(&offsets(other))
        .then_with(|| one.segment.cmp(&other.segment))
        .then_with(|| rest(one).cmp(&rest(other)))
}
