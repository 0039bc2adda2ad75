//! A broker whose host vanishes: nobody refuses, nobody hangs up, packets are gone. Producers at the brokers and producers
//! through the proxy go on with those that are left, newcomers find them, and when the host is back so is its share.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a test stops at the first surprise"
)]

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::json;
use teeline_tests::archived::Archived;
use teeline_tests::comparison::{await_equal, compare};
use teeline_tests::driver::{Driver, Family, Isolation, ProducerConfig};
use teeline_tests::kafka::Kafka;
use teeline_tests::leaders;
use teeline_tests::namespace::{alone, shell};
use teeline_tests::notes::note;
use teeline_tests::programs::{Archive, ProxySettings};
use teeline_tests::read_back::{ReadBack, assert_acknowledged};
use teeline_tests::record::{Fate, Record, read_load_log};
use teeline_tests::source_log::SourceLog;
use teeline_tests::stage::Told;
use teeline_tests::wait::{seconds, wait_for, wait_until};
use teeline_tests::workdir::WorkDir;

const VANISHING: i32 = 2;
const PARTITIONS: i32 = 3;
const RATE: u64 = 100;
/// How long the proxy tries one broker.
const CONNECT_TIMEOUT: Duration = seconds(2);

#[test]
fn a_broker_whose_host_vanishes_takes_nothing_with_it() {
    if !alone("a_broker_whose_host_vanishes_takes_nothing_with_it") {
        return;
    }
    let mut kafka = Kafka::prepare(
        3,
        "broker.session.timeout.ms=4000\nbroker.heartbeat.interval.ms=500\n",
    );
    kafka.start_all();
    let (java, go) = (Driver::start(Family::Java), Driver::start(Family::Go));
    let work = WorkDir::create("vanished");
    let archive = work.join("archive");
    let mut settings = ProxySettings::new(
        work.path(),
        &kafka.bootstrap(),
        &Archive::Directory(archive.clone()),
    );
    settings.document["clusters"][0]["upstream"]["connect_timeout"] =
        json!(format!("{}s", CONNECT_TIMEOUT.as_secs()));
    let mut proxy = settings.start();
    let (source, bootstrap) = (kafka.bootstrap(), settings.bootstrap());
    let topics = [
        NEWCOMERS,
        "direct-java",
        "direct-franz-go",
        "through-java",
        "through-franz-go",
    ];
    let new = topics.map(|name| json!({"name": name, "partitions": PARTITIONS, "replication": 3}));
    java.create_topics(&source, &json!(new));
    let loads = [
        Load::start(&java, "direct-java", &source),
        Load::start(&go, "direct-franz-go", &source),
        Load::start(&java, "through-java", &bootstrap),
        Load::start(&go, "through-franz-go", &bootstrap),
    ];
    await_progress(&loads, "all brokers are there");

    vanish(&kafka);
    assert_gone(&kafka);
    await_progress(&loads, "a broker has vanished");
    await_other_leaders(&java, &source, &topics);
    // The proxy begins with another broker each time.
    let mut told = Told::default();
    for round in 0..3 {
        for client in [&java, &go] {
            let began = Instant::now();
            let records: Vec<Record> = (0..PARTITIONS)
                .map(|partition| Record::new(partition, "new", format!("{:?} {round}", client.family())))
                .collect();
            told.send_with(client, &bootstrap, &[("acks", "all")], NEWCOMERS, &records);
            let took = began.elapsed();
            note(&format!(
                "vanished, newcomer {round} of {:?}: {took:.1?}",
                client.family()
            ));
            assert!(took < CONNECT_TIMEOUT * 5, "a newcomer waited for {took:?}");
        }
    }
    await_nothing_held_back(&loads);
    come_back(&kafka);
    leaders::await_in_sync(&java, &source, &topics);
    await_progress(&loads, "the broker is back");

    let through: Vec<&Load<'_>> = loads.iter().filter(|load| load.is_through()).collect();
    for load in &loads {
        load.stop();
    }
    let topics: Vec<&str> = through.iter().map(|load| load.name).chain([NEWCOMERS]).collect();
    let read = ReadBack::load(&go.read_into(&source, &topics, Isolation::Committed, true));
    told.assert_in(&read);
    let mut acknowledged = told.count();
    for load in through {
        let sent = read_load_log(&load.log);
        assert!(
            sent.iter().all(|each| each.fate == Fate::Acknowledged),
            "{}",
            load.name
        );
        assert_acknowledged(&read, load.name, &sent);
        acknowledged += sent.len();
    }
    assert_eq!(
        read.count(),
        acknowledged,
        "records that nobody knows of, or twice"
    );
    let log = SourceLog::fetch(&go, &source, &topics);
    await_equal(&log, &archive, settings.backup_id(), seconds(60));
    note(&compare(&log, &Archived::read(&archive, settings.backup_id())).figures());
    proxy.stop();
}

