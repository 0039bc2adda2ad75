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

    /// Which partitions are known.
    pub(super) fn ids(&self) -> BTreeSet<PartitionId> {
        self.partitions.keys().copied().collect()
    }

    /// Forgets all but these.
    pub(super) fn retain(&mut self, keep: impl Fn(&PartitionId) -> bool) {
        self.partitions.retain(|id, _| keep(id));
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

    /// The next time at which one is due even when nothing more is heard.
    pub(super) fn due_at(&self) -> Instant {
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

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    const RULES: Rules = Rules {
        interval: Duration::from_secs(60),
        segment_bytes: 1_000_000,
        survey_interval: Duration::from_secs(600),
    };

    fn id(partition: i32) -> PartitionId {
        PartitionId {
            incarnation: Uuid::from_u128(1),
            partition,
        }
    }

    fn bounds(log_start: i64, high_watermark: i64) -> Bounds {
        Bounds {
            log_start,
            high_watermark,
            leader_epoch: 3,
        }
    }

    fn settled(bounds: Bounds) -> Settled {
        Settled {
            bounds,
            is_done: true,
            offsets: 0,
            bytes: 0,
        }
    }

    /// Two partitions, archived up to 1,000.
    fn backlog(start: Instant) -> Backlog {
        let mut backlog = Backlog::new(RULES, start);
        for partition in [0, 1] {
            backlog.settle(id(partition), &settled(bounds(0, 1_000)), start);
        }
        backlog
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_record_waits_for_others_until_the_interval_is_over_and_idle_partitions_are_left_out() {
        let start = Instant::now();
        let mut backlog = backlog(start);
        assert_eq!(backlog.due(start + seconds(599)), None);
        assert_eq!(
            backlog.due(start + seconds(600)),
            Some((Cause::Survey, Scope::All))
        );
        backlog.news(id(0), bounds(0, 1_001), start + seconds(100));
        backlog.news(id(0), bounds(0, 1_002), start + seconds(150));
        assert_eq!(backlog.due_at(), start + seconds(160));
        assert_eq!(backlog.due(start + seconds(159)), None);
        let quiet = BTreeSet::from([id(1)]);
        let due = Some((Cause::Age, Scope::AllBut(quiet)));
        assert_eq!(backlog.due(start + seconds(160)), due);
        // What came meanwhile comes along.
        backlog.news(id(1), bounds(0, 1_001), start + seconds(159));
        let due = Some((Cause::Age, Scope::AllBut(BTreeSet::new())));
        assert_eq!(backlog.due(start + seconds(160)), due);
        backlog.settle(id(0), &settled(bounds(0, 1_002)), start + seconds(161));
        backlog.settle(id(1), &settled(bounds(0, 1_001)), start + seconds(161));
        assert_eq!(backlog.due(start + seconds(300)), None);
    }

    #[test]
    fn enough_for_a_segment_does_not_wait_and_takes_nobody_along() {
        let start = Instant::now();
        let mut backlog = backlog(start);
        backlog.news(id(1), bounds(0, 1_001), start);
        backlog.news(id(0), bounds(0, 1_900), start);
        assert_eq!(backlog.due(start), None, "900 records of 1 KiB");
        backlog.news(id(0), bounds(0, 2_000), start);
        let quiet = BTreeSet::from([id(1)]);
        assert_eq!(backlog.due(start), Some((Cause::Size, Scope::AllBut(quiet))));
        // Learnt: records are small here.
        let small = Settled {
            offsets: 1_000,
            bytes: 10_000,
            ..settled(bounds(0, 2_000))
        };
        for _ in 0..9 {
            backlog.settle(id(0), &small, start);
        }
        backlog.news(id(0), bounds(0, 12_000), start);
        assert_eq!(backlog.due(start), None);
    }

    #[test]
    fn what_retention_comes_near_to_does_not_wait() {
        let start = Instant::now();
        let mut backlog = backlog(start);
        backlog.news(id(0), bounds(0, 1_500), start);
        assert_eq!(backlog.due(start), None);
        backlog.news(id(0), bounds(400, 1_500), start);
        assert_eq!(backlog.due(start), None, "600 archived offsets lie before it");
        backlog.news(id(0), bounds(500, 1_500), start);
        let due = backlog.due(start).map(|(cause, _)| cause);
        assert_eq!(due, Some(Cause::Retention));
        // Retention alone takes nothing that is not archived.
        let mut idle = self::backlog(start);
        idle.news(id(0), bounds(1_000, 1_000), start);
        assert_eq!(idle.due(start), None);
    }

    #[test]
    fn a_log_that_was_cut_back_or_has_another_leader_is_looked_at() {
        let start = Instant::now();
        let other_leader = Bounds {
            leader_epoch: 4,
            ..bounds(0, 1_000)
        };
        for news in [bounds(0, 900), other_leader] {
            let mut backlog = backlog(start);
            backlog.news(id(0), news, start);
            let due = backlog.due(start + RULES.interval).map(|(cause, _)| cause);
            assert_eq!(due, Some(Cause::Age), "{news:?}");
        }
        let mut backlog = backlog(start);
        backlog.lost(id(1), start);
        assert!(backlog.due(start + RULES.interval).is_some());
    }

    #[test]
    fn what_failed_and_what_is_unclear_is_tried_again_after_the_interval_and_not_at_once() {
        let start = Instant::now();
        let mut backlog = backlog(start);
        let failed = Settled {
            is_done: false,
            ..settled(bounds(0, 2_000_000))
        };
        backlog.settle(id(0), &failed, start);
        assert_eq!(backlog.due(start + seconds(59)), None);
        assert!(backlog.due(start + seconds(60)).is_some());
        backlog.settle(id(0), &settled(bounds(0, 2_000_000)), start);
        backlog.unclear(start);
        backlog.unclear(start + seconds(30));
        assert_eq!(backlog.due(start + seconds(59)), None);
        assert_eq!(
            backlog.due(start + seconds(60)),
            Some((Cause::Unclear, Scope::All))
        );
        backlog.surveyed(start + seconds(60));
        assert_eq!(backlog.due(start + seconds(61)), None);
    }
}
