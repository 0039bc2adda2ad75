//! CPU per gigabyte of each contender, without Kafka's own cost: null broker, lean load, interleaved.

#![allow(clippy::print_stdout, reason = "its table is its purpose")]

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use serde::Serialize;
use serde_json::{Value, json};
use teeline_tests::workdir::WorkDir;
use teeline_wire::codec::Compression;
use teeline_wire::records::BatchBuilder;

use crate::arguments::{counts, positive};
use crate::contenders::{Contender, DIRECT, DURABLE, HAPROXY, NO_CAPTURE, NullKafka};
use crate::limits;
use crate::load::{self, Measured, Pace, Stream};
use crate::null_broker::compression;
use crate::producer::{RECORD_BYTES, event};
use crate::report::{self, Interval, median};

/// What is measured, and how long.
#[derive(Debug, Args)]
pub struct LeanArguments {
    /// How many rounds, beside one that warms up.
    #[arg(long, default_value_t = 6, value_parser = counts())]
    rounds: usize,
    #[command(flatten)]
    plan: Plan,
    /// Only these contenders: direct, haproxy, "haproxy tuned", "no capture", async, durable.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Keep the result under this directory, with date and commit.
    #[arg(long)]
    save: Option<PathBuf>,
}

/// The load of one run.
#[derive(Debug, Clone, Args)]
pub struct Plan {
    /// Seconds of each run.
    #[arg(long, default_value_t = 3.0, value_parser = positive)]
    pub seconds: f64,
    /// Connections.
    #[arg(long, default_value_t = 4, value_parser = counts())]
    pub connections: usize,
    /// Partitions of the topic; requests take them in turn.
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(i32).range(1..))]
    pub partitions: i32,
    /// Bytes of each record batch, before compression.
    #[arg(long, default_value_t = BATCH_BYTES, value_parser = counts())]
    pub batch_bytes: usize,
    /// Batches of each request, for as many partitions.
    #[arg(long, default_value_t = 1, value_parser = counts())]
    pub batches: usize,
    /// As producers compress them: none, gzip, snappy, lz4 or zstd.
    #[arg(long, default_value = "none", value_parser = compression)]
    pub codec: Compression,
    /// Requests in flight on each connection.
    #[arg(long, default_value_t = 5, value_parser = counts())]
    pub in_flight: usize,
    /// Megabytes a second of all connections together; without it as fast as it goes.
    #[arg(long, value_parser = positive)]
    pub rate: Option<f64>,
}

impl Plan {
    /// For the report.
    pub fn json(&self) -> Value {
        json!({
            "seconds": self.seconds, "connections": self.connections, "partitions": self.partitions,
            "batch_bytes": self.batch_bytes, "batches_per_request": self.batches,
            "compression": self.codec.name(), "in_flight": self.in_flight,
            "rate_mb_per_second": self.rate,
        })
    }

    /// Different ones, so that a segmenter finds what it would find in real records.
    pub fn batches(&self) -> Arc<[Bytes]> {
        let records = (self.batch_bytes / RECORD_BYTES as usize).max(1) as u64;
        let count = (BATCH_BYTES_IN_ALL / self.batch_bytes.max(1)).clamp(1, BATCHES_MAX) as u64;
        let batch = |index| batch(self.codec, index * records, self.batch_bytes);
        (0..count).map(batch).collect()
    }

    /// Runs the load through a contender, and says when it begins.
    ///
    /// # Panics
    /// When the load does not get through.
    pub fn run(&self, contender: &Contender, batches: &Arc<[Bytes]>, begins: impl FnOnce()) -> Measured {
        let apart = batches.len() / self.connections.clamp(1, batches.len());
        let streams = (0..self.connections).map(|connection| Stream {
            address: contender.address.clone(),
            topic: TOPIC.to_owned(),
            partitions: rotated(self.partitions, connection),
            batches: Arc::clone(batches),
            first: connection * apart,
            batches_per_request: self.batches,
        });
        let pace = self.pace(batches);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let duration = Duration::from_secs_f64(self.seconds);
        runtime
            .block_on(load::produce(streams.collect(), pace, duration, begins))
            .unwrap_or_else(|error| panic!("the load through {}: {error}", contender.name))
    }

    fn pace(&self, batches: &Arc<[Bytes]>) -> Pace {
        let Some(rate) = self.rate else {
            return Pace::Closed {
                in_flight: self.in_flight,
            };
        };
        let mean = batches.iter().map(Bytes::len).sum::<usize>() as f64 / batches.len() as f64;
        let request_bytes = mean * self.batches as f64;
        let requests_each = rate * 1e6 / self.connections as f64 / request_bytes;
        Pace::Open {
            every: Duration::from_secs_f64(1.0 / requests_each),
        }
    }
}

