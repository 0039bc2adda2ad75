//! Offsets that more than one segment claims.
//!
//! Which of two batches at the same offsets counts is decided by merging them, so both have to be read; also the one
//! whose timestamps lie outside the window.

use teeline_archive::ledger::PartitionState;
use teeline_archive::segment::SegmentInfo;
use teeline_archive::{OffsetRange, OffsetSet};

use super::Lost;

/// The offsets held by several segments, at least one of them wanted.
pub(super) fn contested(
    segments: &[SegmentInfo],
    lost: &Lost,
    wanted: impl Fn(&SegmentInfo) -> bool,
) -> OffsetSet {
    // Each range begins at one offset and is over at another; between them it counts.
    let mut events: Vec<(i64, i64, i64)> = Vec::new();
    for segment in segments {
        let counts = i64::from(wanted(segment));
        for range in lost.held_by(segment).ranges() {
            events.push((range.first, 1, counts));
            events.push((range.last.saturating_add(1), -1, -counts));
        }
    }
    events.sort_unstable();
    let (mut depth, mut depth_wanted) = (0i64, 0i64);
    let mut since = None;
    let mut contested = OffsetSet::new();
    for (at, change, change_wanted) in events {
        depth += change;
        depth_wanted += change_wanted;
        match (since, depth > 1 && depth_wanted > 0) {
            (None, true) => since = Some(at),
            (Some(first), false) => {
                since = None;
                if let Some(range) = OffsetRange::new(first, at.saturating_sub(1)) {
                    contested.insert(range);
                }
            }
            _ => {}
        }
    }
    contested
}

/// The offsets of a partition that several segments hold. Which of two batches counts is decided by merging them.
pub(crate) fn held_twice(partition: &PartitionState) -> OffsetSet {
    contested(partition.segments(), &Lost::of(partition), |_| true)
}

/// Whether some offset of the range is in the set.
pub(crate) fn touches(set: &OffsetSet, range: OffsetRange) -> bool {
    let after = set.ranges().partition_point(|held| held.last < range.first);
    set.ranges().get(after).is_some_and(|held| held.overlaps(&range))
}
