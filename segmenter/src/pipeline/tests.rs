//! The whole segmenter on a real directory, a store in memory and a cluster that answers from a table: random histories
//! of producers, crashes and stops, and what the archive must hold afterwards.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use object_store::memory::InMemory;
use object_store::throttle::{ThrottleConfig, ThrottledStore};
use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use teeline_archive::OffsetRange;
use teeline_archive::buffer::{
    Catalog, CatalogTopic, ConnectionLost, EndTxn, Frame, Intent, Outcome, TopicConfig, TopicRef,
};
use teeline_archive::ids::{BufferPosition, Lsn};
use teeline_archive::ledger::LedgerState;
use teeline_archive::segment::{SegmentReader, batches};
use teeline_runtime::{Health, ManualClock, Shutdown, Store, SystemClock};
use teeline_wire::batch::{BatchHeader, as_log_append_time, set_base_offset_and_epoch};
use uuid::Uuid;

use super::*;
use crate::chain::Ledger;
use crate::testing::{CLUSTER, TestBuffer, TestCluster, labelled_batch, marker};

const TOPIC: Uuid = Uuid::from_u128(7);
const NAME: &str = "orders";
const PARTITIONS: i32 = 2;

fn options(buffer: &TestBuffer, store: &Store) -> Options {
    let settings = teeline_config::Segmenter {
        hole_grace_ms: 0,
        ..Default::default()
    };
    Options {
        name: "test".to_owned(),
        backup_id: "backup".to_owned(),
        buffer_dir: buffer.path(),
        store: store.clone(),
        upstream: None,
        settings,
        source_lost: false,
        until_drained: true,
    }
}

async fn run(options: Options, cluster: Option<Arc<TestCluster>>) -> Result<DrainReport, SegmenterError> {
    run_until(options, cluster, Shutdown::new()).await
}

async fn run_until(
    options: Options,
    cluster: Option<Arc<TestCluster>>,
    shutdown: Shutdown,
) -> Result<DrainReport, SegmenterError> {
    let source = cluster.map(|cluster| cluster as Arc<dyn Source>);
    match start(options, source, Arc::new(SystemClock), &Health::new(), shutdown).await? {
        Some(pipeline) => pipeline.run().await,
        None => Ok(DrainReport::default()),
    }
}

async fn ledger(store: &Store, buffer: &TestBuffer) -> LedgerState {
    let directory = crate::buffer::Directory::new(buffer.path());
    let writer = directory.identity().unwrap().unwrap().writer;
    Ledger::load(store.clone(), "backup", writer)
        .await
        .unwrap()
        .state()
        .clone()
}

/// Every batch of the archive by partition and base offset, with its leader epoch taken out.
async fn archived(store: &Store, state: &LedgerState, unconfirmed: bool) -> BTreeMap<(i32, i64), Vec<Bytes>> {
    let mut found: BTreeMap<(i32, i64), Vec<Bytes>> = BTreeMap::new();
    for segment in state
        .segments()
        .filter(|segment| segment.unconfirmed() == unconfirmed)
    {
        let object = store.get(&segment.key).await.unwrap();
        let reader = SegmentReader::open(&object, None).unwrap();
        for block in &reader.footer().blocks {
            for batch in batches(&reader.block_of(&object, block).unwrap()) {
                let base = BatchHeader::parse(&batch).unwrap().base_offset;
                found
                    .entry((segment.identity.partition, base))
                    .or_default()
                    .push(without_epoch(&batch));
            }
        }
    }
    found
}

fn without_epoch(batch: &[u8]) -> Bytes {
    let mut bytes = batch.to_vec();
    let base = BatchHeader::parse(&bytes).unwrap().base_offset;
    set_base_offset_and_epoch(&mut bytes, base, -1).unwrap();
    Bytes::from(bytes)
}

fn catalog(requested_after: Lsn, id: Uuid) -> Frame {
    Frame::Catalog(Catalog {
        requested_after,
        at_ms: 1,
        cluster_id: CLUSTER.to_owned(),
        topics: vec![CatalogTopic {
            name: NAME.to_owned(),
            id,
            error_code: 0,
            partitions: (0..PARTITIONS).map(|partition| (partition, 3)).collect(),
            replication_factor: 1,
        }],
    })
}

