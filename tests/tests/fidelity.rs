//! What was captured comes back identical, and a window of time holds exactly what belongs to it.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a test stops at the first surprise"
)]

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde_json::{Value, json};
use teeline_tests::driver::Isolation;
use teeline_tests::nasty::{NastyDataSet, now_ms};
use teeline_tests::programs::Restorer;
use teeline_tests::read_back::{Content, ReadBack, assert_identical};
use teeline_tests::record::Record;
use teeline_tests::stage::{Stage, Told};
use teeline_tests::wait::{seconds, wait_until};

static STAGE: LazyLock<Stage> = LazyLock::new(Stage::set);
const HOUR_MS: i64 = 3_600_000;

#[test]
fn a_nasty_data_set_is_identical_after_a_restore() {
    let settings = STAGE.proxy("nasty");
    let mut proxy = settings.start();
    let data = NastyDataSet::produce(&STAGE, &settings.bootstrap(), "nasty");
    proxy.stop();

    let topics = data.topic_names();
    data.told
        .assert_in(&STAGE.read_source(&topics, Isolation::Uncommitted));
    let restored = STAGE.assert_round_trip(&settings, &topics);
    assert_eq!(restored.0.len(), 12, "every partition holds something");
    for (topic, key, value) in [
        ("nasty-append-time", "message.timestamp.type", "LogAppendTime"),
        ("nasty-compacted", "cleanup.policy", "compact"),
        ("nasty-compacted", "retention.ms", "86400000"),
        ("nasty-recompressed", "compression.type", "gzip"),
    ] {
        let request = json!({"op": "topic_configs", "bootstrap": STAGE.target.bootstrap(), "topic": topic});
        let configs = &STAGE.java.ask(&request)["configs"];
        assert_eq!(configs[key], value, "{topic} was not put right again: {configs}");
    }
}

#[test]
fn a_window_holds_exactly_its_records_late_ones_too() {
    let settings = STAGE.proxy("window");
    let mut proxy = settings.start();
    STAGE.create_topic("window", 2);
    let start = now_ms() - 10 * HOUR_MS;
    let mut told = Told::default();
    // Steadily onward with late and early ones strewn in, in batches large and small, so that windows cut batches.
    for round in 0..40_i64 {
        let records: Vec<Record> = (0..50_i64)
            .map(|index| {
                let step = round * 50 + index;
                let strayed =
                    if step % 7 == 0 { -3 * HOUR_MS } else { 0 } + if step % 11 == 0 { HOUR_MS } else { 0 };
                let partition = i32::from(index % 2 == 1);
                Record::new(partition, &format!("k{step}"), format!("v{step}"))
                    .at(start + step * 12_000 + strayed)
            })
            .collect();
        let codec = ["none", "zstd", "lz4"][round as usize % 3];
        told.send_with(
            &STAGE.java,
            &settings.bootstrap(),
            &[("compression.type", codec)],
            "window",
            &records,
        );
    }
    proxy.stop();

    let source = STAGE.read_source(&["window"], Isolation::Committed);
    told.assert_in(&source);
    // The window's first millisecond belongs to it, the last does not: both are timestamps that occur.
    let (from, to) = (start + 700 * 12_000, start + 1_100 * 12_000);
    for (name, from, to) in [
        ("cut", from, to),
        ("instant", from, from + 1),
        ("before", start - 9 * HOUR_MS, start - 8 * HOUR_MS),
    ] {
        let topic = format!("window-{name}");
        let expected = source.clone().within(from, to).renamed("window", &topic);
        restore_window("window", &settings, &topic, from, to);
        let found = if expected.count() == 0 {
            ReadBack::default()
        } else {
            STAGE.read_target(&[&topic])
        };
        assert_identical(&expected, &found);
    }
    assert!(
        source.within(from, to).count() > 300,
        "the window was to hold a good part"
    );
}

fn restore_window(
    topic: &str,
    settings: &teeline_tests::programs::ProxySettings,
    into: &str,
    from: i64,
    to: i64,
) {
    let map = format!("{topic}={into}");
    let (from, to) = (from.to_string(), to.to_string());
    STAGE.restore(
        settings,
        &[topic],
        &["--map", &map, "--from-timestamp", &from, "--to-timestamp", &to],
    );
}

#[test]
fn a_window_of_a_log_append_time_topic_goes_by_append_times() {
    let settings = STAGE.proxy("append-window");
    let mut proxy = settings.start();
    STAGE.create_topics(
        &json!([{"name": "append-window", "configs": {"message.timestamp.type": "LogAppendTime"}}]),
    );
    for round in 0..30 {
        // The producers' own timestamps lie years back; the broker's are what counts.
        let records: Vec<Record> = (0..10)
            .map(|index| Record::new(0, "k", format!("{round} {index}")).at(index))
            .collect();
        Told::default().send_with(
            &STAGE.java,
            &settings.bootstrap(),
            &[("compression.type", "lz4")],
            "append-window",
            &records,
        );
    }
    proxy.stop();
    let source = STAGE.read_source(&["append-window"], Isolation::Committed);
    let records = source.partition("append-window", 0);
    assert!(records.iter().all(|record| record.log_append_time));
    let (from, to) = (records[80].timestamp, records[220].timestamp);
    let expected = source
        .clone()
        .within(from, to)
        .renamed("append-window", "append-window-cut");
    assert!(
        expected.count() >= 130 && expected.count() < 300,
        "{}",
        expected.count()
    );
    restore_window("append-window", &settings, "append-window-cut", from, to);
    assert_identical(&expected, &STAGE.read_target(&["append-window-cut"]));
}

