//! The state of a cluster beside its records, recorded from real Kafka and read back as it was at a moment: groups that
//! commit in every way there is, topics, ACLs, quotas, SCRAM users, and what we may not read.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a test stops at the first surprise"
)]

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rdkafka::config::ClientConfig as RdConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use rdkafka::{Offset, TopicPartitionList};
use serde_json::{Value, json};
use teeline_archive::WriterId;
use teeline_archive::ledger::{Commit, Entry, LedgerState};
use teeline_config::{Credential, KafkaEndpoint, Login, Sasl, Secret, Security, Storage};
use teeline_runtime::Store;
use teeline_segmenter::state::{Recorder, Settings};
use teeline_tests::kafka::Kafka;
use teeline_tests::programs::{Archive, ProxySettings, Restorer};
use teeline_tests::workdir::WorkDir;
use teeline_wire::client::{ClientConfig, Cluster, ConfigOperation, ConfigResource, NewTopic};

/// A user with SCRAM credentials from the beginning.
const ALICE: &str = "SCRAM-SHA-512=[name=alice,iterations=8192,password=alices-secret]";
const LIMIT: Duration = Duration::from_secs(60);
/// A second listener, whose only user may do next to nothing.
const GUARDED: &str = "\
    listeners=PLAINTEXT://{address 0},CONTROLLER://{address 10},GUEST://{address 3}\n\
    advertised.listeners=PLAINTEXT://{address 0},GUEST://{address 3}\n\
    listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,GUEST:SASL_PLAINTEXT\n\
    listener.name.guest.sasl.enabled.mechanisms=PLAIN\n\
    listener.name.guest.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required \
    user_guest=\"guest\";\n\
    authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer\n\
    super.users=User:ANONYMOUS\n";

#[test]
fn the_state_of_a_cluster_is_what_it_was_at_each_moment() {
    let mut kafka = Kafka::prepare_with(1, GUARDED, &["--add-scram", ALICE]);
    kafka.start_all();
    let bootstrap = kafka.bootstrap();
    let work = WorkDir::create("cluster-state");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let mut watch = Watch::new(&kafka, &work);
    let cluster = runtime.block_on(connect(KafkaEndpoint::plaintext(vec![
        bootstrap.parse().unwrap(),
    ])));
    runtime.block_on(create_topics(&cluster));

    // The first moment: each kind of group has committed, one transaction is under way.
    let classic = member(&bootstrap, "classic-group", "classic");
    commit(&classic, 5);
    let modern = member(&bootstrap, "modern-group", "consumer");
    commit(&modern, 6);
    let reader = consumer(&bootstrap, "transactional-group", "classic");
    let producer = transactional_producer(&bootstrap);
    let in_transaction = |offset: i64| {
        producer.begin_transaction().unwrap();
        for partition in [0, 1, 0, 1] {
            let record = BaseRecord::<(), str>::to("orders").payload("v");
            producer.send(record.partition(partition)).unwrap();
        }
        producer
            .send_offsets_to_transaction(&offsets(offset), &reader.group_metadata().unwrap(), LIMIT)
            .unwrap();
    };
    in_transaction(7);
    producer.commit_transaction(LIMIT).unwrap();
    in_transaction(70);
    let first = runtime.block_on(watch.look(&cluster));

    // In between: commits, an end of the transaction, a reset by Kafka's tool, a group deleted, settings changed.
    producer.commit_transaction(LIMIT).unwrap();
    in_transaction(700);
    producer.abort_transaction(LIMIT).unwrap();
    commit(&modern, 60);
    drop((classic, reader));
    std::thread::scope(|scope| {
        let bootstrap = &bootstrap;
        scope.spawn(|| reset_by_the_tool(bootstrap));
        scope.spawn(|| allow_by_the_tool(bootstrap));
        scope.spawn(|| set_quota_by_the_tool(bootstrap));
    });
    let change = (
        "retention.ms".to_owned(),
        ConfigOperation::Set("86400000".to_owned()),
    );
    runtime
        .block_on(cluster.alter_configs(&ConfigResource::Topic("orders".into()), &[change]))
        .unwrap();
    let second = runtime.block_on(watch.look(&cluster));

    let restorer = &watch.restorer;
    let (code, at_first) = shown(restorer, first);
    assert_eq!(code, 0, "{at_first}");
    for (group, offset) in [
        ("classic-group", 5),
        ("modern-group", 6),
        ("transactional-group", 7),
    ] {
        assert_offsets(&at_first, group, offset);
    }
    assert_eq!(group(&at_first, "classic-group")["type"], "classic");
    assert_eq!(group(&at_first, "modern-group")["type"], "consumer");
    assert_eq!(topic(&at_first, "orders")["configs"], json!({}));
    assert_eq!(kind(&at_first, "acls")["acls"], json!([]));
    assert_eq!(kind(&at_first, "quotas")["quotas"], json!([]));
    assert_user(&at_first);

    let (code, at_second) = shown(restorer, second);
    assert_eq!(code, 0, "{at_second}");
    for (group, offset) in [
        ("classic-group", 2),
        ("modern-group", 60),
        ("transactional-group", 70),
    ] {
        assert_offsets(&at_second, group, offset);
    }
    assert_changed_settings(&at_second);

    // Whoever may not read is told so, and is not shown an empty cluster as the truth.
    let guest = runtime.block_on(connect(as_guest(&kafka)));
    watch.forget(&work);
    let third = runtime.block_on(watch.look(&guest));
    assert_not_auditable(shown(&watch.restorer, third));
}

