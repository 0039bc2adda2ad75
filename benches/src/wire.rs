//! Produce throughput, latency, CPU and memory with real Kafka and its own performance producer, each way in turns.

#![allow(clippy::print_stdout, reason = "its table is its purpose")]

use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;
use serde_json::json;
use teeline_tests::kafka::Kafka;
use teeline_tests::workdir::WorkDir;

use crate::arguments::counts;
use crate::backup::topic_command;
use crate::contenders::{Contender, DIRECT, HAPROXY, NO_CAPTURE, Ways};
use crate::lean::{in_turn, position};
use crate::producer::{self, Load, Measured, RECORD_BYTES};
use crate::report::{self, Interval, median, ratio_text};

/// What is measured, and how long.
#[derive(Debug, Args)]
pub struct WireArguments {
    /// How many rounds.
    #[arg(long, default_value_t = 6, value_parser = counts())]
    rounds: usize,
    /// Records of 1 KiB per run at full speed.
    #[arg(long, default_value_t = 400_000, value_parser = clap::value_parser!(u64).range(1..))]
    records: u64,
    /// Records per second of the steady runs: 20 MB a second.
    #[arg(long, default_value_t = 19_531, value_parser = clap::value_parser!(u64).range(1..))]
    steady_rate: u64,
    /// Seconds of a steady run that count, beside those in which it warms up.
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u64).range(1..))]
    steady_seconds: u64,
    /// Not with lz4.
    #[arg(long)]
    no_lz4: bool,
    /// Only these contenders: direct, haproxy, "haproxy tuned", shotover, "no capture", async, durable.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Shotover's program, to measure it as well. Without it `shotover-proxy` is taken where PATH has it.
    #[arg(long)]
    shotover: Option<PathBuf>,
    /// Keep the result under this directory, with date and commit.
    #[arg(long)]
    save: Option<PathBuf>,
}

/// One broker with a listener for each proxy that passes addresses on as they are.
pub struct RealKafka {
    /// It.
    pub kafka: Kafka,
}

impl RealKafka {
    /// Starts it.
    pub fn start() -> RealKafka {
        let mut kafka = Kafka::prepare_with(1, LISTENERS, &[]);
        kafka.start_all();
        RealKafka { kafka }
    }

    /// The ways to it; Shotover's with its program, or one from PATH.
    pub fn ways(&self, shotover: Option<&Path>) -> Ways {
        let address = |index| self.kafka.address(index);
        let program = shotover.map(Path::to_owned).or_else(|| {
            let paths = std::env::var_os("PATH")?;
            std::env::split_paths(&paths)
                .map(|directory| directory.join("shotover-proxy"))
                .find(|program| program.is_file())
        });
        Ways {
            direct: self.kafka.bootstrap(),
            haproxy: (address(3), address(4)),
            haproxy_tuned: (address(7), address(8)),
            shotover: program.map(|program| (address(5), address(6), program)),
        }
    }
}

/// One kind of run, all rounds of it.
#[derive(Debug, Default, Clone)]
struct Runs {
    measured: Vec<Measured>,
    cpu_per_gb: Vec<f64>,
    segmenter_cpu_per_gb: Vec<f64>,
}

#[derive(Debug, Default, Clone)]
struct Rounds {
    full: Runs,
    lz4: Runs,
    steady: Runs,
}

/// One line of the report: medians over the rounds. Gigabytes are of records before compression.
#[derive(Debug, Serialize)]
struct Line {
    contender: &'static str,
    /// Of records, 10^6 bytes, at full speed.
    mb_per_second: f64,
    throughput_to_direct: Option<Interval>,
    throughput_to_no_capture: Option<Interval>,
    /// Of the proxy without the segmenter, at full speed.
    cpu_seconds_per_gb: f64,
    cpu_to_haproxy: Option<Interval>,
    segmenter_cpu_seconds_per_gb: f64,
    /// Of both.
    capture_cpu_seconds_per_gb: f64,
    lz4_mb_per_second: f64,
    lz4_cpu_seconds_per_gb: f64,
    lz4_cpu_to_haproxy: Option<Interval>,
    steady_cpu_seconds_per_gb: f64,
    steady_cpu_to_haproxy: Option<Interval>,
    steady_p50_ms: f64,
    steady_p99_ms: f64,
    /// Over the worse of HAProxy's and the direct way's in the same round.
    steady_p99_over_ms: Option<Interval>,
    steady_p999_ms: f64,
    peak_mib: f64,
    segmenter_peak_mib: f64,
}

