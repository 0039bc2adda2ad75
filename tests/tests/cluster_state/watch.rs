//! A recorder with an archive of its own, and what the restorer says of it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;
use teeline_archive::WriterId;
use teeline_archive::ledger::{Commit, Entry, LedgerState};
use teeline_config::{Credential, KafkaEndpoint, Login, OffsetsFrom, Sasl, Secret, Security, Storage};
use teeline_runtime::Store;
use teeline_segmenter::state::{Recorder, Settings};
use teeline_tests::kafka::Kafka;
use teeline_tests::programs::{Archive, ProxySettings, Restorer};
use teeline_tests::workdir::WorkDir;
use teeline_wire::client::{ClientConfig, Cluster, NewTopic};

/// A recorder, its ledger, and a restorer that reads it.
pub(crate) struct Watch {
    pub(crate) recorder: Recorder,
    store: Store,
    cluster_id: String,
    commits: u64,
    pub(crate) restorer: Restorer,
}

impl Watch {
    pub(crate) fn new(kafka: &Kafka, work: &WorkDir) -> Self {
        Self::into(kafka.cluster_id(), work, "archive", OffsetsFrom::Log)
    }

    pub(crate) fn into(cluster_id: &str, work: &WorkDir, name: &str, offsets: OffsetsFrom) -> Self {
        let directory = work.join(name);
        let store = Store::open(&Storage::filesystem(&directory)).unwrap();
        let settings = Settings {
            slow_interval: Duration::ZERO,
            // What is told between two looks comes of the log alone.
            check_interval: Duration::from_secs(3_600),
            offsets,
            ..Settings::default()
        };
        let archive = Archive::Directory(directory);
        let settings_file = ProxySettings::new(&work.subdirectory(&format!("{name}-settings")), "", &archive);
        Self {
            recorder: Recorder::new(store.clone(), "e2e", cluster_id, &LedgerState::new(), settings),
            store,
            cluster_id: cluster_id.to_owned(),
            commits: 0,
            restorer: Restorer::for_archive_of(&settings_file),
        }
    }

    /// Begins an archive of its own.
    pub(crate) fn forget(&mut self, work: &WorkDir) {
        *self = Self::into(
            &self.cluster_id.clone(),
            work,
            "another-archive",
            OffsetsFrom::Log,
        );
    }

    /// Polls and commits; the answer is the moment.
    pub(crate) async fn look(&mut self, cluster: &Cluster) -> i64 {
        let report = self.recorder.poll(cluster, now_ms()).await.unwrap();
        assert!(report.failures.is_empty(), "{:?}", report.failures);
        let entries = self.recorder.flush(now_ms(), true).await.unwrap();
        self.commit(entries).await;
        report.at_ms
    }

    pub(crate) async fn commit(&mut self, entries: Vec<Entry>) {
        self.commits += 1;
        let commit = Commit {
            backup_id: "e2e".to_owned(),
            cluster_id: self.cluster_id.clone(),
            writer: WriterId::AUDITOR,
            seq: self.commits,
            nonce: u128::from(self.commits),
            created_at_ms: now_ms(),
            program: "test".to_owned(),
            entries,
        };
        let (key, bytes) = (commit.key().unwrap(), commit.encode().unwrap());
        self.store.put_if_absent(&key, bytes).await.unwrap();
    }
}

pub(crate) async fn connect(endpoint: KafkaEndpoint) -> Cluster {
    Cluster::connect(ClientConfig::new(endpoint)).await.unwrap()
}

pub(crate) fn as_guest(kafka: &Kafka) -> KafkaEndpoint {
    let guest = Login {
        username: "guest".to_owned(),
        password: Credential::Given(Secret::new("guest")),
    };
    KafkaEndpoint {
        security: Security {
            tls: None,
            sasl: Some(Sasl::Plain(guest)),
        },
        ..KafkaEndpoint::plaintext(vec![kafka.address(3).parse().unwrap()])
    }
}

pub(crate) async fn create_topics(cluster: &Cluster) {
    let topic = |name: &str, partitions| NewTopic {
        name: name.to_owned(),
        partitions,
        replication_factor: 1,
        configs: Vec::new(),
    };
    let topics = [topic("orders", 2), topic("payments", 1)];
    let created = cluster.create_topics(&topics, false);
    for topic in created.await.unwrap() {
        topic.unwrap();
    }
}

pub(crate) fn shown(restorer: &Restorer, at_ms: i64) -> (i32, Value) {
    let run = restorer.run(&["state", "e2e", "--at", &at_ms.to_string(), "--json"]);
    let state = serde_json::from_str(&run.stdout).unwrap_or_else(|error| panic!("{error}: {run:?}"));
    (run.code, state)
}

pub(crate) fn kind<'a>(state: &'a Value, name: &str) -> &'a Value {
    let mut kinds = state["kinds"].as_array().unwrap().iter();
    kinds.find(|kind| kind["kind"] == name).unwrap()
}

pub(crate) fn group<'a>(state: &'a Value, name: &str) -> &'a Value {
    let mut groups = kind(state, "groups")["groups"].as_array().unwrap().iter();
    let found = groups.find(|group| group["group"] == name);
    found.unwrap_or_else(|| panic!("no group {name} in {state}"))
}

pub(crate) fn topic<'a>(state: &'a Value, name: &str) -> &'a Value {
    let mut topics = kind(state, "topic-configs")["topics"].as_array().unwrap().iter();
    topics.find(|topic| topic["topic"] == name).unwrap()
}

pub(crate) fn now_ms() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}
