//! Coverage from ledgers, with and without a cluster to hold them against.

use std::time::Duration;

use proptest::prelude::*;
use teeline_archive::ledger::{
    Absence, AbsenceEvidence, AbsenceReason, Entry, EpochEnd, PartitionAudit, Superseded,
};
use teeline_archive::segment::{Origin, SegmentInfo};
use teeline_wire::batch::{BatchView, set_base_offset_and_epoch};
use uuid::Uuid;

use super::*;
use crate::fixture::{BACKUP, FIRST_LIFE, Fixture, data, marker, transactional};
use crate::ledger::load;

const TOPIC: &str = "orders";
/// Long after everything that the fixtures commit.
const NOW_MS: i64 = 10_000_000;

fn clock() -> Clock {
    Clock::new(NOW_MS, Duration::from_secs(120))
}

async fn cover(fixture: &mut Fixture, clock: Clock, live: Option<&Live>) -> Coverage {
    fixture.commit().await;
    let backup = load(&fixture.store, BACKUP).await.unwrap();
    let coverage = coverage(&backup, &TopicFilter::default(), clock, live);
    let text = render(&coverage);
    assert!(text.contains("accounted for"), "{text}");
    serde_json::to_string(&coverage).unwrap();
    coverage
}

fn absence(first_offset: i64, last_offset: i64, reason: AbsenceReason, at_ms: i64) -> Entry {
    Entry::Absent(Absence {
        topic: TOPIC.to_owned(),
        incarnation: FIRST_LIFE,
        partition: 0,
        first_offset,
        last_offset,
        reason,
        at_ms,
        evidence: AbsenceEvidence {
            log_start_offset: 12,
            leader_epoch: 3,
            cleanup_policy: "compact".to_owned(),
        },
    })
}

fn audit(at_ms: i64, start_offset: i64, high_watermark: i64) -> Entry {
    audit_under(0, at_ms, start_offset, high_watermark)
}

fn audit_under(leader_epoch: i32, at_ms: i64, start_offset: i64, high_watermark: i64) -> Entry {
    Entry::Audit(PartitionAudit {
        topic: TOPIC.to_owned(),
        incarnation: FIRST_LIFE,
        partition: 0,
        at_ms,
        start_offset,
        log_start_offset: 0,
        high_watermark,
        leader_epoch,
        epochs: Vec::new(),
    })
}

fn superseded(info: &SegmentInfo, first_offset: i64, last_offset: i64) -> Entry {
    Entry::Superseded(Superseded {
        topic: TOPIC.to_owned(),
        incarnation: FIRST_LIFE,
        partition: 0,
        segment: info.key.clone(),
        first_offset,
        last_offset,
        leader_epoch: 2,
        end_offset: first_offset,
        at_ms: 1,
        same: false,
    })
}

fn reasons(partition: &PartitionCoverage) -> Vec<(i64, i64, &'static str)> {
    let missing = partition.missing.iter();
    missing
        .map(|missing| (missing.first_offset, missing.last_offset, missing.reason))
        .collect()
}

#[tokio::test]
async fn a_planted_hole_is_unexplained_and_an_explained_one_is_not() {
    let mut fixture = Fixture::new();
    fixture.segment(TOPIC, Origin::Tee, &[data(0, &[1; 4])]).await;
    fixture.segment(TOPIC, Origin::Tee, &[data(8, &[1; 2])]).await;
    let coverage = cover(&mut fixture, clock(), None).await;
    assert!(!coverage.is_whole());
    assert_eq!((coverage.offsets_held, coverage.offsets_missing), (6, 4));
    assert_eq!(coverage.percent, 60.0);
    assert_eq!(coverage.partitions[0].holes, [(4, 7)]);
    fixture.entry(absence(4, 5, AbsenceReason::Compacted, 5));
    fixture.entry(absence(5, 7, AbsenceReason::Deleted, 4));
    let coverage = cover(&mut fixture, clock(), None).await;
    assert!(coverage.is_whole());
    assert_eq!(coverage.percent, 100.0);
    let partition = &coverage.partitions[0];
    assert_eq!(reasons(partition), [(4, 5, "compacted"), (6, 7, "deleted")]);
    let evidence = &partition.missing[0].evidence;
    assert_eq!(evidence.cleanup_policy.as_deref(), Some("compact"));
    assert_eq!(
        (evidence.log_start_offset, evidence.leader_epoch),
        (Some(12), Some(3))
    );
}

