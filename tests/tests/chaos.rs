//! Chaos: producers of three client families, idempotent, transactional and careless, one of them past every proxy,
//! while proxies, a segmenter and brokers are killed, leaders moved and the store stopped. At the end the archive is
//! the brokers' log, offset by offset; what the cluster acknowledged and then lost is listed as superseded; and a
//! restore gives back what is committed, and nothing that was aborted.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a test stops at the first surprise"
)]

mod librdkafka;

use std::collections::{BTreeSet, HashSet};
use std::env;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use serde_json::{Value, json};
use teeline_archive::{OffsetRange, OffsetSet};
use teeline_tests::archived::Archived;
use teeline_tests::chaos::{Chaos, PARTITIONS, TOPICS};
use teeline_tests::comparison::{Comparison, await_equal, compare};
use teeline_tests::driver::Isolation;
use teeline_tests::notes::note;
use teeline_tests::programs::Restorer;
use teeline_tests::read_back::{ReadBack, assert_acknowledged, assert_identical};
use teeline_tests::record::{Ack, Fate, Record, Sent};
use teeline_tests::source_log::SourceLog;
use teeline_tests::wait::seconds;
use teeline_wire::batch::BatchView;
use teeline_wire::records::{DECOMPRESSED_BYTES_MAX, Records};

#[test]
fn whatever_happens_the_archive_is_the_brokers_log_offset_by_offset() {
    let seed: u64 = number("TEELINE_SEED").unwrap_or_else(rand::random);
    let rounds = number("TEELINE_CHAOS_ROUNDS").unwrap_or(1);
    note(&format!(
        "chaos: seed {seed}, {rounds} rounds; set TEELINE_SEED and TEELINE_CHAOS_ROUNDS to repeat or lengthen"
    ));
    let mut chaos = Chaos::start(seed);
    let third = ThirdFamily::new(chaos.fleet.0.iter().map(|member| member.bootstrap()).collect());
    std::thread::scope(|scope| {
        scope.spawn(|| third.produce());
        // If a step below panics, the load must end, or the scope never would.
        let _end = OnDrop(&third.stop);
        for round in 1..=rounds {
            chaos.round(round, &|| third.acknowledged.load(Ordering::Relaxed));
        }
    });
    chaos.quiesce();
    chaos.note("quiet");

    let bootstrap = chaos.kafka.bootstrap();
    let restorer = Restorer::for_archive_of(&chaos.fleet.0[0].settings);
    let source = SourceLog::fetch(&chaos.go, &bootstrap, &TOPICS);
    await_equal(&source, &chaos.archive(), restorer.backup_id(), seconds(60));
    chaos.note("the archive is the log");
    chaos.fleet.stop();

    let compared = compare(&source, &Archived::read(&chaos.archive(), restorer.backup_id()));
    compared.assert_equal();
    chaos.note(&compared.figures());
    let committed = read(&chaos, &bootstrap, &TOPICS, Isolation::Committed);
    assert_every_acknowledgement(&chaos, &committed, &compared);
    third.assert_in(&committed);
    chaos.note("every acknowledgement is accounted for");
    let by_librdkafka = librdkafka::consume(&bootstrap, "librdkafka", PARTITIONS as i32);
    assert_eq!(by_librdkafka.count(), count_of(&committed, "librdkafka"));
    assert_coverage(&chaos, &restorer, &source, &compared);
    assert_restored(&chaos, &restorer, &committed);
    assert_superseded_can_be_restored(&chaos, &restorer, &compared);
    chaos.note(&format!("all is well (seed {seed})"));
}

