package main

import (
	"errors"
	"slices"
	"strings"

	"github.com/IBM/sarama"

	"teeline/tests/clients/matrix/go/contract"
)

func administrator(run *contract.Run) (sarama.ClusterAdmin, error) {
	return sarama.NewClusterAdmin(strings.Split(run.Bootstrap, ","), configuration(run))
}

func administered(run *contract.Run, f func(sarama.ClusterAdmin) (saw, error)) (saw, error) {
	admin, err := administrator(run)
	if err != nil {
		return nil, err
	}
	defer admin.Close()
	return f(admin)
}

func topics(run *contract.Run) (saw, error) {
	return administered(run, func(admin sarama.ClusterAdmin) (saw, error) {
		topic := run.Topic("made")
		if err := admin.CreateTopic(topic, &sarama.TopicDetail{NumPartitions: 2, ReplicationFactor: 1}, false); err != nil {
			return nil, err
		}
		before, err := partitions(admin, topic, 2)
		if err != nil {
			return nil, err
		}
		if err := admin.CreatePartitions(topic, 4, nil, false); err != nil {
			return nil, err
		}
		after, err := partitions(admin, topic, 4)
		if err != nil {
			return nil, err
		}
		all, err := admin.ListTopics()
		if err != nil {
			return nil, err
		}
		_, listed := all[topic]
		if err := admin.DeleteTopic(topic); err != nil {
			return nil, err
		}
		gone, err := partitions(admin, topic, 0)
		return saw{"before": before, "after": after, "listed": listed, "gone": gone == 0}, err
	})
}

func partitions(admin sarama.ClusterAdmin, topic string, wanted int) (int, error) {
	found := -1
	err := contract.Until(func() (bool, error) {
		described, err := admin.DescribeTopics([]string{topic})
		if err != nil {
			return false, err
		}
		if err := described[0].Err; err != sarama.ErrNoError && err != sarama.ErrUnknownTopicOrPartition {
			return false, err
		}
		found = len(described[0].Partitions)
		return found == wanted, nil
	})
	return found, err
}

func configs(run *contract.Run) (saw, error) {
	return administered(run, func(admin sarama.ClusterAdmin) (saw, error) {
		topic, value := run.Topic("configs"), "123456789"
		entries := map[string]sarama.IncrementalAlterConfigsEntry{
			"retention.ms": {Operation: sarama.IncrementalAlterConfigsOperationSet, Value: &value}}
		if err := admin.IncrementalAlterConfig(sarama.TopicResource, topic, entries, false); err != nil {
			return nil, err
		}
		retention := ""
		err := contract.Until(func() (bool, error) {
			var err error
			retention, err = config(admin, sarama.TopicResource, topic, "retention.ms")
			return retention == value, err
		})
		if err != nil {
			return nil, err
		}
		broker, err := config(admin, sarama.BrokerResource, "1", "num.io.threads")
		return saw{"retention": retention, "broker": broker}, err
	})
}

func config(admin sarama.ClusterAdmin, kind sarama.ConfigResourceType, name, key string) (string, error) {
	entries, err := admin.DescribeConfig(sarama.ConfigResource{Type: kind, Name: name, ConfigNames: []string{key}})
	for _, entry := range entries {
		if entry.Name == key {
			return entry.Value, nil
		}
	}
	return "", err
}

