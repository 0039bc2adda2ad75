//! The same clients twice: directly at the brokers, and through the proxies. What the ones are told, the others may be
//! told too, about as often, and nothing else.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::{Value, json};
use teeline_tests::driver::{Driver, Family, ProducerConfig};
use teeline_tests::notes::note;
use teeline_tests::record::{Fate, Sent, read_load_log};
use teeline_tests::wait::{seconds, wait_for};

use crate::librdkafka;

pub(crate) const PARTITIONS: u32 = 3;
const RATE: u32 = 100;
const FAMILIES: [&str; 3] = ["java", "franz-go", "librdkafka"];
/// Each of them also consumes what it produces, as a group.
const CONSUMERS: [&str; 2] = ["java", "franz-go"];
/// A second load of franz-go.
const PATIENT: &str = "franz-go-patient";

/// An endless load of each client family, and consumers that follow.
pub(crate) struct Side {
    name: &'static str,
    bootstrap: String,
    pub(crate) java: Driver,
    pub(crate) go: Driver,
    librdkafka: Option<librdkafka::Load>,
    /// Of those that run: what it is called, and where its log is.
    loads: BTreeMap<String, PathBuf>,
    /// By topic, of those that were stopped.
    sent: BTreeMap<String, Vec<Sent>>,
}

/// What a side's applications were told of errors and how often, by load.
pub(crate) type Errors = BTreeMap<String, BTreeMap<String, u64>>;

impl Side {
    /// The topics of a side that this test reads back.
    pub(crate) fn topics(name: &str) -> Vec<String> {
        let loads = FAMILIES.into_iter().chain([PATIENT]);
        loads.map(|load| format!("{name}-{load}")).collect()
    }

    /// Starts the client programs, their loads and their consumers. The Java client says in its log what it makes of
    /// leader hints.
    pub(crate) fn start(name: &'static str, bootstrap: &str) -> Self {
        let mut side = Self {
            name,
            bootstrap: bootstrap.to_owned(),
            java: Driver::start_java(&["-Dteeline.sender.level=TRACE", "-Dteeline.fetch.level=DEBUG"]),
            go: Driver::start(Family::Go),
            librdkafka: None,
            loads: BTreeMap::new(),
            sent: BTreeMap::new(),
        };
        for load in ["java", "franz-go"] {
            side.start_load(load, &[]);
        }
        let topic = side.topic("librdkafka");
        side.librdkafka = Some(librdkafka::Load::start(bootstrap, &topic, PARTITIONS));
        for family in CONSUMERS {
            let topic = side.topic(family);
            side.driver(family)
                .ask(&json!({"op": "group", "group": topic, "bootstrap": bootstrap, "topic": topic}));
        }
        side
    }

    fn topic(&self, load: &str) -> String {
        format!("{}-{load}", self.name)
    }

    /// The program of a load or a consumer.
    fn driver(&self, load: &str) -> &Driver {
        match load.starts_with("franz-go") {
            true => &self.go,
            false => &self.java,
        }
    }

    /// One more load, into the topic that is called after it. Its name begins with that of its family.
    pub(crate) fn start_load(&mut self, load: &str, more: &[(&str, &str)]) {
        let settings = json!({"partitions": PARTITIONS, "rate": RATE, "value_bytes": 300});
        let config = ProducerConfig::of(&[&[("acks", "all"), ("linger.ms", "5")], more].concat());
        let topic = self.topic(load);
        let driver = self.driver(load);
        let log = driver.start_load(&topic, &self.bootstrap, &topic, &config, settings);
        self.loads.insert(load.to_owned(), log);
    }

    /// Has franz-go go on with a producer that takes no end of a connection for a refusal.
    pub(crate) fn let_franz_go_retry_ends(&mut self) {
        self.stop_load("franz-go");
        self.start_load(PATIENT, &[("retry.eof", "true")]);
    }

    /// Of all clients.
    pub(crate) fn pids(&self) -> Vec<u32> {
        let librdkafka = self.librdkafka.iter().map(librdkafka::Load::pid);
        [self.java.pid(), self.go.pid()]
            .into_iter()
            .chain(librdkafka)
            .collect()
    }

    fn status(&self, load: &str) -> Value {
        self.driver(load).load_status(&self.topic(load))
    }

    /// How far a load is.
    pub(crate) fn acknowledged(&self, load: &str) -> u64 {
        match &self.librdkafka {
            Some(librdkafka) if load == "librdkafka" => librdkafka.status().0,
            _ => self.driver(load).acknowledged(&self.topic(load)),
        }
    }

    fn group(&self, family: &str) -> Value {
        let request = json!({"op": "group_status", "group": self.topic(family)});
        self.driver(family).ask(&request)
    }

    fn running(&self) -> Vec<&str> {
        let loads = self.loads.keys().map(String::as_str);
        loads
            .chain(self.librdkafka.iter().map(|_| "librdkafka"))
            .collect()
    }

