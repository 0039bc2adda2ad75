//! Partitions as streams, from archives in a directory.

use proptest::prelude::*;
use teeline_archive::segment::Origin;
use teeline_config::TopicFilter;

use super::*;
use crate::budget::Budget;
use crate::fixture::{self, BACKUP, Fixture, data, edit, marker, sequenced, transactional, values};
use crate::ledger;
use crate::plan::{Request, plan};
use crate::tally::Live;

pub(super) const TOPIC: &str = "orders";

/// Plans and streams partition 0: values in order, and what was left out.
pub(super) async fn stream(
    fixture: &mut Fixture,
    request: &Request,
) -> Result<(Vec<String>, Tally), RestorerError> {
    fixture.commit().await;
    let backup = ledger::load_whole(&fixture.store, BACKUP).await?;
    let plan = plan(&backup.state, BACKUP, request)?;
    let partition = plan.topics[0].partitions[0].clone();
    let parts = Parts::new(partition, request.window, request.only);
    let source = Source {
        store: fixture.store.clone(),
        budget: Budget::new(1 << 20),
        live: Arc::new(Live::default()),
    };
    let mut stream = PartitionStream::new(source, parts);
    stream.prepare().await?;
    let mut found = Vec::new();
    while let Some(batch) = stream.next().await? {
        assert!(batch.header().is_dense() && !batch.header().is_log_append_time());
        found.extend(values(&batch));
    }
    Ok((found, stream.left_out()))
}

pub(super) async fn stream_all(fixture: &mut Fixture) -> (Vec<String>, Tally) {
    stream(fixture, &Request::default()).await.unwrap()
}

pub(super) fn offsets(range: impl IntoIterator<Item = i64>) -> Vec<String> {
    range.into_iter().map(|offset| format!("v{offset}")).collect()
}

#[tokio::test]
async fn segments_that_interleave_come_out_as_one_log() {
    let mut fixture = Fixture::new();
    fixture
        .segment(TOPIC, Origin::Tee, &[data(0, &[1; 10]), data(20, &[1; 10])])
        .await;
    fixture.segment(TOPIC, Origin::Fetch, &[data(10, &[1; 10])]).await;
    fixture.segment(TOPIC, Origin::Tee, &[data(30, &[1; 5])]).await;
    let (found, tally) = stream_all(&mut fixture).await;
    assert_eq!(found, offsets(0..35));
    assert_eq!(tally, Tally::default());
}

#[tokio::test]
async fn what_two_writers_hold_comes_once() {
    let mut fixture = Fixture::new();
    let log = [data(0, &[1; 4]), data(4, &[1; 4]), data(8, &[1; 4])];
    fixture.segment(TOPIC, Origin::Tee, &log).await;
    fixture.segment(TOPIC, Origin::Fetch, &log[1..]).await;
    let (found, tally) = stream_all(&mut fixture).await;
    assert_eq!(found, offsets(0..12));
    assert_eq!(tally.records_duplicate, 8);
}

#[tokio::test]
async fn the_later_leader_wins_where_two_logs_differ() {
    let mut fixture = Fixture::new();
    let epoch = |batch: BatchView, epoch| edit(&batch, |header| header.partition_leader_epoch = epoch);
    let lost = edit(&data(3, &[1; 4]), |header| header.partition_leader_epoch = 1);
    fixture
        .segment(TOPIC, Origin::Tee, &[epoch(data(0, &[1; 3]), 1), lost])
        .await;
    fixture
        .segment(
            TOPIC,
            Origin::Fetch,
            &[epoch(data(3, &[2; 2]), 2), epoch(data(5, &[2; 2]), 2)],
        )
        .await;
    let (found, tally) = stream_all(&mut fixture).await;
    assert_eq!(found, offsets(0..7));
    assert_eq!(tally.records_superseded, 4);
}

#[tokio::test]
async fn what_a_later_leader_wrote_over_is_not_in_a_window_either() {
    let mut fixture = Fixture::new();
    // The batch that was lost has timestamps inside the window, the one that took its place has not.
    let epoch = |batch: BatchView| edit(&batch, |header| header.partition_leader_epoch = 2);
    let kept = [epoch(data(0, &[900; 2])), epoch(data(2, &[900]))];
    fixture
        .segment(TOPIC, Origin::Tee, &[data(0, &[100; 3]), data(3, &[100; 3])])
        .await;
    fixture.segment(TOPIC, Origin::Fetch, &kept).await;
    let window = Window {
        from_ms: Some(50),
        to_ms: Some(500),
    };
    let (found, tally) = stream(
        &mut fixture,
        &Request {
            window,
            ..Request::default()
        },
    )
    .await
    .unwrap();
    assert_eq!(found, offsets(3..6));
    assert_eq!((tally.records_superseded, tally.records_outside_window), (3, 3));
}

