//! Which transactional batches are part of the truth.
//!
//! A producer id has at most one open transaction in a partition, so the first marker of that id behind a batch
//! ends its transaction; whatever its epoch. That holds only if nothing is missing in between: in a hole there may
//! have been another marker. Two things help beyond a hole: under the second transaction protocol every
//! transaction has an epoch of its own and its commit marker carries the next one; and the broker's answers to
//! EndTxn, kept in the ledger as evidence. What is left is undecided: left out, counted, reported.

use std::collections::{BTreeMap, HashMap};

/// A transactional batch, as far as the decision needs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TransactionalBatch {
    /// Producer id.
    pub producer_id: i64,
    /// Epoch of the data.
    pub producer_epoch: i16,
    /// First offset of the batch.
    pub base_offset: i64,
    /// Last offset of the batch.
    pub last_offset: i64,
}

/// A transaction marker of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MarkerAt {
    /// Its offset.
    pub offset: i64,
    /// Producer id.
    pub producer_id: i64,
    /// Epoch of the marker.
    pub producer_epoch: i16,
    /// Commit or abort.
    pub commit: bool,
}

/// A broker's answer to EndTxn, tied to the offsets that it was about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Evidence {
    /// Producer id.
    pub producer_id: i64,
    /// Epoch of the data.
    pub producer_epoch: i16,
    /// First offset it covers.
    pub first_offset: i64,
    /// Last offset it covers.
    pub last_offset: i64,
    /// Commit or abort.
    pub commit: bool,
}

/// What became of a batch's transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Consumers with `read_committed` saw it.
    Committed,
    /// The transaction was aborted: not part of the truth.
    Aborted,
    /// The archive cannot tell.
    Undecided,
    /// The archive ends before the transaction does.
    Open,
}

/// The markers of a partition that are known so far, by producer id.
#[derive(Debug, Default)]
pub struct Markers {
    by_producer: HashMap<i64, BTreeMap<i64, MarkerAt>>,
}

impl Markers {
    /// Adds one; the same marker may be added twice.
    pub fn insert(&mut self, marker: MarkerAt) {
        self.by_producer
            .entry(marker.producer_id)
            .or_default()
            .insert(marker.offset, marker);
    }

    /// The first marker of this producer id behind an offset.
    pub fn first_after(&self, producer_id: i64, offset: i64) -> Option<MarkerAt> {
        let from = offset.checked_add(1)?;
        self.by_producer
            .get(&producer_id)?
            .range(from..)
            .next()
            .map(|(_, marker)| *marker)
    }

    /// Lets go of markers below an offset: no batch still to come can need them.
    pub fn forget_below(&mut self, offset: i64) {
        self.by_producer.retain(|_, markers| {
            *markers = markers.split_off(&offset);
            !markers.is_empty()
        });
    }

    /// Markers held.
    pub fn len(&self) -> usize {
        self.by_producer.values().map(BTreeMap::len).sum()
    }

    /// Whether none is held.
    pub fn is_empty(&self) -> bool {
        self.by_producer.is_empty()
    }
}

