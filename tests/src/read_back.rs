//! What a consumer read from a cluster, and comparing two such readings record by record.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;

use crate::record::{Header, Sent};

/// One record as a consumer saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadRecord {
    /// Its offset.
    pub offset: i64,
    /// Its timestamp.
    pub timestamp: i64,
    /// Whether the timestamp was set by the broker.
    pub log_append_time: bool,
    /// The digest of key, value and headers.
    pub digest: u64,
    /// Everything, where it was asked for.
    pub content: Option<Content>,
}

/// Key, value and headers in full.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    /// The key or null.
    pub key: Option<Vec<u8>>,
    /// The value or null.
    pub value: Option<Vec<u8>>,
    /// In order.
    pub headers: Vec<Header>,
}

/// Everything that was read: by topic and partition, in the order of offsets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReadBack(pub BTreeMap<(String, i32), Vec<ReadRecord>>);

impl ReadBack {
    /// Parses the file a client program wrote.
    pub fn load(path: &Path) -> Self {
        let text =
            fs::read_to_string(path).unwrap_or_else(|error| panic!("read {}: {error}", path.display()));
        let mut all: BTreeMap<(String, i32), Vec<ReadRecord>> = BTreeMap::new();
        for line in text.lines() {
            let (topic, partition, record) = parse(line);
            all.entry((topic, partition)).or_default().push(record);
        }
        for (partition, records) in &all {
            assert!(
                records.is_sorted_by(|a, b| a.offset < b.offset),
                "a consumer read {partition:?} out of order"
            );
        }
        Self(all)
    }

    /// How many records there are in all.
    pub fn count(&self) -> usize {
        self.0.values().map(Vec::len).sum()
    }

    /// One partition's records.
    pub fn partition(&self, topic: &str, partition: i32) -> &[ReadRecord] {
        self.0
            .get(&(topic.to_owned(), partition))
            .map_or(&[], Vec::as_slice)
    }

    /// The same records under another topic's name.
    pub fn renamed(mut self, from: &str, to: &str) -> Self {
        let renamed = std::mem::take(&mut self.0)
            .into_iter()
            .map(|((topic, partition), records)| {
                let topic = if topic == from { to.to_owned() } else { topic };
                ((topic, partition), records)
            });
        Self(renamed.collect())
    }

    /// Only the records with timestamps in `[from, to)`.
    pub fn within(mut self, from: i64, to: i64) -> Self {
        for records in self.0.values_mut() {
            records.retain(|record| (from..to).contains(&record.timestamp));
        }
        self.0.retain(|_, records| !records.is_empty());
        self
    }
}

/// The first few differences between what should be there and what is; empty when both are identical record by
/// record: order, content and timestamp. Offsets may differ, since a restore does not keep them yet.
pub fn differences(expected: &ReadBack, found: &ReadBack) -> Vec<String> {
    const SHOWN: usize = 8;
    let mut list = Vec::new();
    let keys: std::collections::BTreeSet<_> = expected.0.keys().chain(found.0.keys()).collect();
    for (topic, partition) in keys {
        let (want, have) = (
            expected.partition(topic, *partition),
            found.partition(topic, *partition),
        );
        if want.len() != have.len() {
            list.push(format!(
                "{topic}/{partition}: {} records expected, {} found",
                want.len(),
                have.len()
            ));
        }
        let unequal = want.iter().zip(have).filter(|(a, b)| !same(a, b));
        list.extend(
            unequal
                .take(SHOWN)
                .map(|(a, b)| format!("{topic}/{partition}: expected {a:?}, found {b:?}")),
        );
    }
    list.truncate(SHOWN);
    list
}

fn same(a: &ReadRecord, b: &ReadRecord) -> bool {
    a.timestamp == b.timestamp && a.digest == b.digest && a.content == b.content
}

/// Panics with the first differences, if there are any.
pub fn assert_identical(expected: &ReadBack, found: &ReadBack) {
    let found = differences(expected, found);
    assert!(found.is_empty(), "not identical:\n{}", clipped(&found.join("\n")));
}

/// Checks that each acknowledged record stands in `source` at the offset its producer was told.
pub fn assert_acknowledged(source: &ReadBack, topic: &str, sent: &[Sent]) {
    use crate::record::Fate;
    let mut missing = Vec::new();
    for each in sent
        .iter()
        .filter(|each| each.fate == Fate::Acknowledged && each.ack.offset >= 0)
    {
        let records = source.partition(topic, each.ack.partition);
        let at = records.binary_search_by_key(&each.ack.offset, |record| record.offset);
        if !at.is_ok_and(|index| records[index].digest == each.digest) {
            missing.push(each);
        }
    }
    assert!(
        missing.is_empty(),
        "{} acknowledged records of {topic} are not in the source: {:?}",
        missing.len(),
        missing.first()
    );
}

fn clipped(text: &str) -> &str {
    const LIMIT: usize = 6_000;
    let end = text
        .char_indices()
        .map(|(index, _)| index)
        .find(|index| *index >= LIMIT)
        .unwrap_or(text.len());
    &text[..end]
}

fn parse(line: &str) -> (String, i32, ReadRecord) {
    let fields: Vec<&str> = line.split('\t').collect();
    let number = |index: usize| {
        fields[index]
            .parse::<i64>()
            .unwrap_or_else(|_| panic!("a number in {line:?}"))
    };
    let content = (fields.len() > 6).then(|| Content {
        key: bytes(fields[6]),
        value: bytes(fields[7]),
        headers: fields[8]
            .split(',')
            .filter(|pair| !pair.is_empty())
            .map(header)
            .collect(),
    });
    let record = ReadRecord {
        offset: number(2),
        timestamp: number(3),
        log_append_time: fields[4] == "L",
        digest: u64::from_str_radix(fields[5], 16).expect("a digest"),
        content,
    };
    (
        fields[0].to_owned(),
        i32::try_from(number(1)).expect("a partition"),
        record,
    )
}

fn header(pair: &str) -> Header {
    let (name, value) = pair.split_once(':').expect("name:value");
    (bytes(name).expect("a header's name is never null"), bytes(value))
}

/// `-` is null, `=` stands before base64.
fn bytes(text: &str) -> Option<Vec<u8>> {
    text.strip_prefix('=')
        .map(|text| BASE64.decode(text).expect("base64 from a client program"))
}
