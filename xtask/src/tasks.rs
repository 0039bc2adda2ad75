//! The commands.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::prerequisites;
use crate::steps::{Steps, cargo};

/// What the demonstration and the matrix run.
const PROGRAMS: [&str; 4] = [
    "teeline-proxy",
    "teeline-segmenter",
    "teeline-restorer",
    "teeline-tests",
];
/// Kafka versions that round trips are tried against; the first is the one of every other test.
const KAFKA_VERSIONS: [&str; 4] = ["4.3.1", "4.2.1", "4.0.2", "3.9.2"];
/// End-to-end tests start Kafka nodes: more at once than this makes them slower, not faster.
const TEST_THREADS_MAX: usize = 4;

/// `cargo xtask demo`
pub(crate) fn demo(flags: &[String]) -> Result<(), String> {
    prerequisites::for_demo()?;
    if let Some(unknown) = flags.iter().find(|flag| *flag != "--keep") {
        return Err(format!("demo knows --keep, not {unknown}"));
    }
    let packages = PROGRAMS.iter().flat_map(|name| ["-p", *name]);
    let mut build = cargo(&["build", "--bins"]);
    build.args(packages);
    Steps::new().run("build (the first time takes some minutes)", build)?;
    let mut demo = lab("debug");
    demo.arg("demo").args(flags);
    let status = demo.status().map_err(|error| format!("run {demo:?}: {error}"))?;
    if status.success() {
        Ok(())
    } else {
        Err("the demo failed".to_owned())
    }
}

/// `cargo xtask test`
pub(crate) fn test(filter: Option<&str>) -> Result<(), String> {
    prerequisites::for_tests()?;
    let notes = fresh_notes()?;
    let mut steps = Steps::new();
    prepare(&mut steps)?;
    let mut tests = cargo(&["test", "--workspace", "--no-fail-fast"]);
    tests.args(filter).env("TEELINE_TEST_NOTES", &notes);
    limit_threads(&mut tests);
    steps.run_tests("all tests", tests)?;
    print_notes(&notes);
    steps.summary()
}

/// `cargo xtask matrix`
pub(crate) fn matrix(flags: &[String]) -> Result<(), String> {
    prerequisites::for_matrix()?;
    if flags == ["--round-trips"] {
        return round_trips();
    }
    let mut build = cargo(&["build", "--bins", "--example", "matrix_rdkafka"]);
    build.args(PROGRAMS.iter().flat_map(|name| ["-p", *name]));
    build.args(["--features", "teeline-tests/rdkafka-tls"]);
    Steps::new().run("build", build)?;
    let mut matrix = lab("debug");
    matrix.arg("matrix").args(flags);
    let status = matrix
        .status()
        .map_err(|error| format!("run {matrix:?}: {error}"))?;
    if status.success() {
        Ok(())
    } else {
        Err("not everything is the same through the proxy".to_owned())
    }
}

/// The round trips of the tests on other versions of Kafka.
fn round_trips() -> Result<(), String> {
    let mut steps = Steps::new();
    let mut build = cargo(&["build", "--bins"]);
    build.args(PROGRAMS.iter().flat_map(|name| ["-p", *name]));
    steps.run("build", build)?;
    let tests_of = ["--test", "clients", "--test", "fidelity"];
    for version in KAFKA_VERSIONS {
        let mut tests = cargo(&["test", "-p", "teeline-tests", "--no-fail-fast"]);
        tests.args(tests_of).env("TEELINE_KAFKA_VERSION", version);
        limit_threads(&mut tests);
        steps.run_tests(&format!("round trips on Kafka {version}"), tests)?;
    }
    steps.summary()
}

