package main

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/segmentio/kafka-go"

	"teeline/tests/clients/matrix/go/contract"
)

func administered(run *contract.Run, f func(context.Context, *kafka.Client) (saw, error)) (saw, error) {
	transport, err := transport(run)
	if err != nil {
		return nil, err
	}
	defer transport.CloseIdleConnections()
	ctx, cancel := patient()
	defer cancel()
	return f(ctx, &kafka.Client{Addr: kafka.TCP(strings.Split(run.Bootstrap, ",")...), Timeout: contract.Patience, Transport: transport})
}

func offsets(run *contract.Run) (saw, error) {
	return administered(run, func(ctx context.Context, client *kafka.Client) (saw, error) {
		result := saw{}
		for name, at := range map[string]int64{"earliest": kafka.FirstOffset, "latest": kafka.LastOffset} {
			var requests []kafka.OffsetRequest
			for partition := range contract.Partitions {
				requests = append(requests, kafka.OffsetRequest{Partition: partition, Timestamp: at})
			}
			answer, err := client.ListOffsets(ctx, &kafka.ListOffsetsRequest{Topics: map[string][]kafka.OffsetRequest{contract.Common: requests}})
			if err != nil {
				return nil, err
			}
			list := make([]int64, contract.Partitions)
			for _, each := range answer.Topics[contract.Common] {
				list[each.Partition] = each.LastOffset
				if at == kafka.FirstOffset {
					list[each.Partition] = each.FirstOffset
				}
			}
			result[name] = list
		}
		return result, nil
	})
}

func committed(run *contract.Run, group string) (int64, error) {
	sum := int64(0)
	_, err := administered(run, func(ctx context.Context, client *kafka.Client) (saw, error) {
		offsets, err := client.ConsumerOffsets(ctx, kafka.TopicAndGroup{Topic: contract.Common, GroupId: group})
		for _, offset := range offsets {
			sum += max(offset, 0)
		}
		return nil, err
	})
	return sum, err
}

func topics(run *contract.Run) (saw, error) {
	return administered(run, func(ctx context.Context, client *kafka.Client) (saw, error) {
		topic := run.Topic("made")
		created, err := client.CreateTopics(ctx, &kafka.CreateTopicsRequest{Topics: []kafka.TopicConfig{{Topic: topic, NumPartitions: 2, ReplicationFactor: 1}}})
		if err = errors.Join(err, errorOf(created.Errors, topic)); err != nil {
			return nil, err
		}
		before, err := partitions(ctx, client, topic, 2)
		if err != nil {
			return nil, err
		}
		grown, err := client.CreatePartitions(ctx, &kafka.CreatePartitionsRequest{Topics: []kafka.TopicPartitionsConfig{{Name: topic, Count: 4}}})
		if err = errors.Join(err, errorOf(grown.Errors, topic)); err != nil {
			return nil, err
		}
		after, err := partitions(ctx, client, topic, 4)
		if err != nil {
			return nil, err
		}
		deleted, err := client.DeleteTopics(ctx, &kafka.DeleteTopicsRequest{Topics: []string{topic}})
		if err = errors.Join(err, errorOf(deleted.Errors, topic)); err != nil {
			return nil, err
		}
		gone, err := partitions(ctx, client, topic, 0)
		return saw{"before": before, "after": after, "gone": gone == 0}, err
	})
}

func errorOf(errors map[string]error, topic string) error { return errors[topic] }

func partitions(ctx context.Context, client *kafka.Client, topic string, wanted int) (int, error) {
	found := -1
	err := contract.Until(func() (bool, error) {
		answer, err := client.Metadata(ctx, &kafka.MetadataRequest{Topics: []string{topic}})
		if err != nil {
			return false, err
		}
		if err := answer.Topics[0].Error; err != nil && !errors.Is(err, kafka.UnknownTopicOrPartition) {
			return false, err
		}
		found = len(answer.Topics[0].Partitions)
		return found == wanted, nil
	})
	return found, err
}

func configs(run *contract.Run) (saw, error) {
	return administered(run, func(ctx context.Context, client *kafka.Client) (saw, error) {
		topic := run.Topic("configs")
		altered, err := client.IncrementalAlterConfigs(ctx, &kafka.IncrementalAlterConfigsRequest{
			Resources: []kafka.IncrementalAlterConfigsRequestResource{{ResourceType: kafka.ResourceTypeTopic, ResourceName: topic,
				Configs: []kafka.IncrementalAlterConfigsRequestConfig{{Name: "retention.ms", Value: "123456789", ConfigOperation: kafka.ConfigOperationSet}}}}})
		if err != nil {
			return nil, err
		}
		if err := altered.Resources[0].Error; err != nil {
			return nil, err
		}
		retention := ""
		err = contract.Until(func() (bool, error) {
			retention, err = config(ctx, client, kafka.ResourceTypeTopic, topic, "retention.ms")
			return retention == "123456789", err
		})
		if err != nil {
			return nil, err
		}
		broker, err := config(ctx, client, kafka.ResourceTypeBroker, "1", "num.io.threads")
		return saw{"retention": retention, "broker": broker}, err
	})
}

func config(ctx context.Context, client *kafka.Client, kind kafka.ResourceType, name, key string) (string, error) {
	answer, err := client.DescribeConfigs(ctx, &kafka.DescribeConfigsRequest{Resources: []kafka.DescribeConfigRequestResource{
		{ResourceType: kind, ResourceName: name, ConfigNames: []string{key}}}})
	if err != nil {
		return "", err
	}
	for _, entry := range answer.Resources[0].ConfigEntries {
		if entry.ConfigName == key {
			return entry.ConfigValue, nil
		}
	}
	return "", answer.Resources[0].Error
}

