//! A backup by Fetch is the source's log, offset by offset; it resumes, and a second one adds nothing.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a test stops at the first surprise"
)]

use std::fs;
use std::sync::LazyLock;

use serde_json::json;
use teeline_archive::ledger::AbsenceReason;
use teeline_archive::{OffsetRange, OffsetSet};
use teeline_tests::archived::files;
use teeline_tests::backups::Backup;
use teeline_tests::comparison::compare;
use teeline_tests::driver::{Isolation, ProducerConfig};
use teeline_tests::kafka::Kafka;
use teeline_tests::notes::note;
use teeline_tests::programs::Archive;
use teeline_tests::read_back::assert_identical;
use teeline_tests::record::Record;
use teeline_tests::refusing_store::RefusingStore;
use teeline_tests::source_log::SourceLog;
use teeline_tests::stage::{Stage, Told};
use teeline_tests::wait::{seconds, wait_for, wait_until};

static STAGE: LazyLock<Stage> = LazyLock::new(Stage::set);

fn backup(name: &str, topics: &[&str]) -> Backup {
    Backup::new(&STAGE.directory(name), &STAGE.source.bootstrap(), topics)
}

fn records(count: usize, partitions: i32, label: &str) -> Vec<Record> {
    (0..count)
        .map(|n| {
            Record::new(
                n as i32 % partitions,
                &format!("k{n}"),
                format!("{label} {n} {}", "x".repeat(200)),
            )
        })
        .collect()
}

fn send(topic: &str, config: &[(&str, &str)], records: &[Record]) {
    Told::default().send_with(&STAGE.java, &STAGE.source.bootstrap(), config, topic, records);
}

fn source(topics: &[&str]) -> SourceLog {
    SourceLog::fetch(STAGE.go(), &STAGE.source.bootstrap(), topics)
}

/// The archive is the log, batch by batch, and holds nothing twice.
fn assert_whole(backup: &Backup, topics: &[&str]) {
    let compared = compare(&source(topics), &backup.archived());
    compared.assert_equal();
    assert_eq!(compared.offsets_twice, 0, "{}", compared.figures());
}

/// Transactions, some of them aborted, and the last one still open.
fn transactions(topic: &str, partitions: i32) {
    let producer = format!("of-{topic}");
    let config = ProducerConfig::of(&[("transactional.id", &producer)]);
    STAGE
        .java
        .open_producer(&producer, &STAGE.source.bootstrap(), &config);
    for (n, end) in ["commit", "abort", "commit", "abort"].into_iter().enumerate() {
        STAGE.java.producer_op("begin", &producer);
        STAGE.java.send_all(
            &producer,
            topic,
            &records(30, partitions, &format!("transaction {n}")),
        );
        STAGE.java.producer_op(end, &producer);
    }
    STAGE.java.producer_op("close", &producer);
}

#[test]
fn a_backup_is_the_log_and_a_second_one_adds_nothing() {
    let topics = ["plain", "packed", "settled"];
    STAGE.create_topic("plain", 3);
    STAGE
        .create_topics(&json!([{"name": "packed", "partitions": 1, "configs": {"compression.type": "lz4"}}]));
    STAGE.create_topic("settled", 2);
    send("plain", &[], &records(3_000, 3, "plain"));
    send(
        "packed",
        &[("compression.type", "zstd")],
        &records(2_000, 1, "packed"),
    );
    transactions("settled", 2);
    let backup = backup("whole", &topics);
    let first = backup.run_well(&[]);
    assert_eq!(first.word("outcome"), "complete");
    assert!(
        first.number("records") >= 5_120 && first.number("partitions") == 6,
        "{}",
        first.report
    );
    assert_whole(&backup, &topics);

    let again = backup.run_well(&[]);
    assert_eq!(
        (again.number("segments"), again.number("records")),
        (0, 0),
        "{}",
        again.report
    );

    // What was written since, a partition that was added among it, is all that the next one takes.
    let grow = json!({"op": "add_partitions", "bootstrap": STAGE.source.bootstrap(), "topic": "plain", "partitions": 4});
    STAGE.java.ask(&grow);
    send("plain", &[], &records(400, 4, "later"));
    let next = backup.run_well(&[]);
    assert_eq!(
        (next.number("records"), next.number("partitions")),
        (400, 7),
        "{}",
        next.report
    );
    assert_whole(&backup, &topics);

    // Read-committed out of the archive, as out of the source.
    let expected = STAGE.read_source(&topics, Isolation::Committed);
    let flags: Vec<&str> = topics.iter().flat_map(|topic| ["--topic", *topic]).collect();
    backup.restorer().restore_all(&STAGE.target.bootstrap(), &flags);
    assert_identical(&expected, &STAGE.read_target(&topics));
}

