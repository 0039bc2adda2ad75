//! What all rounds of a backup did together.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use teeline_runtime::exit::error_chain;
use teeline_wire::client::{ClientError, ErrorCode};

use super::patience::Went;
use super::report::Trouble;
use crate::audit::upstream::Silence;
use crate::audit::{Round, RoundReport};
use crate::fetcher::{Ended, JobReport};
use crate::fetching::FetchError;
use crate::partition::PartitionId;
use crate::source::SourceError;

/// What all rounds together did.
#[derive(Default)]
pub(super) struct Sum {
    /// Segments committed.
    pub(super) segments: u64,
    /// Records in them.
    pub(super) records: u64,
    /// Bytes of their batches.
    pub(super) bytes: u64,
    /// Offsets that are still to be fetched, where there are any.
    left: BTreeMap<PartitionId, u64>,
    /// Topics looked at.
    pub(super) topics: BTreeSet<Arc<str>>,
    /// Partitions looked at.
    pub(super) partitions: BTreeSet<PartitionId>,
    denied: Vec<Trouble>,
    /// What was not known when the run's end was fixed.
    unseen: Vec<Trouble>,
    /// What the last round could not look at.
    unjudged: Vec<Trouble>,
    /// What a run with an end has promised: the partitions of its beginning, and how much of each is still to come.
    promised: BTreeMap<PartitionId, (Arc<str>, u64)>,
    /// What of it cannot come any more.
    gone: BTreeMap<PartitionId, Trouble>,
    /// Why the last round failed as a whole.
    round_failed: Option<Trouble>,
    /// What of the cluster's state the last look did not record.
    state: Vec<Trouble>,
    unreadable: BTreeMap<(PartitionId, i64), Trouble>,
    failed: BTreeMap<PartitionId, Trouble>,
}

impl Sum {
    /// Before the first round, after the first look. An endless run comes back to everything, and promises nothing.
    pub(super) fn beginning_with(first: &Round, is_endless: bool) -> Self {
        if is_endless {
            return Sum::default();
        }
        let promised = first.partitions.iter();
        Sum {
            unseen: unjudged(first, "could not be looked at when the backup began"),
            promised: promised
                .map(|(id, partition)| (*id, (Arc::clone(&partition.topic), partition.wanted)))
                .collect(),
            ..Sum::default()
        }
    }

    /// A round failed as a whole; the next one that does not makes up for it.
    pub(super) fn round_failed(&mut self, reason: String) {
        self.round_failed = Some(Trouble::new("*", None, None, reason));
    }

    /// What the last look at the cluster's state did not record.
    pub(super) fn note_state(&mut self, troubles: Vec<Trouble>) {
        self.state = troubles;
    }

    /// Whether the last look at the cluster's state recorded all of it.
    pub(super) fn has_state(&self) -> bool {
        self.state.is_empty()
    }

