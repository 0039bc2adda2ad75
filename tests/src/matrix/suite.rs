//! A public test suite that nobody here wrote: franz-go's own, which takes its brokers from the environment. It runs
//! directly and through the proxy, and both results must be the same, test by test.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::matrix::broker::Broker;
use crate::matrix::component::{self, KGO};
use crate::process::Process;
use crate::programs::{Archive, ProxySettings};
use crate::wait::seconds;
use crate::workdir::WorkDir;

/// So that leaders and coordinators are not all at one address.
const NODES: u16 = 3;

/// How a test ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It passed.
    Passed,
    /// It failed.
    Failed,
    /// It had nothing to do here.
    Skipped,
}

impl End {
    fn word(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
        }
    }
}

/// Both results, by test.
#[derive(Debug, Clone)]
pub struct Suite {
    /// Against the brokers themselves.
    pub direct: BTreeMap<String, End>,
    /// Through the proxy.
    pub proxied: BTreeMap<String, End>,
    /// Tests that failed among all others and passed alone, with the way they took.
    pub retried: Vec<String>,
    /// Records of its larger tests.
    pub records: u64,
}

const DIRECTLY: &str = "directly";
const PROXIED: &str = "through the proxy";

/// Runs the suite twice.
pub fn run(kafka: &str, records: u64, mut said: impl FnMut(&str)) -> Suite {
    let stage = Stage::build(kafka, records);
    let mut retried = Vec::new();
    let mut run_at = |way: &str, bootstrap: String| {
        said(way);
        let runner = stage.runner(way, bootstrap);
        let mut ends = runner.run(".");
        retried.extend(
            runner
                .again(&mut ends)
                .into_iter()
                .map(|name| format!("{name}, {way}")),
        );
        ends
    };
    let direct = run_at(DIRECTLY, stage.broker.bootstrap());
    let mut proxy = stage.settings.start();
    let proxied = run_at(PROXIED, stage.settings.bootstrap());
    // It has deleted what it made, so that nothing can be compared; only that the proxy still stands.
    proxy.process.assert_running();
    Suite {
        direct,
        proxied,
        retried,
        records,
    }
}

/// How often a test passed and failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// Runs that passed.
    pub passed: u32,
    /// Runs that did not.
    pub failed: u32,
}

/// Runs some tests again and again, in turn directly and through the proxy, for a test that fails now and then: both
/// ways have the same machine, and the same load on it. The first is what was seen directly.
pub fn repeat(kafka: &str, records: u64, tests: &str, times: u32, mut said: impl FnMut(&str)) -> [Tally; 2] {
    let stage = Stage::build(kafka, records);
    let mut proxy = stage.settings.start();
    let ways = [
        stage.runner(DIRECTLY, stage.broker.bootstrap()),
        stage.runner(PROXIED, stage.settings.bootstrap()),
    ];
    let mut tallies = [Tally::default(); 2];
    for _ in 0..times {
        for ((runner, tally), way) in ways.iter().zip(&mut tallies).zip([DIRECTLY, PROXIED]) {
            let ends = runner.run(&format!("^({tests})$"));
            let log = fs::read_to_string(&runner.log).unwrap_or_default();
            let failed: Vec<&String> = ends
                .iter()
                .filter(|(_, end)| **end != End::Passed)
                .map(|(name, _)| name)
                .collect();
            if failed.is_empty() && !ends.is_empty() {
                tally.passed += 1;
            } else {
                tally.failed += 1;
            }
            for name in failed {
                said(&format!(
                    "{name} failed {way}:\n{}",
                    last_words(&log, name).join("\n")
                ));
            }
            said(&format!(
                "{way}: {} passed, {} failed",
                tally.passed, tally.failed
            ));
        }
    }
    proxy.process.assert_running();
    tallies
}

/// Brokers, the settings of a proxy before them, and the suite.
struct Stage {
    binary: PathBuf,
    sources: PathBuf,
    records: u64,
    broker: Broker,
    settings: ProxySettings,
    work: WorkDir,
}

impl Stage {
    fn build(kafka: &str, records: u64) -> Self {
        let (binary, sources) = component::kgo_tests();
        let broker = Broker::start(kafka, NODES, "", &[]);
        let work = WorkDir::create("kgo");
        let archive = Archive::Directory(work.join("archive"));
        let settings = ProxySettings::new(&work.subdirectory("proxy"), &broker.bootstrap(), &archive);
        Self {
            binary,
            sources,
            records,
            broker,
            settings,
            work,
        }
    }

    fn runner(&self, way: &str, bootstrap: String) -> Runner<'_> {
        Runner {
            binary: &self.binary,
            sources: &self.sources,
            bootstrap,
            records: self.records,
            log: self.work.join(format!("{}.log", way.replace(' ', "-"))),
        }
    }
}

struct Runner<'a> {
    binary: &'a Path,
    /// One of its tests reads the sources beside it.
    sources: &'a Path,
    bootstrap: String,
    records: u64,
    log: PathBuf,
}

