//! As an operator runs it: flags instead of a file, a segmenter of its own, guards, dry runs, honest endings.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a test stops at the first surprise"
)]

use std::collections::BTreeSet;
use std::process::Command;
use std::sync::LazyLock;
use std::time::UNIX_EPOCH;

use serde_json::json;
use teeline_tests::admin_port;
use teeline_tests::archived::Archived;
use teeline_tests::driver::{Isolation, ProducerConfig};
use teeline_tests::ports::PortBlock;
use teeline_tests::process::Process;
use teeline_tests::programs::{Archive, ProxySettings, Restorer, STOP_LIMIT, assert_orderly_log, binary};
use teeline_tests::raw::{self, RawClient};
use teeline_tests::read_back::assert_identical;
use teeline_tests::record::Record;
use teeline_tests::source_log::SourceLog;
use teeline_tests::stage::{Stage, Told};
use teeline_tests::wait::{seconds, wait_for, wait_until};
use teeline_tests::workdir::WorkDir;
use teeline_wire::codec::Compression;
use teeline_wire::records::BatchBuilder;

static STAGE: LazyLock<Stage> = LazyLock::new(Stage::set);

fn some_records(count: i32) -> Vec<Record> {
    (0..count)
        .map(|index| Record::new(0, &format!("key {index}"), format!("value {index}")))
        .collect()
}

/// Captures `count` records of a topic into an archive.
fn archive_of(topic: &str, count: i32) -> ProxySettings {
    let settings = STAGE.proxy(topic);
    STAGE.create_topic(topic, 1);
    let mut proxy = settings.start();
    Told::default().send_with(
        &STAGE.java,
        &settings.bootstrap(),
        &[],
        topic,
        &some_records(count),
    );
    proxy.stop();
    settings
}

