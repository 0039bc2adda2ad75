//! What the engine wants done.

use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::Arc;

use teeline_archive::OffsetRange;
use teeline_archive::ids::BufferPosition;
use teeline_archive::ledger::Entry;
use teeline_archive::segment::{Origin, SegmentNotes, UndecidedTransaction};
use uuid::Uuid;

use super::{Engine, Stored, UnderWay, UnderWayIntent};
use crate::batch::{Batch, Content};
use crate::close::{self, Close};
use crate::fetching::{FetchPlan, undecided};
use crate::partition::{Partition, PartitionId};
use crate::resolver::TopicKey;
use crate::source::{Questions, SourcePartition};
use crate::upload::{SegmentPlan, lsn_range};

/// A commit to be written, and what follows from it.
#[derive(Debug, Default)]
pub struct CommitPlan {
    /// What it says.
    pub entries: Vec<Entry>,
    pub(super) stored: Vec<Stored>,
    pub(super) snapshots: Vec<(Uuid, BufferPosition)>,
    pub(super) endings: Vec<BufferPosition>,
}

impl Engine {
    /// Looks at the state: notes holes, closes segments, lets go of what is not needed any more.
    pub fn poll(&mut self, now_ms: i64) {
        self.look_at_others(now_ms);
        self.look_at_holes(now_ms);
        self.look_at_endings(now_ms);
        if self.settings.has_source {
            self.give_up_catalog(now_ms, CATALOG_PATIENCE_MS);
        }
        let open = self
            .partitions
            .iter()
            .map(|(id, partition)| (*id, partition.open()));
        let due = close::due(open, &self.settings.close, now_ms, self.draining);
        let size = |id: &PartitionId| self.partitions.get(id).map(Partition::open).unwrap_or_default();
        let due = due
            .into_iter()
            .map(|(id, close)| (id, close, size(&id)))
            .collect();
        for (id, close) in self.patience.hold_back(due, now_ms) {
            self.close(id, close, now_ms);
        }
    }

    /// The next segment to build.
    pub fn take_upload(&mut self) -> Option<SegmentPlan> {
        self.plans.pop_front()
    }

    /// The next partition to fetch from.
    pub fn take_fetch(&mut self, now_ms: i64) -> Option<FetchPlan> {
        if !self.settings.has_source || now_ms < self.source.not_before_ms {
            return None;
        }
        let (usual, short) = self.graces();
        let cluster_id = Arc::clone(self.cluster_id.as_ref()?);
        let memory: u64 = self
            .partitions
            .values()
            .map(|partition| partition.open().memory_bytes)
            .sum();
        if memory > self.settings.close.memory_bytes_max {
            return None;
        }
        // In turn, so that partitions that cannot be fetched do not keep the others waiting.
        let behind = (Bound::Excluded(self.fetched_last), Bound::Unbounded);
        let mut in_turn = self
            .partitions
            .range(behind)
            .chain(self.partitions.range(..=self.fetched_last));
        let (id, topic, ranges) = in_turn.find_map(|(id, partition)| {
            if self.fetching.contains(id) || partition.holes.is_empty() {
                return None;
            }
            let mut due = partition
                .holes
                .due(now_ms, |hole| partition.grace_ms(hole, usual, short));
            if self.leaves_holes {
                due = due.iter().flat_map(|hole| partition.pressing(*hole)).collect();
            }
            due.truncate(RANGES_PER_FETCH);
            (!due.is_empty()).then(|| (*id, Arc::clone(&partition.topic), due))
        })?;
        self.fetched_last = id;
        self.fetching.insert(id);
        Some(FetchPlan {
            id,
            topic,
            cluster_id,
            ranges,
        })
    }

    /// What to ask the source now.
    pub fn take_survey(&mut self, now_ms: i64) -> Option<Questions> {
        let not_before_ms = self.source.not_before_ms.max(self.source.survey_not_before_ms);
        if !self.settings.has_source || self.source.surveying || now_ms < not_before_ms {
            return None;
        }
        self.cluster_id.as_ref()?;
        let (_, short) = self.graces();
        let mut questions = Questions {
            partitions: BTreeSet::new(),
            ids: self.unnamed(now_ms),
        };
        for (topic, partition) in self.settlement.questions(now_ms, self.settle_grace_ms()) {
            let (topic, incarnation) = match topic {
                TopicKey::Name(name) => (name, None),
                // How far its partitions reach is asked as soon as some answer has told its name.
                TopicKey::Id(id) => match self.catalogs.name_of(id) {
                    Some(name) => (name, Some(id)),
                    None => {
                        questions.ids.insert(id);
                        continue;
                    }
                },
            };
            questions.partitions.insert(SourcePartition {
                topic,
                incarnation,
                partition,
            });
        }
        let just_ended = std::mem::take(&mut self.just_ended);
        for (id, partition) in &mut self.partitions {
            if partition
                .transactions
                .open()
                .any(|open| just_ended.contains(&open.producer_id))
            {
                partition.tail_soon(now_ms.saturating_add(short));
            }
            if partition.tail_due(now_ms) && partition.holes.is_empty() {
                questions.partitions.insert(SourcePartition {
                    topic: Arc::clone(&partition.topic),
                    incarnation: Some(id.incarnation),
                    partition: id.partition,
                });
            }
        }
        // One survey in any case, as its answer names the brokers.
        let is_nothing = questions.partitions.is_empty() && questions.ids.is_empty();
        if is_nothing && (self.source.is_known || self.draining) {
            return None;
        }
        while questions.ids.len() > IDS_PER_SURVEY {
            questions.ids.pop_last();
        }
        self.source.surveying = true;
        Some(questions)
    }

