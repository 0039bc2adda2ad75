//! librdkafka as a producer without end. It runs in a process of its own, whose connections can be told from others: this
//! same program once more, as the one test below.

use std::collections::BTreeMap;
use std::env;
use std::fs::File;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};
use teeline_tests::process::Process;
use teeline_tests::record::{Record, Sent, read_load_log};
use teeline_tests::wait::seconds;
use teeline_tests::workdir::WorkDir;

/// Between two records.
const PACE: Duration = Duration::from_millis(10);
const FLUSH_LIMIT: Duration = seconds(90);
/// What the process is told: servers, topic, partitions, and where to write what becomes of each record.
const TASK: &str = "TEELINE_TEST_LIBRDKAFKA";

/// A load that runs until it is stopped.
pub(crate) struct Load {
    process: Process,
    work: WorkDir,
}

impl Load {
    pub(crate) fn start(bootstrap: &str, topic: &str, partitions: u32) -> Self {
        let work = WorkDir::create("librdkafka");
        let mut command = Command::new(env::current_exe().unwrap());
        let name = "librdkafka::produces_until_its_input_ends";
        command.args(["--exact", name, "--ignored", "--nocapture"]);
        let task = format!("{bootstrap} {topic} {partitions} {}", work.join("load").display());
        command.env(TASK, task);
        let log = work.join("log");
        let process = Process::start_with("librdkafka", command, &log, Stdio::piped(), None);
        Self { process, work }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// How many were acknowledged, and how often the application was told of each kind of error.
    pub(crate) fn status(&self) -> (u64, BTreeMap<String, u64>) {
        let text = std::fs::read_to_string(self.log()).unwrap_or_default();
        let mut errors = BTreeMap::new();
        for line in text.lines().filter_map(|line| line.strip_prefix("E ")) {
            *errors.entry(line.to_owned()).or_default() += 1;
        }
        let acknowledged = text.lines().filter(|line| line.starts_with("A ")).count();
        (acknowledged as u64, errors)
    }

    fn log(&self) -> PathBuf {
        self.work.join("load")
    }

    /// Waits for every answer. What became of the records, but for those that failed.
    pub(crate) fn stop(mut self) -> Vec<Sent> {
        drop(self.process.child_mut().stdin.take());
        let status = self.process.wait_exit(FLUSH_LIMIT + seconds(10));
        assert!(status.success(), "{}", self.process.log_tail());
        let text = std::fs::read_to_string(self.log()).unwrap();
        let told: String = text
            .lines()
            .filter(|line| !line.starts_with("E "))
            .fold(String::new(), |all, line| all + line + "\n");
        std::fs::write(self.log(), told).unwrap();
        read_load_log(&self.log())
    }
}

#[test]
#[ignore = "a part of another test, which runs it in a process of its own"]
fn produces_until_its_input_ends() {
    let Ok(task) = env::var(TASK) else { return };
    let task: Vec<&str> = task.split(' ').collect();
    let told = Told(Mutex::new(File::create(task[3]).unwrap()));
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", task[0]);
    config.set("enable.idempotence", "true").set("linger.ms", "5");
    let producer = config.create_with_context(told).unwrap();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| run(&producer, task[1], task[2].parse().unwrap(), &stop));
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        stop.store(true, Ordering::Relaxed);
    });
}

/// What the application was told, one line each.
struct Told(Mutex<File>);

impl ClientContext for Told {}

impl ProducerContext for Told {
    /// Number and digest.
    type DeliveryOpaque = Box<(u64, u64)>;

    fn delivery(&self, result: &DeliveryResult<'_>, record: Self::DeliveryOpaque) {
        let (sequence, digest) = *record;
        match result {
            Ok(message) => self.note(&format!(
                "A {} {} {} {sequence} {digest:x}",
                message.partition(),
                message.offset(),
                message.timestamp().to_millis().unwrap_or(-1),
            )),
            Err((error, _)) => self.failed(error),
        }
    }
}

impl Told {
    fn failed(&self, error: &KafkaError) {
        match error.rdkafka_error_code() {
            Some(code) => self.note(&format!("E {code:?}")),
            None => self.note(&format!("E {error}")),
        }
    }

    fn note(&self, line: &str) {
        // In one piece: it is read meanwhile.
        let line = format!("{line}\n");
        self.0.lock().unwrap().write_all(line.as_bytes()).unwrap();
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
            Err((error, _)) => producer.context().failed(&error),
        }
        thread::park_timeout(PACE);
    }
    producer.flush(FLUSH_LIMIT).unwrap();
}
