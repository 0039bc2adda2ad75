package main

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"os"
	"strings"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// readRaw fetches what the leaders have of every partition, from the log start to the high watermark, as the bytes of
// the record batches: aborted records and markers included, nothing decoded. One file per partition, next to "out".
func readRaw(ctx context.Context, req request, result answer) error {
	client, err := kgo.NewClient(kgo.SeedBrokers(strings.Split(req.Bootstrap, ",")...))
	if err != nil {
		return err
	}
	defer client.Close()
	admin := kadm.NewClient(client)
	topics, err := admin.ListTopics(ctx, req.Topics...)
	if err == nil {
		err = topics.Error()
	}
	if err != nil {
		return err
	}
	starts, err := admin.ListStartOffsets(ctx, req.Topics...)
	if err == nil {
		err = starts.Error()
	}
	if err != nil {
		return err
	}
	ends, err := admin.ListEndOffsets(ctx, req.Topics...)
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		return err
	}
	rows := []answer{}
	for _, topic := range topics.Sorted() {
		for _, partition := range topic.Partitions.Sorted() {
			start, _ := starts.Lookup(topic.Topic, partition.Partition)
			end, _ := ends.Lookup(topic.Topic, partition.Partition)
			file := fmt.Sprintf("%s.%s.%d", req.Out, topic.Topic, partition.Partition)
			log := rawLog{client: client, topic: topic, partition: partition}
			if err := log.copy(ctx, file, start.Offset, end.Offset); err != nil {
				return fmt.Errorf("fetch %s/%d: %w", topic.Topic, partition.Partition, err)
			}
			rows = append(rows, answer{"topic": topic.Topic, "topic_id": hex.EncodeToString(topic.ID[:]),
				"partition": partition.Partition, "log_start": start.Offset, "high_watermark": end.Offset,
				"leader_epoch": partition.LeaderEpoch, "file": file})
		}
	}
	result["partitions"] = rows
	return nil
}

// ends tells of every partition how far it reaches, and how far its transactions have ended.
func ends(ctx context.Context, req request, result answer) error {
	client, err := kgo.NewClient(kgo.SeedBrokers(strings.Split(req.Bootstrap, ",")...))
	if err != nil {
		return err
	}
	defer client.Close()
	admin := kadm.NewClient(client)
	all, err := admin.ListEndOffsets(ctx, req.Topics...)
	if err == nil {
		err = all.Error()
	}
	if err != nil {
		return err
	}
	stable, err := admin.ListCommittedOffsets(ctx, req.Topics...)
	if err == nil {
		err = stable.Error()
	}
	if err != nil {
		return err
	}
	rows := []answer{}
	all.Each(func(end kadm.ListedOffset) {
		ended, _ := stable.Lookup(end.Topic, end.Partition)
		rows = append(rows, answer{"topic": end.Topic, "partition": end.Partition, "high_watermark": end.Offset,
			"last_stable_offset": ended.Offset})
	})
	result["partitions"] = rows
	return nil
}

type rawLog struct {
	client    *kgo.Client
	topic     kadm.TopicDetail
	partition kadm.PartitionDetail
}

// copy writes whole batches until one holds or follows the last offset.
func (this rawLog) copy(ctx context.Context, path string, next, end int64) error {
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	defer file.Close()
	for next < end {
		batches, err := this.fetch(ctx, next)
		if err != nil {
			return err
		}
		before := next
		for len(batches) >= 61 && next < end {
			length := 12 + int(binary.BigEndian.Uint32(batches[8:]))
			if length > len(batches) {
				break
			}
			base := int64(binary.BigEndian.Uint64(batches))
			if _, err := file.Write(batches[:length]); err != nil {
				return err
			}
			next = base + int64(binary.BigEndian.Uint32(batches[23:])) + 1
			batches = batches[length:]
		}
		// Compaction can leave nothing between here and the high watermark.
		if next == before {
			return nil
		}
	}
	return nil
}

func (this rawLog) fetch(ctx context.Context, offset int64) ([]byte, error) {
	partition := kmsg.NewFetchRequestTopicPartition()
	partition.Partition, partition.FetchOffset = this.partition.Partition, offset
	partition.CurrentLeaderEpoch, partition.PartitionMaxBytes = -1, 8<<20
	topic := kmsg.NewFetchRequestTopic()
	topic.Topic, topic.TopicID = this.topic.Topic, this.topic.ID
	topic.Partitions = append(topic.Partitions, partition)
	request := kmsg.NewPtrFetchRequest()
	request.MaxWaitMillis, request.MinBytes, request.MaxBytes = 500, 1, 16<<20
	request.IsolationLevel = 0
	request.Topics = append(request.Topics, topic)
	answered, err := this.client.Broker(int(this.partition.Leader)).RetriableRequest(ctx, request)
	if err != nil {
		return nil, err
	}
	response := answered.(*kmsg.FetchResponse)
	if err := kerr.ErrorForCode(response.ErrorCode); err != nil {
		return nil, err
	}
	if len(response.Topics) != 1 || len(response.Topics[0].Partitions) != 1 {
		return nil, fmt.Errorf("an answer about %d topics", len(response.Topics))
	}
	found := response.Topics[0].Partitions[0]
	return found.RecordBatches, kerr.ErrorForCode(found.ErrorCode)
}
