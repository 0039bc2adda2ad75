//! Nothing proprietary in the bucket: a segment, decompressed by the stock decoder, is a log that Kafka itself dumps.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a test stops at the first surprise"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use serde_json::json;
use teeline_tests::driver::{Isolation, ProducerConfig};
use teeline_tests::kafka::Kafka;
use teeline_tests::nasty::{CODECS, odd_records};
use teeline_tests::record::Record;
use teeline_tests::stage::{Stage, Told};

static STAGE: LazyLock<Stage> = LazyLock::new(Stage::set);

#[test]
fn a_zstd_segment_is_a_kafka_log() {
    check("zstd", "zst");
}

#[test]
fn an_lz4_segment_is_a_kafka_log() {
    check("lz4", "lz4");
}

#[test]
fn an_uncompressed_segment_is_a_kafka_log() {
    check("none", "log");
}

fn check(codec: &str, extension: &str) {
    let topic = format!("open-{codec}");
    let mut settings = STAGE.proxy(&topic);
    settings.document["segmenter"]["compression"] = json!(codec);
    settings.document["segmenter"]["block_bytes"] = json!(65_536);
    let mut proxy = settings.start();
    STAGE.create_topic(&topic, 1);
    let mut told = Told::default();
    for codec in CODECS {
        told.send_with(
            &STAGE.java,
            &settings.bootstrap(),
            &[("compression.type", codec)],
            &topic,
            &odd_records(1, codec),
        );
    }
    let java = &STAGE.java;
    java.open_producer(
        &topic,
        &settings.bootstrap(),
        &ProducerConfig::of(&[("transactional.id", &topic)]),
    );
    for end in ["commit", "abort"] {
        java.producer_op("begin", &topic);
        java.send_all(&topic, &topic, &[Record::new(0, "in a transaction", end)]);
        java.producer_op(end, &topic);
    }
    java.producer_op("close", &topic);
    // After the transactions, so that their markers lie inside of what was captured; and several blocks long.
    let many: Vec<Record> = (0..2_000)
        .map(|index| Record::new(0, &format!("{index}"), vec![b'v'; 200]))
        .collect();
    told.send_with(&STAGE.java, &settings.bootstrap(), &[], &topic, &many);
    proxy.stop();

    let partition = STAGE
        .directory(&topic)
        .join("archive/e2e/topics")
        .join(&topic)
        .join("partition=0");
    let mut segments: Vec<PathBuf> = fs::read_dir(&partition)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    segments.retain(|path| path.extension().is_some_and(|found| found == extension));
    assert!(!segments.is_empty(), "no segments in {}", partition.display());
    let dumped: usize = segments
        .iter()
        .map(|segment| dump(segment, codec, &STAGE.directory(&format!("{topic}-logs"))))
        .sum();
    // Two control records and one aborted record lie in the log too.
    let source = STAGE.read_source(&[&topic], Isolation::Uncommitted);
    assert_eq!(
        dumped,
        source.count() + 2,
        "Kafka sees every record of the log in the segments"
    );
}

/// How many records Kafka's own tool finds in a segment; it must find every batch valid.
fn dump(segment: &Path, codec: &str, into: &Path) -> usize {
    let name = segment.file_name().unwrap().to_str().unwrap();
    let first_offset = name
        .split('-')
        .nth(2)
        .expect("segment-<incarnation>-<first offset>-…");
    let log = into.join(format!("{first_offset}.log"));
    decompress(segment, codec, &log);
    let output = Kafka::tool(
        "org.apache.kafka.tools.DumpLogSegments",
        &["--deep-iteration", "--files", log.to_str().unwrap()],
    );
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let batches: Vec<&str> = text
        .lines()
        .filter(|line| line.starts_with("baseOffset:"))
        .collect();
    assert!(
        !batches.is_empty() && batches.iter().all(|line| line.contains("isvalid: true")),
        "{text}"
    );
    assert!(
        batches[0].starts_with(&format!("baseOffset: {} ", first_offset.parse::<i64>().unwrap())),
        "{}",
        batches[0]
    );
    text.lines().filter(|line| line.starts_with("| offset:")).count()
}

/// With the codec's own reference library, which Kafka brings along, and with the stock tool where it is installed.
fn decompress(segment: &Path, codec: &str, log: &Path) {
    STAGE
        .java
        .ask(&json!({"op": "decompress", "codec": codec, "from": segment, "to": log}));
    let by_library = fs::read(log).unwrap();
    if codec == "none" || Command::new(codec).arg("--version").output().is_err() {
        return;
    }
    let output = Command::new(codec)
        .args(["-d", "-c"])
        .arg(segment)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(
        output.stdout == by_library,
        "the stock {codec} tool reads something else than the library"
    );
}
