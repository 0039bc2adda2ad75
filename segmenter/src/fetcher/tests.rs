#![allow(clippy::unwrap_used, clippy::indexing_slicing)]
use std::collections::BTreeMap;

use futures_util::future::BoxFuture;
use proptest::prelude::*;
use teeline_archive::OffsetSet;
use teeline_archive::ids::WriterId;
use teeline_archive::segment::Origin;
use teeline_runtime::{Store, SystemClock};
use uuid::Uuid;

use super::*;
use crate::source::{Source, SourceError, SourcePartition};
use crate::testing::{CLUSTER, Log, TestCluster, batch, labelled_batch, marker, transactional_batch};

const TOPIC: Uuid = Uuid::from_u128(7);

impl LogReader for TestCluster {
    fn read<'a>(
        &'a self,
        partition: &'a SourcePartition,
        offset: i64,
        bytes_max: i32,
        replica: Replica,
    ) -> BoxFuture<'a, Result<LogRun, SourceError>> {
        Box::pin(async move {
            let run = Source::fetch(self, partition, offset, bytes_max).await?;
            let key = (partition.incarnation.unwrap(), partition.partition);
            let log_start = self.logs.lock().unwrap()[&key].start;
            Ok(LogRun {
                records: run.records,
                end: run.end,
                log_start,
                leader_epoch: 3,
                from_follower: replica == Replica::Nearest,
            })
        })
    }
}

fn fetch(cluster: &Arc<TestCluster>, store: &Store, limits: Limits) -> Fetch {
    let settings = teeline_config::Segmenter {
        segment_max_bytes: 1 << 20,
        ..Default::default()
    };
    Fetch {
        log: Arc::clone(cluster) as Arc<dyn LogReader>,
        sink: Arc::new(SegmentSink::new(
            store.clone(),
            "b",
            WriterId(1),
            &settings,
            Arc::new(SystemClock),
            0,
        )),
        limits,
        progress: Arc::default(),
        shutdown: Shutdown::new(),
    }
}

fn job(partition: i32, ranges: &[(i64, i64)]) -> FetchJob {
    FetchJob {
        id: PartitionId {
            incarnation: TOPIC,
            partition,
        },
        topic: Arc::from("orders"),
        cluster_id: Arc::from(CLUSTER),
        leader: 0,
        is_compacted: false,
        ranges: ranges
            .iter()
            .map(|&(first, last)| OffsetRange { first, last })
            .collect(),
    }
}

async fn run_all(jobs: Vec<FetchJob>, fetch: &Fetch) -> (Vec<JobReport>, Vec<SegmentInfo>, Vec<Gone>) {
    let (told, mut hear) = mpsc::channel(4);
    let (mut segments, mut gone) = (Vec::new(), Vec::new());
    let listen = async {
        while let Some(found) = hear.recv().await {
            match found {
                Found::Segment(info) => segments.push(*info),
                Found::Absent(absent) => gone.push(absent),
            }
        }
    };
    let (reports, ()) = tokio::join!(run(jobs, fetch, told), listen);
    (reports, segments, gone)
}

fn change(cluster: &TestCluster, partition: i32, change: impl FnOnce(&mut Log)) {
    change(cluster.logs.lock().unwrap().get_mut(&(TOPIC, partition)).unwrap());
}

fn ranges(of: &[OffsetRange]) -> Vec<(i64, i64)> {
    of.iter().map(|range| (range.first, range.last)).collect()
}

#[tokio::test]
async fn holes_and_markers_of_a_partition_go_into_one_segment_with_gaps() {
    let cluster = TestCluster::with_topic("orders", TOPIC, 1);
    for producer in 0..20 {
        cluster.append(TOPIC, 0, &transactional_batch(0, 9, producer, 0).1);
        cluster.append(TOPIC, 0, &marker(0, producer, true).1);
    }
    let markers: Vec<_> = (0..20).map(|n| (n * 10 + 9, n * 10 + 9)).collect();
    let fetch = fetch(&cluster, &Store::in_memory(), Limits::default());
    let (reports, segments, gone) = run_all(vec![job(0, &markers)], &fetch).await;
    assert!(reports[0].ended.is_done() && gone.is_empty());
    assert_eq!(segments.len(), 1);
    let segment = &segments[0];
    assert_eq!((segment.control_count, segment.batch_count), (20, 20));
    assert_eq!((segment.start_offset, segment.end_offset), (9, 199));
    assert_eq!(segment.gaps.len(), 19);
    assert_eq!(ranges(&segment.gaps[..2]), [(10, 18), (20, 28)]);
    assert!(
        cluster.fetches.lock().unwrap().len() <= 3,
        "markers close to each other share requests: {:?}",
        cluster.fetches.lock().unwrap()
    );
}

