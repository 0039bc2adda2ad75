//! How far a job has come, and what a response means for it. Pure.

use std::collections::VecDeque;

use bytes::Bytes;
use teeline_archive::OffsetRange;
use teeline_wire::batch::{BatchError, BatchView};

/// What a response says about wanted offsets; in order.
#[derive(Debug, Clone)]
pub enum Piece {
    /// A batch with wanted offsets. A slice of the response.
    Batch(BatchView),
    /// The log has nothing here.
    Absent(OffsetRange),
    /// The source has a batch here that is not what a batch must be.
    Unreadable(OffsetRange, BatchError),
}

/// The wanted ranges that are still ahead.
#[derive(Debug, Clone)]
pub struct Walk {
    ranges: VecDeque<OffsetRange>,
    /// Everything before is dealt with.
    next: i64,
}

/// What a response brought.
#[derive(Debug, Default)]
pub struct Taken {
    /// The pieces.
    pub pieces: Vec<Piece>,
    /// Why the walk stopped before the end of the response, if it did.
    pub damage: Option<BatchError>,
}

impl Walk {
    /// Begins before the first range. Ranges are in order and apart.
    pub fn new(ranges: impl IntoIterator<Item = OffsetRange>) -> Self {
        Walk {
            ranges: ranges.into_iter().collect(),
            next: i64::MIN,
        }
    }

    /// The first offset that is not dealt with; `None` when all are.
    pub fn position(&self) -> Option<i64> {
        self.ranges.front().map(|range| range.first.max(self.next))
    }

    /// What is left of the current range.
    pub fn current(&self) -> Option<OffsetRange> {
        self.ahead().next()
    }

    /// What is ahead, the current range first.
    pub fn ahead(&self) -> impl Iterator<Item = OffsetRange> + '_ {
        self.ranges
            .iter()
            .filter_map(|range| OffsetRange::new(range.first.max(self.next), range.last))
    }

    /// Takes a response in that was asked for at the present position. Batches come whole, so the first one may begin
    /// before it. A batch that cannot be read ends the walk there; a `tolerant` walk steps over it.
    pub fn take(&mut self, records: &Bytes, tolerant: bool) -> Taken {
        let mut taken = Taken::default();
        let mut rest = records.clone();
        while let (Some(position), false) = (self.position(), rest.is_empty()) {
            let (entry, error) = match BatchView::parse(&rest) {
                // The last batch may be cut, and comes whole next time.
                Err(BatchError::Incomplete { .. }) => break,
                Err(error) => (None, Some(error)),
                Ok(view) if view.header().last_offset() < position => {
                    rest = rest.split_off(view.bytes().len());
                    continue;
                }
                Ok(view) => match view.verify_crc() {
                    Ok(()) => (Some(view), None),
                    Err(error) => (None, Some(error)),
                },
            };
            if let Some(view) = entry {
                rest = rest.split_off(view.bytes().len());
                self.skip_to(view.header().base_offset, |gone| {
                    taken.pieces.push(Piece::Absent(gone))
                });
                let last = view.header().last_offset();
                if self.position().is_some_and(|position| position <= last) {
                    taken.pieces.push(Piece::Batch(view));
                }
                self.pass(last);
                continue;
            }
            let error = error.unwrap_or(BatchError::UnsupportedMagic { magic: -1 });
            let (true, Some(entry)) = (tolerant, Entry::read(&rest)) else {
                taken.damage = Some(error);
                break;
            };
            if rest.len() < entry.bytes {
                break;
            }
            rest = rest.split_off(entry.bytes);
            self.skip_to(entry.last_offset.saturating_add(1), |range| {
                taken.pieces.push(Piece::Unreadable(range, error.clone()));
            });
        }
        taken
    }

    /// Everything before `offset` is dealt with: `told` hears which wanted offsets that were.
    pub fn skip_to(&mut self, offset: i64, mut told: impl FnMut(OffsetRange)) {
        while let Some(range) = self.current().filter(|range| range.first < offset) {
            let last = range.last.min(offset.saturating_sub(1));
            told(OffsetRange {
                first: range.first,
                last,
            });
            self.pass(last);
        }
    }

    fn pass(&mut self, last: i64) {
        self.next = self.next.max(last.saturating_add(1));
        while self.ranges.front().is_some_and(|range| range.last < self.next) {
            self.ranges.pop_front();
        }
    }
}

/// An entry of the log as far as its first bytes tell, which all message formats have in common.
struct Entry {
    last_offset: i64,
    bytes: usize,
}

impl Entry {
    fn read(bytes: &[u8]) -> Option<Entry> {
        let base_offset = i64::from_be_bytes(*bytes.first_chunk()?);
        let length = i32::from_be_bytes(*bytes.get(8..)?.first_chunk()?);
        let length = usize::try_from(length)
            .ok()
            .filter(|length| *length >= BYTES_MIN)?;
        // Before format 2 an entry carries the offset of its last record.
        let delta = match *bytes.get(16)? {
            0 | 1 => 0,
            _ => i32::from_be_bytes(*bytes.get(23..)?.first_chunk()?),
        };
        if base_offset < 0 || !(0..DELTA_MAX).contains(&delta) {
            return None;
        }
        Some(Entry {
            last_offset: base_offset.checked_add(i64::from(delta))?,
            bytes: length.checked_add(12)?,
        })
    }
}

