//! Under which leader a captured batch was written.
//!
//! Brokers do not say it: an answer to a Produce request names no leader epoch. But the proxy asks the leaders themselves,
//! again and again, each under the epoch that Metadata names, and a broker answers only if it leads the partition under
//! that epoch. So when one such answer from before the send and one to a question from after the response name the same
//! epoch, its leader had that epoch all the time between, as a broker's epochs only ever grow. And the broker that answered
//! the Produce request is that leader if the proxy knew it as the leader of the same epoch, which it notes with the
//! outcome. What Metadata says proves none of it: a broker that is behind names an old epoch for the new one when the
//! leadership went to another broker and back.
//!
//! And the answer has to be about a new batch: one that an idempotent producer repeats is answered with the offset that it
//! got the first time, perhaps under an earlier leader. The leaders say where their epoch begins; where they cannot, see
//! [`EpochStart`]. Where all this does not prove it the epoch stays unknown: never guessed.

use std::collections::HashMap;

use teeline_archive::buffer::{LeaderTerm, LeaderTerms};
use teeline_archive::ids::{BufferPosition, Lsn, SessionId};

use crate::batch::{Batch, Content};
use crate::catalog::synthetic_incarnation;
use crate::partition::PartitionId;

/// What the leaders' answers say about the leader epoch of one batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeaderEpoch {
    /// This one.
    Known(i32),
    /// The next answer may prove it.
    Wait,
    /// No answer can prove it any more.
    Unknown,
}

/// The leader epochs that the leaders' answers in a buffer named, folded.
#[derive(Debug, Default)]
pub struct Leaders {
    by_partition: HashMap<PartitionId, Vec<Term>>,
}

/// A run of answers that named the same epoch.
#[derive(Debug)]
struct Term {
    epoch: i32,
    start: EpochStart,
    /// The first answer of the run.
    first_seen: BufferPosition,
    /// The last answer of the run is younger than every frame up to here.
    younger_than: BufferPosition,
}

impl Leaders {
    /// Folds answers in.
    pub fn on_terms(&mut self, position: BufferPosition, terms: &LeaderTerms) {
        let younger_than = BufferPosition {
            session: position.session,
            lsn: terms.requested_after,
        };
        for topic in &terms.topics {
            let incarnation = match topic.id.is_nil() {
                true => synthetic_incarnation(&terms.cluster_id, &topic.name),
                false => topic.id,
            };
            for term in &topic.terms {
                let id = PartitionId {
                    incarnation,
                    partition: term.partition,
                };
                self.note(id, term, position, younger_than);
            }
        }
    }

    fn note(
        &mut self,
        id: PartitionId,
        told: &LeaderTerm,
        position: BufferPosition,
        younger_than: BufferPosition,
    ) {
        let epoch = told.leader_epoch;
        if epoch < 0 {
            return;
        }
        let terms = self.by_partition.entry(id).or_default();
        match terms.last_mut() {
            Some(term) if term.epoch == epoch => {
                term.younger_than = term.younger_than.max(younger_than);
                term.start.on_told(told.start_offset);
            }
            // A leader that has not heard of the next election yet: it says nothing about now.
            Some(term) if term.epoch > epoch => {}
            _ => {
                if terms.len() >= TERMS_MAX {
                    terms.remove(0);
                }
                let mut start = EpochStart::Unknown(HashMap::new());
                start.on_told(told.start_offset);
                terms.push(Term {
                    epoch,
                    start,
                    first_seen: match epoch {
                        // There is no earlier one that a batch could be of.
                        0 => THE_BEGINNING,
                        _ => position,
                    },
                    younger_than,
                });
            }
        }
    }

    /// Keeps the leader epoch that was noted with a batch's answer if it is proved, and takes it away if it is not. False
    /// when the batch `waits` for the answer that may prove it. Batches come in order of their offsets, mostly.
    pub fn complete(&mut self, id: PartitionId, batch: &mut Batch, waits: bool) -> bool {
        let noted = batch.leader_epoch();
        let Content::Captured {
            intent,
            outcome,
            leader_epoch,
            ..
        } = &mut batch.content
        else {
            if let Some(start) = self.start_of(id, noted) {
                start.on_appended(batch.range.first);
            }
            return true;
        };
        if noted < 0 {
            return true;
        }
        let (intent, outcome, producer_id) = (*intent, *outcome, batch.identity.producer_id());
        let is_proved = match self.epoch_of(id, intent, outcome) {
            LeaderEpoch::Known(epoch) if epoch == noted => self
                .start_of(id, epoch)
                .is_some_and(|start| start.on_answered(producer_id, batch.range.first)),
            LeaderEpoch::Wait if waits => return false,
            _ => false,
        };
        if !is_proved {
            *leader_epoch = -1;
        }
        true
    }

