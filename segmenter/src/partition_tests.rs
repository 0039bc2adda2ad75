#![allow(clippy::unwrap_used, clippy::indexing_slicing)]
use super::*;
use crate::testing::{batch_with, location, marker, transactional_batch};
use bytes::Bytes;
use proptest::prelude::*;

fn at(session: u64, lsn: u64) -> BufferPosition {
    BufferPosition {
        session: SessionId(session),
        lsn: Lsn(lsn),
    }
}

fn range(first: i64, last: i64) -> OffsetRange {
    OffsetRange { first, last }
}

fn partition() -> Partition {
    let id = PartitionId {
        incarnation: Uuid::from_u128(7),
        partition: 0,
    };
    Partition::new(id, Arc::from("orders"))
}

/// A captured batch of `records` at `base`; `what` tells contents apart.
fn captured(base: i64, records: u32, what: i64, outcome: BufferPosition) -> (Batch, BatchHeader) {
    let (header, bytes) = batch_with(0, records, |header| header.base_timestamp += what);
    let batch = Batch {
        range: range(base, base + i64::from(records) - 1),
        bytes: u32::try_from(bytes.len()).unwrap(),
        identity: Identity::of(&header),
        placed_ms: 0,
        content: Content::Captured {
            intent: outcome,
            outcome,
            location: location(outcome),
            leader_epoch: -1,
            append_time_ms: None,
        },
    };
    (batch, header)
}

fn place(partition: &mut Partition, base: i64, records: u32, what: i64, outcome: BufferPosition) -> Placed {
    let (batch, header) = captured(base, records, what, outcome);
    partition.place_captured(batch, &header, Order::default())
}

fn fetched(header: BatchHeader, bytes: Bytes, ends: Option<i64>) -> FetchedBatch {
    FetchedBatch { header, bytes, ends }
}

#[test]
fn a_hole_between_batches_is_missing_until_it_is_fetched_or_absent() {
    let mut partition = partition();
    place(&mut partition, 10, 5, 0, at(1, 2));
    place(&mut partition, 20, 5, 0, at(1, 4));
    assert_eq!(partition.missing(), [range(15, 19)]);
    let (header, bytes) = batch_with(15, 2, |_| {});
    assert!(partition.place_fetched(fetched(header, bytes.clone(), None), 5));
    assert!(
        !partition.place_fetched(fetched(header, bytes, None), 5),
        "fetched twice"
    );
    assert_eq!(partition.missing(), [range(17, 19)]);
    partition.mark_absent(range(17, 19), 0);
    assert!(partition.missing().is_empty());
    assert!(!partition.is_durable(range(10, 24)));
    partition.commit(&[range(10, 16), range(20, 24)]);
    assert!(partition.is_durable(range(10, 24)));
}

#[test]
fn the_same_batch_answered_twice_is_stored_once() {
    let mut partition = partition();
    assert_eq!(place(&mut partition, 10, 5, 0, at(1, 2)), Placed::Held);
    assert_eq!(place(&mut partition, 10, 5, 0, at(1, 4)), Placed::Duplicate);
    assert_eq!(partition.close(1 << 20, |_| true).len(), 1);
    assert_eq!(
        place(&mut partition, 10, 5, 0, at(1, 6)),
        Placed::Duplicate,
        "after it closed"
    );
    assert_eq!(partition.open().batches, 0);
}

#[test]
fn another_content_at_the_same_offsets_becomes_another_segment() {
    let mut partition = partition();
    place(&mut partition, 10, 5, 0, at(1, 2));
    assert_eq!(place(&mut partition, 12, 5, 1, at(1, 4)), Placed::Conflicting);
    place(&mut partition, 20, 5, 0, at(1, 6));
    let segments = partition.close(1 << 20, |_| true);
    let ranges: Vec<Vec<_>> = segments
        .iter()
        .map(|s| s.iter().map(|b| b.range).collect())
        .collect();
    assert_eq!(ranges, [vec![range(10, 14), range(20, 24)], vec![range(12, 16)]]);
    partition.contest(range(12, 16));
    assert_eq!(partition.missing(), [range(12, 19)]);
}