/// `cargo xtask bench`: always the release profile, since nobody runs anything else in production.
pub(crate) fn bench(arguments: &[String]) -> Result<(), String> {
    match arguments.first().map(String::as_str) {
        Some("micro") => return bench_target("micro", arguments.get(1..).unwrap_or_default()),
        Some("allocations") => {
            let segmenter = cargo(&["build", "--release", "-p", "teeline-segmenter"]);
            Steps::new().run("build in release mode", segmenter)?;
            return bench_target("allocations", arguments.get(1..).unwrap_or_default());
        }
        Some("report") => {
            let mut report = cargo(&["run", "--release", "--quiet", "-p", "teeline-benches", "--"]);
            report.args(arguments);
            return Steps::new().run("report", report);
        }
        _ => {}
    }
    prerequisites::for_demo()?;
    let mut steps = Steps::new();
    steps.run(
        "build in release mode",
        cargo(&["build", "--release", "--workspace", "--bins"]),
    )?;
    let mut setup = lab("release");
    setup.arg("setup-kafka");
    steps.run("fetch components", setup)?;
    let mut bench = cargo(&["run", "--release", "--quiet", "-p", "teeline-benches", "--"]);
    bench.args(arguments);
    steps.run("bench", bench)
}

/// A program of `benches/benches`, which only `cargo bench` builds. It keeps its result where a variable says.
fn bench_target(name: &str, arguments: &[String]) -> Result<(), String> {
    let mut bench = cargo(&["bench", "-p", "teeline-benches", "--bench", name, "--"]);
    // Criterion would ask cargo for it, and where it is not told, keep its results beside the package.
    bench.env("CRITERION_HOME", target_directory().join("criterion"));
    let save = arguments.iter().position(|argument| argument == "--save");
    for (at, argument) in arguments.iter().enumerate() {
        match save {
            Some(save) if at == save => {}
            // Cargo starts it in its package's directory.
            Some(save) if at == save + 1 => {
                let directory =
                    env::current_dir().map_err(|error| format!("the current directory: {error}"))?;
                bench.env("TEELINE_BENCH_SAVE", directory.join(argument));
            }
            _ => drop(bench.arg(argument)),
        }
    }
    Steps::new().run(&format!("bench {name}"), bench)
}

/// `cargo xtask lint`
pub(crate) fn lint() -> Result<(), String> {
    let mut steps = Steps::new();
    steps.run("formatting", cargo(&["fmt", "--all", "--check"]))?;
    steps.run(
        "clippy",
        cargo(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]),
    )
}

/// `cargo xtask setup`
pub(crate) fn setup() -> Result<(), String> {
    prerequisites::for_tests()?;
    prepare(&mut Steps::new())
}

/// Builds the programs and every test, and fetches the components.
pub(crate) fn prepare(steps: &mut Steps) -> Result<(), String> {
    // Not the benchmarks: nothing of them is run, and lint compiles them.
    let targets = ["--lib", "--bins", "--tests", "--examples"];
    let mut build = cargo(&["build", "--workspace"]);
    build.args(targets);
    steps.run("build", build)?;
    let mut setup = lab("debug");
    setup.arg("setup");
    steps.run("fetch components", setup)
}

/// The program of the tests crate that knows Kafka, as built before.
fn lab(profile: &str) -> Command {
    Command::new(target_directory().join(profile).join("teeline-lab"))
}

/// Our own binary lies in `target/debug`.
pub(crate) fn target_directory() -> PathBuf {
    let own = env::current_exe().ok();
    let found = own
        .as_deref()
        .and_then(Path::parent)
        .and_then(Path::parent)
        .map(Path::to_owned);
    found.unwrap_or_else(|| PathBuf::from("target"))
}

fn limit_threads(command: &mut Command) {
    if env::var_os("RUST_TEST_THREADS").is_none() {
        let threads = std::thread::available_parallelism()
            .map_or(2, usize::from)
            .min(TEST_THREADS_MAX);
        command.env("RUST_TEST_THREADS", threads.to_string());
    }
}

pub(crate) fn fresh_notes() -> Result<PathBuf, String> {
    let path = target_directory().join("test-notes.txt");
    fs::write(&path, "").map_err(|error| format!("write {}: {error}", path.display()))?;
    Ok(path)
}

pub(crate) fn print_notes(path: &Path) {
    // Without notes there is just nothing to print.
    let notes = fs::read_to_string(path).unwrap_or_default();
    if !notes.is_empty() {
        println!("\n== what the tests noted\n{notes}");
    }
}
