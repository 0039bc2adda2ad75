//! The results that are kept, one file a Kafka version, and the page that is made from them.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::components;
use crate::matrix::feature::FEATURES;

/// Where results are kept.
pub fn results_directory() -> PathBuf {
    components::source("clients/matrix/results")
}

/// The page.
pub fn page_path() -> PathBuf {
    components::source("../docs/COMPATIBILITY.md")
}

/// Keeps a result, with the day and the commit it was made at.
pub fn keep(name: &str, mut result: Value) {
    let git = Command::new("git")
        .args(["rev-parse", "--short=10", "HEAD"])
        .current_dir(components::source("."))
        .output()
        .expect("run git");
    let day = Command::new("date")
        .args(["-u", "+%F"])
        .output()
        .expect("run date");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    result["commit"] = json!(text(&git.stdout));
    result["day"] = json!(text(&day.stdout));
    let directory = results_directory();
    fs::create_dir_all(&directory).expect("create the directory of results");
    fs::write(directory.join(format!("{name}.json")), lines(&result)).expect("keep a result");
}

/// JSON with a line for each client, so that a change of one shows as such.
fn lines(result: &Value) -> String {
    let fields = result.as_object().into_iter().flatten().map(|(name, value)| {
        let rows = value.as_array().filter(|rows| rows.iter().any(Value::is_object));
        let value = match rows {
            None => value.to_string(),
            Some(rows) => {
                let rows: Vec<String> = rows.iter().map(Value::to_string).collect();
                format!("[\n{}\n]", rows.join(",\n"))
            }
        };
        format!("{}: {value}", json!(name))
    });
    format!("{{\n{}\n}}\n", fields.collect::<Vec<_>>().join(",\n"))
}

/// Every result that is kept: newest Kafka first, then everything else.
pub fn kept() -> Vec<Value> {
    let mut paths: Vec<PathBuf> = fs::read_dir(results_directory())
        .map(|entries| entries.filter_map(|entry| Some(entry.ok()?.path())).collect())
        .unwrap_or_default();
    paths.sort();
    paths.reverse();
    paths.iter().map(|path| parsed(path)).collect()
}

fn parsed(path: &Path) -> Value {
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("read {}: {error}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("read {}: {error}", path.display()))
}

/// The page as the results have it.
pub fn render(results: &[Value]) -> String {
    let mut page = String::from(HEAD);
    for result in results.iter().filter(|result| result.get("clients").is_some()) {
        render_round(&mut page, result);
    }
    let mut suites = results
        .iter()
        .filter(|result| result.get("suite").is_some())
        .peekable();
    if suites.peek().is_some() {
        page.push_str(SUITES);
    }
    for suite in suites {
        render_suite(&mut page, suite);
    }
    page
}

const HEAD: &str = "\
# Compatibility

Made by `cargo xtask matrix`; not to be edited. Every client runs every feature twice, directly against the broker and
through the proxy. What each run saw must be the same; what was produced is read by another client and compared record
by record; what went through the proxy is compared batch by batch with the archive.

- **✓** the same through the proxy as directly
- **·** the client has no such thing
- **–** not directly either: the broker has no such thing, or this client cannot do it with this broker
- **✗** different through the proxy
";

const SUITES: &str = "
## Public test suites

Tests that nobody here wrote, run directly and through the proxy.
";

fn render_round(page: &mut String, round: &Value) {
    let door = round["door"].as_str().unwrap_or("plaintext");
    let clients: Vec<&Value> = round["clients"].as_array().into_iter().flatten().collect();
    let _ = write!(
        page,
        "\n## Apache Kafka {}, {door}\n\nRun on {} at commit {}, with {}.\n\n|",
        text(&round["kafka"]),
        text(&round["day"]),
        text(&round["commit"]),
        brokers(round)
    );
    for client in &clients {
        let _ = write!(page, " | {}", text(&client["title"]));
    }
    let _ = write!(page, " |\n|---{}|\n", "|:-:".repeat(clients.len()));
    let mut reasons: Vec<Reason> = Vec::new();
    for feature in FEATURES {
        let cells: Vec<Option<&Value>> = clients.iter().map(|client| cell(client, feature.id)).collect();
        if cells.iter().all(Option::is_none) {
            continue;
        }
        let _ = write!(page, "| {}", feature.title);
        for (client, cell) in clients.iter().zip(cells) {
            let (sign, told) = sign(cell);
            let _ = write!(page, " | {sign}");
            if told {
                let reason = shortened(text(cell.map_or(&Value::Null, |cell| &cell["reason"])));
                note(&mut reasons, sign, text(&client["title"]), feature.title, reason);
            }
        }
        page.push_str(" |\n");
    }
    if !reasons.is_empty() {
        page.push('\n');
        page.extend(reasons.iter().map(Reason::line));
    }
    for client in &clients {
        let twice: Vec<&str> = client["tried_twice"]
            .as_array()
            .into_iter()
            .flatten()
            .map(text)
            .collect();
        if !twice.is_empty() {
            let _ = write!(
                page,
                "\nDid not work at a first try, on a busy machine, and stands as it was at a second: {}, {}.\n",
                text(&client["title"]),
                twice.join("; ")
            );
        }
    }
    if let Some(batches) = round["batches_captured"].as_u64() {
        let _ = write!(
            page,
            "\nOf what was produced through the proxy, all {batches} batches are in the archive, byte for byte.\n"
        );
    }
}

/// Why a client cannot do some features.
struct Reason {
    sign: &'static str,
    client: String,
    features: Vec<&'static str>,
    reason: String,
}

impl Reason {
    fn line(&self) -> String {
        let features = self.features.join("; ");
        format!("- {} {}, {features}: `{}`\n", self.sign, self.client, self.reason)
    }
}

/// Adds a feature to what has the same reason.
fn note(reasons: &mut Vec<Reason>, sign: &'static str, client: &str, feature: &'static str, reason: String) {
    let known = reasons
        .iter_mut()
        .find(|each| each.sign == sign && each.client == client && each.reason == reason);
    match known {
        Some(known) => known.features.push(feature),
        None => reasons.push(Reason {
            sign,
            client: client.to_owned(),
            features: vec![feature],
            reason,
        }),
    }
}

fn cell<'a>(client: &'a Value, feature: &str) -> Option<&'a Value> {
    let cells = client["cells"].as_array()?;
    cells.iter().find(|cell| cell["feature"] == feature)
}