/// All partitions, from another one on for each connection.
fn rotated(partitions: i32, connection: usize) -> Vec<i32> {
    let mut all: Vec<i32> = (0..partitions).collect();
    let first = connection % all.len();
    all.rotate_left(first);
    all
}

/// A batch of JSON records, as a producer sends it.
fn batch(codec: Compression, first: u64, bytes: usize) -> Bytes {
    let mut builder = BatchBuilder::new(codec);
    let mut number = 0;
    while number == 0 || builder.uncompressed_bytes() + RECORD_BYTES as usize <= bytes {
        let mut value = event(first + number);
        // A batch that is to be smaller than a record has a smaller record.
        value.truncate(bytes);
        builder
            .push(1_700_000_000_000, None, Some(value.as_bytes()), &[])
            .expect("a record fits");
        number += 1;
    }
    let batch = builder.build().expect("a batch").expect("with records");
    batch.into_bytes()
}

/// All rounds of one contender.
#[derive(Debug, Default, Clone)]
pub struct Rounds {
    /// Of record batches.
    pub mb_per_second: Vec<f64>,
    /// Of the process in the middle.
    pub cpu_per_gb: Vec<f64>,
    segmenter_cpu_per_gb: Vec<f64>,
    p50_ms: Vec<f64>,
    p99_ms: Vec<f64>,
    p999_ms: Vec<f64>,
}

impl Rounds {
    /// Runs the load through the contender once, and notes what it took.
    pub fn run(&mut self, contender: &Contender, plan: &Plan, batches: &Arc<[Bytes]>) {
        let mut bill = contender.bill();
        let measured = plan.run(contender, batches, || bill = contender.bill());
        let (used, segmenter) = bill.settled();
        let gigabytes = measured.bytes as f64 / 1e9;
        self.mb_per_second.push(measured.mb_per_second());
        self.cpu_per_gb.push(used.cpu_seconds / gigabytes);
        self.segmenter_cpu_per_gb.push(segmenter.cpu_seconds / gigabytes);
        let ms = |part| measured.quantile(part).as_secs_f64() * 1e3;
        self.p50_ms.push(ms(0.5));
        self.p99_ms.push(ms(0.99));
        self.p999_ms.push(ms(0.999));
    }
}

/// One line of the report: medians over the rounds.
#[derive(Debug, Serialize)]
struct Line {
    contender: &'static str,
    mb_per_second: f64,
    /// Of the proxy, without a segmenter.
    cpu_seconds_per_gb: f64,
    /// Of CPU per gigabyte, to HAProxy's in the same round.
    cpu_to_haproxy: Option<Interval>,
    segmenter_cpu_seconds_per_gb: f64,
    /// Of both.
    capture_cpu_seconds_per_gb: f64,
    p50_ms: f64,
    p99_ms: f64,
    /// Over the worse of HAProxy's and the direct way's in the same round.
    p99_over_ms: Option<Interval>,
    p999_ms: f64,
    peak_mib: f64,
    segmenter_peak_mib: f64,
    /// Of both.
    capture_peak_mib: f64,
    /// Of the segmenter's CPU, to zstd's own for the same bytes in the same round, at zstd's default level.
    segmenter_to_zstd: Option<Interval>,
    /// The same at level 1, which the segmenter chooses for JSON.
    segmenter_to_zstd_1: Option<Interval>,
    /// Mean of the buffer's own syncs, those of other files on the same disk waited for.
    own_sync_ms: Option<f64>,
    /// What it adds to the median without capture, as a multiple of one sync of a file of its own.
    added_to_sync: Option<f64>,
}

/// What one line is held against.
struct Yardsticks<'a> {
    direct: Option<&'a Rounds>,
    haproxy: Option<&'a Rounds>,
    no_capture: Option<&'a Rounds>,
    sync_ms: f64,
    /// In each round, by level as [`limits::ZSTD_LEVELS`].
    zstd_cpu_seconds_per_gb: [Vec<f64>; 2],
}