#[tokio::test]
async fn what_compaction_took_is_vouched_for_inside_a_segment_and_told_of_at_its_edges() {
    let cluster = TestCluster::with_topic("orders", TOPIC, 1);
    for _ in 0..6 {
        cluster.append(TOPIC, 0, &batch(0, 5));
    }
    change(&cluster, 0, |log| {
        log.batches.remove(2);
        log.batches.remove(0);
    });
    let fetch = fetch(&cluster, &Store::in_memory(), Limits::default());
    let (reports, segments, gone) = run_all(vec![job(0, &[(0, 21), (27, 27)])], &fetch).await;
    assert!(reports[0].ended.is_done());
    assert_eq!((segments[0].start_offset, segments[0].end_offset), (5, 29));
    assert_eq!(segments[0].gaps, []);
    assert_eq!(gone.len(), 1);
    assert_eq!((gone[0].range.first, gone[0].range.last), (0, 4));
    assert_eq!(
        (gone[0].reason, gone[0].leader_epoch),
        (AbsenceReason::Compacted, 3)
    );
}

#[tokio::test]
async fn offsets_below_the_log_are_deleted_and_a_log_that_ends_early_is_an_error() {
    let cluster = TestCluster::with_topic("orders", TOPIC, 1);
    for _ in 0..4 {
        cluster.append(TOPIC, 0, &batch(0, 5));
    }
    change(&cluster, 0, |log| {
        log.batches.drain(..2);
        log.start = 10;
    });
    let fetch = fetch(&cluster, &Store::in_memory(), Limits::default());
    let (reports, segments, gone) = run_all(vec![job(0, &[(3, 14), (18, 25)])], &fetch).await;
    assert_eq!((gone[0].range.first, gone[0].range.last), (3, 9));
    assert_eq!(
        (gone[0].reason, gone[0].log_start_offset),
        (AbsenceReason::Deleted, 10)
    );
    assert_eq!((segments[0].start_offset, segments[0].end_offset), (10, 19));
    assert!(matches!(
        reports[0].ended,
        Ended::Failed(FetchError::BeyondEnd { end: 20, offset: 20 })
    ));
}

#[tokio::test]
async fn the_end_of_a_compacted_log_may_hold_nothing_at_all() {
    let cluster = TestCluster::with_topic("orders", TOPIC, 1);
    for _ in 0..4 {
        cluster.append(TOPIC, 0, &batch(0, 5));
    }
    change(&cluster, 0, |log| log.batches.truncate(2));
    let fetch = fetch(&cluster, &Store::in_memory(), Limits::default());
    let (reports, ..) = run_all(vec![job(0, &[(0, 19)])], &fetch).await;
    assert!(matches!(
        reports[0].ended,
        Ended::Failed(FetchError::Nothing { end: 20, offset: 10 })
    ));
    let compacted = FetchJob {
        is_compacted: true,
        ..job(0, &[(0, 19)])
    };
    let (reports, _, gone) = run_all(vec![compacted], &fetch).await;
    assert!(reports[0].ended.is_done());
    assert_eq!((gone[0].range.first, gone[0].range.last), (10, 19));
}

#[tokio::test]
async fn a_batch_that_the_source_cannot_give_whole_is_left_out_and_the_rest_is_read() {
    let cluster = TestCluster::with_topic("orders", TOPIC, 1);
    for _ in 0..4 {
        cluster.append(TOPIC, 0, &batch(0, 5));
    }
    change(&cluster, 0, |log| {
        let mut bytes = log.batches[1].to_vec();
        *bytes.last_mut().unwrap() ^= 1;
        log.batches[1] = bytes.into();
    });
    let fetch = fetch(&cluster, &Store::in_memory(), Limits::default());
    let (reports, segments, _) = run_all(vec![job(0, &[(0, 19)])], &fetch).await;
    assert!(reports[0].ended.is_done());
    assert_eq!(reports[0].unreadable.len(), 1);
    assert_eq!((segments[0].start_offset, segments[0].end_offset), (0, 19));
    assert_eq!(ranges(&segments[0].gaps), [(5, 9)]);
}

