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

/// Runs the suite twice.
pub fn run(kafka: &str, records: u64, mut said: impl FnMut(&str)) -> Suite {
    let (binary, sources) = component::kgo_tests();
    let broker = Broker::start(kafka, NODES, "", &[]);
    let work = WorkDir::create("kgo");
    let archive = Archive::Directory(work.join("archive"));
    let settings = ProxySettings::new(&work.subdirectory("proxy"), &broker.bootstrap(), &archive);
    let mut retried = Vec::new();
    let mut run_at = |way: &str, bootstrap: &str| {
        said(way);
        let runner = Runner {
            binary: &binary,
            sources: &sources,
            bootstrap,
            records,
            log: work.join(format!("{}.log", way.replace(' ', "-"))),
        };
        let mut ends = runner.run(".");
        retried.extend(
            runner
                .again(&mut ends)
                .into_iter()
                .map(|name| format!("{name}, {way}")),
        );
        ends
    };
    let direct = run_at("directly", &broker.bootstrap());
    let mut proxy = settings.start();
    let proxied = run_at("through the proxy", &settings.bootstrap());
    // It has deleted what it made, so that nothing can be compared; only that the proxy still stands.
    proxy.process.assert_running();
    Suite {
        direct,
        proxied,
        retried,
        records,
    }
}

struct Runner<'a> {
    binary: &'a Path,
    /// One of its tests reads the sources beside it.
    sources: &'a Path,
    bootstrap: &'a str,
    records: u64,
    log: PathBuf,
}

impl Runner<'_> {
    fn run(&self, tests: &str) -> BTreeMap<String, End> {
        let mut command = Command::new(self.binary);
        command
            .args(["-test.v", "-test.timeout", "25m", "-test.run", tests])
            .current_dir(self.sources)
            .env("KGO_SEEDS", self.bootstrap)
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
            let reason = fs::read_to_string(&self.log).unwrap_or_default();
            let lines = reason.lines().filter(|line| line.contains("_test.go"));
            eprintln!(
                "  {name} failed:\n{}",
                lines.take(10).collect::<Vec<_>>().join("\n")
            );
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
    fn only_whole_tests_count() {
        let log = "=== RUN TestA\n    --- FAIL: TestA/part (0.00s)\n--- PASS: TestA (0.10s)\n--- SKIP: TestB (0.00s)\nPASS\n";
        let found = ends(log);
        assert_eq!(found.len(), 2);
        assert_eq!(found["TestA"], End::Passed);
        assert_eq!(found["TestB"], End::Skipped);
    }
}