fn config(timestamp_type: &str) -> Frame {
    Frame::TopicConfig(TopicConfig {
        name: NAME.to_owned(),
        id: TOPIC,
        at_ms: 1,
        configs: vec![(
            "message.timestamp.type".to_owned(),
            Some(timestamp_type.to_owned()),
        )],
    })
}

fn intent(connection_id: u64, acks: i16, topic: TopicRef, partition: i32, records: &[u8]) -> Frame {
    Frame::Intent(Intent {
        connection_id,
        acks,
        sent_at_ms: 1,
        topic,
        partition,
        transactional_id: None,
        records: Bytes::copy_from_slice(records),
    })
}

fn outcome(intent: BufferPosition, error_code: i16, base_offset: i64) -> Frame {
    Frame::Outcome(Outcome {
        intent: intent.lsn,
        received_at_ms: 1,
        error_code,
        base_offset,
        log_append_time_ms: -1,
        log_start_offset: 0,
        leader_epoch: -1,
    })
}

/// A history of producers before one cluster, as the proxy would have written it down.
struct History {
    random: StdRng,
    buffer: TestBuffer,
    cluster: Arc<TestCluster>,
    /// Answers under way: intent, partition, error and base offset.
    under_way: Vec<(BufferPosition, u64, i16, i64)>,
    /// What producers were told is safe: partition and base offset.
    acknowledged: Vec<(i32, i64)>,
    /// Producers name topics by id, and nothing but crashes goes wrong.
    is_plain: bool,
    sequence: BTreeMap<(i64, i32), i32>,
    open: BTreeMap<i64, Vec<i32>>,
    count: u64,
}

impl History {
    fn new(seed: u64, dir: &std::path::Path) -> Self {
        let mut history = History {
            random: StdRng::seed_from_u64(seed),
            buffer: TestBuffer::new(dir),
            cluster: TestCluster::with_topic(NAME, TOPIC, PARTITIONS),
            under_way: Vec::new(),
            acknowledged: Vec::new(),
            is_plain: false,
            sequence: BTreeMap::new(),
            open: BTreeMap::new(),
            count: 0,
        };
        history.buffer.begin_session();
        if history.random.random_bool(0.7) {
            history.buffer.append(&catalog(Lsn(0), TOPIC));
        }
        history
    }

    fn step(&mut self) {
        self.count += 1;
        let partition = self.random.random_range(0..PARTITIONS);
        let kind = match (self.is_plain, self.random.random_range(0..100)) {
            (true, kind @ (0..60 | 94..96)) => kind,
            (true, _) => 0,
            (false, kind) => kind,
        };
        match kind {
            0..40 => self.produce(partition, None),
            40..60 => self.answer_one(),
            60..64 => self.lose_connection(),
            64..68 => self.write_past_the_proxy(partition),
            68..71 => self.produce_without_answer(partition),
            71..74 => self.refuse(partition),
            74..88 => self.transaction(partition),
            88..94 => {
                let after = Lsn(self.buffer.next().lsn.0 - 1);
                self.buffer.append(&catalog(after, TOPIC));
            }
            94..96 => self.crash(),
            _ => self.open_error(partition),
        }
    }

    fn topic(&mut self) -> TopicRef {
        if !self.is_plain && self.random.random_bool(0.5) {
            TopicRef::by_name(NAME)
        } else {
            TopicRef::by_id(TOPIC)
        }
    }

    fn records(&mut self, producer: Option<(i64, i32)>) -> Vec<u8> {
        let count = self.random.random_range(1..6);
        let bytes = labelled_batch(0, count, &format!("batch {}", self.count));
        let Some((producer_id, partition)) = producer else {
            return bytes;
        };
        let sequence = self.sequence.entry((producer_id, partition)).or_insert(0);
        let (_, bytes) = crate::testing::changed(bytes, |header| {
            header.attributes |= 0x10;
            (header.producer_id, header.producer_epoch, header.base_sequence) = (producer_id, 0, *sequence);
        });
        *sequence += i32::try_from(count).unwrap();
        bytes.to_vec()
    }

