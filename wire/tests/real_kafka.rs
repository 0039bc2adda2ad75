//! The cluster client against a real cluster.
//!
//! Run with a broker at hand: `TEELINE_TEST_KAFKA=host:port cargo test -p teeline-wire --test real_kafka -- --ignored`.
//! Every test makes topics of its own, so that it may be run again on the same cluster.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use teeline_config::{KafkaEndpoint, SecurityProtocol};
use teeline_wire::batch::{BatchView, Producer, fetched_batches, split_for_replay};
use teeline_wire::client::*;
use teeline_wire::codec::Compression;
use teeline_wire::records::{BatchBuilder, DECOMPRESSED_BYTES_MAX, Records, rebuild, timestamp_range};

async fn cluster() -> Cluster {
    let address =
        std::env::var("TEELINE_TEST_KAFKA").expect("TEELINE_TEST_KAFKA=host:port names a test cluster");
    let config = ClientConfig::new(KafkaEndpoint {
        bootstrap_servers: vec![address.parse().expect("host:port")],
        security_protocol: SecurityProtocol::Plaintext,
        client_id: "teeline-wire-test".to_owned(),
        connect_timeout: Duration::from_secs(5),
        request_timeout: Duration::from_secs(10),
    });
    Cluster::connect(config).await.unwrap()
}

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64
}

fn unique(name: &str) -> String {
    format!(
        "wire-{name}-{}",
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos()
    )
}

async fn topic(cluster: &Cluster, name: &str, partitions: i32, configs: &[(&str, &str)]) -> TopicKey {
    let new = NewTopic {
        name: unique(name),
        partitions,
        replication_factor: 1,
        configs: configs
            .iter()
            .map(|(key, value)| (key.to_string(), value.to_string()))
            .collect(),
    };
    let created = cluster
        .create_topics(&[new], false)
        .await
        .unwrap()
        .remove(0)
        .unwrap();
    TopicKey::with_id(created.name, created.id)
}

fn batch(compression: Compression, first: i64, count: i64) -> BatchView {
    let mut builder = BatchBuilder::new(compression);
    for number in first..first + count {
        let value = format!("value {number} value value value");
        // Repeated and non-UTF-8 header names, null and empty values.
        let headers: [(&[u8], Option<&[u8]>); 3] =
            [(b"h", None), (b"h", Some(b"")), (&[0xff, 0xfe], Some(b"x"))];
        builder
            .push(now_ms() - number, Some(b"key"), Some(value.as_bytes()), &headers)
            .unwrap();
    }
    builder.build().unwrap().unwrap()
}

fn values(batches: &[BatchView]) -> Vec<Bytes> {
    let mut values = Vec::new();
    for batch in batches {
        let records = Records::decode(batch, DECOMPRESSED_BYTES_MAX).unwrap();
        values.extend(
            records
                .iter()
                .map(|record| Bytes::copy_from_slice(record.unwrap().value.unwrap())),
        );
    }
    values
}

async fn fetch_all(cluster: &Cluster, partition: &TopicPartition, end: i64) -> Vec<BatchView> {
    let mut found = Vec::new();
    let mut offset = 0;
    while offset < end {
        let fetched = cluster
            .fetch(partition, offset, &FetchOptions::default())
            .await
            .unwrap();
        for batch in fetched_batches(&fetched.records) {
            let batch = batch.unwrap();
            batch.verify_crc().unwrap();
            offset = batch.header().next_offset();
            found.push(batch);
        }
    }
    found
}