/// The shortest message of the oldest format.
const BYTES_MIN: usize = 14;
/// A damaged length must not make us step over good records: no batch of ordinary size has more than this.
const DELTA_MAX: i32 = 1 << 20;

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;
    use crate::testing::batch;
    use proptest::prelude::*;
    use teeline_archive::OffsetSet;

    fn range(first: i64, last: i64) -> OffsetRange {
        OffsetRange { first, last }
    }

    fn log(bases: &[(i64, u32)]) -> Bytes {
        bases
            .iter()
            .flat_map(|(base, records)| batch(*base, *records))
            .collect::<Vec<u8>>()
            .into()
    }

    fn told(taken: &Taken) -> Vec<(char, i64, i64)> {
        let tell = |piece: &Piece| match piece {
            Piece::Batch(view) => ('b', view.header().base_offset, view.header().last_offset()),
            Piece::Absent(range) => ('a', range.first, range.last),
            Piece::Unreadable(range, _) => ('u', range.first, range.last),
        };
        taken.pieces.iter().map(tell).collect()
    }

    #[test]
    fn one_response_serves_all_ranges_that_it_covers() {
        let mut walk = Walk::new([range(3, 3), range(7, 8), range(30, 31)]);
        let taken = walk.take(&log(&[(2, 2), (4, 3), (7, 1), (9, 5)]), false);
        assert_eq!(told(&taken), [('b', 2, 3), ('b', 7, 7), ('a', 8, 8)]);
        assert_eq!(walk.position(), Some(30));
    }

    #[test]
    fn what_the_response_does_not_reach_is_left() {
        let mut walk = Walk::new([range(0, 20)]);
        let mut cut = log(&[(0, 5), (5, 5)]);
        cut.truncate(cut.len() - 3);
        assert_eq!(told(&walk.take(&cut, false)), [('b', 0, 4)]);
        assert_eq!(walk.position(), Some(5));
        assert!(walk.take(&Bytes::new(), false).pieces.is_empty());
        assert_eq!(walk.position(), Some(5));
    }

    #[test]
    fn a_batch_that_is_damaged_stops_the_walk_unless_it_is_tolerant() {
        let mut bytes = log(&[(0, 5), (5, 5), (10, 5)]).to_vec();
        let middle = bytes.len() / 2;
        bytes[middle + 10] ^= 1;
        let bytes = Bytes::from(bytes);
        let mut walk = Walk::new([range(0, 14)]);
        let taken = walk.take(&bytes, false);
        assert_eq!(told(&taken), [('b', 0, 4)]);
        assert!(matches!(taken.damage, Some(BatchError::ChecksumMismatch { .. })));
        assert_eq!(walk.position(), Some(5));
        let taken = walk.take(&bytes, true);
        assert_eq!(told(&taken), [('u', 5, 9), ('b', 10, 14)]);
        assert_eq!(walk.position(), None);
    }

    #[test]
    fn messages_of_before_format_two_are_stepped_over_and_named() {
        let mut old = Vec::new();
        old.extend_from_slice(&7i64.to_be_bytes());
        old.extend_from_slice(&60i32.to_be_bytes());
        old.extend_from_slice(&[0, 0, 0, 0, 1]);
        old.resize(72, 0);
        old.extend_from_slice(&batch(8, 2));
        let mut walk = Walk::new([range(5, 9)]);
        let taken = walk.take(&Bytes::from(old), true);
        assert_eq!(told(&taken), [('u', 5, 7), ('b', 8, 9)]);
    }

    proptest! {
        #[test]
        fn every_wanted_offset_is_told_of_once_up_to_where_the_response_ends(
            sizes in prop::collection::vec((0i64..4, 1u32..6), 1..20),
            wanted in prop::collection::vec((1i64..8, 1i64..9), 1..8),
        ) {
            let mut at = 0;
            let mut batches = Vec::new();
            for (gap, records) in sizes {
                at += gap;
                batches.push((at, records));
                at += i64::from(records);
            }
            let mut first = 0;
            let mut ranges = Vec::new();
            for (gap, span) in wanted {
                first += gap;
                ranges.push(range(first, first + span - 1));
                first += span;
            }
            let mut walk = Walk::new(ranges.clone());
            let taken = walk.take(&log(&batches), false);
            let mut seen = OffsetSet::new();
            for (_, first, last) in told(&taken) {
                prop_assert_eq!(seen.holes(range(first, last)), [range(first, last)]);
                seen.insert(range(first, last));
            }
            for range in ranges {
                let reached = OffsetRange::new(range.first, range.last.min(at - 1));
                prop_assert!(reached.is_none_or(|reached| seen.contains_range(reached)));
            }
            prop_assert!(walk.position().is_none_or(|position| position >= at));
        }

        #[test]
        fn noise_does_not_make_it_panic(noise in prop::collection::vec(any::<u8>(), 0..300), tolerant: bool) {
            let mut walk = Walk::new([range(0, i64::MAX)]);
            walk.take(&Bytes::from(noise), tolerant);
        }
    }
}
