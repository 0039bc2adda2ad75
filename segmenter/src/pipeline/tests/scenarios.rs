//! One named situation each.

use super::*;

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
        audited: false,
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
