//! `teeline-benches`: each subcommand answers one question, in one interleaved run.
#![allow(clippy::print_stdout, reason = "its output is its purpose")]

use std::path::PathBuf;
use std::process::{self, Command};

use clap::{Args, Parser, Subcommand};
use teeline_benches::backup::{self, BackupArguments};
use teeline_benches::consume::{self, ConsumeArguments};
use teeline_benches::economy::{self, EconomyArguments};
use teeline_benches::flame::{self, FlameArguments};
use teeline_benches::hop::{self, HopArguments};
use teeline_benches::idle::{self, IdleArguments};
use teeline_benches::lean::{self, LeanArguments};
use teeline_benches::null_broker::{self, NullBrokerArguments};
use teeline_benches::pages::{self, ReportArguments};
use teeline_benches::restore::{self, RestoreArguments};
use teeline_benches::sweep::{self, SweepArguments};
use teeline_benches::wire::{self, WireArguments};

/// What Teeline costs, beside no proxy at all and beside others.
///
/// Every round runs all contenders one after the other; the tables give medians over the rounds, and ratios within them.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    question: Question,
}

#[derive(Subcommand)]
enum Question {
    /// `wire`, `lean` (also at 20 MB/s), `sweep`, `consume`, `hop`, `idle`, `restore` and `backup` with their defaults, one after the
    /// other.
    All(AllArguments),
    /// Backup by Fetch, from a source that costs nothing and beside Kafka's own performance consumer.
    Backup(BackupArguments),
    /// What a proxy costs those who consume, from a broker that costs nothing and from Kafka.
    Consume(ConsumeArguments),
    /// What many partitions and several writers cost in requests to the store.
    Economy(EconomyArguments),
    /// A flame graph of a proxy or segmenter under load; needs perf.
    Flame(FlameArguments),
    /// What a proxy adds to a round trip, everything on one CPU.
    Hop(HopArguments),
    /// Memory at rest and of idle connections, and seconds until it listens again.
    Idle(IdleArguments),
    /// CPU per gigabyte of each way to a broker that costs nothing, beside HAProxy's.
    Lean(LeanArguments),
    /// The broker that costs nothing, until it is killed.
    NullBroker(NullBrokerArguments),
    /// Write docs/BENCHMARKS.md and its charts from the newest results of each kind.
    Report(ReportArguments),
    /// Restore, into a target that costs nothing and beside Kafka's own performance producer.
    Restore(RestoreArguments),
    /// CPU per gigabyte over few and many connections, to few and many partitions.
    Sweep(SweepArguments),
    /// Produce throughput, latency, CPU and memory with real Kafka, each way in turns.
    Wire(WireArguments),
}

#[derive(Args)]
struct AllArguments {
    /// Keep the results under this directory, with date and commit.
    #[arg(long)]
    save: Option<PathBuf>,
}

fn main() {
    match Arguments::parse().question {
        Question::All(arguments) => all(&arguments),
        Question::Backup(arguments) => backup::run(&arguments),
        Question::Consume(arguments) => consume::run(&arguments),
        Question::Economy(arguments) => economy::run(&arguments),
        Question::Flame(arguments) => flame::run(&arguments),
        Question::Hop(arguments) => hop::run(&arguments),
        Question::Idle(arguments) => idle::run(&arguments),
        Question::Lean(arguments) => lean::run(&arguments),
        Question::NullBroker(arguments) => null_broker::run(&arguments),
        Question::Report(arguments) => pages::run(&arguments),
        Question::Restore(arguments) => restore::run(&arguments),
        Question::Sweep(arguments) => sweep::run(&arguments),
        Question::Wire(arguments) => wire::run(&arguments),
    }
}

/// Each in a process of its own, so that each result is kept with the command that repeats it.
fn all(arguments: &AllArguments) {
    let own = std::env::current_exe().expect("the path of this program");
    let mut failed = Vec::new();
    for line in QUESTIONS {
        println!("\n== {line}");
        let mut command = Command::new(&own);
        command.args(line.split_whitespace());
        if let Some(directory) = &arguments.save {
            command.arg("--save").arg(directory);
        }
        let status = command.status().expect("run this program once more");
        if !status.success() {
            failed.push(line);
        }
    }
    if !failed.is_empty() {
        eprintln!("these failed: {}", failed.join(", "));
        process::exit(1);
    }
}

const QUESTIONS: [&str; 9] = [
    "lean",
    "lean --rate 20 --batch-bytes 16384",
    "sweep",
    "consume",
    "hop",
    "idle",
    "wire",
    "restore",
    "backup",
];