#[tokio::test]
#[ignore = "needs TEELINE_TEST_KAFKA=host:port"]
async fn metadata_names_cluster_controller_and_topics() {
    let cluster = cluster().await;
    let key = topic(&cluster, "metadata", 3, &[]).await;
    cluster
        .leader_for(&TopicPartition::new(key.clone(), 2))
        .await
        .unwrap();
    let missing: Arc<str> = unique("missing").into();
    let names = [Arc::clone(&key.name), Arc::clone(&missing)];
    let metadata = cluster.metadata(TopicSelection::Named(&names)).await.unwrap();
    assert_eq!(metadata.cluster_id, cluster.cluster_id());
    assert!(metadata.cluster_id.is_some());
    assert!(
        metadata
            .brokers
            .iter()
            .any(|broker| broker.node_id == metadata.controller_id)
    );
    let found = metadata
        .topics
        .iter()
        .find(|topic| topic.name == key.name)
        .unwrap();
    assert_eq!(found.key(), key);
    assert_eq!(found.partitions.len(), 3);
    assert_eq!(found.replication_factor(), 1);
    let absent = metadata
        .topics
        .iter()
        .find(|topic| topic.name == missing)
        .unwrap();
    assert_eq!(absent.error, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
    let all = cluster.metadata(TopicSelection::All).await.unwrap();
    assert!(all.topics.iter().any(|topic| topic.name == key.name));
    assert!(
        all.topics.iter().all(|topic| topic.name != missing),
        "asking must not create"
    );
}

#[tokio::test]
#[ignore = "needs TEELINE_TEST_KAFKA=host:port"]
async fn every_codec_is_taken_by_the_broker_and_comes_back_byte_for_byte() {
    let cluster = cluster().await;
    let key = topic(&cluster, "codecs", 1, &[]).await;
    let partition = TopicPartition::new(key, 0);
    let mut sent = Vec::new();
    let mut end = 0;
    for compression in Compression::ALL {
        let batch = batch(compression, end, 100);
        let entry = PartitionBatch::whole(partition.clone(), &batch);
        let produced = cluster
            .produce(&[entry], &ProduceOptions::default())
            .await
            .remove(0)
            .unwrap();
        assert_eq!(produced.base_offset, end, "{compression:?}");
        assert_eq!(produced.log_append_time_ms, -1);
        end += 100;
        sent.push(batch);
    }
    let stored = fetch_all(&cluster, &partition, end).await;
    assert_eq!(stored.len(), sent.len());
    for (stored, sent) in stored.iter().zip(&sent) {
        assert_eq!(stored.payload(), sent.payload());
        assert_eq!(stored.header().crc, sent.header().crc);
        assert_eq!(stored.header().partition_leader_epoch, 0);
        let mut rewritten = sent.bytes().to_vec();
        teeline_wire::batch::set_base_offset_and_epoch(&mut rewritten, stored.header().base_offset, 0)
            .unwrap();
        assert_eq!(stored.bytes(), &rewritten);
    }
}

#[tokio::test]
#[ignore = "needs TEELINE_TEST_KAFKA=host:port"]
async fn idempotent_replay_is_pipelined_in_order_and_repeats_are_recognised() {
    let cluster = cluster().await;
    let key = topic(&cluster, "replay", 2, &[]).await;
    let partitions = [0, 1].map(|partition| TopicPartition::new(key.clone(), partition));
    let leader = cluster.leader_for(&partitions[0]).await.unwrap();
    let identity = cluster.init_producer_id().await.unwrap();
    let requests: Vec<Vec<PartitionBatch>> = (0..20)
        .map(|round: i32| {
            let entry = |partition: &TopicPartition| {
                let batch = batch(Compression::Lz4, i64::from(round) * 10, 10);
                let producer = Producer {
                    id: identity.id,
                    epoch: identity.epoch,
                    base_sequence: round * 10,
                };
                PartitionBatch::replay(partition.clone(), split_for_replay(&batch, producer).unwrap())
            };
            partitions.iter().map(entry).collect()
        })
        .collect();
    let options = ProduceOptions::default();
    let mut pending = std::collections::VecDeque::new();
    for (round, request) in requests.iter().enumerate() {
        pending.push_back((
            round,
            cluster.send_produce(leader, request, &options).await.unwrap(),
        ));
        if pending.len() == 5 {
            check(pending.pop_front().unwrap()).await;
        }
    }
    for one in pending {
        check(one).await;
    }
    // The last request again: the broker knows its sequences and names the first offsets.
    let again = cluster
        .send_produce(leader, &requests[19], &options)
        .await
        .unwrap();
    check((19, again)).await;
    // One far too late is out of order, and says so.
    let stale = cluster
        .send_produce(leader, &requests[3], &options)
        .await
        .unwrap();
    for outcome in stale.wait().await.unwrap() {
        let code = outcome.result.unwrap_err().code;
        assert!(
            matches!(
                code,
                ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER | ErrorCode::DUPLICATE_SEQUENCE_NUMBER
            ),
            "{code}"
        );
    }
    for partition in &partitions {
        let end = cluster
            .list_offset(partition, OffsetAt::Latest)
            .await
            .unwrap()
            .offset;
        assert_eq!(end, 200);
        assert_eq!(fetch_all(&cluster, partition, end).await.len(), 20);
    }

    async fn check((round, pending): (usize, PendingProduce)) {
        for outcome in pending.wait().await.unwrap() {
            assert_eq!(outcome.result.unwrap().base_offset, round as i64 * 10);
        }
    }
}

#[tokio::test]
#[ignore = "needs TEELINE_TEST_KAFKA=host:port"]
async fn the_broker_stores_log_append_time_as_we_rebuild_it() {
    let cluster = cluster().await;
    let key = topic(
        &cluster,
        "append",
        1,
        &[("message.timestamp.type", "LogAppendTime")],
    )
    .await;
    let partition = TopicPartition::new(key, 0);
    let mut end = 0;
    let mut rebuilt = Vec::new();
    for compression in Compression::ALL {
        let batch = batch(compression, 0, 10);
        let entry = PartitionBatch::whole(partition.clone(), &batch);
        let produced = cluster
            .produce(&[entry], &ProduceOptions::default())
            .await
            .remove(0)
            .unwrap();
        assert!(produced.log_append_time_ms > 0);
        let mut bytes = batch.bytes().to_vec();
        teeline_wire::batch::as_log_append_time(&mut bytes, produced.log_append_time_ms).unwrap();
        teeline_wire::batch::set_base_offset_and_epoch(&mut bytes, produced.base_offset, 0).unwrap();
        rebuilt.push(BatchView::parse(&bytes.into()).unwrap());
        end += 10;
    }
    let stored = fetch_all(&cluster, &partition, end).await;
    assert_eq!(stored, rebuilt);
    for batch in &stored {
        let range = timestamp_range(batch, DECOMPRESSED_BYTES_MAX).unwrap();
        assert_eq!(
            (range.min, range.max),
            (batch.header().max_timestamp, batch.header().max_timestamp)
        );
    }
}

#[tokio::test]
#[ignore = "needs TEELINE_TEST_KAFKA=host:port"]
async fn a_wrong_maximum_timestamp_is_corrected_as_we_correct_it() {
    let cluster = cluster().await;
    let key = topic(&cluster, "maximum", 1, &[]).await;
    let partition = TopicPartition::new(key, 0);
    for compression in [Compression::None, Compression::Zstd] {
        let honest = batch(compression, 0, 5);
        let mut claimed = honest.bytes().to_vec();
        teeline_wire::batch::as_create_time(&mut claimed, honest.header().max_timestamp + 7).unwrap();
        let claimed = BatchView::parse(&claimed.into()).unwrap();
        assert_ne!(claimed, honest);
        let entry = PartitionBatch::whole(partition.clone(), &claimed);
        let produced = cluster
            .produce(&[entry], &ProduceOptions::default())
            .await
            .remove(0)
            .unwrap();
        let fetched = cluster
            .fetch(&partition, produced.base_offset, &FetchOptions::default())
            .await
            .unwrap();
        let stored = fetched_batches(&fetched.records).next().unwrap().unwrap();
        assert_eq!(stored.header().crc, honest.header().crc);
        assert_eq!(stored.payload(), honest.payload());
    }
}

#[tokio::test]
#[ignore = "needs TEELINE_TEST_KAFKA=host:port"]
async fn filtered_and_restamped_batches_are_taken() {
    let cluster = cluster().await;
    let key = topic(&cluster, "rebuild", 1, &[]).await;
    let partition = TopicPartition::new(key, 0);
    let mut end = 0;
    for compression in Compression::ALL {
        let whole = batch(compression, 0, 10);
        let some = rebuild(&whole, DECOMPRESSED_BYTES_MAX, |record| record.offset % 2 == 1)
            .unwrap()
            .unwrap();
        let mut late = whole.bytes().to_vec();
        teeline_wire::batch::as_log_append_time(&mut late, now_ms() - 5_000).unwrap();
        let late = BatchView::parse(&late.into()).unwrap();
        let late = rebuild(&late, DECOMPRESSED_BYTES_MAX, |_| true).unwrap().unwrap();
        for (batch, count) in [(some, 5), (late, 10)] {
            let entry = PartitionBatch::whole(partition.clone(), &batch);
            let produced = cluster
                .produce(&[entry], &ProduceOptions::default())
                .await
                .remove(0)
                .unwrap();
            assert_eq!(produced.base_offset, end);
            let expected = values(std::slice::from_ref(&batch));
            assert_eq!(expected.len(), count);
            end += count as i64;
            let stored = fetch_all(&cluster, &partition, end).await;
            assert_eq!(values(stored.last().map(std::slice::from_ref).unwrap()), expected);
        }
    }
}

#[tokio::test]
#[ignore = "needs TEELINE_TEST_KAFKA=host:port"]
async fn offsets_are_listed_by_kind_and_by_time() {
    let cluster = cluster().await;
    let key = topic(&cluster, "offsets", 1, &[]).await;
    let partition = TopicPartition::new(key, 0);
    let mut builder = BatchBuilder::new(Compression::None);
    for timestamp in [1_000, 5_000, 3_000, 9_000] {
        builder.push(timestamp, None, Some(b"value"), &[]).unwrap();
    }
    let entry = PartitionBatch::whole(partition.clone(), &builder.build().unwrap().unwrap());
    // Old timestamps are deleted by retention, but not within moments.
    cluster
        .produce(&[entry], &ProduceOptions::default())
        .await
        .remove(0)
        .unwrap();
    let kinds = [
        OffsetAt::Earliest,
        OffsetAt::Latest,
        OffsetAt::LastStable,
        OffsetAt::Timestamp(2_000),
        OffsetAt::Timestamp(5_001),
        OffsetAt::Timestamp(9_001),
    ];
    let queries = kinds.map(|at| OffsetQuery {
        partition: partition.clone(),
        at,
    });
    let found = cluster.list_offsets(&queries).await;
    let offsets: Vec<_> = found.into_iter().map(|answer| answer.unwrap().offset).collect();
    assert_eq!(offsets, [0, 4, 4, 1, 3, -1]);
    let end = cluster.offset_for_leader_epoch(&partition, 0).await.unwrap();
    assert_eq!((end.leader_epoch, end.end_offset), (0, 4));
}

#[tokio::test]
#[ignore = "needs TEELINE_TEST_KAFKA=host:port"]
async fn fetch_reports_marks_and_refuses_what_is_out_of_range() {
    let cluster = cluster().await;
    let key = topic(&cluster, "fetch", 2, &[]).await;
    let partition = TopicPartition::new(key.clone(), 0);
    let entry = PartitionBatch::whole(partition.clone(), &batch(Compression::Zstd, 0, 50));
    cluster
        .produce(&[entry], &ProduceOptions::default())
        .await
        .remove(0)
        .unwrap();
    let by_name = TopicPartition::new(&*key.name, 0);
    let committed = FetchOptions {
        isolation: Isolation::ReadCommitted,
        ..FetchOptions::default()
    };
    for (partition, by_id) in [(&partition, key.id.is_some()), (&by_name, false)] {
        let fetched = cluster.fetch(partition, 20, &committed).await.unwrap();
        assert_eq!(
            (
                fetched.high_watermark,
                fetched.last_stable_offset,
                fetched.log_start_offset
            ),
            (50, 50, 0)
        );
        assert!(fetched.aborted.is_empty());
        assert_eq!(fetched.leader_epoch, 0);
        // Clusters before 3.1 know no ids in Fetch, so there it is by name all the same.
        assert!(by_id || !fetched.by_id);
        let first = fetched_batches(&fetched.records).next().unwrap().unwrap();
        assert_eq!(first.header().base_offset, 0, "batches come whole");
    }
    let beyond = cluster.fetch(&partition, 51, &committed).await.unwrap_err();
    assert_eq!(beyond.code(), Some(ErrorCode::OFFSET_OUT_OF_RANGE));
    let quick = FetchOptions {
        max_wait: Duration::from_millis(10),
        ..committed
    };
    assert!(
        cluster
            .fetch(&partition, 50, &quick)
            .await
            .unwrap()
            .records
            .is_empty()
    );
    let both = [0, 1].map(|number| FetchQuery {
        partition: TopicPartition::new(key.clone(), number),
        offset: 0,
        max_bytes: 1 << 20,
    });
    let both = cluster.fetch_many(&both, &quick).await;
    assert!(!both[0].as_ref().unwrap().records.is_empty());
    assert!(both[1].as_ref().unwrap().records.is_empty());
}

#[tokio::test]
#[ignore = "needs TEELINE_TEST_KAFKA=host:port"]
async fn topics_are_described_altered_and_refused_when_they_exist() {
    let cluster = cluster().await;
    let key = topic(&cluster, "configs", 1, &[("retention.ms", "86400000")]).await;
    cluster
        .leader_for(&TopicPartition::new(key.clone(), 0))
        .await
        .unwrap();
    let resource = ConfigResource::Topic(Arc::clone(&key.name));
    let own = async || -> Vec<(String, Option<String>)> {
        let described = cluster
            .describe_configs(std::slice::from_ref(&resource))
            .await
            .remove(0)
            .unwrap();
        assert!(
            described
                .iter()
                .any(|entry| entry.name == "cleanup.policy" && !entry.is_own)
        );
        described
            .into_iter()
            .filter(|entry| entry.is_own)
            .map(|entry| (entry.name, entry.value))
            .collect()
    };
    assert_eq!(
        own().await,
        [("retention.ms".to_owned(), Some("86400000".to_owned()))]
    );
    let changes = [
        ("retention.ms".to_owned(), ConfigOperation::Delete),
        (
            "compression.type".to_owned(),
            ConfigOperation::Set("zstd".to_owned()),
        ),
    ];
    cluster.alter_configs(&resource, &changes).await.unwrap();
    // The change reaches the broker that answers through the metadata log.
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    while own().await != [("compression.type".to_owned(), Some("zstd".to_owned()))] {
        assert!(tokio::time::Instant::now() < deadline, "{:?}", own().await);
    }
    let bad = [("retention.ms".to_owned(), ConfigOperation::Set("soon".to_owned()))];
    let refused = cluster.alter_configs(&resource, &bad).await.unwrap_err();
    assert!(!refused.is_retriable(), "{refused}");
    let again = NewTopic {
        name: key.name.to_string(),
        partitions: 1,
        replication_factor: 1,
        configs: Vec::new(),
    };
    let exists = cluster
        .create_topics(&[again], false)
        .await
        .unwrap()
        .remove(0)
        .unwrap_err();
    assert_eq!(exists.code(), Some(ErrorCode::TOPIC_ALREADY_EXISTS));
    let described = cluster
        .describe_configs(&[ConfigResource::Topic("no-such-topic".into())])
        .await
        .remove(0);
    assert_eq!(
        described.unwrap_err().code(),
        Some(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION)
    );
    let broker = cluster.metadata(TopicSelection::None).await.unwrap().brokers[0].node_id;
    let described = cluster
        .describe_configs(&[ConfigResource::Broker(broker)])
        .await
        .remove(0)
        .unwrap();
    assert!(
        described
            .iter()
            .any(|entry| entry.name == "log.dirs" && entry.is_own)
    );
}

#[tokio::test]
#[ignore = "needs TEELINE_TEST_KAFKA=host:port"]
async fn a_topic_that_does_not_exist_is_an_error_within_seconds() {
    let cluster = cluster().await;
    let started = std::time::Instant::now();
    let error = cluster
        .list_offset(&TopicPartition::new("no-such-topic", 0), OffsetAt::Latest)
        .await
        .unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION));
    assert!(started.elapsed() < Duration::from_secs(8));
    let key = topic(&cluster, "other-id", 1, &[]).await;
    let Some(_) = key.id else { return };
    cluster
        .leader_for(&TopicPartition::new(key.clone(), 0))
        .await
        .unwrap();
    let impostor = TopicKey::with_id(key.name, uuid::Uuid::from_u128(7));
    let error = cluster
        .list_offset(&TopicPartition::new(impostor, 0), OffsetAt::Latest)
        .await
        .unwrap_err();
    assert!(matches!(error, ClientError::TopicRecreated { .. }), "{error}");
}