    /// The next commit, if it is time for one.
    pub fn take_commit(&mut self, now_ms: i64) -> Option<CommitPlan> {
        if self.committing || !self.wants_commit() {
            return None;
        }
        let waited_ms = now_ms.saturating_sub(self.uploaded_since_ms.unwrap_or(now_ms));
        let more_to_come = !self.under_way.is_empty();
        if more_to_come && !self.uploaded.is_empty() && waited_ms < COMMIT_LINGER_MS {
            return None;
        }
        // A commit names its cluster, and that is known from the first Metadata answer on.
        self.cluster_id.as_ref()?;
        let mut plan = CommitPlan::default();
        let count = self.uploaded.len().min(STORED_PER_COMMIT);
        plan.stored = self.uploaded.drain(..count).collect();
        let segments = plan.stored.iter().flat_map(|stored| &stored.segments);
        plan.entries.extend(segments.cloned().map(Entry::Segment));
        for (snapshot, position) in self.topics.changed() {
            plan.snapshots.push((snapshot.incarnation, position));
            plan.entries.push(Entry::Topic(snapshot));
        }
        if std::mem::take(&mut self.brokers_changed) {
            plan.entries.push(Entry::SourceBrokers(self.brokers.clone()));
        }
        plan.entries.extend(
            self.source_lost_at_ms
                .take()
                .map(|at_ms| Entry::SourceLost { at_ms }),
        );
        plan.entries
            .extend(std::mem::take(&mut self.absences).into_iter().map(Entry::Absent));
        self.add_evidence(&mut plan);
        self.uploaded_since_ms = (!self.uploaded.is_empty()).then_some(now_ms);
        self.committing = true;
        Some(plan)
    }

    /// Without a cluster id there is nothing to bind a commit to, and a buffer that never held one has nothing to say.
    pub(super) fn wants_commit(&self) -> bool {
        self.cluster_id.is_some()
            && (!self.uploaded.is_empty()
                || self.topics.has_changes()
                || self.brokers_changed
                || !self.absences.is_empty()
                || self.source_lost_at_ms.is_some()
                || self.evidence_due)
    }

    /// Queues a run of batches as one segment.
    pub(super) fn plan_segment(
        &mut self,
        id: PartitionId,
        topic: &Arc<str>,
        origin: Origin,
        batches: Vec<Batch>,
        notes: SegmentNotes,
    ) {
        let Some(cluster_id) = self.cluster_id.clone() else {
            return;
        };
        let is_confirmed = origin != Origin::Unconfirmed;
        let held = batches.iter().filter(|_| is_confirmed).map(|batch| batch.range);
        let mut under_way = UnderWay {
            id,
            held: held.collect(),
            intents: Vec::new(),
            batches: batches.len(),
            memory_bytes: 0,
        };
        for batch in &batches {
            match &batch.content {
                Content::Captured { intent, location, .. } => under_way.intents.push(UnderWayIntent {
                    position: *intent,
                    location: *location,
                    range: batch.range,
                }),
                Content::Fetched(bytes) => {
                    under_way.memory_bytes = under_way.memory_bytes.saturating_add(bytes.len() as u64);
                }
            }
        }
        let number = self.plan_count;
        self.plan_count = self.plan_count.saturating_add(1);
        self.under_way.insert(number, under_way);
        let (topic, batches) = (Arc::clone(topic), Arc::new(batches));
        self.plans.push_back(SegmentPlan {
            number,
            id,
            topic,
            cluster_id,
            origin,
            batches,
            notes,
        });
    }

    /// How long a hole may stay one: as configured, and where somebody waits for it.
    pub(super) fn graces(&self) -> (i64, i64) {
        if self.draining {
            return (0, 0);
        }
        (
            self.settings.hole_grace_ms,
            self.settings.hole_grace_ms.min(SHORT_GRACE_MS),
        )
    }

    pub(super) fn settle_grace_ms(&self) -> i64 {
        let grace_ms = self.settings.hole_grace_ms;
        if self.draining {
            grace_ms.min(SHORT_GRACE_MS)
        } else {
            grace_ms
        }
    }

