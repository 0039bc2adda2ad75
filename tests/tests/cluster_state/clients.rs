//! Consumers, producers and Kafka's own tools, which change the state of a cluster.

use std::time::{Duration, Instant};

use rdkafka::config::ClientConfig as RdConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::producer::{DefaultProducerContext, Producer, ThreadedProducer};
use rdkafka::{Offset, TopicPartitionList};
use teeline_tests::kafka::Kafka;

use crate::LIMIT;

pub(crate) fn consumer(bootstrap: &str, group: &str, protocol: &str) -> BaseConsumer {
    RdConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("group.id", group)
        .set("group.protocol", protocol)
        .set("enable.auto.commit", "false")
        .create()
        .unwrap()
}

/// A consumer that has joined its group and been given both partitions.
pub(crate) fn member(bootstrap: &str, group: &str, protocol: &str) -> BaseConsumer {
    let consumer = consumer(bootstrap, group, protocol);
    consumer.subscribe(&["orders"]).unwrap();
    let started = Instant::now();
    while consumer.assignment().unwrap().count() < 2 {
        assert!(started.elapsed() < LIMIT, "{group} got no partitions in time");
        if let Some(Err(error)) = consumer.poll(Duration::from_millis(100)) {
            eprintln!("{group}: {error}");
        }
    }
    consumer
}

pub(crate) fn offsets(offset: i64) -> TopicPartitionList {
    let mut offsets = TopicPartitionList::new();
    for partition in 0..2 {
        let offset = Offset::Offset(offset + i64::from(partition));
        offsets.add_partition_offset("orders", partition, offset).unwrap();
    }
    offsets
}

pub(crate) fn commit(consumer: &BaseConsumer, offset: i64) {
    consumer.commit(&offsets(offset), CommitMode::Sync).unwrap();
}

pub(crate) fn transactional_producer(bootstrap: &str) -> ThreadedProducer<DefaultProducerContext> {
    let producer: ThreadedProducer<DefaultProducerContext> = RdConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("transactional.id", "state")
        .create()
        .unwrap();
    producer.init_transactions(LIMIT).unwrap();
    producer
}

pub(crate) fn tool(class: &str, arguments: &[&str]) {
    let output = Kafka::tool(class, arguments);
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(
        output.status.success() && !text.contains("Error"),
        "{class} {arguments:?}: {text}"
    );
}

pub(crate) fn reset_by_the_tool(bootstrap: &str) {
    let arguments = [
        "--bootstrap-server",
        bootstrap,
        "--group",
        "classic-group",
        "--reset-offsets",
        "--execute",
        "--topic",
        "orders:0,1",
        "--to-offset",
        "2",
    ];
    // The tool brings an offset beyond the log's end back to it, so the log must reach so far.
    tool(
        "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand",
        &arguments,
    );
}

pub(crate) fn allow_by_the_tool(bootstrap: &str) {
    let arguments = [
        "--bootstrap-server",
        bootstrap,
        "--add",
        "--allow-principal",
        "User:guest",
        "--operation",
        "Describe",
        "--topic",
        "orders",
    ];
    tool("org.apache.kafka.tools.AclCommand", &arguments);
}

pub(crate) fn set_quota_by_the_tool(bootstrap: &str) {
    let arguments = [
        "--bootstrap-server",
        bootstrap,
        "--alter",
        "--entity-type",
        "users",
        "--entity-name",
        "alice",
        "--add-config",
        "producer_byte_rate=1048576",
    ];
    tool("kafka.admin.ConfigCommand", &arguments);
}
