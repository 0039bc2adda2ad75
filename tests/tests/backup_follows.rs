//! A continuous backup follows the logs: it takes what is written soon after, leaves idle clusters alone, and loses
//! nothing when brokers restart, leaders move, or no broker keeps a fetch session for it.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a test stops at the first surprise"
)]

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use serde_json::json;
use teeline_tests::admin_port;
use teeline_tests::backups::Backup;
use teeline_tests::comparison::compare;
use teeline_tests::driver::{Driver, Family};
use teeline_tests::kafka::Kafka;
use teeline_tests::leaders::{await_in_sync, described, move_leader};
use teeline_tests::notes::note;
use teeline_tests::ports::PortBlock;
use teeline_tests::process::Process;
use teeline_tests::record::Record;
use teeline_tests::source_log::SourceLog;
use teeline_tests::stage::Told;
use teeline_tests::wait::{seconds, wait_for, wait_until};
use teeline_tests::workdir::WorkDir;

static JAVA: LazyLock<Driver> = LazyLock::new(|| Driver::start(Family::Java));
static GO: LazyLock<Driver> = LazyLock::new(|| Driver::start(Family::Go));

/// So long what is written may wait for more.
const INTERVAL: Duration = seconds(1);
const REQUESTS: &str = "teeline_watch_requests_total";
const WHOLE: &str = "teeline_watch_whole_requests_total";
const RESETS: &str = "teeline_watch_session_resets_total";
const REFUSED: &str = "teeline_watch_sessions_refused_total";
const ROUNDS: &str = "teeline_backup_rounds_total";

/// A continuous backup of one cluster, at work.
struct Following {
    bootstrap: String,
    backup: Backup,
    process: Process,
    ports: PortBlock,
    _work: WorkDir,
}

impl Following {
    fn start(bootstrap: &str, topics: &[&str]) -> Self {
        let work = WorkDir::create("follows");
        let ports = PortBlock::reserve();
        let mut backup = Backup::new(&work.subdirectory("backup"), bootstrap, topics);
        backup
            .set("continuous", true)
            .set("interval", format!("{}ms", INTERVAL.as_millis()))
            .set("include_metadata", false);
        backup.document["admin"] = json!({"listen": ports.address(0)});
        let process = backup.launch(&[]);
        Following {
            bootstrap: bootstrap.to_owned(),
            backup,
            process,
            ports,
            _work: work,
        }
    }

    fn metric(&self, name: &str) -> f64 {
        admin_port::metric(&self.ports.address(0), name).unwrap_or(0.0)
    }

    fn send(&self, topic: &str, partitions: i32, count: i32, label: &str) {
        let records: Vec<Record> = (0..count)
            .map(|n| Record::new(n % partitions, &format!("k{n}"), format!("{label} {n}")))
            .collect();
        Told::default().send_with(&JAVA, &self.bootstrap, &[], topic, &records);
    }

    fn log(&self, topics: &[&str]) -> SourceLog {
        SourceLog::fetch(&GO, &self.bootstrap, topics)
    }

    /// Waits until the ledger has all that the log has now; how long that took.
    fn await_all(&mut self, topics: &[&str], limit: Duration) -> Duration {
        let begun = Instant::now();
        let log = self.log(topics);
        wait_for("all of the log in the archive", limit, || {
            self.process.assert_running();
            match self.backup.ledger().first_hole(&log) {
                None => Ok(()),
                Some(hole) => Err(hole),
            }
        });
        begun.elapsed()
    }

    /// Stops it; the archive is the log, and nothing is in it twice.
    fn end(mut self, topics: &[&str]) {
        let log = self.log(topics);
        assert_eq!(self.process.stop(seconds(30)), 0, "{}", self.process.log());
        let compared = compare(&log, &self.backup.archived());
        compared.assert_equal();
        assert_eq!(compared.offsets_twice, 0, "{}", compared.figures());
    }
}