impl Line {
    fn of(contender: &Contender, rounds: &Rounds, beside: &Yardsticks<'_>) -> Line {
        let median = |values: &[f64]| median(values.iter().copied());
        let is_proxy = contender.pid().is_some();
        let segmenter_cpu = median(&rounds.segmenter_cpu_per_gb);
        let captures = contender.segmenter_pid().is_some();
        let to_zstd =
            |zstd_cpu: &[f64]| captures.then(|| Interval::of_ratio(&rounds.segmenter_cpu_per_gb, zstd_cpu));
        let is_durable = contender.name == DURABLE;
        let added_ms = beside
            .no_capture
            .map(|others| median(&rounds.p50_ms) - median(&others.p50_ms));
        Line {
            contender: contender.name,
            mb_per_second: median(&rounds.mb_per_second),
            cpu_seconds_per_gb: median(&rounds.cpu_per_gb),
            cpu_to_haproxy: beside
                .haproxy
                .filter(|_| is_proxy)
                .map(|haproxy| Interval::of_ratio(&rounds.cpu_per_gb, &haproxy.cpu_per_gb)),
            segmenter_cpu_seconds_per_gb: segmenter_cpu,
            capture_cpu_seconds_per_gb: median(&rounds.cpu_per_gb) + segmenter_cpu,
            p50_ms: median(&rounds.p50_ms),
            p99_ms: median(&rounds.p99_ms),
            p99_over_ms: beside
                .direct
                .zip(beside.haproxy)
                .filter(|_| is_proxy)
                .map(|(direct, haproxy)| {
                    Interval::of_excess(&rounds.p99_ms, &[direct.p99_ms.clone(), haproxy.p99_ms.clone()])
                }),
            p999_ms: median(&rounds.p999_ms),
            peak_mib: contender.cost().peak_mib,
            segmenter_peak_mib: contender.segmenter_cost().peak_mib,
            capture_peak_mib: contender.capture_peak_mib(),
            segmenter_to_zstd: to_zstd(&beside.zstd_cpu_seconds_per_gb[0]),
            segmenter_to_zstd_1: to_zstd(&beside.zstd_cpu_seconds_per_gb[1]),
            own_sync_ms: contender
                .mean_ms("teeline_buffer_sync_seconds")
                .filter(|_| is_durable),
            added_to_sync: added_ms.filter(|_| is_durable).map(|ms| ms / beside.sync_ms),
        }
    }
}

/// Runs it and prints the table.
pub fn run(arguments: &LeanArguments) {
    let plan = &arguments.plan;
    let work = WorkDir::create("lean");
    let kafka = NullKafka::start(plan.partitions, &[], &work);
    let contenders = kafka.ways.start(&work, &arguments.only);
    let batches = plan.batches();
    let sync_ms = limits::sync_ms(work.path(), batches.first().expect("a batch"));
    let mut rounds = vec![Rounds::default(); contenders.len()];
    let (mut plain_writes, mut zstd) = (Vec::new(), [Vec::new(), Vec::new()]);
    for round in 0..=arguments.rounds {
        if round > 0 {
            plain_writes.push(limits::write_cpu_seconds_per_gb(work.path(), &batches));
            for (level, found) in limits::ZSTD_LEVELS.iter().zip(&mut zstd) {
                found.push(limits::zstd_cpu_seconds_per_gb(&batches, *level));
            }
        }
        // The first round only warms up.
        let mut warm_up = Rounds::default();
        for at in in_turn(round, contenders.len()) {
            let contender = &contenders[at];
            eprintln!("round {round} of {}: {}", arguments.rounds, contender.name);
            let rounds = match round {
                0 => &mut warm_up,
                _ => &mut rounds[at],
            };
            rounds.run(contender, plan, &batches);
        }
    }
    let write_cpu_seconds_per_gb = median(plain_writes.into_iter());
    let zstd_median = zstd.each_ref().map(|found| median(found.iter().copied()));
    let of = |name| position(&contenders, name).map(|at| &rounds[at]);
    let beside = Yardsticks {
        direct: of(DIRECT),
        haproxy: of(HAPROXY),
        no_capture: of(NO_CAPTURE),
        sync_ms,
        zstd_cpu_seconds_per_gb: zstd,
    };
    let lines: Vec<Line> = contenders
        .iter()
        .zip(&rounds)
        .map(|(contender, rounds)| Line::of(contender, rounds, &beside))
        .collect();
    print!("{}", table(&lines));
    println!("one sync of a file that grew by a batch: {sync_ms:.2} ms at the median");
    println!("plain writes alone: {write_cpu_seconds_per_gb:.2} CPU-s per GB");
    for (level, cpu_seconds) in limits::ZSTD_LEVELS.iter().zip(zstd_median) {
        println!("zstd alone, level {level}: {cpu_seconds:.2} CPU-s per GB of these batches");
    }
    for line in &lines {
        if let (Some(own), Some(added)) = (line.own_sync_ms, line.added_to_sync) {
            println!(
                "durable: {own:.2} ms a sync under this load; adds {added:.1} of the syncs alone to the median"
            );
        }
    }
    if let Some(directory) = &arguments.save {
        let mut run = plan.json();
        run["rounds"] = json!(arguments.rounds);
        run["sync_ms"] = json!(sync_ms);
        run["plain_writes_cpu_seconds_per_gb"] = json!(write_cpu_seconds_per_gb);
        run["zstd_cpu_seconds_per_gb"] = json!(zstd_median[0]);
        run["zstd_1_cpu_seconds_per_gb"] = json!(zstd_median[1]);
        report::keep(
            directory,
            &kind("lean", plan),
            &["--rate", "--codec", "--batch-bytes"],
            json!({"run": run, "contenders": lines}),
        );
    }
}

