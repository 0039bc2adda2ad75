//! Four proxies capture the same partitions into one backup. Whichever of them is killed, at whatever moment: the
//! archive is the brokers' log, offset by offset.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a test stops at the first surprise"
)]

use std::env;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::json;
use teeline_archive::OffsetRange;
use teeline_tests::archived::Archived;
use teeline_tests::comparison::{Wrong, await_equal, compare};
use teeline_tests::driver::{Driver, Isolation, ProducerConfig};
use teeline_tests::fleet::Fleet;
use teeline_tests::notes::note;
use teeline_tests::programs::{Archive, Restorer};
use teeline_tests::read_back::{assert_acknowledged, assert_identical};
use teeline_tests::record::{Fate, read_load_log};
use teeline_tests::source_log::{RawBatch, SourceLog};
use teeline_tests::stage::Stage;
use teeline_tests::tampering::ArchiveCopy;
use teeline_tests::wait::{seconds, wait_for, wait_until};

const SIDECARS: usize = 4;
const PARTITIONS: u32 = 3;
const TOPICS: [&str; 2] = ["orders", "transfers"];

#[test]
fn four_sidecars_make_one_whole_archive_whichever_of_them_is_killed() {
    let seed: u64 = number("TEELINE_SEED").unwrap_or_else(rand::random);
    let rounds = number("TEELINE_SIDECAR_ROUNDS").unwrap_or(3);
    note(&format!(
        "sidecars: seed {seed}, {rounds} rounds; set TEELINE_SEED and TEELINE_SIDECAR_ROUNDS to repeat or lengthen"
    ));
    let mut rng = StdRng::seed_from_u64(seed);
    let stage = Stage::set();
    for topic in TOPICS {
        stage.create_topic(topic, PARTITIONS);
    }
    let directory = stage.directory("sidecars");
    let archive = directory.join("archive");
    let mut fleet = Fleet::new(
        &directory,
        &stage.source.bootstrap(),
        SIDECARS,
        &Archive::Directory(archive.clone()),
    );
    fleet.audit_quickly(seconds(6));
    fleet.start();
    let loads = start_loads(&stage, &fleet);
    for round in 1..=rounds {
        await_progress(&stage, &loads);
        let auditor = await_one_auditor(&fleet);
        // The first to die is the one that audits: another has to take over.
        let victim = if round == 1 {
            auditor
        } else {
            rng.random_range(0..SIDECARS)
        };
        kill_after(
            &mut fleet,
            victim,
            Duration::from_micros(rng.random_range(0..400_000)),
        );
        note(&format!(
            "sidecars, round {round}: killed {}, the auditor is {}",
            victim + 1,
            auditor + 1
        ));
        if victim == auditor {
            await_one_auditor(&fleet);
        }
        fleet.0[victim].launch();
        fleet.0[victim].wait_ready();
    }
    await_progress(&stage, &loads);
    for load in &loads {
        let counts = load.driver(&stage).stop_load(&load.name, 60);
        note(&format!("sidecars, {}: {counts}", load.name));
    }
    let restorer = Restorer::for_archive_of(&fleet.0[0].settings);
    let source = SourceLog::fetch(stage.go(), &stage.source.bootstrap(), &TOPICS);
    // Only then the fleet may stop: what no proxy saw is found by whoever still runs.
    await_equal(&source, &archive, restorer.backup_id(), seconds(60));
    fleet.stop();

    let compared = compare(&source, &Archived::read(&archive, restorer.backup_id()));
    compared.assert_equal();
    // Each captures its own, and leaves to the auditor what is not, with two exceptions. Holes of the size of a marker among
    // transactions are fetched by every writer, as the log alone has markers: on a slow machine batches are as small as
    // that, and others' are taken for markers. And around a kill somebody fetches what another still has in its buffer: the
    // auditor what it misses for longer than its short grace, whoever starts again what may hold its batches in doubt.
    // A writer does not archive twice what it had committed: the ledger says up to where it was. If they fetched each
    // other's, it would be most.
    assert!(
        compared.offsets_twice <= compared.offsets / 4,
        "the sidecars fetch what the others have: {}",
        compared.figures()
    );
    note(&format!("sidecars: {}", compared.figures()));
    let committed = stage.read_source(&TOPICS, Isolation::Committed);
    for load in &loads {
        let sent = read_load_log(&load.log);
        assert!(sent.iter().any(|each| each.fate == Fate::Acknowledged));
        assert_acknowledged(&committed, load.topic, &sent);
    }
    restorer.restore_all(&stage.target.bootstrap(), &[]);
    assert_identical(&committed, &stage.read_target(&TOPICS));
    assert_a_dropped_batch_is_missed(&source, &archive, restorer.backup_id(), &stage);
}

