//! What a request costs in allocations: of the whole proxy under load, and of single pieces.
//!
//! `cargo xtask bench allocations`. The proxy is this program under the proxy's name, with an allocator that counts; it
//! writes its counts to a file. With `TEELINE_BENCH_SAVE` set to a directory, the result is kept there.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    missing_docs,
    reason = "a benchmark stops at the first surprise, and its table is its purpose"
)]

mod pieces;
mod proxy;

use std::alloc::System;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use clap::Parser;
use serde::Serialize;
use serde_json::json;
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use teeline_benches::contenders::NullKafka;
use teeline_benches::lean::Plan;
use teeline_benches::null_broker::{self, NullBrokerArguments};
use teeline_benches::report;
use teeline_tests::workdir::WorkDir;
use teeline_wire::codec::Compression;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// The broker that costs nothing is this program too.
#[derive(Parser)]
enum Part {
    NullBroker(NullBrokerArguments),
}

/// One line of the result.
#[derive(Debug, Serialize)]
struct Line {
    what: String,
    batch_bytes: usize,
    allocations_per_request: f64,
    reallocations_per_request: f64,
    allocated_bytes_per_request: f64,
}

fn main() -> ExitCode {
    let name = std::env::args().next().unwrap_or_default();
    if name.ends_with(proxy::NAME) {
        return proxy::run();
    }
    match std::env::args().nth(1).as_deref() {
        Some("null-broker") => {
            let Part::NullBroker(arguments) = Part::parse();
            null_broker::run(&arguments);
        }
        Some("--bench") if std::env::var_os(proxy::COUNTS).is_some() => measure(),
        Some("--bench") => return again_with_counted_proxy(),
        // As a test: the pieces alone, at once.
        _ => drop(pieces::all()),
    }
    ExitCode::SUCCESS
}

/// Programs are found in a directory that a variable names: there, the proxy is this program.
fn again_with_counted_proxy() -> ExitCode {
    let work = WorkDir::create("counted");
    let own = std::env::current_exe().unwrap();
    let built = own.parent().and_then(Path::parent).unwrap();
    let link = |program: &Path, name: &str| std::os::unix::fs::symlink(program, work.join(name)).unwrap();
    link(&own, proxy::NAME);
    link(&built.join("teeline-segmenter"), "teeline-segmenter");
    let status = Command::new(&own)
        .arg("--bench")
        .env("TEELINE_BIN_DIR", work.path())
        .env(proxy::COUNTS, work.path())
        .status()
        .unwrap();
    ExitCode::from(u8::from(!status.success()))
}

fn measure() {
    let mut lines = pieces::all();
    for batch_bytes in [1_024, 65_536] {
        lines.extend(through_proxies(batch_bytes));
    }
    println!(
        "{:<52} {:>8} {:>12} {:>12} {:>12}",
        "what", "batch", "allocations", "grown", "bytes"
    );
    for line in &lines {
        println!(
            "{:<52} {:>8} {:>12.2} {:>12.2} {:>12.0}",
            line.what,
            line.batch_bytes,
            line.allocations_per_request,
            line.reallocations_per_request,
            line.allocated_bytes_per_request
        );
    }
    if let Some(directory) = std::env::var_os("TEELINE_BENCH_SAVE") {
        report::keep(Path::new(&directory), "allocations", &[], json!({"lines": lines}));
    }
}

fn through_proxies(batch_bytes: usize) -> Vec<Line> {
    let work = WorkDir::create("allocations");
    let plan = Plan {
        seconds: 1.0,
        connections: 4,
        partitions: 6,
        batch_bytes,
        batches: 1,
        codec: Compression::None,
        in_flight: 5,
        // Full batches at full speed would be archived for minutes afterwards.
        rate: (batch_bytes > 16_384).then_some(100.0),
    };
    let kafka = NullKafka::start(plan.partitions, &[], &work);
    let wanted = ["no capture", "async", "durable"].map(str::to_owned);
    let batches = plan.batches();
    let contenders = kafka.ways.start(&work, &wanted);
    let directory = PathBuf::from(std::env::var_os(proxy::COUNTS).unwrap());
    let lines = contenders.iter().map(|contender| {
        eprintln!("{}, batches of {batch_bytes} bytes", contender.name);
        plan.run(contender, &batches, || ());
        let pid = contender.pid().unwrap();
        let mut before = [0; 3];
        let measured = plan.run(contender, &batches, || before = proxy::counts(&directory, pid));
        let after = proxy::counts(&directory, pid);
        contender.settle();
        let requests = measured.latencies.len() as f64;
        let each = |index: usize| (after[index] - before[index]) as f64 / requests;
        Line {
            what: format!("proxy, {}", contender.name),
            batch_bytes,
            allocations_per_request: each(0),
            reallocations_per_request: each(1),
            allocated_bytes_per_request: each(2),
        }
    });
    lines.collect()
}
