//! Metadata, offsets, fetching, administration.

use std::sync::Arc;
use std::time::Duration;

use teeline_wire::batch::fetched_batches;
use teeline_wire::client::*;
use teeline_wire::codec::Compression;
use teeline_wire::records::BatchBuilder;

use crate::support::{batch, cluster, topic, unique};

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
