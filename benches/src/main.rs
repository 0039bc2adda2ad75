//! `teeline-benches`: one interleaved run of the produce path, direct and through Teeline; or, by a subcommand, another
//! question.
#![allow(clippy::print_stdout, reason = "its output is its purpose")]

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use serde_json::json;
use teeline_benches::backup::{self, BackupArguments};
use teeline_benches::economy::{self, EconomyArguments};
use teeline_benches::lean::{self, LeanArguments};
use teeline_benches::null_broker::{self, NullBrokerArguments};
use teeline_benches::paths;
use teeline_benches::producer::{self, RECORD_BYTES};
use teeline_benches::report::{self, Line, Rounds, table};
use teeline_benches::restore::{self, RestoreArguments};
use teeline_tests::kafka::Kafka;
use teeline_tests::workdir::WorkDir;

/// Produce throughput and latency: direct, through the proxy without capture, with async and with durable capture.
///
/// Every round runs all paths one after the other; the report gives medians over the rounds.
#[derive(Parser)]
#[command(args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    other: Option<Other>,
    /// How many rounds.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Records of 1 KiB per run at full speed.
    #[arg(long, default_value_t = 400_000)]
    records: u64,
    /// Records per second of the steady runs (20480 are 20 MiB/s).
    #[arg(long, default_value_t = 20_480)]
    steady_rate: u64,
    /// Seconds that a steady run takes.
    #[arg(long, default_value_t = 8)]
    steady_seconds: u64,
    /// Keep the result under this directory, with date and commit.
    #[arg(long)]
    save: Option<PathBuf>,
}

#[derive(Subcommand)]
enum Other {
    /// Backup by Fetch, from a source that costs nothing and beside Kafka's own performance consumer.
    Backup(BackupArguments),
    /// Restore, into a target that costs nothing and beside Kafka's own performance producer.
    Restore(RestoreArguments),
    /// What many partitions and several writers cost in requests to the store.
    Economy(EconomyArguments),
    /// CPU per gigabyte of each way to a broker that costs nothing, beside HAProxy's.
    Lean(LeanArguments),
    /// The broker that costs nothing, until it is killed.
    NullBroker(NullBrokerArguments),
}

const PARTITIONS: &str = "6";

fn main() {
    let arguments = Arguments::parse();
    match arguments.other {
        Some(Other::Backup(arguments)) => backup::run(&arguments),
        Some(Other::Restore(arguments)) => restore::run(&arguments),
        Some(Other::Economy(arguments)) => economy::run(&arguments),
        Some(Other::Lean(arguments)) => lean::run(&arguments),
        Some(Other::NullBroker(arguments)) => null_broker::run(&arguments),
        None => produce(&arguments),
    }
}

fn produce(arguments: &Arguments) {
    let work = WorkDir::create("bench");
    let kafka = Kafka::start_one();
    let payloads = producer::write_payloads(work.path());
    let mut routes = paths::all(&kafka, &work);
    for route in &routes {
        create_topic(&kafka, &route.topic);
        // The first seconds of a JVM and of a topic are nobody's measure.
        producer::run(
            &route.bootstrap,
            &route.topic,
            &payloads,
            arguments.records / 8,
            None,
        );
    }
    let mut rounds: Vec<Rounds> = routes.iter().map(|_| Rounds::default()).collect();
    for round in 1..=arguments.rounds {
        for (route, rounds) in routes.iter().zip(&mut rounds) {
            eprintln!("round {round} of {}: {}", arguments.rounds, route.name);
            let before = route.cpu_seconds();
            rounds.full.push(producer::run(
                &route.bootstrap,
                &route.topic,
                &payloads,
                arguments.records,
                None,
            ));
            let gigabytes = (arguments.records * RECORD_BYTES) as f64 / 1e9;
            rounds.cpu_per_gb.push((route.cpu_seconds() - before) / gigabytes);
            let steady = arguments.steady_rate * arguments.steady_seconds;
            let rate = Some(arguments.steady_rate);
            rounds.steady.push(producer::run(
                &route.bootstrap,
                &route.topic,
                &payloads,
                steady,
                rate,
            ));
        }
    }
    for (route, rounds) in routes.iter_mut().zip(&mut rounds) {
        rounds.peak_memory_mib = route.peak_memory_mib();
        route.stop();
    }
    let direct = rounds.first().expect("the direct path comes first");
    let lines: Vec<Line> = routes
        .iter()
        .zip(&rounds)
        .map(|(route, each)| Line::of(route.name, each, direct))
        .collect();
    print!("{}", table(&lines));
    if let Some(directory) = &arguments.save {
        let run = arguments_of_run(arguments.rounds, arguments.records, arguments.steady_rate);
        report::keep(directory, "produce", json!({"run": run, "paths": lines}));
    }
}

fn create_topic(kafka: &Kafka, topic: &str) {
    let bootstrap = kafka.bootstrap();
    // Old segments go quickly: the benchmark measures the way to the broker, not its disk's size.
    let output = Kafka::tool(
        "org.apache.kafka.tools.TopicCommand",
        &[
            "--bootstrap-server",
            &bootstrap,
            "--create",
            "--topic",
            topic,
            "--partitions",
            PARTITIONS,
            "--config",
            "retention.bytes=134217728",
            "--config",
            "segment.bytes=67108864",
        ],
    );
    assert!(
        output.status.success(),
        "create {topic}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

fn arguments_of_run(rounds: usize, records: u64, steady_rate: u64) -> serde_json::Value {
    json!({"rounds": rounds, "records": records, "record_bytes": RECORD_BYTES, "steady_records_per_second": steady_rate,
           "acks": "all", "linger_ms": 5, "batch_bytes": 65_536, "partitions": 6, "compression": "none"})
}
