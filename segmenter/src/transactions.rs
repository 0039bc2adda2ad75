//! Which transactions of a partition are still undecided, and what EndTxn requests say about them.
//!
//! The truth is the marker in the log: it decides everything its producer wrote to the partition before it. Until the
//! marker is held, a transaction is *undecided*. The evidence is the EndTxn answer that passed the proxy; its position
//! in the buffer separates the transactions of one producer id and epoch. It is written to the ledger only for
//! transactions whose marker has not been seen, for the day on which the cluster cannot be asked any more.

use std::collections::{BTreeMap, HashMap};

use teeline_archive::buffer::EndTxn;
use teeline_archive::ids::BufferPosition;

/// A run of transactional batches of one producer without a marker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenTransaction {
    /// Producer id.
    pub producer_id: i64,
    /// Producer epoch of the batches.
    pub producer_epoch: i16,
    /// First offset.
    pub first_offset: i64,
    /// Last offset.
    pub last_offset: i64,
    /// Where it stands among its producer's EndTxn requests; `None` when that is not known (fetched, not captured).
    pub order: Option<Order>,
}

/// Between which EndTxn requests of its producer a transaction was written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Order {
    /// The last EndTxn before it; [`BufferPosition::NONE`] when there was none.
    pub after: BufferPosition,
}

/// The undecided transactions of one partition.
#[derive(Debug, Default)]
pub struct Transactions {
    /// By producer id and first offset, so that a producer's transactions come in their order.
    open: BTreeMap<(i64, i64), OpenTransaction>,
    /// The latest marker of each producer, for batches that are placed after their marker.
    decided_to: HashMap<i64, i64>,
}

impl Transactions {
    /// A transactional batch is held.
    pub fn on_batch(&mut self, batch: OpenTransaction) {
        if self
            .decided_to
            .get(&batch.producer_id)
            .is_some_and(|&marker| batch.last_offset < marker)
        {
            return;
        }
        // Parts whose order is not known (fetched) belong to the same transaction as their neighbours: a marker between
        // them would have been fetched too, or will be, and then divides them again.
        let joined = self.of_producer(batch.producer_id).rev().find_map(|(key, open)| {
            let same_order = open.order == batch.order || open.order.is_none() || batch.order.is_none();
            (open.producer_epoch == batch.producer_epoch && same_order).then_some(*key)
        });
        match joined.and_then(|key| self.open.remove(&key)) {
            None => self.insert(batch),
            Some(open) => self.insert(OpenTransaction {
                first_offset: open.first_offset.min(batch.first_offset),
                last_offset: open.last_offset.max(batch.last_offset),
                order: open.order.or(batch.order),
                ..batch
            }),
        }
    }

    /// A marker is held: what its producer wrote before it is decided.
    pub fn on_marker(&mut self, producer_id: i64, offset: i64) {
        let before: Vec<_> = self
            .open
            .range((producer_id, i64::MIN)..(producer_id, offset))
            .map(|(&key, _)| key)
            .collect();
        for key in before {
            if let Some(open) = self.open.remove(&key)
                && open.last_offset > offset
            {
                self.insert(OpenTransaction {
                    first_offset: offset.saturating_add(1),
                    ..open
                });
            }
        }
        if self.decided_to.len() >= PRODUCERS_MAX {
            // Forgetting markers can only make a late batch look undecided, which costs a question to the source.
            self.decided_to.clear();
        }
        let latest = self.decided_to.entry(producer_id).or_insert(offset);
        *latest = (*latest).max(offset);
    }

    /// Takes in what was learnt elsewhere about the same partition, as while a range was streamed.
    pub fn absorb(&mut self, other: Transactions) {
        for (producer_id, offset) in other.decided_to {
            self.on_marker(producer_id, offset);
        }
        for open in other.open.into_values() {
            self.on_batch(open);
        }
    }

    /// Everything below `offset` is decided (the source's last stable offset has passed it).
    pub fn on_stable(&mut self, offset: i64) {
        self.open.retain(|_, open| open.last_offset >= offset);
    }

    /// The undecided transactions.
    pub fn open(&self) -> impl Iterator<Item = &OpenTransaction> {
        self.open.values()
    }

    /// True when everything is decided.
    pub fn is_decided(&self) -> bool {
        self.open.is_empty()
    }

    fn of_producer(&self, id: i64) -> impl DoubleEndedIterator<Item = (&(i64, i64), &OpenTransaction)> {
        self.open.range((id, i64::MIN)..=(id, i64::MAX))
    }

    fn insert(&mut self, open: OpenTransaction) {
        self.open.insert((open.producer_id, open.first_offset), open);
    }
}

/// One EndTxn answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ending {
    /// Its frame.
    pub position: BufferPosition,
    /// Producer epoch of the request.
    pub producer_epoch: i16,
    /// Committed, not aborted.
    pub committed: bool,
    /// When it was answered.
    pub at_ms: i64,
}

/// The EndTxn answers that may still be needed, by producer.
#[derive(Debug, Default)]
pub struct Endings {
    by_producer: HashMap<i64, BTreeMap<BufferPosition, Ending>>,
}

impl Endings {
    /// Notes an answer.
    pub fn on_end(&mut self, position: BufferPosition, end: &EndTxn) {
        let ending = Ending {
            position,
            producer_epoch: end.producer_epoch,
            committed: end.committed,
            at_ms: end.at_ms,
        };
        self.by_producer
            .entry(end.producer_id)
            .or_default()
            .insert(position, ending);
    }

