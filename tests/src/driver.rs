//! Client programs driven by JSON lines: one request a line, one answer a line.
//!
//! The Java and the Go program speak the same language, so a test that is written once runs with either family.

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Mutex;

use serde_json::{Value, json};

use crate::components;
use crate::kafka::log_configuration;
use crate::process::Process;
use crate::record::{Ack, Record};
use crate::workdir::WorkDir;

/// A client family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// Apache Kafka's own client, 4.x.
    Java,
    /// franz-go.
    Go,
}

/// A running client program. May be shared between threads; requests go one after the other.
#[derive(Debug)]
pub struct Driver {
    family: Family,
    pipes: Mutex<(ChildStdin, BufReader<ChildStdout>)>,
    process: Process,
    work: WorkDir,
}

/// What a producer is opened with.
#[derive(Debug, Clone, Default)]
pub struct ProducerConfig(pub Vec<(String, String)>);

impl ProducerConfig {
    /// From pairs of Kafka's own producer settings, which the Go program maps to its options.
    pub fn of(pairs: &[(&str, &str)]) -> Self {
        Self(
            pairs
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect(),
        )
    }

    fn json(&self) -> Value {
        Value::Object(
            self.0
                .iter()
                .map(|(key, value)| (key.clone(), Value::from(value.clone())))
                .collect(),
        )
    }
}

/// Whether a reader sees aborted and undecided records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isolation {
    /// Only what is committed.
    Committed,
    /// Everything.
    Uncommitted,
}

impl Driver {
    /// Starts the program of a family.
    pub fn start(family: Family) -> Self {
        Self::start_with(family, &[])
    }

    /// Starts the Java program with further options of its virtual machine.
    pub fn start_java(options: &[&str]) -> Self {
        Self::start_with(Family::Java, options)
    }

    fn start_with(family: Family, java_options: &[&str]) -> Self {
        let work = WorkDir::create("client");
        let (name, command) = match family {
            Family::Java => ("the Java client", java(java_options)),
            Family::Go => ("the franz-go client", Command::new(components::go_client())),
        };
        let mut process = Process::start_with(
            name,
            command,
            &work.join("client.log"),
            Stdio::piped(),
            Some(Stdio::piped()),
        );
        let input = process
            .child_mut()
            .stdin
            .take()
            .expect("its standard input is piped");
        let output = process
            .child_mut()
            .stdout
            .take()
            .expect("its standard output is piped");
        Self {
            family,
            pipes: Mutex::new((input, BufReader::new(output))),
            process,
            work,
        }
    }

    /// Which family this is.
    pub fn family(&self) -> Family {
        self.family
    }