    /// Until every load has written to each of its partitions since now, and every consumer of one that runs has read.
    pub(crate) fn await_progress(&self) {
        let consumed = |family: &str| self.group(family)["records"].as_u64().unwrap();
        let running = self.running();
        let consumers: Vec<&str> = CONSUMERS
            .into_iter()
            .filter(|family| running.contains(family))
            .collect();
        let written: Vec<u64> = running.iter().map(|load| self.acknowledged(load)).collect();
        let read: Vec<u64> = consumers.iter().map(|family| consumed(family)).collect();
        for (load, before) in running.iter().zip(written) {
            self.await_acknowledged_since(load, before, u64::from(RATE / 2));
        }
        for (family, before) in consumers.iter().zip(read) {
            wait_for(
                &format!("the consumer of {family} of {} to get on", self.name),
                seconds(90),
                || match consumed(family) > before + u64::from(RATE / 2) {
                    true => Ok(()),
                    false => Err(self.group(family)),
                },
            );
        }
    }

    /// Until so many more records of a load are acknowledged.
    pub(crate) fn await_acknowledged(&self, load: &str, more: u64) {
        self.await_acknowledged_since(load, self.acknowledged(load), more);
    }

    fn await_acknowledged_since(&self, load: &str, before: u64, more: u64) {
        wait_for(
            &format!("{load} of {} to get on", self.name),
            seconds(90),
            || match self.acknowledged(load) {
                now if now > before + more => Ok(()),
                now if load == "librdkafka" => Err(format!("{now} acknowledged, {before} before")),
                _ => Err(format!("{before} acknowledged before, now {}", self.status(load))),
            },
        );
    }

    /// What the applications were told so far.
    pub(crate) fn errors(&self) -> Errors {
        let errors = |load: &str| match &self.librdkafka {
            Some(librdkafka) if load == "librdkafka" => librdkafka.status().1,
            _ => {
                let errors = self.status(load)["errors"].clone();
                serde_json::from_value(errors).expect("an object of counts")
            }
        };
        let running = self.running().into_iter();
        running.map(|load| (load.to_owned(), errors(load))).collect()
    }

    /// The same of the consumers.
    pub(crate) fn consumers_errors(&self) -> Errors {
        let errors = |family: &str| {
            let errors = self.group(family)["errors"].clone();
            serde_json::from_value(errors).expect("an object of counts")
        };
        let consumers = CONSUMERS.into_iter();
        consumers
            .map(|family| (format!("the consumer of {family}"), errors(family)))
            .collect()
    }

    /// Ends a load. What was acknowledged is kept.
    pub(crate) fn stop_load(&mut self, load: &str) {
        let topic = self.topic(load);
        let log = self.loads.remove(load).expect("it runs");
        let counts = self.driver(load).stop_load(&topic, 90);
        note(&format!("moving, {topic}: {counts}"));
        self.sent.insert(topic, read_load_log(&log));
    }

    /// Ends the loads, and the consumers once they have read everything. What was acknowledged, by topic.
    pub(crate) fn stop(&mut self) -> &BTreeMap<String, Vec<Sent>> {
        for load in self.loads.keys().cloned().collect::<Vec<_>>() {
            self.stop_load(&load);
        }
        let told = self.librdkafka.take().expect("stopped once").stop();
        let topic = self.topic("librdkafka");
        note(&format!("moving, {topic}: {} acknowledged", told.len()));
        self.sent.insert(topic, told);
        for family in CONSUMERS {
            let sent = self.sent[&self.topic(family)].iter();
            let written = sent.filter(|each| each.fate == Fate::Acknowledged).count() as u64;
            wait_for("a consumer to have read everything", seconds(60), || {
                match self.group(family)["records"].as_u64() >= Some(written) {
                    true => Ok(()),
                    false => Err(format!("{} of {written}", self.group(family))),
                }
            });
            let request = json!({"op": "group_stop", "group": self.topic(family)});
            let counts = self.driver(family).ask(&request);
            note(&format!(
                "moving, the consumer of {}: {counts}",
                self.topic(family)
            ));
        }
        &self.sent
    }
}

/// What both sides were told at one time, to be compared with a later one.
pub(crate) struct Told([Errors; 2]);

impl Told {
    pub(crate) fn so_far(sides: [&Side; 2]) -> Self {
        Self(sides.map(Self::of))
    }

    fn of(side: &Side) -> Errors {
        side.errors().into_iter().chain(side.consumers_errors()).collect()
    }

    /// Whether those behind the proxies were told of more since then than the others: three times as much and three more of
    /// each kind is chance. What they were told in all is what is compared with later on.
    pub(crate) fn compare(&mut self, phase: &str, sides: [&Side; 2]) {
        let now = sides.map(Self::of);
        let [direct, through] = [0, 1].map(|side| since(&self.0[side], &now[side]));
        note(&format!(
            "moving, {phase}: errors directly {direct:?}, through the proxies {through:?}"
        ));
        for (kind, count) in through {
            let most = 3 * direct.get(&kind).unwrap_or(&0) + 3;
            assert!(
                count <= most,
                "{phase}, {kind:?}: {count} through the proxies, at most {most}"
            );
        }
        self.0 = now;
    }
}

/// Errors by load and kind that came between two times.
fn since(before: &Errors, now: &Errors) -> BTreeMap<(String, String), u64> {
    let mut new = BTreeMap::new();
    for (load, kinds) in now {
        for (kind, count) in kinds {
            let former = before.get(load).and_then(|kinds| kinds.get(kind)).unwrap_or(&0);
            if count > former {
                new.insert((load.clone(), kind.clone()), count - former);
            }
        }
    }
    new
}
