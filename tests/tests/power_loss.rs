//! The power fails at a random moment, and with it everything that was not synced: every record that was acknowledged
//! under `ack: durable` is in the archive all the same, although the source is gone for good.
//!
//! A page cache survives SIGKILL, so killing the process proves nothing about syncs. Here the unmodified proxy runs
//! with `faultfs` below it, which records its file operations and kills it before one of them; from the record comes
//! what the disk may hold then. That image is all that the segmenter gets: no proxy, no cluster.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a test stops at the first surprise"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::json;
use teeline_archive::ledger::{Commit, LedgerState};
use teeline_archive::segment::SegmentReader;
use teeline_tests::driver::{Driver, Family, ProducerConfig};
use teeline_tests::faultfs;
use teeline_tests::kafka::Kafka;
use teeline_tests::power_loss::{Disk, Fate, read_log};
use teeline_tests::programs::{Archive, ProxySettings};
use teeline_tests::record::{self, Record, read_load_log};
use teeline_tests::wait::{seconds, wait_until};
use teeline_tests::workdir::WorkDir;
use teeline_wire::batch::batches;
use teeline_wire::records::{DECOMPRESSED_BYTES_MAX, Records};

const PARTITIONS: u32 = 2;
/// The first operations make the directories and the first file, before anything can be acknowledged; they count too.
const OPERATIONS_MAX: u64 = 1200;
/// Images computed per failure: everything pending lost, and some of it.
const FATES: u64 = 3;

#[test]
fn every_acknowledged_record_survives_the_loss_of_everything_unsynced() {
    let seed: u64 = number("TEELINE_SEED").unwrap_or_else(rand::random);
    let rounds = number("TEELINE_POWER_LOSS_ROUNDS").unwrap_or(10);
    println!(
        "seed {seed}, {rounds} rounds; set TEELINE_SEED and TEELINE_POWER_LOSS_ROUNDS to repeat or lengthen"
    );
    let mut random = StdRng::seed_from_u64(seed);
    let work = WorkDir::create("power-loss");
    let library = faultfs::build(work.path());
    let kafka = Kafka::start_one();
    let java = Driver::start(Family::Java);
    let mut total = 0;
    for round in 1..=rounds {
        let kill_at = random.random_range(1..OPERATIONS_MAX);
        let run = Run::until_power_fails(&work, &library, &kafka, &java, round, kill_at);
        println!(
            "round {round}: power failed at operation {kill_at}, {} acknowledged",
            run.acknowledged.len()
        );
        total += run.acknowledged.len();
        let disk = Disk::replay(&read_log(&fs::read(&run.log).unwrap_or_default()));
        for n in 0..FATES {
            let fate = if n == 0 {
                Fate::Lost
            } else {
                Fate::Some(random.random())
            };
            run.check_image(&disk, fate, n);
        }
    }
    assert!(
        total > 0,
        "no round got as far as an acknowledgement; the test has shown nothing"
    );
    println!("{rounds} power failures, {total} acknowledged records, none missing (seed {seed})");
}

fn number(variable: &str) -> Option<u64> {
    let text = env::var(variable).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{variable} is not a number: {text}")),
    )
}

/// One life of a proxy, ended by a power failure.
struct Run {
    root: PathBuf,
    log: PathBuf,
    topic: String,
    /// Partition, offset and digest of what the producer was told is written.
    acknowledged: Vec<record::Sent>,
}

impl Run {
    fn until_power_fails(
        work: &WorkDir,
        library: &Path,
        kafka: &Kafka,
        java: &Driver,
        round: u64,
        kill_at: u64,
    ) -> Run {
        let directory = work.subdirectory(&format!("round-{round}"));
        // The only directory that exists before the proxy starts, and so the only one that needs no sync.
        let root = work.subdirectory(&format!("round-{round}/disk"));
        let log = directory.join("operations");
        let topic = format!("power-{round}");
        java.create_topics(
            &kafka.bootstrap(),
            &json!([{"name": topic, "partitions": PARTITIONS}]),
        );
        let mut settings = settings_on(&directory, &root, &kafka.bootstrap());
        settings.environment = vec![
            ("LD_PRELOAD".into(), library.display().to_string()),
            ("FAULTFS_ROOTS".into(), root.display().to_string()),
            ("FAULTFS_LOG".into(), log.display().to_string()),
            ("FAULTFS_KILL_AT".into(), kill_at.to_string()),
        ];
        let mut proxy = settings.launch();
        let load = format!("power-{round}");
        let client = ProducerConfig::of(&[
            ("linger.ms", "1"),
            ("batch.size", "2000"),
            ("delivery.timeout.ms", "20000"),
            ("request.timeout.ms", "10000"),
            ("max.block.ms", "5000"),
            ("reconnect.backoff.max.ms", "50"),
        ]);
        let wanted = json!({"partitions": PARTITIONS, "rate": 2000, "value_bytes": 300});
        let acks = java.start_load(&load, &settings.bootstrap(), &topic, &client, wanted);
        wait_until("the power to fail", seconds(60), || !proxy.process.is_running());
        proxy.kill();
        java.stop_load(&load, 1);
        let acknowledged = read_load_log(&acks)
            .into_iter()
            .filter(|sent| sent.fate == record::Fate::Acknowledged)
            .collect();
        Run {
            root,
            log,
            topic,
            acknowledged,
        }
    }

