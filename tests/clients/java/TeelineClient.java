import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import com.github.luben.zstd.ZstdInputStream;
import java.io.BufferedInputStream;
import java.io.BufferedReader;
import java.io.BufferedWriter;
import java.io.InputStream;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Base64;
import java.util.Collection;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Properties;
import java.util.Set;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Future;
import java.util.concurrent.locks.LockSupport;
import net.jpountz.lz4.LZ4FrameInputStream;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.NewPartitionReassignment;
import org.apache.kafka.clients.admin.NewPartitions;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.admin.RecordsToDelete;
import org.apache.kafka.clients.admin.TopicDescription;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.ElectionType;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.TopicPartitionInfo;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.errors.RetriableException;
import org.apache.kafka.common.errors.TopicExistsException;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.record.TimestampType;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/**
 * A Java Kafka client driven by JSON lines: one request a line on standard input, one answer a line on standard
 * output. It reports what the broker acknowledged and what a consumer reads; it judges nothing.
 */
public final class TeelineClient {
    static final ObjectMapper JSON = new ObjectMapper();
    private final Map<String, KafkaProducer<byte[], byte[]>> producers = new HashMap<>();
    private final Map<String, Load> loads = new HashMap<>();
    private final Map<String, Group> groups = new HashMap<>();

    public static void main(String[] args) throws Exception {
        PrintStream answers = new PrintStream(System.out, true, StandardCharsets.UTF_8);
        System.setOut(System.err); // what a library prints must not be taken for an answer
        TeelineClient client = new TeelineClient();
        BufferedReader requests = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8), 1 << 20);
        for (String line; (line = requests.readLine()) != null; ) {
            ObjectNode answer = JSON.createObjectNode();
            try {
                client.handle(JSON.readTree(line), answer);
            } catch (Exception error) {
                Throwable cause = error instanceof ExecutionException && error.getCause() != null ? error.getCause() : error;
                answer.put("error", cause.toString());
            }
            answers.println(JSON.writeValueAsString(answer));
        }
        System.exit(0);
    }

    private void handle(JsonNode request, ObjectNode answer) throws Exception {
        switch (request.get("op").asText()) {
            case "open" -> open(request);
            case "send" -> send(request, answer);
            case "begin" -> producer(request).beginTransaction();
            case "commit" -> producer(request).commitTransaction();
            case "abort" -> producer(request).abortTransaction();
            case "close" -> producers.remove(request.get("producer").asText()).close(Duration.ofSeconds(30));
            case "load" -> load(request);
            case "load_status" -> loads.get(request.get("load").asText()).report(answer);
            case "load_stop" -> loads.remove(request.get("load").asText()).stop(answer, request.path("seconds").asLong(60));
            case "group" -> group(request);
            case "group_status" -> groups.get(request.get("group").asText()).report(answer);
            case "group_stop" -> groups.remove(request.get("group").asText()).end(answer);
            case "read" -> read(request, answer);
            case "create_topics" -> createTopics(request);
            case "alter_topic" -> alterTopic(request);
            case "delete_topic" -> deleteTopic(request);
            case "add_partitions" -> addPartitions(request);
            case "delete_records" -> deleteRecords(request);
            case "describe_topics" -> describeTopics(request, answer);
            case "topic_configs" -> topicConfigs(request, answer);
            case "reassign" -> reassign(request);
            case "elect" -> elect(request);
            case "unregister" -> unregister(request);
            case "decompress" -> decompress(request);
            case "cluster_id" -> clusterId(request, answer);
            default -> throw new IllegalArgumentException("unknown op " + request.get("op"));
        }
    }

    // ---- producing

    private void open(JsonNode request) {
        producers.put(request.get("producer").asText(), newProducer(request));
    }

    static KafkaProducer<byte[], byte[]> newProducer(JsonNode request) {
        Properties config = config(request);
        KafkaProducer<byte[], byte[]> producer =
                new KafkaProducer<>(config, new ByteArraySerializer(), new ByteArraySerializer());
        if (config.containsKey("transactional.id")) producer.initTransactions();
        return producer;
    }

    private KafkaProducer<byte[], byte[]> producer(JsonNode request) {
        return producers.get(request.get("producer").asText());
    }

    /** Sends every record, flushes, and answers with one [partition, offset, timestamp] or error text per record. */
    private void send(JsonNode request, ObjectNode answer) throws Exception {
        KafkaProducer<byte[], byte[]> producer = producer(request);
        List<Future<RecordMetadata>> sent = new ArrayList<>();
        for (JsonNode each : request.get("records")) sent.add(producer.send(record(request.get("topic").asText(), each)));
        producer.flush();
        ArrayNode acks = answer.putArray("acks");
        for (Future<RecordMetadata> future : sent) {
            try {
                RecordMetadata ack = future.get();
                acks.addArray().add(ack.partition()).add(ack.hasOffset() ? ack.offset() : -1).add(ack.timestamp());
            } catch (ExecutionException error) {
                acks.add(error.getCause().toString());
            }
        }
    }

    private static ProducerRecord<byte[], byte[]> record(String topic, JsonNode from) {
        Long timestamp = from.hasNonNull("t") ? from.get("t").asLong() : null;
        ProducerRecord<byte[], byte[]> record =
                new ProducerRecord<>(topic, from.get("p").asInt(), timestamp, bytes(from.get("k")), bytes(from.get("v")));
        for (JsonNode header : from.path("h")) {
            record.headers().add(new String(bytes(header.get(0)), StandardCharsets.UTF_8), bytes(header.get(1)));
        }
        return record;
    }

    private void load(JsonNode request) throws Exception {
        Load load = new Load(request);
        loads.put(request.get("load").asText(), load);
        load.start();
    }

    // ---- consuming

    private void group(JsonNode request) {
        Group group = new Group(request);
        groups.put(request.get("group").asText(), group);
        group.start();
    }

    /** Reads every topic from its beginning to the end it had at the start, one line per record into the file "out". */
    private void read(JsonNode request, ObjectNode answer) throws Exception {
        Properties config = config(request);
        config.putIfAbsent("isolation.level", "read_committed");
        config.putIfAbsent("auto.offset.reset", "earliest");
        config.putIfAbsent("max.poll.records", "5000");
        config.putIfAbsent("fetch.max.bytes", "16777216");
        config.putIfAbsent("enable.auto.commit", "false");
        boolean full = request.path("full").asBoolean();
        long deadline = System.nanoTime() + Duration.ofSeconds(request.path("seconds").asLong(60)).toNanos();
        long records = 0;
        try (KafkaConsumer<byte[], byte[]> consumer =
                        new KafkaConsumer<>(config, new ByteArrayDeserializer(), new ByteArrayDeserializer());
                BufferedWriter out = Files.newBufferedWriter(Path.of(request.get("out").asText()))) {
            List<TopicPartition> partitions = new ArrayList<>();
            for (JsonNode topic : request.get("topics")) {
                consumer.partitionsFor(topic.asText())
                        .forEach(each -> partitions.add(new TopicPartition(each.topic(), each.partition())));
            }
            consumer.assign(partitions);
            consumer.seekToBeginning(partitions);
            Map<TopicPartition, Long> ends = consumer.endOffsets(partitions);
            while (!reached(consumer, ends)) {
                if (System.nanoTime() > deadline) throw new IllegalStateException("did not read to " + ends + " in time");
                for (ConsumerRecord<byte[], byte[]> record : consumer.poll(Duration.ofMillis(200))) {
                    // Written since the read began: the caller asked for the end as it was.
                    if (record.offset() >= ends.get(new TopicPartition(record.topic(), record.partition()))) continue;
                    writeRecord(out, record, full);
                    records++;
                }
            }
        }
        answer.put("records", records);
    }

    private static boolean reached(KafkaConsumer<byte[], byte[]> consumer, Map<TopicPartition, Long> ends) {
        return ends.entrySet().stream().allMatch(end -> consumer.position(end.getKey()) >= end.getValue());
    }

    private static void writeRecord(BufferedWriter out, ConsumerRecord<byte[], byte[]> record, boolean full)
            throws java.io.IOException {
        out.write(record.topic() + '\t' + record.partition() + '\t' + record.offset() + '\t' + record.timestamp() + '\t'
                + (record.timestampType() == TimestampType.LOG_APPEND_TIME ? 'L' : 'C') + '\t'
                + Long.toHexString(digest(record.key(), record.value(), record.headers().toArray())));
        if (full) {
            StringBuilder headers = new StringBuilder();
            for (Header header : record.headers()) {
                headers.append(text(header.key().getBytes(StandardCharsets.UTF_8))).append(':').append(text(header.value())).append(',');
            }
            out.write('\t' + text(record.key()) + '\t' + text(record.value()) + '\t' + headers);
        }
        out.write('\n');
    }

    // ---- administration

    private void createTopics(JsonNode request) throws Exception {
        try (Admin admin = Admin.create(config(request))) {
            List<NewTopic> topics = new ArrayList<>();
            Map<TopicPartition, OffsetSpec> everyPartition = new HashMap<>();
            for (JsonNode each : request.get("topics")) {
                int partitions = each.path("partitions").asInt(1);
                NewTopic topic = new NewTopic(each.get("name").asText(), partitions, (short) each.path("replication").asInt(1));
                Map<String, String> configs = new HashMap<>();
                each.path("configs").properties().forEach(entry -> configs.put(entry.getKey(), entry.getValue().asText()));
                topics.add(topic.configs(configs));
                for (int p = 0; p < partitions; p++) everyPartition.put(new TopicPartition(topic.name(), p), OffsetSpec.latest());
            }
            create(admin, topics);
            // Until a leader answers for every partition, records sent with acks=0 would vanish without a word.
            awaitLeaders(admin, everyPartition);
        }
    }

    /** The client asks again when a controller has moved or is slow, and then finds there what it has just created. */
    private static void create(Admin admin, List<NewTopic> topics) throws Exception {
        Set<String> before = admin.listTopics().names().get();
        for (var each : admin.createTopics(topics).values().entrySet()) {
            try {
                each.getValue().get();
            } catch (ExecutionException error) {
                boolean own = error.getCause() instanceof TopicExistsException && !before.contains(each.getKey());
                if (!own) throw error;
            }
        }
    }

    /** A topic just created may be unknown to the broker that is asked, for a moment. */
    private static void awaitLeaders(Admin admin, Map<TopicPartition, OffsetSpec> partitions) throws Exception {
        long deadline = System.nanoTime() + Duration.ofSeconds(60).toNanos();
        while (true) {
            try {
                admin.listOffsets(partitions).all().get();
                return;
            } catch (ExecutionException error) {
                if (!(error.getCause() instanceof RetriableException) || System.nanoTime() > deadline) throw error;
                LockSupport.parkNanos(20_000_000);
            }
        }
    }

    private void alterTopic(JsonNode request) throws Exception {
        try (Admin admin = Admin.create(config(request))) {
            Collection<AlterConfigOp> changes = new ArrayList<>();
            request.get("configs").properties().forEach(entry -> changes.add(new AlterConfigOp(
                    new ConfigEntry(entry.getKey(), entry.getValue().asText()), AlterConfigOp.OpType.SET)));
            ConfigResource topic = new ConfigResource(ConfigResource.Type.TOPIC, request.get("topic").asText());
            admin.incrementalAlterConfigs(Map.of(topic, changes)).all().get();
        }
    }

    private void deleteTopic(JsonNode request) throws Exception {
        try (Admin admin = Admin.create(config(request))) {
            admin.deleteTopics(List.of(request.get("topic").asText())).all().get();
        }
    }

    private void addPartitions(JsonNode request) throws Exception {
        try (Admin admin = Admin.create(config(request))) {
            NewPartitions more = NewPartitions.increaseTo(request.get("partitions").asInt());
            admin.createPartitions(Map.of(request.get("topic").asText(), more)).all().get();
        }
    }

    /** Everything before an offset. */
    private void deleteRecords(JsonNode request) throws Exception {
        try (Admin admin = Admin.create(config(request))) {
            TopicPartition partition = new TopicPartition(request.get("topic").asText(), request.get("partition").asInt());
            admin.deleteRecords(Map.of(partition, RecordsToDelete.beforeOffset(request.get("offset").asLong()))).all().get();
        }
    }

    private void describeTopics(JsonNode request, ObjectNode answer) throws Exception {
        try (Admin admin = Admin.create(config(request))) {
            List<String> names = new ArrayList<>();
            request.get("topics").forEach(each -> names.add(each.asText()));
            ArrayNode topics = answer.putArray("topics");
            for (TopicDescription topic : admin.describeTopics(names).allTopicNames().get().values()) {
                ObjectNode described = topics.addObject().put("name", topic.name());
                ArrayNode partitions = described.putArray("partitions");
                for (TopicPartitionInfo partition : topic.partitions()) {
                    ObjectNode row = partitions.addObject().put("partition", partition.partition());
                    row.put("leader", partition.leader() == null ? -1 : partition.leader().id());
                    ArrayNode replicas = row.putArray("replicas");
                    partition.replicas().forEach(node -> replicas.add(node.id()));
                    ArrayNode inSync = row.putArray("isr");
                    partition.isr().forEach(node -> inSync.add(node.id()));
                }
            }
        }
    }

    /** Only what was set on the topic itself, as an operator sees it. */
    private void topicConfigs(JsonNode request, ObjectNode answer) throws Exception {
        try (Admin admin = Admin.create(config(request))) {
            ConfigResource topic = new ConfigResource(ConfigResource.Type.TOPIC, request.get("topic").asText());
            ObjectNode configs = answer.putObject("configs");
            for (ConfigEntry entry : admin.describeConfigs(List.of(topic)).all().get().get(topic).entries()) {
                if (entry.source() == ConfigEntry.ConfigSource.DYNAMIC_TOPIC_CONFIG) configs.put(entry.name(), entry.value());
            }
        }
    }

    private void reassign(JsonNode request) throws Exception {
        try (Admin admin = Admin.create(config(request))) {
            TopicPartition partition = new TopicPartition(request.get("topic").asText(), request.get("partition").asInt());
            List<Integer> replicas = new ArrayList<>();
            request.get("replicas").forEach(each -> replicas.add(each.asInt()));
            admin.alterPartitionReassignments(Map.of(partition, Optional.of(new NewPartitionReassignment(replicas)))).all().get();
        }
    }

    private void elect(JsonNode request) throws Exception {
        try (Admin admin = Admin.create(config(request))) {
            TopicPartition partition = new TopicPartition(request.get("topic").asText(), request.get("partition").asInt());
            admin.electLeaders(ElectionType.PREFERRED, Set.of(partition)).all().get();
        }
    }

    /** A broker that has left for good. */
    private void unregister(JsonNode request) throws Exception {
        try (Admin admin = Admin.create(config(request))) {
            admin.unregisterBroker(request.get("node").asInt()).all().get();
        }
    }

    private void clusterId(JsonNode request, ObjectNode answer) throws Exception {
        try (Admin admin = Admin.create(config(request))) {
            answer.put("cluster_id", admin.describeCluster().clusterId().get());
            ArrayNode nodes = answer.putArray("nodes");
            admin.describeCluster().nodes().get().forEach(node -> nodes.add(node.id() + "@" + node.host() + ":" + node.port()));
            answer.put("controller", admin.describeCluster().controller().get().port());
        }
    }

    /** Decodes a file with the library of its codec. */
    private static void decompress(JsonNode request) throws Exception {
        try (InputStream raw = new BufferedInputStream(Files.newInputStream(Path.of(request.get("from").asText())));
                InputStream decoded = switch (request.get("codec").asText()) {
                    case "zstd" -> new ZstdInputStream(raw);
                    case "lz4" -> new LZ4FrameInputStream(raw);
                    default -> raw;
                }) {
            Files.copy(decoded, Path.of(request.get("to").asText()), StandardCopyOption.REPLACE_EXISTING);
        }
    }

    // ---- shared parts

    static Properties config(JsonNode request) {
        Properties config = new Properties();
        config.put("bootstrap.servers", request.get("bootstrap").asText());
        request.path("config").properties().forEach(entry -> config.put(entry.getKey(), entry.getValue().asText()));
        return config;
    }

    private static byte[] bytes(JsonNode node) {
        return node == null || node.isNull() ? null : Base64.getDecoder().decode(node.asText());
    }

    private static String text(byte[] bytes) {
        return bytes == null ? "-" : '=' + Base64.getEncoder().encodeToString(bytes);
    }

    /** FNV-1a over lengths and bytes of key, value and headers: the same in every client program of these tests. */
    static long digest(byte[] key, byte[] value, Header[] headers) {
        long hash = field(field(0xcbf29ce484222325L, key), value);
        for (Header header : headers) hash = field(field(hash, header.key().getBytes(StandardCharsets.UTF_8)), header.value());
        return hash;
    }

    private static long field(long hash, byte[] bytes) {
        int length = bytes == null ? -1 : bytes.length;
        for (int shift = 0; shift < 32; shift += 8) hash = (hash ^ ((length >> shift) & 0xff)) * 0x100000001b3L;
        if (bytes != null) for (byte each : bytes) hash = (hash ^ (each & 0xff)) * 0x100000001b3L;
        return hash;
    }
}
