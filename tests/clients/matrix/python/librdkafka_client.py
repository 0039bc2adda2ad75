"""Features of the client matrix with librdkafka (confluent-kafka); see the README beside the client programs."""

import time

from confluent_kafka import Consumer, IsolationLevel, KafkaException, Producer, ShareConsumer, TopicCollection, TopicPartition
from confluent_kafka import ConsumerGroupTopicPartitions
from confluent_kafka.admin import (AclBinding, AclBindingFilter, AclOperation, AclPermissionType, AdminClient,
                                   AlterConfigOpType, ConfigEntry, ConfigResource, NewPartitions, NewTopic, OffsetSpec,
                                   ResourcePatternType, ResourceType)

from contract import (CODECS, COMMON, COMMON_RECORDS, PARTITIONS, PATIENCE_S, RECORDS, digest, key, line, main, until,
                      value)


def settings(run, more=None):
    security = run.security
    result = {"bootstrap.servers": run.bootstrap, "security.protocol": security.get("protocol", "PLAINTEXT")}
    if "ca" in security:
        result["ssl.ca.location"] = security["ca"]
    if "mechanism" in security:
        result.update({"sasl.mechanism": security["mechanism"], "sasl.username": security["username"],
                       "sasl.password": security["password"]})
    result.update(more or {})
    return result


def send(run, producer, feature, start, end):
    failures = []
    for index in range(start, end):
        producer.produce(run.topic(feature), value(feature, index), key(index), partition=index % PARTITIONS,
                         headers=[("n", str(index).encode())],
                         on_delivery=lambda error, _: failures.append(error) if error else None)
    left = producer.flush(PATIENCE_S)
    if left or failures:
        raise RuntimeError(f"{left} not sent, failures {failures[:1]}")


def produce(feature):
    def run_it(run):
        more = {"linger.ms": 20}
        if feature in CODECS:
            more["compression.type"] = feature
        elif feature == "idempotent":
            more["enable.idempotence"] = True
        elif feature.startswith("acks-"):
            more["acks"] = feature.removeprefix("acks-")
        send(run, Producer(settings(run, more)), feature, 0, RECORDS)
        return {"sent": RECORDS}
    return run_it


def transactions(run):
    producer = Producer(settings(run, {"transactional.id": run.topic("transactions")}))
    producer.init_transactions(PATIENCE_S)
    for round in range(3):
        producer.begin_transaction()
        send(run, producer, "transactions", round * 10, round * 10 + 10)
        if round == 1:
            producer.abort_transaction(PATIENCE_S)
        else:
            producer.commit_transaction(PATIENCE_S)
    return {"committed": 20}


def consumer(run, group, more=None):
    base = {"group.id": group, "auto.offset.reset": "earliest", "enable.auto.commit": False}
    return Consumer(settings(run, base | (more or {})))


def read(reader, on_batch=None):
    lines = set()
    end = time.monotonic() + PATIENCE_S
    while len(lines) < COMMON_RECORDS and time.monotonic() < end:
        batch = [message for message in reader.consume(100, 0.3)]
        for message in batch:
            if message.error():
                raise KafkaException(message.error())
            lines.add(line(message.partition(), message.offset(), message.key(), message.value()))
        if batch and on_batch:
            on_batch(batch)
    return lines


def exactly_once(run):
    group = run.topic("exactly-once")
    producer = Producer(settings(run, {"transactional.id": group}))
    producer.init_transactions(PATIENCE_S)
    reader = consumer(run, group)
    reader.subscribe([COMMON])

    def copy(batch):
        producer.begin_transaction()
        for message in batch:
            producer.produce(group, message.value(), message.key())
        producer.send_offsets_to_transaction(reader.position(reader.assignment()), reader.consumer_group_metadata(), PATIENCE_S)
        producer.commit_transaction(PATIENCE_S)

    lines = read(reader, copy)
    reader.close()
    # The markers that make offsets count are written after the transaction's end was answered.
    return {"copied": len(lines), "committed": until(lambda: committed(run, group), COMMON_RECORDS)}


def consume(run):
    reader = consumer(run, run.topic("reader"))
    reader.assign([TopicPartition(COMMON, partition, 0) for partition in range(PARTITIONS)])
    lines = read(reader)
    reader.close()
    return {"records": len(lines), "sha256": digest(lines)}


def group(feature, protocol):
    def run_it(run):
        name = run.topic(feature)
        reader = consumer(run, name, {"group.protocol": protocol})
        reader.subscribe([COMMON])
        lines = read(reader)
        reader.commit(asynchronous=False)
        reader.close()
        return {"records": len(lines), "committed": committed(run, name)}
    return run_it


def committed(run, name):
    reader = consumer(run, name)
    found = reader.committed([TopicPartition(COMMON, partition) for partition in range(PARTITIONS)], PATIENCE_S)
    reader.close()
    return sum(max(each.offset, 0) for each in found)


