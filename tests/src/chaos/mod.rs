//! Chaos: a cluster of three brokers, several proxies into one backup on an S3 server, producers of several families
//! that never stop, one of them past every proxy; and faults from a seed, one after the other, some of which last
//! while the next one strikes.
//!
//! - [`faults`]: what can go wrong, and how it is mended
//! - [`producers`]: who produces what, through whom, and what they were told
//!
//! What a run has to show at its end is the business of the test.

pub mod faults;
pub mod producers;

use std::path::PathBuf;
use std::time::Instant;

use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::{Value, json};

use crate::driver::{Driver, Family};
use crate::faultfs::FaultyDisk;
use crate::fleet::Fleet;
use crate::kafka::Kafka;
use crate::leaders;
use crate::notes::note;
use crate::programs::{Archive, ProxySettings};
use crate::s3::S3;
use crate::wait::{seconds, wait_for};
use crate::workdir::WorkDir;

use faults::{Broken, Fault};
use producers::Load;

/// Partitions of every topic.
pub const PARTITIONS: usize = 3;
/// The topics, by who writes them.
pub const TOPICS: [&str; 5] = [
    "idempotent",
    "transactional",
    "careless",
    "franz-go",
    "librdkafka",
];
/// The proxies. The segmenter of the second one is a process of its own.
const MEMBERS: usize = 3;
const APART: usize = 1;
/// The proxy whose disk makes trouble. It then lets producers go on and misses what they send, so behind it are only
/// producers that wait for every replica: what they were told is in the log for the auditor to find.
const TROUBLED: usize = 0;
/// Everything in the bucket lies below it.
const PREFIX: &str = "chaos/archive";

/// Everything that a run consists of. Dropping it stops everything.
#[derive(Debug)]
pub struct Chaos {
    /// The brokers.
    pub kafka: Kafka,
    /// The store.
    pub s3: S3,
    /// The Java client, which also administrates.
    pub java: Driver,
    /// The franz-go client.
    pub go: Driver,
    /// The proxies.
    pub fleet: Fleet,
    /// Who produces.
    pub loads: Vec<Load>,
    disk: FaultyDisk,
    started: Instant,
    rng: StdRng,
    broken: Vec<(Broken, u32)>,
    work: WorkDir,
}

impl Chaos {
    /// Starts brokers, store and proxies, and creates the topics.
    pub fn start(seed: u64) -> Self {
        let (work, started) = (WorkDir::create("chaos"), Instant::now());
        let (kafka, (s3, java, go)) = std::thread::scope(|scope| {
            let kafka = scope.spawn(Kafka::start_three);
            let others = (
                S3::start(),
                Driver::start(Family::Java),
                Driver::start(Family::Go),
            );
            (kafka.join().expect("start the cluster"), others)
        });
        let bootstrap = kafka.bootstrap();
        let topics: Vec<Value> = TOPICS
            .iter()
            .map(|name| json!({"name": name, "partitions": PARTITIONS, "replication": 3}))
            .collect();
        java.create_topics(&bootstrap, &Value::from(topics));
        let archive = Archive::S3 {
            endpoint: s3.endpoint(),
            prefix: PREFIX.to_owned(),
        };
        let mut fleet = Fleet::new(work.path(), &bootstrap, MEMBERS, &archive);
        fleet.configure(configure);
        fleet.audit_quickly(seconds(6));
        // Stores, brokers and disks fail here, and it is right to say so; a panic never is.
        fleet.announce(" WARN ");
        fleet.announce(" ERROR ");
        let apart = ProxySettings::new(&work.join("apart"), &bootstrap, &archive);
        fleet.0[APART].set_apart(apart);
        let troubled = &mut fleet.0[TROUBLED].settings;
        let disk = FaultyDisk::new(&work.subdirectory("disk"), &troubled.buffer_directory());
        troubled.environment = disk.environment();
        fleet.start();
        let mut chaos = Self {
            kafka,
            s3,
            java,
            go,
            fleet,
            loads: Vec::new(),
            disk,
            started,
            rng: StdRng::seed_from_u64(seed),
            broken: Vec::new(),
            work,
        };
        chaos.start_loads();
        chaos
    }

    /// Every kind of fault once, in an order of the seed's; after each one every producer gets on.
    pub fn round(&mut self, number: u64, progress: &dyn Fn() -> u64) {
        for fault in Fault::shuffled(&mut self.rng) {
            self.mend_what_is_due();
            let what = self.strike(fault);
            self.note(&format!("round {number}: {what}"));
            self.await_progress(progress);
        }
    }

    /// A remark, with the time of the run.
    pub fn note(&self, text: &str) {
        note(&format!(
            "chaos, {:>3} s: {text}",
            self.started.elapsed().as_secs()
        ));
    }

    /// Mends everything, ends every load, and waits until the cluster has nothing left to do: every replica in sync,
    /// every transaction ended.
    pub fn quiesce(&mut self) {
        self.mend_everything();
        for load in &self.loads {
            let counts = load.driver(&self.java, &self.go).stop_load(&load.name, 60);
            self.note(&format!("{}: {counts}", load.name));
        }
        let bootstrap = self.kafka.bootstrap();
        leaders::await_in_sync(&self.java, &bootstrap, &TOPICS);
        wait_for("every transaction to end", seconds(60), || {
            let request = json!({"op": "ends", "bootstrap": bootstrap, "topics": TOPICS});
            let answer = self.go.request(&request)?;
            let open = answer["partitions"]
                .as_array()
                .expect("an array of partitions")
                .iter()
                .find(|row| row["last_stable_offset"] != row["high_watermark"]);
            open.map_or(Ok(()), |row| Err(row.to_string()))
        });
    }

    /// Where the archive's objects lie as files.
    pub fn archive(&self) -> PathBuf {
        self.s3.bucket_directory().join(PREFIX)
    }

    /// A directory for the test itself.
    pub fn directory(&self, name: &str) -> PathBuf {
        self.work.subdirectory(name)
    }
}

/// Everything happens faster than in earnest, and the buffer is small.
fn configure(document: &mut Value) {
    document["segmenter"] = json!({"segment_max_interval_ms": 1_000, "manifest_interval_ms": 2_000,
        "hole_grace_ms": 2_000});
    let capture = &mut document["clusters"][0]["capture"];
    capture["buffer"]["max_bytes"] = json!("64MiB");
    capture["hold_max_ms"] = json!(3_000);
}
