//! A data set that holds what has broken other tools: produced through a proxy, then read from the source itself.

use std::time::{SystemTime, UNIX_EPOCH};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::json;

use crate::driver::{Driver, Family, ProducerConfig};
use crate::kafka_log;
use crate::record::Record;
use crate::stage::{Stage, Told};

/// Kafka's codecs by the names of the producer's setting.
pub const CODECS: [&str; 5] = ["none", "gzip", "snappy", "lz4", "zstd"];
const HUGE_BYTES: usize = 900 * 1024;
const LARGE_BATCH: usize = 5_000;

/// The topics of the data set, all beginning with one prefix.
#[derive(Debug)]
pub struct NastyDataSet {
    /// Every topic.
    pub topics: Vec<String>,
    /// What the producers were told.
    pub told: Told,
}

impl NastyDataSet {
    /// The topics as the harness takes them.
    pub fn topic_names(&self) -> Vec<&str> {
        self.topics.iter().map(String::as_str).collect()
    }

    /// Creates the topics on the source and produces everything through `bootstrap`.
    pub fn produce(stage: &Stage, bootstrap: &str, prefix: &str) -> Self {
        let name = |suffix: &str| format!("{prefix}-{suffix}");
        stage.create_topics(&json!([
            {"name": name("plain"), "partitions": 3},
            {"name": name("batches")},
            {"name": name("huge"), "partitions": 2},
            {"name": name("transactions"), "partitions": 2},
            {"name": name("headers")},
            {"name": name("append-time"), "configs": {"message.timestamp.type": "LogAppendTime"}},
            {"name": name("recompressed"), "configs": {"compression.type": "gzip"}},
            {"name": name("compacted"), "configs": {"cleanup.policy": "compact", "retention.ms": "86400000"}},
        ]));
        let mut told = Told::default();
        plain(&mut told, stage, bootstrap, &name("plain"));
        batches(&mut told, stage, bootstrap, &name("batches"));
        huge(&mut told, stage, bootstrap, &name("huge"));
        transactions(&mut told, stage, bootstrap, &name("transactions"));
        headers(&mut told, stage.go(), bootstrap, &name("headers"));
        for (suffix, driver) in [
            ("append-time", &stage.java),
            ("recompressed", &stage.java),
            ("append-time", stage.go()),
        ] {
            for codec in CODECS {
                told.send_with(
                    driver,
                    bootstrap,
                    &[("compression.type", codec)],
                    &name(suffix),
                    &odd_records(1, codec),
                );
            }
        }
        let keyed: Vec<Record> = odd_records(1, "compacted")
            .into_iter()
            .filter(|record| record.key.is_some())
            .collect();
        told.send_with(
            &stage.java,
            bootstrap,
            &[("compression.type", "lz4")],
            &name("compacted"),
            &keyed,
        );
        told.send_with(&stage.java, bootstrap, &[], &name("compacted"), &keyed);
        let suffixes = [
            "plain",
            "batches",
            "huge",
            "transactions",
            "headers",
            "append-time",
            "recompressed",
            "compacted",
        ];
        Self {
            topics: suffixes.map(name).to_vec(),
            told,
        }
    }
}

/// Every codec with every kind of acknowledgement, by both client families; also idempotent producers.
fn plain(told: &mut Told, stage: &Stage, bootstrap: &str, topic: &str) {
    for driver in [&stage.java, stage.go()] {
        for codec in CODECS {
            for acks in ["0", "1", "all"] {
                let config = [
                    ("acks", acks),
                    ("compression.type", codec),
                    ("enable.idempotence", "false"),
                ];
                told.send_with(
                    driver,
                    bootstrap,
                    &config,
                    topic,
                    &odd_records(3, &format!("{codec} {acks}")),
                );
            }
            let config = [
                ("acks", "all"),
                ("compression.type", codec),
                ("enable.idempotence", "true"),
            ];
            told.send_with(
                driver,
                bootstrap,
                &config,
                topic,
                &odd_records(3, &format!("{codec} idempotent")),
            );
        }
    }
}

/// Batches of one record and of five thousand; the broker's files say that they really are.
fn batches(told: &mut Told, stage: &Stage, bootstrap: &str, topic: &str) {
    let records: Vec<Record> = (0..LARGE_BATCH)
        .map(|index| Record::new(0, &format!("key {index}"), format!("value {index}")))
        .collect();
    let one_large = [
        ("batch.size", "4000000"),
        ("linger.ms", "60000"),
        ("max.request.size", "4000000"),
    ];
    told.send_with(&stage.java, bootstrap, &one_large, topic, &records);
    told.send_with(
        &stage.java,
        bootstrap,
        &[("batch.size", "0"), ("linger.ms", "0")],
        topic,
        &records[..50],
    );
    let compressed = [&one_large[..], &[("compression.type", "zstd")]].concat();
    told.send_with(&stage.java, bootstrap, &compressed, topic, &records);

    let directory = stage.source.partition_directory(1, topic, 0);
    let counts: Vec<i32> = kafka_log::batches(&directory)
        .iter()
        .map(|batch| batch.record_count)
        .collect();
    assert_eq!(
        counts
            .iter()
            .filter(|count| **count == LARGE_BATCH as i32)
            .count(),
        2,
        "batches of {counts:?}"
    );
    assert!(
        counts.iter().filter(|count| **count == 1).count() >= 50,
        "batches of {counts:?}"
    );
}

