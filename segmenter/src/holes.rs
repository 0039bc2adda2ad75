//! When a hole has been open long enough to be fetched.
//!
//! Outcomes arrive out of order, so a hole in what is held is mostly an answer still under way. A hole counts only when
//! it has stayed a hole for a grace period; a part of a hole is as old as the hole it was part of.

use teeline_archive::OffsetRange;

/// The holes of one partition and since when they are there.
#[derive(Debug, Default)]
pub struct HoleAges {
    seen: Vec<(OffsetRange, i64)>,
}

impl HoleAges {
    /// Takes in the holes as they are now; both lists are in order of offset.
    pub fn update(&mut self, holes: &[OffsetRange], now_ms: i64) {
        let before = std::mem::take(&mut self.seen);
        self.seen = holes
            .iter()
            .map(|hole| {
                let from = before.partition_point(|(old, _)| old.last < hole.first);
                let overlapping = before.get(from..).unwrap_or_default();
                let since = overlapping
                    .iter()
                    .take_while(|(old, _)| old.first <= hole.last)
                    .map(|&(_, since)| since)
                    .min()
                    .unwrap_or(now_ms);
                (*hole, since)
            })
            .collect();
    }

    /// The holes that are at least as old as `grace_ms` says for each.
    pub fn due(&self, now_ms: i64, grace_ms: impl Fn(&OffsetRange) -> i64) -> Vec<OffsetRange> {
        self.seen
            .iter()
            .filter(|(hole, since)| now_ms.saturating_sub(*since) >= grace_ms(hole))
            .map(|(hole, _)| *hole)
            .collect()
    }

    /// Every hole starts its grace period again: the source could not be asked, or did not have it yet.
    pub fn restart(&mut self, now_ms: i64) {
        for (_, since) in &mut self.seen {
            *since = now_ms;
        }
    }

    /// The holes, in order.
    pub fn ranges(&self) -> impl Iterator<Item = OffsetRange> {
        self.seen.iter().map(|(hole, _)| *hole)
    }

    /// How many offsets the holes have.
    pub fn offsets(&self) -> u64 {
        self.seen
            .iter()
            .fold(0, |sum, (hole, _)| sum.saturating_add(hole.span()))
    }

    /// True when there is none.
    pub fn is_empty(&self) -> bool {
        self.seen.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hole(first: i64, last: i64) -> OffsetRange {
        OffsetRange { first, last }
    }

    #[test]
    fn a_part_of_a_hole_is_as_old_as_the_hole_was() {
        let mut ages = HoleAges::default();
        ages.update(&[hole(10, 20)], 0);
        ages.update(&[hole(10, 12), hole(15, 20), hole(30, 31)], 60);
        assert_eq!(ages.due(100, |_| 100), [hole(10, 12), hole(15, 20)]);
        assert_eq!(ages.due(160, |_| 100), [hole(10, 12), hole(15, 20), hole(30, 31)]);
        assert_eq!(ages.offsets(), 11);
    }

    #[test]
    fn a_hole_that_was_filled_and_came_back_is_new() {
        let mut ages = HoleAges::default();
        ages.update(&[hole(10, 20)], 0);
        ages.update(&[], 50);
        assert!(ages.is_empty());
        ages.update(&[hole(10, 20)], 60);
        assert!(ages.due(100, |_| 100).is_empty());
    }

    #[test]
    fn the_grace_may_differ_from_hole_to_hole() {
        let mut ages = HoleAges::default();
        ages.update(&[hole(1, 1), hole(5, 90)], 0);
        assert_eq!(
            ages.due(10, |hole| if hole.span() == 1 { 10 } else { 1_000 }),
            [hole(1, 1)]
        );
        ages.restart(10);
        assert!(ages.due(15, |_| 10).is_empty());
    }
}