def share(run):
    name = run.topic("share")
    resource = ConfigResource(ConfigResource.Type.GROUP, name, incremental_configs=[
        ConfigEntry("share.auto.offset.reset", "earliest", incremental_operation=AlterConfigOpType.SET)])
    admin = AdminClient(settings(run))
    admin.incremental_alter_configs([resource])[resource].result(PATIENCE_S)
    reader = ShareConsumer(settings(run, {"group.id": name}))
    reader.subscribe([COMMON])
    seen = set()
    end = time.monotonic() + PATIENCE_S
    while len(seen) < COMMON_RECORDS and time.monotonic() < end:
        for message in reader.poll(0.5):
            if message.error():
                raise KafkaException(message.error())
            seen.add((message.partition(), message.offset()))
        reader.commit_sync(PATIENCE_S)
    reader.close()
    return {"records": len(seen)}


def offsets(run):
    admin = AdminClient(settings(run))

    def listed(spec):
        asked = {TopicPartition(COMMON, partition): spec for partition in range(PARTITIONS)}
        answers = admin.list_offsets(asked, isolation_level=IsolationLevel.READ_UNCOMMITTED)
        found = {each.partition: future.result(PATIENCE_S).offset for each, future in answers.items()}
        return [found[partition] for partition in range(PARTITIONS)]

    return {"earliest": listed(OffsetSpec.earliest()), "latest": listed(OffsetSpec.latest()),
            "at_time": listed(OffsetSpec.for_timestamp(1))}


def topics(run):
    admin, topic = AdminClient(settings(run)), run.topic("made")
    admin.create_topics([NewTopic(topic, 2, 1)])[topic].result(PATIENCE_S)

    def partitions():
        try:
            return len(admin.describe_topics(TopicCollection([topic]))[topic].result(PATIENCE_S).partitions)
        except KafkaException as error:
            if error.args[0].name() != "UNKNOWN_TOPIC_OR_PART":
                raise
            return 0

    before = until(partitions, 2)
    admin.create_partitions([NewPartitions(topic, 4)])[topic].result(PATIENCE_S)
    after = until(partitions, 4)
    listed = topic in admin.list_topics(timeout=PATIENCE_S).topics
    admin.delete_topics([topic])[topic].result(PATIENCE_S)
    return {"before": before, "after": after, "listed": listed, "gone": until(partitions, 0) == 0}


def configs(run):
    admin = AdminClient(settings(run))
    topic = ConfigResource(ConfigResource.Type.TOPIC, run.topic("configs"), incremental_configs=[
        ConfigEntry("retention.ms", "123456789", incremental_operation=AlterConfigOpType.SET)])
    admin.incremental_alter_configs([topic])[topic].result(PATIENCE_S)

    def described(kind, name, key):
        resource = ConfigResource(kind, name)
        return admin.describe_configs([resource])[resource].result(PATIENCE_S)[key].value

    retention = until(lambda: described(ConfigResource.Type.TOPIC, run.topic("configs"), "retention.ms"), "123456789")
    return {"retention": retention, "broker": described(ConfigResource.Type.BROKER, "1", "num.io.threads")}


def acls(run):
    admin = AdminClient(settings(run))
    what = (ResourceType.TOPIC, run.prefix, ResourcePatternType.PREFIXED, "User:matrix", "*", AclOperation.READ,
            AclPermissionType.ALLOW)
    binding, wanted = AclBinding(*what), AclBindingFilter(*what)
    admin.create_acls([binding])[binding].result(PATIENCE_S)
    found = until(lambda: len(admin.describe_acls(wanted).result(PATIENCE_S)), 1)
    deleted = admin.delete_acls([wanted])[wanted].result(PATIENCE_S)
    return {"found": found, "deleted": len(deleted)}


def groups(run):
    admin, name = AdminClient(settings(run)), run.topic("groups")
    asked = ConsumerGroupTopicPartitions(name, [TopicPartition(COMMON, 0, 5)])
    admin.alter_consumer_group_offsets([asked])[name].result(PATIENCE_S)
    offset = committed(run, name)
    state = admin.describe_consumer_groups([name])[name].result(PATIENCE_S).state.name

    def listed():
        return name in [each.group_id for each in admin.list_consumer_groups().result(PATIENCE_S).valid]

    was = listed()
    admin.delete_consumer_groups([name])[name].result(PATIENCE_S)
    return {"offset": offset, "state": state.capitalize(), "listed": was, "gone": not listed()}


def delete_records(run):
    produce("delete-records")(run)
    admin, partition = AdminClient(settings(run)), TopicPartition(run.topic("delete-records"), 0, 4)
    deleted = admin.delete_records([partition])[partition].result(PATIENCE_S)
    return {"low": deleted.low_watermark}


def cluster(run):
    # A client that nobody holds ends before its answer comes.
    admin = AdminClient(settings(run))
    found = admin.describe_cluster().result(PATIENCE_S)
    nodes = sorted(each.id for each in found.nodes)
    return {"cluster": found.cluster_id, "nodes": nodes, "controller": found.controller.id in nodes}


if __name__ == "__main__":
    producers = ("acks-0", "acks-1", "acks-all", "idempotent", *CODECS)
    main({feature: produce(feature) for feature in producers} | {
        "transactions": transactions, "exactly-once": exactly_once, "consume": consume, "offsets": offsets,
        "group-classic": group("group-classic", "classic"), "group-next-gen": group("group-next-gen", "consumer"),
        "share-group": share, "topics": topics, "configs": configs, "acls": acls, "groups": groups,
        "delete-records": delete_records, "cluster": cluster,
    })