const NEWCOMERS: &str = "newcomers";

/// An endless load into the topic of its name.
struct Load<'a> {
    name: &'static str,
    client: &'a Driver,
    log: PathBuf,
}

impl<'a> Load<'a> {
    fn start(client: &'a Driver, name: &'static str, bootstrap: &str) -> Self {
        // Nobody waits half a minute for an answer in a test.
        let config = [
            ("acks", "all"),
            ("linger.ms", "5"),
            ("request.timeout.ms", "5000"),
        ];
        let settings = json!({"partitions": PARTITIONS, "rate": RATE, "value_bytes": 300});
        let log = client.start_load(name, bootstrap, name, &ProducerConfig::of(&config), settings);
        Self { name, client, log }
    }

    fn is_through(&self) -> bool {
        self.name.starts_with("through")
    }

    fn acknowledged(&self) -> u64 {
        self.client.acknowledged(self.name)
    }

    /// Sent, and not answered.
    fn waiting(&self) -> u64 {
        let acknowledged = self.acknowledged();
        let sent = self.client.load_status(self.name)["sent"].as_u64().unwrap();
        sent.saturating_sub(acknowledged)
    }

    fn stop(&self) {
        self.client.stop_load(self.name, 60);
    }
}

/// Each load writes for three seconds' worth.
fn await_progress(loads: &[Load<'_>], since: &str) {
    let began = Instant::now();
    let before: Vec<u64> = loads.iter().map(Load::acknowledged).collect();
    for (load, before) in loads.iter().zip(before) {
        let what = format!("{} to get on, while {since}", load.name);
        wait_until(&what, seconds(90), || load.acknowledged() > before + 3 * RATE);
        note(&format!(
            "vanished, {since}: {} gets on after {:.1} s",
            load.name,
            began.elapsed().as_secs_f64()
        ));
    }
}

/// The partitions that it led have other leaders, and no record of Java's waits for it. franz-go may go on trying the broker
/// for minutes, at the brokers as through the proxy; how much it holds back is noted.
fn await_nothing_held_back(loads: &[Load<'_>]) {
    let began = Instant::now();
    for load in loads.iter().filter(|load| load.client.family() == Family::Java) {
        wait_for(
            &format!("{} to be answered", load.name),
            seconds(60),
            || match load.waiting() {
                waiting if waiting < RATE / 2 => Ok(()),
                waiting => Err(format!("{waiting} records wait")),
            },
        );
    }
    for load in loads {
        let elapsed = began.elapsed().as_secs_f64();
        note(&format!(
            "vanished, {elapsed:.1} s: {} records of {} wait",
            load.waiting(),
            load.name
        ));
    }
}

/// Its packets are dropped, and it stands still: it tells nobody that it goes, and does not know it either.
fn vanish(kafka: &Kafka) {
    let (broker, controller) = (kafka.node_port(VANISHING), kafka.controller_port(VANISHING));
    let ports = format!("{{ {broker}, {controller} }}");
    shell(&format!(
        "nft -f - <<rules
table inet vanished {{
    chain packets {{
        type filter hook input priority 0; policy accept;
        tcp dport {ports} drop
        tcp sport {ports} drop
    }}
}}
rules"
    ));
    kafka.freeze_node(VANISHING);
}

/// Not even a connection is made: whatever of its packets arrives is dropped.
fn assert_gone(kafka: &Kafka) {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, kafka.node_port(VANISHING)));
    let error = TcpStream::connect_timeout(&address, seconds(1)).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{error}");
}

/// The others have noticed.
fn await_other_leaders(java: &Driver, source: &str, topics: &[&str]) {
    wait_for("other brokers to lead", seconds(60), || {
        let partitions = leaders::describe(java, source, topics)?;
        let vanished = i64::from(VANISHING);
        match partitions
            .iter()
            .find(|each| each.leader == vanished || each.in_sync.contains(&vanished))
        {
            None => Ok(()),
            Some(each) => Err(format!("{each:?}")),
        }
    });
}

/// The host is back as it was.
fn come_back(kafka: &Kafka) {
    shell("nft delete table inet vanished");
    kafka.thaw_node(VANISHING);
}