    fn send(&mut self, partition: i32, acks: i16, records: &[u8]) -> (BufferPosition, u64) {
        let connection = self.random.random_range(0..4);
        let topic = self.topic();
        (
            self.buffer
                .append(&intent(connection, acks, topic, partition, records)),
            connection,
        )
    }

    fn produce(&mut self, partition: i32, producer: Option<i64>) {
        let records = self.records(producer.map(|id| (id, partition)));
        let (position, connection) = self.send(partition, -1, &records);
        let base = self.cluster.append(TOPIC, partition, &records);
        if self.random.random_bool(0.6) {
            self.buffer.append(&outcome(position, 0, base));
            self.acknowledged.push((partition, base));
        } else {
            self.under_way.push((position, connection, 0, base));
        }
    }

    fn answer_one(&mut self) {
        if self.under_way.is_empty() {
            return;
        }
        let at = self.random.random_range(0..self.under_way.len());
        let (position, _, code, base) = self.under_way.remove(at);
        self.buffer.append(&outcome(position, code, base));
    }

    fn lose_connection(&mut self) {
        let connection = self.random.random_range(0..4);
        self.under_way.retain(|(_, of, _, _)| *of != connection);
        self.buffer.append(&Frame::ConnectionLost(ConnectionLost {
            connection_id: connection,
            at_ms: 1,
        }));
        if self.random.random_bool(0.5) {
            // One more that the broker never saw.
            let records = self.records(None);
            let (_, connection) = self.send(0, -1, &records);
            self.buffer.append(&Frame::ConnectionLost(ConnectionLost {
                connection_id: connection,
                at_ms: 1,
            }));
            self.under_way.retain(|(_, of, _, _)| *of != connection);
        }
    }

    fn write_past_the_proxy(&mut self, partition: i32) {
        let records = self.records(None);
        self.cluster.append(TOPIC, partition, &records);
    }

    fn produce_without_answer(&mut self, partition: i32) {
        let records = self.records(None);
        self.send(partition, 0, &records);
        if self.random.random_bool(0.7) {
            self.cluster.append(TOPIC, partition, &records);
        }
    }

    fn refuse(&mut self, partition: i32) {
        let records = self.records(None);
        let (position, _) = self.send(partition, -1, &records);
        self.buffer.append(&outcome(position, 19, -1));
    }

    fn open_error(&mut self, partition: i32) {
        let records = self.records(None);
        let (position, _) = self.send(partition, -1, &records);
        let base = self.cluster.append(TOPIC, partition, &records);
        self.buffer.append(&outcome(position, 7, base));
    }

    fn transaction(&mut self, partition: i32) {
        let producer_id = self.random.random_range(100..103);
        if self.random.random_bool(0.7) {
            self.produce(partition, Some(producer_id));
            self.open.entry(producer_id).or_default().push(partition);
        } else if let Some(partitions) = self.open.remove(&producer_id) {
            let committed = self.random.random_bool(0.6);
            self.buffer.append(&Frame::EndTxn(EndTxn {
                transactional_id: producer_id.to_string(),
                producer_id,
                producer_epoch: 0,
                committed,
                at_ms: 1,
            }));
            for partition in std::collections::BTreeSet::from_iter(partitions) {
                self.cluster
                    .append(TOPIC, partition, &marker(0, producer_id, committed).1);
            }
        }
    }

    fn crash(&mut self) {
        self.under_way.clear();
        self.buffer.begin_session();
        if self.random.random_bool(0.7) {
            self.buffer.append(&catalog(Lsn(0), TOPIC));
        }
    }

    fn finish(&mut self) {
        let after = Lsn(self.buffer.next().lsn.0 - 1);
        self.buffer.append(&catalog(after, TOPIC));
        self.buffer.flush();
    }

