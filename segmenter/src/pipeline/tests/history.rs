//! Random histories.

use super::*;

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
            audited: false,
            ..options(&history.buffer, store)
        };
        let cut = Duration::from_millis(history.random.random_range(0..600));
        let _ = tokio::time::timeout(cut, run(options, source.clone())).await;
    }
    history.finish();
}