/// Runs it and prints the table.
pub fn run(arguments: &WireArguments) {
    let work = WorkDir::create("wire");
    let kafka = RealKafka::start();
    let contenders = kafka
        .ways(arguments.shotover.as_deref())
        .start(&work, &arguments.only);
    let payloads = producer::write_payloads(work.path());
    for contender in &contenders {
        create_topic(&kafka.kafka, &topic(contender));
    }
    let mut rounds = vec![Rounds::default(); contenders.len()];
    for round in 0..=arguments.rounds {
        for at in in_turn(round, contenders.len()) {
            let contender = &contenders[at];
            eprintln!("round {round} of {}: {}", arguments.rounds, contender.name);
            if round == 0 {
                // The first seconds of a topic are nobody's measure; those of each JVM are left out by the producer.
                let mut warm_up = Runs::default();
                warm_up.run(contender, &payloads, (0, arguments.records / 4), None, "none");
                continue;
            }
            let rounds = &mut rounds[at];
            let (records, rate) = ((arguments.records / 4, arguments.records), arguments.steady_rate);
            rounds.full.run(contender, &payloads, records, None, "none");
            if !arguments.no_lz4 {
                rounds.lz4.run(contender, &payloads, records, None, "lz4");
            }
            let steady = (rate * WARM_UP_SECONDS, rate * arguments.steady_seconds);
            rounds
                .steady
                .run(contender, &payloads, steady, Some(rate), "none");
        }
    }
    let of = |name| position(&contenders, name).map(|at| &rounds[at]);
    let bases = (of(DIRECT), of(HAPROXY), of(NO_CAPTURE));
    let lines: Vec<Line> = contenders
        .iter()
        .zip(&rounds)
        .map(|(contender, rounds)| Line::of(contender, rounds, bases))
        .collect();
    print!("{}", table(&lines));
    if let Some(directory) = &arguments.save {
        let run = json!({
            "rounds": arguments.rounds, "records": arguments.records, "record_bytes": RECORD_BYTES,
            "steady_records_per_second": arguments.steady_rate, "steady_seconds": arguments.steady_seconds,
            "steady_warm_up_seconds": WARM_UP_SECONDS,
            "acks": "all", "linger_ms": 5, "batch_bytes": 65_536, "partitions": 6,
        });
        report::keep(directory, "wire", &[], json!({"run": run, "contenders": lines}));
    }
}

impl Runs {
    /// Records are those that warm up and those that count; the proxy pays for both.
    fn run(
        &mut self,
        contender: &Contender,
        payloads: &Path,
        (warm_up_records, counted): (u64, u64),
        records_per_second: Option<u64>,
        codec: &str,
    ) {
        let bill = contender.bill();
        let records = warm_up_records + counted;
        let load = Load {
            version: contender.client_version(),
            bootstrap: &contender.bootstrap,
            topic: &topic(contender),
            payloads,
            records,
            warm_up_records,
            records_per_second,
            codec,
        };
        let measured = load.run();
        let (used, segmenter) = bill.settled();
        let gigabytes = (records * RECORD_BYTES) as f64 / 1e9;
        self.measured.push(measured);
        self.cpu_per_gb.push(used.cpu_seconds / gigabytes);
        self.segmenter_cpu_per_gb.push(segmenter.cpu_seconds / gigabytes);
    }

    fn all(&self, value: fn(&Measured) -> f64) -> Vec<f64> {
        self.measured.iter().map(value).collect()
    }

    fn middle(&self, value: fn(&Measured) -> f64) -> f64 {
        median(self.measured.iter().map(value))
    }

    fn rates(&self) -> Vec<f64> {
        self.all(|measured| measured.mb_per_second)
    }

    fn cpu(&self) -> f64 {
        median(self.cpu_per_gb.iter().copied())
    }
}

/// The rounds of the direct way, of HAProxy and of Teeline without capture.
type Bases<'a> = (Option<&'a Rounds>, Option<&'a Rounds>, Option<&'a Rounds>);

