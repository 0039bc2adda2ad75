//! What became of intents that the broker may or may not have written.
//!
//! The log settles them: once the connection is dead, the end of the partition is read, and everything between what was
//! known to be held before the intent and that end is made to be in the archive. An intent that was written is in
//! there; one that is not in there was not written. Its frame stays in the buffer until the ledger lists that range.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use teeline_archive::OffsetRange;
use teeline_archive::ids::BufferPosition;
use uuid::Uuid;

use crate::batch::Identity;
use crate::buffer::FrameLocation;
use crate::partition::PartitionId;
use crate::resolver::{Doubt, PendingIntent, TopicKey, Unresolved, Written};

/// One intent that is not settled yet.
#[derive(Debug, Clone)]
pub struct Unsettled {
    /// The intent, and why it is in doubt.
    pub unresolved: Unresolved,
    /// Where it is if it was written, as far as the broker said so.
    pub expected: Option<OffsetRange>,
    /// For an acknowledged batch: its outcome.
    pub written: Option<Written>,
    /// Since when the source has said, without a break, that there is no such topic.
    pub gone_since_ms: Option<i64>,
    /// For an acknowledged batch: where it belongs if the log that its topic's name means now does not have it.
    pub fallback: Option<Uuid>,
}

impl Unsettled {
    /// An intent in doubt.
    pub fn new(unresolved: Unresolved) -> Self {
        let deltas = unresolved
            .intent
            .header
            .map_or(0, |header| i64::from(header.last_offset_delta));
        let expected = unresolved
            .base_offset
            .and_then(|base| OffsetRange::new(base, base.saturating_add(deltas)));
        Unsettled {
            unresolved,
            expected,
            written: None,
            gone_since_ms: None,
            fallback: None,
        }
    }

    fn let_go(self) -> Verdict {
        match (self.fallback, self.written) {
            (Some(incarnation), Some(written)) => Verdict::PlaceIn(incarnation, written),
            (None, Some(written)) => Verdict::Lost(written),
            _ => Verdict::LetGo(self.unresolved.intent.position),
        }
    }
}

/// What the source says about one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It is there.
    Found {
        /// Topic id, real or synthetic.
        incarnation: Uuid,
        /// First offset of the log.
        log_start: i64,
        /// One past the last offset that consumers may read.
        end: i64,
        /// Below this offset every transaction is decided.
        stable_end: i64,
    },
    /// There is no such topic or partition (any more).
    Gone,
}

/// What follows from an answer for one intent.
#[derive(Debug, Clone)]
pub enum Verdict {
    /// The range must be in the archive before the intent is let go.
    Oblige(PartitionId, OffsetRange),
    /// It was not written, or what it was written to is gone.
    LetGo(BufferPosition),
    /// It was acknowledged, and the log of that name does not have it: it belongs to the incarnation before.
    PlaceIn(Uuid, Written),
    /// It was acknowledged, and no log that is known has it.
    Lost(Written),
}

/// How long an intent must have been in doubt.
#[derive(Debug, Clone, Copy)]
pub struct Graces {
    /// For the source to be asked.
    pub asking_ms: i64,
    /// For a log that has not grown to mean that the intent was not written. A drain does not shorten it: a batch that was
    /// acknowledged by its leader alone becomes readable only when the other replicas have it.
    pub growing_ms: i64,
}

/// The intents in doubt.
#[derive(Debug, Default)]
pub struct Settlement {
    waiting: BTreeMap<BufferPosition, Unsettled>,
    obliged: BTreeMap<BufferPosition, (PartitionId, OffsetRange, Unsettled)>,
    by_batch: HashMap<BatchKey, BTreeSet<BufferPosition>>,
}

/// Producer id, epoch, base sequence and partition: one batch of an idempotent producer.
type BatchKey = (i64, i16, i32, i32);

impl Settlement {
    /// Takes an intent in.
    pub fn add(&mut self, unsettled: Unsettled) {
        let position = unsettled.unresolved.intent.position;
        if let Some(key) = batch_key(&unsettled.unresolved) {
            self.by_batch.entry(key).or_default().insert(position);
        }
        self.waiting.insert(position, unsettled);
    }

    /// Takes in an acknowledged batch that the buffer cannot give again: its frame is kept until its offsets, which are
    /// fetched, are in the ledger.
    pub fn oblige_unreadable(
        &mut self,
        id: PartitionId,
        position: BufferPosition,
        location: FrameLocation,
        range: OffsetRange,
    ) {
        let intent = PendingIntent {
            position,
            location,
            connection_id: 0,
            topic: TopicKey::Id(id.incarnation),
            partition: id.partition,
            sent_at_ms: 0,
            header: None,
            floor: None,
        };
        let unsettled = Unsettled::new(Unresolved {
            intent,
            doubt: Doubt::Uncertain,
            since_ms: 0,
            base_offset: Some(range.first),
            accepted_before: true,
        });
        self.obliged.insert(position, (id, range, unsettled));
    }