/// Decides one batch by the first marker behind it (`whole`: no offset between the two is missing), else by evidence.
pub fn decide(
    batch: TransactionalBatch,
    marker: Option<MarkerAt>,
    whole: bool,
    evidence: &[Evidence],
) -> Decision {
    if let Some(marker) = marker {
        let next_epoch = batch.producer_epoch.checked_add(1) == Some(marker.producer_epoch);
        // An epoch never falls; a lower one cannot end this batch's transaction.
        let plausible = marker.producer_epoch >= batch.producer_epoch;
        if plausible && (whole || (next_epoch && marker.commit)) {
            return if marker.commit {
                Decision::Committed
            } else {
                Decision::Aborted
            };
        }
    }
    let covering = evidence.iter().filter(|entry| {
        entry.producer_id == batch.producer_id
            && entry.producer_epoch == batch.producer_epoch
            && entry.first_offset <= batch.base_offset
            && batch.last_offset <= entry.last_offset
    });
    let mut decision = Decision::Undecided;
    for entry in covering {
        let says = if entry.commit {
            Decision::Committed
        } else {
            Decision::Aborted
        };
        if decision != Decision::Undecided && decision != says {
            // Evidence that contradicts itself decides nothing.
            return Decision::Undecided;
        }
        decision = says;
    }
    decision
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    const BATCH: TransactionalBatch = TransactionalBatch {
        producer_id: 7,
        producer_epoch: 3,
        base_offset: 10,
        last_offset: 19,
    };

    fn marker(offset: i64, producer_epoch: i16, commit: bool) -> MarkerAt {
        MarkerAt {
            offset,
            producer_id: 7,
            producer_epoch,
            commit,
        }
    }

    #[test]
    fn the_first_marker_behind_a_batch_decides() {
        assert_eq!(
            decide(BATCH, Some(marker(20, 3, true)), true, &[]),
            Decision::Committed
        );
        assert_eq!(
            decide(BATCH, Some(marker(20, 3, false)), true, &[]),
            Decision::Aborted
        );
        assert_eq!(
            decide(BATCH, Some(marker(20, 4, true)), true, &[]),
            Decision::Committed
        );
        assert_eq!(
            decide(BATCH, Some(marker(20, 9, false)), true, &[]),
            Decision::Aborted
        );
        assert_eq!(decide(BATCH, None, true, &[]), Decision::Undecided);
    }

    #[test]
    fn across_a_hole_only_the_commit_of_the_next_epoch_counts() {
        assert_eq!(
            decide(BATCH, Some(marker(30, 3, true)), false, &[]),
            Decision::Undecided
        );
        assert_eq!(
            decide(BATCH, Some(marker(30, 4, true)), false, &[]),
            Decision::Committed
        );
        // Could be the fencing of a later transaction of the first protocol.
        assert_eq!(
            decide(BATCH, Some(marker(30, 4, false)), false, &[]),
            Decision::Undecided
        );
        assert_eq!(
            decide(BATCH, Some(marker(30, 5, true)), false, &[]),
            Decision::Undecided
        );
    }

    #[test]
    fn evidence_serves_where_the_marker_is_missing() {
        let evidence = Evidence {
            producer_id: 7,
            producer_epoch: 3,
            first_offset: 10,
            last_offset: 19,
            commit: true,
        };
        assert_eq!(decide(BATCH, None, false, &[evidence]), Decision::Committed);
        let aborted = Evidence {
            commit: false,
            ..evidence
        };
        assert_eq!(decide(BATCH, None, false, &[aborted]), Decision::Aborted);
        assert_eq!(
            decide(BATCH, None, false, &[evidence, aborted]),
            Decision::Undecided
        );
        for other in [
            Evidence {
                producer_epoch: 4,
                ..evidence
            },
            Evidence {
                producer_id: 8,
                ..evidence
            },
            Evidence {
                first_offset: 11,
                ..evidence
            },
            Evidence {
                last_offset: 18,
                ..evidence
            },
        ] {
            assert_eq!(decide(BATCH, None, false, &[other]), Decision::Undecided);
        }
        // The log is stronger than the evidence.
        assert_eq!(
            decide(BATCH, Some(marker(20, 3, false)), true, &[evidence]),
            Decision::Aborted
        );
    }

    #[test]
    fn markers_are_found_by_producer_and_forgotten_behind() {
        let mut markers = Markers::default();
        markers.insert(marker(20, 3, true));
        markers.insert(marker(40, 3, false));
        markers.insert(MarkerAt {
            producer_id: 8,
            ..marker(15, 0, true)
        });
        assert_eq!(markers.first_after(7, 19).map(|found| found.offset), Some(20));
        assert_eq!(markers.first_after(7, 20).map(|found| found.offset), Some(40));
        assert_eq!(markers.first_after(7, 40), None);
        assert_eq!(markers.first_after(9, 0), None);
        markers.forget_below(21);
        assert_eq!(markers.len(), 1);
        assert_eq!(markers.first_after(7, 0).map(|found| found.offset), Some(40));
    }
}
