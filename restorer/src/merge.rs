//! One log out of many segments: which of the batches waiting at the heads of overlapping segments comes next.
//!
//! Segments may overlap (many writers, backfill) and interleave (markers fetched later lie in segments of their
//! own). Batches are taken by offset. Of two copies of one batch, the one that holds more records wins, since compaction
//! takes records out and supersedes nothing. Of two different batches at the same offsets, the higher leader epoch is
//! what the cluster kept; a batch read back from the cluster has one, and outranks one of unknown epoch that was
//! captured on its way there. Where no epoch decides, the first is kept and the other reported as disputed.

use std::cmp::Ordering;

/// The batch at the head of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// First offset it covers.
    pub base_offset: i64,
    /// Last offset it covers.
    pub last_offset: i64,
    /// Epoch of the leader that appended it, -1 if unknown.
    pub leader_epoch: i32,
    /// Records it holds.
    pub record_count: u32,
    /// Producer id, epoch and base sequence, of an idempotent producer.
    pub producer: Option<(i64, i16, i32)>,
}

/// Why a batch is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dropped {
    /// Its offsets are taken already by the same or an equivalent batch.
    Duplicate,
    /// The cluster acknowledged it and lost it: a later leader wrote other records at its offsets.
    Superseded,
    /// Another batch claims its offsets, and nothing tells which of the two the cluster kept.
    Disputed,
}

/// What to do with one of the heads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// This head comes next. If it begins below the next offset, only its records from there on are new.
    Take(usize),
    /// This head is passed over.
    Drop(usize, Dropped),
}

/// What one batch is to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rival {
    /// Nothing: elsewhere, or the same batch.
    None,
    /// It was written over the other.
    Supersedes,
    /// The other was written over it.
    IsSuperseded,
    /// Both claim the same offsets.
    Disputes,
}

impl Head {
    /// Whether both cover a common offset.
    fn overlaps(&self, other: &Self) -> bool {
        self.base_offset <= other.last_offset && other.base_offset <= self.last_offset
    }

    /// Whether both are the same batch, perhaps one of them compacted or labelled with another epoch.
    fn is_same_batch(&self, other: &Self) -> bool {
        let same_place = self.base_offset == other.base_offset && self.last_offset == other.last_offset;
        same_place
            && match (self.producer, other.producer) {
                (Some(mine), Some(theirs)) => mine == theirs,
                // Without a producer: brokers take dense batches only, so one that is not has been compacted.
                (None, None) => {
                    self.record_count == other.record_count || !self.is_dense() || !other.is_dense()
                }
                _ => false,
            }
    }

    fn is_dense(&self) -> bool {
        self.last_offset.abs_diff(self.base_offset).saturating_add(1) == u64::from(self.record_count)
    }

    /// What the other one is to this one.
    fn against(&self, other: &Self) -> Rival {
        if !self.overlaps(other) || self.is_same_batch(other) {
            return Rival::None;
        }
        match self.leader_epoch.cmp(&other.leader_epoch) {
            // -1, unknown, is below every epoch: what was read back from the cluster has one.
            Ordering::Less => Rival::Supersedes,
            Ordering::Greater => Rival::IsSuperseded,
            Ordering::Equal => Rival::Disputes,
        }
    }

    /// The order among batches at the same offsets that do not supersede each other.
    fn preference(&self) -> (u32, i64, i32) {
        (self.record_count, self.last_offset, self.leader_epoch)
    }
}

