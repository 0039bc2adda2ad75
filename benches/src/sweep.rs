//! Whether a gigabyte costs the same over one connection and over hundreds, to one partition and to thousands.

#![allow(clippy::print_stdout, reason = "its table is its purpose")]

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;
use serde_json::json;
use teeline_tests::workdir::WorkDir;

use crate::arguments::{counts, positive};
use crate::contenders::{ASYNC, Contender, DURABLE, HAPROXY, NO_CAPTURE, NullKafka, wanted};
use crate::lean::{BATCH_BYTES, Plan, Rounds, in_turn};
use crate::report::{self, Interval, median, ratio_text};

/// What is measured, and how long.
#[derive(Debug, Args)]
pub struct SweepArguments {
    /// How many rounds, beside one that warms up.
    #[arg(long, default_value_t = 6, value_parser = counts())]
    rounds: usize,
    /// Numbers of connections, all to six partitions.
    #[arg(long, value_delimiter = ',', default_value = "1,50,500", value_parser = counts())]
    connections: Vec<usize>,
    /// Numbers of partitions, all over four connections.
    #[arg(long, value_delimiter = ',', default_value = "1,100,2000",
        value_parser = clap::value_parser!(i32).range(1..))]
    partitions: Vec<i32>,
    /// Seconds of each run.
    #[arg(long, default_value_t = 2.0, value_parser = positive)]
    seconds: f64,
    /// Megabytes a second of all connections together; without it as fast as it goes.
    #[arg(long, value_parser = positive)]
    rate: Option<f64>,
    /// Bytes of each record batch.
    #[arg(long, default_value_t = BATCH_BYTES, value_parser = counts())]
    batch_bytes: usize,
    /// Only these contenders, instead of haproxy, "no capture", async and durable.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Keep the results under this directory, with date and commit.
    #[arg(long)]
    save: Option<PathBuf>,
}

/// One line of the report: a contender at one point of a sweep.
#[derive(Debug, Serialize)]
struct Line {
    contender: &'static str,
    connections: usize,
    partitions: i32,
    mb_per_second: f64,
    cpu_seconds_per_gb: f64,
    /// Of CPU per gigabyte, to that of the sweep's first point in the same round; nothing of that point itself.
    cpu_to_first: Option<Interval>,
    /// Largest in any of the rounds at this point; of proxy and segmenter, each at its own time.
    capture_peak_mib: f64,
}

/// Runs both sweeps and prints their tables.
pub fn run(arguments: &SweepArguments) {
    let connections = arguments.connections.iter().map(|count| Plan {
        connections: *count,
        partitions: SIX,
        // As much in flight in all, as far as each connection has any.
        in_flight: (IN_FLIGHT_IN_ALL / count).max(1),
        ..plan(arguments)
    });
    sweep(arguments, "sweep-connections", &connections.collect::<Vec<_>>());
    let partitions = arguments.partitions.iter().map(|count| Plan {
        partitions: *count,
        ..plan(arguments)
    });
    sweep(arguments, "sweep-partitions", &partitions.collect::<Vec<_>>());
}

fn plan(arguments: &SweepArguments) -> Plan {
    Plan {
        seconds: arguments.seconds,
        connections: FOUR,
        partitions: SIX,
        batch_bytes: arguments.batch_bytes,
        batches: 1,
        codec: teeline_wire::codec::Compression::None,
        in_flight: IN_FLIGHT_IN_ALL / FOUR,
        rate: arguments.rate,
    }
}

fn sweep(arguments: &SweepArguments, kind: &str, plans: &[Plan]) {
    let Some(first) = plans.first() else { return };
    let work = WorkDir::create("sweep");
    let partitions = plans.iter().map(|plan| plan.partitions).max().unwrap_or(SIX);
    let kafka = NullKafka::start(partitions, &[], &work);
    let contenders = kafka.ways.start(&work, &wanted(&arguments.only, &CONTENDERS));
    let batches = first.batches();
    let mut rounds = vec![vec![Rounds::default(); contenders.len()]; plans.len()];
    let mut peaks = vec![vec![0.0; contenders.len()]; plans.len()];
    for round in 0..=arguments.rounds {
        for at in in_turn(round, plans.len()) {
            let plan = &plans[at];
            eprintln!(
                "round {round} of {}: {} connections, {} partitions",
                arguments.rounds, plan.connections, plan.partitions
            );
            let mut warm_up = Rounds::default();
            for who in in_turn(round, contenders.len()) {
                // The first round only warms up.
                let rounds = match round {
                    0 => &mut warm_up,
                    _ => &mut rounds[at][who],
                };
                contenders[who].forget_peak();
                rounds.run(&contenders[who], plan, &batches);
                let peak: &mut f64 = &mut peaks[at][who];
                *peak = peak.max(contenders[who].capture_peak_mib());
            }
        }
    }
    let mut lines = Vec::new();
    for (who, contender) in contenders.iter().enumerate() {
        for (at, plan) in plans.iter().enumerate() {
            lines.push(Line::of(
                contender,
                plan,
                &rounds[at][who],
                (at > 0).then_some(&rounds[0][who]),
                peaks[at][who],
            ));
        }
    }
    print!("{}", table(&lines));
    if let Some(directory) = &arguments.save {
        let run = json!({
            "rounds": arguments.rounds, "seconds": arguments.seconds, "batch_bytes": arguments.batch_bytes,
            "rate_mb_per_second": arguments.rate, "in_flight_in_all": IN_FLIGHT_IN_ALL,
        });
        report::keep(directory, kind, &[], json!({"run": run, "points": lines}));
    }
}

impl Line {
    fn of(
        contender: &Contender,
        plan: &Plan,
        rounds: &Rounds,
        first: Option<&Rounds>,
        capture_peak_mib: f64,
    ) -> Line {
        Line {
            contender: contender.name,
            connections: plan.connections,
            partitions: plan.partitions,
            mb_per_second: median(rounds.mb_per_second.iter().copied()),
            cpu_seconds_per_gb: median(rounds.cpu_per_gb.iter().copied()),
            cpu_to_first: first.map(|first| Interval::of_ratio(&rounds.cpu_per_gb, &first.cpu_per_gb)),
            capture_peak_mib,
        }
    }
}

fn table(lines: &[Line]) -> String {
    let mut text = format!(
        "{:<12} {:>11} {:>10} {:>8} {:>12} {:>19} {:>9}\n",
        "contender", "connections", "partitions", "MB/s", "CPU-s per GB", "to first (95 %)", "peak MiB"
    );
    for line in lines {
        text.push_str(&format!(
            "{:<12} {:>11} {:>10} {:>8.0} {:>12.3} {:>19} {:>9.1}\n",
            line.contender,
            line.connections,
            line.partitions,
            line.mb_per_second,
            line.cpu_seconds_per_gb,
            ratio_text(line.cpu_to_first.as_ref()),
            line.capture_peak_mib,
        ));
    }
    text
}

const CONTENDERS: [&str; 4] = [HAPROXY, NO_CAPTURE, ASYNC, DURABLE];
const SIX: i32 = 6;
const FOUR: usize = 4;
const IN_FLIGHT_IN_ALL: usize = 20;
