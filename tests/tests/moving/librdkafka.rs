//! librdkafka as a producer without end, in this process.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};
use teeline_tests::record::{Ack, Fate, Record, Sent};

/// Between two records.
const PACE: Duration = Duration::from_millis(10);
const FLUSH_LIMIT: Duration = Duration::from_secs(90);

/// A load that runs until it is stopped.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    told: Told,
    thread: JoinHandle<()>,
}

/// What the application was told.
#[derive(Clone, Default)]
pub(crate) struct Told(Arc<Mutex<Answers>>);

#[derive(Default)]
struct Answers {
    acknowledged: Vec<Sent>,
    errors: BTreeMap<String, u64>,
}

impl ClientContext for Told {}

impl ProducerContext for Told {
    /// Number and digest.
    type DeliveryOpaque = Box<(u64, u64)>;

    fn delivery(&self, result: &DeliveryResult<'_>, record: Self::DeliveryOpaque) {
        let (sequence, digest) = *record;
        let mut answers = self.0.lock().unwrap();
        match result {
            Ok(message) => answers.acknowledged.push(Sent {
                fate: Fate::Acknowledged,
                ack: Ack {
                    partition: message.partition(),
                    offset: message.offset(),
                    timestamp: message.timestamp().to_millis().unwrap_or(-1),
                },
                sequence,
                digest,
            }),
            Err((error, _)) => answers.note(error),
        }
    }
}

impl Answers {
    fn note(&mut self, error: &KafkaError) {
        let kind = match error.rdkafka_error_code() {
            Some(code) => format!("{code:?}"),
            None => error.to_string(),
        };
        *self.errors.entry(kind).or_default() += 1;
    }
}

impl Load {
    pub(crate) fn start(bootstrap: &str, topic: &str, partitions: i32) -> Self {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", bootstrap);
        config.set("enable.idempotence", "true").set("linger.ms", "5");
        let (stop, told) = (Arc::new(AtomicBool::new(false)), Told::default());
        let producer = config.create_with_context(told.clone()).unwrap();
        let (stopped, topic) = (Arc::clone(&stop), topic.to_owned());
        let thread = thread::spawn(move || run(&producer, &topic, partitions, &stopped));
        Self { stop, told, thread }
    }

    pub(crate) fn acknowledged(&self) -> u64 {
        self.told.0.lock().unwrap().acknowledged.len() as u64
    }

    pub(crate) fn errors(&self) -> Vec<String> {
        self.told.0.lock().unwrap().errors.keys().cloned().collect()
    }

    /// Waits for every answer.
    pub(crate) fn stop(self) -> Vec<Sent> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap();
        std::mem::take(&mut self.told.0.lock().unwrap().acknowledged)
    }
}

fn run(producer: &ThreadedProducer<Told>, topic: &str, partitions: i32, stop: &AtomicBool) {
    for sequence in 0_u64.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let partition = i32::try_from(sequence).unwrap() % partitions;
        let record = Record::new(
            partition,
            "key",
            format!("{sequence} {}", "librdkafka ".repeat(20)),
        );
        let sending: BaseRecord<'_, [u8], [u8], Box<(u64, u64)>> =
            BaseRecord::with_opaque_to(topic, Box::new((sequence, record.digest())))
                .partition(partition)
                .key(record.key.as_deref().unwrap())
                .payload(record.value.as_deref().unwrap());
        match producer.send(sending) {
            Ok(()) | Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => {}
            Err((error, _)) => producer.context().0.lock().unwrap().note(&error),
        }
        thread::park_timeout(PACE);
    }
    producer.flush(FLUSH_LIMIT).unwrap();
}