    /// Where a batch of the producer with its outcome at `outcome` stands among the answers.
    pub fn order_of(&self, producer_id: i64, outcome: BufferPosition) -> Order {
        let endings = self.by_producer.get(&producer_id);
        let before = endings.and_then(|endings| endings.range(..outcome).next_back());
        Order {
            after: before.map_or(BufferPosition::NONE, |(&position, _)| position),
        }
    }

    /// The answer that ended the transaction, if it passed here.
    pub fn ending_of(&self, transaction: &OpenTransaction) -> Option<Ending> {
        let after = transaction.order?.after;
        let endings = self.by_producer.get(&transaction.producer_id)?;
        let (_, ending) = endings.range(after..).find(|(position, _)| **position > after)?;
        // A retried request may carry the epoch of before the bump; a foreign epoch is another producer's life.
        (ending.producer_epoch == transaction.producer_epoch).then_some(*ending)
    }

    /// The answer that comes next after a transaction, of whatever epoch.
    pub fn next_of(&self, transaction: &OpenTransaction) -> Option<BufferPosition> {
        let after = transaction.order?.after;
        let endings = self.by_producer.get(&transaction.producer_id)?;
        let mut behind = endings.range(after..).map(|(&position, _)| position);
        behind.find(|&position| position > after)
    }

    /// Every answer below `placed`, that is, such that all batches it may concern are in their partitions.
    pub fn below(&self, placed: Option<BufferPosition>) -> Vec<(i64, Ending)> {
        let mut found: Vec<_> = self
            .by_producer
            .iter()
            .flat_map(|(&producer_id, endings)| endings.values().map(move |ending| (producer_id, *ending)))
            .filter(|(_, ending)| placed.is_none_or(|placed| ending.position < placed))
            .collect();
        found.sort_unstable_by_key(|(_, ending)| ending.position);
        found
    }

    /// True when no answer is known.
    pub fn is_empty(&self) -> bool {
        self.by_producer.is_empty()
    }

    /// Forgets an answer: it is in the ledger, or nothing is left that it could decide.
    pub fn forget(&mut self, producer_id: i64, position: BufferPosition) {
        if let Some(endings) = self.by_producer.get_mut(&producer_id) {
            endings.remove(&position);
            if endings.is_empty() {
                self.by_producer.remove(&producer_id);
            }
        }
    }
}

/// Producers of one partition whose last marker is remembered.
const PRODUCERS_MAX: usize = 4096;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use teeline_archive::ids::{Lsn, SessionId};

    fn at(lsn: u64) -> BufferPosition {
        BufferPosition {
            session: SessionId(1),
            lsn: Lsn(lsn),
        }
    }

    fn batch(endings: &Endings, first: i64, last: i64, outcome: u64) -> OpenTransaction {
        OpenTransaction {
            producer_id: 9,
            producer_epoch: 0,
            first_offset: first,
            last_offset: last,
            order: Some(endings.order_of(9, at(outcome))),
        }
    }

    fn end(committed: bool) -> EndTxn {
        EndTxn {
            transactional_id: "t".to_owned(),
            producer_id: 9,
            producer_epoch: 0,
            committed,
            at_ms: 3,
        }
    }

    #[test]
    fn a_marker_decides_what_comes_before_it_and_nothing_after() {
        let (mut transactions, mut endings) = (Transactions::default(), Endings::default());
        transactions.on_batch(batch(&endings, 0, 4, 1));
        endings.on_end(at(2), &end(true));
        transactions.on_batch(batch(&endings, 6, 9, 3));
        transactions.on_marker(9, 5);
        let open: Vec<_> = transactions.open().cloned().collect();
        assert!(matches!(&open[..], [only] if only.first_offset == 6));
        transactions.on_marker(9, 10);
        assert!(transactions.is_decided());
    }

    #[test]
    fn a_batch_placed_after_its_marker_is_decided() {
        let (mut transactions, endings) = (Transactions::default(), Endings::default());
        transactions.on_marker(9, 5);
        transactions.on_batch(batch(&endings, 0, 4, 1));
        assert!(transactions.is_decided());
    }

    #[test]
    fn the_same_epoch_covers_many_transactions_and_their_answers_tell_them_apart() {
        let (mut transactions, mut endings) = (Transactions::default(), Endings::default());
        transactions.on_batch(batch(&endings, 0, 4, 1));
        endings.on_end(at(2), &end(false));
        transactions.on_batch(batch(&endings, 6, 7, 3));
        transactions.on_batch(batch(&endings, 8, 9, 4));
        endings.on_end(at(5), &end(true));
        let decided: Vec<_> = transactions
            .open()
            .map(|open| {
                (
                    open.first_offset,
                    open.last_offset,
                    endings.ending_of(open).unwrap().committed,
                )
            })
            .collect();
        assert_eq!(decided, [(0, 4, false), (6, 9, true)]);
    }

    #[test]
    fn what_was_fetched_cannot_be_ordered_and_gets_no_evidence() {
        let mut endings = Endings::default();
        endings.on_end(at(5), &end(true));
        let fetched = OpenTransaction {
            order: None,
            ..batch(&endings, 0, 4, 1)
        };
        assert_eq!(endings.ending_of(&fetched), None);
    }

    #[test]
    fn answers_are_kept_until_every_batch_before_them_is_placed() {
        let mut endings = Endings::default();
        endings.on_end(at(5), &end(true));
        assert!(endings.below(Some(at(5))).is_empty());
        assert_eq!(endings.below(Some(at(6))).len(), 1);
        endings.forget(9, at(5));
        assert!(endings.below(None).is_empty());
    }
}
