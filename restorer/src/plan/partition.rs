//! What will be done with one partition.

use std::sync::Arc;

use teeline_archive::ledger::{AbsenceReason, PartitionState};
use teeline_archive::segment::{SegmentInfo, UndecidedTransaction};
use teeline_archive::{OffsetRange, OffsetSet};

use super::{Lost, Only, Request, contested};
use crate::absences;
use crate::cursor::BlockChoice;
use crate::transactions::Evidence;
use crate::window::{Position, Window};

/// One partition of a plan.
#[derive(Debug, Clone)]
pub struct PartitionPlan {
    /// Its number.
    pub partition: i32,
    /// Segments with records of the window, and those that claim offsets of these.
    pub segments: Vec<Arc<SegmentInfo>>,
    /// Offsets that several segments claim: their blocks are read whatever their timestamps.
    pub contested: OffsetSet,
    /// What of the segments counts no more.
    pub lost: Lost,
    /// Segments that may hold the markers of their transactions.
    pub marker_segments: Vec<Arc<SegmentInfo>>,
    /// Unconfirmed segments that will be restored.
    pub unconfirmed: Vec<Arc<SegmentInfo>>,
    /// Records of doubtful unconfirmed segments that will not.
    pub records_quarantined: u64,
    /// Records of segments that are left out whole, since the log has lost all of them.
    pub records_superseded: u64,
    /// Offsets held.
    pub held: OffsetSet,
    /// Offsets missing, for no good reason.
    pub holes: Vec<OffsetRange>,
    /// Ends of transactions known without their markers.
    pub evidence: Vec<Evidence>,
    /// Transactions of which the archive certainly does not know the end.
    pub undecided: Vec<UndecidedTransaction>,
    /// At most so many records will be restored.
    pub records_max: u64,
    /// Bytes of the archive that will be read.
    pub archive_bytes: u64,
}

impl PartitionPlan {
    /// Whether there is anything to restore.
    pub fn is_empty(&self) -> bool {
        self.segments.is_empty() && self.unconfirmed.is_empty()
    }
}

pub(super) fn plan_partition(number: i32, partition: &PartitionState, request: &Request) -> PartitionPlan {
    let lost = Lost::of(partition);
    let in_window = |segment: &SegmentInfo| {
        let window = request.window;
        // Segments of markers only hold nothing to restore; their markers are found by their footers.
        segment.record_count > 0
            && window.position(segment.timestamp_min, segment.timestamp_max) != Position::Outside
    };
    let whole_gone =
        |segment: &SegmentInfo| lost.of_segment(&segment.key).is_some() && lost.held_by(segment).is_empty();
    let wanted = |segment: &SegmentInfo| in_window(segment) && !whole_gone(segment);
    let contested = contested::contested(partition.segments(), &lost, wanted);
    // What else claims the offsets of wanted records may be what the source kept, whatever its timestamps.
    let rivals = |segment: &SegmentInfo| {
        contested::touches(&contested, segment.range()) && !lost.held_by(segment).is_empty()
    };
    let chosen = |segment: &SegmentInfo| match request.only {
        None | Some(Only::Unconfirmed) => wanted(segment) || rivals(segment),
        Some(Only::Disputed) => rivals(segment),
        Some(Only::Superseded) => {
            rivals(segment) || lost.gone_from(&segment.key).is_some() && in_window(segment)
        }
    };
    let segments = pick(partition.segments(), chosen);
    let (quarantined, unconfirmed): (Vec<_>, Vec<_>) = partition
        .unconfirmed()
        .iter()
        .filter(|segment| in_window(segment) && matches!(request.only, None | Some(Only::Unconfirmed)))
        .partition(|segment| segment.quarantined && !request.include_quarantined);
    let superseded = partition
        .segments()
        .iter()
        .filter(|segment| request.only.is_none() && in_window(segment) && whole_gone(segment));
    let mut plan = PartitionPlan {
        partition: number,
        records_quarantined: sum(quarantined.iter().copied(), |segment| segment.record_count),
        records_superseded: sum(superseded, |segment| lost.records_gone(segment)),
        held: partition.held(),
        holes: holes(partition),
        evidence: evidence(partition),
        undecided: undecided(partition, &segments, &lost),
        records_max: 0,
        archive_bytes: 0,
        marker_segments: marker_segments(partition, &segments, &lost),
        segments,
        contested,
        lost,
        unconfirmed: unconfirmed.into_iter().cloned().map(Arc::new).collect(),
    };
    if let Some(only) = request.only {
        plan.narrow(only);
    }
    plan.reckon(request.only);
    plan
}

impl PartitionPlan {
    /// Of one class of records: what is missing besides says nothing about them.
    fn narrow(&mut self, only: Only) {
        self.holes.clear();
        self.undecided.clear();
        // The confirmed segments are read to see which unconfirmed batches are in them too.
        if only == Only::Unconfirmed && self.unconfirmed.is_empty() {
            self.segments.clear();
        }
    }

    /// Which blocks of one of its segments are read.
    pub(crate) fn blocks_of<'a>(
        &'a self,
        info: &SegmentInfo,
        window: Window,
        only: Option<Only>,
    ) -> BlockChoice<'a> {
        blocks_of(info, window, only, &self.contested, &self.lost)
    }

    fn reckon(&mut self, only: Option<Only>) {
        let all = || self.segments.iter().chain(&self.unconfirmed).map(Arc::as_ref);
        let contested = |segment: &SegmentInfo| contested::touches(&self.contested, segment.range());
        self.records_max = sum(all(), |segment| match only {
            None => segment
                .record_count
                .saturating_sub(self.lost.records_gone(segment)),
            Some(Only::Unconfirmed) if !segment.unconfirmed() => 0,
            Some(Only::Superseded) if !contested(segment) => self.lost.records_gone(segment),
            Some(_) => segment.record_count,
        });
        self.archive_bytes = sum(all(), |segment| segment.object_bytes);
    }
}

