//! The auditor against a real cluster: what no proxy saw is fetched, what the log does not have is explained with its
//! evidence, and what the log has lost is kept as superseded.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a test stops at the first surprise"
)]

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use serde_json::json;
use teeline_archive::OffsetRange;
use teeline_archive::ledger::{AbsenceReason, PartitionState};
use teeline_archive::segment::Origin;
use teeline_tests::archived::{Archived, await_whole};
use teeline_tests::comparison::compare;
use teeline_tests::driver::{Driver, Family};
use teeline_tests::fleet::Fleet;
use teeline_tests::kafka::Kafka;
use teeline_tests::leaders::{await_in_sync, described};
use teeline_tests::programs::Archive;
use teeline_tests::record::Record;
use teeline_tests::source_log::SourceLog;
use teeline_tests::stage::Told;
use teeline_tests::wait::{seconds, wait_for, wait_until};
use teeline_tests::workdir::WorkDir;

/// One node, and the clients: shared by the tests of this file.
struct Scene {
    kafka: Kafka,
    java: Driver,
    go: Driver,
    work: WorkDir,
}

static SCENE: LazyLock<Scene> = LazyLock::new(|| Scene {
    kafka: Kafka::start_one(),
    java: Driver::start(Family::Java),
    go: Driver::start(Family::Go),
    work: WorkDir::create("audit"),
});

impl Scene {
    /// A proxy that captures topics with this prefix, and audits within seconds.
    fn fleet(&self, prefix: &str) -> (Fleet, PathBuf) {
        let directory = self.work.subdirectory(prefix);
        let archive = directory.join("archive");
        let place = Archive::Directory(archive.clone());
        let mut fleet = Fleet::new(&directory, &self.kafka.bootstrap(), 1, &place);
        fleet.configure(|document| {
            document["clusters"][0]["capture"]["include"] = json!([format!("{prefix}*")]);
        });
        fleet.audit_quickly(seconds(4));
        (fleet, archive)
    }

    fn create(&self, topic: &str, configs: serde_json::Value) {
        let topics = json!([{"name": topic, "partitions": 1, "configs": configs}]);
        self.java.create_topics(&self.kafka.bootstrap(), &topics);
    }

    fn send(&self, bootstrap: &str, topic: &str, label: &str, count: usize) {
        send(&self.java, bootstrap, &[], topic, label, count);
    }

    fn log(&self, topics: &[&str]) -> SourceLog {
        SourceLog::fetch(&self.go, &self.kafka.bootstrap(), topics)
    }
}

fn send(driver: &Driver, bootstrap: &str, config: &[(&str, &str)], topic: &str, label: &str, count: usize) {
    let records: Vec<Record> = (0..count)
        .map(|number| {
            Record::new(
                0,
                &format!("{label} {number}"),
                format!("value of {label} {number}"),
            )
        })
        .collect();
    Told::default().send_with(driver, bootstrap, config, topic, &records);
}

/// What the ledger says of the latest life of a topic.
fn with_partition<T>(archive: &Path, topic: &str, look: impl FnOnce(&PartitionState) -> T) -> Option<T> {
    let archived = Archived::ledger_only(archive, "e2e");
    let (_, life) = archived.ledger.latest_incarnation(topic)?;
    life.partition(0).map(look)
}

/// Every offset of the log is in the archive, and every batch is the log's.
fn assert_whole(scene: &Scene, archive: &Path, topics: &[&str]) {
    let log = scene.log(topics);
    await_whole(&log, archive, "e2e", seconds(60));
    compare(&log, &Archived::read(archive, "e2e")).assert_equal();
}

#[test]
fn what_no_proxy_saw_ends_up_archived_in_order_and_once() {
    let scene = &*SCENE;
    let direct = scene.kafka.bootstrap();
    let (mut fleet, archive) = scene.fleet("seen");
    // From before the proxy.
    scene.create("seen", json!({}));
    scene.create("seen-never", json!({}));
    scene.send(&direct, "seen", "before", 40);
    scene.send(&direct, "seen-never", "direct", 25);
    fleet.start();
    let through = fleet.0[0].bootstrap();
    scene.send(&through, "seen", "captured", 30);
    // Past it.
    scene.send(&direct, "seen", "bypassing", 20);
    scene.send(&through, "seen", "captured again", 30);
    assert_whole(scene, &archive, &["seen", "seen-never"]);
    assert_eq!(fleet.auditors(), [0]);
    // While it was down.
    fleet.stop();
    scene.send(&direct, "seen", "while it was down", 15);
    fleet.start();
    scene.send(&through, "seen", "after", 10);
    assert_whole(scene, &archive, &["seen", "seen-never"]);
    wait_until("the auditor to want nothing", seconds(30), || {
        fleet.0[0].metric("teeline_audit_lag_offsets") == 0.0
            && fleet.0[0].metric("teeline_audit_missing_offsets") == 0.0
    });
    fleet.stop();

    let tee = with_partition(&archive, "seen", |state| {
        let held = state
            .segments()
            .iter()
            .filter(|segment| segment.identity.origin == Origin::Tee);
        held.map(|segment| segment.record_count).sum::<u64>()
    });
    assert_eq!(tee, Some(70), "what was captured is not fetched as well");
    let never = with_partition(&archive, "seen-never", |state| state.held().ranges().to_vec());
    assert_eq!(never, Some(vec![OffsetRange { first: 0, last: 24 }]));
}