func acls(run *contract.Run) (saw, error) {
	return administered(run, func(admin sarama.ClusterAdmin) (saw, error) {
		resource := sarama.Resource{ResourceType: sarama.AclResourceTopic, ResourceName: run.Prefix, ResourcePatternType: sarama.AclPatternPrefixed}
		acl := sarama.Acl{Principal: "User:matrix", Host: "*", Operation: sarama.AclOperationRead, PermissionType: sarama.AclPermissionAllow}
		if err := admin.CreateACL(resource, acl); err != nil {
			return nil, err
		}
		filter := sarama.AclFilter{ResourceType: sarama.AclResourceTopic, ResourceName: &run.Prefix, ResourcePatternTypeFilter: sarama.AclPatternPrefixed,
			Operation: sarama.AclOperationAny, PermissionType: sarama.AclPermissionAny}
		found := 0
		err := contract.Until(func() (bool, error) {
			listed, err := admin.ListAcls(filter)
			found = 0
			for _, each := range listed {
				found += len(each.Acls)
			}
			return found == 1, err
		})
		if err != nil {
			return nil, err
		}
		deleted, err := admin.DeleteACL(filter, false)
		return saw{"found": found, "deleted": len(deleted)}, err
	})
}

func quotas(run *contract.Run) (saw, error) {
	return administered(run, func(admin sarama.ClusterAdmin) (saw, error) {
		entity := []sarama.QuotaEntityComponent{{EntityType: sarama.QuotaEntityClientID, MatchType: sarama.QuotaMatchExact, Name: run.Prefix}}
		if err := admin.AlterClientQuotas(entity, sarama.ClientQuotasOp{Key: "producer_byte_rate", Value: 1_000_000}, false); err != nil {
			return nil, err
		}
		rate := -1.0
		err := contract.Until(func() (bool, error) {
			found, err := admin.DescribeClientQuotas([]sarama.QuotaFilterComponent{
				{EntityType: sarama.QuotaEntityClientID, MatchType: sarama.QuotaMatchExact, Match: run.Prefix}}, true)
			if len(found) == 1 {
				rate = found[0].Values["producer_byte_rate"]
			}
			return rate > 0, err
		})
		remove := admin.AlterClientQuotas(entity, sarama.ClientQuotasOp{Key: "producer_byte_rate", Remove: true}, false)
		return saw{"rate": rate}, errors.Join(err, remove)
	})
}

func groups(run *contract.Run) (saw, error) {
	return administered(run, func(admin sarama.ClusterAdmin) (saw, error) {
		group := run.Topic("groups")
		offsets := map[string]map[int32]sarama.OffsetAndMetadata{contract.Common: {0: {Offset: 5, LeaderEpoch: -1}}}
		if _, err := admin.AlterConsumerGroupOffsets(group, offsets, nil); err != nil {
			return nil, err
		}
		offset, err1 := committed(run, group)
		described, err2 := admin.DescribeConsumerGroups([]string{group})
		listed, err3 := admin.ListConsumerGroups()
		if err := errors.Join(err1, err2, err3); err != nil {
			return nil, err
		}
		deleted := admin.DeleteConsumerGroup(group)
		after, err := admin.ListConsumerGroups()
		_, was := listed[group]
		_, still := after[group]
		return saw{"offset": offset, "state": described[0].State, "listed": was, "gone": !still}, errors.Join(deleted, err)
	})
}

func deleteRecords(run *contract.Run) (saw, error) {
	if err := produce(run, "delete-records", idempotent); err != nil {
		return nil, err
	}
	return administered(run, func(admin sarama.ClusterAdmin) (saw, error) {
		topic := run.Topic("delete-records")
		if err := admin.DeleteRecords(topic, map[int32]int64{0: 4}); err != nil {
			return nil, err
		}
		client, err := open(run)
		if err != nil {
			return nil, err
		}
		defer client.Close()
		low, err := client.GetOffset(topic, 0, sarama.OffsetOldest)
		return saw{"low": low}, err
	})
}

func cluster(run *contract.Run) (saw, error) {
	return administered(run, func(admin sarama.ClusterAdmin) (saw, error) {
		brokers, controller, err := admin.DescribeCluster()
		var nodes []int32
		for _, broker := range brokers {
			nodes = append(nodes, broker.ID())
		}
		slices.Sort(nodes)
		// Sarama does not show the cluster's id.
		return saw{"nodes": nodes, "controller": slices.Contains(nodes, controller)}, err
	})
}
