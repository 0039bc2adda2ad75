"""Features of the client matrix with kafka-python; see the README beside the client programs."""

import time

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, OffsetAndMetadata, TopicPartition
from kafka.admin import (ACL, ACLFilter, ACLOperation, ACLPermissionType, ACLResourcePatternType, ConfigResource,
                         ConfigResourceType, ResourcePattern, ResourcePatternFilter, ResourceType)

from contract import (CODECS, COMMON, COMMON_RECORDS, PARTITIONS, PATIENCE_S, RECORDS, digest, key, line, main, until,
                      value)


def settings(run, **more):
    security = run.security
    result = {"bootstrap_servers": run.bootstrap.split(","), "security_protocol": security.get("protocol", "PLAINTEXT")}
    if "ca" in security:
        result["ssl_cafile"] = security["ca"]
    if "mechanism" in security:
        result.update(sasl_mechanism=security["mechanism"], sasl_plain_username=security["username"],
                      sasl_plain_password=security["password"])
    return result | more


def send(run, producer, feature, start, end):
    futures = [producer.send(run.topic(feature), value(feature, index), key(index), partition=index % PARTITIONS,
                             headers=[("n", str(index).encode())]) for index in range(start, end)]
    producer.flush(PATIENCE_S)
    for future in futures:
        future.get(PATIENCE_S)


def produce(feature):
    def run_it(run):
        more = {"linger_ms": 20, "enable_idempotence": feature == "idempotent"}
        if feature in CODECS:
            more["compression_type"] = feature
        elif feature.startswith("acks-"):
            acks = feature.removeprefix("acks-")
            more["acks"] = acks if acks == "all" else int(acks)
        producer = KafkaProducer(**settings(run, **more))
        send(run, producer, feature, 0, RECORDS)
        producer.close(PATIENCE_S)
        return {"sent": RECORDS}
    return run_it


def transactions(run):
    producer = KafkaProducer(**settings(run, transactional_id=run.topic("transactions")))
    producer.init_transactions()
    for round in range(3):
        producer.begin_transaction()
        send(run, producer, "transactions", round * 10, round * 10 + 10)
        if round == 1:
            producer.abort_transaction()
        else:
            producer.commit_transaction()
    producer.close(PATIENCE_S)
    return {"committed": 20}


def consumer(run, **more):
    return KafkaConsumer(**settings(run, auto_offset_reset="earliest", enable_auto_commit=False, **more))


def read(reader, on_batch=None):
    lines = set()
    end = time.monotonic() + PATIENCE_S
    while len(lines) < COMMON_RECORDS and time.monotonic() < end:
        # Not a short poll: where one ends between JoinGroup and the answer to SyncGroup, this client never takes its
        # assignment over, and waits for ever as a member without partitions. A busy machine is slow enough for that.
        batch = [record for records in reader.poll(PATIENCE_S * 1000 / 2).values() for record in records]
        lines.update(line(record.partition, record.offset, record.key, record.value) for record in batch)
        if batch and on_batch:
            on_batch(batch)
    return lines


def exactly_once(run):
    group = run.topic("exactly-once")
    producer = KafkaProducer(**settings(run, transactional_id=group))
    producer.init_transactions()
    reader = consumer(run, group_id=group)
    reader.subscribe([COMMON])

    def copy(batch):
        producer.begin_transaction()
        offsets = {}
        for record in batch:
            producer.send(group, record.value, record.key)
            offsets[TopicPartition(record.topic, record.partition)] = OffsetAndMetadata(record.offset + 1, "", -1)
        producer.send_offsets_to_transaction(offsets, reader.group_metadata())
        producer.commit_transaction()

    lines = read(reader, copy)
    reader.close()
    producer.close(PATIENCE_S)
    # The markers that make offsets count are written after the transaction's end was answered.
    return {"copied": len(lines), "committed": until(lambda: committed(run, group), COMMON_RECORDS)}


def partitions_of_common():
    return [TopicPartition(COMMON, partition) for partition in range(PARTITIONS)]


def consume(run):
    reader = consumer(run)
    reader.assign(partitions_of_common())
    lines = read(reader)
    reader.close()
    return {"records": len(lines), "sha256": digest(lines)}


