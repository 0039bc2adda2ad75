package main

import (
	"context"
	"errors"
	"slices"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"teeline/tests/clients/matrix/go/contract"
)

// administered runs f with an admin client.
func administered(run *contract.Run, f func(context.Context, *kadm.Client) (saw, error)) (saw, error) {
	client, err := open(run)
	if err != nil {
		return nil, err
	}
	defer client.Close()
	ctx, cancel := patient()
	defer cancel()
	return f(ctx, kadm.NewClient(client))
}

func topics(run *contract.Run) (saw, error) {
	return administered(run, func(ctx context.Context, admin *kadm.Client) (saw, error) {
		topic := run.Topic("made")
		if _, err := admin.CreateTopic(ctx, 2, 1, nil, topic); err != nil {
			return nil, err
		}
		before, err1 := partitions(ctx, admin, topic, 2)
		grown, err2 := admin.UpdatePartitions(ctx, 4, topic)
		if err := firstOf(err1, err2, grown.Error()); err != nil {
			return nil, err
		}
		after, err3 := partitions(ctx, admin, topic, 4)
		listed, err4 := admin.ListTopics(ctx)
		deleted, err5 := admin.DeleteTopics(ctx, topic)
		if err := firstOf(err3, err4, err5, deleted.Error()); err != nil {
			return nil, err
		}
		gone, err := partitions(ctx, admin, topic, 0)
		return saw{"before": before, "after": after, "listed": listed.Has(topic), "gone": gone == 0}, err
	})
}

func partitions(ctx context.Context, admin *kadm.Client, topic string, wanted int) (int, error) {
	found := -1
	err := contract.Until(func() (bool, error) {
		topics, err := admin.ListTopics(ctx, topic)
		if err != nil {
			return false, err
		}
		detail := topics[topic]
		if detail.Err != nil && !errors.Is(detail.Err, kerr.UnknownTopicOrPartition) {
			return false, detail.Err
		}
		found = len(detail.Partitions)
		return found == wanted, nil
	})
	return found, err
}

func configs(run *contract.Run) (saw, error) {
	return administered(run, func(ctx context.Context, admin *kadm.Client) (saw, error) {
		topic, value := run.Topic("configs"), "123456789"
		altered, err := admin.AlterTopicConfigs(ctx, []kadm.AlterConfig{{Op: kadm.SetConfig, Name: "retention.ms", Value: &value}}, topic)
		if err == nil && altered[0].Err != nil {
			err = altered[0].Err
		}
		if err != nil {
			return nil, err
		}
		retention := ""
		err = contract.Until(func() (bool, error) {
			found, err := admin.DescribeTopicConfigs(ctx, topic)
			retention = config(found, "retention.ms")
			return retention == value, err
		})
		if err != nil {
			return nil, err
		}
		broker, err := admin.DescribeBrokerConfigs(ctx, 1)
		return saw{"retention": retention, "broker": config(broker, "num.io.threads")}, err
	})
}

func config(resources kadm.ResourceConfigs, name string) string {
	for _, resource := range resources {
		for _, each := range resource.Configs {
			if each.Key == name {
				return each.MaybeValue()
			}
		}
	}
	return ""
}

func acls(run *contract.Run) (saw, error) {
	return administered(run, func(ctx context.Context, admin *kadm.Client) (saw, error) {
		builder := kadm.NewACLs().Topics(run.Prefix).ResourcePatternType(kmsg.ACLResourcePatternTypePrefixed).
			Allow("User:matrix").AllowHosts("*").Operations(kmsg.ACLOperationRead)
		created, err := admin.CreateACLs(ctx, builder)
		if err == nil && created[0].Err != nil {
			err = created[0].Err
		}
		if err != nil {
			return nil, err
		}
		filter := builder
		found := 0
		err = contract.Until(func() (bool, error) {
			described, err := admin.DescribeACLs(ctx, filter)
			found = 0
			for _, each := range described {
				found += len(each.Described)
			}
			return found == 1, err
		})
		if err != nil {
			return nil, err
		}
		results, err := admin.DeleteACLs(ctx, filter)
		deleted := 0
		for _, each := range results {
			deleted += len(each.Deleted)
		}
		return saw{"found": found, "deleted": deleted}, err
	})
}

func quotas(run *contract.Run) (saw, error) {
	return administered(run, func(ctx context.Context, admin *kadm.Client) (saw, error) {
		entity := kadm.ClientQuotaEntity{{Type: "client-id", Name: &run.Prefix}}
		alter := func(op kadm.AlterClientQuotaOp) error {
			_, err := admin.AlterClientQuotas(ctx, []kadm.AlterClientQuotaEntry{{Entity: entity, Ops: []kadm.AlterClientQuotaOp{op}}})
			return err
		}
		if err := alter(kadm.AlterClientQuotaOp{Key: "producer_byte_rate", Value: 1_000_000}); err != nil {
			return nil, err
		}
		rate := -1.0
		err := contract.Until(func() (bool, error) {
			found, err := admin.DescribeClientQuotas(ctx, true, []kadm.DescribeClientQuotaComponent{
				{Type: "client-id", MatchName: &run.Prefix, MatchType: kmsg.QuotasMatchTypeExact}})
			if len(found) == 1 {
				rate = found[0].Values[0].Value
			}
			return rate > 0, err
		})
		return saw{"rate": rate}, firstOf(err, alter(kadm.AlterClientQuotaOp{Key: "producer_byte_rate", Remove: true}))
	})
}

func groups(run *contract.Run) (saw, error) {
	return administered(run, func(ctx context.Context, admin *kadm.Client) (saw, error) {
		group := run.Topic("groups")
		commit := kadm.Offsets{}
		commit.Add(kadm.Offset{Topic: contract.Common, Partition: 0, At: 5})
		if err := admin.CommitAllOffsets(ctx, group, commit); err != nil {
			return nil, err
		}
		offset, err1 := committed(run, group)
		described, err2 := admin.DescribeGroups(ctx, group)
		listed, err3 := admin.ListGroups(ctx)
		_, err4 := admin.DeleteGroup(ctx, group)
		after, err5 := admin.ListGroups(ctx)
		_, was := listed[group]
		_, still := after[group]
		return saw{"offset": offset, "state": described[group].State, "listed": was, "gone": !still},
			firstOf(err1, err2, err3, err4, err5)
	})
}

func deleteRecords(run *contract.Run) (saw, error) {
	if err := produce(run, "delete-records"); err != nil {
		return nil, err
	}
	return administered(run, func(ctx context.Context, admin *kadm.Client) (saw, error) {
		topic, before := run.Topic("delete-records"), kadm.Offsets{}
		before.Add(kadm.Offset{Topic: topic, Partition: 0, At: 4})
		deleted, err1 := admin.DeleteRecords(ctx, before)
		starts, err2 := admin.ListStartOffsets(ctx, topic)
		low, _ := starts.Lookup(topic, 0)
		return saw{"low": low.Offset}, firstOf(err1, deleted.Error(), err2)
	})
}

func cluster(run *contract.Run) (saw, error) {
	return administered(run, func(ctx context.Context, admin *kadm.Client) (saw, error) {
		metadata, err := admin.BrokerMetadata(ctx)
		nodes := metadata.Brokers.NodeIDs()
		return saw{"cluster": metadata.Cluster, "nodes": nodes, "controller": slices.Contains(nodes, metadata.Controller)}, err
	})
}
