//! What came of the work that was handed out.

use std::collections::BTreeMap;
use std::sync::Arc;

use teeline_archive::OffsetRange;
use teeline_archive::ledger::{Absence, AbsenceEvidence, AbsenceReason};

use super::load::held_by;
use super::work::{CommitPlan, SHORT_GRACE_MS};
use super::{Engine, Stored};
use crate::fetching::{FetchError, Fetched};
use crate::metrics;
use crate::partition::PartitionId;
use crate::resolver::TopicKey;
use crate::settlement::{Answer, Graces, PATIENCE_MS, Verdict};
use crate::source::{SourceError, SourcePartition, SurveyReport};
use crate::upload::Uploaded;

impl Engine {
    /// A planned segment is stored.
    pub fn on_uploaded(&mut self, number: u64, id: PartitionId, uploaded: Uploaded, now_ms: i64) {
        let Some(under_way) = self.under_way.remove(&number) else {
            return;
        };
        let (lost, stored): (Vec<_>, Vec<_>) = under_way
            .intents
            .into_iter()
            .partition(|intent| uploaded.lost.contains(&intent.range));
        if !uploaded.lost.is_empty() {
            // What the buffer cannot give again is fetched. Its frames stay until the ledger has those offsets.
            for intent in lost {
                self.settlement
                    .oblige_unreadable(id, intent.position, intent.location, intent.range);
            }
            if let Some(partition) = self.partitions.get_mut(&id) {
                for range in &uploaded.lost {
                    partition.contest(*range);
                }
                self.dirty.insert(id);
            }
        }
        self.uploaded.push(Stored {
            segments: uploaded.segments,
            intents: stored.iter().map(|intent| intent.position).collect(),
        });
        self.uploaded_since_ms.get_or_insert(now_ms);
    }

    /// A fetch has ended.
    pub fn on_fetched(&mut self, id: PartitionId, asked: &[OffsetRange], fetched: Fetched, now_ms: i64) {
        self.fetching.remove(&id);
        let Some(partition) = self.partitions.get_mut(&id) else {
            return;
        };
        let topic = Arc::clone(&partition.topic);
        let bytes = fetched
            .batches
            .iter()
            .map(|batch| batch.bytes.len() as u64)
            .sum::<u64>();
        let streamed = fetched
            .segments
            .iter()
            .map(|segment| segment.uncompressed_bytes)
            .sum::<u64>();
        metrics::fetched(bytes.saturating_add(streamed));
        for batch in fetched.batches {
            partition.place_fetched(batch, now_ms);
        }
        partition.transactions.absorb(fetched.transactions);
        for segment in &fetched.segments {
            partition.hold(segment.range());
        }
        let mut absences = Vec::new();
        for (range, reason) in fetched.absent {
            partition.mark_absent(range, now_ms);
            absences.push(absence(&topic, id, range, reason, now_ms));
        }
        if !fetched.segments.is_empty() {
            self.uploaded.push(Stored {
                segments: fetched.segments,
                intents: Vec::new(),
            });
            self.uploaded_since_ms.get_or_insert(now_ms);
        }
        for absence in &absences {
            let offsets = absence
                .last_offset
                .abs_diff(absence.first_offset)
                .saturating_add(1);
            metrics::absent(offsets);
            tracing::info!(%topic, partition = id.partition, first = absence.first_offset,
                last = absence.last_offset, reason = ?absence.reason, "the source has nothing at these offsets");
        }
        self.absences.extend(absences);
        match fetched.error {
            None => {
                if let Some(partition) = self.partitions.get_mut(&id) {
                    partition.is_there();
                }
                self.source_answered();
            }
            Some(error) => self.on_fetch_error(id, asked, &error, now_ms),
        }
        // After the errors: what is still missing waits its grace again.
        self.dirty.insert(id);
        self.settle(now_ms);
    }

    /// A survey has ended.
    pub fn on_survey(&mut self, asked_ms: i64, report: Result<SurveyReport, SourceError>, now_ms: i64) {
        self.source.surveying = false;
        self.source.survey_not_before_ms = now_ms.saturating_add(SURVEY_PAUSE_MS);
        let report = match report {
            Ok(report) => report,
            Err(error) => return self.source_failed(&error, now_ms),
        };
        self.source_answered();
        self.source.is_known = true;
        if !report.brokers.is_empty() && report.brokers != self.brokers {
            self.brokers = report.brokers.clone();
            self.brokers_changed = true;
        }
        let graces = Graces {
            asking_ms: self.settle_grace_ms(),
            growing_ms: self.settings.hole_grace_ms.saturating_mul(2).min(PATIENCE_MS),
        };
        self.on_named(&report.topics, (asked_ms, graces), now_ms);
        for (question, answer) in &report.answers {
            let mut keys = vec![TopicKey::Name(Arc::clone(&question.topic))];
            if let Some(incarnation) = question.incarnation {
                keys = vec![TopicKey::Id(incarnation)];
                self.on_tail(incarnation, question, answer, now_ms);
            }
            for key in keys {
                let verdicts = self
                    .settlement
                    .on_answer(&key, question.partition, answer, asked_ms, graces);
                self.follow(verdicts, &question.topic, now_ms);
            }
        }
        self.settle(now_ms);
    }

