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

use std::collections::{BTreeSet, HashMap, HashSet};

use teeline_archive::buffer::{LeaderTerm, LeaderTerms};
use teeline_archive::ids::{BufferPosition, Lsn, SessionId};
use uuid::Uuid;

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
    /// With something that only batches can ask for that are open already.
    outdated: HashSet<PartitionId>,
    /// Of topics that are gone.
    gone: HashSet<PartitionId>,
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
    /// Folds answers in. Where a new epoch followed an old one there may be something to [`Leaders::forget`].
    pub fn on_terms(&mut self, position: BufferPosition, terms: &LeaderTerms) -> Vec<PartitionId> {
        let mut followed = Vec::new();
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
                if self.note(id, term, position, younger_than) {
                    self.outdated.insert(id);
                    followed.push(id);
                }
            }
        }
        followed
    }

    /// Topics were deleted. There may be something of them to [`Leaders::forget`].
    pub fn on_gone(&mut self, incarnations: &BTreeSet<Uuid>) -> Vec<PartitionId> {
        let is_of_them = |id: &&PartitionId| incarnations.contains(&id.incarnation);
        let ids: Vec<PartitionId> = self.by_partition.keys().filter(is_of_them).copied().collect();
        self.outdated.extend(&ids);
        self.gone.extend(&ids);
        ids
    }

    /// Of how many partitions something is known.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.by_partition.len()
    }

    /// Whether there may be something to forget.
    pub fn is_outdated(&self, id: PartitionId) -> bool {
        self.outdated.contains(&id)
    }

    /// Forgets what is outdated, but not what batches with these epochs, that are still open, ask for. A batch that comes
    /// later all the same is of unknown epoch.
    pub fn forget(&mut self, id: PartitionId, open: &BTreeSet<i32>) {
        if !self.outdated.contains(&id) {
            return;
        }
        if self.gone.contains(&id) {
            if open.is_empty() {
                self.by_partition.remove(&id);
                self.gone.remove(&id);
                self.outdated.remove(&id);
            }
            return;
        }
        let mut are_all_forgotten = true;
        if let Some([earlier @ .., _newest]) = self.by_partition.get_mut(&id).map(Vec::as_mut_slice) {
            for term in earlier {
                match open.contains(&term.epoch) {
                    true => are_all_forgotten = false,
                    false => term.start.forget_producers(),
                }
            }
        }
        if are_all_forgotten {
            self.outdated.remove(&id);
        }
    }

    /// True when the epoch follows an earlier one.
    fn note(
        &mut self,
        id: PartitionId,
        told: &LeaderTerm,
        position: BufferPosition,
        younger_than: BufferPosition,
    ) -> bool {
        let epoch = told.leader_epoch;
        if epoch < 0 {
            return false;
        }
        let terms = self.by_partition.entry(id).or_default();
        match terms.last_mut() {
            Some(term) if term.epoch == epoch => {
                term.younger_than = term.younger_than.max(younger_than);
                term.start.on_told(told.start_offset);
                false
            }
            // A leader that has not heard of the next election yet: it says nothing about now.
            Some(term) if term.epoch > epoch => false,
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
                terms.len() > 1
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
        let newest = self.by_partition.get(&id).and_then(|terms| terms.last());
        if newest.is_some_and(|newest| newest.epoch != noted) {
            self.outdated.insert(id);
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
    /// No more batches are answered in the epoch. If one is after all, its producer is counted anew: it proves less.
    fn forget_producers(&mut self) {
        if let EpochStart::Unknown(producers) = self {
            *producers = HashMap::new();
        }
    }

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
#[path = "leaders_tests.rs"]
mod tests;