    /// The partitions whose ends are to be read now. A connection that died a moment ago may still have a request with
    /// the broker, and a batch that was appended may not be readable yet: hence the grace.
    pub fn questions(&self, now_ms: i64, grace_ms: i64) -> BTreeSet<(TopicKey, i32)> {
        self.waiting
            .values()
            .map(|unsettled| &unsettled.unresolved)
            .filter(|unresolved| {
                now_ms.saturating_sub(unresolved.since_ms) >= grace_of(unresolved.doubt, grace_ms)
            })
            .map(|unresolved| (unresolved.intent.topic.clone(), unresolved.intent.partition))
            .collect()
    }

    /// Takes an answer in that was asked for at `asked_ms`.
    pub fn on_answer(
        &mut self,
        topic: &TopicKey,
        partition: i32,
        answer: &Answer,
        asked_ms: i64,
        graces: Graces,
    ) -> Vec<Verdict> {
        let grace_ms = graces.asking_ms;
        let concerned: Vec<BufferPosition> = self
            .waiting
            .iter()
            .filter(|(_, unsettled)| {
                let unresolved = &unsettled.unresolved;
                unresolved.intent.partition == partition
                    && unresolved.intent.topic == *topic
                    && asked_ms.saturating_sub(unresolved.since_ms) >= grace_of(unresolved.doubt, grace_ms)
            })
            .map(|(&position, _)| position)
            .collect();
        let mut verdicts = Vec::new();
        for position in concerned {
            let Some(unsettled) = self.waiting.get_mut(&position) else {
                continue;
            };
            match *answer {
                Answer::Gone => unsettled.gone_since_ms = unsettled.gone_since_ms.or(Some(asked_ms)),
                Answer::Found { .. } => unsettled.gone_since_ms = None,
            }
            match judge(unsettled, partition, answer, asked_ms, graces.growing_ms) {
                Judgement::Wait => {}
                Judgement::Oblige(id, range) => {
                    if let Some(unsettled) = self.waiting.remove(&position) {
                        self.obliged.insert(position, (id, range, unsettled));
                    }
                    verdicts.push(Verdict::Oblige(id, range));
                }
                Judgement::NotThere => {
                    if let Some(unsettled) = self.forget(position) {
                        verdicts.push(unsettled.let_go());
                    }
                }
            }
        }
        verdicts
    }

    /// Lets go of the intents whose ranges are durable now. `contradicts` says whether the batch that is held at a
    /// range is known to be another one.
    pub fn settle(
        &mut self,
        is_durable: impl Fn(PartitionId, OffsetRange) -> bool,
        contradicts: impl Fn(PartitionId, OffsetRange, &Identity) -> bool,
    ) -> Vec<Verdict> {
        let done: Vec<BufferPosition> = self
            .obliged
            .iter()
            .filter(|(_, (id, range, _))| is_durable(*id, *range))
            .map(|(&position, _)| position)
            .collect();
        let mut verdicts = Vec::new();
        for position in done {
            let Some((id, range, _)) = self.obliged.get(&position) else {
                continue;
            };
            let (id, range) = (*id, *range);
            let Some(unsettled) = self.forget(position) else {
                continue;
            };
            let identity = unsettled.unresolved.intent.header.as_ref().map(Identity::of);
            let is_other = identity.is_some_and(|identity| contradicts(id, range, &identity));
            verdicts.push(match is_other && unsettled.fallback.is_some() {
                true => unsettled.let_go(),
                false => Verdict::LetGo(position),
            });
        }
        verdicts
    }

    /// A batch of an idempotent producer was confirmed: copies of it that are in doubt are settled. `is_topic` says
    /// whether a key names the topic of the confirmed batch.
    pub fn on_confirmed(
        &mut self,
        written: &Written,
        is_topic: impl Fn(&TopicKey) -> bool,
    ) -> Vec<BufferPosition> {
        let Some(header) = written.intent.header.filter(|header| header.has_producer()) else {
            return Vec::new();
        };
        let key = (
            header.producer_id,
            header.producer_epoch,
            header.base_sequence,
            written.intent.partition,
        );
        let Some(copies) = self.by_batch.get(&key) else {
            return Vec::new();
        };
        let same: Vec<BufferPosition> = copies
            .iter()
            .copied()
            .filter(|position| *position != written.intent.position)
            .filter(|position| {
                self.get(*position)
                    .is_some_and(|copy| is_topic(&copy.unresolved.intent.topic))
            })
            .collect();
        same.into_iter()
            .filter(|&position| self.forget(position).is_some())
            .collect()
    }