func acls(run *contract.Run) (saw, error) {
	return administered(run, func(ctx context.Context, client *kafka.Client) (saw, error) {
		created, err := client.CreateACLs(ctx, &kafka.CreateACLsRequest{ACLs: []kafka.ACLEntry{{ResourceType: kafka.ResourceTypeTopic, ResourceName: run.Prefix,
			ResourcePatternType: kafka.PatternTypePrefixed, Principal: "User:matrix", Host: "*", Operation: kafka.ACLOperationTypeRead, PermissionType: kafka.ACLPermissionTypeAllow}}})
		if err != nil {
			return nil, err
		}
		if err := errors.Join(created.Errors...); err != nil {
			return nil, err
		}
		found := 0
		err = contract.Until(func() (bool, error) {
			described, err := client.DescribeACLs(ctx, &kafka.DescribeACLsRequest{Filter: kafka.ACLFilter{ResourceTypeFilter: kafka.ResourceTypeTopic,
				ResourceNameFilter: run.Prefix, ResourcePatternTypeFilter: kafka.PatternTypePrefixed, Operation: kafka.ACLOperationTypeAny, PermissionType: kafka.ACLPermissionTypeAny}})
			if err != nil {
				return false, err
			}
			found = len(described.Resources)
			return found == 1, described.Error
		})
		if err != nil {
			return nil, err
		}
		deleted, err := client.DeleteACLs(ctx, &kafka.DeleteACLsRequest{Filters: []kafka.DeleteACLsFilter{{ResourceTypeFilter: kafka.ResourceTypeTopic,
			ResourceNameFilter: run.Prefix, ResourcePatternTypeFilter: kafka.PatternTypePrefixed, Operation: kafka.ACLOperationTypeAny, PermissionType: kafka.ACLPermissionTypeAny}}})
		if err != nil {
			return nil, err
		}
		return saw{"found": found, "deleted": len(deleted.Results[0].MatchingACLs)}, deleted.Results[0].Error
	})
}

func quotas(run *contract.Run) (saw, error) {
	return administered(run, func(ctx context.Context, client *kafka.Client) (saw, error) {
		alter := func(op kafka.AlterClientQuotaOps) error {
			answer, err := client.AlterClientQuotas(ctx, &kafka.AlterClientQuotasRequest{Entries: []kafka.AlterClientQuotaEntry{{
				Entities: []kafka.AlterClientQuotaEntity{{EntityType: "client-id", EntityName: run.Prefix}}, Ops: []kafka.AlterClientQuotaOps{op}}}})
			if err != nil {
				return err
			}
			return answer.Entries[0].Error
		}
		if err := alter(kafka.AlterClientQuotaOps{Key: "producer_byte_rate", Value: 1_000_000}); err != nil {
			return nil, err
		}
		rate := -1.0
		err := contract.Until(func() (bool, error) {
			answer, err := client.DescribeClientQuotas(ctx, &kafka.DescribeClientQuotasRequest{Strict: true,
				Components: []kafka.DescribeClientQuotasRequestComponent{{EntityType: "client-id", Match: run.Prefix}}})
			if err != nil {
				return false, err
			}
			if len(answer.Entries) == 1 {
				rate = answer.Entries[0].Values[0].Value
			}
			return rate > 0, answer.Error
		})
		return saw{"rate": rate}, errors.Join(err, alter(kafka.AlterClientQuotaOps{Key: "producer_byte_rate", Remove: true}))
	})
}

func groups(run *contract.Run) (saw, error) {
	return administered(run, func(ctx context.Context, client *kafka.Client) (saw, error) {
		group := run.Topic("groups")
		commit, err := client.OffsetCommit(ctx, &kafka.OffsetCommitRequest{GroupID: group, GenerationID: -1,
			Topics: map[string][]kafka.OffsetCommit{contract.Common: {{Partition: 0, Offset: 5}}}})
		if err != nil {
			return nil, err
		}
		if err := commit.Topics[contract.Common][0].Error; err != nil {
			return nil, err
		}
		offset, err1 := committed(run, group)
		described, err2 := client.DescribeGroups(ctx, &kafka.DescribeGroupsRequest{GroupIDs: []string{group}})
		was, err3 := listed(ctx, client, group)
		deleted, err4 := client.DeleteGroups(ctx, &kafka.DeleteGroupsRequest{GroupIDs: []string{group}})
		still, err5 := listed(ctx, client, group)
		if err := errors.Join(err1, err2, err3, err4, err5); err != nil {
			return nil, err
		}
		return saw{"offset": offset, "state": described.Groups[0].GroupState, "listed": was, "gone": !still}, deleted.Errors[group]
	})
}

func listed(ctx context.Context, client *kafka.Client, group string) (bool, error) {
	answer, err := client.ListGroups(ctx, &kafka.ListGroupsRequest{})
	if err != nil {
		return false, err
	}
	for _, each := range answer.Groups {
		if each.GroupID == group {
			return true, answer.Error
		}
	}
	return false, answer.Error
}

func cluster(run *contract.Run) (saw, error) {
	return administered(run, func(ctx context.Context, client *kafka.Client) (saw, error) {
		answer, err := client.Metadata(ctx, &kafka.MetadataRequest{Topics: []string{contract.Common}})
		if err != nil {
			return nil, err
		}
		var nodes []int
		for _, broker := range answer.Brokers {
			nodes = append(nodes, broker.ID)
		}
		slices.Sort(nodes)
		return saw{"cluster": answer.ClusterID, "nodes": nodes, "controller": slices.Contains(nodes, answer.Controller.ID)}, nil
	})
}
