//! What the log has lost, what is asked for apart from the log, and archives that end inside of transactions.

use std::collections::BTreeMap;

use teeline_archive::ledger::{Entry, Superseded};
use teeline_archive::segment::Origin;

use super::tests::{TOPIC, offsets, stream, stream_all};
use super::*;
use crate::fixture::{self, BACKUP, Fixture, data, edit, marker, sequenced, transactional};
use crate::ledger;
use crate::plan::{Request, plan};

/// A segment of an earlier leader, of which the log has lost what lies from an offset on.
async fn truncated(fixture: &mut Fixture, batches: &[BatchView], from: i64, same: bool) -> SegmentInfo {
    let info = fixture.segment(TOPIC, Origin::Tee, batches).await;
    fixture.entry(Entry::Superseded(Superseded {
        topic: TOPIC.to_owned(),
        incarnation: fixture::FIRST_LIFE,
        partition: 0,
        segment: info.key.clone(),
        first_offset: from,
        last_offset: info.end_offset,
        leader_epoch: 1,
        end_offset: from,
        at_ms: 1,
        same,
    }));
    info
}

#[tokio::test]
async fn what_the_ledger_calls_superseded_is_left_out_and_counted() {
    let mut fixture = Fixture::new();
    // Nothing was written at 6 to 9 afterwards, so that no rival shows that these records are gone.
    let stale: Vec<BatchView> = [0, 2, 4, 6, 8].map(|base| data(base, &[1; 2])).to_vec();
    truncated(&mut fixture, &stale, 4, false).await;
    fixture.segment(TOPIC, Origin::Fetch, &[data(4, &[2; 2])]).await;
    // All of this one is gone: it is not even read.
    let whole = truncated(&mut fixture, &[data(10, &[1; 3])], 10, false).await;
    fixture.damage(&whole.key, 5);
    let (found, tally) = stream_all(&mut fixture).await;
    assert_eq!(found, offsets(0..6));
    assert_eq!(
        tally.records_superseded, 6,
        "the whole segment is counted by the plan"
    );
    let backup = ledger::load_whole(&fixture.store, BACKUP).await.unwrap();
    let plan = plan(&backup.state, BACKUP, &Request::default()).unwrap();
    let partition = &plan.topics[0].partitions[0];
    assert_eq!((partition.records_superseded, partition.records_max), (3, 6));
    assert_eq!(partition.held.last(), Some(5));
}

#[tokio::test]
async fn what_is_superseded_comes_alone_when_it_is_asked_for() {
    let mut fixture = Fixture::new();
    let stale: Vec<BatchView> = [0, 2, 4, 6, 8].map(|base| data(base, &[1; 2])).to_vec();
    truncated(&mut fixture, &stale, 4, false).await;
    // Another proxy captured one of the lost batches too.
    truncated(&mut fixture, &stale[3..4], 6, false).await;
    // A copy is held elsewhere: it was not lost.
    truncated(&mut fixture, &[data(20, &[1; 2])], 20, true).await;
    fixture
        .segment(TOPIC, Origin::Fetch, &[data(4, &[2; 2]), data(20, &[1; 2])])
        .await;
    // And what nobody has noted, but a later leader wrote over.
    let epoch = |batch: BatchView, epoch| edit(&batch, |header| header.partition_leader_epoch = epoch);
    fixture
        .segment(TOPIC, Origin::Tee, &[epoch(data(30, &[1; 3]), 1)])
        .await;
    fixture
        .segment(TOPIC, Origin::Fetch, &[epoch(data(30, &[7; 2]), 2)])
        .await;
    let request = Request {
        only: Some(Only::Superseded),
        mapping: [(TOPIC.to_owned(), "orders_superseded".to_owned())].into(),
        ..Request::default()
    };
    let (found, _) = stream(&mut fixture, &request).await.unwrap();
    assert_eq!(found, offsets((4..10).chain(30..33)));
    let unmapped = Request {
        mapping: BTreeMap::new(),
        ..request
    };
    let refused = stream(&mut fixture, &unmapped).await.unwrap_err().to_string();
    assert!(refused.contains("--map orders=orders_superseded"), "{refused}");
}

#[tokio::test]
async fn disputed_and_unconfirmed_records_come_alone_when_they_are_asked_for() {
    let mut fixture = Fixture::new();
    let log = [sequenced(0, 3, (7, 0, 0)), sequenced(3, 2, (7, 0, 3))];
    fixture.segment(TOPIC, Origin::Tee, &log).await;
    fixture
        .segment(TOPIC, Origin::Tee, &[sequenced(3, 2, (8, 0, 0))])
        .await;
    let doubtful = [sequenced(5, 1, (9, 0, 0)), sequenced(6, 2, (7, 0, 3))];
    fixture.segment(TOPIC, Origin::Unconfirmed, &doubtful).await;
    let of = |only| Request {
        only: Some(only),
        mapping: [(TOPIC.to_owned(), "orders_apart".to_owned())].into(),
        ..Request::default()
    };
    let (found, _) = stream(&mut fixture, &of(Only::Disputed)).await.unwrap();
    assert_eq!(found, offsets(3..5));
    let (found, tally) = stream(&mut fixture, &of(Only::Unconfirmed)).await.unwrap();
    assert_eq!(found, offsets(5..6));
    assert_eq!(
        (tally.records_unconfirmed, tally.records_unconfirmed_duplicate),
        (1, 2)
    );
    let nothing = stream(&mut fixture, &of(Only::Superseded)).await;
    // Overlapping segments are looked into, and turn out to hold nothing of the kind.
    assert_eq!(nothing.unwrap().0, offsets(0..0));
}

#[tokio::test]
async fn a_marker_that_the_log_has_lost_ends_no_transaction() {
    let mut fixture = Fixture::new();
    fixture
        .segment(TOPIC, Origin::Tee, &[transactional(0, 2, (7, 0, 0))])
        .await;
    // The abort was truncated away; the leader that took over wrote a commit.
    truncated(&mut fixture, &[marker(2, 7, 0, false)], 2, false).await;
    fixture
        .segment(TOPIC, Origin::Fetch, &[marker(2, 7, 0, true)])
        .await;
    let (found, tally) = stream_all(&mut fixture).await;
    assert_eq!((found, tally.records_aborted), (offsets(0..2), 0));
}

#[tokio::test]
async fn an_archive_that_ends_inside_a_transaction_is_told_from_one_with_a_hole() {
    let mut fixture = Fixture::new();
    let log = [
        transactional(0, 2, (7, 0, 0)),
        data(2, &[1]),
        transactional(3, 1, (7, 0, 2)),
    ];
    fixture.segment(TOPIC, Origin::Tee, &log).await;
    let (found, tally) = stream_all(&mut fixture).await;
    assert_eq!(
        (found, tally.records_undecided, tally.records_open),
        (offsets(2..3), 3, 3)
    );
    fixture.segment(TOPIC, Origin::Tee, &[data(9, &[1])]).await;
    let (_, tally) = stream_all(&mut fixture).await;
    assert_eq!(
        (tally.records_undecided, tally.records_open),
        (3, 0),
        "the marker may lie in the hole"
    );
}