#[test]
fn offsets_held_from_elsewhere_are_stored_beside() {
    let mut partition = partition();
    partition.load_committed(&[range(10, 14)], None);
    assert_eq!(place(&mut partition, 10, 5, 0, at(1, 2)), Placed::Overlapping);
}

#[test]
fn what_an_earlier_run_committed_is_known_by_its_outcome_and_offsets() {
    let mut partition = partition();
    let mut held: OffsetSet = [range(10, 29)].into_iter().collect();
    held.remove(range(15, 19));
    let run = CommittedRun {
        session: SessionId(1),
        lsn: (Lsn(5), Lsn(9)),
        held: held.clone(),
    };
    partition.load_committed(held.ranges(), Some(run));
    assert!(partition.is_committed(at(1, 7), range(10, 14)));
    assert!(
        !partition.is_committed(at(1, 7), range(15, 19)),
        "a gap of the segment"
    );
    assert!(
        !partition.is_committed(at(1, 10), range(10, 14)),
        "a later outcome"
    );
    assert!(
        !partition.is_committed(at(2, 7), range(10, 14)),
        "another session"
    );
    assert_eq!(partition.missing(), [range(15, 19)]);
}

#[test]
fn a_segment_closes_by_size_and_between_sessions() {
    let mut partition = partition();
    for (n, session) in [(0, 1), (1, 1), (2, 2), (3, 2)] {
        place(
            &mut partition,
            n * 5,
            5,
            0,
            at(session, 2 + u64::try_from(n).unwrap()),
        );
    }
    let one = u64::from(captured(0, 5, 0, at(1, 1)).0.bytes);
    assert_eq!(partition.open().bytes, one * 4);
    let sizes: Vec<usize> = partition.close(u64::MAX, |_| true).iter().map(Vec::len).collect();
    assert_eq!(sizes, [2, 2]);
    for n in 4..8 {
        place(&mut partition, n * 5, 5, 0, at(2, 10 + u64::try_from(n).unwrap()));
    }
    let sizes: Vec<usize> = partition.close(one, |_| true).iter().map(Vec::len).collect();
    assert_eq!(sizes, [1, 1, 1, 1]);
}

#[test]
fn markers_among_transactions_are_fetched_soon() {
    let mut partition = partition();
    assert_eq!(partition.grace_ms(&range(5, 5), 30_000, 1_000), 30_000);
    let (header, bytes) = transactional_batch(0, 5, 9, 0);
    partition.place_fetched(fetched(header, bytes, None), 5);
    assert!(!partition.transactions.is_decided());
    assert_eq!(partition.grace_ms(&range(5, 5), 30_000, 1_000), 1_000);
    assert_eq!(partition.grace_ms(&range(5, 50), 30_000, 1_000), 30_000);
    partition.demand_urgently(range(40, 45));
    assert_eq!(partition.grace_ms(&range(5, 50), 30_000, 1_000), 1_000);
    let (header, bytes) = marker(5, 9, true);
    partition.place_fetched(fetched(header, bytes, Some(9)), 5);
    assert!(partition.transactions.is_decided());
}

#[test]
fn a_tail_without_news_is_looked_at_less_and_less_often() {
    let mut partition = partition();
    assert!(!partition.tail_due(0), "nothing is undecided");
    let (header, bytes) = transactional_batch(0, 5, 9, 0);
    partition.place_fetched(fetched(header, bytes, None), 0);
    assert!(partition.tail_due(0));
    let mut now = 0;
    for pause in [1_000, 2_000, 4_000, 8_000, 10_000, 10_000] {
        partition.tail_seen(now, false, 1_000, 10_000);
        assert!(!partition.tail_due(now + pause - 1) && partition.tail_due(now + pause));
        now += pause;
    }
    partition.tail_seen(now, false, 1_000, 10_000);
    partition.tail_soon(now + 500);
    assert!(partition.tail_due(now + 500));
}