#[tokio::test]
async fn only_committed_transactions_come_out() {
    let mut fixture = Fixture::new();
    let batches = [
        transactional(0, 2, (7, 0, 0)),
        transactional(2, 2, (8, 0, 0)),
        marker(4, 7, 0, true),
        transactional(5, 2, (7, 0, 2)),
        marker(7, 8, 0, false),
        data(8, &[1]),
        marker(9, 7, 0, false),
        transactional(10, 3, (9, 0, 0)),
    ];
    fixture.segment(TOPIC, Origin::Fetch, &batches).await;
    let (found, tally) = stream_all(&mut fixture).await;
    assert_eq!(found, offsets([0, 1, 8]));
    assert_eq!((tally.records_aborted, tally.records_undecided), (4, 3));
}

#[tokio::test]
async fn a_marker_in_a_later_segment_decides_unless_something_is_missing_in_between() {
    let mut fixture = Fixture::new();
    fixture
        .segment(
            TOPIC,
            Origin::Tee,
            &[transactional(0, 2, (7, 0, 0)), transactional(2, 2, (8, 5, 0))],
        )
        .await;
    fixture
        .segment(TOPIC, Origin::Fetch, &[marker(4, 7, 0, true)])
        .await;
    // Offset 5 is missing: it could have been a marker of producer 8.
    fixture
        .segment(TOPIC, Origin::Fetch, &[marker(6, 8, 5, true)])
        .await;
    let (found, tally) = stream_all(&mut fixture).await;
    assert_eq!(found, offsets([0, 1]));
    assert_eq!(tally.records_undecided, 2);
}

#[tokio::test]
async fn evidence_decides_what_the_log_does_not() {
    let mut fixture = Fixture::new();
    let (committed, aborted) = (transactional(0, 2, (7, 0, 0)), transactional(2, 2, (8, 0, 0)));
    fixture.evidence(TOPIC, &committed, true);
    fixture.evidence(TOPIC, &aborted, false);
    fixture.segment(TOPIC, Origin::Tee, &[committed, aborted]).await;
    let (found, tally) = stream_all(&mut fixture).await;
    assert_eq!(found, offsets(0..2));
    assert_eq!((tally.records_aborted, tally.records_undecided), (2, 0));
}

#[tokio::test]
async fn a_window_has_exactly_its_records_late_ones_included() {
    let mut fixture = Fixture::new();
    fixture.block_bytes = 1;
    fixture
        .segment(
            TOPIC,
            Origin::Tee,
            &[data(0, &[100, 5, 101]), data(3, &[200, 201])],
        )
        .await;
    fixture
        .segment(TOPIC, Origin::Tee, &[data(5, &[300, 150, 99])])
        .await;
    let window = Window {
        from_ms: Some(100),
        to_ms: Some(201),
    };
    let request = Request {
        window,
        ..Request::default()
    };
    let (found, _) = stream(&mut fixture, &request).await.unwrap();
    assert_eq!(found, offsets([0, 2, 3, 6]));
}

#[tokio::test]
async fn unconfirmed_batches_follow_unless_they_are_confirmed() {
    let mut fixture = Fixture::new();
    fixture
        .segment(
            TOPIC,
            Origin::Tee,
            &[sequenced(0, 2, (7, 0, 0)), sequenced(2, 2, (7, 0, 2))],
        )
        .await;
    let again = sequenced(4, 2, (7, 0, 2));
    let new = sequenced(6, 2, (7, 0, 4));
    fixture
        .segment(TOPIC, Origin::Unconfirmed, &[again, new, data(8, &[1])])
        .await;
    let doubtful = [sequenced(9, 1, (8, 0, 0))];
    fixture
        .segment_of(
            TOPIC,
            fixture::FIRST_LIFE,
            0,
            Origin::Unconfirmed,
            true,
            &doubtful,
        )
        .await;
    let (found, tally) = stream_all(&mut fixture).await;
    assert_eq!(found, offsets([0, 1, 2, 3, 6, 7, 8]));
    assert_eq!(
        (tally.records_unconfirmed, tally.records_unconfirmed_duplicate),
        (3, 2)
    );
    let request = Request {
        include_quarantined: true,
        ..Request::default()
    };
    let (found, _) = stream(&mut fixture, &request).await.unwrap();
    assert_eq!(found, offsets([0, 1, 2, 3, 6, 7, 8, 9]));
}

#[tokio::test]
async fn compacted_batches_become_dense() {
    let mut fixture = Fixture::new();
    let compacted = edit(&data(0, &[1; 3]), |header| header.last_offset_delta = 9);
    fixture
        .segment(TOPIC, Origin::Fetch, &[compacted, data(10, &[1])])
        .await;
    let (found, tally) = stream_all(&mut fixture).await;
    assert_eq!(found, offsets([0, 1, 2, 10]));
    assert_eq!(tally.batches_rebuilt, 1);
}