    /// The program's process id.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// What its client libraries logged so far.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// Sends one request; `Err` is what the client library answered.
    pub fn request(&self, request: &Value) -> Result<Value, String> {
        let mut pipes = self.pipes.lock().expect("an earlier request panicked");
        writeln!(pipes.0, "{request}")
            .unwrap_or_else(|error| panic!("{error}; log:\n{}", self.process.log_tail()));
        let mut line = String::new();
        pipes
            .1
            .read_line(&mut line)
            .expect("read the client program's answer");
        assert!(
            !line.is_empty(),
            "the client program ended; its log:\n{}",
            self.process.log_tail()
        );
        let answer: Value =
            serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error} in answer {line:?}"));
        match answer.get("error").and_then(Value::as_str) {
            Some(error) => Err(error.to_owned()),
            None => Ok(answer),
        }
    }

    fn expect(&self, request: &Value) -> Value {
        self.request(request).unwrap_or_else(|error| {
            let op = &request["op"];
            panic!(
                "{:?} client, {op}: {error}; its log ends with\n{}",
                self.family,
                self.process.log_tail()
            )
        })
    }

    /// Opens a producer under a name.
    pub fn open_producer(&self, name: &str, bootstrap: &str, config: &ProducerConfig) {
        self.expect(
            &json!({"op": "open", "producer": name, "bootstrap": bootstrap, "config": config.json()}),
        );
    }

    /// Sends records and waits for all of them: one acknowledgement or error each.
    pub fn send(&self, producer: &str, topic: &str, records: &[Record]) -> Vec<Result<Ack, String>> {
        let rows: Vec<Value> = records.iter().map(Record::json).collect();
        let answer =
            self.expect(&json!({"op": "send", "producer": producer, "topic": topic, "records": rows}));
        let acks = answer["acks"].as_array().expect("an array of acks");
        assert_eq!(acks.len(), records.len());
        acks.iter().map(Ack::from_json).collect()
    }

    /// [`Self::send`], where every record must be acknowledged.
    pub fn send_all(&self, producer: &str, topic: &str, records: &[Record]) -> Vec<Ack> {
        let acks = self.send(producer, topic, records);
        acks.into_iter()
            .map(|ack| ack.unwrap_or_else(|error| panic!("not acknowledged: {error}")))
            .collect()
    }

    /// `begin`, `commit`, `abort` or `close` of a producer.
    pub fn producer_op(&self, op: &str, producer: &str) {
        self.expect(&json!({"op": op, "producer": producer}));
    }

    /// Starts an endless load; see `Load.java` for the settings.
    pub fn start_load(
        &self,
        name: &str,
        bootstrap: &str,
        topic: &str,
        config: &ProducerConfig,
        settings: Value,
    ) -> PathBuf {
        let log = self.work.join(format!("{name}.acks"));
        let mut request = json!({"op": "load", "load": name, "bootstrap": bootstrap, "topic": topic,
            "config": config.json(), "log": log});
        let (Value::Object(fields), Value::Object(more)) = (&mut request, settings) else {
            unreachable!("both are objects")
        };
        fields.extend(more);
        self.expect(&request);
        log
    }

    /// Counts of a running load: sent, acknowledged, aborted, unknown, bytes.
    pub fn load_status(&self, name: &str) -> Value {
        self.expect(&json!({"op": "load_status", "load": name}))
    }

    /// How many records of a running load were acknowledged.
    pub fn acknowledged(&self, load: &str) -> u64 {
        let status = self.load_status(load);
        status["acknowledged"].as_u64().expect("a count")
    }

    /// Ends a load; what is in flight may take `limit_seconds`.
    pub fn stop_load(&self, name: &str, limit_seconds: u64) -> Value {
        self.expect(&json!({"op": "load_stop", "load": name, "seconds": limit_seconds}))
    }

    /// A path in the program's own directory, for what it is asked to write.
    pub fn file(&self, name: &str) -> PathBuf {
        self.work.join(name)
    }

    /// Reads whole topics into a file, which [`crate::read_back`] understands.
    pub fn read_into(&self, bootstrap: &str, topics: &[&str], isolation: Isolation, full: bool) -> PathBuf {
        let out = self.work.join(format!("read-{:08x}", rand::random::<u32>()));
        let isolation = match isolation {
            Isolation::Committed => "read_committed",
            Isolation::Uncommitted => "read_uncommitted",
        };
        self.expect(
            &json!({"op": "read", "bootstrap": bootstrap, "topics": topics, "out": out, "full": full,
            "seconds": 120, "config": {"isolation.level": isolation}}),
        );
        out
    }

    /// Creates topics, each `{"name", "partitions", "replication", "configs"}`, and waits until all have leaders.
    pub fn create_topics(&self, bootstrap: &str, topics: &Value) {
        self.expect(&json!({"op": "create_topics", "bootstrap": bootstrap, "topics": topics}));
    }

    /// Any other request, whose answer is needed.
    pub fn ask(&self, request: &Value) -> Value {
        self.expect(request)
    }
}

fn java(options: &[&str]) -> Command {
    let mut command = Command::new("java");
    command.args(options);
    command.args([
        "-Xmx512m",
        "-XX:+UseSerialGC",
        "-XX:TieredStopAtLevel=1",
        "-Xshare:auto",
    ]);
    command.arg(log_configuration("log4j2-tools.properties"));
    command.args(["-cp", &components::java_client_class_path(), "TeelineClient"]);
    command
}
