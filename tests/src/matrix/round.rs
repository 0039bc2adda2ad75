//! One round: every client against one Kafka version, directly and through the proxy.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::driver::{Driver, Family};
use crate::matrix::broker::Broker;
use crate::matrix::cell::{self, Door, Outcome};
use crate::matrix::client::Client;
use crate::matrix::feature::Feature;
use crate::matrix::{produced, secured};
use crate::programs::{Archive, Proxy, ProxySettings, STOP_LIMIT};
use crate::workdir::WorkDir;

/// What is tried.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The version of Kafka's broker.
    pub kafka: String,
    /// The clients.
    pub clients: Vec<Client>,
    /// What each of them does.
    pub features: Vec<Feature>,
    /// How many brokers, where there may be several: with KRaft and without security.
    pub nodes: u16,
    /// TLS to the proxy and from there to the broker, SASL from the client to the broker; KRaft brokers only.
    pub secured: bool,
}

/// Whether the proxy makes a difference.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// It makes none.
    Same,
    /// The client has no such thing.
    NotTheClient(String),
    /// It does not work directly either: the broker has no such thing, or the client cannot do it with this one.
    NotTheBroker(String),
    /// It does: what was seen directly, and through the proxy.
    Different(String, String),
}

/// A client's cells.
#[derive(Debug, Clone)]
pub struct Column {
    /// The client.
    pub client: Client,
    /// By feature, in the plan's order.
    pub cells: Vec<(Feature, Verdict)>,
    /// What did not work the first time, and stands as it was the second time.
    pub once: Vec<(Feature, Verdict)>,
    /// Both runs together.
    pub took: Duration,
}

/// What a round found.
#[derive(Debug, Clone)]
pub struct Round {
    /// The version of Kafka's broker.
    pub kafka: String,
    /// How many brokers there were.
    pub nodes: usize,
    /// As the plan says.
    pub secured: bool,
    /// The clients, in the plan's order.
    pub columns: Vec<Column>,
    /// Batches produced through the proxy that the archive has, all of them the same; or what is wrong.
    pub captured: Result<u64, String>,
    /// Anything else that is not as it should be.
    pub findings: Vec<String>,
}

/// Runs it. `said` is told of each client that is done.
pub fn run(plan: &Plan, mut said: impl FnMut(&Column)) -> Round {
    let broker = if plan.secured {
        secured::broker(&plan.kafka)
    } else {
        Broker::start(&plan.kafka, plan.nodes, "", &[])
    };
    let work = WorkDir::create("matrix");
    let (java, go) = (Driver::start(Family::Java), Driver::start(Family::Go));
    let archive = work.join("archive");
    let mut settings = ProxySettings::new(
        &work.subdirectory("proxy"),
        &broker.bootstrap(),
        &Archive::Directory(archive.clone()),
    );
    settings.document["segmenter"]["hole_grace_ms"] = json!(1_000);
    if plan.secured {
        secured::guard(&mut settings, &broker);
    }
    let mut proxy = settings.start();
    let stage = Stage {
        plan,
        broker: &broker,
        java: &java,
        go: &go,
        proxied: if plan.secured {
            secured::by_name(&settings.bootstrap())
        } else {
            settings.bootstrap()
        },
        work: &work,
    };
    produced::prepare_common(&java, &broker.bootstrap());
    let mut digests = BTreeSet::new();
    let mut columns = Vec::new();
    for client in &plan.clients {
        let column = stage.column(*client, &mut digests);
        said(&column);
        columns.push(column);
    }
    let topics: Vec<String> = plan
        .clients
        .iter()
        .flat_map(|client| {
            let door = stage.door(*client, true);
            produced::with_topics(&plan.features).map(move |feature| door.topic(feature))
        })
        .collect();
    let mut findings = stop(&mut proxy);
    if digests.len() > 1 {
        findings.push(format!(
            "clients read different records in the common topic: {digests:?}"
        ));
    }
    Round {
        kafka: plan.kafka.clone(),
        nodes: broker.nodes(),
        secured: plan.secured,
        columns,
        captured: produced::captured(&go, &broker.bootstrap(), &topics, &archive),
        findings,
    }
}