#[tokio::test]
async fn what_an_audit_saw_is_due_after_the_grace_and_not_before() {
    let mut fixture = Fixture::new();
    fixture.segment(TOPIC, Origin::Tee, &[data(5, &[1; 5])]).await;
    fixture.entry(audit(NOW_MS - 100_000, 2, 20));
    let young = cover(&mut fixture, clock(), None).await;
    assert!(young.is_whole());
    let partition = &young.partitions[0];
    assert_eq!(reasons(partition), [(2, 4, "not-yet"), (10, 19, "not-yet")]);
    assert_eq!((partition.lag, partition.high_watermark), (Some(10), Some(20)));
    assert_eq!(partition.percent, 27.77, "5 of 18, rounded down");
    let later = Clock::new(NOW_MS + 100_000, Duration::from_secs(120));
    let due = cover(&mut fixture, later, None).await;
    assert!(!due.is_whole());
    assert_eq!(due.partitions[0].holes, [(2, 4), (10, 19)]);
    // A younger audit does not make old holes young again.
    fixture.entry(audit(NOW_MS + 99_000, 2, 30));
    let again = cover(&mut fixture, later, None).await;
    assert_eq!(
        reasons(&again.partitions[0]),
        [
            (2, 4, "unexplained"),
            (10, 19, "unexplained"),
            (20, 29, "not-yet")
        ]
    );
    let strict = Clock::new(NOW_MS + 100_000, Duration::ZERO);
    assert_eq!(cover(&mut fixture, strict, None).await.offsets_missing, 23);
}

#[tokio::test]
async fn each_offset_held_is_counted_by_where_it_came_from() {
    let mut fixture = Fixture::new();
    fixture
        .segment(
            TOPIC,
            Origin::Tee,
            &[transactional(0, 2, (7, 0, 0)), marker(2, 7, 0, true)],
        )
        .await;
    fixture
        .segment(TOPIC, Origin::Fetch, &[marker(3, 7, 1, true)])
        .await;
    // Read back, with a hole that the read itself explains, over something that was captured too.
    fixture
        .segment(TOPIC, Origin::Fetch, &[data(4, &[1]), data(8, &[1; 2])])
        .await;
    fixture.segment(TOPIC, Origin::Tee, &[data(8, &[1; 2])]).await;
    let coverage = cover(&mut fixture, clock(), None).await;
    assert!(coverage.is_whole());
    let offsets = coverage.offsets;
    assert_eq!((offsets.wanted, offsets.held), (10, 10));
    assert_eq!((offsets.tee, offsets.marker), (4, 2));
    assert_eq!(offsets.fetch + offsets.empty, 4);
    assert_eq!(coverage.partitions[0].held_twice, [(8, 9)]);
}

#[tokio::test]
async fn what_is_held_under_an_unknown_leader_awaits_comparison_once_the_leader_has_changed() {
    let of_epoch = |base: i64, epoch| {
        let mut bytes = data(base, &[1; 4]).bytes().to_vec();
        set_base_offset_and_epoch(&mut bytes, base, epoch).unwrap();
        BatchView::parse(&bytes.into()).unwrap()
    };
    let mut fixture = Fixture::new();
    let unknown = fixture.segment(TOPIC, Origin::Tee, &[of_epoch(0, -1)]).await;
    fixture.segment(TOPIC, Origin::Tee, &[of_epoch(4, 2)]).await;
    fixture.entry(audit_under(0, NOW_MS - 400_000, 0, 8));
    // What is of a later epoch than the audit's says as well that there was an election.
    let coverage = cover(&mut fixture, clock(), None).await;
    assert_eq!(coverage.partitions[0].awaiting_comparison, [(0, 3)]);
    fixture.entry(audit_under(3, NOW_MS - 300_000, 0, 8));
    let coverage = cover(&mut fixture, clock(), None).await;
    let partition = &coverage.partitions[0];
    assert_eq!(partition.awaiting_comparison, [(0, 3)]);
    assert_eq!(
        (partition.offsets.awaiting_comparison, partition.offsets.held),
        (4, 8)
    );
    assert_eq!(
        (coverage.percent, coverage.is_whole()),
        (50.0, true),
        "nothing is missing"
    );
    assert!(render(&coverage).contains("0..=3 awaits comparison"));
    // Fetched and compared: the copy counts no more.
    fixture.segment(TOPIC, Origin::Fetch, &[of_epoch(0, 1)]).await;
    let Entry::Superseded(same) = superseded(&unknown, 0, 3) else {
        unreachable!()
    };
    fixture.entry(Entry::Superseded(Superseded { same: true, ..same }));
    let coverage = cover(&mut fixture, clock(), None).await;
    assert_eq!(coverage.percent, 100.0);
    assert!(coverage.partitions[0].awaiting_comparison.is_empty());
}

#[tokio::test]
async fn what_was_written_under_a_leader_that_the_log_does_not_know_awaits_comparison() {
    let mut bytes = data(0, &[1; 4]).bytes().to_vec();
    set_base_offset_and_epoch(&mut bytes, 0, 5).unwrap();
    let mut fixture = Fixture::new();
    let batch = BatchView::parse(&bytes.into()).unwrap();
    fixture.segment(TOPIC, Origin::Tee, &[batch]).await;
    for (known_epoch, awaiting) in [(4, &[(0, 3)][..]), (5, &[]), (-1, &[])] {
        let Entry::Audit(audit) = audit_under(6, NOW_MS - 300_000, 0, 4) else {
            unreachable!()
        };
        let epochs = vec![EpochEnd {
            leader_epoch: 5,
            end_offset: 4,
            known_epoch,
        }];
        fixture.entry(Entry::Audit(PartitionAudit { epochs, ..audit }));
        let coverage = cover(&mut fixture, clock(), None).await;
        assert_eq!(coverage.partitions[0].awaiting_comparison, awaiting);
        assert_eq!(coverage.percent, if awaiting.is_empty() { 100.0 } else { 0.0 });
    }
}

