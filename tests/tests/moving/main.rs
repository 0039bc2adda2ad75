//! Nothing stands still: proxies restart one after the other, brokers restart, one has another address afterwards, one
//! leaves for good, topics come and go. Java, franz-go and librdkafka produce meanwhile, at the brokers and through two
//! proxies behind one address, and groups of the first two consume. Those behind the proxies are told of errors about as
//! often as the others, and of none when a proxy restarts; no consumer stops; every record is in the source and in the
//! archive, and once, unless librdkafka has sent it under two epochs.
//!
//! Every proxy and every broker goes away once. `TEELINE_MOVING_ROUNDS` restarts all of them so many times more before.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a test stops at the first surprise"
)]

mod brokers;
mod hints;
mod librdkafka;
mod proxies;
mod sides;

use std::collections::{BTreeMap, BTreeSet};
use std::thread;

use serde_json::{Value, json};
use teeline_tests::balancer::Balancer;
use teeline_tests::connections::ConnectionWatch;
use teeline_tests::driver::Isolation;
use teeline_tests::fleet::Fleet;
use teeline_tests::kafka::Kafka;
use teeline_tests::notes::note;
use teeline_tests::programs::{Archive, Restorer};
use teeline_tests::read_back::{ReadBack, assert_acknowledged, assert_identical};
use teeline_tests::record::{Fate, Sent};
use teeline_tests::source_log::SourceLog;
use teeline_tests::stage::Stage;
use teeline_tests::wait::seconds;

use sides::{PARTITIONS, Side, Told};

const DIRECT: &str = "direct";
const THROUGH: &str = "through";

#[test]
fn behind_the_proxies_a_cluster_that_moves_is_what_it_is_without_them() {
    let mut stage = Stage::with_source(|| {
        // As operators restart: leaders are handed over before a broker goes, which takes some heartbeats.
        let mut kafka = Kafka::prepare(
            3,
            "controlled.shutdown.enable=true\nbroker.heartbeat.interval.ms=200\n",
        );
        kafka.start_all();
        kafka
    });
    create_topics(&stage);
    let clock = std::time::Instant::now();
    let phase = |what: &str| note(&format!("moving, {:.0} s: {what}", clock.elapsed().as_secs_f64()));
    let directory = stage.directory("moving");
    let archive = Archive::Directory(directory.join("archive"));
    let mut fleet = Fleet::new(&directory, &stage.source.bootstrap(), 2, &archive);
    let balancer = Balancer::start(&[&fleet.0[0].settings, &fleet.0[1].settings]);
    fleet.audit_quickly(seconds(5));
    fleet.configure(|document| {
        balancer.advertise(document);
        let cluster = &mut document["clusters"][0];
        cluster["listen"]["connection_max_age"] = "3s".into();
        cluster["listen"]["connection_max_age_jitter_percent"] = 50.into();
        cluster["capture"]["include"] = json!([format!("{THROUGH}-*")]);
        cluster["capture"]["exclude"] = json!([brokers::doomed(THROUGH)]);
    });
    fleet.start();

    let (source, proxies) = (stage.source.bootstrap(), balancer.bootstrap());
    let (mut direct, mut through) = thread::scope(|scope| {
        let direct = scope.spawn(|| Side::start(DIRECT, &source));
        let through = Side::start(THROUGH, &proxies);
        (direct.join().unwrap(), through)
    });
    let watch = ConnectionWatch::start(&through.pids());
    let mut node_ports = broker_ports(&stage.source);
    direct.await_progress();
    through.await_progress();
    phase("loads run");
    let mut told = Told::so_far([&direct, &through]);
    for _ in 0..rounds() {
        proxies::restart_one_after_the_other(&mut fleet, &through);
        brokers::restart_one_after_the_other(&mut stage, &balancer, [&direct, &through]);
        told.compare("everything was restarted", [&direct, &through]);
        phase("everything was restarted");
    }
    proxies::restart_one_after_the_other(&mut fleet, &through);
    told.compare("proxies were restarted", [&direct, &through]);
    phase("proxies were restarted");
    brokers::restart_and_move(&mut stage, &balancer, [&direct, &through]);
    node_ports.extend(broker_ports(&stage.source));
    phase("brokers were restarted");
    told.compare("brokers were restarted, and one has moved", [&direct, &through]);
    hints::are_taken_and_lead_to_the_proxy(&stage, &through.java);
    hints::lead_consumers(&stage, &through);
    phase("leader hints were taken");
    brokers::topics_come_and_go(&stage, [&mut direct, &mut through]);
    told.compare("topics came and went", [&direct, &through]);
    phase("topics came and went");
    brokers::one_leaves_for_good(&mut stage, &balancer, &mut fleet, [&direct, &through]);
    told.compare("a broker left", [&direct, &through]);
    phase("a broker left");
    proxies::restart_where_resets_are_ends(&mut fleet, &balancer, &mut through);
    told.compare("behind a balancer without resets", [&direct, &through]);
    phase("a proxy was restarted behind a balancer without resets");

    direct.stop();
    let sent = through.stop();
    assert_none_past_the_proxies(watch.stop(), &node_ports);
    fleet.stop();
    phase("stopped");
    assert_every_record_once(&stage, &fleet, sent);
}

