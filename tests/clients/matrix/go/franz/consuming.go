package main

import (
	"context"
	"fmt"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"teeline/tests/clients/matrix/go/contract"
)

func consume(run *contract.Run) (saw, error) {
	client, err := open(run, kgo.ConsumeTopics(contract.Common), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		return nil, err
	}
	defer client.Close()
	lines, err := read(client)
	return saw{"records": len(lines), "sha256": lines.Digest()}, err
}

func read(client *kgo.Client) (contract.Lines, error) {
	ctx, cancel := patient()
	defer cancel()
	lines := contract.Lines{}
	for len(lines) < contract.CommonRecords && ctx.Err() == nil {
		fetches := client.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			return lines, err
		}
		fetches.EachRecord(func(record *kgo.Record) {
			lines.Add(record.Partition, record.Offset, record.Key, record.Value)
		})
	}
	return lines, nil
}

func group(run *contract.Run, feature string, options ...kgo.GroupOpt) (saw, error) {
	name := run.Topic(feature)
	all := []kgo.Opt{kgo.ConsumerGroup(name), kgo.ConsumeTopics(contract.Common), kgo.DisableAutoCommit(),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart())}
	for _, option := range options {
		all = append(all, option)
	}
	client, err := open(run, all...)
	if err != nil {
		return nil, err
	}
	defer client.Close()
	lines, err := read(client)
	if err != nil {
		return nil, err
	}
	ctx, cancel := patient()
	defer cancel()
	if err := client.CommitUncommittedOffsets(ctx); err != nil {
		return nil, err
	}
	if feature == "group-next-gen" {
		// With brokers that lack the new protocol this client takes the classic one, and says nothing.
		described, err := kadm.NewClient(client).DescribeConsumerGroups(ctx, name)
		if err := firstOf(err, described.Error()); err != nil {
			return nil, fmt.Errorf("the client took the classic protocol: %w", err)
		}
	}
	client.LeaveGroup()
	sum, err := committed(run, name)
	return saw{"records": len(lines), "committed": sum}, err
}

func committed(run *contract.Run, group string) (int64, error) {
	client, err := open(run)
	if err != nil {
		return 0, err
	}
	defer client.Close()
	ctx, cancel := patient()
	defer cancel()
	answers, err := kadm.NewClient(client).FetchOffsets(ctx, group)
	sum := int64(0)
	answers.Each(func(each kadm.OffsetResponse) { sum += each.At })
	return sum, firstOf(err, answers.Error())
}

func offsets(run *contract.Run) (saw, error) {
	client, err := open(run)
	if err != nil {
		return nil, err
	}
	defer client.Close()
	ctx, cancel := patient()
	defer cancel()
	admin := kadm.NewClient(client)
	earliest, err1 := admin.ListStartOffsets(ctx, contract.Common)
	latest, err2 := admin.ListEndOffsets(ctx, contract.Common)
	atTime, err3 := admin.ListOffsetsAfterMilli(ctx, 1, contract.Common)
	return saw{"earliest": sorted(earliest), "latest": sorted(latest), "at_time": sorted(atTime)}, firstOf(err1, err2, err3)
}

func sorted(listed kadm.ListedOffsets) []int64 {
	list := make([]int64, contract.Partitions)
	listed.Each(func(each kadm.ListedOffset) { list[each.Partition] = each.Offset })
	return list
}

func share(run *contract.Run) (saw, error) {
	name := run.Topic("share")
	if err := shareFromStart(run, name); err != nil {
		return nil, err
	}
	client, err := open(run, kgo.ShareGroup(name), kgo.ConsumeTopics(contract.Common))
	if err != nil {
		return nil, err
	}
	defer client.Close()
	lines, err := read(client)
	if err != nil {
		return nil, err
	}
	ctx, cancel := patient()
	defer cancel()
	return saw{"records": len(lines)}, client.FlushAcks(ctx)
}

func shareFromStart(run *contract.Run, group string) error {
	client, err := open(run)
	if err != nil {
		return err
	}
	defer client.Close()
	value := "earliest"
	config := kmsg.NewIncrementalAlterConfigsRequestResourceConfig()
	config.Name, config.Value = "share.auto.offset.reset", &value
	resource := kmsg.NewIncrementalAlterConfigsRequestResource()
	resource.ResourceType, resource.ResourceName = kmsg.ConfigResourceTypeGroupConfig, group
	resource.Configs = append(resource.Configs, config)
	request := kmsg.NewPtrIncrementalAlterConfigsRequest()
	request.Resources = append(request.Resources, resource)
	ctx, cancel := context.WithTimeout(context.Background(), contract.Patience)
	defer cancel()
	answer, err := request.RequestWith(ctx, client)
	if err == nil {
		err = kerr.ErrorForCode(answer.Resources[0].ErrorCode)
	}
	return err
}
