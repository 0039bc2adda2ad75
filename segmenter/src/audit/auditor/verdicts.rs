//! Verdicts of a round: what is to be fetched, and what is to be written down.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use teeline_archive::OffsetRange;
use teeline_archive::ledger::{Absence, AbsenceEvidence, AbsenceReason, Entry, PartitionState, Superseded};
use tokio::time::Instant;
use uuid::Uuid;

use super::{
    Auditor, DOUBTS_AT_ONCE, Fingerprint, GONE_AFTER, Memory, PartitionReport, Round, Seen, UNREADABLE_FOR,
    Undecided, partition_state,
};
use crate::audit::compare;
use crate::audit::entries::{self, Sighting};
use crate::audit::judge::{self, Case, Doubt, Verdict};
use crate::audit::upstream::{LogPartition, Silence, Survey};
use crate::fetcher::{FetchJob, JobReport};
use crate::partition::PartitionId;
use crate::stored::StoredError;

impl Auditor {
    pub(super) async fn judge(&mut self, seen: &Seen, now_ms: i64, round: &mut Round) {
        let id = seen.partition.id;
        let state = partition_state(self.ledger.state(), &seen.partition);
        let fingerprint = fingerprint(seen, state);
        let no_ends = BTreeMap::new();
        let memory = self.memory.get(&id);
        let last = memory.and_then(|memory| memory.last.as_ref());
        let verdict = match last.filter(|(of, _)| *of == fingerprint) {
            Some((_, verdict)) => verdict.clone(),
            None => {
                let case = Case {
                    partition: &seen.partition,
                    state,
                    bounds: seen.bounds,
                    ends: memory.map_or(&no_ends, |memory| &memory.ends),
                    start: seen.start,
                    demanded_to: seen.demanded_to,
                    cleanup_policy: self.cleanup_policy(id.incarnation),
                    now_ms,
                };
                match judge::judge(&case) {
                    Some(verdict) => verdict,
                    None => {
                        round.unjudged = round.unjudged.saturating_add(1);
                        return;
                    }
                }
            }
        };
        let compared = self.compare(seen, &verdict, now_ms).await;
        round.entries.extend(compared.into_iter().map(Entry::Superseded));
        round
            .entries
            .extend(verdict.superseded.iter().cloned().map(Entry::Superseded));
        round
            .entries
            .extend(verdict.absences.iter().cloned().map(Entry::Absent));
        self.write_audit(seen, now_ms, round);
        let wanted = self.readable(id, &verdict.wanted);
        let window = OffsetRange::new(
            seen.start.max(seen.bounds.log_start),
            seen.bounds.high_watermark.saturating_sub(1),
        );
        let span = |ranges: &[OffsetRange]| {
            ranges
                .iter()
                .fold(0u64, |sum, range| sum.saturating_add(range.span()))
        };
        let lag = window.map_or(0, |window| span(&verdict.explained.holes(window)));
        round.partitions.insert(
            id,
            PartitionReport {
                topic: Arc::clone(&seen.partition.topic),
                start: seen.start,
                bounds: seen.bounds,
                demanded_to: seen.demanded_to,
                wanted: span(&wanted),
                lag,
                held: verdict.held.span(),
                explained: verdict.explained.clone(),
                awaiting: verdict.awaiting.span(),
            },
        );
        if !wanted.is_empty() {
            round.jobs.push(FetchJob {
                id,
                topic: Arc::clone(&seen.partition.topic),
                cluster_id: Arc::clone(&round.cluster_id),
                leader: seen.leader,
                is_compacted: self.cleanup_policy(id.incarnation).contains("compact"),
                ranges: wanted,
            });
        }
        let memory = self.memory.entry(id).or_default();
        memory
            .topic
            .get_or_insert_with(|| Arc::clone(&seen.partition.topic));
        memory.last = Some((fingerprint, verdict));
        memory.judged_ms = now_ms;
    }

    /// Settles doubts by comparing contents; what the store does not give now is compared in a later round.
    async fn compare(&mut self, seen: &Seen, verdict: &Verdict, now_ms: i64) -> Vec<Superseded> {
        let mut found = Vec::new();
        let memory = self.memory.entry(seen.partition.id).or_default();
        memory.forget_decided(&verdict.doubts);
        let open: Vec<&Doubt> = verdict
            .doubts
            .iter()
            .filter(|doubt| !memory.undecided.contains(&Undecided::of(doubt)))
            .take(DOUBTS_AT_ONCE)
            .collect();
        for doubt in open {
            match compare::compare(&self.store, doubt).await {
                Ok(comparison) => {
                    if comparison.same.is_empty() && comparison.different.is_empty() {
                        memory.undecided.insert(Undecided::of(doubt));
                    }
                    for (ranges, same) in [(&comparison.same, true), (&comparison.different, false)] {
                        found.extend(
                            ranges
                                .ranges()
                                .iter()
                                .map(|range| by_contents(seen, doubt, *range, same, now_ms)),
                        );
                    }
                }
                Err(error) => {
                    let reason = teeline_runtime::exit::error_chain(&error);
                    tracing::warn!(topic = %seen.partition.topic, partition = seen.partition.id.partition,
                        segment = %doubt.segment.key, error = %reason,
                        "a captured segment could not be compared with the log");
                    if !matches!(error, compare::CompareError::Read(StoredError::Store { .. })) {
                        memory.undecided.insert(Undecided::of(doubt));
                    }
                }
            }
        }
        found
    }