/// Records of 900 KB, one that compresses well and one that does not at all.
fn huge(told: &mut Told, stage: &Stage, bootstrap: &str, topic: &str) {
    let mut noise = vec![0; HUGE_BYTES];
    StdRng::seed_from_u64(900).fill(&mut noise[..]);
    let records = [
        Record::new(0, "noise", noise),
        Record::new(1, "same", vec![b'x'; HUGE_BYTES]),
    ];
    for codec in CODECS {
        for record in &records {
            told.send_with(
                &stage.java,
                bootstrap,
                &[("compression.type", codec)],
                topic,
                std::slice::from_ref(record),
            );
        }
    }
}

/// Two transactional producers whose transactions interleave, are committed and aborted, also over partitions.
fn transactions(told: &mut Told, stage: &Stage, bootstrap: &str, topic: &str) {
    let java = &stage.java;
    for id in ["one", "two"] {
        let transactional_id = format!("{topic}-{id}");
        java.open_producer(
            id,
            bootstrap,
            &ProducerConfig::of(&[("transactional.id", &transactional_id)]),
        );
    }
    let ends = [
        ("commit", "abort"),
        ("abort", "commit"),
        ("commit", "commit"),
        ("abort", "abort"),
        ("commit", "abort"),
    ];
    for (round, (end_of_one, end_of_two)) in ends.into_iter().enumerate() {
        java.producer_op("begin", "one");
        java.producer_op("begin", "two");
        for step in 0..3 {
            for (id, end) in [("one", end_of_one), ("two", end_of_two)] {
                let records =
                    [0, 1].map(|partition| Record::new(partition, id, format!("{round} {step} {end}")));
                if end == "commit" {
                    told.send(java, id, topic, &records);
                } else {
                    java.send_all(id, topic, &records);
                }
            }
        }
        java.producer_op(end_of_one, "one");
        java.producer_op(end_of_two, "two");
    }
    java.producer_op("close", "one");
    java.producer_op("close", "two");
    go_transactions(told, stage.go(), bootstrap, topic);
}

fn go_transactions(told: &mut Told, go: &Driver, bootstrap: &str, topic: &str) {
    assert_eq!(go.family(), Family::Go);
    let transactional_id = format!("{topic}-go");
    go.open_producer(
        "go",
        bootstrap,
        &ProducerConfig::of(&[("transactional.id", &transactional_id)]),
    );
    for end in ["abort", "commit", "abort", "commit"] {
        go.producer_op("begin", "go");
        let records = [
            Record::new(1, "go", end),
            Record {
                partition: 0,
                ..Record::default()
            },
        ];
        if end == "commit" {
            told.send(go, "go", topic, &records);
        } else {
            go.send_all("go", topic, &records);
        }
        go.producer_op(end, "go");
    }
    go.producer_op("close", "go");
}

/// Header names that are not UTF-8, repeated, empty; values null and empty; very many of them.
fn headers(told: &mut Told, go: &Driver, bootstrap: &str, topic: &str) {
    let mut many = Record::new(0, "many", "headers");
    for index in 0..1_000_u32 {
        many = many.header("repeated", Some(&index.to_be_bytes()));
    }
    let records = [
        Record::new(0, "raw", "names")
            .header([0xff, 0x00, 0xfe], Some(b"v"))
            .header([0xc3], None)
            .header([0xed, 0xa0, 0x80], Some(b"")),
        Record::new(0, "twice", "v")
            .header("h", Some(b"1"))
            .header("other", None)
            .header("h", Some(b"2"))
            .header("h", None),
        Record::new(0, "empty", "name")
            .header("", Some(b""))
            .header("", None),
        Record {
            partition: 0,
            ..Record::default()
        }
        .header("only", Some(b"a header")),
        many,
    ];
    for codec in CODECS {
        told.send_with(go, bootstrap, &[("compression.type", codec)], topic, &records);
    }
}

/// Null and empty keys and values, tombstones, headers, and timestamps far out of order, spread over partitions.
pub fn odd_records(partitions: i32, label: &str) -> Vec<Record> {
    let now = now_ms();
    let times = [
        now,
        0,
        now - 315_360_000_000,
        now + 50 * 60_000,
        1,
        now - 1,
        4_102_444_800,
        now,
    ];
    let shapes = [
        Record::new(0, "key", label),
        Record {
            key: None,
            value: Some(label.into()),
            ..Record::default()
        },
        Record {
            key: Some(label.into()),
            value: None,
            ..Record::default()
        },
        Record::default(),
        Record {
            key: Some(Vec::new()),
            value: Some(Vec::new()),
            ..Record::default()
        },
        Record {
            key: Some(vec![0, 0xff, 0x80]),
            value: Some(vec![0; 3]),
            ..Record::default()
        },
        Record::new(0, "headers", label)
            .header("a", Some(b"1"))
            .header("b", None)
            .header("a", Some(b""))
            .header("a", Some(b"1")),
        Record {
            key: Some(b"tombstone".to_vec()),
            ..Record::default()
        }
        .header("reason", Some(label.as_bytes())),
    ];
    let rows = (0..partitions).flat_map(|partition| {
        shapes.iter().zip(times).map(move |(shape, time)| Record {
            partition,
            timestamp: Some(time),
            ..shape.clone()
        })
    });
    rows.collect()
}

/// Epoch milliseconds.
pub fn now_ms() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("the clock is set");
    i64::try_from(since.as_millis()).expect("before the year 292 million")
}