    fn close(&mut self, id: PartitionId, close: Close, now_ms: i64) {
        let Some(partition) = self.partitions.get_mut(&id) else {
            return;
        };
        let topic = Arc::clone(&partition.topic);
        let (leaders, limits) = (&mut self.leaders, &self.settings.close);
        let patience_ms = limits.age_max_ms.saturating_add(EPOCH_PATIENCE_MS);
        let segments = partition.close(limits.bytes_max, |batch| {
            let waits = close == Close::WhatIsKnown && now_ms.saturating_sub(batch.placed_ms) < patience_ms;
            leaders.complete(id, batch, waits)
        });
        let plans: Vec<_> = segments
            .into_iter()
            .map(|batches| (origin_of(&batches), notes_of(partition, &batches), batches))
            .collect();
        for (origin, notes, batches) in plans {
            self.plan_segment(id, &topic, origin, batches, notes);
        }
        if self.leaders.is_outdated(id) {
            self.forget_leaders([id]);
        }
    }

    /// Forgets what leaders told that no open batch of these partitions asks for.
    pub(super) fn forget_leaders(&mut self, ids: impl IntoIterator<Item = PartitionId>) {
        for id in ids {
            let open = self.partitions.get(&id).map(Partition::open_epochs);
            self.leaders.forget(id, &open.unwrap_or_default());
        }
    }

    /// Topics were deleted, or deleted and created again.
    pub(super) fn on_topics_gone(&mut self, incarnations: &BTreeSet<Uuid>) {
        if !incarnations.is_empty() {
            let ids = self.leaders.on_gone(incarnations);
            self.forget_leaders(ids);
        }
    }

    fn look_at_holes(&mut self, now_ms: i64) {
        let dirty = std::mem::take(&mut self.dirty);
        for id in dirty {
            if let Some(partition) = self.partitions.get_mut(&id) {
                let missing = partition.missing();
                partition.holes.update(&missing, now_ms);
            }
        }
    }
}

/// How long an acknowledged batch by name waits for a Metadata answer that says what the name means. The proxy asks
/// every few seconds while there is traffic; this is for when it does not any more.
const CATALOG_PATIENCE_MS: i64 = 120_000;
/// How long batches stay open beyond their age for the Metadata answer that tells their leader epoch: two polls.
const EPOCH_PATIENCE_MS: i64 = 10_000;
/// How long segments that are stored wait for others to share their commit.
const COMMIT_LINGER_MS: i64 = 2_000;
/// What one commit lists at most; far below its limit in bytes.
const STORED_PER_COMMIT: usize = 4_096;
/// Topics of which only the id is known that are asked for in one go. They come from requests, that is from peers.
const IDS_PER_SURVEY: usize = 10_000;
/// Holes of one partition that are fetched in one go.
const RANGES_PER_FETCH: usize = 256;
/// For ranges that somebody waits for, and for transaction markers: long enough for answers that are under way.
pub(super) const SHORT_GRACE_MS: i64 = 1_000;

/// Fetched is what was fetched from the first batch to the last. With more gaps than one footer surely has room for it
/// counts among what is captured, where segments end when they are full.
fn origin_of(batches: &[Batch]) -> Origin {
    let all_fetched = batches
        .iter()
        .all(|batch| matches!(batch.content, Content::Fetched(_)));
    if all_fetched && batches.len() <= FETCHED_MAX {
        Origin::Fetch
    } else {
        Origin::Tee
    }
}

/// Batches of a fetched segment: so many gaps are far below what a footer can list.
const FETCHED_MAX: usize = 8_192;

/// A run of fetched batches vouches for what it spans: what lies between them and is not known to be absent is a gap. Of a
/// run with captured batches among them every gap is listed anyway.
fn gaps_of(partition: &Partition, batches: &[Batch]) -> Vec<OffsetRange> {
    let between = batches.windows(2).filter_map(|pair| match pair {
        [one, next] => OffsetRange::new(
            one.range.last.saturating_add(1),
            next.range.first.saturating_sub(1),
        ),
        _ => None,
    });
    between
        .flat_map(|between| partition.not_absent(between))
        .collect()
}

fn notes_of(partition: &Partition, batches: &[Batch]) -> SegmentNotes {
    let range = batches
        .first()
        .zip(batches.last())
        .and_then(|(first, last)| OffsetRange::new(first.range.first, last.range.last));
    let undecided: Vec<UndecidedTransaction> = partition
        .transactions
        .open()
        .filter(|open| {
            let own = OffsetRange::new(open.first_offset, open.last_offset);
            own.zip(range).is_some_and(|(own, range)| own.overlaps(&range))
        })
        .map(undecided)
        .take(UNDECIDED_MAX)
        .collect();
    let undecided_first_offset = undecided.iter().map(|open| open.first_offset).min().unwrap_or(-1);
    SegmentNotes {
        undecided_first_offset,
        undecided,
        lsn_range: lsn_range(batches),
        gaps: match origin_of(batches) {
            Origin::Fetch => gaps_of(partition, batches),
            Origin::Tee | Origin::Unconfirmed => Vec::new(),
        },
        ..SegmentNotes::default()
    }
}

/// As many as a segment may list.
const UNDECIDED_MAX: usize = teeline_archive::segment::meta::UNDECIDED_MAX;
