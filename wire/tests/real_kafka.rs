//! The cluster client against a real cluster.
//!
//! Run with a broker at hand: `TEELINE_TEST_KAFKA=host:port cargo test -p teeline-wire --test real_kafka -- --ignored`.
//! Every test makes topics of its own, so that it may be run again on the same cluster.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::add_partitions_to_txn_request::AddPartitionsToTxnTopic;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{
    AddPartitionsToTxnRequest, EndTxnRequest, FindCoordinatorRequest, InitProducerIdRequest, ProduceRequest,
    ProducerId, TopicName, TransactionalId,
};
use kafka_protocol::protocol::{Decodable, Request, StrBytes};
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
    replicated_topic(cluster, name, partitions, 1, configs).await
}

async fn replicated_topic(
    cluster: &Cluster,
    name: &str,
    partitions: i32,
    replication_factor: i16,
    configs: &[(&str, &str)],
) -> TopicKey {
    let new = NewTopic {
        name: unique(name),
        partitions,
        replication_factor,
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
    let key = TopicKey::with_id(created.name, created.id);
    // A topic is of use once every leader answers for it.
    let ends = (0..partitions).map(|number| OffsetQuery {
        partition: TopicPartition::new(key.clone(), number),
        at: OffsetAt::Latest,
    });
    for end in cluster.list_offsets(&ends.collect::<Vec<_>>()).await {
        assert_eq!(end.unwrap().offset, 0);
    }
    key
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

/// A request of which this crate has no call of its own, encoded by kafka-protocol.
async fn raw<R: Request>(connection: &Connection, version: i16, request: &R) -> R::Response {
    let mut body = BytesMut::new();
    request.encode(&mut body, version).unwrap();
    let timeout = Duration::from_secs(10);
    let raw = RawRequest {
        api_key: R::KEY,
        api_version: version,
        body: vec![body.freeze()],
        timeout,
    };
    let mut answer = connection.send(raw).await.unwrap().wait().await.unwrap();
    R::Response::decode(&mut answer, version).unwrap()
}

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

/// One transaction of one batch of ten records, under the first transaction protocol.
async fn transact(
    connection: &Connection,
    partition: &TopicPartition,
    id: &str,
    producer: Producer,
    commit: bool,
) {
    let transactional_id = TransactionalId(text(id));
    let topic = TopicName(text(&partition.topic.name));
    let added = AddPartitionsToTxnTopic::default()
        .with_name(topic.clone())
        .with_partitions(vec![partition.partition]);
    let request = AddPartitionsToTxnRequest::default()
        .with_v3_and_below_transactional_id(transactional_id.clone())
        .with_v3_and_below_producer_id(ProducerId(producer.id))
        .with_v3_and_below_producer_epoch(producer.epoch)
        .with_v3_and_below_topics(vec![added]);
    // While the previous transaction is being ended, the coordinator says 51: concurrent transactions.
    loop {
        let answer = raw(connection, 3, &request).await;
        match answer.results_by_topic_v3_and_below[0].results_by_partition[0].partition_error_code {
            0 => break,
            51 => tokio::time::sleep(Duration::from_millis(20)).await,
            code => panic!("{}", ErrorCode(code)),
        }
    }
    let plain = batch(Compression::None, 0, 10);
    let mut bytes = split_for_replay(&plain, producer).unwrap().to_bytes().to_vec();
    bytes[22] |= 0x10;
    let crc = crc32c::crc32c(&bytes[21..]);
    bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    let data = PartitionProduceData::default()
        .with_index(partition.partition)
        .with_records(Some(bytes.into()));
    let request = ProduceRequest::default()
        .with_transactional_id(Some(transactional_id.clone()))
        .with_acks(-1)
        .with_timeout_ms(10_000)
        .with_topic_data(vec![
            TopicProduceData::default()
                .with_name(topic)
                .with_partition_data(vec![data]),
        ]);
    let answer = raw(connection, 8, &request).await;
    assert_eq!(answer.responses[0].partition_responses[0].error_code, 0);
    let request = EndTxnRequest::default()
        .with_transactional_id(transactional_id)
        .with_producer_id(ProducerId(producer.id))
        .with_producer_epoch(producer.epoch)
        .with_committed(commit);
    assert_eq!(raw(connection, 3, &request).await.error_code, 0);
}

#[tokio::test]
#[ignore = "needs TEELINE_TEST_KAFKA=host:port of a cluster of one broker"]
async fn aborted_transactions_are_listed_and_markers_read() {
    let cluster = cluster().await;
    let key = topic(&cluster, "transactions", 1, &[]).await;
    let partition = TopicPartition::new(key, 0);
    cluster.leader_for(&partition).await.unwrap();
    // With one broker whoever answers is coordinator and leader.
    let address = cluster.config().endpoint.bootstrap_servers[0].clone();
    let connection = Connection::open(&address, cluster.config()).await.unwrap();
    let id = unique("transactional-id");
    let find = FindCoordinatorRequest::default()
        .with_key(text(&id))
        .with_key_type(1);
    let init = InitProducerIdRequest::default()
        .with_transactional_id(Some(TransactionalId(text(&id))))
        .with_transaction_timeout_ms(60_000)
        .with_producer_id(ProducerId(-1))
        .with_producer_epoch(-1);
    let identity = loop {
        // Asking for the coordinator makes a fresh cluster create what it keeps transactions in.
        raw(&connection, 3, &find).await;
        let answer = raw(&connection, 4, &init).await;
        match ErrorCode(answer.error_code) {
            ErrorCode::NONE => break answer,
            code => assert!(code.is_retriable() || code.0 == 16, "{code}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    let outcomes = [true, false, true, false];
    for (number, commit) in outcomes.into_iter().enumerate() {
        let base_sequence = number as i32 * 10;
        let producer = Producer {
            id: identity.producer_id.0,
            epoch: identity.producer_epoch,
            base_sequence,
        };
        transact(&connection, &partition, &id, producer, commit).await;
    }
    while cluster
        .list_offset(&partition, OffsetAt::LastStable)
        .await
        .unwrap()
        .offset
        < 44
    {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let committed = FetchOptions {
        isolation: Isolation::ReadCommitted,
        ..FetchOptions::default()
    };
    let fetched = cluster.fetch(&partition, 0, &committed).await.unwrap();
    assert_eq!((fetched.high_watermark, fetched.last_stable_offset), (44, 44));
    let aborted = |first_offset| AbortedTransaction {
        producer_id: identity.producer_id.0,
        first_offset,
    };
    assert_eq!(fetched.aborted, [aborted(11), aborted(33)]);
    let markers: Vec<_> = fetched_batches(&fetched.records)
        .filter_map(|batch| teeline_wire::batch::control_marker(&batch.unwrap()).unwrap())
        .collect();
    assert_eq!(
        markers
            .iter()
            .map(|marker| marker.is_commit())
            .collect::<Vec<_>>(),
        outcomes
    );
    assert_eq!(
        markers.iter().map(|marker| marker.offset).collect::<Vec<_>>(),
        [10, 21, 32, 43]
    );
    assert!(
        markers
            .iter()
            .all(|marker| marker.ends(identity.producer_id.0, identity.producer_epoch))
    );
    // The decision of one transaction, cheaply: any fetch inside it lists it.
    let inside = FetchOptions {
        max_bytes: 1,
        ..committed
    };
    let fetched = cluster.fetch(&partition, 35, &inside).await.unwrap();
    assert_eq!(fetched.aborted, [aborted(33)]);
}

/// Kill brokers or move leaders meanwhile; `TEELINE_TEST_SECONDS` says how long.
#[tokio::test]
#[ignore = "needs TEELINE_TEST_KAFKA=host:port"]
async fn idempotent_batches_arrive_once_and_in_order_while_leaders_move() {
    let cluster = cluster().await;
    let brokers = cluster
        .metadata(TopicSelection::None)
        .await
        .unwrap()
        .brokers
        .len();
    let key = replicated_topic(&cluster, "moving", 3, brokers.min(3) as i16, &[]).await;
    let partitions = [0, 1, 2].map(|number| TopicPartition::new(key.clone(), number));
    let identity = cluster.init_producer_id().await.unwrap();
    let seconds = std::env::var("TEELINE_TEST_SECONDS").map_or(1, |text| text.parse().unwrap());
    let end = tokio::time::Instant::now() + Duration::from_secs(seconds);
    let mut round = 0;
    while tokio::time::Instant::now() < end {
        let entry = |partition: &TopicPartition| {
            let batch = batch(Compression::Lz4, i64::from(round) * 10, 10);
            let producer = Producer {
                id: identity.id,
                epoch: identity.epoch,
                base_sequence: round * 10,
            };
            PartitionBatch::replay(partition.clone(), split_for_replay(&batch, producer).unwrap())
        };
        let entries: Vec<_> = partitions.iter().map(entry).collect();
        for produced in cluster.produce(&entries, &ProduceOptions::default()).await {
            assert_eq!(produced.unwrap().base_offset, i64::from(round) * 10);
        }
        round += 1;
    }
    for partition in &partitions {
        let stored = fetch_all(&cluster, partition, i64::from(round) * 10).await;
        let expected: Vec<_> = (0..round).map(|round| i64::from(round) * 10).collect();
        assert_eq!(
            stored
                .iter()
                .map(|batch| batch.header().base_offset)
                .collect::<Vec<_>>(),
            expected
        );
        let epochs: std::collections::BTreeSet<_> = stored
            .iter()
            .map(|batch| batch.header().partition_leader_epoch)
            .collect();
        eprintln!("{partition}: {round} batches under leader epochs {epochs:?}");
    }
}
