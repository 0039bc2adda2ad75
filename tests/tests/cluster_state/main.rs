//! The state of a cluster beside its records, recorded from real Kafka and read back as it was at a moment: groups that
//! commit in every way there is, topics, ACLs, quotas, SCRAM users, and what we may not read.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a test stops at the first surprise"
)]

mod clients;
mod offsets;
mod watch;

use std::time::Duration;

use rdkafka::consumer::Consumer;
use rdkafka::producer::{BaseRecord, Producer};
use serde_json::{Value, json};
use teeline_config::KafkaEndpoint;
use teeline_tests::kafka::Kafka;
use teeline_tests::workdir::WorkDir;
use teeline_wire::client::{ConfigOperation, ConfigResource};

use clients::{
    allow_by_the_tool, commit, consumer, member, offsets, reset_by_the_tool, set_quota_by_the_tool,
    transactional_producer,
};
use watch::{Watch, as_guest, connect, create_topics, group, kind, shown, topic};

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
    assert_eq!(kind(&at_first, "groups")["offsets_from"], json!({"way": "log"}));
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
    // The log of the coordinators is not for everybody either.
    let reason = "TOPIC_AUTHORIZATION_FAILED";
    let source = &kind(&state, "groups")["offsets_from"];
    assert_eq!(source["way"], "poll", "{source}");
    assert!(source["reason"].as_str().unwrap().starts_with(reason), "{source}");
    let topics = kind(&state, "topic-configs")["topics"].as_array().unwrap();
    assert_eq!(topics.len(), 1, "the one that the guest may describe: {topics:?}");
    assert_eq!(topics[0]["configs"], Value::Null, "not known is not empty");
}
