//! Which offsets the segments of a partition hold, kept up to date entry by entry.
//!
//! The answer is asked for by every round of an audit, every plan of a restore and every manifest, and an archive may
//! have millions of segments: so it is not worked out anew each time. It depends on what was said, not on the order in
//! which chains said it.

use crate::ranges::{OffsetRange, OffsetSet};
use crate::segment::SegmentInfo;
use std::collections::BTreeMap;

/// What is held, and what of which segment counts no more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct HeldIndex {
    held: OffsetSet,
    /// By key; of other chains it may come before the segments do.
    lost: BTreeMap<String, OffsetSet>,
    /// No segment reaches farther from its start: those that begin earlier than that before a range end before it.
    reach: u64,
}

impl HeldIndex {
    /// The offsets held by all segments.
    pub(crate) fn held(&self) -> &OffsetSet {
        &self.held
    }

    /// The offsets of a segment that count no more.
    pub(crate) fn lost_of(&self, key: &str) -> Option<&OffsetSet> {
        self.lost.get(key)
    }

    /// What a segment vouches for.
    pub(crate) fn held_by(&self, segment: &SegmentInfo) -> OffsetSet {
        let mut own: OffsetSet = [segment.range()].into_iter().collect();
        let lost = self.lost.get(&segment.key).map_or(&[][..], OffsetSet::ranges);
        for missing in segment.gaps.iter().chain(lost) {
            own.remove(*missing);
        }
        own
    }

    /// A segment of which others may take the place at once: its reach counts whatever the order.
    pub(crate) fn note_reach(&mut self, segment: &SegmentInfo) {
        self.reach = self.reach.max(segment.range().span());
    }

    /// A segment is listed.
    pub(crate) fn add(&mut self, segment: &SegmentInfo) {
        // What one segment lacks may be held by another, so it is cut out before joining.
        let own = self.held_by(segment);
        own.ranges().iter().for_each(|range| self.held.insert(*range));
    }

    /// A range of a segment counts no more. `segments` are all that are listed, by start offset.
    pub(crate) fn lose(&mut self, key: &str, range: OffsetRange, segments: &[SegmentInfo]) {
        let lost = self.lost.entry(key.to_owned()).or_default();
        if lost.contains_range(range) {
            return;
        }
        lost.insert(range);
        self.recount(range, segments);
    }

    /// Segments that hold something of a range have come or gone: asks all that reach into it.
    pub(crate) fn recount(&mut self, range: OffsetRange, segments: &[SegmentInfo]) {
        self.held.remove(range);
        let reach = i64::try_from(self.reach).unwrap_or(i64::MAX);
        let earliest = range.first.saturating_sub(reach);
        let from = segments.partition_point(|segment| segment.start_offset < earliest);
        let near = segments
            .iter()
            .skip(from)
            .take_while(|segment| segment.start_offset <= range.last)
            .filter(|segment| segment.range().overlaps(&range));
        for segment in near {
            for own in self.held_by(segment).ranges() {
                let within = OffsetRange::new(own.first.max(range.first), own.last.min(range.last));
                if let Some(within) = within {
                    self.held.insert(within);
                }
            }
        }
    }
}