/// A recorder, its ledger, and a restorer that reads it.
struct Watch {
    recorder: Recorder,
    store: Store,
    cluster_id: String,
    commits: u64,
    restorer: Restorer,
}

impl Watch {
    fn new(kafka: &Kafka, work: &WorkDir) -> Self {
        Self::into(kafka.cluster_id(), work, "archive")
    }

    fn into(cluster_id: &str, work: &WorkDir, name: &str) -> Self {
        let directory = work.join(name);
        let store = Store::open(&Storage::filesystem(&directory)).unwrap();
        let settings = Settings {
            slow_interval: Duration::ZERO,
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
    fn forget(&mut self, work: &WorkDir) {
        *self = Self::into(&self.cluster_id.clone(), work, "another-archive");
    }

    /// Polls and commits; the answer is the moment.
    async fn look(&mut self, cluster: &Cluster) -> i64 {
        let report = self.recorder.poll(cluster, now_ms()).await.unwrap();
        assert!(report.failures.is_empty(), "{:?}", report.failures);
        let entries = self.recorder.flush(now_ms(), true).await.unwrap();
        self.commit(entries).await;
        report.at_ms
    }

    async fn commit(&mut self, entries: Vec<Entry>) {
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

async fn connect(endpoint: KafkaEndpoint) -> Cluster {
    Cluster::connect(ClientConfig::new(endpoint)).await.unwrap()
}

fn as_guest(kafka: &Kafka) -> KafkaEndpoint {
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

async fn create_topics(cluster: &Cluster) {
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

fn consumer(bootstrap: &str, group: &str, protocol: &str) -> BaseConsumer {
    RdConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("group.id", group)
        .set("group.protocol", protocol)
        .set("enable.auto.commit", "false")
        .create()
        .unwrap()
}

/// A consumer that has joined its group and been given both partitions.
fn member(bootstrap: &str, group: &str, protocol: &str) -> BaseConsumer {
    let consumer = consumer(bootstrap, group, protocol);
    consumer.subscribe(&["orders"]).unwrap();
    let started = Instant::now();
    while consumer.assignment().unwrap().count() < 2 {
        assert!(started.elapsed() < LIMIT, "{group} got no partitions in time");
        if let Some(Err(error)) = consumer.poll(Duration::from_millis(100)) {
            eprintln!("{group}: {error}");
        }
    }
    consumer
}

fn offsets(offset: i64) -> TopicPartitionList {
    let mut offsets = TopicPartitionList::new();
    for partition in 0..2 {
        let offset = Offset::Offset(offset + i64::from(partition));
        offsets.add_partition_offset("orders", partition, offset).unwrap();
    }
    offsets
}

fn commit(consumer: &BaseConsumer, offset: i64) {
    consumer.commit(&offsets(offset), CommitMode::Sync).unwrap();
}

fn transactional_producer(bootstrap: &str) -> ThreadedProducer<DefaultProducerContext> {
    let producer: ThreadedProducer<DefaultProducerContext> = RdConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("transactional.id", "state")
        .create()
        .unwrap();
    producer.init_transactions(LIMIT).unwrap();
    producer
}

fn tool(class: &str, arguments: &[&str]) {
    let output = Kafka::tool(class, arguments);
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(
        output.status.success() && !text.contains("Error"),
        "{class} {arguments:?}: {text}"
    );
}

fn reset_by_the_tool(bootstrap: &str) {
    let arguments = [
        "--bootstrap-server",
        bootstrap,
        "--group",
        "classic-group",
        "--reset-offsets",
        "--execute",
        "--topic",
        "orders:0,1",
        "--to-offset",
        "2",
    ];
    // The tool brings an offset beyond the log's end back to it, so the log must reach so far.
    tool(
        "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand",
        &arguments,
    );
}

fn allow_by_the_tool(bootstrap: &str) {
    let arguments = [
        "--bootstrap-server",
        bootstrap,
        "--add",
        "--allow-principal",
        "User:guest",
        "--operation",
        "Describe",
        "--topic",
        "orders",
    ];
    tool("org.apache.kafka.tools.AclCommand", &arguments);
}

fn set_quota_by_the_tool(bootstrap: &str) {
    let arguments = [
        "--bootstrap-server",
        bootstrap,
        "--alter",
        "--entity-type",
        "users",
        "--entity-name",
        "alice",
        "--add-config",
        "producer_byte_rate=1048576",
    ];
    tool("kafka.admin.ConfigCommand", &arguments);
}

fn shown(restorer: &Restorer, at_ms: i64) -> (i32, Value) {
    let run = restorer.run(&["state", "e2e", "--at", &at_ms.to_string(), "--json"]);
    let state = serde_json::from_str(&run.stdout).unwrap_or_else(|error| panic!("{error}: {run:?}"));
    (run.code, state)
}

fn kind<'a>(state: &'a Value, name: &str) -> &'a Value {
    let mut kinds = state["kinds"].as_array().unwrap().iter();
    kinds.find(|kind| kind["kind"] == name).unwrap()
}

fn group<'a>(state: &'a Value, name: &str) -> &'a Value {
    let mut groups = kind(state, "groups")["groups"].as_array().unwrap().iter();
    let found = groups.find(|group| group["group"] == name);
    found.unwrap_or_else(|| panic!("no group {name} in {state}"))
}

fn topic<'a>(state: &'a Value, name: &str) -> &'a Value {
    let mut topics = kind(state, "topic-configs")["topics"].as_array().unwrap().iter();
    topics.find(|topic| topic["topic"] == name).unwrap()
}

