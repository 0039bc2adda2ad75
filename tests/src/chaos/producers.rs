//! Who produces: through one proxy, through whichever answers, or past all of them.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::{Chaos, PARTITIONS};
use crate::driver::{Driver, Family, ProducerConfig};
use crate::record::{Sent, read_load_log};
use crate::wait::{seconds, wait_for};

/// An endless load of a client program.
#[derive(Debug)]
pub struct Load {
    /// Its name.
    pub name: String,
    /// Where it writes.
    pub topic: &'static str,
    /// Its producer takes the leader's word and does not wait for replicas: what it was told can be lost.
    pub careless: bool,
    log: PathBuf,
    family: Family,
}

/// How a load is started.
struct Plan {
    name: &'static str,
    topic: &'static str,
    family: Family,
    bootstrap: String,
    config: &'static [(&'static str, &'static str)],
    settings: Value,
}

/// After a kill Java clients should be back at once, not after a second.
const QUICK: [(&str, &str); 5] = [
    ("reconnect.backoff.max.ms", "100"),
    ("reconnect.backoff.ms", "20"),
    ("retry.backoff.max.ms", "100"),
    ("request.timeout.ms", "10000"),
    ("metadata.max.age.ms", "10000"),
];

impl Load {
    /// The program that runs it.
    pub fn driver<'a>(&self, java: &'a Driver, go: &'a Driver) -> &'a Driver {
        match self.family {
            Family::Java => java,
            Family::Go => go,
        }
    }

    /// What its producer was told, once it has ended.
    pub fn told(&self) -> Vec<Sent> {
        read_load_log(&self.log)
    }
}

impl Chaos {
    pub(super) fn start_loads(&mut self) {
        for plan in self.plans() {
            let driver = match plan.family {
                Family::Java => &self.java,
                Family::Go => &self.go,
            };
            let config = match plan.family {
                Family::Java => ProducerConfig::of(&[&QUICK[..], plan.config].concat()),
                Family::Go => ProducerConfig::of(plan.config),
            };
            let log = driver.start_load(plan.name, &plan.bootstrap, plan.topic, &config, plan.settings);
            self.loads.push(Load {
                name: plan.name.to_owned(),
                topic: plan.topic,
                careless: plan.config.contains(&("acks", "1")),
                log,
                family: plan.family,
            });
        }
    }

    /// Sizes differ within a topic, so that no two producers send the same record.
    fn plans(&self) -> Vec<Plan> {
        let through = |member: usize| self.fleet.0[member].bootstrap();
        let settings =
            |rate: u32, bytes: u32| json!({"partitions": PARTITIONS, "rate": rate, "value_bytes": bytes});
        let mut transactions = settings(150, 300);
        transactions["transaction_records"] = json!(15);
        transactions["abort_every"] = json!(3);
        vec![
            Plan {
                name: "idempotent",
                topic: "idempotent",
                family: Family::Java,
                bootstrap: through(0),
                config: &[("compression.type", "lz4"), ("linger.ms", "2")],
                settings: settings(150, 250),
            },
            Plan {
                name: "bypassing",
                topic: "idempotent",
                family: Family::Go,
                bootstrap: self.kafka.bootstrap(),
                config: &[("linger.ms", "2")],
                settings: settings(75, 251),
            },
            // Its batches and the ends of its transactions may pass through different proxies.
            Plan {
                name: "transactional",
                topic: "transactional",
                family: Family::Java,
                bootstrap: format!("{},{}", through(1), through(2)),
                config: &[
                    ("transactional.id", "chaos"),
                    ("transaction.timeout.ms", "10000"),
                    ("linger.ms", "2"),
                ],
                settings: transactions,
            },
            Plan {
                name: "careless",
                topic: "careless",
                family: Family::Java,
                bootstrap: through(2),
                config: &[("acks", "1"), ("enable.idempotence", "false"), ("linger.ms", "0")],
                settings: settings(300, 100),
            },
            Plan {
                name: "franz-go",
                topic: "franz-go",
                family: Family::Go,
                bootstrap: through(1),
                config: &[("compression.type", "zstd"), ("linger.ms", "2")],
                settings: settings(150, 300),
            },
        ]
    }

    /// Every load gets on, and whoever else produces: what happened is behind them.
    pub(super) fn await_progress(&self, other: &dyn Fn() -> u64) {
        let counts = || -> Vec<u64> {
            let loads = self
                .loads
                .iter()
                .map(|load| load.driver(&self.java, &self.go).acknowledged(&load.name));
            loads.chain([other()]).collect()
        };
        let before = counts();
        wait_for("every producer to get on", seconds(90), || {
            let now = counts();
            let stuck = before
                .iter()
                .zip(&now)
                .position(|(before, now)| *now < before + 20);
            match stuck {
                None => Ok(()),
                Some(index) => {
                    let load = self.loads.get(index);
                    let status = load.map(|load| load.driver(&self.java, &self.go).load_status(&load.name));
                    Err(format!(
                        "{:?} stands at {}: {status:?}",
                        load.map(|load| &load.name),
                        now[index]
                    ))
                }
            }
        });
    }
}