#[test]
fn a_topic_that_is_deleted_and_made_again_has_two_lives_in_the_archive() {
    let scene = &*SCENE;
    let direct = scene.kafka.bootstrap();
    let (mut fleet, archive) = scene.fleet("reborn");
    scene.create("reborn", json!({}));
    fleet.start();
    let through = fleet.0[0].bootstrap();
    scene.send(&through, "reborn", "first life", 30);
    scene.send(&direct, "reborn", "first life, past the proxy", 10);
    assert_whole(scene, &archive, &["reborn"]);
    scene
        .java
        .ask(&json!({"op": "delete_topic", "bootstrap": direct, "topic": "reborn"}));
    wait_for("the topic to be created again", seconds(30), || {
        let topics = json!([{"name": "reborn", "partitions": 1}]);
        scene
            .java
            .request(&json!({"op": "create_topics", "bootstrap": direct, "topics": topics}))
            .map(drop)
    });
    scene.send(&direct, "reborn", "second life, past the proxy", 7);
    scene.send(&through, "reborn", "second life", 5);
    assert_whole(scene, &archive, &["reborn"]);
    fleet.stop();
    let archived = Archived::ledger_only(&archive, "e2e");
    let mut lives: Vec<u64> = archived
        .ledger
        .incarnations("reborn")
        .into_iter()
        .map(|(_, life)| life.partition(0).unwrap().held().span())
        .collect();
    lives.sort_unstable();
    assert_eq!(lives, [12, 40]);
}

#[test]
fn what_the_log_does_not_have_any_more_is_explained_with_its_evidence() {
    let scene = &*SCENE;
    let direct = scene.kafka.bootstrap();
    let (mut fleet, archive) = scene.fleet("gone");
    // Deleted before anybody looked.
    scene.create("gone-deleted", json!({}));
    // Batches come whole, so that the log begins where one does.
    scene.send(&direct, "gone-deleted", "old", 12);
    scene.send(&direct, "gone-deleted", "kept", 18);
    scene.java.ask(
        &json!({"op": "delete_records", "bootstrap": direct, "topic": "gone-deleted",
        "partition": 0, "offset": 12}),
    );
    // Compacted: of a thousand records one is left, and the last segment of the log, which is never cleaned.
    scene.create(
        "gone-compacted",
        json!({"cleanup.policy": "compact", "min.cleanable.dirty.ratio": "0.01", "segment.ms": "1000",
            "max.compaction.lag.ms": "1000"}),
    );
    for round in 0..4 {
        let records: Vec<Record> = (0..100)
            .map(|number| Record::new(0, "the same key", format!("value {round} {number}")))
            .collect();
        Told::default().send_with(&scene.java, &direct, &[], "gone-compacted", &records);
    }
    wait_for("the cleaner to have been there", seconds(60), || {
        // A new segment begins when something is written; only closed ones are cleaned.
        scene.send(&direct, "gone-compacted", "another key", 1);
        let log = scene.log(&["gone-compacted"]);
        let (_, partition) = log.0.iter().next().unwrap();
        let left: u32 = partition.batches.iter().map(|batch| batch.records).sum();
        if left < 300 {
            Ok(())
        } else {
            Err(format!("{left} records are left"))
        }
    });
    fleet.start();
    let log = scene.log(&["gone-deleted", "gone-compacted"]);
    await_whole(&log, &archive, "e2e", seconds(60));
    let deleted = with_partition(&archive, "gone-deleted", |state| state.absences().to_vec()).unwrap();
    let deleted: Vec<_> = deleted
        .iter()
        .map(|absence| {
            let evidence = &absence.evidence;
            (
                absence.range(),
                absence.reason,
                evidence.log_start_offset,
                evidence.leader_epoch,
                evidence.cleanup_policy.as_str(),
            )
        })
        .collect();
    let range = OffsetRange { first: 0, last: 11 };
    assert_eq!(deleted, [(range, AbsenceReason::Deleted, 12, 0, "delete")]);
    // What is held stays held when the log deletes it, and needs no explanation.
    scene.java.ask(
        &json!({"op": "delete_records", "bootstrap": direct, "topic": "gone-deleted",
        "partition": 0, "offset": 20}),
    );
    wait_until("the audit to see the new start of the log", seconds(30), || {
        with_partition(&archive, "gone-deleted", |state| {
            state.audit().map(|audit| audit.log_start_offset)
        }) == Some(Some(20))
    });
    fleet.stop();
    let (absences, held) = with_partition(&archive, "gone-deleted", |state| {
        (state.absences().len(), state.held().ranges().to_vec())
    })
    .unwrap();
    assert_eq!((absences, held), (1, vec![OffsetRange { first: 12, last: 29 }]));
    let compacted = with_partition(&archive, "gone-compacted", |state| {
        let records = state
            .segments()
            .iter()
            .map(|segment| segment.record_count)
            .sum::<u64>();
        (
            records,
            state.explained().ranges().len(),
            state.superseded().len(),
        )
    })
    .unwrap();
    assert!(
        compacted.0 < 400 && compacted.1 == 1 && compacted.2 == 0,
        "{compacted:?}"
    );
}

