//! What an archive costs: several proxies, each a sidecar with a buffer of its own, before many partitions.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::driver::{Driver, Family, ProducerConfig};
use crate::fleet::Fleet;
use crate::kafka::Kafka;
use crate::programs::Archive;
use crate::requests::{Requests, Said, Served};
use crate::s3::S3;
use crate::wait::{seconds, wait_until};
use crate::workdir::WorkDir;

const TOPIC: &str = "events";

/// Where the archive of a scene lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Behind an S3 server, which keeps an access log.
    S3,
    /// In a directory.
    Directory,
}

/// How large a scene is.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where the archive lies.
    pub place: Place,
    /// Proxies.
    pub writers: usize,
    /// Partitions of the one topic.
    pub partitions: u32,
    /// The section `segmenter` of every configuration.
    pub segmenter: Value,
    /// The section `audit` of every configuration.
    pub audit: Value,
}

/// A cluster, its sidecars, and a store.
#[derive(Debug)]
pub struct Scene {
    /// The sidecars.
    pub fleet: Fleet,
    settings: Settings,
    kafka: Kafka,
    server: Option<S3>,
    java: Driver,
    work: WorkDir,
    loads: Vec<String>,
}

/// Records per second and their size, behind each writer; every writer writes to all partitions in turn.
#[derive(Debug, Clone, Copy)]
pub struct Traffic {
    /// Records per second.
    pub rate: f64,
    /// Bytes of a value.
    pub value_bytes: u32,
}

/// All counts at one moment.
#[derive(Debug, Clone)]
pub struct Counts {
    at: Instant,
    said: Vec<Said>,
    served: Option<Served>,
}

/// What happened between two moments.
#[derive(Debug, Clone)]
pub struct Spent {
    /// How long it took.
    pub seconds: f64,
    /// By each writer.
    pub said: Vec<Said>,
    /// Seen by the server, where there is one.
    pub served: Option<Served>,
}

/// Segments as they lie in the store.
#[derive(Debug, Clone, Copy, Default)]
pub struct Objects {
    /// How many.
    pub count: usize,
    /// All their bytes.
    pub bytes: u64,
    /// The size of the one in the middle.
    pub median_bytes: u64,
}

impl Scene {
    /// Starts everything. No record is written yet.
    pub fn set(settings: Settings) -> Self {
        let work = WorkDir::create("economy");
        let server = (settings.place == Place::S3).then(S3::start);
        let (kafka, java) = std::thread::scope(|scope| {
            let java = scope.spawn(|| Driver::start(Family::Java));
            (Kafka::start_one(), java.join().expect("start the Java client"))
        });
        java.create_topics(
            &kafka.bootstrap(),
            &json!([{"name": TOPIC, "partitions": settings.partitions}]),
        );
        let archive = match &server {
            Some(server) => Archive::S3 {
                endpoint: server.endpoint(),
                prefix: "economy".to_owned(),
            },
            None => Archive::Directory(work.join("archive")),
        };
        let mut fleet = Fleet::new(work.path(), &kafka.bootstrap(), settings.writers, &archive);
        fleet.configure(|document| {
            document["segmenter"] = settings.segmenter.clone();
            document["audit"] = settings.audit.clone();
            document["clusters"][0]["capture"]
                .as_object_mut()
                .expect("an object")
                .remove("catalog_poll_interval");
        });
        fleet.start();
        Self {
            fleet,
            settings,
            kafka,
            server,
            java,
            work,
            loads: Vec::new(),
        }
    }