    /// Takes a round in that looked at everything, or only at the partitions in its report. Says how it went.
    pub(super) fn take(&mut self, report: &RoundReport, is_whole: bool) -> Went {
        self.segments = self.segments.saturating_add(report.segments);
        self.records = self.records.saturating_add(report.records);
        let round = &report.round;
        self.topics.extend(
            round
                .partitions
                .values()
                .map(|partition| Arc::clone(&partition.topic)),
        );
        self.partitions.extend(round.partitions.keys());
        self.denied = round
            .missing
            .iter()
            .filter(|(_, why)| *why == Silence::NotAllowed)
            .map(|(topic, _)| Trouble::new(topic, None, None, NOT_ALLOWED.to_owned()))
            .collect();
        self.round_failed = None;
        self.note_gone(report);
        let before = std::mem::take(&mut self.failed);
        if !is_whole {
            // What was not looked at is as it was.
            let is_kept = |id: &PartitionId| !round.partitions.contains_key(id);
            let kept = before.iter().filter(|(id, _)| is_kept(id));
            self.failed
                .extend(kept.map(|(id, trouble)| (*id, trouble.clone())));
        }
        let mut left: BTreeMap<PartitionId, u64> = match is_whole {
            true => BTreeMap::new(),
            false => std::mem::take(&mut self.left),
        };
        left.extend(round.partitions.iter().map(|(id, found)| (*id, found.wanted)));
        self.unjudged = unjudged(round, "cannot be looked at now");
        let is_idle = report.jobs.is_empty() && round.unjudged == 0;
        let has_come = report.segments > 0 || report.jobs.iter().any(|job| job.ended.is_done());
        let mut went = match is_idle || has_come {
            true => Went::Forward,
            false => Went::Refused,
        };
        for job in &report.jobs {
            self.bytes = self.bytes.saturating_add(job.bytes);
            if let Some(left) = left.get_mut(&job.id) {
                *left = left.saturating_sub(job.offsets);
            }
            self.note_unreadable(job);
            let Ended::Failed(error) = &job.ended else {
                continue;
            };
            let reason = error_chain(error);
            // Said once, not in every round.
            if before.get(&job.id).is_none_or(|told| told.reason != reason) {
                tracing::warn!(topic = %job.topic, partition = job.id.partition, error = %reason,
                    "a partition could not be read to its end");
            }
            let trouble = Trouble::new(&job.topic, Some(job.id.partition), None, reason);
            self.failed.insert(job.id, trouble);
            if went == Went::Refused && !is_refusal(error) {
                went = Went::Nowhere;
            }
        }
        left.retain(|_, offsets| *offsets > 0);
        self.left = left;
        went
    }

    /// Offsets that are still to be fetched.
    pub(super) fn left(&self) -> u64 {
        self.left
            .values()
            .fold(0, |sum, offsets| sum.saturating_add(*offsets))
    }

    /// What was promised and is not there any more, unless all of it has come before.
    fn note_gone(&mut self, report: &RoundReport) {
        let round = &report.round;
        let is_denied = |topic: &str| {
            let mut missing = round.missing.iter();
            missing.any(|(name, why)| **name == *topic && *why == Silence::NotAllowed)
        };
        for (id, (topic, left)) in &mut self.promised {
            let job = report.jobs.iter().find(|job| job.id == *id);
            let is_there = match round.partitions.get(id) {
                Some(partition) => {
                    *left = partition.wanted.saturating_sub(job.map_or(0, |job| job.offsets));
                    !job.is_some_and(|job| matches!(job.ended, Ended::Gone))
                }
                // It may be one of those that could not be looked at now.
                None if round.unjudged > 0 => continue,
                None => is_denied(topic),
            };
            if is_there || *left == 0 {
                self.gone.remove(id);
                continue;
            }
            let reason = format!("deleted while the backup ran; {left} offsets of it are lost");
            let trouble = Trouble::new(topic, Some(id.partition), None, reason);
            self.gone.insert(*id, trouble);
        }
    }

    fn note_unreadable(&mut self, job: &JobReport) {
        for (range, error) in &job.unreadable {
            let trouble = Trouble::new(
                &job.topic,
                Some(job.id.partition),
                Some(*range),
                error_chain(error),
            );
            self.unreadable.insert((job.id, range.first), trouble);
        }
    }

    /// What could not be read.
    pub(super) fn troubles(&self) -> impl Iterator<Item = &Trouble> {
        self.denied
            .iter()
            .chain(&self.unseen)
            .chain(&self.unjudged)
            .chain(self.gone.values())
            .chain(&self.round_failed)
            .chain(&self.state)
            .chain(self.failed.values())
            .chain(self.unreadable.values())
    }
}

fn unjudged(round: &Round, why: &str) -> Vec<Trouble> {
    let topics = round
        .missing
        .iter()
        .filter(|(_, silence)| *silence == Silence::NotNow);
    let mut troubles: Vec<Trouble> = topics
        .map(|(topic, _)| Trouble::new(topic, None, None, why.to_owned()))
        .collect();
    // Topics count among what was not judged.
    let partitions = round.unjudged.saturating_sub(troubles.len());
    if partitions > 0 {
        troubles.push(Trouble::new(
            "*",
            None,
            None,
            format!("{partitions} partitions {why}"),
        ));
    }
    troubles
}

const NOT_ALLOWED: &str = "may not be read (hint: the principal needs DESCRIBE and READ)";

