//! The archive on a real S3 server: the same round trip, an outage, a store that cannot be trusted, damage.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a test stops at the first surprise"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use serde_json::json;
use teeline_tests::driver::Isolation;
use teeline_tests::forgetful_store::ForgetfulStore;
use teeline_tests::nasty::NastyDataSet;
use teeline_tests::programs::{Archive, ProxySettings, Restorer};
use teeline_tests::read_back::assert_identical;
use teeline_tests::record::Record;
use teeline_tests::s3::S3;
use teeline_tests::stage::{Stage, Told};
use teeline_tests::wait::{seconds, wait_until};

static STAGE: LazyLock<Stage> = LazyLock::new(Stage::set);

fn on_s3(name: &str, endpoint: String) -> ProxySettings {
    let archive = Archive::S3 {
        endpoint,
        prefix: format!("{name}/archive"),
    };
    ProxySettings::new(&STAGE.directory(name), &STAGE.source.bootstrap(), &archive)
}

#[test]
fn the_nasty_data_set_is_identical_after_a_restore_from_s3() {
    let s3 = S3::start();
    let settings = on_s3("s3", s3.endpoint());
    let mut proxy = settings.start();
    let data = NastyDataSet::produce(&STAGE, &settings.bootstrap(), "s3");
    proxy.stop();
    STAGE.assert_round_trip(&settings, &data.topic_names());
    let list = Restorer::for_archive_of(&settings).run(&["list", "--json"]);
    assert!(list.code == 0 && list.stdout.contains("\"e2e\""), "{list:?}");
}

#[test]
fn a_store_that_ignores_conditional_puts_is_refused_at_start_up() {
    let s3 = S3::start();
    let store = ForgetfulStore::before(&s3);
    let mut settings = on_s3("forgetful", store.endpoint());
    let mut proxy = settings.launch();
    let status = proxy.process.wait_exit(seconds(60));
    assert!(!status.success(), "a store that loses ledger commits was taken");
    let log = proxy.process.log();
    assert!(
        log.contains("single_writer"),
        "the message says what can be done:\n{log}"
    );
    assert!(
        log.contains("s3://backups/forgetful/"),
        "the message names the store:\n{log}"
    );
    drop(proxy);

    // Declared to be the only writer, it may use the store all the same.
    settings.document["storage"]["single_writer"] = json!(true);
    settings.announce("single_writer");
    STAGE.create_topic("forgetful", 1);
    let mut proxy = settings.start();
    Told::default().send_with(
        &STAGE.java,
        &settings.bootstrap(),
        &[],
        "forgetful",
        &[Record::new(0, "k", "v")],
    );
    proxy.stop();
    STAGE.assert_round_trip(&settings, &["forgetful"]);
}

#[test]
fn capture_goes_on_while_the_store_is_down_and_catches_up_after() {
    let mut s3 = S3::start();
    let mut settings = on_s3("outage", s3.endpoint());
    // How the outage is told may change; that it concerns the store does not.
    for text in ["store", "upload", "ledger", "manifest", "commit"] {
        settings.announce(text);
    }
    STAGE.create_topic("outage", 2);
    let mut proxy = settings.start();
    let mut told = Told::default();
    let mut send = |count: i32| {
        let records: Vec<Record> = (0..count)
            .map(|index| Record::new(index % 2, "k", format!("{index}")))
            .collect();
        told.send_with(
            &STAGE.java,
            &settings.bootstrap(),
            &[("compression.type", "lz4")],
            "outage",
            &records,
        );
    };
    send(50);
    wait_until("the first segments", seconds(60), || {
        !files(&s3.bucket_directory(), "zst").is_empty()
    });
    s3.kill();
    // More than one segment interval long, in several batches: producers notice nothing.
    for _ in 0..20 {
        send(100);
    }
    wait_until("the outage to be logged", seconds(60), || {
        let log = proxy.process.log();
        log.lines()
            .any(|line| line.contains(" WARN ") || line.contains(" ERROR "))
    });
    send(100);
    s3.start_again();
    wait_until("the uploads to catch up", seconds(120), || {
        proxy.metric("teeline_unarchived_bytes") == 0.0
    });
    proxy.stop();
    assert_eq!(
        STAGE.assert_round_trip(&settings, &["outage"]).count(),
        told.count()
    );
}

#[test]
fn a_damaged_segment_is_refused_by_name_before_anything_is_produced() {
    let settings = STAGE.proxy("damaged");
    STAGE.create_topic("damaged", 2);
    let mut proxy = settings.start();
    let records: Vec<Record> = (0..500)
        .map(|index| Record::new(index % 2, "k", format!("value {index}")))
        .collect();
    Told::default().send_with(&STAGE.java, &settings.bootstrap(), &[], "damaged", &records);
    proxy.stop();

    let segments = files(&STAGE.directory("damaged").join("archive"), "zst");
    assert!(segments.len() >= 2, "{segments:?}");
    let victim = segments.last().unwrap();
    let intact = fs::read(victim).unwrap();
    let target = STAGE.target.bootstrap();
    let restorer = Restorer::for_archive_of(&settings);
    // The records, the footer, and the very last byte; then a piece missing, then everything.
    let flips = [
        intact.len() / 3,
        intact.len() / 2,
        intact.len() - 40,
        intact.len() - 1,
    ];
    let mut damages: Vec<(String, Option<Vec<u8>>)> = flips
        .iter()
        .map(|at| {
            let mut bytes = intact.clone();
            bytes[*at] ^= 0x10;
            (format!("bit flipped at {at} of {}", intact.len()), Some(bytes))
        })
        .collect();
    damages.push(("cut short".to_owned(), Some(intact[..intact.len() - 1].to_vec())));
    damages.push(("gone".to_owned(), None));
    for (damage, bytes) in damages {
        match bytes {
            Some(bytes) => fs::write(victim, bytes).unwrap(),
            None => fs::remove_file(victim).unwrap(),
        }
        let run = restorer.restore(&target, &["--topic", "damaged"]);
        assert_eq!(run.code, 1, "{damage}: {run:?}");
        let name = victim.file_name().unwrap().to_str().unwrap();
        assert!(
            run.stderr.contains(name),
            "{damage}: the segment is not named: {}",
            run.stderr
        );
        let described = STAGE
            .java
            .request(&json!({"op": "describe_topics", "bootstrap": target, "topics": ["damaged"]}));
        if described.is_ok() {
            assert_eq!(
                STAGE.read_target(&["damaged"]).count(),
                0,
                "{damage}: something was produced"
            );
        }
    }
    fs::write(victim, intact).unwrap();
    let source = STAGE.read_source(&["damaged"], Isolation::Committed);
    STAGE.restore(&settings, &["damaged"], &[]);
    assert_identical(&source, &STAGE.read_target(&["damaged"]));
}

/// Every file with an extension below a directory.
fn files(directory: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut pending = vec![directory.to_owned()];
    while let Some(directory) = pending.pop() {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                pending.push(path);
            } else if path.extension().is_some_and(|found| found == extension) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}
