//! CPU per gigabyte of each contender, without Kafka's own cost: null broker, lean load, interleaved.

#![allow(clippy::print_stdout, reason = "its table is its purpose")]

use std::process::{Command, Stdio};
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use serde::Serialize;
use serde_json::json;
use teeline_tests::process::Process;
use teeline_tests::wait::{seconds, wait_until};
use teeline_tests::workdir::WorkDir;
use teeline_wire::codec::Compression;
use teeline_wire::records::BatchBuilder;

use crate::contenders::{Contender, Places};
use crate::load::{self, Measured, Pace, Stream};
use crate::producer::{RECORD_BYTES, event};
use crate::report::{self, Interval};

/// What is measured, and how long.
#[derive(Debug, Args)]
pub struct LeanArguments {
    /// How many rounds.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds of each run.
    #[arg(long, default_value_t = 4.0)]
    seconds: f64,
    /// Connections.
    #[arg(long, default_value_t = 4)]
    connections: usize,
    /// Partitions of the topic; connections take them in turn.
    #[arg(long, default_value_t = 6)]
    partitions: i32,
    /// Bytes of each record batch.
    #[arg(long, default_value_t = 65_536)]
    batch_bytes: usize,
    /// Batches of each request, for as many partitions.
    #[arg(long, default_value_t = 1)]
    batches: usize,
    /// Requests in flight on each connection.
    #[arg(long, default_value_t = 5)]
    in_flight: usize,
    /// Megabytes a second of all connections together; without it as fast as it goes.
    #[arg(long)]
    rate: Option<f64>,
    /// Only these contenders: direct, haproxy, "no capture", async, durable.
    #[arg(long)]
    only: Vec<String>,
    /// Keep the result under this directory, with date and commit.
    #[arg(long)]
    save: Option<std::path::PathBuf>,
}

#[derive(Debug, Default)]
struct Rounds {
    mb_per_second: Vec<f64>,
    cpu_per_gb: Vec<f64>,
    segmenter_cpu_per_gb: Vec<f64>,
    p50_ms: Vec<f64>,
    p99_ms: Vec<f64>,
    peak_mib: f64,
}

/// One line of the report.
#[derive(Debug, Serialize)]
struct Line {
    contender: &'static str,
    mb_per_second: f64,
    cpu_seconds_per_gb: f64,
    /// Of CPU per gigabyte, to HAProxy's in the same round.
    to_haproxy: Option<Interval>,
    segmenter_cpu_seconds_per_gb: f64,
    p50_ms: f64,
    p99_ms: f64,
    peak_mib: f64,
}

/// Runs it and prints the table.
pub fn run(arguments: &LeanArguments) {
    let work = WorkDir::create("lean");
    let places = Places::reserve();
    let _broker = start_broker(&places, arguments.partitions, &work);
    let mut contenders = places.start_all(&work);
    if !arguments.only.is_empty() {
        contenders.retain(|contender| arguments.only.iter().any(|name| name == contender.name));
    }
    let batch = batch(arguments.batch_bytes);
    let mut rounds: Vec<Rounds> = contenders.iter().map(|_| Rounds::default()).collect();
    for round in 0..=arguments.rounds {
        for (contender, rounds) in contenders.iter().zip(&mut rounds) {
            eprintln!("round {round} of {}: {}", arguments.rounds, contender.name);
            let before = (contender.cost(), contender.segmenter_cost());
            let measured = load_of(contender, arguments, &batch);
            let used = contender.cost() - before.0;
            contender.settle();
            // The first round only warms up.
            if round > 0 {
                let segmenter = contender.segmenter_cost() - before.1;
                rounds.note(&measured, used.cpu_seconds, segmenter.cpu_seconds);
            }
            rounds.peak_mib = used.peak_mib;
        }
    }
    let haproxy = contenders
        .iter()
        .position(|contender| contender.name == "haproxy")
        .map(|at| rounds[at].cpu_per_gb.clone());
    let lines: Vec<Line> = contenders
        .iter()
        .zip(&rounds)
        .map(|(contender, rounds)| rounds.line(contender.name, haproxy.as_deref()))
        .collect();
    print!("{}", table(&lines));
    if let Some(directory) = &arguments.save {
        let run = json!({
            "rounds": arguments.rounds, "seconds": arguments.seconds, "connections": arguments.connections,
            "partitions": arguments.partitions, "batch_bytes": batch.len(), "batches": arguments.batches,
            "in_flight": arguments.in_flight, "rate_mb_per_second": arguments.rate,
        });
        report::keep(directory, "lean", json!({"run": run, "contenders": lines}));
    }
}