#[test]
fn the_quick_start_needs_no_file() {
    let (ports, directory) = (PortBlock::reserve_wide(), STAGE.directory("quick"));
    STAGE.create_topic("quick", 1);
    let (listen, admin) = (ports.address(1), ports.address(0));
    let mut command = Command::new(binary("teeline-proxy"));
    command.args([
        "run",
        "--upstream",
        &STAGE.source.bootstrap(),
        "--listen",
        &listen,
        "--admin",
        &admin,
    ]);
    command.current_dir(&directory);
    let mut proxy = Process::start("teeline-proxy", command, &directory.join("proxy.log"));
    wait_for("the proxy to be ready", seconds(60), || {
        proxy.assert_running();
        match teeline_tests::admin_port::get(&admin, "/readyz") {
            Ok(answer) if answer.status == 200 => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    Told::default().send_with(&STAGE.java, &listen, &[], "quick", &some_records(50));
    assert_eq!(proxy.stop(STOP_LIMIT), 0, "{}", proxy.log_tail());
    assert_orderly_log(&proxy.log(), &[]);
    // The defaults of the command line: archive and buffer beside each other, backup id `default`.
    assert!(directory.join("teeline-buffer").is_dir());
    let mut restore = Command::new(binary("teeline-restorer"));
    restore.args([
        "restore",
        "default",
        "--archive",
        "./teeline-archive",
        "--topic",
        "quick",
        "--target",
        &STAGE.target.bootstrap(),
        "--quiet",
    ]);
    let output = restore.current_dir(&directory).output().unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert_identical(
        &STAGE.read_source(&["quick"], Isolation::Committed),
        &STAGE.read_target(&["quick"]),
    );
}

#[test]
fn a_segmenter_of_its_own_archives_what_a_proxy_buffers() {
    let mut settings = STAGE.proxy("apart");
    settings.document["segmenter"]["embedded"] = json!(false);
    settings.document["clusters"][0]["capture"]["ack"] = json!("async");
    STAGE.create_topic("apart", 1);
    let mut proxy = settings.start();
    // Its admin port must be another than the proxy's.
    let ports = PortBlock::reserve();
    let mut for_segmenter = settings.document.clone();
    for_segmenter["admin"]["listen"] = json!(ports.address(0));
    let config = STAGE.directory("apart").join("segmenter.yaml");
    std::fs::write(&config, for_segmenter.to_string()).unwrap();
    let mut command = Command::new(binary("teeline-segmenter"));
    command.args(["run", "--config"]).arg(&config);
    let mut segmenter = Process::start(
        "teeline-segmenter",
        command,
        &STAGE.directory("apart").join("segmenter.log"),
    );
    // Before that, a signal ends it as it would any program.
    wait_for("the segmenter to serve", seconds(30), || {
        admin_port::get(&ports.address(0), "/livez")
    });
    Told::default().send_with(
        &STAGE.java,
        &settings.bootstrap(),
        &[],
        "apart",
        &some_records(300),
    );
    proxy.process.terminate();
    proxy.process.wait_exit(STOP_LIMIT);
    assert_eq!(segmenter.stop(STOP_LIMIT), 0, "{}", segmenter.log_tail());
    assert_orderly_log(&segmenter.log(), &[]);
    assert_eq!(STAGE.assert_round_trip(&settings, &["apart"]).count(), 300);
}

#[test]
fn a_dry_run_prints_the_plan_and_touches_nothing() {
    let settings = archive_of("dry", 20);
    let run = Restorer::for_archive_of(&settings)
        .restore(&STAGE.target.bootstrap(), &["--topic", "dry", "--dry-run"]);
    assert_eq!(run.code, 0, "{run:?}");
    assert!(format!("{}{}", run.stdout, run.stderr).contains("dry"), "{run:?}");
    let request = json!({"op": "describe_topics", "bootstrap": STAGE.target.bootstrap(), "topics": ["dry"]});
    assert!(STAGE.java.request(&request).is_err(), "a dry run made the topic");
}

#[test]
fn the_source_and_topics_with_records_are_guarded() {
    let settings = archive_of("guarded", 20);
    let (restorer, target) = (Restorer::for_archive_of(&settings), STAGE.target.bootstrap());
    let source = restorer.restore(&STAGE.source.bootstrap(), &["--topic", "guarded"]);
    assert!(
        source.code != 0 && source.stderr.contains("--allow-source"),
        "{source:?}"
    );
    assert_eq!(STAGE.read_source(&["guarded"], Isolation::Committed).count(), 20);

    restorer.restore_all(&target, &["--topic", "guarded"]);
    let again = restorer.restore(&target, &["--topic", "guarded"]);
    assert!(
        again.code != 0 && again.stderr.contains("--allow-nonempty"),
        "{again:?}"
    );
    assert_eq!(STAGE.read_target(&["guarded"]).count(), 20);
    restorer.restore_all(&target, &["--topic", "guarded", "--allow-nonempty"]);
    assert_eq!(STAGE.read_target(&["guarded"]).count(), 40);
}

#[test]
fn a_restore_that_is_stopped_or_finds_no_target_never_says_it_is_done() {
    let settings = archive_of("stopped", 20);
    let restorer = Restorer::for_archive_of(&settings);
    let nobody = PortBlock::reserve();
    let run = restorer.restore(&nobody.address(0), &["--topic", "stopped"]);
    assert_eq!(run.code, 1, "{run:?}");
    let wrong = restorer.restore(&STAGE.target.bootstrap(), &["--topic", "no-such-topic"]);
    assert!(
        wrong.code != 0 && wrong.stderr.contains("no-such-topic"),
        "{wrong:?}"
    );

    // Stopped while it waits for a target that takes connections and says nothing.
    let silent = std::net::TcpListener::bind(nobody.address(1)).unwrap();
    let directory = STAGE.directory("stopped");
    let mut command = Command::new(binary("teeline-restorer"));
    command.args([
        "restore",
        "e2e",
        "--topic",
        "stopped",
        "--target",
        &nobody.address(1),
        "--config",
    ]);
    command.arg(directory.join("restorer.yaml"));
    let mut process = Process::start("teeline-restorer", command, &directory.join("restorer.log"));
    let (connection, _) = silent.accept().unwrap();
    // It ends with the request under way, which has thirty seconds.
    let code = process.stop(seconds(60));
    assert_ne!(code, 0, "{}", process.log());
    drop(connection);
}

#[test]
fn a_topic_left_out_is_not_captured_and_passes_all_the_same() {
    let mut settings = STAGE.proxy("filter");
    settings.document["clusters"][0]["capture"]["exclude"] = json!(["filter-secret*"]);
    STAGE.create_topic("filter-open", 1);
    STAGE.create_topic("filter-secret-1", 1);
    let mut proxy = settings.start();
    for topic in ["filter-open", "filter-secret-1"] {
        Told::default().send_with(&STAGE.java, &settings.bootstrap(), &[], topic, &some_records(10));
    }
    proxy.stop();
    assert_eq!(
        STAGE
            .read_source(&["filter-secret-1"], Isolation::Committed)
            .count(),
        10
    );
    let described = Restorer::for_archive_of(&settings).run(&["describe", "e2e", "--json"]);
    assert!(
        described.stdout.contains("filter-open") && !described.stdout.contains("filter-secret"),
        "{described:?}"
    );
    STAGE.assert_round_trip(&settings, &["filter-open"]);
}

#[test]
fn records_in_flight_at_a_drain_are_all_archived() {
    let settings = STAGE.proxy("drain");
    STAGE.create_topic("drain", 3);
    let mut proxy = settings.start();
    let load = json!({"partitions": 3, "rate": 3000, "value_bytes": 200});
    STAGE.java.start_load(
        "drain",
        &settings.bootstrap(),
        "drain",
        &ProducerConfig::of(&[("linger.ms", "1")]),
        load,
    );
    let acknowledged = || STAGE.java.acknowledged("drain");
    wait_until("the load to flow", seconds(60), || acknowledged() > 2_000);
    // SIGTERM under load: it ends in time, with everything archived, and the source has nothing that it has not.
    proxy.stop();
    STAGE.java.stop_load("drain", 0);
    STAGE.assert_round_trip(&settings, &["drain"]);
}

#[test]
fn a_configuration_with_many_mistakes_tells_all_of_them_at_once() {
    let directory = STAGE.directory("mistakes");
    let path = directory.join("wrong.yaml");
    std::fs::write(&path, "clusters:\n  - upstream: {bootstrap_servers: 'nowhere'}\n    capture: {ack: perhaps}\nstorrage: {}\n").unwrap();
    let output = Command::new(binary("teeline-proxy"))
        .args(["check", "--config"])
        .arg(&path)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    let text = String::from_utf8_lossy(&output.stderr);
    for part in [
        "clusters[0].upstream",
        "clusters[0].capture.ack",
        "perhaps",
        "storrage",
    ] {
        assert!(text.contains(part), "{part} is not told in:\n{text}");
    }
}

#[test]
fn a_buffer_in_which_nothing_was_captured_is_drained_although_its_cluster_is_lost() {
    let (work, nobody) = (WorkDir::create("empty"), PortBlock::reserve());
    let archive = Archive::Directory(work.join("archive"));
    let settings = ProxySettings::new(work.path(), &nobody.address(0), &archive);
    let mut proxy = settings.launch();
    wait_until("the buffer to be opened", seconds(30), || {
        proxy.process.assert_running();
        settings.buffer_directory().join("session").exists()
    });
    proxy.kill();
    let mut segmenter = settings.launch_segmenter(&["--source-lost", "--until-drained"]);
    let status = segmenter.wait_exit(seconds(30));
    assert!(status.success(), "{status}:\n{}", segmenter.log_tail());
}

#[test]
fn a_proxy_that_dies_before_it_knows_what_topics_are_called_leaves_a_buffer_that_can_be_drained() {
    let mut settings = STAGE.proxy("unnamed");
    let capture = &mut settings.document["clusters"][0]["capture"];
    capture["exclude"] = json!(["unnamed-hidden"]);
    // It must not ask by chance between the topics' creation and its end.
    capture["catalog_poll_interval"] = json!("1h");
    let mut proxy = settings.start();
    // After the proxy has asked for all topics, and past it: only by their ids it hears of them.
    let topics = ["unnamed-kept", "unnamed-hidden", "unnamed-gone"];
    topics.iter().for_each(|topic| STAGE.create_topic(topic, 1));
    let source = SourceLog::fetch(STAGE.go(), &STAGE.source.bootstrap(), &topics);
    let id_of = |topic: &str| {
        let id = &source.0[&(topic.to_owned(), 0)].topic_id;
        u128::from_str_radix(id, 16).unwrap().to_be_bytes()
    };
    let requests = topics.map(|topic| raw::produce_by_id(id_of(topic), &batch_of(topic)));
    let mut client = RawClient::connect(&settings.bootstrap()).unwrap();
    client.send(&requests.concat()).unwrap();
    for topic in topics {
        // An id, a partition and no error come after the correlation id, tagged fields and two lengths.
        let answer = client.receive().unwrap();
        assert_eq!(answer[6..22], id_of(topic), "{answer:?}");
        assert_eq!(answer[23..29], [0; 6], "{topic} is refused: {answer:?}");
    }
    proxy.kill();
    STAGE
        .java
        .ask(&json!({"op": "delete_topic", "bootstrap": STAGE.source.bootstrap(), "topic": "unnamed-gone"}));
    // The controller answers before the broker has heard of it.
    wait_until("the broker to have forgotten the topic", seconds(60), || {
        let mut client = RawClient::connect(&STAGE.source.bootstrap()).unwrap();
        client.send(&requests[2]).unwrap();
        client.receive().unwrap()[27..29] == UNKNOWN_TOPIC_ID
    });
    let mut segmenter = settings.launch_segmenter(&["--until-drained"]);
    let status = segmenter.wait_exit(seconds(120));
    assert!(status.success(), "{status}:\n{}", segmenter.log_tail());
    let lost = "an acknowledged batch is in no topic that is known".to_owned();
    assert_orderly_log(&segmenter.log(), &[lost]);
    let archived = Archived::read(&STAGE.directory("unnamed").join("archive"), settings.backup_id());
    let named: BTreeSet<&str> = archived
        .segments
        .iter()
        .map(|segment| segment.info.identity.topic.as_str())
        .collect();
    assert_eq!(named, BTreeSet::from(["unnamed-kept"]));
    let restored = STAGE.assert_round_trip(&settings, &["unnamed-kept"]);
    assert_eq!(restored.count(), 1);
}

const UNKNOWN_TOPIC_ID: [u8; 2] = 100_i16.to_be_bytes();

fn batch_of(topic: &str) -> Vec<u8> {
    // Of now: retention deletes what is old.
    let now_ms = UNIX_EPOCH.elapsed().unwrap().as_millis() as i64;
    let mut builder = BatchBuilder::new(Compression::None);
    builder.push(now_ms, None, Some(topic.as_bytes()), &[]).unwrap();
    builder.build().unwrap().unwrap().into_bytes().to_vec()
}