/// The next step, or `None` when there is no head. `next_offset` is the first offset not taken yet; `heads` must hold
/// every batch that overlaps the lowest one.
pub fn next_step(heads: &[Option<Head>], next_offset: i64) -> Option<Step> {
    let present = || {
        heads
            .iter()
            .enumerate()
            .filter_map(|(at, head)| head.as_ref().map(|head| (at, head)))
    };
    if let Some((at, _)) = present().find(|(_, head)| head.last_offset < next_offset) {
        return Some(Step::Drop(at, Dropped::Duplicate));
    }
    let (lowest_at, lowest) = present().min_by_key(|(_, head)| head.base_offset)?;
    let mut best = (lowest_at, lowest);
    for (at, head) in present().filter(|(_, head)| head.overlaps(lowest)) {
        match lowest.against(head) {
            Rival::None => {}
            Rival::Supersedes => return Some(Step::Drop(lowest_at, Dropped::Superseded)),
            Rival::IsSuperseded => return Some(Step::Drop(at, Dropped::Superseded)),
            Rival::Disputes => return Some(Step::Drop(at, Dropped::Disputed)),
        }
        if head.base_offset == lowest.base_offset && head.preference() > best.1.preference() {
            best = (at, head);
        }
    }
    Some(Step::Take(best.0))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn head(base_offset: i64, last_offset: i64, leader_epoch: i32) -> Option<Head> {
        let record_count = u32::try_from(last_offset - base_offset + 1).unwrap();
        Some(Head {
            base_offset,
            last_offset,
            leader_epoch,
            record_count,
            producer: None,
        })
    }

    #[test]
    fn the_lowest_offset_comes_first() {
        assert_eq!(
            next_step(&[head(10, 19, 1), head(0, 9, 1)], 0),
            Some(Step::Take(1))
        );
        assert_eq!(next_step(&[None, None], 0), None);
        assert_eq!(next_step(&[], 0), None);
    }

    #[test]
    fn what_is_taken_already_is_a_duplicate() {
        assert_eq!(
            next_step(&[head(0, 9, 1), head(10, 12, 1)], 10),
            Some(Step::Drop(0, Dropped::Duplicate))
        );
    }

    #[test]
    fn a_later_leader_supersedes_what_it_wrote_over() {
        assert_eq!(
            next_step(&[head(0, 9, 1), head(5, 14, 2)], 0),
            Some(Step::Drop(0, Dropped::Superseded))
        );
        assert_eq!(
            next_step(&[head(0, 9, 2), head(5, 14, 1)], 0),
            Some(Step::Drop(1, Dropped::Superseded))
        );
        // What was read back from the cluster outranks what was seen on its way there.
        assert_eq!(
            next_step(&[head(0, 9, -1), head(5, 14, 2)], 0),
            Some(Step::Drop(0, Dropped::Superseded))
        );
        assert_eq!(
            next_step(&[head(0, 9, 2), head(5, 14, -1)], 0),
            Some(Step::Drop(1, Dropped::Superseded))
        );
    }

    #[test]
    fn where_no_epoch_decides_the_second_is_disputed() {
        assert_eq!(
            next_step(&[head(5, 14, -1), head(0, 9, -1)], 0),
            Some(Step::Drop(0, Dropped::Disputed))
        );
        let one = head(0, 9, 3).map(|head| Head {
            producer: Some((1, 0, 0)),
            ..head
        });
        let other = head(0, 9, 3).map(|head| Head {
            producer: Some((2, 0, 0)),
            ..head
        });
        assert_eq!(
            next_step(&[one, other], 0),
            Some(Step::Drop(1, Dropped::Disputed))
        );
    }

    #[test]
    fn a_compacted_copy_supersedes_nothing() {
        let producer = Some((4, 0, 0));
        let whole = Head {
            base_offset: 0,
            last_offset: 9,
            leader_epoch: 3,
            record_count: 10,
            producer,
        };
        let compacted = Head {
            leader_epoch: 4,
            record_count: 2,
            ..whole
        };
        assert_eq!(next_step(&[Some(compacted), Some(whole)], 0), Some(Step::Take(1)));
        let unknown = Head {
            leader_epoch: -1,
            ..whole
        };
        assert_eq!(
            next_step(&[Some(compacted), Some(unknown)], 0),
            Some(Step::Take(1))
        );
        let nameless = Head {
            producer: None,
            leader_epoch: -1,
            ..whole
        };
        let nameless_compacted = Head {
            producer: None,
            ..compacted
        };
        assert_eq!(
            next_step(&[Some(nameless_compacted), Some(nameless)], 0),
            Some(Step::Take(1))
        );
        // The same batch, once with its epoch known: the better known copy.
        assert_eq!(next_step(&[Some(unknown), Some(whole)], 0), Some(Step::Take(1)));
    }

    /// Takes everything, as the restore does with single batches as segments, and returns the offsets in order.
    fn drain(segments: &[Vec<Head>]) -> Vec<(i64, i64)> {
        let mut places = vec![0usize; segments.len()];
        let mut next_offset = 0;
        let mut taken = Vec::new();
        loop {
            let heads: Vec<_> = segments
                .iter()
                .zip(&places)
                .map(|(segment, &at)| segment.get(at).copied())
                .collect();
            match next_step(&heads, next_offset) {
                None => return taken,
                Some(Step::Drop(at, _)) => places[at] += 1,
                Some(Step::Take(at)) => {
                    let head = heads[at].unwrap();
                    taken.push((head.base_offset.max(next_offset), head.last_offset));
                    next_offset = head.last_offset + 1;
                    places[at] += 1;
                }
            }
        }
    }

    proptest! {
        /// However batches of one log are spread over segments, and however often each is there, it comes out once.
        #[test]
        fn every_offset_comes_once_and_in_order(
            lengths in proptest::collection::vec(1i64..6, 1..20),
            spread in proptest::collection::vec(proptest::collection::vec(any::<bool>(), 20), 1..5),
        ) {
            let mut log = Vec::new();
            let mut base = 0;
            for (at, length) in lengths.iter().enumerate() {
                log.push(head(base, base + length - 1, i32::try_from(at / 4).unwrap()).unwrap());
                base += length;
            }
            // The first segment holds what no other does, so that nothing is missing.
            let mut segments: Vec<Vec<Head>> = spread
                .iter()
                .map(|chosen| log.iter().zip(chosen).filter(|(_, take)| **take).map(|(head, _)| *head).collect())
                .collect();
            let rest: Vec<Head> = log
                .iter()
                .filter(|head| !segments.iter().any(|segment: &Vec<Head>| segment.contains(head)))
                .copied()
                .collect();
            segments.push(rest);
            let expected: Vec<_> = log.iter().map(|head| (head.base_offset, head.last_offset)).collect();
            prop_assert_eq!(drain(&segments), expected);
        }
    }
}
