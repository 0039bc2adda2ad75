//! Under which leader a captured batch was written.
//!
//! Brokers do not say it: an answer to a Produce request names no leader epoch. But epochs only ever grow, so when one
//! Metadata answer from before the send and one asked for after the response name the same epoch of the partition, the
//! partition had that epoch all the time between, and the batch has it too. That is how a batch is attributed to a topic
//! id as well, see [`crate::catalog`]. Where the answers do not prove it the epoch stays unknown: never guessed.

use std::collections::HashMap;

use teeline_archive::buffer::Catalog;
use teeline_archive::ids::BufferPosition;

use crate::batch::{Batch, Content};
use crate::catalog::synthetic_incarnation;
use crate::partition::PartitionId;

/// What the catalogs say about the leader epoch of one batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeaderEpoch {
    /// This one.
    Known(i32),
    /// The next answer may prove it.
    Wait,
    /// No answer can prove it any more.
    Unknown,
}

/// The leader epochs that the Metadata answers of a buffer named, folded.
#[derive(Debug, Default)]
pub struct Leaders {
    by_partition: HashMap<PartitionId, Vec<Term>>,
}

/// A run of answers that named the same epoch.
#[derive(Debug, Clone, Copy)]
struct Term {
    epoch: i32,
    /// The first answer of the run.
    first_seen: BufferPosition,
    /// The last answer of the run is younger than every frame up to here.
    younger_than: BufferPosition,
}

impl Leaders {
    /// Folds one answer in.
    pub fn on_catalog(&mut self, position: BufferPosition, catalog: &Catalog) {
        let younger_than = BufferPosition {
            session: position.session,
            lsn: catalog.requested_after,
        };
        for topic in catalog.topics.iter().filter(|topic| topic.error_code == 0) {
            let incarnation = match topic.id.is_nil() {
                true => synthetic_incarnation(&catalog.cluster_id, &topic.name),
                false => topic.id,
            };
            for &(partition, epoch) in &topic.partitions {
                let id = PartitionId {
                    incarnation,
                    partition,
                };
                self.note(id, epoch, position, younger_than);
            }
        }
    }

    fn note(
        &mut self,
        id: PartitionId,
        epoch: i32,
        first_seen: BufferPosition,
        younger_than: BufferPosition,
    ) {
        if epoch < 0 {
            return;
        }
        let terms = self.by_partition.entry(id).or_default();
        match terms.last_mut() {
            Some(term) if term.epoch == epoch => {
                term.younger_than = term.younger_than.max(younger_than);
            }
            // A broker that has not heard of the election yet: it says nothing about now.
            Some(term) if term.epoch > epoch => {}
            _ => {
                if terms.len() >= TERMS_MAX {
                    terms.remove(0);
                }
                terms.push(Term {
                    epoch,
                    first_seen,
                    younger_than,
                });
            }
        }
    }

    /// Sets the leader epoch of a batch if it is known. False when the next answer may tell it.
    pub fn complete(&self, id: PartitionId, batch: &mut Batch) -> bool {
        let Content::Captured {
            intent,
            outcome,
            leader_epoch,
            ..
        } = &mut batch.content
        else {
            return true;
        };
        if *leader_epoch >= 0 {
            return true;
        }
        match self.epoch_of(id, *intent, *outcome) {
            LeaderEpoch::Known(epoch) => {
                *leader_epoch = epoch;
                true
            }
            LeaderEpoch::Unknown => true,
            LeaderEpoch::Wait => false,
        }
    }

    /// The leader epoch of a batch, given the positions of its intent and of its outcome.
    pub fn epoch_of(&self, id: PartitionId, intent: BufferPosition, outcome: BufferPosition) -> LeaderEpoch {
        let Some(terms) = self.by_partition.get(&id) else {
            return LeaderEpoch::Unknown;
        };
        // The last one from before the send: a later one began too late, an earlier one had ended.
        let before = terms.iter().rev().find(|term| term.first_seen < intent);
        match before {
            Some(term) if term.younger_than >= outcome => LeaderEpoch::Known(term.epoch),
            // Only the newest run can still grow.
            Some(term) if terms.last().is_some_and(|last| last.epoch == term.epoch) => LeaderEpoch::Wait,
            _ => LeaderEpoch::Unknown,
        }
    }
}

