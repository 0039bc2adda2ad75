//! What a proxy costs those who consume: lean ones from the null broker, and Kafka's own performance consumer from Kafka.

#![allow(clippy::print_stdout, reason = "its tables are its purpose")]

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde::Serialize;
use serde_json::json;
use teeline_tests::workdir::WorkDir;
use teeline_wire::codec::Compression;

use crate::arguments::{counts, positive};
use crate::backup;
use crate::both_ways;
use crate::contenders::{ASYNC, Contender, DIRECT, HAPROXY, NO_CAPTURE, NullKafka, SHOTOVER, wanted};
use crate::fetching::{self, Question};
use crate::lean::{TOPIC, in_turn, position};
use crate::null_broker::compression;
use crate::producer::{self, RECORD_BYTES};
use crate::report::{self, Interval, median, ratio_text};
use crate::wire::RealKafka;

/// What is measured, and how long.
#[derive(Debug, Args)]
pub struct ConsumeArguments {
    /// How many rounds, beside one that warms up.
    #[arg(long, default_value_t = 6, value_parser = counts())]
    rounds: usize,
    /// Seconds of each lean run.
    #[arg(long, default_value_t = 3.0, value_parser = positive)]
    seconds: f64,
    /// Lean consumers.
    #[arg(long, default_value_t = 2, value_parser = counts())]
    connections: usize,
    /// Partitions that each of them reads.
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(i32).range(1..))]
    partitions: i32,
    /// Bytes of a partition in one answer, as consumers set it.
    #[arg(long, default_value_t = 1 << 20)]
    partition_bytes: i32,
    /// As producers compressed the batches: none, gzip, snappy, lz4 or zstd.
    #[arg(long, default_value = "none", value_parser = compression)]
    codec: Compression,
    /// Records of 1 KiB that Kafka's own consumer reads in each run; 0 leaves Kafka out.
    #[arg(long, default_value_t = 600_000)]
    kafka_records: u64,
    /// Only these contenders, instead of direct, haproxy, "no capture" and async.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Shotover's program, to measure it as well; Kafka only.
    #[arg(long)]
    shotover: Option<PathBuf>,
    /// Keep the result under this directory, with date and commit.
    #[arg(long)]
    save: Option<PathBuf>,
}

#[derive(Debug, Default, Clone)]
struct Rounds {
    mb_per_second: Vec<f64>,
    cpu_per_gb: Vec<f64>,
}

/// One line of the report.
#[derive(Debug, Serialize)]
struct Line {
    contender: &'static str,
    mb_per_second: f64,
    throughput_to_direct: Option<Interval>,
    cpu_seconds_per_gb: f64,
    cpu_to_haproxy: Option<Interval>,
    /// After the first round.
    first_peak_mib: f64,
    /// After the last one: memory that is flat does not grow from round to round.
    peak_mib: f64,
}

/// Runs it and prints the tables.
pub fn run(arguments: &ConsumeArguments) {
    let lean = lean(arguments);
    println!("from the null broker\n{}", table(&lean));
    let mut document = json!({
        "run": {
            "rounds": arguments.rounds, "seconds": arguments.seconds, "connections": arguments.connections,
            "partitions": arguments.partitions, "partition_bytes": arguments.partition_bytes,
            "compression": arguments.codec.name(), "kafka_records": arguments.kafka_records,
        },
        "null_broker": lean,
    });
    if arguments.kafka_records > 0 {
        let kafka = with_kafka(arguments);
        println!("from Kafka, by its own performance consumer\n{}", table(&kafka));
        document["kafka"] = json!(kafka);
    }
    if let Some(directory) = &arguments.save {
        let mut kind = "consume".to_owned();
        if arguments.codec != Compression::None {
            kind.push_str(&format!("-{}", arguments.codec.name()));
        }
        if arguments.kafka_records == 0 {
            kind.push_str("-lean");
        }
        report::keep(directory, &kind, &["--codec"], document);
    }
}

fn contenders(arguments: &ConsumeArguments) -> Vec<String> {
    let mut usual = vec![DIRECT, HAPROXY, NO_CAPTURE, ASYNC];
    if arguments.shotover.is_some() {
        usual.push(SHOTOVER);
    }
    wanted(&arguments.only, &usual)
}

