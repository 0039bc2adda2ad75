//! What is on the hot path, piece by piece, with what the machine can do at best beside each.
//!
//! `cargo xtask bench micro`; a word after it chooses benchmarks by name. Each group holds one line that begins with
//! `limit: `: the same bytes through memcpy, the hardware's checksum, the codec itself, or a plain file. With
//! `TEELINE_BENCH_SAVE` set to a directory, the medians are kept there.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    missing_docs,
    reason = "a benchmark stops at the first surprise, and its table is its purpose"
)]

mod buffer;
mod input;
mod ledger;
mod segment;
mod wire;

use std::path::Path;
use std::time::{Duration, SystemTime};

use criterion::Criterion;
use serde_json::json;
use teeline_benches::{micro, report};

fn main() {
    // Without this flag criterion runs everything once, as a test, and measures nothing.
    if !std::env::args().any(|argument| argument == "--bench") {
        run();
        return;
    }
    // A piece and its limit are measured one after the other: several runs tell what differed by the minute.
    let runs: Vec<_> = (0..RUNS)
        .map(|_| {
            let began = SystemTime::now();
            run();
            micro::read(&results(), began)
        })
        .collect();
    let lines = micro::medians(&runs);
    print!("{}", micro::table(&lines));
    if let Some(directory) = std::env::var_os("TEELINE_BENCH_SAVE") {
        // With the name of a group only that is measured.
        let is_whole = std::env::args().skip(1).all(|word| word.starts_with("--"));
        let kind = if is_whole { "micro" } else { "micro-some" };
        report::keep(
            Path::new(&directory),
            kind,
            &[],
            json!({"run": {"runs": RUNS}, "pieces": lines}),
        );
    }
}

fn run() {
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_millis(1_000))
        .sample_size(20)
        .configure_from_args();
    wire::all(&mut criterion);
    segment::all(&mut criterion);
    buffer::all(&mut criterion);
    ledger::all(&mut criterion);
    criterion.final_summary();
}

const RUNS: usize = 3;

/// Where criterion keeps what it measured.
fn results() -> std::path::PathBuf {
    match std::env::var_os("CRITERION_HOME") {
        Some(home) => home.into(),
        None => Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("criterion"),
    }
}