    fn write_audit(&self, seen: &Seen, now_ms: i64, round: &mut Round) {
        let no_ends = BTreeMap::new();
        let sighting = Sighting {
            partition: &seen.partition,
            bounds: seen.bounds,
            start: seen.start,
            ends: self
                .memory
                .get(&seen.partition.id)
                .map_or(&no_ends, |memory| &memory.ends),
            now_ms,
        };
        let state = partition_state(self.ledger.state(), &seen.partition);
        let report_after_ms = i64::try_from(self.settings.report_interval.as_millis()).unwrap_or(i64::MAX);
        let audit =
            entries::partition_audit(&sighting, state.and_then(PartitionState::audit), report_after_ms);
        round.entries.extend(audit.map(Entry::Audit));
    }

    pub(super) fn write_topics(&self, survey: &Survey, now_ms: i64, round: &mut Round) {
        let state = self.ledger.state();
        for topic in &survey.topics {
            let known = state.topic(&topic.name, topic.incarnation);
            let configs = self
                .topics
                .get(&topic.incarnation)
                .and_then(|topic| topic.configs.as_ref());
            let snapshot = entries::topic_snapshot(topic, known, configs, now_ms);
            round.entries.extend(snapshot.map(Entry::Topic));
        }
        let mut brokers = state.source_brokers().to_vec();
        brokers.sort();
        // Fewer of the same are brokers that are down for a while.
        if survey.brokers.iter().any(|broker| !brokers.contains(broker)) {
            round.entries.push(Entry::SourceBrokers(survey.brokers.clone()));
        }
    }

    /// Explains the holes of partitions that cannot be looked at: deleted with their topic, or not ours to read.
    pub(super) fn write_unseen(&mut self, survey: &Survey, now: Instant, now_ms: i64, round: &mut Round) {
        let denied: BTreeSet<Arc<str>> = survey
            .missing
            .iter()
            .filter(|(_, silence)| *silence == Silence::NotAllowed)
            .map(|(name, _)| Arc::clone(name))
            .collect();
        for name in denied.difference(&self.denied) {
            tracing::warn!(topic = %name, backup_id = %self.settings.backup_id,
                "the topic may not be described or read by the auditor's principal: its completeness cannot be shown \
                 (hint: grant DESCRIBE and READ)");
        }
        self.denied = denied;
        let there: HashSet<Uuid> = survey.topics.iter().map(|topic| topic.incarnation).collect();
        let unclear = |name: &str| {
            survey.missing.iter().any(|(missing, silence)| {
                **missing == *name && matches!(silence, Silence::NotNow | Silence::NotMeant)
            })
        };
        for (key, incarnation) in self.ledger.state().topics() {
            if !self.settings.topics.matches(&key.name) || there.contains(&key.incarnation) {
                continue;
            }
            if unclear(&key.name) {
                // Only a topic that is missing without interruption is believed gone.
                if let Some(memory) = self.topics.get_mut(&key.incarnation) {
                    memory.gone_since = None;
                }
                continue;
            }
            let topic: Arc<str> = Arc::from(key.name.as_str());
            let reason = if self.denied.contains(&topic) {
                AbsenceReason::NotAuditable
            } else {
                let memory = self.topics.entry(key.incarnation).or_default();
                let since = *memory.gone_since.get_or_insert(now);
                if now.duration_since(since) < GONE_AFTER {
                    continue;
                }
                AbsenceReason::Deleted
            };
            for (number, state) in incarnation.partitions() {
                let id = PartitionId {
                    incarnation: key.incarnation,
                    partition: number,
                };
                let partition = LogPartition {
                    topic: Arc::clone(&topic),
                    id,
                };
                let unseen = entries::unseen(&partition, state, reason, now_ms);
                round.entries.extend(unseen.into_iter().map(Entry::Absent));
            }
        }
        for topic in &survey.topics {
            if let Some(memory) = self.topics.get_mut(&topic.incarnation) {
                memory.gone_since = None;
            }
        }
    }

    /// What is wanted, without batches that the source could not give whole a while ago.
    fn readable(&self, id: PartitionId, wanted: &[OffsetRange]) -> Vec<OffsetRange> {
        let aside = self.memory.get(&id).and_then(|memory| memory.unreadable.as_ref());
        match aside.filter(|(until, _)| Instant::now() < *until) {
            Some((_, set)) => wanted.iter().flat_map(|range| set.holes(*range)).collect(),
            None => wanted.to_vec(),
        }
    }