    /// A commit is in the ledger.
    pub fn on_committed(&mut self, plan: CommitPlan, now_ms: i64) {
        self.committing = false;
        let mut ranges: BTreeMap<PartitionId, Vec<OffsetRange>> = BTreeMap::new();
        for stored in plan.stored {
            for position in stored.intents {
                self.watermark.let_go(position);
            }
            for segment in &stored.segments {
                metrics::segment_committed(segment);
                self.counts.segments = self.counts.segments.saturating_add(1);
                self.counts.records = self.counts.records.saturating_add(segment.record_count);
                if segment.unconfirmed() {
                    continue;
                }
                let identity = &segment.identity;
                let id = PartitionId {
                    incarnation: identity.incarnation,
                    partition: identity.partition,
                };
                ranges.entry(id).or_default().extend(held_by(segment).ranges());
            }
        }
        for (id, ranges) in ranges {
            if let Some(partition) = self.partitions.get_mut(&id) {
                partition.commit(&ranges);
            }
        }
        for (incarnation, position) in plan.snapshots {
            if self.topics.committed(incarnation, position) && !self.topics.needs(position) {
                self.watermark.let_go(position);
            }
        }
        for position in plan.endings {
            self.evidenced.insert(position);
            self.watermark.let_go(position);
        }
        self.settle(now_ms);
    }

    /// Lets go of intents whose ranges are durable now.
    pub(super) fn settle(&mut self, now_ms: i64) {
        let partitions = &self.partitions;
        let verdicts = self.settlement.settle(
            |id, range| {
                partitions
                    .get(&id)
                    .is_some_and(|partition| partition.is_durable(range))
            },
            |id, range, identity| {
                partitions
                    .get(&id)
                    .is_some_and(|partition| partition.contradicts(range, identity))
            },
        );
        self.follow(verdicts, &Arc::from(""), now_ms);
    }

    pub(super) fn follow(&mut self, verdicts: Vec<Verdict>, topic: &Arc<str>, now_ms: i64) {
        for verdict in verdicts {
            match verdict {
                Verdict::Oblige(id, range) => {
                    let topic = self
                        .catalogs
                        .name_of(id.incarnation)
                        .unwrap_or_else(|| Arc::clone(topic));
                    self.partition(id, &topic).oblige(range);
                    self.topics.note_captured(id.incarnation);
                    self.dirty.insert(id);
                }
                Verdict::LetGo(position) => self.watermark.let_go(position),
                Verdict::PlaceIn(incarnation, written) => match self.catalogs.name_of(incarnation) {
                    Some(topic) => self.place(written, incarnation, &topic, now_ms),
                    None => self.watermark.let_go(written.intent.position),
                },
                Verdict::Lost(written) => {
                    tracing::error!(topic = ?written.intent.topic, partition = written.intent.partition,
                        offset = written.base_offset,
                        "an acknowledged batch is in no topic that is known: its topic was deleted before it was \
                         identified");
                    self.watermark.let_go(written.intent.position);
                }
            }
        }
    }

    /// What the end of a partition says about its undecided transactions.
    fn on_tail(&mut self, incarnation: uuid::Uuid, question: &SourcePartition, answer: &Answer, now_ms: i64) {
        let id = PartitionId {
            incarnation,
            partition: question.partition,
        };
        let Some(partition) = self.partitions.get_mut(&id) else {
            return;
        };
        let Answer::Found {
            end,
            stable_end,
            log_start,
            ..
        } = *answer
        else {
            if partition.is_gone(now_ms, GONE_AFTER_MS) {
                partition.take_suspicion();
            }
            partition.tail_seen(now_ms, false, TAIL_FIRST_MS, TAIL_MAX_MS);
            return;
        };
        partition.is_there();
        // What others may have captured behind it is compared by the auditor.
        let suspicion = partition.take_suspicion().filter(|_| !self.leaves_holes);
        let endings = &self.endings;
        let decided: Option<i64> = partition
            .transactions
            .open()
            .filter(|open| open.last_offset < stable_end || endings.ending_of(open).is_some())
            .map(|open| open.first_offset)
            .chain(suspicion)
            .min();
        let wanted = decided.and_then(|first| OffsetRange::new(first.max(log_start), end.saturating_sub(1)));
        let missing = wanted.is_some_and(|wanted| !partition.missing_in(wanted).is_empty());
        if missing && self.leaves_holes {
            // The markers come with what the auditor brings; the ledger will tell.
            return partition.tail_seen(now_ms, false, TAIL_FIRST_MS, TAIL_MAX_MS);
        }
        if let (Some(wanted), true) = (wanted, missing) {
            partition.demand_urgently(wanted);
            self.dirty.insert(id);
        } else if decided.is_some() {
            // Everything up to the end is held, and the log says that these are decided.
            partition.transactions.on_stable(stable_end);
        }
        partition.tail_seen(now_ms, missing, TAIL_FIRST_MS, TAIL_MAX_MS);
    }

