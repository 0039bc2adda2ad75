//! Running commands one after the other, with the time each took and one closing summary.

use std::env;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Steps that were run.
#[derive(Debug)]
pub(crate) struct Steps {
    started: Instant,
    rows: Vec<Row>,
}

#[derive(Debug)]
struct Row {
    name: String,
    took: Duration,
    passed: bool,
    tests: Option<Tests>,
}

/// Counts of a test run.
#[derive(Debug, Clone, Copy, Default)]
struct Tests {
    passed: u64,
    failed: u64,
    ignored: u64,
}

impl Steps {
    pub(crate) fn new() -> Self {
        Self {
            started: Instant::now(),
            rows: Vec::new(),
        }
    }

    /// Runs a command that shows its own output.
    pub(crate) fn run(&mut self, name: &str, mut command: Command) -> Result<(), String> {
        println!("\n== {name}");
        let started = Instant::now();
        let passed = command
            .status()
            .map_err(|error| format!("run {command:?}: {error}"))?
            .success();
        self.rows.push(Row {
            name: name.to_owned(),
            took: started.elapsed(),
            passed,
            tests: None,
        });
        if passed {
            Ok(())
        } else {
            Err(format!("{name}: failed"))
        }
    }

    /// The same, and a failure is kept for the end.
    pub(crate) fn run_kept(&mut self, name: &str, command: Command) -> Result<(), String> {
        let before = self.rows.len();
        match self.run(name, command) {
            // It ran, so it has its row.
            Err(_) if self.rows.len() > before => Ok(()),
            other => other,
        }
    }

    /// How long all of them took so far.
    pub(crate) fn hours(&self) -> f64 {
        self.started.elapsed().as_secs_f64() / 3600.0
    }

    /// In a few words.
    pub(crate) fn verdict(&self) -> String {
        let tests = self.rows.iter().filter_map(|row| row.tests);
        let (passed, failed) = tests.fold((0, 0), |sum, tests| (sum.0 + tests.passed, sum.1 + tests.failed));
        let wrong: Vec<&str> = self
            .rows
            .iter()
            .filter(|row| !row.passed)
            .map(|row| row.name.as_str())
            .collect();
        match wrong.is_empty() {
            true => format!("{passed} tests passed, {} steps, none failed", self.rows.len()),
            false => format!(
                "{passed} tests passed, {failed} failed; wrong: {}",
                wrong.join(", ")
            ),
        }
    }

    /// Runs `cargo test`, whose counts the summary shows. A failure is kept for the end.
    pub(crate) fn run_tests(&mut self, name: &str, mut command: Command) -> Result<(), String> {
        println!("\n== {name}");
        let started = Instant::now();
        let mut child = command
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("run {command:?}: {error}"))?;
        let mut tests = Tests::default();
        for line in child
            .stdout
            .take()
            .map(BufReader::new)
            .into_iter()
            .flat_map(BufRead::lines)
            .map_while(Result::ok)
        {
            tests.add(&line);
            println!("{line}");
        }
        let passed = child
            .wait()
            .map_err(|error| format!("wait for {command:?}: {error}"))?
            .success();
        self.rows.push(Row {
            name: name.to_owned(),
            took: started.elapsed(),
            passed,
            tests: Some(tests),
        });
        Ok(())
    }

    /// Prints the summary; an error if any step failed.
    pub(crate) fn summary(&self) -> Result<(), String> {
        println!("\n== summary");
        for row in &self.rows {
            let verdict = if row.passed { "ok    " } else { "FAILED" };
            let tests = row.tests.map_or_else(String::new, |tests| {
                format!(
                    "  {} passed, {} failed, {} ignored",
                    tests.passed, tests.failed, tests.ignored
                )
            });
            println!(
                "{verdict}  {:<34} {:>6.0} s{tests}",
                row.name,
                row.took.as_secs_f64()
            );
        }
        println!("took {:.1} minutes", self.started.elapsed().as_secs_f64() / 60.0);
        let failed: Vec<&str> = self
            .rows
            .iter()
            .filter(|row| !row.passed)
            .map(|row| row.name.as_str())
            .collect();
        if failed.is_empty() {
            Ok(())
        } else {
            Err(format!("failed: {}", failed.join(", ")))
        }
    }
}

impl Tests {
    /// From `test result: ok. 3 passed; 0 failed; 0 ignored; …`.
    fn add(&mut self, line: &str) {
        let Some((_, counts)) = line
            .strip_prefix("test result: ")
            .and_then(|rest| rest.split_once(". "))
        else {
            return;
        };
        for part in counts.split("; ") {
            let Some((number, what)) = part.split_once(' ') else {
                continue;
            };
            let Ok(number) = number.parse::<u64>() else {
                continue;
            };
            match what {
                "passed" => self.passed += number,
                "failed" => self.failed += number,
                "ignored" => self.ignored += number,
                _ => {}
            }
        }
    }
}

/// The cargo that runs us.
pub(crate) fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments);
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counts_of_several_test_binaries_add_up() {
        let mut tests = Tests::default();
        tests.add(
            "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.09s",
        );
        tests.add(
            "test result: FAILED. 2 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1s",
        );
        tests.add("test a_test ... ok");
        assert_eq!((tests.passed, tests.failed, tests.ignored), (5, 1, 1));
    }
}
