import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.concurrent.Future;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/** Every way of producing. */
final class Producing {
    private final Matrix matrix;

    Producing(Matrix matrix) {
        this.matrix = matrix;
    }

    Map<String, ?> produce(String feature) throws Exception {
        Properties properties = matrix.properties();
        properties.put("enable.idempotence", String.valueOf(feature.equals("idempotent")));
        switch (feature) {
            case "acks-0", "acks-1", "acks-all" -> properties.put("acks", feature.substring(5));
            case "idempotent" -> properties.put("acks", "all");
            default -> properties.put("compression.type", feature);
        }
        try (var producer = open(properties)) {
            send(producer, feature, 0, Matrix.RECORDS);
        }
        return Map.of("sent", Matrix.RECORDS);
    }

    Map<String, ?> transactions() throws Exception {
        try (var producer = open(transactional("transactions"))) {
            producer.initTransactions();
            for (int round = 0; round < 3; round++) {
                producer.beginTransaction();
                send(producer, "transactions", round * 10, round * 10 + 10);
                if (round == 1) {
                    producer.abortTransaction();
                } else {
                    producer.commitTransaction();
                }
            }
        }
        return Map.of("committed", 20);
    }

    /** Consumes, transforms and produces, with the group's offsets in the producer's transactions. */
    Map<String, ?> exactlyOnce() throws Exception {
        String group = matrix.prefix + "-exactly-once";
        Consuming consuming = new Consuming(matrix);
        Properties properties = consuming.properties();
        properties.put("group.id", group);
        int copied = 0;
        try (var producer = open(transactional("exactly-once")); var consumer = consuming.open(properties)) {
            producer.initTransactions();
            consumer.subscribe(List.of(Matrix.COMMON));
            long deadline = System.currentTimeMillis() + Matrix.PATIENCE_MS;
            while (copied < Matrix.COMMON_RECORDS && System.currentTimeMillis() < deadline) {
                copied += copy(consumer, producer, group);
            }
        }
        // The markers that make offsets count are written after the transaction's end was answered.
        long committed = 0;
        for (long end = System.currentTimeMillis() + Matrix.PATIENCE_MS;
                committed < Matrix.COMMON_RECORDS && System.currentTimeMillis() < end; ) {
            committed = consuming.committed(group);
        }
        return Map.of("copied", copied, "committed", committed);
    }

    private int copy(KafkaConsumer<byte[], byte[]> consumer, KafkaProducer<byte[], byte[]> producer, String group)
            throws Exception {
        var records = consumer.poll(java.time.Duration.ofMillis(500));
        if (records.isEmpty()) {
            return 0;
        }
        producer.beginTransaction();
        Map<TopicPartition, OffsetAndMetadata> offsets = new HashMap<>();
        for (ConsumerRecord<byte[], byte[]> record : records) {
            producer.send(new ProducerRecord<>(matrix.prefix + "-exactly-once", record.key(), record.value()));
            offsets.put(new TopicPartition(record.topic(), record.partition()),
                new OffsetAndMetadata(record.offset() + 1));
        }
        producer.sendOffsetsToTransaction(offsets, consumer.groupMetadata());
        producer.commitTransaction();
        return records.count();
    }

    private Properties transactional(String feature) {
        Properties properties = matrix.properties();
        properties.put("transactional.id", matrix.prefix + "-" + feature);
        return properties;
    }

    private KafkaProducer<byte[], byte[]> open(Properties properties) {
        properties.put("max.block.ms", "20000");
        properties.put("delivery.timeout.ms", "20000");
        return new KafkaProducer<>(properties, new ByteArraySerializer(), new ByteArraySerializer());
    }

    void send(String feature) throws Exception {
        try (var producer = open(matrix.properties())) {
            send(producer, feature, 0, Matrix.RECORDS);
        }
    }

    private void send(KafkaProducer<byte[], byte[]> producer, String feature, int from, int to) throws Exception {
        List<Future<RecordMetadata>> answers = new ArrayList<>();
        for (int index = from; index < to; index++) {
            var record = new ProducerRecord<>(matrix.prefix + "-" + feature, index % Matrix.PARTITIONS,
                Matrix.key(index), Matrix.value(feature, index));
            record.headers().add("n", String.valueOf(index).getBytes());
            answers.add(producer.send(record));
        }
        producer.flush();
        for (var answer : answers) {
            answer.get();
        }
    }
}