#[test]
fn a_million_records_equal_the_topic_however_often_it_is_killed() {
    STAGE.create_topic("million", 4);
    let count = 1_000_000;
    let producer = ProducerConfig::of(&[
        ("compression.type", "lz4"),
        ("linger.ms", "20"),
        ("batch.size", "131072"),
    ]);
    let settings = json!({"partitions": 4, "limit": count, "value_bytes": 100});
    STAGE.java.start_load(
        "million",
        &STAGE.source.bootstrap(),
        "million",
        &producer,
        settings,
    );
    wait_until("a million records", seconds(120), || {
        STAGE.java.acknowledged("million") >= count
    });
    STAGE.java.stop_load("million", 60);

    let mut backup = backup("million", &["million"]);
    // Slow enough to be killed three times on the way: what is found is committed every few seconds.
    backup
        .set("bytes_per_second", 5 << 18)
        .set("max_concurrent_partitions", 2);
    let mut held = 0;
    for kill in 1..=3 {
        let mut process = backup.launch(&[]);
        // Killed when it has added something, so that there is something to go on from.
        held = wait_for("the next commit", seconds(60), || {
            process.assert_running();
            let now = backup.ledger().ledger.segments().count();
            if now > held {
                Ok(now)
            } else {
                Err(format!("{now} segments"))
            }
        });
        process.kill();
        note(&format!(
            "a million records: killed {kill} times, {held} segments are listed"
        ));
    }
    backup.set("bytes_per_second", 1u64 << 40);
    let last = backup.run_well(&[]);
    assert!(last.number("records") < count, "{}", last.report);
    note(&format!(
        "a million records: the rest took {} s, {} B/s",
        last.report["seconds"], last.report["bytes_per_second"]
    ));
    assert_whole(&backup, &["million"]);
    let total: u64 = backup
        .ledger()
        .ledger
        .segments()
        .map(|segment| segment.record_count)
        .sum();
    assert_eq!(total, count);
}

#[test]
fn a_topic_that_was_recreated_is_another_one() {
    STAGE.create_topic("phoenix", 1);
    send("phoenix", &[], &records(100, 1, "first life"));
    let backup = backup("phoenix", &["phoenix"]);
    backup.run_well(&[]);
    let first_life = source(&["phoenix"]);
    STAGE
        .java
        .ask(&json!({"op": "delete_topic", "bootstrap": STAGE.source.bootstrap(), "topic": "phoenix"}));
    wait_until("the topic to be gone", seconds(30), || {
        let request =
            json!({"op": "describe_topics", "bootstrap": STAGE.source.bootstrap(), "topics": ["phoenix"]});
        STAGE.java.request(&request).is_err()
    });
    STAGE.create_topic("phoenix", 1);
    send("phoenix", &[], &records(60, 1, "second life"));
    let second = backup.run_well(&[]);
    assert_eq!(second.number("records"), 60, "{}", second.report);
    assert_whole(&backup, &["phoenix"]);
    compare(&first_life, &backup.archived()).assert_equal();
}

