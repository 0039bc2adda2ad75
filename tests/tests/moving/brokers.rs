//! What happens to brokers and topics while clients produce.

use serde_json::json;
use teeline_tests::balancer::Balancer;
use teeline_tests::fleet::Fleet;
use teeline_tests::kafka::broker_count;
use teeline_tests::leaders::{await_in_sync, describe};
use teeline_tests::notes::note;
use teeline_tests::stage::Stage;
use teeline_tests::wait::{seconds, wait_for, wait_until};

use crate::sides::{PARTITIONS, Side};
use crate::{DIRECT, THROUGH, hints};

/// A topic that is deleted while it is written. The proxies do not capture it, which they know by its name only: when it
/// is created again, the first batches for its new id may come to a proxy that has not heard of that id.
pub(crate) fn doomed(side: &str) -> String {
    format!("{side}-{DOOMED}")
}

/// The load into it.
const DOOMED: &str = "java-doomed";

fn lasting() -> Vec<String> {
    let mut topics = [DIRECT, THROUGH].map(Side::topics).concat();
    topics.push(hints::TOPIC.to_owned());
    topics
}

fn in_sync(stage: &Stage) {
    let topics = lasting();
    let names: Vec<&str> = topics.iter().map(String::as_str).collect();
    await_in_sync(&stage.java, &stage.source.bootstrap(), &names);
}

/// A rolling restart: the next goes when the last is in sync again.
pub(crate) fn restart_one_after_the_other(stage: &mut Stage, balancer: &Balancer, sides: [&Side; 2]) {
    for id in stage.source.node_ids() {
        restart(stage, balancer, sides, id, None);
    }
}

/// Two of the three, as the third leaves for good later. One is restarted on another port: its former address has
/// nobody then.
pub(crate) fn restart_and_move(stage: &mut Stage, balancer: &Balancer, sides: [&Side; 2]) {
    restart(stage, balancer, sides, 1, None);
    restart(stage, balancer, sides, 2, Some(3));
}

fn restart(stage: &mut Stage, balancer: &Balancer, sides: [&Side; 2], id: i32, port_index: Option<u16>) {
    stage.source.stop_node(id);
    if let Some(index) = port_index {
        stage.source.move_node(id, index);
    }
    stage.source.restart_node(id);
    in_sync(stage);
    // Whoever asks at its listener gets an answer by it.
    let listener = balancer.node_port(u16::try_from(id).unwrap());
    wait_for(
        "the broker to be reached through the proxies",
        seconds(15),
        || broker_count(listener).map(|_| ()),
    );
    for side in sides {
        side.await_progress();
    }
}

/// Topics are deleted while they are written, and created again. Only the Java client finds a topic of the same name
/// again: franz-go stays with the one that it knew, directly too.
pub(crate) fn topics_come_and_go(stage: &Stage, sides: [&mut Side; 2]) {
    let bootstrap = stage.source.bootstrap();
    let sides = sides.map(|side| {
        side.start_load(DOOMED, &[]);
        &*side
    });
    let get_on = || {
        for side in sides {
            side.await_acknowledged(DOOMED, 20);
        }
    };
    get_on();
    let topics = [DIRECT, THROUGH].map(doomed);
    for topic in &topics {
        stage
            .java
            .ask(&json!({"op": "delete_topic", "bootstrap": bootstrap, "topic": topic}));
    }
    for topic in &topics {
        let again = json!([{"name": topic, "partitions": PARTITIONS, "replication": 3}]);
        // A deleted name is free a moment later.
        wait_for("the topic to be created again", seconds(30), || {
            let request = json!({"op": "create_topics", "bootstrap": bootstrap, "topics": again});
            stage.java.request(&request).map(|_| ())
        });
    }
    get_on();
}

/// Its replicas are moved to the others, it is stopped and unregistered. Its listener refuses then.
pub(crate) fn one_leaves_for_good(
    stage: &mut Stage,
    balancer: &Balancer,
    fleet: &mut Fleet,
    sides: [&Side; 2],
) {
    const LEAVING: i32 = 3;
    let bootstrap = stage.source.bootstrap();
    let topics = [lasting(), [DIRECT, THROUGH].map(doomed).to_vec()].concat();
    for topic in &topics {
        for partition in 0..PARTITIONS {
            let replicas = if partition % 2 == 0 { [1, 2] } else { [2, 1] };
            stage
                .java
                .ask(&json!({"op": "reassign", "bootstrap": bootstrap, "topic": topic,
                "partition": partition, "replicas": replicas}));
        }
    }
    let names: Vec<&str> = topics.iter().map(String::as_str).collect();
    wait_for("the replicas to move", seconds(60), || {
        let partitions = describe(&stage.java, &bootstrap, &names)?;
        let left = |replicas: &[i64]| replicas.len() == 2 && !replicas.contains(&i64::from(LEAVING));
        match partitions
            .iter()
            .find(|each| !left(&each.replicas) || !left(&each.in_sync))
        {
            None => Ok(()),
            Some(each) => Err(format!("{each:?}")),
        }
    });
    stage.source.stop_node(LEAVING);
    stage
        .java
        .ask(&json!({"op": "unregister", "bootstrap": bootstrap, "node": LEAVING}));
    for side in sides {
        side.await_progress();
    }
    for member in &mut fleet.0 {
        wait_until("the proxy to know two brokers", seconds(15), || {
            member.metric("teeline_upstream_brokers") == 2.0
        });
    }
    let listener = balancer.node_port(u16::try_from(LEAVING).unwrap());
    let refused = broker_count(listener).unwrap_err();
    note(&format!(
        "moving: the listener of a broker that has left says {refused}"
    ));
}
