package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// read takes every topic from its beginning to the end it had at the start, one line per record into the file "out".
func read(ctx context.Context, req request, result answer) error {
	isolation := kgo.ReadCommitted()
	if req.Config["isolation.level"] == "read_uncommitted" {
		isolation = kgo.ReadUncommitted()
	}
	client, err := kgo.NewClient(kgo.SeedBrokers(strings.Split(req.Bootstrap, ",")...), kgo.FetchIsolationLevel(isolation),
		kgo.KeepControlRecords(), kgo.FetchMaxBytes(16<<20))
	if err != nil {
		return err
	}
	defer client.Close()
	ends, err := endOffsets(ctx, client, req)
	if err != nil {
		return err
	}
	starts := map[string]map[int32]kgo.Offset{}
	remaining := 0
	ends.Each(func(end kadm.ListedOffset) {
		if end.Offset == 0 {
			return
		}
		if starts[end.Topic] == nil {
			starts[end.Topic] = map[int32]kgo.Offset{}
		}
		starts[end.Topic][end.Partition] = kgo.NewOffset().AtStart()
		remaining++
	})
	file, err := os.Create(req.Out)
	if err != nil {
		return err
	}
	defer file.Close()
	out := bufio.NewWriterSize(file, 1<<20)
	client.AddConsumePartitions(starts)
	count, done := 0, map[string]bool{}
	for len(done) < remaining {
		fetches := client.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			return fmt.Errorf("read %v: %w", req.Topics, err)
		}
		fetches.EachRecord(func(each *kgo.Record) {
			end, _ := ends.Lookup(each.Topic, each.Partition)
			if each.Offset < end.Offset && !each.Attrs.IsControl() {
				write(out, each, req.Full)
				count++
			}
			// Markers are kept, so that a log that ends with one is seen to end.
			if each.Offset >= end.Offset-1 {
				done[fmt.Sprint(each.Topic, "/", each.Partition)] = true
			}
		})
		// What ends in aborted records shows no last record: the position tells.
		for topic, partitions := range client.UncommittedOffsets() {
			for partition, position := range partitions {
				if end, ok := ends.Lookup(topic, partition); ok && position.Offset >= end.Offset {
					done[fmt.Sprint(topic, "/", partition)] = true
				}
			}
		}
	}
	result["records"] = count
	return out.Flush()
}

func endOffsets(ctx context.Context, client *kgo.Client, req request) (kadm.ListedOffsets, error) {
	admin := kadm.NewClient(client)
	var ends kadm.ListedOffsets
	var err error
	if req.Config["isolation.level"] == "read_uncommitted" {
		ends, err = admin.ListEndOffsets(ctx, req.Topics...)
	} else {
		ends, err = admin.ListCommittedOffsets(ctx, req.Topics...)
	}
	if err == nil {
		err = ends.Error()
	}
	return ends, err
}

func write(out *bufio.Writer, each *kgo.Record, full bool) {
	kind := "C"
	if each.Attrs.TimestampType() == 1 {
		kind = "L"
	}
	fmt.Fprintf(out, "%s\t%d\t%d\t%d\t%s\t%x", each.Topic, each.Partition, each.Offset, each.Timestamp.UnixMilli(), kind, digest(each))
	if full {
		var headers strings.Builder
		for _, header := range each.Headers {
			headers.WriteString(encode(append([]byte{}, header.Key...)) + ":" + encode(header.Value) + ",")
		}
		fmt.Fprintf(out, "\t%s\t%s\t%s", encode(each.Key), encode(each.Value), headers.String())
	}
	out.WriteByte('\n')
}
