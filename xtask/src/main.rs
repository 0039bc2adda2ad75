//! Developer commands of Teeline: `cargo xtask demo | test | soak | matrix | bench | lint | setup`.
//!
//! It checks what must be installed, builds what is needed, and runs it step by step with one closing summary. It
//! has no dependencies, so that it starts at once; what knows Kafka lives in the `tests` and `benches` crates.

#![allow(clippy::print_stdout, reason = "a program for a developer's terminal")]

mod prerequisites;
mod soak;
mod steps;
mod tasks;

use std::process::ExitCode;

const USAGE: &str = "\
usage: cargo xtask <command>

  demo [--keep]    two real Kafka clusters, a disaster, and everything back (about a minute once built)
  test [FILTER]    every test: unit, property, end to end against real Kafka and a real S3 server
  soak [HOURS]     the long form of the fault tests and the fuzzers, with new seeds until the time is over (default 1);
                   soak fuzz [HOURS]: only the fuzzers. Adds a line to tests/soak-results.md
  matrix [FLAGS]   every client family, feature by feature, directly and through the proxy, on several versions of
                   Kafka; writes docs/COMPATIBILITY.md. --kafka VERSION, --client NAME and --feature NAME, each as
                   often as needed; --secured: TLS and SASL; --json; --page: only the page, from the kept results;
                   --suite kgo: franz-go's own tests, or again and again one of them (--test NAME --times N), in turn
                   directly and through the proxy; --round-trips: the tests of round trips on several versions
  bench QUESTION   what Teeline costs beside others; --save DIR keeps the result, --help tells the rest:
                   wire, lean, sweep, consume, hop, idle, restore, backup (all: these one after the other), economy;
                   micro [NAME]: pieces of the hot path beside their physical limits; allocations: per request;
                   flame: a flame graph under load; report: docs/BENCHMARKS.md from benches/results
  lint             formatting and clippy, without warnings
  setup            fetch the components that the others need, and stop

Components (Kafka's jars, versitygw, client programs) are cached in $TEELINE_CACHE, by default ~/.cache/teeline.";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let rest = arguments.get(1..).unwrap_or_default();
    let done = match arguments.first().map(String::as_str) {
        Some("demo") => tasks::demo(rest),
        Some("test") => tasks::test(rest.first().map(String::as_str)),
        Some("soak") => soak::soak(rest),
        Some("matrix") => tasks::matrix(rest),
        Some("bench") => tasks::bench(rest),
        Some("lint") => tasks::lint(),
        Some("setup") => tasks::setup(),
        Some("help" | "--help" | "-h") => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("{reason}");
            ExitCode::FAILURE
        }
    }
}