/// What has to be read to see which records of a partition are disputed; `None` when no two segments overlap.
pub(crate) fn disputes(number: i32, partition: &PartitionState) -> Option<PartitionPlan> {
    let request = Request {
        only: Some(Only::Disputed),
        ..Request::default()
    };
    let plan = plan_partition(number, partition, &request);
    (!plan.is_empty()).then_some(plan)
}

/// Which blocks of a segment are read.
pub(crate) fn blocks_of<'a>(
    info: &SegmentInfo,
    window: Window,
    only: Option<Only>,
    contested: &'a OffsetSet,
    lost: &'a Lost,
) -> BlockChoice<'a> {
    BlockChoice {
        window,
        // Provisional offsets claim nothing.
        contested: (!info.unconfirmed()).then_some(contested),
        skipped: match only {
            Some(Only::Superseded) => None,
            _ => lost.of_segment(&info.key),
        },
    }
}

fn sum<'a>(segments: impl Iterator<Item = &'a SegmentInfo>, count: impl Fn(&SegmentInfo) -> u64) -> u64 {
    segments.fold(0, |sum, segment| sum.saturating_add(count(segment)))
}

fn pick(segments: &[SegmentInfo], chosen: impl Fn(&SegmentInfo) -> bool) -> Vec<Arc<SegmentInfo>> {
    let chosen = segments.iter().filter(|segment| chosen(segment));
    chosen.cloned().map(Arc::new).collect()
}

/// Where the markers of the segments' transactions may be. A marker that the log has lost ends nothing.
fn marker_segments(
    partition: &PartitionState,
    segments: &[Arc<SegmentInfo>],
    lost: &Lost,
) -> Vec<Arc<SegmentInfo>> {
    let first = segments.iter().map(|segment| segment.start_offset).min();
    let transactional = segments.iter().any(|segment| segment.transactional_count > 0);
    let Some(first) = first.filter(|_| transactional) else {
        return Vec::new();
    };
    pick(partition.segments(), |segment| {
        segment.control_count > 0 && segment.end_offset >= first && !lost.held_by(segment).is_empty()
    })
}

/// What is missing between the first and the last offset held. What compaction or retention took on the source is
/// not missing: the topic would not have it either. What went down with the source is, and what we were not let read.
fn holes(partition: &PartitionState) -> Vec<OffsetRange> {
    let held = partition.held();
    let (Some(first), Some(last)) = (held.first(), held.last()) else {
        return Vec::new();
    };
    let mut explained = held;
    absences::in_force(partition)
        .filter(|(absence, _)| source_has_nothing(absence.reason))
        .for_each(|(_, range)| explained.insert(range));
    explained.holes(OffsetRange { first, last })
}

/// Whether the topic itself has nothing there, as far as the backup is concerned.
fn source_has_nothing(reason: AbsenceReason) -> bool {
    match reason {
        AbsenceReason::Compacted
        | AbsenceReason::Deleted
        | AbsenceReason::Truncated
        | AbsenceReason::NotWanted => true,
        AbsenceReason::SourceLost | AbsenceReason::NotAuditable | AbsenceReason::Unknown(_) => false,
    }
}

fn evidence(partition: &PartitionState) -> Vec<Evidence> {
    let known = partition.evidence().iter();
    known
        .map(|entry| Evidence {
            producer_id: entry.producer_id,
            producer_epoch: entry.producer_epoch,
            first_offset: entry.first_offset,
            last_offset: entry.last_offset,
            commit: entry.commit,
        })
        .collect()
}

/// Transactions that were open when their segment closed, and that neither a marker behind them nor evidence can have
/// ended. Others may turn out undecided while restoring.
pub(super) fn undecided(
    partition: &PartitionState,
    segments: &[Arc<SegmentInfo>],
    lost: &Lost,
) -> Vec<UndecidedTransaction> {
    let markers_up_to = partition
        .segments()
        .iter()
        .filter(|segment| segment.control_count > 0)
        .filter_map(|segment| lost.held_by(segment).last())
        .max()
        .unwrap_or(-1);
    let evident = |open: &UndecidedTransaction| {
        partition.evidence().iter().any(|entry| {
            entry.producer_id == open.producer_id
                && entry.producer_epoch == open.producer_epoch
                && entry.first_offset <= open.last_offset
                && open.first_offset <= entry.last_offset
        })
    };
    let open = segments.iter().flat_map(|segment| {
        let gone = lost.of_segment(&segment.key);
        segment.undecided.iter().filter(move |open| {
            let range = OffsetRange::new(open.first_offset, open.last_offset);
            !gone
                .zip(range)
                .is_some_and(|(gone, range)| gone.contains_range(range))
        })
    });
    open.filter(|open| open.last_offset > markers_up_to && !evident(open))
        .copied()
        .collect()
}

/// The transactions that were open where the ledger of a partition ends, as far as it can tell without reading
/// segments.
pub(crate) fn open_at_the_end(partition: &PartitionState) -> Vec<UndecidedTransaction> {
    let lost = Lost::of(partition);
    let segments = pick(partition.segments(), |segment| !segment.undecided.is_empty());
    undecided(partition, &segments, &lost)
}
