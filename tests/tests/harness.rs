//! The harness itself against real Kafka, without Teeline: what clients report must be true, or no test means much.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a test stops at the first surprise"
)]

use serde_json::json;
use teeline_tests::driver::{Driver, Family, Isolation, ProducerConfig};
use teeline_tests::kafka::Kafka;
use teeline_tests::read_back::{ReadBack, assert_identical, differences};
use teeline_tests::record::Record;

#[test]
fn both_client_programs_report_the_same_records_and_see_each_others() {
    let kafka = Kafka::start_one();
    let bootstrap = kafka.bootstrap();
    let (java, go) = (Driver::start(Family::Java), Driver::start(Family::Go));
    java.create_topics(
        &bootstrap,
        &json!([{"name": "a", "partitions": 2}, {"name": "b"}]),
    );

    let records = vec![
        Record::new(0, "k", "v")
            .at(1_000)
            .header("h", Some(b"1"))
            .header("h", None)
            .header("", Some(b"")),
        Record {
            partition: 1,
            timestamp: Some(500),
            ..Record::default()
        },
        Record {
            partition: 0,
            key: Some(vec![]),
            value: Some(vec![]),
            timestamp: Some(2),
            ..Record::default()
        },
        Record {
            partition: 0,
            key: Some(b"gone".to_vec()),
            timestamp: Some(3),
            ..Record::default()
        },
    ];
    for (driver, name) in [(&java, "j"), (&go, "g")] {
        driver.open_producer(
            name,
            &bootstrap,
            &ProducerConfig::of(&[("acks", "all"), ("compression.type", "zstd")]),
        );
        let acks = driver.send_all(name, "a", &records);
        assert_eq!(
            acks.iter().map(|ack| ack.partition).collect::<Vec<_>>(),
            [0, 1, 0, 0]
        );
        driver.producer_op("close", name);
    }
    let by_java = ReadBack::load(&java.read_into(&bootstrap, &["a", "b"], Isolation::Committed, true));
    let by_go = ReadBack::load(&go.read_into(&bootstrap, &["a", "b"], Isolation::Committed, true));
    assert_identical(&by_java, &by_go);
    assert_eq!(by_java.partition("a", 0)[0].digest, records[0].digest());
    assert_eq!(
        by_java.partition("a", 0)[0].content.as_ref().unwrap().headers,
        records[0].headers
    );
    assert_eq!(by_java.partition("a", 1)[1].digest, records[1].digest());
    assert_eq!(by_java.count(), 8);

    // Comparing must be able to fail.
    let mut other = by_go.clone();
    other.0.get_mut(&("a".to_owned(), 0)).unwrap()[1].timestamp += 1;
    assert_eq!(differences(&by_java, &other).len(), 1);

    go.open_producer("t", &bootstrap, &ProducerConfig::of(&[("transactional.id", "t")]));
    for (op, value) in [("commit", "kept"), ("abort", "dropped")] {
        go.producer_op("begin", "t");
        go.send_all(
            "t",
            "b",
            &[Record::new(0, "k", value).header([0xff, 0xfe], Some(b"x"))],
        );
        go.producer_op(op, "t");
    }
    let committed = ReadBack::load(&go.read_into(&bootstrap, &["b"], Isolation::Committed, true));
    assert_eq!(committed.count(), 1);
    assert_eq!(
        committed.partition("b", 0)[0].content.as_ref().unwrap().headers[0].0,
        [0xff, 0xfe]
    );
    let everything = ReadBack::load(&java.read_into(&bootstrap, &["b"], Isolation::Uncommitted, false));
    assert_eq!(everything.count(), 2);
}