    /// Says of what the last round wanted and did not get that it was not wanted any more: for a run that ends early by its
    /// own settings. A later one wants it again.
    pub fn not_wanted(&self) -> Vec<Entry> {
        let at_ms = self.clock.now_ms();
        let mut entries = Vec::new();
        for (id, memory) in &self.memory {
            let (Some((seen, verdict)), Some(topic)) = (&memory.last, &memory.topic) else {
                continue;
            };
            let state = self.ledger.state().partition(topic, id.incarnation, id.partition);
            let mut explained = state.map(PartitionState::held).unwrap_or_default();
            let absences = state.map_or(&[][..], PartitionState::absences).iter();
            // An audit since voids what an earlier run did not want.
            let found = absences.filter(|absence| absence.reason != AbsenceReason::NotWanted);
            found.for_each(|absence| explained.insert(absence.range()));
            // Not older than the audit of this run, whatever the clock does.
            let at_ms = at_ms.max(
                state
                    .and_then(PartitionState::audit)
                    .map_or(at_ms, |audit| audit.at_ms),
            );
            let left = verdict.wanted.iter().flat_map(|range| explained.holes(*range));
            entries.extend(left.map(|range| {
                Entry::Absent(Absence {
                    topic: topic.to_string(),
                    incarnation: id.incarnation,
                    partition: id.partition,
                    first_offset: range.first,
                    last_offset: range.last,
                    reason: AbsenceReason::NotWanted,
                    at_ms,
                    evidence: AbsenceEvidence {
                        log_start_offset: seen.bounds.log_start,
                        leader_epoch: seen.bounds.leader_epoch,
                        cleanup_policy: String::new(),
                    },
                })
            }));
        }
        entries
    }

    pub(super) fn note_unreadable(&mut self, jobs: &[JobReport]) {
        for job in jobs.iter().filter(|job| !job.unreadable.is_empty()) {
            let ranges = job.unreadable.iter().map(|(range, _)| *range).collect();
            let memory = self.memory.entry(job.id).or_default();
            memory.unreadable = Some((Instant::now() + UNREADABLE_FOR, ranges));
        }
    }
}

impl Memory {
    /// Doubts that are no more, or are others now, need not be remembered.
    fn forget_decided(&mut self, doubts: &[Doubt]) {
        if !self.undecided.is_empty() {
            let still: HashSet<Undecided> = doubts.iter().map(Undecided::of).collect();
            self.undecided.retain(|undecided| still.contains(undecided));
        }
    }
}

impl Undecided {
    fn of(doubt: &Doubt) -> Self {
        let compared_with = doubt.sure.iter().map(|(segment, _)| segment.key.clone());
        Undecided {
            segment: doubt.segment.key.clone(),
            ranges: doubt.ranges.ranges().to_vec(),
            compared_with: compared_with.collect(),
        }
    }
}

fn by_contents(seen: &Seen, doubt: &Doubt, range: OffsetRange, same: bool, now_ms: i64) -> Superseded {
    Superseded {
        topic: seen.partition.topic.to_string(),
        incarnation: seen.partition.id.incarnation,
        partition: seen.partition.id.partition,
        segment: doubt.segment.key.clone(),
        first_offset: range.first,
        last_offset: range.last,
        leader_epoch: doubt.segment.leader_epoch_last,
        end_offset: -1,
        at_ms: now_ms,
        same,
    }
}

fn fingerprint(seen: &Seen, state: Option<&PartitionState>) -> Fingerprint {
    Fingerprint {
        bounds: seen.bounds,
        demanded_to: seen.demanded_to,
        start: seen.start,
        // Segments that are joined leave one list for the other, so together they only grow.
        segments: state.map_or(0, |state| {
            state.segments().len().saturating_add(state.replaced_count())
        }),
        absences: state.map_or(0, |state| state.absences().len()),
        superseded: state.map_or(0, |state| {
            state
                .superseded()
                .len()
                .saturating_add(state.superseded_copies().len())
        }),
        audited_ms: state
            .and_then(PartitionState::audit)
            .map_or(-1, |audit| audit.at_ms),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use teeline_archive::segment::Origin;
    use teeline_archive::{OffsetSet, WriterId};

    use crate::audit::judge::tests::{range, segment};

    #[test]
    fn what_was_compared_in_vain_is_compared_again_when_there_is_more_to_compare_and_forgotten_when_settled()
    {
        let doubt = |ranges: &[(i64, i64)]| Doubt {
            segment: segment(WriterId(1), 0, Origin::Tee, range(0, 9), -1),
            ranges: ranges
                .iter()
                .map(|&(first, last)| range(first, last))
                .collect::<OffsetSet>(),
            sure: Vec::new(),
        };
        let mut memory = Memory::default();
        memory.undecided.insert(Undecided::of(&doubt(&[(0, 4)])));
        memory.forget_decided(&[doubt(&[(0, 4)])]);
        assert_eq!(memory.undecided.len(), 1, "the same once more");
        assert!(!memory.undecided.contains(&Undecided::of(&doubt(&[(0, 9)]))));
        memory.forget_decided(&[doubt(&[(0, 9)])]);
        assert!(memory.undecided.is_empty());
    }
}