    /// Takes out the intents for these topics.
    pub fn forget_topics(&mut self, is_meant: impl Fn(&TopicKey) -> bool) -> Vec<BufferPosition> {
        let waiting = self.waiting.iter();
        let meant: Vec<BufferPosition> = waiting
            .filter(|(_, unsettled)| is_meant(&unsettled.unresolved.intent.topic))
            .map(|(&position, _)| position)
            .collect();
        meant
            .into_iter()
            .filter(|&position| self.forget(position).is_some())
            .collect()
    }

    /// Takes out everything that waits for an answer: none will come any more.
    pub fn take_all(&mut self) -> Vec<Unsettled> {
        let positions: BTreeSet<BufferPosition> =
            self.waiting.keys().chain(self.obliged.keys()).copied().collect();
        positions
            .into_iter()
            .filter_map(|position| self.forget(position))
            .collect()
    }

    /// True when no acknowledged batch waits here for its place.
    pub fn is_placed(&self) -> bool {
        let obliged = self.obliged.values().map(|(_, _, unsettled)| unsettled);
        self.waiting
            .values()
            .chain(obliged)
            .all(|unsettled| unsettled.written.is_none())
    }

    /// How many intents are in doubt.
    pub fn count(&self) -> usize {
        self.waiting.len().saturating_add(self.obliged.len())
    }

    fn get(&self, position: BufferPosition) -> Option<&Unsettled> {
        let obliged = || self.obliged.get(&position).map(|(_, _, unsettled)| unsettled);
        self.waiting.get(&position).or_else(obliged)
    }

    fn forget(&mut self, position: BufferPosition) -> Option<Unsettled> {
        let obliged = self.obliged.remove(&position).map(|(_, _, unsettled)| unsettled);
        let unsettled = self.waiting.remove(&position).or(obliged)?;
        if let Some(key) = batch_key(&unsettled.unresolved)
            && let Some(positions) = self.by_batch.get_mut(&key)
        {
            positions.remove(&position);
            if positions.is_empty() {
                self.by_batch.remove(&key);
            }
        }
        Some(unsettled)
    }
}

/// How long an offset that the broker named may stay beyond the readable end (slow replicas) before the batch counts as
/// not written.
pub const PATIENCE_MS: i64 = 60_000;

/// How long a topic must be unknown before it counts as deleted: brokers also say "unknown" while they start, and to those
/// who may not see it.
const GONE_PATIENCE_MS: i64 = 30_000;

enum Judgement {
    Wait,
    Oblige(PartitionId, OffsetRange),
    NotThere,
}

fn judge(
    unsettled: &Unsettled,
    partition: i32,
    answer: &Answer,
    asked_ms: i64,
    growing_ms: i64,
) -> Judgement {
    let doubted_for_ms = asked_ms.saturating_sub(unsettled.unresolved.since_ms);
    let Answer::Found {
        incarnation,
        log_start,
        end,
        ..
    } = *answer
    else {
        let gone_since_ms = unsettled.gone_since_ms.unwrap_or(asked_ms);
        return match asked_ms.saturating_sub(gone_since_ms) < GONE_PATIENCE_MS {
            true => Judgement::Wait,
            false => Judgement::NotThere,
        };
    };
    let id = PartitionId {
        incarnation,
        partition,
    };
    match unsettled.expected {
        Some(range) if range.last < end => Judgement::Oblige(id, range),
        Some(_) if doubted_for_ms < PATIENCE_MS => Judgement::Wait,
        Some(_) => Judgement::NotThere,
        None => {
            let held = unsettled
                .unresolved
                .intent
                .floor
                .filter(|(of, _)| *of == incarnation)
                .map(|(_, offset)| offset);
            let first = held.map_or(log_start, |offset| offset.max(log_start));
            let grown = OffsetRange::new(first, end.saturating_sub(1));
            // What was appended may not be readable yet, as long as a replica lags. A log that has not grown by as much as
            // the batch is long does not have it so far.
            let intent = &unsettled.unresolved.intent;
            let deltas = intent
                .header
                .map_or(0, |header| i64::from(header.last_offset_delta));
            let has_room = grown.is_some_and(|range| range.last.saturating_sub(range.first) >= deltas);
            let may_grow = unsettled.unresolved.doubt != Doubt::NoAnswer && doubted_for_ms < growing_ms;
            match grown {
                _ if may_grow && !has_room => Judgement::Wait,
                Some(range) => Judgement::Oblige(id, range),
                None => Judgement::NotThere,
            }
        }
    }
}

fn grace_of(doubt: Doubt, grace_ms: i64) -> i64 {
    match doubt {
        // The answer is in: the batch is readable where it says.
        Doubt::Uncertain => 0,
        _ => grace_ms,
    }
}

fn batch_key(unresolved: &Unresolved) -> Option<BatchKey> {
    let header = unresolved
        .intent
        .header
        .as_ref()
        .filter(|header| header.has_producer())?;
    Some((
        header.producer_id,
        header.producer_epoch,
        header.base_sequence,
        unresolved.intent.partition,
    ))
}

#[cfg(test)]
#[path = "settlement_tests.rs"]
mod tests;
