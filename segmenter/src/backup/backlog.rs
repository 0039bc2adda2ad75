//! What has been written and is not archived yet, and when it is worth a round. Pure.
//!
//! A record waits until others have gathered, or every few records would make a segment of their own: at most
//! `interval`, and less where enough has gathered for a whole segment, or where retention comes near.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use tokio::time::Instant;

use crate::audit::upstream::Bounds;
use crate::partition::PartitionId;

/// When a round is due.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules {
    /// The longest that a record waits.
    pub(super) interval: Duration,
    /// A partition with so much does not wait.
    pub(super) segment_bytes: u64,
    /// So often everything is looked at, whatever is known.
    pub(super) survey_interval: Duration,
}

/// Why a round is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    /// Something has waited for the whole interval.
    Age,
    /// Some partitions have enough for a segment.
    Size,
    /// The log's start comes near to what is not archived.
    Retention,
    /// Topics or partitions have come or gone.
    Topics,
    /// Not everything was found or read in the last round, or a log has changed in a way that is to be looked at.
    Unclear,
    /// It is time to look at everything.
    Survey,
}

impl Cause {
    /// As metrics name it.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Cause::Age => "age",
            Cause::Size => "size",
            Cause::Retention => "retention",
            Cause::Topics => "topics",
            Cause::Unclear => "unclear",
            Cause::Survey => "survey",
        }
    }
}

/// What a round is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Scope {
    /// Everything.
    All,
    /// All but these.
    AllBut(BTreeSet<PartitionId>),
}

/// What waits.
#[derive(Debug)]
pub(super) struct Backlog {
    rules: Rules,
    partitions: HashMap<PartitionId, Partition>,
    surveyed_at: Instant,
    /// Something is unclear, and to be looked at then.
    unclear_until: Option<Instant>,
    /// So long after a round there is none, unless the logs were heard: whatever is due again at once must not keep all
    /// others from being followed.
    hear_until: Option<Instant>,
}

/// One partition, as it was in the last round and as it is now.
#[derive(Debug)]
struct Partition {
    then: Bounds,
    now: Bounds,
    /// Since when something waits.
    since: Option<Instant>,
    bytes_per_offset: f64,
}

/// What a round left of a partition.
#[derive(Debug, Clone, Copy)]
pub(super) struct Settled {
    /// How far the log reached.
    pub(super) bounds: Bounds,
    /// Whether all of that is archived.
    pub(super) is_done: bool,
    /// Offsets that were read.
    pub(super) offsets: u64,
    /// Their bytes.
    pub(super) bytes: u64,
}

impl Backlog {
    /// Nothing is known yet.
    pub(super) fn new(rules: Rules, now: Instant) -> Self {
        Backlog {
            rules,
            partitions: HashMap::new(),
            surveyed_at: now,
            unclear_until: None,
            hear_until: None,
        }
    }

    /// A round looked at everything at that time.
    pub(super) fn surveyed(&mut self, at: Instant) {
        self.surveyed_at = at;
        self.unclear_until = None;
    }

    /// Something is to be looked at, though not at once.
    pub(super) fn unclear(&mut self, now: Instant) {
        self.unclear_until.get_or_insert(now + self.rules.interval);
    }

    /// A round has come to a partition.
    pub(super) fn settle(&mut self, id: PartitionId, settled: &Settled, now: Instant) {
        let partition = self.partitions.entry(id).or_insert(Partition {
            then: settled.bounds,
            now: settled.bounds,
            since: None,
            bytes_per_offset: BYTES_PER_OFFSET_AT_FIRST,
        });
        partition.then = settled.bounds;
        partition.now = settled.bounds;
        // What could not be read now is not tried again at once.
        partition.since = (!settled.is_done).then_some(now);
        if settled.offsets > 0 && settled.bytes > 0 {
            let seen = settled.bytes as f64 / settled.offsets as f64;
            partition.bytes_per_offset = (partition.bytes_per_offset + seen) / 2.0;
        }
    }

    /// A round is over that came to the partitions of which `has_come` says so. Those that it should have come to and did
    /// not are gone if it had an answer about everything, and otherwise not tried again at once. True when some are gone.
    pub(super) fn round_over(
        &mut self,
        scope: &Scope,
        has_come: impl Fn(&PartitionId) -> bool,
        is_whole: bool,
        now: Instant,
    ) -> bool {
        self.hear_until = Some(now + HEAR.min(self.rules.interval));
        let is_left_out = |id: &PartitionId| match scope {
            Scope::All => false,
            Scope::AllBut(quiet) => quiet.contains(id),
        };
        let known = self.partitions.len();
        self.partitions.retain(|id, partition| {
            if has_come(id) || is_left_out(id) {
                return true;
            }
            partition.then = partition.now;
            partition.since = Some(now);
            !is_whole
        });
        if !is_whole {
            self.unclear(now);
        }
        self.partitions.len() < known
    }

