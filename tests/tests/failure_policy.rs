//! The disk below the write-ahead buffer is full, broken or slow, or the buffer's own limit is reached: producers are
//! served or pushed back as `on_failure` says, capture goes on by itself when the trouble is over, everything that was
//! missed was counted, and in the end the archive is the log.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a test stops at the first surprise"
)]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;
use std::time::Instant;

use serde_json::json;
use teeline_archive::OffsetRange;
use teeline_archive::OffsetSet;
use teeline_archive::segment::Origin;
use teeline_tests::admin_port;
use teeline_tests::archived::Archived;
use teeline_tests::comparison::compare;
use teeline_tests::driver::{Isolation, ProducerConfig};
use teeline_tests::faultfs::{Fault, FaultyDisk};
use teeline_tests::notes::note;
use teeline_tests::ports::PortBlock;
use teeline_tests::process::Process;
use teeline_tests::programs::{Proxy, ProxySettings, STOP_LIMIT, assert_orderly_log, binary};
use teeline_tests::read_back::{assert_acknowledged, assert_identical};
use teeline_tests::record::{Fate, read_load_log};
use teeline_tests::source_log::SourceLog;
use teeline_tests::stage::Stage;
use teeline_tests::wait::{seconds, wait_for, wait_until};

static STAGE: LazyLock<Stage> = LazyLock::new(Stage::set);

const PARTITIONS: u32 = 2;
/// What a disk or a buffer holds that is to run full within seconds.
const SMALL_BYTES: u64 = 12 * 1024 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Policy {
    Open,
    Closed,
}

#[test]
fn a_disk_error_does_not_reach_producers_when_open() {
    ride_out_a_fault("error-open", Policy::Open, Fault::Error);
}

#[test]
fn a_disk_error_pushes_producers_back_when_closed() {
    ride_out_a_fault("error-closed", Policy::Closed, Fault::Error);
}

#[test]
fn a_slow_disk_does_not_reach_producers_when_open() {
    ride_out_a_fault("slow-open", Policy::Open, Fault::Slow(2_500));
}

#[test]
fn a_slow_disk_pushes_producers_back_when_closed() {
    ride_out_a_fault("slow-closed", Policy::Closed, Fault::Slow(2_500));
}

/// No response waits for the disk, so what is used up by it is the room for what waits.
#[test]
fn a_slow_disk_that_has_taken_all_room_does_not_reach_producers_when_async() {
    let mut settings = settings("slow-async", Policy::Open);
    settings.document["process"] = json!({"in_flight_bytes": "1MiB"});
    let cluster = &mut settings.document["clusters"][0];
    cluster["limits"] = json!({"connection_in_flight_bytes": "1MiB"});
    cluster["capture"]["ack"] = json!("async");
    ride_out("slow-async", settings, Policy::Open, Fault::Slow(4_000), 4_000);
}

#[test]
fn a_full_buffer_does_not_reach_producers_when_open() {
    ride_out_a_shortage("full-open", Policy::Open, None);
}

#[test]
fn a_full_buffer_pushes_producers_back_when_closed() {
    ride_out_a_shortage("full-closed", Policy::Closed, None);
}

#[test]
fn a_full_disk_does_not_reach_producers_when_open() {
    if let Some(disk) = SmallDisk::mount("disk-open") {
        ride_out_a_shortage("disk-open", Policy::Open, Some(disk));
    }
}

#[test]
fn a_full_disk_pushes_producers_back_when_closed() {
    if let Some(disk) = SmallDisk::mount("disk-closed") {
        ride_out_a_shortage("disk-closed", Policy::Closed, Some(disk));
    }
}

/// The disk fails or is slow for a while, then is whole again.
fn ride_out_a_fault(name: &'static str, policy: Policy, fault: Fault) {
    ride_out(name, settings(name, policy), policy, fault, 500);
}

fn ride_out(name: &'static str, mut settings: ProxySettings, policy: Policy, fault: Fault, value_bytes: u32) {
    let disk = FaultyDisk::new(&STAGE.directory(name), &settings.buffer_directory());
    settings.environment = disk.environment();
    let mut proxy = settings.start();
    let load = Load::start(name, &settings, 400, value_bytes);
    load.flow(200);

    disk.inject(fault);
    load.expect_trouble(&settings, policy);
    if let (Policy::Closed, Fault::Error) = (policy, fault) {
        wait_for_readiness(&settings, 503);
    }
    disk.heal();

    wait_for_readiness(&settings, 200);
    load.expect_capture(&settings);
    let ended = load.end(&settings, &[settings.admin()]);
    proxy.stop();
    ended.assert_restored(&settings);
}