impl Runner<'_> {
    fn run(&self, tests: &str) -> BTreeMap<String, End> {
        let mut command = Command::new(self.binary);
        command
            .args(["-test.v", "-test.timeout", "25m", "-test.run", tests])
            .current_dir(self.sources)
            .env("KGO_SEEDS", &self.bootstrap)
            .env("KGO_TEST_RF", NODES.to_string())
            .env("KGO_TEST_RECORDS", self.records.to_string())
            .env("KGO_LOG_LEVEL", "none");
        // A log is only added to.
        let _ = fs::remove_file(&self.log);
        let mut process = Process::start("franz-go's tests", command, &self.log);
        process.wait_exit(seconds(1_600));
        ends(&process.log())
    }

    /// Runs tests that failed once more by themselves: with all others beside them they also fail for want of time.
    /// The names of those that pass.
    fn again(&self, ends: &mut BTreeMap<String, End>) -> Vec<String> {
        let failed = ends.iter().filter(|(_, end)| **end == End::Failed);
        let names: Vec<String> = failed.map(|(name, _)| name.clone()).collect();
        let mut passed = Vec::new();
        for name in names {
            let log = fs::read_to_string(&self.log).unwrap_or_default();
            eprintln!("  {name} failed:\n{}", last_words(&log, &name).join("\n"));
            if self.run(&format!("^{name}$")).get(&name) == Some(&End::Passed) {
                ends.insert(name.clone(), End::Passed);
                passed.push(name);
            }
        }
        passed
    }
}

/// The verdicts of whole tests; those of their parts are indented.
fn ends(log: &str) -> BTreeMap<String, End> {
    let parse = |line: &str| {
        let (verdict, rest) = line.strip_prefix("--- ")?.split_once(": ")?;
        let end = match verdict {
            "PASS" => End::Passed,
            "FAIL" => End::Failed,
            "SKIP" => End::Skipped,
            _ => return None,
        };
        Some((rest.split(' ').next()?.to_owned(), end))
    };
    log.lines().filter_map(parse).collect()
}

/// What a test and its parts said last. Tests run side by side, so a line before theirs says whose they are.
fn last_words<'a>(log: &'a str, test: &str) -> Vec<&'a str> {
    const SHOWN: usize = 12;
    let part = format!("{test}/");
    let mut own = false;
    let mut lines: Vec<&str> = log
        .lines()
        .filter(|line| match line.strip_prefix("=== ") {
            Some(head) => {
                let name = head.split_whitespace().nth(1).unwrap_or_default();
                own = name == test || name.starts_with(&part);
                false
            }
            None => own,
        })
        .collect();
    lines.split_off(lines.len().saturating_sub(SHOWN))
}

impl Suite {
    /// Tests that ended differently.
    pub fn differences(&self) -> Vec<String> {
        let names: std::collections::BTreeSet<_> = self.direct.keys().chain(self.proxied.keys()).collect();
        names
            .into_iter()
            .filter(|name| self.direct.get(*name) != self.proxied.get(*name))
            .map(|name| {
                let end = |of: &BTreeMap<String, End>| of.get(name).map_or("not run", |end| end.word());
                format!(
                    "{name}: directly {}, through the proxy {}",
                    end(&self.direct),
                    end(&self.proxied)
                )
            })
            .collect()
    }

    /// For the page and for programs.
    pub fn json(&self, kafka: &str) -> Value {
        let count = |of: &BTreeMap<String, End>, end: End| of.values().filter(|each| **each == end).count();
        let counts = |of: &BTreeMap<String, End>| {
            json!({"passed": count(of, End::Passed), "failed": count(of, End::Failed),
                "skipped": count(of, End::Skipped)})
        };
        json!({"suite": format!("{}/pkg/kgo {}", KGO.0, KGO.1), "kafka": kafka, "brokers": NODES, "records": self.records,
            "direct": counts(&self.direct), "proxied": counts(&self.proxied), "differences": self.differences(), "retried": self.retried})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_words_of_a_test_are_its_own() {
        let log = "=== RUN   TestA\n    a.go:1: begun\n=== RUN   TestAB\n    b.go:1: another\n\
                   === NAME  TestA/part\n    a.go:9: lost a record\n=== NAME  TestAB\n    b.go:2: done\n";
        assert_eq!(
            last_words(log, "TestA"),
            ["    a.go:1: begun", "    a.go:9: lost a record"]
        );
    }

    #[test]
    fn only_whole_tests_count() {
        let log = "=== RUN TestA\n    --- FAIL: TestA/part (0.00s)\n--- PASS: TestA (0.10s)\n--- SKIP: TestB (0.00s)\nPASS\n";
        let found = ends(log);
        assert_eq!(found.len(), 2);
        assert_eq!(found["TestA"], End::Passed);
        assert_eq!(found["TestB"], End::Skipped);
    }
}