fn lean(arguments: &ConsumeArguments) -> Vec<Line> {
    let work = WorkDir::create("consume");
    let serve = [
        "--serve-records",
        "1000000",
        "--serve-codec",
        arguments.codec.name(),
    ];
    let kafka = NullKafka::start(arguments.partitions, &serve.map(str::to_owned), &work);
    let contenders = kafka.ways.start(&work, &contenders(arguments));
    interleaved(&contenders, arguments.rounds, |contender| {
        let question = Question {
            address: contender.address.clone(),
            topic: TOPIC.to_owned(),
            partitions: arguments.partitions,
            partition_bytes_max: arguments.partition_bytes,
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let duration = Duration::from_secs_f64(arguments.seconds);
        let measured = runtime
            .block_on(fetching::fetch(&question, arguments.connections, duration))
            .unwrap_or_else(|error| panic!("fetching through {}: {error}", contender.name));
        (measured.bytes, measured.mb_per_second())
    })
}

fn with_kafka(arguments: &ConsumeArguments) -> Vec<Line> {
    let work = WorkDir::create("consume");
    let kafka = RealKafka::start();
    let contenders = kafka
        .ways(arguments.shotover.as_deref())
        .start(&work, &contenders(arguments));
    let payloads = producer::write_payloads(work.path());
    backup::create_topic(&kafka.kafka, both_ways::TOPIC, arguments.partitions);
    let (bootstrap, records) = (kafka.kafka.bootstrap(), arguments.kafka_records);
    let (topic, codec) = (both_ways::TOPIC, arguments.codec.name());
    producer::run_timed(&bootstrap, topic, &payloads, records, codec, work.path());
    interleaved(&contenders, arguments.rounds, |contender| {
        let (_, mb_per_second) = backup::consume(&contender.bootstrap, records, &work);
        (records * RECORD_BYTES, mb_per_second)
    })
}

/// Runs all contenders in turns. What is run says how many bytes went through, and how fast.
fn interleaved(contenders: &[Contender], count: usize, run: impl Fn(&Contender) -> (u64, f64)) -> Vec<Line> {
    let mut rounds = vec![Rounds::default(); contenders.len()];
    let mut first_peaks = vec![0.0; contenders.len()];
    for round in 0..=count {
        for at in in_turn(round, contenders.len()) {
            let contender = &contenders[at];
            eprintln!("round {round} of {count}: {}", contender.name);
            let before = contender.cost();
            let (bytes, mb_per_second) = run(contender);
            let used = contender.cost() - before;
            // The first round only warms up.
            if round == 0 {
                continue;
            }
            rounds[at].mb_per_second.push(mb_per_second);
            rounds[at]
                .cpu_per_gb
                .push(used.cpu_seconds / (bytes as f64 / 1e9));
            if round == 1 {
                first_peaks[at] = used.peak_mib;
            }
        }
    }
    let of = |name| position(contenders, name).map(|at| rounds[at].clone());
    let (direct, haproxy) = (of(DIRECT), of(HAPROXY));
    let lines = contenders.iter().zip(&rounds).zip(&first_peaks);
    lines
        .map(|((contender, own), first_peak_mib)| Line {
            contender: contender.name,
            mb_per_second: median(own.mb_per_second.iter().copied()),
            throughput_to_direct: direct
                .as_ref()
                .map(|direct| Interval::of_ratio(&own.mb_per_second, &direct.mb_per_second)),
            cpu_seconds_per_gb: median(own.cpu_per_gb.iter().copied()),
            cpu_to_haproxy: haproxy
                .as_ref()
                .filter(|_| contender.pid().is_some())
                .map(|haproxy| Interval::of_ratio(&own.cpu_per_gb, &haproxy.cpu_per_gb)),
            first_peak_mib: *first_peak_mib,
            peak_mib: contender.cost().peak_mib,
        })
        .collect()
}

fn table(lines: &[Line]) -> String {
    let mut text = format!(
        "{:<12} {:>8} {:>19} {:>12} {:>19} {:>15} {:>9}\n",
        "contender",
        "MB/s",
        "of direct (95 %)",
        "CPU-s per GB",
        "to HAProxy (95 %)",
        "first peak MiB",
        "peak MiB"
    );
    for line in lines {
        text.push_str(&format!(
            "{:<12} {:>8.0} {:>19} {:>12.3} {:>19} {:>15.1} {:>9.1}\n",
            line.contender,
            line.mb_per_second,
            ratio_text(line.throughput_to_direct.as_ref()),
            line.cpu_seconds_per_gb,
            ratio_text(line.cpu_to_haproxy.as_ref()),
            line.first_peak_mib,
            line.peak_mib,
        ));
    }
    text
}
