#![allow(clippy::unwrap_used, clippy::indexing_slicing)]
use super::*;
use crate::source::{Questions, SurveyReport};
use crate::testing::{CLUSTER, TestCluster, batch, labelled_batch, marker, transactional_batch};
use futures_util::future::BoxFuture;
use proptest::prelude::*;
use teeline_archive::ids::WriterId;
use teeline_runtime::{Store, SystemClock};
use uuid::Uuid;

const TOPIC: Uuid = Uuid::from_u128(7);

fn plan(ranges: &[(i64, i64)]) -> FetchPlan {
    FetchPlan {
        id: PartitionId {
            incarnation: TOPIC,
            partition: 0,
        },
        topic: Arc::from("orders"),
        cluster_id: Arc::from(CLUSTER),
        ranges: ranges
            .iter()
            .map(|&(first, last)| OffsetRange { first, last })
            .collect(),
    }
}

fn sink(store: &Store) -> Arc<SegmentSink> {
    let settings = teeline_config::Segmenter {
        segment_max_bytes: 1 << 20,
        ..Default::default()
    };
    Arc::new(SegmentSink::new(
        store.clone(),
        "b",
        WriterId(1),
        &settings,
        Arc::new(SystemClock),
        0,
    ))
}

async fn run(cluster: &Arc<TestCluster>, ranges: &[(i64, i64)]) -> Fetched {
    fetch(
        plan(ranges),
        Arc::clone(cluster) as Arc<dyn Source>,
        sink(&Store::in_memory()),
    )
    .await
}

fn ranges_of(fetched: &Fetched) -> Vec<(i64, i64)> {
    fetched
        .batches
        .iter()
        .map(|b| (b.header.base_offset, b.header.last_offset()))
        .collect()
}

#[tokio::test]
async fn a_marker_is_fetched_alone_and_known_as_one() {
    let cluster = TestCluster::with_topic("orders", TOPIC, 1);
    let (_, data) = transactional_batch(0, 3, 9, 0);
    cluster.append(TOPIC, 0, &data);
    cluster.append(TOPIC, 0, &marker(0, 9, true).1);
    cluster.append(TOPIC, 0, &batch(0, 5));
    let fetched = run(&cluster, &[(3, 3)]).await;
    assert!(fetched.error.is_none());
    assert_eq!(ranges_of(&fetched), [(3, 3)]);
    assert_eq!(fetched.batches[0].ends, Some(9));
    assert_eq!(*cluster.fetches.lock().unwrap(), [(0, 3)]);
}

#[tokio::test]
async fn offsets_that_compaction_took_are_absent() {
    let cluster = TestCluster::with_topic("orders", TOPIC, 1);
    for _ in 0..4 {
        cluster.append(TOPIC, 0, &batch(0, 5));
    }
    cluster
        .logs
        .lock()
        .unwrap()
        .get_mut(&(TOPIC, 0))
        .unwrap()
        .batches
        .remove(2);
    let fetched = run(&cluster, &[(5, 19)]).await;
    assert!(fetched.error.is_none());
    assert_eq!(ranges_of(&fetched), [(5, 9), (15, 19)]);
    assert_eq!(
        fetched.absent,
        [(OffsetRange { first: 10, last: 14 }, AbsenceReason::Compacted)]
    );
    let fetched = run(&cluster, &[(12, 13)]).await;
    assert_eq!(
        fetched.absent,
        [(OffsetRange { first: 12, last: 13 }, AbsenceReason::Compacted)]
    );
    assert!(fetched.batches.is_empty() && fetched.error.is_none());
}

#[tokio::test]
async fn offsets_below_the_log_are_absent_and_those_beyond_it_are_not() {
    let cluster = TestCluster::with_topic("orders", TOPIC, 1);
    for _ in 0..4 {
        cluster.append(TOPIC, 0, &batch(0, 5));
    }
    {
        let mut logs = cluster.logs.lock().unwrap();
        let log = logs.get_mut(&(TOPIC, 0)).unwrap();
        log.batches.drain(..2);
        log.start = 10;
    }
    let fetched = run(&cluster, &[(3, 14), (18, 25)]).await;
    assert_eq!(
        fetched.absent,
        [(OffsetRange { first: 3, last: 9 }, AbsenceReason::Deleted)]
    );
    assert_eq!(ranges_of(&fetched), [(10, 14), (15, 19)]);
    assert!(matches!(
        fetched.error,
        Some(FetchError::BeyondEnd { end: 20, offset: 20 })
    ));
}

#[tokio::test]
async fn a_large_range_streams_into_segments_of_its_own() {
    let cluster = TestCluster::with_topic("orders", TOPIC, 1);
    for n in 0..60 {
        cluster.append(
            TOPIC,
            0,
            &labelled_batch(0, 5, &format!("{n} {}", "x".repeat(25_000))),
        );
    }
    let store = Store::in_memory();
    let fetched = fetch(
        plan(&[(0, 299)]),
        Arc::clone(&cluster) as Arc<dyn Source>,
        sink(&store),
    )
    .await;
    assert!(fetched.error.is_none() && fetched.batches.is_empty());
    assert!(fetched.segments.len() > 1, "cut at the size of a segment");
    let mut next = 0;
    for segment in &fetched.segments {
        assert_eq!(
            (segment.start_offset, segment.identity.origin),
            (next, Origin::Fetch)
        );
        next = segment.end_offset + 1;
        assert_eq!(store.head(&segment.key).await.unwrap().size, segment.object_bytes);
    }
    assert_eq!(next, 300);
}