/// Nothing takes what the buffer holds, until its limit or the disk is full; then a segmenter comes.
fn ride_out_a_shortage(name: &'static str, policy: Policy, disk: Option<SmallDisk>) {
    let mut settings = settings(name, policy);
    settings.document["segmenter"]["embedded"] = json!(false);
    let buffer = &mut settings.document["clusters"][0]["capture"]["buffer"];
    buffer["file_bytes"] = json!("1MiB");
    match &disk {
        Some(disk) => buffer["dir"] = json!(disk.path),
        None => buffer["max_bytes"] = json!(SMALL_BYTES),
    }
    let mut proxy = settings.start();
    let load = Load::start(name, &settings, 400, 4_000);
    load.flow(200);
    load.expect_trouble(&settings, policy);
    let ports = PortBlock::reserve();
    let mut segmenter = start_segmenter(name, &settings, &ports.address(0));

    load.expect_capture(&settings);
    let ended = load.end(&settings, &[settings.admin(), ports.address(0)]);
    stop_unarchived(&mut proxy);
    assert_eq!(segmenter.stop(STOP_LIMIT), 0, "{}", segmenter.log_tail());
    assert_orderly_log(&segmenter.log(), &settings.announced);
    ended.assert_restored(&settings);
}

fn settings(name: &str, policy: Policy) -> ProxySettings {
    let mut settings = STAGE.proxy(name);
    let capture = &mut settings.document["clusters"][0]["capture"];
    capture["on_failure"] = match policy {
        Policy::Open => json!("open"),
        Policy::Closed => json!("closed"),
    };
    capture["hold_max_ms"] = json!(500);
    // What is missed at the end of a partition is below no later offset: only the auditor sees it.
    settings.document["audit"] = json!({"interval": "500ms", "grace": "6s"});
    for text in [
        "the buffer file failed",
        "the buffer cannot be written",
        "the buffer still cannot be written",
        "capture is suspended",
        "the disk of the write-ahead buffer is too slow",
        "the disk of the write-ahead buffer is full",
        "batches were forwarded without being captured",
        "the end of a connection was not recorded",
        "an outcome could not be recorded",
        "the buffer's synced position could not be published",
        "gives no answer to a Metadata request",
    ] {
        settings.announce(text);
    }
    STAGE.create_topic(name, PARTITIONS);
    settings
}

fn metric(settings: &ProxySettings, name: &str) -> f64 {
    admin_port::metric(&settings.admin(), name).unwrap_or_else(|error| panic!("read metric {name}: {error}"))
}

fn wait_for_readiness(settings: &ProxySettings, status: u16) {
    wait_for("the right readiness", seconds(30), || {
        match admin_port::get(&settings.admin(), "/readyz") {
            Ok(answer) if answer.status == status => Ok(()),
            Ok(answer) => Err(format!("{} {}", answer.status, answer.body)),
            Err(error) => Err(error.to_string()),
        }
    });
}

fn start_segmenter(name: &str, settings: &ProxySettings, admin: &str) -> Process {
    let directory = STAGE.directory(name);
    // Its admin port must be another than the proxy's.
    let mut document = settings.document.clone();
    document["admin"]["listen"] = json!(admin);
    let config = directory.join("segmenter.yaml");
    std::fs::write(&config, document.to_string()).unwrap();
    let mut command = Command::new(binary("teeline-segmenter"));
    command.args(["run", "--config"]).arg(&config);
    Process::start("teeline-segmenter", command, &directory.join("segmenter.log"))
}

/// The proxy ends first; what it captured is the segmenter's.
fn stop_unarchived(proxy: &mut Proxy) {
    proxy.process.terminate();
    proxy.process.wait_exit(STOP_LIMIT);
    proxy.assert_orderly_log();
}

/// A load through the proxy.
struct Load {
    name: &'static str,
    log: PathBuf,
}

impl Load {
    fn start(name: &'static str, settings: &ProxySettings, rate: u32, value_bytes: u32) -> Load {
        let producer = ProducerConfig::of(&[
            ("linger.ms", "5"),
            ("request.timeout.ms", "10000"),
            ("retry.backoff.max.ms", "100"),
            ("reconnect.backoff.max.ms", "100"),
        ]);
        let wanted = json!({"partitions": PARTITIONS, "rate": rate, "value_bytes": value_bytes});
        let log = STAGE
            .java
            .start_load(name, &settings.bootstrap(), name, &producer, wanted);
        Load { name, log }
    }

    fn acknowledged(&self) -> u64 {
        STAGE.java.acknowledged(self.name)
    }

    /// Waits for so many more acknowledgements.
    fn flow(&self, count: u64) {
        let before = self.acknowledged();
        wait_until("the load to flow", seconds(60), || {
            self.acknowledged() >= before + count
        });
    }

    /// Waits until the policy shows: producers are served without capture, or pushed back.
    fn expect_trouble(&self, settings: &ProxySettings, policy: Policy) {
        match policy {
            Policy::Open => {
                wait_until("batches to be missed, or answered unsynced", seconds(60), || {
                    metric(settings, "teeline_missed_batches_total")
                        + metric(settings, "teeline_released_unsynced_total")
                        > 0.0
                });
                // Not one patience after the other.
                let since = Instant::now();
                self.flow(500);
                let took = since.elapsed();
                assert!(
                    took < seconds(15),
                    "producers are held up: 500 records took {took:?}"
                );
            }
            Policy::Closed => {
                wait_until("requests to be refused", seconds(60), || {
                    metric(settings, "teeline_produce_refused_total") > 0.0
                });
            }
        }
    }

