//! Features of the client matrix with the rdkafka crate; see the README beside the client programs.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a program of the tests: what fails is an answer"
)]

use std::collections::BTreeSet;
use std::env;
use std::error::Error;
use std::time::{Duration, Instant};

use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, NewPartitions, NewTopic, ResourceSpecifier, TopicReplication,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::message::{Header, Message, OwnedHeaders};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use serde_json::{Value, json};

const RECORDS: i32 = 30;
const COMMON_RECORDS: usize = 60;
const COMMON: &str = "matrix-common";
const PARTITIONS: i32 = 3;
const PATIENCE: Duration = Duration::from_secs(20);
const UNSUPPORTED: &str = "the client has no such thing";

type Saw = Result<Value, Box<dyn Error>>;
type Sender = ThreadedProducer<DefaultProducerContext>;

/// What the program was started with.
struct Run {
    bootstrap: String,
    prefix: String,
    security: Value,
}

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let run = Run {
        bootstrap: arguments[0].clone(),
        prefix: arguments[1].clone(),
        security: serde_json::from_str(&arguments[2]).unwrap(),
    };
    for feature in &arguments[3..] {
        let answer = match run.feature(feature) {
            Ok(saw) => json!({"feature": feature, "outcome": "ok", "saw": saw}),
            Err(error) if error.to_string() == UNSUPPORTED => {
                json!({"feature": feature, "outcome": "unsupported", "error": UNSUPPORTED})
            }
            Err(error) => json!({"feature": feature, "outcome": "failed", "error": error.to_string()}),
        };
        println!("{answer}");
    }
}

impl Run {
    fn feature(&self, feature: &str) -> Saw {
        match feature {
            "acks-0" | "acks-1" | "acks-all" => self.produce(feature, &[("acks", &feature[5..])]),
            "gzip" | "snappy" | "lz4" | "zstd" => self.produce(feature, &[("compression.type", feature)]),
            "idempotent" => self.produce(feature, &[("enable.idempotence", "true")]),
            "transactions" => self.transactions(),
            "exactly-once" => self.exactly_once(),
            "consume" => self.consume(),
            "offsets" => self.offsets(),
            "group-classic" => self.group(feature, "classic"),
            "group-next-gen" => self.group(feature, "consumer"),
            "topics" => self.topics(),
            "configs" => self.configs(),
            "delete-records" => self.delete_records(),
            "cluster" => self.cluster(),
            _ => Err(UNSUPPORTED.into()),
        }
    }