    /// Everything that was acknowledged is there, byte for byte; there is nothing that the log does not have; and
    /// between the first and the last offset nothing is missing.
    async fn check(&self, store: &Store) {
        let state = ledger(store, &self.buffer).await;
        let found = archived(store, &state, false).await;
        let logs = self.cluster.logs.lock().unwrap().clone();
        for (at, copies) in &found {
            let log = &logs[&(TOPIC, at.0)];
            let original = log
                .batches
                .iter()
                .find(|batch| BatchHeader::parse(batch).unwrap().base_offset == at.1);
            let original =
                without_epoch(original.expect("the archive has a batch that the log does not have"));
            for copy in copies {
                assert_eq!(copy, &original, "at {at:?}");
            }
        }
        for at in &self.acknowledged {
            assert!(
                found.contains_key(at),
                "acknowledged, and not in the archive: {at:?}"
            );
        }
        for partition in 0..PARTITIONS {
            let Some(state) = state.partition(NAME, TOPIC, partition) else {
                continue;
            };
            assert_eq!(state.holes(), [], "partition {partition}");
            let held = state.held();
            if let Some(first) = held.first() {
                let end = logs[&(TOPIC, partition)].batches.iter();
                let expected = end.map(|batch| BatchHeader::parse(batch).unwrap());
                for header in expected.filter(|header| header.base_offset >= first) {
                    let range = OffsetRange {
                        first: header.base_offset,
                        last: header.last_offset(),
                    };
                    if range.last <= held.last().unwrap() {
                        assert!(
                            found.contains_key(&(partition, range.first)),
                            "{partition} {range}"
                        );
                    }
                }
            }
        }
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_the_archive_holds_what_was_acknowledged(seed in any::<u64>(), steps in 20usize..160) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::in_memory();
        let mut history = History::new(seed, &dir.path().join("buffer"));
        (0..steps).for_each(|_| history.step());
        history.finish();
        runtime().block_on(async {
            let report = run(options(&history.buffer, &store), Some(Arc::clone(&history.cluster))).await.unwrap();
            assert!(report.complete, "{report:?}");
            assert_eq!((report.remaining, report.unsettled), (0, 0));
            history.check(&store).await;
        });
    }

    #[test]
    fn runs_that_are_cut_off_anywhere_add_up_to_the_same_archive(seed in any::<u64>(), steps in 20usize..120) {
        let dir = tempfile::tempdir().unwrap();
        let store = slow_store();
        let mut history = History::new(seed, &dir.path().join("buffer"));
        runtime().block_on(async {
            let source = Some(Arc::clone(&history.cluster));
            cut_runs(&mut history, &store, steps, source.clone()).await;
            let report = run(options(&history.buffer, &store), source).await.unwrap();
            assert!(report.complete, "{report:?}");
            history.check(&store).await;
        });
    }

    #[test]
    fn nothing_that_is_cut_off_depends_on_the_source(seed in any::<u64>(), steps in 20usize..120) {
        let dir = tempfile::tempdir().unwrap();
        let store = slow_store();
        let mut history = History { is_plain: true, ..History::new(seed, &dir.path().join("buffer")) };
        history.buffer.append(&catalog(Lsn(0), TOPIC));
        runtime().block_on(async {
            cut_runs(&mut history, &store, steps, None).await;
            let lost = Options { source_lost: true, ..options(&history.buffer, &store) };
            let report = run(lost, None).await.unwrap();
            assert_eq!(report.remaining, 0);
            let state = ledger(&store, &history.buffer).await;
            let found = archived(&store, &state, false).await;
            for at in &history.acknowledged {
                assert!(found.contains_key(at), "acknowledged, and not in the archive: {at:?}");
            }
        });
    }
}

/// A store that takes its time, so that being cut off finds work half done.
fn slow_store() -> Store {
    let config = ThrottleConfig {
        wait_put_per_call: Duration::from_millis(20),
        ..ThrottleConfig::default()
    };
    let slow = ThrottledStore::new(InMemory::new(), config);
    Store::from_object_store(Arc::new(slow), "slow", false)
}

