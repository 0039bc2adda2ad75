//! Three brokers whose leaders move, one of which dies, while every client family produces through the proxy.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a test stops at the first surprise"
)]

mod followers;
mod librdkafka;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use teeline_tests::connections::ConnectionWatch;
use teeline_tests::driver::{Driver, Family, Isolation, ProducerConfig};
use teeline_tests::kafka::Kafka;
use teeline_tests::notes::note;
use teeline_tests::programs::ProxySettings;
use teeline_tests::read_back::{ReadBack, assert_acknowledged, assert_identical};
use teeline_tests::record::{Record, read_load_log};
use teeline_tests::stage::Stage;
use teeline_tests::wait::{seconds, wait_until};

const PARTITIONS: usize = 3;
const LATE: i32 = 3;
const TOPICS: [&str; 4] = ["java", "transactional", "franz-go", "librdkafka"];

#[test]
fn nothing_is_lost_or_doubled_while_leaders_move_and_a_broker_dies() {
    let mut stage = Stage::with_source(Kafka::start_three);
    let seed = seed();
    let mut rng = StdRng::seed_from_u64(seed);
    let topics: Vec<Value> = TOPICS
        .iter()
        .map(|name| json!({"name": name, "partitions": PARTITIONS, "replication": 3}))
        .collect();
    stage.create_topics(&Value::from(topics));
    let settings = stage.proxy("cluster");
    // One broker joins only after the proxy has started.
    stage.source.kill_node(LATE);
    await_brokers(&stage, 2);
    let mut proxy = settings.start();
    let bootstrap = settings.bootstrap();

    let clients = Clients::start();
    let watch = ConnectionWatch::start(&clients.pids());
    let logs = start_loads(&clients, &bootstrap);
    await_progress(&clients);
    let log = proxy.process.log();
    assert!(
        !log.contains("node_id=3"),
        "the proxy knew the late broker:\n{log}"
    );
    stage.source.restart_node(LATE);
    await_brokers(&stage, 3);
    let stop = AtomicBool::new(false);
    let told = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        scope.spawn(|| librdkafka_load(&bootstrap, &stop, &told));
        // If a step below panics, the load must end, or the scope never would.
        let _end = OnDrop(&stop);
        for _ in 0..8 {
            move_a_leader(
                &stage,
                TOPICS[rng.random_range(0..TOPICS.len())],
                rng.random_range(0..PARTITIONS),
                &mut rng,
            );
            await_progress(&clients);
        }
    });
    let victim = rng.random_range(1..=3);
    note(&format!("killing broker {victim}"));
    stage.source.kill_node(victim);
    await_progress(&clients);
    stage.source.restart_node(victim);
    await_progress(&clients);
    for (load, driver) in clients.loads() {
        let counts = driver.stop_load(load, 90);
        note(&format!("{load}: {counts}"));
        assert!(counts["acknowledged"].as_u64().unwrap() > 100, "{load}: {counts}");
        // A transaction may be lost with a broker. An idempotent producer repeats what has no answer until it has.
        if load != "transactional" {
            assert_eq!(counts["unknown"], 0, "{load}: {counts}");
            assert_eq!(counts["errors"], json!({}), "{load}: {counts}");
        }
    }
    assert_none_past_the_proxy(&stage, watch.stop(), &bootstrap);

    let source = stage.read_source(&TOPICS, Isolation::Committed);
    for driver in [&stage.java, stage.go()] {
        let through = ReadBack::load(&driver.read_into(&bootstrap, &TOPICS, Isolation::Committed, true));
        assert_identical(&source, &through);
    }
    for topic in TOPICS {
        let through = librdkafka::consume(&bootstrap, topic, PARTITIONS as i32);
        assert_eq!(source.partition(topic, 0), through.partition(topic, 0));
    }
    assert!(
        proxy.process.log().contains("node_id=3"),
        "no listener for the broker that joined late"
    );
    proxy.stop();

    for (topic, log) in logs {
        assert_acknowledged(&source, topic, &read_load_log(&log));
    }
    for (record, ack) in told.into_inner().unwrap() {
        let found = source
            .partition("librdkafka", ack)
            .iter()
            .any(|each| each.digest == record);
        assert!(found, "a record that librdkafka was told of is not in the source");
    }
    restore_and_compare(&stage, &settings);
    // Kills a broker, so it is the last.
    followers::assert_followers_answer(&mut stage.source, TOPICS[0]);
}

fn seed() -> u64 {
    let seed = std::env::var("TEELINE_SEED")
        .ok()
        .map_or_else(rand::random, |text| {
            text.parse().expect("TEELINE_SEED is a number")
        });
    note(&format!("seed {seed}; set TEELINE_SEED to repeat"));
    seed
}

/// Clients that are told of the proxy and of nothing else.
struct Clients {
    java: Driver,
    go: Driver,
}

impl Clients {
    fn start() -> Self {
        Self {
            java: Driver::start(Family::Java),
            go: Driver::start(Family::Go),
        }
    }

    fn pids(&self) -> [u32; 2] {
        [self.java.pid(), self.go.pid()]
    }

