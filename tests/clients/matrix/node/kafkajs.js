// Features of the client matrix with kafkajs; see the README beside the client programs.
'use strict'

const { createHash } = require('node:crypto')
const { readFileSync } = require('node:fs')
const kafkajs = require('kafkajs')
const lz4 = require('lz4-napi')
const SnappyCodec = require('kafkajs-snappy')
const zstd = require('@bokuweb/zstd-wasm')

const { CompressionTypes, CompressionCodecs, Kafka, logLevel } = kafkajs
const RECORDS = 30
const COMMON_RECORDS = 60
const COMMON = 'matrix-common'
const PARTITIONS = 3
const PATIENCE_MS = 20_000

CompressionCodecs[CompressionTypes.Snappy] = SnappyCodec
CompressionCodecs[CompressionTypes.LZ4] = () => ({
  compress: (encoder) => lz4.compressFrame(encoder.buffer),
  decompress: (buffer) => lz4.decompressFrame(buffer),
})
CompressionCodecs[CompressionTypes.ZSTD] = () => ({
  compress: async (encoder) => Buffer.from(zstd.compress(encoder.buffer, 3)),
  decompress: async (buffer) => Buffer.from(zstd.decompress(buffer)),
})

const [bootstrap, prefix, securityText, ...features] = process.argv.slice(2)
const security = JSON.parse(securityText)
const topicOf = (feature) => `${prefix}-${feature}`

function open() {
  const settings = { clientId: 'matrix', brokers: bootstrap.split(','), logLevel: logLevel.NOTHING }
  if ((security.protocol || '').endsWith('SSL')) settings.ssl = { ca: [readFileSync(security.ca, 'utf8')] }
  if (security.mechanism) {
    const mechanism = security.mechanism.toLowerCase()
    settings.sasl = { mechanism, username: security.username, password: security.password }
  }
  return new Kafka(settings)
}

function records(feature, from, to) {
  return Array.from({ length: to - from }, (_, each) => from + each).map((index) => ({
    partition: index % PARTITIONS,
    key: `key-${index}`,
    value: `${feature} ${index} ${'x'.repeat(200)}`,
    headers: { n: String(index) },
  }))
}

const producers = {
  'acks-0': { acks: 0 },
  'acks-1': { acks: 1 },
  'acks-all': { acks: -1 },
  idempotent: {},
  gzip: { compression: CompressionTypes.GZIP },
  snappy: { compression: CompressionTypes.Snappy },
  lz4: { compression: CompressionTypes.LZ4 },
  zstd: { compression: CompressionTypes.ZSTD },
}

async function produce(feature, options = {}) {
  const producer = open().producer({ idempotent: feature === 'idempotent' })
  await producer.connect()
  await producer.send({ topic: topicOf(feature), messages: records(feature, 0, RECORDS), ...options })
  await producer.disconnect()
  return { sent: RECORDS }
}

const transactional = (id) => open().producer({ transactionalId: id, idempotent: true, maxInFlightRequests: 1 })

async function transactions() {
  const producer = transactional(topicOf('transactions'))
  await producer.connect()
  for (let round = 0; round < 3; round++) {
    const transaction = await producer.transaction()
    await transaction.send({ topic: topicOf('transactions'), messages: records('transactions', round * 10, round * 10 + 10) })
    await (round === 1 ? transaction.abort() : transaction.commit())
  }
  await producer.disconnect()
  return { committed: 20 }
}

/** Reads the common topic as a member of a group until everything was seen. */
async function readGroup(groupId, onBatch) {
  const consumer = open().consumer({ groupId })
  await consumer.connect()
  await consumer.subscribe({ topics: [COMMON], fromBeginning: true })
  const lines = new Set()
  let failure = null
  const done = new Promise((resolve) => {
    const timer = setTimeout(resolve, PATIENCE_MS)
    consumer.on(consumer.events.CRASH, ({ payload }) => {
      failure = payload.error
      resolve()
    })
    const eachBatch = async ({ batch, resolveOffset, commitOffsetsIfNecessary }) => {
      if (onBatch) await onBatch(batch)
      for (const message of batch.messages) {
        lines.add(`${batch.partition} ${message.offset} ${message.key} ${message.value}`)
        resolveOffset(message.offset)
      }
      if (!onBatch) await commitOffsetsIfNecessary({ topics: [{ topic: COMMON, partitions: [{ partition: batch.partition, offset: String(Number(batch.lastOffset()) + 1) }] }] })
      if (lines.size === COMMON_RECORDS) {
        clearTimeout(timer)
        resolve()
      }
    }
    consumer.run({ autoCommit: false, eachBatch, eachBatchAutoResolve: false }).catch((error) => {
      failure = error
      resolve()
    })
  })
  await done
  await consumer.disconnect()
  if (failure) throw failure
  return lines
}

async function consume() {
  const lines = await readGroup(topicOf('reader'))
  return { records: lines.size, sha256: createHash('sha256').update([...lines].sort().join('\n')).digest('hex').slice(0, 16) }
}

async function group() {
  const lines = await readGroup(topicOf('group-classic'))
  return { records: lines.size, committed: await committed(topicOf('group-classic')) }
}

async function exactlyOnce() {
  const name = topicOf('exactly-once')
  const producer = transactional(name)
  await producer.connect()
  let tail = Promise.resolve()
  const copy = async (batch) => {
    const transaction = await producer.transaction()
    await transaction.send({ topic: name, messages: batch.messages.map(({ key, value }) => ({ key, value })) })
    const partitions = [{ partition: batch.partition, offset: String(Number(batch.lastOffset()) + 1) }]
    await transaction.sendOffsets({ consumerGroupId: name, topics: [{ topic: COMMON, partitions }] })
    await transaction.commit()
  }
  // One transaction after the other, though batches may come side by side.
  const lines = await readGroup(name, (batch) => (tail = tail.then(() => copy(batch))))
  await producer.disconnect()
  // The markers that make offsets count are written after the transaction's end was answered.
  return { copied: lines.size, committed: await until(() => committed(name), COMMON_RECORDS) }
}

