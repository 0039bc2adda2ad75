//! Flame graphs of one program under load: perf samples it, and the picture is drawn from what `perf script` prints.

#![allow(clippy::print_stdout, reason = "its table is its purpose")]

mod draw;
mod stacks;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use clap::{Args, ValueEnum};
use teeline_tests::workdir::WorkDir;

use crate::both_ways::{Case, Place, backup_command, null_broker, source_arguments};
use crate::contenders::{Contender, NullKafka, Ways};
use crate::lean::Plan;
use crate::producer::{self, Load, RECORD_BYTES};
use crate::wire::{self, RealKafka};
use stacks::Frames;

/// Whose time is looked at, and under which load.
#[derive(Debug, Args)]
pub struct FlameArguments {
    /// Which way: haproxy, "no capture", async or durable.
    #[arg(long, default_value = "async")]
    contender: String,
    /// Which of its processes, or a backup from the null broker.
    #[arg(long, value_enum, default_value_t = Of::Proxy)]
    of: Of,
    /// Before real Kafka, with its own performance producer, instead of the null broker.
    #[arg(long)]
    kafka: bool,
    /// How segments of a backup are compressed: zstd, lz4 or none; its producers as `--codec` says.
    #[arg(long, default_value = "zstd")]
    archive: String,
    #[command(flatten)]
    plan: Plan,
    /// Samples a second.
    #[arg(long, default_value_t = 497)]
    frequency: u32,
    /// The directory of the picture.
    #[arg(long, default_value = "target/flame")]
    out: PathBuf,
}

/// A process of a contender, or a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Of {
    /// What clients connect to.
    Proxy,
    /// What archives behind it.
    Segmenter,
    /// A backup of 600 MB of records.
    Backup,
}

/// Runs the load, samples, and draws.
///
/// # Panics
/// When perf is missing or not allowed; the message says what to do.
pub fn run(arguments: &FlameArguments) {
    check_perf();
    let work = WorkDir::create("flame");
    let data = work.join("perf.data");
    match (arguments.of, arguments.kafka) {
        (Of::Backup, _) => of_backup(arguments, &data, &work),
        (_, true) => before_kafka(arguments, &data, &work),
        (_, false) => before_null(arguments, &data, &work),
    }
    show(&Frames::of(&script(&data)), arguments);
}

fn before_null(arguments: &FlameArguments, data: &Path, work: &WorkDir) {
    let plan = &arguments.plan;
    let kafka = NullKafka::start(plan.partitions, &[], work);
    let contender = contender(&kafka.ways, arguments, work);
    let pid = pid(&contender, arguments.of);
    let batches = plan.batches();
    eprintln!("warm up");
    let warm_up = Plan {
        seconds: 1.0,
        ..plan.clone()
    };
    warm_up.run(&contender, &batches, || ());
    eprintln!("sample {} for {} s", contender.name, plan.seconds);
    let mut recording = None;
    let measured = plan.run(&contender, &batches, || {
        recording = Some(record(pid, arguments, data));
    });
    finish(recording.expect("the load has begun"));
    println!("{:.0} MB/s while sampled", measured.mb_per_second());
}

fn before_kafka(arguments: &FlameArguments, data: &Path, work: &WorkDir) {
    let kafka = RealKafka::start();
    let contender = contender(&kafka.ways(None), arguments, work);
    let pid = pid(&contender, arguments.of);
    let topic = wire::topic(&contender);
    wire::create_topic(&kafka.kafka, &topic);
    let payloads = producer::write_payloads(work.path());
    let records_per_second = arguments
        .plan
        .rate
        .map(|rate| (rate * 1e6 / RECORD_BYTES as f64) as u64);
    // It ends before the sampling does, which takes no samples of who waits.
    let records = records_per_second.unwrap_or(FULL_SPEED) as f64 * arguments.plan.seconds * 0.8;
    let load = Load {
        version: contender.client_version(),
        bootstrap: &contender.bootstrap,
        topic: &topic,
        payloads: &payloads,
        records: records as u64,
        warm_up_records: 0,
        records_per_second,
        codec: arguments.plan.codec.name(),
    };
    eprintln!("warm up");
    load.run();
    eprintln!("sample {} for {} s", contender.name, arguments.plan.seconds);
    let recording = record(pid, arguments, data);
    let measured = load.run();
    finish(recording);
    println!("{:.0} MB/s while sampled", measured.mb_per_second);
}

