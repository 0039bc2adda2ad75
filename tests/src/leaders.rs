//! Who leads a partition, who is in sync, and having another broker lead.

use serde_json::{Value, json};

use crate::driver::Driver;
use crate::wait::{seconds, wait_for, wait_until};

/// One partition as the cluster describes it.
#[derive(Debug, Clone)]
pub struct Described {
    /// Its leader, -1 for none.
    pub leader: i64,
    /// Every broker that is to have it.
    pub replicas: Vec<i64>,
    /// Those that have all of it.
    pub in_sync: Vec<i64>,
}

/// Every partition of some topics.
pub fn describe(java: &Driver, bootstrap: &str, topics: &[&str]) -> Result<Vec<Described>, String> {
    let request = json!({"op": "describe_topics", "bootstrap": bootstrap, "topics": topics});
    let answer = java.request(&request)?;
    let ids = |value: &Value| -> Vec<i64> {
        let list = value.as_array().expect("an array of node ids");
        list.iter().filter_map(Value::as_i64).collect()
    };
    let topics = answer["topics"].as_array().expect("an array of topics");
    let rows = topics
        .iter()
        .flat_map(|topic| topic["partitions"].as_array().expect("an array of partitions"));
    Ok(rows
        .map(|row| Described {
            leader: row["leader"].as_i64().expect("a node id"),
            replicas: ids(&row["replicas"]),
            in_sync: ids(&row["isr"]),
        })
        .collect())
}

/// Until every replica of every partition is in sync and has a leader.
pub fn await_in_sync(java: &Driver, bootstrap: &str, topics: &[&str]) {
    wait_for("every replica to be in sync", seconds(90), || {
        let partitions = describe(java, bootstrap, topics)?;
        let whole = |each: &&Described| each.leader >= 0 && each.in_sync.len() == each.replicas.len();
        match partitions.iter().find(|each| !whole(each)) {
            None => Ok(()),
            Some(each) => Err(format!("{each:?}")),
        }
    });
}

/// Puts the replicas of a partition in another order, with `first` as the preferred one, and has it elected.
pub fn move_leader(java: &Driver, bootstrap: &str, topic: &str, partition: usize, first: i64) {
    let mut replicas = described(java, bootstrap, topic, partition).replicas;
    replicas.retain(|id| *id != first);
    replicas.insert(0, first);
    let request = |op: &str| {
        json!({"op": op, "bootstrap": bootstrap, "topic": topic, "partition": partition,
            "replicas": replicas})
    };
    java.ask(&request("reassign"));
    wait_until("the leader to move", seconds(60), || {
        // Refused until the new order is in force, and needless when the leader has moved by itself.
        let _ = java.request(&request("elect"));
        described(java, bootstrap, topic, partition).leader == first
    });
}

/// One partition.
pub fn described(java: &Driver, bootstrap: &str, topic: &str, partition: usize) -> Described {
    let described = describe(java, bootstrap, &[topic]).unwrap_or_else(|error| panic!("{topic}: {error}"));
    described[partition].clone()
}
