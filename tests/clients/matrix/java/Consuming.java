import java.security.MessageDigest;
import java.time.Duration;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.Set;
import java.util.TreeMap;
import java.util.TreeSet;
import java.util.stream.Collectors;
import java.util.stream.IntStream;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;

/** Reading, with and without a group. */
final class Consuming {
    private final Matrix matrix;

    Consuming(Matrix matrix) {
        this.matrix = matrix;
    }

    Map<String, ?> consume() throws Exception {
        try (var consumer = open(properties())) {
            consumer.assign(partitions());
            consumer.seekToBeginning(partitions());
            Set<String> lines = read(consumer);
            return Map.of("records", lines.size(), "sha256", digest(lines));
        }
    }

    Map<String, ?> offsets() {
        try (var consumer = open(properties())) {
            Map<TopicPartition, Long> latest = consumer.endOffsets(partitions());
            Map<TopicPartition, Long> times = partitions().stream().collect(Collectors.toMap(each -> each, each -> 1L));
            Map<TopicPartition, Long> found = new java.util.HashMap<>();
            consumer.offsetsForTimes(times).forEach((partition, at) -> found.put(partition, at.offset()));
            return Map.of("earliest", sorted(consumer.beginningOffsets(partitions())), "latest", sorted(latest),
                "at_time", sorted(found));
        }
    }

    /** One member reads everything and commits; the next one finds that it was committed. */
    Map<String, ?> group(String feature, String protocol) throws Exception {
        Properties properties = properties();
        String group = matrix.prefix + "-" + feature;
        properties.put("group.id", group);
        properties.put("group.protocol", protocol);
        int count;
        try (var consumer = open(properties)) {
            consumer.subscribe(List.of(Matrix.COMMON));
            count = read(consumer).size();
            consumer.commitSync();
        }
        return Map.of("records", count, "committed", committed(group));
    }

    /** The sum of what a group has committed. */
    long committed(String group) {
        Properties properties = properties();
        properties.put("group.id", group);
        try (var consumer = open(properties)) {
            return consumer.committed(Set.copyOf(partitions())).values().stream()
                .filter(each -> each != null).mapToLong(each -> each.offset()).sum();
        }
    }

    Properties properties() {
        Properties properties = matrix.properties();
        properties.put("auto.offset.reset", "earliest");
        properties.put("enable.auto.commit", "false");
        properties.put("isolation.level", "read_committed");
        return properties;
    }

    KafkaConsumer<byte[], byte[]> open(Properties properties) {
        return new KafkaConsumer<>(properties, new ByteArrayDeserializer(), new ByteArrayDeserializer());
    }

    private Set<String> read(KafkaConsumer<byte[], byte[]> consumer) {
        Set<String> lines = new TreeSet<>();
        long deadline = System.currentTimeMillis() + Matrix.PATIENCE_MS;
        while (lines.size() < Matrix.COMMON_RECORDS && System.currentTimeMillis() < deadline) {
            consumer.poll(Duration.ofMillis(500)).forEach(record -> lines.add(record.partition() + " "
                + record.offset() + " " + new String(record.key()) + " " + new String(record.value())));
        }
        return lines;
    }

    private static List<TopicPartition> partitions() {
        return IntStream.range(0, Matrix.PARTITIONS).mapToObj(each -> new TopicPartition(Matrix.COMMON, each)).toList();
    }

    private static List<Long> sorted(Map<TopicPartition, Long> offsets) {
        TreeMap<Integer, Long> byNumber = new TreeMap<>();
        offsets.forEach((partition, offset) -> byNumber.put(partition.partition(), offset));
        return List.copyOf(byNumber.values());
    }

    private static String digest(Set<String> lines) throws Exception {
        byte[] text = String.join("\n", lines).getBytes();
        return HexFormat.of().formatHex(MessageDigest.getInstance("SHA-256").digest(text)).substring(0, 16);
    }
}
