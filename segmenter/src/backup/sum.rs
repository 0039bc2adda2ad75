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
    /// Offsets that are still to be fetched.
    pub(super) left: u64,
    /// Topics looked at.
    pub(super) topics: BTreeSet<Arc<str>>,
    /// Partitions looked at.
    pub(super) partitions: BTreeSet<PartitionId>,
    denied: Vec<Trouble>,
    /// Partitions whose end was not known when the run's end was fixed.
    unseen: Option<Trouble>,
    /// Partitions that the last round could not look at.
    unjudged: Option<Trouble>,
    unreadable: BTreeMap<(PartitionId, i64), Trouble>,
    failed: BTreeMap<PartitionId, Trouble>,
}

impl Sum {
    /// Before the first round, after the first look.
    pub(super) fn beginning_with(first: &Round) -> Self {
        Sum {
            unseen: unjudged(first, "could not be looked at when the backup began"),
            ..Sum::default()
        }
    }

    /// Takes a round in, and says how it went.
    pub(super) fn take(&mut self, report: &RoundReport) -> Went {
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
        let before = std::mem::take(&mut self.failed);
        self.unjudged = unjudged(round, "cannot be looked at now");
        let is_idle = report.jobs.is_empty() && round.unjudged == 0;
        let has_come = report.segments > 0 || report.jobs.iter().any(|job| job.ended.is_done());
        let mut went = match is_idle || has_come {
            true => Went::Forward,
            false => Went::Refused,
        };
        let wanted = round.partitions.values();
        let mut left = wanted.fold(0u64, |sum, partition| sum.saturating_add(partition.wanted));
        for job in &report.jobs {
            self.bytes = self.bytes.saturating_add(job.bytes);
            left = left.saturating_sub(job.offsets);
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
        self.left = left;
        went
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
            .chain(self.failed.values())
            .chain(self.unreadable.values())
    }
}

fn unjudged(round: &Round, why: &str) -> Option<Trouble> {
    let reason = format!("{} partitions {why}", round.unjudged);
    (round.unjudged > 0).then(|| Trouble::new("*", None, None, reason))
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