impl Line {
    fn of(contender: &Contender, rounds: &Rounds, (direct, haproxy, no_capture): Bases<'_>) -> Line {
        let haproxy = haproxy.filter(|_| contender.pid().is_some());
        let rate_to =
            |base: Option<&Rounds>| Some(Interval::of_ratio(&rounds.full.rates(), &base?.full.rates()));
        let cpu_to =
            |own: &Runs, base: Option<&Runs>| Some(Interval::of_ratio(&own.cpu_per_gb, &base?.cpu_per_gb));
        let segmenter_cpu = median(rounds.full.segmenter_cpu_per_gb.iter().copied());
        let p99 = |rounds: &Rounds| rounds.steady.all(|it| it.p99_ms);
        let p99_over = |direct, haproxy| Interval::of_excess(&p99(rounds), &[p99(direct), p99(haproxy)]);
        Line {
            contender: contender.name,
            mb_per_second: rounds.full.middle(|it| it.mb_per_second),
            throughput_to_direct: rate_to(direct),
            throughput_to_no_capture: rate_to(no_capture),
            cpu_seconds_per_gb: rounds.full.cpu(),
            cpu_to_haproxy: cpu_to(&rounds.full, haproxy.map(|it| &it.full)),
            segmenter_cpu_seconds_per_gb: segmenter_cpu,
            capture_cpu_seconds_per_gb: rounds.full.cpu() + segmenter_cpu,
            lz4_mb_per_second: rounds.lz4.middle(|it| it.mb_per_second),
            lz4_cpu_seconds_per_gb: rounds.lz4.cpu(),
            lz4_cpu_to_haproxy: cpu_to(&rounds.lz4, haproxy.map(|it| &it.lz4)),
            steady_cpu_seconds_per_gb: rounds.steady.cpu(),
            steady_cpu_to_haproxy: cpu_to(&rounds.steady, haproxy.map(|it| &it.steady)),
            steady_p50_ms: rounds.steady.middle(|it| it.p50_ms),
            steady_p99_ms: rounds.steady.middle(|it| it.p99_ms),
            steady_p99_over_ms: direct
                .zip(haproxy)
                .map(|(direct, haproxy)| p99_over(direct, haproxy)),
            steady_p999_ms: rounds.steady.middle(|it| it.p999_ms),
            peak_mib: contender.cost().peak_mib,
            segmenter_peak_mib: contender.segmenter_cost().peak_mib,
        }
    }
}

/// The topic of a way of its own.
pub(crate) fn topic(contender: &Contender) -> String {
    format!("wire-{}", contender.name.replace(' ', "-"))
}

pub(crate) fn create_topic(kafka: &Kafka, topic: &str) {
    // Old segments go quickly: the benchmark measures the way to the broker, not its disk's size.
    let small = [
        "--config",
        "retention.bytes=134217728",
        "--config",
        "segment.bytes=67108864",
    ];
    let create = ["--create", "--topic", topic, "--partitions", PARTITIONS];
    topic_command(kafka, &[create.as_slice(), small.as_slice()].concat());
}

fn table(lines: &[Line]) -> String {
    let mut text = format!(
        "{:<11} {:>6} {:>17} {:>6} {:>17} {:>6} {:>6} {:>17} {:>5} {:>5} {:>6} {:>6} {:>17} {:>7} {:>9}\n",
        "contender",
        "MB/s",
        "of direct",
        "CPU/GB",
        "to HAProxy",
        "segm.",
        "lz4",
        "CPU to HAProxy",
        "p50",
        "p99",
        "p99.9",
        "steady",
        "CPU to HAProxy",
        "MiB",
        "segm. MiB"
    );
    for line in lines {
        text.push_str(&format!(
            "{:<11} {:>6.0} {:>17} {:>6.3} {:>17} {:>6.2} {:>6.0} {:>17} {:>5.0} {:>5.0} {:>6.0} {:>6.2} {:>17} {:>7.1} {:>9.1}\n",
            line.contender,
            line.mb_per_second,
            ratio_text(line.throughput_to_direct.as_ref()),
            line.cpu_seconds_per_gb,
            ratio_text(line.cpu_to_haproxy.as_ref()),
            line.segmenter_cpu_seconds_per_gb,
            line.lz4_mb_per_second,
            ratio_text(line.lz4_cpu_to_haproxy.as_ref()),
            line.steady_p50_ms,
            line.steady_p99_ms,
            line.steady_p999_ms,
            line.steady_cpu_seconds_per_gb,
            ratio_text(line.steady_cpu_to_haproxy.as_ref()),
            line.peak_mib,
            line.segmenter_peak_mib,
        ));
    }
    text
}

const PARTITIONS: &str = "6";
/// Of each steady run, before what counts.
const WARM_UP_SECONDS: u64 = 3;
const LISTENERS: &str = "listeners=PLAINTEXT://{address 0},BALANCED://{address 3},DECODED://{address 5},TUNED://{address 7},CONTROLLER://{address 10}\n\
                         advertised.listeners=PLAINTEXT://{address 0},BALANCED://{address 4},DECODED://{address 6},TUNED://{address 8}\n\
                         listener.security.protocol.map=PLAINTEXT:PLAINTEXT,BALANCED:PLAINTEXT,DECODED:PLAINTEXT,TUNED:PLAINTEXT,CONTROLLER:PLAINTEXT\n\
                         log.retention.check.interval.ms=10000\n";
