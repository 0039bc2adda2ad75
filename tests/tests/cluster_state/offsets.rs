//! What was committed between two looks is there, each commit with its own time, without asking any coordinator.

use std::thread;
use std::time::{Duration, Instant};

use rdkafka::Offset;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use serde_json::{Value, json};
use teeline_config::{KafkaEndpoint, OffsetsFrom};
use teeline_tests::kafka::Kafka;
use teeline_tests::wait::wait_until;
use teeline_tests::workdir::WorkDir;
use teeline_wire::client::{Cluster, ConfigOperation, ConfigResource, GROUP_TOPIC, OffsetAt, TopicPartition};

use crate::LIMIT;
use crate::clients::{commit, consumer, member, offsets, reset_by_the_tool, tool, transactional_producer};
use crate::watch::{Watch, connect, create_topics, kind, now_ms, shown};

/// Retention that acts at once where it is switched on.
const EAGER: &str = "log.retention.check.interval.ms=200\nlog.initial.task.delay.ms=200\n";

#[test]
fn every_commit_between_two_looks_is_there_with_its_time() {
    let mut kafka = Kafka::prepare(1, EAGER);
    kafka.start_all();
    let bootstrap = kafka.bootstrap();
    let work = WorkDir::create("committed-offsets");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let mut watch = Watch::new(&kafka, &work);
    let endpoint = KafkaEndpoint::plaintext(vec![bootstrap.parse().unwrap()]);
    let cluster = runtime.block_on(connect(endpoint));
    runtime.block_on(create_topics(&cluster));
    let classic = member(&bootstrap, "classic-group", "classic");
    commit(&classic, 1);
    let doomed = consumer(&bootstrap, "doomed-group", "classic");
    commit(&doomed, 3);
    let streams = Streams::new(&bootstrap);
    // Under way when the log is first followed: what it commits was written before.
    streams.begin(7);
    let first = runtime.block_on(watch.look(&cluster));

    let mut moments = vec![first];
    let rest = |moments: &mut Vec<i64>| {
        moments.push(now_ms());
        // Of commits within a second the last is kept.
        let second = now_ms() / 1_000;
        wait_until("the clock goes on", LIMIT, || now_ms() / 1_000 > second);
    };
    rest(&mut moments);
    commit(&classic, 5);
    let modern = member(&bootstrap, "modern-group", "consumer");
    commit(&modern, 6);
    streams.commit(7);
    rest(&mut moments);
    commit(&classic, 15);
    commit(&modern, 16);
    streams.begin(70);
    streams.commit(70);
    streams.begin(700);
    streams.producer.abort_transaction(LIMIT).unwrap();
    rest(&mut moments);
    drop((classic, doomed));
    thread::scope(|scope| {
        scope.spawn(|| reset_by_the_tool(&bootstrap));
        scope.spawn(|| delete_by_the_tool(&bootstrap));
        scope.spawn(|| share_by_the_tool(&bootstrap));
    });
    moments.push(runtime.block_on(watch.look(&cluster)));

    let told = |at: i64| told(&shown(&watch.restorer, at).1);
    let at = |classic: i64, modern: i64, streams: i64, doomed: i64| {
        let groups = [
            ("classic-group", classic),
            ("doomed-group", doomed),
            ("modern-group", modern),
            ("transactional-group", streams),
        ];
        let there = groups.into_iter().filter(|(_, offset)| *offset >= 0);
        there
            .map(|(group, offset)| (group.to_owned(), offset))
            .collect::<Vec<_>>()
    };
    assert_eq!(told(moments[0]), at(1, -1, -1, 3), "at the first look");
    assert_eq!(told(moments[1]), at(1, -1, -1, 3));
    assert_eq!(told(moments[2]), at(5, 6, 7, 3), "the first commits");
    assert_eq!(
        told(moments[3]),
        at(15, 16, 70, 3),
        "the second; what is aborted never counts"
    );
    assert_eq!(
        told(moments[4]),
        at(2, 16, 70, -1),
        "a reset, and a group deleted"
    );

    // Coordinators, asked by a recorder that does not follow the log, say the same.
    let log = shown(&watch.restorer, moments[4]).1;
    let mut poll = Watch::into(kafka.cluster_id(), &work, "polled", OffsetsFrom::Poll);
    let polled_at = runtime.block_on(poll.look(&cluster));
    let polled = shown(&poll.restorer, polled_at).1;
    let (log, polled) = (kind(&log, "groups"), kind(&polled, "groups"));
    assert_eq!(log["groups"], polled["groups"]);
    assert_eq!(log["offsets_from"], json!({"way": "log"}));
    assert_eq!(polled["offsets_from"], json!({"way": "poll"}));
    let shared = log["groups"].as_array().unwrap().iter();
    let shared = shared
        .clone()
        .find(|group| group["group"] == "share-group")
        .unwrap();
    assert_eq!(shared["type"], "share");
    assert!(
        shared["offsets"][0]["offset"].is_u64(),
        "where it begins: {shared}"
    );
    runtime.block_on(lose_a_part(&mut watch, &cluster, &modern));
}