/// Grows the history in four parts, and after each lets a segmenter run that is cut off somewhere: a kill, as far as the
/// archive is concerned.
async fn cut_runs(history: &mut History, store: &Store, steps: usize, source: Option<Arc<TestCluster>>) {
    for _ in 0..4 {
        (0..steps / 4).for_each(|_| history.step());
        history.buffer.flush();
        let settings = teeline_config::Segmenter {
            hole_grace_ms: 0,
            segment_max_bytes: 600,
            segment_max_interval_ms: 10,
            ..Default::default()
        };
        let options = Options {
            settings,
            until_drained: false,
            ..options(&history.buffer, store)
        };
        let cut = Duration::from_millis(history.random.random_range(0..600));
        let _ = tokio::time::timeout(cut, run(options, source.clone())).await;
    }
    history.finish();
}

fn by_name() -> TopicRef {
    TopicRef::by_name(NAME)
}

/// A buffer with one acknowledged batch of three records.
fn simple_buffer(dir: &std::path::Path, cluster: &TestCluster) -> TestBuffer {
    let mut buffer = TestBuffer::new(dir.join("buffer"));
    buffer.begin_session();
    buffer.append(&catalog(Lsn(0), TOPIC));
    buffer.append(&config("CreateTime"));
    let records = labelled_batch(0, 3, "simple");
    let position = buffer.append(&intent(1, -1, by_name(), 0, &records));
    let base = cluster.append(TOPIC, 0, &records);
    buffer.append(&outcome(position, 0, base));
    buffer.append(&catalog(Lsn(4), TOPIC));
    buffer.flush();
    buffer
}

#[tokio::test]
async fn a_backup_is_bound_to_one_cluster() {
    let dir = tempfile::tempdir().unwrap();
    let (store, cluster) = (
        Store::in_memory(),
        TestCluster::with_topic(NAME, TOPIC, PARTITIONS),
    );
    let mut buffer = simple_buffer(dir.path(), &cluster);
    run(options(&buffer, &store), Some(Arc::clone(&cluster)))
        .await
        .unwrap();
    buffer.begin_session();
    let Frame::Catalog(mut foreign) = catalog(Lsn(0), TOPIC) else {
        unreachable!()
    };
    foreign.cluster_id = "another".to_owned();
    buffer.append(&Frame::Catalog(foreign));
    buffer.flush();
    let error = run(options(&buffer, &store), Some(cluster)).await.unwrap_err();
    assert!(
        matches!(&error, SegmenterError::OtherCluster { found, .. } if found == "another"),
        "{error}"
    );
}

#[tokio::test]
async fn a_second_writer_of_the_chain_stops_the_first() {
    let dir = tempfile::tempdir().unwrap();
    let (store, cluster) = (
        Store::in_memory(),
        TestCluster::with_topic(NAME, TOPIC, PARTITIONS),
    );
    let buffer = simple_buffer(dir.path(), &cluster);
    let directory = crate::buffer::Directory::new(buffer.path());
    let writer = directory.identity().unwrap().unwrap().writer;
    let mut foreign = Ledger::load(store.clone(), "backup", writer).await.unwrap();
    let mut ours = Ledger::load(store.clone(), "backup", writer).await.unwrap();
    let commit = foreign.prepare(CLUSTER, Vec::new(), 1, 0);
    foreign.commit(&commit).await.unwrap();
    let commit = ours.prepare(CLUSTER, Vec::new(), 2, 0);
    let refused = ours.commit(&commit).await.unwrap_err();
    assert!(
        matches!(
            refused,
            crate::chain::CommitFailure::Fatal(SegmenterError::Fenced { seq: 1, .. })
        ),
        "{refused}"
    );
    assert!(matches!(ours.refresh().await, Err(SegmenterError::Fenced { .. })));
}

