import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.ExecutionException;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.NewPartitions;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.admin.RecordsToDelete;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.acl.AccessControlEntry;
import org.apache.kafka.common.acl.AclBinding;
import org.apache.kafka.common.acl.AclOperation;
import org.apache.kafka.common.acl.AclPermissionType;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.errors.UnknownTopicOrPartitionException;
import org.apache.kafka.common.quota.ClientQuotaAlteration;
import org.apache.kafka.common.quota.ClientQuotaEntity;
import org.apache.kafka.common.quota.ClientQuotaFilter;
import org.apache.kafka.common.quota.ClientQuotaFilterComponent;
import org.apache.kafka.common.resource.PatternType;
import org.apache.kafka.common.resource.ResourcePattern;
import org.apache.kafka.common.resource.ResourceType;

/** What administrators do. */
final class Administration {
    private final Matrix matrix;

    Administration(Matrix matrix) {
        this.matrix = matrix;
    }

    Map<String, ?> topics() throws Exception {
        String topic = matrix.prefix + "-made";
        try (Admin admin = open()) {
            admin.createTopics(List.of(new NewTopic(topic, 2, (short) 1))).all().get();
            int before = partitions(admin, topic, 2);
            admin.createPartitions(Map.of(topic, NewPartitions.increaseTo(4))).all().get();
            int after = partitions(admin, topic, 4);
            boolean listed = admin.listTopics().names().get().contains(topic);
            admin.deleteTopics(List.of(topic)).all().get();
            return Map.of("before", before, "after", after, "listed", listed, "gone", partitions(admin, topic, 0) == 0);
        }
    }

    /** Brokers learn of a change a moment after it was answered. */
    private static int partitions(Admin admin, String topic, int wanted) throws Exception {
        int found = -1;
        for (long end = System.currentTimeMillis() + Matrix.PATIENCE_MS; System.currentTimeMillis() < end; ) {
            try {
                found = admin.describeTopics(List.of(topic)).allTopicNames().get().get(topic).partitions().size();
            } catch (ExecutionException error) {
                if (!(error.getCause() instanceof UnknownTopicOrPartitionException)) {
                    throw error;
                }
                found = 0;
            }
            if (found == wanted) {
                break;
            }
            Thread.sleep(50);
        }
        return found;
    }

    Map<String, ?> configs() throws Exception {
        var topic = new ConfigResource(ConfigResource.Type.TOPIC, matrix.prefix + "-configs");
        var broker = new ConfigResource(ConfigResource.Type.BROKER, "1");
        try (Admin admin = open()) {
            var set = new AlterConfigOp(new ConfigEntry("retention.ms", "123456789"), AlterConfigOp.OpType.SET);
            admin.incrementalAlterConfigs(Map.of(topic, List.of(set))).all().get();
            String retention = "";
            for (int attempt = 0; attempt < 100 && !retention.equals("123456789"); attempt++) {
                retention = admin.describeConfigs(List.of(topic)).all().get().get(topic).get("retention.ms").value();
                Thread.sleep(20);
            }
            String threads = admin.describeConfigs(List.of(broker)).all().get().get(broker).get("num.io.threads").value();
            return Map.of("retention", retention, "broker", threads);
        }
    }

    Map<String, ?> acls() throws Exception {
        var resource = new ResourcePattern(ResourceType.TOPIC, matrix.prefix, PatternType.PREFIXED);
        var entry = new AccessControlEntry("User:matrix", "*", AclOperation.READ, AclPermissionType.ALLOW);
        var binding = new AclBinding(resource, entry);
        try (Admin admin = open()) {
            admin.createAcls(List.of(binding)).all().get();
            int found = 0;
            for (int attempt = 0; attempt < 100 && found == 0; attempt++) {
                found = admin.describeAcls(binding.toFilter()).values().get().size();
                Thread.sleep(20);
            }
            int deleted = admin.deleteAcls(List.of(binding.toFilter())).all().get().size();
            return Map.of("found", found, "deleted", deleted);
        }
    }

    Map<String, ?> quotas() throws Exception {
        var entity = new ClientQuotaEntity(Map.of(ClientQuotaEntity.CLIENT_ID, matrix.prefix));
        var filter = ClientQuotaFilter.containsOnly(
            List.of(ClientQuotaFilterComponent.ofEntity(ClientQuotaEntity.CLIENT_ID, matrix.prefix)));
        try (Admin admin = open()) {
            var op = new ClientQuotaAlteration.Op("producer_byte_rate", 1_000_000.0);
            admin.alterClientQuotas(List.of(new ClientQuotaAlteration(entity, List.of(op)))).all().get();
            Map<String, Double> found = null;
            for (int attempt = 0; attempt < 100 && found == null; attempt++) {
                found = admin.describeClientQuotas(filter).entities().get().get(entity);
                Thread.sleep(20);
            }
            var remove = new ClientQuotaAlteration.Op("producer_byte_rate", null);
            admin.alterClientQuotas(List.of(new ClientQuotaAlteration(entity, List.of(remove)))).all().get();
            return Map.of("rate", Optional.ofNullable(found).map(each -> each.get("producer_byte_rate")).orElse(-1.0));
        }
    }

    Map<String, ?> groups() throws Exception {
        String group = matrix.prefix + "-groups";
        var partition = new TopicPartition(Matrix.COMMON, 0);
        try (Admin admin = open()) {
            admin.alterConsumerGroupOffsets(group, Map.of(partition, new OffsetAndMetadata(5))).all().get();
            long offset = admin.listConsumerGroupOffsets(group).partitionsToOffsetAndMetadata().get().get(partition).offset();
            String state = admin.describeConsumerGroups(List.of(group)).all().get().get(group).state().toString();
            boolean listed = admin.listConsumerGroups().all().get().stream().anyMatch(each -> each.groupId().equals(group));
            admin.deleteConsumerGroups(List.of(group)).all().get();
            boolean after = admin.listConsumerGroups().all().get().stream().anyMatch(each -> each.groupId().equals(group));
            return Map.of("offset", offset, "state", state, "listed", listed, "gone", !after);
        }
    }

    Map<String, ?> deleteRecords() throws Exception {
        new Producing(matrix).send("delete-records");
        var partition = new TopicPartition(matrix.prefix + "-delete-records", 0);
        try (Admin admin = open()) {
            long low = admin.deleteRecords(Map.of(partition, RecordsToDelete.beforeOffset(4))).all()
                .thenApply(nothing -> 0L).get();
            low = admin.listOffsets(Map.of(partition, OffsetSpec.earliest())).all().get().get(partition).offset();
            return Map.of("low", low);
        }
    }

    Map<String, ?> cluster() throws Exception {
        try (Admin admin = open()) {
            var cluster = admin.describeCluster();
            List<Integer> nodes = cluster.nodes().get().stream().map(each -> each.id()).sorted().toList();
            return Map.of("cluster", cluster.clusterId().get(), "nodes", nodes, "controller",
                nodes.contains(cluster.controller().get().id()));
        }
    }

    Admin open() {
        return Admin.create(matrix.properties());
    }
}
