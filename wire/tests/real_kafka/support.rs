//! What the tests have in common: a cluster, topics of their own, batches worth testing with.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use teeline_config::KafkaEndpoint;
use teeline_wire::batch::{BatchView, fetched_batches};
use teeline_wire::client::{
    ClientConfig, Cluster, FetchOptions, NewTopic, OffsetAt, OffsetQuery, TopicKey, TopicPartition,
};
use teeline_wire::codec::Compression;
use teeline_wire::records::{BatchBuilder, DECOMPRESSED_BYTES_MAX, Records};

pub(crate) async fn cluster() -> Cluster {
    let address =
        std::env::var("TEELINE_TEST_KAFKA").expect("TEELINE_TEST_KAFKA=host:port names a test cluster");
    let config = ClientConfig::new(KafkaEndpoint {
        client_id: "teeline-wire-test".to_owned(),
        connect_timeout: Duration::from_secs(5),
        request_timeout: Duration::from_secs(10),
        ..KafkaEndpoint::plaintext(vec![address.parse().expect("host:port")])
    });
    Cluster::connect(config).await.unwrap()
}

pub(crate) fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64
}

pub(crate) fn unique(name: &str) -> String {
    format!(
        "wire-{name}-{}",
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos()
    )
}

pub(crate) async fn topic(
    cluster: &Cluster,
    name: &str,
    partitions: i32,
    configs: &[(&str, &str)],
) -> TopicKey {
    replicated_topic(cluster, name, partitions, 1, configs).await
}

pub(crate) async fn replicated_topic(
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

pub(crate) fn batch(compression: Compression, first: i64, count: i64) -> BatchView {
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

pub(crate) fn values(batches: &[BatchView]) -> Vec<Bytes> {
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

pub(crate) async fn fetch_all(cluster: &Cluster, partition: &TopicPartition, end: i64) -> Vec<BatchView> {
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