/// What stands in a cell, and whether the page says why.
fn sign(cell: Option<&Value>) -> (&'static str, bool) {
    match cell.and_then(|cell| cell["verdict"].as_str()) {
        Some("same") => ("✓", false),
        Some("not the client") => ("·", false),
        Some("not the broker") => ("–", true),
        Some(_) => ("✗", true),
        None => ("", false),
    }
}

fn render_suite(page: &mut String, suite: &Value) {
    let counts = |side: &Value| {
        format!(
            "{} passed, {} failed, {} skipped",
            side["passed"], side["failed"], side["skipped"]
        )
    };
    let differences: Vec<&str> = suite["differences"]
        .as_array()
        .into_iter()
        .flatten()
        .map(text)
        .collect();
    let retried: Vec<&str> = suite["retried"]
        .as_array()
        .into_iter()
        .flatten()
        .map(text)
        .collect();
    let mut verdict = if differences.is_empty() {
        "The same, test by test.".to_owned()
    } else {
        format!("Different:\n\n- {}", differences.join("\n- "))
    };
    if !retried.is_empty() {
        let _ = write!(
            verdict,
            " Failed among all others, and passed alone: {}.",
            retried.join("; ")
        );
    }
    let _ = write!(
        page,
        "\n### {}, Apache Kafka {}\n\nRun on {} at commit {}, with {} and {} records in the larger tests.\n\n\
         - directly: {}\n- through the proxy: {}\n\n{verdict}\n",
        text(&suite["suite"]),
        text(&suite["kafka"]),
        text(&suite["day"]),
        text(&suite["commit"]),
        brokers(suite),
        suite["records"],
        counts(&suite["direct"]),
        counts(&suite["proxied"]),
    );
}

fn brokers(result: &Value) -> String {
    match result["brokers"].as_u64().unwrap_or(1) {
        1 => "one broker".to_owned(),
        count => format!("{count} brokers"),
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// One line, without what would end it in Markdown.
fn shortened(reason: &str) -> String {
    const SHOWN: usize = 160;
    let line: String = reason
        .chars()
        .map(|letter| {
            if letter.is_control() || letter == '`' {
                ' '
            } else {
                letter
            }
        })
        .collect();
    let mut shown: String = line.chars().take(SHOWN).collect();
    if line.chars().count() > SHOWN {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kept_result_has_a_line_for_each_client_and_is_json() {
        let result = json!({"clients": [{"id": "a"}, {"id": "b"}], "kafka": "4.3.1", "wrong": []});
        let text = lines(&result);
        assert_eq!(text.lines().count(), 8, "{text}");
        assert_eq!(serde_json::from_str::<Value>(&text).expect("JSON"), result);
    }

    #[test]
    fn the_page_says_what_differs() {
        let cells = json!([
            {"feature": "lz4", "verdict": "same", "reason": null},
            {"feature": "quotas", "verdict": "not the client", "reason": "none"},
            {"feature": "connect", "verdict": "different", "reason": "directly 20;\nthrough the proxy `19`"},
        ]);
        let round = json!({"kafka": "4.3.1", "day": "2026-01-01", "commit": "abc", "batches_captured": 7,
            "clients": [{"id": "x", "title": "X 1", "cells": cells}]});
        let page = render(&[round]);
        assert!(page.contains("| produce, lz4 | ✓ |"), "{page}");
        assert!(page.contains("quotas: set, describe, remove | · |"), "{page}");
        assert!(
            page.contains(
                "- ✗ X 1, Kafka Connect, file to topic to file: `directly 20; through the proxy  19 `"
            ),
            "{page}"
        );
        assert!(page.contains("all 7 batches"), "{page}");
        assert!(
            !page.contains("produce, gzip"),
            "a feature that was not tried has no row: {page}"
        );
    }
}