/// Partition 0 at `offset`; partition 1 one further, unless the tool set both alike.
fn assert_offsets(state: &Value, name: &str, offset: i64) {
    let found = &group(state, name)["offsets"];
    let second = offset + i64::from(offset != 2);
    let seen: Vec<_> = found
        .as_array()
        .unwrap()
        .iter()
        .map(|each| {
            (
                each["topic"].clone(),
                each["partition"].clone(),
                each["offset"].clone(),
            )
        })
        .collect();
    let expected = [(0, offset), (1, second)]
        .map(|(partition, offset)| (json!("orders"), json!(partition), json!(offset)));
    assert_eq!(seen, expected, "{name}");
    assert!(found[0]["topic_id"].is_string(), "{found}");
}

fn assert_changed_settings(state: &Value) {
    let orders = topic(state, "orders");
    assert_eq!(orders["configs"], json!({"retention.ms": "86400000"}));
    assert_eq!(
        (&orders["partitions"], &orders["replicas"]),
        (&json!(2), &json!([[1], [1]]))
    );
    let acl = &kind(state, "acls")["acls"][0];
    let expected = json!({
        "resource_type": "TOPIC", "resource": "orders", "pattern": "LITERAL", "principal": "User:guest",
        "host": "*", "operation": "DESCRIBE", "permission": "ALLOW",
    });
    assert_eq!(*acl, expected);
    let quota = &kind(state, "quotas")["quotas"][0];
    assert_eq!(
        *quota,
        json!({"entity": {"user": "alice"}, "values": {"producer_byte_rate": 1_048_576.0}})
    );
    assert_user(state);
}

fn assert_user(state: &Value) {
    let user = &kind(state, "scram-users")["scram_users"][0];
    assert_eq!(
        *user,
        json!({"user": "alice", "mechanisms": {"SCRAM-SHA-512": 8192}})
    );
    assert!(!state.to_string().contains("secret"));
}

fn assert_not_auditable((code, state): (i32, Value)) {
    assert_eq!(code, 3, "{state}");
    for (name, part, reason) in [
        (
            "groups",
            "groups that are not shown",
            "DESCRIBE on the cluster is not granted",
        ),
        (
            "topic-configs",
            "configurations of topics",
            "TOPIC_AUTHORIZATION_FAILED",
        ),
        ("acls", "", "CLUSTER_AUTHORIZATION_FAILED"),
        ("quotas", "", "CLUSTER_AUTHORIZATION_FAILED"),
        ("scram-users", "", "CLUSTER_AUTHORIZATION_FAILED"),
    ] {
        let said = &kind(&state, name)["not_auditable"][0];
        assert_eq!(said["part"], part, "{name}: {state}");
        assert!(
            said["reason"].as_str().unwrap().starts_with(reason),
            "{name}: {said}"
        );
    }
    let topics = kind(&state, "topic-configs")["topics"].as_array().unwrap();
    assert_eq!(topics.len(), 1, "the one that the guest may describe: {topics:?}");
    assert_eq!(topics[0]["configs"], Value::Null, "not known is not empty");
}

fn now_ms() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}