#[test]
fn a_compacted_topic_is_held_as_it_is_and_the_rest_explained() {
    STAGE.create_topics(
        &json!([{"name": "compacted", "partitions": 1, "configs": {"cleanup.policy": "compact",
        "segment.bytes": "1048576", "min.cleanable.dirty.ratio": "0.01", "max.compaction.lag.ms": "100",
        "delete.retention.ms": "0"}}]),
    );
    // Batches of one record, so that compaction takes whole batches out.
    let one_key = |n: usize| Record::new(0, &format!("k{}", n % 20), format!("{n} {}", "x".repeat(3_000)));
    let written: Vec<Record> = (0..1_200).map(one_key).collect();
    send("compacted", &[("batch.size", "1"), ("linger.ms", "0")], &written);
    let cleaned = wait_for("compaction", seconds(60), || {
        let log = source(&["compacted"]);
        let there = log.0[&("compacted".to_owned(), 0)].batches.len();
        if there < 800 {
            Ok(log)
        } else {
            Err(format!("{there} batches"))
        }
    });
    let backup = backup("compacted", &["compacted"]);
    backup.run_well(&[]);
    let archived = backup.archived();
    assert!(archived.damage.is_empty(), "{:?}", archived.damage);
    let log = &cleaned.0[&("compacted".to_owned(), 0)];
    let state = archived.partition("compacted", &log.topic_id, 0).unwrap();
    let whole = OffsetRange::new(0, log.high_watermark - 1).unwrap();
    assert_eq!(
        state.explained().holes(whole),
        [],
        "every offset is held or explained"
    );
    // What is still there after the backup is in it.
    let segments = archived.segments_of("compacted", &log.topic_id, 0);
    for batch in &source(&["compacted"]).0[&("compacted".to_owned(), 0)].batches {
        let found = segments
            .iter()
            .any(|segment| segment.batches.iter().any(|held| held.is_same(batch)));
        assert!(found, "{batch:?} is not in the archive");
    }
}

#[test]
fn two_at_once_make_one_whole_archive_and_the_first_gives_way() {
    STAGE.create_topic("contended", 2);
    send("contended", &[], &records(20_000, 2, "contended"));
    let mut slow = backup("contended", &["contended"]);
    slow.set("bytes_per_second", 1 << 20);
    let mut first = slow.launch(&[]);
    wait_until("the first backup to take the lease", seconds(30), || {
        slow.archive().join("e2e/auditor.lease").exists()
    });
    let mut quick = slow.clone();
    quick.set("bytes_per_second", 1u64 << 40);
    let second = quick.run_well(&[]);
    assert_eq!(second.word("outcome"), "complete");
    let status = first.wait_exit(seconds(60));
    assert_eq!(status.code(), Some(1), "{}", first.log());
    assert!(first.log().contains("taken over"), "{}", first.log());
    assert_whole(&quick, &["contended"]);
}

#[test]
fn a_ledger_that_cannot_be_read_is_never_taken_for_none_yet() {
    STAGE.create_topic("careful", 1);
    send("careful", &[], &records(50, 1, "careful"));
    let backup = backup("careful", &["careful"]);
    backup.run_well(&[]);
    send("careful", &[], &records(50, 1, "more"));
    let commits = files(&backup.archive().join("e2e/ledger"), "commit");
    let commit = commits.first().unwrap();
    let whole = fs::read(commit).unwrap();
    for damaged in [&whole[..whole.len() / 2], &[]] {
        fs::write(commit, damaged).unwrap();
        let run = backup.run(&[]);
        assert_eq!(run.code, 1, "{}\n{}", run.report, run.stderr);
        assert!(run.stderr.contains("ledger object"), "{}", run.stderr);
        assert_eq!(
            files(&backup.archive().join("e2e/ledger"), "commit"),
            commits,
            "nothing was added"
        );
    }
    fs::write(commit, &whole).unwrap();
    assert_eq!(backup.run_well(&[]).number("records"), 50);
    assert_whole(&backup, &["careful"]);
    for status in ["403 Forbidden", "503 Service Unavailable"] {
        let store = RefusingStore::with(status);
        let directory = STAGE.directory("refused");
        let archive = Archive::S3 {
            endpoint: store.endpoint(),
            prefix: "p".to_owned(),
        };
        let mut refused = Backup::into_archive(&directory, &STAGE.source.bootstrap(), &["careful"], archive);
        refused.document["storage"]["retry"] = json!({"max_retries": 1, "timeout": "2s"});
        let run = refused.run(&[]);
        assert_eq!(run.code, 1, "{status}: {}\n{}", run.report, run.stderr);
        assert!(run.stderr.contains("archive"), "{status}: {}", run.stderr);
    }
}