fn of_backup(arguments: &FlameArguments, data: &Path, work: &WorkDir) {
    let case = Case {
        producers: arguments.plan.codec.name().to_owned(),
        archive: arguments.archive.clone(),
        store: "filesystem",
    };
    let sources = source_arguments(arguments.plan.partitions, BACKUP_RECORDS, &case.producers);
    let source = null_broker(&sources, work);
    let place = Place::new(&case, work);
    let backup = backup_command(&source.address, &case, &place, work);
    eprintln!("sample a backup: {}", case.label());
    let mut command = perf_record(arguments, data);
    command
        .arg("--")
        .arg(backup.get_program())
        .args(backup.get_args());
    finish(command.spawn().expect("start perf"));
}

fn contender(ways: &Ways, arguments: &FlameArguments, work: &WorkDir) -> Contender {
    let mut contenders = ways.start(work, std::slice::from_ref(&arguments.contender));
    contenders.pop().expect("the way that was asked for")
}

fn pid(contender: &Contender, of: Of) -> u32 {
    let pid = match of {
        Of::Segmenter => contender.segmenter_pid(),
        Of::Proxy | Of::Backup => contender.pid(),
    };
    pid.unwrap_or_else(|| panic!("{} has no such process", contender.name))
}

fn check_perf() {
    let version = Command::new("perf")
        .arg("--version")
        .stdout(Stdio::null())
        .status();
    assert!(
        version.is_ok_and(|status| status.success()),
        "perf is missing (hint: apt-get install linux-perf on Debian, linux-tools-$(uname -r) on Ubuntu)"
    );
    let paranoid = fs::read_to_string("/proc/sys/kernel/perf_event_paranoid").unwrap_or_default();
    if paranoid.trim().parse::<i32>().is_ok_and(|level| level > 1) {
        eprintln!(
            "kernel.perf_event_paranoid is {}: without root, the kernel's part may be missing",
            paranoid.trim()
        );
    }
}

fn record(pid: u32, arguments: &FlameArguments, data: &Path) -> Child {
    let mut command = perf_record(arguments, data);
    command
        .args(["--pid", &pid.to_string(), "--", "sleep"])
        .arg(arguments.plan.seconds.to_string());
    command.spawn().expect("start perf")
}

/// Stacks are unwound by the tables that every program has; programs need not be built for it.
fn perf_record(arguments: &FlameArguments, data: &Path) -> Command {
    let mut command = Command::new("perf");
    command
        .args(["record", "--call-graph", "dwarf,16384", "-F"])
        .arg(arguments.frequency.to_string())
        .arg("--output")
        .arg(data)
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    command
}

fn finish(recording: Child) {
    let output = recording.wait_with_output().expect("wait for perf");
    assert!(
        output.status.success(),
        "perf record: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

fn script(data: &Path) -> String {
    let output = Command::new("perf")
        // Inlined functions would take a lookup each, for minutes.
        .args(["script", "--no-inline", "--fields", "comm,ip,sym", "--input"])
        .arg(data)
        .output()
        .expect("run perf script");
    assert!(
        output.status.success(),
        "perf script: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn show(frames: &Frames, arguments: &FlameArguments) {
    println!(
        "{} samples; own time of the functions at the top:",
        frames.samples()
    );
    for (name, samples) in frames.own().into_iter().take(TOP_FUNCTIONS) {
        println!(
            "{:>6.1} %  {name}",
            samples as f64 * 100.0 / frames.samples().max(1) as f64
        );
    }
    let name = arguments.name();
    fs::create_dir_all(&arguments.out).expect("make the directory of the picture");
    let path = arguments.out.join(format!("{name}.svg"));
    let title = format!("{}, {} samples", name.replace('-', " "), frames.samples());
    fs::write(&path, draw::svg(frames, &title)).expect("write the picture");
    println!("drawn in {}", path.display());
}

impl FlameArguments {
    /// Of the picture: what was looked at.
    fn name(&self) -> String {
        let codec = self.plan.codec.name();
        let mut words = match self.of {
            Of::Backup => vec!["backup".to_owned(), codec.to_owned(), self.archive.clone()],
            Of::Proxy => vec![self.contender.replace(' ', "-"), "proxy".to_owned()],
            Of::Segmenter => vec![self.contender.replace(' ', "-"), "segmenter".to_owned()],
        };
        if self.of != Of::Backup {
            words.extend(self.kafka.then(|| "kafka".to_owned()));
            words.extend(self.plan.rate.map(|rate| format!("{rate}-mb")));
            words.extend((codec != "none").then(|| codec.to_owned()));
        }
        words.join("-")
    }
}

/// Records a second of a producer that goes as fast as it can.
const FULL_SPEED: u64 = 100_000;
const BACKUP_RECORDS: u64 = 600_000;
const TOP_FUNCTIONS: usize = 20;