fn number(name: &str) -> Option<u64> {
    let text = env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

fn count_of(read: &ReadBack, topic: &str) -> usize {
    let of_topic = read.0.iter().filter(|((name, _), _)| name == topic);
    of_topic.map(|(_, records)| records.len()).sum()
}

fn read(chaos: &Chaos, bootstrap: &str, topics: &[&str], isolation: Isolation) -> ReadBack {
    ReadBack::load(&chaos.go.read_into(bootstrap, topics, isolation, true))
}

/// What producers were told stands in the log where they were told; only what a single broker had acknowledged may be
/// lost, and then it is listed as superseded, at the offset that its producer knows.
fn assert_every_acknowledgement(chaos: &Chaos, committed: &ReadBack, compared: &Comparison) {
    for load in &chaos.loads {
        let mut told = load.told();
        told.retain(|sent| sent.fate == Fate::Acknowledged);
        assert!(!told.is_empty(), "{} was never acknowledged", load.name);
        if load.careless {
            let (kept, lost): (Vec<Sent>, Vec<Sent>) = told
                .into_iter()
                .partition(|sent| is_in(committed, load.topic, &sent.ack, sent.digest));
            assert_listed(chaos, &lost, load.topic, compared);
            told = kept;
        }
        assert_acknowledged(committed, load.topic, &told);
    }
}

/// Records that were acknowledged and are not in the log.
fn assert_listed(chaos: &Chaos, lost: &[Sent], topic: &str, compared: &Comparison) {
    chaos.note(&format!(
        "the cluster lost {} records of {topic} that it had acknowledged",
        lost.len()
    ));
    let listed = superseded_records(compared);
    for sent in lost {
        let at = (topic.to_owned(), sent.ack.partition, sent.ack.offset, sent.digest);
        assert!(
            listed.contains(&at),
            "acknowledged, lost by the cluster, and not listed as superseded: {sent:?}"
        );
    }
}

fn is_in(read: &ReadBack, topic: &str, ack: &Ack, digest: u64) -> bool {
    let records = read.partition(topic, ack.partition);
    let at = records.binary_search_by_key(&ack.offset, |record| record.offset);
    at.is_ok_and(|index| records[index].digest == digest)
}

/// Topic, partition, offset and digest of every record that the archive lists as superseded.
fn superseded_records(compared: &Comparison) -> BTreeSet<(String, i32, i64, u64)> {
    let mut found = BTreeSet::new();
    for ((topic, partition), batches) in &compared.superseded {
        for batch in batches {
            let view = BatchView::parse(&Bytes::from(batch.bytes.clone())).unwrap();
            let records = Records::decode(&view, DECOMPRESSED_BYTES_MAX).unwrap();
            for record in records.iter() {
                let record = record.unwrap();
                let headers = record
                    .headers
                    .iter()
                    .map(|header| (header.key.to_vec(), header.value.map(<[u8]>::to_vec)));
                let digest = Record {
                    key: record.key.map(<[u8]>::to_vec),
                    value: record.value.map(<[u8]>::to_vec),
                    headers: headers.collect(),
                    ..Record::default()
                }
                .digest();
                found.insert((topic.clone(), *partition, record.offset, digest));
            }
        }
    }
    found
}

/// The archive's own account, against the cluster: all of it, nothing behind, what was lost listed, and a reason with
/// its evidence for whatever is not held.
fn assert_coverage(chaos: &Chaos, restorer: &Restorer, source: &SourceLog, compared: &Comparison) {
    let verified = restorer.run(&["verify", restorer.backup_id()]);
    assert_eq!(verified.code, 0, "{verified:?}");
    let bootstrap = chaos.kafka.bootstrap();
    let run = restorer.run(&["coverage", restorer.backup_id(), "--source", &bootstrap, "--json"]);
    assert_eq!(run.code, 0, "{run:?}");
    let coverage: Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!(coverage["percent"], 100.0, "{coverage}");
    let rows = coverage["partitions"].as_array().unwrap();
    for ((topic, partition), log) in &source.0 {
        let row = rows
            .iter()
            .find(|row| row["topic"] == topic.as_str() && row["partition"] == *partition)
            .unwrap_or_else(|| panic!("{topic}/{partition} is not in {coverage}"));
        assert_eq!(row["high_watermark"], log.high_watermark, "{row}");
        assert_eq!(
            (&row["lag"], &row["percent"]),
            (&json!(0), &json!(100.0)),
            "{row}"
        );
        for missing in row["missing"].as_array().unwrap() {
            assert_ne!(missing["reason"], "not-yet", "{row}");
            assert!(missing["evidence"]["at_ms"].is_i64(), "{row}");
        }
        let listed: OffsetSet = row["superseded"]
            .as_array()
            .unwrap()
            .iter()
            .map(|range| OffsetRange {
                first: range["first_offset"].as_i64().unwrap(),
                last: range["last_offset"].as_i64().unwrap(),
            })
            .collect();
        let lost = compared.superseded.get(&(topic.clone(), *partition));
        for batch in lost.into_iter().flatten() {
            assert!(
                listed.contains(batch.base_offset),
                "{batch:?} is not listed in {row}"
            );
        }
    }
}

/// On demand, and apart from the rest: exactly the records that the cluster acknowledged or appended, and then lost.
fn assert_superseded_can_be_restored(chaos: &Chaos, restorer: &Restorer, compared: &Comparison) {
    let lost = superseded_records(compared);
    let topics: BTreeSet<&String> = lost.iter().map(|(topic, ..)| topic).collect();
    for topic in topics {
        let name = format!("superseded-{topic}");
        create(chaos, std::slice::from_ref(&name));
        let map = format!("{topic}={name}");
        let flags = [
            "--allow-source",
            "--only",
            "superseded",
            "--topic",
            topic,
            "--map",
            &map,
        ];
        let run = restorer.restore(&chaos.kafka.bootstrap(), &flags);
        assert!(matches!(run.code, 0 | 3), "{run:?}");
        let restored = read(chaos, &chaos.kafka.bootstrap(), &[&name], Isolation::Uncommitted);
        let found: BTreeSet<(i32, u64)> = restored
            .0
            .iter()
            .flat_map(|((_, partition), records)| records.iter().map(|each| (*partition, each.digest)))
            .collect();
        let expected: BTreeSet<(i32, u64)> = lost
            .iter()
            .filter(|(of, ..)| of == topic)
            .map(|(_, partition, _, digest)| (*partition, *digest))
            .collect();
        assert_eq!(found, expected, "{name}: {run:?}");
    }
}

/// One replica is enough for what is only read back.
fn create(chaos: &Chaos, names: &[String]) {
    let topics: Vec<Value> = names
        .iter()
        .map(|name| json!({"name": name, "partitions": PARTITIONS, "configs": {"min.insync.replicas": "1"}}))
        .collect();
    chaos
        .java
        .create_topics(&chaos.kafka.bootstrap(), &Value::from(topics));
}

/// Into topics of other names on the cluster itself: what is committed, record by record, and nothing aborted.
fn assert_restored(chaos: &Chaos, restorer: &Restorer, committed: &ReadBack) {
    let bootstrap = chaos.kafka.bootstrap();
    let names: Vec<String> = TOPICS.iter().map(|topic| format!("restored-{topic}")).collect();
    create(chaos, &names);
    let maps: Vec<String> = TOPICS
        .iter()
        .zip(&names)
        .map(|(topic, name)| format!("{topic}={name}"))
        .collect();
    let mut flags = vec!["--allow-source"];
    flags.extend(maps.iter().flat_map(|map| ["--map", map.as_str()]));
    restorer.restore_all(&bootstrap, &flags);
    chaos.note("restored");
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut restored = read(chaos, &bootstrap, &names, Isolation::Uncommitted);
    for topic in TOPICS {
        restored = restored.renamed(&format!("restored-{topic}"), topic);
    }
    assert_identical(committed, &restored);
    let aborted: HashSet<u64> = chaos
        .loads
        .iter()
        .flat_map(|load| load.told())
        .filter(|sent| sent.fate == Fate::Aborted)
        .map(|sent| sent.digest)
        .collect();
    assert!(!aborted.is_empty(), "no transaction was aborted");
    let records = restored.0.values().flatten();
    let wrong = records.filter(|record| aborted.contains(&record.digest)).count();
    assert_eq!(wrong, 0, "aborted records were restored");
}

/// librdkafka in rounds of its own, each through the next proxy.
struct ThirdFamily {
    bootstraps: Vec<String>,
    stop: AtomicBool,
    acknowledged: AtomicU64,
    told: Mutex<Vec<(Ack, u64)>>,
}

impl ThirdFamily {
    fn new(bootstraps: Vec<String>) -> Self {
        Self {
            bootstraps,
            stop: AtomicBool::new(false),
            acknowledged: AtomicU64::new(0),
            told: Mutex::default(),
        }
    }

    fn produce(&self) {
        let settings = [
            ("enable.idempotence", "true"),
            ("compression.type", "gzip"),
            ("linger.ms", "5"),
            ("reconnect.backoff.max.ms", "200"),
        ];
        for (round, bootstrap) in (0..).zip(self.bootstraps.iter().cycle()) {
            if self.stop.load(Ordering::Relaxed) {
                return;
            }
            let records: Vec<Record> = (0..40)
                .map(|index| Record::new(index % PARTITIONS as i32, "k", format!("{round} {index}")))
                .collect();
            let answers = librdkafka::produce(bootstrap, &settings, "librdkafka", &records);
            let mut told = self.told.lock().unwrap();
            let acks = records.iter().zip(answers);
            told.extend(acks.filter_map(|(record, answer)| Some((answer.ok()?, record.digest()))));
            self.acknowledged.store(told.len() as u64, Ordering::Relaxed);
        }
    }

    fn assert_in(&self, committed: &ReadBack) {
        let told = self.told.lock().unwrap();
        assert!(!told.is_empty());
        let missing: Vec<_> = told
            .iter()
            .filter(|(ack, digest)| !is_in(committed, "librdkafka", ack, *digest))
            .collect();
        assert!(
            missing.is_empty(),
            "{} of librdkafka: {:?}",
            missing.len(),
            missing.first()
        );
    }
}

struct OnDrop<'a>(&'a AtomicBool);

impl Drop for OnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