#[test]
fn topics_that_are_named_and_missing_end_it_at_once_all_of_them_named() {
    STAGE.create_topic("there", 1);
    let backup = backup("missing", &["there", "not-there", "neither", "any-*"]);
    let run = backup.run(&[]);
    assert_eq!(run.code, 2, "{}", run.stderr);
    let named = ["not-there", "neither"]
        .iter()
        .all(|name| run.stderr.contains(name));
    assert!(named && !run.stderr.contains("any-*"), "{}", run.stderr);
    assert!(
        files(&backup.archive().join("e2e"), "commit").is_empty(),
        "nothing was begun"
    );
}

#[test]
fn it_begins_where_it_is_told_and_ends_after_so_many_records() {
    for topic in ["from-offset", "from-time", "from-now", "from-start"] {
        STAGE.create_topic(topic, 1);
        let written: Vec<Record> = (0..100)
            .map(|n| Record::new(0, "k", format!("{n}")).at(1_700_000_000_000 + n * 1_000))
            .collect();
        send(topic, &[("batch.size", "1")], &written);
    }
    let topics = ["from-*"];
    let mut backup = backup("starts", &topics);
    backup.set("start_offset", "latest").set(
        "start_offsets",
        json!({"from-offset": "40", "from-time": "2023-11-14T22:14:20Z", "from-start": "earliest"}),
    );
    backup.run_well(&[]);
    send("from-now", &[], &records(7, 1, "since"));
    backup.run_well(&[]);
    let held = |topic: &str| -> OffsetSet {
        let log = source(&[topic]);
        let (_, partition) = log.0.first_key_value().unwrap();
        let archived = backup.ledger();
        archived.partition(topic, &partition.topic_id, 0).unwrap().held()
    };
    // 2023-11-14T22:14:20Z is 60 seconds after the first record.
    for (topic, first, last) in [
        ("from-offset", 40, 99),
        ("from-time", 60, 99),
        ("from-now", 100, 106),
        ("from-start", 0, 99),
    ] {
        let found = held(topic);
        assert_eq!(
            (found.first(), found.last(), found.ranges().len()),
            (Some(first), Some(last), 1),
            "{topic}"
        );
    }
    // Earlier starts later: what was not wanted is wanted now.
    let topics_there = ["from-offset", "from-time", "from-now", "from-start"];
    let mut cut = backup.clone();
    cut.set("start_offset", "earliest")
        .set("start_offsets", json!({}))
        .set("max_messages", 30);
    let run = cut.run_well(&[]);
    assert_eq!(
        (run.word("outcome"), run.report["max_messages_reached"].as_bool()),
        ("cut", Some(true))
    );
    assert!((30..=40).contains(&run.number("records")), "{}", run.report);
    // What was left out is explained by that, and by nothing else.
    let log = source(&topics_there);
    let ledger = cut.ledger();
    assert_eq!(ledger.first_hole(&log), None);
    let mut reasons = Vec::new();
    for ((topic, number), log) in &log.0 {
        let state = ledger.partition(topic, &log.topic_id, *number).unwrap();
        reasons.extend(state.absences().iter().map(|absence| absence.reason));
    }
    assert!(!reasons.is_empty(), "something was left out");
    assert!(
        reasons.iter().all(|reason| *reason == AbsenceReason::NotWanted),
        "{reasons:?}"
    );
    cut.set("max_messages", 1_000_000);
    let rest = cut.run_well(&[]);
    assert_eq!(
        (
            rest.word("outcome"),
            rest.report["max_messages_reached"].as_bool()
        ),
        ("complete", Some(false))
    );
    assert_whole(&cut, &topics_there);
}