#[tokio::test]
async fn without_a_source_what_is_in_doubt_stays_in_the_buffer() {
    let dir = tempfile::tempdir().unwrap();
    let (store, cluster) = (
        Store::in_memory(),
        TestCluster::with_topic(NAME, TOPIC, PARTITIONS),
    );
    let mut buffer = simple_buffer(dir.path(), &cluster);
    let records = labelled_batch(0, 2, "in doubt");
    buffer.append(&intent(1, -1, by_name(), 0, &records));
    buffer.flush();
    let report = run(options(&buffer, &store), None).await.unwrap();
    assert_eq!(
        (report.complete, report.unsettled, report.remaining),
        (false, 1, 1)
    );
    assert_eq!(
        report.archived_to,
        Some(BufferPosition {
            lsn: Lsn(5),
            ..report.read_to.unwrap()
        })
    );
    assert_eq!(report.records, 3);
}

#[tokio::test]
async fn a_source_that_comes_back_settles_what_was_in_doubt() {
    let dir = tempfile::tempdir().unwrap();
    let (store, cluster) = (
        Store::in_memory(),
        TestCluster::with_topic(NAME, TOPIC, PARTITIONS),
    );
    let mut buffer = simple_buffer(dir.path(), &cluster);
    let records = labelled_batch(0, 2, "in doubt");
    buffer.append(&intent(1, -1, by_name(), 0, &records));
    cluster.append(TOPIC, 0, &records);
    buffer.flush();
    cluster.is_down.store(true, Ordering::SeqCst);
    let report = run(options(&buffer, &store), Some(Arc::clone(&cluster)))
        .await
        .unwrap();
    assert_eq!((report.complete, report.unsettled), (false, 1));
    cluster.is_down.store(false, Ordering::SeqCst);
    let report = run(options(&buffer, &store), Some(Arc::clone(&cluster)))
        .await
        .unwrap();
    assert!(report.complete);
    let state = ledger(&store, &buffer).await;
    assert_eq!(archived(&store, &state, false).await.len(), 2);
}

#[tokio::test]
async fn a_lost_source_leaves_unconfirmed_batches_apart() {
    let dir = tempfile::tempdir().unwrap();
    let (store, cluster) = (
        Store::in_memory(),
        TestCluster::with_topic(NAME, TOPIC, PARTITIONS),
    );
    let mut buffer = simple_buffer(dir.path(), &cluster);
    // Of a connection that had a batch accepted, and of one that had none.
    buffer.append(&intent(1, -1, by_name(), 0, &labelled_batch(0, 2, "plausible")));
    buffer.append(&intent(2, -1, by_name(), 0, &labelled_batch(0, 2, "foreign")));
    buffer.flush();
    let lost = Options {
        source_lost: true,
        ..options(&buffer, &store)
    };
    let report = run(lost, None).await.unwrap();
    assert_eq!(
        (report.complete, report.unconfirmed, report.remaining),
        (true, 2, 0)
    );
    let state = ledger(&store, &buffer).await;
    assert!(state.source_lost_at_ms().is_some());
    let partition = state.partition(NAME, TOPIC, 0).unwrap();
    assert_eq!(partition.held().ranges(), [OffsetRange { first: 0, last: 2 }]);
    let mut quarantined: Vec<bool> = partition
        .unconfirmed()
        .iter()
        .map(|segment| segment.quarantined)
        .collect();
    quarantined.sort_unstable();
    assert_eq!(quarantined, [false, true]);
    let offsets: Vec<i64> = archived(&store, &state, true)
        .await
        .into_keys()
        .map(|(_, base)| base)
        .collect();
    assert_eq!(offsets, [3, 5]);
}

#[tokio::test]
async fn a_topic_that_stamps_its_batches_is_stored_as_the_broker_did() {
    let dir = tempfile::tempdir().unwrap();
    let (store, cluster) = (
        Store::in_memory(),
        TestCluster::with_topic(NAME, TOPIC, PARTITIONS),
    );
    let mut buffer = TestBuffer::new(dir.path().join("buffer"));
    buffer.begin_session();
    buffer.append(&catalog(Lsn(0), TOPIC));
    buffer.append(&config("LogAppendTime"));
    let records = labelled_batch(0, 3, "stamped");
    let position = buffer.append(&intent(1, -1, TopicRef::by_id(TOPIC), 0, &records));
    let mut stored = records.clone();
    as_log_append_time(&mut stored, 77_000).unwrap();
    let base = cluster.append(TOPIC, 0, &stored);
    let Frame::Outcome(mut answer) = outcome(position, 0, base) else {
        unreachable!()
    };
    answer.log_append_time_ms = 77_000;
    buffer.append(&Frame::Outcome(answer));
    buffer.flush();
    let report = run(options(&buffer, &store), Some(Arc::clone(&cluster)))
        .await
        .unwrap();
    assert!(report.complete);
    assert!(cluster.fetches.lock().unwrap().is_empty(), "it need not be asked");
    let state = ledger(&store, &buffer).await;
    let found = archived(&store, &state, false).await;
    assert_eq!(found[&(0, 0)], [without_epoch(&stored)]);
    let segment = state.segments().next().unwrap();
    assert_eq!((segment.timestamp_min, segment.timestamp_max), (77_000, 77_000));
}