    fn config(&self, more: &[(&str, &str)]) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.bootstrap);
        for (ours, theirs) in [
            ("protocol", "security.protocol"),
            ("mechanism", "sasl.mechanism"),
            ("username", "sasl.username"),
            ("password", "sasl.password"),
            ("ca", "ssl.ca.location"),
        ] {
            if let Some(value) = self.security[ours].as_str() {
                config.set(theirs, value);
            }
        }
        for (name, value) in more {
            config.set(*name, *value);
        }
        config
    }

    fn topic(&self, feature: &str) -> String {
        format!("{}-{feature}", self.prefix)
    }

    fn produce(&self, feature: &str, settings: &[(&str, &str)]) -> Saw {
        let producer: Sender = self.config(settings).set("linger.ms", "20").create()?;
        self.send(&producer, feature, 0..RECORDS)?;
        Ok(json!({"sent": RECORDS}))
    }

    fn send(
        &self,
        producer: &Sender,
        feature: &str,
        indexes: std::ops::Range<i32>,
    ) -> Result<(), Box<dyn Error>> {
        let topic = self.topic(feature);
        for index in indexes {
            let (key, number) = (format!("key-{index}"), index.to_string());
            let value = format!("{feature} {index} {}", "x".repeat(200));
            let header = Header {
                key: "n",
                value: Some(&number),
            };
            let record = BaseRecord::to(&topic)
                .partition(index % PARTITIONS)
                .key(&key)
                .payload(&value)
                .headers(OwnedHeaders::new().insert(header));
            producer.send(record).map_err(|(error, _)| error)?;
        }
        Ok(producer.flush(PATIENCE)?)
    }

    fn transactions(&self) -> Saw {
        let id = self.topic("transactions");
        let producer: Sender = self.config(&[("transactional.id", &id)]).create()?;
        producer.init_transactions(PATIENCE)?;
        for round in 0..3 {
            producer.begin_transaction()?;
            self.send(&producer, "transactions", round * 10..round * 10 + 10)?;
            if round == 1 {
                producer.abort_transaction(PATIENCE)?;
            } else {
                producer.commit_transaction(PATIENCE)?;
            }
        }
        Ok(json!({"committed": 20}))
    }

    fn consumer(&self, group: &str, more: &[(&str, &str)]) -> Result<BaseConsumer, Box<dyn Error>> {
        let mut config = self.config(more);
        config
            .set("group.id", group)
            .set("auto.offset.reset", "earliest")
            .set("enable.auto.commit", "false");
        Ok(config.create()?)
    }

    fn exactly_once(&self) -> Saw {
        let name = self.topic("exactly-once");
        let producer: Sender = self.config(&[("transactional.id", &name)]).create()?;
        producer.init_transactions(PATIENCE)?;
        let consumer = self.consumer(&name, &[])?;
        consumer.subscribe(&[COMMON])?;
        let mut copied = 0;
        let end = Instant::now() + PATIENCE;
        while copied < COMMON_RECORDS && Instant::now() < end {
            let Some(message) = consumer.poll(Duration::from_millis(300)).transpose()? else {
                continue;
            };
            producer.begin_transaction()?;
            let record = BaseRecord::to(&name)
                .key(message.key().unwrap())
                .payload(message.payload().unwrap());
            producer.send(record).map_err(|(error, _)| error)?;
            let metadata = consumer.group_metadata().ok_or("not in a group")?;
            producer.send_offsets_to_transaction(&consumer.position()?, &metadata, PATIENCE)?;
            producer.commit_transaction(PATIENCE)?;
            copied += 1;
        }
        // The markers that make offsets count are written after the transaction's end was answered.
        let (end, mut committed) = (Instant::now() + PATIENCE, 0);
        while committed < COMMON_RECORDS as i64 && Instant::now() < end {
            committed = self.committed(&name)?;
        }
        Ok(json!({"copied": copied, "committed": committed}))
    }

    fn consume(&self) -> Saw {
        let consumer = self.consumer(&self.topic("reader"), &[])?;
        let mut from = TopicPartitionList::new();
        for partition in 0..PARTITIONS {
            from.add_partition_offset(COMMON, partition, Offset::Beginning)?;
        }
        consumer.assign(&from)?;
        Ok(json!({"records": read(&consumer)?}))
    }

    fn group(&self, feature: &str, protocol: &str) -> Saw {
        let name = self.topic(feature);
        let consumer = self.consumer(&name, &[("group.protocol", protocol)])?;
        consumer.subscribe(&[COMMON])?;
        let records = read(&consumer)?;
        consumer.commit_consumer_state(CommitMode::Sync)?;
        drop(consumer);
        Ok(json!({"records": records, "committed": self.committed(&name)?}))
    }

    fn committed(&self, group: &str) -> Result<i64, Box<dyn Error>> {
        let mut asked = TopicPartitionList::new();
        asked.add_partition_range(COMMON, 0, PARTITIONS - 1);
        let found = self.consumer(group, &[])?.committed_offsets(asked, PATIENCE)?;
        Ok(found
            .elements()
            .iter()
            .filter_map(|each| each.offset().to_raw())
            .map(|offset| offset.max(0))
            .sum())
    }

    fn offsets(&self) -> Saw {
        let consumer = self.consumer(&self.topic("reader"), &[])?;
        let mut ends = Vec::new();
        for partition in 0..PARTITIONS {
            ends.push(consumer.fetch_watermarks(COMMON, partition, PATIENCE)?);
        }
        let mut times = TopicPartitionList::new();
        for partition in 0..PARTITIONS {
            times.add_partition_offset(COMMON, partition, Offset::Offset(1))?;
        }
        let found = consumer.offsets_for_times(times, PATIENCE)?;
        let at_time: Vec<_> = found
            .elements()
            .iter()
            .filter_map(|each| each.offset().to_raw())
            .collect();
        let (earliest, latest): (Vec<_>, Vec<_>) = ends.into_iter().unzip();
        Ok(json!({"earliest": earliest, "latest": latest, "at_time": at_time}))
    }

    fn topics(&self) -> Saw {
        let (admin, options, topic) = (self.admin()?, AdminOptions::new(), self.topic("made"));
        let new = NewTopic::new(&topic, 2, TopicReplication::Fixed(1));
        settled(waited(admin.create_topics(&[new], &options))??)?;
        let before = self.partitions(&topic, 2)?;
        settled(waited(
            admin.create_partitions(&[NewPartitions::new(&topic, 4)], &options),
        )??)?;
        let after = self.partitions(&topic, 4)?;
        settled(waited(admin.delete_topics(&[&topic], &options))??)?;
        Ok(json!({"before": before, "after": after, "gone": self.partitions(&topic, 0)? == 0}))
    }

    fn partitions(&self, topic: &str, wanted: usize) -> Result<usize, Box<dyn Error>> {
        let consumer = self.consumer("none", &[])?;
        let end = Instant::now() + PATIENCE;
        loop {
            let all = consumer.fetch_metadata(None, PATIENCE)?;
            let found = all
                .topics()
                .iter()
                .find(|each| each.name() == topic)
                .map_or(0, |each| each.partitions().len());
            if found == wanted || Instant::now() > end {
                return Ok(found);
            }
        }
    }

    fn configs(&self) -> Saw {
        let (admin, options, topic) = (self.admin()?, AdminOptions::new(), self.topic("configs"));
        let alter = AlterConfig::new(ResourceSpecifier::Topic(&topic)).set("retention.ms", "123456789");
        for answer in waited(admin.alter_configs(&[alter], &options))?? {
            answer.map_err(|(_, code)| code.to_string())?;
        }
        let end = Instant::now() + PATIENCE;
        let mut retention = None;
        while retention.as_deref() != Some("123456789") && Instant::now() < end {
            retention = described(&admin, ResourceSpecifier::Topic(&topic), "retention.ms")?;
        }
        let broker = described(&admin, ResourceSpecifier::Broker(1), "num.io.threads")?;
        Ok(json!({"retention": retention, "broker": broker}))
    }

    fn delete_records(&self) -> Saw {
        let topic = self.topic("delete-records");
        self.produce("delete-records", &[])?;
        let mut before = TopicPartitionList::new();
        before.add_partition_offset(&topic, 0, Offset::Offset(4))?;
        waited(self.admin()?.delete_records(&before, &AdminOptions::new()))??;
        let (low, _) = self
            .consumer("none", &[])?
            .fetch_watermarks(&topic, 0, PATIENCE)?;
        Ok(json!({"low": low}))
    }

    fn cluster(&self) -> Saw {
        let consumer = self.consumer("none", &[])?;
        let nodes: BTreeSet<i32> = consumer
            .fetch_metadata(None, PATIENCE)?
            .brokers()
            .iter()
            .map(|each| each.id())
            .collect();
        Ok(json!({"cluster": consumer.client().fetch_cluster_id(PATIENCE), "nodes": nodes}))
    }

    fn admin(&self) -> Result<AdminClient<DefaultClientContext>, Box<dyn Error>> {
        Ok(self.config(&[]).create()?)
    }
}