proptest! {
    #[test]
    fn segments_are_ordered_without_overlap_and_hold_what_was_placed(
        batches in prop::collection::vec((0i64..60, 1u32..8, 0i64..3), 1..40),
        bytes_max in 1u64..2_000,
    ) {
        let mut partition = partition();
        let mut placed = 0usize;
        let mut union = OffsetSet::new();
        for (n, (base, records, what)) in batches.into_iter().enumerate() {
            let outcome = at(1, 1 + n as u64);
            union.insert(range(base, base + i64::from(records) - 1));
            if place(&mut partition, base, records, what, outcome) != Placed::Duplicate {
                placed += 1;
            }
        }
        prop_assert_eq!(partition.open().batches, placed);
        let segments = partition.close(bytes_max, |_| true);
        prop_assert_eq!(segments.iter().map(Vec::len).sum::<usize>(), placed);
        let mut held = OffsetSet::new();
        for segment in &segments {
            prop_assert!(!segment.is_empty());
            prop_assert!(segment.windows(2).all(|pair| pair[0].range.last < pair[1].range.first));
            segment.iter().for_each(|batch| held.insert(batch.range));
        }
        prop_assert_eq!(&held, &union);
        let span = OffsetRange::new(union.first().unwrap(), union.last().unwrap()).unwrap();
        prop_assert_eq!(partition.missing(), union.holes(span));
    }
}

#[test]
fn what_the_ledger_has_bounds_only_intents_that_are_newer() {
    let mut partition = partition();
    partition.load_committed(&[range(10, 19)], None);
    partition.note_loaded(Some(at(2, 8)), 0);
    assert_eq!(
        partition.floor.of(at(1, 5), 0),
        None,
        "its batch may lie before the first range"
    );
    assert_eq!(partition.floor.of(at(2, 9), 0), Some(20));
    // Another writer's range is newer than what was sent before it was stored.
    partition.load_committed(&[range(20, 29)], None);
    partition.note_loaded(None, 500);
    assert_eq!(partition.floor.of(at(2, 9), 500), None);
    assert_eq!(partition.floor.of(at(2, 9), 501), Some(30));
    // What was acknowledged before is a bound in any case.
    let (batch, header) = captured(4, 3, 0, at(1, 2));
    partition.place_captured(batch, &header, Order::default());
    assert_eq!(partition.floor.of(at(1, 5), 0), Some(7));
}

#[test]
fn a_tail_that_the_log_has_lost_is_missing_no_more() {
    let mut partition = partition();
    place(&mut partition, 0, 10, 0, at(1, 1));
    partition.load_committed(&[range(10, 49)], None);
    partition.supersede(range(20, 49), &OffsetSet::new());
    assert!(
        partition.missing().is_empty(),
        "nothing says that the log reaches there"
    );
    partition.load_committed(&[range(30, 34)], None);
    assert_eq!(partition.missing(), [range(20, 29)]);
}

#[test]
fn what_the_log_grows_over_again_is_absent_no_more() {
    let absent = || {
        let mut partition = partition();
        place(&mut partition, 0, 80, 0, at(1, 1));
        partition.mark_absent(range(80, 99), 0);
        assert!(partition.is_durable(range(80, 99)));
        partition
    };
    let mut cut = absent();
    cut.supersede(range(70, 79), &OffsetSet::new());
    assert!(!cut.is_durable(range(80, 80)));
    let mut captured = absent();
    place(&mut captured, 80, 5, 0, at(1, 2));
    assert!(!captured.is_durable(range(80, 84)) && captured.is_durable(range(85, 99)));
    captured.contest(range(80, 84));
    assert_eq!(captured.missing(), [range(80, 84)]);
    let mut obliged = absent();
    obliged.oblige(range(85, 89));
    assert_eq!(obliged.missing(), [range(85, 89)]);
    assert!(!obliged.is_durable(range(85, 89)));
    // The log is asked, and has nothing there.
    obliged.mark_absent(range(85, 89), 1);
    assert!(obliged.is_durable(range(85, 89)));
}
