//! The same producers twice: directly at the brokers, and through the proxies. What the ones are told, the others may
//! be told too, and nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde_json::{Value, json};
use teeline_tests::driver::{Driver, Family, ProducerConfig};
use teeline_tests::notes::note;
use teeline_tests::record::{Sent, read_load_log};
use teeline_tests::wait::{seconds, wait_until};

use crate::librdkafka;

pub(crate) const PARTITIONS: u32 = 3;
const RATE: u32 = 100;
const FAMILIES: [&str; 3] = ["java", "franz-go", "librdkafka"];

/// An endless load of each client family.
pub(crate) struct Side {
    name: &'static str,
    bootstrap: String,
    pub(crate) java: Driver,
    pub(crate) go: Driver,
    librdkafka: Option<librdkafka::Load>,
    logs: Vec<(String, PathBuf)>,
}

/// What a side's applications were told of errors, by family.
pub(crate) type Errors = BTreeMap<&'static str, BTreeSet<String>>;

impl Side {
    /// The topics of a side that this test reads back.
    pub(crate) fn topics(name: &str) -> Vec<String> {
        FAMILIES.iter().map(|family| format!("{name}-{family}")).collect()
    }

    /// Starts the client programs and their loads. The Java client says in its log what it makes of leader hints.
    pub(crate) fn start(name: &'static str, bootstrap: &str) -> Self {
        let mut side = Self {
            name,
            bootstrap: bootstrap.to_owned(),
            java: Driver::start_java(&["-Dteeline.sender.level=TRACE"]),
            go: Driver::start(Family::Go),
            librdkafka: None,
            logs: Vec::new(),
        };
        for family in ["java", "franz-go"] {
            side.start_load(family, &format!("{name}-{family}"));
        }
        let topic = format!("{name}-librdkafka");
        side.librdkafka = Some(librdkafka::Load::start(bootstrap, &topic, PARTITIONS as i32));
        side
    }

    fn driver(&self, family: &str) -> &Driver {
        match family {
            "java" => &self.java,
            _ => &self.go,
        }
    }

    /// One more load into `topic`, under the topic's name.
    pub(crate) fn start_load(&mut self, family: &'static str, topic: &str) {
        let settings = json!({"partitions": PARTITIONS, "rate": RATE, "value_bytes": 300});
        let config = ProducerConfig::of(&[("acks", "all"), ("linger.ms", "5")]);
        let driver = self.driver(family);
        let log = driver.start_load(topic, &self.bootstrap, topic, &config, settings);
        self.logs.push((topic.to_owned(), log));
    }

    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    pub(crate) fn pids(&self) -> [u32; 2] {
        [self.java.pid(), self.go.pid()]
    }

    /// Status of a load of `start_load`.
    pub(crate) fn status(&self, family: &str, topic: &str) -> Value {
        self.driver(family).load_status(topic)
    }

    fn acknowledged(&self, family: &str) -> u64 {
        match &self.librdkafka {
            Some(load) if family == "librdkafka" => load.acknowledged(),
            _ => {
                let status = self.status(family, &format!("{}-{family}", self.name));
                status["acknowledged"].as_u64().unwrap()
            }
        }
    }

    /// Until every load has written to each of its partitions since now.
    pub(crate) fn await_progress(&self) {
        for family in FAMILIES {
            let before = self.acknowledged(family);
            wait_until(
                &format!("{} of {} to get on", family, self.name),
                seconds(90),
                || self.acknowledged(family) > before + u64::from(RATE / 2),
            );
        }
    }

    /// Every kind of error that the applications were told of so far.
    pub(crate) fn errors(&self) -> Errors {
        FAMILIES
            .iter()
            .map(|family| {
                let kinds = match &self.librdkafka {
                    Some(load) if *family == "librdkafka" => load.errors(),
                    _ => kinds(&self.status(family, &format!("{}-{family}", self.name))),
                };
                (*family, kinds.into_iter().collect())
            })
            .collect()
    }

    /// Ends the loads. What was acknowledged, by topic.
    pub(crate) fn stop(&mut self) -> BTreeMap<String, Vec<Sent>> {
        let mut sent = BTreeMap::new();
        for (topic, log) in std::mem::take(&mut self.logs) {
            let driver = self.driver(if topic.ends_with("java") { "java" } else { "go" });
            let counts = driver.stop_load(&topic, 90);
            note(&format!("moving, {topic}: {counts}"));
            sent.insert(topic, read_load_log(&log));
        }
        let told = self.librdkafka.take().expect("stopped once").stop();
        note(&format!(
            "moving, {}-librdkafka: {} acknowledged",
            self.name,
            told.len()
        ));
        sent.insert(format!("{}-librdkafka", self.name), told);
        sent
    }
}

/// The kinds of errors of a load's status.
pub(crate) fn kinds(status: &Value) -> Vec<String> {
    let errors = status["errors"].as_object().expect("an object of counts");
    errors.keys().cloned().collect()
}
