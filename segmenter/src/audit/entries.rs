//! What a round writes down about topics and partitions, and when it is worth a commit. Pure.

use std::collections::BTreeMap;

use teeline_archive::ledger::{
    Absence, AbsenceEvidence, AbsenceReason, EpochEnd, Incarnation, PartitionAudit, PartitionState,
    TopicSnapshot,
};
use teeline_archive::{OffsetRange, OffsetSet};

use super::upstream::{Bounds, Configs, EpochAnswer, LogPartition, TopicFound};
use crate::fetcher::Gone;

/// The snapshot of a topic that the ledger does not have yet, or has otherwise.
pub fn topic_snapshot(
    topic: &TopicFound,
    known: Option<&Incarnation>,
    configs: Option<&Configs>,
    now_ms: i64,
) -> Option<TopicSnapshot> {
    let partition_count = i32::try_from(topic.partitions.len()).unwrap_or(i32::MAX);
    let known = known.and_then(Incarnation::snapshot);
    let is_news = known.is_none_or(|known| {
        known.partition_count != partition_count
            || known.replication_factor != topic.replication_factor
            || (known.configs.is_empty() && configs.is_some_and(|configs| !configs.is_empty()))
    });
    is_news.then(|| TopicSnapshot {
        name: topic.name.to_string(),
        incarnation: topic.incarnation,
        at_ms: known.map_or(now_ms, |known| now_ms.max(known.at_ms)),
        partition_count,
        replication_factor: topic.replication_factor,
        configs: configs
            .or(known.map(|known| &known.configs))
            .cloned()
            .unwrap_or_default(),
    })
}

/// How a partition was found.
#[derive(Debug, Clone, Copy)]
pub struct Sighting<'a> {
    /// Which one.
    pub partition: &'a LogPartition,
    /// How far it reaches.
    pub bounds: Bounds,
    /// Where the backup begins.
    pub start: i64,
    /// Where its earlier epochs end.
    pub ends: &'a BTreeMap<i32, EpochAnswer>,
    /// Now, in epoch milliseconds.
    pub now_ms: i64,
}

/// What is written about a partition: at first sight, when its leader, its beginning or our start changed, and when it
/// grew and `report_after_ms` have passed.
pub fn partition_audit(
    sighting: &Sighting<'_>,
    last: Option<&PartitionAudit>,
    report_after_ms: i64,
) -> Option<PartitionAudit> {
    let Bounds {
        log_start,
        high_watermark,
        leader_epoch,
    } = sighting.bounds;
    let is_news = last.is_none_or(|last| {
        let grew = last.high_watermark != high_watermark;
        last.leader_epoch != leader_epoch
            || last.log_start_offset != log_start
            || last.start_offset != sighting.start
            || (grew && sighting.now_ms.saturating_sub(last.at_ms) >= report_after_ms)
    });
    is_news.then(|| PartitionAudit {
        topic: sighting.partition.topic.to_string(),
        incarnation: sighting.partition.id.incarnation,
        partition: sighting.partition.id.partition,
        // The latest one counts, so a clock that went back must not make ours an older one.
        at_ms: last.map_or(sighting.now_ms, |last| sighting.now_ms.max(last.at_ms)),
        start_offset: sighting.start,
        log_start_offset: log_start,
        high_watermark,
        leader_epoch,
        epochs: sighting
            .ends
            .iter()
            .map(|(&leader_epoch, answer)| EpochEnd {
                leader_epoch,
                end_offset: answer.end_offset,
                known_epoch: answer.leader_epoch,
            })
            .collect(),
    })
}

/// What a fetch found to be absent.
pub fn absence(gone: &Gone, cleanup_policy: &str, now_ms: i64) -> Absence {
    Absence {
        topic: gone.topic.to_string(),
        incarnation: gone.id.incarnation,
        partition: gone.id.partition,
        first_offset: gone.range.first,
        last_offset: gone.range.last,
        reason: gone.reason,
        at_ms: now_ms,
        evidence: AbsenceEvidence {
            log_start_offset: gone.log_start_offset,
            leader_epoch: gone.leader_epoch,
            cleanup_policy: cleanup_policy.to_owned(),
        },
    }
}

/// Explains all holes of a partition that cannot be looked at: it is not there any more, or we may not look.
pub fn unseen(
    partition: &LogPartition,
    state: &PartitionState,
    reason: AbsenceReason,
    now_ms: i64,
) -> Vec<Absence> {
    let explained = state.explained();
    let (first, last) = match (state.audit(), held_span(&state.held())) {
        (Some(audit), Some(held)) => (
            audit.start_offset.min(held.first),
            held.last.max(audit.high_watermark.saturating_sub(1)),
        ),
        (Some(audit), None) => (audit.start_offset, audit.high_watermark.saturating_sub(1)),
        (None, Some(held)) => (held.first, held.last),
        (None, None) => return Vec::new(),
    };
    let Some(window) = OffsetRange::new(first, last) else {
        return Vec::new();
    };
    explained
        .holes(window)
        .into_iter()
        .map(|range| Absence {
            topic: partition.topic.to_string(),
            incarnation: partition.id.incarnation,
            partition: partition.id.partition,
            first_offset: range.first,
            last_offset: range.last,
            reason,
            at_ms: now_ms,
            evidence: AbsenceEvidence::NONE,
        })
        .collect()
}

fn held_span(held: &OffsetSet) -> Option<OffsetRange> {
    OffsetRange::new(held.first()?, held.last()?)
}

/// A topic's cleanup policy, as its settings say; empty when they do not.
pub fn cleanup_policy(configs: &Configs) -> &str {
    configs
        .iter()
        .find(|(name, _)| name == "cleanup.policy")
        .and_then(|(_, value)| value.as_deref())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::partition::PartitionId;
    use std::sync::Arc;
    use uuid::Uuid;

    fn partition() -> LogPartition {
        LogPartition {
            topic: Arc::from("orders"),
            id: PartitionId {
                incarnation: Uuid::from_u128(1),
                partition: 0,
            },
        }
    }

    fn audit_of(bounds: Bounds, last: Option<&PartitionAudit>, now_ms: i64) -> Option<PartitionAudit> {
        let partition = partition();
        let sighting = Sighting {
            partition: &partition,
            bounds,
            start: 0,
            ends: &BTreeMap::new(),
            now_ms,
        };
        partition_audit(&sighting, last, 600_000)
    }

    #[test]
    fn a_partition_is_written_down_when_it_is_news() {
        let bounds = Bounds {
            log_start: 0,
            high_watermark: 10,
            leader_epoch: 1,
        };
        let first = audit_of(bounds, None, 1_000);
        assert!(first.is_some(), "at first sight");
        let last = first.as_ref();
        assert_eq!(audit_of(bounds, last, 9_000_000), None, "nothing changed");
        let grown = Bounds {
            high_watermark: 20,
            ..bounds
        };
        assert_eq!(audit_of(grown, last, 2_000), None, "it grew a moment ago");
        assert!(audit_of(grown, last, 700_000).is_some());
        let led = Bounds {
            leader_epoch: 2,
            ..bounds
        };
        let later = audit_of(led, last, 500);
        assert_eq!(
            later.map(|audit| audit.at_ms),
            Some(1_000),
            "a clock that went back"
        );
        let cut = Bounds {
            log_start: 5,
            ..bounds
        };
        assert!(audit_of(cut, last, 1_001).is_some());
    }
}