#[tokio::test]
async fn a_source_that_is_gone_is_told_from_one_that_does_not_answer() {
    let cluster = TestCluster::with_topic("orders", TOPIC, 0);
    let fetched = run(&cluster, &[(0, 4)]).await;
    assert!(matches!(
        fetched.error,
        Some(FetchError::Source {
            source: SourceError::Gone,
            ..
        })
    ));
}

/// A log that is cut back by a new leader, and written to again, after some fetches.
struct Election {
    cluster: Arc<TestCluster>,
    after: usize,
}

impl Source for Election {
    fn survey<'a>(
        &'a self,
        cluster_id: &'a str,
        questions: &'a Questions,
    ) -> BoxFuture<'a, Result<SurveyReport, SourceError>> {
        self.cluster.survey(cluster_id, questions)
    }

    fn fetch<'a>(
        &'a self,
        partition: &'a SourcePartition,
        offset: i64,
        bytes_max: i32,
    ) -> BoxFuture<'a, Result<FetchedRun, SourceError>> {
        if self.cluster.fetches.lock().unwrap().len() == self.after {
            self.cluster
                .logs
                .lock()
                .unwrap()
                .get_mut(&(TOPIC, 0))
                .unwrap()
                .leader_epoch += 1;
        }
        self.cluster.fetch(partition, offset, bytes_max)
    }
}

#[tokio::test]
async fn what_two_leaders_answered_shares_no_segment() {
    let cluster = TestCluster::with_topic("orders", TOPIC, 1);
    for n in 0..60 {
        let label = format!("{n} {}", "x".repeat(25_000));
        cluster.append(TOPIC, 0, &labelled_batch(0, 5, &label));
    }
    let settings = teeline_config::Segmenter {
        segment_max_bytes: 1 << 30,
        ..Default::default()
    };
    let clock = Arc::new(SystemClock);
    let sink = Arc::new(SegmentSink::new(
        Store::in_memory(),
        "b",
        WriterId(1),
        &settings,
        clock,
        0,
    ));
    let bounds = |fetched: &Fetched| -> Vec<(i64, i64)> {
        let segments = fetched.segments.iter();
        segments
            .map(|segment| (segment.start_offset, segment.end_offset))
            .collect()
    };
    // Without an election all of it is one segment.
    let source = Arc::new(Election {
        cluster: Arc::clone(&cluster),
        after: usize::MAX,
    });
    let whole = fetch(plan(&[(0, 299)]), source, Arc::clone(&sink)).await;
    assert_eq!(bounds(&whole), [(0, 299)]);
    let second = cluster.fetches.lock().unwrap()[1].1;
    cluster.fetches.lock().unwrap().clear();
    let source = Arc::new(Election {
        cluster: Arc::clone(&cluster),
        after: 1,
    });
    let fetched = fetch(plan(&[(0, 299)]), source, sink).await;
    assert!(fetched.error.is_none());
    assert_eq!(bounds(&fetched), [(0, second - 1), (second, 299)]);
}

#[tokio::test]
async fn a_plan_ends_where_another_leader_answers_and_the_rest_is_asked_again() {
    let cluster = TestCluster::with_topic("orders", TOPIC, 1);
    for _ in 0..6 {
        cluster.append(TOPIC, 0, &batch(0, 1));
    }
    let source = Arc::new(Election {
        cluster: Arc::clone(&cluster),
        after: 2,
    });
    let ranges = [(0, 0), (2, 2), (4, 4)];
    let store = Store::in_memory();
    let fetched = fetch(
        plan(&ranges),
        Arc::clone(&source) as Arc<dyn Source>,
        sink(&store),
    )
    .await;
    assert!(fetched.error.is_none() && fetched.absent.is_empty());
    assert_eq!(ranges_of(&fetched), [(0, 0), (2, 2)]);
    let rest = fetch(plan(&ranges[2..]), source, sink(&store)).await;
    assert_eq!(ranges_of(&rest), [(4, 4)]);
}

proptest! {
    #[test]
    fn every_offset_of_a_range_is_fetched_or_absent(
        sizes in prop::collection::vec(1u32..6, 1..20),
        removed in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
        from in 0i64..40,
        len in 1i64..60,
    ) {
        let cluster = TestCluster::with_topic("orders", TOPIC, 1);
        for size in &sizes {
            cluster.append(TOPIC, 0, &batch(0, *size));
        }
        let end = {
            let mut logs = cluster.logs.lock().unwrap();
            let log = logs.get_mut(&(TOPIC, 0)).unwrap();
            for index in removed {
                if log.batches.len() > 1 {
                    // The last batch stays, as Kafka keeps it.
                    let at = index.index(log.batches.len() - 1);
                    log.batches.remove(at);
                }
            }
            log.end
        };
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let fetched = runtime.block_on(run(&cluster, &[(from, from + len - 1)]));
        let mut seen = teeline_archive::OffsetSet::new();
        for (first, last) in ranges_of(&fetched) {
            seen.insert(OffsetRange { first, last });
        }
        for (range, _) in &fetched.absent {
            prop_assert!(seen.holes(*range) == [*range], "absent and there");
            seen.insert(*range);
        }
        let reachable = OffsetRange::new(from, (from + len).min(end) - 1);
        prop_assert!(reachable.is_none_or(|range| seen.contains_range(range)));
        prop_assert_eq!(fetched.error.is_some(), from + len > end);
    }
}
