//! librdkafka as producer and consumer, through the rdkafka crate.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use rdkafka::TopicPartitionList;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, DeliveryResult, Header, Headers, Message, OwnedHeaders, Timestamp};
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};
use rdkafka::{ClientContext, Offset};
use teeline_tests::read_back::{Content, ReadBack, ReadRecord};
use teeline_tests::record::{Ack, Record};

const LIMIT: Duration = Duration::from_secs(60);

/// Remembers what became of each record, by its number.
#[derive(Default)]
struct Answers(Mutex<HashMap<usize, Result<Ack, String>>>);

impl ClientContext for Answers {}

impl ProducerContext for Answers {
    type DeliveryOpaque = Box<usize>;

    fn delivery(&self, result: &DeliveryResult<'_>, index: Self::DeliveryOpaque) {
        let answer = match result {
            Ok(message) => Ok(Ack {
                partition: message.partition(),
                offset: message.offset(),
                timestamp: message.timestamp().to_millis().unwrap_or(-1),
            }),
            Err((error, _)) => Err(error.to_string()),
        };
        self.0.lock().unwrap().insert(*index, answer);
    }
}

/// Sends records and waits for the answer to each.
pub(crate) fn produce(
    bootstrap: &str,
    settings: &[(&str, &str)],
    topic: &str,
    records: &[Record],
) -> Vec<Result<Ack, String>> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", bootstrap);
    for (key, value) in settings {
        config.set(*key, *value);
    }
    let producer: ThreadedProducer<Answers> = config.create_with_context(Answers::default()).unwrap();
    let transactional = settings.iter().any(|(key, _)| *key == "transactional.id");
    if transactional {
        producer.init_transactions(LIMIT).unwrap();
        producer.begin_transaction().unwrap();
    }
    for (index, record) in records.iter().enumerate() {
        let mut sending: BaseRecord<'_, [u8], [u8], Box<usize>> =
            BaseRecord::with_opaque_to(topic, Box::new(index))
                .partition(record.partition)
                .headers(headers(record));
        sending.key = record.key.as_deref();
        sending.payload = record.value.as_deref();
        sending.timestamp = record.timestamp;
        producer.send(sending).map_err(|(error, _)| error).unwrap();
    }
    producer.flush(LIMIT).unwrap();
    if transactional {
        producer.commit_transaction(LIMIT).unwrap();
    }
    let mut answers = producer.context().0.lock().unwrap();
    (0..records.len())
        .map(|index| answers.remove(&index).expect("flushed, so answered"))
        .collect()
}

fn headers(record: &Record) -> OwnedHeaders {
    record
        .headers
        .iter()
        .fold(OwnedHeaders::new(), |headers, (name, value)| {
            headers.insert(Header {
                key: std::str::from_utf8(name).expect("this crate takes text"),
                value: value.as_ref(),
            })
        })
}

/// Reads partitions `0..partitions` of a topic from the beginning to the end they have now.
pub(crate) fn consume(bootstrap: &str, topic: &str, partitions: i32) -> ReadBack {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", bootstrap)
        .set("group.id", "unused")
        .set("enable.auto.commit", "false");
    config
        .set("isolation.level", "read_committed")
        .set("enable.partition.eof", "true");
    let consumer: BaseConsumer = config.create().unwrap();
    let mut assignment = TopicPartitionList::new();
    for partition in 0..partitions {
        assignment
            .add_partition_offset(topic, partition, Offset::Beginning)
            .unwrap();
    }
    consumer.assign(&assignment).unwrap();
    let started = Instant::now();
    let mut read = ReadBack::default();
    let mut ended = 0;
    while ended < partitions {
        assert!(
            started.elapsed() < LIMIT,
            "librdkafka did not read {topic} to its end in time"
        );
        match consumer.poll(Duration::from_millis(200)) {
            None => {}
            Some(Ok(message)) => {
                read.0
                    .entry((topic.to_owned(), message.partition()))
                    .or_default()
                    .push(seen(&message));
            }
            Some(Err(KafkaError::PartitionEOF(_))) => ended += 1,
            Some(Err(error)) => panic!("librdkafka: {error}"),
        }
    }
    read
}

fn seen(message: &BorrowedMessage<'_>) -> ReadRecord {
    let headers = message.headers().map_or_else(Vec::new, |headers| {
        headers
            .iter()
            .map(|header| (header.key.as_bytes().to_vec(), header.value.map(<[u8]>::to_vec)))
            .collect()
    });
    let (key, value) = (
        message.key().map(<[u8]>::to_vec),
        message.payload().map(<[u8]>::to_vec),
    );
    let record = Record {
        key: key.clone(),
        value: value.clone(),
        headers: headers.clone(),
        ..Record::default()
    };
    ReadRecord {
        offset: message.offset(),
        timestamp: message.timestamp().to_millis().unwrap_or(-1),
        log_append_time: matches!(message.timestamp(), Timestamp::LogAppendTime(_)),
        digest: record.digest(),
        content: Some(Content { key, value, headers }),
    }
}
