//! Coverage of an archive whose cluster is there to be asked: what went past the proxy, what the archive does not have
//! yet, and what was taken out of it.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a test stops at the first surprise"
)]

use std::sync::LazyLock;

use serde_json::{Value, json};
use teeline_archive::ledger::Entry;
use teeline_archive::segment::Origin;
use teeline_tests::programs::{Archive, ProxySettings, Restorer};
use teeline_tests::record::Record;
use teeline_tests::stage::{Stage, Told};
use teeline_tests::tampering::ArchiveCopy;
use teeline_tests::wait::{seconds, wait_for};

static STAGE: LazyLock<Stage> = LazyLock::new(Stage::set);

fn send(bootstrap: &str, topic: &str, count: i32) {
    let records: Vec<Record> = (0..count)
        .map(|index| Record::new(0, &format!("key {index}"), format!("value {index}")))
        .collect();
    Told::default().send_with(&STAGE.java, bootstrap, &[], topic, &records);
}

/// Exit code and answer of `coverage`.
fn coverage(restorer: &Restorer, flags: &[&str]) -> (i32, Value) {
    let mut arguments = vec!["coverage", restorer.backup_id(), "--json", "--grace", "0"];
    arguments.extend(flags);
    let run = restorer.run(&arguments);
    let answer = serde_json::from_str(&run.stdout);
    (
        run.code,
        answer.unwrap_or_else(|error| panic!("{error}: {}{}", run.stdout, run.stderr)),
    )
}

/// Captures 40 records, lets 15 go past the proxy, and waits until the archive has them all.
fn archive_of(topic: &str) -> (ProxySettings, Restorer) {
    let mut settings = STAGE.proxy(topic);
    settings.document["audit"] = json!({"interval": "500ms", "grace": "2s"});
    settings.document["clusters"][0]["capture"]["include"] = json!([topic]);
    STAGE.create_topic(topic, 2);
    let mut proxy = settings.start();
    send(&settings.bootstrap(), topic, 40);
    send(&STAGE.source.bootstrap(), topic, 15);
    let restorer = Restorer::for_archive_of(&settings);
    let source = STAGE.source.bootstrap();
    wait_for(
        "the archive to have what went past the proxy",
        seconds(60),
        || {
            let (code, answer) = coverage(&restorer, &["--source", &source, "--topic", topic]);
            match (code, answer["offsets"]["held"].as_u64()) {
                (0, Some(55)) => Ok(()),
                _ => Err(answer.to_string()),
            }
        },
    );
    proxy.stop();
    (settings, restorer)
}

#[test]
fn the_archive_is_held_against_the_cluster() {
    let (_settings, restorer) = archive_of("live");
    let source = STAGE.source.bootstrap();
    let live = ["--source", source.as_str()];
    let (code, whole) = coverage(&restorer, &live);
    assert_eq!(
        (code, &whole["percent"], &whole["live"]),
        (0, &json!(100.0), &json!(true))
    );
    let partition = &whole["partitions"][0];
    assert_eq!(partition["offsets"]["tee"], 40);
    assert_eq!(partition["offsets"]["fetch"], 15);
    assert_eq!(
        (&partition["high_watermark"], &partition["lag"]),
        (&json!(55), &json!(0))
    );
    // Nobody captures any more: what is written now is not due, and seen only by asking.
    send(&source, "live", 5);
    let (code, behind) = coverage(&restorer, &live);
    let partition = &behind["partitions"][0];
    assert_eq!((code, &partition["lag"]), (0, &json!(5)));
    assert_eq!(partition["offsets"]["not_yet"], 5);
    assert_eq!(partition["missing"][0]["reason"], "not-yet");
    assert!(behind["percent"].as_f64().unwrap() < 100.0);
    let (code, alone) = coverage(&restorer, &[]);
    assert_eq!((code, &alone["percent"]), (0, &json!(100.0)));
    // A topic that the backup does not have is missed by whoever names it.
    STAGE.create_topic("live-later", 1);
    send(&source, "live-later", 3);
    let (code, unasked) = coverage(&restorer, &live);
    let missing = unasked["not_in_archive"].as_array().unwrap();
    assert!(
        missing.iter().any(|found| found["topic"] == "live-later"),
        "{missing:?}"
    );
    assert_eq!(code, 0);
    let (code, asked) = coverage(&restorer, &["--source", &source, "--topic", "live*"]);
    assert_eq!((code, &asked["offsets_missing"]), (3, &json!(3)));
}

#[test]
fn what_was_taken_out_of_the_archive_is_missed_by_its_offsets() {
    let (settings, restorer) = archive_of("planted");
    let directory = STAGE.directory("planted");
    let copy = directory.join("copy");
    let original = ArchiveCopy::of(&directory.join("archive"), settings.backup_id(), &copy);
    let mut hole = None;
    original.edit_entries(|entry| {
        if let Entry::Segment(info) = entry
            && info.identity.origin == Origin::Fetch
            && info.record_count > 0
        {
            hole = Some((info.start_offset, info.end_offset));
            *entry = Entry::Unknown {
                kind: 999,
                payload: "struck off".into(),
            };
        }
    });
    let (first, last) = hole.expect("what went past the proxy was fetched");
    let planted = Restorer::at(
        &directory.join("check"),
        &Archive::Directory(copy),
        restorer.backup_id(),
    );
    let (code, answer) = coverage(&planted, &[]);
    assert_eq!(code, 3, "{answer}");
    let holes = answer["partitions"][0]["holes"].as_array().unwrap();
    let covers = |range: &Value| range[0].as_i64() <= Some(first) && Some(last) <= range[1].as_i64();
    assert!(holes.iter().any(covers), "{holes:?} should name {first}..={last}");
    // Said in words, too.
    let text = planted
        .run(&["coverage", planted.backup_id(), "--grace", "0"])
        .stdout;
    assert!(text.contains("unexplained: planted partition 0"), "{text}");
}
