//! Runs a client program's features, and takes what it answers.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Stdio;
use std::sync::mpsc;

use serde_json::Value;

use crate::matrix::client::Client;
use crate::matrix::feature::Feature;
use crate::process::Process;
use crate::wait::seconds;

/// Streams and Connect wait twice for twenty seconds at most; nothing takes longer.
const PATIENCE_SECONDS: u64 = 100;

/// How a feature went.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// It worked, and this is what was seen: the same through every door.
    Done(Value),
    /// The client can do this, and could not.
    Failed(String),
    /// The client has no such thing.
    Unsupported(String),
}

/// Where and as whom a program connects.
#[derive(Debug, Clone)]
pub struct Door {
    /// `host:port`.
    pub bootstrap: String,
    /// What the names of topics and groups begin with, so that two doors do not meet.
    pub prefix: String,
    /// The protocol's settings, as the programs take them.
    pub security: Value,
}

impl Door {
    /// The topic of a feature.
    pub fn topic(&self, feature: Feature) -> String {
        format!("{}-{}", self.prefix, feature.id)
    }
}

/// Runs features one after the other. A program that hangs or ends is started again after the feature it was at.
pub fn run(
    client: Client,
    kafka_version: &str,
    door: &Door,
    features: &[Feature],
    directory: &Path,
) -> BTreeMap<&'static str, Outcome> {
    let mut outcomes = BTreeMap::new();
    let mut left = features;
    while let Some(first) = left.first() {
        let (answers, why) = run_once(client, kafka_version, door, left, directory);
        let done = answers.len();
        for (feature, answer) in left.iter().zip(answers) {
            outcomes.insert(feature.id, answer);
        }
        if let Some(stopped_at) = left.get(done) {
            outcomes.insert(stopped_at.id, Outcome::Failed(why));
        }
        left = left.get(done + 1..).unwrap_or_default();
        debug_assert!(outcomes.contains_key(first.id), "every start settles a feature");
    }
    outcomes
}

/// The answers of one start in order, and why there are no more.
fn run_once(
    client: Client,
    kafka_version: &str,
    door: &Door,
    features: &[Feature],
    directory: &Path,
) -> (Vec<Outcome>, String) {
    let mut command = client.command(directory, kafka_version);
    command
        .arg(&door.bootstrap)
        .arg(&door.prefix)
        .arg(door.security.to_string());
    command.args(features.iter().map(|feature| feature.id));
    let log = directory.join(format!("{}.log", door.prefix));
    let name = format!("{} for {}", client.id, door.prefix);
    let mut process = Process::start_with(&name, command, &log, Stdio::null(), Some(Stdio::piped()));
    let output = process.child_mut().stdout.take().expect("its output is piped");
    let (sender, lines) = mpsc::channel();
    // Ends with the program, which ends with this function.
    std::thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    let mut answers = Vec::new();
    let mut why = String::new();
    while let Some(feature) = features.get(answers.len()) {
        match lines.recv_timeout(seconds(PATIENCE_SECONDS)) {
            // Libraries write to the standard output, too.
            Ok(line) => answers.extend(answer(&line, *feature)),
            Err(mpsc::RecvTimeoutError::Timeout) => {
                why = format!("no answer within {PATIENCE_SECONDS} s");
                break;
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                why = format!("the program ended: {}", process.log_tail());
                break;
            }
        }
    }
    (answers, why)
}

fn answer(line: &str, feature: Feature) -> Option<Outcome> {
    let answer: Value = serde_json::from_str(line).ok()?;
    if answer.get("feature")?.as_str()? != feature.id {
        return None;
    }
    let error = || answer["error"].as_str().unwrap_or("no reason given").to_owned();
    Some(match answer["outcome"].as_str()? {
        "ok" => Outcome::Done(answer["saw"].clone()),
        "unsupported" => Outcome::Unsupported(error()),
        _ => Outcome::Failed(error()),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::matrix::feature::by_id;

    #[test]
    fn answers_are_told_from_what_libraries_print() {
        let lz4 = by_id("lz4").expect("a feature");
        assert_eq!(answer("WARN something", lz4), None);
        assert_eq!(answer("{\"feature\":\"gzip\",\"outcome\":\"ok\"}", lz4), None);
        assert_eq!(
            answer(
                "{\"feature\":\"lz4\",\"outcome\":\"ok\",\"saw\":{\"sent\":30}}",
                lz4
            ),
            Some(Outcome::Done(json!({"sent": 30})))
        );
        assert_eq!(
            answer(
                "{\"feature\":\"lz4\",\"outcome\":\"failed\",\"error\":\"no\"}",
                lz4
            ),
            Some(Outcome::Failed("no".to_owned()))
        );
    }
}