#[test]
fn a_client_over_its_quota_is_slowed_down_and_gets_everything() {
    STAGE.create_topic("rationed", 1);
    let wide: Vec<Record> = (0..4_000)
        .map(|n| Record::new(0, "k", format!("{n} {}", "x".repeat(1_000))))
        .collect();
    send("rationed", &[], &wide);
    let bootstrap = STAGE.source.bootstrap();
    let quota = [
        "--add-config",
        "consumer_byte_rate=262144",
        "--entity-type",
        "clients",
        "--entity-name",
        "rationed",
    ];
    let alter = [
        &["--bootstrap-server", bootstrap.as_str(), "--alter"][..],
        &quota[..],
    ]
    .concat();
    let told = Kafka::tool("kafka.admin.ConfigCommand", &alter);
    assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
    let mut backup = backup("rationed", &["rationed"]);
    backup.document["source"]["client_id"] = "rationed".into();
    let run = backup.run_well(&[]);
    note(&format!(
        "a quota of 256 KiB/s: {} B in {} s",
        run.number("bytes"),
        run.report["seconds"]
    ));
    assert_eq!(run.word("outcome"), "complete");
    assert_whole(&backup, &["rationed"]);
}

#[test]
#[ignore = "a measurement: run it alone, with --ignored"]
fn how_fast_a_backup_is() {
    STAGE.create_topic("fast", 4);
    let producer = ProducerConfig::of(&[("linger.ms", "20"), ("batch.size", "262144")]);
    let settings = json!({"partitions": 4, "limit": 700_000, "shape": "clicks"});
    STAGE
        .java
        .start_load("fast", &STAGE.source.bootstrap(), "fast", &producer, settings);
    wait_until("the records", seconds(180), || {
        STAGE.java.acknowledged("fast") >= 700_000
    });
    STAGE.java.stop_load("fast", 60);
    for (name, at_once) in [("fast-one", 1), ("fast-four", 4)] {
        let mut backup = backup(name, &["fast"]);
        backup.document["backup"] = json!({"topics": ["fast"], "max_concurrent_partitions": at_once});
        let run = backup.run_well(&[]);
        note(&format!("{at_once} partitions at once: {}", run.report));
    }
}

#[test]
fn a_continuous_backup_takes_what_comes_and_what_is_gone_is_explained() {
    STAGE.create_topic("flow-one", 1);
    send("flow-one", &[], &records(500, 1, "before"));
    let mut backup = backup("flow", &["flow-*"]);
    backup.set("continuous", true);
    // What was deleted before anybody looked is said to be.
    STAGE.java.ask(
        &json!({"op": "delete_records", "bootstrap": STAGE.source.bootstrap(), "topic": "flow-one",
        "partition": 0, "offset": 100}),
    );
    let mut process = backup.launch(&[]);
    wait_until("the first records", seconds(30), || {
        backup.ledger().ledger.segments().count() > 0
    });
    STAGE.create_topic("flow-two", 2);
    send("flow-two", &[], &records(300, 2, "new topic"));
    send("flow-one", &[], &records(300, 1, "more"));
    let topics = ["flow-one", "flow-two"];
    let log = source(&topics);
    wait_for("all of it", seconds(30), || {
        match backup.ledger().first_hole(&log) {
            None => Ok(()),
            Some(hole) => Err(hole),
        }
    });
    assert_eq!(process.stop(seconds(30)), 0, "{}", process.log());
    compare(&log, &backup.archived()).assert_equal();
    let log = &log.0[&("flow-one".to_owned(), 0)];
    let ledger = backup.ledger();
    let state = ledger.partition("flow-one", &log.topic_id, 0).unwrap();
    let deleted = state
        .absences()
        .iter()
        .find(|absence| absence.reason == AbsenceReason::Deleted)
        .unwrap();
    assert_eq!((deleted.first_offset, deleted.last_offset), (0, 99));
    assert_eq!(deleted.evidence.log_start_offset, 100);
}
