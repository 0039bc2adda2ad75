import java.time.Duration;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.Set;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.consumer.KafkaShareConsumer;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;

/** Share groups, which came with the client's version 4. */
final class Sharing {
    private Sharing() {
    }

    static Map<String, ?> run(Matrix matrix) throws Exception {
        String group = matrix.prefix + "-share";
        try (Admin admin = Admin.create(matrix.properties())) {
            var resource = new ConfigResource(ConfigResource.Type.GROUP, group);
            var earliest = new AlterConfigOp(new ConfigEntry("share.auto.offset.reset", "earliest"),
                AlterConfigOp.OpType.SET);
            admin.incrementalAlterConfigs(Map.of(resource, List.of(earliest))).all().get();
        }
        Properties properties = matrix.properties();
        properties.put("group.id", group);
        Set<String> seen = new HashSet<>();
        try (var consumer = new KafkaShareConsumer<>(properties, new ByteArrayDeserializer(), new ByteArrayDeserializer())) {
            consumer.subscribe(List.of(Matrix.COMMON));
            long deadline = System.currentTimeMillis() + Matrix.PATIENCE_MS;
            while (seen.size() < Matrix.COMMON_RECORDS && System.currentTimeMillis() < deadline) {
                consumer.poll(Duration.ofMillis(500)).forEach(record -> seen.add(record.partition() + "/" + record.offset()));
                consumer.commitSync();
            }
        }
        return Map.of("records", seen.size());
    }
}
