"""Features of the client matrix with aiokafka; see the README beside the client programs."""

import asyncio
import ssl
import time

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic, RecordsToDelete
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from contract import (CODECS, COMMON, COMMON_RECORDS, PARTITIONS, PATIENCE_S, RECORDS, digest, key, line, main, value)


def settings(run, **more):
    security = run.security
    result = {"bootstrap_servers": run.bootstrap, "security_protocol": security.get("protocol", "PLAINTEXT")}
    if "ca" in security:
        result["ssl_context"] = ssl.create_default_context(cafile=security["ca"])
    if "mechanism" in security:
        result.update(sasl_mechanism=security["mechanism"], sasl_plain_username=security["username"],
                      sasl_plain_password=security["password"])
    return result | more


async def send(run, producer, feature, start, end):
    futures = [await producer.send(run.topic(feature), value(feature, index), key(index), partition=index % PARTITIONS,
                                   headers=[("n", str(index).encode())]) for index in range(start, end)]
    for future in futures:
        await asyncio.wait_for(future, PATIENCE_S)


def produce(feature):
    async def run_it(run):
        more = {"linger_ms": 20}
        if feature in CODECS:
            more["compression_type"] = feature
        elif feature == "idempotent":
            more["enable_idempotence"] = True
        elif feature.startswith("acks-"):
            acks = feature.removeprefix("acks-")
            more["acks"] = acks if acks == "all" else int(acks)
        async with AIOKafkaProducer(**settings(run, **more)) as producer:
            await send(run, producer, feature, 0, RECORDS)
        return {"sent": RECORDS}
    return run_it


async def transactions(run):
    async with AIOKafkaProducer(**settings(run, transactional_id=run.topic("transactions"))) as producer:
        for round in range(3):
            await producer.begin_transaction()
            await send(run, producer, "transactions", round * 10, round * 10 + 10)
            await (producer.abort_transaction() if round == 1 else producer.commit_transaction())
    return {"committed": 20}


def consumer(run, *topics, **more):
    return AIOKafkaConsumer(*topics, **settings(run, auto_offset_reset="earliest", enable_auto_commit=False, **more))


async def read(reader, on_batch=None):
    lines = set()
    end = time.monotonic() + PATIENCE_S
    while len(lines) < COMMON_RECORDS and time.monotonic() < end:
        batch = [record for records in (await reader.getmany(timeout_ms=300)).values() for record in records]
        lines.update(line(record.partition, record.offset, record.key, record.value) for record in batch)
        if batch and on_batch:
            await on_batch(batch)
    return lines


async def exactly_once(run):
    group = run.topic("exactly-once")
    async with AIOKafkaProducer(**settings(run, transactional_id=group)) as producer, \
            consumer(run, COMMON, group_id=group, isolation_level="read_committed") as reader:
        async def copy(batch):
            async with producer.transaction():
                for record in batch:
                    await producer.send(group, record.value, record.key)
                offsets = {TopicPartition(record.topic, record.partition): record.offset + 1 for record in batch}
                await producer.send_offsets_to_transaction(offsets, group)
        lines = await read(reader, copy)
    # The markers that make offsets count are written after the transaction's end was answered.
    return {"copied": len(lines), "committed": await until(lambda: committed(run, group), COMMON_RECORDS)}


def partitions_of_common():
    return [TopicPartition(COMMON, partition) for partition in range(PARTITIONS)]


async def consume(run):
    async with consumer(run) as reader:
        reader.assign(partitions_of_common())
        lines = await read(reader)
    return {"records": len(lines), "sha256": digest(lines)}


async def group(run):
    name = run.topic("group-classic")
    async with consumer(run, COMMON, group_id=name) as reader:
        lines = await read(reader)
        await reader.commit()
    return {"records": len(lines), "committed": await committed(run, name)}


async def committed(run, name):
    async with consumer(run, group_id=name) as reader:
        return sum([await reader.committed(partition) or 0 for partition in partitions_of_common()])


async def offsets(run):
    partitions = partitions_of_common()
    async with consumer(run) as reader:
        earliest, latest = await reader.beginning_offsets(partitions), await reader.end_offsets(partitions)
        at_time = await reader.offsets_for_times({partition: 1 for partition in partitions})
    return {"earliest": [earliest[each] for each in partitions], "latest": [latest[each] for each in partitions],
            "at_time": [at_time[each].offset for each in partitions]}


async def until(check, wanted):
    end = time.monotonic() + PATIENCE_S
    while (found := await check()) != wanted and time.monotonic() < end:
        await asyncio.sleep(0.05)
    return found


def administered(body):
    async def run_it(run):
        admin = AIOKafkaAdminClient(**settings(run))
        await admin.start()
        try:
            return await body(run, admin)
        finally:
            await admin.close()
    return run_it


@administered
async def topics(run, admin):
    topic = run.topic("made")
    await admin.create_topics([NewTopic(topic, 2, 1)])

    async def partitions():
        return len((await admin.describe_topics([topic]))[0]["partitions"])

    before = await until(partitions, 2)
    await admin.create_partitions({topic: NewPartitions(4)})
    after = await until(partitions, 4)
    listed = topic in await admin.list_topics()
    await admin.delete_topics([topic])
    return {"before": before, "after": after, "listed": listed, "gone": await until(partitions, 0) == 0}


@administered
async def configs(run, admin):
    topic = run.topic("configs")
    await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, {"retention.ms": "123456789"})])

    async def described(kind, name, key):
        answers = await admin.describe_configs([ConfigResource(kind, name, {key: None})])
        entries = answers[0].resources[0][4]
        return [entry[1] for entry in entries if entry[0] == key][0]

    retention = await until(lambda: described(ConfigResourceType.TOPIC, topic, "retention.ms"), "123456789")
    return {"retention": retention, "broker": await described(ConfigResourceType.BROKER, "1", "num.io.threads")}


@administered
async def groups(run, admin):
    name = run.topic("groups")
    async with consumer(run, group_id=name) as reader:
        reader.assign([TopicPartition(COMMON, 0)])
        await reader.commit({TopicPartition(COMMON, 0): 5})
    found = await admin.list_consumer_group_offsets(name)
    described = await admin.describe_consumer_groups([name])
    listed = name in [each[0] for each in await admin.list_consumer_groups()]
    return {"offset": found[TopicPartition(COMMON, 0)].offset, "state": described[0].groups[0][2], "listed": listed}


@administered
async def delete_records(run, admin):
    await produce("delete-records")(run)
    low = await admin.delete_records({TopicPartition(run.topic("delete-records"), 0): RecordsToDelete(4)})
    return {"low": list(low.values())[0]}


@administered
async def cluster(run, admin):
    found = await admin.describe_cluster()
    nodes = sorted(each["node_id"] for each in found["brokers"])
    return {"cluster": found["cluster_id"], "nodes": nodes, "controller": found["controller_id"] in nodes}


def waited(feature):
    return lambda run: asyncio.run(feature(run))


if __name__ == "__main__":
    producers = ("acks-0", "acks-1", "acks-all", "idempotent", *CODECS)
    features = {feature: produce(feature) for feature in producers} | {
        "transactions": transactions, "exactly-once": exactly_once, "consume": consume, "offsets": offsets,
        "group-classic": group, "topics": topics, "configs": configs, "groups": groups,
        "delete-records": delete_records, "cluster": cluster,
    }
    main({name: waited(feature) for name, feature in features.items()})