    /// Starts a producer behind every writer.
    pub fn start_traffic(&mut self, traffic: Traffic) {
        assert!(self.loads.is_empty(), "there is traffic already");
        // A record waits little, so that one for each of many partitions makes a batch each.
        let config = ProducerConfig::of(&[("linger.ms", "5"), ("compression.type", "lz4")]);
        for (index, member) in self.fleet.0.iter().enumerate() {
            let name = format!("load-{}-{:08x}", index + 1, rand::random::<u32>());
            let settings = json!({"partitions": self.settings.partitions, "rate": traffic.rate,
                "value_bytes": traffic.value_bytes, "seed": index});
            self.java
                .start_load(&name, &member.bootstrap(), TOPIC, &config, settings);
            self.loads.push(name);
        }
    }

    /// Ends all producers. How many records were acknowledged.
    pub fn stop_traffic(&mut self) -> u64 {
        let names = std::mem::take(&mut self.loads);
        let stopped = names.iter().map(|name| self.java.stop_load(name, 60));
        stopped.filter_map(|counts| counts["acknowledged"].as_u64()).sum()
    }

    /// Until every partition was written to `times` times by every writer.
    pub fn await_rounds(&self, times: u32, limit: Duration) {
        let wanted = u64::from(self.settings.partitions) * u64::from(times);
        for name in &self.loads {
            wait_until("every partition to be written to", limit, || {
                self.java.acknowledged(name) >= wanted
            });
        }
    }

    /// Until everything that was captured is in the archive.
    pub fn await_archived(&self, limit: Duration) {
        for member in &self.fleet.0 {
            wait_until("everything to be archived", limit, || {
                member.metric("teeline_unarchived_batches") == 0.0
            });
        }
    }

    /// Until one of the writers audits.
    pub fn await_auditor(&self) {
        wait_until("one auditor", seconds(60), || self.fleet.auditors().len() == 1);
    }

    /// What has been counted until now.
    pub fn counts(&self) -> Counts {
        let said = |member: &crate::fleet::Member| Said::by(&member.settings.admin());
        Counts {
            at: Instant::now(),
            said: self.fleet.0.iter().map(said).collect(),
            served: self
                .server
                .as_ref()
                .map(|server| Served::logged(&server.access_log())),
        }
    }

    /// The segments in the store.
    pub fn objects(&self) -> Objects {
        let root = match &self.server {
            Some(server) => server.bucket_directory(),
            None => self.work.join("archive"),
        };
        let mut sizes = Vec::new();
        segments_below(&root, &mut sizes);
        sizes.sort_unstable();
        Objects {
            count: sizes.len(),
            bytes: sizes.iter().sum(),
            median_bytes: sizes.get(sizes.len() / 2).copied().unwrap_or_default(),
        }
    }

    /// The brokers.
    pub fn bootstrap(&self) -> String {
        self.kafka.bootstrap()
    }

    /// Where the archive lies, as a directory.
    pub fn archive_directory(&self) -> PathBuf {
        match &self.server {
            Some(server) => server.bucket_directory().join("economy"),
            None => self.work.join("archive"),
        }
    }
}

impl Counts {
    /// What happened since.
    pub fn since(self, earlier: &Counts) -> Spent {
        let said = self.said.into_iter().zip(&earlier.said);
        Spent {
            seconds: self.at.duration_since(earlier.at).as_secs_f64(),
            said: said.map(|(now, before)| now - *before).collect(),
            served: self
                .served
                .zip(earlier.served.as_ref())
                .map(|(now, before)| now - before),
        }
    }
}

impl Spent {
    /// A count of all writers together.
    pub fn sum(&self, of: impl Fn(&Said) -> f64) -> f64 {
        self.said.iter().map(of).sum()
    }

    /// The requests of all writers together.
    pub fn requests(&self) -> Requests {
        self.said
            .iter()
            .fold(Requests::default(), |sum, said| sum + said.requests)
    }
}

fn segments_below(directory: &Path, sizes: &mut Vec<u64>) {
    let Ok(entries) = fs::read_dir(directory) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => segments_below(&entry.path(), sizes),
            Ok(metadata) if name.to_string_lossy().starts_with("segment-") => sizes.push(metadata.len()),
            _ => {}
        }
    }
}