fn number(name: &str) -> Option<u64> {
    let text = env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

/// A producer behind one of the sidecars.
struct Load {
    name: String,
    topic: &'static str,
    log: PathBuf,
    go: bool,
}

impl Load {
    fn driver<'a>(&self, stage: &'a Stage) -> &'a Driver {
        if self.go { stage.go() } else { &stage.java }
    }

    fn acknowledged(&self, stage: &Stage) -> u64 {
        self.driver(stage).acknowledged(&self.name)
    }
}

/// One producer behind each sidecar, all into the same partitions; and transactions behind two of them.
fn start_loads(stage: &Stage, fleet: &Fleet) -> Vec<Load> {
    let quick = [
        ("reconnect.backoff.max.ms", "100"),
        ("reconnect.backoff.ms", "20"),
        ("retry.backoff.max.ms", "100"),
        ("request.timeout.ms", "10000"),
        ("linger.ms", "2"),
    ];
    let with = |more: &[(&str, &str)]| ProducerConfig::of(&[&quick[..], more].concat());
    let mut loads = Vec::new();
    for (index, member) in fleet.0.iter().enumerate() {
        let (name, go) = (format!("orders-{}", index + 1), index == SIDECARS - 1);
        // Sizes differ, so that no two producers send the same record.
        let settings = json!({"partitions": PARTITIONS, "rate": 250, "value_bytes": 200 + index});
        let config = if go {
            ProducerConfig::of(&[("compression.type", "zstd"), ("linger.ms", "2")])
        } else {
            with(&[("compression.type", ["lz4", "none", "gzip"][index])])
        };
        let driver = if go { stage.go() } else { &stage.java };
        let log = driver.start_load(&name, &member.bootstrap(), "orders", &config, settings);
        loads.push(Load {
            name,
            topic: "orders",
            log,
            go,
        });
    }
    for index in [0, 2] {
        let name = format!("transfers-{}", index + 1);
        let settings = json!({"partitions": PARTITIONS, "rate": 200, "value_bytes": 300 + index,
            "transaction_records": 20, "abort_every": 3});
        let config = with(&[("transactional.id", &name)]);
        let bootstrap = fleet.0[index].bootstrap();
        let log = stage
            .java
            .start_load(&name, &bootstrap, "transfers", &config, settings);
        loads.push(Load {
            name,
            topic: "transfers",
            log,
            go: false,
        });
    }
    loads
}

fn await_progress(stage: &Stage, loads: &[Load]) {
    for load in loads {
        let before = load.acknowledged(stage);
        wait_until(&format!("{} to get on", load.name), seconds(60), || {
            load.acknowledged(stage) > before + 20
        });
    }
}

/// Until one of them audits, and no other does.
fn await_one_auditor(fleet: &Fleet) -> usize {
    wait_for("one auditor", seconds(60), || match fleet.auditors()[..] {
        [one] => Ok(one),
        ref others => Err(format!("{others:?} say that they audit")),
    })
}

fn kill_after(fleet: &mut Fleet, victim: usize, delay: Duration) {
    let kill_at = Instant::now() + delay;
    wait_until("the moment of the kill", seconds(5), || Instant::now() >= kill_at);
    fleet.0[victim].kill();
}

/// A comparison that cannot fail proves nothing: one batch dropped, wherever it is held, is missed.
fn assert_a_dropped_batch_is_missed(source: &SourceLog, archive: &Path, backup_id: &str, stage: &Stage) {
    let copy = ArchiveCopy::of(archive, backup_id, &stage.directory("sidecars-damaged"));
    let ((topic, partition), log) = source.0.iter().next().unwrap();
    let whole = copy.read();
    let segments = whole.segments_of(topic, &log.topic_id, *partition);
    // A segment is named by its first offset, so that its first batch cannot be dropped.
    let begins = |batch: &RawBatch| {
        segments
            .iter()
            .any(|segment| segment.info.start_offset == batch.base_offset)
    };
    let victim = log.batches.iter().find(|batch| !begins(batch)).unwrap();
    let held = |batch: &RawBatch| batch.base_offset == victim.base_offset;
    for segment in &segments {
        if segment.batches.iter().any(held) {
            copy.edit_segment(segment, |batches| batches.retain(|batch| !held(batch)));
        }
    }
    let found = compare(source, &copy.read()).findings;
    let hole = OffsetRange {
        first: victim.base_offset,
        last: victim.last_offset,
    };
    assert!(
        found.iter().any(|finding| finding.wrong == Wrong::Missing(hole)),
        "{hole} of {topic}/{partition} was dropped, found was {found:?}"
    );
}