#[test]
fn a_topic_that_the_broker_compacted_comes_back_as_it_was_written() {
    let settings = STAGE.proxy("cleaned");
    let mut proxy = settings.start();
    let eager = json!({"cleanup.policy": "compact", "segment.ms": "200", "min.cleanable.dirty.ratio": "0.01",
        "min.compaction.lag.ms": "0"});
    STAGE.create_topics(&json!([{"name": "cleaned", "configs": eager}]));
    let mut told = Told::default();
    for round in 0..5 {
        let records: Vec<Record> = (0..20)
            .map(|key| Record::new(0, &format!("k{key}"), format!("{round}")))
            .collect();
        told.send_with(&STAGE.java, &settings.bootstrap(), &[], "cleaned", &records);
    }
    wait_until("the broker to compact the topic", seconds(90), || {
        // A record of its own makes the broker roll the segment that is to be cleaned.
        told.send_with(
            &STAGE.java,
            &settings.bootstrap(),
            &[],
            "cleaned",
            &[Record::new(0, "roll", "on")],
        );
        STAGE.read_source(&["cleaned"], Isolation::Committed).count() + 40 < told.count()
    });
    let calm = json!({"segment.ms": "604800000", "min.cleanable.dirty.ratio": "0.9", "min.compaction.lag.ms": "604800000"});
    STAGE.java.ask(&json!({"op": "alter_topic", "bootstrap": STAGE.source.bootstrap(), "topic": "cleaned", "configs": calm}));
    told.send_with(
        &STAGE.java,
        &settings.bootstrap(),
        &[],
        "cleaned",
        &[Record::new(0, "last", "one")],
    );
    proxy.stop();

    STAGE.restore(&settings, &["cleaned"], &[]);
    let (source, target) = (
        STAGE.read_source(&["cleaned"], Isolation::Committed),
        STAGE.read_target(&["cleaned"]),
    );
    assert_eq!(
        latest_by_key(&source),
        latest_by_key(&target),
        "what compaction keeps is the same"
    );
    assert_eq!(
        target.partition("cleaned", 0).len(),
        told.count(),
        "all that was written is there"
    );
}

fn latest_by_key(read: &ReadBack) -> BTreeMap<Option<Vec<u8>>, (i64, Content)> {
    let records = read.partition("cleaned", 0).iter();
    records
        .map(|record| (record.content.clone().unwrap(), record.timestamp))
        .map(|(content, at)| (content.key.clone(), (at, content)))
        .collect()
}

#[test]
fn a_topic_deleted_and_made_again_is_two_topics() {
    let settings = STAGE.proxy("twice");
    let mut proxy = settings.start();
    STAGE.create_topic("twice", 1);
    let mut told = Told::default();
    let first: Vec<Record> = (0..20)
        .map(|index| Record::new(0, "first", format!("{index}")))
        .collect();
    told.send_with(&STAGE.java, &settings.bootstrap(), &[], "twice", &first);
    // Once the outcome is attributed to the first topic, in real life long before anybody deletes it.
    wait_until("the first topic's records to be archived", seconds(60), || {
        let run = Restorer::for_archive_of(&settings).run(&["describe", settings.backup_id(), "--json"]);
        // The topic itself is known to the archive before its records are.
        let described: Value = serde_json::from_str(&run.stdout).unwrap_or_default();
        let lives = described["topic_lives"].as_array().cloned().unwrap_or_default();
        let archived = |life: &Value| life["name"] == "twice" && life["partitions"][0]["records"] == 20;
        lives.iter().any(archived)
    });
    STAGE
        .java
        .ask(&json!({"op": "delete_topic", "bootstrap": STAGE.source.bootstrap(), "topic": "twice"}));
    wait_until("the topic to be gone", seconds(30), || {
        STAGE
            .java
            .request(
                &json!({"op": "describe_topics", "bootstrap": STAGE.source.bootstrap(), "topics": ["twice"]}),
            )
            .is_err()
    });
    STAGE.create_topic("twice", 1);
    let second: Vec<Record> = (0..7)
        .map(|index| Record::new(0, "second", format!("{index}")))
        .collect();
    told.send_with(&STAGE.java, &settings.bootstrap(), &[], "twice", &second);
    proxy.stop();
    let restored = STAGE.assert_round_trip(&settings, &["twice"]);
    assert_eq!(
        restored.count(),
        7,
        "the newest topic of that name, and nothing of the older"
    );
}
