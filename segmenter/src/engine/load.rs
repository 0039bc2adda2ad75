//! What the ledger says when a run begins, and what other writers have added since.

use std::collections::BTreeMap;
use std::sync::Arc;

use teeline_archive::OffsetSet;
use teeline_archive::ids::BufferPosition;
use teeline_archive::ledger::LedgerState;
use teeline_archive::segment::SegmentInfo;

use super::Engine;
use crate::partition::{CommittedRun, PartitionId};
use crate::transactions::{OpenTransaction, Order};

impl Engine {
    pub(super) fn load(&mut self, ledger: &LedgerState) {
        self.note_others(ledger);
        let is_lost = self.is_source_lost(ledger);
        let newest_ms = ledger
            .segments()
            .map(|segment| segment.identity.created_at_ms)
            .max()
            .unwrap_or(0);
        for (key, incarnation) in ledger.topics() {
            if let Some(snapshot) = incarnation.snapshot() {
                self.topics.load(snapshot);
            }
            self.catalogs.note_name(key.incarnation, &key.name);
            let topic: Arc<str> = Arc::from(key.name.as_str());
            for (number, state) in incarnation.partitions() {
                let id = PartitionId {
                    incarnation: key.incarnation,
                    partition: number,
                };
                for segment in state.segments() {
                    self.load_segment(id, &topic, segment, newest_ms);
                }
                // What was joined since is still what its writer has committed.
                for (segment, _) in state.replaced() {
                    self.load_segment(id, &topic, segment, newest_ms);
                }
                if !state.absences().is_empty() {
                    self.partition(id, &topic);
                }
                if let Some(partition) = self.partitions.get_mut(&id) {
                    partition.learn(state, is_lost, &OffsetSet::new());
                }
            }
        }
    }

    /// Whether what the ledger says of a loss of the source is still so: one that is configured is there again.
    fn is_source_lost(&self, ledger: &LedgerState) -> bool {
        !self.settings.has_source && ledger.source_lost_at_ms().is_some()
    }

    /// Takes in what the ledger lists of other writers since it was loaded.
    pub fn reload(&mut self, ledger: &LedgerState) {
        self.note_others(ledger);
        let is_lost = self.is_source_lost(ledger);
        let (in_flight, nothing) = (self.in_flight(), OffsetSet::new());
        for (key, incarnation) in ledger.topics() {
            for (number, state) in incarnation.partitions() {
                let id = PartitionId {
                    incarnation: key.incarnation,
                    partition: number,
                };
                let own = self.settings.writer;
                let Some(partition) = self.partitions.get_mut(&id) else {
                    continue;
                };
                for segment in state.segments() {
                    if segment.identity.writer != own {
                        partition.load_committed(state.held_by(segment).ranges(), None);
                    }
                }
                partition.learn(state, is_lost, in_flight.get(&id).unwrap_or(&nothing));
                self.dirty.insert(id);
            }
        }
    }

    /// Offsets on their way into the ledger: of segments that are being stored, and of those that wait for their commit.
    fn in_flight(&self) -> BTreeMap<PartitionId, OffsetSet> {
        let mut in_flight: BTreeMap<PartitionId, OffsetSet> = BTreeMap::new();
        let planned = self.under_way.values().map(|plan| (plan.id, plan.held.clone()));
        let stored = self.uploaded.iter().flat_map(|stored| &stored.segments);
        let stored = stored.filter(|segment| !segment.unconfirmed()).map(|segment| {
            let id = PartitionId {
                incarnation: segment.identity.incarnation,
                partition: segment.identity.partition,
            };
            (id, held_by(segment))
        });
        for (id, held) in planned.chain(stored) {
            let own = in_flight.entry(id).or_default();
            held.ranges().iter().for_each(|range| own.insert(*range));
        }
        in_flight
    }

    fn load_segment(&mut self, id: PartitionId, topic: &Arc<str>, segment: &SegmentInfo, newest_ms: i64) {
        let held = held_by(segment);
        let own = segment.identity.writer == self.settings.writer;
        let archived = self.archived_before;
        let last = segment.lsn_range.filter(|_| own).map(|range| BufferPosition {
            session: range.session,
            lsn: range.last,
        });
        let run = segment.lsn_range.filter(|range| {
            let last = BufferPosition {
                session: range.session,
                lsn: range.last,
            };
            own && archived.is_none_or(|archived| last > archived)
        });
        let wholly_released = own && segment.lsn_range.is_some() && run.is_none();
        // What was undecided then is mostly decided by a later segment's marker. Brokers let no transaction stay open for
        // longer than a quarter of an hour, so older ones need not be looked at.
        let is_recent = segment.identity.created_at_ms >= newest_ms.saturating_sub(UNDECIDED_FOR_MS);
        let undecided: Vec<OpenTransaction> = segment
            .undecided
            .iter()
            .filter(|_| is_recent)
            .map(|open| OpenTransaction {
                producer_id: open.producer_id,
                producer_epoch: open.producer_epoch,
                first_offset: open.first_offset,
                last_offset: open.last_offset,
                // Its batches come before every EndTxn that will be read again, if none of them will.
                order: wholly_released.then_some(Order {
                    after: BufferPosition::NONE,
                }),
            })
            .collect();
        let partition = self.partition(id, topic);
        let run = run.map(|range| CommittedRun {
            session: range.session,
            lsn: (range.first, range.last),
            held: held.clone(),
        });
        partition.load_committed(held.ranges(), run);
        partition.note_loaded(last, segment.identity.created_at_ms);
        for open in undecided {
            partition.transactions.on_batch(open);
        }
        self.dirty.insert(id);
    }
}

/// Kafka's default `transaction.max.timeout.ms` is 15 minutes; the rest is for what comes after the timeout.
const UNDECIDED_FOR_MS: i64 = 20 * 60_000;

/// The offsets that a segment vouches for.
pub(super) fn held_by(segment: &SegmentInfo) -> OffsetSet {
    let mut held: OffsetSet = [segment.range()].into_iter().collect();
    for gap in &segment.gaps {
        held.remove(*gap);
    }
    held
}
