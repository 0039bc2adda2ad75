//! `cargo xtask soak`: the long form of the fault tests and of the fuzzers, and a line of what came of it.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::prerequisites;
use crate::steps::{Steps, cargo};
use crate::tasks::{fresh_notes, prepare, print_notes, target_directory};

/// Test binaries that the long fault run repeats.
const FAULT_TESTS: [&str; 10] = [
    "chaos",
    "sidecars",
    "sigkill",
    "cluster",
    "moving",
    "operation",
    "reload",
    "hostile",
    "power_loss",
    "simulation",
];
/// How often each repeats in an hour what it does once in the test command.
const ROUNDS_AN_HOUR: [(&str, f64); 6] = [
    ("TEELINE_CHAOS_ROUNDS", 25.0),
    ("TEELINE_SIDECAR_ROUNDS", 50.0),
    ("TEELINE_SIGKILL_ROUNDS", 100.0),
    ("TEELINE_POWER_LOSS_ROUNDS", 500.0),
    ("TEELINE_SIMULATION_ROUNDS", 50.0),
    ("TEELINE_MOVING_ROUNDS", 10.0),
];
/// Where fuzz targets lie, and how many there are about: they share the time.
const FUZZERS: [&str; 3] = ["wire/fuzz", "archive/fuzz", "proxy/fuzz"];
const TARGETS: f64 = 26.0;
/// Of the whole time, for each of the two ways of fuzzing.
const FUZZ_SHARE: f64 = 0.15;
/// What makes a program tell the fuzzer which branches it takes. All of it is there in stable compilers.
const COVERAGE: &str = "--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares -Copt-level=2 -Cdebug-assertions -Coverflow-checks";

/// `cargo xtask soak [fuzz] [HOURS]`
pub(crate) fn soak(arguments: &[String]) -> Result<(), String> {
    prerequisites::for_tests()?;
    let fuzz_only = arguments.first().is_some_and(|first| first == "fuzz");
    let hours = arguments.get(usize::from(fuzz_only));
    let hours: f64 = hours
        .map_or("1", String::as_str)
        .parse()
        .map_err(|_| "soak takes a number of hours".to_owned())?;
    let end = Instant::now() + Duration::from_secs_f64(hours * 3600.0);
    let notes = fresh_notes()?;
    let mut steps = Steps::new();
    if !fuzz_only {
        prepare(&mut steps)?;
    }
    let mut round = 0;
    while round == 0 || Instant::now() < end {
        round += 1;
        let share = if fuzz_only { 0.5 } else { FUZZ_SHARE };
        fuzz(&mut steps, round, share * hours.min(4.0) * 3600.0)?;
        if !fuzz_only {
            let mut tests = cargo(&["test", "-p", "teeline-tests", "--no-fail-fast"]);
            for name in FAULT_TESTS {
                tests.args(["--test", name]);
            }
            tests.env("TEELINE_TEST_NOTES", &notes).envs(rounds(hours));
            steps.run_tests(&format!("fault tests, round {round}"), tests)?;
        }
    }
    print_notes(&notes);
    let summary = steps.summary();
    let what = if fuzz_only { "fuzzers" } else { "everything" };
    keep(what, round, &steps)?;
    summary
}

/// Longer runs come again and again to the same tests; shorter ones have each of them shorter.
fn rounds(hours: f64) -> impl Iterator<Item = (&'static str, String)> {
    let share = hours.min(1.0);
    ROUNDS_AN_HOUR
        .into_iter()
        .map(move |(name, an_hour)| (name, (an_hour * share).ceil().max(1.0).to_string()))
}

/// Damage by seeds, then by what it reaches.
fn fuzz(steps: &mut Steps, round: u32, seconds: f64) -> Result<(), String> {
    // Three tests of two packages take their time one after the other.
    let each = (seconds / 3.0).max(1.0).round();
    // Another seed each time, and never that of the test command.
    let seed = unix_seconds() << 20;
    for (package, only) in [
        ("teeline-wire", ["--test", "hostile_bytes"]),
        ("teeline-proxy", ["--lib", "fuzzing"]),
    ] {
        let mut tests = cargo(&["test", "-p", package, "--no-fail-fast"]);
        tests.args(only).args(["--", "--nocapture"]);
        tests
            .env("TEELINE_FUZZ_SECONDS", each.to_string())
            .env("TEELINE_FUZZ_SEED", seed.to_string());
        steps.run_tests(&format!("{package}, damage by seeds, round {round}"), tests)?;
    }
    if Command::new("c++").arg("--version").output().is_err() {
        println!("no C++ compiler: the fuzzers that watch branches are left out");
        return Ok(());
    }
    for directory in FUZZERS {
        guided(steps, round, directory, (seconds / TARGETS).max(1.0).round())?;
    }
    Ok(())
}