def group(run):
    name = run.topic("group-classic")
    reader = consumer(run, group_id=name)
    reader.subscribe([COMMON])
    lines = read(reader)
    reader.commit()
    reader.close()
    return {"records": len(lines), "committed": committed(run, name)}


def committed(run, name):
    reader = consumer(run, group_id=name)
    found = sum(reader.committed(partition) or 0 for partition in partitions_of_common())
    reader.close()
    return found


def offsets(run):
    reader, partitions = consumer(run), partitions_of_common()
    earliest, latest = reader.beginning_offsets(partitions), reader.end_offsets(partitions)
    at_time = reader.offsets_for_times({partition: 1 for partition in partitions})
    reader.close()
    return {"earliest": [earliest[each] for each in partitions], "latest": [latest[each] for each in partitions],
            "at_time": [at_time[each].offset for each in partitions]}


def topics(run):
    admin, topic = KafkaAdminClient(**settings(run)), run.topic("made")
    admin.create_topics({topic: {"num_partitions": 2, "replication_factor": 1}})
    before = until(lambda: len(admin.describe_topics([topic])[0]["partitions"]), 2)
    admin.create_partitions({topic: 4})
    after = until(lambda: len(admin.describe_topics([topic])[0]["partitions"]), 4)
    listed = topic in admin.list_topics()
    admin.delete_topics([topic])
    return {"before": before, "after": after, "listed": listed,
            "gone": until(lambda: topic in admin.list_topics(), False) is False}


def configs(run):
    admin, topic = KafkaAdminClient(**settings(run)), run.topic("configs")
    admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, {"retention.ms": "123456789"})])

    def described(kind, name, key):
        found = admin.describe_configs([ConfigResource(kind, name)], config_filter="all")
        return found[kind.name.lower()][name][key]["value"]

    retention = until(lambda: str(described(ConfigResourceType.TOPIC, topic, "retention.ms")), "123456789")
    return {"retention": retention, "broker": str(described(ConfigResourceType.BROKER, "1", "num.io.threads"))}


def acls(run):
    admin = KafkaAdminClient(**settings(run))
    what = ("User:matrix", "*", ACLOperation.READ, ACLPermissionType.ALLOW)
    created = admin.create_acls([ACL(*what, ResourcePattern(ResourceType.TOPIC, run.prefix, ACLResourcePatternType.PREFIXED))])
    if created["failed"]:
        raise RuntimeError(str(created["failed"]))
    wanted = ACLFilter(*what, ResourcePatternFilter(ResourceType.TOPIC, run.prefix, ACLResourcePatternType.PREFIXED))
    found = until(lambda: len(admin.describe_acls(wanted)[0]), 1)
    return {"found": found, "deleted": len(admin.delete_acls([wanted])[0][1])}


def groups(run):
    admin, name = KafkaAdminClient(**settings(run)), run.topic("groups")
    admin.alter_group_offsets(name, {TopicPartition(COMMON, 0): OffsetAndMetadata(5, "", -1)})
    offset = committed(run, name)
    state = admin.describe_groups([name])[name]["group_state"]

    def listed():
        return name in [each["group_id"] for each in admin.list_groups()]

    was = listed()
    admin.delete_groups([name])
    return {"offset": offset, "state": str(state), "listed": was, "gone": not listed()}


def delete_records(run):
    produce("delete-records")(run)
    admin, partition = KafkaAdminClient(**settings(run)), TopicPartition(run.topic("delete-records"), 0)
    admin.delete_records({partition: 4})
    reader = consumer(run)
    low = reader.beginning_offsets([partition])[partition]
    reader.close()
    return {"low": low}


def cluster(run):
    found = KafkaAdminClient(**settings(run)).describe_cluster()
    nodes = sorted(each["broker_id"] for each in found["brokers"])
    return {"cluster": found["cluster_id"], "nodes": nodes, "controller": found["controller_id"] in nodes}


if __name__ == "__main__":
    producers = ("acks-0", "acks-1", "acks-all", "idempotent", *CODECS)
    main({feature: produce(feature) for feature in producers} | {
        "transactions": transactions, "exactly-once": exactly_once, "consume": consume, "offsets": offsets,
        "group-classic": group, "topics": topics, "configs": configs, "acls": acls, "groups": groups,
        "delete-records": delete_records, "cluster": cluster,
    })