async function administered(body) {
  const admin = open().admin()
  await admin.connect()
  try {
    return await body(admin)
  } finally {
    await admin.disconnect()
  }
}

async function committed(groupId) {
  return administered(async (admin) => {
    const found = await admin.fetchOffsets({ groupId, topics: [COMMON] })
    return found[0].partitions.reduce((sum, each) => sum + Math.max(Number(each.offset), 0), 0)
  })
}

async function until(check, wanted) {
  const end = Date.now() + PATIENCE_MS
  for (;;) {
    const found = await check()
    if (found === wanted || Date.now() > end) return found
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
}

const offsets = () =>
  administered(async (admin) => {
    const sorted = (list, name) => list.sort((a, b) => a.partition - b.partition).map((each) => Number(each[name]))
    const ends = await admin.fetchTopicOffsets(COMMON)
    const times = await admin.fetchTopicOffsetsByTimestamp(COMMON, 1)
    return { earliest: sorted(ends, 'low'), latest: sorted(ends, 'high'), at_time: sorted(times, 'offset') }
  })

const topics = () =>
  administered(async (admin) => {
    const topic = topicOf('made')
    await admin.createTopics({ topics: [{ topic, numPartitions: 2, replicationFactor: 1 }], waitForLeaders: true })
    const partitions = async () => {
      try {
        return (await admin.fetchTopicMetadata({ topics: [topic] })).topics[0].partitions.length
      } catch (error) {
        if (error.type !== 'UNKNOWN_TOPIC_OR_PARTITION') throw error
        return 0
      }
    }
    const before = await until(partitions, 2)
    await admin.createPartitions({ topicPartitions: [{ topic, count: 4 }] })
    const after = await until(partitions, 4)
    const listed = (await admin.listTopics()).includes(topic)
    await admin.deleteTopics({ topics: [topic] })
    const gone = await until(async () => !(await admin.listTopics()).includes(topic), true)
    return { before, after, listed, gone }
  })

const configs = () =>
  administered(async (admin) => {
    const name = topicOf('configs')
    await admin.alterConfigs({ validateOnly: false, resources: [{ type: 2, name, configEntries: [{ name: 'retention.ms', value: '123456789' }] }] })
    const described = async (type, name, key) => {
      const answer = await admin.describeConfigs({ includeSynonyms: false, resources: [{ type, name, configNames: [key] }] })
      return answer.resources[0].configEntries.find((entry) => entry.configName === key).configValue
    }
    const retention = await until(() => described(2, name, 'retention.ms'), '123456789')
    return { retention, broker: await described(4, '1', 'num.io.threads') }
  })

const acls = () =>
  administered(async (admin) => {
    const what = { resourceType: 2, resourceName: prefix, resourcePatternType: 4, principal: 'User:matrix', host: '*', operation: 3, permissionType: 3 }
    await admin.createAcls({ acl: [what] })
    const found = await until(async () => (await admin.describeAcls(what)).resources.length, 1)
    const deleted = await admin.deleteAcls({ filters: [what] })
    return { found, deleted: deleted.filterResponses[0].matchingAcls.length }
  })

const groups = () =>
  administered(async (admin) => {
    const groupId = topicOf('groups')
    await admin.setOffsets({ groupId, topic: COMMON, partitions: [{ partition: 0, offset: '5' }] })
    const offset = await committed(groupId)
    const { state } = (await admin.describeGroups([groupId])).groups[0]
    const listed = async () => (await admin.listGroups()).groups.some((each) => each.groupId === groupId)
    const was = await listed()
    await admin.deleteGroups([groupId])
    return { offset, state, listed: was, gone: !(await listed()) }
  })

const deleteRecords = async () => {
  await produce('delete-records')
  return administered(async (admin) => {
    const topic = topicOf('delete-records')
    // Kafkajs deletes only from topics whose metadata it has.
    await admin.fetchTopicOffsets(topic)
    await admin.deleteTopicRecords({ topic, partitions: [{ partition: 0, offset: '4' }] })
    const first = (await admin.fetchTopicOffsets(topic)).find((each) => each.partition === 0)
    return { low: Number(first.low) }
  })
}

const cluster = () =>
  administered(async (admin) => {
    const { brokers, controller, clusterId } = await admin.describeCluster()
    const nodes = brokers.map((each) => each.nodeId).sort()
    return { cluster: clusterId, nodes, controller: nodes.includes(controller) }
  })

const known = {
  transactions, consume, offsets, topics, configs, acls, groups, cluster,
  'exactly-once': exactlyOnce, 'group-classic': group, 'delete-records': deleteRecords,
}
for (const [feature, options] of Object.entries(producers)) known[feature] = () => produce(feature, options)

async function main() {
  await zstd.init()
  for (const feature of features) {
    let answer
    if (known[feature]) {
      try {
        answer = { feature, outcome: 'ok', saw: await known[feature]() }
      } catch (error) {
        answer = { feature, outcome: 'failed', error: `${error.name} ${error.message}` }
      }
    } else {
      answer = { feature, outcome: 'unsupported', error: 'the client has no such thing' }
    }
    console.log(JSON.stringify(answer))
  }
  // Connections of a client that failed must not keep the program.
  process.exit(0)
}

main()
