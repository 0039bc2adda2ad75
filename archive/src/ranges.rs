//! Sets of Kafka offsets: what is held, what is missing.

use std::fmt;

/// A run of offsets, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OffsetRange {
    /// First offset.
    pub first: i64,
    /// Last offset, included; never below `first`.
    pub last: i64,
}

impl OffsetRange {
    /// A range, or `None` when it would be empty.
    pub fn new(first: i64, last: i64) -> Option<OffsetRange> {
        (first <= last).then_some(OffsetRange { first, last })
    }

    /// How many offsets it spans.
    pub fn span(&self) -> u64 {
        // abs_diff cannot overflow; the +1 saturates only for the full range of i64.
        self.last.abs_diff(self.first).saturating_add(1)
    }

    /// Whether the offset lies inside.
    pub fn contains(&self, offset: i64) -> bool {
        self.first <= offset && offset <= self.last
    }

    /// Whether both share an offset.
    pub fn overlaps(&self, other: &OffsetRange) -> bool {
        self.first <= other.last && other.first <= self.last
    }
}

impl fmt::Display for OffsetRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..={}", self.first, self.last)
    }
}

/// A set of offsets as sorted, disjoint, non-adjacent ranges.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OffsetSet {
    ranges: Vec<OffsetRange>,
}

impl OffsetSet {
    /// The empty set.
    pub fn new() -> OffsetSet {
        OffsetSet::default()
    }

    /// The ranges, in order.
    pub fn ranges(&self) -> &[OffsetRange] {
        &self.ranges
    }

    /// Whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// The lowest offset held.
    pub fn first(&self) -> Option<i64> {
        self.ranges.first().map(|range| range.first)
    }

    /// The highest offset held.
    pub fn last(&self) -> Option<i64> {
        self.ranges.last().map(|range| range.last)
    }

    /// How many offsets it holds.
    pub fn span(&self) -> u64 {
        self.ranges
            .iter()
            .fold(0, |sum, range| sum.saturating_add(range.span()))
    }

    /// Whether the offset is held.
    pub fn contains(&self, offset: i64) -> bool {
        let after = self.ranges.partition_point(|range| range.last < offset);
        self.ranges.get(after).is_some_and(|range| range.contains(offset))
    }

    /// Whether every offset of the range is held.
    pub fn contains_range(&self, wanted: OffsetRange) -> bool {
        let after = self.ranges.partition_point(|range| range.last < wanted.first);
        self.ranges
            .get(after)
            .is_some_and(|range| range.first <= wanted.first && wanted.last <= range.last)
    }

    /// Adds a range, joining what touches it.
    pub fn insert(&mut self, range: OffsetRange) {
        debug_assert!(range.first <= range.last);
        // Ranges that end right before the new one touch it, hence the saturating neighbours.
        let from = self
            .ranges
            .partition_point(|held| held.last < range.first.saturating_sub(1));
        let to = self
            .ranges
            .partition_point(|held| held.first <= range.last.saturating_add(1));
        let mut joined = range;
        for held in self.ranges.get(from..to).unwrap_or_default() {
            joined.first = joined.first.min(held.first);
            joined.last = joined.last.max(held.last);
        }
        self.ranges.splice(from..to.max(from), [joined]);
    }

    /// Takes a range away.
    pub fn remove(&mut self, range: OffsetRange) {
        let from = self.ranges.partition_point(|held| held.last < range.first);
        let to = self.ranges.partition_point(|held| held.first <= range.last);
        let mut kept = Vec::new();
        for held in self.ranges.get(from..to).unwrap_or_default() {
            kept.extend(OffsetRange::new(
                held.first,
                held.last.min(range.first.saturating_sub(1)),
            ));
            kept.extend(OffsetRange::new(
                held.first.max(range.last.saturating_add(1)),
                held.last,
            ));
        }
        // At the ends of i64 the saturation above would keep one offset too many.
        kept.retain(|part| !part.overlaps(&range));
        self.ranges.splice(from..to.max(from), kept);
    }

    /// What is missing inside a window, in order.
    pub fn holes(&self, window: OffsetRange) -> Vec<OffsetRange> {
        let mut missing = OffsetSet { ranges: vec![window] };
        let from = self.ranges.partition_point(|held| held.last < window.first);
        for held in self
            .ranges
            .iter()
            .skip(from)
            .take_while(|held| held.first <= window.last)
        {
            missing.remove(*held);
        }
        missing.ranges
    }

    /// What is missing between the first and the last offset held.
    pub fn inner_holes(&self) -> Vec<OffsetRange> {
        match (self.first(), self.last()) {
            (Some(first), Some(last)) => self.holes(OffsetRange { first, last }),
            _ => Vec::new(),
        }
    }
}

impl FromIterator<OffsetRange> for OffsetSet {
    fn from_iter<I: IntoIterator<Item = OffsetRange>>(ranges: I) -> OffsetSet {
        let mut set = OffsetSet::new();
        for range in ranges {
            set.insert(range);
        }
        set
    }
}

#[cfg(test)]
#[allow(clippy::indexing_slicing)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn range(first: i64, last: i64) -> OffsetRange {
        OffsetRange { first, last }
    }

    #[test]
    fn adjacent_ranges_join_and_holes_are_what_lies_between() {
        let set: OffsetSet = [range(0, 9), range(20, 29), range(10, 14)].into_iter().collect();
        assert_eq!(set.ranges(), [range(0, 14), range(20, 29)]);
        assert_eq!(set.inner_holes(), [range(15, 19)]);
        assert_eq!(
            set.holes(range(-5, 40)),
            [range(-5, -1), range(15, 19), range(30, 40)]
        );
        assert_eq!(set.span(), 25);
        assert!(set.contains_range(range(3, 14)) && !set.contains_range(range(3, 15)));
    }

    #[test]
    fn the_ends_of_the_number_line_do_not_overflow() {
        let mut set = OffsetSet::new();
        set.insert(range(i64::MIN, i64::MAX));
        assert_eq!(set.span(), u64::MAX);
        set.remove(range(i64::MIN, i64::MIN));
        set.remove(range(i64::MAX, i64::MAX));
        assert_eq!(set.ranges(), [range(i64::MIN + 1, i64::MAX - 1)]);
    }

    proptest! {
        #[test]
        fn behaves_like_a_set_of_numbers(steps in prop::collection::vec((any::<bool>(), 0i64..60, 0i64..12), 0..40)) {
            let mut set = OffsetSet::new();
            let mut model = BTreeSet::new();
            for (add, first, more) in steps {
                let step = range(first, first + more);
                if add { set.insert(step); model.extend(first..=first + more); }
                else { set.remove(step); model.retain(|offset| !step.contains(*offset)); }
            }
            for offset in -1..80 {
                prop_assert_eq!(set.contains(offset), model.contains(&offset));
            }
            for pair in set.ranges().windows(2) {
                prop_assert!(pair[0].last + 1 < pair[1].first);
            }
            let missing: u64 = set.holes(range(0, 79)).iter().map(OffsetRange::span).sum();
            prop_assert_eq!(missing + set.span(), 80);
        }
    }
}