#[tokio::test]
async fn a_transaction_without_its_marker_leaves_evidence() {
    let dir = tempfile::tempdir().unwrap();
    let (store, cluster) = (
        Store::in_memory(),
        TestCluster::with_topic(NAME, TOPIC, PARTITIONS),
    );
    let mut buffer = simple_buffer(dir.path(), &cluster);
    for (commit, sequence) in [(true, 0), (false, 2)] {
        let (_, records) = crate::testing::transactional_batch(0, 2, 9, sequence);
        let position = buffer.append(&intent(1, -1, TopicRef::by_id(TOPIC), 0, &records));
        let base = cluster.append(TOPIC, 0, &records);
        buffer.append(&outcome(position, 0, base));
        buffer.append(&Frame::EndTxn(EndTxn {
            transactional_id: "t".to_owned(),
            producer_id: 9,
            producer_epoch: 0,
            committed: commit,
            at_ms: 1,
        }));
        cluster.append(TOPIC, 0, &marker(0, 9, commit).1);
    }
    buffer.flush();
    let lost = Options {
        source_lost: true,
        ..options(&buffer, &store)
    };
    let report = run(lost, None).await.unwrap();
    assert_eq!(report.remaining, 0);
    let state = ledger(&store, &buffer).await;
    let partition = state.partition(NAME, TOPIC, 0).unwrap();
    let evidence: Vec<_> = partition
        .evidence()
        .iter()
        .map(|e| (e.first_offset, e.last_offset, e.commit))
        .collect();
    assert_eq!(evidence, [(3, 4, true), (6, 7, false)]);
    assert_eq!(
        partition
            .segments()
            .iter()
            .map(|s| s.undecided.len())
            .sum::<usize>(),
        2
    );
}

#[tokio::test]
async fn markers_are_fetched_and_stored_with_the_data() {
    let dir = tempfile::tempdir().unwrap();
    let (store, cluster) = (
        Store::in_memory(),
        TestCluster::with_topic(NAME, TOPIC, PARTITIONS),
    );
    let mut buffer = simple_buffer(dir.path(), &cluster);
    let (_, records) = crate::testing::transactional_batch(0, 2, 9, 0);
    let position = buffer.append(&intent(1, -1, TopicRef::by_id(TOPIC), 0, &records));
    let base = cluster.append(TOPIC, 0, &records);
    buffer.append(&outcome(position, 0, base));
    cluster.append(TOPIC, 0, &marker(0, 9, true).1);
    buffer.flush();
    let report = run(options(&buffer, &store), Some(Arc::clone(&cluster)))
        .await
        .unwrap();
    assert!(report.complete);
    let state = ledger(&store, &buffer).await;
    assert_eq!(
        state.segments().map(|segment| segment.control_count).sum::<u64>(),
        1
    );
    assert_eq!(state.partition(NAME, TOPIC, 0).unwrap().held().last(), Some(5));
}

