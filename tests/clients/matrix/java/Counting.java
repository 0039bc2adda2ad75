import java.nio.file.Files;
import java.util.Map;
import java.util.Properties;
import java.util.concurrent.atomic.AtomicLong;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.kstream.Grouped;
import org.apache.kafka.streams.kstream.Produced;

/** Kafka Streams: a count with a repartition topic, a changelog and exactly-once processing. */
final class Counting {
    private Counting() {
    }

    static Map<String, ?> run(Matrix matrix) throws Exception {
        var directory = Files.createTempDirectory("matrix-streams");
        Properties properties = matrix.properties();
        properties.put("application.id", matrix.prefix + "-streams-app");
        properties.put("processing.guarantee", "exactly_once_v2");
        properties.put("replication.factor", "1");
        properties.put("commit.interval.ms", "200");
        properties.put("state.dir", directory.toString());
        properties.put("auto.offset.reset", "earliest");
        properties.put("default.key.serde", Serdes.StringSerde.class.getName());
        properties.put("default.value.serde", Serdes.StringSerde.class.getName());
        AtomicLong counted = new AtomicLong();
        StreamsBuilder builder = new StreamsBuilder();
        builder.<String, String>stream(Matrix.COMMON)
            .groupBy((key, value) -> "all", Grouped.with(Serdes.String(), Serdes.String()))
            .count()
            .toStream()
            .peek((key, count) -> counted.set(count))
            .mapValues(String::valueOf)
            .to(matrix.prefix + "-streams", Produced.with(Serdes.String(), Serdes.String()));
        try (KafkaStreams streams = new KafkaStreams(builder.build(), properties)) {
            streams.start();
            long deadline = System.currentTimeMillis() + 2 * Matrix.PATIENCE_MS;
            while (counted.get() < Matrix.COMMON_RECORDS && System.currentTimeMillis() < deadline) {
                Thread.sleep(50);
            }
            streams.close(java.time.Duration.ofSeconds(20));
            streams.cleanUp();
        }
        return Map.of("counted", counted.get());
    }
}