    fn loads(&self) -> [(&'static str, &Driver); 3] {
        [
            ("java", &self.java),
            ("transactional", &self.java),
            ("franz-go", &self.go),
        ]
    }
}

/// Leaders have moved, a broker came and one went, and no client was ever connected to a broker itself.
fn assert_none_past_the_proxy(stage: &Stage, seen: BTreeMap<u32, BTreeSet<u16>>, bootstrap: &str) {
    let brokers: BTreeSet<u16> = stage
        .source
        .node_ids()
        .into_iter()
        .map(|id| stage.source.node_port(id))
        .collect();
    let (_, first) = bootstrap.rsplit_once(':').unwrap();
    let first: u16 = first.parse().unwrap();
    for (pid, ports) in seen {
        assert!(
            ports.is_disjoint(&brokers),
            "client {pid} was connected to {ports:?}, and brokers have {brokers:?}"
        );
        // Bootstrap and three brokers: else nothing was watched.
        let through = ports.iter().filter(|port| (first..first + 12).contains(*port));
        assert!(through.count() >= 3, "client {pid} was connected to {ports:?}");
    }
}

fn start_loads(clients: &Clients, bootstrap: &str) -> Vec<(&'static str, std::path::PathBuf)> {
    let settings = |more: Value| {
        let mut settings = json!({"partitions": PARTITIONS, "rate": 200, "value_bytes": 300});
        settings
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        settings
    };
    let idempotent = ProducerConfig::of(&[("acks", "all"), ("compression.type", "lz4"), ("linger.ms", "5")]);
    let transactional = ProducerConfig::of(&[
        ("transactional.id", "cluster"),
        ("transaction.timeout.ms", "20000"),
    ]);
    let transactions = settings(json!({"transaction_records": 20, "abort_every": 4}));
    vec![
        (
            "java",
            clients
                .java
                .start_load("java", bootstrap, "java", &idempotent, settings(json!({}))),
        ),
        (
            "transactional",
            clients.java.start_load(
                "transactional",
                bootstrap,
                "transactional",
                &transactional,
                transactions,
            ),
        ),
        (
            "franz-go",
            clients.go.start_load(
                "franz-go",
                bootstrap,
                "franz-go",
                &ProducerConfig::of(&[("compression.type", "zstd")]),
                settings(json!({})),
            ),
        ),
    ]
}

/// librdkafka in rounds of its own; digest and partition of everything acknowledged.
fn librdkafka_load(bootstrap: &str, stop: &AtomicBool, told: &Mutex<Vec<(u64, i32)>>) {
    let settings = [
        ("enable.idempotence", "true"),
        ("compression.type", "gzip"),
        ("linger.ms", "5"),
    ];
    for round in 0.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let records: Vec<Record> = (0..30)
            .map(|index| Record::new(index % PARTITIONS as i32, "k", format!("{round} {index}")))
            .collect();
        let answers = librdkafka::produce(bootstrap, &settings, "librdkafka", &records);
        let mut told = told.lock().unwrap();
        told.extend(
            records
                .iter()
                .zip(answers)
                .filter_map(|(record, answer)| Some((record.digest(), answer.ok()?.partition))),
        );
    }
}

struct OnDrop<'a>(&'a AtomicBool);

impl Drop for OnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Puts the replicas in another order and has the first of them elected.
fn move_a_leader(stage: &Stage, topic: &str, partition: usize, rng: &mut StdRng) {
    let bootstrap = stage.source.bootstrap();
    let (_, leader) = leader_and_isr(&stage.java, &bootstrap, topic, partition);
    let mut replicas: Vec<i64> = (1..=3).filter(|id| *id != leader).collect();
    if rng.random() {
        replicas.reverse();
    }
    replicas.push(leader);
    note(&format!(
        "moving {topic}/{partition} from broker {leader} to {}",
        replicas[0]
    ));
    let request =
        json!({"bootstrap": bootstrap, "topic": topic, "partition": partition, "replicas": replicas});
    let with_op = |op: &str| {
        let mut request = request.clone();
        request["op"] = op.into();
        request
    };
    stage.java.ask(&with_op("reassign"));
    wait_until("the leader to move", seconds(60), || {
        // Refused until the new order is in force, and needless when the leader has moved by itself.
        let _ = stage.java.request(&with_op("elect"));
        leader_and_isr(&stage.java, &bootstrap, topic, partition).1 == replicas[0]
    });
}

fn leader_and_isr(java: &Driver, bootstrap: &str, topic: &str, partition: usize) -> (usize, i64) {
    let answer = java.ask(&json!({"op": "describe_topics", "bootstrap": bootstrap, "topics": [topic]}));
    let row = &answer["topics"][0]["partitions"][partition];
    (
        row["isr"].as_array().unwrap().len(),
        row["leader"].as_i64().unwrap(),
    )
}

/// Until the cluster itself lists so many brokers.
fn await_brokers(stage: &Stage, count: usize) {
    let request = json!({"op": "cluster_id", "bootstrap": stage.source.bootstrap()});
    wait_until(&format!("{count} brokers"), seconds(60), || {
        stage.java.ask(&request)["nodes"].as_array().unwrap().len() == count
    });
}

/// Every load gets on: what happened is behind it, and records were written under the new leader.
fn await_progress(clients: &Clients) {
    for (load, driver) in clients.loads() {
        let acknowledged = || driver.acknowledged(load);
        let before = acknowledged();
        wait_until(&format!("{load} to get on"), seconds(90), || {
            acknowledged() > before + 50
        });
    }
}

fn restore_and_compare(stage: &Stage, settings: &ProxySettings) {
    let source = stage.read_source(&TOPICS, Isolation::Committed);
    stage.restore(settings, &TOPICS, &[]);
    assert_identical(&source, &stage.read_target(&TOPICS));
}