    /// Archives what one image of the disk holds, and looks for every acknowledged record.
    fn check_image(&self, disk: &Disk, fate: Fate, n: u64) {
        let directory = self.root.with_file_name(format!("image-{n}"));
        let image = directory.join("disk");
        disk.write_image(&self.root, &image, fate)
            .expect("write the image");
        // Nobody listens there: the cluster is gone for good.
        let settings = settings_on(&directory, &image, "127.0.0.1:9");
        let mut segmenter = settings.launch_segmenter(&["--until-drained", "--source-lost"]);
        let status = segmenter.wait_exit(seconds(60));
        assert!(
            matches!(status.code(), Some(0 | 3)),
            "{fate:?}: the segmenter ended with {status}:\n{}",
            segmenter.log_tail()
        );
        let archived = Archived::read(&image.join("archive"), settings.backup_id(), &self.topic);
        for sent in &self.acknowledged {
            let at = (sent.ack.partition, sent.ack.offset);
            match archived.confirmed.get(&at) {
                Some(digest) => {
                    assert_eq!(
                        *digest, sent.digest,
                        "{fate:?}: another record stands at {at:?} in {}",
                        self.topic
                    )
                }
                None => assert!(
                    archived.unconfirmed.contains(&(at.0, sent.digest)),
                    "{fate:?}: acknowledged record {} at {at:?} of {} is lost; {} confirmed, {} unconfirmed; see {}",
                    sent.sequence,
                    self.topic,
                    archived.confirmed.len(),
                    archived.unconfirmed.len(),
                    directory.display()
                ),
            }
        }
    }
}

fn settings_on(directory: &Path, disk: &Path, upstream: &str) -> ProxySettings {
    let mut settings = ProxySettings::new(directory, upstream, &Archive::Directory(disk.join("archive")));
    let document = &mut settings.document;
    document["clusters"][0]["capture"]["buffer"] = json!({"dir": disk.join("buffer"), "file_bytes": "1MiB"});
    document["clusters"][0]["capture"]["catalog_poll_interval"] = json!("100ms");
    // Many commits and many ended files within one short life.
    document["segmenter"]["segment_max_interval_ms"] = json!(200);
    document["segmenter"]["manifest_interval_ms"] = json!(200);
    settings
}

/// What an archive holds of a topic.
#[derive(Default)]
struct Archived {
    confirmed: BTreeMap<(i32, i64), u64>,
    unconfirmed: BTreeSet<(i32, u64)>,
}

impl Archived {
    fn read(archive: &Path, backup_id: &str, topic: &str) -> Archived {
        let mut ledger = LedgerState::new();
        let mut commits = Vec::new();
        collect(&archive.join(backup_id).join("ledger"), "commit", &mut commits);
        commits.sort();
        for path in commits {
            let commit = Commit::decode(&fs::read(&path).unwrap())
                .unwrap_or_else(|error| panic!("{} is listed and damaged: {error}", path.display()));
            ledger
                .apply(&commit)
                .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        }
        let mut archived = Archived::default();
        for segment in ledger
            .segments()
            .filter(|segment| segment.identity.topic == topic)
        {
            let path = archive.join(&segment.key);
            let object = Bytes::from(fs::read(&path).unwrap_or_else(|error| {
                panic!("{} is committed and cannot be read: {error}", path.display())
            }));
            let reader = SegmentReader::open(&object, None)
                .unwrap_or_else(|error| panic!("{} is committed and damaged: {error}", path.display()));
            reader
                .verify(&object)
                .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            for block in &reader.footer().blocks {
                archived.add(
                    segment.identity.partition,
                    segment.unconfirmed(),
                    &reader.block_of(&object, block).unwrap(),
                );
            }
        }
        archived
    }

    fn add(&mut self, partition: i32, unconfirmed: bool, block: &Bytes) {
        for batch in batches(block) {
            let batch = batch.unwrap();
            batch.verify_crc().unwrap();
            let records = Records::decode(&batch, DECOMPRESSED_BYTES_MAX).unwrap();
            for view in records.iter() {
                let view = view.unwrap();
                let headers = view
                    .headers
                    .iter()
                    .map(|header| (header.key.to_vec(), header.value.map(<[u8]>::to_vec)));
                let digest = Record {
                    partition,
                    timestamp: None,
                    key: view.key.map(<[u8]>::to_vec),
                    value: view.value.map(<[u8]>::to_vec),
                    headers: headers.collect(),
                }
                .digest();
                if unconfirmed {
                    self.unconfirmed.insert((partition, digest));
                } else {
                    self.confirmed.insert((partition, view.offset), digest);
                }
            }
        }
    }
}

fn collect(directory: &Path, extension: &str, found: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(directory) else {
        return;
    };
    for entry in entries {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, extension, found);
        } else if path.extension().is_some_and(|found| found == extension) {
            found.push(path);
        }
    }
}