struct Stage<'a> {
    plan: &'a Plan,
    broker: &'a Broker,
    java: &'a Driver,
    go: &'a Driver,
    proxied: String,
    work: &'a WorkDir,
}

impl Stage<'_> {
    fn door(&self, client: Client, proxied: bool) -> Door {
        let (bootstrap, way) = if proxied {
            (self.proxied.clone(), "proxied")
        } else if self.plan.secured {
            (secured::address(self.broker), "direct")
        } else {
            (self.broker.bootstrap(), "direct")
        };
        Door {
            bootstrap,
            prefix: format!("{}-{way}", client.id),
            security: if self.plan.secured {
                secured::client()
            } else {
                json!({})
            },
        }
    }

    fn column(&self, client: Client, digests: &mut BTreeSet<String>) -> Column {
        let started = Instant::now();
        // Fetched before the clock of the program runs.
        let _ = client.command(self.work.path(), &self.plan.kafka);
        let mut cells = self.cells(client, &self.plan.features, "", digests);
        // Clients wait for a time at most, and machines are busy: what failed is tried once more, and said.
        let failed = |verdict: &Verdict| matches!(verdict, Verdict::Different(..) | Verdict::NotTheBroker(_));
        let again: Vec<Feature> = cells
            .iter()
            .filter(|(_, verdict)| failed(verdict))
            .map(|(feature, _)| *feature)
            .collect();
        let mut once = Vec::new();
        if !again.is_empty() {
            for (feature, verdict) in self.cells(client, &again, "-again", digests) {
                let cell = cells.iter_mut().find(|(each, _)| *each == feature);
                let before = std::mem::replace(&mut cell.expect("tried before").1, verdict.clone());
                if verdict == Verdict::Same || matches!(before, Verdict::Different(..)) {
                    once.push((feature, before));
                }
            }
        }
        Column {
            client,
            cells,
            once,
            took: started.elapsed(),
        }
    }

    fn cells(
        &self,
        client: Client,
        features: &[Feature],
        suffix: &str,
        digests: &mut BTreeSet<String>,
    ) -> Vec<(Feature, Verdict)> {
        let doors = [false, true].map(|proxied| {
            let mut door = self.door(client, proxied);
            door.prefix += suffix;
            door
        });
        for door in &doors {
            produced::prepare(self.java, &self.broker.bootstrap(), door, features);
        }
        // Side by side: they wait more than they compute.
        let [direct, proxied] = std::thread::scope(|scope| {
            let running = [0, 1].map(|index: usize| {
                let door = &doors[index];
                scope.spawn(move || self.outcomes(client, door, features))
            });
            running.map(|each| each.join().expect("run a client program"))
        });
        digests.extend([&direct, &proxied].into_iter().filter_map(digest));
        features
            .iter()
            .map(|feature| (*feature, judge(&direct[feature.id], &proxied[feature.id])))
            .collect()
    }

    fn outcomes(&self, client: Client, door: &Door, features: &[Feature]) -> BTreeMap<&'static str, Outcome> {
        let directory = self.work.subdirectory(&door.prefix);
        let mut outcomes = cell::run(client, &self.plan.kafka, door, features, &directory);
        produced::check(self.go, &self.broker.bootstrap(), door, features, &mut outcomes);
        outcomes
    }
}

/// What a client that read the whole common topic makes of its content: the same for all.
fn digest(outcomes: &BTreeMap<&'static str, Outcome>) -> Option<String> {
    match outcomes.get("consume")? {
        Outcome::Done(saw) => Some(saw.get("sha256")?.as_str()?.to_owned()),
        _ => None,
    }
}

