//! `teeline-benches`: one interleaved run of the produce path, direct and through Teeline; or, by a subcommand, another
//! question.
#![allow(clippy::print_stdout, reason = "its output is its purpose")]

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use serde_json::json;
use teeline_benches::contenders;
use teeline_benches::economy::{self, EconomyArguments};
use teeline_benches::lean::{self, LeanArguments};
use teeline_benches::null_broker::{self, Place, Settings};
use teeline_benches::paths;
use teeline_benches::producer::{self, RECORD_BYTES};
use teeline_benches::report::{self, Line, Rounds, table};
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
    /// What many partitions and several writers cost in requests to the store.
    Economy(EconomyArguments),
    /// CPU per gigabyte of each way to a broker that costs nothing, beside HAProxy's.
    Lean(LeanArguments),
    /// The broker that costs nothing, until it is killed.
    NullBroker {
        /// Partitions of every topic.
        #[arg(long, default_value_t = 6)]
        partitions: i32,
        /// Where it listens, and what it says there.
        #[arg(value_name = "LISTEN=ADVERTISED", required = true)]
        places: Vec<String>,
    },
}

const PARTITIONS: &str = "6";

fn main() {
    let arguments = Arguments::parse();
    match arguments.other {
        Some(Other::Economy(arguments)) => economy::run(&arguments),
        Some(Other::Lean(arguments)) => lean::run(&arguments),
        Some(Other::NullBroker { partitions, places }) => serve(partitions, &places),
        None => produce(&arguments),
    }
}

fn serve(partitions: i32, places: &[String]) {
    let places = places.iter().map(|text| {
        let (listen, advertised) = contenders::place(text).unwrap_or_else(|error| panic!("{error}"));
        Place { listen, advertised }
    });
    let settings = Settings {
        places: places.collect(),
        partitions,
        prepared: None,
    };
    // One thread: the other core belongs to what is measured.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let ended = runtime.block_on(null_broker::serve(settings));
    panic!("the null broker ended: {ended:?}");
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