/// What the log loses before it is read is made up for by asking, and said.
async fn lose_a_part(watch: &mut Watch, cluster: &Cluster, modern: &BaseConsumer) {
    let before = now_ms();
    commit(modern, 20);
    let settings = [
        ("cleanup.policy", "delete"),
        ("retention.ms", "1"),
        ("segment.ms", "1"),
    ];
    let settings = settings.map(|(name, value)| (name.to_owned(), ConfigOperation::Set(value.to_owned())));
    let topic = ConfigResource::Topic(GROUP_TOPIC.into());
    cluster.alter_configs(&topic, &settings).await.unwrap();
    let started = Instant::now();
    while !is_empty(cluster).await {
        assert!(
            started.elapsed() < LIMIT,
            "the log keeps what it was told to lose"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    commit(modern, 21);
    let at = watch.look(cluster).await;
    let (_, lost) = shown(&watch.restorer, before);
    assert_eq!(
        kind(&lost, "groups")["offsets_from"]["reason"],
        "a part of the log was gone before it was read"
    );
    let (_, found) = shown(&watch.restorer, at);
    assert_eq!(kind(&found, "groups")["offsets_from"], json!({"way": "log"}));
    assert!(told(&found).contains(&("modern-group".to_owned(), 21)), "{found}");
}

async fn is_empty(cluster: &Cluster) -> bool {
    for partition in 0..3 {
        let partition = TopicPartition::new(GROUP_TOPIC, partition);
        let start = cluster.list_offset(&partition, OffsetAt::Earliest).await.unwrap();
        let end = cluster.list_offset(&partition, OffsetAt::Latest).await.unwrap();
        if start.offset < end.offset {
            return false;
        }
    }
    true
}

/// Partition 0 of what is committed, by group; share groups commit nothing.
fn told(state: &Value) -> Vec<(String, i64)> {
    let groups = kind(state, "groups")["groups"].as_array().unwrap();
    let mut told = Vec::new();
    for group in groups.iter().filter(|group| group["type"] != "share") {
        for offset in group["offsets"].as_array().unwrap() {
            if offset["partition"] == 0 {
                let name = group["group"].as_str().unwrap().to_owned();
                told.push((name, offset["offset"].as_i64().unwrap()));
            }
        }
    }
    told
}

/// A producer that commits what a group has read.
struct Streams {
    producer: ThreadedProducer<DefaultProducerContext>,
    reader: BaseConsumer,
}

impl Streams {
    fn new(bootstrap: &str) -> Self {
        Self {
            producer: transactional_producer(bootstrap),
            reader: consumer(bootstrap, "transactional-group", "classic"),
        }
    }

    fn begin(&self, offset: i64) {
        self.producer.begin_transaction().unwrap();
        for partition in [0, 1, 0, 1] {
            let record = BaseRecord::<(), str>::to("orders").payload("v");
            self.producer.send(record.partition(partition)).unwrap();
        }
        let group = self.reader.group_metadata().unwrap();
        self.producer
            .send_offsets_to_transaction(&offsets(offset), &group, LIMIT)
            .unwrap();
    }

    /// A transaction is over before its markers are written everywhere.
    fn commit(&self, offset: i64) {
        self.producer.commit_transaction(LIMIT).unwrap();
        wait_until("the coordinator has the marker", LIMIT, || {
            let committed = self.reader.committed_offsets(offsets(0), LIMIT).unwrap();
            let partition = committed.find_partition("orders", 0).unwrap();
            partition.offset() == Offset::Offset(offset)
        });
    }
}

fn delete_by_the_tool(bootstrap: &str) {
    let arguments = [
        "--bootstrap-server",
        bootstrap,
        "--delete",
        "--group",
        "doomed-group",
    ];
    tool(
        "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand",
        &arguments,
    );
}

/// A share group that begins with the first record and reads one.
fn share_by_the_tool(bootstrap: &str) {
    let earliest = [
        "--bootstrap-server",
        bootstrap,
        "--alter",
        "--group",
        "share-group",
        "--add-config",
        "share.auto.offset.reset=earliest",
    ];
    tool("kafka.admin.ConfigCommand", &earliest);
    let read = [
        "--bootstrap-server",
        bootstrap,
        "--topic",
        "orders",
        "--group",
        "share-group",
        "--max-messages",
        "1",
        "--timeout-ms",
        "60000",
    ];
    tool("org.apache.kafka.tools.consumer.ConsoleShareConsumer", &read);
}
