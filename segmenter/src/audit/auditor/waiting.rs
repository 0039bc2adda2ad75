//! Small holes that are young: most of them are none, but wait in the buffers of writers.
//!
//! With many partitions that get a record now and then, writers hold small segments back (see [`crate::patience`]). To the
//! auditor, what waits there longer than the grace looks like a hole, and fetching it would make just those tiny segments
//! that the writers avoid. So the auditor has the same patience: while writers are at work it fetches small young holes if
//! they are few, and leaves them alone if they are more than the allowance. Then they wait until no writer would hold them
//! any longer. Large holes never wait, and neither does anything once no writer is at work.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use teeline_archive::OffsetRange;
use teeline_archive::ids::WriterId;
use teeline_archive::ledger::LedgerState;
use tokio::time::Instant;

use super::{Auditor, Demand, PartitionReport, Round, Seen};
use crate::audit::ages::Watermarks;
use crate::fetcher::FetchJob;
use crate::partition::PartitionId;
use crate::patience::Allowance;

/// What of the logs is older than a writer holds anything back, and how much younger is fetched all the same.
pub(super) struct Waiting {
    watermarks: Watermarks,
    allowance: Allowance,
}

impl Waiting {
    pub(super) fn new(grace: Duration, held_back: Duration, per_minute: u32) -> Self {
        Waiting {
            watermarks: Watermarks::new(grace.saturating_add(held_back)),
            allowance: Allowance::new(per_minute),
        }
    }

    pub(super) fn retain(&mut self, keep: impl Fn(&PartitionId) -> bool) {
        self.watermarks.retain(keep);
    }
}

impl Auditor {
    /// Takes small young holes out of a round that has too many of them.
    pub(super) fn leave_to_writers(
        &mut self,
        demand: &Demand,
        seen: &[Seen],
        asked_at: Instant,
        now_ms: i64,
        round: &mut Round,
    ) {
        if !matches!(demand, Demand::Aged) {
            return;
        }
        let old: HashMap<PartitionId, i64> = seen
            .iter()
            .map(|seen| {
                let id = seen.partition.id;
                let end = seen.bounds.high_watermark;
                (id, self.waiting.watermarks.see(id, end, asked_at).min(end))
            })
            .collect();
        if !writers_are_at_work(self.ledger.state(), now_ms) {
            return;
        }
        let allowed = self.waiting.allowance.left(now_ms);
        let fetched = put_off(&mut round.jobs, &mut round.partitions, &old, allowed);
        self.waiting.allowance.take(fetched);
    }
}

/// Puts off what is small and young, if it is more than is allowed; how many small young holes are fetched.
fn put_off(
    jobs: &mut Vec<FetchJob>,
    partitions: &mut BTreeMap<PartitionId, PartitionReport>,
    old: &HashMap<PartitionId, i64>,
    allowed: u32,
) -> u32 {
    let old_end = |job: &FetchJob| old.get(&job.id).copied().unwrap_or(i64::MAX);
    let is_young = |job: &FetchJob| job.ranges.iter().all(|range| range.first >= old_end(job));
    let may_wait = |job: &FetchJob| is_young(job) && offsets(&job.ranges) < SMALL_OFFSETS;
    let count = jobs.iter().filter(|job| may_wait(job)).count();
    let count = u32::try_from(count).unwrap_or(u32::MAX);
    if count <= allowed {
        return count;
    }
    for job in jobs.iter().filter(|job| may_wait(job)) {
        if let Some(report) = partitions.get_mut(&job.id) {
            report.wanted = 0;
            report.demanded_to = report.demanded_to.min(old_end(job));
        }
    }
    jobs.retain(|job| !may_wait(job));
    0
}

fn offsets(ranges: &[OffsetRange]) -> u64 {
    ranges
        .iter()
        .fold(0, |sum, range| sum.saturating_add(range.span()))
}

/// Whether somebody captures into this backup.
fn writers_are_at_work(ledger: &LedgerState, now_ms: i64) -> bool {
    ledger.chains().any(|(writer, chain)| {
        writer != WriterId::AUDITOR && now_ms.saturating_sub(chain.last_at_ms) < LIVE_MS
    })
}

/// With fewer offsets a hole is small: of records of a few hundred bytes, about what writers take for small.
const SMALL_OFFSETS: u64 = 2_000;
/// A writer that has committed nothing for so long holds nothing back.
const LIVE_MS: i64 = 15 * 60_000;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;
    use crate::audit::judge::tests::TOPIC;
    use crate::audit::upstream::Bounds;
    use uuid::Uuid;

    fn id(partition: i32) -> PartitionId {
        PartitionId {
            incarnation: Uuid::from_u128(1),
            partition,
        }
    }

    /// Holes by partition; of each log the offsets below 100 are old.
    fn after(holes: &[(i64, i64)], allowed: u32) -> (Vec<i32>, u32, Vec<(u64, i64)>) {
        let mut jobs = Vec::new();
        let mut partitions = BTreeMap::new();
        let mut old = HashMap::new();
        for (partition, (first, last)) in (0..).zip(holes) {
            let ranges = vec![OffsetRange::new(*first, *last).unwrap()];
            let report = PartitionReport {
                topic: TOPIC.into(),
                start: 0,
                bounds: Bounds {
                    log_start: 0,
                    high_watermark: last + 1,
                    leader_epoch: 0,
                },
                demanded_to: last + 1,
                wanted: offsets(&ranges),
                lag: 0,
                held: 0,
                explained: teeline_archive::OffsetSet::new(),
                awaiting: 0,
            };
            partitions.insert(id(partition), report);
            old.insert(id(partition), 100);
            jobs.push(FetchJob {
                id: id(partition),
                topic: TOPIC.into(),
                cluster_id: "cluster".into(),
                leader: 1,
                is_compacted: false,
                ranges,
            });
        }
        let fetched = put_off(&mut jobs, &mut partitions, &old, allowed);
        let left = jobs.iter().map(|job| job.id.partition).collect();
        let reports = partitions
            .values()
            .map(|report| (report.wanted, report.demanded_to));
        (left, fetched, reports.collect())
    }

    #[test]
    fn a_few_small_young_holes_are_fetched() {
        let holes = [(100, 109), (120, 120)];
        assert_eq!(after(&holes, 2), (vec![0, 1], 2, vec![(10, 110), (1, 121)]));
    }

    #[test]
    fn many_of_them_wait_and_what_is_old_or_large_does_not() {
        let holes = [(100, 109), (120, 120), (99, 105), (100, 2_099)];
        let reports = vec![(0, 100), (0, 100), (7, 106), (2_000, 2_100)];
        assert_eq!(after(&holes, 1), (vec![2, 3], 0, reports));
    }
}