#[test]
fn what_is_written_is_archived_soon_whatever_brokers_do_and_an_idle_cluster_is_left_alone() {
    let mut kafka = Kafka::start_three();
    let topics = ["followed"];
    let configs = json!([{"name": "followed", "partitions": 6, "replication": 3}]);
    JAVA.create_topics(&kafka.bootstrap(), &configs);
    await_in_sync(&JAVA, &kafka.bootstrap(), &topics);
    let mut following = Following::start(&kafka.bootstrap(), &topics);
    following.send("followed", 6, 60, "first");
    following.await_all(&topics, seconds(30));

    // Idle: a request per broker and second, each with next to nothing in it, and no rounds.
    wait_until("the watch to have begun", seconds(20), || {
        following.metric(REQUESTS) >= 6.0
    });
    let (requests, whole, rounds) = (
        following.metric(REQUESTS),
        following.metric(WHOLE),
        following.metric(ROUNDS),
    );
    let begun = Instant::now();
    wait_until("nine requests more", seconds(30), || {
        following.metric(REQUESTS) >= requests + 9.0
    });
    let took = begun.elapsed();
    assert!(
        took >= seconds(2),
        "nine requests to three brokers within {took:?}"
    );
    assert_eq!(
        (following.metric(WHOLE), following.metric(ROUNDS)),
        (whole, rounds),
        "an idle cluster needs neither whole requests nor rounds"
    );

    // One record.
    let begun = Instant::now();
    following.send("followed", 1, 1, "single");
    following.await_all(&topics, INTERVAL + seconds(10));
    note(&format!(
        "one record on an idle topic: archived after {:?}",
        begun.elapsed()
    ));

    // Another leader: the partition goes over to another session.
    let leader = described(&JAVA, &kafka.bootstrap(), "followed", 0).leader;
    let other = kafka
        .node_ids()
        .into_iter()
        .map(i64::from)
        .find(|id| *id != leader)
        .unwrap();
    move_leader(&JAVA, &kafka.bootstrap(), "followed", 0, other);
    following.send("followed", 6, 60, "after the leader moved");
    let took = following.await_all(&topics, INTERVAL + seconds(15));
    note(&format!("after the leader moved: archived after {took:?}"));

    // A broker goes and comes back.
    let victim = i32::try_from(other).unwrap();
    kafka.kill_node(victim);
    following.send("followed", 6, 60, "while a broker was away");
    let took = following.await_all(&topics, INTERVAL + seconds(30));
    note(&format!("with a broker away: archived after {took:?}"));
    kafka.restart_node(victim);
    await_in_sync(&JAVA, &kafka.bootstrap(), &topics);
    move_leader(&JAVA, &kafka.bootstrap(), "followed", 0, other);
    following.send("followed", 6, 60, "after it came back");
    following.await_all(&topics, INTERVAL + seconds(15));
    assert!(
        following.metric(RESETS) >= 1.0,
        "its session went with the broker"
    );
    following.end(&topics);
}

#[test]
fn a_broker_that_keeps_no_session_is_followed_too_and_new_topics_are_found() {
    let mut kafka = Kafka::prepare(1, "max.incremental.fetch.session.cache.slots=0\n");
    kafka.start_all();
    let bootstrap = kafka.bootstrap();
    let create = |name: &str| {
        JAVA.create_topics(&bootstrap, &json!([{"name": name, "partitions": 3}]));
    };
    create("plain-one");
    let mut following = Following::start(&bootstrap, &["plain-*"]);
    following.send("plain-one", 3, 30, "first");
    following.await_all(&["plain-one"], seconds(30));
    wait_until("the watch to have begun", seconds(20), || {
        following.metric(REFUSED) >= 2.0
    });
    following.send("plain-one", 3, 3, "second");
    let took = following.await_all(&["plain-one"], INTERVAL + seconds(10));
    note(&format!("without sessions: archived after {took:?}"));

    create("plain-two");
    following.send("plain-two", 3, 30, "a new topic");
    let topics = ["plain-one", "plain-two"];
    let took = following.await_all(&topics, INTERVAL + seconds(10));
    note(&format!("a new topic: archived after {took:?}"));
    following.send("plain-two", 3, 3, "and more");
    following.await_all(&topics, INTERVAL + seconds(10));
    assert_eq!(following.metric(RESETS), 0.0, "what was never kept is not lost");
    following.end(&topics);
}