/// Epochs of one partition that are remembered; more only matter where leaders move this often within one segment.
const TERMS_MAX: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use teeline_archive::buffer::CatalogTopic;
    use teeline_archive::ids::{Lsn, SessionId};
    use uuid::Uuid;

    const ID: PartitionId = PartitionId {
        incarnation: Uuid::from_u128(7),
        partition: 1,
    };

    fn at(lsn: u64) -> BufferPosition {
        BufferPosition {
            session: SessionId(1),
            lsn: Lsn(lsn),
        }
    }

    /// A catalog at `position`, asked for after `requested_after`.
    fn catalog(leaders: &mut Leaders, position: u64, requested_after: u64, epoch: i32) {
        let topic = CatalogTopic {
            name: "orders".to_owned(),
            id: ID.incarnation,
            error_code: 0,
            partitions: vec![(0, 99), (ID.partition, epoch)],
            replication_factor: 1,
        };
        let catalog = Catalog {
            requested_after: Lsn(requested_after),
            at_ms: 0,
            cluster_id: "cluster".to_owned(),
            topics: vec![topic],
        };
        leaders.on_catalog(at(position), &catalog);
    }

    #[test]
    fn an_epoch_is_known_when_answers_from_before_and_after_name_it() {
        let mut leaders = Leaders::default();
        assert_eq!(leaders.epoch_of(ID, at(2), at(3)), LeaderEpoch::Unknown);
        catalog(&mut leaders, 1, 0, 5);
        assert_eq!(leaders.epoch_of(ID, at(2), at(3)), LeaderEpoch::Wait);
        catalog(&mut leaders, 5, 2, 5);
        assert_eq!(
            leaders.epoch_of(ID, at(2), at(3)),
            LeaderEpoch::Wait,
            "asked before the outcome"
        );
        catalog(&mut leaders, 7, 6, 5);
        assert_eq!(leaders.epoch_of(ID, at(2), at(3)), LeaderEpoch::Known(5));
        assert_eq!(leaders.epoch_of(ID, at(8), at(9)), LeaderEpoch::Wait);
    }

    #[test]
    fn a_batch_across_an_election_has_no_known_epoch() {
        let mut leaders = Leaders::default();
        catalog(&mut leaders, 1, 0, 5);
        catalog(&mut leaders, 4, 3, 5);
        catalog(&mut leaders, 9, 8, 6);
        assert_eq!(leaders.epoch_of(ID, at(2), at(3)), LeaderEpoch::Known(5));
        assert_eq!(leaders.epoch_of(ID, at(5), at(6)), LeaderEpoch::Unknown);
        assert_eq!(leaders.epoch_of(ID, at(10), at(11)), LeaderEpoch::Wait);
        catalog(&mut leaders, 13, 12, 6);
        assert_eq!(leaders.epoch_of(ID, at(10), at(11)), LeaderEpoch::Known(6));
    }

    #[test]
    fn a_batch_from_before_the_first_answer_has_no_known_epoch() {
        let mut leaders = Leaders::default();
        catalog(&mut leaders, 4, 3, 5);
        catalog(&mut leaders, 9, 8, 5);
        assert_eq!(leaders.epoch_of(ID, at(1), at(2)), LeaderEpoch::Unknown);
    }

    #[test]
    fn an_answer_of_a_broker_that_is_behind_proves_nothing() {
        let mut leaders = Leaders::default();
        catalog(&mut leaders, 1, 0, 6);
        catalog(&mut leaders, 5, 4, 5);
        catalog(&mut leaders, 6, 5, -1);
        assert_eq!(leaders.epoch_of(ID, at(2), at(3)), LeaderEpoch::Wait);
        catalog(&mut leaders, 7, 6, 6);
        assert_eq!(leaders.epoch_of(ID, at(2), at(3)), LeaderEpoch::Known(6));
    }
}