    fn start_of(&mut self, id: PartitionId, epoch: i32) -> Option<&mut EpochStart> {
        let terms = self.by_partition.get_mut(&id)?;
        let term = terms.iter_mut().find(|term| term.epoch == epoch)?;
        Some(&mut term.start)
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

/// From which offset on batches of a partition are certain to be of one epoch.
///
/// A producer's batch that was answered in the epoch may have been appended before: brokers know the last five of each
/// producer again. So at most five batches of a producer that were answered in an epoch are older than it, and those are
/// its first. The sixth is new, and a batch without a producer id always is; with the offset of one new batch, all that
/// follow are known to be of the epoch.
#[derive(Debug)]
enum EpochStart {
    /// Not before this offset, of a batch that is new.
    Before(i64),
    /// No batch is known to be new: per producer, how many were answered, and the highest offset among them.
    Unknown(HashMap<i64, (u8, i64)>),
}

impl EpochStart {
    /// The leader told where the epoch begins; negative if it cannot. It may tell later that it begins further on: what is
    /// deleted is forgotten.
    fn on_told(&mut self, start_offset: i64) {
        if start_offset >= 0 {
            self.on_appended(start_offset);
        }
    }

    /// A batch of the epoch is in the log at this offset.
    fn on_appended(&mut self, offset: i64) {
        let before = match self {
            EpochStart::Before(known) => offset.min(*known),
            EpochStart::Unknown(_) => offset,
        };
        *self = EpochStart::Before(before);
    }

    /// A batch was answered in the epoch, with this offset. True when it is certain that it is of the epoch.
    fn on_answered(&mut self, producer_id: Option<i64>, offset: i64) -> bool {
        match (&mut *self, producer_id) {
            (EpochStart::Before(known), _) if offset >= *known => true,
            (_, None) => {
                self.on_appended(offset);
                true
            }
            (EpochStart::Before(_), Some(_)) => false,
            (EpochStart::Unknown(producers), Some(producer_id)) => {
                if producers.len() >= PRODUCERS_MAX && !producers.contains_key(&producer_id) {
                    return false;
                }
                let (count, last) = producers.entry(producer_id).or_insert((0, -1));
                if offset <= *last {
                    return false;
                }
                (*count, *last) = (count.saturating_add(1), offset);
                let is_new = *count > REPEATED_MAX;
                if is_new {
                    self.on_appended(offset);
                }
                is_new
            }
        }
    }
}

/// Before every frame.
const THE_BEGINNING: BufferPosition = BufferPosition {
    session: SessionId(0),
    lsn: Lsn(0),
};
/// Batches of one producer that a broker knows again.
const REPEATED_MAX: u8 = 5;
/// Producers of one partition that are counted at the start of an epoch; others' batches stay of unknown epoch a while.
const PRODUCERS_MAX: usize = 1_000;
/// Epochs of one partition that are remembered; more only matter where leaders move this often within one segment.
const TERMS_MAX: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use teeline_archive::buffer::TermsTopic;
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

    fn told(leaders: &mut Leaders, position: u64, requested_after: u64, epoch: i32, start_offset: i64) {
        let term = |partition, leader_epoch| LeaderTerm {
            partition,
            leader_epoch,
            start_offset,
        };
        let topic = TermsTopic {
            name: "orders".to_owned(),
            id: ID.incarnation,
            terms: vec![term(0, 99), term(ID.partition, epoch)],
        };
        let terms = LeaderTerms {
            requested_after: Lsn(requested_after),
            at_ms: 0,
            cluster_id: "cluster".to_owned(),
            topics: vec![topic],
        };
        leaders.on_terms(at(position), &terms);
    }

    /// An answer at `position` to a question from after `requested_after`.
    fn answer(leaders: &mut Leaders, position: u64, requested_after: u64, epoch: i32) {
        told(leaders, position, requested_after, epoch, -1);
    }

    #[test]
    fn an_epoch_is_known_when_answers_from_before_and_after_name_it() {
        let mut leaders = Leaders::default();
        assert_eq!(leaders.epoch_of(ID, at(2), at(3)), LeaderEpoch::Unknown);
        answer(&mut leaders, 1, 0, 5);
        assert_eq!(leaders.epoch_of(ID, at(2), at(3)), LeaderEpoch::Wait);
        answer(&mut leaders, 5, 2, 5);
        assert_eq!(
            leaders.epoch_of(ID, at(2), at(3)),
            LeaderEpoch::Wait,
            "asked before the outcome"
        );
        answer(&mut leaders, 7, 6, 5);
        assert_eq!(leaders.epoch_of(ID, at(2), at(3)), LeaderEpoch::Known(5));
        assert_eq!(leaders.epoch_of(ID, at(8), at(9)), LeaderEpoch::Wait);
    }

    #[test]
    fn a_batch_across_an_election_has_no_known_epoch() {
        let mut leaders = Leaders::default();
        answer(&mut leaders, 1, 0, 5);
        answer(&mut leaders, 4, 3, 5);
        answer(&mut leaders, 9, 8, 6);
        assert_eq!(leaders.epoch_of(ID, at(2), at(3)), LeaderEpoch::Known(5));
        assert_eq!(leaders.epoch_of(ID, at(5), at(6)), LeaderEpoch::Unknown);
        assert_eq!(leaders.epoch_of(ID, at(10), at(11)), LeaderEpoch::Wait);
        answer(&mut leaders, 13, 12, 6);
        assert_eq!(leaders.epoch_of(ID, at(10), at(11)), LeaderEpoch::Known(6));
    }

    #[test]
    fn a_batch_from_before_the_first_answer_has_no_known_epoch() {
        let mut leaders = Leaders::default();
        answer(&mut leaders, 4, 3, 5);
        answer(&mut leaders, 9, 8, 5);
        assert_eq!(leaders.epoch_of(ID, at(1), at(2)), LeaderEpoch::Unknown);
    }

    #[test]
    fn an_answer_of_a_leader_that_is_behind_proves_nothing() {
        let mut leaders = Leaders::default();
        answer(&mut leaders, 1, 0, 6);
        answer(&mut leaders, 5, 4, 5);
        answer(&mut leaders, 6, 5, -1);
        assert_eq!(leaders.epoch_of(ID, at(2), at(3)), LeaderEpoch::Wait);
        answer(&mut leaders, 7, 6, 6);
        assert_eq!(leaders.epoch_of(ID, at(2), at(3)), LeaderEpoch::Known(6));
    }

    #[test]
    fn an_answer_may_be_about_a_batch_of_an_earlier_epoch() {
        let mut start = EpochStart::Unknown(HashMap::new());
        // Five of this producer may have been repeated, whatever others do meanwhile.
        for offset in 100..105 {
            assert!(!start.on_answered(Some(9), offset));
            assert!(!start.on_answered(Some(9), offset), "the same once more");
            assert!(!start.on_answered(Some(10 + offset), offset));
        }
        assert!(start.on_answered(Some(9), 105), "the sixth is new");
        assert!(start.on_answered(Some(77), 106), "and so is what follows");
        assert!(!start.on_answered(Some(78), 104), "but not what lies before");
    }

    #[test]
    fn a_batch_that_nobody_can_repeat_is_new() {
        let mut start = EpochStart::Unknown(HashMap::new());
        assert!(start.on_answered(None, 100));
        assert!(start.on_answered(Some(9), 101));
        assert!(!start.on_answered(Some(9), 99));
        assert!(start.on_answered(None, 50));
        assert!(start.on_answered(Some(9), 99));
    }

    #[test]
    fn where_the_leader_says_that_its_epoch_begins_the_first_batches_of_a_producer_are_known_too() {
        let mut start = EpochStart::Unknown(HashMap::new());
        assert!(!start.on_answered(Some(9), 104), "nothing is known yet");
        start.on_told(100);
        assert!(start.on_answered(Some(9), 100));
        assert!(!start.on_answered(Some(9), 99), "repeated: of an earlier leader");
        start.on_told(120);
        assert!(
            start.on_answered(Some(9), 105),
            "what was deleted since changes nothing"
        );
        start.on_told(-1);
        assert!(start.on_answered(Some(9), 105));
    }

    #[test]
    fn the_first_epoch_needs_no_answer_from_before() {
        let mut leaders = Leaders::default();
        told(&mut leaders, 5, 4, 0, 0);
        assert_eq!(leaders.epoch_of(ID, at(1), at(2)), LeaderEpoch::Known(0));
    }

    #[test]
    fn a_leader_that_was_replaced_and_came_back_is_not_taken_for_the_old_one() {
        let mut leaders = Leaders::default();
        answer(&mut leaders, 1, 0, 5);
        // Metadata still names epoch 5, and so does the outcome; asked under it the leader refuses, and under 7 it answers.
        answer(&mut leaders, 6, 5, 7);
        assert_eq!(leaders.epoch_of(ID, at(2), at(3)), LeaderEpoch::Unknown);
    }
}