#[tokio::test]
async fn a_budget_ends_all_jobs_after_the_batch_that_reaches_it() {
    let cluster = TestCluster::with_topic("orders", TOPIC, 2);
    for n in 0..40 {
        cluster.append(TOPIC, n % 2, &batch(0, 5));
    }
    let limits = Limits {
        budget: Some(Arc::new(RecordBudget::new(23))),
        jobs_at_once: 1,
        ..Limits::default()
    };
    let fetch = fetch(&cluster, &Store::in_memory(), limits);
    let jobs = vec![job(0, &[(0, 99)]), job(1, &[(0, 99)])];
    let (reports, segments, gone) = run_all(jobs, &fetch).await;
    assert!(
        reports
            .iter()
            .all(|report| matches!(report.ended, Ended::Limited))
    );
    assert_eq!(segments.iter().map(|info| info.record_count).sum::<u64>(), 25);
    assert!(gone.is_empty());
}

#[tokio::test]
async fn long_ranges_are_cut_at_the_size_of_a_segment_and_told_of_on_the_way() {
    let cluster = TestCluster::with_topic("orders", TOPIC, 3);
    for n in 0..180 {
        let value = format!("{n} {}", "x".repeat(25_000));
        cluster.append(TOPIC, n % 3, &labelled_batch(0, 5, &value));
    }
    let store = Store::in_memory();
    let limits = Limits {
        fetch_bytes: 300_000,
        ..Limits::default()
    };
    let fetch = fetch(&cluster, &store, limits);
    let jobs = (0..3).map(|partition| job(partition, &[(0, 299)])).collect();
    let (reports, segments, _) = run_all(jobs, &fetch).await;
    assert!(
        reports
            .iter()
            .all(|report| report.ended.is_done() && report.segments > 1)
    );
    let mut next: BTreeMap<i32, i64> = BTreeMap::new();
    for info in &segments {
        let next = next.entry(info.identity.partition).or_default();
        assert_eq!((info.start_offset, info.identity.origin), (*next, Origin::Fetch));
        *next = info.end_offset + 1;
        assert_eq!(store.head(&info.key).await.unwrap().size, info.object_bytes);
    }
    assert_eq!(next.into_values().collect::<Vec<_>>(), [300, 300, 300]);
    assert_eq!((fetch.progress.records(), fetch.progress.offsets()), (900, 900));
}

#[tokio::test]
async fn when_nobody_listens_any_more_the_jobs_stop() {
    let cluster = TestCluster::with_topic("orders", TOPIC, 1);
    cluster.append(TOPIC, 0, &batch(0, 5));
    let fetch = fetch(&cluster, &Store::in_memory(), Limits::default());
    let (told, hear) = mpsc::channel(1);
    drop(hear);
    let reports = run(vec![job(0, &[(0, 4)])], &fetch, told).await;
    assert!(matches!(reports[0].ended, Ended::Stopped));
}

#[tokio::test]
async fn a_stop_keeps_what_was_read() {
    let cluster = TestCluster::with_topic("orders", TOPIC, 1);
    cluster.append(TOPIC, 0, &batch(0, 5));
    let fetch = fetch(&cluster, &Store::in_memory(), Limits::default());
    fetch.shutdown.trigger();
    let (reports, segments, _) = run_all(vec![job(0, &[(0, 4)])], &fetch).await;
    assert!(matches!(reports[0].ended, Ended::Stopped) && segments.is_empty());
}