/// Builds the targets of a directory and runs one after the other; what they find lies below the target directory.
fn guided(steps: &mut Steps, round: u32, directory: &str, seconds: f64) -> Result<(), String> {
    let built = target_directory().join("fuzz");
    let host = host()?;
    let mut build = cargo(&["build", "--bins", "--target", &host, "--manifest-path"]);
    build.arg(Path::new(directory).join("Cargo.toml"));
    build.env("RUSTFLAGS", COVERAGE).env("CARGO_TARGET_DIR", &built);
    steps.run(&format!("{directory}, build"), build)?;
    for target in targets(directory)? {
        let found = built.join("found").join(&target);
        let grown = built.join("corpus").join(&target);
        for path in [&found, &grown] {
            fs::create_dir_all(path).map_err(|error| format!("create {}: {error}", path.display()))?;
        }
        let program = built.join(&host).join("debug").join(&target);
        let mut run = Command::new(fs::canonicalize(&program).unwrap_or(program));
        run.current_dir(directory)
            .arg(format!("-max_total_time={seconds}"))
            .arg(format!("-artifact_prefix={}/", absolute(&found).display()))
            .args([
                "-rss_limit_mb=4096",
                "-timeout=60",
                "-print_final_stats=1",
                "-verbosity=0",
            ])
            .arg(absolute(&grown))
            .arg(Path::new("corpus").join(&target));
        // A failure is kept for the end, as that of a test is.
        steps.run_kept(&format!("{directory} {target}, round {round}"), run)?;
    }
    Ok(())
}

/// The platform: named, so that flags for the targets are not taken for build scripts, too.
fn host() -> Result<String, String> {
    let output = Command::new("rustc")
        .arg("-vV")
        .output()
        .map_err(|error| format!("run rustc: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = text.lines().find_map(|line| line.strip_prefix("host: "));
    line.map(str::to_owned)
        .ok_or_else(|| "rustc does not say which platform this is".to_owned())
}

fn absolute(path: &Path) -> PathBuf {
    fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())
}

fn targets(directory: &str) -> Result<Vec<String>, String> {
    let path = Path::new(directory).join("fuzz_targets");
    let entries = fs::read_dir(&path).map_err(|error| format!("list {}: {error}", path.display()))?;
    let mut names: Vec<String> = entries
        .filter_map(|entry| Some(entry.ok()?.path().file_stem()?.to_str()?.to_owned()))
        .collect();
    names.sort();
    Ok(names)
}

/// Adds a line to the page of results.
fn keep(what: &str, rounds: u32, steps: &Steps) -> Result<(), String> {
    let said = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).output();
        output.map_or_else(
            |_| "?".to_owned(),
            |output| String::from_utf8_lossy(&output.stdout).trim().to_owned(),
        )
    };
    let row = format!(
        "| {} | {} | {what} | {:.1} | {rounds} | {} |\n",
        said("date", &["-u", "+%F"]),
        said("git", &["rev-parse", "--short=10", "HEAD"]),
        steps.hours(),
        steps.verdict()
    );
    let failed = |error: std::io::Error| format!("write {RESULTS}: {error}");
    let mut page = OpenOptions::new()
        .create(true)
        .append(true)
        .open(RESULTS)
        .map_err(failed)?;
    if page.metadata().map_err(failed)?.len() == 0 {
        page.write_all(HEAD.as_bytes()).map_err(failed)?;
    }
    page.write_all(row.as_bytes()).map_err(failed)
}

fn unix_seconds() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

const RESULTS: &str = "tests/soak-results.md";
const HEAD: &str = "\
# Long runs

Made by `cargo xtask soak`, a line for each run that came to its end.

| day | commit | what | hours | rounds | result |
|---|---|---|---|---|---|
";