#[tokio::test]
async fn superseded_and_unconfirmed_records_are_listed_and_hold_nothing() {
    let mut fixture = Fixture::new();
    let stale = fixture
        .segment(TOPIC, Origin::Tee, &[data(0, &[1; 2]), data(2, &[1; 3])])
        .await;
    fixture.entry(superseded(&stale, 2, 4));
    fixture.segment(TOPIC, Origin::Fetch, &[data(2, &[2; 1])]).await;
    fixture
        .segment(TOPIC, Origin::Unconfirmed, &[data(3, &[2; 7])])
        .await;
    let coverage = cover(&mut fixture, clock(), None).await;
    let partition = &coverage.partitions[0];
    assert_eq!(partition.held, [(0, 2)]);
    assert_eq!(
        (
            partition.superseded[0].first_offset,
            partition.superseded[0].leader_epoch
        ),
        (2, 2)
    );
    assert_eq!(partition.records_unconfirmed, 7);
    assert!(partition.held_twice.is_empty() && coverage.is_whole());
}

#[tokio::test]
async fn the_cluster_shows_how_far_behind_the_archive_is_and_what_it_lacks() {
    let mut fixture = Fixture::new();
    fixture.topic(TOPIC, FIRST_LIFE, 3, 5);
    fixture.segment(TOPIC, Origin::Tee, &[data(4, &[1; 6])]).await;
    fixture.entry(audit(NOW_MS - 500_000, 0, 10));
    let log = |log_start_offset, high_watermark| LivePartition {
        log_start_offset,
        high_watermark,
    };
    let mut live = Live::default();
    live.insert(TOPIC, FIRST_LIFE, 0, log(4, 15));
    live.insert(TOPIC, FIRST_LIFE, 1, log(0, 3));
    live.insert(TOPIC, FIRST_LIFE, 2, log(7, 7));
    live.insert("other", Uuid::from_u128(9), 0, log(0, 5));
    let coverage = cover(&mut fixture, clock(), Some(&live)).await;
    let partition = &coverage.partitions[0];
    assert_eq!(reasons(partition), [(0, 3, "deleted"), (10, 14, "not-yet")]);
    assert_eq!(partition.lag, Some(5));
    let missing: Vec<_> = coverage
        .not_in_archive
        .iter()
        .map(|missing| (missing.topic.as_str(), missing.partition, missing.expected))
        .collect();
    assert_eq!(missing, [(TOPIC, 1, true), ("other", 0, false)]);
    assert_eq!(coverage.offsets_missing, 3);
    assert!(!coverage.is_whole());
}

#[tokio::test]
async fn a_log_that_was_cut_back_or_created_again_is_not_taken_for_the_one_archived() {
    let mut fixture = Fixture::new();
    fixture.segment(TOPIC, Origin::Tee, &[data(0, &[1; 6])]).await;
    let log = |high_watermark| LivePartition {
        log_start_offset: 0,
        high_watermark,
    };
    let mut cut = Live::default();
    cut.insert(TOPIC, FIRST_LIFE, 0, log(4));
    let coverage = cover(&mut fixture, clock(), Some(&cut)).await;
    assert_eq!(coverage.partitions[0].behind_the_end, [(4, 5)]);
    let mut again = Live::default();
    again.insert(TOPIC, Uuid::from_u128(0x22), 0, log(2));
    let coverage = cover(&mut fixture, clock(), Some(&again)).await;
    assert_eq!(coverage.partitions[0].high_watermark, None);
    assert_eq!(coverage.not_in_archive.len(), 1);
    assert!(coverage.not_in_archive[0].expected);
}

#[tokio::test]
async fn a_cut_that_the_log_has_grown_over_explains_nothing() {
    let mut fixture = Fixture::new();
    fixture.segment(TOPIC, Origin::Tee, &[data(0, &[1; 4])]).await;
    fixture.entry(absence(4, 9, AbsenceReason::Truncated, NOW_MS - 400_000));
    fixture.entry(audit(NOW_MS - 400_000, 0, 4));
    let cut = cover(&mut fixture, clock(), None).await;
    assert!(cut.is_whole());
    assert_eq!(reasons(&cut.partitions[0]), [(4, 9, "truncated")]);
    fixture.entry(audit(NOW_MS - 300_000, 0, 7));
    let grown = cover(&mut fixture, clock(), None).await;
    assert_eq!(
        reasons(&grown.partitions[0]),
        [(4, 6, "unexplained"), (7, 9, "truncated")]
    );
}

proptest! {
    #[test]
    fn percent_is_a_hundred_only_if_nothing_is_open(wanted in 1u64..=u64::MAX, open in 0u64..=u64::MAX) {
        let open = open.min(wanted);
        let offsets = Offsets { wanted, unexplained: open, ..Offsets::default() };
        let percent = offsets.percent();
        prop_assert!((0.0..=100.0).contains(&percent));
        prop_assert_eq!(percent == 100.0, open == 0);
    }
}
