//! Reads that followers answer: the same bytes as the leader's, and the leader again when a follower is gone.

use bytes::Bytes;
use teeline_config::{HostPort, KafkaEndpoint};
use teeline_tests::kafka::Kafka;
use teeline_wire::batch::fetched_batches;
use teeline_wire::client::{ClientConfig, Cluster, FetchOptions, OffsetAt, TopicPartition};

/// Reads a partition, three replicas of which are in sync, near each broker. One follower is killed at the end.
pub(crate) fn assert_followers_answer(kafka: &mut Kafka, topic: &str) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let partition = TopicPartition::new(topic, 0);
    let plain = runtime.block_on(client(kafka, None));
    let end = runtime
        .block_on(plain.list_offset(&partition, OffsetAt::Latest))
        .unwrap()
        .offset;
    let leader = runtime.block_on(plain.leader_for(&partition)).unwrap().node_id;
    let (log, from) = runtime.block_on(read(&plain, &partition, end));
    assert!(log.len() > 5 && from.iter().all(Option::is_none), "{from:?}");
    let mut near_follower = None;
    for id in kafka.node_ids() {
        let near = runtime.block_on(client(kafka, Some(id)));
        let (found, from) = runtime.block_on(read(&near, &partition, end));
        assert!(found == log, "broker {id} has other bytes than leader {leader}");
        let expected = (id != leader).then_some(id);
        assert!(
            from.iter().all(|answered| *answered == expected),
            "near {id}: {from:?}"
        );
        if id != leader {
            near_follower = Some((id, near));
        }
    }
    let (id, near) = near_follower.expect("two of three brokers do not lead");
    kafka.kill_node(id);
    let (found, from) = runtime.block_on(read(&near, &partition, end));
    assert!(found == log, "the leader does not answer as before");
    assert!(
        from.iter().all(Option::is_none),
        "a dead broker answered: {from:?}"
    );
}

async fn client(kafka: &Kafka, near: Option<i32>) -> Cluster {
    let servers = kafka.bootstrap();
    let servers = servers.split(',').map(|text| text.parse::<HostPort>().unwrap());
    let endpoint = KafkaEndpoint {
        client_rack: near.map(|id| format!("rack-{id}")),
        ..KafkaEndpoint::plaintext(servers.collect())
    };
    Cluster::connect(ClientConfig::new(endpoint)).await.unwrap()
}

/// Every batch, and who answered each question.
async fn read(cluster: &Cluster, partition: &TopicPartition, end: i64) -> (Vec<Bytes>, Vec<Option<i32>>) {
    let options = FetchOptions {
        max_bytes: 64 * 1024,
        nearest: true,
        ..FetchOptions::default()
    };
    let (mut batches, mut answered) = (Vec::new(), Vec::new());
    let mut offset = 0;
    while offset < end {
        let fetched = cluster.fetch(partition, offset, &options).await.unwrap();
        answered.push(fetched.follower);
        for batch in fetched_batches(&fetched.records) {
            let batch = batch.unwrap();
            offset = batch.header().next_offset();
            batches.push(batch.bytes().clone());
        }
    }
    (batches, answered)
}
