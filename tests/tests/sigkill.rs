//! SIGKILL of the proxy at random moments under load, again and again: every acknowledged record is in the archive,
//! once and in order.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a test stops at the first surprise"
)]

use std::env;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use teeline_tests::driver::{Isolation, ProducerConfig};
use teeline_tests::notes::note;
use teeline_tests::programs::{Proxy, ProxySettings, Restorer};
use teeline_tests::read_back::{assert_acknowledged, assert_identical};
use teeline_tests::record::{Fate, read_load_log};
use teeline_tests::stage::Stage;
use teeline_tests::verdict::Verdict;
use teeline_tests::wait::{seconds, wait_for, wait_until};

const PARTITIONS: u32 = 3;
const TOPICS: [&str; 3] = ["idempotent", "transactional", "careless"];

#[test]
fn every_acknowledged_record_survives_the_death_of_the_proxy_at_any_moment() {
    let seed: u64 = env::var("TEELINE_SEED").map_or_else(
        |_| rand::random(),
        |text| text.parse().expect("TEELINE_SEED is a number"),
    );
    let rounds: u32 = env::var("TEELINE_SIGKILL_ROUNDS").map_or(20, |text| {
        text.parse().expect("TEELINE_SIGKILL_ROUNDS is a number")
    });
    note(&format!(
        "seed {seed}, {rounds} rounds; set TEELINE_SEED and TEELINE_SIGKILL_ROUNDS to repeat or lengthen"
    ));
    let mut rng = StdRng::seed_from_u64(seed);
    let stage = Stage::set();
    for topic in TOPICS {
        stage.create_topic(topic, PARTITIONS);
    }
    let settings = stage.proxy("sigkill");
    let mut proxy = settings.start();
    let logs = start_loads(&stage, &settings.bootstrap());
    for round in 1..=rounds {
        kill_at_a_random_moment(&stage, &mut proxy, &mut rng, &format!("round {round}"));
        proxy = settings.start();
    }
    for load in TOPICS {
        let counts = stage.java.stop_load(load, 120);
        note(&format!("{load}: {counts}"));
    }
    proxy.stop();

    let source = stage.read_source(&TOPICS, Isolation::Committed);
    let mut total = 0;
    for (topic, log) in &logs {
        let sent = read_load_log(log);
        total += sent.iter().filter(|each| each.fate == Fate::Acknowledged).count();
        assert_acknowledged(&source, topic, &sent);
    }
    note(&format!(
        "{total} acknowledged records, all in the source; now the archive"
    ));
    for topic in ["idempotent", "transactional"] {
        for partition in 0..PARTITIONS as i32 {
            let mut digests: Vec<u64> = source
                .partition(topic, partition)
                .iter()
                .map(|record| record.digest)
                .collect();
            let count = digests.len();
            digests.sort_unstable();
            digests.dedup();
            assert_eq!(
                digests.len(),
                count,
                "{topic}/{partition}: an idempotent producer's record is there twice"
            );
        }
    }
    stage.restore(&settings, &TOPICS, &[]);
    assert_identical(&source, &stage.read_target(&TOPICS));
    note(&format!(
        "{rounds} rounds, {total} acknowledged records: none missing, none doubled, all in order (seed {seed})"
    ));
}

/// Idempotent, transactional with aborts, and one that neither waits for replicas nor repeats carefully.
fn start_loads(stage: &Stage, bootstrap: &str) -> Vec<(&'static str, std::path::PathBuf)> {
    // After a kill clients should be back at once, not after a second.
    let quick = [
        ("reconnect.backoff.max.ms", "100"),
        ("reconnect.backoff.ms", "20"),
        ("retry.backoff.max.ms", "100"),
        ("request.timeout.ms", "10000"),
        ("linger.ms", "2"),
    ];
    let with = |more: &[(&str, &str)]| ProducerConfig::of(&[&quick[..], more].concat());
    let java = &stage.java;
    let plain = json!({"partitions": PARTITIONS, "rate": 1500, "value_bytes": 250});
    let transactions = json!({"partitions": PARTITIONS, "rate": 500, "value_bytes": 250, "transaction_records": 25, "abort_every": 3});
    vec![
        (
            "idempotent",
            java.start_load(
                "idempotent",
                bootstrap,
                "idempotent",
                &with(&[("compression.type", "lz4")]),
                plain.clone(),
            ),
        ),
        (
            "transactional",
            java.start_load(
                "transactional",
                bootstrap,
                "transactional",
                &with(&[("transactional.id", "sigkill")]),
                transactions,
            ),
        ),
        (
            "careless",
            java.start_load(
                "careless",
                bootstrap,
                "careless",
                &with(&[
                    ("acks", "1"),
                    ("enable.idempotence", "false"),
                    ("compression.type", "zstd"),
                ]),
                plain,
            ),
        ),
    ]
}