#[test]
fn what_the_cluster_acknowledged_and_then_lost_is_kept_as_superseded() {
    let mut kafka = Kafka::start_three();
    let java = Driver::start(Family::Java);
    let go = Driver::start(Family::Go);
    let work = WorkDir::create("audit-unclean");
    let bootstrap = kafka.bootstrap();
    let configs = json!({"unclean.leader.election.enable": "true", "min.insync.replicas": "1"});
    // Two replicas, so that the third node keeps the controllers' quorum whichever of the two is dead.
    let topics = json!([{"name": "torn", "partitions": 1, "replication": 2, "configs": configs}]);
    java.create_topics(&bootstrap, &topics);
    let directory = work.subdirectory("proxy");
    let archive = directory.join("archive");
    let mut fleet = Fleet::new(&directory, &bootstrap, 1, &Archive::Directory(archive.clone()));
    fleet.audit_quickly(seconds(4));
    fleet.announce("the broker gave out the same offsets twice");
    fleet.start();
    let through = fleet.0[0].bootstrap();
    send(&java, &through, &[], "torn", "kept", 20);
    await_in_sync(&java, &bootstrap, &["torn"]);
    // The leader goes on alone, is believed, and dies; the follower that has not seen the rest takes its place.
    let before = described(&java, &bootstrap, "torn", 0);
    let node = |id: &i64| i32::try_from(*id).unwrap();
    let leader = node(&before.leader);
    let follower = before.replicas.iter().map(node).find(|id| *id != leader).unwrap();
    kafka.kill_node(follower);
    wait_until("the follower to be missed", seconds(60), || {
        described(&java, &bootstrap, "torn", 0).in_sync == [i64::from(leader)]
    });
    send(&java, &through, &[], "torn", "lost", 30);
    wait_until("the archive to have what will be lost", seconds(60), || {
        with_partition(&archive, "torn", |state| state.held().last()) == Some(Some(49))
    });
    kafka.kill_node(leader);
    kafka.restart_node(follower);
    wait_until("an unclean election", seconds(90), || {
        described(&java, &bootstrap, "torn", 0).leader == i64::from(follower)
    });
    send(&java, &through, &[], "torn", "instead", 12);
    kafka.restart_node(leader);
    await_in_sync(&java, &bootstrap, &["torn"]);
    send(&java, &bootstrap, &[], "torn", "past the proxy", 8);
    // As soon as a leader that was elected has said so, what is captured carries its epoch; that it is the log's, the
    // comparison sees.
    let mut later = 0;
    wait_until("the tee to know the new leader's epoch", seconds(60), || {
        send(&java, &through, &[], "torn", &format!("later {later}"), 1);
        later += 1;
        with_partition(&archive, "torn", |state| {
            let mut segments = state.segments().iter();
            segments.any(|segment| segment.identity.origin == Origin::Tee && segment.leader_epoch_last > 0)
        }) == Some(true)
    });

    let log = SourceLog::fetch(&go, &bootstrap, &["torn"]);
    assert_eq!(log.0[&("torn".to_owned(), 0)].high_watermark, 40 + later);
    await_whole(&log, &archive, "e2e", seconds(60));
    wait_until("what was lost to be listed", seconds(60), || {
        with_partition(&archive, "torn", |state| state.superseded().len()) > Some(0)
    });
    fleet.stop();
    let compared = compare(&log, &Archived::read(&archive, "e2e"));
    compared.assert_equal();
    let lost = &compared.superseded[&("torn".to_owned(), 0)];
    let records: u32 = lost.iter().map(|batch| batch.records).sum();
    assert_eq!((records, lost[0].base_offset), (30, 20), "{lost:?}");
}