    /// Waits until batches are captured again, and none are missed any more.
    fn expect_capture(&self, settings: &ProxySettings) {
        wait_for("capture to go on", seconds(60), || {
            let missed = metric(settings, "teeline_missed_batches_total");
            let captured = metric(settings, "teeline_captured_batches_total");
            self.flow(100);
            let (missed_now, captured_now) = (
                metric(settings, "teeline_missed_batches_total"),
                metric(settings, "teeline_captured_batches_total"),
            );
            if missed_now == missed && captured_now > captured {
                return Ok(());
            }
            Err(format!(
                "missed {missed} to {missed_now}, captured {captured} to {captured_now}"
            ))
        });
    }

    /// Stops, and waits until the archive is the log.
    fn end(self, settings: &ProxySettings, admins: &[String]) -> Ended {
        let counts = STAGE.java.stop_load(self.name, 60);
        let source = SourceLog::fetch(STAGE.go(), &STAGE.source.bootstrap(), &[self.name]);
        let archive = STAGE.directory(self.name).join("archive");
        let archived = wait_for("the archive to be the log", seconds(90), || {
            let archived = Archived::read(&archive, settings.backup_id());
            let comparison = compare(&source, &archived);
            match comparison.findings.first() {
                None if comparison.damage.is_empty() => Ok(archived),
                Some(finding) => Err(format!("{} findings, {finding}", comparison.findings.len())),
                None => Err(comparison.damage.join(", ")),
            }
        });
        let sum = |name: &str| -> f64 {
            let counts = admins
                .iter()
                .map(|admin| admin_port::metric(admin, name).unwrap());
            counts.sum()
        };
        let missed = sum("teeline_missed_batches_total");
        let unresolved = sum("teeline_unresolved_intents_total");
        let fetched = fetched_batches(&source, &archived);
        note(&format!(
            "{}: {counts}; {fetched} batches were fetched, {missed} counted as missed, {unresolved} as unresolved",
            self.name
        ));
        assert!(
            fetched as f64 <= missed + unresolved,
            "{fetched} batches had to be fetched; {missed} were counted as missed, {unresolved} as unresolved"
        );
        Ended {
            topic: self.name,
            log: self.log,
        }
    }
}

/// Batches of the log that no captured segment has.
fn fetched_batches(source: &SourceLog, archived: &Archived) -> usize {
    let mut count = 0;
    for ((topic, partition), log) in &source.0 {
        let mut captured = OffsetSet::new();
        for segment in archived.segments_of(topic, &log.topic_id, *partition) {
            if segment.info.identity.origin == Origin::Tee {
                for batch in &segment.batches {
                    captured.insert(OffsetRange::new(batch.base_offset, batch.last_offset).unwrap());
                }
            }
        }
        count += log
            .batches
            .iter()
            .filter(|batch| !captured.contains(batch.base_offset))
            .count();
    }
    count
}

/// A load that has ended.
struct Ended {
    topic: &'static str,
    log: PathBuf,
}

impl Ended {
    /// Every record that was acknowledged is in the source, and a restore gives back what the source has.
    fn assert_restored(self, settings: &ProxySettings) {
        let sent = read_load_log(&self.log);
        let acknowledged = sent.iter().filter(|each| each.fate == Fate::Acknowledged).count();
        assert!(acknowledged > 0, "nothing was acknowledged");
        let source = STAGE.read_source(&[self.topic], Isolation::Committed);
        assert_acknowledged(&source, self.topic, &sent);
        STAGE.restore(settings, &[self.topic], &[]);
        assert_identical(&source, &STAGE.read_target(&[self.topic]));
    }
}

/// A file system in memory that is small enough to be filled. Mounting needs rights that not everybody has.
struct SmallDisk {
    path: PathBuf,
}

impl SmallDisk {
    fn mount(name: &str) -> Option<SmallDisk> {
        let path = STAGE.directory(name).join("disk");
        std::fs::create_dir_all(&path).unwrap();
        let size = format!("size={SMALL_BYTES}");
        let mounted = run("mount", &["-t", "tmpfs", "-o", &size, "tmpfs"], &path);
        if !mounted {
            note(&format!(
                "{name}: skipped, as mounting a small file system is not permitted here"
            ));
        }
        mounted.then_some(SmallDisk { path })
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a program of a test that failed may still be using it.
        run("umount", &["-l"], &self.path);
    }
}

fn run(program: &str, arguments: &[&str], path: &Path) -> bool {
    let output = Command::new(program).args(arguments).arg(path).output();
    output.is_ok_and(|output| output.status.success())
}