fn acknowledged(stage: &Stage) -> [u64; 3] {
    TOPICS.map(|load| stage.java.acknowledged(load))
}

/// Waits until every load gets on, and then a random while longer.
fn kill_at_a_random_moment(stage: &Stage, proxy: &mut Proxy, rng: &mut StdRng, label: &str) {
    let before = acknowledged(stage);
    wait_until("records to be acknowledged again", seconds(60), || {
        proxy.process.assert_running();
        acknowledged(stage)
            .iter()
            .zip(before)
            .all(|(now, before)| *now > before)
    });
    let delay = Duration::from_micros(rng.random_range(0..400_000));
    let kill_at = Instant::now() + delay;
    wait_until("the moment of the kill", seconds(5), || Instant::now() >= kill_at);
    proxy.kill();
    note(&format!(
        "{label}: killed {delay:?} into the load, {:?} acknowledged so far",
        acknowledged(stage)
    ));
}

#[test]
fn every_acknowledged_record_survives_even_when_the_cluster_dies_with_the_proxy() {
    let seed: u64 = env::var("TEELINE_SEED").map_or_else(
        |_| rand::random(),
        |text| text.parse().expect("TEELINE_SEED is a number"),
    );
    note(&format!("cluster lost too: seed {seed}"));
    let mut rng = StdRng::seed_from_u64(seed);
    let mut stage = Stage::set();
    for topic in TOPICS {
        stage.create_topic(topic, PARTITIONS);
    }
    let settings = stage.proxy("lost");
    let mut proxy = settings.start();
    let logs = start_loads(&stage, &settings.bootstrap());
    for round in 1..=3 {
        kill_at_a_random_moment(
            &stage,
            &mut proxy,
            &mut rng,
            &format!("cluster lost too, round {round}"),
        );
        proxy = settings.start();
    }
    await_settled(&stage, &settings, &proxy);
    kill_at_a_random_moment(&stage, &mut proxy, &mut rng, "cluster lost too, for good");
    stage.source.kill();
    for load in TOPICS {
        stage.java.stop_load(load, 0);
    }
    let mut segmenter = settings.launch_segmenter(&["--source-lost", "--until-drained"]);
    let status = segmenter.wait_exit(seconds(60));
    assert!(
        matches!(status.code(), Some(0 | 3)),
        "{status}:\n{}",
        segmenter.log_tail()
    );
    let run = Restorer::for_archive_of(&settings).restore(&stage.target.bootstrap(), &[]);
    // 3 says that unconfirmed records are among them, which after such an end is the truth.
    assert!(matches!(run.code, 0 | 3), "{run:?}");
    let target = stage.read_target(&TOPICS);
    for (topic, log) in logs {
        let mut verdict = Verdict::default();
        verdict.compare(&target, topic, PARTITIONS as i32, &read_load_log(&log), None);
        note(&format!("cluster lost too, {topic}: {verdict:?}"));
        // A producer that is not idempotent repeats, and then the source itself has a record twice.
        if topic == "careless" {
            assert_eq!((verdict.missing, verdict.altered), (0, 0), "{topic}: {verdict:?}");
        } else {
            assert!(verdict.is_identical(), "{topic}: {verdict:?}");
        }
    }
}

/// Until what earlier kills left open is settled with the cluster's help. Lost before that, the cluster takes with it
/// the answer to where such batches stand: they come back after all others then, and transactions among them, undecided,
/// not at all.
fn await_settled(stage: &Stage, settings: &ProxySettings, proxy: &Proxy) {
    let acknowledged_before: u64 = acknowledged(stage).iter().sum();
    let restorer = Restorer::for_archive_of(settings);
    wait_for("what the kills left open to be settled", seconds(60), || {
        let run = restorer.run(&["describe", settings.backup_id(), "--json"]);
        let described: Value =
            serde_json::from_str(&run.stdout).map_err(|error| format!("{error}: {run:?}"))?;
        let archived = described["records"].as_u64().unwrap_or(0);
        // Markers of transactions that end all the while are always missing; what is unsettled should not stay so.
        let open = proxy.metric("teeline_unsettled_intents");
        if archived >= acknowledged_before && open == 0.0 {
            return Ok(());
        }
        Err(format!(
            "{archived} of {acknowledged_before} records are archived, {open} intents are unsettled"
        ))
    });
}