fn rounds() -> u32 {
    let text = std::env::var("TEELINE_MOVING_ROUNDS").unwrap_or_else(|_| "0".to_owned());
    text.parse().expect("TEELINE_MOVING_ROUNDS is a number")
}

fn create_topics(stage: &Stage) {
    let sides = [DIRECT, THROUGH].map(Side::topics).concat();
    let doomed = [DIRECT, THROUGH].map(brokers::doomed);
    let names = sides.into_iter().chain(doomed).chain([hints::TOPIC.to_owned()]);
    let topics: Vec<Value> = names
        .map(|name| json!({"name": name, "partitions": PARTITIONS, "replication": 3}))
        .collect();
    stage.create_topics(&Value::from(topics));
}

fn broker_ports(kafka: &Kafka) -> BTreeSet<u16> {
    kafka
        .node_ids()
        .into_iter()
        .map(|id| kafka.node_port(id))
        .collect()
}

/// Leaders and brokers have moved, and no client was ever connected to a broker itself.
fn assert_none_past_the_proxies(seen: BTreeMap<u32, BTreeSet<u16>>, brokers: &BTreeSet<u16>) {
    for (pid, ports) in seen {
        assert!(ports.len() >= 3, "client {pid} was connected to {ports:?} only");
        assert!(
            ports.is_disjoint(brokers),
            "client {pid} was connected to {ports:?}, and brokers have {brokers:?}"
        );
    }
}

/// Everything acknowledged is in the source, nothing is there twice, and a restore gives the same.
fn assert_every_record_once(stage: &Stage, fleet: &Fleet, sent: &BTreeMap<String, Vec<Sent>>) {
    let topics = Side::topics(THROUGH);
    let names: Vec<&str> = topics.iter().map(String::as_str).collect();
    let source = stage.read_source(&names, Isolation::Committed);
    let log = SourceLog::fetch(stage.go(), &stage.source.bootstrap(), &names);
    for topic in &names {
        let acknowledged = &sent[*topic];
        assert!(
            acknowledged.iter().all(|each| each.fate == Fate::Acknowledged),
            "{topic}"
        );
        assert_acknowledged(&source, topic, acknowledged);
        assert_eq!(
            records(&source, &log, topic),
            acknowledged.len(),
            "{topic} has records that nobody knows of"
        );
    }
    let flags: Vec<&str> = names.iter().flat_map(|name| ["--topic", *name]).collect();
    let restorer = Restorer::for_archive_of(&fleet.0[0].settings);
    restorer.restore_all(&stage.target.bootstrap(), &flags);
    assert_identical(&source, &stage.read_target(&names));
}

/// How many different ones there are in all partitions.
///
/// None may be there twice but by librdkafka, which begins a new epoch when it cannot tell what became of a record, directly
/// as through a proxy, and sends it once more under that one.
fn records(source: &ReadBack, log: &SourceLog, topic: &str) -> usize {
    let (mut distinct, mut by_epoch) = (BTreeSet::new(), BTreeSet::new());
    let (mut count, is_librdkafka) = (0, topic.ends_with("-librdkafka"));
    for partition in 0..PARTITIONS as i32 {
        let producers = &log.0[&(topic.to_owned(), partition)];
        for record in source.partition(topic, partition) {
            count += 1;
            distinct.insert(record.digest);
            let producer = producers
                .producer_at(record.offset)
                .expect("the batch of a record");
            by_epoch.insert((record.digest, is_librdkafka.then_some(producer)));
        }
    }
    assert_eq!(by_epoch.len(), count, "{topic} has records twice");
    if count > distinct.len() {
        note(&format!(
            "moving, {topic}: {} sent again in another epoch",
            count - distinct.len()
        ));
    }
    distinct.len()
}
