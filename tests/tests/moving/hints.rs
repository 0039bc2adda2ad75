//! Leader hints (KIP-951): a broker that does not lead any more says in its answer who does, and where. Clients go on
//! there without a Metadata request, and there is the proxy.

use serde_json::{Value, json};
use teeline_tests::driver::{Driver, Family, ProducerConfig};
use teeline_tests::leaders::{described, move_leader};
use teeline_tests::record::Record;
use teeline_tests::stage::Stage;
use teeline_tests::wait::{seconds, wait_until};

use crate::THROUGH;
use crate::sides::{PARTITIONS, Side};

pub(crate) const TOPIC: &str = "hints";
const PRODUCE: i64 = 0;
const METADATA: i64 = 3;

/// franz-go tells which requests it wrote; the Java client, whose loads ran while leaders moved, whether it took a hint.
pub(crate) fn are_taken_and_lead_to_the_proxy(stage: &Stage, java: &Driver) {
    let mut settings = stage.proxy("hints");
    settings.document["clusters"][0]["capture"]["enabled"] = false.into();
    let mut proxy = settings.start();
    let go = Driver::start(Family::Go);
    go.open_producer(
        "hinted",
        &settings.bootstrap(),
        &ProducerConfig::of(&[("acks", "all")]),
    );
    let send = || go.send_all("hinted", TOPIC, &[Record::new(0, "k", "v")]);
    let trace = || go.ask(&json!({"op": "trace", "producer": "hinted"}))["written"].clone();
    send();
    let first = trace();
    assert!(keys(&first).contains(&METADATA), "{first}");

    let bootstrap = stage.source.bootstrap();
    let former = described(&stage.java, &bootstrap, TOPIC, 0).leader;
    let next = 1 + former % 3;
    move_leader(&stage.java, &bootstrap, TOPIC, 0, next);
    let mut written = Vec::new();
    wait_until("the producer to follow the leader", seconds(30), || {
        send();
        written.extend(trace().as_array().cloned().unwrap_or_default());
        let at_next = |each: &Value| each["key"] == PRODUCE && each["node"] == next;
        written.iter().any(at_next)
    });
    let written = Value::from(written);
    assert!(!keys(&written).contains(&METADATA), "it had to ask: {written}");
    let port = settings.port(2 + u16::try_from(next).unwrap());
    let last = written.as_array().and_then(|all| all.last()).expect("it wrote");
    assert_eq!(last["address"], format!("127.0.0.1:{port}"), "{written}");
    go.producer_op("close", "hinted");
    proxy.stop();

    wait_until("the Java client to take a hint", seconds(30), || {
        java.log().contains("leader was updated.")
    });
}

/// Fetch has hints as well: the Java consumer follows a leader by them, and it is watched where it connects to.
pub(crate) fn lead_consumers(stage: &Stage, through: &Side) {
    let taken = || through.java.log().matches("as the leader was updated").count();
    let (before, topic) = (taken(), format!("{THROUGH}-java"));
    let bootstrap = stage.source.bootstrap();
    for partition in 0..PARTITIONS as usize {
        let next = 1 + described(&stage.java, &bootstrap, &topic, partition).leader % 3;
        move_leader(&stage.java, &bootstrap, &topic, partition, next);
    }
    wait_until("the Java consumer to take a hint", seconds(30), || {
        taken() > before
    });
    through.await_progress();
}

fn keys(written: &Value) -> Vec<i64> {
    let all = written.as_array().expect("an array of requests");
    all.iter().filter_map(|each| each["key"].as_i64()).collect()
}