fn described(
    admin: &AdminClient<DefaultClientContext>,
    resource: ResourceSpecifier<'_>,
    name: &str,
) -> Result<Option<String>, Box<dyn Error>> {
    let answers = waited(admin.describe_configs(&[resource], &AdminOptions::new()))??;
    let resource = answers
        .into_iter()
        .next()
        .ok_or("no answer")?
        .map_err(|code| code.to_string())?;
    Ok(resource.get(name).and_then(|entry| entry.value.clone()))
}

/// How many different records of the common topic a consumer reads.
fn read(consumer: &BaseConsumer) -> Result<usize, Box<dyn Error>> {
    let mut seen = BTreeSet::new();
    let end = Instant::now() + PATIENCE;
    while seen.len() < COMMON_RECORDS && Instant::now() < end {
        if let Some(message) = consumer.poll(Duration::from_millis(300)).transpose()? {
            seen.insert((message.partition(), message.offset()));
        }
    }
    Ok(seen.len())
}

fn settled(answers: Vec<rdkafka::admin::TopicResult>) -> Result<(), Box<dyn Error>> {
    for answer in answers {
        answer.map_err(|(_, code)| code.to_string())?;
    }
    Ok(())
}

fn waited<T>(future: impl Future<Output = T>) -> Result<T, Box<dyn Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    Ok(runtime.block_on(future))
}
