//! What of each segment counts no more, as the auditor found: what the log has lost, and what another segment holds.

use std::collections::HashMap;

use teeline_archive::ledger::{PartitionState, Superseded};
use teeline_archive::segment::SegmentInfo;
use teeline_archive::{OffsetRange, OffsetSet};

use crate::merge::Dropped;

/// Offsets by the keys of segments. Segments that it does not name count whole.
#[derive(Debug, Clone, Default)]
pub struct Lost {
    /// Superseded by other records, or cut off: not in the log any more.
    gone: HashMap<String, OffsetSet>,
    /// These, and what another segment holds as well.
    all: HashMap<String, OffsetSet>,
}

impl Lost {
    /// What the ledger says about one partition.
    pub fn of(partition: &PartitionState) -> Self {
        let mut lost = Self::default();
        let add = |map: &mut HashMap<String, OffsetSet>, superseded: &Superseded| {
            map.entry(superseded.segment.clone())
                .or_default()
                .insert(superseded.range());
        };
        for superseded in partition.superseded() {
            add(&mut lost.gone, superseded);
            add(&mut lost.all, superseded);
        }
        for copy in partition.superseded_copies() {
            add(&mut lost.all, copy);
        }
        lost
    }

    /// Whether everything counts.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// The offsets of a segment that count no more.
    pub fn of_segment(&self, key: &str) -> Option<&OffsetSet> {
        self.all.get(key)
    }

    /// The offsets of a segment that are not in the log any more.
    pub fn gone_from(&self, key: &str) -> Option<&OffsetSet> {
        self.gone.get(key)
    }

    /// Why a batch of a segment is passed over, if it is. One that is lost in part only is left to merging.
    pub fn verdict(&self, key: &str, batch: OffsetRange) -> Option<Dropped> {
        if !self.all.get(key)?.contains_range(batch) {
            return None;
        }
        let touched = self.gone.get(key).is_some_and(|gone| super::touches(gone, batch));
        Some(if touched {
            Dropped::Superseded
        } else {
            Dropped::Duplicate
        })
    }

    /// What a segment holds: what it spans without its gaps and without what counts no more.
    pub fn held_by(&self, segment: &SegmentInfo) -> OffsetSet {
        let mut held: OffsetSet = [segment.range()].into_iter().collect();
        segment.gaps.iter().for_each(|gap| held.remove(*gap));
        let lost = self.all.get(&segment.key);
        lost.iter()
            .flat_map(|set| set.ranges())
            .for_each(|range| held.remove(*range));
        held
    }

    /// Records of a segment that are not in the log any more, at most. The ledger counts by segment only.
    pub fn records_gone(&self, segment: &SegmentInfo) -> u64 {
        let Some(gone) = self.gone.get(&segment.key) else {
            return 0;
        };
        let span = gone
            .ranges()
            .iter()
            .filter_map(|range| {
                OffsetRange::new(
                    range.first.max(segment.start_offset),
                    range.last.min(segment.end_offset),
                )
            })
            .fold(0u64, |sum, range| sum.saturating_add(range.span()));
        span.min(segment.record_count)
    }
}