    fn on_fetch_error(&mut self, id: PartitionId, asked: &[OffsetRange], error: &FetchError, now_ms: i64) {
        let Some(partition) = self.partitions.get_mut(&id) else {
            return;
        };
        let topic = Arc::clone(&partition.topic);
        match error {
            FetchError::Source {
                source: SourceError::Gone,
                ..
            } => {
                if !partition.is_gone(now_ms, GONE_AFTER_MS) {
                    partition.holes.restart(now_ms);
                    return self.pause_while_draining(now_ms);
                }
                // A topic that is gone stays gone: its id is never used again.
                let gone: Vec<OffsetRange> = asked
                    .iter()
                    .flat_map(|range| partition.missing_in(*range))
                    .collect();
                let offsets: u64 = gone.iter().map(OffsetRange::span).sum();
                for range in gone {
                    partition.mark_absent(range, now_ms);
                    self.absences
                        .push(absence(&topic, id, range, AbsenceReason::Deleted, now_ms));
                }
                metrics::absent(offsets);
                tracing::warn!(%topic, partition = id.partition, offsets,
                    "a topic is gone from the source before its holes were filled");
            }
            FetchError::Source { source, .. } => self.source_failed(source, now_ms),
            FetchError::BeyondEnd { end, offset } => {
                tracing::debug!(%topic, partition = id.partition, end, offset, "the log does not reach that far");
                for range in asked {
                    partition.calm(*range);
                }
                partition.holes.restart(now_ms);
                self.pause_while_draining(now_ms);
            }
            FetchError::Batch { .. } | FetchError::Nothing { .. } | FetchError::Write(_) => {
                let reason = teeline_runtime::exit::error_chain(error);
                tracing::warn!(%topic, partition = id.partition, error = %reason, "a hole could not be filled; trying again");
                metrics::fetch_failed();
                partition.holes.restart(now_ms);
                self.pause_source(now_ms);
            }
        }
    }

    fn source_answered(&mut self) {
        self.source.failures = 0;
        self.source.pause_ms = 0;
        self.source.not_before_ms = 0;
    }

    fn source_failed(&mut self, error: &SourceError, now_ms: i64) {
        metrics::fetch_failed();
        let reason = teeline_runtime::exit::error_chain(error);
        // Once is told; a source that stays away is seen in readiness and metrics.
        if self.source.failures == 0 {
            tracing::warn!(error = %reason, "the source does not answer; capture and upload go on, what is unresolved waits");
        }
        self.pause_source(now_ms);
    }

    /// A drain has no grace, so what cannot be had now is asked for again after a pause, and not for ever.
    fn pause_while_draining(&mut self, now_ms: i64) {
        if self.draining {
            self.pause_source(now_ms);
        }
    }

    fn pause_source(&mut self, now_ms: i64) {
        self.source.failures = self.source.failures.saturating_add(1);
        self.source.pause_ms = self
            .source
            .pause_ms
            .saturating_mul(2)
            .clamp(SOURCE_PAUSE_FIRST_MS, SOURCE_PAUSE_MAX_MS);
        self.source.not_before_ms = now_ms.saturating_add(self.source.pause_ms);
    }
}

/// How long a topic must be unknown before it counts as deleted: brokers also say so while they start.
const GONE_AFTER_MS: i64 = 30_000;
const SURVEY_PAUSE_MS: i64 = 250;
const SOURCE_PAUSE_FIRST_MS: i64 = 1_000;
const SOURCE_PAUSE_MAX_MS: i64 = 30_000;
/// How soon, and how seldom at most, a partition with undecided transactions is looked at.
const TAIL_FIRST_MS: i64 = SHORT_GRACE_MS;
const TAIL_MAX_MS: i64 = 10_000;

pub(super) fn absence(
    topic: &Arc<str>,
    id: PartitionId,
    range: OffsetRange,
    reason: AbsenceReason,
    now_ms: i64,
) -> Absence {
    Absence {
        topic: topic.to_string(),
        incarnation: id.incarnation,
        partition: id.partition,
        first_offset: range.first,
        last_offset: range.last,
        reason,
        at_ms: now_ms,
        evidence: AbsenceEvidence::NONE,
    }
}