#[tokio::test]
async fn a_stop_archives_what_the_buffer_holds() {
    let dir = tempfile::tempdir().unwrap();
    let (store, cluster) = (
        Store::in_memory(),
        TestCluster::with_topic(NAME, TOPIC, PARTITIONS),
    );
    let buffer = simple_buffer(dir.path(), &cluster);
    let shutdown = Shutdown::new();
    shutdown.trigger();
    let following = Options {
        until_drained: false,
        ..options(&buffer, &store)
    };
    let report = run_until(following, Some(cluster), shutdown).await.unwrap();
    assert_eq!((report.complete, report.records), (true, 3));
    assert!(store.get("backup/manifest.json").await.is_ok());
    let directory = crate::buffer::Directory::new(buffer.path());
    assert_eq!(directory.archived().unwrap(), report.read_to);
}

#[tokio::test]
async fn a_clock_that_stands_still_does_not_stop_the_work() {
    let dir = tempfile::tempdir().unwrap();
    let (store, cluster) = (
        Store::in_memory(),
        TestCluster::with_topic(NAME, TOPIC, PARTITIONS),
    );
    let buffer = simple_buffer(dir.path(), &cluster);
    let source = Some(cluster as Arc<dyn Source>);
    let clock = Arc::new(ManualClock::at(1_000));
    let pipeline = start(
        options(&buffer, &store),
        source,
        clock,
        &Health::new(),
        Shutdown::new(),
    )
    .await
    .unwrap()
    .unwrap();
    let report = tokio::time::timeout(Duration::from_secs(20), pipeline.run())
        .await
        .unwrap()
        .unwrap();
    assert!(report.complete);
}

#[tokio::test]
async fn a_damaged_frame_is_made_good_from_the_source() {
    let dir = tempfile::tempdir().unwrap();
    let (store, cluster) = (
        Store::in_memory(),
        TestCluster::with_topic(NAME, TOPIC, PARTITIONS),
    );
    let mut buffer = simple_buffer(dir.path(), &cluster);
    // The last batch of the log: nothing behind it shows that it is missing.
    let records = labelled_batch(0, 4, "to be damaged");
    let position = buffer.append(&intent(1, -1, TopicRef::by_id(TOPIC), 0, &records));
    let base = cluster.append(TOPIC, 0, &records);
    buffer.append(&outcome(position, 0, base));
    buffer.append(&catalog(Lsn(7), TOPIC));
    buffer.flush();
    let path = crate::buffer::Directory::new(buffer.path()).file_path(1);
    let mut bytes = std::fs::read(&path).unwrap();
    let at = bytes
        .windows(13)
        .position(|window| window == b"to be damaged")
        .unwrap();
    bytes[at] ^= 0xff;
    std::fs::write(&path, bytes).unwrap();
    let report = run(options(&buffer, &store), Some(Arc::clone(&cluster)))
        .await
        .unwrap();
    assert!(report.complete, "{report:?}");
    let state = ledger(&store, &buffer).await;
    let bases: Vec<i64> = archived(&store, &state, false)
        .await
        .into_keys()
        .map(|(_, base)| base)
        .collect();
    assert_eq!(bases, [0, base]);
}

#[tokio::test]
async fn a_store_that_is_down_is_waited_for_and_readiness_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = TestCluster::with_topic(NAME, TOPIC, PARTITIONS);
    let archive = dir.path().join("archive");
    let store = Store::open(&teeline_config::Storage::filesystem(&archive)).unwrap();
    let buffer = simple_buffer(dir.path(), &cluster);
    let health = Health::new();
    let source = Some(cluster as Arc<dyn Source>);
    let pipeline = start(
        options(&buffer, &store),
        source,
        Arc::new(SystemClock),
        &health,
        Shutdown::new(),
    )
    .await
    .unwrap()
    .unwrap();
    assert!(health.is_ready());
    // A file where the backup's directory has to be.
    std::fs::remove_dir_all(archive.join("backup")).ok();
    std::fs::write(archive.join("backup"), b"in the way").unwrap();
    let running = tokio::spawn(pipeline.run());
    let waited = async {
        while health.is_ready() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), waited)
        .await
        .expect("readiness tells");
    assert!(!running.is_finished());
    std::fs::remove_file(archive.join("backup")).unwrap();
    let report = tokio::time::timeout(Duration::from_secs(60), running)
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    assert!(report.complete && health.is_ready());
    assert_eq!(report.records, 3);
}
