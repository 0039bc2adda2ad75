//! What most tests need: a source and a target cluster, client programs, and the steps of a round trip.

use std::path::PathBuf;
use std::sync::OnceLock;

use serde_json::{Value, json};

use crate::driver::{Driver, Family, Isolation, ProducerConfig};
use crate::kafka::Kafka;
use crate::programs::{Archive, ProxySettings, Restorer};
use crate::read_back::{ReadBack, assert_acknowledged, assert_identical};
use crate::record::{Ack, Fate, Record, Sent};
use crate::workdir::WorkDir;

/// Two clusters and the clients. One per test binary: starting Kafka is what costs time.
#[derive(Debug)]
pub struct Stage {
    /// Where producers write, through a proxy.
    pub source: Kafka,
    /// Where restores go.
    pub target: Kafka,
    /// The Java client.
    pub java: Driver,
    go: OnceLock<Driver>,
    work: WorkDir,
}

impl Stage {
    /// Starts both clusters, one node each, and the Java client.
    pub fn set() -> Self {
        Self::with_source(Kafka::start_one)
    }

    /// The same with another kind of source.
    pub fn with_source(source: impl FnOnce() -> Kafka + Send) -> Self {
        // Both at once: they wait more than they compute.
        let (source, target) = std::thread::scope(|scope| {
            let source = scope.spawn(source);
            let target = Kafka::start_one();
            (source.join().expect("start the source cluster"), target)
        });
        Self {
            source,
            target,
            java: Driver::start(Family::Java),
            go: OnceLock::new(),
            work: WorkDir::create("stage"),
        }
    }

    /// The franz-go client, started when first needed.
    pub fn go(&self) -> &Driver {
        self.go.get_or_init(|| Driver::start(Family::Go))
    }

    /// A directory of its own for a test.
    pub fn directory(&self, name: &str) -> PathBuf {
        self.work.subdirectory(name)
    }

    /// A proxy's settings before the source, with an archive in a directory.
    pub fn proxy(&self, name: &str) -> ProxySettings {
        let directory = self.directory(name);
        let archive = Archive::Directory(directory.join("archive"));
        ProxySettings::new(&directory, &self.source.bootstrap(), &archive)
    }

    /// Creates topics on the source itself, past every proxy.
    pub fn create_topics(&self, topics: &Value) {
        self.java.create_topics(&self.source.bootstrap(), topics);
    }

    /// Creates one topic with default settings.
    pub fn create_topic(&self, name: &str, partitions: u32) {
        self.create_topics(&json!([{"name": name, "partitions": partitions}]));
    }

    /// Reads topics from the source itself. franz-go reads, because it alone shows every byte of header names.
    pub fn read_source(&self, topics: &[&str], isolation: Isolation) -> ReadBack {
        ReadBack::load(
            &self
                .go()
                .read_into(&self.source.bootstrap(), topics, isolation, true),
        )
    }

    /// Reads topics from the target, everything that is there.
    pub fn read_target(&self, topics: &[&str]) -> ReadBack {
        ReadBack::load(
            &self
                .go()
                .read_into(&self.target.bootstrap(), topics, Isolation::Uncommitted, true),
        )
    }

    /// Restores `topics` into the target and compares with what is committed in the source, record by record.
    pub fn assert_round_trip(&self, settings: &ProxySettings, topics: &[&str]) -> ReadBack {
        let source = self.read_source(topics, Isolation::Committed);
        self.restore(settings, topics, &[]);
        assert_identical(&source, &self.read_target(topics));
        source
    }

    /// Restores `topics` into the target, with more flags.
    pub fn restore(&self, settings: &ProxySettings, topics: &[&str], flags: &[&str]) {
        let mut arguments: Vec<&str> = topics.iter().flat_map(|topic| ["--topic", *topic]).collect();
        arguments.extend(flags);
        Restorer::for_archive_of(settings).restore_all(&self.target.bootstrap(), &arguments);
    }
}

/// What producers were told, collected while a test sends.
#[derive(Debug, Default)]
pub struct Told(Vec<(String, Sent)>);

impl Told {
    /// Sends records with a producer that is open, every one of which must be acknowledged, and notes the answers.
    pub fn send(&mut self, driver: &Driver, producer: &str, topic: &str, records: &[Record]) -> Vec<Ack> {
        let acks = driver.send_all(producer, topic, records);
        for (record, ack) in records.iter().zip(&acks) {
            let sent = Sent {
                fate: Fate::Acknowledged,
                ack: *ack,
                sequence: 0,
                digest: record.digest(),
            };
            self.0.push((topic.to_owned(), sent));
        }
        acks
    }

    /// Opens a producer, sends, closes.
    pub fn send_with(
        &mut self,
        driver: &Driver,
        bootstrap: &str,
        config: &[(&str, &str)],
        topic: &str,
        records: &[Record],
    ) {
        // A driver is shared by the tests of a binary, which run side by side.
        let producer = format!("once-{:016x}", rand::random::<u64>());
        driver.open_producer(&producer, bootstrap, &ProducerConfig::of(config));
        self.send(driver, &producer, topic, records);
        driver.producer_op("close", &producer);
    }

    /// Checks every acknowledgement against a direct read of the source.
    pub fn assert_in(&self, source: &ReadBack) {
        for (topic, sent) in &self.0 {
            assert_acknowledged(source, topic, std::slice::from_ref(sent));
        }
    }

    /// How many records were acknowledged.
    pub fn count(&self) -> usize {
        self.0.len()
    }
}
