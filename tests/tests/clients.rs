//! Each client family produces and consumes through the proxy, on one broker, and the restore gives back the same.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a test stops at the first surprise"
)]

mod librdkafka;

use std::sync::LazyLock;

use serde_json::json;
use teeline_tests::driver::{Driver, Isolation, ProducerConfig};
use teeline_tests::nasty::{CODECS, odd_records};
use teeline_tests::read_back::{ReadBack, assert_identical};
use teeline_tests::record::Record;
use teeline_tests::stage::{Stage, Told};

static STAGE: LazyLock<Stage> = LazyLock::new(Stage::set);

/// Produces with every codec and in a transaction, consumes through the proxy, restores.
fn round_trip(driver: &Driver, name: &str) {
    let settings = STAGE.proxy(name);
    let mut proxy = settings.start();
    let (bootstrap, transactional) = (settings.bootstrap(), format!("{name}-transactional"));
    STAGE.create_topic(name, 3);
    STAGE.create_topic(&transactional, 1);
    let mut told = Told::default();
    for codec in CODECS {
        told.send_with(
            driver,
            &bootstrap,
            &[("compression.type", codec)],
            name,
            &odd_records(3, codec),
        );
    }
    driver.open_producer(
        "t",
        &bootstrap,
        &ProducerConfig::of(&[("transactional.id", &transactional)]),
    );
    for end in ["commit", "abort", "commit"] {
        driver.producer_op("begin", "t");
        driver.send_all("t", &transactional, &[Record::new(0, "in a transaction", end)]);
        driver.producer_op(end, "t");
    }
    driver.producer_op("close", "t");

    let topics = [name, &transactional];
    let direct = STAGE.read_source(&topics, Isolation::Committed);
    told.assert_in(&direct);
    assert_eq!(direct.count(), told.count() + 2);
    let through = ReadBack::load(&driver.read_into(&bootstrap, &topics, Isolation::Committed, true));
    assert_identical(&direct, &through);
    proxy.stop();
    STAGE.assert_round_trip(&settings, &topics);
}

#[test]
fn the_java_client_produces_and_consumes_through_the_proxy() {
    round_trip(&STAGE.java, "java");
}

#[test]
fn franz_go_produces_and_consumes_through_the_proxy() {
    round_trip(STAGE.go(), "franz-go");
}

#[test]
fn librdkafka_produces_and_consumes_through_the_proxy() {
    let settings = STAGE.proxy("librdkafka");
    let mut proxy = settings.start();
    let (topics, bootstrap) = (["librdkafka", "librdkafka-transactional"], settings.bootstrap());
    STAGE.create_topic(topics[0], 3);
    STAGE.create_topic(topics[1], 3);
    for codec in CODECS {
        for acks in ["0", "1", "all"] {
            let answers = librdkafka::produce(
                &bootstrap,
                &[("compression.type", codec), ("acks", acks), ("linger.ms", "20")],
                topics[0],
                &odd_records(3, codec),
            );
            assert!(answers.iter().all(Result::is_ok), "{answers:?}");
        }
    }
    let transactional = [("transactional.id", "librdkafka"), ("compression.type", "zstd")];
    let answers = librdkafka::produce(
        &bootstrap,
        &transactional,
        topics[1],
        &odd_records(3, "transactional"),
    );
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");

    for topic in topics {
        let through = librdkafka::consume(&bootstrap, topic, 3);
        assert!(through.count() >= 24);
        assert_identical(&STAGE.read_source(&[topic], Isolation::Committed), &through);
    }
    proxy.stop();
    STAGE.assert_round_trip(&settings, &topics);
}

#[test]
fn clients_never_learn_a_brokers_own_address() {
    let settings = STAGE.proxy("addresses");
    let mut proxy = settings.start();
    let answer = STAGE
        .java
        .ask(&json!({"op": "cluster_id", "bootstrap": settings.bootstrap()}));
    assert_eq!(
        answer["cluster_id"],
        STAGE.source.cluster_id(),
        "the cluster keeps its id"
    );
    let (_, port) = settings
        .bootstrap()
        .rsplit_once(':')
        .map(|(host, port)| (host.to_owned(), port.parse::<u16>().unwrap()))
        .unwrap();
    assert_eq!(
        answer["nodes"],
        json!([format!("1@127.0.0.1:{}", port + 2)]),
        "node 1 keeps its id at a port of the proxy"
    );
    proxy.stop();
}

#[test]
fn a_consumer_group_commits_and_resumes_through_the_proxy() {
    use rdkafka::consumer::{BaseConsumer, Consumer};
    use rdkafka::message::Message;
    use teeline_tests::wait::{seconds, wait_for};

    let settings = STAGE.proxy("groups");
    let mut proxy = settings.start();
    STAGE.create_topic("groups", 1);
    let records: Vec<Record> = (0..10)
        .map(|index| Record::new(0, "k", format!("{index}")))
        .collect();
    Told::default().send_with(&STAGE.java, &settings.bootstrap(), &[], "groups", &records);
    for expected in [0..4, 4..10] {
        let mut config = rdkafka::ClientConfig::new();
        config
            .set("bootstrap.servers", settings.bootstrap())
            .set("group.id", "readers");
        config
            .set("auto.offset.reset", "earliest")
            .set("enable.auto.commit", "false");
        let consumer: BaseConsumer = config.create().unwrap();
        consumer.subscribe(&["groups"]).unwrap();
        for index in expected {
            let value = wait_for("the next record of the group", seconds(60), || {
                let message = consumer
                    .poll(std::time::Duration::from_millis(200))
                    .ok_or("nothing yet")?;
                let message = message.map_err(|_| "an error that librdkafka repeats")?;
                consumer
                    .commit_message(&message, rdkafka::consumer::CommitMode::Sync)
                    .map_err(|_| "not committed")?;
                Ok::<_, &str>(String::from_utf8(message.payload().unwrap().to_vec()).unwrap())
            });
            assert_eq!(value, index.to_string());
        }
    }
    proxy.stop();
}