    /// The logs were heard since the last round.
    pub(super) fn heard(&mut self) {
        self.hear_until = None;
    }

    /// Whether a partition is known.
    pub(super) fn knows(&self, id: &PartitionId) -> bool {
        self.partitions.contains_key(id)
    }

    /// Which partitions are known.
    pub(super) fn ids(&self) -> BTreeSet<PartitionId> {
        self.partitions.keys().copied().collect()
    }

    /// A log reaches so far now.
    pub(super) fn news(&mut self, id: PartitionId, bounds: Bounds, now: Instant) {
        let Some(partition) = self.partitions.get_mut(&id) else {
            return;
        };
        partition.now = bounds;
        let has_other_leader = bounds.leader_epoch >= 0 && bounds.leader_epoch != partition.then.leader_epoch;
        if bounds.high_watermark != partition.then.high_watermark || has_other_leader {
            partition.since.get_or_insert(now);
        }
    }

    /// A partition is not followed any more, and to be looked at.
    pub(super) fn lost(&mut self, id: PartitionId, now: Instant) {
        if let Some(partition) = self.partitions.get_mut(&id) {
            partition.since.get_or_insert(now);
        }
    }

    /// What a round is due for now, if it is, and what it need not look at.
    pub(super) fn due(&self, now: Instant) -> Option<(Cause, Scope)> {
        if self.hear_until.is_some_and(|until| now < until) {
            return None;
        }
        if now >= self.surveyed_at + self.rules.survey_interval {
            return Some((Cause::Survey, Scope::All));
        }
        if self.unclear_until.is_some_and(|until| now >= until) {
            return Some((Cause::Unclear, Scope::All));
        }
        let is_aged = |partition: &Partition| {
            let aged = |since: Instant| now >= since + self.rules.interval;
            partition.since.is_some_and(aged)
        };
        if self.partitions.values().any(is_aged) {
            // Whatever else waits comes along.
            let quiet = self.without(|partition| partition.since.is_some());
            return Some((Cause::Age, Scope::AllBut(quiet)));
        }
        let pressing = [
            (
                Cause::Retention,
                Partition::is_endangered as fn(&Partition, &Rules) -> bool,
            ),
            (Cause::Size, Partition::is_large),
        ];
        pressing.into_iter().find_map(|(cause, is_pressing)| {
            let presses = |partition: &Partition| is_pressing(partition, &self.rules);
            let any = self.partitions.values().any(presses);
            any.then(|| (cause, Scope::AllBut(self.without(presses))))
        })
    }

    /// The next time at which one may be due even when nothing more is heard.
    pub(super) fn due_at(&self, now: Instant) -> Instant {
        if let Some(until) = self.hear_until.filter(|until| now < *until) {
            return until;
        }
        let aged = self
            .partitions
            .values()
            .filter_map(|partition| Some(partition.since? + self.rules.interval));
        let survey = self.surveyed_at + self.rules.survey_interval;
        aged.chain(self.unclear_until).fold(survey, Instant::min)
    }

    fn without(&self, is_meant: impl Fn(&Partition) -> bool) -> BTreeSet<PartitionId> {
        let others = self
            .partitions
            .iter()
            .filter(|(_, partition)| !is_meant(partition));
        others.map(|(id, _)| *id).collect()
    }
}

impl Partition {
    /// Offsets that wait.
    fn offsets(&self) -> i64 {
        self.now
            .high_watermark
            .saturating_sub(self.then.high_watermark)
            .max(0)
    }

    fn is_large(&self, rules: &Rules) -> bool {
        self.offsets() as f64 * self.bytes_per_offset >= rules.segment_bytes as f64
    }

    /// Retention is at work, and between the log's start and what waits there is no more than what waits.
    fn is_endangered(&self, _rules: &Rules) -> bool {
        let offsets = self.offsets();
        let moved = self.now.log_start > self.then.log_start;
        moved && offsets > 0 && self.now.log_start.saturating_add(offsets) >= self.then.high_watermark
    }
}

const BYTES_PER_OFFSET_AT_FIRST: f64 = 1024.0;
/// Brokers that have news answer at once.
const HEAR: Duration = Duration::from_secs(1);

#[cfg(test)]
#[path = "backlog_tests.rs"]
mod tests;
