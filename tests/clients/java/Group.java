import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.time.Duration;
import java.util.BitSet;
import java.util.Collection;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.concurrent.locks.LockSupport;
import org.apache.kafka.clients.consumer.ConsumerRebalanceListener;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.KafkaException;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;

/** The only member of a group: consumes without end in its own thread, and knows which offsets it has seen. */
final class Group extends Thread {
    private final KafkaConsumer<byte[], byte[]> consumer;
    private final String topic;
    private final Map<Integer, BitSet> seen = new HashMap<>();
    private final Map<String, Long> errors = new HashMap<>();
    private long records;
    private long repeated;
    private long assignments;
    private volatile boolean stopping;

    Group(JsonNode request) {
        super("group-" + request.get("group").asText());
        topic = request.get("topic").asText();
        Properties config = TeelineClient.config(request);
        config.put("group.id", request.get("group").asText());
        config.putIfAbsent("auto.offset.reset", "earliest");
        consumer = new KafkaConsumer<>(config, new ByteArrayDeserializer(), new ByteArrayDeserializer());
        setDaemon(true);
    }

    @Override
    public void run() {
        consumer.subscribe(List.of(topic), new ConsumerRebalanceListener() {
            @Override
            public void onPartitionsRevoked(Collection<TopicPartition> partitions) {}

            @Override
            public void onPartitionsAssigned(Collection<TopicPartition> partitions) {
                synchronized (Group.this) {
                    assignments++;
                }
            }
        });
        while (!stopping) {
            try {
                consumer.poll(Duration.ofMillis(200)).forEach(this::note);
            } catch (KafkaException error) {
                synchronized (this) {
                    errors.merge(error.getClass().getSimpleName(), 1L, Long::sum);
                }
                LockSupport.parkNanos(100_000_000);
            }
        }
        consumer.close();
    }

    private synchronized void note(ConsumerRecord<byte[], byte[]> record) {
        BitSet partition = seen.computeIfAbsent(record.partition(), any -> new BitSet());
        if (partition.get((int) record.offset())) repeated++;
        else records++;
        partition.set((int) record.offset());
    }

    /** Records that were seen, and how often one was seen again. */
    synchronized void report(ObjectNode answer) {
        answer.put("records", records).put("repeated", repeated).put("assignments", assignments);
        ObjectNode kinds = answer.putObject("errors");
        errors.forEach(kinds::put);
    }

    void end(ObjectNode answer) throws InterruptedException {
        stopping = true;
        join(Duration.ofSeconds(60).toMillis());
        report(answer);
    }
}