#[tokio::test]
async fn damage_is_told_by_name() {
    let mut fixture = Fixture::new();
    let info = fixture.segment(TOPIC, Origin::Tee, &[data(0, &[1; 50])]).await;
    fixture.damage(&info.key, 30);
    let error = stream(&mut fixture, &Request::default()).await.unwrap_err();
    assert!(
        matches!(&error, RestorerError::DamagedSegment { key, .. } if *key == info.key),
        "{error}"
    );
}

#[tokio::test]
async fn a_topic_that_is_not_there_is_wrong_usage() {
    let mut fixture = Fixture::new();
    fixture.segment(TOPIC, Origin::Tee, &[data(0, &[1])]).await;
    let include = vec![teeline_config::TopicPattern::exact("ordres")];
    let request = Request {
        topics: TopicFilter::new(include, Vec::new()),
        ..Request::default()
    };
    let error = stream(&mut fixture, &request).await.unwrap_err();
    assert!(error.to_string().contains("orders"), "{error}");
}

/// What happens in a log, one after the other.
#[derive(Debug, Clone)]
enum Event {
    Data(Vec<i64>),
    Transactional { producer: usize, count: usize },
    End { producer: usize, commit: bool },
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        3 => proptest::collection::vec(0i64..1000, 1..5).prop_map(Event::Data),
        2 => (0usize..3, 1usize..4).prop_map(|(producer, count)| Event::Transactional { producer, count }),
        2 => (0usize..3, any::<bool>()).prop_map(|(producer, commit)| Event::End { producer, commit }),
    ]
}

/// The log that events make, and what a read_committed consumer inside the window sees of it.
fn model(events: &[Event], window: Window) -> (Vec<BatchView>, Vec<String>) {
    let mut log = Vec::new();
    let mut visible: Vec<(i64, bool)> = Vec::new();
    let mut open: [Vec<i64>; 3] = Default::default();
    let mut next = 0i64;
    for event in events {
        let at = next;
        match event {
            Event::Data(timestamps) => {
                log.push(data(at, timestamps));
                for timestamp in timestamps {
                    visible.push((next, window.contains(*timestamp)));
                    next += 1;
                }
            }
            Event::Transactional { producer, count } => {
                let id = i64::try_from(*producer).unwrap();
                log.push(transactional(at, *count, (id, 0, i32::try_from(at).unwrap())));
                next += i64::try_from(*count).unwrap();
                open[*producer].extend(at..next);
            }
            Event::End { producer, commit } => {
                // Without an open transaction a coordinator writes no marker.
                if open[*producer].is_empty() {
                    continue;
                }
                log.push(marker(at, i64::try_from(*producer).unwrap(), 0, *commit));
                next += 1;
                let ended = std::mem::take(&mut open[*producer]);
                visible.extend(
                    ended
                        .into_iter()
                        .map(|offset| (offset, *commit && window.contains(1000))),
                );
            }
        }
    }
    visible.sort_unstable();
    let seen = visible
        .into_iter()
        .filter(|(_, seen)| *seen)
        .map(|(offset, _)| format!("v{offset}"));
    (log, seen.collect())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Any log, cut into any segments, parts of it held twice, read through any window.
    #[test]
    fn a_stream_is_what_a_consumer_of_committed_records_sees(
        events in proptest::collection::vec(event(), 1..40),
        cuts in proptest::collection::vec(0usize..4, 40),
        twice in proptest::collection::vec(any::<bool>(), 40),
        from in proptest::option::of(0i64..1100),
        to in proptest::option::of(0i64..1100),
        block_bytes in 1usize..2000,
    ) {
        let window = Window { from_ms: from, to_ms: to };
        prop_assume!(!window.is_empty());
        let (log, expected) = model(&events, window);
        prop_assume!(!log.is_empty());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let found = runtime.block_on(async {
            let mut fixture = Fixture::new();
            fixture.block_bytes = block_bytes;
            // Batch by batch into one of four segments; a Tee segment says itself what it does not hold.
            for segment in 0..4 {
                let own = |(at, _): &(usize, &BatchView)| cuts[*at % 40] == segment || (segment == 0 && twice[*at % 40]);
                let batches: Vec<BatchView> =
                    log.iter().enumerate().filter(own).map(|(_, batch)| batch.clone()).collect();
                if !batches.is_empty() {
                    fixture.segment(TOPIC, Origin::Tee, &batches).await;
                }
            }
            stream(&mut fixture, &Request { window, ..Request::default() }).await.unwrap().0
        });
        prop_assert_eq!(found, expected);
    }
}
