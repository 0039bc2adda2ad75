//! EndTxn answers into the ledger, for transactions whose marker has not been seen.

use std::collections::HashMap;

use teeline_archive::ids::BufferPosition;
use teeline_archive::ledger::{Entry, TxnEvidence};

use super::Engine;
use super::work::CommitPlan;
use crate::partition::PartitionId;
use crate::transactions::{Ending, OpenTransaction};

/// What is undecided, by producer.
type OpenByProducer = HashMap<i64, Vec<(PartitionId, OpenTransaction)>>;

impl Engine {
    /// Lets go of answers that nothing is left to decide for, and forgets those that give no order any more.
    pub(super) fn look_at_endings(&mut self, now_ms: i64) {
        self.evidence_due = false;
        if self.endings.is_empty() {
            return;
        }
        let open = self.open_by_producer();
        let below = self.endings.below(self.lowest_unplaced());
        let latest: HashMap<i64, BufferPosition> = below
            .iter()
            .map(|(producer, ending)| (*producer, ending.position))
            .collect();
        let all_placed = self.settlement.is_placed();
        for (producer_id, ending) in below {
            let own = open.get(&producer_id).map(Vec::as_slice).unwrap_or_default();
            let decides = own.iter().any(|(_, open)| self.decides(&ending, open));
            if !decides || self.evidenced.contains(&ending.position) {
                self.watermark.let_go(ending.position);
            } else if self.draining || now_ms.saturating_sub(ending.at_ms) >= EVIDENCE_AFTER_MS {
                self.evidence_due = true;
            }
            // A later answer gives the order for what is still to come; this one only matters to what it ends.
            let is_outdone = all_placed
                && latest
                    .get(&producer_id)
                    .is_some_and(|latest| *latest > ending.position)
                && !own
                    .iter()
                    .any(|(_, open)| self.endings.next_of(open) == Some(ending.position));
            if own.is_empty() || is_outdone {
                self.evidenced.remove(&ending.position);
                self.endings.forget(producer_id, ending.position);
            }
        }
    }

    /// Adds what is to be said about transactions to a commit.
    pub(super) fn add_evidence(&self, plan: &mut CommitPlan) {
        if self.endings.is_empty() {
            return;
        }
        let open = self.open_by_producer();
        for (producer_id, ending) in self.endings.below(self.lowest_unplaced()) {
            let own = open.get(&producer_id).map(Vec::as_slice).unwrap_or_default();
            let decided: Vec<_> = own
                .iter()
                .filter(|(_, open)| self.decides(&ending, open))
                .collect();
            if decided.is_empty() || self.evidenced.contains(&ending.position) {
                continue;
            }
            plan.endings.push(ending.position);
            plan.entries.extend(decided.into_iter().filter_map(|(id, open)| {
                let topic = self.partitions.get(id)?.topic.to_string();
                Some(Entry::TxnEvidence(TxnEvidence {
                    producer_id,
                    producer_epoch: open.producer_epoch,
                    topic,
                    incarnation: id.incarnation,
                    partition: id.partition,
                    first_offset: open.first_offset,
                    last_offset: open.last_offset,
                    commit: ending.committed,
                    at_ms: ending.at_ms,
                }))
            }));
        }
    }

    /// Every batch below this position is in its partition, or in doubt.
    fn lowest_unplaced(&self) -> Option<BufferPosition> {
        let waiting = self.unattributed.keys().next().copied();
        match (self.resolver.lowest_pending(), waiting) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        }
    }

    fn decides(&self, ending: &Ending, open: &OpenTransaction) -> bool {
        self.endings
            .ending_of(open)
            .is_some_and(|of| of.position == ending.position)
    }

    fn open_by_producer(&self) -> OpenByProducer {
        let mut by_producer = OpenByProducer::new();
        for (id, partition) in &self.partitions {
            for open in partition.transactions.open() {
                by_producer
                    .entry(open.producer_id)
                    .or_default()
                    .push((*id, open.clone()));
            }
        }
        by_producer
    }
}

/// While the source can be asked the marker mostly comes first; after this long the answer is worth a commit of its own.
const EVIDENCE_AFTER_MS: i64 = 30_000;
