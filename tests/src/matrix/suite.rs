//! A public test suite that nobody here wrote: franz-go's own, which takes its brokers from the environment. It runs
//! directly and through the proxy, and both results must be the same, test by test.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::matrix::broker::Broker;
use crate::matrix::component::{self, KGO};
use crate::process::Process;
use crate::programs::{Archive, ProxySettings};
use crate::wait::seconds;
use crate::workdir::WorkDir;

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

/// Both results, by test.
#[derive(Debug, Clone)]
pub struct Suite {
    /// Against the broker itself.
    pub direct: BTreeMap<String, End>,
    /// Through the proxy.
    pub proxied: BTreeMap<String, End>,
    /// Records of its larger tests.
    pub records: u64,
}

/// Runs the suite twice.
pub fn run(kafka: &str, records: u64, mut said: impl FnMut(&str)) -> Suite {
    let binary = component::kgo_tests();
    let broker = Broker::start(kafka, "", &[]);
    let work = WorkDir::create("kgo");
    let archive = Archive::Directory(work.join("archive"));
    let settings = ProxySettings::new(&work.subdirectory("proxy"), &broker.bootstrap(), &archive);
    let run_at =
        |bootstrap: &str, name: &str| run_once(&binary, bootstrap, records, &work.join(name), work.path());
    said("directly");
    let direct = run_at(&broker.bootstrap(), "direct.log");
    said("through the proxy");
    let mut proxy = settings.start();
    let proxied = run_at(&settings.bootstrap(), "proxied.log");
    // It has deleted what it made, so that nothing can be compared; only that the proxy still stands.
    proxy.process.assert_running();
    Suite {
        direct,
        proxied,
        records,
    }
}

fn run_once(
    binary: &Path,
    bootstrap: &str,
    records: u64,
    log: &Path,
    directory: &Path,
) -> BTreeMap<String, End> {
    let mut command = Command::new(binary);
    command
        .args(["-test.v", "-test.timeout", "25m"])
        .current_dir(directory)
        .env("KGO_SEEDS", bootstrap)
        .env("KGO_TEST_RF", "1")
        .env("KGO_TEST_RECORDS", records.to_string())
        .env("KGO_LOG_LEVEL", "none");
    let mut process = Process::start("franz-go's tests", command, log);
    process.wait_exit(seconds(1_600));
    ends(&process.log())
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
                let (direct, proxied) = (self.direct.get(name), self.proxied.get(name));
                format!("{name}: directly {direct:?}, through the proxy {proxied:?}")
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
        json!({"suite": format!("{}/pkg/kgo {}", KGO.0, KGO.1), "kafka": kafka, "records": self.records,
            "direct": counts(&self.direct), "proxied": counts(&self.proxied), "differences": self.differences()})
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
