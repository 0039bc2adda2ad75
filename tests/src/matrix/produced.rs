//! What is in the topics after the clients are done, as another client reads it, and what of it is in the archive.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use serde_json::json;

use crate::archived::Archived;
use crate::comparison::compare;
use crate::driver::{Driver, Isolation, ProducerConfig};
use crate::matrix::cell::{Door, Outcome};
use crate::matrix::feature::{Content, Feature};
use crate::nasty::CODECS;
use crate::read_back::ReadBack;
use crate::record::Record;
use crate::source_log::SourceLog;
use crate::wait::seconds;

/// The topic that every client reads.
pub const COMMON: &str = "matrix-common";
const COMMON_RECORDS: usize = 60;
const RECORDS: usize = 30;
const PARTITIONS: usize = 3;

/// Creates the topic that every client reads and fills it, with every codec in turn.
pub fn prepare_common(java: &Driver, bootstrap: &str) {
    java.create_topics(bootstrap, &json!([{"name": COMMON, "partitions": PARTITIONS}]));
    let each = COMMON_RECORDS / CODECS.len();
    for (number, codec) in CODECS.iter().enumerate() {
        let records: Vec<Record> = (number * each..(number + 1) * each)
            .map(|index| {
                Record::new(
                    partition(index),
                    &format!("key-{index}"),
                    format!("common {index}"),
                )
            })
            .collect();
        java.open_producer(
            "common",
            bootstrap,
            &ProducerConfig::of(&[("compression.type", codec)]),
        );
        java.send_all("common", COMMON, &records);
        java.producer_op("close", "common");
    }
}

/// Creates the topics of a door's features.
pub fn prepare(java: &Driver, bootstrap: &str, door: &Door, features: &[Feature]) {
    let topics: Vec<_> = with_topics(features)
        .map(|feature| json!({"name": door.topic(feature), "partitions": PARTITIONS}))
        .collect();
    java.create_topics(bootstrap, &json!(topics));
}

/// Turns features that say they are done into failed ones where their topics say otherwise.
pub fn check(
    go: &Driver,
    bootstrap: &str,
    door: &Door,
    features: &[Feature],
    outcomes: &mut BTreeMap<&'static str, Outcome>,
) {
    let done: Vec<Feature> = with_topics(features)
        .filter(|feature| matches!(outcomes.get(feature.id), Some(Outcome::Done(_))))
        .collect();
    let started = Instant::now();
    loop {
        let wrong = differences(go, bootstrap, door, &done);
        // What was sent without waiting for an answer may come a moment later.
        if wrong.is_empty() {
            return;
        }
        if started.elapsed() > seconds(10) {
            for (feature, what) in wrong {
                outcomes.insert(feature.id, Outcome::Failed(what));
            }
            return;
        }
    }
}

fn differences(go: &Driver, bootstrap: &str, door: &Door, features: &[Feature]) -> Vec<(Feature, String)> {
    let topics: Vec<String> = features.iter().map(|feature| door.topic(*feature)).collect();
    let names: Vec<&str> = topics.iter().map(String::as_str).collect();
    if names.is_empty() {
        return Vec::new();
    }
    let read = ReadBack::load(&go.read_into(bootstrap, &names, Isolation::Committed, false));
    features
        .iter()
        .zip(&topics)
        .filter_map(|(feature, topic)| Some((*feature, difference(&read, *feature, topic)?)))
        .collect()
}

fn difference(read: &ReadBack, feature: Feature, topic: &str) -> Option<String> {
    let found = |number: usize| {
        let records = read.partition(topic, i32::try_from(number).expect("a small number"));
        records.iter().map(|record| record.digest).collect::<Vec<u64>>()
    };
    let wanted = match feature.topic? {
        Content::Any => return None,
        Content::Count(count) => {
            let sum: usize = (0..PARTITIONS).map(|number| found(number).len()).sum();
            return (sum != count).then(|| format!("{count} records expected in the topic, {sum} found"));
        }
        Content::Records => expected(feature, |_| true),
        Content::Committed => expected(feature, |index| !(10..20).contains(&index)),
    };
    let wrong = (0..PARTITIONS).find(|number| found(*number) != wanted[*number])?;
    Some(format!(
        "partition {wrong} of the topic has {} records, other than the {} that were sent",
        found(wrong).len(),
        wanted[wrong].len()
    ))
}

/// The digests of what the contract has programs send, by partition.
fn expected(feature: Feature, wanted: impl Fn(usize) -> bool) -> Vec<Vec<u64>> {
    let mut digests = vec![Vec::new(); PARTITIONS];
    for index in (0..RECORDS).filter(|index| wanted(*index)) {
        let value = format!("{} {index} {}", feature.id, "x".repeat(200));
        let record = Record::new(partition(index), &format!("key-{index}"), value);
        let record = record.header("n", Some(index.to_string().as_bytes()));
        digests[index % PARTITIONS].push(record.digest());
    }
    digests
}

/// Compares what was produced through the proxy with what the archive holds of it, batch by batch. What differs, or
/// how many batches are the same.
pub fn captured(go: &Driver, bootstrap: &str, topics: &[String], archive: &Path) -> Result<u64, String> {
    let names: Vec<&str> = topics.iter().map(String::as_str).collect();
    let source = SourceLog::fetch(go, bootstrap, &names);
    let compared = compare(&source, &Archived::read(archive, "e2e"));
    if compared.is_equal() {
        Ok(compared.batches)
    } else {
        Err(compared.wrongs())
    }
}

/// Features with topics of their own.
pub fn with_topics(features: &[Feature]) -> impl Iterator<Item = Feature> {
    features.iter().copied().filter(|feature| feature.topic.is_some())
}

fn partition(index: usize) -> i32 {
    i32::try_from(index % PARTITIONS).expect("a small number")
}