/// Whether waiting does not cure it.
fn is_refusal(error: &FetchError) -> bool {
    match error {
        FetchError::Source {
            source: SourceError::Unavailable(error),
            ..
        } => !passes(error),
        FetchError::Source { .. } | FetchError::Batch { .. } => true,
        FetchError::Write(_) | FetchError::BeyondEnd { .. } | FetchError::Nothing { .. } => false,
    }
}

fn passes(error: &ClientError) -> bool {
    error.is_retriable() && error.code().is_none_or(ErrorCode::is_retriable)
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::audit::PartitionReport;
    use crate::audit::upstream::Bounds;

    const ID: PartitionId = PartitionId {
        incarnation: Uuid::from_u128(1),
        partition: 3,
    };

    fn round(wanted: u64) -> Round {
        let partition = PartitionReport {
            topic: Arc::from("orders"),
            start: 0,
            bounds: Bounds {
                log_start: 0,
                high_watermark: 9,
                leader_epoch: 0,
            },
            demanded_to: 9,
            wanted,
            lag: wanted,
            held: 0,
            explained: teeline_archive::OffsetSet::new(),
            awaiting: 0,
        };
        Round {
            partitions: BTreeMap::from([(ID, partition)]),
            ..Round::default()
        }
    }

    fn report(round: Round, jobs: Vec<JobReport>) -> RoundReport {
        RoundReport {
            round,
            jobs,
            ..RoundReport::default()
        }
    }

    fn job(offsets: u64, ended: Ended) -> JobReport {
        JobReport {
            id: ID,
            topic: Arc::from("orders"),
            offsets,
            segments: 1,
            records: offsets,
            bytes: 0,
            unreadable: Vec::new(),
            ended,
        }
    }

    fn reasons(sum: &Sum) -> Vec<(&str, &str)> {
        sum.troubles()
            .map(|trouble| (trouble.topic.as_str(), trouble.reason.as_str()))
            .collect()
    }

    #[test]
    fn what_is_deleted_before_it_is_held_is_told_and_what_is_held_is_not() {
        let mut sum = Sum::beginning_with(&round(9), false);
        sum.take(&report(round(9), vec![job(4, Ended::Gone)]), true);
        let lost = [("orders", "deleted while the backup ran; 5 offsets of it are lost")];
        assert_eq!(reasons(&sum), lost);
        sum.take(&report(Round::default(), Vec::new()), true);
        assert_eq!(reasons(&sum), lost);

        let mut sum = Sum::beginning_with(&round(9), false);
        sum.take(&report(Round::default(), Vec::new()), true);
        assert_eq!(sum.troubles().count(), 1);

        let mut sum = Sum::beginning_with(&round(9), false);
        sum.take(&report(round(9), vec![job(9, Ended::Done)]), true);
        sum.take(&report(Round::default(), Vec::new()), true);
        assert_eq!(sum.troubles().count(), 0);

        let mut sum = Sum::beginning_with(&round(9), true);
        sum.take(&report(Round::default(), Vec::new()), true);
        assert_eq!(sum.troubles().count(), 0, "an endless run has promised nothing");
    }

    #[test]
    fn a_topic_that_could_not_be_looked_at_is_named() {
        let first = Round {
            missing: vec![
                (Arc::from("unclear"), Silence::NotNow),
                (Arc::from("__consumer_offsets"), Silence::NotMeant),
            ],
            unjudged: 3,
            ..Round::default()
        };
        let why = "could not be looked at when the backup began";
        let partitions = format!("2 partitions {why}");
        let sum = Sum::beginning_with(&first, false);
        assert_eq!(reasons(&sum), [("unclear", why), ("*", partitions.as_str())]);
        assert_eq!(Sum::beginning_with(&first, true).troubles().count(), 0);
    }

    #[test]
    fn a_failed_round_is_told_until_one_succeeds() {
        let mut sum = Sum::beginning_with(&round(0), true);
        sum.round_failed("no broker answers".to_owned());
        assert_eq!(reasons(&sum), [("*", "no broker answers")]);
        sum.take(&report(round(0), Vec::new()), true);
        assert_eq!(sum.troubles().count(), 0);
    }
}