/// SIGTERM; everything archived; and the lines of its log that nobody expected.
fn stop(proxy: &mut Proxy) -> Vec<String> {
    // Clients delete topics here, whose last records may not have come into the archive.
    const EXPECTED: &str = "a topic is gone from the source";
    proxy.process.terminate();
    let status = proxy.process.wait_exit(STOP_LIMIT);
    let mut findings = Vec::new();
    if status.code() != Some(0) {
        findings.push(format!("the proxy did not archive everything ({status})"));
    }
    let log = proxy.process.log();
    let alarming = log.lines().filter(|line| {
        matches!(line.split_whitespace().nth(1), Some("WARN" | "ERROR")) || line.contains("panicked")
    });
    findings.extend(
        alarming
            .filter(|line| !line.contains(EXPECTED))
            .map(|line| format!("the proxy's log: {line}")),
    );
    findings
}

fn judge(direct: &Outcome, proxied: &Outcome) -> Verdict {
    match (direct, proxied) {
        (Outcome::Done(a), Outcome::Done(b)) if a == b => Verdict::Same,
        (Outcome::Unsupported(reason), Outcome::Unsupported(_)) => Verdict::NotTheClient(reason.clone()),
        (Outcome::Failed(reason), Outcome::Failed(_)) => Verdict::NotTheBroker(reason.clone()),
        (direct, proxied) => Verdict::Different(said(direct), said(proxied)),
    }
}

fn said(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Done(saw) => saw.to_string(),
        Outcome::Failed(reason) | Outcome::Unsupported(reason) => reason.clone(),
    }
}

impl Round {
    /// What is wrong: the cells that differ, and everything else.
    pub fn wrong(&self) -> Vec<String> {
        let cells = self.columns.iter().flat_map(|column| {
            column
                .cells
                .iter()
                .filter_map(|(feature, verdict)| match verdict {
                    Verdict::Different(direct, proxied) => Some(format!(
                        "{}, {}: directly {direct}; through the proxy {proxied}",
                        column.client.id, feature.id
                    )),
                    _ => None,
                })
        });
        let captured = self.captured.as_ref().err();
        cells
            .chain(captured.map(|wrong| format!("the archive: {wrong}")))
            .chain(self.findings.iter().cloned())
            .collect()
    }

    /// For the page and for programs.
    pub fn json(&self) -> Value {
        let columns: Vec<Value> = self.columns.iter().map(Column::json).collect();
        json!({
            "kafka": self.kafka,
            "brokers": self.nodes,
            "door": if self.secured { "TLS and SCRAM-SHA-512" } else { "plaintext" },
            "clients": columns,
            "batches_captured": self.captured.as_ref().ok(),
            "wrong": self.wrong(),
        })
    }
}

impl Column {
    fn json(&self) -> Value {
        let cells: Vec<Value> = self
            .cells
            .iter()
            .map(|(feature, verdict)| {
                let (verdict, reason) = match verdict {
                    Verdict::Same => ("same", None),
                    Verdict::NotTheClient(reason) => ("not the client", Some(reason.clone())),
                    Verdict::NotTheBroker(reason) => ("not the broker", Some(reason.clone())),
                    Verdict::Different(direct, proxied) => (
                        "different",
                        Some(format!("directly {direct}; through the proxy {proxied}")),
                    ),
                };
                json!({"feature": feature.id, "verdict": verdict, "reason": reason})
            })
            .collect();
        let once: Vec<&str> = self.once.iter().map(|(feature, _)| feature.title).collect();
        json!({"id": self.client.id, "title": self.client.title, "cells": cells, "tried_twice": once})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_is_the_same() {
        let done = |count: u64| Outcome::Done(json!({"records": count}));
        let failed = |reason: &str| Outcome::Failed(reason.to_owned());
        assert_eq!(judge(&done(60), &done(60)), Verdict::Same);
        assert!(matches!(judge(&done(60), &done(59)), Verdict::Different(..)));
        assert!(matches!(
            judge(&done(60), &failed("refused")),
            Verdict::Different(..)
        ));
        assert!(matches!(
            judge(&failed("refused"), &done(60)),
            Verdict::Different(..)
        ));
        assert!(matches!(
            judge(&failed("too old"), &failed("too old")),
            Verdict::NotTheBroker(_)
        ));
        let missing = Outcome::Unsupported("none".to_owned());
        assert!(matches!(judge(&missing, &missing), Verdict::NotTheClient(_)));
    }
}