fn start_broker(places: &Places, partitions: i32, work: &WorkDir) -> Process {
    let own = std::env::current_exe().expect("the path of this program");
    let mut command = Command::new(own);
    command
        .args(["null-broker", "--partitions", &partitions.to_string()])
        .args(places.arguments());
    let log = work.join("null-broker.log");
    let broker = Process::start_with("null broker", command, &log, Stdio::null(), None);
    for place in places.arguments() {
        let address = place.split('=').next().unwrap_or_default().to_owned();
        wait_until("the null broker to listen", seconds(20), || {
            std::net::TcpStream::connect(&address).is_ok()
        });
    }
    broker
}

fn load_of(contender: &Contender, arguments: &LeanArguments, batch: &Bytes) -> Measured {
    let partitions = arguments.partitions.unsigned_abs() as usize;
    let streams = (0..arguments.connections).map(|connection| Stream {
        address: contender.address.clone(),
        topic: "lean".to_owned(),
        batches: (0..arguments.batches)
            .map(|index| ((connection + index) % partitions) as i32)
            .map(|partition| (partition, batch.clone()))
            .collect(),
    });
    let pace = match arguments.rate {
        None => Pace::Closed {
            in_flight: arguments.in_flight,
        },
        Some(mb) => {
            let request_bytes = (batch.len() * arguments.batches) as f64;
            let each = mb * 1e6 / arguments.connections as f64 / request_bytes;
            Pace::Open {
                every: Duration::from_secs_f64(1.0 / each),
            }
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let duration = Duration::from_secs_f64(arguments.seconds);
    runtime
        .block_on(load::produce(streams.collect(), pace, duration))
        .unwrap_or_else(|error| panic!("the load through {}: {error}", contender.name))
}

/// A batch of JSON records, as a producer without compression sends it.
fn batch(bytes: usize) -> Bytes {
    let mut builder = BatchBuilder::new(Compression::None);
    let mut number = 0;
    while number == 0 || builder.uncompressed_bytes() + RECORD_BYTES as usize <= bytes {
        let value = event(number);
        builder
            .push(1_700_000_000_000, None, Some(value.as_bytes()), &[])
            .expect("a record fits");
        number += 1;
    }
    let batch = builder.build().expect("a batch").expect("with records");
    batch.into_bytes()
}

impl Rounds {
    fn note(&mut self, measured: &Measured, cpu: f64, segmenter_cpu: f64) {
        let gigabytes = measured.bytes as f64 / 1e9;
        self.mb_per_second.push(measured.mb_per_second());
        self.cpu_per_gb.push(cpu / gigabytes);
        self.segmenter_cpu_per_gb.push(segmenter_cpu / gigabytes);
        self.p50_ms.push(measured.quantile(0.5).as_secs_f64() * 1e3);
        self.p99_ms.push(measured.quantile(0.99).as_secs_f64() * 1e3);
    }

    fn line(&self, contender: &'static str, haproxy: Option<&[f64]>) -> Line {
        let median = |values: &[f64]| report::median(values.iter().copied());
        Line {
            contender,
            mb_per_second: median(&self.mb_per_second),
            cpu_seconds_per_gb: median(&self.cpu_per_gb),
            to_haproxy: haproxy.map(|haproxy| Interval::of_ratio(&self.cpu_per_gb, haproxy)),
            segmenter_cpu_seconds_per_gb: median(&self.segmenter_cpu_per_gb),
            p50_ms: median(&self.p50_ms),
            p99_ms: median(&self.p99_ms),
            peak_mib: self.peak_mib,
        }
    }
}

fn table(lines: &[Line]) -> String {
    let mut text = format!(
        "{:<12} {:>9} {:>12} {:>22} {:>12} {:>9} {:>9} {:>9}\n",
        "contender", "MB/s", "CPU-s per GB", "to HAProxy (95 %)", "segmenter", "p50 ms", "p99 ms", "peak MiB"
    );
    for line in lines {
        let ratio = line.to_haproxy.as_ref().map_or_else(String::new, |ratio| {
            format!("{:.2} ({:.2}–{:.2})", ratio.median, ratio.low, ratio.high)
        });
        text.push_str(&format!(
            "{:<12} {:>9.1} {:>12.3} {ratio:>22} {:>12.3} {:>9.2} {:>9.2} {:>9.1}\n",
            line.contender,
            line.mb_per_second,
            line.cpu_seconds_per_gb,
            line.segmenter_cpu_seconds_per_gb,
            line.p50_ms,
            line.p99_ms,
            line.peak_mib,
        ));
    }
    text
}