/// The kind of a result: its name, and what is not as usual, so that nothing else is taken for what is promised.
fn kind(name: &str, plan: &Plan) -> String {
    let mut kind = name.to_owned();
    if plan.rate == Some(PROMISED_RATE) && plan.batch_bytes == STEADY_BATCH_BYTES {
        kind.push_str("-steady");
    } else {
        if let Some(rate) = plan.rate {
            kind.push_str(&format!("-at-{rate}"));
        }
        if plan.batch_bytes != BATCH_BYTES {
            kind.push_str(&format!("-by-{}", plan.batch_bytes));
        }
    }
    if plan.codec != Compression::None {
        kind.push_str(&format!("-{}", plan.codec.name()));
    }
    kind
}

/// The places from 0 on, each round from another one on and every other round backwards: whoever comes after a certain
/// other one has its caches, and its dirty pages.
pub fn in_turn(round: usize, count: usize) -> impl Iterator<Item = usize> {
    (0..count).map(move |index| match round % 2 {
        0 => (index + round) % count,
        _ => (round + count - index) % count,
    })
}

/// Where a contender of this name stands.
pub fn position(contenders: &[Contender], name: &str) -> Option<usize> {
    contenders.iter().position(|contender| contender.name == name)
}

fn table(lines: &[Line]) -> String {
    let mut text = format!(
        "{:<12} {:>8} {:>12} {:>19} {:>10} {:>8} {:>8} {:>9} {:>9} {:>10}\n",
        "contender",
        "MB/s",
        "CPU-s per GB",
        "to HAProxy (95 %)",
        "segmenter",
        "p50 ms",
        "p99 ms",
        "p99.9 ms",
        "peak MiB",
        "segmenter"
    );
    for line in lines {
        let ratio = report::ratio_text(line.cpu_to_haproxy.as_ref());
        text.push_str(&format!(
            "{:<12} {:>8.0} {:>12.3} {ratio:>19} {:>10.3} {:>8.2} {:>8.2} {:>9.2} {:>9.1} {:>10.1}\n",
            line.contender,
            line.mb_per_second,
            line.cpu_seconds_per_gb,
            line.segmenter_cpu_seconds_per_gb,
            line.p50_ms,
            line.p99_ms,
            line.p999_ms,
            line.peak_mib,
            line.segmenter_peak_mib,
        ));
    }
    text
}

/// Of promises at a steady rate, in megabytes a second, and the batches of it: there the cost is per request.
const PROMISED_RATE: f64 = 20.0;
const STEADY_BATCH_BYTES: usize = 16_384;
/// The size to which Kafka's own performance producer is set, too.
pub const BATCH_BYTES: usize = 65_536;
/// The topic of all lean loads.
pub const TOPIC: &str = "lean";
/// More than the window in which zstd finds what came before, for each of several connections.
const BATCH_BYTES_IN_ALL: usize = 12 << 20;
const BATCHES_MAX: usize = 4_096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_contender_is_first_in_its_turn() {
        assert_eq!(in_turn(0, 3).collect::<Vec<_>>(), [0, 1, 2]);
        assert_eq!(in_turn(1, 3).collect::<Vec<_>>(), [1, 0, 2]);
        assert_eq!(in_turn(2, 3).collect::<Vec<_>>(), [2, 0, 1]);
        assert_eq!(in_turn(3, 3).collect::<Vec<_>>(), [0, 2, 1]);
        for count in 1..=6 {
            let firsts = (0..count).filter_map(|round| in_turn(round, count).next());
            assert_eq!(firsts.collect::<Vec<_>>(), (0..count).collect::<Vec<_>>());
            let everyone = |round| in_turn(round, count).collect::<std::collections::BTreeSet<_>>();
            assert!((0..count).all(|round| everyone(round).len() == count));
        }
    }

    #[test]
    fn batches_are_of_the_size_that_was_asked_for() {
        for bytes in [100, 1_024, 16_384, 65_536] {
            let length = batch(Compression::None, 0, bytes).len();
            assert!(
                length > bytes * 9 / 10 && length < bytes + 200,
                "{length} for {bytes}"
            );
        }
    }

    #[test]
    fn connections_begin_with_different_partitions() {
        assert_eq!(rotated(3, 1), [1, 2, 0]);
        assert_eq!(rotated(1, 7), [0]);
    }
}
