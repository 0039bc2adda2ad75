//! Which segments are worth joining, and which objects may go. Pure.

use std::collections::BTreeMap;

use teeline_archive::ledger::{LedgerState, PartitionState};
use teeline_archive::segment::meta::{GAPS_MAX, UNDECIDED_MAX};
use teeline_archive::segment::{Origin, SegmentInfo};
use uuid::Uuid;

/// When segments are joined, and when what they replaced goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// Objects smaller than this are small.
    pub small_bytes: u64,
    /// So many small ones make a join worth while.
    pub run_min: usize,
    /// A joined segment holds at most so many bytes of batches.
    pub segment_max_bytes: u64,
    /// Only segments of this age: what is young may still be joined with what comes.
    pub min_age_ms: i64,
    /// Objects of replaced segments stay so long.
    pub keep_replaced_ms: i64,
}

impl Rules {
    /// Joined are segments below a 16th of the size at which they close, by eights at least: a byte is copied a few times
    /// in its life at most.
    pub fn new(segment_max_bytes: u64, min_age_ms: i64, keep_replaced_ms: i64) -> Rules {
        Rules {
            small_bytes: segment_max_bytes / 16,
            run_min: 8,
            segment_max_bytes,
            min_age_ms,
            keep_replaced_ms,
        }
    }
}

/// Segments to be joined: of one partition, one origin and one leader epoch, in order, apart from each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// Topic.
    pub topic: String,
    /// Incarnation.
    pub incarnation: Uuid,
    /// Partition.
    pub partition: i32,
    /// The segments.
    pub segments: Vec<SegmentInfo>,
}

/// Objects of one partition to be deleted: keys, and whether an index lies beside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Removal {
    /// Topic.
    pub topic: String,
    /// Incarnation.
    pub incarnation: Uuid,
    /// Partition.
    pub partition: i32,
    /// The keys.
    pub keys: Vec<(String, bool)>,
}

/// The runs that are worth joining, at most `limit`.
pub fn runs(ledger: &LedgerState, rules: &Rules, now_ms: i64, limit: usize) -> Vec<Run> {
    let mut found = Vec::new();
    for (key, incarnation) in ledger.topics() {
        for (partition, state) in incarnation.partitions() {
            for segments in runs_of(state, rules, now_ms) {
                if found.len() >= limit {
                    return found;
                }
                found.push(Run {
                    topic: key.name.clone(),
                    incarnation: key.incarnation,
                    partition,
                    segments,
                });
            }
        }
    }
    found
}

fn runs_of(state: &PartitionState, rules: &Rules, now_ms: i64) -> Vec<Vec<SegmentInfo>> {
    let mut growing: BTreeMap<(Origin, i32), Growing<'_>> = BTreeMap::new();
    let mut done = Vec::new();
    for segment in state.segments() {
        if !is_candidate(state, segment, rules, now_ms) {
            continue;
        }
        let run = growing
            .entry((segment.identity.origin, segment.leader_epoch_last))
            .or_default();
        if !run.takes(segment, rules) {
            done.push(std::mem::take(run));
        }
        run.add(segment);
    }
    done.extend(growing.into_values());
    done.into_iter()
        .filter(|run| run.segments.len() >= rules.run_min.max(2))
        .map(|run| run.segments.into_iter().cloned().collect())
        .collect()
}

/// Of one epoch, and nothing of it in question.
fn is_candidate(state: &PartitionState, segment: &SegmentInfo, rules: &Rules, now_ms: i64) -> bool {
    let age_ms = now_ms.saturating_sub(segment.identity.created_at_ms);
    segment.object_bytes < rules.small_bytes
        && age_ms >= rules.min_age_ms
        && segment.leader_epoch_last >= 0
        && segment.leader_epoch_first == segment.leader_epoch_last
        && segment.identity.origin != Origin::Unconfirmed
        && state.superseded_of(&segment.key).is_empty()
}

#[derive(Default)]
struct Growing<'a> {
    segments: Vec<&'a SegmentInfo>,
    bytes: u64,
    gaps: usize,
    undecided: usize,
}

impl<'a> Growing<'a> {
    fn takes(&self, segment: &SegmentInfo, rules: &Rules) -> bool {
        let Some(last) = self.segments.last() else {
            return true;
        };
        let bytes = self.bytes.saturating_add(segment.uncompressed_bytes);
        // Every border between two may become a gap of its own.
        let gaps = self
            .gaps
            .saturating_add(segment.gaps.len())
            .saturating_add(self.segments.len());
        segment.start_offset > last.end_offset
            && bytes <= rules.segment_max_bytes
            && gaps < GAPS_MAX
            && self.undecided.saturating_add(segment.undecided.len()) < UNDECIDED_MAX
            && self.segments.len() < PARTS_MAX
    }

    fn add(&mut self, segment: &'a SegmentInfo) {
        self.bytes = self.bytes.saturating_add(segment.uncompressed_bytes);
        self.gaps = self.gaps.saturating_add(segment.gaps.len());
        self.undecided = self.undecided.saturating_add(segment.undecided.len());
        self.segments.push(segment);
    }
}

/// The objects whose time is over, at most `limit`.
pub fn removals(ledger: &LedgerState, rules: &Rules, now_ms: i64, limit: usize) -> Vec<Removal> {
    let mut found = Vec::new();
    let mut left = limit;
    for (key, incarnation) in ledger.topics() {
        for (partition, state) in incarnation.partitions() {
            let due = state.replaced().filter(|(_, said)| {
                !said.removed && now_ms.saturating_sub(said.at_ms) >= rules.keep_replaced_ms
            });
            let keys: Vec<(String, bool)> = due
                .take(left)
                .map(|(info, _)| (info.key.clone(), info.codec.has_sidecar()))
                .collect();
            left = left.saturating_sub(keys.len());
            if !keys.is_empty() {
                found.push(Removal {
                    topic: key.name.clone(),
                    incarnation: key.incarnation,
                    partition,
                    keys,
                });
            }
        }
    }
    found
}

/// Keeps the ledger's entry within its limits.
const PARTS_MAX: usize = 1_024;

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