#[test]
fn brokers_take_turns_and_long_jobs_begin() {
    let on = |leader, last| FetchJob {
        leader,
        ..job(0, &[(0, last)])
    };
    let spread = spread(vec![on(1, 5), on(1, 50), on(2, 7), on(1, 20)]);
    let order: Vec<_> = spread
        .iter()
        .map(|job| (job.leader, job.ranges[0].last))
        .collect();
    assert_eq!(order, [(1, 50), (2, 7), (1, 20), (1, 5)]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn every_wanted_offset_is_held_or_absent_and_nothing_else_is_vouched_for(
        sizes in prop::collection::vec(1u32..6, 1..40),
        removed in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
        wanted in prop::collection::vec((1i64..20, 1i64..20), 1..6),
        fetch_bytes in 1i32..2_000,
    ) {
        let cluster = TestCluster::with_topic("orders", TOPIC, 1);
        for size in &sizes {
            cluster.append(TOPIC, 0, &batch(0, *size));
        }
        let mut taken_out = OffsetSet::new();
        let mut end = 0;
        change(&cluster, 0, |log| {
            for index in removed {
                if log.batches.len() > 1 {
                    // The last batch stays, as Kafka mostly keeps it.
                    let gone = log.batches.remove(index.index(log.batches.len() - 1));
                    let header = teeline_wire::batch::BatchHeader::parse(&gone).unwrap();
                    taken_out.insert(OffsetRange { first: header.base_offset, last: header.last_offset() });
                }
            }
            end = log.end;
        });
        let mut first = 0;
        let mut wants = Vec::new();
        for (gap, span) in wanted {
            first += gap;
            wants.push((first, first + span - 1));
            first += span;
        }
        wants.retain(|(_, last)| *last < end);
        prop_assume!(!wants.is_empty());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let fetch = fetch(&cluster, &Store::in_memory(), Limits { fetch_bytes, ..Limits::default() });
        let (reports, segments, gone) = runtime.block_on(run_all(vec![job(0, &wants)], &fetch));
        prop_assert!(reports[0].ended.is_done(), "{:?}", reports[0].ended);
        let mut explained = OffsetSet::new();
        for info in &segments {
            let mut own: OffsetSet = [info.range()].into_iter().collect();
            info.gaps.iter().for_each(|gap| own.remove(*gap));
            own.ranges().iter().for_each(|range| explained.insert(*range));
        }
        for absent in &gone {
            prop_assert!(taken_out.contains_range(absent.range), "absent and there: {:?}", absent.range);
            explained.insert(absent.range);
        }
        for (first, last) in wants {
            let wanted = OffsetRange { first, last };
            prop_assert!(explained.contains_range(wanted));
        }
        // Whatever is vouched for is wanted, or in a batch with wanted offsets, or not in the log.
        let held: u64 = segments.iter().map(|info| info.record_count).sum();
        let vouched = explained.span();
        let absent_inside = explained.ranges().iter().flat_map(|range| {
            let mut rest: OffsetSet = [*range].into_iter().collect();
            for there in taken_out.holes(*range) {
                rest.remove(there);
            }
            rest.ranges().to_vec()
        }).map(|range| range.span()).sum::<u64>();
        prop_assert_eq!(vouched, held + absent_inside);
    }
}

/// A follower that knows of the leader's epoch 7, and still has two batches of epoch 5 that the leader has not: it cuts them
/// off between two answers. The leader's log is the same otherwise, without them.
struct LateFollower;

impl LogReader for LateFollower {
    fn read<'a>(
        &'a self,
        _: &'a SourcePartition,
        offset: i64,
        _: i32,
        replica: Replica,
    ) -> BoxFuture<'a, Result<LogRun, SourceError>> {
        let of = |base: i64, epoch: i32| {
            let mut bytes = batch(base, 5);
            teeline_wire::batch::set_base_offset_and_epoch(&mut bytes, base, epoch).unwrap();
            bytes
        };
        let records = match offset {
            0 => [of(0, 5), of(5, 5)].concat(),
            10 => of(10, 7),
            _ => of(15, 7),
        };
        Box::pin(async move {
            Ok(LogRun {
                records: records.into(),
                end: 20,
                log_start: 0,
                leader_epoch: 7,
                from_follower: replica == Replica::Nearest,
            })
        })
    }
}

#[tokio::test]
async fn what_a_follower_has_not_cut_off_yet_shares_no_segment_with_what_the_new_leader_wrote() {
    let cluster = TestCluster::with_topic("orders", TOPIC, 1);
    let mut fetch = fetch(&cluster, &Store::in_memory(), Limits::default());
    fetch.log = Arc::new(LateFollower);
    let (reports, segments, _) = run_all(vec![job(0, &[(0, 19)])], &fetch).await;
    assert!(reports[0].ended.is_done());
    let told: Vec<_> = segments
        .iter()
        .map(|info| {
            let epochs = (info.leader_epoch_first, info.leader_epoch_last);
            (info.start_offset, info.end_offset, epochs)
        })
        .collect();
    assert_eq!(told, [(0, 9, (5, 5)), (10, 19, (7, 7))]);
}
